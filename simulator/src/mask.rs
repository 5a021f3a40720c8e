//! Opmask registers: all operations are on 64 bits, the only width that is emitted.

use crate::memory::Memory;
use crate::operand::{Address, Destination, gpr, mask, register};
use crate::state::{State, Vector};
use iced_x86::{Instruction, Mnemonic, OpKind};

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub enum Mask {
    /// To an opmask register from one, or from a general-purpose one.
    Copy {
        to: usize,
        from: usize,
    },
    FromGpr {
        to: usize,
        from: usize,
    },
    ToGpr {
        to: usize,
        from: usize,
    },
    Load {
        to: usize,
        from: Address,
    },
    Store {
        to: Address,
        from: usize,
    },
    Not {
        to: usize,
        a: usize,
    },
    And {
        to: usize,
        a: usize,
        b: usize,
    },
    Or {
        to: usize,
        a: usize,
        b: usize,
    },
    Xor {
        to: usize,
        a: usize,
        b: usize,
    },
    /// `vpmovm2`: lanes all ones or zero.
    ToVector {
        to: Destination,
        from: usize,
    },
}

impl Mask {
    /// The instruction, if it is of this family.
    pub fn decode(i: &Instruction) -> Option<Mask> {
        use Mnemonic::*;
        let k = |op| register(i, op).and_then(mask);
        match i.mnemonic() {
            Kmovq => match (i.op_kind(0), i.op_kind(1)) {
                (OpKind::Memory, _) => Some(Mask::Store { to: Address::decode(i)?, from: k(1)? }),
                (_, OpKind::Memory) => Some(Mask::Load { to: k(0)?, from: Address::decode(i)? }),
                _ => match (k(0), k(1)) {
                    (Some(to), Some(from)) => Some(Mask::Copy { to, from }),
                    (Some(to), None) => Some(Mask::FromGpr { to, from: gpr(i.op_register(1))?.0 }),
                    (None, Some(from)) => Some(Mask::ToGpr { to: gpr(i.op_register(0))?.0, from }),
                    (None, None) => None,
                },
            },
            Knotq => Some(Mask::Not { to: k(0)?, a: k(1)? }),
            Kandq => Some(Mask::And { to: k(0)?, a: k(1)?, b: k(2)? }),
            Korq => Some(Mask::Or { to: k(0)?, a: k(1)?, b: k(2)? }),
            Kxorq => Some(Mask::Xor { to: k(0)?, a: k(1)?, b: k(2)? }),
            Vpmovm2b => Some(Mask::ToVector { to: Destination::decode(i, 1)?, from: k(1)? }),
            Vpmovm2w => Some(Mask::ToVector { to: Destination::decode(i, 2)?, from: k(1)? }),
            Vpmovm2d => Some(Mask::ToVector { to: Destination::decode(i, 4)?, from: k(1)? }),
            Vpmovm2q => Some(Mask::ToVector { to: Destination::decode(i, 8)?, from: k(1)? }),
            _ => None,
        }
    }

    /// Executes it.
    pub fn execute(&self, s: &mut State, m: &mut Memory) -> Result<(), String> {
        match *self {
            Mask::Copy { to, from } => s.mask[to] = s.mask[from],
            Mask::FromGpr { to, from } => s.mask[to] = s.gpr[from],
            Mask::ToGpr { to, from } => s.gpr[to] = s.mask[from],
            Mask::Load { to, from } => s.mask[to] = m.load(from.resolve(s), 8)?,
            Mask::Store { to, from } => m.store(to.resolve(s), 8, s.mask[from])?,
            Mask::Not { to, a } => s.mask[to] = !s.mask[a],
            Mask::And { to, a, b } => s.mask[to] = s.mask[a] & s.mask[b],
            Mask::Or { to, a, b } => s.mask[to] = s.mask[a] | s.mask[b],
            Mask::Xor { to, a, b } => s.mask[to] = s.mask[a] ^ s.mask[b],
            Mask::ToVector { to, from } => {
                let mut v = Vector::ZERO;
                for i in 0..to.width / to.elem {
                    v.set_bits(to.elem, i, if s.mask[from] >> i & 1 == 1 { u64::MAX } else { 0 });
                }
                to.write(s, v);
            }
        }
        Ok(())
    }
}
