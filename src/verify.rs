//! A compiled library against the reference evaluator: where, by node, the two first part.
//!
//! The library runs with its trace hook, so that every value it completes can be seen; the evaluator computes the model as it
//! was imported, before any pass, in f64, and once more in f32 to see how much the model amplifies rounding. Values are
//! matched by their ONNX names. A difference counts against the value's
//! scale: its range, or its largest magnitude where that is more, so that neither cancellation in single elements nor a
//! value that is nearly constant is held against the library.

use crate::{Error, Model, Tensor};
use nncc_ir::eval::{GraphError, Precision, evaluate_visiting};
use nncc_ir::{DType, Graph, ValueId};
use rustc_hash::FxHashMap;

/// The share of a value's scale that a right library may be off by default. f32 rounds by 6e-8 of each number; the sums of
/// some fifty layers one after the other, and weights that were rounded once more when a normalization was folded into
/// them, add up to 5e-5 in the networks of the tests. A wrong weight or index is off by 1e-3 and more.
pub const TOLERANCE: f64 = 1e-4;

/// A model may amplify rounding without bound: a small difference of large numbers, a large number before a saturation. So
/// a value may also be off by this many times what the evaluator itself is off when it rounds each value to f32, which is
/// the least that any f32 computation rounds.
const ROUNDING: f64 = 10.0;

/// How far one value is off.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The value's name in the model.
    pub value: String,
    /// The step of the library that made it.
    pub step: String,
    /// The largest difference of an element, as a share of the exact value's scale; infinite where one side is NaN alone.
    pub relative: f64,
    /// What would be allowed.
    pub allowed: f64,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Values that were compared.
    pub compared: usize,
    /// The first value that is further off than allowed, in the model's order.
    pub first: Option<Difference>,
    /// The value that is furthest off.
    pub worst: Option<Difference>,
}

/// Compares one run on `inputs`, which are in the order of the graph's inputs.
///
/// # Errors
/// When either side cannot run on these inputs.
pub fn compare(graph: &Graph, model: &Model, inputs: &[Tensor], tolerance: f64) -> Result<Verdict, Error> {
    let failed = |e: GraphError| Error::Input(format!("the reference evaluator: {e}"));
    let mut steps: FxHashMap<String, (String, Tensor)> = FxHashMap::default();
    let got = model.run_traced(inputs, &mut |step| {
        for (name, t) in &step.results {
            steps.insert(name.clone(), (step.name.clone(), t.clone()));
        }
    })?;
    let mut rounded: FxHashMap<ValueId, Tensor> = FxHashMap::default();
    let rounded_outputs = evaluate_visiting(graph, inputs, Precision::Native, |v, t| {
        if steps.contains_key(&*graph.value(v).name) {
            rounded.insert(v, t.clone());
        }
    });
    let rounded_outputs = rounded_outputs.map_err(failed)?;
    // The exact values are compared as they come: all of them would take twice as much memory as the others together.
    let mut verdict = Verdict::default();
    let outputs = evaluate_visiting(graph, inputs, Precision::F64, |v, want| {
        let name: &str = &graph.value(v).name;
        if let (Some((step, got)), Some(rounded)) = (steps.remove(name), rounded.remove(&v)) {
            verdict.note(name, &step, [&got, &rounded], want, tolerance);
        }
    });
    let outputs = outputs.map_err(failed)?;
    for (i, (name, _)) in graph.outputs().iter().enumerate() {
        verdict.note(name, "output", [&got[i], &rounded_outputs[i]], &outputs[i], tolerance);
    }
    Ok(verdict)
}

impl Verdict {
    fn note(&mut self, value: &str, step: &str, [got, rounded]: [&Tensor; 2], want: &Tensor, tolerance: f64) {
        let rounding = Some(ROUNDING * relative(rounded, want)).filter(|r| r.is_finite()).unwrap_or(0.0);
        let (relative, allowed) = (relative(got, want), rounding.max(tolerance));
        self.compared += 1;
        let difference = || Difference { value: value.to_string(), step: step.to_string(), relative, allowed };
        if self.first.is_none() && relative > allowed {
            self.first = Some(difference());
        }
        if self.worst.as_ref().is_none_or(|w| relative > w.relative) {
            self.worst = Some(difference());
        }
    }
}

/// The largest difference as a share of the exact value's scale; integers and booleans differ or do not.
fn relative(got: &Tensor, want: &Tensor) -> f64 {
    if got.dims() != want.dims() {
        return f64::INFINITY;
    }
    let (g, w) = (got.to_f64(), want.to_f64());
    let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
    let finite = || w.iter().copied().filter(|x| x.is_finite());
    let range = finite().fold(f64::NEG_INFINITY, f64::max) - finite().fold(f64::INFINITY, f64::min);
    let magnitude = finite().fold(0.0f64, |m, x| m.max(x.abs()));
    let scale = range.max(magnitude).max(f64::MIN_POSITIVE);
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
    fn what_a_model_amplifies_is_allowed() {
        let [want, rounded, near, far] =
            [1.0, 1.0 + 2e-4, 1.0 + 1e-3, 1.0 + 4e-3].map(|x| Tensor::from_f64(DType::F64, &[2], &[0.0, x]));
        let mut verdict = Verdict::default();
        verdict.note("near", "s", [&near, &rounded], &want, 1e-4);
        assert_eq!((verdict.compared, &verdict.first), (1, &None));
        verdict.note("near", "s", [&near, &want], &want, 1e-4);
        assert_eq!(verdict.first.take().map(|d| d.allowed), Some(1e-4));
        verdict.note("far", "s", [&far, &rounded], &want, 1e-4);
        assert_eq!(verdict.first.map(|d| d.value).as_deref(), Some("far"));
    }

    #[test]
    fn differences_are_relative_to_the_scale() {
        let want = Tensor::from_f64(DType::F64, &[3], &[0.0, 10.0, 5.0]);
        assert_eq!(relative(&Tensor::f32(&[3], vec![0.0, 10.0, 5.0]), &want), 0.0);
        assert_eq!(relative(&Tensor::f32(&[3], vec![1.0, 10.0, 5.0]), &want), 0.1);
        assert_eq!(relative(&Tensor::f32(&[3], vec![f32::NAN, 10.0, 5.0]), &want), f64::INFINITY);
        assert_eq!(relative(&Tensor::f32(&[1], vec![0.0]), &want), f64::INFINITY);
        // The range is 2, from -1 to 1; around 100 the magnitude counts.
        let around = |x: f64| Tensor::from_f64(DType::F64, &[2], &[x - 1.0, x + 1.0]);
        assert_eq!(relative(&Tensor::f32(&[2], vec![-1.0, 2.0]), &around(0.0)), 0.5);
        assert_eq!(relative(&Tensor::f32(&[2], vec![98.0, 101.0]), &around(99.0)), 0.01);
    }
}
