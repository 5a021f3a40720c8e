//! Teaches LeNet-5 ten digits in compiled code: a network, data, callbacks.
//!
//! ```text
//! cargo run --release --example lenet -- lenet5.onnx                      # digits that the program draws itself
//! cargo run --release --example lenet -- lenet5.onnx --data train.npz     # 28x28 pictures from a file, a fifth held out
//! ```
//!
//! Each epoch prints a line; a callback ends the run when enough is learnt. What is written is an ONNX model.

#[path = "segments.rs"]
pub mod segments;

use nncc::Compiler;
use nncc::training::data::{self, Dataset, split};
use nncc::training::{
    BatchSizes, EpochRecord, Evaluation, Loader, Loading, Loss, ModelFile, Observer, Optimizer, Rates, Schedule,
    Settings, StepReport, Trainer, TrainingOptions,
};
use segments::Segments;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

/// The digits, with the segments of each: bit 0 is `a`, see `segments`.
pub const DIGITS: &[(&str, u8)] = &[
    ("0", 0x3f),
    ("1", 0x06),
    ("2", 0x5b),
    ("3", 0x4f),
    ("4", 0x66),
    ("5", 0x6d),
    ("6", 0x7d),
    ("7", 0x07),
    ("8", 0x7f),
    ("9", 0x6f),
];

/// A run ends when this share of an epoch's predictions was right.
const ENOUGH: f64 = 0.995;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        [out] => run(out.as_ref(), None),
        [out, "--data", data] => run(out.as_ref(), Some(data.as_ref())),
        _ => {
            eprintln!("usage: lenet OUT.onnx [--data PATH]");
            return std::process::ExitCode::from(2);
        }
    };
    match result {
        Ok(accuracy) => {
            println!("held out: {:.2} % right", 100.0 * accuracy);
            std::process::ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{e}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Learns, writes the model; gives the share of right predictions on what was held out.
pub fn run(out: &Path, path: Option<&Path>) -> Result<f64, Box<dyn Error>> {
    let data: Box<dyn Dataset> = match path {
        Some(path) => data::open(path, &data::Options { dims: Some(vec![1, 28, 28]), ..data::Options::default() })?,
        None => Box::new(Segments::new(DIGITS, 2500, 1)),
    };
    let classes = data.targets().classes().ok_or("the targets are numbers, not classes")?;

    // The network is an ONNX model like any other; this one is new.
    let options = nncc_zoo::Options { classes, input: [1, 28, 28], seed: 1, init: Vec::new() };
    let fresh = nncc_zoo::build("lenet5", &options)?.to_bytes("lenet5")?;
    let model = ModelFile::from_bytes(&fresh, "lenet5", None)?;

    // Loaders make batches of data, on threads of their own where told so.
    let split = split::stratified(data.targets(), data.len(), 0.2, 1);
    let mut loading = Loading { batch_size: 50, ..Loading::default() };
    loading.normalise.scale = vec![1.0 / data.white()];
    let held_out = Loader::new(&*data, split.held_out, loading.clone())?;
    let train = Loader::new(&*data, split.train, Loading { shuffle: true, seed: 1, ..loading })?;

    // Forward pass, loss, gradients and update become machine code for the sizes of batches that come.
    let learning = TrainingOptions::new(Loss::CROSS_ENTROPY, Optimizer::named("adamw").ok_or("no such optimizer")?);
    let sizes = BatchSizes::of(&train, Some(&held_out));
    let mut step = Compiler::new().target_cpu("native").training(&model, &learning, &sizes, &mut |_| ())?;

    let settings = Settings::new(10, Rates::new(0.002, Schedule::Constant), 1);
    let mut progress = Shown::default();
    let run = Trainer::new(&mut step, &train, Some(&held_out), settings)?.run(&mut progress)?;
    if run.interrupted {
        println!("enough is learnt");
    }
    step.write_model_of(&fresh, "lenet5", out)?;
    Ok(Evaluation::of(&mut step, &held_out)?.sums.accuracy().unwrap_or(0.0))
}

/// The callbacks of a run.
#[derive(Default)]
pub struct Shown {
    done: bool,
}

impl Observer for Shown {
    /// After each batch.
    fn step(&mut self, _: &StepReport) -> ControlFlow<()> {
        if self.done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// After each epoch.
    fn epoch(&mut self, e: &EpochRecord) {
        let share = |accuracy: Option<f64>| 100.0 * accuracy.unwrap_or(0.0);
        let (train, val) = (share(e.train_accuracy), share(e.val_accuracy));
        println!("epoch {}: loss {:.4}, {train:.2} % right; held out {val:.2} %", e.epoch + 1, e.train_loss);
        self.done = e.train_accuracy.is_some_and(|a| a >= ENOUGH);
    }
}
