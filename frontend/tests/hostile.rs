//! Files that mean harm, or are broken: an error, never a panic, an endless loop or an allocation beyond the file's size
//! times a small factor.
//!
//! Mutated models come from proptest (bits flipped, bytes cut out or doubled): every one must give an import that the IR's
//! verifier accepts, or an error with a text.

mod common;

use common::*;
use nncc_frontend::fuzzing::{Outcome, import_any};
use nncc_frontend::{ImportOptions, Model};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn open_errors(bytes: &[u8]) -> String {
    match Model::from_bytes(bytes, "m.onnx", None) {
        Ok(_) => panic!("it opens"),
        Err(e) => e.to_string(),
    }
}

/// A small network with one of everything that the importer treats specially.
fn network() -> Builder {
    Builder::new(13)
        .input("x", 1, &[D::S("N"), D::N(3), D::N(8), D::N(8)])
        .tensor(f32s("w", &[4, 3, 3, 3], &[0.5; 108]))
        .tensor(f32s("bn", &[4], &[1.0, 2.0, 3.0, 4.0]))
        .tensor(f32s("fc", &[64, 2], &[0.25; 128]))
        .tensor(i64s("zero", &[], &[0]))
        .tensor(i64s("axes", &[1], &[0]))
        .tensor(i64s("rest", &[1], &[-1]))
        .tensor(i64s("pads", &[8], &[0, 0, 1, 1, 0, 0, 1, 1]))
        .node("Pad", "pad", &["x", "pads"], &["p"])
        .with("Conv", "conv", &["p", "w"], &["c"], &[attr_ints("kernel_shape", &[3, 3]), attr_ints("strides", &[1, 1])])
        .node("BatchNormalization", "bn", &["c", "bn", "bn", "bn", "bn"], &["b"])
        .node("Relu", "", &["b"], &["r"])
        .with("MaxPool", "pool", &["r"], &["m"], &[attr_ints("kernel_shape", &[2, 2]), attr_ints("strides", &[2, 2])])
        .node("Shape", "", &["m"], &["shape"])
        .node("Gather", "", &["shape", "zero"], &["n"])
        .node("Unsqueeze", "", &["n", "axes"], &["n1"])
        .with("Concat", "", &["n1", "rest"], &["to"], &[attr_int("axis", 0)])
        .node("Reshape", "", &["m", "to"], &["flat"])
        .node("MatMul", "", &["flat", "fc"], &["logits"])
        .with("Softmax", "", &["logits"], &["y"], &[attr_int("axis", -1)])
        .output("y")
}

#[test]
fn what_is_no_model_says_so() {
    assert_eq!(open_errors(b""), "error: not an ONNX file: it has no graph\n  --> m.onnx");
    assert!(open_errors(b"\x7fELF garbage").starts_with("error: not an ONNX file: "));
    let whole = network().bytes();
    assert!(open_errors(&whole[..whole.len() / 2]).starts_with("error: not an ONNX file: "));
    let empty = Builder::new(13);
    assert_eq!(
        empty.errors(),
        "error: the graph has no outputs\n  --> m.onnx\n  rule: ONNX IR: a graph computes its outputs"
    );
}

#[test]
fn a_missing_file_says_so() {
    let e = Model::open("no/such/model.onnx".as_ref()).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(e.starts_with("error: the file cannot be read: ") && e.ends_with("--> no/such/model.onnx"), "{e}");
}

#[test]
fn cycles_and_duplicates_are_named() {
    let m = Builder::new(13)
        .input("x", 1, &[D::N(2)])
        .node("Add", "p", &["x", "b"], &["a"])
        .node("Neg", "q", &["a"], &["b"])
        .output("b");
    assert_eq!(
        m.errors(),
        "error: the graph has a cycle\n  --> m.onnx, node \"q\", \"p\"\n  rule: ONNX IR: a graph has no cycles"
    );
    let m = Builder::new(13).input("x", 1, &[D::N(2)]).node("Neg", "", &["x"], &["x"]).output("x");
    assert!(m.errors().starts_with("error: Neg: the value `x` is defined twice\n  --> m.onnx, node \"Neg_0\""));
    let twice = Builder::new(13).input("x", 1, &[D::N(2)]).input("x", 1, &[D::N(2)]).output("x");
    assert!(twice.errors().starts_with("error: two inputs have one name\n"));
}

