//! A compiled training step: the model's forward and backward pass, loss and optimizer as machine code, and its state.
//!
//! ```text
//! model.onnx ─import for training─> Graph ─> step, evaluation ─optimize, lower, emit─> a library in memory
//!             └──────── once for each size of a batch, as a shape set of its own ──────┘
//! ```
//!
//! It is the library that `nncc MODEL --train` writes ([`Compiler::load_learning`]): a step changes its states where they lie, in
//! one block. [`CompiledStep`] is the [`Step`] of `nncc-train`, whose loop knows nothing of compiling. What a program needs of
//! that crate to teach a network is here too: a [`Dataset`](data::Dataset), a [`Loader`] that makes batches of it, a [`Trainer`]
//! that runs over them, and an [`Observer`] whose methods are the callbacks. `examples/lenet` and `examples/finetune` show it.

mod watching;

use crate::batch::BatchAxis;
use crate::compiler::model_name;
use crate::learning::LearningBatches;
use crate::model::{Learnt, from_runtime};
use crate::roofline::Roofline;
use crate::{Compiler, Error, Model};
pub use nncc_frontend::Model as ModelFile;
use nncc_frontend::export;
pub use nncc_frontend::head;
pub use nncc_ir::NamePattern;
use nncc_ir::{DType, Data, Graph, Tensor};
pub use nncc_passes::Recompute;
use nncc_passes::training::{EvaluationGraph, StateKind, TrainingGraph, evaluation_graph};
pub use nncc_passes::training::{Group, Loss, Optimizer, Parameter, TrainingOptions};
use nncc_runtime::{Purpose, StateBlock, TensorView, TensorViewMut};
pub use nncc_train::data;
pub use nncc_train::evaluate::Evaluation;
pub use nncc_train::history::EpochRecord;
pub use nncc_train::loader::{Batch, Loader, Loading};
pub use nncc_train::schedule::{Rates, Schedule};
pub use nncc_train::step::{Directions, Outcome, Step, StepError};
use nncc_train::step::{LayerActivity, LayerNorms};
pub use nncc_train::trainer::{Monitor, Observer, Run, Settings, StepReport, TrainError, Trainer};
use std::collections::BTreeMap;
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

impl BatchSizes {
    /// Of the batches that these loaders make: steps on `train`, evaluations on `measured`.
    pub fn of(train: &Loader<'_>, measured: Option<&Loader<'_>>) -> BatchSizes {
        BatchSizes { step: train.batch_sizes(), evaluation: measured.map_or_else(Vec::new, Loader::batch_sizes) }
    }
}

/// A model that learns. Made by [`Compiler::training`].
pub struct CompiledStep {
    model: Model,
    /// What it learns; none of an evaluation alone.
    block: Option<StateBlock>,
    /// Of each state of the block its name, what it is, and to which parameter it belongs.
    states: Vec<(String, StateKind, Option<String>)>,
    /// The place of the loss among the outputs.
    loss: usize,
    notes: Vec<String>,
    /// The results of ReLUs.
    rectified: Vec<String>,
    /// The states whose gradients' norms stand behind the step's loss.
    watched: Vec<usize>,
    /// The norms, and the states before the update, of the last step that was watched.
    gradient_norms: Vec<f32>,
    before: Vec<nncc_runtime::Tensor>,
}

impl Compiler {
    /// Compiles a training step into memory. Each size of a batch is imported once, for step and evaluation together; one that
    /// is only measured on is not differentiated, so that it may be too small to learn from.
    ///
    /// # Errors
    /// When the model is not supported or cannot be trained so; when it takes several inputs, or was made for batches of one
    /// size that cannot be changed.
    pub fn training(
        &self,
        model: &ModelFile,
        options: &TrainingOptions,
        batches: &BatchSizes,
        stage: &mut dyn FnMut(&str),
    ) -> Result<CompiledStep, Error> {
        if batches.step.is_empty() {
            return self.evaluation(model, options, &batches.evaluation, stage);
        }
        let BatchSizes { step, evaluation } = batches.clone();
        let gather = if options.accumulate { step.clone() } else { Vec::new() };
        let sizes = LearningBatches { step, gather, evaluation, inference: Vec::new() };
        let (compiled, TrainingGraph { states, loss, watched, rectified, notes, .. }) =
            self.load_learning(model, options, &sizes, stage)?;
        let model = compiled.jit()?;
        let block = StateBlock::new(model.library(), 0).map_err(|e| Error::Run(e.to_string()))?;
        let watched = watched.iter().filter_map(|name| states.iter().position(|s| s.name == *name)).collect();
        let states = states.into_iter().map(|s| (s.name, s.kind, s.of)).collect();
        let (gradient_norms, before) = (Vec::new(), Vec::new());
        Ok(CompiledStep { model, block: Some(block), states, loss, notes, rectified, watched, gradient_norms, before })
    }

