//! The harness of the differential tests of lowering: one graph through every target, against the reference evaluator.
//!
//! [`check`] plans a graph with [`Separate`] places, lowers it for each of [`targets`], verifies every kernel, runs the
//! program in the kernel IR interpreter; the wide x86 levels also as machine code in the simulator, and what this machine
//! can execute as machine code on it. Each result is compared with the reference evaluation of the graph within a
//! [`Tolerance`], and machine code with the interpreter bit by bit (NaNs count as equal).
//!
//! What it makes visible: memory starts as NaN patterns, so padding lanes and places never written show up; the interpreter
//! knows each operand's exact extent; native buffers stand between guard bytes; tasks are run in several uneven ranges, last
//! one first, each with fresh scratch, so that a dependence between tasks fails.
//!
//! Inputs and outputs may have any layout here (the harness stores and reads them blocked), although a model's are row-major:
//! a kernel on blocked values is tested without the copies around it.

mod choices;

pub use choices::{Same, check_choices, tried};

use crate::backend::testing::simulated::Simulated;
use crate::backend::{self, BackendError, MachineCode};
use crate::kir::Kernel;
use crate::kir::{interp, verify};
use crate::lower::{Algorithms, Placement, Separate, SetSource, lower_any_layout};
use crate::program::{Arg, LevelPlan, MAX_ALIGN, Program, ShapeSet, Step};
use crate::target::{Level, Target, host_has};
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::{Constant, DType, Data, Graph, Layout, Op, Tensor, ValueId, channel_blocks};
use std::collections::HashMap;

/// What memory holds before a program writes it: NaN in every float type, and no valid index.
const FILL: u8 = 0xff;

/// How far a result may be from the reference.
#[derive(Clone, Debug)]
pub enum Tolerance {
    /// Equal; the sign of a zero counts, the payload of a NaN does not.
    Exact,
    /// `|got - want| <= abs + rel * |want|`.
    Relative {
        /// Of the reference.
        rel: f64,
        /// On top.
        abs: f64,
    },
    /// `|got - want| <= bound`, element by element for each output: what rounding explains, such as `k * eps * sum |w||x|`.
    Bounds(Vec<Vec<f64>>),
}

/// Every shape of target: the lane and register counts that templates must be right for.
pub fn targets() -> Vec<Target> {
    vec![Target::x86_64_v1(), Target::x86_64_v3(), Target::x86_64_v4(), Target::aarch64()]
}

/// Checks a graph on all targets.
///
/// # Panics
/// When a result is wrong, or anything on the way fails.
#[track_caller]
pub fn check(graph: &Graph, inputs: &[Tensor], tolerance: &Tolerance) {
    check_on(graph, inputs, tolerance, &targets());
}

/// Checks a graph on some targets.
#[track_caller]
pub fn check_on(graph: &Graph, inputs: &[Tensor], tolerance: &Tolerance, targets: &[Target]) {
    check_with(graph, inputs, tolerance, targets, &Algorithms::default());
}

/// Checks a graph with chosen algorithms.
#[track_caller]
pub fn check_with(
    graph: &Graph,
    inputs: &[Tensor],
    tolerance: &Tolerance,
    targets: &[Target],
    algorithms: &Algorithms,
) {
    let want = evaluate(graph, inputs, Precision::Native).expect("the reference evaluates");
    compare(graph, inputs, &want, tolerance, targets, algorithms);
}

/// Checks a graph on all targets against results that the caller knows, exactly: for inputs that the reference refuses.
#[track_caller]
pub fn check_against(graph: &Graph, inputs: &[Tensor], want: &[Tensor]) {
    compare(graph, inputs, want, &Tolerance::Exact, &targets(), &Algorithms::default());
}

