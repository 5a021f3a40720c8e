//! nncc's code generation: from an optimized graph to machine code in a file or in memory.
//!
//! lowering makes a [`program::Program`] of kernels in kernel IR; backends turn each kernel into machine code; emission
//! puts both into a shared library, an archive, an object or executable memory.

pub mod program;
