//! `Slice`: one strided copy, of any layouts.

use super::movement::{AxisMap, BoxMap, lower_map};
use crate::lower::{LowerCx, LowerError};
use nncc_ir::ops::slice::Slice;

/// Lowers the operator.
///
/// # Errors
/// When a start is a symbol, or the operand is a constant that does not fit in memory.
pub fn lower(op: &Slice, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    let axis = |n: usize| {
        let start =
            op.starts[n].known().ok_or_else(|| cx.internal(format!("the start {} is a symbol", op.starts[n])))?;
        // The step of a single element may be anything, and so too large to multiply.
        let step = if y.dims[n] > 1 { op.steps[n] } else { 1 };
        Ok(AxisMap { len: y.dims[n], to: 0, from: Some((n, start, step)) })
    };
    let map: BoxMap = (0..y.rank()).map(axis).collect::<Result<_, LowerError>>()?;
    lower_map(cx, &x, &y, &map)
}