/// Runs a graph on each target, and compares its results with `want` and machine code with the interpreter.
#[track_caller]
fn compare(
    graph: &Graph,
    inputs: &[Tensor],
    want: &[Tensor],
    tolerance: &Tolerance,
    targets: &[Target],
    algorithms: &Algorithms,
) {
    let plan = Separate::plan(graph).expect("a graph that can be planned");
    for target in targets {
        let set = SetSource { graph, plan: &plan };
        let program = match lower_any_layout(&graph.name, &[set], std::slice::from_ref(target), algorithms) {
            Ok(program) => program,
            Err(e) => panic!("{}: {e}", target.level.name()),
        };
        for k in &program.kernels {
            if let Err(e) = verify::verify(&k.ir) {
                panic!("{}: {e}", target.level.name());
            }
        }
        let run = Run { graph, plan: &plan, program: &program, target };
        let interpreted = run.run(inputs, &mut Interpreted);
        run.compare(&interpreted, want, tolerance, "interpreter");
        let Some(code) = machine_code(&program, target) else { continue };
        let agree = |got: Vec<Tensor>, how: &str| {
            for (i, (got, want)) in got.iter().zip(&interpreted).enumerate() {
                if let Some(at) = first_difference(got, want) {
                    panic!(
                        "{}: output {i}, element {at}: {how} gives {:?}, the interpreter {:?}",
                        target.level.name(),
                        got.to_f64()[at],
                        want.to_f64()[at]
                    );
                }
            }
        };
        if matches!(target.level, Level::X86V3 | Level::X86V4) {
            let mut simulator = Simulator::new(&program, &code, target.level);
            agree(run.run(inputs, &mut simulator), "machine code in the simulator");
        }
        if host_has(target.level) {
            agree(run.run(inputs, &mut Native::new(&program, &code)), "machine code");
        }
    }
}

/// The machine code of each kernel; `None` where no backend compiles the level.
fn machine_code(program: &Program, target: &Target) -> Option<Vec<MachineCode>> {
    let backend = match backend::for_target(target) {
        Ok(backend) => backend,
        Err(BackendError::Level(_)) => return None,
        Err(e) => panic!("{e}"),
    };
    let compile = |k: &crate::program::ProgramKernel| match backend.compile(&k.ir, target) {
        Ok(code) => code,
        Err(e) => panic!("{}: {e}", target.level.name()),
    };
    Some(program.kernels.iter().map(compile).collect())
}

/// The graph with every constant and input replaced by its absolute value and evaluated in f64: for operators that are sums
/// of products this is `sum |w||x|`, by which their rounding error is bounded.
pub fn absolute_sums(graph: &Graph, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let absolute = |t: &Tensor| {
        let v: Vec<f64> = t.to_f64().into_iter().map(f64::abs).collect();
        Tensor::from_f64(t.dtype(), t.dims(), &v)
    };
    let mut values: HashMap<ValueId, Tensor> = HashMap::new();
    for (&n, t) in graph.inputs().iter().zip(inputs) {
        values.insert(ValueId { node: n, out: 0 }, absolute(t));
    }
    for n in graph.topological_order().expect("no cycle") {
        let results = match graph.op(n) {
            Op::Input => continue,
            Op::Constant(c) => vec![absolute(&c.to_tensor())],
            op => {
                let operands = graph.operands(n);
                let operands: Vec<Option<&Tensor>> = operands.iter().map(|v| v.map(|v| &values[&v])).collect();
                op.eval(&operands).expect("the reference evaluates")
            }
        };
        values.extend(graph.results(n).zip(results));
    }
    graph.outputs().iter().map(|(_, v)| values[v].to_f64()).collect()
}

/// The tolerance of a sum of `terms` products: each of the at most `terms` additions rounds a partial sum that is at most
/// `sum |w||x|`, half a unit in the last place each, and so does the reference once. The worst case is linear in the count;
/// it is used as it is, for a wrong index moves a result by far more.
pub fn sum_tolerance(graph: &Graph, inputs: &[Tensor], terms: usize) -> Tolerance {
    let unit = f64::from(f32::EPSILON) * 0.5 * (terms as f64 + 4.0);
    let bounds = absolute_sums(graph, inputs);
    Tolerance::Bounds(bounds.into_iter().map(|v| v.into_iter().map(|s| s * unit + 1e-37).collect()).collect())
}

/// A constant tensor of the graph.
pub fn constant(graph: &mut Graph, name: &str, t: &Tensor) -> ValueId {
    graph.add_constant(name, Constant::from_tensor(t))
}

