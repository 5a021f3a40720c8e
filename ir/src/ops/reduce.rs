//! `Reduce` and `ArgReduce`: one number for all elements along some axes.
//!
//! ```text
//! sum  s = sum x        l1  sum |x|           log_sum      ln s
//! mean s / n            l2  sqrt(sum x^2)     log_sum_exp  m + ln sum exp(x - m),  m = max x
//! prod, max, min            sum_square  sum x^2
//! arg_reduce  the position of the largest or smallest element along one axis
//! ```
//!
//! Over no axes each element is reduced alone. Over no elements the result is the function's identity: sum 0, prod 1,
//! max -inf, min inf (integers: the extreme of the type), mean NaN (integers: 0). max and min propagate NaN.
//! Integers wrap; mean, l2 and logarithms of integers truncate toward zero. Sums are taken in f64 and rounded once.
//! Sources: ONNX ReduceSum-13 and its family up to opset 20, ArgMax-13.

use crate::batch::{BatchCx, Batched};
use crate::movement::{check_axis, offset};
use crate::op::{EvalError, Operator, SymTensor, TypeError, operands};
use crate::ops::cum_sum::CumProd;
use crate::pointwise::{BinaryFn, CompareFn, UnaryFn};
use crate::tensor::{indices, strides_of};
use crate::{
    DType, Data, Dim, GradientCx, GradientError, Shape, Tensor, TensorType, ValueId, attr_enum, operator_attrs,
    type_err, with_data,
};

attr_enum! {
    /// The function of a [`Reduce`].
    pub enum ReduceKind {
        /// Sum.
        Sum = "sum",
        /// Arithmetic mean.
        Mean = "mean",
        /// Largest element.
        Max = "max",
        /// Smallest element.
        Min = "min",
        /// Product.
        Prod = "prod",
        /// Sum of absolute values.
        L1 = "l1",
        /// Euclidean norm.
        L2 = "l2",
        /// Logarithm of the sum.
        LogSum = "log_sum",
        /// Logarithm of the sum of exponentials, without overflow.
        LogSumExp = "log_sum_exp",
        /// Sum of squares.
        SumSquare = "sum_square",
    }
}

operator_attrs! {
    /// `x: T[..] -> T[.. without the axes, or with 1 in their place]`, T any number type; max and min take bool too.
    pub struct Reduce {
        /// The function.
        pub kind: ReduceKind,
        /// The axes, ascending, each once. None: every element is reduced alone.
        pub axes: Vec<usize>,
        /// Whether reduced axes stay, with length 1.
        pub keepdims: bool,
    }
}

operator_attrs! {
    /// `x: T[..] -> i64[.. without the axis, or with 1 in its place]`, T any number type. NaN counts as the extreme.
    pub struct ArgReduce {
        /// The position of the largest element, else of the smallest.
        pub max: bool,
        /// The axis along which it is sought.
        pub axis: usize,
        /// Whether the axis stays, with length 1.
        pub keepdims: bool,
        /// Of several equal extremes the last, else the first.
        pub select_last: bool,
    }
}

/// A shape without its reduced axes, or with 1 in their place.
fn reduced<D: Clone>(shape: &[D], axes: &[usize], keepdims: bool, one: &D) -> Vec<D> {
    let keep = |(a, d): (usize, &D)| match axes.contains(&a) {
        false => Some(d.clone()),
        true => keepdims.then(|| one.clone()),
    };
    shape.iter().enumerate().filter_map(keep).collect()
}

/// For each result element, in row-major order, the offsets of the operand elements that it is made of.
fn groups<'a>(dims: &'a [usize], axes: &'a [usize]) -> impl Iterator<Item = Vec<usize>> + 'a {
    let only = |inside: bool| -> Vec<usize> {
        dims.iter().enumerate().map(|(a, &d)| if axes.contains(&a) == inside { d } else { 1 }).collect()
    };
    let strides = strides_of(dims);
    let inner: Vec<usize> = indices(&only(true)).map(|i| offset(&i, &strides)).collect();
    indices(&only(false)).map(move |i| {
        let first = offset(&i, &strides);
        inner.iter().map(|at| first + at).collect()
    })
}

impl Reduce {
    fn check_axes(&self, rank: usize) -> Result<(), TypeError> {
        if !self.axes.is_sorted_by(|a, b| a < b) {
            return type_err!("the axes {:?} are not ascending", self.axes);
        }
        self.axes.iter().try_for_each(|&a| check_axis(a, rank))
    }

