//! `Reduce`: one fold, or two where a logarithm of exponentials must not overflow.
//!
//! ```text
//! kind          combined          of          and then
//! sum mean      sum               x           / n for the mean
//! l1 l2         sum               |x|, x*x    sqrt for l2
//! log_sum       sum               x           log
//! log_sum_exp   max; sum          exp(x - m)  m + log s, but m itself where it is infinite
//! ```
//!
//! Integers stay integers where the reference keeps them (means in 64 bits), else they go through f64.

use crate::kernels::fold::Combine;
use crate::lower::fold::{Parts, lower_fold};
use crate::lower::{LowerCx, LowerError, Operand};
use nncc_ir::ops::reduce::{Reduce, ReduceKind};
use nncc_ir::pointwise::{BinaryFn, Ref, UnaryFn};
use nncc_ir::{DType, Layout, Pointwise};

/// Lowers a reduction.
///
/// # Errors
/// Channels of a blocked value that are reduced.
pub fn lower(op: &Reduce, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let x = cx.input(0)?;
    let kept: Vec<usize> = x.dims.iter().enumerate().map(|(a, &d)| if op.axes.contains(&a) { 1 } else { d }).collect();
    let output = cx.output(0);
    let output = if output.dims == kept { output } else { output.reshaped(&kept) };
    let n: usize = op.axes.iter().map(|&a| x.dims[a]).product();
    if op.kind == ReduceKind::LogSumExp {
        return log_sum_exp(&x, &output, cx);
    }
    lower_fold(&parts(op.kind, x.dtype, n), std::slice::from_ref(&x), &x, &output, "reduce", cx)
}

/// A program of one operand.
fn unary(dtype: DType, body: impl FnOnce(&mut Pointwise, Ref) -> Ref) -> Pointwise {
    Pointwise::build(&[dtype], |p, x| body(p, x[0]))
}

/// The fold of every kind but log_sum_exp, over `n` elements.
pub fn parts(kind: ReduceKind, dtype: DType, n: usize) -> Parts {
    let int = dtype.is_int();
    // What is summed in: 64 bits for means of integers, f64 for what leaves them.
    let inner = match kind {
        ReduceKind::Mean if int && dtype == DType::U64 => DType::U64,
        ReduceKind::Mean if int => DType::I64,
        ReduceKind::L2 | ReduceKind::LogSum if int => DType::F64,
        _ if dtype == DType::Bool => DType::U8,
        _ => dtype,
    };
    let pre = unary(dtype, |p, x| {
        let x = p.cast(x, inner);
        match kind {
            ReduceKind::L1 => p.unary(UnaryFn::Abs, x),
            ReduceKind::L2 | ReduceKind::SumSquare => p.binary(BinaryFn::Mul, x, x),
            _ => x,
        }
    });
    let post = unary(inner, |p, s| {
        let y = match kind {
            ReduceKind::Mean => p.binary_const(BinaryFn::Div, s, n as f64),
            ReduceKind::L2 => p.unary(UnaryFn::Sqrt, s),
            ReduceKind::LogSum => p.unary(UnaryFn::Log, s),
            _ => s,
        };
        p.cast(y, dtype)
    });
    let combine = match kind {
        ReduceKind::Max => Combine::Max,
        ReduceKind::Min => Combine::Min,
        ReduceKind::Prod => Combine::Mul,
        _ => Combine::Add,
    };
    Parts { pre, combine, post }
}

