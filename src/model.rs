//! Running: a compiled model in this process's memory, or from a library that nncc wrote, on tensors of the graph IR.
//!
//! A thin layer over `nncc-runtime`, which works on the caller's memory: here tensors go in and come out owned. A [`Model`] may
//! run in several threads at once; each run takes a context from a pool, or makes one.

use crate::Error;
use nncc_codegen::emit::JitLibrary;
use nncc_ir::{DType, Tensor, TensorType, padded_channels};
use nncc_runtime::ffi::AbiTable;
use nncc_runtime::{
    Context, ContextOptions, ErrorKind, Library, Port, RunError, StateBlock, Step, TensorView, TensorViewMut,
};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A model that is ready to run.
pub struct Model {
    library: Library,
    threads: u32,
    idle: Mutex<Vec<Context>>,
}

/// One step of a traced run.
#[derive(Clone, Debug)]
pub struct StepTrace {
    /// Its number: see [`Bound::steps`].
    pub index: usize,
    /// The model's nodes that it computes.
    pub name: String,
    /// Time that it took.
    pub nanoseconds: u64,
    /// The values that it completed, by their names in the model.
    pub results: Vec<(String, Tensor)>,
}

impl Model {
    /// A model in memory.
    pub(crate) fn from_jit(jit: JitLibrary) -> Result<Model, Error> {
        // SAFETY: the symbols are those of a library that this process has just compiled, under the names of the ABI.
        let abi = unsafe { AbiTable::resolve(|name| jit.symbol(name)) };
        let abi = abi.map_err(|name| Error::Internal(format!("the compiled model lacks {name}")))?;
        // SAFETY: as above; the code lives as long as `jit`, which goes along as the owner.
        let library = unsafe { Library::from_abi(abi, jit) };
        let library = library.map_err(|e| Error::Internal(e.to_string()))?;
        Ok(Model { library, threads: 1, idle: Mutex::default() })
    }

    /// Loads a library that nncc wrote.
    ///
    /// # Errors
    /// When the file cannot be loaded or is not such a library.
    pub fn open(path: impl AsRef<Path>) -> Result<Model, Error> {
        let path = path.as_ref();
        // dlopen searches a bare name in the system's folders; a path with a slash is that file.
        let file = if path.components().count() == 1 { Path::new(".").join(path) } else { path.to_path_buf() };
        // SAFETY: loading a library runs its code. That it is one that nncc wrote is what this function asks of its caller,
        // as any program does that loads a plug-in; a file that lacks the ABI's functions is refused.
        let library = unsafe { Library::open(&file) };
        let library = library.map_err(|e| Error::Run(format!("{}: {e}", path.display())))?;
        Ok(Model { library, threads: 1, idle: Mutex::default() })
    }

    /// The same model, run on `threads` threads.
    ///
    /// # Errors
    /// When that many cannot be had.
    pub fn with_threads(self, threads: u32) -> Result<Model, Error> {
        let model = Model { threads, idle: Mutex::default(), library: self.library };
        let context = model.context()?;
        model.put_back(context);
        Ok(model)
    }

    /// The library below, for what this type does not offer.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Names and types of the inputs, in the first shape set.
    pub fn input_types(&self) -> Vec<(String, TensorType)> {
        self.input_types_of(0)
    }

    /// Names and types of the inputs in a shape set of [`Library::set_count`]. Panics when there is no such set.
    pub fn input_types_of(&self, set: usize) -> Vec<(String, TensorType)> {
        self.library.inputs(set).iter().map(port_type).collect()
    }

    /// Names of the outputs.
    pub fn output_names(&self) -> Vec<String> {
        self.library.outputs(0).iter().map(|p| p.name.clone()).collect()
    }

    /// How many threads run it.
    pub fn threads(&self) -> u32 {
        self.threads
    }

