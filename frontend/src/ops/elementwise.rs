//! Arithmetic, comparisons, logic, selection, conversion: ONNX's elementwise operators without parameters to speak of.
//!
//! Opsets below 7 broadcast on request only: `broadcast=1` aligns B with the axes of A from `axis` on (the last ones if it is
//! not given), which is written here as a Reshape of B with trailing ones. Variadic operators become chains.

use super::Entry;
use crate::build::Stop;
use crate::model::Attr;
use crate::node::{Imported, NodeCx};
use crate::tensor;
use crate::value::Val;
use nncc_ir::pointwise::{BinaryFn, CompareFn, UnaryFn};
use nncc_ir::{DType, Dim, ops};

pub(super) const OPS: &[Entry] = &[
    Entry::new("Abs", &[1, 6, 13], |n| unary(n, UnaryFn::Abs)),
    Entry::new("Acos", &[7, 22], |n| unary(n, UnaryFn::Acos)),
    Entry::new("Acosh", &[9, 22], |n| unary(n, UnaryFn::Acosh)),
    Entry::new("Add", &[1, 6, 7, 13, 14], |n| binary(n, BinaryFn::Add)),
    Entry::new("And", &[1, 7], |n| binary(n, BinaryFn::And)),
    Entry::new("Asin", &[7, 22], |n| unary(n, UnaryFn::Asin)),
    Entry::new("Asinh", &[9, 22], |n| unary(n, UnaryFn::Asinh)),
    Entry::new("Atan", &[7, 22], |n| unary(n, UnaryFn::Atan)),
    Entry::new("Atanh", &[9, 22], |n| unary(n, UnaryFn::Atanh)),
    Entry::new("BitShift", &[11, 28], bit_shift),
    Entry::new("BitwiseAnd", &[18], |n| binary(n, BinaryFn::BitAnd)),
    Entry::new("BitwiseNot", &[18], |n| unary(n, UnaryFn::BitNot)),
    Entry::new("BitwiseOr", &[18], |n| binary(n, BinaryFn::BitOr)),
    Entry::new("BitwiseXor", &[18], |n| binary(n, BinaryFn::BitXor)),
    Entry::new("Cast", &[1, 6, 9, 13, 19, 21, 23, 24, 25, 28], cast),
    Entry::new("CastLike", &[15, 19, 21, 23, 24, 25], cast_like),
    Entry::new("Ceil", &[1, 6, 13], |n| unary(n, UnaryFn::Ceil)),
    Entry::new("Cos", &[7, 22], |n| unary(n, UnaryFn::Cos)),
    Entry::new("Cosh", &[9, 22], |n| unary(n, UnaryFn::Cosh)),
    Entry::new("Div", &[1, 6, 7, 13, 14], |n| binary(n, BinaryFn::Div)),
    Entry::new("Equal", &[1, 7, 11, 13, 19], |n| compare(n, CompareFn::Eq)),
    Entry::new("Erf", &[9, 13], |n| unary(n, UnaryFn::Erf)),
    Entry::new("Exp", &[1, 6, 13], |n| unary(n, UnaryFn::Exp)),
    Entry::new("Floor", &[1, 6, 13], |n| unary(n, UnaryFn::Floor)),
    Entry::new("Greater", &[1, 7, 9, 13], |n| compare(n, CompareFn::Gt)),
    Entry::new("GreaterOrEqual", &[12, 16], |n| compare(n, CompareFn::Ge)),
    Entry::new("IsInf", &[10, 20], is_inf),
    Entry::new("IsNaN", &[9, 13, 20], |n| unary(n, UnaryFn::IsNan)),
    Entry::new("Less", &[1, 7, 9, 13], |n| compare(n, CompareFn::Lt)),
    Entry::new("LessOrEqual", &[12, 16], |n| compare(n, CompareFn::Le)),
    Entry::new("Log", &[1, 6, 13], |n| unary(n, UnaryFn::Log)),
    Entry::new("Max", &[1, 6, 8, 12, 13], |n| chain(n, BinaryFn::Max)),
    Entry::new("Mean", &[1, 6, 8, 13], mean),
    Entry::new("Min", &[1, 6, 8, 12, 13], |n| chain(n, BinaryFn::Min)),
    Entry::new("Mod", &[10, 13, 28], modulo),
    Entry::new("Mul", &[1, 6, 7, 13, 14], |n| binary(n, BinaryFn::Mul)),
    Entry::new("Neg", &[1, 6, 13], |n| unary(n, UnaryFn::Neg)),
    Entry::new("Not", &[1], |n| unary(n, UnaryFn::Not)),
    Entry::new("Or", &[1, 7], |n| binary(n, BinaryFn::Or)),
    Entry::new("Pow", &[1, 7, 12, 13, 15], pow),
    Entry::new("Reciprocal", &[1, 6, 13], |n| unary(n, UnaryFn::Reciprocal)),
    Entry::new("Round", &[11, 22], |n| unary(n, UnaryFn::Round)),
    Entry::new("Sigmoid", &[1, 6, 13], |n| unary(n, UnaryFn::Sigmoid)),
    Entry::new("Sign", &[9, 13], |n| unary(n, UnaryFn::Sign)),
    Entry::new("Sin", &[7, 22], |n| unary(n, UnaryFn::Sin)),
    Entry::new("Sinh", &[9, 22], |n| unary(n, UnaryFn::Sinh)),
    Entry::new("Sqrt", &[1, 6, 13], |n| unary(n, UnaryFn::Sqrt)),
    Entry::new("Sub", &[1, 6, 7, 13, 14], |n| binary(n, BinaryFn::Sub)),
    Entry::new("Sum", &[1, 6, 8, 13], |n| chain(n, BinaryFn::Add)),
    Entry::new("Tan", &[7, 22], |n| unary(n, UnaryFn::Tan)),
    Entry::new("Tanh", &[1, 6, 13], |n| unary(n, UnaryFn::Tanh)),
    Entry::new("Where", &[9, 16], where_),
    Entry::new("Xor", &[1, 7], |n| binary(n, BinaryFn::Xor)),
];

