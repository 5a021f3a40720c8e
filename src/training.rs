//! A compiled training step: the model's forward and backward pass, loss and optimizer as machine code, and its state.
//!
//! ```text
//! model.onnx ─import, dropouts kept─> Graph ─training_step─> step and evaluation ─optimize, lower, emit─> two models in memory
//!             └──────────────── once for each size of a batch, as a shape set of its own ────────────────┘
//! ```
//!
//! The state (parameters, running statistics, the optimizer's moments) stands in two copies, of which a step reads one and
//! writes the other. [`CompiledStep`] is the [`Step`] of `nncc-train`, whose loop knows nothing of compiling.

use crate::compiler::{SetGraph, model_name};
use crate::model::{from_runtime, runtime_tensor};
use crate::{Compiler, Error, Model};
use nncc_frontend::export;
use nncc_ir::{Tensor, ValueId};
pub use nncc_passes::training::{Group, Loss, Optimizer, TrainingOptions};
use nncc_passes::training::{State, StateKind, TrainingGraph, training_step};
use nncc_runtime::{TensorView, TensorViewMut};
use nncc_train::loader::Batch;
use nncc_train::step::{Directions, Outcome, Step, StepError};
use std::collections::BTreeMap;
use std::path::Path;

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
    step: Option<Model>,
    evaluation: Option<Model>,
    states: Vec<State>,
    /// The states' values, and the memory for their next ones.
    values: [Vec<nncc_runtime::Tensor>; 2],
    /// Steps done.
    count: i64,
    loss: usize,
    notes: Vec<String>,
    sample: Vec<usize>,
    prediction: Vec<usize>,
}

impl Compiler {
    /// Compiles a training step into memory.
    ///
    /// # Errors
    /// When the model cannot be read, is not supported or cannot be trained so; when the size of its batch is fixed.
    pub fn training(
        &self,
        path: impl AsRef<Path>,
        options: &TrainingOptions,
        batches: &BatchSizes,
        stage: &mut dyn FnMut(&str),
    ) -> Result<CompiledStep, Error> {
        let path = path.as_ref();
        stage("reading the model");
        let model = nncc_frontend::Model::open(path)?;
        let batch = BatchAxis::of(&model.describe(), path)?;
        let graph = |size: usize| self.training_graph(&model, &batch, size, options);
        let Some(&first) = batches.step.iter().chain(&batches.evaluation).next() else {
            return Err(Error::Usage("a training step needs the size of a batch".into()));
        };
        let shown = graph(first)?;
        let (mut steps, mut evaluations, mut times) = (Vec::new(), Vec::new(), Vec::new());
        stage("optimizing");
        for &size in &batches.step {
            steps.push(self.optimize(graph(size)?.step, &mut times)?);
        }
        for &size in &batches.evaluation {
            evaluations.push(self.optimize(graph(size)?.evaluation, &mut times)?);
        }
        let name = model_name(path);
        let mut model = |part: &str, sets: Vec<SetGraph>| match sets.is_empty() {
            true => Ok(None),
            false => self.generate(&format!("{name}_{part}"), sets, Vec::new(), stage)?.jit().map(Some),
        };
        let (step, evaluation) = (model("step", steps)?, model("eval", evaluations)?);
        CompiledStep::new(shown, step, evaluation)
    }

    /// The training graph for one size of the batch.
    fn training_graph(
        &self,
        model: &nncc_frontend::Model,
        batch: &BatchAxis,
        size: usize,
        options: &TrainingOptions,
    ) -> Result<TrainingGraph, Error> {
        let mut import = self.import_options(self.first_dims());
        import.keep_dropouts = true;
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
        Ok(training_step(&model.import(&import)?.graph, options)?)
    }
}

/// What the first dimension of a model's first input is.
enum BatchAxis {
    Symbol(String),
    Fixed(usize),
}

