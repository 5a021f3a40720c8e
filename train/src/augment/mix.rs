//! Mix-up: each sample of a batch becomes a weighted mean of itself and another, and so does its target.
//!
//! ```text
//! x' = l x + (1 - l) x[other],  y' = l onehot(y) + (1 - l) onehot(y[other]),   l ~ Beta(alpha, alpha), one a batch
//! ```
//!
//! Source: Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018, and its code, where
//! `other` is a random order of the batch.

use nncc_ir::Tensor;
use nncc_ir::philox::Stream;

/// Mixes the inputs in place; gives the mixed targets, f32 `[N, classes]`.
pub fn mix_up(inputs: &mut [f32], targets: &Tensor, classes: usize, alpha: f64, stream: &mut Stream) -> Tensor {
    let labels = targets.to_i64();
    let n = labels.len();
    let share = beta(alpha, stream) as f32;
    let mut other: Vec<usize> = (0..n).collect();
    stream.shuffle(&mut other);
    let width = inputs.len() / n.max(1);
    let old = inputs.to_vec();
    let mut mixed = vec![0.0; n * classes];
    for (i, &j) in other.iter().enumerate() {
        for (x, y) in inputs[i * width..][..width].iter_mut().zip(&old[j * width..][..width]) {
            *x = share * *x + (1.0 - share) * y;
        }
        mixed[i * classes + labels[i] as usize] += share;
        mixed[i * classes + labels[j] as usize] += 1.0 - share;
    }
    Tensor::f32(&[n, classes], mixed)
}

/// A number of Beta(alpha, alpha): of two of Gamma(alpha), the share of one.
fn beta(alpha: f64, stream: &mut Stream) -> f64 {
    let (a, b) = (gamma(alpha, stream), gamma(alpha, stream));
    // A tiny alpha may make both vanish: the distribution is then that of a coin.
    if a + b > 0.0 { a / (a + b) } else { stream.uniform().round() }
}

/// A number of Gamma(shape, 1). Source: Marsaglia and Tsang, "A simple method for generating gamma variables", 2000; for
/// shapes below 1 by their section 6, `Gamma(a) = Gamma(a + 1) u^(1/a)`.
fn gamma(shape: f64, stream: &mut Stream) -> f64 {
    if shape < 1.0 {
        let u = 1.0 - stream.uniform();
        return gamma(shape + 1.0, stream) * u.powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = stream.normal();
        let v = (1.0 + c * x).powi(3);
        let u = 1.0 - stream.uniform();
        if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    #[test]
    fn inputs_and_targets_are_mixed_alike() {
        let labels = Tensor::i64(&[3], vec![0, 2, 1]);
        // Inputs that are their own one-hot targets must stay equal to the targets.
        let mut inputs = vec![1., 0., 0., 0., 0., 1., 0., 1., 0.];
        let mixed = mix_up(&mut inputs, &labels, 3, 0.7, &mut seeds::stream(3, seeds::MIX, 0, 0));
        assert_eq!(mixed, Tensor::f32(&[3, 3], inputs.clone()));
        assert!(inputs.chunks(3).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-6));
        assert!(inputs.iter().any(|&x| x != 0.0 && x != 1.0), "{inputs:?}");
    }

    /// Mean 1/2, variance 1 / (4 (2 alpha + 1)).
    #[test]
    fn beta_has_its_moments() {
        for alpha in [0.2, 1.0, 4.0] {
            let mut stream = seeds::stream(1, seeds::MIX, 0, 0);
            let draws: Vec<f64> = (0..20_000).map(|_| beta(alpha, &mut stream)).collect();
            let mean = draws.iter().sum::<f64>() / 2e4;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2e4;
            let expected = 0.25 / (2.0 * alpha + 1.0);
            assert!((mean - 0.5).abs() < 5.0 * (expected / 2e4).sqrt(), "{alpha}: mean {mean}");
            assert!((variance / expected - 1.0).abs() < 0.05, "{alpha}: variance {variance}");
        }
        assert!((0..50).all(|i| beta(1e-6, &mut seeds::stream(i, 0, 0, 0)).is_finite()));
    }
}
