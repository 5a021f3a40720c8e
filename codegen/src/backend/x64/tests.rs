//! Differential tests: machine code against the interpreter, in the simulator and, where it has the level, on the CPU itself.
//!
//! Random kernels are in [`crate::fuzzing`].

use super::X64;
use crate::backend::testing::instructions::every_instruction;
use crate::backend::testing::{compiled, native_difference, simulated::Simulated, simulated_difference};
use crate::kir::arbitrary::Case;
use crate::target::{Target, host_has};
use nncc_simulator::hardware::{self, Verdict};

/// The levels of this backend with their vector widths.
fn levels() -> [(Target, usize); 2] {
    [(Target::x86_64_v3(), 256), (Target::x86_64_v4(), 512)]
}

/// Where machine code and the interpreter differ.
fn difference(case: &Case, target: &Target) -> Option<String> {
    let simulated = simulated_difference(&X64, case, target).map(|d| format!("simulator: {d}"));
    simulated.or_else(|| host_has(target.level).then(|| native_difference(&X64, case, target)).flatten())
}

#[test]
fn every_instruction_agrees_with_the_interpreter() {
    for (target, bits) in levels() {
        let differing = |(name, case): (String, Case)| difference(&case, &target).map(|d| format!("{name}: {d}"));
        let failures: Vec<String> = every_instruction(bits).into_iter().filter_map(differing).collect();
        assert!(failures.is_empty(), "{}: {} differ:\n{}", target.level.name(), failures.len(), failures.join("\n"));
    }
}

/// What the simulator is believed for: forms that every suite here validates as it comes upon them, all that this CPU has.
#[test]
fn the_cpu_agrees_with_the_simulator() {
    for (target, bits) in levels() {
        for (name, case) in every_instruction(bits) {
            let code = Simulated::new(&compiled(&X64, &case, &target), target.level);
            assert_eq!(code.err(), None, "{name}");
        }
    }
    let (agree, lack): (Vec<_>, Vec<_>) =
        hardware::checked().into_iter().partition(|(_, verdict)| *verdict == Verdict::Agrees);
    println!("{} forms agree; this CPU lacks {}", agree.len(), lack.len());
    // Here the check is not vacuous: an AVX2 machine has every form of the AVX2 backend.
    let evex = |name: &str| name.contains("EVEX_") || name.contains("VEX_K");
    if host_has(Target::x86_64_v3().level) {
        assert!(agree.len() > 200, "{} forms were run", agree.len());
        assert!(lack.iter().all(|(name, _)| evex(name)), "{lack:?}");
    }
    if host_has(Target::x86_64_v4().level) {
        assert!(lack.is_empty(), "{lack:?}");
    }
}
