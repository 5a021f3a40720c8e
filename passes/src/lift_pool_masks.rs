//! Moves the mask of a ReLU's gradient in front of the gradient of a max pooling, where there are fewer elements.
//!
//! ```text
//! mask(y, max_pool_gradient(y, d))  ->  max_pool_gradient(y, mask(max_pool(y), d))
//! ```
//!
//! A mask is an elementwise operator that gives d or zero, by a condition on y alone: `select(y > 0, d, 0)`. An element of the
//! gradient is the sum of the d of those windows whose first maximum it is, and their maximum is y at that element: the
//! condition says of the pooled value what it said of the element. Exact, NaN included, overlapping windows included.
//!
//! The pooled value is there already, for the forward pass made it; what reads y alone between the two is a quarter as long
//! with windows of 2x2.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use crate::rewrite::{Found, No, Patch, Rule, operand, result, rewrite, sole_use};
use nncc_ir::ops::pool::MaxPoolGradient;
use nncc_ir::pointwise::{Inst, Pointwise, Scalar};
use nncc_ir::{Graph, NodeId, Op, ValueId};

/// The pass.
pub const PASS: Pass = Pass { name: "lift-pool-masks", level: OptLevel::O2, run };

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    rewrite(g, cx, &[Rule { name: "mask_of_pool_gradient", find: mask_of_pool_gradient }])
}

fn mask_of_pool_gradient(g: &Graph, n: NodeId) -> Found {
    let &[Some(a), Some(b)] = &g.operands(n)[..] else { return Err(No::Match) };
    let pooled =
        |v: ValueId, y: ValueId| matches!(g.op(v.node), Op::MaxPoolGradient(_)) && g.operand(v.node, 0) == Some(y);
    let (at, y, gradient) = match (pooled(a, b), pooled(b, a)) {
        (true, _) => (0, b, a),
        (_, true) => (1, a, b),
        _ => return Err(No::Match),
    };
    let program = g.op(n).pointwise(&[g.ty(a), g.ty(b)]).ok_or(No::Match)?;
    if !is_mask(&program, at) {
        return Err(No::Match);
    }
    sole_use(g, gradient)?;
    let Op::MaxPoolGradient(op) = g.op(gradient.node) else { return Err(No::Match) };
    let maximum = g.users(y).find_map(|(m, _)| same_windows(g, m, op).then(|| result(m))).ok_or(No::Match)?;
    let d = operand(g, gradient.node, 1)?;
    let mut p = Patch::standing_for(&[n, gradient.node]);
    let operands = if at == 0 { [d, maximum] } else { [maximum, d] };
    let masked = p.op(g.op(n).clone(), &operands.map(Into::into));
    let lifted = p.op(op.clone(), &[y.into(), masked]);
    p.replace(result(n), lifted);
    Ok(p)
}

/// Is the node a max pooling, of one result, with the windows of the gradient?
fn same_windows(g: &Graph, n: NodeId, gradient: &MaxPoolGradient) -> bool {
    let Op::MaxPool(pool) = g.op(n) else { return false };
    !pool.indices && pool.window() == gradient.window() && pool.ceil_mode == gradient.ceil_mode
}

/// What an instruction of a program has of the operand that may be masked.
#[derive(Clone, Copy, PartialEq)]
enum Has {
    /// Nothing: it depends on the others.
    Nothing,
    /// The number zero.
    Zero,
    /// The operand or zero.
    Masked,
    /// Something else.
    Other,
}

/// Does the program give its operand `k` or zero, whichever the other operands say?
fn is_mask(program: &Pointwise, k: usize) -> bool {
    let mut has: Vec<Has> = Vec::with_capacity(program.insts().len());
    for &(inst, _) in program.insts() {
        let of = |r: nncc_ir::pointwise::Ref| has[r.0 as usize];
        has.push(match inst {
            Inst::Input(n) if n as usize == k => Has::Masked,
            Inst::Const(Scalar::Float(0.0)) => Has::Zero,
            Inst::Select { cond, then, otherwise } if [cond, then, otherwise].iter().any(|r| of(*r) == Has::Masked) => {
                let kept = [then, otherwise].iter().all(|r| matches!(of(*r), Has::Masked | Has::Zero));
                if kept && matches!(of(cond), Has::Nothing | Has::Zero) { Has::Masked } else { Has::Other }
            }
            _ if inst.operands().any(|r| matches!(of(r), Has::Masked | Has::Other)) => Has::Other,
            _ => Has::Nothing,
        });
    }
    has[program.result().0 as usize] == Has::Masked
        && !matches!(program.insts()[program.result().0 as usize].0, Inst::Input(_))
}
