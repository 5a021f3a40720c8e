//! The import: a model's graph walked once, node by node, into the graph IR.
//!
//! ```text
//! inputs, initializers -> names      options say which inputs are constants and what symbolic dimensions are
//! for each node, in order            (order.rs: what the outputs need, sorted)
//!     operands by name               poisoned by an earlier problem: skipped, the outputs are poisoned too
//!     operator, function or If       registry (ops/), inlined, the branch that a constant condition takes
//!     outputs -> names
//! outputs
//! ```
//!
//! A problem with one node poisons what depends on it and the walk goes on, so that one report has every problem.
//! What a small file can expand to is bounded: nodes and constants by the builder's budgets, nesting by `DEPTH`.

use crate::build::{Builder, Stop, check_size};
use crate::model::{
    Attr, FunctionDef, FunctionKey, GraphDef, Half, ModelDef, NodeDef, Opsets, TensorDef, ValueDef, ValueType,
};
use crate::node::NodeCx;
use crate::options::{ImportOptions, Symbols};
use crate::order;
use crate::problem::{Blame, Problem, Problems};
use crate::tensor;
use crate::value::{ConstVal, Val};
use nncc_ir::{Constant, Dim, Graph, Origin, Shape, TensorType};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The newest version of the default operator set that the importer knows.
pub const NEWEST_OPSET: i64 = 28;
/// Functions and branches within each other.
const DEPTH: usize = 32;

/// An imported model.
#[derive(Clone, Debug)]
pub struct Import {
    /// What it computes. Inputs that were fixed are constants in it; its dimensions hold the symbols that are still open.
    pub graph: Graph,
    /// The model's `metadata_props`.
    pub metadata: Vec<(String, String)>,
    /// Names of the dimensions that are still open, sorted.
    pub symbols: Vec<String>,
}

/// What a name stands for.
#[derive(Clone)]
enum Slot {
    Val(Val),
    /// An optional input of a function that the call leaves out.
    Absent,
    /// Not reported yet: it may never be used.
    Broken(Rc<Problem>),
    /// Half floats, which a Cast can read and which are a problem elsewhere.
    Half(Rc<(Half, Problem)>),
    /// It depends on something that has been reported.
    Poisoned,
}

/// Names in a graph, a function's body or a branch.
struct Scope<'s> {
    values: FxHashMap<String, Slot>,
    /// A branch sees the names around it, a function does not.
    outer: Option<&'s Scope<'s>>,
    /// Attributes of the call that references in a function's body stand for.
    attributes: Rc<Vec<(String, Attr)>>,
    opsets: &'s Opsets,
    /// What stands before names of nodes: `caller/`.
    prefix: String,
    depth: usize,
    /// Names that attributes of its nodes name: values of their own, see [`Importer::own_value`].
    named: FxHashSet<String>,
}

impl Scope<'_> {
    fn find(&self, name: &str) -> Option<&Slot> {
        self.values.get(name).or_else(|| self.outer.and_then(|o| o.find(name)))
    }
}

/// Imports a model.
pub(crate) fn import(model: &ModelDef, options: &ImportOptions) -> Result<Import, Vec<Problem>> {
    let mut importer = Importer {
        model,
        builder: Builder::new(&model.graph.name, options.training, model.node_count),
        problems: Problems::default(),
        reported: FxHashSet::default(),
        calls: Vec::new(),
    };
    let symbols = importer.graph(options);
    let problems = importer.problems.into_list();
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Import { graph: importer.builder.graph, metadata: model.metadata.clone(), symbols })
}

struct Importer<'m> {
    model: &'m ModelDef,
    builder: Builder,
    problems: Problems,
    /// Initializers that have been reported.
    reported: FxHashSet<String>,
    /// The functions that are being inlined, outermost first.
    calls: Vec<FunctionKey>,
}

// ---- the graph as a whole -----------------------------------------------------------------------------------------------

