//! Pooling over sliding windows.
//!
//! [`Blocked`] serves f32 in channel blocks: a vector is channels, a tile is pixels of a row, rows of taps are clipped to the
//! input, tiles at the border are code of their own ([`window`](super::window)). Each input vector is loaded once and joins
//! every window of the tile that it belongs to.
//!
//! ```text
//! task (image, block of channels, chunk of rows)
//!   for vector of the block, row, tile:   acc[px] = start;  for kd, kh, kw:  acc[px] = join(acc[px], x[px * stride + kw])
//!   y[px] = finish(acc[px])               max: itself     mean: acc / taps counted     norm: a root
//! ```
//!
//! [`Generic`] serves every dtype and layout, any number of axes, and indices, one element at a time.
//!
//! A mean's divisors are one number where all windows count alike, else a table with one number an output pixel, made while
//! compiling. Operands: x, the table if there is one, y, the indices if they are wanted; of [`Blocked`] also what follows from
//! the number of images ([`Blocked::shape`]), so that batches of several sizes share code.

use super::bands::Band;
use super::conv::generic::element;
use super::pointwise::elem_of;
use super::window::{Axis, Run, TapGroup, div_rem, div_rem_by, first_line, full_or_edge, line_at, piece};
use super::{isa_name, words};
use crate::kir::{ArgDecl, Builder, Elem, FloatCc, I64, Index, IntCc, Kernel, Type, Value};
use crate::math;
use crate::target::Target;
use nncc_ir::{BLOCK, DType, Layout, padded_channels};

/// What is computed of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// The largest element; NaN if one is NaN.
    Max,
    /// The mean with this divisor, or with those of a table.
    Mean(Option<f64>),
    /// The root of the sum of powers, of this order, which is at least 1. The root of an order that is a power of two is
    /// square roots, that of any other the power function: much code, which is for [`Generic`] alone.
    Norm(usize),
}

impl Kind {
    pub(crate) fn has_table(self) -> bool {
        self == Kind::Mean(None)
    }

    fn start(self, b: &mut Builder, ty: Type) -> Value {
        if self == Kind::Max { b.float(ty, f64::NEG_INFINITY) } else { b.zero(ty) }
    }

    /// The first float element of a window.
    pub(crate) fn first(self, b: &mut Builder, x: Value) -> Value {
        if self == Kind::Max {
            return x; // nothing is less than where a maximum starts
        }
        let start = self.start(b, b.ty(x));
        self.join(b, start, x)
    }

    /// A further float element.
    pub(crate) fn join(self, b: &mut Builder, acc: Value, x: Value) -> Value {
        match self {
            Kind::Max => b.fmax(acc, x),
            Kind::Mean(_) => b.add(acc, x),
            Kind::Norm(order) => {
                let power = magnitude_to(b, x, order);
                b.add(acc, power)
            }
        }
    }

    /// The result; `table` is the address of the pixel's divisor.
    pub(crate) fn finish(self, b: &mut Builder, acc: Value, table: Option<crate::kir::Addr>) -> Value {
        let ty = b.ty(acc);
        match (self, table) {
            (Kind::Mean(Some(divisor)), _) => {
                let divisor = b.float(ty, divisor);
                b.div(acc, divisor)
            }
            (Kind::Mean(None), Some(at)) => {
                let divisor = b.load_splat(ty, at);
                b.div(acc, divisor)
            }
            (Kind::Norm(order), _) if order.is_power_of_two() => {
                (0..order.trailing_zeros()).fold(acc, |acc, _| b.sqrt(acc))
            }
            (Kind::Norm(order), _) => {
                let exponent = b.float(ty, 1.0 / order as f64);
                math::pow(b, acc, exponent)
            }
            _ => acc,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Max => "max_pool",
            Kind::Mean(_) => "average_pool",
            Kind::Norm(_) => "lp_pool",
        }
    }
}

/// `|x|^order` for an order of at least 1, by repeated squaring.
fn magnitude_to(b: &mut Builder, x: Value, order: usize) -> Value {
    let mut square = b.abs(x);
    let mut power = (order % 2 == 1).then_some(square);
    for bit in 1..=order.ilog2() {
        square = b.mul(square, square);
        if order >> bit & 1 == 1 {
            power = Some(power.map_or(square, |power| b.mul(power, square)));
        }
    }
    power.unwrap_or(square)
}

