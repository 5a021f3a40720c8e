//! Sharpness, blur, noise and cut-out.
//!
//! Sharpness is torchvision's `adjust_sharpness`: `f x + (1 - f) smooth(x)`, the smoothing kernel 1 but 5 in the middle,
//! divided by 13; the border stays. The blur is a separable Gaussian cut off at three deviations, the border repeated.
//! Cut-out: DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017: the square's
//! centre is any pixel, so that part of it may lie outside.

use super::{Augment, Picture, factor};
use nncc_ir::philox::Stream;

/// Sharpness and blur, as far as they are switched on.
pub fn smooth(a: &Augment, picture: &mut Picture<'_>, white: f32, stream: &mut Stream) {
    if a.sharpness > 0.0 {
        sharpness(picture, factor(a.sharpness, stream), white);
    }
    if a.blur > 0.0 {
        blur(picture, stream.between(0.0, a.blur));
    }
}

/// Moves each inner pixel away from its smoothed value, within black and white.
pub fn sharpness(picture: &mut Picture<'_>, f: f32, white: f32) {
    let (h, w) = (picture.height, picture.width);
    if h < 3 || w < 3 {
        return;
    }
    for plane in picture.planes() {
        let old = plane.to_vec();
        for y in 1..h - 1 {
            for x in 1..w - 1 {
                let at = y * w + x;
                let around: f32 = [at - w, at, at + w].iter().map(|&i| old[i - 1] + old[i] + old[i + 1]).sum();
                let smooth = (around + 4.0 * old[at]) / 13.0;
                plane[at] = f * old[at] + (1.0 - f) * smooth;
            }
        }
        plane.iter_mut().for_each(|x| *x = x.clamp(0.0, white));
    }
}

/// A Gaussian blur of this deviation in pixels; none below a hundredth.
pub fn blur(picture: &mut Picture<'_>, sigma: f64) {
    if sigma < 0.01 {
        return;
    }
    let radius = (3.0 * sigma).ceil() as i64;
    let weights: Vec<f64> = (-radius..=radius).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let (h, w) = (picture.height as i64, picture.width as i64);
    for plane in picture.planes() {
        for (dy, dx) in [(0, 1), (1, 0)] {
            let old = plane.to_vec();
            for (at, value) in (0i64..).zip(plane.iter_mut()) {
                let (y, x) = (at / w, at % w);
                let near = |d: i64| old[((y + dy * d).clamp(0, h - 1) * w + (x + dx * d).clamp(0, w - 1)) as usize];
                let blurred: f64 = (-radius..=radius).zip(&weights).map(|(d, k)| k * f64::from(near(d))).sum();
                *value = (blurred / sum) as f32;
            }
        }
    }
}

/// Adds Gaussian noise to every value.
pub fn noise(a: &Augment, sample: &mut [f32], white: f32, stream: &mut Stream) {
    if a.noise > 0.0 {
        let deviation = a.noise * f64::from(white);
        sample.iter_mut().for_each(|x| *x += (deviation * stream.normal()) as f32);
    }
}

/// Blackens a square.
pub fn cutout(a: &Augment, picture: &mut Picture<'_>, stream: &mut Stream) {
    if a.cutout == 0 {
        return;
    }
    let (h, w, size) = (picture.height, picture.width, a.cutout);
    let mut range = |length: usize| {
        let centre = stream.below(length as u32) as usize;
        let end = centre + size.div_ceil(2);
        end.saturating_sub(size)..end.min(length)
    };
    let (rows, columns) = (range(h), range(w));
    for plane in picture.planes() {
        for row in plane.chunks_exact_mut(w).skip(rows.start).take(rows.len()) {
            row[columns.clone()].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    fn with(height: usize, width: usize, values: &[f32], change: impl Fn(&mut Picture<'_>)) -> Vec<f32> {
        let mut values = values.to_vec();
        change(&mut Picture { channels: values.len() / (height * width), height, width, values: &mut values });
        values
    }

    /// torchvision 0.2x, `adjust_sharpness(x, 1.7)`.
    #[test]
    fn sharpness_is_torchvisions() {
        let x: Vec<f32> = (0..12).map(|i| (i * 7 % 11) as f32 / 11.0).collect();
        let got = with(3, 4, &x, |p| sharpness(p, 1.7, 1.0));
        let expected = [&x[..5], &[0.074126, 0.97972], &x[7..]].concat();
        assert!(got.iter().zip(&expected).all(|(g, e)| (g - e).abs() < 1e-5), "{got:?}");
        assert_eq!(with(2, 6, &x, |p| sharpness(p, 1.7, 1.0)), x);
    }

    /// A point becomes the product of two Gaussians, an even plane stays.
    #[test]
    fn a_point_is_blurred_to_a_gaussian() {
        let mut point = vec![0.0; 81];
        point[40] = 1.0;
        let got = with(9, 9, &point, |p| blur(p, 1.0));
        let bell = |d: f64| (-0.5 * d * d).exp();
        let sum: f64 = (-3..=3).map(|d| bell(f64::from(d))).sum();
        for (at, g) in got.iter().enumerate() {
            let (dy, dx) = ((at / 9) as f64 - 4.0, (at % 9) as f64 - 4.0);
            let expected = if dy.abs().max(dx.abs()) > 3.0 { 0.0 } else { bell(dy) * bell(dx) / (sum * sum) };
            assert!((f64::from(*g) - expected).abs() < 1e-6, "{at}");
        }
        let even = with(2, 3, &[0.5; 6], |p| blur(p, 2.5));
        assert!(even.iter().all(|x| (x - 0.5).abs() < 1e-6), "{even:?}");
    }

    #[test]
    fn noise_has_its_deviation() {
        let mut values = vec![0.0; 10_000];
        let a = Augment { noise: 0.1, ..Augment::default() };
        noise(&a, &mut values, 255.0, &mut seeds::stream(1, 0, 0, 0));
        let deviation = (values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 1e4).sqrt();
        assert!((deviation / 25.5 - 1.0).abs() < 0.04, "{deviation}");
    }

    /// Somewhere the whole square, at borders a part of it, the same in each plane.
    #[test]
    fn cut_outs_are_squares() {
        let a = Augment { cutout: 3, ..Augment::default() };
        let mut sizes = std::collections::BTreeSet::new();
        for item in 0..200 {
            let stream = seeds::stream(1, 0, 0, item);
            let got = with(5, 6, &[1.0; 60], |p| cutout(&a, p, &mut stream.clone()));
            assert_eq!(got[..30], got[30..]);
            let black: Vec<usize> = (0..30).filter(|&i| got[i] == 0.0).collect();
            let (rows, columns): (Vec<usize>, Vec<usize>) = black.iter().map(|i| (i / 6, i % 6)).unzip();
            let extent = |v: &[usize]| v.iter().max().unwrap() - v.iter().min().unwrap() + 1;
            assert_eq!(extent(&rows) * extent(&columns), black.len());
            sizes.insert((extent(&rows), extent(&columns)));
        }
        assert_eq!(sizes, [(2, 2), (2, 3), (3, 2), (3, 3)].into());
    }
}
