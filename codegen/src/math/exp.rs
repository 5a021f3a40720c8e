//! The exponential and what is made of it: exp, expm1, sigmoid, tanh, sinh, cosh.
//!
//! ```text
//! x = n ln 2 + r,   |r| <= ln(2)/2,   e^x = 2^n (1 + q),   q = e^r - 1 = r + r^2 P(r)
//! ```
//!
//! `n ln 2` is subtracted in two parts, the first exactly. `2^n` is applied as two factors, so that results above the largest
//! and below the smallest normal number come out rounded once. `expm1` puts the 1 back where it cancels, `2^n q + (2^n - 1)`;
//! tanh and sinh follow from it without cancellation.

use super::coefficients::{EXP_F32, EXP_F64};
use super::{
    F32, Format, above, below, by_format, clamp, copysign, format, from_exponent, like, polynomial, rounded_product,
    with_sign,
};
use crate::kir::{Builder, Elem, Value};

fn is_f32(f: Format) -> bool {
    f.elem == F32.elem
}

/// `n + offset` in the low bits of an integer, with other bits above those, and `q = e^r - 1`, for finite `x` of moderate size.
fn reduce(b: &mut Builder, f: Format, x: Value, offset: i64) -> (Value, Value) {
    let log2e = like(b, x, std::f64::consts::LOG2_E);
    let (rounded, bits) = rounded_product(b, f, x, log2e, offset);
    let (high, low) = (like(b, x, -f.ln2_high), like(b, x, -f.ln2_low));
    let r = b.mul_add(rounded, high, x);
    let r = b.mul_add(rounded, low, r);
    let p = polynomial(b, r, if is_f32(f) { &EXP_F32 } else { &EXP_F64 });
    let r2 = b.mul(r, r);
    (bits, b.mul_add(r2, p, r))
}

/// `e^x 2^shift`.
fn exp_shifted(b: &mut Builder, x: Value, shift: i64) -> Value {
    let f = format(b, x);
    // Beyond these the result is 0 or infinite, with one to spare for `shift`.
    let (lo, hi) = if is_f32(f) { (-105.0, 90.0) } else { (-747.0, 711.0) };
    let x = clamp(b, x, lo, hi);
    // With both biases in it, n has halves that are exponents as they stand: what is above them leaves at the top.
    let (n, q) = reduce(b, f, x, 2 * f.bias + shift);
    let half = b.shr_s_imm(n, 1);
    let rest = b.sub(n, half);
    let (first, second) = (from_exponent(b, f, half), from_exponent(b, f, rest));
    let m = b.mul_add(q, first, first);
    b.mul(m, second)
}

/// `e^x` where it is a normal number, by one factor and without bounds: two thirds of the instructions of [`exp`]. A NaN stays
/// one. At most 2 ulp.
pub(super) fn exp_normal(b: &mut Builder, x: Value) -> Value {
    let f = format(b, x);
    let (n, q) = reduce(b, f, x, f.bias);
    let scale = from_exponent(b, f, n);
    b.mul_add(q, scale, scale)
}

/// `e^x` for `x <= 0`, and 0 where that is below the smallest normal number: half of the instructions of [`exp`]. A NaN stays
/// one. At most 2 ulp.
pub fn exp_decay(b: &mut Builder, x: Value) -> Value {
    let f = format(b, x);
    // Here n is -bias, which makes a factor of 0.
    let least = like(b, x, -std::f64::consts::LN_2 * (f.bias as f64 - 0.1));
    let x = b.pmax(least, x);
    exp_normal(b, x)
}

/// `e^x`. At most 2 ulp.
pub fn exp(b: &mut Builder, x: Value) -> Value {
    exp_shifted(b, x, 0)
}

/// `e^x - 1` for `-40 <= x <= 80`.
fn expm1_moderate(b: &mut Builder, x: Value) -> Value {
    let f = format(b, x);
    let (n, q) = reduce(b, f, x, f.bias);
    let scale = from_exponent(b, f, n);
    let one = like(b, x, 1.0);
    let rest = b.sub(scale, one);
    b.mul_add(scale, q, rest)
}

/// `e^x - 1`, accurate near 0 too. At most 3 ulp.
pub fn expm1(b: &mut Builder, x: Value) -> Value {
    // From 40 on the 1 is below half an ulp in either format.
    let large = above(b, x, 40.0);
    let moderate = clamp(b, x, -40.0, 40.0);
    let (small, huge) = (expm1_moderate(b, moderate), exp(b, x));
    b.select(large, huge, small)
}

/// `1 / (1 + e^-x)`. At most 4 ulp, for results that are denormal too: `e^-|x|` cannot overflow.
pub fn sigmoid(b: &mut Builder, x: Value) -> Value {
    let a = b.abs(x);
    let a = b.neg(a);
    let e = exp(b, a);
    let one = like(b, x, 1.0);
    let negative = below(b, x, 0.0);
    let numerator = b.select(negative, e, one);
    let denominator = b.add(e, one);
    b.div(numerator, denominator)
}

/// The hyperbolic tangent, `t / (t + 2)` with `t = e^2|x| - 1`. At most 4 ulp.
pub fn tanh(b: &mut Builder, x: Value) -> Value {
    // tanh is 1 in either format from here on.
    let limit = like(b, x, if is_f32(format(b, x)) { 10.0 } else { 20.0 });
    let a = b.abs(x);
    let a = b.pmin(limit, a);
    let twice = b.add(a, a);
    let t = expm1_moderate(b, twice);
    let two = like(b, x, 2.0);
    let denominator = b.add(t, two);
    let y = b.div(t, denominator);
    with_sign(b, y, x)
}

/// The hyperbolic sine. At most 4 ulp.
pub fn sinh(b: &mut Builder, x: Value) -> Value {
    by_format(b, x, |b, x| {
        let a = b.abs(x);
        // Below 1 from expm1: (t + t / (t + 1)) / 2.
        let one = like(b, x, 1.0);
        let near = b.pmin(one, a);
        let t = expm1_moderate(b, near);
        let t1 = b.add(t, one);
        let quotient = b.div(t, t1);
        let sum = b.add(t, quotient);
        let half = like(b, x, 0.5);
        let small = b.mul(sum, half);
        // Above from h = e^|x| / 2, which overflows no earlier than the result.
        let (h, inverse) = halves(b, a);
        let large = b.sub(h, inverse);
        let is_small = b.fcmp(crate::kir::FloatCc::Lt, a, one);
        let y = b.select(is_small, small, large);
        copysign(b, y, x)
    })
}

/// The hyperbolic cosine. At most 4 ulp.
pub fn cosh(b: &mut Builder, x: Value) -> Value {
    by_format(b, x, |b, x| {
        let a = b.abs(x);
        let (h, inverse) = halves(b, a);
        b.add(h, inverse)
    })
}

/// `e^a / 2` and `e^-a / 2`.
fn halves(b: &mut Builder, a: Value) -> (Value, Value) {
    debug_assert_eq!(b.ty(a).elem(), Some(Elem::F64));
    let h = exp_shifted(b, a, -1);
    let quarter = like(b, a, 0.25);
    (h, b.div(quarter, h))
}
