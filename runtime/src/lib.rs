//! nncc's run time: what a Rust program links to run a model that nncc compiled, and nothing more.
//!
//! ```no_run
//! use nncc_runtime::{Context, Library, TensorView};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // SAFETY: the file is one that nncc wrote.
//! let library = unsafe { Library::open("lenet5.so")? };
//! let mut context = Context::new(&library)?;
//! let image = vec![0.0_f32; 28 * 28];
//! let outputs = context.run_owned(&[TensorView::new(&image, &[1, 1, 28, 28])])?;
//! println!("{:?}", outputs[0].as_slice::<f32>());
//! # Ok(())
//! # }
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `library` | [`Library`]: a loaded model and its description; shared between threads |
//! | `context` | [`Context`]: one run's state, threads, memory and trace hook |
//! | `state` | [`StateBlock`]: what a model that learns has learnt |
//! | `tensor` | views of the caller's memory, owned results |
//! | [`ffi`] | the C ABI |
//! | `error` | what can go wrong |
//!
//! Absent on purpose: the compiler. A model in JIT memory comes in through [`Library::from_abi`].

mod context;
mod error;
pub mod ffi;
mod library;
mod state;
mod tensor;

pub use context::{Context, ContextOptions, ParallelFor, TraceEvent, TraceHook, TraceResult};
pub use error::{ErrorKind, LoadError, RunError};
pub use ffi::Bounds;
pub use library::{Library, Port, Purpose, Step};
pub use state::{Role, State, StateBlock};
pub use tensor::{DType, Element, Tensor, TensorView, TensorViewMut};
