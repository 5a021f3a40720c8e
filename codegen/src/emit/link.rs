//! Shared libraries: `libwild`, a linker as a library, links the object in process. No tool and no file is needed.
//!
//! The weights take no part in the link. The linker sees a second object whose weights section is a hole: anonymous memory
//! that was never touched, so it costs address space only. When the output is laid out, the weights are written straight to
//! their place in it, each constant as it is made. Beside the output no copy of them exists.

use super::object::{self as objects, Parts, WEIGHTS_SYMBOL};
use super::{EmitError, EmitOptions, Emitted};
use crate::backend::MachineCode;
use crate::program::Program;
use cranelift_object::object::write::{Object, Symbol, SymbolSection, WritableBuffer};
use cranelift_object::object::{
    self, Object as _, ObjectSegment as _, ObjectSymbol as _, SymbolFlags, SymbolKind, SymbolScope,
};
use libwild::{FileSystem, FileType, InputFileData, Linker, OutputFileData, OutputOptions};
use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use target_lexicon::Architecture;

const CODE_INPUT: &str = "code.o";
const WEIGHTS_INPUT: &str = "weights.o";
const OUTPUT: &str = "library.so";

/// Emits a shared library.
///
/// # Errors
/// See [`EmitError`].
pub fn emit_shared(
    program: &Program,
    code: &[MachineCode],
    options: &EmitOptions,
    path: &Path,
) -> Result<Emitted, EmitError> {
    let mut parts = objects::parts(program, code, options, true)?;
    let architecture = program.targets[0].triple.architecture;
    let mut inputs = Vec::new();
    if parts.library.weight_bytes == 0 {
        objects::define_weights(&mut parts.object, parts.weights, [].as_slice().into());
        parts.object.symbol_mut(parts.weights).scope = SymbolScope::Compilation;
    } else {
        inputs.push((WEIGHTS_INPUT, Input::Hole(weights_object(&parts, architecture)?)));
        // Hidden, not global: the reference stays PC-relative and the name stays out of the dynamic symbols.
        parts.object.symbol_mut(parts.weights).scope = SymbolScope::Linkage;
    }
    let code_object = parts.object.write().map_err(|error| internal("object file", error))?;
    inputs.push((CODE_INPUT, Input::Bytes(code_object)));

    let soname = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut output = link(inputs, architecture, &soname)?;
    if parts.library.weight_bytes > 0 {
        let range = find_weights(&output)?;
        objects::write_weights(program, &parts.library, &mut output[range]);
    }
    write_file(path, &output).map_err(|source| EmitError::Write { path: path.to_owned(), source })?;
    Ok(parts.emitted)
}

fn internal(stage: &'static str, error: impl std::fmt::Display) -> EmitError {
    // `{:#}` prints a chain of causes where the error has one.
    EmitError::Internal { stage, what: format!("{error:#}") }
}

/// Writes beside the path and renames, so that a library in use is never changed under its users.
fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        // Executable as linkers make it; only a convenience, some file systems know no such thing.
        let _ = libwild::make_executable(&file);
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

/// The object whose weights section is a hole.
fn weights_object(parts: &Parts, architecture: Architecture) -> Result<Mmap, EmitError> {
    let bytes = parts.library.weight_bytes as usize;
    let memory = |error: std::io::Error| internal("memory for the weights", error);
    let hole = MmapMut::map_anon(bytes).and_then(MmapMut::make_read_only).map_err(memory)?;
    let format = match architecture {
        Architecture::X86_64 => object::Architecture::X86_64,
        _ => object::Architecture::Aarch64,
    };
    let mut object = Object::new(object::BinaryFormat::Elf, format, object::Endianness::Little);
    let symbol = object.add_symbol(Symbol {
        name: WEIGHTS_SYMBOL.into(),
        value: 0,
        size: 0,
        kind: SymbolKind::Data,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Undefined,
        flags: SymbolFlags::None,
    });
    objects::define_weights(&mut object, symbol, (&hole[..]).into());
    object.add_section(vec![], b".note.GNU-stack".to_vec(), object::SectionKind::Linker);
    let mut buffer = HoleBuffer { hole: &hole, memory: MmapMut::map_anon(bytes + (1 << 16)).map_err(memory)?, len: 0 };
    object.emit(&mut buffer).map_err(|error| internal("weights object", error))?;
    buffer.memory.make_read_only().map_err(memory)
}

/// Writes an object into untouched memory, skipping the hole, which is as zero as the memory.
struct HoleBuffer<'a> {
    hole: &'a [u8],
    memory: MmapMut,
    len: usize,
}

impl WritableBuffer for HoleBuffer<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn reserve(&mut self, size: usize) -> Result<(), ()> {
        if size <= self.memory.len() { Ok(()) } else { Err(()) }
    }

    fn resize(&mut self, new_len: usize) {
        self.len = new_len;
    }

    fn write_bytes(&mut self, bytes: &[u8]) {
        if !std::ptr::eq(bytes.as_ptr(), self.hole.as_ptr()) {
            self.memory[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        }
        self.len += bytes.len();
    }
}

