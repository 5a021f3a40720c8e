//! The example programs in Rust do what they say, on the network of `examples/classify`: compiled in memory, and loaded
//! from a library. The C and C++ ones are tested where libraries are emitted, in `codegen/tests/emission`.

#[allow(dead_code, reason = "an example's `main` is called by nobody here")]
#[path = "../examples/dlopen/main.rs"]
mod dlopen;
#[allow(dead_code, reason = "an example's `main` is called by nobody here")]
#[path = "../examples/jit/main.rs"]
mod jit;

use nncc::{Compiler, OutputKind};
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
