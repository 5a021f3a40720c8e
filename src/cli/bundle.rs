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
    let file = |i: u32| output.with_extension(format!("{}.onnx", i + 1));
    let together = match session.loss {
        Loss::CrossEntropy { .. } | Loss::Focal { .. } => Together::Probability,
        _ => Together::Mean,
    };
    let (files, together) = match kind {
        Kind::Snapshot(n) => (snapshots(session, recipe, &split, n, &file)?, together),
        Kind::Bag(n) => (bags(session, recipe, &split, n, &file)?, together),
        Kind::Stack(_) if together == Together::Mean => return Err(usage("--ensemble stack is for classes")),
        Kind::Stack(n) => {
            let seed = u64::from(recipe.seed.unwrap_or(1));
            let parts = split::divided(session.data.targets(), &split.train, COMBINED, seed);
            let seen = Split { train: parts.train, held_out: split.held_out.clone() };
            let files = bags(session, recipe, &seen, n, &file)?;
            let models: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
            let combiner = stack::combiner(session, recipe, &models, &*session.data, &parts.held_out)?;
            (files, Together::Stack(combiner))
        }
        Kind::Boost(n) => boosted(session, recipe, &split, n, &file)?,
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

fn one(session: &Session, recipe: &Recipe, split: &Split, out: &Path) -> Result<Option<Evaluation>, Error> {
    let mut shown = Shown::new();
    let trained = session.train(recipe, split, false, &mut shown)?;
    session.write(&trained.step, out)?;
    Ok(trained.evaluation)
}

/// Runs on samples drawn with replacement.
fn bags(
    session: &Session,
    recipe: &Recipe,
    split: &Split,
    n: u32,
    file: &dyn Fn(u32) -> PathBuf,
) -> Result<Vec<PathBuf>, Error> {
    let run = |i: u32| {
        let train = drawn(recipe, i, &vec![1.0; split.train.len()], &split.train);
        one(session, recipe, &Split { train, held_out: split.held_out.clone() }, &file(i)).map(|_| file(i))
    };
    (0..n).map(run).collect()
}

/// As many samples, drawn with replacement by weight.
fn drawn(recipe: &Recipe, number: u32, weights: &[f64], samples: &[usize]) -> Vec<usize> {
    let mut stream = seeds::stream(u64::from(recipe.seed.unwrap_or(1)), seeds::BAG, number, 0);
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

fn snapshots(
    session: &Session,
    recipe: &Recipe,
    split: &Split,
    n: u32,
    file: &dyn Fn(u32) -> PathBuf,
) -> Result<Vec<PathBuf>, Error> {
    session.prepared(recipe, split, false, |prepared| {
        let Prepared { mut step, train, val, settings, .. } = prepared;
        let mut shown = Shown::new();
        shown.compiled(&step, train.samples().len());
        let epochs = (settings.epochs / n).max(1);
        let mut files = Vec::new();
        for i in 0..n {
            let own = Settings { epochs, seed: settings.seed.wrapping_add(u64::from(i)), ..settings.clone() };
            Trainer::new(&mut step, train, val, own).map_err(failed)?.run(&mut shown).map_err(failed)?;
            session.write(&step, &file(i))?;
            files.push(file(i));
        }
        Ok(files)
    })
}

fn boosted(
    session: &Session,
    recipe: &Recipe,
    split: &Split,
    n: u32,
    file: &dyn Fn(u32) -> PathBuf,
) -> Result<(Vec<PathBuf>, Together), Error> {
    let classes = session.data.targets().classes().ok_or_else(|| usage("--ensemble boost is for classes"))?;
    if session.val.is_some() {
        // A run measures on what it has held out, and boosting measures each model on what it learns from.
        return Err(usage("--ensemble boost: hold out with --val-share, which leaves both in one place"));
    }
    let mut weights = vec![1.0 / split.train.len().max(1) as f64; split.train.len()];
    let (mut files, mut says) = (Vec::new(), Vec::new());
    for i in 0..n {
        let train = drawn(recipe, i, &weights, &split.train);
        let evaluation = one(session, recipe, &Split { train, held_out: split.train.clone() }, &file(i))?;
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
        files.push(file(i));
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
