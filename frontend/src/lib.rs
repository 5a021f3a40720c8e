//! nncc's importer: ONNX model files to the graph IR, and trained weights back into them.
//!
//! | module | holds |
//! |---|---|
//! | [`import`](mod@import) | the walk over a model's nodes; inlining of functions and of branches with a known condition |
//! | `ops/` | one file an operator family, of the same name as its home in `nncc_ir::ops`: every opset version of each operator |
//! | `build`, `node`, `value` | emitting operators with folding of shape arithmetic; what an operator's import sees; values |
//! | `lengths` | the first look at a file: whether its lengths fit |
//! | `parse`, `model`, `tensor`, `external` | the file as plain values: graphs, attributes, weights as handles, data beside the file |
//! | [`export`], [`author`] | a model with other weights, a model from nothing: what `nncc train` and `nncc new` write |
//! | [`head`], [`ensemble`] | a model with another last layer; several models as one |
//! | `order`, `options` | which nodes in which order; the caller's dimensions, shapes and fixed inputs |
//! | [`fuzzing`] | the property that every file has, for fuzz targets |
//! | [`problem`], [`table`], [`describe`](mod@describe) | errors; the table of supported operators; a model from outside |
//!
//! ```no_run
//! let model = nncc_frontend::Model::open("model.onnx".as_ref())?;
//! let mut options = nncc_frontend::ImportOptions::default();
//! options.dims.insert("N".into(), 1);
//! let import = model.import(&options)?; // again with other dimensions: both graphs share the weights
//! # Ok::<(), nncc_frontend::ImportErrors>(())
//! ```
//!
//! A model file is untrusted. Nothing in it makes the importer panic, read outside of the file's folder or allocate more
//! than a small multiple of the file's size; whatever is wrong is an [`ImportErrors`] that names the nodes.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod author;
mod build;
pub mod describe;
pub mod ensemble;
pub mod export;
mod external;
pub mod fuzzing;
pub mod head;
pub mod import;
mod lengths;
mod model;
mod node;
mod ops;
mod options;
mod order;
mod parse;
pub mod problem;
pub mod table;
mod tensor;
mod value;

pub use describe::{Description, ValueDescription};
pub use import::{Import, NEWEST_OPSET};
pub use options::ImportOptions;
pub use problem::{Blame, ImportErrors, Problem};
pub use table::operators_table;

use external::Folder;
use model::ModelDef;
use nncc_ir::Tensor;
use std::path::Path;

/// A model file that has been read: weights are in memory (or mapped), once, however often it is imported.
pub struct Model {
    file: String,
    def: ModelDef,
}

impl Model {
    /// Reads a model file. External data is looked for in its folder.
    pub fn open(path: &Path) -> Result<Model, ImportErrors> {
        let (proto, folder) = parse::open(path)?;
        Ok(Model { file: path.display().to_string(), def: ModelDef::new(proto, &folder) })
    }

    /// Reads a model from memory. `name` stands for the file in messages; without a `folder`, external data is an error.
    pub fn from_bytes(bytes: &[u8], name: &str, folder: Option<&Path>) -> Result<Model, ImportErrors> {
        let proto = parse::from_bytes(bytes, name)?;
        Ok(Model { file: name.to_string(), def: ModelDef::new(proto, &Folder::new(folder)) })
    }

    /// The file, as messages name it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// What the model takes and gives.
    pub fn describe(&self) -> Description {
        describe::describe(&self.def)
    }

    /// Imports the model. Everything that is wrong is reported at once.
    pub fn import(&self, options: &ImportOptions) -> Result<Import, ImportErrors> {
        let _span = tracing::debug_span!("import", file = %self.file).entered();
        import::import(&self.def, options).map_err(|problems| ImportErrors { file: self.file.clone(), problems })
    }
}

impl Model {
    /// Imports the model for the data of one run: inputs whose numbers must be known when compiling (the shape operand of a
    /// Reshape, say) become constants with the value that `data` gives them. Returns their names too.
    pub fn import_for(
        &self,
        options: &ImportOptions,
        data: &dyn Fn(&str) -> Option<Tensor>,
    ) -> Result<(Import, Vec<String>), ImportErrors> {
        let (mut options, mut fixed) = (options.clone(), Vec::new());
        loop {
            let errors = match self.import(&options) {
                Ok(import) => return Ok((import, fixed)),
                Err(errors) => errors,
            };
            // Each round fixes an input more or gives up.
            let wanted = errors.problems.iter().flat_map(|p| &p.inputs).find(|name| !options.fixed.contains_key(*name));
            let Some((name, value)) = wanted.and_then(|name| Some((name.clone(), data(name)?))) else {
                return Err(errors);
            };
            options.fixed.insert(name.clone(), value);
            fixed.push(name);
        }
    }
}

/// Reads and imports a model file.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Import, ImportErrors> {
    Model::open(path)?.import(options)
}

/// What a model file takes and gives.
pub fn describe(path: &Path) -> Result<Description, ImportErrors> {
    Ok(Model::open(path)?.describe())
}
