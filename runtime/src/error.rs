//! What can go wrong at run time: a library that is none, and calls that do not fit the model.

use std::path::PathBuf;

/// Why a library was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The system's loader refused the file.
    #[error("cannot load {}: {}", path.display(), reason(source))]
    Open {
        /// As given.
        path: PathBuf,
        /// What the loader said.
        source: libloading::Error,
    },
    /// A function of the ABI is missing.
    #[error("not a library compiled by nncc: it has no {0}")]
    Missing(&'static str),
    /// Compiled for another version of the ABI.
    #[error("the library speaks ABI version {library}, this program version {program}; compile the model again")]
    Version {
        /// What the library says.
        library: u32,
        /// What this crate speaks.
        program: u32,
    },
    /// The library describes itself in terms that this crate does not know.
    #[error("the library describes {0} in a way that this program does not know")]
    Description(String),
}

/// What the system's loader said: the end of the chain of causes, for the links above only name the call.
fn reason(error: &libloading::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

/// The closed set of failures of a call, numbered as `NNCC_ERROR_*` in the generated header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A pointer that must not be null is null.
    Null,
    /// Not a live context of the library.
    Context,
    /// The context is running in another thread.
    Busy,
    /// No such shape set.
    Set,
    /// Wrong number of inputs or outputs.
    Count,
    /// Wrong element type.
    Dtype,
    /// The shapes are those of no compiled set.
    Shape,
    /// A buffer is too small.
    Size,
    /// A buffer is not aligned to its element type.
    Align,
    /// The workspace does not do.
    Workspace,
    /// Out of memory.
    Memory,
    /// Threads could not be had.
    Threads,
    /// The CPU runs none of the library's levels.
    Cpu,
    /// Wrong options.
    Options,
    /// The trace hook ended the run.
    Stopped,
    /// No such input, output, step, level or state.
    Index,
    /// No block of states, or that of another model.
    State,
    /// A code that this crate does not know.
    Unknown(i32),
}

impl ErrorKind {
    /// The kind of a code other than 0.
    pub fn from_code(code: i32) -> ErrorKind {
        use ErrorKind::*;
        const KINDS: [ErrorKind; 17] = [
            Null, Context, Busy, Set, Count, Dtype, Shape, Size, Align, Workspace, Memory, Threads, Cpu, Options,
            Stopped, Index, State,
        ];
        let index = usize::try_from(code).ok().and_then(|code| code.checked_sub(1));
        index.and_then(|index| KINDS.get(index).copied()).unwrap_or(Unknown(code))
    }
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RunError {
    /// Which failure.
    pub kind: ErrorKind,
    /// The library's sentence on it; names the input or output at fault.
    pub message: String,
}
