//! The read-only tables of a library: what the model looks like and what its plans do, as one block of bytes.
//!
//! Entry points and the step loop read them; the code itself is the same for every model. All references within the block
//! are 32-bit offsets from its start, so it needs no relocation and lies in pages that are mapped, not loaded.
//!
//! ```text
//! levels    [code u32, name u32] * levels
//! sets      Set * sets                              fields: mod set
//!   ports     Port * (inputs + outputs)             fields: mod port
//!   plans     Plan * levels                         fields: mod plan
//!     steps     Step * n                            fields: mod step
//!       kernel    Kernel                            fields: mod kernel
//!       args      n u64, then u64 * n: offset << 24 | base
//!       about     About                             fields: mod about
//!         numbers   Numbers                         fields: mod numbers
//!         results   Result * n                      fields: mod result
//!           type      Type                          fields: mod result_type
//! states    State * states                          fields: mod state
//! errors    sentence u32 * codes
//! ```
//!
//! What a plan needs to run stands in its steps' rows. What a step is called and counts is the same at every CPU level, and
//! often in several shape sets: rows of their own, each stored once. A learning library has thousands of steps, most of them
//! small.
//!
//! A base is a number of the pointer table that each context holds: the arena, the weights, the block of states, the inputs,
//! the outputs.

use super::EmitError;
use super::abi;
use crate::program::{Arg, KernelId, LevelPlan, Port, Program, ShapeSet, Step, StepResult};
use crate::state::{self, Initial, State};
use crate::target::Level;
use rustc_hash::FxHashMap;

/// Bits of an argument word that hold the base; the offset has the other 40, a terabyte.
pub const BASE_BITS: u32 = 24;

/// The base number of the arena.
pub const BASE_ARENA: u64 = 0;
/// The base number of the weights.
pub const BASE_WEIGHTS: u64 = 1;
/// The base number of the block of states; null while none is attached.
pub const BASE_STATE: u64 = 2;
/// The base number of input 0; the other inputs follow, then the outputs.
pub const BASE_INPUTS: u64 = 3;

/// Fields of a shape set.
pub mod set {
    #![allow(missing_docs, reason = "offsets; named as the fields of ShapeSet")]
    pub const PORTS: i32 = 0;
    pub const PLANS: i32 = 4;
    pub const INPUTS: i32 = 8;
    pub const OUTPUTS: i32 = 12;
    pub const PURPOSE: i32 = 16;
    pub const SIZE: i32 = 20;
}

/// Fields of a state: those of a port that describe it, and where it comes from.
pub mod state_row {
    #![allow(missing_docs, reason = "offsets; named as the fields of State")]
    pub use super::port::{BYTES, NAME};
    pub const ROLE: i32 = 24;
    /// 1 when `SOURCE` is eight bytes to be repeated, 0 when it is an offset into the weights.
    pub const SPLAT: i32 = 28;
    pub const OFFSET: i32 = 32;
    pub const SOURCE: i32 = 40;
    pub const SIZE: i32 = 48;
}

/// Fields of a port: an input or output in a shape set.
pub mod port {
    #![allow(missing_docs, reason = "offsets; named as the fields of nncc_tensor")]
    pub const BYTES: i32 = 0;
    pub const NAME: i32 = 8;
    pub const DTYPE: i32 = 12;
    pub const RANK: i32 = 16;
    pub const SHAPE: i32 = 20;
    /// Bytes of an element: the required alignment.
    pub const ALIGN: i32 = 24;
    /// Sentences that blame this port, one for each way to be wrong.
    pub const IS_NULL: i32 = 28;
    pub const BAD_DTYPE: i32 = 32;
    pub const BAD_SHAPE: i32 = 36;
    pub const BAD_SIZE: i32 = 40;
    pub const BAD_ALIGN: i32 = 44;
    pub const SIZE: i32 = 48;
}

/// Fields of a plan: a shape set at a CPU level.
pub mod plan {
    #![allow(missing_docs, reason = "offsets; named as the fields of LevelPlan")]
    pub const STEPS: i32 = 0;
    pub const STEP_COUNT: i32 = 4;
    pub const ARENA: i32 = 8;
    /// Rounded up to whole cache lines, so that threads share none.
    pub const SCRATCH: i32 = 16;
    pub const MACS: i32 = 24;
    pub const STACK: i32 = 32;
    pub const SIZE: i32 = 40;
}

