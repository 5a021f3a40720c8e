//! C and C++ programs that include the generated header and call the library.

use crate::support::*;
use nncc_codegen::backend::MachineCode;
use nncc_codegen::emit::{self, EmitOptions};
use nncc_codegen::program::Program;
use nncc_codegen::target::Target;
use std::path::Path;
use std::process::Command;

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

/// A command that runs a program on a machine.
fn on(machine: &Machine, program: &Path) -> Command {
    let mut words = machine.runner.iter().map(|word| word.to_string()).chain([program.display().to_string()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// Every function, right and wrong calls, threads, tracing, bounds: see driver.c.
#[test]
fn c_driver_passes_on_each_machine() {
    for machine in machines() {
        let dir = TempDir::new(&format!("driver-{}", machine.targets[0].level.name()));
        let (program, code) = affine(machine.targets.clone());
        let options = EmitOptions::default();
        let library = dir.0.join("affine.so");
        let emitted = emit::emit_shared(&program, &code, &options, &library).unwrap();
        std::fs::write(dir.0.join("affine.h"), emit::header(&program, &options, &emitted)).unwrap();
        let driver = dir.0.join("driver");
        let mut cc = Command::new(machine.cc);
        cc.arg("-std=c11").args(WARNINGS).args(["-O1", "-ffp-contract=off", "-frounding-math"]);
        cc.arg("-I").arg(&dir.0).arg(source("driver.c")).arg(&library).arg("-o").arg(&driver);
        run(cc.arg(format!("-Wl,-rpath,{}", dir.0.display())).args(["-pthread", "-lm"]));
        assert_eq!(run(&mut on(&machine, &driver)), "ok\n");
    }
}

/// Links a program with a freestanding object, which imports nothing, and runs it without libc on every machine.
fn runs_without_libc(name: &str, make: fn(Vec<Target>) -> (Program, Vec<MachineCode>), program_source: &str) {
    for machine in machines() {
        let dir = TempDir::new(&format!("{program_source}-{}", machine.targets[0].level.name()));
        let (program, code) = make(machine.targets.clone());
        let options = EmitOptions { freestanding: true, ..Default::default() };
        let object = dir.0.join(format!("{name}.o"));
        let emitted = emit::emit_object(&program, &code, &options, &object).unwrap();
        std::fs::write(dir.0.join(format!("{name}.h")), emit::header(&program, &options, &emitted)).unwrap();
        let driver = dir.0.join("driver");
        let mut cc = Command::new(machine.cc);
        cc.arg("-std=c11").args(WARNINGS).args(["-O1", "-ffp-contract=off", "-ffreestanding", "-fno-builtin"]);
        cc.args(["-fno-stack-protector", "-nostdlib", "-static"]).arg("-I").arg(&dir.0);
        run(cc.arg(source(program_source)).arg(&object).arg("-o").arg(&driver));
        run(&mut on(&machine, &driver));
    }
}

#[test]
fn freestanding_library_runs_without_libc() {
    runs_without_libc("affine", affine, "freestanding.c");
}

/// A library that learns: see learning.c.
#[test]
fn states_in_right_and_wrong_calls() {
    runs_without_libc("learner", learner, "learning.c");
}

/// Archives of two models link into one C program and one C++ program.
#[test]
fn two_models_link_into_one_program() {
    for machine in machines() {
        let dir = TempDir::new(&format!("two-{}", machine.targets[0].level.name()));
        for name in ["first", "second"] {
            let (program, code) = affine(machine.targets.clone());
            let program = Program { name: format!("{name}.model"), ..program };
            let options = EmitOptions { prefix: Some(name.into()), ..Default::default() };
            let archive = dir.0.join(format!("{name}.a"));
            let emitted = emit::emit_archive(&program, &code, &options, &archive).unwrap();
            std::fs::write(dir.0.join(format!("{name}.h")), emit::header(&program, &options, &emitted)).unwrap();
        }
        for (language, standard) in [("c", "-std=c99"), ("c++", "-std=c++17")] {
            if language == "c++" && !machine.runner.is_empty() {
                // The cross compiler of the test machines speaks C only.
                continue;
            }
            let driver = dir.0.join(format!("driver-{language}"));
            let mut cc = Command::new(machine.cc);
            cc.arg(standard).args(WARNINGS).arg("-I").arg(&dir.0).args(["-x", language]).arg(source("two_models.c"));
            cc.args(["-x", "none"]).args(["first.a", "second.a"].map(|name| dir.0.join(name)));
            run(cc.arg("-pthread").arg("-o").arg(&driver));
            assert_eq!(run(&mut on(&machine, &driver)), "ok\n");
        }
    }
}

/// The example programs compile without a warning and run.
#[test]
fn examples_compile_and_run() {
    let machine = &machines()[0];
    let dir = TempDir::new("examples");
    let (program, code) = affine(machine.targets.clone());
    let options = EmitOptions::default();
    let library = dir.0.join("affine.so");
    let emitted = emit::emit_shared(&program, &code, &options, &library).unwrap();
    std::fs::write(dir.0.join("affine.h"), emit::header(&program, &options, &emitted)).unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");

    let (c, cpp) = (dir.0.join("c"), dir.0.join("cpp"));
    let mut cc = Command::new(machine.cc);
    cc.arg("-std=c99").args(WARNINGS).arg("-DMODEL=affine").arg("-I").arg(&dir.0).arg(examples.join("c/main.c"));
    run(cc.arg(&library).arg(format!("-Wl,-rpath,{}", dir.0.display())).arg("-pthread").arg("-o").arg(&c));
    let first: Vec<String> = (0..5).map(|j| format!("{:.4}", weight(j) + bias(j))).collect();
    let printed = run(&mut Command::new(&c));
    let numbers = printed.strip_prefix("y: ").unwrap().split_whitespace();
    assert_eq!(numbers.map(|n| format!("{:.4}", n.parse::<f64>().unwrap())).collect::<Vec<_>>(), first);

    let mut cxx = Command::new("c++");
    cxx.arg("-std=c++17").args(WARNINGS).arg("-DHEADER=\"affine.h\"").arg("-I").arg(&dir.0);
    run(cxx.arg(examples.join("cpp/main.cpp")).arg("-ldl").arg("-o").arg(&cpp));
    let printed = run(Command::new(&cpp).arg(&library));
    assert!(printed.starts_with("input \"x\": 4 64\noutput \"y\": 4 64\n"), "{printed}");
    assert!(printed.contains(" mul ") && printed.ends_with(" add\n"), "{printed}");
}
