//! Classification losses, written out as their ONNX functions are: gather the log-probability of each target, weight it, reduce.
//!
//! ```text
//! loss[n, d..] = -logp[n, target[n, d..], d..] * w[n, d..]      w = weight[target], 1 without weights, 0 where ignored
//! mean         = sum(loss) / sum(w)
//! ```

use super::Entry;
use crate::build::Stop;
use crate::node::NodeCx;
use crate::value::Val;
use nncc_ir::ops::gather::{Gather, GatherElements};
use nncc_ir::ops::reduce::{Reduce, ReduceKind};
use nncc_ir::ops::reshape::Reshape;
use nncc_ir::ops::softmax::LogSoftmax;
use nncc_ir::pointwise::{BinaryFn, CompareFn, UnaryFn};
use nncc_ir::{Dim, Tensor};

pub(super) const OPS: &[Entry] = &[
    Entry::new("NegativeLogLikelihoodLoss", &[12, 13, 22], |n| {
        let (input, target, weight) = (n.operand(0, "input")?, n.operand(1, "target")?, n.optional(2));
        Ok(vec![likelihood(n, &input, &target, weight.as_ref())?])
    }),
    Entry::new("SoftmaxCrossEntropyLoss", &[12, 13], |n| {
        let (scores, labels, weights) = (n.operand(0, "scores")?, n.operand(1, "labels")?, n.optional(2));
        if n.rank(&scores) < 2 {
            return n.invalid("the scores have no axis of classes");
        }
        let log_prob = n.emit(LogSoftmax { axis: 1 }, &[&scores])?;
        let loss = likelihood(n, &log_prob, &labels, weights.as_ref())?;
        Ok(vec![loss, log_prob])
    }),
];

/// How the losses of samples become one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reduction {
    None,
    Sum,
    Mean,
}

fn likelihood(n: &mut NodeCx<'_>, logp: &Val, target: &Val, weight: Option<&Val>) -> Result<Val, Stop> {
    let words = [("none", Reduction::None), ("sum", Reduction::Sum), ("mean", Reduction::Mean)];
    let reduction = n.choice("reduction", "mean", &words)?;
    let dtype = n.dtype(logp);
    let shape = n.shape(target);
    if n.rank(logp) != shape.len() + 1 || shape.is_empty() {
        return n.invalid(format!("targets of rank {} for probabilities of rank {}", shape.len(), n.rank(logp)));
    }
    // Ignored targets may be no class at all: they read class 0 and weigh nothing.
    let (mut target, mut ignored) = (target.clone(), None);
    if let Some(class) = n.maybe_int("ignore_index")? {
        let class = Tensor::from_i64(n.dtype(&target), &[], &[class]);
        let class = n.constant(&class);
        let is = n.compare(CompareFn::Eq, &target, &class)?;
        let zero = n.scalar(n.dtype(&target), 0.0);
        target = n.select(&is, &zero, &target)?;
        ignored = Some(is);
    }
    let mut column = shape.clone();
    column.insert(1, Dim::Known(1));
    let index = n.emit(Reshape { shape: column }, &[&target])?;
    let gathered = n.emit(GatherElements { axis: 1 }, &[logp, &index])?;
    let gathered = n.emit(Reshape { shape: shape.clone() }, &[&gathered])?;
    let mut loss = n.unary(UnaryFn::Neg, &gathered)?;
    let mut w = match weight {
        Some(weight) => Some(n.emit(Gather { axis: 0 }, &[weight, &target])?),
        None => None,
    };
    if let Some(ignored) = &ignored {
        let (zero, one) = (n.scalar(dtype, 0.0), n.scalar(dtype, 1.0));
        w = Some(n.select(ignored, &zero, w.as_ref().unwrap_or(&one))?);
    }
    if let Some(w) = &w {
        loss = n.binary(BinaryFn::Mul, &loss, w)?;
    }
    let axes: Vec<usize> = (0..shape.len()).collect();
    let over_all = |kind| Reduce { kind, axes: axes.clone(), keepdims: false };
    match (reduction, &w) {
        (Reduction::None, _) => Ok(loss),
        (Reduction::Sum, _) => n.emit(over_all(ReduceKind::Sum), &[&loss]),
        (Reduction::Mean, None) => n.emit(over_all(ReduceKind::Mean), &[&loss]),
        (Reduction::Mean, Some(w)) => {
            let (sum, total) = (n.emit(over_all(ReduceKind::Sum), &[&loss])?, n.emit(over_all(ReduceKind::Sum), &[w])?);
            n.binary(BinaryFn::Div, &sum, &total)
        }
    }
}
