//! Contexts: the state of a run, its threads, its memory and its trace hook.

use crate::error::{ErrorKind, RunError};
use crate::ffi::{RawContext, RawEvent, RawOptions, RawTensor, TaskFn};
use crate::library::{Library, Purpose, extents, raw_shape, raw_tensor, text};
use crate::state::StateBlock;
use crate::tensor::{DType, Tensor, TensorView, TensorViewMut};
use std::alloc::Layout;
use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::time::Instant;

/// The ABI's alignment of a workspace.
const WORKSPACE_ALIGN: usize = 64;

/// The caller's threads: `parallel_for(count, task)` calls `task(i)` once for each `i < count`, in any order and on any
/// threads, and returns when all are done. A panic in it ends the program: a step that is half done has no way out.
pub type ParallelFor = Box<dyn Fn(u32, &(dyn Fn(u32) + Sync)) + Send + Sync>;

/// A hook called after each step; `false` ends the run.
pub type TraceHook = Box<dyn FnMut(&TraceEvent) -> bool + Send>;

/// How a context is made.
#[derive(Default)]
pub struct ContextOptions {
    /// Threads; 0 and 1 mean the calling thread alone.
    pub threads: u32,
    /// Highest CPU level to use, by the numbers of the generated header; 0 is the best that the machine runs.
    pub max_level: u32,
    /// The caller's threads, instead of `threads - 1` of the library's own.
    pub parallel_for: Option<ParallelFor>,
}

/// What the trace hook is told after a step.
#[derive(Clone, Debug)]
pub struct TraceEvent<'a> {
    /// Number of the step.
    pub step: usize,
    /// The shape set that runs.
    pub set: usize,
    /// The ONNX nodes that it computes.
    pub name: String,
    /// What it does.
    pub op: String,
    /// Nanoseconds since the context was made.
    pub start_ns: u64,
    /// Nanoseconds that it took.
    pub duration_ns: u64,
    /// The values that it completed.
    pub results: Vec<TraceResult<'a>>,
}

/// A value that a step completed.
#[derive(Clone, Debug)]
pub struct TraceResult<'a> {
    /// The ONNX name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Logical extents.
    pub shape: Vec<usize>,
    /// Whether the elements lie in channel blocks `[N][ceil(C/16)][spatial...][16]` (the last block 8 wide if C mod 16 is in
    /// 1..=8) instead of row-major; lanes beyond C hold anything.
    pub blocked: bool,
    /// The elements in memory.
    pub bytes: &'a [u8],
}

/// The state of a run. Contexts of one library are independent; a context runs one thing at a time.
pub struct Context {
    raw: NonNull<RawContext>,
    library: Library,
    /// What callbacks point to. From a box, and a raw pointer from then on: the library holds a copy of it, which a Rust
    /// reference to the whole would invalidate.
    callbacks: NonNull<Callbacks>,
    workspace: Workspace,
}

// SAFETY: the context's memory is its own, its threads are told what to do only within a run, and what the callbacks hold is
// `Send`; nothing is tied to the thread that made it.
unsafe impl Send for Context {}
// SAFETY: `&Context` gives read access to immutable descriptions only; everything that runs takes `&mut Context`.
unsafe impl Sync for Context {}

struct Callbacks {
    start: Instant,
    parallel_for: Option<ParallelFor>,
    trace: Option<TraceHook>,
    panic: Option<Box<dyn Any + Send>>,
}

/// Memory for a context or for states from Rust's allocator: works for freestanding libraries, which have no other.
pub(crate) struct Workspace {
    pub(crate) memory: NonNull<u8>,
    pub(crate) layout: Layout,
}

impl Workspace {
    pub(crate) fn new(bytes: usize) -> Option<Workspace> {
        let layout = Layout::from_size_align(bytes.max(WORKSPACE_ALIGN), WORKSPACE_ALIGN).ok()?;
        // SAFETY: the layout's size is not zero.
        let memory = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
        Some(Workspace { memory, layout })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // SAFETY: allocated with this very layout.
        unsafe { std::alloc::dealloc(self.memory.as_ptr(), self.layout) };
    }
}

