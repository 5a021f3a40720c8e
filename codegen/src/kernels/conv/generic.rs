//! Convolution one element at a time: right for every dtype, layout, group and number of axes, fast for none.
//!
//! ```text
//! task = one image and output channel;  for each output pixel: sum over the group's channels and the taps that read an input
//! conv            input index = o * stride + k * dilation - pad
//! conv_transpose  input index = (o + pad - k * dilation) / stride where that is whole      (gather form: no scatter, no zeros)
//! ```
//!
//! Operands: x, w (row-major as in the model), bias if there is one, extras, y. The bias starts the sum.

use crate::kernels::epilogue::{Epilogue, Site};
use crate::kernels::window::div_rem;
use crate::kir::{ArgDecl, Builder, Elem, IntCc, Kernel, Type, Value};
use nncc_ir::{BLOCK, HALF_BLOCK, Layout, padded_channels};

/// A convolution of any kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Generic {
    /// `F32` or `F64`.
    pub elem: Elem,
    /// Images.
    pub batch: usize,
    /// Groups.
    pub groups: usize,
    /// Input channels of one group.
    pub inputs: usize,
    /// Output channels of one group.
    pub outputs: usize,
    /// The spatial axes.
    pub axes: Vec<GenericAxis>,
    /// Is it a transposed convolution?
    pub transposed: bool,
    /// How the input is stored.
    pub source: Layout,
    /// How the output is stored.
    pub target: Layout,
    /// Is there a bias?
    pub bias: bool,
    /// What is done to the sums (of f32).
    pub epilogue: Epilogue,
}

/// One spatial axis, in the attributes' own terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenericAxis {
    /// Elements of the input.
    pub input: usize,
    /// Elements of the output.
    pub output: usize,
    /// Taps.
    pub kernel: usize,
    /// Distance of windows.
    pub stride: usize,
    /// Distance of taps.
    pub dilation: usize,
    /// Padding in front (cropped for the transpose).
    pub pad: usize,
}

/// The element offset of (image, channel, pixel) in a tensor of `channels` channels.
pub fn element(b: &mut Builder, layout: Layout, channels: usize, plane: usize, at: [Value; 3]) -> Value {
    let [image, channel, pixel] = at;
    match layout {
        Layout::RowMajor => {
            let first = b.mul_imm(image, channels as i64);
            let row = b.add(first, channel);
            let row = b.mul_imm(row, plane as i64);
            b.add(row, pixel)
        }
        Layout::Blocked => {
            let (block, lane) = div_rem(b, channel, BLOCK);
            // The edge block is half as wide when half is enough.
            let edge = channels / BLOCK;
            let half = matches!(channels % BLOCK, 1..=HALF_BLOCK);
            let width = if half {
                let (edge, narrow, wide) = (b.i64(edge as i64), b.i64(HALF_BLOCK as i64), b.i64(BLOCK as i64));
                let is_edge = b.icmp(IntCc::Eq, block, edge);
                b.select(is_edge, narrow, wide)
            } else {
                b.i64(BLOCK as i64)
            };
            let image = b.mul_imm(image, (padded_channels(channels) * plane) as i64);
            let block = b.mul_imm(block, (BLOCK * plane) as i64);
            let pixel = b.mul(pixel, width);
            let at = b.add(image, block);
            let at = b.add(at, pixel);
            b.add(at, lane)
        }
    }
}

