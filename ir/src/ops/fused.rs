//! An operator followed by an elementwise program, as one node: what fusion makes.
//!
//! ```text
//! %c = conv %x, @w, @b                 %y = fused %x, @w, @b, %r, root=conv(...), root_operands=3,
//! %s = add %c, %r               =>              program={0 = in(0); 1 = in(1); 2 = add(0,1); 3 = ... -> 3}
//! %y = relu %s
//! ```
//!
//! Operands are the root's `root_operands` operands (missing ones included), then the further inputs of the program. Input
//! 0 of the program is the root's only output; the further ones broadcast to its shape. Without a root, the operands are
//! the inputs of the program, which broadcast to each other. Passes make these nodes; no model file has them.

use crate::attr::{AttrValue, split_top};
use crate::broadcast::{broadcast_shapes, eval_program};
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::chain::Chain;
use crate::{Op, Pointwise, Tensor, TensorType, operator_attrs, type_err};

operator_attrs! {
    /// See the [module](self).
    pub struct Fused {
        /// What the program is applied to, if not to operands.
        pub root: Option<Box<Op>>,
        /// What is done at each element.
        pub program: Pointwise,
        /// How many of the operands are the root's; 0 without a root.
        pub root_operands: usize,
    }
}

impl AttrValue for Box<Op> {
    /// `conv(strides=[1,1],group=1)`.
    fn write(&self) -> String {
        op_to_text(self)
    }

    fn read(text: &str) -> Result<Box<Op>, String> {
        op_from_text(text, &[Fused::NAME, Chain::NAME]).map(Box::new) // also bounds the recursion
    }
}

/// `conv(strides=[1,1],group=1)`.
pub(super) fn op_to_text(op: &Op) -> String {
    let fields: Vec<String> = op.attributes().iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("{}({})", op.name(), fields.join(","))
}

/// The operator of such a text, if it is none of the `refused`.
pub(super) fn op_from_text(text: &str, refused: &[&str]) -> Result<Op, String> {
    let bad = || format!("`{text}` is not an operator with attributes");
    let (name, fields) = text.strip_suffix(')').and_then(|t| t.split_once('(')).ok_or_else(bad)?;
    if refused.contains(&name) {
        return Err(format!("a {name} operator cannot be a part of this one"));
    }
    let fields = split_top(fields, ',').into_iter().map(|f| f.split_once('=').ok_or_else(bad));
    let fields: Vec<(&str, &str)> = fields.map(|f| f.map(|(k, v)| (k.trim(), v.trim()))).collect::<Result<_, _>>()?;
    Op::from_text(name, &fields)
}

