//! Pointwise programs as kernel IR: the body of every elementwise kernel, and the epilogue of every other one.
//!
//! [`emit`] turns a [`Pointwise`] program into instructions on values of any lane count, one for one: the reference
//! evaluator of `ir` is the definition of each function, functions beyond arithmetic are [`crate::math`]'s.
//!
//! ```text
//! dtype        in a program                         in memory
//! f32, f64     scalar or vector of it               the same
//! i8 .. u64    scalar or vector of the width        the same; signedness is in the operations
//! bool         mask                                 i8, 0 or 1: [`from_memory`], [`to_memory`]
//! ```
//!
//! A sum whose operand is a product that nothing else uses becomes a [`MulAdd`](crate::kir::Op::MulAdd), which rounds once
//! where the target has it. All other floating-point instructions round as the reference does.

use crate::kir::{Builder, ConvertOp, Elem, FloatCc, I64, IntCc, Type, Value};
use crate::math;
use crate::target::Target;
use nncc_ir::pointwise::{BinaryFn, CompareFn, Inst, Ref, Scalar, UnaryFn};
use nncc_ir::{DType, Pointwise};

/// The element type that holds a dtype, in memory and (but for `Bool`) in programs.
pub fn elem_of(dtype: DType) -> Elem {
    match dtype {
        DType::F32 => Elem::F32,
        DType::F64 => Elem::F64,
        DType::I8 | DType::U8 | DType::Bool => Elem::I8,
        DType::I16 | DType::U16 => Elem::I16,
        DType::I32 | DType::U32 => Elem::I32,
        DType::I64 | DType::U64 => Elem::I64,
    }
}

/// The lanes on which a program runs: as many as one register holds of its widest type.
pub fn lanes(target: &Target, p: &Pointwise) -> usize {
    let types = p.insts().iter().map(|(_, t)| *t).chain(p.inputs().iter().copied());
    types.map(|t| target.lanes(elem_of(t))).min().unwrap_or(1)
}

/// A value as it was loaded, in the form that programs take.
pub fn from_memory(b: &mut Builder, dtype: DType, v: Value) -> Value {
    if dtype == DType::Bool { b.int_to_mask(v) } else { v }
}

/// A value of a program in the form that is stored.
pub fn to_memory(b: &mut Builder, dtype: DType, v: Value) -> Value {
    if dtype == DType::Bool { b.mask_to_int(v) } else { v }
}

/// Appends a program on values of `lanes` lanes; `inputs` are its operands in the form of programs. Gives its result.
///
/// # Panics
/// When the program is ill typed ([`Pointwise::check`]) or the operands do not fit it: bugs of the caller.
#[track_caller]
pub fn emit(b: &mut Builder, p: &Pointwise, lanes: usize, inputs: &[Value]) -> Value {
    emit_all(b, p, lanes, inputs)[p.result().0 as usize]
}

/// Appends a program whose results are summed up: `acc + result`, as one [`MulAdd`](crate::kir::Op::MulAdd) where the result
/// is a product.
pub fn emit_sum(b: &mut Builder, p: &Pointwise, lanes: usize, inputs: &[Value], acc: Value) -> Value {
    let values = emit_all(b, p, lanes, inputs);
    let at = |r: Ref| values[r.0 as usize];
    match p.insts()[p.result().0 as usize] {
        (Inst::Binary(BinaryFn::Mul, f, g), ty) if ty.is_float() => b.mul_add(at(f), at(g), acc),
        _ => b.add(acc, at(p.result())),
    }
}

/// The values of all instructions.
#[track_caller]
fn emit_all(b: &mut Builder, p: &Pointwise, lanes: usize, inputs: &[Value]) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::with_capacity(p.insts().len());
    for &(inst, ty) in p.insts() {
        let at = |r: Ref| values[r.0 as usize];
        let of = |r: Ref| p.type_of(r);
        let v = match inst {
            Inst::Input(n) => inputs[n as usize],
            Inst::Const(c) => constant(b, ty, c, lanes),
            Inst::Unary(f, x) => unary(b, f, of(x), at(x)),
            Inst::Binary(BinaryFn::Add, x, y) if ty.is_float() => match (sole_product(p, x), sole_product(p, y)) {
                (Some((f, g)), _) => b.mul_add(at(f), at(g), at(y)),
                (_, Some((f, g))) => b.mul_add(at(f), at(g), at(x)),
                _ => b.add(at(x), at(y)),
            },
            Inst::Binary(f @ (BinaryFn::Min | BinaryFn::Max), x, y) if ty.is_float() => {
                extremum(b, f, (at(x), is_number(p, x)), (at(y), is_number(p, y)))
            }
            Inst::Binary(f, x, y) => binary(b, f, ty, at(x), at(y)),
            Inst::Compare(f, x, y) => compare(b, f, of(x), at(x), at(y)),
            Inst::Select { cond, then, otherwise } => select(b, ty, at(cond), at(then), at(otherwise)),
            Inst::Cast(x) => cast(b, of(x), ty, at(x)),
        };
        values.push(v);
    }
    values
}

