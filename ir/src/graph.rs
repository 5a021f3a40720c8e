//! The graph: operators as nodes, values as their outputs, over petgraph's `StableDiGraph`.
//!
//! ```text
//! value     ValueId {node, out}: output number `out` of a node; has a type, a name and a layout
//! edge      from the producing node to the using node, carrying (output index -> operand index)
//! operand   position in a node's operand list; may be absent (`None`) for an optional operand
//! ```
//!
//! Invariants, kept by the methods here and checked by the verifier: an edge's indices exist; an operand position has at
//! most one edge; output types are what the operator infers; node ids stay valid while other nodes are removed.
//! Nothing outside of this file sees petgraph.

use crate::{Constant, Layout, Op, TensorType, TypeError};
use petgraph::Direction::{Incoming, Outgoing};
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A node of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// A number that is unique in the graph, below [`Graph::node_bound`]: for dense side tables.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One output of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId {
    /// The node that computes it.
    pub node: NodeId,
    /// Which of the node's outputs.
    pub out: u32,
}

/// Operands of a node, in order.
pub type Operands = SmallVec<[Option<ValueId>; 4]>;

/// The names of the model's nodes that a node stands for, so that diagnostics and profiles speak the user's names.
/// A rewrite passes on the origins of everything it replaces.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Origin(SmallVec<[Arc<str>; 1]>);

impl Origin {
    /// The origin of a node of the model.
    pub fn named(name: &str) -> Origin {
        Origin(SmallVec::from_elem(name.into(), 1))
    }

    /// All names of several origins, each once. Linear in their number.
    pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Origin>) -> Origin {
        let mut seen: FxHashSet<&'a str> = FxHashSet::default();
        let names = parts.into_iter().flat_map(|o| &o.0).filter(|n| seen.insert(n)).cloned().collect();
        Origin(names)
    }

    /// The names.
    pub fn names(&self) -> &[Arc<str>] {
        &self.0
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("+"))
    }
}

/// What is known of a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Element type and logical shape.
    pub ty: TensorType,
    /// A name, unique in the graph: the model's where it has one.
    pub name: Arc<str>,
    /// How it is stored.
    pub layout: Layout,
}

/// An operator with its outputs.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// The model's nodes it stands for.
    pub origin: Origin,
    outputs: SmallVec<[Value; 1]>,
    operand_count: u32,
}

impl Node {
    /// The outputs.
    pub fn outputs(&self) -> &[Value] {
        &self.outputs
    }
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    out: u32,
    operand: u32,
}

/// A network: operators over values, with named inputs and outputs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The model's name.
    pub name: String,
    nodes: StableDiGraph<Node, Edge>,
    inputs: Vec<NodeId>,
    outputs: Vec<(Arc<str>, ValueId)>,
    states: Vec<(usize, usize)>,
    names: FxHashSet<Arc<str>>,
}

fn ix(n: NodeId) -> NodeIndex {
    NodeIndex::new(n.index())
}

fn id(n: NodeIndex) -> NodeId {
    NodeId(n.index() as u32)
}

impl Graph {
    /// An empty graph.
    pub fn new(name: &str) -> Graph {
        Graph { name: name.to_string(), ..Graph::default() }
    }

    // ---- building -------------------------------------------------------------------------------------------------

    /// Adds an input.
    pub fn add_input(&mut self, name: &str, ty: TensorType) -> ValueId {
        let n = self.push(Op::Input, Origin::default(), vec![ty], &[], &[name]);
        self.inputs.push(n);
        ValueId { node: n, out: 0 }
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, name: &str, c: Constant) -> ValueId {
        let ty = c.ty();
        ValueId { node: self.push(Op::Constant(c), Origin::default(), vec![ty], &[], &[name]), out: 0 }
    }

    /// Adds an operator; output types are inferred. `names` are wanted names of the outputs (made unique; missing ones
    /// are made up).
    pub fn add(
        &mut self,
        op: impl Into<Op>,
        operands: &[Option<ValueId>],
        origin: Origin,
        names: &[&str],
    ) -> Result<NodeId, TypeError> {
        let op = op.into();
        let types: Vec<Option<&TensorType>> = operands.iter().map(|v| v.map(|v| self.ty(v))).collect();
        let outputs = op.infer(&types)?;
        Ok(self.push(op, origin, outputs, operands, names))
    }

    /// Adds an operator with one output whose operands are all given, and returns that output.
    pub fn add1(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        origin: Origin,
        name: &str,
    ) -> Result<ValueId, TypeError> {
        let operands: Operands = operands.iter().copied().map(Some).collect();
        Ok(ValueId { node: self.add(op, &operands, origin, &[name])?, out: 0 })
    }

