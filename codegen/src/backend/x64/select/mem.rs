//! Addresses, loads and stores, and what becomes a memory operand.
//!
//! `base + index * scale + disp` is one x86 address when the scale is 1, 2, 4 or 8; another scale's product with the index is
//! made once, where the index is defined (`Select::define`): for an induction variable once an iteration, whatever the number of
//! its uses.

use super::super::inst::{Base, GPR, Mem, Opnd, VEC, View, Width};
use super::super::table::VecOp;
use super::{Repr, Select, Unsupported, VecSrc};
use crate::kir::{Addr, Elem, Type, Value};
use iced_x86::Code;
use regalloc2::VReg;

impl Select<'_> {
    /// An address as a memory operand.
    pub(super) fn mem(&mut self, addr: &Addr) -> Result<Mem, Unsupported> {
        let (base, offset) = match self.get(addr.base)? {
            Repr::Offset(r, d) => (r, i64::from(d)),
            _ => (self.gpr(addr.base)?, 0),
        };
        let mut disp = addr.disp + offset;
        let index = match addr.index {
            None => None,
            Some((i, scale)) => {
                if let Some((_, bits)) = self.constant(i) {
                    disp += (bits[0] as i64).wrapping_mul(scale);
                    None
                } else if let 1 | 2 | 4 | 8 = scale {
                    Some((self.gpr(i)?, scale as u8))
                } else {
                    let product = self.scaled.get(&(i, scale)).copied();
                    Some((product.ok_or_else(|| format!("an index {i} that is used before it is defined"))?, 1))
                }
            }
        };
        match i32::try_from(disp) {
            Ok(disp) => Ok(Mem { base: Base::Reg(base), index, disp, broadcast: false }),
            Err(_) => {
                // Beyond 2 GiB: the displacement goes through a register.
                let far = self.imm(disp);
                let sum = self.lea(Mem { base: Base::Reg(base), index: Some((far, 1)), disp: 0, broadcast: false });
                Ok(Mem { base: Base::Reg(sum), index, disp: 0, broadcast: false })
            }
        }
    }

    pub(super) fn lea(&mut self, m: Mem) -> VReg {
        let dst = self.reg(GPR);
        self.op(Code::Lea_r64_m, &[Opnd::Def(dst, View::R64), Opnd::Mem(m)]);
        dst
    }

    pub(super) fn load_gpr(&mut self, code: Code, view: View, m: Mem) -> VReg {
        let dst = self.reg(GPR);
        self.op(code, &[Opnd::Def(dst, view), Opnd::Mem(m)]);
        dst
    }

    pub(super) fn ptr_add(&mut self, r: Value, addr: &Addr) -> Result<(), Unsupported> {
        let m = self.mem(addr)?;
        match m {
            Mem { base: Base::Reg(base), index: None, disp, .. } => self.set(r, Repr::Offset(base, disp)),
            m => {
                let reg = self.lea(m);
                self.define(r, reg);
            }
        }
        Ok(())
    }

    pub(super) fn load(&mut self, r: Value, ty: Type, addr: &Addr) -> Result<(), Unsupported> {
        let m = self.mem(addr)?;
        if self.may_wait(r)
            && matches!(ty, Type::Vector(..))
            && self.width(ty).is_ok_and(|w| Some(w.bytes()) == ty.bytes())
        {
            self.set(r, Repr::Load(ty, m));
            self.waiting.push(r);
            return Ok(());
        }
        let reg = self.load_now(ty, m)?;
        self.define(r, reg);
        Ok(())
    }

    pub(super) fn load_splat(&mut self, r: Value, ty: Type, addr: &Addr) -> Result<(), Unsupported> {
        let m = self.mem(addr)?;
        if self.evex && self.may_wait(r) && ty.elem().is_some_and(|e| e.bytes() >= 4) {
            self.set(r, Repr::LoadSplat(ty, m));
            self.waiting.push(r);
            return Ok(());
        }
        let reg = self.load_splat_now(ty, m)?;
        self.define(r, reg);
        Ok(())
    }

    /// Makes every waiting load real: before a store, which might change what it reads, and where control leaves the block.
    pub(super) fn settle_loads(&mut self) -> Result<(), Unsupported> {
        for v in std::mem::take(&mut self.waiting) {
            let reg = match self.get(v)? {
                Repr::Load(ty, m) => self.load_now(ty, m)?,
                Repr::LoadSplat(ty, m) => self.load_splat_now(ty, m)?,
                _ => continue,
            };
            self.define(v, reg);
        }
        Ok(())
    }

    /// Loads a scalar or a vector.
    pub(super) fn load_now(&mut self, ty: Type, m: Mem) -> Result<VReg, Unsupported> {
        let bytes = ty.bytes().ok_or_else(|| format!("a load of {ty}"))?;
        if let Type::Scalar(e) = ty
            && !e.is_float()
        {
            let (code, view) = match bytes {
                1 => (Code::Movzx_r32_rm8, View::R32),
                2 => (Code::Movzx_r32_rm16, View::R32),
                4 => (Code::Mov_r32_rm32, View::R32),
                _ => (Code::Mov_r64_rm64, View::R64),
            };
            return Ok(self.load_gpr(code, view, m));
        }
        match bytes {
            4 => Ok(self.load_low(Code::VEX_Vmovd_xmm_rm32, Code::EVEX_Vmovd_xmm_rm32, m)),
            8 => Ok(self.load_low(Code::VEX_Vmovq_xmm_rm64, Code::EVEX_Vmovq_xmm_rm64, m)),
            2 => {
                let r = self.load_gpr(Code::Movzx_r32_rm16, View::R32, m);
                Ok(self.gpr_to_vec(r))
            }
            _ => {
                let w = self.width(ty)?;
                Ok(self.vec_op(VecOp::LoadU, w, &[Opnd::Mem(m)]))
            }
        }
    }

    fn load_low(&mut self, vex: Code, evex: Code, m: Mem) -> VReg {
        let dst = self.reg(VEC);
        self.op(if self.evex { evex } else { vex }, &[Opnd::Def(dst, View::Xmm), Opnd::Mem(m)]);
        dst
    }

    pub(super) fn load_splat_now(&mut self, ty: Type, m: Mem) -> Result<VReg, Unsupported> {
        let w = self.width(ty)?;
        let op = match ty.elem().map(Elem::bytes) {
            Some(1) => VecOp::BroadcastB,
            Some(2) => VecOp::BroadcastW,
            Some(4) => VecOp::BroadcastSs,
            _ if w == Width::X => VecOp::BroadcastQ,
            _ => VecOp::BroadcastSd,
        };
        Ok(self.vec_op(op, w, &[Opnd::Mem(m)]))
    }

    pub(super) fn store(&mut self, addr: &Addr, value: Value) -> Result<(), Unsupported> {
        let ty = self.ty(value);
        if self.class(ty) == GPR {
            let v = self.gpr(value)?;
            self.settle_loads()?;
            let m = self.mem(addr)?;
            self.store_gpr(m, v, ty.bytes().ok_or_else(|| format!("a store of {ty}"))?);
            return Ok(());
        }
        let v = self.vec(value)?;
        self.settle_loads()?;
        let m = self.mem(addr)?;
        self.store_vec(ty, m, v)
    }

    pub(super) fn store_gpr(&mut self, m: Mem, v: VReg, bytes: usize) {
        let (code, view) = match bytes {
            1 => (Code::Mov_rm8_r8, View::R8),
            2 => (Code::Mov_rm16_r16, View::R16),
            4 => (Code::Mov_rm32_r32, View::R32),
            _ => (Code::Mov_rm64_r64, View::R64),
        };
        self.op(code, &[Opnd::Mem(m), Opnd::Use(v, view)]);
    }

    /// Stores the bytes of a scalar float or a vector.
    pub(super) fn store_vec(&mut self, ty: Type, m: Mem, v: VReg) -> Result<(), Unsupported> {
        let evex = self.evex;
        match ty.bytes().unwrap_or(0) {
            2 => {
                let r = self.vec_to_gpr(v);
                self.store_gpr(m, r, 2);
            }
            4 => {
                let code = if evex { Code::EVEX_Vmovd_rm32_xmm } else { Code::VEX_Vmovd_rm32_xmm };
                self.op(code, &[Opnd::Mem(m), Opnd::Use(v, View::Xmm)]);
            }
            8 => {
                let code = if evex { Code::EVEX_Vmovq_rm64_xmm } else { Code::VEX_Vmovq_rm64_xmm };
                self.op(code, &[Opnd::Mem(m), Opnd::Use(v, View::Xmm)]);
            }
            _ => {
                let w = self.width(ty)?;
                self.op(VecOp::StoreU.code(w, evex), &[Opnd::Mem(m), Opnd::Use(v, w.into())]);
            }
        }
        Ok(())
    }

    /// A mask of the first `count` lanes, for the masked moves: a k register, or a vector from the pool.
    fn first_lanes(&mut self, elem: usize, w: Width, count: u8) -> VReg {
        if self.evex {
            let bits = self.imm(((1u64 << count) - 1) as i64);
            return self.gpr_to_k(bits);
        }
        let bytes: Vec<u8> = (0..w.bytes()).map(|i| if i < elem * usize::from(count) { 0xff } else { 0 }).collect();
        let at = self.code.pool.add(&bytes);
        self.vec_op(VecOp::LoadU, w, &[Opnd::Mem(Mem::pool(at))])
    }

    pub(super) fn load_part(&mut self, ty: Type, addr: &Addr, count: u8) -> Result<VReg, Unsupported> {
        let m = self.mem(addr)?;
        let (w, elem) = (self.width(ty)?, ty.elem().map_or(1, Elem::bytes));
        if self.evex {
            let k = self.first_lanes(elem, w, count);
            let dst = self.reg(VEC);
            self.masked(part_load(elem, w), &[Opnd::Def(dst, w.into()), Opnd::Mem(m)], k, true);
            return Ok(dst);
        }
        if elem >= 4 {
            let mask = self.first_lanes(elem, w, count);
            let op = if elem == 4 { VecOp::MaskLoadPs } else { VecOp::MaskLoadPd };
            return Ok(self.vec_op(op, w, &[Opnd::Use(mask, w.into()), Opnd::Mem(m)]));
        }
        // No masked moves for bytes and words: through the frame, in pieces that are powers of two.
        let slot = Mem::frame(self.lanes_slot());
        let zero = self.zero();
        self.op(VecOp::StoreU.code(w, false), &[Opnd::Mem(slot), Opnd::Use(zero, w.into())]);
        self.copy_pieces(m, slot, elem * usize::from(count));
        Ok(self.vec_op(VecOp::LoadU, w, &[Opnd::Mem(slot)]))
    }

    pub(super) fn store_part(&mut self, addr: &Addr, value: Value, count: u8) -> Result<(), Unsupported> {
        let ty = self.ty(value);
        let v = self.vec(value)?;
        self.settle_loads()?;
        let m = self.mem(addr)?;
        let (w, elem) = (self.width(ty)?, ty.elem().map_or(1, Elem::bytes));
        if self.evex {
            let k = self.first_lanes(elem, w, count);
            self.masked(part_store(elem, w), &[Opnd::Mem(m), Opnd::Use(v, w.into())], k, false);
            return Ok(());
        }
        if elem >= 4 {
            let mask = self.first_lanes(elem, w, count);
            let op = if elem == 4 { VecOp::MaskStorePs } else { VecOp::MaskStorePd };
            self.op(op.code(w, false), &[Opnd::Mem(m), Opnd::Use(mask, w.into()), Opnd::Use(v, w.into())]);
            return Ok(());
        }
        let slot = Mem::frame(self.lanes_slot());
        self.op(VecOp::StoreU.code(w, false), &[Opnd::Mem(slot), Opnd::Use(v, w.into())]);
        self.copy_pieces(slot, m, elem * usize::from(count));
        Ok(())
    }

    /// Copies `bytes` through general-purpose registers, never one byte beyond.
    fn copy_pieces(&mut self, from: Mem, to: Mem, bytes: usize) {
        let mut at = 0;
        for piece in [8, 4, 2, 1] {
            while bytes - at >= piece {
                let (code, view) = match piece {
                    8 => (Code::Mov_r64_rm64, View::R64),
                    4 => (Code::Mov_r32_rm32, View::R32),
                    2 => (Code::Movzx_r32_rm16, View::R32),
                    _ => (Code::Movzx_r32_rm8, View::R32),
                };
                let r = self.load_gpr(code, view, from.plus(at as i32));
                self.store_gpr(to.plus(at as i32), r, piece);
                at += piece;
            }
        }
    }

    /// Into L2: what is asked for ahead must not drive what is in use out of L1.
    pub(super) fn prefetch(&mut self, addr: &Addr) -> Result<(), Unsupported> {
        let m = self.mem(addr)?;
        self.op(Code::Prefetcht1_m8, &[Opnd::Mem(m)]);
        Ok(())
    }

    // ---- operands -------------------------------------------------------------------------------------------------

    /// A scalar float or vector in a register.
    pub(super) fn vec(&mut self, v: Value) -> Result<VReg, Unsupported> {
        match self.get(v)? {
            Repr::Reg(r) => Ok(r),
            Repr::Const(ty, lanes) => self.const_vec(ty, &lanes),
            Repr::Load(ty, m) => {
                let r = self.load_now(ty, m)?;
                self.define(v, r);
                Ok(r)
            }
            Repr::LoadSplat(ty, m) => {
                let r = self.load_splat_now(ty, m)?;
                self.define(v, r);
                Ok(r)
            }
            other => Err(format!("{v} as a vector: it is {other:?}")),
        }
    }

    /// A scalar float or vector as the last operand of an instruction: memory where that is possible. `broadcast` says that
    /// the instruction can repeat one element of 4 or 8 bytes.
    pub(super) fn vec_src(&mut self, v: Value, broadcast: bool) -> Result<VecSrc, Unsupported> {
        match self.get(v)? {
            Repr::Load(_, m) => {
                self.set_consumed(v);
                Ok(VecSrc::Mem(m))
            }
            Repr::LoadSplat(_, m) if broadcast => {
                self.set_consumed(v);
                Ok(VecSrc::Mem(m.broadcast()))
            }
            Repr::Const(ty, lanes) if lanes.iter().any(|&l| l != 0) => {
                let w = self.width(ty)?;
                let elem = ty.elem().map_or(1, Elem::bytes);
                let same = lanes.iter().all(|l| *l == lanes[0]);
                if self.evex && broadcast && same && elem >= 4 {
                    let at = self.code.pool.add(&lanes[0].to_le_bytes()[..elem]);
                    return Ok(VecSrc::Mem(Mem::pool(at).broadcast()));
                }
                let at = self.pool_vec(elem, w, &lanes);
                Ok(VecSrc::Mem(Mem::pool(at)))
            }
            _ => Ok(VecSrc::Reg(self.vec(v)?)),
        }
    }

    /// Whether a value is in memory for an instruction that takes its last operand from there.
    pub(super) fn folds(&self, v: Value) -> bool {
        match &self.repr[v.index()] {
            Some(Repr::Load(..) | Repr::LoadSplat(..)) => true,
            Some(Repr::Const(_, lanes)) => lanes.iter().any(|&l| l != 0),
            _ => false,
        }
    }

    /// A waiting load has become its only user's operand.
    fn set_consumed(&mut self, v: Value) {
        self.waiting.retain(|w| *w != v);
        self.repr[v.index()] = None;
    }

    /// The lanes in the pool, repeated to fill a register.
    pub(super) fn pool_vec(&mut self, elem: usize, w: Width, lanes: &[u64]) -> u32 {
        let mut bytes: Vec<u8> = lanes.iter().flat_map(|l| l.to_le_bytes()[..elem].to_vec()).collect();
        while bytes.len() < w.bytes() {
            bytes.extend_from_within(..);
        }
        self.code.pool.add(&bytes)
    }

    pub(super) fn const_vec(&mut self, ty: Type, lanes: &[u64]) -> Result<VReg, Unsupported> {
        let w = self.width(ty)?;
        let elem = ty.elem().map_or(1, Elem::bytes);
        if lanes.iter().all(|&l| l == 0) {
            return Ok(self.zero());
        }
        if lanes.iter().all(|l| *l == lanes[0]) && elem >= 4 {
            let at = self.code.pool.add(&lanes[0].to_le_bytes()[..elem]);
            return self.load_splat_now(
                Type::of(if elem == 4 { Elem::F32 } else { Elem::F64 }, w.bytes() / elem),
                Mem::pool(at),
            );
        }
        let at = self.pool_vec(elem, w, lanes);
        Ok(self.vec_op(VecOp::LoadU, w, &[Opnd::Mem(Mem::pool(at))]))
    }

    /// A register of zeros: of any width, for a write to an xmm clears the rest.
    pub(super) fn zero(&mut self) -> VReg {
        self.vec_op(VecOp::XorD, Width::X, &[Opnd::Same(View::Xmm), Opnd::Same(View::Xmm)])
    }
}

