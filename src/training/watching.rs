//! Looking into a compiled step: norms by layer, dead units, and where the first number came from that is none.
//!
//! Gradients' norms are outputs of the step. Weights and their changes are read from the states, of which there are the old
//! and the new ones; activations from a run that shows its values, which costs time and is done once in a while.

use super::{CompiledStep, Part};
use crate::Model;
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
fn squares(a: &nncc_runtime::Tensor, b: &nncc_runtime::Tensor, f: fn(f64, f64) -> f64) -> f64 {
    let square = |(a, b): (f64, f64)| f(a, b) * f(a, b);
    match (a.as_slice::<f32>(), b.as_slice::<f32>(), a.as_slice::<f64>(), b.as_slice::<f64>()) {
        (Some(a), Some(b), ..) => a.iter().zip(b).map(|(&a, &b)| square((a.into(), b.into()))).sum(),
        (.., Some(a), Some(b)) => a.iter().zip(b).map(|(&a, &b)| square((a, b))).sum(),
        _ => 0.0,
    }
}

fn finite(t: &nncc_runtime::Tensor) -> bool {
    let all = |v: &[f32]| v.iter().all(|x| x.is_finite());
    t.as_slice::<f32>().is_none_or(all) && t.as_slice::<f64>().is_none_or(|v| v.iter().all(|x| x.is_finite()))
}

impl CompiledStep {
    /// Norms by layer of the last update.
    pub(super) fn layer_norms(&self) -> Vec<LayerNorms> {
        let mut layers: Vec<(&str, [f64; 3])> = Vec::new();
        for (&i, &gradient) in self.watched.iter().zip(&self.gradient_norms) {
            let name = layer(&self.states[i].name);
            let (new, old) = (&self.values[0][i], &self.values[1][i]);
            let own = [f64::from(gradient).powi(2), squares(new, old, |a, b| a - b), squares(new, old, |a, _| a)];
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
    pub(super) fn layer_activity(&mut self, batch: &Batch) -> Result<Vec<LayerActivity>, StepError> {
        let Some(part) = &self.evaluation else { return Ok(Vec::new()) };
        let wanted: BTreeSet<String> = self.rectified.iter().cloned().collect();
        part.look(batch, &[], &mut self.values, move |_, name, value| {
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
        })
    }

    /// Runs the last step once more, from the states before it, and tells what first was no number: a weight, the batch, or
    /// the result of an operator.
    pub(super) fn origin_of_not_finite(&mut self, batch: &Batch, directions: Directions) -> Option<String> {
        let part = if directions.update { self.step.take() } else { self.gather.take() }?;
        // What the step has written over goes back to its place.
        for &i in &part.writes {
            let [now, next] = &mut self.values;
            std::mem::swap(&mut now[i], &mut next[i]);
        }
        let found = self.origin(&part, batch, directions);
        *(if directions.update { &mut self.step } else { &mut self.gather }) = Some(part);
        found
    }

    fn origin(&mut self, part: &Part, batch: &Batch, directions: Directions) -> Option<String> {
        let mut states = self.states.iter().zip(&self.values[0]);
        if let Some((state, _)) = states.find(|(s, t)| s.kind == StateKind::Parameter && !finite(t)) {
            return Some(format!("\"{}\" is no number since the update before", state.name));
        }
        if batch.inputs.to_f64().iter().any(|x| !x.is_finite()) {
            return Some("the batch itself has values that are no numbers: see the augmentation".into());
        }
        let between = self.between(directions);
        let looked = part.look(batch, &between, &mut self.values, |step, name, value| {
            let value = value()?;
            let bad = match value.data() {
                Data::F32(v) => v.iter().find(|x| !x.is_finite()).map(ToString::to_string),
                Data::F64(v) => v.iter().find(|x| !x.is_finite()).map(ToString::to_string),
                _ => None,
            };
            bad.map(|bad| (step.to_string(), name.to_string(), bad))
        });
        let (step, name, bad) = looked.ok()?.into_iter().next()?;
        let by = if step.is_empty() || step == name { String::new() } else { format!(", computed by \"{step}\"") };
        Some(format!("the first value that is no number is \"{name}\"{by}: {bad}"))
    }
}

impl Part {
    /// Runs the graph and shows its values; nothing is kept of what it writes.
    fn look<T: Send + 'static>(
        &self,
        batch: &Batch,
        between: &[nncc_runtime::Tensor],
        [now, next]: &mut [Vec<nncc_runtime::Tensor>; 2],
        look: impl Fn(&str, &str, &dyn Fn() -> Option<Tensor>) -> Option<T> + Send + 'static,
    ) -> Result<Vec<T>, StepError> {
        let run = |model: &Model, inputs: &[TensorView<'_>], outputs: &mut [TensorViewMut<'_>]| {
            model.run_looking(inputs, outputs, look)
        };
        self.bound(batch, between, [now, next], run).map(|(_, looked)| looked)
    }
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
