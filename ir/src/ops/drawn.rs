//! What operators share that draw numbers in a training step: whose numbers they are, and how they are counted.
//!
//! ```text
//! bits(e) = word(e) >> 8       word(e) = word e mod 4 of Philox(key = seed, counter)       counter = (e / 4, stream, step)
//! ```
//!
//! What is drawn for decision `e` is a function of seed, step, stream and `e` ([`crate::philox`]): the same bits at every
//! vector width and thread count, and the backward pass draws it again where it would have to keep it.

use crate::op::{EvalError, TypeError};
use crate::ops::operands::vector_of;
use crate::philox::{key, philox4x32};
use crate::{DType, Dim, Op, Tensor, TensorType, type_err};

impl Op {
    /// Whether it draws numbers once operand 1 is given, seed and step; without, it does what it does at inference.
    pub fn draws(&self) -> bool {
        matches!(self, Op::Dropout(_) | Op::RRelu(_))
    }
}

/// Checks the type of seed and step, and the stream.
pub(super) fn check(random: Option<&TensorType>, stream: usize) -> Result<(), TypeError> {
    if let Some(random) = random {
        if random.dtype != DType::I64 {
            return type_err!("seed and step are {}, not i64", random.dtype);
        }
        vector_of(random, &Dim::Known(2), "seed and step")?;
    }
    if stream > u32::MAX as usize {
        return type_err!("the stream {stream} is not below 2^32");
    }
    Ok(())
}

/// The numbers of one operator in one step.
pub(super) struct Draws {
    seed: u64,
    step: u64,
    stream: u32,
}

impl Draws {
    pub(super) fn new(random: &Tensor, stream: usize) -> Result<Draws, EvalError> {
        let [seed, step] = random.to_i64()[..] else { return Err(EvalError("seed and step are missing".into())) };
        Ok(Draws { seed: seed as u64, step: step as u64, stream: stream as u32 })
    }

    /// The 24 bits of decision `e`.
    pub(super) fn bits(&self, e: usize) -> u32 {
        let counter = [(e / 4) as u32, self.stream, self.step as u32, (self.step >> 32) as u32];
        philox4x32(key(self.seed), counter)[e % 4] >> 8
    }
}
