//! Stacked models as one: logits by the combiner's definition, from models that give logits and models that give probabilities.

use nncc_frontend::author::{Attribute, Author};
use nncc_frontend::ensemble::{Combiner, Together, gives_probabilities, write_ensemble};
use nncc_frontend::{ImportOptions, Model};
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::{DType, Tensor, random};
use std::path::{Path, PathBuf};

const CLASSES: usize = 3;

/// `x W^T`, and behind it a Softmax or not.
fn model(name: &str, softmax: bool, seed: u64) -> (PathBuf, Tensor) {
    let weight = random::tensor(DType::F32, &[CLASSES, 4], seed);
    let mut author = Author::new(name, 17);
    let x = author.input("x", DType::F32, &[None, Some(4)]);
    let w = author.initializer("fc.weight", &weight);
    let mut y = author.node("Gemm", "fc", &[&x, &w], &[("transB", Attribute::Int(1))]);
    if softmax {
        y = author.node("Softmax", "probabilities", &[&y], &[("axis", Attribute::Int(1))]);
    }
    author.output(&y, DType::F32, &[None, Some(CLASSES)]);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ensemble-{name}.onnx"));
    author.write(&path).unwrap();
    (path, weight)
}

#[test]
fn stacked_models_give_what_their_combiner_says() {
    let (logits, w0) = model("logits", false, 1);
    let (probabilities, w1) = model("probabilities", true, 2);
    assert!(!gives_probabilities(&logits).unwrap() && gives_probabilities(&probabilities).unwrap());
    let weight = random::tensor(DType::F32, &[CLASSES, 2 * CLASSES], 3);
    let bias = random::tensor(DType::F32, &[CLASSES], 4);
    let together = Together::Stack(Combiner { weight: weight.clone(), bias: bias.clone() });
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ensemble-stacked.onnx");
    write_ensemble(&[&logits, &probabilities], &together, &out).unwrap();

    let n = 5;
    let x = random::tensor(DType::F32, &[n, 4], 5);
    let options = ImportOptions { dims: [("N".to_string(), n as i64)].into(), ..ImportOptions::default() };
    let graph = Model::open(&out).unwrap().import(&options).unwrap().graph;
    let got = evaluate(&graph, std::slice::from_ref(&x), Precision::F64).unwrap()[0].to_f64();

    let (x, weight, bias) = (x.to_f64(), weight.to_f64(), bias.to_f64());
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for (i, row) in x.chunks(4).enumerate() {
        let mut p = Vec::new();
        for w in [w0.to_f64(), w1.to_f64()] {
            let e: Vec<f64> = w.chunks(4).map(|w| dot(w, row).exp()).collect();
            p.extend(e.iter().map(|x| x / e.iter().sum::<f64>()));
        }
        for c in 0..CLASSES {
            let expected = bias[c] + dot(&weight[c * 2 * CLASSES..][..2 * CLASSES], &p);
            assert!((got[i * CLASSES + c] - expected).abs() < 1e-9, "{} is not {expected}", got[i * CLASSES + c]);
        }
    }
}
