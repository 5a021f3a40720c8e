//! `Gradient`: the derivatives of one value of the graph with respect to others.
//!
//! ```text
//! y = f(xs, zs)            by the nodes of the graph between them
//! node(v1, v2, ..)         a value for each of xs, then of zs      ->  dy/dx at that point, for each of xs
//! ```
//!
//! Usually the node is given the very values that xs and zs name, and differentiation reads the nodes that are there
//! ([`nncc_ir::autodiff`]). Where it is given others, the nodes between are copied onto them first.
//!
//! A y of several elements counts as their sum: the specification differentiates such a y (of its example of second
//! derivatives) and wants results of the shapes of xs, which leaves nothing else. What y does not depend on has zeros.
//! The result is made of operators like any other, so that a Gradient of a Gradient is one of a higher order.
//!
//! Nodes and numbers that this makes up are taken from the import's budgets: each Gradient may double the graph.
//!
//! Source: ONNX, ai.onnx.preview.training, Gradient-1.

use super::Entry;
use crate::build::{Builder, Stop, check_size, needs_dims};
use crate::node::{Imported, NodeCx};
use crate::problem::Problem;
use crate::value::Val;
use nncc_ir::{AutodiffError, Constant, GradientError, NodeId, Op, Tensor, TensorType, ValueId, backpropagate};
use rustc_hash::{FxHashMap, FxHashSet};
use std::rc::Rc;

pub(super) const OPS: &[Entry] = &[Entry::new("Gradient", &[1], gradient)
    .of("ai.onnx.preview.training")
    .naming(&["xs", "zs", "y"])
    .but("of f32 and f64; a `y` of several elements counts as their sum")];

/// Nodes that are looked at for the price of one that is made.
const LOOKS: usize = 16;

fn gradient(n: &mut NodeCx<'_>) -> Imported {
    let variables = Variables::of(n)?;
    let (Some(name), Some(y)) = (n.maybe_text("y")?, n.named.last().cloned()) else {
        return n.invalid("the attribute `y` is missing");
    };
    if !n.dtype(&y).is_float() {
        return n.invalid(format!("`{name}` is {}: only floats have gradients", n.ty(&y)));
    }
    let builder = &mut *n.builder;
    let y = builder.place(&y)?;
    let before = builder.graph.node_bound();
    builder.spend_nodes(before / LOOKS)?;
    let between = variables.between(builder, y)?;
    builder.spend(lengths(builder, &between))?;
    let (y, variables) = match variables.moved() {
        true => copied(builder, &variables, &between, y)?,
        false => (y, variables),
    };
    let gradients = differentiate(builder, y, &variables, &name);
    account_for(builder, before)?;
    gradients
}

/// One of the values of which y is a function.
struct Variable {
    name: String,
    /// Whether it is of xs, and has a gradient.
    wanted: bool,
    /// What the name stands for in the graph.
    named: Val,
    /// What the node is given for it.
    given: Val,
}

struct Variables(Vec<Variable>);

impl Variables {
    fn of(n: &NodeCx<'_>) -> Result<Variables, Stop> {
        let (xs, zs) = (n.texts("xs")?.unwrap_or_default(), n.texts("zs")?.unwrap_or_default());
        if xs.is_empty() {
            return n.invalid("the attribute `xs` names nothing");
        }
        let given = n.variadic()?;
        if given.len() != xs.len() + zs.len() {
            let text = format!("{} values for the {} names of `xs` and `zs`", given.len(), xs.len() + zs.len());
            return n.invalid(text);
        }
        let wanted = xs.len();
        let mut seen = FxHashSet::default();
        let mut variables = Vec::with_capacity(given.len());
        for (i, ((name, named), given)) in xs.into_iter().chain(zs).zip(&n.named).zip(given).enumerate() {
            let (ty, at) = (n.ty(named), n.ty(&given));
            if !seen.insert(name.clone()) {
                return n.invalid(format!("`{name}` is named twice"));
            }
            if i < wanted && !ty.dtype.is_float() {
                return n.invalid(format!("`{name}` is {ty}: only floats have gradients"));
            }
            if ty != at {
                return n.invalid(format!("`{name}` is {ty}, the value for it {at}"));
            }
            let variable = Variable { name, wanted: i < wanted, named: named.clone(), given };
            if variable.moved() && !matches!(named, Val::Node(_)) {
                return n.unsupported(format!("with another value for the constant `{}`", variable.name));
            }
            variables.push(variable);
        }
        Ok(Variables(variables))
    }

    fn moved(&self) -> bool {
        self.0.iter().any(Variable::moved)
    }

    /// The nodes between the variables and `y`, in an order in which they can run. No variable may depend on another one.
    fn between(&self, builder: &Builder, y: ValueId) -> Result<Vec<NodeId>, Stop> {
        let graph = &builder.graph;
        let variables: FxHashMap<ValueId, &Variable> = self.0.iter().filter_map(|v| Some((v.node()?, v))).collect();
        let order = graph.topological_order().ok_or_else(|| Problem::invalid("the graph has a cycle"))?;
        let mut depends: FxHashMap<ValueId, &Variable> = FxHashMap::default();
        for &node in &order {
            let on = graph.operands(node).into_iter().flatten().find_map(|v| depends.get(&v).copied());
            for result in graph.results(node) {
                match (variables.get(&result), on) {
                    (Some(own), Some(on)) => {
                        return Err(Problem::invalid(format!("`{}` depends on `{}`", own.name, on.name))
                            .rule("ONNX Gradient-1: what can be computed of one of `xs` and `zs` is none of them")
                            .into());
                    }
                    (Some(own), None) => drop(depends.insert(result, own)),
                    (None, Some(on)) => drop(depends.insert(result, on)),
                    (None, None) => {}
                }
            }
        }
        let inner = |v: &ValueId| depends.contains_key(v) && !variables.contains_key(v);
        let (mut stack, mut needed) = (vec![y], FxHashSet::default());
        while let Some(v) = stack.pop() {
            if inner(&v) && needed.insert(v.node) {
                stack.extend(graph.operands(v.node).into_iter().flatten());
            }
        }
        Ok(order.into_iter().filter(|n| needed.contains(n)).collect())
    }
}

