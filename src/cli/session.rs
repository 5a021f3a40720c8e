//! Model and data, opened once: what `train` and `eval` run on.
//!
//! The compiled step comes from [`nncc::training`], the loop around it from `nncc-train`; here the two meet, and what does
//! not fit (data and loss, loss and augmentation) is said before anything is compiled.

use super::memory;
use super::progress::Progress;
use super::recipe;
use nncc::roofline::Roofline;
use nncc::training::{BatchSizes, CompiledStep, Group, Loss, ModelFile, TrainingOptions};
use nncc::{Compiler, Error};
use nncc_frontend::head::{Headed, replace_head};
use nncc_ir::NamePattern;
use nncc_train::data::balance::smote;
use nncc_train::data::split::{self, Split};
use nncc_train::data::{self, Dataset, Targets};
use nncc_train::evaluate::Evaluation;
use nncc_train::loader::Loader;
use nncc_train::recipe::Recipe;
use nncc_train::trainer::{Observer, Run, Settings, TrainError, Trainer};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long steps are timed for `--profile`.
const PROFILED: Duration = Duration::from_secs(1);

/// A model, its loss and data.
pub struct Session {
    pub path: PathBuf,
    model: ModelFile,
    /// The model with a new head, if it has got one.
    headed: Option<Headed>,
    /// Without class weights, which depend on the samples.
    pub loss: Loss,
    pub data: Box<dyn Dataset>,
    /// Held-out data from a place of their own.
    pub val: Option<Box<dyn Dataset>>,
}

/// A run that has not begun.
pub struct Prepared<'p> {
    pub step: CompiledStep,
    pub train: &'p Loader<'p>,
    pub val: Option<&'p Loader<'p>>,
    /// What the figures are taken of.
    pub measured: Option<&'p Loader<'p>>,
    pub settings: Settings,
}

/// A run that is done.
pub struct Trained {
    pub step: CompiledStep,
    pub run: Run,
    /// Of the best or last weights, on what is held out.
    pub evaluation: Option<Evaluation>,
}

impl Session {
    /// Opens what the recipe names.
    pub fn open(recipe: &Recipe) -> Result<Session, Error> {
        let path = required(&recipe.model, "MODEL.onnx")?.to_path_buf();
        let mut model = ModelFile::open(&path)?;
        let loss = recipe::loss(recipe)?;
        let place = required(&recipe.data, "--data PATH")?;
        let (mut data, mut headed) = (None, None);
        if recipe.replace_head == Some(true) {
            let opened = open_data(&model, false, &loss, recipe, place)?;
            let classes = opened.targets().classes().filter(|_| loss.takes_classes());
            let classes = classes.ok_or_else(|| usage("--replace-head is for classes, and the targets are numbers"))?;
            let new = replace_head(&path, classes, u64::from(recipe.seed.unwrap_or(1)))?;
            model = ModelFile::from_bytes(&new.bytes, &path.display().to_string(), None)?;
            (data, headed) = (Some(opened), Some(new));
        }
        let opened = |path: &Path| open_data(&model, true, &loss, recipe, path);
        let data = data.map_or_else(|| opened(place), Ok)?;
        let val = recipe.val.as_deref().map(opened).transpose()?;
        Ok(Session { path, model, headed, loss, data, val })
    }

    /// Writes the model with what a step has learned.
    pub fn write(&self, step: &CompiledStep, out: &Path) -> Result<(), Error> {
        match &self.headed {
            Some(new) => step.write_model_of(&new.bytes, &self.path.display().to_string(), out),
            None => step.write_model(&self.path, out),
        }
    }

    /// What is learnt from and what is held out, as the recipe divides it.
    pub fn split(&self, recipe: &Recipe) -> Result<Split, Error> {
        let all = |data: &dyn Dataset| (0..data.len()).collect::<Vec<usize>>();
        match (&self.val, recipe.val_share) {
            (Some(val), _) => Ok(Split { train: all(&*self.data), held_out: all(&**val) }),
            (None, Some(share)) if share > 0.0 && share < 1.0 => {
                let seed = u64::from(recipe.seed.unwrap_or(1));
                Ok(split::stratified(self.data.targets(), self.data.len(), share, seed))
            }
            (None, Some(share)) => Err(Error::Usage(format!("--val-share {share} is not between 0 and 1"))),
            (None, None) => Ok(Split { train: all(&*self.data), held_out: Vec::new() }),
        }
    }