    /// Runs the model.
    ///
    /// # Errors
    /// When the inputs do not fit in number, type or shape.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let mut bound = self.bind(inputs)?;
        bound.run()?;
        Ok(bound.outputs())
    }

    /// Runs the model and shows each step with the values that it completed.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn run_traced(&self, inputs: &[Tensor], hook: &mut dyn FnMut(&StepTrace)) -> Result<Vec<Tensor>, Error> {
        let mut bound = self.bind(inputs)?;
        bound.traced(true, hook)?;
        Ok(bound.outputs())
    }

    /// Inputs and a context held ready, to run several times on.
    ///
    /// # Errors
    /// When the inputs do not fit in number, type or shape.
    pub fn bind(&self, inputs: &[Tensor]) -> Result<Bound<'_>, Error> {
        self.bind_learning(inputs, None)
    }

    /// The same for a model that learns, with its states.
    pub(crate) fn bind_learning(&self, inputs: &[Tensor], states: Option<StateBlock>) -> Result<Bound<'_>, Error> {
        let inputs: Vec<nncc_runtime::Tensor> = inputs.iter().map(runtime_tensor).collect();
        let set = self.library.find_set(&views(&inputs)).map_err(|e| Error::Input(self.explain(&e, &inputs)))?;
        let outputs: Vec<nncc_runtime::Tensor> =
            self.library.outputs(set).iter().map(|p| nncc_runtime::Tensor::zeros(p.dtype, &p.shape)).collect();
        Ok(Bound { model: self, context: Some(self.context()?), states, set, inputs, outputs })
    }

    /// The outputs for these inputs, zeros.
    pub(crate) fn outputs_for(&self, inputs: &[TensorView<'_>]) -> Result<Vec<nncc_runtime::Tensor>, Error> {
        let set = self.library.find_set(inputs).map_err(|e| Error::Input(e.to_string()))?;
        let outputs = self.library.outputs(set).iter();
        Ok(outputs.map(|p| nncc_runtime::Tensor::zeros(p.dtype, &p.shape)).collect())
    }

    /// Runs the model on the caller's memory.
    pub(crate) fn run_into(
        &self,
        learnt: Learnt<'_>,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), Error> {
        let mut context = self.context()?;
        let result = learnt.run(&mut context, inputs, outputs);
        self.put_back(context);
        result
    }

    /// The same, and shows `look` each value that a step of the model completes: the step's name, the value's, and how to
    /// read it. Gives what `look` makes of them, in order.
    pub(crate) fn run_looking<T: Send + 'static>(
        &self,
        learnt: Learnt<'_>,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
        look: impl Fn(&str, &str, &dyn Fn() -> Option<Tensor>) -> Option<T> + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        // The hook of the run time owns what it captures.
        let seen: Arc<Mutex<Vec<T>>> = Arc::default();
        let sink = seen.clone();
        let hook = move |e: &nncc_runtime::TraceEvent<'_>| {
            let found = e.results.iter().filter_map(|r| look(&e.name, &r.name, &|| value(r)));
            sink.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
            true
        };
        let mut context = self.context()?;
        context.set_trace(Some(Box::new(hook)));
        let result = learnt.run(&mut context, inputs, outputs);
        context.set_trace(None);
        self.put_back(context);
        result?;
        Ok(std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// An error of the inputs, with what the model takes.
    fn explain(&self, error: &RunError, inputs: &[nncc_runtime::Tensor]) -> String {
        let list = |types: Vec<(String, TensorType)>| {
            types.iter().map(|(name, ty)| format!("{name}: {ty}")).collect::<Vec<_>>().join(", ")
        };
        let ports = self.library.inputs(0);
        let what = match error.kind {
            ErrorKind::Shape => {
                let given = ports.iter().zip(inputs);
                let given = given.map(|(p, t)| (p.name.clone(), TensorType::fixed(from_runtime(t.dtype()), t.shape())));
                format!("the inputs' shapes do not fit the model: {}", list(given.collect()))
            }
            _ => error.to_string(),
        };
        let sets = (0..self.library.set_count()).map(|s| list(self.library.inputs(s).iter().map(port_type).collect()));
        format!("{what}\n  the model takes {}", sets.collect::<Vec<_>>().join(" or "))
    }

    fn context(&self) -> Result<Context, Error> {
        if let Some(c) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(c);
        }
        let options = ContextOptions { threads: self.threads, ..ContextOptions::default() };
        Context::with_options(&self.library, options).map_err(|e| match e.kind {
            ErrorKind::Options | ErrorKind::Threads => Error::Run(format!("{} threads: {e}", self.threads)),
            _ => Error::Run(e.to_string()),
        })
    }

    fn put_back(&self, context: Context) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(context);
    }
}

