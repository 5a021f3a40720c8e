//! What the lowerings of all operators share that only move elements: boxes of indices as regions of memory.
//!
//! A [`BoxMap`] says which element of the source each index of a box of the destination takes, axis by axis: `start + step *
//! i` along one axis of the source. [`regions`] turns it into strided copies for any layouts of the two. A row-major side is
//! one affine map; a blocked one is not along its channels, which are cut where either side enters another block:
//!
//! ```text
//! destination channels  0       8       16      24      32     from channel 8 of a blocked source of 40:
//! block, lane           0:0 ... ....... 1:0     ....... 2:0    cuts every 8 channels, because blocks begin at 8, 24, ..
//! source block, lane    0:8     1:0     1:8     2:0            of the destination's numbers
//! ```
//!
//! Pieces that repeat at a constant distance become one region with an axis over them, so that an aligned concatenation is
//! one copy of whole blocks plus one of the edge block, and the example two interleaved ones.

use crate::kernels::strided::{self, Axis, Region};
use crate::lower::{Call, LowerCx, LowerError, Operand};
use crate::program::Arg;
use nncc_ir::tensor::strides_of;
use nncc_ir::{BLOCK, DType, Layout, channel_blocks, padded_channels};
use std::collections::BTreeMap;

/// More regions than this are split over several steps: code size grows with them.
const REGIONS_A_STEP: usize = 64;
/// More regions than this for one node are refused: only attributes that no real model has lead there.
const MAX_REGIONS: usize = 4096;

/// The memory of a tensor: how an index becomes an offset.
#[derive(Clone, Debug)]
pub struct Side {
    dims: Vec<usize>,
    layout: Layout,
}

impl Side {
    /// The memory of an operand.
    pub fn of(o: &Operand) -> Side {
        Side { dims: o.dims.clone(), layout: o.layout }
    }

    /// Row-major memory of other extents, for an operator that is a copy when its axes are split.
    pub fn row_major(dims: &[usize]) -> Side {
        Side { dims: dims.to_vec(), layout: Layout::RowMajor }
    }

    fn is_channel(&self, axis: usize) -> bool {
        self.layout == Layout::Blocked && axis == 1
    }

    fn plane(&self) -> usize {
        self.dims[2..].iter().product()
    }

    /// Where a channel of a blocked tensor begins (batch 0, pixel 0), and the width of its block.
    fn channel(&self, c: usize) -> (i64, usize) {
        let (block, lane) = (c / BLOCK, c % BLOCK);
        let width = channel_blocks(self.dims[1]).nth(block).map_or(BLOCK, |(_, width)| width);
        ((block * BLOCK * self.plane() + lane) as i64, width)
    }

    /// The stride of an axis other than a blocked channel axis, in blocks of `width`.
    fn stride(&self, axis: usize, width: usize) -> i64 {
        let stride = match (self.layout, axis) {
            (Layout::RowMajor, _) => strides_of(&self.dims)[axis],
            (Layout::Blocked, 0) => padded_channels(self.dims[1]) * self.plane(),
            (Layout::Blocked, _) => width * self.dims[axis + 1..].iter().product::<usize>(),
        };
        stride as i64
    }
}

/// One axis of a [`BoxMap`].
#[derive(Clone, Copy, Debug)]
pub struct AxisMap {
    /// Indices along this axis of the destination.
    pub len: usize,
    /// The first one.
    pub to: usize,
    /// The axis of the source, the first index in it and the step; `None` repeats what the other axes say.
    pub from: Option<(usize, i64, i64)>,
}

/// A box of the destination and where its elements come from: one entry for each axis of the destination.
pub type BoxMap = Vec<AxisMap>;

/// The box of all of a destination whose axes are those of the source.
pub fn identity(dims: &[usize]) -> BoxMap {
    dims.iter().enumerate().map(|(a, &len)| AxisMap { len, to: 0, from: Some((a, 0, 1)) }).collect()
}

/// A region between two operands, by their positions in a list of arguments.
pub struct Moves {
    dtype: DType,
    label: &'static str,
    sources: Vec<Arg>,
    destinations: Vec<Arg>,
    regions: Vec<(usize, usize, Piece)>,
}

/// A region without its operands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset of the first element read.
    pub src: i64,
    /// Offset of the first element written.
    pub dst: i64,
    /// Axes.
    pub axes: Vec<Axis>,
}

impl Moves {
    /// No moves yet, of elements of this type.
    pub fn new(dtype: DType) -> Moves {
        Moves { dtype, label: "", sources: Vec::new(), destinations: Vec::new(), regions: Vec::new() }
    }

    /// With a name of the steps for profiles, where they do not do what the operator is called.
    pub fn labelled(self, label: &'static str) -> Moves {
        Moves { label, ..self }
    }

    /// Adds what a map says between two operands.
    ///
    /// # Errors
    /// When a constant operand does not fit in memory.
    pub fn add(
        &mut self,
        cx: &mut LowerCx<'_, '_>,
        from: &Operand,
        to: &Operand,
        map: &BoxMap,
    ) -> Result<(), LowerError> {
        self.add_pieces(cx, from, to, regions(&Side::of(from), &Side::of(to), map))
    }

