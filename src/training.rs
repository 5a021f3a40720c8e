//! A compiled training step: the model's forward and backward pass, loss and optimizer as machine code, and its state.
//!
//! ```text
//! model.onnx ─import for training─> Graph ─training_step─> step and evaluation ─optimize, lower, emit─> two models in memory
//!             └─────────────── once for each size of a batch, as a shape set of its own ──────────────┘
//! ```
//!
//! The state (parameters, running statistics, the optimizer's moments) stands in two copies, of which a step reads one and
//! writes the other. [`CompiledStep`] is the [`Step`] of `nncc-train`, whose loop knows nothing of compiling.

mod watching;

use crate::compiler::model_name;
use crate::model::{from_runtime, runtime_tensor};
use crate::roofline::Roofline;
use crate::{Compiler, Error, Model};
pub use nncc_frontend::Model as ModelFile;
use nncc_frontend::export;
use nncc_ir::{Data, Graph, Tensor};
pub use nncc_passes::Recompute;
use nncc_passes::training::{EvaluationGraph, State, StateKind, TrainingGraph, evaluation_graph, training_step};
pub use nncc_passes::training::{Group, Loss, Optimizer, Parameter, TrainingOptions};
use nncc_runtime::{TensorView, TensorViewMut};
use nncc_train::loader::Batch;
use nncc_train::step::{Directions, LayerActivity, LayerNorms, Outcome, Step, StepError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// The sizes of batches that a step is compiled for, each once. What has none is not compiled.
#[derive(Clone, Debug, Default)]
pub struct BatchSizes {
    /// Of steps: the batch and, where the data do not divide, the smaller last one of an epoch.
    pub step: Vec<usize>,
    /// Of evaluations.
    pub evaluation: Vec<usize>,
}

/// A model that learns. Made by [`Compiler::training`].
pub struct CompiledStep {
    step: Option<Part>,
    /// A step without an update, where gradients accumulate.
    gather: Option<Part>,
    evaluation: Option<Part>,
    states: Vec<State>,
    /// The states' values, and the memory for their next ones.
    values: [Vec<nncc_runtime::Tensor>; 2],
    /// Steps done.
    count: i64,
    loss: usize,
    notes: Vec<String>,
    /// The results of ReLUs.
    rectified: Vec<String>,
    /// The states whose gradients' norms stand behind the step's loss, and what they were in the last update.
    watched: Vec<usize>,
    gradient_norms: Vec<f32>,
}

/// One compiled graph of a training step, and the states that are its last inputs and its last outputs, by number.
struct Part {
    model: Model,
    reads: Vec<usize>,
    writes: Vec<usize>,
    /// Outputs in front of the states: the prediction, the loss last or, of the step, the gradients' norms behind it.
    outputs: usize,
}

impl Compiler {
    /// Compiles a training step into memory. Each size of a batch is imported and differentiated once, for step and
    /// evaluation together.
    ///
    /// # Errors
    /// When the model is not supported or cannot be trained so; when it takes several inputs or the size of its batch is
    /// fixed.
    pub fn training(
        &self,
        model: &ModelFile,
        options: &TrainingOptions,
        batches: &BatchSizes,
        stage: &mut dyn FnMut(&str),
    ) -> Result<CompiledStep, Error> {
        let batch = BatchAxis::of(model, &self.fixed_inputs())?;
        let mut sizes: Vec<usize> = Vec::new();
        for &size in batches.step.iter().chain(&batches.evaluation) {
            if !sizes.contains(&size) {
                sizes.push(size);
            }
        }
        if sizes.is_empty() {
            return Err(Error::Usage("a training step needs the size of a batch".into()));
        }
        if batches.step.is_empty() {
            return self.evaluation(model, &batch, options, &sizes, stage);
        }
        let (mut sets, mut times, mut described) = ([const { Vec::new() }; 3], Vec::new(), None);
        for size in sizes {
            stage("importing");
            let TrainingGraph { step, gather, evaluation, states, loss, notes, watched, rectified, .. } =
                training_step(&self.forward(model, &batch, size)?, options)?;
            stage("optimizing");
            let (gather, places) = gather.map(|g| (g.graph, (g.reads, g.writes))).unzip();
            let (steps, measured) = (batches.step.contains(&size), batches.evaluation.contains(&size));
            let parts = [Some(step).filter(|_| steps), gather.filter(|_| steps), Some(evaluation).filter(|_| measured)];
            let recompute = [options.recompute, options.recompute, Recompute::None];
            for ((set, graph), how) in sets.iter_mut().zip(parts).zip(recompute) {
                set.extend(graph.map(|g| self.optimize_step(g, how, &mut times)).transpose()?);
            }
            // states, places and notes are the same for every size
            described.get_or_insert((states, places, loss, notes, watched, rectified));
        }
        let Some((states, gathers, loss, notes, watched, rectified)) = described else {
            return Err(Error::Internal("a training step without a size".into()));
        };
        let all = |keep: &dyn Fn(&State) -> bool| (0..states.len()).filter(|&i| keep(&states[i])).collect::<Vec<_>>();
        let (gather_reads, gather_writes) = gathers.map(|(n, writes)| ((0..n).collect(), writes)).unwrap_or_default();
        let norms = usize::from(!watched.is_empty());
        let places = [
            ("step", all(&|_| true), all(&|s| s.kind != StateKind::Gradient), loss + 1 + norms),
            ("gather", gather_reads, gather_writes, loss + 1),
            ("eval", all(&|s| s.evaluation_input.is_some()), Vec::new(), loss + 1),
        ];
        let name = model_name(Path::new(model.file()));
        let mut parts = Vec::new();
        for ((part, reads, writes, outputs), sets) in places.into_iter().zip(sets) {
            let model = match sets.is_empty() {
                true => None,
                false => Some(self.generate(&format!("{name}_{part}"), sets, None, Vec::new(), stage)?.jit()?),
            };
            parts.push(model.map(|model| Part { model, reads, writes, outputs }));
        }
        let mut parts = parts.into_iter();
        let (step, gather, evaluation) = (parts.next().flatten(), parts.next().flatten(), parts.next().flatten());
        let values: Vec<nncc_runtime::Tensor> = states.iter().map(|s| runtime_tensor(&s.initial.to_tensor())).collect();
        let watched = watched.iter().filter_map(|name| states.iter().position(|s| s.name == *name)).collect();
        Ok(CompiledStep {
            step,
            gather,
            evaluation,
            values: [values.clone(), values],
            states,
            count: 0,
            loss,
            notes,
            rectified,
            watched,
            gradient_norms: Vec::new(),
        })
    }

    /// What measures alone: the weights are constants of it, and the model need not be one that can learn.
    fn evaluation(
        &self,
        model: &ModelFile,
        batch: &BatchAxis,
        options: &TrainingOptions,
        sizes: &[usize],
        stage: &mut dyn FnMut(&str),
    ) -> Result<CompiledStep, Error> {
        let (mut sets, mut times, mut described) = (Vec::new(), Vec::new(), None);
        for &size in sizes {
            stage("importing");
            let EvaluationGraph { graph, loss, notes, .. } =
                evaluation_graph(&self.forward(model, batch, size)?, options)?;
            stage("optimizing");
            sets.push(self.optimize(graph, &mut times)?);
            described.get_or_insert((loss, notes));
        }
        let (loss, notes) = described.unwrap_or_default();
        let name = model_name(Path::new(model.file()));
        let model = self.generate(&format!("{name}_eval"), sets, None, Vec::new(), stage)?.jit()?;
        Ok(CompiledStep {
            step: None,
            gather: None,
            evaluation: Some(Part { model, reads: Vec::new(), writes: Vec::new(), outputs: loss + 1 }),
            states: Vec::new(),
            values: [Vec::new(), Vec::new()],
            count: 0,
            loss,
            notes,
            rectified: Vec::new(),
            watched: Vec::new(),
            gradient_norms: Vec::new(),
        })
    }

    /// The forward graph for one size of the batch.
    pub(crate) fn forward(&self, model: &ModelFile, batch: &BatchAxis, size: usize) -> Result<Graph, Error> {
        let mut import = self.import_options(self.first_dims());
        import.training = true;
        match batch {
            BatchAxis::Symbol(name) => {
                import.dims.insert(name.clone(), size as i64);
            }
            BatchAxis::Fixed(n) if *n == size => {}
            BatchAxis::Fixed(n) => {
                return Err(Error::Usage(format!(
                    "the model is made for batches of {n}, not of {size}; export it with a symbolic first dimension"
                )));
            }
        }
        Ok(model.import(&import)?.graph)
    }
}

/// What the first dimension of a model's first input is.
pub(crate) enum BatchAxis {
    Symbol(String),
    Fixed(usize),
}

impl BatchAxis {
    /// An error if the model does not take one input with a batch in front.
    pub(crate) fn of(model: &ModelFile, fixed: &BTreeSet<&str>) -> Result<BatchAxis, Error> {
        let mut inputs = model.describe().inputs;
        inputs.retain(|i| !fixed.contains(&i.name[..]));
        let usage = |why: &str| Error::Usage(format!("{}: {why}", model.file()));
        let [input] = &inputs[..] else {
            return Err(usage(&format!("the model has {} inputs; a training run feeds one", inputs.len())));
        };
        let first = input.shape.as_ref().and_then(|shape| shape.first());
        let axis = first.and_then(|d| match (d.size(), &d.symbols()[..]) {
            (Some(n), _) => Some(BatchAxis::Fixed(n)),
            (None, [name]) => Some(BatchAxis::Symbol(name.to_string())),
            _ => None,
        });
        axis.ok_or_else(|| usage("the first dimension of its input is no batch"))
    }
}

impl CompiledStep {
    /// Runs steps on `threads` threads.
    ///
    /// # Errors
    /// When that many cannot be had.
    pub fn with_threads(self, threads: u32) -> Result<CompiledStep, Error> {
        let threaded = |part: Option<Part>| match part {
            Some(part) => Ok(Some(Part { model: part.model.with_threads(threads)?, ..part })),
            None => Ok::<_, Error>(None),
        };
        let (step, gather) = (threaded(self.step)?, threaded(self.gather)?);
        Ok(CompiledStep { step, gather, evaluation: threaded(self.evaluation)?, ..self })
    }

    /// What the user should know of the model: one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The number of learned weights.
    pub fn parameter_count(&self) -> usize {
        let learned = self.states.iter().zip(&self.values[0]).filter(|(s, _)| s.kind == StateKind::Parameter);
        learned.map(|(_, t)| t.len()).sum()
    }

    /// The weights of the first convolution as filters: the dimensions of one (channels, height, width), and all values.
    pub fn first_filters(&self) -> Option<([usize; 3], Vec<f32>)> {
        let parameters = self.states.iter().zip(&self.values[0]).filter(|(s, _)| s.kind == StateKind::Parameter);
        let mut four = parameters.filter_map(|(_, t)| Some((<&[usize; 4]>::try_from(t.shape()).ok()?, t)));
        let (&[_, channels, height, width], weights) = four.next()?;
        Some(([channels, height, width], weights.as_slice::<f32>()?.to_vec()))
    }

    /// Writes the model with what has been learned: the file that was trained, with other values of its initializers.
    ///
    /// # Errors
    /// When the model cannot be read again or the file cannot be written.
    pub fn write_model(&self, original: &Path, out: &Path) -> Result<(), Error> {
        Ok(export::write_model(original, &self.learned()?, out)?)
    }

    /// The same for a model in memory, which `name` stands for in errors.
    ///
    /// # Errors
    /// As [`CompiledStep::write_model`].
    pub fn write_model_of(&self, original: &[u8], name: &str, out: &Path) -> Result<(), Error> {
        Ok(export::write_replaced(original, &self.learned()?, name, out)?)
    }

    /// Where the time of a step on this batch goes, by fused node. Nothing is learnt from it.
    ///
    /// # Errors
    /// When it was compiled for evaluation alone or the batch does not fit; when the machine cannot be measured.
    pub fn profile(&self, batch: &Batch, time: Duration) -> Result<Roofline, Error> {
        let Some(part) = &self.step else {
            return Err(Error::Usage("an evaluation has no step to be profiled".into()));
        };
        let between = self.between(Directions { rate: 0.0, seed: 0, share: 1.0, update: true });
        let states = between.iter().chain(part.reads.iter().map(|&i| &self.values[0][i]));
        let states = states.filter_map(|t| Tensor::from_bytes(from_runtime(t.dtype()), t.shape(), t.bytes()));
        let inputs: Vec<Tensor> = [batch.inputs.clone(), batch.targets.clone()].into_iter().chain(states).collect();
        Roofline::measure(&part.model, &inputs, time)
    }

    /// What has been learned, by the names of the initializers: parameters, statistics, and where a moving average of the
    /// parameters is kept, that instead.
    fn learned(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let mut values = BTreeMap::new();
        for (state, tensor) in self.states.iter().zip(&self.values[0]) {
            let name = match state.kind {
                StateKind::Parameter | StateKind::Statistic => &state.name,
                StateKind::Average => state.of.as_ref().unwrap_or(&state.name),
                StateKind::Gradient | StateKind::Moment => continue,
            };
            let dtype = from_runtime(tensor.dtype());
            let value = Tensor::from_bytes(dtype, tensor.shape(), tensor.bytes());
            let value = value.ok_or_else(|| Error::Internal(format!("the state {name} does not fill its shape")))?;
            if state.kind == StateKind::Average || !values.contains_key(name) {
                values.insert(name.clone(), value);
            }
        }
        Ok(values)
    }
}

impl Part {
    /// Runs the graph. What it writes takes the place of what was, which goes to the second of `values`. Gives the outputs
    /// before the states.
    fn run(
        &self,
        batch: &Batch,
        between: &[nncc_runtime::Tensor],
        [now, next]: &mut [Vec<nncc_runtime::Tensor>; 2],
    ) -> Result<Vec<nncc_runtime::Tensor>, StepError> {
        let (results, ()) = self.bound(batch, between, [now, next], Model::run_into)?;
        for &i in &self.writes {
            std::mem::swap(&mut now[i], &mut next[i]);
        }
        Ok(results)
    }

    /// Gives `run` the graph's inputs, of which `between` stands between the batch and the states, and memory for all outputs.
    /// Gives the outputs before the states, and what `run` gave.
    fn bound<R>(
        &self,
        batch: &Batch,
        between: &[nncc_runtime::Tensor],
        [now, next]: [&mut Vec<nncc_runtime::Tensor>; 2],
        run: impl FnOnce(&Model, &[TensorView<'_>], &mut [TensorViewMut<'_>]) -> Result<R, Error>,
    ) -> Result<(Vec<nncc_runtime::Tensor>, R), StepError> {
        let failed = |e: Error| StepError(e.to_string());
        let states = between.iter().chain(self.reads.iter().map(|&i| &now[i])).map(nncc_runtime::Tensor::view);
        let data = [view(&batch.inputs)?, view(&batch.targets)?];
        let inputs: Vec<TensorView<'_>> = data.into_iter().chain(states).collect();
        let mut results = self.model.outputs_for(&inputs, self.outputs).map_err(failed)?;
        let mut outputs: Vec<TensorViewMut<'_>> =
            results.iter_mut().chain(self.written(next)).map(nncc_runtime::Tensor::view_mut).collect();
        let given = run(&self.model, &inputs, &mut outputs).map_err(failed)?;
        Ok((results, given))
    }

    /// The states that it writes, in order.
    fn written<'v>(
        &self,
        values: &'v mut [nncc_runtime::Tensor],
    ) -> impl Iterator<Item = &'v mut nncc_runtime::Tensor> {
        values.iter_mut().enumerate().filter(|(i, _)| self.writes.binary_search(i).is_ok()).map(|(_, t)| t)
    }
}

