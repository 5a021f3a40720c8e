//! Depthwise and narrow grouped convolution on blocked values: a vector is channels, every lane its own filter.
//!
//! ```text
//! task (image, block of channels, chunk of rows);  for each vector of the block, for each tile of a row
//!   acc[px] = bias
//!   for kd, kh (clipped to the input)
//!     weights of the row of taps are held; each input vector is loaded once and used by every tap that reaches it
//!     acc[px] += w[kw] * x[px * stride + kw * dilation]
//!   y = epilogue(acc)
//! ```
//!
//! Groups of g = 2, 4 or 8 channels lie whole in a block. Each lane then adds g products, of the g inputs of its group:
//!
//! ```text
//! g = 4, lanes     0 1 2 3 | 4 5 6 7 | ..      input j = 1 of each lane     1 1 1 1 | 5 5 5 5 | ..     one shuffle for all taps
//!     acc[px] += w[kw][j] * shuffled(x[px * stride + kw * dilation], j)
//! ```
//!
//! Where a vector is no wider than a group, input j is the same for all lanes: a broadcasting load. No product with a zero
//! is ever added, as a block-diagonal matrix would: a NaN or an infinity stays in its group.
//!
//! Registers: pixels + kw held weights + 1 input. A row of 3 taps and 8 pixels: 10 loads for 24 multiply-adds, so that the
//! template is bound by them or by memory, not by loads. With more taps than registers allow, weights are loaded at their use.
//! Needs: as many output as input channels in a group, a divisor of 16.

use super::{Conv, Operands};
use crate::cost;
use crate::kernels::bands::Band;
use crate::kernels::epilogue::Site;
use crate::kernels::isa_name;
use crate::kernels::window::{Run, along, div_rem, first_line, full_or_edge, line_at, line_place};
use crate::kir::{ArgDecl, Builder, Elem, Kernel, Type, Value};
use crate::target::Target;
use crate::tunable::{self, Candidates, Choice, Tunable, ranked};
use nncc_ir::{BLOCK, padded_channels};

tunable::counted! {
    /// The pixels of a row that are in registers at a time: what may differ without changing a bit. As text `strip 14`.
    Strip {
        /// So many; the last of a row may have fewer.
        pixels
    } = "strip", "strip of pixels such as `strip 14`"
}

/// A convolution of narrow groups with everything chosen; all blocked.
#[derive(Clone, Debug)]
pub struct Depthwise<'a> {
    target: &'a Target,
    conv: Conv,
    pixels: usize,
    rows: usize,
}