impl Generic {
    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        if self.axes.iter().any(|a| a.output == 0) { 0 } else { self.batch * self.groups * self.outputs }
    }

    /// The kernel.
    pub fn kernel(&self) -> Kernel {
        let align = self.elem.bytes() as u32;
        let mut args = vec![ArgDecl::read("x", align), ArgDecl::read("w", align)];
        if self.bias {
            args.push(ArgDecl::read("bias", align));
        }
        args.extend((0..self.epilogue.extras.len()).map(|i| ArgDecl::read(format!("e{i}"), align)));
        args.push(ArgDecl::write("y", align));
        let what = if self.transposed { "conv_transpose" } else { "conv" };
        let mut b = Builder::new(format!("{}_{what}_any", self.elem), args);
        b.tasks(|b, task| self.channel(b, task));
        b.finish()
    }

    /// All pixels of one output channel of one image.
    fn channel(&self, b: &mut Builder, task: Value) {
        let (image, channel) = div_rem(b, task, self.groups * self.outputs);
        let (group, in_group) = div_rem(b, channel, self.outputs);
        let pixels: usize = self.axes.iter().map(|a| a.output).product();
        b.for_(0, pixels, 1, |b, pixel| {
            let mut position = vec![pixel; self.axes.len()];
            let mut rest = pixel;
            for (i, axis) in self.axes.iter().enumerate().rev() {
                let (outer, o) = div_rem(b, rest, axis.output);
                position[i] = o;
                rest = outer;
            }
            let at = At { image, channel, group, in_group, position };
            self.pixel(b, &at, pixel);
        });
    }

    fn pixel(&self, b: &mut Builder, at: &At, pixel: Value) {
        let ty = Type::Scalar(self.elem);
        let size = self.elem.bytes();
        let start = if self.bias { b.load(ty, b.arg(2).at(0).idx(at.channel, size)) } else { b.zero(ty) };
        let sum = b.loop_(0, self.inputs, 1, &[start], |b, c, sum| {
            // The weights' row of this channel pair.
            let (outer, inner, inners) =
                if self.transposed { (c, at.in_group, self.outputs) } else { (at.in_group, c, self.inputs) };
            let outers = if self.transposed { self.inputs } else { self.outputs };
            let first = b.mul_imm(at.group, outers as i64);
            let outer = b.add(first, outer);
            let row = b.mul_imm(outer, inners as i64);
            let pair = b.add(row, inner);
            let first = b.mul_imm(at.group, self.inputs as i64);
            let c = b.add(first, c);
            let zero = b.i64(0);
            vec![self.axis(b, at, 0, [c, zero, pair], sum[0])]
        });
        let y = b.arg(2 + usize::from(self.bias) + self.epilogue.extras.len());
        let plane = self.axes.iter().map(|a| a.output).product();
        let offset = element(b, self.target, self.groups * self.outputs, plane, [at.image, at.channel, pixel]);
        let offset = b.mul_imm(offset, size as i64);
        let extras: Vec<Value> =
            (0..self.epilogue.extras.len()).map(|i| b.arg(2 + usize::from(self.bias) + i)).collect();
        let site = Site { same: (offset, 0), image: at.image, channel: (at.channel, 0), count: 1 };
        let result = self.epilogue.apply(b, sum[0], &extras, &site);
        b.store(y.at(0).idx(offset, 1), result);
    }

    /// The taps of one axis and all inner ones. `walk` is the input channel, the input pixel so far and the tap so far.
    fn axis(&self, b: &mut Builder, at: &At, axis: usize, walk: [Value; 3], sum: Value) -> Value {
        let Some(a) = self.axes.get(axis) else {
            let ty = Type::Scalar(self.elem);
            let plane = self.axes.iter().map(|a| a.input).product();
            let x = element(b, self.source, self.groups * self.inputs, plane, [at.image, walk[0], walk[1]]);
            let x = b.load(ty, b.arg(0).at(0).idx(x, self.elem.bytes()));
            let w = b.load(ty, b.arg(1).at(0).idx(walk[2], self.elem.bytes()));
            return b.mul_add(w, x, sum);
        };
        let sum = b.loop_(0, a.kernel, 1, &[sum], |b, k, sum| {
            let o = at.position[axis];
            let (zero, extent) = (b.i64(0), b.i64(a.input as i64));
            let (input, whole) = if self.transposed {
                let shifted = b.add_imm(o, a.pad as i64);
                let spread = b.mul_imm(k, a.dilation as i64);
                let num = b.sub(shifted, spread);
                let stride = b.i64(a.stride as i64);
                let rest = b.rem_s(num, stride);
                (b.div_s(num, stride), b.icmp(IntCc::Eq, rest, zero))
            } else {
                let first = b.mul_imm(o, a.stride as i64);
                let first = b.add_imm(first, -(a.pad as i64));
                let spread = b.mul_imm(k, a.dilation as i64);
                let input = b.add(first, spread);
                (input, b.icmp(IntCc::Eq, zero, zero))
            };
            let below = b.icmp(IntCc::LtS, input, extent);
            let above = b.icmp(IntCc::GeS, input, zero);
            let ok = b.and(below, above);
            let ok = b.and(ok, whole);
            b.if_(
                ok,
                |b| {
                    let pixel = b.mul_imm(walk[1], a.input as i64);
                    let pixel = b.add(pixel, input);
                    let tap = b.mul_imm(walk[2], a.kernel as i64);
                    let tap = b.add(tap, k);
                    vec![self.axis(b, at, axis + 1, [walk[0], pixel, tap], sum[0])]
                },
                |_| vec![sum[0]],
            )
        });
        sum[0]
    }
}

/// An output element.
struct At {
    image: Value,
    channel: Value,
    group: Value,
    in_group: Value,
    position: Vec<Value>,
}
