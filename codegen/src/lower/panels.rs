//! Panels of weights for a template: made when the program is written where the weights are constant, else packed by a step
//! of the node, into its workspace, before the step that reads them.
//!
//! ```text
//! weights constant     Packed ──> read-only data                               no step
//! weights at run time  strided copies ──> workspace, then the template's step  one step "pack" for all operands of the node
//! ```
//!
//! The layouts are those of [`pack`](crate::pack); both ways give the same numbers in the same places, zeros in lanes without
//! a channel included, so that a template does not know which it was. What a run-time packing cannot do is arithmetic: a
//! product's scale must be 1.

use super::movement::{Moves, Piece};
use super::{LowerCx, LowerError, Operand};
use crate::kernels::strided::Axis;
use crate::pack::{ConvPanels, DepthwisePanels, MatrixPanels, Packed};
use crate::program::Arg;
use nncc_ir::{BLOCK, DType, Layout, padded_channels};

/// The packed operands of one node.
pub(super) struct Packing {
    moves: Moves,
    zero: Option<Operand>,
}

impl Packing {
    /// Nothing packed yet.
    pub fn new() -> Packing {
        Packing { moves: Moves::new(DType::F32).labelled("pack"), zero: None }
    }

    /// Weights of a convolution for the direct template.
    ///
    /// # Errors
    /// When they do not fit in memory.
    pub fn conv(&mut self, cx: &mut LowerCx<'_, '_>, panels: ConvPanels, weights: &Operand) -> Result<Arg, LowerError> {
        match weights.constant() {
            Some(c) => Ok(cx.packed(Packed::conv(panels, c.clone()))),
            None => self.run_time(cx, weights, panels.stored(), panels.places()),
        }
    }

    /// Weights of a convolution of narrow groups.
    ///
    /// # Errors
    /// When they do not fit in memory.
    pub fn depthwise(
        &mut self,
        cx: &mut LowerCx<'_, '_>,
        panels: DepthwisePanels,
        weights: &Operand,
    ) -> Result<Arg, LowerError> {
        match weights.constant() {
            Some(c) => Ok(cx.packed(Packed::depthwise(panels, c.clone()))),
            None => self.run_time(cx, weights, panels.stored(), panels.places()),
        }
    }

    /// The second factor of a product.
    ///
    /// # Errors
    /// When it does not fit in memory, or a run-time one would have to be scaled.
    pub fn matrix(
        &mut self,
        cx: &mut LowerCx<'_, '_>,
        panels: MatrixPanels,
        matrix: &Operand,
    ) -> Result<Arg, LowerError> {
        match matrix.constant() {
            Some(c) => {
                let dims = if panels.transposed { [panels.n, panels.k] } else { [panels.k, panels.n] };
                let c = c.reshaped(&dims).ok_or_else(|| cx.internal("a constant of another size"))?;
                Ok(cx.packed(Packed::matrix(panels, c)))
            }
            None if panels.scale != 1f32.to_bits() => Err(cx.internal("a computed factor of a scaled product")),
            None => self.run_time(cx, matrix, panels.stored(), panels.places()),
        }
    }

    /// A vector with zeros behind it, as far as the last block of `len` channels reaches.
    ///
    /// # Errors
    /// When it does not fit in memory.
    pub fn padded(&mut self, cx: &mut LowerCx<'_, '_>, vector: &Operand, len: usize) -> Result<Arg, LowerError> {
        let padded = padded_channels(len);
        match vector.constant() {
            Some(c) => Ok(cx.packed(Packed::padded(c.clone(), padded))),
            None => {
                let copies = vec![Piece { src: 0, dst: 0, axes: vec![axis(len, 1, 1)] }];
                let zeros = vec![Piece { src: 0, dst: len as i64, axes: vec![axis(padded - len, 0, 1)] }];
                let places = Places { copies, zeros };
                self.run_time(cx, vector, padded, places)
            }
        }
    }

    fn run_time(
        &mut self,
        cx: &mut LowerCx<'_, '_>,
        source: &Operand,
        stored: usize,
        places: Places,
    ) -> Result<Arg, LowerError> {
        // A phase without taps has no weights; its operand is still a place.
        let panels = cx.temporary(DType::F32, &[stored.max(1)], Layout::RowMajor)?;
        self.moves.add_pieces(cx, source, &panels, places.copies)?;
        let zeros: Vec<Piece> = places.zeros.into_iter().filter(|p| p.axes.iter().all(|a| a.len > 0)).collect();
        if !zeros.is_empty() {
            let zero = self.zero.get_or_insert_with(|| {
                let place = cx.constant_f32(&[0.0]);
                Operand::temporary(DType::F32, &[1], Layout::RowMajor, place)
            });
            self.moves.add_pieces(cx, zero, &panels, zeros)?;
        }
        cx.arg(&panels)
    }

