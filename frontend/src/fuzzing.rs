//! The property that every sequence of bytes has, as library code: fuzz targets and tests are a few lines around it.

use crate::{ImportOptions, Model};

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was imported, into a graph that the IR's verifier accepts.
    Imported,
    /// It was refused, with this text.
    Refused(String),
    /// Neither: this is a bug of the importer.
    Broken(String),
}

/// Opens, describes and imports a file. Whatever the bytes are, the outcome is not [`Outcome::Broken`], nothing panics, and
/// no more is allocated than a small multiple of their number (and the fixed budgets of the importer).
pub fn import_any(bytes: &[u8]) -> Outcome {
    let model = match Model::from_bytes(bytes, "fuzzed.onnx", None) {
        Ok(model) => model,
        Err(e) => return refused(e.to_string()),
    };
    model.describe();
    match model.import(&ImportOptions::default()) {
        Err(e) => refused(e.to_string()),
        Ok(import) => match nncc_ir::verify::verify(&import.graph) {
            Ok(()) => Outcome::Imported,
            Err(e) => Outcome::Broken(format!("{e}\n{}", import.graph)),
        },
    }
}

fn refused(text: String) -> Outcome {
    if text.starts_with("error: ") { Outcome::Refused(text) } else { Outcome::Broken(format!("no error text: {text}")) }
}
