//! A file as protobuf messages: the first step of reading a model, and of writing one that differs from it.

use crate::external::Folder;
use crate::lengths;
use crate::problem::{ImportErrors, Problem};
use onnx_protobuf::{Message, ModelProto};
use protobuf::CodedInputStream;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

/// The message of a file, and the folder that its external data may lie in.
pub(crate) fn open(path: &Path) -> Result<(ModelProto, Folder), ImportErrors> {
    let file = path.display().to_string();
    let failed = |e| ImportErrors::one(&file, Problem::io(format!("the file cannot be read: {e}")));
    let mut handle = std::fs::File::open(path).map_err(failed)?;
    let metadata = handle.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(ImportErrors::one(&file, Problem::io("the file cannot be read: it is a folder")));
    }
    let parent = match path.parent() {
        Some(p) if p.as_os_str().is_empty() => Path::new("."),
        Some(p) => p,
        None => Path::new("."),
    };
    let folder = Folder::new(Some(parent));
    if !metadata.is_file() {
        let mut bytes = Vec::new(); // a pipe, which has neither a length nor a way back
        handle.read_to_end(&mut bytes).map_err(failed)?;
        return Ok((from_bytes(&bytes, &file)?, folder));
    }
    // Streamed, so that the weights are in memory once: as fields of the message, which become the constants.
    let mut reader = BufReader::with_capacity(1 << 16, handle);
    Ok((read(&mut reader, metadata.len(), &file)?, folder))
}

/// The message of bytes in memory, `name` standing for the file in errors.
pub(crate) fn from_bytes(bytes: &[u8], name: &str) -> Result<ModelProto, ImportErrors> {
    read(&mut Cursor::new(bytes), bytes.len() as u64, name)
}

fn read<R: BufRead + Seek>(reader: &mut R, len: u64, file: &str) -> Result<ModelProto, ImportErrors> {
    let malformed = |why: String| ImportErrors::one(file, Problem::invalid(format!("not an ONNX file: {why}")));
    lengths::check(reader, len).map_err(malformed)?;
    reader.rewind().map_err(|e| ImportErrors::one(file, Problem::io(format!("the file cannot be read: {e}"))))?;
    let mut stream = CodedInputStream::from_buf_read(reader);
    let mut proto = ModelProto::new();
    proto.merge_from(&mut stream).and_then(|()| stream.check_eof()).map_err(|e| malformed(e.to_string()))?;
    if proto.graph.is_none() {
        return Err(malformed("it has no graph".into()));
    }
    Ok(proto)
}
