//! Arithmetic and comparison lane by lane: all lanes of one size, the result where the operands were.

use crate::float::Float;
use crate::memory::Memory;
use crate::operand::{Destination, Masking, Source, imm8, map1, map2, map3, mask, register, vector_at};
use crate::state::{State, Vector};
use iced_x86::{Instruction, Mnemonic};

/// What happens in each lane.
#[derive(Clone, Copy, Debug)]
enum Op {
    FAdd,
    FSub,
    FMul,
    FDiv,
    FMin,
    FMax,
    FSqrt,
    FRound(u8),
    /// `dst * b + a`
    Fma132,
    /// `a * dst + b`
    Fma213,
    /// `a * b + dst`
    Fma231,
    FCompare(u8),
    Add,
    Sub,
    MulLow,
    MinS,
    MaxS,
    MinU,
    MaxU,
    And,
    AndNot,
    Or,
    Xor,
    /// Shifts by the amount in the other operand's lane; beyond the width nothing is left, or the sign.
    Shl,
    ShrU,
    ShrS,
    /// Shifts by an immediate.
    ShlBy(u8),
    ShrUBy(u8),
    ShrSBy(u8),
    Equal,
    GreaterS,
    CompareS(u8),
    CompareU(u8),
}

/// Where it goes.
#[derive(Clone, Copy, Debug)]
enum To {
    Vector(Destination),
    /// An opmask register: one bit a lane, those that the write mask leaves out 0.
    Mask {
        k: usize,
        width: usize,
        masking: Masking,
    },
}

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    op: Op,
    elem: usize,
    to: To,
    /// The first source; for an instruction with one source it is not used.
    a: usize,
    /// The last source.
    b: Source,
}

