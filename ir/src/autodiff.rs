//! Reverse-mode differentiation: a graph and a loss in, the same graph with the gradients of the loss out.
//!
//! ```text
//! forward     %h = conv %x, %w      %y = relu %h             %l = reduce %y
//! backward    %dw = conv_weight_gradient %x, %dh      %dh = fused %y, %dy      %dy = expand 1
//! ```
//!
//! Needs: known shapes, and operators as the importer makes them or as gradients are made of. It runs before the optimizer: what
//! that recognises (`attention`) or fuses has no gradient, and fusing forward and backward nodes is the optimizer's work.
//!
//! Method. Forward, what depends on a wanted value is *active*; only float values are, so that comparisons, positions and
//! integers stop gradients, as in PyTorch. Backward from the loss in reverse topological order, each active node gives the
//! gradients of its active operands ([`crate::Operator::gradient`]); what arrives at a value from several users is summed
//! when its own node is reached. So each node is visited once, and nothing is built that no wanted value needs. Linear in
//! nodes and edges.
//!
//! All errors are collected, each with its node: a model that cannot be trained says everything that is in the way.
//!
//! Source: Griewank & Walther, Evaluating Derivatives, 2008, chapter 3 (the reverse mode on a graph).

use crate::gradient::node_gradients;
use crate::ops::elementwise::Binary;
use crate::pointwise::BinaryFn;
use crate::{Constant, GradientError, Graph, NodeId, Origin, Tensor, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// Why a loss cannot be differentiated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AutodiffError {
    /// The loss is not one float.
    #[error("the loss \"{name}\" is {ty}, not one number of type f32 or f64")]
    NotScalar {
        /// The name of the loss.
        name: String,
        /// Its type.
        ty: String,
    },
    /// A value with respect to which the gradient is wanted is not of a float type.
    #[error("\"{name}\" is {ty}: only f32 and f64 have gradients")]
    NotFloat {
        /// Its name.
        name: String,
        /// Its type.
        ty: String,
    },
    /// Nodes between the wanted values and the loss have no gradient.
    #[error("{}", list(.0))]
    Nodes(Vec<NodeError>),
    /// The graph is broken.
    #[error("bug in nncc: the graph has a cycle")]
    Cycle,
}

/// A node without a gradient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeError {
    /// The names of the model's nodes that it stands for, else of its first result.
    pub node: String,
    /// The operator.
    pub op: &'static str,
    /// Why.
    pub error: GradientError,
}

impl std::fmt::Display for NodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node \"{}\": {} {}", self.node, self.op, self.error)
    }
}

fn list(errors: &[NodeError]) -> String {
    errors.iter().map(NodeError::to_string).collect::<Vec<_>>().join("\n")
}

/// The gradients of `loss`, a single number, with respect to each of the values: `None` where it does not depend on one.
pub fn differentiate(
    g: &mut Graph,
    loss: ValueId,
    with_respect_to: &[ValueId],
) -> Result<Vec<Option<ValueId>>, AutodiffError> {
    let ty = g.ty(loss).clone();
    if !ty.dtype.is_float() || ty.elems() != Some(1) {
        return Err(AutodiffError::NotScalar { name: g.value(loss).name.to_string(), ty: ty.to_string() });
    }
    let one = Tensor::from_f64(ty.dtype, &ty.dims().unwrap_or_default(), &[1.0]);
    let seed = g.add_constant("", Constant::from_tensor(&one));
    backpropagate(g, &[(loss, seed)], with_respect_to)
}

