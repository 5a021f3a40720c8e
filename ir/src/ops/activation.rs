//! Activation functions: elementwise operators that are a few primitives each.
//!
//! The formula of an operator is its [`Pointwise`] program, and there is no other definition: the reference evaluator
//! interprets it and code generation emits it. Constants are rounded to the element type, as ONNX's attributes are f32.
//! Sigmoid, Tanh and other primitives are [`crate::ops::elementwise::Unary`].

use crate::broadcast::{broadcast_shapes, eval_pointwise, infer_elementwise};
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::operands::one_dtype;
use crate::pointwise::{BinaryFn, CompareFn, Ref, UnaryFn};
use crate::{DType, GradientCx, GradientError, Pointwise, Tensor, TensorType, operator_attrs, type_err};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

operator_attrs! {
    /// `max(x, 0)`; NaN stays NaN. Any number type. Source: ONNX Relu-14.
    pub struct Relu {}
}

operator_attrs! {
    /// `x < 0 ? alpha * x : x`. Source: ONNX LeakyRelu-16.
    pub struct LeakyRelu {
        /// The slope of the negative half.
        pub alpha: f64,
    }
}

operator_attrs! {
    /// `(x, slope)`: `x < 0 ? slope * x : x`; slope broadcasts to the shape of x. Any number type. Source: ONNX PRelu-16.
    pub struct PRelu {}
}

operator_attrs! {
    /// `x < 0 ? alpha * (e^x - 1) : x`. Source: ONNX Elu-22.
    pub struct Elu {
        /// Minus the limit at minus infinity.
        pub alpha: f64,
    }
}

operator_attrs! {
    /// `gamma * (x <= 0 ? alpha * e^x - alpha : x)`. Source: ONNX Selu-22.
    pub struct Selu {
        /// The factor of the exponential.
        pub alpha: f64,
        /// The factor of everything.
        pub gamma: f64,
    }
}

operator_attrs! {
    /// `max(0, x) + min(0, alpha * (e^(x / alpha) - 1))`. Source: ONNX Celu-12.
    pub struct Celu {
        /// Where the exponential bends; not 0.
        pub alpha: f64,
    }
}

operator_attrs! {
    /// `x > alpha ? x : 0`. Source: ONNX ThresholdedRelu-22.
    pub struct ThresholdedRelu {
        /// The threshold.
        pub alpha: f64,
    }
}

operator_attrs! {
    /// `max(0, min(1, alpha * x + beta))`. Source: ONNX HardSigmoid-22.
    pub struct HardSigmoid {
        /// The slope.
        pub alpha: f64,
        /// The value at 0.
        pub beta: f64,
    }
}

operator_attrs! {
    /// `x * max(0, min(1, x / 6 + 1/2))`. Source: ONNX HardSwish-22.
    pub struct HardSwish {}
}

operator_attrs! {
    /// `ln(1 + e^x)`, computed as `max(x, 0) + log1p(e^-|x|)`, which does not overflow. Source: ONNX Softplus-22.
    pub struct Softplus {}
}

operator_attrs! {
    /// `x / (1 + |x|)`. Source: ONNX Softsign-22.
    pub struct Softsign {}
}

operator_attrs! {
    /// `x * tanh(softplus(x))`. Source: ONNX Mish-22.
    pub struct Mish {}
}

operator_attrs! {
    /// `x/2 * (1 + erf(x / sqrt 2))`, or `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`. Source: ONNX Gelu-20.
    pub struct Gelu {
        /// Whether to use the second formula.
        pub approximate: bool,
    }
}

operator_attrs! {
    /// `x * sigmoid(x)`.
    pub struct Silu {}
}

operator_attrs! {
    /// `x * sigmoid(alpha * x)`. Source: ONNX Swish-24.
    pub struct Swish {
        /// The slope inside.
        pub alpha: f64,
    }
}

operator_attrs! {
    /// `x < -lambd ? x + bias : x > lambd ? x - bias : 0`. Integers are computed in f64 and truncated.
    /// Source: ONNX Shrink-9.
    pub struct Shrink {
        /// What large numbers move toward 0 by.
        pub bias: f64,
        /// Half the width of the part that becomes 0.
        pub lambd: f64,
    }
}

operator_attrs! {
    /// `(x, min?, max?)`: `min(max(x, min), max)`, so that max wins where the bounds cross; NaN stays NaN. Bounds are
    /// scalars of x's type (or broadcast to its shape). With an upper bound alone, the lower one is given as the type's
    /// lowest number. Any number type. Source: ONNX Clip-13.
    pub struct Clip {}
}

