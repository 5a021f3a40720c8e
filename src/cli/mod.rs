//! The `nncc` command: one file a subcommand.
//!
//! | file | holds |
//! |---|---|
//! | [`args`] | every flag |
//! | `compile`, `run`, `inspect`, `bench`, `verify`, `new`, `ensemble` | the subcommands |
//! | `train` | `train` and `eval` |
//! | `bundle`, `stack` | several models that are learnt to be put together; how stacked ones are combined |
//! | `search` | several runs of `train` on one set of data |
//! | `session`, `recipe`, `shown` | model and data opened, and a run on them; what a recipe says to the compiler; a run as it goes on |
//! | `inputs` | tensors from files |
//! | `profile`, `page` | time by fused node, as a table and as a page |
//! | `memory` | whether a step fits in what is free |
//! | `progress` | what a terminal shows while something large compiles |
//!
//! Exit codes: 0 done; 1 the model, an input or a file is at fault, or `verify` found a difference; 2 the command line is;
//! 101 a bug in nncc. Results go to standard output, everything else to standard error.

pub mod args;
mod bench;
mod bundle;
mod compile;
mod ensemble;
mod inputs;
mod inspect;
mod learning;
mod memory;
mod new;
mod page;
mod profile;
mod progress;
mod recipe;
mod run;
mod search;
mod session;
mod shown;
mod stack;
mod train;
mod verify;

use clap::{CommandFactory, Parser};
use nncc::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = args::Cli::parse();
    init_tracing(cli.verbose);
    let result = match &cli.command {
        None => compile::run(&cli.compile),
        Some(args::Command::Run(a)) => run::run(a),
        Some(args::Command::Inspect(a)) => inspect::run(a),
        Some(args::Command::Bench(a)) => bench::run(a),
        Some(args::Command::Verify(a)) => verify::run(a),
        Some(args::Command::New(a)) => new::run(a),
        Some(args::Command::Ensemble(a)) => ensemble::run(a),
        Some(args::Command::Train(a)) => train::run(a),
        Some(args::Command::Eval(a)) => train::eval(a),
        Some(args::Command::Help) => print(&args::Cli::command().render_help().to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{}", message(&e));
            ExitCode::from(if e.is_internal() { 101 } else { 1 })
        }
    }
}

/// Prints to standard output. That it is closed early (`| head`) is no error.
fn print(text: &str) -> Result<(), Error> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(()),
    }
}

/// `error: ...`, as rustc begins its messages; a message that begins with its own kind keeps it.
fn message(e: &Error) -> String {
    let text = e.to_string();
    if text.starts_with("error") || text.starts_with("internal error") { text } else { format!("error: {text}") }
}

/// `-v` shows what each layer reports as done, `-vv` its details; `NNCC_LOG` sets any filter.
fn init_tracing(verbose: u8) {
    let default = ["warn", "info", "debug"][usize::from(verbose.min(2))];
    let filter = std::env::var("NNCC_LOG").unwrap_or_else(|_| default.to_string());
    let filter =
        tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
}
