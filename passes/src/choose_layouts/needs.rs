//! What layouts each operator reads and writes: the contract between layout assignment and code generation.
//!
//! ```text
//! writes blocked       Conv, ConvTranspose (alone or as a root)
//! reads                Conv of up to 4 channels: row-major, which is the model's input; else blocked. ConvWeightGradient too,
//!                      which writes rows
//! takes either         MaxPool, AveragePool and their gradients, Reduce over spatial axes, elementwise operators, Resize of spatial axes,
//!                      BatchNorm (in training its vectors stay rows), InstanceNorm, Concat, Split, Slice, Identity
//! reads any            Transpose and Pad, which copy anyway: no Relayout before them, nor behind; Reduce that keeps channels
//! row-major            everything else
//! ```
//!
//! Concat and Split of channels at other places than multiples of a block copy ranges of lanes, where row-major they may
//! be free: that costs the bytes of the whole.
//!
//! Operands of a program beside the main one: of the result's rank with its channels, or of all its shape: in the
//! result's layout. Broadcast along channels, or of lower rank: row-major. Constants: not laid out.

use nncc_ir::ops::fused::Fused;
use nncc_ir::ops::resize::Resize;
use nncc_ir::{BLOCK, DType, Dim, Graph, Layout, NodeId, Op, ValueId};

/// What a node's results are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// Always blocked.
    Blocked,
    /// Always row-major.
    RowMajor,
    /// Either, at these costs in bytes moved beyond the other.
    Free {
        /// Of blocked: padding lanes that are read and written for nothing.
        blocked_costs: u64,
        /// Of row-major: a kernel without vectors along channels.
        row_major_costs: u64,
    },
}

/// In which layout an operand is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// That of the results.
    Own,
    /// Row-major.
    RowMajor,
    /// Blocked.
    Blocked,
    /// Not laid out: a constant, or absent.
    Any,
}

/// What a node needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Its results.
    pub own: Own,
    /// Its operands.
    pub reads: Vec<Read>,
}

/// Convolutions with at most so many input channels read them from row-major maps: three of sixteen lanes would be data.
const FEW_CHANNELS: usize = 4;

/// The needs of `n`; `planar` says whether convolutions of few channels read row-major maps.
pub fn needs(g: &Graph, n: NodeId, planar: bool) -> Needs {
    let conv_reads = |own: usize, v: ValueId| conv_reads(g, n, own, v, planar);
    let v = ValueId { node: n, out: 0 };
    let operands = g.operands(n);
    let constant = |x: &Option<ValueId>| x.is_none_or(|x| matches!(g.op(x.node), Op::Constant(_)));
    let row_major = || Needs {
        own: Own::RowMajor,
        reads: operands.iter().map(|x| if constant(x) { Read::Any } else { Read::RowMajor }).collect(),
    };
    if let Op::Transpose(_) | Op::Pad(_) = g.op(n) {
        let own = if can_be_blocked(g, v) { free(g, v) } else { Own::RowMajor };
        return Needs { own, reads: vec![Read::Any; operands.len()] };
    }
    // What is left of each channel is small: the values are read where they lie.
    if let (Op::Reduce(r), Some(Some(x))) = (g.op(n), operands.first().copied())
        && !(r.axes.is_empty() || r.axes.contains(&1))
        && can_be_blocked(g, x)
        && (!r.keepdims || r.axes.contains(&0))
    {
        return Needs { own: Own::RowMajor, reads: vec![Read::Any] };
    }
    if let Op::BatchNormStatistics(_) = g.op(n) {
        let mut needs = row_major();
        needs.reads[0] = Read::Any;
        return needs;
    }
    if !g.results(n).all(|v| can_be_blocked(g, v)) || matches!(g.op(n), Op::Input) {
        return row_major();
    }
    let own_reads =
        || -> Vec<Read> { operands.iter().map(|x| if constant(x) { Read::Any } else { Read::Own }).collect() };
    let free = |reads: Vec<Read>| Needs { own: free(g, v), reads };
    match g.op(n) {
        Op::Conv(_) | Op::ConvTranspose(_) => Needs { own: Own::Blocked, reads: conv_reads(3, v) },
        Op::Fused(Fused { root: Some(root), root_operands, .. })
            if matches!(**root, Op::Conv(_) | Op::ConvTranspose(_)) =>
        {
            Needs { own: Own::Blocked, reads: conv_reads(*root_operands, v) }
        }
        Op::ConvWeightGradient(_) => {
            let dy = operands[1].filter(|dy| can_be_blocked(g, *dy)).map_or(Read::RowMajor, |_| Read::Blocked);
            Needs { own: Own::RowMajor, reads: vec![conv_reads(1, v)[0], dy] }
        }
        Op::MaxPool(_) | Op::AveragePool(_) | Op::MaxPoolGradient(_) | Op::AveragePoolGradient(_) => {
            let x = operands[0].map_or(0, |x| super::cost(g, x));
            match free(own_reads()) {
                Needs { own: Own::Free { blocked_costs, .. }, reads } => {
                    Needs { own: Own::Free { blocked_costs, row_major_costs: x }, reads }
                }
                other => other,
            }
        }
        Op::Reduce(r) if r.keepdims && !r.axes.is_empty() && r.axes.iter().all(|&a| a >= 2) => free(own_reads()),
        Op::Resize(r) if spatial_resize(r) => free(own_reads()),
        Op::ResizeGradient(r) if r.scales.len() >= 2 && r.scales[..2] == [1.0, 1.0] && !r.antialias => {
            free(own_reads())
        }
        Op::Identity(_) => free(own_reads()),
        Op::BatchNorm(_) | Op::InstanceNorm(_) => {
            let mut reads = row_major().reads;
            reads[0] = own_reads()[0];
            free(reads)
        }
        Op::Concat(c) => {
            let parts: Vec<usize> = operands.iter().map(|x| channels(g, *x)).collect();
            Needs { own: joined(g, v, c.axis, &parts), reads: own_reads() }
        }
        Op::Split(s) => {
            let parts: Vec<usize> = g.results(n).map(|v| channels(g, Some(v))).collect();
            let whole = operands[0].unwrap_or(v);
            Needs { own: joined(g, whole, s.axis, &parts), reads: own_reads() }
        }
        Op::Slice(_) => free(own_reads()),
        op => {
            let types: Option<Vec<_>> = operands.iter().map(|x| x.map(|x| g.ty(x))).collect();
            match types.and_then(|types| op.pointwise(&types)) {
                Some(_) => {
                    free(operands.iter().map(|x| if constant(x) { Read::Any } else { extra(g, *x, v) }).collect())
                }
                None => row_major(),
            }
        }
    }
}

