//! Folds an inference BatchNorm, and constant scales and shifts per channel, into the convolution or matrix product before
//! or behind it.
//!
//! ```text
//! %c = conv %x, w, b                              k = gamma / sqrt(var + eps),   s = beta - k * mu
//! %y = batch_norm %c, gamma, beta, mu, var   ->   %y = conv %x, w', b'           w'[o, ..] = k[o] w[o, ..]   b' = k b + s
//!
//! %n = batch_norm %x, ...                         w'[o, i, ..] = w[o, i, ..] k[i]
//! %y = conv %n, w, b, no padding             ->   b'[o] = b[o] + sum_i s[i] sum(w[o, i, ..])
//!
//! %y = mul %c, k[C,1,1]    %y = add %c, s[C,1,1]  as the first, with s = 0 or k = 1
//! %y = batch_norm %x       with nothing to fold into    ->   %y = add (mul %x, k[C,1,1]), s[C,1,1]
//! ```
//!
//! Needs: all parameters constant; the inner value has no other user (else the convolution would run twice). Conv,
//! ConvTranspose and 2-d Gemm and MatMul with constant weights.
//! Keeps: shape, dtype, name of `%y`. Rounding moves: factors are computed in f64 and weights rounded once, so that results
//! agree to a few ulp of `sum |w||x|`, not bit by bit.
//! Refused: BatchNorm before a padded convolution: zero is not a fixed point of it, so the border would be wrong.

use crate::pass::{OptLevel, Part, Pass, PassCx, PassError};
use crate::rewrite::{
    Found, No, Patch, Rule, constant, dims, float_constant, operand, refuse, result, rewrite, sole_use, vector,
};
use crate::weights::{bias, mapped, scaled, vector_constant};
use nncc_ir::ops::elementwise::Binary;
use nncc_ir::ops::matmul::Gemm;
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::{Constant, Graph, NodeId, Op, ValueId};

/// The pass.
pub const PASS: Pass = Pass { name: "fold-batch-norm", level: OptLevel::O2, run };

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    let folds = [
        Rule { name: "batch_norm_behind", find: batch_norm_behind },
        Rule { name: "scale_behind", find: scale_behind },
        Rule { name: "shift_behind", find: shift_behind },
        Rule { name: "batch_norm_before", find: batch_norm_before },
    ];
    let folded = if cx.leaves_out(Part::BatchNormFolding) { 0 } else { rewrite(g, cx, &folds)? };
    // Only what no fold wanted: the others would not find their BatchNorm any more.
    Ok(folded + rewrite(g, cx, &[Rule { name: "batch_norm_alone", find: batch_norm_alone }])?)
}

/// `y = k * x + s`, one pair a channel.
struct Affine {
    k: Vec<f64>,
    s: Vec<f64>,
}

/// What a BatchNorm does, if its parameters are constant.
fn affine(g: &Graph, n: NodeId) -> Result<Affine, No> {
    let Op::BatchNorm(b) = g.op(n) else { return Err(No::Match) };
    let x = operand(g, n, 0)?;
    let channels = g.ty(x).shape.get(1).and_then(|d| d.size()).ok_or(No::Match)?;
    let mut parameters = Vec::new();
    for i in 1..5 {
        let v = operand(g, n, i)?;
        if g.constant(v).is_none() {
            return refuse!("%{} is not constant", g.value(v).name);
        }
        parameters.push(vector(g, v, channels)?);
    }
    let [gamma, beta, mean, var] = &parameters[..] else { return Err(No::Match) };
    let k: Vec<f64> = (0..channels).map(|c| gamma[c] / (var[c] + b.epsilon).sqrt()).collect();
    let s = (0..channels).map(|c| beta[c] - k[c] * mean[c]).collect();
    Ok(Affine { k, s })
}

/// A convolution or matrix product with constant weights: where its output channels lie in them.
struct Linear {
    weights: ValueId,
    /// The axis of the weights that is the output channel, or for a grouped ConvTranspose none.
    channel_axis: usize,
    channels: usize,
    /// The factor of the bias operand.
    beta: f64,
}

