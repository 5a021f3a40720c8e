//! Attention and rotary embeddings, written out in matrix products, softmax and elementwise operators.
//!
//! ```text
//! scores = softcap(scale * Q . K^T) + bias        bias: 0 where a key may be seen, -inf where not; a float mask is added
//! Y      = softmax(scores) . V                    a query that sees no key gives zeros
//! ```
//!
//! Operands of rank 3 hold their heads side by side in the last axis. With fewer key heads than query heads, each key head
//! serves a group of neighbouring query heads.

use super::Entry;
use crate::build::Stop;
use crate::node::{Imported, NodeCx};
use crate::value::Val;
use nncc_ir::ops::concat::Concat;
use nncc_ir::ops::expand::Expand;
use nncc_ir::ops::gather::Gather;
use nncc_ir::ops::matmul::MatMul;
use nncc_ir::ops::pad::{Pad, PadMode};
use nncc_ir::ops::reduce::{Reduce, ReduceKind};
use nncc_ir::ops::reshape::Reshape;
use nncc_ir::ops::slice::Slice;
use nncc_ir::ops::softmax::Softmax;
use nncc_ir::ops::transpose::Transpose;
use nncc_ir::pointwise::{BinaryFn, CompareFn, UnaryFn};
use nncc_ir::{DType, Dim, Tensor};

pub(super) const OPS: &[Entry] =
    &[Entry::new("Attention", &[23, 24, 25], attention), Entry::new("RotaryEmbedding", &[23], rotary_embedding)];

/// `[B, S, H*D] -> [B, H, S, D]`.
fn split_heads(n: &mut NodeCx<'_>, x: &Val, heads: usize) -> Result<Val, Stop> {
    let shape = n.shape(x);
    let [batch, length, hidden] = &shape[..] else {
        return n.invalid(format!("an operand has {} axes, not 3", shape.len()));
    };
    let heads = Dim::from(heads);
    let Some(each) = hidden.floor_div(&heads) else { return n.invalid("the number of heads is 0") };
    let parts = n.emit(Reshape { shape: vec![batch.clone(), length.clone(), heads, each] }, &[x])?;
    n.emit(Transpose { perm: vec![0, 2, 1, 3] }, &[&parts])
}

/// `[B, H, S, D]` with every head repeated `times` times.
fn repeat_heads(n: &mut NodeCx<'_>, x: &Val, times: i64) -> Result<Val, Stop> {
    let shape = n.shape(x);
    let [b, h, s, d] = &shape[..] else { return n.invalid(format!("an operand has {} axes, not 4", shape.len())) };
    if times == 1 {
        return Ok(x.clone());
    }
    let with = |k: i64| vec![b.clone(), h.clone(), Dim::Known(k), s.clone(), d.clone()];
    let column = n.emit(Reshape { shape: with(1) }, &[x])?;
    let repeated = n.emit(Expand { shape: with(times) }, &[&column])?;
    n.emit(Reshape { shape: vec![b.clone(), h.mul(&Dim::Known(times)), s.clone(), d.clone()] }, &[&repeated])
}

/// How many keys stand before the first query: a number, or one a sample, of shape `[B, 1, 1, 1]`.
enum Offset {
    Known(i64),
    Batch(Val),
}

/// Which keys a query may see, as far as that is not left to a float mask.
struct Visible {
    allowed: Option<Val>,
    /// Whether a query may see no key at all.
    may_be_empty: bool,
}

impl Visible {
    fn restrict(&mut self, n: &mut NodeCx<'_>, by: Val) -> Result<(), Stop> {
        self.allowed = Some(match &self.allowed {
            Some(a) => n.binary(BinaryFn::And, a, &by)?,
            None => by,
        });
        Ok(())
    }

    /// Keys `j` of query `i` with `j - i` compared to `offset + by`.
    fn relative(
        &mut self,
        n: &mut NodeCx<'_>,
        distance: &Val,
        f: CompareFn,
        offset: &Offset,
        by: i64,
    ) -> Result<(), Stop> {
        let bound = match offset {
            Offset::Known(o) => n.constant(&Tensor::i64(&[], vec![o.saturating_add(by)])),
            Offset::Batch(v) => {
                let by = n.constant(&Tensor::i64(&[], vec![by]));
                n.binary(BinaryFn::Add, v, &by)?
            }
        };
        let seen = n.compare(f, distance, &bound)?;
        self.restrict(n, seen)
    }
}

