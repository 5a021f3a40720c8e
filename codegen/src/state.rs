//! States: what a model that learns keeps from run to run, as one block of memory that is its own file format.
//!
//! ```text
//! block     header | state 0 | state 1 | ..            each at a multiple of 64 bytes, row-major, zeros in between
//! header    magic u64 | version u32 | 0 u32 | bytes of the block u64 | hash u64 | seed i64 | steps i64 | 0 ..     64 bytes
//! ```
//!
//! The graph of a training step has a state's value among its inputs and its next value among its outputs, and [`bind`] makes
//! both one place in the block: a plan for a graph with such pairs ([`nncc_ir::Graph::add_state`]) is right whether the two are
//! one or not. What is left are the model's ports. The input of seed and number of the step is two numbers of the header.
//!
//! A block holds no address and all that a step changes: it is copied, written to a file and read again as it is. The hash is
//! over names, types, shapes and roles in order, so that a block of another model, or of another way to train this one, is
//! known by its header.

use crate::program::{Arg, ConstId, MAX_ALIGN, Port, Program, Purpose, ShapeSet};
use nncc_ir::Constant;

/// The first eight bytes of a block, `nnccstat`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"nnccstat");

/// The version of the block's format.
pub const FORMAT: u32 = 1;

/// Fields of the header.
pub mod header {
    #![allow(missing_docs, reason = "offsets; drawn above")]
    pub const MAGIC: i32 = 0;
    pub const VERSION: i32 = 8;
    pub const BYTES: i32 = 16;
    pub const HASH: i32 = 24;
    pub const SEED: i32 = 32;
    pub const STEPS: i32 = 40;
    pub const SIZE: i32 = 64;
}

/// What a state is. The numbers are those of the C ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A weight of the model.
    Parameter = 0,
    /// A running mean or variance of the model.
    Statistic = 1,
    /// What the optimizer remembers.
    Moment = 2,
    /// The moving average of a parameter.
    Average = 3,
    /// The sum of a parameter's gradients since the last update.
    Gradient = 4,
}

/// A state of a program.
#[derive(Clone, Debug)]
pub struct State {
    /// Name, type and shape.
    pub port: Port,
    /// What it is.
    pub role: Role,
    /// Where it lies in the block.
    pub offset: usize,
    /// What it is before the first step.
    pub initial: Initial,
}

/// A state's value before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// A copy of a constant, row-major.
    Const(ConstId),
    /// These eight bytes, repeated: one element or several.
    Splat([u8; 8]),
}

/// A state as its maker knows it.
#[derive(Clone, Debug)]
pub struct StateSource {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its value before the first step, with its type and shape.
    pub initial: Constant,
}

/// What an input of a set's graph becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputUse {
    /// An input of the model.
    Port,
    /// The value of a state, by its number.
    State(usize),
    /// Seed and number of the step, i64\[2\].
    SeedAndSteps,
    /// Nothing: no kernel reads it.
    Unused,
}

/// What the inputs and outputs of a set's graph become, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// What the set is run for.
    pub purpose: Purpose,
    /// The inputs.
    pub inputs: Vec<InputUse>,
    /// Of each output the state whose next value it is; `None` for an output of the model.
    pub outputs: Vec<Option<usize>>,
}

/// Bytes of the block; `None` when it cannot be addressed.
pub fn block_bytes(states: &[State]) -> Option<usize> {
    match states.last() {
        Some(last) => last.port.bytes()?.checked_add(last.offset)?.checked_next_multiple_of(MAX_ALIGN),
        None => Some(0),
    }
}

/// By what a block of these states is known: 64-bit FNV-1a of a line for each.
pub fn hash(states: &[State]) -> u64 {
    let lines = states.iter().map(|s| {
        let Port { name, dtype, shape } = &s.port;
        format!("{name}\0{}{shape:?} {}\n", dtype.name(), s.role as u32)
    });
    lines.fold(0xcbf2_9ce4_8422_2325, |hash, line| {
        line.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    })
}

/// Gives each state its place in the block; `constant` takes a value into the program. `None` when the block cannot be addressed.
pub fn lay_out(sources: &[StateSource], constant: &mut dyn FnMut(Constant) -> ConstId) -> Option<Vec<State>> {
    let mut end = header::SIZE as usize;
    let mut states = Vec::with_capacity(sources.len());
    for source in sources {
        let value = &source.initial;
        let port = Port { name: source.name.clone(), dtype: value.dtype(), shape: value.dims().to_vec() };
        let initial = match value.splat_value() {
            Some(one) => {
                let bytes = one.to_bytes();
                let mut pattern = [0; 8];
                pattern.iter_mut().zip(bytes.iter().cycle()).for_each(|(to, &from)| *to = from);
                Initial::Splat(pattern)
            }
            None => Initial::Const(constant(value.clone())),
        };
        let offset = end.checked_next_multiple_of(MAX_ALIGN)?;
        end = offset.checked_add(port.bytes()?)?;
        states.push(State { port, role: source.role, offset, initial });
    }
    block_bytes(&states).map(|_| states)
}

