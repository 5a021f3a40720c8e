//! A compiled library against the reference evaluator: where, by node, the two first part.
//!
//! The library runs with its trace hook, so that every value it completes can be seen; the evaluator computes the model as it
//! was imported, before any pass, in f64. Values are matched by their ONNX names. A difference counts against the range of
//! the exact value, so that cancellation in single elements is not held against the library.

use crate::{Error, Model, Tensor};
use nncc_ir::eval::{Precision, evaluate_visiting};
use nncc_ir::{DType, Graph};
use rustc_hash::FxHashMap;

/// How far one value is off.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The value's name in the model.
    pub value: String,
    /// The step of the library that made it.
    pub step: String,
    /// The largest difference of an element, as a share of the exact value's range; infinite where one side is NaN alone.
    pub relative: f64,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Values that were compared.
    pub compared: usize,
    /// The first value beyond the tolerance, in order of execution.
    pub first: Option<Difference>,
    /// The value that is furthest off.
    pub worst: Option<Difference>,
}

/// Compares one run on `inputs`, which are in the order of the graph's inputs.
///
/// # Errors
/// When either side cannot run on these inputs.
pub fn compare(graph: &Graph, model: &Model, inputs: &[Tensor], tolerance: f64) -> Result<Verdict, Error> {
    let mut exact: FxHashMap<String, Tensor> = FxHashMap::default();
    let outputs = evaluate_visiting(graph, inputs, Precision::F64, |v, t| {
        exact.insert(graph.value(v).name.to_string(), t.clone());
    });
    let outputs = outputs.map_err(|e| Error::Input(format!("the reference evaluator: {e}")))?;
    let mut verdict = Verdict::default();
    let got = model.run_traced(inputs, &mut |step| {
        for (name, t) in &step.results {
            if let Some(want) = exact.get(name) {
                verdict.note(name, &step.name, relative(t, want), tolerance);
            }
        }
    })?;
    for (((name, _), want), got) in graph.outputs().iter().zip(&outputs).zip(&got) {
        verdict.note(name, "output", relative(got, want), tolerance);
    }
    Ok(verdict)
}

impl Verdict {
    fn note(&mut self, value: &str, step: &str, relative: f64, tolerance: f64) {
        self.compared += 1;
        let difference = || Difference { value: value.to_string(), step: step.to_string(), relative };
        if self.first.is_none() && relative > tolerance {
            self.first = Some(difference());
        }
        if self.worst.as_ref().is_none_or(|w| relative > w.relative) {
            self.worst = Some(difference());
        }
    }
}

/// The largest difference as a share of the exact value's range; integers and booleans differ or do not.
fn relative(got: &Tensor, want: &Tensor) -> f64 {
    if got.dims() != want.dims() {
        return f64::INFINITY;
    }
    let (g, w) = (got.to_f64(), want.to_f64());
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
    let finite = || w.iter().copied().filter(|x| x.is_finite());
    let range = finite().fold(f64::NEG_INFINITY, f64::max) - finite().fold(f64::INFINITY, f64::min);
    // A constant value has no range: its own size takes its place.
    let scale = if range > 0.0 { range } else { finite().fold(0.0f64, |m, x| m.max(x.abs())).max(f64::MIN_POSITIVE) };
    let floats = matches!(got.dtype(), DType::F32 | DType::F64);
    let off = |a: f64, b: f64| match same(a, b) {
        true => 0.0,
        false if floats && a.is_finite() && b.is_finite() => (a - b).abs() / scale,
        // Beyond f32 the exact value is finite where f32 is infinite.
        false if floats && a.is_infinite() && b.abs() > f64::from(f32::MAX) => 0.0,
        false => f64::INFINITY,
    };
    g.iter().zip(&w).map(|(&a, &b)| off(a, b)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_range() {
        let want = Tensor::from_f64(DType::F64, &[3], &[0.0, 10.0, 5.0]);
        assert_eq!(relative(&Tensor::f32(&[3], vec![0.0, 10.0, 5.0]), &want), 0.0);
        assert_eq!(relative(&Tensor::f32(&[3], vec![1.0, 10.0, 5.0]), &want), 0.1);
        assert_eq!(relative(&Tensor::f32(&[3], vec![f32::NAN, 10.0, 5.0]), &want), f64::INFINITY);
        assert_eq!(relative(&Tensor::f32(&[1], vec![0.0]), &want), f64::INFINITY);
    }
}