/// Fields of a step.
pub mod step {
    #![allow(missing_docs, reason = "offsets; named as the fields of Step")]
    /// Twice the number of tasks, and 1 more when the step is worth splitting.
    pub const TASKS: i32 = 0;
    pub const KERNEL: i32 = 8;
    pub const ARGS: i32 = 12;
    pub const ABOUT: i32 = 16;
    /// In the form of [`rounded`](super::rounded).
    pub const CYCLES: i32 = 20;
    pub const SIZE: i32 = 24;
}

/// Fields of a kernel.
pub mod kernel {
    #![allow(missing_docs, reason = "offsets")]
    /// From the first kernel.
    pub const CODE: i32 = 0;
    pub const NAME: i32 = 4;
    pub const SIZE: i32 = 8;
}

/// Fields of what a step is, whichever level runs it.
pub mod about {
    #![allow(missing_docs, reason = "offsets; named as the fields of Step")]
    pub const NAME: i32 = 0;
    pub const OP: i32 = 4;
    pub const NUMBERS: i32 = 8;
    pub const RESULTS: i32 = 12;
    pub const RESULT_COUNT: i32 = 16;
    pub const SIZE: i32 = 20;
}

/// Fields of what a step counts.
pub mod numbers {
    #![allow(missing_docs, reason = "offsets; named as the fields of Step")]
    pub const MACS: i32 = 0;
    pub const BYTES: i32 = 8;
    pub const WEIGHTS: i32 = 16;
    pub const MOVED: i32 = 24;
    pub const SIZE: i32 = 32;
}

/// Fields of a result: a value that a step completes.
pub mod result {
    #![allow(missing_docs, reason = "offsets; named as the fields of StepResult")]
    pub const NAME: i32 = 0;
    /// Which argument of the step holds it.
    pub const ARG: i32 = 4;
    pub const TYPE: i32 = 8;
    pub const SIZE: i32 = 12;
}

/// Fields of a result's type.
pub mod result_type {
    #![allow(missing_docs, reason = "offsets; named as the fields of nncc_tensor")]
    pub const BYTES: i32 = 0;
    pub const SHAPE: i32 = 8;
    pub const DTYPE: i32 = 12;
    pub const RANK: i32 = 16;
    pub const LAYOUT: i32 = 20;
    pub const SIZE: i32 = 24;
}

/// Bits of a rounded number that say by how many it is shifted.
pub const SHIFT_BITS: u32 = 5;

/// A number in 32 bits, for one that is an estimate: 27 bits and a shift. Exact below 2^27, else too small by less than a
/// part in 2^26; at most 2^58.
pub fn rounded(n: u64) -> u32 {
    let digits = 32 - SHIFT_BITS;
    let shift = (u64::BITS - n.leading_zeros()).saturating_sub(digits);
    if shift >= 1 << SHIFT_BITS {
        return u32::MAX;
    }
    ((n >> shift) as u32) << SHIFT_BITS | shift
}

/// Work below which a step runs on one thread: waking the others costs some microseconds, and a core does about this many
/// multiply-adds with 128-bit vectors, or moves of four bytes through its cache, in ten.
const PARALLEL_MIN_WORK: u64 = 100_000;

/// Whether a step is worth splitting at a level.
fn is_parallel(step: &Step, level: Level) -> bool {
    let macs = step.macs / (level.vector_bits() as u64 / 128);
    step.tasks > 1 && macs + step.bytes / 4 >= PARALLEL_MIN_WORK
}

