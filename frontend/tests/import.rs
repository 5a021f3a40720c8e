//! What imports give and what errors say, on small models written here.

mod common;

use common::*;
use nncc_frontend::{Blame, ImportOptions, Model};
use nncc_ir::{Dim, Tensor};

/// Flatten as exporters write it: Reshape to [shape(x)[0], -1], with the shape put together at run time.
fn flatten() -> Builder {
    Builder::new(13)
        .input("x", 1, &[D::S("N"), D::N(3), D::N(4), D::N(4)])
        .tensor(i64s("zero", &[], &[0]))
        .tensor(i64s("axes", &[1], &[0]))
        .tensor(i64s("rest", &[1], &[-1]))
        .node("Shape", "", &["x"], &["shape"])
        .node("Gather", "", &["shape", "zero"], &["n"])
        .node("Unsqueeze", "", &["n", "axes"], &["n1"])
        .with("Concat", "", &["n1", "rest"], &["to"], &[attr_int("axis", 0)])
        .node("Reshape", "flat", &["x", "to"], &["y"])
        .output("y")
}

#[test]
fn shape_arithmetic_folds_with_symbols() {
    let import = flatten().import(&ImportOptions::default()).unwrap();
    let y = import.graph.outputs()[0].1;
    assert_eq!(import.graph.ty(y).to_string(), "f32[N,48]");
    assert_eq!(import.graph.node_count(), 2, "the input and a Reshape:\n{}", import.graph);
    assert_eq!(import.symbols, ["N"]);
    let mut options = ImportOptions::default();
    options.dims.insert("N".into(), 5);
    let import = flatten().import(&options).unwrap();
    assert_eq!(import.graph.ty(import.graph.outputs()[0].1).to_string(), "f32[5,48]");
    assert!(import.symbols.is_empty());
}

#[test]
fn values_and_origins_have_the_models_names() {
    let import = flatten().import(&ImportOptions::default()).unwrap();
    let y = import.graph.outputs()[0].1;
    assert_eq!(&*import.graph.value(y).name, "y");
    assert_eq!(import.graph.node(y.node).origin.to_string(), "flat");
}

#[test]
fn unused_weights_and_nodes_leave_no_trace() {
    let m = Builder::new(13)
        .input("x", 1, &[D::N(2)])
        .tensor(f32s("unused", &[2], &[1.0, 2.0]))
        .node("LSTM", "dead", &["x"], &["dead"])
        .node("Identity", "", &["x"], &["y"])
        .output("y");
    assert_eq!(m.import(&ImportOptions::default()).unwrap().graph.node_count(), 1);
}

#[test]
fn legacy_broadcast_aligns_from_an_axis() {
    let m = |a: &[onnx_protobuf::AttributeProto]| {
        Builder::new(6)
            .input("x", 1, &[D::N(2), D::N(3), D::N(4)])
            .input("b", 1, &[D::N(3)])
            .with("Add", "sum", &["x", "b"], &["y"], a)
            .output("y")
    };
    let import = m(&[attr_int("broadcast", 1), attr_int("axis", 1)]).import(&ImportOptions::default()).unwrap();
    let b = Tensor::f32(&[3], vec![10.0, 20.0, 30.0]);
    let x = Tensor::f32(&[2, 3, 4], vec![0.0; 24]);
    let y = nncc_ir::eval::evaluate(&import.graph, &[x, b], nncc_ir::eval::Precision::Native).unwrap();
    assert_eq!(y[0].to_f64()[..8], [10.0, 10.0, 10.0, 10.0, 20.0, 20.0, 20.0, 20.0]);
    assert_eq!(
        m(&[]).errors(),
        "error: Add: the operands' shapes differ, and `broadcast` is not set\n  --> m.onnx, node \"sum\"\n      input 0  x  \
         f32[2,3,4]\n      input 1  b  f32[3]\n  rule: ONNX Add-6"
    );
}

