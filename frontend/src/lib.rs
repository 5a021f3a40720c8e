//! nncc's importer: ONNX model files to the graph IR.
//!
//! | module | holds |
//! |---|---|
//! | [`import`](mod@import) | the walk over a model's nodes; inlining of functions and of branches with a known condition |
//! | `ops/` | one file an operator family, of the same name as its home in `nncc_ir::ops`: every opset version of each operator |
//! | `build`, `node`, `value` | emitting operators with folding of shape arithmetic; what an operator's import sees; values |
//! | `lengths` | the first look at a file: whether its lengths fit |
//! | `model`, `tensor`, `external` | the file as plain values: graphs, attributes, weights as handles, data beside the file |
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

mod build;
pub mod describe;
mod external;
pub mod fuzzing;
pub mod import;
mod lengths;
mod model;
mod node;
mod ops;
mod options;
mod order;
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
use onnx_protobuf::Message;
use protobuf::CodedInputStream;
use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

/// A model file that has been read: weights are in memory (or mapped), once, however often it is imported.
pub struct Model {
    file: String,
    def: ModelDef,
}

impl Model {
    /// Reads a model file. External data is looked for in its folder.
    pub fn open(path: &Path) -> Result<Model, ImportErrors> {
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
        if !metadata.is_file() {
            let mut bytes = Vec::new(); // a pipe, which has neither a length nor a way back
            handle.read_to_end(&mut bytes).map_err(failed)?;
            return Model::from_bytes(&bytes, &file, Some(parent));
        }
        // Streamed, so that the weights are in memory once: as fields of the message, which become the constants.
        let mut reader = BufReader::with_capacity(1 << 16, handle);
        Model::read(&mut reader, metadata.len(), &file, Some(parent))
    }

    /// Reads a model from memory. `name` stands for the file in messages; without a `folder`, external data is an error.
    pub fn from_bytes(bytes: &[u8], name: &str, folder: Option<&Path>) -> Result<Model, ImportErrors> {
        Model::read(&mut Cursor::new(bytes), bytes.len() as u64, name, folder)
    }

    fn read<R>(reader: &mut R, len: u64, file: &str, folder: Option<&Path>) -> Result<Model, ImportErrors>
    where
        R: BufRead + Seek,
    {
        let malformed = |why: String| ImportErrors::one(file, Problem::invalid(format!("not an ONNX file: {why}")));
        lengths::check(reader, len).map_err(malformed)?;
        reader.rewind().map_err(|e| ImportErrors::one(file, Problem::io(format!("the file cannot be read: {e}"))))?;
        let mut stream = CodedInputStream::from_buf_read(reader);
        let mut proto = onnx_protobuf::ModelProto::new();
        proto.merge_from(&mut stream).and_then(|()| stream.check_eof()).map_err(|e| malformed(e.to_string()))?;
        if proto.graph.is_none() {
            return Err(malformed("it has no graph".into()));
        }
        Ok(Model { file: file.to_string(), def: ModelDef::new(proto, &Folder::new(folder)) })
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
