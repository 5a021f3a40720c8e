//! Arithmetic, comparison and conversion.

use super::emit::{Emit, Emitted};
use super::lanes::{clif_elem, clif_vector};
use crate::kir::{BinaryOp, ConvertOp, Elem, FloatCc, IntCc, Type, UnaryOp, Value};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{self, InstBuilder, MemFlagsData, types};

impl Emit<'_, '_> {
    /// `a op b`, using what is known of `b` (a constant, a splat).
    pub fn binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Emitted<ir::Value> {
        let ty = self.ty(a);
        let (x, y) = (self.get(a), self.get(b));
        let constant = self.uniform.get(&b).copied();
        if ty.is_vector() && matches!(op, BinaryOp::Shl | BinaryOp::ShrS | BinaryOp::ShrU) {
            // CLIF shifts all lanes by one scalar.
            let amount = match (constant, self.splats.get(&b)) {
                (Some(bits), _) => Some(self.b.ins().iconst(types::I32, (bits & 63) as i64)),
                (None, Some(&scalar)) => Some(scalar),
                _ => None,
            };
            if let Some(amount) = amount {
                return Ok(match op {
                    BinaryOp::Shl => self.b.ins().ishl(x, amount),
                    BinaryOp::ShrS => self.b.ins().sshr(x, amount),
                    _ => self.b.ins().ushr(x, amount),
                });
            }
        }
        self.binary_values(op, ty, x, y, constant)
    }

    /// `x op y` on values of a type; `constant` is the bits of every lane of `y` where these are known.
    pub fn binary_values(
        &mut self,
        op: BinaryOp,
        ty: Type,
        x: ir::Value,
        y: ir::Value,
        constant: Option<u64>,
    ) -> Emitted<ir::Value> {
        use BinaryOp::*;
        if ty.is_vector() && !self.vector_has(op, ty) {
            let lane = ty.lane();
            return self.per_lane(ty, &[x, y], |e, l| e.binary_values(op, lane, l[0], l[1], constant));
        }
        Ok(match op {
            Add => self.b.ins().iadd(x, y),
            Sub => self.b.ins().isub(x, y),
            Mul => self.b.ins().imul(x, y),
            DivS | DivU | RemS | RemU => self.divide(op, ty, x, y, constant),
            Shl => self.b.ins().ishl(x, y),
            ShrS => self.b.ins().sshr(x, y),
            ShrU => self.b.ins().ushr(x, y),
            MinS => self.b.ins().smin(x, y),
            MaxS => self.b.ins().smax(x, y),
            MinU => self.b.ins().umin(x, y),
            MaxU => self.b.ins().umax(x, y),
            And => self.b.ins().band(x, y),
            Or => self.b.ins().bor(x, y),
            Xor => self.b.ins().bxor(x, y),
            FAdd => self.b.ins().fadd(x, y),
            FSub => self.b.ins().fsub(x, y),
            FMul => self.b.ins().fmul(x, y),
            FDiv => self.b.ins().fdiv(x, y),
            PMin => self.pseudo_min_max(ty, FloatCC::LessThan, x, y, (x, y))?,
            // Written with the operands of the comparison swapped: the form that Cranelift knows as `maxps`.
            PMax => self.pseudo_min_max(ty, FloatCC::LessThan, x, y, (y, x))?,
            FMin => self.b.ins().fmin(x, y),
            FMax => self.b.ins().fmax(x, y),
        })
    }

    /// Has CLIF this operation on whole vectors, without calls, on both machines?
    fn vector_has(&self, op: BinaryOp, ty: Type) -> bool {
        use BinaryOp::*;
        let elem = ty.elem().expect("a vector");
        match op {
            DivS | DivU | RemS | RemU | Shl | ShrS | ShrU => false,
            Mul => elem != Elem::I8,
            MinS | MaxS | MinU | MaxU => elem != Elem::I64,
            _ => true,
        }
    }

