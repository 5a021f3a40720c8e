//! Colours: brightness, contrast, saturation, hue, value; and fancy PCA.
//!
//! Definitions are those of torchvision (`adjust_brightness` and so on), applied in this order rather than in a random one:
//!
//! ```text
//! brightness    f x                          contrast    f x + (1 - f) mean(gray)
//! saturation    f x + (1 - f) gray           hue, value  in HSV: h + f turns, v times f
//! gray = 0.2989 r + 0.587 g + 0.114 b        results are clamped to black and white
//! ```
//!
//! Fancy PCA adds to each pixel of a picture the same multiple of the principal components of the colours of all data,
//! `sum a_i lambda_i p_i` times white with `a_i` normal, lambda and p those of the covariance of colours whose white is 1. Source:
//! Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012, section 4.1.

use super::{Augment, Picture, factor};
use crate::data::{DataError, Dataset};
use nncc_ir::philox::Stream;

/// The changes that are switched on, but for fancy PCA.
pub fn apply(a: &Augment, picture: &mut Picture<'_>, white: f32, stream: &mut Stream) {
    if a.brightness > 0.0 {
        brightness(picture, factor(a.brightness, stream), white);
    }
    if a.contrast > 0.0 {
        contrast(picture, factor(a.contrast, stream), white);
    }
    if a.saturation > 0.0 {
        saturation(picture, factor(a.saturation, stream), white);
    }
    if a.hue > 0.0 {
        let turns = stream.between(-a.hue, a.hue) as f32;
        picture.each_colour(|rgb| turn_hue(rgb, turns));
    }
    if a.value > 0.0 {
        value(picture, factor(a.value, stream), white);
    }
}

/// The luma of a colour, by torchvision's weights.
fn gray([r, g, b]: [f32; 3]) -> f32 {
    0.2989 * r + 0.587 * g + 0.114 * b
}

/// Multiplies all values.
pub fn brightness(picture: &mut Picture<'_>, f: f32, white: f32) {
    picture.values.iter_mut().for_each(|x| *x = (*x * f).clamp(0.0, white));
}

/// Stretches values away from the picture's mean gray.
pub fn contrast(picture: &mut Picture<'_>, f: f32, white: f32) {
    let n = picture.height * picture.width;
    let sum: f64 = if picture.channels == 3 {
        (0..n).map(|i| f64::from(gray([0, 1, 2].map(|c| picture.values[c * n + i])))).sum()
    } else {
        picture.values.iter().map(|&x| f64::from(x)).sum()
    };
    let mean = (sum / n.max(1) as f64) as f32;
    picture.values.iter_mut().for_each(|x| *x = (f * *x + (1.0 - f) * mean).clamp(0.0, white));
}

/// Moves each pixel away from its gray.
pub fn saturation(picture: &mut Picture<'_>, f: f32, white: f32) {
    picture.each_colour(|rgb| rgb.map(|x| (f * x + (1.0 - f) * gray(rgb)).clamp(0.0, white)));
}

/// Multiplies HSV's value, the largest of the three colours: hue and saturation stay where white is reached.
pub fn value(picture: &mut Picture<'_>, f: f32, white: f32) {
    if picture.channels == 1 {
        return brightness(picture, f, white);
    }
    picture.each_colour(|rgb| {
        let largest = rgb.into_iter().fold(0.0, f32::max);
        let f = if largest * f > white { white / largest } else { f };
        rgb.map(|x| x * f)
    });
}

/// Turns the hue by a share of the circle; value and saturation stay.
pub fn turn_hue(rgb: [f32; 3], turns: f32) -> [f32; 3] {
    let (least, most) = (rgb.into_iter().fold(f32::INFINITY, f32::min), rgb.into_iter().fold(0.0, f32::max));
    let chroma = most - least;
    if chroma <= 0.0 {
        return rgb;
    }
    let [r, g, b] = rgb;
    // In sixths of the circle, red at 0, green at 2, blue at 4.
    let hue = if most == r {
        (g - b) / chroma
    } else if most == g {
        (b - r) / chroma + 2.0
    } else {
        (r - g) / chroma + 4.0
    };
    let hue = (hue + 6.0 * turns).rem_euclid(6.0);
    // Each colour is full within a sixth of its place and gone two sixths away (red at 0, green 2, blue 4).
    [0.0f32, 2.0, 4.0].map(|place| {
        let away = (hue - place).rem_euclid(6.0);
        let away = away.min(6.0 - away);
        least + chroma * (2.0 - away).clamp(0.0, 1.0)
    })
}

