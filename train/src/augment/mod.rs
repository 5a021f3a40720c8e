//! Augmentation: random changes that leave a sample's class as it is.
//!
//! | file | changes |
//! |---|---|
//! | [`geometry`] | flip, crop with padding, rotation, scale, translation: one resampling for all |
//! | [`colour`] | brightness, contrast, saturation, hue, sharpness, fancy PCA |
//! | [`pixels`] | blur, Gaussian noise, cut-out |
//! | [`mix`] | mix-up of the samples of a batch |
//!
//! Pictures are `[C, H, W]` with values from black 0 to [`white`](crate::data::Dataset::white); each change is drawn from
//! the sample's own stream, in a fixed order, and what is switched off draws nothing. Ranges are those of torchvision's transforms of the same names.
//!
//! ```text
//! flip, crop, affine  ─>  brightness, contrast, saturation, hue  ─>  sharpness, blur  ─>  PCA, noise  ─>  cut-out
//! ```
//!
//! Cut-out is last, so that the hole is one even patch. Colours stay within black and white; noise and PCA may leave the
//! range, as their sources let them.

pub mod colour;
pub mod geometry;
pub mod mix;
pub mod pixels;

use crate::data::{DataError, Dataset};
use nncc_ir::philox::Stream;
use serde::{Deserialize, Serialize};

/// What is done to each sample. The default does nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Augment {
    /// Mirrors left and right, with this probability.
    pub flip: f64,
    /// Mirrors top and bottom, with this probability.
    pub flip_vertical: f64,
    /// Pads with so many black pixels and cuts the old size out anywhere (`RandomCrop(padding)`).
    pub crop: usize,
    /// Turns by up to so many degrees either way.
    pub rotate: f64,
    /// Zooms by a factor within `[1 - scale, 1 + scale]`.
    pub scale: f64,
    /// Shifts by up to this share of height and width.
    pub translate: f64,
    /// Brightness times a factor within `[1 - b, 1 + b]`.
    pub brightness: f64,
    /// Contrast, likewise.
    pub contrast: f64,
    /// Saturation, likewise.
    pub saturation: f64,
    /// Hue turned by up to this share of the circle, at most 0.5.
    pub hue: f64,
    /// Value (of HSV) times a factor within `[1 - v, 1 + v]`.
    pub value: f64,
    /// Sharpness times a factor within `[1 - s, 1 + s]`; below 1 smooths.
    pub sharpness: f64,
    /// Gaussian blur with a standard deviation up to so many pixels.
    pub blur: f64,
    /// Gaussian noise of this standard deviation, as a share of white.
    pub noise: f64,
    /// Blackens a square of so many pixels (`Cutout`).
    pub cutout: usize,
    /// Mixes each sample with another of its batch; the parameter of the Beta distribution.
    pub mix_up: Option<f64>,
    /// Fancy PCA with this standard deviation; AlexNet's is 0.1. Needs [`Augment::measure`].
    pub pca: f64,
    /// The principal components of the data's colours.
    #[serde(skip)]
    pub components: Option<colour::Components>,
}

impl Augment {
    /// Whether pictures are changed (mix-up takes any input).
    fn needs_pictures(&self) -> bool {
        let neutral = Augment {
            mix_up: self.mix_up,
            noise: self.noise,
            components: self.components.clone(),
            ..Augment::default()
        };
        *self != neutral
    }

    /// Measures what the changes need of the data: the principal components.
    pub fn measure(&mut self, data: &dyn Dataset, samples: &[usize]) -> Result<(), DataError> {
        if self.pca > 0.0 {
            self.check(data).map_err(|reason| DataError::new("augmentation", reason))?;
            self.components = Some(colour::Components::measure(data, samples)?);
        }
        Ok(())
    }

    /// An error if a number makes no sense or a change does not fit the data.
    pub fn check(&self, data: &dyn Dataset) -> Result<(), String> {
        let shares = [
            ("flip", self.flip, 1.0),
            ("flip-vertical", self.flip_vertical, 1.0),
            ("rotate", self.rotate, 180.0),
            ("scale", self.scale, 0.99),
            ("translate", self.translate, 1.0),
            ("brightness", self.brightness, f64::MAX),
            ("contrast", self.contrast, f64::MAX),
            ("saturation", self.saturation, f64::MAX),
            ("hue", self.hue, 0.5),
            ("value", self.value, f64::MAX),
            ("sharpness", self.sharpness, f64::MAX),
            ("blur", self.blur, 100.0),
            ("noise", self.noise, f64::MAX),
            ("pca", self.pca, f64::MAX),
        ];
        if let Some((name, given, limit)) = shares.into_iter().find(|(_, x, limit)| !(0.0..=*limit).contains(x)) {
            return Err(format!("augmentation: {name} = {given} is outside 0 to {limit}"));
        }
        // More would overflow the offsets, and leaves of any picture nothing but black.
        const MOST_PIXELS: usize = 65_535;
        let pixels = [("crop", self.crop), ("cutout", self.cutout)];
        if let Some((name, given)) = pixels.into_iter().find(|(_, n)| *n > MOST_PIXELS) {
            return Err(format!("augmentation: {name} = {given} is outside 0 to {MOST_PIXELS}"));
        }
        if let Some(alpha) = self.mix_up.filter(|&a| !(a > 0.0 && a.is_finite())) {
            return Err(format!("augmentation: mix-up = {alpha} is not positive"));
        }
        if self.mix_up.is_some() && data.targets().classes().is_none() {
            return Err("augmentation: mix-up is for classes, the targets are numbers".into());
        }
        let pictures = matches!(data.dims(), [1 | 3, _, _]);
        if self.needs_pictures() && !pictures {
            return Err(format!("augmentation is for pictures [1 or 3, H, W], the samples are {:?}", data.dims()));
        }
        let coloured = [("saturation", self.saturation), ("hue", self.hue), ("pca", self.pca)];
        match coloured.into_iter().find(|(_, x)| *x > 0.0) {
            Some((name, _)) if data.dims()[0] != 3 => {
                Err(format!("augmentation: {name} is for pictures of three colours"))
            }
            _ => Ok(()),
        }
    }