    /// Adds pieces between two operands.
    ///
    /// # Errors
    /// When a constant operand does not fit in memory, or there are absurdly many pieces.
    pub fn add_pieces(
        &mut self,
        cx: &mut LowerCx<'_, '_>,
        from: &Operand,
        to: &Operand,
        pieces: Vec<Piece>,
    ) -> Result<(), LowerError> {
        let position = |list: &mut Vec<Arg>, arg: Arg| match list.iter().position(|a| *a == arg) {
            Some(i) => i,
            None => {
                list.push(arg);
                list.len() - 1
            }
        };
        let (src, dst) = (cx.arg(from)?, cx.arg(to)?);
        let (i, j) = (position(&mut self.sources, src), position(&mut self.destinations, dst));
        let bytes = self.dtype.bytes();
        let pieces = pieces.into_iter().filter(|p| !is_in_place(src, dst, p, bytes));
        self.regions.extend(pieces.map(|p| (i, j, p)));
        if self.regions.len() > MAX_REGIONS {
            return Err(cx.unsupported(format!("moving elements in {} separate pieces", self.regions.len())));
        }
        Ok(())
    }

    /// Appends the steps.
    pub fn lower(self, cx: &mut LowerCx<'_, '_>) {
        let sources = self.sources.len();
        let args = [&self.sources[..], &self.destinations].concat();
        for part in self.regions.chunks(REGIONS_A_STEP) {
            // Only the operands that this step uses, sources first.
            let mut used: Vec<usize> = part.iter().flat_map(|(i, j, _)| [*i, sources + *j]).collect();
            used.sort_unstable();
            used.dedup();
            let at = |arg: usize| used.iter().position(|u| *u == arg).expect("collected above");
            let region = |(i, j, p): &(usize, usize, Piece)| Region {
                from: at(*i),
                to: at(sources + *j),
                src: p.src,
                dst: p.dst,
                axes: p.axes.clone(),
            };
            let regions: Vec<Region> = part.iter().map(region).collect();
            let read = used.iter().filter(|u| **u < sources).count();
            let (kernel, tasks) = strided::strided(cx.target(), "move", self.dtype.bytes(), read, used.len(), &regions);
            if tasks > 0 {
                let kernel = cx.kernel(kernel);
                let args: Vec<Arg> = used.iter().map(|u| args[*u]).collect();
                cx.step(Call::new(kernel, &args, tasks).labelled(self.label));
            }
        }
    }
}

/// Whether a piece is where it belongs already, because the plan let a part be written in place.
fn is_in_place(src: Arg, dst: Arg, p: &Piece, bytes: usize) -> bool {
    match (src, dst) {
        (Arg::Arena(s), Arg::Arena(d)) => {
            let (s, d) = (s as i64 + p.src * bytes as i64, d as i64 + p.dst * bytes as i64);
            s == d && p.axes.iter().all(|a| a.len == 1 || a.src == a.dst)
        }
        _ => false,
    }
}

/// One operand moved as a whole, by a map.
///
/// # Errors
/// When a constant operand does not fit in memory.
pub fn lower_map(cx: &mut LowerCx<'_, '_>, from: &Operand, to: &Operand, map: &BoxMap) -> Result<(), LowerError> {
    let mut moves = Moves::new(to.dtype);
    moves.add(cx, from, to, map)?;
    moves.lower(cx);
    Ok(())
}

/// Refuses blocked operands, for operators whose blocked form no layout assignment asks for.
///
/// # Errors
/// When one is blocked.
pub fn require_row_major(cx: &LowerCx<'_, '_>) -> Result<(), LowerError> {
    match cx.operands().iter().flatten().chain(cx.outputs()).find(|o| o.layout != Layout::RowMajor) {
        Some(o) => Err(cx.unsupported(format!("{} is {}, not row-major", o.name, o.layout))),
        None => Ok(()),
    }
}

/// The strided copies of a map.
pub fn regions(from: &Side, to: &Side, map: &BoxMap) -> Vec<Piece> {
    if map.iter().any(|a| a.len == 0) {
        return Vec::new();
    }
    // The product of the cuts of the axes that run along blocked channels, at most one a side.
    let mut out: Vec<Vec<(usize, Cut)>> = vec![Vec::new()];
    for (n, axis) in map.iter().enumerate() {
        let source = axis.from.filter(|&(a, ..)| from.is_channel(a)).map(|(_, start, step)| (from, start, step));
        let destination = to.is_channel(n).then_some((to, axis.to as i64, 1));
        if source.is_none() && destination.is_none() {
            continue;
        }
        let cuts = cuts(axis.len, source, destination);
        let with = |done: &Vec<(usize, Cut)>| -> Vec<Vec<(usize, Cut)>> {
            cuts.iter().map(|c| [&done[..], &[(n, c.clone())]].concat()).collect()
        };
        out = out.iter().flat_map(with).collect();
    }
    out.into_iter().map(|cuts| piece(from, to, map, &cuts)).collect()
}

