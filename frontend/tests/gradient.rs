//! `Gradient` of `ai.onnx.preview.training`: derivatives worked out by hand, differences of the reference evaluator, refusals.

mod common;

use common::*;
use nncc_frontend::ImportOptions;
use nncc_ir::Tensor;
use nncc_ir::eval::{Precision, evaluate};
use onnx_protobuf as pb;

const F32: i32 = 1;
const I64: i32 = 7;

fn gradient(name: &str, inputs: &[&str], outputs: &[&str], xs: &[&str], zs: &[&str], y: &str) -> pb::NodeProto {
    let attributes = [attr_texts("xs", xs), attr_texts("zs", zs), attr_text("y", y)];
    let given = if zs.is_empty() { vec![0, 2] } else { vec![0, 1, 2] };
    let attributes: Vec<pb::AttributeProto> = given.into_iter().map(|i| attributes[i].clone()).collect();
    pb::NodeProto { domain: "ai.onnx.preview.training".into(), ..node("Gradient", name, inputs, outputs, &attributes) }
}

fn model() -> Builder {
    Builder::new(17).opset("ai.onnx.preview.training", 1)
}

fn run(m: &Builder, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let graph = m.import(&ImportOptions::default()).unwrap_or_else(|e| panic!("{e}")).graph;
    nncc_ir::verify::verify(&graph).unwrap();
    evaluate(&graph, inputs, Precision::F64).unwrap().iter().map(Tensor::to_f64).collect()
}

fn vector(v: &[f32]) -> Tensor {
    Tensor::f32(&[v.len()], v.to_vec())
}

#[test]
fn a_weight_and_an_input() {
    // y = sum((w + 1) x): what is computed of the weight must not have been folded.
    let m = model()
        .input("x", F32, &[D::N(2)])
        .tensor(f32s("w", &[2], &[3.0, 4.0]))
        .tensor(f32s("one", &[], &[1.0]))
        .node("Add", "add", &["w", "one"], &["v"])
        .node("Mul", "mul", &["v", "x"], &["p"])
        .with("ReduceSum", "sum", &["p"], &["y"], &[attr_int("keepdims", 0)])
        .push(gradient("g", &["w", "x"], &["dw", "dx"], &["w", "x"], &[], "y"))
        .output("y")
        .output("dw")
        .output("dx");
    assert_eq!(run(&m, &[vector(&[5.0, 7.0])]), [vec![55.0], vec![5.0, 7.0], vec![4.0, 5.0]]);
}

#[test]
fn several_elements_count_as_their_sum_and_an_output_may_be_left_out() {
    let m = model()
        .input("a", F32, &[D::N(3)])
        .input("b", F32, &[D::N(1)])
        .input("c", F32, &[D::N(2)])
        .node("Mul", "mul", &["a", "b"], &["y"])
        .push(gradient("g", &["a", "b", "c"], &["", "db", "dc"], &["a", "b", "c"], &[], "y"))
        .output("db")
        .output("dc");
    let inputs = [vector(&[1.0, 2.0, 4.0]), vector(&[3.0]), vector(&[8.0, 9.0])];
    assert_eq!(run(&m, &inputs), [vec![7.0], vec![0.0, 0.0]], "y does not depend on c");
}

#[test]
fn a_value_with_two_names_is_two_variables() {
    // y = h w with h = w: dy/dh = w, not 2 w.
    let m = model()
        .input("w", F32, &[D::N(1)])
        .node("Identity", "id", &["w"], &["h"])
        .node("Mul", "mul", &["h", "w"], &["y"])
        .push(gradient("g", &["h"], &["dh"], &["h"], &[], "y"))
        .output("dh");
    assert_eq!(run(&m, &[vector(&[5.0])]), [[5.0]]);

    // f(p, q) = (p^2 q, its derivatives by p and q), called as f(x, x).
    let body = vec![
        node("Mul", "square", &["p", "p"], &["s"], &[]),
        node("Mul", "mul", &["s", "q"], &["y"], &[]),
        gradient("g", &["p", "q"], &["dp", "dq"], &["p", "q"], &[], "y"),
    ];
    let mut m = model()
        .input("x", F32, &[D::N(1)])
        .function("f", &["p", "q"], &["y", "dp", "dq"], &[], body)
        .node("f", "call", &["x", "x"], &["y", "dp", "dq"])
        .output("dp")
        .output("dq");
    m.proto.functions[0].opset_import.push(m.proto.opset_import[1].clone());
    m.graph().node[0].domain = "own".into();
    assert_eq!(run(&m, &[vector(&[5.0])]), [[50.0], [25.0]]);
}