impl CompiledStep {
    /// What stands between the batch and the states of a step.
    fn between(&self, directions: Directions) -> Vec<nncc_runtime::Tensor> {
        let share = self.gather.as_ref().map(|_| Tensor::f32(&[], vec![directions.share]));
        let rate = Tensor::f32(&[], vec![directions.rate]);
        let clock = Tensor::i64(&[2], vec![directions.seed as i64, self.count]);
        [rate, clock].iter().chain(&share).map(runtime_tensor).collect()
    }

    fn outcome(&self, results: &[nncc_runtime::Tensor]) -> Result<Outcome, StepError> {
        let tensor = |t: &nncc_runtime::Tensor| Tensor::from_bytes(from_runtime(t.dtype()), t.shape(), t.bytes());
        match (tensor(&results[0]), tensor(&results[self.loss])) {
            (Some(outputs), Some(loss)) => Ok(Outcome { loss: loss.to_f64()[0], outputs }),
            _ => Err(StepError("an output does not fill its shape".into())),
        }
    }

    /// The states that gradients are added up in.
    fn accumulators(&self) -> impl Iterator<Item = usize> {
        (0..self.states.len()).filter(|&i| self.states[i].kind == StateKind::Gradient)
    }

    fn clear_accumulators(&mut self) {
        for i in self.accumulators().collect::<Vec<_>>() {
            let (dtype, shape) = (self.values[0][i].dtype(), self.values[0][i].shape().to_vec());
            self.values[0][i] = nncc_runtime::Tensor::zeros(dtype, &shape);
        }
    }
}

