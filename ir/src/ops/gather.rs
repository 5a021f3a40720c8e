//! `Gather`, `GatherElements`, `GatherNd`: elements chosen by a tensor of indices.
//!
//! ```text
//! gather           y[a.., i.., b..] = x[a.., idx[i..], b..]              the indices' axes stand in place of `axis`
//! gather_elements  y[i..]           = x[i.. with i[axis] = idx[i..]]
//! gather_nd        y[b.., i.., s..] = x[b.., idx[b.., i.., :], s..]      the last axis of idx is an index into x
//! ```
//!
//! A negative index counts from the end. One out of range is an error here; compiled code takes the nearest one that
//! exists, so that no index reads outside of the operand. Sources: ONNX Gather-13, GatherElements-13, GatherND-13.

use crate::batch::{BatchCx, Batched};
use crate::movement::{check_axis, may_equal, offset, pick, pick_symbolic};
use crate::op::{EvalError, Operator, SymTensor, TypeError, operands};
use crate::ops::concat::Concat;
use crate::ops::scatter::{ScatterElements, ScatterNd, ScatterReduction};
use crate::tensor::strides_of;
use crate::{DType, GradientCx, GradientError, Tensor, TensorType, operator_attrs, type_err};

operator_attrs! {
    /// `x: T[a.., d, b..], idx: i32|i64[i..] -> T[a.., i.., b..]`, T any type.
    pub struct Gather {
        /// The axis of x that the indices index.
        pub axis: usize,
    }
}

operator_attrs! {
    /// `x: T[..], idx: i32|i64[i..] -> T[i..]`, T any type; both have one rank, and idx is nowhere longer than x but along
    /// `axis`.
    pub struct GatherElements {
        /// The axis of x that the indices index.
        pub axis: usize,
    }
}

operator_attrs! {
    /// `x: T[b.., d.., s..], idx: i32|i64[b.., i.., k] -> T[b.., i.., s..]`, T any type, k the number of axes d.
    pub struct GatherNd {
        /// The number of axes b that both have in common.
        pub batch_dims: usize,
    }
}

/// Refuses index operands that are not i32 or i64.
pub(super) fn check_indices(idx: &TensorType) -> Result<(), TypeError> {
    match idx.dtype {
        DType::I32 | DType::I64 => Ok(()),
        t => type_err!("indices are {t}, not i32 or i64"),
    }
}

/// An index as an offset from the first of `n` elements.
pub(super) fn resolve(index: i64, n: usize) -> Result<usize, EvalError> {
    let at = if index < 0 { index + n as i64 } else { index };
    match usize::try_from(at) {
        Ok(at) if at < n => Ok(at),
        _ => Err(EvalError(format!("index {index} is out of range for {n} elements"))),
    }
}