#[test]
fn gigantic_dimensions_allocate_nothing() {
    let huge = i64::MAX / 2;
    let input = Builder::new(13).input("x", 1, &[D::N(huge), D::N(huge)]).node("Relu", "", &["x"], &["y"]).output("y");
    assert!(input.errors().starts_with("error: unsupported: a value of "), "{}", input.errors());
    let tensor =
        onnx_protobuf::TensorProto { name: "w".into(), data_type: 1, dims: vec![huge, huge], ..Default::default() };
    let m = Builder::new(13).tensor(tensor).node("Relu", "", &["w"], &["y"]).output("y");
    assert!(m.errors().starts_with("error: a tensor f32["), "{}", m.errors());
    // A splat of 2^38 bytes is one number; whatever would write it out is not folded.
    let splat = |op: &str| {
        Builder::new(13)
            .tensor(i64s("s", &[2], &[1 << 18, 1 << 18]))
            .node("ConstantOfShape", "", &["s"], &["big"])
            .node(op, "", &["big"], &["y"])
            .output("y")
    };
    assert!(splat("Exp").import(&ImportOptions::default()).is_ok());
    assert!(splat("ReduceSum").import(&ImportOptions::default()).is_ok());
    let e = splat("NonZero").errors();
    assert!(e.starts_with("error: unsupported: NonZero with a `X` of 68719476736 elements"), "{e}");
    let range = Builder::new(13)
        .tensor(i64s("zero", &[], &[0]))
        .tensor(i64s("one", &[], &[1]))
        .tensor(i64s("end", &[], &[i64::MAX]))
        .node("Range", "", &["zero", "end", "one"], &["y"])
        .output("y");
    assert!(range.errors().contains("more constants to compute than an import may"), "{}", range.errors());
}

#[test]
fn functions_do_not_multiply_a_file() {
    // f0 calls f1 twice, f1 calls f2 twice, ...: 2^30 nodes from a file of a kilobyte.
    let call = |f: &str, from: &str, to: &str| {
        let mut n = node(f, "", &[from], &[to], &[]);
        n.domain = "own".into();
        n
    };
    let mut m = Builder::new(17).input("x", 1, &[D::N(2)]);
    for i in 0..30 {
        let next = format!("f{}", i + 1);
        m = m.function(&format!("f{i}"), &["a"], &["c"], &[], vec![call(&next, "a", "b"), call(&next, "b", "c")]);
    }
    m = m.function("f30", &["a"], &["c"], &[], vec![node("Neg", "", &["a"], &["c"], &[])]);
    m.graph().node.push(call("f0", "x", "y"));
    let started = Instant::now();
    let e = m.output("y").errors();
    assert!(e.contains("more nodes than its file is worth"), "{}", e.lines().next().unwrap_or_default());
    assert!(started.elapsed() < Duration::from_secs(20));
    let mut own =
        Builder::new(17).input("x", 1, &[D::N(2)]).function("f", &["a"], &["b"], &[], vec![call("f", "a", "b")]);
    own.graph().node.push(call("f", "x", "y"));
    assert!(own.output("y").errors().starts_with("error: f: the function calls itself\n"));
}

#[test]
fn symbolic_dimensions_do_not_explode() {
    // The square of a sum of symbols, squared again and again.
    let mut m = Builder::new(13)
        .input("x", 1, &[D::S("A"), D::S("B"), D::S("C"), D::S("D")])
        .node("Shape", "", &["x"], &["s"])
        .with("ReduceSum", "", &["s"], &["p0"], &[attr_int("keepdims", 0)]);
    for i in 0..40 {
        let (from, to) = (format!("p{i}"), format!("p{}", i + 1));
        m = m.node("Mul", "", &[&from, &from], &[&to]);
    }
    let e = m.output("p40").errors();
    assert!(e.starts_with("error: unsupported: Mul: a dimension of more than 256 terms\n"), "{e}");
}