/// The factors of `r`, if it is a product that one instruction uses, once.
fn sole_product(p: &Pointwise, r: Ref) -> Option<(Ref, Ref)> {
    let (Inst::Binary(BinaryFn::Mul, f, g), _) = p.insts()[r.0 as usize] else { return None };
    let uses = |inst: Inst| match inst {
        Inst::Input(_) | Inst::Const(_) => 0,
        Inst::Unary(_, a) | Inst::Cast(a) => usize::from(a == r),
        Inst::Binary(_, a, b) | Inst::Compare(_, a, b) => usize::from(a == r) + usize::from(b == r),
        Inst::Select { cond, then, otherwise } => [cond, then, otherwise].iter().filter(|a| **a == r).count(),
    };
    let count: usize = p.insts().iter().map(|(i, _)| uses(*i)).sum();
    (count == 1 && p.result() != r).then_some((f, g))
}

/// Whether `r` is a constant other than NaN.
fn is_number(p: &Pointwise, r: Ref) -> bool {
    matches!(p.insts()[r.0 as usize].0, Inst::Const(Scalar::Float(x)) if !x.is_nan())
}

fn constant(b: &mut Builder, ty: DType, c: Scalar, lanes: usize) -> Value {
    match c {
        Scalar::Float(x) => b.float(Type::of(elem_of(ty), lanes), x),
        Scalar::Int(i) if ty == DType::Bool => b.mask(&vec![i != 0; lanes]),
        Scalar::Int(i) => b.int(Type::of(elem_of(ty), lanes), i),
    }
}

/// One of two floats; NaN if either is. With a constant, the cheap instruction that lets a NaN of the other operand through
/// does the same.
fn extremum(b: &mut Builder, f: BinaryFn, (x, x_number): (Value, bool), (y, y_number): (Value, bool)) -> Value {
    let (constant, other) = match (x_number, y_number) {
        (true, _) => (x, y),
        (_, true) => (y, x),
        _ if f == BinaryFn::Min => return b.fmin(x, y),
        _ => return b.fmax(x, y),
    };
    if f == BinaryFn::Min { b.pmin(constant, other) } else { b.pmax(constant, other) }
}

fn unary(b: &mut Builder, f: UnaryFn, dtype: DType, x: Value) -> Value {
    let ty = b.ty(x);
    let signed = dtype.is_float() || dtype.is_signed_int();
    match f {
        UnaryFn::Neg => b.neg(x),
        UnaryFn::Abs if dtype.is_float() => b.abs(x),
        UnaryFn::Abs if signed => {
            let negative = b.neg(x);
            b.max_s(x, negative) // of the minimum, whose negative is itself, the minimum
        }
        UnaryFn::Abs => x,
        UnaryFn::Sign if !dtype.is_float() => {
            let (zero, one) = (b.zero(ty), b.int(ty, 1));
            let positive = b.icmp(if signed { IntCc::GtS } else { IntCc::Ne }, x, zero);
            let below = if signed { b.shr_s_imm(x, ty.elem().map_or(0, |e| e.bits() as u32 - 1)) } else { zero };
            b.select(positive, one, below)
        }
        UnaryFn::Sign => {
            let (zero, one, minus) = (b.zero(ty), b.float(ty, 1.0), b.float(ty, -1.0));
            let (above, below) = (b.fcmp(FloatCc::Gt, x, zero), b.fcmp(FloatCc::Lt, x, zero));
            let rest = b.select(below, minus, x); // zeros and NaN stay
            b.select(above, one, rest)
        }
        UnaryFn::Reciprocal => {
            let one = b.float(ty, 1.0);
            b.div(one, x)
        }
        UnaryFn::Sqrt => b.sqrt(x),
        UnaryFn::Floor => b.floor(x),
        UnaryFn::Ceil => b.ceil(x),
        UnaryFn::Round => b.nearest(x),
        UnaryFn::IsNan => b.is_nan(x),
        UnaryFn::IsInf => {
            let (size, inf) = (b.abs(x), b.float(ty, f64::INFINITY));
            b.fcmp(FloatCc::Eq, size, inf)
        }
        UnaryFn::Not | UnaryFn::BitNot => b.not(x),
        UnaryFn::Exp => math::exp(b, x),
        UnaryFn::Log => math::log(b, x),
        UnaryFn::Log1p => math::log1p(b, x),
        UnaryFn::Sin => math::sin(b, x),
        UnaryFn::Cos => math::cos(b, x),
        UnaryFn::Tan => math::tan(b, x),
        UnaryFn::Asin => math::asin(b, x),
        UnaryFn::Acos => math::acos(b, x),
        UnaryFn::Atan => math::atan(b, x),
        UnaryFn::Sinh => math::sinh(b, x),
        UnaryFn::Cosh => math::cosh(b, x),
        UnaryFn::Tanh => math::tanh(b, x),
        UnaryFn::Asinh => math::asinh(b, x),
        UnaryFn::Acosh => math::acosh(b, x),
        UnaryFn::Atanh => math::atanh(b, x),
        UnaryFn::Sigmoid => math::sigmoid(b, x),
        UnaryFn::Erf => math::erf(b, x),
    }
}