    fn float(&self, x: impl Iterator<Item = f64> + Clone, n: usize) -> f64 {
        let max = |x: &mut dyn Iterator<Item = f64>| x.fold(f64::NEG_INFINITY, maximum);
        match self.kind {
            ReduceKind::Sum => x.sum::<f64>() + 0.0, // the empty sum of the standard library is -0
            ReduceKind::Mean => (x.sum::<f64>() + 0.0) / n as f64,
            ReduceKind::Max => max(&mut x.clone()),
            ReduceKind::Min => -max(&mut x.map(|x| -x)),
            ReduceKind::Prod => x.product(),
            ReduceKind::L1 => x.map(f64::abs).sum::<f64>() + 0.0,
            ReduceKind::L2 => (x.map(|x| x * x).sum::<f64>() + 0.0).sqrt(),
            ReduceKind::LogSum => (x.sum::<f64>() + 0.0).ln(),
            ReduceKind::SumSquare => x.map(|x| x * x).sum::<f64>() + 0.0,
            ReduceKind::LogSumExp => {
                let m = max(&mut x.clone());
                // An infinite maximum is the result itself: inf - inf would be NaN.
                if m.is_infinite() { m } else { m + x.map(|x| (x - m).exp()).sum::<f64>().ln() }
            }
        }
    }

    /// `None` for the functions that leave the integers.
    fn int(&self, x: impl Iterator<Item = i64>, n: usize, ty: DType) -> Option<i64> {
        let (least, greatest) = int_range(ty);
        let key = |x: i64| if ty == DType::U64 { x as u64 as i128 } else { i128::from(x) };
        Some(match self.kind {
            ReduceKind::Sum => x.fold(0, i64::wrapping_add),
            ReduceKind::Mean => {
                let sum: i128 = x.map(key).sum();
                sum.checked_div(n as i128).unwrap_or(0) as i64
            }
            ReduceKind::Max => x.max_by_key(|&x| key(x)).unwrap_or(least),
            ReduceKind::Min => x.min_by_key(|&x| key(x)).unwrap_or(greatest),
            ReduceKind::Prod => x.fold(1, i64::wrapping_mul),
            ReduceKind::L1 if ty == DType::U64 => x.fold(0, i64::wrapping_add),
            ReduceKind::L1 => x.map(i64::wrapping_abs).fold(0, i64::wrapping_add),
            ReduceKind::SumSquare => x.map(|x| x.wrapping_mul(x)).fold(0, i64::wrapping_add),
            ReduceKind::L2 | ReduceKind::LogSum | ReduceKind::LogSumExp => return None,
        })
    }
}

/// The larger number, NaN if either is.
fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The least and the greatest number of an integer type or bool, u64 by its bits.
fn int_range(ty: DType) -> (i64, i64) {
    match ty {
        DType::Bool => (0, 1),
        DType::U64 => (0, -1),
        _ => {
            let all = u64::MAX >> (64 - 8 * ty.bytes());
            let half = (all >> 1) as i64;
            if ty.is_signed_int() { (-half - 1, half) } else { (0, all as i64) }
        }
    }
}

