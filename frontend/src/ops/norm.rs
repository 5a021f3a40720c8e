//! Normalizations.
//!
//! Batch normalization runs with the given statistics; in training mode (opset 14 and later) it computes them from the batch
//! and returns the running ones, which is written out in elementwise operators and reductions.

use super::Entry;
use crate::build::Stop;
use crate::node::{Imported, NodeCx};
use crate::value::Val;
use nncc_ir::ops::norm as ir;
use nncc_ir::ops::reduce::{Reduce, ReduceKind};
use nncc_ir::pointwise::{BinaryFn, UnaryFn};
use nncc_ir::{Dim, ops};

pub(super) const OPS: &[Entry] = &[
    Entry::new("BatchNormalization", &[1, 6, 7, 9, 14, 15], batch_norm)
        .but("training mode below opset 14 is not supported"),
    Entry::new("GroupNormalization", &[18, 21], group_norm),
    Entry::new("InstanceNormalization", &[1, 6, 22], |n| {
        let (x, scale, bias) = (n.operand(0, "input")?, n.operand(1, "scale")?, n.operand(2, "B")?);
        let epsilon = n.float("epsilon", 1e-5)?;
        Ok(vec![n.emit(ir::InstanceNorm { epsilon }, &[&x, &scale, &bias])?])
    }),
    Entry::new("LRN", &[1, 13], |n| {
        let x = n.operand(0, "X")?;
        let (alpha, beta, bias) = (n.float("alpha", 1e-4)?, n.float("beta", 0.75)?, n.float("bias", 1.0)?);
        let size = n.count("size", None)?;
        Ok(vec![n.emit(ir::Lrn { alpha, beta, bias, size }, &[&x])?])
    }),
    Entry::new("LayerNormalization", &[17], layer_norm),
    Entry::new("LpNormalization", &[1, 22], |n| {
        let x = n.operand(0, "input")?;
        let axis = n.axis(n.int("axis", -1)?, n.rank(&x))?;
        let p = n.count("p", Some(2))?;
        Ok(vec![n.emit(ir::LpNorm { axis, p }, &[&x])?])
    }),
    Entry::new("MeanVarianceNormalization", &[9, 13], mean_variance),
    Entry::new("RMSNormalization", &[23], |n| {
        let (x, scale) = (n.operand(0, "X")?, n.operand(1, "scale")?);
        let axis = n.axis(n.int("axis", -1)?, n.rank(&x))?;
        let epsilon = n.float("epsilon", 1e-5)?;
        let scale = expanded(n, &x, axis, &scale)?;
        Ok(vec![n.emit(ir::RmsNorm { axis, epsilon }, &[&x, &scale])?])
    }),
];

/// Mean over axes, which stay with length 1.
fn mean(n: &mut NodeCx<'_>, x: &Val, axes: &[usize]) -> Result<Val, Stop> {
    n.emit(Reduce { kind: ReduceKind::Mean, axes: axes.to_vec(), keepdims: true }, &[x])
}

/// Mean, deviation from it and variance over axes.
fn moments(n: &mut NodeCx<'_>, x: &Val, axes: &[usize]) -> Result<(Val, Val, Val), Stop> {
    let mean_ = mean(n, x, axes)?;
    let deviation = n.binary(BinaryFn::Sub, x, &mean_)?;
    let square = n.binary(BinaryFn::Mul, &deviation, &deviation)?;
    let variance = mean(n, &square, axes)?;
    Ok((mean_, deviation, variance))
}

/// `1 / sqrt(variance + epsilon)`.
fn inverse_deviation(n: &mut NodeCx<'_>, variance: &Val, epsilon: f64) -> Result<Val, Stop> {
    let variance = n.binary_const(BinaryFn::Add, variance, epsilon)?;
    let deviation = n.unary(UnaryFn::Sqrt, &variance)?;
    n.unary(UnaryFn::Reciprocal, &deviation)
}

/// A scale or bias broadcast to the axes that are normalised, where the model gives less.
fn expanded(n: &mut NodeCx<'_>, x: &Val, axis: usize, v: &Val) -> Result<Val, Stop> {
    let normal = n.shape(x).split_off(axis);
    let given = n.shape(v);
    if given == normal || given.len() > normal.len() {
        return Ok(v.clone());
    }
    n.emit(ops::expand::Expand { shape: normal }, &[v])
}

/// `scale` and `bias` of a channel as they stand against a value of rank `rank`.
fn per_channel(n: &mut NodeCx<'_>, v: &Val, rank: usize) -> Result<Val, Stop> {
    let mut shape = n.shape(v);
    shape.extend(std::iter::repeat_n(Dim::Known(1), rank.saturating_sub(2)));
    n.emit(ops::reshape::Reshape { shape }, &[v])
}