fn binary(b: &mut Builder, f: BinaryFn, dtype: DType, x: Value, y: Value) -> Value {
    let float = dtype.is_float();
    let signed = dtype.is_signed_int();
    match f {
        BinaryFn::Add => b.add(x, y),
        BinaryFn::Sub => b.sub(x, y),
        BinaryFn::Mul => b.mul(x, y),
        BinaryFn::Div if float => b.div(x, y),
        BinaryFn::Div if signed => b.div_s(x, y),
        BinaryFn::Div => b.div_u(x, y),
        BinaryFn::Pow if float => math::pow(b, x, y),
        BinaryFn::Pow => int_pow(b, signed, x, y),
        BinaryFn::Mod | BinaryFn::Fmod if float => float_remainder(b, f == BinaryFn::Mod, x, y),
        BinaryFn::Mod | BinaryFn::Fmod => int_remainder(b, f == BinaryFn::Mod, signed, x, y),
        BinaryFn::Min if float => b.fmin(x, y),
        BinaryFn::Max if float => b.fmax(x, y),
        BinaryFn::Min if signed => b.min_s(x, y),
        BinaryFn::Max if signed => b.max_s(x, y),
        BinaryFn::Min => b.min_u(x, y),
        BinaryFn::Max => b.max_u(x, y),
        BinaryFn::And | BinaryFn::BitAnd => b.and(x, y),
        BinaryFn::Or | BinaryFn::BitOr => b.or(x, y),
        BinaryFn::Xor | BinaryFn::BitXor => b.xor(x, y),
        BinaryFn::Shl | BinaryFn::Shr => {
            let ty = b.ty(x);
            let (width, zero) = (b.int(ty, ty.elem().map_or(0, |e| e.bits() as i64)), b.zero(ty));
            let shifted = if f == BinaryFn::Shl { b.shl(x, y) } else { b.shr_u(x, y) };
            let inside = b.icmp(IntCc::LtU, y, width); // the instruction takes counts modulo the width
            b.select(inside, shifted, zero)
        }
    }
}

fn compare(b: &mut Builder, f: CompareFn, dtype: DType, x: Value, y: Value) -> Value {
    if dtype == DType::Bool {
        let differ = b.xor(x, y);
        return match f {
            CompareFn::Ne => differ,
            CompareFn::Eq => b.not(differ),
            CompareFn::Lt => b.and(differ, y),
            CompareFn::Gt => b.and(differ, x),
            CompareFn::Le => {
                let above = b.and(differ, x);
                b.not(above)
            }
            CompareFn::Ge => {
                let below = b.and(differ, y);
                b.not(below)
            }
        };
    }
    if dtype.is_float() {
        let cc = match f {
            CompareFn::Eq => FloatCc::Eq,
            CompareFn::Ne => FloatCc::Ne,
            CompareFn::Lt => FloatCc::Lt,
            CompareFn::Le => FloatCc::Le,
            CompareFn::Gt => FloatCc::Gt,
            CompareFn::Ge => FloatCc::Ge,
        };
        return b.fcmp(cc, x, y);
    }
    let cc = match (f, dtype.is_signed_int()) {
        (CompareFn::Eq, _) => IntCc::Eq,
        (CompareFn::Ne, _) => IntCc::Ne,
        (CompareFn::Lt, true) => IntCc::LtS,
        (CompareFn::Lt, false) => IntCc::LtU,
        (CompareFn::Le, true) => IntCc::LeS,
        (CompareFn::Le, false) => IntCc::LeU,
        (CompareFn::Gt, true) => IntCc::GtS,
        (CompareFn::Gt, false) => IntCc::GtU,
        (CompareFn::Ge, true) => IntCc::GeS,
        (CompareFn::Ge, false) => IntCc::GeU,
    };
    b.icmp(cc, x, y)
}

