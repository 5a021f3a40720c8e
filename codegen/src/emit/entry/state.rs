//! Entry points on the states of a model that learns: one block of memory of the caller's, described in [`crate::state`].
//!
//! A context only holds the block's address. What comes from outside is believed by its header alone: magic number, format,
//! size and hash, which say that the block is as long and laid out as this library's plans take it to be. Whatever numbers are
//! in it then, a run reads and writes within it.

use super::access::field;
use super::context::advise_huge_pages;
use super::run::{leave, noted, then};
use crate::emit::EmitError;
use crate::emit::abi::{self, Entry, Error, WORKSPACE_ALIGN};
use crate::emit::clif::{Code, I32, I64};
use crate::emit::functions::Fun;
use crate::emit::library::{Builder, Info};
use crate::emit::tables::{BASE_STATE, set, state_row};
use crate::state::{FORMAT, MAGIC, header};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types::I8};
use cranelift_frontend::Variable;

/// Where a context keeps the address of the block.
const BLOCK: i32 = field::BASES + 8 * BASE_STATE as i32;

/// Defines the entry points, if the model has states.
pub fn define(builder: &mut Builder, info: &Info) -> Result<(), EmitError> {
    if !info.learns {
        return Ok(());
    }
    let tables = &info.tables;
    builder.define(info, Fun::Copy, copy)?;
    builder.define(info, Fun::FindState, find_state)?;
    builder.define(info, Fun::CheckBlock, check_block)?;
    builder.define(info, Fun::Entry(Entry::StateSize), |c| {
        let bytes = c.int(tables.state_bytes as i64);
        c.ret(&[bytes]);
    })?;
    builder.define(info, Fun::Entry(Entry::StateCount), |c| c.ret32(tables.state_count as i32))?;
    builder.define(info, Fun::Entry(Entry::SetPurpose), set_purpose)?;
    builder.define(info, Fun::Entry(Entry::State), state)?;
    builder.define(info, Fun::Entry(Entry::InitState), init)?;
    builder.define(info, Fun::Entry(Entry::AttachState), attach)?;
    builder.define(info, Fun::Entry(Entry::GetState), |c| access(c, Access::Get))?;
    builder.define(info, Fun::Entry(Entry::SetState), |c| access(c, Access::Set))?;
    builder.define(info, Fun::Entry(Entry::SaveState), save)?;
    builder.define(info, Fun::Entry(Entry::LoadState), load)
}

fn set_purpose(c: &mut Code) {
    let [set] = c.params();
    let is_set = c.below(set, c.info.sets);
    c.if_(is_set, |c| {
        let set = c.wide(set);
        let row = c.set_row(set);
        let purpose = c.load(I32, row, set::PURPOSE);
        c.ret(&[purpose]);
    });
    c.ret32(0);
}

/// The row of a state, an `I64` in range.
fn row(c: &mut Code, index: Value) -> Value {
    let states = c.info.tables.states;
    let states = c.table(states);
    c.element(states, index, i64::from(state_row::SIZE))
}

fn state(c: &mut Code) {
    let [index, out] = c.params();
    let known = c.below(index, c.info.tables.state_count);
    c.require(known, Error::Index);
    c.require(out, Error::Null);
    let index = c.wide(index);
    let row = row(c, index);
    let tensor = c.field(out, abi::state::TENSOR);
    c.call(Fun::Describe, &[row, tensor]);
    let offset = c.load(I64, row, state_row::OFFSET);
    c.store(offset, out, abi::state::OFFSET);
    let role = c.load(I32, row, state_row::ROLE);
    c.store(role, out, abi::state::ROLE);
    let zero = c.int32(0);
    c.store(zero, out, abi::state::RESERVED);
    c.ret32(0);
}

/// What a pointer is beyond a multiple of 64: 0 if it may be that of a block.
fn misalignment(c: &mut Code, block: Value) -> Value {
    c.b.ins().band_imm_s(block, WORKSPACE_ALIGN as i64 - 1)
}