impl Operator for Reduce {
    const NAME: &'static str = "reduce";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        self.check_axes(x.rank())?;
        if x.dtype == DType::Bool && !matches!(self.kind, ReduceKind::Max | ReduceKind::Min) {
            return type_err!("{} does not take bool", crate::attr::AttrValue::write(&self.kind));
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: reduced(&x.shape, &self.axes, self.keepdims, &Dim::Known(1)) }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        let (ty, dims) = (x.dtype(), reduced(x.dims(), &self.axes, self.keepdims, &1));
        let ints = if ty.is_float() {
            None
        } else {
            let v = x.to_i64();
            let each = groups(x.dims(), &self.axes).map(|g| self.int(g.iter().map(|&i| v[i]), g.len(), ty));
            each.collect::<Option<Vec<i64>>>()
        };
        if let Some(ints) = ints {
            return Ok(vec![Tensor::from_i64(ty, &dims, &ints)]);
        }
        let v = x.to_f64();
        let each = groups(x.dims(), &self.axes).map(|g| self.float(g.iter().map(|&i| v[i]), g.len()));
        Ok(vec![Tensor::from_f64(ty, &dims, &each.collect::<Vec<f64>>())])
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let [x] = operands(inputs).ok()?;
        self.infer(&[Some(&x.ty())]).ok()?;
        let combine: fn(&Dim, &Dim) -> Dim = match self.kind {
            ReduceKind::Sum => Dim::add,
            ReduceKind::Prod => Dim::mul,
            ReduceKind::Max => Dim::max_of,
            ReduceKind::Min => Dim::min_of,
            _ => return None,
        };
        let of_group = |g: Vec<usize>| {
            let mut elems = g.iter().map(|&i| x.elems[i].clone());
            match (elems.next(), self.kind) {
                (Some(first), _) => Some(elems.fold(first, |a, b| combine(&a, &b))),
                (None, ReduceKind::Sum) => Some(Dim::Known(0)),
                (None, ReduceKind::Prod) => Some(Dim::Known(1)),
                (None, _) => None,
            }
        };
        let dims = reduced(&x.dims, &self.axes, self.keepdims, &1);
        let few = dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d))? <= crate::movement::MAX_SYMBOLIC;
        let elems = if few { groups(&x.dims, &self.axes).map(of_group).collect::<Option<_>>()? } else { return None };
        Some(vec![SymTensor { dims, elems }])
    }

    /// Of several equal extremes each gets an equal part, as by PyTorch's `amax`; the norm of zeros has the gradient 0.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let x = cx.operand(0)?;
        let dims = cx.dims(x);
        let kept = reduced(&dims, &self.axes, true, &1);
        cx.give(0, |cx| {
            let dy = cx.dy()?;
            let dy = cx.reshape(dy, &kept)?;
            let y = cx.result(0);
            match self.kind {
                ReduceKind::Sum => cx.expand(dy, &dims),
                ReduceKind::Mean => {
                    let n: usize = self.axes.iter().map(|&a| dims[a]).product();
                    let part = cx.scale(dy, 1.0 / n as f64)?;
                    cx.expand(part, &dims)
                }
                ReduceKind::Max | ReduceKind::Min => {
                    let y = cx.reshape(y, &kept)?;
                    let is_extreme = cx.pointwise(&[x, y], |p, v| {
                        let equal = p.compare(CompareFn::Eq, v[0], v[1]);
                        p.cast(equal, p.type_of(v[0]))
                    })?;
                    let count = cx.reduce(ReduceKind::Sum, is_extreme, &self.axes, true)?;
                    let part = cx.binary(BinaryFn::Div, dy, count)?;
                    cx.mul(is_extreme, part)
                }
                ReduceKind::Prod => {
                    let others = self.products_of_others(cx, x)?;
                    cx.mul(others, dy)
                }
                ReduceKind::L1 => cx.pointwise(&[x, dy], |p, v| {
                    let sign = p.unary(UnaryFn::Sign, v[0]);
                    p.binary(BinaryFn::Mul, sign, v[1])
                }),
                ReduceKind::L2 => {
                    let y = cx.reshape(y, &kept)?;
                    cx.pointwise(&[x, y, dy], |p, v| {
                        let zero = p.constant(p.type_of(v[1]), 0.0);
                        let flat = p.compare(CompareFn::Eq, v[1], zero);
                        let direction = p.binary(BinaryFn::Div, v[0], v[1]);
                        let d = p.binary(BinaryFn::Mul, direction, v[2]);
                        p.select(flat, zero, d)
                    })
                }
                ReduceKind::LogSum => {
                    let y = cx.reshape(y, &kept)?;
                    // 1 / sum x
                    let part = cx.pointwise(&[y, dy], |p, v| {
                        let inverse = p.unary(UnaryFn::Neg, v[0]);
                        let inverse = p.unary(UnaryFn::Exp, inverse);
                        p.binary(BinaryFn::Mul, inverse, v[1])
                    })?;
                    cx.expand(part, &dims)
                }
                ReduceKind::LogSumExp => {
                    let y = cx.reshape(y, &kept)?;
                    cx.pointwise(&[x, y, dy], |p, v| {
                        let share = p.binary(BinaryFn::Sub, v[0], v[1]);
                        let share = p.unary(UnaryFn::Exp, share);
                        p.binary(BinaryFn::Mul, share, v[2])
                    })
                }
                ReduceKind::SumSquare => cx.pointwise(&[x, dy], |p, v| {
                    let twice = p.binary_const(BinaryFn::Mul, v[0], 2.0);
                    p.binary(BinaryFn::Mul, twice, v[1])
                }),
            }
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let axis = cx.first_alone().filter(|axis| !self.axes.contains(axis))?;
        let gone = if self.keepdims { 0 } else { self.axes.iter().filter(|&&a| a < axis).count() };
        Some(cx.on(axis - gone))
    }
}