impl Packed {
    /// The instruction, if it is of this family.
    pub fn decode(i: &Instruction) -> Option<Packed> {
        use Mnemonic::*;
        let imm = imm8(i);
        let (op, elem) = match i.mnemonic() {
            Vaddps => (Op::FAdd, 4),
            Vsubps => (Op::FSub, 4),
            Vmulps => (Op::FMul, 4),
            Vdivps => (Op::FDiv, 4),
            Vminps => (Op::FMin, 4),
            Vmaxps => (Op::FMax, 4),
            Vsqrtps => (Op::FSqrt, 4),
            Vfmadd132ps => (Op::Fma132, 4),
            Vfmadd213ps => (Op::Fma213, 4),
            Vfmadd231ps => (Op::Fma231, 4),
            Vaddpd => (Op::FAdd, 8),
            Vsubpd => (Op::FSub, 8),
            Vmulpd => (Op::FMul, 8),
            Vdivpd => (Op::FDiv, 8),
            Vminpd => (Op::FMin, 8),
            Vmaxpd => (Op::FMax, 8),
            Vsqrtpd => (Op::FSqrt, 8),
            Vfmadd132pd => (Op::Fma132, 8),
            Vfmadd213pd => (Op::Fma213, 8),
            Vfmadd231pd => (Op::Fma231, 8),
            // No scaling (the high half of the immediate), the mode from the immediate and not from MXCSR (bit 2).
            Vroundps | Vrndscaleps => (Op::FRound(imm.filter(|m| m & 0xf4 == 0)? & 3), 4),
            Vroundpd | Vrndscalepd => (Op::FRound(imm.filter(|m| m & 0xf4 == 0)? & 3), 8),
            Vcmpps => (Op::FCompare(imm.filter(|p| *p < 32)?), 4),
            Vcmppd => (Op::FCompare(imm.filter(|p| *p < 32)?), 8),
            Vpaddb => (Op::Add, 1),
            Vpaddw => (Op::Add, 2),
            Vpaddd => (Op::Add, 4),
            Vpaddq => (Op::Add, 8),
            Vpsubb => (Op::Sub, 1),
            Vpsubw => (Op::Sub, 2),
            Vpsubd => (Op::Sub, 4),
            Vpsubq => (Op::Sub, 8),
            Vpmullw => (Op::MulLow, 2),
            Vpmulld => (Op::MulLow, 4),
            Vpmullq => (Op::MulLow, 8),
            Vpminsb => (Op::MinS, 1),
            Vpminsw => (Op::MinS, 2),
            Vpminsd => (Op::MinS, 4),
            Vpminsq => (Op::MinS, 8),
            Vpmaxsb => (Op::MaxS, 1),
            Vpmaxsw => (Op::MaxS, 2),
            Vpmaxsd => (Op::MaxS, 4),
            Vpmaxsq => (Op::MaxS, 8),
            Vpminub => (Op::MinU, 1),
            Vpminuw => (Op::MinU, 2),
            Vpminud => (Op::MinU, 4),
            Vpminuq => (Op::MinU, 8),
            Vpmaxub => (Op::MaxU, 1),
            Vpmaxuw => (Op::MaxU, 2),
            Vpmaxud => (Op::MaxU, 4),
            Vpmaxuq => (Op::MaxU, 8),
            Vandps | Vpandd => (Op::And, 4),
            Vandnps | Vpandnd => (Op::AndNot, 4),
            Vorps | Vpord => (Op::Or, 4),
            Vxorps | Vpxord => (Op::Xor, 4),
            Vpsllvw => (Op::Shl, 2),
            Vpsllvd => (Op::Shl, 4),
            Vpsllvq => (Op::Shl, 8),
            Vpsrlvw => (Op::ShrU, 2),
            Vpsrlvd => (Op::ShrU, 4),
            Vpsrlvq => (Op::ShrU, 8),
            Vpsravw => (Op::ShrS, 2),
            Vpsravd => (Op::ShrS, 4),
            Vpsravq => (Op::ShrS, 8),
            Vpslld => (Op::ShlBy(imm?), 4),
            Vpsllq => (Op::ShlBy(imm?), 8),
            Vpsrld => (Op::ShrUBy(imm?), 4),
            Vpsrlq => (Op::ShrUBy(imm?), 8),
            Vpsrad => (Op::ShrSBy(imm?), 4),
            Vpcmpeqb => (Op::Equal, 1),
            Vpcmpeqw => (Op::Equal, 2),
            Vpcmpeqd => (Op::Equal, 4),
            Vpcmpeqq => (Op::Equal, 8),
            Vpcmpgtb => (Op::GreaterS, 1),
            Vpcmpgtw => (Op::GreaterS, 2),
            Vpcmpgtd => (Op::GreaterS, 4),
            Vpcmpgtq => (Op::GreaterS, 8),
            Vpcmpb => (Op::CompareS(imm.filter(|p| *p < 8)?), 1),
            Vpcmpw => (Op::CompareS(imm.filter(|p| *p < 8)?), 2),
            Vpcmpd => (Op::CompareS(imm.filter(|p| *p < 8)?), 4),
            Vpcmpq => (Op::CompareS(imm.filter(|p| *p < 8)?), 8),
            Vpcmpub => (Op::CompareU(imm.filter(|p| *p < 8)?), 1),
            Vpcmpuw => (Op::CompareU(imm.filter(|p| *p < 8)?), 2),
            Vpcmpud => (Op::CompareU(imm.filter(|p| *p < 8)?), 4),
            Vpcmpuq => (Op::CompareU(imm.filter(|p| *p < 8)?), 8),
            _ => return None,
        };
        let sources = i.op_count() - 1 - u32::from(imm.is_some());
        let (a, b) = match sources {
            1 => (0, Source::decode(i, 1)?),
            2 => (vector_at(i, 1)?.0, Source::decode(i, 2)?),
            _ => return None,
        };
        let to = match register(i, 0).and_then(mask) {
            Some(k) => To::Mask { k, width: vector_at(i, 1)?.1, masking: Masking::decode(i) },
            None => To::Vector(Destination::decode(i, elem)?),
        };
        Some(Packed { op, elem, to, a, b })
    }

