//! The loop over a step in plain Rust: it learns, goes on bit for bit wherever it was stopped, and says what is wrong.

use super::*;
use crate::data::testing::Folder;
use crate::data::{InMemory, Targets, Values};
use crate::loader::Loading;
use crate::schedule::Schedule;
use crate::step::testing::Regression;
use nncc_ir::philox::Stream;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Three overlapping clouds in the plane.
fn clouds(n: usize) -> InMemory {
    let mut stream = Stream::new(4, [0; 3]);
    let names = ["a", "b", "c"].map(String::from).to_vec();
    let of: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
    let centre = [[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]];
    let x = of.iter().flat_map(|&c| centre[c as usize]).map(|x| (x + stream.normal()) as f32).collect();
    InMemory::new("clouds", vec![2], Values::F32(x), Targets::Classes { of, names }).unwrap()
}

fn loader(data: &InMemory, samples: std::ops::Range<usize>, batch_size: usize) -> Loader<'_> {
    let how = Loading { batch_size, shuffle: true, seed: 5, threads: 2, ..Loading::default() };
    Loader::new(data, samples.collect(), how).unwrap()
}

fn settings(epochs: u32) -> Settings {
    Settings::new(epochs, Rates::new(0.05, Schedule::Cosine { total: None, least: 0.0 }), 5)
}

fn noisy() -> Regression {
    Regression { noise: 0.01, ..Regression::new(2, 3) }
}

/// A run's records without times.
fn timeless(history: &[EpochRecord]) -> Vec<EpochRecord> {
    history.iter().map(|r| EpochRecord { seconds: 0.0, ..r.clone() }).collect()
}

/// Remembers what it is told; breaks after a number of batches.
#[derive(Default)]
struct Notes {
    lines: Vec<String>,
    steps: usize,
    break_after: usize,
}

