//! What an operator is: the [`Operator`] trait that each operator's home implements, and the [`Op`] enum of all of them.
//!
//! An operator's home, a file in `ops/`, holds its attributes, its shape inference, its reference evaluation and its
//! gradient. `Op` and everything that must know all operators (parsing by name, dispatch) is generated from the one list in
//! `ops/mod.rs`: adding an operator is its own section there plus one line in that list.

use crate::attr::Attributes;
use crate::batch::{BatchCx, Batched};
use crate::broadcast::broadcast_shapes;
use crate::{Dim, GradientCx, GradientError, Pointwise, Tensor, TensorType};

/// Why types do not fit an operator: the sentence a user reads behind the operator's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TypeError(pub String);

/// Shorthand for `Err(TypeError(format!(...)))`.
#[macro_export]
macro_rules! type_err {
    ($($arg:tt)*) => { Err($crate::op::TypeError(format!($($arg)*))) };
}

/// A reference evaluation that could not be done: a bug, or data the operator does not accept (an index out of range).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvalError(pub String);

impl From<TypeError> for EvalError {
    fn from(e: TypeError) -> EvalError {
        EvalError(e.0)
    }
}

/// The operands of an operator that takes exactly `N` and needs all of them: types for `infer`, tensors for `eval`.
pub fn operands<'a, T, const N: usize>(inputs: &[Option<&'a T>]) -> Result<[&'a T; N], TypeError> {
    let all: Option<Vec<&'a T>> = inputs.iter().copied().collect();
    match all.map(<[&'a T; N]>::try_from) {
        Some(Ok(all)) => Ok(all),
        _ => {
            let s = if N == 1 { "" } else { "s" };
            type_err!("takes {N} operand{s}, {} are given", inputs.iter().flatten().count())
        }
    }
}

/// An integer tensor whose elements may be symbolic: what is known at compile time of shape arithmetic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymTensor {
    /// Known dimensions.
    pub dims: Vec<usize>,
    /// Elements, row-major.
    pub elems: Vec<Dim>,
}

impl SymTensor {
    /// The type of a tensor of these dimensions, for shape rules that do not look at the element type.
    pub fn ty(&self) -> TensorType {
        TensorType::fixed(crate::DType::I64, &self.dims)
    }
}

/// One operator: a struct of attributes with this trait. Operands are positional; an optional operand that is not given
/// is `None`.
pub trait Operator: Attributes + Clone + std::fmt::Debug + PartialEq + Into<Op> {
    /// The name in the text form, in diagnostics and in step names: ONNX's, in snake case.
    const NAME: &'static str;

    /// The types of the outputs, or why the operands do not fit. Must not panic for any operands or attributes. With
    /// symbolic dimensions it checks what can be checked.
    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError>;

    /// Reference meaning: plain loops, in f64 where numbers are summed, slow and obviously right. Called only with
    /// operands that `infer` accepts. `F64` operands are computed in f64 throughout, so that a whole graph can be
    /// evaluated exactly.
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError>;

    /// The outputs where operands are shape arithmetic with symbols; `None` where that is not known. `types` are the operands'
    /// types, which `infer` accepts.
    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], types: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let _ = (inputs, types);
        None
    }

    /// For an elementwise operator: its meaning at one element, over operands of these types (all given operands, in
    /// order). `None` for every other operator.
    fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
        let _ = inputs;
        None
    }

    /// Builds the gradients of the operands from those of the results. By default an elementwise operator's follow from its
    /// program, and every other operator has none.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let types: Vec<TensorType> =
            (0..cx.operand_count()).filter_map(|i| cx.optional(i)).map(|v| cx.ty(v).clone()).collect();
        match self.pointwise(&types.iter().collect::<Vec<_>>()) {
            Some(program) => cx.pointwise_gradients(&program),
            None => Err(GradientError::Unsupported(None)),
        }
    }

    /// How the samples of a batch are handed on, for a batch of another size; `None` if the operator does not keep them
    /// apart. By default an elementwise operator does, and no other is known to.
    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let types: Vec<&TensorType> = cx.types.iter().copied().flatten().collect();
        self.pointwise(&types)?;
        let rank = broadcast_shapes(types.iter().map(|t| &t.shape[..])).ok()?.len();
        let (axis, operands) = cx.broadcast(rank, 0)?;
        Some(Batched { operands, ..cx.on(axis) })
    }

    /// Multiply-accumulates of one execution, as published figures count them: convolutions and matrix products only.
    fn macs(&self, inputs: &[Option<&TensorType>], outputs: &[TensorType]) -> Option<u64> {
        let _ = (inputs, outputs);
        Some(0)
    }
}

