//! Direct convolution, and matrix products as convolutions with one tap: a tile of output channels by pixels stays in
//! registers for all input channels and taps.
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
//! border of a row that has others. Its order of loads follows the register budget in [`tile`]: the smaller side of the tile
//! is held, the other streamed.
//!
//! Passes: when a tile's weights exceed half of L1, the channel blocks are split so that one part's weights fit. A pass sums
//! from zero and is added to those before as a whole: the error of a sum grows with the terms of a pass and the number of
//! passes, not with their product. Partial sums of a convolution lie in the output. Where a residual shares the output's
//! memory (`Same` extras read where the output is written for the last time) they lie in scratch memory, one tile behind the
//! other; and so do those of a matrix, whose rows lie far apart: each tile would touch lines and pages of its own in every
//! pass. A pass of a matrix product has at least `PASS_STEPS` channels, if their weights fit L1.
//!
//! What is read and written for the first time is asked for ahead, where the target can: with each tile, a share of the weights
//! of the next pass, if they do not stay in L2 and the pass's own are in L1 (else the two compete for the misses that a core
//! can have under way); the lines of operands of the result's place, and in a matrix product those of the output, when a tile
//! begins for the last time; and with one tap the pixels of the next tile. The hardware follows none of them: a pass ends a
//! stream every few kilobytes, the rows of a tile are short pieces in many pages, and its pixels a few lines of every block.
//!
//! Tasks go over panels inside of rows when all weights fit L2 (the input is read once from memory), else rows inside of panels
//! (the weights are); of so many images at a time that their inputs stay in L2 for all panels. Needs: with more than one group,
//! channels a group are multiples of 16 on both sides.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | what is chosen: tile, passes, tasks, unrolling; the kernel as a whole |
//! | `shape.rs` | channel counts as an operand, so that layers share code |
//! | `task.rs` | a group of panels for some rows, pass by pass |
//! | `rows.rs` | a row cut into tiles; bias, partial sums, epilogue |
//! | `sums.rs` | the products of a tile: the innermost loops |

mod rows;
mod shape;
mod sums;
mod task;

use super::schedule::Schedule;
use super::tile::{self, Splat, Tile, UNROLL};
use super::{Conv, Operands, Segment, Sink, Source, Weights, panel_widths, segments};
use crate::kernels::bands::Band;
use crate::kernels::epilogue::Extra;
use crate::kernels::isa_name;
use crate::kernels::window::{Axis, Run, TapGroup, balanced};
use crate::kir::{ArgDecl, Builder, Elem, Kernel, Value};
use crate::target::Target;
use nncc_ir::BLOCK;
use std::ops::Range;
use task::TaskAt;

const F32_BYTES: i64 = 4;

/// Bytes of code that one kernel may have, roughly; beyond it the generic template serves. A third of L1i.
const CODE_LIMIT: usize = 24 * 1024;

/// Instructions up to which the taps of a row stand one behind the other, with all channels of a block: first layers.
const UNROLLED_TAPS: usize = 448;

/// The fewest channels of a pass of a matrix product: each tile then stores and loads its sums once in so many steps.
const PASS_STEPS: usize = 128;

/// Weights that fewer tiles use are better read once than kept.
const USES: usize = 4;

/// Where the sums of a pass wait for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Where the results will lie.
    Output,
    /// In scratch memory, one tile behind the other.
    Scratch,
}

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
    kept: Kept,
    /// Rows of one task.
    rows: usize,
    /// Do tasks go over panels first?
    panels_inner: bool,
    /// Images that a group of panels meets one behind the other, where they do not.
    images: usize,
}

