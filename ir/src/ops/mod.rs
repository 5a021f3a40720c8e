//! Every operator, one file a family: attributes, shape inference, reference evaluation.
//!
//! The list below is the only one: [`Op`], parsing by name and dispatch are generated from it.

use crate::op::{EvalError, Operator, TypeError, define_ops};
use crate::{Pointwise, SymTensor, Tensor, TensorType, type_err};

pub mod activation;
pub mod conv;
pub mod elementwise;
pub(crate) mod operands;
pub mod window;

define_ops! {
    elementwise::Unary, elementwise::Binary, elementwise::Compare, elementwise::Where, elementwise::Cast,
    activation::Relu, activation::LeakyRelu, activation::PRelu, activation::Elu, activation::Selu, activation::Celu,
    activation::ThresholdedRelu, activation::HardSigmoid, activation::HardSwish, activation::Softplus,
    activation::Softsign, activation::Mish, activation::Gelu, activation::Silu, activation::Swish, activation::Shrink,
    activation::Clip,
    conv::Conv, conv::ConvTranspose,
}
