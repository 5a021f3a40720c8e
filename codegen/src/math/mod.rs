//! Elementary functions as kernel IR, for any lane count.
//!
//! Each is a function `fn exp(b: &mut Builder, x: Value) -> Value` over `f32` or `f64` scalars and vectors that appends
//! straight-line code: no tables, no gathers, special cases by selection, so that every lane takes the same time.
//!
//! | file | functions |
//! |---|---|
//! | [`exp`](mod@exp) | exp, exp_decay, expm1, sigmoid, tanh, sinh, cosh |
//! | [`log`](mod@log) | log, log1p, softplus, asinh, acosh, atanh |
//! | [`erf`](mod@erf) | erf |
//! | [`trig`] | sin, cos, tan |
//! | [`inverse_trig`] | asin, acos, atan |
//! | [`pow`](mod@pow) | pow |
//!
//! Accuracy: at most 4 ulp everywhere, denormals included, with and without fused multiply-add; infinities, NaNs and domain
//! errors as IEEE 754-2019 (clause 9.2) says. The tests measure it over all exponents. The exceptions stand with their functions.
//!
//! The functions that networks spend time in (exp, tanh, sigmoid, erf, log and what follows from them) have `f32` forms of
//! their own; the others compute `f32` in `f64`, half a vector at a time, which costs more and leaves at most 1 ulp.
//! Methods: argument reduction after Cody and Waite (Software Manual for the Elementary Functions, 1980), near-minimax
//! polynomials by `fit.py`, exact products and sums after Dekker (1971) and Knuth.

mod coefficients;
pub mod erf;
pub mod exp;
pub mod inverse_trig;
pub mod log;
pub mod pow;
#[cfg(test)]
mod tests;
pub mod trig;

pub use erf::erf;
pub use exp::{cosh, exp, exp_decay, expm1, sigmoid, sinh, tanh};
pub use inverse_trig::{acos, asin, atan};
pub use log::{acosh, asinh, atanh, log, log1p, softplus};
pub use pow::pow;
pub use trig::{cos, sin, tan};

use crate::kir::{Builder, Elem, FloatCc, Type, Value};

/// What differs between `f32` and `f64` in bit tricks.
#[derive(Clone, Copy)]
struct Format {
    /// Of the float.
    elem: Elem,
    /// Fraction bits.
    mantissa: u32,
    bias: i64,
    /// 1.5 * 2^mantissa: adding it rounds to an integer, which then stands in the low bits.
    magic: f64,
    /// ln 2 = high + low; `high` has so few bits that its product with any exponent is exact.
    ln2_high: f64,
    ln2_low: f64,
    /// The smallest normal number.
    min_normal: f64,
}

const F32: Format = Format {
    elem: Elem::F32,
    mantissa: 23,
    bias: 127,
    magic: 12_582_912.0,
    ln2_high: 0.693_359_375,
    ln2_low: -2.121_944_400_546_905_8e-4,
    min_normal: f32::MIN_POSITIVE as f64,
};

const F64: Format = Format {
    elem: Elem::F64,
    mantissa: 52,
    bias: 1023,
    magic: 6_755_399_441_055_744.0,
    ln2_high: 0.693_147_180_369_123_8,
    ln2_low: 1.908_214_929_270_587_7e-10,
    min_normal: f64::MIN_POSITIVE,
};

/// The format of a value.
#[track_caller]
fn format(b: &Builder, x: Value) -> Format {
    match b.ty(x).elem() {
        Some(Elem::F32) => F32,
        Some(Elem::F64) => F64,
        other => panic!("an elementary function of {other:?}"),
    }
}

/// A constant of the type of `x`.
fn like(b: &mut Builder, x: Value, c: f64) -> Value {
    b.float(b.ty(x), c)
}

/// `c[0] + c[1] x + c[2] x^2 + ..` by Horner's rule.
fn polynomial(b: &mut Builder, x: Value, c: &[f64]) -> Value {
    let (last, rest) = c.split_last().expect("a polynomial has coefficients");
    let mut p = like(b, x, *last);
    for &c in rest.iter().rev() {
        let c = like(b, x, c);
        p = b.mul_add(p, x, c);
    }
    p
}

/// The magnitude of one float with the sign of another.
fn copysign(b: &mut Builder, magnitude: Value, sign: Value) -> Value {
    let magnitude = b.abs(magnitude);
    with_sign(b, magnitude, sign)
}

/// A float whose sign bit is 0 with the sign of another.
fn with_sign(b: &mut Builder, magnitude: Value, sign: Value) -> Value {
    let f = format(b, sign);
    let int = f.elem.as_int();
    let bits = b.bitcast(sign, int);
    let mask = b.int(b.ty(bits), 1 << (f.elem.bits() - 1));
    let sign = b.and(bits, mask);
    let magnitude = b.bitcast(magnitude, int);
    let both = b.or(magnitude, sign);
    b.bitcast(both, f.elem)
}

/// `2^n` for integer lanes within the exponents of normal numbers.
fn pow2(b: &mut Builder, f: Format, n: Value) -> Value {
    let biased = b.add_imm(n, f.bias);
    from_exponent(b, f, biased)
}

