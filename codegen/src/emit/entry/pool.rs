//! Threads: a pool that belongs to a context, or the caller's `parallel_for`.
//!
//! A step's tasks are split at fixed places, `[n * i / T, n * (i + 1) / T)` for thread `i` of `T`: neighbouring steps split
//! alike, so that a thread mostly reads what it wrote. It takes its tasks an eighth of the share at a time; who is done takes
//! from the shares of the [`NEIGHBOURS`] behind its own, for cores are not equally fast (a noisy neighbour on a shared
//! machine, cores of two kinds). Kernels promise that a task's result does not depend on how tasks are grouped, so every
//! thread count gives the same bits.
//!
//! The pool's protocol, with every access to the words below sequentially consistent:
//!
//! ```text
//! caller                                         worker
//!   pending = T - 1                                spin, then:  sleepers += 1
//!   generation += 1                                             sleep while generation is as last seen
//!   if sleepers: wake all on generation                         sleepers -= 1
//!   own share                                      share
//!   spin, then: waiting = 1                        if (pending -= 1) == 0 and waiting: wake on pending
//!               sleep while pending > 0
//! ```
//!
//! No wake-up is lost: a futex sleeps only if its word still has the value that the sleeper saw, and the waker changes the
//! word before it looks whether anyone sleeps. Waking costs a system call only when someone does sleep; within a run the
//! next step mostly finds the workers spinning.

use super::access::{field, worker};
use super::context::records;
use super::execute::{call_kernel, enter_fp};
use crate::emit::EmitError;
use crate::emit::abi::Error;
use crate::emit::clif::{Code, I32, I64};
use crate::emit::functions::Fun;
use crate::emit::library::{Builder, Info};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AtomicRmwOp, InstBuilder, MemFlagsData, Value};
use target_lexicon::Architecture;

/// Turns of the spin loop before sleeping: some 80 to 200 microseconds by the pause of current x86 cores, which outlasts the
/// serial steps between parallel ones; waking a sleeper takes longer than many a step.
const SPINS: i64 = 5000;

/// Shares that a thread looks into, its own included: each look may miss the cache.
const NEIGHBOURS: i64 = 8;

/// Pieces that a share is taken in.
const PIECES: i64 = 8;

/// `FUTEX_WAIT_PRIVATE` and `FUTEX_WAKE_PRIVATE` of Linux.
const FUTEX_WAIT: i64 = 128;
const FUTEX_WAKE: i64 = 129;

/// `SIG_SETMASK` of Linux, and the bytes of a signal set in every libc.
const SIG_SETMASK: u32 = 2;
const SIGNAL_SET_BYTES: usize = 128;

/// Defines the pool.
pub fn define(builder: &mut Builder, info: &Info) -> Result<(), EmitError> {
    builder.define(info, Fun::Part, part)?;
    builder.define(info, Fun::Task, task)?;
    builder.define(info, Fun::Parallel, parallel)?;
    if info.freestanding {
        return Ok(());
    }
    let number = match info.architecture {
        Architecture::X86_64 => 202,
        _ => 98,
    };
    builder.define(info, Fun::FutexWait, |c| futex(c, number, FUTEX_WAIT))?;
    builder.define(info, Fun::FutexWake, |c| futex(c, number, FUTEX_WAKE))?;
    builder.define(info, Fun::Worker, worker)?;
    builder.define(info, Fun::Stop, stop)
}

/// One thread's part of the job: its share, then what is left of others.
fn part(c: &mut Code) {
    let [context, index] = c.params();
    let threads = c.threads(context);
    let tasks = c.load(I64, context, field::JOB_TASKS);
    let kernel = c.load(I64, context, field::JOB_KERNEL);
    let args = c.load(I64, context, field::JOB_ARGS);
    let scratch = c.load(I64, context, field::SCRATCH);
    let stride = c.load(I64, context, field::JOB_STRIDE);
    let offset = c.b.ins().imul(stride, index);
    let scratch = c.b.ins().iadd(scratch, offset);
    let pieces = c.b.ins().imul_imm_s(threads, PIECES);
    let piece = c.b.ins().udiv(tasks, pieces);
    let one = c.int(1);
    let piece = c.b.ins().umax(piece, one);
    let most = c.int(NEIGHBOURS);
    let shares = c.b.ins().umin(threads, most);
    let share = c.var(index);
    c.for_(shares, |c, _| {
        let number = c.get(share);
        let next = next_task(c, context, number);
        let following = c.b.ins().iadd_imm_s(number, 1);
        let end = share_start(c, tasks, following, threads);
        let take =
            move |c: &mut Code| c.b.ins().atomic_rmw(I64, MemFlagsData::trusted(), AtomicRmwOp::Add, next, piece);
        let begin = take(c);
        let begin = c.var(begin);
        c.while_(
            |c| {
                let begin = c.get(begin);
                c.b.ins().icmp(IntCC::UnsignedLessThan, begin, end)
            },
            |c| {
                let from = c.get(begin);
                let to = c.b.ins().iadd(from, piece);
                let to = c.b.ins().umin(to, end);
                call_kernel(c, kernel, args, scratch, from, to);
                let from = take(c);
                c.set(begin, from);
            },
        );
        let is_last = c.b.ins().icmp(IntCC::Equal, following, threads);
        let zero = c.int(0);
        let following = c.b.ins().select(is_last, zero, following);
        c.set(share, following);
    });
    c.ret(&[]);
}

