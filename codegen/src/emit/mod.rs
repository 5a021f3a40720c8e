//! Emission: a program and its kernels' machine code become a library, in a file or in memory.
//!
//! ```text
//! Program + MachineCode ── library ──> code, tables          in a Cranelift module (object or JIT)
//!                            │  entry     ABI entry points, step loop, thread pool (CLIF)
//!                            │  tables    what the code reads: shapes, plans, messages
//!                            │  native    CPUID and floating-point control (bytes)
//!          ── object ──────> .o           kernels, code and tables; weights inside or left out
//!          ── link ────────> .so          libwild in process; weights written straight into the output
//!          ── archive ─────> .a
//!          ── header ──────> .h
//!          ── jit ─────────> memory
//! ```
//!
//! A library has no writable data, no text relocation and, when freestanding, no undefined symbol. Its weights are mapped
//! with the file: loading touches none of them. [`abi`] declares what a caller sees.

pub mod abi;
mod archive;
mod clif;
mod entry;
mod functions;
pub mod header;
mod jit;
mod library;
mod link;
mod native;
mod object;
mod tables;

pub use archive::emit_archive;
pub use header::{emit_header, header};
pub use jit::{JitLibrary, jit};
pub use link::emit_shared;
pub use object::emit_object;

use crate::backend::{self, BackendError, MachineCode};
use crate::program::{Program, ProgramError};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_module::ModuleError;
use std::path::PathBuf;
use target_lexicon::Triple;

/// How a library is emitted.
#[derive(Clone, Debug, Default)]
pub struct EmitOptions {
    /// Prefix of exported symbols; the model's name, made a C identifier, unless given.
    pub prefix: Option<String>,
    /// Import nothing: no threads of its own, all memory from the caller.
    pub freestanding: bool,
}

/// What came out: the constants of the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Prefix of the exported symbols.
    pub prefix: String,
    /// Bytes of machine code.
    pub code_bytes: u64,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Bound of a run's stack on each thread, at the greediest level.
    pub stack_bytes: u64,
    /// Workspace for one thread and any shape set, as `nncc_workspace_size(NNCC_ANY_SET, 1)` says.
    pub workspace_bytes: u64,
}

impl Emitted {
    fn new(prefix: String, program: &Program, library: &library::Library) -> Emitted {
        Emitted {
            prefix,
            code_bytes: library.code_bytes,
            weight_bytes: library.weight_bytes,
            stack_bytes: library.stack_bytes.iter().copied().max().unwrap_or(0),
            workspace_bytes: library::workspace_bytes(program, 1),
        }
    }
}

/// Why a library was not emitted.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// Lowering made a malformed program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A kernel did not compile.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Something does not fit the format.
    #[error("{what} is too large: {bytes}, the limit is {limit}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The output could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The prefix is not a C identifier.
    #[error("prefix {0:?} is not a C identifier")]
    Prefix(String),
    /// Code of another architecture cannot run here.
    #[error("the program is for {target}, but this machine is {host}: it cannot run in memory here")]
    NotHost {
        /// The program's target.
        target: String,
        /// This machine.
        host: String,
    },
    /// Cranelift or the linker failed: a bug in nncc.
    #[error("internal error: {stage}: {what}")]
    Internal {
        /// What was being done.
        stage: &'static str,
        /// What happened.
        what: String,
    },
}

impl From<ModuleError> for EmitError {
    fn from(error: ModuleError) -> Self {
        // Debug holds the inner error, which Display of a compilation error leaves out.
        EmitError::Internal { stage: "code generation", what: format!("{error:?}") }
    }
}

/// Compiles every kernel of a program by its level's backend, on all cores. The result is in the order of the kernels.
pub fn compile_kernels(program: &Program) -> Result<Vec<MachineCode>, EmitError> {
    let mut jobs = Vec::new();
    for kernel in &program.kernels {
        let Some(target) = program.targets.iter().find(|target| target.level == kernel.level) else {
            return Err(BackendError::Level(kernel.level).into());
        };
        jobs.push((&kernel.ir, target));
    }
    let next = std::sync::atomic::AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len().max(1));
    // Kernels differ in size by orders of magnitude, so each worker takes the next when it is free.
    let work = || -> Result<Vec<(usize, MachineCode)>, BackendError> {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some((kernel, target)) = jobs.get(i) else { return Ok(done) };
            done.push((i, backend::for_target(target)?.compile(kernel, target)?));
        }
    };
    let mut done = Vec::with_capacity(jobs.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            done.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<(), EmitError>(())
    })?;
    done.sort_unstable_by_key(|&(i, _)| i);
    Ok(done.into_iter().map(|(_, code)| code).collect())
}

/// A C identifier made of a model's name: what is not a letter, digit or `_` becomes `_`.
pub fn c_identifier(name: &str) -> String {
    let mut identifier: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if !identifier.starts_with(|c: char| c.is_ascii_alphabetic()) {
        identifier.insert_str(0, "model_");
    }
    identifier
}

/// The prefix of exported symbols.
fn prefix(program: &Program, options: &EmitOptions) -> Result<String, EmitError> {
    match &options.prefix {
        Some(prefix) if *prefix == c_identifier(prefix) => Ok(prefix.clone()),
        Some(prefix) => Err(EmitError::Prefix(prefix.clone())),
        None => Ok(c_identifier(&program.name)),
    }
}

/// The instruction set for the code around the kernels: the architecture's baseline.
fn baseline_isa(triple: &Triple, pic: bool) -> Result<OwnedTargetIsa, EmitError> {
    let internal = |what: String| EmitError::Internal { stage: "target", what };
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", "speed"),
        ("is_pic", if pic { "true" } else { "false" }),
        ("enable_probestack", "false"),
        ("preserve_frame_pointers", "true"),
        ("use_colocated_libcalls", "false"),
    ] {
        flags.set(name, value).map_err(|error| internal(error.to_string()))?;
    }
    let isa = cranelift_codegen::isa::lookup(triple.clone()).map_err(|error| internal(error.to_string()))?;
    isa.finish(settings::Flags::new(flags)).map_err(|error| internal(error.to_string()))
}
