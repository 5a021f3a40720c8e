//! Weight gradients of dense convolutions: a tile of output channels by input channels stays in registers for many pixels.
//!
//! ```text
//! x  [N][C/16][D][H][W][16] or planar        dy  [N][M/16][OD][OH][OW][16]        dw  panels [M/16][C/16][tap][16 c][16 m]
//!
//! for task (part of the images, group of panels of m, block of c)
//!   dw = 0
//!   for chunk of rows (and images, of small maps)                     x and dy of a chunk stay in L1 for all taps
//!     for kd, kh, tile of kw, tile of the block's channels
//!       acc = 0
//!       for image, row (clipped to what the tap reaches), pixel   acc[v][kw][c] += dy[pixel][v] * x[pixel * stride + kw][c]
//!       dw[tap][c][v] += acc
//! ```
//!
//! Registers: with `v` vectors of output channels and `q` input channels, `v * q` accumulators, `v` vectors of dy held for a
//! pixel, one input. With 16 lanes two panels by 8 channels: 10 loads for 16 multiply-adds; with 8 lanes one panel by 5 or 6:
//! 7 for 10. Where x has few channels (a first layer has 1 or 3), a tile has several taps of a row: pixels that all of them
//! reach are summed for all at once, those at the ends of a row for each tap alone. Where even these are too few
//! accumulators to hide the latency of a multiply-add, neighbouring pixels have accumulators of their own. Chunks sum from zero
//! and are added as a whole: the error of a sum grows with the pixels of a chunk and the number of chunks, not with their product.

use super::products::{accumulators, add_products, scalars};
use super::{Chunk, Parts, Problem, UNROLL, equal_runs, flattened, input_of, outputs_of_tap};
use crate::kernels::conv::tile::{Splat, splat};
use crate::kernels::conv::{Segment, Source, panel_widths, segments};
use crate::kernels::isa_name;
use crate::kernels::window::{Axis, balanced, div_rem, full_or_edge};
use crate::kir::{Addr, ArgDecl, BinaryOp, Builder, Elem, IntCc, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::{BLOCK, padded_channels};
use std::ops::Range;

/// Pixels of a row of a flattened plane: enough to make little of what a row costs of its own.
const LONGEST_ROW: usize = 128;

/// Multiply-adds that a core with two FMA ports and a latency of four has under way.
const UNDER_WAY: usize = 8;

/// A weight gradient with everything chosen.
#[derive(Clone, Debug)]
pub struct Dense<'a> {
    target: &'a Target,
    problem: Problem,
    segments: Vec<Segment>,
    splat: Splat,
    /// Panels of a tile.
    panels: usize,
    /// The most input channels of a tile.
    channels: usize,
    /// The most accumulators of each vector of output channels.
    accumulators: usize,
    parts: Parts,
    chunk: Chunk,
}

