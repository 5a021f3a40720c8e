//! Entry points that describe the model: plain reads of the tables.

use super::access::Ports;
use crate::emit::EmitError;
use crate::emit::abi::{self, Entry, Error};
use crate::emit::clif::{Code, I32, I64};
use crate::emit::functions::{Fun, imports};
use crate::emit::library::{Builder, Info};
use crate::emit::tables::{SHIFT_BITS, about, kernel, numbers, plan, port, step};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};

/// Defines the describing entry points.
pub fn define(builder: &mut Builder, info: &Info) -> Result<(), EmitError> {
    let counts = [
        (Entry::AbiVersion, abi::VERSION),
        (Entry::SetCount, info.sets as u32),
        (Entry::InputCount, info.inputs as u32),
        (Entry::OutputCount, info.outputs as u32),
        (Entry::LevelCount, info.levels as u32),
    ];
    for (entry, count) in counts {
        builder.define(info, Fun::Entry(entry), |c| c.ret32(count as i32))?;
    }
    builder.define(info, Fun::Entry(Entry::ModelName), |c| {
        let name = c.table(info.tables.name);
        c.ret(&[name]);
    })?;
    builder.define(info, Fun::Entry(Entry::ErrorMessage), error_message)?;
    builder.define(info, Fun::Entry(Entry::LevelName), level_name)?;
    builder.define(info, Fun::Describe, describe)?;
    builder.define(info, Fun::Entry(Entry::Input), |c| port_entry(c, |ports| (ports.inputs, ports.input_count)))?;
    builder.define(info, Fun::Entry(Entry::Output), |c| port_entry(c, |ports| (ports.outputs, ports.output_count)))?;
    builder.define(info, Fun::Entry(Entry::StepCount), step_count)?;
    builder.define(info, Fun::Entry(Entry::Step), step_entry)?;
    for (entry, field) in [(Entry::StepWeights, numbers::WEIGHTS), (Entry::StepMoved, numbers::MOVED)] {
        builder.define(info, Fun::Entry(entry), |c| {
            step_number(c, |c, row| {
                let numbers = step_numbers(c, row);
                c.load(I64, numbers, field)
            });
        })?;
    }
    builder.define(info, Fun::Entry(Entry::StepCycles), |c| step_number(c, step_cycles))?;
    Ok(())
}

fn error_message(c: &mut Code) {
    let [code] = c.params();
    let known = c.below(code, abi::ERRORS.len());
    let unknown = c.info.tables.unknown_error;
    c.if_else(
        known,
        |c| {
            let errors = c.info.tables.errors;
            let errors = c.table(errors);
            let code = c.wide(code);
            let row = c.element(errors, code, 4);
            let message = c.follow(row, 0);
            c.ret(&[message]);
        },
        |c| {
            let message = c.table(unknown);
            c.ret(&[message]);
        },
    );
}

fn level_name(c: &mut Code) {
    let [level] = c.params();
    let known = c.below(level, c.info.levels);
    c.if_(known, |c| {
        let levels = c.info.tables.levels;
        let levels = c.table(levels);
        let level = c.wide(level);
        let row = c.element(levels, level, 8);
        let name = c.follow(row, 4);
        c.ret(&[name]);
    });
    let null = c.int(0);
    c.ret(&[null]);
}

/// Copies a port into a caller's `nncc_tensor`.
fn describe(c: &mut Code) {
    let [row, out] = c.params();
    let null = c.int(0);
    c.store(null, out, abi::tensor::DATA);
    for (field, to) in [(port::SHAPE, abi::tensor::SHAPE), (port::NAME, abi::tensor::NAME)] {
        let address = c.follow(row, field);
        c.store(address, out, to);
    }
    let bytes = c.load(I64, row, port::BYTES);
    c.store(bytes, out, abi::tensor::BYTES);
    for (field, to) in [(port::DTYPE, abi::tensor::DTYPE), (port::RANK, abi::tensor::RANK)] {
        let value = c.load(I32, row, field);
        c.store(value, out, to);
    }
    c.store(null, out, abi::tensor::LAYOUT);
    c.ret32(0);
}

fn port_entry(c: &mut Code, which: fn(Ports) -> (Value, Value)) {
    let [set, index, out] = c.params();
    let is_set = c.below(set, c.info.sets);
    c.require(is_set, Error::Set);
    let (set, index) = (c.wide(set), c.wide(index));
    let row = c.set_row(set);
    let (rows, count) = which(c.ports(row));
    let is_port = c.b.ins().icmp(IntCC::UnsignedLessThan, index, count);
    c.require(is_port, Error::Index);
    c.require(out, Error::Null);
    let row = c.element(rows, index, i64::from(port::SIZE));
    let code = c.call(Fun::Describe, &[row, out]);
    c.ret(&[code]);
}