impl<'m> Importer<'m> {
    /// Imports the model's graph; the names of the dimensions that stay open.
    fn graph(&mut self, options: &ImportOptions) -> Vec<String> {
        let model = self.model;
        let graph = &model.graph;
        let mut symbols = match Symbols::new(options) {
            Ok(symbols) => symbols,
            Err(problem) => {
                self.problems.push(problem);
                return Vec::new();
            }
        };
        if let Some(opset) = model.opsets.get("").filter(|v| **v > NEWEST_OPSET) {
            let problem = Problem::unsupported(format!("opset {opset}: the newest that nncc knows is {NEWEST_OPSET}"));
            self.problems.push(problem.help("export the model for an older opset"));
            return Vec::new();
        }
        if graph.outputs.is_empty() {
            self.problems
                .push(Problem::invalid("the graph has no outputs").rule("ONNX IR: a graph computes its outputs"));
            return Vec::new();
        }
        let mut scope = Scope {
            values: FxHashMap::default(),
            outer: None,
            attributes: Rc::default(),
            opsets: &model.opsets,
            prefix: String::new(),
            depth: 0,
            named: FxHashSet::default(),
        };
        self.initializers(&graph.initializers, &mut scope);
        self.inputs(graph, options, &mut symbols, &mut scope);
        let unused = symbols.unused(options);
        if !unused.is_empty() {
            let has = match symbols.met().iter().map(|n| format!("`{n}`")).collect::<Vec<_>>() {
                known if known.is_empty() => "the model has no symbolic dimensions".to_string(),
                known => format!("the model has {}", known.join(", ")),
            };
            for name in unused {
                self.problems.push(Problem::options(format!("no dimension is called `{name}`")).help(has.clone()));
            }
        }
        self.nodes(&graph.nodes, &graph.outputs, &mut scope);
        let mut names = FxHashSet::default();
        for output in &graph.outputs {
            if !names.insert(&output.name) {
                let problem = Problem::invalid("two outputs have one name").at(format!("output \"{}\"", output.name));
                self.problems.push(problem.rule("ONNX IR: names of a graph's outputs are unique"));
            }
            self.output(output, &scope);
        }
        let graph = &self.builder.graph;
        let mut open: Vec<String> = Vec::new();
        for &input in graph.inputs() {
            let types = graph.node(input).outputs().iter().map(|o| &o.ty);
            open.extend(types.flat_map(TensorType::symbols).map(|s| s.to_string()));
        }
        open.sort();
        open.dedup();
        open
    }

    fn initializers(&mut self, tensors: &[TensorDef], scope: &mut Scope) {
        for t in tensors {
            let slot = match &t.content {
                Ok(c) => Slot::Val(named(c.clone(), &t.name)),
                Err(problem) => match &t.half {
                    Some(half) => Slot::Half(Rc::new((half.clone(), problem.clone()))),
                    None => Slot::Broken(Rc::new(problem.clone())),
                },
            };
            if scope.values.insert(t.name.clone(), slot).is_some() {
                let problem =
                    Problem::invalid("two initializers have one name").at(format!("initializer \"{}\"", t.name));
                self.problems.push(problem.rule("ONNX IR: a name is defined once in a graph"));
            }
        }
    }

    /// Adds the graph's inputs. An initializer that is listed as an input too is a constant: before IR version 4 every
    /// initializer was, since then it is a default that nncc compiles in.
    fn inputs(&mut self, graph: &GraphDef, options: &ImportOptions, symbols: &mut Symbols, scope: &mut Scope) {
        let inputs: Vec<&ValueDef> = graph.inputs.iter().filter(|i| !scope.values.contains_key(&i.name)).collect();
        let known = || match inputs.iter().map(|i| format!("`{}`", i.name)).collect::<Vec<_>>() {
            names if names.is_empty() => "the model has no inputs".to_string(),
            names => format!("the model's inputs are {}", names.join(", ")),
        };
        for name in options.fixed.keys().chain(options.shapes.keys()) {
            if !inputs.iter().any(|i| i.name == *name) {
                self.problems.push(Problem::options(format!("no input is called `{name}`")).help(known()));
            }
        }
        for input in &inputs {
            let ValueType::Tensor { shape: Some(shape), .. } = &input.ty else { continue };
            let fixed = options.fixed.get(&input.name).map(|t| t.ty().shape);
            for given in fixed.iter().chain(options.shapes.get(&input.name)) {
                if let Err(problem) = symbols.learn(&input.name, shape, given) {
                    self.problems.push(problem);
                }
            }
        }
        for input in inputs {
            let slot = match self.input(input, options, symbols) {
                Ok(val) => Slot::Val(val),
                Err(problem) => {
                    self.problems.push(problem.at(format!("input \"{}\"", input.name)));
                    Slot::Poisoned
                }
            };
            if scope.values.insert(input.name.clone(), slot).is_some() {
                let problem = Problem::invalid("two inputs have one name").at(format!("input \"{}\"", input.name));
                self.problems.push(problem.rule("ONNX IR: a name is defined once in a graph"));
            }
        }
    }

