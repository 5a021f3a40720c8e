//! Packed weights: the layouts in which kernels read constants, and how each is made from a model's tensors.
//!
//! There is one copy of each packed weight for all CPU levels and shape sets. A [`Packed`] holds handles to its sources and is
//! written once, straight into the library: until then it costs nothing, and a splat stays one number.

use crate::kernels::conv::winograd::transform::Minimal;
use crate::program::{ConstData, ConstSource};
use nncc_ir::{BLOCK, Constant, DType, channel_blocks, padded_channels};
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A constant of the program that is made from constants of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    recipe: Recipe,
    sources: Vec<Constant>,
}

/// How packed bytes are made from their sources.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Recipe {
    /// As it is: row-major.
    Raw,
    ConvPanels(ConvPanels),
    DepthwisePanels(DepthwisePanels),
    MatrixPanels(MatrixPanels),
    WinogradPanels(WinogradPanels),
    /// A vector of f32, zeros up to this length.
    Padded(usize),
}

/// Weights of a convolution, f32, in the order in which the direct template walks them:
///
/// ```text
/// [group][panel of 16 output channels][block of 16 input channels][kd][kh][kw][input channel][output channel]
/// ```
///
/// The last panel of a group is 8 wide where that is enough, lanes without a channel are 0. Taps come in the order of the
/// lists, which may leave some out: a phase of a transposed convolution uses every other one, last first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvPanels {
    /// Groups.
    pub groups: usize,
    /// Input channels of a group.
    pub inputs: usize,
    /// Output channels of a group.
    pub outputs: usize,
    /// Size of the kernel in the source: depth, height, width.
    pub kernel: [usize; 3],
    /// The taps of each axis, in order.
    pub taps: [Vec<usize>; 3],
    /// Is the source `[C, M / group, kernel..]` (of a transposed convolution) instead of `[M, C / group, kernel..]`?
    pub transposed: bool,
}

/// Weights of a convolution with as many output as input channels in each of its narrow groups, `[C, group, kernel..]`, as
/// `[block of 16 channels][tap][input of the group][channel]`, f32; the last block is 8 wide where that is enough, lanes without
/// a channel are 0. Taps come in the order of the lists, as in [`ConvPanels`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DepthwisePanels {
    /// Channels.
    pub channels: usize,
    /// Channels of a group; 1 is depthwise.
    pub group: usize,
    /// Size of the kernel in the source: depth, height, width.
    pub kernel: [usize; 3],
    /// The taps of each axis, in order.
    pub taps: [Vec<usize>; 3],
    /// Is the first axis of the source the input channel (of a transposed convolution) instead of the output channel?
    pub transposed: bool,
}

/// A matrix `[K, N]` as `[panel of 16 columns][k][column]`, f32; the last panel is 8 wide where that is enough, columns beyond
/// N are 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MatrixPanels {
    /// Rows.
    pub k: usize,
    /// Columns.
    pub n: usize,
    /// Is the source `[N, K]`?
    pub transposed: bool,
    /// The bits of the f32 that each element is multiplied by.
    pub scale: u32,
}

/// Weights `[M, C, 3, 3]` of a convolution for the Winograd template, f32, transformed in f64:
///
/// ```text
/// [place of the tile, n*n][panel of 16 output channels][input channel][output channel]      (G g G^T)
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WinogradPanels {
    /// Input channels, a multiple of 16.
    pub inputs: usize,
    /// Output channels, a multiple of 16.
    pub outputs: usize,
    /// Which transform.
    pub minimal: Minimal,
}

impl Packed {
    /// A constant as it is, row-major.
    pub fn raw(source: Constant) -> Packed {
        Packed { recipe: Recipe::Raw, sources: vec![source] }
    }

    /// Weights of a convolution for the direct template.
    pub fn conv(panels: ConvPanels, weights: Constant) -> Packed {
        Packed { recipe: Recipe::ConvPanels(panels), sources: vec![weights] }
    }

