//! `Pad`: elements added around a tensor, or cropped from it.
//!
//! ```text
//! x cropped by the negative amounts, one axis:   a b c d            before = 3, after = 2
//! constant   v v v a b c d v v                   v = the value
//! edge       a a a a b c d d d
//! reflect    d c b a b c d c b                   mirrored about the outermost elements, again and again when it takes more
//! wrap       b c d a b c d a b
//! ```
//!
//! Negative amounts are applied first, on every axis, so that no mode reads what was cropped. Source: ONNX Pad-21, whose
//! modes are numpy's; reflections longer than the axis go to and fro, as `numpy.pad` has them.

use crate::batch::{BatchCx, Batched};
use crate::movement::{check_len, offset, sizes};
use crate::op::{EvalError, Operator, SymTensor, TypeError};
use crate::ops::reduce::ReduceKind;
use crate::pointwise::BinaryFn;
use crate::tensor::{indices, strides_of};
use crate::{
    Dim, GradientCx, GradientError, Tensor, TensorType, ValueId, attr_enum, map_data, operator_attrs, type_err,
};

attr_enum! {
    /// What the added elements are.
    pub enum PadMode {
        /// One value.
        Constant = "constant",
        /// The nearest element.
        Edge = "edge",
        /// Elements mirrored about the outermost one.
        Reflect = "reflect",
        /// Elements as if the tensor were repeated.
        Wrap = "wrap",
    }
}

operator_attrs! {
    /// `x: T[d..], value: T[] or T[1]? -> T[before + d + after..]`, any type.
    pub struct Pad {
        /// Elements added before the first one, per axis; negative: cropped.
        pub before: Vec<i64>,
        /// Elements added behind the last one, per axis; negative: cropped.
        pub after: Vec<i64>,
        /// What is added.
        pub mode: PadMode,
        /// The added value of mode constant where there is no second operand; converted to T.
        pub value: f64,
    }
}

impl PadMode {
    /// The element of an axis of `n > 0` that stands at position `at`, counted from the first; `None` for the value.
    pub fn source(self, at: i64, n: i64) -> Option<i64> {
        if (0..n).contains(&at) {
            return Some(at);
        }
        match self {
            PadMode::Constant => None,
            PadMode::Edge => Some(at.clamp(0, n - 1)),
            PadMode::Wrap => Some(at.rem_euclid(n)),
            PadMode::Reflect if n == 1 => Some(0),
            PadMode::Reflect => {
                let period = 2 * (n - 1);
                let r = at.rem_euclid(period);
                Some(r.min(period - r))
            }
        }
    }
}

impl Pad {
    /// What is left of an axis after cropping: where it begins and how long it is.
    pub fn cropped(&self, axis: usize, n: i64) -> (i64, i64) {
        let (before, after) = (self.before[axis].min(0), self.after[axis].min(0));
        (before.saturating_neg(), n.saturating_add(before).saturating_add(after))
    }

    /// The source offset of each result element, `None` for the value.
    fn sources(&self, x: &[usize], y: &[usize]) -> Vec<Option<usize>> {
        let strides = strides_of(x);
        // One table an axis: position in the result -> position in the operand.
        let axis_table = |a: usize| -> Vec<Option<usize>> {
            let (begin, n) = self.cropped(a, x[a] as i64);
            let at = |i: usize| self.mode.source(i as i64 - self.before[a].max(0), n).map(|s| (begin + s) as usize);
            (0..y[a]).map(at).collect()
        };
        let tables: Vec<_> = (0..y.len()).map(axis_table).collect();
        let source = |i: Vec<usize>| {
            let at: Option<Vec<usize>> = i.iter().zip(&tables).map(|(&i, t)| t[i]).collect();
            at.map(|at| offset(&at, &strides))
        };
        indices(y).map(source).collect()
    }
}

/// Neighbouring positions of a padded axis that read the operand in one way.
struct Run {
    /// The first position.
    at: usize,
    len: usize,
    /// What it reads.
    source: i64,
    /// By how much the source moves from one position to the next: 1, -1, or 0.
    step: i64,
}

impl Pad {
    /// The runs of an axis of `n` elements (after cropping) that becomes `len` long.
    fn runs(&self, axis: usize, n: i64, len: usize) -> Vec<Run> {
        let source = |i: usize| self.mode.source(i as i64 - self.before[axis].max(0), n).unwrap_or(0);
        let mut runs: Vec<Run> = Vec::new();
        for i in 0..len {
            let s = source(i);
            match runs.last_mut() {
                Some(r) if r.len == 1 && (s - r.source).abs() <= 1 => (r.len, r.step) = (2, s - r.source),
                Some(r) if r.len > 1 && s == r.source + r.step * r.len as i64 => r.len += 1,
                _ => runs.push(Run { at: i, len: 1, source: s, step: 1 }),
            }
        }
        runs
    }

