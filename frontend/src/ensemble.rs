//! Several models of one input as one model: what they say together.
//!
//! ```text
//!          ┌─ first  ─ Softmax ─┐                      mean          the mean of the outputs
//! input ───┼─ second ─ Softmax ─┼─ Mean ─ Log ─ out    probability   ln of the mean of the softmaxes, as drawn: logits whose
//!          └─ third  ─ Softmax ─┘                                    softmax is that mean
//!                                                      vote          the share of votes for a class, each with its weight
//!
//! stack                 Concat of the softmaxes ─ Gemm ─ out          logits, by weights that a combiner has learnt
//! ```
//!
//! The first model says what input and output are called; the names inside get the model's number in front. Only the first
//! output of each counts. External data moves into the file.

use crate::export::{self, ExportError};
use crate::parse;
use crate::problem::ImportErrors;
use nncc_ir::Tensor;
use onnx_protobuf as pb;
use std::path::Path;

/// How outputs become one.
#[derive(Clone, Debug, PartialEq)]
pub enum Together {
    /// The mean of the outputs: of numbers, or of probabilities.
    Mean,
    /// The mean of the probabilities, of models that give logits.
    Probability,
    /// The share of votes, each model's with its weight.
    Vote(Vec<f64>),
    /// Logits that are a linear function of all models' probabilities.
    Stack(Combiner),
}

/// That linear function, of C classes and M models: `weight p + bias`, p the probabilities of the first model, then the second's, ..
#[derive(Clone, Debug, PartialEq)]
pub struct Combiner {
    /// `f32[C, M C]`.
    pub weight: Tensor,
    /// `f32[C]`.
    pub bias: Tensor,
}

/// Why models cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum EnsembleError {
    /// One cannot be read.
    #[error(transparent)]
    Original(#[from] ImportErrors),
    /// The result cannot be written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// One does not fit the first.
    #[error("{file}: {reason}")]
    Misfit {
        /// Which.
        file: String,
        /// Why.
        reason: String,
    },
}

/// Writes the models of these files as one.
pub fn write_ensemble(paths: &[&Path], together: &Together, out: &Path) -> Result<(), EnsembleError> {
    let mut models = Vec::new();
    for path in paths {
        let (mut model, folder) = parse::open(path)?;
        let file = path.display().to_string();
        export::embed_all(&mut model, &folder, &file)?;
        models.push((file, model));
    }
    let model = merged(models, together)?;
    Ok(export::write(&model, out)?)
}

/// Whether a model's output is that of a Softmax: probabilities already.
pub fn gives_probabilities(path: &Path) -> Result<bool, EnsembleError> {
    let (model, _) = parse::open(path)?;
    Ok(ends(&model).is_some_and(|[_, output]| made_by_softmax(&model, &output)))
}

fn made_by_softmax(model: &pb::ModelProto, output: &str) -> bool {
    let graph = model.graph.as_ref();
    graph.is_some_and(|g| g.node.iter().any(|n| n.op_type == "Softmax" && n.output.iter().any(|o| o == output)))
}

