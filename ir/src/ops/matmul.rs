//! Matrix products: numpy's `matmul`, and ONNX's Gemm.
//!
//! Floating-point sums are taken in f64 and rounded once; integers wrap. Sources: ONNX MatMul-13, Gemm-13.

use crate::batch::{BatchCx, Batched};
use crate::broadcast::{broadcast_shapes, broadcast_strides};
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::operands::{one_dtype, operands, output_dims, same_dim, tensors};
use crate::tensor::indices;
use crate::{DType, Dim, GradientCx, GradientError, Shape, Tensor, TensorType, ValueId, operator_attrs, type_err};

operator_attrs! {
    /// `a: T[batch.., M, K], b: T[batch.., K, N] -> T[batch.., M, N]`, any number type; the batch axes broadcast. An `a` of
    /// rank 1 is one row and its axis is missing in the result; a `b` of rank 1 is one column, likewise.
    pub struct MatMul {}
}

operator_attrs! {
    /// `alpha * a' . b' + beta * c` with `a': T[M, K], b': T[K, N], c: T[..]?` where c broadcasts to `[M, N]`; any number
    /// type. Integers need integral factors.
    pub struct Gemm {
        /// Whether `a` is given as `[K, M]`.
        pub trans_a: bool,
        /// Whether `b` is given as `[N, K]`.
        pub trans_b: bool,
        /// The factor of the product.
        pub alpha: f64,
        /// The factor of c.
        pub beta: f64,
    }
}

/// A matrix product's operands as matrices with batch axes before them.
struct Matrices {
    batch_a: Shape,
    batch_b: Shape,
    m: Option<Dim>,
    n: Option<Dim>,
    k: Dim,
}

impl Matrices {
    fn of(a: &TensorType, b: &TensorType) -> Result<Matrices, TypeError> {
        let (batch_a, m, k) = match &a.shape[..] {
            [] => return type_err!("a is a scalar"),
            [k] => (vec![], None, k),
            [batch @ .., m, k] => (batch.to_vec(), Some(m.clone()), k),
        };
        let (batch_b, kb, n) = match &b.shape[..] {
            [] => return type_err!("b is a scalar"),
            [k] => (vec![], k, None),
            [batch @ .., k, n] => (batch.to_vec(), k, Some(n.clone())),
        };
        same_dim(k, kb, &format!("inner dimensions of {a} and {b}"))?;
        let k = if k.known().is_some() { k } else { kb };
        Ok(Matrices { batch_a, batch_b, m, n, k: k.clone() })
    }
}

/// `c[m x n] += a[m x k] . b[k x n]`, all row-major, with `b`'s rows innermost.
fn accumulate<T: Copy>(c: &mut [T], a: &[T], b: &[T], k: usize, n: usize, mul_add: impl Fn(T, T, T) -> T) {
    if n == 0 || k == 0 {
        return;
    }
    for (row, a) in c.chunks_exact_mut(n).zip(a.chunks_exact(k)) {
        for (&x, b) in a.iter().zip(b.chunks_exact(n)) {
            row.iter_mut().zip(b).for_each(|(c, &y)| *c = mul_add(*c, x, y));
        }
    }
}

fn float_step(c: f64, x: f64, y: f64) -> f64 {
    c + x * y
}

fn int_step(c: i64, x: i64, y: i64) -> i64 {
    c.wrapping_add(x.wrapping_mul(y))
}

