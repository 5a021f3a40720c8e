//! `Trilu`: the upper or lower triangle of matrices, zero elsewhere.
//!
//! ```text
//! upper  y[.., i, j] = x[.., i, j] where j - i >= k        lower  where j - i <= k        0 elsewhere
//! ```
//!
//! Source: ONNX Trilu-14.

use crate::batch::{BatchCx, Batched};
use crate::op::{EvalError, Operator, TypeError, operands};
use crate::{GradientCx, GradientError, Tensor, TensorType, map_data, operator_attrs, type_err};

operator_attrs! {
    /// `x: T[.., rows, columns] -> T[.., rows, columns]`, any type.
    pub struct Trilu {
        /// Whether the upper triangle is kept.
        pub upper: bool,
        /// The diagonal that bounds it: 0 the main one, above it positive.
        pub k: i64,
    }
}

impl Trilu {
    /// Whether the element at (row, column) is kept.
    pub fn keeps(&self, row: usize, column: usize) -> bool {
        let diagonal = column as i64 - row as i64;
        if self.upper { diagonal >= self.k } else { diagonal <= self.k }
    }
}

impl Operator for Trilu {
    const NAME: &'static str = "trilu";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let [x] = operands(inputs)?;
        if x.rank() < 2 { type_err!("takes matrices, not {x}") } else { Ok(vec![x.clone()]) }
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let [x] = operands(inputs)?;
        self.infer(&[Some(&x.ty())])?;
        let [.., rows, columns] = *x.dims() else { return Err(EvalError("takes matrices".into())) };
        let keeps = |n: usize| self.keeps(n / columns % rows, n % columns);
        let data = map_data!(x.data(), v => {
            v.iter().enumerate().map(|(n, &e)| if keeps(n) { e } else { Default::default() }).collect()
        });
        Ok(vec![Tensor::of(x.dims(), data)])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let dy = cx.dy()?;
        cx.give(0, |cx| cx.add(self.clone(), &[dy]))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let rank = cx.ty(0)?.rank();
        cx.where_first(|axis| axis + 2 < rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triangles_of_a_batch() {
        let x = Tensor::i64(&[2, 2, 3], (1..13).collect());
        let run = |upper, k| Trilu { upper, k }.eval(&[Some(&x)]).unwrap()[0].to_i64();
        assert_eq!(run(true, 0), [1, 2, 3, 0, 5, 6, 7, 8, 9, 0, 11, 12]);
        assert_eq!(run(false, -1), [0, 0, 0, 4, 0, 0, 0, 0, 0, 10, 0, 0]);
        assert_eq!(run(true, i64::MAX), [0; 12]);
    }
}
