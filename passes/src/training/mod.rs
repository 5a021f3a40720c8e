//! Training: a forward graph becomes a training step, in which loss, gradients and optimizer are part of one graph.
//!
//! | file | holds |
//! |---|---|
//! | [`losses`] | prediction and target to one number |
//! | [`optimizers`] | parameter, gradient and memory to their next values |
//! | `parameters` | which constants of a model are learned, which are statistics |
//! | [`options`] | what the step shall do |
//! | [`step`] | the whole step, and the graphs that evaluate and infer beside it |
//! | `emit` | adding nodes in a line each |
//!
//! Everything here builds ordinary graphs for the ordinary optimizer and code generation: a training step is a model with
//! more inputs and outputs.

mod emit;
pub mod losses;
pub mod optimizers;
pub mod options;
mod parameters;
pub mod step;

pub use losses::Loss;
pub use optimizers::{Optimizer, Parameter};
pub use options::{Clip, Group, TrainingOptions};
pub use step::{EvaluationGraph, Gather, State, StateKind, TrainingGraph, evaluation_graph, evaluation_of_states};
pub use step::{inference, training_step};

use nncc_ir::AutodiffError;

/// Why a model cannot be trained so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrainingError {
    /// The loss does not fit what the model gives.
    #[error("the loss does not fit: {0}")]
    Loss(String),
    /// A number that no optimizer takes.
    #[error("{0}")]
    Option(String),
    /// Nothing to learn.
    #[error("the model has nothing to learn: {0}")]
    NoParameters(&'static str),
    /// A batch normalization without a batch.
    #[error("node \"{0}\" normalises over one number a channel, which has no variance: use a larger batch")]
    OneElement(String),
    /// Symbols are left in a shape.
    #[error("the shape {0} is not known; fix its symbols (--dim NAME=NUMBER)")]
    UnknownShape(String),
    /// Operators between parameters and loss have no gradient.
    #[error(transparent)]
    Autodiff(#[from] AutodiffError),
    /// Nodes that do not fit each other.
    #[error("bug in nncc: {0}")]
    Bug(String),
}