    fn input(&mut self, input: &ValueDef, options: &ImportOptions, symbols: &mut Symbols) -> Result<Val, Problem> {
        let (elem, shape) = match &input.ty {
            ValueType::Tensor { elem, shape } => (*elem, shape),
            ValueType::Undeclared => {
                return Err(Problem::invalid("an input without a type").rule("ONNX IR: inputs have types"));
            }
            ValueType::Other(kind) => return Err(Problem::unsupported(format!("values of type {kind}"))),
        };
        let dtype = tensor::dtype(i64::from(elem))?;
        if let Some(fixed) = options.fixed.get(&input.name) {
            if fixed.dtype() != dtype {
                return Err(Problem::options(format!("the fixed value is {}, the input {dtype}", fixed.dtype())));
            }
            return Ok(named(Constant::from_tensor(fixed), &input.name));
        }
        let shape: Shape = match (options.shapes.get(&input.name), shape) {
            (Some(given), _) => given.clone(),
            (None, Some(declared)) => {
                declared.iter().enumerate().map(|(axis, d)| symbols.dim(&input.name, axis, d)).collect()
            }
            (None, None) => {
                return Err(Problem::options("the model does not say how many axes the input has")
                    .help(format!("`--shape {}=1x3x224x224` says it", input.name)));
            }
        };
        let ty = TensorType { dtype, shape };
        check_size(&ty).map_err(|p| *p)?;
        Ok(Val::Node(self.builder.graph.add_input(&input.name, ty)))
    }

    fn output(&mut self, output: &ValueDef, scope: &Scope) {
        let Some(Slot::Val(val)) = self.lookup(&output.name, scope) else { return };
        let place = format!("output \"{}\"", output.name);
        if let ValueType::Tensor { elem, .. } = output.ty
            && elem != 0
        {
            let actual = self.builder.ty(&val).dtype;
            match tensor::dtype(i64::from(elem)) {
                Ok(declared) if declared == actual => {}
                Ok(declared) => self.problems.push(
                    Problem::invalid(format!("the output is declared {declared} and computed as {actual}"))
                        .at(&place)
                        .rule("ONNX IR: the declared type of a value is its type"),
                ),
                Err(problem) => self.problems.push(problem.at(&place)),
            }
        }
        match self.builder.place(&val) {
            Ok(value) => self.builder.graph.add_output(&output.name, value),
            Err(problem) => self.problems.push(problem.at(place)),
        }
    }

    /// What a name stands for, after reporting an initializer that cannot be read.
    fn lookup(&mut self, name: &str, scope: &Scope) -> Option<Slot> {
        let slot = scope.find(name)?;
        let problem = match slot {
            Slot::Broken(problem) => Some(&**problem),
            Slot::Half(half) => Some(&half.1),
            _ => None,
        };
        match problem {
            Some(problem) => {
                let place = format!("initializer \"{}{name}\"", scope.prefix);
                if self.reported.insert(place.clone()) {
                    self.problems.push(problem.clone().at(place));
                }
                Some(Slot::Poisoned)
            }
            None => Some(slot.clone()),
        }
    }
}

/// A constant that the model gives a name.
fn named(constant: Constant, name: &str) -> Val {
    let weight = constant.dtype().is_float() && constant.elems() > 1;
    Val::Const(Rc::new(ConstVal { constant, name: RefCell::new(name.to_string()), placed: Cell::new(None), weight }))
}

// ---- nodes --------------------------------------------------------------------------------------------------------------

impl<'m> Importer<'m> {
    /// Imports the nodes that `outputs` need.
    fn nodes(&mut self, nodes: &[NodeDef], outputs: &[ValueDef], scope: &mut Scope) {
        self.nodes_for(nodes, outputs.iter().map(|v| v.name.as_str()), scope);
    }

