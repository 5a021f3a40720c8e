//! Differential tests: machine code against the interpreter, on the CPU itself.
//!
//! Levels that the CPU lacks are skipped, and say so.

use super::X64;
use crate::backend::Backend;
use crate::backend::testing::instructions::every_instruction;
use crate::backend::testing::native_difference;
use crate::kir::arbitrary::case;
use crate::target::Target;
use proptest::prelude::*;

/// The levels of this backend that the CPU has, with their vector widths.
fn native() -> Vec<(Target, usize)> {
    let host = Target::host().expect("tests run on a machine that nncc compiles for").level;
    let all = [(Target::x86_64_v3(), 256), (Target::x86_64_v4(), 512)];
    let (have, lack): (Vec<_>, Vec<_>) = all.into_iter().partition(|(t, _)| host >= t.level);
    for (t, _) in lack {
        println!("skipped: this CPU has no {}", t.level.name());
    }
    have
}

#[test]
fn every_instruction_compiles() {
    for (target, bits) in [(Target::x86_64_v3(), 256), (Target::x86_64_v4(), 512)] {
        let failures: Vec<String> = every_instruction(bits)
            .into_iter()
            .filter_map(|(name, case)| X64.compile(&case.kernel, &target).err().map(|e| format!("{name}: {e}")))
            .collect();
        assert!(failures.is_empty(), "{}: {} fail:\n{}", target.level.name(), failures.len(), failures.join("\n"));
    }
}

#[test]
fn every_instruction_agrees_with_the_interpreter() {
    for (target, bits) in native() {
        let mut failures = Vec::new();
        for (name, case) in every_instruction(bits) {
            if let Some(difference) = native_difference(&X64, &case, &target) {
                failures.push(format!("{name}: {difference}"));
            }
        }
        assert!(failures.is_empty(), "{}: {} differ:\n{}", target.level.name(), failures.len(), failures.join("\n"));
    }
}

/// A variant must run where its level is all there is.
#[test]
fn avx2_code_has_no_evex_instruction() {
    use iced_x86::{Decoder, DecoderOptions, EncodingKind};
    for (name, case) in every_instruction(256) {
        let emitted = X64.emit(&case.kernel, &Target::x86_64_v3()).expect(&name);
        for i in &mut Decoder::new(64, &emitted.bytes[..emitted.code_len], DecoderOptions::NONE) {
            assert!(!i.is_invalid() && i.encoding() != EncodingKind::EVEX, "{name}: {i:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_kernels_agree_with_the_interpreter(choices in proptest::collection::vec(any::<u32>(), 0..400)) {
        for (target, bits) in native() {
            let case = case(&choices, bits);
            if let Some(difference) = native_difference(&X64, &case, &target) {
                return Err(TestCaseError::fail(format!("{}: {difference}\n{}", target.level.name(), case.kernel)));
            }
        }
    }
}
