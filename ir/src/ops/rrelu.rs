//! `RRelu`: a leaky ReLU whose slope is drawn for each element while it trains.
//!
//! ```text
//! y[i] = x[i] <= 0 ? slope(i) * v[i] : v[i]                v = x if it is not given
//! slope(i) = lower + (upper - lower) * bits(i) / 2^24      uniform in [lower, upper), see `drawn`
//! ```
//!
//! The gradient is the same operator, with dy as v: its slopes are drawn again, none is stored. At 0 it has the slope of the
//! left half, as PyTorch's. Without `random`, as the importer leaves it in a graph that is to be trained, the slope is the mean
//! `(lower + upper) / 2`: evaluation.
//!
//! Sources: Xu et al., Empirical Evaluation of Rectified Activations in Convolutional Network, 2015; torch.nn.RReLU.

use crate::batch::{BatchCx, Batched};
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::drawn::{self, Draws};
use crate::ops::operands::{one_float, operands, tensors};
use crate::pointwise::{BinaryFn, CompareFn};
use crate::{GradientCx, GradientError, Tensor, TensorType, operator_attrs, type_err};

operator_attrs! {
    /// `x: T[..], random: i64[2]?, v: T[..]? -> T[..]`, T in f32, f64; `random` holds the seed and the number of the step.
    pub struct RRelu {
        /// The least slope.
        pub lower: f64,
        /// The slope that all are below.
        pub upper: f64,
        /// What tells the slopes of one operator of a network from those of another, below 2^32.
        pub stream: usize,
    }
}

impl RRelu {
    /// The slope in evaluation.
    pub fn mean(&self) -> f64 {
        (self.lower + self.upper) / 2.0
    }
}

impl Operator for RRelu {
    const NAME: &'static str = "rrelu";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x], [random, v]) = operands(inputs)?;
        one_float([x].into_iter().chain(v))?;
        drawn::check(random, self.stream)?;
        if let Some(v) = v.filter(|v| *v != x) {
            return type_err!("x of type {x} decides for {v}");
        }
        if v.is_some() && random.is_none() {
            return type_err!("v without seed and step");
        }
        if !(self.lower <= self.upper && self.lower.is_finite() && self.upper.is_finite()) {
            return type_err!("the slopes {}..{} are no interval", self.lower, self.upper);
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let ([x], [random, v]) = tensors(inputs)?;
        let draws = random.map(|random| Draws::new(random, self.stream)).transpose()?;
        let slope = |i: usize| match &draws {
            Some(draws) => self.lower + (self.upper - self.lower) * f64::from(draws.bits(i)) / f64::from(1 << 24),
            None => self.mean(),
        };
        let (xs, vs) = (x.to_f64(), v.unwrap_or(x).to_f64());
        let y = xs.iter().zip(vs).enumerate().map(|(i, (x, v))| if *x <= 0.0 { slope(i) * v } else { v });
        Ok(vec![Tensor::from_f64(x.dtype(), x.dims(), &y.collect::<Vec<_>>())])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy) = (cx.operand(0)?, cx.dy()?);
        let Some(random) = cx.optional(1) else {
            return cx.give(0, |cx| {
                cx.pointwise(&[x, dy], |p, v| {
                    let (zero, scaled) =
                        (p.constant(p.type_of(v[0]), 0.0), p.binary_const(BinaryFn::Mul, v[1], self.mean()));
                    let left = p.compare(CompareFn::Le, v[0], zero);
                    p.select(left, scaled, v[1])
                })
            });
        };
        // Where v is given, x only decides: its gradient is 0 between jumps.
        let multiplied = if cx.optional(2).is_some() { 2 } else { 0 };
        cx.give(multiplied, |cx| cx.add(self.clone(), &[x, random, dy]))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    const OP: RRelu = RRelu { lower: 0.125, upper: 1.0 / 3.0, stream: 3 };

    fn run(x: &Tensor, random: Option<[i64; 2]>, v: Option<&Tensor>) -> Vec<f64> {
        let random = random.map(|r| Tensor::i64(&[2], r.to_vec()));
        OP.eval(&[Some(x), random.as_ref(), v]).unwrap()[0].to_f64()
    }

    /// Of 40 000 slopes: each of 16 equal parts of the interval has its 2500, up to 4.1 standard deviations of 48.4.
    #[test]
    fn slopes_are_uniform() {
        let slopes = run(&Tensor::from_f64(DType::F64, &[40_000], &[-1.0; 40_000]), Some([7, 1]), None);
        let mut parts = [0; 16];
        for s in slopes {
            let at = (-s - OP.lower) / (OP.upper - OP.lower);
            assert!((0.0..1.0).contains(&at), "{s}");
            parts[(at * 16.0) as usize] += 1;
        }
        assert!(parts.iter().all(|n| (2300..2700).contains(n)), "{parts:?}");
    }

    #[test]
    fn what_is_positive_or_nan_passes() {
        let x = Tensor::f32(&[4], vec![2.0, f32::NAN, f32::INFINITY, 0.0]);
        for random in [None, Some([7, 1])] {
            let y = run(&x, random, None);
            assert!(y[0] == 2.0 && y[1].is_nan() && y[2] == f64::INFINITY && y[3] == 0.0, "{y:?}");
        }
    }

    #[test]
    fn evaluation_has_the_mean_slope() {
        let x = Tensor::from_f64(DType::F64, &[2], &[-48.0, 48.0]);
        assert_eq!(run(&x, None, None), [-11.0, 48.0]);
    }

    #[test]
    fn slopes_follow_seed_step_and_index_and_are_drawn_again() {
        let x = Tensor::f32(&[64], vec![-1.0; 64]);
        let y = run(&x, Some([7, 1]), None);
        assert_eq!(y[..9], run(&Tensor::f32(&[9], vec![-1.0; 9]), Some([7, 1]), None));
        assert_ne!(y, run(&x, Some([8, 1]), None));
        assert_ne!(y, run(&x, Some([7, 1 << 32]), None));
        let v = Tensor::f32(&[64], vec![1.0; 64]);
        assert!(run(&x, Some([7, 1]), Some(&v)).iter().zip(&y).all(|(v, y)| *v == -*y));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let x = TensorType::fixed(DType::F32, &[3]);
        let random = TensorType::fixed(DType::I64, &[2]);
        let why = |lower, upper, v: Option<&TensorType>, random| {
            RRelu { lower, upper, stream: 0 }.infer(&[Some(&x), random, v]).unwrap_err().0
        };
        assert_eq!(why(0.5, 0.25, None, None), "the slopes 0.5..0.25 are no interval");
        assert_eq!(why(0.1, 0.2, Some(&x), None), "v without seed and step");
        let other = TensorType::fixed(DType::F32, &[4]);
        assert_eq!(why(0.1, 0.2, Some(&other), Some(&random)), "x of type f32[3] decides for f32[4]");
        assert_eq!(why(0.1, 0.2, None, Some(&x)), "seed and step are f32, not i64");
    }
}
