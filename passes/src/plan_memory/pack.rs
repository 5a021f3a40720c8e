//! Packs buffers with fixed lifetimes into one arena: offsets such that buffers that are alive together do not overlap.
//!
//! The problem (dynamic storage allocation) is NP-hard; greedy placement in a good order comes within a few per cent on
//! networks. Buffers are placed one by one, each into the smallest gap among the already placed ones that it lives
//! with (best fit), or into the lowest one (first fit). Several orders are tried: by size, as in "Efficient Memory Management
//! for Deep Neural Net Inference" (Pisarchyk & Lee 2020); by lifetime; by their product; by start. While the result is
//! above the sum of what is alive together, the buffers that reach the top are moved to the front of the order and placed
//! again, a bounded number of times. Everything is deterministic.

use super::ALIGN;
use super::share::Buffer;
use std::cmp::Reverse;

/// Placements that are tried at most cost about this many comparisons of buffers.
const WORK_LIMIT: usize = 40_000_000;

/// An offset for each buffer, and the size of the arena. `effort` bounds the number of improvement rounds.
pub fn pack(buffers: &[Buffer], effort: usize) -> (Vec<usize>, usize) {
    let sizes: Vec<usize> = buffers.iter().map(|b| b.size.next_multiple_of(ALIGN)).collect();
    let alive_together = most_alive(buffers, &sizes);
    let life = |i: usize| buffers[i].last - buffers[i].first + 1;
    let all: Vec<usize> = (0..buffers.len()).collect();
    let sorted = |key: &dyn Fn(usize) -> (Reverse<u128>, Reverse<u128>)| {
        let mut order = all.clone();
        order.sort_by_key(|&i| key(i));
        order
    };
    let (size, area) = (|i: usize| sizes[i] as u128, |i: usize| sizes[i] as u128 * life(i) as u128);
    let by_life = |i: usize| life(i) as u128;
    let orders = [
        sorted(&|i| (Reverse(size(i)), Reverse(by_life(i)))),
        sorted(&|i| (Reverse(area(i)), Reverse(size(i)))),
        sorted(&|i| (Reverse(by_life(i)), Reverse(size(i)))),
        sorted(&|i| (Reverse(u128::MAX - buffers[i].first as u128), Reverse(by_life(i)))),
    ];
    let mut best: (usize, Vec<usize>) = (usize::MAX, Vec::new());
    let mut rounds = (WORK_LIMIT / (1 + buffers.len() * buffers.len() / 2)).clamp(2, effort.max(2));
    for order in orders {
        for best_fit in [true, false] {
            let mut order = order.clone();
            let mut tries = 1 + rounds / 8;
            while tries > 0 && rounds > 0 && best.0 > alive_together {
                (tries, rounds) = (tries - 1, rounds - 1);
                let (offsets, top) = place(buffers, &sizes, &order, best_fit);
                let reaches_top = |i: usize| offsets[i] + sizes[i] == top;
                // The front of the order gets the best offsets; what stood highest goes there.
                order.sort_by_key(|&i| !reaches_top(i));
                if top < best.0 {
                    best = (top, offsets);
                }
            }
        }
    }
    if best.1.len() != buffers.len() {
        let (offsets, top) = place(buffers, &sizes, &all, true);
        return (offsets, top);
    }
    (best.1, best.0)
}

/// The largest sum of sizes alive at one step.
fn most_alive(buffers: &[Buffer], sizes: &[usize]) -> usize {
    let steps = buffers.iter().map(|b| b.last + 2).max().unwrap_or(0);
    let mut change = vec![0i64; steps];
    for (b, size) in buffers.iter().zip(sizes) {
        change[b.first] += *size as i64;
        change[b.last + 1] -= *size as i64;
    }
    let mut alive = 0;
    change
        .iter()
        .map(|d| {
            alive += d;
            alive
        })
        .max()
        .unwrap_or(0) as usize
}

/// Places buffers in this order. Gives offsets and the size of the arena.
fn place(buffers: &[Buffer], sizes: &[usize], order: &[usize], best_fit: bool) -> (Vec<usize>, usize) {
    let mut offsets = vec![0; buffers.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(order.len()); // by offset
    let mut top = 0;
    for &i in order {
        let b = &buffers[i];
        let (mut at, mut chosen, mut slack) = (0, None, usize::MAX);
        for &j in &placed {
            let other = &buffers[j];
            if other.last < b.first || b.last < other.first || sizes[j] == 0 {
                continue;
            }
            if offsets[j] >= at {
                let gap = offsets[j] - at;
                if gap >= sizes[i] && gap - sizes[i] < slack {
                    (chosen, slack) = (Some(at), gap - sizes[i]);
                    if !best_fit {
                        break;
                    }
                }
            }
            at = at.max(offsets[j] + sizes[j]);
        }
        offsets[i] = chosen.unwrap_or(at);
        top = top.max(offsets[i] + sizes[i]);
        let position = placed.partition_point(|&j| offsets[j] <= offsets[i]);
        placed.insert(position, i);
    }
    (offsets, top)
}
