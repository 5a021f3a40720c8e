//! The gradient of a convolution with respect to its weights.
//!
//! ```text
//! dw[m, c, k] = sum over images n, outputs o of  dy[n, m, o] * x[n, c, o * stride + k * dilation - pad]
//! ```
//!
//! | template | serves |
//! |---|---|
//! | [`pointwise`] | f32, one tap, whole channel blocks a group or one group, x and dy blocked |
//! | [`dense`] | the same with any taps, x as it comes |
//! | [`depthwise`] | f32, one channel a group, all blocked |
//! | [`generic`] | everything, one element at a time |
//!
//! The first writes the rows of the weights; the next two write panels, as [`crate::pack`] says of weights, which strided copies
//! turn into rows. Where the weights give too few tasks the images are split among several copies of them at fixed places,
//! added in order by [`add_parts`]: the same bits for any number of threads.

pub mod dense;
pub mod depthwise;
pub mod generic;
pub mod pointwise;
mod products;

use crate::kernels::conv::Source;
use crate::kernels::isa_name;
use crate::kernels::window::Axis;
use crate::kir::{ArgDecl, Builder, Elem, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::padded_channels;

/// Tasks that let a few threads share the work evenly.
const TASKS: usize = 16;
/// Multiply-accumulates of a part that are worth a panel of sums of its own.
const LEAST_MACS: u64 = 1 << 20;
/// Sums of a task of [`add_parts`].
const CHUNK: usize = 4096;

/// Pixels that stand one behind the other in the innermost loop.
const UNROLL: usize = 4;

/// What is convolved.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Images.
    pub batch: usize,
    /// Groups; with more than one, whole blocks of input and output channels belong to each.
    pub groups: usize,
    /// Input channels of one group.
    pub inputs: usize,
    /// Output channels of one group.
    pub outputs: usize,
    /// Depth, height, width of the convolution.
    pub axes: [Axis; 3],
    /// How x is stored: blocked or planar.
    pub source: Source,
}

impl Problem {
    fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.taps).product()
    }

    fn macs(&self) -> u64 {
        let pixels: usize = self.axes.iter().map(|a| a.outputs).product();
        (self.batch * self.groups * self.inputs * self.outputs) as u64 * (pixels * self.taps()) as u64
    }

    fn input_plane(&self) -> usize {
        self.axes.iter().map(|a| a.inputs).product()
    }

    fn output_plane(&self) -> usize {
        self.axes.iter().map(|a| a.outputs).product()
    }

    /// Elements of the panels of one part.
    pub fn stored(&self) -> usize {
        self.groups * padded_channels(self.outputs) * self.inputs * self.taps()
    }
}

/// How a sum over images is split for threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Images of a part; the last one may have fewer.
    pub images: usize,
    /// Parts.
    pub count: usize,
}

impl Parts {
    /// The split of `batch` images where each part has `tasks` tasks and all parts `macs` multiply-accumulates.
    pub fn of(batch: usize, tasks: usize, macs: u64) -> Parts {
        let wanted = TASKS.div_ceil(tasks.max(1)).min((macs / LEAST_MACS) as usize).clamp(1, batch.max(1));
        let images = batch.div_ceil(wanted).max(1);
        Parts { images, count: batch.div_ceil(images).max(1) }
    }
}

/// Adds parts of `len` sums each, one behind the other, in order: its kernel and number of tasks. Operands: the parts, their
/// sum.
pub fn add_parts(target: &Target, len: usize, parts: usize) -> (Kernel, usize) {
    let name = format!("f32_add_parts__{}", isa_name(target));
    let mut b = Builder::new(name, vec![ArgDecl::read("parts", 64), ArgDecl::write("sum", 4)]);
    let lanes = target.lanes(Elem::F32);
    let (sums, all) = (b.arg(0), b.arg(1));
    let add = |b: &mut Builder, i: Value, ty: Type| {
        let p = b.ptr(sums.at(0).idx(i, 4));
        let mut sum = b.load(ty, p);
        for part in 1..parts {
            let offset = b.i64((part * len * 4) as i64);
            let other = b.ptr_add(p, offset, 1);
            let v = b.load(ty, other);
            sum = b.add(sum, v);
        }
        b.store(all.at(0).idx(i, 4), sum);
    };
    b.tasks(|b, task| {
        let lo = b.mul_imm(task, CHUNK as i64);
        let hi = b.add_imm(lo, CHUNK as i64);
        let end = b.i64(len as i64);
        let hi = b.min_s(hi, end);
        // Panels are whole lines but for the last one of an odd number of halves.
        let vectors = len / lanes * lanes;
        let whole = b.i64(vectors as i64);
        let whole = b.min_s(hi, whole);
        b.for_(lo, whole, lanes as i64, |b, i| add(b, i, Type::of(Elem::F32, lanes)));
        let rest = b.max_s(lo, whole);
        b.for_(rest, hi, 1, |b, i| add(b, i, Type::of(Elem::F32, 1)));
    });
    (b.finish(), len.div_ceil(CHUNK))
}

