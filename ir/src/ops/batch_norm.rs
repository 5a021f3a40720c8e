//! Batch normalisation as it trains: by the statistics of the batch itself, which also move the running averages.
//!
//! ```text
//! mean[c] = sum x / n      var[c] = sum (x - mean)^2 / n         over batch and spatial axes, n elements a channel
//! y = (x - mean) / sqrt(var + epsilon) * scale + bias
//! running' = momentum * running + (1 - momentum) * (mean, or var * n / (n - 1) if `unbiased`, or var)
//! ```
//!
//! ONNX and PyTorch differ twice. ONNX's momentum is the share of the old average, PyTorch's (0.1 by default) that of the new
//! value: here it is ONNX's. ONNX averages the variance of the population, PyTorch the unbiased one: `unbiased` says which. Both
//! normalise by that of the population. With one element a channel there is no unbiased variance; that is an error, as in
//! PyTorch. The inference form is [`BatchNorm`](super::norm::BatchNorm).
//!
//! [`BatchNormTraining`] is the whole, which has the gradient. [`BatchNormStatistics`] is what it measures, down to one factor
//! and one addend a channel, with which the rest is elementwise: a pass takes the whole apart, so that normalising fuses with
//! what follows.
//!
//! Sources: Ioffe & Szegedy, Batch Normalization, 2015; ONNX BatchNormalization-15; torch.nn.BatchNorm2d.

use crate::op::{EvalError, Operator, TypeError};
use crate::ops::norm::{infer_per_channel, per_channel};
use crate::ops::operands::{output_dims, tensors};
use crate::ops::reduce::ReduceKind;
use crate::pointwise::BinaryFn;
use crate::{GradientCx, GradientError, Tensor, TensorType, operator_attrs, type_err};

operator_attrs! {
    /// `(x: T[N, C, ..], scale: T[C], bias: T[C], running_mean: T[C], running_var: T[C]) -> (y: T[N, C, ..], running_mean': T[C],
    /// running_var': T[C], mean: T[C], inverse: T[C])` with `inverse = 1 / sqrt(var + epsilon)`; the last two are for the gradient.
    /// An x of rank 1 has one channel. T in f32, f64.
    pub struct BatchNormTraining {
        /// Added to the variance.
        pub epsilon: f64,
        /// The share of the running averages that stays.
        pub momentum: f64,
        /// Whether the running variance averages unbiased variances.
        pub unbiased: bool,
    }
}

operator_attrs! {
    /// The operands of [`BatchNormTraining`] `-> (factor: T[C], addend: T[C], running_mean': T[C], running_var': T[C], mean: T[C],
    /// inverse: T[C])` with `factor = scale * inverse` and `addend = bias - mean * factor`, so that `y = x * factor + addend`.
    pub struct BatchNormStatistics {
        /// Added to the variance.
        pub epsilon: f64,
        /// The share of the running averages that stays.
        pub momentum: f64,
        /// Whether the running variance averages unbiased variances.
        pub unbiased: bool,
    }
}

impl From<&BatchNormTraining> for BatchNormStatistics {
    fn from(op: &BatchNormTraining) -> BatchNormStatistics {
        let BatchNormTraining { epsilon, momentum, unbiased } = *op;
        BatchNormStatistics { epsilon, momentum, unbiased }
    }
}

