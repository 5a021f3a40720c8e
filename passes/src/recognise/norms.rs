//! Normalizations written out, and the scale and shift behind them.
//!
//! ```text
//! d = x - mean(x);  y = d / sqrt(mean(d * d) + eps)                     ->  y = layer_norm(x, 1)     means over the last axes
//! y = reshape(instance_norm(reshape(x, [N, G, ..]), s, b), x's shape)   ->  y = group_norm(x, s', b') each repeated C / G times
//! layer_norm(x, s, b) * c,  group_norm(..) * c,  instance_norm(..) * c  ->  norm(x, s * c, b * c)
//! layer_norm(x, s, b) + c,  ...                                         ->  norm(x, s, b + c)        c one number per scale
//! ```

use super::{binary, first, plus_number, unary};
use crate::rewrite::{Found, No, Patch, dims, float_constant, operand, result, sole_use, vector};
use nncc_ir::ops::norm::{GroupNorm, LayerNorm};
use nncc_ir::ops::reduce::ReduceKind;
use nncc_ir::pointwise::{BinaryFn, UnaryFn};
use nncc_ir::{Constant, Graph, NodeId, Op, Tensor, ValueId};

/// The axes of `v = reduce_mean(x, keepdims)`.
fn mean_axes(g: &Graph, v: ValueId, x: ValueId) -> Option<&[usize]> {
    match g.op(v.node) {
        Op::Reduce(r) if r.kind == ReduceKind::Mean && r.keepdims && first(g, v) == Some(x) => Some(&r.axes),
        _ => None,
    }
}

/// `v` as a square.
fn square(g: &Graph, v: ValueId) -> Option<ValueId> {
    match binary(g, v, BinaryFn::Mul) {
        Some((a, b)) if a == b => Some(a),
        Some(_) => None,
        None => binary(g, v, BinaryFn::Pow).filter(|(_, e)| crate::rewrite::splat(g, *e) == Some(2.0)).map(|(x, _)| x),
    }
}

pub fn layer_norm(g: &Graph, n: NodeId) -> Found {
    let (d, deviation) = binary(g, result(n), BinaryFn::Div).ok_or(No::Match)?;
    let biased = unary(g, deviation, UnaryFn::Sqrt).ok_or(No::Match)?;
    let (variance, epsilon) = plus_number(g, biased).ok_or(No::Match)?;
    let (x, mean) = binary(g, d, BinaryFn::Sub).ok_or(No::Match)?;
    let axes = mean_axes(g, mean, x).ok_or(No::Match)?;
    let squares = first(g, variance).ok_or(No::Match)?;
    // PyTorch subtracts the mean twice in some exports; both differences are the same number.
    let same = square(g, squares).is_some_and(|e| e == d || binary(g, e, BinaryFn::Sub) == Some((x, mean)));
    let rank = g.ty(x).rank();
    let axis = *axes.first().ok_or(No::Match)?;
    let last_ones = axes.iter().copied().eq(axis..rank);
    if !same || mean_axes(g, variance, squares) != Some(axes) || !last_ones || !g.ty(x).dtype.is_float() {
        return Err(No::Match);
    }
    let shape = &dims(g, x)?[axis..];
    for v in [deviation, biased, variance, squares] {
        sole_use(g, v)?;
    }
    let stands_for = [mean.node, d.node, squares.node, variance.node, biased.node, deviation.node, n];
    let mut p = Patch::standing_for(&stands_for);
    let one = Tensor::from_f64(g.ty(x).dtype, &[], &[1.0]);
    let scale = p.constant("", Constant::splat(&one, shape).ok_or(No::Match)?);
    let y = p.op(LayerNorm { axis, epsilon }, &[x.into(), scale]);
    p.replace(result(n), y);
    Ok(p)
}

pub fn group_norm(g: &Graph, n: NodeId) -> Found {
    let Op::Reshape(_) = g.op(n) else { return Err(No::Match) };
    let normed = operand(g, n, 0)?;
    let Op::InstanceNorm(norm) = g.op(normed.node) else { return Err(No::Match) };
    let grouped = operand(g, normed.node, 0)?;
    let Op::Reshape(_) = g.op(grouped.node) else { return Err(No::Match) };
    let x = operand(g, grouped.node, 0)?;
    let (outer, inner) = (dims(g, x)?, dims(g, grouped)?);
    if g.ty(x) != g.ty(result(n)) || outer.len() < 3 || inner.len() < 3 || outer[0] != inner[0] {
        return Err(No::Match);
    }
    let (channels, groups) = (outer[1], inner[1]);
    if groups == 0 || channels % groups != 0 {
        return Err(No::Match);
    }
    let per_group = [vector(g, operand(g, normed.node, 1)?, groups)?, vector(g, operand(g, normed.node, 2)?, groups)?];
    sole_use(g, normed)?;
    sole_use(g, grouped)?;
    let mut p = Patch::standing_for(&[grouped.node, normed.node, n]);
    let spread = |v: &Vec<f64>| -> Vec<f64> { (0..channels).map(|c| v[c / (channels / groups)]).collect() };
    let [scale, bias] =
        per_group.each_ref().map(|v| p.constant("", float_constant(g.ty(x).dtype, &[channels], &spread(v))));
    let y = p.op(GroupNorm { epsilon: norm.epsilon, groups }, &[x.into(), scale, bias]);
    p.replace(result(n), y);
    Ok(p)
}

