//! Where pixels come from: flips and crops move whole pixels, the affine change resamples once for rotation, scale and shift.
//!
//! ```text
//! source = centre + R(-angle) / zoom (target - centre - shift)        bilinear; outside is black
//! ```
//!
//! The centre is that of the pixel grid, `(H - 1) / 2, (W - 1) / 2`, as torchvision's `RandomAffine` has it. Positive angles
//! turn clockwise on the screen (rows grow downwards).

use super::{Augment, Picture};
use nncc_ir::philox::Stream;

/// The changes that are switched on.
pub fn apply(a: &Augment, picture: &mut Picture<'_>, stream: &mut Stream) {
    if a.flip > 0.0 && stream.uniform() < a.flip {
        flip(picture);
    }
    if a.flip_vertical > 0.0 && stream.uniform() < a.flip_vertical {
        flip_vertical(picture);
    }
    if a.crop > 0 {
        let mut offset = || i64::from(stream.below(2 * a.crop as u32 + 1)) - a.crop as i64;
        let (down, right) = (offset(), offset());
        shift(picture, down, right);
    }
    if a.rotate > 0.0 || a.scale > 0.0 || a.translate > 0.0 {
        let angle = stream.between(-a.rotate, a.rotate).to_radians();
        let zoom = stream.between(1.0 - a.scale, 1.0 + a.scale);
        let mut part = |size: usize| stream.between(-a.translate, a.translate) * size as f64;
        let (down, right) = (part(picture.height), part(picture.width));
        affine(picture, angle, zoom, (down, right));
    }
}

/// Mirrors left and right.
pub fn flip(picture: &mut Picture<'_>) {
    picture.values.chunks_exact_mut(picture.width.max(1)).for_each(<[f32]>::reverse);
}

/// Mirrors top and bottom.
pub fn flip_vertical(picture: &mut Picture<'_>) {
    let width = picture.width;
    for plane in picture.planes() {
        let half = plane.len() / width.max(1) / 2;
        let rows = plane.len() / width.max(1);
        let (top, bottom) = plane.split_at_mut((rows - half) * width);
        for (a, b) in top.chunks_exact_mut(width).zip(bottom.chunks_exact_mut(width).rev()) {
            a.swap_with_slice(b);
        }
    }
}

/// Moves by whole pixels: what comes in is black. Padding and cutting out are the same.
pub fn shift(picture: &mut Picture<'_>, down: i64, right: i64) {
    let (h, w) = (picture.height as i64, picture.width as i64);
    for plane in picture.planes() {
        let old = plane.to_vec();
        for (at, value) in (0i64..).zip(plane.iter_mut()) {
            let (y, x) = (at / w - down, at % w - right);
            let inside = (0..h).contains(&y) && (0..w).contains(&x);
            *value = if inside { old[(y * w + x) as usize] } else { 0.0 };
        }
    }
}

