//! `nncc train --ensemble KIND:N`: several models that are learnt to be put together, and the one model that they make.
//!
//! ```text
//! snapshot:N  one run in N parts, each with the whole schedule over its share of the epochs; a model at the end of each
//!             (Huang et al. 2017, who anneal by a cosine)
//! bag:N       N runs, each on as many samples drawn with replacement                    (Breiman 1996)
//! boost:N     N runs, each on samples drawn by weight; what a model gets wrong weighs more for the next:
//!             e = sum w [wrong] / sum w     a = ln((1 - e) / e) + ln(C - 1)     w = w exp(a [wrong])
//!             it ends early where e = 0 or e >= 1 - 1/C                                  (SAMME, Zhu et al. 2009)
//! stack:N     N bags of three quarters of the samples; what each is worth a combiner learns from the last quarter, which
//!             none of them has seen: `stack`                                             (Wolpert 1992)
//! ```
//!
//! Snapshots and bags give the mean of their probabilities (of their outputs where they are no logits), boosting a vote by
//! the weights `a`. Each model stands beside the result under its name with its number.

use super::print;
use super::session::{Prepared, Session, StepObserver, failed, usage};
use super::shown::Shown;
use super::stack;
use nncc::Error;
use nncc::training::{Loss, ModelFile};
use nncc_frontend::ensemble::{Together, write_ensemble};
use nncc_train::data::split::{self, Split};
use nncc_train::evaluate::Evaluation;
use nncc_train::recipe::Recipe;
use nncc_train::seeds;
use nncc_train::trainer::{Settings, Trainer};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Models beyond this many are a mistake.
const MOST: u32 = 256;
/// The share of samples that a combiner of stacked models learns from.
const COMBINED: f64 = 0.25;
/// The weight of a model without a fault would be infinite.
const FAULTLESS: f64 = 10.0;

/// How the models come to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Snapshot(u32),
    Bag(u32),
    Boost(u32),
    Stack(u32),
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let expected = || format!("snapshot:N, bag:N, boost:N or stack:N is expected, with N from 2 to {MOST}");
        let (kind, n) = text.split_once(':').ok_or_else(expected)?;
        let n = n.parse().ok().filter(|n| (2..=MOST).contains(n)).ok_or_else(expected)?;
        match kind {
            "snapshot" => Ok(Kind::Snapshot(n)),
            "bag" => Ok(Kind::Bag(n)),
            "boost" => Ok(Kind::Boost(n)),
            "stack" => Ok(Kind::Stack(n)),
            _ => Err(expected()),
        }
    }
}

/// Trains the models, writes them and the one that they make.
pub fn train(session: &Session, recipe: &Recipe, kind: Kind, output: &Path) -> Result<(), Error> {
    if recipe.checkpoint.is_some() {
        return Err(usage("--ensemble: a checkpoint is of one run"));
    }
    let split = session.split(recipe)?;
    let bundle = Bundle { session, recipe, split: &split, output };
    let (files, together) = match kind {
        Kind::Snapshot(n) => (bundle.snapshots(n)?, bundle.mean()),
        Kind::Bag(n) => (bundle.bags(n)?, bundle.mean()),
        Kind::Boost(n) => bundle.boosted(n)?,
        Kind::Stack(n) => bundle.stacked(n)?,
    };
    let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
    write_ensemble(&files, &together, output)?;
    recipe.write(&output.with_extension("toml")).map_err(usage)?;
    if split.held_out.is_empty() {
        return Ok(());
    }
    let whole = ModelFile::open(output)?;
    let evaluation = session.evaluate_model(&whole, recipe, session.held_out(), split.held_out)?;
    print(&evaluation.figures().table(session.names()))
}

/// What the models are learnt from, and the file of the one that they make, which theirs are named after.
#[derive(Clone, Copy)]
struct Bundle<'a> {
    session: &'a Session,
    recipe: &'a Recipe,
    split: &'a Split,
    output: &'a Path,
}

