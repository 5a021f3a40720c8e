//! `nncc train` and `nncc eval`: a model and data in, a trained model or the figures of one out.
//!
//! The step is compiled here ([`nncc::training::CompiledStep`]), the loop around it is `nncc-train`'s. The recipe that was
//! used stands beside the result, under its name with `.toml`.

use super::args::{Eval, Train};
use super::{print, progress::Progress, recipe};
use indicatif::{ProgressBar, ProgressStyle};
use nncc::training::{BatchSizes, CompiledStep, Loss, Optimizer, TrainingOptions};
use nncc::{Compiler, Error};
use nncc_train::data::{self, Dataset, Targets, split};
use nncc_train::evaluate::Evaluation;
use nncc_train::history::EpochRecord;
use nncc_train::loader::Loader;
use nncc_train::recipe::Recipe;
use nncc_train::report::{Report, pictures::Picture};
use nncc_train::trainer::{Observer, StepReport, TrainError, Trainer};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// `nncc train`.
pub fn run(args: &Train) -> Result<(), Error> {
    let recipe = match &args.recipe_file {
        Some(file) => args.recipe.over(&Recipe::read(file).map_err(usage)?).map_err(usage)?,
        None => args.recipe.clone(),
    };
    let model = required(&recipe.model, "MODEL.onnx")?;
    let output = recipe.output.clone().unwrap_or_else(|| model.with_extension("trained.onnx"));
    let mut loss = recipe::loss(&recipe)?;
    let shape = Shape::of(model, &loss)?;
    let train_data = shape.open(&recipe, required(&recipe.data, "--data PATH")?)?;
    let val_data = recipe.val.as_ref().map(|path| shape.open(&recipe, path)).transpose()?;
    let all = |data: &dyn Dataset| (0..data.len()).collect::<Vec<usize>>();
    let (train_samples, val_samples) = match (&val_data, recipe.val_share) {
        (Some(data), _) => (all(&*train_data), all(&**data)),
        (None, Some(share)) if share > 0.0 && share < 1.0 => {
            let seed = u64::from(recipe.seed.unwrap_or(1));
            let split = split::stratified(train_data.targets(), train_data.len(), share, seed);
            (split.train, split.held_out)
        }
        (None, Some(share)) => return Err(Error::Usage(format!("--val-share {share} is not between 0 and 1"))),
        (None, None) => (all(&*train_data), Vec::new()),
    };
    recipe::weigh(&mut loss, &recipe, train_data.targets().counts(&train_samples).as_deref())?;
    let mut loading = recipe.loading().map_err(usage)?;
    if let Some(augment) = &mut loading.augment {
        augment.measure(&*train_data, &train_samples).map_err(usage)?;
    }
    let train = Loader::new(&*train_data, train_samples, loading).map_err(usage)?;
    let measuring = recipe.measuring().map_err(usage)?;
    let val_data = val_data.as_deref().unwrap_or(&*train_data);
    let val = Loader::new(val_data, val_samples, measuring.clone()).map_err(usage)?;
    let val = (!val.samples().is_empty()).then_some(&val);
    // Where nothing is held out, a report's figures are those of the data that were learnt from.
    let learnt = Loader::new(&*train_data, train.samples().to_vec(), measuring).map_err(usage)?;
    let measured = val.or(recipe.report.is_some().then_some(&learnt));

    let (options, usual_rate) = recipe::options(&recipe, loss)?;
    let sizes =
        BatchSizes { step: train.batch_sizes(), evaluation: measured.map_or_else(Vec::new, Loader::batch_sizes) };
    let mut step = compiled(model, &recipe, &options, &sizes)?;
    for note in step.notes() {
        eprintln!("note: {note}");
    }
    let settings = recipe.settings(usual_rate).map_err(usage)?;
    let mut shown = Shown::new(step.parameter_count(), train.samples().len());
    let mut trainer = Trainer::new(&mut step, &train, val, settings).map_err(failed)?;
    if trainer.resume(&mut shown).map_err(failed)? {
        shown.note("going on from the checkpoint");
    }
    let run = trainer.run(&mut shown).map_err(failed)?;
    drop(shown);
    step.write_model(model, &output)?;
    recipe.write(&output.with_extension("toml")).map_err(usage)?;
    if let (Some(path), Some(loader)) = (&recipe.report, measured) {
        let page = report(&recipe, &run.history, &mut step, loader)?;
        std::fs::write(path, page).map_err(|e| Error::io(path, e))?;
    }
    match val {
        Some(val) => print(&figures(&mut step, val)?),
        None => Ok(()),
    }
}

