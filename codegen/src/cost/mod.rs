//! The cost model: how long a step will take, as a function of its kernel, its shapes and the target's numbers, nothing else.
//!
//! ```text
//! cycles    busy + LATENCY * latency + LOOP * innermost loops entered + TASK * tasks + CALL        counted in the kernel IR
//! weights   WEIGHTS * their bytes / bandwidth of where the whole run's memory fits
//! data      everything else / bandwidth of where the step's own bytes fit; times DATA_NEAR from a core's own second cache,
//!           DATA_FAR from beyond, nothing from the first
//! time      cycles / clock + weights + data
//! ```
//!
//! Computing is counted, not guessed: [`count`] walks the kernel that was made for the step, with the ports of a core
//! ([`ports`]). So a new template needs no formula here, and tile, passes and order of loops count as they are. Moving knows
//! what the roofline knows: bytes that are touched at least once, and where they lie.
//!
//! A machine is a clock and the bandwidths of its caches: measured ([`crate::machine`]) by whoever profiles, or what
//! [`Machine::nominal`] supposes of a target. The clock is what the peak of multiply-adds implies, so that a core which does
//! one of its widest vectors a cycle counts as one of half the clock.
//!
//! Where templates compare candidates (`kernels/conv/tile.rs`, `kernels/conv/winograd/cost.rs`) they still use the leading
//! terms of the same quantities in closed form, for they choose before there is a kernel to count.
//!
//! Left out: reads that miss a cache more than once a step, the pages that a stream crosses, what other cores do; that
//! computing and moving overlap (the constants take it into account).

pub mod count;
pub mod ports;
mod text;

pub use text::to_text;

use crate::kir::{Elem, Kernel};
use crate::target::Target;
use count::Counts;

// The constants below minimise the mean of |ln(predicted / measured)| over the layers of the bench list (bench/predicted.py),
// on a core of the Emerald Rapids kind; rounded, for around the minimum little changes.

/// Share of the latency of straight code that nothing hides: the core works on what comes before and after meanwhile.
const LATENCY: f64 = 0.1;

/// Cycles that entering and leaving an innermost loop costs beside its instructions: mostly the branch out that is guessed
/// wrong, half of the time.
const LOOP: f64 = 8.0;

/// Cycles of a task beside its instructions.
const TASK: f64 = 10.0;

/// Cycles of a step: the call, its arguments, first touches of code and tables.
const CALL: f64 = 150.0;

/// Time of weights against their bytes at the bandwidth of reading in sequence: a part is asked for ahead.
const WEIGHTS: f64 = 0.8;

/// Time of other bytes against the same, from the second cache: a third of them is written, which takes twice as long.
const DATA_NEAR: f64 = 1.8;

/// The same from beyond the second cache: half of them are still nearer, for the step before has just written them.
const DATA_FAR: f64 = 0.5;

/// What a step takes, whatever the machine's clock and bandwidths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Cycles of one core, with every operand in the first cache.
    pub cycles: u64,
    /// Bytes touched at least once that are no weights: those of the step's operands, and what the steps of a node hand on.
    pub moved: u64,
}

/// The cycles of a call with these counts.
pub fn cycles(counts: &Counts, tasks: u64) -> u64 {
    (counts.busy + LATENCY * counts.latency + LOOP * counts.loops + TASK * tasks as f64 + CALL) as u64
}

/// The cycles of a call of a kernel; `constants` as for [`count::count`].
pub fn of_kernel<'c>(
    kernel: &Kernel,
    target: &Target,
    tasks: u64,
    constants: &'c dyn Fn(usize) -> Option<&'c [u8]>,
) -> u64 {
    cycles(&count::count(kernel, target, tasks, constants), tasks)
}

/// A place in the memory hierarchy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// What it holds; none for memory.
    pub bytes: Option<u64>,
    /// Bytes that are read from it in a nanosecond.
    pub gb_per_s: f64,
}

/// The machine that a prediction is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Cycles in a nanosecond, of one core.
    pub ghz: f64,
    /// Threads that share a step's tasks; the places are those of all of them.
    pub threads: u64,
    /// The nearest first, memory last.
    pub places: Vec<Place>,
}

