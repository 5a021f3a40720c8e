//! The compiled program: what lowering makes and emission eats.
//!
//! A [`Program`] is everything a library holds, still in parts: packed weights, kernels (one entry for each distinct
//! kernel and CPU level) and, for each shape set and level, the list of steps that calls the kernels in order.
//!
//! ```text
//! Program
//!   consts    packed weights, one copy for all sets and levels
//!   targets   one for each CPU level
//!   kernels   (level, kernel IR), deduplicated by the lowering
//!   states    what a model that learns keeps from run to run, as parts of one block of memory: see `state`
//!   sets      one for each combination of input shapes that was compiled
//!     purpose                what running it is for
//!     inputs, outputs        name, dtype, shape
//!     levels                 one plan for each CPU level
//!       steps                kernel, operands, number of tasks, and what profilers ask for
//! ```
//!
//! Operands are places, never addresses: a byte offset into the arena, an input, an output or a constant. Emission turns
//! them into a table of (base, offset) pairs, so that a library needs no relocation for its plan.
//!
//! Invariants ([`Program::verify`] checks all of them; emission relies on them):
//!   1. there is at least one target, all are of one triple, their levels rise; every set has a plan for each, in that order;
//!   2. every set has the same input and output names and dtypes, in the same order: sets differ in shapes only. Of a model
//!      that learns, a set may have fewer than set 0: it ends earlier;
//!   3. every index (kernel, constant, input, output, argument) is in range, and a step's kernel is of the plan's level;
//!   4. constants are aligned to a power of two, at most [`MAX_ALIGN`]; a constant operand starts inside its constant,
//!      an input or output operand inside its tensor, an arena operand inside the arena (or at the end of an empty one), a
//!      state operand inside the block.

use crate::cost::Cost;
use crate::kir::Kernel;
use crate::state::{State, block_bytes};
use crate::target::{Level, Target};
use crate::tunable::Tunable;
use nncc_ir::{DType, Layout};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The largest alignment a constant or the arena may ask for: a cache line, and the width of an AVX-512 register.
pub const MAX_ALIGN: usize = 64;

/// One model, lowered: kernels, plans and weights, ready to be emitted.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The model's name as the user knows it; emission derives symbol names from it.
    pub name: String,
    /// What the kernels are compiled for: one target for each level of the plans, in the same order.
    pub targets: Vec<Target>,
    /// Packed weights, shared by all sets and levels; indexed by [`ConstId`].
    pub consts: Vec<Const>,
    /// Distinct kernels; indexed by [`KernelId`].
    pub kernels: Vec<ProgramKernel>,
    /// What a model that learns keeps from run to run; empty for one that only infers.
    pub states: Vec<State>,
    /// One entry for each combination of input shapes; of a model that learns, and for each purpose.
    pub sets: Vec<ShapeSet>,
}

/// Index into [`Program::consts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConstId(pub u32);

/// Index into [`Program::kernels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelId(pub u32);

/// A kernel for one CPU level.
#[derive(Clone, Debug)]
pub struct ProgramKernel {
    /// The level whose instructions the kernel may use.
    pub level: Level,
    /// What it does; its name stands in symbol tables, listings and profiles.
    pub ir: Kernel,
}

/// Bytes of a constant operand: packed weights, a bias, a table.
#[derive(Clone, Debug)]
pub struct Const {
    /// The bytes or the way to make them.
    pub data: ConstData,
    /// Alignment in bytes: a power of two, at most [`MAX_ALIGN`].
    pub align: usize,
}

/// Where a constant's bytes come from. Only emission makes them real, in their final place: between the model file and
/// the library no copy of the weights needs to exist.
#[derive(Clone)]
pub enum ConstData {
    /// Bytes in memory, shared.
    Bytes(Arc<[u8]>),
    /// `pattern` repeated `count` times.
    Splat {
        /// One element (or one row), in the target's byte order.
        pattern: Arc<[u8]>,
        /// How many times.
        count: usize,
    },
    /// Bytes that are made when they are written, for example by packing a weight that lies in the model file.
    Deferred(Arc<dyn ConstSource>),
}

/// A producer of constant bytes. `write` must give the same bytes each time: a library and its object file agree.
pub trait ConstSource: Send + Sync {
    /// Size in bytes.
    fn len(&self) -> usize;

    /// Fills `out`, which has exactly `len()` bytes, all zero.
    fn write(&self, out: &mut [u8]);

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ConstData {
    /// Size in bytes.
    pub fn len(&self) -> usize {
        match self {
            ConstData::Bytes(bytes) => bytes.len(),
            ConstData::Splat { pattern, count } => pattern.len() * count,
            ConstData::Deferred(source) => source.len(),
        }
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the bytes into `out`, which has exactly `len()` bytes, all zero.
    pub fn write(&self, out: &mut [u8]) {
        match self {
            ConstData::Bytes(bytes) => out.copy_from_slice(bytes),
            ConstData::Splat { pattern, .. } if pattern.iter().all(|&b| b == 0) => {}
            ConstData::Splat { pattern, .. } => {
                for chunk in out.chunks_exact_mut(pattern.len()) {
                    chunk.copy_from_slice(pattern);
                }
            }
            ConstData::Deferred(source) => source.write(out),
        }
    }
}

impl fmt::Debug for ConstData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConstData::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            ConstData::Splat { pattern, count } => write!(f, "Splat({:02x?} x {count})", pattern.deref()),
            ConstData::Deferred(source) => write!(f, "Deferred({} bytes)", source.len()),
        }
    }
}