impl Context {
    /// A context with the calling thread alone.
    ///
    /// # Errors
    /// [`ErrorKind::Cpu`] on a machine that the library was not compiled for, [`ErrorKind::Memory`].
    pub fn new(library: &Library) -> Result<Context, RunError> {
        Context::with_options(library, ContextOptions::default())
    }

    /// A context as the options say.
    ///
    /// # Errors
    /// As [`Context::new`]; also [`ErrorKind::Threads`] and [`ErrorKind::Options`].
    pub fn with_options(library: &Library, options: ContextOptions) -> Result<Context, RunError> {
        let abi = library.abi();
        // Absurd thread counts are the library's to refuse, not ours to allocate for.
        let threads = options.threads.min(1 << 16);
        let bytes = library.workspace_bytes(threads);
        let out_of_memory =
            || RunError { kind: ErrorKind::Memory, message: format!("no memory for a workspace of {bytes} bytes") };
        let workspace = usize::try_from(bytes).ok().and_then(Workspace::new).ok_or_else(out_of_memory)?;
        let has_threads = options.parallel_for.is_some();
        let callbacks =
            Callbacks { start: Instant::now(), parallel_for: options.parallel_for, trace: None, panic: None };
        let callbacks = NonNull::from(Box::leak(Box::new(callbacks)));
        let user: *mut c_void = callbacks.as_ptr().cast();
        let raw_options = RawOptions {
            struct_size: size_of::<RawOptions>() as u64,
            threads: options.threads,
            max_level: options.max_level,
            workspace: workspace.memory.as_ptr().cast(),
            workspace_bytes: bytes,
            parallel_for: has_threads.then_some(parallel_for),
            parallel_user: user,
            clock: Some(clock),
            clock_user: user,
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: options and workspace are as the header demands, the callbacks' target is boxed and outlives the context.
        let code = unsafe { (abi.create)(&raw_options, &mut raw) };
        let made = library.check(code).and_then(|()| NonNull::new(raw).ok_or_else(out_of_memory));
        let raw = made.inspect_err(|_| {
            // SAFETY: made by `Box` above, and no context came to life that could use it.
            drop(unsafe { Box::from_raw(callbacks.as_ptr()) });
        })?;
        Ok(Context { raw, library: library.clone(), callbacks, workspace })
    }

    /// The library that the context runs.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Bytes of memory that the context uses.
    pub fn workspace_bytes(&self) -> usize {
        self.workspace.layout.size()
    }

    /// The CPU level that the context runs, as an index into [`Library::levels`].
    pub fn level(&self) -> usize {
        // SAFETY: the context is alive.
        usize::try_from(unsafe { (self.library.abi().context_level)(self.raw.as_ptr()) }).unwrap_or(0)
    }

    /// Runs the model: reads the inputs where they are and writes the outputs where they are. The shape set is the one of the
    /// shapes of inputs and outputs.
    ///
    /// # Errors
    /// A tensor that does not fit the model ([`ErrorKind::Count`], [`ErrorKind::Dtype`], [`ErrorKind::Shape`],
    /// [`ErrorKind::Size`], [`ErrorKind::Align`]), or a trace hook that ended the run. A panic of the hook goes on here.
    pub fn run(&mut self, inputs: &[TensorView], outputs: &mut [TensorViewMut]) -> Result<(), RunError> {
        let size = |name: &str, i: usize, have: usize, need: Option<usize>| match need {
            Some(need) if have >= need => Ok(()),
            _ => Err(RunError {
                kind: ErrorKind::Size,
                message: format!("{name} {i}: the slice of {have} bytes is shorter than its shape"),
            }),
        };
        let needs = |dtype: DType, shape: &[usize]| {
            shape.iter().try_fold(dtype.size(), |bytes, &extent| bytes.checked_mul(extent))
        };
        let input_shapes: Vec<Vec<i64>> = inputs.iter().map(|input| raw_shape(input.shape())).collect();
        let mut raw_inputs = Vec::with_capacity(inputs.len());
        for (i, (input, shape)) in inputs.iter().zip(&input_shapes).enumerate() {
            size("input", i, input.bytes().len(), needs(input.dtype(), input.shape()))?;
            // Never written through: the ABI promises that inputs are only read.
            raw_inputs.push(raw_tensor(input.dtype(), shape, input.bytes().as_ptr().cast_mut(), 0));
        }
        let output_shapes: Vec<Vec<i64>> = outputs.iter_mut().map(|output| raw_shape(output.parts().1)).collect();
        let mut raw_outputs = Vec::with_capacity(outputs.len());
        for (i, (output, shape)) in outputs.iter_mut().zip(&output_shapes).enumerate() {
            let (dtype, extents, bytes) = output.parts();
            size("output", i, bytes.len(), needs(dtype, extents))?;
            raw_outputs.push(raw_tensor(dtype, shape, bytes.as_mut_ptr(), 0));
        }
        let (input_count, output_count) = (raw_inputs.len() as u32, raw_outputs.len() as u32);
        // SAFETY: the context is alive and borrowed mutably. Every tensor points to as many bytes as its dtype and shape say
        // (checked above), and the library runs only if these are the model's. Mutable slices overlap nothing.
        let code = unsafe {
            let run = self.library.abi().run_tensors;
            run(self.raw.as_ptr(), raw_inputs.as_ptr(), input_count, raw_outputs.as_ptr(), output_count)
        };
        // SAFETY: nothing runs now that could use the callbacks.
        if let Some(panic) = unsafe { (*self.callbacks.as_ptr()).panic.take() } {
            resume_unwind(panic);
        }
        self.check(code)
    }

    /// Runs the model into new tensors.
    ///
    /// # Errors
    /// As [`Context::run`].
    pub fn run_owned(&mut self, inputs: &[TensorView]) -> Result<Vec<Tensor>, RunError> {
        let set = self.library.find_set(inputs)?;
        let mut outputs: Vec<Tensor> =
            self.library.outputs(set).iter().map(|port| Tensor::zeros(port.dtype, &port.shape)).collect();
        let mut views: Vec<TensorViewMut> = outputs.iter_mut().map(Tensor::view_mut).collect();
        self.run(inputs, &mut views)?;
        drop(views);
        Ok(outputs)
    }

    /// Runs a library that learns on states: a step changes them, and so does what gathers gradients for one.
    ///
    /// # Errors
    /// As [`Context::run`]; [`ErrorKind::State`] when the states are those of another library.
    pub fn run_learning(
        &mut self,
        states: &mut StateBlock,
        inputs: &[TensorView],
        outputs: &mut [TensorViewMut],
    ) -> Result<(), RunError> {
        self.run_attached(states, inputs, outputs)
    }

    /// Runs a library that learns on states that it leaves as they are: it evaluates or infers, in several contexts at once
    /// if need be.
    ///
    /// # Errors
    /// As [`Context::run_learning`]; [`ErrorKind::State`] for what would be a step.
    pub fn run_learnt(
        &mut self,
        states: &StateBlock,
        inputs: &[TensorView],
        outputs: &mut [TensorViewMut],
    ) -> Result<(), RunError> {
        let set = self.library.find_set(inputs)?;
        if matches!(self.library.purpose(set), Purpose::Step | Purpose::Gather) {
            let message = "the inputs are those of a step, which changes the states".to_string();
            return Err(RunError { kind: ErrorKind::State, message });
        }
        self.run_attached(states, inputs, outputs)
    }

    /// The block is the library's for the run only.
    fn run_attached(
        &mut self,
        states: &StateBlock,
        inputs: &[TensorView],
        outputs: &mut [TensorViewMut],
    ) -> Result<(), RunError> {
        let Some(attach) = self.library.abi().attach_state else {
            let message = "the library does not learn".to_string();
            return Err(RunError { kind: ErrorKind::State, message });
        };
        let memory = states.memory();
        // SAFETY: the context is alive and borrowed mutably. The block is as long as it says. What is borrowed immutably here
        // is written in a step only, whose caller has borrowed it mutably.
        self.check(unsafe { attach(self.raw.as_ptr(), memory.0.cast(), memory.1) })?;
        let result = catch_unwind(AssertUnwindSafe(|| self.run(inputs, outputs)));
        // SAFETY: as above; takes the block away.
        unsafe { attach(self.raw.as_ptr(), std::ptr::null_mut(), 0) };
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Has a hook called after each step of later runs, or none.
    pub fn set_trace(&mut self, hook: Option<TraceHook>) {
        let function = hook.is_some().then_some(trace as crate::ffi::TraceFn);
        // SAFETY: nothing runs now that could use the callbacks; these outlive the context, which is alive.
        unsafe {
            (*self.callbacks.as_ptr()).trace = hook;
            let user = self.callbacks.as_ptr().cast();
            (self.library.abi().set_trace)(self.raw.as_ptr(), function, user)
        };
    }

    fn check(&self, code: i32) -> Result<(), RunError> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the context is alive; the string is static.
        let message = unsafe { text((self.library.abi().last_error)(self.raw.as_ptr())) };
        Err(RunError { kind: ErrorKind::from_code(code), message })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is alive, and not running: that would hold a mutable borrow. The callbacks come from a box, and
        // nothing uses them once the context is gone. The workspace goes afterwards.
        unsafe {
            (self.library.abi().destroy)(self.raw.as_ptr());
            drop(Box::from_raw(self.callbacks.as_ptr()));
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({})", self.library.name())
    }
}

unsafe extern "C" fn clock(user: *mut c_void) -> u64 {
    // SAFETY: `user` is the context's callbacks. Only the field is borrowed: the hook may be borrowed mutably meanwhile.
    let start = unsafe { &raw const (*user.cast::<Callbacks>()).start };
    // SAFETY: as above; `Instant` is never written after creation.
    unsafe { *start }.elapsed().as_nanos() as u64
}

unsafe extern "C" fn parallel_for(user: *mut c_void, count: u32, task: TaskFn, job: *mut c_void) {
    struct Job(*mut c_void);
    // SAFETY: the library allows tasks of a job on several threads at once.
    unsafe impl Sync for Job {}
    let job = Job(job);
    let job = &job;
    // SAFETY: `user` is the context's callbacks; this field is not written while the context lives.
    let function = unsafe { &(*user.cast::<Callbacks>()).parallel_for };
    // SAFETY: the library passes its task function and job, valid until this function returns.
    let call = move |index| unsafe { task(job.0, index) };
    match function {
        Some(function) => function(count, &call),
        None => (0..count).for_each(call),
    }
}

unsafe extern "C" fn trace(user: *mut c_void, event: *const RawEvent) -> i32 {
    // SAFETY: `user` is the context's callbacks, on the thread that runs the context, which is borrowed mutably.
    let hook = unsafe { &mut (*user.cast::<Callbacks>()).trace };
    let Some(hook) = hook else { return 0 };
    // SAFETY: the library's event is alive during the call, and so is everything it points to.
    let event = unsafe { read_event(&*event) };
    match catch_unwind(AssertUnwindSafe(|| hook(&event))) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(panic) => {
            // SAFETY: as above; the hook's borrow of its own field has ended.
            unsafe { (*user.cast::<Callbacks>()).panic = Some(panic) };
            1
        }
    }
}

/// # Safety
/// The event and everything it points to are alive for `'a`.
unsafe fn read_event<'a>(raw: &'a RawEvent) -> TraceEvent<'a> {
    let results: &[RawTensor] = match raw.result_count {
        0 => &[],
        // SAFETY: as many results as counted.
        count => unsafe { std::slice::from_raw_parts(raw.results, count as usize) },
    };
    let results = results.iter().filter_map(|result| {
        // SAFETY: the result points to `bytes` bytes, its name is a string, its shape has `rank` extents.
        let (name, shape, bytes) = unsafe {
            (
                text(result.name),
                extents(result)?,
                std::slice::from_raw_parts(result.data.cast::<u8>(), result.bytes as usize),
            )
        };
        Some(TraceResult { name, dtype: DType::from_code(result.dtype)?, shape, blocked: result.layout == 1, bytes })
    });
    TraceEvent {
        step: raw.step as usize,
        set: raw.set as usize,
        // SAFETY: static strings of the library.
        name: unsafe { text(raw.name) },
        // SAFETY: likewise.
        op: unsafe { text(raw.op) },
        start_ns: raw.start_ns,
        duration_ns: raw.duration_ns,
        results: results.collect(),
    }
}