impl<'a> Depthwise<'a> {
    /// Chooses tile and tasks.
    pub fn new(target: &'a Target, conv: &Conv) -> Depthwise<'a> {
        Depthwise::with_strip(target, conv, None)
    }

    /// The same with a strip from elsewhere, if registers hold it.
    pub fn with_strip(target: &'a Target, conv: &Conv, strip: Option<Strip>) -> Depthwise<'a> {
        let taps = conv.axes[2].taps * conv.inputs;
        let free = free_registers(target, conv);
        let held = if taps + 4 <= free { taps } else { 1 };
        let row = conv.axes[2].outputs.max(1);
        let pixels = match strip.filter(|s| s.pixels < free) {
            Some(strip) => strip.pixels.min(row),
            // More than 14 pixels no longer save loads that matter and only grow the code.
            None => (free - held).min(14).min(row),
        };
        let blocks = conv.batch * (conv.groups * conv.inputs).div_ceil(BLOCK);
        let rows = conv.axes[0].outputs * conv.axes[1].outputs;
        // A task is worth starting for some 16 thousand multiply-adds of a vector.
        let a_row = (conv.axes[2].outputs * conv.taps() * conv.inputs * BLOCK).max(1);
        let wanted = (32usize).div_ceil(blocks.max(1));
        let rows = rows.div_ceil(wanted).max((1usize << 14).div_ceil(a_row)).min(rows.max(1));
        Depthwise { target, conv: conv.clone(), pixels, rows: rows.max(1) }
    }

    /// What a tuner sees of a layer with this signature.
    pub fn tunable(&self, signature: String) -> Tunable {
        Tunable::new(signature, self.strip(), Layer { conv: self.conv.clone() })
    }

    /// The pixels in registers.
    pub fn strip(&self) -> Strip {
        Strip { pixels: self.pixels }
    }

    fn channels(&self) -> usize {
        self.conv.groups * self.conv.inputs
    }

    fn row_count(&self) -> usize {
        self.conv.axes[0].outputs * self.conv.axes[1].outputs
    }

    fn chunks(&self) -> usize {
        self.row_count().div_ceil(self.rows)
    }

    fn blocks(&self) -> usize {
        self.channels().div_ceil(BLOCK)
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        let empty = self.conv.axes.iter().any(|a| a.outputs == 0);
        if empty { 0 } else { self.conv.batch * self.blocks() * self.chunks() }
    }

    /// Scratch bytes of a thread.
    pub fn scratch(&self) -> usize {
        if self.conv.epilogue.is_long() { self.pixels * 64 } else { 0 }
    }

    /// Is the kernel within the size that this template is meant for?
    pub fn is_small(&self) -> bool {
        let runs = self.conv.axes[2].runs(self.pixels);
        let body = |run: &Run| run.taps.iter().map(|g| g.taps.len() * (2 * g.pixels.len() + 1)).sum::<usize>();
        let edge = 1 + usize::from(!padded_channels(self.channels()).is_multiple_of(BLOCK));
        let bytes = runs.iter().map(body).sum::<usize>() * self.conv.inputs * 8 * edge;
        let plane = 4 * BLOCK * self.conv.axes[2].inputs.max(self.conv.axes[2].out_extent);
        bytes <= 24 * 1024 && plane < 1 << 30
    }

    /// The kernel's name.
    pub(crate) fn name(&self) -> String {
        let (shape, isa) = (self.conv.shape_name(), isa_name(self.target));
        let kind = if self.conv.inputs == 1 { "dwconv".into() } else { format!("conv_g{}", self.conv.inputs) };
        format!("f32_{kind}_{shape}__{isa}_1x{}", self.pixels)
    }

    /// The kernel. Operands: x, w, bias (if there is one), the epilogue's extras, y.
    pub fn kernel(&self) -> Kernel {
        let args = self.conv.arguments(&["x", "w"], ArgDecl::write("y", 4));
        let mut b = Builder::new(self.name(), args);
        let operands = Operands::of_args(&b, self.conv.bias, self.conv.epilogue.extras.len());
        b.tasks(|b, task| {
            let (rest, chunk) = div_rem(b, task, self.chunks());
            let (image, block) = div_rem(b, rest, self.blocks());
            let lo = b.mul_imm(chunk, self.rows as i64);
            let hi = b.add_imm(lo, self.rows as i64);
            let all = b.i64(self.row_count() as i64);
            let hi = b.min_s(hi, all);
            let band = Band::of_whole(b, image, [lo, hi]);
            self.block(b, &operands, &band, block);
        });
        b.finish()
    }

    /// Inside of another kernel: all channels of a band.
    pub(crate) fn band(&self, b: &mut Builder, operands: &Operands, band: &Band) {
        b.for_(0, self.blocks(), 1, |b, block| self.block(b, operands, band, block));
    }

    /// What is convolved.
    pub(crate) fn conv(&self) -> &Conv {
        &self.conv
    }

    /// A band of one block of channels.
    fn block(&self, b: &mut Builder, operands: &Operands, band: &Band, block: Value) {
        let edge = padded_channels(self.channels()) - self.channels() / BLOCK * BLOCK;
        // An edge may be as wide as the others.
        let full = if edge == BLOCK { self.blocks() } else { self.channels() / BLOCK };
        full_or_edge(b, block, full, self.blocks(), |b, is_full| {
            self.rows(b, operands, band, block, if is_full { BLOCK } else { edge });
        });
    }

    /// The rows of a band, in a block of `width` channels.
    fn rows(&self, b: &mut Builder, operands: &Operands, band: &Band, block: Value, width: usize) {
        let conv = &self.conv;
        let [depth, height, row] = &conv.axes;
        let padded = padded_channels(self.channels());
        let image_base = |b: &mut Builder, image: Value, plane: usize| {
            let image = b.mul_imm(image, (padded * plane * 4) as i64);
            let block = b.mul_imm(block, (BLOCK * plane * 4) as i64);
            b.add(image, block)
        };
        let x_base = image_base(b, band.images[0], conv.input_plane());
        let x = b.ptr(operands.x.at(0).idx(x_base, 1));
        let y = image_base(b, band.images[1], conv.output_plane());
        let w = along(b, operands.w, block, BLOCK * conv.taps() * conv.inputs * 4);
        let channel = b.mul_imm(block, BLOCK as i64);
        let [lo, hi] = band.rows;
        let lanes = self.target.lanes(Elem::F32).min(width);
        b.for_(lo, hi, 1, |b, r| {
            let (od, oh) = line_at(b, depth, height, r);
            let bounds = [depth.tap_bounds(b, od), height.tap_bounds(b, oh)];
            let line = first_line(b, depth, height, [od, oh]);
            let line = b.sub(line, band.first[0]);
            let input = b.mul_imm(line, (row.inputs * width * 4) as i64);
            let x = b.ptr(x.at(0).idx(input, 1));
            let line = line_place(b, depth, height, [od, oh]);
            let line = b.sub(line, band.first[1]);
            let output = b.mul_imm(line, (row.out_extent * width * 4) as i64);
            let y = b.add(y, output);
            // The vectors of a block share rows in L1.
            b.for_(0, width, lanes as i64, |b, lane| {
                let lane_bytes = b.mul_imm(lane, 4);
                // A vector that is part of a group reads all of the group.
                let first_input = match conv.inputs {
                    group if group > lanes => {
                        let (number, _) = div_rem(b, lane, group);
                        b.mul_imm(number, (group * 4) as i64)
                    }
                    _ => lane_bytes,
                };
                let here = Here {
                    ty: Type::of(Elem::F32, lanes),
                    width,
                    x: b.ptr(x.at(0).idx(first_input, 1)),
                    w: b.ptr(w.at(0).idx(lane_bytes, 1)),
                    y: b.add(y, lane_bytes),
                    channel: b.add(channel, lane),
                    image: band.image,
                };
                for run in row.runs(self.pixels) {
                    b.for_(0, run.count, 1, |b, i| {
                        let first = b.mul_imm(i, run.width as i64);
                        let first = b.add_imm(first, run.start as i64);
                        self.tile(b, operands, &here, bounds, &run, first);
                    });
                }
            });
        });
    }

    fn tile(
        &self,
        b: &mut Builder,
        operands: &Operands,
        here: &Here,
        bounds: [(crate::kir::Index, crate::kir::Index); 2],
        run: &Run,
        first: Value,
    ) {
        let [depth, height, row] = &self.conv.axes;
        let pitch = here.width * 4;
        let column = row.first_input(b, first);
        let x = b.ptr(here.x.at(0).idx(column, pitch));
        let init = match operands.bias {
            Some(bias) => b.load(here.ty, bias.at(0).idx(here.channel, 4)),
            None => b.zero(here.ty),
        };
        let sums = vec![init; run.width];
        let [(d0, d1), (h0, h1)] = bounds;
        let (row_bytes, row_weights) = (row.inputs * pitch, row.taps * self.conv.inputs * pitch);
        let sums = b.loop_(d0, d1, 1, &sums, |b, kd, sums| {
            let x = b.ptr(x.at(0).idx(kd, depth.dilation * height.inputs * row_bytes));
            let w = along(b, here.w, kd, height.taps * row_weights);
            b.loop_(h0, h1, 1, sums, |b, kh, sums| {
                let x = b.ptr(x.at(0).idx(kh, height.dilation * row_bytes));
                let w = along(b, w, kh, row_weights);
                self.taps(b, here, run, x, w, sums.to_vec())
            })
        });
        let out_column = row.place(b, first);
        let out_column = b.mul_imm(out_column, pitch as i64);
        let at = b.add(here.y, out_column);
        self.finish(b, operands, here, &sums, at, row.out_step * pitch);
    }

    /// One row of taps: inputs in order, each used by all taps that reach it.
    fn taps(&self, b: &mut Builder, here: &Here, run: &Run, x: Value, w: Value, mut sums: Vec<Value>) -> Vec<Value> {
        let (row, group) = (&self.conv.axes[2], self.conv.inputs);
        let pitch = (here.width * 4) as i64;
        let hold = row.taps * group + 1 + self.pixels < self.target.vector_regs;
        let mut weights: Vec<Option<Value>> = vec![None; row.taps * group];
        // (input column relative to the tile, tap, pixel)
        let mut uses: Vec<(usize, usize, usize)> = Vec::new();
        for taps in &run.taps {
            for tap in taps.taps.clone() {
                uses.extend(taps.pixels.clone().map(|px| (px * row.stride + tap * row.dilation, tap, px)));
            }
        }
        uses.sort_unstable();
        for column in uses.chunk_by(|a, b| a.0 == b.0) {
            let at = column[0].0 as i64 * pitch;
            let whole = (group <= here.ty.lanes()).then(|| b.load(here.ty, x.at(at)));
            for j in 0..group {
                let input = match whole {
                    Some(v) if group == 1 => v,
                    Some(v) => {
                        let of_group: Vec<usize> = (0..here.ty.lanes()).map(|lane| lane / group * group + j).collect();
                        b.shuffle(v, v, &of_group)
                    }
                    None => b.load_splat(here.ty, x.at(at + j as i64 * 4)),
                };
                for &(_, tap, px) in column {
                    let number = tap * group + j;
                    let weight = match weights[number] {
                        Some(v) if hold => v,
                        _ => b.load(here.ty, w.at(number as i64 * pitch)),
                    };
                    weights[number] = Some(weight);
                    sums[px] = b.mul_add(weight, input, sums[px]);
                }
            }
        }
        sums
    }

    fn finish(&self, b: &mut Builder, operands: &Operands, here: &Here, sums: &[Value], at: Value, step: usize) {
        let epilogue = &self.conv.epilogue;
        let (y, extras) = (operands.y, &operands.extras);
        let site =
            |same: (Value, i64)| Site { same, image: here.image, channel: (here.channel, 0), count: here.ty.lanes() };
        if !epilogue.is_long() {
            for (px, &sum) in sums.iter().enumerate() {
                let disp = (px * step) as i64;
                let result = epilogue.apply(b, sum, extras, &site((at, disp)));
                b.store(y.at(disp).idx(at, 1), result);
            }
            return;
        }
        let scratch = b.scratch();
        for (px, &sum) in sums.iter().enumerate() {
            b.store(scratch.at(px as i64 * 64), sum);
        }
        b.for_(0, sums.len(), 1, |b, px| {
            let sum = b.load(here.ty, scratch.at(0).idx(px, 64));
            let along = b.mul_imm(px, step as i64);
            let at = b.add(at, along);
            let result = epilogue.apply(b, sum, extras, &site((at, 0)));
            b.store(y.at(0).idx(at, 1), result);
        });
    }
}

/// Registers for sums and weights: all but one input and its shuffled copy, one moved operand where multiplication and addition
/// are two instructions, one for the backend's moves.
fn free_registers(target: &Target, conv: &Conv) -> usize {
    target.vector_regs - 2 - usize::from(conv.inputs > 1) - usize::from(!target.fma)
}

/// A layer as a tuner sees it.
#[derive(Clone, Debug)]
struct Layer {
    conv: Conv,
}

impl Candidates for Layer {
    /// A row in equal strips, as wide as registers allow with weights held or loaded at their use. Sums are the same.
    fn candidates(&self, target: &Target, most: usize) -> Vec<Choice> {
        let own = Depthwise::new(target, &self.conv);
        let row = self.conv.axes[2].outputs.max(1);
        let widest = free_registers(target, &self.conv) - 1;
        let other = |pixels: usize| {
            let depthwise = Depthwise::with_strip(target, &self.conv, Some(Strip { pixels: pixels.min(widest) }));
            let cycles = || cost::of_kernel(&depthwise.kernel(), target, depthwise.tasks() as u64, &|_| None);
            depthwise.is_small().then(|| (cycles() as f64, depthwise.strip()))
        };
        let widths = row.div_ceil(widest)..=row.div_ceil(2);
        ranked(own.strip(), widths.map(|strips| row.div_ceil(strips)).filter_map(other), most)
    }
}

/// The vector of channels that is computed.
struct Here {
    ty: Type,
    /// Channels of the block.
    width: usize,
    /// The row of the input that tap 0 reads, at this vector or at the first channel of its group.
    x: Value,
    w: Value,
    /// Bytes from the output's base to the row, at this vector.
    y: Value,
    channel: Value,
    image: Value,
}
