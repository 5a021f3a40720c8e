//! `CumSum` and `CumProd`: running sums and products along an axis.
//!
//! ```text
//! y[i] = sum or product of x[j] over j <= i      exclusive: j < i      reverse: j >= i, or j > i
//! ```
//!
//! They are taken in f64 and each is rounded once; integers wrap. Sources: ONNX CumSum-14, CumProd-26, whose axis operand is
//! folded into the attribute.

use crate::batch::{BatchCx, Batched};
use crate::movement::check_axis;
use crate::op::{EvalError, Operator, TypeError, operands};
use crate::tensor::{indices, strides_of};
use crate::{DType, GradientCx, GradientError, Tensor, TensorType, operator_attrs, type_err};

operator_attrs! {
    /// `x: T[..] -> T[..]`, any number type.
    pub struct CumSum {
        /// The axis along which it sums.
        pub axis: usize,
        /// Whether an element is left out of its own sum.
        pub exclusive: bool,
        /// Whether it sums from the end.
        pub reverse: bool,
    }
}

operator_attrs! {
    /// `x: T[..] -> T[..]`, any number type.
    pub struct CumProd {
        /// The axis along which it multiplies.
        pub axis: usize,
        /// Whether an element is left out of its own product.
        pub exclusive: bool,
        /// Whether it multiplies from the end.
        pub reverse: bool,
    }
}

impl CumProd {
    /// The walk of a running sum along the same elements.
    fn walk(&self) -> CumSum {
        CumSum { axis: self.axis, exclusive: self.exclusive, reverse: self.reverse }
    }
}

impl CumSum {
    /// Replaces each element by what `join` makes of all up to it, from `start`.
    fn run<T: Copy>(&self, dims: &[usize], v: &mut [T], start: T, join: impl Fn(T, T) -> T) {
        let (strides, n) = (strides_of(dims), dims[self.axis]);
        let mut lanes = dims.to_vec();
        lanes[self.axis] = 1;
        if n == 0 {
            return;
        }
        for lane in indices(&lanes) {
            let first = crate::movement::offset(&lane, &strides);
            let mut sum = start;
            for i in 0..n {
                let at = first + if self.reverse { n - 1 - i } else { i } * strides[self.axis];
                let before = sum;
                sum = join(sum, v[at]);
                v[at] = if self.exclusive { before } else { sum };
            }
        }
    }
}

impl Operator for CumSum {
    const NAME: &'static str = "cum_sum";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        check_axis(self.axis, x.rank())?;
        if x.dtype == DType::Bool { type_err!("bool has no sum") } else { Ok(vec![x.clone()]) }
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        Ok(vec![if x.dtype().is_float() {
            let mut v = x.to_f64();
            self.run(x.dims(), &mut v, 0.0, |a, b| a + b);
            Tensor::from_f64(x.dtype(), x.dims(), &v)
        } else {
            let mut v = x.to_i64();
            self.run(x.dims(), &mut v, 0, i64::wrapping_add);
            Tensor::from_i64(x.dtype(), x.dims(), &v)
        }])
    }

    /// The sum from the other end.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let dy = cx.dy()?;
        cx.give(0, |cx| cx.add(CumSum { reverse: !self.reverse, ..self.clone() }, &[dy]))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis != self.axis)
    }
}

impl Operator for CumProd {
    const NAME: &'static str = "cum_prod";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        check_axis(self.axis, x.rank())?;
        if x.dtype == DType::Bool { type_err!("bool has no product") } else { Ok(vec![x.clone()]) }
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        Ok(vec![if x.dtype().is_float() {
            let mut v = x.to_f64();
            self.walk().run(x.dims(), &mut v, 1.0, |a, b| a * b);
            Tensor::from_f64(x.dtype(), x.dims(), &v)
        } else {
            let mut v = x.to_i64();
            self.walk().run(x.dims(), &mut v, 1, i64::wrapping_mul);
            Tensor::from_i64(x.dtype(), x.dims(), &v)
        }])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let way = "where all elements are positive, exp(cum_sum(log(x))) is the same and has one";
        if cx.wants(0) { Err(GradientError::Unsupported(Some(way))) } else { Ok(()) }
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis != self.axis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_four_directions() {
        let x = Tensor::i64(&[2, 3], vec![1, 2, 3, 4, 5, 6]);
        let run = |axis, exclusive, reverse| CumSum { axis, exclusive, reverse }.eval(&[Some(&x)]).unwrap()[0].to_i64();
        assert_eq!(run(1, false, false), [1, 3, 6, 4, 9, 15]);
        assert_eq!(run(1, true, false), [0, 1, 3, 0, 4, 9]);
        assert_eq!(run(1, false, true), [6, 5, 3, 15, 11, 6]);
        assert_eq!(run(0, true, true), [4, 5, 6, 0, 0, 0]);
    }
    #[test]
    fn products_in_all_four_directions() {
        let x = Tensor::i64(&[2, 3], vec![1, 2, 3, 4, 5, 6]);
        let run =
            |axis, exclusive, reverse| CumProd { axis, exclusive, reverse }.eval(&[Some(&x)]).unwrap()[0].to_i64();
        assert_eq!(run(1, false, false), [1, 2, 6, 4, 20, 120]);
        assert_eq!(run(1, true, false), [1, 1, 2, 1, 4, 20]);
        assert_eq!(run(1, false, true), [6, 6, 3, 120, 30, 6]);
        assert_eq!(run(0, true, true), [4, 5, 6, 1, 1, 1]);
    }
}
