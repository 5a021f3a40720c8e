//! `Gather`, `GatherElements`, `GatherNd`: one step of [`indexed`] copies.
//!
//! From an operand without elements along an indexed axis nothing can be taken: where the result still has elements, they
//! are 0 (the reference refuses such an index).

use super::movement::require_row_major;
use crate::kernels::indexed::{self, Rows};
use crate::kernels::pointwise::elem_of;
use crate::kir::Kernel;
use crate::lower::{Call, LowerCx, LowerError, Operand};
use nncc_ir::Layout;

/// Lowers `Gather`.
///
/// # Errors
/// When an operand is blocked.
pub fn lower_gather(axis: usize, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    require_row_major(cx)?;
    let (x, idx) = (cx.input(0)?, cx.input(1)?);
    let outer: usize = x.dims[..axis].iter().product();
    let (n, slice) = (x.dims[axis], x.dims[axis + 1..].iter().product());
    let tuples = idx.elems();
    let rows = Rows {
        rows: outer * tuples,
        tuples,
        base: (tuples, n * slice),
        axes: vec![(n, slice)],
        slice,
        width: x.dtype.bytes(),
        index: elem_of(idx.dtype),
    };
    step(cx, |cx| rows.kernel(cx.target()), n == 0)
}

/// Lowers `GatherNd`.
///
/// # Errors
/// When an operand is blocked.
pub fn lower_gather_nd(batch_dims: usize, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    require_row_major(cx)?;
    let (x, idx) = (cx.input(0)?, cx.input(1)?);
    let rows = tuples_of(&x, &idx, batch_dims);
    let is_empty = rows.axes.iter().any(|&(n, _)| n == 0);
    step(cx, |cx| rows.kernel(cx.target()), is_empty)
}

/// The slices of `x` that index tuples in the last axis of `idx` name, behind `batch` common axes.
pub fn tuples_of(x: &Operand, idx: &Operand, batch: usize) -> Rows {
    let (k, lead) = idx.dims.split_last().map_or((0, &[][..]), |(&k, lead)| (k, lead));
    let strides = nncc_ir::tensor::strides_of(&x.dims);
    let rows: usize = lead.iter().product();
    let batches: usize = lead[..batch].iter().product();
    Rows {
        rows,
        tuples: rows,
        base: ((rows / batches.max(1)).max(1), x.dims[batch..].iter().product()),
        axes: (batch..batch + k).map(|a| (x.dims[a], strides[a])).collect(),
        slice: x.dims[batch + k..].iter().product(),
        width: x.dtype.bytes(),
        index: elem_of(idx.dtype),
    }
}

/// Lowers `GatherElements`.
///
/// # Errors
/// When an operand is blocked.
pub fn lower_gather_elements(axis: usize, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    require_row_major(cx)?;
    let (x, idx) = (cx.input(0)?, cx.input(1)?);
    let kernel = |_: &LowerCx<'_, '_>| indexed::elements(&x.dims, &idx.dims, axis, x.dtype.bytes(), elem_of(idx.dtype));
    step(cx, kernel, x.dims[axis] == 0)
}

/// The step of a gather, or zeros where there is nothing to take from.
fn step(
    cx: &mut LowerCx<'_, '_>,
    kernel: impl Fn(&LowerCx<'_, '_>) -> (Kernel, usize),
    is_empty: bool,
) -> Result<(), LowerError> {
    let (x, idx, y) = (cx.input(0)?, cx.input(1)?, cx.output(0));
    if y.elems() == 0 {
        return Ok(());
    }
    if is_empty {
        let zeros = cx.constant(vec![0; y.dtype.bytes() * y.elems()]);
        let zeros = Operand::temporary(y.dtype, &y.dims, Layout::RowMajor, zeros);
        return crate::kernels::copy::lower_copy(cx, &zeros, &y);
    }
    let (kernel, tasks) = kernel(cx);
    let (kernel, args) = (cx.kernel(kernel), [cx.arg(&x)?, cx.arg(&idx)?, cx.arg(&y)?]);
    cx.step(Call::new(kernel, &args, tasks));
    Ok(())
}
