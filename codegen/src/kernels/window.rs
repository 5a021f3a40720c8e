//! Sliding windows in kernels: which inputs an output reads on one axis, and how a row of outputs is cut into register tiles.
//!
//! ```text
//! output i, tap t  reads input   i * stride + first + t * dilation     (counts as padding outside of 0..inputs)
//!                  and lies at   out_first + i * out_step              in a row of out_extent
//! ```
//!
//! A convolution or pooling has `first = -pad` and places its outputs one behind the other. A transposed convolution is one
//! window for each phase: its outputs lie `out_step` apart and read with stride 1, so that no zero is ever multiplied. Outputs that
//! no tap reaches may be written along with those before them (`out_span`).
//!
//! ```text
//! row of outputs   | 0 1 2 3 4 | 5 6 7 8 9 | 10 11 12 13 |        balanced tiles: no remainder of one pixel
//! taps valid       | 1..  all  |    all    |     all ..1 |        known while compiling for each tile: a Run
//! ```
//!
//! Padding costs nothing: on the outer axes the tap loops are clipped for each row, on the innermost axis the tiles at the
//! border are code of their own that leaves out what reads padding.

use crate::kir::{Builder, Index, IntCc, Value};
use std::ops::Range;

/// One spatial axis of a sliding window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    /// Elements of the input.
    pub inputs: usize,
    /// Elements of the input that memory holds: all of them, or the rows of a band.
    pub in_extent: usize,
    /// Outputs that are computed.
    pub outputs: usize,
    /// Inputs between the windows of neighbouring outputs.
    pub stride: usize,
    /// Taps of the window.
    pub taps: usize,
    /// The input that tap 0 of output 0 reads; negative in the padding.
    pub first: i64,
    /// Inputs between neighbouring taps.
    pub dilation: usize,
    /// Elements of the output that memory holds: all of the tensor's, or the rows of a band.
    pub out_extent: usize,
    /// Where output 0 lies.
    pub out_first: usize,
    /// Elements between neighbouring outputs.
    pub out_step: usize,
    /// Elements that each output writes: itself, and those behind it that no window reaches. 1, or all of a step.
    pub out_span: usize,
}

impl Axis {
    /// An axis of one element: what stands for the missing axes of a convolution over fewer than three.
    pub const UNIT: Axis = Axis {
        inputs: 1,
        in_extent: 1,
        outputs: 1,
        stride: 1,
        taps: 1,
        first: 0,
        dilation: 1,
        out_extent: 1,
        out_first: 0,
        out_step: 1,
        out_span: 1,
    };

    /// The window of a convolution or pooling.
    pub fn sliding(inputs: usize, outputs: usize, kernel: usize, stride: usize, dilation: usize, pad: usize) -> Axis {
        Axis {
            inputs,
            in_extent: inputs,
            outputs,
            stride,
            taps: kernel,
            first: -(pad as i64),
            dilation,
            out_extent: outputs,
            out_first: 0,
            out_step: 1,
            out_span: 1,
        }
    }

    /// Does every output read exactly the input at its own index?
    pub fn is_identity(&self) -> bool {
        let place = (self.out_first, self.out_step, self.out_extent) == (0, 1, self.outputs);
        let read = (self.first, self.stride, self.taps, self.in_extent) == (0, 1, 1, self.inputs);
        place && read && self.inputs == self.outputs
    }

    /// The input that a tap of an output reads, if it is one.
    pub fn input(&self, output: usize, tap: usize) -> Option<usize> {
        let i = output as i64 * self.stride as i64 + self.first + tap as i64 * self.dilation as i64;
        usize::try_from(i).ok().filter(|&i| i < self.inputs)
    }

    /// Does no tap of any output read padding?
    pub fn inside(&self) -> bool {
        let last = |count: usize| count.saturating_sub(1);
        self.outputs == 0
            || self.taps == 0
            || (self.input(0, 0).is_some() && self.input(last(self.outputs), last(self.taps)).is_some())
    }

    /// The input that tap 0 of output `o` reads, if it is one: before the first or behind the last in the padding.
    pub fn first_input(&self, b: &mut Builder, o: Value) -> Value {
        let i = b.mul_imm(o, self.stride as i64);
        b.add_imm(i, self.first)
    }

    /// Where output `o` lies.
    pub fn place(&self, b: &mut Builder, o: Value) -> Value {
        let i = b.mul_imm(o, self.out_step as i64);
        b.add_imm(i, self.out_first as i64)
    }

