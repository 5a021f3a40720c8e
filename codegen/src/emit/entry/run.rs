//! Entry points that run the model: every argument is checked before the first step.

use super::access::field;
use super::context::require_context;
use crate::emit::EmitError;
use crate::emit::abi::{Entry, Error, options, tensor};
use crate::emit::clif::{Code, I32, I64};
use crate::emit::functions::Fun;
use crate::emit::library::{Builder, Info};
use crate::emit::tables::{BASE_INPUTS, port};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types::I8};

const PORT: i64 = port::SIZE as i64;
const TENSOR: i64 = tensor::SIZE as i64;

/// Defines the entry points that run and what they share.
pub fn define(builder: &mut Builder, info: &Info, typed: Option<usize>) -> Result<(), EmitError> {
    builder.define(info, Fun::Enter, enter)?;
    builder.define(info, Fun::Bind, bind)?;
    builder.define(info, Fun::BindTensors, bind_tensors)?;
    builder.define(info, Fun::CheckDtypes, check_dtypes)?;
    builder.define(info, Fun::ShapeEqual, shape_equal)?;
    builder.define(info, Fun::MatchSet, match_set)?;
    builder.define(info, Fun::ShapeFailure, shape_failure)?;
    builder.define(info, Fun::Entry(Entry::FindSet), find_set)?;
    builder.define(info, Fun::Entry(Entry::Run), run)?;
    builder.define(info, Fun::Entry(Entry::RunTensors), run_tensors)?;
    if typed.is_some() {
        builder.define(info, Fun::TypedRun, typed_run)?;
    }
    Ok(())
}

/// Checks a context and takes it; two runs of one context at once would share an arena.
fn enter(c: &mut Code) {
    let [context] = c.params();
    require_context(c, context, |c, error| c.ret32(error as i32));
    let busy = c.field(context, field::BUSY);
    let (free, taken) = (c.int32(0), c.int32(1));
    let was = c.b.ins().atomic_cas(MemFlagsData::trusted(), busy, free, taken);
    let was_free = c.is(IntCC::Equal, was, 0);
    c.require(was_free, Error::Busy);
    c.ret32(0);
}

/// Lets a context go and returns the code.
pub fn leave(c: &mut Code, context: Value, code: Value) {
    let busy = c.field(context, field::BUSY);
    let free = c.int32(0);
    c.atomic_store(free, busy);
    c.ret(&[code]);
}

fn run(c: &mut Code) {
    let [context, set, inputs, outputs] = c.params();
    let code = c.call(Fun::Enter, &[context]);
    c.check(code);
    let result = c.var(code);
    let is_set = c.below(set, c.info.sets);
    c.if_else(
        is_set,
        |c| {
            let set = c.wide(set);
            let row = c.set_row(set);
            let ports = c.ports(row);
            let first = c.int(BASE_INPUTS as i64);
            let code = c.call(Fun::Bind, &[context, ports.inputs, ports.input_count, inputs, first]);
            c.set(result, code);
            then(c, result, |c| {
                let first = c.b.ins().iadd_imm_s(ports.input_count, BASE_INPUTS as i64);
                c.call(Fun::Bind, &[context, ports.outputs, ports.output_count, outputs, first])
            });
            then(c, result, |c| c.call(Fun::Execute, &[context, set]));
        },
        |c| {
            let code = noted(c, context, Error::Set);
            c.set(result, code);
        },
    );
    let result = c.get(result);
    leave(c, context, result);
}

/// Goes on with the next step of a run unless a former one failed.
pub fn then(c: &mut Code, result: cranelift_frontend::Variable, next: impl FnOnce(&mut Code) -> Value) {
    let before = c.get(result);
    let fine = c.is(IntCC::Equal, before, 0);
    c.if_(fine, |c| {
        let code = next(c);
        c.set(result, code);
    });
}

/// Notes a failure with its general sentence; gives its code.
pub fn noted(c: &mut Code, context: Value, error: Error) -> Value {
    let errors = c.info.tables.errors;
    let row = c.table(errors + 4 * error as u32);
    let message = c.follow(row, 0);
    let code = c.int32(error as u32);
    c.call(Fun::Fail, &[context, code, message])
}

/// Fails with the sentence of a port.
fn blame(c: &mut Code, context: Value, row: Value, error: Error, sentence: i32) {
    let message = c.follow(row, sentence);
    c.fail_with(context, error, message);
}

