//! A compiled model: a shared library or JIT memory, and what it says of itself.

use crate::error::{ErrorKind, LoadError, RunError};
use crate::ffi::{self, AbiTable, Bounds, RawStep, RawTensor};
use crate::state::{self, State};
use crate::tensor::{DType, TensorView};
use std::any::Any;
use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::sync::Arc;

/// A loaded model. Cheap to clone, and shared between threads: a library has no state.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    abi: AbiTable,
    name: String,
    sets: Vec<Set>,
    states: Vec<State>,
    /// What keeps the code mapped; dropped last of the fields, after everything that came from it.
    _owner: Box<dyn Any + Send + Sync>,
}

/// The set number that stands for all sets.
const ANY_SET: u32 = u32::MAX;

struct Set {
    purpose: Purpose,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// What a shape set is run for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The model alone.
    #[default]
    Infer,
    /// One step of learning.
    Step,
    /// The model as it infers, and its loss.
    Evaluate,
    /// Adds a batch's gradients to those in the states, for a later step.
    Gather,
}

impl Purpose {
    fn from_code(code: u32) -> Option<Purpose> {
        [Purpose::Infer, Purpose::Step, Purpose::Evaluate, Purpose::Gather].get(code as usize).copied()
    }
}

/// An input or output of the model, in one shape set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name in the model.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<usize>,
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The ONNX nodes that it computes.
    pub name: String,
    /// What it does.
    pub op: String,
    /// The symbol of its code.
    pub kernel: String,
    /// Independent parts that threads share.
    pub tasks: u64,
    /// Multiply-accumulate operations.
    pub macs: u64,
    /// Memory that it reads and writes at least once.
    pub bytes: u64,
    /// The weights' part of it; 0 where a library of an earlier nncc does not tell.
    pub weight_bytes: u64,
    /// Cycles of one core that the compiler expects with all operands in the first cache; 0 where a library of an earlier
    /// nncc does not tell.
    pub cycles: u64,
    /// Bytes that it moves besides weights, with what the steps of a node hand on to each other; likewise.
    pub moved: u64,
}

impl Library {
    /// Loads a shared library that nncc compiled.
    ///
    /// # Errors
    /// See [`LoadError`].
    ///
    /// # Safety
    /// Loading a library runs whatever code it brings along. The file must be one that nncc wrote, or be trusted as a program
    /// is, and must not change while it is loaded.
    pub unsafe fn open(path: impl AsRef<Path>) -> Result<Library, LoadError> {
        let path = path.as_ref();
        // dlopen searches the system's folders for a name without a slash; a path means this very file.
        let file = if path.components().count() == 1 { Path::new(".").join(path) } else { path.to_owned() };
        // SAFETY: the caller vouches for the file.
        let library = unsafe { libloading::Library::new(&file) };
        let library = library.map_err(|source| LoadError::Open { path: path.to_owned(), source })?;
        let resolve = |name: &str| {
            // SAFETY: a function's address is read as a plain pointer; nothing is called here.
            let symbol = unsafe { library.get::<*const c_void>(name.as_bytes()) };
            symbol.ok().map(|symbol| *symbol)
        };
        // SAFETY: libraries that nncc writes export these names as the header declares them; the caller vouches for the rest.
        let abi = unsafe { AbiTable::resolve(resolve) }.map_err(LoadError::Missing)?;
        // SAFETY: the functions live as long as the library, which goes along as the owner.
        unsafe { Library::from_abi(abi, library) }
    }

