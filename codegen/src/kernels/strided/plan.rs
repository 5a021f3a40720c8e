//! From regions to loop nests: which axes are tasks, which are loops, and how the innermost ones are copied.
//!
//! ```text
//! axes    sorted by destination stride, outermost first; neighbours that continue each other merged
//! inner   the last axis (a row), or it and the axis along which the source is contiguous (tiles); long ones cut
//! loops   as many of the axes before as one task's bytes allow; a short row's innermost one is the source's order
//! tasks   the rest, the innermost of it cut so that a task is about CHUNK bytes
//! ```
//!
//! An axis that is cut becomes an outer and an inner one, and what remains of it a nest of its own. From here on strides
//! and offsets are bytes, and the unit that is moved may be wider than an element: rows of bytes whose length, offsets and
//! strides are multiples of 4 move as rows of 32-bit words.

use super::{Axis, Region};
use crate::kir::Elem;

/// Bytes written by one task: enough to hide its overhead, little enough to share a feature map among threads.
const CHUNK: usize = 16 * 1024;
/// A tile's extents: 32 x 128 words of 4 bytes, 16 KiB, stay in a first-level cache while they are read by rows and written
/// by columns.
const TILE: [usize; 2] = [128, 32];

/// Bytes that are read one behind the other where short rows follow each other in the source alone: memory gives lines of one
/// page faster than of many.
const STREAM: usize = 512;

/// A region ready to be emitted; strides and offsets in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nest {
    /// The operand that is read.
    pub from: usize,
    /// The operand that is written.
    pub to: usize,
    /// Where the first element is read.
    pub src: i64,
    /// Where it is written.
    pub dst: i64,
    /// The axes over which tasks are numbered, row-major.
    pub tasks: Vec<Axis>,
    /// Loops of a task, outermost first.
    pub loops: Vec<Axis>,
    /// What is inside of them.
    pub inner: Inner,
}

/// The innermost axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inner {
    /// Contiguous on both sides.
    Row {
        /// Units.
        len: usize,
        /// What is moved.
        unit: Elem,
    },
    /// One element into contiguous ones.
    Splat {
        /// Units.
        len: usize,
        /// What is moved.
        unit: Elem,
    },
    /// One by one.
    Scalar {
        /// Along which axis.
        axis: Axis,
        /// What is moved.
        unit: Elem,
    },
    /// Transposed: the destination is contiguous along `a`, the source along `b`, forward or backward.
    Tile {
        /// The axis of the destination's rows.
        a: Axis,
        /// The axis of the source's rows.
        b: Axis,
        /// What is moved.
        unit: Elem,
    },
}

/// The nests of a region of elements of `width` bytes; none for no elements.
pub fn nests(region: &Region, width: usize) -> Vec<Nest> {
    if region.axes.iter().any(|a| a.len == 0) {
        return Vec::new();
    }
    let scale = width as i64;
    let axes = region.axes.iter().filter(|a| a.len > 1);
    let mut axes: Vec<Axis> = axes.map(|a| Axis { len: a.len, src: a.src * scale, dst: a.dst * scale }).collect();
    axes.sort_by_key(|a| std::cmp::Reverse(a.dst));
    let mut r = Bytes {
        from: region.from,
        to: region.to,
        src: region.src * scale,
        dst: region.dst * scale,
        axes: merged(&axes),
        unit: unit_of(width),
    };
    r.widen();
    let mut out = Vec::new();
    cut_inner(r, &mut out);
    out
}

/// A region in bytes, its axes sorted.
#[derive(Clone, Debug)]
struct Bytes {
    from: usize,
    to: usize,
    src: i64,
    dst: i64,
    axes: Vec<Axis>,
    unit: Elem,
}

/// The integer type of `width` bytes.
pub fn unit_of(width: usize) -> Elem {
    match width {
        1 => Elem::I8,
        2 => Elem::I16,
        4 => Elem::I32,
        _ => Elem::I64,
    }
}

/// Joins neighbours of which the outer one continues the inner one on both sides.
fn merged(axes: &[Axis]) -> Vec<Axis> {
    let mut out: Vec<Axis> = Vec::new();
    for &inner in axes {
        match out.last_mut() {
            Some(outer) if outer.src == inner.src * inner.len as i64 && outer.dst == inner.dst * inner.len as i64 => {
                *outer = Axis { len: outer.len * inner.len, ..inner };
            }
            _ => out.push(inner),
        }
    }
    out
}

