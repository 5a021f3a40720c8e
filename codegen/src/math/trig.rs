//! sin, cos, tan, in `f64` for both formats.
//!
//! ```text
//! x = n pi/2 + r,   |r| <= pi/4 and a bit,   n mod 4 says which of +-sin r, +-cos r
//! ```
//!
//! Up to 2^50 in magnitude, `n pi/2` is subtracted as three exact products (Cody and Waite). An `f32` beyond that is reduced
//! after Payne and Hanek (1983): only the bits of 2/pi that the exponent leaves below 4 are multiplied; that code runs when
//! a lane needs it. An `f64` beyond 2^50 is not reduced exactly: its sine and cosine have no accuracy.

use super::coefficients::{COS, HALF_PI, SIN, TWO_OVER_PI};
use super::{
    F64, above, below, equals, format, from_small_int, in_f64, like, nan, polynomial, pow2, round_to_int, two_product,
    two_sum,
};
use crate::kir::{Builder, Elem, IntCc, Value};

/// Above this, `f32` arguments take the long way.
const HUGE: f64 = (1u64 << 50) as f64;

/// `n` (its low two bits count) and `r` as a sum of two.
type Reduced = [Value; 3];

fn reduce(b: &mut Builder, x: Value) -> Reduced {
    let two_over_pi = like(b, x, std::f64::consts::FRAC_2_PI);
    let quotient = b.mul(x, two_over_pi);
    let (q, n) = round_to_int(b, F64, quotient);
    let negated = b.neg(q);
    let [c1, c2, c3] = HALF_PI.map(|c| like(b, x, c));
    let (p1, e1) = two_product(b, negated, c1);
    let (p2, e2) = two_product(b, negated, c2);
    let r = b.add(x, p1); // exact: p1 is within a factor of 2 of -x, or 0
    let (r, l1) = two_sum(b, r, e1);
    let (r, l2) = two_sum(b, r, p2);
    let low = b.add(l1, l2);
    let low = b.add(low, e2);
    let low = b.mul_add(negated, c3, low);
    let high = b.add(r, low);
    let kept = b.sub(high, r);
    [n, high, b.sub(low, kept)]
}

/// Reduces values of at least 2^20 that have 24 significant bits, as those that came from `f32` have.
///
/// With `x = m 2^e`, m an integer of 24 bits, and 2/pi in words w of 24 bits, the term `m w[i] 2^(e - 24 (i + 1))` is exact.
/// Those that are multiples of 4 change nothing; the five after them leave an error of 2^-71.
fn reduce_huge(b: &mut Builder, x: Value) -> Reduced {
    let ty = b.ty(x);
    let a = b.abs(x);
    let bits = b.bitcast(a, Elem::I64);
    let int = b.ty(bits);
    let exponent = b.shr_u_imm(bits, 52);
    let e = b.add_imm(exponent, -1023 - 23);
    let fraction = b.int(int, (1 << 52) - 1);
    let fraction = b.and(bits, fraction);
    let with_exponent = b.int(int, (1023 + 23) << 52);
    let m = b.or(fraction, with_exponent);
    let m = b.bitcast(m, Elem::F64);

    // The first word that matters, as a mask for each one skipped; each divides the scale by 2^24.
    let e_float = from_small_int(b, F64, e);
    let skips = [26.0, 50.0, 74.0, 98.0].map(|from| above(b, e_float, from - 0.5));
    let e24 = b.add_imm(e, -24);
    let mut scale = pow2(b, F64, e24);
    for skip in skips {
        let down = like(b, x, 2f64.powi(-24));
        let one = like(b, x, 1.0);
        let factor = b.select(skip, down, one);
        scale = b.mul(scale, factor);
    }
    let mut terms = Vec::new();
    for k in 0..5 {
        let mut word = like(b, x, f64::from(TWO_OVER_PI[k]));
        for (i, &skip) in skips.iter().enumerate() {
            let later = like(b, x, f64::from(TWO_OVER_PI[k + i + 1]));
            word = b.select(skip, later, word);
        }
        let product = b.mul(m, word);
        terms.push(b.mul(product, scale));
        let down = like(b, x, 2f64.powi(-24));
        scale = b.mul(scale, down);
    }
    let modulo_4 = |b: &mut Builder, t: Value| {
        let (quarter, four) = (b.float(ty, 0.25), b.float(ty, -4.0));
        let quotient = b.mul(t, quarter);
        let quotient = b.floor(quotient);
        b.mul_add(quotient, four, t)
    };
    let (t0, t1) = (modulo_4(b, terms[0]), modulo_4(b, terms[1]));
    let head = b.add(t0, t1);
    let all = b.add(head, terms[2]);
    let (q, n) = round_to_int(b, F64, all);
    let rest = b.sub(head, q);
    let (high, low) = two_sum(b, rest, terms[2]);
    let tail = b.add(terms[3], terms[4]);
    let low = b.add(low, tail);
    let turn = b.add(high, low);
    let half_pi = like(b, x, HALF_PI[0]);
    let r = b.mul(turn, half_pi);
    // The result of a negative number is that of its magnitude, mirrored.
    let negative = below(b, x, 0.0);
    let (minus_r, minus_n) = (b.neg(r), b.neg(n));
    let zero = like(b, x, 0.0);
    [b.select(negative, minus_n, n), b.select(negative, minus_r, r), zero]
}