impl Operator for Gather {
    const NAME: &'static str = "gather";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x, idx] = operands(inputs)?;
        check_axis(self.axis, x.rank())?;
        check_indices(idx)?;
        let shape = [&x.shape[..self.axis], &idx.shape, &x.shape[self.axis + 1..]].concat();
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x, idx] = operands(inputs)?;
        let n = x.dims()[self.axis];
        let at = idx.to_i64().into_iter().map(|i| resolve(i, n)).collect::<Result<Vec<_>, _>>()?;
        let (dims, source) = self.plan(x.dims(), idx.dims(), at);
        Ok(vec![pick(x, &dims, source)])
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let [x, idx] = operands(inputs).ok()?;
        let n = *x.dims.get(self.axis)?;
        let at = idx.elems.iter().map(|i| resolve(i.known()?, n).ok()).collect::<Option<Vec<_>>>()?;
        let (dims, source) = self.plan(&x.dims, &idx.dims, at);
        Some(vec![pick_symbolic(x, &dims, source)?])
    }

    /// dy added up where it was read, with the indexed axis in front.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, idx, dy) = (cx.operand(0)?, cx.operand(1)?, cx.dy()?);
        cx.give(0, |cx| {
            let (dims, places) = (cx.dims(x), cx.dims(idx));
            let (axis, n) = (self.axis, places.len());
            let chosen = (axis..axis + n).chain(0..axis).chain(axis + n..n + dims.len() - 1);
            let dy = cx.transpose(dy, &chosen.collect::<Vec<_>>())?;
            let mut front = dims.clone();
            front[..=axis].rotate_right(1);
            let ty = TensorType::fixed(cx.ty(x).dtype, &front);
            let zeros = cx.zeros(&ty);
            let idx = cx.reshape(idx, &[&places[..], &[1]].concat())?;
            let sum = cx.add(ScatterNd { reduction: ScatterReduction::Add }, &[zeros, idx, dy])?;
            let back: Vec<usize> = (1..=axis).chain([0]).chain(axis + 1..dims.len()).collect();
            cx.transpose(sum, &back)
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let indices = cx.ty(1)?.rank();
        match (cx.axis(0), cx.axis(1)) {
            (Some(axis), None) if axis < self.axis => Some(cx.on(axis)),
            (Some(axis), None) if axis > self.axis => Some(cx.on(axis + indices - 1)),
            (None, Some(axis)) => Some(cx.on(self.axis + axis)),
            _ => None,
        }
    }
}

impl Gather {
    /// The result's dimensions and the source offset of each of its indices, for resolved indices.
    fn plan(&self, x: &[usize], idx: &[usize], at: Vec<usize>) -> (Vec<usize>, impl Fn(&[usize]) -> usize + use<>) {
        let axis = self.axis;
        let dims = [&x[..axis], idx, &x[axis + 1..]].concat();
        let (xs, is) = (strides_of(x), strides_of(idx));
        let source = move |i: &[usize]| {
            let (before, rest) = i.split_at(axis);
            let (chosen, behind) = rest.split_at(is.len());
            offset(before, &xs) + at[offset(chosen, &is)] * xs[axis] + offset(behind, &xs[axis + 1..])
        };
        (dims, source)
    }
}

impl Operator for GatherElements {
    const NAME: &'static str = "gather_elements";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x, idx] = operands(inputs)?;
        check_elements_indices(self.axis, x, idx)?;
        Ok(vec![TensorType { dtype: x.dtype, shape: idx.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x, idx] = operands(inputs)?;
        let at = elements_offsets(self.axis, x.dims(), idx)?;
        let strides = strides_of(idx.dims());
        Ok(vec![pick(x, idx.dims(), |i| at[offset(i, &strides)])])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, idx, dy) = (cx.operand(0)?, cx.operand(1)?, cx.dy()?);
        cx.give(0, |cx| {
            let ty = cx.ty(x).clone();
            let zeros = cx.zeros(&ty);
            cx.add(ScatterElements { axis: self.axis, reduction: ScatterReduction::Add }, &[zeros, idx, dy])
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let axis = cx.axis(0).or(cx.axis(1)).filter(|&axis| axis != self.axis)?;
        let same = cx.ty(0)?.shape.get(axis) == cx.ty(1)?.shape.get(axis);
        let both = cx.axes.iter().all(|own| own.is_none_or(|own| own == axis));
        (same && both).then(|| Batched { operands: vec![Some(axis); 2], ..cx.on(axis) })
    }
}

/// What GatherElements and ScatterElements demand of their indices.
pub(super) fn check_elements_indices(axis: usize, x: &TensorType, idx: &TensorType) -> Result<(), TypeError> {
    check_axis(axis, x.rank())?;
    check_indices(idx)?;
    if x.rank() != idx.rank() {
        return type_err!("the operand has {} axes, the indices have {}", x.rank(), idx.rank());
    }
    for (a, (d, i)) in x.shape.iter().zip(&idx.shape).enumerate() {
        if a != axis && i.sub(d).known().is_some_and(|past| past > 0) {
            return type_err!("dimension {a} of the indices is {i}, beyond {d} of the operand");
        }
    }
    Ok(())
}

/// For each element of `idx` the offset in a tensor of `dims` of the element that it names along `axis`.
pub(super) fn elements_offsets(axis: usize, dims: &[usize], idx: &Tensor) -> Result<Vec<usize>, EvalError> {
    let strides = strides_of(dims);
    let each = crate::tensor::indices(idx.dims()).zip(idx.to_i64());
    let at = |(mut place, i): (Vec<usize>, i64)| {
        place[axis] = resolve(i, dims[axis])?;
        Ok(offset(&place, &strides))
    };
    each.map(at).collect()
}

impl Operator for GatherNd {
    const NAME: &'static str = "gather_nd";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x, idx] = operands(inputs)?;
        check_indices(idx)?;
        let (b, k) = (self.batch_dims, index_length(x, idx, self.batch_dims)?);
        for (axis, (d, i)) in x.shape[..b].iter().zip(&idx.shape[..b]).enumerate() {
            if !may_equal(d, i) {
                return type_err!("batch dimension {axis} is {d} in the operand, {i} in the indices");
            }
        }
        let shape = [&idx.shape[..idx.rank() - 1], &x.shape[b + k..]].concat();
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x, idx] = operands(inputs)?;
        let y = self.infer(&[Some(&x.ty()), Some(&idx.ty())])?.remove(0);
        let dims = crate::movement::sizes(&y.shape)?;
        let at = nd_offsets(self.batch_dims, x.dims(), idx)?;
        let lead = idx.dims().len() - 1; // axes of the result that the indices give
        let (is, ss) = (strides_of(&dims[..lead]), strides_of(&dims[lead..]));
        Ok(vec![pick(x, &dims, |i| at[offset(&i[..lead], &is)] + offset(&i[lead..], &ss))])
    }

