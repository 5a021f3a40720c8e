//! The loop: epochs of updates, evaluation, early stopping, checkpoints.
//!
//! ```text
//! for each epoch
//!     for each group of batches        rate from the schedule; gradients added up; one update
//!     evaluate on the held-out data    reduce on a plateau; keep the best weights; out of patience?
//!     checkpoint
//! restore the best weights
//! ```
//!
//! A run is a function of its settings, data and the step's first state: threads, and kills between which it goes on from
//! checkpoints, change no bit of the weights or the history (its times apart).

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::data::{DataError, check_classes};
use crate::evaluate::{Evaluation, add};
use crate::history::{Best, EpochRecord, Progress, Sums};
use crate::loader::{Batch, Loader};
use crate::schedule::{Plateau, Rates};
use crate::seeds;
use crate::step::{Directions, LayerActivity, Step, StepError};
use crate::watch::Watch;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

/// The measure that decides which epoch is best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Monitor {
    /// The loss, least is best.
    #[default]
    Loss,
    /// The share of right predictions.
    Accuracy,
}

/// What a run is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Passes over the data.
    pub epochs: u32,
    /// Learning rates.
    pub rates: Rates,
    /// Reducing them when the measure does not get better.
    pub plateau: Option<Plateau>,
    /// Looks at norms and activities after so many updates and at the end of each epoch, and says what they call for.
    pub watch: Option<u64>,
    /// Batches whose gradients make one update, at least 1.
    pub accumulate: usize,
    /// Which epoch is best: on the held-out data, or where there are none on those that are learnt from.
    pub monitor: Monitor,
    /// Stops after so many epochs without a better one, and restores the best weights.
    pub patience: Option<u32>,
    /// Where checkpoints are written: after each epoch.
    pub checkpoint: Option<PathBuf>,
    /// And within an epoch after so many updates.
    pub checkpoint_updates: Option<u64>,
    /// Of all randomness.
    pub seed: u64,
    /// What makes this run this run: a checkpoint of another is refused. The recipe's text will do.
    pub identity: String,
}

impl Settings {
    /// Settings of a plain run: neither held-out data's decisions nor checkpoints.
    pub fn new(epochs: u32, rates: Rates, seed: u64) -> Settings {
        Settings {
            epochs,
            rates,
            plateau: None,
            watch: None,
            accumulate: 1,
            monitor: Monitor::Loss,
            patience: None,
            checkpoint: None,
            checkpoint_updates: None,
            seed,
            identity: String::new(),
        }
    }
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The data are at fault.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A step failed.
    #[error("epoch {}, batch {batch}: {source}", epoch + 1)]
    Step {
        /// From 0.
        epoch: u32,
        /// From 0.
        batch: u64,
        /// Why.
        source: StepError,
    },
    /// The evaluation of a batch failed.
    #[error("evaluation, batch {batch}: {source}")]
    Eval {
        /// From 0.
        batch: u64,
        /// Why.
        source: StepError,
    },
    /// The loss is NaN or infinite.
    #[error(
        "epoch {}, batch {batch}: the loss is {loss} at learning rate {rate:.3e} (samples from {first} on): \
         a lower rate, a warm-up or gradient clipping helps, if the data are right{}",
        epoch + 1,
        origin.as_ref().map_or_else(String::new, |origin| format!("\n  {origin}"))
    )]
    NotFinite {
        /// From 0.
        epoch: u32,
        /// From 0.
        batch: u64,
        /// What it is.
        loss: f64,
        /// The learning rate.
        rate: f64,
        /// Where the batch's first sample comes from.
        first: String,
        /// Where the first number that is none came from, if the step can tell.
        origin: Option<String>,
    },
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint is of another run, or the step does not take its state.
    #[error("{path}: {reason}", path = path.display())]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The step refused its own state.
    #[error("the state of the step: {0}")]
    State(StepError),
    /// Settings that do not fit.
    #[error("{0}")]
    Settings(String),
}