/// Checks a buffer and stores it in the base table. An empty tensor needs no memory: its pointer may be anything.
fn bind_one(c: &mut Code, context: Value, row: Value, pointer: Value, base: Value) {
    let bytes = c.load(I64, row, port::BYTES);
    c.if_(bytes, |c| {
        let is_null = c.is_null(pointer);
        c.if_(is_null, |c| blame(c, context, row, Error::Null, port::IS_NULL));
        let align = c.load_u32(row, port::ALIGN);
        let mask = c.b.ins().iadd_imm_s(align, -1);
        let low = c.b.ins().band(pointer, mask);
        c.if_(low, |c| blame(c, context, row, Error::Align, port::BAD_ALIGN));
    });
    let bases = c.field(context, field::BASES);
    let slot = c.element(bases, base, 8);
    c.store(pointer, slot, 0);
}

fn bind(c: &mut Code) {
    let [context, ports, count, pointers, first] = c.params();
    let is_null = c.is_null(pointers);
    c.if_(is_null, |c| {
        c.if_(count, |c| blame(c, context, ports, Error::Null, port::IS_NULL));
    });
    c.for_(count, |c, i| {
        let row = c.element(ports, i, PORT);
        let slot = c.element(pointers, i, 8);
        let pointer = c.load(I64, slot, 0);
        let base = c.b.ins().iadd(first, i);
        bind_one(c, context, row, pointer, base);
    });
    c.ret32(0);
}

fn run_tensors(c: &mut Code) {
    let [context, inputs, input_count, outputs, output_count] = c.params();
    let code = c.call(Fun::Enter, &[context]);
    c.check(code);
    let result = c.var(code);
    let (input_count, output_count) = (c.wide(input_count), c.wide(output_count));
    let right = any_set(c, |c, row| {
        let ports = c.ports(row);
        let inputs = c.b.ins().icmp(IntCC::Equal, ports.input_count, input_count);
        let outputs = c.b.ins().icmp(IntCC::Equal, ports.output_count, output_count);
        c.b.ins().band(inputs, outputs)
    });
    c.if_else(
        right,
        |_| {},
        |c| {
            let wrong = noted(c, context, Error::Count);
            c.set(result, wrong);
        },
    );
    for (count, array) in [(input_count, inputs), (output_count, outputs)] {
        then(c, result, |c| {
            let (some, is_null) = (c.is(IntCC::NotEqual, count, 0), c.is_null(array));
            let missing = c.b.ins().band(some, is_null);
            let fine = c.int32(0);
            let code = c.var(fine);
            c.if_(missing, |c| {
                let null = noted(c, context, Error::Null);
                c.set(code, null);
            });
            c.get(code)
        });
    }
    // Set 0 has every port that another set has.
    let zero = c.int(0);
    let row = c.set_row(zero);
    let all = c.ports(row);
    then(c, result, |c| c.call(Fun::CheckDtypes, &[context, all.inputs, input_count, inputs]));
    then(c, result, |c| c.call(Fun::CheckDtypes, &[context, all.outputs, output_count, outputs]));
    then(c, result, |c| {
        let set = c.call(Fun::MatchSet, &[inputs, input_count, outputs, output_count]);
        let code = c.b.ins().iconst(I32, 0);
        let code = c.var(code);
        let found = c.is(IntCC::SignedGreaterThanOrEqual, set, 0);
        c.if_else(
            found,
            |c| {
                let set = c.wide(set);
                let row = c.set_row(set);
                let ports = c.ports(row);
                let first = c.int(BASE_INPUTS as i64);
                let bound = c.call(Fun::BindTensors, &[context, ports.inputs, input_count, inputs, first]);
                c.set(code, bound);
                then(c, code, |c| {
                    let first = c.b.ins().iadd_imm_s(input_count, BASE_INPUTS as i64);
                    c.call(Fun::BindTensors, &[context, ports.outputs, output_count, outputs, first])
                });
                then(c, code, |c| c.call(Fun::Execute, &[context, set]));
            },
            |c| {
                let blamed = c.call(Fun::ShapeFailure, &[context, inputs, input_count, outputs, output_count]);
                c.set(code, blamed);
            },
        );
        c.get(code)
    });
    let result = c.get(result);
    leave(c, context, result);
}

