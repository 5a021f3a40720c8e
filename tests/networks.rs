//! Whole networks against their exact outputs: the sixteen architectures of `tools/networks.py`, BatchNormalization as
//! nodes, compiled with every optimization.
//!
//! The measure is the largest difference from the float64 evaluation as a share of the output's range. nncc may differ
//! by three times what onnxruntime 1.32 does on the same file, or by 2e-6 where that is more: fusing reorders sums, and
//! folding rounds once more, but neither may cost more than the choice of another engine would. onnxruntime's figures
//! below are those of `tools/networks.py OUT --check` on an AVX-512 Xeon, one process, default options; they
//! are constants, so that a test needs no second engine.
//!
//! Each classifier's five highest classes must be the same five in the same order. Four of the networks also run on
//! aarch64 and on a baseline x86-64, by emulation.
//!
//! Each is compiled freestanding: its library must need no symbol, and keep what its header promises (see
//! `support/contract.rs`) and to its CPU levels (`support/levels.rs`). And each is described as published: parameters, multiply-accumulates, receptive fields.

#[path = "support/contract.rs"]
mod contract;
#[path = "support/freestanding.rs"]
mod freestanding;
#[path = "support/levels.rs"]
mod levels;
#[path = "support/machine.rs"]
mod machine;
#[path = "support/range.rs"]
mod range;

use nncc::verify::{TOLERANCE, compare};
use nncc::{BandUse, Compiler, DType, Tensor, arrays};
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
    let compiled = Compiler::new().freestanding(true).load(network(name, "onnx"));
    let compiled = compiled.unwrap_or_else(|e| panic!("{name}: {e}"));
    let model = compiled.jit().unwrap_or_else(|e| panic!("{name}: {e}"));
    contract::check(name, &compiled, &model, Path::new(env!("CARGO_TARGET_TMPDIR")));
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
    bert_mini: 3.2e-7,
}

/// Small enough for an emulator: a second each.
const ON_OTHER_MACHINES: [(&str, f64); 4] =
    [("lenet5", 2.5e-7), ("squeezenet1_1", 1.1e-7), ("mobilenet_v2", 3.0e-6), ("bert_mini", 3.2e-7)];

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

/// A program that is linked without libc runs a network, within the stack that the header promises.
#[test]
fn without_libc() {
    for machine in &machine::MACHINES {
        for (name, onnxruntime) in &ON_OTHER_MACHINES[..2] {
            let (input, exact) = arrays_of(name);
            let compiled = machine.compiler().freestanding(true).load(network(name, "onnx"));
            let compiled = compiled.unwrap_or_else(|e| panic!("{name}: {e}"));
            let rounded = Tensor::from_f64(DType::F32, exact.dims(), &exact.to_f64());
            let defines = [
                format!("MODEL={name}"),
                format!("CONSTANTS={}", name.to_uppercase()),
                "INPUT=\"input\"".to_string(),
                "EXACT=\"exact\"".to_string(),
                format!("OUTPUTS={}", exact.dims().iter().product::<usize>()),
                // the exact output is rounded to f32 here, by half a unit in the last place
                format!("ALLOWED={}", (3.0 * onnxruntime).max(FLOOR) + f64::from(f32::EPSILON)),
            ];
            let files = [("input", input.to_bytes()), ("exact", rounded.to_bytes())];
            let program = ("tests/support/freestanding.c", "model");
            let code = freestanding::run(machine, program, &compiled, &defines, &files);
            assert_eq!(code, Ok(0), "{name} on {}: 1, 2 refused; 3 stack; 4 wrong", machine.name);
        }
    }
}

/// Learnable parameters and multiply-accumulates: torchvision's documentation of each network (its "GFLOPS" are
/// multiply-accumulates); timm's for SE-ResNet-50; LeNet-5's, U-Net's and BERT's are counted by hand, the
/// last with its mask, a constant of 74 numbers.
#[test]
fn inspection_agrees_with_what_is_published() {
    for (name, parameters, gmacs) in [
        ("lenet5", 61_706, 0.000_416_52),
        ("alexnet", 61_100_840, 0.71),
        ("vgg16", 138_357_544, 15.47),
        ("googlenet", 6_624_904, 1.50),
        ("inception_v3", 23_834_568, 5.71),
        ("resnet18", 11_689_512, 1.81),
        ("resnet50", 25_557_032, 4.09),
        ("seresnet50", 28_088_024, 4.09),
        ("densenet121", 7_978_856, 2.83),
        ("squeezenet1_1", 1_235_496, 0.35),
        ("mobilenet_v2", 3_504_872, 0.30),
        ("efficientnet_b0", 5_288_548, 0.39),
        ("shufflenet_v2_x1_0", 2_278_604, 0.14),
        ("unet256", 1_942_594, 3.03),
        ("vit_b_16", 86_567_656, 17.56),
        ("bert_mini", 3_159_040 + 74, 0.24),
    ] {
        let report = Compiler::new().inspect(network(name, "onnx")).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(report.parameters, parameters, "{name}: learnable parameters");
        let counted = report.macs.expect("all dimensions are known") as f64 / 1e9;
        // the published figures have two decimals, LeNet-5's all of them
        let rounding = if gmacs < 0.01 { 1e-9 } else { 0.006 };
        assert!((counted - gmacs).abs() < rounding, "{name}: {counted} GMACs, {gmacs} are published");
        assert_eq!(report.statistics > 0, NORMALIZED.contains(&name), "{name}: statistics of batch normalization");
    }
}

