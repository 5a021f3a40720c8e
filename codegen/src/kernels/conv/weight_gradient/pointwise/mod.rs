//! Weight gradients of pointwise convolutions: a matrix product over the pixels, written as the rows of the weights.
//!
//! ```text
//! x  [N][C/16][pixel][16]       dy  [N][M/16][pixel][16]       dw  rows [M][C]
//!
//! for task (part of the images, panels of m, blocks of c)           its dw, and a chunk of x and dy, stay in L2
//!   for chunk of pixels
//!     x of the chunk, where windows have a stride, copied           pixels one behind the other
//!     for tile of blocks of c                                       x of the tile stays in L1
//!       for panel of m, tile of its channels
//!         acc = 0
//!         for pixel                            acc[v][m] += x[pixel][v] * dy[pixel][m]
//!         dw[m][c] = acc, or += behind the first chunk
//! ```
//!
//! Blocked values are the packed panels of GotoBLAS as they come: a pixel is a step of the sum, 16 channels stand side by
//! side. Lanes are input channels, so that results are pieces of rows and nothing has to be brought in order afterwards.
//! Registers: with `v` vectors of input channels, held for a pixel, and `q` output channels, `v * q` accumulators and one
//! broadcast; 16 lanes: two blocks by 8 channels, 10 loads for 16 multiply-adds.
//!
//! How the product is cut into tasks decides what comes from memory: x once for each cut of the output channels, dy once for each
//! of the input channels, and a part of the images costs a copy of dw written and read. The cut with the fewest bytes is taken
//! among those with enough tasks whose operands fit.

//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | what is chosen: tile, chunks, the cut into tasks |
//! | `shape.rs` | sizes as an operand, so that layers share code |
//! | `kernel.rs` | tasks and chunks |
//! | `sums.rs` | a tile: products, what is asked for ahead, results |

mod kernel;
mod shape;
mod sums;

use super::products::{accumulators, scalars};
use super::{Chunk, LEAST_MACS, Parts, Problem, TASKS, UNROLL, flattened};
use crate::kernels::conv::tile::{Splat, splat};
use crate::kernels::conv::{Source, panel_widths};
use crate::kernels::window::Axis;
use crate::kir::Elem;
use crate::target::Target;
use nncc_ir::{BLOCK, padded_channels};

/// A weight gradient with everything chosen.
#[derive(Clone, Debug)]
pub struct Pointwise<'a> {
    target: &'a Target,
    problem: Problem,
    /// How channels of dy get into all lanes.
    splat: Splat,
    /// Blocks of input channels of a tile.
    blocks: usize,
    /// The most output channels of a tile.
    channels: usize,
    chunk: Chunk,
    cut: Cut,
}

/// How the product is cut into tasks.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Panels of output channels of a task.
    panels: usize,
    /// Tiles of input channels of a task.
    tiles: usize,
    parts: Parts,
}

impl<'a> Pointwise<'a> {
    /// Is this a problem for the template?
    pub fn takes(problem: &Problem) -> bool {
        problem.source == Source::Blocked && problem.axes.iter().all(|a| a.taps == 1 && a.inside())
    }