/// Indices of an axis that are at constant distances on the sides that are blocked along it.
#[derive(Clone, Debug)]
struct Cut {
    /// The first index.
    first: usize,
    /// (count, distance of indices, distances in the source and in the destination), outer first.
    axes: [(usize, usize, i64, i64); 2],
    /// Offset of the first index and width of the blocks, on the sides that are blocked along this axis.
    from: Option<(i64, usize)>,
    to: Option<(i64, usize)>,
}

/// Cuts an axis of `len` indices where a blocked side, given as (side, start, step), enters another block, and groups runs of
/// equal cuts.
fn cuts(len: usize, from: Option<(&Side, i64, i64)>, to: Option<(&Side, i64, i64)>) -> Vec<Cut> {
    let place = |side: Option<(&Side, i64, i64)>, t: usize| {
        side.map(|(s, start, step)| {
            let c = (start + step * t as i64) as usize; // indices of a map exist
            (c / BLOCK, s.channel(c))
        })
    };
    // Runs of indices within one block on both sides: (first, length).
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for t in 0..len {
        let block = |side, t| place(side, t).map(|(block, _)| block);
        match runs.last_mut() {
            Some((first, n)) if block(from, *first) == block(from, t) && block(to, *first) == block(to, t) => *n += 1,
            _ => runs.push((t, 1)),
        }
    }
    // Runs that look alike, in order: the same length, lanes and widths.
    type Key = (usize, Option<(usize, usize)>, Option<(usize, usize)>);
    let mut alike: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for &(first, n) in &runs {
        let look = |side: Option<(&Side, i64, i64)>| {
            side.map(|(_, start, step)| (start + step * first as i64) as usize % BLOCK)
                .zip(place(side, first))
                .map(|(lane, (_, (_, width)))| (lane, width))
        };
        alike.entry((n, look(from), look(to))).or_default().push(first);
    }
    let offset = |side, t| place(side, t).map_or(0, |(_, (offset, _))| offset);
    let mut out = Vec::new();
    for ((n, ..), firsts) in alike {
        let mut rest = &firsts[..];
        while let Some(&first) = rest.first() {
            let distance = |i: usize| {
                let (a, b) = (rest[i - 1], rest[i]);
                (b - a, offset(from, b) - offset(from, a), offset(to, b) - offset(to, a))
            };
            let count = 1 + (1..rest.len()).take_while(|&i| distance(i) == distance(1)).count();
            let (dt, ds, dd) = if count > 1 { distance(1) } else { (0, 0, 0) };
            let lane = |side: Option<(&Side, i64, i64)>| side.map_or(0, |(_, _, step)| step);
            out.push(Cut {
                first,
                axes: [(count, dt, ds, dd), (n, 1, lane(from), lane(to))],
                from: place(from, first).map(|(_, p)| p),
                to: place(to, first).map(|(_, p)| p),
            });
            rest = &rest[count..];
        }
    }
    out
}

/// The region of one combination of cuts.
fn piece(from: &Side, to: &Side, map: &BoxMap, cuts: &[(usize, Cut)]) -> Piece {
    let width = |side: fn(&Cut) -> Option<(i64, usize)>| cuts.iter().find_map(|(_, c)| side(c)).map_or(1, |(_, w)| w);
    let (from_width, to_width) = (width(|c| c.from), width(|c| c.to));
    let mut out = Piece { src: 0, dst: 0, axes: Vec::new() };
    for (n, axis) in map.iter().enumerate() {
        let cut = cuts.iter().find(|(a, _)| *a == n).map(|(_, c)| c);
        let first = cut.map_or(0, |c| c.first) as i64;
        let along_source = axis.from.map(|(a, start, step)| (a, start + step * first, step));
        // A side that is blocked along this axis has its distances in the cut, another one its stride.
        let (src, src_step) = match (cut.and_then(|c| c.from), along_source) {
            (Some((offset, _)), _) => (offset, None),
            (None, Some((a, start, step))) => {
                let stride = from.stride(a, from_width);
                (start * stride, Some(step * stride))
            }
            (None, None) => (0, Some(0)),
        };
        let (dst, dst_step) = match cut.and_then(|c| c.to) {
            Some((offset, _)) => (offset, None),
            None => {
                let stride = to.stride(n, to_width);
                ((axis.to as i64 + first) * stride, Some(stride))
            }
        };
        out.src += src;
        out.dst += dst;
        let whole = [(axis.len, 1, 0, 0)];
        for &(len, distance, in_source, in_destination) in cut.map_or(&whole[..], |c| &c.axes[..]) {
            let distance = distance as i64;
            out.axes.push(Axis {
                len,
                src: src_step.map_or(in_source, |s| s * distance),
                dst: dst_step.map_or(in_destination, |s| s * distance),
            });
        }
    }
    out
}

#[cfg(test)]
mod tests;