impl Fused {
    /// The root's operands and the program's further ones, as slices of all.
    pub fn split<'a, T>(&self, operands: &'a [Option<&'a T>]) -> Option<[&'a [Option<&'a T>]; 2]> {
        operands.split_at_checked(self.root_operands).map(|(own, extra)| [own, extra])
    }

    /// The type of the root's only output.
    pub fn root_type(&self, operands: &[Option<&TensorType>]) -> Result<Option<TensorType>, TypeError> {
        let Some(root) = &self.root else { return Ok(None) };
        if matches!(**root, Op::Fused(_) | Op::Chain(_) | Op::Input | Op::Constant(_)) {
            return type_err!("{} cannot be a root", root.name());
        }
        let mut outputs = root.infer(operands).map_err(|e| TypeError(format!("{}: {e}", root.name())))?;
        match (outputs.pop(), outputs.len()) {
            (Some(t), 0) => Ok(Some(t)),
            (_, n) => type_err!("the root {} has {} outputs, not one", root.name(), n + 1),
        }
    }
}

impl Operator for Fused {
    const NAME: &'static str = "fused";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        self.program.check().map_err(TypeError)?;
        let Some([own, extra]) = self.split(inputs) else {
            return type_err!("the root has {} operands, {} are given", self.root_operands, inputs.len());
        };
        if self.root.is_none() && !own.is_empty() {
            return type_err!("{} operands for no root", own.len());
        }
        let root = self.root_type(own)?;
        let given: Vec<&TensorType> = root.iter().chain(extra.iter().copied().flatten()).collect();
        if given.len() != extra.len() + usize::from(root.is_some()) {
            return type_err!("an operand of the program is missing");
        }
        let types = given.iter().map(|t| t.dtype);
        if !types.clone().eq(self.program.inputs().iter().copied()) {
            let types: Vec<String> = types.map(|t| t.to_string()).collect();
            return type_err!("the program {} has operands of types {}", self.program, types.join(", "));
        }
        let shape = broadcast_shapes(given.iter().map(|t| &t.shape[..]))?;
        if let Some(root) = &root {
            let grown = shape.len() != root.rank()
                || shape.iter().zip(&root.shape).any(|(s, r)| r.known() == Some(1) && s != r);
            if grown {
                return type_err!("an operand of the program does not broadcast to the root's {root}");
            }
            return Ok(vec![TensorType { dtype: self.program.result_type(), shape: root.shape.clone() }]);
        }
        Ok(vec![TensorType { dtype: self.program.result_type(), shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let missing = || EvalError("operands are missing".into());
        let [own, extra] = self.split(inputs).ok_or_else(missing)?;
        let root = match &self.root {
            Some(root) => Some(root.eval(own)?.into_iter().next().ok_or_else(missing)?),
            None => None,
        };
        let operands: Vec<&Tensor> = root.iter().chain(extra.iter().copied().flatten()).collect();
        eval_program(&self.program, &operands).map(|t| vec![t])
    }

    fn pointwise(&self, _: &[&TensorType]) -> Option<Pointwise> {
        self.root.is_none().then(|| self.program.clone())
    }

    fn macs(&self, inputs: &[Option<&TensorType>], outputs: &[TensorType]) -> Option<u64> {
        match &self.root {
            Some(root) => root.macs(self.split(inputs)?[0], outputs),
            None => Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::attr::Attributes;
    use crate::ops::conv::Conv;
    use crate::pointwise::{BinaryFn, UnaryFn};

    fn add_then_abs() -> Pointwise {
        Pointwise::build(&[DType::F32, DType::F32], |p, x| {
            let s = p.binary(BinaryFn::Add, x[0], x[1]);
            p.unary(UnaryFn::Abs, s)
        })
    }

    fn fused_conv() -> Fused {
        let conv = Conv { strides: vec![1], dilations: vec![1], pads: vec![1, 1], group: 1 };
        Fused { root: Some(Box::new(conv.into())), program: add_then_abs(), root_operands: 3 }
    }

    #[test]
    fn root_then_program() {
        let x = Tensor::f32(&[1, 1, 3], vec![1.0, 2.0, 3.0]);
        let w = Tensor::f32(&[1, 1, 3], vec![1.0, 0.0, -1.0]);
        let r = Tensor::f32(&[3], vec![0.0, 1.0, 2.0]);
        let y = fused_conv().eval(&[Some(&x), Some(&w), None, Some(&r)]).unwrap();
        assert_eq!(y[0], Tensor::f32(&[1, 1, 3], vec![2.0, 1.0, 4.0]));
        let types = [Some(&x.ty()), Some(&w.ty()), None, Some(&r.ty())].map(|t| t.cloned());
        let types: Vec<Option<&TensorType>> = types.iter().map(Option::as_ref).collect();
        assert_eq!(fused_conv().infer(&types), Ok(vec![x.ty()]));
        assert_eq!(fused_conv().macs(&types, &[x.ty()]), Some(9));
        assert!(fused_conv().infer(&types[..3]).is_err());
        assert!(fused_conv().infer(&types[..2]).is_err());
        assert!(
            fused_conv().infer(&[types[0], types[1], None, Some(&TensorType::fixed(DType::F32, &[4, 1, 3]))]).is_err()
        );
        assert!(fused_conv().infer(&[types[0], types[1], None, Some(&TensorType::fixed(DType::F64, &[3]))]).is_err());
    }

    #[test]
    fn text_round_trips() {
        let op = fused_conv();
        let text = op.attributes();
        let fields: Vec<(&str, &str)> = text.iter().map(|(k, v)| (*k, v.as_str())).collect();
        assert_eq!(fields[0].1, "conv(strides=[1],dilations=[1],pads=[1,1],group=1)");
        assert_eq!(Fused::from_attributes(&fields), Ok(op));
        let nested = [("root", "fused(root=none,program={},root_operands=0)"), fields[1], fields[2]];
        assert!(Fused::from_attributes(&nested).is_err());
    }
}
