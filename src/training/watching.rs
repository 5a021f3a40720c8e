//! Looking into a compiled step: norms by layer, dead units, and where the first number came from that is none.
//!
//! Gradients' norms are outputs of the step. Weights are read from the states, of which there is a copy from before the update;
//! activations from a run that shows its values, which costs time and is done once in a while.

use super::CompiledStep;
use crate::Model;
use crate::model::Learnt;
use nncc_ir::{Data, Tensor};
use nncc_passes::training::StateKind;
use nncc_runtime::{TensorView, TensorViewMut};
use nncc_train::loader::Batch;
use nncc_train::step::{Directions, LayerActivity, LayerNorms, StepError};
use std::collections::BTreeSet;

/// The layer of a parameter: its name without the last part. `layer1.0.conv.weight` and `.bias` are one layer.
fn layer(parameter: &str) -> &str {
    parameter.rfind(['.', '/']).filter(|&at| at > 0).map_or(parameter, |at| &parameter[..at])
}

/// The sum of the squares of what `f` makes of the elements of both.
fn squares(a: &Tensor, b: &Tensor, f: fn(f64, f64) -> f64) -> f64 {
    let square = |(a, b): (f64, f64)| f(a, b) * f(a, b);
    match (a.data(), b.data()) {
        (Data::F32(a), Data::F32(b)) => a.iter().zip(b.iter()).map(|(&a, &b)| square((a.into(), b.into()))).sum(),
        (Data::F64(a), Data::F64(b)) => a.iter().zip(b.iter()).map(|(&a, &b)| square((a, b))).sum(),
        _ => 0.0,
    }
}

/// The first element that is no finite number.
fn not_finite(t: &Tensor) -> Option<String> {
    match t.data() {
        Data::F32(v) => v.iter().find(|x| !x.is_finite()).map(ToString::to_string),
        Data::F64(v) => v.iter().find(|x| !x.is_finite()).map(ToString::to_string),
        _ => None,
    }
}

impl CompiledStep {
    /// Norms by layer of the last update.
    pub(super) fn layer_norms(&self) -> Vec<LayerNorms> {
        let mut layers: Vec<(&str, [f64; 3])> = Vec::new();
        let Some(block) = &self.block else { return Vec::new() };
        for ((&i, &gradient), old) in self.watched.iter().zip(&self.gradient_norms).zip(&self.before) {
            let name = layer(&self.states[i].0);
            let [Ok(new), Ok(old)] = [block.get(i), old.view()].map(|t| super::ir_tensor(&t)) else { continue };
            let own = [f64::from(gradient).powi(2), squares(&new, &old, |a, b| a - b), squares(&new, &old, |a, _| a)];
            match layers.iter_mut().find(|(n, _)| *n == name) {
                Some((_, sums)) => sums.iter_mut().zip(own).for_each(|(sum, x)| *sum += x),
                None => layers.push((name, own)),
            }
        }
        let norms = |(name, sums): (&str, [f64; 3])| {
            let [gradient, update, weight] = sums.map(|x| x.sqrt() as f32);
            LayerNorms { name: name.to_string(), gradient, update, weight }
        };
        layers.into_iter().map(norms).collect()
    }

    /// What the layers of ReLUs give for a batch, those that the compiled evaluation has as values of their own.
    pub(super) fn layer_activity(&self, batch: &Batch) -> Result<Vec<LayerActivity>, StepError> {
        if !self.has(nncc_runtime::Purpose::Evaluate) {
            return Ok(Vec::new());
        }
        let wanted: BTreeSet<String> = self.rectified.iter().cloned().collect();
        let look = move |_: &str, name: &str, value: Value<'_>| {
            let value = wanted.contains(name).then(value).flatten()?;
            let Data::F32(v) = value.data() else { return None };
            let (&[n, units, ..], true) = (value.dims(), value.elems() > 0) else { return None };
            let plane = v.len() / (n * units);
            let mut alive = vec![false; units];
            for (unit, plane) in v.chunks_exact(plane).enumerate() {
                alive[unit % units] |= plane.iter().any(|&x| x > 0.0);
            }
            let mean = v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / v.len() as f64;
            let dead = alive.iter().filter(|&&alive| !alive).count() as u64;
            Some(LayerActivity { name: name.to_string(), rms: mean.sqrt() as f32, units: units as u64, dead })
        };
        self.evaluated(batch, |model, learnt, inputs| looked(model, learnt, inputs, look))
    }

    /// Runs the last step once more, from its states, which it has left as they were, and tells what first was no number: a
    /// weight, the batch, or the result of an operator.
    pub(super) fn origin_of_not_finite(&mut self, batch: &Batch, directions: Directions) -> Option<String> {
        let bad = |t: TensorView<'_>| super::ir_tensor(&t).ok().and_then(|t| not_finite(&t)).is_some();
        if let Some((i, _)) = self.values(StateKind::Parameter).find(|&(_, t)| bad(t)) {
            return Some(format!("\"{}\" is no number since the update before", self.states[i].0));
        }
        if not_finite(&batch.inputs).is_some() {
            return Some("the batch itself has values that are no numbers: see the augmentation".into());
        }
        let look = |step: &str, name: &str, value: Value<'_>| {
            not_finite(&value()?).map(|bad| (step.to_string(), name.to_string(), bad))
        };
        let found = self.stepped(batch, directions, |model, learnt, inputs| looked(model, learnt, inputs, look));
        let (step, name, bad) = found.ok()?.into_iter().next()?;
        let by = if step.is_empty() || step == name { String::new() } else { format!(", computed by \"{step}\"") };
        Some(format!("the first value that is no number is \"{name}\"{by}: {bad}"))
    }
}

/// How to read a value that a step of the model completes.
type Value<'v> = &'v dyn Fn() -> Option<Tensor>;

/// Runs the graph and shows its values; its outputs are not kept.
fn looked<T: Send + 'static>(
    model: &Model,
    learnt: Learnt<'_>,
    inputs: &[TensorView<'_>],
    look: impl Fn(&str, &str, Value<'_>) -> Option<T> + Send + 'static,
) -> Result<Vec<T>, crate::Error> {
    let mut results = model.outputs_for(inputs)?;
    let mut outputs: Vec<TensorViewMut<'_>> = results.iter_mut().map(nncc_runtime::Tensor::view_mut).collect();
    model.run_looking(learnt, inputs, &mut outputs, look)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_names_without_their_last_part() {
        assert_eq!(layer("layer1.0.conv1.weight"), "layer1.0.conv1");
        assert_eq!(layer("dense/kernel"), "dense");
        assert_eq!((layer("w"), layer(".w")), ("w", ".w"));
    }
}
