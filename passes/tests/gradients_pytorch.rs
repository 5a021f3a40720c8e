//! Gradients against PyTorch's, as `tools/gradient_cases.py` has recorded them: kinks, ties, zeros and poles, where finite
//! differences say nothing, and PyTorch's definitions of what is random or averaged in training.
//!
//! Tolerance: ours are computed in f64, PyTorch's in f32, from sums of a few dozen terms: 2e-5 of the largest gradient of a
//! tensor.

use nncc_ir::backpropagate;
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::ops::reshape::Identity;
use nncc_ir::{Constant, Graph, Tensor, ValueId, parse};

/// A case of the file.
struct Case<'a> {
    name: &'a str,
    graph: Graph,
    /// `(kind, value, numbers)`.
    records: Vec<(&'a str, &'a str, Vec<f64>)>,
}

fn cases() -> Vec<Case<'static>> {
    let mut cases = Vec::new();
    for text in include_str!("gradients_pytorch.txt").split("== ").skip(1) {
        let (name, rest) = text.split_once('\n').unwrap();
        let (graph, records) = rest.split_once("\n}\n").unwrap();
        let graph = parse::graph(&format!("{graph}\n}}")).unwrap_or_else(|e| panic!("{name}: {e}"));
        let record = |line: &'static str| {
            let mut words = line.split(' ');
            let (kind, value) = (words.next().unwrap(), words.next().unwrap());
            (kind, value, words.map(|w| w.parse().unwrap()).collect())
        };
        cases.push(Case { name, graph, records: records.lines().map(record).collect() });
    }
    cases
}

impl Case<'_> {
    fn numbers(&self, kind: &str, value: &str) -> Option<&[f64]> {
        self.records.iter().find(|(k, v, _)| *k == kind && *v == value).map(|(_, _, n)| &n[..])
    }

    fn tensor(&self, kind: &str, v: ValueId) -> Option<Tensor> {
        let value = self.graph.value(v);
        let dims = value.ty.dims().unwrap();
        self.numbers(kind, &value.name).map(|n| Tensor::from_f64(value.ty.dtype, &dims, n))
    }

    /// What does not agree.
    fn run(&self) -> Result<(), String> {
        let mut graph = self.graph.clone();
        let g = &mut graph;
        let inputs: Vec<ValueId> = g.inputs().iter().map(|&node| ValueId { node, out: 0 }).collect();
        let outputs: Vec<ValueId> = g.outputs().iter().map(|(_, v)| *v).collect();
        let seeds: Vec<(ValueId, ValueId)> = outputs
            .iter()
            .filter_map(|v| Some((*v, self.tensor("upstream", *v)?)))
            .map(|(v, t)| (v, g.add_constant("", Constant::from_tensor(&t))))
            .collect();
        let gradients = backpropagate(g, &seeds, &inputs).map_err(|e| e.to_string())?;
        for (x, d) in inputs.iter().zip(&gradients) {
            if let Some(d) = d {
                let copy = g.add1(Identity {}, &[*d], Default::default(), "").unwrap();
                g.add_output(&format!("gradient {}", self.graph.value(*x).name), copy);
            }
        }
        let operands: Vec<Tensor> = inputs.iter().map(|v| self.tensor("input", *v).unwrap()).collect();
        let results = evaluate(g, &operands, Precision::F64).map_err(|e| e.to_string())?;
        let named: Vec<(String, Vec<f64>)> =
            g.outputs().iter().map(|(n, _)| n.to_string()).zip(results.iter().map(Tensor::to_f64)).collect();
        for (kind, value, expected) in self.records.iter().filter(|(k, ..)| matches!(*k, "output" | "gradient")) {
            let key = if *kind == "output" { (*value).to_string() } else { format!("gradient {value}") };
            // A gradient that is absent here is one of zeros.
            let zeros = vec![0.0; expected.len()];
            let found = named.iter().find(|(n, _)| *n == key).map_or(&zeros, |(_, v)| v);
            let largest = expected.iter().filter(|x| x.is_finite()).fold(1.0f64, |m, x| m.max(x.abs()));
            let agrees = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 2e-5 * largest;
            if let Some(i) = found.iter().zip(expected).position(|p| !agrees(p)) {
                return Err(format!("{kind} {value}, element {i}: {}, PyTorch has {}", found[i], expected[i]));
            }
        }
        Ok(())
    }
}

#[test]
fn gradients_are_pytorchs() {
    let failures: Vec<String> =
        cases().iter().filter_map(|c| c.run().err().map(|e| format!("{}: {e}\n{}", c.name, c.graph))).collect();
    assert!(failures.is_empty(), "{} cases differ\n{}", failures.len(), failures.join("\n"));
}
