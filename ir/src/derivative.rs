//! Derivatives of pointwise programs: one rule for each primitive, and with them the gradient of every elementwise operator.
//!
//! ```text
//! y = f(x0, x1, ..)      derivative(f, k)  is the program   dxk = dy * (d f / d xk)   over the operands  x0, x1, .., y, dy
//!
//! relu:  y = max(x, 0)                    dx = y <= 0 ? 0 : dy              reads y only: x need not be kept
//! silu:  s = sigmoid x; y = x * s         dx = dy * s + x * (dy * (s * (1 - s)))     computes s again from x
//! ```
//!
//! Forward mode with `dy` as the seed: the tangent of each instruction follows from those of its operands and is linear in
//! `dy`. Unlike reverse mode this leaves a selection a selection: `x <= 0 ? e^x : 1` never multiplies the overflow of the
//! branch that is not taken by 0, which would be NaN. Where a rule has the choice it reads the function's value, and the value
//! of the whole program is the operand `y`, so that activations keep one tensor for the backward pass and compute
//! intermediate values again (a few instructions against a pass over memory).
//!
//! What is not differentiable follows PyTorch: `abs` has 0 at 0; rounding and `sign` have 0; a maximum or minimum of two equal
//! operands gives half to each; with a constant of the program (ReLU, hard sigmoid) it has 0 where they are equal; a selection
//! has the derivative of the branch that is taken. Integers and truth values have no tangent.

use crate::pointwise::{BinaryFn, CompareFn, Inst, Ref, UnaryFn};
use crate::{DType, Pointwise};
use std::f64::consts::FRAC_2_SQRT_PI;

/// The program of the gradient of operand `k`: its operands are those of `p`, then the result of `p`, then the gradient of
/// that result. `None` where the result does not depend on the operand, or only in steps.
pub fn derivative(p: &Pointwise, k: usize) -> Option<Pointwise> {
    let types = [p.inputs(), &[p.result_type(); 2]].concat();
    if !p.inputs()[k].is_float() || !p.result_type().is_float() {
        return None;
    }
    let mut out = Pointwise::new(&types);
    let (y, dy) = (out.input(types.len() - 2), out.input(types.len() - 1));
    let seed = out.cast(dy, p.inputs()[k]);
    let mut d = Differentiator { p, out, values: Vec::new(), tangents: Vec::new(), y, k, seed };
    for (i, &(inst, ty)) in p.insts().iter().enumerate() {
        d.step(i, inst, ty);
    }
    let tangent = d.tangents[p.result().0 as usize]?;
    let result = d.out.cast(tangent, p.inputs()[k]);
    d.out.set_result(result);
    Some(d.out)
}

struct Differentiator<'a> {
    p: &'a Pointwise,
    out: Pointwise,
    /// What each instruction of `p` so far computes, in `out`.
    values: Vec<Ref>,
    /// Its derivative times the seed; `None` is 0.
    tangents: Vec<Option<Ref>>,
    y: Ref,
    k: usize,
    seed: Ref,
}