impl Bytes {
    /// Moves words instead of bytes or half words where everything is a multiple of a word.
    fn widen(&mut self) {
        let (word, unit) = (4, self.unit.bytes() as i64);
        let Some((row, outer)) = self.axes.split_last() else { return };
        let fits = unit < word
            && (row.src, row.dst) == (unit, unit)
            && (row.len as i64 * unit) % word == 0
            && outer.iter().all(|a| a.src % word == 0 && a.dst % word == 0)
            && self.src % word == 0
            && self.dst % word == 0;
        if fits {
            let len = row.len * unit as usize / word as usize;
            *self.axes.last_mut().expect("it has a row") = Axis { len, src: word, dst: word };
            self.unit = Elem::I32;
        }
    }

    /// The position of the axis along which the source is contiguous, where tiles pay.
    fn tiled_with(&self) -> Option<usize> {
        let unit = self.unit.bytes() as i64;
        let (last, outer) = self.axes.split_last()?;
        let transposed = unit >= 4 && last.dst == unit && last.src.abs() != unit && last.src != 0;
        if transposed { outer.iter().position(|a| a.src.abs() == unit) } else { None }
    }

    /// Cuts an axis into pieces of `piece`; what remains becomes a region of its own.
    fn cut(&self, axis: usize, piece: usize) -> (Bytes, Option<Bytes>) {
        let a = self.axes[axis];
        let (whole, rest) = (a.len / piece, a.len % piece);
        let step = piece as i64;
        let mut main = self.clone();
        main.axes[axis].len = piece;
        if whole > 1 {
            main.axes.insert(axis, Axis { len: whole, src: a.src * step, dst: a.dst * step });
        }
        let remains = (rest > 0).then(|| {
            let mut r = self.clone();
            r.axes[axis].len = rest;
            r.src += a.src * step * whole as i64;
            r.dst += a.dst * step * whole as i64;
            r
        });
        (main, remains)
    }
}

/// Cuts innermost axes that are too long, then divides what is outside of them.
fn cut_inner(r: Bytes, out: &mut Vec<Nest>) {
    let last = r.axes.len().wrapping_sub(1);
    let limits: Vec<(usize, usize)> = match r.tiled_with() {
        Some(b) => vec![(last, TILE[0]), (b, TILE[1])],
        None if r.axes.is_empty() => Vec::new(),
        None => vec![(last, CHUNK / r.unit.bytes())],
    };
    if let Some(&(axis, limit)) = limits.iter().find(|&&(axis, limit)| r.axes[axis].len > limit) {
        let (main, remains) = r.cut(axis, limit);
        cut_inner(main, out);
        if let Some(r) = remains {
            cut_inner(r, out);
        }
        return;
    }
    divide(r, out);
}

/// Takes the innermost axes out and divides the others into loops and tasks.
fn divide(r: Bytes, out: &mut Vec<Nest>) {
    let unit = r.unit;
    let mut outer = r.axes.clone();
    let inner = match (r.tiled_with(), outer.pop()) {
        (Some(b), Some(a)) => Inner::Tile { a, b: outer.remove(b), unit },
        (_, None) => Inner::Scalar { axis: Axis { len: 1, src: 0, dst: 0 }, unit },
        (_, Some(a)) if a.dst != unit.bytes() as i64 => Inner::Scalar { axis: a, unit },
        (_, Some(a)) if a.src == a.dst => Inner::Row { len: a.len, unit },
        (_, Some(a)) if a.src == 0 => Inner::Splat { len: a.len, unit },
        (_, Some(a)) => Inner::Scalar { axis: a, unit },
    };
    if let Inner::Row { len, .. } = inner
        && let row = len * unit.bytes()
        && let piece @ 2.. = STREAM / row
        && let Some(next) = outer.iter().position(|a| a.src == row as i64)
        && next + 1 < outer.len()
    {
        // Rows that are neighbours where they are read, and far apart where they are written.
        if outer[next].len > piece {
            return divide_cut(&r, next, piece, out);
        }
        let axis = outer.remove(next);
        outer.push(axis);
    }
    let mut bytes = unit.bytes()
        * match inner {
            Inner::Row { len, .. } | Inner::Splat { len, .. } => len,
            Inner::Scalar { axis, .. } => axis.len,
            Inner::Tile { a, b, .. } => a.len * b.len,
        };
    let mut loops = Vec::new();
    while let Some(axis) = outer.pop_if(|axis| axis.len.saturating_mul(bytes) <= CHUNK) {
        bytes *= axis.len;
        loops.insert(0, axis);
    }
    // The innermost task axis may leave tasks far too small: several of its steps make one.
    let (piece, axis) = (CHUNK / bytes, outer.last().copied());
    if let (2.., Some(axis)) = (piece, axis) {
        let at = r.axes.iter().position(|a| *a == axis).expect("an axis of the region");
        return divide_cut(&r, at, piece, out);
    }
    out.push(Nest { from: r.from, to: r.to, src: r.src, dst: r.dst, tasks: outer, loops, inner });
}

