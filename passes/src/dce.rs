//! Removes nodes that no output of the graph depends on.
//!
//! Inputs stay: they are the model's signature. Every other pass may leave dead nodes behind; the rewriting passes remove
//! their own, so that this one finds work mostly after import (training-only branches, unused outputs).

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use nncc_ir::{Graph, NodeId, Op};

/// The pass.
pub const PASS: Pass = Pass { name: "dce", level: OptLevel::O0, run };

fn run(g: &mut Graph, _: &mut PassCx) -> Result<usize, PassError> {
    let mut live = vec![false; g.node_bound()];
    let mut stack: Vec<NodeId> = g.outputs().iter().map(|(_, v)| v.node).collect();
    while let Some(n) = stack.pop() {
        if !std::mem::replace(&mut live[n.index()], true) {
            stack.extend(g.operands(n).into_iter().flatten().map(|v| v.node));
        }
    }
    // Users before what they use: a node can only be removed when nothing uses it.
    let order = g.topological_order().unwrap_or_default();
    let dead: Vec<NodeId> =
        order.into_iter().rev().filter(|n| !live[n.index()] && !matches!(g.op(*n), Op::Input)).collect();
    for n in &dead {
        g.remove(*n);
    }
    Ok(dead.len())
}
