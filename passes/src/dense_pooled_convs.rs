//! A 1x1 convolution of a map of one pixel is a dense layer.
//!
//! ```text
//! %p = reduce %x over the map, [N, C, 1, 1]        %r = reshape %p, [N, C]
//! %y = conv %p, w[M, C, 1, 1], b              ->   %d = gemm %r, w[M, C], b, trans_b
//!                                                  %y = reshape %d, [N, M, 1, 1]
//! ```
//!
//! The squeeze-and-excitation blocks of MobileNet v3, EfficientNet and SE-ResNet, and classifiers written as convolutions.
//! A dense layer reads its weights once for the whole batch and splits over outputs, where a convolution would split over
//! pixels, of which there is one. The Reshapes are free; `sink` moves the second one behind the activation. Exact up to
//! the order of the sum.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use crate::rewrite::{Found, No, Patch, Rule, operand, result, rewrite};
use nncc_ir::ops::matmul::Gemm;
use nncc_ir::ops::reshape::Reshape;
use nncc_ir::{Dim, Graph, NodeId, Op};

/// The pass.
pub const PASS: Pass = Pass { name: "dense-pooled-convs", level: OptLevel::O2, run };

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    rewrite(g, cx, &[Rule { name: "dense", find: dense }])
}

fn dense(g: &Graph, n: NodeId) -> Found {
    let Op::Conv(c) = g.op(n) else { return Err(No::Match) };
    let (x, w, y) = (operand(g, n, 0)?, operand(g, n, 1)?, result(n));
    let one = |shape: &[Dim]| shape[2..].iter().all(|d| *d == Dim::Known(1));
    let pixel = one(&g.ty(x).shape) && one(&g.ty(y).shape) && one(&g.ty(w).shape);
    if c.group != 1 || c.pads.iter().any(|&p| p != 0) || !pixel {
        return Err(No::Match);
    }
    let mut p = Patch::standing_for(&[n]);
    let x = p.op(Reshape { shape: g.ty(x).shape[..2].to_vec() }, &[x.into()]);
    let shape = g.ty(w).shape[..2].to_vec();
    let w = match (g.constant(w), g.ty(w).dims()) {
        (Some(c), Some(dims)) => p.constant(&g.value(w).name, c.reshaped(&dims[..2]).ok_or(No::Match)?),
        _ => p.op(Reshape { shape }, &[w.into()]),
    };
    let gemm = Gemm { trans_a: false, trans_b: true, alpha: 1.0, beta: 1.0 };
    let dense = match g.operand(n, 2) {
        Some(b) => p.op(gemm, &[x, w, b.into()]),
        None => p.op(gemm, &[x, w]),
    };
    let out = p.op(Reshape { shape: g.ty(y).shape.clone() }, &[dense]);
    p.replace(y, out);
    Ok(p)
}
