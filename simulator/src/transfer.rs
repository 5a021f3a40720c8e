//! Moves that change no lane: loads, stores, copies, broadcasts, and between the register files.

use crate::memory::Memory;
use crate::operand::{Address, Destination, Masking, gpr, load_lanes, register, store_lanes, vector_at};
use crate::state::{State, Vector};
use iced_x86::{Instruction, Mnemonic, OpKind};

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub enum Transfer {
    /// A vector from memory, the lanes of the write mask alone.
    Load { to: Destination, from: Address },
    /// A vector to memory, the lanes of the write mask alone.
    Store { to: Address, from: usize, width: usize, elem: usize, masking: Masking },
    /// A vector to a vector register.
    Copy { to: Destination, from: usize },
    /// `vmaskmov`: the lanes whose sign bit is set in another vector, the others 0.
    LoadSigned { to: Destination, from: Address, signs: usize },
    /// `vmaskmov`: those lanes to memory.
    StoreSigned { to: Address, from: usize, signs: usize, width: usize, elem: usize },
    /// An element of memory in every lane.
    BroadcastMemory { to: Destination, from: Address },
    /// The first lane in every lane.
    BroadcastVector { to: Destination, from: usize },
    /// The low bits of a general-purpose register in every lane.
    BroadcastGpr { to: Destination, from: usize },
    /// The low bytes of a general-purpose register, the rest 0.
    GprToVector { to: usize, from: usize, bytes: usize },
    /// The low bytes of memory, the rest 0.
    LoadLow { to: usize, from: Address, bytes: usize },
    /// The low bytes to a general-purpose register, zero-extended.
    VectorToGpr { to: usize, from: usize, bytes: usize },
    /// The low bytes to memory.
    StoreLow { to: Address, from: usize, bytes: usize },
    /// Clears the upper parts of registers 0 to 15.
    ZeroUpper,
    /// Has no effect that a program can see.
    Prefetch,
}

impl Transfer {
    /// The instruction, if it is of this family.
    pub fn decode(i: &Instruction) -> Option<Transfer> {
        use Mnemonic::*;
        match i.mnemonic() {
            Vmovups => moved(i, 4),
            Vmovupd => moved(i, 8),
            Vmovdqu8 => moved(i, 1),
            Vmovdqu16 => moved(i, 2),
            // Between registers only: memory would have to be aligned.
            Vmovaps if i.op_kind(0) == OpKind::Register && i.op_kind(1) == OpKind::Register => moved(i, 4),
            Vmaskmovps => sign_masked(i, 4),
            Vmaskmovpd => sign_masked(i, 8),
            Vbroadcastss => broadcast(i, 4),
            Vbroadcastsd => broadcast(i, 8),
            Vpbroadcastb => broadcast(i, 1),
            Vpbroadcastw => broadcast(i, 2),
            Vpbroadcastd => broadcast(i, 4),
            Vpbroadcastq => broadcast(i, 8),
            Vmovd => low(i, 4),
            Vmovq => low(i, 8),
            Vzeroupper => Some(Transfer::ZeroUpper),
            Prefetcht1 => Some(Transfer::Prefetch),
            _ => None,
        }
    }

    /// Executes it.
    #[inline]
    pub fn execute(&self, s: &mut State, m: &mut Memory) -> Result<(), String> {
        match self {
            Transfer::Load { to, from } => {
                let v = load_lanes(m, from.resolve(s), to.width, to.elem, to.active(s))?;
                to.write(s, v);
            }
            Transfer::Store { to, from, width, elem, masking } => {
                let active = masking.active(s, width / elem);
                store_lanes(m, to.resolve(s), *width, *elem, active, &s.vector[*from])?;
            }
            Transfer::Copy { to, from } => {
                let mut v = Vector::ZERO;
                v.0[..to.width].copy_from_slice(&s.vector[*from].0[..to.width]);
                to.write(s, v);
            }
            Transfer::LoadSigned { to, from, signs } => {
                let active = signs_of(&s.vector[*signs], to.width, to.elem);
                let v = load_lanes(m, from.resolve(s), to.width, to.elem, active)?;
                to.write(s, v);
            }
            Transfer::StoreSigned { to, from, signs, width, elem } => {
                let active = signs_of(&s.vector[*signs], *width, *elem);
                store_lanes(m, to.resolve(s), *width, *elem, active, &s.vector[*from])?;
            }
            Transfer::BroadcastMemory { to, from } => {
                let x = if to.active(s) == 0 { 0 } else { m.load(from.resolve(s), to.elem)? };
                splat(s, to, x);
            }
            Transfer::BroadcastVector { to, from } => {
                let x = s.vector[*from].bits(to.elem, 0);
                splat(s, to, x);
            }
            Transfer::BroadcastGpr { to, from } => {
                let x = s.gpr[*from];
                splat(s, to, x);
            }
            Transfer::GprToVector { to, from, bytes } => {
                let x = s.gpr[*from];
                set_low(s, *to, *bytes, x);
            }
            Transfer::LoadLow { to, from, bytes } => {
                let x = m.load(from.resolve(s), *bytes)?;
                set_low(s, *to, *bytes, x);
            }
            Transfer::VectorToGpr { to, from, bytes } => s.gpr[*to] = s.vector[*from].bits(*bytes, 0),
            Transfer::StoreLow { to, from, bytes } => {
                m.store(to.resolve(s), *bytes, s.vector[*from].bits(*bytes, 0))?;
            }
            Transfer::ZeroUpper => {
                s.vector[..16].iter_mut().for_each(|v| v.0[16..].fill(0));
                s.dirty = false;
            }
            Transfer::Prefetch => {}
        }
        Ok(())
    }
}