/// Implements an activation of one operand from its program.
macro_rules! activation {
    ($name:ident, $text:literal, $takes:expr, |$op:ident, $p:ident, $x:ident| $body:expr $(, gradient: $gradient:path)?) => {
        impl Operator for $name {
            const NAME: &'static str = $text;

            fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
                let [x] = infer_elementwise(inputs)?.operands;
                let takes: fn(DType) -> bool = $takes;
                if !takes(x.dtype) {
                    return type_err!("does not take {}", x.dtype);
                }
                Ok(vec![x.clone()])
            }

            fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
                eval_pointwise(self, inputs)
            }

            fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
                let [x] = inputs else { return None };
                let $op = self;
                Some(Pointwise::build(&[x.dtype], |$p, args| {
                    let $x = args[0];
                    $body
                }))
            }

            $(fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
                $gradient(cx)
            })?
        }
    };
}

fn number(t: DType) -> bool {
    t != DType::Bool
}

activation!(Relu, "relu", number, |_op, p, x| p.binary_const(BinaryFn::Max, x, 0.0));

activation!(LeakyRelu, "leaky_relu", DType::is_float, |op, p, x| {
    let scaled = p.binary_const(BinaryFn::Mul, x, op.alpha);
    left_else(p, x, scaled, x)
});

activation!(Elu, "elu", DType::is_float, |op, p, x| {
    let e = p.unary(UnaryFn::Exp, x);
    let e = p.binary_const(BinaryFn::Sub, e, 1.0);
    let e = p.binary_const(BinaryFn::Mul, e, op.alpha);
    left_else(p, x, e, x)
});

activation!(Selu, "selu", DType::is_float, |op, p, x| {
    let e = p.unary(UnaryFn::Exp, x);
    let e = p.binary_const(BinaryFn::Mul, e, op.alpha);
    let e = p.binary_const(BinaryFn::Sub, e, op.alpha);
    let y = left_else(p, x, e, x);
    p.binary_const(BinaryFn::Mul, y, op.gamma)
});

activation!(Celu, "celu", DType::is_float, |op, p, x| {
    // The exponential part has the sign of x whatever that of alpha: only one of the two parts is not 0.
    let e = p.binary_const(BinaryFn::Div, x, op.alpha);
    let e = p.unary(UnaryFn::Exp, e);
    let e = p.binary_const(BinaryFn::Sub, e, 1.0);
    let e = p.binary_const(BinaryFn::Mul, e, op.alpha);
    left_else(p, x, e, x)
});

activation!(ThresholdedRelu, "thresholded_relu", DType::is_float, |op, p, x| {
    let bound = p.constant(p.type_of(x), op.alpha);
    let above = p.compare(CompareFn::Gt, x, bound);
    let zero = p.constant(p.type_of(x), 0.0);
    p.select(above, x, zero)
});

activation!(HardSigmoid, "hard_sigmoid", DType::is_float, |op, p, x| hard_sigmoid(p, x, op.alpha, op.beta));

activation!(HardSwish, "hard_swish", DType::is_float, |_op, p, x| {
    let gate = hard_sigmoid(p, x, 1.0 / 6.0, 0.5);
    p.binary(BinaryFn::Mul, x, gate)
});

activation!(Softplus, "softplus", DType::is_float, |_op, p, x| softplus(p, x), gradient: softplus_gradient);

activation!(Softsign, "softsign", DType::is_float, |_op, p, x| {
    let d = p.unary(UnaryFn::Abs, x);
    let d = p.binary_const(BinaryFn::Add, d, 1.0);
    p.binary(BinaryFn::Div, x, d)
});

activation!(Mish, "mish", DType::is_float, |_op, p, x| {
    let s = softplus(p, x);
    let t = p.unary(UnaryFn::Tanh, s);
    p.binary(BinaryFn::Mul, x, t)
});

