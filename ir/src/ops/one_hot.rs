//! `OneHot`: an index as a vector that is `on` at one place and `off` elsewhere.
//!
//! ```text
//! y[a.., j, b..] = on  if idx[a.., b..] is j or j - depth, else off        values = [off, on], j along `axis`
//! ```
//!
//! An index outside of `-depth .. depth` gives `off` everywhere. Source: ONNX OneHot-11.

use crate::batch::{BatchCx, Batched};
use crate::op::{EvalError, Operator, TypeError, operands};
use crate::tensor::{indices, strides_of};
use crate::{DType, Dim, Tensor, TensorType, map_data, operator_attrs, type_err};

operator_attrs! {
    /// `idx: I[a.., b..], values: T[2] -> T[a.., depth, b..]`, I any number type (fractions are truncated), T any type.
    pub struct OneHot {
        /// The axis of the result along which the vectors lie.
        pub axis: usize,
        /// Their length.
        pub depth: usize,
    }
}

impl Operator for OneHot {
    const NAME: &'static str = "one_hot";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [idx, values] = operands(inputs)?;
        if idx.dtype == DType::Bool {
            return type_err!("indices are bool, not numbers");
        }
        if self.axis > idx.rank() {
            return type_err!("axis {} is beyond the {} axes of the result", self.axis, idx.rank() + 1);
        }
        if values.rank() != 1 || values.elems().is_some_and(|n| n != 2) {
            return type_err!("the values are {values}, not [off, on]");
        }
        let mut shape = idx.shape.clone();
        shape.insert(self.axis, Dim::from(self.depth));
        Ok(vec![TensorType { dtype: values.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [idx, values] = operands(inputs)?;
        if values.elems() != 2 {
            return Err(EvalError(format!("the values are {}, not [off, on]", values.ty())));
        }
        let mut dims = idx.dims().to_vec();
        dims.insert(self.axis, self.depth);
        let (at, strides, depth) = (idx.to_i64(), strides_of(idx.dims()), self.depth as i64);
        let is_on = |mut i: Vec<usize>| {
            let j = i.remove(self.axis) as i64;
            let at = at[crate::movement::offset(&i, &strides)];
            at == j || at == j - depth
        };
        let on: Vec<usize> = indices(&dims).map(|i| usize::from(is_on(i))).collect();
        Ok(vec![Tensor::of(&dims, map_data!(values.data(), v => on.iter().map(|&o| v[o]).collect()))])
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let axis = cx.first_alone()?;
        Some(cx.on(axis + usize::from(axis >= self.axis)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_and_outlying_indices() {
        let idx = Tensor::i64(&[4], vec![1, -1, 3, -4]);
        let values = Tensor::f32(&[2], vec![0.0, 9.0]);
        let y = OneHot { axis: 0, depth: 3 }.eval(&[Some(&idx), Some(&values)]).unwrap().remove(0);
        let on = [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]].concat();
        assert_eq!(y, Tensor::f32(&[3, 4], on.into_iter().map(|b| b as f32 * 9.0).collect()));
    }
}
