//! Operands as the families of instructions share them: addresses, vector sources, write masks.

use crate::memory::Memory;
use crate::state::{Lane, State, Vector};
use iced_x86::{Instruction, OpKind, Register};

/// The number of a general-purpose register of 64, 32, 16 or 8 bits and its bytes. Not of `ah` to `bh`, which nobody emits.
pub fn gpr(r: Register) -> Option<(usize, usize)> {
    if !r.is_gpr() || matches!(r, Register::AH | Register::CH | Register::DH | Register::BH) {
        return None;
    }
    // iced counts the bytes al to bl, ah to bh, spl to r15b in this order.
    let above_high_bytes = r.size() == 1 && r.number() >= 4;
    Some((r.number() - if above_high_bytes { 4 } else { 0 }, r.size()))
}

/// The number of a vector register and its bytes.
pub fn vector(r: Register) -> Option<(usize, usize)> {
    r.is_vector_register().then(|| (r.number(), r.size()))
}

/// The number of an opmask register.
pub fn mask(r: Register) -> Option<usize> {
    r.is_k().then(|| r.number())
}

/// The register that is an operand.
pub fn register(i: &Instruction, op: u32) -> Option<Register> {
    (op < i.op_count() && i.op_kind(op) == OpKind::Register).then(|| i.op_register(op))
}

/// The vector register that is an operand: its number and bytes.
pub fn vector_at(i: &Instruction, op: u32) -> Option<(usize, usize)> {
    register(i, op).and_then(vector)
}

/// The immediate of 8 bits that is the last operand.
pub fn imm8(i: &Instruction) -> Option<u8> {
    let last = i.op_count().checked_sub(1)?;
    (i.op_kind(last) == OpKind::Immediate8).then(|| i.immediate8())
}

/// `base + index * scale + displacement`.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    base: Option<usize>,
    index: Option<(usize, u32)>,
    displacement: u64,
}

impl Address {
    /// The memory operand of an instruction: registers of 64 bits, or relative to the instruction.
    pub fn decode(i: &Instruction) -> Option<Address> {
        let wide = |r: Register| if r.is_gpr64() { Some(r.number()) } else { None };
        let index = match i.memory_index() {
            Register::None => None,
            r => Some((wide(r)?, i.memory_index_scale().trailing_zeros())),
        };
        let base = match i.memory_base() {
            // iced gives the target itself as the displacement.
            Register::RIP | Register::None => None,
            r => Some(wide(r)?),
        };
        Some(Address { base, index, displacement: i.memory_displacement64() })
    }

    /// What it is now.
    #[inline(always)]
    pub fn resolve(&self, s: &State) -> u64 {
        let mut at = self.displacement;
        if let Some(r) = self.base {
            at = at.wrapping_add(s.gpr[r]);
        }
        if let Some((r, shift)) = self.index {
            at = at.wrapping_add(s.gpr[r] << shift);
        }
        at
    }
}

/// A vector that is read: a register, memory, or one element of memory in every lane.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// By number.
    Register(usize),
    /// As many bytes as the instruction is wide.
    Memory(Address),
    /// One element.
    Broadcast(Address),
}

impl Source {
    /// The operand at a place.
    pub fn decode(i: &Instruction, op: u32) -> Option<Source> {
        match i.op_kind(op) {
            OpKind::Register => Some(Source::Register(vector(i.op_register(op))?.0)),
            OpKind::Memory if i.is_broadcast() => Some(Source::Broadcast(Address::decode(i)?)),
            OpKind::Memory => Some(Source::Memory(Address::decode(i)?)),
            _ => None,
        }
    }

    /// Its value. Lanes of memory that are not `active` are not read: a mask suppresses their faults.
    #[inline(always)]
    pub fn read(&self, s: &State, m: &Memory, width: usize, elem: usize, active: u64) -> Result<Vector, String> {
        match self {
            Source::Register(r) => Ok(s.vector[*r]),
            Source::Memory(a) => load_lanes(m, a.resolve(s), width, elem, active),
            Source::Broadcast(a) => {
                if active == 0 {
                    return Ok(Vector::ZERO);
                }
                let x = m.load(a.resolve(s), elem)?;
                let mut v = Vector::ZERO;
                match elem {
                    4 => (0..width / 4).for_each(|i| v.set_lane(i, x as u32)),
                    _ => (0..width / elem).for_each(|i| v.set_bits(elem, i, x)),
                }
                Ok(v)
            }
        }
    }
}

/// The bits of `lanes` lanes.
pub fn all_lanes(lanes: usize) -> u64 {
    u64::MAX >> (64 - lanes)
}

