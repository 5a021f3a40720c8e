//! Tensors in files: NumPy's `.npy` and `.npz`, for every element type that the graph IR has.
//!
//! Format: numpy/lib/format.py, versions 1 to 3, by the crate `ndarray-npy`. Arrays in Fortran order are read too; what
//! is written is in C order. Half floats are read as the f32 numbers that they are: f32 holds each of them exactly, and
//! kernels compute in no narrower type.

use ndarray::{ArrayD, ArrayViewD};
use ndarray_npy::{
    NpzReader, NpzWriter, ReadDataError, ReadNpyError, ReadNpyExt, ReadNpzError, ReadableElement, WriteNpyExt,
};
use nncc_ir::dtype::half_to_f32;
use nncc_ir::{Data, Tensor};
use py_literal::Value as PyValue;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::Path;

/// Why an array could not be read or written; names the file.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct ArrayError {
    path: String,
    reason: String,
}

impl ArrayError {
    fn new(path: &Path, reason: impl ToString) -> ArrayError {
        ArrayError { path: path.display().to_string(), reason: reason.to_string() }
    }

    /// What is wrong, without the file's name.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Tries one element type after the other until the file's descriptor fits: `$attempt` is an expression over the type
/// `$elem`.
macro_rules! first_fitting {
    ($elem:ident, $attempt:expr) => {
        first_fitting!(f32 => Data::F32, f64 => Data::F64, i64 => Data::I64, i32 => Data::I32, bool => Data::Bool,
            u8 => Data::U8, i8 => Data::I8, i16 => Data::I16, u16 => Data::U16, u32 => Data::U32, u64 => Data::U64,
            Half => widened; $elem, $attempt)
    };
    ($($t:ident => $wrap:expr),* ; $elem:ident, $attempt:expr) => {{
        $({
            type $elem = Stored<$t>;
            match $attempt {
                Ok(array) => return Ok(tensor(array, $wrap)),
                Err(e) if wrong_type(&e) => {}
                Err(e) => return Err(e.to_string()),
            }
        })*
        Err("an element type that nncc does not compute with".to_string())
    }};
}

fn tensor<T>(array: ArrayD<Stored<T>>, wrap: fn(Vec<T>) -> Data) -> Tensor {
    let dims = array.shape().to_vec();
    Tensor::of(&dims, wrap(array.into_iter().map(|element| element.0).collect()))
}

/// An element type as files hold it.
trait Plain: Sized {
    /// Its descriptor in a header, without the byte order.
    const KIND: &str;
    /// Its size.
    const BYTES: usize;
    /// An element of that many bytes; `None` if they are not one.
    fn decode(bytes: &[u8], big_endian: bool) -> Option<Self>;
}

macro_rules! plain {
    ($($t:ty = $kind:literal),*) => {
        $(impl Plain for $t {
            const KIND: &str = $kind;
            const BYTES: usize = size_of::<$t>();
            fn decode(bytes: &[u8], big_endian: bool) -> Option<$t> {
                let bytes = bytes.try_into().ok()?;
                Some(if big_endian { <$t>::from_be_bytes(bytes) } else { <$t>::from_le_bytes(bytes) })
            }
        })*
    };
}

plain!(
    f32 = "f4",
    f64 = "f8",
    i8 = "i1",
    i16 = "i2",
    i32 = "i4",
    i64 = "i8",
    u8 = "u1",
    u16 = "u2",
    u32 = "u4",
    u64 = "u8"
);

impl Plain for bool {
    const KIND: &str = "b1";
    const BYTES: usize = 1;
    fn decode(bytes: &[u8], _: bool) -> Option<bool> {
        match bytes {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

/// A binary16 number: NumPy's `float16`.
struct Half(u16);

impl Plain for Half {
    const KIND: &str = "f2";
    const BYTES: usize = 2;
    fn decode(bytes: &[u8], big_endian: bool) -> Option<Half> {
        u16::decode(bytes, big_endian).map(Half)
    }
}

fn widened(halves: Vec<Half>) -> Data {
    Data::F32(halves.iter().map(|half| half_to_f32(half.0)).collect())
}

/// An element with a reader of our own: that of `ndarray-npy` allocates what a header promises before it reads, and a file
/// of a hundred bytes may promise terabytes.
struct Stored<T>(T);

impl<T: Plain> ReadableElement for Stored<T> {
    fn read_to_end_exact_vec<R: Read>(mut reader: R, ty: &PyValue, len: usize) -> Result<Vec<Self>, ReadDataError> {
        let order = ty.as_string().and_then(|descriptor| descriptor.strip_suffix(T::KIND));
        let big_endian = match order {
            Some("<") => false,
            Some(">") => true,
            Some("|") if T::BYTES == 1 => false,
            _ => return Err(ReadDataError::WrongDescriptor(ty.clone())),
        };
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        match bytes.len().checked_sub(len.saturating_mul(T::BYTES)) {
            Some(0) => {}
            Some(more) => return Err(ReadDataError::ExtraBytes(more)),
            None => return Err(ReadDataError::MissingData),
        }
        let elements = bytes.chunks_exact(T::BYTES).map(|element| T::decode(element, big_endian).map(Stored));
        elements.collect::<Option<_>>().ok_or_else(|| ReadDataError::ParseData("a bool that is neither 0 nor 1".into()))
    }
}

/// What a reader's error says of the element type.
trait TypeMismatch {
    fn is_type_mismatch(&self) -> bool;
}

impl TypeMismatch for ReadNpyError {
    fn is_type_mismatch(&self) -> bool {
        matches!(self, ReadNpyError::WrongDescriptor(_))
    }
}

impl TypeMismatch for ReadNpzError {
    fn is_type_mismatch(&self) -> bool {
        matches!(self, ReadNpzError::Npy(e) if e.is_type_mismatch())
    }
}

fn wrong_type(e: &impl TypeMismatch) -> bool {
    e.is_type_mismatch()
}

/// Reads one array.
pub fn read_npy(path: &Path) -> Result<Tensor, ArrayError> {
    let bytes = std::fs::read(path).map_err(|e| ArrayError::new(path, e))?;
    let read = || -> Result<Tensor, String> { first_fitting!(Elem, ArrayD::<Elem>::read_npy(&bytes[..])) };
    read().map_err(|e| ArrayError::new(path, e))
}

/// Reads all arrays of an archive, in its order.
pub fn read_npz(path: &Path) -> Result<Vec<(String, Tensor)>, ArrayError> {
    let fail = |e: &dyn ToString| ArrayError::new(path, e.to_string());
    let file = File::open(path).map_err(|e| fail(&e))?;
    let mut npz = NpzReader::new(BufReader::new(file)).map_err(|e| fail(&e))?;
    let names = npz.names().map_err(|e| fail(&e))?;
    let mut out = Vec::with_capacity(names.len());
    for name in names {
        let mut read = || -> Result<Tensor, String> {
            first_fitting!(Elem, npz.by_name::<ndarray::OwnedRepr<Elem>, ndarray::IxDyn>(&name))
        };
        let t = read().map_err(|e| ArrayError::new(path, format!("array `{name}`: {e}")))?;
        out.push((name.trim_end_matches(".npy").to_string(), t));
    }
    Ok(out)
}

/// Runs `$write` with the tensor's elements as an `ndarray` view.
macro_rules! with_view {
    ($tensor:expr, $view:ident => $write:expr) => {
        nncc_ir::with_data!($tensor.data(), v => {
            let $view = ArrayViewD::from_shape($tensor.dims(), v).expect("a tensor's elements fill its dimensions");
            $write
        })
    };
}

/// Writes one array.
pub fn write_npy(path: &Path, t: &Tensor) -> Result<(), ArrayError> {
    let file = File::create(path).map_err(|e| ArrayError::new(path, e))?;
    with_view!(t, view => view.write_npy(BufWriter::new(file))).map_err(|e| ArrayError::new(path, e))
}

/// Writes an archive of arrays, uncompressed as `numpy.savez` does.
pub fn write_npz<'a>(path: &Path, arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<(), ArrayError> {
    let file = File::create(path).map_err(|e| ArrayError::new(path, e))?;
    let mut npz = NpzWriter::new(BufWriter::new(file));
    for (name, t) in arrays {
        with_view!(t, view => npz.add_array(name, &view)).map_err(|e| ArrayError::new(path, e))?;
    }
    npz.finish().map(|_| ()).map_err(|e| ArrayError::new(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nncc_ir::DType;

    #[test]
    fn every_element_type_round_trips() {
        let dir = std::env::temp_dir().join(format!("nncc-arrays-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let tensors: Vec<Tensor> =
            DType::ALL.iter().map(|&d| Tensor::from_i64(d, &[2, 3], &[0, 1, 0, 1, 1, 0])).collect();
        for t in &tensors {
            let path = dir.join("one.npy");
            write_npy(&path, t).unwrap();
            assert_eq!(&read_npy(&path).unwrap(), t);
        }
        let path = dir.join("all.npz");
        write_npz(&path, DType::ALL.iter().map(|d| d.name()).zip(&tensors)).unwrap();
        let back = read_npz(&path).unwrap();
        assert_eq!(back.len(), tensors.len());
        for (name, t) in &back {
            assert_eq!(t.dtype().name(), name);
        }
        std::fs::write(dir.join("bad.npy"), b"\x93NUMPY\x01\x00nonsense").unwrap();
        assert!(read_npy(&dir.join("bad.npy")).unwrap_err().to_string().contains("bad.npy"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn half_floats_widen() {
        let path = std::env::temp_dir().join(format!("nncc-half-{}.npy", std::process::id()));
        let file = |descriptor: &str, data: &[u8]| npy(&path, descriptor, "False, 'shape': (2,)", data);
        let want = Ok(Tensor::f32(&[2], vec![1.5, -65504.0]));
        assert_eq!(file("<f2", &[0x00, 0x3e, 0xff, 0xfb]), want);
        assert_eq!(file(">f2", &[0x3e, 0x00, 0xfb, 0xff]), want);
        assert!(file("<f2", &[0; 3]).is_err());
        assert!(file("<f2", &[0; 5]).is_err());
        assert_eq!(file("<c8", &[0; 16]), Err("an element type that nncc does not compute with".into()));
        std::fs::remove_file(&path).unwrap();
    }

    /// Writes and reads a file whose header goes on after `fortran_order` as given.
    fn npy(path: &Path, descriptor: &str, rest: &str, data: &[u8]) -> Result<Tensor, String> {
        let header = format!("{{'descr': '{descriptor}', 'fortran_order': {rest}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        std::fs::write(path, bytes).unwrap();
        read_npy(path).map_err(|e| e.reason)
    }

    #[test]
    fn byte_order_and_fortran_order_are_heeded() {
        let path = std::env::temp_dir().join(format!("nncc-order-{}.npy", std::process::id()));
        let want = Ok(Tensor::from_i64(DType::I16, &[2, 3], &[1, 2, 3, 4, 5, 6]));
        let columns = [0, 1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6];
        assert_eq!(npy(&path, ">i2", "True, 'shape': (2, 3)", &columns), want);
        assert_eq!(npy(&path, "|b1", "False, 'shape': (2,)", &[1, 2]).unwrap_err().lines().count(), 1);
        std::fs::remove_file(&path).unwrap();
    }

    /// A header may promise anything: no more is allocated than the file has.
    #[test]
    fn headers_are_not_trusted() {
        let path = std::env::temp_dir().join(format!("nncc-header-{}.npy", std::process::id()));
        for kind in ["<f4", "<f8", "<i8", "|b1", "|u1", "<f2"] {
            for shape in [
                "(1000000000000,)",
                "(18446744073709551615, 2)",
                "(1152921504606846976,)",
                "(0, 4611686018427387904, 4)",
            ] {
                assert!(npy(&path, kind, &format!("False, 'shape': {shape}"), &[0; 16]).is_err(), "{kind} {shape}");
            }
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn scalars_and_empty_arrays_round_trip() {
        let path = std::env::temp_dir().join(format!("nncc-scalar-{}.npy", std::process::id()));
        for t in [Tensor::f32(&[], vec![3.5]), Tensor::f32(&[0, 4], vec![])] {
            write_npy(&path, &t).unwrap();
            assert_eq!(read_npy(&path).unwrap(), t);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
