//! Whole networks against their exact outputs: the fifteen architectures of `tools/networks.py`, BatchNormalization as
//! nodes, compiled with every optimization.
//!
//! The measure is the largest difference from the float64 evaluation as a share of the output's range. nncc may differ
//! by three times what onnxruntime 1.32 does on the same file, or by 2e-6 where that is more: fusing reorders sums, and
//! folding rounds once more, but neither may cost more than the choice of another engine would. onnxruntime's figures
//! below are those of `tools/networks.py OUT --check` on an AVX-512 Xeon, one process, default options; they
//! are constants, so that a test needs no second engine.
//!
//! Each classifier's five highest classes must be the same five in the same order. Three of the networks also run on
//! aarch64 and on a baseline x86-64, by emulation.

#[path = "support/machine.rs"]
mod machine;
#[path = "support/range.rs"]
mod range;

use nncc::{Compiler, DType, Tensor, arrays};
use range::{relative_to_range, top};
use std::path::{Path, PathBuf};

/// The difference that is allowed whatever another engine does: 17 units in the last place of f32 at the range's end.
const FLOOR: f64 = 2e-6;

/// A network's files; the test says how to make them if they are missing.
fn network(name: &str, file: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/networks").join(format!("{name}.{file}"));
    assert!(
        path.exists(),
        "{}: missing; write it with: python tools/networks.py target/networks {name}",
        path.display()
    );
    path
}

fn check(name: &str, onnxruntime: f64) {
    let (input, exact) = arrays_of(name);
    let model =
        Compiler::new().load(network(name, "onnx")).and_then(|c| c.jit()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let outputs = model.run(&[input]).unwrap_or_else(|e| panic!("{name}: {e}"));
    compare_with_exact(name, &outputs, &exact, onnxruntime);
}

/// The network's input and exact output.
fn arrays_of(name: &str) -> (Tensor, Tensor) {
    let read = |file: &str| arrays::read_npy(&network(name, file)).unwrap_or_else(|e| panic!("{e}"));
    (read("in.npy"), read("f64.npy"))
}

fn compare_with_exact(name: &str, outputs: &[Tensor], exact: &Tensor, onnxruntime: f64) {
    assert_eq!(outputs.len(), 1, "{name}: number of outputs");
    assert_eq!(outputs[0].dims(), exact.dims(), "{name}: shape of the output");
    let (got, want) = (outputs[0].to_f64(), exact.to_f64());
    let distance = relative_to_range(&got, &want);
    let allowed = (3.0 * onnxruntime).max(FLOOR);
    println!(
        "{name}: {distance:.1e} of the range off the exact output, {allowed:.1e} allowed, onnxruntime {onnxruntime:.1e}"
    );
    assert!(distance <= allowed, "{name}: {distance:.2e} of the range off the exact output, {allowed:.1e} is allowed");
    if exact.dims().len() == 2 {
        assert_eq!(top(&got, 5), top(&want, 5), "{name}: the five highest classes");
    }
}

/// One test a network, with onnxruntime's distance.
macro_rules! networks {
    ($($name:ident: $onnxruntime:literal,)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name), $onnxruntime);
            }
        )*
    };
}

networks! {
    lenet5: 2.5e-7,
    alexnet: 3.1e-7,
    vgg16: 3.4e-7,
    googlenet: 5.0e-6,
    inception_v3: 1.7e-5,
    resnet18: 4.5e-7,
    resnet50: 8.1e-6,
    seresnet50: 1.7e-6,
    densenet121: 9.4e-7,
    squeezenet1_1: 1.1e-7,
    mobilenet_v2: 3.0e-6,
    efficientnet_b0: 2.5e-6,
    shufflenet_v2_x1_0: 3.0e-6,
    unet256: 4.1e-6,
    vit_b_16: 4.2e-7,
}

/// Small enough for an emulator: a second each.
const ON_OTHER_MACHINES: [(&str, f64); 3] = [("lenet5", 2.5e-7), ("squeezenet1_1", 1.1e-7), ("mobilenet_v2", 3.0e-6)];

fn check_on(machine: &machine::Machine) {
    for (name, onnxruntime) in ON_OTHER_MACHINES {
        let (input, exact) = arrays_of(name);
        let compiled = machine.compiler().load(network(name, "onnx")).unwrap_or_else(|e| panic!("{name}: {e}"));
        let shape = (DType::F32, exact.dims().to_vec());
        let outputs = machine.run(&compiled, &[input], &[shape]).unwrap_or_else(|e| panic!("{name}: {e}"));
        compare_with_exact(&format!("{name} on {}", machine.name), &outputs, &exact, onnxruntime);
    }
}

#[test]
fn on_aarch64() {
    check_on(&machine::MACHINES[0]);
}

#[test]
fn on_baseline_x86_64() {
    check_on(&machine::MACHINES[1]);
}
