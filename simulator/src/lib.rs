//! A simulator of the x86-64 instructions that nncc emits: the second opinion of tests, on any machine.
//!
//! What runs is what iced-x86's decoder says the bytes are, so that an encoding mistake shows too; a form that is not known here
//! is an error that names it. AVX-512 code runs where the CPU has none, and every access is checked.
//!
//! | module | holds |
//! |---|---|
//! | [`program`] | bytes to decoded steps |
//! | [`level`] | which instructions a CPU level has |
//! | [`machine`] | calls, and what a function must leave as it was |
//! | [`memory`] | regions, bounds |
//! | `state` | registers and flags |
//! | `operand` | addresses, vector sources, write masks |
//! | `integer`, `packed`, `float`, `convert`, `permute`, `transfer`, `mask` | the instructions, by family |
//! | [`hardware`] | each form against the CPU itself |
//!
//! It knows nothing of nncc: what it takes from it are bytes. Left out: exceptions and MXCSR (all masked, round to nearest),
//! self-modifying code, every instruction that is not emitted. Source: Intel SDM volumes 1 and 2.

mod convert;
mod float;
#[cfg(target_arch = "x86_64")]
pub mod hardware;
mod integer;
pub mod level;
pub mod machine;
mod mask;
pub mod memory;
mod operand;
mod packed;
mod permute;
pub mod program;
mod state;
mod transfer;

pub use machine::{Fault, Limits, call};
pub use memory::{Access, Memory};
pub use program::{Program, Unknown};