    /// What measures alone: the weights are constants of it, and the model need not be one that can learn.
    fn evaluation(
        &self,
        model: &ModelFile,
        options: &TrainingOptions,
        sizes: &[usize],
        stage: &mut dyn FnMut(&str),
    ) -> Result<CompiledStep, Error> {
        let batch = BatchAxis::of_one(model, &self.fixed_inputs())?;
        let (mut sets, mut times, mut said) = (Vec::new(), Vec::new(), None);
        for &size in sizes {
            stage("importing");
            let EvaluationGraph { graph, loss, notes, .. } =
                evaluation_graph(&self.forward(model, &batch, size)?, options)?;
            stage("optimizing");
            sets.push(self.optimize(graph, &mut times)?);
            said.get_or_insert((loss, notes));
        }
        let (loss, notes) = said.ok_or_else(|| Error::Usage("a training step needs the size of a batch".into()))?;
        let name = model_name(Path::new(model.file()));
        let model = self.generate(&format!("{name}_eval"), sets, None, Vec::new(), stage)?.jit()?;
        Ok(CompiledStep {
            model,
            block: None,
            states: Vec::new(),
            loss,
            notes,
            rectified: Vec::new(),
            watched: Vec::new(),
            gradient_norms: Vec::new(),
            before: Vec::new(),
        })
    }

    /// The forward graph for one size of the batch.
    pub(crate) fn forward(&self, model: &ModelFile, batch: &BatchAxis, size: usize) -> Result<Graph, Error> {
        let mut import = self.import_options(self.first_dims());
        import.training = true;
        batch.import(model, import, size)
    }
}

impl CompiledStep {
    /// Runs steps on `threads` threads.
    ///
    /// # Errors
    /// When that many cannot be had.
    pub fn with_threads(self, threads: u32) -> Result<CompiledStep, Error> {
        Ok(CompiledStep { model: self.model.with_threads(threads)?, ..self })
    }

    /// Bytes that a step or an evaluation takes on `threads` threads, whichever takes more, beside the states.
    pub fn workspace_bytes(&self, threads: u32) -> u64 {
        self.model.library().workspace_bytes(threads)
    }

    /// What the user should know of the model: one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The number of learned weights.
    pub fn parameter_count(&self) -> usize {
        self.values(StateKind::Parameter).map(|(_, t)| t.shape().iter().product::<usize>()).sum()
    }

    /// The weights of the first convolution as filters: the dimensions of one (channels, height, width), and all values.
    pub fn first_filters(&self) -> Option<([usize; 3], Vec<f32>)> {
        let dims = |t: TensorView<'_>| <[usize; 4]>::try_from(t.shape()).ok();
        let (dims, weights) = self.values(StateKind::Parameter).find_map(|(_, t)| Some((dims(t)?, t)))?;
        match ir_tensor(&weights).ok()?.data() {
            Data::F32(v) => Some(([dims[1], dims[2], dims[3]], v.to_vec())),
            _ => None,
        }
    }

    /// The states of one kind, with their numbers.
    fn values(&self, kind: StateKind) -> impl Iterator<Item = (usize, TensorView<'_>)> {
        let all = self.block.iter().flat_map(|block| (0..self.states.len()).map(|i| (i, block.get(i))));
        all.filter(move |(i, _)| self.states[*i].1 == kind)
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
        let Some(block) = &self.block else {
            return Err(Error::Usage("an evaluation has no step to be profiled".into()));
        };
        let directions = Directions { rate: 0.0, seed: 0, share: 1.0, update: true, watch: false };
        let further = self.further(directions).into_iter().map(|x| Tensor::f32(&[], vec![x]));
        let inputs: Vec<Tensor> = [batch.inputs.clone(), batch.targets.clone()].into_iter().chain(further).collect();
        let block = block.copy().map_err(|e| Error::Run(e.to_string()))?;
        Roofline::of(&self.model, self.model.bind_learning(&inputs, Some(block))?, time)
    }

