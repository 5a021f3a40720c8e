//! A hand-made program and the tools to run it from C: emission is tested without lowering.
//!
//! The model `affine` is y = x * w + b on rows of 64, in two steps with a value in the arena between them, for the shape
//! sets N = 4 and N = 9. Each task is one row and goes through scratch, so that threads with a common scratch would show.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AbiParam, BlockArg, InstBuilder, MemFlagsData, Signature, Value, types};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, isa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use nncc_codegen::backend::MachineCode;
use nncc_codegen::cost::Cost;
use nncc_codegen::kir;
use nncc_codegen::program::*;
use nncc_codegen::state::{Initial, Role, State};
use nncc_codegen::target::Target;
use nncc_ir::{DType, Layout};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Elements of a row.
pub const ROW: usize = 64;

/// A directory that is removed in the end.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new(name: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("nncc-emission-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a row kernel does with an element and its constant.
#[derive(Clone, Copy)]
pub enum RowOp {
    Mul,
    Add,
}

/// Compiles `out[t][j] = in[t][j] op c[j]` for tasks t, by way of scratch.
pub fn row_kernel(target: &Target, op: RowOp) -> MachineCode {
    let mut flags = settings::builder();
    flags.set("opt_level", "speed").unwrap();
    let isa = isa::lookup(target.triple.clone()).unwrap().finish(settings::Flags::new(flags)).unwrap();
    let mut context = Context::new();
    let mut signature = Signature::new(isa.default_call_conv());
    signature.params = vec![AbiParam::new(types::I64); 4];
    context.func.signature = signature;
    let mut scratch_builder = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut context.func, &mut scratch_builder);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let [args, scratch, begin, end] = b.block_params(entry).try_into().unwrap();
    let flags = MemFlagsData::trusted();
    let [input, constant, output] = [0, 8, 16].map(|offset| b.ins().load(types::I64, flags, args, offset));
    counted(&mut b, begin, end, |b, task| {
        let row = b.ins().imul_imm_s(task, 4 * ROW as i64);
        let (input, output) = (b.ins().iadd(input, row), b.ins().iadd(output, row));
        let (zero, count) = (b.ins().iconst(types::I64, 0), b.ins().iconst(types::I64, ROW as i64));
        let at = |b: &mut FunctionBuilder, base, j| {
            let offset = b.ins().imul_imm_s(j, 4);
            b.ins().iadd(base, offset)
        };
        counted(b, zero, count, |b, j| {
            let [x, c, to] = [input, constant, scratch].map(|base| at(b, base, j));
            let (x, c) = (b.ins().load(types::F32, flags, x, 0), b.ins().load(types::F32, flags, c, 0));
            let y = match op {
                RowOp::Mul => b.ins().fmul(x, c),
                RowOp::Add => b.ins().fadd(x, c),
            };
            b.ins().store(flags, y, to, 0);
        });
        counted(b, zero, count, |b, j| {
            let [from, to] = [scratch, output].map(|base| at(b, base, j));
            let y = b.ins().load(types::F32, flags, from, 0);
            b.ins().store(flags, y, to, 0);
        });
    });
    b.ins().return_(&[]);
    b.seal_all_blocks();
    b.finalize(isa.frontend_config());
    let code = context.compile(&*isa, &mut Default::default()).unwrap();
    assert!(code.buffer.relocs().is_empty());
    let stack = code.buffer.frame_layout().map_or(0, |layout| layout.frame_to_fp_offset);
    MachineCode { bytes: code.code_buffer().to_vec(), align: code.buffer.alignment, stack }
}

fn counted(b: &mut FunctionBuilder, begin: Value, end: Value, body: impl FnOnce(&mut FunctionBuilder, Value)) {
    let (head, inside, after) = (b.create_block(), b.create_block(), b.create_block());
    let i = b.append_block_param(head, types::I64);
    b.ins().jump(head, &[BlockArg::Value(begin)]);
    b.switch_to_block(head);
    let more = b.ins().icmp(IntCC::SignedLessThan, i, end);
    b.ins().brif(more, inside, &[], after, &[]);
    b.switch_to_block(inside);
    body(b, i);
    let next = b.ins().iadd_imm_s(i, 1);
    b.ins().jump(head, &[BlockArg::Value(next)]);
    b.switch_to_block(after);
}

/// The weights of `affine`, exact in binary.
pub fn weight(j: usize) -> f32 {
    0.3 + j as f32 * 0.7
}

/// The bias of `affine`.
pub fn bias(j: usize) -> f32 {
    (j as f32 - 31.0) * 0.1
}

/// The model, for the given levels of one architecture.
pub fn affine(targets: Vec<Target>) -> (Program, Vec<MachineCode>) {
    let row = |f: fn(usize) -> f32| Const {
        data: (0..ROW).flat_map(|j| f(j).to_le_bytes()).collect::<Vec<u8>>().into(),
        align: 64,
    };
    let mut kernels = Vec::new();
    let mut code = Vec::new();
    for target in &targets {
        for (name, op) in [("row_mul", RowOp::Mul), ("row_add", RowOp::Add)] {
            let name = format!("{name}__{}", target.level.name().replace('-', "_"));
            kernels.push(ProgramKernel { level: target.level, ir: kir::Builder::new(name, vec![]).finish() });
            code.push(row_kernel(target, op));
        }
    }
    let program = Program {
        name: "affine".into(),
        consts: vec![row(weight), row(bias)],
        kernels,
        states: vec![],
        sets: [4, 9].map(|n| affine_set(n, &targets)).into(),
        targets,
    };
    (program, code)
}