fn select(b: &mut Builder, ty: DType, cond: Value, then: Value, otherwise: Value) -> Value {
    if ty != DType::Bool {
        return b.select(cond, then, otherwise);
    }
    let (yes, negated) = (b.and(cond, then), b.not(cond));
    let no = b.and(negated, otherwise);
    b.or(yes, no)
}

fn cast(b: &mut Builder, from: DType, to: DType, x: Value) -> Value {
    let elem = elem_of(to);
    if from == DType::Bool {
        let int = b.mask_to_int(x);
        return match to {
            DType::Bool => x,
            _ if to.is_float() => b.convert(ConvertOp::FromU, int, elem),
            _ => b.zext(int, elem),
        };
    }
    match (from.is_float(), to) {
        (true, DType::Bool) => {
            let zero = b.zero(b.ty(x));
            b.fcmp(FloatCc::Ne, x, zero)
        }
        (false, DType::Bool) => b.int_to_mask(x),
        (true, DType::F32) => b.demote(x),
        (true, DType::F64) => b.promote(x),
        (true, _) if to.is_signed_int() => b.convert(ConvertOp::ToS, x, elem),
        (true, _) => b.convert(ConvertOp::ToU, x, elem),
        (false, _) if to.is_float() => {
            let op = if from.is_signed_int() { ConvertOp::FromS } else { ConvertOp::FromU };
            b.convert(op, x, elem)
        }
        (false, _) if elem.bytes() < elem_of(from).bytes() => b.narrow(x, elem),
        (false, _) if from.is_signed_int() => b.sext(x, elem),
        (false, _) => b.zext(x, elem),
    }
}

/// The remainder with the sign of `y` (`floored`) or of `x`; 0 for the divisor 0.
fn int_remainder(b: &mut Builder, floored: bool, signed: bool, x: Value, y: Value) -> Value {
    let zero = b.zero(b.ty(x));
    let r = if signed { b.rem_s(x, y) } else { b.rem_u(x, y) };
    let by_zero = b.icmp(IntCc::Eq, y, zero);
    let r = b.select(by_zero, zero, r);
    if !floored || !signed {
        return r;
    }
    // Signs differ, and there is a remainder: one divisor more.
    let (moved, signs) = (b.add(r, y), b.xor(r, y));
    let (differ, some) = (b.icmp(IntCc::LtS, signs, zero), b.icmp(IntCc::Ne, r, zero));
    let moves = b.and(differ, some);
    b.select(moves, moved, r)
}

/// `x^y` by repeated squaring, wrapping; a negative exponent gives the quotient truncated to an integer.
fn int_pow(b: &mut Builder, signed: bool, x: Value, y: Value) -> Value {
    let ty = b.ty(x);
    let (zero, one) = (b.zero(ty), b.int(ty, 1));
    let bits = ty.elem().map_or(0, Elem::bits);
    let powers = b.loop_(0, bits, 1, &[one, x, y], |b, _, v| {
        let (acc, base, e) = (v[0], v[1], v[2]);
        let low = b.and(e, one);
        let odd = b.icmp(IntCc::Ne, low, zero);
        let product = b.mul(acc, base);
        vec![b.select(odd, product, acc), b.mul(base, base), b.shr_u_imm(e, 1)]
    });
    if !signed {
        return powers[0];
    }
    // 1 and -1 are their own inverses up to sign, which the powers give; all other quotients are 0 (0^-n has no value).
    let (minus, negative) = (b.int(ty, -1), b.icmp(IntCc::LtS, y, zero));
    let (is_one, is_minus) = (b.icmp(IntCc::Eq, x, one), b.icmp(IntCc::Eq, x, minus));
    let unit = b.or(is_one, is_minus);
    let inverse = b.select(unit, powers[0], zero);
    b.select(negative, inverse, powers[0])
}

