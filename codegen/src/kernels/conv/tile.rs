//! The register tile of a convolution: how many panels of 16 output channels by how many pixels.
//!
//! For each input channel and tap a tile of `p` panels and `q` pixels does, with `v` vectors a panel,
//!
//! ```text
//! p*v*q multiply-adds,  p*v loads of weights,  q loads (broadcasts) of inputs
//! ```
//!
//! and takes the largest of three times, in half cycles of a core with two FMA and two load ports and a latency of four:
//!
//! ```text
//! multiply-adds   p*v*q        (twice that where multiplication and addition are two instructions)
//! loads           p*v + q      (q/4 where four channels of a pixel are one load)
//! latency         8            (each accumulator waits for its last multiply-add)
//! ```
//!
//! The tile is the one with the smallest sum over the row cut into balanced tiles, among those whose registers fit:
//!
//! ```text
//! accumulators p*v*q + the smaller operand side min(p*v, q), held for the step + 1 for the other side, streamed
//! ```
//!
//! Between tiles that are bound by the multiply-adds alike, loads decide (one weighs a sixteenth of a half cycle: what misses
//! L1 is a load); a tile that leaves no register free pays a thirty-second, for the moves, and one that leaves panels over a
//! sixteenth, for the second copy of the code. With AVX-512, where a smaller tile still hides the latency, one that cuts the
//! row into two widths pays a sixty-fourth, for the second copy too. A test pins that rows of 7 to 112 pixels run at the rate of the multiply-adds.

use super::super::window::balanced;
use crate::kir::Elem;
use crate::target::{Level, Target};
use nncc_ir::BLOCK;
use std::ops::RangeInclusive;

/// How an input element gets into all lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Splat {
    /// By a broadcasting load, one for each channel and pixel.
    Load,
    /// Four channels of a pixel are one vector; a lane is broadcast from the register (`fmla` by element on AArch64, `pshufd`
    /// on SSE).
    Lane,
}

/// Instructions that an unrolled stretch needs for the loop's own four (two additions, a compare and a branch) to be less than
/// a twentieth.
pub const UNROLL: usize = 19 * 4;

/// Panels by pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// Panels of output channels.
    pub panels: usize,
    /// Output pixels.
    pub pixels: usize,
}

/// How a target gets inputs into lanes, when neighbouring channels are `channel_pitch` elements apart.
pub fn splat(target: &Target, channel_pitch: usize) -> Splat {
    if target.lanes(Elem::F32) == 4 && channel_pitch == 1 { Splat::Lane } else { Splat::Load }
}

/// Registers of a tile of `vectors` by `pixels`.
fn registers(target: &Target, splat: Splat, vectors: usize, pixels: usize) -> usize {
    let held = match splat {
        Splat::Load => vectors.min(pixels) + 1,
        // The pixels' channel vectors, and for SSE their broadcast copies.
        Splat::Lane if target.level == Level::Aarch64 => pixels + 1,
        Splat::Lane => pixels + vectors.min(pixels) + 1,
    };
    vectors * pixels + held + usize::from(!target.fma)
}

/// Loads of one input channel and tap on a tile.
fn loads(splat: Splat, vectors: usize, pixels: usize) -> usize {
    vectors + if splat == Splat::Lane { pixels.div_ceil(4) } else { pixels }
}

/// Half cycles of one input channel and tap on a tile.
fn half_cycles(target: &Target, splat: Splat, vectors: usize, pixels: usize) -> usize {
    const LATENCY: usize = 8;
    let arithmetic = vectors * pixels * if target.fma { 1 } else { 2 };
    arithmetic.max(loads(splat, vectors, pixels)).max(LATENCY)
}

/// The same times 16, and the loads: what decides between tiles that are bound by the multiply-adds alike.
fn time(target: &Target, splat: Splat, vectors: usize, pixels: usize) -> usize {
    half_cycles(target, splat, vectors, pixels) * 16 + loads(splat, vectors, pixels)
}

/// The tile for rows of `row` pixels and `panels` panels of output channels.
pub fn choose(target: &Target, splat: Splat, panels: usize, row: usize) -> Tile {
    best(target, splat, panels, 1..=panels.clamp(1, 4), row).1
}

/// What a pixel of such rows costs with that tile, in units that only compare.
pub fn pixel_cost(target: &Target, splat: Splat, panels: usize, row: usize) -> f64 {
    best(target, splat, panels, 1..=panels.clamp(1, 4), row).0 as f64 / row.max(1) as f64
}

/// How many pixels a tile of exactly these panels (at most 4) takes of rows of `row`.
pub fn pixels(target: &Target, splat: Splat, panels: usize, row: usize) -> usize {
    best(target, splat, panels, panels..=panels, row).1.pixels
}

