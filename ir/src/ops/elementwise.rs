//! Elementwise operators without attributes to speak of: arithmetic, comparisons, logic, selection, conversion.
//!
//! Operands broadcast as numpy's do (ONNX "multidirectional"). The meaning of each is its [`Pointwise`] program; shape
//! inference and reference evaluation are shared by all of them (see [`crate::broadcast`]).

use crate::broadcast::{eval_pointwise, infer_elementwise};
use crate::op::{EvalError, Operator, SymTensor, TypeError};
use crate::pointwise::{BinaryFn, CompareFn, UnaryFn};
use crate::{DType, Dim, Pointwise, Tensor, TensorType, operator_attrs, type_err};

operator_attrs! {
    /// A function of one operand: `x: T[..] -> T[..]` (`Bool[..]` for the predicates).
    pub struct Unary {
        /// Which one.
        pub function: UnaryFn,
    }
}

operator_attrs! {
    /// A function of two operands of one type: `a: T[..], b: T[..] -> T[..]`.
    pub struct Binary {
        /// Which one.
        pub function: BinaryFn,
    }
}

operator_attrs! {
    /// A comparison: `a: T[..], b: T[..] -> Bool[..]`.
    pub struct Compare {
        /// Which one.
        pub function: CompareFn,
    }
}

operator_attrs! {
    /// `cond: Bool[..], a: T[..], b: T[..] -> T[..]`: a where the condition is true, else b.
    pub struct Where {}
}

operator_attrs! {
    /// Conversion to another element type: see [`crate::pointwise::Inst::Cast`]. `x: T[..] -> to[..]`.
    pub struct Cast {
        /// The element type of the result.
        pub to: DType,
    }
}

/// The element types that a unary function takes.
fn unary_takes(f: UnaryFn, t: DType) -> bool {
    match f {
        UnaryFn::Neg | UnaryFn::Abs | UnaryFn::Sign => t != DType::Bool,
        UnaryFn::Not => t == DType::Bool,
        UnaryFn::BitNot => t.is_int(),
        _ => t.is_float(),
    }
}

/// The element types that a binary function takes.
fn binary_takes(f: BinaryFn, t: DType) -> bool {
    match f {
        BinaryFn::And | BinaryFn::Or | BinaryFn::Xor => t == DType::Bool,
        BinaryFn::BitAnd | BinaryFn::BitOr | BinaryFn::BitXor => t.is_int(),
        BinaryFn::Shl | BinaryFn::Shr => t.is_int() && !t.is_signed_int(),
        _ => t != DType::Bool,
    }
}

impl Operator for Unary {
    const NAME: &'static str = "unary";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = infer_elementwise(inputs)?.operands;
        if !unary_takes(self.function, x.dtype) {
            return type_err!("{} does not take {}", self.function, x.dtype);
        }
        let bool_result = matches!(self.function, UnaryFn::IsNan | UnaryFn::IsInf);
        Ok(vec![TensorType { dtype: if bool_result { DType::Bool } else { x.dtype }, shape: x.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_pointwise(self, inputs)
    }

    fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
        Some(Pointwise::build(&[inputs[0].dtype], |p, x| p.unary(self.function, x[0])))
    }
}

impl Operator for Binary {
    const NAME: &'static str = "binary";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let e = infer_elementwise::<2>(inputs)?;
        let [a, b] = e.operands;
        if a.dtype != b.dtype {
            return type_err!("operands have different types, {} and {}", a.dtype, b.dtype);
        }
        if !binary_takes(self.function, a.dtype) {
            return type_err!("{} does not take {}", self.function, a.dtype);
        }
        Ok(vec![TensorType { dtype: a.dtype, shape: e.shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_pointwise(self, inputs)
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let (a, b) = ((*inputs.first()?)?, (*inputs.get(1)?)?);
        let f: fn(&Dim, &Dim) -> Option<Dim> = match self.function {
            BinaryFn::Add => |a, b| Some(a.add(b)),
            BinaryFn::Sub => |a, b| Some(a.sub(b)),
            BinaryFn::Mul => |a, b| Some(a.mul(b)),
            // Sizes are not negative, so truncation and floor agree on quotients of sizes by positive numbers.
            BinaryFn::Div => |a, b| a.floor_div(b),
            BinaryFn::Min => |a, b| Some(a.min_of(b)),
            BinaryFn::Max => |a, b| Some(a.max_of(b)),
            _ => return None,
        };
        crate::broadcast::zip_symbolic(a, b, f).map(|t| vec![t])
    }

    fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
        Some(Pointwise::build(&[inputs[0].dtype, inputs[1].dtype], |p, x| p.binary(self.function, x[0], x[1])))
    }
}

impl Operator for Compare {
    const NAME: &'static str = "compare";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let e = infer_elementwise::<2>(inputs)?;
        if e.operands[0].dtype != e.operands[1].dtype {
            return type_err!("operands have different types, {} and {}", e.operands[0].dtype, e.operands[1].dtype);
        }
        Ok(vec![TensorType { dtype: DType::Bool, shape: e.shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_pointwise(self, inputs)
    }

    fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
        Some(Pointwise::build(&[inputs[0].dtype, inputs[1].dtype], |p, x| p.compare(self.function, x[0], x[1])))
    }
}

impl Operator for Where {
    const NAME: &'static str = "where";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let e = infer_elementwise::<3>(inputs)?;
        let [c, a, b] = e.operands;
        if c.dtype != DType::Bool {
            return type_err!("the condition is {}, not bool", c.dtype);
        }
        if a.dtype != b.dtype {
            return type_err!("the two choices have different types, {} and {}", a.dtype, b.dtype);
        }
        Ok(vec![TensorType { dtype: a.dtype, shape: e.shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_pointwise(self, inputs)
    }

    fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
        let types = [inputs[0].dtype, inputs[1].dtype, inputs[2].dtype];
        Some(Pointwise::build(&types, |p, x| p.select(x[0], x[1], x[2])))
    }
}

impl Operator for Cast {
    const NAME: &'static str = "cast";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = infer_elementwise(inputs)?.operands;
        Ok(vec![TensorType { dtype: self.to, shape: x.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_pointwise(self, inputs)
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        // A float that holds a size is exact as long as sizes stay below 2^24; shape arithmetic of exporters goes through f32.
        inputs.first()?.map(|t| vec![t.clone()])
    }

    fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
        Some(Pointwise::build(&[inputs[0].dtype], |p, x| p.cast(x[0], self.to)))
    }
}