    /// What has been learned, by the names of the initializers: parameters, statistics, and where a moving average of the
    /// parameters is kept, that instead.
    fn learned(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let mut values = BTreeMap::new();
        for kind in [StateKind::Parameter, StateKind::Statistic, StateKind::Average] {
            for (i, view) in self.values(kind) {
                let (name, _, of) = &self.states[i];
                let value = ir_tensor(&view).map_err(|e| Error::Internal(e.to_string()))?;
                values.insert(of.as_ref().unwrap_or(name).clone(), value);
            }
        }
        Ok(values)
    }

    fn outcome(&self, results: &[nncc_runtime::Tensor]) -> Result<Outcome, StepError> {
        let [outputs, loss] = [ir_tensor(&results[0].view())?, ir_tensor(&results[self.loss].view())?];
        Ok(Outcome { loss: loss.to_f64()[0], outputs })
    }

    /// Whether there is a set for this.
    fn has(&self, purpose: Purpose) -> bool {
        let library = self.model.library();
        (0..library.set_count()).any(|set| library.purpose(set) == purpose)
    }

    /// What a step takes behind batch and targets.
    fn further(&self, directions: Directions) -> Vec<f32> {
        let share = self.has(Purpose::Gather).then_some(directions.share);
        share.into_iter().chain(directions.update.then_some(directions.rate)).collect()
    }

    /// Runs what the directions ask for by `run`, with the inputs of a batch. Gives what it gives.
    fn stepped<R>(
        &mut self,
        batch: &Batch,
        directions: Directions,
        run: impl FnOnce(&Model, Learnt<'_>, &[TensorView<'_>]) -> Result<R, Error>,
    ) -> Result<R, StepError> {
        let wanted = if directions.update { Purpose::Step } else { Purpose::Gather };
        if self.block.is_some() && !self.has(Purpose::Gather) && directions.share != 1.0 || !self.has(wanted) {
            let what = if self.block.is_some() { "without accumulation" } else { "for evaluation alone" };
            return Err(StepError(format!("it was compiled {what}")));
        }
        let further = self.further(directions);
        let numbers = further.iter().map(|x| TensorView::new(std::slice::from_ref(x), &[]));
        let inputs: Vec<TensorView<'_>> =
            [view(&batch.inputs)?, view(&batch.targets)?].into_iter().chain(numbers).collect();
        let Some(block) = &mut self.block else { return Err(StepError("it has no states".into())) };
        block.set_seed(directions.seed);
        run(&self.model, Learnt::Changing(block), &inputs).map_err(|e| StepError(e.to_string()))
    }

    /// The same of an evaluation.
    fn evaluated<R>(
        &self,
        batch: &Batch,
        run: impl FnOnce(&Model, Learnt<'_>, &[TensorView<'_>]) -> Result<R, Error>,
    ) -> Result<R, StepError> {
        let learnt = match &self.block {
            Some(_) if !self.has(Purpose::Evaluate) => {
                return Err(StepError("it was compiled without evaluation".into()));
            }
            Some(block) => Learnt::Fixed(block),
            None => Learnt::Nothing,
        };
        // Classes for a step that learns from probabilities: see `training_step`.
        let floats = self.model.library().inputs(0).get(1).is_some_and(|port| port.dtype == nncc_runtime::DType::F32);
        let classes = floats && batch.targets.dtype() == DType::I64;
        let numbers = || batch.targets.to_i64().iter().map(|&class| class as f32).collect();
        let targets = classes.then(|| Tensor::f32(batch.targets.dims(), numbers()));
        let targets = targets.as_ref().unwrap_or(&batch.targets);
        run(&self.model, learnt, &[view(&batch.inputs)?, view(targets)?]).map_err(|e| StepError(e.to_string()))
    }
}

