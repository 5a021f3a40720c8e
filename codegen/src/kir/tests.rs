//! Tests of the kernel IR as a whole: text form, verifier, canonical form, generator.

use super::arbitrary::case;
use super::parse::parse;
use super::verify::verify;
use super::*;
use proptest::prelude::*;

fn relu() -> Kernel {
    let mut b = Builder::new("relu", vec![ArgDecl::read("x", 4), ArgDecl::write("y", 4)]);
    let (x, y, ty) = (b.arg(0), b.arg(1), Type::of(Elem::F32, 8));
    let zero = b.float(ty, 0.0);
    b.tasks(|b, task| {
        let v = b.load(ty, x.at(0).idx(task, 32));
        let r = b.pmax(zero, v);
        b.store(y.at(0).idx(task, 32), r);
    });
    b.finish()
}

#[test]
fn text_form() {
    insta::assert_snapshot!(relu());
    let mut b = Builder::new("forms", vec![ArgDecl::read_write("x \"1\"", 16)]);
    let x = b.arg(0);
    let ty = Type::of(Elem::F64, 2);
    let steps = b.floats(ty, &[0.5, f64::NAN]);
    let sums = b.loop_(b.begin(), b.end(), 2, &[steps, x], |b, i, c| {
        let v = b.load_part(ty, c[1].at(-8).idx(i, 24), 1);
        let sum = b.mul_add(v, v, c[0]);
        vec![sum, b.ptr(c[1].at(16))]
    });
    let cond = b.icmp(IntCc::GtU, b.begin(), b.end());
    let chosen = b.if_(cond, |b| vec![b.splat_lane(sums[0], 1)], |b| vec![b.neg(sums[0])]);
    let low = b.shuffle(chosen[0], sums[0], &[3, 0]);
    b.store_part(sums[1].at(8), low, 1);
    insta::assert_snapshot!(b.finish());
}

#[test]
fn the_builder_folds_index_arithmetic() {
    let mut b = Builder::new("k", vec![ArgDecl::write("x", 4)]);
    let x = b.arg(0);
    let results = b.loop_(0, 1, 1, &[], |b, i, _| {
        let i = b.add_imm(i, 3);
        let i = b.mul_imm(i, 4);
        let p = b.ptr_add(x, i, 4);
        let one = b.f32(1.0);
        b.store(p.at(4), one);
        vec![]
    });
    assert!(results.is_empty());
    let i = b.add_imm(b.begin(), 1);
    let i = b.mul_imm(i, 6);
    let two = b.f32(2.0);
    b.store(x.at(0).idx(i, 4), two);
    insta::assert_snapshot!(b.finish());
}

#[test]
fn parse_errors_name_line_and_reason() {
    let error = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(error("kernel k() {\n  %3: f32 = fadd %4, %4\n}"), "line 2: %4 is used before it is defined");
    assert_eq!(
        error("kernel k() {\n  %3: f64 = const 1.0\n  %4: f32 = fadd %3, %3\n}"),
        "line 3: the results are written as [Scalar(F32)], expected [Scalar(F64)]"
    );
    assert_eq!(error("kernel k() {\n  %3: f32 = frobnicate %0\n}"), "line 2: unknown instruction `frobnicate`");
    assert_eq!(error("kernel k() {"), "line 1: expected a word, found End");
}

#[test]
fn the_verifier_collects_every_error() {
    let mut k = relu();
    k.name = "3x".into();
    assert_eq!(verify(&k).unwrap_err().to_string(), "kernel 3x is malformed\n  name \"3x\", expected a C identifier");
    let mut k = relu();
    let Op::Loop(l) = &mut k.body.insts[1].op else { panic!("a loop") };
    l.body.insts.swap(0, 1);
    let inner = l.body.insts[1].result();
    k.body.insts.push(Inst { results: SmallVec::new(), op: Op::Store { addr: Value(0).into(), value: inner } });
    assert_eq!(
        verify(&k).unwrap_err().to_string(),
        "kernel relu is malformed\
         \n  %7 is used where it is not defined\n    in %8: f32x8 = pmax %5, %7\
         \n  %7 is used where it is not defined\n    in store %0, %7"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_kernels_are_well_formed_and_round_trip(choices in proptest::collection::vec(any::<u32>(), 0..300)) {
        for bits in [128, 512] {
            let kernel = case(&choices, bits).kernel;
            prop_assert_eq!(verify(&kernel), Ok(()));
            let text = kernel.to_string();
            let parsed = parse(&text);
            prop_assert_eq!(parsed.as_ref(), Ok(&kernel), "{}", text);
            let mut again = kernel.clone();
            canonical::canonicalize(&mut again);
            prop_assert_eq!(again, kernel, "canonical form is idempotent");
        }
    }

    #[test]
    fn random_kernels_run(choices in proptest::collection::vec(any::<u32>(), 0..300)) {
        let c = case(&choices, 256);
        let mut buffers = c.buffers.clone();
        let target = crate::target::Target::x86_64_v3();
        let done = interp::run(&c.kernel, &target, &mut buffers, c.scratch_len, c.begin, c.end);
        prop_assert!(done.is_ok(), "{}\n{}", done.unwrap_err(), c.kernel);
    }
}
