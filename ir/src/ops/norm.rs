//! Normalisation: subtract a mean, divide by a deviation (or a norm), scale and shift.
//!
//! | operator | mean and variance over | y |
//! |---|---|---|
//! | [`BatchNorm`] | given, a channel | `(x - mean) / sqrt(var + epsilon) * scale + bias` |
//! | [`InstanceNorm`] | the spatial axes | the same |
//! | [`GroupNorm`] | the channels of a group and the spatial axes | the same, scale and bias a channel |
//! | [`LayerNorm`] | the axes from `axis` on | the same, scale and bias broadcast to x |
//! | [`RmsNorm`] | the axes from `axis` on | `x / sqrt(mean(x^2) + epsilon) * scale` |
//! | [`LpNorm`] | one axis | `x / norm(x)`, 0 where the norm is 0 |
//! | [`Lrn`] | neighbouring channels | `x / (bias + alpha / size * sum(x^2))^beta` |
//!
//! Variances are of the population (divided by n). All operands have the type of x, f32 or f64.

use crate::batch::{BatchCx, Batched};
use crate::broadcast::{broadcast_shapes, broadcast_strides};
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::operands::{around, axis_of, one_float, operands, output_dims, tensors, vector_of};
use crate::ops::pool::AveragePool;
use crate::ops::reduce::ReduceKind;
use crate::pointwise::{BinaryFn, CompareFn, UnaryFn};
use crate::tensor::indices;
use crate::{Dim, GradientCx, GradientError, Tensor, TensorType, ValueId, operator_attrs, type_err};

operator_attrs! {
    /// `(x: T[N, C, ..], scale: T[C], bias: T[C], mean: T[C], var: T[C])`, inference only. An x of rank 1 has one channel.
    /// Source: ONNX BatchNormalization-15.
    pub struct BatchNorm {
        /// Added to the variance.
        pub epsilon: f64,
    }
}

operator_attrs! {
    /// `(x: T[N, C, spatial..], scale: T[C], bias: T[C])`. Source: ONNX InstanceNormalization-22.
    pub struct InstanceNorm {
        /// Added to the variance.
        pub epsilon: f64,
    }
}

operator_attrs! {
    /// `(x: T[N, C, spatial..], scale: T[C], bias: T[C])`. Source: ONNX GroupNormalization-21 (version 18 had one scale a
    /// group: the importer repeats it).
    pub struct GroupNorm {
        /// Added to the variance.
        pub epsilon: f64,
        /// How many groups the channels form.
        pub groups: usize,
    }
}

operator_attrs! {
    /// `(x, scale, bias?)`. Source: ONNX LayerNormalization-17.
    pub struct LayerNorm {
        /// The first of the axes that are normalised together.
        pub axis: usize,
        /// Added to the variance.
        pub epsilon: f64,
    }
}

operator_attrs! {
    /// `(x, scale)`. Source: ONNX RMSNormalization-23.
    pub struct RmsNorm {
        /// The first of the axes that are normalised together.
        pub axis: usize,
        /// Added to the mean square.
        pub epsilon: f64,
    }
}

operator_attrs! {
    /// `x: T[N, C, ..]`; channel c sums over `c - floor((size-1)/2) ..= c + ceil((size-1)/2)`. Source: ONNX LRN-13.
    pub struct Lrn {
        /// The factor of the sum.
        pub alpha: f64,
        /// The exponent.
        pub beta: f64,
        /// What is added to the sum.
        pub bias: f64,
        /// How many channels are summed.
        pub size: usize,
    }
}

operator_attrs! {
    /// `x`, divided by its L1 or L2 norm along an axis. Source: ONNX LpNormalization-22.
    pub struct LpNorm {
        /// Along which.
        pub axis: usize,
        /// 1 or 2.
        pub p: usize,
    }
}

