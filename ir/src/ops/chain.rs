//! Operators of which each reads the result of the one before, as one node: what is computed band by band.
//!
//! ```text
//! %e = fused %x, @u, @a, root=conv(..), ..        %y = chain %x, @u, @a, @v, @b,
//! %y = conv %e, @v, @b, ..                  =>         links=[fused(root=conv(..),..),conv(..)], operands=[3,2]
//! ```
//!
//! Operands are those of the first operator, then of each further one those behind its operand 0, which is the result of the
//! operator before it (missing ones included). Every operator has one result. What it means is what its operators mean, one
//! after the other; that the results between them never are in memory as a whole is for code generation, which makes these
//! nodes: no model file has them.

use crate::attr::AttrValue;
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::fused::op_from_text;
use crate::{Op, Tensor, TensorType, operator_attrs, type_err};

/// One operator of a chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Link(pub Op);

operator_attrs! {
    /// See the [module](self).
    pub struct Chain {
        /// The operators, in order.
        pub links: Vec<Link>,
        /// How many of the operands belong to each of them.
        pub operands: Vec<usize>,
    }
}

impl AttrValue for Link {
    fn write(&self) -> String {
        crate::ops::fused::op_to_text(&self.0)
    }

    fn read(text: &str) -> Result<Link, String> {
        op_from_text(text, &[Chain::NAME]).map(Link) // not in itself: also bounds the recursion
    }
}

impl Chain {
    /// The operands of each operator, without what it takes from the one before.
    pub fn split<'a, T>(&self, operands: &'a [T]) -> Option<Vec<&'a [T]>> {
        let mut rest = operands;
        let mut parts = Vec::with_capacity(self.links.len());
        for &count in &self.operands {
            let (own, behind) = rest.split_at_checked(count)?;
            parts.push(own);
            rest = behind;
        }
        (rest.is_empty() && parts.len() == self.links.len()).then_some(parts)
    }

    /// The type of the result of each operator.
    pub fn types(&self, operands: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let Some(parts) = self.split(operands) else {
            return type_err!(
                "{} operators with {:?} operands, {} are given",
                self.links.len(),
                self.operands,
                operands.len()
            );
        };
        let mut types: Vec<TensorType> = Vec::with_capacity(parts.len());
        for (Link(op), own) in self.links.iter().zip(parts) {
            if matches!(op, Op::Chain(_) | Op::Input | Op::Constant(_)) {
                return type_err!("{} cannot be in a chain", op.name());
            }
            let inputs: Vec<Option<&TensorType>> =
                types.last().map(Some).into_iter().chain(own.iter().copied()).collect();
            let mut outputs = op.infer(&inputs).map_err(|e| TypeError(format!("{}: {e}", op.name())))?;
            match (outputs.pop(), outputs.len()) {
                (Some(t), 0) => types.push(t),
                (_, n) => return type_err!("{} has {} outputs, not one", op.name(), n + 1),
            }
        }
        Ok(types)
    }
}

impl Operator for Chain {
    const NAME: &'static str = "chain";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        match self.types(inputs)?.pop() {
            Some(t) => Ok(vec![t]),
            None => type_err!("a chain of no operators"),
        }
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let missing = || EvalError("operands are missing".into());
        let mut value: Option<Tensor> = None;
        for (Link(op), own) in self.links.iter().zip(self.split(inputs).ok_or_else(missing)?) {
            let operands: Vec<Option<&Tensor>> =
                value.as_ref().map(Some).into_iter().chain(own.iter().copied()).collect();
            value = Some(op.eval(&operands)?.into_iter().next().ok_or_else(missing)?);
        }
        Ok(vec![value.ok_or_else(missing)?])
    }

    fn macs(&self, inputs: &[Option<&TensorType>], _: &[TensorType]) -> Option<u64> {
        let types = self.types(inputs).ok()?;
        let mut sum = 0u64;
        for (i, (Link(op), own)) in self.links.iter().zip(self.split(inputs)?).enumerate() {
            let before = i.checked_sub(1).map(|i| Some(&types[i]));
            let operands: Vec<Option<&TensorType>> = before.into_iter().chain(own.iter().copied()).collect();
            sum = op.macs(&operands, &types[i..=i]).unwrap_or(0).saturating_add(sum);
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::attr::Attributes;
    use crate::ops::conv::Conv;
    use crate::ops::fused::Fused;
    use crate::ops::pool::MaxPool;
    use crate::pointwise::UnaryFn;
    use crate::{Pointwise, parse};

    fn chain() -> Chain {
        let conv = Conv { strides: vec![1], dilations: vec![1], pads: vec![1, 1], group: 1 };
        let program = Pointwise::build(&[DType::F32], |p, x| p.unary(UnaryFn::Abs, x[0]));
        let pool = MaxPool {
            kernel: vec![2],
            strides: vec![2],
            dilations: vec![1],
            pads: vec![0, 0],
            ceil_mode: false,
            indices: false,
            storage_order: 0,
        };
        let fused = Fused { root: Some(Box::new(conv.into())), program, root_operands: 2 };
        Chain { links: vec![Link(fused.into()), Link(pool.into())], operands: vec![2, 0] }
    }

    #[test]
    fn each_reads_the_one_before() {
        let (x, w) = (Tensor::f32(&[1, 1, 4], vec![1.0, 2.0, 3.0, 5.0]), Tensor::f32(&[1, 1, 3], vec![1.0, 0.0, -1.0]));
        let y = chain().eval(&[Some(&x), Some(&w)]).unwrap();
        assert_eq!(y[0], Tensor::f32(&[1, 1, 2], vec![2.0, 3.0]));
        assert_eq!(chain().infer(&[Some(&x.ty()), Some(&w.ty())]), Ok(vec![y[0].ty()]));
        assert_eq!(chain().macs(&[Some(&x.ty()), Some(&w.ty())], &[y[0].ty()]), Some(12));
        assert!(chain().infer(&[Some(&x.ty())]).is_err());
        assert!(chain().infer(&[Some(&x.ty()), Some(&w.ty()), None]).is_err());
        assert!(Chain { links: vec![], operands: vec![] }.infer(&[]).is_err());
    }

    #[test]
    fn text_round_trips() {
        let text = chain().attributes();
        let fields: Vec<(&str, &str)> = text.iter().map(|(k, v)| (*k, v.as_str())).collect();
        assert_eq!(Chain::from_attributes(&fields), Ok(chain()));
        assert!(Link::read("chain(links=[],operands=[])").is_err());
        assert!(
            parse::graph("graph g(%x: f32[1]) {\n %y = chain %x, links=[relu()], operands=[1]\n return %y\n}").is_ok()
        );
    }
}
