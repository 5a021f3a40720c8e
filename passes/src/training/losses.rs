//! Losses: a prediction and a target become one number. Definitions and defaults are PyTorch's, reduction is the mean.
//!
//! ```text
//! x     prediction [N, C, d..]          t    class indices i64[N, d..]          q[n,c] = 1 where c = t[n], else 0
//!
//! cross-entropy      logp = log_softmax(x)     a = q (1 - s) + s / C            (s: label smoothing)
//!                    sum keep w a (-logp) / sum keep w q                        (w[c]: class weights; keep[n]: t[n] is not ignored)
//!  ~ of probabilities p: sum w (p (1 - s) + s / C) (-logp) / N                  (target p: [N, C, d..])
//! focal              mean of (1 - p)^g (-log p), p = softmax(x)[t]              (Lin et al. 2017; g = 0 is cross-entropy)
//! hinge              mean over n of sum over c /= t of max(0, margin - x[t] + x[c]) / C       (MultiMarginLoss)
//!
//! targets of x's own shape and type:
//! bce                mean of softplus(x) - x t; with positive weights v: (1 - t) x + (1 + (v - 1) t) softplus(-x)
//! mse                mean of (x - t)^2           l1   mean of |x - t|
//! huber              mean of d^2 / 2 where d = |x - t| <= delta, else delta (d - delta / 2)
//! smooth-l1          huber / beta, delta = beta
//! ```
//!
//! What a class weight or an ignored index takes away from the sum it takes away from its divisor too, so that a batch in
//! which every target is ignored has the loss NaN, as in PyTorch. A target that is no class counts for nothing: whoever
//! reads the data refuses it. Everything is built of operators that have gradients; targets get none.

use super::TrainingError;
use super::emit::{Built, Emit};
use nncc_ir::ops::activation::Softplus;
use nncc_ir::ops::reduce::ReduceKind;
use nncc_ir::ops::softmax::{LogSoftmax, Softmax};
use nncc_ir::pointwise::{BinaryFn, CompareFn, UnaryFn};
use nncc_ir::{DType, Dim, Graph, Tensor, TensorType, ValueId};

/// A loss: see the module.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// Cross-entropy of class indices.
    CrossEntropy {
        /// The share of each target that is spread over all classes.
        label_smoothing: f64,
        /// One a class.
        weights: Option<Vec<f64>>,
        /// A target that counts for nothing.
        ignore_index: Option<i64>,
    },
    /// Cross-entropy of probabilities.
    CrossEntropyOfProbabilities {
        /// The share of each target that is spread over all classes.
        label_smoothing: f64,
        /// One a class.
        weights: Option<Vec<f64>>,
    },
    /// Binary cross-entropy of logits.
    BinaryCrossEntropy {
        /// What a positive target counts, one for each element of the last axes, or one for all.
        positive_weights: Option<Vec<f64>>,
    },
    /// Mean squared error.
    Mse,
    /// Mean absolute error.
    L1,
    /// Squared near 0, absolute from `delta` on.
    Huber {
        /// Where the one becomes the other.
        delta: f64,
    },
    /// Huber's, scaled.
    SmoothL1 {
        /// Where the one becomes the other.
        beta: f64,
    },
    /// Multi-class hinge loss of class indices.
    Hinge {
        /// By how much the right class should lead.
        margin: f64,
    },
    /// Focal loss of class indices.
    Focal {
        /// How much less what is classified well counts.
        gamma: f64,
    },
}

impl Loss {
    /// Cross-entropy with nothing special.
    pub const CROSS_ENTROPY: Loss = Loss::CrossEntropy { label_smoothing: 0.0, weights: None, ignore_index: None };

    /// Whether the target is a class index a sample (a pixel, ...), not a tensor like the prediction.
    pub fn takes_classes(&self) -> bool {
        matches!(self, Loss::CrossEntropy { .. } | Loss::Hinge { .. } | Loss::Focal { .. })
    }