    /// Changes a sample of these dimensions in place.
    pub fn apply(&self, sample: &mut [f32], dims: &[usize], white: f32, stream: &mut Stream) {
        if let &[channels @ (1 | 3), height, width] = dims {
            let mut picture = Picture { channels, height, width, values: sample };
            geometry::apply(self, &mut picture, stream);
            colour::apply(self, &mut picture, white, stream);
            pixels::smooth(self, &mut picture, white, stream);
            colour::fancy_pca(self, &mut picture, white, stream);
        }
        pixels::noise(self, sample, white, stream);
        if let &[channels, height, width] = dims {
            pixels::cutout(self, &mut Picture { channels, height, width, values: sample }, stream);
        }
    }
}

/// A picture that is changed in place: `[channels, height, width]`.
#[derive(Debug)]
pub struct Picture<'a> {
    /// 1 or 3.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Plane after plane, row after row.
    pub values: &'a mut [f32],
}

impl Picture<'_> {
    /// The planes, one a channel.
    fn planes(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut((self.height * self.width).max(1))
    }

    /// Gives each pixel's colours to `change`: three numbers. Not for gray pictures.
    fn each_colour(&mut self, change: impl Fn([f32; 3]) -> [f32; 3]) {
        let n = self.height * self.width;
        let (red, rest) = self.values.split_at_mut(n);
        let (green, blue) = rest.split_at_mut(n);
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            [*r, *g, *b] = change([*r, *g, *b]);
        }
    }
}

/// A factor within `[1 - spread, 1 + spread]`, not negative.
fn factor(spread: f64, stream: &mut Stream) -> f32 {
    stream.between((1.0 - spread).max(0.0), 1.0 + spread) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, Targets, Values};
    use crate::seeds;

    fn data(dims: &[usize]) -> InMemory {
        let targets = Targets::Values { dims: vec![], values: vec![0.0] };
        InMemory::new("d", dims.to_vec(), Values::F32(vec![0.5; dims.iter().product()]), targets).unwrap()
    }

    /// Everything at once, on awkward sizes: values stay finite, the same stream gives the same picture, nothing is out of range.
    #[test]
    fn all_changes_together_are_a_function_of_the_stream() {
        let all = Augment {
            flip: 0.5,
            flip_vertical: 0.5,
            crop: 3,
            rotate: 30.0,
            scale: 0.2,
            translate: 0.1,
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.4,
            hue: 0.1,
            value: 0.3,
            sharpness: 0.5,
            blur: 1.5,
            noise: 0.01,
            cutout: 2,
            ..Augment::default()
        };
        for dims in [[3, 1, 1], [3, 1, 7], [3, 5, 2], [3, 13, 11]] {
            all.check(&data(&dims)).unwrap();
            let sample: Vec<f32> = (0..dims.iter().product()).map(|i| (i * 37 % 256) as f32).collect();
            let change = |item| {
                let mut out = sample.clone();
                all.apply(&mut out, &dims, 255.0, &mut seeds::stream(1, seeds::AUGMENT, 0, item));
                out
            };
            for item in 0..20 {
                let out = change(item);
                assert!(out.iter().all(|x| x.is_finite() && (-40.0..295.0).contains(x)), "{dims:?} {out:?}");
                assert_eq!(out, change(item));
            }
            assert!(dims[1] < 5 || change(0) != change(1));
        }
        let mut untouched = [1.0, 2.0, 3.0];
        Augment::default().apply(&mut untouched, &[3, 1, 1], 1.0, &mut seeds::stream(1, 0, 0, 0));
        assert_eq!(untouched, [1.0, 2.0, 3.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let fail = |a: Augment, dims: &[usize]| a.check(&data(dims)).unwrap_err();
        let flip = Augment { flip: 1.5, ..Augment::default() };
        assert_eq!(fail(flip, &[1, 2, 2]), "augmentation: flip = 1.5 is outside 0 to 1");
        let crop = Augment { crop: usize::MAX, ..Augment::default() };
        assert!(fail(crop, &[1, 2, 2]).ends_with("is outside 0 to 65535"));
        let flip = Augment { flip: 0.5, ..Augment::default() };
        assert_eq!(fail(flip, &[7]), "augmentation is for pictures [1 or 3, H, W], the samples are [7]");
        let hue = Augment { hue: 0.1, ..Augment::default() };
        assert_eq!(fail(hue, &[1, 2, 2]), "augmentation: hue is for pictures of three colours");
        let mix = Augment { mix_up: Some(0.2), ..Augment::default() };
        assert_eq!(fail(mix, &[7]), "augmentation: mix-up is for classes, the targets are numbers");
        let noise = Augment { noise: 0.1, ..Augment::default() };
        assert_eq!(noise.check(&data(&[7])), Ok(()));
        let nan = Augment { blur: f64::NAN, ..Augment::default() };
        assert_eq!(fail(nan, &[1, 2, 2]), "augmentation: blur = NaN is outside 0 to 100");
    }
}