/// A pooling of a plane whose windows lie side by side and whole inside of it, so that whoever has the pixels of a window in
/// registers can pool them there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SideBySide {
    /// Of each window; with one divisor, if it is a mean.
    pub kind: Kind,
    /// Rows and columns of a window.
    pub window: [usize; 2],
    /// Rows and columns of windows.
    pub outputs: [usize; 2],
}

impl SideBySide {
    /// The rows and columns that windows read.
    pub(crate) fn extents(&self) -> [usize; 2] {
        [self.window[0] * self.outputs[0], self.window[1] * self.outputs[1]]
    }

    /// `max_pool_2x2` and the like, for kernel names.
    pub(crate) fn name(&self) -> String {
        format!("{}_{}x{}", self.kind.name(), self.window[0], self.window[1])
    }
}

/// Where the operands of a pooling lie.
pub(crate) struct Operands {
    pub x: Value,
    /// A divisor for each pixel of an output plane, if the kind asks for it.
    pub table: Option<Value>,
    pub y: Value,
}

/// A pooling of f32 in channel blocks.
#[derive(Clone, Debug)]
pub struct Pooling {
    /// Of each window.
    pub kind: Kind,
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Depth, height, width.
    pub axes: [Axis; 3],
}

/// The template for a pooling in channel blocks.
#[derive(Clone, Debug)]
pub struct Blocked<'a> {
    /// Compiled for.
    pub target: &'a Target,
    /// What is computed.
    pub pooling: Pooling,
}

/// The most joins that stand one behind the other for a group of taps.
const UNROLL: usize = 64;