    /// Whether the prediction goes through a softmax over axis 1 inside the loss.
    pub fn has_softmax(&self) -> bool {
        matches!(self, Loss::CrossEntropy { .. } | Loss::CrossEntropyOfProbabilities { .. } | Loss::Focal { .. })
    }

    /// Whether the prediction goes through a sigmoid inside the loss.
    pub fn has_sigmoid(&self) -> bool {
        matches!(self, Loss::BinaryCrossEntropy { .. })
    }

    /// The type of the target for a prediction of this type, or why there is none.
    pub fn target(&self, prediction: &TensorType) -> Result<TensorType, TrainingError> {
        let misfit = |why: &str| Err(TrainingError::Loss(format!("{why}, and the prediction is {prediction}")));
        if !prediction.dtype.is_float() {
            return misfit("a loss compares numbers of type f32 or f64");
        }
        let classes = self.takes_classes() || self.has_softmax();
        if classes && prediction.rank() < 2 {
            return misfit("it needs a prediction [batch, classes, ..]");
        }
        let counted = match self {
            Loss::CrossEntropy { weights, .. } | Loss::CrossEntropyOfProbabilities { weights, .. } => weights.as_ref(),
            _ => None,
        };
        if let Some(w) = counted
            && prediction.shape[1].size() != Some(w.len())
        {
            return misfit(&format!("there are {} class weights", w.len()));
        }
        if let Loss::BinaryCrossEntropy { positive_weights: Some(w) } = self {
            let last = prediction.shape.last().and_then(Dim::size);
            if w.len() != 1 && last != Some(w.len()) {
                return misfit(&format!("there are {} positive weights", w.len()));
            }
        }
        if self.takes_classes() {
            let mut shape = prediction.shape.clone();
            shape.remove(1);
            return Ok(TensorType { dtype: DType::I64, shape });
        }
        Ok(prediction.clone())
    }

    /// Adds the loss of a prediction against a target of the type that [`Loss::target`] says: a scalar.
    pub fn build(&self, graph: &mut Graph, prediction: ValueId, target: ValueId) -> Built {
        let wanted = self.target(graph.ty(prediction))?;
        if *graph.ty(target) != wanted {
            return Err(TrainingError::Loss(format!("the target is {}, not {wanted}", graph.ty(target))));
        }
        let mut b = Emit::new(graph, "loss");
        let b = &mut b;
        match self {
            Loss::CrossEntropy { label_smoothing, weights, ignore_index } => {
                cross_entropy(b, prediction, target, *label_smoothing, weights.as_deref(), *ignore_index)
            }
            Loss::CrossEntropyOfProbabilities { label_smoothing: s, weights } => {
                let classes = b.ty(prediction).shape[1].size().unwrap_or(1) as f64;
                let mut a = b.scale(target, 1.0 - s)?;
                if *s != 0.0 {
                    a = b.with(BinaryFn::Add, a, s / classes)?;
                }
                if let Some(w) = weights {
                    let w = class_vector(b, prediction, w);
                    a = b.mul(a, w)?;
                }
                let sum = weighted_surprise(b, prediction, a)?;
                let samples = samples(b, prediction)?;
                b.scale(sum, 1.0 / samples)
            }
            Loss::Focal { gamma } => {
                let q = one_hot(b, prediction, target)?;
                let p = b.op(Softmax { axis: 1 }, &[prediction])?;
                let rest = b.scale(p, -1.0)?;
                let rest = b.with(BinaryFn::Add, rest, 1.0)?;
                let factor = b.with(BinaryFn::Pow, rest, *gamma)?;
                let weight = b.mul(q, factor)?;
                let sum = weighted_surprise(b, prediction, weight)?;
                let samples = samples(b, prediction)?;
                b.scale(sum, 1.0 / samples)
            }
            Loss::Hinge { margin } => hinge(b, prediction, target, *margin),
            Loss::BinaryCrossEntropy { positive_weights: None } => {
                let plus = b.op(Softplus {}, &[prediction])?;
                let product = b.mul(prediction, target)?;
                let each = b.sub(plus, product)?;
                b.reduce_all(ReduceKind::Mean, each)
            }
            Loss::BinaryCrossEntropy { positive_weights: Some(v) } => {
                let dtype = b.dtype(prediction);
                let less: Vec<f64> = v.iter().map(|v| v - 1.0).collect();
                let less = b.constant(&Tensor::from_f64(dtype, &[v.len()], &less));
                let more = b.mul(target, less)?;
                let factor = b.with(BinaryFn::Add, more, 1.0)?;
                let minus = b.unary(UnaryFn::Neg, prediction)?;
                let plus = b.op(Softplus {}, &[minus])?;
                let right = b.mul(factor, plus)?;
                let rest = b.scale(target, -1.0)?;
                let rest = b.with(BinaryFn::Add, rest, 1.0)?;
                let left = b.mul(rest, prediction)?;
                let each = b.add(left, right)?;
                b.reduce_all(ReduceKind::Mean, each)
            }
            Loss::Mse => {
                let d = b.sub(prediction, target)?;
                let each = b.mul(d, d)?;
                b.reduce_all(ReduceKind::Mean, each)
            }
            Loss::L1 => {
                let d = b.sub(prediction, target)?;
                let each = b.unary(UnaryFn::Abs, d)?;
                b.reduce_all(ReduceKind::Mean, each)
            }
            Loss::Huber { delta } => huber(b, prediction, target, *delta, 1.0),
            // PyTorch defines it as L1 where beta is 0.
            Loss::SmoothL1 { beta } if *beta == 0.0 => Loss::L1.build(b.graph, prediction, target),
            Loss::SmoothL1 { beta } => huber(b, prediction, target, *beta, 1.0 / beta),
        }
    }
}