    /// The gradient of repeating the outermost elements, along one axis: every run of dy, added where it was read.
    fn fold_axis(&self, cx: &mut GradientCx<'_>, dy: ValueId, axis: usize, n: usize) -> Result<ValueId, GradientError> {
        let dims = cx.dims(dy);
        let mut sum: Option<ValueId> = None;
        for run in self.runs(axis, n as i64, dims[axis]) {
            let (part, first, len) = match run.step {
                0 => {
                    let part = cx.slice(dy, axis, run.at, run.len, false)?;
                    (cx.reduce(ReduceKind::Sum, part, &[axis], true)?, run.source, 1)
                }
                1 => (cx.slice(dy, axis, run.at, run.len, false)?, run.source, run.len),
                _ => {
                    let last = run.at + run.len - 1;
                    (cx.slice(dy, axis, last, run.len, true)?, run.source - run.len as i64 + 1, run.len)
                }
            };
            let (mut before, mut after) = (vec![0; dims.len()], vec![0; dims.len()]);
            (before[axis], after[axis]) = (first, n as i64 - first - len as i64);
            let part = cx.pad(part, &before, &after)?;
            sum = Some(match sum {
                Some(sum) => cx.binary(BinaryFn::Add, sum, part)?,
                None => part,
            });
        }
        Ok(sum.unwrap_or(dy))
    }
}