/// The exact remainder of floats, with the sign of `y` (`floored`) or of `x`, lane by lane in f64.
fn float_remainder(b: &mut Builder, floored: bool, x: Value, y: Value) -> Value {
    let ty = b.ty(x);
    let mut out = x;
    for lane in 0..ty.lanes() {
        let (xs, ys) = (b.extract(x, lane), b.extract(y, lane));
        let (xs, ys) = (b.promote(xs), b.promote(ys));
        let r = fmod(b, xs, ys);
        let r = if ty.elem() == Some(Elem::F32) { b.demote(r) } else { r };
        out = b.insert(out, lane, r);
    }
    if !floored {
        return out;
    }
    let zero = b.zero(ty);
    let moved = b.add(out, y);
    let (r_negative, y_negative) = (b.fcmp(FloatCc::Lt, out, zero), b.fcmp(FloatCc::Lt, y, zero));
    let (differ, some) = (b.xor(r_negative, y_negative), b.fcmp(FloatCc::Ne, out, zero));
    let moves = b.and(differ, some);
    b.select(moves, moved, out)
}

/// C's `fmod` of scalar f64, exact: subtracts `y * 2^k` for falling k, each time without rounding, since what is left lies
/// between `y * 2^k` and twice that (Sterbenz).
fn fmod(b: &mut Builder, x: Value, y: Value) -> Value {
    let f64s = Type::Scalar(Elem::F64);
    let (ax, ay) = (b.abs(x), b.abs(y));
    let (zero, inf, nan) = (b.zero(f64s), b.float(f64s, f64::INFINITY), b.float(f64s, f64::NAN));
    let (x_finite, y_some) = (b.fcmp(FloatCc::Lt, ax, inf), b.fcmp(FloatCc::Gt, ay, zero));
    let defined = b.and(x_finite, y_some);
    let (ex, ey) = (exponent(b, ax), exponent(b, ay));
    let (steps, none) = (b.sub(ex, ey), b.i64(-1));
    let steps = b.max_s(steps, none);
    let steps = b.select(defined, steps, none);
    // y * 2^steps in three exact steps, for 2^steps alone may not be a number.
    let three = b.i64(3);
    let third = b.div_s(steps, three);
    let twice = b.add(third, third);
    let rest = b.sub(steps, twice);
    let (p, q) = (power_of_two(b, third), power_of_two(b, rest));
    let scaled = b.mul(ay, p);
    let scaled = b.mul(scaled, p);
    let scaled = b.mul(scaled, q);
    let turns = b.add_imm(steps, 1);
    let half = b.float(f64s, 0.5);
    let left = b.loop_(0, turns, 1, &[ax, scaled], |b, _, v| {
        let (less, fits) = (b.sub(v[0], v[1]), b.fcmp(FloatCc::Ge, v[0], v[1]));
        vec![b.select(fits, less, v[0]), b.mul(v[1], half)]
    });
    let (bits, sign) = (b.bitcast(left[0], Elem::I64), b.i64(i64::MIN));
    let x_bits = b.bitcast(x, Elem::I64);
    let x_sign = b.and(x_bits, sign);
    let signed = b.or(bits, x_sign);
    let r = b.bitcast(signed, Elem::F64);
    b.select(defined, r, nan)
}

/// `floor(log2 v)` of a positive f64, plus 1023; meaningless for infinities and NaN.
fn exponent(b: &mut Builder, v: Value) -> Value {
    let f64s = Type::Scalar(Elem::F64);
    let (normal, scale) = (b.float(f64s, f64::MIN_POSITIVE), b.float(f64s, 2f64.powi(54)));
    let (is_small, scaled) = (b.fcmp(FloatCc::Lt, v, normal), b.mul(v, scale));
    let v = b.select(is_small, scaled, v);
    let bits = b.bitcast(v, Elem::I64);
    let field = b.shr_u_imm(bits, 52);
    let (shift, zero) = (b.i64(54), b.zero(I64));
    let shift = b.select(is_small, shift, zero);
    b.sub(field, shift)
}

/// `2^k` of a scalar i64 within the range of normal f64.
fn power_of_two(b: &mut Builder, k: Value) -> Value {
    let biased = b.add_imm(k, 1023);
    let bits = b.shl_imm(biased, 52);
    b.bitcast(bits, Elem::F64)
}
