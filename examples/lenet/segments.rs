//! Characters of seven segments, drawn by the program: what the training examples learn from where no file is given.
//!
//! ```text
//!      a            Each sample has a size, a slant, a thickness, a place and a brightness of its own, and noise, as a
//!    f   b          function of its number and the seed.
//!      g
//!    e   c          A data set is whatever implements `Dataset`: samples by number, each an input and a target. Nothing
//!      d            is kept in memory here, a sample is drawn when it is read.
//! ```

use nncc::training::data::{DataError, Dataset, Targets};
use nncc_ir::philox::Stream;

/// The side of a drawing.
const SIDE: usize = 28;

/// Where segments begin and end, in a box of width 1 and height 2.
const ENDS: [[(f64, f64); 2]; 7] = [
    [(0.0, 0.0), (1.0, 0.0)],
    [(1.0, 0.0), (1.0, 1.0)],
    [(1.0, 1.0), (1.0, 2.0)],
    [(0.0, 2.0), (1.0, 2.0)],
    [(0.0, 1.0), (0.0, 2.0)],
    [(0.0, 0.0), (0.0, 1.0)],
    [(0.0, 1.0), (1.0, 1.0)],
];

/// Drawings of an alphabet, its characters in turn.
pub struct Segments {
    glyphs: Vec<u8>,
    targets: Targets,
    seed: u64,
}

impl Segments {
    /// `count` drawings of these characters.
    pub fn new(alphabet: &[(&str, u8)], count: usize, seed: u64) -> Segments {
        let names = alphabet.iter().map(|(name, _)| name.to_string()).collect();
        let of = (0..count).map(|i| (i % alphabet.len()) as u32).collect();
        let glyphs = alphabet.iter().map(|(_, segments)| *segments).collect();
        Segments { glyphs, targets: Targets::Classes { of, names }, seed }
    }
}

impl Dataset for Segments {
    fn len(&self) -> usize {
        match &self.targets {
            Targets::Classes { of, .. } => of.len(),
            Targets::Values { .. } => 0,
        }
    }

    fn dims(&self) -> &[usize] {
        &[1, SIDE, SIDE]
    }

    fn targets(&self) -> &Targets {
        &self.targets
    }

    fn white(&self) -> f32 {
        1.0
    }

    fn place(&self, sample: usize) -> String {
        format!("drawing {sample}")
    }

    fn read(&self, sample: usize, out: &mut [f32]) -> Result<(), DataError> {
        let segments = self.glyphs[sample % self.glyphs.len()];
        let mut random = Stream::new(self.seed, [sample as u32, 0, 0]);
        let unit = random.between(6.0, 10.0);
        let (left, top) = (random.between(4.0, 24.0 - unit), random.between(3.0, 25.0 - 2.0 * unit));
        let (slant, radius, ink) = (random.between(-0.2, 0.2), random.between(0.7, 1.6), random.between(0.6, 1.0));
        let on = ENDS.iter().enumerate().filter(|(bit, _)| segments >> bit & 1 == 1);
        let on: Vec<[(f64, f64); 2]> =
            on.map(|(_, ends)| ends.map(|(x, y)| (left + unit * (x + slant * (1.0 - y)), top + unit * y))).collect();
        for (i, pixel) in out.iter_mut().enumerate() {
            let at = ((i % SIDE) as f64, (i / SIDE) as f64);
            let distance = on.iter().map(|&ends| distance(at, ends)).fold(f64::INFINITY, f64::min);
            let covered = (radius + 0.5 - distance).clamp(0.0, 1.0);
            *pixel = (ink * covered + 0.1 * random.normal()).clamp(0.0, 1.0) as f32;
        }
        Ok(())
    }
}

/// From a point to a line between two others.
fn distance(p: (f64, f64), [a, b]: [(f64, f64); 2]) -> f64 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let along = (((p.0 - a.0) * dx + (p.1 - a.1) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
    (p.0 - a.0 - along * dx).hypot(p.1 - a.1 - along * dy)
}
