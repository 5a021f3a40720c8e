//! Loads a library that nncc wrote and runs it from several threads: what a deployed Rust program does. It links
//! `nncc-runtime` alone; the compiler is not in it.
//!
//! ```text
//! nncc examples/classify/efficientnet_lite0.onnx -o target/efficientnet_lite0.so
//! cargo run --release -p nncc-runtime --example dlopen -- target/efficientnet_lite0.so
//! ```
//!
//! Every input is filled with ones (floats) or zeros; the first values of each output are printed, and the slowest steps.

use nncc_runtime::{Context, Library, Port, RunError, Tensor};
use std::error::Error;
use std::sync::{Arc, Mutex};

/// Threads that run the model at the same time, each in a context of its own.
const THREADS: usize = 2;

fn main() -> std::process::ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: dlopen MODEL.so");
        return std::process::ExitCode::from(2);
    };
    match run(&path) {
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

/// What is printed of runs on ones.
pub fn run(path: &str) -> Result<String, Box<dyn Error>> {
    // SAFETY: loading a library runs its code; the caller says that nncc wrote this one.
    let library = unsafe { Library::open(path)? };
    let inputs: Vec<Tensor> = library.inputs(0).iter().map(ones).collect();

    // A library is shared, a context belongs to one thread. The bits do not depend on how many there are.
    let mut results = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| infer(&library, &inputs))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a run does not panic")).collect::<Result<Vec<_>, _>>()
    })?;
    let outputs = results.pop().unwrap_or_default();
    assert!(results.iter().all(|other| *other == outputs), "the same inputs give the same bits");

    let mut printed = String::new();
    for (port, output) in library.outputs(0).iter().zip(&outputs) {
        let first: Vec<String> =
            output.as_slice::<f32>().unwrap_or_default().iter().take(5).map(|x| format!("{x:.4}")).collect();
        printed += &format!("{}: {}{:?}  {}\n", port.name, port.dtype, port.shape, first.join(" "));
    }
    for (name, nanoseconds) in slowest_steps(&library, &inputs, 3)? {
        printed += &format!("  {:8.1} us  {name}\n", nanoseconds as f64 / 1e3);
    }
    Ok(printed)
}

/// Ones for an input of f32, else zeros.
fn ones(port: &Port) -> Tensor {
    let mut tensor = Tensor::zeros(port.dtype, &port.shape);
    if let Some(elements) = tensor.as_mut_slice::<f32>() {
        elements.fill(1.0);
    }
    tensor
}

/// A run in a context of its own. Views of the inputs are not copied: the library reads them where they are.
fn infer(library: &Library, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
    Context::new(library)?.run_owned(&inputs.iter().map(Tensor::view).collect::<Vec<_>>())
}

/// The `count` steps that took longest, by the trace hook.
fn slowest_steps(library: &Library, inputs: &[Tensor], count: usize) -> Result<Vec<(String, u64)>, RunError> {
    let mut context = Context::new(library)?;
    let times = Arc::new(Mutex::new(Vec::new()));
    let sink = times.clone();
    context.set_trace(Some(Box::new(move |event| {
        sink.lock().expect("the hook does not panic").push((event.name.clone(), event.duration_ns));
        true
    })));
    context.run_owned(&inputs.iter().map(Tensor::view).collect::<Vec<_>>())?;
    context.set_trace(None);
    let mut times = std::mem::take(&mut *times.lock().expect("the hook does not panic"));
    times.sort_by_key(|&(_, nanoseconds)| std::cmp::Reverse(nanoseconds));
    times.truncate(count);
    Ok(times)
}