fn attention(n: &mut NodeCx<'_>) -> Imported {
    let (mut q, mut k, mut v) = (n.operand(0, "Q")?, n.operand(1, "K")?, n.operand(2, "V")?);
    let flat = n.rank(&q) == 3;
    if flat {
        let (q_heads, kv_heads) = (n.count("q_num_heads", None)?, n.count("kv_num_heads", None)?);
        q = split_heads(n, &q, q_heads)?;
        k = split_heads(n, &k, kv_heads)?;
        v = split_heads(n, &v, kv_heads)?;
    }
    if [&q, &k, &v].iter().any(|x| n.rank(x) != 4) {
        return n.invalid("Q, K and V must all have 3 axes or all 4");
    }
    let mut past = None;
    if let (Some(past_k), Some(past_v)) = (n.optional(4), n.optional(5)) {
        past = Some(n.known_dims(&past_k, "the length of its past is not known")?);
        k = n.emit(Concat { axis: 2 }, &[&past_k, &k])?;
        v = n.emit(Concat { axis: 2 }, &[&past_v, &v])?;
    }
    let present = [k.clone(), v.clone()];
    let heads = |n: &NodeCx<'_>, x: &Val| n.shape(x).get(1).and_then(Dim::known).unwrap_or(0);
    let (q_heads, kv_heads) = (heads(n, &q), heads(n, &k));
    if kv_heads == 0 || q_heads % kv_heads != 0 {
        return n.invalid(format!("{q_heads} query heads do not divide among {kv_heads} key heads"));
    }
    k = repeat_heads(n, &k, q_heads / kv_heads)?;
    v = repeat_heads(n, &v, q_heads / kv_heads)?;

    let dtype = n.dtype(&q);
    let scale = match n.maybe_float("scale")? {
        Some(scale) => scale,
        None => match n.shape(&q).get(3).and_then(Dim::known) {
            Some(size) if size > 0 => 1.0 / (size as f64).sqrt(),
            _ => return n.invalid("the heads' size is not known or 0"),
        },
    };
    let scaled = n.binary_const(BinaryFn::Mul, &q, scale)?;
    let keys = n.emit(Transpose { perm: vec![0, 1, 3, 2] }, &[&k])?;
    let product = n.emit(MatMul {}, &[&scaled, &keys])?;
    let mut stages = vec![product.clone()];
    let softcap = n.float("softcap", 0.0)?;
    let mut scores = product;
    if softcap > 0.0 {
        let small = n.binary_const(BinaryFn::Div, &scores, softcap)?;
        let bent = n.unary(UnaryFn::Tanh, &small)?;
        scores = n.binary_const(BinaryFn::Mul, &bent, softcap)?;
    }
    stages.push(scores.clone());
    let past_length = past.and_then(|d| d.get(2).copied()).and_then(|l| i64::try_from(l).ok());
    let (visible, float_mask) = visible_keys(n, &q, &k, past_length)?;
    if let Some(mask) = &float_mask {
        scores = n.binary(BinaryFn::Add, &scores, mask)?;
    }
    if let Some(allowed) = &visible.allowed {
        let (zero, hidden) = (n.scalar(dtype, 0.0), n.scalar(dtype, f64::NEG_INFINITY));
        let bias = n.select(allowed, &zero, &hidden)?;
        scores = n.binary(BinaryFn::Add, &scores, &bias)?;
    }
    stages.push(scores.clone());
    let mut weights = n.emit(Softmax { axis: 3 }, &[&scores])?;
    if visible.may_be_empty || float_mask.is_some() {
        let largest = n.emit(Reduce { kind: ReduceKind::Max, axes: vec![3], keepdims: true }, &[&scores])?;
        let (zero, hidden) = (n.scalar(dtype, 0.0), n.scalar(dtype, f64::NEG_INFINITY));
        let none = n.compare(CompareFn::Eq, &largest, &hidden)?;
        weights = n.select(&none, &zero, &weights)?;
    }
    stages.push(weights.clone());
    let mut y = n.emit(MatMul {}, &[&weights, &v])?;
    if flat {
        let shape = n.shape(&y);
        let [b, h, s, d] = &shape[..] else { return n.invalid("the product has not 4 axes") };
        y = n.emit(Transpose { perm: vec![0, 2, 1, 3] }, &[&y])?;
        y = n.emit(Reshape { shape: vec![b.clone(), s.clone(), h.mul(d)] }, &[&y])?;
    }
    let mode = n.int("qk_matmul_output_mode", 0)?;
    let Some(stage) = usize::try_from(mode).ok().and_then(|m| stages.get(m)) else {
        return n.invalid(format!("the attribute `qk_matmul_output_mode` is {mode}, not 0 to 3"));
    };
    let [present_k, present_v] = present;
    Ok(vec![y, present_k, present_v, stage.clone()])
}

