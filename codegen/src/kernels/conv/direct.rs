//! Direct convolution, and matrix products as convolutions with one tap: a tile of output channels by pixels stays in registers for all input channels
//! and taps.
//!
//! ```text
//! x  [N][C/16][D][H][W][16] or row-major      w  [panel][C/16][kd][kh][kw][16 channels in][16 out]      y  blocked
//!
//! for task (image, group of panels, chunk of rows)
//!   for pass over blocks of input channels                     weights of one pass stay in L1
//!     for row, for tile of the row                             tiles: window.rs
//!       acc = bias, or 0 where there are several passes
//!       for channel block, kd, kh (clipped to the input), kw
//!         for channel    acc[v][px] += w[channel][v] * x[px][channel]
//!       y = epilogue(acc + passes before), or store partial sums
//! ```
//!
//! A matrix product `[M, K] . [K, N]` has M pixels, K input and N output channels: the same loops over other distances between
//! elements, with partial vectors for the last columns.
//!
//! The loop over channels inside of a block is unrolled until the loop's own instructions are below 5 %, but for tiles at the
//! border of a row that has others. Its order of loads
//! follows the register budget in [`tile`]: the smaller side of the tile is held, the other streamed.
//!
//! Passes: when a tile's weights exceed half of L1, the channel blocks are split so that one part's weights fit. Partial sums
//! then lie in the output, which a residual must not share with it: `Same` extras read where the output is written for the
//! last time, so there are no passes when a plan computes in place. A pass sums from zero and is added to those before as a
//! whole: the error of a sum grows with the terms of a pass and the number of passes, not with their product.
//!
//! Channel counts, and what follows from them alone, are no constants of the kernel but an operand (`Shape`): layers that
//! differ in nothing else share its code.
//!
//! Tasks go over panels inside of rows when all weights fit L2 (the input is read once from memory), else rows inside of panels
//! (the weights are). Needs: with more than one group, channels a group are multiples of 16 on both sides.

