//! Compiling a model that learns: one program of steps, evaluations and inferences over one block of states.
//!
//! ```text
//! model.onnx ─import for training──> Graph ─┬─training_step─> step         ┐
//!                                           │              └> evaluation   ├─optimize, lower─> a shape set each, which read and
//!                                           └─inference─────> the model    ┘                   write the states where they lie
//!             └─────────── once for each size of a batch ───────────┘
//! ```
//!
//! A state's value is an input of the step and its next value an output; both become one place in the block
//! ([`nncc_codegen::state`]). [`CompiledStep`](crate::training::CompiledStep) has them in two copies instead: it shows what an
//! update changed, and runs a step once more from where it began to find the first number that is none. Where moving averages of the weights are kept, inferences read these in place of the weights.

use crate::compiler::{Compiled, Learning, SetGraph, model_name};
use crate::training::{BatchAxis, ModelFile};
use crate::{Compiler, Error};
use nncc_codegen::program::Purpose;
use nncc_codegen::state::{Binding, InputUse, Role, StateSource};
use nncc_ir::Graph;
use nncc_passes::Recompute;
use nncc_passes::training::{State, StateKind, TrainingGraph, TrainingOptions, inference, training_step};
use std::path::Path;

/// The sizes of batches that a library that learns is compiled for, each once. What has none is not compiled.
#[derive(Clone, Debug, Default)]
pub struct LearningBatches {
    /// Of steps.
    pub step: Vec<usize>,
    /// Of evaluations, which tell the loss.
    pub evaluation: Vec<usize>,
    /// Of inferences.
    pub inference: Vec<usize>,
}

impl Compiler {
    /// Compiles a model into a library that learns: the very step of [`Compiler::training`], on states in the caller's memory.
    /// Each batch is an update of its own. Gives the training graph of one of the sizes too: what the states are, and notes.
    ///
    /// # Errors
    /// When the model is not supported or cannot be trained so; when it takes several inputs or the size of its batch is
    /// fixed.
    pub fn load_learning(
        &self,
        model: &ModelFile,
        options: &TrainingOptions,
        batches: &LearningBatches,
        stage: &mut dyn FnMut(&str),
    ) -> Result<(Compiled, TrainingGraph), Error> {
        self.targets()?; // a wrong one is told before the model is imported
        let options = &TrainingOptions { accumulate: false, ..options.clone() };
        let batch = BatchAxis::of(model, &self.fixed_inputs())?;
        stage("importing");
        let forward = |size: usize| self.forward(model, &batch, size);
        let Some(&first) = batches.step.iter().chain(&batches.evaluation).chain(&batches.inference).next() else {
            return Err(Error::Usage("a training step needs the size of a batch".into()));
        };
        let shown = training_step(&forward(first)?, options)?;
        stage("optimizing");
        let mut times = Vec::new();
        let mut sets: Vec<SetGraph> = Vec::new();
        let mut bindings = Vec::new();
        let mut add = |graph: Graph, binding: Binding| -> Result<(), Error> {
            let how = if binding.purpose == Purpose::Step { options.recompute } else { Recompute::None };
            sets.push(self.optimize_step(graph, how, &mut times)?);
            bindings.push(binding);
            Ok(())
        };
        for &size in &batches.step {
            let mut graph = training_step(&forward(size)?, options)?;
            for state in &graph.states {
                graph.step.add_state(state.input, state.output);
            }
            add(graph.step, step_binding(&shown))?;
        }
        for &size in &batches.evaluation {
            let graph = training_step(&forward(size)?, options)?;
            let binding = reading(Purpose::Evaluate, &graph.evaluation, &shown.states, |s| s.evaluation_input, |i| i);
            add(graph.evaluation, binding)?;
        }
        for &size in &batches.inference {
            let graph = inference(&forward(size)?, options)?;
            let average = |i: usize| average_of(&shown.states, i).unwrap_or(i);
            // The inputs are those of the evaluation without the target, which stands in front of the states.
            let place = |s: &State| s.evaluation_input.map(|place| place - 1);
            let binding = reading(Purpose::Infer, &graph, &shown.states, place, average);
            add(graph, binding)?;
        }
        let source = |s: &State| StateSource { name: s.name.clone(), role: role(s.kind), initial: s.initial.clone() };
        let learning = Learning { bindings, states: shown.states.iter().map(source).collect() };
        let name = format!("{}_train", model_name(Path::new(model.file())));
        Ok((self.generate(&name, sets, Some(&learning), times, stage)?, shown))
    }
}

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

/// Of a graph that only reads states: `place` is a state's place among its inputs, `instead` the state that is read there.
fn reading(
    purpose: Purpose,
    graph: &Graph,
    states: &[State],
    place: impl Fn(&State) -> Option<usize>,
    instead: impl Fn(usize) -> usize,
) -> Binding {
    let mut inputs = vec![InputUse::Port; graph.inputs().len()];
    for (i, state) in states.iter().enumerate() {
        if let Some(place) = place(state) {
            inputs[place] = InputUse::State(instead(i));
        }
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
        // gradients are no states without accumulation
        StateKind::Gradient | StateKind::Moment => Role::Moment,
        StateKind::Average => Role::Average,
    }
}
