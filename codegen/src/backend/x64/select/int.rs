//! Scalar integers and pointers, in general-purpose registers.
//!
//! Arithmetic is done on 64 bits whatever the width: the low bits are right, and what reads beyond them (comparison, division,
//! shifts to the right, conversion) extends first. Division follows the kernel IR: it never traps.

use super::super::inst::{Base, Cond, Fixed, GPR, Inst, Mem, Opnd, View};
use super::{Repr, Select, Unsupported};
use crate::kir::{BinaryOp, Elem, IntCc, Type, UnaryOp, Value};
use iced_x86::Code;
use regalloc2::VReg;
use smallvec::smallvec;

/// A register or an immediate of 32 bits, sign-extended.
#[derive(Clone, Copy)]
pub(super) enum IntSrc {
    Reg(VReg),
    Imm(i32),
}

impl From<VReg> for IntSrc {
    fn from(r: VReg) -> IntSrc {
        IntSrc::Reg(r)
    }
}

impl Select<'_> {
    /// A scalar integer or pointer in a register.
    pub(super) fn gpr(&mut self, v: Value) -> Result<VReg, Unsupported> {
        match self.get(v)? {
            Repr::Reg(r) => Ok(r),
            Repr::Offset(r, 0) => Ok(r),
            Repr::Offset(r, d) => Ok(self.lea(Mem::at(r, d))),
            Repr::Const(_, bits) => Ok(self.imm(bits[0] as i64)),
            Repr::Compare(..) => self.cond_gpr(v),
            other => Err(format!("{v} as an integer: it is {other:?}")),
        }
    }

    /// A scalar integer as an immediate where it is one.
    pub(super) fn int_src(&mut self, v: Value) -> Result<IntSrc, Unsupported> {
        if let Some((_, bits)) = self.constant(v)
            && let Ok(i) = i32::try_from(bits[0] as i64)
        {
            return Ok(IntSrc::Imm(i));
        }
        self.gpr(v).map(IntSrc::Reg)
    }

    /// A constant in a register.
    pub(super) fn imm(&mut self, x: i64) -> VReg {
        let dst = self.reg(GPR);
        if let Ok(u) = u32::try_from(x) {
            self.op(Code::Mov_r32_imm32, &[Opnd::Def(dst, View::R32), Opnd::Imm32(u)]);
        } else if let Ok(i) = i32::try_from(x) {
            self.op(Code::Mov_rm64_imm32, &[Opnd::Def(dst, View::R64), Opnd::Imm32Sx(i)]);
        } else {
            self.op(Code::Mov_r64_imm64, &[Opnd::Def(dst, View::R64), Opnd::Imm64(x as u64)]);
        }
        dst
    }

    pub(super) fn add_imm(&mut self, r: VReg, x: i64) -> VReg {
        match i32::try_from(x) {
            // Tied, not `lea`: the usual case is an induction variable, which stays in its register, and `add` runs on more ports.
            Ok(i) => self.tied(Code::Add_rm64_imm32, r, Opnd::Imm32Sx(i)),
            Err(_) => {
                let i = self.imm(x);
                self.tied(Code::Add_r64_rm64, r, Opnd::Use(i, View::R64))
            }
        }
    }

    pub(super) fn mul_imm(&mut self, r: VReg, x: i64) -> VReg {
        if x > 0 && x.count_ones() == 1 {
            return self.tied(Code::Shl_rm64_imm8, r, Opnd::Imm8(x.trailing_zeros() as u8));
        }
        match i32::try_from(x) {
            Ok(i) => {
                let dst = self.reg(GPR);
                self.op(
                    Code::Imul_r64_rm64_imm32,
                    &[Opnd::Def(dst, View::R64), Opnd::Use(r, View::R64), Opnd::Imm32Sx(i)],
                );
                dst
            }
            Err(_) => {
                let i = self.imm(x);
                self.tied(Code::Imul_r64_rm64, r, Opnd::Use(i, View::R64))
            }
        }
    }

    /// `r = r op src`, as a new value.
    pub(super) fn tied(&mut self, code: Code, r: VReg, src: Opnd) -> VReg {
        let to = self.reg(GPR);
        self.op(code, &[Opnd::Tied { to, from: r, view: View::R64 }, src]);
        to
    }

    /// Sets the flags of `a - b`.
    pub(super) fn compare(&mut self, a: VReg, b: impl Into<IntSrc>) {
        match b.into() {
            IntSrc::Reg(b) => self.op(Code::Cmp_r64_rm64, &[Opnd::Use(a, View::R64), Opnd::Use(b, View::R64)]),
            IntSrc::Imm(0) => self.op(Code::Test_rm64_r64, &[Opnd::Use(a, View::R64), Opnd::Use(a, View::R64)]),
            IntSrc::Imm(i) => self.op(Code::Cmp_rm64_imm32, &[Opnd::Use(a, View::R64), Opnd::Imm32Sx(i)]),
        }
    }

    /// `cond ? a : b`, right after the flags were set.
    pub(super) fn cmov(&mut self, cond: Cond, a: VReg, b: VReg) -> VReg {
        self.tied(cond.cmov(), b, Opnd::Use(a, View::R64))
    }

    /// The value extended to 64 bits.
    pub(super) fn extended(&mut self, r: VReg, elem: Elem, signed: bool) -> VReg {
        let dst = self.reg(GPR);
        let (code, to, from) = match (elem.bytes(), signed) {
            (8, _) => return r,
            (4, true) => (Code::Movsxd_r64_rm32, View::R64, View::R32),
            (4, false) => (Code::Mov_r32_rm32, View::R32, View::R32),
            (2, true) => (Code::Movsx_r64_rm16, View::R64, View::R16),
            (2, false) => (Code::Movzx_r32_rm16, View::R32, View::R16),
            (_, true) => (Code::Movsx_r64_rm8, View::R64, View::R8),
            (_, false) => (Code::Movzx_r32_rm8, View::R32, View::R8),
        };
        self.op(code, &[Opnd::Def(dst, to), Opnd::Use(r, from)]);
        dst
    }

    fn extended_value(&mut self, v: Value, signed: bool) -> Result<VReg, Unsupported> {
        let elem = self.ty(v).elem().unwrap_or(Elem::I64);
        let r = self.gpr(v)?;
        Ok(self.extended(r, elem, signed))
    }

    pub(super) fn int_unary(&mut self, op: UnaryOp, a: Value) -> Result<VReg, Unsupported> {
        let code = match op {
            UnaryOp::INeg => Code::Neg_rm64,
            UnaryOp::Not => Code::Not_rm64,
            _ => return Err(format!("{op:?} of an integer")),
        };
        let r = self.gpr(a)?;
        let to = self.reg(GPR);
        self.op(code, &[Opnd::Tied { to, from: r, view: View::R64 }]);
        Ok(to)
    }

    pub(super) fn int_binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Result<VReg, Unsupported> {
        let elem = self.ty(a).elem().unwrap_or(Elem::I64);
        let x = self.gpr(a)?;
        // Immediates where they save a register.
        match (op, self.int_src(b)?) {
            (BinaryOp::Add, IntSrc::Imm(i)) => return Ok(self.lea(Mem::at(x, i))),
            (BinaryOp::Sub, IntSrc::Imm(i)) if i != i32::MIN => return Ok(self.lea(Mem::at(x, -i))),
            (BinaryOp::And, IntSrc::Imm(i)) => return Ok(self.tied(Code::And_rm64_imm32, x, Opnd::Imm32Sx(i))),
            (BinaryOp::Mul, IntSrc::Imm(i)) => return Ok(self.mul_imm(x, i64::from(i))),
            (BinaryOp::Shl | BinaryOp::ShrS | BinaryOp::ShrU, IntSrc::Imm(i)) => {
                let amount = (i64::from(i) & (elem.bits() as i64 - 1)) as u8;
                let code = match op {
                    BinaryOp::Shl => Code::Shl_rm64_imm8,
                    BinaryOp::ShrS => Code::Sar_rm64_imm8,
                    _ => Code::Shr_rm64_imm8,
                };
                let x = if op == BinaryOp::Shl { x } else { self.extended(x, elem, op == BinaryOp::ShrS) };
                return Ok(self.tied(code, x, Opnd::Imm8(amount)));
            }
            _ => {}
        }
        let y = self.gpr(b)?;
        self.int_binary_regs(op, elem, x, y)
    }

    /// The same for registers.
    pub(super) fn int_binary_regs(&mut self, op: BinaryOp, elem: Elem, x: VReg, y: VReg) -> Result<VReg, Unsupported> {
        use BinaryOp::*;
        let signed = matches!(op, MinS | MaxS | DivS | RemS | ShrS);
        match op {
            Add => Ok(self.lea(Mem { base: Base::Reg(x), index: Some((y, 1)), disp: 0, broadcast: false })),
            Sub => Ok(self.tied(Code::Sub_r64_rm64, x, Opnd::Use(y, View::R64))),
            And => Ok(self.tied(Code::And_r64_rm64, x, Opnd::Use(y, View::R64))),
            Or => Ok(self.tied(Code::Or_r64_rm64, x, Opnd::Use(y, View::R64))),
            Xor => Ok(self.tied(Code::Xor_r64_rm64, x, Opnd::Use(y, View::R64))),
            Mul => Ok(self.tied(Code::Imul_r64_rm64, x, Opnd::Use(y, View::R64))),
            Shl | ShrS | ShrU => {
                let x = if op == Shl { x } else { self.extended(x, elem, signed) };
                let n = self.tied(Code::And_rm64_imm8, y, Opnd::Imm8Sx((elem.bits() - 1) as i8));
                let code = match op {
                    Shl => Code::VEX_Shlx_r64_rm64_r64,
                    ShrS => Code::VEX_Sarx_r64_rm64_r64,
                    _ => Code::VEX_Shrx_r64_rm64_r64,
                };
                let dst = self.reg(GPR);
                self.op(code, &[Opnd::Def(dst, View::R64), Opnd::Use(x, View::R64), Opnd::Use(n, View::R64)]);
                Ok(dst)
            }
            MinS | MaxS | MinU | MaxU => {
                let (x, y) = (self.extended(x, elem, signed), self.extended(y, elem, signed));
                self.compare(x, y);
                let cond = match op {
                    MinS => Cond::L,
                    MaxS => Cond::G,
                    MinU => Cond::B,
                    _ => Cond::A,
                };
                Ok(self.cmov(cond, x, y))
            }
            DivS | RemS | DivU | RemU => {
                let (x, y) = (self.extended(x, elem, signed), self.extended(y, elem, signed));
                Ok(self.divide(x, y, signed, matches!(op, RemS | RemU)))
            }
            FAdd | FSub | FMul | FDiv | PMin | PMax | FMin | FMax => Err(format!("{op:?} of integers")),
        }
    }

    /// Quotient or remainder of 64 bits: the divisors 0 and -1, on which x86 traps or may trap, are replaced by 1 and their
    /// results put in afterwards.
    fn divide(&mut self, x: VReg, y: VReg, signed: bool, remainder: bool) -> VReg {
        let one = self.imm(1);
        let zero = self.imm(0);
        self.compare(y, IntSrc::Imm(0));
        let mut divisor = self.cmov(Cond::E, one, y);
        if signed {
            self.compare(divisor, IntSrc::Imm(-1));
            divisor = self.cmov(Cond::E, one, divisor);
        }
        let (quotient, rest) = (self.reg(GPR), self.reg(GPR));
        let high = if signed { self.tied(Code::Sar_rm64_imm8, x, Opnd::Imm8(63)) } else { zero };
        const RAX: u8 = 0;
        const RDX: u8 = 2;
        self.push(Inst::Op {
            code: if signed { Code::Idiv_rm64 } else { Code::Div_rm64 },
            ops: smallvec![Opnd::Use(divisor, View::R64)],
            mask: None,
            fixed: smallvec![
                Fixed::Use(x, RAX),
                Fixed::Use(high, RDX),
                Fixed::Def(quotient, RAX),
                Fixed::Def(rest, RDX)
            ],
        });
        let mut result = if remainder { rest } else { quotient };
        if signed {
            let of_minus_one = if remainder {
                zero
            } else {
                let to = self.reg(GPR);
                self.op(Code::Neg_rm64, &[Opnd::Tied { to, from: x, view: View::R64 }]);
                to
            };
            self.compare(y, IntSrc::Imm(-1));
            result = self.cmov(Cond::E, of_minus_one, result);
        }
        self.compare(y, IntSrc::Imm(0));
        self.cmov(Cond::E, if remainder { x } else { zero }, result)
    }

    /// Sets the flags of an integer comparison; the condition that then tells its result.
    pub(super) fn int_flags(&mut self, cc: IntCc, a: Value, b: Value) -> Result<Cond, Unsupported> {
        let signed = matches!(cc, IntCc::LtS | IntCc::LeS | IntCc::GtS | IntCc::GeS | IntCc::Eq | IntCc::Ne);
        let x = self.extended_value(a, signed)?;
        // Constants are kept zero-extended; what is compared is extended as the comparison says.
        let elem = match self.ty(b) {
            Type::Scalar(e) => e,
            _ => Elem::I64,
        };
        let y = match self.constant(b) {
            Some((_, bits)) => {
                let shift = 64 - elem.bits();
                let wide = if signed { ((bits[0] << shift) as i64) >> shift } else { bits[0] as i64 };
                match i32::try_from(wide) {
                    Ok(i) => IntSrc::Imm(i),
                    Err(_) => IntSrc::Reg(self.imm(wide)),
                }
            }
            None => IntSrc::Reg(self.extended_value(b, signed)?),
        };
        self.compare(x, y);
        Ok(match cc {
            IntCc::Eq => Cond::E,
            IntCc::Ne => Cond::Ne,
            IntCc::LtS => Cond::L,
            IntCc::LeS => Cond::Le,
            IntCc::GtS => Cond::G,
            IntCc::GeS => Cond::Ge,
            IntCc::LtU => Cond::B,
            IntCc::LeU => Cond::Be,
            IntCc::GtU => Cond::A,
            IntCc::GeU => Cond::Ae,
        })
    }
}
