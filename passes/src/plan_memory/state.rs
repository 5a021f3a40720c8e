//! State that is updated in place: the next value of an input may be written into the input's own buffer.
//!
//! ```text
//! return %w1 over %w        readers of %w (and of views of it)  before  the node that writes %w1
//! ```
//!
//! The caller decides at each run whether the two buffers are one, so that a plan must be right for both. It is if the writer
//! runs behind all other readers of the old value, reads it itself only element by element, and if nothing but the new value
//! ever lies in the output's buffer. [`overwrites`] says where that can be had; elsewhere a copy at the end writes the new
//! value ([`crate::separate_outputs`]).

use super::is_given;
use super::sharing::{in_place, views};
use nncc_ir::{Graph, NodeId, Op, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// The nodes that read the bytes of an input, themselves or a view of it.
pub fn readers(g: &Graph, input: usize) -> FxHashSet<NodeId> {
    let mut nodes = FxHashSet::default();
    let mut values = vec![ValueId { node: g.inputs()[input], out: 0 }];
    while let Some(v) = values.pop() {
        for (n, _) in g.users(v) {
            if nodes.insert(n) {
                values.extend(views(g, n).iter().filter(|view| view.operand == v).map(|view| view.result));
            }
        }
    }
    nodes
}

/// May the node of `v`, the next value of an input, write over the input?
///
/// It must be an elementwise operator alone: what such a kernel reads at an element it has read before it writes there. Other
/// readers of the input must be free to run before it, which they are if nothing needs `v`; and it must not itself be a reader
/// of another state that has to run before that one's writer, which could go round in a circle.
pub fn overwrites(g: &Graph, input: usize, v: ValueId) -> bool {
    let old = ValueId { node: g.inputs()[input], out: 0 };
    let operands = g.operands(v.node);
    let types: Option<Vec<_>> = operands.iter().map(|x| x.map(|x| g.ty(x))).collect();
    let rootless = !matches!(g.op(v.node), Op::Fused(fused) if fused.root.is_some());
    let is_map = rootless && types.is_some_and(|types| g.op(v.node).pointwise(&types).is_some());
    if !is_map || is_given(g, v.node) {
        return false;
    }
    let mut readers = readers(g, input);
    let own = readers.remove(&v.node);
    let reads_alike =
        !own || (in_place(g, v.node).contains(&old) && operands.iter().flatten().all(|&x| !is_view_of(g, x, old)));
    let others = g.states().iter().map(|state| ValueId { node: g.inputs()[state.0], out: 0 }).filter(|&x| x != old);
    let reads_others = others.into_iter().any(|x| operands.iter().flatten().any(|&y| y == x || is_view_of(g, y, x)));
    reads_alike && (readers.is_empty() || g.users(v).next().is_none()) && !reads_others
}

/// Is `x` a view of `of`, or of a view of it?
fn is_view_of(g: &Graph, mut x: ValueId, of: ValueId) -> bool {
    while let Some(view) = views(g, x.node).iter().find(|view| view.result == x) {
        x = view.operand;
        if x == of {
            return true;
        }
    }
    false
}

/// The order with each writer of a state behind all readers of what it may overwrite. Nothing but outputs hangs on the
/// writers that move.
pub fn writers_last(g: &Graph, order: Vec<NodeId>) -> Vec<NodeId> {
    let mut waits: FxHashMap<NodeId, FxHashSet<NodeId>> = FxHashMap::default();
    for &(input, output) in g.states() {
        let writer = g.outputs()[output].1.node;
        let mut before = readers(g, input);
        before.remove(&writer);
        if !before.is_empty() && g.results(writer).all(|v| g.users(v).next().is_none()) {
            waits.entry(writer).or_default().extend(before);
        }
    }
    if waits.is_empty() {
        return order;
    }
    let mut out = Vec::with_capacity(order.len());
    let mut late: Vec<NodeId> = Vec::new();
    let mut done: FxHashSet<NodeId> = FxHashSet::default();
    let ready = |n: &NodeId, done: &FxHashSet<NodeId>| waits.get(n).is_none_or(|before| before.is_subset(done));
    for n in order {
        if !ready(&n, &done) {
            late.push(n);
            continue;
        }
        out.push(n);
        done.insert(n);
        // Each that runs may be a reader that others wait for.
        while let Some(i) = late.iter().position(|n| ready(n, &done)) {
            let n = late.remove(i);
            out.push(n);
            done.insert(n);
        }
    }
    // Writers that wait for each other: the checker refuses the plan.
    out.extend(late);
    out
}
