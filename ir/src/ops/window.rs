//! Sliding windows: the index arithmetic that convolution and pooling share.
//!
//! ```text
//! output o, tap k of one axis reads input   o * stride + k * dilation - begin      (outside of 0..input: padding)
//! extent = (kernel - 1) * dilation + 1                                             inputs that a window spans
//! floor:   outputs = floor((input + begin + end - extent) / stride) + 1
//! ceil:    outputs = min(ceil((input + begin + end - extent) / stride) + 1, ceil((input + begin) / stride))
//! ```
//!
//! The second argument of `min` is ONNX's rule (since opset 19, as in PyTorch) that a window must not begin in the padding
//! behind the input.

use crate::op::TypeError;
use crate::{Dim, type_err};
use std::ops::Range;

/// No attribute may reach this: index arithmetic on products of two of them then stays inside i64.
const LIMIT: usize = 1 << 31;

/// The window of a convolution or pooling, by reference to the attributes that describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window<'a> {
    /// Taps an axis.
    pub kernel: &'a [usize],
    /// Distance of neighbouring windows.
    pub strides: &'a [usize],
    /// Distance of neighbouring taps.
    pub dilations: &'a [usize],
    /// Padding before the input on every axis, then behind it on every axis (ONNX's order).
    pub pads: &'a [usize],
}