/// The power of two with this biased exponent; bits above an exponent's do not count.
fn from_exponent(b: &mut Builder, f: Format, biased: Value) -> Value {
    let bits = b.shl_imm(biased, f.mantissa);
    b.bitcast(bits, f.elem)
}

/// The integer nearest to `x * y`, or with a rounding in between its neighbour, below 2^(mantissa - 2): as a float, and as
/// the low bits of an integer that hold `offset` more, which costs nothing here.
fn rounded_product(b: &mut Builder, f: Format, x: Value, y: Value, offset: i64) -> (Value, Value) {
    let magic = like(b, x, f.magic + offset as f64);
    let t = b.mul_add(x, y, magic);
    let rounded = b.sub(t, magic);
    (rounded, b.bitcast(t, f.elem.as_int()))
}

/// The nearest integer to a float below 2^(mantissa - 2): as a float and as the low bits of an integer.
fn round_to_int(b: &mut Builder, f: Format, x: Value) -> (Value, Value) {
    let magic = like(b, x, f.magic);
    let t = b.add(x, magic);
    let rounded = b.sub(t, magic);
    let bits = b.bitcast(t, f.elem.as_int());
    let magic = b.bitcast(magic, f.elem.as_int());
    (rounded, b.sub(bits, magic))
}

/// Small integer lanes as floats, without the conversion that vectors of 64-bit integers lack.
fn from_small_int(b: &mut Builder, f: Format, n: Value) -> Value {
    let magic = b.float(b.ty(n).with_elem(f.elem), f.magic);
    let bits = b.bitcast(magic, f.elem.as_int());
    let t = b.add(bits, n);
    let t = b.bitcast(t, f.elem);
    b.sub(t, magic)
}

/// `a < c`, for a constant.
fn below(b: &mut Builder, a: Value, c: f64) -> Value {
    let c = like(b, a, c);
    b.fcmp(FloatCc::Lt, a, c)
}

/// `a > c`, for a constant.
fn above(b: &mut Builder, a: Value, c: f64) -> Value {
    let c = like(b, a, c);
    b.fcmp(FloatCc::Gt, a, c)
}

/// `a == c`, for a constant.
fn equals(b: &mut Builder, a: Value, c: f64) -> Value {
    let c = like(b, a, c);
    b.fcmp(FloatCc::Eq, a, c)
}

/// `x` within `lo..=hi`; NaN stays.
fn clamp(b: &mut Builder, x: Value, lo: f64, hi: f64) -> Value {
    let (lo, hi) = (like(b, x, lo), like(b, x, hi));
    let x = b.pmin(hi, x);
    b.pmax(lo, x)
}

/// `a + b` as a rounded sum and its exact error (Knuth's two-sum).
fn two_sum(b: &mut Builder, x: Value, y: Value) -> (Value, Value) {
    let s = b.add(x, y);
    let y_part = b.sub(s, x);
    let x_part = b.sub(s, y_part);
    let (dx, dy) = (b.sub(x, x_part), b.sub(y, y_part));
    (s, b.add(dx, dy))
}

/// `x * y` as a rounded product and its exact error, for `f64` below 2^996: Dekker's product, since a fused multiply-add
/// is not everywhere.
fn two_product(b: &mut Builder, x: Value, y: Value) -> (Value, Value) {
    let split = |b: &mut Builder, v: Value| {
        let factor = like(b, v, 134_217_729.0); // 2^27 + 1
        let c = b.mul(v, factor);
        let d = b.sub(c, v);
        let high = b.sub(c, d);
        (high, b.sub(v, high))
    };
    let p = b.mul(x, y);
    let ((xh, xl), (yh, yl)) = (split(b, x), split(b, y));
    let hh = b.mul(xh, yh);
    let mut e = b.sub(hh, p);
    for (u, v) in [(xh, yl), (xl, yh), (xl, yl)] {
        let part = b.mul(u, v);
        e = b.add(e, part);
    }
    (p, e)
}

/// Computes an `f32` function in `f64`: `f` gets each half of the vectors, converted.
fn in_f64(b: &mut Builder, args: &[Value], f: impl Fn(&mut Builder, &[Value]) -> Value) -> Value {
    let ty = b.ty(args[0]);
    let n = ty.lanes();
    let wide = |b: &mut Builder, args: &[Value]| {
        let args: Vec<Value> = args.iter().map(|&x| b.promote(x)).collect();
        let y = f(b, &args);
        b.demote(y)
    };
    if n < 4 {
        return wide(b, args);
    }
    let halves = [0, n / 2].map(|start| {
        let lanes: Vec<usize> = (start..start + n / 2).collect();
        let args: Vec<Value> = args.iter().map(|&x| b.shuffle(x, x, &lanes)).collect();
        wide(b, &args)
    });
    let all: Vec<usize> = (0..n).collect();
    b.shuffle(halves[0], halves[1], &all)
}

/// `narrow` for `f64`, and for `f32` through it.
fn by_format(b: &mut Builder, x: Value, f: impl Fn(&mut Builder, Value) -> Value) -> Value {
    match format(b, x).elem {
        Elem::F64 => f(b, x),
        _ => in_f64(b, &[x], |b, x| f(b, x[0])),
    }
}

/// NaN of the type of `x`.
fn nan(b: &mut Builder, x: Value) -> Value {
    let ty: Type = b.ty(x);
    b.float(ty, f64::NAN)
}
