//! Every operator, one file a family: attributes, shape inference, reference evaluation.
//!
//! The list below is the only one: [`Op`], parsing by name and dispatch are generated from it.

use crate::op::{EvalError, Operator, TypeError, define_ops};
use crate::{Pointwise, SymTensor, Tensor, TensorType, type_err};

pub mod elementwise;

define_ops! {
    elementwise::Unary, elementwise::Binary, elementwise::Compare, elementwise::Where, elementwise::Cast,
}
