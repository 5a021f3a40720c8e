//! What this machine can do, measured in half a second: the peak of multiply-adds and how fast each cache is read.
//!
//! The probes ([`nncc_codegen::machine`]) are a program like any model's: compiled for the CPU level that the network runs
//! at, run in memory, on as many threads, by the same step loop. Each is timed until the time is over; the best run counts,
//! for whatever else happens on a machine only makes one slower.

use crate::{Error, Model};
use nncc_codegen::machine::{Probe, probes};
use nncc_codegen::target::Target;
use nncc_codegen::{cost, emit};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long the probes run. With their compilation and the filling of their buffer a measurement stays under a second.
const TIME: Duration = Duration::from_millis(500);

/// A machine's limits, on a number of threads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// The processor's name, where the system tells it.
    pub cpu: String,
    /// The CPU level whose instructions were measured.
    pub level: String,
    /// Threads.
    pub threads: u32,
    /// Multiply-adds of f32, two FLOPs each.
    pub peak_gflops: f64,
    /// Cycles in a nanosecond of a core that reaches the peak with two vectors of multiply-adds in each.
    pub ghz: f64,
    /// Where data can lie, the nearest first, memory last.
    pub memory: Vec<Memory>,
}

/// A cache, or memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// `L1`, `L2`, `L3` or `memory`.
    pub name: String,
    /// What it holds, for all threads; none for memory.
    pub bytes: Option<u64>,
    /// How fast it is read, by all threads.
    pub gb_per_s: f64,
}

impl Limits {
    /// Measures this machine at a CPU level, named as a library names its levels, on some threads.
    ///
    /// # Errors
    /// For a level of another architecture, or when so many threads cannot be had.
    pub fn measure(level: &str, threads: u32) -> Result<Limits, Error> {
        let host = Target::host().map_err(|e| Error::Usage(e.to_string()))?;
        let levels = Target::levels(&host.triple).map_err(|e| Error::Usage(e.to_string()))?;
        let level = levels.iter().copied().find(|l| l.name() == level);
        let level = level.ok_or_else(|| Error::Usage("the library is for another architecture".into()))?;
        let target = Target { l1d: host.l1d, l2: host.l2, l3: host.l3, ..Target::of_level(host.triple, level) };
        let (program, probes) = probes(&target, threads);
        let code = emit::compile_kernels(&program)?;
        let model = Model::from_jit(emit::jit(&program, &code, &emit::EmitOptions::default())?)?;
        let model = model.with_threads(threads)?;
        let mut bound = model.bind(&[])?;
        let steps = bound.steps();
        let mut best = vec![u64::MAX; probes.len()];
        let (start, mut runs) = (Instant::now(), 0);
        while runs < 2 || start.elapsed() < TIME {
            bound.run_timed(&mut |step| best[step.index] = best[step.index].min(step.nanoseconds.max(1)))?;
            runs += 1;
        }
        let mut limits = Limits {
            cpu: cpu_name(),
            level: level.name().into(),
            threads,
            peak_gflops: 0.0,
            ghz: 0.0,
            memory: Vec::new(),
        };
        for ((probe, step), ns) in probes.iter().zip(&steps).zip(best) {
            match *probe {
                Probe::Compute => limits.peak_gflops = 2.0 * step.macs as f64 / ns as f64,
                Probe::Read { level, capacity } => {
                    let gb_per_s = step.bytes as f64 / ns as f64;
                    match limits.memory.iter_mut().find(|m| m.name == level) {
                        Some(m) => m.gb_per_s = m.gb_per_s.max(gb_per_s),
                        None => {
                            let bytes = capacity.map(|b| b as u64);
                            limits.memory.push(Memory { name: level.into(), bytes, gb_per_s });
                        }
                    }
                }
            }
        }
        limits.ghz = limits.peak_gflops / f64::from(threads.max(1)) / cost::flops_a_cycle(&target);
        Ok(limits)
    }

    /// The machine as the cost model sees it.
    pub fn machine(&self) -> cost::Machine {
        let place = |m: &Memory| cost::Place { bytes: m.bytes, gb_per_s: m.gb_per_s };
        let (ghz, threads) = (self.ghz, self.threads.max(1).into());
        cost::Machine { ghz, threads, places: self.memory.iter().map(place).collect() }
    }

    /// The nearest place that holds so many bytes: an index into [`memory`](Limits::memory).
    pub fn home(&self, bytes: u64) -> usize {
        let last = self.memory.len().saturating_sub(1);
        self.memory.iter().position(|m| m.bytes.is_none_or(|size| bytes <= size)).unwrap_or(last)
    }
}

/// The name that Linux has for the processor; its architecture where there is none.
fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|l| l.strip_prefix("model name"));
    line.map_or(std::env::consts::ARCH, |l| l.trim_start_matches([' ', '\t', ':'])).trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_measured_in_a_second() {
        let level = Target::host().unwrap().level.name();
        let start = Instant::now();
        let limits = Limits::measure(level, 1).unwrap();
        println!("{limits:?} in {:?}", start.elapsed());
        // The slowest machine that nncc has a level for does one multiply-add of four lanes every few cycles.
        assert!((1.0..2000.0).contains(&limits.peak_gflops), "{limits:?}");
        assert!(limits.memory.len() >= 3 && limits.memory.iter().all(|m| m.gb_per_s > 0.1), "{limits:?}");
        assert!(limits.memory.last().unwrap().bytes.is_none() && limits.memory[0].bytes.is_some());
        // Noise never makes anything faster: the first cache reads faster than memory even on a busy machine.
        assert!(limits.memory[0].gb_per_s > limits.memory.last().unwrap().gb_per_s, "{limits:?}");
    }

    #[test]
    fn a_level_of_another_machine_is_refused() {
        let e = Limits::measure("z80", 1).unwrap_err();
        assert_eq!(e.to_string(), "the library is for another architecture");
    }
}