impl Operator for BatchNormStatistics {
    const NAME: &'static str = "batch_norm_statistics";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let x = infer_per_channel(inputs, ["scale", "bias", "running_mean", "running_var"], 1)?.remove(0);
        let vector = TensorType { dtype: x.dtype, shape: vec![x.shape.get(1).cloned().unwrap_or(1.into())] };
        let elements = x.shape.iter().enumerate().filter(|(a, _)| *a != 1).map(|(_, d)| d.size());
        if self.unbiased && elements.clone().all(|d| d == Some(1)) {
            return type_err!("one element a channel has no variance: x is {x}");
        }
        Ok(vec![vector; 6])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let vectors = output_dims(self, inputs)?;
        let ([x, scale, bias, running_mean, running_var], []) = tensors(inputs)?;
        let channels = vectors.iter().product::<usize>();
        let plane: usize = x.dims().iter().skip(2).product();
        let of = |i: usize| i / plane.max(1) % channels.max(1);
        let mut v = x.to_f64();
        let n = (v.len() / channels.max(1)) as f64;
        let average = |v: &[f64]| {
            let mut sums = vec![0.0; channels];
            v.iter().enumerate().for_each(|(i, x)| sums[of(i)] += x);
            sums.into_iter().map(|s| s / n).collect::<Vec<f64>>()
        };
        let mean = average(&v);
        v.iter_mut().enumerate().for_each(|(i, x)| *x -= mean[of(i)]);
        let var = average(&v.iter().map(|x| x * x).collect::<Vec<_>>());
        let inverse: Vec<f64> = var.iter().map(|v| 1.0 / (v + self.epsilon).sqrt()).collect();
        let factor: Vec<f64> = scale.to_f64().iter().zip(&inverse).map(|(s, r)| s * r).collect();
        let addend: Vec<f64> = (0..).zip(bias.to_f64()).map(|(c, b): (usize, f64)| b - mean[c] * factor[c]).collect();
        let correction = if self.unbiased { n / (n - 1.0) } else { 1.0 };
        let moved = |old: &Tensor, new: &[f64], correction: f64| -> Vec<f64> {
            let both = old.to_f64().into_iter().zip(new);
            both.map(|(o, n)| self.momentum * o + (1.0 - self.momentum) * n * correction).collect()
        };
        let (running_mean, running_var) = (moved(running_mean, &mean, 1.0), moved(running_var, &var, correction));
        let all = [factor, addend, running_mean, running_var, mean, inverse];
        Ok(all.iter().map(|v| Tensor::from_f64(x.dtype(), &[channels], v)).collect())
    }
}

