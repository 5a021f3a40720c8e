//! Which layers are computed depth first, in bands of rows: joins them to chains before memory is planned.
//!
//! Candidates are runs of convolutions and poolings of which each has the next one as its only user. A run is cut where the
//! cycles that its pieces save by the [model](Worth::of) are most. What may join: constant weights, values in channel blocks between,
//! nothing of the size of an intermediate added to it; no convolution that Winograd's algorithm could take, which works on
//! tiles of its own and pools in [them](super::tiles). The choice looks at shapes and at the widest of the targets alone, unless
//! a tuning table names another cut of the run: no cut changes a bit.

use super::chain;
use crate::kernels::bands::{Rows, Span, Worth};
use crate::kernels::window::Axis;
use crate::target::Target;
use crate::tunable::{self, Choices, Part};
use nncc_ir::ops::conv::Conv;
use nncc_ir::pointwise::{Inst, UnaryFn};
use nncc_ir::{BLOCK, DType, Graph, Layout, NodeId, Op, TypeError, padded_channels};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The longest chain: each layer more makes the bands of all before it overlap more.
const LONGEST: usize = 4;

/// The cuts of a run that a tuner tries.
const MOST_CUTS: usize = 8;

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

/// How a run of layers is cut: the layers of each piece, in order. A piece of one is a step of its own. As text `cut 1 3 2`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cut(Vec<usize>);

impl Cut {
    /// Is it one of a run of so many layers?
    fn fits(&self, layers: usize) -> bool {
        self.0.iter().all(|&piece| piece <= LONGEST) && self.0.iter().sum::<usize>() == layers
    }

    /// The pieces as ranges of layers.
    fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        self.0.iter().scan(0, |end, &piece| {
            *end += piece;
            Some(*end - piece..*end)
        })
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut")?;
        self.0.iter().try_for_each(|piece| write!(f, " {piece}"))
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Cut, String> {
        let pieces = text.strip_prefix("cut ").unwrap_or_default().split(' ');
        let pieces = pieces.map(tunable::count).collect::<Option<_>>();
        pieces.map(Cut).ok_or_else(|| format!("`{text}` is no cut such as `cut 1 3 2`"))
    }
}

/// A run of layers after it was cut.
#[derive(Clone, Debug)]
pub struct Run {
    signature: String,
    /// The model's names of the nodes that it is now.
    nodes: Vec<String>,
    /// The cut in force, and others that the model likes.
    cuts: Vec<Cut>,
    /// A line for each chain.
    chains: Vec<String>,
}

impl Run {
    /// What a tuner sees of it, in shape set `set`.
    pub fn part(&self, set: usize) -> Part {
        let steps = self.nodes.iter().map(|name| (set, name.clone())).collect();
        let candidates = self.cuts.iter().cloned().map(Into::into).collect();
        Part { signature: self.signature.clone(), steps, candidates }
    }

    /// A line for each chain of layers: `--emit plan` shows them.
    pub fn to_text(&self) -> String {
        self.chains.iter().map(|line| format!("{line}  [{}]\n", self.cuts[0])).collect()
    }
}

/// Joins layers to chains, as the model likes best or as `choices` say; returns the runs of more than one layer.
///
/// # Errors
/// Never, but for a bug in a chain's type rule.
pub fn join(g: &mut Graph, targets: &[Target], when: BandUse, choices: &Choices) -> Result<Vec<Run>, TypeError> {
    let Some(target) = targets.last().filter(|_| when != BandUse::Off) else { return Ok(Vec::new()) };
    let mut found: Vec<Vec<Candidate>> = Vec::new();
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
        found.extend((run.len() > 1).then_some(run));
    }
    found.iter().map(|run| join_run(g, target, run, when, choices)).collect()
}

/// Cuts one run and puts chains into the graph.
fn join_run(
    g: &mut Graph,
    target: &Target,
    run: &[Candidate],
    when: BandUse,
    choices: &Choices,
) -> Result<Run, TypeError> {
    let signature = signature(g, target, run);
    let worths = worths(target, run);
    let worth = |piece: Range<usize>| worths[piece.start][piece.len() - 2];
    let mut cuts = cuts(run.len(), &worth, when);
    if let Some(chosen) = choices.of::<Cut>(&signature).filter(|cut| when == BandUse::Auto && cut.fits(run.len())) {
        cuts.retain(|cut| *cut != chosen);
        cuts.insert(0, chosen);
    }
    let (mut nodes, mut chains) = (Vec::new(), Vec::new());
    for piece in cuts[0].pieces() {
        let ids: Vec<NodeId> = run[piece.clone()].iter().map(|c| c.node).collect();
        if let &[alone] = &ids[..] {
            nodes.push(g.node_name(alone));
            continue;
        }
        let names: Vec<String> = ids.iter().map(|&n| g.node_name(n)).collect();
        let Worth { alone, together, .. } = worth(piece);
        let (alone, together, names) = (alone / 1e3, together / 1e3, names.join(" > "));
        chains.push(format!("bands, {together:.0} for {alone:.0} thousand cycles: {names}"));
        let chain = chain::replace(g, &ids)?;
        nodes.push(g.node_name(chain));
    }
    Ok(Run { signature, nodes, cuts, chains })
}