    /// dy added up where it was read, with the positions on the batch axes as indices like the others.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, idx, dy) = (cx.operand(0)?, cx.operand(1)?, cx.dy()?);
        cx.give(0, |cx| {
            let (ty, mut dims, mut idx) = (cx.ty(x).clone(), cx.dims(idx), idx);
            let last = dims.len() - 1;
            dims[last] = 1;
            for axis in (0..self.batch_dims).rev() {
                let mut along = vec![1; dims.len()];
                along[axis] = dims[axis];
                let places: Vec<i64> = (0..dims[axis] as i64).collect();
                let places = cx.constant(&Tensor::from_i64(cx.ty(idx).dtype, &along, &places));
                let places = cx.expand(places, &dims)?;
                idx = cx.add(Concat { axis: last }, &[places, idx])?;
            }
            let zeros = cx.zeros(&ty);
            cx.add(ScatterNd { reduction: ScatterReduction::Add }, &[zeros, idx, dy])
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let axis = cx.axis(0).or(cx.axis(1)).filter(|&axis| axis < self.batch_dims)?;
        let both = cx.axes.iter().all(|own| own.is_none_or(|own| own == axis));
        both.then(|| Batched { operands: vec![Some(axis); 2], ..cx.on(axis) })
    }
}

/// The length k of the indices in the last axis of `idx`, checked against the ranks.
pub(super) fn index_length(x: &TensorType, idx: &TensorType, batch: usize) -> Result<usize, TypeError> {
    let Some(k) = idx.shape.last() else { return type_err!("the indices are a scalar") };
    let Some(k) = k.size() else { return type_err!("the last dimension of the indices, {k}, is not known") };
    if batch >= idx.rank() || batch > x.rank() {
        return type_err!("{batch} batch axes do not fit the operand {x} and the indices {idx}");
    }
    if k > x.rank() - batch {
        return type_err!("indices of length {k} index {} axes", x.rank() - batch);
    }
    Ok(k)
}

/// For each index tuple of `idx` the offset in a tensor of `dims` of the first element that it names.
pub(super) fn nd_offsets(batch: usize, dims: &[usize], idx: &Tensor) -> Result<Vec<usize>, EvalError> {
    let strides = strides_of(dims);
    let (k, places) = match idx.dims().split_last() {
        Some((&k, lead)) => (k, lead),
        None => return Err(EvalError("the indices are a scalar".into())),
    };
    let values = idx.to_i64();
    let at = |(n, place): (usize, Vec<usize>)| {
        let mut at = offset(&place[..batch], &strides);
        for (j, &i) in values[n * k..][..k].iter().enumerate() {
            at += resolve(i, dims[batch + j])? * strides[batch + j];
        }
        Ok(at)
    };
    crate::tensor::indices(places).enumerate().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dim;

    fn x() -> Tensor {
        Tensor::i64(&[3, 2], (0..6).collect())
    }

    #[test]
    fn gather_puts_the_indices_axes_in_place() {
        let idx = Tensor::i64(&[1, 2], vec![-1, 0]);
        let y = Gather { axis: 0 }.eval(&[Some(&x()), Some(&idx)]).unwrap();
        assert_eq!(y[0], Tensor::i64(&[1, 2, 2], vec![4, 5, 0, 1]));
        let y = Gather { axis: 1 }.eval(&[Some(&x()), Some(&Tensor::i64(&[], vec![1]))]).unwrap();
        assert_eq!(y[0], Tensor::i64(&[3], vec![1, 3, 5]));
        let bad = Gather { axis: 0 }.eval(&[Some(&x()), Some(&Tensor::i64(&[1], vec![3]))]);
        assert_eq!(bad.unwrap_err().0, "index 3 is out of range for 3 elements");
    }

    #[test]
    fn a_dimension_is_gathered_from_a_shape() {
        let shape = SymTensor { dims: vec![2], elems: vec![Dim::symbol("N"), Dim::Known(3)] };
        let at = |i| SymTensor { dims: vec![], elems: vec![Dim::Known(i)] };
        let y = |i| Gather { axis: 0 }.eval_symbolic(&[Some(&shape), Some(&at(i))], &[]);
        assert_eq!(y(0).unwrap()[0].elems, [Dim::symbol("N")]);
        assert_eq!(y(-1).unwrap()[0].elems, [Dim::Known(3)]);
        assert_eq!(y(2), None);
    }

    #[test]
    fn gather_elements_keeps_the_other_axes() {
        let idx = Tensor::i64(&[2, 2], vec![2, 0, -3, 1]);
        let y = GatherElements { axis: 0 }.eval(&[Some(&x()), Some(&idx)]).unwrap();
        assert_eq!(y[0], Tensor::i64(&[2, 2], vec![4, 1, 0, 3]));
        let wide = TensorType::fixed(DType::I64, &[1, 3]);
        let why = GatherElements { axis: 0 }.infer(&[Some(&x().ty()), Some(&wide)]).unwrap_err().0;
        assert_eq!(why, "dimension 1 of the indices is 3, beyond 2 of the operand");
    }

    #[test]
    fn gather_nd_takes_elements_and_slices() {
        let pairs = Tensor::i64(&[2, 2], vec![0, 1, -1, 0]);
        let y = GatherNd { batch_dims: 0 }.eval(&[Some(&x()), Some(&pairs)]).unwrap();
        assert_eq!(y[0], Tensor::i64(&[2], vec![1, 4]));
        let rows = Tensor::i64(&[1, 1], vec![1]);
        let y = GatherNd { batch_dims: 0 }.eval(&[Some(&x()), Some(&rows)]).unwrap();
        assert_eq!(y[0], Tensor::i64(&[1, 2], vec![2, 3]));
        let each = Tensor::i64(&[3, 1], vec![1, 0, 1]);
        let y = GatherNd { batch_dims: 1 }.eval(&[Some(&x()), Some(&each)]).unwrap();
        assert_eq!(y[0], Tensor::i64(&[3], vec![1, 2, 5]));
    }
}
