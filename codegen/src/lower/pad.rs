//! `Pad`: the operand's box copied, and what is around it.
//!
//! ```text
//! constant    +---------------+     the slabs around the box, axis by axis, are filled from one element:
//!             |   axis 0      |     those of axis a span the box along the axes before a and everything along those behind
//!             +---+-------+---+
//!             | 1 |  box  | 1 |
//!             +---+-------+---+
//!             |   axis 0      |
//!             +---------------+
//! others      each axis is cut into runs of constant step (reflect: -1, 1, -1; edge: 0, 1, 0; wrap: 1, 1, 1); every
//!             combination of runs is a box
//! ```
//!
//! Of any layouts.

use super::movement::{AxisMap, BoxMap, Moves};
use crate::lower::{LowerCx, LowerError, Operand};
use nncc_ir::ops::pad::{Pad, PadMode};
use nncc_ir::{Constant, Tensor};

/// Lowers the operator.
///
/// # Errors
/// Paddings so much longer than their axis that they are thousands of pieces.
pub fn lower(op: &Pad, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    if y.elems() == 0 {
        return Ok(());
    }
    let runs: Vec<Vec<AxisMap>> = (0..y.rank()).map(|a| runs(op, a, x.dims[a], y.dims[a])).collect();
    let mut moves = Moves::new(y.dtype);
    if op.mode == PadMode::Constant {
        let fill = value(op, cx)?;
        for slab in slabs(&runs) {
            moves.add(cx, &fill, &y, &slab)?;
        }
    }
    let taken: Vec<Vec<AxisMap>> =
        runs.iter().map(|r| r.iter().copied().filter(|m| m.from.is_some()).collect()).collect();
    let count = taken.iter().fold(1usize, |n, r| n.saturating_mul(r.len()));
    if count > 1024 {
        return Err(cx.unsupported(format!("a padding in {count} pieces")));
    }
    for map in product(&taken) {
        moves.add(cx, &x, &y, &map)?;
    }
    moves.lower(cx);
    Ok(())
}

/// One axis of the result as runs whose source advances by a constant step, or is the value.
fn runs(op: &Pad, axis: usize, from: usize, to: usize) -> Vec<AxisMap> {
    let (begin, n) = op.cropped(axis, from as i64);
    let source = |i: usize| op.mode.source(i as i64 - op.before[axis].max(0), n).map(|s| begin + s);
    let mut out: Vec<AxisMap> = Vec::new();
    for i in 0..to {
        let s = source(i);
        if let Some(last) = out.last_mut() {
            match (&mut last.from, s) {
                (None, None) => {
                    last.len += 1;
                    continue;
                }
                (Some((_, start, step)), Some(s)) => {
                    let next = s - (*start + *step * (last.len as i64 - 1));
                    if (last.len == 1 && next.abs() <= 1) || (last.len > 1 && next == *step) {
                        *step = next;
                        last.len += 1;
                        continue;
                    }
                }
                _ => {}
            }
        }
        out.push(AxisMap { len: 1, to: i, from: s.map(|s| (axis, s, 1)) });
    }
    out
}

/// The boxes around the operand's box.
fn slabs(runs: &[Vec<AxisMap>]) -> Vec<BoxMap> {
    let all = |r: &Vec<AxisMap>| AxisMap { len: r.iter().map(|m| m.len).sum(), to: 0, from: None };
    let inside = |r: &Vec<AxisMap>| {
        let taken = r.iter().find(|m| m.from.is_some());
        AxisMap { from: None, ..taken.copied().unwrap_or(AxisMap { len: 0, to: 0, from: None }) }
    };
    let mut out = Vec::new();
    for (axis, r) in runs.iter().enumerate() {
        for outside in r.iter().filter(|m| m.from.is_none()) {
            let map = runs.iter().enumerate().map(|(a, r)| match a.cmp(&axis) {
                std::cmp::Ordering::Less => inside(r),
                std::cmp::Ordering::Equal => *outside,
                std::cmp::Ordering::Greater => all(r),
            });
            out.push(map.collect());
        }
    }
    out
}

/// Every choice of one run an axis.
fn product(runs: &[Vec<AxisMap>]) -> Vec<BoxMap> {
    runs.iter().fold(vec![Vec::new()], |done, runs| {
        done.iter().flat_map(|d: &BoxMap| runs.iter().map(move |r| [&d[..], &[*r]].concat())).collect()
    })
}

/// The one element that fills.
fn value(op: &Pad, cx: &mut LowerCx<'_, '_>) -> Result<Operand, LowerError> {
    if let Some(v) = cx.optional(1) {
        return Ok(v.reshaped(&[]));
    }
    let y = cx.output(0);
    let one = Constant::from_tensor(&Tensor::from_f64(y.dtype, &[], &[op.value]));
    let arg = cx.constant(one.bytes().unwrap_or_default().to_vec());
    Ok(Operand::temporary(y.dtype, &[], nncc_ir::Layout::RowMajor, arg))
}
