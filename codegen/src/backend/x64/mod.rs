//! The wide x86 backend: AVX2 with FMA (16 ymm) and AVX-512 (32 zmm, k masks).
//!
//! ```text
//! Kernel ─select─> VCode (machine instructions, virtual registers) ─regalloc2─> allocation ─emit─> bytes
//! ```
//!
//! | file | holds |
//! |---|---|
//! | [`inst`] | machine instructions and their operands |
//! | [`table`] | the vector instructions, one line each |
//! | [`vcode`] | blocks, constants, registers: what the allocator is asked with |
//! | [`select`] | kernel IR to machine instructions |
//! | [`emit`] | allocated instructions to bytes |
//!
//! Cranelift has no vectors beyond 128 bits, which is a factor of two to four in every convolution; hence a backend of our
//! own for the levels that have them. Left out: unwind information and calls, for kernels are leaves that never trap.

pub mod emit;
pub mod inst;
pub mod select;
pub mod table;
pub mod vcode;

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;

use super::{Backend, BackendError, MachineCode};
use crate::kir::Kernel;
use crate::target::{Level, Target};
use regalloc2::RegallocOptions;

/// Compiles for [`Level::X86V3`] and [`Level::X86V4`].
pub struct X64;

impl X64 {
    fn emit(&self, kernel: &Kernel, target: &Target) -> Result<emit::Emitted, BackendError> {
        if !matches!(target.level, Level::X86V3 | Level::X86V4) {
            return Err(BackendError::Level(target.level));
        }
        let unsupported = |what| BackendError::Unsupported { kernel: kernel.name.clone(), backend: "x64", what };
        let internal = |what: String| BackendError::Internal { kernel: kernel.name.clone(), what };
        let evex = target.level == Level::X86V4;
        let code = select::select(kernel, target).map_err(unsupported)?;
        let environment = vcode::machine_env(evex);
        let options = RegallocOptions { validate_ssa: cfg!(debug_assertions), ..RegallocOptions::default() };
        let out = regalloc2::run(&code, &environment, &options)
            .map_err(|e| internal(format!("register allocation: {e:?}")))?;
        if cfg!(debug_assertions) {
            // Every allocation of every test, by an algorithm that shares nothing with the allocator's.
            let mut checker = regalloc2::checker::Checker::new(&code, &environment);
            checker.prepare(&out);
            checker.run().map_err(|e| internal(format!("the register allocation is wrong: {e:?}")))?;
        }
        emit::emit(&code, &out, evex).map_err(internal)
    }
}

impl Backend for X64 {
    fn name(&self) -> &'static str {
        "x64"
    }

    fn compile(&self, kernel: &Kernel, target: &Target) -> Result<MachineCode, BackendError> {
        let e = self.emit(kernel, target)?;
        Ok(MachineCode { bytes: e.bytes, align: 64, stack: e.stack })
    }

    fn listing(&self, kernel: &Kernel, target: &Target) -> Result<String, BackendError> {
        let e = self.emit(kernel, target)?;
        Ok(disassemble(&e.bytes[..e.code_len]))
    }
}

/// One instruction a line, branch targets as offsets.
fn disassemble(code: &[u8]) -> String {
    use iced_x86::Formatter;
    let mut formatter = iced_x86::NasmFormatter::new();
    formatter.options_mut().set_rip_relative_addresses(true);
    let mut out = String::new();
    for i in &mut iced_x86::Decoder::new(64, code, iced_x86::DecoderOptions::NONE) {
        let mut text = String::new();
        formatter.format(&i, &mut text);
        out += &format!("{:5x}  {text}\n", i.ip());
    }
    out
}
