//! A new last layer for another number of classes, to fine-tune a network that tells other things apart.
//!
//! ```text
//! .. ─> Gemm | MatMul (+ Add) | Conv ─> Softmax, Flatten, GlobalAveragePool, .. ─> output [N, old]
//!       weight [old, in], bias [old]  become  [classes, in], [classes], drawn anew as PyTorch draws a new layer's
//! ```
//!
//! Found from the first output backwards, through operators that keep the classes apart. The names stay, so that patterns of
//! names fit as before. Declared shapes in between go, the output's gets the new number; external data moves into the file.

use crate::export::{self, ExportError};
use crate::problem::ImportErrors;
use crate::{parse, tensor};
use nncc_ir::DType;
use nncc_ir::init::{Init, InitError};
use onnx_protobuf as pb;
use std::path::Path;

/// Operators between the last layer and the output that are walked through.
const BEHIND: [&str; 11] = [
    "Softmax",
    "LogSoftmax",
    "Sigmoid",
    "Identity",
    "Flatten",
    "Squeeze",
    "Dropout",
    "Relu",
    "GlobalAveragePool",
    "Cast",
    "Reshape",
];
/// How many of them.
const STEPS: usize = 16;
/// Elements of a new weight: a gigabyte.
const LARGEST: usize = 1 << 28;

/// Why a head cannot be replaced.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The file cannot be read.
    #[error(transparent)]
    Original(#[from] ImportErrors),
    /// The new model cannot be written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The model ends in another way.
    #[error("{file}: its last layer cannot be replaced: {reason}")]
    Model {
        /// The file.
        file: String,
        /// What is in the way.
        reason: String,
    },
}

/// A model with a new head.
#[derive(Clone, Debug)]
pub struct Headed {
    /// The file, with all data in it.
    pub bytes: Vec<u8>,
    /// The names of the new weights.
    pub parameters: Vec<String>,
}

/// Replaces the last layer by one for `classes` classes, drawn from `seed`.
pub fn replace_head(path: &Path, classes: usize, seed: u64) -> Result<Headed, HeadError> {
    let (mut model, folder) = parse::open(path)?;
    let file = path.display().to_string();
    export::embed_all(&mut model, &folder, &file)?;
    let graph = model.graph.mut_or_insert_default();
    let parameters = replace(graph, classes, seed).map_err(|reason| HeadError::Model { file: file.clone(), reason })?;
    Ok(Headed { bytes: export::encode(&model, &file)?, parameters })
}

/// Where the classes are: a weight's place among the initializers, its axis of classes, and the bias.
struct Head {
    weight: usize,
    axis: usize,
    bias: Option<usize>,
}

fn replace(graph: &mut pb::GraphProto, classes: usize, seed: u64) -> Result<Vec<String>, String> {
    let Head { weight, axis, bias } = find(graph)?;
    let mut dims = dims(&graph.initializer[weight])?;
    let old = dims[axis];
    dims[axis] = classes;
    let elems = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= LARGEST && classes > 0);
    let elems = elems.ok_or_else(|| format!("a layer for {classes} classes"))?;
    let init = Init::default_of(elems / classes);
    let mut parameters = Vec::new();
    for (at, dims) in std::iter::once((weight, dims)).chain(bias.map(|at| (at, vec![classes]))) {
        let t = &mut graph.initializer[at];
        // A bias is as long as it was but for the classes, whatever axes of 1 stand before them.
        let own = self::dims(t)?;
        let lead = own.len().saturating_sub(dims.len());
        if own[lead..].iter().product::<usize>() / old.max(1) * classes != dims.iter().product::<usize>() {
            return Err(format!("its bias \"{}\" is not one number a class", t.name));
        }
        let dims = [&own[..lead], &dims[..]].concat();
        let drawn = |e: InitError| e.to_string();
        *t = tensor::encode(&t.name, &init.tensor(&dims, seed, &t.name).map_err(drawn)?);
        parameters.push(t.name.clone());
    }
    graph.value_info.clear();
    if let Some(shape) = graph.output.first_mut().and_then(shape_of) {
        // The last axis that had the old number: the classes of [N, C] and of [N, 1, C].
        let counted = |d: &&mut pb::tensor_shape_proto::Dimension| d.dim_value() == old as i64 && d.has_dim_value();
        if let Some(dim) = shape.dim.iter_mut().skip(1).filter(counted).last() {
            dim.set_dim_value(classes as i64);
        }
    }
    Ok(parameters)
}

