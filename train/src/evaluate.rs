//! A network on data that it does not learn from: loss, outputs, metrics, the samples it gets most wrong.

use crate::data::Targets;
use crate::history::Sums;
use crate::loader::{Batch, Loader};
use crate::metrics::{Metrics, Scores};
use crate::step::{Outcome, Step};
use crate::trainer::TrainError;
use nncc_ir::DType;
use serde::Serialize;

/// Classes whose confusion matrix is counted: 128 MB of it.
const MOST_CLASSES: usize = 4096;

/// The outputs for all samples of a loader, in its order.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Loss and right predictions.
    pub sums: Sums,
    /// The samples, by number.
    pub samples: Vec<usize>,
    /// Outputs, a row a sample.
    pub outputs: Vec<f32>,
    /// The length of a row.
    pub width: usize,
    /// The samples' classes, if there are classes.
    pub labels: Option<Vec<u32>>,
}

/// How good a network is on data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// The mean loss.
    pub loss: f64,
    /// The share of right predictions; none without classes.
    pub accuracy: Option<f64>,
    /// All else, where there are classes.
    pub metrics: Option<Metrics>,
}

impl Figures {
    /// An aligned table; `names` are the classes'.
    pub fn table(&self, names: &[String]) -> String {
        let accuracy = self.accuracy.map(|a| format!("{:<18}{:>8.2} %\n", "accuracy", 100.0 * a));
        let rest = self.metrics.as_ref().map(|m| m.table(names)).or(accuracy).unwrap_or_default();
        format!("{:<18}{:>10.4}\n{rest}", "loss", self.loss)
    }
}

/// A sample and how wrong the network is about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Worst {
    /// The sample.
    pub sample: usize,
    /// Its class.
    pub label: u32,
    /// What the network takes it for.
    pub prediction: u32,
    /// The probability that the network gives to its class.
    pub probability: f64,
}

impl Evaluation {
    /// Runs the network over an epoch of the loader, which should neither shuffle nor augment.
    pub fn of(step: &mut dyn Step, loader: &Loader<'_>) -> Result<Evaluation, TrainError> {
        let mut out = Evaluation { sums: Sums::default(), samples: vec![], outputs: vec![], width: 0, labels: None };
        loader.epoch(0, 0, |batches| {
            for (number, batch) in batches.enumerate() {
                let batch = batch?;
                let outcome = step.eval(&batch).map_err(|source| TrainError::Eval { batch: number as u64, source })?;
                add(&mut out.sums, &batch, &outcome);
                out.width = outcome.outputs.elems() / batch.len().max(1);
                out.outputs.extend(outcome.outputs.to_f64().into_iter().map(|x| x as f32));
                out.samples.extend(batch.samples);
            }
            Ok::<(), TrainError>(())
        })?;
        if let Targets::Classes { of, .. } = loader.data().targets() {
            out.labels = Some(out.samples.iter().map(|&i| of[i]).collect());
        }
        Ok(out)
    }

    /// All figures, where the targets are classes that the outputs have a number for, and not so many that their confusion
    /// matrix is a burden. A single output is the logit of the second of two classes.
    pub fn metrics(&self) -> Option<Metrics> {
        let labels = self.labels.as_ref()?;
        let (values, classes) = self.rows().filter(|(_, classes)| *classes <= MOST_CLASSES)?;
        let fits = labels.iter().all(|&label| (label as usize) < classes);
        fits.then(|| Metrics::new(Scores { values: &values, classes, logits: true }, labels))
    }

    /// Whether each sample's prediction is wrong; empty without classes.
    pub fn wrong(&self) -> Vec<bool> {
        let (Some(labels), Some((values, classes))) = (&self.labels, self.rows()) else { return Vec::new() };
        let predictions = Scores { values: &values, classes, logits: true }.predictions();
        labels.iter().zip(predictions).map(|(&label, prediction)| label != prediction).collect()
    }

    /// What is printed, and written as JSON.
    pub fn figures(&self) -> Figures {
        Figures { loss: self.sums.mean_loss(), accuracy: self.sums.accuracy(), metrics: self.metrics() }
    }

    /// Logits, two of them where there is one.
    fn rows(&self) -> Option<(Vec<f32>, usize)> {
        match self.width {
            0 => None,
            1 => Some((self.outputs.iter().flat_map(|&z| [0.0, z]).collect(), 2)),
            n => Some((self.outputs.clone(), n)),
        }
    }