/// What a run takes beside its inputs, of a model that learns.
pub(crate) enum Learnt<'s> {
    /// The model does not learn.
    Nothing,
    /// States that the run reads.
    Fixed(&'s StateBlock),
    /// States that the run changes.
    Changing(&'s mut StateBlock),
}

impl Learnt<'_> {
    fn run(
        self,
        context: &mut Context,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorViewMut<'_>],
    ) -> Result<(), Error> {
        let result = match self {
            Learnt::Nothing => context.run(inputs, outputs),
            Learnt::Fixed(states) => context.run_learnt(states, inputs, outputs),
            Learnt::Changing(states) => context.run_learning(states, inputs, outputs),
        };
        result.map_err(|e| Error::Run(e.to_string()))
    }
}

/// A model with its inputs and outputs in memory: what is measured.
pub struct Bound<'m> {
    model: &'m Model,
    context: Option<Context>,
    states: Option<StateBlock>,
    set: usize,
    inputs: Vec<nncc_runtime::Tensor>,
    outputs: Vec<nncc_runtime::Tensor>,
}

impl Bound<'_> {
    fn context_mut(&mut self) -> &mut Context {
        self.context.as_mut().expect("taken only when dropped")
    }

    /// Runs once.
    ///
    /// # Errors
    /// When the library refuses: a bug, for the inputs were checked.
    pub fn run(&mut self) -> Result<(), Error> {
        let context = self.context.as_mut().expect("taken only when dropped");
        let mut outputs: Vec<TensorViewMut<'_>> = self.outputs.iter_mut().map(nncc_runtime::Tensor::view_mut).collect();
        let learnt = self.states.as_mut().map_or(Learnt::Nothing, Learnt::Changing);
        learnt.run(context, &views(&self.inputs), &mut outputs)
    }

    /// Runs once and tells the time of each step; values are not copied.
    ///
    /// # Errors
    /// As [`Bound::run`].
    pub fn run_timed(&mut self, hook: &mut dyn FnMut(&StepTrace)) -> Result<(), Error> {
        self.traced(false, hook)
    }

    fn traced(&mut self, values: bool, hook: &mut dyn FnMut(&StepTrace)) -> Result<(), Error> {
        // The hook of the run time owns what it captures: events are collected and shown afterwards.
        let events: Arc<Mutex<Vec<StepTrace>>> = Arc::default();
        let sink = events.clone();
        let trace = move |e: &nncc_runtime::TraceEvent| {
            let results = if values {
                e.results.iter().filter_map(|r| Some((r.name.clone(), value(r)?))).collect()
            } else {
                Vec::new()
            };
            let step = StepTrace { index: e.step, name: e.name.clone(), nanoseconds: e.duration_ns, results };
            sink.lock().unwrap_or_else(PoisonError::into_inner).push(step);
            true
        };
        self.context_mut().set_trace(Some(Box::new(trace)));
        let result = self.run();
        self.context_mut().set_trace(None);
        result?;
        for e in events.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            hook(e);
        }
        Ok(())
    }

    /// The shape set of the inputs.
    pub fn set(&self) -> usize {
        self.set
    }

    /// The steps of a run, at the CPU level that this machine uses.
    pub fn steps(&self) -> Vec<Step> {
        let library = &self.model.library;
        library.steps(self.set, library.best_level().unwrap_or(0))
    }

    /// Copies of the outputs of the last run.
    pub fn outputs(&self) -> Vec<Tensor> {
        let tensor = |t: &nncc_runtime::Tensor| {
            Tensor::from_bytes(from_runtime(t.dtype()), t.shape(), t.bytes()).expect("an output fills its shape")
        };
        self.outputs.iter().map(tensor).collect()
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        if let Some(c) = self.context.take() {
            self.model.put_back(c);
        }
    }
}