impl Step for CompiledStep {
    fn step(&mut self, batch: &Batch, directions: Directions) -> Result<Outcome, StepError> {
        let part = if directions.update { &self.step } else { &self.gather };
        let Some(part) = part else {
            let what = if directions.update { "for evaluation alone" } else { "without accumulation" };
            return Err(StepError(format!("it was compiled {what}")));
        };
        if self.gather.is_none() && directions.share != 1.0 {
            return Err(StepError("it was compiled without accumulation".into()));
        }
        let results = part.run(batch, &self.between(directions), &mut self.values)?;
        let outcome = self.outcome(&results)?;
        if directions.update {
            self.count += 1;
            self.clear_accumulators();
            let norms = results.get(self.loss + 1).and_then(|t| t.as_slice::<f32>());
            self.gradient_norms = norms.unwrap_or_default().to_vec();
        }
        Ok(outcome)
    }

    fn norms(&mut self) -> Vec<LayerNorms> {
        self.layer_norms()
    }

    fn activity(&mut self, batch: &Batch) -> Result<Vec<LayerActivity>, StepError> {
        self.layer_activity(batch)
    }

    fn first_not_finite(&mut self, batch: &Batch, directions: Directions) -> Option<String> {
        self.count -= i64::from(directions.update);
        self.origin_of_not_finite(batch, directions)
    }

