//! Addresses that several entry points need: rows of the tables, sentences, fields of a context.

use crate::emit::abi::Error;
use crate::emit::clif::Code;
use crate::emit::functions::Fun;
use crate::emit::tables::{plan, port, set};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Fields of a context. What the threads write is kept apart by cache lines.
pub mod field {
    #![allow(missing_docs, reason = "private offsets, explained where not obvious")]
    /// Address of the tables while the context lives: tells contexts of other libraries and dead ones apart.
    pub const OWNER: i32 = 0;
    /// The block to free; null when the memory is the caller's.
    pub const BLOCK: i32 = 8;
    /// One past the workspace.
    pub const END: i32 = 16;
    /// Scratch of thread 0; the other threads' follows, then the arena.
    pub const SCRATCH: i32 = 24;
    pub const THREADS: i32 = 32;
    pub const LEVEL: i32 = 36;
    /// The last failure's sentence.
    pub const MESSAGE: i32 = 40;
    /// 1 while a run is under way.
    pub const BUSY: i32 = 48;
    /// How many workers were started.
    pub const WORKERS: i32 = 52;
    pub const TRACE: i32 = 56;
    pub const TRACE_USER: i32 = 64;
    pub const CLOCK: i32 = 72;
    pub const CLOCK_USER: i32 = 80;
    pub const PARALLEL_FOR: i32 = 88;
    pub const PARALLEL_USER: i32 = 96;
    /// The step that is being done by all threads.
    pub const JOB_KERNEL: i32 = 128;
    pub const JOB_ARGS: i32 = 136;
    pub const JOB_TASKS: i32 = 144;
    pub const JOB_STRIDE: i32 = 152;
    /// Counts jobs; workers sleep on it.
    pub const GENERATION: i32 = 192;
    /// Workers that have not finished the job; the caller sleeps on it.
    pub const PENDING: i32 = 256;
    /// 1 while the caller sleeps.
    pub const WAITING: i32 = 260;
    /// How many workers sleep.
    pub const SLEEPERS: i32 = 320;
    /// 1 when the pool ends.
    pub const STOP: i32 = 324;
    /// The table of base pointers; the threads' records follow on a cache line.
    pub const BASES: i32 = 384;
}

/// Fields of a thread's record; of that of the thread that runs the context, number 0, only `NEXT` is used.
pub mod worker {
    #![allow(missing_docs, reason = "private offsets")]
    pub const THREAD: i32 = 0;
    pub const CONTEXT: i32 = 8;
    pub const INDEX: i32 = 16;
    /// The first task of the thread's share that nobody has taken.
    pub const NEXT: i32 = 24;
    /// A cache line each: threads take tasks at the same time.
    pub const SIZE: i64 = 64;
}

/// The ports of a set: addresses of the first input's and output's rows, and how many there are, `I64`.
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "named")]
pub struct Ports {
    pub inputs: Value,
    pub input_count: Value,
    pub outputs: Value,
    pub output_count: Value,
}

impl Code<'_> {
    /// The address of the tables.
    pub fn tables(&mut self) -> Value {
        let id = self.info.tables_id;
        self.data(id)
    }

    /// The address of a thing in the tables at a constant offset.
    pub fn table(&mut self, offset: u32) -> Value {
        let tables = self.tables();
        self.b.ins().iadd_imm_s(tables, i64::from(offset))
    }

    /// The address that a row's field (an offset into the tables) points to.
    pub fn follow(&mut self, row: Value, field: i32) -> Value {
        let offset = self.load_u32(row, field);
        let tables = self.tables();
        self.b.ins().iadd(tables, offset)
    }

    /// The row of a set, an `I64` in range.
    pub fn set_row(&mut self, set: Value) -> Value {
        let sets = self.info.tables.sets;
        let sets = self.table(sets);
        self.element(sets, set, i64::from(set::SIZE))
    }

    /// A set's ports: the first inputs, then the outputs, by its row.
    pub fn ports(&mut self, row: Value) -> Ports {
        let inputs = self.follow(row, set::PORTS);
        let input_count = self.load_u32(row, set::INPUTS);
        let output_count = self.load_u32(row, set::OUTPUTS);
        let outputs = self.element(inputs, input_count, i64::from(port::SIZE));
        Ports { inputs, input_count, outputs, output_count }
    }

    /// The plan of a set at a level, both `I64` and in range.
    pub fn plan(&mut self, set: Value, level: Value) -> Value {
        let row = self.set_row(set);
        let plans = self.follow(row, set::PLANS);
        self.element(plans, level, i64::from(plan::SIZE))
    }

    /// Whether an `I32` index is below a count.
    pub fn below(&mut self, index: Value, count: usize) -> Value {
        self.is(IntCC::UnsignedLessThan, index, count as i64)
    }

    /// Returns an error code unless the condition holds.
    pub fn require(&mut self, condition: Value, error: Error) {
        self.if_else(condition, |_| {}, |c| c.ret32(error as i32));
    }

    /// Returns the code if it is not 0.
    pub fn check(&mut self, code: Value) {
        self.if_(code, |c| c.ret(&[code]));
    }

    /// Notes a failure with its general sentence and returns its code.
    pub fn fail(&mut self, context: Value, error: Error) {
        let errors = self.info.tables.errors;
        let row = self.table(errors + 4 * error as u32);
        let message = self.follow(row, 0);
        self.fail_with(context, error, message);
    }

    /// Notes a failure with the given sentence and returns its code.
    pub fn fail_with(&mut self, context: Value, error: Error, message: Value) {
        let code = self.int32(error as u32);
        let code = self.call(Fun::Fail, &[context, code, message]);
        self.ret(&[code]);
    }

    /// `base + offset` for a field that is used as an address.
    pub fn field(&mut self, base: Value, offset: i32) -> Value {
        self.b.ins().iadd_imm_s(base, i64::from(offset))
    }

    /// Whether a pointer is null.
    pub fn is_null(&mut self, pointer: Value) -> Value {
        self.is(IntCC::Equal, pointer, 0)
    }

    /// A context's number of threads, as `I64`.
    pub fn threads(&mut self, context: Value) -> Value {
        self.load_u32(context, field::THREADS)
    }
}
