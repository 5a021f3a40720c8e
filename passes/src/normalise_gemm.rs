//! One form for matrix products, the one that code generation knows.
//!
//! ```text
//! gemm a, b, c   trans_a = false, alpha = beta = 1, c absent or a constant vector [N], one number a column.
//!                trans_b is free: weights are packed at compile time either way, so that [N, K] need not be turned.
//! matmul a, b    everything else; a constant b of rank 2 under an a of higher rank stays so: the kernel sees one matrix of
//!                all rows, and no Reshape stands between the product and what fuses with it.
//!
//! gemm, trans_a                 -> gemm of transpose(a)
//! gemm, alpha, beta, c          -> add(mul(gemm, alpha), mul(c, beta)): epilogue, or folded
//! add(gemm or matmul 2-d, c[N]) -> gemm with c, if c is constant
//! gemm without c, b no constant -> matmul, with b transposed if need be
//! ```
//!
//! Floats only. Exact but for `alpha`, which the definition multiplies the sum by as well.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use crate::rewrite::{Found, No, Patch, Rule, dims, operand, result, rewrite, sole_use};
use nncc_ir::ops::elementwise::Binary;
use nncc_ir::ops::matmul::{Gemm, MatMul};
use nncc_ir::ops::reshape::Reshape;
use nncc_ir::ops::transpose::Transpose;
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::{Dim, Graph, NodeId, Op, ValueId};

/// The pass.
pub const PASS: Pass = Pass { name: "normalise-gemm", level: OptLevel::O0, run };

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    rewrite(
        g,
        cx,
        &[
            Rule { name: "transposed_a", find: transposed_a },
            Rule { name: "factors", find: factors },
            Rule { name: "bias_behind", find: bias_behind },
            Rule { name: "computed_b", find: computed_b },
        ],
    )
}

const PLAIN: Gemm = Gemm { trans_a: false, trans_b: false, alpha: 1.0, beta: 1.0 };

fn gemm(g: &Graph, n: NodeId) -> Result<&Gemm, No> {
    match g.op(n) {
        Op::Gemm(m) if g.ty(result(n)).dtype.is_float() => Ok(m),
        _ => Err(No::Match),
    }
}

fn transposed_a(g: &Graph, n: NodeId) -> Found {
    let m = gemm(g, n)?;
    if !m.trans_a {
        return Err(No::Match);
    }
    let mut p = Patch::standing_for(&[n]);
    let a = p.op(Transpose { perm: vec![1, 0] }, &[operand(g, n, 0)?.into()]);
    let mut operands = vec![Some(a)];
    operands.extend(g.operands(n).into_iter().skip(1).map(|v| v.map(Into::into)));
    let y = p.op_optional(Gemm { trans_a: false, ..m.clone() }, operands);
    p.replace(result(n), y);
    Ok(p)
}

/// Whether `c` is a constant with one number for each of the `columns`.
fn is_bias(g: &Graph, c: ValueId, columns: &Dim) -> bool {
    g.constant(c).is_some() && g.ty(c).shape == [columns.clone()]
}

fn factors(g: &Graph, n: NodeId) -> Found {
    let m = gemm(g, n)?;
    let y = result(n);
    let (a, b, c) = (operand(g, n, 0)?, operand(g, n, 1)?, g.operand(n, 2));
    let (dtype, columns) = (g.ty(y).dtype, &g.ty(y).shape[1]);
    let good_c = c.is_none_or(|c| is_bias(g, c, columns));
    if m.trans_a || (m.alpha == 1.0 && (c.is_none() || (m.beta == 1.0 && good_c))) {
        return Err(No::Match);
    }
    let mut p = Patch::standing_for(&[n]);
    // [1, N] is a vector under another name.
    if let (1.0, 1.0, Some(c)) = (m.alpha, m.beta, c)
        && let (Some(old), Some(d)) = (g.constant(c), g.ty(c).dims())
        && d.len() == 2
        && d[0] == 1
        && g.ty(c).shape[1] == *columns
    {
        let c = p.constant(&g.value(c).name, old.reshaped(&d[1..]).ok_or(No::Match)?);
        let v = p.op(m.clone(), &[a.into(), b.into(), c]);
        p.replace(y, v);
        return Ok(p);
    }
    let mut v = p.op(Gemm { alpha: 1.0, beta: 1.0, ..m.clone() }, &[a.into(), b.into()]);
    if m.alpha != 1.0 {
        let alpha = p.scalar(dtype, m.alpha);
        v = p.op(Binary { function: BinaryFn::Mul }, &[v, alpha]);
    }
    if let Some(c) = c {
        let mut c = c.into();
        if m.beta != 1.0 {
            let beta = p.scalar(dtype, m.beta);
            c = p.op(Binary { function: BinaryFn::Mul }, &[c, beta]);
        }
        v = p.op(Binary { function: BinaryFn::Add }, &[v, c]);
    }
    p.replace(y, v);
    Ok(p)
}

fn bias_behind(g: &Graph, n: NodeId) -> Found {
    let Op::Binary(Binary { function: BinaryFn::Add }) = g.op(n) else { return Err(No::Match) };
    let (x, y) = (operand(g, n, 0)?, operand(g, n, 1)?);
    let (product, c) = if g.constant(y).is_some() { (x, y) } else { (y, x) };
    let op = match g.op(product.node) {
        Op::MatMul(_) => PLAIN,
        Op::Gemm(m) if g.operand(product.node, 2).is_none() && !m.trans_a && m.alpha == 1.0 => m.clone(),
        _ => return Err(No::Match),
    };
    let (a, b) = (operand(g, product.node, 0)?, operand(g, product.node, 1)?);
    let ty = g.ty(result(n));
    let two_d = g.ty(a).rank() == 2 && g.ty(b).rank() == 2 && g.ty(product) == ty && ty.dtype.is_float();
    if !two_d || g.constant(b).is_none() || g.constant(c).is_none() {
        return Err(No::Match);
    }
    let c_dims = dims(g, c)?;
    let row = matches!(c_dims[..], [n] | [1, n] if Some(n) == ty.shape[1].size());
    if !row {
        return Err(No::Match);
    }
    sole_use(g, product)?;
    let mut p = Patch::standing_for(&[product.node, n]);
    let c = if c_dims.len() == 1 { c.into() } else { p.op(Reshape { shape: vec![ty.shape[1].clone()] }, &[c.into()]) };
    let y = p.op(Gemm { beta: 1.0, ..op }, &[a.into(), b.into(), c]);
    p.replace(result(n), y);
    Ok(p)
}

/// Gemm is for weights: a product of two computed matrices is a MatMul.
fn computed_b(g: &Graph, n: NodeId) -> Found {
    let m = gemm(g, n)?;
    let (a, b) = (operand(g, n, 0)?, operand(g, n, 1)?);
    if m.trans_a || m.alpha != 1.0 || g.constant(b).is_some() {
        return Err(No::Match);
    }
    let mut p = Patch::standing_for(&[n]);
    let b = if m.trans_b { p.op(Transpose { perm: vec![1, 0] }, &[b.into()]) } else { b.into() };
    let mut y = p.op(MatMul {}, &[a.into(), b]);
    if let Some(c) = g.operand(n, 2) {
        y = p.op(Binary { function: BinaryFn::Add }, &[y, c.into()]);
    }
    p.replace(result(n), y);
    Ok(p)
}
