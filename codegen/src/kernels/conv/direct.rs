//! Direct convolution, and matrix products as convolutions with one tap: a tile of output channels by pixels stays in registers for all input channels
//! and taps.
//!
//! ```text
//! x  [N][C/16][D][H][W][16] or row-major      w  [panel][C/16][kd][kh][kw][16 channels in][16 out]      y  blocked
//!
//! for task (image, group of panels, chunk of rows)
//!   for pass over blocks of input channels                     weights of one pass stay in L1
//!     for row, for tile of the row                             tiles: window.rs
//!       acc = bias, or the partial sums of the pass before
//!       for channel block, kd, kh (clipped to the input), kw
//!         for channel    acc[v][px] += w[channel][v] * x[px][channel]
//!       y = epilogue(acc), or store partial sums
//! ```
//!
//! A matrix product `[M, K] . [K, N]` has M pixels, K input and N output channels: the same loops over other distances between
//! elements, with partial vectors for the last columns.
//!
//! The loop over channels inside of a block is unrolled until the loop's own instructions are below 5 %. Its order of loads
//! follows the register budget in [`tile`]: the smaller side of the tile is held, the other streamed.
//!
//! Passes: when a tile's weights exceed half of L1, the channel blocks are split so that one part's weights fit. Partial sums
//! then lie in the output, which a residual must not share with it: `Same` extras read where the output is written for the
//! last time, so there are no passes when a plan computes in place. Partial sums are rounded to
//! f32 as the registers are: the result does not change.
//!
//! Tasks go over panels inside of rows when all weights fit L2 (the input is read once from memory), else rows inside of panels
//! (the weights are). Needs: with more than one group, channels a group are multiples of 16 on both sides.

use super::tile::{self, Splat, Tile};
use super::{Conv, Segment, Sink, Source, Weights, panel_widths, segments};
use crate::kernels::epilogue::Site;
use crate::kernels::isa_name;
use crate::kernels::window::{Axis, Run, TapGroup, balanced, div_rem};
use crate::kir::{ArgDecl, Builder, Elem, Index, IntCc, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::BLOCK;
use std::ops::Range;

const F32_BYTES: i64 = 4;

/// Bytes of code that one kernel may have, roughly; beyond it the generic template serves. A third of L1i.
const CODE_LIMIT: usize = 24 * 1024;

/// Instructions that an unrolled stretch may have: enough to hide the loop's own, small enough to stay in the decoded cache.
const UNROLL_LIMIT: usize = 112;

/// A convolution with everything chosen.
#[derive(Clone, Debug)]
pub struct Direct<'a> {
    target: &'a Target,
    conv: Conv,
    segments: Vec<Segment>,
    splat: Splat,
    /// Panels of a group in groups that one tile covers; all but the last are equal.
    tile: Tile,
    /// Full channel blocks of one pass; all of them when there is one.
    pass_blocks: usize,
    /// Rows of one task.
    rows: usize,
    /// Do tasks go over panels first?
    panels_inner: bool,
}

