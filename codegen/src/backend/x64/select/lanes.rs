//! Single lanes and their order: broadcast, extraction, insertion, shuffles, reductions.

use super::super::inst::{Mem, Opnd, VEC, View, Width};
use super::super::table::VecOp;
use super::arith::by_int;
use super::{Select, Unsupported, VecSrc, by_float};
use crate::kir::{BinaryOp, Elem, Type, Value};
use iced_x86::Code;
use regalloc2::VReg;

impl Select<'_> {
    /// A scalar in every lane.
    pub(super) fn splat(&mut self, ty: Type, v: Value) -> Result<VReg, Unsupported> {
        if let Some((_, bits)) = self.constant(v) {
            let lanes = vec![bits[0]; ty.lanes()];
            return self.const_vec(ty, &lanes);
        }
        let e = ty.elem().ok_or_else(|| format!("a splat of {ty}"))?;
        let r = if e.is_float() { self.vec(v)? } else { self.gpr(v)? };
        self.splat_reg(ty, e, r)
    }

    fn splat_reg(&mut self, ty: Type, e: Elem, r: VReg) -> Result<VReg, Unsupported> {
        let w = self.width(ty)?;
        if e.is_float() {
            // AVX2's vbroadcastss takes a register too; the table's column shows its memory form, so vpbroadcast is used.
            let op = by_float(e, VecOp::BroadcastD, VecOp::BroadcastQ);
            return Ok(self.vec_op(op, w, &[Opnd::Use(r, View::Xmm)]));
        }
        if self.evex {
            let op =
                by_int(e, [VecOp::BroadcastGprB, VecOp::BroadcastGprW, VecOp::BroadcastGprD, VecOp::BroadcastGprQ]);
            let view = if e == Elem::I64 { View::R64 } else { View::R32 };
            return Ok(self.vec_op(op, w, &[Opnd::Use(r, view)]));
        }
        let low = self.gpr_to_vec(r);
        let op = by_int(e, [VecOp::BroadcastB, VecOp::BroadcastW, VecOp::BroadcastD, VecOp::BroadcastQ]);
        Ok(self.vec_op(op, w, &[Opnd::Use(low, View::Xmm)]))
    }

    /// One 128-bit part of a wider vector.
    fn part(&mut self, r: VReg, w: Width, part: u8) -> VReg {
        let dst = self.reg(VEC);
        let code = match (w, self.evex) {
            (Width::X, _) => return r,
            (Width::Y, false) => Code::VEX_Vextractf128_xmmm128_ymm_imm8,
            (Width::Y, true) => Code::EVEX_Vextractf32x4_xmmm128_k1z_ymm_imm8,
            (Width::Z, _) => Code::EVEX_Vextractf32x4_xmmm128_k1z_zmm_imm8,
        };
        if part == 0 {
            return r; // the low part is the same register
        }
        self.op(code, &[Opnd::Def(dst, View::Xmm), Opnd::Use(r, w.into()), Opnd::Imm8(part)]);
        dst
    }

    pub(super) fn extract(&mut self, v: Value, lane: u8) -> Result<VReg, Unsupported> {
        let ty = self.ty(v);
        let e = ty.elem().ok_or_else(|| format!("a lane of {ty}"))?;
        let (r, w) = (self.vec(v)?, self.width(ty)?);
        let byte = usize::from(lane) * e.bytes();
        let low = self.part(r, w, (byte / 16) as u8);
        let within = (byte % 16) as u8;
        let shifted = if within == 0 {
            low
        } else {
            self.vec_op(VecOp::ShrBytes, Width::X, &[Opnd::Use(low, View::Xmm), Opnd::Imm8(within)])
        };
        Ok(if e.is_float() { shifted } else { self.vec_to_gpr(shifted) })
    }

    /// The scalar in every lane, blended into one.
    pub(super) fn insert(&mut self, into: Value, lane: u8, value: Value) -> Result<VReg, Unsupported> {
        let ty = self.ty(into);
        let e = ty.elem().ok_or_else(|| format!("a lane of {ty}"))?;
        let w = self.width(ty)?;
        let (base, all) = (self.vec(into)?, self.splat(ty, value)?);
        let mask = if self.evex {
            let bits = self.imm(1i64 << lane);
            self.gpr_to_k(bits)
        } else {
            let lanes: Vec<u64> =
                (0..ty.lanes()).map(|i| if i == usize::from(lane) { e.bit_mask() } else { 0 }).collect();
            let at = self.pool_vec(e.bytes(), w, &lanes);
            self.vec_op(VecOp::LoadU, w, &[Opnd::Mem(Mem::pool(at))])
        };
        Ok(self.blend(e, w, mask, all, base))
    }

    /// A tree: low half op high half until one lane is left.
    pub(super) fn reduce(&mut self, op: BinaryOp, v: Value) -> Result<VReg, Unsupported> {
        let ty = self.ty(v);
        if let Type::Mask(n) = ty {
            return Err(format!("a reduction of mask{n}"));
        }
        let e = ty.elem().ok_or_else(|| format!("a reduction of {ty}"))?;
        let mut r = self.vec(v)?;
        let mut lanes = ty.lanes();
        while lanes > 1 {
            let half = lanes / 2;
            let bytes = half * e.bytes();
            let high = self.upper(r, lanes * e.bytes())?;
            let w = Width::of_bytes(bytes).ok_or("a vector beyond 64 bytes")?;
            r = match self.binary_regs(op, e, w, r, high) {
                Some(x) => x,
                None => self.slow_binary_regs(Type::of(e, half.max(2)), op, r, high)?,
            };
            lanes = half;
        }
        Ok(if e.is_float() { r } else { self.vec_to_gpr(r) })
    }

    /// The upper half of the first `bytes` of a register.
    fn upper(&mut self, r: VReg, bytes: usize) -> Result<VReg, Unsupported> {
        Ok(match bytes {
            64 => {
                let dst = self.reg(VEC);
                self.op(
                    Code::EVEX_Vextractf64x4_ymmm256_k1z_zmm_imm8,
                    &[Opnd::Def(dst, View::Ymm), Opnd::Use(r, View::Zmm), Opnd::Imm8(1)],
                );
                dst
            }
            32 => self.part(r, Width::Y, 1),
            n => self.vec_op(VecOp::ShrBytes, Width::X, &[Opnd::Use(r, View::Xmm), Opnd::Imm8(n as u8 / 2)]),
        })
    }

    // ---- shuffles -------------------------------------------------------------------------------------------------

    pub(super) fn shuffle(&mut self, ty: Type, a: Value, b: Value, lanes: &[u8]) -> Result<VReg, Unsupported> {
        let source = self.ty(a);
        let e = source.elem().ok_or_else(|| format!("a shuffle of {source}"))?;
        let n = source.lanes();
        let (x, y) = (self.vec(a)?, self.vec(b)?);
        if e.bytes() < 4 || source.bytes().unwrap_or(0) < 16 {
            return self.slow_shuffle(ty, x, y, source, lanes);
        }
        let w = self.width(source)?;
        if ty.bytes() <= source.bytes() {
            // As many lanes or fewer: permuted in the source's width; the lanes beyond are nobody's.
            let mut full = lanes.to_vec();
            full.resize(n, lanes[0]);
            return self.permute(e, w, x, y, n, &full);
        }
        // Two vectors joined in their order.
        if lanes.iter().enumerate().all(|(i, &l)| i == usize::from(l)) && lanes.len() == 2 * n {
            return self.join(w, x, y);
        }
        self.slow_shuffle(ty, x, y, source, lanes)
    }

    fn join(&mut self, w: Width, x: VReg, y: VReg) -> Result<VReg, Unsupported> {
        let (code, to) = match (w, self.evex) {
            (Width::X, false) => (Code::VEX_Vinsertf128_ymm_ymm_xmmm128_imm8, Width::Y),
            (Width::X, true) => (Code::EVEX_Vinsertf32x4_ymm_k1z_ymm_xmmm128_imm8, Width::Y),
            (Width::Y, true) => (Code::EVEX_Vinsertf64x4_zmm_k1z_zmm_ymmm256_imm8, Width::Z),
            _ => return Err("a vector wider than a register".into()),
        };
        let dst = self.reg(VEC);
        self.op(code, &[Opnd::Def(dst, to.into()), Opnd::Use(x, to.into()), Opnd::Use(y, w.into()), Opnd::Imm8(1)]);
        Ok(dst)
    }

    /// The orders that one instruction has by itself, without a vector of indices (and on AVX2, where any order of lanes of two
    /// vectors takes two permutations and a blend, by far the cheaper ones): words or pairs of words of both vectors in turn,
    /// from the lower or the upper half of each 128 bits; and the lower or the upper 128 bits of both.
    fn interleave(&mut self, e: Elem, w: Width, x: VReg, y: VReg, n: usize, lanes: &[u8]) -> Option<VReg> {
        let words = e.bytes() / 4;
        let total = n * words;
        let order: Vec<usize> =
            lanes.iter().flat_map(|&l| (0..words).map(move |k| usize::from(l) * words + k)).collect();
        // Word `i` of what puts `run` words of x, then of y, from word `half` of every `group` on.
        let is = |run: usize, group: usize, half: usize| {
            order.iter().enumerate().all(|(i, &word)| {
                let (first, within) = (i / group * group, i % group);
                let of_y = within / run % 2;
                word == of_y * total + first + half + within / (2 * run) * run + within % run
            })
        };
        let forms =
            [(1, 0, VecOp::UnpckLPs), (1, 2, VecOp::UnpckHPs), (2, 0, VecOp::UnpckLPd), (2, 2, VecOp::UnpckHPd)];
        if let Some((.., op)) = forms.into_iter().find(|&(run, half, _)| is(run, 4, half)) {
            return Some(self.vec2(op, w, x, y));
        }
        let half = [0, 4].into_iter().find(|&half| w == Width::Y && is(4, 8, half))?;
        let (code, halves) = match (self.evex, half) {
            (true, 0) => (Code::EVEX_Vshuff32x4_ymm_k1z_ymm_ymmm256b32_imm8, 0b00),
            (true, _) => (Code::EVEX_Vshuff32x4_ymm_k1z_ymm_ymmm256b32_imm8, 0b11),
            // Counted through both vectors.
            (false, 0) => (Code::VEX_Vperm2f128_ymm_ymm_ymmm256_imm8, 0x20),
            (false, _) => (Code::VEX_Vperm2f128_ymm_ymm_ymmm256_imm8, 0x31),
        };
        let dst = self.reg(VEC);
        self.op(
            code,
            &[Opnd::Def(dst, View::Ymm), Opnd::Use(x, View::Ymm), Opnd::Use(y, View::Ymm), Opnd::Imm8(halves)],
        );
        Some(dst)
    }

    /// Lanes of 4 or 8 bytes in any order, from two vectors of `n` lanes.
    fn permute(&mut self, e: Elem, w: Width, x: VReg, y: VReg, n: usize, lanes: &[u8]) -> Result<VReg, Unsupported> {
        if lanes.iter().enumerate().all(|(i, &l)| i == usize::from(l)) {
            return Ok(x);
        }
        if let Some(r) = self.interleave(e, w, x, y, n, lanes) {
            return Ok(r);
        }
        if self.evex {
            // vpermt2: the table is the first operand and the third, the indices the second.
            let index: Vec<u64> = lanes.iter().map(|&l| u64::from(l)).collect();
            let at = self.pool_vec(e.bytes(), w, &index);
            let idx = self.vec_op(VecOp::LoadU, w, &[Opnd::Mem(Mem::pool(at))]);
            let to = self.reg(VEC);
            let form = if e.bytes() == 4 { VecOp::PermT2Ps } else { VecOp::PermT2Pd };
            self.op(
                form.code(w, true),
                &[Opnd::Tied { to, from: x, view: w.into() }, Opnd::Use(idx, w.into()), Opnd::Use(y, w.into())],
            );
            return Ok(to);
        }
        // AVX2: each source on its own as lanes of 4 bytes, then a blend.
        let words = e.bytes() / 4;
        let index = |from: usize| -> Vec<u64> {
            lanes
                .iter()
                .flat_map(|&l| {
                    let own = usize::from(l).checked_sub(from).filter(|&l| l < n).unwrap_or(0);
                    (0..words).map(move |k| (own * words + k) as u64)
                })
                .collect()
        };
        let uses = |from: usize| lanes.iter().any(|&l| usize::from(l) >= from && usize::from(l) < from + n);
        let mut parts = Vec::new();
        for (r, from) in [(x, 0), (y, n)] {
            if uses(from) {
                let at = self.pool_vec(4, w, &index(from));
                parts.push(if w == Width::X {
                    self.vec2(VecOp::PermIlPs, w, r, VecSrc::Mem(Mem::pool(at)))
                } else {
                    let idx = self.vec_op(VecOp::LoadU, w, &[Opnd::Mem(Mem::pool(at))]);
                    self.vec2(VecOp::PermPs, w, idx, r)
                });
            }
        }
        if let [one] = parts[..] {
            return Ok(one);
        }
        let second: Vec<u64> = lanes.iter().map(|&l| if usize::from(l) >= n { e.bit_mask() } else { 0 }).collect();
        let at = self.pool_vec(e.bytes(), w, &second);
        let mask = self.vec_op(VecOp::LoadU, w, &[Opnd::Mem(Mem::pool(at))]);
        Ok(self.blend(e, w, mask, parts[1], parts[0]))
    }
}
