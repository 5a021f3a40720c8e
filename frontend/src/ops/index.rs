//! Operators that read or write elements by index.

use super::Entry;
use crate::build::Stop;
use crate::node::{Imported, NodeCx};
use crate::value::Val;
use nncc_ir::ops::expand::Expand;
use nncc_ir::ops::scatter::ScatterReduction;
use nncc_ir::ops::{gather, one_hot, scatter, top_k, trilu};
use nncc_ir::pointwise::{BinaryFn, CompareFn};
use nncc_ir::{Dim, Tensor};

pub(super) const OPS: &[Entry] = &[
    Entry::new("Compress", &[9, 11, 28], compress).but("the condition must be known when compiling"),
    Entry::new("Gather", &[1, 11, 13], |n| {
        let (x, indices) = (n.operand(0, "data")?, n.operand(1, "indices")?);
        let axis = n.axis(n.int("axis", 0)?, n.rank(&x))?;
        Ok(vec![n.emit(gather::Gather { axis }, &[&x, &indices])?])
    }),
    Entry::new("GatherElements", &[11, 13], |n| {
        let (x, indices) = (n.operand(0, "data")?, n.operand(1, "indices")?);
        let axis = n.axis(n.int("axis", 0)?, n.rank(&x))?;
        Ok(vec![n.emit(gather::GatherElements { axis }, &[&x, &indices])?])
    }),
    Entry::new("GatherND", &[11, 12, 13], |n| {
        let (x, indices) = (n.operand(0, "data")?, n.operand(1, "indices")?);
        let batch_dims = match usize::try_from(n.int("batch_dims", 0)?) {
            Ok(b) => b,
            Err(_) => return n.invalid("the attribute `batch_dims` is negative"),
        };
        Ok(vec![n.emit(gather::GatherNd { batch_dims }, &[&x, &indices])?])
    }),
    Entry::new("NonZero", &[9, 13], non_zero).but("the operand must be known when compiling"),
    Entry::new("OneHot", &[9, 11, 28], one_hot_),
    Entry::new("ReverseSequence", &[10, 28], reverse_sequence),
    Entry::new("Scatter", &[9, 11], scatter_elements),
    Entry::new("ScatterElements", &[11, 13, 16, 18], scatter_elements),
    Entry::new("ScatterND", &[11, 13, 16, 18], |n| {
        let (x, indices, updates) = (n.operand(0, "data")?, n.operand(1, "indices")?, n.operand(2, "updates")?);
        let reduction = reduction(n)?;
        Ok(vec![n.emit(scatter::ScatterNd { reduction }, &[&x, &indices, &updates])?])
    }),
    Entry::new("TensorScatter", &[24], tensor_scatter),
    Entry::new("TopK", &[1, 10, 11, 24], top_k_),
    Entry::new("Trilu", &[14], |n| {
        let x = n.operand(0, "input")?;
        let k = match n.optional(1) {
            Some(k) => n.known_i64(&k, "k")?,
            None => 0,
        };
        let upper = n.flag("upper", true)?;
        Ok(vec![n.emit(trilu::Trilu { upper, k }, &[&x])?])
    }),
];

/// How updates combine: words came with opsets 16 and 18.
fn reduction(n: &NodeCx<'_>) -> Result<ScatterReduction, Stop> {
    use ScatterReduction as R;
    let words = [("none", R::None), ("add", R::Add), ("mul", R::Mul), ("max", R::Max), ("min", R::Min)];
    let known = if n.version < 16 {
        1
    } else if n.version < 18 {
        3
    } else {
        5
    };
    n.choice("reduction", "none", words.get(..known).unwrap_or(&words))
}

fn scatter_elements(n: &mut NodeCx<'_>) -> Imported {
    let (x, indices, updates) = (n.operand(0, "data")?, n.operand(1, "indices")?, n.operand(2, "updates")?);
    let axis = n.axis(n.int("axis", 0)?, n.rank(&x))?;
    let reduction = reduction(n)?;
    Ok(vec![n.emit(scatter::ScatterElements { axis, reduction }, &[&x, &indices, &updates])?])
}

fn one_hot_(n: &mut NodeCx<'_>) -> Imported {
    let (indices, depth, values) = (n.operand(0, "indices")?, n.operand(1, "depth")?, n.operand(2, "values")?);
    let depth = match n.known_i64(&depth, "depth")? {
        d if d > 0 => usize::try_from(d).unwrap_or(usize::MAX),
        d => return n.invalid(format!("the depth {d}")),
    };
    let axis = n.axis(n.int("axis", -1)?, n.rank(&indices) + 1)?;
    Ok(vec![n.emit(one_hot::OneHot { axis, depth }, &[&indices, &values])?])
}

/// k is an attribute in opset 1, an operand since 10.
fn top_k_(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "X")?;
    let k = if n.version < 10 {
        Dim::Known(n.required_int("k")?)
    } else {
        let k = n.operand(1, "K")?;
        match &n.known_list(&k, "K")?[..] {
            [k] => k.clone(),
            many => return n.invalid(format!("the operand `K` has {} elements, not 1", many.len())),
        }
    };
    let axis = n.axis(n.int("axis", -1)?, n.rank(&x))?;
    let (largest, sorted) = (n.flag("largest", true)?, n.flag("sorted", true)?);
    n.emit_all(top_k::TopK { axis, k, largest, sorted }, &[Some(&x)])
}

