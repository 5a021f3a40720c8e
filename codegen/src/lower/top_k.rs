//! `TopK`: one step of sorts, a line a task.

use super::movement::require_row_major;
use crate::kernels::top_k::{scratch_bytes, top_k};
use crate::lower::{Call, LowerCx, LowerError};
use nncc_ir::ops::top_k::TopK;

/// Lowers the operator.
///
/// # Errors
/// When an operand is blocked.
pub fn lower(op: &TopK, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    require_row_major(cx)?;
    let (x, values, positions) = (cx.input(0)?, cx.output(0), cx.output(1));
    if values.elems() == 0 {
        return Ok(());
    }
    let (outer, inner): (usize, usize) = (x.dims[..op.axis].iter().product(), x.dims[op.axis + 1..].iter().product());
    let (d, k) = (x.dims[op.axis], values.dims[op.axis]);
    cx.scratch(scratch_bytes(d));
    let kernel = cx.kernel(top_k(d, k, inner, x.dtype, op.largest));
    let args = [cx.arg(&x)?, cx.arg(&values)?, cx.arg(&positions)?];
    cx.step(Call::new(kernel, &args, outer * inner));
    Ok(())
}
