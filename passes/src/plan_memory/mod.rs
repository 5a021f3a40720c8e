//! Gives every value of a graph its place: an offset in one arena, or in a buffer of the caller.
//!
//! ```text
//! 1 order      several schedules of the nodes are tried; the one with the least live memory is taken      order.rs
//! 2 share      values that may lie in each other's storage are joined into buffers                        share.rs
//!              views with their operand; the operands of a Concat inside its result; in place
//! 3 pack       buffers get offsets: those with overlapping lifetimes do not overlap; best fit, in several pack.rs
//!              orders of placement; the smallest arena wins
//! ```
//!
//! What may share storage is said in `sharing.rs`. The plan is verified by `check.rs` and compared with the lower bound
//! of `bound.rs`; neither shares code with 2 and 3. Scratch memory of kernels is not part of the arena: it is per thread.
//!
//! Needs: all shapes known; every output of the graph computed by a node and listed once
//! ([`crate::separate_outputs`]). Inputs are never written, unless the caller gives the buffer of a state's input for its
//! output as well ([`state`]). A model output's buffer holds intermediates of the same run
//! while the output itself is not there yet.

pub mod bound;
pub mod check;
pub(crate) mod order;
mod pack;
mod print;
mod share;
pub mod sharing;
pub mod state;

use crate::pass::{OptLevel, Part, PassCx, PassError};
use nncc_ir::{Graph, NodeId, Op, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use sharing::stored_bytes;

/// Alignment of buffers in the arena, in bytes: a cache line, and the widest vector register.
pub const ALIGN: usize = 64;

/// Where a value lies. Offsets are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the arena.
    Arena {
        /// From its start.
        offset: usize,
    },
    /// In an input of the model; an offset where a Slice or Split reads in place.
    Input {
        /// Which one.
        index: usize,
        /// From its start.
        offset: usize,
    },
    /// In an output of the model; an offset where a Concat is written in place.
    Output {
        /// Which one.
        index: usize,
        /// From its start.
        offset: usize,
    },
    /// It is a constant of the graph: code generation places it.
    Constant,
}

/// The places of all values, and the order in which nodes run.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryPlan {
    /// Size of the arena, a multiple of [`ALIGN`].
    pub arena_bytes: usize,
    /// The least that any placement needs in this order: see [`bound::lower_bound`].
    pub bound_bytes: usize,
    /// All nodes, in the order in which they run.
    pub order: Vec<NodeId>,
    /// The place of every value.
    pub place: FxHashMap<ValueId, Place>,
    /// Nodes that need no code: their results are where they should be already.
    pub elided: FxHashSet<NodeId>,
}

impl MemoryPlan {
    /// Whether operand `x`, at `offset` bytes of the result `v` of a Concat, lies there already, so that it is not copied.
    pub fn in_position(&self, x: ValueId, v: ValueId, offset: usize) -> bool {
        self.place[&x] == self.place[&v].plus(offset)
    }
}

impl Place {
    /// The place `bytes` further on.
    pub fn plus(self, bytes: usize) -> Place {
        match self {
            Place::Arena { offset } => Place::Arena { offset: offset + bytes },
            Place::Input { index, offset } => Place::Input { index, offset: offset + bytes },
            Place::Output { index, offset } => Place::Output { index, offset: offset + bytes },
            Place::Constant => Place::Constant,
        }
    }
}

/// Plans the memory of a graph whose passes have all run.
pub fn plan_memory(g: &Graph, cx: &mut PassCx) -> Result<MemoryPlan, PassError> {
    let order = order::best(g).ok_or_else(|| PassError::BadPlan("the graph has a cycle".into()))?;
    plan_in_order(g, order, cx)
}

/// The same for an order in which the nodes are to run.
pub(crate) fn plan_in_order(g: &Graph, order: Vec<NodeId>, cx: &mut PassCx) -> Result<MemoryPlan, PassError> {
    let start = std::time::Instant::now();
    for v in g.node_ids().flat_map(|n| g.results(n)) {
        if stored_bytes(g, v).is_none_or(|bytes| bytes > isize::MAX as usize / 2) {
            return Err(PassError::UnknownSize { value: g.value(v).name.to_string(), ty: g.ty(v).to_string() });
        }
    }
    let order = state::writers_last(g, order);
    let bound_bytes = bound::lower_bound(g, &order);
    let effort = if cx.options.level >= OptLevel::O3 { 400 } else { 40 };
    let mut best: Option<MemoryPlan> = None;
    for concat_in_place in [true, false].into_iter().filter(|yes| !yes || !cx.leaves_out(Part::ConcatInPlace)) {
        let shared = share::share(g, &order, concat_in_place);
        let (offsets, arena_bytes) = pack::pack(&shared.buffers, effort, bound_bytes);
        let plan = MemoryPlan {
            arena_bytes,
            bound_bytes,
            order: order.clone(),
            place: shared.places(g, &offsets),
            elided: shared.elided,
        };
        // Copies cost time: without them unless they save a good part of the memory.
        let better = best.as_ref().is_none_or(|b| arena_bytes < b.arena_bytes - b.arena_bytes / 5);
        if better {
            best = Some(plan);
        }
        if arena_bytes <= bound_bytes + bound_bytes / 10 {
            break;
        }
    }
    let plan = best.expect("the first attempt is always taken");
    check::check(g, &plan).map_err(PassError::BadPlan)?;
    let time = start.elapsed();
    let nodes = g.node_count();
    cx.reports.push(crate::pass::PassReport {
        pass: "plan-memory",
        time,
        changes: 0,
        nodes_before: nodes,
        nodes_after: nodes,
    });
    Ok(plan)
}

/// Whether a node computes nothing at run time because its value is given.
pub(crate) fn is_given(g: &Graph, n: NodeId) -> bool {
    matches!(g.op(n), Op::Input | Op::Constant(_))
}