/// The principal components of a data set's colours, white being 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Components {
    /// Variances along the components.
    pub values: [f64; 3],
    /// The components: of length 1, orthogonal, in the order of `values`.
    pub vectors: [[f64; 3]; 3],
}

impl Components {
    /// The components of the colours of these samples, which are `[3, H, W]`.
    pub fn measure(data: &dyn Dataset, samples: &[usize]) -> Result<Components, DataError> {
        let n: usize = data.dims()[1..].iter().product();
        let white = f64::from(data.white());
        let mut row = vec![0.0; 3 * n];
        // Co-moments about black, summed in f64: of 8-bit colours they are exact up to 2^37 pixels.
        let (mut sum, mut products) = ([0.0; 3], [[0.0; 3]; 3]);
        for &sample in samples {
            data.read(sample, &mut row)?;
            for i in 0..n {
                let rgb = [0, 1, 2].map(|c| f64::from(row[c * n + i]));
                for c in 0..3 {
                    sum[c] += rgb[c];
                    for d in 0..3 {
                        products[c][d] += rgb[c] * rgb[d];
                    }
                }
            }
        }
        let count = (n * samples.len()).max(1) as f64;
        let covariance = [0, 1, 2]
            .map(|c| [0, 1, 2].map(|d| (products[c][d] / count - sum[c] / count * (sum[d] / count)) / (white * white)));
        Ok(Components::of(covariance))
    }

