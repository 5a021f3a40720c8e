//! Reductions along axes. Axes are an attribute first and an operand later: from opset 13 for ReduceSum, from 18 for the
//! others.

use super::Entry;
use crate::build::Stop;
use crate::node::{Imported, NodeCx};
use crate::value::Val;
use nncc_ir::DType;
use nncc_ir::ops::cum_sum::{CumProd, CumSum};
use nncc_ir::ops::reduce::{ArgReduce, Reduce, ReduceKind};

pub(super) const OPS: &[Entry] = &[
    Entry::new("ArgMax", &[1, 11, 12, 13], |n| arg(n, true)),
    Entry::new("ArgMin", &[1, 11, 12, 13], |n| arg(n, false)),
    Entry::new("CumProd", &[26], |n| {
        let (x, axis, exclusive, reverse) = running(n)?;
        Ok(vec![n.emit(CumProd { axis, exclusive, reverse }, &[&x])?])
    }),
    Entry::new("CumSum", &[11, 14], |n| {
        let (x, axis, exclusive, reverse) = running(n)?;
        Ok(vec![n.emit(CumSum { axis, exclusive, reverse }, &[&x])?])
    }),
    Entry::new("ReduceL1", &[1, 11, 13, 18], |n| reduce(n, ReduceKind::L1)),
    Entry::new("ReduceL2", &[1, 11, 13, 18], |n| reduce(n, ReduceKind::L2)),
    Entry::new("ReduceLogSum", &[1, 11, 13, 18, 28], |n| reduce(n, ReduceKind::LogSum)),
    Entry::new("ReduceLogSumExp", &[1, 11, 13, 18, 28], |n| reduce(n, ReduceKind::LogSumExp)),
    Entry::new("ReduceMax", &[1, 11, 12, 13, 18, 20], |n| reduce(n, ReduceKind::Max)),
    Entry::new("ReduceMean", &[1, 11, 13, 18], |n| reduce(n, ReduceKind::Mean)),
    Entry::new("ReduceMin", &[1, 11, 12, 13, 18, 20], |n| reduce(n, ReduceKind::Min)),
    Entry::new("ReduceProd", &[1, 11, 13, 18], |n| reduce(n, ReduceKind::Prod)),
    Entry::new("ReduceSum", &[1, 11, 13], |n| reduce(n, ReduceKind::Sum)),
    Entry::new("ReduceSumSquare", &[1, 11, 13, 18], |n| reduce(n, ReduceKind::SumSquare)),
];

/// The axes that a node names, as an attribute or as an operand, if it names any.
pub(super) fn named_axes(n: &NodeCx<'_>, as_operand: bool) -> Result<Option<Vec<i64>>, Stop> {
    match n.optional(1) {
        Some(axes) if as_operand => Ok(Some(n.known_i64s(&axes, "axes")?)),
        _ => n.ints("axes"),
    }
}

/// No axes mean all of them, unless `noop_with_empty_axes` says none. With none, what the reduction does to single elements
/// still happens (ReduceSumSquare squares): it reduces along no axis.
fn reduce(n: &mut NodeCx<'_>, kind: ReduceKind) -> Imported {
    let x = n.operand(0, "data")?;
    let rank = n.rank(&x);
    let as_operand = n.version >= if kind == ReduceKind::Sum { 13 } else { 18 };
    let keepdims = n.flag("keepdims", true)?;
    let axes = match named_axes(n, as_operand)?.unwrap_or_default() {
        none if none.is_empty() && n.flag("noop_with_empty_axes", false)? => Vec::new(),
        none if none.is_empty() => (0..rank).collect(),
        some => {
            let mut axes = n.axes(&some, rank)?;
            axes.sort();
            axes
        }
    };
    Ok(vec![n.emit(Reduce { kind, axes, keepdims }, &[&x])?])
}

fn arg(n: &mut NodeCx<'_>, max: bool) -> Imported {
    let x = n.operand(0, "data")?;
    let axis = n.axis(n.int("axis", 0)?, n.rank(&x))?;
    let (keepdims, select_last) = (n.flag("keepdims", true)?, n.flag("select_last_index", false)?);
    Ok(vec![n.emit(ArgReduce { max, axis, keepdims, select_last }, &[&x])?])
}

/// The operand, the axis, `exclusive` and `reverse` of a running total.
fn running(n: &NodeCx<'_>) -> Result<(Val, usize, bool, bool), Stop> {
    let (x, axis): (Val, Val) = (n.operand(0, "x")?, n.operand(1, "axis")?);
    if !matches!(n.dtype(&axis), DType::I32 | DType::I64) {
        return n.invalid(format!("the operand `axis` is {}, not i32 or i64", n.dtype(&axis)));
    }
    let axis = n.axis(n.known_i64(&axis, "axis")?, n.rank(&x))?;
    let (exclusive, reverse) = (n.flag("exclusive", false)?, n.flag("reverse", false)?);
    Ok((x, axis, exclusive, reverse))
}
