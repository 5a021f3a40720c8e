//! The compiled step as the loop sees it: what takes a batch and changes the weights.
//!
//! The facade implements [`Step`] over a compiled library; the tests of this crate implement it in plain Rust. All shapes,
//! losses and optimizers are behind it.

use crate::loader::Batch;
use nncc_ir::Tensor;
use serde::Serialize;

/// Why a step failed: shapes that do not fit, a library's error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StepError(pub String);

/// What a step is told beside its batch.
#[derive(Clone, Copy, Debug)]
pub struct Directions {
    /// The learning rate. A group of parameters with a factor of its own has that factor in the step.
    pub rate: f32,
    /// Of what the step draws: dropout.
    pub seed: u64,
    /// The batch's gradient counts with this factor: 1, or with accumulation its share of the samples of the update, so that
    /// the update is that of one large batch whose loss is a mean over samples.
    pub share: f32,
    /// Whether to update the weights (and clear the gradients), or to add to the gradients alone.
    pub update: bool,
    /// Whether [`Step::norms`] will be asked for.
    pub watch: bool,
}

/// What came out of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The mean loss over the batch's samples.
    pub loss: f64,
    /// The network's output, `[N, ..]`.
    pub outputs: Tensor,
}

/// Norms of a layer in the last step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerNorms {
    /// The layer, in the user's names.
    pub name: String,
    /// Of its gradients.
    pub gradient: f32,
    /// Of the change of its weights.
    pub update: f32,
    /// Of its weights.
    pub weight: f32,
}

/// What a layer of ReLUs gives for a batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerActivity {
    /// Its result, in the user's names.
    pub name: String,
    /// The root of the mean square.
    pub rms: f32,
    /// Units: channels, or what stands in their place on axis 1.
    pub units: u64,
    /// Those that are 0 for every sample and at every place.
    pub dead: u64,
}

impl LayerActivity {
    /// The share of dead units.
    pub fn dead_share(&self) -> f32 {
        self.dead as f32 / self.units.max(1) as f32
    }
}

/// A training step.
pub trait Step {
    /// Forward, backward, and (as [`Directions::update`] says) the update. Nothing is changed where the loss is no finite number.
    fn step(&mut self, batch: &Batch, directions: Directions) -> Result<Outcome, StepError>;

    /// Forward and loss in inference form, without a change to anything.
    fn eval(&mut self, batch: &Batch) -> Result<Outcome, StepError>;

    /// All that a step changes: parameters, running averages, the optimizer's state; by name. A step that is given it by
    /// [`Step::set_state`] goes on with the same bits.
    fn state(&self) -> Result<Vec<(String, Vec<u8>)>, StepError>;

    /// Takes over a state; an error (and no change) if names or sizes are not its own.
    fn set_state(&mut self, state: &[(String, Vec<u8>)]) -> Result<(), StepError>;

    /// Whether [`Directions::update`] may be false and [`Directions::share`] other than 1.
    fn accumulates(&self) -> bool {
        false
    }

    /// Norms by layer of the last update whose directions said so, where they are measured.
    fn norms(&mut self) -> Vec<LayerNorms> {
        Vec::new()
    }

    /// What the layers of ReLUs give for a batch, where that can be seen.
    fn activity(&mut self, _batch: &Batch) -> Result<Vec<LayerActivity>, StepError> {
        Ok(Vec::new())
    }

