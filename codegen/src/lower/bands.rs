//! Which layers are computed depth first, in bands of rows: joins them to chains before memory is planned.
//!
//! Candidates are runs of convolutions and poolings of which each has the next one as its only user. A run is cut where the
//! cycles that its pieces save by the [model](Worth::of) are most. What may join: constant weights, values in channel blocks between,
//! nothing of the size of an intermediate added to it; no convolution that Winograd's algorithm could take, which works on
//! tiles of its own and pools in [them](super::tiles). The choice looks at shapes and at the widest of the targets alone.

use super::chain;
use crate::kernels::bands::{Rows, Span, Worth};
use crate::kernels::window::Axis;
use crate::target::Target;
use nncc_ir::ops::conv::Conv;
use nncc_ir::pointwise::{Inst, UnaryFn};
use nncc_ir::{BLOCK, DType, Graph, Layout, NodeId, Op, TypeError, padded_channels};

/// The longest chain: each layer more makes the bands of all before it overlap more.
const LONGEST: usize = 4;

/// Multiply-accumulates that a function such as an exponential counts for.
const FUNCTION_MACS: usize = 16;

/// When layers are computed in bands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BandUse {
    /// Where that is faster by the cost model.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Wherever it is possible: for tests.
    On,
}

/// A node that can be a layer.
struct Candidate {
    node: NodeId,
    batch: usize,
    span: Span,
}

/// Joins layers to chains; returns a line for each chain: `--emit plan` shows them.
///
/// # Errors
/// Never, but for a bug in a chain's type rule.
pub fn join(g: &mut Graph, targets: &[Target], when: BandUse) -> Result<Vec<String>, TypeError> {
    let Some(target) = targets.last().filter(|_| when != BandUse::Off) else { return Ok(Vec::new()) };
    let mut chains: Vec<(Vec<NodeId>, Worth)> = Vec::new();
    let mut seen = vec![false; g.node_bound()];
    for node in g.topological_order().unwrap_or_default() {
        if seen[node.index()] {
            continue;
        }
        let mut run: Vec<Candidate> = candidate(g, node).into_iter().collect();
        while let Some(next) = run.last().and_then(|last| next(g, last.node)).and_then(|next| candidate(g, next)) {
            run.push(next);
        }
        run.iter().for_each(|c| seen[c.node.index()] = true);
        chains.extend(cut(target, &run, when));
    }
    let mut lines = Vec::with_capacity(chains.len());
    for (nodes, worth) in &chains {
        let names: Vec<String> = nodes.iter().map(|&n| g.node_name(n)).collect();
        let (rows, alone, together) = (worth.rows, worth.alone / 1e3, worth.together / 1e3);
        let names = names.join(" > ");
        lines.push(format!("bands of {rows} rows, {together:.0} for {alone:.0} thousand cycles: {names}"));
        chain::replace(g, nodes)?;
    }
    Ok(lines)
}

/// The pieces of a run that are worth being chains.
fn cut(target: &Target, run: &[Candidate], when: BandUse) -> Vec<(Vec<NodeId>, Worth)> {
    // The best gain of the first `i` layers, and where its last piece begins.
    let mut best: Vec<(f64, usize)> = vec![(0.0, 0)];
    for end in 1..=run.len() {
        let mut choice = (best[end - 1].0, end - 1);
        for begin in end.saturating_sub(LONGEST)..end - 1 {
            let piece = &run[begin..end];
            let worth = worth(target, piece);
            let gain = if when == BandUse::On { piece.len() as f64 - 1.0 } else { worth.alone - worth.together };
            if best[begin].0 + gain > choice.0 {
                choice = (best[begin].0 + gain, begin);
            }
        }
        best.push(choice);
    }
    let (mut pieces, mut end) = (Vec::new(), run.len());
    while end > 0 {
        let begin = best[end].1;
        if end - begin > 1 {
            let piece = &run[begin..end];
            pieces.push((piece.iter().map(|c| c.node).collect(), worth(target, piece)));
        }
        end = begin;
    }
    pieces
}