    fn accumulates(&self) -> bool {
        self.gather.is_some()
    }

    fn eval(&mut self, batch: &Batch) -> Result<Outcome, StepError> {
        let Some(part) = &self.evaluation else {
            return Err(StepError("it was compiled without evaluation".into()));
        };
        let results = part.run(batch, &[], &mut self.values)?;
        self.outcome(&results)
    }

    fn state(&self) -> Result<Vec<(String, Vec<u8>)>, StepError> {
        let kept = self.states.iter().zip(&self.values[0]).filter(|(s, _)| s.kind != StateKind::Gradient);
        let values = kept.map(|(s, t)| (s.name.clone(), t.bytes().to_vec()));
        Ok(std::iter::once((COUNT.to_string(), self.count.to_le_bytes().to_vec())).chain(values).collect())
    }

    fn set_state(&mut self, state: &[(String, Vec<u8>)]) -> Result<(), StepError> {
        let other = |what: &str| StepError(format!("the state of another step: {what}"));
        let Some(((name, count), values)) = state.split_first() else { return Err(other("it is empty")) };
        let count: [u8; 8] = count.as_slice().try_into().map_err(|_| other("its count of steps"))?;
        let own: Vec<usize> = (0..self.states.len()).filter(|&i| self.states[i].kind != StateKind::Gradient).collect();
        if name != COUNT || values.len() != own.len() {
            return Err(other("it has other tensors"));
        }
        let mut taken = Vec::with_capacity(values.len());
        for ((name, bytes), &i) in values.iter().zip(&own) {
            let old = &self.values[0][i];
            let tensor = nncc_runtime::Tensor::from_bytes(old.dtype(), bytes, old.shape());
            taken.push(tensor.filter(|_| *name == self.states[i].name).ok_or_else(|| other(name))?);
        }
        for (i, tensor) in own.into_iter().zip(taken) {
            self.values[0][i] = tensor;
        }
        self.clear_accumulators();
        self.count = i64::from_le_bytes(count);
        Ok(())
    }
}

/// The name of the number of steps done, among those of the states.
const COUNT: &str = "steps";

/// A batch's tensor for the run time, not copied.
fn view(t: &Tensor) -> Result<TensorView<'_>, StepError> {
    match t.data() {
        Data::F32(v) => Ok(TensorView::new(v, t.dims())),
        Data::I64(v) => Ok(TensorView::new(v, t.dims())),
        _ => Err(StepError(format!("a batch of {}", t.ty()))),
    }
}