    /// Appends the step, if anything is packed at run time.
    pub fn lower(self, cx: &mut LowerCx<'_, '_>) {
        self.moves.lower(cx);
    }
}

/// Where the elements of panels come from: copies of the source, and lanes without a channel, which are zero.
#[derive(Debug, Default)]
pub(super) struct Places {
    copies: Vec<Piece>,
    zeros: Vec<Piece>,
}

/// The copies back: from panels into the rows that they would be made of.
pub(super) fn rows_of(places: Places) -> Vec<Piece> {
    let back = |a: &Axis| Axis { len: a.len, src: a.dst, dst: a.src };
    let piece = |p: Piece| Piece { src: p.dst, dst: p.src, axes: p.axes.iter().map(back).collect() };
    places.copies.into_iter().map(piece).collect()
}

fn axis(len: usize, src: i64, dst: usize) -> Axis {
    Axis { len, src, dst: dst as i64 }
}

/// The axis of taps that a list of taps is, with its first tap: those that a phase of a transposed convolution uses are at
/// equal distances.
fn taps_axis(taps: &[usize], src: usize, dst: usize) -> (i64, Axis) {
    let first = taps.first().copied().unwrap_or(0) as i64;
    let step = taps.get(1).map_or(0, |&second| second as i64 - first);
    debug_assert!(taps.iter().enumerate().all(|(i, &t)| t as i64 == first + step * i as i64), "equal distances");
    (first * src as i64, axis(taps.len(), step * src as i64, dst))
}

/// The axes of all taps, innermost last, `row` elements of the panel a tap; and where the first one lies in the source.
fn taps_axes(kernel: [usize; 3], taps: &[Vec<usize>; 3], row: usize) -> (i64, [Axis; 3]) {
    let counts = [taps[0].len(), taps[1].len(), taps[2].len()];
    let (d, depth) = taps_axis(&taps[0], kernel[1] * kernel[2], counts[1] * counts[2] * row);
    let (h, height) = taps_axis(&taps[1], kernel[2], counts[2] * row);
    let (w, width) = taps_axis(&taps[2], 1, row);
    (d + h + w, [depth, height, width])
}

/// Full blocks of `channels`, then the edge: first channel, blocks, lanes, channels of a block.
fn blocks_of(channels: usize) -> impl Iterator<Item = [usize; 4]> {
    let (full, rest) = (channels / BLOCK, channels % BLOCK);
    let blocks = [[0, full, BLOCK, BLOCK], [full * BLOCK, 1, padded_channels(rest), rest]];
    blocks.into_iter().filter(|[_, count, _, real]| count * real > 0)
}

impl ConvPanels {
    /// Where the elements of the panels come from.
    pub(super) fn places(&self) -> Places {
        let (size, taps): (usize, usize) = (self.kernel.iter().product(), self.taps.iter().map(Vec::len).product());
        let (inputs, outputs) = (self.inputs, self.outputs);
        // Distances of neighbours in the source.
        let (m_step, c_step) = if self.transposed { (size, outputs * size) } else { (inputs * size, size) };
        let group = axis(self.groups, (inputs * outputs * size) as i64, padded_channels(outputs) * inputs * taps);
        let mut places = Places::default();
        for [m0, panels, lanes, real] in blocks_of(outputs) {
            let base = m0 * inputs * taps;
            let panel = axis(panels, (BLOCK * m_step) as i64, BLOCK * inputs * taps);
            for [c0, blocks, _, channels] in blocks_of(inputs) {
                let (first, tap_axes) = taps_axes(self.kernel, &self.taps, channels * lanes);
                let mut axes = vec![group, panel, axis(blocks, (BLOCK * c_step) as i64, BLOCK * taps * lanes)];
                axes.extend(tap_axes);
                axes.push(axis(channels, c_step as i64, lanes));
                axes.push(axis(real, m_step as i64, 1));
                let src = first + (m0 * m_step + c0 * c_step) as i64;
                places.copies.push(Piece { src, dst: (base + c0 * taps * lanes) as i64, axes });
            }
            let lane = axis(lanes - real, 0, 1);
            let axes = vec![Axis { src: 0, ..group }, axis(inputs * taps, 0, lanes), lane];
            places.zeros.push(Piece { src: 0, dst: (base + real) as i64, axes });
        }
        places
    }
}

