//! `Transpose`: one strided copy, tiled where neither side's innermost axis is the other's. Either side may be blocked.

use super::movement::{AxisMap, lower_map};
use crate::lower::{LowerCx, LowerError};
use nncc_ir::ops::transpose::Transpose;

/// Lowers the operator.
///
/// # Errors
/// When the operand is a constant that does not fit in memory.
pub fn lower(op: &Transpose, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    let axis = |(n, &p): (usize, &usize)| AxisMap { len: y.dims[n], to: 0, from: Some((p, 0, 1)) };
    let map = op.perm.iter().enumerate().map(axis).collect();
    lower_map(cx, &x, &y, &map)
}
