//! Models that were exported for a batch of one, in larger batches: they learn as if the batch were symbolic, bit by bit; they
//! infer what they infer of each sample alone; and where a node mixes the samples, it is named.

#[path = "support/command.rs"]
mod command;

use command::{Folder, done, nncc};
use nncc::{Compiler, DType, Tensor, arrays};
use onnx_protobuf::tensor_shape_proto::dimension::Value as Dimension;
use onnx_protobuf::{AttributeProto, Message, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};
use std::path::{Path, PathBuf};

/// The dimensions of a declared value.
fn set_batch_of_one(value: &mut ValueInfoProto) {
    let Some(type_proto::Value::TensorType(tensor)) = &mut value.type_.as_mut().unwrap().value else {
        panic!("{} is a tensor", value.name)
    };
    tensor.shape.as_mut().unwrap().dim[0].value = Some(Dimension::DimValue(1));
}

/// A network of `nncc new`, and the same as an exporter writes it that traces one sample: inputs and outputs are declared for
/// it, and what flattens has its size baked in.
fn symbolic_and_fixed(folder: &Folder, arch: &str) -> [String; 2] {
    let (symbolic, fixed) = (folder.file(&format!("{arch}.onnx")), folder.file(&format!("{arch}-one.onnx")));
    done(&["new", arch, "--classes", "4", "--input", "1x8x8", "-o", &symbolic]);
    let mut model = ModelProto::parse_from_bytes(&std::fs::read(&symbolic).unwrap()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    graph.input.iter_mut().chain(&mut graph.output).for_each(set_batch_of_one);
    let mut flat = 0;
    for node in graph.node.iter_mut().filter(|n| n.op_type == "Flatten") {
        *node = NodeProto { op_type: "Reshape".into(), attribute: Vec::new(), ..node.clone() };
        node.input.push("one-row".into());
        flat += 1;
    }
    assert_eq!(flat, 1, "{arch} flattens once");
    let shape = TensorProto {
        name: "one-row".into(),
        dims: vec![2],
        data_type: 7,
        int64_data: vec![1, -1],
        ..Default::default()
    };
    graph.initializer.push(shape);
    std::fs::write(&fixed, model.write_to_bytes().unwrap()).unwrap();
    [symbolic, fixed]
}

/// A copy of a model with a Softmax over the batch behind it.
fn mixing(folder: &Folder, model: &str) -> String {
    let mut model = ModelProto::parse_from_bytes(&std::fs::read(model).unwrap()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let axis = AttributeProto {
        name: "axis".into(),
        type_: onnx_protobuf::attribute_proto::AttributeType::INT.into(),
        i: 0,
        ..Default::default()
    };
    let mixed = NodeProto {
        name: "Mix_7".into(),
        op_type: "Softmax".into(),
        input: vec![graph.output[0].name.clone()],
        output: vec!["mixed".into()],
        attribute: vec![axis],
        ..Default::default()
    };
    graph.node.push(mixed);
    graph.output[0].name = "mixed".into();
    let path = folder.file("mixing.onnx");
    std::fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
    path
}

fn pictures(folder: &Folder, count: usize) -> String {
    let x = nncc_ir::random::tensor(DType::F32, &[count, 1, 8, 8], 3);
    let y = Tensor::i64(&[count], (0..count as i64).map(|i| i % 4).collect());
    arrays::write_npz(&folder.path("data.npz"), [("x", &x), ("y", &y)]).unwrap();
    folder.file("data.npz")
}

/// The initializers of a model file that are weights, by name.
fn weights(path: &str) -> Vec<(String, Vec<u8>)> {
    let model = ModelProto::parse_from_bytes(&std::fs::read(path).unwrap()).unwrap();
    let floats = model.graph.initializer.iter().filter(|t| t.data_type == 1);
    floats.map(|t| (t.name.clone(), t.raw_data.to_vec())).collect()
}

#[test]
fn a_fixed_batch_learns_as_a_symbolic_one() {
    let folder = Folder::new("batches-learn");
    let data = pictures(&folder, 40);
    for arch in ["mlp", "resnet20"] {
        let models = symbolic_and_fixed(&folder, arch);
        // 16, 16 and the 8 that are left: two sizes of a batch
        let learn = ["--data", &data, "--epochs", "2", "--batch-size", "16", "--optim", "momentum", "--lr", "0.01"];
        let trained: Vec<Vec<(String, Vec<u8>)>> = (models.iter())
            .map(|model| {
                let out = folder.file("out.onnx");
                let output = nncc(&[&["train", model, "-o", &out][..], &learn].concat());
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                weights(&out)
            })
            .collect();
        assert!(trained[0] == trained[1], "{arch}: the weights differ");
        assert!(trained[0] != weights(&models[0]), "{arch}: nothing was learnt");
        let figures = models.each_ref().map(|model| done(&["eval", model, "--data", &data, "--batch-size", "7"]));
        assert_eq!(figures[0], figures[1]);
    }
}

#[test]
fn a_library_of_a_fixed_batch_takes_others() {
    let folder = Folder::new("batches-infer");
    let [_, model] = symbolic_and_fixed(&folder, "resnet20");
    let library = folder.file("sets.so");
    assert_eq!(done(&[&model, "--batch", "1,5", "-o", &library]), "");
    let header = std::fs::read_to_string(folder.file("sets.h")).unwrap();
    assert!(header.contains("_SET_COUNT 2u\n"), "{header}");
    let verified = done(&["verify", &model, &library, "--rounds", "1"]);
    assert!(verified.contains("shape set 1, input: f32[5,1,8,8]"), "{verified}");
    // The shape of an input, or the data themselves, ask for a batch as well.
    let listed = done(&["inspect", &model, "--shape", "input=3x1x8x8"]);
    assert!(listed.contains("f32[3,4]"), "{listed}");
    let three = nncc_ir::random::tensor(DType::F32, &[3, 1, 8, 8], 1);
    arrays::write_npy(&folder.path("three.npy"), &three).unwrap();
    let input = format!("input={}", folder.file("three.npy"));
    assert!(done(&["run", &model, "--input", &input]).contains("f32[3,4]"));
    let report: serde_json::Value =
        serde_json::from_str(&done(&["bench", &model, "--batch", "3", "-O1", "--seconds", "0.01", "--json"])).unwrap();
    let alone: serde_json::Value =
        serde_json::from_str(&done(&["bench", &model, "--seconds", "0.01", "--json"])).unwrap();
    assert!(report["macs"].as_u64().unwrap() == 3 * alone["macs"].as_u64().unwrap(), "{report}");
    // A library that learns has the batches of a recipe.
    done(&[&model, "--train", "--infer-batch", "1,3", "--emit", "header", "-o", &folder.file("train.h")]);
    let header = std::fs::read_to_string(folder.file("train.h")).unwrap();
    let sizes = [32, 32, 1, 3].map(|n| header.matches(&format!("input 0  f32[{n}, 1, 8, 8]  \"input\"")).count());
    assert_eq!(sizes, [2, 2, 1, 1], "{header}");
}

/// Rows of a batch against the rows alone: other kernels, so another order of sums.
#[test]
fn efficientnet_lite0_infers_in_batches() {
    let model = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/classify/efficientnet_lite0.onnx");
    let compiled = Compiler::new().target_cpu("native").batch(&[1, 3]).load(&model).unwrap().jit().unwrap();
    let x = nncc_ir::random::tensor(DType::F32, &[3, 3, 224, 224], 5);
    let together = compiled.run(std::slice::from_ref(&x)).unwrap()[0].to_f64();
    assert_eq!(together.len(), 3 * 1000);
    let values = x.to_f64();
    for (row, picture) in together.chunks(1000).zip(values.chunks(3 * 224 * 224)) {
        let alone = compiled.run(&[Tensor::from_f64(DType::F32, &[1, 3, 224, 224], picture)]).unwrap()[0].to_f64();
        let range =
            alone.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v)) - alone.iter().fold(f64::INFINITY, |m, &v| m.min(v));
        let off = row.iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(range > 1.0 && off < 1e-5 * range, "{off:.2e} of a range of {range}");
    }
}