impl Bundle<'_> {
    fn file(&self, i: u32) -> PathBuf {
        self.output.with_extension(format!("{}.onnx", i + 1))
    }

    fn seed(&self) -> u64 {
        u64::from(self.recipe.seed.unwrap_or(1))
    }

    /// How models are put together that are worth the same.
    fn mean(&self) -> Together {
        match self.session.loss {
            Loss::CrossEntropy { .. } | Loss::Focal { .. } => Together::Probability,
            _ => Together::Mean,
        }
    }

    /// One run on samples drawn by weight, whose model is written; gives its figures on `held_out`.
    fn one(&self, i: u32, weights: &[f64], held_out: &[usize]) -> Result<Option<Evaluation>, Error> {
        let split = Split { train: self.drawn(i, weights), held_out: held_out.to_vec() };
        let trained = self.session.train(self.recipe, &split, false, &mut Shown::new())?;
        self.session.write(&trained.step, &self.file(i))?;
        Ok(trained.evaluation)
    }

    /// One run in parts, a model at the end of each.
    fn snapshots(&self, n: u32) -> Result<Vec<PathBuf>, Error> {
        self.session.prepared(self.recipe, self.split, false, |prepared| {
            let Prepared { mut step, train, val, settings, .. } = prepared;
            let mut shown = Shown::new();
            shown.compiled(&step, train.samples().len());
            let epochs = (settings.epochs / n).max(1);
            let mut files = Vec::new();
            for i in 0..n {
                let own = Settings { epochs, seed: settings.seed.wrapping_add(u64::from(i)), ..settings.clone() };
                Trainer::new(&mut step, train, val, own).map_err(failed)?.run(&mut shown).map_err(failed)?;
                self.session.write(&step, &self.file(i))?;
                files.push(self.file(i));
            }
            Ok(files)
        })
    }

    /// Runs on samples drawn with replacement.
    fn bags(&self, n: u32) -> Result<Vec<PathBuf>, Error> {
        let weights = vec![1.0; self.split.train.len()];
        (0..n).map(|i| self.one(i, &weights, &self.split.held_out).map(|_| self.file(i))).collect()
    }

    /// Bags of a part of the samples, and what a combiner learns from the rest.
    fn stacked(&self, n: u32) -> Result<(Vec<PathBuf>, Together), Error> {
        let Bundle { session, recipe, split, .. } = *self;
        if self.mean() == Together::Mean {
            return Err(usage("--ensemble stack is for classes"));
        }
        let parts = split::divided(session.data.targets(), &split.train, COMBINED, self.seed());
        let seen = Split { train: parts.train, held_out: split.held_out.clone() };
        let files = Bundle { split: &seen, ..*self }.bags(n)?;
        let models: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
        let combiner = stack::combiner(session, recipe, &models, &*session.data, &parts.held_out)?;
        Ok((files, Together::Stack(combiner)))
    }

    /// Runs on samples drawn by weight, and what each model's vote is worth.
    fn boosted(&self, n: u32) -> Result<(Vec<PathBuf>, Together), Error> {
        let classes = self.session.data.targets().classes().ok_or_else(|| usage("--ensemble boost is for classes"))?;
        if self.session.val.is_some() {
            // A run measures on what it has held out, and boosting measures each model on what it learns from.
            return Err(usage("--ensemble boost: hold out with --val-share, which leaves both in one place"));
        }
        let mut weights = vec![1.0 / self.split.train.len().max(1) as f64; self.split.train.len()];
        let (mut files, mut says) = (Vec::new(), Vec::new());
        for i in 0..n {
            let evaluation = self.one(i, &weights, &self.split.train)?;
            let wrong = evaluation.map(|e| e.wrong()).filter(|w| w.len() == weights.len());
            let wrong = wrong.ok_or_else(|| Error::Internal("a run without figures".into()))?;
            let pairs = || wrong.iter().zip(&weights);
            let error = pairs().filter(|(wrong, _)| **wrong).map(|(_, w)| w).sum::<f64>() / weights.iter().sum::<f64>();
            let useless = error >= 1.0 - 1.0 / classes as f64;
            if useless && !files.is_empty() {
                eprintln!(
                    "note: model {} is no better than chance on what was hard for those before: it is left out",
                    i + 1
                );
                break;
            }
            let say = ((1.0 - error) / error).ln() + (classes as f64 - 1.0).ln();
            let say = if say.is_finite() { say.clamp(0.0, FAULTLESS) } else { FAULTLESS };
            files.push(self.file(i));
            says.push(if useless { 1.0 } else { say });
            if error == 0.0 {
                break;
            }
            for (w, wrong) in weights.iter_mut().zip(&wrong) {
                *w *= if *wrong { say.exp() } else { 1.0 };
            }
        }
        Ok((files, Together::Vote(says)))
    }

    /// As many samples as there are to learn from, drawn with replacement by weight.
    fn drawn(&self, number: u32, weights: &[f64]) -> Vec<usize> {
        let samples = &self.split.train;
        let mut stream = seeds::stream(self.seed(), seeds::BAG, number, 0);
        let mut sums: Vec<f64> = Vec::with_capacity(weights.len());
        for w in weights {
            sums.push(sums.last().copied().unwrap_or(0.0) + w);
        }
        let all = sums.last().copied().unwrap_or(0.0);
        let mut draw = || {
            let at = stream.uniform() * all;
            samples[sums.partition_point(|&sum| sum <= at).min(samples.len() - 1)]
        };
        let mut drawn: Vec<usize> = (0..samples.len()).map(|_| draw()).collect();
        drawn.sort_unstable();
        drawn
    }
}
