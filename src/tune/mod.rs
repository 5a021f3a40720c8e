//! `--tune`: the candidates of each distinct layer, measured on this machine while compiling, where the layer runs.
//!
//! A layer alone in a loop has its operands in the nearest cache, and the best schedule there is not the best in the network.
//! So whole networks are measured: in round `k` every layer takes its `k`-th candidate, the network is compiled in memory and
//! runs in turns with the one in which every layer takes what the templates choose. The time of a layer is the sum over the
//! steps that compute it, each the least of its runs; a candidate is judged by its ratio to the default in the same round, so
//! that a machine that slows down between rounds misleads nobody.
//!
//! ```text
//! candidates   of the direct form: the default, then those that the cost model likes best (`Layer::candidates`)
//!              of Winograd's:      what its error permits (`Algorithms::alternatives`)
//! winner       the least ratio, if it gains at least GAIN; else the default, which is remembered as well
//! ```
//!
//! What a cache file knows is not measured again ([`Cache`]); with a cache alone nothing is measured, and builds are
//! reproducible. Only the highest level that runs here is measured. Left out: more than one thread, steps without a schedule.

mod cache;

pub use cache::Cache;

use crate::{Error, Model};
use nncc_codegen::emit;
use nncc_codegen::lower::{Algorithms, Choice, Choices, SetSource, lower};
use nncc_codegen::program::{Program, Step};
use nncc_codegen::target::{Target, host_has};
use nncc_ir::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracing::info;

/// The most candidates of a layer, the default among them.
const MOST: usize = 8;

/// What a candidate must gain to be taken: less is within what a measurement does not know.
const GAIN: f64 = 0.02;

/// Fewest pairs of runs of a round.
const MIN_RUNS: usize = 3;

/// What may be measured, and where it is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tuning {
    /// How long to measure; none: not at all, what the cache knows is used.
    pub time: Option<Duration>,
    /// The cache file.
    pub cache: Option<PathBuf>,
}

/// A layer and what is tried for it.
struct Subject {
    candidates: Vec<Choice>,
    /// The nodes that it is, where steps do not name their layer.
    nodes: Vec<String>,
    /// The best so far: its ratio to the default, and which it is.
    best: (f64, usize),
    /// Nanoseconds of the default.
    default_ns: u64,
}

