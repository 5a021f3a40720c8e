//! Philox4x32-10: random numbers as a function of a key and a counter, without a state.
//!
//! ```text
//! one of ten rounds, of the counter (c0 c1 c2 c3) and the key (k0 k1):
//!     (h0, l0) = c0 * 0xD2511F53     (h1, l1) = c2 * 0xCD9E8D57        high and low halves of 64-bit products
//!     c' = (h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0)
//!     k' = (k0 + 0x9E3779B9, k1 + 0xBB67AE85)                          Weyl steps: golden ratio, sqrt(3) - 1
//! ```
//!
//! A generator with a state gives each draw a place in one sequence, so that the split of work over threads or lanes, or
//! the place where a run was resumed, would change the numbers. Here a draw belongs to what it is for: the key is the
//! seed, the counter says which element of which step (or which sample of which epoch) is meant.
//!
//! Not for secrets. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the
//! known answers of the tests are those that its authors publish with Random123.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Four random words for this counter under this key.
pub fn philox4x32(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let (mut k, mut c) = (key, counter);
    for round in 0..ROUNDS {
        if round > 0 {
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        }
        let [p0, p1] = [u64::from(c[0]) * u64::from(MULTIPLIERS[0]), u64::from(c[2]) * u64::from(MULTIPLIERS[1])];
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
    }
    c
}

/// The key that a 64-bit seed stands for: the low word first.
pub fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// A word as a number in `[0, 1)`: its high 24 bits times 2^-24. f32 holds each of these exactly, so that 1 cannot come
/// out by rounding, and `uniform(word) < p` has the same answer wherever it is computed.
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

/// Two words as a number in `[0, 1)`: 53 bits, `high` above the upper 21 of `low`.
pub fn uniform_f64(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high) << 21) | u64::from(low >> 11);
    bits as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Two words as two independent numbers of the standard normal distribution, by Box and Muller (1958):
///
/// ```text
/// r = sqrt(-2 ln u),  u = (high 24 bits of the first + 1) / 2^24 in (0, 1]      r cos(2 pi v),  r sin(2 pi v)
/// ```
///
/// with v the second as [`uniform`]. Computed in f64; the largest magnitude that can come out is sqrt(48 ln 2) = 5.77.
pub fn normal(words: [u32; 2]) -> [f64; 2] {
    let u = f64::from((words[0] >> 8) + 1) / f64::from(1 << 24);
    let r = (-2.0 * u.ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * f64::from(uniform(words[1]))).sin_cos();
    [r * cos, r * sin]
}

