//! Every operator, one file a family: attributes, shape inference, reference evaluation, gradient.
//!
//! The list below is the only one: [`Op`], parsing by name and dispatch are generated from it.

use crate::batch::{BatchCx, Batched};
use crate::op::{EvalError, Operator, TypeError, define_ops};
use crate::{GradientCx, GradientError, Pointwise, SymTensor, Tensor, TensorType, type_err};

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod chain;
pub mod concat;
pub mod conv;
pub mod cum_sum;
mod drawn;
pub mod dropout;
pub mod einsum;
pub mod elementwise;
pub mod expand;
pub mod fused;
pub mod gather;
pub mod matmul;
pub mod norm;
pub mod one_hot;
pub(crate) mod operands;
pub mod pad;
pub mod pool;
pub mod reduce;
pub mod reshape;
pub mod resize;
pub mod rrelu;
pub mod scatter;
pub mod slice;
pub mod softmax;
pub mod space_depth;
pub mod top_k;
pub mod transpose;
pub mod trilu;
pub mod window;

define_ops! {
    elementwise::Unary, elementwise::Binary, elementwise::Compare, elementwise::Where, elementwise::Cast,
    activation::Relu, activation::LeakyRelu, activation::PRelu, activation::Elu, activation::Selu, activation::Celu,
    activation::ThresholdedRelu, activation::HardSigmoid, activation::HardSwish, activation::Softplus,
    activation::Softsign, activation::Mish, activation::Gelu, activation::Silu, activation::Swish, activation::Shrink,
    activation::Clip,
    conv::Conv, conv::ConvTranspose, conv::ConvWeightGradient,
    reshape::Reshape, reshape::Identity, reshape::Relayout, transpose::Transpose, expand::Expand, expand::Tile,
    concat::Concat, concat::Split, slice::Slice, pad::Pad, space_depth::DepthToSpace, space_depth::SpaceToDepth,
    gather::Gather, gather::GatherElements, gather::GatherNd, scatter::ScatterElements, scatter::ScatterNd,
    one_hot::OneHot, top_k::TopK, trilu::Trilu,
    reduce::Reduce, reduce::ArgReduce, cum_sum::CumSum, cum_sum::CumProd,
    pool::MaxPool, pool::AveragePool, pool::LpPool, pool::MaxPoolGradient, pool::AveragePoolGradient,
    batch_norm::BatchNormTraining, batch_norm::BatchNormStatistics, dropout::Dropout, rrelu::RRelu,
    norm::BatchNorm, norm::InstanceNorm, norm::GroupNorm, norm::LayerNorm, norm::RmsNorm, norm::Lrn, norm::LpNorm,
    matmul::MatMul, matmul::Gemm, einsum::Einsum, attention::Attention,
    softmax::Softmax, softmax::LogSoftmax, softmax::Hardmax,
    resize::Resize, resize::ResizeGradient,
    fused::Fused, chain::Chain,
}
