//! Schedules: orders in which the nodes may run. Which one is taken changes only how much memory is live at a time.
//!
//! ```text
//! as given       lowest ids first: the order of the model file, mostly
//! depth first    from each output, operands before their user: a branch is finished before the next one begins
//! largest first  the same, but the operand with the largest result first: what it needed is free when small ones run
//! greedy         of the nodes that may run, the one that frees most, net of what it allocates
//! ```

use super::bound::lower_bound;
use super::is_given;
use super::sharing::stored_bytes;
use nncc_ir::{Graph, NodeId, ValueId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Of the schedules above the one with the lowest bound on memory; of equals the first. `None` if there is a cycle.
pub fn best(g: &Graph) -> Option<Vec<NodeId>> {
    let given = g.topological_order()?;
    let candidates = [depth_first(g, false), depth_first(g, true), greedy(g)];
    let mut best = (lower_bound(g, &given), given);
    for order in candidates {
        debug_assert_eq!(order.len(), g.node_count());
        let bytes = lower_bound(g, &order);
        if bytes < best.0 {
            best = (bytes, order);
        }
    }
    Some(best.1)
}

fn depth_first(g: &Graph, largest_first: bool) -> Vec<NodeId> {
    let mut done = vec![false; g.node_bound()];
    let mut order = Vec::with_capacity(g.node_count());
    // Nodes that no output needs run as well, behind the others.
    let roots: Vec<NodeId> = g.outputs().iter().map(|(_, v)| v.node).chain(g.node_ids()).collect();
    let mut stack: Vec<(NodeId, bool)> = Vec::new();
    for root in roots {
        stack.push((root, false));
        while let Some((n, operands_done)) = stack.pop() {
            if operands_done {
                if !std::mem::replace(&mut done[n.index()], true) {
                    order.push(n);
                }
                continue;
            }
            if done[n.index()] {
                continue;
            }
            stack.push((n, true));
            let mut operands: Vec<ValueId> = g.operands(n).into_iter().flatten().collect();
            if largest_first {
                operands.sort_by_key(|v| Reverse(stored_bytes(g, *v)));
            }
            stack.extend(operands.iter().rev().filter(|v| !done[v.node.index()]).map(|v| (v.node, false)));
        }
    }
    order
}

fn greedy(g: &Graph) -> Vec<NodeId> {
    let mut missing = vec![0usize; g.node_bound()];
    let mut uses: Vec<Vec<usize>> = vec![Vec::new(); g.node_bound()]; // by node and output: uses that are left
    for n in g.node_ids() {
        missing[n.index()] = g.operands(n).iter().flatten().count();
        uses[n.index()] = g.results(n).map(|v| g.users(v).count() + usize::from(g.is_output(v))).collect();
    }
    let size = |v: ValueId| if is_given(g, v.node) { 0 } else { stored_bytes(g, v).unwrap_or(0) as i64 };
    // What running a node adds to live memory. It falls as other users of its operands run; a heap entry that has become
    // too high is corrected when a use disappears (the node is pushed again; the stale entry is skipped).
    let growth = |n: NodeId, uses: &[Vec<usize>]| -> i64 {
        let operands = g.operands(n);
        let dying = operands.iter().flatten().filter(|v| uses[v.node.index()][v.out as usize] == 1);
        g.results(n).map(size).sum::<i64>() - dying.map(|v| size(*v)).sum::<i64>()
    };
    let mut heap = BinaryHeap::new();
    for n in g.node_ids().filter(|n| missing[n.index()] == 0) {
        heap.push(Reverse((!is_given(g, n), growth(n, &uses), n)));
    }
    let mut done = vec![false; g.node_bound()];
    let mut order = Vec::with_capacity(g.node_count());
    while let Some(Reverse((_, _, n))) = heap.pop() {
        if std::mem::replace(&mut done[n.index()], true) {
            continue;
        }
        order.push(n);
        for v in g.operands(n).into_iter().flatten() {
            let left = &mut uses[v.node.index()][v.out as usize];
            *left -= 1;
            if *left == 1
                && let Some((m, _)) = g.users(v).find(|(m, _)| !done[m.index()])
                && missing[m.index()] == 0
            {
                heap.push(Reverse((true, growth(m, &uses), m)));
            }
        }
        for v in g.results(n) {
            for (m, _) in g.users(v) {
                missing[m.index()] -= 1;
                if missing[m.index()] == 0 {
                    heap.push(Reverse((true, growth(m, &uses), m)));
                }
            }
        }
    }
    order
}
