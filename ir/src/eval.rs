//! Reference evaluation of a graph: every operator's own evaluation, in topological order.
//!
//! Slow and obviously right: it is the oracle of differential tests. With [`Precision::F64`] every f32 is computed in f64
//! instead, which for tolerances counts as the exact result: an error of compiled f32 code is measured against it.
//!
//! A value is freed after its last use. Nothing here bounds memory: the caller evaluates graphs whose sizes it knows.

use crate::graph::{Graph, NodeId, ValueId};
use crate::ops::chain::{Chain, Link};
use crate::ops::elementwise::Cast;
use crate::ops::fused::Fused;
use crate::{DType, EvalError, Op, Tensor, TensorType};
use rustc_hash::FxHashMap;

/// The precision of floating-point values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Each value in its own type.
    Native,
    /// f32 values in f64; outputs of type f32 are returned as f64 tensors.
    F64,
}

/// Why a graph could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Another number of inputs than the graph has.
    #[error("{given} inputs are given, the graph has {expected}")]
    InputCount {
        /// How many tensors came.
        given: usize,
        /// How many the graph takes.
        expected: usize,
    },
    /// An input of another type or shape.
    #[error("input {name} is {expected}, not {given}")]
    Input {
        /// The input's name.
        name: String,
        /// The type of the tensor that came.
        given: TensorType,
        /// The type of the input.
        expected: TensorType,
    },
    /// An operator failed.
    #[error("{op} {value}: {error}")]
    Node {
        /// The operator's name.
        op: &'static str,
        /// The name of its first result.
        value: String,
        /// What went wrong.
        error: EvalError,
    },
    /// The graph is broken: see [`crate::verify`].
    #[error("the graph has a cycle")]
    Cycle,
}

/// The outputs of a graph for inputs in the order of [`Graph::inputs`].
pub fn evaluate(g: &Graph, inputs: &[Tensor], precision: Precision) -> Result<Vec<Tensor>, GraphError> {
    evaluate_visiting(g, inputs, precision, |_, _| {})
}

/// [`evaluate`], showing every value to `visit` as soon as it is known.
pub fn evaluate_visiting(
    g: &Graph,
    inputs: &[Tensor],
    precision: Precision,
    mut visit: impl FnMut(ValueId, &Tensor),
) -> Result<Vec<Tensor>, GraphError> {
    if inputs.len() != g.inputs().len() {
        return Err(GraphError::InputCount { given: inputs.len(), expected: g.inputs().len() });
    }
    let order = g.topological_order().ok_or(GraphError::Cycle)?;
    let mut uses = uses_of(g);
    let mut values: FxHashMap<ValueId, Tensor> = FxHashMap::default();
    for n in order {
        let operands = g.operands(n);
        let results = match (g.op(n), g.inputs().iter().position(|i| *i == n)) {
            (_, Some(i)) => vec![promoted(checked_input(g, n, &inputs[i])?, precision)],
            (Op::Constant(c), _) => vec![promoted(c.to_tensor(), precision)],
            (op, _) => {
                let given: Vec<Option<&Tensor>> = operands.iter().map(|v| v.and_then(|v| values.get(&v))).collect();
                let result = promoted_op(op, precision).eval(&given);
                result.map_err(|error| GraphError::Node { op: op.name(), value: first_name(g, n), error })?
            }
        };
        for v in operands.into_iter().flatten() {
            if let Some(left) = uses.get_mut(&v) {
                *left -= 1;
                if *left == 0 {
                    values.remove(&v);
                }
            }
        }
        for (v, t) in g.results(n).zip(results) {
            visit(v, &t);
            if uses.get(&v).is_some_and(|n| *n > 0) {
                values.insert(v, t);
            }
        }
    }
    let output = |(name, v): &(std::sync::Arc<str>, ValueId)| {
        values.get(v).cloned().ok_or_else(|| GraphError::Node {
            op: "return",
            value: name.to_string(),
            error: EvalError("has no value".into()),
        })
    };
    g.outputs().iter().map(output).collect()
}

/// How often each value is used: by operands, and by outputs of the graph, which are never used up.
fn uses_of(g: &Graph) -> FxHashMap<ValueId, usize> {
    let mut uses = FxHashMap::default();
    let operands = g.node_ids().flat_map(|n| g.operands(n)).flatten();
    for v in operands.chain(g.outputs().iter().map(|(_, v)| *v)) {
        *uses.entry(v).or_insert(0) += 1;
    }
    uses
}

fn first_name(g: &Graph, n: NodeId) -> String {
    g.node(n).outputs().first().map_or(String::new(), |v| v.name.to_string())
}

