//! Where a run's time goes, against what the machine can do: time by fused node, and the limit that holds each.
//!
//! ```text
//! FLOPs     two for each multiply-accumulate of the direct algorithm; nothing else is counted
//! bytes     operands, weights and results, each once
//! compute   FLOPs / peak
//! movement  weights / bandwidth of where the whole run's memory fits, for all of it passes before they are read again
//!           + the rest / bandwidth of where the node's own bytes fit, for the node before has just touched them
//! limit     the larger of the two; of movement, the place that takes the larger part
//! ```
//!
//! `of limit` is the larger of the two divided by the measured time: 100 % cannot be beaten, except that Winograd's algorithm
//! does a convolution with fewer multiply-adds than are counted, and that a mix of places overlaps where a sum is assumed. A low
//! share with little time is overhead, with much time an invitation.
//!
//! Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for multicore architectures",
//! CACM 52(4), 2009. Left out: bytes that a node's steps pass on to each other within its workspace, operations other than
//! multiply-adds (an exponential counts nothing), and that writing is slower than reading.

mod limits;

pub use limits::{Limits, Memory};

use crate::model::Bound;
use crate::{Error, Model, Tensor};
use nncc_codegen::cost::Cost;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Fewest runs that a median is taken of.
const MIN_RUNS: usize = 3;

/// Most runs: a median gains nothing from more.
const MAX_RUNS: usize = 1000;

/// The profile of a model on a machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Roofline {
    /// The machine.
    pub limits: Limits,
    /// Runs that were timed.
    pub runs: usize,
    /// Weights and intermediates of a run, in bytes.
    pub footprint: u64,
    /// The fused nodes, in the order in which they run.
    pub nodes: Vec<Node>,
}

/// A fused node: one or several steps that run one after the other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// The model's nodes that it computes.
    pub name: String,
    /// What its steps do.
    pub op: String,
    /// Microseconds, the median of the runs.
    pub us: f64,
    /// Microseconds that the cost model expects on this machine; none of a library that does not tell.
    pub predicted_us: Option<f64>,
    /// Share of the sum over all nodes, 0 to 1.
    pub share: f64,
    /// Multiply-accumulates of the direct algorithm.
    pub macs: u64,
    /// FLOPs a nanosecond; none for a node without multiply-accumulates.
    pub gflops: Option<f64>,
    /// The same as a share of the peak.
    pub of_peak: Option<f64>,
    /// Bytes that are read and written at least once.
    pub bytes: u64,
    /// Those of them that are weights.
    pub weight_bytes: u64,
    /// Bytes a nanosecond.
    pub gb_per_s: f64,
    /// `compute`, or the place whose bandwidth holds it; none for a node that moves and computes nothing.
    pub limit: Option<String>,
    /// How near the time is to that limit, 0 to 1.
    pub of_limit: Option<f64>,
}

/// What is known of a node before it is judged.
#[derive(Clone, Debug, Default)]
struct Work {
    name: String,
    op: String,
    macs: u64,
    bytes: u64,
    weight_bytes: u64,
    nanoseconds: Vec<u64>,
    /// What the cost model expects of each step: its cost, tasks and weights.
    costs: Vec<(Cost, u64, u64)>,
}

impl Roofline {
    /// Profiles a model on these inputs for some time, and measures the machine.
    ///
    /// # Errors
    /// When the inputs do not fit, or the machine cannot be measured.
    pub fn measure(model: &Model, inputs: &[Tensor], time: Duration) -> Result<Roofline, Error> {
        Roofline::of(model, model.bind(inputs)?, time)
    }

    /// The same for a run that is ready.
    pub(crate) fn of(model: &Model, mut bound: Bound<'_>, time: Duration) -> Result<Roofline, Error> {
        let library = model.library();
        let level = library.best_level().unwrap_or(0);
        let level_name = library.levels().get(level).cloned().unwrap_or_default();
        let steps = bound.steps();
        let mut work: Vec<Work> = Vec::new();
        let mut node_of = Vec::with_capacity(steps.len());
        for step in &steps {
            if work.last().is_none_or(|w| w.name != step.name) {
                work.push(Work { name: step.name.clone(), ..Work::default() });
            }
            node_of.push(work.len() - 1);
            let node = work.last_mut().expect("just pushed");
            if !node.op.split(", ").any(|op| op == step.op) {
                node.op += if node.op.is_empty() { "" } else { ", " };
                node.op += &step.op;
            }
            node.macs += step.macs;
            node.bytes += step.bytes;
            node.weight_bytes += step.weight_bytes;
            if step.cycles > 0 {
                node.costs.push((Cost { cycles: step.cycles, moved: step.moved }, step.tasks, step.weight_bytes));
            }
        }
        // The first run pays for the pages.
        bound.run()?;
        let (start, mut runs) = (Instant::now(), 0);
        while runs < MIN_RUNS || (runs < MAX_RUNS && start.elapsed() < time) {
            work.iter_mut().for_each(|w| w.nanoseconds.push(0));
            bound.run_timed(&mut |step| work[node_of[step.index]].nanoseconds[runs] += step.nanoseconds)?;
            runs += 1;
        }
        let arena = library.bounds(bound.set(), level).map_or(0, |b| b.arena_bytes);
        let footprint = arena + work.iter().map(|w| w.weight_bytes).sum::<u64>();
        let limits = Limits::measure(&level_name, model.threads())?;
        Ok(Roofline { nodes: judge(&work, &limits, footprint), limits, runs, footprint })
    }