/// Loads the active lanes, the others 0.
#[inline(always)]
pub fn load_lanes(m: &Memory, at: u64, width: usize, elem: usize, active: u64) -> Result<Vector, String> {
    let mut v = Vector::ZERO;
    if active == all_lanes(width / elem) {
        v.0[..width].copy_from_slice(m.read(at, width)?);
        return Ok(v);
    }
    for i in (0..width / elem).filter(|i| active >> i & 1 == 1) {
        v.0[i * elem..][..elem].copy_from_slice(m.read(at.wrapping_add((i * elem) as u64), elem)?);
    }
    Ok(v)
}

/// Stores the active lanes.
#[inline(always)]
pub fn store_lanes(m: &mut Memory, at: u64, width: usize, elem: usize, active: u64, v: &Vector) -> Result<(), String> {
    if active == all_lanes(width / elem) {
        m.write(at, width)?.copy_from_slice(&v.0[..width]);
        return Ok(());
    }
    for i in (0..width / elem).filter(|i| active >> i & 1 == 1) {
        m.write(at.wrapping_add((i * elem) as u64), elem)?.copy_from_slice(&v.0[i * elem..][..elem]);
    }
    Ok(())
}

/// A write mask (EVEX); register 0 means none.
#[derive(Clone, Copy, Debug)]
pub struct Masking {
    k: usize,
    /// Whether lanes that are not written become 0; else they stay.
    pub zeroing: bool,
}

impl Masking {
    /// Every lane is written.
    pub const NONE: Masking = Masking { k: 0, zeroing: false };

    /// Of an instruction.
    pub fn decode(i: &Instruction) -> Masking {
        let k = if i.op_mask() == Register::None { 0 } else { i.op_mask().number() };
        Masking { k, zeroing: i.zeroing_masking() }
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.k == 0
    }

    /// The lanes that are written.
    #[inline(always)]
    pub fn active(&self, s: &State, lanes: usize) -> u64 {
        if self.k == 0 { all_lanes(lanes) } else { s.mask[self.k] & all_lanes(lanes) }
    }
}

/// The register that is written: VEX and EVEX clear it beyond the width.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// Its number.
    pub register: usize,
    /// Bytes that are written.
    pub width: usize,
    /// Bytes of a lane of the mask.
    pub elem: usize,
    /// Which lanes.
    pub masking: Masking,
}

impl Destination {
    /// The first operand.
    pub fn decode(i: &Instruction, elem: usize) -> Option<Destination> {
        let (register, width) = vector_at(i, 0)?;
        Some(Destination { register, width, elem, masking: Masking::decode(i) })
    }

    /// The lanes that are written.
    #[inline(always)]
    pub fn active(&self, s: &State) -> u64 {
        self.masking.active(s, self.width / self.elem)
    }

    /// Writes the active lanes of `v`, which is zero beyond the width.
    #[inline(always)]
    pub fn write(&self, s: &mut State, mut v: Vector) {
        if !self.masking.is_none() {
            let (active, old) = (self.active(s), s.vector[self.register]);
            for i in (0..self.width / self.elem).filter(|i| active >> i & 1 == 0) {
                let lane = if self.masking.zeroing { 0 } else { old.bits(self.elem, i) };
                v.set_bits(self.elem, i, lane);
            }
        }
        s.dirty |= self.width > 16 && self.register < 16;
        s.vector[self.register] = v;
    }
}

/// Lane by lane from one vector.
#[inline(always)]
pub fn map1<T: Lane>(width: usize, a: &Vector, f: impl Fn(T) -> T) -> Vector {
    let mut v = Vector::ZERO;
    for i in 0..width / T::BYTES {
        v.set_lane(i, f(a.lane(i)));
    }
    v
}

/// Lane by lane from two vectors.
#[inline(always)]
pub fn map2<T: Lane>(width: usize, a: &Vector, b: &Vector, f: impl Fn(T, T) -> T) -> Vector {
    let mut v = Vector::ZERO;
    for i in 0..width / T::BYTES {
        v.set_lane(i, f(a.lane(i), b.lane(i)));
    }
    v
}

/// Lane by lane from three vectors.
#[inline(always)]
pub fn map3<T: Lane>(width: usize, a: &Vector, b: &Vector, c: &Vector, f: impl Fn(T, T, T) -> T) -> Vector {
    let mut v = Vector::ZERO;
    for i in 0..width / T::BYTES {
        v.set_lane(i, f(a.lane(i), b.lane(i), c.lane(i)));
    }
    v
}
