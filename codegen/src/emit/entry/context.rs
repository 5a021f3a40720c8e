//! Memory and life of a context.
//!
//! ```text
//! workspace   head | scratch of thread 0, 1, ... | arena
//! head        fields (access::field) | base pointers | records of the threads        whole cache lines
//! ```
//!
//! Scratch size and arena size are those of the shape set that runs, so one context serves every set that fits. A context is
//! all the state there is: a library has no writable data.

use super::access::{field, worker};
use crate::emit::EmitError;
use crate::emit::abi::{self, Entry, Error, WORKSPACE_ALIGN, options};
use crate::emit::clif::{Code, I32, I64};
use crate::emit::functions::Fun;
use crate::emit::library::{Builder, Info};
use crate::emit::tables::{BASE_INPUTS, plan};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use target_lexicon::Architecture;

/// Memory of at least so many bytes lies in huge pages, if the kernel has them: its first run then waits for a few faults
/// instead of one for each 4 KiB.
const LARGE: i64 = 2 * HUGE_PAGE;

/// The huge page of x86-64, and of aarch64 with pages of 4 KiB.
const HUGE_PAGE: i64 = 2 << 20;

/// Linux's `MADV_HUGEPAGE`.
const MADV_HUGEPAGE: i64 = 14;

/// Linux's number of the system call `madvise`.
fn madvise(architecture: Architecture) -> i64 {
    if architecture == Architecture::X86_64 { 28 } else { 233 }
}

/// Defines the entry points that make, measure and end contexts.
pub fn define(builder: &mut Builder, info: &Info) -> Result<(), EmitError> {
    builder.define(info, Fun::SetBytes, set_bytes)?;
    builder.define(info, Fun::Fail, fail)?;
    builder.define(info, Fun::Entry(Entry::WorkspaceSize), workspace_size)?;
    builder.define(info, Fun::Entry(Entry::Create), create)?;
    builder.define(info, Fun::Entry(Entry::ContextLevel), context_level)?;
    builder.define(info, Fun::Entry(Entry::SetTrace), set_trace)?;
    builder.define(info, Fun::Entry(Entry::LastError), last_error)?;
    builder.define(info, Fun::Entry(Entry::Destroy), destroy)
}

/// Bytes of the fields and base pointers: where the threads' records begin.
pub fn records(info: &Info) -> i64 {
    records_at(info.inputs + info.outputs) as i64
}

fn records_at(ports: usize) -> usize {
    (field::BASES as usize + 8 * (BASE_INPUTS as usize + ports)).next_multiple_of(WORKSPACE_ALIGN)
}

/// Bytes of the head of a context with so many inputs and outputs together, and threads.
pub fn head_size(ports: usize, threads: usize) -> usize {
    (records_at(ports) + threads * worker::SIZE as usize).next_multiple_of(WORKSPACE_ALIGN)
}

/// The same in emitted code.
fn head_bytes(c: &mut Code, threads: Value) -> Value {
    let records = records(c.info);
    let workers = c.b.ins().imul_imm_s(threads, worker::SIZE);
    let align = WORKSPACE_ALIGN as i64;
    let bytes = c.b.ins().iadd_imm_s(workers, records + align - 1);
    c.b.ins().band_imm_s(bytes, -align)
}

/// The workspace of a set: head, scratch and arena at the level that needs most.
fn set_bytes(c: &mut Code) {
    let [set, threads] = c.params();
    let zero = c.int(0);
    let most = c.var(zero);
    let levels = c.int(c.info.levels as i64);
    c.for_(levels, |c, level| {
        let plan = c.plan(set, level);
        let scratch = c.load(I64, plan, plan::SCRATCH);
        let arena = c.load(I64, plan, plan::ARENA);
        let scratch = c.b.ins().imul(scratch, threads);
        let bytes = c.b.ins().iadd(scratch, arena);
        let before = c.get(most);
        let bytes = c.b.ins().umax(before, bytes);
        c.set(most, bytes);
    });
    let head = head_bytes(c, threads);
    let most = c.get(most);
    let bytes = c.b.ins().iadd(head, most);
    let align = WORKSPACE_ALIGN as i64;
    let bytes = c.b.ins().iadd_imm_s(bytes, align - 1);
    let bytes = c.b.ins().band_imm_s(bytes, -align);
    c.ret(&[bytes]);
}

/// `max(threads, 1)` as `I64`.
fn at_least_one(c: &mut Code, threads: Value) -> Value {
    let one = c.int32(1);
    let threads = c.b.ins().umax(threads, one);
    c.wide(threads)
}

fn workspace_size(c: &mut Code) {
    let [set, threads] = c.params();
    let threads = at_least_one(c, threads);
    let is_set = c.below(set, c.info.sets);
    c.if_(is_set, |c| {
        let set = c.wide(set);
        let bytes = c.call(Fun::SetBytes, &[set, threads]);
        c.ret(&[bytes]);
    });
    let zero = c.int(0);
    let most = c.var(zero);
    let any = c.int32(abi::ANY_SET);
    let is_any = c.b.ins().icmp(IntCC::Equal, set, any);
    c.if_(is_any, |c| {
        let sets = c.int(c.info.sets as i64);
        c.for_(sets, |c, set| {
            let bytes = c.call(Fun::SetBytes, &[set, threads]);
            let before = c.get(most);
            let bytes = c.b.ins().umax(before, bytes);
            c.set(most, bytes);
        });
    });
    let most = c.get(most);
    c.ret(&[most]);
}

