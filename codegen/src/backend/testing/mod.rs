//! Running compiled kernels in tests and fuzzing: on this machine, in the simulator, on others through qemu; and what they
//! must give.

#[cfg(test)]
pub mod emulated;
#[cfg(test)]
pub mod instructions;
pub mod native;
pub mod simulated;

use super::{Backend, MachineCode};
use crate::kir::arbitrary::Case;
use crate::kir::interp;
use crate::target::Target;

/// What the interpreter makes of a case.
pub fn expected(case: &Case, target: &Target) -> Vec<Vec<u8>> {
    let mut buffers = case.buffers.clone();
    interp::run(&case.kernel, target, &mut buffers, case.scratch_len, case.begin, case.end)
        .unwrap_or_else(|e| panic!("{e}\n{}", case.kernel));
    buffers
}

/// Compiles a case.
pub fn compiled(backend: &dyn Backend, case: &Case, target: &Target) -> MachineCode {
    backend.compile(&case.kernel, target).unwrap_or_else(|e| panic!("{e}\n{}", case.kernel))
}

/// Where this machine and the interpreter differ on a case.
pub fn native_difference(backend: &dyn Backend, case: &Case, target: &Target) -> Option<String> {
    let expected = expected(case, target);
    let code = compiled(backend, case, target);
    let got = native::run(&code, &case.buffers, case.scratch_len, case.begin, case.end);
    case.difference(&got, &expected)
}

/// Where the simulator and the interpreter differ on a case, or what the simulated code does wrong.
pub fn simulated_difference(backend: &dyn Backend, case: &Case, target: &Target) -> Option<String> {
    let expected = expected(case, target);
    let code = match simulated::Simulated::new(&compiled(backend, case, target), target.level) {
        Ok(code) => code,
        Err(e) => return Some(e),
    };
    let mut buffers = case.buffers.clone();
    match code.run(&case.kernel, &mut buffers, case.scratch_len, case.begin, case.end) {
        Ok(_) => case.difference(&buffers, &expected),
        Err(e) => Some(e),
    }
}