/// The choices for a model. `progress` is told how many rounds of how many are done.
pub(crate) fn tune(
    tuning: &Tuning,
    sets: &[SetSource<'_>],
    targets: &[Target],
    algorithms: &Algorithms,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Choices, Error> {
    let mut cache = tuning.cache.as_deref().map(Cache::read).transpose()?.unwrap_or_default();
    let Some(time) = tuning.time else { return Ok(cache.choices()) };
    let Some(target) = targets.iter().rev().find(|t| host_has(t.level)) else {
        let message = "--tune measures on this machine, which runs no code for the target";
        return Err(Error::Usage(format!("{message}\n  help: --tune-cache FILE uses what was measured elsewhere")));
    };
    let start = Instant::now();
    let known = cache.choices();
    let algorithms = algorithms.clone().with_choices(known.clone());
    let base = Variant::new(sets, target, &algorithms)?;
    let mut subjects = subjects(&base.program, target, &algorithms, &known);
    let rounds = subjects.values().map(|s| s.candidates.len()).max().unwrap_or(1);
    for round in 1..rounds {
        progress(round - 1, rounds - 1);
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() {
            info!("tuning: the time is over after {} rounds of {}", round - 1, rounds - 1);
            break;
        }
        let tried = subjects.iter().filter_map(|(layer, s)| Some((layer.as_str(), *s.candidates.get(round)?)));
        let choices = known.iter().chain(tried).collect();
        let variant = Variant::new(sets, target, &algorithms.clone().with_choices(choices))?;
        let end = Instant::now() + time.saturating_sub(start.elapsed()) / (rounds - round) as u32;
        let [default, other] = in_turns([&base, &variant], end)?;
        for (layer, subject) in subjects.iter_mut().filter(|(_, s)| round < s.candidates.len()) {
            let (ours, theirs) = (subject.time(layer, &base, &default), subject.time(layer, &variant, &other));
            let ratio = theirs as f64 / ours.max(1) as f64;
            subject.default_ns = ours;
            if theirs > 0 && ratio < subject.best.0 {
                subject.best = (ratio, round);
            }
        }
    }
    progress(rounds - 1, rounds - 1);
    for (layer, subject) in subjects.iter().filter(|(_, s)| s.default_ns > 0) {
        let (ratio, which) = if subject.best.0 <= 1.0 - GAIN { subject.best } else { (1.0, 0) };
        let remark = format!("{ratio:.2} of {:.1} us", subject.default_ns as f64 / 1e3);
        info!("tuned {layer}: {} ({remark})", subject.candidates[which]);
        cache.insert(layer, subject.candidates[which], remark);
    }
    if let Some(path) = &tuning.cache {
        cache.write(path)?;
    }
    Ok(cache.choices())
}

/// The layers that are not known yet, with their candidates.
fn subjects(program: &Program, target: &Target, algorithms: &Algorithms, known: &Choices) -> BTreeMap<String, Subject> {
    let subject = |candidates, nodes| Subject { candidates, nodes, best: (f64::INFINITY, 0), default_ns: 0 };
    let mut all = BTreeMap::new();
    for a in algorithms.alternatives() {
        let candidates = a.candidates.into_iter().map(Choice::Algorithm).collect();
        all.insert(a.signature, subject(candidates, a.nodes));
    }
    for layer in steps(program).filter_map(|step| step.layer.as_ref()) {
        let candidates = || layer.candidates(target, MOST).into_iter().map(Choice::Schedule).collect();
        all.entry(layer.signature.clone()).or_insert_with(|| subject(candidates(), Vec::new()));
    }
    all.retain(|layer, s| known.get(layer).is_none() && s.candidates.len() > 1);
    all
}

fn steps(program: &Program) -> impl Iterator<Item = &Step> {
    program.sets.iter().flat_map(|set| &set.levels[0].steps)
}

impl Subject {
    /// Nanoseconds of the layer in a network whose steps took `ns`; 0 where it is not there.
    fn time(&self, layer: &str, variant: &Variant, ns: &[u64]) -> u64 {
        let is_it = |step: &Step| match &step.layer {
            _ if !self.nodes.is_empty() => self.nodes.contains(&step.name),
            Some(l) => l.signature == layer,
            None => false,
        };
        steps(&variant.program).zip(ns).filter(|(step, _)| is_it(step)).map(|(_, ns)| ns).sum()
    }
}

/// The network with some choices, in memory.
struct Variant {
    program: Program,
    model: Model,
}

impl Variant {
    fn new(sets: &[SetSource<'_>], target: &Target, algorithms: &Algorithms) -> Result<Variant, Error> {
        let program = lower("tuned", sets, std::slice::from_ref(target), algorithms)?;
        let code = emit::compile_kernels(&program)?;
        let model = Model::from_jit(emit::jit(&program, &code, &emit::EmitOptions::default())?)?;
        Ok(Variant { program, model })
    }
}

/// Runs two networks in turns until the time is over: the least nanoseconds of each step, over all shape sets.
fn in_turns(variants: [&Variant; 2], end: Instant) -> Result<[Vec<u64>; 2], Error> {
    let mut best: [Vec<u64>; 2] = Default::default();
    let sets = variants[0].program.sets.len();
    for set in 0..sets {
        let inputs: Vec<Tensor> =
            variants[0].program.sets[set].inputs.iter().map(|p| made_up(p.dtype, &p.shape)).collect();
        let mut bound = [variants[0].model.bind(&inputs)?, variants[1].model.bind(&inputs)?];
        let first = [best[0].len(), best[1].len()];
        for (best, bound) in best.iter_mut().zip(&mut bound) {
            best.resize(best.len() + bound.steps().len(), u64::MAX);
            bound.run()?;
        }
        let end = Instant::now() + end.saturating_duration_since(Instant::now()) / (sets - set) as u32;
        let mut runs = 0;
        while runs < MIN_RUNS || Instant::now() < end {
            for ((best, bound), first) in best.iter_mut().zip(&mut bound).zip(first) {
                let times = &mut best[first..];
                bound.run_timed(&mut |step| times[step.index] = times[step.index].min(step.nanoseconds.max(1)))?;
            }
            runs += 1;
        }
    }
    Ok(best)
}

/// How far something is, as ten characters.
pub(crate) fn bar(done: usize, of: usize) -> String {
    let full = 10 * done / of.max(1);
    format!("[{}{}]", "#".repeat(full), ".".repeat(10usize.saturating_sub(full)))
}

/// Numbers between -1 and 1 for floats (denormals would be slow), zeros for all others.
fn made_up(dtype: DType, dims: &[usize]) -> Tensor {
    if !dtype.is_float() {
        return Tensor::zeros(dtype, dims);
    }
    let count = dims.iter().product::<usize>() as u64;
    let number = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 23) as f64 - 1.0;
    let numbers: Vec<f64> = (1..=count).map(number).collect();
    Tensor::from_f64(dtype, dims, &numbers)
}
