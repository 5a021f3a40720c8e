//! `OneHot`: one step of comparisons.

use super::movement::require_row_major;
use crate::kernels::one_hot::one_hot;
use crate::lower::{Call, LowerCx, LowerError};
use nncc_ir::ops::one_hot::OneHot;

/// Lowers the operator.
///
/// # Errors
/// When an operand is blocked.
pub fn lower(op: &OneHot, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    require_row_major(cx)?;
    let (idx, values, y) = (cx.input(0)?, cx.input(1)?, cx.output(0));
    if y.elems() == 0 {
        return Ok(());
    }
    let (before, behind) = (idx.dims[..op.axis].iter().product(), idx.dims[op.axis..].iter().product());
    let (kernel, tasks) = one_hot(before, op.depth, behind, idx.dtype, y.dtype.bytes());
    let (kernel, args) = (cx.kernel(kernel), [cx.arg(&idx)?, cx.arg(&values)?, cx.arg(&y)?]);
    cx.step(Call::new(kernel, &args, tasks));
    Ok(())
}