    fn nodes_for<'a>(&mut self, nodes: &'a [NodeDef], outputs: impl Iterator<Item = &'a str>, scope: &mut Scope) {
        let order = match order::order(nodes, &|n| scope.find(n).is_some(), outputs) {
            Ok(order) => order,
            Err(problems) => return problems.into_iter().for_each(|p| self.problems.push(p)),
        };
        self.own_values(order.iter().filter_map(|i| nodes.get(*i)), scope);
        for i in order {
            if let Some(node) = nodes.get(i) {
                self.node(node, &order::label(node, i), scope);
            }
        }
    }

    /// Notes the names that attributes of these nodes name, and makes those that are bound by now values of their own.
    fn own_values<'a>(&mut self, nodes: impl Iterator<Item = &'a NodeDef>, scope: &mut Scope) {
        for name in nodes.flat_map(crate::ops::named_values).flat_map(|(_, names)| names) {
            if !scope.named.insert(name.to_string()) {
                continue;
            }
            let Some(Slot::Val(val)) = scope.find(name).cloned() else { continue };
            // An input of the graph is one; what a function or a branch sees may have other names too.
            let own = if scope.depth == 0 { 0 } else { self.builder.graph.node_bound() };
            let slot = self.own_value(val, own);
            scope.values.insert(name.to_string(), slot);
        }
    }

    /// A value that is no other one, for a gradient with respect to it: what is computed of it is not folded, and no other name
    /// stands for it. Nodes from `own` on are so already; integers have no gradient and stay known.
    fn own_value(&mut self, val: Val, own: usize) -> Slot {
        let known = !matches!(val, Val::Node(_));
        if matches!(val, Val::Node(v) if v.node.index() >= own) || (known && !self.builder.ty(&val).dtype.is_float()) {
            return Slot::Val(val);
        }
        match self.builder.own(&val) {
            Ok(v) => Slot::Val(Val::Node(v)),
            Err(problem) => {
                self.problems.push(*problem);
                Slot::Poisoned
            }
        }
    }

    fn node(&mut self, node: &NodeDef, label: &str, scope: &mut Scope) {
        let resolved;
        let node = if node.attributes.iter().any(|(_, a)| matches!(a, Attr::Reference(_))) {
            resolved = resolve_references(node, &scope.attributes);
            &resolved
        } else {
            node
        };
        let mut operands = Vec::with_capacity(node.inputs.len());
        let mut poisoned = false;
        let casts = node.op == "Cast" && node.domain.is_empty();
        for name in &node.inputs {
            let slot = match scope.find(name) {
                _ if name.is_empty() => None,
                Some(Slot::Half(half)) if casts => Some(Slot::Val(Val::constant(tensor::widened(&half.0)))),
                _ => self.lookup(name, scope),
            };
            match slot {
                Some(Slot::Val(v)) => operands.push(Some(v)),
                Some(Slot::Poisoned | Slot::Broken(_) | Slot::Half(_)) => poisoned = true,
                Some(Slot::Absent) | None => operands.push(None),
            }
        }
        while operands.last().is_some_and(Option::is_none) {
            operands.pop();
        }
        let mut named = Vec::new();
        for name in crate::ops::named_values(node).into_iter().flat_map(|(_, names)| names) {
            match self.lookup(name, scope) {
                Some(Slot::Val(v)) => named.push(v),
                _ => poisoned = true,
            }
        }
        let label = format!("{}{label}", scope.prefix);
        let before = self.builder.graph.node_bound();
        let slots = if poisoned {
            self.skip(node, scope).map(|()| Vec::new())
        } else {
            self.dispatch(node, &label, &operands, named, scope)
        };
        let slots = slots.and_then(|slots| {
            if !poisoned && slots.len() < node.outputs.iter().rposition(|n| !n.is_empty()).map_or(0, |i| i + 1) {
                let text = format!("it has {} outputs, the node names {}", slots.len(), node.outputs.len());
                return Err(Problem::invalid(text).into());
            }
            Ok(slots)
        });
        let slots = slots.unwrap_or_else(|problem| {
            self.report(*problem, node, &label, &operands, scope);
            Vec::new()
        });
        for (i, name) in node.outputs.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            let slot = slots.get(i).cloned().unwrap_or(Slot::Poisoned);
            let full = format!("{}{name}", scope.prefix);
            match &slot {
                Slot::Val(Val::Node(v)) if v.node.index() >= before => self.builder.graph.rename(*v, &full),
                Slot::Val(Val::Const(c)) if c.name.borrow().is_empty() => *c.name.borrow_mut() = full,
                _ => {}
            }
            let slot = match slot {
                Slot::Val(val) if scope.named.contains(name) => self.own_value(val, before),
                slot => slot,
            };
            scope.values.insert(name.clone(), slot);
        }
    }

    /// Adds what a problem needs to be understood: the operator, the node, its operands.
    fn report(&mut self, mut p: Problem, node: &NodeDef, label: &str, operands: &[Option<Val>], scope: &Scope) {
        if p.places.is_empty() {
            let op = &node.op;
            let continues = ["with", "on", "to", "in", "of", "without", "from", "whose"];
            let joined = p.message.split(' ').next().is_some_and(|w| continues.contains(&w));
            if !p.message.starts_with("operator ") {
                p.message =
                    format!("{op}{} {}", if joined && p.blame == Blame::Unsupported { "" } else { ":" }, p.message);
            }
            p.places.push(format!("node \"{label}\""));
            if p.blame == Blame::InvalidModel {
                let typed = |(i, v): (usize, &Option<Val>)| {
                    let name = node.inputs.get(i).map_or("", String::as_str);
                    v.as_ref().map(|v| format!("input {i}  {name}  {}", self.builder.ty(v)))
                };
                p.operands = operands.iter().enumerate().filter_map(typed).collect();
                if p.rule.is_none() {
                    p.rule = self.version(node, scope).map(|v| format!("ONNX {op}-{v}"));
                }
            }
        }
        self.problems.push(p);
    }

    /// The version of an operator that the opset in force means.
    fn version(&self, node: &NodeDef, scope: &Scope) -> Option<i64> {
        let opset = *scope.opsets.get(&node.domain)?;
        let entry = crate::ops::find(&node.domain, &node.op)?;
        entry.versions.iter().copied().filter(|&v| v <= opset).max()
    }

    /// What can be said of a node whose operands are not known: whether its operator is supported at all.
    fn skip(&mut self, node: &NodeDef, scope: &Scope) -> Result<(), Stop> {
        let known = self.version(node, scope).is_some() || self.function(node).is_some();
        if known || (node.domain.is_empty() && node.op == "If") { Ok(()) } else { Err(self.unknown(node, scope)) }
    }

    fn unknown(&self, node: &NodeDef, scope: &Scope) -> Stop {
        let Some(opset) = scope.opsets.get(&node.domain) else {
            return Problem::invalid(format!("the model imports no operator set for the domain \"{}\"", node.domain))
                .rule("ONNX IR: opset_import names every domain that nodes use")
                .into();
        };
        let first = crate::ops::find(&node.domain, &node.op).and_then(|e| e.versions.first());
        match first {
            Some(first) => {
                Problem::invalid(format!("opset {opset} has no such operator, it came with opset {first}")).into()
            }
            None => {
                let domain = if node.domain.is_empty() { String::new() } else { format!("{}::", node.domain) };
                let reason = crate::ops::why_not(&node.op).filter(|_| node.domain.is_empty());
                if reason.is_none() && node.domain.is_empty() {
                    return Problem::invalid(format!("operator {}: ONNX has none of this name", node.op))
                        .rule(format!("ONNX operators up to opset {NEWEST_OPSET}"))
                        .into();
                }
                let text = reason.map(|r| format!(": {r}")).unwrap_or_default();
                Problem::unsupported(format!("operator {domain}{}{text}", node.op)).into()
            }
        }
    }

    fn dispatch(
        &mut self,
        node: &NodeDef,
        label: &str,
        operands: &[Option<Val>],
        named: Vec<Val>,
        scope: &Scope,
    ) -> Result<Vec<Slot>, Stop> {
        self.builder.spend_nodes(1)?;
        let entry = crate::ops::find(&node.domain, &node.op);
        if let (Some(entry), Some(version)) = (entry, self.version(node, scope)) {
            let mut cx = NodeCx {
                builder: &mut self.builder,
                node,
                version,
                operands: operands.to_vec(),
                named,
                origin: Origin::named(label),
            };
            return Ok((entry.import)(&mut cx)?.into_iter().map(Slot::Val).collect());
        }
        if node.domain.is_empty() && node.op == "If" {
            return self.branch(node, label, operands, scope);
        }
        match self.function(node) {
            Some((key, function)) => self.call(key, function, node, label, operands, scope),
            None => Err(self.unknown(node, scope)),
        }
    }
}

