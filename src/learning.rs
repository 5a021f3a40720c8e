//! Compiling a model that learns: one program of steps, evaluations and inferences over one block of states.
//!
//! ```text
//! model.onnx ─import for training──> Graph ─┬─training_step────────> step, gathering ┐
//!                                           ├─evaluation_of_states─> evaluation      ├─optimize, lower─> a shape set each, which
//!                                           └─inference────────────> the model       ┘         read and write the states where they lie
//!             └────── once for each size of a batch, what it is needed for ─────┘
//! ```
//!
//! A state's value is an input of the step and its next value an output; both become one place in the block
//! ([`nncc_codegen::state`]). Where moving averages of the weights are kept, inferences read these in place of the weights.
//! [`CompiledStep`](crate::training::CompiledStep) is such a program in memory, with its block.

use crate::batch::BatchAxis;
use crate::compiler::{Compiled, Learning, SetGraph, model_name};
use crate::training::ModelFile;
use crate::{Compiler, Error};
use nncc_codegen::program::Purpose;
use nncc_codegen::state::{Binding, InputUse, Role, StateSource};
use nncc_ir::Graph;
use nncc_passes::Recompute;
use nncc_passes::training::{Gather, State, StateKind, TrainingGraph, TrainingOptions};
use nncc_passes::training::{evaluation_of_states, inference, training_step};
use std::path::Path;

/// The sizes of batches that a library that learns is compiled for, each once. What has none is not compiled.
#[derive(Clone, Debug, Default)]
pub struct LearningBatches {
    /// Of steps.
    pub step: Vec<usize>,
    /// Of batches whose gradients a later step takes: with any, steps take a share as well.
    pub gather: Vec<usize>,
    /// Of evaluations, which tell the loss.
    pub evaluation: Vec<usize>,
    /// Of inferences.
    pub inference: Vec<usize>,
}

impl Compiler {
    /// Compiles a model into a library that learns: the very step of [`Compiler::training`], on states in the caller's memory.
    /// Gives the training graph of one of the sizes too: what the states are, and notes.
    ///
    /// # Errors
    /// When the model is not supported or cannot be trained so; when it takes several inputs, or was made for batches of one
    /// size that cannot be changed.
    pub fn load_learning(
        &self,
        model: &ModelFile,
        options: &TrainingOptions,
        batches: &LearningBatches,
        stage: &mut dyn FnMut(&str),
    ) -> Result<(Compiled, TrainingGraph), Error> {
        self.targets()?; // a wrong one is told before the model is imported
        let options = &TrainingOptions { accumulate: !batches.gather.is_empty(), ..options.clone() };
        let batch = BatchAxis::of_one(model, &self.fixed_inputs())?;
        let LearningBatches { step, gather, evaluation, inference: infer } = batches;
        let mut sizes: Vec<usize> = Vec::new();
        for &size in [step, gather, evaluation, infer].into_iter().flatten() {
            if !sizes.contains(&size) {
                sizes.push(size);
            }
        }
        let mut sets: [Vec<(SetGraph, Binding)>; 4] = Default::default();
        let (mut times, mut shown) = (Vec::new(), None);
        for size in sizes {
            stage("importing");
            let forward = self.forward(model, &batch, size)?;
            let learns = step.contains(&size) || gather.contains(&size);
            // What is only measured or inferred on need not be able to learn: a batch of one has no variance.
            let graph = if learns || shown.is_none() { Some(training_step(&forward, options)?) } else { None };
            stage("optimizing");
            let mut add = |graph: Graph, binding: Binding| -> Result<(), Error> {
                let place = SETS.iter().position(|purpose| *purpose == binding.purpose).unwrap_or(0);
                let learns = matches!(binding.purpose, Purpose::Step | Purpose::Gather);
                let how = if learns { options.recompute } else { Recompute::None };
                sets[place].push((self.optimize_step(graph, how, &mut times)?, binding));
                Ok(())
            };
            if let Some(graph) = graph {
                if step.contains(&size) {
                    let mut step = graph.step.clone();
                    graph.states.iter().for_each(|state| step.add_state(state.input, state.output));
                    add(step, step_binding(&graph))?;
                }
                if let Some(gather) = graph.gather.as_ref().filter(|_| batches.gather.contains(&size)) {
                    let binding = gather_binding(&graph, gather);
                    let mut gathering = gather.graph.clone();
                    gather.writes.iter().for_each(|&(i, output)| gathering.add_state(graph.states[i].input, output));
                    add(gathering, binding)?;
                }
                shown.get_or_insert(graph); // states, their places and notes are the same for every size
            }
            let Some(TrainingGraph { states, .. }) = &shown else { continue };
            if evaluation.contains(&size) {
                let graph = evaluation_of_states(&forward, options)?.graph;
                let binding = reading(Purpose::Evaluate, &graph, states, |i| i);
                add(graph, binding)?;
            }
            if infer.contains(&size) {
                let graph = inference(&forward, options)?;
                let binding = reading(Purpose::Infer, &graph, states, |i| average_of(states, i).unwrap_or(i));
                add(graph, binding)?;
            }
        }
        let shown = shown.ok_or_else(|| Error::Usage("a training step needs the size of a batch".into()))?;
        let (sets, bindings) = sets.into_iter().flatten().unzip();
        let source = |s: &State| StateSource { name: s.name.clone(), role: role(s.kind), initial: s.initial.clone() };
        let learning = Learning { bindings, states: shown.states.iter().map(source).collect() };
        let name = format!("{}_train", model_name(Path::new(model.file())));
        Ok((self.generate(&name, sets, Some(&learning), times, stage)?, shown))
    }
}

