//! nncc: an ahead-of-time neural network compiler. ONNX in, one self-contained native library out, or machine code in
//! memory.
//!
//! ```no_run
//! # fn main() -> Result<(), nncc::Error> {
//! let compiled = nncc::Compiler::new().dim("N", &[1]).load("model.onnx")?;
//! compiled.write("model.so", nncc::OutputKind::Shared)?; // for any program with dlopen
//! let model = compiled.jit()?; // or here and now
//! let outputs = model.run(&[nncc::Tensor::zeros(nncc::DType::F32, &[1, 3, 224, 224])])?;
//! # Ok(())
//! # }
//! ```
//!
//! This crate is a facade: the stages are the crates [`nncc_frontend`] (ONNX), [`nncc_ir`] (the graph), [`nncc_passes`],
//! [`nncc_codegen`] and [`nncc_runtime`], and what surrounds training, [`nncc_train`]. A program that only runs compiled libraries depends on `nncc-runtime` alone.
//!
//! | module | holds |
//! |---|---|
//! | `batch` | batches of a size that the model was not made for |
//! | `compiler` | options, and the stages in order |
//! | `learning` | compiling a model that learns |
//! | `model` | running: a compiled model in memory or from a library |
//! | [`arrays`] | tensors in `.npy` and `.npz` files |
//! | [`inspect`] | a model by layers |
//! | [`roofline`] | where a run's time goes, against what the machine can do |
//! | `plan` | the memory plan as a picture's data |
//! | [`training`] | a compiled training step and its state |
//! | [`tune`] | candidates of each layer, measured while compiling; the file that keeps what was measured |
//! | [`verify`] | a library against the reference evaluator |
//! | `error` | everything that can go wrong, with the blame in the type |

mod batch;
mod compiler;
mod error;
pub mod inspect;
mod learning;
mod model;
mod plan;
pub mod roofline;
pub mod training;
pub mod tune;
pub mod verify;

pub use compiler::{BandUse, Compiled, Compiler, OutputKind, Switch, Text, WinogradUse};
pub use error::Error;
pub use learning::LearningBatches;
pub use model::{Bound, Model, StepTrace};
pub use nncc_ir::{DType, Tensor};
pub use nncc_passes::OptLevel;
pub use nncc_train::arrays;
pub use plan::{Block, Plan};
