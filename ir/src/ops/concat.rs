//! `Concat` and `Split`: tensors joined along one axis, and parted again.
//!
//! ```text
//! concat  y = [x0 | x1 | ...]         split  x = [y0 | y1 | ...]  with y_i.shape[axis] = sizes[i]
//! ```
//!
//! Sources: ONNX Concat-13, Split-18.

use crate::batch::{BatchCx, Batched};
use crate::movement::{check_axis, check_shape, may_equal, offset, pick, pick_symbolic, sizes, unify};
use crate::op::{EvalError, Operator, SymTensor, TypeError, operands};
use crate::tensor::strides_of;
use crate::{Dim, GradientCx, GradientError, Tensor, TensorType, ValueId, operator_attrs, type_err};

operator_attrs! {
    /// One or more operands of one type, equal but along `axis`: `x: T[..d_i..]... -> T[..sum d_i..]`, any type.
    pub struct Concat {
        /// The axis along which operands stand one behind the other.
        pub axis: usize,
    }
}

operator_attrs! {
    /// One result for each size: `x: T[..d..] -> T[..size..]...`, any type; the sizes sum to d.
    pub struct Split {
        /// The axis that is parted.
        pub axis: usize,
        /// Its length in each result.
        pub sizes: Vec<Dim>,
    }
}

impl Operator for Concat {
    const NAME: &'static str = "concat";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let Some(xs) = inputs.iter().copied().collect::<Option<Vec<_>>>().filter(|xs| !xs.is_empty()) else {
            return type_err!("takes one or more operands, none of them absent");
        };
        let mut y = xs[0].clone();
        check_axis(self.axis, y.rank())?;
        for (n, x) in xs.iter().enumerate().skip(1) {
            if x.dtype != y.dtype {
                return type_err!("operand {n} is {}, operand 0 is {}", x.dtype, y.dtype);
            }
            if x.rank() != y.rank() {
                return type_err!("operand {n} has {} axes, operand 0 has {}", x.rank(), y.rank());
            }
            for (axis, (to, d)) in y.shape.iter_mut().zip(&x.shape).enumerate() {
                *to = if axis == self.axis {
                    to.add(d)
                } else if let Some(d) = unify(to, d) {
                    d
                } else {
                    return type_err!("dimension {axis} of operand {n} is {d}, of operand 0 {to}");
                };
            }
        }
        Ok(vec![y])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let xs: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
        let types: Vec<TensorType> = xs.iter().map(|x| x.ty()).collect();
        let y = self.infer(&types.iter().map(Some).collect::<Vec<_>>())?.remove(0);
        let bytes: Vec<Vec<u8>> = xs.iter().map(|x| x.to_bytes()).collect();
        let parts: Vec<(&[usize], &[u8])> = xs.iter().zip(&bytes).map(|(x, b)| (x.dims(), &b[..])).collect();
        let joined = Tensor::from_bytes(y.dtype, &sizes(&y.shape)?, &join(&parts, self.axis, y.dtype.bytes()));
        Ok(vec![joined.ok_or_else(|| EvalError(format!("the operands do not fill {y}")))?])
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let xs = inputs.iter().copied().collect::<Option<Vec<_>>>()?;
        let mut dims = xs.first()?.dims.clone();
        *dims.get_mut(self.axis)? = xs.iter().map(|x| x.dims.get(self.axis)).sum::<Option<usize>>()?;
        let parts: Vec<(&[usize], &[Dim])> = xs.iter().map(|x| (&x.dims[..], &x.elems[..])).collect();
        Some(vec![SymTensor { dims, elems: join(&parts, self.axis, 1) }])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let dy = cx.dy()?;
        let operands: Vec<ValueId> = (0..cx.operand_count()).filter_map(|i| cx.optional(i)).collect();
        let sizes = operands.iter().map(|v| Dim::from(cx.dims(*v)[self.axis])).collect();
        let parts = cx.node(Split { axis: self.axis, sizes }, &[Some(dy)])?;
        (0..operands.len()).try_for_each(|i| cx.give(i, |_| Ok(ValueId { node: parts, out: i as u32 })))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let axis = cx.axes.iter().flatten().next().copied().filter(|&axis| axis != self.axis)?;
        let all = cx.axes.iter().all(|own| own.is_none_or(|own| own == axis));
        all.then(|| Batched { operands: vec![Some(axis); cx.axes.len()], ..cx.on(axis) })
    }
}

/// The elements of tensors, `width` items each, joined along `axis`.
fn join<T: Clone>(parts: &[(&[usize], &[T])], axis: usize, width: usize) -> Vec<T> {
    let outer: usize = parts[0].0[..axis].iter().product();
    let mut out = Vec::with_capacity(parts.iter().map(|(_, items)| items.len()).sum());
    for row in 0..outer {
        for (dims, items) in parts {
            let n = dims[axis..].iter().product::<usize>() * width;
            out.extend_from_slice(&items[row * n..][..n]);
        }
    }
    out
}