fn unary(n: &mut NodeCx<'_>, function: UnaryFn) -> Imported {
    let x = n.operand(0, "X")?;
    Ok(vec![n.unary(function, &x)?])
}

/// The two operands, with B reshaped as opsets below 7 align it.
fn aligned(n: &mut NodeCx<'_>) -> Result<(Val, Val), Stop> {
    let (a, b) = (n.operand(0, "A")?, n.operand(1, "B")?);
    if n.version >= 7 {
        return Ok((a, b));
    }
    let (sa, sb) = (n.shape(&a), n.shape(&b));
    if !n.flag("broadcast", false)? {
        let differ = |(x, y): (&Dim, &Dim)| x.known().zip(y.known()).is_some_and(|(x, y)| x != y);
        if sa.len() != sb.len() || sa.iter().zip(&sb).any(differ) {
            return n.invalid("the operands' shapes differ, and `broadcast` is not set");
        }
        return Ok((a, b));
    }
    if sb.len() > sa.len() {
        return n.invalid(format!("B has {} axes, more than A's {}", sb.len(), sa.len()));
    }
    let axis = match n.maybe_int("axis")? {
        Some(_) if sb.is_empty() => 0,
        Some(axis) => n.axis(axis, sa.len())?,
        None => sa.len() - sb.len(),
    };
    let Some(behind) = sa.len().checked_sub(axis + sb.len()) else {
        return n.invalid(format!("B's {} axes do not fit A's {} from axis {axis} on", sb.len(), sa.len()));
    };
    if behind == 0 {
        return Ok((a, b));
    }
    let shape = sb.into_iter().chain(std::iter::repeat_n(Dim::Known(1), behind)).collect();
    let b = n.emit(ops::reshape::Reshape { shape }, &[&b])?;
    Ok((a, b))
}

fn binary(n: &mut NodeCx<'_>, function: BinaryFn) -> Imported {
    let (a, b) = aligned(n)?;
    Ok(vec![n.binary(function, &a, &b)?])
}

fn compare(n: &mut NodeCx<'_>, function: CompareFn) -> Imported {
    let (a, b) = aligned(n)?;
    Ok(vec![n.compare(function, &a, &b)?])
}

/// The power has the type of the base. An integer to the power of a float is computed in f64 and truncated, as numpy does.
fn pow(n: &mut NodeCx<'_>) -> Imported {
    let (a, b) = aligned(n)?;
    let (base, exponent) = (n.dtype(&a), n.dtype(&b));
    let mixed = exponent.is_float() && !base.is_float();
    let within = if mixed { DType::F64 } else { base };
    let (a, b) = (n.cast(&a, within)?, n.cast(&b, within)?);
    let mut y = n.binary(BinaryFn::Pow, &a, &b)?;
    if mixed {
        y = whole_if_near(n, &y)?;
    }
    Ok(vec![n.cast(&y, base)?])
}

/// The nearest whole number where that is within the error of a power, 4 ulp: 9^3 is 729, also where the power function says
/// 728.9999999999999, which truncation would make 728.
fn whole_if_near(n: &mut NodeCx<'_>, y: &Val) -> Result<Val, Stop> {
    let whole = n.unary(UnaryFn::Round, y)?;
    let distance = n.binary(BinaryFn::Sub, y, &whole)?;
    let distance = n.unary(UnaryFn::Abs, &distance)?;
    let size = n.unary(UnaryFn::Abs, y)?;
    let error = n.binary_const(BinaryFn::Mul, &size, 4.0 * f64::EPSILON)?;
    let near = n.compare(CompareFn::Le, &distance, &error)?;
    n.select(&near, &whole, y)
}

