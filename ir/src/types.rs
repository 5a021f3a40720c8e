//! Types of values: element type and shape; and the layouts in which a value may be stored.
//!
//! A [`Layout`] never changes what an operator means: shapes are logical, and the reference evaluator ignores layouts. It
//! only says where in memory an element lies, which concerns layout assignment, memory planning and code generation.

use crate::{DType, Dim};
use std::fmt;

/// A shape: one [`Dim`] an axis. A scalar has rank 0.
pub type Shape = Vec<Dim>;

/// Channels in one block of [`Layout::Blocked`]: one zmm, two ymm, four xmm or NEON registers of f32. One number for
/// every target, so that one library has one copy of weights and activations need no conversion between variants.
pub const BLOCK: usize = 16;

/// The width of an edge block when that many channels are enough: 24 channels are stored as 16 + 8, not 32.
pub const HALF_BLOCK: usize = 8;

/// Element type and shape of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// The element type.
    pub dtype: DType,
    /// The logical shape.
    pub shape: Shape,
}

impl TensorType {
    /// A type from an element type and dimensions.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = Dim>) -> TensorType {
        TensorType { dtype, shape: shape.into_iter().collect() }
    }

    /// A type with a known shape.
    pub fn fixed(dtype: DType, dims: &[usize]) -> TensorType {
        TensorType { dtype, shape: dims.iter().map(|&d| Dim::from(d)).collect() }
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The dimensions as numbers, or `None` if one is symbolic.
    pub fn dims(&self) -> Option<Vec<usize>> {
        self.shape.iter().map(Dim::size).collect()
    }

    /// The number of elements, or `None` if a dimension is symbolic or the product overflows.
    pub fn elems(&self) -> Option<usize> {
        self.dims()?.into_iter().try_fold(1usize, usize::checked_mul)
    }

    /// The names of all symbols in the shape.
    pub fn symbols(&self) -> Vec<std::sync::Arc<str>> {
        let mut out: Vec<_> = self.shape.iter().flat_map(Dim::symbols).collect();
        out.sort();
        out.dedup();
        out
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, d) in self.shape.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { "," } else { "" })?;
        }
        f.write_str("]")
    }
}

/// Where the elements of a value lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// The last axis is contiguous (C order), as at the boundary of a model.
    #[default]
    RowMajor,
    /// `[N, C, spatial...]` stored as `[N][C / 16][spatial...][16]`; the last block is 8 wide if 8 lanes hold what is left
    /// of C. Lanes beyond C hold unspecified bits, which no kernel reads as data.
    Blocked,
}

/// The blocks of a channel axis under [`Layout::Blocked`]: width of each and where it begins.
///
/// Block `i` holds channels `16*i ..`, its lanes begin at channel offset `16*i` (in channels, so a plane of `s` pixels
/// begins at element `16*i*s`).
pub fn channel_blocks(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..channels.div_ceil(BLOCK)).map(move |i| {
        let left = channels - i * BLOCK;
        (i * BLOCK, if left <= HALF_BLOCK { HALF_BLOCK } else { BLOCK })
    })
}

/// Channels including padding lanes, as stored under [`Layout::Blocked`].
pub fn padded_channels(channels: usize) -> usize {
    channels.div_ceil(HALF_BLOCK) * HALF_BLOCK
}

impl Layout {
    /// Elements in memory, padding lanes included, of a value with these dimensions.
    pub fn stored_elems(self, dims: &[usize]) -> Option<usize> {
        let mul = |v: &[usize]| v.iter().try_fold(1usize, |a, &d| a.checked_mul(d));
        match self {
            Layout::RowMajor => mul(dims),
            Layout::Blocked => mul(&[dims[0], padded_channels(dims[1]), mul(&dims[2..])?]),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layout::RowMajor => "row_major",
            Layout::Blocked => "blocked",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_blocks_are_half_where_that_is_enough() {
        assert_eq!(channel_blocks(24).collect::<Vec<_>>(), [(0, 16), (16, 8)]);
        assert_eq!(channel_blocks(25).collect::<Vec<_>>(), [(0, 16), (16, 16)]);
        assert_eq!((padded_channels(3), padded_channels(16), padded_channels(25)), (8, 16, 32));
        assert_eq!(Layout::Blocked.stored_elems(&[2, 3, 5, 5]), Some(2 * 8 * 25));
    }
}
