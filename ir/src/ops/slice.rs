//! `Slice`: every `step`-th element of a range, along each axis.
//!
//! ```text
//! y[i] = x[j]   with  j[a] = starts[a] + i[a] * steps[a],   0 <= i[a] < lens[a]
//! ```
//!
//! ONNX's ends, negative and overlong bounds are resolved by the importer: every element named here exists.
//! Source: ONNX Slice-13.

use crate::batch::{BatchCx, Batched};
use crate::movement::{check_len, check_shape, pick, pick_symbolic, sizes};
use crate::op::{EvalError, Operator, SymTensor, TypeError, operands};
use crate::tensor::strides_of;
use crate::{Dim, GradientCx, GradientError, Tensor, TensorType, operator_attrs, type_err};

operator_attrs! {
    /// `x: T[..] -> T[lens]`, any type.
    pub struct Slice {
        /// The first element taken, per axis.
        pub starts: Vec<Dim>,
        /// The number of elements taken, per axis.
        pub lens: Vec<Dim>,
        /// The distance between elements taken, per axis: not 0, negative to go backwards.
        pub steps: Vec<i64>,
    }
}

impl Slice {
    /// Why the elements taken along `axis` are not all within `whole`, as far as that is known.
    fn check(&self, axis: usize, whole: &Dim) -> Result<(), TypeError> {
        let (start, len, step) = (&self.starts[axis], &self.lens[axis], self.steps[axis]);
        if step == 0 {
            return type_err!("the step of axis {axis} is 0");
        }
        if *len == Dim::Known(0) {
            return Ok(());
        }
        let last = start.add(&len.sub(&Dim::Known(1)).mul(&Dim::Known(step)));
        for at in [start, &last] {
            let before = at.known().is_some_and(|at| at < 0);
            let behind = at.sub(whole).known().is_some_and(|past| past >= 0);
            // With a symbolic length nothing may be taken at all, so that a bound outside is no error yet.
            if (before || behind) && len.known().is_some() {
                return type_err!("axis {axis}: element {at} is outside of the dimension {whole}");
            }
        }
        Ok(())
    }

    /// The source offset of each index, by known starts.
    fn source(&self, x: &[usize]) -> Result<impl Fn(&[usize]) -> usize, TypeError> {
        let strides = strides_of(x);
        let starts: Option<Vec<i64>> = self.starts.iter().map(Dim::known).collect();
        let Some(starts) = starts else { return type_err!("a start is not a known number") };
        let steps = self.steps.clone();
        Ok(move |i: &[usize]| {
            let at = |a: usize| (starts[a] + i[a] as i64 * steps[a]) as usize * strides[a];
            (0..i.len()).map(at).sum()
        })
    }
}

impl Operator for Slice {
    const NAME: &'static str = "slice";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        check_len("starts", self.starts.len(), x.rank())?;
        check_len("lens", self.lens.len(), x.rank())?;
        check_len("steps", self.steps.len(), x.rank())?;
        check_shape(&self.lens)?;
        for (axis, whole) in x.shape.iter().enumerate() {
            self.check(axis, whole)?;
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: self.lens.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        self.infer(&[Some(&x.ty())])?; // symbols that are known by now may not fit
        Ok(vec![pick(x, &sizes(&self.lens)?, self.source(x.dims())?)])
    }

    fn eval_symbolic(&self, inputs: &[Option<&SymTensor>], _: &[Option<&TensorType>]) -> Option<Vec<SymTensor>> {
        let [x] = operands(inputs).ok()?;
        self.infer(&[Some(&x.ty())]).ok()?;
        Some(vec![pick_symbolic(x, &sizes(&self.lens).ok()?, self.source(&x.dims).ok()?)?])
    }

    /// dy in its place among zeros: turned around where a step is negative, spread where steps are longer than 1, then padded.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy) = (cx.operand(0)?, cx.dy()?);
        cx.give(0, |cx| {
            let (dims, starts) = (cx.dims(x), sizes(&self.starts)?);
            let (mut now, mut before, mut after) = (dy, vec![0; dims.len()], vec![0; dims.len()]);
            for axis in 0..dims.len() {
                let mut shape = cx.dims(now);
                let (len, step) = (shape[axis], self.steps[axis].unsigned_abs() as usize);
                let backward = self.steps[axis] < 0;
                if backward && len > 1 {
                    now = cx.slice(now, axis, len - 1, len, true)?;
                }
                let first = if backward { starts[axis] - len.saturating_sub(1) * step } else { starts[axis] };
                if step > 1 && len > 1 {
                    shape.insert(axis + 1, 1);
                    now = cx.reshape(now, &shape)?;
                    let mut zeros = vec![0; shape.len()];
                    let none = zeros.clone();
                    zeros[axis + 1] = step as i64 - 1;
                    now = cx.pad(now, &none, &zeros)?;
                    shape.remove(axis + 1);
                    shape[axis] = len * step;
                    now = cx.reshape(now, &shape)?;
                }
                before[axis] = first as i64;
                after[axis] = dims[axis] as i64 - first as i64 - shape[axis] as i64; // the last spread zeros may be cropped
            }
            cx.pad(now, &before, &after)
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let axis = cx.first_alone()?;
        let whole = cx.ty(0)?.shape.get(axis)? == self.lens.get(axis)?;
        let forward = self.starts.get(axis)?.known() == Some(0) && self.steps.get(axis) == Some(&1);
        let lens = cx.scaled_at(&self.lens, axis).filter(|_| whole && forward)?;
        Some(Batched { op: Some(Slice { lens, ..self.clone() }.into()), ..cx.on(axis) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    fn slice(starts: &[i64], lens: &[i64], steps: &[i64]) -> Slice {
        let dims = |v: &[i64]| v.iter().map(|&n| Dim::Known(n)).collect();
        Slice { starts: dims(starts), lens: dims(lens), steps: steps.to_vec() }
    }

    #[test]
    fn takes_every_other_row_backwards() {
        let x = Tensor::i64(&[3, 2], (0..6).collect());
        let y = slice(&[2, 1], &[2, 1], &[-2, 1]).eval(&[Some(&x)]).unwrap();
        assert_eq!(y[0], Tensor::i64(&[2, 1], vec![5, 1]));
    }

    #[test]
    fn every_element_must_exist() {
        let x = TensorType::fixed(DType::F32, &[5]);
        let why = |s: Slice| s.infer(&[Some(&x)]).unwrap_err().0;
        assert_eq!(why(slice(&[3], &[2], &[2])), "axis 0: element 5 is outside of the dimension 5");
        assert_eq!(why(slice(&[3], &[5], &[-1])), "axis 0: element -1 is outside of the dimension 5");
        assert_eq!(why(slice(&[0], &[1], &[0])), "the step of axis 0 is 0");
        assert!(slice(&[9], &[0], &[1]).infer(&[Some(&x)]).is_ok());
        assert!(why(slice(&[1], &[i64::MAX], &[i64::MAX])).contains("outside"));
    }

    #[test]
    fn symbolic_lengths_are_carried() {
        let n = Dim::symbol("N");
        let x = TensorType::new(DType::F32, [n.clone()]);
        let rest = Slice { starts: vec![Dim::Known(1)], lens: vec![n.sub(&Dim::Known(1))], steps: vec![1] };
        assert_eq!(rest.infer(&[Some(&x)]).unwrap()[0].to_string(), "f32[N-1]");
        let past = Slice { starts: vec![n.clone()], lens: vec![Dim::Known(1)], steps: vec![1] };
        assert_eq!(past.infer(&[Some(&x)]).unwrap_err().0, "axis 0: element N is outside of the dimension N");
    }
}
