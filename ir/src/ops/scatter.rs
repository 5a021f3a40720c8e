//! `ScatterElements` and `ScatterNd`: a copy of a tensor with elements replaced, or combined with, updates.
//!
//! ```text
//! scatter_elements  y = x;  for i.. : y[i.. with i[axis] = idx[i..]] (op)= updates[i..]
//! scatter_nd        y = x;  for i.. : y[idx[i.., :], s..]            (op)= updates[i.., s..]
//! ```
//!
//! Updates are applied in row-major order: of several to one place without a reduction the last stays, where ONNX
//! leaves the order open. A negative index counts from the end; one out of range is an error here, compiled code takes
//! the nearest one that exists. Sources: ONNX ScatterElements-18, ScatterND-18.

use super::gather::{check_elements_indices, check_indices, elements_offsets, index_length, nd_offsets};
use crate::broadcast::{binary_float, binary_int};
use crate::movement::may_equal;
use crate::op::{EvalError, Operator, TypeError, operands};
use crate::ops::gather::{GatherElements, GatherNd};
use crate::pointwise::BinaryFn;
use crate::{DType, GradientCx, GradientError, Op, Shape, Tensor, TensorType, attr_enum, operator_attrs, type_err};

attr_enum! {
    /// How an update meets the element at its place.
    pub enum ScatterReduction {
        /// It replaces it.
        None = "none",
        /// Sum; integers wrap.
        Add = "add",
        /// Product; integers wrap.
        Mul = "mul",
        /// The larger one; NaN if either is.
        Max = "max",
        /// The smaller one; NaN if either is.
        Min = "min",
    }
}

operator_attrs! {
    /// `x: T[..], idx: i32|i64[i..], updates: T[i..] -> T[..]`, T any type, a number type with a reduction.
    pub struct ScatterElements {
        /// The axis of x that the indices index.
        pub axis: usize,
        /// How updates combine.
        pub reduction: ScatterReduction,
    }
}

operator_attrs! {
    /// `x: T[d.., s..], idx: i32|i64[i.., k], updates: T[i.., s..] -> T[d.., s..]`, T any type, a number type with a
    /// reduction; k is the number of axes d.
    pub struct ScatterNd {
        /// How updates combine.
        pub reduction: ScatterReduction,
    }
}

fn check_updates(r: ScatterReduction, x: &TensorType, updates: &TensorType, shape: Shape) -> Result<(), TypeError> {
    if updates.dtype != x.dtype {
        return type_err!("the updates are {}, the operand {}", updates.dtype, x.dtype);
    }
    if r != ScatterReduction::None && x.dtype == DType::Bool {
        return type_err!("bool has no reduction");
    }
    let fits = updates.rank() == shape.len() && updates.shape.iter().zip(&shape).all(|(a, b)| may_equal(a, b));
    let wanted = TensorType { dtype: x.dtype, shape };
    if fits { Ok(()) } else { type_err!("the updates are {updates}, the indices demand {wanted}") }
}

impl ScatterReduction {
    /// The function that combines; `None` for a replacement.
    pub fn function(self) -> Option<BinaryFn> {
        match self {
            ScatterReduction::None => None,
            ScatterReduction::Add => Some(BinaryFn::Add),
            ScatterReduction::Mul => Some(BinaryFn::Mul),
            ScatterReduction::Max => Some(BinaryFn::Max),
            ScatterReduction::Min => Some(BinaryFn::Min),
        }
    }
}

/// A copy of `x` where the update number `n` meets the element at offset `at[n]`.
fn scatter(x: &Tensor, updates: &Tensor, at: &[usize], reduction: ScatterReduction) -> Result<Tensor, EvalError> {
    let ty = x.dtype();
    match reduction.function() {
        None => {
            let (mut y, u, size) = (x.to_bytes(), updates.to_bytes(), ty.bytes());
            for (&at, u) in at.iter().zip(u.chunks(size)) {
                y[at * size..][..size].copy_from_slice(u);
            }
            Tensor::from_bytes(ty, x.dims(), &y).ok_or_else(|| EvalError("the result has another size".into()))
        }
        Some(f) if ty.is_float() => {
            let mut y = x.to_f64();
            for (&at, u) in at.iter().zip(updates.to_f64()) {
                let r = binary_float(f, y[at], u);
                y[at] = if ty == DType::F32 { f64::from(r as f32) } else { r }; // f32 code rounds each update
            }
            Ok(Tensor::from_f64(ty, x.dims(), &y))
        }
        Some(f) => {
            let mut y = x.to_i64();
            for (&at, u) in at.iter().zip(updates.to_i64()) {
                y[at] = binary_int(f, ty, y[at], u);
            }
            Ok(Tensor::from_i64(ty, x.dims(), &y)) // wraps sums and products once, which is the same as each time
        }
    }
}

