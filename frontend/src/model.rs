//! A model as the importer reads it: protobuf's messages turned into plain values, once, by consuming them.
//!
//! What changes on the way: every tensor becomes a [`Constant`] (its bytes are moved, not copied) or the reason why it
//! cannot be one, which is reported where the tensor is used; attributes become one enum; documentation strings are
//! dropped. Nothing is rejected here that the importer could name better: types and operators are judged when a node uses them.

use crate::external::Folder;
use crate::problem::Problem;
use crate::tensor;
use nncc_ir::Constant;
use onnx_protobuf as pb;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Versions of operator sets by domain; the default domain is "".
pub(crate) type Opsets = FxHashMap<String, i64>;

/// A whole model.
pub(crate) struct ModelDef {
    pub(crate) ir_version: i64,
    pub(crate) producer: String,
    pub(crate) opsets: Opsets,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) graph: GraphDef,
    pub(crate) functions: FxHashMap<FunctionKey, FunctionDef>,
    /// Nodes in the file, in graphs, subgraphs and functions: the measure of what a small file may expand to.
    pub(crate) node_count: usize,
}

/// What names a model-local function: domain, name, overload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FunctionKey {
    pub(crate) domain: String,
    pub(crate) name: String,
    pub(crate) overload: String,
}

/// A graph or the body of a control-flow branch.
#[derive(Default)]
pub(crate) struct GraphDef {
    pub(crate) name: String,
    pub(crate) nodes: Vec<NodeDef>,
    pub(crate) initializers: Vec<TensorDef>,
    pub(crate) inputs: Vec<ValueDef>,
    pub(crate) outputs: Vec<ValueDef>,
}

/// A model-local function.
pub(crate) struct FunctionDef {
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) attributes: Vec<String>,
    pub(crate) defaults: Vec<(String, Attr)>,
    pub(crate) nodes: Vec<NodeDef>,
    pub(crate) opsets: Opsets,
}

/// One node.
#[derive(Clone)]
pub(crate) struct NodeDef {
    pub(crate) name: String,
    pub(crate) op: String,
    /// "" for the default domain, however the file spells it.
    pub(crate) domain: String,
    pub(crate) overload: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) attributes: Vec<(String, Attr)>,
}

/// The value of an attribute.
#[derive(Clone)]
pub(crate) enum Attr {
    Int(i64),
    Float(f32),
    Text(Arc<[u8]>),
    Ints(Arc<[i64]>),
    Floats(Arc<[f32]>),
    Texts(Arc<[Vec<u8>]>),
    Tensor(Arc<TensorDef>),
    Graph(Arc<GraphDef>),
    /// In the body of a function: the attribute of that name of the node that calls it.
    Reference(String),
    /// A kind that no supported operator takes: sparse tensors, type descriptions, lists of tensors or graphs.
    Other(&'static str),
}

impl Attr {
    /// The kind, as messages name it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Attr::Int(_) => "an integer",
            Attr::Float(_) => "a float",
            Attr::Text(_) => "a string",
            Attr::Ints(_) => "a list of integers",
            Attr::Floats(_) => "a list of floats",
            Attr::Texts(_) => "a list of strings",
            Attr::Tensor(_) => "a tensor",
            Attr::Graph(_) => "a graph",
            Attr::Reference(_) => "a reference to an attribute of the calling node",
            Attr::Other(kind) => kind,
        }
    }
}

/// A named tensor of the file.
pub(crate) struct TensorDef {
    pub(crate) name: String,
    /// The data, or why there is none; without a place, which is where the tensor is used.
    pub(crate) content: Result<Constant, Problem>,
    /// Half floats, which nothing but a Cast to another type can use.
    pub(crate) half: Option<Half>,
}

/// The bits of half floats.
#[derive(Clone)]
pub(crate) struct Half {
    /// As u16.
    pub(crate) bits: Constant,
    /// bfloat16, else IEEE half precision.
    pub(crate) brain: bool,
}

/// A declared value: an input or an output.
pub(crate) struct ValueDef {
    pub(crate) name: String,
    pub(crate) ty: ValueType,
}

/// A declared type.
pub(crate) enum ValueType {
    Tensor {
        elem: i32,
        shape: Option<Vec<DimDef>>,
    },
    Undeclared,
    /// Sequences, maps, optionals, sparse tensors.
    Other(&'static str),
}

/// A declared dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DimDef {
    Known(i64),
    Named(String),
    Unnamed,
}

impl ModelDef {
    /// Takes a message apart. `folder` is where external data may lie.
    pub(crate) fn new(model: pb::ModelProto, folder: &Folder) -> ModelDef {
        let mut reader = Reader { folder, node_count: 0 };
        let functions = model.functions.into_iter().map(|f| reader.function(f)).collect();
        let graph = reader.graph(model.graph.0.map(|g| *g).unwrap_or_default());
        let producer = [model.producer_name, model.producer_version].join(" ").trim().to_string();
        let mut opsets = opsets(model.opset_import);
        if opsets.is_empty() && model.ir_version < 3 {
            opsets.insert(String::new(), 1); // files of IR versions 1 and 2 do not say: there was one operator set
        }
        ModelDef {
            ir_version: model.ir_version,
            producer,
            opsets,
            metadata: model.metadata_props.into_iter().map(|p| (p.key, p.value)).collect(),
            graph,
            functions,
            node_count: reader.node_count,
        }
    }
}