impl<'a> Dense<'a> {
    /// Chooses tile, chunks and the split of the sum.
    pub fn new(target: &'a Target, problem: &Problem) -> Dense<'a> {
        let problem = Problem { axes: flattened(&problem.axes, LONGEST_ROW), ..problem.clone() };
        let segments = segments(problem.inputs, problem.input_plane(), problem.source);
        let splat = splat(target, segments.first().map_or(1, |s| s.channel_pitch));
        let lanes = target.lanes(Elem::F32).min(BLOCK);
        let panels = if lanes == BLOCK { panel_widths(problem.outputs).len().clamp(1, 2) } else { 1 };
        let vectors = panels * BLOCK / lanes;
        let accumulators = accumulators(target, vectors);
        let channels = scalars(splat, accumulators, BLOCK);
        let [_, height, width] = &problem.axes;
        let row_bytes = 4 * BLOCK * (width.outputs * panels + height.stride * width.inputs);
        let chunk = Chunk::of(target, &problem.axes, row_bytes);
        let parts = Parts { images: 1, count: 1 };
        let mut dense = Dense { target, segments, splat, panels, channels, accumulators, parts, chunk, problem };
        dense.parts = Parts::of(dense.problem.batch, dense.tasks_of_a_part(), dense.problem.macs());
        dense
    }

    fn panel_groups(&self) -> usize {
        panel_widths(self.problem.outputs).len().div_ceil(self.panels)
    }

    fn blocks(&self) -> usize {
        self.problem.inputs.div_ceil(BLOCK)
    }

    fn tasks_of_a_part(&self) -> usize {
        self.problem.groups * self.panel_groups() * self.blocks()
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        if self.problem.taps() == 0 { 0 } else { self.parts.count * self.tasks_of_a_part() }
    }

    /// How many panels of sums it writes, one behind the other.
    pub fn parts(&self) -> usize {
        self.parts.count
    }

    /// Are all displacements within their 32 bits?
    pub fn is_small(&self) -> bool {
        let p = &self.problem;
        let pitch =
            self.segments.iter().map(|s| s.channel_pitch.max(s.pixel_pitch * p.axes[2].stride)).max().unwrap_or(1);
        4 * BLOCK * pitch < 1 << 30 && 4 * BLOCK * self.panels * p.output_plane().max(p.inputs * p.taps()) < 1 << 30
    }

    /// The kernel. Operands: x, dy, the panels of all parts.
    pub fn kernel(&self) -> Kernel {
        let args = vec![ArgDecl::read("x", 4), ArgDecl::read("dy", 4), ArgDecl::read_write("dw", 64)];
        let taps: Vec<String> = self.problem.axes.iter().map(|a| a.taps.to_string()).collect();
        let (taps, isa) = (taps.join("x"), isa_name(self.target));
        let name = format!("f32_conv_weights_{taps}__{isa}_{}x{}", self.panels * BLOCK, self.channels);
        let mut b = Builder::new(name, args);
        let widths = panel_widths(self.problem.outputs);
        let full = widths.iter().filter(|&&w| w == BLOCK).count() / self.panels;
        let full_blocks = self.problem.inputs / BLOCK;
        b.tasks(|b, task| {
            let (rest, block) = div_rem(b, task, self.blocks());
            let (rest, panel_group) = div_rem(b, rest, self.panel_groups());
            let (part, group) = div_rem(b, rest, self.problem.groups);
            let at = TaskAt { part, group, panel_group, block };
            full_or_edge(b, at.panel_group, full, self.panel_groups(), |b, is_full| {
                let widths = if is_full { &widths[..self.panels] } else { &widths[full * self.panels..] };
                full_or_edge(b, at.block, full_blocks, self.blocks(), |b, is_full| {
                    let segment = if is_full { self.segments.first() } else { self.segments.last() };
                    if let Some(segment) = segment {
                        self.task(b, &at, widths, segment);
                    }
                });
            });
        });
        b.finish()
    }

    fn task(&self, b: &mut Builder, at: &TaskAt, widths: &[usize], segment: &Segment) {
        let p = &self.problem;
        let rows = p.inputs * p.taps();
        let [panel_elems, plane] = [BLOCK * rows, p.output_plane()];
        // Where the panels of sums of this task begin.
        let part = b.mul_imm(at.part, p.stored() as i64);
        let group = b.mul_imm(at.group, (padded_channels(p.outputs) * rows) as i64);
        let first_panel = b.mul_imm(at.panel_group, self.panels as i64);
        let panel = b.mul_imm(first_panel, panel_elems as i64);
        let base = b.add(part, group);
        let base = b.add(base, panel);
        let dw = b.ptr(b.arg(2).at(0).idx(base, 4));
        let panels: Vec<Panel> = widths
            .iter()
            .enumerate()
            .map(|(i, &width)| {
                let sums = b.ptr(dw.at((i * panel_elems * 4) as i64).idx(at.block, BLOCK * p.taps() * width * 4));
                Panel { width, sums, dy: (i * BLOCK * plane * 4) as i64 }
            })
            .collect();
        for panel in &panels {
            let lanes = self.target.lanes(Elem::F32).min(panel.width);
            let ty = Type::of(Elem::F32, lanes);
            let zero = b.zero(ty);
            b.for_(0, p.taps() * segment.channels * panel.width, lanes as i64, |b, i| {
                b.store(panel.sums.at(0).idx(i, 4), zero);
            });
        }
        // The channels of x, and dy's.
        let blocks = b.mul_imm(at.group, p.inputs.div_ceil(BLOCK) as i64);
        let blocks = b.add(blocks, at.block);
        let x = b.ptr(b.arg(0).at(0).idx(blocks, segment.block_pitch * 4));
        let channel = b.mul_imm(at.group, p.outputs as i64);
        let first = b.mul_imm(first_panel, BLOCK as i64);
        let channel = b.add(channel, first);
        let dy = b.ptr(b.arg(1).at(0).idx(channel, plane * 4));
        let walk = Walk { x, dy, panels: &panels, segment };
        let lo = b.mul_imm(at.part, self.parts.images as i64);
        let hi = b.add_imm(lo, self.parts.images as i64);
        let batch = b.i64(p.batch as i64);
        let hi = b.min_s(hi, batch);
        let [depth, height, _] = &p.axes;
        b.for_(lo, hi, self.chunk.images as i64, |b, first_image| {
            let end = b.add_imm(first_image, self.chunk.images as i64);
            let end = b.min_s(end, hi);
            b.for_(0, depth.outputs, 1, |b, od| {
                b.for_(0, height.outputs, self.chunk.rows as i64, |b, first_row| {
                    let end_row = b.add_imm(first_row, self.chunk.rows as i64);
                    self.chunk(b, &walk, [first_image, end], od, [first_row, end_row]);
                });
            });
        });
    }

    /// All taps and channels of some rows of some images.
    fn chunk(&self, b: &mut Builder, walk: &Walk<'_>, images: [Value; 2], od: Value, rows: [Value; 2]) {
        let [depth, height, width] = &self.problem.axes;
        b.for_(0, depth.taps, 1, |b, kd| {
            let id = input_of(b, depth, od, kd);
            let (zero, inputs) = (b.i64(0), b.i64(depth.inputs as i64));
            let (above, below) = (b.icmp(IntCc::GeS, id, zero), b.icmp(IntCc::LtS, id, inputs));
            let inside = b.and(above, below);
            let end = b.select(inside, images[1], images[0]);
            b.for_(0, height.taps, 1, |b, kh| {
                let [lo, hi] = outputs_of_tap(b, height, kh);
                let span = [b.max_s(lo, rows[0]), b.min_s(hi, rows[1])];
                let sizes: Vec<usize> = balanced(walk.segment.channels, self.channels).collect();
                let taps = self.taps_of_a_tile(sizes.iter().copied().max().unwrap_or(1));
                equal_runs(b, balanced(width.taps, taps), |b, kw, taps| {
                    let tap = b.mul_imm(kd, height.taps as i64);
                    let tap = b.add(tap, kh);
                    let tap = b.mul_imm(tap, width.taps as i64);
                    let tap = b.add(tap, kw);
                    let spans = spans(b, width, kw, taps);
                    let here = TapAt { images: [images[0], end], id, od, kh, kw, rows: span, taps, spans, tap };
                    equal_runs(b, sizes.iter().copied(), |b, c, count| self.tile(b, walk, &here, c, count));
                });
            });
        });
    }

    /// How many taps of a row a tile of so many input channels has.
    fn taps_of_a_tile(&self, channels: usize) -> usize {
        match self.splat {
            Splat::Load => (self.accumulators / channels).clamp(1, self.problem.axes[2].taps.max(1)),
            // Quads of channels fill the registers.
            Splat::Lane => 1,
        }
    }

    /// The sums of `count` input channels from `c` on, over all pixels of a chunk.
    fn tile(&self, b: &mut Builder, walk: &Walk<'_>, at: &TapAt, c: Value, count: usize) {
        let p = &self.problem;
        let [_, height, width] = &p.axes;
        let Walk { segment, panels, .. } = walk;
        let vectors = self.vectors(panels);
        let tile = Tile { vectors: &vectors, segment, taps: at.taps, count };
        // Neighbouring pixels have sums of their own where there are registers for it.
        let spare = self.accumulators * vectors.len() / tile.sums();
        let copies = if tile.sums() >= UNDER_WAY { 1 } else { UNDER_WAY.div_ceil(tile.sums()).min(spare).min(UNROLL) };
        let copies = (1..=copies).rev().find(|n| UNROLL.is_multiple_of(*n)).unwrap_or(1);
        let types: Vec<Type> = vectors.iter().flat_map(|v| std::iter::repeat_n(v.ty, tile.taps * count)).collect();
        let zeros: Vec<Value> = types.repeat(copies).into_iter().map(|ty| b.zero(ty)).collect();
        let x = b.ptr(walk.x.at(0).idx(c, segment.channel_pitch * 4));
        let (input_image, output_image) = match p.source {
            Source::Planar => (p.groups * p.inputs, padded_channels(p.groups * p.outputs)),
            _ => (padded_channels(p.groups * p.inputs), padded_channels(p.groups * p.outputs)),
        };
        let lengths: Vec<[Value; 2]> = at.spans.iter().map(|span| span.lengths(b)).collect();
        let sums = b.loop_(at.images[0], at.images[1], 1, &zeros, |b, image, sums| {
            let x = b.ptr(x.at(0).idx(image, input_image * p.input_plane() * 4));
            let dy = b.ptr(walk.dy.at(0).idx(image, output_image * p.output_plane() * 4));
            b.loop_(at.rows[0], at.rows[1], 1, sums, |b, row, sums| {
                let input_row = input_of(b, height, row, at.kh);
                let input_row = {
                    let depth = b.mul_imm(at.id, height.inputs as i64);
                    let input = b.add(depth, input_row);
                    b.mul_imm(input, width.inputs as i64)
                };
                let output_row = {
                    let depth = b.mul_imm(at.od, height.outputs as i64);
                    let output = b.add(depth, row);
                    b.mul_imm(output, width.outputs as i64)
                };
                let mut sums = sums.to_vec();
                for (span, &[unrolled, pixels]) in at.spans.iter().zip(&lengths) {
                    let kw = b.add_imm(at.kw, span.taps.start as i64);
                    let column = input_of(b, width, span.columns[0], kw);
                    let input = b.add(input_row, column);
                    let x = b.ptr(x.at(0).idx(input, segment.pixel_pitch * 4));
                    let output = b.add(output_row, span.columns[0]);
                    let dys = panels.iter().map(|panel| b.ptr(dy.at(panel.dy).idx(output, panel.width * 4))).collect();
                    let here = Row { tile: &tile, taps: span.taps.clone(), x, dys };
                    sums = self.span(b, &here, [unrolled, pixels], &sums);
                }
                sums
            })
        });
        let (sums, copies) = sums.split_at(tile.sums());
        for (v, vector) in vectors.iter().enumerate() {
            let panel = &panels[vector.panel];
            let row = b.mul_imm(at.tap, segment.channels as i64);
            let row = b.add(row, c);
            let place = b.ptr(panel.sums.at(vector.lane_bytes).idx(row, panel.width * 4));
            for tap in 0..tile.taps {
                for i in 0..count {
                    let at = tile.index(v, tap, i);
                    let copies = copies.chunks(tile.sums()).map(|copy| copy[at]);
                    let sum = copies.fold(sums[at], |sum, copy| b.add(sum, copy));
                    let disp = ((tap * segment.channels + i) * panel.width * 4) as i64;
                    let before = b.load(vector.ty, place.at(disp));
                    let sum = b.add(before, sum);
                    b.store(place.at(disp), sum);
                }
            }
        }
    }

    /// The products of a span of a row: its pixels in groups of [`UNROLL`] up to `unrolled`, then one by one.
    fn span(&self, b: &mut Builder, row: &Row<'_>, [unrolled, pixels]: [Value; 2], sums: &[Value]) -> Vec<Value> {
        // A span of some taps carries the sums of these alone, and one that is not unrolled those of one copy.
        let own: Vec<usize> = (0..row.tile.vectors.len())
            .flat_map(|v| row.taps.clone().flat_map(move |tap| (0..row.tile.count).map(move |c| (v, tap, c))))
            .map(|(v, tap, c)| row.tile.index(v, tap, c))
            .collect();
        let mut all = sums.to_vec();
        let mut carried = |b: &mut Builder, indices: &[usize], range: [Value; 2], step: usize| {
            let start: Vec<Value> = indices.iter().map(|&i| all[i]).collect();
            let end = b.loop_(range[0], range[1], step as i64, &start, |b, i, carried| {
                let mut sums = all.clone();
                indices.iter().zip(carried).for_each(|(&i, &sum)| sums[i] = sum);
                let sums = self.pixels(b, row, i, step, &sums);
                indices.iter().map(|&i| sums[i]).collect::<Vec<_>>()
            });
            indices.iter().zip(end).for_each(|(&i, sum)| all[i] = sum);
        };
        let zero = b.i64(0);
        if row.taps.len() == row.tile.taps {
            carried(b, &(0..sums.len()).collect::<Vec<_>>(), [zero, unrolled], UNROLL);
            carried(b, &own, [unrolled, pixels], 1);
            return all;
        }
        match b.known(pixels) {
            Some(n) if (0..=UNROLL as i64).contains(&n) => self.pixels(b, row, zero, n as usize, sums),
            _ => {
                carried(b, &own, [zero, pixels], 1);
                all
            }
        }
    }

    /// The products of `unroll` pixels from pixel `i` of a span on, added to the sums, which may have several copies.
    fn pixels(&self, b: &mut Builder, row: &Row<'_>, i: Value, unroll: usize, sums: &[Value]) -> Vec<Value> {
        let Row { tile, .. } = row;
        let stride = self.problem.axes[2].stride * tile.segment.pixel_pitch * 4;
        let x = b.ptr(row.x.at(0).idx(i, stride));
        let mut widths = vec![BLOCK; row.dys.len()];
        tile.vectors.iter().for_each(|v| widths[v.panel] = v.width);
        let dys: Vec<Value> = row.dys.iter().zip(widths).map(|(dy, w)| b.ptr(dy.at(0).idx(i, w * 4))).collect();
        let mut sums = sums.to_vec();
        let copies = sums.len() / tile.sums();
        for pixel in 0..unroll {
            let held: Vec<Value> = tile
                .vectors
                .iter()
                .map(|v| b.load(v.ty, dys[v.panel].at((pixel * v.width * 4) as i64 + v.lane_bytes)))
                .collect();
            let copy = &mut sums[pixel % copies * tile.sums()..][..tile.sums()];
            self.products(b, row, x.at((pixel * stride) as i64), &held, copy);
        }
        sums
    }

    /// The products of one pixel: its vectors of dy, which are held, by its channels of x at each tap.
    fn products(&self, b: &mut Builder, row: &Row<'_>, x: Addr, held: &[Value], sums: &mut [Value]) {
        let Row { tile, taps, .. } = row;
        let tap_pitch = self.problem.axes[2].dilation * tile.segment.pixel_pitch;
        let elem = |tap: usize, c: usize| (tap - taps.start) * tap_pitch + c * tile.segment.channel_pitch;
        let of_tap = |tap: usize| (0..tile.count).map(move |c| x.plus((elem(tap, c) * 4) as i64));
        let scalars: Vec<Addr> = taps.clone().flat_map(of_tap).collect();
        let place = |v: usize, i: usize| tile.index(v, taps.start + i / tile.count, i % tile.count);
        add_products(b, self.splat, held, (&scalars, tile.count), sums, place);
    }

    /// The vectors of a tile's panels.
    fn vectors(&self, panels: &[Panel]) -> Vec<Lanes> {
        let of = |(number, panel): (usize, &Panel)| {
            let lanes = self.target.lanes(Elem::F32).min(panel.width);
            let (ty, width) = (Type::of(Elem::F32, lanes), panel.width);
            (0..width / lanes).map(move |i| Lanes { ty, panel: number, width, lane_bytes: (i * lanes * 4) as i64 })
        };
        panels.iter().enumerate().flat_map(of).collect()
    }
}

struct TaskAt {
    part: Value,
    group: Value,
    panel_group: Value,
    block: Value,
}

/// What is the same for a task.
struct Walk<'t> {
    /// The first image's block of channels.
    x: Value,
    /// The first image's panels.
    dy: Value,
    panels: &'t [Panel],
    segment: &'t Segment,
}

