//! What has no instruction: lane by lane through memory of the frame.
//!
//! Divisions of vectors, 8-bit products and shifts, unusual conversions and shuffles occur in data preparation, not in inner
//! loops. Operands are stored, each lane is loaded, computed as a scalar and stored, and the result is loaded: always right,
//! never fast.

use super::super::inst::{Mem, Opnd, Width};
use super::super::table::VecOp;
use super::{Select, Unsupported};
use crate::kir::{BinaryOp, ConvertOp, Elem, Type, Value};
use regalloc2::VReg;

/// Two operands and a result of 64 bytes each; a second operand of a join stands behind the first.
const RESULT: i32 = 128;

impl Select<'_> {
    /// The frame's memory for this: one piece, reused.
    pub(super) fn lanes_slot(&mut self) -> i32 {
        if let Some(at) = self.lanes_slot {
            return at;
        }
        let at = self.code.frame_slot(RESULT as u32 + 64);
        self.lanes_slot = Some(at);
        at
    }

    /// Stores a whole register at an offset of the slot.
    pub(super) fn spill(&mut self, v: VReg, w: Width, offset: i32) -> i32 {
        let at = self.lanes_slot() + offset;
        self.op(VecOp::StoreU.code(w, self.evex), &[Opnd::Mem(Mem::frame(at)), Opnd::Use(v, w.into())]);
        at
    }

    /// One lane that was stored, as a scalar.
    fn lane(&mut self, e: Elem, at: i32, lane: usize) -> Result<VReg, Unsupported> {
        self.load_now(Type::Scalar(e), Mem::frame(at + (lane * e.bytes()) as i32))
    }

    fn put_lane(&mut self, e: Elem, lane: usize, r: VReg) -> Result<(), Unsupported> {
        let at = self.lanes_slot() + RESULT + (lane * e.bytes()) as i32;
        if e.is_float() {
            return self.store_vec(Type::Scalar(e), Mem::frame(at), r);
        }
        self.store_gpr(Mem::frame(at), r, e.bytes());
        Ok(())
    }

    fn result(&mut self, ty: Type) -> Result<VReg, Unsupported> {
        let (w, at) = (self.width(ty)?, self.lanes_slot() + RESULT);
        Ok(self.vec_op(VecOp::LoadU, w, &[Opnd::Mem(Mem::frame(at))]))
    }

    pub(super) fn slow_binary(&mut self, ty: Type, op: BinaryOp, a: Value, b: Value) -> Result<VReg, Unsupported> {
        let (x, y) = (self.vec(a)?, self.vec(b)?);
        self.slow_binary_regs(ty, op, x, y)
    }

    pub(super) fn slow_binary_regs(&mut self, ty: Type, op: BinaryOp, x: VReg, y: VReg) -> Result<VReg, Unsupported> {
        let e = ty.elem().ok_or_else(|| format!("{op:?} of {ty}"))?;
        let w = self.width(ty)?;
        let (at_x, at_y) = (self.spill(x, w, 0), self.spill(y, w, 64));
        for lane in 0..ty.lanes() {
            let (p, q) = (self.lane(e, at_x, lane)?, self.lane(e, at_y, lane)?);
            let r = self.int_binary_regs(op, e, p, q)?;
            self.put_lane(e, lane, r)?;
        }
        self.result(ty)
    }

    pub(super) fn slow_convert(&mut self, op: ConvertOp, from: Type, to: Type, v: Value) -> Result<VReg, Unsupported> {
        let (Some(f), Some(t)) = (from.elem(), to.elem()) else { return Err(format!("a conversion of {from}")) };
        let (x, w) = (self.vec(v)?, self.width(from)?);
        let at = self.spill(x, w, 0);
        for lane in 0..from.lanes() {
            let p = self.lane(f, at, lane)?;
            let r = self.convert_lane(op, f, t, p);
            self.put_lane(t, lane, r)?;
        }
        self.result(to)
    }

    pub(super) fn slow_shuffle(
        &mut self,
        ty: Type,
        x: VReg,
        y: VReg,
        source: Type,
        lanes: &[u8],
    ) -> Result<VReg, Unsupported> {
        let e = source.elem().ok_or_else(|| format!("a shuffle of {source}"))?;
        let w = self.width(source)?;
        let (at_x, at_y) = (self.spill(x, w, 0), self.spill(y, w, 64));
        for (i, &l) in lanes.iter().enumerate() {
            let l = usize::from(l);
            let (at, lane) = if l < source.lanes() { (at_x, l) } else { (at_y, l - source.lanes()) };
            let p = self.lane(e, at, lane)?;
            self.put_lane(e, i, p)?;
        }
        self.result(ty)
    }
}
