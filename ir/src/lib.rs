//! nncc's graph IR: what a network computes, independent of the file it came from and of the machine it will run on.
//!
//! | module | holds |
//! |---|---|
//! | [`types`], [`dim`], [`dtype`] | types of values: element type, shape with symbolic dimensions, layout |
//! | [`graph`] | the graph: operators as nodes, values as their outputs |
//! | [`op`], [`ops`] | what an operator is; every operator with its shape rule and reference evaluation |
//! | [`pointwise`], [`broadcast`] | elementwise programs and how they are evaluated |
//! | [`batch`] | how operators hand on the samples of a batch, for batches of another size |
//! | [`gradient`], [`derivative`] | how gradients are built: the context of [`Operator::gradient`], derivatives of programs |
//! | [`mod@autodiff`] | reverse-mode differentiation of a graph |
//! | [`movement`] | what operators share that only move elements |
//! | [`tensor`], [`constant`] | data: owned tensors for evaluation, handles to weights |
//! | [`attr`], [`print`](mod@print), [`parse`] | the text form |
//! | [`verify`](mod@verify), [`eval`] | the invariants of a graph; its reference evaluation |
//! | [`philox`] | random numbers as functions of key and counter, for networks and their training |
//! | [`random`], [`arbitrary`] | random tensors and graphs for tests |
//!
//! Invariants of absence: nothing here knows of a model file format, of a pass, of a kernel or of machine code.

#![forbid(unsafe_code)]

pub mod arbitrary;
pub mod attr;
pub mod autodiff;
pub mod batch;
pub mod broadcast;
pub mod constant;
pub mod derivative;
pub mod dim;
pub mod dtype;
pub mod eval;
pub mod gradient;
pub mod graph;
pub mod init;
pub mod movement;
pub mod name_pattern;
pub mod op;
pub mod ops;
pub mod parse;
mod parse_graph;
pub mod philox;
pub mod pointwise;
pub mod print;
pub mod random;
pub mod special;
pub mod tensor;
pub mod types;
pub mod verify;

pub use autodiff::{AutodiffError, backpropagate, differentiate};
pub use constant::{Constant, Storage};
pub use dim::Dim;
pub use dtype::DType;
pub use gradient::{GradientCx, GradientError};
pub use graph::{Graph, Node, NodeId, Operands, Origin, Value, ValueId};
pub use name_pattern::NamePattern;
pub use op::{EvalError, Op, Operator, SymTensor, TypeError};
pub use pointwise::Pointwise;
pub use tensor::{Data, Tensor};
pub use types::{BLOCK, HALF_BLOCK, Layout, Shape, TensorType, channel_blocks, padded_channels};