/// Reproducible numbers in -1..1 that f32 holds exactly in few bits, so that products rarely round: what differs is a bug.
pub fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as i64 % 257 - 128) as f32 / 128.0
    };
    (0..count).map(|_| next()).collect()
}

/// A tensor of [`numbers`].
pub fn tensor(seed: u64, dims: &[usize]) -> Tensor {
    Tensor::f32(dims, numbers(seed, dims.iter().product()))
}

/// A tensor's bytes in a layout, padding lanes filled with NaN patterns.
pub fn store(t: &Tensor, layout: Layout) -> Vec<u8> {
    let bytes = t.to_bytes();
    if layout == Layout::RowMajor {
        return bytes;
    }
    let size = t.dtype().bytes();
    let stored = layout.stored_elems(t.dims()).expect("a small tensor") * size;
    let mut out = vec![FILL; stored];
    for_each_blocked(t.dims(), |row_major, blocked| {
        out[blocked * size..][..size].copy_from_slice(&bytes[row_major * size..][..size]);
    });
    out
}

/// The inverse of [`store`].
pub fn read(dtype: DType, dims: &[usize], layout: Layout, bytes: &[u8]) -> Tensor {
    let size = dtype.bytes();
    let mut out = bytes.to_vec();
    if layout == Layout::Blocked {
        out = vec![0; dims.iter().product::<usize>() * size];
        for_each_blocked(dims, |row_major, blocked| {
            out[row_major * size..][..size].copy_from_slice(&bytes[blocked * size..][..size]);
        });
    }
    Tensor::from_bytes(dtype, dims, &out).expect("bytes of a whole tensor")
}

/// Calls `f` with the row-major and the blocked index of every element.
fn for_each_blocked(dims: &[usize], mut f: impl FnMut(usize, usize)) {
    let (n, c, s) = (dims[0], dims[1], dims[2..].iter().product::<usize>());
    let image = nncc_ir::padded_channels(c) * s;
    for b in 0..n {
        for (start, width) in channel_blocks(c) {
            for lane in 0..width.min(c - start) {
                for p in 0..s {
                    f((b * c + start + lane) * s + p, b * image + start * s + p * width + lane);
                }
            }
        }
    }
}

fn first_difference(a: &Tensor, b: &Tensor) -> Option<usize> {
    let (a64, b64) = (a.to_f64(), b.to_f64());
    let same = |i: usize| match (a.data(), b.data()) {
        (Data::F32(a), Data::F32(b)) => a[i].to_bits() == b[i].to_bits() || (a[i].is_nan() && b[i].is_nan()),
        (Data::F64(a), Data::F64(b)) => a[i].to_bits() == b[i].to_bits() || (a[i].is_nan() && b[i].is_nan()),
        (Data::I64(a), Data::I64(b)) => a[i] == b[i],
        (Data::U64(a), Data::U64(b)) => a[i] == b[i],
        _ => a64[i] == b64[i],
    };
    (0..a64.len()).find(|&i| !same(i))
}

/// Executes one step on real memory.
trait Executor {
    fn step(&mut self, run: &Run<'_>, step: &Step, memory: &mut Memory);
}

/// All memory of a run: one buffer for each place, between guards.
struct Memory {
    arena: Vec<u8>,
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
    consts: Vec<Vec<u8>>,
    scratch_bytes: usize,
}

impl Memory {
    fn buffer(&mut self, arg: Arg) -> (&mut Vec<u8>, usize) {
        match arg {
            Arg::Arena(o) => (&mut self.arena, o),
            Arg::Input(i, o) => (&mut self.inputs[i as usize], o),
            Arg::Output(i, o) => (&mut self.outputs[i as usize], o),
            Arg::Const(c, o) => (&mut self.consts[c.0 as usize], o),
            Arg::State(_) => unreachable!("no test here learns"),
        }
    }
}

struct Run<'a> {
    graph: &'a Graph,
    plan: &'a Separate,
    program: &'a Program,
    target: &'a Target,
}

