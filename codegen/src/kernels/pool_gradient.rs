//! Gradients of poolings: each element of dy goes to inputs of its window.
//!
//! ```text
//! task (image, block of channels, or plane);  dx = 0, then for each output, in order
//!   maximum   at = the first largest of the window's inputs (a NaN is largest), lane by lane;  dx[at] += dy
//!   mean      dx[i] += dy / divisor      for all inputs i of the window
//! ```
//!
//! Windows overlap, so that one task does all of a plane, and channels are what vectors and tasks go over. Lanes disagree
//! about where the maximum is: its gradient is added to every input of the window under a mask. Where windows have no input in
//! common it is stored, and dx is set to zero first only where some input is in no window.
//!
//! Planes of row-major values are blocks of one lane. All operands have one layout.

use crate::kernels::isa_name;
use crate::kernels::window::{Axis, div_rem, full_or_edge};
use crate::kir::{Addr, ArgDecl, Builder, Elem, FloatCc, IntCc, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::{BLOCK, Layout, padded_channels};

/// The most taps of an axis that stand one behind the other.
const UNROLL: i64 = 3;

/// Of what it is the gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A maximum: operands x, dy.
    Max,
    /// A mean with one divisor, or with a table of one for each output: operands dy, the table if there is one.
    Mean(Option<f64>),
}

/// The gradient of a pooling.
#[derive(Clone, Debug)]
pub struct PoolGradient<'a> {
    /// Compiled for.
    pub target: &'a Target,
    /// Of what.
    pub kind: Kind,
    /// `F32` or `F64`; blocked values are of `F32`.
    pub elem: Elem,
    /// Of all operands.
    pub layout: Layout,
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// The spatial axes of the pooling.
    pub axes: Vec<Axis>,
}