impl Operator for MatMul {
    const NAME: &'static str = "matmul";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([a, b], []) = operands(inputs)?;
        let dtype = number(a, b)?;
        let f = Matrices::of(a, b)?;
        let mut shape = broadcast_shapes([&f.batch_a[..], &f.batch_b])?;
        shape.extend(f.m.into_iter().chain(f.n));
        Ok(vec![TensorType { dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([a, b], []) = tensors(inputs)?;
        let f = Matrices::of(&a.ty(), &b.ty()).map_err(|e| EvalError(e.0))?;
        let size = |d: &Option<Dim>| d.as_ref().map_or(Some(1), Dim::size).unwrap_or(0);
        let (m, k, n) = (size(&f.m), f.k.size().unwrap_or(0), size(&f.n));
        let batch = &dims[..dims.len() - usize::from(f.m.is_some()) - usize::from(f.n.is_some())];
        let batch_dims = |s: &Shape| s.iter().filter_map(Dim::size).collect::<Vec<_>>();
        let (sa, sb) =
            (broadcast_strides(&batch_dims(&f.batch_a), batch), broadcast_strides(&batch_dims(&f.batch_b), batch));
        let at = |index: &[usize], strides: &[usize]| index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>();
        macro_rules! products {
            ($a:expr, $b:expr, $zero:expr, $step:expr) => {{
                let (a, b) = ($a, $b);
                let mut y = vec![$zero; dims.iter().product()];
                for (c, index) in y.chunks_exact_mut((m * n).max(1)).zip(indices(batch)) {
                    let (a, b) = (&a[at(&index, &sa) * m * k..][..m * k], &b[at(&index, &sb) * k * n..][..k * n]);
                    accumulate(c, a, b, k, n, $step);
                }
                y
            }};
        }
        Ok(vec![match a.dtype().is_float() {
            true => Tensor::from_f64(a.dtype(), &dims, &products!(a.to_f64(), b.to_f64(), 0.0, float_step)),
            false => Tensor::from_i64(a.dtype(), &dims, &products!(a.to_i64(), b.to_i64(), 0, int_step)),
        }])
    }

    /// `da = dy . b'`, `db = a' . dy`, summed over the batch axes that were broadcast.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (a, b, dy) = (cx.operand(0)?, cx.operand(1)?, cx.dy()?);
        let (da, db) = (cx.dims(a), cx.dims(b));
        // Vectors as the matrices that they stand for.
        let row = if da.len() == 1 { [&[1], &da[..]].concat() } else { da.clone() };
        let column = if db.len() == 1 { [&db[..], &[1]].concat() } else { db.clone() };
        let (m, n) = (row[row.len() - 2], column[column.len() - 1]);
        let batch = cx.dims(dy);
        let batch = &batch[..batch.len() - usize::from(da.len() > 1) - usize::from(db.len() > 1)];
        let (a, b) = (cx.reshape(a, &row)?, cx.reshape(b, &column)?);
        if let [k, _] = column[..] {
            // One matrix for all rows: one product of two matrices, however many batch axes a has.
            let rows = batch.iter().product::<usize>() * m;
            let dy = cx.reshape(dy, &[rows, n])?;
            cx.give(0, |cx| {
                let d = cx.add(Gemm::of(false, true), &[dy, b])?;
                cx.reshape(d, &da)
            })?;
            return cx.give(1, |cx| {
                let a = cx.reshape(a, &[rows, k])?;
                let d = cx.add(Gemm::of(true, false), &[a, dy])?;
                cx.reshape(d, &db)
            });
        }
        let dy = cx.reshape(dy, &[batch, &[m, n]].concat())?;
        cx.give(0, |cx| {
            let b = turned(cx, b)?;
            let d = cx.add(MatMul {}, &[dy, b])?;
            let d = cx.sum_to(d, &row)?;
            cx.reshape(d, &da)
        })?;
        cx.give(1, |cx| {
            let a = turned(cx, a)?;
            let d = cx.add(MatMul {}, &[a, dy])?;
            let d = cx.sum_to(d, &column)?;
            cx.reshape(d, &db)
        })
    }

    fn macs(&self, inputs: &[Option<&TensorType>], outputs: &[TensorType]) -> Option<u64> {
        let k = inputs.first().copied().flatten()?.shape.last()?.size()?;
        (outputs.first()?.elems()? as u64).checked_mul(k as u64)
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let (a, b) = (cx.ty(0)?.rank(), cx.ty(1)?.rank());
        // An operand of rank 1 has no axis but the inner one.
        let (rows, columns) = (a.checked_sub(2), (b >= 2).then(|| b - 1));
        let rank = (a.max(2) - 2).max(b.max(2) - 2) + usize::from(a >= 2) + usize::from(b >= 2);
        match (cx.axis(0), cx.axis(1)) {
            (Some(axis), None) if Some(axis) == rows => Some(cx.on(rank - 1 - usize::from(b >= 2))),
            (None, Some(axis)) if Some(axis) == columns => Some(cx.on(rank - 1)),
            _ if a >= 2 && b >= 2 => {
                let (axis, operands) = cx.broadcast(rank, 2)?;
                Some(Batched { operands, ..cx.on(axis) })
            }
            (Some(axis), None) if b < 2 && axis + 2 < a => Some(cx.on(axis)),
            (None, Some(axis)) if a < 2 && axis + 2 < b => Some(cx.on(axis)),
            _ => None,
        }
    }
}

/// Matrices behind batch axes, each turned around.
fn turned(cx: &mut GradientCx<'_>, v: ValueId) -> Result<ValueId, GradientError> {
    let rank = cx.dims(v).len();
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    cx.transpose(v, &perm)
}

fn number(a: &TensorType, b: &TensorType) -> Result<DType, TypeError> {
    let dtype = one_dtype([a, b])?;
    if dtype == DType::Bool { type_err!("does not take bool") } else { Ok(dtype) }
}

/// A row-major matrix turned around.
fn transposed<T: Copy>(v: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| v[r * columns + c])).collect()
}