/// The options, each zero unless given.
struct Options {
    threads: Value,
    max_level: Value,
    workspace: Value,
    workspace_bytes: Value,
    callbacks: [(Value, i32); 4],
}

fn read_options(c: &mut Code, given: Value) -> Options {
    let zero = c.int(0);
    let zero32 = c.int32(0);
    let [threads, max_level] = [zero32; 2].map(|init| c.var(init));
    let [workspace, workspace_bytes, parallel_for, parallel_user, clock, clock_user] =
        [zero; 6].map(|init| c.var(init));
    c.if_(given, |c| {
        let size = c.load(I64, given, options::STRUCT_SIZE);
        let right = c.is(IntCC::Equal, size, i64::from(options::SIZE));
        c.require(right, Error::Options);
        for (var, ty, offset) in [
            (threads, I32, options::THREADS),
            (max_level, I32, options::MAX_LEVEL),
            (workspace, I64, options::WORKSPACE),
            (workspace_bytes, I64, options::WORKSPACE_BYTES),
            (parallel_for, I64, options::PARALLEL_FOR),
            (parallel_user, I64, options::PARALLEL_USER),
            (clock, I64, options::CLOCK),
            (clock_user, I64, options::CLOCK_USER),
        ] {
            let value = c.load(ty, given, offset);
            c.set(var, value);
        }
    });
    let threads = c.get(threads);
    Options {
        threads: at_least_one(c, threads),
        max_level: c.get(max_level),
        workspace: c.get(workspace),
        workspace_bytes: c.get(workspace_bytes),
        callbacks: [
            (c.get(parallel_for), field::PARALLEL_FOR),
            (c.get(parallel_user), field::PARALLEL_USER),
            (c.get(clock), field::CLOCK),
            (c.get(clock_user), field::CLOCK_USER),
        ],
    }
}

fn create(c: &mut Code) {
    let [given, out] = c.params();
    c.require(out, Error::Null);
    let null = c.int(0);
    c.store(null, out, 0);
    let options = read_options(c, given);
    let few = c.is(IntCC::UnsignedLessThanOrEqual, options.threads, i64::from(abi::MAX_THREADS));
    c.require(few, Error::Options);
    let level = c.call(Fun::PickLevel, &[options.max_level]);
    let runs = c.is(IntCC::SignedGreaterThanOrEqual, level, 0);
    c.require(runs, Error::Cpu);

    let (parallel_for, _) = options.callbacks[0];
    let is_one = c.is(IntCC::Equal, options.threads, 1);
    let callers = c.is(IntCC::NotEqual, parallel_for, 0);
    let no_pool = c.b.ins().bor(is_one, callers);
    if c.info.freestanding {
        c.require(no_pool, Error::Threads);
    }

    let (context, end, block) = memory(c, &options);
    clear_head(c, context, options.threads);
    let owner = c.tables();
    let head = head_bytes(c, options.threads);
    let scratch = c.b.ins().iadd(context, head);
    let message = {
        let errors = c.info.tables.errors;
        let row = c.table(errors);
        c.follow(row, 0)
    };
    for (value, offset) in [
        (block, field::BLOCK),
        (end, field::END),
        (scratch, field::SCRATCH),
        (level, field::LEVEL),
        (message, field::MESSAGE),
        (owner, field::OWNER),
    ] {
        c.store(value, context, offset);
    }
    let threads = c.b.ins().ireduce(I32, options.threads);
    c.store(threads, context, field::THREADS);
    for (value, offset) in options.callbacks {
        c.store(value, context, offset);
    }
    let weights = c.data(c.info.weights_id);
    c.store(weights, context, field::BASES + 8);

    if !c.info.freestanding {
        c.if_else(no_pool, |_| {}, |c| super::pool::start(c, context, options.threads));
    }
    c.store(context, out, 0);
    c.ret32(0);
}

