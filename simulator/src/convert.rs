//! Conversions between element types, and comparison of scalars to flags. Operands are registers: nothing is folded into one.

use crate::float::{Float, narrow, to_i32, to_i64, widen};
use crate::memory::Memory;
use crate::operand::{Destination, gpr, register, vector_at};
use crate::state::{Flags, State, Vector};
use iced_x86::{Instruction, Mnemonic};

/// What happens to a lane's bits.
#[derive(Clone, Copy, Debug)]
enum Op {
    SignExtend,
    ZeroExtend,
    /// The low bits.
    Narrow,
    I32ToF32,
    U32ToF32,
    I32ToF64,
    I64ToF64,
    F32ToI32,
    F32ToF64,
    F64ToF32,
}

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub enum Convert {
    /// Vectors.
    Lanes(Lanes),
    /// An integer of 64 bits to a float in the first lane, the others from a second vector.
    FromGpr { to: usize, from: usize, upper: usize, elem: usize },
    /// The first lane, truncated to an integer of 64 bits.
    ToGpr { to: usize, from: usize, elem: usize },
    /// Flags from the first lanes.
    Compare { a: usize, b: usize, elem: usize },
}

/// Lane by lane; the sizes may differ.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    op: Op,
    from: usize,
    from_bytes: usize,
    lanes: usize,
    to: Destination,
}

impl Convert {
    /// The instruction, if it is of this family.
    pub fn decode(i: &Instruction) -> Option<Convert> {
        use Mnemonic::*;
        let (op, from_bytes, to_bytes) = match i.mnemonic() {
            Vpmovsxbw => (Op::SignExtend, 1, 2),
            Vpmovsxbd => (Op::SignExtend, 1, 4),
            Vpmovsxbq => (Op::SignExtend, 1, 8),
            Vpmovsxwd => (Op::SignExtend, 2, 4),
            Vpmovsxwq => (Op::SignExtend, 2, 8),
            Vpmovsxdq => (Op::SignExtend, 4, 8),
            Vpmovzxbw => (Op::ZeroExtend, 1, 2),
            Vpmovzxbd => (Op::ZeroExtend, 1, 4),
            Vpmovzxbq => (Op::ZeroExtend, 1, 8),
            Vpmovzxwd => (Op::ZeroExtend, 2, 4),
            Vpmovzxwq => (Op::ZeroExtend, 2, 8),
            Vpmovzxdq => (Op::ZeroExtend, 4, 8),
            Vpmovwb => (Op::Narrow, 2, 1),
            Vpmovdb => (Op::Narrow, 4, 1),
            Vpmovdw => (Op::Narrow, 4, 2),
            Vpmovqb => (Op::Narrow, 8, 1),
            Vpmovqw => (Op::Narrow, 8, 2),
            Vpmovqd => (Op::Narrow, 8, 4),
            Vcvtdq2ps => (Op::I32ToF32, 4, 4),
            Vcvtudq2ps => (Op::U32ToF32, 4, 4),
            Vcvtdq2pd => (Op::I32ToF64, 4, 8),
            Vcvtqq2pd => (Op::I64ToF64, 8, 8),
            Vcvttps2dq => (Op::F32ToI32, 4, 4),
            Vcvtps2pd => (Op::F32ToF64, 4, 8),
            Vcvtpd2ps => (Op::F64ToF32, 8, 4),
            Vcvtsi2ss => return Convert::from_gpr(i, 4),
            Vcvtsi2sd => return Convert::from_gpr(i, 8),
            Vcvttss2si => return Convert::to_gpr(i, 4),
            Vcvttsd2si => return Convert::to_gpr(i, 8),
            Vucomiss => return Some(Convert::Compare { a: vector_at(i, 0)?.0, b: vector_at(i, 1)?.0, elem: 4 }),
            Vucomisd => return Some(Convert::Compare { a: vector_at(i, 0)?.0, b: vector_at(i, 1)?.0, elem: 8 }),
            _ => return None,
        };
        let (mut to, (from, from_width)) = (Destination::decode(i, to_bytes)?, vector_at(i, 1)?);
        // The wider side is the instruction's width; the other has as many lanes in a shorter register.
        let lanes = (from_width / from_bytes).min(to.width / to_bytes);
        to.width = lanes * to_bytes;
        Some(Convert::Lanes(Lanes { op, from, from_bytes, lanes, to }))
    }

    fn from_gpr(i: &Instruction, elem: usize) -> Option<Convert> {
        let (from, 8) = gpr(register(i, 2)?)? else { return None };
        Some(Convert::FromGpr { to: vector_at(i, 0)?.0, upper: vector_at(i, 1)?.0, from, elem })
    }

    fn to_gpr(i: &Instruction, elem: usize) -> Option<Convert> {
        let (to, 8) = gpr(register(i, 0)?)? else { return None };
        Some(Convert::ToGpr { to, from: vector_at(i, 1)?.0, elem })
    }

    /// Executes it.
    pub fn execute(&self, s: &mut State, _: &mut Memory) -> Result<(), String> {
        match self {
            Convert::Lanes(l) => {
                let source = s.vector[l.from];
                let mut v = Vector::ZERO;
                for i in 0..l.lanes {
                    v.set_bits(l.to.elem, i, l.op.lane(source.bits(l.from_bytes, i), l.from_bytes));
                }
                l.to.write(s, v);
            }
            Convert::FromGpr { to, from, upper, elem } => {
                let x = s.gpr[*from] as i64;
                let mut v = Vector::ZERO;
                v.0[..16].copy_from_slice(&s.vector[*upper].0[..16]);
                match elem {
                    4 => v.set_lane(0, (x as f32).to_bits()),
                    _ => v.set_lane(0, (x as f64).to_bits()),
                }
                s.vector[*to] = v;
            }
            Convert::ToGpr { to, from, elem } => s.gpr[*to] = to_i64(first(s, *from, *elem)),
            Convert::Compare { a, b, elem } => {
                let (a, b) = (first(s, *a, *elem), first(s, *b, *elem));
                s.flags = Flags::new(if a.is_nan() || b.is_nan() {
                    Flags::ZF | Flags::PF | Flags::CF
                } else if a < b {
                    Flags::CF
                } else if a == b {
                    Flags::ZF
                } else {
                    0
                });
            }
        }
        Ok(())
    }
}

/// The first lane as a number.
fn first(s: &State, register: usize, elem: usize) -> f64 {
    let v = &s.vector[register];
    if elem == 4 { f64::from(f32::from_bits(v.lane(0))) } else { f64::from_bits(v.lane(0)) }
}

impl Op {
    fn lane(self, x: u64, bytes: usize) -> u64 {
        let low = x as u32;
        match self {
            Op::SignExtend => {
                let shift = 64 - 8 * bytes;
                (((x << shift) as i64) >> shift) as u64
            }
            Op::ZeroExtend | Op::Narrow => x,
            Op::I32ToF32 => u64::from((low as i32 as f32).to_bits()),
            Op::U32ToF32 => u64::from((low as f32).to_bits()),
            Op::I32ToF64 => f64::from(low as i32).to_bits(),
            Op::I64ToF64 => (x as i64 as f64).to_bits(),
            Op::F32ToI32 => {
                let integer = if low.is_nan() { 1 << 31 } else { to_i32(f64::from(f32::from_bits(low))) };
                u64::from(integer)
            }
            Op::F32ToF64 => widen(low),
            Op::F64ToF32 => u64::from(narrow(x)),
        }
    }
}