/// Checks x and its vectors with one element a channel.
pub(crate) fn infer_per_channel<const V: usize>(
    inputs: &[Option<&TensorType>],
    names: [&str; V],
    min_rank: usize,
) -> Result<Vec<TensorType>, TypeError> {
    if inputs.len() != V + 1 {
        return type_err!("takes {} operands, {} are given", V + 1, inputs.len());
    }
    let ([x], vectors) = operands::<_, 1, V>(inputs)?;
    if x.rank() < min_rank {
        return type_err!("x has rank {}, not {min_rank} or more", x.rank());
    }
    let channels = x.shape.get(1).cloned().unwrap_or(Dim::Known(1));
    for (v, name) in vectors.iter().zip(names) {
        let v = v.ok_or_else(|| TypeError(format!("{name} is missing")))?;
        one_float([x, v])?;
        vector_of(v, &channels, name)?;
    }
    Ok(vec![x.clone()])
}

/// `(x - mean) / sqrt(var + epsilon)` of one group of numbers that are normalised together.
fn standardise(v: &mut [f64], epsilon: f64) {
    let n = v.len() as f64;
    let mean = v.iter().sum::<f64>() / n;
    let var = v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let deviation = (var + epsilon).sqrt();
    v.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
}

/// `v * scale + bias` with one scale and bias a channel; `dims` has channels on axis 1.
fn scale_channels(v: &mut [f64], dims: &[usize], scale: &Tensor, bias: &Tensor) {
    let plane: usize = dims[2..].iter().product();
    let (scale, bias) = (scale.to_f64(), bias.to_f64());
    for (i, x) in v.iter_mut().enumerate() {
        let c = i / plane % dims[1];
        *x = *x * scale[c] + bias[c];
    }
}

/// The shape in which a vector of one element a channel broadcasts to a tensor of these dimensions.
pub(crate) fn per_channel(dims: &[usize]) -> Vec<usize> {
    dims.iter().enumerate().map(|(a, &d)| if a == 1 { d } else { 1 }).collect()
}

/// `1 / sqrt(var + epsilon)`.
fn inverse_root(cx: &mut GradientCx<'_>, var: ValueId, epsilon: f64) -> Result<ValueId, GradientError> {
    cx.pointwise(&[var], |p, v| {
        let sum = p.binary_const(BinaryFn::Add, v[0], epsilon);
        let root = p.unary(UnaryFn::Sqrt, sum);
        p.unary(UnaryFn::Reciprocal, root)
    })
}

impl Operator for BatchNorm {
    const NAME: &'static str = "batch_norm";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        infer_per_channel(inputs, ["scale", "bias", "mean", "var"], 1)
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x, scale, bias, mean, var], []) = tensors(inputs)?;
        let channels = dims.get(1).copied().unwrap_or(1);
        let plane: usize = dims.iter().skip(2).product();
        let [scale, bias, mean, var] = [scale, bias, mean, var].map(Tensor::to_f64);
        let mut v = x.to_f64();
        for (i, x) in v.iter_mut().enumerate() {
            let c = i / plane % channels;
            *x = (*x - mean[c]) / (var[c] + self.epsilon).sqrt() * scale[c] + bias[c];
        }
        Ok(vec![Tensor::from_f64(x.dtype(), &dims, &v)])
    }

    /// Of an affine map, whose mean and variance are operands like scale and bias.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy) = (cx.operand(0)?, cx.dy()?);
        let dims = cx.dims(x);
        let channels = dims.get(1).copied().unwrap_or(1);
        let column = per_channel(&dims);
        let axes: Vec<usize> = (0..dims.len()).filter(|a| *a != 1).collect();
        let [scale, mean, var] = [cx.operand(1)?, cx.operand(3)?, cx.operand(4)?];
        let inverse = inverse_root(cx, var, self.epsilon)?;
        let slope = cx.mul(scale, inverse)?;
        cx.give(0, |cx| {
            let slope = cx.reshape(slope, &column)?;
            cx.mul(dy, slope)
        })?;
        if (1..5).any(|i| cx.wants(i)) {
            let sum = cx.reduce(ReduceKind::Sum, dy, &axes, false)?;
            let sum = cx.reshape(sum, &[channels])?;
            cx.give(2, |_| Ok(sum))?;
            cx.give(3, |cx| {
                let d = cx.mul(sum, slope)?;
                cx.unary(UnaryFn::Neg, d)
            })?;
        }
        if cx.wants(1) || cx.wants(4) {
            let mean = cx.reshape(mean, &column)?;
            let products = cx.pointwise(&[x, mean, dy], |p, v| {
                let centred = p.binary(BinaryFn::Sub, v[0], v[1]);
                p.binary(BinaryFn::Mul, centred, v[2])
            })?;
            let sum = cx.reduce(ReduceKind::Sum, products, &axes, false)?;
            let sum = cx.reshape(sum, &[channels])?;
            cx.give(1, |cx| cx.mul(sum, inverse))?;
            // d (var + epsilon)^-1/2 = -1/2 (var + epsilon)^-3/2
            cx.give(4, |cx| {
                cx.pointwise(&[sum, slope, inverse], |p, v| {
                    let square = p.binary(BinaryFn::Mul, v[2], v[2]);
                    let d = p.binary(BinaryFn::Mul, v[1], square);
                    let d = p.binary(BinaryFn::Mul, d, v[0]);
                    p.binary_const(BinaryFn::Mul, d, -0.5)
                })
            })?;
        }
        Ok(())
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis != 1)
    }
}