impl Window<'_> {
    /// Checks the attributes for `spatial` axes: lengths, ranges.
    pub fn check(&self, spatial: usize) -> Result<(), TypeError> {
        let lists = [("strides", self.strides), ("dilations", self.dilations), ("the kernel", self.kernel)];
        for (name, list) in lists {
            if list.len() != spatial {
                return type_err!("{name}: {} numbers for {spatial} spatial axes", list.len());
            }
            if let Some(v) = list.iter().find(|v| !(1..LIMIT).contains(*v)) {
                return type_err!("{name} has a {v}, which is not in 1..2^31");
            }
        }
        if self.pads.len() != 2 * spatial {
            return type_err!("pads: {} numbers for {spatial} spatial axes, not {}", self.pads.len(), 2 * spatial);
        }
        match self.pads.iter().find(|p| **p >= LIMIT) {
            Some(p) => type_err!("a padding of {p} is too large"),
            None => Ok(()),
        }
    }

    /// Padding before the input.
    pub fn begin(&self, axis: usize) -> usize {
        self.pads[axis]
    }

    /// Padding behind the input.
    pub fn end(&self, axis: usize) -> usize {
        self.pads[self.kernel.len() + axis]
    }

    /// Inputs that a window spans.
    pub fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// The number of windows on `axis` over `input` elements; attributes are [checked](Window::check).
    pub fn outputs(&self, axis: usize, input: &Dim, ceil: bool) -> Result<Dim, TypeError> {
        let (begin, end) = (Dim::from(self.begin(axis)), Dim::from(self.end(axis)));
        let stride = self.strides[axis] as i64;
        let room = input.add(&begin).add(&end).sub(&Dim::from(self.extent(axis)));
        if room.known().is_some_and(|r| r < 0) {
            let (extent, padded) = (self.extent(axis), input.add(&begin).add(&end));
            return type_err!("a window of {extent} elements does not fit the padded input of {padded} (axis {axis})");
        }
        let too_large = || TypeError(format!("spatial axis {axis} is too large"));
        let steps = if ceil { room.ceil_div(stride) } else { room.floor_div(&Dim::Known(stride)) };
        let outputs = steps.ok_or_else(too_large)?.add(&Dim::Known(1));
        Ok(match ceil {
            true => outputs.min_of(&input.add(&begin).ceil_div(stride).ok_or_else(too_large)?),
            false => outputs,
        })
    }

    /// The outputs whose tap `k` lies inside the input, and the input that the first of them reads.
    pub(crate) fn outputs_of_tap(&self, axis: usize, k: usize, input: usize, outputs: usize) -> (Range<usize>, usize) {
        let (stride, begin, offset) = (self.strides[axis], self.begin(axis), k * self.dilations[axis]);
        let first = begin.saturating_sub(offset).div_ceil(stride);
        // o * stride + offset - begin <= input - 1
        let past = (input + begin).checked_sub(offset).map_or(0, |room| room.div_ceil(stride)).min(outputs);
        if first >= past { (0..0, 0) } else { (first..past, first * stride + offset - begin) }
    }

    /// The taps of output `o` that lie inside the input, and the input that the first of them reads.
    pub(crate) fn taps_of_output(&self, axis: usize, o: usize, input: usize) -> (Range<usize>, usize) {
        let (dilation, begin, offset) = (self.dilations[axis], self.begin(axis), o * self.strides[axis]);
        let first = begin.saturating_sub(offset).div_ceil(dilation);
        let past = (input + begin).checked_sub(offset).map_or(0, |room| room.div_ceil(dilation)).min(self.kernel[axis]);
        if first >= past { (0..0, 0) } else { (first..past, first * dilation + offset - begin) }
    }

    /// For each position of the window on all axes but the last (row-major): the `(output row, input row)` that meet.
    pub(crate) fn rows(&self, input: &[usize], outputs: &[usize]) -> Vec<Vec<(usize, usize)>> {
        let mut taps = vec![vec![(0, 0)]];
        for axis in 0..self.kernel.len() - 1 {
            let mut next = Vec::with_capacity(taps.len() * self.kernel[axis]);
            for pairs in &taps {
                for k in 0..self.kernel[axis] {
                    let (range, first) = self.outputs_of_tap(axis, k, input[axis], outputs[axis]);
                    let step = self.strides[axis];
                    let extend = |&(o, i): &(usize, usize)| {
                        let range = range.clone();
                        let start = range.start;
                        range.map(move |r| (o * outputs[axis] + r, i * input[axis] + first + (r - start) * step))
                    };
                    next.push(pairs.iter().flat_map(extend).collect());
                }
            }
            taps = next;
        }
        taps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window<'a>(k: &'a [usize], s: &'a [usize], d: &'a [usize], p: &'a [usize]) -> Window<'a> {
        Window { kernel: k, strides: s, dilations: d, pads: p }
    }

    #[test]
    fn last_window_starts_inside() {
        // 1 + 1 + 3 padded elements: windows at 0, 2, 4; the third begins behind the input.
        let w = window(&[1], &[2], &[1], &[1, 3]);
        assert_eq!(w.outputs(0, &Dim::Known(1), true), Ok(Dim::Known(1)));
        assert_eq!(w.outputs(0, &Dim::Known(1), false), Ok(Dim::Known(3)));
        let w = window(&[3], &[2], &[1], &[0, 0]);
        assert_eq!(w.outputs(0, &Dim::Known(4), true), Ok(Dim::Known(2)));
        assert!(w.outputs(0, &Dim::Known(2), false).is_err());
    }

    #[test]
    fn symbols_stay() {
        let w = window(&[3], &[2], &[1], &[1, 1]);
        assert_eq!(w.outputs(0, &Dim::symbol("H"), false).unwrap().to_string(), "(H+1)/2");
    }

    #[test]
    fn taps_and_outputs_are_two_views_of_one_relation() {
        for (k, s, d, b) in [(3, 1, 1, 1), (2, 3, 2, 0), (4, 2, 3, 5), (1, 1, 1, 0), (5, 2, 1, 9)] {
            let (ks, ss, ds, ps) = ([k], [s], [d], [b, 2]);
            let w = window(&ks, &ss, &ds, &ps);
            for input in 0..9 {
                let Ok(Dim::Known(n)) = w.outputs(0, &Dim::from(input), false) else { continue };
                for (o, tap) in (0..n as usize).flat_map(|o| (0..k).map(move |t| (o, t))) {
                    let at = (o * s + tap * d).checked_sub(b).filter(|&i| i < input);
                    let (taps, first) = w.taps_of_output(0, o, input);
                    assert_eq!(taps.contains(&tap).then(|| first + (tap - taps.start) * d), at);
                    let (outs, first) = w.outputs_of_tap(0, tap, input, n as usize);
                    assert_eq!(outs.contains(&o).then(|| first + (o - outs.start) * s), at);
                }
            }
        }
    }
}