/// [`differentiate`] from several values whose gradients are given, each of its value's type.
pub fn backpropagate(
    g: &mut Graph,
    seeds: &[(ValueId, ValueId)],
    with_respect_to: &[ValueId],
) -> Result<Vec<Option<ValueId>>, AutodiffError> {
    if let Some(v) = with_respect_to.iter().find(|v| !g.ty(**v).dtype.is_float()) {
        return Err(AutodiffError::NotFloat { name: g.value(*v).name.to_string(), ty: g.ty(*v).to_string() });
    }
    let order = g.topological_order().ok_or(AutodiffError::Cycle)?;
    let active = active_values(g, &order, with_respect_to);
    let wanted: FxHashSet<ValueId> = with_respect_to.iter().copied().collect();
    let mut back = Backward { arrived: FxHashMap::default(), done: FxHashMap::default(), errors: Vec::new() };
    for (v, seed) in seeds {
        back.arrived.entry(*v).or_default().push(*seed);
    }
    for &n in order.iter().rev() {
        back.visit(g, n, &active, &wanted);
    }
    if back.errors.is_empty() {
        Ok(with_respect_to.iter().map(|v| back.done.get(v).copied()).collect())
    } else {
        back.errors.reverse(); // in the order in which the model runs
        Err(AutodiffError::Nodes(back.errors))
    }
}

/// The wanted values and every float value that depends on one through float values.
fn active_values(g: &Graph, order: &[NodeId], with_respect_to: &[ValueId]) -> FxHashSet<ValueId> {
    let mut active: FxHashSet<ValueId> = with_respect_to.iter().copied().collect();
    for &n in order {
        if g.operands(n).iter().flatten().any(|v| active.contains(v)) {
            active.extend(g.results(n).filter(|v| g.ty(*v).dtype.is_float()));
        }
    }
    active
}

struct Backward {
    /// What users have given to a value so far.
    arrived: FxHashMap<ValueId, Vec<ValueId>>,
    /// The gradients of the wanted values.
    done: FxHashMap<ValueId, ValueId>,
    errors: Vec<NodeError>,
}

impl Backward {
    /// Sums what has arrived at the node's results, for all their users have been visited, and hands it on to its operands.
    fn visit(&mut self, g: &mut Graph, n: NodeId, active: &FxHashSet<ValueId>, wanted: &FxHashSet<ValueId>) {
        let results: Vec<ValueId> = g.results(n).collect();
        let mut upstream = Vec::with_capacity(results.len());
        for v in results {
            let sum = match self.arrived.remove(&v).filter(|_| active.contains(&v)) {
                Some(parts) => self.sum(g, v, &parts),
                None => None,
            };
            if let Some(sum) = sum.filter(|_| wanted.contains(&v)) {
                self.done.insert(v, sum);
            }
            upstream.push(sum);
        }
        let operands = g.operands(n);
        let needs: Vec<bool> = operands.iter().map(|v| v.is_some_and(|v| active.contains(&v))).collect();
        if upstream.iter().all(Option::is_none) || !needs.contains(&true) {
            return;
        }
        match node_gradients(g, n, &upstream, &needs) {
            Ok(gradients) => {
                for (v, d) in operands.into_iter().zip(gradients) {
                    if let (Some(v), Some(d)) = (v, d) {
                        self.arrived.entry(v).or_default().push(d);
                    }
                }
            }
            Err(error) => self.fail(g, n, error),
        }
    }

    /// The sum of what arrived at `v`.
    fn sum(&mut self, g: &mut Graph, v: ValueId, parts: &[ValueId]) -> Option<ValueId> {
        let (first, rest) = parts.split_first()?;
        let (mut sum, origin) = (*first, g.node(v.node).origin.clone());
        for part in rest {
            match g.add1(Binary { function: BinaryFn::Add }, &[sum, *part], origin.clone(), "") {
                Ok(next) => sum = next,
                Err(e) => {
                    self.fail(g, v.node, GradientError::from(e));
                    return None;
                }
            }
        }
        Some(sum)
    }

    fn fail(&mut self, g: &Graph, n: NodeId, error: GradientError) {
        let names = |o: &Origin| o.names().iter().map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        let node = match names(&g.node(n).origin) {
            none if none.is_empty() => g.node(n).outputs().first().map_or(String::new(), |v| v.name.to_string()),
            names => names,
        };
        self.errors.push(NodeError { node, op: g.op(n).name(), error });
    }
}