impl From<Vec<u8>> for ConstData {
    fn from(bytes: Vec<u8>) -> Self {
        ConstData::Bytes(bytes.into())
    }
}

/// The program for one combination of input shapes.
#[derive(Clone, Debug, Default)]
pub struct ShapeSet {
    /// What running it is for.
    pub purpose: Purpose,
    /// The model's inputs, in the model's order.
    pub inputs: Vec<Port>,
    /// The model's outputs, in the model's order.
    pub outputs: Vec<Port>,
    /// One plan for each CPU level, lowest first.
    pub levels: Vec<LevelPlan>,
}

/// What a shape set is run for. The numbers are those of the C ABI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The model alone.
    #[default]
    Infer = 0,
    /// One step of learning: it changes the states.
    Step = 1,
    /// The model as it infers, and its loss.
    Evaluate = 2,
    /// Adds a batch's gradients to those in the states, for a later step.
    Gather = 3,
}

/// An input or output of the model: always row-major and contiguous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name in the model.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents; empty for a scalar.
    pub shape: Vec<usize>,
}

impl Port {
    /// Size in bytes; `None` when it does not fit in memory.
    pub fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.bytes(), |bytes, &extent| bytes.checked_mul(extent))
    }
}

/// The steps for one CPU level, and the memory they need.
#[derive(Clone, Debug)]
pub struct LevelPlan {
    /// The level.
    pub level: Level,
    /// Kernel calls, in order.
    pub steps: Vec<Step>,
    /// Bytes of the arena that holds all intermediates, aligned to [`MAX_ALIGN`].
    pub arena_bytes: usize,
    /// Bytes of scratch for each thread, aligned to [`MAX_ALIGN`]; contents do not survive a step.
    pub scratch_bytes: usize,
}

/// One call of a kernel.
#[derive(Clone, Debug)]
pub struct Step {
    /// The ONNX nodes that it computes, e.g. `conv1 + bn1 + relu1`.
    pub name: String,
    /// What it does, for profiles, e.g. `conv`.
    pub op: String,
    /// The kernel.
    pub kernel: KernelId,
    /// The kernel's operands, in its order; behind them the places of results that are none of these.
    pub args: Vec<Arg>,
    /// How many independent tasks the kernel splits into: the unit of threading. 0 only for an empty output.
    pub tasks: u64,
    /// Multiply-accumulate operations.
    pub macs: u64,
    /// Bytes that it reads and writes at least once: operands and weights.
    pub bytes: u64,
    /// Those of them that are constants: weights, which nothing else of a run has just touched.
    pub weight_bytes: u64,
    /// What it will take, by the cost model.
    pub cost: Cost,
    /// What it computes and in which way, if its template has more than one.
    pub tunable: Option<Arc<Tunable>>,
    /// The values of the graph that the step completes; empty for a step that leaves only a part of one.
    pub results: Vec<StepResult>,
}

impl Step {
    /// A call that counts for nothing in profiles and completes no value of a graph.
    pub fn bare(name: &str, op: &str, kernel: KernelId, args: Vec<Arg>, tasks: u64) -> Step {
        let (name, op) = (name.to_string(), op.to_string());
        let (cost, results) = (Cost::default(), Vec::new());
        Step { name, op, kernel, args, tasks, macs: 0, bytes: 0, weight_bytes: 0, cost, tunable: None, results }
    }
}

/// A value of the graph that is complete after a step: what the trace hook shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepResult {
    /// Index into [`Step::args`] of the operand that holds it.
    pub arg: usize,
    /// The ONNX name of the value.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Logical extents (those of ONNX, whatever the layout).
    pub shape: Vec<usize>,
    /// How the elements lie in memory.
    pub layout: Layout,
}

/// Where an operand of a step lies. Offsets are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arg {
    /// In the arena.
    Arena(usize),
    /// In a model input, at an offset (0 unless a Split or Slice reads in place).
    Input(u32, usize),
    /// In a model output, at an offset (0 unless a Concat writes in place).
    Output(u32, usize),
    /// In a constant, at an offset.
    Const(ConstId, usize),
    /// In the block of states.
    State(usize),
}

impl Arg {
    /// Whether `other` is a place in the `bytes` bytes that begin here. Of no bytes, the beginning is one.
    pub fn holds(self, bytes: usize, other: Arg) -> bool {
        let (begin, place) = match (self, other) {
            (Arg::Arena(a), Arg::Arena(b)) => (a, b),
            (Arg::Input(i, a), Arg::Input(j, b)) if i == j => (a, b),
            (Arg::Output(i, a), Arg::Output(j, b)) if i == j => (a, b),
            (Arg::Const(i, a), Arg::Const(j, b)) if i == j => (a, b),
            (Arg::State(a), Arg::State(b)) => (a, b),
            _ => return false,
        };
        (begin..begin + bytes.max(1)).contains(&place)
    }
}

