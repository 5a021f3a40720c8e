//! Consecutive spatial layers depth first: a task computes a band of rows of the last layer, and before it the rows of each
//! earlier one that this band reads.
//!
//! ```text
//! task (image, band of rows of the last layer)
//!   from the last layer to the first    rows that are read: those of the taps of the band's rows, clipped to the plane
//!   from the first layer to the last    rows of all channels: from the input, or the band before, into a band of scratch
//!                                       memory; the last layer's into the output
//!
//! rows of a layer        ..  12  13 [14  15  16  17  18  19] 20  ..       in scratch memory: row 14 first
//! read by rows of the next      [ 7 |  8 ]                                3x3, stride 2
//! ```
//!
//! No intermediate is ever whole: it needs no place in the arena, and a band is read from the cache where it was just
//! written. Rows where bands meet are computed for both. Layers are those of the templates for direct and depthwise
//! convolution and for pooling in channel blocks, by their own code: all that differs is which row lies first in memory and
//! how many there are, so that every number is the sum of the same products in the same order as in a layer of its own.
//!
//! Scratch memory of a thread: what a template itself asks for, then a band for each layer but the last.
//! Needs: one image plane at a time (no depth), everything blocked but the first input, outputs one behind the other.

use super::conv::depthwise::Depthwise;
use super::conv::direct::Direct;
use super::conv::{self, Conv};
use super::pool;
use super::window::{Axis, div_rem};
use crate::cost;
use crate::kir::{ArgDecl, Builder, Elem, Kernel, Value};
use crate::program::MAX_ALIGN;
use crate::target::Target;
use crate::tunable::{self, Candidates, Choice, Tunable, ranked};
use nncc_ir::padded_channels;

/// Bands that let a few threads share a plane evenly.
const SHARES: usize = 8;

/// The part of the peak that convolutions reach, and bytes a cycle from and to what lies beyond L2.
const EFFICIENCY: f64 = 0.8;
const BEYOND_L2: f64 = 5.0;

/// The most of their time that layers may take in bands.
const LEAST_GAIN: f64 = 0.85;

tunable::counted! {
    /// The rows of a band of the last layer: what may differ without changing a bit. As text `band 7`.
    BandRows {
        /// So many; the last band may have fewer.
        rows
    } = "band", "number of rows such as `band 7`"
}

/// Some rows of an image's outputs, and where memory holds what is read and written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Band {
    /// The image.
    pub image: Value,
    /// The first row and the one behind the last.
    pub rows: [Value; 2],
    /// The row that lies first in the memory of input and output.
    pub first: [Value; 2],
    /// The image, counted from the one that lies first in the memory of input and output.
    pub images: [Value; 2],
}

impl Band {
    /// Rows of tensors that lie whole in memory.
    pub fn of_whole(b: &mut Builder, image: Value, rows: [Value; 2]) -> Band {
        let zero = b.i64(0);
        Band { image, rows, first: [zero; 2], images: [image; 2] }
    }
}

/// A layer as it would be by itself.
#[derive(Clone, Debug)]
pub enum Layer {
    /// By the direct template.
    Direct(Conv),
    /// By the template for narrow groups.
    Depthwise(Conv),
    /// A pooling in channel blocks.
    Pool(pool::Pooling),
}

/// The rows of a layer.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The axis along which bands are cut.
    pub height: Axis,
    /// Bytes of a row of all outputs.
    pub bytes: usize,
}

/// What the choice of bands needs to know of a layer.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its outputs.
    pub rows: Rows,
    /// Bytes of a row of all inputs.
    pub input_row: usize,
    /// Multiply-accumulates of a row of all outputs, or what takes as long.
    pub row_macs: u64,
    /// Bytes of its constants.
    pub weights: usize,
}

impl Span {
    /// Cycles of so many rows.
    fn cycles(&self, target: &Target, rows: f64) -> f64 {
        rows * self.row_macs as f64 / (2.0 * target.lanes(Elem::F32) as f64 * EFFICIENCY)
    }
}

