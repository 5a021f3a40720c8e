//! Strided copies: elements moved from one arrangement in memory to another.
//!
//! ```text
//! for every index i of a region's axes:   to[dst + sum i[a] * axes[a].dst] = from[src + sum i[a] * axes[a].src]
//! ```
//!
//! One kernel does a list of regions, each between two of its operands; transposes, concatenations, slices, paddings and
//! changes of layout are all such lists. A stride of 0 repeats an element, a negative one goes backwards. Elements are bits of
//! 1, 2, 4 or 8 bytes; no number is looked at, so that every NaN passes unchanged.
//!
//! | the innermost axis is | it is copied by |
//! |---|---|
//! | contiguous on both sides | vectors; the last one overlaps its neighbour, unless the row is shorter than a vector |
//! | contiguous when written, repeated when read | stores of one splat |
//! | contiguous when written, while another axis is when read | tiles of T x T, transposed by shuffles ([`tile`]) |
//! | anything else | scalars |
//!
//! Tasks are about 16 KiB each ([`plan`]). Sources must not overlap destinations, destinations not each other.

pub mod plan;
pub mod tile;

use crate::kir::{ArgDecl, Builder, Elem, Index, Kernel, Type, Value};
use crate::target::Target;
use plan::{Inner, Nest};

/// One axis of a region; strides in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    /// Its length.
    pub len: usize,
    /// Distance between neighbours where they are read; may be 0 or negative.
    pub src: i64,
    /// Distance between neighbours where they are written; positive.
    pub dst: i64,
}

/// What is moved from one operand to another; offsets in elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// The operand that is read.
    pub from: usize,
    /// The operand that is written.
    pub to: usize,
    /// Where the first element is read.
    pub src: i64,
    /// Where it is written.
    pub dst: i64,
    /// The axes, in any order.
    pub axes: Vec<Axis>,
}

/// The kernel of a list of regions, and its number of tasks: 0 when nothing is moved. Operands below `sources` are read, the
/// others written; `width` is the size of an element in bytes.
pub fn strided(
    target: &Target,
    name: &str,
    width: usize,
    sources: usize,
    operands: usize,
    regions: &[Region],
) -> (Kernel, usize) {
    let decl = |i: usize| {
        if i < sources { ArgDecl::read(format!("x{i}"), 1) } else { ArgDecl::write(format!("y{}", i - sources), 1) }
    };
    let mut b = Builder::new(name, (0..operands).map(decl).collect());
    let nests: Vec<Nest> = regions.iter().flat_map(|r| plan::nests(r, width)).collect();
    let mut first = 0;
    for nest in &nests {
        let end = first + nest.tasks.iter().map(|a| a.len).product::<usize>();
        // A task belongs to one nest: each nest does its part of the range that this call was given.
        let (lo, hi) = match nests.len() {
            1 => (b.begin(), b.end()),
            _ => {
                let (lo, hi) = (b.i64(first as i64), b.i64(end as i64));
                let (begin, stop) = (b.begin(), b.end());
                (b.max_s(begin, lo), b.min_s(stop, hi))
            }
        };
        b.for_(lo, hi, 1, |b, task| {
            let task = b.add_imm(task, -(first as i64));
            emit_task(b, target, nest, task);
        });
        first = end;
    }
    (b.finish(), first)
}

/// One task: its place along the task axes, then the loops, then the innermost copies.
fn emit_task(b: &mut Builder, target: &Target, nest: &Nest, task: Value) {
    let (from, to) = (b.arg(nest.from), b.arg(nest.to));
    let (mut src, mut dst) = (plus(b, from, nest.src), plus(b, to, nest.dst));
    let mut rest = task;
    for (n, axis) in nest.tasks.iter().enumerate().rev() {
        let len = b.i64(axis.len as i64);
        let i = if n == 0 { rest } else { b.rem_s(rest, len) };
        if n > 0 {
            rest = b.div_s(rest, len);
        }
        (src, dst) = (advance(b, src, i, axis.src), advance(b, dst, i, axis.dst));
    }
    emit_loops(b, target, &nest.loops, &nest.inner, src, dst);
}