fn merged(models: Vec<(String, pb::ModelProto)>, together: &Together) -> Result<pb::ModelProto, EnsembleError> {
    let mut models = models.into_iter();
    let misfit = |file: &str, reason: &str| EnsembleError::Misfit { file: file.into(), reason: reason.into() };
    let Some((file, mut whole)) = models.next() else { return Err(misfit("ensemble", "there is no model")) };
    let [input, output] = ends(&whole).ok_or_else(|| misfit(&file, "a model of one input and an output is needed"))?;
    let classes = classes(&whole);
    if matches!(together, Together::Vote(_)) && classes.is_none() {
        return Err(misfit(&file, "its output does not say how many classes there are"));
    }
    let opsets = |m: &pb::ModelProto| {
        let mut v: Vec<(String, i64)> = m.opset_import.iter().map(|o| (o.domain.clone(), o.version)).collect();
        v.sort();
        v
    };
    let shared = opsets(&whole);
    let mut probabilities = vec![made_by_softmax(&whole, &output)];
    let mut outputs = vec![rename(&mut whole, 0, &input, &input, &output)];
    for (i, (file, mut model)) in models.enumerate() {
        let [own_input, own_output] =
            ends(&model).ok_or_else(|| misfit(&file, "a model of one input and an output is needed"))?;
        if opsets(&model) != shared {
            return Err(misfit(&file, "its operator sets are not those of the first"));
        }
        if !model.functions.is_empty() || !whole.functions.is_empty() {
            return Err(misfit(&file, "functions of two models may differ under one name"));
        }
        if shape(&model) != shape(&whole) {
            return Err(misfit(&file, "its input or output is not like the first's"));
        }
        probabilities.push(made_by_softmax(&model, &own_output));
        outputs.push(rename(&mut model, i + 1, &own_input, &input, &own_output));
        let (from, to) = (model.graph.mut_or_insert_default(), whole.graph.mut_or_insert_default());
        to.node.append(&mut from.node);
        to.initializer.append(&mut from.initializer);
        to.sparse_initializer.append(&mut from.sparse_initializer);
    }
    let graph = whole.graph.mut_or_insert_default();
    graph.value_info.clear();
    graph.output.truncate(1);
    let mut add = |op: &str, inputs: Vec<String>, output: String, ints: &[(&str, i64)]| {
        let attribute = |&(name, i): &(&str, i64)| pb::AttributeProto {
            name: name.into(),
            type_: pb::attribute_proto::AttributeType::INT.into(),
            i,
            ..Default::default()
        };
        let (op_type, name, output) = (op.into(), output.clone(), vec![output]);
        let attribute = ints.iter().map(attribute).collect();
        graph.node.push(pb::NodeProto { op_type, name, input: inputs, output, attribute, ..Default::default() });
    };
    let each = |i: usize| format!("ensemble/{i}");
    match together {
        Together::Mean => add("Mean", outputs, output, &[]),
        Together::Probability => {
            let n = outputs.len();
            for (i, name) in outputs.into_iter().enumerate() {
                add("Softmax", vec![name], each(i), &[("axis", 1)]);
            }
            add("Mean", (0..n).map(each).collect(), "ensemble/mean".into(), &[]);
            add("Log", vec!["ensemble/mean".into()], output, &[]);
        }
        Together::Stack(combiner) => {
            for (i, name) in outputs.iter_mut().enumerate().filter(|(i, _)| !probabilities[*i]) {
                let own = std::mem::replace(name, each(i));
                add("Softmax", vec![own], each(i), &[("axis", 1)]);
            }
            let [features, weight, bias] = ["features", "weight", "bias"].map(|n| format!("ensemble/{n}"));
            add("Concat", outputs, features.clone(), &[("axis", 1)]);
            add("Gemm", vec![features, weight.clone(), bias.clone()], output, &[("transB", 1)]);
            graph.initializer.push(crate::tensor::encode(&weight, &combiner.weight));
            graph.initializer.push(crate::tensor::encode(&bias, &combiner.bias));
        }
        Together::Vote(weights) => {
            let n = outputs.len();
            let all: f64 = weights.iter().take(n).sum();
            for (i, name) in outputs.into_iter().enumerate() {
                add("ArgMax", vec![name], format!("ensemble/best{i}"), &[("axis", 1), ("keepdims", 0)]);
                let operands = [format!("ensemble/best{i}"), "ensemble/classes".into(), format!("ensemble/votes{i}")];
                add("OneHot", operands.to_vec(), each(i), &[("axis", 1)]);
            }
            add("Sum", (0..n).map(each).collect(), output, &[]);
            let count = Tensor::i64(&[], vec![classes.unwrap_or(0)]);
            graph.initializer.push(crate::tensor::encode("ensemble/classes", &count));
            for i in 0..n {
                let share = weights.get(i).map_or(0.0, |w| w / all) as f32;
                let votes = Tensor::f32(&[2], vec![0.0, share]);
                graph.initializer.push(crate::tensor::encode(&format!("ensemble/votes{i}"), &votes));
            }
        }
    }
    Ok(whole)
}

/// The names of the one input that is no initializer, and of the first output.
fn ends(model: &pb::ModelProto) -> Option<[String; 2]> {
    let graph = model.graph.as_ref()?;
    let mut inputs = graph.input.iter().filter(|i| graph.initializer.iter().all(|t| t.name != i.name));
    let (input, output) = (inputs.next()?, graph.output.first()?);
    inputs.next().is_none().then(|| [input.name.clone(), output.name.clone()])
}

/// Types and shapes of input and output, as they are declared, without the names of open dimensions.
fn shape(model: &pb::ModelProto) -> Vec<(i32, Vec<i64>)> {
    let Some(graph) = model.graph.as_ref() else { return Vec::new() };
    let initial = |name: &str| graph.initializer.iter().any(|t| t.name == name);
    let of = |v: &pb::ValueInfoProto| match v.type_.as_ref().and_then(|t| t.value.as_ref()) {
        Some(pb::type_proto::Value::TensorType(t)) => {
            (t.elem_type, t.shape.iter().flat_map(|s| &s.dim).map(|d| d.dim_value()).collect())
        }
        _ => (0, Vec::new()),
    };
    graph.input.iter().filter(|i| !initial(&i.name)).chain(graph.output.first()).map(of).collect()
}

fn classes(model: &pb::ModelProto) -> Option<i64> {
    shape(model).last().and_then(|(_, dims)| dims.get(1).copied()).filter(|&n| n > 0)
}

/// Puts a number in front of every name but the input's, which becomes `shared`. Gives the new name of `output`.
fn rename(model: &mut pb::ModelProto, number: usize, input: &str, shared: &str, output: &str) -> String {
    let new = |name: &str| match name {
        "" => String::new(),
        name if name == input => shared.to_string(),
        name => format!("m{number}/{name}"),
    };
    let graph = model.graph.mut_or_insert_default();
    rename_graph(graph, &new);
    // The declared ends keep the names that a user knows.
    graph.input.retain(|i| i.name == shared);
    if let Some(first) = graph.output.first_mut() {
        first.name = output.to_string();
    }
    new(output)
}

fn rename_graph(graph: &mut pb::GraphProto, new: &dyn Fn(&str) -> String) {
    let tensors = graph.initializer.iter_mut().map(|t| &mut t.name);
    let sparse = graph.sparse_initializer.iter_mut().filter_map(|t| t.values.as_mut()).map(|t| &mut t.name);
    let declared = graph.input.iter_mut().chain(&mut graph.output).map(|v| &mut v.name);
    tensors.chain(sparse).chain(declared).for_each(|name| *name = new(name));
    graph.value_info.clear();
    graph.quantization_annotation.clear();
    for node in &mut graph.node {
        node.name = new(&node.name);
        node.input.iter_mut().chain(&mut node.output).for_each(|name| *name = new(name));
        for a in &mut node.attribute {
            a.g.as_mut().into_iter().chain(&mut a.graphs).for_each(|g| rename_graph(g, new));
        }
    }
}
