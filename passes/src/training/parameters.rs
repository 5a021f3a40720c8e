//! Which constants of a forward graph training changes, and which it keeps.
//!
//! ```text
//! parameter    float, and: weight or bias of a convolution, Gemm or MatMul operand, scale or bias of a normalization,
//!              a PRelu's slope, the table of an embedding (operand 0 of Gather),
//!              more than one number that is added to or multiplied with something that depends on a parameter
//! statistic    running mean or variance of a batch normalization
//! neither      everything else: what preprocesses the input, masks (numbers of 10^4 or beyond, or infinite),
//!              scalars, bounds, shapes
//! ```
//!
//! A constant is followed through operators that only move it (Reshape, Transpose, Expand, Cast, ...). One that is used in
//! several ways is a parameter if one of them says so.

use nncc_ir::{Constant, Graph, NodeId, Op, ValueId};
use rustc_hash::FxHashSet;

/// What a constant is to training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Running mean or variance.
    Statistic,
    /// Learned.
    Parameter,
}

/// The constants that training changes, in the graph's order.
pub(super) fn find(g: &Graph, order: &[NodeId]) -> Vec<(NodeId, Role)> {
    let mut roles: Vec<(NodeId, Role)> = Vec::new();
    let mut learned: FxHashSet<ValueId> = FxHashSet::default();
    for &n in order {
        let operands = g.operands(n);
        let depends = operands.iter().flatten().any(|v| learned.contains(v));
        let mut takes = false;
        for (i, v) in operands.iter().enumerate() {
            let Some(source) = v.and_then(|v| constant_behind(g, v)) else { continue };
            let role = role_at(g, n, i, depends, source);
            if let Some(role) = role {
                takes |= role == Role::Parameter;
                match roles.iter_mut().find(|(node, _)| *node == source) {
                    Some((_, known)) => *known = (*known).max(role),
                    None => roles.push((source, role)),
                }
            }
        }
        if depends || takes {
            learned.extend(g.results(n));
        }
    }
    roles.sort();
    roles
}

/// The constant that a value is, moved about or not.
fn constant_behind(g: &Graph, v: ValueId) -> Option<NodeId> {
    match g.op(v.node) {
        Op::Constant(c) => c.dtype().is_float().then_some(v.node),
        Op::Reshape(_) | Op::Transpose(_) | Op::Expand(_) | Op::Identity(_) | Op::Cast(_) => {
            constant_behind(g, g.operand(v.node, 0)?)
        }
        _ => None,
    }
}

fn role_at(g: &Graph, n: NodeId, i: usize, depends: bool, source: NodeId) -> Option<Role> {
    let parameter = match g.op(n) {
        Op::BatchNorm(_) if i >= 3 => return Some(Role::Statistic),
        Op::Conv(_) | Op::ConvTranspose(_) => i >= 1,
        Op::BatchNorm(_) | Op::InstanceNorm(_) | Op::GroupNorm(_) | Op::LayerNorm(_) | Op::RmsNorm(_) => i >= 1,
        Op::Gemm(_) | Op::MatMul(_) | Op::Einsum(_) => true,
        Op::PRelu(_) => i == 1,
        Op::Gather(_) => i == 0,
        Op::Binary(_) => depends && matches!(g.op(source), Op::Constant(c) if c.elems() > 1 && !is_mask(c)),
        _ => false,
    };
    parameter.then_some(Role::Parameter)
}

/// Numbers that exclude: no weight is of this size.
fn is_mask(c: &Constant) -> bool {
    let excludes = |x: &f64| x.is_nan() || x.abs() >= 1e4;
    match c.splat_value() {
        Some(one) => one.to_f64().iter().any(excludes),
        None => c.to_tensor().to_f64().iter().any(excludes),
    }
}