/// A node of a function's body with the attributes of the call in place of references to them; an attribute that the call
/// does not give is not given.
fn resolve_references(node: &NodeDef, given: &[(String, Attr)]) -> NodeDef {
    let mut node = node.clone();
    node.attributes.retain_mut(|(_, attr)| {
        let Attr::Reference(name) = attr else { return true };
        match given.iter().find(|(n, _)| n == name) {
            Some((_, value)) => {
                *attr = value.clone();
                true
            }
            None => false,
        }
    });
    node
}

// ---- functions and branches ---------------------------------------------------------------------------------------------

impl<'m> Importer<'m> {
    /// The model-local function that a node calls.
    fn function(&self, node: &NodeDef) -> Option<(FunctionKey, &'m FunctionDef)> {
        let key = FunctionKey { domain: node.domain.clone(), name: node.op.clone(), overload: node.overload.clone() };
        let function = self.model.functions.get(&key)?;
        Some((key, function))
    }

    fn descend(&mut self, nodes: usize, depth: usize) -> Result<(), Stop> {
        if depth >= DEPTH {
            return Err(Problem::unsupported(format!("in {DEPTH} functions and branches within each other")).into());
        }
        self.builder.allows_nodes(nodes)
    }

    /// Inlines a model-local function.
    fn call(
        &mut self,
        key: FunctionKey,
        function: &'m FunctionDef,
        node: &NodeDef,
        label: &str,
        operands: &[Option<Val>],
        scope: &Scope,
    ) -> Result<Vec<Slot>, Stop> {
        if self.calls.contains(&key) {
            return Err(Problem::invalid("the function calls itself")
                .rule("ONNX IR: functions are not recursive")
                .into());
        }
        if operands.len() > function.inputs.len() {
            let text = format!("the function takes {} operands, {} are given", function.inputs.len(), operands.len());
            return Err(Problem::invalid(text).into());
        }
        self.descend(function.nodes.len(), scope.depth)?;
        let mut values = FxHashMap::default();
        for (i, name) in function.inputs.iter().enumerate() {
            let slot = operands.get(i).cloned().flatten().map_or(Slot::Absent, Slot::Val);
            values.insert(name.clone(), slot);
        }
        let mut attributes = node.attributes.clone();
        attributes.retain(|(name, _)| {
            function.attributes.contains(name) || function.defaults.iter().any(|(default, _)| default == name)
        });
        for (name, value) in &function.defaults {
            if !attributes.iter().any(|(n, _)| n == name) {
                attributes.push((name.clone(), value.clone()));
            }
        }
        let mut inner = Scope {
            values,
            outer: None,
            attributes: Rc::new(attributes),
            opsets: if function.opsets.is_empty() { scope.opsets } else { &function.opsets },
            prefix: format!("{label}/"),
            depth: scope.depth + 1,
            named: FxHashSet::default(),
        };
        self.calls.push(key);
        self.nodes_for(&function.nodes, function.outputs.iter().map(String::as_str), &mut inner);
        self.calls.pop();
        Ok(self.results(function.outputs.iter().map(String::as_str), &inner))
    }