impl Gemm {
    /// The plain product of two matrices, given as they are or turned around.
    pub fn of(trans_a: bool, trans_b: bool) -> Gemm {
        Gemm { trans_a, trans_b, alpha: 1.0, beta: 1.0 }
    }

    /// `M, K, N` of operands of these types.
    fn sizes<'a>(&self, a: &'a TensorType, b: &'a TensorType) -> Result<[&'a Dim; 3], TypeError> {
        let ([a0, a1], [b0, b1]) = (&a.shape[..], &b.shape[..]) else {
            return type_err!("takes matrices, not {a} and {b}");
        };
        let (m, ka) = if self.trans_a { (a1, a0) } else { (a0, a1) };
        let (kb, n) = if self.trans_b { (b1, b0) } else { (b0, b1) };
        same_dim(ka, kb, &format!("inner dimensions of {a} and {b}"))?;
        Ok([m, if ka.known().is_some() { ka } else { kb }, n])
    }
}

impl Operator for Gemm {
    const NAME: &'static str = "gemm";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([a, b], [c]) = operands(inputs)?;
        let dtype = number(a, b)?;
        if dtype.is_int() && [self.alpha, self.beta].iter().any(|f| *f != (*f as i64) as f64) {
            return type_err!("integers times alpha = {}, beta = {}", self.alpha, self.beta);
        }
        let [m, _, n] = self.sizes(a, b)?;
        let shape = vec![m.clone(), n.clone()];
        if let Some(c) = c {
            one_dtype([a, c])?;
            let grown = broadcast_shapes([&shape[..], &c.shape])?;
            if grown.len() != 2 || grown.iter().zip(&shape).any(|(g, d)| d.known() == Some(1) && g != d) {
                return type_err!("c of type {c} does not broadcast to {m} x {n}");
            }
        }
        Ok(vec![TensorType { dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([a, b], [c]) = tensors(inputs)?;
        let (m, n) = (dims[0], dims[1]);
        let k = a.dims()[usize::from(!self.trans_a)];
        let strides = c.map(|c| broadcast_strides(c.dims(), &dims));
        let c_at = |i: usize| strides.as_ref().map(|s| i / n * s[0] + i % n * s[1]);
        macro_rules! products {
            ($to:ident, $zero:expr, $step:expr) => {{
                let (mut a, mut b) = (a.$to(), b.$to());
                if self.trans_a {
                    a = transposed(&a, k, m);
                }
                if self.trans_b {
                    b = transposed(&b, n, k);
                }
                let mut y = vec![$zero; m * n];
                accumulate(&mut y, &a, &b, k, n, $step);
                (y, c.map(|c| c.$to()))
            }};
        }
        Ok(vec![if a.dtype().is_float() {
            let (mut y, c) = products!(to_f64, 0.0, float_step);
            for (i, y) in y.iter_mut().enumerate() {
                *y *= self.alpha;
                if let (Some(c), Some(at)) = (&c, c_at(i)) {
                    *y += self.beta * c[at];
                }
            }
            Tensor::from_f64(a.dtype(), &dims, &y)
        } else {
            let (mut y, c) = products!(to_i64, 0, int_step);
            for (i, y) in y.iter_mut().enumerate() {
                *y = y.wrapping_mul(self.alpha as i64);
                if let (Some(c), Some(at)) = (&c, c_at(i)) {
                    *y = int_step(*y, self.beta as i64, c[at]);
                }
            }
            Tensor::from_i64(a.dtype(), &dims, &y)
        }])
    }

    /// `da' = alpha dy . transpose(b')`, `db' = alpha transpose(a') . dy`, each given in the operand's orientation; `dc = beta dy`.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (a, b, dy) = (cx.operand(0)?, cx.operand(1)?, cx.dy()?);
        let product = |trans_a, trans_b| Gemm { trans_a, trans_b, alpha: self.alpha, beta: 1.0 };
        cx.give(0, |cx| match self.trans_a {
            false => cx.add(product(false, !self.trans_b), &[dy, b]),
            true => cx.add(product(self.trans_b, true), &[b, dy]),
        })?;
        cx.give(1, |cx| match self.trans_b {
            false => cx.add(product(!self.trans_a, false), &[a, dy]),
            true => cx.add(product(true, self.trans_a), &[dy, a]),
        })?;
        cx.give(2, |cx| {
            let c = cx.operand(2)?;
            let sum = cx.sum_to(dy, &cx.dims(c))?;
            cx.scale(sum, self.beta)
        })
    }

    fn macs(&self, inputs: &[Option<&TensorType>], outputs: &[TensorType]) -> Option<u64> {
        let (a, b) = (inputs.first().copied().flatten()?, inputs.get(1).copied().flatten()?);
        let [_, k, _] = self.sizes(a, b).ok()?;
        (outputs.first()?.elems()? as u64).checked_mul(k.size()? as u64)
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        if cx.axis(1).is_some() || cx.axis(0)? != usize::from(self.trans_a) {
            return None; // rows of a, so rows of the result
        }
        let mut operands = cx.axes.to_vec();
        if let (Some(c), Some(own)) = (cx.ty(2), operands.get_mut(2)) {
            let one_for_all = c.rank() < 2 || c.shape[0] == Dim::Known(1);
            match *own {
                None if !one_for_all => *own = Some(0),
                Some(axis) if axis != 0 || c.rank() < 2 => return None,
                _ => {}
            }
        }
        Some(Batched { operands, ..cx.on(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(dims: &[usize], from: i64) -> Tensor {
        let n = dims.iter().product::<usize>() as i64;
        Tensor::from_i64(DType::F64, dims, &(from..from + n).collect::<Vec<_>>())
    }

    fn eval(op: impl Operator, inputs: &[&Tensor]) -> Tensor {
        op.eval(&inputs.iter().copied().map(Some).collect::<Vec<_>>()).unwrap().remove(0)
    }

    #[test]
    fn ranks_follow_numpy() {
        let (a, b) = (ints(&[2, 3], 0), ints(&[3, 2], 1));
        assert_eq!(eval(MatMul {}, &[&a, &b]), Tensor::from_i64(DType::F64, &[2, 2], &[13, 16, 40, 52]));
        let v = ints(&[3], 1);
        assert_eq!(eval(MatMul {}, &[&a, &v]), Tensor::from_i64(DType::F64, &[2], &[8, 26]));
        assert_eq!(eval(MatMul {}, &[&v, &b]), Tensor::from_i64(DType::F64, &[2], &[22, 28]));
        assert_eq!(eval(MatMul {}, &[&v, &v]), Tensor::from_i64(DType::F64, &[], &[14]));
        let y = eval(MatMul {}, &[&ints(&[2, 1, 1, 2], 0), &ints(&[3, 2, 1], 0)]);
        assert_eq!(y, Tensor::from_i64(DType::F64, &[2, 3, 1, 1], &[1, 3, 5, 3, 13, 23]));
        assert_eq!(eval(MatMul {}, &[&ints(&[2, 0], 0), &ints(&[0, 2], 0)]), Tensor::zeros(DType::F64, &[2, 2]));
        assert_eq!(eval(MatMul {}, &[&v, &ints(&[2, 3, 1], 0)]), Tensor::from_i64(DType::F64, &[2, 1], &[8, 26]));
    }

    #[test]
    fn integers_wrap() {
        let x = Tensor::from_i64(DType::U8, &[1, 2], &[200, 100]);
        let y = Tensor::from_i64(DType::U8, &[2, 1], &[2, 1]);
        assert_eq!(eval(MatMul {}, &[&x, &y]), Tensor::from_i64(DType::U8, &[1, 1], &[500 - 256]));
    }

    #[test]
    fn gemm_transposes_and_broadcasts() {
        let (a, b) = (ints(&[3, 2], 0), ints(&[4, 3], 0));
        let plain = eval(
            MatMul {},
            &[
                &Tensor::from_i64(DType::F64, &[2, 3], &[0, 2, 4, 1, 3, 5]),
                &Tensor::from_i64(DType::F64, &[3, 4], &[0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]),
            ],
        );
        let op = Gemm { trans_a: true, trans_b: true, alpha: 1.0, beta: 1.0 };
        assert_eq!(eval(op.clone(), &[&a, &b]), plain);
        let scaled = Gemm { alpha: 2.0, beta: 3.0, ..op };
        let expected = |c: &dyn Fn(usize) -> f64| -> Vec<f64> {
            plain.to_f64().iter().enumerate().map(|(i, y)| 2.0 * y + 3.0 * c(i)).collect()
        };
        assert_eq!(eval(scaled.clone(), &[&a, &b, &ints(&[2, 1], 5)]).to_f64(), expected(&|i| 5.0 + (i / 4) as f64));
        assert_eq!(eval(scaled.clone(), &[&a, &b, &ints(&[4], 5)]).to_f64(), expected(&|i| 5.0 + (i % 4) as f64));
        assert_eq!(eval(scaled, &[&a, &b, &ints(&[], 5)]).to_f64(), expected(&|_| 5.0));
    }

    #[test]
    fn errors_not_panics() {
        let ty = |dims: &[usize]| TensorType::fixed(DType::F32, dims);
        for (a, b) in [(&[][..], &[2][..]), (&[2], &[]), (&[2, 3], &[2, 3]), (&[2, 1, 3], &[3, 3, 1])] {
            assert!(MatMul {}.infer(&[Some(&ty(a)), Some(&ty(b))]).is_err(), "{a:?} {b:?}");
        }
        let gemm = Gemm { trans_a: false, trans_b: false, alpha: f64::NAN, beta: 0.5 };
        assert!(gemm.infer(&[Some(&ty(&[2])), Some(&ty(&[2, 2]))]).is_err());
        assert!(gemm.infer(&[Some(&ty(&[1, 2])), Some(&ty(&[2, 2])), Some(&ty(&[2, 2]))]).is_err());
        let i = TensorType::fixed(DType::I32, &[2, 2]);
        assert!(gemm.infer(&[Some(&i), Some(&i)]).is_err());
    }

    #[test]
    fn symbols_stay() {
        let a = TensorType::new(DType::F32, [Dim::symbol("N"), Dim::Known(3)]);
        let b = TensorType::fixed(DType::F32, &[3, 5]);
        assert_eq!(MatMul {}.infer(&[Some(&a), Some(&b)]).unwrap()[0].to_string(), "f32[N,5]");
    }
}
