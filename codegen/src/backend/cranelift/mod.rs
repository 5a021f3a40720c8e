//! The 128-bit backend: kernel IR to CLIF, Cranelift to machine code, for x86-64-v1 and AArch64.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | settings, compilation, what may come out |
//! | `emit` | control flow, addresses of loops, dispatch over instructions |
//! | `arith` | arithmetic, comparison, conversion |
//! | `lanes` | constants, masks, shuffles, reductions |
//! | `memory` | addresses, loads, stores, parts of vectors |
//!
//! Representation. A vector of `n` lanes occupies one 128-bit register, its lanes the low ones: what the others hold is
//! unspecified. A mask of `n >= 2` lanes is an integer vector of `n` lanes of `128 / n` bits, all ones or all zeros; a
//! `Mask(1)` is an `i8` of 0 or 1. Pointers are `i64`.
//!
//! What CLIF lacks on vectors (division, shifts by different amounts, 64-bit conversions) is done lane by lane; what
//! x86-64-v1 lacks and Cranelift would call a library for (rounding, byte shuffles, FMA) is expanded here, exactly.
//! Vectors wider than 128 bits are refused: templates ask the target.

mod arith;
mod emit;
mod lanes;
mod memory;

#[cfg(test)]
mod tests;

use super::{Backend, BackendError, MachineCode};
use crate::kir::{Kernel, verify::verify};
use crate::target::{Level, Target};
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{CodegenError, Context};

/// The backend; it has no state.
#[derive(Clone, Copy, Debug)]
pub struct Cranelift;

impl Backend for Cranelift {
    fn name(&self) -> &'static str {
        "cranelift"
    }

    fn compile(&self, kernel: &Kernel, target: &Target) -> Result<MachineCode, BackendError> {
        let context = compile(kernel, target, false)?;
        let code = context.compiled_code().expect("it was just compiled");
        if let Some(reloc) = code.buffer.relocs().first() {
            return Err(internal(kernel, format!("the code calls {:?}", reloc.target)));
        }
        // The frame below the saved frame pointer, and that pair itself (16 bytes on AArch64, 8 and none on x86).
        let frame = code.buffer.frame_layout().map_or(0, |f| f.frame_to_fp_offset);
        let bytes = code.code_buffer().to_vec();
        Ok(MachineCode { bytes, align: code.buffer.alignment.max(16), stack: frame + 16 })
    }

    fn listing(&self, kernel: &Kernel, target: &Target) -> Result<String, BackendError> {
        let context = compile(kernel, target, true)?;
        let code = context.compiled_code().expect("it was just compiled");
        code.vcode.clone().ok_or_else(|| internal(kernel, "no listing was made"))
    }
}

/// Whether this backend compiles for a target.
pub fn compiles(target: &Target) -> bool {
    matches!(target.level, Level::X86V1 | Level::Aarch64)
}

/// The CLIF of a kernel as text, before optimisation: for people who look at what this backend emits.
///
/// # Errors
/// As [`Backend::compile`].
pub fn clif(kernel: &Kernel, target: &Target) -> Result<String, BackendError> {
    let isa = isa(kernel, target)?;
    Ok(emit::function(kernel, target, &*isa).map_err(|what| unsupported(kernel, what))?.display().to_string())
}

fn compile(kernel: &Kernel, target: &Target, listing: bool) -> Result<Context, BackendError> {
    if cfg!(debug_assertions) {
        verify(kernel).map_err(|e| internal(kernel, e.to_string()))?;
    }
    let isa = isa(kernel, target)?;
    let function = emit::function(kernel, target, &*isa).map_err(|what| unsupported(kernel, what))?;
    let mut context = Context::for_function(function);
    context.set_disasm(listing);
    match context.compile(&*isa, &mut ControlPlane::default()) {
        Ok(_) => {}
        Err(e) => {
            let what = match e.inner {
                CodegenError::Verifier(errors) => format!("malformed CLIF: {errors}"),
                other => other.to_string(),
            };
            return Err(internal(kernel, what));
        }
    }
    Ok(context)
}

/// Cranelift's description of a target.
fn isa(kernel: &Kernel, target: &Target) -> Result<OwnedTargetIsa, BackendError> {
    if !compiles(target) {
        return Err(BackendError::Level(target.level));
    }
    let mut flags = settings::builder();
    let debug = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [
        // Kernels are written in the order in which they should run: the order of loads in an inner loop is its register
        // budget. Cranelift's optimizer keeps no order: it sinks arithmetic to the end of a block, below all loads, so that a
        // tile's loads of one round are all live at once, and spills. What it would fold, the kernel IR's builder has folded.
        ("opt_level", "none"),
        ("enable_verifier", debug),
        // A kernel uses the stack for spills only: no guard page can be skipped.
        ("enable_probestack", "false"),
        ("unwind_info", "false"),
        ("preserve_frame_pointers", "false"),
    ] {
        flags.set(name, value).map_err(|e| internal(kernel, format!("setting {name}: {e}")))?;
    }
    isa::lookup(target.triple.clone())
        .map_err(|e| internal(kernel, e.to_string()))?
        .finish(settings::Flags::new(flags))
        .map_err(|e| internal(kernel, e.to_string()))
}

fn unsupported(kernel: &Kernel, what: impl Into<String>) -> BackendError {
    BackendError::Unsupported { kernel: kernel.name.clone(), backend: "cranelift", what: what.into() }
}

fn internal(kernel: &Kernel, what: impl Into<String>) -> BackendError {
    BackendError::Internal { kernel: kernel.name.clone(), what: what.into() }
}
