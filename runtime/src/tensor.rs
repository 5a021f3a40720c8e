//! Tensors: views of the caller's memory, and owned ones for results.

use std::fmt;

/// Element types; the numbers are those of ONNX and of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum DType {
    F32 = 1,
    U8 = 2,
    I8 = 3,
    U16 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    /// One byte, 0 or 1.
    Bool = 9,
    F64 = 11,
    U32 = 12,
    U64 = 13,
}

impl DType {
    const ALL: [DType; 11] = [
        DType::F32,
        DType::U8,
        DType::I8,
        DType::U16,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::Bool,
        DType::F64,
        DType::U32,
        DType::U64,
    ];

    /// The type of an ABI number.
    pub fn from_code(code: u32) -> Option<DType> {
        DType::ALL.into_iter().find(|&dtype| dtype as u32 == code)
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::U8 | DType::I8 | DType::Bool => 1,
            DType::U16 | DType::I16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Rust types that are elements of tensors: plain numbers for which every bit pattern is a value.
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The element type.
    const DTYPE: DType;
}

macro_rules! element {
    ($($ty:ty = $dtype:ident),*) => {
        $(impl sealed::Sealed for $ty {}
        impl Element for $ty {
            const DTYPE: DType = DType::$dtype;
        })*
    };
}

element!(f32 = F32, f64 = F64, i8 = I8, i16 = I16, i32 = I32, i64 = I64, u8 = U8, u16 = U16, u32 = U32, u64 = U64);

/// A tensor to read: the caller's elements in C order, not copied.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    dtype: DType,
    shape: &'a [usize],
    bytes: &'a [u8],
}

/// A tensor to write.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    dtype: DType,
    shape: &'a [usize],
    bytes: &'a mut [u8],
}

impl<'a> TensorView<'a> {
    /// Elements with a shape. Whether the shape is the model's is checked when it runs; a slice shorter than its shape too.
    pub fn new<T: Element>(elements: &'a [T], shape: &'a [usize]) -> TensorView<'a> {
        // SAFETY: `T` is a plain number without padding, so its memory is initialised bytes; the length is the slice's own.
        let bytes = unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) };
        TensorView { dtype: T::DTYPE, shape, bytes }
    }

    /// Raw bytes with an element type, for data that is typed at run time only.
    pub fn from_bytes(dtype: DType, bytes: &'a [u8], shape: &'a [usize]) -> TensorView<'a> {
        TensorView { dtype, shape, bytes }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The extents.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The elements' bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> TensorViewMut<'a> {
    /// Elements with a shape, as for [`TensorView::new`].
    pub fn new<T: Element>(elements: &'a mut [T], shape: &'a [usize]) -> TensorViewMut<'a> {
        // SAFETY: as for `TensorView::new`, and every bit pattern that is written is a value of `T`.
        let bytes = unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), size_of_val(elements)) };
        TensorViewMut { dtype: T::DTYPE, shape, bytes }
    }

    /// Raw bytes with an element type.
    pub fn from_bytes(dtype: DType, bytes: &'a mut [u8], shape: &'a [usize]) -> TensorViewMut<'a> {
        TensorViewMut { dtype, shape, bytes }
    }

    /// Takes over elements given as bytes; `false` (and no change) if they are not as many.
    pub fn copy_from_bytes(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() == self.bytes.len();
        if fits {
            self.bytes.copy_from_slice(bytes);
        }
        fits
    }

    pub(crate) fn parts(&mut self) -> (DType, &[usize], &mut [u8]) {
        (self.dtype, self.shape, self.bytes)
    }
}

/// An owned tensor.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    /// Words, so that the memory is aligned for every element type.
    words: Vec<u64>,
}

impl Tensor {
    /// All zero.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Tensor {
        let bytes = shape.iter().product::<usize>() * dtype.size();
        Tensor { dtype, shape: shape.to_vec(), words: vec![0; bytes.div_ceil(8)] }
    }

    /// A copy of elements in C order, given as bytes; `None` if they are not as many as the shape says.
    pub fn from_bytes(dtype: DType, bytes: &[u8], shape: &[usize]) -> Option<Tensor> {
        let need = shape.iter().try_fold(dtype.size(), |bytes, &extent| bytes.checked_mul(extent))?;
        if bytes.len() != need {
            return None;
        }
        let mut tensor = Tensor::zeros(dtype, shape);
        tensor.view_mut().bytes.copy_from_slice(bytes);
        Some(tensor)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, if they are of that type. Booleans are read as `u8`.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        let same = T::DTYPE == self.dtype || (T::DTYPE, self.dtype) == (DType::U8, DType::Bool);
        // SAFETY: the words hold at least `len` elements of the type's size, are aligned to 8, and any bits are a value.
        same.then(|| unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.len()) })
    }

    /// The same, to write.
    pub fn as_mut_slice<T: Element>(&mut self) -> Option<&mut [T]> {
        let same = T::DTYPE == self.dtype || (T::DTYPE, self.dtype) == (DType::U8, DType::Bool);
        let len = self.len();
        // SAFETY: as for `as_slice`, and the words are borrowed mutably.
        same.then(|| unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), len) })
    }

    /// The elements' bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the words hold at least that many initialised bytes.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.len() * self.dtype.size()) }
    }

    /// A view to read.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, bytes: self.bytes() }
    }

    /// A view to write.
    pub fn view_mut(&mut self) -> TensorViewMut<'_> {
        let bytes = self.len() * self.dtype.size();
        // SAFETY: the words hold at least that many initialised bytes, borrowed mutably.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), bytes) };
        TensorViewMut { dtype: self.dtype, shape: &self.shape, bytes }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({}{:?})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_tensors_hold_what_they_are_given() {
        let mut t = Tensor::from_bytes(DType::I16, &[1, 0, 255, 255, 3, 0], &[3]).unwrap();
        assert_eq!(t.as_slice::<i16>(), Some(&[1, -1, 3][..]));
        t.as_mut_slice::<i16>().unwrap()[1] = 7;
        assert_eq!(t.view().bytes(), [1, 0, 7, 0, 3, 0]);
        assert!(t.as_mut_slice::<u16>().is_none());
        assert!(Tensor::from_bytes(DType::I16, &[1, 0, 255], &[2]).is_none());
        assert!(Tensor::from_bytes(DType::F64, &[], &[usize::MAX, 2]).is_none());
        assert!(Tensor::from_bytes(DType::F64, &[], &[0, 2]).unwrap().is_empty());
    }
}
