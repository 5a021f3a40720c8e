//! Checks that a graph keeps its invariants. Runs around every pass in tests and debug builds.
//!
//! Structure
//! 1. The graph has no cycle.
//! 2. An operand exists: its node is in the graph and has that output. No position is given twice.
//! 3. The graph's inputs are exactly the nodes with operator `input`; these and constants have one output, no operands.
//! 4. The graph's outputs exist and have different names. Names of values are unique.
//!
//! Types
//! 5. The types of a node's outputs are those that its operator infers from the types of its operands.
//! 6. No dimension is a negative number.
//!
//! Layouts
//! 7. Inputs, outputs and constants of the graph are row-major: its boundary has one layout. The two values of a state have
//!    one type.
//! 8. A blocked value has a channel axis (rank 2 or more).
//! 9. A relayout's result has the layout that its attribute says.
//!
//! Not checked here: that operators accept the layouts of their operands (code generation refuses what it has no kernel
//! for); that every node has an origin (graphs made by hand have none).
//!
//! All errors are collected; [`Errors`] displays the graph with each error under the line of its node.

use crate::graph::{Graph, NodeId, ValueId};
use crate::print::{self, Options};
use crate::{Layout, Op, TensorType};
use rustc_hash::{FxHashMap, FxHashSet};
use std::fmt;

/// The broken invariants of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    /// Each error and the node that it concerns, if it is one node's.
    pub errors: Vec<(Option<NodeId>, String)>,
    text: String,
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.errors.len();
        writeln!(f, "the graph is broken in {n} place{}:", if n == 1 { "" } else { "s" })?;
        for (_, e) in self.errors.iter().filter(|(n, _)| n.is_none()) {
            writeln!(f, "{e}")?;
        }
        f.write_str(&self.text)
    }
}

impl std::error::Error for Errors {}

/// Checks every invariant.
pub fn verify(g: &Graph) -> Result<(), Errors> {
    let mut errors: Vec<(Option<NodeId>, String)> = Vec::new();
    if g.topological_order().is_none() {
        errors.push((None, "there is a cycle".into()));
    }
    let mut names: FxHashSet<&str> = FxHashSet::default();
    for n in g.node_ids() {
        let mut error = |e: String| errors.push((Some(n), e));
        let edges = g.edge_errors(n);
        let sound = edges.is_empty();
        edges.into_iter().for_each(&mut error);
        for v in g.node(n).outputs() {
            if !names.insert(&v.name) {
                error(format!("the name {} is taken", print::name(&v.name)));
            }
            if let Some(d) = v.ty.shape.iter().find(|d| d.known().is_some_and(|d| d < 0)) {
                error(format!("{} has the negative dimension {d}", v.ty));
            }
            if v.layout == Layout::Blocked && v.ty.rank() < 2 {
                error(format!("{} has no channel axis, but is blocked", v.ty));
            }
        }
        if sound {
            check_op(g, n, &mut error);
        }
    }
    check_boundary(g, &mut errors);
    if errors.is_empty() {
        return Ok(());
    }
    let mut notes: FxHashMap<NodeId, Vec<String>> = FxHashMap::default();
    for (n, e) in &errors {
        if let Some(n) = n {
            notes.entry(*n).or_default().push(e.clone());
        }
    }
    let text = print::annotated(g, &Options { types: true, ..Options::default() }, &notes);
    Err(Errors { errors, text })
}

/// Operator against operands and outputs, for a node whose edges are sound.
fn check_op(g: &Graph, n: NodeId, error: &mut impl FnMut(String)) {
    let node = g.node(n);
    let operands = g.operands(n);
    let types: Vec<Option<&TensorType>> = operands.iter().map(|v| v.map(|v| g.ty(v))).collect();
    let given: Vec<&TensorType> = node.outputs().iter().map(|v| &v.ty).collect();
    if matches!(node.op, Op::Input | Op::Constant(_)) && !operands.is_empty() {
        error(format!("{} has operands", node.op.name()));
    }
    match &node.op {
        Op::Input => {
            if !g.inputs().contains(&n) {
                error("is not among the graph's inputs".into());
            }
            if given.len() != 1 {
                error(format!("has {} outputs, not one", given.len()));
            }
        }
        op => match op.infer(&types) {
            Err(e) => error(e.to_string()),
            Ok(wanted) if wanted.iter().eq(given.iter().copied()) => {}
            Ok(wanted) => error(format!("has the types {}, expected {}", list(&given), list(&wanted))),
        },
    }
    if let (Op::Relayout(r), [y]) = (&node.op, node.outputs()) {
        let wanted = Layout::from(r.layout);
        if y.layout != wanted {
            error(format!("the result is {}, expected {wanted}", y.layout));
        }
    }
}

