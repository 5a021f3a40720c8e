//! The ratchet: how many instructions networks execute, counted by simulating every kernel of a whole run.
//!
//! The counts stand in `instruction_counts.txt`, one line a network and CPU level. A time cannot be held on a noisy machine; a
//! count can, for it is the same everywhere. One that has grown by more than 2 % fails: the code became worse, or the number
//! in the repository must be changed on purpose. One that has fallen by more fails too, so that what was gained is held from
//! then on. `NNCC_BLESS=1 cargo test --test instruction_counts` writes the file anew.
//!
//! The output of each simulated run must be as close to the exact one as that of any other run (see `networks.rs`), AVX-512
//! included where the CPU has none.

#[path = "support/range.rs"]
mod range;

use nncc::{Compiled, Compiler, DType, Tensor, arrays};
use nncc_codegen::backend::MachineCode;
use nncc_codegen::program::{Arg, LevelPlan, Step};
use nncc_simulator::{Access, Limits, Memory, Program, call};
use range::{relative_to_range, top};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Networks that are simulated in seconds, with onnxruntime's distance from the exact output.
const NETWORKS: [(&str, f64); 3] = [("lenet5", 2.5e-7), ("squeezenet1_1", 1.1e-7), ("mobilenet_v2", 3.0e-6)];
const LEVELS: [&str; 2] = ["x86-64-v3", "x86-64-v4"];
/// Per cent by which a count may differ from the file.
const SLACK: u64 = 2;

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instruction_counts.txt")
}

/// The counts of the repository, by network and level.
fn recorded() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    let of = |line: &str| {
        let (key, count) = line.rsplit_once(' ')?;
        Some((key.trim().to_string(), count.replace('_', "").parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(of).collect()
}

#[test]
fn executed_instructions_do_not_grow() {
    let jobs: Vec<(&str, f64, &str)> =
        NETWORKS.iter().flat_map(|&(name, distance)| LEVELS.map(|level| (name, distance, level))).collect();
    // On all cores: the networks are independent of each other.
    let counted: BTreeMap<String, u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = jobs
            .iter()
            .map(|&(name, distance, level)| {
                scope.spawn(move || (format!("{name} {level}"), count(name, distance, level)))
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("a network that runs")).collect()
    });
    if std::env::var_os("NNCC_BLESS").is_some() {
        let mut text = String::from("# instructions executed: network, CPU level, count (see instruction_counts.rs)\n");
        for (key, count) in &counted {
            writeln!(text, "{key} {}", grouped(*count)).expect("a string takes any text");
        }
        std::fs::write(file(), text).expect("the file is writable");
        return;
    }
    let recorded = recorded();
    let mut failures = Vec::new();
    for (key, &now) in &counted {
        let before = recorded.get(key).copied().unwrap_or(0);
        println!("{key}: {} instructions, {} in the file", grouped(now), grouped(before));
        let change = if before == 0 { f64::INFINITY } else { (now as f64 / before as f64 - 1.0) * 100.0 };
        if change.abs() > SLACK as f64 {
            failures.push(format!("{key}: {} instructions, {} before: {change:+.1} %", grouped(now), grouped(before)));
        }
    }
    assert!(
        failures.is_empty(),
        "{}\nif that is meant: NNCC_BLESS=1 cargo test --test instruction_counts",
        failures.join("\n")
    );
}

/// Thousands apart.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('_');
        }
        out.push(d);
    }
    out
}

fn network(name: &str, extension: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/networks").join(format!("{name}.{extension}"));
    let command = format!("python tools/networks.py target/networks {name}");
    assert!(path.exists(), "{}: missing; write it with: {command}", path.display());
    path
}

/// Simulates one run of a network; gives the number of instructions.
fn count(name: &str, onnxruntime: f64, level: &str) -> u64 {
    let read = |extension: &str| arrays::read_npy(&network(name, extension)).unwrap_or_else(|e| panic!("{e}"));
    let (input, exact) = (read("in.npy"), read("f64.npy"));
    let compiler = Compiler::new().target("x86_64-unknown-linux-gnu").target_cpu(level);
    let compiled = compiler.load(network(name, "onnx")).unwrap_or_else(|e| panic!("{name}: {e}"));
    let code = nncc_codegen::emit::compile_kernels(compiled.program()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut run = Simulation::new(&compiled, &input, &exact);
    let mut executed = 0;
    for step in &run.plan.steps {
        executed +=
            run.step(step, &code[step.kernel.0 as usize]).unwrap_or_else(|e| panic!("{name}: {}: {e}", step.name));
    }
    let output = Tensor::from_bytes(DType::F32, exact.dims(), run.memory.contents(run.output)).expect("a whole tensor");
    let (got, want) = (output.to_f64(), exact.to_f64());
    let distance = relative_to_range(&got, &want);
    let allowed = (3.0 * onnxruntime).max(2e-6);
    assert!(distance <= allowed, "{name} for {level}: {distance:.2e} of the range off, {allowed:.1e} is allowed");
    assert_eq!(top(&got, 5), top(&want, 5), "{name} for {level}: the five highest classes");
    executed
}

/// A model with one input and one output, its memory in the simulator.
struct Simulation<'a> {
    plan: &'a LevelPlan,
    programs: BTreeMap<u32, Program>,
    memory: Memory,
    input: u64,
    output: u64,
    arena: u64,
    scratch: u64,
    consts: Vec<u64>,
}

impl<'a> Simulation<'a> {
    fn new(compiled: &'a Compiled, input: &Tensor, exact: &Tensor) -> Simulation<'a> {
        let program = compiled.program();
        let plan = &program.sets[0].levels[0];
        let mut memory = Memory::new();
        let consts = program.consts.iter().map(|c| {
            let mut bytes = vec![0; c.data.len()];
            c.data.write(&mut bytes);
            memory.add(bytes, Access::Read)
        });
        let consts = consts.collect();
        Simulation {
            plan,
            programs: BTreeMap::new(),
            input: memory.add(input.to_bytes(), Access::Read),
            // Bytes that are NaNs, so that what is never written shows.
            output: memory.add(vec![0xff; 4 * exact.elems()], Access::ReadWrite),
            arena: memory.add(vec![0xff; plan.arena_bytes], Access::ReadWrite),
            scratch: memory.add(vec![0xff; plan.scratch_bytes], Access::ReadWrite),
            consts,
            memory,
        }
    }

    fn place(&self, arg: Arg) -> u64 {
        let (region, offset) = match arg {
            Arg::Arena(offset) => (self.arena, offset),
            Arg::Input(_, offset) => (self.input, offset),
            Arg::Output(_, offset) => (self.output, offset),
            Arg::Const(id, offset) => (self.consts[id.0 as usize], offset),
            Arg::State(_) => unreachable!("no model here learns"),
        };
        region + offset as u64
    }

    fn step(&mut self, step: &Step, code: &MachineCode) -> Result<u64, String> {
        let pointers: Vec<u8> = step.args.iter().flat_map(|&a| self.place(a).to_le_bytes()).collect();
        let pointers = self.memory.add(pointers, Access::Read);
        let program = match self.programs.entry(step.kernel.0) {
            std::collections::btree_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::btree_map::Entry::Vacant(e) => {
                e.insert(Program::decode(&code.bytes).map_err(|e| e.to_string())?)
            }
        };
        let limits = Limits { stack: code.stack as usize, instructions: 1 << 40 };
        let arguments = [pointers, self.scratch, 0, step.tasks];
        call(program, &mut self.memory, arguments, limits).map_err(|e| e.to_string())
    }
}