/// What masks, causality, windows and padding leave of the keys, and the float mask if there is one.
fn visible_keys(n: &mut NodeCx<'_>, q: &Val, k: &Val, past: Option<i64>) -> Result<(Visible, Option<Val>), Stop> {
    let mut visible = Visible { allowed: None, may_be_empty: false };
    let mut float_mask = None;
    let keys = n.shape(k).get(2).cloned().unwrap_or(Dim::Known(0));
    if let Some(mut mask) = n.optional(3) {
        let is_bool = n.dtype(&mask) == DType::Bool;
        let shape = n.shape(&mask);
        if let Some(last) = shape.last()
            && let Some(missing) = keys.sub(last).known().filter(|m| *m > 0)
            && *last != Dim::Known(1)
        {
            let (before, mut after) = (vec![0; shape.len()], vec![0; shape.len()]);
            after[shape.len() - 1] = missing;
            let value = if is_bool { 0.0 } else { f64::NEG_INFINITY };
            mask = n.emit(Pad { before, after, mode: PadMode::Constant, value }, &[&mask])?;
        }
        if is_bool {
            visible.may_be_empty = true;
            visible.restrict(n, mask)?;
        } else {
            float_mask = Some(mask);
        }
    }
    let causal = n.flag("is_causal", false)?;
    let (left, right) = (n.int("left_window_size", -1)?, n.int("right_window_size", -1)?);
    let valid = n.optional(6);
    if !causal && left < 0 && right < 0 && valid.is_none() {
        return Ok((visible, float_mask));
    }
    let sizes = [n.shape(q).get(2).cloned(), Some(keys)].map(|d| d.and_then(|d| d.size()));
    let [Some(queries), Some(keys)] = sizes else {
        return n.unsupported("with a mask by position over lengths that are not known (--dim gives them)");
    };
    n.builder.spend(queries.saturating_mul(keys))?;
    let (queries_i64, index) =
        (i64::try_from(queries).unwrap_or(i64::MAX), |i: usize| i64::try_from(i).unwrap_or(i64::MAX));
    let mut offset = Offset::Known(past.unwrap_or(0));
    if let Some(valid) = valid {
        let batch = n.shape(&valid);
        let shape = batch.into_iter().chain([1, 1, 1].map(Dim::Known)).collect();
        let valid = n.cast(&valid, DType::I64)?;
        let valid = n.emit(Reshape { shape }, &[&valid])?;
        let positions = n.constant(&Tensor::i64(&[keys], (0..keys).map(index).collect()));
        let filled = n.compare(CompareFn::Lt, &positions, &valid)?;
        visible.restrict(n, filled)?;
        visible.may_be_empty = true;
        let length = n.constant(&Tensor::i64(&[], vec![queries_i64]));
        offset = Offset::Batch(n.binary(BinaryFn::Sub, &valid, &length)?);
    }
    let distances = (0..queries).flat_map(|i| (0..keys).map(move |j| index(j) - index(i))).collect();
    let distance = n.constant(&Tensor::i64(&[queries, keys], distances));
    if causal {
        visible.relative(n, &distance, CompareFn::Le, &offset, 0)?;
    }
    if left >= 0 {
        visible.may_be_empty = true;
        visible.relative(n, &distance, CompareFn::Ge, &offset, -left)?;
    }
    if right >= 0 {
        visible.relative(n, &distance, CompareFn::Le, &offset, right)?;
    }
    Ok((visible, float_mask))
}

