//! Accuracy of the elementary functions over all exponents, in ulp against `f64` references, through the interpreter (with and
//! without fused multiply-add) and, with many more samples, through machine code.

use crate::backend;
use crate::backend::testing::{native, simulated::Simulated};
use crate::kir::{ArgDecl, Builder, Elem, Kernel, Type, Value, interp};
use crate::target::Target;

type Emitter = fn(&mut Builder, Value) -> Value;

/// Name, what is tested, the reference.
type Row = (&'static str, Emitter, fn(f64) -> f64);

fn functions() -> Vec<Row> {
    vec![
        ("exp", super::exp, f64::exp),
        ("exp_decay", decay, |x| (-x.abs()).exp()),
        ("expm1", super::expm1, f64::exp_m1),
        ("sigmoid", super::sigmoid, |x| if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }),
        ("tanh", super::tanh, f64::tanh),
        ("sinh", super::sinh, f64::sinh),
        ("cosh", super::cosh, f64::cosh),
        ("log", super::log, f64::ln),
        ("log1p", super::log1p, f64::ln_1p),
        ("softplus", super::softplus, |x| if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }),
        ("asinh", super::asinh, asinh),
        ("acosh", super::acosh, acosh),
        ("atanh", super::atanh, atanh),
        ("erf", super::erf, erf),
        ("sin", super::sin, f64::sin),
        ("cos", super::cos, f64::cos),
        ("tan", super::tan, f64::tan),
        ("asin", super::asin, f64::asin),
        ("acos", super::acos, f64::acos),
        ("atan", super::atan, f64::atan),
    ]
}

/// `e^-|x|`, all that [`super::exp_decay`] is for.
fn decay(b: &mut Builder, x: Value) -> Value {
    let a = b.abs(x);
    let a = b.neg(a);
    super::exp_decay(b, a)
}

/// Rust's own loses digits near 0 and overflows.
fn asinh(x: f64) -> f64 {
    let a = x.abs();
    let y = if a > 1e9 { a.ln() + std::f64::consts::LN_2 } else { (a + a * a / (1.0 + (1.0 + a * a).sqrt())).ln_1p() };
    y.copysign(x)
}

fn acosh(x: f64) -> f64 {
    let t = x - 1.0;
    match x {
        x if x < 1.0 => f64::NAN,
        x if x > 1e9 => x.ln() + std::f64::consts::LN_2,
        _ => (t + (t * (t + 2.0)).sqrt()).ln_1p(),
    }
}

fn atanh(x: f64) -> f64 {
    (0.5 * (2.0 * x.abs() / (1.0 - x.abs())).ln_1p()).copysign(x)
}

/// The error function by its series of positive terms, `2/sqrt(pi) e^-x^2 sum 2^n x^(2n+1) / (2n+1)!!`, with `x^2` as two
/// numbers; beyond 1.5 by the continued fraction of erfc (both: Abramowitz and Stegun 7.1.6, 7.1.14).
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let square = a * a;
    let error = a.mul_add(a, -square);
    let gauss = (-square).exp() * (1.0 - error);
    let y = if a.is_nan() {
        return x;
    } else if a > 6.0 {
        1.0
    } else if a > 1.5 {
        let mut c = a;
        for k in (1..400).rev() {
            c = a + f64::from(k) / 2.0 / c;
        }
        1.0 - gauss / c / std::f64::consts::PI.sqrt()
    } else {
        let (mut term, mut sum, mut lost) = (a, a, 0.0);
        for n in 1..100 {
            term *= 2.0 * square / f64::from(2 * n + 1);
            let (next, y) = (sum + (term - lost), term - lost);
            lost = (next - sum) - y;
            sum = next;
        }
        std::f64::consts::FRAC_2_SQRT_PI * gauss * sum
    };
    y.copysign(x)
}