/// The normalization that `v` is, with the shape of its scale; `c`'s numbers in that shape, if `c` is one a scale.
fn norm_and_numbers(g: &Graph, v: ValueId, c: ValueId) -> Result<Vec<f64>, No> {
    let scale = match g.op(v.node) {
        Op::LayerNorm(_) | Op::GroupNorm(_) | Op::InstanceNorm(_) => operand(g, v.node, 1)?,
        _ => return Err(No::Match),
    };
    g.constant(scale).ok_or(No::Match)?;
    let (scale_dims, c_dims) = (dims(g, scale)?, dims(g, c)?);
    // The scale's shape as it broadcasts against the result: [C] stands on axis 1 of [N, C, ..], LayerNorm's at the end.
    let aligned: Vec<usize> = match g.op(v.node) {
        Op::LayerNorm(_) => scale_dims.clone(),
        _ => scale_dims.iter().copied().chain(vec![1; g.ty(v).rank() - 2]).collect(),
    };
    let own: Vec<usize> = c_dims.iter().copied().skip_while(|&d| d == 1).collect();
    let wanted: Vec<usize> = aligned.iter().copied().skip_while(|&d| d == 1).collect();
    if c_dims.len() > g.ty(v).rank() || (!own.is_empty() && own != wanted) {
        return Err(No::Match);
    }
    vector(g, c, scale_dims.iter().product())
}

/// The pair (normalization, constant) of a commutative operator.
fn norm_and_constant(g: &Graph, n: NodeId, f: BinaryFn) -> Result<(ValueId, ValueId), No> {
    let (a, b) = binary(g, result(n), f).ok_or(No::Match)?;
    let pair = if g.constant(b).is_some() { (a, b) } else { (b, a) };
    if g.constant(pair.1).is_some() && g.ty(pair.0) == g.ty(result(n)) { Ok(pair) } else { Err(No::Match) }
}

pub fn norm_scale(g: &Graph, n: NodeId) -> Found {
    let (v, c) = norm_and_constant(g, n, BinaryFn::Mul)?;
    let k = norm_and_numbers(g, v, c)?;
    rebuild(g, n, v, |i, scale| scale * k[i], |i, bias| bias * k[i])
}

pub fn norm_shift(g: &Graph, n: NodeId) -> Found {
    let (v, c) = norm_and_constant(g, n, BinaryFn::Add)?;
    let k = norm_and_numbers(g, v, c)?;
    rebuild(g, n, v, |_, scale| scale, |i, bias| bias + k[i])
}

/// The normalization `v` with other numbers, in place of `n`.
fn rebuild(
    g: &Graph,
    n: NodeId,
    v: ValueId,
    scale_of: impl Fn(usize, f64) -> f64,
    bias_of: impl Fn(usize, f64) -> f64,
) -> Found {
    let (x, scale) = (operand(g, v.node, 0)?, operand(g, v.node, 1)?);
    let shape = dims(g, scale)?;
    let len = shape.iter().product();
    let scales: Vec<f64> = vector(g, scale, len)?.into_iter().enumerate().map(|(i, s)| scale_of(i, s)).collect();
    let old_bias = match g.operand(v.node, 2) {
        Some(b) => vector(g, b, len)?,
        None => vec![0.0; len],
    };
    let biases: Vec<f64> = old_bias.into_iter().enumerate().map(|(i, b)| bias_of(i, b)).collect();
    sole_use(g, v)?;
    let dtype = g.ty(x).dtype;
    let mut p = Patch::standing_for(&[v.node, n]);
    let scale = p.constant("", float_constant(dtype, &shape, &scales));
    let needs_bias = !matches!(g.op(v.node), Op::LayerNorm(_)) || biases.iter().any(|&b| b != 0.0);
    let mut operands = vec![x.into(), scale];
    if needs_bias {
        operands.push(p.constant("", float_constant(dtype, &shape, &biases)));
    }
    let y = p.op(g.op(v.node).clone(), &operands);
    p.replace(result(n), y);
    Ok(p)
}
