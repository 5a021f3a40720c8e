//! `Trilu`: one step over the rows of all matrices.

use super::movement::require_row_major;
use crate::kernels::trilu::trilu;
use crate::lower::{Call, LowerCx, LowerError};
use nncc_ir::ops::trilu::Trilu;

/// Lowers the operator.
///
/// # Errors
/// When an operand is blocked.
pub fn lower(op: &Trilu, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    require_row_major(cx)?;
    let (x, y) = (cx.input(0)?, cx.output(0));
    let [matrices @ .., rows, columns] = &y.dims[..] else { return Err(cx.internal("an operand of rank 2 or more")) };
    if y.elems() == 0 {
        return Ok(());
    }
    let matrices = matrices.iter().product();
    let (kernel, tasks) = trilu(matrices, *rows, *columns, op.upper, op.k, y.dtype.bytes());
    let (kernel, args) = (cx.kernel(kernel), [cx.arg(&x)?, cx.arg(&y)?]);
    cx.step(Call::new(kernel, &args, tasks));
    Ok(())
}