impl Operator for BatchNormTraining {
    const NAME: &'static str = "batch_norm_training";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let vectors = BatchNormStatistics::from(self).infer(inputs)?;
        let y = inputs.iter().copied().flatten().take(1).cloned();
        Ok(y.chain(vectors.into_iter().skip(2)).collect())
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let mut vectors = BatchNormStatistics::from(self).eval(inputs)?;
        let ([x, scale, bias, _, _], []) = tensors(inputs)?;
        let [mean, inverse, scale, bias] = [&vectors[4], &vectors[5], scale, bias].map(Tensor::to_f64);
        let plane: usize = x.dims().iter().skip(2).product();
        let normalised = (0..).zip(x.to_f64()).map(|(i, x): (usize, f64)| {
            let c = i / plane.max(1) % mean.len();
            (x - mean[c]) * inverse[c] * scale[c] + bias[c]
        });
        let y = Tensor::from_f64(x.dtype(), x.dims(), &normalised.collect::<Vec<_>>());
        vectors.splice(..2, [y]);
        Ok(vectors)
    }

    /// ```text
    /// h = (x - mean) * inverse      dbias = sum dy      dscale = sum dy * h
    /// dx = scale * inverse * (dy - dbias / n - h * dscale / n)
    /// ```
    ///
    /// The averages are no part of what is learnt: a loss that depends on them has no gradient here.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        if (1..5).any(|i| cx.upstream(i).is_some()) {
            return Err(GradientError::Unsupported(Some("the loss may depend on its first result only")));
        }
        let (x, scale, dy) = (cx.operand(0)?, cx.operand(1)?, cx.dy()?);
        let dims = cx.dims(x);
        let channels = dims.get(1).copied().unwrap_or(1);
        let column = per_channel(&dims);
        let axes: Vec<usize> = (0..dims.len()).filter(|a| *a != 1).collect();
        let n = dims.iter().product::<usize>() as f64 / channels.max(1) as f64;
        let (mean, inverse) = (cx.result(3), cx.result(4));
        let mean = cx.reshape(mean, &column)?;
        let sum = cx.reduce(ReduceKind::Sum, dy, &axes, false)?;
        let sum = cx.reshape(sum, &[channels])?;
        cx.give(2, |_| Ok(sum))?;
        let products = cx.pointwise(&[x, mean, dy], |p, v| {
            let centred = p.binary(BinaryFn::Sub, v[0], v[1]);
            p.binary(BinaryFn::Mul, centred, v[2])
        })?;
        let products = cx.reduce(ReduceKind::Sum, products, &axes, false)?;
        let products = cx.reshape(products, &[channels])?;
        let by_scale = cx.mul(products, inverse)?;
        cx.give(1, |_| Ok(by_scale))?;
        cx.give(0, |cx| {
            // dx = slope * (dy - shift - (x - mean) * tilt) with one slope, shift and tilt a channel.
            let slope = cx.mul(scale, inverse)?;
            let shift = cx.scale(sum, 1.0 / n)?;
            let tilt = cx.pointwise(&[by_scale, inverse], |p, v| {
                let d = p.binary(BinaryFn::Mul, v[0], v[1]);
                p.binary_const(BinaryFn::Mul, d, 1.0 / n)
            })?;
            let slope = cx.reshape(slope, &column)?;
            let shift = cx.reshape(shift, &column)?;
            let tilt = cx.reshape(tilt, &column)?;
            cx.pointwise(&[x, dy, mean, slope, shift, tilt], |p, v| {
                let centred = p.binary(BinaryFn::Sub, v[0], v[2]);
                let tilted = p.binary(BinaryFn::Mul, centred, v[5]);
                let rest = p.binary(BinaryFn::Sub, v[1], v[4]);
                let rest = p.binary(BinaryFn::Sub, rest, tilted);
                p.binary(BinaryFn::Mul, v[3], rest)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    fn run(unbiased: bool) -> Vec<Vec<f64>> {
        let vector = |v: &[f64]| Tensor::from_f64(DType::F64, &[v.len()], v);
        let x = Tensor::from_f64(DType::F64, &[2, 1, 2], &[1.0, 2.0, 3.0, 6.0]);
        let operands = [x, vector(&[2.0]), vector(&[1.0]), vector(&[10.0]), vector(&[20.0])];
        let op = BatchNormTraining { epsilon: 0.5, momentum: 0.75, unbiased };
        let y = op.eval(&operands.iter().map(Some).collect::<Vec<_>>()).unwrap();
        y.iter().map(Tensor::to_f64).collect()
    }

    #[test]
    fn statistics_of_the_batch_and_their_averages() {
        // mean 3, squares 4 + 1 + 0 + 9 = 14: variance 3.5, unbiased 14/3; 1 / sqrt(3.5 + 0.5) = 1/2.
        let y = run(false);
        assert_eq!(y, [vec![-1.0, 0.0, 1.0, 4.0], vec![8.25], vec![15.875], vec![3.0], vec![0.5]]);
        assert!((run(true)[2][0] - (15.0 + 14.0 / 12.0)).abs() < 1e-12);
    }

    #[test]
    fn one_element_has_no_variance() {
        let (x, v) = (TensorType::fixed(DType::F32, &[1, 3]), TensorType::fixed(DType::F32, &[3]));
        let infer = |unbiased| {
            BatchNormTraining { epsilon: 1e-5, momentum: 0.9, unbiased }.infer(&[
                Some(&x),
                Some(&v),
                Some(&v),
                Some(&v),
                Some(&v),
            ])
        };
        assert_eq!(infer(true).unwrap_err().0, "one element a channel has no variance: x is f32[1,3]");
        assert_eq!(infer(false).unwrap().len(), 5);
    }
}
