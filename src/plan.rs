//! The memory plan as a picture's data: which value lies where in the arena, from when to when.
//!
//! Time is counted in nodes that run code. A value lives from the node that makes it to the last that reads it. Values that
//! share storage (a view of another, the operands of a Concat inside its result) appear each with its own part.

use nncc_ir::{Graph, Op, ValueId};
use nncc_passes::plan_memory::sharing::stored_bytes;
use nncc_passes::{MemoryPlan, Place};
use rustc_hash::FxHashMap;

/// The arena of one shape set over a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// The least that any placement needs, with the nodes in this order.
    pub bound_bytes: usize,
    /// The nodes that run code, in order, by their names in the model.
    pub steps: Vec<String>,
    /// The values in the arena.
    pub blocks: Vec<Block>,
}

/// A value in the arena.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Its name in the model.
    pub name: String,
    /// Its element type and shape.
    pub ty: String,
    /// Where it begins, in bytes.
    pub offset: usize,
    /// How long it is.
    pub bytes: usize,
    /// The step that makes it: an index into [`Plan::steps`].
    pub from: usize,
    /// The last step that reads it.
    pub to: usize,
}

impl Plan {
    pub(crate) fn new(g: &Graph, plan: &MemoryPlan) -> Plan {
        let mut out = Plan { arena_bytes: plan.arena_bytes, bound_bytes: plan.bound_bytes, ..Plan::default() };
        // The step in which each node runs; one without code counts with the next.
        let mut last_read: FxHashMap<ValueId, usize> = FxHashMap::default();
        let mut made: Vec<(ValueId, usize)> = Vec::new();
        for &n in &plan.order {
            let step = out.steps.len();
            for v in g.operands(n).into_iter().flatten() {
                last_read.insert(v, step);
            }
            made.extend(g.results(n).map(|v| (v, step)));
            if !matches!(g.op(n), Op::Input | Op::Constant(_)) && !plan.elided.contains(&n) {
                out.steps.push(g.node_name(n));
            }
        }
        let end = out.steps.len().saturating_sub(1);
        for (v, from) in made {
            let Some(&Place::Arena { offset }) = plan.place.get(&v) else { continue };
            let (from, value) = (from.min(end), g.value(v));
            let to = last_read.get(&v).map_or(from, |&to| to.clamp(from, end));
            let bytes = stored_bytes(g, v).unwrap_or(0);
            let block = Block { name: value.name.to_string(), ty: value.ty.to_string(), offset, bytes, from, to };
            if bytes > 0 {
                out.blocks.push(block);
            }
        }
        out
    }
}
