//! Emission end to end: hand-made programs become libraries, and C programs use them, on x86-64 and (under qemu) aarch64.

mod support;

use nncc_codegen::emit::{self, EmitOptions};
use std::process::Command;
use support::*;

/// Every function, right and wrong calls, threads, tracing, bounds: see driver.c.
#[test]
fn c_driver_passes_on_each_machine() {
    for machine in machines() {
        let dir = TempDir::new(&format!("driver-{}", lowest(&machine.targets).name()));
        let (program, code) = affine(machine.targets.clone());
        let options = EmitOptions::default();
        let library = dir.0.join("affine.so");
        let emitted = emit::emit_shared(&program, &code, &options, &library).unwrap();
        std::fs::write(dir.0.join("affine.h"), emit::header(&program, &options, &emitted)).unwrap();
        let driver = dir.0.join("driver");
        let mut cc = Command::new(machine.cc);
        cc.args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-O1",
            "-ffp-contract=off",
            "-frounding-math",
        ]);
        cc.arg("-I").arg(&dir.0).arg(source("driver.c")).arg(&library).arg("-o").arg(&driver);
        run(cc.arg(format!("-Wl,-rpath,{}", dir.0.display())).args(["-pthread", "-lm"]));
        let mut words = machine.runner.iter().map(|word| word.to_string()).chain([driver.display().to_string()]);
        let mut command = Command::new(words.next().unwrap());
        assert_eq!(run(command.args(words)), "ok\n");
    }
}