#[test]
fn a_node_that_mixes_samples_is_named() {
    let folder = Folder::new("batches-refused");
    let [_, model] = symbolic_and_fixed(&folder, "mlp");
    let model = mixing(&folder, &model);
    let data = pictures(&folder, 8);
    let refused = |args: &[&str], message: &str| {
        let output = nncc(args);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), complaint.trim_end()), (Some(1), message), "nncc {args:?}");
    };
    let named = |to: usize| {
        format!(
            "error: the batch of 1 cannot become one of {to}: node \"Mix_7\" (softmax of f32[1,4]) does not keep its samples \
             apart\n  --> {model}\n  help: export the model with a symbolic first dimension"
        )
    };
    let out = folder.file("out.so");
    refused(&[&model, "--batch", "16", "-o", &out], &named(16));
    refused(&["eval", &model, "--data", &data, "--batch-size", "8"], &named(8));
    refused(&[&model, "--train", "-o", &out], &named(32));
    // As it was made it is no worse than before.
    done(&[&model, "--batch", "1", "-o", &out]);
    assert!(Path::new(&out).exists());
    refused(
        &[&model, "--train", "--batch", "1", "-o", &out],
        "error: --batch is for a library that infers; --batch-size and --infer-batch are for one that learns",
    );
    refused(
        &[&model, "--batch", "4", "--shape", "input=3x1x8x8", "-o", &out],
        "error: input \"input\" has a batch of 3, where 4 is the size of the batch",
    );
}
