//! Broadcasting, and what all elementwise operators share: shape inference and reference evaluation by their program.

use crate::op::{EvalError, Operator, SymTensor, TypeError};
use crate::pointwise::{BinaryFn, CompareFn, Inst, Ref, Scalar, UnaryFn};
use crate::tensor::{indices, strides_of};
use crate::{DType, Dim, Pointwise, Shape, Tensor, TensorType, type_err};

/// The operands of an elementwise operator and the shape that they broadcast to.
pub struct Elementwise<'a, const N: usize> {
    /// The operands' types.
    pub operands: [&'a TensorType; N],
    /// The broadcast shape.
    pub shape: Shape,
}

/// Checks that there are exactly `N` operands and that they broadcast.
pub fn infer_elementwise<'a, const N: usize>(
    inputs: &[Option<&'a TensorType>],
) -> Result<Elementwise<'a, N>, TypeError> {
    let given: Vec<&TensorType> = inputs.iter().copied().flatten().collect();
    let operands: [&TensorType; N] =
        given.try_into().map_err(|g: Vec<_>| TypeError(format!("takes {N} operands, {} are given", g.len())))?;
    let shape = broadcast_shapes(operands.iter().map(|t| &t.shape[..]))?;
    Ok(Elementwise { operands, shape })
}

/// The shape that shapes broadcast to, as numpy defines it. A symbol against a number other than 1 is taken for that
/// number (a run-time shape that differs cannot occur: shapes are known when code is generated).
pub fn broadcast_shapes<'a>(shapes: impl IntoIterator<Item = &'a [Dim]>) -> Result<Shape, TypeError> {
    let mut out: Shape = Vec::new();
    for s in shapes {
        if s.len() > out.len() {
            out.splice(0..0, std::iter::repeat_n(Dim::Known(1), s.len() - out.len()));
        }
        let skip = out.len() - s.len();
        for (axis, (o, d)) in out[skip..].iter_mut().zip(s).enumerate() {
            *o = match (&*o, d) {
                (a, b) if a == b => continue,
                (Dim::Known(1), b) => b.clone(),
                (_, Dim::Known(1)) => continue,
                (Dim::Known(a), Dim::Known(b)) => {
                    return type_err!("dimensions {a} and {b} (axis {}) do not broadcast", skip + axis);
                }
                (Dim::Sym(_), Dim::Known(b)) => Dim::Known(*b),
                (_, Dim::Sym(_)) => continue,
            };
        }
    }
    Ok(out)
}

/// Strides, in elements, to read a tensor of `dims` as if it had the broadcast shape `out`: 0 along broadcast axes.
pub fn broadcast_strides(dims: &[usize], out: &[usize]) -> Vec<usize> {
    let skip = out.len() - dims.len();
    let own = strides_of(dims);
    (0..out.len()).map(|a| if a < skip || dims[a - skip] == 1 { 0 } else { own[a - skip] }).collect()
}

/// Elementwise `f` over two symbolic tensors with broadcasting of scalars and equal shapes (all that shape arithmetic needs).
pub fn zip_symbolic(a: &SymTensor, b: &SymTensor, f: impl Fn(&Dim, &Dim) -> Option<Dim>) -> Option<SymTensor> {
    let dims = if a.elems.len() >= b.elems.len() { a.dims.clone() } else { b.dims.clone() };
    let n = a.elems.len().max(b.elems.len());
    if (a.elems.len() != n && a.elems.len() != 1) || (b.elems.len() != n && b.elems.len() != 1) {
        return None;
    }
    let at = |t: &SymTensor, i: usize| t.elems[if t.elems.len() == 1 { 0 } else { i }].clone();
    let elems = (0..n).map(|i| f(&at(a, i), &at(b, i))).collect::<Option<Vec<_>>>()?;
    Some(SymTensor { dims, elems })
}

/// Reference evaluation of an elementwise operator: its program at every index.
pub fn eval_pointwise<O: Operator>(op: &O, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
    let operands: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
    let types: Vec<TensorType> = operands.iter().map(|t| t.ty()).collect();
    let program = op
        .pointwise(&types.iter().collect::<Vec<_>>())
        .ok_or_else(|| EvalError(format!("{} has no pointwise program", O::NAME)))?;
    eval_program(&program, &operands).map(|t| vec![t])
}

