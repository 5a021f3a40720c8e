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
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value};

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
fn leave(c: &mut Code, context: Value, code: Value) {
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
            let ports = c.ports(set);
            let count = c.int(c.info.inputs as i64);
            let first = c.int(BASE_INPUTS as i64);
            let code = c.call(Fun::Bind, &[context, ports, count, inputs, first]);
            c.set(result, code);
            then(c, result, |c| {
                let ports = c.output_ports(ports);
                let count = c.int(c.info.outputs as i64);
                let first = c.int(BASE_INPUTS as i64 + c.info.inputs as i64);
                c.call(Fun::Bind, &[context, ports, count, outputs, first])
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
fn then(c: &mut Code, result: cranelift_frontend::Variable, next: impl FnOnce(&mut Code) -> Value) {
    let before = c.get(result);
    let fine = c.is(IntCC::Equal, before, 0);
    c.if_(fine, |c| {
        let code = next(c);
        c.set(result, code);
    });
}

/// Notes a failure with its general sentence; gives its code.
fn noted(c: &mut Code, context: Value, error: Error) -> Value {
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
    let input_total = c.int(c.info.inputs as i64);
    let output_total = c.int(c.info.outputs as i64);
    let zero = c.int(0);
    let ports = c.ports(zero);
    let output_ports = c.output_ports(ports);
    for (count, total, array) in [(input_count, c.info.inputs, inputs), (output_count, c.info.outputs, outputs)] {
        then(c, result, |c| {
            let code = c.b.ins().iconst(I32, 0);
            let code = c.var(code);
            let is_right = c.is(IntCC::Equal, count, total as i64);
            c.if_else(
                is_right,
                |c| {
                    if total > 0 {
                        let is_null = c.is_null(array);
                        c.if_(is_null, |c| {
                            let null = noted(c, context, Error::Null);
                            c.set(code, null);
                        });
                    }
                },
                |c| {
                    let wrong = noted(c, context, Error::Count);
                    c.set(code, wrong);
                },
            );
            c.get(code)
        });
    }
    then(c, result, |c| c.call(Fun::CheckDtypes, &[context, ports, input_total, inputs]));
    then(c, result, |c| c.call(Fun::CheckDtypes, &[context, output_ports, output_total, outputs]));
    then(c, result, |c| {
        let set = c.call(Fun::MatchSet, &[inputs, outputs]);
        let code = c.b.ins().iconst(I32, 0);
        let code = c.var(code);
        let found = c.is(IntCC::SignedGreaterThanOrEqual, set, 0);
        c.if_else(
            found,
            |c| {
                let set = c.wide(set);
                let ports = c.ports(set);
                let first = c.int(BASE_INPUTS as i64);
                let bound = c.call(Fun::BindTensors, &[context, ports, input_total, inputs, first]);
                c.set(code, bound);
                then(c, code, |c| {
                    let ports = c.output_ports(ports);
                    let first = c.int(BASE_INPUTS as i64 + c.info.inputs as i64);
                    c.call(Fun::BindTensors, &[context, ports, output_total, outputs, first])
                });
                then(c, code, |c| c.call(Fun::Execute, &[context, set]));
            },
            |c| {
                let blamed = c.call(Fun::ShapeFailure, &[context, inputs, outputs]);
                c.set(code, blamed);
            },
        );
        c.get(code)
    });
    let result = c.get(result);
    leave(c, context, result);
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

/// Clears `all` unless each tensor has its port's shape.
fn compare_shapes(c: &mut Code, ports: Value, count: usize, tensors: Value, all: cranelift_frontend::Variable) {
    let count = c.int(count as i64);
    c.for_(count, |c, i| {
        let row = c.element(ports, i, PORT);
        let given = c.element(tensors, i, TENSOR);
        let same = c.call(Fun::ShapeEqual, &[row, given]);
        let before = c.get(all);
        let still = c.b.ins().band(before, same);
        c.set(all, still);
    });
}

fn match_set(c: &mut Code) {
    let [inputs, outputs] = c.params();
    let sets = c.int(c.info.sets as i64);
    c.for_(sets, |c, set| {
        let ports = c.ports(set);
        let one = c.int32(1);
        let all = c.var(one);
        compare_shapes(c, ports, c.info.inputs, inputs, all);
        c.if_(outputs, |c| {
            let ports = c.output_ports(ports);
            compare_shapes(c, ports, c.info.outputs, outputs, all);
        });
        let all = c.get(all);
        c.if_(all, |c| {
            let set = c.b.ins().ireduce(I32, set);
            c.ret(&[set]);
        });
    });
    c.ret32(-1);
}

/// No set fits: blames the first tensor whose shape is in no set, or else the combination.
fn shape_failure(c: &mut Code) {
    let [context, inputs, outputs] = c.params();
    let zero = c.int(0);
    let first_set = c.ports(zero);
    for (is_output, count, tensors) in [(false, c.info.inputs, inputs), (true, c.info.outputs, outputs)] {
        let count = c.int(count as i64);
        c.for_(count, |c, i| {
            let given = c.element(tensors, i, TENSOR);
            let none = c.int32(0);
            let known = c.var(none);
            let sets = c.int(c.info.sets as i64);
            c.for_(sets, |c, set| {
                let mut ports = c.ports(set);
                if is_output {
                    ports = c.output_ports(ports);
                }
                let row = c.element(ports, i, PORT);
                let same = c.call(Fun::ShapeEqual, &[row, given]);
                let before = c.get(known);
                let now = c.b.ins().bor(before, same);
                c.set(known, now);
            });
            let known = c.get(known);
            let unknown = c.is(IntCC::Equal, known, 0);
            c.if_(unknown, |c| {
                let ports = if is_output { c.output_ports(first_set) } else { first_set };
                let row = c.element(ports, i, PORT);
                blame(c, context, row, Error::Shape, port::BAD_SHAPE);
            });
        });
    }
    c.fail(context, Error::Shape);
}

fn find_set(c: &mut Code) {
    let [inputs, count, out] = c.params();
    c.require(out, Error::Null);
    let right = c.is(IntCC::Equal, count, c.info.inputs as i64);
    c.require(right, Error::Count);
    if c.info.inputs > 0 {
        c.require(inputs, Error::Null);
    }
    let zero = c.int(0);
    let ports = c.ports(zero);
    let total = c.int(c.info.inputs as i64);
    c.for_(total, |c, i| {
        let row = c.element(ports, i, PORT);
        let given = c.element(inputs, i, TENSOR);
        let want = c.load(I32, row, port::DTYPE);
        let have = c.load(I32, given, tensor::DTYPE);
        let same = c.b.ins().icmp(IntCC::Equal, want, have);
        c.require(same, Error::Dtype);
    });
    let no_outputs = c.int(0);
    let set = c.call(Fun::MatchSet, &[inputs, no_outputs]);
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
