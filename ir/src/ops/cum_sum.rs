//! `CumSum`: running sums along an axis.
//!
//! ```text
//! y[i] = sum x[j] over j <= i      exclusive: j < i      reverse: j >= i, or j > i
//! ```
//!
//! Sums are taken in f64 and each is rounded once; integers wrap. Source: ONNX CumSum-14, whose axis operand is folded
//! into the attribute.

use crate::movement::check_axis;
use crate::op::{EvalError, Operator, TypeError, operands};
use crate::tensor::{indices, strides_of};
use crate::{DType, Tensor, TensorType, operator_attrs, type_err};

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

impl CumSum {
    /// Replaces each element by the sum up to it.
    fn run<T: Copy>(&self, dims: &[usize], v: &mut [T], zero: T, add: impl Fn(T, T) -> T) {
        let (strides, n) = (strides_of(dims), dims[self.axis]);
        let mut lanes = dims.to_vec();
        lanes[self.axis] = 1;
        if n == 0 {
            return;
        }
        for lane in indices(&lanes) {
            let first = crate::movement::offset(&lane, &strides);
            let mut sum = zero;
            for i in 0..n {
                let at = first + if self.reverse { n - 1 - i } else { i } * strides[self.axis];
                let before = sum;
                sum = add(sum, v[at]);
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
}