#[test]
fn a_long_model_imports_in_linear_time() {
    let mut m = Builder::new(13).input("v0", 1, &[D::N(4)]);
    for i in 0..10_000 {
        let (from, to) = (format!("v{i}"), format!("v{}", i + 1));
        m = m.node("Relu", &format!("n{i}"), &[&from], &[&to]);
    }
    let bytes = m.output("v10000").bytes();
    let started = Instant::now();
    let model = Model::from_bytes(&bytes, "m.onnx", None).unwrap();
    let import = model.import(&ImportOptions::default()).unwrap();
    assert_eq!(import.graph.node_count(), 10_001);
    // Some 50 ms; quadratic behaviour would take minutes, a busy machine does not.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn wrong_kinds_and_counts_are_errors() {
    let relu = |a: &[&str], o: &[&str], attr: &[onnx_protobuf::AttributeProto], op: &str| {
        let m =
            Builder::new(13).input("x", 1, &[D::N(1), D::N(2), D::N(5)]).with(op, "n", a, o, attr).output("y").errors();
        m.lines().next().unwrap_or_default().to_string()
    };
    let cases = [
        (relu(&[], &["y"], &[], "Relu"), "error: Relu: the operand `X` is missing"),
        (relu(&["gone"], &["y"], &[], "Relu"), "error: Relu: the operand `gone` is made by no node"),
        (relu(&["x"], &["y", "z"], &[], "Relu"), "error: Relu: it has 1 outputs, the node names 2"),
        (
            relu(&["x"], &["y"], &[attr_text("axis", "1")], "Softmax"),
            "error: Softmax: the attribute `axis` is a string, not an integer",
        ),
        (relu(&["x"], &["y"], &[attr_int("axis", 3)], "Softmax"), "error: Softmax: axis 3 of a value of rank 3"),
        (
            relu(&["x"], &["y"], &[attr_ints("perm", &[0, 0, 1])], "Transpose"),
            "error: Transpose: axis 0 is given twice",
        ),
        (relu(&["x"], &["y"], &[], "MaxPool"), "error: MaxPool: the attribute `kernel_shape` is missing"),
        (
            relu(&["x"], &["y"], &[attr_ints("kernel_shape", &[2]), attr_ints("strides", &[0])], "MaxPool"),
            "error: MaxPool: the attribute `strides` is [0]; each must be at least 1",
        ),
        (
            relu(&["x"], &["y"], &[attr_ints("kernel_shape", &[2]), attr_text("auto_pad", "SOME")], "MaxPool"),
            "error: MaxPool: the attribute `auto_pad` is \"SOME\", not one of NOTSET, VALID, SAME_UPPER, SAME_LOWER, ",
        ),
    ];
    for (actual, expected) in cases {
        assert_eq!(actual, expected);
    }
}

fn survives(bytes: &[u8]) {
    if let Outcome::Broken(why) = import_any(bytes) {
        panic!("{why}");
    }
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index, usize),
    Double(prop::sample::Index, usize),
    Truncate(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        6 => (at(), 0..8u8).prop_map(|(i, bit)| Mutation::Flip(i, bit)),
        3 => (at(), any::<u8>()).prop_map(|(i, b)| Mutation::Set(i, b)),
        1 => (at(), 1..40usize).prop_map(|(i, n)| Mutation::Cut(i, n)),
        1 => (at(), 1..40usize).prop_map(|(i, n)| Mutation::Double(i, n)),
        1 => at().prop_map(Mutation::Truncate),
    ]
}

fn mutated(bytes: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let mut b = bytes.to_vec();
    for m in mutations.iter().filter(|_| !bytes.is_empty()) {
        if b.is_empty() {
            break;
        }
        let len = b.len();
        match m {
            Mutation::Flip(i, bit) => b[i.index(len)] ^= 1 << bit,
            Mutation::Set(i, v) => b[i.index(len)] = *v,
            Mutation::Cut(i, n) => drop(b.drain(i.index(len)..(i.index(len) + n).min(len))),
            Mutation::Double(i, n) => {
                let part = b[i.index(len)..(i.index(len) + n).min(len)].to_vec();
                b.splice(i.index(len)..i.index(len), part);
            }
            Mutation::Truncate(i) => b.truncate(i.index(len)),
        }
    }
    b
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_networks_import_or_fail_with_a_text(mutations in prop::collection::vec(mutation(), 1..6)) {
        // The weights are most of the file and any byte of them is a weight: without them mutations meet the structure.
        let mut small = network();
        for t in &mut small.graph().initializer {
            if t.raw_data.len() > 64 {
                t.raw_data.clear();
                t.data_type = 10; // found unsupported where it is used, after everything before it has been imported
            }
        }
        survives(&mutated(&network().bytes(), &mutations));
        survives(&mutated(&small.bytes(), &mutations));
    }
}

/// Every backend case of the operators, mutated a few times, where the cases have been written.
#[test]
fn mutated_backend_cases_import_or_fail_with_a_text() {
    let root = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/onnx-cases/node");
    let Ok(folders) = std::fs::read_dir(root) else {
        println!("skipped: no cases; write them with tools/onnx_cases.py target/onnx-cases");
        return;
    };
    let rounds: u64 = std::env::var("NNCC_FUZZ_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(2);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        // xorshift64*: Vigna 2016
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    };
    let mut folders: Vec<_> = folders.flatten().map(|f| f.path().join("model.onnx")).collect();
    folders.sort();
    for path in folders {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        for _ in 0..rounds {
            let mut b = bytes.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % b.len().max(1);
                if let Some(byte) = b.get_mut(at) {
                    *byte = if random() % 2 == 0 { *byte ^ (1 << (random() % 8)) } else { random() as u8 };
                }
            }
            survives(&b);
        }
    }
}