/// Whether the test holds for the row of some set: an `I8`.
fn any_set(c: &mut Code, test: impl FnOnce(&mut Code, Value) -> Value) -> Value {
    let none = c.b.ins().iconst(I8, 0);
    let any = c.var(none);
    let sets = c.int(c.info.sets as i64);
    c.for_(sets, |c, set| {
        let row = c.set_row(set);
        let holds = test(c, row);
        let before = c.get(any);
        let now = c.b.ins().bor(before, holds);
        c.set(any, now);
    });
    c.get(any)
}

fn bind_tensors(c: &mut Code) {
    let [context, ports, count, tensors, first] = c.params();
    c.for_(count, |c, i| {
        let row = c.element(ports, i, PORT);
        let given = c.element(tensors, i, TENSOR);
        let bytes = c.load(I64, given, tensor::BYTES);
        c.if_(bytes, |c| {
            let needed = c.load(I64, row, port::BYTES);
            let small = c.b.ins().icmp(IntCC::UnsignedLessThan, bytes, needed);
            c.if_(small, |c| blame(c, context, row, Error::Size, port::BAD_SIZE));
        });
        let pointer = c.load(I64, given, tensor::DATA);
        let base = c.b.ins().iadd(first, i);
        bind_one(c, context, row, pointer, base);
    });
    c.ret32(0);
}

fn check_dtypes(c: &mut Code) {
    let [context, ports, count, tensors] = c.params();
    c.for_(count, |c, i| {
        let row = c.element(ports, i, PORT);
        let given = c.element(tensors, i, TENSOR);
        let want = c.load(I32, row, port::DTYPE);
        let have = c.load(I32, given, tensor::DTYPE);
        let differ = c.b.ins().icmp(IntCC::NotEqual, want, have);
        c.if_(differ, |c| blame(c, context, row, Error::Dtype, port::BAD_DTYPE));
    });
    c.ret32(0);
}

fn shape_equal(c: &mut Code) {
    let [row, given] = c.params();
    let want = c.load_u32(row, port::RANK);
    let have = c.load_u32(given, tensor::RANK);
    let differ = c.b.ins().icmp(IntCC::NotEqual, want, have);
    c.if_(differ, |c| c.ret32(0));
    let shape = c.load(I64, given, tensor::SHAPE);
    let is_null = c.is_null(shape);
    c.if_(is_null, |c| {
        // A scalar has no extents to point to.
        let is_scalar = c.is(IntCC::Equal, want, 0);
        let is_scalar = c.b.ins().uextend(I32, is_scalar);
        c.ret(&[is_scalar]);
    });
    let extents = c.follow(row, port::SHAPE);
    c.for_(want, |c, i| {
        let (a, b) = (c.element(extents, i, 8), c.element(shape, i, 8));
        let (a, b) = (c.load(I64, a, 0), c.load(I64, b, 0));
        let differ = c.b.ins().icmp(IntCC::NotEqual, a, b);
        c.if_(differ, |c| c.ret32(0));
    });
    c.ret32(1);
}

/// Clears `all` unless there are as many tensors as ports, each of its port's shape.
fn compare_shapes(
    c: &mut Code,
    ports: Value,
    port_count: Value,
    tensors: Value,
    count: Value,
    all: cranelift_frontend::Variable,
) {
    let as_many = c.b.ins().icmp(IntCC::Equal, port_count, count);
    c.if_else(
        as_many,
        |c| {
            c.for_(count, |c, i| {
                let row = c.element(ports, i, PORT);
                let given = c.element(tensors, i, TENSOR);
                let same = c.call(Fun::ShapeEqual, &[row, given]);
                let before = c.get(all);
                let still = c.b.ins().band(before, same);
                c.set(all, still);
            });
        },
        |c| {
            let no = c.int32(0);
            c.set(all, no);
        },
    );
}

fn match_set(c: &mut Code) {
    let [inputs, input_count, outputs, output_count] = c.params();
    let sets = c.int(c.info.sets as i64);
    c.for_(sets, |c, set| {
        let row = c.set_row(set);
        let ports = c.ports(row);
        let one = c.int32(1);
        let all = c.var(one);
        compare_shapes(c, ports.inputs, ports.input_count, inputs, input_count, all);
        c.if_(outputs, |c| {
            compare_shapes(c, ports.outputs, ports.output_count, outputs, output_count, all);
        });
        let all = c.get(all);
        c.if_(all, |c| {
            let set = c.b.ins().ireduce(I32, set);
            c.ret(&[set]);
        });
    });
    c.ret32(-1);
}

