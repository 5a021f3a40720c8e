//! nncc's code generation: from an optimized graph to machine code in a file or in memory.
//!
//! Lowering makes a [`program::Program`] of kernels in kernel IR; backends turn each kernel into machine code; emission
//! puts both into a shared library, an archive, an object or executable memory.
//!
//! | module | holds |
//! |---|---|
//! | [`target`] | what is compiled for: triple, CPU level, register and cache sizes |
//! | [`kir`] | the kernel IR: types, builder, text form, verifier, interpreter |
//! | [`lower`] | operator by operator: graph to kernels and steps |
//! | [`kernels`] | templates: generators of kernel IR |
//! | [`cost`] | how long a step will take: what choices are compared by and what profiles show |
//! | [`pack`] | the layouts of packed weights |
//! | [`machine`] | programs that reach a machine's limits, to measure it by |
//! | [`program`] | what lowering makes and emission eats |
//! | [`tunable`] | what has more than one way, and which is taken: what a tuner sees |
//! | [`switches`] | what can be left out of a build, to see what it is good for |
//! | [`state`] | what a model that learns keeps from run to run |
//! | [`math`] | exp, tanh, erf, .. as kernel IR |
//! | [`backend`] | kernel IR to machine code |
//! | [`emit`] | machine code to libraries, in files or in memory |
//! | `fuzzing` | the property that every kernel has, for fuzz targets (only under `cfg(fuzzing)` and in tests) |

pub mod backend;
pub mod cost;
pub mod emit;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod kernels;
pub mod kir;
pub mod lower;
pub mod machine;
pub mod math;
pub mod pack;
pub mod program;
pub mod state;
pub mod switches;
pub mod target;
#[cfg(test)]
pub(crate) mod testing;
pub mod tunable;