#[test]
fn other_values_move_the_point() {
    // y = (3 x)^2 z, differentiated by h = 3 x where h is u and z is v: 2 u v.
    let m = model()
        .input("x", F32, &[D::N(2)])
        .input("z", F32, &[D::N(2)])
        .input("u", F32, &[D::N(2)])
        .tensor(f32s("three", &[], &[3.0]))
        .node("Mul", "h", &["x", "three"], &["h"])
        .node("Mul", "square", &["h", "h"], &["s"])
        .node("Mul", "y", &["s", "z"], &["y"])
        .push(gradient("g", &["u", "x"], &["dh"], &["h"], &["z"], "y"))
        .push(gradient("twice", &["u", "u"], &["dh2", "dz2"], &["h", "z"], &[], "y"))
        .output("y")
        .output("dh")
        .output("dh2")
        .output("dz2");
    let inputs = [vector(&[1.0, 2.0]), vector(&[1.0, 1.0]), vector(&[5.0, 7.0])];
    let expected = [vec![9.0, 36.0], vec![10.0, 28.0], vec![50.0, 98.0], vec![25.0, 49.0]];
    assert_eq!(run(&m, &inputs), expected);
}

#[test]
fn a_gradient_of_a_gradient() {
    let m = model()
        .input("x", F32, &[D::N(2)])
        .tensor(f32s("three", &[], &[3.0]))
        .node("Pow", "pow", &["x", "three"], &["y"])
        .push(gradient("first", &["x"], &["dy"], &["x"], &[], "y"))
        .push(gradient("second", &["x"], &["d2y"], &["x"], &[], "dy"))
        .push(gradient("third", &["x"], &["d3y"], &["x"], &[], "d2y"))
        .output("dy")
        .output("d2y")
        .output("d3y");
    assert_eq!(run(&m, &[vector(&[2.0, -1.0])]), [[12.0, 3.0], [12.0, -6.0], [6.0, 6.0]]);
}

/// Differences of the first derivative against the second, through convolution, pooling and a smooth activation.
#[test]
fn second_derivatives_of_a_network() {
    let m = model()
        .input("x", F32, &[D::N(1), D::N(2), D::N(6), D::N(5)])
        .input("w", F32, &[D::N(3), D::N(2), D::N(3), D::N(2)])
        .with("Conv", "conv", &["x", "w"], &["c"], &[attr_ints("pads", &[1, 0, 1, 1]), attr_ints("strides", &[1, 2])])
        .node("Softplus", "act", &["c"], &["a"])
        .with("MaxPool", "max", &["a"], &["m"], &[attr_ints("kernel_shape", &[2, 1])])
        .with("AveragePool", "mean", &["m"], &["p"], &[attr_ints("kernel_shape", &[2, 2])])
        .node("Mul", "square", &["p", "p"], &["y"])
        .push(gradient("first", &["x", "w"], &["dx", "dw"], &["x", "w"], &[], "y"))
        .push(gradient("second", &["x", "w"], &["dwdx", "dwdw"], &["x", "w"], &[], "dw"))
        .output("dw")
        .output("dwdx")
        .output("dwdw");
    let x = nncc_ir::random::tensor(nncc_ir::DType::F32, &[1, 2, 6, 5], 1);
    let w = nncc_ir::random::tensor(nncc_ir::DType::F32, &[3, 2, 3, 2], 2);
    let exact = run(&m, &[x.clone(), w.clone()]);
    let step = 1.0 / 4096.0;
    for (which, exact) in [(0, &exact[1]), (1, &exact[2])] {
        for e in 0..exact.len() {
            let sum = |h: f64| -> f64 {
                let mut inputs = [x.clone(), w.clone()];
                let mut v = inputs[which].to_f64();
                v[e] += h;
                inputs[which] = Tensor::from_f64(nncc_ir::DType::F32, inputs[which].dims(), &v);
                run(&m, &inputs)[0].iter().sum()
            };
            let numeric = (sum(step) - sum(-step)) / (2.0 * step);
            assert!((numeric - exact[e]).abs() < 1e-4, "input {which}, element {e}: {numeric}, not {}", exact[e]);
        }
    }
}

