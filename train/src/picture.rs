//! Pictures as network inputs: decode, crop, resize as Pillow does, normalise.
//!
//! ```text
//! PNG/JPEG ─> RGB8 ─crop─> aspect of the input ─resize─> H x W ─> (x - mean) * scale ─> NCHW or NHWC f32
//! ```
//!
//! Resizing follows Pillow's `Image.resize` bit for bit: a separable filter whose support grows with the reduction (so
//! that it antialiases), in fixed point with 22 fractional bits, rounded to 8 bits after each of the two directions,
//! columns first (Pillow, `src/libImaging/Resample.c`). Training pipelines use it, so that a network expects its pixels.

use nncc_ir::Tensor;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The part of a picture that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Crop {
    /// The largest centred part with the input's aspect ratio.
    Center,
    /// All of it, stretched.
    None,
}

/// Pillow's resampling filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// Cubic convolution with a = -0.5 (Keys 1981), support 2.
    Bicubic,
    /// The triangle, support 1.
    Bilinear,
    /// The nearest pixel, without antialiasing.
    Nearest,
}

/// The order of the three colours in the channel axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Red first.
    Rgb,
    /// Blue first, as OpenCV reads pictures.
    Bgr,
}

/// How a picture becomes a tensor.
#[derive(Clone, Debug)]
pub struct Preparation {
    /// Subtracted from each value (0..255): one number, or one a channel.
    pub mean: Vec<f32>,
    /// Then multiplied: one number, or one a channel.
    pub scale: Vec<f32>,
    /// See [`Crop`].
    pub crop: Crop,
    /// See [`Filter`].
    pub resize: Filter,
    /// See [`Order`].
    pub order: Order,
}

/// Reads the picture at `path` for an input of these dimensions: `[N,C,H,W]`, or `[N,H,W,C]` when only the last axis can be
/// colours; C is 1 or 3, N is 1, and `None` stands for a dimension that the picture decides.
pub fn read(path: &Path, dims: &[Option<usize>], prep: &Preparation) -> Result<Tensor, String> {
    let image = Rgb::open(path)?;
    tensor(&image, dims, prep).map_err(|e| format!("{}: {e}", path.display()))
}

/// A picture: rows of red, green, blue, 8 bits each.
#[derive(Clone, Debug)]
pub struct Rgb {
    /// Rows.
    pub height: usize,
    /// Pixels of a row.
    pub width: usize,
    /// Row after row.
    pub pixels: Vec<[u8; 3]>,
}

impl Rgb {
    /// Reads a PNG or JPEG file; the error names it.
    pub fn open(path: &Path) -> Result<Rgb, String> {
        let fail = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let bytes = std::fs::read(path).map_err(|e| fail(&e))?;
        Rgb::decode(&bytes).map_err(|e| fail(&e))
    }

    /// A picture from a PNG or JPEG file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Rgb, String> {
        if bytes.starts_with(b"\x89PNG") {
            decode_png(bytes)
        } else if bytes.starts_with(b"\xff\xd8") {
            decode_jpeg(bytes)
        } else {
            Err("neither a PNG nor a JPEG picture".into())
        }
    }

    /// The picture cut and resized to `h x w`, one plane of 8 bits a channel: `[channels, h, w]`, channels 1 (luma) or 3.
    pub fn fitted(
        &self,
        channels: usize,
        (h, w): (usize, usize),
        crop: Crop,
        filter: Filter,
        order: Order,
    ) -> Result<Vec<u8>, String> {
        if h == 0 || w == 0 || self.pixels.is_empty() {
            return Err("a picture without pixels".into());
        }
        let cropped;
        let part = match crop {
            Crop::Center => {
                cropped = center_crop(self, h, w);
                &cropped
            }
            Crop::None => self,
        };
        let planes = planes(part, channels == 1, order);
        Ok(planes.iter().flat_map(|plane| resize(plane, (h, w), filter).pixels).collect())
    }
}

/// The most pixels of a picture: where Pillow calls one a decompression bomb. A file of a few bytes may promise 2^62.
const MOST_PIXELS: usize = 178_956_970;

fn check_size(width: usize, height: usize) -> Result<(), String> {
    match width.checked_mul(height) {
        Some(pixels) if pixels <= MOST_PIXELS => Ok(()),
        _ => Err(format!("a picture of {width}x{height} pixels; the limit is {MOST_PIXELS} pixels")),
    }
}

