//! `DepthToSpace` and `SpaceToDepth`: blocks of pixels as channels, and back.
//!
//! ```text
//! depth_to_space  y[n, c, h*b + i, w*b + j] = x[n, (i*b + j)*C + c, h, w]     mode dcr, C = channels of y
//!                                           = x[n, c*b*b + i*b + j, h, w]     mode crd (pixel shuffle)
//! space_to_depth  y[n, (i*b + j)*C + c, h, w] = x[n, c, h*b + i, w*b + j]     C = channels of x
//! ```
//!
//! Sources: ONNX DepthToSpace-13, SpaceToDepth-13.

use crate::batch::{BatchCx, Batched};
use crate::movement::{offset, pick};
use crate::op::{EvalError, Operator, TypeError, operands};
use crate::tensor::strides_of;
use crate::{Dim, GradientCx, GradientError, Tensor, TensorType, attr_enum, operator_attrs, type_err};

attr_enum! {
    /// The order in which a channel index is made of (position in the block, channel).
    pub enum DepthOrder {
        /// Position first: depth, column, row.
        Dcr = "dcr",
        /// Channel first: column, row, depth.
        Crd = "crd",
    }
}

operator_attrs! {
    /// `x: T[N, C*b*b, H, W] -> T[N, C, H*b, W*b]`, any type.
    pub struct DepthToSpace {
        /// The side b of a block, at least 1.
        pub block: usize,
        /// Which channel goes where in a block.
        pub mode: DepthOrder,
    }
}

operator_attrs! {
    /// `x: T[N, C, H*b, W*b] -> T[N, C*b*b, H, W]`, any type.
    pub struct SpaceToDepth {
        /// The side b of a block, at least 1.
        pub block: usize,
    }
}

/// The one operand of rank 4, the block's side and its area.
fn checked<'a>(block: usize, inputs: &[Option<&'a TensorType>]) -> Result<(&'a TensorType, Dim, Dim), TypeError> {
    let [x] = operands(inputs)?;
    if x.rank() != 4 {
        return type_err!("takes [N,C,H,W], not {x}");
    }
    if block == 0 || block > 1 << 16 {
        return type_err!("the block size {block} is not in 1..=65536");
    }
    Ok((x, Dim::from(block), Dim::from(block * block)))
}

/// `d / by`, which must leave no remainder as far as that is known.
fn exact(x: &TensorType, axis: usize, by: &Dim) -> Result<Dim, TypeError> {
    let d = &x.shape[axis];
    match d.floor_div(by) {
        Some(q) if d.known().is_none() || q.mul(by) == *d => Ok(q),
        _ => type_err!("dimension {axis} of {x} is not a multiple of {by}"),
    }
}

impl Operator for DepthToSpace {
    const NAME: &'static str = "depth_to_space";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let (x, side, area) = checked(self.block, inputs)?;
        let shape = vec![x.shape[0].clone(), exact(x, 1, &area)?, x.shape[2].mul(&side), x.shape[3].mul(&side)];
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        self.infer(&[Some(&x.ty())])?; // a symbol that is known by now may not be a multiple
        let (b, d, s) = (self.block, x.dims(), strides_of(x.dims()));
        let channels = d[1] / (b * b);
        Ok(vec![pick(x, &[d[0], channels, d[2] * b, d[3] * b], |i| {
            let cell = i[2] % b * b + i[3] % b;
            let c = match self.mode {
                DepthOrder::Dcr => cell * channels + i[1],
                DepthOrder::Crd => i[1] * b * b + cell,
            };
            offset(&[i[0], c, i[2] / b, i[3] / b], &s)
        })])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy, b) = (cx.operand(0)?, cx.dy()?, self.block);
        cx.give(0, |cx| match self.mode {
            DepthOrder::Dcr => cx.add(SpaceToDepth { block: b }, &[dy]),
            DepthOrder::Crd => {
                let dims = cx.dims(x);
                let [n, c, h, w] = [dims[0], dims[1] / (b * b), dims[2], dims[3]];
                let apart = cx.reshape(dy, &[n, c, h, b, w, b])?;
                let apart = cx.transpose(apart, &[0, 1, 3, 5, 2, 4])?;
                cx.reshape(apart, &dims)
            }
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis == 0)
    }
}

impl Operator for SpaceToDepth {
    const NAME: &'static str = "space_to_depth";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let (x, side, area) = checked(self.block, inputs)?;
        let shape = vec![x.shape[0].clone(), x.shape[1].mul(&area), exact(x, 2, &side)?, exact(x, 3, &side)?];
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        self.infer(&[Some(&x.ty())])?; // a symbol that is known by now may not be a multiple
        let (b, d, s) = (self.block, x.dims(), strides_of(x.dims()));
        Ok(vec![pick(x, &[d[0], d[1] * b * b, d[2] / b, d[3] / b], |i| {
            let (cell, c) = (i[1] / d[1], i[1] % d[1]);
            offset(&[i[0], c, i[2] * b + cell / b, i[3] * b + cell % b], &s)
        })])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let dy = cx.dy()?;
        cx.give(0, |cx| cx.add(DepthToSpace { block: self.block, mode: DepthOrder::Dcr }, &[dy]))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    #[test]
    fn both_orders_place_channels_as_onnx_says() {
        let x = Tensor::i64(&[1, 8, 1, 1], (0..8).collect());
        let run = |mode| DepthToSpace { block: 2, mode }.eval(&[Some(&x)]).unwrap()[0].to_i64();
        assert_eq!(run(DepthOrder::Dcr), [0, 2, 4, 6, 1, 3, 5, 7]);
        assert_eq!(run(DepthOrder::Crd), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn space_to_depth_undoes_dcr() {
        let x = Tensor::i64(&[2, 3, 4, 6], (0..144).collect());
        let y = SpaceToDepth { block: 2 }.eval(&[Some(&x)]).unwrap().remove(0);
        assert_eq!(y.dims(), [2, 12, 2, 3]);
        assert_eq!(DepthToSpace { block: 2, mode: DepthOrder::Dcr }.eval(&[Some(&y)]).unwrap()[0], x);
    }

    #[test]
    fn sizes_must_be_multiples() {
        let x = TensorType::fixed(DType::F32, &[1, 6, 4, 4]);
        let why = DepthToSpace { block: 2, mode: DepthOrder::Dcr }.infer(&[Some(&x)]).unwrap_err().0;
        assert_eq!(why, "dimension 1 of f32[1,6,4,4] is not a multiple of 4");
        assert!(SpaceToDepth { block: 0 }.infer(&[Some(&x)]).is_err());
        assert!(SpaceToDepth { block: usize::MAX }.infer(&[Some(&x)]).is_err());
    }
}
