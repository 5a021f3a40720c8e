//! Differential tests: machine code against the interpreter.

use super::Cranelift;
use crate::backend::Backend;
use crate::backend::testing::emulated::{AARCH64, Machine, X86_64_V1, check_on};
use crate::backend::testing::instructions::every_instruction;
use crate::backend::testing::native_difference;
use crate::kir::arbitrary::{Case, case};
use crate::kir::{ArgDecl, Builder, Elem, FloatCc, Type, Value};
use crate::target::Target;
use proptest::prelude::*;

/// Cranelift panics where it lacks a lowering: the name of the instruction is worth more than the first one's backtrace.
#[test]
fn every_instruction_compiles() {
    for target in [Target::x86_64_v1(), Target::aarch64()] {
        let mut failures = Vec::new();
        for (name, case) in every_instruction(128) {
            let compile = || Cranelift.compile(&case.kernel, &target);
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(compile)) {
                Ok(Ok(_)) => {}
                Ok(Err(e)) => failures.push(format!("{name}: {e}")),
                Err(_) => failures.push(format!("{name}: panic")),
            }
        }
        assert!(failures.is_empty(), "{}: {} fail:\n{}", target.triple, failures.len(), failures.join("\n"));
    }
}

fn machines() -> [(&'static Machine, Target); 2] {
    [(&AARCH64, Target::aarch64()), (&X86_64_V1, Target::x86_64_v1())]
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_instruction_agrees_with_the_interpreter() {
    let target = Target::x86_64_v1();
    let mut failures = Vec::new();
    for (name, case) in every_instruction(128) {
        if let Some(difference) = native_difference(&Cranelift, &case, &target) {
            failures.push(format!("{name}: {difference}"));
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_instruction_agrees_under_emulation() {
    for (machine, target) in machines() {
        let cases = every_instruction(128).into_iter().map(|(_, case)| case).collect();
        check_on(machine, &Cranelift, cases, &target);
    }
}

/// Choices for `arbitrary::case`.
fn choices() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(any::<u32>(), 0..400)
}

/// Found by random kernels: `cmpps` with a memory operand that is not aligned faults. See `memory.rs`.
#[test]
#[cfg(target_arch = "x86_64")]
fn comparisons_take_no_unaligned_memory() {
    for elem in [Elem::F32, Elem::F64] {
        let mut args = vec![ArgDecl::read("input", 64)];
        args.extend(Elem::ALL.map(|e| ArgDecl::write(format!("buf_{e}"), 64)));
        let mut b = Builder::new("compare", args);
        let ty = Type::of(elem, 16 / elem.bytes());
        let (x, y) = (b.load(ty, b.arg(0).at(0)), b.load(ty, b.arg(0).at(24)));
        let unordered = b.fcmp(FloatCc::Unordered, x, y);
        let less = b.fcmp(FloatCc::Lt, y, x);
        let both = b.or(unordered, less);
        let bits = b.mask_to_int(both);
        let to = 1 + Elem::ALL.iter().position(|&e| e == Elem::I8).expect("masks become bytes");
        b.store(b.arg(to).at(0), bits);
        let mut buffers = vec![vec![0; 64]; 1 + Elem::ALL.len()];
        buffers[0] = [1.5f32, f32::NAN, -2.0, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().repeat(4);
        let case = Case { kernel: b.finish(), buffers, scratch_len: 64, begin: 0, end: 1 };
        assert_eq!(native_difference(&Cranelift, &case, &Target::x86_64_v1()), None);
    }
}

#[test]
fn random_kernels_agree_under_emulation() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let cases: Vec<Case> =
        (0..150).map(|_| case(&choices().new_tree(&mut runner).expect("no filter").current(), 128)).collect();
    for (machine, target) in machines() {
        check_on(machine, &Cranelift, cases.clone(), &target);
    }
}

/// The inner kernel of a matrix product, as templates write it: C[rows x 8] = A[rows x k] B[k x 8] on panels that are
/// k-major, 8 wide.
fn gemm(rows: usize, k: i64) -> crate::kir::Kernel {
    let args = vec![ArgDecl::read("a", 64), ArgDecl::read("b", 64), ArgDecl::write("c", 64)];
    let mut b = Builder::new("gemm", args);
    let ty = Type::of(Elem::F32, 4);
    let (pa, pb, pc) = (b.arg(0), b.arg(1), b.arg(2));
    let zero = b.zero(ty);
    let sums = b.loop_(0, k, 1, &vec![zero; 2 * rows], |b, i, acc| {
        let columns = [0, 16].map(|d| b.load(ty, pb.at(d).idx(i, 32)));
        let mut next = Vec::new();
        let quads: Vec<Value> = (0..rows.div_ceil(4)).map(|q| b.load(ty, pa.at(q as i64 * 16).idx(i, 32))).collect();
        for row in 0..rows {
            let a = b.splat_lane(quads[row / 4], row % 4);
            for (column, &vb) in columns.iter().enumerate() {
                next.push(b.mul_add(a, vb, acc[row * 2 + column]));
            }
        }
        next
    });
    for (i, &s) in sums.iter().enumerate() {
        b.store(pc.at(16 * i as i64), s);
    }
    b.finish()
}

#[test]
fn listings() {
    insta::assert_snapshot!("gemm_8x8_aarch64", Cranelift.listing(&gemm(8, 256), &Target::aarch64()).unwrap());
    insta::assert_snapshot!("gemm_5x8_x86_64_v1", Cranelift.listing(&gemm(5, 256), &Target::x86_64_v1()).unwrap());
}
