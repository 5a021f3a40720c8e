//! The combiner of stacked models: what each of their probabilities is worth, learnt from samples that none of them has seen.
//!
//! ```text
//! z = W [p1; p2; ..] + b         p_i the probabilities of model i, z the logits together
//! W, b = argmin  1/n sum cross_entropy(z, class) + 1/(2n) |W|^2
//! ```
//!
//! Softmax regression with the penalty that scikit-learn's `LogisticRegression` has by default, which is what its
//! `StackingClassifier` combines by. The problem is convex; L-BFGS over all samples at once solves it, in a step that is
//! compiled like any other. On samples that the models have learnt from it would trust the one that knows them by heart.
//!
//! Source: Wolpert, Stacked Generalization, 1992.

use super::session::{Session, usage};
use nncc::training::{BatchSizes, Loss, ModelFile, Optimizer, TrainingOptions};
use nncc::{Compiler, Error};
use nncc_frontend::author::{Attribute, Author};
use nncc_frontend::ensemble::{Combiner, gives_probabilities};
use nncc_ir::{DType, Tensor};
use nncc_train::data::{Dataset, InMemory, Targets, Values};
use nncc_train::loader::{Loader, Loading};
use nncc_train::metrics::Scores;
use nncc_train::recipe::Recipe;
use nncc_train::step::{Directions, Step};
use std::path::Path;

/// L-BFGS is done when its gradient is too small to change the loss, long before.
const STEPS: usize = 300;

/// Learns to combine the models of these files on samples that none of them has learnt from.
pub fn combiner(
    session: &Session,
    recipe: &Recipe,
    files: &[&Path],
    data: &dyn Dataset,
    samples: &[usize],
) -> Result<Combiner, Error> {
    let Targets::Classes { of, .. } = data.targets() else { return Err(usage("stacking is for classes")) };
    let (mut parts, mut classes) = (Vec::new(), 0);
    for file in files {
        let evaluation = session.evaluate_model(&ModelFile::open(file)?, recipe, data, samples.to_vec())?;
        if evaluation.width < 2 || (classes != 0 && evaluation.width != classes) {
            let why = format!("{}: {} outputs, not one for each class", file.display(), evaluation.width);
            return Err(usage(why));
        }
        classes = evaluation.width;
        let logits = !gives_probabilities(file)?;
        parts.push(Scores { values: &evaluation.outputs, classes, logits }.probabilities());
    }
    let row = |i: usize| parts.iter().flat_map(move |p| p[i * classes..][..classes].iter().map(|p| *p as f32));
    let features: Vec<f32> = (0..samples.len()).flat_map(row).collect();
    learn(features, samples.iter().map(|&i| of[i]).collect(), classes)
}

/// Softmax regression from rows of features.
fn learn(features: Vec<f32>, classes_of: Vec<u32>, classes: usize) -> Result<Combiner, Error> {
    let n = classes_of.len();
    let width = features.len() / n.max(1);
    let names = (0..classes).map(|c| c.to_string()).collect();
    let targets = Targets::Classes { of: classes_of, names };
    let data = InMemory::new("predictions", vec![width], Values::F32(features), targets).map_err(usage)?;

    let mut model = Author::new("combiner", 20);
    let x = model.input("probabilities", DType::F32, &[None, Some(width)]);
    let weight = model.initializer("weight", &Tensor::zeros(DType::F32, &[classes, width]));
    let bias = model.initializer("bias", &Tensor::zeros(DType::F32, &[classes]));
    let y = model.node("Gemm", "logits", &[&x, &weight, &bias], &[("transB", Attribute::Int(1))]);
    model.output(&y, DType::F32, &[None, Some(classes)]);
    let model = ModelFile::from_bytes(&model.to_bytes("combiner")?, "combiner", None)?;

    let optimizer = Optimizer::named("lbfgs").ok_or_else(|| Error::Internal("no L-BFGS".into()))?;
    let (rate, _) = optimizer.defaults();
    let mut options = TrainingOptions::new(Loss::CROSS_ENTROPY, optimizer);
    options.l2 = 0.5 / n.max(1) as f64;
    let sizes = BatchSizes { step: vec![n], evaluation: Vec::new() };
    let mut step = Compiler::new().target_cpu("native").training(&model, &options, &sizes, &mut |_| ())?;
    let loading = Loading { batch_size: n, ..Loading::default() };
    let loader = Loader::new(&data, (0..n).collect(), loading).map_err(usage)?;
    let batch = loader.epoch(0, 0, |batches| batches.next().transpose()).map_err(usage)?;
    let batch = batch.ok_or_else(|| usage("there are no samples to learn from how models are combined"))?;
    for _ in 0..STEPS {
        let directions = Directions { rate: rate as f32, seed: 1, share: 1.0, update: true, watch: false };
        let outcome = step.step(&batch, directions).map_err(|e| Error::Run(e.to_string()))?;
        if !outcome.loss.is_finite() {
            return Err(Error::Run("learning how models are combined ended in numbers that are none".into()));
        }
    }
    let state = step.state().map_err(|e| Error::Run(e.to_string()))?;
    let value = |name: &str, dims: &[usize]| {
        let bytes = state.iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes);
        let tensor = bytes.and_then(|bytes| Tensor::from_bytes(DType::F32, dims, bytes));
        tensor.ok_or_else(|| Error::Internal(format!("the combiner has no {name}")))
    };
    Ok(Combiner { weight: value("weight", &[classes, width])?, bias: value("bias", &[classes])? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At the minimum the gradient is 0: computed here in f64, from the definition.
    #[test]
    fn the_combiner_is_the_minimum() {
        let (n, width, classes) = (60, 6, 3);
        let noise = nncc_ir::random::tensor(DType::F32, &[n, width], 1).to_f64();
        let class = |i: usize| (i % classes) as u32;
        let hint = |i: usize, k: usize| f64::from(u8::from(k % classes == i % classes));
        let x: Vec<f32> = (0..n * width).map(|k| (0.5 * noise[k] + hint(k / width, k % width)) as f32).collect();
        let Combiner { weight, bias } = learn(x.clone(), (0..n).map(class).collect(), classes).unwrap();
        let (w, b) = (weight.to_f64(), bias.to_f64());
        let mut gradient: Vec<f64> = w.iter().map(|w| w / n as f64).collect();
        let mut of_bias = vec![0.0; classes];
        for i in 0..n {
            let row: Vec<f64> = x[i * width..][..width].iter().map(|x| f64::from(*x)).collect();
            let z = |c: usize| b[c] + row.iter().zip(&w[c * width..]).map(|(x, w)| x * w).sum::<f64>();
            let sum: f64 = (0..classes).map(|c| z(c).exp()).sum();
            for c in 0..classes {
                let d = (z(c).exp() / sum - f64::from(u8::from(class(i) as usize == c))) / n as f64;
                of_bias[c] += d;
                row.iter().zip(&mut gradient[c * width..]).for_each(|(x, g)| *g += d * x);
            }
        }
        let largest = gradient.iter().chain(&of_bias).fold(0.0f64, |m, g| m.max(g.abs()));
        assert!(largest < 1e-5, "{largest}");
        assert!(w.iter().any(|w| w.abs() > 0.5), "{w:?}");
    }
}