    /// Imports the branch of an `If` that its constant condition takes.
    fn branch(
        &mut self,
        node: &NodeDef,
        label: &str,
        operands: &[Option<Val>],
        scope: &Scope,
    ) -> Result<Vec<Slot>, Stop> {
        let Some(Some(condition)) = operands.first() else {
            return Err(Problem::invalid("the operand `cond` is missing").into());
        };
        let taken = match condition.as_const() {
            Some(c) if c.elems() == 1 => c.to_tensor().to_i64().first().is_some_and(|n| *n != 0),
            Some(c) => return Err(Problem::invalid(format!("the condition has {} elements, not 1", c.elems())).into()),
            None => return Err(Problem::unsupported("with a condition that is computed at run time").into()),
        };
        let name = if taken { "then_branch" } else { "else_branch" };
        let graph = match node.attributes.iter().find(|(n, _)| n == name) {
            Some((_, Attr::Graph(g))) => g.clone(),
            _ => return Err(Problem::invalid(format!("the attribute `{name}` is no graph")).into()),
        };
        self.descend(graph.nodes.len(), scope.depth)?;
        let mut inner = Scope {
            values: FxHashMap::default(),
            outer: Some(scope),
            attributes: scope.attributes.clone(),
            opsets: scope.opsets,
            prefix: format!("{label}/"),
            depth: scope.depth + 1,
            named: FxHashSet::default(),
        };
        self.initializers(&graph.initializers, &mut inner);
        self.nodes(&graph.nodes, &graph.outputs, &mut inner);
        Ok(self.results(graph.outputs.iter().map(|v| v.name.as_str()), &inner))
    }

    fn results<'a>(&mut self, names: impl Iterator<Item = &'a str>, scope: &Scope) -> Vec<Slot> {
        names.map(|name| self.lookup(name, scope).unwrap_or(Slot::Poisoned)).collect()
    }
}

/// Dimensions that a declared shape has, for messages and descriptions, without any number put in.
pub(crate) fn declared_shape(input: &str, symbols: &mut Symbols, shape: &[crate::model::DimDef]) -> Vec<Dim> {
    shape.iter().enumerate().map(|(axis, d)| symbols.dim(input, axis, d)).collect()
}