fn decode_png(bytes: &[u8]) -> Result<Rgb, String> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    // Palettes and fewer bits become 8 bits a channel, 16 bits lose their low half, as in Pillow's mode "RGB".
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    check_size(reader.info().width as usize, reader.info().height as usize)?;
    let size = reader.output_buffer_size().ok_or("a picture too large for memory")?;
    let mut raw = vec![0; size];
    let info = reader.next_frame(&mut raw).map_err(|e| e.to_string())?;
    let channels = info.color_type.samples();
    let pixels = raw[..info.buffer_size()].chunks_exact(channels);
    let rgb = |p: &[u8]| if channels < 3 { [p[0]; 3] } else { [p[0], p[1], p[2]] };
    Ok(Rgb { height: info.height as usize, width: info.width as usize, pixels: pixels.map(rgb).collect() })
}

fn decode_jpeg(bytes: &[u8]) -> Result<Rgb, String> {
    use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
    // The decoder fills up what is missing with gray. A whole picture has an end-of-image marker (ff d9) behind its last
    // start-of-scan marker (ff da); within a scan neither can stand, for there ff is followed by 00.
    let marker = |bytes: &[u8], code: u8| bytes.windows(2).rposition(|pair| pair == [0xff, code]);
    if marker(bytes, 0xd9) < marker(bytes, 0xda) {
        return Err("a JPEG picture that is cut off".into());
    }
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| format!("{e:?}"))?;
    let (width, height) = decoder.dimensions().ok_or("a JPEG picture without a size")?;
    check_size(width, height)?;
    let raw = decoder.decode().map_err(|e| format!("{e:?}"))?;
    let pixels = raw.as_chunks().0.to_vec();
    if pixels.len() != width * height {
        return Err("a JPEG picture that is cut off".into());
    }
    Ok(Rgb { height, width, pixels })
}

fn tensor(image: &Rgb, dims: &[Option<usize>], prep: &Preparation) -> Result<Tensor, String> {
    let &[n, a, b, c] = dims else {
        return Err(format!("a picture fits an input of rank 4, this one has rank {}", dims.len()));
    };
    let colours = |d: Option<usize>| matches!(d, Some(1 | 3));
    let (channels, height, width, channels_last) = match (colours(a), colours(c)) {
        (true, _) => (a.unwrap_or(3), b, c, false),
        (false, true) => (c.unwrap_or(3), a, b, true),
        _ => return Err("a picture fits an input with 1 or 3 channels, NCHW or NHWC".into()),
    };
    if n.is_some_and(|n| n != 1) {
        return Err("a picture fits a batch of 1".into());
    }
    for (what, v) in [("--image-mean", &prep.mean), ("--image-scale", &prep.scale)] {
        if v.len() != 1 && v.len() != channels {
            return Err(format!("{what} has {} numbers for {channels} channels", v.len()));
        }
    }
    let (h, w) = (height.unwrap_or(image.height), width.unwrap_or(image.width));
    let pixels = image.fitted(channels, (h, w), prep.crop, prep.resize, prep.order)?;
    let value = |ch: usize, i: usize| {
        let pick = |v: &[f32]| v[if v.len() == 1 { 0 } else { ch }];
        (f32::from(pixels[ch * h * w + i]) - pick(&prep.mean)) * pick(&prep.scale)
    };
    Ok(if channels_last {
        let v = (0..h * w).flat_map(|i| (0..channels).map(move |ch| (ch, i))).map(|(ch, i)| value(ch, i)).collect();
        Tensor::f32(&[1, h, w, channels], v)
    } else {
        let v = (0..channels).flat_map(|ch| (0..h * w).map(move |i| (ch, i))).map(|(ch, i)| value(ch, i)).collect();
        Tensor::f32(&[1, channels, h, w], v)
    })
}

/// The largest centred part with the aspect ratio `w : h`.
fn center_crop(image: &Rgb, h: usize, w: usize) -> Rgb {
    let (ih, iw) = (image.height, image.width);
    let (height, width) = if iw * h > ih * w { (ih, (ih * w / h).max(1)) } else { ((iw * h / w).max(1), iw) };
    let (y, x) = ((ih - height) / 2, (iw - width) / 2);
    let rows = image.pixels.chunks(iw).skip(y).take(height);
    Rgb { height, width, pixels: rows.flat_map(|r| r[x..x + width].iter().copied()).collect() }
}