impl BatchAxis {
    fn of(model: &nncc_frontend::Description, path: &Path) -> Result<BatchAxis, Error> {
        let first = model.inputs.first().and_then(|x| x.shape.as_ref()).and_then(|shape| shape.first().cloned());
        let axis = match &first {
            Some(d) => match (d.size(), &d.symbols()[..]) {
                (Some(n), _) => Some(BatchAxis::Fixed(n)),
                (None, [name]) => Some(BatchAxis::Symbol(name.to_string())),
                _ => None,
            },
            None => None,
        };
        let why = "the first dimension of its first input is no batch";
        axis.ok_or_else(|| Error::Usage(format!("{}: {why}", path.display())))
    }
}

impl CompiledStep {
    fn new(graph: TrainingGraph, step: Option<Model>, evaluation: Option<Model>) -> Result<CompiledStep, Error> {
        let bug = || Error::Internal("a training step without tensors of fixed shape".into());
        if graph.target != 1 {
            return Err(Error::Usage(format!("the model has {} inputs; a training run feeds one", graph.target)));
        }
        let values: Vec<nncc_runtime::Tensor> =
            graph.states.iter().map(|s| runtime_tensor(&s.initial.to_tensor())).collect();
        let shape = |v: ValueId| graph.step.ty(v).dims();
        let input = graph.step.inputs().first().map(|&node| ValueId { node, out: 0 });
        let sample = input.and_then(shape).ok_or_else(bug)?;
        let prediction = graph.step.outputs().first().and_then(|(_, v)| shape(*v)).ok_or_else(bug)?;
        Ok(CompiledStep {
            step,
            evaluation,
            values: [values.clone(), values],
            states: graph.states,
            count: 0,
            loss: graph.loss,
            notes: graph.notes,
            sample: sample[1..].to_vec(),
            prediction: prediction.get(1..).unwrap_or_default().to_vec(),
        })
    }

    /// Runs steps on `threads` threads.
    ///
    /// # Errors
    /// When that many cannot be had.
    pub fn with_threads(self, threads: u32) -> Result<CompiledStep, Error> {
        let threaded = |model: Option<Model>| model.map(|m| m.with_threads(threads)).transpose();
        Ok(CompiledStep { step: threaded(self.step)?, evaluation: threaded(self.evaluation)?, ..self })
    }

    /// What the user should know of the model: one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The dimensions of one sample of the first input.
    pub fn sample_dims(&self) -> &[usize] {
        &self.sample
    }

