//! Calls: a decoded function with arguments in registers, as the System V convention has it.
//!
//! Checked besides what the instructions do: every access lies in a region; no more stack is used than the caller allows; at
//! the return the stack pointer, the return address and the preserved registers are what they were, and no upper part of a
//! vector register is left dirty (`vzeroupper` was executed where it was due).

use crate::integer::holds;
use crate::memory::{CODE, Memory, STACK};
use crate::program::{Program, Step, text};
use crate::state::{CALLEE_SAVED, RSP, State};

/// What went wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {offset:#x}, {instruction}: {what}")]
pub struct Fault {
    /// Of the instruction, from the beginning of the code.
    pub offset: u64,
    /// As text.
    pub instruction: String,
    /// In words.
    pub what: String,
}

/// How much a call may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of stack below the return address.
    pub stack: usize,
    /// Instructions: a function that loops for ever ends.
    pub instructions: u64,
}

/// Where functions return to: no region begins there.
const RETURN: u64 = 0x5e70_5e70;

/// Calls a function with up to four integer arguments; gives the number of instructions executed.
///
/// # Errors
/// See the top of this file.
pub fn call(program: &Program, memory: &mut Memory, arguments: [u64; 4], limits: Limits) -> Result<u64, Fault> {
    memory.replace(CODE, program.bytes.clone());
    memory.replace(STACK, vec![0xff; limits.stack + 8]);
    let mut s = State::unspecified();
    // rdi, rsi, rdx, rcx
    for (r, x) in [7, 6, 2, 1].into_iter().zip(arguments) {
        s.gpr[r] = x;
    }
    // No more is promised of its alignment than 8: a function with a frame aligns that itself.
    let top = STACK + limits.stack as u64;
    s.gpr[RSP] = top;
    let before = s.clone();
    let result = memory.store(top, 8, RETURN).map_err(|what| (0, what));
    let result = result.and_then(|()| run(program, memory, &mut s, limits.instructions));
    let result = result.and_then(|executed| match left_as_found(memory, &s, &before) {
        Ok(()) => Ok(executed),
        Err(what) => Err((program.steps.len() - 1, what)),
    });
    memory.replace(STACK, Vec::new());
    result.map_err(|(at, what)| {
        let i = &program.instructions()[at];
        Fault { offset: i.ip() - CODE, instruction: text(i), what }
    })
}

/// Runs from the entry to the return, which pops nothing here; gives the number of instructions executed, or what went
/// wrong at which step.
pub(crate) fn run(program: &Program, m: &mut Memory, s: &mut State, limit: u64) -> Result<u64, (usize, String)> {
    let mut at = 0;
    for executed in 1..=limit {
        let result = match &program.steps[at] {
            Step::Packed(x) => x.execute(s, m),
            Step::Integer(x) => x.execute(s, m),
            Step::Transfer(x) => x.execute(s, m),
            Step::Convert(x) => x.execute(s, m),
            Step::Permute(x) => x.execute(s, m),
            Step::Mask(x) => x.execute(s, m),
            Step::Jump(to) => {
                at = *to;
                continue;
            }
            Step::Branch(condition, to) => match holds(s, *condition) {
                Ok(true) => {
                    at = *to;
                    continue;
                }
                other => other.map(drop),
            },
            Step::Return => return Ok(executed),
        };
        if let Err(what) = result {
            return Err((at, what));
        }
        at += 1;
    }
    Err((at, format!("still running after {limit} instructions")))
}

fn left_as_found(memory: &Memory, s: &State, before: &State) -> Result<(), String> {
    if s.gpr[RSP] != before.gpr[RSP] {
        return Err(format!("rsp is off by {}", s.gpr[RSP].wrapping_sub(before.gpr[RSP]) as i64));
    }
    if memory.load(s.gpr[RSP], 8)? != RETURN {
        return Err("the return address was overwritten".into());
    }
    for r in CALLEE_SAVED {
        if s.gpr[r] != before.gpr[r] {
            return Err(format!("register {r} is not preserved"));
        }
    }
    if s.dirty {
        return Err("upper parts of vector registers are left dirty".into());
    }
    Ok(())
}