    /// Chooses tile, chunks and the cut into tasks.
    pub fn new(target: &'a Target, problem: &Problem) -> Pointwise<'a> {
        let problem = Problem { axes: flattened(&problem.axes, BLOCK), ..problem.clone() };
        let lanes = target.lanes(Elem::F32).min(BLOCK);
        let blocks = if lanes == BLOCK { problem.inputs.div_ceil(BLOCK).clamp(1, 2) } else { 1 };
        let vectors = blocks * BLOCK / lanes;
        let splat = splat(target, 1);
        let channels = scalars(splat, accumulators(target, vectors), BLOCK / 2);
        let chunk = chunk(target, &problem, blocks);
        let cut = Cut { panels: 1, tiles: 1, parts: Parts { images: 1, count: 1 } };
        let mut pointwise = Pointwise { target, splat, blocks, channels, chunk, cut, problem };
        pointwise.cut = pointwise.best_cut();
        pointwise
    }

    /// The cut into tasks that moves the fewest bytes.
    fn best_cut(&self) -> Cut {
        let p = &self.problem;
        let [panels, tiles] = [self.panels(), self.tiles()];
        let bytes = |channels: usize| 4 * (p.batch * p.groups * padded_channels(channels) * p.output_plane()) as u64;
        let (x, dy, dw) = (bytes(p.inputs), bytes(p.outputs), 4 * self.stored() as u64);
        let wanted = TASKS.min((p.macs() / LEAST_MACS) as usize).max(1);
        let block = 4 * BLOCK * self.chunk.images * self.chunk.rows * p.axes[2].outputs;
        let mut best: Option<([u64; 3], Cut)> = None;
        for (m, c) in sizes(panels).flat_map(|m| sizes(tiles).map(move |c| (m, c))) {
            let blocks = c * self.blocks;
            let held = 4 * BLOCK * BLOCK * m * blocks + block * (m + blocks);
            let [cuts_m, cuts_c] = [panels.div_ceil(m), tiles.div_ceil(c)];
            let tasks = p.groups * cuts_m * cuts_c;
            let parts = Parts::of(p.batch, tasks, p.macs());
            let copies = if parts.count > 1 { 2 * parts.count as u64 + 1 } else { 1 };
            let moved = cuts_c as u64 * dy + cuts_m as u64 * x + copies * dw;
            let over = held.saturating_sub(self.target.l2 / 2) as u64;
            let key = [over, wanted.saturating_sub(tasks * parts.count) as u64, moved];
            if best.is_none_or(|(least, _)| key < least) {
                best = Some((key, Cut { panels: m, tiles: c, parts }));
            }
        }
        best.map_or(self.cut, |(_, cut)| cut)
    }

    /// Panels of output channels of a group.
    fn panels(&self) -> usize {
        panel_widths(self.problem.outputs).len()
    }

    /// Tiles of input channels of a group.
    fn tiles(&self) -> usize {
        self.problem.inputs.div_ceil(BLOCK * self.blocks)
    }

    fn cuts(&self) -> [usize; 2] {
        [self.panels().div_ceil(self.cut.panels), self.tiles().div_ceil(self.cut.tiles)]
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        self.cut.parts.count * self.problem.groups * self.cuts().iter().product::<usize>()
    }

    /// How many copies of dw it writes, one behind the other.
    pub fn parts(&self) -> usize {
        self.cut.parts.count
    }

    /// Elements of a copy of dw.
    pub fn stored(&self) -> usize {
        self.problem.groups * self.problem.outputs * self.problem.inputs
    }

    /// Are x's pixels copied, because those that count are not neighbours?
    fn gathers(&self) -> bool {
        !self.problem.axes.iter().all(Axis::is_identity)
    }

    /// Pixels of a chunk.
    fn chunk_pixels(&self) -> usize {
        self.chunk.images * self.chunk.rows * self.problem.axes[2].outputs
    }

    /// Bytes of scratch memory of a thread.
    pub fn scratch(&self) -> usize {
        if self.gathers() { 4 * BLOCK * self.chunk_pixels() * self.cut.tiles * self.blocks } else { 0 }
    }

    /// Are all displacements within their 32 bits?
    pub fn is_small(&self) -> bool {
        let p = &self.problem;
        let pixels = p.axes[2].stride * UNROLL + p.input_plane().max(p.output_plane());
        4 * BLOCK * self.blocks * pixels < 1 << 30 && 4 * BLOCK * p.inputs < 1 << 30
    }
}

/// So many rows of so many images that x of a tile of `blocks` blocks takes four fifths of the first cache; dy streams past it.
fn chunk(target: &Target, problem: &Problem, blocks: usize) -> Chunk {
    let [depth, height, width] = &problem.axes;
    let pixels = target.l1d / 5 * 4 / (4 * BLOCK * blocks);
    let equal = |all: usize, most: usize| all.div_ceil(all.div_ceil(most.max(1)).max(1)).max(1);
    let rows = equal(height.outputs, pixels / width.outputs.max(1));
    let whole = rows == height.outputs && depth.outputs == 1;
    let images = if whole { equal(problem.batch, pixels / (rows * width.outputs).max(1)) } else { 1 };
    Chunk { rows, images }
}

/// The sizes that cut `all` into different numbers of equal pieces.
fn sizes(all: usize) -> impl Iterator<Item = usize> + Clone {
    (1..=all).filter(move |&size| all.div_ceil(all.div_ceil(size)) == size)
}
