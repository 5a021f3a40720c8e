//! Pictures within a page: PNG in base64 (RFC 4648), drawn with hard pixels.

use crate::page::escape;
use std::fmt::Write;

/// A picture of 8 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    /// Gray, or red, green, blue in turn.
    pixels: Vec<u8>,
    coloured: bool,
}

impl Picture {
    /// A sample or filter `[C, H, W]`: three channels are colours, of other numbers the first is shown. `white` is the
    /// brightest value, or with `None` values are stretched from the least to the largest.
    pub fn planes(dims: [usize; 3], values: &[f32], white: Option<f32>) -> Picture {
        let [channels, height, width] = dims;
        let n = height * width;
        let shown = if channels == 3 { 3 } else { 1 };
        let used = &values[..(shown * n).min(values.len())];
        let (from, to) = match white {
            Some(white) => (0.0, white),
            None => used.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x))),
        };
        let range = if to > from { to - from } else { 1.0 };
        let levels: Vec<u8> = used.iter().map(|&x| level((x - from) / range)).collect();
        let pixels = if shown == 3 && levels.len() == 3 * n {
            (0..n).flat_map(|i| [levels[i], levels[n + i], levels[2 * n + i]]).collect()
        } else {
            levels
        };
        Picture { width: width.max(1), pixels, coloured: shown == 3 }
    }

    fn height(&self) -> usize {
        self.pixels.len() / self.width / if self.coloured { 3 } else { 1 }
    }

    fn png(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height() as u32);
        encoder.set_color(if self.coloured { png::ColorType::Rgb } else { png::ColorType::Grayscale });
        encoder.write_header().ok()?.write_image_data(&self.pixels).ok()?;
        Some(bytes)
    }
}

/// 0 is black, 1 is white; what is beyond is the nearer of both.
fn level(x: f32) -> u8 {
    (x * 255.0).round().clamp(0.0, 255.0) as u8
}

/// A section of pictures; empty if there are none.
pub fn section<'a>(title: &str, text: &str, pictures: impl Iterator<Item = (&'a Picture, &'a str)>) -> String {
    let mut figures = String::new();
    for (picture, caption) in pictures {
        let Some(png) = picture.png() else { continue };
        let (w, h) = (picture.width, picture.height());
        // Small pictures are enlarged by a whole number, to about a hundred pixels.
        let zoom = (100 / w.max(h)).max(1);
        let _ = write!(
            figures,
            "<figure><svg viewBox=\"0 0 {w} {h}\" style=\"width:{}px\"><image width=\"{w}\" height=\"{h}\" \
             href=\"data:image/png;base64,{}\"/></svg>",
            (w * zoom).min(150),
            base64(&png)
        );
        if !caption.is_empty() {
            let _ = write!(figures, "<figcaption>{}</figcaption>", escape(caption));
        }
        figures += "</figure>\n";
    }
    if figures.is_empty() {
        return String::new();
    }
    let (title, text) = (escape(title), escape(text));
    format!("<h2>{title}</h2>\n<p>{text}</p>\n<div class=\"pictures\">\n{figures}</div>\n")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char;
            out.push(if i <= group.len() { digit } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Rgb;

    /// RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_the_rfc() {
        let vectors = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (n, expected) in vectors.iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..n]), *expected);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }

    #[test]
    fn pictures_are_what_they_show() {
        let colours = Picture::planes([3, 1, 2], &[0.0, 255.0, 128.0, 300.0, -5.0, 1.0], Some(255.0));
        let back = Rgb::decode(&colours.png().unwrap()).unwrap();
        assert_eq!((back.width, back.pixels), (2, vec![[0, 128, 0], [255, 255, 1]]));
        let stretched = Picture::planes([8, 1, 3], &[&[-1.0, 0.0, 1.0][..], &[9.0; 21]].concat(), None);
        let back = Rgb::decode(&stretched.png().unwrap()).unwrap();
        assert_eq!(back.pixels, [[0; 3], [128; 3], [255; 3]]);
        assert_eq!(Picture::planes([1, 1, 2], &[3.0, 3.0], None).pixels, [0, 0]);
        let empty = Picture::planes([3, 0, 0], &[], None);
        assert_eq!(section("t", "", [(&empty, "")].into_iter()), "");
    }
}