fn affine_set(n: usize, targets: &[Target]) -> ShapeSet {
    let port = |name: &str| Port { name: name.into(), dtype: DType::F32, shape: vec![n, ROW] };
    let bytes = 4 * n * ROW;
    let step = |name: &str, kernel, args: [Arg; 3], result: &str| Step {
        name: name.into(),
        op: name.into(),
        kernel: KernelId(kernel),
        args: args.into(),
        tasks: n as u64,
        // Far more than it is, so that the step counts as worth splitting.
        macs: 1_000_000,
        bytes: 3 * bytes as u64,
        weight_bytes: bytes as u64,
        tunable: None,
        cost: Cost { cycles: 1234, moved: 2 * bytes as u64 },
        results: vec![StepResult {
            arg: 2,
            name: result.into(),
            dtype: DType::F32,
            shape: vec![n, ROW],
            layout: Layout::RowMajor,
        }],
    };
    let plan = |(level, target): (usize, &Target)| LevelPlan {
        level: target.level,
        steps: vec![
            step("mul", 2 * level as u32, [Arg::Input(0, 0), Arg::Const(ConstId(0), 0), Arg::Arena(64)], "t"),
            step("add", 2 * level as u32 + 1, [Arg::Arena(64), Arg::Const(ConstId(1), 0), Arg::Output(0, 0)], "y"),
        ],
        arena_bytes: 64 + bytes,
        scratch_bytes: 4 * ROW,
    };
    ShapeSet {
        purpose: Purpose::Infer,
        inputs: vec![port("x")],
        outputs: vec![port("y")],
        levels: targets.iter().enumerate().map(plan).collect(),
    }
}

/// A model that learns, of the same kernels: y = x * w and sum = target * w; a step then doubles w, where it lies.
pub fn learner(targets: Vec<Target>) -> (Program, Vec<MachineCode>) {
    let (mut program, code) = affine(targets);
    let port = |name: &str, shape: &[usize]| Port { name: name.into(), dtype: DType::F32, shape: shape.to_vec() };
    let half = [0.25_f32.to_le_bytes(); 2].concat();
    program.name = "learner".into();
    program.states = vec![
        State { port: port("w", &[ROW]), role: Role::Parameter, offset: 64, initial: Initial::Const(ConstId(0)) },
        State {
            port: port("m/w", &[3]),
            role: Role::Moment,
            offset: 320,
            initial: Initial::Splat(half.try_into().expect("eight bytes")),
        },
    ];
    let inputs = [port("x", &[4, ROW]), port("target", &[1, ROW]), port("rate", &[])];
    let outputs = [port("y", &[4, ROW]), port("sum", &[1, ROW])];
    let w = Arg::State(64);
    let set = |purpose: Purpose, input_count: usize, output_count: usize| {
        let plan = |(level, target): (usize, &Target)| {
            let (mul, add) = (KernelId(2 * level as u32), KernelId(2 * level as u32 + 1));
            let step = |name: &str, kernel, tasks, args: [Arg; 3]| Step::bare(name, name, kernel, args.into(), tasks);
            let mut steps = vec![step("mul", mul, 4, [Arg::Input(0, 0), w, Arg::Output(0, 0)])];
            if output_count > 1 {
                steps.push(step("sum", mul, 1, [Arg::Input(1, 0), w, Arg::Output(1, 0)]));
            }
            if purpose == Purpose::Step {
                steps.push(step("learn", add, 1, [w, w, w]));
            }
            LevelPlan { level: target.level, steps, arena_bytes: 0, scratch_bytes: 4 * ROW }
        };
        ShapeSet {
            purpose,
            inputs: inputs[..input_count].to_vec(),
            outputs: outputs[..output_count].to_vec(),
            levels: program.targets.iter().enumerate().map(plan).collect(),
        }
    };
    program.sets = vec![set(Purpose::Step, 3, 2), set(Purpose::Evaluate, 2, 2), set(Purpose::Infer, 1, 1)];
    (program, code)
}

/// x86-64 at two levels.
pub fn x86_64() -> Vec<Target> {
    vec![Target::x86_64_v1(), Target::x86_64_v3()]
}

/// aarch64.
pub fn aarch64() -> Vec<Target> {
    vec![Target::aarch64()]
}

/// Whether this machine can run programs of a target, itself or under qemu, given a C compiler for it.
pub struct Machine {
    pub targets: Vec<Target>,
    pub cc: &'static str,
    pub runner: Vec<&'static str>,
}

/// The machines to test on: x86-64 as it is, aarch64 under qemu.
pub fn machines() -> Vec<Machine> {
    vec![
        Machine { targets: x86_64(), cc: "cc", runner: vec![] },
        Machine {
            targets: aarch64(),
            cc: "aarch64-linux-gnu-gcc",
            runner: vec!["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
        },
    ]
}

/// Where the C sources are.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emission").join(name)
}

/// Runs a command; it must succeed. Gives its standard output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}
