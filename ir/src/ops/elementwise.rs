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

/// `a / b` of integers (or of floats that hold integers), where the result is an integer that a [`Dim`] can say.
fn symbolic_quotient(a: &Dim, b: &Dim, is_float: bool) -> Option<Dim> {
    let floor = a.floor_div(b)?;
    match (a, b) {
        _ if floor.mul(b) == *a => Some(floor),
        _ if is_float => None, // a fraction
        (Dim::Known(a), Dim::Known(b)) => a.checked_div(*b).map(Dim::Known),
        // Sizes are not negative, so truncation and floor agree on quotients of sizes by positive numbers.
        _ => Some(floor),
    }
}

impl Operator for Unary {
    const NAME: &'static str = "unary";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = infer_elementwise(inputs)?.operands;
        if !self.function.takes(x.dtype) {
            return type_err!("{} does not take {}", self.function, x.dtype);
        }
        let bool_result = matches!(self.function, UnaryFn::IsNan | UnaryFn::IsInf);
        Ok(vec![TensorType { dtype: if bool_result { DType::Bool } else { x.dtype }, shape: x.shape.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_pointwise(self, inputs)
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let x = (*inputs.first()?)?;
        let f = |d: &Dim| match self.function {
            UnaryFn::Neg => Some(d.mul(&Dim::Known(-1))),
            UnaryFn::Abs => d.known().map(|n| Dim::Known(n.saturating_abs())),
            UnaryFn::Sign => d.known().map(|n| Dim::Known(n.signum())),
            // What is followed symbolically is an integer, whatever type holds it.
            UnaryFn::Floor | UnaryFn::Ceil | UnaryFn::Round => Some(d.clone()),
            UnaryFn::Not => d.known().map(|n| Dim::Known(i64::from(n == 0))),
            _ => None,
        };
        let elems = x.elems.iter().map(f).collect::<Option<_>>()?;
        Some(vec![SymTensor { dims: x.dims.clone(), elems }])
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
        if !self.function.takes(a.dtype) {
            return type_err!("{} does not take {}", self.function, a.dtype);
        }
        Ok(vec![TensorType { dtype: a.dtype, shape: e.shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        eval_pointwise(self, inputs)
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], types: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let (a, b) = ((*inputs.first()?)?, (*inputs.get(1)?)?);
        let is_float = types.first().copied().flatten().is_none_or(|t| t.dtype.is_float());
        let f = |a: &Dim, b: &Dim| match self.function {
            BinaryFn::Add => Some(a.add(b)),
            BinaryFn::Sub => Some(a.sub(b)),
            BinaryFn::Mul => Some(a.mul(b)),
            BinaryFn::Div => symbolic_quotient(a, b, is_float),
            BinaryFn::Min => Some(a.min_of(b)),
            BinaryFn::Max => Some(a.max_of(b)),
            BinaryFn::Mod if !is_float => Some(a.sub(&a.floor_div(b)?.mul(b))), // the remainder of floor division
            _ => None,
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

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let (a, b) = ((*inputs.first()?)?, (*inputs.get(1)?)?);
        let f = |a: &Dim, b: &Dim| {
            let difference = a.sub(b).known()?; // known also for N against N + 1
            let holds = match self.function {
                CompareFn::Eq => difference == 0,
                CompareFn::Ne => difference != 0,
                CompareFn::Lt => difference < 0,
                CompareFn::Le => difference <= 0,
                CompareFn::Gt => difference > 0,
                CompareFn::Ge => difference >= 0,
            };
            Some(Dim::Known(i64::from(holds)))
        };
        // A size is never the -1 by which exporters mark a dimension to keep, whatever the symbols stand for.
        crate::broadcast::zip_symbolic(a, b, |a, b| f(a, b).or_else(|| self.against_negative(a, b))).map(|t| vec![t])
    }

    fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
        Some(Pointwise::build(&[inputs[0].dtype, inputs[1].dtype], |p, x| p.compare(self.function, x[0], x[1])))
    }
}

impl Compare {
    /// Equality of a size, which is never negative, and a negative number.
    fn against_negative(&self, a: &Dim, b: &Dim) -> Option<Dim> {
        let negative = |d: &Dim| d.known().is_some_and(|n| n < 0);
        let apart = (a.is_never_negative() && negative(b)) || (negative(a) && b.is_never_negative());
        match self.function {
            CompareFn::Eq if apart => Some(Dim::Known(0)),
            CompareFn::Ne if apart => Some(Dim::Known(1)),
            _ => None,
        }
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

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let [cond, a, b] = crate::op::operands(inputs).ok()?;
        let n = [cond, a, b].iter().map(|t| t.elems.len()).max()?;
        let dims = &[cond, a, b].into_iter().find(|t| t.elems.len() == n)?.dims;
        let at = |t: &SymTensor, i: usize| {
            if t.elems.len() == 1 { t.elems.first().cloned() } else { t.elems.get(i).cloned() }
        };
        let pick = |i| {
            let (cond, a, b) = (at(cond, i)?, at(a, i)?, at(b, i)?);
            match cond.known() {
                _ if a == b => Some(a),
                Some(cond) => Some(if cond != 0 { a } else { b }),
                None => None,
            }
        };
        let elems = (0..n).map(pick).collect::<Option<_>>()?;
        Some(vec![SymTensor { dims: dims.clone(), elems }])
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
        let x = (*inputs.first()?)?;
        let f = |d: &Dim| match self.to {
            DType::Bool => d.known().map(|n| Dim::Known(i64::from(n != 0))),
            // A float that holds a size is exact as long as sizes stay below 2^24; shape arithmetic of exporters goes
            // through f32.
            _ => Some(d.clone()),
        };
        let elems = x.elems.iter().map(f).collect::<Option<_>>()?;
        Some(vec![SymTensor { dims: x.dims.clone(), elems }])
    }

    fn pointwise(&self, inputs: &[&TensorType]) -> Option<Pointwise> {
        Some(Pointwise::build(&[inputs[0].dtype], |p, x| p.cast(x[0], self.to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sym(elems: &[Dim]) -> SymTensor {
        SymTensor { dims: vec![elems.len()], elems: elems.to_vec() }
    }

    fn n() -> Dim {
        Dim::symbol("N")
    }

    #[test]
    fn quotients_of_floats_must_be_exact() {
        let (a, two) = (sym(&[n().mul(&Dim::Known(4)), n()]), sym(&[Dim::Known(2)]));
        let run = |dtype| {
            let ty = TensorType::fixed(dtype, &[2]);
            Binary { function: BinaryFn::Div }.eval_symbolic(&[Some(&a), Some(&two)], &[Some(&ty), Some(&ty)])
        };
        assert_eq!(run(DType::I64).unwrap()[0].elems[1].to_string(), "N/2");
        assert_eq!(run(DType::F32), None);
        let (minus, three) = (sym(&[Dim::Known(-7)]), sym(&[Dim::Known(3)]));
        let ty = TensorType::fixed(DType::I64, &[1]);
        let q =
            Binary { function: BinaryFn::Div }.eval_symbolic(&[Some(&minus), Some(&three)], &[Some(&ty), Some(&ty)]);
        assert_eq!(q.unwrap()[0].elems, [Dim::Known(-2)]);
    }

    #[test]
    fn exporters_replace_minus_one_by_a_known_size() {
        // Expand by PyTorch: where(shape == -1, ones, shape)
        let (shape, minus, ones) = (sym(&[n(), Dim::Known(-1)]), sym(&[Dim::Known(-1)]), sym(&[Dim::Known(1)]));
        let is =
            Compare { function: CompareFn::Eq }.eval_symbolic(&[Some(&shape), Some(&minus)], &[]).unwrap().remove(0);
        assert_eq!(is.elems, [Dim::Known(0), Dim::Known(1)]);
        let y = Where {}.eval_symbolic(&[Some(&is), Some(&ones), Some(&shape)], &[]).unwrap();
        assert_eq!(y[0].elems, [n(), Dim::Known(1)]);
    }
}