    /// The eigenvalues and eigenvectors of a symmetric matrix, by Jacobi's rotations: each makes one element off the diagonal
    /// zero, and the sum of their squares shrinks until nothing is left.
    pub fn of(mut m: [[f64; 3]; 3]) -> Components {
        let mut v = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        // Convergence is quadratic: a 3x3 matrix needs about six sweeps.
        for _ in 0..20 {
            for (p, q) in [(0, 1), (0, 2), (1, 2)] {
                if m[p][q].abs() <= 1e-300 {
                    continue;
                }
                let theta = (m[q][q] - m[p][p]) / (2.0 * m[p][q]);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                let s = t * c;
                for row in &mut m {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                let (mp, mq) = (m[p], m[q]);
                m[p] = [0, 1, 2].map(|k| c * mp[k] - s * mq[k]);
                m[q] = [0, 1, 2].map(|k| s * mp[k] + c * mq[k]);
                let (vp, vq) = (v[p], v[q]);
                v[p] = [0, 1, 2].map(|k| c * vp[k] - s * vq[k]);
                v[q] = [0, 1, 2].map(|k| s * vp[k] + c * vq[k]);
            }
        }
        Components { values: [m[0][0], m[1][1], m[2][2]], vectors: v }
    }
}

/// Adds a random multiple of the principal components to every pixel.
pub fn fancy_pca(a: &Augment, picture: &mut Picture<'_>, white: f32, stream: &mut Stream) {
    let (true, Some(components)) = (a.pca > 0.0 && picture.channels == 3, &a.components) else { return };
    let amounts = components.values.map(|lambda| a.pca * stream.normal() * lambda * f64::from(white));
    let added = [0, 1, 2].map(|c| (0..3).map(|i| amounts[i] * components.vectors[i][c]).sum::<f64>() as f32);
    picture.each_colour(|rgb| [0, 1, 2].map(|c| rgb[c] + added[c]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, Targets, Values};
    use crate::seeds;

    fn with(values: &[f32], change: impl Fn(&mut Picture<'_>)) -> Vec<f32> {
        let mut values = values.to_vec();
        change(&mut Picture { channels: 3, height: 1, width: 2, values: &mut values });
        values
    }

    #[track_caller]
    fn near(got: &[f32], expected: &[f32]) {
        assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-5), "{got:?} is not {expected:?}");
    }

    const TWO: [f32; 6] = [0.2, 0.9, 0.4, 0.1, 0.6, 0.5];

    /// torchvision 0.2x, `functional.adjust_*` of the same two pixels.
    #[test]
    fn colours_change_as_torchvisions() {
        near(&with(&TWO, |p| brightness(p, 1.5, 1.0)), &[0.3, 1.0, 0.6, 0.15, 0.9, 0.75]);
        let expected = [0.286923, 0.636922, 0.386923, 0.236923, 0.486923, 0.436922];
        near(&with(&TWO, |p| contrast(p, 0.5, 1.0)), &expected);
        let expected = [0.069616, 1.0, 0.429616, 0.0, 0.789616, 0.592232];
        near(&with(&TWO, |p| saturation(p, 1.8, 1.0)), &expected);
        near(&with(&TWO, |p| p.each_colour(|rgb| turn_hue(rgb, 0.2))), &[0.48, 0.9, 0.2, 0.66, 0.6, 0.1]);
        near(&with(&TWO, |p| p.each_colour(|rgb| turn_hue(rgb, -0.35))), &[0.44, 0.1, 0.6, 0.58, 0.2, 0.9]);
    }

    #[test]
    fn value_keeps_hue_and_saturation() {
        near(&with(&TWO, |p| value(p, 0.5, 1.0)), &TWO.map(|x| x / 2.0));
        near(&with(&TWO, |p| value(p, 10.0, 1.0)), &[1.0 / 3.0, 1.0, 2.0 / 3.0, 1.0 / 9.0, 1.0, 5.0 / 9.0]);
        assert_eq!(turn_hue([0.3; 3], 0.25), [0.3; 3]);
        near(&turn_hue([1.0, 0.0, 0.0], 1.0 / 3.0), &[0.0, 1.0, 0.0]);
    }

    /// A matrix made of known components, and one that is diagonal already.
    #[test]
    fn components_diagonalise() {
        let (a, b) = (0.6, 0.8);
        let p = [[a, b, 0.0], [-b, a, 0.0], [0.0, 0.0, 1.0]];
        let lambda = [5.0, 2.0, 0.5];
        let m = [0, 1, 2].map(|i| [0, 1, 2].map(|j| (0..3).map(|k| lambda[k] * p[k][i] * p[k][j]).sum::<f64>()));
        let got = Components::of(m);
        for (value, vector) in got.values.iter().zip(&got.vectors) {
            let k = (0..3).find(|&k| (lambda[k] - value).abs() < 1e-12).expect("an eigenvalue of the matrix");
            let along: f64 = (0..3).map(|i| vector[i] * p[k][i]).sum();
            assert!((along.abs() - 1.0).abs() < 1e-12, "{got:?}");
        }
        assert_eq!(Components::of([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]).values, [3.0, 1.0, 2.0]);
        assert_eq!(Components::of([[0.0; 3]; 3]).values, [0.0; 3]);
    }

    /// Gray data vary along (1, 1, 1) alone, so that fancy PCA makes them lighter or darker, never coloured.
    #[test]
    fn fancy_pca_follows_the_data() {
        let x = [0u8, 102, 255, 51].map(|v| [v; 3]);
        let planes: Vec<u8> = (0..2).flat_map(|s| (0..3).flat_map(move |c| [x[2 * s][c], x[2 * s + 1][c]])).collect();
        let targets = Targets::Values { dims: vec![], values: vec![0.0; 2] };
        let data = InMemory::new("d", vec![3, 1, 2], Values::U8(planes), targets).unwrap();
        let mut augment = Augment { pca: 0.1, ..Augment::default() };
        augment.measure(&data, &[0, 1]).unwrap();
        let components = augment.components.clone().unwrap();
        // Variance of 0, 0.4, 1, 0.2 is 0.14; along the diagonal three times that.
        assert!((components.values.iter().fold(0.0, |a: f64, &b| a.max(b)) - 0.42).abs() < 1e-12, "{components:?}");
        let shifts: Vec<f32> = (0..400)
            .map(|item| {
                let stream = seeds::stream(1, seeds::AUGMENT, 0, item);
                let out = with(&[50.0; 6], |p| fancy_pca(&augment, p, 255.0, &mut stream.clone()));
                assert!(out.iter().all(|v| (v - out[0]).abs() < 1e-3), "{out:?}");
                out[0] - 50.0
            })
            .collect();
        let deviation = (shifts.iter().map(|s| f64::from(s * s)).sum::<f64>() / 400.0).sqrt();
        let expected = 0.1 * 0.42 / 3f64.sqrt() * 255.0;
        assert!((deviation / expected - 1.0).abs() < 0.15, "{deviation} for {expected}");
    }
}
