//! A network with some choices, compiled in memory, and how long its steps take beside those of another.

use super::Network;
use crate::{Error, Model};
use nncc_codegen::emit;
use nncc_codegen::lower::lower;
use nncc_codegen::program::{Program, Step};
use nncc_codegen::target::Target;
use nncc_codegen::tunable::{Choices, Part};
use nncc_ir::{DType, Tensor};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Fewest pairs of runs of a measurement.
const MIN_RUNS: usize = 3;

/// A compiled network.
pub(super) struct Variant {
    program: Program,
    model: Model,
    /// What has more than one way, whatever steps it comes to.
    pub parts: Vec<Part>,
    /// The steps, counted over all shape sets, of each part and of all that computes the same.
    steps: BTreeMap<String, Vec<usize>>,
}

impl Variant {
    /// The network with these choices.
    pub fn new(network: &Network<'_>, target: &Target, choices: &Choices) -> Result<Variant, Error> {
        let sets = (network.sets)(choices)?;
        let sources: Vec<_> = sets.iter().map(|set| set.source()).collect();
        let algorithms = network.algorithms.clone().with_choices(choices.clone());
        let program = lower("tuned", &sources, std::slice::from_ref(target), &algorithms)?;
        let code = emit::compile_kernels(&program)?;
        let model = Model::from_jit(emit::jit(&program, &code, &emit::EmitOptions::default())?)?;
        let mut parts = algorithms.parts();
        for part in sets.iter().enumerate().flat_map(|(i, set)| set.parts(i)) {
            match parts.iter_mut().find(|p| p.signature == part.signature) {
                Some(equal) => equal.steps.extend(part.steps),
                None => parts.push(part),
            }
        }
        let mut steps: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, (set, step)) in all_steps(&program).enumerate() {
            let is_in = |part: &&Part| part.steps.iter().any(|(s, name)| (*s, name) == (set, &step.name));
            let parts = parts.iter().filter(is_in).map(|part| &part.signature);
            for signature in parts.chain(step.tunable.iter().map(|tunable| &tunable.signature)) {
                steps.entry(signature.clone()).or_default().push(i);
            }
        }
        Ok(Variant { program, model, parts, steps })
    }

    /// The steps of all shape sets.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        all_steps(&self.program).map(|(_, step)| step)
    }

    /// Nanoseconds of what has this signature, where steps took `ns`; none where it is not there.
    pub fn time(&self, signature: &str, ns: &[u64]) -> Option<u64> {
        let steps = self.steps.get(signature)?;
        Some(steps.iter().map(|&i| ns[i]).sum::<u64>().max(1))
    }
}

/// The steps with their shape sets.
fn all_steps(program: &Program) -> impl Iterator<Item = (usize, &Step)> {
    program.sets.iter().enumerate().flat_map(|(i, set)| set.levels[0].steps.iter().map(move |step| (i, step)))
}

/// Runs two networks in turns for some time: the least nanoseconds of each step, over all shape sets.
pub(super) fn in_turns(variants: [&Variant; 2], time: Duration) -> Result<[Vec<u64>; 2], Error> {
    let end = Instant::now() + time;
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
