//! `Concat` and `Split`: one strided copy for each part, none for a part that the plan put in place. All layouts, along any
//! axis; parts of blocked channels that begin within a block are moved lane by lane range.

use super::movement::{AxisMap, BoxMap, Moves, identity};
use crate::lower::{LowerCx, LowerError, Operand};

/// Lowers `Concat`.
///
/// # Errors
/// When a constant operand does not fit in memory.
pub fn lower_concat(axis: usize, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let y = cx.output(0);
    let (mut moves, mut begin) = (Moves::new(y.dtype), 0);
    let operands: Vec<Operand> = cx.operands().iter().flatten().cloned().collect();
    for x in &operands {
        let mut map: BoxMap = identity(&x.dims);
        map[axis].to = begin;
        moves.add(cx, x, &y, &map)?;
        begin += x.dims[axis];
    }
    moves.lower(cx);
    Ok(())
}

/// Lowers `Split`.
///
/// # Errors
/// When the operand is a constant that does not fit in memory.
pub fn lower_split(axis: usize, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let x = cx.input(0)?;
    let (mut moves, mut begin) = (Moves::new(x.dtype), 0);
    for y in cx.outputs().to_vec() {
        let mut map = identity(&y.dims);
        map[axis] = AxisMap { len: y.dims[axis], to: 0, from: Some((axis, begin, 1)) };
        moves.add(cx, &x, &y, &map)?;
        begin += y.dims[axis] as i64;
    }
    moves.lower(cx);
    Ok(())
}