impl Variable {
    /// Whether the node is given another value than the one that the name stands for.
    fn moved(&self) -> bool {
        match (&self.named, &self.given) {
            (Val::Node(a), Val::Node(b)) => a != b,
            (Val::Const(a), Val::Const(b)) => !Rc::ptr_eq(a, b),
            (Val::Symbolic(a), Val::Symbolic(b)) => !Rc::ptr_eq(a, b),
            _ => true,
        }
    }

    fn node(&self) -> Option<ValueId> {
        match self.named {
            Val::Node(v) => Some(v),
            _ => None,
        }
    }
}

/// The sum of the dimensions of what these nodes compute: gradients make up constants as long as an axis, never longer.
fn lengths(builder: &Builder, nodes: &[NodeId]) -> usize {
    let dims = nodes.iter().flat_map(|n| builder.graph.node(*n).outputs()).filter_map(|v| v.ty.dims());
    dims.flatten().fold(0, usize::saturating_add)
}

/// y as a function of what the node is given: the nodes between once more, over those values.
fn copied(
    builder: &mut Builder,
    variables: &Variables,
    between: &[NodeId],
    y: ValueId,
) -> Result<(ValueId, Variables), Stop> {
    builder.spend_nodes(between.len())?;
    let mut moved: FxHashMap<ValueId, ValueId> = FxHashMap::default();
    let mut own = Vec::with_capacity(variables.0.len());
    for v in &variables.0 {
        let Some(from) = v.node() else { continue }; // a constant that stays
        let to = builder.own(&v.given)?; // given for two of them, a value is two variables
        moved.insert(from, to);
        let to = Val::Node(to);
        own.push(Variable { name: v.name.clone(), wanted: v.wanted, named: to.clone(), given: to });
    }
    for &node in between {
        let graph = &mut builder.graph;
        let operands: Vec<Option<ValueId>> =
            graph.operands(node).into_iter().map(|v| v.map(|v| moved.get(&v).copied().unwrap_or(v))).collect();
        let (op, origin) = (graph.op(node).clone(), graph.node(node).origin.clone());
        let copy = graph.add(op, &operands, origin, &[]).map_err(|e| Problem::invalid(e.0))?;
        moved.extend(graph.results(node).zip(graph.results(copy)).collect::<Vec<_>>());
    }
    Ok((moved.get(&y).copied().unwrap_or(y), Variables(own)))
}

/// The gradients of the sum of y's elements.
fn differentiate(builder: &mut Builder, y: ValueId, variables: &Variables, name: &str) -> Imported {
    let wanted: Vec<ValueId> = variables.0.iter().filter(|v| v.wanted).filter_map(Variable::node).collect();
    let ones = splat(builder.graph.ty(y), 1.0)?;
    let seed = builder.graph.add_constant("", ones);
    let gradients = backpropagate(&mut builder.graph, &[(y, seed)], &wanted).map_err(|e| problem(&e, name))?;
    let zeros = |x: ValueId| splat(builder.graph.ty(x), 0.0).map(Val::constant);
    gradients.into_iter().zip(wanted).map(|(d, x)| d.map_or_else(|| zeros(x), |d| Ok(Val::Node(d)))).collect()
}

/// One number for all elements of a type.
fn splat(ty: &TensorType, x: f64) -> Result<Constant, Stop> {
    let Some(dims) = ty.dims() else {
        return Err(needs_dims("a gradient needs known shapes", &ty.shape).into());
    };
    let one = Tensor::from_f64(ty.dtype, &[], &[x]);
    Ok(Constant::splat(&one, &dims).unwrap_or_else(|| Constant::from_tensor(&one))) // `one` is one element
}

fn problem(error: &AutodiffError, y: &str) -> Stop {
    let text = error.to_string().replace('\n', "; ");
    let unknown = |e: &GradientError| matches!(e, GradientError::UnknownShape(_));
    match error {
        AutodiffError::Nodes(nodes) if nodes.iter().all(|n| unknown(&n.error)) => {
            Problem::options(format!("the gradient of `{y}` needs known shapes: {text}")).into()
        }
        _ => Problem::unsupported(format!("of `{y}`: {text}")).into(),
    }
}

/// Takes the nodes from `before` on from the budget, each by the length of what it computes for an element: derivatives of
/// derivatives grow inside of a node as well.
fn account_for(builder: &mut Builder, before: usize) -> Result<(), Stop> {
    let graph = &builder.graph;
    let mut count = 0;
    for node in graph.node_ids().filter(|n| n.index() >= before) {
        graph.node(node).outputs().iter().try_for_each(|v| check_size(&v.ty))?;
        count += match graph.op(node) {
            Op::Fused(f) => f.program.insts().len(),
            _ => 1,
        };
    }
    builder.spend_nodes(count)
}
