//! Lanes that change their place: permutations, parts, blends, sign bits, shifts of whole registers by bytes.

use crate::memory::Memory;
use crate::operand::{
    Address, Destination, Masking, Source, all_lanes, gpr, imm8, map2, register, store_lanes, vector_at,
};
use crate::state::{State, Vector};
use iced_x86::{Instruction, Mnemonic, OpKind};

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub enum Permute {
    /// `vpermilps` with a register of indices: each 128 bits on their own.
    Within { to: Destination, from: usize, index: Source },
    /// `vpermps`: any lane of one vector.
    One { to: Destination, index: usize, from: Source },
    /// `vpermt2`: any lane of two vectors, the first of which is overwritten.
    Two { to: Destination, index: usize, from: Source },
    /// Lanes of two vectors in turn, from the lower or the upper half of each 128 bits.
    Interleave { to: Destination, a: usize, b: Source, high: bool },
    /// For each 128 bits of the result, which 128 bits of the first source followed by the second.
    Parts { to: Destination, a: usize, b: Source, parts: [Option<usize>; 4] },
    /// Each 128 bits shifted to the right by bytes.
    ShiftBytes { to: Destination, from: Source, by: usize },
    /// A part of a vector to a register.
    Extract { to: Destination, from: usize, offset: usize },
    /// A part of a vector to memory.
    ExtractToMemory { to: Address, from: usize, offset: usize, bytes: usize, elem: usize, masking: Masking },
    /// A vector with one part replaced.
    Insert { to: Destination, into: usize, part: Source, offset: usize, bytes: usize },
    /// The second source where a mask register says so, else the first.
    BlendByMask { to: Destination, a: usize, b: Source },
    /// The second source where a lane of a vector has its sign bit set, else the first.
    BlendBySign { to: Destination, a: usize, b: Source, signs: usize },
    /// The sign bits of all lanes.
    Signs { to: usize, from: usize, width: usize, elem: usize },
}

impl Permute {
    /// The instruction, if it is of this family.
    pub fn decode(i: &Instruction) -> Option<Permute> {
        use Mnemonic::*;
        match i.mnemonic() {
            Vpermilps if i.op_count() == 3 && imm8(i).is_none() => Some(Permute::Within {
                to: Destination::decode(i, 4)?,
                from: vector_at(i, 1)?.0,
                index: Source::decode(i, 2)?,
            }),
            Vpermps => Some(Permute::One {
                to: Destination::decode(i, 4)?,
                index: vector_at(i, 1)?.0,
                from: Source::decode(i, 2)?,
            }),
            Vpermt2ps => Permute::two(i, 4),
            Vpermt2pd => Permute::two(i, 8),
            Vunpcklps => Permute::interleave(i, 4, false),
            Vunpckhps => Permute::interleave(i, 4, true),
            Vunpcklpd => Permute::interleave(i, 8, false),
            Vunpckhpd => Permute::interleave(i, 8, true),
            Vperm2f128 => Permute::any_two_parts(i),
            Vshuff32x4 => Permute::parts_in_turn(i),
            Vpsrldq => Some(Permute::ShiftBytes {
                to: Destination::decode(i, 1)?,
                from: Source::decode(i, 1)?,
                by: usize::from(imm8(i)?.min(16)),
            }),
            Vextractf128 | Vextractf32x4 => Permute::extract(i, 16, 4),
            Vextractf64x4 => Permute::extract(i, 32, 8),
            Vinsertf128 | Vinsertf32x4 => Permute::insert(i, 16, 4),
            Vinsertf64x4 => Permute::insert(i, 32, 8),
            Vblendmps | Vpblendmd => Permute::by_mask(i, 4),
            Vblendmpd | Vpblendmq => Permute::by_mask(i, 8),
            Vpblendmb => Permute::by_mask(i, 1),
            Vpblendmw => Permute::by_mask(i, 2),
            Vblendvps => Permute::by_sign(i, 4),
            Vblendvpd => Permute::by_sign(i, 8),
            Vpblendvb => Permute::by_sign(i, 1),
            Vmovmskps => Permute::signs(i, 4),
            Vmovmskpd => Permute::signs(i, 8),
            Vpmovmskb => Permute::signs(i, 1),
            _ => None,
        }
    }

    fn two(i: &Instruction, elem: usize) -> Option<Permute> {
        Some(Permute::Two { to: Destination::decode(i, elem)?, index: vector_at(i, 1)?.0, from: Source::decode(i, 2)? })
    }

