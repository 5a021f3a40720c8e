//! What a convolution costs by the direct template and by Winograd's, in cycles of one core; and how Winograd walks.
//!
//! ```text
//! direct     multiply-adds / (2 lanes * 0.95)                                   + weights / B
//! winograd   tiles * n^2 * C * M / (2 lanes * 0.9)                              products
//!          + tiles * n^2 * (C + M)/16 * 4.2 * (16 / lanes)                      transforms
//!          + bytes beyond L2 / B
//!
//! bytes      blocked:  U * blocks           (once when it fits a quarter of L2)
//!            grouped:  U * (once, or for each run of tiles when a group of panels does not fit beside M)
//!                      + V * (1 + groups)   (none when V fits half of L2)
//!            staged:   U + 2 (V + M)        (U alone when V and M fit half of L2)
//! ```
//!
//! Blocks and runs are small enough for `TASKS` tasks where each has enough to do, so that threads have something to share.
//!
//! `B` = 5 bytes a cycle, what one server core reads from its last-level cache and from memory alike (Ice Lake: 13 GB/s at
//! 2.6 GHz). The shares of the peak and the 4.2 cycles were measured on that core. The larger of two costs decides, so they
//! need not be exact; that neither overlaps with the other is on the safe side.

use super::super::Conv;
use super::F32_BYTES;
use super::transform::Minimal;
use crate::kir::Elem;
use crate::target::Target;
use crate::tunable;
use nncc_ir::BLOCK;
use std::fmt;
use std::str::FromStr;

/// Bytes that come from beyond L2 in a cycle.
pub(in crate::kernels::conv) const BYTES_A_CYCLE: f64 = 5.0;

/// The numbers of a 3x3 convolution that its cost depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Images.
    pub batch: usize,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Height and width of the output.
    pub plane: [usize; 2],
}

/// In which order tiles and places are walked. As text `blocked 28`, `grouped 7`, `staged`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Walk {
    /// One block of at most `tiles` tiles after the other, through all three stages.
    Blocked {
        /// Tiles of a block.
        tiles: usize,
    },
    /// V of all tiles first; then for each group of panels, runs of at most `tiles` tiles through the other two stages.
    Grouped {
        /// Tiles of a run.
        tiles: usize,
    },
    /// One stage after the other, all tiles in each.
    Staged,
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Walk::Blocked { tiles } => write!(f, "blocked {tiles}"),
            Walk::Grouped { tiles } => write!(f, "grouped {tiles}"),
            Walk::Staged => f.write_str("staged"),
        }
    }
}

impl FromStr for Walk {
    type Err = String;

    fn from_str(text: &str) -> Result<Walk, String> {
        let walk = match text.split_once(' ') {
            Some(("blocked", n)) => tunable::count(n).map(|tiles| Walk::Blocked { tiles }),
            Some(("grouped", n)) => tunable::count(n).map(|tiles| Walk::Grouped { tiles }),
            None if text == "staged" => Some(Walk::Staged),
            _ => None,
        };
        walk.ok_or_else(|| format!("`{text}` is no walk such as `blocked 28`, `grouped 7` or `staged`"))
    }
}

/// Tasks that a walk makes at least, for a few threads to share evenly.
const TASKS: usize = 8;
/// Multiply-adds below which a task is not worth a thread: some 5 to 20 microseconds.
const MACS_A_TASK: usize = 1 << 18;

impl Size {
    /// Of a convolution.
    pub fn of(conv: &Conv) -> Size {
        let plane = [conv.axes[1].outputs, conv.axes[2].outputs];
        Size { batch: conv.batch, inputs: conv.inputs, outputs: conv.outputs, plane }
    }

    fn tiles(&self, minimal: Minimal) -> usize {
        self.plane.iter().map(|extent| extent.div_ceil(minimal.outputs())).product()
    }

    /// Bytes of the transformed weights, or of the weights as they are.
    pub fn weight_bytes(&self, minimal: Option<Minimal>) -> usize {
        F32_BYTES * self.inputs * self.outputs * minimal.map_or(9, |f| f.inputs() * f.inputs())
    }
}

/// Multiply-adds of a cycle: two vectors, half of that where they are two instructions.
fn rate(target: &Target) -> f64 {
    2.0 * target.lanes(Elem::F32) as f64 * if target.fma { 1.0 } else { 0.5 }
}

/// What the walks of a convolution move.
struct Traffic<'t> {
    target: &'t Target,
    batch: usize,
    /// Of an image.
    tiles: usize,
    /// Groups of panels.
    groups: usize,
    /// Tasks that there should be.
    tasks: usize,
    /// Bytes of a tile of V, and of the part of M that is there at a time.
    places: [usize; 2],
    /// Bytes of U, V and M.
    whole: [usize; 3],
}