/// The finished block and where things are in it.
pub struct Tables {
    /// The block.
    pub bytes: Vec<u8>,
    /// Offset of the level table.
    pub levels: u32,
    /// Offset of the set table.
    pub sets: u32,
    /// Offset of the model's name.
    pub name: u32,
    /// Offset of the sentences of the error codes.
    pub errors: u32,
    /// Offset of the sentence for an unknown code.
    pub unknown_error: u32,
    /// Offset of the state table.
    pub states: u32,
    /// How many states there are.
    pub state_count: usize,
    /// Bytes of their block.
    pub state_bytes: u64,
    /// By what a block is known.
    pub state_hash: u64,
    /// What can be wrong with one.
    pub faults: Faults,
    /// The most arguments of a step.
    pub max_args: usize,
    /// The most results of a step.
    pub max_results: usize,
    /// Offsets of the plans' stack bounds, with the plan's level index: filled in when the code is compiled.
    stack_fields: Vec<(usize, usize)>,
}

/// Offsets of the sentences on blocks of states; all 0 in a library without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A run without one.
    pub missing: u32,
    /// The header is none.
    pub foreign: u32,
    /// The header is that of other states.
    pub other: u32,
    /// It ends early.
    pub short: u32,
    /// Its address.
    pub misaligned: u32,
    /// A name that no state has.
    pub unnamed: u32,
}

impl Tables {
    /// Writes the stack bound of each level's plans.
    pub fn set_stack(&mut self, by_level: &[u64]) {
        for &(offset, level) in &self.stack_fields {
            self.bytes[offset..offset + 8].copy_from_slice(&by_level[level].to_le_bytes());
        }
    }
}

/// Builds the tables. `kernel_offsets` and `const_offsets` say where each kernel and constant lies in its block.
pub fn build(program: &Program, kernel_offsets: &[usize], const_offsets: &[usize]) -> Result<Tables, EmitError> {
    let mut writer = Writer {
        program,
        kernel_offsets,
        const_offsets,
        bytes: Vec::new(),
        strings: FxHashMap::default(),
        shared: FxHashMap::default(),
        kernels: vec![None; program.kernels.len()],
        stack: vec![],
    };
    let levels: Vec<[u32; 2]> =
        program.targets.iter().map(|t| [abi::level_code(t.level), writer.string(t.level.name())]).collect();
    let levels = writer.words(levels.as_flattened());
    let mut sets = Vec::new();
    for set in &program.sets {
        let counts = [set.inputs.len(), set.outputs.len()].map(|n| n as u32);
        sets.push([writer.ports(set)?, writer.plans(set)?, counts[0], counts[1], set.purpose as u32]);
    }
    let sets = writer.words(sets.as_flattened());
    let states: Vec<u8> = program.states.iter().flat_map(|state| writer.state(state).0).collect();
    let states = writer.append(&states);
    let state_bytes = state::block_bytes(&program.states).expect("verified") as u64;
    let faults = if program.learns() { writer.faults(state_bytes) } else { Faults::default() };
    let errors: Vec<u32> = abi::ERRORS.iter().map(|(_, _, sentence)| writer.string(sentence)).collect();
    let errors = writer.words(&errors);
    let unknown_error = writer.string("no such error code");
    let name = writer.string(&program.name);
    let steps = || program.sets.iter().flat_map(|set| &set.levels).flat_map(|plan| &plan.steps);
    if writer.bytes.len() > i32::MAX as usize {
        return Err(EmitError::TooLarge { what: "the plan", bytes: writer.bytes.len() as u64, limit: i32::MAX as u64 });
    }
    Ok(Tables {
        bytes: writer.bytes,
        levels,
        sets,
        name,
        errors,
        unknown_error,
        states,
        state_count: program.states.len(),
        state_bytes,
        state_hash: state::hash(&program.states),
        faults,
        max_args: steps().map(|step| step.args.len()).max().unwrap_or(0),
        max_results: steps().map(|step| step.results.len()).max().unwrap_or(0),
        stack_fields: writer.stack,
    })
}

/// The bytes a traced value spans in memory: padded channels when blocked.
fn result_bytes(result: &StepResult) -> u64 {
    let elements = result.layout.stored_elems(&result.shape).expect("lies in the arena, so it fits");
    (elements * result.dtype.bytes()) as u64
}

