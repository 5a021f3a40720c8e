//! `nncc new`: an architecture with initialised weights as an ONNX model, to be trained.

use super::args::New;
use nncc::Error;
use nncc_zoo::{Options, build};
use std::path::PathBuf;

/// Writes the model.
pub fn run(args: &New) -> Result<(), Error> {
    let New { arch, classes, input, output, seed, init } = args;
    let options = Options { classes: *classes, input: *input, seed: *seed, init: init.clone() };
    let model = build(arch, &options).map_err(|e| Error::Usage(e.to_string()))?;
    let path = output.clone().unwrap_or_else(|| PathBuf::from(format!("{arch}.onnx")));
    model.write(&path)?;
    tracing::info!(path = %path.display(), "written");
    Ok(())
}
