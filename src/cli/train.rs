//! `nncc train` and `nncc eval`: a model and data in, a trained model or the figures of one out.
//!
//! The recipe that was used stands beside the result, under its name with `.toml`.

use super::args::{Eval, Train};
use super::session::{Session, Trained, usage};
use super::{bundle, print, profile, search, shown::Shown};
use nncc::Error;
use nncc_train::evaluate::{Evaluation, Figures};
use nncc_train::history::{Best, EpochRecord};
use nncc_train::recipe::Recipe;
use nncc_train::report::{Report, pictures::Picture};
use nncc_train::search::{Trial, axes, ranked};
use nncc_train::trainer::Monitor;
use nncc_train::watch;
use serde::Serialize;
use std::path::Path;

/// `nncc train`.
pub fn run(args: &Train) -> Result<(), Error> {
    let recipe = match &args.recipe_file {
        Some(file) => args.recipe.over(&Recipe::read(file).map_err(usage)?).map_err(usage)?,
        None => args.recipe.clone(),
    };
    let session = Session::open(&recipe)?;
    let output = recipe.output.clone().unwrap_or_else(|| session.path.with_extension("trained.onnx"));
    if args.profile {
        return print(&profile::table(&session.profile(&recipe)?));
    }
    if let Some(range) = args.range_test {
        let (text, rates) = search::rates(&session, &recipe, range)?;
        if let Some(path) = &recipe.report {
            let title = session.path.display().to_string();
            write(path, &Report { title: &title, below: "range test", rates: &rates, ..Report::default() }.page())?;
        }
        return print(&text);
    }
    if let Some(kind) = args.ensemble {
        return bundle::train(&session, &recipe, kind, &output);
    }
    if let Some(k) = args.k_fold {
        return folds(args, &session, &recipe, k, &output);
    }
    let (text, trials, recipe, trained) = match &args.search {
        Some(text) => {
            let axes = axes(text).map_err(|e| usage(format!("--search {e}")))?;
            let found = search::search(&session, &recipe, &axes, args.search_by, &output)?;
            let (text, trials, best, trained) = found;
            // What is not of a single run stays as it was asked for.
            (text, trials, Recipe { report: recipe.report.clone(), output: recipe.output.clone(), ..best }, trained)
        }
        None => {
            let measured = recipe.report.is_some() || args.json.is_some();
            let trained = session.train(&recipe, &session.split(&recipe)?, measured, &mut Shown::new())?;
            (String::new(), Vec::new(), recipe, trained)
        }
    };
    if let Some(text) = watch::bias_and_variance(&trained.run.history) {
        eprintln!("note: {text}");
    }
    session.write(&trained.step, &output)?;
    recipe.write(&output.with_extension("toml")).map_err(usage)?;
    let held_out = !session.split(&recipe)?.held_out.is_empty();
    let figures = trained.evaluation.as_ref().map(Evaluation::figures);
    if let Some(path) = &recipe.report {
        write(path, &report(&session, &trained, held_out, &trials, least_is_best(&recipe))?)?;
    }
    if let Some(path) = &args.json {
        let (history, best, folds) = (&trained.run.history[..], trained.run.best, &[][..]);
        let classes = session.names();
        write(path, &json(&Summary { history, best, classes, trials: &trials, folds, figures: figures.as_ref() })?)?;
    }
    let gap = if text.is_empty() { "" } else { "\n" };
    match figures.filter(|_| held_out) {
        Some(figures) => print(&format!("{text}{gap}{}", figures.table(session.names()))),
        None => Ok(()),
    }
}

/// `--k-fold`.
fn folds(args: &Train, session: &Session, recipe: &Recipe, k: usize, output: &Path) -> Result<(), Error> {
    let (text, trials, folds) = search::folds(session, recipe, k, output)?;
    recipe.write(&output.with_extension("toml")).map_err(usage)?;
    if let Some(path) = &recipe.report {
        let (title, below) = (session.path.display().to_string(), format!("{k} folds"));
        write(
            path,
            &Report { title: &title, below: &below, trials: trials.iter().collect(), ..Report::default() }.page(),
        )?;
    }
    if let Some(path) = &args.json {
        let (classes, folds, trials) = (session.names(), &folds[..], &trials[..]);
        write(path, &json(&Summary { history: &[], best: None, classes, trials, folds, figures: None })?)?;
    }
    print(&text)
}