fn log_sum_exp(x: &Operand, output: &Operand, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let inner = if x.dtype.is_float() { x.dtype } else { DType::F64 };
    let layout = if x.layout == output.layout { output.layout } else { Layout::RowMajor };
    let m = cx.temporary(inner, &output.dims, layout)?;
    let cast = unary(x.dtype, |p, x| p.cast(x, inner));
    let largest = Parts { pre: cast, combine: Combine::Max, post: unary(inner, |_, m| m) };
    lower_fold(&largest, std::slice::from_ref(x), x, &m, "reduce", cx)?;
    let pre = Pointwise::build(&[x.dtype, inner], |p, v| {
        let x = p.cast(v[0], inner);
        let d = p.binary(BinaryFn::Sub, x, v[1]);
        p.unary(UnaryFn::Exp, d)
    });
    let post = Pointwise::build(&[inner, inner], |p, v| {
        let log = p.unary(UnaryFn::Log, v[0]);
        let sum = p.binary(BinaryFn::Add, v[1], log);
        let infinite = p.unary(UnaryFn::IsInf, v[1]);
        let y = p.select(infinite, v[1], sum);
        p.cast(y, x.dtype)
    });
    let sum = Parts { pre, combine: Combine::Add, post };
    lower_fold(&sum, &[x.clone(), m.clone(), m], x, output, "reduce", cx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, tensor};
    use nncc_ir::{Graph, Origin, Tensor};
    use proptest::prelude::*;

    const KINDS: [ReduceKind; 10] = [
        ReduceKind::Sum,
        ReduceKind::Mean,
        ReduceKind::Max,
        ReduceKind::Min,
        ReduceKind::Prod,
        ReduceKind::L1,
        ReduceKind::L2,
        ReduceKind::SumSquare,
        ReduceKind::LogSum,
        ReduceKind::LogSumExp,
    ];

    fn check_reduce(
        x: &Tensor,
        kind: ReduceKind,
        axes: Vec<usize>,
        keepdims: bool,
        layouts: [Layout; 2],
        tolerance: &Tolerance,
    ) {
        let mut g = Graph::new("reduce");
        let v = g.add_input("x", x.ty());
        let y = g.add1(Reduce { kind, axes, keepdims }, &[v], Origin::default(), "y").unwrap();
        g.set_layout(v, layouts[0]);
        g.set_layout(y, layouts[1]);
        g.add_output("y", y);
        check(&g, std::slice::from_ref(x), tolerance);
    }

    /// Sums of up to 2000 numbers below 1 in f32: each addition rounds a partial sum of at most that size.
    const SUMS: Tolerance = Tolerance::Relative { rel: 1e-5, abs: 2e-5 };

    /// Numbers in -1..1; for the logarithm of a sum positive ones, that no cancellation may blow up.
    fn operand(kind: ReduceKind, seed: u64, dims: &[usize]) -> Tensor {
        let t = tensor(seed, dims);
        let positive: Vec<f64> = t.to_f64().iter().map(|x| x.abs() + 0.5).collect();
        if kind == ReduceKind::LogSum { Tensor::from_f64(DType::F32, dims, &positive) } else { t }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_axes(dims in prop::collection::vec(prop::sample::select(vec![0usize, 1, 2, 3, 5, 8, 17, 37]), 0..4),
                    which in 0u32..16, kind in prop::sample::select(KINDS.to_vec()), keepdims in any::<bool>()) {
            let axes = (0..dims.len()).filter(|a| which >> a & 1 == 1).collect();
            check_reduce(&operand(kind, 1, &dims), kind, axes, keepdims, [Layout::RowMajor; 2], &SUMS);
        }

        #[test]
        fn spatial_axes_of_blocked_values(n in 1usize..3, c in prop::sample::select(vec![1usize, 7, 8, 9, 16, 17, 24, 33]), h in 1usize..5, w in 1usize..9,
                    kind in prop::sample::select(KINDS.to_vec()), to_blocked in any::<bool>()) {
            let layouts = [Layout::Blocked, if to_blocked { Layout::Blocked } else { Layout::RowMajor }];
            check_reduce(&operand(kind, 2, &[n, c, h, w]), kind, vec![2, 3], true, layouts, &SUMS);
            let rows = [Layout::Blocked, Layout::RowMajor];
            check_reduce(&operand(kind, 3, &[n, c, h, w]), kind, vec![0, 2, 3], false, rows, &SUMS);
        }
    }

    #[test]
    fn other_types_are_exact() {
        for dtype in [DType::I8, DType::U8, DType::I32, DType::U64, DType::I64, DType::Bool] {
            // Means of 64-bit integers wrap here and are wider in the reference: no sums beyond the type.
            let least = if dtype == DType::U64 { 0 } else { -90 };
            let v: Vec<i64> = (0..115).map(|i| i * 37 % 251 + least).collect();
            let x = Tensor::from_i64(dtype, &[5, 23], &v);
            for kind in
                KINDS.into_iter().filter(|k| dtype != DType::Bool || matches!(k, ReduceKind::Max | ReduceKind::Min))
            {
                for axis in [0, 1] {
                    check_reduce(&x, kind, vec![axis], false, [Layout::RowMajor; 2], &Tolerance::Exact);
                }
            }
        }
    }

    #[test]
    fn long_axes_are_cut() {
        for (dims, axes) in
            [(&[3, 20_011][..], vec![1]), (&[20_011, 3], vec![0]), (&[3, 40_009], vec![0]), (&[6000, 3], vec![1])]
        {
            check_reduce(&tensor(5, dims), ReduceKind::Max, axes, false, [Layout::RowMajor; 2], &Tolerance::Exact);
        }
    }
}
