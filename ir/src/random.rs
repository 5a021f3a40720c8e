//! Pseudo-random numbers and tensors, the same on every machine: for `seed(N)` constants of the text form and for tests.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): a counter through a mixing function. Any seed is good, and equal seeds give equal
//! tensors for ever: texts with `seed(7)` rely on it.

use crate::{DType, Data, Tensor};

/// The generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that starts at `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 for `n = 0`. The bias of at most n/2^64 does not matter here.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// A number in -1..1 with 24 random bits, so that f32 holds it exactly.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 40) as f64 / f64::from(1 << 23) - 1.0
    }
}

/// A tensor of random elements: floats in -1..1, signed integers in -8..8, unsigned ones in 0..16, bools.
pub fn tensor(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    let (mut rng, n) = (Rng::new(seed), dims.iter().product::<usize>());
    if dtype.is_float() {
        let v: Vec<f64> = (0..n).map(|_| rng.unit()).collect();
        return Tensor::from_f64(dtype, dims, &v);
    }
    let v: Vec<i64> = (0..n).map(|_| rng.below(16) as i64).collect();
    match dtype {
        DType::Bool => Tensor::of(dims, Data::Bool(v.iter().map(|x| x % 2 == 1).collect())),
        t if t.is_signed_int() => Tensor::from_i64(t, dims, &v.iter().map(|x| x - 8).collect::<Vec<_>>()),
        t => Tensor::from_i64(t, dims, &v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_tensors_for_ever() {
        let v = |seed| tensor(DType::F32, &[2], seed).to_f64();
        assert_eq!(v(7), v(7));
        assert_ne!(v(7), v(8));
        assert_eq!(Rng::new(0).bits(), 0xe220_a839_7b1d_cdaf); // the first output of the reference implementation
    }

    #[test]
    fn numbers_stay_in_range() {
        for dtype in DType::ALL {
            let (lo, hi) = if dtype.is_float() { (-1.0, 1.0) } else { (-8.0, 15.0) };
            assert!(tensor(dtype, &[100], 3).to_f64().iter().all(|x| (lo..=hi).contains(x)), "{dtype}");
        }
    }
}