/// Whether the recipe watches something whose least value is best.
pub fn least_is_best(recipe: &Recipe) -> bool {
    recipe.monitor.unwrap_or_default() == Monitor::Loss
}

/// `nncc eval`.
pub fn eval(args: &Eval) -> Result<(), Error> {
    let recipe = &args.recipe;
    if measured(recipe) != *recipe {
        return Err(Error::Usage(
            "eval learns nothing: a flag of learning is given; --data, --loss and how data are read count".into(),
        ));
    }
    let session = Session::open(recipe)?;
    let figures = session.evaluate(recipe)?.figures();
    if args.json {
        let (classes, figures) = (session.names(), Some(&figures));
        let summary = Summary { history: &[], best: None, classes, trials: &[], folds: &[], figures };
        return print(&json(&summary)?);
    }
    print(&figures.table(session.names()))
}

/// What `--json` writes. Numbers that are not finite are `null`.
#[derive(Serialize)]
struct Summary<'a> {
    #[serde(skip_serializing_if = "<[EpochRecord]>::is_empty")]
    history: &'a [EpochRecord],
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<Best>,
    classes: &'a [String],
    /// Of a search or of folds.
    #[serde(skip_serializing_if = "<[Trial]>::is_empty")]
    trials: &'a [Trial],
    #[serde(skip_serializing_if = "<[Figures]>::is_empty")]
    folds: &'a [Figures],
    #[serde(flatten)]
    figures: Option<&'a Figures>,
}

fn json(summary: &Summary<'_>) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(summary).map_err(|e| Error::Internal(e.to_string()))?;
    Ok(text + "\n")
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|e| Error::io(path, e))
}

/// Samples that a report shows as pictures.
const WORST: usize = 24;

/// The page of `--report`.
fn report(
    session: &Session,
    trained: &Trained,
    held_out: bool,
    trials: &[Trial],
    least: bool,
) -> Result<String, Error> {
    let Trained { step, run, evaluation } = trained;
    let names = session.names();
    let data = if held_out { session.held_out() } else { &*session.data };
    let name = |class: u32| names.get(class as usize).cloned().unwrap_or_else(|| class.to_string());
    let mut worst = Vec::new();
    if let (&[channels, height, width], Some(evaluation)) = (data.dims(), evaluation) {
        let mut values = vec![0.0; channels * height * width];
        for w in evaluation.worst(WORST) {
            data.read(w.sample, &mut values).map_err(usage)?;
            let text = format!("{} taken for {} ({:.1} %)", name(w.label), name(w.prediction), 100.0 * w.probability);
            worst.push((Picture::planes([channels, height, width], &values, Some(data.white())), text));
        }
    }
    let filters = step.first_filters().map_or_else(Vec::new, |(dims, values)| {
        let size = dims.iter().product::<usize>().max(1);
        values.chunks_exact(size).map(|filter| Picture::planes(dims, filter, None)).collect()
    });
    let mut facts = vec![("parameters", step.parameter_count().to_string())];
    if let Some(evaluation) = evaluation {
        facts.push(("samples measured", evaluation.samples.len().to_string()));
        facts.push(("loss", format!("{:.4}", evaluation.sums.mean_loss())));
    }
    let history = &run.history[..];
    let below = format!("{} epochs, recipe in the .toml beside the model", history.len());
    let title = session.path.display().to_string();
    let metrics = evaluation.as_ref().and_then(Evaluation::metrics);
    let metrics = metrics.as_ref().map(|m| (m, names));
    let trials = ranked(trials, least);
    Ok(Report { title: &title, below: &below, facts, history, metrics, trials, rates: &[], filters, worst }.page())
}

/// What of a recipe an evaluation heeds.
fn measured(r: &Recipe) -> Recipe {
    let Recipe { model, data, target, mean, scale, dim, loss, batch_size, threads, .. } = r.clone();
    let (image_crop, image_resize, image_order) = (r.image_crop, r.image_resize, r.image_order);
    let read = Recipe { image_crop, image_resize, image_order, mean, scale, target, dim, ..Recipe::default() };
    Recipe { model, data, loss, batch_size, threads, ..read }
}
