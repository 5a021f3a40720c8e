//! Winograd convolution: 3x3 filters with stride 1 by minimal filtering, `F(m x m, 3 x 3)`.
//!
//! ```text
//!   for channel block, tile        V[k] = B^T d B                         V  [k = n*n][C/16][tiles][16]
//!   for place k                    M[k] = V[k] . U[k]                     M  [k][panel][tiles][16]
//!   for tile, panel                y = pooled(epilogue(A^T M A + bias))
//! ```
//!
//! `U[k] = (G g G^T)[k]` is packed. The products are the [direct](super::direct) template's: a grouped 1x1 convolution whose
//! groups are the `n*n` places of a tile and whose pixels are tiles. There are three ways to walk this, see [`cost`]:
//!
//! | | steps | V and M | U is read |
//! |---|---|---|---|
//! | [`Blocked`](Walk::Blocked) | one kernel, tasks are blocks of tiles | of a block, in scratch, within L2 | once a block |
//! | [`Grouped`](Walk::Grouped) | two kernels; tasks of the second are groups of panels and runs of tiles | V of all tiles in the workspace, M of a run in scratch | once, where a group stays in L2 |
//! | [`Staged`](Walk::Staged) | three kernels, each with tasks of its own | of all tiles, in the workspace | once |
//!
//! Both transforms work on vectors of channels, columns first, through a patch of scratch memory that stays in L1
//! (`input.rs`, `output.rs`). Blocks and runs of tiles that do not divide the grid overlap: the doubled outputs are written twice with the
//! same bits, which an epilogue that reads where it writes forbids (`in_place`); then they divide the grid.
//!
//! A pooling behind the convolution, if there is one, joins the output transform where each window lies inside of a tile: its
//! windows lie [side by side](SideBySide) and the tile's `m` is a multiple of theirs. The tensor between is never in memory.
//!
//! Lavin and Gray 2015 (arXiv:1509.09308).
//! Limits: two spatial axes, one group, channels in whole blocks, short epilogues.

pub mod cost;
pub mod error;
mod input;
mod output;
#[cfg(test)]
mod tests;
pub mod transform;

use super::direct::Direct;
use super::{Conv, Operands, Sink, Source, Weights, layer};
use crate::kernels::epilogue::Epilogue;
use crate::kernels::isa_name;
use crate::kernels::pool::SideBySide;
use crate::kernels::window::{Axis, balanced, div_rem};
use crate::kir::{ArgDecl, Builder, Elem, Index, IntCc, Kernel, Type, Value};
use crate::target::Target;
use crate::tunable::{Candidates, Choice, ranked};
pub use cost::Walk;
use nncc_ir::BLOCK;
use std::ops::Range;
use transform::Minimal;

const F32_BYTES: usize = 4;
/// Bytes of one pixel's channel block.
const PIXEL: usize = BLOCK * F32_BYTES;

/// A Winograd convolution with everything chosen.
#[derive(Clone, Debug)]
pub struct Winograd<'a> {
    target: &'a Target,
    conv: Conv,
    pooling: Option<SideBySide>,
    minimal: Minimal,
    /// Tiles of the output: rows, columns.
    grid: [usize; 2],
    /// Tiles that V holds: rows, columns; the whole grid but for a walk in blocks.
    block: [usize; 2],
    /// Tiles that M holds.
    run: usize,
    walk: Walk,
    product: Direct<'a>,
}

/// May this template compute the convolution?
pub fn fits(conv: &Conv) -> bool {
    let [depth, height, width] = &conv.axes;
    let plain = |a: &Axis| a.taps == 3 && a.stride == 1 && a.dilation == 1 && (a.out_first, a.out_step) == (0, 1);
    let whole = conv.inputs.is_multiple_of(BLOCK) && conv.outputs.is_multiple_of(BLOCK);
    let shape = depth.is_identity() && depth.outputs == 1 && plain(height) && plain(width);
    let storage = (conv.source, conv.sink, conv.weights) == (Source::Blocked, Sink::Blocked, Weights::Panels);
    let some = conv.inputs * conv.outputs * height.outputs * width.outputs * height.inputs * width.inputs > 0;
    shape && whole && some && storage && conv.groups == 1 && !conv.epilogue.is_long()
}

