//! Writing models: what is replaced, what stays, and every refusal.

use nncc_frontend::author::{Attribute, Author};
use nncc_frontend::export::{replace_values, write_model};
use nncc_frontend::{ImportOptions, Model};
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::{DType, Tensor};
use onnx_protobuf as pb;
use onnx_protobuf::Message;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `y = x . w^T + b`, with what an importer does not read beside it.
fn affine() -> pb::ModelProto {
    let mut model = Author::new("affine", 20);
    let x = model.input("x", DType::F32, &[None, Some(2)]);
    let w = model.initializer("fc.weight", &Tensor::f32(&[3, 2], vec![1.0; 6]));
    let b = model.initializer("fc.bias", &Tensor::f32(&[3], vec![0.0; 3]));
    let y = model.node("Gemm", "fc", &[&x, &w, &b], &[("transB", Attribute::Int(1))]);
    model.output(&y, DType::F32, &[None, Some(3)]);
    let mut proto = pb::ModelProto::parse_from_bytes(&model.to_bytes("affine").unwrap()).unwrap();
    proto.doc_string = "kept".into();
    proto.special_fields.mut_unknown_fields().add_varint(900, 7); // a field of some later version
    proto.metadata_props.push(entry("author", "somebody"));
    proto
}

fn entry(key: &str, value: &str) -> pb::StringStringEntryProto {
    pb::StringStringEntryProto { key: key.into(), value: value.into(), ..Default::default() }
}

fn values(pairs: &[(&str, Tensor)]) -> BTreeMap<String, Tensor> {
    pairs.iter().map(|(name, t)| (name.to_string(), t.clone())).collect()
}

fn run(bytes: &[u8], x: Tensor) -> Vec<f64> {
    let mut options = ImportOptions::default();
    options.dims.insert("N".into(), 1);
    let graph = Model::from_bytes(bytes, "m", None).unwrap().import(&options).unwrap().graph;
    evaluate(&graph, &[x], Precision::Native).unwrap()[0].to_f64()
}

