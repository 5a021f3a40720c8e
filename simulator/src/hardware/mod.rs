//! The simulator against the CPU: one instruction at a time, all outputs compared bit for bit.
//!
//! [`check`] takes a decoded function, reduces each of its instructions to its form (`form.rs`), and validates each form that was
//! not seen before in this process: some hundred register files full of special values (`values.rs`) go through the simulator and
//! through a trampoline on the CPU. A test suite that hands over every function that it simulates thereby leaves no form
//! unvalidated that its CPU has; which it lacks, the coverage says.
//!
//! Jumps and calls, and what moves the stack pointer by pushing, are not run alone: [`crate::machine`] checks what they must
//! keep. Conditional jumps are.

mod form;
mod trampoline;
mod values;

use crate::memory::{Access, CODE, Memory};
use crate::program::{Program, text};
use crate::state::{Flags, State, Vector};
use form::Form;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use trampoline::{Block, Trampoline};
use values::Values;

/// Register files that each form is run on.
const TRIALS: usize = 192;

/// What became of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The CPU and the simulator agree.
    Agrees,
    /// This CPU does not have the instruction.
    NotHere,
    /// They differ, in this.
    Differs(String),
}

static VERDICTS: Mutex<BTreeMap<String, Verdict>> = Mutex::new(BTreeMap::new());

/// Validates every form of a function.
///
/// # Errors
/// The form and the difference, where the CPU does something else than the simulator.
pub fn check(program: &Program) -> Result<(), String> {
    for i in program.instructions() {
        let Some(form) = Form::of(i) else { continue };
        let mut verdicts = VERDICTS.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = verdicts.entry(form.name.clone()).or_insert_with(|| verdict(&form));
        if let Verdict::Differs(how) = verdict {
            return Err(format!("{}: {how}", form.name));
        }
    }
    Ok(())
}

/// The forms that were checked so far, with what became of them.
pub fn checked() -> BTreeMap<String, Verdict> {
    VERDICTS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn verdict(form: &Form) -> Verdict {
    if !form.is_here() {
        return Verdict::NotHere;
    }
    match form.code().and_then(|code| first_difference(&code, &code, &form.name)) {
        Ok(None) => Verdict::Agrees,
        Ok(Some(how)) | Err(how) => Verdict::Differs(how),
    }
}

/// Whether one instruction in the simulator can be told from another on the CPU: what this module's own test asks. `None`
/// where the CPU lacks the latter.
pub fn differ(simulated: &[u8], on_cpu: &[u8]) -> Option<bool> {
    let mut decoder = iced_x86::Decoder::new(64, on_cpu, iced_x86::DecoderOptions::NONE);
    Form::of(&decoder.decode()).filter(Form::is_here)?;
    Some(!matches!(first_difference(simulated, on_cpu, "pair"), Ok(None)))
}

/// The first register file after which the simulator, with one piece of code, and the CPU, with another, differ.
fn first_difference(simulated: &[u8], on_cpu: &[u8], seed: &str) -> Result<Option<String>, String> {
    let mut alone = simulated.to_vec();
    alone.push(0xc3); // ret: where the simulator stops
    let program = Program::decode(&alone).map_err(|e| e.to_string())?;
    let trampoline = Trampoline::new(on_cpu)?;
    let mut values = Values::new(seed);
    for _ in 0..TRIALS {
        if let Some(how) = difference(&program, &trampoline, &values.block())? {
            return Ok(Some(how));
        }
    }
    Ok(None)
}

/// Runs one register file through both.
fn difference(program: &Program, trampoline: &Trampoline, before: &Block) -> Result<Option<String>, String> {
    let mut memory = Memory::new();
    let at = memory.add(before.memory.to_vec(), Access::ReadWrite);
    let mut s =
        State { gpr: before.gpr, vector: before.vector, mask: before.mask, flags: flags(before.rflags), dirty: false };
    s.gpr[form::POINTER] = at + trampoline::POINTED as u64;
    match program.run_alone(&mut memory, &mut s) {
        Ok(()) => {}
        // What would trap is not run; kernels are checked to avoid it where they are simulated.
        Err(what) if what.starts_with("#DE") => return Ok(None),
        Err(what) => return Err(what),
    }
    let after = trampoline.run(before);
    Ok(compare(before, &after, &s, memory.contents(at)))
}

fn flags(rflags: u64) -> Flags {
    let set = Flags::RFLAGS.into_iter().filter(|(_, bit)| rflags & bit != 0);
    Flags::new(set.map(|(flag, _)| flag).sum())
}

fn compare(before: &Block, after: &Block, s: &State, memory: &[u8]) -> Option<String> {
    for r in (0..16).filter(|r| !trampoline::RESERVED.contains(r) && *r != form::POINTER) {
        if after.gpr[r] != s.gpr[r] {
            return Some(format!("register {r}: CPU {:#x}, simulator {:#x}, was {before:?}", after.gpr[r], s.gpr[r]));
        }
    }
    let differing = (flags(after.rflags).value ^ s.flags.value) & s.flags.defined;
    if differing != 0 {
        return Some(format!("flags: CPU {:#x}, simulator {:?}, was {before:?}", after.rflags, s.flags));
    }
    let have = trampoline::vectors();
    for (r, v) in s.vector.iter().enumerate().take(have.count) {
        let (cpu, own) = (&after.vector[r].0[..have.bytes], &v.0[..have.bytes]);
        if cpu != own {
            return Some(format!("vector {r}: CPU {cpu:02x?}, simulator {own:02x?}, was {before:?}"));
        }
    }
    if have.masks && after.mask[1..] != s.mask[1..] {
        return Some(format!("masks: CPU {:x?}, simulator {:x?}, was {before:?}", after.mask, s.mask));
    }
    if after.memory[..] != *memory {
        return Some(format!("memory: CPU {:02x?}, simulator {memory:02x?}, was {before:?}", after.memory));
    }
    None
}

impl Program {
    /// Runs to the return, which pops nothing, with these registers.
    fn run_alone(&self, memory: &mut Memory, s: &mut State) -> Result<(), String> {
        memory.replace(CODE, self.bytes.clone());
        let fault = |(at, what): (usize, String)| match what.starts_with("#DE") {
            true => what,
            false => format!("{}: {what}", text(&self.instructions()[at])),
        };
        crate::machine::run(self, memory, s, 16).map(drop).map_err(fault)
    }
}

impl Vector {
    /// The bytes as numbers of 32 bits: how messages show it.
    fn words(&self) -> [u32; 16] {
        std::array::from_fn(|i| self.lane(i))
    }
}