/// Samples that a report shows as pictures.
const WORST: usize = 24;

/// The page of `--report`.
fn report(
    recipe: &Recipe,
    history: &[EpochRecord],
    step: &mut CompiledStep,
    loader: &Loader<'_>,
) -> Result<String, Error> {
    let evaluation = Evaluation::of(step, loader).map_err(failed)?;
    let data = loader.data();
    let names = match data.targets() {
        Targets::Classes { names, .. } => &names[..],
        Targets::Values { .. } => &[],
    };
    let metrics = evaluation.metrics();
    let name = |class: u32| names.get(class as usize).cloned().unwrap_or_else(|| class.to_string());
    let mut worst = Vec::new();
    if let &[channels, height, width] = data.dims() {
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
    let facts = vec![
        ("parameters", step.parameter_count().to_string()),
        ("samples measured", evaluation.samples.len().to_string()),
        ("loss", format!("{:.4}", evaluation.sums.mean_loss())),
    ];
    let below = format!("{} epochs, recipe in the .toml beside the model", history.len());
    let title = recipe.model.as_deref().map(Path::display);
    let title = title.map_or_else(String::new, |t| t.to_string());
    let metrics = metrics.as_ref().map(|m| (m, names));
    Ok(Report { title: &title, below: &below, facts, history, metrics, filters, worst }.page())
}

/// `nncc eval`.
pub fn eval(args: &Eval) -> Result<(), Error> {
    let recipe = &args.recipe;
    if measured(recipe) != *recipe {
        return Err(Error::Usage(
            "eval learns nothing: a flag of learning is given; --data, --loss and how data are read count".into(),
        ));
    }
    let model = required(&recipe.model, "MODEL.onnx")?;
    let loss = recipe::loss(recipe)?;
    let shape = Shape::of(model, &loss)?;
    let data = shape.open(recipe, required(&recipe.data, "--data PATH")?)?;
    let loader = Loader::new(&*data, (0..data.len()).collect(), recipe.measuring().map_err(usage)?).map_err(usage)?;
    let sizes = BatchSizes { step: Vec::new(), evaluation: loader.batch_sizes() };
    let mut step = compiled(model, recipe, &TrainingOptions::new(loss, PLAIN_SGD), &sizes)?;
    print(&figures(&mut step, &loader)?)
}

/// What of a recipe an evaluation heeds.
fn measured(r: &Recipe) -> Recipe {
    let Recipe { model, data, target, mean, scale, dim, loss, batch_size, threads, .. } = r.clone();
    let (image_crop, image_resize, image_order) = (r.image_crop, r.image_resize, r.image_order);
    let read = Recipe { image_crop, image_resize, image_order, mean, scale, target, dim, ..Recipe::default() };
    Recipe { model, data, loss, batch_size, threads, ..read }
}

/// An evaluation needs no optimizer; a step is never compiled from it.
const PLAIN_SGD: Optimizer = Optimizer::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false };

/// What the recipe must say, on the command line or in its file.
fn required<'a>(path: &'a Option<PathBuf>, what: &str) -> Result<&'a Path, Error> {
    path.as_deref().ok_or_else(|| Error::Usage(format!("{what} is missing, as an argument or in a recipe")))
}

/// What the model says of its data.
struct Shape {
    sample: Option<Vec<usize>>,
    classes: Option<usize>,
    regression: bool,
}