/// Rows of each layer in a band of `rows` rows of the last one.
fn rows_of_layers(layers: &[Rows], rows: usize) -> Vec<usize> {
    let mut all = vec![rows];
    for layer in layers.iter().skip(1).rev() {
        all.push(rows_read(&layer.height, all[all.len() - 1]));
    }
    all.reverse();
    all
}

/// Rows of a band of the last of these layers: as many as keep all bands between them in half of L2, and few enough for
/// threads to share.
fn rows_of_a_band(target: &Target, batch: usize, layers: &[Rows]) -> usize {
    let Some(last) = layers.last() else { return 1 };
    let outputs = last.height.outputs.max(1);
    let most = (1..=outputs).take_while(|&rows| bytes_between(layers, rows) <= target.l2 / 2).last().unwrap_or(1);
    outputs.div_ceil(outputs.div_ceil(most).max(fewest_bands(batch, outputs)))
}

/// Bytes of the bands between layers, where one of the last layer has so many rows.
fn bytes_between(layers: &[Rows], rows: usize) -> usize {
    let Some((_, before)) = layers.split_last() else { return 0 };
    before.iter().zip(rows_of_layers(layers, rows)).map(|(layer, rows)| rows * layer.bytes).sum()
}

/// The fewest bands of a plane of so many rows.
fn fewest_bands(batch: usize, outputs: usize) -> usize {
    SHARES.div_ceil(batch.max(1)).min(outputs)
}

/// What bands are worth for one image.
#[derive(Clone, Copy, Debug)]
pub struct Worth {
    /// Rows of a band of the last layer.
    pub rows: usize,
    /// Cycles of the layers one behind the other.
    pub alone: f64,
    /// Cycles of the layers in bands.
    pub together: f64,
    /// Are constants few enough to stay in L2 beside the bands?
    pub holds: bool,
}

impl Worth {
    /// By the model below.
    ///
    /// ```text
    /// alone      sum over layers of  max(multiply-adds, bytes beyond L2)
    /// together   max(sum over layers of multiply-adds, rows of two bands counted twice;  first input and last output)
    ///
    /// multiply-adds   / (2 lanes * 0.8)        bytes beyond L2   / 5, of an input or output that is more than half of L2
    /// ```
    ///
    /// The constants of all layers, which every band reads, have to stay in L2 beside the bands.
    pub fn of(target: &Target, batch: usize, spans: &[Span]) -> Worth {
        let layers: Vec<Rows> = spans.iter().map(|span| span.rows.clone()).collect();
        let rows = rows_of_a_band(target, batch, &layers);
        let beyond = |rows: usize, row_bytes: usize| match rows * row_bytes {
            bytes if bytes > target.l2 / 2 => bytes as f64 / BEYOND_L2,
            _ => 0.0,
        };
        let input = |span: &Span| beyond(span.rows.height.inputs, span.input_row);
        let output = |span: &Span| beyond(span.rows.height.outputs, span.rows.bytes);
        let alone = |span: &Span| span.cycles(target, span.rows.height.outputs as f64).max(input(span) + output(span));
        let alone: f64 = spans.iter().map(alone).sum();
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
            return Worth { rows, alone, together: alone, holds: false };
        };
        let bands = last.rows.height.outputs as f64 / rows as f64;
        let cycles = |(span, rows): (&Span, usize)| {
            span.cycles(target, (bands * rows as f64).max(span.rows.height.outputs as f64))
        };
        let together: f64 = spans.iter().zip(rows_of_layers(&layers, rows)).map(cycles).sum();
        let together = together.max(input(first) + output(last));
        let weights: usize = spans.iter().map(|span| span.weights).sum();
        Worth { rows, alone, together, holds: weights <= target.l2 / 4 }
    }

    /// Do bands save more than the model can tell?
    pub fn is_clear(&self) -> bool {
        self.holds && self.together < self.alone * LEAST_GAIN
    }
}

impl Layer {
    fn rows(&self) -> Rows {
        Rows { height: self.axes()[1].clone(), bytes: self.row_bytes() }
    }

    /// Depth, height, width.
    pub fn axes(&self) -> &[Axis; 3] {
        match self {
            Layer::Direct(conv) | Layer::Depthwise(conv) => &conv.axes,
            Layer::Pool(pool) => &pool.axes,
        }
    }

