//! The example programs in Rust do what they say. On the network of `examples/classify`: compiled in memory, and loaded
//! from a library. On characters that they draw: taught, and taught something else. The C and C++
//! ones are tested where libraries are emitted, in `codegen/tests/emission`.

#![allow(clippy::duplicate_mod, reason = "two examples draw alike, each a program of its own")]

#[allow(dead_code, reason = "an example's `main` is called by nobody here")]
#[path = "../examples/dlopen/main.rs"]
mod dlopen;
#[allow(dead_code, reason = "an example's `main` is called by nobody here")]
#[path = "../examples/finetune/main.rs"]
mod finetune;
#[allow(dead_code, reason = "an example's `main` is called by nobody here")]
#[path = "../examples/jit/main.rs"]
mod jit;
#[allow(dead_code, reason = "an example's `main` is called by nobody here")]
#[path = "../examples/lenet/main.rs"]
mod lenet;

use nncc::training::data::Dataset;
use nncc::{Compiler, OutputKind, Tensor};
use std::path::Path;

#[test]
fn memory_and_library_print_the_same_numbers() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/classify/efficientnet_lite0.onnx");
    let model = model.to_str().expect("the project's path is UTF-8");
    let in_memory = jit::run(model, &[]).unwrap();
    assert!(in_memory.starts_with("logits: f32[1,1000]  "), "{in_memory}");

    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("example.so");
    Compiler::new().target_cpu("native").load(model).unwrap().write(&library, OutputKind::Shared).unwrap();
    let loaded = dlopen::run(library.to_str().expect("the project's path is UTF-8")).unwrap();
    let numbers = |line: &str| line.split("  ").nth(1).map(str::to_string);
    assert_eq!(numbers(in_memory.trim_end()), numbers(loaded.lines().next().unwrap()), "{loaded}");
    // the outputs' line, then the three slowest steps
    assert_eq!(loaded.lines().count(), 4, "{loaded}");

    let e = jit::run(model, &["N".into()]).unwrap_err().to_string();
    assert_eq!(e, "N: DIMENSION=SIZE is expected");
}

#[test]
fn lenet_learns_digits_and_then_letters() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [digits, letters, again] = ["digits.onnx", "letters.onnx", "again.onnx"].map(|name| folder.join(name));
    let right = lenet::run(&digits, None).unwrap();
    assert!(right > 0.97, "{right}");
    let [head, all] = finetune::run(&digits, &letters).unwrap();
    assert!(head > 0.8 && all > 0.95, "{head}, {all}");

    // other drawings of digits, from a file
    let drawn = lenet::segments::Segments::new(lenet::DIGITS, 2500, 3);
    let mut x = vec![0.0; 2500 * 28 * 28];
    x.chunks_exact_mut(28 * 28).enumerate().for_each(|(i, out)| drawn.read(i, out).unwrap());
    let (x, y) = (Tensor::f32(&[2500, 28, 28], x), Tensor::i64(&[2500], (0..2500).map(|i| i % 10).collect()));
    let file = folder.join("digits.npz");
    nncc::arrays::write_npz(&file, [("x", &x), ("y", &y)]).unwrap();
    let right = lenet::run(&again, Some(&file)).unwrap();
    assert!(right > 0.9, "{right}");
}