fn checked_input(g: &Graph, n: NodeId, t: &Tensor) -> Result<Tensor, GraphError> {
    let expected = g.ty(ValueId { node: n, out: 0 });
    let given = t.ty();
    let fits = expected.dtype == given.dtype
        && expected.rank() == given.rank()
        && expected.shape.iter().zip(&given.shape).all(|(e, d)| e.known().is_none() || e == d);
    if fits {
        Ok(t.clone())
    } else {
        Err(GraphError::Input { name: first_name(g, n), given, expected: expected.clone() })
    }
}

fn promoted(t: Tensor, precision: Precision) -> Tensor {
    if precision == Precision::F64 && t.dtype() == DType::F32 {
        Tensor::from_f64(DType::F64, t.dims(), &t.to_f64())
    } else {
        t
    }
}

/// The operator that means the same on promoted operands: where an operator names f32 itself, it is f64.
fn promoted_op(op: &Op, precision: Precision) -> Op {
    match op {
        op if precision == Precision::Native => op.clone(),
        Op::Cast(Cast { to: DType::F32 }) => Cast { to: DType::F64 }.into(),
        Op::Fused(f) => Fused {
            root: f.root.as_ref().map(|r| Box::new(promoted_op(r, precision))),
            program: f.program.promoted(),
            root_operands: f.root_operands,
        }
        .into(),
        Op::Chain(c) => {
            let links = c.links.iter().map(|Link(op)| Link(promoted_op(op, precision))).collect();
            Chain { links, operands: c.operands.clone() }.into()
        }
        op => op.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn values_flow_through_several_results() {
        let g = parse::graph(
            "graph g(%x: f32[N]) {\n %v, %i = top_k %x, axis=0, k=2, largest=true, sorted=true\n %f = cast %i, to=f32\n %s = add %v, %f\n return %s, %v, %v as again\n}",
        )
        .unwrap();
        let x = Tensor::f32(&[3], vec![1.0, 5.0, 3.0]);
        let y = evaluate(&g, &[x], Precision::Native).unwrap();
        assert_eq!(y[0], Tensor::f32(&[2], vec![6.0, 5.0]));
        assert_eq!((&y[1], &y[2]), (&Tensor::f32(&[2], vec![5.0, 3.0]), &Tensor::f32(&[2], vec![5.0, 3.0])));
    }

    #[test]
    fn f64_keeps_what_f32_rounds() {
        let g = parse::graph("graph g(%x: f32[1]) {\n @big: f32[1] = {1e9}\n %y = add %x, @big\n %i = cast %y, to=i64\n %z = cast %i, to=f32\n %d = sub %z, @big\n return %d\n}").unwrap();
        let x = [Tensor::f32(&[1], vec![1.0])];
        assert_eq!(evaluate(&g, &x, Precision::Native).unwrap()[0], Tensor::f32(&[1], vec![0.0]));
        assert_eq!(evaluate(&g, &x, Precision::F64).unwrap()[0].to_f64(), [1.0]);
    }

    #[test]
    fn every_value_is_visited_and_errors_name_it() {
        let g =
            parse::graph("graph g(%x: f32[2], %i: i64[1]) {\n %e = exp %x\n %y = gather %e, %i, axis=0\n return %y\n}")
                .unwrap();
        let (x, mut seen) = (Tensor::f32(&[2], vec![0.0, 0.0]), Vec::new());
        let run = |i, visit: &mut dyn FnMut(ValueId, &Tensor)| {
            evaluate_visiting(&g, &[x.clone(), Tensor::i64(&[1], vec![i])], Precision::Native, visit)
        };
        run(1, &mut |v, _| seen.push(g.value(v).name.to_string())).unwrap();
        assert_eq!(seen, ["x", "i", "e", "y"]);
        let error = run(7, &mut |_, _| {}).unwrap_err().to_string();
        assert_eq!(error, "gather y: index 7 is out of range for 2 elements");
    }

    #[test]
    fn inputs_must_fit() {
        let g = parse::graph("graph g(%x: f32[2]) {\n return %x\n}").unwrap();
        let error = |inputs: &[Tensor]| evaluate(&g, inputs, Precision::Native).unwrap_err().to_string();
        assert_eq!(error(&[]), "0 inputs are given, the graph has 1");
        assert_eq!(error(&[Tensor::i64(&[2], vec![0, 0])]), "input x is f32[2], not i64[2]");
        assert_eq!(error(&[Tensor::f32(&[1], vec![0.0])]), "input x is f32[2], not f32[1]");
    }
}