impl PoolGradient<'_> {
    /// Lanes of a pixel in memory, but for an edge block.
    fn width(&self) -> usize {
        if self.layout == Layout::Blocked { BLOCK } else { 1 }
    }

    fn blocks(&self) -> usize {
        self.channels.div_ceil(self.width())
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        self.batch * self.blocks()
    }

    /// The kernel. Operands: as [`Kind`] says, then dx.
    pub fn kernel(&self) -> Kernel {
        let align = self.elem.bytes() as u32;
        let (name, first) = match self.kind {
            Kind::Max => ("max", vec!["x", "dy"]),
            Kind::Mean(Some(_)) => ("average", vec!["dy"]),
            Kind::Mean(None) => ("average", vec!["dy", "divisors"]),
        };
        let mut args: Vec<ArgDecl> = first.into_iter().map(|name| ArgDecl::read(name, align)).collect();
        args.push(ArgDecl::read_write("dx", align));
        let mut b = Builder::new(format!("{}_{name}_pool_gradient__{}", self.elem, isa_name(self.target)), args);
        b.tasks(|b, task| {
            let (image, block) = div_rem(b, task, self.blocks());
            let (full, width) = (self.channels / self.width(), self.width());
            let edge = padded_channels(self.channels) - self.channels / BLOCK * BLOCK;
            full_or_edge(b, block, full, self.blocks(), |b, is_full| {
                self.block(b, image, block, if is_full { width } else { edge });
            });
        });
        b.finish()
    }

    /// A block of `width` lanes of an image.
    fn block(&self, b: &mut Builder, image: Value, block: Value, width: usize) {
        let size = self.elem.bytes();
        let channels = if self.layout == Layout::Blocked { padded_channels(self.channels) } else { self.channels };
        let plane = |f: fn(&Axis) -> usize| self.axes.iter().map(f).product::<usize>();
        let (inputs, outputs) = (plane(|a| a.inputs), plane(|a| a.outputs));
        let place = |b: &mut Builder, arg: usize, plane: usize| {
            let p = b.ptr(b.arg(arg).at(0).idx(image, (channels * plane * size).max(1)));
            b.ptr(p.at(0).idx(block, (self.width() * plane * size).max(1)))
        };
        let (x, dy, dx) = match self.kind {
            Kind::Max => (Some(place(b, 0, inputs)), place(b, 1, outputs), place(b, 2, inputs)),
            Kind::Mean(Some(_)) => (None, place(b, 0, outputs), place(b, 1, inputs)),
            Kind::Mean(None) => (None, place(b, 0, outputs), place(b, 2, inputs)),
        };
        let lanes = self.target.lanes(self.elem).min(width);
        let ty = Type::of(self.elem, lanes);
        let zero = b.zero(ty);
        if !self.covers() {
            b.for_(0, inputs * width, lanes as i64, |b, i| b.store(dx.at(0).idx(i, size), zero));
        }
        b.for_(0, width, lanes as i64, |b, lane| {
            let [dy, dx] = [dy, dx].map(|p| b.ptr(p.at(0).idx(lane, size)));
            let x = x.map(|x| b.ptr(x.at(0).idx(lane, size)));
            let (nothing, whole) = (b.i64(0), Window { first: b.i64(0), taps: Vec::new() });
            self.outputs(b, 0, nothing, whole, &mut |b, output, window| {
                let pitch = width * size;
                let d = b.load(ty, dy.at(0).idx(output, pitch));
                match x {
                    Some(x) => self.to_largest(b, window, [x, dx], d, pitch),
                    None => {
                        let divisor = match self.kind {
                            Kind::Mean(Some(n)) => b.float(ty, n),
                            _ => b.load_splat(ty, b.arg(1).at(0).idx(output, size)),
                        };
                        let share = b.div(d, divisor);
                        self.each(b, window, 0, window.first, &[], &mut |b, pixel, _| {
                            self.give(b, dx.at(0).idx(pixel, pitch), share);
                            Vec::new()
                        });
                    }
                }
            });
        });
    }

    /// Do windows have no input in common?
    fn disjoint(&self) -> bool {
        self.axes.iter().all(|a| a.taps.saturating_sub(1) * a.dilation < a.stride)
    }

    /// Is every input in exactly one window, which no padding is?
    fn covers(&self) -> bool {
        self.axes.iter().all(|a| (a.taps, a.dilation, a.first) == (a.stride, 1, 0) && a.inputs == a.outputs * a.taps)
    }

    /// Adds a share to the element of dx at `at`.
    fn give(&self, b: &mut Builder, at: Addr, share: Value) {
        if self.disjoint() {
            return b.store(at, share);
        }
        let sum = b.load(b.ty(share), at);
        let sum = b.add(sum, share);
        b.store(at, sum);
    }

    /// Calls `body` with the number of each output and its window, from axis `axis` on; `output` and `window` are those of the
    /// axes before.
    fn outputs(
        &self,
        b: &mut Builder,
        axis: usize,
        output: Value,
        window: Window,
        body: &mut dyn FnMut(&mut Builder, Value, &Window),
    ) {
        let Some(a) = self.axes.get(axis) else { return body(b, output, &window) };
        let pitch: usize = self.axes[axis + 1..].iter().map(|a| a.inputs).product();
        b.for_(0, a.outputs, 1, |b, o| {
            let (lo, hi) = a.tap_bounds(b, o);
            let at = a.first_input(b, o);
            let at = b.mul_imm(at, pitch as i64);
            let first = b.add(window.first, at);
            let taps = ([b.index(lo), b.index(hi)], pitch * a.dilation);
            let taps = window.taps.into_iter().chain([taps]).collect();
            let output = b.mul_imm(output, a.outputs as i64);
            let output = b.add(output, o);
            self.outputs(b, axis + 1, output, Window { first, taps }, body);
        });
    }

    /// Adds `d` to the first largest input of a window.
    fn to_largest(&self, b: &mut Builder, window: &Window, [x, dx]: [Value; 2], d: Value, pitch: usize) {
        let ty = b.ty(d);
        let places = ty.with_elem(self.elem.as_int());
        // No place yet.
        let (none, least) = (b.int(places, -1), b.float(ty, f64::NEG_INFINITY));
        let found = self.each(b, window, 0, window.first, &[least, none], &mut |b, pixel, best| {
            let v = b.load(ty, x.at(0).idx(pixel, pitch));
            let place = self.place(b, pixel, places);
            // Not at most the best, which NaN is not either; but nothing is larger than a NaN.
            let at_most = b.fcmp(FloatCc::Le, v, best[0]);
            let is_nan = b.is_nan(best[0]);
            let stays = b.or(at_most, is_nan);
            let first = b.zero(places);
            let there = b.icmp(IntCc::GeS, best[1], first);
            let stays = b.and(stays, there);
            vec![b.select(stays, best[0], v), b.select(stays, best[1], place)]
        });
        let zero = b.zero(ty);
        self.each(b, window, 0, window.first, &[], &mut |b, pixel, _| {
            let place = self.place(b, pixel, places);
            let is_it = b.icmp(IntCc::Eq, found[1], place);
            let share = b.select(is_it, d, zero);
            self.give(b, dx.at(0).idx(pixel, pitch), share);
            Vec::new()
        });
    }

    /// The number of an input pixel in every lane.
    fn place(&self, b: &mut Builder, pixel: Value, ty: Type) -> Value {
        let pixel = if self.elem == Elem::F64 { pixel } else { b.narrow(pixel, Elem::I32) };
        b.splat(ty, pixel)
    }

    /// Calls `body` with every input pixel of a window in order, from the taps of axis `axis` on; it yields the carried values.
    fn each(
        &self,
        b: &mut Builder,
        window: &Window,
        axis: usize,
        pixel: Value,
        carried: &[Value],
        body: &mut Body<'_>,
    ) -> Vec<Value> {
        let Some(&([lo, hi], pitch)) = window.taps.get(axis) else { return body(b, pixel, carried) };
        let mut tap = |b: &mut Builder, tap: Value, carried: &[Value]| {
            let offset = b.mul_imm(tap, pitch as i64);
            let pixel = b.add(pixel, offset);
            self.each(b, window, axis + 1, pixel, carried, body)
        };
        match (b.known(lo), b.known(hi)) {
            (Some(lo), Some(hi)) if hi - lo <= UNROLL => (lo..hi).fold(carried.to_vec(), |carried, i| {
                let i = b.i64(i);
                tap(b, i, &carried)
            }),
            _ => b.loop_(lo, hi, 1, carried, tap),
        }
    }
}

/// What is done with an input pixel and the values that are carried: the values that are carried on.
type Body<'a> = dyn FnMut(&mut Builder, Value, &[Value]) -> Vec<Value> + 'a;

/// What an output reads.
struct Window {
    /// The input pixel of tap 0 on all axes, if it is one.
    first: Value,
    /// Of each axis: the taps that read an input, and the pixels from one to the next.
    taps: Vec<([Value; 2], usize)>,
}