/// The first task of a thread's share.
fn share_start(c: &mut Code, tasks: Value, index: Value, threads: Value) -> Value {
    let product = c.b.ins().imul(tasks, index);
    c.b.ins().udiv(product, threads)
}

/// Where the number of the next free task of a thread's share stands.
fn next_task(c: &mut Code, context: Value, index: Value) -> Value {
    let records = c.b.ins().iadd_imm_s(context, records(c.info));
    let record = c.element(records, index, worker::SIZE);
    c.field(record, worker::NEXT)
}

/// Gives every thread its share, before any of them can look.
fn deal(c: &mut Code, context: Value) {
    let threads = c.threads(context);
    let tasks = c.load(I64, context, field::JOB_TASKS);
    c.for_(threads, |c, index| {
        let next = next_task(c, context, index);
        let start = share_start(c, tasks, index, threads);
        c.store(start, next, 0);
    });
}

/// A share in a thread of the caller's, whose floating-point control may be anything.
fn task(c: &mut Code) {
    let [context, index] = c.params();
    let found = enter_fp(c);
    let index = c.wide(index);
    c.call_void(Fun::Part, &[context, index]);
    c.call_void(Fun::FpSwap, &[found]);
    c.ret(&[]);
}

fn parallel(c: &mut Code) {
    let [context] = c.params();
    deal(c, context);
    let parallel_for = c.load(I64, context, field::PARALLEL_FOR);
    if c.info.freestanding {
        call_parallel_for(c, context, parallel_for);
        return c.ret(&[]);
    }
    c.if_(parallel_for, |c| {
        call_parallel_for(c, context, parallel_for);
        c.ret(&[]);
    });
    let pending = c.field(context, field::PENDING);
    let workers = c.load(I32, context, field::WORKERS);
    c.atomic_store(workers, pending);
    next_generation(c, context);
    let zero = c.int(0);
    c.call_void(Fun::Part, &[context, zero]);
    spin(c, |c| {
        let left = c.atomic_load(pending);
        c.is(IntCC::Equal, left, 0)
    });
    let waiting = c.field(context, field::WAITING);
    c.while_(
        |c| c.atomic_load(pending),
        |c| {
            let one = c.int32(1);
            c.atomic_store(one, waiting);
            let left = c.atomic_load(pending);
            c.if_(left, |c| {
                c.call_void(Fun::FutexWait, &[pending, left]);
            });
            let zero = c.int32(0);
            c.atomic_store(zero, waiting);
        },
    );
    c.ret(&[]);
}

fn call_parallel_for(c: &mut Code, context: Value, parallel_for: Value) {
    let user = c.load(I64, context, field::PARALLEL_USER);
    let threads = c.load(I32, context, field::THREADS);
    let task = c.address(Fun::Task);
    let signature = c.signature(&[I64, I32, I64, I64], None);
    c.call_pointer(signature, parallel_for, &[user, threads, task, context]);
}

/// Counts the generation up and wakes whoever sleeps on it.
fn next_generation(c: &mut Code, context: Value) {
    let generation = c.field(context, field::GENERATION);
    add(c, generation, 1);
    let sleepers = c.field(context, field::SLEEPERS);
    let asleep = c.atomic_load(sleepers);
    c.if_(asleep, |c| {
        let all = c.int32(i32::MAX as u32);
        c.call_void(Fun::FutexWake, &[generation, all]);
    });
}

/// Atomically adds to a word; gives the value before.
fn add(c: &mut Code, address: Value, amount: i64) -> Value {
    let amount = c.b.ins().iconst(I32, amount);
    c.b.ins().atomic_rmw(I32, MemFlagsData::trusted(), AtomicRmwOp::Add, address, amount)
}

/// Waits a little for a condition.
fn spin(c: &mut Code, done: impl FnOnce(&mut Code) -> Value) {
    let turns = c.int(SPINS);
    let turns = c.var(turns);
    c.while_(
        |c| {
            let done = done(c);
            let left = c.get(turns);
            let more = c.is(IntCC::NotEqual, left, 0);
            let not_done = c.b.ins().bxor_imm_u(done, 1);
            c.b.ins().band(more, not_done)
        },
        |c| {
            c.call_void(Fun::Pause, &[]);
            let left = c.get(turns);
            let left = c.b.ins().iadd_imm_s(left, -1);
            c.set(turns, left);
        },
    );
}

