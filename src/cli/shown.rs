//! A training run on standard error: a bar for the epoch on a terminal, and a line an epoch.

use super::session::StepObserver;
use indicatif::{ProgressBar, ProgressStyle};
use nncc::training::CompiledStep;
use nncc_train::history::EpochRecord;
use nncc_train::trainer::{Observer, StepReport};
use std::io::IsTerminal;
use std::ops::ControlFlow;

/// Shows a run as it goes on.
pub struct Shown {
    bar: Option<ProgressBar>,
}

impl Shown {
    pub fn new() -> Shown {
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

impl StepObserver for Shown {
    fn compiled(&mut self, step: &CompiledStep, samples: usize) {
        for note in step.notes() {
            self.note(note);
        }
        self.line(&format!("{} parameters, {samples} samples to learn from", step.parameter_count()));
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