impl<'a> Direct<'a> {
    /// Chooses rows, tile, passes and tasks. `in_place` says that an operand shares the output's memory, which forbids partial
    /// sums there.
    pub fn new(target: &'a Target, conv: &Conv, in_place: bool) -> Direct<'a> {
        Direct::scheduled(target, &flattened(target, conv), in_place, None)
    }

    /// The same with the convolution's rows as they are, and with a schedule from elsewhere if its tile fits the layer.
    pub fn scheduled(target: &'a Target, conv: &Conv, in_place: bool, schedule: Option<Schedule>) -> Direct<'a> {
        let mut direct = Direct::unsplit(target, conv);
        match schedule.filter(|s| direct.takes(s.tile)) {
            Some(Schedule { tile, pass_blocks, rows, panels_inner }) => {
                direct.pass_blocks = pass_blocks.clamp(1, direct.blocks());
                direct.rows = rows.clamp(1, direct.row_count().max(1));
                (direct.tile, direct.panels_inner) = (tile, panels_inner);
                direct.images = direct.best_block();
            }
            None => {
                direct.images = direct.best_block();
                direct.choose_tasks();
            }
        }
        direct.keep_sums(in_place);
        direct
    }

    /// A layer in bands of at most `rows` rows, whose bounds another kernel chooses: see [`band`](Direct::band). `axes` say
    /// what of input and output lies in memory. Passes are those of the whole layer, so that sums are the same.
    pub(crate) fn banded(target: &'a Target, whole: &Conv, axes: [Axis; 3], rows: usize, in_place: bool) -> Direct<'a> {
        let pass_blocks = Direct::unsplit(target, &flattened(target, whole)).pass_blocks;
        let conv = Conv { axes, ..whole.clone() };
        let mut direct = Direct { rows, pass_blocks, ..Direct::unsplit(target, &conv) };
        direct.keep_sums(in_place);
        direct
    }

    /// Chooses tile and passes; all rows are one task.
    fn unsplit(target: &'a Target, conv: &Conv) -> Direct<'a> {
        let segments = segments(conv.inputs, conv.input_plane(), conv.source);
        let splat = splat_of(target, &segments);
        let tile = tile::choose(target, splat, panel_widths(conv.outputs).len(), conv.axes[2].outputs);
        let block_bytes = BLOCK * conv.taps() * tile.panels * BLOCK * 4;
        let tiles: usize =
            conv.axes[..2].iter().map(|a| a.outputs).product::<usize>() * conv.axes[2].outputs.div_ceil(tile.pixels);
        let full_blocks = conv.inputs / BLOCK;
        let mut pass_bytes = target.l1d / 2;
        if conv.sink == Sink::Matrix {
            pass_bytes = pass_bytes.max(target.l1d.min(PASS_STEPS * tile.panels * BLOCK * 4));
        }
        let fitting = (pass_bytes / block_bytes.max(1)).max(1);
        // A single block's pass would store and load each sum every 16 channels; two or more when the taps are few.
        let pass_blocks = match tiles < USES || full_blocks * block_bytes <= pass_bytes {
            true => full_blocks,
            false => balanced(full_blocks, fitting).next().unwrap_or(full_blocks),
        };
        Direct {
            target,
            conv: conv.clone(),
            segments,
            splat,
            tile,
            pass_blocks: pass_blocks.max(1),
            kept: Kept::Output,
            rows: conv.axes[..2].iter().map(|a| a.outputs).product::<usize>().max(1),
            panels_inner: true,
            images: 1,
        }
    }

    /// Chooses where partial sums wait.
    fn keep_sums(&mut self, in_place: bool) {
        if (in_place || self.conv.sink == Sink::Matrix) && self.sums_bytes(self.rows) <= self.most_sums() {
            self.kept = Kept::Scratch;
        } else if in_place {
            self.pass_blocks = self.blocks();
        }
    }

    /// Full blocks of input channels; one if there is none.
    fn blocks(&self) -> usize {
        (self.conv.inputs / BLOCK).max(1)
    }

    /// Can the layer have that tile?
    fn takes(&self, tile: Tile) -> bool {
        let panels = panel_widths(self.conv.outputs).len();
        tile::fits(self.target, self.splat, panels, self.conv.axes[2].outputs, tile)
    }

    /// How it is walked.
    pub fn schedule(&self) -> Schedule {
        let &Direct { tile, pass_blocks, rows, panels_inner, .. } = self;
        Schedule { tile, pass_blocks, rows, panels_inner }
    }

    /// Schedules that may do better: each differs from this one in its tile, its passes, or its tasks.
    pub fn alternatives(&self) -> Vec<Schedule> {
        let own = self.schedule();
        let (row, panels) = (self.conv.axes[2].outputs, panel_widths(self.conv.outputs).len());
        let mut tiles: Vec<Tile> = (1..=panels.clamp(1, 4))
            .map(|p| Tile { panels: p, pixels: tile::pixels(self.target, self.splat, p, row) })
            .collect();
        // One tile of a row more or less.
        let count = self.tiles_of_a_row(own.tile.pixels);
        let neighbours = [count + 1, count.saturating_sub(1).max(1)].map(|n| row.div_ceil(n));
        tiles.extend(neighbours.map(|pixels| Tile { pixels, ..own.tile }));
        let blocks = self.blocks();
        let passes = [own.pass_blocks / 2, own.pass_blocks * 2, blocks];
        let rows = [own.rows / 2, own.rows * 2];
        let mut all: Vec<Schedule> = tiles.into_iter().map(|tile| Schedule { tile, ..own }).collect();
        all.extend(passes.map(|n| Schedule { pass_blocks: n.clamp(1, blocks), ..own }));
        all.extend(rows.map(|n| Schedule { rows: n.clamp(1, self.row_count().max(1)), ..own }));
        all.push(Schedule { panels_inner: !own.panels_inner, ..own });
        all.retain(|s| self.takes(s.tile));
        all
    }

    /// Bytes of the sums of a task of so many rows.
    fn sums_bytes(&self, rows: usize) -> usize {
        rows * self.conv.axes[2].outputs * self.sums_pitch()
    }

    /// Bytes of the sums of one pixel.
    fn sums_pitch(&self) -> usize {
        self.tile.panels * BLOCK * 4
    }

    /// Bytes of sums that may lie in scratch memory: they leave room for weights and inputs in L2.
    fn most_sums(&self) -> usize {
        self.target.l2 / 4
    }

    /// Rows a task and the order of tasks. Enough tasks for a few threads to share evenly when there is work, rows enough to
    /// use the weights of a pass several times, and the cheaper of the two orders by bytes from beyond L2.
    fn choose_tasks(&mut self) {
        /// Multiply-adds of a task worth a thread, and of one that is long enough for any purpose.
        const LEAST: u64 = 1 << 18;
        const PLENTY: u64 = 1 << 20;
        let (conv, target) = (&self.conv, self.target);
        let rows = self.row_count();
        let groups = self.panel_groups() * conv.groups * conv.batch;
        let wanted = (conv.macs() / LEAST).clamp(1, 16).max((conv.macs() / PLENTY).min(64)) as usize;
        let (input, weights) = (self.input_bytes(), conv.groups * self.weight_bytes());
        let by_sums = match conv.sink {
            Sink::Matrix => self.sums_bytes(rows).div_ceil(self.most_sums()),
            Sink::Blocked => 1,
        };
        // Weights that do not stay in L2 are asked for ahead, a share with each tile: a chunk has some.
        let tiles = rows * self.tiles_of_a_row(self.tile.pixels);
        let most = if weights > target.l2 / 2 { tiles / (2 * USES - 1) } else { rows };
        let chunks = wanted.div_ceil(groups).min(most).max(by_sums).max(1);
        let by_cache = (2 * input).div_ceil(target.l2);
        let inner_chunks = chunks.max(by_cache).clamp(1, rows.max(1));
        self.panels_inner = self.traffic(true, inner_chunks) <= self.traffic(false, chunks);
        let chunks = if self.panels_inner { inner_chunks } else { chunks };
        self.rows = rows.div_ceil(chunks.clamp(1, rows.max(1))).max(1);
    }

    /// Bytes of the input that are read.
    fn input_bytes(&self) -> usize {
        // A stride beyond the taps leaves out rows and pixels.
        let read = |a: &Axis| a.inputs.min(a.outputs * a.taps);
        4 * self.conv.groups * self.conv.inputs * self.conv.axes.iter().map(read).product::<usize>()
    }

    /// Bytes from beyond L2. Panels inside: input once, weights once a chunk unless they stay in L2. Rows inside: as
    /// [`traffic_of_blocks`](Direct::traffic_of_blocks) says.
    fn traffic(&self, panels_inner: bool, chunks: usize) -> usize {
        match panels_inner {
            true => self.inputs_read() * self.input_bytes() + self.weights_read(self.inputs_read() * chunks),
            false => self.traffic_of_blocks(self.images),
        }
    }

    /// The same for rows inside of panels, in blocks of so many images: weights once a block, inputs once a group of panels
    /// unless those of a block stay in L2.
    fn traffic_of_blocks(&self, images: usize) -> usize {
        let times = if self.images_stay(images) { 1 } else { self.panel_groups() };
        self.inputs_read() * self.input_bytes() * times + self.weights_read(self.inputs_read().div_ceil(images))
    }

    /// Do the inputs of so many images stay in L2? The hardware brings what a stride leaves out, too.
    fn images_stay(&self, images: usize) -> bool {
        let plane: usize = self.conv.axes.iter().map(|a| a.inputs).product();
        let brought = 4 * self.conv.groups * self.conv.inputs * plane;
        images * if images > 1 { brought } else { self.input_bytes() } <= self.target.l2 / 2
    }

    /// Images that the same weights meet. Each of a batch of matrices has its own.
    fn inputs_read(&self) -> usize {
        if self.conv.weights == Weights::Panels { self.conv.batch.max(1) } else { 1 }
    }

    /// Bytes of weights read in so many walks over them.
    fn weights_read(&self, walks: usize) -> usize {
        let weights = self.conv.groups * self.weight_bytes();
        if weights <= self.target.l2 / 2 { weights } else { weights * walks }
    }

    /// Of the equal blocks of images the one that moves the fewest bytes; the largest of several.
    fn best_block(&self) -> usize {
        let all = self.conv.batch.max(1);
        let sizes = (1..=all).rev().filter(|&size| all.is_multiple_of(size));
        sizes.min_by_key(|&size| self.traffic_of_blocks(size)).unwrap_or(1)
    }

    /// The same of the order and the tasks that were chosen.
    pub fn beyond_l2(&self) -> usize {
        self.traffic(self.panels_inner, self.chunks())
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
        let whole = Direct { rows: self.row_count().max(1), ..self.clone() };
        let shape = whole.known_shape(b);
        let (zero, rows) = (b.i64(0), b.i64(self.row_count() as i64));
        let at = TaskAt { band: Band::of_whole(b, zero, [zero, rows]), conv_group, panel_group, y };
        whole.panels(b, operands, &shape, &self.kinds()[range], &at);
    }

    /// Inside of another kernel: all channels of a band.
    pub(crate) fn band(&self, b: &mut Builder, operands: &Operands, band: &Band) {
        let shape = self.known_shape(b);
        let kinds = self.kinds();
        for (kind, (groups, _)) in kinds.iter().zip(self.group_ranges()) {
            b.for_(0, self.conv.groups, 1, |b, conv_group| {
                b.for_(groups.start, groups.end, 1, |b, panel_group| {
                    let y = self.first_output(b, &shape, band, [conv_group, panel_group]);
                    let at = TaskAt { band: *band, conv_group, panel_group, y };
                    self.panels(b, operands, &shape, kind, &at);
                });
            });
        }
    }

    /// What is convolved.
    pub(crate) fn conv(&self) -> &Conv {
        &self.conv
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        if self.conv.axes.iter().any(|a| a.outputs == 0) || self.conv.outputs == 0 {
            return 0;
        }
        self.conv.batch * self.conv.groups * self.panel_groups() * self.chunks()
    }

    /// Does the kernel sum in several passes?
    fn partial_sums(&self) -> bool {
        self.passes() > 1
    }

    /// Do partial sums lie in the output?
    pub(crate) fn sums_in_output(&self) -> bool {
        self.partial_sums() && !self.sums_in_scratch()
    }

    /// Are partial sums kept in scratch memory?
    fn sums_in_scratch(&self) -> bool {
        self.partial_sums() && self.kept == Kept::Scratch
    }

    /// Does the kernel ask for what comes next?
    fn looks_ahead(&self) -> bool {
        let output = 4 * self.conv.batch * self.conv.groups * self.conv.outputs * self.conv.output_plane();
        let reads = self.conv.epilogue.extras.contains(&Extra::Same) && output > self.target.l2;
        let gains = self.conv.sink == Sink::Matrix || self.ahead() > 0 || reads;
        self.target.prefetches && self.conv.weights == Weights::Panels && gains
    }

    /// Does a tile ask for the pixels of the next one? A tile of a single tap reads a few lines of every block of channels:
    /// more streams than the hardware follows. Of use where many of the reads come from beyond L2.
    fn asks_for_input(&self) -> bool {
        /// Groups of panels that read the same lines, of which one has to wait for them.
        const READERS: usize = 4;
        let conv = &self.conv;
        let blocked = conv.taps() == 1 && conv.source == Source::Blocked;
        let large = self.inputs_read() * self.input_bytes() > self.target.l2;
        let stays = self.panels_inner || self.images_stay(self.images);
        self.target.prefetches && blocked && large && (!stays || self.panel_groups() <= READERS)
    }

    /// Bytes of the weights of one group of channels.
    fn weight_bytes(&self) -> usize {
        4 * self.conv.inputs * self.conv.outputs * self.conv.taps()
    }

    /// Tiles of one row of outputs.
    fn tiles_of_a_row(&self, widest: usize) -> usize {
        self.conv.axes[2].outputs.div_ceil(widest)
    }

    /// Rows of weights of a panel that each tile asks for, so that all of the next pass have come when it begins. None where
    /// the weights stay in L2, few tiles would ask for much, or a convolution's tiles stream their own from there.
    fn ahead(&self) -> usize {
        let conv = &self.conv;
        let tiles = self.rows * self.tiles_of_a_row(self.tile.pixels);
        let from_l1 = conv.sink == Sink::Matrix || self.partial_sums();
        if self.weight_bytes() <= self.target.l2 / 2 || tiles < USES || !from_l1 {
            return 0;
        }
        let of_a_pass = if self.partial_sums() { self.pass_blocks * BLOCK } else { conv.inputs };
        (of_a_pass * conv.taps()).div_ceil(tiles)
    }

    fn passes(&self) -> usize {
        (self.conv.inputs / BLOCK).div_ceil(self.pass_blocks).max(1)
    }

    /// Scratch bytes of a thread: those of a long epilogue, then the sums of a task.
    pub fn scratch(&self) -> usize {
        self.epilogue_scratch() + if self.sums_in_scratch() { self.sums_bytes(self.rows) } else { 0 }
    }

    fn epilogue_scratch(&self) -> usize {
        if !self.conv.epilogue.is_long() {
            return 0;
        }
        // A cache line for each vector of a tile, of whichever group of panels.
        let vectors = BLOCK.div_ceil(self.target.lanes(Elem::F32));
        let lines = self.kinds().iter().map(|kind| kind.widths.len() * vectors * kind.pixels).max();
        lines.unwrap_or(0) * BLOCK * 4
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

    /// The kernel's name.
    pub(crate) fn name(&self) -> String {
        let (isa, channels) = (isa_name(self.target), self.tile.panels * BLOCK);
        format!("{}__{isa}_{channels}x{}", self.conv.name(), self.tile.pixels)
    }

    /// The kernel. Operands: x, w, bias (if there is one), the epilogue's extras, y, [`shape`](Self::shape).
    pub fn kernel(&self) -> Kernel {
        let y = if self.sums_in_output() { ArgDecl::read_write("y", 4) } else { ArgDecl::write("y", 4) };
        let mut args = self.conv.arguments(&["x", "w"], y);
        args.push(ArgDecl::read("shape", 64));
        let mut b = Builder::new(self.name(), args);
        let extras = self.conv.epilogue.extras.len();
        let operands = Operands::of_args(&b, self.conv.bias, extras);
        let last = b.arg(3 + usize::from(self.conv.bias) + extras);
        // Read by each task, so that what only finds its place waits in no register or stack slot.
        b.tasks(|b, task| {
            let shape = self.load_shape(b, last);
            self.task(b, &operands, &shape, task);
        });
        b.finish()
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

fn splat_of(target: &Target, segments: &[Segment]) -> Splat {
    tile::splat(target, segments.first().map_or(1, |s| s.channel_pitch))
}

/// A convolution that reads each pixel where it writes it sees a plane as rows of any length: one that cuts well into tiles
/// and leaves rows for tasks.
pub fn flattened(target: &Target, conv: &Conv) -> Conv {
    let (plane, panels) = (conv.input_plane(), panel_widths(conv.outputs).len());
    let splat = splat_of(target, &segments(conv.inputs, plane, conv.source));
    if !conv.axes.iter().all(Axis::is_identity) || plane == 0 {
        return conv.clone();
    }
    /// A row costs some fifty cycles of its own.
    const SHORTEST: usize = 28;
    const LONGEST: usize = 512;
    /// Rows that let a few threads share a plane.
    const ROWS: usize = 8;
    let cost = |w: usize| tile::pixel_cost(target, splat, panels, w);
    let widths: Vec<(usize, f64)> =
        (SHORTEST..=plane.min(LONGEST)).filter(|w| plane.is_multiple_of(*w)).map(|w| (w, cost(w))).collect();
    let least = widths.iter().map(|w| w.1).fold(f64::INFINITY, f64::min);
    let good = || widths.iter().filter(|(_, cost)| *cost <= least * 1.02).map(|&(w, _)| w);
    // A prime number of pixels stays one row, and so do few.
    let width = good().filter(|w| plane / w >= ROWS).max().or_else(|| good().min()).unwrap_or(plane);
    let row = |n: usize| Axis::sliding(n, n, 1, 1, 1, 0);
    Conv { axes: [Axis::UNIT, row(plane / width), row(width)], ..conv.clone() }
}