    /// A model in memory: the functions, and what keeps their code alive.
    ///
    /// # Errors
    /// [`LoadError::Version`] and [`LoadError::Description`].
    ///
    /// # Safety
    /// The functions are those of one library compiled by nncc, and stay valid while `owner` lives.
    pub unsafe fn from_abi(abi: AbiTable, owner: impl Any + Send + Sync) -> Result<Library, LoadError> {
        // SAFETY: by this function's contract; so for all calls of description functions below, which take numbers and
        // pointers to local structures only.
        let version = unsafe { (abi.abi_version)() };
        if version != ffi::ABI_VERSION {
            return Err(LoadError::Version { library: version, program: ffi::ABI_VERSION });
        }
        // SAFETY: as above.
        let (sets, inputs, outputs) = unsafe { ((abi.set_count)(), (abi.input_count)(), (abi.output_count)()) };
        let ports = |set, count, describe| {
            let ports = (0..count).map_while(|index| port(set, index, describe).transpose());
            ports.collect::<Result<Vec<Port>, LoadError>>()
        };
        let purpose = |set| match abi.set_purpose {
            // SAFETY: as above.
            Some(purpose) => Purpose::from_code(unsafe { purpose(set) })
                .ok_or_else(|| LoadError::Description("what a shape set is for".into())),
            None => Ok(Purpose::Infer),
        };
        let set = |set| {
            let (inputs, outputs) = (ports(set, inputs, abi.input)?, ports(set, outputs, abi.output)?);
            Ok(Set { purpose: purpose(set)?, inputs, outputs })
        };
        let sets = (0..sets).map(set).collect::<Result<Vec<Set>, LoadError>>()?;
        // SAFETY: as above.
        let states = unsafe { state::describe(&abi) }?;
        // SAFETY: as above; the string is static.
        let name = unsafe { text((abi.model_name)()) };
        Ok(Library { inner: Arc::new(Inner { abi, name, sets, states, _owner: Box::new(owner) }) })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Number of shape sets.
    pub fn set_count(&self) -> usize {
        self.inner.sets.len()
    }

    /// What a shape set is run for. Panics when there is no such set.
    pub fn purpose(&self, set: usize) -> Purpose {
        self.inner.sets[set].purpose
    }

    /// What the model keeps from run to run: nothing, unless it learns.
    pub fn states(&self) -> &[State] {
        &self.inner.states
    }

    /// The inputs in a shape set. Panics when there is no such set.
    pub fn inputs(&self, set: usize) -> &[Port] {
        &self.inner.sets[set].inputs
    }

    /// The outputs in a shape set. Panics when there is no such set.
    pub fn outputs(&self, set: usize) -> &[Port] {
        &self.inner.sets[set].outputs
    }

    /// The shape set that takes such inputs.
    ///
    /// # Errors
    /// [`ErrorKind::Count`], [`ErrorKind::Dtype`] or [`ErrorKind::Shape`], with both sides in the message.
    pub fn find_set(&self, inputs: &[TensorView]) -> Result<usize, RunError> {
        let shapes: Vec<Vec<i64>> = inputs.iter().map(|input| raw_shape(input.shape())).collect();
        let tensors: Vec<RawTensor> = inputs
            .iter()
            .zip(&shapes)
            .map(|(i, s)| raw_tensor(i.dtype(), s, i.bytes().as_ptr().cast_mut(), 0))
            .collect();
        let mut set = 0;
        // SAFETY: the arrays and the shapes that they point to are alive, and as long as they say.
        let code = unsafe { (self.inner.abi.find_set)(tensors.as_ptr(), tensors.len() as u32, &mut set) };
        self.check(code).map_err(|error| self.explain(error, inputs))?;
        Ok(set as usize)
    }

    /// Names the input at fault, which `nncc_find_set` has no place to note.
    fn explain(&self, error: RunError, inputs: &[TensorView]) -> RunError {
        let want = &self.inner.sets[0].inputs;
        let message = match error.kind {
            ErrorKind::Count => {
                let mut counts: Vec<usize> = self.inner.sets.iter().map(|set| set.inputs.len()).collect();
                counts.dedup();
                let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
                format!("the model has {} inputs, {} were given", counts.join(" or "), inputs.len())
            }
            ErrorKind::Dtype => match want.iter().zip(inputs).find(|(want, have)| want.dtype != have.dtype()) {
                Some((want, have)) => {
                    format!("input \"{}\" is {}, but {} was given", want.name, want.dtype, have.dtype())
                }
                None => return error,
            },
            ErrorKind::Shape => {
                let all = |set: &Set| {
                    set.inputs.iter().map(|port| format!("{:?}", port.shape)).collect::<Vec<_>>().join(", ")
                };
                let sets: Vec<String> = self.inner.sets.iter().map(all).collect();
                let given: Vec<String> = inputs.iter().map(|input| format!("{:?}", input.shape())).collect();
                format!("input shapes {} were given; compiled for {}", given.join(", "), sets.join("; "))
            }
            _ => return error,
        };
        RunError { message, ..error }
    }

    /// Names of the CPU levels that the library holds, lowest first.
    pub fn levels(&self) -> Vec<String> {
        // SAFETY: description functions; the strings are static and not null for these numbers.
        unsafe {
            let count = (self.inner.abi.level_count)();
            (0..count).map(|level| text((self.inner.abi.level_name)(level))).collect()
        }
    }

    /// The highest of these levels that this machine runs.
    pub fn best_level(&self) -> Option<usize> {
        // SAFETY: no arguments.
        usize::try_from(unsafe { (self.inner.abi.best_level)() }).ok()
    }

    /// The steps of a run in a set at a level; none when there is no such set or level.
    pub fn steps(&self, set: usize, level: usize) -> Vec<Step> {
        let (set, level) = (set as u32, level as u32);
        // SAFETY: numbers only.
        let count = unsafe { (self.inner.abi.step_count)(set, level) };
        let step = |index| {
            let null = std::ptr::null();
            let mut raw = RawStep { name: null, op: null, kernel: null, tasks: 0, macs: 0, bytes: 0 };
            // SAFETY: the structure is the function's to fill; then its strings are static, and null if it failed.
            unsafe {
                (self.inner.abi.step)(set, level, index, &mut raw);
                let RawStep { name, op, kernel, tasks, macs, bytes } = raw;
                let abi = &self.inner.abi;
                let [weight_bytes, cycles, moved] = [abi.step_weights, abi.step_cycles, abi.step_moved]
                    .map(|number| number.map_or(0, |number| number(set, level, index)));
                let (name, op, kernel) = (text(name), text(op), text(kernel));
                Step { name, op, kernel, tasks, macs, bytes, weight_bytes, cycles, moved }
            }
        };
        (0..count).map(step).collect()
    }

    /// What a run needs at most.
    ///
    /// # Errors
    /// [`ErrorKind::Set`] or [`ErrorKind::Index`].
    pub fn bounds(&self, set: usize, level: usize) -> Result<Bounds, RunError> {
        let mut bounds = Bounds::default();
        // SAFETY: the structure is the function's to fill.
        let code = unsafe { (self.inner.abi.bounds)(set as u32, level as u32, &mut bounds) };
        self.check(code).map(|()| bounds)
    }

    /// Bytes of memory that a context takes which runs any set on so many threads.
    pub fn workspace_bytes(&self, threads: u32) -> u64 {
        // SAFETY: numbers only.
        unsafe { (self.inner.abi.workspace_size)(ANY_SET, threads) }
    }

    pub(crate) fn abi(&self) -> &AbiTable {
        &self.inner.abi
    }

    /// An error with the code's general sentence.
    pub(crate) fn check(&self, code: i32) -> Result<(), RunError> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: takes a number, returns a static string.
        let message = unsafe { text((self.inner.abi.error_message)(code)) };
        Err(RunError { kind: ErrorKind::from_code(code), message })
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Library({})", self.inner.name)
    }
}