    fn batch(&self) -> usize {
        match self {
            Layer::Direct(conv) | Layer::Depthwise(conv) => conv.batch,
            Layer::Pool(pool) => pool.batch,
        }
    }

    /// All output channels.
    fn channels(&self) -> usize {
        match self {
            Layer::Direct(conv) | Layer::Depthwise(conv) => conv.groups * conv.outputs,
            Layer::Pool(pool) => pool.channels,
        }
    }

    /// Bytes of a row of all outputs.
    fn row_bytes(&self) -> usize {
        4 * padded_channels(self.channels()) * self.axes()[2].out_extent
    }
}

/// A chain of layers as a tuner sees it.
#[derive(Clone, Debug)]
struct Together {
    layers: Vec<Layer>,
    in_place: bool,
}

/// The name of a chain of layers at a CPU level.
pub fn signature(target: &Target, layers: &[Layer], in_place: bool) -> String {
    let plane = |layer: &Layer| {
        let [_, height, width] = layer.axes();
        format!("{}x{}x{}", layer.channels(), height.outputs, width.outputs)
    };
    let planes: Vec<String> = layers.iter().map(plane).collect();
    let (batch, digest) = (layers.last().map_or(0, Layer::batch), tunable::digest(&format!("{layers:?} {in_place}")));
    format!("bands {} n{batch} {} of {digest}", target.level.name(), planes.join(" > "))
}

/// What a tuner sees of a chain with this signature.
pub fn tunable(signature: String, layers: &[Layer], bands: &Bands<'_>, in_place: bool) -> Tunable {
    Tunable::new(signature, bands.rows(), Together { layers: layers.to_vec(), in_place })
}

impl Candidates for Together {
    /// Bands of every height that L2 holds. Sums are the same.
    fn candidates(&self, target: &Target, most: usize) -> Vec<Choice> {
        let own = Bands::new(target, &self.layers, None, self.in_place);
        let heights: Vec<Rows> = self.layers.iter().map(Layer::rows).collect();
        let other = |rows: usize| {
            let bytes = bytes_between(&heights, rows);
            let bands = Bands::new(target, &self.layers, Some(BandRows { rows }), self.in_place);
            let cycles = || {
                let computed = cost::of_kernel(&bands.kernel(), target, bands.tasks() as u64, &|_| None) as f64;
                // Beside bands in more than half of L2 weights, input and output do not stay: they are written and read.
                let beyond = bytes.saturating_sub(target.l2 / 2) * bands.tasks();
                computed + 2.0 * beyond as f64 / BEYOND_L2
            };
            (bytes <= target.l2 && bands.is_small()).then(|| (cycles(), bands.rows()))
        };
        let outputs = own.height.outputs.max(1);
        let mut rows: Vec<usize> = (fewest_bands(own.batch, outputs)..=outputs).map(|n| outputs.div_ceil(n)).collect();
        rows.dedup();
        ranked(own.rows(), rows.into_iter().filter_map(other), most)
    }
}

/// The rows of its input that `rows` neighbouring rows of an axis read, at most.
fn rows_read(height: &Axis, rows: usize) -> usize {
    let taps = height.taps.saturating_sub(1) * height.dilation + 1;
    (rows.saturating_sub(1) * height.stride + taps).min(height.inputs)
}