/// The numbers of one purpose in order: counters `[0, 1, 2, ..]` in the first word, the purpose in the other three.
///
/// An ordinary sequence for code that draws a varying count (a shuffle, a picture's augmentation), and still a function
/// of key and purpose alone.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    purpose: [u32; 3],
    block: u32,
    words: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream of this seed for this purpose, for instance what it is drawn for, epoch, and sample.
    pub fn new(seed: u64, purpose: [u32; 3]) -> Stream {
        Stream { key: key(seed), purpose, block: 0, words: [0; 4], used: 4 }
    }

    /// The next word. After 2^34 words the stream begins again.
    pub fn word(&mut self) -> u32 {
        if self.used == self.words.len() {
            let [a, b, c] = self.purpose;
            self.words = philox4x32(self.key, [self.block, a, b, c]);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// The next number in `[0, 1)`, of 53 bits.
    pub fn uniform(&mut self) -> f64 {
        let high = self.word();
        uniform_f64(high, self.word())
    }

    /// The next number of `[low, high)`; `low` if the interval is empty.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.uniform() * (high - low)
    }

    /// The next number of the standard normal distribution (the first of [`normal`]'s two).
    pub fn normal(&mut self) -> f64 {
        let first = self.word();
        normal([first, self.word()])[0]
    }

    /// A number below `bound`, each equally likely: the product's high half, drawn again where it would favour some
    /// (Lemire, "Fast random integer generation in an interval", 2019). 0 if `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        let threshold = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
        loop {
            let product = u64::from(self.word()) * u64::from(bound);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// Puts the items into random order, each order equally likely (Fisher and Yates, from the back).
    ///
    /// # Panics
    /// If there are more than 2^32 - 1 items.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        assert!(u32::try_from(items.len()).is_ok(), "{} items are more than a word can number", items.len());
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random123's `kat_vectors`, the lines of `philox4x32 10`.
    #[test]
    fn the_published_answers() {
        let all = u32::MAX;
        let zero = philox4x32([0; 2], [0; 4]);
        assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = philox4x32([all; 2], [all; 4]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox4x32([0xa409_3822, 0x299f_31d0], pi), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
        assert_eq!(key(0x299f_31d0_a409_3822), [0xa409_3822, 0x299f_31d0]);
    }

    #[test]
    fn uniform_numbers_stay_below_one() {
        assert_eq!((uniform(0), uniform(255), uniform(256)), (0.0, 0.0, 2f32.powi(-24)));
        assert_eq!(uniform(u32::MAX), 1.0 - 2f32.powi(-24));
        assert_eq!(uniform_f64(u32::MAX, u32::MAX), 1.0 - 2f64.powi(-53));
        assert_eq!(uniform_f64(0, 1 << 11), 2f64.powi(-53));
    }

    #[test]
    fn normal_numbers_are_finite_at_the_ends() {
        let [c, s] = normal([0, 0]);
        assert!((c - (48.0 * std::f64::consts::LN_2).sqrt()).abs() < 1e-12 && s == 0.0, "{c} {s}");
        assert_eq!(normal([u32::MAX, 12345]).map(f64::abs), [0.0; 2]);
    }

    /// Mean, variance, skewness and kurtosis of 10^5 numbers, within five standard errors of the distribution's.
    #[test]
    fn moments_are_those_of_the_distribution() {
        let n = 100_000;
        let mut stream = Stream::new(1, [0; 3]);
        let moments = |draw: &mut dyn FnMut() -> f64| {
            let mut sums = [0.0; 4];
            for _ in 0..n {
                let x = draw();
                for (sum, power) in sums.iter_mut().zip(1..) {
                    *sum += x.powi(power) / f64::from(n);
                }
            }
            sums
        };
        let near = |got: [f64; 4], expected: [f64; 4], variances: [f64; 4]| {
            for i in 0..4 {
                let error = (variances[i] / f64::from(n)).sqrt();
                assert!((got[i] - expected[i]).abs() < 5.0 * error, "moment {}: {} for {}", i + 1, got[i], expected[i]);
            }
        };
        // Var[x^k] = E[x^2k] - E[x^k]^2
        let normal = moments(&mut || stream.normal());
        near(normal, [0.0, 1.0, 0.0, 3.0], [1.0, 2.0, 15.0, 96.0]);
        let uniform = moments(&mut || stream.uniform());
        let variance = |k: f64| 1.0 / (2.0 * k + 1.0) - 1.0 / (k + 1.0).powi(2);
        near(uniform, [1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0, 1.0 / 5.0], [1.0, 2.0, 3.0, 4.0].map(variance));
    }

    /// All 24 orders of four items, chi-square with 23 degrees of freedom below its 0.9999 quantile.
    #[test]
    fn each_order_is_equally_likely() {
        let mut counts = std::collections::HashMap::new();
        let n = 24_000;
        for i in 0..n {
            let mut items = [0, 1, 2, 3];
            Stream::new(7, [3, 0, i]).shuffle(&mut items);
            *counts.entry(items).or_insert(0) += 1;
        }
        let expected = f64::from(n) / 24.0;
        let chi: f64 = counts.values().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum();
        assert!(counts.len() == 24 && chi < 58.6, "{} orders, chi-square {chi}", counts.len());
    }

    #[test]
    fn a_stream_belongs_to_its_purpose() {
        let words = |seed, purpose| {
            let mut stream = Stream::new(seed, purpose);
            [(); 9].map(|()| stream.word())
        };
        let first = words(5, [1, 2, 3]);
        assert_eq!(first[..4], philox4x32([5, 0], [0, 1, 2, 3]));
        assert_eq!(first[4..8], philox4x32([5, 0], [1, 1, 2, 3]));
        assert_ne!(first, words(5 << 32, [1, 2, 3]));
        assert_eq!(Stream::new(1, [0; 3]).below(0), 0);
        assert!((0..1000).all(|i| Stream::new(1, [0, 0, i]).below(3) < 3));
    }
}