/// The number of samples: of the batch, times pixels.
fn samples(b: &Emit<'_>, prediction: ValueId) -> Result<f64, TrainingError> {
    let ty = b.ty(prediction);
    let classes = ty.shape[1].size();
    match (ty.elems(), classes) {
        (Some(n), Some(c)) => Ok(n as f64 / c as f64),
        _ => Err(TrainingError::UnknownShape(ty.to_string())),
    }
}

/// A number a class, as it broadcasts to `[N, C, d..]`.
fn class_vector(b: &mut Emit<'_>, prediction: ValueId, numbers: &[f64]) -> ValueId {
    let ty = b.ty(prediction);
    let mut dims = vec![1; ty.rank()];
    dims[1] = numbers.len();
    b.constant(&Tensor::from_f64(ty.dtype, &dims, numbers))
}

/// The targets as `[N, 1, d..]`.
fn column(b: &mut Emit<'_>, target: ValueId) -> Built {
    let mut shape = b.ty(target).shape;
    shape.insert(1, Dim::Known(1));
    b.reshape(target, shape)
}

/// Whether each class of each sample is the target's: bool `[N, C, d..]`.
fn is_target(b: &mut Emit<'_>, prediction: ValueId, target: ValueId) -> Built {
    let ty = b.ty(prediction);
    let classes = ty.shape[1].size().ok_or_else(|| TrainingError::UnknownShape(ty.to_string()))?;
    let mut dims = vec![1; ty.rank()];
    dims[1] = classes;
    let numbers: Vec<i64> = (0..classes as i64).collect();
    let numbers = b.constant(&Tensor::i64(&dims, numbers));
    let column = column(b, target)?;
    b.compare(CompareFn::Eq, numbers, column)
}

/// 1 for the target's class, 0 for the others.
fn one_hot(b: &mut Emit<'_>, prediction: ValueId, target: ValueId) -> Built {
    let is = is_target(b, prediction, target)?;
    b.cast(is, b.dtype(prediction))
}

