//! Tiles transposed by shuffles.
//!
//! ```text
//! source rows, contiguous along b           destination rows, contiguous along a
//!   a0: 00 01 02 03                            b0: 00 10 20 30
//!   a1: 10 11 12 13         T = 4              b1: 01 11 21 31
//!   a2: 20 21 22 23         ------>            b2: 02 12 22 32
//!   a3: 30 31 32 33                            b3: 03 13 23 33
//! ```
//!
//! T rows are loaded, transposed by log2 T stages of T shuffles and stored. T fills a register of up to 256 bits: with 8 x 8
//! words a wider one would double the shuffles an element for the same bytes a store. The stages within 128 bits are the
//! interleavings that every instruction set has (`punpckldq`, `zip1`); the last one of T = 8 swaps 128-bit halves. At the
//! edges fewer rows are loaded and fewer lanes stored.

use super::{Axis, plus};
use crate::kir::{Builder, Elem, Index, Type, Value};
use crate::target::Target;

/// Copies the product of two axes: `a` along which the destination is contiguous, `other` along which the source is, forward
/// or backward. Strides are bytes.
pub fn emit(b: &mut Builder, target: &Target, a: Axis, other: Axis, unit: Elem, src: Value, dst: Value) {
    let t = target.lanes(unit).min(32 / unit.bytes());
    over(b, a.len, t, |b, i, rows| {
        let (src, dst) = (advance(b, src, i, a.src), advance(b, dst, i, a.dst));
        over(b, other.len, t, |b, j, columns| {
            let (src, dst) = (advance(b, src, j, other.src), advance(b, dst, j, other.dst));
            let ty = Type::of(unit, t);
            // Backward, a row is loaded from its last column, and its columns are the other way round.
            let backward = other.src < 0;
            let from = if backward { (columns - 1) as i64 * other.src } else { 0 };
            let load = |b: &mut Builder, n: usize| {
                if n >= rows {
                    return b.zero(ty);
                }
                let row = plus(b, src, from + n as i64 * a.src);
                b.load_part(ty, row, columns)
            };
            let loaded: Vec<Value> = (0..t).map(|n| load(b, n)).collect();
            for (n, v) in transpose(b, &loaded).into_iter().enumerate().take(columns) {
                let column = if backward { columns - 1 - n } else { n };
                let row = plus(b, dst, column as i64 * other.dst);
                b.store_part(row, v, rows);
            }
        });
    });
}

/// Whole steps of `t` in a loop, then what remains.
fn over(b: &mut Builder, len: usize, t: usize, mut body: impl FnMut(&mut Builder, Index, usize)) {
    let whole = len / t * t;
    b.for_(0, whole, t as i64, |b, i| body(b, Index::Value(i), t));
    if whole < len {
        body(b, Index::Const(whole as i64), len - whole);
    }
}

fn advance(b: &mut Builder, p: Value, i: Index, stride: i64) -> Value {
    match i {
        Index::Const(i) => plus(b, p, i * stride),
        Index::Value(i) => super::advance(b, p, i, stride),
    }
}

/// The transpose of as many vectors as each has lanes: 2 or 4 of 64 bits, 4 or 8 of 32.
pub fn transpose(b: &mut Builder, rows: &[Value]) -> Vec<Value> {
    let t = rows.len();
    let unit = b.ty(rows[0]).elem().expect("vectors").bytes();
    let group = 16 / unit; // lanes of 128 bits
    let mut out = Vec::with_capacity(t);
    for rows in rows.chunks(group) {
        let mut pair = |x: Value, y: Value, run: usize| {
            [false, true].map(|high| interleave(b, x, y, Interleaving { t, group, run, high }))
        };
        if let [r0, r1, r2, r3] = *rows {
            let ([a, c], [d, e]) = (pair(r0, r1, 1), pair(r2, r3, 1));
            out.extend(pair(a, d, 2));
            out.extend(pair(c, e, 2));
        } else {
            out.extend(pair(rows[0], rows[1], 1));
        }
    }
    if t == group {
        return out;
    }
    // Two groups of rows: the low 128 bits of both give the first columns, the high ones the last.
    let mut halves = |from: usize| -> Vec<Value> {
        let lanes: Vec<usize> = (from..from + group).chain(t + from..t + from + group).collect();
        (0..group).map(|i| b.shuffle(out[i], out[group + i], &lanes)).collect()
    };
    [halves(0), halves(group)].concat()
}

/// How two vectors of `t` lanes are interleaved.
struct Interleaving {
    t: usize,
    /// Lanes of 128 bits, which no lane leaves.
    group: usize,
    /// Lanes that stay together.
    run: usize,
    /// From the high half of each group, else from the low one.
    high: bool,
}

/// Runs of x and of y in turn.
fn interleave(b: &mut Builder, x: Value, y: Value, how: Interleaving) -> Value {
    let Interleaving { t, group, run, high } = how;
    let mut lanes = Vec::with_capacity(t);
    for first in (0..t).step_by(group) {
        let first = first + if high { group / 2 } else { 0 };
        for at in (first..first + group / 2).step_by(run) {
            lanes.extend(at..at + run);
            lanes.extend(t + at..t + at + run);
        }
    }
    b.shuffle(x, y, &lanes)
}