    fn push(
        &mut self,
        op: Op,
        origin: Origin,
        types: Vec<TensorType>,
        operands: &[Option<ValueId>],
        names: &[&str],
    ) -> NodeId {
        let outputs = types
            .into_iter()
            .enumerate()
            .map(|(i, ty)| Value {
                ty,
                name: self.unique_name(names.get(i).copied().unwrap_or("")),
                layout: Layout::RowMajor,
            })
            .collect();
        let n = self.nodes.add_node(Node { op, origin, outputs, operand_count: operands.len() as u32 });
        for (i, v) in operands.iter().enumerate() {
            if let Some(v) = v {
                self.nodes.add_edge(ix(v.node), n, Edge { out: v.out, operand: i as u32 });
            }
        }
        id(n)
    }

    /// `wanted`, or with a number behind it if it is taken; a made-up name if it is empty.
    fn unique_name(&mut self, wanted: &str) -> Arc<str> {
        let base = if wanted.is_empty() { "t" } else { wanted };
        let mut name: Arc<str> = base.into();
        if wanted.is_empty() || self.names.contains(&name) {
            let mut n = self.names.len();
            loop {
                name = format!("{base}.{n}").into();
                if !self.names.contains(&name) {
                    break;
                }
                n += 1;
            }
        }
        self.names.insert(name.clone());
        name
    }

    /// Adds an output of the graph under `name`.
    pub fn add_output(&mut self, name: &str, v: ValueId) {
        self.outputs.push((name.into(), v));
    }

    /// Says that output `output` is the next value of input `input`, of the same type, and may be written into its buffer.
    pub fn add_state(&mut self, input: usize, output: usize) {
        self.states.push((input, output));
    }

    // ---- reading --------------------------------------------------------------------------------------------------

    /// The inputs' nodes, in order.
    pub fn inputs(&self) -> &[NodeId] {
        &self.inputs
    }

    /// The outputs, in order, with the names that the model gives them.
    pub fn outputs(&self) -> &[(Arc<str>, ValueId)] {
        &self.outputs
    }

    /// The state: pairs of an input and the output that is its next value, by their places in the lists of both. The caller of
    /// compiled code may give one buffer for the two.
    pub fn states(&self) -> &[(usize, usize)] {
        &self.states
    }

    /// The node.
    pub fn node(&self, n: NodeId) -> &Node {
        &self.nodes[ix(n)]
    }

    /// What the user knows a node by: the model's nodes that it stands for, or else its first result.
    pub fn node_name(&self, n: NodeId) -> String {
        let node = self.node(n);
        match node.origin.names() {
            [] => node.outputs().first().map_or(String::new(), |v| v.name.to_string()),
            _ => node.origin.to_string(),
        }
    }

    /// Its operator.
    pub fn op(&self, n: NodeId) -> &Op {
        &self.nodes[ix(n)].op
    }

    /// Whether the node is (still) in the graph.
    pub fn contains(&self, n: NodeId) -> bool {
        self.nodes.contains_node(ix(n))
    }

    /// What is known of a value.
    pub fn value(&self, v: ValueId) -> &Value {
        &self.nodes[ix(v.node)].outputs[v.out as usize]
    }

    /// The type of a value.
    pub fn ty(&self, v: ValueId) -> &TensorType {
        &self.value(v).ty
    }

    /// The constant that a value is, if it is one.
    pub fn constant(&self, v: ValueId) -> Option<&Constant> {
        match self.op(v.node) {
            Op::Constant(c) => Some(c),
            _ => None,
        }
    }

    /// The operands of a node.
    pub fn operands(&self, n: NodeId) -> Operands {
        let mut out: Operands = SmallVec::from_elem(None, self.nodes[ix(n)].operand_count as usize);
        for e in self.nodes.edges_directed(ix(n), Incoming) {
            out[e.weight().operand as usize] = Some(ValueId { node: id(e.source()), out: e.weight().out });
        }
        out
    }

    /// One operand, `None` if it is absent or there is no such position.
    pub fn operand(&self, n: NodeId, i: usize) -> Option<ValueId> {
        let mut edges = self.nodes.edges_directed(ix(n), Incoming);
        edges.find(|e| e.weight().operand as usize == i).map(|e| ValueId { node: id(e.source()), out: e.weight().out })
    }

    /// What is wrong with the edges into a node, for the verifier: nothing, unless a method here was misused.
    pub(crate) fn edge_errors(&self, n: NodeId) -> Vec<String> {
        let (mut seen, mut errors) = (BTreeSet::new(), Vec::new());
        for e in self.nodes.edges_directed(ix(n), Incoming) {
            let Edge { out, operand } = *e.weight();
            let source = &self.nodes[e.source()];
            if out as usize >= source.outputs.len() {
                let has = source.outputs.len();
                errors.push(format!("operand {operand} is output {out} of a {} that has {has}", source.op.name()));
            }
            if operand >= self.nodes[ix(n)].operand_count || !seen.insert(operand) {
                errors.push(format!("operand {operand} is given twice or is beyond the last one"));
            }
        }
        errors
    }

