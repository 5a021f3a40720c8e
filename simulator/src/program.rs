//! Bytes to steps: what can be reached from the first byte, each instruction decoded once.
//!
//! Decoding follows the branches, so that the constants behind the code are never taken for instructions. What is not
//! known, by its mnemonic or in its operands, is an error that names it: nothing is skipped or guessed.

use crate::convert::Convert;
use crate::integer::Integer;
use crate::mask::Mask;
use crate::memory::CODE;
use crate::packed::Packed;
use crate::permute::Permute;
use crate::transfer::Transfer;
use iced_x86::{
    ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register, RoundingControl,
};
use std::collections::BTreeMap;

/// An instruction that the simulator does not execute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {offset:#x}: the simulator does not know {text} ({form})")]
pub struct Unknown {
    /// From the beginning of the code.
    pub offset: u64,
    /// As text.
    pub text: String,
    /// iced's name of the form.
    pub form: String,
}

/// A decoded function.
#[derive(Clone, Debug)]
pub struct Program {
    /// Code and constants.
    pub(crate) bytes: Vec<u8>,
    /// In the order of their addresses; the entry is the first.
    pub(crate) steps: Vec<Step>,
    instructions: Vec<Instruction>,
}

/// One decoded instruction. Indices are of steps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Integer(Integer),
    Packed(Packed),
    Transfer(Transfer),
    Convert(Convert),
    Permute(Permute),
    Mask(Mask),
    Jump(usize),
    Branch(ConditionCode, usize),
    Return,
}

/// What can be reached from the first byte of `bytes`, by address, as if the code lay at `at`.
///
/// # Errors
/// Bytes that are no instruction, a branch to somewhere inside of one, or out of the bytes.
pub fn reachable(bytes: &[u8], at: u64) -> Result<BTreeMap<u64, Instruction>, Unknown> {
    let mut found: BTreeMap<u64, Instruction> = BTreeMap::new();
    let mut open = vec![at];
    while let Some(ip) = open.pop() {
        if found.contains_key(&ip) {
            continue;
        }
        let unknown = |text: String, i: &Instruction| Unknown {
            offset: ip.wrapping_sub(at),
            text,
            form: format!("{:?}", i.code()),
        };
        let rest = bytes.get(ip.wrapping_sub(at) as usize..).filter(|rest| !rest.is_empty());
        let rest = rest.ok_or_else(|| unknown("what lies outside of the code".into(), &Instruction::default()))?;
        let i = Decoder::with_ip(64, rest, ip, DecoderOptions::NONE).decode();
        if i.is_invalid() {
            return Err(unknown(format!("bytes {:02x?}", &rest[..rest.len().min(8)]), &i));
        }
        let inside = found.range(..i.next_ip()).next_back().is_some_and(|(_, other)| other.next_ip() > ip);
        if inside {
            return Err(unknown(format!("{i}, which overlaps another instruction"), &i));
        }
        match i.flow_control() {
            // Where a call goes is another function's business, and `syscall` counts as one.
            FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => open.push(i.next_ip()),
            FlowControl::UnconditionalBranch if i.op0_kind() == OpKind::NearBranch64 => {
                open.push(i.near_branch_target());
            }
            FlowControl::ConditionalBranch => open.extend([i.next_ip(), i.near_branch_target()]),
            // `ud2`: behind a call that does not come back.
            FlowControl::Return | FlowControl::Exception => {}
            _ => return Err(unknown(text(&i), &i)),
        }
        found.insert(ip, i);
    }
    Ok(found)
}

/// An instruction as text.
pub fn text(i: &Instruction) -> String {
    use iced_x86::Formatter;
    let mut out = String::new();
    let mut formatter = iced_x86::NasmFormatter::new();
    formatter.options_mut().set_rip_relative_addresses(true);
    formatter.format(i, &mut out);
    out
}

impl Program {
    /// Decodes a function that begins at the first byte, with its constants behind it.
    ///
    /// # Errors
    /// Something in it that the simulator does not know.
    pub fn decode(bytes: &[u8]) -> Result<Program, Unknown> {
        let found = reachable(bytes, CODE)?;
        let instructions: Vec<Instruction> = found.values().copied().collect();
        let index = |ip: u64| instructions.binary_search_by_key(&ip, Instruction::ip).ok();
        let mut steps = Vec::with_capacity(instructions.len());
        for (n, i) in instructions.iter().enumerate() {
            // The step after this one must be the instruction behind it, where control can go on to that.
            let goes_on = !matches!(i.flow_control(), FlowControl::Return | FlowControl::UnconditionalBranch);
            let follows = !goes_on || index(i.next_ip()) == Some(n + 1);
            match step(i, &index).filter(|_| follows) {
                Some(step) => steps.push(step),
                None => {
                    let (offset, form) = (i.ip() - CODE, format!("{:?}", i.code()));
                    return Err(Unknown { offset, text: text(i), form });
                }
            }
        }
        Ok(Program { bytes: bytes.to_vec(), steps, instructions })
    }

    /// Its instructions, by address.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }
}

fn step(i: &Instruction, index: &impl Fn(u64) -> Option<usize>) -> Option<Step> {
    let prefixed = i.has_lock_prefix() || i.has_rep_prefix() || i.has_repne_prefix();
    let rounds = i.rounding_control() != RoundingControl::None || i.suppress_all_exceptions();
    if prefixed || rounds || i.segment_prefix() != Register::None || i.is_vsib() {
        return None;
    }
    match i.flow_control() {
        FlowControl::Call | FlowControl::IndirectCall | FlowControl::Exception => return None,
        FlowControl::Return => return (i.mnemonic() == Mnemonic::Ret && i.op_count() == 0).then_some(Step::Return),
        FlowControl::UnconditionalBranch => return index(i.near_branch_target()).map(Step::Jump),
        FlowControl::ConditionalBranch => {
            let condition = Some(i.condition_code()).filter(|_| i.is_jcc_short_or_near())?;
            return index(i.near_branch_target()).map(|to| Step::Branch(condition, to));
        }
        _ => {}
    }
    // Each family knows its mnemonics, which are disjoint.
    Integer::decode(i)
        .map(Step::Integer)
        .or_else(|| Packed::decode(i).map(Step::Packed))
        .or_else(|| Transfer::decode(i).map(Step::Transfer))
        .or_else(|| Convert::decode(i).map(Step::Convert))
        .or_else(|| Permute::decode(i).map(Step::Permute))
        .or_else(|| Mask::decode(i).map(Step::Mask))
}
