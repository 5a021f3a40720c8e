//! Tensors in memory, as the reference evaluator and the tests use them: dense, row-major, owned.
//!
//! A tensor's elements are a typed vector. Code that is about numbers reads and writes through f64 ([`Tensor::to_f64`],
//! [`Tensor::from_f64`]); code that is about indices through i64; code that only moves elements uses [`map_data!`](crate::map_data), which
//! is the same generic body for each type.

use crate::{DType, TensorType};

/// The elements of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "one variant a DType")]
pub enum Data {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
}

/// A dense row-major tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dims: Vec<usize>,
    data: Data,
}

/// Runs one generic body on the typed vector: `map_data!(&t.data, v => v.iter().rev().cloned().collect())` gives `Data`
/// of the same type.
#[macro_export]
macro_rules! map_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::Data::F32($v) => $crate::Data::F32($body),
            $crate::Data::F64($v) => $crate::Data::F64($body),
            $crate::Data::I8($v) => $crate::Data::I8($body),
            $crate::Data::I16($v) => $crate::Data::I16($body),
            $crate::Data::I32($v) => $crate::Data::I32($body),
            $crate::Data::I64($v) => $crate::Data::I64($body),
            $crate::Data::U8($v) => $crate::Data::U8($body),
            $crate::Data::U16($v) => $crate::Data::U16($body),
            $crate::Data::U32($v) => $crate::Data::U32($body),
            $crate::Data::U64($v) => $crate::Data::U64($body),
            $crate::Data::Bool($v) => $crate::Data::Bool($body),
        }
    };
}

/// Runs one generic body on the typed vector and returns what it returns, whatever the type.
#[macro_export]
macro_rules! with_data {
    ($data:expr, $v:ident => $body:expr) => {
        match $data {
            $crate::Data::F32($v) => $body,
            $crate::Data::F64($v) => $body,
            $crate::Data::I8($v) => $body,
            $crate::Data::I16($v) => $body,
            $crate::Data::I32($v) => $body,
            $crate::Data::I64($v) => $body,
            $crate::Data::U8($v) => $body,
            $crate::Data::U16($v) => $body,
            $crate::Data::U32($v) => $body,
            $crate::Data::U64($v) => $body,
            $crate::Data::Bool($v) => $body,
        }
    };
}

impl Data {
    /// The number of elements.
    pub fn len(&self) -> usize {
        with_data!(self, v => v.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
            Data::I8(_) => DType::I8,
            Data::I16(_) => DType::I16,
            Data::I32(_) => DType::I32,
            Data::I64(_) => DType::I64,
            Data::U8(_) => DType::U8,
            Data::U16(_) => DType::U16,
            Data::U32(_) => DType::U32,
            Data::U64(_) => DType::U64,
            Data::Bool(_) => DType::Bool,
        }
    }
}

