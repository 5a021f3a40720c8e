//! Bytes as a model file: see `nncc_frontend::fuzzing`. A good corpus is the ONNX backend tests' models.
#![no_main]

use nncc_frontend::fuzzing::{Outcome, import_any};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Outcome::Broken(why) = import_any(bytes) {
        panic!("{why}");
    }
});