/// A convolution that this template computes.
#[derive(Clone, Debug)]
pub struct Layer {
    /// One that [`fits`].
    pub conv: Conv,
    /// What is behind it, whose windows tiles [hold](Minimal::holds).
    pub pooling: Option<SideBySide>,
    /// The size of a tile.
    pub minimal: Minimal,
    /// Does an operand share the output's memory?
    pub in_place: bool,
}

impl Layer {
    /// The name of the layer at a CPU level.
    pub fn signature(&self, target: &Target) -> String {
        let layer = layer::signature("winograd", target, &self.conv, self.in_place);
        let pooling = self.pooling.map_or(String::new(), |pooling| format!(" {}", pooling.name()));
        format!("{layer} by {}{pooling}", self.minimal.outputs())
    }
}

impl Candidates for Layer {
    fn candidates(&self, target: &Target, most: usize) -> Vec<Choice> {
        let own = Winograd::new(target, self, None);
        let others = cost::walks(target, &cost::Size::of(&own.conv), self.minimal);
        let others = others.into_iter().map(|(walk, bytes)| (bytes, Winograd::new(target, self, Some(walk)).walk()));
        ranked(own.walk(), others, most)
    }
}

impl<'a> Winograd<'a> {
    /// Chooses blocks and tasks, and the walk unless it is given.
    pub fn new(target: &'a Target, layer: &Layer, walk: Option<Walk>) -> Winograd<'a> {
        let &Layer { pooling, minimal, in_place, .. } = layer;
        let m = minimal.outputs();
        let mut conv = layer.conv.clone();
        for (axis, pooling) in conv.axes[1..].iter_mut().zip(pooling.iter().flat_map(SideBySide::extents)) {
            axis.outputs = pooling; // what no window reads is not computed
        }
        let grid = [conv.axes[1].outputs.div_ceil(m), conv.axes[2].outputs.div_ceil(m)];
        let size = cost::Size::of(&conv);
        let walk = walk.unwrap_or_else(|| cost::walk(target, &size, minimal));
        let cut = |count: usize, most: usize| match in_place {
            false => balanced(count, most).next().unwrap_or(1),
            true => (1..=most.min(count)).rev().find(|b| count.is_multiple_of(*b)).unwrap_or(1),
        };
        let block = match walk {
            Walk::Staged | Walk::Grouped { .. } => grid,
            Walk::Blocked { tiles } => {
                let columns = cut(grid[1], tiles);
                [if columns == grid[1] { cut(grid[0], tiles / columns) } else { 1 }, columns]
            }
        };
        let tiles = block[0] * block[1];
        let run = if let Walk::Grouped { tiles: most } = walk { cut(tiles, most) } else { tiles };
        let walk = match walk {
            Walk::Blocked { .. } => Walk::Blocked { tiles },
            Walk::Grouped { .. } => Walk::Grouped { tiles: run },
            Walk::Staged => Walk::Staged,
        };
        let places = minimal.inputs() * minimal.inputs();
        let row = Axis::sliding(tiles, run, 1, 1, 1, 0);
        let product = Conv {
            batch: if walk == Walk::Staged { conv.batch } else { 1 },
            groups: places,
            axes: [Axis::UNIT, Axis::UNIT, row],
            bias: false,
            epilogue: Epilogue::default(),
            ..conv.clone()
        };
        let product = Direct::new(target, &product, false);
        Winograd { target, conv, pooling, minimal, grid, block, run, walk, product }
    }

    /// How it walks: in one kernel, two with V between them, or three with M as well; with the tiles that blocks or runs have.
    pub fn walk(&self) -> Walk {
        self.walk
    }

    fn places(&self) -> usize {
        self.minimal.inputs() * self.minimal.inputs()
    }

    fn tiles(&self) -> usize {
        self.block[0] * self.block[1]
    }

    fn blocks(&self) -> [usize; 2] {
        [self.grid[0].div_ceil(self.block[0]), self.grid[1].div_ceil(self.block[1])]
    }

    /// Bytes of V, of one image or block.
    pub fn v_bytes(&self) -> usize {
        self.places() * self.conv.inputs * self.tiles() * F32_BYTES
    }

    /// Bytes of M: of one image in stages, else of a block's or a run's group of panels.
    pub fn m_bytes(&self) -> usize {
        self.places() * self.m_place()
    }

    /// Bytes of M from one place to the next.
    fn m_place(&self) -> usize {
        let panels = match self.walk {
            Walk::Staged => self.conv.outputs / BLOCK,
            Walk::Blocked { .. } | Walk::Grouped { .. } => self.product.panels_of_a_tile(),
        };
        panels * self.run * PIXEL
    }

    fn patches(&self) -> usize {
        2 * self.places() * PIXEL
    }

    /// Scratch bytes of a thread: V and M of a block, M of a run, and two patches of a tile.
    pub fn scratch(&self) -> usize {
        match self.walk {
            Walk::Staged => self.patches().max(self.product.scratch()),
            Walk::Grouped { .. } => self.m_bytes() + self.patches(),
            Walk::Blocked { .. } => self.v_bytes() + self.m_bytes() + self.patches(),
        }
    }

    fn name(&self, stage: &str) -> String {
        format!("f32_conv_3x3_winograd{}{stage}__{}_{}t", self.minimal.outputs(), isa_name(self.target), self.run)
    }

    /// The name of a stage that ends in outputs.
    fn output_name(&self, stage: &str) -> String {
        let pooling = self.pooling.map_or(String::new(), |pooling| format!("_{}", pooling.name()));
        self.name(&format!("{stage}{pooling}"))
    }

    /// The kernel of a walk in blocks, and its tasks. Operands: x, w, bias (if there is one), the epilogue's extras, y.
    pub fn blocked_kernel(&self) -> (Kernel, usize) {
        let args = self.conv.arguments(&["x", "w"], ArgDecl::write("y", 4));
        let mut b = Builder::new(self.output_name(""), args);
        let operands = Operands::of_args(&b, self.conv.bias, self.conv.epilogue.extras.len());
        b.tasks(|b, task| self.block_of_tiles(b, &operands, task));
        (b.finish(), self.conv.batch * self.blocks()[0] * self.blocks()[1])
    }

    fn block_of_tiles(&self, b: &mut Builder, operands: &Operands, task: Value) {
        let [row_blocks, column_blocks] = self.blocks();
        let (rest, column) = div_rem(b, task, column_blocks);
        let (image, row) = div_rem(b, rest, row_blocks);
        // The last block begins early enough to be whole.
        let start = |b: &mut Builder, block: Value, axis: usize| {
            let at = b.mul_imm(block, self.block[axis] as i64);
            let last = b.i64((self.grid[axis] - self.block[axis]) as i64);
            b.min_s(at, last)
        };
        let first = [start(b, row, 0), start(b, column, 1)];
        let v = b.scratch();
        let m = b.ptr(v.at(self.v_bytes() as i64));
        let patches = b.ptr(m.at(self.m_bytes() as i64));
        let at = BlockAt { image, first, patches };
        let all = 0..self.tiles() as i64;
        b.for_(0, self.conv.inputs / BLOCK, 1, |b, block| self.transform_input(b, operands.x, v, &at, block, &all));
        let product = Operands { x: v, w: operands.w, bias: None, extras: Vec::new(), y: m };
        for (range, (groups, _)) in self.product.group_ranges().into_iter().enumerate() {
            b.for_(groups.start, groups.end, 1, |b, group| {
                self.group_of_panels(b, operands, &product, (range, group), m, (&at, &all));
            });
        }
    }

    /// Products and outputs of some tiles for one group of panels, which is one of `group_ranges()[range]`. `m` is where M
    /// would begin if it held all tiles from the first one on.
    fn group_of_panels<I: Copy + Into<Index>>(
        &self,
        b: &mut Builder,
        operands: &Operands,
        product: &Operands,
        (range, group): (usize, Value),
        m: Value,
        (at, tiles): (&BlockAt, &Range<I>),
    ) {
        b.for_(0, self.places(), 1, |b, k| {
            let y = b.mul_imm(k, self.m_place() as i64);
            self.product.one_group(b, product, range, [k, group], y);
        });
        let first_panel = b.mul_imm(group, self.product.panels_of_a_tile() as i64);
        let (_, panels) = self.product.group_ranges()[range].clone();
        b.for_(0, panels, 1, |b, panel| {
            let m = b.ptr(m.at(0).idx(panel, self.run * PIXEL));
            let panel = b.add(first_panel, panel);
            self.transform_output(b, operands, m, at, panel, tiles);
        });
    }

    /// The second kernel of a walk in groups, and its tasks: y from V. Operands: V, w, bias (if there is one), the epilogue's
    /// extras, y. Tasks of a group stand together: its weights stay in L2.
    pub fn grouped_kernel(&self) -> (Kernel, usize) {
        let args = self.conv.arguments(&["v", "w"], ArgDecl::write("y", 4));
        let mut b = Builder::new(self.output_name("_grouped"), args);
        let operands = Operands::of_args(&b, self.conv.bias, self.conv.epilogue.extras.len());
        let runs = self.tiles().div_ceil(self.run);
        b.tasks(|b, task| {
            let (rest, run) = div_rem(b, task, runs);
            let (group, image) = div_rem(b, rest, self.conv.batch);
            let ranges = self.product.group_ranges();
            match &ranges[..] {
                [_, rest] => {
                    let bound = b.i64(rest.0.start as i64);
                    let is_full = b.icmp(IntCc::LtS, group, bound);
                    let part = |b: &mut Builder, range: usize| {
                        self.run_of_tiles(b, &operands, range, [group, image, run]);
                    };
                    b.branch(is_full, |b| part(b, 0), |b| part(b, 1));
                }
                _ => self.run_of_tiles(b, &operands, 0, [group, image, run]),
            }
        });
        (b.finish(), self.product.panel_groups() * self.conv.batch * runs)
    }

    fn run_of_tiles(&self, b: &mut Builder, operands: &Operands, range: usize, [group, image, run]: [Value; 3]) {
        // The last run begins early enough to be whole.
        let start = b.mul_imm(run, self.run as i64);
        let last = b.i64((self.tiles() - self.run) as i64);
        let start = b.min_s(start, last);
        let end = b.add_imm(start, self.run as i64);
        let v = b.ptr(operands.x.at(0).idx(image, self.v_bytes()));
        let v = b.ptr(v.at(0).idx(start, PIXEL));
        let m = b.scratch();
        let patches = b.ptr(m.at(self.m_bytes() as i64));
        let product = Operands { x: v, w: operands.w, bias: None, extras: Vec::new(), y: m };
        let zero = b.i64(0);
        let at = BlockAt { image, first: [zero, zero], patches };
        // Tiles are counted from the first of the plane, M begins at the run's.
        let before = b.mul_imm(start, -(PIXEL as i64));
        let m = b.ptr(m.at(0).idx(before, 1));
        self.group_of_panels(b, operands, &product, (range, group), m, (&at, &(start..end)));
    }

    /// Runs of tiles that a task of a stage takes: enough of them for a few threads.
    fn tile_chunks(&self, lines: usize) -> (usize, usize) {
        const TASKS: usize = 32;
        let chunk = self.tiles().div_ceil(TASKS.div_ceil(lines)).max(1);
        (chunk, self.tiles().div_ceil(chunk))
    }

    /// The first stage and its tasks: fills V. Operands: x, V.
    pub fn input_kernel(&self) -> (Kernel, usize) {
        let mut b = Builder::new(self.name("_input"), vec![ArgDecl::read("x", 4), ArgDecl::write("v", 64)]);
        let channel_blocks = self.conv.inputs / BLOCK;
        let (chunk, chunks) = self.tile_chunks(self.conv.batch * channel_blocks);
        b.tasks(|b, task| {
            let (rest, part) = div_rem(b, task, chunks);
            let (image, block) = div_rem(b, rest, channel_blocks);
            let v = b.ptr(b.arg(1).at(0).idx(image, self.v_bytes()));
            let at = self.whole_grid(b, image);
            self.chunk(b, part, chunk, |b, tiles| self.transform_input(b, b.arg(0), v, &at, block, &tiles));
        });
        (b.finish(), self.conv.batch * channel_blocks * chunks)
    }

    /// The second stage and its tasks: M from V. Operands: V, w, M, [`product_shape`](Self::product_shape).
    pub fn product_kernel(&self) -> (Kernel, usize) {
        (self.product.kernel(), self.product.tasks())
    }

    /// The last operand of the second stage: [`Direct::shape`].
    pub fn product_shape(&self) -> Vec<u8> {
        self.product.shape()
    }

    /// The third stage and its tasks: y from M. Operands: M, bias (if there is one), the epilogue's extras, y.
    pub fn output_kernel(&self) -> (Kernel, usize) {
        let args = self.conv.arguments(&["m"], ArgDecl::write("y", 4));
        let mut b = Builder::new(self.output_name("_output"), args);
        let operands = Operands::without_weights(&b, self.conv.bias, self.conv.epilogue.extras.len());
        let panels = self.conv.outputs / BLOCK;
        let (chunk, chunks) = self.tile_chunks(self.conv.batch * panels);
        b.tasks(|b, task| {
            let (rest, part) = div_rem(b, task, chunks);
            let (image, panel) = div_rem(b, rest, panels);
            let m = b.ptr(operands.x.at(0).idx(image, self.m_bytes()));
            let m = b.ptr(m.at(0).idx(panel, self.tiles() * PIXEL));
            let at = self.whole_grid(b, image);
            self.chunk(b, part, chunk, |b, tiles| self.transform_output(b, &operands, m, &at, panel, &tiles));
        });
        (b.finish(), self.conv.batch * panels * chunks)
    }

    fn whole_grid(&self, b: &mut Builder, image: Value) -> BlockAt {
        let zero = b.i64(0);
        BlockAt { image, first: [zero, zero], patches: b.scratch() }
    }

    /// The tiles of a task's chunk.
    fn chunk(&self, b: &mut Builder, part: Value, chunk: usize, body: impl FnOnce(&mut Builder, Range<Value>)) {
        let from = b.mul_imm(part, chunk as i64);
        let to = b.add_imm(from, chunk as i64);
        let all = b.i64(self.tiles() as i64);
        let to = b.min_s(to, all);
        body(b, from..to);
    }

    /// The vectors that a channel block takes.
    fn vector(&self) -> (Type, usize) {
        let lanes = self.target.lanes(Elem::F32).min(BLOCK);
        (Type::of(Elem::F32, lanes), BLOCK / lanes)
    }

    /// Where tile `t` of a block stands: its row and column of the grid.
    fn tile(&self, b: &mut Builder, at: &BlockAt, t: Value) -> [Value; 2] {
        let (r, c) = div_rem(b, t, self.block[1]);
        [b.add(at.first[0], r), b.add(at.first[1], c)]
    }
}

/// A block of tiles of an image, and the thread's patches.
struct BlockAt {
    image: Value,
    first: [Value; 2],
    patches: Value,
}
