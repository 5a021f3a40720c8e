//! Weight gradients of depthwise convolutions on blocked values: a vector is channels, every lane its own filter.
//!
//! ```text
//! x, dy  [N][C/16][D][H][W][16]        dw  panels [C/16][tap][16]
//!
//! for task (part of the images, block), for each vector of the block, for each tap
//!   dw[tap] = sum over images of  sum over rows, pixels that the tap reaches of  dy[pixel] * x[pixel * stride + tap]
//! ```
//!
//! Two loads a multiply-add bind it, not the multiply-adds: four sums side by side are enough to hide their latency. Each
//! image sums from zero.

use super::{Parts, input_of, outputs_of_tap};
use crate::kernels::isa_name;
use crate::kernels::window::{Axis, div_rem, full_or_edge};
use crate::kir::{ArgDecl, BinaryOp, Builder, Elem, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::{BLOCK, padded_channels};

/// Sums side by side.
const SUMS: usize = 4;

/// A weight gradient of one channel a group.
#[derive(Clone, Debug)]
pub struct Depthwise<'a> {
    /// Compiled for.
    pub target: &'a Target,
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Depth, height, width of the convolution.
    pub axes: [Axis; 3],
}

impl Depthwise<'_> {
    fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK)
    }

    fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.taps).product()
    }

    fn split(&self) -> Parts {
        let pixels: usize = self.axes.iter().map(|a| a.outputs).product();
        Parts::of(self.batch, self.blocks(), (self.batch * self.channels * pixels * self.taps()) as u64)
    }

    /// Elements of the panels of one part.
    pub fn stored(&self) -> usize {
        padded_channels(self.channels) * self.taps()
    }

    /// How many panels of sums it writes, one behind the other.
    pub fn parts(&self) -> usize {
        self.split().count
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        self.parts() * self.blocks()
    }

    /// The kernel. Operands: x, dy, the panels of all parts.
    pub fn kernel(&self) -> Kernel {
        let args = vec![ArgDecl::read("x", 4), ArgDecl::read("dy", 4), ArgDecl::write("dw", 64)];
        let mut b = Builder::new(format!("f32_dwconv_weights__{}", isa_name(self.target)), args);
        let edge = padded_channels(self.channels) - self.channels / BLOCK * BLOCK;
        b.tasks(|b, task| {
            let (part, block) = div_rem(b, task, self.blocks());
            full_or_edge(b, block, self.channels / BLOCK, self.blocks(), |b, is_full| {
                self.block(b, part, block, if is_full { BLOCK } else { edge });
            });
        });
        b.finish()
    }

    fn block(&self, b: &mut Builder, part: Value, block: Value, width: usize) {
        let plane = |f: fn(&Axis) -> usize| self.axes.iter().map(f).product::<usize>();
        let (inputs, outputs) = (plane(|a| a.inputs), plane(|a| a.outputs));
        let x = b.ptr(b.arg(0).at(0).idx(block, BLOCK * inputs * 4));
        let dy = b.ptr(b.arg(1).at(0).idx(block, BLOCK * outputs * 4));
        let sums = b.ptr(b.arg(2).at(0).idx(part, self.stored() * 4));
        let sums = b.ptr(sums.at(0).idx(block, BLOCK * self.taps() * 4));
        let images = self.split().images;
        let lo = b.mul_imm(part, images as i64);
        let hi = b.add_imm(lo, images as i64);
        let batch = b.i64(self.batch as i64);
        let images = [lo, b.min_s(hi, batch)];
        let lanes = self.target.lanes(Elem::F32).min(width);
        let [depth, height, row] = &self.axes;
        b.for_(0, width, lanes as i64, |b, lane| {
            let lane_bytes = b.mul_imm(lane, 4);
            let [x, dy, sums] = [x, dy, sums].map(|p| b.ptr(p.at(0).idx(lane_bytes, 1)));
            let here = Here { ty: Type::of(Elem::F32, lanes), width, x, dy, images };
            b.for_(0, depth.taps, 1, |b, kd| {
                b.for_(0, height.taps, 1, |b, kh| {
                    b.for_(0, row.taps, 1, |b, kw| {
                        let sum = self.tap(b, &here, [kd, kh, kw]);
                        let tap = b.mul_imm(kd, height.taps as i64);
                        let tap = b.add(tap, kh);
                        let tap = b.mul_imm(tap, row.taps as i64);
                        let tap = b.add(tap, kw);
                        b.store(sums.at(0).idx(tap, width * 4), sum);
                    });
                });
            });
        });
    }

    /// The sum of a tap over all images of a part.
    fn tap(&self, b: &mut Builder, here: &Here, [kd, kh, kw]: [Value; 3]) -> Value {
        let [depth, height, row] = &self.axes;
        let [d, h, w] = [(depth, kd), (height, kh), (row, kw)].map(|(axis, tap)| outputs_of_tap(b, axis, tap));
        let plane = |f: fn(&Axis) -> usize| padded_channels(self.channels) * self.axes.iter().map(f).product::<usize>();
        let (input_image, output_image) = (plane(|a| a.inputs), plane(|a| a.outputs));
        let pixels = b.sub(w[1], w[0]);
        let mask = b.i64(-(SUMS as i64));
        let unrolled = b.binary(BinaryOp::And, pixels, mask);
        let column = input_of(b, row, w[0], kw);
        let zero = b.zero(here.ty);
        let total = b.loop_(here.images[0], here.images[1], 1, &[zero], |b, image, total| {
            let x = b.ptr(here.x.at(0).idx(image, input_image * 4));
            let dy = b.ptr(here.dy.at(0).idx(image, output_image * 4));
            let sums = b.loop_(d[0], d[1], 1, &[zero; SUMS], |b, od, sums| {
                let id = input_of(b, depth, od, kd);
                b.loop_(h[0], h[1], 1, sums, |b, oh, sums| {
                    let ih = input_of(b, height, oh, kh);
                    let at = |b: &mut Builder, [d, h, w]: [Value; 3], rows: usize, columns: usize| {
                        let line = b.mul_imm(d, rows as i64);
                        let line = b.add(line, h);
                        let line = b.mul_imm(line, columns as i64);
                        b.add(line, w)
                    };
                    let input = at(b, [id, ih, column], height.inputs, row.inputs);
                    let output = at(b, [od, oh, w[0]], height.outputs, row.outputs);
                    let x = b.ptr(x.at(0).idx(input, here.width * 4));
                    let dy = b.ptr(dy.at(0).idx(output, here.width * 4));
                    let step = |count: usize| {
                        move |b: &mut Builder, i: Value, sums: &[Value]| {
                            let x = b.ptr(x.at(0).idx(i, row.stride * here.width * 4));
                            let dy = b.ptr(dy.at(0).idx(i, here.width * 4));
                            let mut sums = sums.to_vec();
                            for (pixel, sum) in sums.iter_mut().enumerate().take(count) {
                                let input = b.load(here.ty, x.at((pixel * row.stride * here.width * 4) as i64));
                                let output = b.load(here.ty, dy.at((pixel * here.width * 4) as i64));
                                *sum = b.mul_add(output, input, *sum);
                            }
                            sums
                        }
                    };
                    let sums = b.loop_(0, unrolled, SUMS as i64, sums, step(SUMS));
                    b.loop_(unrolled, pixels, 1, &sums, step(1))
                })
            });
            let (low, high) = (b.add(sums[0], sums[1]), b.add(sums[2], sums[3]));
            let sum = b.add(low, high);
            vec![b.add(total[0], sum)]
        });
        total[0]
    }
}

/// The vector of channels of a block that is summed.
#[derive(Clone, Copy)]
struct Here {
    ty: Type,
    /// Channels of the block.
    width: usize,
    /// The first image's, at this vector.
    x: Value,
    dy: Value,
    images: [Value; 2],
}
