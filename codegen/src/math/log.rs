//! The natural logarithm and what is made of it: log, log1p, softplus, asinh, acosh, atanh.
//!
//! ```text
//! x = 2^e m,   sqrt(1/2) <= m < sqrt(2),   f = m - 1,   s = f / (2 + f),   z = s^2
//! log m = 2 atanh(s) = f - (f^2/2 - s (f^2/2 + z P(z)))
//! ```
//!
//! The second form (as in Sun's fdlibm, 1993) keeps `f`, which is exact, out of the rounding.

use super::coefficients::{LOG_F32, LOG_F64};
use super::{above, below, by_format, copysign, equals, exp, format, from_small_int, like, nan, polynomial, two_sum};
use crate::kir::{Builder, Elem, FloatCc, Value};

/// `e` as a float and `f = m - 1`, for positive finite `x`.
pub(super) fn split(b: &mut Builder, x: Value) -> (Value, Value) {
    let f = format(b, x);
    let int = f.elem.as_int();
    // Denormals have no exponent of their own: scale them up.
    let tiny = below(b, x, f.min_normal);
    let scale = like(b, x, 2f64.powi(f.mantissa as i32));
    let scaled = b.mul(x, scale);
    let x = b.select(tiny, scaled, x);
    let bits = b.bitcast(x, int);
    let root_half = match f.elem {
        Elem::F32 => i64::from(std::f32::consts::FRAC_1_SQRT_2.to_bits()),
        _ => std::f64::consts::FRAC_1_SQRT_2.to_bits() as i64,
    };
    let above_root = b.add_imm(bits, -root_half);
    let e = b.shr_s_imm(above_root, f.mantissa);
    let exponent_bits = b.shl_imm(e, f.mantissa);
    let m = b.sub(bits, exponent_bits);
    let m = b.bitcast(m, f.elem);
    let one = like(b, x, 1.0);
    let fraction = b.sub(m, one);
    let e = from_small_int(b, f, e);
    let (shift, zero) = (like(b, x, f64::from(f.mantissa)), like(b, x, 0.0));
    let shift = b.select(tiny, shift, zero);
    (b.sub(e, shift), fraction)
}

/// `log x` for positive finite `x`.
fn log_positive(b: &mut Builder, x: Value) -> Value {
    let format = format(b, x);
    let (e, f) = split(b, x);
    let two = like(b, x, 2.0);
    let denominator = b.add(f, two);
    let s = b.div(f, denominator);
    let z = b.mul(s, s);
    let p = polynomial(b, z, if format.elem == Elem::F32 { &LOG_F32 } else { &LOG_F64 });
    let half = like(b, x, 0.5);
    let half_f = b.mul(f, half);
    let square = b.mul(half_f, f);
    let inner = b.mul_add(z, p, square);
    let (high, low) = (like(b, x, format.ln2_high), like(b, x, format.ln2_low));
    let small = b.mul(e, low);
    let small = b.mul_add(s, inner, small);
    let rest = b.sub(square, small);
    let rest = b.sub(rest, f);
    let large = b.mul(e, high);
    b.sub(large, rest)
}

/// The natural logarithm; -inf at 0, NaN below. At most 2 ulp.
pub fn log(b: &mut Builder, x: Value) -> Value {
    let y = log_positive(b, x);
    let finite = below(b, x, f64::INFINITY);
    let y = b.select(finite, y, x);
    let (zero, positive) = (equals(b, x, 0.0), above(b, x, 0.0));
    let (lowest, nan) = (like(b, x, f64::NEG_INFINITY), nan(b, x));
    let other = b.select(zero, lowest, nan);
    b.select(positive, y, other)
}

/// `log(1 + x)`, accurate near 0: with `u` the rounded sum and `c` its error, `log u + c / u`. At most 4 ulp.
pub fn log1p(b: &mut Builder, x: Value) -> Value {
    let one = like(b, x, 1.0);
    let (u, c) = two_sum(b, one, x);
    let y = log(b, u);
    let correction = b.div(c, u);
    let corrected = b.add(y, correction);
    let (positive, finite) = (above(b, u, 0.0), below(b, u, f64::INFINITY));
    let usable = b.and(positive, finite);
    let y = b.select(usable, corrected, y);
    // -0 stays what it is.
    let zero = equals(b, x, 0.0);
    b.select(zero, x, y)
}

/// `log(1 + e^x)`, as `max(x, 0) + log1p(e^-|x|)`. At most 4 ulp.
pub fn softplus(b: &mut Builder, x: Value) -> Value {
    let a = b.abs(x);
    let a = b.neg(a);
    let e = exp(b, a);
    let tail = log1p(b, e);
    let zero = like(b, x, 0.0);
    let head = b.pmax(zero, x);
    b.add(head, tail)
}

/// `log(2 a)` for large `a`, where `2 a` might overflow.
fn log_twice(b: &mut Builder, a: Value) -> Value {
    let y = log(b, a);
    let ln2 = like(b, a, std::f64::consts::LN_2);
    b.add(y, ln2)
}

/// From here on `sqrt(x^2 + 1)` is `x` in `f64`.
const LARGE: f64 = 268_435_456.0;

/// The inverse hyperbolic sine, `log1p(|x| + x^2 / (1 + sqrt(1 + x^2)))`. At most 4 ulp.
pub fn asinh(b: &mut Builder, x: Value) -> Value {
    by_format(b, x, |b, x| {
        let a = b.abs(x);
        let one = like(b, x, 1.0);
        let square = b.mul(a, a);
        let root = b.add(square, one);
        let root = b.sqrt(root);
        let root = b.add(root, one);
        let quotient = b.div(square, root);
        let t = b.add(a, quotient);
        let (moderate, large) = (log1p(b, t), log_twice(b, a));
        let is_large = above(b, a, LARGE);
        let y = b.select(is_large, large, moderate);
        copysign(b, y, x)
    })
}

/// The inverse hyperbolic cosine, `log1p(t + sqrt(t (t + 2)))` with `t = x - 1`; NaN below 1. At most 4 ulp.
pub fn acosh(b: &mut Builder, x: Value) -> Value {
    by_format(b, x, |b, x| {
        let (one, two) = (like(b, x, 1.0), like(b, x, 2.0));
        let t = b.sub(x, one);
        let t2 = b.add(t, two);
        let product = b.mul(t, t2);
        let root = b.sqrt(product);
        let t = b.add(t, root);
        let (moderate, large) = (log1p(b, t), log_twice(b, x));
        let is_large = above(b, x, LARGE);
        let y = b.select(is_large, large, moderate);
        let inside = b.fcmp(FloatCc::Ge, x, one);
        let nan = nan(b, x);
        b.select(inside, y, nan)
    })
}

/// The inverse hyperbolic tangent, `log1p(2 a / (1 - a)) / 2`; infinite at 1, NaN beyond. At most 4 ulp.
pub fn atanh(b: &mut Builder, x: Value) -> Value {
    by_format(b, x, |b, x| {
        let a = b.abs(x);
        let (one, half) = (like(b, x, 1.0), like(b, x, 0.5));
        let twice = b.add(a, a);
        let rest = b.sub(one, a);
        let quotient = b.div(twice, rest);
        let y = log1p(b, quotient);
        let y = b.mul(y, half);
        copysign(b, y, x)
    })
}