/// The cut that the model takes, and others that it thinks good: these need not save more than it can tell.
fn cuts(layers: usize, worth: &dyn Fn(Range<usize>) -> Worth, when: BandUse) -> Vec<Cut> {
    if when == BandUse::On {
        return best_cuts(layers, 1, &|piece| Some(piece.len() as f64 - 1.0));
    }
    let saved = |worth: Worth| worth.alone - worth.together;
    let clear = |piece: Range<usize>| Some(worth(piece)).filter(Worth::is_clear).map(saved);
    let held = |piece: Range<usize>| Some(worth(piece)).filter(|worth| worth.holds).map(saved);
    let mut cuts = best_cuts(layers, 1, &clear);
    let others = best_cuts(layers, MOST_CUTS, &held).into_iter().filter(|cut| *cut != cuts[0]);
    let others: Vec<Cut> = others.take(MOST_CUTS - 1).collect();
    cuts.extend(others);
    cuts
}

/// The `most` cuts of so many layers that gain most, by what a piece of several layers gains if it is allowed. Of equal ones
/// short pieces at the end come first.
fn best_cuts(layers: usize, most: usize, gain: &dyn Fn(Range<usize>) -> Option<f64>) -> Vec<Cut> {
    // Of the first `i` layers: gains and pieces.
    let mut best: Vec<Vec<(f64, Vec<usize>)>> = vec![vec![(0.0, Vec::new())]];
    for end in 1..=layers {
        let mut all = Vec::new();
        for begin in std::iter::once(end - 1).chain(end.saturating_sub(LONGEST)..end - 1) {
            let Some(gain) = (if end - begin == 1 { Some(0.0) } else { gain(begin..end) }) else { continue };
            for (before, pieces) in &best[begin] {
                all.push((before + gain, [&pieces[..], &[end - begin]].concat()));
            }
        }
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        all.truncate(most);
        best.push(all);
    }
    best.pop().unwrap_or_default().into_iter().map(|(_, pieces)| Cut(pieces)).collect()
}

/// The name of a run at a CPU level.
fn signature(g: &Graph, target: &Target, run: &[Candidate]) -> String {
    let (mut planes, mut all) = (Vec::new(), String::new());
    for Candidate { node, .. } in run {
        let types = g.operands(*node).into_iter().map(|v| v.map(|v| (g.ty(v), g.value(v).layout)));
        all += &format!("{:?} {:?}", g.op(*node), types.collect::<Vec<_>>());
        let dims = g.results(*node).next().and_then(|y| g.ty(y).dims()).unwrap_or_default();
        planes.push(dims.iter().skip(1).map(ToString::to_string).collect::<Vec<_>>().join("x"));
    }
    let batch = run.first().map_or(0, |c| c.batch);
    format!("run {} n{batch} {} of {}", target.level.name(), planes.join(" > "), tunable::digest(&all))
}

/// What the pieces of a run are worth: by their first layer, those of two layers and more.
fn worths(target: &Target, run: &[Candidate]) -> Vec<Vec<Worth>> {
    let spans: Vec<Span> = run.iter().map(|c| c.span.clone()).collect();
    let of = |begin: usize, end: usize| Worth::of(target, run[begin].batch, &spans[begin..end]);
    let from = |begin: usize| (begin + 2..=(begin + LONGEST).min(run.len())).map(|end| of(begin, end)).collect();
    (0..run.len()).map(from).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_cuts_are_found() {
        // Pairs gain 3 and 2 in turns, three layers 4 if they begin with the first.
        let gain = |piece: Range<usize>| match (piece.start, piece.len()) {
            (0, 3) => Some(4.0),
            (begin, 2) => Some(if begin % 2 == 0 { 3.0 } else { 2.0 }),
            _ => None,
        };
        let texts =
            |layers, most| -> Vec<String> { best_cuts(layers, most, &gain).iter().map(ToString::to_string).collect() };
        assert_eq!(texts(4, 9), ["cut 2 2", "cut 3 1", "cut 2 1 1", "cut 1 1 2", "cut 1 2 1", "cut 1 1 1 1"]);
        assert_eq!(texts(5, 2), ["cut 2 2 1", "cut 3 2"]);
        assert_eq!(texts(2, 1), ["cut 2"]);
    }

    #[test]
    fn a_cut_is_one_of_its_run() {
        let cut = |text: &str| text.parse::<Cut>().unwrap();
        assert!(cut("cut 1 3 2").fits(6) && !cut("cut 1 3 2").fits(5) && !cut("cut 5").fits(5));
        assert_eq!(cut("cut 1 3 2").pieces().collect::<Vec<_>>(), [0..1, 1..4, 4..6]);
    }
}