/// `sin(r + low)` on the reduced interval.
fn sin_reduced(b: &mut Builder, r: Value, low: Value) -> Value {
    let z = b.mul(r, r);
    let p = polynomial(b, z, &SIN);
    let (one, half) = (like(b, r, 1.0), like(b, r, -0.5));
    let slope = b.mul_add(z, half, one);
    let correction = b.mul(low, slope);
    let cube = b.mul(r, z);
    let rest = b.mul_add(cube, p, correction);
    b.add(r, rest)
}

/// `cos(r + low)` on the reduced interval; what `1 - r^2/2` loses is added back.
fn cos_reduced(b: &mut Builder, r: Value, low: Value) -> Value {
    let z = b.mul(r, r);
    let p = polynomial(b, z, &COS);
    let (one, half) = (like(b, r, 1.0), like(b, r, 0.5));
    let half_z = b.mul(z, half);
    let head = b.sub(one, half_z);
    let lost = b.sub(one, head);
    let lost = b.sub(lost, half_z);
    let z2 = b.mul(z, z);
    let tail = b.mul(z2, p);
    let linear = b.mul(r, low);
    let tail = b.sub(tail, linear);
    let tail = b.add(lost, tail);
    b.add(head, tail)
}

/// Which function of the quadrant.
#[derive(Clone, Copy)]
enum Of {
    Sin,
    Cos,
    Tan,
}

fn of_reduced(b: &mut Builder, of: Of, [n, r, low]: Reduced) -> Value {
    let n = if matches!(of, Of::Cos) { b.add_imm(n, 1) } else { n };
    let int = b.ty(n);
    let (one, zero) = (b.int(int, 1), b.int(int, 0));
    let parity = b.and(n, one);
    let odd = b.icmp(IntCc::Ne, parity, zero);
    let (s, c) = (sin_reduced(b, r, low), cos_reduced(b, r, low));
    if matches!(of, Of::Tan) {
        let minus_c = b.neg(c);
        let (numerator, denominator) = (b.select(odd, minus_c, s), b.select(odd, s, c));
        return b.div(numerator, denominator);
    }
    let v = b.select(odd, c, s);
    let two = b.int(int, 2);
    let half_turn = b.and(n, two);
    let sign = b.shl_imm(half_turn, 62);
    let v = b.bitcast(v, Elem::I64);
    let v = b.xor(v, sign);
    b.bitcast(v, Elem::F64)
}

fn trigonometric(b: &mut Builder, x: Value, of: Of) -> Value {
    let from_f32 = format(b, x).elem == Elem::F32;
    let in_f64_of = |b: &mut Builder, x: Value| {
        let mut reduced = reduce(b, x);
        let a = b.abs(x);
        if from_f32 {
            let huge = above(b, a, HUGE);
            let any = b.any(huge);
            let chosen = b.if_(
                any,
                |b| {
                    let long_way = reduce_huge(b, x);
                    (0..3).map(|i| b.select(huge, long_way[i], reduced[i])).collect()
                },
                |_| reduced.to_vec(),
            );
            reduced = [chosen[0], chosen[1], chosen[2]];
        }
        let y = of_reduced(b, of, reduced);
        let (finite, nan) = (below(b, a, f64::INFINITY), nan(b, x));
        let y = b.select(finite, y, nan);
        if matches!(of, Of::Cos) {
            return y;
        }
        // Odd functions keep the sign of zero.
        let zero = equals(b, x, 0.0);
        b.select(zero, x, y)
    };
    if from_f32 { in_f64(b, &[x], |b, x| in_f64_of(b, x[0])) } else { in_f64_of(b, x) }
}

/// The sine. At most 4 ulp (`f64`: up to 2^50 in magnitude).
pub fn sin(b: &mut Builder, x: Value) -> Value {
    trigonometric(b, x, Of::Sin)
}

/// The cosine. At most 4 ulp (`f64`: up to 2^50 in magnitude).
pub fn cos(b: &mut Builder, x: Value) -> Value {
    trigonometric(b, x, Of::Cos)
}

/// The tangent. At most 4 ulp (`f64`: up to 2^50 in magnitude).
pub fn tan(b: &mut Builder, x: Value) -> Value {
    trigonometric(b, x, Of::Tan)
}
