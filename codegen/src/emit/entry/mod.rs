//! The functions around the kernels, written in CLIF: the C ABI's entry points, the step loop and the thread pool.
//!
//! | file | holds |
//! |---|---|
//! | [`access`] | addresses of table rows and messages, shared by the others |
//! | [`describe`] | what the model looks like: names, shapes, steps, bounds |
//! | [`level`] | the choice of the CPU level |
//! | [`context`] | memory and life of a context |
//! | [`run`] | checks of a run's arguments |
//! | [`execute`] | the step loop and the trace hook |
//! | [`pool`] | threads |
//! | [`state`] | the block of states of a model that learns |

mod access;
mod context;
mod describe;
mod execute;
mod level;
mod pool;
mod run;
mod state;

use super::EmitError;
use super::library::{Builder, Info};
pub use context::head_size as head_bytes;

/// Defines every function but `nncc_bounds`. `typed` is the parameter count of the typed convenience function.
pub fn define_all(builder: &mut Builder, info: &Info, typed: Option<usize>) -> Result<(), EmitError> {
    describe::define(builder, info)?;
    level::define(builder, info)?;
    context::define(builder, info)?;
    run::define(builder, info, typed)?;
    execute::define(builder, info)?;
    pool::define(builder, info)?;
    state::define(builder, info)
}

/// Defines `nncc_bounds`, which tells the size of the other code.
pub fn define_bounds(builder: &mut Builder, info: &Info) -> Result<(), EmitError> {
    describe::define_bounds(builder, info)
}
