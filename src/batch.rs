//! The sizes of batches that a model is compiled for, whatever it was exported for.
//!
//! ```text
//! first dimension of the inputs    a symbol: it is bound like any other
//!                                  a number: the model is imported as it is, then [`set_batch`] changes it
//! asked for by                     `batch`, or an input's shape that differs from the declared one in a batch in front
//! ```

use crate::{Compiler, Error};
use nncc_frontend::{ImportOptions, Model};
use nncc_ir::{Dim, Graph};
use nncc_passes::{BatchError, set_batch};
use std::collections::BTreeSet;

/// What the first dimension of a model's inputs is.
pub(crate) enum BatchAxis {
    Symbol(String),
    Fixed,
}

impl BatchAxis {
    /// The batch of a model that takes one input; an error if it takes several, or none with a batch in front.
    pub(crate) fn of_one(model: &Model, fixed: &BTreeSet<&str>) -> Result<BatchAxis, Error> {
        let mut inputs = model.describe().inputs;
        inputs.retain(|i| !fixed.contains(&i.name[..]));
        match inputs.len() {
            1 => BatchAxis::of(model, fixed),
            n => Err(Error::Usage(format!("{}: the model has {n} inputs; a training run feeds one", model.file()))),
        }
    }

    /// The batch of a model; an error if its inputs have no batch in front, or not the same.
    pub(crate) fn of(model: &Model, fixed: &BTreeSet<&str>) -> Result<BatchAxis, Error> {
        let mut firsts: Vec<Dim> = Vec::new();
        for input in model.describe().inputs.iter().filter(|i| !fixed.contains(&i.name[..])) {
            match &input.shape {
                None => return Err(none(model, &input.name)),
                Some(shape) => {
                    let new = shape.first().filter(|d| !firsts.contains(d)).cloned();
                    firsts.extend(new);
                }
            }
        }
        match &firsts[..] {
            [] => Err(Error::Usage(format!("{}: no input has a batch", model.file()))),
            [d] => match (d.size(), &d.symbols()[..]) {
                (Some(_), _) => Ok(BatchAxis::Fixed),
                (None, [name]) if *d == Dim::symbol(name) => Ok(BatchAxis::Symbol(name.to_string())),
                _ => Err(Error::Usage(format!("{}: the first dimension of its input is no batch", model.file()))),
            },
            _ => {
                let all: Vec<String> = firsts.iter().map(Dim::to_string).collect();
                let (file, all) = (model.file(), all.join(", "));
                Err(Error::Usage(format!("{file}: the inputs have the first dimensions {all}, which are no one batch")))
            }
        }
    }

    /// Imports the model for batches of `size`.
    pub(crate) fn import(&self, model: &Model, mut options: ImportOptions, size: usize) -> Result<Graph, Error> {
        if let BatchAxis::Symbol(name) = self {
            options.dims.insert(name.clone(), size as i64);
        }
        let graph = model.import(&options)?.graph;
        match self {
            BatchAxis::Symbol(_) => Ok(graph),
            BatchAxis::Fixed => of_size(model, &graph, size),
        }
    }
}

fn none(model: &Model, input: &str) -> Error {
    Error::Usage(format!(
        "{}: the model does not say the shape of input \"{input}\", so that it has no batch",
        model.file()
    ))
}

/// An imported graph for batches of `size`.
pub(crate) fn of_size(model: &Model, graph: &Graph, size: usize) -> Result<Graph, Error> {
    set_batch(graph, size).map_err(|error| match error {
        BatchError::Bug { .. } => Error::Internal(error.to_string()),
        error => Error::Batch { file: model.file().to_string(), error },
    })
}

impl Compiler {
    /// What an import for `batch` takes: options, and the size that the imported graph must still get.
    ///
    /// A shape that a caller gives for an input asks for a batch as well, where the model declares another number in front:
    /// the import is then of the declared one.
    pub(crate) fn batched_import(
        &self,
        model: &Model,
        mut options: ImportOptions,
        batch: Option<usize>,
    ) -> Result<(ImportOptions, Option<usize>), Error> {
        let mut wanted = batch;
        if let Some(size) = batch
            && let BatchAxis::Symbol(name) = BatchAxis::of(model, &self.fixed_inputs())?
        {
            if options.dims.insert(name.clone(), size as i64).is_some_and(|n| n != size as i64) {
                return Err(Error::Usage(format!("--batch {size} and --dim {name} say two sizes of the batch")));
            }
            wanted = None;
        }
        for input in &model.describe().inputs {
            let Some(declared) = input.shape.as_ref().and_then(|s| s.first()?.size()) else { continue };
            let Some(given) = options.shapes.get_mut(&input.name).and_then(|shape| shape.first_mut()) else { continue };
            let Some(size) = given.size().filter(|&n| n != declared) else { continue };
            if let Some(other) = wanted.filter(|&other| other != size) {
                return Err(Error::Usage(format!(
                    "input \"{}\" has a batch of {size}, where {other} is the size of the batch",
                    input.name
                )));
            }
            *given = Dim::from(declared);
            wanted = Some(size);
        }
        Ok((options, wanted))
    }
}
