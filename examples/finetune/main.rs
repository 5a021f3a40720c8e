//! Fine-tuning: a network that tells digits apart gets a new last layer and learns letters, first that layer alone, then all
//! layers, the old ones slowly.
//!
//! ```text
//! cargo run --release --example lenet -- lenet5.onnx
//! cargo run --release --example finetune -- lenet5.onnx letters.onnx
//! ```

#[path = "../lenet/segments.rs"]
mod segments;

use nncc::Compiler;
use nncc::training::head::{Headed, replace_head};
use nncc::training::{
    BatchSizes, CompiledStep, Evaluation, Group, Loader, Loading, Loss, ModelFile, NamePattern, Optimizer, Rates,
    Schedule, Settings, Trainer, TrainingOptions,
};
use segments::Segments;
use std::error::Error;
use std::path::Path;

/// Letters with their segments.
const LETTERS: &[(&str, u8)] =
    &[("A", 0x77), ("b", 0x7c), ("C", 0x39), ("d", 0x5e), ("E", 0x79), ("F", 0x71), ("H", 0x76), ("L", 0x38)];

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, out] = &args[..] else {
        eprintln!("usage: finetune MODEL.onnx OUT.onnx");
        return std::process::ExitCode::from(2);
    };
    match run(model.as_ref(), out.as_ref()) {
        Ok([head, all]) => {
            println!("held out: {:.2} % right by the new layer, {:.2} % by all", 100.0 * head, 100.0 * all);
            std::process::ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{e}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Learns and writes the model; gives the shares of right predictions after the new layer has learnt, and after all have.
pub fn run(model: &Path, out: &Path) -> Result<[f64; 2], Box<dyn Error>> {
    let letters = Segments::new(LETTERS, 800, 2);
    let loading = Loading { batch_size: 40, ..Loading::default() };
    let held_out = Loader::new(&letters, (640..800).collect(), loading.clone())?;
    let train = Loader::new(&letters, (0..640).collect(), Loading { shuffle: true, seed: 1, ..loading })?;

    let Headed { bytes, parameters } = replace_head(model, LETTERS.len(), 1)?;
    let head = NamePattern::new(&parameters.join(","));
    let others = || NamePattern::new("*");
    // The first group whose pattern fits a weight's name counts.
    let group = |pattern, rate, frozen| Group { pattern, rate, weight_decay: None, frozen };
    let alone = vec![group(head.clone(), 1.0, false), group(others(), 1.0, true)];
    let (step, by_head) = learn(&bytes, alone, 0.01, 8, &train, &held_out)?;
    step.write_model_of(&bytes, "head", out)?;

    let headed = std::fs::read(out)?;
    let together = vec![group(head, 1.0, false), group(others(), 0.1, false)];
    let (step, by_all) = learn(&headed, together, 0.005, 10, &train, &held_out)?;
    step.write_model_of(&headed, "all", out)?;
    Ok([by_head, by_all])
}

/// One run; gives the share of right predictions on what is held out.
fn learn(
    model: &[u8],
    groups: Vec<Group>,
    rate: f64,
    epochs: u32,
    train: &Loader<'_>,
    held_out: &Loader<'_>,
) -> Result<(CompiledStep, f64), Box<dyn Error>> {
    let model = ModelFile::from_bytes(model, "letters", None)?;
    let adamw = Optimizer::named("adamw").ok_or("no such optimizer")?;
    let options = TrainingOptions { groups, ..TrainingOptions::new(Loss::CROSS_ENTROPY, adamw) };
    let sizes = BatchSizes::of(train, Some(held_out));
    let mut step = Compiler::new().target_cpu("native").training(&model, &options, &sizes, &mut |_| ())?;
    let settings = Settings::new(epochs, Rates::new(rate, Schedule::Constant), 1);
    Trainer::new(&mut step, train, Some(held_out), settings)?.run(&mut ())?;
    let right = Evaluation::of(&mut step, held_out)?.sums.accuracy().unwrap_or(0.0);
    Ok((step, right))
}
