//! Several runs of `nncc train` on one set of data: k folds, a search over hyper-parameters, a test of learning rates.

use super::session::{Prepared, Session, StepObserver, Trained, failed, usage};
use nncc::Error;
use nncc::training::CompiledStep;
use nncc_train::data::split::{Split, k_fold};
use nncc_train::evaluate::Figures;
use nncc_train::history::EpochRecord;
use nncc_train::range_test::{RangePoint, range_test, steepest};
use nncc_train::recipe::Recipe;
use nncc_train::search::{Axis, Candidate, How, Log, Trial, candidates, ranked, rounds, table};
use nncc_train::trainer::Observer;
use std::path::Path;
use std::time::Instant;

/// Says nothing of the single run.
struct Quiet;

impl Observer for Quiet {}

impl StepObserver for Quiet {
    fn compiled(&mut self, _: &CompiledStep, _: usize) {}
}

/// Trains on k parts of k - 1 k-ths and measures each on the rest. Each fold's model stands beside `output`, under its name
/// with the fold's number. Gives the table, the trials and the figures of each.
pub fn folds(
    session: &Session,
    recipe: &Recipe,
    k: usize,
    output: &Path,
) -> Result<(String, Vec<Trial>, Vec<Figures>), Error> {
    if k < 2 || k > session.data.len() {
        return Err(usage(format!("--k-fold {k}: between 2 and the {} samples", session.data.len())));
    }
    if session.val.is_some() || recipe.val_share.is_some() {
        return Err(usage("--k-fold holds out a part after the other: --val and --val-share hold out others"));
    }
    let seed = u64::from(recipe.seed.unwrap_or(1));
    let (mut trials, mut figures) = (Vec::new(), Vec::new());
    for (i, split) in k_fold(session.data.targets(), session.data.len(), k, seed).into_iter().enumerate() {
        let suffix = format!("fold{}", i + 1);
        let checkpoint = recipe.checkpoint.as_ref().map(|path| path.with_added_extension(&suffix));
        let own = Recipe { checkpoint, ..recipe.clone() };
        let (trial, trained) = tried(session, &own, &split, &format!("fold {}", i + 1))?;
        let trained = trained?;
        session.write(&trained.step, &output.with_extension(format!("{suffix}.onnx")))?;
        figures.extend(trained.evaluation.map(|e| e.figures()));
        trials.push(trial);
    }
    let spread = |get: &dyn Fn(&Figures) -> Option<f64>| {
        let values: Vec<f64> = figures.iter().filter_map(get).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        (values.len() == k).then_some((mean, deviation))
    };
    let mut text = format!("{:<10}{:>10}{:>12}\n", "fold", "loss", "accuracy");
    let accuracy = |a: Option<f64>| a.map_or_else(|| "-".into(), |a| format!("{:.2} %", 100.0 * a));
    for (i, f) in figures.iter().enumerate() {
        text += &format!("{:<10}{:>10.4}{:>12}\n", i + 1, f.loss, accuracy(f.accuracy));
    }
    let (loss, hits) = (spread(&|f| Some(f.loss)), spread(&|f| f.accuracy));
    for (name, of) in [("mean", 0), ("deviation", 1)] {
        let pick = |x: (f64, f64)| [x.0, x.1][of];
        let loss = loss.map_or_else(|| "-".into(), |x| format!("{:.4}", pick(x)));
        text += &format!("{name:<10}{loss:>10}{:>12}\n", accuracy(hits.map(pick)));
    }
    Ok((text, trials, figures))
}

/// One run as a trial. A run that fails is one too: its learning rate was too high.
fn tried(
    session: &Session,
    recipe: &Recipe,
    split: &Split,
    name: &str,
) -> Result<(Trial, Result<Trained, Error>), Error> {
    let begin = Instant::now();
    let trained = match session.train(recipe, split, false, &mut Quiet) {
        Err(e) if !matches!(e, Error::Run(_)) => return Err(e),
        result => result,
    };
    let losses = |r: &EpochRecord| Some(r.val_loss.unwrap_or(r.train_loss)).filter(|x| x.is_finite());
    let (measure, losses) = match &trained {
        Ok(t) => (t.run.best.map(|b| b.value), t.run.history.iter().map(losses).collect()),
        Err(_) => (None, Vec::new()),
    };
    let (epochs, seconds) = (recipe.epochs.unwrap_or(10), begin.elapsed().as_secs_f64());
    let trial = Trial { name: name.to_string(), epochs, measure, losses, seconds };
    let result = match (&trained, trial.measure) {
        (Err(e), _) => e.to_string(),
        (_, measure) => measure.map_or_else(String::new, |m| format!("{m:.5}")),
    };
    eprintln!("{name}  epochs {epochs}  {result}  {seconds:.1} s");
    Ok((trial, trained))
}