    /// Weights of a depthwise convolution.
    pub fn depthwise(panels: DepthwisePanels, weights: Constant) -> Packed {
        Packed { recipe: Recipe::DepthwisePanels(panels), sources: vec![weights] }
    }

    /// The second factor of a matrix product.
    pub fn matrix(panels: MatrixPanels, matrix: Constant) -> Packed {
        Packed { recipe: Recipe::MatrixPanels(panels), sources: vec![matrix] }
    }

    /// Transformed weights of a convolution.
    pub fn winograd(panels: WinogradPanels, weights: Constant) -> Packed {
        Packed { recipe: Recipe::WinogradPanels(panels), sources: vec![weights] }
    }

    /// An f32 vector with zeros behind it up to `len` elements.
    pub fn padded(vector: Constant, len: usize) -> Packed {
        Packed { recipe: Recipe::Padded(len), sources: vec![vector] }
    }

    /// Equal for equal contents; reads only a part of the sources.
    pub fn sample_hash(&self) -> u64 {
        const SAMPLES: usize = 64;
        let mut hasher = FxHasher::default();
        self.recipe.hash(&mut hasher);
        for source in &self.sources {
            (source.dtype(), source.dims()).hash(&mut hasher);
            match source.splat_value() {
                Some(value) => value.to_bytes().hash(&mut hasher),
                None => {
                    let bytes = source.bytes().unwrap_or_default();
                    bytes.iter().step_by(bytes.len() / SAMPLES + 1).for_each(|b| b.hash(&mut hasher));
                }
            }
        }
        hasher.finish()
    }

    /// Whether a source is one repeated element: its bytes come into being here, and no file's size bounds their number.
    pub fn expands(&self) -> bool {
        self.sources.iter().any(|source| source.splat_value().is_some())
    }

    /// The constant's data for the program. A raw splat stays a splat.
    pub fn into_data(self: Arc<Self>) -> ConstData {
        match (&self.recipe, self.sources[0].splat_value()) {
            (Recipe::Raw, Some(value)) => {
                ConstData::Splat { pattern: value.to_bytes().into(), count: self.sources[0].elems() }
            }
            _ => ConstData::Deferred(self),
        }
    }
}

impl ConstSource for Packed {
    fn len(&self) -> usize {
        match &self.recipe {
            Recipe::Raw => self.sources[0].elems() * self.sources[0].dtype().bytes(),
            Recipe::ConvPanels(p) => 4 * p.stored(),
            Recipe::DepthwisePanels(p) => 4 * p.stored(),
            Recipe::MatrixPanels(p) => 4 * p.stored(),
            Recipe::WinogradPanels(p) => 4 * p.inputs * p.outputs * p.minimal.inputs() * p.minimal.inputs(),
            Recipe::Padded(len) => 4 * len,
        }
    }

    fn write(&self, out: &mut [u8]) {
        match &self.recipe {
            Recipe::Raw => write_raw(&self.sources[0], out),
            Recipe::ConvPanels(p) => p.write(&Floats::of(&self.sources[0]), out),
            Recipe::DepthwisePanels(p) => p.write(&Floats::of(&self.sources[0]), out),
            Recipe::MatrixPanels(p) => p.write(&Floats::of(&self.sources[0]), out),
            Recipe::WinogradPanels(p) => p.write(&Floats::of(&self.sources[0]), out),
            Recipe::Padded(len) => {
                let (source, count) = (Floats::of(&self.sources[0]), self.sources[0].elems().min(*len));
                (0..count).for_each(|i| put(out, i, source.get(i)));
            }
        }
    }
}

/// The elements of an f32 constant.
pub(crate) enum Floats<'a> {
    Splat(f32),
    Bytes(&'a [[u8; 4]]),
}

