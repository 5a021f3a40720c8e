//! `Reshape`, `Identity`, `Relayout`: nothing where the plan gives the result the operand's memory, else a copy.
//!
//! A reshape keeps the row-major order. Where one side is blocked, the copy is a change of layout between the blocked side
//! and the other one's memory seen with the blocked side's extents. Between two blocked values it is a copy of bytes where
//! batch, channels and pixels stay what they are.

use super::movement::{identity, lower_map};
use crate::kernels::copy::lower_copy;
use crate::lower::{LowerCx, LowerError, Operand};
use nncc_ir::Layout;

/// Lowers an operator whose result has the operand's elements in the operand's order.
///
/// # Errors
/// A reshape between two blocked values that moves elements between channels.
pub fn lower(cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    if y.elems() == 0 || cx.arg(&x)? == cx.arg(&y)? {
        return Ok(());
    }
    let pixels = |o: &Operand| (o.dims[0], o.dims[1], o.dims[2..].iter().product::<usize>());
    match (x.layout, y.layout) {
        (Layout::RowMajor, Layout::RowMajor) => lower_copy(cx, &x, &y),
        (Layout::Blocked, Layout::Blocked) if pixels(&x) == pixels(&y) => lower_copy(cx, &x, &y),
        (Layout::Blocked, Layout::Blocked) => {
            Err(cx.unsupported(format!("{} to {} between blocked layouts", x.ty(), y.ty())))
        }
        (Layout::RowMajor, Layout::Blocked) => lower_map(cx, &x.reshaped(&y.dims), &y, &identity(&y.dims)),
        (Layout::Blocked, Layout::RowMajor) => lower_map(cx, &x, &y.reshaped(&x.dims), &identity(&x.dims)),
    }
}