/// `y[i] = f(x[i])`, a vector a task.
fn kernel(ty: Type, f: impl Fn(&mut Builder, Value) -> Value) -> Kernel {
    let mut b = Builder::new("f", vec![ArgDecl::read("x", 64), ArgDecl::write("y", 64)]);
    let (x, y, step) = (b.arg(0), b.arg(1), ty.bytes().unwrap());
    b.tasks(|b, task| {
        let v = b.load(ty, x.at(0).idx(task, step));
        let r = f(b, v);
        b.store(y.at(0).idx(task, step), r);
    });
    b.finish()
}

/// Both signs, every exponent, `mantissas` fractions each (the first three are 0, the largest and the middle), then the edges.
fn samples(elem: Elem, mantissas: u64) -> Vec<u64> {
    let (mantissa_bits, exponents) = if elem == Elem::F32 { (23, 256u64) } else { (52, 2048) };
    let top = 1u64 << (elem.bits() - 1);
    let mut out = Vec::new();
    let mut seed = 1u64;
    for exponent in 0..exponents {
        for i in 0..mantissas {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let fraction = match i {
                0 => 0,
                1 => u64::MAX,
                2 => 1 << (mantissa_bits - 1),
                _ => seed >> 11,
            } & ((1 << mantissa_bits) - 1);
            let bits = exponent << mantissa_bits | fraction;
            out.extend([bits, bits | top]);
        }
    }
    while !out.len().is_multiple_of(16) {
        out.push(0);
    }
    out
}

/// The distance of a result from the exact value, in units of the last place of the format at that value.
fn ulps(elem: Elem, got: f64, exact: f64) -> f64 {
    let (mantissa, lowest, max) =
        if elem == Elem::F32 { (23, -126, f64::from(f32::MAX)) } else { (52, -1022, f64::MAX) };
    if exact.is_nan() || got.is_nan() {
        return if exact.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    let rounded = if elem == Elem::F32 { f64::from(exact as f32) } else { exact };
    if got == rounded {
        return 0.0;
    }
    // Infinity is one unit beyond the largest number.
    let finite = |x: f64| if x.is_infinite() { max.copysign(x) } else { x.clamp(-max, max) };
    let exponent = (finite(exact).abs().log2().floor().max(f64::from(lowest))) as i32;
    let unit = if elem == Elem::F32 {
        2f64.powi(exponent - mantissa)
    } else {
        f64::from_bits(exact.abs().clamp(f64::MIN_POSITIVE, max).to_bits() & 0x7ff0_0000_0000_0000) * 2f64.powi(-52)
    };
    // Denormal f64 units underflow in the product above: the smallest is theirs.
    let unit = unit.max(if elem == Elem::F32 { 2f64.powi(-149) } else { f64::from_bits(1) });
    (finite(got) - finite(exact)).abs() / unit + if got.is_infinite() != rounded.is_infinite() { 1.0 } else { 0.0 }
}

fn bytes(elem: Elem, lanes: &[u64]) -> Vec<u8> {
    lanes.iter().flat_map(|l| l.to_le_bytes()[..elem.bytes()].to_vec()).collect()
}

fn lane(elem: Elem, bytes: &[u8], i: usize) -> f64 {
    match elem {
        Elem::F32 => f64::from(f32::from_le_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap())),
        _ => f64::from_le_bytes(bytes[8 * i..8 * i + 8].try_into().unwrap()),
    }
}

/// The largest error of results, with the argument.
fn worst(elem: Elem, x: &[u8], y: &[u8], reference: fn(f64) -> f64, counts: impl Fn(f64) -> bool) -> (f64, f64) {
    let mut worst = (0.0, 0.0);
    for i in 0..x.len() / elem.bytes() {
        let v = lane(elem, x, i);
        let error = ulps(elem, lane(elem, y, i), reference(v));
        if error > worst.0 && counts(v) {
            worst = (error, v);
        }
    }
    worst
}

/// Who computes.
#[derive(Clone, Copy)]
enum By {
    Interpreter,
    MachineCode,
    Simulator,
}

