//! Matrix products.

use super::Entry;
use crate::node::{Imported, NodeCx};
use nncc_ir::ops::{einsum, matmul as ir};

pub(super) const OPS: &[Entry] = &[
    Entry::new("Einsum", &[12, 28], |n| {
        let operands = n.variadic()?;
        let Some(equation) = n.maybe_text("equation")? else { return n.invalid("the attribute `equation` is missing") };
        let operands: Vec<_> = operands.iter().map(Some).collect();
        n.emit_all(einsum::Einsum { equation: equation.replace(' ', "") }, &operands)
    }),
    Entry::new("Gemm", &[1, 6, 7, 9, 11, 13], gemm),
    Entry::new("MatMul", &[1, 9, 13], |n| {
        let (a, b) = (n.operand(0, "A")?, n.operand(1, "B")?);
        Ok(vec![n.emit(ir::MatMul {}, &[&a, &b])?])
    }),
];

/// Below opset 7 C broadcasts only if `broadcast` is set. What it broadcasts to then is what it does since, so that the flag
/// needs no other treatment than to be checked.
fn gemm(n: &mut NodeCx<'_>) -> Imported {
    let (a, b) = (n.operand(0, "A")?, n.operand(1, "B")?);
    let c = if n.version < 11 { Some(n.operand(2, "C")?) } else { n.optional(2) };
    let op = ir::Gemm {
        trans_a: n.flag("transA", false)?,
        trans_b: n.flag("transB", false)?,
        alpha: n.float("alpha", 1.0)?,
        beta: n.float("beta", 1.0)?,
    };
    if n.version < 7
        && !n.flag("broadcast", false)?
        && let Some(c) = &c
        && let ([m, k], [p, q]) = (&n.shape(&a)[..], &n.shape(&b)[..])
    {
        let wanted = [if op.trans_a { k } else { m }, if op.trans_b { p } else { q }];
        if !n.shape(c).iter().eq(wanted) {
            return n.invalid("C has not the shape of the product, and `broadcast` is not set");
        }
    }
    n.emit_all(op, &[Some(&a), Some(&b), c.as_ref()])
}
