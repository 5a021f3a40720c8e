//! nncc's graph passes: each takes a graph and leaves an equivalent one that is cheaper to run.
//!
//! [`pipeline`] is the optimizer on one screen. Every pass stands in one file that says what it rewrites, when that is
//! legal and what it gains; most are lists of rules over the small rewriting engine in [`rewrite`]. [`pass`] runs them:
//! timing, verification, fuel, refusals. [`plan_memory()`] ends the pipeline. [`training`]
//! stands before it: it turns a network into the graph of a training step, which the pipeline then optimizes.
//!
//! Invariants of absence: nothing here knows of a model file format, a kernel or machine code.

#![forbid(unsafe_code)]

pub mod canonicalize;
pub mod choose_layouts;
pub mod cse;
pub mod dce;
pub mod dense_pooled_convs;
pub mod fold_batch_norm;
pub mod fold_constants;
pub mod fold_pad;
pub mod fuse;
pub mod lift_pool_masks;
pub mod merge_pointwise_convs;
pub mod normalise_gemm;
pub mod pass;
pub mod pipeline;
pub mod plan_memory;
pub mod pool_before_conv;
pub mod recognise;
pub mod recompute;
pub mod rewrite;
pub mod separate_outputs;
pub mod set_batch;
pub mod sink;
pub mod split_batch_norm;
pub mod training;
mod weights;

pub use pass::{Observer, OptLevel, Options, Part, Pass, PassCx, PassError, PassReport};
pub use pipeline::{PIPELINE, optimize};
pub use plan_memory::{MemoryPlan, Place, plan_memory};
pub use recompute::Recompute;
pub use rewrite::Refusal;
pub use set_batch::{BatchError, batch_of, set_batch};