/// The gradients of `h * scale + bias`, where h is x in chunks of `n` neighbouring elements, each standardised (or, if not
/// `centred`, divided by its root mean square). Scale and bias broadcast as they are, or as vectors of one element a channel
/// reshaped to `column`.
///
/// ```text
/// g = dy * scale      dx = inverse * (g - mean(g) - h * mean(g * h))         without mean(g) if not centred
/// ```
fn standardised_gradients(
    cx: &mut GradientCx<'_>,
    n: usize,
    centred: bool,
    epsilon: f64,
    column: Option<&[usize]>,
) -> Result<(), GradientError> {
    let (x, scale, dy) = (cx.operand(0)?, cx.operand(1)?, cx.dy()?);
    let dims = cx.dims(x);
    let own = |cx: &GradientCx<'_>, v: ValueId| column.map_or_else(|| cx.dims(v), <[usize]>::to_vec);
    cx.give(2, |cx| {
        let bias = cx.operand(2)?;
        let sum = cx.sum_to(dy, &own(cx, bias))?;
        cx.reshape(sum, &cx.dims(bias))
    })?;
    if !cx.wants(0) && !cx.wants(1) {
        return Ok(());
    }
    let chunks = [dims.iter().product::<usize>().checked_div(n).unwrap_or(0), n];
    let rows = cx.reshape(x, &chunks)?;
    let rows = match centred {
        true => {
            let mean = cx.reduce(ReduceKind::Mean, rows, &[1], true)?;
            cx.binary(BinaryFn::Sub, rows, mean)?
        }
        false => rows,
    };
    let squares = cx.mul(rows, rows)?;
    let variance = cx.reduce(ReduceKind::Mean, squares, &[1], true)?;
    let inverse = inverse_root(cx, variance, epsilon)?;
    let h = cx.mul(rows, inverse)?;
    cx.give(1, |cx| {
        let h = cx.reshape(h, &dims)?;
        let products = cx.mul(dy, h)?;
        let sum = cx.sum_to(products, &own(cx, scale))?;
        cx.reshape(sum, &cx.dims(scale))
    })?;
    cx.give(0, |cx| {
        let scale = cx.reshape(scale, &own(cx, scale))?;
        let g = cx.mul(dy, scale)?;
        let g = cx.reshape(g, &chunks)?;
        let products = cx.mul(g, h)?;
        let tilt = cx.reduce(ReduceKind::Mean, products, &[1], true)?;
        let dx = match centred {
            true => {
                let shift = cx.reduce(ReduceKind::Mean, g, &[1], true)?;
                cx.pointwise(&[g, h, inverse, tilt, shift], |p, v| {
                    let along = p.binary(BinaryFn::Mul, v[1], v[3]);
                    let rest = p.binary(BinaryFn::Sub, v[0], v[4]);
                    let rest = p.binary(BinaryFn::Sub, rest, along);
                    p.binary(BinaryFn::Mul, v[2], rest)
                })?
            }
            false => cx.pointwise(&[g, h, inverse, tilt], |p, v| {
                let along = p.binary(BinaryFn::Mul, v[1], v[3]);
                let rest = p.binary(BinaryFn::Sub, v[0], along);
                p.binary(BinaryFn::Mul, v[2], rest)
            })?,
        };
        cx.reshape(dx, &dims)
    })
}

