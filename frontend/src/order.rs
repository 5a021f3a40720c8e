//! The order in which a graph's nodes are imported: those that its outputs need, each behind those it depends on.
//!
//! ONNX wants files to be sorted. Files that are not are common enough that runtimes sort them, and so does this; a cycle
//! is an error that names its nodes. A sorted file keeps its order. Everything here is linear in the nodes (a heap's
//! logarithm where sorting is needed).

use crate::model::{Attr, GraphDef, NodeDef};
use crate::ops::named_values;
use crate::problem::Problem;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How a node is called in messages: its name, or operator and number where it has none.
pub(crate) fn label(node: &NodeDef, index: usize) -> String {
    if node.name.is_empty() { format!("{}_{index}", node.op) } else { node.name.clone() }
}

/// The names that a node reads: its operands, what its attributes name, and what graphs in them take from outside.
fn reads(node: &NodeDef) -> Vec<&str> {
    let operands = node.inputs.iter().map(String::as_str).filter(|n| !n.is_empty());
    let mut names: Vec<&str> = operands.chain(named_values(node).into_iter().flat_map(|(_, names)| names)).collect();
    for (_, attr) in &node.attributes {
        if let Attr::Graph(g) = attr {
            names.extend(captured(g));
        }
    }
    names
}

/// The names that a subgraph uses and does not define.
fn captured(g: &GraphDef) -> Vec<&str> {
    let mut own: FxHashSet<&str> = FxHashSet::default();
    own.extend(g.inputs.iter().map(|v| v.name.as_str()));
    own.extend(g.initializers.iter().map(|t| t.name.as_str()));
    own.extend(g.nodes.iter().flat_map(|n| n.outputs.iter().map(String::as_str)));
    let used = g.nodes.iter().flat_map(reads).chain(g.outputs.iter().map(|v| v.name.as_str()));
    used.filter(|name| !own.contains(name)).collect()
}

