//! Small ONNX models written in Rust, for the importer's tests.

#![allow(dead_code, reason = "each test file uses its part of this module")]

use nncc_frontend::{Import, ImportOptions, Model};
use onnx_protobuf as pb;
use onnx_protobuf::Message;
use pb::attribute_proto::AttributeType;

/// A model under construction.
pub struct Builder {
    pub proto: pb::ModelProto,
}

/// Dimensions of declared values.
#[derive(Clone, Copy)]
pub enum D {
    N(i64),
    S(&'static str),
}

pub fn attr_int(name: &str, i: i64) -> pb::AttributeProto {
    pb::AttributeProto { name: name.into(), i, type_: AttributeType::INT.into(), ..Default::default() }
}

pub fn attr_ints(name: &str, ints: &[i64]) -> pb::AttributeProto {
    pb::AttributeProto {
        name: name.into(),
        ints: ints.to_vec(),
        type_: AttributeType::INTS.into(),
        ..Default::default()
    }
}

pub fn attr_float(name: &str, f: f32) -> pb::AttributeProto {
    pb::AttributeProto { name: name.into(), f, type_: AttributeType::FLOAT.into(), ..Default::default() }
}

pub fn attr_text(name: &str, text: &str) -> pb::AttributeProto {
    let s = text.as_bytes().to_vec();
    pb::AttributeProto { name: name.into(), s, type_: AttributeType::STRING.into(), ..Default::default() }
}

pub fn attr_texts(name: &str, texts: &[&str]) -> pb::AttributeProto {
    let strings = texts.iter().map(|t| t.as_bytes().to_vec()).collect();
    pb::AttributeProto { name: name.into(), strings, type_: AttributeType::STRINGS.into(), ..Default::default() }
}

pub fn attr_graph(name: &str, g: pb::GraphProto) -> pb::AttributeProto {
    let g = pb::GraphProto { name: "branch".into(), ..g };
    pb::AttributeProto {
        name: name.into(),
        g: Some(g).into(),
        type_: AttributeType::GRAPH.into(),
        ..Default::default()
    }
}

pub fn node(
    op: &str,
    name: &str,
    inputs: &[&str],
    outputs: &[&str],
    attribute: &[pb::AttributeProto],
) -> pb::NodeProto {
    let own = |v: &[&str]| v.iter().map(|s| s.to_string()).collect();
    pb::NodeProto {
        op_type: op.into(),
        name: name.into(),
        input: own(inputs),
        output: own(outputs),
        attribute: attribute.to_vec(),
        ..Default::default()
    }
}

pub fn value(name: &str, elem_type: i32, dims: &[D]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension};
    let dim = |d: &D| Dimension {
        value: Some(match d {
            D::N(n) => dimension::Value::DimValue(*n),
            D::S(s) => dimension::Value::DimParam(s.to_string()),
        }),
        ..Default::default()
    };
    let shape = pb::TensorShapeProto { dim: dims.iter().map(dim).collect(), ..Default::default() };
    let tensor = pb::type_proto::Tensor { elem_type, shape: Some(shape).into(), ..Default::default() };
    let ty = pb::TypeProto { value: Some(pb::type_proto::Value::TensorType(tensor)), ..Default::default() };
    pb::ValueInfoProto { name: name.into(), type_: Some(ty).into(), ..Default::default() }
}

pub fn f32s(name: &str, dims: &[i64], v: &[f32]) -> pb::TensorProto {
    let raw_data = v.iter().flat_map(|x| x.to_le_bytes()).collect();
    pb::TensorProto { name: name.into(), data_type: 1, dims: dims.to_vec(), raw_data, ..Default::default() }
}

pub fn i64s(name: &str, dims: &[i64], v: &[i64]) -> pb::TensorProto {
    let int64_data = v.to_vec();
    pb::TensorProto { name: name.into(), data_type: 7, dims: dims.to_vec(), int64_data, ..Default::default() }
}

impl Builder {
    /// A model of the default domain's operator set `opset`.
    pub fn new(opset: i64) -> Builder {
        let import = pb::OperatorSetIdProto { version: opset, ..Default::default() };
        let graph = pb::GraphProto { name: "test".into(), ..Default::default() };
        let proto = pb::ModelProto {
            ir_version: 8,
            opset_import: vec![import],
            graph: Some(graph).into(),
            ..Default::default()
        };
        Builder { proto }
    }

    /// With the operator set of another domain.
    pub fn opset(mut self, domain: &str, version: i64) -> Builder {
        self.proto.opset_import.push(pb::OperatorSetIdProto { domain: domain.into(), version, ..Default::default() });
        self
    }

    pub fn graph(&mut self) -> &mut pb::GraphProto {
        self.proto.graph.mut_or_insert_default()
    }

    pub fn input(mut self, name: &str, elem: i32, dims: &[D]) -> Builder {
        self.graph().input.push(value(name, elem, dims));
        self
    }

    /// An output without a declared type.
    pub fn output(mut self, name: &str) -> Builder {
        self.graph().output.push(pb::ValueInfoProto { name: name.into(), ..Default::default() });
        self
    }

    pub fn tensor(mut self, t: pb::TensorProto) -> Builder {
        self.graph().initializer.push(t);
        self
    }

    pub fn node(self, op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> Builder {
        self.with(op, name, inputs, outputs, &[])
    }

    pub fn with(
        mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        outputs: &[&str],
        a: &[pb::AttributeProto],
    ) -> Builder {
        self.graph().node.push(node(op, name, inputs, outputs, a));
        self
    }

    pub fn push(mut self, node: pb::NodeProto) -> Builder {
        self.graph().node.push(node);
        self
    }

    /// A model-local function in the domain `own`, over operator set 17.
    pub fn function(
        mut self,
        name: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[&str],
        nodes: Vec<pb::NodeProto>,
    ) -> Builder {
        let own = |v: &[&str]| v.iter().map(|s| s.to_string()).collect();
        let import =
            |domain: &str, version| pb::OperatorSetIdProto { domain: domain.into(), version, ..Default::default() };
        if self.proto.functions.is_empty() {
            self.proto.opset_import.push(import("own", 1));
        }
        self.proto.functions.push(pb::FunctionProto {
            name: name.into(),
            domain: "own".into(),
            input: own(inputs),
            output: own(outputs),
            attribute: own(attributes),
            node: nodes,
            opset_import: vec![import("", 17), import("own", 1)],
            ..Default::default()
        });
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.proto.write_to_bytes().expect("a message in memory can be written")
    }

    /// The imported model, or all its problems as text.
    pub fn import(&self, options: &ImportOptions) -> Result<Import, String> {
        let model = Model::from_bytes(&self.bytes(), "m.onnx", None).map_err(|e| e.to_string())?;
        model.import(options).map_err(|e| e.to_string())
    }

    /// The text form of the imported graph without its head and tail, one node a line.
    pub fn lines(&self) -> Vec<String> {
        let import = self.import(&ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        import.graph.to_string().lines().map(|l| l.trim().to_string()).collect()
    }

    /// The problems.
    pub fn errors(&self) -> String {
        match self.import(&ImportOptions::default()) {
            Ok(import) => panic!("imported:\n{}", import.graph),
            Err(e) => e,
        }
    }
}