fn worth(target: &Target, piece: &[Candidate]) -> Worth {
    let spans: Vec<Span> = piece.iter().map(|c| c.span.clone()).collect();
    Worth::of(target, piece.first().map_or(1, |c| c.batch), &spans)
}

/// The layer behind a node, if there is one and nothing of the size of what is between is read with it.
fn next(g: &Graph, node: NodeId) -> Option<NodeId> {
    let y = g.results(node).next()?;
    // A residual lies where a whole output is.
    let own = g.operands(node).into_iter().flatten().skip(1).all(|v| g.ty(v).shape != g.ty(y).shape);
    chain::next(g, node).filter(|_| own)
}

/// A node as a layer.
fn candidate(g: &Graph, node: NodeId) -> Option<Candidate> {
    let op = match g.op(node) {
        Op::Fused(fused) => fused.root.as_deref()?,
        op => op,
    };
    let (x, y) = (g.operand(node, 0)?, g.results(node).next()?);
    let (from, to) = (g.ty(x).dims()?, g.ty(y).dims()?);
    let &[batch, channels, outputs, width] = &to[..] else { return None };
    let &[_, read, inputs, columns] = &from[..] else { return None };
    let height = |kernel: usize, stride, dilation, pad| Axis::sliding(inputs, outputs, kernel, stride, dilation, pad);
    let constants = g.operands(node).into_iter().flatten().filter_map(|v| g.constant(v));
    let weights = constants.map(|c| c.elems() * c.dtype().bytes()).sum();
    // A join of two numbers is counted like a multiply-accumulate.
    let pooled = |kernel: &[usize]| (kernel.iter().product::<usize>() * channels * width) as u64;
    let (height, row_macs) = match op {
        Op::Conv(conv) => {
            let w = g.constant(g.operand(node, 1)?)?;
            if g.operand(node, 2).is_some_and(|bias| g.constant(bias).is_none()) || is_winograds(conv, w.dims()) {
                return None;
            }
            let macs: usize = w.dims()[1..].iter().product();
            let height = height(*w.dims().get(2)?, conv.strides[0], conv.dilations[0], conv.pads[0]);
            (height, (macs * channels * width) as u64)
        }
        Op::MaxPool(pool) if !pool.indices => {
            (height(pool.kernel[0], pool.strides[0], pool.dilations[0], pool.pads[0]), pooled(&pool.kernel))
        }
        Op::AveragePool(pool) => {
            (height(pool.kernel[0], pool.strides[0], pool.dilations[0], pool.pads[0]), pooled(&pool.kernel))
        }
        _ => return None,
    };
    let is_layer = g.value(y).layout == Layout::Blocked && g.ty(y).dtype == DType::F32 && batch * outputs * width > 0;
    let row_bytes = |channels: usize, width: usize| 4 * padded_channels(channels) * width;
    let rows = Rows { height, bytes: row_bytes(channels, width) };
    let row_macs = row_macs + (elementwise_macs(g.op(node)) * channels * width) as u64;
    let span = Span { rows, input_row: row_bytes(read, columns), row_macs, weights };
    is_layer.then_some(Candidate { node, batch, span })
}

/// What the elementwise program behind a layer counts for, an element: rows that two bands need run it twice.
fn elementwise_macs(op: &Op) -> usize {
    let Op::Fused(fused) = op else { return 0 };
    let of = |inst: &Inst| match inst {
        Inst::Input(_) | Inst::Const(_) => 0,
        Inst::Unary(UnaryFn::Neg | UnaryFn::Abs | UnaryFn::Sign, _) => 1,
        Inst::Unary(..) => FUNCTION_MACS,
        _ => 1,
    };
    fused.program.insts().iter().map(|(inst, _)| of(inst)).sum()
}

/// Could Winograd's algorithm compute it?
fn is_winograds(conv: &Conv, weights: &[usize]) -> bool {
    let plain = conv.group == 1 && conv.strides == [1, 1] && conv.dilations == [1, 1];
    plain && matches!(weights, &[m, c, 3, 3] if m.is_multiple_of(BLOCK) && c.is_multiple_of(BLOCK))
}
