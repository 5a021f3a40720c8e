//! One form for matrix products, the one that code generation knows.
//!
//! ```text
//! gemm a, b, c   alpha = beta = 1, c absent or a vector [N], one number a column. trans_a and trans_b are free: rows of a
//!                turned matrix are read where they lie, and weights are packed either way, so that [N, K] need not be turned.
//! matmul a, b    everything else; a constant b of rank 2 under an a of higher rank stays so: the kernel sees one matrix of
//!                all rows, and no Reshape stands between the product and what fuses with it.
//!
//! gemm, alpha, beta, c          -> add(mul(gemm, alpha), mul(c, beta)): epilogue, or folded
//! add(gemm or matmul 2-d, c[N]) -> gemm with c, if c is constant
//! matmul 2-d of transpose(a)    -> gemm, trans_a; of transpose(b): trans_b
//! gemm without c, not turned, b no constant -> matmul
//! ```
//!
//! Floats only. Exact but for `alpha`, which the definition multiplies the sum by as well.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use crate::rewrite::{Found, No, Patch, Rule, dims, operand, result, rewrite, sole_use};
use nncc_ir::ops::elementwise::Binary;
use nncc_ir::ops::matmul::{Gemm, MatMul};
use nncc_ir::ops::reshape::Reshape;
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::{Dim, Graph, NodeId, Op, ValueId};

/// The pass.
pub const PASS: Pass = Pass { name: "normalise-gemm", level: OptLevel::O0, run };

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    rewrite(
        g,
        cx,
        &[
            Rule { name: "transposed", find: transposed },
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

/// Transposes in front of a product of matrices.
fn transposed(g: &Graph, n: NodeId) -> Found {
    let op = match g.op(n) {
        Op::MatMul(_) => PLAIN,
        Op::Gemm(m) => m.clone(),
        _ => return Err(No::Match),
    };
    let (a, b, y) = (operand(g, n, 0)?, operand(g, n, 1)?, result(n));
    if !g.ty(y).dtype.is_float() || g.ty(a).rank() != 2 || g.ty(b).rank() != 2 {
        return Err(No::Match);
    }
    let turned = |v: ValueId| match g.op(v.node) {
        Op::Transpose(t) if t.perm == [1, 0] => g.operand(v.node, 0),
        _ => None,
    };
    let (from_a, from_b) = (turned(a), turned(b));
    if from_a.is_none() && from_b.is_none() {
        return Err(No::Match);
    }
    let mut p = Patch::standing_for(&[n]);
    let gemm = Gemm { trans_a: op.trans_a != from_a.is_some(), trans_b: op.trans_b != from_b.is_some(), ..op };
    let mut operands = vec![Some(from_a.unwrap_or(a).into()), Some(from_b.unwrap_or(b).into())];
    operands.extend(g.operands(n).into_iter().skip(2).map(|v| v.map(Into::into)));
    let new = p.op_optional(gemm, operands);
    p.replace(y, new);
    Ok(p)
}

/// Whether `c` is a vector with one number for each of the `columns`.
fn is_bias(g: &Graph, c: ValueId, columns: &Dim) -> bool {
    g.ty(c).shape == [columns.clone()]
}

fn factors(g: &Graph, n: NodeId) -> Found {
    let m = gemm(g, n)?;
    let y = result(n);
    let (a, b, c) = (operand(g, n, 0)?, operand(g, n, 1)?, g.operand(n, 2));
    let (dtype, columns) = (g.ty(y).dtype, &g.ty(y).shape[1]);
    let good_c = c.is_none_or(|c| is_bias(g, c, columns));
    if m.alpha == 1.0 && (c.is_none() || (m.beta == 1.0 && good_c)) {
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
        Op::Gemm(m) if g.operand(product.node, 2).is_none() && m.alpha == 1.0 => m.clone(),
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
    if m.trans_a || m.trans_b || m.alpha != 1.0 || g.operand(n, 2).is_some() || g.constant(b).is_some() {
        return Err(No::Match);
    }
    let mut p = Patch::standing_for(&[n]);
    let y = p.op(MatMul {}, &[a.into(), b.into()]);
    p.replace(result(n), y);
    Ok(p)
}