/// `None` past the last one of the set.
fn port(
    set: u32,
    index: u32,
    describe: unsafe extern "C" fn(u32, u32, *mut RawTensor) -> i32,
) -> Result<Option<Port>, LoadError> {
    let mut raw = raw_tensor(DType::F32, &[], std::ptr::null_mut(), 0);
    // SAFETY: a description function of the library; the structure is its to fill.
    match unsafe { describe(set, index, &mut raw) } {
        // SAFETY: the library gave static memory: a string, and `rank` extents.
        0 => unsafe { described(&raw) }.map(Some),
        code if ErrorKind::from_code(code) == ErrorKind::Index => Ok(None),
        _ => Err(LoadError::Description("the existence of a tensor".into())),
    }
}

/// Name, type and shape of a tensor that a library described.
///
/// # Safety
/// The name is a string and the shape points to `rank` extents, both alive.
pub(crate) unsafe fn described(raw: &RawTensor) -> Result<Port, LoadError> {
    let unknown = |what: &str| LoadError::Description(format!("{what} of a tensor"));
    let dtype = DType::from_code(raw.dtype).ok_or_else(|| unknown("the element type"))?;
    // SAFETY: by this function's contract.
    let (name, shape) = unsafe { (text(raw.name), extents(raw)) };
    let shape = shape.ok_or_else(|| unknown("the shape"))?;
    Ok(Port { name, dtype, shape })
}

/// A NUL-terminated string; empty when null.
///
/// # Safety
/// `string` is null or a NUL-terminated string that is alive.
pub(crate) unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// The shape of a tensor; `None` when an extent is negative.
///
/// # Safety
/// The shape is null or points to `rank` extents that are alive.
pub(crate) unsafe fn extents(raw: &RawTensor) -> Option<Vec<usize>> {
    if raw.rank == 0 || raw.shape.is_null() {
        return Some(Vec::new());
    }
    // SAFETY: by this function's contract.
    let shape = unsafe { std::slice::from_raw_parts(raw.shape, raw.rank as usize) };
    shape.iter().map(|&extent| usize::try_from(extent).ok()).collect()
}

/// Extents as the ABI wants them. An extent beyond `i64` equals none of the model's, and neither does -1.
pub(crate) fn raw_shape(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&extent| i64::try_from(extent).unwrap_or(-1)).collect()
}

pub(crate) fn raw_tensor(dtype: DType, shape: &[i64], data: *mut u8, bytes: u64) -> RawTensor {
    RawTensor {
        data: data.cast(),
        shape: shape.as_ptr(),
        name: std::ptr::null(),
        bytes,
        dtype: dtype as u32,
        rank: shape.len() as u32,
        layout: 0,
        reserved: 0,
    }
}
