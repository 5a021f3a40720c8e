//! `Expand` and `Tile`: elements repeated.
//!
//! ```text
//! expand  y[i] = x[i'],  i'[a] = 0 along axes where x is 1 long, i[a] elsewhere; axes are aligned at the last one
//! tile    y[i] = x[i mod x.shape]
//! ```
//!
//! Sources: ONNX Expand-13, Tile-13.

use crate::batch::{BatchCx, Batched};
use crate::broadcast::broadcast_strides;
use crate::movement::{check_len, check_shape, may_equal, offset, pick, pick_symbolic, sizes};
use crate::op::{EvalError, Operator, SymTensor, TypeError, operands};
use crate::ops::reduce::ReduceKind;
use crate::tensor::strides_of;
use crate::{Dim, GradientCx, GradientError, Tensor, TensorType, operator_attrs, type_err};

operator_attrs! {
    /// Broadcast to a shape: `x: T[..] -> T[shape]`, any type.
    pub struct Expand {
        /// The final shape: ONNX's two-way broadcast is resolved, so that no dimension of the operand beyond 1 differs.
        pub shape: Vec<Dim>,
    }
}

operator_attrs! {
    /// Repeated along each axis: `x: T[d..] -> T[d * repeats..]`, any type.
    pub struct Tile {
        /// How often, per axis; 0 gives an empty result.
        pub repeats: Vec<usize>,
    }
}

impl Operator for Expand {
    const NAME: &'static str = "expand";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        check_shape(&self.shape)?;
        let y = TensorType { dtype: x.dtype, shape: self.shape.clone() };
        let Some(skip) = y.rank().checked_sub(x.rank()) else { return type_err!("{x} has more axes than {y}") };
        for (axis, (from, to)) in x.shape.iter().zip(&y.shape[skip..]).enumerate() {
            let is_one = from.known().is_none_or(|n| n == 1); // a symbol may turn out to be 1
            if !is_one && !may_equal(from, to) {
                return type_err!("{x} does not expand to {y}: dimension {axis} is {from}, neither 1 nor {to}");
            }
        }
        Ok(vec![y])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        self.infer(&[Some(&x.ty())])?; // a symbol that is known by now may not fit
        let dims = sizes(&self.shape)?;
        let strides = broadcast_strides(x.dims(), &dims);
        Ok(vec![pick(x, &dims, |i| offset(i, &strides))])
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let [x] = operands(inputs).ok()?;
        self.infer(&[Some(&x.ty())]).ok()?;
        let dims = sizes(&self.shape).ok()?;
        let strides = broadcast_strides(&x.dims, &dims);
        Some(vec![pick_symbolic(x, &dims, |i| offset(i, &strides))?])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy) = (cx.operand(0)?, cx.dy()?);
        cx.give(0, |cx| cx.sum_to(dy, &cx.dims(x)))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let (x, axis) = (cx.ty(0)?, cx.axis(0)?);
        let place = axis + self.shape.len().checked_sub(x.rank())?;
        // Copies of a whole batch would stand behind each other.
        let same = self.shape.get(place) == x.shape.get(axis);
        let shape = cx.scaled_at(&self.shape, place).filter(|_| same)?;
        Some(Batched { op: Some(Expand { shape }.into()), ..cx.on(place) })
    }
}

impl Tile {
    fn dims(&self, x: &[usize]) -> Option<Vec<usize>> {
        x.iter().zip(&self.repeats).map(|(&d, &r)| d.checked_mul(r)).collect()
    }
}

/// The row-major offset of `index` modulo `dims`.
fn wrapped(index: &[usize], dims: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(dims).zip(strides).map(|((i, d), s)| i % d * s).sum()
}

impl Operator for Tile {
    const NAME: &'static str = "tile";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        check_len("repeats", self.repeats.len(), x.rank())?;
        let shape = x.shape.iter().zip(&self.repeats).map(|(d, &r)| d.mul(&Dim::from(r))).collect();
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        let dims = self.dims(x.dims()).ok_or_else(|| EvalError(format!("{} repeated overflows", x.ty())))?;
        let strides = strides_of(x.dims());
        Ok(vec![pick(x, &dims, |i| wrapped(i, x.dims(), &strides))])
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let [x] = operands(inputs).ok()?;
        self.infer(&[Some(&x.ty())]).ok()?;
        let strides = strides_of(&x.dims);
        Some(vec![pick_symbolic(x, &self.dims(&x.dims)?, |i| wrapped(i, &x.dims, &strides))?])
    }

    /// The sum over all repetitions.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy) = (cx.operand(0)?, cx.dy()?);
        cx.give(0, |cx| {
            let apart: Vec<usize> = self.repeats.iter().zip(cx.dims(x)).flat_map(|(&r, d)| [r, d]).collect();
            let apart = cx.reshape(dy, &apart)?;
            let axes: Vec<usize> = (0..self.repeats.len()).map(|a| 2 * a).collect();
            cx.reduce(ReduceKind::Sum, apart, &axes, false)
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| self.repeats.get(axis) == Some(&1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn expand_repeats_axes_of_length_one() {
        let x = Tensor::i64(&[2, 1], vec![5, 6]);
        let op = Expand { shape: [2, 2, 3].map(Dim::from).to_vec() };
        assert_eq!(op.eval(&[Some(&x)]).unwrap()[0], Tensor::i64(&[2, 2, 3], vec![5, 5, 5, 6, 6, 6, 5, 5, 5, 6, 6, 6]));
        assert_eq!(
            op.infer(&[Some(&TensorType::fixed(DType::I64, &[2, 2]))]).unwrap_err().0,
            "i64[2,2] does not expand to i64[2,2,3]: dimension 1 is 2, neither 1 nor 3"
        );
    }

    #[test]
    fn tile_repeats_whole_axes() {
        let x = Tensor::i64(&[1, 2], vec![5, 6]);
        let tile = |r: [usize; 2]| Tile { repeats: r.to_vec() }.eval(&[Some(&x)]).unwrap().remove(0);
        assert_eq!(tile([2, 2]), Tensor::i64(&[2, 4], vec![5, 6, 5, 6, 5, 6, 5, 6]));
        assert_eq!(tile([0, 1]), Tensor::i64(&[0, 2], vec![]));
    }

    #[test]
    fn a_symbolic_expansion_is_bounded() {
        let x = SymTensor { dims: vec![1], elems: vec![Dim::symbol("N")] };
        let to = |n: i64| Expand { shape: vec![Dim::Known(n)] }.eval_symbolic(&[Some(&x)], &[]);
        assert_eq!(to(2).unwrap()[0].elems, [Dim::symbol("N"), Dim::symbol("N")]);
        assert_eq!(to(1 << 40), None);
    }
}