/// Tries every candidate that the log has not, and gives the table, the trials and the best one's run and recipe.
pub fn search(
    session: &Session,
    recipe: &Recipe,
    axes: &[Axis],
    how: How,
    output: &Path,
) -> Result<(String, Vec<Trial>, Recipe, Trained), Error> {
    let split = session.split(recipe)?;
    if split.held_out.is_empty() {
        return Err(usage("--search compares on held-out data: --val or --val-share is needed"));
    }
    let search = format!("{}\n{axes:?} {how:?}", recipe.identity().map_err(usage)?);
    let mut log = Log::open(&output.with_extension("search.json"), &search).map_err(usage)?;
    // Checkpoints and pages are of one run.
    let base = Recipe { checkpoint: None, report: None, ..recipe.clone() };
    let mut left: Vec<Candidate> = candidates(&base, axes, how).map_err(|e| usage(format!("--search {e}")))?;
    let epochs = recipe.epochs.unwrap_or(10);
    let rounds = if how == How::Halving { rounds(left.len(), epochs) } else { vec![(epochs, left.len())] };
    let least = super::train::least_is_best(recipe);
    let mut best: Option<(String, Trained)> = None;
    for (round, &(epochs, count)) in rounds.iter().enumerate() {
        left.truncate(count);
        for candidate in &mut left {
            // An axis may be the epochs themselves, which halving then has its own number for.
            if how == How::Halving || candidate.recipe.epochs.is_none() {
                candidate.recipe.epochs = Some(epochs);
            }
            let epochs = candidate.recipe.epochs.unwrap_or(epochs);
            if log.find(&candidate.name, epochs).is_some() {
                continue;
            }
            let own = opened(session, recipe, &candidate.recipe)?;
            let (trial, trained) = tried(own.as_ref().unwrap_or(session), &candidate.recipe, &split, &candidate.name)?;
            log.add(trial).map_err(usage)?;
            let last = round + 1 == rounds.len();
            if let (Ok(trained), true) = (trained, last)
                && ranked(log.trials(), least).first().is_some_and(|t| t.name == candidate.name)
            {
                best = Some((candidate.name.clone(), trained));
            }
        }
        let order = ranked(log.trials(), least);
        let place = |c: &Candidate| {
            let own = order.iter().position(|t| t.name == c.name && Some(t.epochs) == c.recipe.epochs);
            own.unwrap_or(order.len())
        };
        left.sort_by_key(place);
    }
    let order = ranked(log.trials(), least);
    let text = table(&order, if least { "loss" } else { "accuracy" });
    let winner = left.into_iter().next().filter(|_| order.first().is_some_and(|t| t.measure.is_some()));
    let winner = winner.ok_or_else(|| Error::Run(format!("every run of the search failed\n{text}")))?;
    let trained = match best.filter(|(name, _)| *name == winner.name) {
        Some((_, trained)) => trained,
        // Its trial was done before this process began.
        None => session.train(&winner.recipe, &split, false, &mut Quiet)?,
    };
    Ok((text, log.trials().to_vec(), winner.recipe, trained))
}

/// A session of its own for a recipe that reads model or data otherwise.
fn opened(session: &Session, base: &Recipe, recipe: &Recipe) -> Result<Option<Session>, Error> {
    let read = |r: &Recipe| Recipe {
        model: r.model.clone(),
        loss: r.loss.clone(),
        image_crop: r.image_crop,
        image_resize: r.image_resize,
        image_order: r.image_order,
        ..Recipe::default()
    };
    if read(base) == read(recipe) {
        return Ok(None);
    }
    let own = Session::open(recipe)?;
    match own.data.len() == session.data.len() {
        true => Ok(Some(own)),
        false => Err(usage("a search tries recipes on the same data")),
    }
}

/// Loss against learning rate: the table, and the points.
pub fn rates(session: &Session, recipe: &Recipe, range: (f64, f64)) -> Result<(String, Vec<RangePoint>), Error> {
    const UPDATES: u32 = 100;
    const ROWS: usize = 20;
    let split = session.split(recipe)?;
    let points = session.prepared(recipe, &split, false, |prepared| {
        let Prepared { mut step, train, .. } = prepared;
        range_test(&mut step, train, range, UPDATES).map_err(failed)
    })?;
    let mut text = format!("{:>12}{:>12}{:>12}\n", "rate", "loss", "smooth");
    for p in points.iter().step_by(points.len().div_ceil(ROWS).max(1)) {
        text += &format!("{:>12.3e}{:>12.4}{:>12.4}\n", p.rate, p.loss, p.smooth);
    }
    text += &match steepest(&points) {
        Some(rate) => format!("the loss falls most steeply at rate {rate:.1e}\n"),
        None => "the loss does not fall at any of these rates\n".into(),
    };
    Ok((text, points))
}