fn modulo(n: &mut NodeCx<'_>) -> Imported {
    let function = if n.flag("fmod", false)? { BinaryFn::Fmod } else { BinaryFn::Mod };
    binary(n, function)
}

/// Shifts of unsigned numbers are operators of the IR. A signed one shifts left as the unsigned number of the same bits, and
/// right by way of its complement: `x < 0 ? !(!x >> y) : x >> y`, which fills with copies of the sign. Counts that are
/// negative are huge as unsigned numbers, and shift everything out.
fn bit_shift(n: &mut NodeCx<'_>) -> Imported {
    let (x, y) = (n.operand(0, "X")?, n.operand(1, "Y")?);
    let Some(direction) = n.maybe_text("direction")? else { return n.invalid("the attribute `direction` is missing") };
    let function = match direction.as_str() {
        "LEFT" => BinaryFn::Shl,
        "RIGHT" => BinaryFn::Shr,
        _ => return n.invalid(format!("the attribute `direction` is \"{direction}\", not one of LEFT, RIGHT")),
    };
    let dtype = n.dtype(&x);
    let unsigned = match dtype {
        DType::I8 => DType::U8,
        DType::I16 => DType::U16,
        DType::I32 => DType::U32,
        DType::I64 => DType::U64,
        other => other,
    };
    if unsigned == dtype {
        return Ok(vec![n.binary(function, &x, &y)?]);
    }
    let count = n.cast(&y, unsigned)?;
    let shift = |n: &mut NodeCx<'_>, x: &Val| -> Result<Val, Stop> {
        let bits = n.cast(x, unsigned)?;
        let shifted = n.binary(function, &bits, &count)?;
        n.cast(&shifted, dtype)
    };
    let plain = shift(n, &x)?;
    if function == BinaryFn::Shl {
        return Ok(vec![plain]);
    }
    let complement = n.unary(UnaryFn::BitNot, &x)?;
    let shifted = shift(n, &complement)?;
    let filled = n.unary(UnaryFn::BitNot, &shifted)?;
    let zero = n.scalar(dtype, 0.0);
    let negative = n.compare(CompareFn::Lt, &x, &zero)?;
    Ok(vec![n.select(&negative, &filled, &plain)?])
}

fn chain(n: &mut NodeCx<'_>, function: BinaryFn) -> Imported {
    let operands = n.variadic()?;
    let (first, rest) = match operands.split_first() {
        Some(parts) => parts,
        None => return n.invalid("an operand is missing"),
    };
    let mut sum = first.clone();
    for v in rest {
        sum = n.binary(function, &sum, v)?;
    }
    Ok(vec![sum])
}

fn mean(n: &mut NodeCx<'_>) -> Imported {
    let count = n.variadic()?.len();
    let sum = chain(n, BinaryFn::Add)?;
    match &sum[..] {
        [sum] if count > 1 => Ok(vec![n.binary_const(BinaryFn::Div, sum, count as f64)?]),
        _ => Ok(sum),
    }
}

fn is_inf(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "X")?;
    let one_of = |n: &mut NodeCx<'_>, value: f64| {
        let inf = n.scalar(n.dtype(&x), value);
        n.compare(CompareFn::Eq, &x, &inf)
    };
    let y = match (n.flag("detect_negative", true)?, n.flag("detect_positive", true)?) {
        (true, true) => n.unary(UnaryFn::IsInf, &x)?,
        (true, false) => one_of(n, f64::NEG_INFINITY)?,
        (false, true) => one_of(n, f64::INFINITY)?,
        (false, false) => n.compare(CompareFn::Lt, &x, &x)?, // false everywhere
    };
    Ok(vec![y])
}

fn where_(n: &mut NodeCx<'_>) -> Imported {
    let (cond, x, y) = (n.operand(0, "condition")?, n.operand(1, "X")?, n.operand(2, "Y")?);
    Ok(vec![n.select(&cond, &x, &y)?])
}

/// Before opset 6 the type is given by its name. `saturate` and `round_mode` concern 8-bit floats only.
fn cast(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "input")?;
    let to = match n.attr("to") {
        Some(Attr::Text(name)) => tensor::dtype_named(&String::from_utf8_lossy(name))?,
        _ => tensor::dtype(n.required_int("to")?)?,
    };
    Ok(vec![n.cast(&x, to)?])
}

fn cast_like(n: &mut NodeCx<'_>) -> Imported {
    let (x, like) = (n.operand(0, "input")?, n.operand(1, "target_type")?);
    let to = n.dtype(&like);
    Ok(vec![n.cast(&x, to)?])
}
