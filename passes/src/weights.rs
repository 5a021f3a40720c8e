//! Weights of convolutions and matrix products: which are matrices, constant ones scaled along an axis.

use crate::rewrite::{No, dims, float_constant, operand};
use nncc_ir::ops::conv::Conv;
use nncc_ir::{Constant, DType, Graph, NodeId, Op, Tensor, ValueId};

/// `c` with every element multiplied by `factor(index along axis)`, in f64, rounded once. A splat stays one if all factors
/// are equal. `None` for other element types than floats.
pub fn scaled(c: &Constant, axis: usize, factors: &[f64]) -> Option<Constant> {
    let dims = c.dims();
    debug_assert_eq!(dims.get(axis), Some(&factors.len()));
    let same = factors.windows(2).all(|w| w[0].to_bits() == w[1].to_bits());
    if let (Some(value), Some(&k), true) = (c.splat_value(), factors.first(), same) {
        let one = Tensor::from_f64(c.dtype(), &[], &[value.to_f64()[0] * k]);
        return Constant::splat(&one, dims);
    }
    let inner: usize = dims[axis + 1..].iter().product();
    let factor = |i: usize| factors[i / inner % factors.len()];
    mapped(c, factor)
}

/// `c` with element `i` (row-major) multiplied by `factor(i)`, in f64, rounded once.
pub fn mapped(c: &Constant, factor: impl Fn(usize) -> f64) -> Option<Constant> {
    let t = match (c.dtype(), c.bytes()) {
        // The common case without an f64 copy of all weights.
        (DType::F32, Some(bytes)) => {
            let words = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let v: Vec<f32> = words.enumerate().map(|(i, w)| (f64::from(w) * factor(i)) as f32).collect();
            Tensor::f32(c.dims(), v)
        }
        (DType::F32 | DType::F64, _) => {
            let v: Vec<f64> = c.to_tensor().to_f64().into_iter().enumerate().map(|(i, w)| w * factor(i)).collect();
            Tensor::from_f64(c.dtype(), c.dims(), &v)
        }
        _ => return None,
    };
    Some(Constant::from_tensor(&t))
}

/// A convolution whose weights are a matrix: 1x1, without groups and pads.
pub fn pointwise(g: &Graph, n: NodeId) -> Result<&Conv, No> {
    let Op::Conv(c) = g.op(n) else { return Err(No::Match) };
    let one = dims(g, operand(g, n, 1)?)?[2..].iter().all(|&k| k == 1);
    if one && c.group == 1 && c.pads.iter().all(|&p| p == 0) { Ok(c) } else { Err(No::Match) }
}

/// A bias vector: the operand's numbers, or zeros where there is none.
pub fn bias(g: &Graph, b: Option<ValueId>, len: usize) -> Result<Vec<f64>, No> {
    b.map_or(Ok(vec![0.0; len]), |b| crate::rewrite::vector(g, b, len))
}

/// A vector constant of `dtype`.
pub fn vector_constant(dtype: DType, v: &[f64]) -> Constant {
    float_constant(dtype, &[v.len()], v)
}
