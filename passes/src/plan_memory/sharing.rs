//! Which storage a result may share with an operand: the one place that knows it, for planner, bound and checker.
//!
//! ```text
//! view       the result is a stretch of the operand's bytes; no code runs            Reshape, Identity, Slice, Split, Relayout
//! parts      the operands are stretches of the result's bytes, one behind the other   Concat
//! in place   the result may overwrite an operand that has the same shape and layout   elementwise operators, epilogues
//! ```
//!
//! A stretch exists only where the layout makes it contiguous. Row-major: along an axis whose outer axes all have size 1.
//! Blocked: along channels of a batch of one, at multiples of a block; along the batch always.
//!
//! In place asks this of a kernel: an element of the result is written after the same element of each operand has been
//! read, and nothing is read twice. Maps are such kernels; so are the epilogues of convolutions and matrix products, which
//! write each result once, from registers.

use nncc_ir::{BLOCK, Graph, HALF_BLOCK, Layout, NodeId, Op, ValueId};
use smallvec::{SmallVec, smallvec};

/// Size in memory of a value, padding lanes included; `None` if a dimension is symbolic or the size overflows.
pub fn stored_bytes(g: &Graph, v: ValueId) -> Option<usize> {
    let value = g.value(v);
    let elems = value.layout.stored_elems(&value.ty.dims()?)?;
    elems.checked_mul(value.ty.dtype.bytes())
}

/// A result that is a stretch of an operand: `result = operand[offset..]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The result.
    pub result: ValueId,
    /// The operand.
    pub operand: ValueId,
    /// Where in the operand it begins, in bytes.
    pub offset: usize,
}

/// The views that a node makes: all of its results, or none.
pub fn views(g: &Graph, n: NodeId) -> SmallVec<[View; 2]> {
    let Some(x) = g.operand(n, 0) else { return SmallVec::new() };
    let result = ValueId { node: n, out: 0 };
    let same = || smallvec![View { result, operand: x, offset: 0 }];
    let (from, to) = (g.value(x).layout, g.value(result).layout);
    match g.op(n) {
        Op::Reshape(_) if from == Layout::RowMajor && to == Layout::RowMajor => same(),
        Op::Identity(_) if from == to => same(),
        Op::Relayout(_) if from == to || free_relayout(g, x, result) => same(),
        Op::Slice(s) if s.steps.iter().all(|&s| s == 1) => {
            slice_view(g, n, x).map_or(SmallVec::new(), |v| smallvec![v])
        }
        Op::Split(s) => split_views(g, n, x, s.axis).unwrap_or_default(),
        _ => SmallVec::new(),
    }
}

/// A blocked map of one pixel is a vector of channels: the same bytes as row-major if no padding lane lies inside.
fn free_relayout(g: &Graph, from: ValueId, to: ValueId) -> bool {
    let Some(dims) = g.ty(from).dims() else { return false };
    let one_pixel = dims.len() >= 2 && dims[2..].iter().all(|&d| d == 1);
    // Towards blocked the result is longer than the operand unless channels fill their blocks.
    let to_row_major = g.value(to).layout == Layout::RowMajor;
    one_pixel && (dims[1].is_multiple_of(HALF_BLOCK) || (dims[0] == 1 && to_row_major))
}

/// Bytes from one index of `axis` to the next, if a range of that axis is one contiguous stretch. `cut` tells whether all
/// boundaries of the range may lie there (block boundaries).
fn stretch(g: &Graph, v: ValueId, axis: usize) -> Option<(usize, usize)> {
    let value = g.value(v);
    let dims = value.ty.dims()?;
    if dims[..axis].iter().any(|&d| d != 1) {
        return None;
    }
    let inner: usize = dims[axis + 1..].iter().product();
    match (value.layout, axis) {
        (Layout::RowMajor, _) => Some((inner * value.ty.dtype.bytes(), 1)),
        (Layout::Blocked, 0) => Some((stored_bytes(g, v)? / dims[0].max(1), 1)),
        (Layout::Blocked, 1) => Some((inner * value.ty.dtype.bytes(), BLOCK)),
        (Layout::Blocked, _) => None,
    }
}

