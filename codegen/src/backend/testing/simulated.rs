//! Compiled kernels in the simulator: any level on any machine, and every access checked against its operand.
//!
//! Each operand is a region of its own with exactly its extent, constants and inputs without leave to store. The stack is as
//! large as the backend says that it is, so that a kernel which uses more fails. Before a function is simulated, its
//! instructions must be of its level, and each form among them is compared with what the CPU does, where it can.

use crate::backend::MachineCode;
use crate::kir::{Access, Kernel, interp};
use crate::target::Level;
use nncc_simulator::{Limits, Memory, Program, call};

/// More than any test kernel executes.
const INSTRUCTIONS: u64 = 2_000_000_000;

/// A kernel's code, decoded.
pub struct Simulated {
    program: Program,
    stack: usize,
}

impl Simulated {
    /// Decodes code of a level, which must hold no instruction beyond it, and validates its forms.
    pub fn new(code: &MachineCode, level: Level) -> Result<Simulated, String> {
        let program = Program::decode(&code.bytes).map_err(|e| e.to_string())?;
        let permitted = match level {
            Level::X86V3 => nncc_simulator::level::Level::V3,
            Level::X86V4 => nncc_simulator::level::Level::V4,
            _ => return Err(format!("the simulator does not run {}", level.name())),
        };
        program.instructions().iter().try_for_each(|i| permitted.permits(i))?;
        #[cfg(target_arch = "x86_64")]
        nncc_simulator::hardware::check(&program)?;
        Ok(Simulated { program, stack: code.stack as usize })
    }

    /// Runs tasks on operands; gives the number of instructions executed.
    pub fn run(
        &self,
        kernel: &Kernel,
        buffers: &mut [Vec<u8>],
        scratch_len: usize,
        begin: i64,
        end: i64,
    ) -> Result<u64, String> {
        let mut memory = Memory::new();
        let mut places = Vec::new();
        for (buffer, arg) in buffers.iter_mut().zip(&kernel.args) {
            let access = match arg.access {
                Access::Read => nncc_simulator::Access::Read,
                Access::Write | Access::ReadWrite => nncc_simulator::Access::ReadWrite,
            };
            places.push(memory.add(std::mem::take(buffer), access));
        }
        let scratch = memory.add(vec![interp::SCRATCH_FILL; scratch_len], nncc_simulator::Access::ReadWrite);
        let pointers = places.iter().flat_map(|p| p.to_le_bytes()).collect();
        let pointers = memory.add(pointers, nncc_simulator::Access::Read);
        let limits = Limits { stack: self.stack, instructions: INSTRUCTIONS };
        let result = call(&self.program, &mut memory, [pointers, scratch, begin as u64, end as u64], limits);
        for (buffer, place) in buffers.iter_mut().zip(places) {
            *buffer = memory.take(place);
        }
        result.map_err(|e| format!("{}: {e}", kernel.name))
    }
}
