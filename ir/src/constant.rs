//! Constants of a graph: handles to weights, never copies of them.
//!
//! A model's weights stay where they are, mostly in the mapped model file; the graph holds a [`Constant`], which is a
//! type and a cheap reference. A *splat*, one number for all elements, stays one number however large its shape.

use crate::{DType, Tensor, TensorType};
use std::ops::Range;
use std::sync::Arc;

/// Memory that outlives the graph: an owned vector, a mapped file.
pub type Storage = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A constant tensor: dimensions, element type and where its bytes are. Cloning copies the handle.
#[derive(Clone)]
pub struct Constant {
    dtype: DType,
    dims: Vec<usize>,
    data: Source,
}

#[derive(Clone)]
enum Source {
    Bytes { storage: Storage, range: Range<usize> },
    Splat([u8; 8]), // the first dtype.bytes() of them, little-endian
}

impl Constant {
    /// A constant over a part of `storage`: little-endian, row-major. `None` if the range does not fit storage or type.
    pub fn from_storage(dtype: DType, dims: &[usize], storage: Storage, range: Range<usize>) -> Option<Constant> {
        let n = dims.iter().try_fold(dtype.bytes(), |a, &d| a.checked_mul(d))?;
        let whole = (*storage).as_ref().len();
        (range.start <= range.end && range.end <= whole && range.len() == n).then(|| Constant {
            dtype,
            dims: dims.to_vec(),
            data: Source::Bytes { storage, range },
        })
    }

    /// A constant that owns a tensor's elements.
    pub fn from_tensor(t: &Tensor) -> Constant {
        let bytes = t.to_bytes();
        let range = 0..bytes.len();
        Constant { dtype: t.dtype(), dims: t.dims().to_vec(), data: Source::Bytes { storage: Arc::new(bytes), range } }
    }

    /// A constant with every element equal to the single element of `value`. `None` if `value` has not exactly one.
    pub fn splat(value: &Tensor, dims: &[usize]) -> Option<Constant> {
        (value.elems() == 1).then(|| {
            let mut raw = [0; 8];
            let bytes = value.to_bytes();
            raw[..bytes.len()].copy_from_slice(&bytes);
            Constant { dtype: value.dtype(), dims: dims.to_vec(), data: Source::Splat(raw) }
        })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Type and shape.
    pub fn ty(&self) -> TensorType {
        TensorType::fixed(self.dtype, &self.dims)
    }

    /// The number of elements; saturates for a splat of absurd dimensions.
    pub fn elems(&self) -> usize {
        self.dims.iter().fold(1usize, |a, &d| a.saturating_mul(d))
    }

    /// The bytes where they lie, or `None` for a splat.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.data {
            Source::Bytes { storage, range } => Some(&(**storage).as_ref()[range.clone()]),
            Source::Splat(_) => None,
        }
    }

    /// The one element of a splat as a scalar tensor, also of an ordinary constant of one element.
    pub fn splat_value(&self) -> Option<Tensor> {
        let one = match &self.data {
            Source::Splat(raw) => &raw[..self.dtype.bytes()],
            Source::Bytes { .. } if self.elems() == 1 => self.bytes()?,
            Source::Bytes { .. } => return None,
        };
        Tensor::from_bytes(self.dtype, &[], one)
    }

    /// The elements, copied out (a splat is expanded). The caller bounds the size: see [`Constant::elems`].
    pub fn to_tensor(&self) -> Tensor {
        match &self.data {
            Source::Bytes { .. } => {
                Tensor::from_bytes(self.dtype, &self.dims, self.bytes().unwrap_or_default()).expect("checked when made")
            }
            Source::Splat(raw) => {
                let size = self.dtype.bytes();
                Tensor::from_bytes(self.dtype, &self.dims, &raw[..size].repeat(self.elems())).expect("repeated to fit")
            }
        }
    }

    /// The same elements under other dimensions; `None` if the counts differ.
    pub fn reshaped(&self, dims: &[usize]) -> Option<Constant> {
        let n = dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d))?;
        (n == self.elems()).then(|| Constant { dims: dims.to_vec(), ..self.clone() })
    }

    /// Whether two handles refer to the same bytes (not: to equal bytes in two places).
    pub fn same_storage(&self, other: &Constant) -> bool {
        match (&self.data, &other.data) {
            (Source::Splat(a), Source::Splat(b)) => a == b,
            (Source::Bytes { storage: a, range: r }, Source::Bytes { storage: b, range: s }) => {
                Arc::ptr_eq(a, b) && r == s
            }
            _ => false,
        }
    }
}

impl PartialEq for Constant {
    /// Equal types and equal elements, bit by bit.
    fn eq(&self, other: &Constant) -> bool {
        if self.dtype != other.dtype || self.dims != other.dims {
            return false;
        }
        if self.same_storage(other) {
            return true;
        }
        match (self.bytes(), other.bytes()) {
            (Some(a), Some(b)) => a == b,
            (None, None) => false, // two splats of different value
            _ => {
                let (whole, splat) = if self.bytes().is_some() { (self, other) } else { (other, self) };
                let value = splat.splat_value().map(|t| t.to_bytes()).unwrap_or_default();
                whole.bytes().unwrap_or_default().chunks(self.dtype.bytes()).all(|c| c == value)
            }
        }
    }
}

impl std::fmt::Debug for Constant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.bytes().is_some() { "constant" } else { "splat" };
        write!(f, "{kind} {}", self.ty())
    }
}