/// Makes inputs and outputs of a lowered set places in the block, and renumbers those that are left.
pub fn bind(set: &mut ShapeSet, binding: &Binding, states: &[State]) {
    set.purpose = binding.purpose;
    let place = |state: usize| Arg::State(states[state].offset);
    let mut left = 0..;
    let inputs = binding.inputs.iter().map(|input| match *input {
        InputUse::Port => Arg::Input(left.next().unwrap_or(0), 0),
        InputUse::State(state) => place(state),
        InputUse::SeedAndSteps | InputUse::Unused => Arg::State(header::SEED as usize),
    });
    let inputs: Vec<Arg> = inputs.collect();
    let mut left = 0..;
    let outputs = binding.outputs.iter().map(|output| match *output {
        None => Arg::Output(left.next().unwrap_or(0), 0),
        Some(state) => place(state),
    });
    let outputs: Vec<Arg> = outputs.collect();
    for arg in set.levels.iter_mut().flat_map(|plan| &mut plan.steps).flat_map(|step| &mut step.args) {
        *arg = match *arg {
            Arg::Input(i, offset) => inputs[i as usize].plus(offset),
            Arg::Output(i, offset) => outputs[i as usize].plus(offset),
            other => other,
        };
    }
    let mut uses = inputs.iter();
    set.inputs.retain(|_| matches!(uses.next(), Some(Arg::Input(..))));
    let mut uses = outputs.iter();
    set.outputs.retain(|_| matches!(uses.next(), Some(Arg::Output(..))));
}

/// Checks the states of a program: each behind the one before it, at its alignment, with a value of its size.
pub fn verify(program: &Program) -> Result<(), String> {
    let mut end = header::SIZE as usize;
    for State { port, offset, initial, .. } in &program.states {
        let name = &port.name;
        let Some(bytes) = port.bytes() else { return Err(format!("\"{name}\" does not fit in memory")) };
        if *offset < end || offset % MAX_ALIGN != 0 {
            return Err(format!("\"{name}\" at {offset}, behind {end}"));
        }
        end = offset.checked_add(bytes).ok_or_else(|| format!("\"{name}\" ends beyond memory"))?;
        let fits = match initial {
            Initial::Splat(_) => true,
            Initial::Const(id) => program.consts.get(id.0 as usize).is_some_and(|c| c.data.len() == bytes),
        };
        if !fits {
            return Err(format!("\"{name}\" of {bytes} bytes begins with a constant of another size"));
        }
    }
    match block_bytes(&program.states) {
        Some(_) => Ok(()),
        None => Err("the block ends beyond memory".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nncc_ir::{DType, Tensor};

    fn sources() -> Vec<StateSource> {
        let w = Constant::from_tensor(&Tensor::f32(&[3], vec![1.0, 2.0, 3.0]));
        let zeros = Constant::splat(&Tensor::f32(&[], vec![0.5]), &[40]).expect("one element");
        let source =
            |name: &str, role, initial: &Constant| StateSource { name: name.into(), role, initial: initial.clone() };
        vec![source("w", Role::Parameter, &w), source("m/w", Role::Moment, &zeros), source("b", Role::Parameter, &w)]
    }

    #[test]
    fn states_lie_behind_each_other_and_repeated_numbers_take_no_constant() {
        let mut taken = 0;
        let states = lay_out(&sources(), &mut |_| {
            taken += 1;
            ConstId(taken - 1)
        });
        let states = states.expect("small");
        assert_eq!(states.iter().map(|s| s.offset).collect::<Vec<_>>(), [64, 128, 320]);
        assert_eq!((taken, block_bytes(&states)), (2, Some(384)));
        let half = 0.5f32.to_le_bytes();
        assert_eq!(states[1].initial, Initial::Splat([half, half].concat().try_into().expect("eight bytes")));
    }

    #[test]
    fn the_hash_tells_names_types_shapes_and_roles() {
        let of = |sources: &[StateSource]| hash(&lay_out(sources, &mut |_| ConstId(0)).expect("small"));
        let plain = of(&sources());
        let changed = |change: fn(&mut StateSource)| {
            let mut sources = sources();
            change(&mut sources[1]);
            of(&sources)
        };
        let shape = |s: &mut StateSource| s.initial = s.initial.reshaped(&[5, 8]).expect("as many");
        for other in [changed(|s| s.name.push('x')), changed(shape), changed(|s| s.role = Role::Average)] {
            assert_ne!(other, plain);
        }
        let value =
            |s: &mut StateSource| s.initial = Constant::splat(&Tensor::f32(&[], vec![7.0]), &[40]).expect("one");
        assert_eq!(changed(value), plain, "the values of another run are no other model");
        assert_ne!(of(&sources()[..2]), plain);
    }

    #[test]
    fn inputs_and_outputs_become_places_in_the_block() {
        let states = lay_out(&sources(), &mut |_| ConstId(0)).expect("small");
        let port = |name: &str| Port { name: name.into(), dtype: DType::F32, shape: vec![3] };
        let args = vec![Arg::Input(0, 4), Arg::Input(1, 4), Arg::Input(2, 0), Arg::Output(0, 8), Arg::Output(1, 8)];
        let step = crate::program::Step::bare("", "", crate::program::KernelId(0), args, 1);
        let plan = crate::program::LevelPlan {
            level: crate::target::Level::Aarch64,
            steps: vec![step],
            arena_bytes: 0,
            scratch_bytes: 0,
        };
        let mut set = ShapeSet {
            purpose: Purpose::Infer,
            inputs: ["seed", "w", "x"].map(port).to_vec(),
            outputs: ["next/w", "y"].map(port).to_vec(),
            levels: vec![plan],
        };
        let binding = Binding {
            purpose: Purpose::Step,
            inputs: vec![InputUse::SeedAndSteps, InputUse::State(2), InputUse::Port],
            outputs: vec![Some(2), None],
        };
        bind(&mut set, &binding, &states);
        let names = |ports: &[Port]| ports.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        assert_eq!((names(&set.inputs), names(&set.outputs)), (vec!["x".to_string()], vec!["y".to_string()]));
        let want = [Arg::State(36), Arg::State(324), Arg::Input(0, 0), Arg::State(328), Arg::Output(0, 8)];
        assert_eq!((set.levels[0].steps[0].args.as_slice(), set.purpose), (&want[..], Purpose::Step));
    }
}