impl Blocked<'_> {
    /// Pixels of a tile: what registers hold besides an input and the temporaries of a maximum, and fewer when windows are wide.
    /// More than 7 would save few loads, a maximum being six instructions, and double the code.
    fn pixels(&self) -> usize {
        let free = self.target.vector_regs - 6;
        let taps = self.pooling.axes[2].taps.max(1);
        free.min(7).min((UNROLL / taps).max(4)).min(self.pooling.axes[2].outputs.max(1))
    }

    fn row_count(&self) -> usize {
        self.pooling.axes[0].outputs * self.pooling.axes[1].outputs
    }

    /// Rows of one task: enough of them for some 16 thousand joins of a vector, not so many that threads have nothing to do.
    fn rows(&self) -> usize {
        let a_row =
            (self.pooling.axes.iter().map(|a| a.taps).product::<usize>() * self.pooling.axes[2].outputs * BLOCK).max(1);
        let wanted = 32usize.div_ceil((self.pooling.batch * self.pooling.channels.div_ceil(BLOCK)).max(1));
        let rows = self.row_count();
        rows.div_ceil(wanted).max((1usize << 14).div_ceil(a_row)).min(rows).max(1)
    }

    fn chunks(&self) -> usize {
        self.row_count().div_ceil(self.rows())
    }

    fn blocks(&self) -> usize {
        self.pooling.channels.div_ceil(BLOCK)
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        let empty = self.pooling.axes.iter().any(|a| a.outputs == 0);
        if empty { 0 } else { self.pooling.batch * self.blocks() * self.chunks() }
    }

    /// What the kernel's last operand holds: chunks of rows, and rows of a chunk.
    pub fn shape(&self) -> Vec<u8> {
        words([self.chunks(), self.rows()].map(|n| n as i64))
    }

    /// Is the code of all tiles small enough? Else the generic template serves.
    pub fn is_small(&self) -> bool {
        let body = |run: &Run| run.taps.iter().map(|g| (g.taps.len() * g.pixels.len()).min(UNROLL)).sum::<usize>();
        // A maximum that keeps NaNs is about six instructions of six bytes.
        let bytes = self.pooling.axes[2].runs(self.pixels()).iter().map(body).sum::<usize>() * 36 * 2;
        bytes <= 24 * 1024 && self.pooling.axes[2].inputs.max(self.pooling.axes[2].outputs) * BLOCK * 4 < 1 << 30
    }

    /// The kernel's name.
    pub(crate) fn name(&self) -> String {
        format!("f32_{}__{}_1x{}", self.pooling.kind.name(), isa_name(self.target), self.pixels())
    }

    /// The kernel.
    pub fn kernel(&self) -> Kernel {
        let mut args = vec![ArgDecl::read("x", 4)];
        if self.pooling.kind.has_table() {
            args.push(ArgDecl::read("divisors", 4));
        }
        args.push(ArgDecl::write("y", 4));
        args.push(ArgDecl::read("shape", 8));
        let mut b = Builder::new(self.name(), args);
        let table = self.pooling.kind.has_table();
        let operands = Operands { x: b.arg(0), table: table.then(|| b.arg(1)), y: b.arg(1 + usize::from(table)) };
        let shape = b.arg(2 + usize::from(table));
        let [chunks, rows] = [0, 8].map(|at| b.load(I64, shape.at(at)));
        b.tasks(|b, task| {
            let (rest, chunk) = div_rem_by(b, task, chunks);
            let (image, block) = div_rem(b, rest, self.blocks());
            let all = b.i64(self.row_count() as i64);
            let rows = piece(b, chunk, rows, all);
            let band = Band::of_whole(b, image, rows);
            self.block(b, &operands, &band, block);
        });
        b.finish()
    }

    /// Inside of another kernel: all channels of a band.
    pub(crate) fn band(&self, b: &mut Builder, operands: &Operands, band: &Band) {
        b.for_(0, self.blocks(), 1, |b, block| self.block(b, operands, band, block));
    }

    /// A band of one block of channels.
    fn block(&self, b: &mut Builder, operands: &Operands, band: &Band, block: Value) {
        let edge = padded_channels(self.pooling.channels) - self.pooling.channels / BLOCK * BLOCK;
        // An edge may be as wide as the others.
        let full = if edge == BLOCK { self.blocks() } else { self.pooling.channels / BLOCK };
        full_or_edge(b, block, full, self.blocks(), |b, is_full| {
            self.band_rows(b, operands, band, block, if is_full { BLOCK } else { edge });
        });
    }

    /// The rows of a band in a block of `width` channels.
    fn band_rows(&self, b: &mut Builder, operands: &Operands, band: &Band, block: Value, width: usize) {
        let [depth, height, row] = &self.pooling.axes;
        let padded = padded_channels(self.pooling.channels);
        let base = |b: &mut Builder, base: Value, image: Value, plane: usize| {
            let p = b.ptr(base.at(0).idx(image, (padded * plane * 4).max(1)));
            b.ptr(p.at(0).idx(block, (BLOCK * plane * 4).max(1)))
        };
        let x = base(b, operands.x, band.images[0], self.pooling.axes.iter().map(|a| a.in_extent).product());
        let y = base(b, operands.y, band.images[1], self.pooling.axes.iter().map(|a| a.out_extent).product());
        let [lo, hi] = band.rows;
        let lanes = self.target.lanes(Elem::F32).min(width);
        let pitch = width * 4;
        b.for_(lo, hi, 1, |b, r| {
            let (od, oh) = line_at(b, depth, height, r);
            let bounds = [depth.tap_bounds(b, od), height.tap_bounds(b, oh)];
            let line = first_line(b, depth, height, [od, oh]);
            let line = b.sub(line, band.first[0]);
            let x = b.ptr(x.at(0).idx(line, (row.inputs * pitch).max(1)));
            let place = b.sub(r, band.first[1]);
            let first_place = b.mul_imm(place, row.outputs as i64);
            let first_pixel = b.mul_imm(r, row.outputs as i64);
            b.for_(0, width, lanes as i64, |b, lane| {
                let (x, y) = (b.ptr(x.at(0).idx(lane, 4)), b.ptr(y.at(0).idx(lane, 4)));
                for run in row.runs(self.pixels()) {
                    b.for_(0, run.count, 1, |b, i| {
                        let first = b.mul_imm(i, run.width as i64);
                        let first = b.add_imm(first, run.start as i64);
                        let column = row.first_input(b, first);
                        let x = b.ptr(x.at(0).idx(column, pitch));
                        let sums = self.tile(b, Type::of(Elem::F32, lanes), pitch, x, bounds, &run);
                        let place = b.add(first_place, first);
                        let y = b.ptr(y.at(0).idx(place, pitch));
                        let pixel = b.add(first_pixel, first);
                        for (px, &sum) in sums.iter().enumerate() {
                            let table = operands.table.map(|table| table.at(px as i64 * 4).idx(pixel, 4));
                            let result = self.pooling.kind.finish(b, sum, table);
                            b.store(y.at((px * pitch) as i64), result);
                        }
                    });
                }
            });
        });
    }

    /// The windows of one tile.
    fn tile(
        &self,
        b: &mut Builder,
        ty: Type,
        pitch: usize,
        x: Value,
        [(d0, d1), (h0, h1)]: [(Index, Index); 2],
        run: &Run,
    ) -> Vec<Value> {
        let [depth, height, row] = &self.pooling.axes;
        let start = self.pooling.kind.start(b, ty);
        let line = row.inputs * pitch;
        b.loop_(d0, d1, 1, &vec![start; run.width], |b, kd, sums| {
            let x = b.ptr(x.at(0).idx(kd, (depth.dilation * height.inputs * line).max(1)));
            b.loop_(h0, h1, 1, sums, |b, kh, sums| {
                let x = b.ptr(x.at(0).idx(kh, (height.dilation * line).max(1)));
                let mut sums = sums.to_vec();
                let (long, short): (Vec<_>, Vec<_>) =
                    run.taps.iter().partition(|g| g.taps.len() * g.pixels.len() > UNROLL);
                self.unrolled(b, ty, pitch, x, &short, &mut sums);
                for group in long {
                    sums = b.loop_(group.taps.start, group.taps.end, 1, &sums, |b, tap, sums| {
                        let x = b.ptr(x.at(0).idx(tap, row.dilation * pitch));
                        let mut sums = sums.to_vec();
                        for px in group.pixels.clone() {
                            let v = b.load(ty, x.at((px * row.stride * pitch) as i64));
                            sums[px] = self.pooling.kind.join(b, sums[px], v);
                        }
                        sums
                    });
                }
                sums
            })
        })
    }

    /// Taps one behind the other, in the order of the inputs, so that each is loaded once.
    fn unrolled(&self, b: &mut Builder, ty: Type, pitch: usize, x: Value, groups: &[&TapGroup], sums: &mut [Value]) {
        let row = &self.pooling.axes[2];
        let mut uses: Vec<(usize, usize)> = Vec::new();
        for group in groups {
            for tap in group.taps.clone() {
                uses.extend(group.pixels.clone().map(|px| (px * row.stride + tap * row.dilation, px)));
            }
        }
        uses.sort_unstable();
        let mut loaded: Option<(usize, Value)> = None;
        for (column, px) in uses {
            let v = match loaded {
                Some((at, v)) if at == column => v,
                _ => b.load(ty, x.at((column * pitch) as i64)),
            };
            loaded = Some((column, v));
            sums[px] = self.pooling.kind.join(b, sums[px], v);
        }
    }
}

