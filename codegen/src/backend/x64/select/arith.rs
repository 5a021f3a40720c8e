//! Arithmetic of vectors and of scalar floats.
//!
//! Scalar floats use the 128-bit packed forms: their other lanes are unspecified, and a result there is nobody's.

use super::super::inst::{Opnd, VEC, Width};
use super::super::table::VecOp;
use super::{Select, Unsupported, VecSrc, by_float};
use crate::kir::{BinaryOp, Elem, FloatCc, Type, UnaryOp, Value};
use regalloc2::VReg;

impl Select<'_> {
    fn elem(&self, ty: Type) -> Elem {
        ty.elem().unwrap_or(Elem::I64)
    }

    pub(super) fn mul_add(&mut self, ty: Type, a: Value, b: Value, c: Value) -> Result<VReg, Unsupported> {
        let (e, w) = (self.elem(ty), self.width(ty)?);
        // What folds into memory decides the form: an addend makes it 213 (a Horner step), a factor 231 (an accumulation).
        if self.folds(c) && !self.folds(a) && !self.folds(b) {
            let (x, y, z) = (self.vec(a)?, self.vec(b)?, self.vec_src(c, true)?);
            // Both factors may be tied; one that dies here costs no copy.
            let (tied, other) = if self.usage[a.index()].uses <= self.usage[b.index()].uses { (x, y) } else { (y, x) };
            return Ok(self.fma(by_float(e, VecOp::Fmadd213Ps, VecOp::Fmadd213Pd), w, tied, other, z));
        }
        let (a, b) = if self.folds(a) && !self.folds(b) { (b, a) } else { (a, b) };
        let (x, z) = (self.vec(a)?, self.vec(c)?);
        let y = self.vec_src(b, true)?;
        Ok(self.fma(by_float(e, VecOp::Fmadd231Ps, VecOp::Fmadd231Pd), w, z, x, y))
    }

    fn fma(&mut self, op: VecOp, w: Width, tied: VReg, middle: VReg, last: VecSrc) -> VReg {
        let to = self.reg(VEC);
        let ops = [Opnd::Tied { to, from: tied, view: w.into() }, Opnd::Use(middle, w.into()), last.opnd(w)];
        self.op(op.code(w, self.evex), &ops);
        to
    }

    pub(super) fn vec_unary(&mut self, ty: Type, op: UnaryOp, a: Value) -> Result<VReg, Unsupported> {
        let (e, w) = (self.elem(ty), self.width(ty)?);
        let sign = 1u64 << (e.bits() - 1);
        match op {
            UnaryOp::Sqrt => {
                let x = self.vec_src(a, true)?.opnd(w);
                Ok(self.vec_op(by_float(e, VecOp::SqrtPs, VecOp::SqrtPd), w, &[x]))
            }
            UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::Nearest => {
                let x = self.vec(a)?;
                // 8 suppresses the inexact exception, as roundps does when bit 3 is set.
                let mode = 8 | match op {
                    UnaryOp::Nearest => 0,
                    UnaryOp::Floor => 1,
                    UnaryOp::Ceil => 2,
                    _ => 3,
                };
                let round = match self.evex {
                    true => by_float(e, VecOp::RndScalePs, VecOp::RndScalePd),
                    false => by_float(e, VecOp::RoundPs, VecOp::RoundPd),
                };
                Ok(self.vec_op(round, w, &[Opnd::Use(x, w.into()), Opnd::Imm8(mode)]))
            }
            UnaryOp::FNeg => self.bitwise(VecOp::XorD, ty, a, sign),
            UnaryOp::FAbs => self.bitwise(VecOp::AndD, ty, a, sign - 1),
            UnaryOp::Not => self.bitwise(VecOp::XorD, ty, a, e.bit_mask()),
            UnaryOp::INeg => {
                let (zero, x) = (self.zero(), self.vec(a)?);
                let op = by_int(e, [VecOp::PSubB, VecOp::PSubW, VecOp::PSubD, VecOp::PSubQ]);
                Ok(self.vec2(op, w, zero, x))
            }
        }
    }

    /// A bitwise operation with the same constant in every lane.
    pub(super) fn bitwise(&mut self, op: VecOp, ty: Type, a: Value, lane: u64) -> Result<VReg, Unsupported> {
        let (e, w) = (self.elem(ty), self.width(ty)?);
        let x = self.vec(a)?;
        let at = self.pool_vec(e.bytes(), w, &[lane]);
        Ok(self.vec2(op, w, x, VecSrc::Mem(super::Mem::pool(at))))
    }

    pub(super) fn vec_binary(&mut self, ty: Type, op: BinaryOp, a: Value, b: Value) -> Result<VReg, Unsupported> {
        let (e, w) = (self.elem(ty), self.width(ty)?);
        if matches!(op, BinaryOp::FMin | BinaryOp::FMax) {
            let (x, y) = (self.vec(a)?, self.vec(b)?);
            return Ok(self.ieee_extremum(e, w, op == BinaryOp::FMin, x, y));
        }
        let Some(form) = self.binary_form(op, e, w) else {
            if matches!(op, BinaryOp::Shl | BinaryOp::ShrS | BinaryOp::ShrU)
                && let Some(r) = self.shift_by_constant(op, e, w, a, b)?
            {
                return Ok(r);
            }
            return self.slow_binary(ty, op, a, b);
        };
        if matches!(op, BinaryOp::Shl | BinaryOp::ShrS | BinaryOp::ShrU) {
            if let Some(r) = self.shift_by_constant(op, e, w, a, b)? {
                return Ok(r);
            }
            // x86 gives 0 for amounts beyond the width; the kernel IR takes them modulo.
            let (x, n) = (self.vec(a)?, self.bitwise(VecOp::AndD, ty, b, e.bits() as u64 - 1)?);
            return Ok(self.vec2(form, w, x, n));
        }
        let commutes = !matches!(op, BinaryOp::Sub | BinaryOp::FSub | BinaryOp::FDiv | BinaryOp::PMin | BinaryOp::PMax);
        let (a, b) = if commutes && self.folds(a) && !self.folds(b) { (b, a) } else { (a, b) };
        // Embedded broadcasts repeat lanes of 4 or 8 bytes; the bitwise forms are those of 4.
        let repeats = match form {
            VecOp::AndD | VecOp::OrD | VecOp::XorD => e.bytes() == 4,
            _ => e.bytes() >= 4,
        };
        let (x, y) = (self.vec(a)?, self.vec_src(b, repeats)?);
        Ok(self.vec2(form, w, x, y))
    }

    /// The instruction of a lane-wise operation, where there is one.
    pub(super) fn binary_form(&self, op: BinaryOp, e: Elem, w: Width) -> Option<VecOp> {
        use BinaryOp::*;
        use VecOp::*;
        let form = match op {
            FAdd => by_float(e, AddPs, AddPd),
            FSub => by_float(e, SubPs, SubPd),
            FMul => by_float(e, MulPs, MulPd),
            FDiv => by_float(e, DivPs, DivPd),
            PMin => by_float(e, MinPs, MinPd),
            PMax => by_float(e, MaxPs, MaxPd),
            Add => by_int(e, [PAddB, PAddW, PAddD, PAddQ]),
            Sub => by_int(e, [PSubB, PSubW, PSubD, PSubQ]),
            And => AndD,
            Or => OrD,
            Xor => XorD,
            Mul => match e.bytes() {
                2 => PMulLW,
                4 => PMulLD,
                8 => PMulLQ,
                _ => return None,
            },
            MinS => by_int(e, [PMinsB, PMinsW, PMinsD, PMinsQ]),
            MaxS => by_int(e, [PMaxsB, PMaxsW, PMaxsD, PMaxsQ]),
            MinU => by_int(e, [PMinuB, PMinuW, PMinuD, PMinuQ]),
            MaxU => by_int(e, [PMaxuB, PMaxuW, PMaxuD, PMaxuQ]),
            Shl | ShrS | ShrU if e.bytes() == 1 => return None,
            Shl => by_int(e, [ShlVW, ShlVW, ShlVD, ShlVQ]),
            ShrU => by_int(e, [ShrVW, ShrVW, ShrVD, ShrVQ]),
            ShrS => by_int(e, [SarVW, SarVW, SarVD, SarVQ]),
            DivS | DivU | RemS | RemU | FMin | FMax => return None,
        };
        form.has(w, self.evex).then_some(form)
    }

    /// The immediate forms, for 32 and 64 bits.
    fn shift_by_constant(
        &mut self,
        op: BinaryOp,
        e: Elem,
        w: Width,
        a: Value,
        b: Value,
    ) -> Result<Option<VReg>, Unsupported> {
        let amount = match self.constant(b) {
            Some((_, lanes)) if lanes.iter().all(|l| *l == lanes[0]) => (lanes[0] as usize % e.bits()) as u8,
            _ => return Ok(None),
        };
        let form = match (op, e.bytes()) {
            (BinaryOp::Shl, 4) => VecOp::ShlD,
            (BinaryOp::ShrU, 4) => VecOp::ShrD,
            (BinaryOp::ShrS, 4) => VecOp::SarD,
            (BinaryOp::Shl, 8) => VecOp::ShlQ,
            (BinaryOp::ShrU, 8) => VecOp::ShrQ,
            _ => return Ok(None),
        };
        let x = self.vec(a)?;
        Ok(Some(self.vec_op(form, w, &[Opnd::Use(x, w.into()), Opnd::Imm8(amount)])))
    }

    /// IEEE `minimum` and `maximum`. `minps` gives its second operand for two zeros and for a NaN, so that both orders together
    /// hold the answer: their `or` (minimum) or `and` (maximum) is right for zeros and equal numbers; where an operand is NaN, their
    /// sum, a NaN, takes its place.
    pub(super) fn ieee_extremum(&mut self, e: Elem, w: Width, min: bool, x: VReg, y: VReg) -> VReg {
        let form = if min { by_float(e, VecOp::MinPs, VecOp::MinPd) } else { by_float(e, VecOp::MaxPs, VecOp::MaxPd) };
        let (p, q) = (self.vec2(form, w, x, y), self.vec2(form, w, y, x));
        let both = self.vec2(if min { VecOp::OrD } else { VecOp::AndD }, w, p, q);
        let sum = self.vec2(by_float(e, VecOp::AddPs, VecOp::AddPd), w, x, y);
        let unordered = self.compare_lanes(e, w, FloatCc::Unordered, x, y.into());
        self.blend(e, w, unordered, sum, both)
    }

    /// One instruction for two registers of a type: for reductions and the lane-by-lane way. `None` where there is none.
    pub(super) fn binary_regs(&mut self, op: BinaryOp, e: Elem, w: Width, x: VReg, y: VReg) -> Option<VReg> {
        match op {
            BinaryOp::FMin | BinaryOp::FMax => Some(self.ieee_extremum(e, w, op == BinaryOp::FMin, x, y)),
            BinaryOp::Shl | BinaryOp::ShrS | BinaryOp::ShrU => None,
            _ => self.binary_form(op, e, w).map(|form| self.vec2(form, w, x, y)),
        }
    }
}

/// One of four by the bytes of an integer: 1, 2, 4, 8.
pub(super) fn by_int<T: Copy>(e: Elem, row: [T; 4]) -> T {
    row[e.bytes().trailing_zeros() as usize]
}