impl Operator for InstanceNorm {
    const NAME: &'static str = "instance_norm";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        infer_per_channel(inputs, ["scale", "bias"], 2)
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x, scale, bias], []) = tensors(inputs)?;
        let mut v = x.to_f64();
        let plane: usize = dims[2..].iter().product();
        v.chunks_mut(plane.max(1)).for_each(|plane| standardise(plane, self.epsilon));
        scale_channels(&mut v, &dims, scale, bias);
        Ok(vec![Tensor::from_f64(x.dtype(), &dims, &v)])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let x = cx.operand(0)?;
        let dims = cx.dims(x);
        let plane: usize = dims[2..].iter().product();
        standardised_gradients(cx, plane, true, self.epsilon, Some(&per_channel(&dims)))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis == 0)
    }
}

impl Operator for GroupNorm {
    const NAME: &'static str = "group_norm";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let y = infer_per_channel(inputs, ["scale", "bias"], 2)?;
        let channels = &y[0].shape[1];
        if self.groups == 0 || channels.size().is_some_and(|c| !c.is_multiple_of(self.groups)) {
            return type_err!("{channels} channels do not split into {} groups", self.groups);
        }
        Ok(y)
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x, scale, bias], []) = tensors(inputs)?;
        let mut v = x.to_f64();
        let group: usize = dims[1] / self.groups * dims[2..].iter().product::<usize>();
        v.chunks_mut(group.max(1)).for_each(|group| standardise(group, self.epsilon));
        scale_channels(&mut v, &dims, scale, bias);
        Ok(vec![Tensor::from_f64(x.dtype(), &dims, &v)])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let x = cx.operand(0)?;
        let dims = cx.dims(x);
        let group: usize = dims[1] / self.groups * dims[2..].iter().product::<usize>();
        standardised_gradients(cx, group, true, self.epsilon, Some(&per_channel(&dims)))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis == 0)
    }
}

/// Checks that `t` broadcasts to x without changing x's shape.
fn broadcasts_to(t: &TensorType, x: &TensorType, what: &str) -> Result<(), TypeError> {
    let shape = broadcast_shapes([&x.shape[..], &t.shape[..]])?;
    let grows = shape.len() != x.rank() || shape.iter().zip(&x.shape).any(|(a, b)| b.known() == Some(1) && a != b);
    if grows { type_err!("{what} of type {t} does not broadcast to {x}") } else { Ok(()) }
}

/// `v * scale + bias` where both broadcast to v's shape.
fn scale_broadcast(v: &mut [f64], dims: &[usize], scale: &Tensor, bias: Option<&Tensor>) {
    let reader = |t: &Tensor| (t.to_f64(), broadcast_strides(t.dims(), dims));
    let (scale, bias) = (reader(scale), bias.map(reader));
    let at = |(v, strides): &(Vec<f64>, Vec<usize>), index: &[usize]| {
        v[index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>()]
    };
    for (x, index) in v.iter_mut().zip(indices(dims)) {
        *x = *x * at(&scale, &index) + bias.as_ref().map_or(0.0, |b| at(b, &index));
    }
}

