//! Gradients against finite differences of the reference evaluator, in f64: of every operator on awkward shapes, and of random
//! graphs.
//!
//! ```text
//! L(x) = sum_i <r_i, y_i(x)>    random r_i, one for each output       dL/dx by `backpropagate`
//! (L(x + h) - L(x - h)) / 2h    for single elements of every input, h = 2^-13
//! ```
//!
//! Inputs are multiples of 2^-23, so that x + h is exact in f32. Where the one-sided differences do not agree there is a kink
//! or a jump between x - h and x + h (ReLU, a maximum, rounding): such an element is left out, and a case that leaves out most
//! elements fails. The error of the central difference is h^2/6 of the third derivative, about 1e-9 here.

use nncc_ir::arbitrary::{Limits, Mix, case};
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::ops::reshape::Identity;
use nncc_ir::{Constant, DType, Graph, Op, Tensor, ValueId, backpropagate, differentiate, parse, random, verify};
use proptest::prelude::*;
use std::collections::BTreeSet;

const STEP: f64 = 1.0 / 8192.0;

/// Elements compared and left out.
#[derive(Debug, Default)]
struct Tally {
    compared: usize,
    left_out: usize,
}

/// Compares the gradients of all float inputs, a few elements of each.
fn check(graph: &Graph, inputs: &[Tensor], tolerance: f64) -> Result<Tally, String> {
    let outputs: Vec<ValueId> =
        graph.outputs().iter().map(|(_, v)| *v).filter(|v| graph.ty(*v).dtype.is_float()).collect();
    let weights: Vec<Tensor> =
        (0..).zip(&outputs).map(|(i, v)| random::tensor(DType::F32, &graph.ty(*v).dims().unwrap(), 100 + i)).collect();
    let float: Vec<usize> = (0..inputs.len()).filter(|i| inputs[*i].dtype().is_float()).collect();
    let mut differentiated = graph.clone();
    let g = &mut differentiated;
    let seeds: Vec<(ValueId, ValueId)> =
        outputs.iter().zip(&weights).map(|(v, w)| (*v, g.add_constant("", Constant::from_tensor(w)))).collect();
    let values: Vec<ValueId> = float.iter().map(|i| ValueId { node: g.inputs()[*i], out: 0 }).collect();
    let gradients = backpropagate(g, &seeds, &values).map_err(|e| e.to_string())?;
    let at = g.outputs().len();
    for (i, d) in gradients.iter().enumerate() {
        if let Some(d) = d {
            // A copy, so that one value may be several outputs under names of their own.
            let copy = g.add1(Identity {}, &[*d], Default::default(), "").map_err(|e| e.to_string())?;
            g.add_output(&format!("gradient {i}"), copy);
        }
    }
    verify::verify(g).map_err(|e| e.to_string())?;
    let mut exact = evaluate(g, inputs, Precision::F64).map_err(|e| e.to_string())?.split_off(at).into_iter();
    let loss = |inputs: &[Tensor]| -> f64 {
        let y = evaluate(graph, inputs, Precision::F64).unwrap();
        let float = graph.outputs().iter().zip(&y).filter(|((_, v), _)| graph.ty(*v).dtype.is_float()).map(|(_, y)| y);
        float.zip(&weights).map(|(y, w)| y.to_f64().iter().zip(w.to_f64()).map(|(y, w)| y * w).sum::<f64>()).sum()
    };
    let middle = loss(inputs);
    let mut tally = Tally::default();
    for (&i, d) in float.iter().zip(&gradients) {
        let n = inputs[i].elems();
        let exact = d.and_then(|_| exact.next()).map_or(vec![0.0; n], |t| t.to_f64());
        for e in (0..n).step_by(n.div_ceil(12).max(1)) {
            let moved = |h: f64| {
                let mut v = inputs[i].to_f64();
                v[e] += h;
                let mut moved = inputs.to_vec();
                moved[i] = Tensor::from_f64(DType::F32, inputs[i].dims(), &v);
                loss(&moved)
            };
            let (left, right) = ((middle - moved(-STEP)) / STEP, (moved(STEP) - middle) / STEP);
            let (numeric, size) = ((left + right) / 2.0, left.abs().max(right.abs()).max(1.0));
            if (left - right).abs() > 1e-2 * size || !numeric.is_finite() {
                tally.left_out += 1;
                continue;
            }
            tally.compared += 1;
            if (numeric - exact[e]).abs() > tolerance * size || exact[e].is_nan() {
                let name = &graph.value(values[float.iter().position(|f| *f == i).unwrap()]).name;
                return Err(format!(
                    "%{name}, element {e}: the gradient is {}, by differences {numeric}\n{g}",
                    exact[e]
                ));
            }
        }
    }
    Ok(tally)
}

/// Operators without a gradient, and why. What is neither here nor in `cases` fails the test of completeness.
const WITHOUT: &[(&str, &str)] = &[
    ("arg_reduce", "gives positions"),
    ("hardmax", "is constant between jumps"),
    ("one_hot", "takes positions"),
    ("cum_prod", "would need a recurrence"),
    ("relayout", "is made after differentiation"),
    ("batch_norm_statistics", "is made after differentiation"),
    ("attention", "is recognised after differentiation"),
    ("fused", "is made after differentiation; without a root it is elementwise, as gradients themselves are"),
    ("chain", "is made by code generation"),
];

fn cases() -> Vec<&'static str> {
    include_str!("gradients.ir").split("----\n").map(str::trim).filter(|t| !t.is_empty()).collect()
}

