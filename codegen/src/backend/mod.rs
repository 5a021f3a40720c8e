//! Backends: kernel IR in, machine code out, behind one trait.
//!
//! | backend | for | vectors |
//! |---|---|---|
//! | [`cranelift`] | x86-64-v1, AArch64 | 128 bits |
//! | [`x64`] | x86-64-v3, x86-64-v4 | 256 and 512 bits |
//!
//! What comes out is position independent and needs nothing: constants stand behind the code in the same bytes, there are no
//! relocations, no calls, no unwind information. Which backend compiles a level is said in one place, [`for_target`].

pub mod cranelift;
#[cfg(any(test, fuzzing))]
pub(crate) mod testing;
pub mod x64;

use crate::kir::Kernel;
use crate::target::{Level, Target};

/// The machine code of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineCode {
    /// Code, then its constants; the entry point is the first byte.
    pub bytes: Vec<u8>,
    /// What the first byte must be aligned to, for the constants' sake; a power of two.
    pub align: u32,
    /// Bytes of stack that it uses below its return address; a library states the bound of all. Cranelift knows it as
    /// `buffer.frame_layout().frame_to_fp_offset`.
    pub stack: u32,
}

/// Why a kernel was not compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The kernel asks for what this backend cannot do on that target; a template should have asked the target first.
    #[error("kernel {kernel}: the {backend} backend does not support {what}")]
    Unsupported {
        /// Its name.
        kernel: String,
        /// Of which backend.
        backend: &'static str,
        /// What.
        what: String,
    },
    /// No backend compiles for that level.
    #[error("no backend compiles for {}", .0.name())]
    Level(Level),
    /// The kernel is malformed or the code generator failed: a bug in nncc.
    #[error("internal error: kernel {kernel}: {what}")]
    Internal {
        /// Its name.
        kernel: String,
        /// What happened.
        what: String,
    },
}

/// Turns kernels into machine code.
pub trait Backend {
    /// For messages and listings.
    fn name(&self) -> &'static str;

    /// Compiles one kernel.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] for vectors, shuffles or levels that it does not know.
    fn compile(&self, kernel: &Kernel, target: &Target) -> Result<MachineCode, BackendError>;

    /// The instructions of a kernel as text, for people and snapshot tests. Compiles it again.
    ///
    /// # Errors
    /// As [`Backend::compile`].
    fn listing(&self, kernel: &Kernel, target: &Target) -> Result<String, BackendError>;
}

/// The backend that compiles for a target.
///
/// # Errors
/// [`BackendError::Level`] when there is none.
pub fn for_target(target: &Target) -> Result<Box<dyn Backend>, BackendError> {
    match target.level {
        Level::X86V1 | Level::Aarch64 => Ok(Box::new(cranelift::Cranelift)),
        Level::X86V3 | Level::X86V4 => Ok(Box::new(x64::X64)),
    }
}