impl Operator for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x, scale], [bias]) = operands(inputs)?;
        one_float([x, scale].into_iter().chain(bias))?;
        axis_of(self.axis, x)?;
        broadcasts_to(scale, x, "scale")?;
        bias.map_or(Ok(()), |b| broadcasts_to(b, x, "bias"))?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x, scale], [bias]) = tensors(inputs)?;
        let mut v = x.to_f64();
        let n: usize = dims[self.axis..].iter().product();
        v.chunks_mut(n.max(1)).for_each(|chunk| standardise(chunk, self.epsilon));
        scale_broadcast(&mut v, &dims, scale, bias);
        Ok(vec![Tensor::from_f64(x.dtype(), &dims, &v)])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let x = cx.operand(0)?;
        let n = cx.dims(x)[self.axis..].iter().product();
        standardised_gradients(cx, n, true, self.epsilon, None)
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let (axis, operands) = cx.broadcast(cx.ty(0)?.rank(), 0)?;
        (cx.axis(0)? == axis && axis < self.axis).then(|| Batched { operands, ..cx.on(axis) })
    }
}

impl Operator for RmsNorm {
    const NAME: &'static str = "rms_norm";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x, scale], []) = operands(inputs)?;
        one_float([x, scale])?;
        axis_of(self.axis, x)?;
        broadcasts_to(scale, x, "scale")?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x, scale], []) = tensors(inputs)?;
        let mut v = x.to_f64();
        let n: usize = dims[self.axis..].iter().product();
        for chunk in v.chunks_mut(n.max(1)) {
            let mean_square = chunk.iter().map(|x| x * x).sum::<f64>() / n as f64;
            let rms = (mean_square + self.epsilon).sqrt();
            chunk.iter_mut().for_each(|x| *x /= rms);
        }
        scale_broadcast(&mut v, &dims, scale, None);
        Ok(vec![Tensor::from_f64(x.dtype(), &dims, &v)])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let x = cx.operand(0)?;
        let n = cx.dims(x)[self.axis..].iter().product();
        standardised_gradients(cx, n, false, self.epsilon, None)
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let (axis, operands) = cx.broadcast(cx.ty(0)?.rank(), 0)?;
        (cx.axis(0)? == axis && axis < self.axis).then(|| Batched { operands, ..cx.on(axis) })
    }
}

impl Lrn {
    /// The channels that channel `c` of `channels` sums over.
    pub fn neighbours(&self, c: usize, channels: usize) -> std::ops::Range<usize> {
        let before = (self.size - 1) / 2;
        c.saturating_sub(before)..c.saturating_add(self.size - before).min(channels)
    }
}

impl Operator for Lrn {
    const NAME: &'static str = "lrn";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x], []) = operands(inputs)?;
        one_float([x])?;
        if x.rank() < 2 {
            return type_err!("x of type {x} has no channels");
        }
        if self.size == 0 {
            return type_err!("size is 0");
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x], []) = tensors(inputs)?;
        let (batch, channels, plane) = around(&dims, 1);
        let v = x.to_f64();
        let mut y = Vec::with_capacity(v.len());
        for (n, c) in (0..batch).flat_map(|n| (0..channels).map(move |c| (n, c))) {
            let at = |c: usize, i: usize| v[(n * channels + c) * plane + i];
            for i in 0..plane {
                let sum: f64 = self.neighbours(c, channels).map(|c| at(c, i) * at(c, i)).sum();
                y.push(at(c, i) / (self.bias + self.alpha / self.size as f64 * sum).powf(self.beta));
            }
        }
        Ok(vec![Tensor::from_f64(x.dtype(), &dims, &y)])
    }

    /// ```text
    /// s = bias + alpha / size * sum(x^2)      dx = dy s^-beta - 2 alpha beta x * (sum(dy x s^(-beta-1)) / size)
    /// ```
    ///
    /// where the second sum is over the channels that sum over this one.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        if self.size >= 1 << 30 {
            return Err(GradientError::Unsupported(Some("its size must be below 2^30")));
        }
        let (x, dy) = (cx.operand(0)?, cx.dy()?);
        let dims = cx.dims(x);
        let (batch, channels, plane) = around(&dims, 1);
        let before = (self.size - 1) / 2;
        // Channels as an axis that is pooled: the zeros of the padding count, so that each mean is sum / size.
        let mean = AveragePool {
            kernel: vec![self.size, 1],
            strides: vec![1, 1],
            dilations: vec![1, 1],
            pads: vec![before, 0, self.size - 1 - before, 0],
            ceil_mode: false,
            count_include_pad: true,
        };
        let image = [batch, 1, channels, plane];
        cx.give(0, |cx| {
            let (x, dy) = (cx.reshape(x, &image)?, cx.reshape(dy, &image)?);
            let squares = cx.mul(x, x)?;
            let squares = cx.add(mean.clone(), &[squares])?;
            let sum = cx.pointwise(&[squares], |p, v| {
                let scaled = p.binary_const(BinaryFn::Mul, v[0], self.alpha);
                p.binary_const(BinaryFn::Add, scaled, self.bias)
            })?;
            let inner = cx.pointwise(&[x, dy, sum], |p, v| {
                let power = p.binary_const(BinaryFn::Pow, v[2], -self.beta - 1.0);
                let product = p.binary(BinaryFn::Mul, v[0], v[1]);
                p.binary(BinaryFn::Mul, product, power)
            })?;
            let spread = cx.add(mean.transposed(&[channels, plane]), &[inner])?;
            let dx = cx.pointwise(&[x, dy, sum, spread], |p, v| {
                let power = p.binary_const(BinaryFn::Pow, v[2], -self.beta);
                let direct = p.binary(BinaryFn::Mul, v[1], power);
                let twice = p.binary_const(BinaryFn::Mul, v[0], 2.0 * self.alpha * self.beta);
                let through = p.binary(BinaryFn::Mul, twice, v[3]);
                p.binary(BinaryFn::Sub, direct, through)
            })?;
            cx.reshape(dx, &dims)
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis != 1)
    }
}