    /// The data that held-out samples are numbers of.
    pub fn held_out(&self) -> &dyn Dataset {
        self.val.as_deref().unwrap_or(&*self.data)
    }

    /// The classes' names, none for numbers.
    pub fn names(&self) -> &[String] {
        match self.data.targets() {
            Targets::Classes { names, .. } => names,
            Targets::Values { .. } => &[],
        }
    }

    /// Compiles the step and runs the recipe on a split. Where nothing is held out and `measured` says so, the figures are
    /// those of the samples that were learnt from.
    pub fn train(
        &self,
        recipe: &Recipe,
        split: &Split,
        measured: bool,
        observer: &mut dyn StepObserver,
    ) -> Result<Trained, Error> {
        self.prepared(recipe, split, measured, |prepared| {
            let Prepared { mut step, train, val, measured, settings } = prepared;
            observer.compiled(&step, train.samples().len());
            let mut trainer = Trainer::new(&mut step, train, val, settings).map_err(failed)?;
            if trainer.resume(observer).map_err(failed)? {
                observer.note("going on from the checkpoint");
            }
            let run = trainer.run(observer).map_err(failed)?;
            let evaluation = measured.map(|loader| Evaluation::of(&mut step, loader)).transpose().map_err(failed)?;
            Ok(Trained { step, run, evaluation })
        })
    }

