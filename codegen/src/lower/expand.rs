//! `Expand` and `Tile`: strided copies with strides of 0.
//!
//! An axis that is repeated is seen as two, (repeats, length), of which the source has only the second.

use super::movement::{AxisMap, BoxMap, Moves, Side, regions, require_row_major};
use crate::lower::{LowerCx, LowerError};
use nncc_ir::ops::expand::Tile;

/// Lowers `Expand`.
///
/// # Errors
/// When an operand is blocked.
pub fn lower_expand(cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    require_row_major(cx)?;
    let (x, y) = (cx.input(0)?, cx.output(0));
    let skip = y.rank() - x.rank();
    let axis = |n: usize| {
        let from = n.checked_sub(skip).filter(|&a| x.dims[a] != 1).map(|a| (a, 0, 1));
        AxisMap { len: y.dims[n], to: 0, from }
    };
    let map: BoxMap = (0..y.rank()).map(axis).collect();
    super::movement::lower_map(cx, &x, &y, &map)
}

/// Lowers `Tile`.
///
/// # Errors
/// When an operand is blocked.
pub fn lower_tile(op: &Tile, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    require_row_major(cx)?;
    let (x, y) = (cx.input(0)?, cx.output(0));
    let split: Vec<usize> = op.repeats.iter().zip(&x.dims).flat_map(|(&r, &d)| [r, d]).collect();
    let axis = |(n, &len): (usize, &usize)| AxisMap { len, to: 0, from: (n % 2 == 1).then_some((n / 2, 0, 1)) };
    let map: BoxMap = split.iter().enumerate().map(axis).collect();
    let pieces = regions(&Side::of(&x), &Side::row_major(&split), &map);
    let mut moves = Moves::new(y.dtype);
    moves.add_pieces(cx, &x, &y, pieces)?;
    moves.lower(cx);
    Ok(())
}