impl Operator for LpNorm {
    const NAME: &'static str = "lp_norm";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x], []) = operands(inputs)?;
        one_float([x])?;
        axis_of(self.axis, x)?;
        if !matches!(self.p, 1 | 2) {
            return type_err!("p is {}, neither 1 nor 2", self.p);
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x], []) = tensors(inputs)?;
        let (outer, n, inner) = around(&dims, self.axis);
        let mut v = x.to_f64();
        let outer = if v.is_empty() { 0 } else { outer };
        for start in (0..outer).flat_map(|o| (0..inner).map(move |i| o * n * inner + i)) {
            let line = || v[start..].iter().step_by(inner).take(n);
            let norm = match self.p {
                1 => line().map(|x| x.abs()).sum::<f64>(),
                _ => line().map(|x| x * x).sum::<f64>().sqrt(),
            };
            v[start..].iter_mut().step_by(inner).take(n).for_each(|x| *x = if norm == 0.0 { 0.0 } else { *x / norm });
        }
        Ok(vec![Tensor::from_f64(x.dtype(), &dims, &v)])
    }

    /// `dx = (dy - slope * sum(y * dy)) / norm`, and 0 where the norm is 0.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, y, dy) = (cx.operand(0)?, cx.result(0), cx.dy()?);
        cx.give(0, |cx| {
            let kind = if self.p == 1 { ReduceKind::L1 } else { ReduceKind::L2 };
            let norm = cx.reduce(kind, x, &[self.axis], true)?;
            let products = cx.mul(y, dy)?;
            let sum = cx.reduce(ReduceKind::Sum, products, &[self.axis], true)?;
            // The norm's own derivative: x / norm, or the sign of x.
            let slope = if self.p == 1 { x } else { y };
            cx.pointwise(&[slope, dy, norm, sum], |p, v| {
                let slope = if self.p == 1 { p.unary(UnaryFn::Sign, v[0]) } else { v[0] };
                let along = p.binary(BinaryFn::Mul, slope, v[3]);
                let rest = p.binary(BinaryFn::Sub, v[1], along);
                let d = p.binary(BinaryFn::Div, rest, v[2]);
                let zero = p.constant(p.type_of(d), 0.0);
                let flat = p.compare(CompareFn::Eq, v[2], zero);
                p.select(flat, zero, d)
            })
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

    fn t(dims: &[usize], v: &[f64]) -> Tensor {
        Tensor::from_f64(DType::F64, dims, v)
    }

    fn close(op: impl Operator, inputs: &[&Tensor], expected: &[f64]) {
        let inputs: Vec<Option<&Tensor>> = inputs.iter().copied().map(Some).collect();
        let y = op.eval(&inputs).unwrap()[0].to_f64();
        assert_eq!(y.len(), expected.len());
        y.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{y:?} is not {expected:?}"));
    }

    #[test]
    fn values_by_hand() {
        let x = t(&[1, 2, 2], &[1.0, 3.0, 5.0, 9.0]);
        let (scale, bias) = (t(&[2], &[2.0, 3.0]), t(&[2], &[10.0, 20.0]));
        let (mean, var) = (t(&[2], &[1.0, 5.0]), t(&[2], &[3.0, 8.0]));
        close(BatchNorm { epsilon: 1.0 }, &[&x, &scale, &bias, &mean, &var], &[10.0, 12.0, 20.0, 24.0]);
        close(InstanceNorm { epsilon: 0.0 }, &[&x, &scale, &bias], &[8.0, 12.0, 17.0, 23.0]);
        close(GroupNorm { epsilon: 0.0, groups: 2 }, &[&x, &scale, &bias], &[8.0, 12.0, 17.0, 23.0]);
        let d = (35.0f64 / 4.0).sqrt();
        let all = [-3.5 / d * 2.0 + 10.0, -1.5 / d * 2.0 + 10.0, 0.5 / d * 3.0 + 20.0, 4.5 / d * 3.0 + 20.0];
        close(GroupNorm { epsilon: 0.0, groups: 1 }, &[&x, &scale, &bias], &all);
        close(LayerNorm { axis: 2, epsilon: 0.0 }, &[&x, &scale, &bias], &[8.0, 23.0, 8.0, 23.0]);
        close(
            RmsNorm { axis: 2, epsilon: 4.0 },
            &[&x, &scale],
            &[2.0 / 3.0, 3.0, 10.0 / 57f64.sqrt(), 27.0 / 57f64.sqrt()],
        );
        close(LpNorm { axis: 1, p: 2 }, &[&t(&[2, 2], &[3.0, -4.0, 0.0, 0.0])], &[0.6, -0.8, 0.0, 0.0]);
        close(LpNorm { axis: 0, p: 1 }, &[&t(&[2, 1], &[3.0, -1.0])], &[0.75, -0.25]);
        let lrn = Lrn { alpha: 2.0, beta: 1.0, bias: 1.0, size: 2 };
        close(lrn, &[&t(&[1, 3, 1], &[1.0, 2.0, 3.0])], &[1.0 / 6.0, 2.0 / 14.0, 3.0 / 10.0]);
    }

    #[test]
    fn errors_not_panics() {
        let ty = |dims: &[usize]| TensorType::fixed(DType::F32, dims);
        let (x, v) = (ty(&[2, 4]), ty(&[4]));
        for groups in [0, 3, usize::MAX] {
            assert!(GroupNorm { epsilon: 0.0, groups }.infer(&[Some(&x), Some(&v), Some(&v)]).is_err());
        }
        assert!(GroupNorm { epsilon: 0.0, groups: 2 }.infer(&[Some(&ty(&[])), Some(&v), Some(&v)]).is_err());
        assert!(BatchNorm { epsilon: 0.0 }.infer(&[Some(&x), Some(&v), None, Some(&v), Some(&v)]).is_err());
        assert!(LayerNorm { axis: 2, epsilon: 0.0 }.infer(&[Some(&x), Some(&v)]).is_err());
        assert!(LayerNorm { axis: 1, epsilon: 0.0 }.infer(&[Some(&v), Some(&x)]).is_err());
        assert!(Lrn { alpha: 1.0, beta: 1.0, bias: 1.0, size: 0 }.infer(&[Some(&x)]).is_err());
        assert!(LpNorm { axis: 0, p: 3 }.infer(&[Some(&x)]).is_err());
        let one = ty(&[5]);
        assert!(
            BatchNorm { epsilon: 0.0 }
                .infer(&[Some(&one), Some(&ty(&[1])), Some(&ty(&[1])), Some(&ty(&[1])), Some(&ty(&[1]))])
                .is_ok()
        );
    }
}