impl Tensor {
    /// A tensor from dimensions and elements; `None` if the counts differ.
    pub fn new(dims: &[usize], data: Data) -> Option<Tensor> {
        let n = dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d))?;
        (n == data.len()).then(|| Tensor { dims: dims.to_vec(), data })
    }

    /// A tensor whose element count is right by construction.
    ///
    /// # Panics
    /// If it is not: a bug of the caller.
    #[track_caller]
    pub fn of(dims: &[usize], data: Data) -> Tensor {
        let n = data.len();
        Tensor::new(dims, data).unwrap_or_else(|| panic!("{n} elements do not fill {dims:?}"))
    }

    /// An f32 tensor.
    #[track_caller]
    pub fn f32(dims: &[usize], v: Vec<f32>) -> Tensor {
        Tensor::of(dims, Data::F32(v))
    }

    /// An i64 tensor.
    #[track_caller]
    pub fn i64(dims: &[usize], v: Vec<i64>) -> Tensor {
        Tensor::of(dims, Data::I64(v))
    }

    /// A tensor of zeros.
    pub fn zeros(dtype: DType, dims: &[usize]) -> Tensor {
        Tensor::from_i64(dtype, dims, &vec![0; dims.iter().product()])
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, to be moved out.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The number of elements.
    pub fn elems(&self) -> usize {
        self.data.len()
    }

    /// Type and shape.
    pub fn ty(&self) -> TensorType {
        TensorType::fixed(self.dtype(), &self.dims)
    }

    /// The same elements under other dimensions; `None` if the counts differ.
    pub fn reshaped(self, dims: &[usize]) -> Option<Tensor> {
        Tensor::new(dims, self.data)
    }

    /// The elements as f64 (exact for every type but 64-bit integers beyond 2^53; true is 1).
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.data {
            Data::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::F64(v) => v.clone(),
            Data::I8(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::I16(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::I32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Data::U8(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::U16(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::U32(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Data::U64(v) => v.iter().map(|&x| x as f64).collect(),
            Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
        }
    }

    /// The elements as i64; floats are truncated (saturating), u64 wraps.
    pub fn to_i64(&self) -> Vec<i64> {
        match &self.data {
            Data::F32(v) => v.iter().map(|&x| x as i64).collect(),
            Data::F64(v) => v.iter().map(|&x| x as i64).collect(),
            Data::I8(v) => v.iter().map(|&x| i64::from(x)).collect(),
            Data::I16(v) => v.iter().map(|&x| i64::from(x)).collect(),
            Data::I32(v) => v.iter().map(|&x| i64::from(x)).collect(),
            Data::I64(v) => v.clone(),
            Data::U8(v) => v.iter().map(|&x| i64::from(x)).collect(),
            Data::U16(v) => v.iter().map(|&x| i64::from(x)).collect(),
            Data::U32(v) => v.iter().map(|&x| i64::from(x)).collect(),
            Data::U64(v) => v.iter().map(|&x| x as i64).collect(),
            Data::Bool(v) => v.iter().map(|&x| i64::from(x)).collect(),
        }
    }

    /// A tensor of `dtype` from f64 numbers: floats are rounded once, integers truncated and saturated, bool is `!= 0`.
    #[track_caller]
    pub fn from_f64(dtype: DType, dims: &[usize], v: &[f64]) -> Tensor {
        let data = match dtype {
            DType::F32 => Data::F32(v.iter().map(|&x| x as f32).collect()),
            DType::F64 => Data::F64(v.to_vec()),
            DType::I8 => Data::I8(v.iter().map(|&x| x as i8).collect()),
            DType::I16 => Data::I16(v.iter().map(|&x| x as i16).collect()),
            DType::I32 => Data::I32(v.iter().map(|&x| x as i32).collect()),
            DType::I64 => Data::I64(v.iter().map(|&x| x as i64).collect()),
            DType::U8 => Data::U8(v.iter().map(|&x| x as u8).collect()),
            DType::U16 => Data::U16(v.iter().map(|&x| x as u16).collect()),
            DType::U32 => Data::U32(v.iter().map(|&x| x as u32).collect()),
            DType::U64 => Data::U64(v.iter().map(|&x| x as u64).collect()),
            DType::Bool => Data::Bool(v.iter().map(|&x| x != 0.0).collect()),
        };
        Tensor::of(dims, data)
    }

    /// A tensor of `dtype` from i64 numbers: narrower integers wrap (two's complement), bool is `!= 0`.
    #[track_caller]
    pub fn from_i64(dtype: DType, dims: &[usize], v: &[i64]) -> Tensor {
        let data = match dtype {
            DType::F32 => Data::F32(v.iter().map(|&x| x as f32).collect()),
            DType::F64 => Data::F64(v.iter().map(|&x| x as f64).collect()),
            DType::I8 => Data::I8(v.iter().map(|&x| x as i8).collect()),
            DType::I16 => Data::I16(v.iter().map(|&x| x as i16).collect()),
            DType::I32 => Data::I32(v.iter().map(|&x| x as i32).collect()),
            DType::I64 => Data::I64(v.to_vec()),
            DType::U8 => Data::U8(v.iter().map(|&x| x as u8).collect()),
            DType::U16 => Data::U16(v.iter().map(|&x| x as u16).collect()),
            DType::U32 => Data::U32(v.iter().map(|&x| x as u32).collect()),
            DType::U64 => Data::U64(v.iter().map(|&x| x as u64).collect()),
            DType::Bool => Data::Bool(v.iter().map(|&x| x != 0).collect()),
        };
        Tensor::of(dims, data)
    }

    /// The elements as little-endian bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I8(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U8(v) => v.clone(),
            Data::U16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::Bool(v) => v.iter().map(|&x| u8::from(x)).collect(),
        }
    }

    /// A tensor from little-endian bytes; `None` if their number does not fit. A bool byte other than 0 is true.
    pub fn from_bytes(dtype: DType, dims: &[usize], bytes: &[u8]) -> Option<Tensor> {
        let n = dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d))?;
        if n.checked_mul(dtype.bytes())? != bytes.len() {
            return None;
        }
        macro_rules! typed {
            ($variant:ident, $t:ty) => {
                Data::$variant(bytes.as_chunks().0.iter().map(|c| <$t>::from_le_bytes(*c)).collect())
            };
        }
        let data = match dtype {
            DType::F32 => typed!(F32, f32),
            DType::F64 => typed!(F64, f64),
            DType::I8 => typed!(I8, i8),
            DType::I16 => typed!(I16, i16),
            DType::I32 => typed!(I32, i32),
            DType::I64 => typed!(I64, i64),
            DType::U8 => typed!(U8, u8),
            DType::U16 => typed!(U16, u16),
            DType::U32 => typed!(U32, u32),
            DType::U64 => typed!(U64, u64),
            DType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
        };
        Tensor::new(dims, data)
    }
}

/// Row-major strides, in elements.
pub fn strides_of(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for i in (0..dims.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * dims[i + 1];
    }
    strides
}

/// Every index of a shape in row-major order. A scalar has one, the empty index; a shape with a 0 has none.
pub fn indices(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let dims = dims.to_vec();
    let total: usize = dims.iter().product();
    let mut idx = vec![0; dims.len()];
    (0..total).map(move |n| {
        if n > 0 {
            for a in (0..dims.len()).rev() {
                idx[a] += 1;
                if idx[a] < dims[a] {
                    break;
                }
                idx[a] = 0;
            }
        }
        idx.clone()
    })
}
