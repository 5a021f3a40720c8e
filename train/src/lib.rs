//! What surrounds a compiled training step: everything that is not a tensor computation.
//!
//! | module | holds |
//! |---|---|
//! | [`data`] | data sets, splits, balancing |
//! | [`loader`], [`augment`] | batches, prepared while the step computes |
//! | [`step`] | the compiled step as the loop sees it |
//! | [`trainer`], [`history`] | the loop, and what a run has come through |
//! | [`recipe`], [`spec`] | all that determines a run, as a file and as flags |
//! | [`schedule`] | learning rates over time |
//! | [`watch`] | what norms and curves say, in a sentence |
//! | [`search`] | which recipes are worth trying |
//! | [`range_test`](mod@range_test) | which learning rates are worth trying |
//! | [`report`], [`page`] | a run as one HTML page, and what nncc's pages share |
//! | [`evaluate`], [`metrics`] | how good the network is |
//! | [`checkpoint`] | files that a killed run goes on from |
//! | [`picture`], [`arrays`] | pictures and NumPy arrays from files |
//! | [`seeds`] | what random numbers are drawn for |
//!
//! Invariants of absence: nothing here knows of the compiler, of a model file or of machine code. The step comes in
//! through a trait that the facade implements over a compiled library, so that this crate is tested with steps in plain Rust.

#![forbid(unsafe_code)]

pub mod arrays;
pub mod augment;
pub mod checkpoint;
pub mod data;
pub mod evaluate;
pub mod history;
pub mod loader;
pub mod metrics;
pub mod page;
pub mod picture;
pub mod range_test;
pub mod recipe;
pub mod report;
pub mod schedule;
pub mod search;
pub mod seeds;
pub mod spec;
pub mod step;
pub mod trainer;
pub mod watch;
