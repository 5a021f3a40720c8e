//! Object files: the library's code, tables and, unless they go in by themselves, its weights.
//!
//! Exported symbols are aliases of local functions: `<prefix>_create` and so on, in a shared library also `nncc_create`, so
//! that a program that opens any model finds them. Each kernel has a local symbol, for profilers and disassemblers.

use super::abi;
use super::functions::Fun;
use super::library::{self, Library};
use super::{EmitError, EmitOptions, Emitted, baseline_isa, prefix};
use crate::backend::MachineCode;
use crate::program::{MAX_ALIGN, Program};
use cranelift_module::{FuncId, default_libcall_names};
use cranelift_object::object::write::{Object, StreamingBuffer, Symbol, SymbolId, SymbolSection};
use cranelift_object::object::{SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use cranelift_object::{ObjectBuilder, ObjectModule, ObjectProduct};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The symbol of the weights; local to a library.
pub const WEIGHTS_SYMBOL: &str = "nncc.weights";

/// The section of the weights: apart from the tables, so that tools tell the sizes apart.
pub const WEIGHTS_SECTION: &str = ".rodata.nncc.weights";

/// An object without its weights, and what its makers must know to add them.
pub struct Parts {
    /// Code and tables; [`WEIGHTS_SYMBOL`] is undefined.
    pub object: Object<'static>,
    /// The weights' symbol.
    pub weights: SymbolId,
    /// Where constants go.
    pub library: Library,
    /// For the caller.
    pub emitted: Emitted,
}

/// Compiles a program into an object that lacks the weights. `aliases` adds the `nncc_` names.
pub fn parts(
    program: &Program,
    code: &[MachineCode],
    options: &EmitOptions,
    aliases: bool,
) -> Result<Parts, EmitError> {
    let prefix = prefix(program, options)?;
    let isa = baseline_isa(&program.targets[0].triple, true)?;
    let builder = ObjectBuilder::new(isa, program.name.replace('\0', " "), default_libcall_names())?;
    let mut module = ObjectModule::new(builder);
    let library = library::build(&mut module, program, code, options)?;
    let mut product = module.finish();
    for def in abi::entries(program.learns()) {
        let id = library.functions.id(Fun::Entry(def.entry));
        alias(&mut product, id, format!("{prefix}_{}", def.model_name));
        if aliases {
            alias(&mut product, id, format!("nncc_{}", def.name));
        }
    }
    if library.functions.has(Fun::TypedRun) {
        alias(&mut product, library.functions.id(Fun::TypedRun), format!("{prefix}_run"));
    }
    name_kernels(&mut product, program, code, &library);
    let emitted = Emitted::new(prefix, program, &library);
    let weights = product.data_symbol(library.weights_id);
    Ok(Parts { object: product.object, weights, library, emitted })
}

/// Exports a local function under a public name.
fn alias(product: &mut ObjectProduct, id: FuncId, name: String) {
    let target = product.object.symbol(product.function_symbol(id));
    let (value, size, section) = (target.value, target.size, target.section);
    add_text_symbol(&mut product.object, name.into_bytes(), value, size, SymbolScope::Dynamic, section);
}

fn name_kernels(product: &mut ObjectProduct, program: &Program, code: &[MachineCode], library: &Library) {
    let block = product.object.symbol(product.function_symbol(library.functions.id(Fun::Kernels)));
    let (start, section) = (block.value, block.section);
    for ((kernel, code), &offset) in program.kernels.iter().zip(code).zip(&library.kernel_offsets) {
        let name = kernel.ir.name.replace('\0', " ").into_bytes();
        let (value, size) = (start + offset as u64, code.bytes.len() as u64);
        add_text_symbol(&mut product.object, name, value, size, SymbolScope::Compilation, section);
    }
}

fn add_text_symbol(
    object: &mut Object,
    name: Vec<u8>,
    value: u64,
    size: u64,
    scope: SymbolScope,
    section: SymbolSection,
) {
    let (kind, flags) = (SymbolKind::Text, SymbolFlags::None);
    object.add_symbol(Symbol { name, value, size, kind, scope, weak: false, section, flags });
}

/// Puts the weights into the object as a section of their own.
fn add_weights(parts: &mut Parts, program: &Program) -> Result<(), EmitError> {
    let mut bytes = vec![0; parts.library.weight_bytes as usize];
    write_weights(program, &parts.library, &mut bytes);
    define_weights(&mut parts.object, parts.weights, bytes.into());
    Ok(())
}

/// Defines the weights' symbol over a section with the given content.
pub fn define_weights<'a>(object: &mut Object<'a>, symbol: SymbolId, bytes: std::borrow::Cow<'a, [u8]>) {
    let section = object.add_section(vec![], WEIGHTS_SECTION.into(), SectionKind::ReadOnlyData);
    let size = bytes.len() as u64;
    object.set_section_data(section, bytes, MAX_ALIGN as u64);
    let symbol = object.symbol_mut(symbol);
    symbol.section = SymbolSection::Section(section);
    symbol.value = 0;
    symbol.size = size;
    symbol.kind = SymbolKind::Data;
    symbol.flags = SymbolFlags::None;
}

/// Writes every constant to its place.
pub fn write_weights(program: &Program, library: &Library, out: &mut [u8]) {
    for (constant, &offset) in program.consts.iter().zip(&library.const_offsets) {
        constant.data.write(&mut out[offset..offset + constant.data.len()]);
    }
}

/// Emits a relocatable object file.
///
/// # Errors
/// See [`EmitError`].
pub fn emit_object(
    program: &Program,
    code: &[MachineCode],
    options: &EmitOptions,
    path: &Path,
) -> Result<Emitted, EmitError> {
    let fail = |source| EmitError::Write { path: path.to_owned(), source };
    let mut file = BufWriter::new(File::create(path).map_err(fail)?);
    let emitted = stream_object(program, code, options, &mut file)?;
    file.flush().map_err(fail)?;
    Ok(emitted)
}

/// Streams an object, weights included, to a writer: the weights are in memory once.
pub fn stream_object(
    program: &Program,
    code: &[MachineCode],
    options: &EmitOptions,
    out: &mut impl Write,
) -> Result<Emitted, EmitError> {
    let mut parts = parts(program, code, options, false)?;
    // In a relocatable object the weights are the model's own: a local symbol, so that several models link together.
    parts.object.symbol_mut(parts.weights).scope = SymbolScope::Compilation;
    add_weights(&mut parts, program)?;
    let mut buffer = StreamingBuffer::new(out);
    let internal = |what: String| EmitError::Internal { stage: "object file", what };
    parts.object.emit(&mut buffer).map_err(|error| internal(error.to_string()))?;
    buffer.result().map_err(|error| internal(error.to_string()))?;
    Ok(parts.emitted)
}