impl Observer for Notes {
    fn step(&mut self, _: &StepReport) -> ControlFlow<()> {
        self.steps += 1;
        if self.steps == self.break_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn note(&mut self, text: &str) {
        self.lines.push(text.into());
    }
}

#[test]
fn a_run_learns() {
    let data = clouds(150);
    let (train, val) = (loader(&data, 0..100, 16), loader(&data, 100..150, 16));
    let mut step = Regression::new(2, 3);
    let settings = |epochs| Settings { watch: Some(3), ..settings(epochs) };
    let run = Trainer::new(&mut step, &train, Some(&val), settings(8)).unwrap().run(&mut ()).unwrap();
    let (first, last) = (&run.history[0], &run.history[7]);
    assert!(last.train_loss < 0.7 * first.train_loss, "{run:?}");
    assert!(last.val_accuracy.unwrap() > 0.8 && last.val_loss.unwrap() < 0.6, "{last:?}");
    assert_eq!((step.evals, last.norms.len(), run.stopped_early), (8 * 4, 1, false));
    assert_eq!(last.rate, settings(8).rates.at(7 * 8 - 1, 7, 8));
}

/// Three batches of 4 an update are one batch of 12; the epoch's 50 samples end in a smaller batch of a smaller group.
#[test]
fn accumulated_batches_are_one_large_batch() {
    let data = clouds(50);
    let weights = |batch_size, accumulate| {
        let mut step = Regression::new(2, 3);
        let settings = Settings { accumulate, ..settings(3) };
        Trainer::new(&mut step, &loader(&data, 0..50, batch_size), None, settings).unwrap().run(&mut ()).unwrap();
        step.weights
    };
    let (small, large) = (weights(4, 3), weights(12, 1));
    assert!(small.iter().zip(&large).all(|(a, b)| (a - b).abs() < 1e-5), "{small:?} {large:?}");
    assert_ne!(large, weights(4, 1));
}

/// Stopped after every number of batches and resumed in a fresh step, the weights and the history are the same bits.
#[test]
fn a_resumed_run_is_the_same_run() {
    let data = clouds(60);
    let (train, val) = (loader(&data, 0..40, 9), loader(&data, 40..60, 9));
    let folder = Folder::new("resume");
    let base = Settings {
        plateau: Some(Plateau { patience: 0, threshold: 0.2, ..Plateau::default() }),
        patience: Some(100),
        accumulate: 2,
        ..settings(4)
    };
    let mut straight = noisy();
    let whole = Trainer::new(&mut straight, &train, Some(&val), base.clone()).unwrap().run(&mut ()).unwrap();
    for break_after in 1..8 {
        let path = folder.path().join(format!("{break_after}.ckpt"));
        let settings = Settings { checkpoint: Some(path), ..base.clone() };
        let mut runs = 0;
        let (step, run) = loop {
            let mut step = noisy();
            let mut trainer = Trainer::new(&mut step, &train, Some(&val), settings.clone()).unwrap();
            assert_eq!(trainer.resume(&mut ()).unwrap(), runs > 0);
            let run = trainer.run(&mut Notes { break_after, ..Notes::default() }).unwrap();
            runs += 1;
            if !run.interrupted {
                break (step, run);
            }
        };
        assert!(runs > 2, "{runs} runs");
        assert_eq!(timeless(&run.history), timeless(&whole.history), "after {break_after}");
        assert_eq!(step.state().unwrap(), straight.state().unwrap());
        assert_eq!(run.best, whole.best);
    }
}

/// Noise, and a rate far too high from the third epoch on: patience ends the run, and the weights are those of the best epoch.
#[test]
fn the_best_weights_come_back() {
    let data = clouds(60);
    let (train, val) = (loader(&data, 0..40, 8), loader(&data, 40..60, 20));
    let rates = Rates::new(0.02, Schedule::MultiStep { milestones: vec![2], gamma: 1e3 });
    let wild = Settings { patience: Some(3), rates, ..settings(50) };
    let (mut step, mut notes) = (Regression { noise: 3.0, ..Regression::new(2, 3) }, Notes::default());
    let run = Trainer::new(&mut step, &train, Some(&val), wild).unwrap().run(&mut notes).unwrap();
    let best = run.best.unwrap();
    assert!(run.stopped_early && best.epoch < 2 && run.history.len() as u32 == best.epoch + 4, "{run:?}");
    let expected = format!("epoch {}: none of the last 3 is better than epoch {}", best.epoch + 4, best.epoch + 1);
    assert_eq!(notes.lines, [expected]);
    let evaluation = Evaluation::of(&mut step, &val).unwrap();
    assert_eq!(evaluation.sums.mean_loss(), best.value);
    // Accuracy grows: the best is the largest.
    let by_accuracy = Settings { monitor: Monitor::Accuracy, patience: Some(2), ..settings(6) };
    let run = Trainer::new(&mut Regression::new(2, 3), &train, Some(&val), by_accuracy).unwrap().run(&mut ()).unwrap();
    let most = run.history.iter().filter_map(|r| r.val_accuracy).fold(0.0, f64::max);
    assert_eq!(run.best.unwrap().value, most);
}

#[test]
fn a_plateau_lowers_the_rate() {
    let data = clouds(30);
    let train = loader(&data, 0..30, 10);
    let plateau = Some(Plateau { factor: 0.5, patience: 1, threshold: 10.0, ..Plateau::default() });
    let settings = Settings { plateau, rates: Rates::new(0.1, Schedule::Constant), ..settings(6) };
    let mut notes = Notes::default();
    let run = Trainer::new(&mut Regression::new(2, 3), &train, None, settings).unwrap().run(&mut notes).unwrap();
    let rates: Vec<f64> = run.history.iter().map(|r| r.rate).collect();
    assert_eq!(rates, [0.1, 0.1, 0.1, 0.05, 0.05, 0.025]);
    assert_eq!(notes.lines[0], "epoch 3: no progress, the learning rate goes down to 5.000e-2");
}

/// A step whose loss breaks, and one that offers nothing.
struct Broken(u64);

impl Step for Broken {
    fn step(&mut self, batch: &Batch, _: Directions) -> Result<crate::step::Outcome, StepError> {
        self.0 += 1;
        if self.0 == 5 {
            return Err(StepError("a library's error".into()));
        }
        let loss = if self.0 == 3 { f64::NAN } else { 1.0 };
        Ok(crate::step::Outcome { loss, outputs: nncc_ir::Tensor::f32(&[batch.len(), 1], vec![0.0; batch.len()]) })
    }

