//! Where values lie: what lowering asks of a memory plan.
//!
//! A plan gives an order of the nodes and a place to every value that a node other than a constant makes; constants have none,
//! for lowering packs them as their users wish. [`Separate`] is the simplest right plan: bytes of its own for every value, in
//! the graph's topological order. Differential tests use it, because whatever goes wrong under it is not the planner's fault.

use crate::program::{Arg, MAX_ALIGN};
use nncc_ir::{Graph, NodeId, Op, ValueId};
use nncc_passes::{MemoryPlan, Place};
use rustc_hash::FxHashMap;

/// A memory plan as lowering sees it.
pub trait Placement {
    /// The nodes in order of execution; constants and inputs may be among them.
    fn order(&self) -> &[NodeId];

    /// Where a value lies: in the arena, an input or an output, never a constant. `None` for constants.
    fn place(&self, value: ValueId) -> Option<Arg>;

    /// The size of the arena; every arena place ends at or before it.
    fn arena_bytes(&self) -> usize;
}

impl Placement for MemoryPlan {
    fn order(&self) -> &[NodeId] {
        &self.order
    }

    fn place(&self, value: ValueId) -> Option<Arg> {
        match *self.place.get(&value)? {
            Place::Arena { offset } => Some(Arg::Arena(offset)),
            Place::Input { index, offset } => Some(Arg::Input(index as u32, offset)),
            Place::Output { index, offset } => Some(Arg::Output(index as u32, offset)),
            Place::Constant => None,
        }
    }

    fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }
}

/// A plan without any sharing: every value has bytes of its own.
#[derive(Clone, Debug)]
pub struct Separate {
    order: Vec<NodeId>,
    places: FxHashMap<ValueId, Arg>,
    arena_bytes: usize,
}

impl Separate {
    /// Plans a graph. `None` when it has a cycle, a symbolic dimension, or is too large to address.
    pub fn plan(graph: &Graph) -> Option<Separate> {
        let order = graph.topological_order()?;
        let mut plan = Separate { order, places: FxHashMap::default(), arena_bytes: 0 };
        for (i, &n) in graph.inputs().iter().enumerate() {
            plan.places.insert(ValueId { node: n, out: 0 }, Arg::Input(i as u32, 0));
        }
        for (i, &(_, v)) in graph.outputs().iter().enumerate() {
            if !matches!(graph.op(v.node), Op::Input | Op::Constant(_)) {
                plan.places.entry(v).or_insert(Arg::Output(i as u32, 0));
            }
        }
        for node in plan.order.clone() {
            if matches!(graph.op(node), Op::Input | Op::Constant(_)) {
                continue;
            }
            for v in graph.results(node) {
                if plan.places.contains_key(&v) {
                    continue;
                }
                let (ty, layout) = (graph.ty(v), graph.value(v).layout);
                let bytes = layout.stored_elems(&ty.dims()?)?.checked_mul(ty.dtype.bytes())?;
                plan.places.insert(v, Arg::Arena(plan.arena_bytes));
                plan.arena_bytes = plan.arena_bytes.checked_add(bytes.checked_next_multiple_of(MAX_ALIGN)?)?;
            }
        }
        Some(plan)
    }
}

impl Placement for Separate {
    fn order(&self) -> &[NodeId] {
        &self.order
    }

    fn place(&self, value: ValueId) -> Option<Arg> {
        self.places.get(&value).copied()
    }

    fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }
}