    /// `cc(c.0, c.1) ? x : y`.
    fn pseudo_min_max(
        &mut self,
        ty: Type,
        cc: FloatCC,
        x: ir::Value,
        y: ir::Value,
        c: (ir::Value, ir::Value),
    ) -> Emitted<ir::Value> {
        if ty.is_vector() {
            let less = self.b.ins().fcmp(cc, c.0, c.1);
            let clif = self.clif_type(ty)?;
            let less = self.reinterpret(clif, less);
            return Ok(self.b.ins().bitselect(less, x, y));
        }
        if !self.x86 {
            let less = self.b.ins().fcmp(cc, c.0, c.1);
            return Ok(self.b.ins().select(less, x, y));
        }
        // A scalar is lane 0 of a register there: one instruction instead of a branch.
        let vector = clif_vector(ty.elem().expect("a float"));
        let wide = |e: &mut Self, v| e.b.ins().scalar_to_vector(vector, v);
        let (vx, vy) = (wide(self, x), wide(self, y));
        let c = if c.0 == x { (vx, vy) } else { (vy, vx) };
        let less = self.b.ins().fcmp(cc, c.0, c.1);
        let less = self.reinterpret(vector, less);
        let v = self.b.ins().bitselect(less, vx, vy);
        Ok(self.b.ins().extractlane(v, 0))
    }

    /// Scalar division that never traps: `x / 0 = 0`, `x % 0 = x`, `MIN / -1` wraps. Constant divisors need no check.
    fn divide(&mut self, op: BinaryOp, ty: Type, x: ir::Value, y: ir::Value, constant: Option<u64>) -> ir::Value {
        let elem = ty.elem().expect("an integer");
        if elem.bits() < 32 {
            // In 32 bits, the quotient of the smallest number by -1 fits.
            let wide = |e: &mut Self, v| match op {
                BinaryOp::DivS | BinaryOp::RemS => e.b.ins().sextend(types::I32, v),
                _ => e.b.ins().uextend(types::I32, v),
            };
            let (x, y) = (wide(self, x), wide(self, y));
            let r = self.divide(op, Type::Scalar(Elem::I32), x, y, None);
            return self.b.ins().ireduce(clif_elem(elem), r);
        }
        let clif = clif_elem(elem);
        let signed = matches!(op, BinaryOp::DivS | BinaryOp::RemS);
        let plain = |e: &mut Self, d| match op {
            BinaryOp::DivS => e.b.ins().sdiv(x, d),
            BinaryOp::DivU => e.b.ins().udiv(x, d),
            BinaryOp::RemS => e.b.ins().srem(x, d),
            _ => e.b.ins().urem(x, d),
        };
        if constant.is_some_and(|d| d != 0 && d != elem.bit_mask()) {
            return plain(self, y);
        }
        let zero = self.b.ins().iconst(clif, 0);
        let one = self.b.ins().iconst(clif, 1);
        let by_zero = self.b.ins().icmp(IntCC::Equal, y, zero);
        // Divide by 1 instead where it would trap, then put the defined result there.
        let safe = self.b.ins().select(by_zero, one, y);
        let (safe, by_minus_one) = if signed {
            let ones = self.b.ins().iconst(clif, elem.bit_mask() as i64);
            let by_minus_one = self.b.ins().icmp(IntCC::Equal, y, ones);
            (self.b.ins().select(by_minus_one, one, safe), Some(by_minus_one))
        } else {
            (safe, None)
        };
        let r = plain(self, safe);
        match op {
            BinaryOp::DivS | BinaryOp::DivU => {
                let r = match by_minus_one {
                    Some(c) => {
                        let negated = self.b.ins().ineg(x);
                        self.b.ins().select(c, negated, r)
                    }
                    None => r,
                };
                self.b.ins().select(by_zero, zero, r)
            }
            _ => self.b.ins().select(by_zero, x, r),
        }
    }