    /// The wrongly classified samples to whose class the network gives least, at most `count`.
    pub fn worst(&self, count: usize) -> Vec<Worst> {
        let (Some(labels), Some((values, classes))) = (&self.labels, self.rows()) else { return Vec::new() };
        let scores = Scores { values: &values, classes, logits: true };
        let (predictions, probabilities) = (scores.predictions(), scores.probabilities());
        let of = |i: usize| {
            let label = labels[i];
            let probability = probabilities.get(i * classes + label as usize).copied().unwrap_or(0.0);
            Worst { sample: self.samples[i], label, prediction: predictions[i], probability }
        };
        let mut worst: Vec<Worst> = (0..labels.len()).map(of).filter(|w| w.label != w.prediction).collect();
        worst.sort_by(|a, b| a.probability.total_cmp(&b.probability).then(a.sample.cmp(&b.sample)));
        worst.truncate(count);
        worst
    }
}

/// Adds a batch to the sums.
pub(crate) fn add(sums: &mut Sums, batch: &Batch, outcome: &Outcome) {
    let n = batch.len() as u64;
    sums.loss += outcome.loss * n as f64;
    sums.samples += n;
    if let Some(hits) = hits(batch, outcome) {
        sums.hits += hits;
        sums.judged += n;
    }
}

/// How many predictions are right; none where there are no classes. Of mixed targets the larger share counts.
fn hits(batch: &Batch, outcome: &Outcome) -> Option<u64> {
    let n = batch.len();
    let width = outcome.outputs.elems() / n.max(1);
    let outputs: Vec<f32> = outcome.outputs.to_f64().into_iter().map(|x| x as f32).collect();
    let of = |values: &[f32], width| Scores { values, classes: width, logits: true }.predictions();
    let predictions: Vec<u32> = match width {
        0 => return None,
        1 => outputs.iter().map(|&z| u32::from(z > 0.0)).collect(),
        width => of(&outputs, width),
    };
    let labels: Vec<i64> = if batch.targets.dtype() == DType::I64 {
        batch.targets.to_i64()
    } else if width > 1 && batch.targets.elems() == n * width && batch.mixed {
        let targets: Vec<f32> = batch.targets.to_f64().into_iter().map(|x| x as f32).collect();
        of(&targets, width).into_iter().map(i64::from).collect()
    } else {
        return None;
    };
    Some(labels.iter().zip(predictions).filter(|&(&label, prediction)| label == i64::from(prediction)).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, Values};
    use crate::loader::Loading;
    use crate::step::testing::Regression;

    fn data() -> InMemory {
        let names = ["a", "b", "c"].map(String::from).to_vec();
        let targets = Targets::Classes { of: vec![0, 1, 2, 2, 0], names };
        // A one-hot input each; the last is taken for what it is not.
        let x = [0, 1, 2, 2, 1].iter().flat_map(|&c| (0..3).map(move |k| f32::from(u8::from(c == k)))).collect();
        InMemory::new("d", vec![3], Values::F32(x), targets).unwrap()
    }

    #[test]
    fn the_last_smaller_batch_counts_by_its_samples() {
        let data = data();
        let loader = Loader::new(&data, (0..5).collect(), Loading { batch_size: 2, ..Loading::default() }).unwrap();
        let mut step = Regression::new(3, 3);
        // Logit k is 2 for input k.
        (0..3).for_each(|k| step.weights[k * 4 + k] = 2.0);
        let evaluation = Evaluation::of(&mut step, &loader).unwrap();
        assert_eq!((step.evals, evaluation.sums.samples, evaluation.sums.accuracy()), (3, 5, Some(0.8)));
        let e2 = 2f64.exp();
        let (right, wrong) = (((e2 + 2.0) / e2).ln(), (e2 + 2.0).ln());
        assert!((evaluation.sums.mean_loss() - (4.0 * right + wrong) / 5.0).abs() < 1e-6);
        let metrics = evaluation.metrics().unwrap();
        assert_eq!(metrics.accuracy, 0.8);
        assert!((metrics.log_loss - evaluation.sums.mean_loss()).abs() < 1e-6);
        assert_eq!(evaluation.wrong(), [false, false, false, false, true]);
        let worst = evaluation.worst(3);
        assert_eq!(worst.len(), 1);
        assert_eq!((worst[0].sample, worst[0].label, worst[0].prediction), (4, 0, 1));
        assert!((worst[0].probability - 1.0 / (e2 + 2.0)).abs() < 1e-6);
    }
}