impl<'a> Direct<'a> {
    /// Chooses tile, passes and tasks. `in_place` says that an operand shares the output's memory, which forbids passes.
    pub fn new(target: &'a Target, conv: &Conv, in_place: bool) -> Direct<'a> {
        let conv = flattened(conv);
        let segments = segments(conv.inputs, conv.input_plane(), conv.source);
        let splat = tile::splat(target, segments.first().map_or(1, |s| s.channel_pitch));
        let panels = panel_widths(conv.outputs).len();
        let tile = tile::choose(target, splat, panels, conv.axes[2].outputs);
        let block_bytes = BLOCK * conv.taps() * tile.panels * BLOCK * 4;
        // Weights that few tiles use are better read once than kept.
        const USES: usize = 4;
        let tiles: usize =
            conv.axes[..2].iter().map(|a| a.outputs).product::<usize>() * conv.axes[2].outputs.div_ceil(tile.pixels);
        let used_once = in_place || tiles < USES;
        let full_blocks = conv.inputs / BLOCK;
        let fitting = (target.l1d / 2 / block_bytes.max(1)).max(1);
        // A single block's pass would store and load each sum every 16 channels; two or more when the taps are few.
        let pass_blocks = match used_once || full_blocks * block_bytes <= target.l1d / 2 {
            true => full_blocks,
            false => balanced(full_blocks, fitting).next().unwrap_or(full_blocks),
        };
        let mut direct = Direct {
            target,
            conv,
            segments,
            splat,
            tile,
            pass_blocks: pass_blocks.max(1),
            rows: 1,
            panels_inner: true,
        };
        direct.choose_tasks();
        direct
    }

    /// Rows a task and the order of tasks. Enough tasks for a few threads when there is work, rows enough to use the weights
    /// of a pass several times, and the cheaper of the two orders by bytes from beyond L2.
    fn choose_tasks(&mut self) {
        const MACS_A_TASK: u64 = 1 << 20;
        const MOST_TASKS: u64 = 64;
        let (conv, target) = (&self.conv, self.target);
        let rows = self.row_count();
        let groups = self.panel_groups() * conv.groups * conv.batch;
        let wanted = (conv.macs() / MACS_A_TASK).clamp(1, MOST_TASKS) as usize;
        let input = 4 * conv.groups * conv.inputs * conv.input_plane();
        let weights = 4 * conv.groups * conv.inputs * conv.outputs * conv.taps();
        let chunks = wanted.div_ceil(groups);
        let by_cache = (2 * input).div_ceil(target.l2);
        // Panels inside: input once, weights once a chunk unless they stay in L2. Rows inside: weights once, input once a
        // group of panels unless it stays.
        let reread = |bytes: usize, times: usize| if bytes <= target.l2 / 2 { bytes } else { bytes * times };
        let inner_chunks = chunks.max(by_cache).clamp(1, rows.max(1));
        let panels_inner = input + reread(weights, inner_chunks);
        let rows_inner = weights + reread(input, self.panel_groups());
        self.panels_inner = panels_inner <= rows_inner;
        let chunks = if self.panels_inner { inner_chunks } else { chunks };
        self.rows = rows.div_ceil(chunks.clamp(1, rows.max(1))).max(1);
    }

    fn row_count(&self) -> usize {
        self.conv.axes[0].outputs * self.conv.axes[1].outputs
    }

    fn chunks(&self) -> usize {
        self.row_count().div_ceil(self.rows)
    }

    /// How many groups of panels one group of channels has.
    pub(super) fn panel_groups(&self) -> usize {
        panel_widths(self.conv.outputs).len().div_ceil(self.tile.panels)
    }

    /// Panels of a full group.
    pub(super) fn panels_of_a_tile(&self) -> usize {
        self.tile.panels
    }

    /// The groups of panels that one piece of code computes, and how many panels each of them has.
    pub(super) fn group_ranges(&self) -> Vec<(Range<usize>, usize)> {
        let kinds = self.kinds();
        let ends = kinds.iter().skip(1).map(|k| k.first).chain([self.panel_groups()]);
        kinds.iter().zip(ends).map(|(kind, end)| (kind.first..end, kind.widths.len())).collect()
    }

    /// Inside of another kernel: all rows of one group of panels (in the range `ranges[range]` of
    /// [`group_ranges`](Direct::group_ranges)) of group `conv_group` of channels, written from byte `y` of the output on.
    pub(super) fn one_group(
        &self,
        b: &mut Builder,
        operands: &Operands,
        range: usize,
        [conv_group, panel_group]: [Value; 2],
        y: Value,
    ) {
        debug_assert_eq!(self.conv.batch, 1);
        let image = b.i64(0);
        let whole = Direct { rows: self.row_count().max(1), ..self.clone() };
        let at = TaskAt { image, conv_group, panel_group, chunk: image, y };
        whole.panels(b, operands, &self.kinds()[range], &at);
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        if self.conv.axes.iter().any(|a| a.outputs == 0) || self.conv.outputs == 0 {
            return 0;
        }
        self.conv.batch * self.conv.groups * self.panel_groups() * self.chunks()
    }

    /// Does the kernel leave partial sums in the output?
    fn partial_sums(&self) -> bool {
        self.passes() > 1
    }

    fn passes(&self) -> usize {
        (self.conv.inputs / BLOCK).div_ceil(self.pass_blocks).max(1)
    }

    /// Scratch bytes of a thread.
    pub fn scratch(&self) -> usize {
        if self.conv.epilogue.is_long() { self.tile.panels * self.tile.pixels * BLOCK * 4 } else { 0 }
    }

    /// Is the kernel within the size that this template is meant for?
    pub fn is_small(&self) -> bool {
        // Bytes of an instruction with a displacement, on average.
        const BYTES: usize = 8;
        let kinds = self.kinds().len();
        let instructions = |run: &Run| -> usize {
            let body = run.taps.iter().map(|g| self.unrolled(g, g.pixels.len()) * self.step_cost(g.pixels.len()));
            body.sum::<usize>() + 4 * self.tile.panels * run.width
        };
        let runs = self.conv.axes[2].runs(self.tile.pixels);
        let bytes: usize = runs.iter().map(instructions).sum::<usize>() * self.segments.len() * kinds * BYTES;
        // Displacements from one panel to the next are 32 bits.
        let reach = 4 * BLOCK * self.tile.panels * self.conv.output_plane().max(self.conv.inputs * self.conv.taps());
        let pitch = self.segments.iter().map(|s| s.channel_pitch.max(s.pixel_pitch)).max().unwrap_or(1);
        let rows = if let Weights::Rows { .. } = self.conv.weights { self.conv.outputs } else { 0 };
        let planar = 4 * 32 * pitch.max(rows).max(self.output_pitch(BLOCK));
        bytes <= CODE_LIMIT && reach.max(planar) < 1 << 30
    }

    /// Instructions of one channel and tap on a tile of this many pixels.
    fn step_cost(&self, pixels: usize) -> usize {
        let vectors = self.tile.panels * BLOCK / self.target.lanes(Elem::F32).min(BLOCK);
        vectors + pixels + vectors * pixels * if self.target.fma { 1 } else { 2 }
    }

    /// Channel steps that stand one behind the other for a group of taps.
    fn unrolled(&self, group: &TapGroup, pixels: usize) -> usize {
        let channels = self.segments.iter().map(|s| s.channels).max().unwrap_or(0);
        let steps = self.channel_unroll(channels, pixels);
        if self.taps_unrolled(group, channels, pixels) { steps * group.taps.len() } else { steps }
    }

    /// Channels that stand one behind the other: a divisor of `channels`, and of four channels' vectors where lanes are used.
    fn channel_unroll(&self, channels: usize, pixels: usize) -> usize {
        let unit = if self.splat == Splat::Lane { 4 } else { 1 };
        if !channels.is_multiple_of(unit) {
            return channels; // an edge block of a few channels
        }
        let fits = |u: &usize| channels.is_multiple_of(*u) && u * self.step_cost(pixels) <= UNROLL_LIMIT;
        (1..=channels).filter(|u| u.is_multiple_of(unit)).rev().find(fits).unwrap_or(unit)
    }

    fn taps_unrolled(&self, group: &TapGroup, channels: usize, pixels: usize) -> bool {
        group.taps.len() == 1 || group.taps.len() * channels * self.step_cost(pixels) <= 4 * UNROLL_LIMIT
    }

    /// The different groups of panels: all full ones, and the last where it differs. First panel, widths, tile width.
    fn kinds(&self) -> Vec<PanelGroup> {
        let widths = panel_widths(self.conv.outputs);
        let p = self.tile.panels;
        let mut kinds = Vec::new();
        // A panel of which only some columns exist in a matrix is no full one; blocked outputs have padding lanes.
        let whole = match self.conv.sink {
            Sink::Blocked => widths.iter().filter(|&&w| w == BLOCK).count(),
            Sink::Matrix => self.conv.outputs / BLOCK,
        };
        let full = whole / p;
        if full > 0 {
            kinds.push(PanelGroup { first: 0, widths: vec![BLOCK; p], pixels: self.tile.pixels });
        }
        let rest = &widths[full * p..];
        if !rest.is_empty() {
            let pixels = tile::choose(self.target, self.splat, rest.len(), self.conv.axes[2].outputs);
            // The best tile for so few panels may take only some of them; keep the width that fits all of them.
            let pixels = if pixels.panels == rest.len() { pixels.pixels } else { self.tile.pixels };
            kinds.push(PanelGroup { first: full, widths: rest.to_vec(), pixels });
        }
        kinds
    }

    /// The kernel. Operands: x, w, bias (if there is one), the epilogue's extras, y.
    pub fn kernel(&self) -> Kernel {
        let mut args = vec![ArgDecl::read("x", 4), ArgDecl::read("w", 64)];
        if self.conv.bias {
            args.push(ArgDecl::read("bias", 64));
        }
        args.extend((0..self.conv.epilogue.extras.len()).map(|i| ArgDecl::read(format!("e{i}"), 4)));
        args.push(if self.partial_sums() { ArgDecl::read_write("y", 4) } else { ArgDecl::write("y", 4) });
        let name = format!(
            "{}__{}_{}x{}",
            self.conv.name(),
            isa_name(self.target),
            self.tile.panels * BLOCK,
            self.tile.pixels
        );
        let mut b = Builder::new(name, args);
        let operands = Operands::of_args(&b, self.conv.bias, self.conv.epilogue.extras.len());
        b.tasks(|b, task| self.task(b, &operands, task));
        b.finish()
    }

    fn task(&self, b: &mut Builder, operands: &Operands, task: Value) {
        let groups = self.panel_groups() * self.conv.groups;
        let (image, group, chunk) = if self.panels_inner {
            let (rest, group) = div_rem(b, task, groups);
            let (image, chunk) = div_rem(b, rest, self.chunks());
            (image, group, chunk)
        } else {
            let (rest, chunk) = div_rem(b, task, self.chunks());
            let (group, image) = div_rem(b, rest, self.conv.batch);
            (image, group, chunk)
        };
        let (conv_group, panel_group) = div_rem(b, group, self.panel_groups());
        let kinds = self.kinds();
        let channels = self.conv.groups * self.conv.outputs;
        let stored = if self.conv.sink == Sink::Matrix { channels } else { nncc_ir::padded_channels(channels) };
        let y = b.mul_imm(image, (stored * self.conv.output_plane()) as i64 * F32_BYTES);
        let first_panel = self.first_panel(b, conv_group, panel_group);
        let panel_offset = b.mul_imm(first_panel, self.output_panel() as i64 * F32_BYTES);
        let y = b.add(y, panel_offset);
        let at = TaskAt { image, conv_group, panel_group, chunk, y };
        match &kinds[..] {
            [only] => self.panels(b, operands, only, &at),
            [full, rest] => {
                let bound = b.i64(rest.first as i64);
                let is_full = b.icmp(IntCc::LtS, panel_group, bound);
                b.if_(
                    is_full,
                    |b| {
                        self.panels(b, operands, full, &at);
                        Vec::new()
                    },
                    |b| {
                        self.panels(b, operands, rest, &at);
                        Vec::new()
                    },
                );
            }
            _ => {}
        }
    }

    /// The number of the first panel of a group of panels, counted over all groups of channels.
    fn first_panel(&self, b: &mut Builder, conv_group: Value, panel_group: Value) -> Value {
        let panels_a_group = panel_widths(self.conv.outputs).len();
        let panel = b.mul_imm(panel_group, self.tile.panels as i64);
        let before = b.mul_imm(conv_group, panels_a_group as i64);
        b.add(before, panel)
    }

    /// All rows of a task for one group of panels.
    fn panels(&self, b: &mut Builder, operands: &Operands, kind: &PanelGroup, at: &TaskAt) {
        let conv = &self.conv;
        let panel_of_all = self.first_panel(b, at.conv_group, at.panel_group);

        let k = conv.inputs * conv.taps();
        let w = along(b, operands.w, panel_of_all, self.weight_panel() * 4);
        let w = match conv.weights {
            Weights::Panels => w,
            Weights::Rows { image } => along(b, w, at.image, image * 4),
        };
        let input_image = match conv.source {
            Source::Blocked => nncc_ir::padded_channels(conv.groups * conv.inputs) * conv.input_plane(),
            Source::Planar => conv.groups * conv.inputs * conv.input_plane(),
            Source::Matrix { image, .. } => image,
        };
        let x = along(b, operands.x, at.image, input_image * 4);
        let x = b.ptr(x.at(0).idx(at.conv_group, conv.inputs * conv.input_plane() * 4));
        let bias = operands.bias.map(|bias| b.ptr(bias.at(0).idx(panel_of_all, BLOCK * 4)));
        let channel = b.mul_imm(panel_of_all, BLOCK as i64);
        let vectors = self.vectors(kind);
        debug_assert!(matches!(conv.weights, Weights::Panels) || k == conv.inputs, "rows have one tap");
        let w = self.classes(b, w, kind);
        let group = Group { operands, vectors, x, w, y: at.y, bias, channel, image: at.image, kind };

        let lo = b.mul_imm(at.chunk, self.rows as i64);
        let hi = b.add_imm(lo, self.rows as i64);
        let rows = b.i64(self.row_count() as i64);
        let hi = b.min_s(hi, rows);
        let full_blocks = conv.inputs / BLOCK;
        b.for_(0, self.passes(), 1, |b, pass| {
            let (from, to) = if self.passes() == 1 {
                (b.i64(0), b.i64(full_blocks as i64))
            } else {
                let from = b.mul_imm(pass, self.pass_blocks as i64);
                let to = b.add_imm(from, self.pass_blocks as i64);
                let all = b.i64(full_blocks as i64);
                (from, b.min_s(to, all))
            };
            let pass = Pass { index: pass, from, to, last: self.passes() - 1 };
            b.for_(lo, hi, 1, |b, row| self.row(b, &group, &pass, row));
        });
    }

    /// Elements of the weights from one panel to the next.
    fn weight_panel(&self) -> usize {
        match self.conv.weights {
            Weights::Panels => self.conv.inputs * self.conv.taps() * BLOCK,
            Weights::Rows { .. } => BLOCK,
        }
    }

    /// Elements of the weights from one input channel to the next, in a panel of this width.
    fn weight_pitch(&self, width: usize) -> usize {
        match self.conv.weights {
            Weights::Panels => width,
            Weights::Rows { .. } => self.conv.outputs,
        }
    }

    /// Elements of the output from one panel to the next.
    fn output_panel(&self) -> usize {
        match self.conv.sink {
            Sink::Blocked => BLOCK * self.conv.output_plane(),
            Sink::Matrix => BLOCK,
        }
    }

    /// Elements of the output from one pixel to the next, in a panel of this width.
    fn output_pitch(&self, width: usize) -> usize {
        match self.conv.sink {
            Sink::Blocked => width,
            Sink::Matrix => self.conv.outputs,
        }
    }

    /// The vectors of a tile of these panels. Of a matrix, those without a column are left out.
    fn vectors(&self, kind: &PanelGroup) -> Vec<Lanes> {
        let mut vectors = Vec::new();
        let edge = self.conv.outputs - self.conv.outputs / BLOCK * BLOCK;
        let is_last = kind.first * self.tile.panels + kind.widths.len() == panel_widths(self.conv.outputs).len();
        for (panel, &width) in kind.widths.iter().enumerate() {
            let lanes = self.target.lanes(Elem::F32).min(width);
            let whole = self.conv.sink == Sink::Blocked || edge == 0 || !is_last || panel + 1 < kind.widths.len();
            let columns = if whole { width } else { edge };
            for i in 0..columns.div_ceil(lanes) {
                // Panels of one width follow each other; an edge panel has a base of its own.
                let weight = if width == BLOCK { panel * self.weight_panel() } else { 0 };
                vectors.push(Lanes {
                    ty: Type::of(Elem::F32, lanes),
                    count: lanes.min(columns - i * lanes),
                    class: usize::from(width != BLOCK && kind.widths[0] == BLOCK),
                    width,
                    weight: ((weight + i * lanes) * 4) as i64,
                    output: ((panel * self.output_panel() + i * lanes) * 4) as i64,
                    channel: (panel * BLOCK + i * lanes) as i64,
                });
            }
        }
        vectors
    }

    /// Pointers to the weights of the full panels and of the edge panel, with the widths.
    fn classes(&self, b: &mut Builder, w: Value, kind: &PanelGroup) -> Vec<(Value, usize)> {
        let full = kind.widths.iter().filter(|&&width| width == BLOCK).count();
        let mut classes = Vec::new();
        if full > 0 {
            classes.push((w, BLOCK));
        }
        if let Some(&edge) = kind.widths.iter().find(|&&width| width != BLOCK) {
            let base = b.ptr(w.at((full * self.weight_panel()) as i64 * F32_BYTES));
            classes.push((base, edge));
        }
        classes
    }

    fn row(&self, b: &mut Builder, group: &Group<'_>, pass: &Pass, row: Value) {
        let [depth, height, width] = &self.conv.axes;
        let (od, oh) = div_rem(b, row, height.outputs);
        let bounds = [depth.tap_bounds(b, od), height.tap_bounds(b, oh)];
        // The pixel that tap (0, 0) of the row reads at column 0; may lie before the input.
        let at = |b: &mut Builder, axis: &Axis, o: Value| {
            let i = b.mul_imm(o, axis.stride as i64);
            b.add_imm(i, axis.first)
        };
        let id = at(b, depth, od);
        let ih = at(b, height, oh);
        let plane_row = b.mul_imm(id, height.inputs as i64);
        let plane_row = b.add(plane_row, ih);
        let input = b.mul_imm(plane_row, width.inputs as i64);
        let placed = |b: &mut Builder, axis: &Axis, o: Value| {
            let i = b.mul_imm(o, axis.out_step as i64);
            b.add_imm(i, axis.out_first as i64)
        };
        let pd = placed(b, depth, od);
        let ph = placed(b, height, oh);
        let out_row = b.mul_imm(pd, height.out_extent as i64);
        let out_row = b.add(out_row, ph);
        let output = b.mul_imm(out_row, width.out_extent as i64);
        for run in width.runs(group.kind.pixels) {
            b.for_(0, run.count, 1, |b, i| {
                let start = b.mul_imm(i, run.width as i64);
                let start = b.add_imm(start, run.start as i64);
                let column = b.mul_imm(start, width.stride as i64);
                let column = b.add_imm(column, width.first);
                let input = b.add(input, column);
                let out_column = b.mul_imm(start, width.out_step as i64);
                let out_column = b.add_imm(out_column, width.out_first as i64);
                let output = b.add(output, out_column);
                self.tile(b, group, pass, &TileAt { run: &run, bounds, input, output });
            });
        }
    }

    /// One tile: sums, then the epilogue.
    fn tile(&self, b: &mut Builder, group: &Group<'_>, pass: &Pass, at: &TileAt<'_>) {
        let pixels = at.run.width;
        // Byte offsets of the tile in the output, one for each panel width.
        let by_class = group.w.iter().map(|&(_, width)| {
            let pixel = b.mul_imm(at.output, self.output_pitch(width) as i64 * F32_BYTES);
            b.add(group.y, pixel)
        });
        let by_class: Vec<Value> = by_class.collect();
        let offsets: Vec<Value> = group.vectors.iter().map(|v| by_class[v.class]).collect();
        let y = group.operands.y;
        let place = |v: usize, px: usize| {
            let lanes = &group.vectors[v];
            lanes.output + (px * self.conv.axes[2].out_step * self.output_pitch(lanes.width)) as i64 * F32_BYTES
        };
        let start = |b: &mut Builder| -> Vec<Value> {
            let mut sums = Vec::new();
            for v in &group.vectors {
                let init = match group.bias {
                    Some(bias) => b.load(v.ty, bias.at(v.channel * F32_BYTES)),
                    None => b.zero(v.ty),
                };
                sums.extend(std::iter::repeat_n(init, pixels));
            }
            sums
        };
        let sums = if pass.last == 0 {
            start(b)
        } else {
            let zero = b.i64(0);
            let first = b.icmp(IntCc::Eq, pass.index, zero);
            b.if_(first, start, |b| {
                let mut sums = Vec::new();
                for (v, lanes) in group.vectors.iter().enumerate() {
                    let load = |px| b.load_part(lanes.ty, y.at(place(v, px)).idx(offsets[v], 1), lanes.count);
                    sums.extend((0..pixels).map(load));
                }
                sums
            })
        };
        let sums = self.sums(b, group, pass, at, sums);
        let finish = |b: &mut Builder| self.finish(b, group, &sums, pixels, &offsets, &place);
        if pass.last == 0 {
            finish(b);
            return;
        }
        let last = b.i64(pass.last as i64);
        let is_last = b.icmp(IntCc::Eq, pass.index, last);
        b.if_(
            is_last,
            |b| {
                finish(b);
                Vec::new()
            },
            |b| {
                for (i, &sum) in sums.iter().enumerate() {
                    let (v, px) = (i / pixels, i % pixels);
                    b.store_part(y.at(place(v, px)).idx(offsets[v], 1), sum, group.vectors[v].count);
                }
                Vec::new()
            },
        );
    }

    /// Applies the epilogue and stores.
    fn finish(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        sums: &[Value],
        pixels: usize,
        offsets: &[Value],
        place: &dyn Fn(usize, usize) -> i64,
    ) {
        let epilogue = &self.conv.epilogue;
        let (y, extras) = (group.operands.y, &group.operands.extras);
        let site = |v: usize, offset: Value, disp: i64| Site {
            same: (offset, disp),
            image: group.image,
            channel: (group.channel, group.vectors[v].channel),
            count: group.vectors[v].count,
        };
        if !epilogue.is_long() {
            for (i, &sum) in sums.iter().enumerate() {
                let (v, px) = (i / pixels, i % pixels);
                let result = epilogue.apply(b, sum, extras, &site(v, offsets[v], place(v, px)));
                b.store_part(y.at(place(v, px)).idx(offsets[v], 1), result, group.vectors[v].count);
            }
            return;
        }
        let scratch = b.scratch();
        for (i, &sum) in sums.iter().enumerate() {
            b.store(scratch.at((i * BLOCK) as i64 * F32_BYTES), sum);
        }
        for (v, lanes) in group.vectors.iter().enumerate() {
            let step = (self.conv.axes[2].out_step * self.output_pitch(lanes.width)) as i64 * F32_BYTES;
            b.for_(0, pixels, 1, |b, px| {
                let from = (v * pixels * BLOCK) as i64 * F32_BYTES;
                let sum = b.load(lanes.ty, scratch.at(from).idx(px, BLOCK * 4));
                let along = b.mul_imm(px, step);
                let offset = b.add(offsets[v], along);
                let result = epilogue.apply(b, sum, extras, &site(v, offset, lanes.output));
                b.store_part(y.at(lanes.output).idx(offset, 1), result, lanes.count);
            });
        }
    }

    /// Adds all products of the pass to the sums.
    fn sums(&self, b: &mut Builder, group: &Group<'_>, pass: &Pass, at: &TileAt<'_>, sums: Vec<Value>) -> Vec<Value> {
        let mut sums = sums;
        let full_blocks = self.conv.inputs / BLOCK;
        for segment in &self.segments {
            let is_edge = segment.channels < BLOCK;
            if !is_edge {
                sums = b.loop_(pass.from, pass.to, 1, &sums, |b, block, sums| {
                    self.block(b, group, at, segment, block, block, sums)
                });
                continue;
            }
            let edge = |b: &mut Builder, sums: &[Value]| {
                let (block, zero) = (b.i64(full_blocks as i64), b.i64(0));
                self.block(b, group, at, segment, zero, block, sums)
            };
            if pass.last == 0 {
                sums = edge(b, &sums);
            } else {
                let last = b.i64(pass.last as i64);
                let is_last = b.icmp(IntCc::Eq, pass.index, last);
                sums = b.if_(is_last, |b| edge(b, &sums), |_| sums.clone());
            }
        }
        sums
    }

    /// One block of input channels: `block` counts inside of the segment, `packed` in the weights.
    #[expect(clippy::too_many_arguments, reason = "the two block counts differ for the edge segment only")]
    fn block(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        at: &TileAt<'_>,
        segment: &Segment,
        block: Value,
        packed: Value,
        sums: &[Value],
    ) -> Vec<Value> {
        let [depth, height, width] = &self.conv.axes;
        let bytes = |elems: usize| elems * 4;
        let x = b.ptr(group.x.at(bytes(segment.start) as i64).idx(block, bytes(segment.block_pitch)));
        let x = b.ptr(x.at(0).idx(at.input, bytes(segment.pixel_pitch)));
        // Weights of all blocks before have 16 channels.
        let w: Vec<Value> = group
            .w
            .iter()
            .map(|&(base, width)| along(b, base, packed, bytes(BLOCK * self.conv.taps() * self.weight_pitch(width))))
            .collect();
        let widths: Vec<usize> = group.w.iter().map(|&(_, width)| width).collect();
        let advance = |b: &mut Builder, w: &[Value], tap: Value, taps: usize| -> Vec<Value> {
            let step = |width: usize| bytes(taps * segment.channels * self.weight_pitch(width));
            w.iter().zip(&widths).map(|(&w, &width)| along(b, w, tap, step(width))).collect()
        };
        let [(d0, d1), (h0, h1)] = at.bounds;
        b.loop_(d0, d1, 1, sums, |b, kd, sums| {
            let plane = depth.dilation * height.inputs * width.inputs * segment.pixel_pitch;
            let x = b.ptr(x.at(0).idx(kd, bytes(plane)));
            let w = advance(b, &w, kd, height.taps * width.taps);
            b.loop_(h0, h1, 1, sums, |b, kh, sums| {
                let x = b.ptr(x.at(0).idx(kh, bytes(height.dilation * width.inputs * segment.pixel_pitch)));
                let w = advance(b, &w, kh, width.taps);
                let mut sums = sums.to_vec();
                for taps in &at.run.taps {
                    sums = self.taps(b, group, segment, at.run.width, taps, x, &w, sums);
                }
                sums
            })
        })
    }

    /// Neighbouring taps of the width that reach the same pixels.
    #[expect(clippy::too_many_arguments, reason = "the innermost level of a nest of seven loops")]
    fn taps(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        segment: &Segment,
        tile: usize,
        taps: &TapGroup,
        x: Value,
        w: &[Value],
        sums: Vec<Value>,
    ) -> Vec<Value> {
        let step = self.conv.axes[2].dilation * segment.pixel_pitch * 4;
        let pixels = taps.pixels.clone();
        let one = |b: &mut Builder, tap: Value, sums: &[Value]| {
            let x = b.ptr(x.at(0).idx(tap, step));
            let each = |(&w, &(_, width)): (&Value, &(Value, usize))| {
                b.ptr(w.at(0).idx(tap, segment.channels * self.weight_pitch(width) * 4))
            };
            let w: Vec<Value> = w.iter().zip(&group.w).map(each).collect();
            self.channels(b, group, segment, tile, &pixels, x, w, sums.to_vec())
        };
        if self.taps_unrolled(taps, segment.channels, pixels.len()) {
            let mut sums = sums;
            for tap in taps.taps.clone() {
                let tap = b.i64(tap as i64);
                sums = one(b, tap, &sums);
            }
            return sums;
        }
        b.loop_(taps.taps.start, taps.taps.end, 1, &sums, |b, tap, sums| one(b, tap, sums))
    }

    /// The channels of one block at one tap: the innermost loop.
    #[expect(clippy::too_many_arguments, reason = "the innermost level of a nest of seven loops")]
    fn channels(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        segment: &Segment,
        tile: usize,
        pixels: &Range<usize>,
        x: Value,
        w: Vec<Value>,
        sums: Vec<Value>,
    ) -> Vec<Value> {
        let unroll = self.channel_unroll(segment.channels, pixels.len());
        let pitch = segment.channel_pitch * 4;
        let inner = Inner { group, segment, tile, pixels };
        if unroll == segment.channels {
            let zero = b.i64(0);
            return self.steps(b, &inner, unroll, (x, zero), &w, sums);
        }
        // The index counts bytes of x; the weights' pointers go along, for their step is no scale of an addressing mode.
        let mut carried = sums;
        let sum_count = carried.len();
        carried.extend(&w);
        let last = b.loop_(0, segment.channels * pitch, (unroll * pitch) as i64, &carried, |b, at, carried| {
            let (sums, w) = carried.split_at(sum_count);
            let mut next = self.steps(b, &inner, unroll, (x, at), w, sums.to_vec());
            for (&w, &(_, width)) in w.iter().zip(&group.w) {
                next.push(b.ptr(w.at((unroll * self.weight_pitch(width) * 4) as i64)));
            }
            next
        });
        last[..sum_count].to_vec()
    }

    /// `count` channels, one behind the other.
    fn steps(
        &self,
        b: &mut Builder,
        inner: &Inner<'_>,
        count: usize,
        x: (Value, Value),
        w: &[Value],
        mut sums: Vec<Value>,
    ) -> Vec<Value> {
        let segment = inner.segment;
        let vectors = &inner.group.vectors;
        let pixel = self.conv.axes[2].stride * segment.pixel_pitch * 4;
        let input =
            |px: usize, channel: usize| x.0.at((px * pixel + channel * segment.channel_pitch * 4) as i64).idx(x.1, 1);
        let weight = |b: &mut Builder, v: usize, channel: usize| {
            let lanes = &vectors[v];
            let at = w[lanes.class].at(lanes.weight + (channel * self.weight_pitch(lanes.width)) as i64 * F32_BYTES);
            match self.conv.weights {
                Weights::Panels => b.load(lanes.ty, at),
                Weights::Rows { .. } => b.load_part(lanes.ty, at, lanes.count),
            }
        };
        let quad = Type::of(Elem::F32, 4);
        let hold_inputs = inner.pixels.len() <= vectors.len();
        let mut quads: Vec<Value> = Vec::new();
        for channel in 0..count {
            // The last quad of an edge block may hold padding lanes: loaded, never used. A row of a matrix has none.
            let by_lane = self.splat == Splat::Lane;
            if by_lane && channel % 4 == 0 {
                let there = if matches!(self.conv.source, Source::Matrix { .. }) { 4.min(count - channel) } else { 4 };
                quads = inner.pixels.clone().map(|px| b.load_part(quad, input(px, channel), there)).collect();
            }
            let splat = |b: &mut Builder, px: usize, ty: Type| {
                if by_lane {
                    let lane = b.extract(quads[px - inner.pixels.start], channel % 4);
                    b.splat(ty, lane)
                } else {
                    b.load_splat(ty, input(px, channel))
                }
            };
            if hold_inputs {
                // Vectors of different widths (a full panel and an edge one) need splats of their own.
                let mut held: Vec<(Type, Vec<Value>)> = Vec::new();
                for (v, lanes) in vectors.iter().enumerate() {
                    if held.iter().all(|(ty, _)| *ty != lanes.ty) {
                        held.push((lanes.ty, inner.pixels.clone().map(|px| splat(b, px, lanes.ty)).collect()));
                    }
                    let w = weight(b, v, channel);
                    let xs = held.iter().find(|(ty, _)| *ty == lanes.ty).map_or(&[][..], |(_, xs)| xs);
                    for (px, &x) in inner.pixels.clone().zip(xs) {
                        let sum = &mut sums[v * inner.tile + px];
                        *sum = b.mul_add(w, x, *sum);
                    }
                }
            } else {
                let ws: Vec<Value> = (0..vectors.len()).map(|v| weight(b, v, channel)).collect();
                for px in inner.pixels.clone() {
                    let mut held: Vec<(Type, Value)> = Vec::new();
                    for (v, lanes) in vectors.iter().enumerate() {
                        let x = match held.iter().find(|(ty, _)| *ty == lanes.ty) {
                            Some(&(_, x)) => x,
                            None => {
                                let x = splat(b, px, lanes.ty);
                                held.push((lanes.ty, x));
                                x
                            }
                        };
                        let sum = &mut sums[v * inner.tile + px];
                        *sum = b.mul_add(ws[v], x, *sum);
                    }
                }
            }
        }
        sums
    }
}

/// Panels that one tile covers, and how many such groups there are.
#[derive(Clone, Debug)]
struct PanelGroup {
    /// Number of the first group.
    first: usize,
    /// Channels of each panel: 16, or 8 for an edge.
    widths: Vec<usize>,
    /// The widest tile, in pixels.
    pixels: usize,
}

/// Where the operands lie.
pub(super) struct Operands {
    pub x: Value,
    pub w: Value,
    pub bias: Option<Value>,
    pub extras: Vec<Value>,
    pub y: Value,
}

impl Operands {
    /// The arguments of a kernel: x, w, bias (if there is one), the epilogue's extras, y.
    pub(super) fn of_args(b: &Builder, bias: bool, extras: usize) -> Operands {
        Operands { w: b.arg(1), ..Operands::from_arg(b, 2, bias, extras) }
    }

