//! Softmax and its relatives: exponentials along one axis, scaled to sum to 1.
//!
//! ```text
//! softmax:      y[i] = exp(x[i] - m) / sum_j exp(x[j] - m)         m = max_j x[j], along `axis`
//! log_softmax:  y[i] = x[i] - m - ln(sum_j exp(x[j] - m))
//! hardmax:      y[i] = 1 at the first i with x[i] = m, else 0      (a NaN counts as the maximum, as in numpy.argmax)
//! ```
//!
//! Subtracting `m` is the identity in exact arithmetic and keeps `exp` from overflowing. A row of -inf gives NaN, as in
//! PyTorch. Each is `x: T[..] -> T[..]` of the same shape, T in f32, f64. Opsets before 13 flatten to two axes first: the
//! importer rewrites them. Sources: ONNX Softmax-13, LogSoftmax-13, Hardmax-13.

use crate::batch::{BatchCx, Batched};
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::operands::{around, axis_of, one_float, operands, output_dims, tensors};
use crate::ops::reduce::ReduceKind;
use crate::pointwise::{BinaryFn, UnaryFn};
use crate::{GradientCx, GradientError, Tensor, TensorType, operator_attrs};

operator_attrs! {
    /// See the [module](self).
    pub struct Softmax {
        /// Along which.
        pub axis: usize,
    }
}

operator_attrs! {
    /// See the [module](self).
    pub struct LogSoftmax {
        /// Along which.
        pub axis: usize,
    }
}

operator_attrs! {
    /// See the [module](self).
    pub struct Hardmax {
        /// Along which.
        pub axis: usize,
    }
}

fn infer_along(axis: usize, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
    let ([x], []) = operands(inputs)?;
    one_float([x])?;
    axis_of(axis, x)?;
    Ok(vec![x.clone()])
}

/// Replaces each line along `axis` by what `f` makes of it.
fn eval_along(
    op: &impl Operator,
    axis: usize,
    inputs: &[Option<&Tensor>],
    f: impl Fn(&mut [f64]),
) -> Result<Vec<Tensor>, EvalError> {
    let dims = output_dims(op, inputs)?;
    let ([x], []) = tensors(inputs)?;
    let (outer, n, inner) = around(&dims, axis);
    let mut v = x.to_f64();
    let mut line = vec![0.0; n];
    let outer = if v.is_empty() { 0 } else { outer };
    for start in (0..outer).flat_map(|o| (0..inner).map(move |i| o * n * inner + i)) {
        line.iter_mut().zip(v[start..].iter().step_by(inner)).for_each(|(l, x)| *l = *x);
        f(&mut line);
        v[start..].iter_mut().step_by(inner).zip(&line).for_each(|(x, l)| *x = *l);
    }
    Ok(vec![Tensor::from_f64(x.dtype(), &dims, &v)])
}

fn maximum(line: &[f64]) -> f64 {
    line.iter().copied().fold(f64::NEG_INFINITY, |m, x| if m.is_nan() || x.is_nan() { f64::NAN } else { m.max(x) })
}

impl Operator for Softmax {
    const NAME: &'static str = "softmax";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        infer_along(self.axis, inputs)
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_along(self, self.axis, inputs, |line| {
            let m = maximum(line);
            line.iter_mut().for_each(|x| *x = (*x - m).exp());
            let sum: f64 = line.iter().sum();
            line.iter_mut().for_each(|x| *x /= sum);
        })
    }

    /// `dx = y * (dy - sum(y * dy))`.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        cx.give(0, |cx| {
            let (y, dy) = (cx.result(0), cx.dy()?);
            let weighted = cx.mul(y, dy)?;
            let sum = cx.reduce(ReduceKind::Sum, weighted, &[self.axis], true)?;
            cx.pointwise(&[y, dy, sum], |p, v| {
                let rest = p.binary(BinaryFn::Sub, v[1], v[2]);
                p.binary(BinaryFn::Mul, v[0], rest)
            })
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis != self.axis)
    }
}

impl Operator for LogSoftmax {
    const NAME: &'static str = "log_softmax";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        infer_along(self.axis, inputs)
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_along(self, self.axis, inputs, |line| {
            let m = maximum(line);
            let log_sum = line.iter().map(|x| (x - m).exp()).sum::<f64>().ln();
            line.iter_mut().for_each(|x| *x = *x - m - log_sum);
        })
    }

    /// `dx = dy - e^y * sum(dy)`.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        cx.give(0, |cx| {
            let (y, dy) = (cx.result(0), cx.dy()?);
            let sum = cx.reduce(ReduceKind::Sum, dy, &[self.axis], true)?;
            cx.pointwise(&[y, dy, sum], |p, v| {
                let share = p.unary(UnaryFn::Exp, v[0]);
                let share = p.binary(BinaryFn::Mul, share, v[2]);
                p.binary(BinaryFn::Sub, v[1], share)
            })
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis != self.axis)
    }
}

impl Operator for Hardmax {
    const NAME: &'static str = "hardmax";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        infer_along(self.axis, inputs)
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_along(self, self.axis, inputs, |line| {
            let m = maximum(line);
            let at = line.iter().position(|&x| x == m || x.is_nan());
            line.fill(0.0);
            if let Some(i) = at {
                line[i] = 1.0;
            }
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis != self.axis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    fn eval(op: impl Operator, dims: &[usize], v: &[f64]) -> Vec<f64> {
        op.eval(&[Some(&Tensor::from_f64(DType::F64, dims, v))]).unwrap()[0].to_f64()
    }

    #[test]
    fn lines_along_either_axis() {
        let (l2, l3) = (2f64.ln(), 3f64.ln());
        let y = eval(Softmax { axis: 0 }, &[2, 2], &[0.0, 900.0, l3, 900.0 + l3]);
        y.iter().zip([0.25, 0.25, 0.75, 0.75]).for_each(|(a, b)| assert!((a - b).abs() < 1e-12));
        let y = eval(LogSoftmax { axis: 1 }, &[1, 2], &[-700.0, -700.0]);
        y.iter().for_each(|a| assert!((a + l2).abs() < 1e-12));
        assert_eq!(
            eval(Hardmax { axis: 1 }, &[2, 3], &[1.0, 5.0, 5.0, 0.0, f64::NAN, 9.0]),
            [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
        );
    }

    #[test]
    fn edges() {
        assert!(eval(Softmax { axis: 0 }, &[1], &[f64::NEG_INFINITY])[0].is_nan());
        assert_eq!(eval(Softmax { axis: 0 }, &[0, 3], &[]), [0.0; 0]);
        assert_eq!(eval(Hardmax { axis: 1 }, &[3, 0], &[]), [0.0; 0]);
        assert!(Softmax { axis: 0 }.infer(&[Some(&TensorType::fixed(DType::F32, &[]))]).is_err());
        assert!(Softmax { axis: 0 }.infer(&[Some(&TensorType::fixed(DType::I64, &[2]))]).is_err());
    }
}