/// The indices of the nodes that the values `wanted` need, in an order in which they can be imported. `given` says which
/// names exist from the start.
pub(crate) fn order<'a>(
    nodes: &'a [NodeDef],
    given: &dyn Fn(&str) -> bool,
    wanted: impl Iterator<Item = &'a str>,
) -> Result<Vec<usize>, Vec<Problem>> {
    let place = |i: usize| format!("node \"{}\"", nodes.get(i).map_or(String::new(), |n| label(n, i)));
    let mut problems = Vec::new();
    let mut producer: FxHashMap<&str, usize> = FxHashMap::default();
    for (i, node) in nodes.iter().enumerate() {
        for name in node.outputs.iter().filter(|n| !n.is_empty()) {
            if given(name) || producer.insert(name, i).is_some() {
                let twice = format!("{}: the value `{name}` is defined twice", node.op);
                problems.push(Problem::invalid(twice).at(place(i)).rule("ONNX IR: a name is defined once in a graph"));
            }
        }
    }
    // What is needed, backwards from the outputs.
    let mut needed = vec![false; nodes.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut missing = vec![0usize; nodes.len()];
    let mut stack: Vec<usize> = Vec::new();
    for name in wanted {
        match producer.get(name) {
            Some(&i) => stack.push(i),
            None if given(name) => {}
            None => problems.push(
                Problem::invalid("the graph's output is made by no node")
                    .at(format!("output \"{name}\""))
                    .rule("ONNX IR: an output names a value of the graph"),
            ),
        }
    }
    let mut sorted = true;
    while let Some(i) = stack.pop() {
        if std::mem::replace(&mut needed[i], true) {
            continue;
        }
        for name in reads(&nodes[i]) {
            match producer.get(name) {
                Some(&p) => {
                    sorted &= p < i;
                    users[p].push(i);
                    missing[i] += 1;
                    stack.push(p);
                }
                None if given(name) => {}
                None => problems.push(
                    Problem::invalid(format!("{}: the operand `{name}` is made by no node", nodes[i].op))
                        .at(place(i))
                        .rule("ONNX IR: an operand names an input, an initializer or another node's output"),
                ),
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if sorted {
        return Ok((0..nodes.len()).filter(|&i| needed[i]).collect());
    }
    let is_ready = |i: &usize| needed[*i] && missing[*i] == 0;
    let mut ready: BinaryHeap<Reverse<usize>> = (0..nodes.len()).filter(is_ready).map(Reverse).collect();
    let mut sequence = Vec::new();
    while let Some(Reverse(i)) = ready.pop() {
        sequence.push(i);
        for &u in &users[i] {
            missing[u] -= 1;
            if missing[u] == 0 {
                ready.push(Reverse(u));
            }
        }
    }
    if sequence.len() == needed.iter().filter(|n| **n).count() {
        return Ok(sequence);
    }
    let cycle = cycle(nodes, &producer, |i| needed[i] && missing[i] > 0);
    let mut problem = Problem::invalid("the graph has a cycle").rule("ONNX IR: a graph has no cycles");
    problem.places = cycle.into_iter().map(place).collect();
    Err(vec![problem])
}

/// The nodes of one cycle among those that are `left`, each of which waits for another one.
fn cycle(nodes: &[NodeDef], producer: &FxHashMap<&str, usize>, left: impl Fn(usize) -> bool) -> Vec<usize> {
    let waits_for = |i: usize| reads(&nodes[i]).into_iter().filter_map(|n| producer.get(n).copied()).find(|&p| left(p));
    let Some(start) = (0..nodes.len()).find(|&i| left(i)) else { return Vec::new() };
    let (mut at, mut path, mut seen) = (start, Vec::new(), FxHashMap::default());
    while !seen.contains_key(&at) {
        seen.insert(at, path.len());
        path.push(at);
        match waits_for(at) {
            Some(next) => at = next,
            None => return Vec::new(), // cannot be: a node that is left waits for one that is left
        }
    }
    let mut cycle = path.split_off(seen[&at]);
    cycle.reverse(); // in the direction of the data
    cycle
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes from `name: inputs -> outputs` lines.
    fn nodes(text: &[(&str, &[&str], &[&str])]) -> Vec<NodeDef> {
        let own = |names: &[&str]| names.iter().map(|s| s.to_string()).collect();
        let node = |(name, inputs, outputs): &(&str, &[&str], &[&str])| NodeDef {
            name: name.to_string(),
            op: "Add".into(),
            domain: String::new(),
            overload: String::new(),
            inputs: own(inputs),
            outputs: own(outputs),
            attributes: Vec::new(),
        };
        text.iter().map(node).collect()
    }

    fn run(nodes: &[NodeDef], wanted: &[&str]) -> Result<Vec<usize>, Vec<String>> {
        order(nodes, &|n| n == "x", wanted.iter().copied())
            .map_err(|ps| ps.iter().map(|p| format!("{} @ {}", p.message, p.places.join(" "))).collect())
    }

    #[test]
    fn unsorted_files_are_sorted_and_dead_nodes_left_out() {
        let n = nodes(&[("c", &["b"], &["c"]), ("a", &["x"], &["a"]), ("dead", &["a"], &["d"]), ("b", &["a"], &["b"])]);
        assert_eq!(run(&n, &["c"]), Ok(vec![1, 3, 0]));
        assert_eq!(run(&n, &["a"]), Ok(vec![1]));
    }

    #[test]
    fn cycles_are_named() {
        let n =
            nodes(&[("p", &["x", "r"], &["p"]), ("q", &["p"], &["q"]), ("r", &["q"], &["r"]), ("", &["r"], &["s"])]);
        let message = "the graph has a cycle @ node \"q\" node \"r\" node \"p\"";
        assert_eq!(run(&n, &["s"]), Err(vec![message.to_string()]));
    }

    #[test]
    fn names_are_defined_once_and_exist() {
        let n = nodes(&[("a", &["nowhere"], &["a"]), ("", &["x"], &["a"])]);
        assert_eq!(
            run(&n, &["a", "gone"]),
            Err(vec![
                "Add: the value `a` is defined twice @ node \"Add_1\"".to_string(),
                "the graph's output is made by no node @ output \"gone\"".to_string(),
            ])
        );
        let n = nodes(&[("a", &["nowhere"], &["a"])]);
        assert_eq!(
            run(&n, &["a"]),
            Err(vec!["Add: the operand `nowhere` is made by no node @ node \"a\"".to_string()])
        );
    }
}
