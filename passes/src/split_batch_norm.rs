//! Takes a batch normalization that trains apart: its statistics, and an elementwise operator that normalises.
//!
//! ```text
//! %y, ... = batch_norm_training %x, scale, bias, ...   ->   %k, %s, ... = batch_norm_statistics %x, scale, bias, ...
//!                                                           %y = fused %x, %k, %s, program={in(0) * in(1) + in(2)}
//! ```
//!
//! Code generation knows the two halves only. The elementwise one fuses with the ReLU and the sum behind it, and can be computed
//! again in the backward pass instead of being kept. Rounding moves: `x * k + s` for `(x - mean) * inverse * scale + bias`.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use crate::rewrite::{Found, No, Patch, Rule, Val, dims, operand, rewrite};
use nncc_ir::ops::batch_norm::BatchNormStatistics;
use nncc_ir::ops::fused::Fused;
use nncc_ir::ops::reshape::Reshape;
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::{Dim, Graph, NodeId, Op, Pointwise, ValueId};

/// The pass.
pub const PASS: Pass = Pass { name: "split-batch-norm", level: OptLevel::O0, run };

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    rewrite(g, cx, &[Rule { name: "split", find: split }])
}

fn split(g: &Graph, n: NodeId) -> Found {
    let Op::BatchNormTraining(op) = g.op(n) else { return Err(No::Match) };
    let x = operand(g, n, 0)?;
    let column = dims(g, x)?.iter().enumerate().map(|(a, &d)| Dim::from(if a == 1 { d } else { 1 })).collect();
    let column = Reshape { shape: column };
    let mut p = Patch::standing_for(&[n]);
    let operands: Vec<Val> = g.operands(n).into_iter().flatten().map(Val::from).collect();
    let Val::New(statistics, _) = p.op(BatchNormStatistics::from(op), &operands) else { return Err(No::Match) };
    let [factor, addend] = [0, 1].map(|i| p.op(column.clone(), &[Val::New(statistics, i)]));
    let program = Pointwise::build(&[g.ty(x).dtype; 3], |p, v| {
        let product = p.binary(BinaryFn::Mul, v[0], v[1]);
        p.binary(BinaryFn::Add, product, v[2])
    });
    let y = p.op(Fused { root: None, program, root_operands: 0 }, &[x.into(), factor, addend]);
    p.replace(ValueId { node: n, out: 0 }, y);
    for out in 1..5 {
        p.replace(ValueId { node: n, out }, Val::New(statistics, out + 1));
    }
    Ok(p)
}