/// A program at every index of the shape that its operands broadcast to.
pub fn eval_program(p: &Pointwise, operands: &[&Tensor]) -> Result<Tensor, EvalError> {
    let shapes: Vec<Shape> = operands.iter().map(|t| t.ty().shape).collect();
    let shape = broadcast_shapes(shapes.iter().map(|s| &s[..])).map_err(|e| EvalError(e.0))?;
    let dims: Vec<usize> = shape.iter().filter_map(Dim::size).collect();
    let strides: Vec<Vec<usize>> = operands.iter().map(|t| broadcast_strides(t.dims(), &dims)).collect();
    let columns: Vec<Column> = operands.iter().map(|t| Column::of(t)).collect();
    let (mut floats, mut ints) = (Vec::new(), Vec::new());
    let mut values: Vec<Num> = Vec::with_capacity(p.insts().len());
    for index in indices(&dims) {
        values.clear();
        for &(inst, ty) in p.insts() {
            let v = match inst {
                Inst::Input(n) => {
                    let at: usize = index.iter().zip(&strides[n as usize]).map(|(i, s)| i * s).sum();
                    columns[n as usize].get(at)
                }
                _ => step(inst, ty, p, &values),
            };
            values.push(v);
        }
        match values[p.result().0 as usize] {
            Num::F(x) => floats.push(x),
            Num::I(x) => ints.push(x),
        }
    }
    let ty = p.result_type();
    Ok(if ty.is_float() { Tensor::from_f64(ty, &dims, &floats) } else { Tensor::from_i64(ty, &dims, &ints) })
}

/// A number during evaluation: floats in f64 (an f32 instruction rounds its result), integers in i64 (wrapped to the
/// instruction's width; u64 by its bits).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Num {
    F(f64),
    I(i64),
}

enum Column {
    F(Vec<f64>),
    I(Vec<i64>),
}

impl Column {
    fn of(t: &Tensor) -> Column {
        if t.dtype().is_float() { Column::F(t.to_f64()) } else { Column::I(t.to_i64()) }
    }

    fn get(&self, i: usize) -> Num {
        match self {
            Column::F(v) => Num::F(v[i]),
            Column::I(v) => Num::I(v[i]),
        }
    }
}

fn step(inst: Inst, ty: DType, p: &Pointwise, values: &[Num]) -> Num {
    let at = |r: Ref| values[r.0 as usize];
    let of = |r: Ref| p.type_of(r);
    match inst {
        Inst::Input(_) => unreachable!("read by the caller"),
        Inst::Const(Scalar::Float(x)) => Num::F(x),
        Inst::Const(Scalar::Int(x)) => Num::I(x),
        Inst::Unary(f, a) => match at(a) {
            Num::F(x) if matches!(f, UnaryFn::IsNan) => Num::I(i64::from(x.is_nan())),
            Num::F(x) if matches!(f, UnaryFn::IsInf) => Num::I(i64::from(x.is_infinite())),
            Num::F(x) => round_to(ty, unary_float(f, x)),
            Num::I(x) => wrap_to(ty, unary_int(f, ty, x)),
        },
        Inst::Binary(f, a, b) => match (at(a), at(b)) {
            (Num::F(x), Num::F(y)) => round_to(ty, binary_float(f, x, y)),
            (Num::I(x), Num::I(y)) => wrap_to(ty, binary_int(f, ty, x, y)),
            _ => unreachable!("operands of one type"),
        },
        Inst::Compare(f, a, b) => Num::I(i64::from(match (at(a), at(b)) {
            (Num::F(x), Num::F(y)) => compare(f, x.partial_cmp(&y)),
            (Num::I(x), Num::I(y)) if of(a) == DType::U64 => compare(f, Some((x as u64).cmp(&(y as u64)))),
            (Num::I(x), Num::I(y)) => compare(f, Some(x.cmp(&y))),
            _ => unreachable!("operands of one type"),
        })),
        Inst::Select { cond, then, otherwise } => {
            if at(cond) == Num::I(0) {
                at(otherwise)
            } else {
                at(then)
            }
        }
        Inst::Cast(a) => cast(at(a), of(a), ty),
    }
}