fn shape_of(value: &mut pb::ValueInfoProto) -> Option<&mut pb::TensorShapeProto> {
    match value.type_.as_mut()?.value.as_mut()? {
        pb::type_proto::Value::TensorType(t) => t.shape.as_mut(),
        _ => None,
    }
}

/// The dimensions of an f32 initializer.
fn dims(t: &pb::TensorProto) -> Result<Vec<usize>, String> {
    if t.data_type != tensor::code_of(DType::F32) as i32 {
        return Err(format!("\"{}\" is not of type f32", t.name));
    }
    t.dims
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| format!("a dimension of \"{}\" is negative", t.name)))
        .collect()
}

fn find(graph: &pb::GraphProto) -> Result<Head, String> {
    let mut name = graph.output.first().ok_or("it has no output")?.name.as_str();
    let mut added = None;
    let initializer = |name: Option<&String>| graph.initializer.iter().position(|t| Some(&t.name) == name);
    for _ in 0..STEPS {
        let node = graph.node.iter().find(|n| n.output.iter().any(|o| o == name));
        let node = node.ok_or("no layer with weights stands before its output")?;
        let place = || format!("node \"{}\" ({})", node.name, node.op_type);
        let own =
            |i: usize| initializer(node.input.get(i)).ok_or_else(|| format!("{} has no weights in the file", place()));
        let int = |name: &str| node.attribute.iter().find(|a| a.name == name).map_or(0, |a| a.i);
        let axis = match node.op_type.as_str() {
            "Gemm" if int("transB") == 0 => 1,
            "Gemm" => 0,
            "MatMul" => 1,
            "Conv" if int("group") <= 1 => 0,
            "Add" => {
                let bias = [0, 1].into_iter().find(|&i| initializer(node.input.get(i)).is_some());
                let bias = bias.filter(|_| added.is_none()).ok_or_else(|| format!("{} adds two layers", place()))?;
                added = initializer(node.input.get(bias));
                name = &node.input[1 - bias];
                continue;
            }
            "Reshape" if initializer(node.input.get(1)).is_some_and(|i| !keeps(&graph.initializer[i])) => {
                return Err(format!("{} says the number of classes", place()));
            }
            op if BEHIND.contains(&op) && !node.input.is_empty() => {
                name = &node.input[0];
                continue;
            }
            _ => return Err(format!("{} is in the way", place())),
        };
        let (weight, bias) = (own(1)?, initializer(node.input.get(2)).or(added));
        let rank = graph.initializer[weight].dims.len();
        if rank <= axis || rank == 3 && node.op_type != "Conv" {
            return Err(format!("{} has a weight of {rank} axes", place()));
        }
        for at in std::iter::once(weight).chain(bias) {
            let name = &graph.initializer[at].name;
            let users = graph.node.iter().flat_map(|n| &n.input).filter(|i| *i == name).count();
            if users != 1 {
                return Err(format!("\"{name}\" has {users} users, which would all change"));
            }
        }
        return Ok(Head { weight, axis, bias });
    }
    Err(format!("more than {STEPS} nodes stand behind its last layer"))
}

/// Whether a target shape leaves the classes to be counted: `[N, -1]`, `[0, -1]`.
fn keeps(shape: &pb::TensorProto) -> bool {
    let last = match shape.int64_data.last() {
        Some(n) => Some(*n),
        None => shape.raw_data.last_chunk().map(|b| i64::from_le_bytes(*b)),
    };
    last == Some(-1)
}