impl Operator for Pad {
    const NAME: &'static str = "pad";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let (x, value) = match *inputs {
            [Some(x)] | [Some(x), None] => (x, None),
            [Some(x), Some(v)] => (x, Some(v)),
            _ => return type_err!("takes an operand and perhaps a value, {} are given", inputs.len()),
        };
        check_len("before", self.before.len(), x.rank())?;
        check_len("after", self.after.len(), x.rank())?;
        if let Some(v) = value {
            if v.dtype != x.dtype {
                return type_err!("the value is {}, the operand {}", v.dtype, x.dtype);
            }
            if v.rank() > 1 || v.elems().is_some_and(|n| n != 1) {
                return type_err!("the value is {v}, not one element");
            }
        }
        let mut y = x.clone();
        for (axis, d) in y.shape.iter_mut().enumerate() {
            let (before, after) = (self.before[axis], self.after[axis]);
            if let Some(n) = d.known() {
                let left = self.cropped(axis, n).1;
                if left < 0 {
                    return type_err!("axis {axis} of {n} elements is cropped by {before} and {after}");
                }
                if left == 0 && self.mode != PadMode::Constant && (before > 0 || after > 0) {
                    return type_err!("axis {axis} has no element to pad with in mode {:?}", self.mode);
                }
            }
            *d = d.add(&Dim::Known(before)).add(&Dim::Known(after));
        }
        Ok(vec![y])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let Some(x) = inputs.first().copied().flatten() else { return Err(EvalError("the operand is absent".into())) };
        let y = self.infer(&[Some(&x.ty())])?.remove(0);
        let dims = sizes(&y.shape)?;
        let value = match inputs.get(1).copied().flatten() {
            Some(v) => v.clone(),
            None => Tensor::from_f64(x.dtype(), &[1], &[self.value]),
        };
        // The value joins the operand as its last element, so that one generic body serves every type.
        let bytes = [x.to_bytes(), value.to_bytes()].concat();
        let both = Tensor::from_bytes(x.dtype(), &[x.elems() + 1], &bytes);
        let both = both.ok_or_else(|| EvalError("the value is not one element of the operand's type".into()))?;
        let at = self.sources(x.dims(), &dims);
        let data = map_data!(both.data(), v => at.iter().map(|s| v[s.unwrap_or(x.elems())]).collect());
        Ok(vec![Tensor::of(&dims, data)])
    }

    /// What was added is cropped and what was cropped gets zeros; what repeats elements is added to them, axis by axis. The value
    /// gets what no element gets.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy) = (cx.operand(0)?, cx.dy()?);
        let dims = cx.dims(x);
        let negated = |amounts: &[i64], keep: fn(i64) -> bool| -> Vec<i64> {
            amounts.iter().map(|&p| if keep(p) { -p } else { 0 }).collect()
        };
        let (cut_before, cut_after) = (negated(&self.before, |p| p > 0), negated(&self.after, |p| p > 0));
        let mut inner = dy;
        if self.mode == PadMode::Constant {
            inner = cx.pad(dy, &cut_before, &cut_after)?;
        } else if cx.wants(0) && dims.iter().all(|&d| d > 0) {
            for axis in (0..dims.len()).filter(|&a| self.before[a] > 0 || self.after[a] > 0) {
                inner = self.fold_axis(cx, inner, axis, self.cropped(axis, dims[axis] as i64).1 as usize)?;
            }
        }
        cx.give(0, |cx| cx.pad(inner, &negated(&self.before, |p| p < 0), &negated(&self.after, |p| p < 0)))?;
        cx.give(1, |cx| {
            let axes: Vec<usize> = (0..dims.len()).collect();
            let all = cx.reduce(ReduceKind::Sum, dy, &axes, false)?;
            let kept = cx.reduce(ReduceKind::Sum, inner, &axes, false)?;
            let rest = cx.binary(BinaryFn::Sub, all, kept)?;
            let value = cx.operand(1)?;
            cx.reshape(rest, &cx.dims(value))
        })
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let x = inputs.first().copied().flatten()?;
        let value = match inputs.get(1) {
            None => Some(Dim::Known(self.value as i64)),
            Some(v) => v.and_then(|v| v.elems.first().cloned()),
        };
        let y = self.infer(&[Some(&x.ty())]).ok()?.remove(0);
        if y.elems()? > crate::movement::MAX_SYMBOLIC {
            return None;
        }
        let dims = y.dims()?;
        let at = self.sources(&x.dims, &dims);
        let elems = at.iter().map(|s| s.map_or(value.clone(), |s| Some(x.elems[s].clone())));
        Some(vec![SymTensor { elems: elems.collect::<Option<_>>()?, dims }])
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| self.before.get(axis) == Some(&0) && self.after.get(axis) == Some(&0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pad(n: i64, before: i64, after: i64, mode: PadMode) -> Vec<i64> {
        let op = Pad { before: vec![before], after: vec![after], mode, value: -1.0 };
        let x = Tensor::i64(&[n as usize], (0..n).collect());
        op.eval(&[Some(&x)]).unwrap()[0].to_i64()
    }

    #[test]
    fn modes_are_numpys() {
        // numpy.pad(numpy.arange(3), (4, 5), mode)
        assert_eq!(pad(3, 4, 5, PadMode::Constant), [-1, -1, -1, -1, 0, 1, 2, -1, -1, -1, -1, -1]);
        assert_eq!(pad(3, 4, 5, PadMode::Edge), [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2]);
        assert_eq!(pad(3, 4, 5, PadMode::Reflect), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]);
        assert_eq!(pad(3, 4, 5, PadMode::Wrap), [2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]);
        assert_eq!(pad(1, 2, 1, PadMode::Reflect), [0, 0, 0, 0]);
    }

    #[test]
    fn cropping_comes_first() {
        assert_eq!(pad(5, -2, 1, PadMode::Constant), [2, 3, 4, -1]);
        assert_eq!(pad(4, -1, 4, PadMode::Reflect), [1, 2, 3, 2, 1, 2, 3]);
        assert_eq!(pad(4, -2, -2, PadMode::Edge), [0i64; 0]);
    }

    #[test]
    fn an_operand_overrides_the_value() {
        let x = Tensor::i64(&[1, 1], vec![7]);
        let op = Pad { before: vec![1, 0], after: vec![0, 1], mode: PadMode::Constant, value: 0.0 };
        let v = Tensor::i64(&[], vec![i64::MAX]);
        let y = op.eval(&[Some(&x), Some(&v)]).unwrap();
        assert_eq!(y[0], Tensor::i64(&[2, 2], vec![i64::MAX, i64::MAX, 7, i64::MAX]));
    }

    #[test]
    fn impossible_amounts_are_refused() {
        let x = TensorType::fixed(crate::DType::F32, &[2]);
        let why = |before, after, mode| {
            let op = Pad { before: vec![before], after: vec![after], mode, value: 0.0 };
            op.infer(&[Some(&x)]).unwrap_err().0
        };
        assert_eq!(why(-1, -2, PadMode::Constant), "axis 0 of 2 elements is cropped by -1 and -2");
        assert_eq!(why(-2, 1, PadMode::Edge), "axis 0 has no element to pad with in mode Edge");
        assert!(why(i64::MIN, i64::MIN, PadMode::Constant).contains("cropped"));
    }
}