    /// `op(v)`.
    pub fn unary(&mut self, op: UnaryOp, ty: Type, v: ir::Value) -> Emitted<ir::Value> {
        Ok(match op {
            UnaryOp::INeg => self.b.ins().ineg(v),
            UnaryOp::Not if ty == Type::Mask(1) => {
                let one = self.b.ins().iconst(types::I8, 1);
                self.b.ins().bxor(v, one)
            }
            UnaryOp::Not => self.b.ins().bnot(v),
            UnaryOp::FNeg => self.b.ins().fneg(v),
            UnaryOp::FAbs => self.b.ins().fabs(v),
            UnaryOp::Sqrt => self.b.ins().sqrt(v),
            UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::Nearest if self.x86 => {
                self.round_sse2(op, ty, v)?
            }
            UnaryOp::Floor => self.b.ins().floor(v),
            UnaryOp::Ceil => self.b.ins().ceil(v),
            UnaryOp::Trunc => self.b.ins().trunc(v),
            UnaryOp::Nearest => self.b.ins().nearest(v),
        })
    }

    /// Rounding without SSE4.1's `roundps`.
    ///
    /// Below 2^(p-1), p the precision, `(|x| + 2^(p-1)) - 2^(p-1)` is `|x|` rounded to nearest even, since the sum has no
    /// bits left for a fraction; from there on every number is integral, and NaN must stay: x itself. The directed
    /// roundings subtract or add 1 where that went past x. The sign is put back last, for -0.
    fn round_sse2(&mut self, op: UnaryOp, ty: Type, x: ir::Value) -> Emitted<ir::Value> {
        let elem = ty.elem().expect("a float");
        let (sign, limit, one) = match elem {
            Elem::F32 => (1 << 31, u64::from(8_388_608f32.to_bits()), u64::from(1f32.to_bits())),
            _ => (1 << 63, 4_503_599_627_370_496f64.to_bits(), 1f64.to_bits()),
        };
        // Scalars are lane 0 of a register anyway; vectors have bitwise operations without a way through integers.
        let vector = clif_vector(elem);
        let v = if ty.is_vector() { x } else { self.b.ins().scalar_to_vector(vector, x) };
        let [sign, limit, one] = [sign, limit, one].map(|bits| self.fill(elem, bits));
        let magnitude = self.b.ins().band_not(v, sign);
        let sum = self.b.ins().fadd(magnitude, limit);
        let nearest = self.b.ins().fsub(sum, limit);
        let signs = self.b.ins().band(v, sign);
        let rounded = match op {
            UnaryOp::Nearest => nearest,
            UnaryOp::Trunc => {
                let past = self.b.ins().fcmp(FloatCC::LessThan, magnitude, nearest);
                let past = self.reinterpret(vector, past);
                let one = self.b.ins().band(past, one);
                self.b.ins().fsub(nearest, one)
            }
            _ => {
                let signed = self.b.ins().bor(nearest, signs);
                let down = op == UnaryOp::Floor;
                let (a, b) = if down { (v, signed) } else { (signed, v) };
                let past = self.b.ins().fcmp(FloatCC::LessThan, a, b);
                let past = self.reinterpret(vector, past);
                let one = self.b.ins().band(past, one);
                let r = if down { self.b.ins().fsub(signed, one) } else { self.b.ins().fadd(signed, one) };
                self.b.ins().band_not(r, sign)
            }
        };
        let rounded = self.b.ins().bor(rounded, signs);
        let small = self.b.ins().fcmp(FloatCC::LessThan, magnitude, limit);
        let small = self.reinterpret(vector, small);
        let r = self.b.ins().bitselect(small, rounded, v);
        Ok(if ty.is_vector() { r } else { self.b.ins().extractlane(r, 0) })
    }

