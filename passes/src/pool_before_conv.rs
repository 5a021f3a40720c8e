//! Averages in front of a 1x1 convolution instead of behind it, where fewer pixels are then multiplied.
//!
//! ```text
//! %m = conv %x, w, b      1x1, C -> K channels          %p = average_pool %x
//! %y = average_pool %m                           ->     %y = conv %p, w, b
//! ```
//!
//! Both are linear and act on different axes, so that they commute; a bias does so where the weights of a window sum to one,
//! which is where it holds no padding. A mean over the map likewise, behind which the convolution becomes a dense layer.
//! The transitions of DenseNets are of this form (Huang et al., 2017, section 3): a quarter of the multiplications is left.
//!
//! Needs: no groups, stride 1 and no pads of the convolution, `%m` used only here. Pays when the multiplications that go,
//! `C K (P - P')` for P pixels of `%m` and P' of `%y`, are more than what a pool over C channels reads beyond one over K.
//! Rounding moves: the sums are taken in another order.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use crate::rewrite::{Found, No, Patch, Rule, dims, operand, refuse, result, rewrite, sole_use};
use crate::weights::pointwise;
use nncc_ir::ops::reduce::ReduceKind;
use nncc_ir::{Graph, NodeId, Op};

/// The pass.
pub const PASS: Pass = Pass { name: "pool-before-conv", level: OptLevel::O2, run };

/// Multiplications that take as long as an element that is read from beyond the caches and added up.
const READ: usize = 32;

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    rewrite(g, cx, &[Rule { name: "average", find: average }])
}

fn average(g: &Graph, n: NodeId) -> Found {
    let middle = operand(g, n, 0)?;
    let conv = pointwise(g, middle.node)?;
    let (x, w) = (operand(g, middle.node, 0)?, operand(g, middle.node, 1)?);
    let of_conv = dims(g, middle)?;
    let is_mean = match g.op(n) {
        Op::AveragePool(pool) => !pool.ceil_mode && pool.pads.iter().all(|&p| p == 0),
        Op::Reduce(r) => r.kind == ReduceKind::Mean && r.keepdims && r.axes.iter().copied().eq(2..of_conv.len()),
        _ => return Err(No::Match),
    };
    if !is_mean || conv.strides.iter().any(|&s| s != 1) {
        return Err(No::Match);
    }
    let pixels = |dims: &[usize]| dims[2..].iter().product::<usize>();
    let (c, k) = (dims(g, w)?[1], of_conv[1]);
    let (before, after) = (pixels(&of_conv), pixels(&dims(g, result(n))?));
    let saved = (c * k).saturating_mul(before.saturating_sub(after));
    let read = (c.saturating_sub(k) * before).saturating_mul(READ);
    if saved <= read {
        return refuse!("{saved} multiplications an image would go, and {c} channels be pooled for {k}");
    }
    sole_use(g, middle)?;
    let mut p = Patch::standing_for(&[middle.node, n]);
    let pooled = p.op(g.op(n).clone(), &[x.into()]);
    let operands = [Some(pooled), Some(w.into()), g.operand(middle.node, 2).map(Into::into)];
    let y = p.op(conv.clone(), &operands.into_iter().flatten().collect::<Vec<_>>());
    p.replace(result(n), y);
    Ok(p)
}