impl Run<'_> {
    fn set(&self) -> &ShapeSet {
        &self.program.sets[0]
    }

    fn level(&self) -> &LevelPlan {
        &self.set().levels[0]
    }

    fn run(&self, inputs: &[Tensor], executor: &mut dyn Executor) -> Vec<Tensor> {
        let graph_inputs = self.graph.inputs().iter().map(|&n| ValueId { node: n, out: 0 });
        let inputs = inputs.iter().zip(graph_inputs).map(|(t, v)| store(t, self.graph.value(v).layout)).collect();
        let outputs = self.graph.outputs().iter().map(|&(_, v)| vec![FILL; self.bytes_of(v)]).collect();
        let consts = self.program.consts.iter().map(|c| {
            let mut bytes = vec![0; c.data.len()];
            c.data.write(&mut bytes);
            bytes
        });
        let mut memory = Memory {
            arena: vec![FILL; self.level().arena_bytes],
            inputs,
            outputs,
            consts: consts.collect(),
            scratch_bytes: self.level().scratch_bytes,
        };
        for step in &self.level().steps {
            executor.step(self, step, &mut memory);
        }
        let outputs = self.graph.outputs().iter().zip(&memory.outputs).map(|(&(_, v), bytes)| {
            let value = self.graph.value(v);
            read(value.ty.dtype, &value.ty.dims().expect("known"), value.layout, bytes)
        });
        outputs.collect()
    }

    fn bytes_of(&self, v: ValueId) -> usize {
        let value = self.graph.value(v);
        let stored = value.layout.stored_elems(&value.ty.dims().expect("known")).expect("small");
        stored * value.ty.dtype.bytes()
    }

    /// The bytes from a place to the end of the tensor that holds it, or to the end of the workspace.
    fn extent(&self, memory: &mut Memory, arg: Arg) -> usize {
        let (buffer, offset) = memory.buffer(arg);
        let rest = buffer.len() - offset;
        let Arg::Arena(offset) = arg else { return rest };
        let values = self.graph.node_ids().flat_map(|n| self.graph.results(n));
        let holding = values.filter_map(|v| match self.plan.place(v) {
            Some(Arg::Arena(at)) => Some((at, at + self.bytes_of(v))),
            _ => None,
        });
        holding
            .filter(|&(at, end)| at <= offset && offset < end)
            .map(|(_, end)| end - offset)
            .next()
            .unwrap_or(if offset < self.plan.arena_bytes() { 0 } else { rest })
    }

    #[track_caller]
    fn compare(&self, got: &[Tensor], want: &[Tensor], tolerance: &Tolerance, how: &str) {
        for (o, (got, want)) in got.iter().zip(want).enumerate() {
            assert_eq!((got.dtype(), got.dims()), (want.dtype(), want.dims()), "type of output {o}");
            let (g, w) = (got.to_f64(), want.to_f64());
            let wrong = match tolerance {
                Tolerance::Exact => first_difference(got, want),
                Tolerance::Relative { rel, abs } => (0..g.len()).find(|&i| !near(g[i], w[i], abs + rel * w[i].abs())),
                Tolerance::Bounds(bounds) => (0..g.len()).find(|&i| !near(g[i], w[i], bounds[o][i])),
            };
            if let Some(i) = wrong {
                let count = (0..g.len()).filter(|&i| !near(g[i], w[i], 1e-3 * w[i].abs())).count();
                let steps: Vec<&str> = self.level().steps.iter().map(|s| self.kernel_name(s)).collect();
                panic!(
                    "{} by {how}: output {o}, element {i} of {}: got {:?}, want {:?} ({count} are far off)\n  kernels {steps:?}",
                    self.target.level.name(),
                    g.len(),
                    g[i],
                    w[i],
                );
            }
        }
    }

    fn kernel_name(&self, step: &Step) -> &str {
        &self.program.kernels[step.kernel.0 as usize].ir.name
    }
}

fn near(got: f64, want: f64, bound: f64) -> bool {
    (got - want).abs() <= bound || got == want || (got.is_nan() && want.is_nan())
}