    /// The arguments of a kernel without weights: x, bias (if there is one), the epilogue's extras, y.
    pub(super) fn without_weights(b: &Builder, bias: bool, extras: usize) -> Operands {
        Operands::from_arg(b, 1, bias, extras)
    }

    fn from_arg(b: &Builder, first: usize, bias: bool, extras: usize) -> Operands {
        let first_extra = first + usize::from(bias);
        Operands {
            x: b.arg(0),
            w: b.arg(0),
            bias: bias.then(|| b.arg(first)),
            extras: (first_extra..first_extra + extras).map(|i| b.arg(i)).collect(),
            y: b.arg(first_extra + extras),
        }
    }
}

/// What a task is.
struct TaskAt {
    image: Value,
    conv_group: Value,
    panel_group: Value,
    chunk: Value,
    /// Bytes from the output's base to the first pixel of the group of panels.
    y: Value,
}

/// One vector of output channels of a tile.
#[derive(Clone, Copy, Debug)]
struct Lanes {
    ty: Type,
    /// Lanes that exist in memory.
    count: usize,
    /// Which weight pointer.
    class: usize,
    /// Channels of its panel.
    width: usize,
    /// Bytes from the weight pointer.
    weight: i64,
    /// Bytes from the output's panel base.
    output: i64,
    /// Channels from the first of the group.
    channel: i64,
}

/// What is the same for all rows of a task.
struct Group<'k> {
    operands: &'k Operands,
    vectors: Vec<Lanes>,
    x: Value,
    /// Weight pointers, one for each panel width, and that width.
    w: Vec<(Value, usize)>,
    /// Bytes from the output's base.
    y: Value,
    bias: Option<Value>,
    channel: Value,
    image: Value,
    kind: &'k PanelGroup,
}

