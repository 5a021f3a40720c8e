//! Writing a trained model: the original file with other numbers in it.
//!
//! ```text
//! original.onnx  +  name -> tensor  =  trained.onnx
//!
//! an initializer of that name            gets the tensor
//! a node whose one output has that name  goes, an initializer takes its place: a Constant, a Cast of half floats, what else
//!                                        an importer folds
//! external data                          moves into the file
//! everything else                        stays, down to fields that this protobuf schema does not know
//! ```
//!
//! A tensor keeps the shape that it had. The result is one file, which protobuf limits to 2 GiB; it is written under another
//! name and renamed, so that a full disk or a kill leaves the old file.

use crate::external::Folder;
use crate::problem::ImportErrors;
use crate::{parse, tensor};
use nncc_ir::Tensor;
use onnx_protobuf as pb;
use onnx_protobuf::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Bytes that a protobuf message may have: its readers count in 32 bits with a sign.
const LIMIT: u64 = i32::MAX as u64;

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The original cannot be read.
    #[error(transparent)]
    Original(#[from] ImportErrors),
    /// A name that stands for no weight of the file.
    #[error("{file}: nothing in the graph of the model is called `{name}`, so no value can be written there")]
    Unknown {
        /// The original.
        file: String,
        /// The name.
        name: String,
    },
    /// A tensor of another type than the one it replaces.
    #[error("{file}: `{name}` is {is}, and the value for it is {given}")]
    Type {
        /// The original.
        file: String,
        /// The weight.
        name: String,
        /// Its type in the file.
        is: String,
        /// The type of the new value.
        given: String,
    },
    /// More than one file can hold.
    #[error("{file}: the model has {bytes} bytes, and an ONNX file of more than 2147483647 is not readable")]
    TooLarge {
        /// The file to be written.
        file: String,
        /// What it would need.
        bytes: u64,
    },
    /// The operating system refused.
    #[error("{file} cannot be written: {source}")]
    Write {
        /// The file.
        file: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Writes `original` with the tensors of `values`, by name, in place of its own to `out`.
pub fn write_model(original: &Path, values: &BTreeMap<String, Tensor>, out: &Path) -> Result<(), ExportError> {
    let (mut model, folder) = parse::open(original)?;
    replace(&mut model, &folder, values, &original.display().to_string())?;
    write(&model, out)
}

/// The same for a model in memory; `name` stands for it in errors. External data is an error.
pub fn replace_values(bytes: &[u8], values: &BTreeMap<String, Tensor>, name: &str) -> Result<Vec<u8>, ExportError> {
    let mut model = parse::from_bytes(bytes, name)?;
    replace(&mut model, &Folder::new(None), values, name)?;
    encode(&model, name)
}

/// The same, written to a file.
pub fn write_replaced(
    bytes: &[u8],
    values: &BTreeMap<String, Tensor>,
    name: &str,
    out: &Path,
) -> Result<(), ExportError> {
    let mut model = parse::from_bytes(bytes, name)?;
    replace(&mut model, &Folder::new(None), values, name)?;
    write(&model, out)
}

/// Moves external data into the file.
pub(crate) fn embed_all(model: &mut pb::ModelProto, folder: &Folder, file: &str) -> Result<(), ExportError> {
    replace(model, folder, &BTreeMap::new(), file)
}

fn replace(
    model: &mut pb::ModelProto,
    folder: &Folder,
    values: &BTreeMap<String, Tensor>,
    file: &str,
) -> Result<(), ExportError> {
    let graph = model.graph.mut_or_insert_default();
    let mut left: BTreeSet<&str> = values.keys().map(String::as_str).collect();
    for t in &mut graph.initializer {
        match values.get(&t.name).filter(|_| left.remove(&t.name[..])) {
            Some(value) => {
                let is = declared_type(t);
                let given = value.ty().to_string();
                if is != given {
                    return Err(ExportError::Type { file: file.into(), name: t.name.clone(), is, given });
                }
                let doc = std::mem::take(&mut t.doc_string);
                *t = pb::TensorProto { doc_string: doc, ..tensor::encode(&t.name, value) };
            }
            None => embed(t, folder, file)?,
        }
    }
    graph.node.retain(|node| match &node.output[..] {
        [output] => match values.get(output).filter(|_| left.remove(&output[..])) {
            Some(value) => {
                graph.initializer.push(tensor::encode(output, value));
                false
            }
            None => true,
        },
        _ => true,
    });
    each_tensor(&mut graph.node, &mut |t| embed(t, folder, file))?;
    match left.first() {
        Some(name) => Err(ExportError::Unknown { file: file.into(), name: name.to_string() }),
        None => Ok(()),
    }
}

/// The tensors in the attributes of nodes, of their subgraphs too.
fn each_tensor(
    nodes: &mut [pb::NodeProto],
    f: &mut dyn FnMut(&mut pb::TensorProto) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    for a in nodes.iter_mut().flat_map(|n| &mut n.attribute) {
        a.t.as_mut().into_iter().chain(&mut a.tensors).try_for_each(&mut *f)?;
        for g in a.g.as_mut().into_iter().chain(&mut a.graphs) {
            g.initializer.iter_mut().try_for_each(&mut *f)?;
            each_tensor(&mut g.node, f)?;
        }
    }
    Ok(())
}

/// A tensor with its data beside the file gets it into the file.
fn embed(t: &mut pb::TensorProto, folder: &Folder, file: &str) -> Result<(), ExportError> {
    let embedded = tensor::embed(t, folder);
    embedded.map_err(|p| ImportErrors::one(file, p.at(format!("initializer \"{}\"", t.name))).into())
}

/// The type as a tensor of the graph IR would have it, to be compared as text.
fn declared_type(t: &pb::TensorProto) -> String {
    match tensor::declared_type(t) {
        Ok(ty) => ty.to_string(),
        Err(problem) => problem.message,
    }
}

/// The message as bytes.
pub(crate) fn encode(model: &pb::ModelProto, name: &str) -> Result<Vec<u8>, ExportError> {
    check_size(model, name)?;
    model.write_to_bytes().map_err(|e| ExportError::Write { file: name.into(), source: e.into() })
}

fn check_size(model: &pb::ModelProto, name: &str) -> Result<(), ExportError> {
    match model.compute_size() {
        bytes if bytes > LIMIT => Err(ExportError::TooLarge { file: name.into(), bytes }),
        _ => Ok(()),
    }
}

/// Writes the message to `path`, all of it or nothing.
pub(crate) fn write(model: &pb::ModelProto, path: &Path) -> Result<(), ExportError> {
    let file = path.display().to_string();
    check_size(model, &file)?;
    let temporary = temporary_beside(path);
    let result = write_to(model, &temporary).and_then(|()| std::fs::rename(&temporary, path));
    result.map_err(|source| {
        let _ = std::fs::remove_file(&temporary); // it may not be there; the first error is the one to report
        ExportError::Write { file, source }
    })
}

fn write_to(model: &pb::ModelProto, path: &Path) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    model.write_to_writer(&mut out)?;
    out.flush()?;
    out.get_ref().sync_all() // a rename may reach the disk before what was written
}

/// A name in the same folder, so that a rename stays in one file system; with the process's number, so that two writers of
/// one file do not meet.
fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}