/// No set fits: blames the first tensor whose shape is in no set of as many, or else the combination.
fn shape_failure(c: &mut Code) {
    let [context, inputs, input_count, outputs, output_count] = c.params();
    let zero = c.int(0);
    let row = c.set_row(zero);
    let first_set = c.ports(row);
    for (is_output, count, tensors) in [(false, input_count, inputs), (true, output_count, outputs)] {
        c.for_(count, |c, i| {
            let given = c.element(tensors, i, TENSOR);
            let none = c.int32(0);
            let known = c.var(none);
            let sets = c.int(c.info.sets as i64);
            c.for_(sets, |c, set| {
                let row = c.set_row(set);
                let ports = c.ports(row);
                let (rows, port_count) = match is_output {
                    true => (ports.outputs, ports.output_count),
                    false => (ports.inputs, ports.input_count),
                };
                let as_many = c.b.ins().icmp(IntCC::Equal, port_count, count);
                c.if_(as_many, |c| {
                    let row = c.element(rows, i, PORT);
                    let same = c.call(Fun::ShapeEqual, &[row, given]);
                    let before = c.get(known);
                    let now = c.b.ins().bor(before, same);
                    c.set(known, now);
                });
            });
            let known = c.get(known);
            let unknown = c.is(IntCC::Equal, known, 0);
            c.if_(unknown, |c| {
                let row = c.element(if is_output { first_set.outputs } else { first_set.inputs }, i, PORT);
                blame(c, context, row, Error::Shape, port::BAD_SHAPE);
            });
        });
    }
    c.fail(context, Error::Shape);
}

fn find_set(c: &mut Code) {
    let [inputs, count, out] = c.params();
    c.require(out, Error::Null);
    let count = c.wide(count);
    let right = any_set(c, |c, row| {
        let ports = c.ports(row);
        c.b.ins().icmp(IntCC::Equal, ports.input_count, count)
    });
    c.require(right, Error::Count);
    let zero = c.int(0);
    let row = c.set_row(zero);
    let ports = c.ports(row);
    c.if_(count, |c| c.require(inputs, Error::Null));
    c.for_(count, |c, i| {
        let row = c.element(ports.inputs, i, PORT);
        let given = c.element(inputs, i, TENSOR);
        let want = c.load(I32, row, port::DTYPE);
        let have = c.load(I32, given, tensor::DTYPE);
        let same = c.b.ins().icmp(IntCC::Equal, want, have);
        c.require(same, Error::Dtype);
    });
    let set = c.call(Fun::MatchSet, &[inputs, count, zero, zero]);
    let found = c.is(IntCC::SignedGreaterThanOrEqual, set, 0);
    c.require(found, Error::Shape);
    c.store(set, out, 0);
    c.ret32(0);
}

/// `<model>_run(inputs..., outputs..., [workspace])`: a context for one run of set 0.
fn typed_run(c: &mut Code) {
    let (inputs, outputs, freestanding) = (c.info.inputs, c.info.outputs, c.info.freestanding);
    let params = c.all_params();
    let arrays = c.stack(8 * (inputs + outputs).max(1));
    let arrays = c.stack_address(arrays);
    for (i, &pointer) in params[..inputs + outputs].iter().enumerate() {
        c.store(pointer, arrays, 8 * i as i32);
    }
    let given = c.stack(options::SIZE as usize);
    let given = c.stack_address(given);
    let zero = c.int(0);
    for offset in (0..options::SIZE).step_by(8) {
        c.store(zero, given, offset);
    }
    let size = c.int(i64::from(options::SIZE));
    c.store(size, given, options::STRUCT_SIZE);
    if freestanding {
        let (set, threads) = (c.int32(0), c.int32(1));
        let bytes = c.call(Fun::Entry(Entry::WorkspaceSize), &[set, threads]);
        c.require(params[inputs + outputs], Error::Workspace);
        c.store(params[inputs + outputs], given, options::WORKSPACE);
        c.store(bytes, given, options::WORKSPACE_BYTES);
    }
    let out = c.stack(8);
    let out = c.stack_address(out);
    let code = c.call(Fun::Entry(Entry::Create), &[given, out]);
    c.check(code);
    let context = c.load(I64, out, 0);
    let set = c.int32(0);
    let output_array = c.b.ins().iadd_imm_s(arrays, 8 * inputs as i64);
    let code = c.call(Fun::Entry(Entry::Run), &[context, set, arrays, output_array]);
    c.call_void(Fun::Entry(Entry::Destroy), &[context]);
    c.ret(&[code]);
}