    /// The dimensions of the prediction of one sample.
    pub fn prediction_dims(&self) -> &[usize] {
        &self.prediction
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

    /// Writes the model with what has been learned: the file that was trained, with other values of its initializers. Where
    /// a moving average of the weights is kept, it is what is written.
    ///
    /// # Errors
    /// When the model cannot be read again or the file cannot be written.
    pub fn write_model(&self, original: &Path, out: &Path) -> Result<(), Error> {
        let mut values = BTreeMap::new();
        for (state, tensor) in self.states.iter().zip(&self.values[0]) {
            let name = match state.kind {
                StateKind::Parameter | StateKind::Statistic => &state.name,
                StateKind::Average => state.of.as_ref().unwrap_or(&state.name),
                StateKind::Moment => continue,
            };
            let dtype = from_runtime(tensor.dtype());
            let value = Tensor::from_bytes(dtype, tensor.shape(), tensor.bytes());
            let value = value.ok_or_else(|| Error::Internal(format!("the state {name} does not fill its shape")))?;
            if state.kind == StateKind::Average || !values.contains_key(name) {
                values.insert(name.clone(), value);
            }
        }
        Ok(export::write_model(original, &values, out)?)
    }

    /// Runs one of the two models: `between` stands between the batch and the states. Gives the prediction and the loss.
    fn run(
        model: &Model,
        batch: &Batch,
        between: &[nncc_runtime::Tensor],
        states: &[&nncc_runtime::Tensor],
        next: &mut [nncc_runtime::Tensor],
        loss: usize,
    ) -> Result<Outcome, StepError> {
        let data = tensors(batch);
        let inputs = data.iter().chain(between).chain(states.iter().copied());
        let inputs: Vec<TensorView<'_>> = inputs.map(nncc_runtime::Tensor::view).collect();
        let mut results = model.outputs_for(&inputs, loss + 1).map_err(|e| StepError(e.to_string()))?;
        let mut outputs: Vec<TensorViewMut<'_>> =
            results.iter_mut().chain(next).map(nncc_runtime::Tensor::view_mut).collect();
        model.run_into(&inputs, &mut outputs).map_err(|e| StepError(e.to_string()))?;
        let tensor = |t: &nncc_runtime::Tensor| Tensor::from_bytes(from_runtime(t.dtype()), t.shape(), t.bytes());
        match (tensor(&results[0]), tensor(&results[loss])) {
            (Some(outputs), Some(loss)) => Ok(Outcome { loss: loss.to_f64()[0], outputs }),
            _ => Err(StepError("an output does not fill its shape".into())),
        }
    }
}

impl Step for CompiledStep {
    fn step(&mut self, batch: &Batch, directions: Directions<'_>) -> Result<Outcome, StepError> {
        let Some(model) = &self.step else {
            return Err(StepError("it was compiled for evaluation alone".into()));
        };
        let [rate] = directions.rates else { return Err(StepError("one learning rate is needed".into())) };
        let between = [Tensor::f32(&[], vec![*rate]), Tensor::i64(&[2], vec![directions.seed as i64, self.count])];
        let between = between.map(|t| runtime_tensor(&t));
        let [now, next] = &mut self.values;
        let outcome = CompiledStep::run(model, batch, &between, &now.iter().collect::<Vec<_>>(), next, self.loss)?;
        self.values.swap(0, 1);
        self.count += 1;
        Ok(outcome)
    }

    fn eval(&mut self, batch: &Batch) -> Result<Outcome, StepError> {
        let Some(model) = &self.evaluation else {
            return Err(StepError("it was compiled without evaluation".into()));
        };
        let ours = self.states.iter().zip(&self.values[0]).filter(|(s, _)| s.evaluation_input.is_some());
        let states: Vec<&nncc_runtime::Tensor> = ours.map(|(_, tensor)| tensor).collect();
        CompiledStep::run(model, batch, &[], &states, &mut [], self.loss)
    }

    fn state(&self) -> Result<Vec<(String, Vec<u8>)>, StepError> {
        let values = self.states.iter().zip(&self.values[0]).map(|(s, t)| (s.name.clone(), t.bytes().to_vec()));
        Ok(std::iter::once((COUNT.to_string(), self.count.to_le_bytes().to_vec())).chain(values).collect())
    }

    fn set_state(&mut self, state: &[(String, Vec<u8>)]) -> Result<(), StepError> {
        let other = |what: &str| StepError(format!("the state of another step: {what}"));
        let Some(((name, count), values)) = state.split_first() else { return Err(other("it is empty")) };
        let count: [u8; 8] = count.as_slice().try_into().map_err(|_| other("its count of steps"))?;
        if name != COUNT || values.len() != self.states.len() {
            return Err(other("it has other tensors"));
        }
        let mut taken = Vec::with_capacity(values.len());
        for ((name, bytes), (own, old)) in values.iter().zip(self.states.iter().zip(&self.values[0])) {
            let tensor = nncc_runtime::Tensor::from_bytes(old.dtype(), bytes, old.shape());
            taken.push(tensor.filter(|_| *name == own.name).ok_or_else(|| other(name))?);
        }
        self.values[0] = taken;
        self.count = i64::from_le_bytes(count);
        Ok(())
    }
}

/// The name of the number of steps done, among those of the states.
const COUNT: &str = "steps";

/// A batch's two tensors for the run time.
fn tensors(batch: &Batch) -> [nncc_runtime::Tensor; 2] {
    [&batch.inputs, &batch.targets].map(runtime_tensor)
}
