//! asin, acos, atan, in `f64` for both formats.
//!
//! asin and acos near 1 go through `asin x = pi/2 - 2 asin(sqrt((1 - x) / 2))`; atan through `atan x = pi/4 + atan((x - 1) /
//! (x + 1))` and `pi/2 - atan(1 / x)`. What is left is a polynomial. pi/2 and pi/4 are sums of two numbers.

use super::coefficients::{ASIN, ATAN, HALF_PI};
use super::{above, below, by_format, copysign, like, polynomial};
use crate::kir::{Builder, Value};

/// `asin` of `|x|` up to 1/2; above, of `sqrt((1 - |x|) / 2)`; and which it is. NaN outside -1..1.
fn asin_core(b: &mut Builder, x: Value) -> (Value, Value) {
    let a = b.abs(x);
    let (one, half) = (like(b, x, 1.0), like(b, x, 0.5));
    let large = above(b, a, 0.5);
    let rest = b.sub(one, a);
    let halved = b.mul(rest, half);
    let square = b.mul(a, a);
    let z = b.select(large, halved, square);
    let root = b.sqrt(halved);
    let s = b.select(large, root, a);
    let p = polynomial(b, z, &ASIN);
    let sz = b.mul(s, z);
    (b.mul_add(sz, p, s), large)
}

/// `turns * pi/2 - v`.
fn from_half_pi(b: &mut Builder, turns: f64, v: Value) -> Value {
    let (high, low) = (like(b, v, turns * HALF_PI[0]), like(b, v, turns * HALF_PI[1]));
    let v = b.sub(v, low);
    b.sub(high, v)
}

/// The inverse sine; NaN outside -1..1. At most 4 ulp.
pub fn asin(b: &mut Builder, x: Value) -> Value {
    by_format(b, x, |b, x| {
        let (p, large) = asin_core(b, x);
        let twice = b.add(p, p);
        let near_one = from_half_pi(b, 1.0, twice);
        let y = b.select(large, near_one, p);
        copysign(b, y, x)
    })
}

/// The inverse cosine; NaN outside -1..1. At most 4 ulp.
pub fn acos(b: &mut Builder, x: Value) -> Value {
    by_format(b, x, |b, x| {
        let (p, large) = asin_core(b, x);
        let twice = b.add(p, p);
        let signed = copysign(b, p, x);
        let middle = from_half_pi(b, 1.0, signed);
        let near_minus_one = from_half_pi(b, 2.0, twice);
        let negative = below(b, x, 0.0);
        let near_one = b.select(negative, near_minus_one, twice);
        b.select(large, near_one, middle)
    })
}

/// The inverse tangent. At most 4 ulp.
pub fn atan(b: &mut Builder, x: Value) -> Value {
    by_format(b, x, |b, x| {
        const TAN_PI_8: f64 = std::f64::consts::SQRT_2 - 1.0;
        let a = b.abs(x);
        let (one, minus_one, zero) = (like(b, x, 1.0), like(b, x, -1.0), like(b, x, 0.0));
        let (middle, large) = (above(b, a, TAN_PI_8), above(b, a, TAN_PI_8 + 2.0));
        let (below_one, above_one) = (b.sub(a, one), b.add(a, one));
        let ratio = b.div(below_one, above_one);
        let inverse = b.div(minus_one, a);
        let pick = |b: &mut Builder, small: Value, mid: Value, big: Value| {
            let v = b.select(middle, mid, small);
            b.select(large, big, v)
        };
        let u = pick(b, a, ratio, inverse);
        let [high, low] = [0, 1].map(|i| {
            let (quarter, half) = (like(b, x, HALF_PI[i] / 2.0), like(b, x, HALF_PI[i]));
            pick(b, zero, quarter, half)
        });
        let z = b.mul(u, u);
        let p = polynomial(b, z, &ATAN);
        let uz = b.mul(u, z);
        let tail = b.mul_add(uz, p, low);
        let y = b.add(u, tail);
        let y = b.add(high, y);
        copysign(b, y, x)
    })
}
