//! Pooling: windows, and the global pools, which are reductions over all spatial axes.

use super::Entry;
use super::window::{Window, spatial, window};
use crate::build::Stop;
use crate::node::{Imported, NodeCx};
use crate::value::Val;
use nncc_ir::ops::pool as ir;
use nncc_ir::ops::reduce::{Reduce, ReduceKind};
use nncc_ir::pointwise::{BinaryFn, UnaryFn};

pub(super) const OPS: &[Entry] = &[
    Entry::new("AveragePool", &[1, 7, 10, 11, 19, 22], average_pool),
    Entry::new("GlobalAveragePool", &[1, 22], |n| global(n, ReduceKind::Mean)),
    Entry::new("GlobalLpPool", &[1, 2, 22], global_lp),
    Entry::new("GlobalMaxPool", &[1, 22], |n| global(n, ReduceKind::Max)),
    Entry::new("LpPool", &[1, 2, 11, 18, 22], lp_pool),
    Entry::new("MaxPool", &[1, 8, 10, 11, 12, 22], max_pool),
];

/// The operand and its window.
fn pooled(n: &NodeCx<'_>) -> Result<(Val, Window), Stop> {
    let x = n.operand(0, "X")?;
    let sizes = spatial(n, &n.shape(&x))?;
    if n.attr("kernel_shape").is_none() {
        return n.invalid("the attribute `kernel_shape` is missing");
    }
    let kernel = n.sizes("kernel_shape", sizes.len(), 1, 1)?;
    let window = window(n, &sizes, kernel)?;
    Ok((x, window))
}

fn max_pool(n: &mut NodeCx<'_>) -> Imported {
    let (x, w) = pooled(n)?;
    let Window { kernel, strides, dilations, pads, ceil_mode } = w;
    let storage_order = match n.int("storage_order", 0)? {
        0 => 0,
        1 => 1,
        other => return n.invalid(format!("the attribute `storage_order` is {other}, not 0 or 1")),
    };
    let indices = n.wants(1);
    let op = ir::MaxPool { kernel, strides, dilations, pads, ceil_mode, indices, storage_order };
    n.emit_all(op, &[Some(&x)])
}

fn average_pool(n: &mut NodeCx<'_>) -> Imported {
    let (x, w) = pooled(n)?;
    let Window { kernel, strides, dilations, pads, ceil_mode } = w;
    let count_include_pad = n.flag("count_include_pad", false)?;
    Ok(vec![n.emit(ir::AveragePool { kernel, strides, dilations, pads, ceil_mode, count_include_pad }, &[&x])?])
}

/// The order p: a float in opset 1, where nothing but whole numbers was meant.
fn order(n: &NodeCx<'_>) -> Result<usize, Stop> {
    if n.version >= 2 {
        return n.count("p", Some(2));
    }
    match n.float("p", 2.0)? {
        p if p >= 1.0 && p.fract() == 0.0 && p < 1e9 => Ok(p as usize),
        p => n.unsupported(format!("with p={p}")),
    }
}

fn lp_pool(n: &mut NodeCx<'_>) -> Imported {
    let (x, w) = pooled(n)?;
    let Window { kernel, strides, dilations, pads, ceil_mode } = w;
    let p = order(n)?;
    Ok(vec![n.emit(ir::LpPool { kernel, strides, dilations, pads, ceil_mode, p }, &[&x])?])
}

fn global(n: &mut NodeCx<'_>, kind: ReduceKind) -> Imported {
    let x = n.operand(0, "X")?;
    spatial(n, &n.shape(&x))?;
    let axes = (2..n.rank(&x)).collect();
    Ok(vec![n.emit(Reduce { kind, axes, keepdims: true }, &[&x])?])
}

/// `(sum |x|^p)^(1/p)`.
fn global_lp(n: &mut NodeCx<'_>) -> Imported {
    match order(n)? {
        1 => global(n, ReduceKind::L1),
        2 => global(n, ReduceKind::L2),
        p => {
            let x = n.operand(0, "X")?;
            spatial(n, &n.shape(&x))?;
            let axes = (2..n.rank(&x)).collect();
            let size = n.unary(UnaryFn::Abs, &x)?;
            let power = n.binary_const(BinaryFn::Pow, &size, p as f64)?;
            let sum = n.emit(Reduce { kind: ReduceKind::Sum, axes, keepdims: true }, &[&power])?;
            Ok(vec![n.binary_const(BinaryFn::Pow, &sum, 1.0 / p as f64)?])
        }
    }
}
