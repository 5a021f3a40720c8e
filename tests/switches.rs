//! Everything that can be left out of a build decides something in a network, and results stay within rounding without it.

#[path = "support/range.rs"]
mod range;

use nncc::{Compiler, Switch, Tensor, Text, arrays};
use range::relative_to_range;
use std::path::{Path, PathBuf};

/// The network in which an algorithm is chosen: a small one where there is one.
fn network_of(switch: Switch) -> &'static str {
    match switch {
        Switch::FirstLayer | Switch::AskingAhead | Switch::BatchNormFolding | Switch::Epilogues | Switch::Residuals => {
            "resnet18"
        }
        Switch::Direct | Switch::Winograd => "squeezenet1_1",
        Switch::Depthwise | Switch::FlatPixels | Switch::Bands => "mobilenet_v2",
        Switch::TransposedPhases => "unet256",
        Switch::PoolingInTiles => "vgg16",
        Switch::Attention | Switch::MatrixProducts => "bert_mini",
        Switch::ElementwiseFusion | Switch::ConcatInPlace => "densenet121",
    }
}

fn file(network: &str, extension: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/networks");
    let path = folder.join(format!("{network}.{extension}"));
    assert!(path.exists(), "{}: missing; write it with: python tools/networks.py target/networks", path.display());
    path
}

/// The plan and kernels of a network, and its output.
fn built(network: &str, input: &Tensor, disabled: &[Switch]) -> (String, Tensor) {
    let compiler = Compiler::new().target_cpu("native").disable(disabled);
    let compiled = compiler.load(file(network, "onnx")).unwrap_or_else(|e| panic!("{network}: {e}"));
    let model = compiled.jit().unwrap_or_else(|e| panic!("{network}: {e}"));
    let outputs = model.run(std::slice::from_ref(input)).unwrap_or_else(|e| panic!("{network}: {e}"));
    (compiled.text(Text::Plan).expect("a plan is text"), outputs[0].clone())
}

#[test]
fn each_leaves_something_out_and_changes_no_result() {
    let mut networks: Vec<&str> = Switch::ALL.iter().map(|&switch| network_of(switch)).collect();
    networks.sort_unstable();
    networks.dedup();
    for network in networks {
        let input = arrays::read_npy(&file(network, "in.npy")).expect("an array");
        let (plan, all) = built(network, &input, &[]);
        for &switch in Switch::ALL.iter().filter(|&&switch| network_of(switch) == network) {
            let (without, output) = built(network, &input, &[switch]);
            assert!(plan != without, "{network}: {} leaves nothing out", switch.name());
            let distance = relative_to_range(&output.to_f64(), &all.to_f64());
            assert!(distance < 1e-5, "{network}: without {} it is {distance:e} off", switch.name());
            if switch == Switch::PoolingInTiles {
                assert!(output == all, "a pooling changes no bit");
            }
        }
    }
}
