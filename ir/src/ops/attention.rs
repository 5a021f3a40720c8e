//! `Attention`: scaled dot-product attention of many heads, its operands read where they lie.
//!
//! ```text
//! s[t] = scale * sum_d q[d] k[t][d] + mask[t]        for each sample, head and query
//! y    = sum_t softmax(s)[t] v[t]
//! ```
//!
//! Exporters write it as two products with a softmax between them, heads moved before tokens by transposes. One node for all
//! of it need never hold the scores of more than a few queries. Queries, keys and values are [views](View) of whatever holds
//! them, be it one matrix of all three; the result's axes stand in any order that leaves the features last.
//!
//! A query whose keys are all masked by -inf gives NaN, as softmax does. No operator of ONNX is meant: the one of that name is
//! imported as its parts. Source: Vaswani et al., Attention Is All You Need, 2017.

use crate::attr::AttrValue;
use crate::broadcast::broadcast_strides;
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::operands::{one_float, operands, output_dims, tensors};
use crate::tensor::indices;
use crate::{Dim, Tensor, TensorType, operator_attrs, type_err};

/// Where the elements of an operand lie in the tensor that holds it: `offset + sum of index * stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// Of the first element.
    pub offset: usize,
    /// Elements from one sample, head, row (query or key) and column (feature) to the next.
    pub strides: [usize; 4],
}

impl View {
    /// The offset of an element.
    pub fn at(&self, index: [usize; 4]) -> usize {
        self.offset + index.iter().zip(self.strides).map(|(i, s)| i * s).sum::<usize>()
    }

    /// One past the last element of a view of these extents; `None` where that is beyond all memory.
    fn end(&self, extents: [usize; 4]) -> Option<usize> {
        let reach = extents.iter().zip(self.strides).map(|(n, s)| n.checked_sub(1)?.checked_mul(s));
        reach.chain([Some(self.offset), Some(1)]).try_fold(0usize, |sum, part| sum.checked_add(part?))
    }
}

impl AttrValue for View {
    fn write(&self) -> String {
        let [a, b, c, d] = self.strides;
        vec![self.offset, a, b, c, d].write()
    }
    fn read(text: &str) -> Result<View, String> {
        match Vec::<usize>::read(text)?[..] {
            [offset, a, b, c, d] => Ok(View { offset, strides: [a, b, c, d] }),
            _ => Err(format!("`{text}` is not an offset and four strides")),
        }
    }
}

/// The extents of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// Samples.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// Queries.
    pub queries: usize,
    /// Keys, each with a value.
    pub keys: usize,
    /// Features of a query and of a key.
    pub width: usize,
    /// Features of a value, and of the result.
    pub values: usize,
}

impl AttrValue for Sizes {
    fn write(&self) -> String {
        vec![self.batch, self.heads, self.queries, self.keys, self.width, self.values].write()
    }
    fn read(text: &str) -> Result<Sizes, String> {
        match Vec::<usize>::read(text)?[..] {
            [batch, heads, queries, keys, width, values] => Ok(Sizes { batch, heads, queries, keys, width, values }),
            _ => Err(format!("`{text}` is not batch, heads, queries, keys, width and values")),
        }
    }
}

operator_attrs! {
    /// `q, k, v: T[..], mask: T[..]? -> T[batch, heads, queries, values]` with these axes permuted; T a float, the mask
    /// broadcasts to `[batch, heads, queries, keys]`. See the [module](self).
    pub struct Attention {
        /// The extents.
        pub sizes: Sizes,
        /// Of the queries in the first operand; features are neighbours.
        pub q: View,
        /// Of the keys in the second.
        pub k: View,
        /// Of the values in the third.
        pub v: View,
        /// The factor of the products.
        pub scale: f64,
        /// Axis `a` of the result is axis `perm[a]` of `[batch, heads, queries, values]`; the last stays last.
        pub perm: Vec<usize>,
    }
}

