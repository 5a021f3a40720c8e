//! Kernel templates: generators of kernel IR, one file each.
//!
//! A template takes a [`Target`](crate::target::Target) and shapes and gives a [`Kernel`](crate::kir::Kernel) whose extents,
//! strides and tails are constants. It knows nothing of the graph: which template serves a node is decided in `lower/`.

pub mod copy;
pub mod map;
pub mod pointwise;