/// A panel of sums: 16 output channels, or 8.
struct Panel {
    width: usize,
    /// Where its sums of this block of input channels lie.
    sums: Value,
    /// Bytes from the first panel's dy.
    dy: i64,
}

/// A vector of a panel.
#[derive(Clone, Copy)]
struct Lanes {
    ty: Type,
    panel: usize,
    width: usize,
    lane_bytes: i64,
}

/// What is summed at once.
struct Tile<'t> {
    vectors: &'t [Lanes],
    segment: &'t Segment,
    /// Taps of a row.
    taps: usize,
    /// Input channels.
    count: usize,
}

impl Tile<'_> {
    /// How many vectors of sums.
    fn sums(&self) -> usize {
        self.vectors.len() * self.taps * self.count
    }

    /// The sum of a vector of output channels, a tap and an input channel.
    fn index(&self, vector: usize, tap: usize, channel: usize) -> usize {
        (vector * self.taps + tap) * self.count + channel
    }
}

/// A span of a row of pixels of a tile.
struct Row<'t> {
    tile: &'t Tile<'t>,
    /// The taps that count.
    taps: Range<usize>,
    /// What the first of them reads for the first pixel.
    x: Value,
    /// The first pixel of each panel.
    dys: Vec<Value>,
}

/// Neighbouring taps of a row, and the pixels of a chunk that they reach.
struct TapAt {
    images: [Value; 2],
    /// The input's depth.
    id: Value,
    od: Value,
    kh: Value,
    /// The first tap in its row, and how many.
    kw: Value,
    taps: usize,
    rows: [Value; 2],
    spans: Vec<Span>,
    /// The first tap among all.
    tap: Value,
}