/// The plan of (set, level) parameters; leaves by `otherwise` when there is none.
fn checked_plan(c: &mut Code, set: Value, level: Value, otherwise: fn(&mut Code, Error)) -> Value {
    let is_set = c.below(set, c.info.sets);
    c.if_else(is_set, |_| {}, |c| otherwise(c, Error::Set));
    let is_level = c.below(level, c.info.levels);
    c.if_else(is_level, |_| {}, |c| otherwise(c, Error::Index));
    let (set, level) = (c.wide(set), c.wide(level));
    c.plan(set, level)
}

fn step_count(c: &mut Code) {
    let [set, level] = c.params();
    let plan = checked_plan(c, set, level, |c, _| c.ret32(0));
    let count = c.load(I32, plan, plan::STEP_COUNT);
    c.ret(&[count]);
}

fn step_entry(c: &mut Code) {
    let [set, level, index, out] = c.params();
    let plan = checked_plan(c, set, level, |c, error| c.ret32(error as i32));
    let count = c.load(I32, plan, plan::STEP_COUNT);
    let is_step = c.b.ins().icmp(IntCC::UnsignedLessThan, index, count);
    c.require(is_step, Error::Index);
    c.require(out, Error::Null);
    let steps = c.follow(plan, plan::STEPS);
    let index = c.wide(index);
    let row = c.element(steps, index, i64::from(step::SIZE));
    let (about, kernel) = (c.follow(row, step::ABOUT), c.follow(row, step::KERNEL));
    for (row, field, to) in [
        (about, about::NAME, abi::step::NAME),
        (about, about::OP, abi::step::OP),
        (kernel, kernel::NAME, abi::step::KERNEL),
    ] {
        let text = c.follow(row, field);
        c.store(text, out, to);
    }
    let packed = c.load(I64, row, step::TASKS);
    let tasks = c.b.ins().ushr_imm_u(packed, 1);
    c.store(tasks, out, abi::step::TASKS);
    let numbers = step_numbers(c, row);
    for (field, to) in [(numbers::MACS, abi::step::MACS), (numbers::BYTES, abi::step::BYTES)] {
        let value = c.load(I64, numbers, field);
        c.store(value, out, to);
    }
    c.ret32(0);
}

/// What a step counts, by its row.
fn step_numbers(c: &mut Code, row: Value) -> Value {
    let about = c.follow(row, step::ABOUT);
    c.follow(about, about::NUMBERS)
}

/// The cycles of a step, by its row.
fn step_cycles(c: &mut Code, row: Value) -> Value {
    let packed = c.load_u32(row, step::CYCLES);
    let digits = c.b.ins().ushr_imm_u(packed, i64::from(SHIFT_BITS));
    let shift = c.b.ins().band_imm_s(packed, (1 << SHIFT_BITS) - 1);
    c.b.ins().ishl(digits, shift)
}

/// A number of a step, which `read` finds by its row; 0 where there is no such step.
fn step_number(c: &mut Code, read: impl FnOnce(&mut Code, Value) -> Value) {
    let [set, level, index] = c.params();
    let none = |c: &mut Code, _: Error| {
        let zero = c.int(0);
        c.ret(&[zero]);
    };
    let plan = checked_plan(c, set, level, none);
    let count = c.load(I32, plan, plan::STEP_COUNT);
    let is_step = c.b.ins().icmp(IntCC::UnsignedLessThan, index, count);
    c.if_else(is_step, |_| {}, |c| none(c, Error::Index));
    let steps = c.follow(plan, plan::STEPS);
    let index = c.wide(index);
    let row = c.element(steps, index, i64::from(step::SIZE));
    let number = read(c, row);
    c.ret(&[number]);
}

/// Defines `nncc_bounds`.
pub fn define_bounds(builder: &mut Builder, info: &Info) -> Result<(), EmitError> {
    builder.define(info, Fun::Entry(Entry::Bounds), |c| {
        let [set, level, out] = c.params();
        let plan = checked_plan(c, set, level, |c, error| c.ret32(error as i32));
        c.require(out, Error::Null);
        for (field, to) in [
            (plan::ARENA, abi::bounds::ARENA),
            (plan::SCRATCH, abi::bounds::SCRATCH),
            (plan::STACK, abi::bounds::STACK),
            (plan::MACS, abi::bounds::MACS),
        ] {
            let value = c.load(I64, plan, field);
            c.store(value, out, to);
        }
        for (number, to) in [
            (info.code_bytes, abi::bounds::CODE),
            (info.weight_bytes, abi::bounds::WEIGHTS),
            (imports(info.freestanding).len() as u64, abi::bounds::IMPORTS),
        ] {
            let value = c.int(number as i64);
            c.store(value, out, to);
        }
        c.ret32(0);
    })
}