impl Split {
    /// For each result its length and where it begins along the axis.
    fn parts(&self) -> Result<Vec<(usize, usize)>, TypeError> {
        let mut begin = 0usize;
        let mut part = |n| {
            let at = begin;
            begin = begin.saturating_add(n);
            (n, at)
        };
        Ok(sizes(&self.sizes)?.into_iter().map(&mut part).collect())
    }
}

impl Operator for Split {
    const NAME: &'static str = "split";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        check_axis(self.axis, x.rank())?;
        check_shape(&self.sizes)?;
        let sum = self.sizes.iter().fold(Dim::Known(0), |sum, n| sum.add(n));
        let whole = &x.shape[self.axis];
        if !may_equal(&sum, whole) {
            return type_err!("the sizes sum to {sum}, dimension {} is {whole}", self.axis);
        }
        let part = |n: &Dim| {
            let mut y = x.clone();
            y.shape[self.axis] = n.clone();
            y
        };
        Ok(self.sizes.iter().map(part).collect())
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        self.infer(&[Some(&x.ty())])?; // symbols that are known by now may not fit
        let strides = strides_of(x.dims());
        let part = |(n, begin): (usize, usize)| {
            let mut dims = x.dims().to_vec();
            dims[self.axis] = n;
            pick(x, &dims, |i| offset(i, &strides) + begin * strides[self.axis])
        };
        Ok(self.parts()?.into_iter().map(part).collect())
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let [x] = operands(inputs).ok()?;
        let strides = strides_of(&x.dims);
        let part = |(n, begin): (usize, usize)| {
            let mut dims = x.dims.clone();
            *dims.get_mut(self.axis)? = n;
            let fits = begin.checked_add(n)? <= x.dims[self.axis];
            if fits { pick_symbolic(x, &dims, |i| offset(i, &strides) + begin * strides[self.axis]) } else { None }
        };
        self.parts().ok()?.into_iter().map(part).collect()
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let parts = (0..cx.result_count()).map(|i| cx.upstream_or_zeros(i)).collect::<Result<Vec<_>, _>>()?;
        cx.give(0, |cx| cx.add(Concat { axis: self.axis }, &parts))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let split = cx.where_first(|axis| axis != self.axis)?;
        Some(Batched { results: vec![cx.axis(0)?; self.sizes.len()], ..split })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn joins_and_parts_inner_axes() {
        let (a, b) = (Tensor::i64(&[2, 1], vec![1, 2]), Tensor::i64(&[2, 2], vec![3, 4, 5, 6]));
        let y = Concat { axis: 1 }.eval(&[Some(&a), Some(&b)]).unwrap().remove(0);
        assert_eq!(y, Tensor::i64(&[2, 3], vec![1, 3, 4, 2, 5, 6]));
        let op = Split { axis: 1, sizes: vec![Dim::Known(1), Dim::Known(2), Dim::Known(0)] };
        assert_eq!(op.eval(&[Some(&y)]).unwrap(), [a, b, Tensor::i64(&[2, 0], vec![])]);
    }

    #[test]
    fn symbols_add_up_and_numbers_win() {
        let n = Dim::symbol("N");
        let a = TensorType::new(DType::F32, [n.clone(), Dim::symbol("C")]);
        let b = TensorType::new(DType::F32, [n.clone(), Dim::Known(4)]);
        let y = Concat { axis: 0 }.infer(&[Some(&a), Some(&b)]).unwrap().remove(0);
        assert_eq!(y.to_string(), "f32[2*N,4]");
        let halves = Split { axis: 0, sizes: vec![n.clone(), n.add(&Dim::Known(1))] };
        assert_eq!(halves.infer(&[Some(&y)]).unwrap_err().0, "the sizes sum to 2*N+1, dimension 0 is 2*N");
    }

    #[test]
    fn operands_must_agree() {
        let t = |dims: &[usize]| TensorType::fixed(DType::F32, dims);
        let why = |a: TensorType, b: TensorType| Concat { axis: 0 }.infer(&[Some(&a), Some(&b)]).unwrap_err().0;
        assert_eq!(why(t(&[2, 3]), t(&[2, 4])), "dimension 1 of operand 1 is 4, of operand 0 3");
        assert_eq!(why(t(&[2]), t(&[2, 4])), "operand 1 has 2 axes, operand 0 has 1");
        assert!(Concat { axis: 0 }.infer(&[]).is_err());
    }

    #[test]
    fn shapes_are_built_from_symbols() {
        let part = |d: Dim| SymTensor { dims: vec![1], elems: vec![d] };
        let (n, c) = (part(Dim::symbol("N")), part(Dim::Known(-1)));
        let y = Concat { axis: 0 }.eval_symbolic(&[Some(&n), Some(&c)], &[]).unwrap().remove(0);
        assert_eq!(y, SymTensor { dims: vec![2], elems: vec![Dim::symbol("N"), Dim::Known(-1)] });
        let back = Split { axis: 0, sizes: vec![Dim::Known(1), Dim::Known(1)] }.eval_symbolic(&[Some(&y)], &[]);
        assert_eq!(back.unwrap(), [n, c]);
    }
}