impl Floats<'_> {
    /// Of a constant of that type.
    pub(crate) fn of(source: &Constant) -> Floats<'_> {
        debug_assert_eq!(source.dtype(), DType::F32);
        match (source.bytes(), source.splat_value()) {
            (Some(bytes), _) => Floats::Bytes(bytes.as_chunks().0),
            (None, value) => Floats::Splat(value.and_then(|v| v.to_f64().first().copied()).unwrap_or(0.0) as f32),
        }
    }

    /// Element `i` in row-major order.
    pub(crate) fn get(&self, i: usize) -> f32 {
        match self {
            Floats::Splat(x) => *x,
            Floats::Bytes(bytes) => f32::from_le_bytes(bytes[i]),
        }
    }
}

fn put(out: &mut [u8], i: usize, x: f32) {
    out[4 * i..4 * i + 4].copy_from_slice(&x.to_le_bytes());
}

/// The taps that lists of each axis name, row-major, as places in a kernel of that size.
fn tap_places([_, height, width]: [usize; 3], taps: &[Vec<usize>; 3]) -> Vec<usize> {
    let lines = taps[0].iter().flat_map(|d| taps[1].iter().map(move |h| d * height + h));
    lines.flat_map(|line| taps[2].iter().map(move |w| line * width + w)).collect()
}

impl ConvPanels {
    /// Elements of the panels.
    pub fn stored(&self) -> usize {
        let taps: usize = self.taps.iter().map(Vec::len).product();
        self.groups * padded_channels(self.outputs) * self.inputs * taps
    }

    fn write(&self, w: &Floats<'_>, out: &mut [u8]) {
        let size: usize = self.kernel.iter().product();
        let taps = tap_places(self.kernel, &self.taps);
        let mut at = 0;
        for group in 0..self.groups {
            for (m0, lanes) in channel_blocks(self.outputs) {
                for c0 in (0..self.inputs).step_by(BLOCK) {
                    for tap in &taps {
                        for c in c0..self.inputs.min(c0 + BLOCK) {
                            for m in m0..self.outputs.min(m0 + lanes) {
                                let pair = if self.transposed {
                                    (group * self.inputs + c) * self.outputs + m
                                } else {
                                    (group * self.outputs + m) * self.inputs + c
                                };
                                put(out, at + m - m0, w.get(pair * size + tap));
                            }
                            at += lanes;
                        }
                    }
                }
            }
        }
    }
}

impl DepthwisePanels {
    /// Elements of the panels.
    pub fn stored(&self) -> usize {
        padded_channels(self.channels) * self.group * self.taps.iter().map(Vec::len).product::<usize>()
    }

    /// Elements of the source from one output channel of a group to the next, and from one input channel to the next.
    pub(crate) fn steps(&self) -> [usize; 2] {
        let size: usize = self.kernel.iter().product();
        if self.transposed { [size, self.group * size] } else { [self.group * size, size] }
    }

    fn write(&self, w: &Floats<'_>, out: &mut [u8]) {
        let size: usize = self.kernel.iter().product();
        let [output_step, input_step] = self.steps();
        let mut at = 0;
        for (c0, lanes) in channel_blocks(self.channels) {
            for tap in tap_places(self.kernel, &self.taps) {
                for input in 0..self.group {
                    for c in c0..self.channels.min(c0 + lanes) {
                        let (group, output) = (c / self.group * self.group, c % self.group);
                        let filter = group * self.group * size + output * output_step + input * input_step;
                        put(out, at + c - c0, w.get(filter + tap));
                    }
                    at += lanes;
                }
            }
        }
    }
}

impl MatrixPanels {
    /// Elements of the panels.
    pub fn stored(&self) -> usize {
        self.k * padded_channels(self.n)
    }

