//! Comparisons, masks and selection.
//!
//! | mask of | AVX-512 | AVX2 |
//! |---|---|---|
//! | one lane | general-purpose register, 0 or 1 | the same |
//! | more | k register, bits beyond the lanes unspecified | vector, each lane all ones or zero |
//!
//! An AVX2 mask has the lane width of what was compared. It is widened or narrowed where it meets lanes of another width;
//! across blocks it has [`canonical_bytes`].

use super::super::inst::{Cond, GPR, MASK, Mem, Opnd, VEC, View, Width};
use super::super::table::VecOp;
use super::arith::by_int;
use super::{Repr, Select, Unsupported, VecSrc, by_float};
use crate::kir::{BinaryOp, Elem, FloatCc, IntCc, Type, Value};
use iced_x86::Code;
use regalloc2::VReg;

/// The lane width of an AVX2 mask that crosses blocks: what fills a ymm, but no more than 8 bytes.
pub(super) fn canonical_bytes(lanes: u8) -> usize {
    (32 / usize::from(lanes)).clamp(1, 8)
}

fn int_elem(bytes: usize) -> Elem {
    [Elem::I8, Elem::I16, Elem::I32, Elem::I64][bytes.trailing_zeros() as usize]
}

impl Select<'_> {
    // ---- conditions of one lane -----------------------------------------------------------------------------------

    /// Sets the flags; the condition that tells whether `v` is true.
    pub(super) fn flags(&mut self, v: Value) -> Result<Cond, Unsupported> {
        if let Repr::Compare(cc, a, b) = self.get(v)? {
            return self.int_flags(cc, a, b);
        }
        let r = self.gpr(v)?;
        let one = self.tied(Code::And_rm64_imm8, r, Opnd::Imm8Sx(1));
        self.compare(one, super::int::IntSrc::Imm(0));
        Ok(Cond::Ne)
    }

    /// A condition as 0 or 1.
    pub(super) fn cond_gpr(&mut self, v: Value) -> Result<VReg, Unsupported> {
        let Repr::Compare(cc, a, b) = self.get(v)? else { return self.gpr(v) };
        let cond = self.int_flags(cc, a, b)?;
        let bit = self.set_cond(cond);
        self.set(v, Repr::Reg(bit));
        Ok(bit)
    }

    /// A condition of the flags as 0 or 1.
    fn set_cond(&mut self, cond: Cond) -> VReg {
        let (low, wide) = (self.reg(GPR), self.reg(GPR));
        self.op(cond.set(), &[Opnd::Def(low, View::R8)]);
        self.op(Code::Movzx_r32_rm8, &[Opnd::Def(wide, View::R32), Opnd::Use(low, View::R8)]);
        wide
    }

    // ---- moves between classes ------------------------------------------------------------------------------------

    pub(super) fn gpr_to_k(&mut self, r: VReg) -> VReg {
        let k = self.reg(MASK);
        self.op(Code::VEX_Kmovq_kr_r64, &[Opnd::Def(k, View::K), Opnd::Use(r, View::R64)]);
        k
    }

    pub(super) fn k_to_gpr(&mut self, k: VReg) -> VReg {
        let r = self.reg(GPR);
        self.op(Code::VEX_Kmovq_r64_kr, &[Opnd::Def(r, View::R64), Opnd::Use(k, View::K)]);
        r
    }

    pub(super) fn gpr_to_vec(&mut self, r: VReg) -> VReg {
        let dst = self.reg(VEC);
        let code = if self.evex { Code::EVEX_Vmovq_xmm_rm64 } else { Code::VEX_Vmovq_xmm_rm64 };
        self.op(code, &[Opnd::Def(dst, View::Xmm), Opnd::Use(r, View::R64)]);
        dst
    }

    pub(super) fn vec_to_gpr(&mut self, v: VReg) -> VReg {
        let dst = self.reg(GPR);
        let code = if self.evex { Code::EVEX_Vmovq_rm64_xmm } else { Code::VEX_Vmovq_rm64_xmm };
        self.op(code, &[Opnd::Def(dst, View::R64), Opnd::Use(v, View::Xmm)]);
        dst
    }

    // ---- masks of several lanes -----------------------------------------------------------------------------------

    /// A mask in a k register.
    pub(super) fn k(&mut self, v: Value) -> Result<VReg, Unsupported> {
        match self.get(v)? {
            Repr::Reg(r) => Ok(r),
            Repr::Const(_, lanes) => {
                let bits = lanes.iter().enumerate().fold(0u64, |b, (i, &l)| b | ((l & 1) << i));
                let r = self.imm(bits as i64);
                Ok(self.gpr_to_k(r))
            }
            other => Err(format!("{v} as a k register: it is {other:?}")),
        }
    }

    /// AVX2: a mask as a vector with lanes of `bytes`.
    pub(super) fn lanes_of(&mut self, v: Value, bytes: usize) -> Result<VReg, Unsupported> {
        let lanes = self.ty(v).lanes();
        match self.get(v)? {
            Repr::Lanes(r, own) => self.resize_lanes(r, own, bytes, lanes),
            Repr::Const(_, bits) => {
                let filled: Vec<u64> =
                    bits.iter().map(|&b| if b & 1 == 1 { int_elem(bytes).bit_mask() } else { 0 }).collect();
                self.const_vec(Type::of(int_elem(bytes), lanes), &filled)
            }
            other => Err(format!("{v} as a vector of lanes: it is {other:?}")),
        }
    }

    fn resize_lanes(&mut self, r: VReg, from: usize, to: usize, lanes: usize) -> Result<VReg, Unsupported> {
        if from == to {
            return Ok(r);
        }
        let w = self.width(Type::of(int_elem(to.max(from)), lanes))?;
        if from < to {
            let op = match (from, to) {
                (1, 2) => VecOp::MovSxBW,
                (1, 4) => VecOp::MovSxBD,
                (1, 8) => VecOp::MovSxBQ,
                (2, 4) => VecOp::MovSxWD,
                (2, 8) => VecOp::MovSxWQ,
                _ => VecOp::MovSxDQ,
            };
            let source = self.width(Type::of(int_elem(from), lanes))?;
            return Ok(self.vec_op(op, w, &[Opnd::Use(r, source.into())]));
        }
        // The low bytes of each lane, through the frame: every byte of a lane says the same.
        let slot = self.lanes_slot();
        self.op(VecOp::StoreU.code(w, self.evex), &[Opnd::Mem(Mem::frame(slot)), Opnd::Use(r, w.into())]);
        for i in 0..lanes {
            let word = self.load_gpr(Code::Mov_r64_rm64, View::R64, Mem::frame(slot + (i * from) as i32));
            self.store_gpr(Mem::frame(slot + 64 + (i * to) as i32), word, to);
        }
        let narrow = self.width(Type::of(int_elem(to), lanes))?;
        Ok(self.vec_op(VecOp::LoadU, narrow, &[Opnd::Mem(Mem::frame(slot + 64))]))
    }

    /// The lanes of a mask as the low bits of a general-purpose register, the others 0.
    fn mask_bits(&mut self, v: Value) -> Result<VReg, Unsupported> {
        let lanes = self.ty(v).lanes();
        if lanes == 1 {
            return self.cond_gpr(v);
        }
        let bits = if self.evex {
            let k = self.k(v)?;
            self.k_to_gpr(k)
        } else {
            let bytes = canonical_bytes(lanes as u8);
            let (r, w) = (self.lanes_of(v, bytes)?, self.width(Type::of(int_elem(bytes), lanes))?);
            let dst = self.reg(GPR);
            let op = match bytes {
                4 => VecOp::MovMskPs,
                8 => VecOp::MovMskPd,
                1 => VecOp::PMovMskB,
                // Words have no such instruction: narrow to bytes first.
                _ => {
                    let r = self.resize_lanes(r, bytes, 1, lanes)?;
                    self.op(
                        VecOp::PMovMskB.code(Width::X, false),
                        &[Opnd::Def(dst, View::R32), Opnd::Use(r, View::Xmm)],
                    );
                    return Ok(self.low_bits(dst, lanes));
                }
            };
            self.op(op.code(w, false), &[Opnd::Def(dst, View::R32), Opnd::Use(r, w.into())]);
            dst
        };
        Ok(self.low_bits(bits, lanes))
    }

    fn low_bits(&mut self, r: VReg, lanes: usize) -> VReg {
        if lanes == 64 {
            return r;
        }
        let mask = self.imm(((1u64 << lanes) - 1) as i64);
        self.tied(Code::And_r64_rm64, r, Opnd::Use(mask, View::R64))
    }

    pub(super) fn any(&mut self, m: Value) -> Result<VReg, Unsupported> {
        let bits = self.mask_bits(m)?;
        self.compare(bits, super::int::IntSrc::Imm(0));
        Ok(self.set_cond(Cond::Ne))
    }

    pub(super) fn all(&mut self, m: Value) -> Result<VReg, Unsupported> {
        let lanes = self.ty(m).lanes();
        let bits = self.mask_bits(m)?;
        let full = self.imm(if lanes == 64 { -1 } else { (1i64 << lanes) - 1 });
        self.compare(bits, full);
        Ok(self.set_cond(Cond::E))
    }

    pub(super) fn extract_mask(&mut self, v: Value, lane: u8) -> Result<VReg, Unsupported> {
        let bits = self.mask_bits(v)?;
        let low = self.tied(Code::Shr_rm64_imm8, bits, Opnd::Imm8(lane));
        Ok(self.tied(Code::And_rm64_imm8, low, Opnd::Imm8Sx(1)))
    }

    pub(super) fn splat_mask(&mut self, r: Value, cond: Value) -> Result<(), Unsupported> {
        let lanes = self.ty(r).lanes();
        let bytes = canonical_bytes(lanes as u8);
        let w = self.width(Type::of(int_elem(bytes), lanes))?;
        let m = self.cond_lanes(cond, w)?;
        self.set_mask(r, m, bytes);
        Ok(())
    }

    /// A condition in every lane of a mask: a k register, or a vector of this width.
    fn cond_lanes(&mut self, cond: Value, w: Width) -> Result<VReg, Unsupported> {
        let one = self.cond_gpr(cond)?;
        let all = self.reg(GPR);
        self.op(Code::Neg_rm64, &[Opnd::Tied { to: all, from: one, view: View::R64 }]);
        if self.evex {
            return Ok(self.gpr_to_k(all));
        }
        let low = self.gpr_to_vec(all);
        Ok(self.vec_op(VecOp::BroadcastQ, w, &[Opnd::Use(low, View::Xmm)]))
    }

    /// Makes `r` the mask in a register: a k register, or a vector with lanes of `bytes`.
    fn set_mask(&mut self, r: Value, m: VReg, bytes: usize) {
        if self.evex { self.define(r, m) } else { self.set(r, Repr::Lanes(m, bytes)) }
    }

    pub(super) fn mask_not(&mut self, r: Value, a: Value) -> Result<(), Unsupported> {
        match self.ty(a).lanes() {
            1 => {
                let x = self.cond_gpr(a)?;
                let not = self.tied(Code::Xor_rm64_imm8, x, Opnd::Imm8Sx(1));
                self.define(r, not);
            }
            _ if self.evex => {
                let x = self.k(a)?;
                let k = self.reg(MASK);
                self.op(Code::VEX_Knotq_kr_kr, &[Opnd::Def(k, View::K), Opnd::Use(x, View::K)]);
                self.define(r, k);
            }
            lanes => {
                let bytes = self.lane_bytes(a);
                let (x, w) = (self.lanes_of(a, bytes)?, self.width(Type::of(int_elem(bytes), lanes))?);
                let at = self.pool_vec(1, w, &[0xff]);
                let not = self.vec2(VecOp::XorD, w, x, VecSrc::Mem(Mem::pool(at)));
                self.set(r, Repr::Lanes(not, bytes));
            }
        }
        Ok(())
    }

    /// The lane width that a mask has already.
    fn lane_bytes(&self, v: Value) -> usize {
        match &self.repr[v.index()] {
            Some(Repr::Lanes(_, bytes)) => *bytes,
            _ => canonical_bytes(self.ty(v).lanes() as u8),
        }
    }

    pub(super) fn mask_binary(&mut self, r: Value, op: BinaryOp, a: Value, b: Value) -> Result<(), Unsupported> {
        let at = match op {
            BinaryOp::And => 0,
            BinaryOp::Or => 1,
            BinaryOp::Xor => 2,
            _ => return Err(format!("{op:?} of masks")),
        };
        match self.ty(a).lanes() {
            1 => {
                let (x, y) = (self.cond_gpr(a)?, self.cond_gpr(b)?);
                let code = [Code::And_r64_rm64, Code::Or_r64_rm64, Code::Xor_r64_rm64][at];
                let v = self.tied(code, x, Opnd::Use(y, View::R64));
                self.define(r, v);
            }
            _ if self.evex => {
                let (x, y) = (self.k(a)?, self.k(b)?);
                let code = [Code::VEX_Kandq_kr_kr_kr, Code::VEX_Korq_kr_kr_kr, Code::VEX_Kxorq_kr_kr_kr][at];
                let k = self.reg(MASK);
                self.op(code, &[Opnd::Def(k, View::K), Opnd::Use(x, View::K), Opnd::Use(y, View::K)]);
                self.define(r, k);
            }
            lanes => {
                let bytes = self.lane_bytes(a);
                let (x, y) = (self.lanes_of(a, bytes)?, self.lanes_of(b, bytes)?);
                let w = self.width(Type::of(int_elem(bytes), lanes))?;
                let v = self.vec2([VecOp::AndD, VecOp::OrD, VecOp::XorD][at], w, x, y);
                self.set(r, Repr::Lanes(v, bytes));
            }
        }
        Ok(())
    }

    pub(super) fn mask_to_int(&mut self, m: Value) -> Result<VReg, Unsupported> {
        let lanes = self.ty(m).lanes();
        if lanes == 1 {
            return self.cond_gpr(m);
        }
        let ty = Type::of(Elem::I8, lanes);
        let w = self.width(ty)?;
        let full = if self.evex {
            let k = self.k(m)?;
            self.vec_op(VecOp::MaskToVecB, w, &[Opnd::Use(k, View::K)])
        } else {
            self.lanes_of(m, 1)?
        };
        let at = self.pool_vec(1, w, &[1]);
        Ok(self.vec2(VecOp::AndD, w, full, VecSrc::Mem(Mem::pool(at))))
    }

    // ---- comparisons ----------------------------------------------------------------------------------------------

    pub(super) fn fcmp(&mut self, r: Value, cc: FloatCc, a: Value, b: Value) -> Result<(), Unsupported> {
        let ty = self.ty(a);
        let (e, w) = (ty.elem().unwrap_or(Elem::F32), self.width(ty)?);
        let (x, y) = (self.vec(a)?, self.vec_src(b, true)?);
        let m = self.compare_lanes(e, w, cc, x, y);
        if ty.lanes() > 1 {
            self.set_mask(r, m, e.bytes());
            return Ok(());
        }
        let one = self.first_lane(m);
        self.define(r, one);
        Ok(())
    }

    /// Compares floats lane by lane: a k register, or a vector with lanes of the element's width.
    pub(super) fn compare_lanes(&mut self, e: Elem, w: Width, cc: FloatCc, x: VReg, y: VecSrc) -> VReg {
        // Quiet predicates: no invalid exception for a quiet NaN.
        let predicate = match cc {
            FloatCc::Eq => 0x00,
            FloatCc::Ne => 0x04,
            FloatCc::Lt => 0x11,
            FloatCc::Le => 0x12,
            FloatCc::Ge => 0x1d,
            FloatCc::Gt => 0x1e,
            FloatCc::Ordered => 0x07,
            FloatCc::Unordered => 0x03,
        };
        let (x, y, predicate) = (Opnd::Use(x, w.into()), y.opnd(w), Opnd::Imm8(predicate));
        if !self.evex {
            return self.vec_op(by_float(e, VecOp::CmpVPs, VecOp::CmpVPd), w, &[x, y, predicate]);
        }
        let k = self.reg(MASK);
        let cmp = by_float(e, VecOp::CmpKPs, VecOp::CmpKPd).code(w, true);
        self.op(cmp, &[Opnd::Def(k, View::K), x, y, predicate]);
        k
    }

    /// The first lane of a mask in a register as 0 or 1.
    pub(super) fn first_lane(&mut self, m: VReg) -> VReg {
        let bits = if self.evex { self.k_to_gpr(m) } else { self.vec_to_gpr(m) };
        self.tied(Code::And_rm64_imm8, bits, Opnd::Imm8Sx(1))
    }

    pub(super) fn icmp(&mut self, r: Value, cc: IntCc, a: Value, b: Value) -> Result<(), Unsupported> {
        let ty = self.ty(a);
        if ty.lanes() == 1 {
            self.set(r, Repr::Compare(cc, a, b));
            if !self.may_wait(r) {
                self.cond_gpr(r)?;
            }
            return Ok(());
        }
        let (e, w) = (ty.elem().unwrap_or(Elem::I32), self.width(ty)?);
        if self.evex {
            let predicate = match cc {
                IntCc::Eq => 0,
                IntCc::LtS | IntCc::LtU => 1,
                IntCc::LeS | IntCc::LeU => 2,
                IntCc::Ne => 4,
                IntCc::GeS | IntCc::GeU => 5,
                IntCc::GtS | IntCc::GtU => 6,
            };
            let unsigned = matches!(cc, IntCc::LtU | IntCc::LeU | IntCc::GtU | IntCc::GeU);
            let form = match unsigned {
                false => by_int(e, [VecOp::CmpKB, VecOp::CmpKW, VecOp::CmpKD, VecOp::CmpKQ]),
                true => by_int(e, [VecOp::CmpKUB, VecOp::CmpKUW, VecOp::CmpKUD, VecOp::CmpKUQ]),
            };
            let (x, y) = (self.vec(a)?, self.vec(b)?);
            let k = self.reg(MASK);
            self.op(
                form.code(w, true),
                &[Opnd::Def(k, View::K), Opnd::Use(x, w.into()), Opnd::Use(y, w.into()), Opnd::Imm8(predicate)],
            );
            self.define(r, k);
            return Ok(());
        }
        // AVX2 has equal and signed greater: the others are these, exchanged, inverted, or with the sign bits flipped.
        let (mut x, mut y) = (self.vec(a)?, self.vec(b)?);
        if matches!(cc, IntCc::LtU | IntCc::LeU | IntCc::GtU | IntCc::GeU) {
            let at = self.pool_vec(e.bytes(), w, &[1 << (e.bits() - 1)]);
            let sign = VecSrc::Mem(Mem::pool(at));
            (x, y) = (self.vec2(VecOp::XorD, w, x, sign), self.vec2(VecOp::XorD, w, y, sign));
        }
        let equal = by_int(e, [VecOp::PCmpEqB, VecOp::PCmpEqW, VecOp::PCmpEqD, VecOp::PCmpEqQ]);
        let greater = by_int(e, [VecOp::PCmpGtB, VecOp::PCmpGtW, VecOp::PCmpGtD, VecOp::PCmpGtQ]);
        let (form, exchange, invert) = match cc {
            IntCc::Eq => (equal, false, false),
            IntCc::Ne => (equal, false, true),
            IntCc::GtS | IntCc::GtU => (greater, false, false),
            IntCc::LtS | IntCc::LtU => (greater, true, false),
            IntCc::LeS | IntCc::LeU => (greater, false, true),
            IntCc::GeS | IntCc::GeU => (greater, true, true),
        };
        if exchange {
            (x, y) = (y, x);
        }
        let mut m = self.vec2(form, w, x, y);
        if invert {
            let at = self.pool_vec(1, w, &[0xff]);
            m = self.vec2(VecOp::XorD, w, m, VecSrc::Mem(Mem::pool(at)));
        }
        self.set(r, Repr::Lanes(m, e.bytes()));
        Ok(())
    }

    // ---- selection ------------------------------------------------------------------------------------------------

    /// `mask ? a : b` of registers: the mask is a k register, or a vector with lanes of the element's width.
    pub(super) fn blend(&mut self, e: Elem, w: Width, mask: VReg, a: VReg, b: VReg) -> VReg {
        if self.evex {
            let form = by_int(e.as_int(), [VecOp::BlendMB, VecOp::BlendMW, VecOp::BlendMD, VecOp::BlendMQ]);
            let dst = self.reg(VEC);
            let ops = [Opnd::Def(dst, w.into()), Opnd::Use(b, w.into()), Opnd::Use(a, w.into())];
            self.masked(form.code(w, true), &ops, mask, false);
            return dst;
        }
        let form = match e.bytes() {
            4 => VecOp::BlendVPs,
            8 => VecOp::BlendVPd,
            _ => VecOp::PBlendVB,
        };
        self.vec_op(form, w, &[Opnd::Use(b, w.into()), Opnd::Use(a, w.into()), Opnd::Use(mask, w.into())])
    }

    pub(super) fn select(&mut self, r: Value, mask: Value, a: Value, b: Value) -> Result<(), Unsupported> {
        let ty = self.ty(a);
        if let Type::Mask(n) = ty {
            return self.select_mask(r, mask, a, b, n);
        }
        if self.class(ty) == GPR {
            let (x, y) = (self.gpr(a)?, self.gpr(b)?);
            let cond = self.flags(mask)?;
            let v = self.cmov(cond, x, y);
            self.define(r, v);
            return Ok(());
        }
        let (e, w) = (ty.elem().unwrap_or(Elem::F32), self.width(ty)?);
        let (x, y) = (self.vec(a)?, self.vec(b)?);
        let m = match self.ty(mask).lanes() {
            1 => self.cond_lanes(mask, w)?,
            _ if self.evex => self.k(mask)?,
            _ => self.lanes_of(mask, e.bytes())?,
        };
        let v = self.blend(e, w, m, x, y);
        self.define(r, v);
        Ok(())
    }

    /// Masks chosen by a mask: `(m & a) | (!m & b)`, as `b ^ (m & (a ^ b))`.
    fn select_mask(&mut self, r: Value, mask: Value, a: Value, b: Value, n: u8) -> Result<(), Unsupported> {
        if n == 1 {
            let (x, y) = (self.cond_gpr(a)?, self.cond_gpr(b)?);
            let cond = self.flags(mask)?;
            let v = self.cmov(cond, x, y);
            self.define(r, v);
            return Ok(());
        }
        let by_one = self.ty(mask).lanes() == 1;
        let bytes = canonical_bytes(n);
        let w = self.width(Type::of(int_elem(bytes), usize::from(n)))?;
        if self.evex {
            let (x, y) = (self.k(a)?, self.k(b)?);
            let m = if by_one { self.cond_lanes(mask, w)? } else { self.k(mask)? };
            let mut bit = |code, p, q| {
                let k = self.reg(MASK);
                self.op(code, &[Opnd::Def(k, View::K), Opnd::Use(p, View::K), Opnd::Use(q, View::K)]);
                k
            };
            let differ = bit(Code::VEX_Kxorq_kr_kr_kr, x, y);
            let chosen = bit(Code::VEX_Kandq_kr_kr_kr, m, differ);
            let v = bit(Code::VEX_Kxorq_kr_kr_kr, y, chosen);
            self.define(r, v);
            return Ok(());
        }
        let (x, y) = (self.lanes_of(a, bytes)?, self.lanes_of(b, bytes)?);
        let m = if by_one { self.cond_lanes(mask, w)? } else { self.lanes_of(mask, bytes)? };
        let v = self.blend(int_elem(bytes), w, m, x, y);
        self.set(r, Repr::Lanes(v, bytes));
        Ok(())
    }
}