#[test]
fn functions_are_inlined_with_their_attributes() {
    let mut alpha = attr_float("alpha", 0.0);
    alpha.ref_attr_name = "slope".into();
    let body = vec![node("LeakyRelu", "act", &["a"], &["b"], &[alpha]), node("Neg", "", &["b"], &["c"], &[])];
    let mut m = Builder::new(17)
        .input("x", 1, &[D::N(2)])
        .function("NegLeaky", &["a"], &["c"], &["slope"], body)
        .with("NegLeaky", "call", &["x"], &["y"], &[attr_float("slope", 0.25)])
        .output("y");
    m.graph().node[0].domain = "own".into();
    let import = m.import(&ImportOptions::default()).unwrap();
    let origins: Vec<String> =
        import.graph.node_ids().map(|n| import.graph.node(n).origin.to_string()).filter(|o| !o.is_empty()).collect();
    assert_eq!(origins, ["call/act", "call/Neg_1"]);
    let x = Tensor::f32(&[2], vec![-4.0, 4.0]);
    let y = nncc_ir::eval::evaluate(&import.graph, &[x], nncc_ir::eval::Precision::Native).unwrap();
    assert_eq!(y[0].to_f64(), [1.0, -4.0]);
}

#[test]
fn a_branch_with_a_known_condition_is_inlined() {
    let branch = |op: &str| {
        let mut g = onnx_protobuf::GraphProto::default();
        g.node.push(node(op, "inner", &["x"], &["r"], &[]));
        g.output.push(onnx_protobuf::ValueInfoProto { name: "r".into(), ..Default::default() });
        g
    };
    let m = |condition: &str| {
        Builder::new(13)
            .input("x", 1, &[D::N(2)])
            .input("run_time", 9, &[])
            .tensor(onnx_protobuf::TensorProto {
                name: "yes".into(),
                data_type: 9,
                int32_data: vec![1],
                ..Default::default()
            })
            .with(
                "If",
                "if",
                &[condition],
                &["y"],
                &[attr_graph("then_branch", branch("Exp")), attr_graph("else_branch", branch("LSTM"))],
            )
            .output("y")
    };
    let import = m("yes").import(&ImportOptions::default()).unwrap();
    let y = import.graph.outputs()[0].1;
    assert_eq!(import.graph.node(y.node).origin.to_string(), "if/inner");
    assert_eq!(
        m("run_time").errors(),
        "error: unsupported: If with a condition that is computed at run time\n  --> m.onnx, node \"if\""
    );
}

#[test]
fn everything_unsupported_is_reported_at_once() {
    let half =
        onnx_protobuf::TensorProto { name: "h".into(), data_type: 10, int32_data: vec![0], ..Default::default() };
    let m = Builder::new(17)
        .input("x", 1, &[D::N(2), D::N(2)])
        .tensor(half)
        .node("LSTM", "rnn0", &["x"], &["a"])
        .node("Relu", "hidden", &["a"], &["b"]) // depends on what failed: nothing to say of it
        .node("LSTM", "rnn1", &["b"], &["c"])
        .with("Add", "", &["x", "h"], &["d"], &[])
        .with("Resize", "up", &["x", "", "x"], &["e"], &[attr_text("mode", "area")])
        .node("Gelu", "", &["x"], &["f"])
        .node("Swizzle", "", &["x"], &["g"])
        .node("Sum", "", &["c", "d", "e", "f", "g"], &["y"])
        .output("y");
    let e = m.errors();
    let heads: Vec<&str> = e.lines().filter(|l| l.starts_with("error") || l.starts_with("  -->")).collect();
    assert_eq!(
        heads,
        [
            "error: unsupported: operator LSTM: recurrent operators are not supported",
            "  --> m.onnx, node \"rnn0\", \"rnn1\"",
            "error: unsupported: element type float16",
            "  --> m.onnx, initializer \"h\"",
            "error: unsupported: Resize with an operand `scales` that is computed at run time",
            "  --> m.onnx, node \"up\"",
            "error: Gelu: opset 17 has no such operator, it came with opset 20",
            "  --> m.onnx, node \"Gelu_5\"",
            "error: operator Swizzle: ONNX has none of this name",
            "  --> m.onnx, node \"Swizzle_6\"",
        ]
    );
}

