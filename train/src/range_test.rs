//! The learning-rate range test: the loss over rates that grow from step to step, to see which are too small and which too
//! large.
//!
//! ```text
//! rate_i = from (to / from)^(i / (n - 1))        smooth_i = b smooth_(i-1) + (1 - b) loss_i,  divided by 1 - b^(i+1)
//! ```
//!
//! It ends before `n` where the smoothed loss is four times its least, or no number. The step's state is restored. Source:
//! Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3; smoothing (b = 0.98) and end as in
//! fastai's `LRFinder`.

use crate::loader::Loader;
use crate::seeds;
use crate::step::{Directions, Step};
use crate::trainer::TrainError;

const SMOOTHING: f64 = 0.98;
const DIVERGED: f64 = 4.0;

/// One update of the test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangePoint {
    /// The learning rate.
    pub rate: f64,
    /// The loss of the batch, before the update.
    pub loss: f64,
    /// Smoothed.
    pub smooth: f64,
}

/// Runs the test with `updates` updates from rate `from` to rate `to`.
pub fn range_test(
    step: &mut dyn Step,
    loader: &Loader<'_>,
    (from, to): (f64, f64),
    updates: u32,
) -> Result<Vec<RangePoint>, TrainError> {
    let usable = from > 0.0 && to > from && to.is_finite();
    if !usable || updates < 2 || loader.batches() == 0 {
        let reason =
            format!("a range test from rate {from} to {to} in {updates} updates of {} batches", loader.batches());
        return Err(TrainError::Settings(reason));
    }
    let before = step.state().map_err(TrainError::State)?;
    let result = run(step, loader, (from, to), updates);
    step.set_state(&before).map_err(TrainError::State)?;
    result
}

fn run(
    step: &mut dyn Step,
    loader: &Loader<'_>,
    (from, to): (f64, f64),
    updates: u32,
) -> Result<Vec<RangePoint>, TrainError> {
    let mut points: Vec<RangePoint> = Vec::new();
    let (mut average, mut least) = (0.0, f64::INFINITY);
    for epoch in 0.. {
        let ended = loader.epoch(epoch, 0, |batches| {
            for (number, batch) in batches.enumerate() {
                let batch = batch?;
                let i = points.len() as u32;
                let rate = from * (to / from).powf(f64::from(i) / f64::from(updates - 1));
                let seed = seeds::step(loader.how().seed, epoch, number as u32);
                let directions = Directions { rate: rate as f32, seed, share: 1.0, update: true, watch: false };
                let failed = |source| TrainError::Step { epoch, batch: number as u64, source };
                let loss = step.step(&batch, directions).map_err(failed)?.loss;
                average = SMOOTHING * average + (1.0 - SMOOTHING) * loss;
                let smooth = average / (1.0 - SMOOTHING.powi(i as i32 + 1));
                // NaN is not within either.
                let within = smooth <= DIVERGED * least;
                if !within && i > 0 || !loss.is_finite() {
                    return Ok(true);
                }
                least = least.min(smooth);
                points.push(RangePoint { rate, loss, smooth });
                if i + 1 == updates {
                    return Ok(true);
                }
            }
            Ok::<bool, TrainError>(false)
        })?;
        if ended {
            break;
        }
    }
    Ok(points)
}

/// The rate where the smoothed loss falls most steeply over the logarithm of the rate, before it is least (beyond that the
/// rate is too large, however the loss may swing); none where it does not fall.
pub fn steepest(points: &[RangePoint]) -> Option<f64> {
    let least = (0..points.len()).min_by(|&a, &b| points[a].smooth.total_cmp(&points[b].smooth))?;
    let points = &points[..=least];
    let slope = |p: &[RangePoint]| (p[1].smooth - p[0].smooth) / (p[1].rate / p[0].rate).ln();
    let steepest = points.windows(2).min_by(|a, b| slope(a).total_cmp(&slope(b)))?;
    (slope(steepest) < 0.0).then_some(steepest[1].rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, Targets, Values};
    use crate::loader::Loading;
    use crate::step::testing::Regression;

    /// Two classes that one feature tells apart but for a few samples: small rates do little, huge ones diverge.
    #[test]
    fn the_loss_falls_and_then_explodes() {
        let names = vec!["a".to_string(), "b".into()];
        let of: Vec<u32> = (0..64).map(|i| u32::from(i % 2 == 1)).collect();
        let x = (0..64).map(|i| if (i % 2 == 1) != (i % 9 == 0) { 1.0 } else { -1.0 }).collect();
        let data = InMemory::new("d", vec![1], Values::F32(x), Targets::Classes { of, names }).unwrap();
        let how = Loading { batch_size: 16, shuffle: true, ..Loading::default() };
        let loader = Loader::new(&data, (0..64).collect(), how).unwrap();
        let mut step = Regression::new(1, 2);
        step.weights[0] = 0.25;
        let before = step.clone();
        let points = range_test(&mut step, &loader, (1e-5, 1e5), 200).unwrap();
        assert_eq!(step.weights, before.weights);
        assert!(points.len() < 200, "it ends where the loss explodes");
        assert!((points[0].rate, points[0].smooth) == (1e-5, points[0].loss));
        let least = points.iter().min_by(|a, b| a.smooth.total_cmp(&b.smooth)).unwrap();
        assert!(least.smooth < 0.8 * points[0].smooth && least.rate < points[points.len() - 1].rate, "{least:?}");
        let message = range_test(&mut step, &loader, (1.0, 0.1), 10).unwrap_err().to_string();
        assert_eq!(message, "a range test from rate 1 to 0.1 in 10 updates of 4 batches");
    }

    #[test]
    fn the_steepest_fall_is_before_the_least() {
        let curve = |smooth: &[f64]| -> Vec<RangePoint> {
            let point = |(i, &smooth): (usize, &f64)| RangePoint { rate: 10f64.powi(i as i32), loss: smooth, smooth };
            smooth.iter().enumerate().map(point).collect()
        };
        assert_eq!(steepest(&curve(&[1.0, 0.9, 0.5, 0.4, 3.0, 1.0])), Some(100.0));
        assert_eq!(steepest(&curve(&[1.0, 2.0, 3.0, 1.5])), None);
        assert_eq!(steepest(&curve(&[1.0])), None);
        assert_eq!(steepest(&[]), None);
    }
}