    fn interleave(i: &Instruction, elem: usize, high: bool) -> Option<Permute> {
        let to = Destination::decode(i, elem)?;
        Some(Permute::Interleave { to, a: vector_at(i, 1)?.0, b: Source::decode(i, 2)?, high })
    }

    /// Each half of the result has two bits that choose among four parts, and one, two bits further, that clears it.
    fn any_two_parts(i: &Instruction) -> Option<Permute> {
        let how = usize::from(imm8(i)?);
        let part = |shift: usize| (how >> shift & 8 == 0).then_some(how >> shift & 3);
        let (to, a, b) = (Destination::decode(i, 4)?, vector_at(i, 1)?.0, Source::decode(i, 2)?);
        Some(Permute::Parts { to, a, b, parts: [part(0), part(4), None, None] })
    }

    /// The lower half of the result has parts of the first source, the upper half of the second.
    fn parts_in_turn(i: &Instruction) -> Option<Permute> {
        let (to, a, b) = (Destination::decode(i, 4)?, vector_at(i, 1)?.0, Source::decode(i, 2)?);
        let (how, count) = (usize::from(imm8(i)?), to.width / 16);
        let bits = count.trailing_zeros() as usize;
        let part = |n: usize| (how >> (n * bits) & (count - 1)) + if n < count / 2 { 0 } else { count };
        Some(Permute::Parts { to, a, b, parts: std::array::from_fn(|n| (n < count).then(|| part(n))) })
    }

    fn extract(i: &Instruction, bytes: usize, elem: usize) -> Option<Permute> {
        let (from, width) = vector_at(i, 1)?;
        // The immediate's low bits count parts; the others are ignored.
        let offset = usize::from(imm8(i)?) % (width / bytes) * bytes;
        if i.op_kind(0) == OpKind::Memory {
            let (to, masking) = (Address::decode(i)?, Masking::decode(i));
            return Some(Permute::ExtractToMemory { to, from, offset, bytes, elem, masking });
        }
        Some(Permute::Extract { to: Destination::decode(i, elem)?, from, offset })
    }

    fn insert(i: &Instruction, bytes: usize, elem: usize) -> Option<Permute> {
        let to = Destination::decode(i, elem)?;
        let offset = usize::from(imm8(i)?) % (to.width / bytes) * bytes;
        Some(Permute::Insert { to, into: vector_at(i, 1)?.0, part: Source::decode(i, 2)?, offset, bytes })
    }

    fn by_mask(i: &Instruction, elem: usize) -> Option<Permute> {
        let to = Destination::decode(i, elem)?;
        Some(Permute::BlendByMask { to, a: vector_at(i, 1)?.0, b: Source::decode(i, 2)? })
    }

    fn by_sign(i: &Instruction, elem: usize) -> Option<Permute> {
        let (to, signs) = (Destination::decode(i, elem)?, vector_at(i, 3)?.0);
        Some(Permute::BlendBySign { to, a: vector_at(i, 1)?.0, b: Source::decode(i, 2)?, signs })
    }

    fn signs(i: &Instruction, elem: usize) -> Option<Permute> {
        let (from, width) = vector_at(i, 1)?;
        Some(Permute::Signs { to: gpr(register(i, 0)?)?.0, from, width, elem })
    }