fn batch_norm(n: &mut NodeCx<'_>) -> Imported {
    let (x, scale, bias) = (n.operand(0, "X")?, n.operand(1, "scale")?, n.operand(2, "B")?);
    let (mean, var) = (n.operand(3, "input_mean")?, n.operand(4, "input_var")?);
    let epsilon = n.float("epsilon", 1e-5)?;
    let training = n.version < 14 && (1..5).any(|i| n.wants(i)) && !(n.version < 7 && n.flag("is_test", false)?);
    let trained_later = n.builder.training; // by the batch's statistics, which then move the running ones
    if training && !trained_later {
        return n.unsupported("in training mode (it has more than one output)");
    }
    if n.flag("training_mode", false)? && !trained_later {
        return batch_norm_training(n, [&x, &scale, &bias, &mean, &var], epsilon);
    }
    if n.version < 9 && !n.flag("spatial", true)? {
        // Statistics of every activation: [C, spatial..], aligned with the last axes as numpy does.
        let deviation = n.binary(BinaryFn::Sub, &x, &mean)?;
        let inverse = inverse_deviation(n, &var, epsilon)?;
        let normal = n.binary(BinaryFn::Mul, &deviation, &inverse)?;
        let scaled = n.binary(BinaryFn::Mul, &normal, &scale)?;
        return Ok(vec![n.binary(BinaryFn::Add, &scaled, &bias)?]);
    }
    let y = n.emit(ir::BatchNorm { epsilon }, &[&x, &scale, &bias, &mean, &var])?;
    // Old exporters name the further outputs in test mode too, where the statistics pass unchanged.
    Ok(vec![y, mean.clone(), var.clone(), mean, var])
}

fn batch_norm_training(n: &mut NodeCx<'_>, operands: [&Val; 5], epsilon: f64) -> Imported {
    let [x, scale, bias, running_mean, running_var] = operands;
    let momentum = n.float("momentum", 0.9)?;
    let rank = n.rank(x);
    let axes: Vec<usize> = (0..rank).filter(|&a| a != 1).collect();
    let (mean, deviation, variance) = moments(n, x, &axes)?;
    let inverse = inverse_deviation(n, &variance, epsilon)?;
    let normal = n.binary(BinaryFn::Mul, &deviation, &inverse)?;
    let (scale, bias) = (per_channel(n, scale, rank)?, per_channel(n, bias, rank)?);
    let scaled = n.binary(BinaryFn::Mul, &normal, &scale)?;
    let y = n.binary(BinaryFn::Add, &scaled, &bias)?;
    let mut outputs = vec![y];
    for (running, batch) in [(running_mean, mean), (running_var, variance)] {
        let batch = n.emit(ops::reshape::Reshape { shape: n.shape(running) }, &[&batch])?;
        let old = n.binary_const(BinaryFn::Mul, running, momentum)?;
        let new = n.binary_const(BinaryFn::Mul, &batch, 1.0 - momentum)?;
        outputs.push(n.binary(BinaryFn::Add, &old, &new)?);
    }
    Ok(outputs)
}

/// Scale and bias are one number a group in opset 18, one a channel since 21.
fn group_norm(n: &mut NodeCx<'_>) -> Imported {
    let (x, mut scale, mut bias) = (n.operand(0, "X")?, n.operand(1, "scale")?, n.operand(2, "bias")?);
    let epsilon = n.float("epsilon", 1e-5)?;
    let groups = n.count("num_groups", None)?;
    if n.version < 21 {
        let shape = n.shape(&x);
        let channels = match shape.get(1) {
            Some(c) => c.clone(),
            None => return n.invalid(format!("the operand has {} axes, and none for channels", shape.len())),
        };
        let Some(each) = channels.floor_div(&Dim::from(groups)) else {
            return n.invalid(format!("{channels} channels in {groups} groups"));
        };
        for v in [&mut scale, &mut bias] {
            let column = n.emit(ops::reshape::Reshape { shape: vec![Dim::from(groups), Dim::Known(1)] }, &[v])?;
            let matrix = n.emit(ops::expand::Expand { shape: vec![Dim::from(groups), each.clone()] }, &[&column])?;
            *v = n.emit(ops::reshape::Reshape { shape: vec![channels.clone()] }, &[&matrix])?;
        }
    }
    Ok(vec![n.emit(ir::GroupNorm { epsilon, groups }, &[&x, &scale, &bias])?])
}

/// Mean and inverse deviation are outputs that training wants; they are computed beside the operator where a model has them.
fn layer_norm(n: &mut NodeCx<'_>) -> Imported {
    let (x, scale) = (n.operand(0, "X")?, n.operand(1, "Scale")?);
    let axis = n.axis(n.int("axis", -1)?, n.rank(&x))?;
    let epsilon = n.float("epsilon", 1e-5)?;
    let scale = expanded(n, &x, axis, &scale)?;
    let bias = match n.optional(2) {
        Some(b) => Some(expanded(n, &x, axis, &b)?),
        None => None,
    };
    let mut outputs = n.emit_all(ir::LayerNorm { axis, epsilon }, &[Some(&x), Some(&scale), bias.as_ref()])?;
    if n.wants(1) || n.wants(2) {
        let axes: Vec<usize> = (axis..n.rank(&x)).collect();
        let (mean, _, variance) = moments(n, &x, &axes)?;
        outputs.extend([mean, inverse_deviation(n, &variance, epsilon)?]);
    }
    Ok(outputs)
}

/// `(x - mean) / (sqrt(variance) + 1e-9)`: the operator's ONNX function.
fn mean_variance(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "X")?;
    let axes = n.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let mut axes = n.axes(&axes, n.rank(&x))?;
    axes.sort();
    let (_, deviation, variance) = moments(n, &x, &axes)?;
    let std = n.unary(UnaryFn::Sqrt, &variance)?;
    let std = n.binary_const(BinaryFn::Add, &std, 1e-9)?;
    Ok(vec![n.binary(BinaryFn::Div, &deviation, &std)?])
}
