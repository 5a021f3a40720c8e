//! Softmax and its logarithm: a maximum, a sum of exponentials and a map.
//!
//! ```text
//! m = max x;   s = sum exp(x - m);   y = exp(x - m) / s,   or x - m - log s
//! ```
//!
//! A NaN makes its exponential one, and so the sum and all of y, whatever m is then: m need not be one.
//!
//! Rows that lie in memory as such and fit the first-level cache are read once, by `kernels::rows`. Along other axes, and of
//! long rows, the exponential is computed twice, which costs less than writing it to memory and reading it back.

use crate::kernels::fold::Combine;
use crate::kernels::rows::RowFold;
use crate::lower::elementwise::lower_map;
use crate::lower::fold::{Parts, lower_fold};
use crate::lower::{LowerCx, LowerError, Operand, rows};
use nncc_ir::ops::softmax::{LogSoftmax, Softmax};
use nncc_ir::pointwise::{BinaryFn, Ref, UnaryFn};
use nncc_ir::{DType, Pointwise};

/// Lowers a softmax.
///
/// # Errors
/// A blocked value whose channels it runs along.
pub fn lower(op: &Softmax, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let by_rows = lower_rows(
        op.axis,
        cx,
        true,
        |p, v| p.unary(UnaryFn::Reciprocal, v[0]),
        |p, v| p.binary(BinaryFn::Mul, v[0], v[2]),
    )?;
    if by_rows {
        return Ok(());
    }
    lower_with(op.axis, cx, |p, v| {
        let d = p.binary(BinaryFn::Sub, v[0], v[1]);
        let e = p.unary(UnaryFn::Exp, d);
        p.binary(BinaryFn::Div, e, v[2])
    })
}

/// Lowers the logarithm of a softmax.
///
/// # Errors
/// As [`lower`].
pub fn lower_log(op: &LogSoftmax, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let by_rows = lower_rows(
        op.axis,
        cx,
        false,
        |p, v| p.unary(UnaryFn::Log, v[0]),
        |p, v| {
            let d = p.binary(BinaryFn::Sub, v[0], v[1]);
            p.binary(BinaryFn::Sub, d, v[2])
        },
    )?;
    if by_rows {
        return Ok(());
    }
    lower_with(op.axis, cx, |p, v| {
        let d = p.binary(BinaryFn::Sub, v[0], v[1]);
        let log = p.unary(UnaryFn::Log, v[2]);
        p.binary(BinaryFn::Sub, d, log)
    })
}

/// By rows, if the axis is one of rows that fit: the maximum, `post` of the sum of exponentials, which are kept or not, and
/// `last` over what is there then and both. Says whether it is.
fn lower_rows(
    axis: usize,
    cx: &mut LowerCx<'_, '_>,
    keep: bool,
    post: impl FnOnce(&mut Pointwise, &[Ref]) -> Ref,
    last: impl FnOnce(&mut Pointwise, &[Ref]) -> Ref,
) -> Result<bool, LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    if x.dims[axis + 1..].iter().any(|&n| n != 1) {
        return Ok(false);
    }
    let types: [DType; 3] = [x.dtype; 3];
    let same = Pointwise::build(&types[..1], |_, v| v[0]);
    let exponential = Pointwise::build(&types[..2], |p, v| {
        let d = p.binary(BinaryFn::Sub, v[0], v[1]);
        p.unary(UnaryFn::Exp, d)
    });
    let post = Pointwise::build(&types[..1], post);
    let folds = vec![
        RowFold { pre: same.clone(), combine: Combine::MaxOfNumbers, post: same, keep: false },
        RowFold { pre: exponential, combine: Combine::Add, post, keep },
    ];
    rows::lower(folds, Pointwise::build(&types, last), axis, [&x, &y], &[], "softmax", cx)
}