    /// Compares integers.
    pub fn icmp(&mut self, cc: IntCc, ty: Type, a: ir::Value, b: ir::Value) -> Emitted<ir::Value> {
        let cc = match cc {
            IntCc::Eq => IntCC::Equal,
            IntCc::Ne => IntCC::NotEqual,
            IntCc::LtS => IntCC::SignedLessThan,
            IntCc::LeS => IntCC::SignedLessThanOrEqual,
            IntCc::GtS => IntCC::SignedGreaterThan,
            IntCc::GeS => IntCC::SignedGreaterThanOrEqual,
            IntCc::LtU => IntCC::UnsignedLessThan,
            IntCc::LeU => IntCC::UnsignedLessThanOrEqual,
            IntCc::GtU => IntCC::UnsignedGreaterThan,
            IntCc::GeU => IntCC::UnsignedGreaterThanOrEqual,
        };
        let r = self.b.ins().icmp(cc, a, b);
        Ok(if ty.is_vector() { self.widen_mask(ty.lanes(), ty.elem().expect("a vector"), r) } else { r })
    }

    /// Compares floats.
    pub fn fcmp(&mut self, cc: FloatCc, ty: Type, a: ir::Value, b: ir::Value) -> Emitted<ir::Value> {
        let plain = |cc: FloatCC, e: &mut Self, a, b| e.b.ins().fcmp(cc, a, b);
        let r = match cc {
            FloatCc::Eq => plain(FloatCC::Equal, self, a, b),
            FloatCc::Ne => plain(FloatCC::NotEqual, self, a, b),
            FloatCc::Lt => plain(FloatCC::LessThan, self, a, b),
            FloatCc::Le => plain(FloatCC::LessThanOrEqual, self, a, b),
            FloatCc::Gt => plain(FloatCC::GreaterThan, self, a, b),
            FloatCc::Ge => plain(FloatCC::GreaterThanOrEqual, self, a, b),
            FloatCc::Ordered | FloatCc::Unordered if self.x86 || !ty.is_vector() => {
                let cc = if cc == FloatCc::Ordered { FloatCC::Ordered } else { FloatCC::Unordered };
                plain(cc, self, a, b)
            }
            // NEON has no such comparison: a number is what equals itself.
            FloatCc::Unordered if a == b => plain(FloatCC::NotEqual, self, a, a),
            _ => {
                let number = plain(FloatCC::Equal, self, a, a);
                let both = if a == b {
                    number
                } else {
                    let other = plain(FloatCC::Equal, self, b, b);
                    self.b.ins().band(number, other)
                };
                if cc == FloatCc::Ordered { both } else { self.b.ins().bnot(both) }
            }
        };
        Ok(if ty.is_vector() { self.widen_mask(ty.lanes(), ty.elem().expect("a vector").as_int(), r) } else { r })
    }

    /// To another element type.
    pub fn convert(&mut self, op: ConvertOp, from: Type, to: Type, v: ir::Value) -> Emitted<ir::Value> {
        let clif = self.clif_type(to)?;
        let (Some(f), Some(t)) = (from.elem(), to.elem()) else {
            unreachable!("kernels are verified: conversions are between elements");
        };
        if op == ConvertOp::Bitcast {
            return Ok(if from.is_vector() {
                self.reinterpret(clif, v)
            } else {
                self.b.ins().bitcast(clif, MemFlagsData::new(), v)
            });
        }
        if from.is_vector() { self.convert_vector(op, f, to, v) } else { Ok(self.convert_scalar(op, f, t, v)) }
    }

