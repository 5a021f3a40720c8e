//! `Reshape`, `Identity`, `Relayout`: the same elements in the same row-major order.
//!
//! Flatten, Squeeze and Unsqueeze are imported as Reshape. Whether a copy is made is the memory plan's decision.

use crate::batch::{BatchCx, Batched};
use crate::movement::{check_shape, may_equal, pick_symbolic, product, sizes};
use crate::op::{EvalError, Operator, SymTensor, TypeError, operands};
use crate::tensor::strides_of;
use crate::{Dim, GradientCx, GradientError, Layout, Tensor, TensorType, attr_enum, operator_attrs, type_err};

operator_attrs! {
    /// The same elements under another shape: `x: T[..] -> T[shape]`, any type. Source: ONNX Reshape-14.
    pub struct Reshape {
        /// The final shape; ONNX's 0 and -1 are resolved. It has as many elements as the operand.
        pub shape: Vec<Dim>,
    }
}

operator_attrs! {
    /// `x: T[..] -> T[..]`, unchanged; any type. Source: ONNX Identity-1; Dropout at inference is imported as this.
    pub struct Identity {}
}

attr_enum! {
    /// The layout that a [`Relayout`] gives its result.
    pub enum TargetLayout {
        /// See [`Layout::RowMajor`].
        RowMajor = "row_major",
        /// See [`Layout::Blocked`].
        Blocked = "blocked",
    }
}

impl From<TargetLayout> for Layout {
    fn from(t: TargetLayout) -> Layout {
        match t {
            TargetLayout::RowMajor => Layout::RowMajor,
            TargetLayout::Blocked => Layout::Blocked,
        }
    }
}

operator_attrs! {
    /// `x: T[..] -> T[..]`, unchanged, but stored in another layout. Made by layout assignment, no model has it.
    pub struct Relayout {
        /// How the result is stored.
        pub layout: TargetLayout,
    }
}

impl Operator for Reshape {
    const NAME: &'static str = "reshape";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        check_shape(&self.shape)?;
        let y = TensorType { dtype: x.dtype, shape: self.shape.clone() };
        match (product(&x.shape), product(&y.shape)) {
            (Some(from), Some(to)) if may_equal(&from, &to) => Ok(vec![y]),
            (Some(from), Some(to)) => type_err!("{x} has {from} elements, {y} has {to}"),
            _ => type_err!("the number of elements of {x} or {y} overflows"),
        }
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        let dims = sizes(&self.shape)?;
        let y = x.clone().reshaped(&dims);
        Ok(vec![y.ok_or_else(|| EvalError(format!("{} does not reshape to {dims:?}", x.ty())))?])
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let [x] = operands(inputs).ok()?;
        let dims = sizes(&self.shape).ok()?;
        let same = dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d))? == x.elems.len();
        let strides = strides_of(&dims);
        if same { Some(vec![pick_symbolic(x, &dims, |i| crate::movement::offset(i, &strides))?]) } else { None }
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy) = (cx.operand(0)?, cx.dy()?);
        cx.give(0, |cx| cx.reshape(dy, &cx.dims(x)))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let (from, axis) = (&cx.ty(0)?.shape, cx.axis(0)?);
        // How many elements are slower than the samples: those in front of them, in both shapes.
        let slower = product(from.get(..axis)?)?.mul(&Dim::from(cx.outer)).size()?;
        let places = (0..self.shape.len()).filter_map(|a| {
            let front = product(&self.shape[..a])?.size()?;
            let outer = slower.checked_div(front).filter(|outer| outer * front == slower)?;
            let length = cx.scaled(&self.shape[a])?;
            (outer == 1 || length.size()? % outer.checked_mul(cx.to)? == 0).then_some((a, outer))
        });
        // An axis of samples alone, where it was if it can be. Else one that is joined with what is in front, if the axes
        // behind stay as they are; else one that is joined with what is behind, unless that is the last axis, of which
        // products and normalizations sum.
        let behind = from.get(axis + 1..)?;
        let rank = |&(a, outer): &(usize, usize)| {
            let kind = match outer {
                1 if self.shape[a] == Dim::from(cx.from) => 0,
                1 if a + 1 < self.shape.len() => 2,
                1 => 4,
                _ if self.shape.get(a + 1..) == Some(behind) => 1,
                _ => 3,
            };
            (kind, a != axis, a)
        };
        let (place, outer) = places.min_by_key(rank)?;
        let shape = cx.scaled_at(&self.shape, place)?;
        Some(Batched { op: Some(Reshape { shape }.into()), outer, ..cx.on(place) })
    }
}

impl Operator for Identity {
    const NAME: &'static str = "identity";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        Ok(vec![x.clone()])
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let [x] = operands(inputs).ok()?;
        Some(vec![x.clone()])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        cx.give(0, |cx| cx.dy())
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|_| true)
    }
}

impl Operator for Relayout {
    const NAME: &'static str = "relayout";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        if x.rank() < 2 {
            return type_err!("{x} has no channel axis, so that it has only one layout");
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        Ok(vec![x.clone()])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        cx.give(0, |cx| cx.dy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn element_counts_are_compared_with_symbols() {
        let n = Dim::symbol("N");
        let x = TensorType::new(DType::F32, [n.clone(), Dim::Known(6)]);
        let to = |shape: Vec<Dim>| Reshape { shape }.infer(&[Some(&x)]);
        assert!(to(vec![n.mul(&Dim::Known(2)), Dim::Known(3)]).is_ok());
        assert_eq!(
            to(vec![n.mul(&Dim::Known(6)).add(&Dim::Known(1))]).unwrap_err().0,
            "f32[N,6] has 6*N elements, f32[6*N+1] has 6*N+1"
        );
        assert!(to(vec![Dim::Known(-1)]).is_err());
        let huge = Dim::Known(1 << 40);
        assert!(to(vec![huge.clone(), huge]).unwrap_err().0.contains("overflows"));
    }

    #[test]
    fn elements_keep_their_order() {
        let x = Tensor::i64(&[2, 3], (0..6).collect());
        let y = Reshape { shape: vec![Dim::Known(3), Dim::Known(2)] }.eval(&[Some(&x)]).unwrap();
        assert_eq!(y[0], Tensor::i64(&[3, 2], (0..6).collect()));
    }
}