    /// The taps `lo..hi` of output `o` that read an input; `lo >= hi` when none does.
    pub fn tap_bounds(&self, b: &mut Builder, o: Value) -> (Index, Index) {
        if self.inside() {
            return (Index::Const(0), Index::Const(self.taps as i64));
        }
        // at = input of tap 0.  lo = ceil(-at / dilation), hi = floor((inputs - 1 - at) / dilation) + 1; numerators are made
        // non-negative first, so that division is of unsigned numbers.
        let at = self.first_input(b, o);
        let zero = b.i64(0);
        let (dilation, taps) = (self.dilation as i64, b.i64(self.taps as i64));
        let divide = |b: &mut Builder, v: Value| {
            let v = b.max_s(v, zero);
            let d = b.i64(dilation);
            if dilation == 1 { v } else { b.div_u(v, d) }
        };
        let before = b.i64(dilation - 1);
        let before = b.sub(before, at);
        let lo = divide(b, before);
        let behind = b.i64(self.inputs as i64 - 1 + dilation);
        let behind = b.sub(behind, at);
        let hi = divide(b, behind);
        let hi = b.min_s(hi, taps);
        (Index::Value(lo), Index::Value(hi))
    }

    /// Of the outputs `tile`, those (relative to its start) whose tap `tap` reads an input.
    pub fn valid(&self, tap: usize, tile: &Range<usize>) -> Range<usize> {
        let mut ok = tile.clone().filter(|&o| self.input(o, tap).is_some());
        match ok.next() {
            None => 0..0,
            Some(first) => first - tile.start..ok.next_back().unwrap_or(first) + 1 - tile.start,
        }
    }

    /// The row cut into tiles of at most `widest` outputs, equal neighbours joined.
    pub fn runs(&self, widest: usize) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut start = 0;
        for width in balanced(self.outputs, widest) {
            let taps = self.tap_groups(&(start..start + width));
            match runs.last_mut() {
                Some(run) if run.width == width && run.taps == taps => run.count += 1,
                _ => runs.push(Run { start, width, count: 1, taps }),
            }
            start += width;
        }
        runs
    }

    fn tap_groups(&self, tile: &Range<usize>) -> Vec<TapGroup> {
        let mut groups: Vec<TapGroup> = Vec::new();
        for tap in 0..self.taps {
            let pixels = self.valid(tap, tile);
            if pixels.is_empty() {
                continue;
            }
            match groups.last_mut() {
                Some(g) if g.pixels == pixels && g.taps.end == tap => g.taps.end += 1,
                _ => groups.push(TapGroup { taps: tap..tap + 1, pixels }),
            }
        }
        groups
    }
}

/// The widths of the fewest tiles of at most `widest` that make up `count`, differing by at most one, wide ones first.
pub fn balanced(count: usize, widest: usize) -> impl Iterator<Item = usize> {
    let tiles = count.div_ceil(widest.max(1));
    let (narrow, wide) = (count.checked_div(tiles).unwrap_or(0), count.checked_rem(tiles).unwrap_or(0));
    (0..tiles).map(move |i| narrow + usize::from(i < wide))
}

/// Neighbouring tiles that one piece of code computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first output.
    pub start: usize,
    /// Outputs of a tile.
    pub width: usize,
    /// Tiles.
    pub count: usize,
    /// Which taps reach which outputs; taps that reach none are left out.
    pub taps: Vec<TapGroup>,
}

impl Run {
    /// Do all `taps` taps reach all outputs?
    pub fn is_whole(&self, taps: usize) -> bool {
        matches!(&self.taps[..], [group] if group.taps == (0..taps) && group.pixels == (0..self.width))
    }
}

/// Neighbouring taps that reach the same outputs of a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapGroup {
    /// The taps.
    pub taps: Range<usize>,
    /// The outputs, relative to the tile.
    pub pixels: Range<usize>,
}

/// `v / k` and `v % k` for a non-negative index.
pub fn div_rem(b: &mut Builder, v: Value, k: usize) -> (Value, Value) {
    match (k, b.known(v)) {
        (1, _) => (v, b.i64(0)),
        (_, Some(v)) => (b.i64(v / k as i64), b.i64(v % k as i64)),
        _ => {
            let d = b.i64(k as i64);
            div_rem_by(b, v, d)
        }
    }
}