/// Generates [`Op`] from the list of operators.
macro_rules! define_ops {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// What a node of the graph does.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op {
            /// An input of the graph.
            Input,
            /// A constant.
            Constant($crate::Constant),
            $(
                #[doc = concat!("See [`", stringify!($name), "`](crate::ops::", stringify!($module), "::", stringify!($name), ").")]
                $name($crate::ops::$module::$name),
            )*
        }

        $(impl From<$crate::ops::$module::$name> for Op {
            fn from(op: $crate::ops::$module::$name) -> Op { Op::$name(op) }
        })*

        impl Op {
            /// The names of all operators, as the text form spells them.
            pub const NAMES: &'static [&'static str] = &[$(<$crate::ops::$module::$name as Operator>::NAME),*];

            /// The operator's name in the text form.
            pub fn name(&self) -> &'static str {
                match self {
                    Op::Input => "input",
                    Op::Constant(_) => "constant",
                    $(Op::$name(_) => <$crate::ops::$module::$name as Operator>::NAME,)*
                }
            }

            /// The operator called `name` with these attributes.
            pub fn from_text(name: &str, fields: &[(&str, &str)]) -> Result<Op, String> {
                $(if name == <$crate::ops::$module::$name as Operator>::NAME {
                    return <$crate::ops::$module::$name as $crate::attr::Attributes>::from_attributes(fields).map(Op::from);
                })*
                Err(format!("there is no operator `{name}`"))
            }

            /// `(attribute, text)` in declaration order.
            pub fn attributes(&self) -> Vec<(&'static str, String)> {
                match self {
                    Op::Input | Op::Constant(_) => Vec::new(),
                    $(Op::$name(op) => $crate::attr::Attributes::attributes(op),)*
                }
            }

            /// See [`Operator::infer`].
            pub fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
                match self {
                    Op::Input => type_err!("an input has no type to infer"),
                    Op::Constant(c) => Ok(vec![c.ty()]),
                    $(Op::$name(op) => op.infer(inputs),)*
                }
            }

            /// See [`Operator::eval`].
            pub fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
                match self {
                    Op::Input => Err(EvalError("an input has no value of its own".into())),
                    Op::Constant(c) => Ok(vec![c.to_tensor()]),
                    $(Op::$name(op) => op.eval(inputs),)*
                }
            }

            /// See [`Operator::eval_symbolic`].
            pub fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], types: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
                match self {
                    Op::Input | Op::Constant(_) => None,
                    $(Op::$name(op) => op.eval_symbolic(inputs, types),)*
                }
            }

            /// See [`Operator::pointwise`].
            pub fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
                match self {
                    Op::Input | Op::Constant(_) => None,
                    $(Op::$name(op) => op.pointwise(inputs),)*
                }
            }

            /// See [`Operator::gradient`].
            pub fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
                match self {
                    Op::Input | Op::Constant(_) => Ok(()), // has no operands
                    $(Op::$name(op) => op.gradient(cx),)*
                }
            }

            /// See [`Operator::batched`].
            pub fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
                match self {
                    Op::Input | Op::Constant(_) => None, // has no operands
                    $(Op::$name(op) => op.batched(cx),)*
                }
            }

            /// See [`Operator::macs`].
            pub fn macs(&self, inputs: &[Option<&TensorType>], outputs: &[TensorType]) -> Option<u64> {
                match self {
                    Op::Input | Op::Constant(_) => Some(0),
                    $(Op::$name(op) => op.macs(inputs, outputs),)*
                }
            }
        }
    };
}
pub(crate) use define_ops;
// `Op` itself is generated where the list stands.
pub use crate::ops::Op;