    fn write(&self, b: &Floats<'_>, out: &mut [u8]) {
        let scale = f32::from_bits(self.scale);
        let mut at = 0;
        for (n0, lanes) in channel_blocks(self.n) {
            for k in 0..self.k {
                for n in n0..self.n.min(n0 + lanes) {
                    let i = if self.transposed { n * self.k + k } else { k * self.n + n };
                    put(out, at + n - n0, b.get(i) * scale);
                }
                at += lanes;
            }
        }
    }
}

impl WinogradPanels {
    fn write(&self, w: &Floats<'_>, out: &mut [u8]) {
        let g = self.minimal.filter_matrix();
        let n = g.len();
        let place = self.inputs * self.outputs;
        for m in 0..self.outputs {
            for c in 0..self.inputs {
                let filter = (m * self.inputs + c) * 9;
                // G g, then its product with G^T.
                let rows: Vec<[f64; 3]> = g
                    .iter()
                    .map(|r| std::array::from_fn(|j| (0..3).map(|i| r[i] * f64::from(w.get(filter + 3 * i + j))).sum()))
                    .collect();
                let at = (m / BLOCK * self.inputs + c) * BLOCK + m % BLOCK;
                for (i, row) in rows.iter().enumerate() {
                    for (j, column) in g.iter().enumerate() {
                        let u: f64 = row.iter().zip(column).map(|(a, b)| a * b).sum();
                        put(out, (i * n + j) * place + at, u as f32);
                    }
                }
            }
        }
    }
}

fn write_raw(source: &Constant, out: &mut [u8]) {
    match (source.bytes(), source.splat_value()) {
        (Some(bytes), _) => out.copy_from_slice(bytes),
        (None, Some(value)) => {
            let pattern = value.to_bytes();
            out.chunks_exact_mut(pattern.len()).for_each(|chunk| chunk.copy_from_slice(&pattern));
        }
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nncc_ir::Tensor;

    fn bytes_of(packed: Packed) -> Vec<f32> {
        let mut out = vec![0; packed.len()];
        packed.write(&mut out);
        out.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect()
    }

    /// Element `i` is the number `i`, so that each packed place tells where it came from.
    fn count(dims: &[usize]) -> Constant {
        let n: usize = dims.iter().product();
        Constant::from_tensor(&Tensor::f32(dims, (0..n).map(|i| i as f32).collect()))
    }

    #[test]
    fn panels_walk_blocks_taps_channels() {
        let (outputs, inputs) = (20, 18);
        let w = count(&[outputs, inputs, 2, 3]);
        let taps = [vec![0], vec![0, 1], vec![2, 0]];
        let panels = ConvPanels { groups: 1, inputs, outputs, kernel: [1, 2, 3], taps, transposed: false };
        let packed = bytes_of(Packed::conv(panels, w));
        assert_eq!(packed.len(), 24 * 18 * 4);
        let source = |m: usize, c: usize, h: usize, w: usize| (((m * inputs + c) * 2 + h) * 3 + w) as f32;
        // Panel 0, block 0, tap (0, 2), channel 1, lane 5; then block 1 (2 channels) behind 16 channels of 4 taps.
        assert_eq!(packed[16 + 5], source(5, 1, 0, 2));
        assert_eq!(packed[16 * 16 * 4 + 16 * (2 * 3 + 1) + 7], source(7, 17, 1, 0));
        // Panel 1 is 8 wide: 4 channels and 4 zeros.
        let edge = &packed[16 * 18 * 4..];
        assert_eq!(edge[8 * 16 + 3], source(19, 0, 0, 0));
        assert_eq!(edge[8 * 16 + 4..8 * 16 + 8], [0.0; 4]);
    }

    #[test]
    fn splats_expand_only_here() {
        let w = Constant::splat(&Tensor::f32(&[], vec![0.5]), &[16, 3]).expect("one element");
        let panels = MatrixPanels { k: 16, n: 3, transposed: false, scale: 2f32.to_bits() };
        let packed = bytes_of(Packed::matrix(panels, w));
        assert!(packed.chunks(8).all(|row| row == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
    }
}