    /// Executes it.
    pub fn execute(&self, s: &mut State, m: &mut Memory) -> Result<(), String> {
        match self {
            Permute::Within { to, from, index } => {
                let index = index.read(s, m, to.width, 4, to.active(s))?;
                let mut v = Vector::ZERO;
                for i in 0..to.width / 4 {
                    let lane = (i & !3) + (index.lane::<u32>(i) & 3) as usize;
                    v.set_lane(i, s.vector[*from].lane::<u32>(lane));
                }
                to.write(s, v);
            }
            Permute::One { to, index, from } => {
                let lanes = to.width / to.elem;
                let from = from.read(s, m, to.width, to.elem, all_lanes(lanes))?;
                let v = gathered(to, &s.vector[*index], lanes, |n| from.bits(to.elem, n));
                to.write(s, v);
            }
            Permute::Two { to, index, from } => {
                let lanes = to.width / to.elem;
                let second = from.read(s, m, to.width, to.elem, all_lanes(lanes))?;
                let first = s.vector[to.register];
                let v = gathered(to, &s.vector[*index], 2 * lanes, |n| match n.checked_sub(lanes) {
                    None => first.bits(to.elem, n),
                    Some(n) => second.bits(to.elem, n),
                });
                to.write(s, v);
            }
            Permute::Interleave { to, a, b, high } => {
                let lanes = 16 / to.elem;
                let b = b.read(s, m, to.width, to.elem, all_lanes(to.width / to.elem))?;
                let mut v = Vector::ZERO;
                for i in 0..to.width / to.elem {
                    let from = i / lanes * lanes + i % lanes / 2 + if *high { lanes / 2 } else { 0 };
                    let source = if i % 2 == 0 { &s.vector[*a] } else { &b };
                    v.set_bits(to.elem, i, source.bits(to.elem, from));
                }
                to.write(s, v);
            }
            Permute::Parts { to, a, b, parts } => {
                let b = b.read(s, m, to.width, to.elem, all_lanes(to.width / to.elem))?;
                let count = to.width / 16;
                let mut v = Vector::ZERO;
                for (n, part) in parts.iter().enumerate().take(count) {
                    let Some(part) = part else { continue };
                    let source = if *part < count { &s.vector[*a] } else { &b };
                    let from = part % count * 16;
                    v.0[n * 16..(n + 1) * 16].copy_from_slice(&source.0[from..from + 16]);
                }
                to.write(s, v);
            }
            Permute::ShiftBytes { to, from, by } => {
                let from = from.read(s, m, to.width, 1, all_lanes(to.width))?;
                let mut v = Vector::ZERO;
                for part in (0..to.width).step_by(16) {
                    v.0[part..part + 16 - by].copy_from_slice(&from.0[part + by..part + 16]);
                }
                to.write(s, v);
            }
            Permute::Extract { to, from, offset } => {
                let mut v = Vector::ZERO;
                v.0[..to.width].copy_from_slice(&s.vector[*from].0[*offset..offset + to.width]);
                to.write(s, v);
            }
            Permute::ExtractToMemory { to, from, offset, bytes, elem, masking } => {
                let mut v = Vector::ZERO;
                v.0[..*bytes].copy_from_slice(&s.vector[*from].0[*offset..offset + bytes]);
                store_lanes(m, to.resolve(s), *bytes, *elem, masking.active(s, bytes / elem), &v)?;
            }
            Permute::Insert { to, into, part, offset, bytes } => {
                let part = part.read(s, m, *bytes, to.elem, all_lanes(bytes / to.elem))?;
                let mut v = Vector::ZERO;
                v.0[..to.width].copy_from_slice(&s.vector[*into].0[..to.width]);
                v.0[*offset..offset + bytes].copy_from_slice(&part.0[..*bytes]);
                to.write(s, v);
            }
            Permute::BlendByMask { to, a, b } => {
                let active = to.active(s);
                let b = b.read(s, m, to.width, to.elem, active)?;
                let mut v = Vector::ZERO;
                for i in 0..to.width / to.elem {
                    let lane = match active >> i & 1 {
                        1 => b.bits(to.elem, i),
                        // What merges is the first source, not the old destination.
                        _ if to.masking.zeroing => 0,
                        _ => s.vector[*a].bits(to.elem, i),
                    };
                    v.set_bits(to.elem, i, lane);
                }
                Destination { masking: Masking::NONE, ..*to }.write(s, v);
            }
            Permute::BlendBySign { to, a, b, signs } => {
                let b = b.read(s, m, to.width, to.elem, all_lanes(to.width / to.elem))?;
                let (a, signs) = (&s.vector[*a], &s.vector[*signs]);
                let v = match to.elem {
                    1 => by_signs::<u8>(to.width, a, &b, signs),
                    4 => by_signs::<u32>(to.width, a, &b, signs),
                    _ => by_signs::<u64>(to.width, a, &b, signs),
                };
                to.write(s, v);
            }
            Permute::Signs { to, from, width, elem } => {
                let v = &s.vector[*from];
                s.gpr[*to] = (0..width / elem).map(|i| u64::from(v.0[(i + 1) * elem - 1] >> 7) << i).sum();
            }
        }
        Ok(())
    }
}

/// The lanes that indices below `range` (a power of two) choose.
fn gathered(to: &Destination, index: &Vector, range: usize, lane: impl Fn(usize) -> u64) -> Vector {
    let mut v = Vector::ZERO;
    for i in 0..to.width / to.elem {
        let n = index.bits(to.elem, i) as usize & (range - 1);
        v.set_bits(to.elem, i, lane(n));
    }
    v
}

fn by_signs<T: crate::state::Lane>(width: usize, a: &Vector, b: &Vector, signs: &Vector) -> Vector {
    let mut v = map2::<T>(width, a, b, |a, _| a);
    for i in 0..width / T::BYTES {
        if signs.0[(i + 1) * T::BYTES - 1] >> 7 == 1 {
            v.set_lane::<T>(i, b.lane(i));
        }
    }
    v
}