impl Reduce {
    /// The product of all elements but each itself, along the reduced axes: what comes before it times what comes behind. Unlike
    /// `y / x` it is right where elements are 0.
    fn products_of_others(&self, cx: &mut GradientCx<'_>, x: ValueId) -> Result<ValueId, GradientError> {
        let dims = cx.dims(x);
        let kept: Vec<usize> = (0..dims.len()).filter(|a| !self.axes.contains(a)).collect();
        let perm = [&kept[..], &self.axes].concat();
        let permuted: Vec<usize> = perm.iter().map(|&a| dims[a]).collect();
        let product = |axes: &[usize]| axes.iter().map(|&a| dims[a]).product::<usize>();
        let rows = cx.transpose(x, &perm)?;
        let rows = cx.reshape(rows, &[product(&kept), product(&self.axes)])?;
        let before = cx.add(CumProd { axis: 1, exclusive: true, reverse: false }, &[rows])?;
        let behind = cx.add(CumProd { axis: 1, exclusive: true, reverse: true }, &[rows])?;
        let others = cx.mul(before, behind)?;
        let others = cx.reshape(others, &permuted)?;
        let mut inverse = vec![0; perm.len()];
        perm.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
        cx.transpose(others, &inverse)
    }
}

impl Operator for ArgReduce {
    const NAME: &'static str = "arg_reduce";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        check_axis(self.axis, x.rank())?;
        if x.dtype == DType::Bool {
            return type_err!("bool has no order");
        }
        if x.shape[self.axis] == Dim::Known(0) {
            return type_err!("axis {} has no element", self.axis);
        }
        let shape: Shape = reduced(&x.shape, &[self.axis], self.keepdims, &Dim::Known(1));
        Ok(vec![TensorType { dtype: DType::I64, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        let dims = reduced(x.dims(), &[self.axis], self.keepdims, &1);
        let axes = [self.axis];
        let places = groups(x.dims(), &axes).map(|g| {
            with_data!(x.data(), v => {
                let each: Vec<_> = g.iter().map(|&i| v[i]).collect();
                self.position(&each) as i64
            })
        });
        Ok(vec![Tensor::of(&dims, Data::I64(places.collect()))])
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let axis = cx.first_alone().filter(|&axis| axis != self.axis)?;
        Some(cx.on(axis - usize::from(!self.keepdims && self.axis < axis)))
    }
}

impl ArgReduce {
    fn position<T: PartialOrd>(&self, x: &[T]) -> usize {
        let is_nan = |a: &T| a.partial_cmp(a).is_none();
        let mut best = 0;
        for (i, a) in x.iter().enumerate().skip(1) {
            let b = &x[best];
            let better = if self.max { a > b } else { a < b } || (is_nan(a) && !is_nan(b));
            let equal = a == b || (is_nan(a) && is_nan(b));
            if better || (equal && self.select_last) {
                best = i;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduce(kind: ReduceKind, axes: &[usize], keepdims: bool, x: &Tensor) -> Tensor {
        Reduce { kind, axes: axes.to_vec(), keepdims }.eval(&[Some(x)]).unwrap().remove(0)
    }

    #[test]
    fn every_function_on_numbers() {
        let x = Tensor::f32(&[2, 2], vec![1.0, -2.0, 3.0, 4.0]);
        let all = |kind| reduce(kind, &[0, 1], false, &x).to_f64()[0];
        assert_eq!([ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Prod].map(all), [6.0, 1.5, -24.0]);
        assert_eq!([ReduceKind::Max, ReduceKind::Min, ReduceKind::L1].map(all), [4.0, -2.0, 10.0]);
        assert_eq!([ReduceKind::SumSquare, ReduceKind::L2].map(all), [30.0, f64::from(30f32.sqrt())]);
        assert_eq!(all(ReduceKind::LogSum), f64::from(6f64.ln() as f32));
        let lse = (1f64.exp() + (-2f64).exp() + 3f64.exp() + 4f64.exp()).ln();
        assert!((all(ReduceKind::LogSumExp) - lse).abs() < 1e-6);
        assert_eq!(reduce(ReduceKind::Sum, &[0], true, &x), Tensor::f32(&[1, 2], vec![4.0, 2.0]));
        assert_eq!(reduce(ReduceKind::SumSquare, &[], true, &x), Tensor::f32(&[2, 2], vec![1.0, 4.0, 9.0, 16.0]));
    }

    #[test]
    fn nothing_reduces_to_the_identity() {
        let (x, i) = (Tensor::f32(&[2, 0], vec![]), Tensor::of(&[0], Data::I8(vec![])));
        let f = |kind| reduce(kind, &[1], false, &x).to_f64()[0];
        assert_eq!([ReduceKind::Sum, ReduceKind::Prod].map(f), [0.0, 1.0]);
        assert!(f(ReduceKind::Sum).is_sign_positive());
        assert_eq!([ReduceKind::Max, ReduceKind::Min].map(f), [f64::NEG_INFINITY, f64::INFINITY]);
        assert_eq!([ReduceKind::LogSum, ReduceKind::LogSumExp].map(f), [f64::NEG_INFINITY; 2]);
        assert!(f(ReduceKind::Mean).is_nan());
        assert_eq!(reduce(ReduceKind::Max, &[0], false, &i).to_i64(), [-128]);
        assert_eq!(reduce(ReduceKind::Min, &[0], false, &i).to_i64(), [127]);
        assert_eq!(reduce(ReduceKind::Mean, &[0], false, &i).to_i64(), [0]);
    }

    #[test]
    fn extremes_of_floats() {
        let x = Tensor::f32(&[2], vec![1.0, f32::NAN]);
        assert!(reduce(ReduceKind::Max, &[0], false, &x).to_f64()[0].is_nan());
        assert!(reduce(ReduceKind::Min, &[0], false, &x).to_f64()[0].is_nan());
        let big = Tensor::f32(&[2], vec![1000.0, 1000.0]);
        let y = reduce(ReduceKind::LogSumExp, &[0], false, &big).to_f64()[0];
        assert!((y - 1000.0 - 2f64.ln()).abs() < 1e-4);
        let inf = Tensor::f32(&[2], vec![f32::INFINITY, 1.0]);
        assert_eq!(reduce(ReduceKind::LogSumExp, &[0], false, &inf).to_f64()[0], f64::INFINITY);
    }

    #[test]
    fn integers_wrap_and_truncate() {
        let x = Tensor::of(&[3], Data::I8(vec![100, 100, -1]));
        assert_eq!(reduce(ReduceKind::Sum, &[0], false, &x).to_i64(), [-57]);
        assert_eq!(reduce(ReduceKind::Mean, &[0], false, &x).to_i64(), [66]);
        assert_eq!(reduce(ReduceKind::L2, &[0], false, &x).to_i64(), [127]); // 141 saturates
        let u = Tensor::of(&[2], Data::U64(vec![u64::MAX, 1]));
        assert_eq!(*reduce(ReduceKind::Max, &[0], false, &u).data(), Data::U64(vec![u64::MAX]));
    }

    #[test]
    fn positions_of_extremes() {
        let x = Tensor::f32(&[2, 3], vec![1.0, 5.0, 5.0, 2.0, f32::NAN, 9.0]);
        let arg = |max, select_last| {
            ArgReduce { max, axis: 1, keepdims: false, select_last }.eval(&[Some(&x)]).unwrap()[0].to_i64()
        };
        assert_eq!(arg(true, false), [1, 1]);
        assert_eq!(arg(true, true), [2, 1]);
        assert_eq!(arg(false, false), [0, 1]);
    }

    #[test]
    fn a_product_of_symbols() {
        let x = SymTensor { dims: vec![2], elems: vec![Dim::symbol("N"), Dim::Known(3)] };
        let y = Reduce { kind: ReduceKind::Prod, axes: vec![0], keepdims: false }.eval_symbolic(&[Some(&x)], &[]);
        assert_eq!(y.unwrap()[0].elems, [Dim::symbol("N").mul(&Dim::Known(3))]);
    }

    #[test]
    fn axes_are_ascending_and_exist() {
        let x = TensorType::fixed(DType::F32, &[2, 3]);
        let infer = |axes: Vec<usize>| Reduce { kind: ReduceKind::Sum, axes, keepdims: false }.infer(&[Some(&x)]);
        assert!(infer(vec![1, 0]).is_err() && infer(vec![0, 0]).is_err() && infer(vec![2]).is_err());
    }
}