/// Where a line of outputs is that is counted over depth and height: its index in each.
pub fn line_at(b: &mut Builder, depth: &Axis, height: &Axis, line: Value) -> (Value, Value) {
    match (depth.outputs, height.outputs) {
        (1, 1) => (b.i64(0), b.i64(0)),
        (1, _) => (b.i64(0), line),
        (_, height) => div_rem(b, line, height),
    }
}

/// The line of a plane of lines that taps (0, 0) of the output line `at` (depth, height) read, if it is one.
pub fn first_line(b: &mut Builder, depth: &Axis, height: &Axis, [d, h]: [Value; 2]) -> Value {
    let d = depth.first_input(b, d);
    let h = height.first_input(b, h);
    let line = b.mul_imm(d, height.in_extent as i64);
    b.add(line, h)
}

/// The line where the output line `at` (depth, height) lies.
pub fn line_place(b: &mut Builder, depth: &Axis, height: &Axis, [d, h]: [Value; 2]) -> Value {
    let d = depth.place(b, d);
    let h = height.place(b, h);
    let line = b.mul_imm(d, height.out_extent as i64);
    b.add(line, h)
}

/// `v / d` and `v % d` for indices, `d > 0`.
pub fn div_rem_by(b: &mut Builder, v: Value, d: Value) -> (Value, Value) {
    let q = b.div_u(v, d);
    let whole = b.mul(q, d);
    (q, b.sub(v, whole))
}

/// `p + i * bytes`; nothing for the strides of a phase without taps, which are 0.
pub fn along(b: &mut Builder, p: Value, i: Value, bytes: usize) -> Value {
    if bytes == 0 { p } else { b.ptr(p.at(0).idx(i, bytes)) }
}

/// Code for the numbers below `full`, and code for the last one where it differs.
pub fn full_or_edge(b: &mut Builder, number: Value, full: usize, all: usize, body: impl Fn(&mut Builder, bool)) {
    let bound = |b: &mut Builder| b.i64(full as i64);
    full_or_edge_of(b, number, bound, [full > 0, full != all], body);
}

/// The same where it is known whether there are full ones and others, and a kernel reads how many full ones.
pub fn full_or_edge_of(
    b: &mut Builder,
    number: Value,
    full: impl FnOnce(&mut Builder) -> Value,
    there: [bool; 2],
    body: impl Fn(&mut Builder, bool),
) {
    match there {
        [false, _] => body(b, false),
        [true, false] => body(b, true),
        [true, true] => {
            let full = full(b);
            let is_full = b.icmp(IntCc::LtS, number, full);
            b.branch(is_full, |b| body(b, true), |b| body(b, false));
        }
    }
}

/// Piece `at` of `all` elements in pieces of `size`: from where to where.
pub fn piece(b: &mut Builder, at: Value, size: Value, all: Value) -> [Value; 2] {
    let lo = b.mul(at, size);
    let hi = b.add(lo, size);
    [lo, b.min_s(hi, all)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_balanced() {
        let widths = |n, w| balanced(n, w).collect::<Vec<_>>();
        assert_eq!(widths(14, 6), [5, 5, 4]);
        assert_eq!(widths(7, 6), [4, 3]);
        assert_eq!(widths(12, 6), [6, 6]);
        assert_eq!(widths(0, 6), [0usize; 0]);
        assert_eq!(widths(1, 6), [1]);
    }

    #[test]
    fn runs_cover_each_output_and_tap_once() {
        for (inputs, kernel, stride, dilation, pad) in
            [(7, 3, 1, 1, 1), (14, 3, 2, 1, 1), (5, 7, 1, 1, 3), (9, 3, 1, 4, 4), (3, 2, 5, 1, 2), (20, 1, 1, 1, 0)]
        {
            let outputs = (inputs + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1;
            let axis = Axis::sliding(inputs, outputs, kernel, stride, dilation, pad);
            for widest in 1..=8 {
                let mut seen = vec![vec![false; kernel]; outputs];
                for run in axis.runs(widest) {
                    for i in 0..run.count {
                        for g in &run.taps {
                            for (t, p) in g.taps.clone().flat_map(|t| g.pixels.clone().map(move |p| (t, p))) {
                                let o = run.start + i * run.width + p;
                                assert!(!std::mem::replace(&mut seen[o][t], true));
                            }
                        }
                    }
                }
                for (o, t) in (0..outputs).flat_map(|o| (0..kernel).map(move |t| (o, t))) {
                    assert_eq!(seen[o][t], axis.input(o, t).is_some(), "output {o} tap {t} of {axis:?}");
                }
            }
        }
    }
}