    /// Where the first number that is none came from in the last step, which had this batch and these directions.
    fn first_not_finite(&mut self, _batch: &Batch, _directions: Directions) -> Option<String> {
        None
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Softmax regression by SGD with momentum, in f32 and plain loops: a step whose result depends on every bit of its
    //! state and on the order of its batches.

    use super::*;
    use nncc_ir::philox::{Stream, key};

    #[derive(Clone, Debug, PartialEq)]
    pub struct Regression {
        pub features: usize,
        pub classes: usize,
        pub weights: Vec<f32>,
        pub momentum: Vec<f32>,
        pub gradient: Vec<f32>,
        /// Adds noise to the gradient, drawn from the step's seed.
        pub noise: f32,
        pub evals: usize,
    }

    impl Regression {
        pub fn new(features: usize, classes: usize) -> Regression {
            let zeros = vec![0.0; (features + 1) * classes];
            Regression {
                features,
                classes,
                weights: zeros.clone(),
                momentum: zeros.clone(),
                gradient: zeros,
                noise: 0.0,
                evals: 0,
            }
        }

        /// Logits and the mean loss; calls `visit` with sample, class, and dloss/dlogit.
        fn forward(&self, batch: &Batch, mut visit: impl FnMut(&[f32], usize, f32)) -> Outcome {
            let x = batch.inputs.to_f64().iter().map(|&x| x as f32).collect::<Vec<_>>();
            let labels = batch.targets.to_i64();
            let (f, c, n) = (self.features, self.classes, batch.len());
            let (mut outputs, mut loss) = (Vec::with_capacity(n * c), 0.0);
            for (row, &label) in x.chunks_exact(f).zip(&labels) {
                let logit = |k: usize| {
                    let w = &self.weights[k * (f + 1)..][..f + 1];
                    row.iter().zip(w).map(|(x, w)| x * w).sum::<f32>() + w[f]
                };
                let logits: Vec<f32> = (0..c).map(logit).collect();
                let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f32 = logits.iter().map(|z| (z - most).exp()).sum();
                loss += f64::from(sum.ln() + most - logits[label as usize]) / n as f64;
                for (k, z) in logits.iter().enumerate() {
                    let p = (z - most).exp() / sum - f32::from(u8::from(k == label as usize));
                    visit(row, k, p / n as f32);
                }
                outputs.extend(logits);
            }
            Outcome { loss, outputs: Tensor::f32(&[n, c], outputs) }
        }
    }

    impl Step for Regression {
        fn step(&mut self, batch: &Batch, directions: Directions) -> Result<Outcome, StepError> {
            let mut gradient = std::mem::take(&mut self.gradient);
            let f = self.features;
            let outcome = self.forward(batch, |row, k, g| {
                for (to, x) in gradient[k * (f + 1)..].iter_mut().zip(row.iter().chain(&[1.0])) {
                    *to += directions.share * g * x;
                }
            });
            if directions.update {
                let mut stream = Stream::new(directions.seed, [0; 3]);
                assert_ne!(key(directions.seed), [0; 2], "a step has a seed of its own");
                for ((w, m), g) in self.weights.iter_mut().zip(&mut self.momentum).zip(&mut gradient) {
                    *m = 0.9 * *m + *g + self.noise * stream.normal() as f32;
                    *w -= directions.rate * *m;
                    *g = 0.0;
                }
            }
            self.gradient = gradient;
            Ok(outcome)
        }

        fn eval(&mut self, batch: &Batch) -> Result<Outcome, StepError> {
            self.evals += 1;
            Ok(self.forward(batch, |_, _, _| {}))
        }

        fn state(&self) -> Result<Vec<(String, Vec<u8>)>, StepError> {
            let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect();
            Ok(vec![("weights".into(), bytes(&self.weights)), ("momentum".into(), bytes(&self.momentum))])
        }

        fn set_state(&mut self, state: &[(String, Vec<u8>)]) -> Result<(), StepError> {
            let [(w, weights), (m, momentum)] = state else { return Err(StepError("not two tensors".into())) };
            if (w.as_str(), m.as_str(), weights.len()) != ("weights", "momentum", 4 * self.weights.len()) {
                return Err(StepError("another network's state".into()));
            }
            let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
            (self.weights, self.momentum) = (floats(weights), floats(momentum));
            Ok(())
        }

        fn accumulates(&self) -> bool {
            true
        }

        fn norms(&mut self) -> Vec<LayerNorms> {
            let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
            let (weight, update) = (norm(&self.weights), norm(&self.momentum));
            vec![LayerNorms { name: "regression".into(), gradient: update, update, weight }]
        }
    }
}