/// Inputs in -1..1; those called `positive` in 0.5..1.5. Integers are written as constants.
fn inputs_of(g: &Graph) -> Vec<Tensor> {
    let input = |(seed, n): (u64, &nncc_ir::NodeId)| {
        let value = g.value(ValueId { node: *n, out: 0 });
        let t = random::tensor(value.ty.dtype, &value.ty.dims().unwrap(), seed);
        match value.name.contains("positive") {
            true => {
                Tensor::from_f64(DType::F32, t.dims(), &t.to_f64().iter().map(|x| x / 2.0 + 1.0).collect::<Vec<_>>())
            }
            false => t,
        }
    };
    (1..).zip(g.inputs()).map(input).collect()
}

#[test]
fn every_operator_agrees_with_finite_differences() {
    let mut failures = Vec::new();
    for text in cases() {
        let g = parse::graph(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        match check(&g, &inputs_of(&g), 1e-5) {
            Ok(tally) if tally.compared <= tally.left_out => failures.push(format!("{tally:?} in\n{text}")),
            Ok(_) => {}
            Err(e) => failures.push(e),
        }
    }
    assert!(failures.is_empty(), "{} cases fail\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn every_operator_has_a_gradient_that_is_tested_or_a_reason() {
    let tested: BTreeSet<&str> = cases()
        .into_iter()
        .flat_map(|text| {
            let g = parse::graph(text).unwrap();
            g.node_ids().map(|n| g.op(n).name()).collect::<Vec<_>>()
        })
        .collect();
    let missing: Vec<&&str> =
        Op::NAMES.iter().filter(|n| !tested.contains(**n) && WITHOUT.iter().all(|(w, _)| w != *n)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let both: Vec<_> = WITHOUT.iter().filter(|(n, _)| tested.contains(n)).collect();
    assert!(both.is_empty(), "{both:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Chains and fan-outs of the operators of a random graph, with respect to all of its inputs.
    #[test]
    fn random_graphs_agree_with_finite_differences(choices in prop::collection::vec(any::<u8>(), 0..80)) {
        let limits = Limits { nodes: 5, elems: 128, mix: Mix::Continuous };
        let case = case(&choices, &limits);
        // Of several updates of one place the last stays, and each gets the gradient, as in PyTorch.
        let replaces = |op: &Op| op.attributes().iter().any(|(name, text)| *name == "reduction" && text == "none");
        let differentiable = case.graph.node_ids().all(|n| {
            let op = case.graph.op(n);
            WITHOUT.iter().all(|(name, _)| *name != op.name()) && !replaces(op)
        });
        if differentiable {
            match check(&case.graph, &case.inputs, 1e-3) {
                Err(e) if e.contains("has no gradient: ") => {} // not with these attributes
                result => result.map(|_| ()).map_err(TestCaseError::fail)?,
            }
        }
    }
}

#[test]
fn gradients_of_several_users_are_summed_and_others_are_absent() {
    let mut g = parse::graph(
        "graph g(%x: f32[2], %unused: f32[2]) {\n %a = mul %x, %x\n %b = add %a, %x\n %l = reduce %b, kind=sum, axes=[0], keepdims=false\n return %l\n}",
    )
    .unwrap();
    let values: Vec<ValueId> = g.inputs().iter().map(|&node| ValueId { node, out: 0 }).collect();
    let loss = g.outputs()[0].1;
    let d = differentiate(&mut g, loss, &values).unwrap();
    assert_eq!(d[1], None);
    g.add_output("dx", d[0].unwrap());
    let inputs = [Tensor::f32(&[2], vec![3.0, -1.0]), Tensor::f32(&[2], vec![0.0, 0.0])];
    assert_eq!(evaluate(&g, &inputs, Precision::Native).unwrap()[1], Tensor::f32(&[2], vec![7.0, -1.0]));
}

#[test]
fn all_nodes_in_the_way_are_named() {
    let text = "graph g(%x: f32[4]) {\n %v, %i = top_k %x, axis=0, k=2, largest=true, sorted=true\n %h = hardmax %x, axis=0 ; from \"act\"\n %k = hardmax %x, axis=0\n %s = add %h, %k\n %l = reduce %s, kind=sum, axes=[0], keepdims=false\n return %l, %i\n}";
    let mut g = parse::graph(text).unwrap();
    let (x, loss) = (ValueId { node: g.inputs()[0], out: 0 }, g.outputs()[0].1);
    let error = differentiate(&mut g, loss, &[x]).unwrap_err().to_string();
    assert_eq!(error, "node \"act\": hardmax has no gradient\nnode \"k\": hardmax has no gradient");
    let position = g.outputs()[1].1;
    assert_eq!(
        differentiate(&mut g, position, &[x]).unwrap_err().to_string(),
        "the loss \"i\" is i64[2], not one number of type f32 or f64"
    );
}

#[test]
fn shapes_must_be_known() {
    let text =
        "graph g(%x: f32[N]) {\n %e = exp %x\n %l = reduce %e, kind=sum, axes=[0], keepdims=false\n return %l\n}";
    let mut g = parse::graph(text).unwrap();
    let (x, loss) = (ValueId { node: g.inputs()[0], out: 0 }, g.outputs()[0].1);
    let error = differentiate(&mut g, loss, &[x]).unwrap_err().to_string();
    assert!(error.starts_with("node \"l\": reduce the shape of f32[N] is not known; fix its symbols"), "{error}");
}