    /// Microseconds of all nodes.
    pub fn total_us(&self) -> f64 {
        self.nodes.iter().map(|n| n.us).sum()
    }

    /// Microseconds that the cost model expects of all nodes; none where a library does not tell.
    pub fn predicted_us(&self) -> Option<f64> {
        self.nodes
            .iter()
            .any(|n| n.predicted_us.is_some())
            .then(|| self.nodes.iter().filter_map(|n| n.predicted_us).sum())
    }

    /// FLOPs a nanosecond over all nodes.
    pub fn gflops(&self) -> f64 {
        2.0 * self.nodes.iter().map(|n| n.macs).sum::<u64>() as f64 / (self.total_us() * 1e3).max(1.0)
    }
}

fn judge(work: &[Work], limits: &Limits, footprint: u64) -> Vec<Node> {
    let median = |w: &Work| {
        let mut ns = w.nanoseconds.clone();
        ns.sort_unstable();
        ns.get(ns.len() / 2).copied().unwrap_or(0).max(1) as f64
    };
    let total: f64 = work.iter().map(median).sum();
    let machine = limits.machine();
    let predicted = |w: &Work| {
        let step = |&(cost, tasks, weights): &(Cost, u64, u64)| machine.nanoseconds(cost, tasks, weights, footprint);
        (!w.costs.is_empty()).then(|| w.costs.iter().map(step).sum::<f64>() / 1e3)
    };
    let node = |w: &Work| {
        let ns = median(w);
        let flops = 2.0 * w.macs as f64;
        let limit = limit(limits, footprint, w);
        Node {
            name: w.name.clone(),
            op: w.op.clone(),
            us: ns / 1e3,
            predicted_us: predicted(w),
            share: ns / total,
            macs: w.macs,
            gflops: (w.macs > 0).then_some(flops / ns),
            of_peak: (w.macs > 0).then_some(flops / ns / limits.peak_gflops),
            bytes: w.bytes,
            weight_bytes: w.weight_bytes,
            gb_per_s: w.bytes as f64 / ns,
            of_limit: limit.as_ref().map(|(_, least)| least / ns),
            limit: limit.map(|(name, _)| name),
        }
    };
    work.iter().map(node).collect()
}

/// The limit that holds a node, and the least nanoseconds that it allows.
fn limit(limits: &Limits, footprint: u64, w: &Work) -> Option<(String, f64)> {
    let compute = 2.0 * w.macs as f64 / limits.peak_gflops;
    let move_from = |bytes: u64, home: usize| bytes as f64 / limits.memory[home].gb_per_s;
    let (weights_home, rest_home) = (limits.home(footprint), limits.home(w.bytes));
    let weights = move_from(w.weight_bytes, weights_home);
    let rest = move_from(w.bytes.saturating_sub(w.weight_bytes), rest_home);
    let movement = weights + rest;
    if compute.max(movement) <= 0.0 {
        return None;
    }
    let home = if weights > rest { weights_home } else { rest_home };
    let name = if compute >= movement { "compute" } else { limits.memory[home].name.as_str() };
    Some((name.to_string(), compute.max(movement)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Limits {
        let place = |name: &str, bytes, gb_per_s| Memory { name: name.into(), bytes, gb_per_s };
        Limits {
            cpu: "a machine".into(),
            level: "x86-64-v3".into(),
            threads: 1,
            peak_gflops: 100.0,
            ghz: 3.125,
            memory: vec![
                place("L1", Some(32 << 10), 200.0),
                place("L2", Some(1 << 20), 50.0),
                place("memory", None, 10.0),
            ],
        }
    }

    fn work(macs: u64, bytes: u64, weight_bytes: u64) -> Work {
        Work { macs, bytes, weight_bytes, nanoseconds: vec![5000, 1000, 2000], ..Work::default() }
    }

    #[test]
    fn the_slowest_of_computing_and_moving_is_the_limit() {
        let held = |footprint, w: &Work| limit(&machine(), footprint, w).unwrap();
        // 100 000 FLOPs at 100 a nanosecond; 10 000 bytes from L1 at 200
        assert_eq!(held(0, &work(50_000, 10_000, 0)), ("compute".into(), 1000.0));
        // the same with weights that only memory holds until the next run: 10 000 bytes at 10
        assert_eq!(held(2 << 20, &work(5_000, 20_000, 10_000)), ("memory".into(), 1050.0));
        // in a network that fits the second cache they come from there
        assert_eq!(held(1 << 20, &work(5_000, 20_000, 10_000)), ("L2".into(), 250.0));
        assert_eq!(held(0, &work(0, 400_000, 0)), ("L2".into(), 8000.0));
        assert_eq!(limit(&machine(), 0, &work(0, 0, 0)), None);
    }

    #[test]
    fn rates_are_of_the_median_run() {
        let nodes = judge(&[work(50_000, 10_000, 0), work(0, 20_000, 0)], &machine(), 0);
        assert_eq!((nodes[0].us, nodes[0].share), (2.0, 0.5));
        assert_eq!((nodes[0].gflops, nodes[0].of_peak, nodes[0].of_limit), (Some(50.0), Some(0.5), Some(0.5)));
        assert_eq!((nodes[1].gflops, nodes[1].of_peak, nodes[1].gb_per_s), (None, None, 10.0));
    }
}
