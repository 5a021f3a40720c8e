//! `CumSum`, `CumProd`, `ArgReduce` and `Hardmax`: walks along one axis.
//!
//! Hardmax is the position of the maximum, and a map that compares positions with it.

use crate::kernels::scan::{self, Extents, Join};
use crate::lower::elementwise::lower_map;
use crate::lower::{Call, LowerCx, LowerError, Operand};
use nncc_ir::ops::cum_sum::{CumProd, CumSum};
use nncc_ir::ops::reduce::ArgReduce;
use nncc_ir::ops::softmax::Hardmax;
use nncc_ir::pointwise::CompareFn;
use nncc_ir::{DType, Layout, Pointwise};

/// The extents around an axis of a row-major operand; none for no elements.
fn extents(x: &Operand, axis: usize, cx: &LowerCx<'_, '_>) -> Result<Option<Extents>, LowerError> {
    if x.layout != Layout::RowMajor {
        return Err(cx.unsupported("a blocked operand"));
    }
    let product = |dims: &[usize]| dims.iter().product::<usize>();
    let e = Extents { outer: product(&x.dims[..axis]), n: x.dims[axis], inner: product(&x.dims[axis + 1..]) };
    Ok((x.elems() > 0).then_some(e))
}

/// Lowers running sums.
///
/// # Errors
/// A blocked operand.
pub fn lower_cum_sum(op: &CumSum, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    running(Join::Sum, op.axis, op.exclusive, op.reverse, cx)
}

/// Lowers running products.
///
/// # Errors
/// A blocked operand.
pub fn lower_cum_prod(op: &CumProd, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    running(Join::Product, op.axis, op.exclusive, op.reverse, cx)
}

fn running(
    join: Join,
    axis: usize,
    exclusive: bool,
    reverse: bool,
    cx: &mut LowerCx<'_, '_>,
) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    let Some(e) = extents(&x, axis, cx)? else { return Ok(()) };
    let (kernel, tasks) = scan::running(cx.target(), x.dtype, join, e, exclusive, reverse);
    let (kernel, args) = (cx.kernel(kernel), [cx.arg(&x)?, cx.arg(&y)?]);
    cx.step(Call::new(kernel, &args, tasks));
    Ok(())
}

/// Lowers the position of an extreme.
///
/// # Errors
/// A blocked operand.
pub fn lower_arg(op: &ArgReduce, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    arg_step(&x, &y, op.axis, op.max, op.select_last, cx)
}

fn arg_step(
    x: &Operand,
    y: &Operand,
    axis: usize,
    max: bool,
    select_last: bool,
    cx: &mut LowerCx<'_, '_>,
) -> Result<(), LowerError> {
    let Some(e) = extents(x, axis, cx)? else { return Ok(()) };
    let (kernel, tasks) = scan::arg_reduce(cx.target(), x.dtype, e, max, select_last);
    let (kernel, args) = (cx.kernel(kernel), [cx.arg(x)?, cx.arg(y)?]);
    cx.step(Call::new(kernel, &args, tasks).labelled("arg_reduce"));
    Ok(())
}

/// Lowers hardmax.
///
/// # Errors
/// A blocked operand.
pub fn lower_hardmax(op: &Hardmax, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    let mut dims = x.dims.clone();
    dims[op.axis] = 1;
    let place = cx.temporary(DType::I64, &dims, Layout::RowMajor)?;
    arg_step(&x, &place, op.axis, true, false, cx)?;
    let n = x.dims[op.axis];
    let positions = cx.constant((0..n as i64).flat_map(i64::to_le_bytes).collect());
    let along: Vec<usize> = (op.axis..x.rank()).map(|a| if a == op.axis { n } else { 1 }).collect();
    let positions = Operand::temporary(DType::I64, &along, Layout::RowMajor, positions);
    let program = Pointwise::build(&[DType::I64; 2], |p, v| {
        let here = p.compare(CompareFn::Eq, v[0], v[1]);
        let (one, zero) = (p.constant(x.dtype, 1.0), p.constant(x.dtype, 0.0));
        p.select(here, one, zero)
    });
    lower_map(&program, &[place, positions], &y, "", cx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, tensor};
    use nncc_ir::{Graph, Op, Origin, Tensor};

    const DIMS: [&[usize]; 6] = [&[1], &[37], &[5, 3], &[2, 7, 19], &[3, 2, 70], &[4, 1, 1]];

    fn run(op: impl Into<Op>, x: &Tensor, tolerance: &Tolerance) {
        let mut g = Graph::new("scan");
        let v = g.add_input("x", x.ty());
        let y = g.add1(op, &[v], Origin::default(), "y").unwrap();
        g.add_output("y", y);
        check(&g, std::slice::from_ref(x), tolerance);
    }

    #[test]
    fn running_sums_and_products() {
        for dims in DIMS {
            for axis in 0..dims.len() {
                for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
                    let op = CumSum { axis, exclusive, reverse };
                    run(op.clone(), &tensor(1, dims), &Tolerance::Relative { rel: 1e-6, abs: 1e-5 });
                    let ints: Vec<i64> = (0..dims.iter().product::<usize>() as i64).map(|i| i * 31 % 97).collect();
                    run(op, &Tensor::from_i64(DType::I8, dims, &ints), &Tolerance::Exact);
                    let op = CumProd { axis, exclusive, reverse };
                    // Numbers around 1: each of at most 70 products rounds once.
                    let near: Vec<f32> = ints.iter().map(|&i| 0.75 + i as f32 / 192.0).collect();
                    run(op.clone(), &Tensor::f32(dims, near), &Tolerance::Relative { rel: 70.0 * 1.2e-7, abs: 1e-30 });
                    for dtype in [DType::I8, DType::U32, DType::I64] {
                        run(op.clone(), &Tensor::from_i64(dtype, dims, &ints), &Tolerance::Exact);
                    }
                }
            }
        }
    }

    /// Few different numbers, so that many are equal, and NaN among the floats.
    fn repeated(dtype: DType, dims: &[usize]) -> Tensor {
        let n = dims.iter().product::<usize>();
        let v: Vec<f64> = (0..n).map(|i| if i % 23 == 5 { f64::NAN } else { (i * 7 % 5) as f64 - 2.0 }).collect();
        Tensor::from_f64(dtype, dims, &v)
    }

    #[test]
    fn positions_of_extremes() {
        for dims in DIMS {
            for axis in 0..dims.len() {
                for dtype in [DType::F32, DType::F64, DType::I8, DType::U8, DType::I32, DType::U64] {
                    for (max, select_last) in [(false, false), (true, false), (false, true), (true, true)] {
                        run(
                            ArgReduce { max, axis, keepdims: max, select_last },
                            &repeated(dtype, dims),
                            &Tolerance::Exact,
                        );
                    }
                }
                run(Hardmax { axis }, &repeated(DType::F32, dims), &Tolerance::Exact);
                run(Hardmax { axis }, &repeated(DType::F64, dims), &Tolerance::Exact);
            }
        }
    }
}
