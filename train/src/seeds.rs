//! What random numbers are drawn for. A draw is a function of the run's seed, its purpose, the epoch and the sample (or
//! class, or batch) that it is for: results do not depend on threads, nor on where a run was resumed.

use nncc_ir::philox::{Stream, philox4x32};

/// Dividing samples into parts; by class.
pub const SPLIT: u32 = 1;
/// The order of an epoch.
pub const SHUFFLE: u32 = 2;
/// Which samples over- and under-sampling take; by class.
pub const SAMPLING: u32 = 3;
/// A sample's augmentation.
pub const AUGMENT: u32 = 4;
/// Mixing the samples of a batch; by batch.
pub const MIX: u32 = 5;
/// What the step draws (dropout); by batch.
pub const STEP: u32 = 6;
/// Samples that SMOTE makes.
pub const SMOTE: u32 = 7;

/// Which recipes a search tries.
pub const SEARCH: u32 = 8;

/// Samples that are drawn with replacement.
pub const BAG: u32 = 9;

/// The stream for a purpose, an epoch and what it is for.
pub fn stream(seed: u64, purpose: u32, epoch: u32, item: u32) -> Stream {
    Stream::new(seed, [purpose, epoch, item])
}

/// The seed that a step gets: each of a run its own.
pub fn step(seed: u64, epoch: u32, batch: u32) -> u64 {
    let [low, high, ..] = philox4x32(nncc_ir::philox::key(seed), [0, STEP, epoch, batch]);
    u64::from(low) | u64::from(high) << 32
}
