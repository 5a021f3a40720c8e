//! The power function, `e^(y log|x|)` with a sign.
//!
//! The relative error of the result is the absolute error of `y log|x|`, which reaches 745: an `f32` power takes the
//! logarithm in `f64`; an `f64` power needs it as a sum of two numbers, 2 atanh(s) with the first terms of its series in
//! double-double arithmetic (Dekker, 1971). Special cases are those of C's `pow` (C11, F.10.4.4).

use super::{above, below, clamp, equals, exp, format, in_f64, like, log, nan, polynomial, two_product, two_sum};
use crate::kir::{Builder, Elem, FloatCc, Value};

/// `x` to the power `y`, of the same type. At most 4 ulp.
pub fn pow(b: &mut Builder, x: Value, y: Value) -> Value {
    match format(b, x).elem {
        Elem::F64 => pow_f64(b, x, y, true),
        _ => in_f64(b, &[x, y], |b, v| pow_f64(b, v[0], v[1], false)),
    }
}

fn pow_f64(b: &mut Builder, x: Value, y: Value, precise: bool) -> Value {
    let a = b.abs(x);
    // Beyond 2^70 a power is 0, 1 or infinite already; infinities as such would make NaN of 0 * inf.
    let large = 2f64.powi(70);
    let bounded = clamp(b, y, -large, large);
    let magnitude = if precise {
        power_of_positive(b, a, bounded)
    } else {
        let l = log(b, a);
        let product = b.mul(bounded, l);
        exp(b, product)
    };

    // The sign: negative for a negative base (or -0) to an odd power.
    let half = like(b, x, 0.5);
    let halved = b.mul(y, half);
    let is_integer = |b: &mut Builder, v: Value| {
        let t = b.trunc(v);
        b.fcmp(FloatCc::Eq, t, v)
    };
    let (integer, even) = (is_integer(b, y), is_integer(b, halved));
    let not_even = b.not(even);
    let odd = b.and(integer, not_even);
    let negated = super::copysign(b, magnitude, x);
    let result = b.select(odd, negated, magnitude);

    // A negative finite base to a power that is no integer.
    let (negative, finite) = (below(b, x, 0.0), above(b, x, f64::NEG_INFINITY));
    let fractional = b.not(integer);
    let invalid = b.and(negative, finite);
    let invalid = b.and(invalid, fractional);
    let nan = nan(b, x);
    let result = b.select(invalid, nan, result);

    // NaN operands, except that 1^y and x^0 are 1.
    let unordered = b.fcmp(FloatCc::Unordered, x, y);
    let result = b.select(unordered, nan, result);
    let (base_one, power_zero) = (equals(b, x, 1.0), equals(b, y, 0.0));
    let is_one = b.or(base_one, power_zero);
    let one = like(b, x, 1.0);
    b.select(is_one, one, result)
}

/// `a^y` for `a >= 0` and finite `y`.
fn power_of_positive(b: &mut Builder, a: Value, y: Value) -> Value {
    let (high, low) = log_double(b, a);
    let (product, error) = two_product(b, y, high);
    let small = b.mul_add(y, low, error);
    // Tiny, except where the product is far outside of what the exponential tells apart.
    let small = clamp(b, small, -0.5, 0.5);
    // e^(p + s) = e^p (1 + s); e^p is 0 or infinite outside these bounds.
    let product = clamp(b, product, -747.0, 711.0);
    let e = exp(b, product);
    let one = like(b, a, 1.0);
    let factor = b.add(one, small);
    let power = b.mul(e, factor);
    // 0 and infinity have no logarithm.
    let (zero, y_negative) = (equals(b, a, 0.0), below(b, y, 0.0));
    let vanishes = b.xor(zero, y_negative);
    let (nothing, infinite) = (like(b, a, 0.0), like(b, a, f64::INFINITY));
    let limit = b.select(vanishes, nothing, infinite);
    let (positive, finite) = (above(b, a, 0.0), below(b, a, f64::INFINITY));
    let regular = b.and(positive, finite);
    b.select(regular, power, limit)
}

/// `log a` as a sum of two, for positive finite `a`; relative error about 2^-63.
fn log_double(b: &mut Builder, a: Value) -> (Value, Value) {
    let (e, f) = super::log::split(b, a);
    // s = f / (2 + f): quotient, then the remainder's.
    let two = like(b, a, 2.0);
    let (g, g_low) = two_sum(b, two, f);
    let s = b.div(f, g);
    let (p, p_error) = two_product(b, s, g);
    let r = b.sub(f, p);
    let r = b.sub(r, p_error);
    let correction = b.mul(s, g_low);
    let r = b.sub(r, correction);
    let s_low = b.div(r, g);
    // z = s^2.
    let (z, z_error) = two_product(b, s, s);
    let twice = b.add(s, s);
    let z_low = b.mul_add(twice, s_low, z_error);
    // q = 2/3 + 2/5 z + 2/7 z^2 + ..: the first term as two numbers. z <= 0.0295, so 13 terms reach 2^-66.
    let tail: Vec<f64> = (2..14).map(|k| 2.0 / f64::from(2 * k + 1)).collect();
    let w = polynomial(b, z, &tail);
    let w = b.mul(w, z);
    let two_thirds = like(b, a, 2.0 / 3.0);
    let (q, q_low) = two_sum(b, two_thirds, w);
    let two_thirds_low = like(b, a, 3.700_743_415_417_188e-17);
    let q_low = b.add(q_low, two_thirds_low);
    // s z q, each product with its error.
    let (zq, error) = two_product(b, z, q);
    let cross = b.mul(z, q_low);
    let cross = b.mul_add(z_low, q, cross);
    let zq_low = b.add(error, cross);
    let (szq, error) = two_product(b, s, zq);
    let cross = b.mul(s, zq_low);
    let cross = b.mul_add(s_low, zq, cross);
    let szq_low = b.add(error, cross);
    // log m = 2 s + s z q; then e log 2, whose high part is exact.
    let (m, m_error) = two_sum(b, twice, szq);
    let twice_low = b.add(s_low, s_low);
    let m_low = b.add(twice_low, szq_low);
    let m_low = b.add(m_low, m_error);
    let (ln2, ln2_low) = (like(b, a, super::F64.ln2_high), like(b, a, super::F64.ln2_low));
    let shift = b.mul(e, ln2);
    let (high, error) = two_sum(b, shift, m);
    let low = b.add(m_low, error);
    let low = b.mul_add(e, ln2_low, low);
    let sum = b.add(high, low);
    let kept = b.sub(sum, high);
    (sum, b.sub(low, kept))
}