/// The outputs `lo..hi` of an axis whose tap `tap` reads an input; `lo <= hi`.
fn outputs_of_tap(b: &mut Builder, axis: &Axis, tap: Value) -> [Value; 2] {
    let (zero, outputs) = (b.i64(0), b.i64(axis.outputs as i64));
    if axis.inside() {
        return [zero, outputs];
    }
    // o * stride + first + tap * dilation in 0..inputs, quotients rounded up, of numbers made non-negative.
    let offset = b.mul_imm(tap, axis.dilation as i64);
    let offset = b.add_imm(offset, axis.first);
    let divide = |b: &mut Builder, v: Value| {
        let v = b.max_s(v, zero);
        let v = b.add_imm(v, axis.stride as i64 - 1);
        let stride = b.i64(axis.stride as i64);
        let v = if axis.stride == 1 { v } else { b.div_u(v, stride) };
        b.min_s(v, outputs)
    };
    let before = b.neg(offset);
    let lo = divide(b, before);
    let inputs = b.i64(axis.inputs as i64);
    let behind = b.sub(inputs, offset);
    let hi = divide(b, behind);
    [lo, b.max_s(lo, hi)]
}

/// The input that tap `tap` of output `o` reads.
fn input_of(b: &mut Builder, axis: &Axis, o: Value, tap: Value) -> Value {
    let first = axis.first_input(b, o);
    let offset = b.mul_imm(tap, axis.dilation as i64);
    b.add(first, offset)
}

/// A pass over pixels: so many outputs of rows of so many images at a time stay in the first cache for all taps.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    rows: usize,
    images: usize,
}

impl Chunk {
    /// What fits in three quarters of the first cache where a row of outputs and what it reads are `row_bytes`.
    fn of(target: &Target, axes: &[Axis; 3], row_bytes: usize) -> Chunk {
        let budget = target.l1d / 4 * 3;
        let rows = (budget / row_bytes.max(1)).clamp(1, axes[1].outputs.max(1));
        let whole = rows == axes[1].outputs && axes[0].outputs == 1;
        let images = if whole { (budget / (rows * row_bytes).max(1)).max(1) } else { 1 };
        Chunk { rows, images }
    }
}

/// A convolution whose every output reads the input at its own index sees a plane as rows of any length; of at most `longest`
/// pixels where that cuts it well.
fn flattened(axes: &[Axis; 3], longest: usize) -> [Axis; 3] {
    let plane: usize = axes.iter().map(|a| a.outputs).product();
    if !axes.iter().all(Axis::is_identity) || plane == 0 {
        return axes.clone();
    }
    let width = (1..=plane.min(longest)).rev().find(|w| plane.is_multiple_of(*w)).unwrap_or(plane);
    let width = if width < 16 { plane } else { width };
    let row = |n: usize| Axis::sliding(n, n, 1, 1, 1, 0);
    [Axis::UNIT, row(plane / width), row(width)]
}

/// `f(first, size)` for each of these sizes in a row; equal ones are a loop.
fn equal_runs(b: &mut Builder, sizes: impl Iterator<Item = usize>, mut f: impl FnMut(&mut Builder, Value, usize)) {
    let sizes: Vec<usize> = sizes.collect();
    let mut first = 0;
    for equal in sizes.chunk_by(|a, b| a == b) {
        if let [size] = equal {
            let at = b.i64(first);
            f(b, at, *size);
        } else {
            b.for_(0, equal.len(), 1, |b, i| {
                let at = b.mul_imm(i, equal[0] as i64);
                let at = b.add_imm(at, first);
                f(b, at, equal[0]);
            });
        }
        first += (equal[0] * equal.len()) as i64;
    }
}