fn part_load(elem: usize, w: Width) -> Code {
    use Code::*;
    let row = match elem {
        1 => [EVEX_Vmovdqu8_xmm_k1z_xmmm128, EVEX_Vmovdqu8_ymm_k1z_ymmm256, EVEX_Vmovdqu8_zmm_k1z_zmmm512],
        2 => [EVEX_Vmovdqu16_xmm_k1z_xmmm128, EVEX_Vmovdqu16_ymm_k1z_ymmm256, EVEX_Vmovdqu16_zmm_k1z_zmmm512],
        4 => [EVEX_Vmovups_xmm_k1z_xmmm128, EVEX_Vmovups_ymm_k1z_ymmm256, EVEX_Vmovups_zmm_k1z_zmmm512],
        _ => [EVEX_Vmovupd_xmm_k1z_xmmm128, EVEX_Vmovupd_ymm_k1z_ymmm256, EVEX_Vmovupd_zmm_k1z_zmmm512],
    };
    row[w as usize]
}

fn part_store(elem: usize, w: Width) -> Code {
    use Code::*;
    let row = match elem {
        1 => [EVEX_Vmovdqu8_xmmm128_k1z_xmm, EVEX_Vmovdqu8_ymmm256_k1z_ymm, EVEX_Vmovdqu8_zmmm512_k1z_zmm],
        2 => [EVEX_Vmovdqu16_xmmm128_k1z_xmm, EVEX_Vmovdqu16_ymmm256_k1z_ymm, EVEX_Vmovdqu16_zmmm512_k1z_zmm],
        4 => [EVEX_Vmovups_xmmm128_k1z_xmm, EVEX_Vmovups_ymmm256_k1z_ymm, EVEX_Vmovups_zmmm512_k1z_zmm],
        _ => [EVEX_Vmovupd_xmmm128_k1z_xmm, EVEX_Vmovupd_ymmm256_k1z_ymm, EVEX_Vmovupd_zmmm512_k1z_zmm],
    };
    row[w as usize]
}