/// Runs a model into new tensors.
fn run(model: &Model, learnt: Learnt<'_>, inputs: &[TensorView<'_>]) -> Result<Vec<nncc_runtime::Tensor>, Error> {
    let mut results = model.outputs_for(inputs)?;
    let mut outputs: Vec<TensorViewMut<'_>> = results.iter_mut().map(nncc_runtime::Tensor::view_mut).collect();
    model.run_into(learnt, inputs, &mut outputs)?;
    Ok(results)
}

impl Step for CompiledStep {
    fn step(&mut self, batch: &Batch, directions: Directions) -> Result<Outcome, StepError> {
        if let Some(block) = self.block.as_ref().filter(|_| directions.watch && directions.update) {
            let copy = |t: TensorView<'_>| nncc_runtime::Tensor::from_bytes(t.dtype(), t.bytes(), t.shape());
            self.before = self.watched.iter().filter_map(|&i| copy(block.get(i))).collect();
        }
        let results = self.stepped(batch, directions, run)?;
        let outcome = self.outcome(&results)?;
        if directions.update {
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
        if let Some(block) = self.block.as_mut().filter(|_| directions.update) {
            block.set_steps(block.steps() - 1);
        }
        self.origin_of_not_finite(batch, directions)
    }

    fn accumulates(&self) -> bool {
        self.has(Purpose::Gather)
    }

    fn eval(&mut self, batch: &Batch) -> Result<Outcome, StepError> {
        self.outcome(&self.evaluated(batch, run)?)
    }

    fn state(&self) -> Result<Vec<(String, Vec<u8>)>, StepError> {
        let Some(block) = &self.block else { return Ok(Vec::new()) };
        let kept = self.states.iter().enumerate().filter(|(_, (_, kind, _))| *kind != StateKind::Gradient);
        let values = kept.map(|(i, (name, ..))| (name.clone(), block.get(i).bytes().to_vec()));
        Ok(std::iter::once((COUNT.to_string(), block.steps().to_le_bytes().to_vec())).chain(values).collect())
    }

    fn set_state(&mut self, state: &[(String, Vec<u8>)]) -> Result<(), StepError> {
        let other = |what: &str| StepError(format!("the state of another step: {what}"));
        let Some(((name, count), values)) = state.split_first() else { return Err(other("it is empty")) };
        let count: [u8; 8] = count.as_slice().try_into().map_err(|_| other("its count of steps"))?;
        let Some(block) = &mut self.block else { return Err(other("this one has none")) };
        let kind = |i: &usize| self.states[*i].1;
        let own: Vec<usize> = (0..self.states.len()).filter(|i| kind(i) != StateKind::Gradient).collect();
        if name != COUNT || values.len() != own.len() {
            return Err(other("it has other tensors"));
        }
        for (&i, (name, bytes)) in own.iter().zip(values) {
            if *name != self.states[i].0 || bytes.len() != block.get(i).bytes().len() {
                return Err(other(name));
            }
        }
        for (&i, (_, bytes)) in own.iter().zip(values) {
            block.get_mut(i).copy_from_bytes(bytes);
        }
        for i in (0..self.states.len()).filter(|i| kind(i) == StateKind::Gradient) {
            let zeros = vec![0; block.get(i).bytes().len()];
            block.get_mut(i).copy_from_bytes(&zeros);
        }
        block.set_steps(i64::from_le_bytes(count));
        Ok(())
    }
}

/// The name of the number of steps done, among those of the states.
const COUNT: &str = "steps";

/// A copy of a tensor of the run time.
fn ir_tensor(t: &TensorView<'_>) -> Result<Tensor, StepError> {
    let tensor = Tensor::from_bytes(from_runtime(t.dtype()), t.shape(), t.bytes());
    tensor.ok_or_else(|| StepError("a tensor does not fill its shape".into()))
}

/// A batch's tensor for the run time, not copied.
fn view(t: &Tensor) -> Result<TensorView<'_>, StepError> {
    match t.data() {
        Data::F32(v) => Ok(TensorView::new(v, t.dims())),
        Data::I64(v) => Ok(TensorView::new(v, t.dims())),
        _ => Err(StepError(format!("a batch of {}", t.ty()))),
    }
}
