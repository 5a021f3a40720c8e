//! The step loop and the trace hook.
//!
//! A step's arguments are (base, offset) words; the loop turns them into pointers on its stack, calls the kernel and goes on.
//! That is some nanoseconds a step: nothing beside the smallest kernel, and it makes a plan data instead of code.

use super::access::field;
use crate::emit::EmitError;
use crate::emit::abi::{Error, event, tensor};
use crate::emit::clif::{Code, I32, I64};
use crate::emit::functions::Fun;
use crate::emit::library::{Builder, Info};
use crate::emit::native::default_fp_control;
use crate::emit::tables::{BASE_ARENA, BASE_BITS, BASE_STATE, about, kernel, plan, result, result_type, set, step};
use crate::program::Purpose;
use crate::state::header;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};

/// `CLOCK_MONOTONIC` of Linux.
const CLOCK_MONOTONIC: u32 = 1;

/// Defines the step loop and what it calls.
pub fn define(builder: &mut Builder, info: &Info) -> Result<(), EmitError> {
    builder.define(info, Fun::Now, now)?;
    builder.define(info, Fun::Trace, trace)?;
    builder.define(info, Fun::Execute, execute)
}

/// Sets the floating-point control that kernels expect; gives what was there.
pub fn enter_fp(c: &mut Code) -> Value {
    let control = default_fp_control(c.info.architecture);
    let control = c.int32(control);
    c.call(Fun::FpSwap, &[control])
}

/// Calls a kernel.
pub fn call_kernel(c: &mut Code, kernel: Value, args: Value, scratch: Value, begin: Value, end: Value) {
    let signature = c.signature(&[I64, I64, I64, I64], None);
    c.call_pointer(signature, kernel, &[args, scratch, begin, end]);
}

fn execute(c: &mut Code) {
    let [context, set] = c.params();
    if c.info.learns {
        let block = c.load(I64, context, field::BASES + 8 * BASE_STATE as i32);
        let missing = c.info.tables.faults.missing;
        c.if_else(
            block,
            |_| {},
            |c| {
                let message = c.table(missing);
                c.fail_with(context, Error::State, message);
            },
        );
    }
    let level = c.load_u32(context, field::LEVEL);
    let plan = c.plan(set, level);
    let threads = c.threads(context);
    let scratch = c.load(I64, context, field::SCRATCH);
    let stride = c.load(I64, plan, plan::SCRATCH);
    let all_scratch = c.b.ins().imul(stride, threads);
    let arena = c.b.ins().iadd(scratch, all_scratch);
    let arena_bytes = c.load(I64, plan, plan::ARENA);
    let needed = c.b.ins().iadd(arena, arena_bytes);
    let end = c.load(I64, context, field::END);
    let fits = c.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, needed, end);
    c.if_else(fits, |_| {}, |c| c.fail(context, Error::Workspace));
    c.store(arena, context, field::BASES + 8 * BASE_ARENA as i32);
    c.store(stride, context, field::JOB_STRIDE);

    let args = c.stack(8 * c.info.tables.max_args.max(1));
    let args = c.stack_address(args);
    let kernels = c.address(Fun::Kernels);
    let several = c.is(IntCC::UnsignedGreaterThan, threads, 1);
    let several = c.b.ins().uextend(I32, several);
    let found = enter_fp(c);
    let steps = c.follow(plan, plan::STEPS);
    let count = c.load_u32(plan, plan::STEP_COUNT);
    c.for_(count, |c, index| {
        let row = c.element(steps, index, i64::from(step::SIZE));
        resolve(c, context, row, args);
        let kernel = c.follow(row, step::KERNEL);
        let offset = c.load_u32(kernel, kernel::CODE);
        let kernel = c.b.ins().iadd(kernels, offset);
        let packed = c.load(I64, row, step::TASKS);
        let tasks = c.b.ins().ushr_imm_u(packed, 1);
        let hook = c.load(I64, context, field::TRACE);
        let zero = c.int(0);
        let start = c.var(zero);
        c.if_(hook, |c| {
            let time = c.call(Fun::Now, &[context]);
            c.set(start, time);
        });
        let worth = c.b.ins().ireduce(I32, packed);
        let split = c.b.ins().band(worth, several);
        c.if_else(
            split,
            |c| {
                c.store(kernel, context, field::JOB_KERNEL);
                c.store(args, context, field::JOB_ARGS);
                c.store(tasks, context, field::JOB_TASKS);
                c.call_void(Fun::Parallel, &[context]);
            },
            |c| call_kernel(c, kernel, args, scratch, zero, tasks),
        );
        c.if_(hook, |c| {
            let start = c.get(start);
            let high = c.b.ins().ishl_imm_u(set, 32);
            let place = c.b.ins().bor(high, index);
            let stop = c.call(Fun::Trace, &[context, row, args, start, place]);
            c.if_(stop, |c| {
                c.call_void(Fun::FpSwap, &[found]);
                c.fail(context, Error::Stopped);
            });
        });
    });
    c.call_void(Fun::FpSwap, &[found]);
    if c.info.learns {
        count_step(c, context, set);
    }
    c.ret32(0);
}

