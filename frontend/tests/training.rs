//! Imports for training: what a training step needs stays in the graph.

use nncc_frontend::author::{Attribute, Author};
use nncc_frontend::{Import, ImportOptions, Model};
use nncc_ir::{DType, Op, Tensor};

/// A dense layer whose weight stands transposed in the file, a batch normalization and a dropout.
fn import(training: bool, training_mode: i64) -> Import {
    let mut model = Author::new("m", 20);
    let x = model.input("x", DType::F32, &[Some(2), Some(3)]);
    let w = model.initializer("fc.weight", &Tensor::f32(&[4, 3], vec![1.0; 12]));
    let t = model.node("Transpose", "t", &[&w], &[("perm", Attribute::Ints(&[1, 0]))]);
    let y = model.node("MatMul", "fc", &[&x, &t], &[]);
    let vector = |model: &mut Author, name: &str| model.initializer(name, &Tensor::f32(&[4], vec![1.0; 4]));
    let [a, b, c, d] = ["s", "b", "mean", "var"].map(|n| vector(&mut model, n));
    let mode = [("training_mode", Attribute::Int(training_mode))];
    let y = model.node("BatchNormalization", "bn", &[&y, &a, &b, &c, &d], &mode);
    let ratio = model.initializer("ratio", &Tensor::f32(&[], vec![0.25]));
    for name in ["drop1", "drop2"] {
        model.node("Dropout", name, &[if name == "drop1" { &y } else { "drop1" }, &ratio], &[]);
    }
    model.output("drop2", DType::F32, &[Some(2), Some(4)]);
    let bytes = model.to_bytes("m").unwrap();
    let options = ImportOptions { training, ..ImportOptions::default() };
    Model::from_bytes(&bytes, "m", None).unwrap().import(&options).unwrap()
}

#[test]
fn dropouts_stay_and_weights_keep_their_names() {
    for training_mode in [0, 1] {
        let g = import(true, training_mode).graph;
        let names: Vec<&str> = g.node_ids().map(|n| &*g.node(n).outputs()[0].name).collect();
        assert!(names.contains(&"fc.weight") && names.contains(&"mean"), "{names:?}");
        let dropouts: Vec<(f64, usize)> = g
            .node_ids()
            .filter_map(|n| match g.op(n) {
                Op::Dropout(d) => Some((d.ratio, d.stream)),
                _ => None,
            })
            .collect();
        assert_eq!(dropouts, [(0.25, 0), (0.25, 1)]);
        assert_eq!(g.node_ids().filter(|n| g.op(*n).name() == "batch_norm").count(), 1);
    }
}

#[test]
fn inference_folds_and_drops_nothing() {
    let g = import(false, 0).graph;
    let ops: Vec<&str> = g.node_ids().map(|n| g.op(n).name()).collect();
    assert!(!ops.contains(&"dropout") && !ops.contains(&"transpose"), "{ops:?}");
}