/// f32 results are rounded after each instruction, as single-precision code does.
fn round_to(ty: DType, x: f64) -> Num {
    Num::F(if ty == DType::F32 { f64::from(x as f32) } else { x })
}

fn wrap_to(ty: DType, x: i64) -> Num {
    Num::I(match ty {
        DType::I8 => i64::from(x as i8),
        DType::I16 => i64::from(x as i16),
        DType::I32 => i64::from(x as i32),
        DType::U8 => i64::from(x as u8),
        DType::U16 => i64::from(x as u16),
        DType::U32 => i64::from(x as u32),
        DType::Bool => i64::from(x != 0),
        _ => x,
    })
}

fn cast(v: Num, from: DType, to: DType) -> Num {
    match (v, to.is_float()) {
        (Num::F(x), true) => round_to(to, x),
        (Num::I(x), true) => {
            // One rounding only: a 64-bit integer goes to f32 directly.
            let unsigned = from == DType::U64;
            Num::F(match to {
                DType::F32 if unsigned => f64::from(x as u64 as f32),
                DType::F32 => f64::from(x as f32),
                _ if unsigned => x as u64 as f64,
                _ => x as f64,
            })
        }
        (Num::I(x), false) => wrap_to(to, x),
        (Num::F(x), false) => Num::I(match to {
            DType::Bool => i64::from(x != 0.0),
            DType::I8 => i64::from(x as i8),
            DType::I16 => i64::from(x as i16),
            DType::I32 => i64::from(x as i32),
            DType::U8 => i64::from(x as u8),
            DType::U16 => i64::from(x as u16),
            DType::U32 => i64::from(x as u32),
            DType::U64 => x as u64 as i64,
            _ => x as i64,
        }),
    }
}

fn unary_float(f: UnaryFn, x: f64) -> f64 {
    match f {
        UnaryFn::Neg => -x,
        UnaryFn::Abs => x.abs(),
        UnaryFn::Sign if x.is_nan() || x == 0.0 => x,
        UnaryFn::Sign => x.signum(),
        UnaryFn::Reciprocal => 1.0 / x,
        UnaryFn::Sqrt => x.sqrt(),
        UnaryFn::Exp => x.exp(),
        UnaryFn::Log => x.ln(),
        UnaryFn::Log1p => x.ln_1p(),
        UnaryFn::Sin => x.sin(),
        UnaryFn::Cos => x.cos(),
        UnaryFn::Tan => x.tan(),
        UnaryFn::Asin => x.asin(),
        UnaryFn::Acos => x.acos(),
        UnaryFn::Atan => x.atan(),
        UnaryFn::Sinh => x.sinh(),
        UnaryFn::Cosh => x.cosh(),
        UnaryFn::Tanh => x.tanh(),
        UnaryFn::Asinh => x.asinh(),
        UnaryFn::Acosh => x.acosh(),
        UnaryFn::Atanh => x.atanh(),
        UnaryFn::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        UnaryFn::Erf => crate::special::erf(x),
        UnaryFn::Floor => x.floor(),
        UnaryFn::Ceil => x.ceil(),
        UnaryFn::Round => x.round_ties_even(),
        UnaryFn::IsNan | UnaryFn::IsInf | UnaryFn::Not | UnaryFn::BitNot => unreachable!("not a float function"),
    }
}

fn unary_int(f: UnaryFn, ty: DType, x: i64) -> i64 {
    match f {
        UnaryFn::Abs if ty == DType::U64 => x,
        UnaryFn::Sign if ty == DType::U64 => i64::from(x != 0),
        UnaryFn::Neg => x.wrapping_neg(),
        UnaryFn::Abs => x.wrapping_abs(),
        UnaryFn::Sign => x.signum(),
        UnaryFn::Not => i64::from(x == 0),
        UnaryFn::BitNot => !x,
        _ => unreachable!("not an integer function"),
    }
}