struct Writer<'a> {
    program: &'a Program,
    kernel_offsets: &'a [usize],
    const_offsets: &'a [usize],
    bytes: Vec<u8>,
    strings: FxHashMap<String, u32>,
    /// What is mostly the same at all CPU levels, with the alignment that it was asked for.
    shared: FxHashMap<(Vec<u8>, usize), u32>,
    /// The rows of the kernels that a step has named.
    kernels: Vec<Option<u32>>,
    stack: Vec<(usize, usize)>,
}

impl Writer<'_> {
    /// Appends bytes at an 8-byte boundary; gives their offset. Offsets stay below 4 GiB: `build` checks the sum.
    fn append(&mut self, bytes: &[u8]) -> u32 {
        self.append_at(bytes, 8)
    }

    /// The same at another boundary.
    fn append_at(&mut self, bytes: &[u8], align: usize) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let offset = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        offset
    }

    /// The same, stored once.
    fn append_shared(&mut self, bytes: Vec<u8>, align: usize) -> u32 {
        let key = (bytes, align);
        if let Some(&offset) = self.shared.get(&key) {
            return offset;
        }
        let offset = self.append_at(&key.0, align);
        self.shared.insert(key, offset);
        offset
    }

    fn words(&mut self, words: &[u32]) -> u32 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.append(&bytes)
    }

    /// A NUL-terminated string, stored once. C has no other kind, so a NUL inside ends it early.
    fn string(&mut self, text: &str) -> u32 {
        if let Some(&offset) = self.strings.get(text) {
            return offset;
        }
        let offset = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.strings.insert(text.to_owned(), offset);
        offset
    }

    fn shape(&mut self, shape: &[usize]) -> u32 {
        let bytes: Vec<u8> = shape.iter().flat_map(|&extent| (extent as i64).to_le_bytes()).collect();
        self.append_shared(bytes, 8)
    }

    fn ports(&mut self, set: &ShapeSet) -> Result<u32, EmitError> {
        let mut records = Vec::new();
        let kinds = set.inputs.iter().enumerate().map(|(i, port)| ("input", i, port));
        for (kind, index, port) in kinds.chain(set.outputs.iter().enumerate().map(|(i, port)| ("output", i, port))) {
            let mut record = Record::new(port::SIZE);
            record.u64(port::BYTES, port.bytes().unwrap_or(usize::MAX) as u64);
            record.u32(port::NAME, self.string(&port.name));
            record.u32(port::DTYPE, abi::dtype_code(port.dtype));
            record.u32(port::RANK, port.shape.len() as u32);
            record.u32(port::SHAPE, self.shape(&port.shape));
            record.u32(port::ALIGN, port.dtype.bytes() as u32);
            self.blame(&mut record, kind, index, port);
            records.extend(record.0);
        }
        Ok(self.append(&records))
    }

    /// The sentences for what can be wrong with a port at run time.
    fn blame(&mut self, record: &mut Record, kind: &str, index: usize, port: &Port) {
        let who = format!("{kind} {index} \"{}\"", port.name);
        let (dtype, size) = (port.dtype.name(), port.dtype.bytes());
        record.u32(port::IS_NULL, self.string(&format!("{who}: the pointer is null")));
        record.u32(port::BAD_DTYPE, self.string(&format!("{who}: the element type must be {dtype}")));
        record.u32(
            port::BAD_ALIGN,
            self.string(&format!("{who}: the buffer must be aligned to {size} bytes, for {dtype}")),
        );
        let port_of = |set: &ShapeSet| {
            let ports = if kind == "input" { &set.inputs } else { &set.outputs };
            ports.get(index).map(|port| format!("{:?}", port.shape))
        };
        let mut shapes: Vec<String> = Vec::new();
        for shape in self.program.sets.iter().filter_map(port_of) {
            if !shapes.contains(&shape) {
                shapes.push(shape);
            }
        }
        let more = if shapes.len() > 8 { " or one of the further sets" } else { "" };
        shapes.truncate(8);
        record.u32(port::BAD_SHAPE, self.string(&format!("{who}: the shape must be {}{more}", shapes.join(" or "))));
        let bytes = port.bytes().unwrap_or(usize::MAX);
        record.u32(port::BAD_SIZE, self.string(&format!("{who}: the buffer must have at least {bytes} bytes")));
    }

    fn state(&mut self, state: &State) -> Record {
        let port = &state.port;
        let mut record = Record::new(state_row::SIZE);
        record.u64(port::BYTES, port.bytes().unwrap_or(usize::MAX) as u64);
        record.u32(port::NAME, self.string(&port.name));
        record.u32(port::DTYPE, abi::dtype_code(port.dtype));
        record.u32(port::RANK, port.shape.len() as u32);
        record.u32(port::SHAPE, self.shape(&port.shape));
        record.u32(state_row::ROLE, state.role as u32);
        record.u64(state_row::OFFSET, state.offset as u64);
        let (splat, source) = match state.initial {
            Initial::Splat(pattern) => (1, u64::from_le_bytes(pattern)),
            Initial::Const(id) => (0, self.const_offsets[id.0 as usize] as u64),
        };
        record.u32(state_row::SPLAT, splat);
        record.u64(state_row::SOURCE, source);
        record
    }

    /// The sentences for what can be wrong with a block at run time.
    fn faults(&mut self, bytes: u64) -> Faults {
        let align = abi::WORKSPACE_ALIGN;
        Faults {
            missing: self.string("the context has no block of states: nncc_attach_state gives it one"),
            foreign: self
                .string("this is no block of states of a format that the library knows: its header says other things"),
            other: self
                .string("this is the block of another model, or of another way to train this one: its hash differs"),
            short: self.string(&format!("the block of states must have at least {bytes} bytes")),
            misaligned: self.string(&format!("the block of states must be aligned to {align} bytes")),
            unnamed: self.string("no state has this name"),
        }
    }

    fn plans(&mut self, set: &ShapeSet) -> Result<u32, EmitError> {
        let mut records = Vec::new();
        let mut stack = Vec::new();
        for (level, plan) in set.levels.iter().enumerate() {
            let mut steps = Vec::with_capacity(plan.steps.len() * step::SIZE as usize);
            for step in &plan.steps {
                steps.extend(self.step(set, plan.level, step)?.0);
            }
            let mut record = Record::new(plan::SIZE);
            record.u32(plan::STEPS, self.append(&steps));
            record.u32(plan::STEP_COUNT, plan.steps.len() as u32);
            record.u64(plan::ARENA, plan.arena_bytes as u64);
            record.u64(plan::SCRATCH, scratch_stride(plan) as u64);
            record.u64(plan::MACS, plan.steps.iter().map(|step| step.macs).sum());
            stack.push((records.len() + plan::STACK as usize, level));
            records.extend(record.0);
        }
        let offset = self.append(&records);
        self.stack.extend(stack.into_iter().map(|(field, level)| (offset as usize + field, level)));
        Ok(offset)
    }

    fn step(&mut self, set: &ShapeSet, level: Level, step: &Step) -> Result<Record, EmitError> {
        let mut args = (step.args.len() as u64).to_le_bytes().to_vec();
        for &arg in &step.args {
            args.extend(self.arg(set, arg)?.to_le_bytes());
        }
        if step.tasks > u64::MAX >> 1 {
            return Err(EmitError::TooLarge { what: "a step", bytes: step.tasks, limit: u64::MAX >> 1 });
        }
        let mut record = Record::new(step::SIZE);
        record.u64(step::TASKS, step.tasks << 1 | u64::from(is_parallel(step, level)));
        record.u32(step::KERNEL, self.kernel(step.kernel));
        record.u32(step::ARGS, self.append_shared(args, 8));
        record.u32(step::ABOUT, self.about(step));
        record.u32(step::CYCLES, rounded(step.cost.cycles));
        Ok(record)
    }

    /// The row of a kernel.
    fn kernel(&mut self, id: KernelId) -> u32 {
        let kernel = id.0 as usize;
        if let Some(row) = self.kernels[kernel] {
            return row;
        }
        let mut record = Record::new(kernel::SIZE);
        record.u32(kernel::CODE, self.kernel_offsets[kernel] as u32);
        record.u32(kernel::NAME, self.string(&self.program.kernels[kernel].ir.name));
        let row = self.append_at(&record.0, 4);
        self.kernels[kernel] = Some(row);
        row
    }

    /// What a step is called, counts and completes.
    fn about(&mut self, step: &Step) -> u32 {
        let mut results = Vec::new();
        for value in &step.results {
            let mut record = Record::new(result::SIZE);
            record.u32(result::NAME, self.string(&value.name));
            record.u32(result::ARG, value.arg as u32);
            record.u32(result::TYPE, self.result_type(value));
            results.extend(record.0);
        }
        let mut numbers = Record::new(numbers::SIZE);
        numbers.u64(numbers::MACS, step.macs);
        numbers.u64(numbers::BYTES, step.bytes);
        numbers.u64(numbers::WEIGHTS, step.weight_bytes);
        numbers.u64(numbers::MOVED, step.cost.moved);
        let mut record = Record::new(about::SIZE);
        record.u32(about::NAME, self.string(&step.name));
        record.u32(about::OP, self.string(&step.op));
        record.u32(about::NUMBERS, self.append_shared(numbers.0, 8));
        record.u32(about::RESULTS, self.append_shared(results, 4));
        record.u32(about::RESULT_COUNT, step.results.len() as u32);
        self.append_shared(record.0, 4)
    }

    fn result_type(&mut self, value: &StepResult) -> u32 {
        let mut record = Record::new(result_type::SIZE);
        record.u64(result_type::BYTES, result_bytes(value));
        record.u32(result_type::SHAPE, self.shape(&value.shape));
        record.u32(result_type::DTYPE, abi::dtype_code(value.dtype));
        record.u32(result_type::RANK, value.shape.len() as u32);
        record.u32(result_type::LAYOUT, abi::layout_code(value.layout));
        self.append_shared(record.0, 8)
    }

    fn arg(&self, set: &ShapeSet, arg: Arg) -> Result<u64, EmitError> {
        let (base, offset) = match arg {
            Arg::Arena(offset) => (BASE_ARENA, offset),
            Arg::Const(id, offset) => (BASE_WEIGHTS, self.const_offsets[id.0 as usize] + offset),
            Arg::Input(index, offset) => (BASE_INPUTS + u64::from(index), offset),
            Arg::Output(index, offset) => (BASE_INPUTS + set.inputs.len() as u64 + u64::from(index), offset),
            Arg::State(offset) => (BASE_STATE, offset),
        };
        if base >= 1 << BASE_BITS {
            return Err(EmitError::TooLarge {
                what: "the number of inputs and outputs",
                bytes: base,
                limit: 1 << BASE_BITS,
            });
        }
        if offset as u64 >= 1 << (64 - BASE_BITS) {
            return Err(EmitError::TooLarge { what: "an offset", bytes: offset as u64, limit: 1 << (64 - BASE_BITS) });
        }
        Ok((offset as u64) << BASE_BITS | base)
    }
}

