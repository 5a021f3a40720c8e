//! The gradient of a convolution with respect to its weights.
//!
//! ```text
//! dw[m, c, k] = sum over images n, outputs o of  dy[n, m, o] * x[n, c, o * stride + k * dilation - pad]
//! ```
//!
//! | template | serves |
//! |---|---|
//! | [`dense`] | f32, whole channel blocks a group or one group, dy blocked |
//! | [`depthwise`] | f32, one channel a group, all blocked |
//! | [`generic`] | everything, one element at a time |
//!
//! The first two write panels, as [`crate::pack`] says of weights, which strided copies turn into rows. Where the weights give
//! too few tasks the images are split among several panels at fixed places, added in order by [`add_parts`]: the same bits
//! for any number of threads.

pub mod dense;
pub mod depthwise;
pub mod generic;

use crate::kernels::isa_name;
use crate::kernels::window::Axis;
use crate::kir::{ArgDecl, Builder, Elem, Kernel, Type, Value};
use crate::target::Target;

/// Tasks that let a few threads share the work evenly.
const TASKS: usize = 16;
/// Multiply-accumulates of a part that are worth a panel of sums of its own.
const LEAST_MACS: u64 = 1 << 20;
/// Sums of a task of [`add_parts`].
const CHUNK: usize = 4096;

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

/// Adds parts of `len` sums each, one behind the other, to the first one in order: its kernel and number of tasks.
pub fn add_parts(target: &Target, len: usize, parts: usize) -> (Kernel, usize) {
    let name = format!("f32_add_parts__{}", isa_name(target));
    let mut b = Builder::new(name, vec![ArgDecl::read_write("sums", 64)]);
    let lanes = target.lanes(Elem::F32);
    let sums = b.arg(0);
    let add = |b: &mut Builder, i: Value, ty: Type| {
        let p = b.ptr(sums.at(0).idx(i, 4));
        let mut sum = b.load(ty, p);
        for part in 1..parts {
            let offset = b.i64((part * len * 4) as i64);
            let other = b.ptr_add(p, offset, 1);
            let v = b.load(ty, other);
            sum = b.add(sum, v);
        }
        b.store(p, sum);
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

/// A convolution whose every output reads the input at its own index sees a plane as rows of any length.
fn flattened(axes: &[Axis; 3]) -> [Axis; 3] {
    /// Long enough to make little of what a row costs of its own.
    const LONGEST: usize = 128;
    let plane: usize = axes.iter().map(|a| a.outputs).product();
    if !axes.iter().all(Axis::is_identity) || plane == 0 {
        return axes.clone();
    }
    let width = (1..=plane.min(LONGEST)).rev().find(|w| plane.is_multiple_of(*w)).unwrap_or(plane);
    let width = if width < 16 { plane } else { width };
    let row = |n: usize| Axis::sliding(n, n, 1, 1, 1, 0);
    [Axis::UNIT, row(plane / width), row(width)]
}
