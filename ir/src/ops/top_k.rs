//! `TopK`: the largest or smallest elements along an axis, with their positions.
//!
//! ```text
//! (values, positions) = the first k of  sort(x[.., :, ..]) , ties by the lower position first
//! ```
//!
//! NaN counts as larger than every number, as numpy sorts it (ONNX leaves it open). Without `sorted` ONNX leaves the order
//! of the results open; here and in compiled code they are sorted all the same. Source: ONNX TopK-11.

use crate::batch::{BatchCx, Batched};
use crate::movement::{check_axis, check_shape};
use crate::op::{EvalError, Operator, TypeError, operands};
use crate::ops::scatter::{ScatterElements, ScatterReduction};
use crate::tensor::{indices, strides_of};
use crate::{
    DType, Data, Dim, GradientCx, GradientError, Tensor, TensorType, map_data, operator_attrs, type_err, with_data,
};
use std::cmp::Ordering;

operator_attrs! {
    /// `x: T[.., d, ..] -> T[.., k, ..], i64[.., k, ..]`, T any number type, k <= d.
    pub struct TopK {
        /// The axis along which elements are compared.
        pub axis: usize,
        /// How many are taken.
        pub k: Dim,
        /// The largest ones, largest first; else the smallest ones, smallest first.
        pub largest: bool,
        /// Whether the model relies on the order.
        pub sorted: bool,
    }
}

/// The order that puts NaN above every number and both zeros into one place.
fn order<T: PartialOrd>(a: &T, b: &T) -> Ordering {
    let is_nan = |x: &T| x.partial_cmp(x).is_none();
    a.partial_cmp(b).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
}

impl Operator for TopK {
    const NAME: &'static str = "top_k";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        check_axis(self.axis, x.rank())?;
        check_shape(std::slice::from_ref(&self.k))?;
        if x.dtype == DType::Bool {
            return type_err!("bool has no order");
        }
        let d = &x.shape[self.axis];
        if self.k.sub(d).known().is_some_and(|past| past > 0) {
            return type_err!("k is {}, dimension {} of the operand is {d}", self.k, self.axis);
        }
        let mut shape = x.shape.clone();
        shape[self.axis] = self.k.clone();
        Ok(vec![TensorType { dtype: x.dtype, shape: shape.clone() }, TensorType { dtype: DType::I64, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        let types = self.infer(&[Some(&x.ty())])?;
        let dims = crate::movement::sizes(&types[0].shape)?;
        let (d, k, strides) = (x.dims()[self.axis], dims[self.axis], strides_of(x.dims()));
        let (mut at, mut positions) = (vec![0; dims.iter().product()], vec![0; dims.iter().product()]);
        let out = strides_of(&dims);
        let mut lanes = dims.clone();
        lanes[self.axis] = 1;
        for lane in indices(&lanes) {
            let first = crate::movement::offset(&lane, &strides);
            let place = |i: usize| first + i * strides[self.axis];
            let mut ranked: Vec<usize> = (0..d).collect();
            with_data!(x.data(), v => ranked.sort_by(|&i, &j| {
                let o = order(&v[place(i)], &v[place(j)]);
                if self.largest { o.reverse() } else { o } // a stable sort keeps ties in the order of positions
            }));
            for (n, &i) in ranked[..k].iter().enumerate() {
                let to = crate::movement::offset(&lane, &out) + n * out[self.axis];
                (at[to], positions[to]) = (place(i), i as i64);
            }
        }
        let values = Tensor::of(&dims, map_data!(x.data(), v => at.iter().map(|&i| v[i]).collect()));
        Ok(vec![values, Tensor::of(&dims, Data::I64(positions))])
    }

    /// The values' gradient goes where they came from.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy, positions) = (cx.operand(0)?, cx.dy()?, cx.result(1));
        cx.give(0, |cx| {
            let ty = cx.ty(x).clone();
            let zeros = cx.zeros(&ty);
            cx.add(ScatterElements { axis: self.axis, reduction: ScatterReduction::None }, &[zeros, positions, dy])
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let taken = cx.where_first(|axis| axis != self.axis)?;
        Some(Batched { results: vec![cx.axis(0)?; 2], ..taken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(x: &Tensor, axis: usize, k: i64, largest: bool) -> Vec<Tensor> {
        TopK { axis, k: Dim::Known(k), largest, sorted: true }.eval(&[Some(x)]).unwrap()
    }

    #[test]
    fn ties_keep_their_order_in_both_directions() {
        let x = Tensor::i64(&[2, 4], vec![1, 3, 3, 2, 0, 0, 0, 0]);
        let y = top(&x, 1, 2, true);
        assert_eq!((y[0].to_i64(), y[1].to_i64()), (vec![3, 3, 0, 0], vec![1, 2, 0, 1]));
        let y = top(&x, 0, 1, false);
        assert_eq!((y[0].to_i64(), y[1].to_i64()), (vec![0, 0, 0, 0], vec![1, 1, 1, 1]));
    }

    #[test]
    fn nan_is_the_largest() {
        let x = Tensor::f32(&[3], vec![1.0, f32::NAN, f32::INFINITY]);
        assert_eq!(top(&x, 0, 2, true)[1].to_i64(), [1, 2]);
        assert_eq!(top(&x, 0, 2, false)[1].to_i64(), [0, 2]);
    }

    #[test]
    fn k_is_bounded_by_the_axis() {
        let x = TensorType::fixed(DType::F32, &[3]);
        let op = TopK { axis: 0, k: Dim::Known(4), largest: true, sorted: true };
        assert_eq!(op.infer(&[Some(&x)]).unwrap_err().0, "k is 4, dimension 0 of the operand is 3");
    }
}