#[test]
fn refusals() {
    let m = |g: pb::NodeProto| {
        model()
            .input("x", F32, &[D::N(2)])
            .input("i", I64, &[D::N(2)])
            .tensor(i64s("k", &[2], &[1, 2]))
            .node("Exp", "exp", &["x"], &["e"])
            .node("Hardmax", "jump", &["e"], &["h"])
            .node("Add", "ints", &["i", "k"], &["j"])
            .node("Mul", "y", &["e", "e"], &["y"])
            .push(g)
            .output("d")
    };
    let message = |inputs: &[&str], xs: &[&str], zs: &[&str], y: &str| {
        let text = m(gradient("g", inputs, &["d"], xs, zs, y)).errors();
        text.lines().next().unwrap_or_default().to_string()
    };
    assert_eq!(message(&["x"], &["x"], &[], "gone"), "error: Gradient: the operand `gone` is made by no node");
    assert_eq!(message(&["x"], &[], &[], "y"), "error: Gradient: the attribute `xs` names nothing");
    assert_eq!(message(&["x"], &["x"], &["i"], "y"), "error: Gradient: 1 values for the 2 names of `xs` and `zs`");
    assert_eq!(message(&["x", "x"], &["x", "x"], &[], "y"), "error: Gradient: `x` is named twice");
    assert_eq!(message(&["x", "e"], &["x"], &["e"], "y"), "error: Gradient: `e` depends on `x`");
    assert_eq!(message(&["i"], &["i"], &[], "y"), "error: Gradient: `i` is i64[2]: only floats have gradients");
    assert_eq!(message(&["x"], &["x"], &[], "j"), "error: Gradient: `j` is i64[2]: only floats have gradients");
    assert_eq!(message(&["i"], &["x"], &[], "y"), "error: Gradient: `x` is f32[2], the value for it i64[2]");
    assert_eq!(
        message(&["x", "i"], &["x"], &["k"], "y"),
        "error: unsupported: Gradient with another value for the constant `k`"
    );
    assert_eq!(
        message(&["x"], &["x"], &[], "h"),
        "error: unsupported: Gradient of `h`: node \"jump\": hardmax has no gradient"
    );
    let without_y = pb::NodeProto {
        domain: "ai.onnx.preview.training".into(),
        ..node("Gradient", "g", &["x"], &["d"], &[attr_texts("xs", &["x"])])
    };
    assert!(m(without_y).errors().starts_with("error: Gradient: the attribute `y` is missing"));

    let open = model()
        .input("x", F32, &[D::S("N")])
        .node("Exp", "exp", &["x"], &["y"])
        .push(gradient("g", &["x"], &["d"], &["x"], &[], "y"))
        .output("d");
    assert_eq!(
        open.errors(),
        "error: Gradient: a gradient needs known shapes: it depends on N\n  --> m.onnx, node \"g\"\n  help: --dim N=... \
         gives it a number"
    );
}

/// Each derivative of tanh is longer than the one before: the import ends by its budget, not by memory.
#[test]
fn a_tower_of_gradients_is_bounded() {
    let mut m = model().input("x", F32, &[D::N(2)]).node("Tanh", "tanh", &["x"], &["y0"]);
    for i in 0..60 {
        let (y, d) = (format!("y{i}"), format!("y{}", i + 1));
        m = m.push(gradient(&d, &["x"], &[&d], &["x"], &[], &y));
    }
    let text = m.output("y60").errors();
    assert!(text.starts_with("error: unsupported: Gradient: more nodes than its file is worth"), "{text}");
}