fn list<T: fmt::Display>(types: &[T]) -> String {
    types.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// Inputs, outputs and constants of the graph.
fn check_boundary(g: &Graph, errors: &mut Vec<(Option<NodeId>, String)>) {
    for &n in g.inputs() {
        match g.contains(n).then(|| g.op(n)) {
            Some(Op::Input) => {}
            Some(op) => errors.push((Some(n), format!("is among the graph's inputs, but is {}", op.name()))),
            None => errors.push((None, "an input of the graph is not in the graph".into())),
        }
    }
    let mut names: FxHashSet<&str> = FxHashSet::default();
    for (name, v) in g.outputs() {
        if !names.insert(name) {
            errors.push((None, format!("two outputs have the name {}", print::name(name))));
        }
        let exists = g.contains(v.node) && (v.out as usize) < g.node(v.node).outputs().len();
        if !exists {
            errors.push((None, format!("the output {} is not in the graph", print::name(name))));
        }
    }
    for &(input, output) in g.states() {
        let pair = g.inputs().get(input).zip(g.outputs().get(output));
        let Some((&n, (name, v))) = pair.filter(|(n, (_, v))| g.contains(**n) && g.contains(v.node)) else {
            errors.push((None, format!("state of input {input} and output {output}, which are not there")));
            continue;
        };
        let (old, new) = (g.ty(ValueId { node: n, out: 0 }), g.ty(*v));
        if old != new {
            errors.push((Some(v.node), format!("the output {} is {new}, its state {old}", print::name(name))));
        }
    }
    let boundary = |v: &ValueId| g.is_output(*v) || matches!(g.op(v.node), Op::Input | Op::Constant(_));
    for v in g.node_ids().flat_map(|n| g.results(n)).filter(boundary) {
        if g.value(v).layout != Layout::RowMajor {
            let what = if g.is_output(v) { "an output of the graph" } else { g.op(v.node).name() };
            errors.push((Some(v.node), format!("{what} is {}, expected row_major", g.value(v).layout)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::reshape::{Identity, Relayout, TargetLayout};
    use crate::parse;

    fn sample() -> Graph {
        parse::graph("graph g(%x: f32[1,8,2,2]) {\n %y = exp %x\n %z = relu %y ; from \"act\"\n return %z\n}").unwrap()
    }

    /// The node that computes the value of that name.
    fn node(g: &Graph, name: &str) -> NodeId {
        g.node_ids().find(|n| g.node(*n).outputs().iter().any(|v| &*v.name == name)).unwrap()
    }

    fn errors(g: &Graph) -> Vec<String> {
        verify(g).unwrap_err().errors.into_iter().map(|(_, e)| e).collect()
    }

    #[test]
    fn a_sound_graph_passes() {
        assert_eq!(verify(&sample()), Ok(()));
    }

    #[test]
    fn errors_stand_under_their_lines() {
        let mut g = sample();
        let x = ValueId { node: g.inputs()[0], out: 0 };
        let bad = g.add1(Identity {}, &[x], Default::default(), "bad").unwrap();
        g.set_layout(bad, Layout::Blocked);
        g.add_output("out", bad);
        g.set_operand(node(&g, "z"), 1, Some(x));
        insta::assert_snapshot!(verify(&g).unwrap_err(), @r#"
        the graph is broken in 2 places:
        graph g(%x: f32[1,8,2,2]) {
          %y = exp %x                                                  ; f32[1,8,2,2]
          %z = relu %y, %x                                             ; f32[1,8,2,2] from "act"
          ; ^ takes 1 operands, 2 are given
          %bad: blocked = identity %x                                  ; f32[1,8,2,2]
          ; ^ an output of the graph is blocked, expected row_major
          return %z, %bad as out
        }
        "#);
    }

    #[test]
    fn types_follow_the_operands() {
        let mut g = sample();
        let other = g.add_input("other", TensorType::fixed(crate::DType::F32, &[3]));
        g.set_operand(node(&g, "y"), 0, Some(other));
        assert_eq!(errors(&g), ["has the types f32[1,8,2,2], expected f32[3]"]);
    }

    #[test]
    fn cycles_and_missing_outputs_are_found() {
        let mut g = sample();
        let (y, z) = (node(&g, "y"), node(&g, "z"));
        g.set_operand(y, 0, Some(ValueId { node: z, out: 0 }));
        assert_eq!(errors(&g), ["there is a cycle"]);
        g.set_operand(y, 0, Some(ValueId { node: g.inputs()[0], out: 4 }));
        assert_eq!(errors(&g), ["operand 0 is output 4 of a input that has 1"]);
    }

    #[test]
    fn layouts_are_those_of_relayouts() {
        let mut g = sample();
        let y = ValueId { node: node(&g, "y"), out: 0 };
        let b = g.add1(Relayout { layout: TargetLayout::Blocked }, &[y], Default::default(), "b").unwrap();
        assert_eq!(errors(&g), ["the result is row_major, expected blocked"]);
        g.set_layout(b, Layout::Blocked);
        assert_eq!(verify(&g), Ok(()));
    }

    #[test]
    fn output_names_differ() {
        let mut g = sample();
        let y = ValueId { node: node(&g, "y"), out: 0 };
        g.add_output("z", y);
        assert_eq!(errors(&g), ["two outputs have the name z"]);
    }
}
