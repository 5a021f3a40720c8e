//! Kernel templates: generators of kernel IR, one file each.
//!
//! A template takes a [`Target`] and shapes and gives a [`Kernel`](crate::kir::Kernel) whose extents, strides and tails are
//! constants, or, where that costs nothing, numbers that it reads: then layers share its code. It knows nothing of the graph:
//! which template serves a node is decided in `lower/`.

pub mod attention;
pub mod bands;
pub mod conv;
pub mod copy;
pub mod drawn;
pub mod epilogue;
pub mod fold;
pub mod indexed;
pub mod map;
pub mod matmul;
pub mod one_hot;
pub mod pointwise;
pub mod pool;
pub mod pool_gradient;
pub mod resample;
pub mod rows;
pub mod scan;
pub mod scatter;
pub mod strided;
pub mod top_k;
pub mod trilu;
pub mod window;

use crate::target::{Level, Target};

/// Numbers as an operand of a kernel: 64 bits each.
pub(crate) fn words(numbers: impl IntoIterator<Item = i64>) -> Vec<u8> {
    numbers.into_iter().flat_map(i64::to_le_bytes).collect()
}

/// The instruction set in a kernel's name.
pub(crate) fn isa_name(target: &Target) -> &'static str {
    match target.level {
        Level::X86V1 => "sse2",
        Level::X86V3 => "avx2",
        Level::X86V4 => "avx512",
        Level::Aarch64 => "neon",
    }
}