fn views(inputs: &[nncc_runtime::Tensor]) -> Vec<TensorView<'_>> {
    inputs.iter().map(nncc_runtime::Tensor::view).collect()
}

/// A traced value in row-major order; `None` if its bytes are not those of its shape.
fn value(r: &nncc_runtime::TraceResult<'_>) -> Option<Tensor> {
    let dtype = from_runtime(r.dtype);
    if !r.blocked {
        return Tensor::from_bytes(dtype, &r.shape, r.bytes);
    }
    let [n, channels, spatial @ ..] = &r.shape[..] else { return None };
    let (pixels, size) = (spatial.iter().product::<usize>(), dtype.bytes());
    let stored = padded_channels(*channels) * pixels * size;
    if r.bytes.len() < n * stored {
        return None;
    }
    let mut bytes = Vec::with_capacity(n * channels * pixels * size);
    for image in r.bytes.chunks(stored.max(1)).take(*n) {
        for (first, width) in nncc_ir::channel_blocks(*channels) {
            for c in 0..width.min(channels - first) {
                for p in 0..pixels {
                    let at = (first * pixels + p * width + c) * size;
                    bytes.extend_from_slice(&image[at..at + size]);
                }
            }
        }
    }
    Tensor::from_bytes(dtype, &r.shape, &bytes)
}

fn port_type(p: &Port) -> (String, TensorType) {
    (p.name.clone(), TensorType::fixed(from_runtime(p.dtype), &p.shape))
}

/// Both sides list the same types; the run time must not know the compiler's.
const DTYPES: [(DType, nncc_runtime::DType); 11] = [
    (DType::F32, nncc_runtime::DType::F32),
    (DType::F64, nncc_runtime::DType::F64),
    (DType::I8, nncc_runtime::DType::I8),
    (DType::I16, nncc_runtime::DType::I16),
    (DType::I32, nncc_runtime::DType::I32),
    (DType::I64, nncc_runtime::DType::I64),
    (DType::U8, nncc_runtime::DType::U8),
    (DType::U16, nncc_runtime::DType::U16),
    (DType::U32, nncc_runtime::DType::U32),
    (DType::U64, nncc_runtime::DType::U64),
    (DType::Bool, nncc_runtime::DType::Bool),
];

/// The same tensor as the run time has it.
pub(crate) fn runtime_tensor(t: &Tensor) -> nncc_runtime::Tensor {
    nncc_runtime::Tensor::from_bytes(to_runtime(t.dtype()), &t.to_bytes(), t.dims())
        .expect("a tensor's elements fill its dimensions")
}

fn to_runtime(d: DType) -> nncc_runtime::DType {
    DTYPES.iter().find(|(a, _)| *a == d).expect("every type is listed").1
}

pub(crate) fn from_runtime(d: nncc_runtime::DType) -> DType {
    DTYPES.iter().find(|(_, b)| *b == d).expect("every type is listed").0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_counterpart() {
        for d in DType::ALL {
            assert_eq!(from_runtime(to_runtime(d)), d);
        }
    }

    #[test]
    fn blocked_values_are_shown_in_order() {
        // Two images of 17 channels and 2 pixels: blocks of 16 and 8 lanes.
        let (n, c, p) = (2, 17, 2);
        let mut stored = vec![f32::NAN; n * 24 * p];
        for i in 0..n {
            for (first, width) in nncc_ir::channel_blocks(c) {
                for l in 0..width.min(c - first) {
                    for q in 0..p {
                        stored[i * 24 * p + first * p + q * width + l] = (i * c * p + (first + l) * p + q) as f32;
                    }
                }
            }
        }
        let bytes: Vec<u8> = stored.iter().flat_map(|x| x.to_le_bytes()).collect();
        let r = nncc_runtime::TraceResult {
            name: "x".into(),
            dtype: nncc_runtime::DType::F32,
            shape: vec![n, c, p],
            blocked: true,
            bytes: &bytes,
        };
        let want: Vec<f32> = (0..n * c * p).map(|i| i as f32).collect();
        assert_eq!(value(&r), Some(Tensor::f32(&[n, c, p], want)));
    }
}