fn splat(s: &mut State, to: &Destination, x: u64) {
    let mut v = Vector::ZERO;
    for i in 0..to.width / to.elem {
        v.set_bits(to.elem, i, x);
    }
    to.write(s, v);
}

fn set_low(s: &mut State, to: usize, bytes: usize, x: u64) {
    s.vector[to] = Vector::ZERO;
    s.vector[to].set_bits(bytes, 0, x);
}

/// The lanes whose sign bit is set.
fn signs_of(v: &Vector, width: usize, elem: usize) -> u64 {
    (0..width / elem).map(|i| u64::from(v.0[(i + 1) * elem - 1] >> 7) << i).sum()
}

fn moved(i: &Instruction, elem: usize) -> Option<Transfer> {
    match (i.op_kind(0), i.op_kind(1)) {
        (OpKind::Register, OpKind::Register) => {
            Some(Transfer::Copy { to: Destination::decode(i, elem)?, from: vector_at(i, 1)?.0 })
        }
        (OpKind::Register, OpKind::Memory) => {
            Some(Transfer::Load { to: Destination::decode(i, elem)?, from: Address::decode(i)? })
        }
        (OpKind::Memory, OpKind::Register) => {
            let (from, width) = vector_at(i, 1)?;
            Some(Transfer::Store { to: Address::decode(i)?, from, width, elem, masking: Masking::decode(i) })
        }
        _ => None,
    }
}

fn sign_masked(i: &Instruction, elem: usize) -> Option<Transfer> {
    let signs = vector_at(i, 1)?.0;
    if i.op_kind(0) == OpKind::Memory {
        let (from, width) = vector_at(i, 2)?;
        return Some(Transfer::StoreSigned { to: Address::decode(i)?, from, signs, width, elem });
    }
    Some(Transfer::LoadSigned { to: Destination::decode(i, elem)?, from: Address::decode(i)?, signs })
}

fn broadcast(i: &Instruction, elem: usize) -> Option<Transfer> {
    let to = Destination::decode(i, elem)?;
    match register(i, 1) {
        None => Some(Transfer::BroadcastMemory { to, from: Address::decode(i)? }),
        Some(r) if r.is_vector_register() => Some(Transfer::BroadcastVector { to, from: vector_at(i, 1)?.0 }),
        Some(r) => Some(Transfer::BroadcastGpr { to, from: gpr(r)?.0 }),
    }
}

/// `vmovd`, `vmovq` with a general-purpose register or memory. (Of two vector registers it is another instruction.)
fn low(i: &Instruction, bytes: usize) -> Option<Transfer> {
    match (register(i, 0), register(i, 1)) {
        (Some(to), Some(from)) if to.is_vector_register() && from.is_gpr() => {
            Some(Transfer::GprToVector { to: to.number(), from: gpr(from)?.0, bytes })
        }
        (Some(to), Some(from)) if to.is_gpr() && from.is_vector_register() => {
            Some(Transfer::VectorToGpr { to: gpr(to)?.0, from: from.number(), bytes })
        }
        (Some(to), None) if to.is_vector_register() => {
            Some(Transfer::LoadLow { to: to.number(), from: Address::decode(i)?, bytes })
        }
        (None, Some(from)) if from.is_vector_register() => {
            Some(Transfer::StoreLow { to: Address::decode(i)?, from: from.number(), bytes })
        }
        _ => None,
    }
}