/// A function of two floats, not rounded to the operands' type.
pub(crate) fn binary_float(f: BinaryFn, x: f64, y: f64) -> f64 {
    let extremum = |pick: fn(f64, f64) -> f64| if x.is_nan() || y.is_nan() { f64::NAN } else { pick(x, y) };
    match f {
        BinaryFn::Add => x + y,
        BinaryFn::Sub => x - y,
        BinaryFn::Mul => x * y,
        BinaryFn::Div => x / y,
        BinaryFn::Pow => x.powf(y),
        BinaryFn::Mod => {
            let r = x % y;
            if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r }
        }
        BinaryFn::Fmod => x % y,
        BinaryFn::Min => extremum(f64::min),
        BinaryFn::Max => extremum(f64::max),
        _ => unreachable!("not a float function"),
    }
}

/// A function of two integers of type `ty`, not wrapped to its width.
pub(crate) fn binary_int(f: BinaryFn, ty: DType, x: i64, y: i64) -> i64 {
    let unsigned = ty == DType::U64;
    let (ux, uy) = (x as u64, y as u64);
    let bits = 8 * ty.bytes() as i64;
    match f {
        BinaryFn::Add => x.wrapping_add(y),
        BinaryFn::Sub => x.wrapping_sub(y),
        BinaryFn::Mul => x.wrapping_mul(y),
        BinaryFn::Div | BinaryFn::Mod | BinaryFn::Fmod if y == 0 => 0,
        BinaryFn::Div if unsigned => (ux / uy) as i64,
        BinaryFn::Div => x.wrapping_div(y),
        BinaryFn::Mod | BinaryFn::Fmod if unsigned => (ux % uy) as i64,
        BinaryFn::Fmod => x.wrapping_rem(y),
        BinaryFn::Mod => {
            let r = x.wrapping_rem(y);
            if r != 0 && (r < 0) != (y < 0) { r + y } else { r }
        }
        BinaryFn::Pow => int_pow(ty, x, y),
        BinaryFn::Min if unsigned => ux.min(uy) as i64,
        BinaryFn::Max if unsigned => ux.max(uy) as i64,
        BinaryFn::Min => x.min(y),
        BinaryFn::Max => x.max(y),
        BinaryFn::And | BinaryFn::BitAnd => x & y,
        BinaryFn::Or | BinaryFn::BitOr => x | y,
        BinaryFn::Xor | BinaryFn::BitXor => x ^ y,
        BinaryFn::Shl | BinaryFn::Shr if uy >= bits as u64 => 0,
        BinaryFn::Shl => x << y,
        BinaryFn::Shr => (ux >> uy) as i64,
    }
}

fn int_pow(ty: DType, x: i64, y: i64) -> i64 {
    if y < 0 && (ty.is_signed_int()) {
        return match x {
            1 => 1,
            -1 => 1 - 2 * (y & 1),
            _ => 0, // |x| > 1 truncates to 0; 0 to a negative power has no value, 0 as Div gives
        };
    }
    let (mut base, mut e, mut acc) = (x, y as u64, 1i64);
    while e > 0 {
        if e & 1 == 1 {
            acc = acc.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        e >>= 1;
    }
    acc
}

fn compare(f: CompareFn, order: Option<std::cmp::Ordering>) -> bool {
    match f {
        CompareFn::Eq => order.is_some_and(|o| o.is_eq()),
        CompareFn::Ne => order.is_none_or(|o| o.is_ne()),
        CompareFn::Lt => order.is_some_and(|o| o.is_lt()),
        CompareFn::Le => order.is_some_and(|o| o.is_le()),
        CompareFn::Gt => order.is_some_and(|o| o.is_gt()),
        CompareFn::Ge => order.is_some_and(|o| o.is_ge()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::elementwise::Binary;

    #[test]
    fn broadcasting_follows_numpy() {
        let a = Tensor::f32(&[2, 1], vec![1.0, 2.0]);
        let b = Tensor::f32(&[3], vec![10.0, 20.0, 30.0]);
        let y = Binary { function: BinaryFn::Add }.eval(&[Some(&a), Some(&b)]).unwrap();
        assert_eq!(y[0], Tensor::f32(&[2, 3], vec![11.0, 21.0, 31.0, 12.0, 22.0, 32.0]));
    }

    #[test]
    fn maximum_propagates_nan() {
        assert!(binary_float(BinaryFn::Max, f64::NAN, 1.0).is_nan());
        assert!(binary_float(BinaryFn::Max, 1.0, f64::NAN).is_nan());
    }
}