fn init(c: &mut Code) {
    let [block, bytes, seed] = c.params();
    c.require(block, Error::Null);
    let size = c.int(c.info.tables.state_bytes as i64);
    let fits = c.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, bytes, size);
    c.require(fits, Error::Size);
    let low = misalignment(c, block);
    c.if_(low, |c| c.ret32(Error::Align as i32));
    advise_huge_pages(c, block, size);

    let zero = c.int(0);
    let words = c.b.ins().ushr_imm_u(size, 3);
    fill(c, block, words, zero);
    let states = c.int(c.info.tables.state_count as i64);
    let weights = c.data(c.info.weights_id);
    c.for_(states, |c, index| {
        let row = row(c, index);
        let offset = c.load(I64, row, state_row::OFFSET);
        let to = c.b.ins().iadd(block, offset);
        let bytes = c.load(I64, row, state_row::BYTES);
        let source = c.load(I64, row, state_row::SOURCE);
        let splat = c.load(I32, row, state_row::SPLAT);
        c.if_else(
            splat,
            |c| {
                // Whole words, then the bytes of one: what lies between the states stays zero.
                let words = c.b.ins().ushr_imm_u(bytes, 3);
                fill(c, to, words, source);
                let done = c.b.ins().band_imm_s(bytes, -8);
                let left = c.b.ins().band_imm_s(bytes, 7);
                let end = c.b.ins().iadd(to, done);
                let pattern = c.var(source);
                c.for_(left, |c, i| {
                    let byte = c.get(pattern);
                    let next = c.b.ins().ushr_imm_u(byte, 8);
                    c.set(pattern, next);
                    let byte = c.b.ins().ireduce(I8, byte);
                    let at = c.b.ins().iadd(end, i);
                    c.store(byte, at, 0);
                });
            },
            |c| {
                let from = c.b.ins().iadd(weights, source);
                c.call_void(Fun::Copy, &[to, from, bytes]);
            },
        );
    });
    let magic = c.int(MAGIC as i64);
    let version = c.int32(FORMAT);
    let hash = c.int(c.info.tables.state_hash as i64);
    c.store(version, block, header::VERSION);
    for (value, offset) in [(magic, header::MAGIC), (size, header::BYTES), (hash, header::HASH), (seed, header::SEED)] {
        c.store(value, block, offset);
    }
    c.ret32(0);
}

/// Writes a word so many times.
fn fill(c: &mut Code, to: Value, words: Value, word: Value) {
    c.for_(words, |c, i| {
        let at = c.element(to, i, 8);
        c.store(word, at, 0);
    });
}

/// Words, then bytes; at addresses of any alignment.
fn copy(c: &mut Code) {
    let [to, from, bytes] = c.params();
    let flags = MemFlagsData::new().with_notrap();
    let words = c.b.ins().ushr_imm_u(bytes, 3);
    c.for_(words, |c, i| {
        let (to, from) = (c.element(to, i, 8), c.element(from, i, 8));
        let word = c.b.ins().load(I64, flags, from, 0);
        c.b.ins().store(flags, word, to, 0);
    });
    let done = c.b.ins().band_imm_s(bytes, -8);
    let left = c.b.ins().band_imm_s(bytes, 7);
    let (to, from) = (c.b.ins().iadd(to, done), c.b.ins().iadd(from, done));
    c.for_(left, |c, i| {
        let (to, from) = (c.b.ins().iadd(to, i), c.b.ins().iadd(from, i));
        let byte = c.load(I8, from, 0);
        c.store(byte, to, 0);
    });
    c.ret(&[]);
}

/// Notes a failure with a sentence of the tables; gives its code.
fn blamed(c: &mut Code, context: Value, error: Error, sentence: u32) -> Value {
    let message = c.table(sentence);
    let code = c.int32(error as u32);
    c.call(Fun::Fail, &[context, code, message])
}

/// Returns with a failure and a sentence of the tables.
fn refuse(c: &mut Code, context: Value, error: Error, sentence: u32) {
    let code = blamed(c, context, error, sentence);
    c.ret(&[code]);
}

/// Whether a pointer, which is one, is to a block of this library.
fn check_block(c: &mut Code) {
    let [context, block, bytes] = c.params();
    let flags = MemFlagsData::new().with_notrap();
    let faults = c.info.tables.faults;
    let has_header = c.is(IntCC::UnsignedGreaterThanOrEqual, bytes, i64::from(header::SIZE));
    c.if_else(has_header, |_| {}, |c| refuse(c, context, Error::Size, faults.short));
    for (offset, ty, want, fault) in [
        (header::MAGIC, I64, MAGIC as i64, faults.foreign),
        (header::VERSION, I32, i64::from(FORMAT), faults.foreign),
        (header::HASH, I64, c.info.tables.state_hash as i64, faults.other),
        (header::BYTES, I64, c.info.tables.state_bytes as i64, faults.other),
    ] {
        let have = c.b.ins().load(ty, flags, block, offset);
        let same = c.is(IntCC::Equal, have, want);
        c.if_else(same, |_| {}, |c| refuse(c, context, Error::State, fault));
    }
    let size = c.int(c.info.tables.state_bytes as i64);
    let whole = c.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, bytes, size);
    c.if_else(whole, |_| {}, |c| refuse(c, context, Error::Size, faults.short));
    c.ret32(0);
}

fn attach(c: &mut Code) {
    let [context, block, bytes] = c.params();
    let code = c.call(Fun::Enter, &[context]);
    c.check(code);
    let misaligned = c.info.tables.faults.misaligned;
    let result = c.var(code);
    c.if_(block, |c| {
        let code = c.call(Fun::CheckBlock, &[context, block, bytes]);
        c.set(result, code);
        let low = misalignment(c, block);
        fail_if(c, result, low, |c| blamed(c, context, Error::Align, misaligned));
    });
    let result = c.get(result);
    let fine = c.is(IntCC::Equal, result, 0);
    c.if_(fine, |c| c.store(block, context, BLOCK));
    leave(c, context, result);
}