impl Differentiator<'_> {
    fn step(&mut self, i: usize, inst: Inst, ty: DType) {
        let at = |r: Ref| self.values[r.0 as usize];
        let value = match inst {
            _ if self.p.result().0 as usize == i => self.y,
            inst => self.out.push(inst.map_operands(at), ty),
        };
        self.values.push(value);
        let tangent = if ty.is_float() { self.tangent(inst, ty, value) } else { None };
        self.tangents.push(tangent);
    }

    fn tangent(&mut self, inst: Inst, ty: DType, v: Ref) -> Option<Ref> {
        let (value, tangent) = (|r: Ref| self.values[r.0 as usize], |r: Ref| self.tangents[r.0 as usize]);
        match inst {
            Inst::Input(n) if n as usize == self.k => Some(self.seed),
            Inst::Input(_) | Inst::Const(_) | Inst::Compare(..) => None,
            Inst::Unary(f, a) => {
                let (x, t) = (value(a), tangent(a)?);
                self.unary(f, x, v, t)
            }
            Inst::Binary(f, a, b) => {
                let is_const = |r: Ref| matches!(self.p.insts()[r.0 as usize].0, Inst::Const(_));
                let (constant, (x, y), (s, t)) =
                    ((is_const(a), is_const(b)), (value(a), value(b)), (tangent(a), tangent(b)));
                if s.is_none() && t.is_none() {
                    return None;
                }
                match f {
                    BinaryFn::Max | BinaryFn::Min => self.extreme(f, constant, [x, y, v], s, t),
                    BinaryFn::Pow => self.pow([x, y, v], constant.1.then(|| self.number(b)).flatten(), s, t),
                    _ => self.arithmetic(f, [x, y, v], s, t),
                }
            }
            Inst::Select { cond, then, otherwise } => {
                let (c, s, t) = (value(cond), tangent(then), tangent(otherwise));
                self.choice(c, s, t, ty)
            }
            Inst::Cast(a) => {
                let t = tangent(a)?;
                Some(self.out.cast(t, ty))
            }
        }
    }

    /// The number of a constant of the program.
    fn number(&self, r: Ref) -> Option<f64> {
        match self.p.insts()[r.0 as usize].0 {
            Inst::Const(crate::pointwise::Scalar::Float(x)) => Some(x),
            _ => None,
        }
    }

    fn mul(&mut self, a: Ref, b: Ref) -> Ref {
        self.out.binary(BinaryFn::Mul, a, b)
    }

    fn div(&mut self, a: Ref, b: Ref) -> Ref {
        self.out.binary(BinaryFn::Div, a, b)
    }

    /// `1 - x`.
    fn one_minus(&mut self, x: Ref) -> Ref {
        let one = self.out.constant(self.out.type_of(x), 1.0);
        self.out.binary(BinaryFn::Sub, one, x)
    }

    /// `x * x + c`.
    fn square_plus(&mut self, x: Ref, c: f64) -> Ref {
        let square = self.mul(x, x);
        self.out.binary_const(BinaryFn::Add, square, c)
    }

    fn zero_like(&mut self, ty: DType) -> Ref {
        self.out.constant(ty, 0.0)
    }

    /// A selection of tangents.
    fn choice(&mut self, cond: Ref, then: Option<Ref>, otherwise: Option<Ref>, ty: DType) -> Option<Ref> {
        if then == otherwise {
            return then;
        }
        let zero = self.zero_like(ty);
        Some(self.out.select(cond, then.unwrap_or(zero), otherwise.unwrap_or(zero)))
    }

    /// `f'(x) * t`, where `v = f(x)`.
    fn unary(&mut self, f: UnaryFn, x: Ref, v: Ref, t: Ref) -> Option<Ref> {
        Some(match f {
            UnaryFn::Neg => self.out.unary(UnaryFn::Neg, t),
            UnaryFn::Abs => {
                let sign = self.out.unary(UnaryFn::Sign, x);
                self.mul(t, sign)
            }
            UnaryFn::Reciprocal => {
                let square = self.mul(v, v);
                let d = self.mul(t, square);
                self.out.unary(UnaryFn::Neg, d)
            }
            UnaryFn::Sqrt => {
                let half = self.out.binary_const(BinaryFn::Mul, t, 0.5);
                self.div(half, v)
            }
            UnaryFn::Exp => self.mul(t, v),
            UnaryFn::Log => self.div(t, x),
            UnaryFn::Log1p => {
                let d = self.out.binary_const(BinaryFn::Add, x, 1.0);
                self.div(t, d)
            }
            UnaryFn::Sin => {
                let d = self.out.unary(UnaryFn::Cos, x);
                self.mul(t, d)
            }
            UnaryFn::Cos => {
                let d = self.out.unary(UnaryFn::Sin, x);
                let d = self.mul(t, d);
                self.out.unary(UnaryFn::Neg, d)
            }
            UnaryFn::Tan => {
                let d = self.square_plus(v, 1.0);
                self.mul(t, d)
            }
            UnaryFn::Asin | UnaryFn::Acos => {
                let square = self.mul(x, x);
                let rest = self.one_minus(square);
                let root = self.out.unary(UnaryFn::Sqrt, rest);
                let d = self.div(t, root);
                if f == UnaryFn::Acos { self.out.unary(UnaryFn::Neg, d) } else { d }
            }
            UnaryFn::Atan => {
                let d = self.square_plus(x, 1.0);
                self.div(t, d)
            }
            UnaryFn::Sinh => {
                let d = self.out.unary(UnaryFn::Cosh, x);
                self.mul(t, d)
            }
            UnaryFn::Cosh => {
                let d = self.out.unary(UnaryFn::Sinh, x);
                self.mul(t, d)
            }
            UnaryFn::Tanh => {
                let square = self.mul(v, v);
                let d = self.one_minus(square);
                self.mul(t, d)
            }
            UnaryFn::Asinh | UnaryFn::Acosh => {
                let square = self.square_plus(x, if f == UnaryFn::Asinh { 1.0 } else { -1.0 });
                let root = self.out.unary(UnaryFn::Sqrt, square);
                self.div(t, root)
            }
            UnaryFn::Atanh => {
                let square = self.mul(x, x);
                let d = self.one_minus(square);
                self.div(t, d)
            }
            UnaryFn::Sigmoid => {
                let rest = self.one_minus(v);
                let d = self.mul(v, rest);
                self.mul(t, d)
            }
            UnaryFn::Erf => {
                let square = self.mul(x, x);
                let d = self.out.unary(UnaryFn::Neg, square);
                let d = self.out.unary(UnaryFn::Exp, d);
                let d = self.out.binary_const(BinaryFn::Mul, d, FRAC_2_SQRT_PI);
                self.mul(t, d)
            }
            UnaryFn::Sign
            | UnaryFn::Floor
            | UnaryFn::Ceil
            | UnaryFn::Round
            | UnaryFn::IsNan
            | UnaryFn::IsInf
            | UnaryFn::Not
            | UnaryFn::BitNot => return None,
        })
    }

    /// Sums, products, quotients and remainders; `s` and `t` are the tangents of `x` and `y`.
    fn arithmetic(&mut self, f: BinaryFn, [x, y, v]: [Ref; 3], s: Option<Ref>, t: Option<Ref>) -> Option<Ref> {
        let (s, t) = match f {
            BinaryFn::Add => (s, t),
            BinaryFn::Sub => (s, t.map(|t| self.out.unary(UnaryFn::Neg, t))),
            BinaryFn::Mul => (s.map(|s| self.mul(s, y)), t.map(|t| self.mul(t, x))),
            BinaryFn::Div => {
                let by_divisor = t.map(|t| {
                    let d = self.div(v, y);
                    let d = self.mul(t, d);
                    self.out.unary(UnaryFn::Neg, d)
                });
                (s.map(|s| self.div(s, y)), by_divisor)
            }
            // x - y * q with the whole quotient q, which is constant between its jumps.
            BinaryFn::Mod | BinaryFn::Fmod => {
                let by_divisor = t.map(|t| {
                    let q = self.div(x, y);
                    let floor = self.out.unary(UnaryFn::Floor, q);
                    let whole = if f == BinaryFn::Mod {
                        floor
                    } else {
                        let ceil = self.out.unary(UnaryFn::Ceil, q);
                        let zero = self.zero_like(self.out.type_of(q));
                        let negative = self.out.compare(CompareFn::Lt, q, zero);
                        self.out.select(negative, ceil, floor)
                    };
                    let d = self.mul(t, whole);
                    self.out.unary(UnaryFn::Neg, d)
                });
                (s, by_divisor)
            }
            _ => return None, // logic and bits have no floats
        };
        match (s, t) {
            (Some(s), Some(t)) => Some(self.out.binary(BinaryFn::Add, s, t)),
            (s, t) => s.or(t),
        }
    }

    /// `x^y`: `y x^(y-1)` by the base, also for `y = 0` where `x^-1` may be infinite; `x^y ln x` by the exponent, and 0 for
    /// `0^y` with `y >= 0`.
    fn pow(&mut self, [x, y, v]: [Ref; 3], exponent: Option<f64>, s: Option<Ref>, t: Option<Ref>) -> Option<Ref> {
        let ty = self.out.type_of(x);
        let by_base = s.and_then(|s| match exponent {
            Some(0.0) => None,
            Some(1.0) => Some(s),
            Some(2.0) => {
                let d = self.out.binary_const(BinaryFn::Mul, x, 2.0);
                Some(self.mul(s, d))
            }
            Some(n) => {
                let power = if n == 3.0 { self.mul(x, x) } else { self.out.binary_const(BinaryFn::Sub, y, 1.0) };
                let power = if n == 3.0 { power } else { self.out.binary(BinaryFn::Pow, x, power) };
                let d = self.out.binary_const(BinaryFn::Mul, power, n);
                Some(self.mul(s, d))
            }
            None => {
                let less = self.out.binary_const(BinaryFn::Sub, y, 1.0);
                let power = self.out.binary(BinaryFn::Pow, x, less);
                let d = self.mul(y, power);
                let d = self.mul(s, d);
                let zero = self.zero_like(ty);
                let flat = self.out.compare(CompareFn::Eq, y, zero);
                Some(self.out.select(flat, zero, d))
            }
        });
        let by_exponent = t.map(|t| {
            let log = self.out.unary(UnaryFn::Log, x);
            let d = self.mul(v, log);
            let d = self.mul(t, d);
            let zero = self.zero_like(ty);
            let at_zero = self.out.compare(CompareFn::Eq, x, zero);
            let grows = self.out.compare(CompareFn::Ge, y, zero);
            let flat = self.out.binary(BinaryFn::And, at_zero, grows);
            self.out.select(flat, zero, d)
        });
        match (by_base, by_exponent) {
            (Some(s), Some(t)) => Some(self.out.binary(BinaryFn::Add, s, t)),
            (s, t) => s.or(t),
        }
    }

    /// A maximum or minimum, whose value is `v`. With a constant the comparison is with the value, so that x is not read; it
    /// is written so that a NaN lets the tangent through.
    fn extreme(
        &mut self,
        f: BinaryFn,
        (left, right): (bool, bool),
        [x, y, v]: [Ref; 3],
        s: Option<Ref>,
        t: Option<Ref>,
    ) -> Option<Ref> {
        let ty = self.out.type_of(x);
        let max = f == BinaryFn::Max;
        if left || right {
            let (bound, tangent) = if left { (x, t) } else { (y, s) };
            let at_bound = self.out.compare(if max { CompareFn::Le } else { CompareFn::Ge }, v, bound);
            return self.choice(at_bound, None, tangent, ty);
        }
        let first = self.out.compare(if max { CompareFn::Gt } else { CompareFn::Lt }, x, y);
        let equal = self.out.compare(CompareFn::Eq, x, y);
        let mut half = |t: Option<Ref>| t.map(|t| self.out.binary_const(BinaryFn::Mul, t, 0.5));
        let both = match (half(s), half(t)) {
            (Some(s), Some(t)) => Some(self.out.binary(BinaryFn::Add, s, t)),
            (s, t) => s.or(t),
        };
        let strict = self.choice(first, s, t, ty);
        self.choice(equal, both, strict, ty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::eval_program;
    use crate::{DType, Tensor};

    fn scalar(x: f64) -> Tensor {
        Tensor::from_f64(DType::F64, &[], &[x])
    }

    /// The derivative of `p` by operand `k` at a point, by the derived program.
    fn at(p: &Pointwise, k: usize, x: &[f64]) -> f64 {
        let mut operands: Vec<Tensor> = x.iter().map(|&x| scalar(x)).collect();
        let y = eval_program(p, &operands.iter().collect::<Vec<_>>()).unwrap();
        let Some(d) = derivative(p, k) else { return 0.0 };
        d.check().unwrap();
        operands.extend([y, scalar(1.0)]);
        eval_program(&d, &operands.iter().collect::<Vec<_>>()).unwrap().to_f64()[0]
    }

    fn by_differences(p: &Pointwise, k: usize, x: &[f64]) -> f64 {
        let f = |h: f64| {
            let operands: Vec<Tensor> = (0..x.len()).map(|i| scalar(if i == k { x[i] + h } else { x[i] })).collect();
            eval_program(p, &operands.iter().collect::<Vec<_>>()).unwrap().to_f64()[0]
        };
        (f(1e-6) - f(-1e-6)) / 2e-6
    }

    #[test]
    fn every_primitive_agrees_with_finite_differences() {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-7 * (1.0 + b.abs());
        for &f in UnaryFn::ALL.iter().filter(|f| f.takes(DType::F64)) {
            let p = Pointwise::build(&[DType::F64], |p, x| p.unary(f, x[0]));
            // Both signs, but within every function's domain.
            let points: &[f64] = if f == UnaryFn::Acosh { &[1.3, 2.5] } else { &[-0.63, 0.37, 0.81] };
            for &x in points {
                let (exact, numeric) = (at(&p, 0, &[x]), by_differences(&p, 0, &[x]));
                assert!(close(exact, numeric) || numeric.is_nan(), "{f}({x}): {exact}, not {numeric}");
            }
        }
        for &f in BinaryFn::ALL.iter().filter(|f| f.takes(DType::F64)) {
            let p = Pointwise::build(&[DType::F64; 2], |p, x| p.binary(f, x[0], x[1]));
            for x in [[0.7, 0.3], [2.9, -1.1], [0.2, 1.7]] {
                for k in 0..2 {
                    let (exact, numeric) = (at(&p, k, &x), by_differences(&p, k, &x));
                    assert!(close(exact, numeric), "{f}({x:?}) by operand {k}: {exact}, not {numeric}");
                }
            }
        }
    }

    #[test]
    fn kinks_are_pytorchs() {
        let relu = Pointwise::build(&[DType::F64], |p, x| p.binary_const(BinaryFn::Max, x[0], 0.0));
        assert_eq!([-1.0, 0.0, 1.0].map(|x| at(&relu, 0, &[x])), [0.0, 0.0, 1.0]);
        assert_eq!(at(&relu, 0, &[f64::NAN]), 1.0); // dy itself
        let max = Pointwise::build(&[DType::F64; 2], |p, x| p.binary(BinaryFn::Max, x[0], x[1]));
        assert_eq!((at(&max, 0, &[2.0, 2.0]), at(&max, 1, &[2.0, 2.0]), at(&max, 1, &[1.0, 2.0])), (0.5, 0.5, 1.0));
        let abs = Pointwise::build(&[DType::F64], |p, x| p.unary(UnaryFn::Abs, x[0]));
        assert_eq!(at(&abs, 0, &[0.0]), 0.0);
        let pow = Pointwise::build(&[DType::F64; 2], |p, x| p.binary(BinaryFn::Pow, x[0], x[1]));
        assert_eq!((at(&pow, 0, &[0.0, 0.0]), at(&pow, 1, &[0.0, 2.0])), (0.0, 0.0));
    }

    /// The branch that is not taken overflows: multiplied by 0 it would be NaN.
    #[test]
    fn a_selection_stays_one() {
        let elu = crate::ops::activation::Elu { alpha: 1.0 };
        let ty = crate::TensorType::fixed(DType::F64, &[]);
        let p = crate::Operator::pointwise(&elu, &[&ty]).unwrap();
        assert_eq!(at(&p, 0, &[1e4]), 1.0);
    }

    #[test]
    fn the_gradient_of_relu_reads_only_the_result() {
        let relu = Pointwise::build(&[DType::F32], |p, x| p.binary_const(BinaryFn::Max, x[0], 0.0));
        let (program, read) = derivative(&relu, 0).unwrap().pruned();
        assert_eq!((program.inputs().len(), read), (2, vec![1, 2]));
    }

    #[test]
    fn conversions_change_the_type_of_the_gradient() {
        let to_f64 = Pointwise::build(&[DType::F32], |p, x| p.cast(x[0], DType::F64));
        let d = derivative(&to_f64, 0).unwrap();
        assert_eq!((d.inputs(), d.result_type()), (&[DType::F32, DType::F64, DType::F64][..], DType::F32));
        let to_int = Pointwise::build(&[DType::F32], |p, x| p.cast(x[0], DType::I32));
        assert_eq!(derivative(&to_int, 0), None);
    }
}
