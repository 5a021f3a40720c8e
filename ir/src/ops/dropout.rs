//! `Dropout` as it trains: elements, or whole channels, set to 0 at random, the others scaled up.
//!
//! ```text
//! y[i] = dropped(e) ? 0 : x[i] / (1 - ratio)         e = i, or with `whole_channels` n * C + c
//! dropped(e)  iff  bits(e) < ratio * 2^24            the 24 bits that are drawn for e, see `drawn`
//! ```
//!
//! The gradient is the same operator applied to dy: what was dropped is drawn again, no mask is kept.
//!
//! Without `random`, as the importer leaves it in a graph that is to be trained, it is the identity: dropout at inference.
//!
//! Sources: Srivastava et al., Dropout, 2014; Tompson et al.,
//! Efficient Object Localization (SpatialDropout), 2015; ONNX Dropout-22, torch.nn.Dropout2d.

use crate::batch::{BatchCx, Batched};
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::drawn::{self, Draws};
use crate::ops::operands::{one_float, operands, tensors};
use crate::{GradientCx, GradientError, Tensor, TensorType, operator_attrs, type_err};

operator_attrs! {
    /// `x: T[..], random: i64[2]? -> T[..]`, T in f32, f64; `random` holds the seed and the number of the step.
    pub struct Dropout {
        /// The probability that an element is dropped, in 0..=1.
        pub ratio: f64,
        /// Whether all elements of a channel (axis 1) share one decision.
        pub whole_channels: bool,
        /// What tells the decisions of one dropout of a network from those of another, below 2^32.
        pub stream: usize,
    }
}

impl Dropout {
    /// An element is dropped if its 24 bits are below this number, which is at most 2^24.
    pub fn threshold(&self) -> u32 {
        (self.ratio * f64::from(1 << 24)).ceil() as u32
    }

    /// What an element is multiplied by that is kept; 0 if none is.
    pub fn factor(&self) -> f64 {
        if self.ratio < 1.0 { 1.0 / (1.0 - self.ratio) } else { 0.0 }
    }
}

impl Operator for Dropout {
    const NAME: &'static str = "dropout";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x], [random]) = operands(inputs)?;
        one_float([x])?;
        drawn::check(random, self.stream)?;
        if !(0.0..=1.0).contains(&self.ratio) {
            return type_err!("the ratio {} is not in 0..=1", self.ratio);
        }
        if self.whole_channels && x.rank() < 2 {
            return type_err!("x of type {x} has no channels");
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let ([x], [random]) = tensors(inputs)?;
        let Some(random) = random else { return Ok(vec![x.clone()]) };
        let draws = Draws::new(random, self.stream)?;
        let plane: usize = if self.whole_channels { x.dims()[2..].iter().product() } else { 1 };
        let kept = |i: usize| draws.bits(i / plane.max(1)) >= self.threshold();
        let y = x.to_f64().into_iter().enumerate().map(|(i, x)| if kept(i) { x * self.factor() } else { 0.0 });
        Ok(vec![Tensor::from_f64(x.dtype(), x.dims(), &y.collect::<Vec<_>>())])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let dy = cx.dy()?;
        match cx.optional(1) {
            Some(random) => cx.give(0, |cx| cx.add(self.clone(), &[dy, random])),
            None => cx.give(0, |_| Ok(dy)),
        }
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis == 0 || !self.whole_channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    fn run(ratio: f64, whole_channels: bool, dims: &[usize], random: [i64; 2]) -> Vec<f64> {
        let x = Tensor::from_f64(DType::F32, dims, &vec![1.0; dims.iter().product()]);
        let op = Dropout { ratio, whole_channels, stream: 3 };
        op.eval(&[Some(&x), Some(&Tensor::i64(&[2], random.to_vec()))]).unwrap()[0].to_f64()
    }

    #[test]
    fn the_share_and_the_mean_are_right() {
        let y = run(0.25, false, &[40_000], [7, 1]);
        let dropped = y.iter().filter(|y| **y == 0.0).count();
        assert!((9_700..10_300).contains(&dropped), "{dropped}"); // 3.5 standard deviations of 87
        assert!(y.iter().all(|y| *y == 0.0 || *y == f64::from(4.0f32 / 3.0)));
        assert!(run(1.0, false, &[9], [7, 1]).iter().all(|y| *y == 0.0));
        assert!(run(0.0, false, &[9], [7, 1]).iter().all(|y| *y == 1.0));
    }

    #[test]
    fn decisions_follow_seed_step_and_index() {
        let y = run(0.5, false, &[64], [7, 1]);
        assert_eq!(y, run(0.5, false, &[4, 16], [7, 1]));
        let (x, op) = (Tensor::f32(&[3], vec![1.0; 3]), Dropout { ratio: 0.5, whole_channels: false, stream: 3 });
        assert_eq!(op.eval(&[Some(&x)]).unwrap()[0], x);
        assert_eq!(y[..9], run(0.5, false, &[9], [7, 1]));
        assert_ne!(y, run(0.5, false, &[64], [8, 1]));
        assert_ne!(y, run(0.5, false, &[64], [7, 1 << 32]));
    }

    #[test]
    fn a_channel_is_dropped_as_a_whole() {
        let (whole, single) = (run(0.5, true, &[3, 5, 2, 3], [7, 1]), run(0.5, false, &[15], [7, 1]));
        assert!(whole.chunks(6).zip(single).all(|(plane, decision)| plane.iter().all(|y| *y == decision)));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (x, random) = (TensorType::fixed(DType::F32, &[3]), TensorType::fixed(DType::I64, &[2]));
        let why = |ratio, whole_channels| {
            Dropout { ratio, whole_channels, stream: 0 }.infer(&[Some(&x), Some(&random)]).unwrap_err().0
        };
        assert_eq!(why(1.5, false), "the ratio 1.5 is not in 0..=1");
        assert_eq!(why(f64::NAN, false), "the ratio NaN is not in 0..=1");
        assert_eq!(why(0.5, true), "x of type f32[3] has no channels");
    }
}
