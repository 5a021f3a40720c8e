//! `DepthToSpace` and `SpaceToDepth`: transposes of six axes, `[N, C, H, b, W, b]` being the one with the pixels.

use super::movement::{AxisMap, BoxMap, Moves, Side, regions, require_row_major};
use crate::lower::{LowerCx, LowerError};
use nncc_ir::ops::space_depth::DepthOrder;

/// Lowers `DepthToSpace`.
///
/// # Errors
/// When an operand is blocked.
pub fn lower_depth_to_space(block: usize, mode: DepthOrder, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    let [n, _, h, w] = x.dims[..] else { return Err(cx.internal("an operand of rank 4")) };
    let (c, b) = (y.dims[1], block);
    // For each axis of the result [n, c, h, i, w, j] the axis of the operand.
    let (source, perm) = match mode {
        DepthOrder::Dcr => ([n, b, b, c, h, w], [0, 3, 4, 1, 5, 2]),
        DepthOrder::Crd => ([n, c, b, b, h, w], [0, 1, 4, 2, 5, 3]),
    };
    lower_split(cx, &source, &[n, c, h, b, w, b], &perm)
}

/// Lowers `SpaceToDepth`.
///
/// # Errors
/// When an operand is blocked.
pub fn lower_space_to_depth(block: usize, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let y = cx.output(0);
    let [n, _, h, w] = y.dims[..] else { return Err(cx.internal("a result of rank 4")) };
    let (c, b) = (cx.input(0)?.dims[1], block);
    lower_split(cx, &[n, c, h, b, w, b], &[n, b, b, c, h, w], &[0, 3, 5, 1, 2, 4])
}

/// The transpose of operands whose axes are seen split.
fn lower_split(cx: &mut LowerCx<'_, '_>, from: &[usize], to: &[usize], perm: &[usize]) -> Result<(), LowerError> {
    require_row_major(cx)?;
    let (x, y) = (cx.input(0)?, cx.output(0));
    let axis = |(n, &p): (usize, &usize)| AxisMap { len: to[n], to: 0, from: Some((p, 0, 1)) };
    let map: BoxMap = perm.iter().enumerate().map(axis).collect();
    let mut moves = Moves::new(y.dtype);
    moves.add_pieces(cx, &x, &y, regions(&Side::row_major(from), &Side::row_major(to), &map))?;
    moves.lower(cx);
    Ok(())
}