impl Attention {
    /// The extents of the scores.
    pub fn scores(&self) -> [usize; 4] {
        [self.sizes.batch, self.sizes.heads, self.sizes.queries, self.sizes.keys]
    }

    /// Elements of a result of these dimensions from one sample, head and query to the next.
    pub fn result_strides(&self, dims: &[usize]) -> [usize; 3] {
        let mut strides = [0; 4];
        let mut step = 1;
        for (&axis, &n) in self.perm.iter().zip(dims).rev() {
            strides[axis] = step;
            step *= n;
        }
        [strides[0], strides[1], strides[2]]
    }
}

impl Operator for Attention {
    const NAME: &'static str = "attention";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([q, k, v], [mask]) = operands(inputs)?;
        let dtype = one_float([q, k, v].into_iter().chain(mask))?;
        let Sizes { batch, heads, queries, keys, width, values } = self.sizes;
        if [batch, heads, queries, keys, width, values].contains(&0) {
            return type_err!("an extent is 0: {:?}", self.sizes);
        }
        let views = [
            ("queries", self.q, q, [batch, heads, queries, width]),
            ("keys", self.k, k, [batch, heads, keys, width]),
            ("values", self.v, v, [batch, heads, keys, values]),
        ];
        for (what, view, ty, extents) in views {
            let Some(elems) = ty.elems() else { return type_err!("{what} lie in a tensor of unknown size, {ty}") };
            if view.end(extents).is_none_or(|end| end > elems) {
                return type_err!("{what} reach beyond {ty}");
            }
        }
        if self.q.strides[3] != 1 {
            return type_err!("features of a query are not neighbours");
        }
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if sorted != [0, 1, 2, 3] || self.perm[3] != 3 {
            return type_err!("{:?} is no order of three axes with the features behind", self.perm);
        }
        if let Some(mask) = mask {
            let fits = |(d, n): (&Dim, usize)| d.size().is_some_and(|d| d == 1 || d == n);
            if mask.rank() > 4 || !mask.shape.iter().rev().zip(self.scores().into_iter().rev()).all(fits) {
                return type_err!("a mask {mask} does not broadcast to {:?}", self.scores());
            }
        }
        let extents = [batch, heads, queries, values];
        let dims: Vec<usize> = self.perm.iter().map(|&a| extents[a]).collect();
        Ok(vec![TensorType::fixed(dtype, &dims)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([q, k, v], [mask]) = tensors(inputs)?;
        let dtype = q.dtype();
        let mask = mask.map(|m| (m.to_f64(), broadcast_strides(m.dims(), &self.scores())));
        let [q, k, v] = [q, k, v].map(Tensor::to_f64);
        let Sizes { batch, heads, queries, keys, width, values } = self.sizes;
        let [of_batch, of_head, of_query] = self.result_strides(&dims);
        let mut y = vec![0.0; dims.iter().product()];
        for i in indices(&[batch, heads, queries]) {
            let &[b, h, s] = &i[..] else { continue };
            let score = |t: usize| {
                let product = |d: usize| q[self.q.at([b, h, s, d])] * k[self.k.at([b, h, t, d])];
                let bias = mask.as_ref().map_or(0.0, |(m, strides)| {
                    m[[b, h, s, t].iter().zip(strides).map(|(i, stride)| i * stride).sum::<usize>()]
                });
                self.scale * (0..width).map(product).sum::<f64>() + bias
            };
            let scores: Vec<f64> = (0..keys).map(score).collect();
            // A NaN among them makes all exponentials NaN, whatever the maximum is.
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let sum: f64 = weights.iter().sum();
            let row = &mut y[b * of_batch + h * of_head + s * of_query..][..values];
            for (e, y) in row.iter_mut().enumerate() {
                *y = weights.iter().enumerate().map(|(t, w)| w * v[self.v.at([b, h, t, e])]).sum::<f64>() / sum;
            }
        }
        Ok(vec![Tensor::from_f64(dtype, &dims, &y)])
    }

    fn macs(&self, _: &[Option<&TensorType>], _: &[TensorType]) -> Option<u64> {
        let s = self.sizes;
        let factors = [s.batch, s.heads, s.queries, s.keys, s.width.checked_add(s.values)?];
        factors.into_iter().try_fold(1u64, |product, n| product.checked_mul(n as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    fn one_head(queries: usize, keys: usize) -> Attention {
        let sizes = Sizes { batch: 1, heads: 1, queries, keys, width: 2, values: 1 };
        let rows = |width| View { offset: 0, strides: [0, 0, width, 1] };
        Attention { sizes, q: rows(2), k: rows(2), v: rows(1), scale: 0.5, perm: vec![0, 1, 2, 3] }
    }

    fn eval(op: &Attention, mask: Option<&Tensor>) -> Result<Vec<f64>, EvalError> {
        let t = |dims: &[usize], v: &[f64]| Tensor::from_f64(DType::F64, dims, v);
        let (q, k, v) = (t(&[1, 2], &[2.0, 0.0]), t(&[2, 2], &[0.0, 7.0, 3f64.ln(), 1.0]), t(&[2, 1], &[4.0, 8.0]));
        Ok(op.eval(&[Some(&q), Some(&k), Some(&v), mask])?[0].to_f64())
    }

    #[test]
    fn weights_are_the_softmax_of_scaled_products() {
        // Scores 0 and ln 3: weights 1/4 and 3/4.
        assert!((eval(&one_head(1, 2), None).unwrap()[0] - 7.0).abs() < 1e-12);
        let mask = Tensor::from_f64(DType::F64, &[2], &[0.0, f64::NEG_INFINITY]);
        assert_eq!(eval(&one_head(1, 2), Some(&mask)).unwrap(), [4.0]);
        let all = Tensor::from_f64(DType::F64, &[1], &[f64::NEG_INFINITY]);
        assert!(eval(&one_head(1, 2), Some(&all)).unwrap()[0].is_nan());
    }

    #[test]
    fn results_lie_in_any_order() {
        let sizes = Sizes { batch: 2, heads: 3, queries: 5, keys: 1, width: 1, values: 4 };
        let q = View { offset: 0, strides: [0, 0, 0, 1] };
        let v = View { offset: 1, strides: [30, 10, 0, 2] };
        let op = Attention { sizes, q, k: q, v, scale: 1.0, perm: vec![2, 0, 1, 3] };
        let x: Vec<f64> = (0..60).map(f64::from).collect();
        let x = Tensor::from_f64(DType::F32, &[60], &x);
        let y = &op.eval(&[Some(&x); 3]).unwrap()[0];
        assert_eq!(y.dims(), [5, 2, 3, 4]);
        // One key: its value, for every query. Sample 1, head 2 of query 3.
        assert_eq!(y.to_f64()[((3 * 2 + 1) * 3 + 2) * 4..][..4], [51.0, 53.0, 55.0, 57.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let ty = |dims: &[usize]| TensorType::fixed(DType::F32, dims);
        let (q, k, v) = (ty(&[1, 2]), ty(&[2, 2]), ty(&[2, 1]));
        let infer = |op: &Attention, mask: Option<&TensorType>| op.infer(&[Some(&q), Some(&k), Some(&v), mask]);
        let good = one_head(1, 2);
        assert_eq!(infer(&good, Some(&ty(&[1, 2]))).unwrap(), [ty(&[1, 1, 1, 1])]);
        assert!(infer(&good, Some(&ty(&[3]))).is_err());
        assert!(infer(&one_head(2, 2), None).is_err(), "queries beyond their operand");
        assert!(infer(&one_head(1, 0), None).is_err());
        assert!(infer(&Attention { perm: vec![3, 0, 1, 2], ..good.clone() }, None).is_err());
        let far = View { offset: usize::MAX, strides: [usize::MAX; 4] };
        assert!(infer(&Attention { k: far, ..good }, None).is_err());
    }
}