/// The gradient of a scatter by `scatter` (its own kind, replacing), and `gather`, which reads what it writes. Of several
/// replacements of one element each gets the whole gradient, as in PyTorch, which leaves it undefined.
fn gradients(
    cx: &mut GradientCx<'_>,
    reduction: ScatterReduction,
    scatter: impl Into<Op>,
    gather: impl Into<Op>,
) -> Result<(), GradientError> {
    let (idx, updates, dy) = (cx.operand(1)?, cx.operand(2)?, cx.dy()?);
    match reduction {
        ScatterReduction::Add => cx.give(0, |_| Ok(dy))?,
        ScatterReduction::None => cx.give(0, |cx| {
            let ty = cx.ty(updates).clone();
            let zeros = cx.zeros(&ty);
            cx.add(scatter, &[dy, idx, zeros])
        })?,
        _ => return Err(GradientError::Unsupported(Some("of its reductions only none and add have one"))),
    }
    cx.give(2, |cx| cx.add(gather, &[dy, idx]))
}

impl Operator for ScatterElements {
    const NAME: &'static str = "scatter_elements";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x, idx, updates] = operands(inputs)?;
        check_elements_indices(self.axis, x, idx)?;
        check_updates(self.reduction, x, updates, idx.shape.clone())?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x, idx, updates] = operands(inputs)?;
        let at = elements_offsets(self.axis, x.dims(), idx)?;
        Ok(vec![scatter(x, updates, &at, self.reduction)?])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        gradients(cx, self.reduction, self.clone(), GatherElements { axis: self.axis })
    }
}

impl Operator for ScatterNd {
    const NAME: &'static str = "scatter_nd";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x, idx, updates] = operands(inputs)?;
        check_indices(idx)?;
        let k = index_length(x, idx, 0)?;
        let shape = [&idx.shape[..idx.rank() - 1], &x.shape[k..]].concat();
        check_updates(self.reduction, x, updates, shape)?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x, idx, updates] = operands(inputs)?;
        let k = index_length(&x.ty(), &idx.ty(), 0)?;
        let slice: usize = x.dims()[k..].iter().product();
        let firsts = nd_offsets(0, x.dims(), idx)?;
        let at: Vec<usize> = firsts.into_iter().flat_map(|first| first..first + slice).collect();
        Ok(vec![scatter(x, updates, &at, self.reduction)?])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        gradients(cx, self.reduction, self.clone(), GatherNd { batch_dims: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_replaced_or_combined_in_order() {
        let x = Tensor::i64(&[3], vec![1, 2, 3]);
        let idx = Tensor::i64(&[4], vec![0, -1, 0, 1]);
        let u = Tensor::i64(&[4], vec![10, 20, 30, -5]);
        let run = |reduction| {
            let op = ScatterElements { axis: 0, reduction };
            op.eval(&[Some(&x), Some(&idx), Some(&u)]).unwrap()[0].to_i64()
        };
        assert_eq!(run(ScatterReduction::None), [30, -5, 20]);
        assert_eq!(run(ScatterReduction::Add), [41, -3, 23]);
        assert_eq!(run(ScatterReduction::Mul), [300, -10, 60]);
        assert_eq!(run(ScatterReduction::Max), [30, 2, 20]);
        assert_eq!(run(ScatterReduction::Min), [1, -5, 3]);
    }

    #[test]
    fn nd_indices_name_slices() {
        let x = Tensor::f32(&[3, 2], vec![0.0; 6]);
        let idx = Tensor::i64(&[2, 1], vec![2, 0]);
        let u = Tensor::f32(&[2, 2], vec![1.0, 2.0, 3.0, f32::NAN]);
        let op = ScatterNd { reduction: ScatterReduction::Max };
        let y = op.eval(&[Some(&x), Some(&idx), Some(&u)]).unwrap()[0].to_f64();
        assert_eq!((&y[..1], &y[2..]), (&[3.0][..], &[0.0, 0.0, 1.0, 2.0][..]));
        assert!(y[1].is_nan());
    }

    #[test]
    fn updates_must_fit_the_indices() {
        let t = |dtype, dims: &[usize]| TensorType::fixed(dtype, dims);
        let (x, idx) = (t(DType::F32, &[3, 2]), t(DType::I64, &[2, 1]));
        let op = ScatterNd { reduction: ScatterReduction::None };
        let why = |u| op.infer(&[Some(&x), Some(&idx), Some(&u)]).unwrap_err().0;
        assert_eq!(why(t(DType::F32, &[2])), "the updates are f32[2], the indices demand f32[2,2]");
        assert_eq!(why(t(DType::F64, &[2, 2])), "the updates are f64, the operand f32");
    }
}