/// The networks with BatchNormalization.
const NORMALIZED: [&str; 10] = [
    "googlenet",
    "inception_v3",
    "resnet18",
    "resnet50",
    "seresnet50",
    "densenet121",
    "mobilenet_v2",
    "efficientnet_b0",
    "shufflenet_v2_x1_0",
    "unet256",
];

/// (size, jump) of receptive fields: AlexNet's classic table after each convolution and pooling, VGG-16's after each
/// pooling, ResNets' before the global pooling. ResNet-50 strides in the 3x3 convolution of a stage's first block, as
/// torchvision's does; strides in the last block, as in Araujo, Norris, Sim 2019, make 483 of its 427.
#[test]
fn receptive_fields_agree_with_what_is_published() {
    let fields = |name: &str, keep: &dyn Fn(&nncc::inspect::Layer) -> bool| -> Vec<(f64, f64)> {
        let report = Compiler::new().inspect(network(name, "onnx")).unwrap_or_else(|e| panic!("{name}: {e}"));
        let windows = report.layers.iter().filter(|l| keep(l) && !l.field.is_empty());
        windows.map(|l| (l.field[0].size, l.field[0].jump)).collect()
    };
    let windows = |l: &nncc::inspect::Layer| matches!(l.op.as_str(), "conv" | "max_pool");
    let alexnet = [(11, 4), (19, 8), (51, 8), (67, 16), (99, 16), (131, 16), (163, 16), (195, 32)];
    assert_eq!(fields("alexnet", &windows), alexnet.map(|(s, j)| (f64::from(s), f64::from(j))));
    let vgg = fields("vgg16", &|l| l.op == "max_pool");
    let stages = [(6, 2), (16, 4), (44, 8), (100, 16), (212, 32)];
    assert_eq!(vgg, stages.map(|(s, j)| (f64::from(s), f64::from(j))));
    assert_eq!(fields("resnet50", &|l| l.op == "add").last(), Some(&(427.0, 32.0)));
    assert_eq!(fields("resnet18", &|l| l.op == "add").last(), Some(&(435.0, 32.0)));
}

/// Every value that a library completes on the way, not the outputs alone, is the evaluator's. Layers in bands complete what
/// comes out of the last of them alone.
#[test]
fn verification_passes_value_by_value() {
    for name in ["squeezenet1_1", "mobilenet_v2", "shufflenet_v2_x1_0", "bert_mini"] {
        for (bands, least) in [(BandUse::Off, 30), (BandUse::On, 12)] {
            let compiler = Compiler::new().target_cpu("native").bands(bands);
            let graph = compiler.import(network(name, "onnx")).unwrap_or_else(|e| panic!("{name}: {e}"));
            let model =
                compiler.load(network(name, "onnx")).and_then(|c| c.jit()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let (input, _) = arrays_of(name);
            let verdict = compare(&graph, &model, &[input], TOLERANCE).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(verdict.first, None, "{name}, bands {bands:?}");
            assert!(verdict.compared > least, "{name}, bands {bands:?}: {} values were compared", verdict.compared);
        }
    }
}

/// Work is split where no sum is: neither the number of threads nor that of contexts changes a bit.
#[test]
fn threads_change_no_bit() {
    for name in ["squeezenet1_1", "mobilenet_v2", "bert_mini"] {
        let compiled = Compiler::new().target_cpu("native").load(network(name, "onnx"));
        let compiled = compiled.unwrap_or_else(|e| panic!("{name}: {e}"));
        let (input, _) = arrays_of(name);
        let inputs = [input];
        let model = compiled.jit().unwrap_or_else(|e| panic!("{name}: {e}"));
        let alone = model.run(&inputs).unwrap_or_else(|e| panic!("{name}: {e}"));
        for threads in [2, 3, 5] {
            let model = compiled.jit().and_then(|m| m.with_threads(threads)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(model.run(&inputs).unwrap() == alone, "{name} on {threads} threads");
        }
        // several runs of one model at the same time, each in a context of its own
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..3).for_each(|_| assert!(model.run(&inputs).unwrap() == alone, "{name}")));
            }
        });
    }
}
