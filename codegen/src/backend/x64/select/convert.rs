//! Conversions between element types.
//!
//! Vectors have instructions for what networks use: extension, narrowing (AVX-512), f32 with f64, i32 with floats. The rest goes
//! lane by lane through scalar conversions. Float to integer saturates, NaN gives 0 (the kernel IR's rule); x86's conversions give
//! the "integer indefinite" (the minimum) for all of these, which is put right afterwards.

use super::super::inst::{Cond, GPR, Mem, Opnd, VEC, View, Width};
use super::super::table::VecOp;
use super::int::IntSrc;
use super::{Select, Unsupported, VecSrc, by_float};
use crate::kir::{ConvertOp, Elem, FloatCc, Type, Value};
use iced_x86::Code;
use regalloc2::VReg;

impl Select<'_> {
    pub(super) fn convert(&mut self, op: ConvertOp, to: Type, v: Value) -> Result<VReg, Unsupported> {
        let from = self.ty(v);
        if from.lanes() == 1 {
            return self.convert_scalar(op, to, v);
        }
        let (Some(f), Some(t)) = (from.elem(), to.elem()) else { return Err(format!("a conversion of {from}")) };
        if op == ConvertOp::Bitcast {
            return self.vec(v);
        }
        let (wf, wt) = (self.width(from)?, self.width(to)?);
        if let Some(form) = self.convert_form(op, f, t) {
            let x = self.vec(v)?;
            // The table's width is the wider side's.
            let w = wf.max(wt);
            if form.has(w, self.evex) {
                let dst = self.reg(VEC);
                self.op(form.code(w, self.evex), &[Opnd::Def(dst, wt.into()), Opnd::Use(x, wf.into())]);
                return Ok(dst);
            }
        }
        if op == ConvertOp::ToS && f == Elem::F32 && t == Elem::I32 {
            let x = self.vec(v)?;
            return Ok(self.f32_to_i32(wf, x));
        }
        self.slow_convert(op, from, to, v)
    }

    fn convert_form(&self, op: ConvertOp, f: Elem, t: Elem) -> Option<VecOp> {
        use Elem::*;
        use VecOp::*;
        Some(match (op, f, t) {
            (ConvertOp::SExt, I8, I16) => MovSxBW,
            (ConvertOp::SExt, I8, I32) => MovSxBD,
            (ConvertOp::SExt, I8, I64) => MovSxBQ,
            (ConvertOp::SExt, I16, I32) => MovSxWD,
            (ConvertOp::SExt, I16, I64) => MovSxWQ,
            (ConvertOp::SExt, I32, I64) => MovSxDQ,
            (ConvertOp::ZExt, I8, I16) => MovZxBW,
            (ConvertOp::ZExt, I8, I32) => MovZxBD,
            (ConvertOp::ZExt, I8, I64) => MovZxBQ,
            (ConvertOp::ZExt, I16, I32) => MovZxWD,
            (ConvertOp::ZExt, I16, I64) => MovZxWQ,
            (ConvertOp::ZExt, I32, I64) => MovZxDQ,
            (ConvertOp::Narrow, I16, I8) => NarrowWB,
            (ConvertOp::Narrow, I32, I8) => NarrowDB,
            (ConvertOp::Narrow, I32, I16) => NarrowDW,
            (ConvertOp::Narrow, I64, I8) => NarrowQB,
            (ConvertOp::Narrow, I64, I16) => NarrowQW,
            (ConvertOp::Narrow, I64, I32) => NarrowQD,
            (ConvertOp::Promote, F32, F64) => CvtPsPd,
            (ConvertOp::Demote, F64, F32) => CvtPdPs,
            (ConvertOp::FromS, I32, F32) => CvtDqPs,
            (ConvertOp::FromS, I32, F64) => CvtDqPd,
            (ConvertOp::FromS, I64, F64) => CvtQqPd,
            (ConvertOp::FromU, I32, F32) => CvtUdqPs,
            _ => return None,
        })
    }

    /// `vcvttps2dq` with saturation: too large a number becomes the maximum, NaN 0; too small a one is the minimum already.
    fn f32_to_i32(&mut self, w: Width, x: VReg) -> VReg {
        let raw = self.vec_op(VecOp::CvtPsDq, w, &[Opnd::Use(x, w.into())]);
        let limit = VecSrc::Mem(Mem::pool(self.pool_vec(4, w, &[u64::from(2147483648f32.to_bits())])));
        let max_at = self.pool_vec(4, w, &[0x7fff_ffff]);
        let max = self.vec_op(VecOp::LoadU, w, &[Opnd::Mem(Mem::pool(max_at))]);
        let zero = self.zero();
        let large = self.compare_lanes(Elem::F32, w, FloatCc::Ge, x, limit);
        let nan = self.compare_lanes(Elem::F32, w, FloatCc::Unordered, x, x.into());
        let clamped = self.blend(Elem::I32, w, large, max, raw);
        self.blend(Elem::I32, w, nan, zero, clamped)
    }

    // ---- scalars --------------------------------------------------------------------------------------------------

    fn convert_scalar(&mut self, op: ConvertOp, to: Type, v: Value) -> Result<VReg, Unsupported> {
        let from = self.ty(v);
        let (Some(f), Some(t)) = (from.elem(), to.elem()) else { return Err(format!("a conversion of {from}")) };
        let x = if f.is_float() { self.vec(v)? } else { self.gpr(v)? };
        Ok(self.convert_lane(op, f, t, x))
    }

    /// One scalar, in the register class of its type.
    pub(super) fn convert_lane(&mut self, op: ConvertOp, f: Elem, t: Elem, x: VReg) -> VReg {
        match op {
            ConvertOp::SExt => self.extended(x, f, true),
            ConvertOp::ZExt => self.extended(x, f, false),
            ConvertOp::Narrow => x,
            ConvertOp::Bitcast if f.is_float() == t.is_float() => x,
            ConvertOp::Bitcast if f.is_float() => self.vec_to_gpr(x),
            ConvertOp::Bitcast => self.gpr_to_vec(x),
            ConvertOp::Promote => self.vec_op(VecOp::CvtPsPd, Width::X, &[Opnd::Use(x, View::Xmm)]),
            ConvertOp::Demote => self.vec_op(VecOp::CvtPdPs, Width::X, &[Opnd::Use(x, View::Xmm)]),
            ConvertOp::FromS => {
                let wide = self.extended(x, f, true);
                self.i64_to_float(wide, t)
            }
            ConvertOp::FromU => {
                let wide = self.extended(x, f, false);
                if f == Elem::I64 { self.u64_to_float(wide, t) } else { self.i64_to_float(wide, t) }
            }
            ConvertOp::ToS => self.float_to_signed(f, t, x),
            ConvertOp::ToU => self.float_to_unsigned(f, t, x),
        }
    }

    fn i64_to_float(&mut self, x: VReg, t: Elem) -> VReg {
        let (single, double) = match self.evex {
            true => (Code::EVEX_Vcvtsi2ss_xmm_xmm_rm64_er, Code::EVEX_Vcvtsi2sd_xmm_xmm_rm64_er),
            false => (Code::VEX_Vcvtsi2ss_xmm_xmm_rm64, Code::VEX_Vcvtsi2sd_xmm_xmm_rm64),
        };
        let upper = self.zero(); // the other lanes come from here: no dependency on an old value
        let dst = self.reg(VEC);
        self.op(
            by_float(t, single, double),
            &[Opnd::Def(dst, View::Xmm), Opnd::Use(upper, View::Xmm), Opnd::Use(x, View::R64)],
        );
        dst
    }

    /// Above 2^63: half of it, with the lost bit kept so that rounding sees it, and the result doubled.
    fn u64_to_float(&mut self, x: VReg, t: Elem) -> VReg {
        let low = self.tied(Code::And_rm64_imm8, x, Opnd::Imm8Sx(1));
        let half = self.tied(Code::Shr_rm64_imm8, x, Opnd::Imm8(1));
        let odd = self.tied(Code::Or_r64_rm64, half, Opnd::Use(low, View::R64));
        let (direct, halved) = (self.i64_to_float(x, t), self.i64_to_float(odd, t));
        let add = by_float(t, VecOp::AddPs, VecOp::AddPd);
        let doubled = self.vec2(add, Width::X, halved, halved);
        let (a, b) = (self.vec_to_gpr(doubled), self.vec_to_gpr(direct));
        self.compare(x, IntSrc::Imm(0));
        let chosen = self.cmov(Cond::L, a, b);
        self.gpr_to_vec(chosen)
    }

    /// Truncates to 64 bits: the minimum for everything that does not fit, and for NaN.
    fn truncate(&mut self, f: Elem, x: VReg) -> VReg {
        let (single, double) = match self.evex {
            true => (Code::EVEX_Vcvttss2si_r64_xmmm32_sae, Code::EVEX_Vcvttsd2si_r64_xmmm64_sae),
            false => (Code::VEX_Vcvttss2si_r64_xmmm32, Code::VEX_Vcvttsd2si_r64_xmmm64),
        };
        let dst = self.reg(GPR);
        self.op(by_float(f, single, double), &[Opnd::Def(dst, View::R64), Opnd::Use(x, View::Xmm)]);
        dst
    }

    /// Sets the flags for `x` against a number: "above or equal" is A or E, unordered sets the parity flag, and CF with it.
    fn compare_float(&mut self, f: Elem, x: VReg, with: f64) {
        let bits = if f == Elem::F32 { u64::from((with as f32).to_bits()) } else { with.to_bits() };
        let at = self.pool_vec(f.bytes(), Width::X, &[bits]);
        let y = self.vec_op(VecOp::LoadU, Width::X, &[Opnd::Mem(Mem::pool(at))]);
        self.compare_floats(f, x, y);
    }

    fn compare_floats(&mut self, f: Elem, x: VReg, y: VReg) {
        let (single, double) = match self.evex {
            true => (Code::EVEX_Vucomiss_xmm_xmmm32_sae, Code::EVEX_Vucomisd_xmm_xmmm64_sae),
            false => (Code::VEX_Vucomiss_xmm_xmmm32, Code::VEX_Vucomisd_xmm_xmmm64),
        };
        self.op(by_float(f, single, double), &[Opnd::Use(x, View::Xmm), Opnd::Use(y, View::Xmm)]);
    }

    fn float_to_signed(&mut self, f: Elem, t: Elem, x: VReg) -> VReg {
        let raw = self.truncate(f, x);
        let (max64, zero) = (self.imm(i64::MAX), self.imm(0));
        self.compare_float(f, x, 9223372036854775808.0);
        let large = self.cmov(Cond::Ae, max64, raw); // CF is set for NaN: not "above or equal"
        let mut r = self.nan_to(f, x, zero, large);
        if t != Elem::I64 {
            let max = (t.bit_mask() >> 1) as i64;
            r = self.clamp(r, -max - 1, max);
        }
        r
    }

    /// `other`, or `for_nan` where x is NaN.
    fn nan_to(&mut self, f: Elem, x: VReg, for_nan: VReg, other: VReg) -> VReg {
        // x >= 0 or x < 0 holds for every number: NaN alone is not equal to itself, which vucomis tells by the parity flag. A compare
        // mask is simpler to select on than that flag.
        let unordered = self.compare_lanes(f, Width::X, FloatCc::Unordered, x, x.into());
        let nan = self.first_lane(unordered);
        self.compare(nan, IntSrc::Imm(0));
        self.cmov(Cond::Ne, for_nan, other)
    }

    fn clamp(&mut self, r: VReg, lo: i64, hi: i64) -> VReg {
        let (l, h) = (self.imm(lo), self.imm(hi));
        self.compare(r, h);
        let r = self.cmov(Cond::G, h, r);
        self.compare(r, l);
        self.cmov(Cond::L, l, r)
    }

    fn float_to_unsigned(&mut self, f: Elem, t: Elem, x: VReg) -> VReg {
        if t != Elem::I64 {
            let signed = self.float_to_signed(f, Elem::I64, x);
            return self.clamp(signed, 0, t.bit_mask() as i64);
        }
        // Below 2^63 directly, negative numbers as 0; above, what is over 2^63 with the top bit added.
        let small = self.float_to_signed(f, Elem::I64, x);
        let zero = self.imm(0);
        self.compare(small, IntSrc::Imm(0));
        let small = self.cmov(Cond::L, zero, small);
        let at = self.pool_vec(f.bytes(), Width::X, &[two_to_63(f)]);
        let over = self.vec2(by_float(f, VecOp::SubPs, VecOp::SubPd), Width::X, x, VecSrc::Mem(Mem::pool(at)));
        let rest = self.truncate(f, over);
        let top = self.imm(i64::MIN);
        let large = self.tied(Code::Xor_r64_rm64, rest, Opnd::Use(top, View::R64));
        self.compare_float(f, x, 9223372036854775808.0);
        let r = self.cmov(Cond::Ae, large, small);
        let all = self.imm(-1);
        self.compare_float(f, x, 18446744073709551616.0);
        self.cmov(Cond::Ae, all, r)
    }
}

fn two_to_63(f: Elem) -> u64 {
    if f == Elem::F32 { u64::from(9223372036854775808f32.to_bits()) } else { 9223372036854775808f64.to_bits() }
}