/// A pooling of any dtype, layout and number of axes.
#[derive(Clone, Debug)]
pub struct Generic {
    /// Of x and y.
    pub dtype: DType,
    /// Of each window.
    pub kind: Kind,
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// The spatial axes.
    pub axes: Vec<Axis>,
    /// How x, y and the indices are stored.
    pub layouts: [Layout; 3],
    /// Whether the indices of maxima are wanted, and then whether with the first spatial axis fastest.
    pub indices: Option<bool>,
}

impl Generic {
    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        if self.axes.iter().any(|a| a.outputs == 0) { 0 } else { self.batch * self.channels }
    }

    fn plane(&self) -> usize {
        self.axes.iter().map(|a| a.inputs).product()
    }

    /// The kernel.
    pub fn kernel(&self) -> Kernel {
        let elem = elem_of(self.dtype);
        let (ty, size) = (Type::Scalar(elem), elem.bytes());
        let mut args = vec![ArgDecl::read("x", size as u32)];
        if self.kind.has_table() {
            args.push(ArgDecl::read("divisors", size as u32));
        }
        let y_arg = args.len();
        args.push(ArgDecl::write("y", size as u32));
        if self.indices.is_some() {
            args.push(ArgDecl::write("indices", 8));
        }
        let mut b = Builder::new(format!("{}_{}_any", self.dtype, self.kind.name()), args);
        let outputs: usize = self.axes.iter().map(|a| a.outputs).product();
        b.tasks(|b, task| {
            let (image, channel) = div_rem(b, task, self.channels);
            b.for_(0, outputs, 1, |b, pixel| {
                let mut position = vec![pixel; self.axes.len()];
                let mut rest = pixel;
                for (i, axis) in self.axes.iter().enumerate().rev() {
                    let (outer, o) = div_rem(b, rest, axis.outputs);
                    position[i] = o;
                    rest = outer;
                }
                let start = if elem.is_float() { self.kind.start(b, ty) } else { self.lowest(b, ty) };
                let none = b.i64(-1);
                let zero = b.i64(0);
                let [best, place] = self.axis(b, &position, 0, [image, channel, zero], [start, none]);
                let table = b.arg(1).at(0).idx(pixel, size);
                let result = self.kind.finish(b, best, self.kind.has_table().then_some(table));
                let at = element(b, self.layouts[1], self.channels, outputs, [image, channel, pixel]);
                b.store(b.arg(y_arg).at(0).idx(at, size), result);
                if let Some(first_fastest) = self.indices {
                    let index = self.index(b, task, place, first_fastest);
                    let at = element(b, self.layouts[2], self.channels, outputs, [image, channel, pixel]);
                    b.store(b.arg(y_arg + 1).at(0).idx(at, 8), index);
                }
            });
        });
        b.finish()
    }

    fn unsigned(&self) -> bool {
        self.dtype.is_int() && !self.dtype.is_signed_int()
    }

    /// The smallest integer.
    fn lowest(&self, b: &mut Builder, ty: Type) -> Value {
        let bits = elem_of(self.dtype).bits();
        if self.unsigned() { b.zero(ty) } else { b.int(ty, i64::MIN >> (64 - bits)) }
    }

    /// The taps of one axis and all inner ones; `walk` is image, channel and the input pixel so far.
    fn axis(
        &self,
        b: &mut Builder,
        position: &[Value],
        axis: usize,
        walk: [Value; 3],
        state: [Value; 2],
    ) -> [Value; 2] {
        let Some(a) = self.axes.get(axis) else {
            let elem = elem_of(self.dtype);
            let at = element(b, self.layouts[0], self.channels, self.plane(), walk);
            let v = b.load(Type::Scalar(elem), b.arg(0).at(0).idx(at, elem.bytes()));
            return self.join(b, state, v, walk[2]);
        };
        let (lo, hi) = a.tap_bounds(b, position[axis]);
        let first = a.first_input(b, position[axis]);
        let state = b.loop_(lo, hi, 1, &state, |b, k, state| {
            let along = b.mul_imm(k, a.dilation as i64);
            let input = b.add(first, along);
            let pixel = b.mul_imm(walk[2], a.inputs as i64);
            let pixel = b.add(pixel, input);
            self.axis(b, position, axis + 1, [walk[0], walk[1], pixel], [state[0], state[1]]).to_vec()
        });
        [state[0], state[1]]
    }

    fn join(&self, b: &mut Builder, [best, place]: [Value; 2], v: Value, pixel: Value) -> [Value; 2] {
        if self.kind != Kind::Max {
            return [self.kind.join(b, best, v), place];
        }
        // The first of the largest, a NaN before everything; the first element whatever it is.
        let zero = b.i64(0);
        let first = b.icmp(IntCc::LtS, place, zero);
        let larger = if self.dtype.is_float() {
            let larger = b.fcmp(FloatCc::Gt, v, best);
            let is_nan = b.is_nan(v);
            let was_number = b.fcmp(FloatCc::Ordered, best, best);
            let larger = b.or(larger, is_nan);
            b.and(larger, was_number)
        } else {
            b.icmp(if self.unsigned() { IntCc::GtU } else { IntCc::GtS }, v, best)
        };
        let take = b.or(first, larger);
        [b.select(take, v, best), b.select(take, pixel, place)]
    }

    /// The index in the flattened input of a place in the plane, -1 for none.
    fn index(&self, b: &mut Builder, plane_number: Value, place: Value, first_fastest: bool) -> Value {
        debug_assert_eq!(b.ty(place), I64);
        let zero = b.i64(0);
        let is_none = b.icmp(IntCc::LtS, place, zero);
        let mut in_plane = place;
        if first_fastest {
            let safe = b.max_s(place, zero);
            let (mut rest, mut stride) = (safe, self.plane());
            in_plane = zero;
            for a in self.axes.iter().rev() {
                stride /= a.inputs.max(1);
                let (outer, i) = div_rem(b, rest, a.inputs.max(1));
                let part = b.mul_imm(i, stride as i64);
                in_plane = b.add(in_plane, part);
                rest = outer;
            }
        }
        let base = b.mul_imm(plane_number, self.plane() as i64);
        let index = b.add(base, in_plane);
        let none = b.i64(-1);
        b.select(is_none, none, index)
    }
}
