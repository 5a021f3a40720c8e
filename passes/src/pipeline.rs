//! The optimizer on one screen: which passes run, in which order, and why that order.

use crate::pass::{Pass, PassCx, PassError};
use crate::*;
use nncc_ir::Graph;

/// All passes in order. A pass runs at its level and above; one that stands here twice finds new work the second time.
pub const PIPELINE: &[Pass] = &[
    dce::PASS,                   // what no output needs is not worth looking at
    canonicalize::PASS,          // one spelling for each idea, so that every later pattern is written once
    fold_constants::PASS,        // weights that are computed become weights, which the folds below need
    cse::PASS,                   // before patterns: two equal values have two users, one value looks shared
    split_batch_norm::PASS,      // early: its elementwise half is as good a neighbour as any
    recognise::PASS,             // before sinking and fusing, which would tear the patterns apart
    sink::PASS,                  // brings scale, shift and activation next to the product that they follow
    fold_pad::PASS,              // before batch norms: a padded convolution cannot take the one before it
    fold_batch_norm::PASS,       // before fuse: a BatchNorm left in between would hide the ReLU
    merge_pointwise_convs::PASS, // after batch norms, which stand between the two
    pool_before_conv::PASS,      // after batch norms too, and makes maps of one pixel for the next
    dense_pooled_convs::PASS,    // makes Gemms and Reshapes for the next two
    normalise_gemm::PASS,        // the one form of matrix product that code generation knows
    sink::PASS,                  // Reshapes of dense layers behind their activations
    fold_constants::PASS,        // constants that the passes above left as operators
    canonicalize::PASS,          // and what they left that does nothing
    cse::PASS,
    lift_pool_masks::PASS,  // before fuse, which would take the mask in
    fuse::PASS,             // after everything that looks for single operators
    choose_layouts::PASS,   // after fusion: it costs edges, and fusion removes edges
    separate_outputs::PASS, // last: canonicalize would take the copies away again
    dce::PASS,
];

/// Runs the optimizer. Memory is planned apart, by [`plan_memory()`]: a plan is no graph.
pub fn optimize(g: &mut Graph, cx: &mut PassCx) -> Result<(), PassError> {
    PIPELINE.iter().try_for_each(|pass| cx.run(g, pass))
}

/// The pass called `name`.
pub fn pass(name: &str) -> Option<&'static Pass> {
    PIPELINE.iter().find(|p| p.name == name)
}