    /// Executes it.
    #[inline]
    pub fn execute(&self, s: &mut State, m: &mut Memory) -> Result<(), String> {
        let (width, active) = match &self.to {
            To::Vector(to) => (to.width, to.active(s)),
            To::Mask { width, masking, .. } => (*width, masking.active(s, width / self.elem)),
        };
        let b = self.b.read(s, m, width, self.elem, active)?;
        match &self.to {
            To::Vector(to) => {
                let v = match self.elem {
                    1 => self.int::<u8>(s, width, to, &b)?,
                    2 => self.int::<u16>(s, width, to, &b)?,
                    4 => self.float_or_int::<u32>(s, width, to, &b)?,
                    _ => self.float_or_int::<u64>(s, width, to, &b)?,
                };
                to.write(s, v);
            }
            To::Mask { k, .. } => {
                let bits = match self.elem {
                    1 => self.compared::<u8>(s, width, &b, |_, _| None)?,
                    2 => self.compared::<u16>(s, width, &b, |_, _| None)?,
                    4 => self.compared::<u32>(s, width, &b, |x, y| self.float_compare(x, y))?,
                    _ => self.compared::<u64>(s, width, &b, |x, y| self.float_compare(x, y))?,
                };
                s.mask[*k] = bits & active;
            }
        }
        Ok(())
    }

    fn float_compare<F: Float>(&self, x: F, y: F) -> Option<bool> {
        match self.op {
            Op::FCompare(p) => Some(x.compare(y, p)),
            _ => None,
        }
    }

    /// One bit a lane, of what `float` does not compare as integers.
    fn compared<T: Int>(
        &self,
        s: &State,
        width: usize,
        b: &Vector,
        float: impl Fn(T, T) -> Option<bool>,
    ) -> Result<u64, String> {
        let mut bits = 0;
        for i in 0..width / T::BYTES {
            let (x, y): (T, T) = (s.vector[self.a].lane(i), b.lane(i));
            let holds = match self.op {
                Op::CompareS(p) => int_predicate(x.signed().cmp(&y.signed()), p),
                Op::CompareU(p) => int_predicate(x.unsigned().cmp(&y.unsigned()), p),
                _ => float(x, y).ok_or("no comparison gives a mask of this")?,
            };
            bits |= u64::from(holds) << i;
        }
        Ok(bits)
    }

    #[inline(always)]
    fn float_or_int<T: Int + Float>(
        &self,
        s: &State,
        width: usize,
        to: &Destination,
        b: &Vector,
    ) -> Result<Vector, String> {
        let (a, dst) = (&s.vector[self.a], &s.vector[to.register]);
        Ok(match self.op {
            // The order of the operands decides which NaN is the result.
            Op::Fma231 => map3::<T>(width, a, b, dst, |a, b, dst| a.fma(b, dst)),
            Op::Fma213 => map3::<T>(width, a, b, dst, |a, b, dst| a.fma(dst, b)),
            Op::Fma132 => map3::<T>(width, a, b, dst, |a, b, dst| dst.fma(b, a)),
            Op::FAdd => map2::<T>(width, a, b, T::add),
            Op::FSub => map2::<T>(width, a, b, T::sub),
            Op::FMul => map2::<T>(width, a, b, T::mul),
            Op::FDiv => map2::<T>(width, a, b, T::div),
            Op::FMin => map2::<T>(width, a, b, Float::min),
            Op::FMax => map2::<T>(width, a, b, Float::max),
            Op::FSqrt => map1::<T>(width, b, T::sqrt),
            Op::FRound(mode) => map1::<T>(width, b, |x| x.round(mode)),
            Op::FCompare(p) => map2::<T>(width, a, b, |x, y| T::all_if(x.compare(y, p))),
            _ => return self.int::<T>(s, width, to, b),
        })
    }

