//! The ONNX backend tests, and our import cases, through the compiler: each case is compiled into memory and run.
//!
//!     cargo test --test conformance                          all cases
//!     cargo test --test conformance -- test_conv test_pool   those whose name contains one of the words, with reasons
//!     NNCC_BLESS=1 cargo test --test conformance             rewrite conformance/passing.txt
//!     NNCC_ENGINE=evaluate cargo test --test conformance     import and evaluate only: is the importer or a kernel wrong?

#[path = "conformance/mod.rs"]
mod suite;

use suite::{Engine, Plan};

fn main() -> std::process::ExitCode {
    let evaluate = std::env::var("NNCC_ENGINE").is_ok_and(|v| v == "evaluate");
    let engines: &[Engine] = if evaluate { &[Engine::Evaluate] } else { &[Engine::Jit] };
    suite::main(&Plan { engines, unlisted: true })
}