fn linear(g: &Graph, v: ValueId) -> Result<Linear, No> {
    let n = v.node;
    if !matches!(g.op(n), Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm(_) | Op::MatMul(_)) {
        return Err(No::Match);
    }
    let weights = operand(g, n, 1)?;
    let channels = g.ty(v).shape.get(1).and_then(|d| d.size()).ok_or(No::Match)?;
    let two_d = g.ty(v).rank() == 2 && g.ty(weights).rank() == 2;
    let (channel_axis, beta) = match g.op(n) {
        Op::Conv(_) => (0, 1.0),
        Op::ConvTranspose(_) => (1, 1.0),
        Op::Gemm(m) => (if m.trans_b { 0 } else { 1 }, m.beta),
        Op::MatMul(_) if two_d => (1, 1.0),
        _ => return Err(No::Match),
    };
    if g.constant(weights).is_none() {
        return refuse!("the weights %{} are not constant", g.value(weights).name);
    }
    if !g.ty(weights).dtype.is_float() {
        return Err(No::Match);
    }
    Ok(Linear { weights, channel_axis, channels, beta })
}

/// Weights with output channel `o` multiplied by `k[o]`.
fn scale_outputs(g: &Graph, n: NodeId, l: &Linear, k: &[f64]) -> Result<Constant, No> {
    let w = constant(g, l.weights)?;
    match g.op(n) {
        // w[c, j, ..] of group c / (C / group) makes output channel group * (M / group) + j.
        Op::ConvTranspose(t) if t.group > 1 => {
            let (c_in, per_group) = (w.dims()[0], w.dims()[1]);
            let inner: usize = w.dims()[2..].iter().product();
            mapped(w, |i| {
                let (c, j) = (i / (inner * per_group), i / inner % per_group);
                k[c / (c_in / t.group) * per_group + j]
            })
            .ok_or(No::Match)
        }
        _ => scaled(w, l.channel_axis, k).ok_or(No::Match),
    }
}

/// Replaces `n`, which is `k * %inner + s` by channel, by the operator of `%inner` with other weights and bias.
fn fold_behind(g: &Graph, n: NodeId, inner: ValueId, a: &Affine) -> Found {
    let l = linear(g, inner)?;
    if a.k.len() != l.channels || g.ty(inner) != g.ty(result(n)) {
        return Err(No::Match);
    }
    let b = g.operand(inner.node, 2);
    if let Some(b) = b.filter(|b| g.constant(*b).is_none()) {
        return refuse!("the bias %{} is not constant", g.value(b).name);
    }
    let old = bias(g, b, l.channels)?;
    sole_use(g, inner)?;
    let new: Vec<f64> = (0..l.channels).map(|c| a.k[c] * l.beta * old[c] + a.s[c]).collect();
    let mut p = Patch::standing_for(&[inner.node, n]);
    let w = if a.k.iter().all(|&k| k == 1.0) {
        l.weights.into()
    } else {
        p.constant(&format!("{}.scaled", g.value(l.weights).name), scale_outputs(g, inner.node, &l, &a.k)?)
    };
    let op: Op = match g.op(inner.node) {
        Op::Gemm(m) => Gemm { beta: 1.0, ..m.clone() }.into(),
        Op::MatMul(_) => Gemm { trans_a: false, trans_b: false, alpha: 1.0, beta: 1.0 }.into(),
        op => op.clone(),
    };
    let x = operand(g, inner.node, 0)?;
    let y = if new.iter().all(|&b| b == 0.0) {
        p.op(op, &[x.into(), w])
    } else {
        let b = p.constant("", vector_constant(g.ty(inner).dtype, &new));
        p.op(op, &[x.into(), w, b])
    };
    p.replace(result(n), y);
    Ok(p)
}

fn batch_norm_behind(g: &Graph, n: NodeId) -> Found {
    let Op::BatchNorm(_) = g.op(n) else { return Err(No::Match) };
    let inner = operand(g, n, 0)?;
    linear(g, inner)?;
    fold_behind(g, n, inner, &affine(g, n)?)
}

/// The other operand of `n = f(%inner, c)` as one number a channel of `%inner`.
fn per_channel(g: &Graph, n: NodeId, f: BinaryFn) -> Result<(ValueId, Vec<f64>), No> {
    let Op::Binary(b) = g.op(n) else { return Err(No::Match) };
    let (x, y) = (operand(g, n, 0)?, operand(g, n, 1)?);
    let (inner, c) = if g.constant(y).is_some() { (x, y) } else { (y, x) };
    if b.function != f || g.constant(c).is_none() {
        return Err(No::Match);
    }
    let l = linear(g, inner)?;
    let (rank, c_dims) = (g.ty(inner).rank(), dims(g, c)?);
    // [1, C, 1, ..] without leading ones, or a single number.
    let channel = rank.checked_sub(1).and_then(|from_end| c_dims.len().checked_sub(from_end));
    let only_channels = c_dims.iter().enumerate().all(|(i, &d)| d == 1 || (Some(i) == channel && d == l.channels));
    if c_dims.len() > rank || !only_channels {
        return Err(No::Match);
    }
    if g.ty(inner) != g.ty(result(n)) {
        return Err(No::Match);
    }
    let numbers = match g.constant(c).and_then(Constant::splat_value) {
        Some(t) => vec![t.to_f64()[0]; l.channels],
        None => vector(g, c, l.channels)?,
    };
    Ok((inner, numbers))
}