/// Rank and type that a blocked value must have.
fn can_be_blocked(g: &Graph, v: ValueId) -> bool {
    let ty = g.ty(v);
    (3..=5).contains(&ty.rank()) && ty.dtype == DType::F32 && ty.dims().is_some_and(|d| !d.contains(&0))
}

fn free(g: &Graph, v: ValueId) -> Own {
    let dims = g.ty(v).dims().unwrap_or_default();
    let bytes = |l: Layout| l.stored_elems(&dims).unwrap_or(0).saturating_mul(4) as u64;
    Own::Free { blocked_costs: bytes(Layout::Blocked) - bytes(Layout::RowMajor), row_major_costs: 0 }
}

/// The choice of a Concat with the result `whole`, or a Split of it: lanes are copied where a part begins within a block.
fn joined(g: &Graph, whole: ValueId, axis: usize, parts: &[usize]) -> Own {
    match free(g, whole) {
        Own::Free { blocked_costs, row_major_costs } if axis == 1 && !whole_blocks(parts) => {
            let bytes = g.ty(whole).elems().unwrap_or(0).saturating_mul(4) as u64;
            Own::Free { blocked_costs: blocked_costs.saturating_add(bytes), row_major_costs }
        }
        own => own,
    }
}

/// Input, weights and bias of a convolution, and the further operands of its program.
fn conv_reads(g: &Graph, n: NodeId, own: usize, v: ValueId, planar: bool) -> Vec<Read> {
    let operands = g.operands(n);
    let read = |(i, x): (usize, &Option<ValueId>)| match x {
        Some(x) if matches!(g.op(x.node), Op::Constant(_)) => Read::Any,
        None => Read::Any,
        Some(x) if i == 0 => {
            let few = planar && channels(g, Some(*x)) <= FEW_CHANNELS;
            if few { Read::RowMajor } else { Read::Blocked }
        }
        Some(_) if i < own => Read::RowMajor, // weights that are computed
        Some(_) => extra(g, *x, v),
    };
    operands.iter().enumerate().map(read).collect()
}

/// How an elementwise operand is read.
fn extra(g: &Graph, x: Option<ValueId>, v: ValueId) -> Read {
    let Some(x) = x else { return Read::Any };
    let (own, out) = (&g.ty(x).shape, &g.ty(v).shape);
    if own.len() == out.len() && own[1] == out[1] && can_be_blocked(g, x) { Read::Own } else { Read::RowMajor }
}

fn channels(g: &Graph, v: Option<ValueId>) -> usize {
    v.and_then(|v| g.ty(v).shape.get(1).and_then(Dim::size)).unwrap_or(0)
}

/// Whether parts of a channel axis begin at multiples of a block.
fn whole_blocks(parts: &[usize]) -> bool {
    parts.split_last().is_some_and(|(_, but_last)| but_last.iter().all(|c| c.is_multiple_of(BLOCK)))
}

/// A Resize that leaves batch and channels alone.
fn spatial_resize(r: &Resize) -> bool {
    r.scales.len() >= 2 && r.scales[..2] == [1.0, 1.0] && !r.antialias
}