impl<'t> Traffic<'t> {
    fn of(target: &'t Target, size: &Size, minimal: Minimal) -> Traffic<'t> {
        let (places, tiles) = (minimal.inputs() * minimal.inputs(), size.tiles(minimal));
        let place = |channels: usize| places * F32_BYTES * channels; // bytes of one tile
        let (v, m) = (size.batch * tiles * place(size.inputs), size.batch * tiles * place(size.outputs));
        // Four panels of M are there at a time.
        let panels = size.outputs.min(4 * BLOCK);
        let macs = size.batch * tiles * places * size.inputs * size.outputs;
        Traffic {
            target,
            batch: size.batch,
            tiles,
            groups: size.outputs.div_ceil(panels),
            tasks: (macs / MACS_A_TASK).clamp(1, TASKS),
            places: [place(size.inputs), place(panels)],
            whole: [size.weight_bytes(Some(minimal)), v, m],
        }
    }

    /// The most tiles of a task, of which there are `others` for each tile.
    fn share(&self, others: usize) -> usize {
        (self.tiles * self.batch * others).div_ceil(self.tasks).max(1)
    }

    /// A walk in blocks where V and M of one take that share of L2.
    fn blocked(&self, share: f64) -> (Walk, usize) {
        let bytes = (self.target.l2 as f64 * share) as usize;
        let block = (bytes / self.places.iter().sum::<usize>()).clamp(1, self.tiles).min(self.share(1));
        let [u, ..] = self.whole;
        let blocks = self.batch * self.tiles.div_ceil(block);
        let moved = if u <= self.target.l2 / 4 { u } else { u * blocks };
        (Walk::Blocked { tiles: block }, moved)
    }

    /// A walk in groups where M of a run takes that share of L2, beside the weights of a group.
    fn grouped(&self, share: f64) -> (Walk, usize) {
        let bytes = (self.target.l2 as f64 * share) as usize;
        let run = (bytes / self.places[1]).clamp(1, self.tiles).min(self.share(self.groups));
        let [u, v, _] = self.whole;
        let runs = self.batch * self.tiles.div_ceil(run);
        let weights = if u / self.groups <= self.target.l2 / 8 * 5 { u } else { u * runs };
        (Walk::Grouped { tiles: run }, weights + if v <= self.target.l2 / 2 { 0 } else { v * (1 + self.groups) })
    }

    fn staged(&self) -> (Walk, usize) {
        let [u, v, m] = self.whole;
        (Walk::Staged, u + if v + m <= self.target.l2 / 2 { 0 } else { 2 * (v + m) })
    }

    /// Does what a walk keeps of all tiles stay in the caches?
    fn stays(&self, walk: Walk) -> bool {
        let [_, v, m] = self.whole;
        let kept = match walk {
            Walk::Blocked { .. } => 0,
            Walk::Grouped { .. } => v,
            Walk::Staged => v + m,
        };
        kept <= self.target.l3.max(self.target.l2)
    }

    /// The walk with the least traffic, and the bytes of it.
    fn least(&self) -> (Walk, f64) {
        let mut best = self.blocked(BLOCK_SHARE);
        for other in [self.grouped(RUN_SHARE), self.staged()] {
            if other.1 < best.1 && self.stays(other.0) {
                best = other;
            }
        }
        (best.0, best.1 as f64)
    }
}

/// Shares of L2: of V and M of a block, of M of a run.
const BLOCK_SHARE: f64 = 0.75;
const RUN_SHARE: f64 = 0.25;

/// How Winograd walks a convolution.
pub fn walk(target: &Target, size: &Size, minimal: Minimal) -> Walk {
    Traffic::of(target, size, minimal).least().0
}

/// Walks of a convolution, with the bytes that they move: each form, with blocks and runs down to a quarter of what caches hold.
pub fn walks(target: &Target, size: &Size, minimal: Minimal) -> Vec<(Walk, f64)> {
    let traffic = Traffic::of(target, size, minimal);
    let shares = [1.0, 0.5, 0.25];
    let mut all = vec![traffic.staged()];
    all.extend(shares.map(|share| traffic.blocked(BLOCK_SHARE * share)));
    all.extend(shares.map(|share| traffic.grouped(RUN_SHARE * share)));
    all.into_iter().filter(|(walk, _)| traffic.stays(*walk)).map(|(walk, bytes)| (walk, bytes as f64)).collect()
}

/// Cycles of a 3x3 convolution with stride 1, by Winograd or direct.
pub fn cycles(target: &Target, size: &Size, minimal: Option<Minimal>) -> f64 {
    let channels = (size.inputs * size.outputs) as f64;
    let Some(f) = minimal else {
        let macs = 9.0 * channels * (size.batch * size.plane[0] * size.plane[1]) as f64;
        return macs / (rate(target) * 0.95) + size.weight_bytes(None) as f64 / BYTES_A_CYCLE;
    };
    let places = (f.inputs() * f.inputs()) as f64;
    let tiles = (size.batch * size.tiles(f)) as f64;
    let vectors = (size.inputs + size.outputs) as f64 / target.lanes(Elem::F32).min(BLOCK) as f64;
    let products = tiles * places * channels / (rate(target) * 0.9);
    let transforms = tiles * places * vectors * 4.2;
    products + transforms + Traffic::of(target, size, f).least().1 / BYTES_A_CYCLE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(channels: usize, plane: usize) -> Size {
        Size { batch: 1, inputs: channels, outputs: channels, plane: [plane; 2] }
    }

    #[test]
    fn the_larger_the_plane_the_more_winograd_gains() {
        let target = Target::x86_64_v4();
        let gain = |channels, plane, f| {
            cycles(&target, &size(channels, plane), None) / cycles(&target, &size(channels, plane), Some(f))
        };
        assert!(gain(64, 224, Minimal::F4) > 1.8);
        assert!(gain(256, 56, Minimal::F4) > 1.5);
        assert!(gain(512, 28, Minimal::F4) > 1.3);
        // The transformed weights of many channels are read for few pixels.
        assert!(gain(512, 7, Minimal::F4) < 1.1);
        assert!(gain(512, 7, Minimal::F6) < 1.0);
    }

    #[test]
    fn many_channels_go_in_stages_and_large_planes_in_blocks() {
        let target = Target::x86_64_v4();
        assert_eq!(walk(&target, &size(512, 28), Minimal::F4), Walk::Staged);
        assert!(matches!(walk(&target, &size(64, 224), Minimal::F4), Walk::Blocked { tiles } if tiles > 20));
    }
}
