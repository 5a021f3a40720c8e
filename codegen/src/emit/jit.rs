//! The same library straight into executable memory: no file, no dlopen.
//!
//! Kernels are the very bytes that a file would hold, and the functions around them the same CLIF. Memory is writable while
//! code is written and executable afterwards, never both (`cranelift-jit` sees to it). The weights are written once, into
//! pages that are then made read-only; beside them no copy is made.

use super::abi;
use super::functions::Fun;
use super::library;
use super::{EmitError, EmitOptions, Emitted, baseline_isa, prefix};
use crate::backend::MachineCode;
use crate::program::Program;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::default_libcall_names;
use memmap2::{Mmap, MmapMut};
use rustc_hash::FxHashMap;
use std::ffi::c_void;
use std::sync::Mutex;
use target_lexicon::Triple;

/// A library in memory. Its code and weights live as long as it does.
pub struct JitLibrary {
    /// Taken when the library is dropped; never used in between.
    module: Mutex<Option<JITModule>>,
    /// Addresses of the ABI's functions by their `nncc_` names.
    symbols: FxHashMap<String, usize>,
    /// What the code's pointer to the weights points to.
    _weights: Mmap,
    emitted: Emitted,
}

impl JitLibrary {
    /// The address of a function of the C ABI (`nncc_create`, ...), as `dlsym` would give it. Valid while `self` lives.
    pub fn symbol(&self, name: &str) -> Option<*const c_void> {
        self.symbols.get(name).map(|&address| address as *const c_void)
    }

    /// Sizes and bounds.
    pub fn emitted(&self) -> &Emitted {
        &self.emitted
    }
}

impl Drop for JitLibrary {
    fn drop(&mut self) {
        let module = self.module.get_mut().unwrap_or_else(|poison| poison.into_inner()).take();
        if let Some(module) = module {
            // SAFETY: the addresses that `symbol` gave are valid only while `self` lives, so no code of the module runs now.
            unsafe { module.free_memory() };
        }
    }
}

/// Puts a program into executable memory.
///
/// # Errors
/// [`EmitError::NotHost`] for a program of another architecture; the rest as for files.
pub fn jit(program: &Program, code: &[MachineCode], options: &EmitOptions) -> Result<JitLibrary, EmitError> {
    program.verify()?;
    let triple = &program.targets[0].triple;
    if triple.architecture != Triple::host().architecture {
        return Err(EmitError::NotHost { target: triple.to_string(), host: Triple::host().to_string() });
    }
    let memory =
        |error: std::io::Error| EmitError::Internal { stage: "memory for the weights", what: error.to_string() };
    let (_, weight_bytes) = library::lay_out_consts(program);
    let mut weights = MmapMut::map_anon(weight_bytes.max(1)).map_err(memory)?;
    let mut builder = JITBuilder::with_isa(baseline_isa(triple, false)?, default_libcall_names());
    builder.symbol("nncc.weights", weights.as_ptr());
    let mut module = JITModule::new(builder);
    let library = library::build(&mut module, program, code, options)?;
    super::object::write_weights(program, &library, &mut weights);
    let weights = weights.make_read_only().map_err(memory)?;
    module.finalize_definitions()?;
    let address = |fun| module.get_finalized_function(library.functions.id(fun)) as usize;
    let entries = abi::entries(program.learns());
    let symbols = entries.map(|def| (format!("nncc_{}", def.name), address(Fun::Entry(def.entry)))).collect();
    let emitted = Emitted::new(prefix(program, options)?, program, &library);
    Ok(JitLibrary { module: Mutex::new(Some(module)), symbols, _weights: weights, emitted })
}