/// An update, as it is reported.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// From 0.
    pub epoch: u32,
    /// The batch, from 0.
    pub batch: u64,
    /// Batches of an epoch.
    pub batches: u64,
    /// Samples of this batch.
    pub samples: u64,
    /// The loss of this batch.
    pub loss: f64,
    /// Over the epoch so far.
    pub mean: Sums,
    /// The learning rate.
    pub rate: f64,
}

/// Who watches a run: a progress bar, a report, a program's own code.
pub trait Observer {
    /// After each batch. `Break` stops the run after a checkpoint, as a user's Ctrl-C does.
    fn step(&mut self, _report: &StepReport) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After each epoch.
    fn epoch(&mut self, _record: &EpochRecord) {}

    /// Something that the user should know.
    fn note(&mut self, _text: &str) {}
}

/// Watches nothing.
impl Observer for () {}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The epochs.
    pub history: Vec<EpochRecord>,
    /// The best of them.
    pub best: Option<Best>,
    /// Whether early stopping ended it.
    pub stopped_early: bool,
    /// Whether the observer did.
    pub interrupted: bool,
}

/// A run over a step, data and settings.
pub struct Trainer<'a> {
    step: &'a mut dyn Step,
    train: &'a Loader<'a>,
    val: Option<&'a Loader<'a>>,
    settings: Settings,
    progress: Progress,
    best_state: Vec<(String, Vec<u8>)>,
    watch: Watch,
    /// Whether the observer has asked to stop; it may ask where gradients still wait for their update.
    asked_to_stop: bool,
}

/// Names of a checkpoint's sections.
const IDENTITY: &str = "identity";
const PROGRESS: &str = "progress";
const STATE: &str = "state/";
const BEST: &str = "best/";

