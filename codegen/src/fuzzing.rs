//! The property that every kernel has, as library code: the fuzz target and a test are a few lines around it.
//!
//! Only there in tests and under `cfg(fuzzing)`, which `cargo fuzz` sets.

use crate::backend::testing::{native_difference, simulated_difference};
use crate::backend::{Backend, cranelift::Cranelift, x64::X64};
use crate::kir::arbitrary::case;
use crate::target::{Target, host_has};

/// Makes a kernel from any bytes and compiles it for each x86 level. What the machine code does, in the simulator and on this
/// CPU as far as it has the level, is what the interpreter does; where not, the text says how they differ and on which kernel.
///
/// # Panics
/// When the kernel is refused: a bug too.
pub fn kernel(bytes: &[u8]) -> Option<String> {
    // Choices are taken modulo small numbers: two bytes each keep the input short.
    let choices: Vec<u32> = bytes.chunks(2).map(|c| c.iter().rev().fold(0, |n, &b| n << 8 | u32::from(b))).collect();
    choices_differ(&choices)
}

/// The same from choices.
fn choices_differ(choices: &[u32]) -> Option<String> {
    for (target, bits) in [(Target::x86_64_v1(), 128), (Target::x86_64_v3(), 256), (Target::x86_64_v4(), 512)] {
        let case = case(choices, bits);
        let backend: &dyn Backend = if bits == 128 { &Cranelift } else { &X64 };
        let mut difference = None;
        if bits > 128 {
            difference = simulated_difference(backend, &case, &target).map(|d| format!("simulated: {d}"));
        }
        if difference.is_none() && host_has(target.level) {
            difference = native_difference(backend, &case, &target);
        }
        if let Some(difference) = difference {
            return Some(format!("{}: {difference}\n{}", target.level.name(), case.kernel));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn random_kernels_agree_with_the_interpreter(choices in proptest::collection::vec(any::<u32>(), 0..400)) {
            prop_assert_eq!(choices_differ(&choices), None);
        }
    }

    #[test]
    fn any_bytes_are_a_kernel() {
        for n in [0usize, 1, 2, 3, 50, 301] {
            let bytes: Vec<u8> = (0..n).map(|i| (i * 37 + n) as u8).collect();
            assert_eq!(kernel(&bytes), None, "{n} bytes");
        }
    }
}