impl DepthwisePanels {
    /// Where the elements of the panels come from.
    pub(super) fn places(&self) -> Places {
        let (size, taps): (usize, usize) = (self.kernel.iter().product(), self.taps.iter().map(Vec::len).product());
        let group = self.group;
        let [output_step, input_step] = self.steps();
        let mut places = Places::default();
        for [c0, blocks, lanes, real] in blocks_of(self.channels) {
            let (first, tap_axes) = taps_axes(self.kernel, &self.taps, group * lanes);
            let base = c0 * group * taps;
            // Groups lie whole in a block.
            let mut axes = vec![axis(blocks, (BLOCK * group * size) as i64, BLOCK * group * taps)];
            axes.extend(tap_axes);
            axes.push(axis(group, input_step as i64, lanes));
            axes.push(axis(real / group, (group * group * size) as i64, group));
            axes.push(axis(group, output_step as i64, 1));
            places.copies.push(Piece { src: first + (c0 * group * size) as i64, dst: base as i64, axes });
            let axes = vec![axis(taps * group, 0, lanes), axis(lanes - real, 0, 1)];
            places.zeros.push(Piece { src: 0, dst: (base + real) as i64, axes });
        }
        places
    }
}

impl MatrixPanels {
    /// Where the elements of the panels come from.
    pub(super) fn places(&self) -> Places {
        let (k, n) = (self.k, self.n);
        let (row, column) = if self.transposed { (1, k) } else { (n, 1) };
        let mut places = Places::default();
        for [n0, panels, lanes, real] in blocks_of(n) {
            let axes = vec![
                axis(panels, (BLOCK * column) as i64, BLOCK * k),
                axis(k, row as i64, lanes),
                axis(real, column as i64, 1),
            ];
            places.copies.push(Piece { src: (n0 * column) as i64, dst: (n0 * k) as i64, axes });
            let axes = vec![axis(k, 0, lanes), axis(lanes - real, 0, 1)];
            places.zeros.push(Piece { src: 0, dst: (n0 * k + real) as i64, axes });
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::ConstSource;
    use nncc_ir::{Constant, Tensor};

    /// The copies write what the packing of a constant does, each place once.
    #[track_caller]
    fn agree(places: Places, stored: usize, source: &[usize], packed: impl FnOnce(Constant) -> Packed) {
        let count: usize = source.iter().product();
        let numbers: Vec<f32> = (0..count).map(|i| i as f32 + 1.0).collect();
        let packed = packed(Constant::from_tensor(&Tensor::f32(source, numbers)));
        let mut bytes = vec![0; packed.len()];
        packed.write(&mut bytes);
        let want: Vec<f32> = bytes.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
        assert_eq!(want.len(), stored);
        let mut got: Vec<Option<f32>> = vec![None; stored];
        let is_zero = [vec![false; places.copies.len()], vec![true; places.zeros.len()]].concat();
        for (piece, zero) in places.copies.iter().chain(&places.zeros).zip(is_zero) {
            for i in nncc_ir::tensor::indices(&piece.axes.iter().map(|a| a.len).collect::<Vec<_>>()) {
                let at = |f: fn(&Axis) -> i64| i.iter().zip(&piece.axes).map(|(i, a)| *i as i64 * f(a)).sum::<i64>();
                let value = if zero { 0.0 } else { (piece.src + at(|a| a.src)) as f32 + 1.0 };
                let place = &mut got[(piece.dst + at(|a| a.dst)) as usize];
                assert_eq!(place.replace(value), None, "written twice");
            }
        }
        assert_eq!(got, want.into_iter().map(Some).collect::<Vec<_>>());
    }

    #[test]
    fn copies_agree_with_constants() {
        for (groups, inputs, outputs, transposed) in
            [(1, 3, 8, false), (1, 17, 40, true), (2, 16, 32, false), (1, 35, 17, false), (3, 16, 16, true)]
        {
            for taps in
                [[vec![0], vec![0, 1, 2], vec![0, 1]], [vec![0], vec![2, 0], vec![1, 0]], [vec![0], vec![], vec![1]]]
            {
                let panels = ConvPanels { groups, inputs, outputs, kernel: [1, 3, 2], taps, transposed };
                let dims = if transposed { [groups * inputs, outputs] } else { [groups * outputs, inputs] };
                let dims = [dims[0], dims[1], 3, 2];
                agree(panels.places(), panels.stored(), &dims, |c| Packed::conv(panels.clone(), c));
            }
        }
        for (channels, group, transposed) in
            [(19, 1, false), (24, 2, true), (36, 4, false), (8, 8, true), (35, 1, true)]
        {
            let taps = [vec![0], vec![2, 0], vec![0, 1]];
            let panels = DepthwisePanels { channels, group, kernel: [1, 3, 2], taps, transposed };
            agree(panels.places(), panels.stored(), &[channels, group, 3, 2], |c| Packed::depthwise(panels.clone(), c));
        }
        for (k, n, transposed) in [(5, 3, false), (16, 16, true), (7, 41, true), (1, 24, false)] {
            let panels = MatrixPanels { k, n, transposed, scale: 1f32.to_bits() };
            let dims = if transposed { [n, k] } else { [k, n] };
            agree(panels.places(), panels.stored(), &dims, |c| Packed::matrix(panels.clone(), c));
        }
    }
}