/// Uneven ranges of tasks, the last first.
fn ranges(tasks: u64) -> Vec<(i64, i64)> {
    let cuts = [0, tasks / 3, tasks - tasks / 4, tasks];
    cuts.windows(2).rev().filter(|w| w[0] < w[1]).map(|w| (w[0] as i64, w[1] as i64)).collect()
}

/// Runs a step's tasks with each operand in a buffer of its own, of exactly its extent.
fn step_on_copies(
    run: &Run<'_>,
    step: &Step,
    memory: &mut Memory,
    mut tasks: impl FnMut(&Kernel, &mut [Vec<u8>], usize, i64, i64) -> Result<(), String>,
) {
    let kernel = &run.program.kernels[step.kernel.0 as usize].ir;
    for (begin, end) in ranges(step.tasks) {
        let mut buffers: Vec<Vec<u8>> = Vec::new();
        for &arg in step.args.iter().take(kernel.args.len()) {
            let len = run.extent(memory, arg);
            let (buffer, offset) = memory.buffer(arg);
            buffers.push(buffer[offset..offset + len].to_vec());
        }
        let before = buffers.clone();
        if let Err(e) = tasks(kernel, &mut buffers, memory.scratch_bytes, begin, end) {
            panic!("{}: {e}", run.target.level.name());
        }
        for ((&arg, before), after) in step.args.iter().zip(&before).zip(&buffers) {
            let (buffer, offset) = memory.buffer(arg);
            for (i, (b, a)) in before.iter().zip(after).enumerate() {
                if a != b {
                    buffer[offset + i] = *a;
                }
            }
        }
    }
}

struct Interpreted;

impl Executor for Interpreted {
    fn step(&mut self, run: &Run<'_>, step: &Step, memory: &mut Memory) {
        step_on_copies(run, step, memory, |kernel, buffers, scratch, begin, end| {
            interp::run(kernel, run.target, buffers, scratch, begin, end).map_err(|e| e.to_string())
        });
    }
}

/// The kernels of a program as the simulator decoded them.
struct Simulator(Vec<Simulated>);

impl Simulator {
    fn new(program: &Program, code: &[MachineCode], level: Level) -> Simulator {
        let decode = |(code, k): (&MachineCode, &crate::program::ProgramKernel)| {
            Simulated::new(code, level).unwrap_or_else(|e| panic!("{}: {e}", k.ir.name))
        };
        Simulator(code.iter().zip(&program.kernels).map(decode).collect())
    }
}

impl Executor for Simulator {
    fn step(&mut self, run: &Run<'_>, step: &Step, memory: &mut Memory) {
        let code = &self.0[step.kernel.0 as usize];
        step_on_copies(run, step, memory, |kernel, buffers, scratch, begin, end| {
            code.run(kernel, buffers, scratch, begin, end).map(drop)
        });
    }
}

type Entry = unsafe extern "C" fn(*const *mut u8, *mut u8, i64, i64);

/// The kernels of a program as machine code of this process.
struct Native {
    _module: cranelift_jit::JITModule,
    entries: Vec<Entry>,
}

impl Native {
    /// Code for a level that this machine has.
    fn new(program: &Program, code: &[MachineCode]) -> Native {
        use cranelift_module::{Linkage, Module};
        let builder = cranelift_jit::JITBuilder::new(cranelift_module::default_libcall_names()).expect("a host JIT");
        let mut module = cranelift_jit::JITModule::new(builder);
        let mut ids = Vec::new();
        for (k, code) in program.kernels.iter().zip(code) {
            let signature = module.make_signature();
            let id = module.declare_function(&k.ir.name, Linkage::Local, &signature).expect("names are unique");
            module
                .define_function_bytes(id, u64::from(code.align.max(16)), &code.bytes, &[])
                .expect("bytes without relocations");
            ids.push(id);
        }
        module.finalize_definitions().expect("no relocations");
        let entries = ids.iter().map(|&id| {
            let code = module.get_finalized_function(id);
            // SAFETY: the bytes are a function of this signature, made for this machine: the contract of `MachineCode`.
            unsafe { std::mem::transmute::<*const u8, Entry>(code) }
        });
        let entries = entries.collect();
        Native { _module: module, entries }
    }
}

