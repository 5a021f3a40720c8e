//! Softmax written out.
//!
//! ```text
//! m = reduce_max(x, axis);  e = exp(x - m);  y = e / reduce_sum(e, axis)      ->      y = softmax(x, axis)
//! ```
//!
//! Without the maximum the quotient is the same number until `exp` overflows, where Softmax does not. It is refused: the
//! model says overflow. Reductions that drop their axis have been rewritten to keep it.

use super::{binary, first, unary};
use crate::rewrite::{Found, No, Patch, refuse, result, sole_use};
use nncc_ir::ops::reduce::ReduceKind;
use nncc_ir::ops::softmax::Softmax;
use nncc_ir::pointwise::{BinaryFn, UnaryFn};
use nncc_ir::{Graph, NodeId, Op, ValueId};

/// The one axis of `v = reduce(kind, keepdims) of x`.
fn reduced(g: &Graph, v: ValueId, kind: ReduceKind, x: ValueId) -> Option<usize> {
    match g.op(v.node) {
        Op::Reduce(r) if r.kind == kind && r.keepdims && first(g, v) == Some(x) => match r.axes[..] {
            [axis] => Some(axis),
            _ => None,
        },
        _ => None,
    }
}

pub fn softmax(g: &Graph, n: NodeId) -> Found {
    let (e, sum) = binary(g, result(n), BinaryFn::Div).ok_or(No::Match)?;
    let x = unary(g, e, UnaryFn::Exp).ok_or(No::Match)?;
    let axis = reduced(g, sum, ReduceKind::Sum, e).ok_or(No::Match)?;
    let Some((inner, max)) = binary(g, x, BinaryFn::Sub) else {
        return refuse!("exp(x) / sum(exp(x)) overflows where softmax does not");
    };
    if reduced(g, max, ReduceKind::Max, inner) != Some(axis) {
        return refuse!("what is subtracted before exp is not the maximum along axis {axis}");
    }
    sole_use(g, sum)?;
    if g.users(e).count() != 2 || g.is_output(e) {
        return refuse!("%{} has users of its own", g.value(e).name);
    }
    Ok(Patch::one(&[max.node, x.node, e.node, sum.node, n], n, Softmax { axis }, &[inner.into()]))
}