/// Maximum and sum along `axis`, then `last` over x and both.
fn lower_with(
    axis: usize,
    cx: &mut LowerCx<'_, '_>,
    last: impl FnOnce(&mut Pointwise, &[Ref]) -> Ref,
) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    let mut dims = x.dims.clone();
    dims[axis] = 1;
    let (m, s) = (cx.temporary(x.dtype, &dims, x.layout)?, cx.temporary(x.dtype, &dims, x.layout)?);
    let program =
        |n: usize, body: &dyn Fn(&mut Pointwise, &[Ref]) -> Ref| Pointwise::build(&vec![x.dtype; n], |p, v| body(p, v));
    let same = program(1, &|_, v| v[0]);
    let largest = Parts { pre: same.clone(), combine: Combine::MaxOfNumbers, post: same.clone() };
    let exponential = program(2, &|p, v| {
        let d = p.binary(BinaryFn::Sub, v[0], v[1]);
        p.unary(UnaryFn::Exp, d)
    });
    let sum = Parts { pre: exponential, combine: Combine::Add, post: same };
    let operands = |more: &[&Operand]| -> Vec<Operand> { [&x].iter().chain(more).map(|o| (*o).clone()).collect() };
    lower_fold(&largest, &operands(&[]), &x, &m, "softmax_max", cx)?;
    lower_fold(&sum, &operands(&[&m]), &x, &s, "softmax_sum", cx)?;
    let types: [DType; 3] = [x.dtype; 3];
    lower_map(&Pointwise::build(&types, last), &operands(&[&m, &s]), &y, "", cx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, tensor};
    use nncc_ir::{Graph, Op, Origin, Tensor};
    use proptest::prelude::*;

    fn run(op: impl Into<Op>, x: &Tensor) {
        let mut g = Graph::new("softmax");
        let v = g.add_input("x", x.ty());
        let y = g.add1(op, &[v], Origin::default(), "y").unwrap();
        g.add_output("y", y);
        // Exponentials to 4 ulp, and a sum of up to 1000 of them.
        check(&g, std::slice::from_ref(x), &Tolerance::Relative { rel: 1e-5, abs: 2e-6 });
    }

    #[test]
    fn every_axis() {
        for dims in [&[1][..], &[1000], &[2, 37], &[3, 17, 5], &[2, 3, 4, 1], &[2, 0, 3], &[2, 20_011]] {
            for axis in 0..dims.len() {
                run(Softmax { axis }, &tensor(1, dims));
                run(LogSoftmax { axis }, &tensor(2, dims));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        /// Rows side by side, the last of an odd number beside itself, the second softmax in place of the first.
        #[test]
        fn any_number_of_rows(rows in 1usize..12, n in 1usize..150, wide in any::<bool>(), log in any::<bool>()) {
            let dtype = if wide { DType::F64 } else { DType::F32 };
            let x = Tensor::from_f64(dtype, &[rows, n], &tensor(3, &[rows, n]).to_f64());
            let mut g = Graph::new("softmax");
            let mut v = g.add_input("x", x.ty());
            for _ in 0..2 {
                let op: Op = if log { LogSoftmax { axis: 1 }.into() } else { Softmax { axis: 1 }.into() };
                v = g.add1(op, &[v], Origin::default(), "y").unwrap();
            }
            g.add_output("y", v);
            check(&g, &[x], &Tolerance::Relative { rel: 1e-5, abs: 2e-6 });
        }

        /// A NaN and infinities make numbers of their own row NaN and leave the other rows as they are, by rows and across.
        #[test]
        fn special_numbers_stay_in_their_row(rows in 1usize..8, n in 1usize..80, at in prop::array::uniform3(0usize..640),
                                             axis in 0usize..2) {
            let mut v = tensor(4, &[rows, n]).to_f64();
            let count = v.len();
            for (at, special) in at.into_iter().zip([f64::NAN, f64::NEG_INFINITY, f64::INFINITY]) {
                v[at % count] = special;
            }
            run(Softmax { axis }, &Tensor::from_f64(DType::F32, &[rows, n], &v));
            run(LogSoftmax { axis }, &Tensor::from_f64(DType::F32, &[rows, n], &v));
        }
    }

    #[test]
    fn large_numbers_do_not_overflow() {
        let x = Tensor::f32(&[2, 3], vec![1000.0, 999.0, -1000.0, f32::NEG_INFINITY, 3e38, 0.0]);
        run(Softmax { axis: 1 }, &x);
        run(LogSoftmax { axis: 1 }, &x);
        run(Softmax { axis: 1 }, &Tensor::f32(&[1, 2], vec![f32::NEG_INFINITY; 2]));
    }
}