fn scale_behind(g: &Graph, n: NodeId) -> Found {
    let (inner, k) = per_channel(g, n, BinaryFn::Mul)?;
    let s = vec![0.0; k.len()];
    fold_behind(g, n, inner, &Affine { k, s })
}

fn shift_behind(g: &Graph, n: NodeId) -> Found {
    let (inner, s) = per_channel(g, n, BinaryFn::Add)?;
    let k = vec![1.0; s.len()];
    fold_behind(g, n, inner, &Affine { k, s })
}

fn batch_norm_before(g: &Graph, n: NodeId) -> Found {
    let normed = match g.op(n) {
        Op::Conv(_) | Op::Gemm(_) | Op::MatMul(_) => operand(g, n, 0)?,
        _ => return Err(No::Match),
    };
    let Op::BatchNorm(_) = g.op(normed.node) else { return Err(No::Match) };
    let l = linear(g, result(n))?;
    let a = affine(g, normed.node)?;
    let w = constant(g, l.weights)?;
    let (group, input_axis) = match g.op(n) {
        Op::Conv(c) if c.pads.iter().any(|&p| p != 0) && a.s.iter().any(|&s| s != 0.0) => {
            return refuse!("the convolution pads with zeros, which the normalization would have shifted");
        }
        Op::Conv(c) => (c.group, 1),
        Op::Gemm(m) if m.trans_a || m.alpha != 1.0 => return Err(No::Match),
        Op::Gemm(_) | Op::MatMul(_) => (1, 1 - l.channel_axis),
        _ => return Err(No::Match),
    };
    let b = g.operand(n, 2);
    if b.is_some_and(|b| g.constant(b).is_none()) {
        return Err(No::Match);
    }
    sole_use(g, normed)?;
    let wd = w.dims().to_vec();
    let (outputs, per_group) = (l.channels, wd[input_axis]);
    if a.k.len() != per_group * group {
        return Err(No::Match);
    }
    let inner: usize = wd[2..].iter().product();
    // The output and input channel of weight number i.
    let channels = |i: usize| {
        let (first, second) = (i / inner / wd[1], i / inner % wd[1]);
        let (o, c) = if input_axis == 1 { (first, second) } else { (second, first) };
        (o, o / (outputs / group) * per_group + c)
    };
    let mut new: Vec<f64> = bias(g, b, outputs)?.iter().map(|b| b * l.beta).collect();
    for (i, w) in w.to_tensor().to_f64().into_iter().enumerate() {
        let (o, c) = channels(i);
        new[o] += w * a.s[c];
    }
    let mut p = Patch::standing_for(&[normed.node, n]);
    let name = format!("{}.scaled", g.value(l.weights).name);
    let w = p.constant(&name, mapped(w, |i| a.k[channels(i).1]).ok_or(No::Match)?);
    let b = p.constant("", vector_constant(g.ty(result(n)).dtype, &new));
    let op: Op = match g.op(n) {
        Op::Gemm(m) => Gemm { beta: 1.0, ..m.clone() }.into(),
        Op::MatMul(_) => Gemm { trans_a: false, trans_b: false, alpha: 1.0, beta: 1.0 }.into(),
        op => op.clone(),
    };
    let y = p.op(op, &[operand(g, normed.node, 0)?.into(), w, b]);
    p.replace(result(n), y);
    Ok(p)
}

/// Two elementwise operators, which fuse with what stands around them.
fn batch_norm_alone(g: &Graph, n: NodeId) -> Found {
    let a = affine(g, n)?;
    let x = operand(g, n, 0)?;
    let ty = g.ty(x);
    let mut shape = vec![a.k.len()];
    shape.extend(std::iter::repeat_n(1, ty.rank() - 2));
    let mut p = Patch::standing_for(&[n]);
    let k = p.constant("", float_constant(ty.dtype, &shape, &a.k));
    let s = p.constant("", float_constant(ty.dtype, &shape, &a.s));
    let scaled = p.op(Binary { function: BinaryFn::Mul }, &[x.into(), k]);
    let y = p.op(Binary { function: BinaryFn::Add }, &[scaled, s]);
    p.replace(result(n), y);
    Ok(p)
}