impl<'a> Trainer<'a> {
    /// A run that has not begun. An error if the settings do not fit the step or the data.
    pub fn new(
        step: &'a mut dyn Step,
        train: &'a Loader<'a>,
        val: Option<&'a Loader<'a>>,
        settings: Settings,
    ) -> Result<Trainer<'a>, TrainError> {
        let fail = |reason: String| Err(TrainError::Settings(reason));
        settings.rates.schedule.check().map_err(TrainError::Settings)?;
        check_classes(train.data(), train.samples(), "the training data")?;
        if settings.accumulate == 0 {
            return fail("an update of 0 batches".into());
        }
        if settings.accumulate > 1 && !step.accumulates() {
            return fail("this step does not accumulate gradients".into());
        }
        if !(settings.rates.base.is_finite() && settings.rates.base >= 0.0) {
            return fail(format!("a learning rate of {}", settings.rates.base));
        }
        let (progress, watch) = (Progress::default(), Watch::default());
        Ok(Trainer { step, train, val, settings, progress, best_state: Vec::new(), watch, asked_to_stop: false })
    }

    /// Goes on from the checkpoint, if there is one: says whether. Where the newest is damaged the older one is taken, and
    /// the observer is told.
    pub fn resume(&mut self, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        let Some(path) = self.settings.checkpoint.clone() else { return Ok(false) };
        let Some(loaded) = Checkpoint::read(&path)? else { return Ok(false) };
        let resume = |reason: String| TrainError::Resume { path: path.clone(), reason };
        let checkpoint = loaded.checkpoint;
        if checkpoint.get(IDENTITY) != Some(self.settings.identity.as_bytes()) {
            let reason = "the checkpoint is of a run with another recipe; give it another name or remove it";
            return Err(resume(reason.into()));
        }
        let progress = checkpoint.get(PROGRESS).and_then(Progress::decode);
        let progress = progress.ok_or_else(|| resume("it does not say where its run is".into()))?;
        let under = |prefix: &str| -> Vec<(String, Vec<u8>)> {
            let own = checkpoint.sections.iter();
            own.filter_map(|(name, data)| Some((name.strip_prefix(prefix)?.to_string(), data.clone()))).collect()
        };
        self.step.set_state(&under(STATE)).map_err(|e| resume(e.to_string()))?;
        self.best_state = under(BEST);
        self.progress = progress;
        if let Some(why) = loaded.fallback {
            observer.note(&format!("{why}; going on from the older checkpoint"));
        }
        Ok(true)
    }

    /// Runs the epochs that are left.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Run, TrainError> {
        let mut interrupted = false;
        while !interrupted && !self.progress.stopped && self.progress.epoch < self.settings.epochs {
            let begin = Instant::now();
            interrupted = self.train_epoch(observer)?.is_break();
            if !interrupted {
                self.end_epoch(begin, observer)?;
            }
            self.checkpoint()?;
        }
        if !interrupted && self.settings.patience.is_some() && !self.best_state.is_empty() {
            self.step.set_state(&self.best_state).map_err(TrainError::State)?;
        }
        Ok(Run {
            history: self.progress.history.clone(),
            best: self.progress.best,
            stopped_early: self.progress.stopped,
            interrupted,
        })
    }

    /// Updates in an epoch.
    fn updates(&self) -> u64 {
        self.train.batches().div_ceil(self.settings.accumulate) as u64
    }

    /// The rate of the next update.
    fn rate(&self) -> f64 {
        let rate = self.settings.rates.at(self.progress.updates, self.updates(), u64::from(self.settings.epochs));
        let factor = self.progress.plateau.factor;
        if factor < 1.0 { rate * factor } else { rate }
    }

    /// The batches of the epoch that are left.
    fn train_epoch(&mut self, observer: &mut dyn Observer) -> Result<ControlFlow<()>, TrainError> {
        let (train, epoch) = (self.train, self.progress.epoch);
        let batches = train.batches() as u64;
        let first = self.progress.batch as usize;
        train.epoch(epoch, first, |iterator| {
            for batch in iterator {
                let batch = batch?;
                let number = self.progress.batch;
                let update = self.train_batch(&batch, observer)?;
                if update.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                let every = self.settings.checkpoint_updates.filter(|&every| every > 0);
                let at_update = self.progress.batch.is_multiple_of(self.settings.accumulate as u64);
                let due = every.is_some_and(|every| at_update && self.progress.updates.is_multiple_of(every));
                // The end of the epoch writes one anyway.
                if due && number + 1 < batches {
                    self.checkpoint()?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// One batch. Breaks, when asked to, only where no gradient waits for its update.
    fn train_batch(&mut self, batch: &Batch, observer: &mut dyn Observer) -> Result<ControlFlow<()>, TrainError> {
        let (epoch, number) = (self.progress.epoch, self.progress.batch);
        let (batches, accumulate) = (self.train.batches() as u64, self.settings.accumulate as u64);
        let rate = self.rate();
        // The samples of the batches that make this update: all are full but the epoch's last.
        let group = accumulate * self.train.how().batch_size as u64;
        let before = number / accumulate * group;
        let together = group.min(self.train.epoch_len() as u64 - before);
        let update = number % accumulate == accumulate - 1 || number + 1 == batches;
        let due = |every: u64| (self.progress.updates + 1).is_multiple_of(every.max(1));
        let look = update && self.settings.watch.is_some_and(due);
        let directions = Directions {
            rate: rate as f32,
            seed: seeds::step(self.settings.seed, epoch, number as u32),
            share: batch.len() as f32 / together as f32,
            update,
            watch: look || (self.settings.watch.is_some() && number + 1 == batches),
        };
        let outcome =
            self.step.step(batch, directions).map_err(|source| TrainError::Step { epoch, batch: number, source })?;
        if !outcome.loss.is_finite() {
            let first = batch.samples.first().map(|&i| self.train.data().place(i)).unwrap_or_default();
            let origin = self.step.first_not_finite(batch, directions);
            return Err(TrainError::NotFinite { epoch, batch: number, loss: outcome.loss, rate, first, origin });
        }
        add(&mut self.progress.sums, batch, &outcome);
        self.progress.batch += 1;
        self.progress.updates += u64::from(update);
        let report = StepReport {
            epoch,
            batch: number,
            batches,
            samples: batch.len() as u64,
            loss: outcome.loss,
            mean: self.progress.sums,
            rate,
        };
        if look {
            let norms = self.step.norms();
            self.tell(|watch| watch.norms(&norms), observer);
        }
        self.asked_to_stop |= observer.step(&report).is_break();
        let stop = update && std::mem::take(&mut self.asked_to_stop);
        Ok(if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn tell(&mut self, look: impl FnOnce(&mut Watch) -> Vec<String>, observer: &mut dyn Observer) {
        for text in look(&mut self.watch) {
            observer.note(&format!("epoch {}: {text}", self.progress.epoch + 1));
        }
    }

    /// What the layers give for one batch, of the held-out data where there are any.
    fn activity(&mut self) -> Result<Vec<LayerActivity>, TrainError> {
        let batch = self.val.unwrap_or(self.train).epoch(0, 0, |batches| batches.next()).transpose()?;
        let Some(batch) = batch else { return Ok(Vec::new()) };
        self.step.activity(&batch).map_err(|source| TrainError::Eval { batch: 0, source })
    }

    /// Evaluation and what follows from it.
    fn end_epoch(&mut self, begin: Instant, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let val = self.val.map(|loader| Evaluation::of(&mut *self.step, loader)).transpose()?.map(|e| e.sums);
        let epoch = self.progress.epoch;
        let sums = std::mem::take(&mut self.progress.sums);
        let last = self.progress.updates.saturating_sub(1);
        let plain = self.settings.rates.at(last, self.updates(), u64::from(self.settings.epochs));
        let (mut norms, mut activity) = (Vec::new(), Vec::new());
        if self.settings.watch.is_some() {
            (norms, activity) = (self.step.norms(), self.activity()?);
            self.tell(|watch| [watch.norms(&norms), watch.activity(&activity)].concat(), observer);
        }
        let record = EpochRecord {
            epoch,
            rate: plain * self.progress.plateau.factor,
            train_loss: sums.mean_loss(),
            train_accuracy: sums.accuracy(),
            val_loss: val.map(|v| v.mean_loss()),
            val_accuracy: val.and_then(|v| v.accuracy()),
            seconds: begin.elapsed().as_secs_f64(),
            norms,
            activity,
        };
        let decisive = val.unwrap_or(sums);
        let measure = match self.settings.monitor {
            Monitor::Loss => decisive.mean_loss(),
            Monitor::Accuracy => decisive
                .accuracy()
                .ok_or_else(|| TrainError::Settings("no accuracy to watch: the targets are no classes".into()))?,
        };
        let smaller = |value: f64| if self.settings.monitor == Monitor::Loss { value } else { -value };
        if let Some(plateau) = &self.settings.plateau {
            let before = self.progress.plateau.factor;
            plateau.update(&mut self.progress.plateau, smaller(measure), plain);
            if self.progress.plateau.factor < before {
                let rate = plain * self.progress.plateau.factor;
                observer.note(&format!("epoch {}: no progress, the learning rate goes down to {rate:.3e}", epoch + 1));
            }
        }
        if self.progress.best.is_none_or(|best| smaller(measure) < smaller(best.value)) {
            self.progress.best = Some(Best { epoch, value: measure });
            if self.settings.patience.is_some() {
                self.best_state = self.step.state().map_err(TrainError::State)?;
            }
        }
        let waited = self.progress.best.map_or(0, |best| epoch - best.epoch);
        if let Some(patience) = self.settings.patience.filter(|&p| waited >= p.max(1)) {
            self.progress.stopped = true;
            let best = epoch + 1 - waited;
            observer.note(&format!("epoch {}: none of the last {patience} is better than epoch {best}", epoch + 1));
        }
        observer.epoch(&record);
        self.progress.history.push(record);
        self.progress.epoch += 1;
        self.progress.batch = 0;
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), TrainError> {
        let Some(path) = &self.settings.checkpoint else { return Ok(()) };
        let mut sections = vec![
            (IDENTITY.to_string(), self.settings.identity.as_bytes().to_vec()),
            (PROGRESS.to_string(), self.progress.encode()),
        ];
        let state = self.step.state().map_err(TrainError::State)?;
        sections.extend(state.into_iter().map(|(name, data)| (format!("{STATE}{name}"), data)));
        let best = self.best_state.iter();
        sections.extend(best.map(|(name, data)| (format!("{BEST}{name}"), data.clone())));
        Ok(Checkpoint { sections }.write(path)?)
    }
}

#[cfg(test)]
mod tests;
