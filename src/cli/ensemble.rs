//! `nncc ensemble`: several models as one.

use super::args::{Ensemble, Together};
use nncc::Error;
use nncc_frontend::ensemble;
use std::path::Path;

/// Writes the model.
pub fn run(args: &Ensemble) -> Result<(), Error> {
    let together = match args.by {
        Together::Mean => ensemble::Together::Mean,
        Together::Probability => ensemble::Together::Probability,
        Together::Vote => ensemble::Together::Vote(vec![1.0; args.models.len()]),
    };
    let models: Vec<&Path> = args.models.iter().map(AsRef::as_ref).collect();
    ensemble::write_ensemble(&models, &together, &args.output)?;
    tracing::info!(path = %args.output.display(), "written");
    Ok(())
}
