//! Bytes as a kernel, compiled for each x86 level and run: see `nncc_codegen::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(difference) = nncc_codegen::fuzzing::kernel(bytes) {
        panic!("{difference}");
    }
});