/// `len` elements of an axis from `start` on, every `step`th.
fn part(n: &mut NodeCx<'_>, x: &Val, axis: usize, start: usize, len: usize, step: i64) -> Result<Val, Stop> {
    let mut lens = n.shape(x);
    let (mut starts, mut steps) = (vec![Dim::Known(0); lens.len()], vec![1; lens.len()]);
    if axis >= lens.len() {
        return n.invalid(format!("axis {axis} of a value of rank {}", lens.len()));
    }
    (starts[axis], lens[axis], steps[axis]) = (Dim::from(start), Dim::from(len), step);
    n.emit(Slice { starts, lens, steps }, &[x])
}

/// Pairs of features rotated by angles: the halves of a head are the pairs, or neighbours with `interleaved`.
fn rotary_embedding(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "X")?;
    let caches = [n.operand(1, "cos_cache")?, n.operand(2, "sin_cache")?];
    let original = n.shape(&x);
    let flat = original.len() == 3;
    let heads_first = match original.len() {
        3 => {
            let heads = n.count("num_heads", None)?;
            split_heads(n, &x, heads)?
        }
        4 => x,
        other => return n.invalid(format!("the operand has {other} axes, not 3 or 4")),
    };
    let Some(size) = n.shape(&heads_first).get(3).and_then(Dim::size) else {
        return n.invalid("the heads' size is not known");
    };
    let rotated = match usize::try_from(n.int("rotary_embedding_dim", 0)?) {
        Ok(0) => size,
        Ok(dim) if dim <= size => dim,
        _ => return n.invalid("the attribute `rotary_embedding_dim` is not in a head"),
    };
    if rotated % 2 != 0 {
        return n.invalid(format!("{rotated} features are not pairs"));
    }
    let half = rotated / 2;
    let positions = n.optional(3);
    // Angles as [B, 1, S, half], against values as [B, H, S, half].
    let mut angles = Vec::new();
    for cache in caches {
        let cache = match &positions {
            Some(at) => n.emit(Gather { axis: 0 }, &[&cache, at])?,
            None => cache,
        };
        let mut shape = n.shape(&cache);
        if shape.len() != 3 {
            return n.invalid(format!("angles of {} axes, not [batch, length, features]", shape.len()));
        }
        shape.insert(1, Dim::Known(1));
        angles.push(n.emit(Reshape { shape }, &[&cache])?);
    }
    let [cos, sin] = &angles[..] else { return n.invalid("an operand is missing") };
    let interleaved = n.flag("interleaved", false)?;
    let (first, step) = if interleaved { (1, 2) } else { (half, 1) };
    let a = part(n, &heads_first, 3, 0, half, step)?;
    let b = part(n, &heads_first, 3, first.min(size.saturating_sub(1)), half, step)?;
    let [ca, sb, sa, cb] = [(cos, &a), (sin, &b), (sin, &a), (cos, &b)].map(|(t, x)| n.binary(BinaryFn::Mul, t, x));
    let (real, imaginary) = (n.binary(BinaryFn::Sub, &ca?, &sb?)?, n.binary(BinaryFn::Add, &sa?, &cb?)?);
    let mut y = if interleaved {
        let mut columns = Vec::new();
        for part in [&real, &imaginary] {
            let mut shape = n.shape(part);
            shape.push(Dim::Known(1));
            columns.push(n.emit(Reshape { shape }, &[part])?);
        }
        let pairs = n.emit(Concat { axis: 4 }, &columns.iter().collect::<Vec<_>>())?;
        let mut shape = n.shape(&real);
        shape[3] = Dim::from(rotated);
        n.emit(Reshape { shape }, &[&pairs])?
    } else {
        n.emit(Concat { axis: 3 }, &[&real, &imaginary])?
    };
    if rotated < size {
        let rest = part(n, &heads_first, 3, rotated, size - rotated, 1)?;
        y = n.emit(Concat { axis: 3 }, &[&y, &rest])?;
    }
    if flat {
        y = n.emit(Transpose { perm: vec![0, 2, 1, 3] }, &[&y])?;
        y = n.emit(Reshape { shape: original }, &[&y])?;
    }
    Ok(vec![y])
}
