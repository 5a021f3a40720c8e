//! Packs buffers with fixed lifetimes into one arena: offsets such that bytes that are alive together do not overlap.
//!
//! ```text
//! offset            A buffer is a set of rectangles, bytes x steps: one a value in it. Into the corner that a Concat's
//!   ^  +------+     buffer leaves free before its second part is written, another buffer may go, as into any gap.
//!   |  | part |
//!   |--+--+---+
//!   | part|         A new buffer at offset o overlaps a placed rectangle [lo, hi) with its own rectangle [a, b), if both
//!   +-----+---> t   are alive at some step, exactly for lo - b < o < hi - a: these intervals are forbidden for o.
//! ```
//!
//! The problem (dynamic storage allocation) is NP-hard; greedy placement in a good order comes within a few per cent on
//! networks. Buffers are placed one by one, each into the smallest gap of allowed offsets (best fit), or at the lowest one
//! (first fit). Several orders are tried: by size, as in "Efficient Memory Management for Deep Neural Net Inference"
//! (Pisarchyk & Lee 2020); by lifetime; by their product; by start. While the result is above the goal, the buffers that
//! reach the top are moved to the front of the order and placed again, a bounded number of times. Everything is
//! deterministic.

use super::ALIGN;
use super::share::{Buffer, Segment};
use std::cmp::Reverse;

/// Placements that are tried at most cost about this many comparisons of rectangles.
const WORK_LIMIT: usize = 40_000_000;

/// An offset for each buffer, and the size of the arena. `effort` bounds the number of rounds; an arena of `goal` bytes
/// cannot be improved.
pub fn pack(buffers: &[Buffer], effort: usize, goal: usize) -> (Vec<usize>, usize) {
    let all: Vec<usize> = (0..buffers.len()).collect();
    let sorted = |key: &dyn Fn(usize) -> (Reverse<u128>, Reverse<u128>)| {
        let mut order = all.clone();
        order.sort_by_key(|&i| key(i));
        order
    };
    let size = |i: usize| buffers[i].size as u128;
    let life = |i: usize| (buffers[i].last() - buffers[i].first() + 1) as u128;
    let orders = [
        sorted(&|i| (Reverse(size(i)), Reverse(life(i)))),
        sorted(&|i| (Reverse(size(i) * life(i)), Reverse(size(i)))),
        sorted(&|i| (Reverse(life(i)), Reverse(size(i)))),
        sorted(&|i| (Reverse(u128::MAX - buffers[i].first() as u128), Reverse(life(i)))),
    ];
    let mut best: Option<(usize, Vec<usize>)> = None;
    let rectangles: usize = buffers.iter().map(|b| b.segments.len()).sum();
    let rounds = (WORK_LIMIT / (1 + rectangles * rectangles / 2)).clamp(1, effort.max(1));
    for order in orders {
        for best_fit in [true, false] {
            let mut order = order.clone();
            for _ in 0..1 + rounds / 8 {
                if best.as_ref().is_some_and(|(top, _)| *top <= goal) {
                    break;
                }
                let (offsets, top) = place(buffers, &order, best_fit);
                let reaches_top = |i: usize| offsets[i] + buffers[i].size >= top;
                // The front of the order gets the best offsets; what stood highest goes there.
                order.sort_by_key(|&i| !reaches_top(i));
                if best.as_ref().is_none_or(|(least, _)| top < *least) {
                    best = Some((top, offsets));
                }
            }
        }
    }
    best.map_or((Vec::new(), 0), |(top, offsets)| (offsets, top))
}

/// A placed rectangle, in arena bytes.
struct Placed {
    at: Segment,
}

/// Places buffers in this order. Gives offsets and the size of the arena.
fn place(buffers: &[Buffer], order: &[usize], best_fit: bool) -> (Vec<usize>, usize) {
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<Placed> = Vec::new();
    let mut forbidden: Vec<(i64, i64)> = Vec::new();
    let mut top = 0;
    for &i in order {
        let b = &buffers[i];
        forbidden.clear();
        let (first, last) = (b.first(), b.last());
        for Placed { at } in placed.iter().filter(|p| p.at.first <= last && first <= p.at.last) {
            for s in b.segments.iter().filter(|s| s.first <= at.last && at.first <= s.last) {
                forbidden.push((at.low as i64 - s.high as i64, at.high as i64 - s.low as i64));
            }
        }
        forbidden.sort_unstable();
        let offset = allowed(&forbidden, best_fit);
        offsets[i] = offset;
        top = top.max((offset + b.size).next_multiple_of(ALIGN));
        for s in b.segments.iter().filter(|s| s.low < s.high) {
            placed.push(Placed { at: Segment { low: s.low + offset, high: s.high + offset, ..*s } });
        }
    }
    (offsets, top)
}

/// An aligned offset that lies in none of the open intervals, which are sorted by start: the lowest, or the one at the
/// start of the narrowest gap between them.
fn allowed(forbidden: &[(i64, i64)], best_fit: bool) -> usize {
    let (mut at, mut chosen, mut least) = (0usize, None, i64::MAX);
    for &(low, high) in forbidden {
        let room = low - at as i64; // offsets `at ..= low` are allowed
        if room >= 0 && room < least {
            (chosen, least) = (Some(at), room);
            if !best_fit {
                break;
            }
        }
        at = at.max((high.max(0) as usize).next_multiple_of(ALIGN));
    }
    chosen.unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(rectangles: &[(usize, usize, usize, usize)]) -> Buffer {
        let segments: Vec<Segment> =
            rectangles.iter().map(|&(low, high, first, last)| Segment { low, high, first, last }).collect();
        Buffer { size: segments.iter().map(|s| s.high).max().unwrap_or(0), segments }
    }

    #[test]
    fn a_corner_that_is_not_alive_yet_is_used() {
        // The upper half of the first buffer lives from step 5: the second one fits there before.
        let concat = buffer(&[(0, 640, 0, 9), (640, 1280, 5, 9)]);
        let early = buffer(&[(0, 640, 1, 4)]);
        let (offsets, top) = pack(&[concat, early], 40, 1280);
        assert_eq!((offsets, top), (vec![0, 640], 1280));
    }

    /// Random rectangles: nothing that is alive together overlaps, everything is aligned and below the top.
    #[test]
    fn nothing_overlaps() {
        let mut rng = nncc_ir::random::Rng::new(3);
        for _ in 0..50 {
            let mut number = |n: u64| rng.below(n) as usize;
            let buffers: Vec<Buffer> = (0..20)
                .map(|_| {
                    let (a, b) = (number(300), number(300));
                    let (s, t) = (number(20), number(20));
                    buffer(&[(0, a, s, s + number(5)), (a, a + b, t, t + number(5))])
                })
                .collect();
            let (offsets, top) = pack(&buffers, 40, 0);
            let all: Vec<(usize, &Segment)> = buffers
                .iter()
                .enumerate()
                .flat_map(|(i, b)| b.segments.iter().map(move |s| (i, s)))
                .filter(|(_, s)| s.low < s.high)
                .collect();
            for (i, s) in &all {
                assert!(offsets[*i].is_multiple_of(ALIGN) && offsets[*i] + s.high <= top);
                for (j, t) in all.iter().filter(|(j, _)| j != i) {
                    let (a, b) = (offsets[*i], offsets[*j]);
                    let together = s.first <= t.last && t.first <= s.last;
                    assert!(!together || a + s.high <= b + t.low || b + t.high <= a + s.low);
                }
            }
        }
    }
}
