//! Floating-point arithmetic of one lane, bit for bit as x86 does it, default rounding and all exceptions masked.
//!
//! A NaN operand is the result, made quiet: the first in the instruction's order of operands. An invalid operation on numbers
//! gives the default NaN, which is negative. `min` and `max` give their second operand when the two are equal or one is NaN.
//! Source: Intel SDM volume 1, 4.8.3 and 11.5.2; volume 2, the operation of each instruction.

use crate::state::Lane;

/// The bits of a float, with x86's arithmetic.
pub trait Float: Lane {
    /// What an invalid operation gives.
    const DEFAULT_NAN: Self;

    /// Whether these bits are a NaN.
    fn is_nan(self) -> bool;
    /// The quiet NaN with the same payload.
    fn quiet(self) -> Self;
    /// Sum.
    fn add(self, b: Self) -> Self;
    /// Difference.
    fn sub(self, b: Self) -> Self;
    /// Product.
    fn mul(self, b: Self) -> Self;
    /// Quotient.
    fn div(self, b: Self) -> Self;
    /// `a < b ? a : b`.
    fn min(self, b: Self) -> Self;
    /// `a > b ? a : b`.
    fn max(self, b: Self) -> Self;
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// To an integer: 0 to nearest, ties to even; 1 down; 2 up; 3 toward zero.
    fn round(self, mode: u8) -> Self;
    /// The comparison with this predicate.
    fn compare(self, b: Self, predicate: u8) -> bool;
}

macro_rules! float {
    ($bits:ty, $float:ty, $default:literal, $quiet:literal) => {
        impl Float for $bits {
            const DEFAULT_NAN: $bits = $default;

            #[inline(always)]
            fn is_nan(self) -> bool {
                <$float>::from_bits(self).is_nan()
            }

            #[inline(always)]
            fn quiet(self) -> $bits {
                self | $quiet
            }

            #[inline(always)]
            fn add(self, b: $bits) -> $bits {
                settle((<$float>::from_bits(self) + <$float>::from_bits(b)).to_bits(), &[self, b])
            }

            #[inline(always)]
            fn sub(self, b: $bits) -> $bits {
                settle((<$float>::from_bits(self) - <$float>::from_bits(b)).to_bits(), &[self, b])
            }

            #[inline(always)]
            fn mul(self, b: $bits) -> $bits {
                settle((<$float>::from_bits(self) * <$float>::from_bits(b)).to_bits(), &[self, b])
            }

            #[inline(always)]
            fn div(self, b: $bits) -> $bits {
                settle((<$float>::from_bits(self) / <$float>::from_bits(b)).to_bits(), &[self, b])
            }

            #[inline(always)]
            fn min(self, b: $bits) -> $bits {
                if <$float>::from_bits(self) < <$float>::from_bits(b) { self } else { b }
            }

            #[inline(always)]
            fn max(self, b: $bits) -> $bits {
                if <$float>::from_bits(self) > <$float>::from_bits(b) { self } else { b }
            }

            #[inline(always)]
            fn fma(self, b: $bits, c: $bits) -> $bits {
                let r = <$float>::from_bits(self).mul_add(<$float>::from_bits(b), <$float>::from_bits(c));
                settle(r.to_bits(), &[self, b, c])
            }

            #[inline(always)]
            fn sqrt(self) -> $bits {
                settle(<$float>::from_bits(self).sqrt().to_bits(), &[self])
            }

            #[inline(always)]
            fn round(self, mode: u8) -> $bits {
                let x = <$float>::from_bits(self);
                let r = match mode {
                    0 => x.round_ties_even(),
                    1 => x.floor(),
                    2 => x.ceil(),
                    _ => x.trunc(),
                };
                settle(r.to_bits(), &[self])
            }

            #[inline(always)]
            fn compare(self, b: $bits, predicate: u8) -> bool {
                let (a, b) = (<$float>::from_bits(self), <$float>::from_bits(b));
                let unordered = a.is_nan() || b.is_nan();
                // Predicates 16 to 31 are 0 to 15 with the other behaviour on quiet NaNs, which only exceptions show.
                match predicate & 15 {
                    0x0 => a == b,
                    0x1 => a < b,
                    0x2 => a <= b,
                    0x3 => unordered,
                    0x4 => a != b,
                    0x5 => a >= b || unordered,
                    0x6 => a > b || unordered,
                    0x7 => !unordered,
                    0x8 => a == b || unordered,
                    0x9 => a < b || unordered,
                    0xa => a <= b || unordered,
                    0xb => false,
                    0xc => a != b && !unordered,
                    0xd => a >= b,
                    0xe => a > b,
                    _ => true,
                }
            }
        }
    };
}

float!(u32, f32, 0xffc0_0000, 0x0040_0000);
float!(u64, f64, 0xfff8_0000_0000_0000, 0x0008_0000_0000_0000);

/// A result that is no NaN stands; else the first operand that is one does, or the default.
#[inline(always)]
fn settle<F: Float>(result: F, operands: &[F]) -> F {
    if result.is_nan() { nan(operands) } else { result }
}

#[cold]
fn nan<F: Float>(operands: &[F]) -> F {
    operands.iter().find(|x| x.is_nan()).map_or(F::DEFAULT_NAN, |x| x.quiet())
}

/// f32 to f64.
pub fn widen(x: u32) -> u64 {
    if x.is_nan() {
        let sign = u64::from(x >> 31) << 63;
        return (sign | 0x7ff0_0000_0000_0000 | u64::from(x & 0x007f_ffff) << 29).quiet();
    }
    f64::from(f32::from_bits(x)).to_bits()
}

/// f64 to f32.
pub fn narrow(x: u64) -> u32 {
    if x.is_nan() {
        let sign = (x >> 63 << 31) as u32;
        return (sign | 0x7f80_0000 | (x >> 29) as u32 & 0x007f_ffff).quiet();
    }
    (f64::from_bits(x) as f32).to_bits()
}

/// Truncation to 32 bits; what does not fit is the minimum, the "integer indefinite".
pub fn to_i32(x: f64) -> u32 {
    if x > -2_147_483_649.0 && x < 2_147_483_648.0 { x as i32 as u32 } else { 1 << 31 }
}

/// Truncation to 64 bits; what does not fit is the minimum.
pub fn to_i64(x: f64) -> u64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&x) { x as i64 as u64 } else { 1 << 63 }
}