/// Scratch of one thread, in whole cache lines.
pub fn scratch_stride(plan: &LevelPlan) -> usize {
    plan.scratch_bytes.next_multiple_of(abi::WORKSPACE_ALIGN)
}

/// One record of a table.
struct Record(Vec<u8>);

impl Record {
    fn new(size: i32) -> Record {
        Record(vec![0; size as usize])
    }

    fn u32(&mut self, offset: i32, value: u32) {
        self.0[offset as usize..][..4].copy_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, offset: i32, value: u64) {
        self.0[offset as usize..][..8].copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::{SHIFT_BITS, rounded};

    #[test]
    fn estimates_keep_27_bits() {
        let back = |n: u64| u64::from(rounded(n) >> SHIFT_BITS) << (rounded(n) & ((1 << SHIFT_BITS) - 1));
        for n in [0, 1, 1234, (1 << 27) - 1, 1 << 27, 3 << 40, 1 << 57] {
            assert_eq!(back(n), n);
        }
        for n in [(1 << 27) + 1, 0x1234_5678_9abc, (1 << 58) - 1, u64::MAX >> 6] {
            assert!(back(n) <= n && n - back(n) <= n >> 26, "{n} became {}", back(n));
        }
        assert!(back(u64::MAX) > 1 << 57);
    }
}
