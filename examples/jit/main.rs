//! Compiles a model into this process's memory and runs it: no file is written, nothing is loaded.
//!
//! ```text
//! cargo run --release --example jit -- examples/classify/efficientnet_lite0.onnx
//! cargo run --release --example jit -- MODEL.onnx N=1 H=224        # symbolic dimensions get numbers
//! ```
//!
//! Every input is filled with ones; the first values of each output are printed.

use nncc::{Compiler, Error, Tensor};

fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(model) = args.next() else {
        eprintln!("usage: jit MODEL.onnx [DIMENSION=SIZE ...]");
        return std::process::ExitCode::from(2);
    };
    match run(&model, &args.collect::<Vec<_>>()) {
        Ok(printed) => {
            print!("{printed}");
            std::process::ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{e}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// What is printed of one run on ones.
pub fn run(model: &str, dims: &[String]) -> Result<String, Error> {
    // The code is for this machine only, so one CPU level is enough; a library holds one for each.
    let mut compiler = Compiler::new().target_cpu("native");
    for dim in dims {
        let (name, size) =
            dim.split_once('=').ok_or_else(|| Error::Usage(format!("{dim}: DIMENSION=SIZE is expected")))?;
        let size = size.parse().map_err(|_| Error::Usage(format!("{dim}: `{size}` is not a size")))?;
        compiler = compiler.dim(name, &[size]);
    }
    let model = compiler.load(model)?.jit()?;
    let ones = |ty: &nncc_ir::TensorType| {
        let dims = ty.dims().unwrap_or_default();
        Tensor::from_f64(ty.dtype, &dims, &vec![1.0; dims.iter().product()])
    };
    let inputs: Vec<Tensor> = model.input_types().iter().map(|(_, ty)| ones(ty)).collect();

    let mut printed = String::new();
    for (name, output) in model.output_names().iter().zip(model.run(&inputs)?) {
        let first: Vec<String> = output.to_f64().iter().take(5).map(|x| format!("{x:.4}")).collect();
        printed += &format!("{name}: {}  {}\n", output.ty(), first.join(" "));
    }
    Ok(printed)
}
