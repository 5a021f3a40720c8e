//! The least memory that any placement can do with: the largest sum, over the steps, of the bytes that are live at one.
//!
//! Computed from the graph and the order alone, value by value; what shares storage is counted once:
//!
//! ```text
//! content    what a computing node writes. Views, and Concats that are their operands one behind the other, have no
//!            content of their own: they keep that of their operands alive
//! in place   a result that may overwrite an operand that dies with it is the same content
//! outside    contents that end in an input, a constant or an output of the model take no arena
//! state      the next value of a state has its buffer to itself, where the old value may still lie
//! ```
//!
//! A placement may need more: because of fragmentation, and because the parts of a Concat have to lie side by side.

use super::sharing::{in_place, parts, stored_bytes, views};
use nncc_ir::{Graph, NodeId, Op, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

/// A content: a group of values that may lie in one place.
#[derive(Clone, Default)]
struct Content {
    bytes: usize,
    first: usize,
    last: usize,
    outside: bool,
}

/// The bound for one order, in bytes. Sizes that are not known count as 0.
pub fn lower_bound(g: &Graph, order: &[NodeId]) -> usize {
    live(g, order).into_iter().max().unwrap_or(0)
}

/// The bytes that are live at each step of one order. Sizes that are not known count as 0.
pub fn live(g: &Graph, order: &[NodeId]) -> Vec<usize> {
    let mut contents: Vec<Content> = Vec::new();
    // The contents that a value consists of; and, for contents merged in place, the one they are now part of.
    let mut holds: FxHashMap<ValueId, SmallVec<[usize; 2]>> = FxHashMap::default();
    let last_use = last_uses(g, order);
    let next: FxHashSet<ValueId> = g.states().iter().map(|state| g.outputs()[state.1].1).collect();
    let mut death: Vec<usize> = Vec::new(); // by content: the last use of the values that consist of it so far
    for (step, &n) in order.iter().enumerate() {
        let composed: Option<Vec<(ValueId, SmallVec<[usize; 2]>)>> = match parts(g, n) {
            Some(parts) => {
                let of: SmallVec<[usize; 2]> = parts.iter().flat_map(|(x, _)| holds[x].clone()).collect();
                Some(vec![(ValueId { node: n, out: 0 }, of)])
            }
            None => {
                // A view that is the next value of a state is a copy.
                let views = if next.contains(&ValueId { node: n, out: 0 }) { Default::default() } else { views(g, n) };
                (!views.is_empty()).then(|| views.iter().map(|v| (v.result, holds[&v.operand].clone())).collect())
            }
        };
        let made = composed.unwrap_or_else(|| {
            let alone = next.contains(&ValueId { node: n, out: 0 });
            let dying = in_place(g, n).into_iter().filter(|_| !alone).find_map(|x| match holds[&x][..] {
                [c] if !contents[c].outside && death[c] <= step && last_use[&x] <= step => Some(c),
                _ => None,
            });
            let outside = matches!(g.op(n), Op::Input | Op::Constant(_));
            let mut made = Vec::new();
            for v in g.results(n) {
                let bytes = stored_bytes(g, v).unwrap_or(0);
                let c = dying.filter(|_| v.out == 0).unwrap_or_else(|| {
                    contents.push(Content { bytes: 0, first: step, last: step, outside });
                    death.push(step);
                    contents.len() - 1
                });
                contents[c].bytes = contents[c].bytes.max(bytes);
                made.push((v, SmallVec::from_elem(c, 1)));
            }
            made
        });
        for (v, of) in made {
            for &c in &of {
                death[c] = death[c].max(last_use[&v]);
                contents[c].last = contents[c].last.max(last_use[&v]);
                contents[c].outside |= g.is_output(v);
            }
            holds.insert(v, of);
        }
    }
    let mut change = vec![0i64; order.len() + 1]; // the last one is behind the end
    for c in contents.iter().filter(|c| !c.outside) {
        change[c.first] += c.bytes as i64;
        change[c.last.min(order.len() - 1) + 1] -= c.bytes as i64;
    }
    change.pop();
    let mut live = 0;
    let at = |d| {
        live += d;
        live as usize
    };
    change.into_iter().map(at).collect()
}

/// The step at which each value is used last; its own step if nobody uses it; behind the end for an output.
fn last_uses(g: &Graph, order: &[NodeId]) -> FxHashMap<ValueId, usize> {
    let mut last = FxHashMap::default();
    for (step, &n) in order.iter().enumerate() {
        for v in g.results(n) {
            last.insert(v, step);
        }
        for v in g.operands(n).into_iter().flatten() {
            last.insert(v, step);
        }
    }
    for (_, v) in g.outputs() {
        last.insert(*v, order.len());
    }
    last
}
