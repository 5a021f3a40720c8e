//! Everything that can go wrong, with the blame in the type.
//!
//! ```text
//! Import, Lower, Batch,
//! Training, Head    the model is invalid, or nncc does not support it yet      exit code 1
//! Input, Usage      what the caller gave does not fit                          exit code 1
//! Io, Array, Export a file could not be read or written                        exit code 1
//! Run               a library refused to run                                   exit code 1
//! Internal          a bug in nncc; nothing a model contains should cause one   exit code 101
//! ```

use nncc_codegen::emit::EmitError;
use nncc_codegen::lower::LowerError;
use nncc_passes::PassError;
use nncc_passes::training::TrainingError;

/// Why compiling or running failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model is invalid or uses what is not supported.
    #[error(transparent)]
    Import(#[from] nncc_frontend::ImportErrors),
    /// A model could not be written.
    #[error(transparent)]
    Export(#[from] nncc_frontend::export::ExportError),
    /// A model's last layer could not be replaced.
    #[error(transparent)]
    Head(#[from] nncc_frontend::head::HeadError),
    /// Models could not be put together.
    #[error(transparent)]
    Ensemble(#[from] nncc_frontend::ensemble::EnsembleError),
    /// A model that was made for batches of one size cannot be compiled for another.
    #[error("{error}\n  --> {file}\n  help: export the model with a symbolic first dimension")]
    Batch {
        /// The model's file.
        file: String,
        /// What does not allow it.
        error: nncc_passes::BatchError,
    },
    /// The model cannot be trained so.
    #[error("{0}")]
    Training(TrainingError),
    /// There is no code for a node of the model.
    #[error("{0}")]
    Lower(LowerError),
    /// Dimensions that are not known.
    #[error("{0}")]
    Unknown(String),
    /// An option does not fit the model or the machine.
    #[error("{0}")]
    Usage(String),
    /// An input does not fit the model.
    #[error("{0}")]
    Input(String),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// An array file could not be read or written.
    #[error(transparent)]
    Array(#[from] crate::arrays::ArrayError),
    /// A library could not be loaded, or refused to run.
    #[error("{0}")]
    Run(String),
    /// The outputs differ: the verdict of a comparison.
    #[error("{0}")]
    Differs(String),
    /// A bug in nncc.
    #[error("internal error: {0}\n  this is a bug in nncc, not in your model")]
    Internal(String),
}

impl Error {
    /// Whether this is a bug in nncc.
    pub fn is_internal(&self) -> bool {
        matches!(self, Error::Internal(_))
    }

    /// An I/O error of one file.
    pub fn io(path: impl AsRef<std::path::Path>, source: std::io::Error) -> Error {
        Error::Io { path: path.as_ref().display().to_string(), source }
    }
}

impl From<PassError> for Error {
    fn from(e: PassError) -> Error {
        match e {
            PassError::UnknownSize { .. } => Error::Unknown(e.to_string()),
            PassError::TooLarge { .. } => Error::Usage(e.to_string()),
            e => Error::Internal(e.to_string()),
        }
    }
}

impl From<TrainingError> for Error {
    fn from(e: TrainingError) -> Error {
        match e {
            TrainingError::Bug(what) => Error::Internal(what),
            e => Error::Training(e),
        }
    }
}

impl From<LowerError> for Error {
    fn from(e: LowerError) -> Error {
        match e {
            LowerError::Internal { .. } | LowerError::Program(_) => Error::Internal(e.to_string()),
            e => Error::Lower(e),
        }
    }
}

impl From<EmitError> for Error {
    fn from(e: EmitError) -> Error {
        match e {
            EmitError::Write { path, source } => Error::io(path, source),
            EmitError::Prefix(_) | EmitError::NotHost { .. } | EmitError::TooLarge { .. } => {
                Error::Usage(e.to_string())
            }
            EmitError::Program(_) | EmitError::Backend(_) | EmitError::Internal { .. } => {
                Error::Internal(e.to_string())
            }
        }
    }
}
