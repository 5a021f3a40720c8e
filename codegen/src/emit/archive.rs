//! Static libraries: an `ar` archive of one object with a symbol index, for `cc main.c libmodel.a`.
//!
//! ```text
//! "!<arch>\n"
//! header "/"          index: count and member offsets (32-bit, big-endian), then the exported names, NUL-terminated
//! header "model.o/"   the object
//! ```
//!
//! Each header is 60 bytes of text; members begin at even offsets. All fields that could differ between two builds (date,
//! owner) are 0, as GNU ar's deterministic mode has it. The object is streamed and its size filled in afterwards, so that
//! the weights are in memory once. Source: ar(5); the System V symbol index, which GNU and LLVM linkers read.

use super::abi;
use super::library::typed_parameters;
use super::object::stream_object;
use super::{EmitError, EmitOptions, Emitted, prefix};
use crate::backend::MachineCode;
use crate::program::Program;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes of a member's header.
const HEADER: usize = 60;
/// Where in a header the size field begins, and how long it is.
const SIZE_FIELD: (u64, usize) = (48, 10);

/// Emits a static library.
///
/// # Errors
/// See [`EmitError`].
pub fn emit_archive(
    program: &Program,
    code: &[MachineCode],
    options: &EmitOptions,
    path: &Path,
) -> Result<Emitted, EmitError> {
    program.verify()?;
    let fail = |source| EmitError::Write { path: path.to_owned(), source };
    let index = index(&exported(program, options)?);
    let mut file = BufWriter::new(File::create(path).map_err(fail)?);
    let start = 8 + HEADER + index.len();
    let write_head = |file: &mut BufWriter<File>| -> std::io::Result<()> {
        file.write_all(b"!<arch>\n")?;
        file.write_all(&header("/", index.len()))?;
        file.write_all(&index)?;
        file.write_all(&header("model.o/", 0))
    };
    write_head(&mut file).map_err(fail)?;
    let emitted = stream_object(program, code, options, &mut file)?;
    let mut write_size = || -> std::io::Result<()> {
        let size = file.stream_position()? - (start + HEADER) as u64;
        if size % 2 == 1 {
            file.write_all(b"\n")?;
        }
        file.seek(SeekFrom::Start(start as u64 + SIZE_FIELD.0))?;
        write!(file, "{size:<width$}", width = SIZE_FIELD.1)?;
        file.flush()
    };
    write_size().map_err(fail)?;
    Ok(emitted)
}

/// The names that the object exports.
fn exported(program: &Program, options: &EmitOptions) -> Result<Vec<String>, EmitError> {
    let prefix = prefix(program, options)?;
    let mut names: Vec<String> =
        abi::entries(program.learns()).map(|def| format!("{prefix}_{}", def.model_name)).collect();
    if typed_parameters(program, options.freestanding).is_some() {
        names.push(format!("{prefix}_run"));
    }
    Ok(names)
}

/// The symbol index's content, padded to an even length; every name is in the one member behind it.
fn index(names: &[String]) -> Vec<u8> {
    let text: usize = names.iter().map(|name| name.len() + 1).sum();
    let bytes = (4 + 4 * names.len() + text).next_multiple_of(2);
    let member = (8 + HEADER + bytes) as u32;
    let mut index = Vec::with_capacity(bytes);
    index.extend((names.len() as u32).to_be_bytes());
    names.iter().for_each(|_| index.extend(member.to_be_bytes()));
    for name in names {
        index.extend(name.as_bytes());
        index.push(0);
    }
    index.resize(bytes, 0);
    index
}

/// A member's header: name, date, owner, group, mode, size, end mark.
fn header(name: &str, size: usize) -> Vec<u8> {
    let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644);
    debug_assert_eq!(header.len(), HEADER);
    header.into_bytes()
}