    fn convert_scalar(&mut self, op: ConvertOp, from: Elem, to: Elem, v: ir::Value) -> ir::Value {
        let clif = clif_elem(to);
        match op {
            ConvertOp::SExt => self.b.ins().sextend(clif, v),
            ConvertOp::ZExt => self.b.ins().uextend(clif, v),
            ConvertOp::Narrow => self.b.ins().ireduce(clif, v),
            ConvertOp::Promote => self.b.ins().fpromote(clif, v),
            ConvertOp::Demote => self.b.ins().fdemote(clif, v),
            ConvertOp::FromS => {
                let v = if from.bits() < 32 { self.b.ins().sextend(types::I32, v) } else { v };
                self.b.ins().fcvt_from_sint(clif, v)
            }
            ConvertOp::FromU if from.bits() < 32 => {
                let v = self.b.ins().uextend(types::I32, v);
                self.b.ins().fcvt_from_sint(clif, v)
            }
            ConvertOp::FromU => self.b.ins().fcvt_from_uint(clif, v),
            ConvertOp::ToS | ConvertOp::ToU if to.bits() < 32 => {
                let wide = self.b.ins().fcvt_to_sint_sat(types::I32, v);
                let (low, high) = range(op, to);
                let (low, high) = (self.b.ins().iconst(types::I32, low), self.b.ins().iconst(types::I32, high));
                let x = self.b.ins().smax(wide, low);
                let x = self.b.ins().smin(x, high);
                self.b.ins().ireduce(clif, x)
            }
            ConvertOp::ToS => self.b.ins().fcvt_to_sint_sat(clif, v),
            ConvertOp::ToU => self.b.ins().fcvt_to_uint_sat(clif, v),
            ConvertOp::Bitcast => unreachable!("done by the caller"),
        }
    }

    fn convert_vector(&mut self, op: ConvertOp, from: Elem, to: Type, v: ir::Value) -> Emitted<ir::Value> {
        let t = to.elem().expect("a vector");
        Ok(match op {
            ConvertOp::SExt | ConvertOp::ZExt => self.widen(op == ConvertOp::SExt, v, from, t),
            ConvertOp::Narrow => {
                let (mut v, mut e) = (v, from);
                while e != t {
                    (v, e) = self.halve(v, e);
                }
                v
            }
            ConvertOp::Promote => self.b.ins().fvpromote_low(v),
            ConvertOp::Demote => self.b.ins().fvdemote(v),
            ConvertOp::FromS | ConvertOp::FromU if from != Elem::I64 => {
                let signed = op == ConvertOp::FromS;
                let narrow = from.bits() < 32;
                let v = self.widen(signed, v, from, Elem::I32);
                // Narrow unsigned numbers are non-negative in 32 bits.
                let signed = signed || narrow;
                let v = match (t, signed) {
                    (Elem::F32, _) => v,
                    (_, true) => self.b.ins().swiden_low(v),
                    (_, false) => self.b.ins().uwiden_low(v),
                };
                let clif = clif_vector(t);
                if signed { self.b.ins().fcvt_from_sint(clif, v) } else { self.b.ins().fcvt_from_uint(clif, v) }
            }
            ConvertOp::ToS | ConvertOp::ToU if from == Elem::F32 && t != Elem::I64 => {
                if t == Elem::I32 && op == ConvertOp::ToU {
                    return Ok(self.b.ins().fcvt_to_uint_sat(types::I32X4, v));
                }
                let mut x = self.b.ins().fcvt_to_sint_sat(types::I32X4, v);
                if t != Elem::I32 {
                    let (low, high) = range(op, t);
                    let (low, high) = (self.fill(Elem::I32, low as u64), self.fill(Elem::I32, high as u64));
                    x = self.b.ins().smax(x, low);
                    x = self.b.ins().smin(x, high);
                }
                let mut e = Elem::I32;
                while e != t {
                    (x, e) = self.halve(x, e);
                }
                x
            }
            _ => return self.per_lane(to, &[v], |e, l| Ok(e.convert_scalar(op, from, t, l[0]))),
        })
    }

    /// Extends integer lanes, which stand low.
    fn widen(&mut self, signed: bool, v: ir::Value, from: Elem, to: Elem) -> ir::Value {
        let (mut v, mut bits) = (v, from.bits());
        while bits < to.bits() {
            bits *= 2;
            v = if signed { self.b.ins().swiden_low(v) } else { self.b.ins().uwiden_low(v) };
        }
        v
    }
}

/// The values of a narrow integer type.
fn range(op: ConvertOp, to: Elem) -> (i64, i64) {
    let bits = to.bits();
    if op == ConvertOp::ToS { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}