/// `0, 1, .. size - 1` along one axis, the other axes of length 1.
fn positions(n: &mut NodeCx<'_>, size: usize, axis: usize, rank: usize) -> Result<Val, Stop> {
    n.builder.spend(size)?;
    let mut dims = vec![1; rank];
    dims[axis] = size;
    Ok(n.constant(&Tensor::i64(&dims, (0..size as i64).collect())))
}

/// A list of one number for each element of an axis, as a tensor of `rank` axes.
fn along(n: &mut NodeCx<'_>, list: &Val, axis: usize, rank: usize) -> Result<Val, Stop> {
    let size = match &n.shape(list)[..] {
        [size] => size.clone(),
        dims => return n.invalid(format!("an operand has {} dimensions, not 1", dims.len())),
    };
    let mut shape = vec![Dim::Known(1); rank];
    shape[axis] = size;
    super::shape::reshaped(n, list, shape)
}

/// Of each element of the batch, the first `sequence_lens` steps of time backwards: a gather whose indices are computed.
fn reverse_sequence(n: &mut NodeCx<'_>) -> Imported {
    let (x, lens) = (n.operand(0, "input")?, n.operand(1, "sequence_lens")?);
    let rank = n.rank(&x);
    let (time, batch) = (n.axis(n.int("time_axis", 0)?, rank)?, n.axis(n.int("batch_axis", 1)?, rank)?);
    if time == batch {
        return n.invalid("the attributes `time_axis` and `batch_axis` are equal");
    }
    let steps = n.known_dims(&x, "its number of steps is not known")?.get(time).copied().unwrap_or(0);
    let (at, lens) = (positions(n, steps, time, rank)?, along(n, &lens, batch, rank)?);
    let last = n.binary_const(BinaryFn::Sub, &lens, 1.0)?;
    let mirrored = n.binary(BinaryFn::Sub, &last, &at)?;
    let within = n.compare(CompareFn::Lt, &at, &lens)?;
    let from = n.select(&within, &mirrored, &at)?;
    let from = n.emit(Expand { shape: n.shape(&x) }, &[&from])?;
    Ok(vec![n.emit(gather::GatherElements { axis: time }, &[&x, &from])?])
}

/// Updates written into a cache, one behind the other from the place that each element of the batch names.
fn tensor_scatter(n: &mut NodeCx<'_>) -> Imported {
    let (cache, update, first) = (n.operand(0, "past_cache")?, n.operand(1, "update")?, n.optional(2));
    let rank = n.rank(&cache);
    let axis = n.axis(n.int("axis", -2)?, rank)?;
    if axis == 0 || n.rank(&update) != rank {
        return n.invalid("the axis is the batch's, or cache and update differ in rank");
    }
    let size = |v: &Val, what| Ok::<_, Stop>(n.known_dims(v, what)?.get(axis).copied().unwrap_or(0));
    let (room, steps) = (size(&cache, "its length is not known")?, size(&update, "its length is not known")?);
    let mut at = positions(n, steps, axis, rank)?;
    if let Some(first) = first {
        let first = along(n, &first, 0, rank)?;
        at = n.binary(BinaryFn::Add, &first, &at)?;
    }
    if n.choice("mode", "linear", &[("linear", false), ("circular", true)])? {
        at = n.binary_const(BinaryFn::Mod, &at, room as f64)?;
    }
    let at = n.emit(Expand { shape: n.shape(&update) }, &[&at])?;
    let op = scatter::ScatterElements { axis, reduction: ScatterReduction::None };
    Ok(vec![n.emit(op, &[&cache, &at, &update])?])
}

/// The indices of what is not zero, one column an element. How many there are must be known, so that this works on
/// constants only; exporters use it in shape arithmetic.
fn non_zero(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "X")?;
    let t = n.known_tensor(&x, "X")?;
    let rows = t.dims().len();
    let hits: Vec<Vec<usize>> =
        nncc_ir::tensor::indices(t.dims()).zip(t.to_f64()).filter(|(_, x)| *x != 0.0).map(|(i, _)| i).collect();
    n.builder.spend(hits.len().saturating_mul(rows))?;
    let at = |row: usize| hits.iter().map(move |i| i.get(row).copied().unwrap_or(0) as i64);
    let elems: Vec<i64> = (0..rows).flat_map(at).collect();
    Ok(vec![n.constant(&Tensor::i64(&[rows, hits.len()], elems))])
}

/// The slices along an axis (or the elements of the flattened operand) for which a constant condition is true.
fn compress(n: &mut NodeCx<'_>) -> Imported {
    let (x, condition) = (n.operand(0, "input")?, n.operand(1, "condition")?);
    let condition = n.known_i64s(&condition, "condition")?;
    let (x, axis) = match n.maybe_int("axis")? {
        Some(axis) => {
            let axis = n.axis(axis, n.rank(&x))?;
            (x, axis)
        }
        None => {
            let flat = n.shape(&x).iter().fold(Dim::Known(1), |p, d| p.mul(d));
            (super::shape::reshaped(n, &x, vec![flat])?, 0)
        }
    };
    let kept: Vec<i64> = (0..).zip(&condition).filter(|(_, c)| **c != 0).map(|(i, _)| i).collect();
    let kept = n.constant(&Tensor::i64(&[kept.len()], kept));
    Ok(vec![n.emit(gather::Gather { axis }, &[&x, &kept])?])
}