/// The caller's workspace, checked, or one from malloc: (context, end, block to free).
fn memory(c: &mut Code, options: &Options) -> (Value, Value, Value) {
    let zero = c.int(0);
    let [context, end, block] = [zero; 3].map(|init| c.var(init));
    let align = WORKSPACE_ALIGN as i64;
    c.if_else(
        options.workspace,
        |c| {
            let low = c.b.ins().band_imm_s(options.workspace, align - 1);
            let aligned = c.is(IntCC::Equal, low, 0);
            c.require(aligned, Error::Workspace);
            // Enough for one set at least; which sets fit is seen when they run.
            let huge = c.int(-1);
            let least = c.var(huge);
            let sets = c.int(c.info.sets as i64);
            c.for_(sets, |c, set| {
                let bytes = c.call(Fun::SetBytes, &[set, options.threads]);
                let before = c.get(least);
                let bytes = c.b.ins().umin(before, bytes);
                c.set(least, bytes);
            });
            let least = c.get(least);
            let fits = c.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, options.workspace_bytes, least);
            c.require(fits, Error::Workspace);
            advise_huge_pages(c, options.workspace, options.workspace_bytes);
            c.set(context, options.workspace);
            let one_past = c.b.ins().iadd(options.workspace, options.workspace_bytes);
            c.set(end, one_past);
        },
        |c| {
            if c.info.freestanding {
                c.ret32(Error::Workspace as i32);
                return;
            }
            let any = c.int32(abi::ANY_SET);
            let threads = c.b.ins().ireduce(I32, options.threads);
            let bytes = c.call(Fun::Entry(Entry::WorkspaceSize), &[any, threads]);
            let large = c.is(IntCC::UnsignedGreaterThanOrEqual, bytes, LARGE);
            let (whole, line) = (c.int(HUGE_PAGE), c.int(align));
            let align = c.b.ins().select(large, whole, line);
            let spare = c.b.ins().iadd_imm_s(align, -1);
            let asked = c.b.ins().iadd(bytes, spare);
            let memory = c.call(Fun::Malloc, &[asked]);
            c.require(memory, Error::Memory);
            c.set(block, memory);
            let rounded = c.b.ins().iadd(memory, spare);
            let mask = c.b.ins().ineg(align);
            let start = c.b.ins().band(rounded, mask);
            advise_huge_pages(c, start, bytes);
            c.set(context, start);
            let one_past = c.b.ins().iadd(start, bytes);
            c.set(end, one_past);
        },
    );
    (c.get(context), c.get(end), c.get(block))
}

/// Has large memory lie in huge pages, as far as they fit inside. It is advice: where the kernel has none the memory is as good, so
/// what it answers does not matter.
pub fn advise_huge_pages(c: &mut Code, start: Value, bytes: Value) {
    if c.info.freestanding {
        return;
    }
    let large = c.is(IntCC::UnsignedGreaterThanOrEqual, bytes, LARGE);
    c.if_(large, |c| {
        let whole = c.b.ins().iadd_imm_s(start, HUGE_PAGE - 1);
        let first = c.b.ins().band_imm_s(whole, -HUGE_PAGE);
        let end = c.b.ins().iadd(start, bytes);
        let end = c.b.ins().band_imm_s(end, -HUGE_PAGE);
        let bytes = c.b.ins().isub(end, first);
        let [number, advice, unused] = [madvise(c.info.architecture), MADV_HUGEPAGE, 0].map(|n| c.int(n));
        c.call(Fun::Syscall, &[number, first, bytes, advice, unused]);
    });
}

fn clear_head(c: &mut Code, context: Value, threads: Value) {
    let bytes = head_bytes(c, threads);
    let words = c.b.ins().ushr_imm_u(bytes, 3);
    let zero = c.int(0);
    c.for_(words, |c, i| {
        let word = c.element(context, i, 8);
        c.store(zero, word, 0);
    });
}

/// Leaves by `otherwise` unless the pointer is a live context of this library.
pub fn require_context(c: &mut Code, context: Value, otherwise: fn(&mut Code, Error)) {
    c.if_else(context, |_| {}, |c| otherwise(c, Error::Null));
    let owner = c.load(I64, context, field::OWNER);
    let tables = c.tables();
    let ours = c.b.ins().icmp(IntCC::Equal, owner, tables);
    c.if_else(ours, |_| {}, |c| otherwise(c, Error::Context));
}

fn context_level(c: &mut Code) {
    let [context] = c.params();
    require_context(c, context, |c, _| c.ret32(-1));
    let level = c.load(I32, context, field::LEVEL);
    c.ret(&[level]);
}

fn set_trace(c: &mut Code) {
    let [context, trace, user] = c.params();
    require_context(c, context, |c, error| c.ret32(error as i32));
    c.store(trace, context, field::TRACE);
    c.store(user, context, field::TRACE_USER);
    c.ret32(0);
}

fn fail(c: &mut Code) {
    let [context, code, message] = c.params();
    c.store(message, context, field::MESSAGE);
    c.ret(&[code]);
}

fn last_error(c: &mut Code) {
    fn sentence(c: &mut Code, error: Error) {
        let errors = c.info.tables.errors;
        let row = c.table(errors + 4 * error as u32);
        let message = c.follow(row, 0);
        c.ret(&[message]);
    }
    let [context] = c.params();
    require_context(c, context, sentence);
    let message = c.load(I64, context, field::MESSAGE);
    c.ret(&[message]);
}

fn destroy(c: &mut Code) {
    let [context] = c.params();
    require_context(c, context, |c, _| c.ret(&[]));
    let zero = c.int(0);
    if c.info.freestanding {
        c.store(zero, context, field::OWNER);
    } else {
        c.call_void(Fun::Stop, &[context]);
        c.store(zero, context, field::OWNER);
        let block = c.load(I64, context, field::BLOCK);
        c.if_(block, |c| {
            c.call_void(Fun::Free, &[block]);
        });
    }
    c.ret(&[]);
}