/// A broken invariant: a bug in lowering, never in the user's model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bug in nncc: program \"{program}\", {place}: {what}")]
pub struct ProgramError {
    /// The program's name.
    pub program: String,
    /// Set, level and step.
    pub place: String,
    /// Which invariant, with both sides.
    pub what: String,
}

impl Arg {
    /// The place `bytes` further on.
    pub fn plus(self, bytes: usize) -> Arg {
        match self {
            Arg::Arena(at) => Arg::Arena(at + bytes),
            Arg::Input(i, at) => Arg::Input(i, at + bytes),
            Arg::Output(i, at) => Arg::Output(i, at + bytes),
            Arg::Const(id, at) => Arg::Const(id, at + bytes),
            Arg::State(at) => Arg::State(at + bytes),
        }
    }
}

impl Program {
    /// Whether it keeps something from run to run.
    pub fn learns(&self) -> bool {
        !self.states.is_empty()
    }

    /// Checks the invariants at the top of this file; gives the first that is broken.
    pub fn verify(&self) -> Result<(), ProgramError> {
        let error = |place: String, what: String| Err(ProgramError { program: self.name.clone(), place, what });
        for (i, constant) in self.consts.iter().enumerate() {
            if !constant.align.is_power_of_two() || constant.align > MAX_ALIGN {
                return error(format!("constant {i}"), format!("alignment {} is not allowed", constant.align));
            }
        }
        let Some(target) = self.targets.first() else {
            return error("program".into(), "no target".into());
        };
        if !self.targets.is_sorted_by(|a, b| a.level < b.level)
            || self.targets.iter().any(|t| t.triple != target.triple)
        {
            return error("program".into(), "targets differ in more than level, or levels do not rise".into());
        }
        let Some(first) = self.sets.first() else {
            return error("program".into(), "no shape set".into());
        };
        if let Err(what) = crate::state::verify(self) {
            return error("states".into(), what);
        }
        for (s, set) in self.sets.iter().enumerate() {
            let same = |a: &[Port], b: &[Port]| {
                let many = a.len() == b.len() || a.len() < b.len() && !self.states.is_empty();
                many && a.iter().zip(b).all(|(a, b)| a.name == b.name && a.dtype == b.dtype)
            };
            if !same(&set.inputs, &first.inputs) || !same(&set.outputs, &first.outputs) {
                return error(format!("set {s}"), "inputs or outputs differ from set 0 in more than shape".into());
            }
            if set.inputs.iter().chain(&set.outputs).any(|port| port.bytes().is_none()) {
                return error(format!("set {s}"), "an input or output does not fit in memory".into());
            }
            let levels: Vec<Level> = set.levels.iter().map(|plan| plan.level).collect();
            if !levels.iter().copied().eq(self.targets.iter().map(|target| target.level)) {
                return error(format!("set {s}"), format!("plans for {levels:?} do not match the targets"));
            }
            for plan in &set.levels {
                for (i, step) in plan.steps.iter().enumerate() {
                    if let Err(what) = self.verify_step(set, plan, step) {
                        return error(format!("set {s}, {}, step {i} \"{}\"", plan.level.name(), step.name), what);
                    }
                }
            }
        }
        Ok(())
    }

    fn verify_step(&self, set: &ShapeSet, plan: &LevelPlan, step: &Step) -> Result<(), String> {
        let Some(kernel) = self.kernels.get(step.kernel.0 as usize) else {
            return Err(format!("kernel {} of {}", step.kernel.0, self.kernels.len()));
        };
        if kernel.level != plan.level {
            return Err(format!("kernel \"{}\" is for {}", kernel.ir.name, kernel.level.name()));
        }
        for (i, &arg) in step.args.iter().enumerate() {
            let (offset, size) = match arg {
                Arg::Arena(offset) => (offset, Some(plan.arena_bytes)),
                Arg::Input(port, offset) => (offset, set.inputs.get(port as usize).and_then(Port::bytes)),
                Arg::Output(port, offset) => (offset, set.outputs.get(port as usize).and_then(Port::bytes)),
                Arg::Const(id, offset) => (offset, self.consts.get(id.0 as usize).map(|c| c.data.len())),
                Arg::State(offset) => (offset, block_bytes(&self.states)),
            };
            match size {
                None => return Err(format!("argument {i}, {arg:?}: no such place")),
                Some(size) if offset > size => return Err(format!("argument {i}, {arg:?}: place has {size} bytes")),
                Some(_) => {}
            }
        }
        match step.results.iter().find(|result| result.arg >= step.args.len()) {
            Some(result) => Err(format!("result \"{}\" names argument {}", result.name, result.arg)),
            None => Ok(()),
        }
    }
}
