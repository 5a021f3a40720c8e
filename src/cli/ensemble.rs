//! `nncc ensemble`: several models as one.

use super::args::{Ensemble, Together};
use super::session::{Session, usage};
use super::stack;
use nncc::Error;
use nncc_frontend::ensemble;
use nncc_train::recipe::Recipe;
use std::path::Path;

/// Writes the model.
pub fn run(args: &Ensemble) -> Result<(), Error> {
    let models: Vec<&Path> = args.models.iter().map(AsRef::as_ref).collect();
    if args.by != Together::Stack && (args.data.is_some() || args.recipe.is_some()) {
        return Err(usage("only --by stack learns from data"));
    }
    let together = match args.by {
        Together::Stack => ensemble::Together::Stack(stacked(args, &models)?),
        Together::Mean => ensemble::Together::Mean,
        Together::Probability => ensemble::Together::Probability,
        Together::Vote => ensemble::Together::Vote(vec![1.0; args.models.len()]),
    };
    ensemble::write_ensemble(&models, &together, &args.output)?;
    tracing::info!(path = %args.output.display(), "written");
    Ok(())
}

/// How models are combined, learnt from data that none of them has learnt from; the recipe says how such data are read.
fn stacked(args: &Ensemble, models: &[&Path]) -> Result<ensemble::Combiner, Error> {
    let read = args.recipe.as_deref().map(Recipe::read).transpose().map_err(usage)?.unwrap_or_default();
    let Some(data) = args.data.clone() else {
        return Err(usage("--by stack needs --data PATH: samples that none of the models has learnt from"));
    };
    let recipe =
        Recipe { model: args.models.first().cloned(), data: Some(data), val: None, replace_head: None, ..read };
    let session = Session::open(&recipe)?;
    let samples: Vec<usize> = (0..session.data.len()).collect();
    stack::combiner(&session, &recipe, models, &*session.data, &samples)
}