/// A pool thread: waits for generations until it is told to stop.
fn worker(c: &mut Code) {
    let [record] = c.params();
    let context = c.load(I64, record, worker::CONTEXT);
    let index = c.load(I64, record, worker::INDEX);
    let generation = c.field(context, field::GENERATION);
    let pending = c.field(context, field::PENDING);
    let sleepers = c.field(context, field::SLEEPERS);
    enter_fp(c);
    // The first job is generation 1, whenever the thread gets to look.
    let zero = c.int32(0);
    let seen = c.var(zero);
    c.while_(
        |c| c.int32(1),
        |c| {
            let is_new = move |c: &mut Code| {
                let now = c.atomic_load(generation);
                let before = c.get(seen);
                c.b.ins().icmp(IntCC::NotEqual, now, before)
            };
            spin(c, is_new);
            let new = is_new(c);
            c.if_else(
                new,
                |_| {},
                |c| {
                    add(c, sleepers, 1);
                    c.while_(
                        |c| {
                            let new = is_new(c);
                            c.b.ins().bxor_imm_u(new, 1)
                        },
                        |c| {
                            let before = c.get(seen);
                            c.call_void(Fun::FutexWait, &[generation, before]);
                        },
                    );
                    add(c, sleepers, -1);
                },
            );
            let stop = c.field(context, field::STOP);
            let stop = c.atomic_load(stop);
            c.if_(stop, |c| {
                let null = c.int(0);
                c.ret(&[null]);
            });
            let before = c.get(seen);
            let next = c.b.ins().iadd_imm_s(before, 1);
            c.set(seen, next);
            c.call_void(Fun::Part, &[context, index]);
            let before = add(c, pending, -1);
            let was_last = c.is(IntCC::Equal, before, 1);
            c.if_(was_last, |c| {
                let waiting = c.field(context, field::WAITING);
                let waiting = c.atomic_load(waiting);
                c.if_(waiting, |c| {
                    let one = c.int32(1);
                    c.call_void(Fun::FutexWake, &[pending, one]);
                });
            });
        },
    );
    let null = c.int(0);
    c.ret(&[null]);
}

fn futex(c: &mut Code, number: i64, operation: i64) {
    let [address, value] = c.params();
    let (number, operation, no_timeout) = (c.int(number), c.int(operation), c.int(0));
    let value = c.wide(value);
    c.call(Fun::Syscall, &[number, address, operation, value, no_timeout]);
    c.ret(&[]);
}

/// Starts the workers of a new context, with all signals blocked in them: a signal of the program is the program's.
/// On failure ends those that started, frees the context and returns from the function.
pub fn start(c: &mut Code, context: Value, threads: Value) {
    let (all, old) = (c.stack(SIGNAL_SET_BYTES), c.stack(SIGNAL_SET_BYTES));
    let (all, old) = (c.stack_address(all), c.stack_address(old));
    let ones = c.int(-1);
    for offset in (0..SIGNAL_SET_BYTES as i32).step_by(8) {
        c.store(ones, all, offset);
    }
    let how = c.int32(SIG_SETMASK);
    c.call(Fun::PthreadSigmask, &[how, all, old]);
    let ok = c.int32(0);
    let failed = c.var(ok);
    let records = c.b.ins().iadd_imm_s(context, records(c.info));
    let count = c.b.ins().iadd_imm_s(threads, -1);
    c.for_(count, |c, i| {
        let before = c.get(failed);
        let fine = c.is(IntCC::Equal, before, 0);
        c.if_(fine, |c| {
            let record = c.element(records, i, worker::SIZE);
            c.store(context, record, worker::CONTEXT);
            let index = c.b.ins().iadd_imm_s(i, 1);
            c.store(index, record, worker::INDEX);
            let (thread, attributes) = (c.field(record, worker::THREAD), c.int(0));
            let main = c.address(Fun::Worker);
            let code = c.call(Fun::PthreadCreate, &[thread, attributes, main, record]);
            c.set(failed, code);
            c.if_else(
                code,
                |_| {},
                |c| {
                    let started = c.b.ins().ireduce(I32, index);
                    c.store(started, context, field::WORKERS);
                },
            );
        });
    });
    let no_set = c.int(0);
    c.call(Fun::PthreadSigmask, &[how, old, no_set]);
    let failed = c.get(failed);
    c.if_(failed, |c| {
        c.call_void(Fun::Entry(crate::emit::abi::Entry::Destroy), &[context]);
        c.ret32(Error::Threads as i32);
    });
}

/// Ends the workers and waits for them.
fn stop(c: &mut Code) {
    let [context] = c.params();
    let workers = c.load_u32(context, field::WORKERS);
    c.if_(workers, |c| {
        let one = c.int32(1);
        let stop = c.field(context, field::STOP);
        c.atomic_store(one, stop);
        next_generation(c, context);
        let records = c.b.ins().iadd_imm_s(context, records(c.info));
        c.for_(workers, |c, i| {
            let record = c.element(records, i, worker::SIZE);
            let thread = c.load(I64, record, worker::THREAD);
            let no_result = c.int(0);
            c.call(Fun::PthreadJoin, &[thread, no_result]);
        });
    });
    c.ret(&[]);
}