/// A folder of its own for one test.
fn scene(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("nncc-export-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A new head is as PyTorch draws one, and the file still runs; what stands behind the layer is walked through.
#[test]
fn heads_are_replaced() {
    let folder = scene("head");
    let path = folder.join("m.onnx");
    let headed = |proto: &pb::ModelProto, classes| {
        std::fs::write(&path, proto.write_to_bytes().unwrap()).unwrap();
        nncc_frontend::head::replace_head(&path, classes, 3).map_err(|e| e.to_string())
    };
    let mut proto = affine();
    let new = headed(&proto, 5).unwrap();
    assert_eq!(new.parameters, ["fc.weight", "fc.bias"]);
    assert_eq!(run(&new.bytes, Tensor::f32(&[1, 2], vec![1.0, 2.0])).len(), 5);
    let back = pb::ModelProto::parse_from_bytes(&new.bytes).unwrap();
    assert_eq!(Model::from_bytes(&new.bytes, "m", None).unwrap().describe().outputs[0].to_string(), "fc: f32[N,5]");
    assert_eq!(back.graph.initializer[0].dims, [5, 2]);
    let weights: Vec<f32> =
        back.graph.initializer[0].raw_data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let bound = 1.0 / 2f32.sqrt();
    assert!(weights.iter().all(|w| w.abs() <= bound) && weights.iter().any(|w| w.abs() > 0.3 * bound), "{weights:?}");

    // a softmax behind, the bias in a node of its own, a weight that is not turned
    let mut model = Author::new("m", 20);
    let x = model.input("x", DType::F32, &[None, Some(2)]);
    let w = model.initializer("w", &Tensor::f32(&[2, 3], vec![1.0; 6]));
    let b = model.initializer("b", &Tensor::f32(&[1, 3], vec![0.0; 3]));
    let y = model.node("MatMul", "mm", &[&x, &w], &[]);
    let y = model.node("Add", "add", &[&b, &y], &[]);
    let y = model.node("Softmax", "p", &[&y], &[]);
    model.output(&y, DType::F32, &[None, Some(3)]);
    let other = pb::ModelProto::parse_from_bytes(&model.to_bytes("m").unwrap()).unwrap();
    let new = headed(&other, 2).unwrap();
    let p = run(&new.bytes, Tensor::f32(&[1, 2], vec![1.0, 2.0]));
    assert!(p.len() == 2 && (p.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{p:?}");

    let refusal = |proto: &pb::ModelProto, classes| {
        headed(proto, classes)
            .unwrap_err()
            .replace(&format!("{}: its last layer cannot be replaced: ", path.display()), "")
    };
    proto.graph.as_mut().unwrap().node[0].op_type = "Sin".into();
    assert_eq!(refusal(&proto, 5), "node \"fc\" (Sin) is in the way");
    assert_eq!(refusal(&other, 0), "a layer for 0 classes");
    assert_eq!(refusal(&other, 1 << 40), "a layer for 1099511627776 classes");
    let mut shared = other.clone();
    shared.graph.as_mut().unwrap().node[0].input[0] = "b".into();
    assert_eq!(refusal(&shared, 5), "\"b\" has 2 users, which would all change");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn only_what_is_named_changes() {
    let original = affine();
    let new = values(&[("fc.bias", Tensor::f32(&[3], vec![1.0, 2.0, 3.0]))]);
    let bytes = replace_values(&original.write_to_bytes().unwrap(), &new, "m").unwrap();
    assert_eq!(run(&bytes, Tensor::f32(&[1, 2], vec![10.0, 20.0])), [31.0, 32.0, 33.0]);
    let mut back = pb::ModelProto::parse_from_bytes(&bytes).unwrap();
    let b = &mut back.graph.as_mut().unwrap().initializer[1];
    b.raw_data = vec![0; 12];
    assert_eq!(back, original);
}

/// What an importer folds has the name of the node's output: the node gives way to an initializer.
#[test]
fn a_folded_node_becomes_an_initializer() {
    let mut model = affine();
    let graph = model.graph.as_mut().unwrap();
    let half = pb::TensorProto {
        name: "half".into(),
        data_type: 10,
        dims: vec![3],
        raw_data: vec![0; 6],
        ..Default::default()
    };
    graph.initializer[1] = half;
    let cast = pb::NodeProto {
        op_type: "Cast".into(),
        input: vec!["half".into()],
        output: vec!["fc.bias".into()],
        attribute: vec![pb::AttributeProto {
            name: "to".into(),
            type_: pb::attribute_proto::AttributeType::INT.into(),
            i: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    graph.node.insert(0, cast);
    let new = values(&[("fc.bias", Tensor::f32(&[3], vec![1.0, 2.0, 3.0]))]);
    let bytes = replace_values(&model.write_to_bytes().unwrap(), &new, "m").unwrap();
    assert_eq!(run(&bytes, Tensor::f32(&[1, 2], vec![0.0, 0.0])), [1.0, 2.0, 3.0]);
    assert_eq!(pb::ModelProto::parse_from_bytes(&bytes).unwrap().graph.node.len(), 1);
}

#[test]
fn data_beside_the_model_moves_into_it() {
    let folder = scene("external");
    let mut model = affine();
    let graph = model.graph.as_mut().unwrap();
    let w = &mut graph.initializer[0];
    std::fs::write(folder.join("weights"), [&[0; 4][..], &w.raw_data].concat()).unwrap();
    w.raw_data.clear();
    w.data_location = pb::tensor_proto::DataLocation::EXTERNAL.into();
    w.external_data = vec![entry("location", "weights"), entry("offset", "4")];
    std::fs::write(folder.join("m.onnx"), model.write_to_bytes().unwrap()).unwrap();
    let out = folder.join("out.onnx");
    let new = values(&[("fc.bias", Tensor::f32(&[3], vec![0.5; 3]))]);
    write_model(&folder.join("m.onnx"), &new, &out).unwrap();
    std::fs::remove_file(folder.join("weights")).unwrap();
    assert_eq!(run(&std::fs::read(&out).unwrap(), Tensor::f32(&[1, 2], vec![1.0, 2.0])), [3.5; 3]);
    let missing = write_model(&folder.join("m.onnx"), &new, &out).unwrap_err().to_string();
    assert!(missing.contains("initializer \"fc.weight\"") && missing.contains("`weights`"), "{missing}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_does_not_fit_is_named() {
    let bytes = affine().write_to_bytes().unwrap();
    let error = |name: &str, t| replace_values(&bytes, &values(&[(name, t)]), "m.onnx").unwrap_err().to_string();
    assert_eq!(
        error("fc.bias", Tensor::f32(&[4], vec![0.0; 4])),
        "m.onnx: `fc.bias` is f32[3], and the value for it is f32[4]"
    );
    assert_eq!(
        error("fc.scale", Tensor::f32(&[3], vec![0.0; 3])),
        "m.onnx: nothing in the graph of the model is called `fc.scale`, so no value can be written there"
    );
}

#[test]
fn a_refused_write_leaves_the_old_file() {
    let folder = scene("refused");
    let original = folder.join("m.onnx");
    std::fs::write(&original, affine().write_to_bytes().unwrap()).unwrap();
    let out = folder.join("a folder");
    std::fs::create_dir_all(out.join("with something in it")).unwrap();
    let error = write_model(&original, &BTreeMap::new(), &out).unwrap_err().to_string();
    assert!(error.contains("a folder cannot be written: "), "{error}");
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    // Over the original itself.
    write_model(&original, &values(&[("fc.bias", Tensor::f32(&[3], vec![9.0; 3]))]), &original).unwrap();
    assert_eq!(run(&std::fs::read(&original).unwrap(), Tensor::f32(&[1, 2], vec![0.0; 2])), [9.0; 3]);
    std::fs::remove_dir_all(folder).unwrap();
}