fn slice_view(g: &Graph, n: NodeId, x: ValueId) -> Option<View> {
    let Op::Slice(s) = g.op(n) else { return None };
    let result = ValueId { node: n, out: 0 };
    let dims = g.ty(x).dims()?;
    let lens: Vec<usize> = s.lens.iter().map(|d| d.size()).collect::<Option<_>>()?;
    let starts: Vec<usize> = s.starts.iter().map(|d| d.size()).collect::<Option<_>>()?;
    if g.value(x).layout != g.value(result).layout || lens.contains(&0) {
        return None;
    }
    let mut cut = (0..dims.len()).filter(|&a| lens[a] != dims[a]);
    let axis = cut.next().unwrap_or(0);
    if cut.next().is_some() || dims.is_empty() {
        return None; // a box in two axes is not one stretch, but for outer axes of length 1, which are rare
    }
    let (step, unit) = stretch(g, x, axis)?;
    let end = starts[axis] + lens[axis];
    let aligned = starts[axis].is_multiple_of(unit) && (end.is_multiple_of(unit) || end == dims[axis]);
    aligned.then_some(View { result, operand: x, offset: starts[axis] * step })
}

fn split_views(g: &Graph, n: NodeId, x: ValueId, axis: usize) -> Option<SmallVec<[View; 2]>> {
    let (step, unit) = stretch(g, x, axis)?;
    let (mut at, mut out) = (0usize, SmallVec::new());
    for result in g.results(n) {
        if g.value(x).layout != g.value(result).layout || !at.is_multiple_of(unit) {
            return None;
        }
        out.push(View { result, operand: x, offset: at * step });
        at += g.ty(result).dims()?[axis];
    }
    Some(out)
}

/// For a `Concat` whose operands are stretches of its result: each operand with its offset in bytes.
pub fn parts(g: &Graph, n: NodeId) -> Option<Vec<(ValueId, usize)>> {
    let Op::Concat(c) = g.op(n) else { return None };
    let result = ValueId { node: n, out: 0 };
    let (step, unit) = stretch(g, result, c.axis)?;
    let (mut at, mut out) = (0usize, Vec::new());
    for x in g.operands(n) {
        let x = x?;
        if g.value(x).layout != g.value(result).layout || !at.is_multiple_of(unit) {
            return None;
        }
        out.push((x, at * step));
        at += g.ty(x).dims()?[c.axis];
    }
    Some(out)
}

/// The operands whose storage the result of `n` may take over, if they are dead behind it; best first.
pub fn in_place(g: &Graph, n: NodeId) -> SmallVec<[ValueId; 2]> {
    let op = g.op(n);
    let operands = g.operands(n);
    // The operands that are read at the index that is written; the others are weights or what a root reads at large.
    let first = match op {
        Op::Fused(f) => f.root_operands,
        _ => {
            let types: Option<Vec<_>> = operands.iter().map(|v| v.map(|v| g.ty(v))).collect();
            let Some(types) = types else { return SmallVec::new() };
            if op.pointwise(&types).is_none() {
                return SmallVec::new();
            }
            0
        }
    };
    let result = g.value(ValueId { node: n, out: 0 });
    let fits = |v: &ValueId| {
        let x = g.value(*v);
        x.layout == result.layout && x.ty.shape == result.ty.shape && x.ty.dtype.bytes() == result.ty.dtype.bytes()
    };
    let mut out: SmallVec<[ValueId; 2]> = SmallVec::new();
    for v in operands.into_iter().skip(first).flatten().filter(fits) {
        // A value that a root also reads at large (y = conv(x) + x) must stay.
        if !out.contains(&v) && !g.operands(n)[..first].contains(&Some(v)) {
            out.push(v);
        }
    }
    out
}