activation!(Gelu, "gelu", DType::is_float, |op, p, x| {
    let inner = if op.approximate {
        let square = p.binary(BinaryFn::Mul, x, x);
        let cubic = p.binary_const(BinaryFn::Mul, square, 0.044_715);
        let cubic = p.binary(BinaryFn::Mul, cubic, x);
        let sum = p.binary(BinaryFn::Add, x, cubic);
        // sqrt(2/pi) = (2/sqrt pi) / sqrt 2
        let scaled = p.binary_const(BinaryFn::Mul, sum, FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
        p.unary(UnaryFn::Tanh, scaled)
    } else {
        let scaled = p.binary_const(BinaryFn::Mul, x, FRAC_1_SQRT_2);
        p.unary(UnaryFn::Erf, scaled)
    };
    let gate = p.binary_const(BinaryFn::Add, inner, 1.0);
    let half = p.binary_const(BinaryFn::Mul, x, 0.5);
    p.binary(BinaryFn::Mul, half, gate)
});

activation!(Silu, "silu", DType::is_float, |_op, p, x| {
    let gate = p.unary(UnaryFn::Sigmoid, x);
    p.binary(BinaryFn::Mul, x, gate)
});

activation!(Swish, "swish", DType::is_float, |op, p, x| {
    let scaled = p.binary_const(BinaryFn::Mul, x, op.alpha);
    let gate = p.unary(UnaryFn::Sigmoid, scaled);
    p.binary(BinaryFn::Mul, x, gate)
});

activation!(Shrink, "shrink", number, |op, p, x| {
    let ty = p.type_of(x);
    let v = if ty.is_float() { x } else { p.cast(x, DType::F64) };
    let (low, high) = (p.constant(p.type_of(v), -op.lambd), p.constant(p.type_of(v), op.lambd));
    let below = p.compare(CompareFn::Lt, v, low);
    let above = p.compare(CompareFn::Gt, v, high);
    let up = p.binary_const(BinaryFn::Add, v, op.bias);
    let down = p.binary_const(BinaryFn::Sub, v, op.bias);
    let zero = p.constant(p.type_of(v), 0.0);
    let right = p.select(above, down, zero);
    let y = p.select(below, up, right);
    p.cast(y, ty)
});

/// `x <= 0 ? then : otherwise`, where both are 0 at 0: with the derivative of the left side there, as PyTorch has it.
fn left_else(p: &mut Pointwise, x: Ref, then: Ref, otherwise: Ref) -> Ref {
    let zero = p.constant(p.type_of(x), 0.0);
    let left = p.compare(CompareFn::Le, x, zero);
    p.select(left, then, otherwise)
}

fn hard_sigmoid(p: &mut Pointwise, x: Ref, alpha: f64, beta: f64) -> Ref {
    let y = p.binary_const(BinaryFn::Mul, x, alpha);
    let y = p.binary_const(BinaryFn::Add, y, beta);
    let y = p.binary_const(BinaryFn::Min, y, 1.0);
    p.binary_const(BinaryFn::Max, y, 0.0)
}

fn softplus(p: &mut Pointwise, x: Ref) -> Ref {
    let positive = p.binary_const(BinaryFn::Max, x, 0.0);
    let e = p.unary(UnaryFn::Abs, x);
    let e = p.unary(UnaryFn::Neg, e);
    let e = p.unary(UnaryFn::Exp, e);
    let tail = p.unary(UnaryFn::Log1p, e);
    p.binary(BinaryFn::Add, positive, tail)
}

/// `dy * sigmoid(x)`: the two kinks at 0 that the program has compensate each other, and their derivatives would not.
fn softplus_gradient(cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
    let (x, dy) = (cx.operand(0)?, cx.dy()?);
    cx.give(0, |cx| {
        cx.pointwise(&[x, dy], |p, v| {
            let slope = p.unary(UnaryFn::Sigmoid, v[0]);
            p.binary(BinaryFn::Mul, v[1], slope)
        })
    })
}

/// Types of operands of which the first gives the shape and the others broadcast to it.
fn infer_like_first(
    inputs: &[Option<&TensorType>],
    allowed: std::ops::RangeInclusive<usize>,
) -> Result<Vec<TensorType>, TypeError> {
    let given: Vec<&TensorType> = inputs.iter().copied().flatten().collect();
    if !allowed.contains(&given.len()) || inputs.iter().take(given.len()).any(Option::is_none) {
        return type_err!(
            "takes {} to {} operands without gaps, {} are given",
            allowed.start(),
            allowed.end(),
            given.len()
        );
    }
    let dtype = one_dtype(given.iter().copied())?;
    if !number(dtype) {
        return type_err!("does not take {dtype}");
    }
    let x = given[0];
    if broadcast_shapes(given.iter().map(|t| &t.shape[..]))?.len() != x.rank() {
        return type_err!("an operand of higher rank than the first does not broadcast to it");
    }
    for (t, operand) in given[1..].iter().zip(1..) {
        for (own, d) in x.shape.iter().rev().zip(t.shape.iter().rev()) {
            if own.known() == Some(1) && d.known().is_some_and(|d| d != 1) {
                return type_err!("operand {operand} of type {t} does not broadcast to {x}");
            }
        }
    }
    Ok(vec![x.clone()])
}

impl Operator for PRelu {
    const NAME: &'static str = "prelu";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        infer_like_first(inputs, 2..=2)
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_pointwise(self, inputs)
    }

    fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
        let [x, slope] = inputs else { return None };
        Some(Pointwise::build(&[x.dtype, slope.dtype], |p, args| {
            let scaled = p.binary(BinaryFn::Mul, args[0], args[1]);
            left_else(p, args[0], scaled, args[0])
        }))
    }
}

