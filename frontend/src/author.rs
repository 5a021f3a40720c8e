//! Writing a model from nothing: nodes, weights, inputs and outputs become an ONNX file.
//!
//! ```no_run
//! use nncc_frontend::author::{Attribute, Author};
//! # use nncc_ir::{DType, Tensor};
//! let mut model = Author::new("tiny", 20);
//! let x = model.input("x", DType::F32, &[None, Some(3)]);
//! let w = model.initializer("fc.weight", &Tensor::zeros(DType::F32, &[2, 3]));
//! let y = model.node("Gemm", "fc", &[&x, &w], &[("transB", Attribute::Int(1))]);
//! model.output(&y, DType::F32, &[None, Some(2)]);
//! model.write("tiny.onnx".as_ref())?;
//! # Ok::<(), nncc_frontend::export::ExportError>(())
//! ```
//!
//! Nothing is checked here but the size: whoever writes a model tests it (`onnx.checker`, the importer).

use crate::export::{self, ExportError};
use crate::tensor;
use nncc_ir::{DType, Tensor};
use onnx_protobuf as pb;
use std::path::Path;

/// The IR version of the files: that of ONNX 1.15, whose operator set is 20.
const IR_VERSION: i64 = 9;

/// An attribute of a node.
#[derive(Clone, Copy, Debug)]
pub enum Attribute<'a> {
    /// An integer.
    Int(i64),
    /// A number.
    Float(f32),
    /// A list of integers.
    Ints(&'a [i64]),
    /// A word.
    Text(&'a str),
}

/// A model that is being written. Nodes stand in the file in the order in which they are added.
pub struct Author(pb::ModelProto);

impl Author {
    /// An empty model over an operator set of the default domain.
    pub fn new(name: &str, opset: i64) -> Author {
        Author(pb::ModelProto {
            ir_version: IR_VERSION,
            producer_name: "nncc".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            opset_import: vec![pb::OperatorSetIdProto { version: opset, ..Default::default() }],
            graph: some(pb::GraphProto { name: name.into(), ..Default::default() }),
            ..Default::default()
        })
    }

    fn graph(&mut self) -> &mut pb::GraphProto {
        self.0.graph.mut_or_insert_default()
    }

    /// Adds an input; a dimension of `None` is open, and called `N`. Gives its name.
    pub fn input(&mut self, name: &str, dtype: DType, dims: &[Option<usize>]) -> String {
        self.graph().input.push(declared(name, dtype, dims));
        name.to_string()
    }

    /// Adds a weight. Gives its name.
    pub fn initializer(&mut self, name: &str, value: &Tensor) -> String {
        self.graph().initializer.push(tensor::encode(name, value));
        name.to_string()
    }

    /// Adds a node with one output of the node's name. An empty operand is an optional one that is not given.
    pub fn node(&mut self, op: &str, name: &str, operands: &[&str], attributes: &[(&str, Attribute<'_>)]) -> String {
        self.graph().node.push(pb::NodeProto {
            name: name.into(),
            op_type: op.into(),
            input: operands.iter().map(|o| o.to_string()).collect(),
            output: vec![name.into()],
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
            ..Default::default()
        });
        name.to_string()
    }

    /// Makes a value an output.
    pub fn output(&mut self, name: &str, dtype: DType, dims: &[Option<usize>]) {
        self.graph().output.push(declared(name, dtype, dims));
    }

    /// The file as bytes, `name` standing for it in an error.
    pub fn to_bytes(&self, name: &str) -> Result<Vec<u8>, ExportError> {
        export::encode(&self.0, name)
    }

    /// Writes the file: under another name first, then renamed, so that no half of it is ever there.
    pub fn write(&self, path: &Path) -> Result<(), ExportError> {
        export::write(&self.0, path)
    }
}

fn some<T>(value: T) -> protobuf::MessageField<T> {
    protobuf::MessageField::some(value)
}

fn attribute(name: &str, value: &Attribute<'_>) -> pb::AttributeProto {
    use pb::attribute_proto::AttributeType as T;
    let mut a = pb::AttributeProto { name: name.into(), ..Default::default() };
    match value {
        Attribute::Int(n) => (a.type_, a.i) = (T::INT.into(), *n),
        Attribute::Float(x) => (a.type_, a.f) = (T::FLOAT.into(), *x),
        Attribute::Ints(n) => (a.type_, a.ints) = (T::INTS.into(), n.to_vec()),
        Attribute::Text(t) => (a.type_, a.s) = (T::STRING.into(), t.as_bytes().to_vec()),
    }
    a
}

fn declared(name: &str, dtype: DType, dims: &[Option<usize>]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    use pb::type_proto::{self, Value as Kind};
    let dim = |d: &Option<usize>| Dimension {
        value: Some(match d {
            Some(n) => Value::DimValue(*n as i64),
            None => Value::DimParam("N".into()),
        }),
        ..Default::default()
    };
    let shape = pb::TensorShapeProto { dim: dims.iter().map(dim).collect(), ..Default::default() };
    let tensor =
        type_proto::Tensor { elem_type: tensor::code_of(dtype) as i32, shape: some(shape), ..Default::default() };
    pb::ValueInfoProto {
        name: name.into(),
        type_: some(pb::TypeProto { value: Some(Kind::TensorType(tensor)), ..Default::default() }),
        ..Default::default()
    }
}
