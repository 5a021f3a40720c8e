//! `ScatterElements` and `ScatterNd`: a copy of the operand, unless the plan computes in place, and a step of updates.

use super::gather::tuples_of;
use super::movement::require_row_major;
use crate::kernels::copy::lower_copy;
use crate::kernels::pointwise::elem_of;
use crate::kernels::scatter;
use crate::kir::Kernel;
use crate::lower::{Call, LowerCx, LowerError};
use nncc_ir::ops::scatter::{ScatterElements, ScatterNd};

/// Lowers `ScatterElements`.
///
/// # Errors
/// When an operand is blocked.
pub fn lower_elements(op: &ScatterElements, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (y, idx) = (cx.output(0), cx.input(1)?);
    let kernel =
        |_: &LowerCx<'_, '_>| scatter::elements(&y.dims, &idx.dims, op.axis, elem_of(idx.dtype), y.dtype, op.reduction);
    let is_empty = idx.elems() == 0 || y.elems() == 0;
    lower(cx, kernel, is_empty)
}

/// Lowers `ScatterNd`.
///
/// # Errors
/// When an operand is blocked.
pub fn lower_nd(op: &ScatterNd, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (y, idx) = (cx.output(0), cx.input(1)?);
    let rows = tuples_of(&y, &idx, 0);
    let is_empty = rows.rows == 0 || y.elems() == 0;
    lower(cx, |cx| scatter::slices(cx.target(), &rows, y.dtype, op.reduction), is_empty)
}

fn lower(
    cx: &mut LowerCx<'_, '_>,
    kernel: impl Fn(&LowerCx<'_, '_>) -> (Kernel, usize),
    is_empty: bool,
) -> Result<(), LowerError> {
    require_row_major(cx)?;
    let (x, idx, updates, y) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.output(0));
    if cx.arg(&x)? != cx.arg(&y)? {
        lower_copy(cx, &x, &y)?;
    }
    if is_empty {
        return Ok(());
    }
    let (kernel, tasks) = kernel(cx);
    let (kernel, args) = (cx.kernel(kernel), [cx.arg(&idx)?, cx.arg(&updates)?, cx.arg(&y)?]);
    cx.step(Call::new(kernel, &args, tasks));
    Ok(())
}