/// Counts a step of learning in the header of the states.
fn count_step(c: &mut Code, context: Value, set: Value) {
    let row = c.set_row(set);
    let purpose = c.load_u32(row, set::PURPOSE);
    let is_step = c.is(IntCC::Equal, purpose, Purpose::Step as i64);
    c.if_(is_step, |c| {
        let block = c.load(I64, context, field::BASES + 8 * BASE_STATE as i32);
        let steps = c.load(I64, block, header::STEPS);
        let steps = c.b.ins().iadd_imm_s(steps, 1);
        c.store(steps, block, header::STEPS);
    });
}

/// Turns a step's argument words into pointers.
fn resolve(c: &mut Code, context: Value, row: Value, args: Value) {
    let args_row = c.follow(row, step::ARGS);
    let count = c.load(I64, args_row, 0);
    let words = c.field(args_row, 8);
    let bases = c.field(context, field::BASES);
    c.for_(count, |c, i| {
        let word = c.element(words, i, 8);
        let word = c.load(I64, word, 0);
        let base = c.b.ins().band_imm_s(word, (1 << BASE_BITS) - 1);
        let offset = c.b.ins().ushr_imm_u(word, i64::from(BASE_BITS));
        let slot = c.element(bases, base, 8);
        let base = c.load(I64, slot, 0);
        let pointer = c.b.ins().iadd(base, offset);
        let slot = c.element(args, i, 8);
        c.store(pointer, slot, 0);
    });
}

/// Nanoseconds by the caller's clock, or else by libc's; 0 without either.
fn now(c: &mut Code) {
    let [context] = c.params();
    let clock = c.load(I64, context, field::CLOCK);
    c.if_(clock, |c| {
        let user = c.load(I64, context, field::CLOCK_USER);
        let signature = c.signature(&[I64], Some(I64));
        let time = c.call_pointer(signature, clock, &[user]).expect("returns");
        c.ret(&[time]);
    });
    if c.info.freestanding {
        let zero = c.int(0);
        c.ret(&[zero]);
        return;
    }
    let slot = c.stack(16);
    let time = c.stack_address(slot);
    let which = c.int32(CLOCK_MONOTONIC);
    c.call(Fun::ClockGettime, &[which, time]);
    let seconds = c.load(I64, time, 0);
    let nanos = c.load(I64, time, 8);
    let seconds = c.b.ins().imul_imm_s(seconds, 1_000_000_000);
    let time = c.b.ins().iadd(seconds, nanos);
    c.ret(&[time]);
}

/// Calls the hook with an event on the stack; gives what the hook returns.
fn trace(c: &mut Code) {
    let [context, row, args, start, place] = c.params();
    let end = c.call(Fun::Now, &[context]);
    let duration = c.b.ins().isub(end, start);
    let results = c.stack(tensor::SIZE as usize * c.info.tables.max_results.max(1));
    let results = c.stack_address(results);
    let about = c.follow(row, step::ABOUT);
    let rows = c.follow(about, about::RESULTS);
    let count = c.load_u32(about, about::RESULT_COUNT);
    c.for_(count, |c, i| {
        let from = c.element(rows, i, i64::from(result::SIZE));
        let to = c.element(results, i, i64::from(tensor::SIZE));
        describe_result(c, from, to, args);
    });
    let out = c.stack(event::SIZE as usize);
    let out = c.stack_address(out);
    let name = c.follow(about, about::NAME);
    let op = c.follow(about, about::OP);
    for (value, offset) in [
        (start, event::START),
        (duration, event::DURATION),
        (name, event::NAME),
        (op, event::OP),
        (results, event::RESULTS),
    ] {
        c.store(value, out, offset);
    }
    let count = c.load(I32, about, about::RESULT_COUNT);
    let index = c.b.ins().ireduce(I32, place);
    let set = c.b.ins().ushr_imm_u(place, 32);
    let set = c.b.ins().ireduce(I32, set);
    let level = c.load(I32, context, field::LEVEL);
    for (value, offset) in
        [(count, event::RESULT_COUNT), (index, event::STEP), (set, event::SET), (level, event::LEVEL)]
    {
        c.store(value, out, offset);
    }
    let hook = c.load(I64, context, field::TRACE);
    let user = c.load(I64, context, field::TRACE_USER);
    let signature = c.signature(&[I64, I64], Some(I32));
    let stop = c.call_pointer(signature, hook, &[user, out]).expect("returns");
    c.ret(&[stop]);
}

fn describe_result(c: &mut Code, from: Value, to: Value, args: Value) {
    let arg = c.load_u32(from, result::ARG);
    let slot = c.element(args, arg, 8);
    let data = c.load(I64, slot, 0);
    c.store(data, to, tensor::DATA);
    let ty = c.follow(from, result::TYPE);
    for (row, field, offset) in [(ty, result_type::SHAPE, tensor::SHAPE), (from, result::NAME, tensor::NAME)] {
        let address = c.follow(row, field);
        c.store(address, to, offset);
    }
    let bytes = c.load(I64, ty, result_type::BYTES);
    c.store(bytes, to, tensor::BYTES);
    for (field, offset) in
        [(result_type::DTYPE, tensor::DTYPE), (result_type::RANK, tensor::RANK), (result_type::LAYOUT, tensor::LAYOUT)]
    {
        let value = c.load(I32, ty, field);
        c.store(value, to, offset);
    }
    let zero = c.int32(0);
    c.store(zero, to, tensor::RESERVED);
}