use super::tile::{self, Splat, Tile};
use super::{Conv, Segment, Sink, Source, Weights, panel_widths, segments};
use crate::kernels::epilogue::Site;
use crate::kernels::isa_name;
use crate::kernels::window::{Axis, Run, TapGroup, balanced, div_rem, div_rem_by};
use crate::kir::{ArgDecl, Builder, Elem, I64, Index, IntCc, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::BLOCK;
use std::ops::Range;

const F32_BYTES: i64 = 4;

/// Bytes of code that one kernel may have, roughly; beyond it the generic template serves. A third of L1i.
const CODE_LIMIT: usize = 24 * 1024;

/// Instructions that an unrolled stretch needs for the loop's own four (two additions, a compare and a branch) to be less than
/// a twentieth.
const UNROLL: usize = 19 * 4;

/// Instructions up to which the taps of a row stand one behind the other, with all channels of a block: first layers.
const UNROLLED_TAPS: usize = 448;

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
        let shape = Shape::new(whole.shape_numbers().map(|n| b.i64(n as i64)));
        let at = TaskAt { image, conv_group, panel_group, chunk: image, y };
        whole.panels(b, operands, &shape, &self.kinds()[range], &at);
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
        let reach = 4 * BLOCK * self.tile.panels * self.conv.output_plane();
        let pitch = self.segments.iter().map(|s| s.channel_pitch.max(s.pixel_pitch)).max().unwrap_or(1);
        let rows = if let Weights::Rows { .. } = self.conv.weights { self.conv.outputs } else { 0 };
        let planar = 4 * 32 * pitch.max(rows).max(self.output_pitch(BLOCK));
        bytes <= CODE_LIMIT && reach.max(planar) < 1 << 30
    }

    /// Instructions of one channel and tap on a tile of this many pixels.
    fn step_cost(&self, pixels: usize) -> usize {
        let lanes = self.target.lanes(Elem::F32).min(BLOCK);
        let vectors = self.tile.panels * BLOCK / lanes;
        // A load that only one multiply-add uses is part of it: of weights in AVX, of broadcast inputs in AVX-512.
        let weights = if pixels == 1 && lanes > 4 { 0 } else { vectors };
        let inputs = if vectors == 1 && lanes == 16 { 0 } else { pixels };
        weights + inputs + vectors * pixels * if self.target.fma { 1 } else { 2 }
    }

    /// Channel steps that stand one behind the other for a group of taps.
    fn unrolled(&self, group: &TapGroup, pixels: usize) -> usize {
        let channels = self.segments.iter().map(|s| s.channels).max().unwrap_or(0);
        let steps = self.channel_unroll(channels, pixels);
        if self.taps_unrolled(group, channels, pixels) { steps * group.taps.len() } else { steps }
    }

    /// Channels that stand one behind the other: a divisor of `channels`, and of four channels' vectors where lanes are used.
    fn channel_unroll(&self, channels: usize, pixels: usize) -> usize {
        let unit = self.channel_unit(channels);
        let enough = |u: &usize| u * self.step_cost(pixels) >= UNROLL;
        let whole = |u: &usize| channels.is_multiple_of(*u) && u.is_multiple_of(unit);
        (1..channels).filter(whole).find(enough).unwrap_or(channels)
    }

    /// The fewest channels that can stand one behind the other.
    fn channel_unit(&self, channels: usize) -> usize {
        match self.splat {
            Splat::Lane if channels.is_multiple_of(4) => 4,
            Splat::Lane => channels, // an edge block of a few channels
            Splat::Load => 1,
        }
    }

    fn taps_unrolled(&self, group: &TapGroup, channels: usize, pixels: usize) -> bool {
        group.taps.len() == 1 || group.taps.len() * channels * self.step_cost(pixels) <= UNROLLED_TAPS
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

    /// What the kernel's last operand holds: the numbers of `Shape`.
    pub fn shape(&self) -> Vec<u8> {
        self.shape_numbers().iter().flat_map(|&n| (n as i64).to_le_bytes()).collect()
    }

    fn shape_numbers(&self) -> [usize; Shape::NUMBERS] {
        let conv = &self.conv;
        let channels = conv.groups * conv.outputs;
        let stored = if conv.sink == Sink::Matrix { channels } else { nncc_ir::padded_channels(channels) };
        [
            self.panel_groups(),
            panel_widths(conv.outputs).len(),
            self.chunks(),
            self.rows,
            conv.inputs / BLOCK,
            self.pass_blocks,
            self.passes(),
            conv.inputs * conv.taps(),
            self.input_image(),
            conv.inputs * conv.input_plane(),
            stored * conv.output_plane(),
        ]
    }

    /// Reads the numbers of the shape.
    fn load_shape(&self, b: &mut Builder, operand: Value) -> Shape {
        let mut shape = Shape::new(std::array::from_fn(|i| b.load(I64, operand.at(8 * i as i64))));
        if self.conv.inputs < BLOCK {
            shape.blocks = b.i64(0);
        }
        shape
    }

    /// Elements from one image of the input to the next.
    fn input_image(&self) -> usize {
        let conv = &self.conv;
        match conv.source {
            Source::Blocked => nncc_ir::padded_channels(conv.groups * conv.inputs) * conv.input_plane(),
            Source::Planar => conv.groups * conv.inputs * conv.input_plane(),
            Source::Matrix { image, .. } => image,
        }
    }

    /// The kernel. Operands: x, w, bias (if there is one), the epilogue's extras, y, [`shape`](Self::shape).
    pub fn kernel(&self) -> Kernel {
        let mut args = vec![ArgDecl::read("x", 4), ArgDecl::read("w", 64)];
        if self.conv.bias {
            args.push(ArgDecl::read("bias", 64));
        }
        args.extend((0..self.conv.epilogue.extras.len()).map(|i| ArgDecl::read(format!("e{i}"), 4)));
        args.push(if self.partial_sums() { ArgDecl::read_write("y", 4) } else { ArgDecl::write("y", 4) });
        args.push(ArgDecl::read("shape", 64));
        let name = format!(
            "{}__{}_{}x{}",
            self.conv.name(),
            isa_name(self.target),
            self.tile.panels * BLOCK,
            self.tile.pixels
        );
        let mut b = Builder::new(name, args);
        let extras = self.conv.epilogue.extras.len();
        let operands = Operands::of_args(&b, self.conv.bias, extras);
        let last = b.arg(3 + usize::from(self.conv.bias) + extras);
        let shape = self.load_shape(&mut b, last);
        b.tasks(|b, task| self.task(b, &operands, &shape, task));
        b.finish()
    }

    fn task(&self, b: &mut Builder, operands: &Operands, shape: &Shape, task: Value) {
        let groups = b.mul_imm(shape.panel_groups, self.conv.groups as i64);
        let (image, group, chunk) = if self.panels_inner {
            let (rest, group) = div_rem_by(b, task, groups);
            // One image leaves nothing to divide.
            let (image, chunk) =
                if self.conv.batch == 1 { (b.i64(0), rest) } else { div_rem_by(b, rest, shape.chunks) };
            (image, group, chunk)
        } else {
            let (rest, chunk) = div_rem_by(b, task, shape.chunks);
            let (group, image) = div_rem(b, rest, self.conv.batch);
            (image, group, chunk)
        };
        let (conv_group, panel_group) =
            if self.conv.groups == 1 { (b.i64(0), group) } else { div_rem_by(b, group, shape.panel_groups) };
        let kinds = self.kinds();
        let y = b.mul(image, shape.output_image);
        let y = b.mul_imm(y, F32_BYTES);
        let first_panel = self.first_panel(b, shape, conv_group, panel_group);
        let panel_offset = b.mul_imm(first_panel, self.output_panel() as i64 * F32_BYTES);
        let y = b.add(y, panel_offset);
        let at = TaskAt { image, conv_group, panel_group, chunk, y };
        match &kinds[..] {
            [only] => self.panels(b, operands, shape, only, &at),
            [full, rest] => {
                // The last group is the one that differs.
                let bound = b.add_imm(shape.panel_groups, -1);
                let is_full = b.icmp(IntCc::LtS, panel_group, bound);
                b.if_(
                    is_full,
                    |b| {
                        self.panels(b, operands, shape, full, &at);
                        Vec::new()
                    },
                    |b| {
                        self.panels(b, operands, shape, rest, &at);
                        Vec::new()
                    },
                );
            }
            _ => {}
        }
    }

    /// The number of the first panel of a group of panels, counted over all groups of channels.
    fn first_panel(&self, b: &mut Builder, shape: &Shape, conv_group: Value, panel_group: Value) -> Value {
        let panel = b.mul_imm(panel_group, self.tile.panels as i64);
        let before = b.mul(conv_group, shape.panels);
        b.add(before, panel)
    }

    /// All rows of a task for one group of panels.
    fn panels(&self, b: &mut Builder, operands: &Operands, shape: &Shape, kind: &PanelGroup, at: &TaskAt) {
        let panel_of_all = self.first_panel(b, shape, at.conv_group, at.panel_group);
        let input_image = b.mul(at.image, shape.input_image);
        let input_group = b.mul(at.conv_group, shape.input_group);
        let input = b.add(input_image, input_group);
        let x = b.ptr(operands.x.at(0).idx(input, 4));
        let bias = operands.bias.map(|bias| b.ptr(bias.at(0).idx(panel_of_all, BLOCK * 4)));
        let channel = b.mul_imm(panel_of_all, BLOCK as i64);
        let vectors = self.vectors(kind);
        let PanelWeights { pointers, distances } =
            self.panel_weights(b, operands.w, shape, kind, [panel_of_all, at.image]);
        let group =
            Group { operands, vectors, x, w: pointers, distances, y: at.y, bias, channel, image: at.image, kind };

        let lo = b.mul(at.chunk, shape.rows);
        let hi = b.add(lo, shape.rows);
        let rows = b.i64(self.row_count() as i64);
        let hi = b.min_s(hi, rows);
        if !self.partial_sums() {
            let pass = Pass { from: b.i64(0), to: shape.blocks, blocks: shape.blocks, place: None };
            b.for_(lo, hi, 1, |b, row| self.row(b, &group, &pass, row));
            return;
        }
        b.for_(0, shape.passes, 1, |b, index| {
            let from = b.mul(index, shape.pass_blocks);
            let to = b.add(from, shape.pass_blocks);
            let to = b.min_s(to, shape.blocks);
            let zero = b.i64(0);
            let last = b.add_imm(shape.passes, -1);
            let place = Some((b.icmp(IntCc::Eq, index, zero), b.icmp(IntCc::Eq, index, last)));
            let pass = Pass { from, to, blocks: shape.blocks, place };
            b.for_(lo, hi, 1, |b, row| self.row(b, &group, &pass, row));
        });
    }

    /// The weights of a tile's panels. The full panels share a pointer, each with a distance of its own, so that a loop advances
    /// one pointer for all; an edge panel, of other rows, has its own.
    fn panel_weights(
        &self,
        b: &mut Builder,
        w: Value,
        shape: &Shape,
        kind: &PanelGroup,
        [first, image]: [Value; 2],
    ) -> PanelWeights {
        let base = match self.conv.weights {
            Weights::Panels => w,
            Weights::Rows { image: pitch } => along(b, w, image, pitch * 4),
        };
        // Each panel begins at a multiple of 64 bytes: a row of 16 numbers for each input channel and tap.
        let rows = |b: &mut Builder, panels: Value| match self.conv.weights {
            Weights::Panels => b.mul(panels, shape.weight_rows),
            Weights::Rows { .. } => panels,
        };
        let full = kind.widths.iter().filter(|&&width| width == BLOCK).count();
        let mut pointers = Vec::with_capacity(2);
        for (panel, &width) in kind.widths.iter().enumerate().filter(|&(panel, _)| panel == 0 || panel == full) {
            let number = b.add_imm(first, panel as i64);
            let at = rows(b, number);
            pointers.push((b.ptr(base.at(0).idx(at, BLOCK * 4)), width));
        }
        let distances = (0..kind.widths.len()).map(|panel| {
            (panel > 0 && panel < full).then(|| {
                let panels = b.i64(panel as i64);
                let distance = rows(b, panels);
                b.mul_imm(distance, (BLOCK * 4) as i64)
            })
        });
        let distances = distances.collect();
        PanelWeights { pointers, distances }
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
                vectors.push(Lanes {
                    ty: Type::of(Elem::F32, lanes),
                    count: lanes.min(columns - i * lanes),
                    panel,
                    class: usize::from(width != BLOCK && kind.widths[0] == BLOCK),
                    width,
                    weight: (i * lanes * 4) as i64,
                    output: ((panel * self.output_panel() + i * lanes) * 4) as i64,
                    channel: (panel * BLOCK + i * lanes) as i64,
                });
            }
        }
        vectors
    }

    fn row(&self, b: &mut Builder, group: &Group<'_>, pass: &Pass, row: Value) {
        let [depth, height, width] = &self.conv.axes;
        let (od, oh) = div_rem(b, row, height.outputs);
        let bounds = [depth.tap_bounds(b, od), height.tap_bounds(b, oh)];
        // The pixel that tap (0, 0) of the row reads at column 0; may lie before the input.
        let id = depth.first_input(b, od);
        let ih = height.first_input(b, oh);
        let plane_row = b.mul_imm(id, height.inputs as i64);
        let plane_row = b.add(plane_row, ih);
        let input = b.mul_imm(plane_row, width.inputs as i64);
        let pd = depth.place(b, od);
        let ph = height.place(b, oh);
        let out_row = b.mul_imm(pd, height.out_extent as i64);
        let out_row = b.add(out_row, ph);
        let output = b.mul_imm(out_row, width.out_extent as i64);
        let runs = width.runs(group.kind.pixels);
        let inner = runs.iter().any(|run| run.is_whole(width.taps));
        for runs in runs.chunk_by(|a, b| a.width == b.width) {
            // Tiles of one width share all code but that of the products.
            let (first, pixels) = (runs[0].start, runs[0].width);
            let tiles: usize = runs.iter().map(|run| run.count).sum();
            b.for_(0, tiles, 1, |b, index| {
                let start = b.mul_imm(index, pixels as i64);
                let start = b.add_imm(start, first as i64);
                let column = width.first_input(b, start);
                let input = b.add(input, column);
                let out_column = width.place(b, start);
                let output = b.add(output, out_column);
                self.tile(b, group, pass, &TileAt { runs, pixels, index, inner, bounds, input, output });
            });
        }
    }

    /// One tile: sums, then the epilogue.
    fn tile(&self, b: &mut Builder, group: &Group<'_>, pass: &Pass, at: &TileAt<'_>) {
        let pixels = at.pixels;
        // Byte offsets of the tile in the output, one for each panel width.
        let mut by_width: Vec<(usize, Value)> = Vec::with_capacity(2);
        for lanes in &group.vectors {
            if by_width.iter().all(|&(width, _)| width != lanes.width) {
                let pixel = b.mul_imm(at.output, self.output_pitch(lanes.width) as i64 * F32_BYTES);
                by_width.push((lanes.width, b.add(group.y, pixel)));
            }
        }
        let offset = |lanes: &Lanes| by_width.iter().find(|(width, _)| *width == lanes.width).map(|&(_, at)| at);
        let offsets: Vec<Value> = group.vectors.iter().filter_map(offset).collect();
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
        let Some((is_first, is_last)) = pass.place else {
            let sums = start(b);
            let sums = self.run(b, group, pass, at, at.runs, &sums);
            self.finish(b, group, &sums, pixels, &offsets, &place);
            return;
        };
        let zeros: Vec<Value> = group.vectors.iter().flat_map(|v| std::iter::repeat_n(b.zero(v.ty), pixels)).collect();
        let sums = self.run(b, group, pass, at, at.runs, &zeros);
        // The adds take what was stored from memory, so that it needs no registers.
        let added = |b: &mut Builder, before: &mut dyn FnMut(&mut Builder, usize, usize) -> Value| -> Vec<Value> {
            let add = |(i, &sum): (usize, &Value)| {
                let before = before(b, i / pixels, i % pixels);
                b.add(sum, before)
            };
            sums.iter().enumerate().map(add).collect()
        };
        let sums = b.if_(
            is_first,
            |b| match group.bias {
                Some(_) => {
                    let bias = start(b);
                    added(b, &mut |_, v, px| bias[v * pixels + px])
                }
                None => sums.clone(),
            },
            |b| {
                added(b, &mut |b, v, px| {
                    let lanes = &group.vectors[v];
                    b.load_part(lanes.ty, y.at(place(v, px)).idx(offsets[v], 1), lanes.count)
                })
            },
        );
        b.if_(
            is_last,
            |b| {
                self.finish(b, group, &sums, pixels, &offsets, &place);
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

    /// Adds all products of the pass to the sums, by the code of the run that the tile belongs to.
    fn run(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        pass: &Pass,
        at: &TileAt<'_>,
        runs: &[Run],
        sums: &[Value],
    ) -> Vec<Value> {
        let (run, others) = match runs {
            [] => return sums.to_vec(),
            [only] => return self.sums(b, group, pass, at, only, sums),
            [run, others @ ..] => (run, others),
        };
        let end = (run.start - at.runs[0].start) / run.width + run.count;
        let end = b.i64(end as i64);
        let here = b.icmp(IntCc::LtS, at.index, end);
        b.if_(here, |b| self.sums(b, group, pass, at, run, sums), |b| self.run(b, group, pass, at, others, sums))
    }

    /// Adds all products of the pass to the sums.
    fn sums(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        pass: &Pass,
        at: &TileAt<'_>,
        run: &Run,
        sums: &[Value],
    ) -> Vec<Value> {
        let mut sums = sums.to_vec();
        for segment in &self.segments {
            let is_edge = segment.channels < BLOCK;
            sums = match pass.place {
                _ if !is_edge => b.loop_(pass.from, pass.to, 1, &sums, |b, block, sums| {
                    self.block(b, group, at, run, segment, block, sums)
                }),
                None => self.block(b, group, at, run, segment, pass.blocks, &sums),
                Some((_, is_last)) => {
                    b.if_(is_last, |b| self.block(b, group, at, run, segment, pass.blocks, &sums), |_| sums.clone())
                }
            };
        }
        sums
    }

    /// One block of input channels.
    #[expect(clippy::too_many_arguments, reason = "the middle of a nest of seven loops")]
    fn block(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        at: &TileAt<'_>,
        run: &Run,
        segment: &Segment,
        block: Value,
        sums: &[Value],
    ) -> Vec<Value> {
        let [depth, height, width] = &self.conv.axes;
        let bytes = |elems: usize| elems * 4;
        let x = b.ptr(group.x.at(0).idx(block, bytes(segment.block_pitch)));
        let x = b.ptr(x.at(0).idx(at.input, bytes(segment.pixel_pitch)));
        // Weights of all blocks before have 16 channels.
        let w: Vec<Value> = group
            .w
            .iter()
            .map(|&(base, width)| along(b, base, block, bytes(BLOCK * self.conv.taps() * self.weight_pitch(width))))
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
                let full = !at.inner || run.is_whole(width.taps);
                for taps in &run.taps {
                    sums = self.taps(b, group, segment, (at.pixels, full), taps, x, &w, sums);
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
        (tile, full): (usize, bool),
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
            self.channels(b, group, segment, (tile, full), &pixels, x, w, sums.to_vec())
        };
        if full && self.taps_unrolled(taps, segment.channels, pixels.len()) || taps.taps.len() == 1 {
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
        (tile, full): (usize, bool),
        pixels: &Range<usize>,
        x: Value,
        w: Vec<Value>,
        sums: Vec<Value>,
    ) -> Vec<Value> {
        // At the border of a row one step is enough: what the loop costs hides behind the multiply-adds of a wide core.
        let unroll = match full {
            true => self.channel_unroll(segment.channels, pixels.len()),
            false => self.channel_unit(segment.channels),
        };
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
        // AVX's addresses take a distance in passing; for the others one addition a panel serves the whole stretch.
        let panels: Vec<Option<Value>> = match self.target.lanes(Elem::F32) {
            4 => inner.group.distances.iter().map(|d| d.map(|d| b.ptr(w[0].at(0).idx(d, 1)))).collect(),
            _ => vec![None; inner.group.distances.len()],
        };
        let weight = |b: &mut Builder, v: usize, channel: usize| {
            let lanes = &vectors[v];
            let at = w[lanes.class].at(lanes.weight + (channel * self.weight_pitch(lanes.width)) as i64 * F32_BYTES);
            let at = match (panels[lanes.panel], inner.group.distances[lanes.panel]) {
                (Some(panel), _) => panel.at(at.disp),
                (None, Some(distance)) => at.idx(distance, 1),
                (None, None) => at,
            };
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

/// Channel counts and what follows from them: what a kernel reads instead of having it as constants.
struct Shape {
    /// Tasks' groups of panels in one group of channels.
    panel_groups: Value,
    /// Panels of one group of channels.
    panels: Value,
    /// Chunks of rows.
    chunks: Value,
    /// Rows of a chunk.
    rows: Value,
    /// Full blocks of input channels.
    blocks: Value,
    /// Of these, those of one pass.
    pass_blocks: Value,
    passes: Value,
    /// Rows of 16 weights of one panel.
    weight_rows: Value,
    /// Elements of the input from one image to the next.
    input_image: Value,
    /// Elements of the input from one group of channels to the next.
    input_group: Value,
    /// Elements of the output from one image to the next.
    output_image: Value,
}

impl Shape {
    const NUMBERS: usize = 11;

    /// From the numbers in the order of the fields.
    fn new(numbers: [Value; Shape::NUMBERS]) -> Shape {
        let [panel_groups, panels, chunks, rows, blocks, pass_blocks, passes, weight_rows, ..] = numbers;
        let [.., input_image, input_group, output_image] = numbers;
        Shape {
            panel_groups,
            panels,
            chunks,
            rows,
            blocks,
            pass_blocks,
            passes,
            weight_rows,
            input_image,
            input_group,
            output_image,
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
    /// Which panel of the tile.
    panel: usize,
    /// Which weight pointer.
    class: usize,
    /// Channels of its panel.
    width: usize,
    /// Bytes from the panel's weights.
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
    /// Bytes from the pointer to the weights of each panel, but for the pointer's own.
    distances: Vec<Option<Value>>,
    /// Bytes from the output's base.
    y: Value,
    bias: Option<Value>,
    channel: Value,
    image: Value,
    kind: &'k PanelGroup,
}

/// Where the weights of a tile's panels lie: as in [`Group`].
struct PanelWeights {
    pointers: Vec<(Value, usize)>,
    distances: Vec<Option<Value>>,
}

/// Which channel blocks are summed now.
struct Pass {
    from: Value,
    to: Value,
    /// All full blocks; the edge block comes behind them, in the last pass.
    blocks: Value,
    /// Where there are several passes: is it the first, is it the last?
    place: Option<(Value, Value)>,
}

/// One tile of a row.
struct TileAt<'r> {
    /// The runs of tiles as wide as this one.
    runs: &'r [Run],
    /// Pixels of a tile.
    pixels: usize,
    /// Which of the tiles of these runs.
    index: Value,
    /// Has the row tiles of which no tap reaches padding?
    inner: bool,
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
