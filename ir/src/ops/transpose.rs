//! `Transpose`: axes in another order.
//!
//! ```text
//! y[i] = x[j]   with  j[perm[a]] = i[a]    so that  y.shape[a] = x.shape[perm[a]]
//! ```
//!
//! Source: ONNX Transpose-21.

use crate::batch::{BatchCx, Batched};
use crate::movement::{check_len, offset, pick, pick_symbolic};
use crate::op::{EvalError, Operator, SymTensor, TypeError, operands};
use crate::tensor::strides_of;
use crate::{GradientCx, GradientError, Tensor, TensorType, operator_attrs, type_err};

operator_attrs! {
    /// `x: T[..] -> T[x.shape permuted]`, any type.
    pub struct Transpose {
        /// Axis `a` of the result is axis `perm[a]` of the operand.
        pub perm: Vec<usize>,
    }
}

impl Transpose {
    fn dims(&self, x: &[usize]) -> Vec<usize> {
        self.perm.iter().map(|&p| x[p]).collect()
    }

    /// The operand's strides in the order of the result's axes.
    fn strides(&self, x: &[usize]) -> Vec<usize> {
        self.dims(&strides_of(x))
    }
}

impl Operator for Transpose {
    const NAME: &'static str = "transpose";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        check_len("perm", self.perm.len(), x.rank())?;
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..x.rank()) {
            return type_err!("perm {:?} is not a permutation of {} axes", self.perm, x.rank());
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: self.perm.iter().map(|&p| x.shape[p].clone()).collect() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        let strides = self.strides(x.dims());
        Ok(vec![pick(x, &self.dims(x.dims()), |i| offset(i, &strides))])
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let [x] = operands(inputs).ok()?;
        self.infer(&[Some(&x.ty())]).ok()?;
        let strides = self.strides(&x.dims);
        Some(vec![pick_symbolic(x, &self.dims(&x.dims), |i| offset(i, &strides))?])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let mut inverse = vec![0; self.perm.len()];
        self.perm.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
        cx.give(0, |cx| {
            let dy = cx.dy()?;
            cx.transpose(dy, &inverse)
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let axis = cx.axis(0)?;
        Some(cx.on(self.perm.iter().position(|&p| p == axis)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn rotates_three_axes() {
        let x = Tensor::i64(&[2, 3, 1], (0..6).collect());
        let y = Transpose { perm: vec![1, 2, 0] }.eval(&[Some(&x)]).unwrap();
        assert_eq!(y[0], Tensor::i64(&[3, 1, 2], vec![0, 3, 1, 4, 2, 5]));
    }

    #[test]
    fn refuses_what_is_not_a_permutation() {
        let x = TensorType::fixed(DType::U8, &[2, 3]);
        for perm in [vec![0, 0], vec![0], vec![0, 2]] {
            assert!(Transpose { perm }.infer(&[Some(&x)]).is_err());
        }
    }
}