/// The row of the state of a name, or 0.
fn find_state(c: &mut Code) {
    let [name] = c.params();
    let states = c.int(c.info.tables.state_count as i64);
    c.for_(states, |c, index| {
        let row = row(c, index);
        let own = c.follow(row, state_row::NAME);
        let zero = c.int(0);
        let at = c.var(zero);
        let bytes = |c: &mut Code, i: Value| {
            let (a, b) = (c.b.ins().iadd(own, i), c.b.ins().iadd(name, i));
            (c.load(I8, a, 0), c.load(I8, b, 0))
        };
        // As long as both are one and go on.
        c.while_(
            |c| {
                let i = c.get(at);
                let (a, b) = bytes(c, i);
                let same = c.b.ins().icmp(IntCC::Equal, a, b);
                let more = c.is(IntCC::NotEqual, a, 0);
                c.b.ins().band(same, more)
            },
            |c| {
                let i = c.get(at);
                let next = c.b.ins().iadd_imm_s(i, 1);
                c.set(at, next);
            },
        );
        let end = c.get(at);
        let (a, b) = bytes(c, end);
        let found = c.b.ins().icmp(IntCC::Equal, a, b);
        c.if_(found, |c| c.ret(&[row]));
    });
    let none = c.int(0);
    c.ret(&[none]);
}

enum Access {
    Get,
    Set,
}

/// An entry that works on the attached block: enters the context, refuses one without a block and pointers that are none,
/// then does `work` on the block, which may set the result to the code of a failure, and leaves.
fn on_block(c: &mut Code, context: Value, pointers: &[Value], work: impl FnOnce(&mut Code, Value, Variable)) {
    let code = c.call(Fun::Enter, &[context]);
    c.check(code);
    let missing = c.info.tables.faults.missing;
    let result = c.var(code);
    let block = c.load(I64, context, BLOCK);
    let has_none = c.is_null(block);
    fail_if(c, result, has_none, |c| blamed(c, context, Error::State, missing));
    for &pointer in pointers {
        let is_null = c.is_null(pointer);
        fail_if(c, result, is_null, |c| noted(c, context, Error::Null));
    }
    then(c, result, |c| {
        work(c, block, result);
        c.get(result)
    });
    let result = c.get(result);
    leave(c, context, result);
}

/// Makes the result that of a failure on a condition, unless there is one already.
fn fail_if(c: &mut Code, result: Variable, condition: Value, failure: impl FnOnce(&mut Code) -> Value) {
    then(c, result, |c| {
        c.if_(condition, |c| {
            let code = failure(c);
            c.set(result, code);
        });
        c.get(result)
    });
}

/// `get_state` and `set_state`: a copy between a state and a buffer.
fn access(c: &mut Code, access: Access) {
    let [context, name, buffer, bytes] = c.params();
    let unnamed = c.info.tables.faults.unnamed;
    on_block(c, context, &[name, buffer], |c, block, result| {
        let row = c.call(Fun::FindState, &[name]);
        let is_unknown = c.is_null(row);
        fail_if(c, result, is_unknown, |c| blamed(c, context, Error::Index, unnamed));
        then(c, result, |c| {
            let needed = c.load(I64, row, state_row::BYTES);
            let is_small = c.b.ins().icmp(IntCC::UnsignedLessThan, bytes, needed);
            fail_if(c, result, is_small, |c| noted(c, context, Error::Size));
            c.get(result)
        });
        then(c, result, |c| {
            let offset = c.load(I64, row, state_row::OFFSET);
            let own = c.b.ins().iadd(block, offset);
            let bytes = c.load(I64, row, state_row::BYTES);
            let (to, from) = match access {
                Access::Get => (buffer, own),
                Access::Set => (own, buffer),
            };
            c.call_void(Fun::Copy, &[to, from, bytes]);
            c.int32(0)
        });
    });
}

fn save(c: &mut Code) {
    let [context, to, bytes] = c.params();
    let short = c.info.tables.faults.short;
    on_block(c, context, &[to], |c, block, result| {
        let size = c.int(c.info.tables.state_bytes as i64);
        let is_small = c.b.ins().icmp(IntCC::UnsignedLessThan, bytes, size);
        fail_if(c, result, is_small, |c| blamed(c, context, Error::Size, short));
        then(c, result, |c| {
            c.call_void(Fun::Copy, &[to, block, size]);
            c.int32(0)
        });
    });
}

fn load(c: &mut Code) {
    let [context, from, bytes] = c.params();
    on_block(c, context, &[from], |c, block, result| {
        let code = c.call(Fun::CheckBlock, &[context, from, bytes]);
        c.set(result, code);
        then(c, result, |c| {
            let size = c.int(c.info.tables.state_bytes as i64);
            c.call_void(Fun::Copy, &[block, from, size]);
            c.int32(0)
        });
    });
}