/// The order of sets in a program that learns.
const SETS: [Purpose; 4] = [Purpose::Step, Purpose::Gather, Purpose::Evaluate, Purpose::Infer];

/// Of a step: the inputs that are states or seed and step, and the outputs that are states' next values.
fn step_binding(g: &TrainingGraph) -> Binding {
    let mut inputs = vec![InputUse::Port; g.step.inputs().len()];
    let mut outputs = vec![None; g.step.outputs().len()];
    inputs[g.seed_and_step()] = InputUse::SeedAndSteps;
    for (i, state) in g.states.iter().enumerate() {
        inputs[state.input] = InputUse::State(i);
        outputs[state.output] = Some(i);
    }
    Binding { purpose: Purpose::Step, inputs, outputs }
}

/// The same of what only adds gradients up.
fn gather_binding(g: &TrainingGraph, gather: &Gather) -> Binding {
    let mut inputs = vec![InputUse::Port; gather.graph.inputs().len()];
    let mut outputs = vec![None; gather.graph.outputs().len()];
    inputs[g.learning_rate()] = InputUse::Unused;
    inputs[g.seed_and_step()] = InputUse::SeedAndSteps;
    for (i, state) in g.states.iter().enumerate().take(gather.reads) {
        inputs[state.input] = InputUse::State(i);
    }
    for &(i, output) in &gather.writes {
        outputs[output] = Some(i);
    }
    Binding { purpose: Purpose::Gather, inputs, outputs }
}

/// Of a graph that only reads states: the model's own are its last inputs, `instead` the state that is read for one.
fn reading(purpose: Purpose, graph: &Graph, states: &[State], instead: impl Fn(usize) -> usize) -> Binding {
    let mut inputs = vec![InputUse::Port; graph.inputs().len()];
    let own = states.iter().filter(|s| s.is_of_model()).count();
    for (input, i) in inputs.iter_mut().rev().zip((0..own).rev()) {
        *input = InputUse::State(instead(i));
    }
    Binding { purpose, inputs, outputs: vec![None; graph.outputs().len()] }
}

/// The moving average of a state, if one is kept.
fn average_of(states: &[State], i: usize) -> Option<usize> {
    states.iter().position(|s| s.kind == StateKind::Average && s.of.as_ref() == Some(&states[i].name))
}

fn role(kind: StateKind) -> Role {
    match kind {
        StateKind::Parameter => Role::Parameter,
        StateKind::Statistic => Role::Statistic,
        StateKind::Gradient => Role::Gradient,
        StateKind::Moment => Role::Moment,
        StateKind::Average => Role::Average,
    }
}