impl Operator for Clip {
    const NAME: &'static str = "clip";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        infer_like_first(inputs, 1..=3)
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_pointwise(self, inputs)
    }

    fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
        let types: Vec<DType> = inputs.iter().map(|t| t.dtype).collect();
        (1..=3).contains(&types.len()).then(|| {
            Pointwise::build(&types, |p, args| {
                let low = args.get(1).map_or(args[0], |&min| p.binary(BinaryFn::Max, args[0], min));
                args.get(2).map_or(low, |&max| p.binary(BinaryFn::Min, low, max))
            })
        })
    }

    /// dy between the bounds, 0 at them and beyond, as PyTorch's `hardtanh` and `relu6` (its `clamp` differs at the bounds
    /// themselves): that can be seen from the result alone, so that x need not be kept. Bounds stop the gradient.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        if cx.wants(1) || cx.wants(2) {
            return Err(GradientError::Unsupported(Some("bounds cannot be learnt; compose Max and Min, which can")));
        }
        let (y, dy, min, max) = (cx.result(0), cx.dy()?, cx.optional(1), cx.optional(2));
        let values: Vec<_> = [Some(y), Some(dy), min, max].into_iter().flatten().collect();
        cx.give(0, |cx| {
            cx.pointwise(&values, |p, v| {
                let (mut d, zero) = (v[1], p.constant(p.type_of(v[1]), 0.0));
                let bounds = [(CompareFn::Le, min), (CompareFn::Ge, max)].into_iter().filter(|(_, b)| b.is_some());
                for ((at, _), &bound) in bounds.zip(&v[2..]) {
                    let outside = p.compare(at, v[0], bound);
                    d = p.select(outside, zero, d);
                }
                d
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(op: impl Operator, x: f64) -> f64 {
        op.eval(&[Some(&Tensor::from_f64(DType::F64, &[], &[x]))]).unwrap()[0].to_f64()[0]
    }

    #[test]
    fn values_by_hand() {
        assert_eq!(at(Relu {}, -2.0), 0.0);
        assert!(at(Relu {}, f64::NAN).is_nan());
        assert_eq!(at(LeakyRelu { alpha: 0.5 }, -2.0), -1.0);
        assert_eq!(at(Elu { alpha: 2.0 }, f64::NEG_INFINITY), -2.0);
        assert_eq!(at(Selu { alpha: 2.0, gamma: 3.0 }, f64::NEG_INFINITY), -6.0);
        assert_eq!(at(Celu { alpha: 2.0 }, f64::NEG_INFINITY), -2.0);
        assert_eq!(at(ThresholdedRelu { alpha: 1.0 }, 1.0), 0.0);
        assert_eq!(at(HardSigmoid { alpha: 0.25, beta: 0.5 }, 1.0), 0.75);
        assert_eq!(at(HardSwish {}, 3.0), 3.0);
        assert_eq!(at(Softsign {}, -1.0), -0.5);
        assert_eq!(at(Shrink { bias: 1.0, lambd: 1.5 }, -2.0), -1.0);
        assert_eq!(at(Shrink { bias: 1.0, lambd: 1.5 }, 1.5), 0.0);
        assert_eq!((at(Softplus {}, 1000.0), at(Softplus {}, -1000.0)), (1000.0, 0.0));
        assert!((at(Softplus {}, 0.0) - 2f64.ln()).abs() < 1e-15);
        assert!((at(Mish {}, 1.0) - 0.865_098_388_267_310_3).abs() < 1e-15);
        assert!((at(Gelu { approximate: false }, 1.0) - 0.841_344_746_068_542_9).abs() < 1e-14);
        assert!((at(Gelu { approximate: true }, 1.0) - 0.841_191_990_608_276_7).abs() < 1e-14);
        assert_eq!(at(Swish { alpha: 1.0 }, 0.7), at(Silu {}, 0.7));
    }

    #[test]
    fn bounds_that_cross_give_the_upper_one() {
        let s = |x: f64| Tensor::from_f64(DType::I8, &[], &[x]);
        let y = Clip {}.eval(&[Some(&s(0.0)), Some(&s(5.0)), Some(&s(3.0))]).unwrap();
        assert_eq!(y[0], s(3.0));
    }

    #[test]
    fn slopes_broadcast_one_way() {
        let (x, s) = (TensorType::fixed(DType::F32, &[2, 1, 4]), TensorType::fixed(DType::F32, &[3, 1]));
        assert!(PRelu {}.infer(&[Some(&x), Some(&s)]).is_err());
        assert!(PRelu {}.infer(&[Some(&s), Some(&x)]).is_err());
        assert!(PRelu {}.infer(&[Some(&TensorType::fixed(DType::F32, &[2, 3, 4])), Some(&s)]).is_ok());
        assert!(Clip {}.infer(&[Some(&x), None, Some(&TensorType::fixed(DType::F32, &[]))]).is_err());
    }
}