/// Divides what an axis cut into pieces leaves.
fn divide_cut(r: &Bytes, axis: usize, piece: usize, out: &mut Vec<Nest>) {
    let (main, remains) = r.cut(axis, piece);
    divide(main, out);
    if let Some(r) = remains {
        divide(r, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(len: usize, src: i64, dst: i64) -> Axis {
        Axis { len, src, dst }
    }

    fn plan(axes: &[Axis], width: usize) -> Vec<Nest> {
        nests(&Region { from: 0, to: 1, src: 0, dst: 0, axes: axes.to_vec() }, width)
    }

    /// Every element of a region is written once, from where it belongs.
    fn check(axes: &[Axis], width: usize) {
        let mut moves = std::collections::BTreeMap::new();
        for nest in plan(axes, width) {
            let (inner, unit): (Vec<Axis>, Elem) = match nest.inner {
                Inner::Row { len, unit } => (vec![axis(len, unit.bytes() as i64, unit.bytes() as i64)], unit),
                Inner::Splat { len, unit } => (vec![axis(len, 0, unit.bytes() as i64)], unit),
                Inner::Scalar { axis, unit } => (vec![axis], unit),
                Inner::Tile { a, b, unit } => (vec![a, b], unit),
            };
            let all = [&nest.tasks[..], &nest.loops, &inner].concat();
            for i in nncc_ir::tensor::indices(&all.iter().map(|a| a.len).collect::<Vec<_>>()) {
                let sum = |f: fn(&Axis) -> i64| i.iter().zip(&all).map(|(i, a)| *i as i64 * f(a)).sum::<i64>();
                let (s, d) = (nest.src + sum(|a| a.src), nest.dst + sum(|a| a.dst));
                for byte in 0..unit.bytes() as i64 {
                    assert_eq!(moves.insert(d + byte, s + byte), None, "written twice");
                }
            }
        }
        let mut wanted = std::collections::BTreeMap::new();
        for i in nncc_ir::tensor::indices(&axes.iter().map(|a| a.len).collect::<Vec<_>>()) {
            let sum = |f: fn(&Axis) -> i64| i.iter().zip(axes).map(|(i, a)| *i as i64 * f(a)).sum::<i64>();
            for byte in 0..width as i64 {
                wanted.insert(sum(|a| a.dst) * width as i64 + byte, sum(|a| a.src) * width as i64 + byte);
            }
        }
        assert_eq!(moves, wanted);
    }

    #[test]
    fn nests_cover_regions() {
        for width in [1, 2, 4, 8] {
            check(&[axis(3, 7, 5), axis(5, 1, 1)], width);
            check(&[axis(300, 1, 200), axis(200, 300, 1)], width);
            check(&[axis(40_000, 1, 1)], width);
            check(&[axis(2, 0, 5000), axis(5000, 0, 1)], width);
            check(&[axis(7, -2, 3), axis(3, 14, 1)], width);
            check(&[axis(9, -1, 20), axis(20, 9, 1)], width);
            // Short rows, neighbours where they are read: 11 of them, 70 and 3 far apart.
            check(&[axis(11, 4, 4 * 70), axis(70, 44, 4), axis(4, 1, 1)], width);
            check(&[axis(70, 4, 12), axis(3, 280, 4), axis(4, 1, 1)], width);
            check(&[axis(0, 1, 1)], width);
            check(&[], width);
        }
    }

    #[test]
    fn contiguous_axes_merge_and_bytes_widen() {
        let plan = plan(&[axis(4, 8, 8), axis(8, 1, 1)], 1);
        assert_eq!(plan[0].inner, Inner::Row { len: 8, unit: Elem::I32 });
        assert_eq!((plan[0].tasks.len(), plan[0].loops.len(), plan.len()), (0, 0, 1));
    }

    #[test]
    fn tasks_are_large_enough_and_transposes_are_tiled() {
        // A feature map to blocks of channels: 16 lanes from planes of 3136 pixels.
        let plan = plan(&[axis(4, 16 * 3136, 16 * 3136), axis(3136, 1, 16), axis(16, 3136, 1)], 4);
        assert!(plan.iter().all(|n| matches!(n.inner, Inner::Tile { .. })), "{plan:?}");
        let tasks: usize = plan.iter().map(|n| n.tasks.iter().map(|a| a.len).product::<usize>()).sum();
        assert!((40..=60).contains(&tasks), "{tasks} tasks for 784 KiB");
    }
}