fn run(kernel: &Kernel, target: &Target, x: &[u8], by: By, tasks: i64) -> Vec<u8> {
    let mut buffers = vec![x.to_vec(), vec![0; x.len()]];
    let code = || backend::for_target(target).unwrap().compile(kernel, target).unwrap();
    match by {
        By::Interpreter => interp::run(kernel, target, &mut buffers, 64, 0, tasks).unwrap(),
        By::MachineCode => buffers = native::run(&code(), &buffers, 64, 0, tasks),
        By::Simulator => {
            Simulated::new(&code(), target.level)
                .and_then(|code| code.run(kernel, &mut buffers, 64, 0, tasks))
                .unwrap();
        }
    }
    buffers.pop().unwrap()
}

/// Every x86 level that this machine runs: the same functions at three widths.
#[cfg(target_arch = "x86_64")]
fn native_targets() -> Vec<Target> {
    let all = [Target::x86_64_v1(), Target::x86_64_v3(), Target::x86_64_v4()];
    all.into_iter().filter(|t| crate::target::host_has(t.level)).collect()
}

/// The most that any function may be off.
const LIMIT: f64 = 4.0;

fn check(elem: Elem, mantissas: u64, target: &Target, by: By) {
    let x = bytes(elem, &samples(elem, mantissas));
    let mut failures = Vec::new();
    for (name, f, reference) in functions() {
        let ty = Type::of(elem, target.lanes(elem));
        let y = run(&kernel(ty, f), target, &x, by, (x.len() / ty.bytes().unwrap()) as i64);
        // f64 arguments beyond 2^50 are where the documentation ends.
        let trig = matches!(name, "sin" | "cos" | "tan");
        // What a decay leaves below the normal numbers is theirs or 0: a test of its own.
        let vanishing = |v: f64| name == "exp_decay" && (-v.abs()).exp() < smallest_normal(elem);
        let far = |v: f64| trig && elem == Elem::F64 && v.is_finite() && v.abs() > 2f64.powi(50);
        let counts = |v: f64| !far(v) && !vanishing(v);
        let (error, at) = worst(elem, &x, &y, reference, counts);
        if error > LIMIT {
            failures.push(format!("{name} {elem}: {error:.2} ulp at {at:e}"));
        }
        println!("{name} {elem} {}: {error:.2} ulp at {at:e}", target.level.name());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn smallest_normal(elem: Elem) -> f64 {
    if elem == Elem::F32 { f64::from(f32::MIN_POSITIVE) } else { f64::MIN_POSITIVE }
}

#[test]
fn a_decay_ends_in_zero() {
    for (elem, edge) in [(Elem::F32, 87.0), (Elem::F64, 708.0)] {
        let steps = (0..2000).map(|i| -edge - f64::from(i) / 1000.0).chain([-1e4, -1e30, f64::NEG_INFINITY, -edge]);
        let bits = |v: f64| if elem == Elem::F32 { u64::from((v as f32).to_bits()) } else { v.to_bits() };
        let lanes: Vec<u64> = steps.map(bits).chain([bits(f64::NEG_INFINITY); 12]).collect();
        let (x, target) = (bytes(elem, &lanes), Target::aarch64());
        let ty = Type::of(elem, target.lanes(elem));
        let y =
            run(&kernel(ty, super::exp_decay), &target, &x, By::Interpreter, (x.len() / ty.bytes().unwrap()) as i64);
        for i in 0..lanes.len() {
            let (v, got) = (lane(elem, &x, i), lane(elem, &y, i));
            assert!((0.0..=v.exp().max(smallest_normal(elem)) * 1.001).contains(&got), "{elem} e^{v} = {got:e}");
            assert!(got == 0.0 || v > -edge - 2.0, "{elem} e^{v} = {got:e}");
        }
    }
}

#[test]
fn f32_within_4_ulp_by_the_interpreter() {
    check(Elem::F32, 6, &Target::aarch64(), By::Interpreter);
    check(Elem::F32, 6, &Target::x86_64_v1(), By::Interpreter);
}

#[test]
fn f64_within_4_ulp_by_the_interpreter() {
    check(Elem::F64, 1, &Target::aarch64(), By::Interpreter);
    check(Elem::F64, 1, &Target::x86_64_v1(), By::Interpreter);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn f32_within_4_ulp_by_machine_code() {
    native_targets().iter().for_each(|target| check(Elem::F32, 250, target, By::MachineCode));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn f64_within_4_ulp_by_machine_code() {
    native_targets().iter().for_each(|target| check(Elem::F64, 16, target, By::MachineCode));
}

/// The wide levels on any machine.
#[test]
fn within_4_ulp_by_the_simulator() {
    for target in [Target::x86_64_v3(), Target::x86_64_v4()] {
        check(Elem::F32, 20, &target, By::Simulator);
        check(Elem::F64, 2, &target, By::Simulator);
    }
}

#[test]
fn scalars_and_pairs_too() {
    let x = bytes(Elem::F32, &samples(Elem::F32, 3));
    for (name, f, _) in functions() {
        let run = |lanes: usize| {
            let ty = Type::of(Elem::F32, lanes);
            run(&kernel(ty, f), &Target::aarch64(), &x, By::Interpreter, (x.len() / ty.bytes().unwrap()) as i64)
        };
        let four = run(4);
        assert!(crate::kir::arbitrary::first_difference(Elem::F32, &run(1), &four).is_none(), "{name}: scalar");
        assert!(crate::kir::arbitrary::first_difference(Elem::F32, &run(2), &four).is_none(), "{name}: pair");
    }
}

/// Bases and exponents whose powers meet every special case, and random ones whose powers are finite.
fn pow_pairs() -> Vec<(f64, f64)> {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0,
        -2.0,
        3.0,
        -3.0,
        0.5,
        -0.5,
        1.5,
        1e30,
        -1e30,
        1e-40,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    let mut pairs: Vec<(f64, f64)> = special.iter().flat_map(|&x| special.map(|y| (x, y))).collect();
    let mut seed = 7u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 11) as f64 / (1u64 << 53) as f64
    };
    while pairs.len() < 4096 {
        let x = (random() * 80.0 - 40.0).exp2();
        let y = (random() * 2.0 - 1.0) * 140.0 / x.log2().abs().max(1e-3);
        pairs.push((x, y));
        pairs.push((-x, y.round()));
    }
    pairs.truncate(4096); // whole vectors
    pairs
}

#[test]
fn pow_within_4_ulp() {
    for (elem, target) in [
        (Elem::F32, Target::aarch64()),
        (Elem::F32, Target::x86_64_v1()),
        (Elem::F64, Target::aarch64()),
        (Elem::F64, Target::x86_64_v1()),
    ] {
        let ty = Type::of(elem, target.lanes(elem));
        let step = ty.bytes().unwrap();
        let mut b = Builder::new("pow", vec![ArgDecl::read("x", 64), ArgDecl::read("p", 64), ArgDecl::write("y", 64)]);
        b.tasks(|b, task| {
            let [x, p] = [0, 1].map(|i| b.load(ty, b.arg(i).at(0).idx(task, step)));
            let r = super::pow(b, x, p);
            b.store(b.arg(2).at(0).idx(task, step), r);
        });
        let kernel = b.finish();
        let bits = |x: f64| if elem == Elem::F32 { u64::from((x as f32).to_bits()) } else { x.to_bits() };
        let pairs = pow_pairs();
        let [x, p] = [pairs.iter().map(|p| bits(p.0)).collect::<Vec<_>>(), pairs.iter().map(|p| bits(p.1)).collect()]
            .map(|l| bytes(elem, &l));
        let mut buffers = vec![x.clone(), p.clone(), vec![0; x.len()]];
        interp::run(&kernel, &target, &mut buffers, 64, 0, (x.len() / step) as i64).unwrap();
        for i in 0..pairs.len() {
            let (x, p, got) = (lane(elem, &x, i), lane(elem, &p, i), lane(elem, &buffers[2], i));
            let error = ulps(elem, got, x.powf(p));
            assert!(error <= LIMIT, "{elem}: {x:e} ^ {p:e} = {got:e}, {error:.2} ulp");
        }
    }
}