/// A buffer aligned to a cache line, between guard bytes that must stay as they are.
struct Guarded {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

const GUARD: usize = 256;
const GUARD_FILL: u8 = 0xa5;

impl Guarded {
    fn new(contents: &[u8]) -> Guarded {
        let mut memory = vec![GUARD_FILL; contents.len() + 2 * GUARD + MAX_ALIGN];
        let start = GUARD + (memory.as_ptr() as usize + GUARD).wrapping_neg() % MAX_ALIGN;
        memory[start..start + contents.len()].copy_from_slice(contents);
        Guarded { memory, start, len: contents.len() }
    }

    fn pointer(&mut self) -> *mut u8 {
        self.memory[self.start..].as_mut_ptr()
    }

    #[track_caller]
    fn contents(&self, what: &str) -> &[u8] {
        let (before, after) = (&self.memory[..self.start], &self.memory[self.start + self.len..]);
        assert!(before.iter().chain(after).all(|&b| b == GUARD_FILL), "{what}: written outside of the buffer");
        &self.memory[self.start..self.start + self.len]
    }
}

impl Executor for Native {
    fn step(&mut self, run: &Run<'_>, step: &Step, memory: &mut Memory) {
        let name = run.kernel_name(step).to_string();
        let mut arena = Guarded::new(&memory.arena);
        let mut inputs: Vec<Guarded> = memory.inputs.iter().map(|b| Guarded::new(b)).collect();
        let mut outputs: Vec<Guarded> = memory.outputs.iter().map(|b| Guarded::new(b)).collect();
        let mut consts: Vec<Guarded> = memory.consts.iter().map(|b| Guarded::new(b)).collect();
        let mut pointer = |arg: Arg| match arg {
            Arg::Arena(o) => arena.pointer().wrapping_add(o),
            Arg::Input(i, o) => inputs[i as usize].pointer().wrapping_add(o),
            Arg::Output(i, o) => outputs[i as usize].pointer().wrapping_add(o),
            Arg::Const(c, o) => consts[c.0 as usize].pointer().wrapping_add(o),
            Arg::State(_) => unreachable!("no test here learns"),
        };
        let args: Vec<*mut u8> = step.args.iter().map(|&a| pointer(a)).collect();
        for (begin, end) in ranges(step.tasks) {
            let mut scratch = Guarded::new(&vec![FILL; memory.scratch_bytes]);
            let (entry, scratch_ptr) = (self.entries[step.kernel.0 as usize], scratch.pointer());
            // SAFETY: the kernel is verified, was just run by the interpreter on buffers of the same extents without an
            // access outside of them, and accesses do not depend on the data that differ between the two.
            unsafe { entry(args.as_ptr(), scratch_ptr, begin, end) };
            scratch.contents(&name);
        }
        memory.arena = arena.contents(&name).to_vec();
        for (old, new) in memory.outputs.iter_mut().zip(&outputs) {
            *old = new.contents(&name).to_vec();
        }
        for (old, new) in memory.inputs.iter().chain(&memory.consts).zip(inputs.iter().chain(&consts)) {
            assert!(*old == new.contents(&name), "{name}: an input or constant was written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_storage_reads_back() {
        for c in [1, 7, 8, 9, 16, 17, 24, 25, 33] {
            let t = tensor(c as u64, &[2, c, 3]);
            let bytes = store(&t, Layout::Blocked);
            assert_eq!(bytes.len(), 4 * 2 * 3 * nncc_ir::padded_channels(c));
            assert_eq!(read(DType::F32, t.dims(), Layout::Blocked, &bytes), t);
        }
    }

    #[test]
    fn outputs_that_are_inputs_are_copied() {
        for n in [0, 1, 5, 16, 1000, 5000] {
            let mut g = Graph::new("identity");
            let t = tensor(3, &[n]);
            let x = g.add_input("x", t.ty());
            let c = constant(&mut g, "c", &tensor(4, &[3, n]));
            g.add_output("y", x);
            g.add_output("c", c);
            g.add_output("z", x);
            check(&g, &[t], &Tolerance::Exact);
        }
    }
}