/// Links objects into a shared library in memory.
fn link(inputs: Vec<(&'static str, Input)>, architecture: Architecture, soname: &str) -> Result<MmapMut, EmitError> {
    let emulation = match architecture {
        Architecture::X86_64 => "elf_x86_64",
        _ => "aarch64linux",
    };
    let mut arguments =
        vec!["ld", "-m", emulation, "-shared", "-soname", soname, "--hash-style=gnu", "-z", "noexecstack", "-z", "now"];
    arguments.extend(["-o", OUTPUT]);
    let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
    arguments.extend(&names);
    let files = MemoryFiles {
        inputs: inputs.into_iter().map(|(name, input)| (PathBuf::from(name), Arc::new(input))).collect(),
        output: Arc::default(),
    };
    let output = files.output.clone();
    let get = || arguments.iter().copied();
    let wild = |error: libwild::error::Error| internal("linker", error.to_string());
    let mut args = libwild::Args::new(get).map_err(wild)?;
    // Nothing is printed by a library; what the linker warns of here are no faults of the user's.
    args.on_warning(Box::new(|warning| tracing::debug!("linker: {}", warning.warning())));
    args.parse(get).map_err(wild)?;
    let linker = Linker::with_file_system(files);
    drop(linker.run(&args).map_err(wild)?);
    drop(linker);
    let output = output.lock().unwrap_or_else(|poison| poison.into_inner()).take();
    output.ok_or_else(|| internal("linker", "no output"))
}

/// Where the weights lie in the linked file.
fn find_weights(output: &[u8]) -> Result<std::ops::Range<usize>, EmitError> {
    let file = object::File::parse(output).map_err(|error| internal("linked library", error))?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(WEIGHTS_SYMBOL));
    let symbol = symbol.ok_or_else(|| internal("linked library", "no symbol for the weights"))?;
    let (address, size) = (symbol.address(), symbol.size());
    for segment in file.segments() {
        let (start, (offset, length)) = (segment.address(), segment.file_range());
        if address >= start && address - start + size <= length {
            let begin = (offset + address - start) as usize;
            return Ok(begin..begin + size as usize);
        }
    }
    Err(internal("linked library", "the weights lie in no segment"))
}

/// An input of the link.
#[derive(Debug)]
enum Input {
    Bytes(Vec<u8>),
    Hole(Mmap),
}

#[derive(Debug)]
struct SharedInput(Arc<Input>);

impl InputFileData for SharedInput {
    fn bytes(&self) -> &[u8] {
        match &*self.0 {
            Input::Bytes(bytes) => bytes,
            Input::Hole(map) => map,
        }
    }
}

/// The linker's view of a file system: the inputs, and one output that stays in memory.
struct MemoryFiles {
    inputs: Vec<(PathBuf, Arc<Input>)>,
    output: Arc<Mutex<Option<MmapMut>>>,
}

impl MemoryFiles {
    fn find(&self, path: &Path) -> libwild::error::Result<&Arc<Input>> {
        match self.inputs.iter().find(|(name, _)| name == path) {
            Some((_, input)) => Ok(input),
            None => {
                Err(std::io::Error::new(std::io::ErrorKind::NotFound, format!("no input {}", path.display())).into())
            }
        }
    }
}

impl FileSystem for MemoryFiles {
    type Input = SharedInput;
    type Output = MemoryOutput;

    fn open_input(&self, path: &Path, _prepopulate: bool) -> libwild::error::Result<(SharedInput, Option<Arc<File>>)> {
        Ok((SharedInput(self.find(path)?.clone()), None))
    }

    fn file_type(&self, path: &Path) -> libwild::error::Result<FileType> {
        self.find(path).map(|_| FileType::File)
    }

    fn canonicalize(&self, path: &Path) -> libwild::error::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn remove_file(&self, _path: &Path) -> libwild::error::Result<()> {
        Ok(())
    }

    fn rename_file(&self, _path: &Path, _new_path: &Path) -> libwild::error::Result<()> {
        Ok(())
    }

    fn create_output(&self, _path: Arc<Path>, options: OutputOptions) -> libwild::error::Result<MemoryOutput> {
        let size =
            usize::try_from(options.size).map_err(|_| libwild::error!("the output exceeds the address space"))?;
        Ok(MemoryOutput { bytes: MmapMut::map_anon(size.max(1))?, output: self.output.clone() })
    }

    fn write_auxiliary(&self, _path: &Path, _bytes: &[u8]) -> libwild::error::Result {
        Ok(())
    }
}

struct MemoryOutput {
    bytes: MmapMut,
    output: Arc<Mutex<Option<MmapMut>>>,
}

impl OutputFileData for MemoryOutput {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn finish(self) -> libwild::error::Result {
        *self.output.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(self.bytes);
        Ok(())
    }
}
