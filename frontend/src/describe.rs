//! What a model takes and gives, without importing it: for a command line that wants to name inputs and dimensions.

use crate::import::declared_shape;
use crate::model::{ModelDef, ValueDef, ValueType};
use crate::options::{ImportOptions, Symbols};
use crate::tensor;
use nncc_ir::{DType, Shape};
use std::fmt;

/// A model from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The graph's name.
    pub name: String,
    /// Tool and version that wrote the file.
    pub producer: String,
    /// The version of the file format.
    pub ir_version: i64,
    /// Operator sets with their versions, sorted by domain; the default domain is "".
    pub opsets: Vec<(String, i64)>,
    /// Inputs that a caller gives: those without an initializer.
    pub inputs: Vec<ValueDescription>,
    /// Outputs.
    pub outputs: Vec<ValueDescription>,
    /// The model's `metadata_props`.
    pub metadata: Vec<(String, String)>,
    /// Names of the symbolic dimensions of the inputs, sorted.
    pub symbols: Vec<String>,
    /// Nodes in the file.
    pub nodes: usize,
}

/// A declared input or output.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueDescription {
    /// Its name.
    pub name: String,
    /// The element type as nncc knows it, `None` for one that it does not support.
    pub dtype: Option<DType>,
    /// The shape, with symbols; `None` if the model does not declare it.
    pub shape: Option<Shape>,
    /// What else it is, if it is no tensor of a supported type: `sequence`, `float16`.
    pub other: Option<String>,
}

impl fmt::Display for ValueDescription {
    /// `x: f32[N,3,224,224]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match (&self.dtype, &self.other) {
            (Some(dtype), _) => write!(f, "{dtype}")?,
            (None, other) => f.write_str(other.as_deref().unwrap_or("?"))?,
        }
        match &self.shape {
            None => f.write_str("[?]"),
            Some(shape) => {
                write!(f, "[{}]", shape.iter().map(|d| d.to_string()).collect::<Vec<_>>().join(","))
            }
        }
    }
}

pub(crate) fn describe(model: &ModelDef) -> Description {
    let graph = &model.graph;
    let constant: rustc_hash::FxHashSet<&str> = graph.initializers.iter().map(|t| t.name.as_str()).collect();
    // Without options nothing is bound and nothing can be wrong with them.
    let mut symbols = Symbols::new(&ImportOptions::default()).ok();
    let one = |v: &ValueDef, symbols: &mut Option<Symbols>| {
        let mut d = ValueDescription { name: v.name.clone(), dtype: None, shape: None, other: None };
        match &v.ty {
            ValueType::Undeclared => {}
            ValueType::Other(kind) => d.other = Some(kind.to_string()),
            ValueType::Tensor { elem, shape } => {
                match tensor::dtype(i64::from(*elem)) {
                    Ok(dtype) => d.dtype = Some(dtype),
                    Err(problem) => d.other = Some(problem.message.replace("element type ", "")),
                }
                d.shape = shape.as_ref().zip(symbols.as_mut()).map(|(s, symbols)| declared_shape(&v.name, symbols, s));
            }
        }
        d
    };
    let inputs =
        graph.inputs.iter().filter(|v| !constant.contains(v.name.as_str())).map(|v| one(v, &mut symbols)).collect();
    let names = symbols.as_ref().map(|s| s.met().iter().cloned().collect()).unwrap_or_default();
    let outputs = graph.outputs.iter().map(|v| one(v, &mut symbols)).collect();
    let mut opsets: Vec<(String, i64)> = model.opsets.iter().map(|(d, v)| (d.clone(), *v)).collect();
    opsets.sort();
    Description {
        name: graph.name.clone(),
        producer: model.producer.clone(),
        ir_version: model.ir_version,
        opsets,
        inputs,
        outputs,
        metadata: model.metadata.clone(),
        symbols: names,
        nodes: model.node_count,
    }
}