    fn int<T: Int>(&self, s: &State, width: usize, to: &Destination, b: &Vector) -> Result<Vector, String> {
        let a = &s.vector[self.a];
        let bits = T::BYTES as u64 * 8;
        let shift = |x: T, n: u64, right: Option<bool>| match right {
            None if n < bits => T::of(x.unsigned() << n),
            Some(false) if n < bits => T::of(x.unsigned() >> n),
            Some(true) => T::of((x.signed() >> Ord::min(n, 63)) as u64),
            _ => T::of(0),
        };
        // The immediate forms have one source: it is the last.
        let by = |n: u8, right| map1::<T>(width, b, |x| shift(x, u64::from(n), right));
        Ok(match self.op {
            Op::Add => map2::<T>(width, a, b, |x, y| T::of(x.unsigned().wrapping_add(y.unsigned()))),
            Op::Sub => map2::<T>(width, a, b, |x, y| T::of(x.unsigned().wrapping_sub(y.unsigned()))),
            Op::MulLow => map2::<T>(width, a, b, |x, y| T::of(x.unsigned().wrapping_mul(y.unsigned()))),
            Op::MinS => map2::<T>(width, a, b, |x, y| if x.signed() < y.signed() { x } else { y }),
            Op::MaxS => map2::<T>(width, a, b, |x, y| if x.signed() > y.signed() { x } else { y }),
            Op::MinU => map2::<T>(width, a, b, |x, y| if x.unsigned() < y.unsigned() { x } else { y }),
            Op::MaxU => map2::<T>(width, a, b, |x, y| if x.unsigned() > y.unsigned() { x } else { y }),
            Op::And => map2::<T>(width, a, b, |x, y| T::of(x.unsigned() & y.unsigned())),
            Op::AndNot => map2::<T>(width, a, b, |x, y| T::of(!x.unsigned() & y.unsigned())),
            Op::Or => map2::<T>(width, a, b, |x, y| T::of(x.unsigned() | y.unsigned())),
            Op::Xor => map2::<T>(width, a, b, |x, y| T::of(x.unsigned() ^ y.unsigned())),
            Op::Shl => map2::<T>(width, a, b, |x, n| shift(x, n.unsigned(), None)),
            Op::ShrU => map2::<T>(width, a, b, |x, n| shift(x, n.unsigned(), Some(false))),
            Op::ShrS => map2::<T>(width, a, b, |x, n| shift(x, n.unsigned(), Some(true))),
            Op::ShlBy(n) => by(n, None),
            Op::ShrUBy(n) => by(n, Some(false)),
            Op::ShrSBy(n) => by(n, Some(true)),
            Op::Equal => map2::<T>(width, a, b, |x, y| T::all_if(x == y)),
            Op::GreaterS => map2::<T>(width, a, b, |x, y| T::all_if(x.signed() > y.signed())),
            _ => return Err(format!("{:?} of lanes of {} bytes to {}", self.op, T::BYTES, to.register)),
        })
    }
}

/// `vpcmp`'s predicates, of what `a.cmp(&b)` gives.
fn int_predicate(order: std::cmp::Ordering, predicate: u8) -> bool {
    match predicate {
        0 => order.is_eq(),
        1 => order.is_lt(),
        2 => order.is_le(),
        3 => false,
        4 => order.is_ne(),
        5 => order.is_ge(),
        6 => order.is_gt(),
        _ => true,
    }
}

/// Lanes as integers.
trait Int: crate::state::Lane {
    fn unsigned(self) -> u64;
    fn signed(self) -> i64;
    /// The low bits.
    fn of(x: u64) -> Self;

    /// All ones or zero.
    fn all_if(holds: bool) -> Self {
        Self::of(if holds { u64::MAX } else { 0 })
    }
}

macro_rules! ints {
    ($($unsigned:ty, $signed:ty;)*) => {
        $(impl Int for $unsigned {
            #[inline(always)]
            fn unsigned(self) -> u64 {
                u64::from(self)
            }

            #[inline(always)]
            fn signed(self) -> i64 {
                i64::from(self as $signed)
            }

            #[inline(always)]
            fn of(x: u64) -> Self {
                x as $unsigned
            }
        })*
    };
}

ints! {
    u8, i8;
    u16, i16;
    u32, i32;
    u64, i64;
}