/// Can a layer of these panels and rows have that tile?
pub fn fits(target: &Target, splat: Splat, panels: usize, row: usize, tile: Tile) -> bool {
    let lanes = target.lanes(Elem::F32).min(BLOCK);
    (1..=panels.clamp(1, 4)).contains(&tile.panels)
        && (1..=row.clamp(1, budget(target))).contains(&tile.pixels)
        && registers(target, splat, tile.panels * BLOCK / lanes, tile.pixels) <= budget(target)
}

/// Registers that a tile may take. Cranelift keeps one for moves.
fn budget(target: &Target) -> usize {
    let cranelift = matches!(target.level, Level::X86V1 | Level::Aarch64);
    target.vector_regs - usize::from(cranelift)
}

fn best(target: &Target, splat: Splat, panels: usize, widths: RangeInclusive<usize>, row: usize) -> (usize, Tile) {
    let lanes = target.lanes(Elem::F32).min(BLOCK);
    let budget = budget(target);
    let mut best = (usize::MAX, Tile { panels: 1, pixels: 1 });
    for p in widths {
        let vectors = p * BLOCK / lanes;
        for q in 1..=row.clamp(1, budget) {
            let registers = registers(target, splat, vectors, q);
            if registers > budget {
                break;
            }
            let row_time: usize = balanced(row.max(1), q).map(|q| time(target, splat, vectors, q)).sum();
            // Per panel, in units that a division by 1 to 4 and by 64 leaves whole.
            let per_panel = row_time * (12 / p) * 64;
            let two_widths = lanes == BLOCK && !row.max(1).is_multiple_of(row.max(1).div_ceil(q));
            let (tight, over) = (registers == budget, !panels.is_multiple_of(p));
            let sixty_fourths = 2 * usize::from(tight) + usize::from(two_widths) + 4 * usize::from(over);
            let key = per_panel + per_panel / 64 * sixty_fourths;
            if key < best.0 {
                best = (key, Tile { panels: p, pixels: q });
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time of a row against that of its multiply-adds alone.
    fn efficiency(target: &Target, splat: Splat, panels: usize, row: usize) -> f64 {
        let tile = choose(target, splat, panels, row);
        let vectors = tile.panels * BLOCK / target.lanes(Elem::F32);
        let half_cycles = |q| half_cycles(target, splat, vectors, q);
        let needed = vectors * row * if target.fma { 1 } else { 2 };
        needed as f64 / balanced(row, tile.pixels).map(half_cycles).sum::<usize>() as f64
    }

    #[test]
    fn rows_of_real_networks_run_at_the_rate_of_the_multiply_adds() {
        let targets = [
            (Target::x86_64_v4(), Splat::Load),
            (Target::x86_64_v3(), Splat::Load),
            (Target::aarch64(), Splat::Lane),
            (Target::x86_64_v1(), Splat::Lane),
        ];
        for (target, splat) in targets {
            for row in [7, 13, 14, 17, 27, 28, 35, 55, 56, 112] {
                let e = efficiency(&target, splat, 16, row);
                assert!(e > 0.97, "{:?}: rows of {row} reach {e}", target.level);
            }
        }
    }

    #[test]
    fn long_rows_take_large_tiles() {
        let tile = |target: &Target, splat, row| {
            let t = choose(target, splat, 16, row);
            (t.panels, t.pixels)
        };
        assert_eq!(tile(&Target::x86_64_v3(), Splat::Load, 56), (1, 6));
        assert_eq!(tile(&Target::x86_64_v4(), Splat::Load, 54), (4, 6));
        assert_eq!(tile(&Target::aarch64(), Splat::Lane, 55), (1, 5));
        assert_eq!(tile(&Target::x86_64_v1(), Splat::Lane, 56), (1, 2));
    }

    #[test]
    fn rows_are_cut_into_one_width_where_it_costs_little() {
        for row in [28, 56, 112] {
            let q = choose(&Target::x86_64_v4(), Splat::Load, 16, row).pixels;
            assert_eq!(row % row.div_ceil(q), 0, "rows of {row} in tiles of {q}");
        }
    }

    #[test]
    fn registers_fit() {
        for target in [Target::x86_64_v1(), Target::x86_64_v3(), Target::x86_64_v4(), Target::aarch64()] {
            for splat in [Splat::Load, Splat::Lane] {
                for (row, panels) in (1..60).flat_map(|row| (1..6).map(move |panels| (row, panels))) {
                    let t = choose(&target, splat, panels, row);
                    let vectors = t.panels * BLOCK / target.lanes(Elem::F32);
                    assert!(t.panels <= panels);
                    assert!(registers(&target, splat, vectors, t.pixels) <= target.vector_regs);
                }
            }
        }
    }
}