    fn eval(&mut self, _: &Batch) -> Result<crate::step::Outcome, StepError> {
        Err(StepError("no evaluation".into()))
    }

    fn state(&self) -> Result<Vec<(String, Vec<u8>)>, StepError> {
        Ok(Vec::new())
    }

    fn set_state(&mut self, _: &[(String, Vec<u8>)]) -> Result<(), StepError> {
        Ok(())
    }
}

#[test]
fn failures_say_where_and_what_helps() {
    let data = clouds(40);
    let train = loader(&data, 0..40, 10);
    let first = train.epoch(0, 2, |batches| batches.next().unwrap().unwrap().samples[0]);
    let fail = |begin| {
        let mut step = Broken(begin);
        let e = Trainer::new(&mut step, &train, None, settings(9)).unwrap().run(&mut ()).unwrap_err();
        e.to_string()
    };
    let expected = format!(
        "epoch 1, batch 2: the loss is NaN at learning rate {:.3e} (samples from clouds, sample {first} on): \
         a lower rate, a warm-up or gradient clipping helps, if the data are right",
        settings(9).rates.at(2, 4, 9)
    );
    assert_eq!(fail(0), expected);
    assert_eq!(fail(3), "epoch 1, batch 1: a library's error");
    let val = loader(&data, 0..10, 10);
    let e = Trainer::new(&mut Broken(9), &train, Some(&val), settings(1)).unwrap().run(&mut ()).unwrap_err();
    assert_eq!(e.to_string(), "evaluation, batch 0: no evaluation");

    let refused = |s: Settings| Trainer::new(&mut Broken(9), &train, None, s).err().unwrap().to_string();
    assert_eq!(refused(Settings { accumulate: 2, ..settings(1) }), "this step does not accumulate gradients");
    assert_eq!(refused(Settings { accumulate: 0, ..settings(1) }), "an update of 0 batches");
    let nan = Settings { rates: Rates::new(f64::NAN, Schedule::Constant), ..settings(1) };
    assert_eq!(refused(nan), "a learning rate of NaN");
    let none = loader(&data, 0..0, 10);
    let e = Trainer::new(&mut Broken(9), &none, None, settings(1)).err().unwrap();
    assert_eq!(e.to_string(), "the training data: there is no sample");
}

#[test]
fn checkpoints_of_other_runs_are_refused() {
    let data = clouds(20);
    let train = loader(&data, 0..20, 10);
    let folder = Folder::new("identity");
    let path = folder.path().join("run.ckpt");
    let run = |features: usize, identity: &str| {
        let settings = Settings { checkpoint: Some(path.clone()), identity: identity.into(), ..settings(2) };
        let mut step = Regression::new(features, 3);
        let mut trainer = Trainer::new(&mut step, &train, None, settings).unwrap();
        let mut notes = Notes::default();
        trainer.resume(&mut notes).map_err(|e| folder.strip(e))?;
        trainer.run(&mut ()).map(|_| notes.lines).map_err(|e| e.to_string())
    };
    assert_eq!(run(2, "lr = 1"), Ok(vec![]));
    let refusal = "run.ckpt: the checkpoint is of a run with another recipe; give it another name or remove it";
    assert_eq!(run(2, "lr = 2"), Err(refusal.into()));
    assert_eq!(run(1, "lr = 1"), Err("run.ckpt: another network's state".into()));
    // Half of the newest: the older one is of the first epoch, and the run ends as it did.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let notes = run(2, "lr = 1").unwrap();
    assert!(notes.len() == 1 && notes[0].ends_with("going on from the older checkpoint"), "{notes:?}");
    assert_eq!(std::fs::read(&path).unwrap().len(), bytes.len());
}

/// A run that writes checkpoints as fast as it can is killed fifty times at random moments. After each kill there is a
/// whole checkpoint, no older than one update, of exactly the run that is never interrupted.
///
/// This program is the killed one too: started again with a variable that names the checkpoint.
#[test]
fn fifty_kills_lose_nothing() {
    const CHECKPOINT: &str = "NNCC_TEST_CHECKPOINT";
    const NAME: &str = "trainer::tests::fifty_kills_lose_nothing";
    let data = clouds(30);
    let train = loader(&data, 0..30, 7);
    // Never ends by itself; a constant rate does not depend on when it would.
    let endless = |checkpoint| Settings {
        rates: Rates::new(0.05, Schedule::Constant),
        checkpoint,
        checkpoint_updates: Some(1),
        ..settings(u32::MAX)
    };
    if let Some(path) = std::env::var_os(CHECKPOINT) {
        let mut step = noisy();
        let mut trainer = Trainer::new(&mut step, &train, None, endless(Some(path.into()))).unwrap();
        trainer.resume(&mut ()).unwrap();
        trainer.run(&mut ()).unwrap();
        unreachable!("the run does not end");
    }
    let folder = Folder::new("kills");
    let path = folder.path().join("run.ckpt");
    let mut moments = Stream::new(u64::from(std::process::id()), [0; 3]);
    // The run that is not interrupted, followed as far as the killed one has come.
    let mut reference = noisy();
    let mut followed = 0u64;
    let mut kills_that_found_work = 0;
    for kill in 0..50 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
            .env(CHECKPOINT, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(u64::from(moments.below(30_000))));
        child.kill().unwrap();
        assert!(child.wait().unwrap().code().is_none(), "the run ended before it was killed");
        let Some(loaded) = Checkpoint::read(&path).unwrap() else {
            assert_eq!(followed, 0, "kill {kill}: the checkpoint is gone");
            continue;
        };
        let progress = loaded.checkpoint.get(PROGRESS).and_then(Progress::decode).expect("a whole checkpoint");
        assert!(progress.updates >= followed, "kill {kill}: {} updates after {followed}", progress.updates);
        kills_that_found_work += usize::from(progress.updates > followed);
        follow(&mut reference, &train, &endless(None), &mut followed, progress.updates);
        let state: Vec<(String, Vec<u8>)> = reference.state().unwrap();
        for (name, bytes) in state {
            assert_eq!(loaded.checkpoint.get(&format!("{STATE}{name}")), Some(&bytes[..]), "kill {kill}: {name}");
        }
    }
    // On a machine so slow that a child rarely reaches its first update there would be nothing to lose.
    println!("{kills_that_found_work} of 50 kills found new work, {followed} updates");
    assert!(kills_that_found_work > 0, "no child came to an update");
}

/// Takes the reference on to a number of updates, without the loop's own code for stopping and resuming.
fn follow(step: &mut Regression, train: &Loader<'_>, settings: &Settings, done: &mut u64, updates: u64) {
    let batches = train.batches() as u64;
    while *done < updates {
        let (epoch, first) = ((*done / batches) as u32, (*done % batches) as usize);
        train.epoch(epoch, first, |iterator| {
            for batch in iterator.take((updates - *done) as usize) {
                let batch = batch.unwrap();
                let seed = seeds::step(settings.seed, epoch, (*done % batches) as u32);
                let rate = settings.rates.base as f32;
                step.step(&batch, Directions { rate, seed, share: 1.0, update: true, watch: false }).unwrap();
                *done += 1;
            }
        });
    }
}
