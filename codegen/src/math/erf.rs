//! The error function.
//!
//! Up to 0.9, `erf x = x + x P(x^2)`; beyond, `erf x = 1 - e^-Q(|x|)` with `Q = -log erfc` as a polynomial around the middle
//! of the interval in which erf is not yet 1. There `erfc < 0.21`, so that its own error counts a fifth or less.

use super::coefficients::{ERF_F32, ERF_F64, ERFC_F32, ERFC_F64};
use super::exp::exp_normal;
use super::{below, format, like, polynomial, with_sign};
use crate::kir::{Builder, Elem, Value};

/// `2 / sqrt(pi)` times the integral of `e^(-t^2)` from 0 to `x`. At most 4 ulp.
pub fn erf(b: &mut Builder, x: Value) -> Value {
    let (near, far, center, edge): (&[f64], &[f64], f64, f64) = match format(b, x).elem {
        Elem::F32 => (&ERF_F32, &ERFC_F32, 2.4, 4.0),
        _ => (&ERF_F64, &ERFC_F64, 3.4, 6.0),
    };
    let z = b.mul(x, x);
    let p = polynomial(b, z, near);
    let small = b.mul_add(x, p, x);

    let a = b.abs(x);
    let edge = like(b, x, edge);
    let t = b.pmin(edge, a);
    let center = like(b, x, center);
    let t = b.sub(t, center);
    let negative: Vec<f64> = far.iter().map(|c| -c).collect();
    let q = polynomial(b, t, &negative);
    let e = exp_normal(b, q);
    let one = like(b, x, 1.0);
    let large = b.sub(one, e);
    let large = with_sign(b, large, x);

    let is_small = below(b, a, 0.9);
    b.select(is_small, small, large)
}