/// One colour of a picture, 8 bits a pixel.
struct Plane {
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

fn planes(image: &Rgb, gray: bool, order: Order) -> Vec<Plane> {
    let (height, width) = (image.height, image.width);
    let plane = |f: &dyn Fn(&[u8; 3]) -> u8| Plane { height, width, pixels: image.pixels.iter().map(f).collect() };
    if gray {
        // ITU-R 601-2 luma in 16-bit fixed point, as Pillow's mode "L".
        let luma = |p: &[u8; 3]| {
            let [r, g, b] = p.map(u32::from);
            ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
        };
        return vec![plane(&luma)];
    }
    let at = match order {
        Order::Rgb => [0, 1, 2],
        Order::Bgr => [2, 1, 0],
    };
    at.iter().map(|&i| plane(&move |p: &[u8; 3]| p[i])).collect()
}

fn resize(p: &Plane, (h, w): (usize, usize), filter: Filter) -> Plane {
    if (p.height, p.width) == (h, w) {
        return Plane { height: h, width: w, pixels: p.pixels.clone() };
    }
    if filter == Filter::Nearest {
        let at = |i: usize, out: usize, size: usize| ((i as f64 + 0.5) * size as f64 / out as f64) as usize;
        let pixel = |y: usize, x: usize| {
            p.pixels[at(y, h, p.height).min(p.height - 1) * p.width + at(x, w, p.width).min(p.width - 1)]
        };
        let pixels = (0..h * w).map(|i| pixel(i / w, i % w)).collect();
        return Plane { height: h, width: w, pixels };
    }
    let columns = Taps::new(p.width, w, filter);
    let rows = Taps::new(p.height, h, filter);
    let mut narrow = vec![0; p.height * w];
    for y in 0..p.height {
        let line = &p.pixels[y * p.width..][..p.width];
        for x in 0..w {
            narrow[y * w + x] = columns.apply(x, |i| line[i]);
        }
    }
    let mut pixels = vec![0; h * w];
    for y in 0..h {
        for x in 0..w {
            pixels[y * w + x] = rows.apply(y, |i| narrow[i * w + x]);
        }
    }
    Plane { height: h, width: w, pixels }
}

/// Fractional bits of the fixed-point weights: 32 bits less 8 for a pixel and 2 of headroom for negative lobes.
const PRECISION: u32 = 32 - 8 - 2;

/// For each output position: the first input pixel and the weights from there on.
struct Taps(Vec<(usize, Vec<i32>)>);

impl Taps {
    fn new(input: usize, output: usize, filter: Filter) -> Taps {
        let (kernel, support): (fn(f64) -> f64, f64) = match filter {
            Filter::Bicubic => (cubic, 2.0),
            _ => (|x| (1.0 - x.abs()).max(0.0), 1.0),
        };
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0); // a reduction widens the filter: that is the antialiasing
        let support = support * stretch;
        let taps = (0..output).map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let last = ((center + support + 0.5) as usize).min(input);
            let weights: Vec<f64> = (first..last).map(|x| kernel((x as f64 - center + 0.5) / stretch)).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = weights.iter().map(|w| {
                let w = if sum == 0.0 { *w } else { w / sum } * f64::from(1u32 << PRECISION);
                (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
            });
            (first, fixed.collect())
        });
        Taps(taps.collect())
    }

    fn apply(&self, i: usize, pixel: impl Fn(usize) -> u8) -> u8 {
        let (first, weights) = &self.0[i];
        let sum = weights
            .iter()
            .enumerate()
            .fold(1i64 << (PRECISION - 1), |s, (k, &w)| s + i64::from(pixel(first + k)) * i64::from(w));
        (sum >> PRECISION).clamp(0, 255) as u8
    }
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prep(resize: Filter) -> Preparation {
        Preparation { mean: vec![0.0], scale: vec![1.0], crop: Crop::None, resize, order: Order::Rgb }
    }

    fn gradient() -> Rgb {
        let pixel = |i: usize| {
            let (y, x) = (i / 7, i % 7);
            [(x * 37 + y * 11) as u8, (255 - x * 30) as u8, (y * 60) as u8]
        };
        Rgb { height: 5, width: 7, pixels: (0..35).map(pixel).collect() }
    }

    /// Pillow 13: `Image.fromarray(a).resize((4, 3), FILTER)` of the same picture, red.
    #[test]
    fn resizing_gives_pillows_pixels() {
        let dims = [Some(1), Some(3), Some(3), Some(4)];
        for (filter, expected) in PILLOW {
            let t = tensor(&gradient(), &dims, &prep(*filter)).unwrap();
            assert_eq!(&t.to_f64()[..12].iter().map(|&x| x as u8).collect::<Vec<_>>(), expected, "{filter:?}");
        }
    }

    const PILLOW: &[(Filter, &[u8])] = &[
        (Filter::Bicubic, &[19, 81, 149, 211, 37, 99, 167, 234, 55, 117, 191, 165]),
        (Filter::Bilinear, &[24, 82, 150, 208, 41, 99, 167, 225, 58, 116, 184, 166]),
        (Filter::Nearest, &[0, 74, 148, 222, 22, 96, 170, 244, 44, 118, 192, 10]),
    ];

    #[test]
    fn the_crop_is_centred_and_largest() {
        let pixels = (0..640 * 427).map(|i| [(i % 640) as u8, (i / 640) as u8, 0]).collect();
        let c = center_crop(&Rgb { height: 427, width: 640, pixels }, 224, 224);
        assert_eq!((c.width, c.height), (427, 427));
        assert_eq!(c.pixels[0], [106, 0, 0]);
    }

    #[test]
    fn mean_and_scale_apply_per_channel_in_the_chosen_order() {
        let p = Preparation { mean: vec![1.0, 2.0, 3.0], scale: vec![2.0], order: Order::Bgr, ..prep(Filter::Nearest) };
        let t = tensor(&gradient(), &[Some(1), Some(3), Some(5), Some(7)], &p).unwrap().to_f64();
        assert_eq!((t[0], t[35], t[70]), ((0.0 - 1.0) * 2.0, (255.0 - 2.0) * 2.0, (0.0 - 3.0) * 2.0));
        let wrong = Preparation { mean: vec![0.0, 1.0], ..prep(Filter::Nearest) };
        assert!(
            tensor(&gradient(), &[Some(1), Some(3), None, None], &wrong).unwrap_err().contains("--image-mean has 2")
        );
    }

    /// `tests/data/gradient.jpg` is 8x8 pixels by Pillow; what it decodes to there, to a level of rounding.
    #[test]
    fn jpeg_pictures_are_read_whole_or_not_at_all() {
        let bytes = include_bytes!("../../tests/data/gradient.jpg");
        let image = decode_jpeg(bytes).unwrap();
        assert_eq!((image.height, image.width), (8, 8));
        for (i, (red, green)) in PILLOW_JPEG.iter().enumerate() {
            assert!(image.pixels[i][0].abs_diff(*red) <= 1, "{:?}", &image.pixels[..8]);
            assert!(image.pixels[56 + i][1].abs_diff(*green) <= 1, "{:?}", &image.pixels[56..]);
        }
        for end in [bytes.len() - 2, bytes.len() - 20] {
            assert_eq!(decode_jpeg(&bytes[..end]).err().as_deref(), Some("a JPEG picture that is cut off"));
        }
    }

    /// (red of the first row, green of the last row).
    const PILLOW_JPEG: [(u8, u8); 8] =
        [(40, 204), (57, 205), (78, 204), (100, 204), (118, 204), (137, 203), (161, 204), (178, 204)];

    #[test]
    fn headers_of_pictures_are_not_trusted() {
        let mut bytes = Vec::new();
        let mut writer = png::Encoder::new(&mut bytes, 1 << 15, 1 << 16).write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, &[0; 16]).unwrap();
        drop(writer);
        let refusal = "a picture of 32768x65536 pixels; the limit is 178956970 pixels";
        assert_eq!(decode_png(&bytes).err().as_deref(), Some(refusal));
        // The height stands in the frame header (ff c0), behind its length and the precision.
        let mut bytes = include_bytes!("../../tests/data/gradient.jpg").to_vec();
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0x3f, 0xff, 0x3f, 0xff]);
        let refusal = "a picture of 16383x16383 pixels; the limit is 178956970 pixels";
        assert_eq!(decode_jpeg(&bytes).err().as_deref(), Some(refusal));
    }

    #[test]
    fn inputs_that_hold_no_picture_are_refused() {
        assert!(tensor(&gradient(), &[Some(1), Some(10)], &prep(Filter::Nearest)).is_err());
        assert!(tensor(&gradient(), &[Some(1), Some(5), Some(8), Some(8)], &prep(Filter::Nearest)).is_err());
        assert!(tensor(&gradient(), &[Some(4), Some(3), Some(8), Some(8)], &prep(Filter::Nearest)).is_err());
    }
}