    /// The outputs of a node as values.
    pub fn results(&self, n: NodeId) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.nodes[ix(n)].outputs.len() as u32).map(move |out| ValueId { node: n, out })
    }

    /// The uses of a value by nodes, as (node, operand position), in no particular order. Graph outputs are not among
    /// them: see [`Graph::is_output`].
    pub fn users(&self, v: ValueId) -> impl Iterator<Item = (NodeId, usize)> + '_ {
        let edges = self.nodes.edges_directed(ix(v.node), Outgoing);
        edges.filter(move |e| e.weight().out == v.out).map(|e| (id(e.target()), e.weight().operand as usize))
    }

    /// Whether the value is an output of the graph.
    pub fn is_output(&self, v: ValueId) -> bool {
        self.outputs.iter().any(|(_, o)| *o == v)
    }

    /// The only use of a value: `None` if there are several uses or it is an output of the graph.
    pub fn sole_user(&self, v: ValueId) -> Option<(NodeId, usize)> {
        let mut users = self.users(v);
        let first = users.next()?;
        (users.next().is_none() && !self.is_output(v)).then_some(first)
    }

    /// All nodes, in id order.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.node_indices().map(id)
    }

    /// The number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.node_count()
    }

    /// A number above every node id.
    pub fn node_bound(&self) -> usize {
        self.nodes.node_indices().next_back().map_or(0, |n| n.index() + 1)
    }

    /// The nodes so that each stands behind those it uses; of several such orders the one that takes the lowest ids
    /// first, so that equal graphs give equal code. `None` if there is a cycle. O((V + E) log V).
    pub fn topological_order(&self) -> Option<Vec<NodeId>> {
        let mut missing = vec![0usize; self.node_bound()];
        let mut ready = BTreeSet::new();
        for n in self.node_ids() {
            missing[n.index()] = self.nodes.edges_directed(ix(n), Incoming).count();
            if missing[n.index()] == 0 {
                ready.insert(n);
            }
        }
        let mut order = Vec::with_capacity(self.node_count());
        while let Some(n) = ready.pop_first() {
            order.push(n);
            for e in self.nodes.edges_directed(ix(n), Outgoing) {
                let t = id(e.target());
                missing[t.index()] -= 1;
                if missing[t.index()] == 0 {
                    ready.insert(t);
                }
            }
        }
        (order.len() == self.node_count()).then_some(order)
    }

    // ---- changing -------------------------------------------------------------------------------------------------

    /// Makes every use of `old`, also as an output of the graph, a use of `new`.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        if old == new {
            return;
        }
        let users: Vec<(NodeId, usize)> = self.users(old).collect();
        for (n, i) in users {
            self.set_operand(n, i, Some(new));
        }
        for (_, o) in &mut self.outputs {
            if *o == old {
                *o = new;
            }
        }
    }

    /// Sets one operand of a node; a position behind the last one extends the operand list.
    pub fn set_operand(&mut self, n: NodeId, i: usize, v: Option<ValueId>) {
        let old = self.nodes.edges_directed(ix(n), Incoming).find(|e| e.weight().operand as usize == i).map(|e| e.id());
        if let Some(e) = old {
            self.nodes.remove_edge(e);
        }
        if let Some(v) = v {
            self.nodes.add_edge(ix(v.node), ix(n), Edge { out: v.out, operand: i as u32 });
        }
        let count = &mut self.nodes[ix(n)].operand_count;
        *count = (*count).max(i as u32 + 1);
    }

    /// Sets one output of the graph.
    pub fn set_output(&mut self, i: usize, v: ValueId) {
        self.outputs[i].1 = v;
    }

    /// Sets the layout of a value.
    pub fn set_layout(&mut self, v: ValueId, layout: Layout) {
        self.nodes[ix(v.node)].outputs[v.out as usize].layout = layout;
    }

    /// Gives a value another name (made unique).
    pub fn rename(&mut self, v: ValueId, wanted: &str) {
        let old = self.value(v).name.clone();
        if &*old != wanted {
            self.names.remove(&old);
            let name = self.unique_name(wanted);
            self.nodes[ix(v.node)].outputs[v.out as usize].name = name;
        }
    }

    /// Adds to the names that a node stands for. Linear in all of them: what is to be added is better added at once.
    pub fn add_origins<'a>(&mut self, n: NodeId, more: impl IntoIterator<Item = &'a Origin>) {
        let own = std::mem::take(&mut self.nodes[ix(n)].origin);
        let mut parts: Vec<&Origin> = vec![&own];
        for origin in more {
            parts.push(origin);
        }
        self.nodes[ix(n)].origin = Origin::merged(parts);
    }

    /// Removes a node. Its outputs must have no uses left.
    ///
    /// # Panics
    /// If one is used: a bug of the caller.
    pub fn remove(&mut self, n: NodeId) {
        assert!(
            self.nodes.edges_directed(ix(n), Outgoing).next().is_none(),
            "a value of the removed node is still used"
        );
        assert!(!self.outputs.iter().any(|(_, v)| v.node == n), "a value of the removed node is an output");
        if let Some(node) = self.nodes.remove_node(ix(n)) {
            for v in &node.outputs {
                self.names.remove(&v.name);
            }
        }
        self.inputs.retain(|i| *i != n);
    }
}