/// Pixels of a row that some taps of a tile reach.
struct Span {
    taps: Range<usize>,
    columns: [Value; 2],
}

impl Span {
    /// The number of its pixels, rounded down to whole groups and as it is.
    fn lengths(&self, b: &mut Builder) -> [Value; 2] {
        if let [Some(from), Some(to)] = self.columns.map(|c| b.known(c)) {
            let pixels = to - from;
            return [pixels - pixels % UNROLL as i64, pixels].map(|n| b.i64(n));
        }
        let pixels = b.sub(self.columns[1], self.columns[0]);
        let mask = b.i64(-(UNROLL as i64));
        [b.binary(BinaryOp::And, pixels, mask), pixels]
    }
}

/// The pixels that all of `taps` taps from `kw` on reach; then for each tap those that it reaches to the left and to the right.
fn spans(b: &mut Builder, width: &Axis, kw: Value, taps: usize) -> Vec<Span> {
    match b.known(kw) {
        Some(kw) => known_spans(b, width, kw as usize, taps),
        None => computed_spans(b, width, kw, taps),
    }
}

/// Where all taps of a row are one tile: the spans are constants, and most of those at the ends are empty.
fn known_spans(b: &mut Builder, width: &Axis, kw: usize, taps: usize) -> Vec<Span> {
    let each: Vec<Range<usize>> = (kw..kw + taps).map(|tap| width.valid(tap, &(0..width.outputs))).collect();
    let start = each.iter().map(|r| r.start).max().unwrap_or(0);
    let end = each.iter().map(|r| r.end).min().unwrap_or(0).max(start);
    let ends = each
        .into_iter()
        .enumerate()
        .flat_map(|(tap, r)| [(tap..tap + 1, r.start..r.end.min(start)), (tap..tap + 1, r.start.max(end)..r.end)]);
    let spans = std::iter::once((0..taps, start..end)).chain(ends).filter(|(_, columns)| !columns.is_empty());
    let span = |(taps, columns): (_, Range<usize>)| Span {
        taps,
        columns: [columns.start, columns.end].map(|c| b.i64(c as i64)),
    };
    spans.map(span).collect()
}

fn computed_spans(b: &mut Builder, width: &Axis, kw: Value, taps: usize) -> Vec<Span> {
    let each: Vec<[Value; 2]> = (0..taps)
        .map(|tap| {
            let kw = b.add_imm(kw, tap as i64);
            outputs_of_tap(b, width, kw)
        })
        .collect();
    if taps == 1 || width.inside() {
        return vec![Span { taps: 0..taps, columns: each[0] }];
    }
    // A later tap reaches further to the left and less far to the right.
    let middle = [each[0][0], b.max_s(each[0][0], each[taps - 1][1])];
    let mut spans = vec![Span { taps: 0..taps, columns: middle }];
    for (tap, [lo, hi]) in each.into_iter().enumerate() {
        let left = b.min_s(hi, middle[0]);
        let right = b.max_s(lo, middle[1]);
        let right = b.min_s(right, hi);
        for [lo, hi] in [[lo, left], [right, hi]] {
            spans.push(Span { taps: tap..tap + 1, columns: [lo, hi] });
        }
    }
    spans
}