impl Shape {
    fn of(model: &Path, loss: &Loss) -> Result<Shape, Error> {
        let description = Compiler::describe(model)?;
        let extents = |ports: &[nncc_frontend::ValueDescription]| -> Option<Vec<usize>> {
            ports.first()?.shape.as_ref()?.get(1..)?.iter().map(nncc_ir::Dim::size).collect()
        };
        let sample = extents(&description.inputs);
        let classes = extents(&description.outputs).and_then(|d| d.first().copied());
        Ok(Shape { sample, classes: classes.filter(|_| loss.takes_classes()), regression: !loss.takes_classes() })
    }

    fn open(&self, recipe: &Recipe, path: &Path) -> Result<Box<dyn Dataset>, Error> {
        let usual = data::Options::default();
        let options = data::Options {
            dims: self.sample.clone(),
            classes: self.classes,
            regression: self.regression,
            target: recipe.target.clone(),
            crop: recipe.image_crop.unwrap_or(usual.crop),
            filter: recipe.image_resize.unwrap_or(usual.filter),
            order: recipe.image_order.unwrap_or(usual.order),
        };
        data::open(path, &options).map_err(usage)
    }
}

fn compiled(
    model: &Path,
    recipe: &Recipe,
    options: &TrainingOptions,
    sizes: &BatchSizes,
) -> Result<CompiledStep, Error> {
    let progress = Progress::start();
    let mut compiler = Compiler::new().target_cpu("native");
    for text in recipe.dim.iter().flatten() {
        let (name, sizes) = super::args::parse_dim(text).map_err(|e| Error::Usage(format!("--dim {text}: {e}")))?;
        compiler = compiler.dim(&name, &sizes);
    }
    let step = compiler.training(model, options, sizes, &mut |stage| progress.stage(stage))?;
    step.with_threads(recipe.threads.unwrap_or(1))
}

fn usage(e: impl std::fmt::Display) -> Error {
    Error::Usage(e.to_string())
}

fn failed(e: TrainError) -> Error {
    Error::Run(e.to_string())
}

/// Loss and, for classes, all figures of a network on data.
fn figures(step: &mut CompiledStep, loader: &Loader<'_>) -> Result<String, Error> {
    let evaluation = Evaluation::of(step, loader).map_err(failed)?;
    let loss = format!("{:<18}{:>10.4}\n", "loss", evaluation.sums.mean_loss());
    let names = match loader.data().targets() {
        Targets::Classes { names, .. } => names.clone(),
        Targets::Values { .. } => Vec::new(),
    };
    Ok(loss + &evaluation.metrics().map_or_else(String::new, |m| m.table(&names)))
}

/// A run on standard error: a bar for the epoch on a terminal, and a line an epoch.
struct Shown {
    bar: Option<ProgressBar>,
}

impl Shown {
    fn new(parameters: usize, samples: usize) -> Shown {
        eprintln!("{parameters} parameters, {samples} samples to learn from");
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} ({eta} left)") {
                bar.set_style(style);
            }
            bar
        });
        Shown { bar }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }
}

impl Observer for Shown {
    fn step(&mut self, report: &StepReport) -> ControlFlow<()> {
        if let Some(bar) = &self.bar {
            if report.batch == 0 {
                bar.reset();
                bar.set_length(report.batches);
            }
            bar.set_position(report.batch + 1);
            bar.set_message(format!("loss {:.4}, rate {:.2e}", report.mean.mean_loss(), report.rate));
        }
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, r: &EpochRecord) {
        let percent = |x: Option<f64>| x.map_or_else(String::new, |x| format!(" {:.2} %", 100.0 * x));
        let val = r.val_loss.map_or_else(String::new, |l| format!("  held out {l:.4}{}", percent(r.val_accuracy)));
        let (epoch, train) = (r.epoch + 1, percent(r.train_accuracy));
        let line =
            format!("epoch {epoch:>3}  loss {:.4}{train}{val}  rate {:.2e}  {:.1} s", r.train_loss, r.rate, r.seconds);
        self.line(&line);
    }

    fn note(&mut self, text: &str) {
        self.line(&format!("note: {text}"));
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