#[test]
fn a_contradiction_shows_both_sides() {
    let m = Builder::new(13)
        .input("a", 1, &[D::N(1), D::N(128), D::N(40), D::N(40)])
        .input("b", 1, &[D::N(1), D::N(256), D::N(41), D::N(40)])
        .with("Concat", "Concat_57", &["a", "b"], &["y"], &[attr_int("axis", 1)])
        .output("y");
    let e = m.errors();
    assert!(e.starts_with("error: Concat: "), "{e}");
    assert!(e.contains("40") && e.contains("41"), "{e}");
    assert!(
        e.ends_with(
            "\n  --> m.onnx, node \"Concat_57\"\n      input 0  a  f32[1,128,40,40]\n      input 1  b  f32[1,256,41,40]\n  \
             rule: ONNX Concat-13"
        ),
        "{e}"
    );
}

#[test]
fn an_element_type_that_nncc_lacks_is_its_own_fault() {
    let m = Builder::new(13).input("x", 6, &[D::N(2)]).node("Sigmoid", "s", &["x"], &["y"]).output("y");
    assert_eq!(m.errors(), "error: unsupported: Sigmoid on i32\n  --> m.onnx, node \"s\"");
}

#[test]
fn run_time_operands_name_the_input_to_fix() {
    let m = Builder::new(13)
        .input("x", 1, &[D::N(6)])
        .input("to", 7, &[D::N(2)])
        .node("Reshape", "r", &["x", "to"], &["y"])
        .output("y");
    assert_eq!(
        m.errors(),
        "error: unsupported: Reshape with an operand `shape` that is computed at run time\n  --> m.onnx, node \"r\"\n  help: \
         `--fix to=FILE.npy` makes the input `to` a constant"
    );
    let model = Model::from_bytes(&m.bytes(), "m.onnx", None).unwrap();
    let data = |name: &str| (name == "to").then(|| Tensor::i64(&[2], vec![2, 3]));
    let (import, fixed) = model.import_for(&ImportOptions::default(), &data).unwrap();
    assert_eq!(fixed, ["to"]);
    assert_eq!(import.graph.inputs().len(), 1);
    assert_eq!(import.graph.ty(import.graph.outputs()[0].1).to_string(), "f32[2,3]");
}

#[test]
fn open_dimensions_name_the_flag() {
    let m = Builder::new(13)
        .input("x", 1, &[D::S("N"), D::S("H")])
        .tensor(i64s("zero", &[], &[0]))
        .tensor(i64s("one", &[], &[1]))
        .node("Shape", "", &["x"], &["s"])
        .node("Gather", "", &["s", "one"], &["h"])
        .node("Range", "count", &["zero", "h", "one"], &["y"])
        .output("y");
    assert_eq!(
        m.errors(),
        "error: Range: its operand `limit` is not known: it depends on H\n  --> m.onnx, node \"count\"\n  help: --dim H=... \
         gives it a number"
    );
    let mut options = ImportOptions::default();
    options.dims.insert("H".into(), 3);
    options.dims.insert("W".into(), 3);
    assert_eq!(
        m.import(&options).unwrap_err(),
        "error: no dimension is called `W`\n  --> m.onnx\n  help: the model has `H`, `N`"
    );
}

#[test]
fn options_must_fit_the_model() {
    let m = Builder::new(13).input("x", 1, &[D::N(2), D::S("N")]).node("Relu", "", &["x"], &["y"]).output("y");
    let with = |f: &dyn Fn(&mut ImportOptions)| {
        let mut options = ImportOptions::default();
        f(&mut options);
        m.import(&options).unwrap_err().lines().next().unwrap_or_default().to_string()
    };
    assert_eq!(
        with(&|o| drop(o.shapes.insert("x".into(), vec![Dim::Known(3), Dim::Known(3)]))),
        "error: the given shape [3,3] does not fit the declared [2,N]"
    );
    assert_eq!(
        with(&|o| drop(o.fixed.insert("x".into(), Tensor::i64(&[2, 1], vec![1, 2])))),
        "error: the fixed value is i64, the input f32"
    );
    assert_eq!(with(&|o| drop(o.fixed.insert("z".into(), Tensor::i64(&[], vec![1])))), "error: no input is called `z`");
    assert_eq!(with(&|o| o.dims = [("N".into(), -1)].into()), "error: the dimension N cannot be -1");
}