/// A layer with everything chosen.
#[derive(Clone, Debug)]
enum Stage<'a> {
    Direct(Direct<'a>),
    Depthwise(Depthwise<'a>),
    Pool(pool::Blocked<'a>),
}

/// Layers in bands.
#[derive(Clone, Debug)]
pub struct Bands<'a> {
    stages: Vec<Stage<'a>>,
    batch: usize,
    /// Of the last layer.
    height: Axis,
    /// Rows of a band of the last layer.
    rows: usize,
    /// Bytes from the beginning of scratch memory to the band of each layer but the last.
    at: Vec<usize>,
    scratch: usize,
}

impl<'a> Bands<'a> {
    /// Layers of which each reads the one before, in the bands that were chosen elsewhere or such as caches hold. `in_place`
    /// says that an operand of the last layer shares the output's memory.
    pub fn new(target: &'a Target, layers: &[Layer], rows: Option<BandRows>, in_place: bool) -> Bands<'a> {
        let Some(last) = layers.last() else { return Bands::of_rows(target, layers, 1, in_place) };
        let rows = match rows {
            Some(BandRows { rows }) => rows.min(last.axes()[1].outputs.max(1)),
            None => rows_of_a_band(target, last.batch(), &layers.iter().map(Layer::rows).collect::<Vec<_>>()),
        };
        Bands::of_rows(target, layers, rows, in_place)
    }

    /// In bands of `rows` rows of the last layer.
    fn of_rows(target: &'a Target, layers: &[Layer], rows: usize, in_place: bool) -> Bands<'a> {
        let mut stages = Vec::with_capacity(layers.len());
        let (mut bands, mut written) = (Vec::new(), rows);
        for (i, layer) in layers.iter().enumerate().rev() {
            let (is_first, is_last) = (i == 0, i + 1 == layers.len());
            let read = rows_read(&layer.axes()[1], written);
            let mut axes = layer.axes().clone();
            if !is_last {
                axes[1].out_extent = written;
                bands.push(written * layer.row_bytes());
            }
            if !is_first {
                axes[1].in_extent = read;
            }
            stages.push(match layer {
                Layer::Direct(conv) => Stage::Direct(Direct::banded(target, conv, axes, written, in_place && is_last)),
                Layer::Depthwise(conv) => Stage::Depthwise(Depthwise::new(target, &Conv { axes, ..conv.clone() })),
                Layer::Pool(pooling) => {
                    Stage::Pool(pool::Blocked { target, pooling: pool::Pooling { axes, ..pooling.clone() } })
                }
            });
            written = read;
        }
        stages.reverse();
        let own = stages.iter().map(|stage| match stage {
            Stage::Direct(direct) => direct.scratch(),
            Stage::Depthwise(depthwise) => depthwise.scratch(),
            Stage::Pool(_) => 0,
        });
        let mut scratch = own.max().unwrap_or(0).next_multiple_of(MAX_ALIGN);
        let mut at = Vec::with_capacity(bands.len());
        for bytes in bands.into_iter().rev() {
            at.push(scratch);
            scratch += bytes.next_multiple_of(MAX_ALIGN);
        }
        let last = layers.last();
        let height = last.map_or(Axis::UNIT, |last| last.axes()[1].clone());
        Bands { stages, batch: last.map_or(0, Layer::batch), height, rows, at, scratch }
    }

    /// The rows of a band.
    pub fn rows(&self) -> BandRows {
        BandRows { rows: self.rows }
    }

    fn bands(&self) -> usize {
        self.height.outputs.div_ceil(self.rows)
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        self.batch * self.bands()
    }

    /// Scratch bytes of a thread.
    pub fn scratch(&self) -> usize {
        self.scratch
    }

    /// Is every layer within what its template is meant for?
    pub fn is_small(&self) -> bool {
        self.stages.iter().all(|stage| match stage {
            Stage::Direct(direct) => direct.is_small(),
            Stage::Depthwise(depthwise) => depthwise.is_small(),
            Stage::Pool(pool) => pool.is_small(),
        })
    }

    /// The kernel. Operands: x; of each layer, the weights, the bias (if there is one) and the epilogue's extras, or the
    /// divisors (if there are some); y.
    pub fn kernel(&self) -> Kernel {
        let mut args = vec![ArgDecl::read("x", 4)];
        for (i, stage) in self.stages.iter().enumerate() {
            match stage {
                Stage::Direct(_) | Stage::Depthwise(_) => {
                    let (bias, extras) = stage.further();
                    args.push(ArgDecl::read(format!("w{i}"), 64));
                    args.extend(bias.then(|| ArgDecl::read(format!("bias{i}"), 64)));
                    args.extend((0..extras).map(|e| ArgDecl::read(format!("e{i}_{e}"), 4)));
                }
                Stage::Pool(pool) => {
                    args.extend(pool.pooling.kind.has_table().then(|| ArgDecl::read(format!("divisors{i}"), 4)));
                }
            }
        }
        let keeps_sums = matches!(self.stages.last(), Some(Stage::Direct(direct)) if direct.sums_in_output());
        args.push(if keeps_sums { ArgDecl::read_write("y", 4) } else { ArgDecl::write("y", 4) });
        let names: Vec<String> = self.stages.iter().map(Stage::name).collect();
        let mut b = Builder::new(names.join("__"), args);
        b.tasks(|b, task| {
            let (image, band) = div_rem(b, task, self.bands());
            self.task(b, image, band);
        });
        b.finish()
    }

    fn task(&self, b: &mut Builder, image: Value, band: Value) {
        let lo = b.mul_imm(band, self.rows as i64);
        let hi = b.add_imm(lo, self.rows as i64);
        let all = b.i64(self.height.outputs as i64);
        let mut rows = vec![[lo, b.min_s(hi, all)]];
        for stage in self.stages.iter().skip(1).rev() {
            let next = rows_before(b, &stage.axes()[1], rows[rows.len() - 1]);
            rows.push(next);
        }
        rows.reverse();
        let (zero, mut arg) = (b.i64(0), 0);
        let mut next = |b: &Builder| {
            arg += 1;
            b.arg(arg - 1)
        };
        let mut x = next(b);
        for (i, stage) in self.stages.iter().enumerate() {
            let (is_first, is_last) = (i == 0, i + 1 == self.stages.len());
            let (bias, extras) = stage.further();
            let (w, bias, extras): (Option<Value>, Option<Value>, Vec<Value>) = match stage {
                Stage::Pool(pool) => (pool.pooling.kind.has_table().then(|| next(b)), None, Vec::new()),
                _ => (Some(next(b)), bias.then(|| next(b)), (0..extras).map(|_| next(b)).collect()),
            };
            let y = if is_last { next(b) } else { b.ptr(b.scratch().at(self.at[i] as i64)) };
            let band = Band {
                image,
                rows: rows[i],
                first: [if is_first { zero } else { rows[i - 1][0] }, if is_last { zero } else { rows[i][0] }],
                images: [if is_first { image } else { zero }, if is_last { image } else { zero }],
            };
            match (stage, w) {
                (Stage::Pool(pool), table) => pool.band(b, &pool::Operands { x, table, y }, &band),
                (Stage::Direct(direct), Some(w)) => direct.band(b, &conv::Operands { x, w, bias, extras, y }, &band),
                (Stage::Depthwise(depthwise), Some(w)) => {
                    depthwise.band(b, &conv::Operands { x, w, bias, extras, y }, &band);
                }
                (_, None) => unreachable!("a convolution has weights"),
            }
            x = y;
        }
    }
}

/// The rows of its input that the rows `lo..hi` of an axis read.
fn rows_before(b: &mut Builder, height: &Axis, [lo, hi]: [Value; 2]) -> [Value; 2] {
    let (zero, all) = (b.i64(0), b.i64(height.inputs as i64));
    let from = height.first_input(b, lo);
    let from = b.max_s(from, zero);
    let from = b.min_s(from, all);
    let last = b.add_imm(hi, -1);
    let to = height.first_input(b, last);
    let to = b.add_imm(to, (height.taps.saturating_sub(1) * height.dilation) as i64 + 1);
    let to = b.min_s(to, all);
    [from, b.max_s(to, from)]
}

impl Stage<'_> {
    fn axes(&self) -> &[Axis; 3] {
        match self {
            Stage::Direct(direct) => &direct.conv().axes,
            Stage::Depthwise(depthwise) => &depthwise.conv().axes,
            Stage::Pool(pool) => &pool.pooling.axes,
        }
    }

    /// Has a convolution a bias, and how many extra operands has its epilogue?
    fn further(&self) -> (bool, usize) {
        let conv = match self {
            Stage::Direct(direct) => direct.conv(),
            Stage::Depthwise(depthwise) => depthwise.conv(),
            Stage::Pool(_) => return (false, 0),
        };
        (conv.bias, conv.epilogue.extras.len())
    }

    fn name(&self) -> String {
        match self {
            Stage::Direct(direct) => direct.name(),
            Stage::Depthwise(depthwise) => depthwise.name(),
            Stage::Pool(pool) => pool.name(),
        }
    }
}