/// `sum a (-log softmax(x))`.
fn weighted_surprise(b: &mut Emit<'_>, prediction: ValueId, a: ValueId) -> Built {
    let log = b.op(LogSoftmax { axis: 1 }, &[prediction])?;
    let each = b.mul(a, log)?;
    let sum = b.reduce_all(ReduceKind::Sum, each)?;
    b.unary(UnaryFn::Neg, sum)
}

fn cross_entropy(
    b: &mut Emit<'_>,
    prediction: ValueId,
    target: ValueId,
    smoothing: f64,
    weights: Option<&[f64]>,
    ignored: Option<i64>,
) -> Built {
    let ty = b.ty(prediction);
    let classes = ty.shape[1].size().ok_or_else(|| TrainingError::UnknownShape(ty.to_string()))?;
    let mut q = one_hot(b, prediction, target)?;
    let mut even = None; // what each class of each sample counts: keep w
    if let Some(w) = weights {
        let w = class_vector(b, prediction, w);
        q = b.mul(q, w)?;
        even = Some(w);
    }
    if let Some(index) = ignored {
        let index = b.constant(&Tensor::i64(&[], vec![index]));
        let column = column(b, target)?;
        let kept = b.compare(CompareFn::Ne, column, index)?;
        let kept = b.cast(kept, ty.dtype)?;
        q = b.mul(q, kept)?;
        even = Some(match even {
            Some(w) => b.mul(w, kept)?,
            None => kept,
        });
    }
    let mut a = b.scale(q, 1.0 - smoothing)?;
    if smoothing != 0.0 {
        let each = smoothing / classes as f64;
        a = match even {
            Some(even) => {
                let spread = b.scale(even, each)?;
                b.add(a, spread)?
            }
            None => b.with(BinaryFn::Add, a, each)?,
        };
    }
    let sum = weighted_surprise(b, prediction, a)?;
    if even.is_none() {
        let samples = samples(b, prediction)?;
        return b.scale(sum, 1.0 / samples);
    }
    let total = b.reduce_all(ReduceKind::Sum, q)?;
    b.binary(BinaryFn::Div, sum, total)
}

fn hinge(b: &mut Emit<'_>, prediction: ValueId, target: ValueId, margin: f64) -> Built {
    let ty = b.ty(prediction);
    let classes = ty.shape[1].size().ok_or_else(|| TrainingError::UnknownShape(ty.to_string()))?;
    let q = one_hot(b, prediction, target)?;
    let own = b.mul(q, prediction)?;
    let own = b.reduce(ReduceKind::Sum, own, &[1], true)?;
    let lead = b.sub(prediction, own)?;
    let lack = b.with(BinaryFn::Add, lead, margin)?;
    let lack = b.with(BinaryFn::Max, lack, 0.0)?;
    let others = b.scale(q, -1.0)?;
    let others = b.with(BinaryFn::Add, others, 1.0)?;
    let each = b.mul(lack, others)?;
    let sum = b.reduce_all(ReduceKind::Sum, each)?;
    let samples = samples(b, prediction)?;
    b.scale(sum, 1.0 / (samples * classes as f64))
}

/// With `m = min(d, delta)`: `m (d - m / 2)`, which is `d^2 / 2` up to delta and `delta (d - delta / 2)` beyond.
fn huber(b: &mut Emit<'_>, prediction: ValueId, target: ValueId, delta: f64, scale: f64) -> Built {
    let d = b.sub(prediction, target)?;
    let d = b.unary(UnaryFn::Abs, d)?;
    let m = b.with(BinaryFn::Min, d, delta)?;
    let half = b.scale(m, 0.5)?;
    let rest = b.sub(d, half)?;
    let each = b.mul(m, rest)?;
    let mean = b.reduce_all(ReduceKind::Mean, each)?;
    b.scale(mean, scale)
}