#[test]
fn a_description_needs_no_import() {
    let mut m = flatten();
    m.proto.metadata_props.push(onnx_protobuf::StringStringEntryProto {
        key: "character".into(),
        value: "abc".into(),
        ..Default::default()
    });
    let d = Model::from_bytes(&m.bytes(), "m.onnx", None).unwrap().describe();
    assert_eq!(d.inputs.iter().map(|i| i.to_string()).collect::<Vec<_>>(), ["x: f32[N,3,4,4]"]);
    assert_eq!((d.symbols, d.nodes), (vec!["N".to_string()], 5));
    assert_eq!(d.metadata, [("character".to_string(), "abc".to_string())]);
}

#[test]
fn blame_is_in_the_type() {
    let m = Builder::new(99).input("x", 1, &[D::N(2)]).node("Relu", "", &["x"], &["y"]).output("y");
    let model = Model::from_bytes(&m.bytes(), "m.onnx", None).unwrap();
    let errors = model.import(&ImportOptions::default()).unwrap_err();
    assert_eq!(errors.problems[0].blame, Blame::Unsupported);
    assert_eq!(
        errors.to_string(),
        "error: unsupported: opset 99: the newest that nncc knows is 28\n  --> m.onnx\n  help: export the model for an older \
         opset"
    );
}

#[test]
fn dropouts_stay_where_they_are_to_be_trained() {
    let m = Builder::new(13)
        .input("x", 1, &[D::N(2), D::N(3)])
        .tensor(f32s("ratio", &[], &[0.25]))
        .node("Dropout", "first", &["x", "ratio"], &["h"])
        .node("Relu", "", &["h"], &["r"])
        .node("Dropout", "second", &["r"], &["y"])
        .output("y");
    let dropouts = |training| -> Vec<(f64, usize)> {
        let g = m.import(&ImportOptions { training, ..ImportOptions::default() }).unwrap().graph;
        let of = |n| match g.op(n) {
            nncc_ir::Op::Dropout(d) => Some((d.ratio, d.stream)),
            _ => None,
        };
        g.node_ids().filter_map(of).collect()
    };
    assert_eq!(dropouts(false), []);
    assert_eq!(dropouts(true), [(0.25, 0), (0.5, 1)]);
}

/// As PyTorch exports `nn.RReLU` in training mode.
#[test]
fn random_slopes_are_drawn_where_they_are_to_be_trained_and_else_their_mean() {
    let bounds = [attr_float("low", 0.125), attr_float("high", 0.5)];
    let m = |taker: &str| {
        Builder::new(17)
            .input("x", 1, &[D::N(2), D::N(3)])
            .with("RandomUniformLike", "noise", &["x"], &["slopes"], &bounds)
            .node(taker, "act", &["x", "slopes"], &["h"])
            .with("RandomUniformLike", "noise2", &["h"], &["slopes2"], &bounds)
            .node(taker, "act2", &["h", "slopes2"], &["y"])
            .output("y")
    };
    let text = |training| -> Vec<String> {
        let g = m("PRelu").import(&ImportOptions { training, ..ImportOptions::default() }).unwrap().graph;
        let of = |n| (g.op(n).name() != "input").then(|| format!("{:?}", g.op(n)));
        g.node_ids().filter_map(of).collect()
    };
    let leaky = "LeakyRelu(LeakyRelu { alpha: 0.3125 })";
    assert_eq!(text(false), [leaky, leaky]);
    let drawn = |stream| format!("RRelu(RRelu {{ lower: 0.125, upper: 0.5, stream: {stream} }})");
    assert_eq!(text(true), [drawn(0), drawn(1)]);
    assert_eq!(
        m("Mul").errors(),
        "error: unsupported: Mul on random numbers: only PRelu takes them, as its slope\n  --> m.onnx, node \"act\""
    );
    let other = Builder::new(17)
        .input("x", 1, &[D::N(2), D::N(3)])
        .input("z", 1, &[D::N(3)])
        .with("RandomUniformLike", "noise", &["z"], &["slopes"], &bounds)
        .node("PRelu", "act", &["x", "slopes"], &["y"])
        .output("y");
    assert_eq!(
        other.errors(),
        "error: unsupported: PRelu on f32[2,3] with random slopes of type f32[3]\n  --> m.onnx, node \"act\""
    );
}