/// Which channel blocks are summed now.
struct Pass {
    index: Value,
    from: Value,
    to: Value,
    last: usize,
}

/// One tile of a row.
struct TileAt<'r> {
    run: &'r Run,
    /// Valid taps of depth and height.
    bounds: [(Index, Index); 2],
    /// The pixel that tap 0 of pixel 0 reads.
    input: Value,
    /// The pixel where pixel 0 lies.
    output: Value,
}

struct Inner<'i> {
    group: &'i Group<'i>,
    segment: &'i Segment,
    tile: usize,
    pixels: &'i Range<usize>,
}

/// `p + i * bytes`; nothing for the strides of a phase without taps, which are 0.
fn along(b: &mut Builder, p: Value, i: Value, bytes: usize) -> Value {
    if bytes == 0 { p } else { b.ptr(p.at(0).idx(i, bytes)) }
}

/// A convolution that reads each pixel where it writes it sees a plane as rows of any length: one that cuts well into tiles
/// and still leaves rows for tasks.
fn flattened(conv: &Conv) -> Conv {
    let plane = conv.input_plane();
    if !conv.axes.iter().all(Axis::is_identity) || plane == 0 {
        return conv.clone();
    }
    const LONGEST: usize = 512;
    let width = (1..=plane.min(LONGEST)).rev().find(|w| plane.is_multiple_of(*w)).unwrap_or(1);
    // A prime number of pixels beyond the limit stays one row.
    let width = if width < 32 { plane } else { width };
    let row = |n: usize| Axis { inputs: n, outputs: n, out_extent: n, ..Axis::UNIT };
    Conv { axes: [Axis::UNIT, row(plane / width), row(width)], ..conv.clone() }
}