/// FLOPs of a cycle at the peak: two multiply-adds of a vector, or a multiplication and an addition.
pub fn flops_a_cycle(target: &Target) -> f64 {
    target.lanes(Elem::F32) as f64 * if target.fma { 4.0 } else { 2.0 }
}

impl Machine {
    /// What is supposed of a target without measuring: 3 GHz; 96 bytes a cycle from the first cache, 32 from the second, 5
    /// from beyond, what one core of a server reads.
    pub fn nominal(target: &Target) -> Machine {
        const GHZ: f64 = 3.0;
        let place = |bytes: usize, a_cycle: f64| Place { bytes: Some(bytes as u64), gb_per_s: a_cycle * GHZ };
        let mut places = vec![place(target.l1d, 96.0), place(target.l2, 32.0)];
        if target.l3 > target.l2 {
            places.push(place(target.l3, 5.0));
        }
        places.push(Place { bytes: None, gb_per_s: 4.0 * GHZ });
        Machine { ghz: GHZ, threads: 1, places }
    }

    /// The nearest place that holds so many bytes.
    fn home(&self, bytes: u64) -> usize {
        let last = self.places.len().saturating_sub(1);
        self.places.iter().position(|p| p.bytes.is_none_or(|size| bytes <= size)).unwrap_or(last)
    }

    /// Nanoseconds of a step with these weights in a run that touches `footprint` bytes in all.
    pub fn nanoseconds(&self, cost: Cost, tasks: u64, weight_bytes: u64, footprint: u64) -> f64 {
        let computing = cost.cycles as f64 / self.ghz / self.threads.min(tasks).max(1) as f64;
        let from = |bytes: u64, home: usize| bytes as f64 / self.places[home].gb_per_s;
        let weights = match self.home(footprint) {
            0 => 0.0,
            home => WEIGHTS * from(weight_bytes, home),
        };
        let data = match self.home(cost.moved + weight_bytes) {
            0 => 0.0,
            1 => DATA_NEAR * from(cost.moved, 1),
            home => DATA_FAR * from(cost.moved, home),
        };
        computing + weights + data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_cycles_and_bytes_from_where_they_lie() {
        let place = |bytes, gb_per_s| Place { bytes, gb_per_s };
        let places = vec![place(Some(1000), 100.0), place(Some(10_000), 50.0), place(None, 10.0)];
        let machine = Machine { ghz: 2.0, threads: 1, places };
        let time =
            |cycles, moved, weights, footprint| machine.nanoseconds(Cost { cycles, moved }, 4, weights, footprint);
        assert_eq!(time(100, 900, 0, 900), 50.0);
        assert_eq!(time(100, 5000, 0, 5000), 50.0 + DATA_NEAR * 100.0);
        assert_eq!(time(100, 20_000, 0, 20_000), 50.0 + DATA_FAR * 2000.0);
        // Weights come from where the whole run fits, the rest from where the step does.
        assert_eq!(time(100, 500, 400, 50_000), 50.0 + WEIGHTS * 40.0);
        let two = Machine { threads: 2, ..machine.clone() };
        assert_eq!(two.nanoseconds(Cost { cycles: 100, moved: 0 }, 4, 0, 0), 25.0);
        assert_eq!(two.nanoseconds(Cost { cycles: 100, moved: 0 }, 1, 0, 0), 50.0);
    }

    #[test]
    fn a_machine_that_is_not_measured_has_the_targets_caches() {
        let target = Target::x86_64_v3();
        let machine = Machine::nominal(&target);
        assert_eq!(machine.places[1].bytes, Some(target.l2 as u64));
        assert!(machine.places.windows(2).all(|p| p[0].gb_per_s > p[1].gb_per_s));
        // Of a place that is not there nothing is asked.
        let nowhere = Machine { places: vec![], ..machine };
        assert_eq!(nowhere.nanoseconds(Cost { cycles: 3, moved: 0 }, 1, 0, 0), 1.0);
    }
}