fn emit_loops(b: &mut Builder, target: &Target, loops: &[Axis], inner: &Inner, src: Value, dst: Value) {
    if let Some((axis, loops)) = loops.split_first() {
        b.for_(0, axis.len, 1, |b, i| {
            let (src, dst) = (advance(b, src, i, axis.src), advance(b, dst, i, axis.dst));
            emit_loops(b, target, loops, inner, src, dst);
        });
        return;
    }
    match *inner {
        Inner::Row { len, unit } => row(b, target, len, unit, Some(src), dst, None),
        Inner::Splat { len, unit } => {
            let one = b.load(Type::Scalar(unit), src);
            row(b, target, len, unit, None, dst, Some(one));
        }
        Inner::Scalar { axis, unit } => scalars(b, axis, unit, src, dst),
        Inner::Tile { a, b: other, unit } => tile::emit(b, target, a, other, unit, src, dst),
    }
}

/// `len` elements to `dst`, from `src` or all of them `one`.
pub(super) fn row(
    b: &mut Builder,
    target: &Target,
    len: usize,
    unit: Elem,
    src: Option<Value>,
    dst: Value,
    one: Option<Value>,
) {
    /// Rows of up to this many vectors are straight code.
    const UNROLLED: usize = 8;
    let mut lanes = target.lanes(unit);
    while lanes > len && lanes * unit.bytes() > 16 {
        lanes /= 2;
    }
    let ty = Type::of(unit, lanes);
    let splat = one.map(|one| b.splat(ty, one));
    let copy = |b: &mut Builder, at: Index, count: usize| {
        let at = |p: Value| match at {
            Index::Const(c) => p.at(c * unit.bytes() as i64),
            Index::Value(i) => p.at(0).idx(i, unit.bytes()),
        };
        let v = match (src, splat) {
            (Some(src), _) => b.load_part(ty, at(src), count),
            (None, Some(splat)) => splat,
            (None, None) => return,
        };
        b.store_part(at(dst), v, count);
    };
    if len < lanes {
        return copy(b, Index::Const(0), len);
    }
    let mut done = 0;
    if len / lanes > UNROLLED {
        let step = 4 * lanes;
        done = len / step * step;
        b.for_(0, done, step as i64, |b, i| {
            for n in 0..4 {
                let i = b.add_imm(i, (n * lanes) as i64);
                copy(b, Index::Value(i), lanes);
            }
        });
    }
    while done + lanes <= len {
        copy(b, Index::Const(done as i64), lanes);
        done += lanes;
    }
    if done < len {
        copy(b, Index::Const((len - lanes) as i64), lanes);
    }
}

fn scalars(b: &mut Builder, axis: Axis, unit: Elem, src: Value, dst: Value) {
    b.for_(0, axis.len, 1, |b, i| {
        let (src, dst) = (advance(b, src, i, axis.src), advance(b, dst, i, axis.dst));
        let v = b.load(Type::Scalar(unit), src);
        b.store(dst, v);
    });
}

/// `p` and a constant number of bytes, which may not fit a displacement.
fn plus(b: &mut Builder, p: Value, bytes: i64) -> Value {
    match i32::try_from(bytes) {
        Ok(_) => b.ptr(p.at(bytes)),
        Err(_) => {
            let offset = b.i64(bytes);
            b.ptr_add(p, offset, 1)
        }
    }
}

/// `p + i * stride`, for a stride of any sign.
fn advance(b: &mut Builder, p: Value, i: Value, stride: i64) -> Value {
    if stride == 0 {
        return p;
    }
    let offset = b.mul_imm(i, stride);
    b.ptr_add(p, offset, 1)
}
