//! The 128-bit backend: kernel IR to CLIF, Cranelift to machine code, for x86-64-v1 and AArch64.

use super::{Backend, BackendError, MachineCode};
use crate::kir::Kernel;
use crate::target::Target;

/// The backend; it has no state.
#[derive(Clone, Copy, Debug)]
pub struct Cranelift;

impl Backend for Cranelift {
    fn name(&self) -> &'static str {
        "cranelift"
    }

    fn compile(&self, kernel: &Kernel, _target: &Target) -> Result<MachineCode, BackendError> {
        Err(unsupported(kernel, "anything yet"))
    }

    fn listing(&self, kernel: &Kernel, _target: &Target) -> Result<String, BackendError> {
        Err(unsupported(kernel, "anything yet"))
    }
}

fn unsupported(kernel: &Kernel, what: impl Into<String>) -> BackendError {
    BackendError::Unsupported { kernel: kernel.name.clone(), backend: "cranelift", what: what.into() }
}