fn domain(name: String) -> String {
    if name == "ai.onnx" { String::new() } else { name }
}

fn opsets(imports: Vec<pb::OperatorSetIdProto>) -> Opsets {
    imports.into_iter().map(|o| (domain(o.domain), o.version)).collect()
}

struct Reader<'f> {
    folder: &'f Folder,
    node_count: usize,
}

impl Reader<'_> {
    fn function(&mut self, f: pb::FunctionProto) -> (FunctionKey, FunctionDef) {
        let key = FunctionKey { domain: domain(f.domain), name: f.name, overload: f.overload };
        let def = FunctionDef {
            inputs: f.input,
            outputs: f.output,
            attributes: f.attribute,
            defaults: f.attribute_proto.into_iter().map(|a| self.attribute(a)).collect(),
            nodes: f.node.into_iter().map(|n| self.node(n)).collect(),
            opsets: opsets(f.opset_import),
        };
        (key, def)
    }

    fn graph(&mut self, g: pb::GraphProto) -> GraphDef {
        let mut initializers: Vec<TensorDef> =
            g.initializer.into_iter().map(|t| tensor::decode(t, self.folder)).collect();
        initializers.extend(g.sparse_initializer.into_iter().map(|s| TensorDef {
            name: s.values.0.map(|v| v.name).unwrap_or_default(),
            content: Err(Problem::unsupported("sparse initializers")),
            half: None,
        }));
        GraphDef {
            name: g.name,
            nodes: g.node.into_iter().map(|n| self.node(n)).collect(),
            initializers,
            inputs: g.input.into_iter().map(value).collect(),
            outputs: g.output.into_iter().map(value).collect(),
        }
    }

    fn node(&mut self, n: pb::NodeProto) -> NodeDef {
        self.node_count += 1;
        NodeDef {
            name: n.name,
            op: n.op_type,
            domain: domain(n.domain),
            overload: n.overload,
            inputs: n.input,
            outputs: n.output,
            attributes: n.attribute.into_iter().map(|a| self.attribute(a)).collect(),
        }
    }

    fn attribute(&mut self, a: pb::AttributeProto) -> (String, Attr) {
        use pb::attribute_proto::AttributeType as T;
        if !a.ref_attr_name.is_empty() {
            return (a.name, Attr::Reference(a.ref_attr_name));
        }
        let kind = match a.type_.enum_value_or_default() {
            T::UNDEFINED => undeclared_kind(&a), // files of IR version 1 leave the kind out
            kind => kind,
        };
        let value = match kind {
            T::FLOAT => Attr::Float(a.f),
            T::STRING => Attr::Text(a.s.into()),
            T::TENSOR => Attr::Tensor(Arc::new(tensor::decode(a.t.0.map(|t| *t).unwrap_or_default(), self.folder))),
            T::GRAPH => Attr::Graph(Arc::new(self.graph(a.g.0.map(|g| *g).unwrap_or_default()))),
            T::FLOATS => Attr::Floats(a.floats.into()),
            T::INTS => Attr::Ints(a.ints.into()),
            T::STRINGS => Attr::Texts(a.strings.into()),
            T::SPARSE_TENSOR | T::SPARSE_TENSORS => Attr::Other("a sparse tensor"),
            T::TYPE_PROTO | T::TYPE_PROTOS => Attr::Other("a type"),
            T::TENSORS => Attr::Other("a list of tensors"),
            T::GRAPHS => Attr::Other("a list of graphs"),
            T::INT | T::UNDEFINED => Attr::Int(a.i),
        };
        (a.name, value)
    }
}

/// The kind of an attribute that does not declare it, by the field that is set. All fields empty reads as the integer 0, which
/// float attributes accept too.
fn undeclared_kind(a: &pb::AttributeProto) -> pb::attribute_proto::AttributeType {
    use pb::attribute_proto::AttributeType as T;
    if !a.ints.is_empty() {
        T::INTS
    } else if !a.floats.is_empty() {
        T::FLOATS
    } else if !a.strings.is_empty() {
        T::STRINGS
    } else if a.t.is_some() {
        T::TENSOR
    } else if a.g.is_some() {
        T::GRAPH
    } else if !a.s.is_empty() {
        T::STRING
    } else if a.f != 0.0 {
        T::FLOAT
    } else {
        T::INT
    }
}

fn value(v: pb::ValueInfoProto) -> ValueDef {
    use pb::type_proto::Value as V;
    let ty = match v.type_.0.and_then(|t| t.value) {
        None => ValueType::Undeclared,
        Some(V::TensorType(t)) => {
            ValueType::Tensor { elem: t.elem_type, shape: t.shape.0.map(|s| s.dim.into_iter().map(dim).collect()) }
        }
        Some(V::SequenceType(_)) => ValueType::Other("sequence"),
        Some(V::MapType(_)) => ValueType::Other("map"),
        Some(V::OptionalType(_)) => ValueType::Other("optional"),
        Some(_) => ValueType::Other("sparse tensor"),
    };
    ValueDef { name: v.name, ty }
}

fn dim(d: pb::tensor_shape_proto::Dimension) -> DimDef {
    use pb::tensor_shape_proto::dimension::Value as V;
    match d.value {
        Some(V::DimValue(n)) if n >= 0 => DimDef::Known(n),
        Some(V::DimParam(name)) if !name.is_empty() => DimDef::Named(name),
        _ => DimDef::Unnamed, // exporters also write -1 for "not known"
    }
}