    /// Compiles the step and hands it to `run` with the data of a split.
    pub fn prepared<R>(
        &self,
        recipe: &Recipe,
        split: &Split,
        measured: bool,
        run: impl FnOnce(Prepared<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut loading = recipe.loading().map_err(usage)?;
        if let Some(augment) = &mut loading.augment {
            augment.measure(&*self.data, &split.train).map_err(usage)?;
        }
        let mixes = loading.augment.as_ref().is_some_and(|a| a.mix_up.is_some());
        let made = match recipe.smote {
            Some(_) if loading.augment.is_some() => {
                return Err(usage("--smote makes vectors between samples, which --augment does not change"));
            }
            Some(neighbours) => {
                let seed = u64::from(recipe.seed.unwrap_or(1));
                Some(smote(&*self.data, &split.train, neighbours as usize, seed).map_err(usage)?)
            }
            None => None,
        };
        let (data, samples) = match &made {
            Some(made) => (made as &dyn Dataset, (0..made.len()).collect()),
            None => (&*self.data, split.train.clone()),
        };
        let mut loss = self.loss.clone();
        recipe::weigh(&mut loss, recipe, data.targets().counts(&samples).as_deref())?;
        let train = Loader::new(data, samples, loading).map_err(usage)?;
        let measuring = recipe.measuring().map_err(usage)?;
        let val = Loader::new(self.held_out(), split.held_out.clone(), measuring.clone()).map_err(usage)?;
        let val = (!val.samples().is_empty()).then_some(&val);
        let learnt = Loader::new(&*self.data, split.train.clone(), measuring).map_err(usage)?;
        // What watches a run looks into an evaluation too.
        let measured = val.or((measured || recipe.watches().is_some()).then_some(&learnt));

        let (mut options, usual_rate) = recipe::options(recipe, loss)?;
        let settings = recipe.settings(usual_rate).map_err(usage)?;
        options.accumulate = settings.accumulate > 1;
        options.watch = settings.watch.is_some();
        if mixes {
            recipe::learn_from_mixed(&mut options)?;
        }
        if let Some(new) = &self.headed {
            let pattern = NamePattern::new(&new.parameters.join(","));
            options.groups.insert(0, Group { pattern, rate: 1.0, weight_decay: None, frozen: false });
        }
        let sizes = BatchSizes::of(&train, measured);
        let step = compiled(&self.model, recipe, &options, &sizes)?;
        run(Prepared { step, train: &train, val, measured, settings })
    }

    /// Where the time of a step of the recipe goes.
    pub fn profile(&self, recipe: &Recipe) -> Result<Roofline, Error> {
        self.prepared(recipe, &self.split(recipe)?, false, |prepared| {
            let first = prepared.train.epoch(0, 0, |batches| batches.next().transpose()).map_err(usage)?;
            let first = first.ok_or_else(|| usage("there is no batch to be profiled"))?;
            prepared.step.profile(&first, PROFILED)
        })
    }

    /// Measures the model as it is.
    pub fn evaluate(&self, recipe: &Recipe) -> Result<Evaluation, Error> {
        self.evaluate_model(&self.model, recipe, &*self.data, (0..self.data.len()).collect())
    }

    /// Measures another model of the same input and output.
    pub fn evaluate_model(
        &self,
        model: &ModelFile,
        recipe: &Recipe,
        data: &dyn Dataset,
        samples: Vec<usize>,
    ) -> Result<Evaluation, Error> {
        let (options, _) = recipe::options(recipe, self.loss.clone())?;
        let loader = Loader::new(data, samples, recipe.measuring().map_err(usage)?).map_err(usage)?;
        let sizes = BatchSizes { step: Vec::new(), evaluation: loader.batch_sizes() };
        let mut step = compiled(model, recipe, &options, &sizes)?;
        Evaluation::of(&mut step, &loader).map_err(failed)
    }
}

/// An observer that is also told what was compiled.
pub trait StepObserver: Observer {
    /// Before the first epoch.
    fn compiled(&mut self, step: &CompiledStep, samples: usize);
}

/// Opens data for a model: as large as its input and, unless that is to be fitted to them, with as many classes or numbers as
/// its output.
fn open_data(
    model: &ModelFile,
    to_fit_output: bool,
    loss: &Loss,
    recipe: &Recipe,
    path: &Path,
) -> Result<Box<dyn Dataset>, Error> {
    let description = model.describe();
    let extents = |ports: &[nncc_frontend::ValueDescription]| -> Option<Vec<usize>> {
        ports.first()?.shape.as_ref()?.get(1..)?.iter().map(nncc_ir::Dim::size).collect()
    };
    let output = extents(&description.outputs).filter(|_| to_fit_output);
    let usual = data::Options::default();
    let options = data::Options {
        dims: extents(&description.inputs),
        classes: output.as_ref().and_then(|d| d.first().copied()).filter(|_| loss.takes_classes()),
        target_dims: output.filter(|_| !loss.takes_classes()),
        regression: !loss.takes_classes(),
        target: recipe.target.clone(),
        crop: recipe.image_crop.unwrap_or(usual.crop),
        filter: recipe.image_resize.unwrap_or(usual.filter),
        order: recipe.image_order.unwrap_or(usual.order),
    };
    let data = data::open(path, &options).map_err(usage)?;
    let why = match (loss.takes_classes(), data.targets()) {
        (true, Targets::Values { .. }) => {
            "targets are numbers, and the loss takes classes: --loss mse, l1, huber, bce, .. take numbers"
        }
        (false, Targets::Classes { .. }) => {
            "targets are classes, and the loss takes numbers: --loss cross-entropy, hinge, focal take classes"
        }
        _ => return Ok(data),
    };
    Err(Error::Usage(format!("{}: the {why}", path.display())))
}

fn compiled(
    model: &ModelFile,
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
    let threads = recipe.threads.unwrap_or(1);
    memory::require(step.workspace_bytes(threads))?;
    step.with_threads(threads)
}

/// What the recipe must say, on the command line or in its file.
fn required<'a>(path: &'a Option<PathBuf>, what: &str) -> Result<&'a Path, Error> {
    path.as_deref().ok_or_else(|| Error::Usage(format!("{what} is missing, as an argument or in a recipe")))
}

/// What the caller said does not fit.
pub fn usage(e: impl std::fmt::Display) -> Error {
    Error::Usage(e.to_string())
}

/// A run that failed.
pub fn failed(e: TrainError) -> Error {
    Error::Run(e.to_string())
}
