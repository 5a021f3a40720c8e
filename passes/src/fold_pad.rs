//! Folds a Pad into the convolution or pool behind it.
//!
//! ```text
//! conv(pad(x, 0))                     ->  conv(x) with larger pads
//! average_pool(pad(x, 0))             ->  average_pool(x) with larger pads that counts them; it must not have pads that
//!                                         it does not count, nor windows that hang over (ceil_mode)
//! max_pool(pad(x, -inf))              ->  max_pool(x) with larger pads
//! max_pool(pad(x, 0)), x >= 0         ->  the same: a zero never wins against a number that is at least 0
//! ```
//!
//! Only spatial axes may be padded, and not cropped. For pools every pad must be smaller than the window, so that each
//! window keeps an element of x. Exact. A Pad with several users may stay for the others.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use crate::rewrite::{Found, No, Patch, Rule, Val, operand, refuse, result, rewrite, splat};
use nncc_ir::ops::conv::Conv;
use nncc_ir::ops::pad::PadMode;
use nncc_ir::ops::pool::{AveragePool, MaxPool};
use nncc_ir::{Graph, NodeId, Op, ValueId};

/// The pass.
pub const PASS: Pass = Pass { name: "fold-pad", level: OptLevel::O2, run };

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    rewrite(g, cx, &[Rule { name: "fold_pad", find: fold_pad }])
}

fn fold_pad(g: &Graph, n: NodeId) -> Found {
    let (pads, kernel) = match g.op(n) {
        Op::Conv(c) => (&c.pads, None),
        Op::AveragePool(p) => (&p.pads, Some(&p.kernel)),
        Op::MaxPool(p) if !p.indices => (&p.pads, Some(&p.kernel)), // indices would count padded elements
        _ => return Err(No::Match),
    };
    let padded = operand(g, n, 0)?;
    let Op::Pad(pad) = g.op(padded.node) else { return Err(No::Match) };
    if pad.mode != PadMode::Constant {
        return refuse!("pads are not constant but of mode {:?}", pad.mode);
    }
    let value = match g.operand(padded.node, 1) {
        Some(v) => splat(g, v).ok_or(No::Match)?,
        None => pad.value,
    };
    let x = operand(g, padded.node, 0)?;
    if pad.before[..2] != [0, 0] || pad.after[..2] != [0, 0] {
        return refuse!("batch or channels are padded");
    }
    let added: Option<Vec<usize>> =
        pad.before[2..].iter().chain(&pad.after[2..]).map(|&p| usize::try_from(p).ok()).collect();
    let Some(added) = added else { return refuse!("it crops") };
    let pads: Vec<usize> = pads.iter().zip(&added).map(|(a, b)| a + b).collect();
    if let Some(kernel) = kernel
        && pads.iter().enumerate().any(|(i, &p)| p >= kernel[i % kernel.len()])
    {
        return refuse!("a window could lie in the padding alone");
    }
    let op: Op = match g.op(n) {
        Op::Conv(c) if value == 0.0 => Conv { pads, ..c.clone() }.into(),
        Op::Conv(_) => return refuse!("it pads with {value}, a convolution with 0"),
        Op::AveragePool(_) if value != 0.0 => return refuse!("it pads with {value}, a pool with 0"),
        Op::AveragePool(p) if p.ceil_mode => return refuse!("windows may hang over the padded map"),
        Op::AveragePool(p) if !p.count_include_pad && p.pads.iter().any(|&p| p != 0) => {
            return refuse!("the pool has pads of its own, which it does not count");
        }
        Op::AveragePool(p) => AveragePool { pads, count_include_pad: true, ..p.clone() }.into(),
        Op::MaxPool(p) if value == f64::NEG_INFINITY || (value == 0.0 && at_least_zero(g, x)) => {
            MaxPool { pads, ..p.clone() }.into()
        }
        Op::MaxPool(_) => return refuse!("it pads with {value}, which may be larger than all elements of a window"),
        _ => return Err(No::Match),
    };
    let mut p = Patch::standing_for(&[padded.node, n]);
    let operands = g.operands(n).into_iter().enumerate();
    let operands = operands.map(|(i, v)| if i == 0 { Some(Val::Old(x)) } else { v.map(Val::Old) }).collect();
    let y = p.op_optional(op, operands);
    p.replace(result(n), y);
    Ok(p)
}

/// Whether no element of `v` is below 0, as its operator tells.
fn at_least_zero(g: &Graph, v: ValueId) -> bool {
    match g.op(v.node) {
        Op::Relu(_) | Op::HardSigmoid(_) | Op::Softplus(_) => true,
        Op::Unary(u) => {
            use nncc_ir::pointwise::UnaryFn::{Abs, Exp, Sigmoid, Sqrt};
            matches!(u.function, Abs | Exp | Sigmoid | Sqrt)
        }
        Op::Clip(_) => g.operand(v.node, 1).and_then(|low| splat(g, low)).is_some_and(|low| low >= 0.0),
        _ => false,
    }
}