/// Turns by `angle` (radians, clockwise), zooms, then shifts by pixels (down, right).
pub fn affine(picture: &mut Picture<'_>, angle: f64, zoom: f64, (down, right): (f64, f64)) {
    let (h, w) = (picture.height, picture.width);
    let centre = ((h as f64 - 1.0) / 2.0, (w as f64 - 1.0) / 2.0);
    let (sin, cos) = angle.sin_cos();
    for plane in picture.planes() {
        let old = plane.to_vec();
        let pixel = |y: f64, x: f64| {
            let inside = y >= 0.0 && x >= 0.0 && y < h as f64 && x < w as f64;
            if inside { f64::from(old[y as usize * w + x as usize]) } else { 0.0 }
        };
        for (at, value) in plane.iter_mut().enumerate() {
            let y = (at / w) as f64 - centre.0 - down;
            let x = (at % w) as f64 - centre.1 - right;
            let (sy, sx) = ((cos * y - sin * x) / zoom + centre.0, (sin * y + cos * x) / zoom + centre.1);
            let (y0, x0) = (sy.floor(), sx.floor());
            let (fy, fx) = (sy - y0, sx - x0);
            let top = (1.0 - fx) * pixel(y0, x0) + fx * pixel(y0, x0 + 1.0);
            let bottom = (1.0 - fx) * pixel(y0 + 1.0, x0) + fx * pixel(y0 + 1.0, x0 + 1.0);
            *value = ((1.0 - fy) * top + fy * bottom) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    fn with(height: usize, width: usize, values: &[f32], change: impl Fn(&mut Picture<'_>)) -> Vec<f32> {
        let mut values = values.to_vec();
        let channels = values.len() / (height * width);
        change(&mut Picture { channels, height, width, values: &mut values });
        values
    }

    const SIX: [f32; 6] = [1., 2., 3., 4., 5., 6.];

    #[test]
    fn flips_mirror_every_plane() {
        assert_eq!(with(2, 3, &SIX, flip), [3., 2., 1., 6., 5., 4.]);
        assert_eq!(with(2, 3, &SIX, flip_vertical), [4., 5., 6., 1., 2., 3.]);
        assert_eq!(with(3, 2, &SIX, flip_vertical), [5., 6., 3., 4., 1., 2.]);
        let planes = [SIX, SIX.map(|x| x + 10.0)].concat();
        assert_eq!(with(2, 3, &planes, flip)[6..], [13., 12., 11., 16., 15., 14.]);
    }

    #[test]
    fn shifts_bring_in_black() {
        assert_eq!(with(2, 3, &SIX, |p| shift(p, 1, -1)), [0., 0., 0., 2., 3., 0.]);
        assert_eq!(with(2, 3, &SIX, |p| shift(p, 0, 3)), [0.; 6]);
    }

    /// A quarter turn moves pixels onto pixels; half a pixel's shift averages two.
    #[test]
    fn affine_changes_resample() {
        let square = [1., 2., 3., 4.];
        let near = |got: Vec<f32>, expected: [f32; 4]| {
            assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-5), "{got:?}");
        };
        let quarter = std::f64::consts::FRAC_PI_2;
        near(with(2, 2, &square, |p| affine(p, 0.0, 1.0, (0.0, 0.0))), square);
        near(with(2, 2, &square, |p| affine(p, quarter * 2.0, 1.0, (0.0, 0.0))), [4., 3., 2., 1.]);
        near(with(2, 2, &square, |p| affine(p, 0.0, 1.0, (0.0, 0.5))), [0.5, 1.5, 1.5, 3.5]);
        near(with(1, 4, &square, |p| affine(p, 0.0, 2.0, (0.0, 0.0))), [1.75, 2.25, 2.75, 3.25]);
    }

    /// Against the same change, turned clockwise by 90 degrees: columns from the left become rows from the top.
    #[test]
    fn positive_angles_turn_clockwise() {
        let nine: Vec<f32> = (1..10).map(|i| i as f32).collect();
        // 1 is 1e-16 from its pixel after the turn, and the border of the picture is black: compare the inner cross.
        let got = with(3, 3, &nine, |p| affine(p, std::f64::consts::FRAC_PI_2, 1.0, (0.0, 0.0)));
        for (at, expected) in [(1, 4.0), (3, 8.0), (4, 5.0), (5, 2.0), (7, 6.0)] {
            assert!((got[at] - expected).abs() < 1e-5, "{got:?}");
        }
    }

    /// Over many draws a crop with padding 1 reaches all nine places.
    #[test]
    fn crops_reach_every_place() {
        let crop = Augment { crop: 1, ..Augment::default() };
        let middle = [0., 0., 0., 0., 1., 0., 0., 0., 0.];
        let places: std::collections::BTreeSet<usize> = (0..200)
            .map(|item| {
                let mut stream = seeds::stream(1, seeds::AUGMENT, 0, item);
                let mut values = middle.to_vec();
                apply(&crop, &mut Picture { channels: 1, height: 3, width: 3, values: &mut values }, &mut stream);
                values.iter().position(|&x| x == 1.0).unwrap()
            })
            .collect();
        assert_eq!(places.len(), 9);
    }
}
