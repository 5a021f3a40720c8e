//! `Einsum`: a fold of a product, whatever the equation; every label is a loop, a sum where the result does not have it.
//!
//! The loop that becomes the vector axis is the one along which most operands are contiguous or the same for all: for
//! `ij,jk->ik` that is k (rows of the second operand, elements of the first), for `ij,kj->ik` it is the summed j.
//! Matrix products are better off as `matmul`, to which passes rewrite what they recognise.

use crate::kernels::fold::Combine;
use crate::kernels::map::Nest;
use crate::lower::fold::{Parts, lower_nest};
use crate::lower::{LowerCx, LowerError, Operand};
use nncc_ir::ops::einsum::Einsum;
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::tensor::strides_of;
use nncc_ir::{Dim, Layout, Pointwise};

/// Lowers an Einstein sum.
///
/// # Errors
/// Blocked operands.
pub fn lower(op: &Einsum, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (operands, output): (Vec<Operand>, Operand) = (cx.operands().iter().flatten().cloned().collect(), cx.output(0));
    if operands.iter().chain([&output]).any(|o| o.layout != Layout::RowMajor) {
        return Err(cx.unsupported("a blocked operand"));
    }
    if output.elems() == 0 {
        return Ok(());
    }
    let shapes: Vec<Vec<Dim>> = operands.iter().map(|o| o.ty().shape).collect();
    let shapes: Vec<&[Dim]> = shapes.iter().map(|s| &s[..]).collect();
    let loops = op.loops(&shapes).map_err(|e| cx.internal(e.0))?;
    let turns: Option<Vec<usize>> = loops.sizes.iter().map(Dim::size).collect();
    let turns = turns.ok_or_else(|| cx.internal("a label of unknown size"))?;
    let mut strides: Vec<Vec<usize>> = operands.iter().enumerate().map(|(i, o)| loops.strides(i, &o.dims)).collect();
    let mut own = vec![0; turns.len()];
    for (&l, s) in loops.output.iter().zip(strides_of(&output.dims)) {
        own[l] = s;
    }
    strides.push(own);
    // Output loops first, so that accumulators live as short as possible; the vector axis last.
    let mut order: Vec<usize> = loops.output.iter().copied().chain(loops.summed()).filter(|&l| turns[l] != 1).collect();
    let unit = |l: usize| strides.iter().filter(|s| s[l] <= 1).count();
    if let Some(at) = (0..order.len()).max_by_key(|&i| (unit(order[i]), turns[order[i]].min(64))) {
        let vector = order.remove(at);
        order.push(vector);
    }
    let nest = Nest {
        dims: order.iter().map(|&l| turns[l]).collect(),
        strides: strides.iter().map(|s| order.iter().map(|&l| s[l]).collect()).collect(),
    };
    let dtype = output.dtype;
    let pre = Pointwise::build(&vec![dtype; operands.len()], |p, x| {
        x[1..].iter().fold(x[0], |product, &x| p.binary(BinaryFn::Mul, product, x))
    });
    let parts = Parts { pre, combine: Combine::Add, post: Pointwise::build(&[dtype], |_, s| s[0]) };
    let all: Vec<&Operand> = operands.iter().chain([&output]).collect();
    lower_nest(&parts, &all, nest, &vec![0; all.len()], "einsum", cx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, sum_tolerance, tensor};
    use nncc_ir::{Graph, Origin, Tensor};

    #[test]
    fn equations() {
        let cases: [(&str, &[&[usize]]); 14] = [
            ("ij,jk->ik", &[&[5, 7], &[7, 9]]),
            ("ij,kj->ik", &[&[5, 37], &[3, 37]]),
            ("ji,jk->ki", &[&[7, 5], &[7, 17]]),
            ("bhid,bhjd->bhij", &[&[2, 3, 4, 8], &[2, 3, 5, 8]]),
            ("bhij,bhjd->bhid", &[&[2, 3, 4, 5], &[2, 3, 5, 8]]),
            ("...ij,...jk->...ik", &[&[2, 1, 3, 4], &[5, 4, 2]]),
            ("ii->i", &[&[6, 6]]),
            ("ii", &[&[6, 6]]),
            ("ij->ji", &[&[6, 19]]),
            ("ij->", &[&[6, 19]]),
            ("i,j,k->kij", &[&[3], &[4], &[5]]),
            ("ij,j->i", &[&[4, 6], &[1]]),
            ("ab,b,bc->a", &[&[3, 5], &[5], &[5, 2]]),
            ("ij,jk->ik", &[&[3, 0], &[0, 2]]),
        ];
        for (equation, shapes) in cases {
            let inputs: Vec<Tensor> = shapes.iter().enumerate().map(|(i, s)| tensor(i as u64, s)).collect();
            let mut g = Graph::new("einsum");
            let v: Vec<_> = inputs.iter().map(|t| g.add_input("x", t.ty())).collect();
            let y = g.add1(Einsum { equation: equation.into() }, &v, Origin::default(), "y").unwrap();
            g.add_output("y", y);
            let tolerance = sum_tolerance(&g, &inputs, 150);
            check(&g, &inputs, &tolerance);
        }
    }
}
