//! IDX files: MNIST's format, as they are or gzipped.
//!
//! ```text
//! 00 00 tt rr | rr sizes, 32 bits big-endian | elements, row-major, big-endian
//! tt: 08 u8, 09 i8, 0b i16, 0c i32, 0d f32, 0e f64          rr: the number of axes
//! ```
//!
//! Inputs and labels are two files, and the name of one tells the other's: `train-images-idx3-ubyte`,
//! `train-labels-idx1-ubyte` (with dots for hyphens, and `.gz`, as mirrors have them).
//! Source: Y. LeCun, "The MNIST database of handwritten digits", section "File formats".

use super::memory::{classes, values};
use super::{DataError, InMemory, Options};
use nncc_ir::{Data, Tensor};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most bytes that a gzipped file may hold: some megabytes of it can promise terabytes.
const MOST_BYTES: u64 = 1 << 33;

/// Whether a path is an IDX file of inputs, by its name.
pub fn is_images(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    name.contains("images") && name.contains("idx") && labels_path(path).is_some()
}

/// The file of labels beside a file of inputs.
fn labels_path(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let dot = name.find("idx")?;
    // "images-idx3" -> "labels-idx1": labels have one axis.
    let rest = name[dot + 3..].trim_start_matches(|c: char| c.is_ascii_digit());
    Some(images.with_file_name(format!("{}idx1{rest}", name[..dot].replace("images", "labels"))))
}

/// Reads a file of inputs and the file of labels beside it.
pub fn read(images: &Path, options: &Options) -> Result<InMemory, DataError> {
    let labels = labels_path(images)
        .ok_or_else(|| DataError::file(images, "no file of labels belongs to this name (…-images-idx3-ubyte)"))?;
    let (x, y) = (read_tensor(images)?, read_tensor(&labels)?);
    let [_] = y.dims() else {
        return Err(DataError::file(&labels, format!("labels have one axis, these have {}", y.dims().len())));
    };
    let Some((&n, dims)) = x.dims().split_first() else {
        return Err(DataError::file(images, "a single number is no data set"));
    };
    if n != y.dims()[0] {
        let reason = format!("{n} inputs, but {} labels in {}", y.dims()[0], labels.display());
        return Err(DataError::file(images, reason));
    }
    let dims = if dims.is_empty() { vec![1] } else { dims.to_vec() };
    let targets = classes(&y.to_i64(), options.classes, &labels.display().to_string())?;
    InMemory::new(images.display().to_string(), dims, values(x), targets)
}

/// Reads one file.
pub fn read_tensor(path: &Path) -> Result<Tensor, DataError> {
    let fail = |reason: &dyn ToString| DataError::file(path, reason.to_string());
    let mut bytes = std::fs::read(path).map_err(|e| fail(&e))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        let decoder = flate2::read::MultiGzDecoder::new(&bytes[..]);
        decoder.take(MOST_BYTES).read_to_end(&mut plain).map_err(|e| fail(&e))?;
        bytes = plain;
    }
    parse(&bytes).map_err(|e| fail(&e))
}

/// The elements of a type, big-endian.
macro_rules! elements_of {
    ($data:expr, $t:ty) => {
        $data.as_chunks().0.iter().map(|&b| <$t>::from_be_bytes(b)).collect()
    };
}

fn parse(bytes: &[u8]) -> Result<Tensor, String> {
    let &[0, 0, kind, rank, ..] = bytes else { return Err("not an IDX file: it does not begin with two zeros".into()) };
    let body = 4 + 4 * usize::from(rank);
    let sizes = bytes.get(4..body).ok_or("cut off within its header")?;
    let dims: Vec<usize> = sizes.as_chunks().0.iter().map(|&b| u32::from_be_bytes(b) as usize).collect();
    let data = &bytes[body..];
    let (size, data_of): (usize, fn(&[u8]) -> Data) = match kind {
        0x08 => (1, |data| Data::U8(data.to_vec())),
        0x09 => (1, |data| Data::I8(elements_of!(data, i8))),
        0x0b => (2, |data| Data::I16(elements_of!(data, i16))),
        0x0c => (4, |data| Data::I32(elements_of!(data, i32))),
        0x0d => (4, |data| Data::F32(elements_of!(data, f32))),
        0x0e => (8, |data| Data::F64(elements_of!(data, f64))),
        _ => return Err(format!("not an IDX file: element type {kind:#04x} is unknown")),
    };
    let expected = dims.iter().try_fold(size, |n, &d| n.checked_mul(d));
    if expected != Some(data.len()) {
        return Err(format!("its header promises {dims:?} of {size} bytes, but {} bytes follow", data.len()));
    }
    Ok(Tensor::of(&dims, data_of(data)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Folder;
    use crate::data::{Dataset, Targets};
    use std::io::Write;

    fn file(kind: u8, dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, kind, dims.len() as u8];
        bytes.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    #[test]
    fn pictures_and_labels_are_two_files() {
        let folder = Folder::new("idx");
        let images = folder.write("train-images-idx3-ubyte", file(8, &[2, 1, 2], &[1, 2, 3, 4]));
        folder.write("train-labels-idx1-ubyte", file(8, &[2], &[1, 0]));
        assert!(is_images(&images));
        let d = read(&images, &Options::default()).unwrap();
        let mut out = [0.0; 2];
        d.read(1, &mut out).unwrap();
        assert_eq!((d.dims(), out), (&[1, 2][..], [3.0, 4.0]));
        assert!(matches!(d.targets(), Targets::Classes { of, .. } if *of == [1, 0]));
    }

    #[test]
    fn gzipped_files_are_read_too() {
        let folder = Folder::new("idx-gz");
        let zip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let images = folder.write("t10k-images.idx3-ubyte.gz", zip(&file(8, &[1, 2], &[7, 9])));
        folder.write("t10k-labels.idx1-ubyte.gz", zip(&file(8, &[1], &[0])));
        assert_eq!(read(&images, &Options::default()).unwrap().len(), 1);
        let whole = std::fs::read(&images).unwrap();
        let cut = folder.write("cut.gz", &whole[..whole.len() - 9]);
        assert!(folder.strip(read_tensor(&cut).unwrap_err()).starts_with("cut.gz: "));
    }

    #[test]
    fn every_element_type_is_read() {
        let be = |kind, data: &[u8]| parse(&file(kind, &[1], data)).unwrap().to_f64()[0];
        assert_eq!(be(0x09, &[0xff]), -1.0);
        assert_eq!(be(0x0b, &(-300i16).to_be_bytes()), -300.0);
        assert_eq!(be(0x0c, &70_000i32.to_be_bytes()), 70_000.0);
        assert_eq!(be(0x0d, &1.5f32.to_be_bytes()), 1.5);
        assert_eq!(be(0x0e, &(-2.25f64).to_be_bytes()), -2.25);
    }

    #[test]
    fn headers_are_not_trusted() {
        let fail = |bytes: &[u8]| parse(bytes).unwrap_err();
        assert_eq!(fail(b"PK"), "not an IDX file: it does not begin with two zeros");
        assert_eq!(fail(&[0, 0, 8, 3, 0]), "cut off within its header");
        assert_eq!(fail(&file(7, &[1], &[0])), "not an IDX file: element type 0x07 is unknown");
        let huge = file(8, &[u32::MAX, u32::MAX, u32::MAX], &[0]);
        assert!(fail(&huge).starts_with("its header promises [4294967295, 4294967295, 4294967295] of 1 bytes"));
        let folder = Folder::new("idx-bad");
        let images = folder.write("a-images-idx1-ubyte", file(8, &[3], &[1, 2, 3]));
        folder.write("a-labels-idx1-ubyte", file(8, &[2], &[0, 1]));
        let message = folder.strip(read(&images, &Options::default()).unwrap_err());
        assert_eq!(message, "a-images-idx1-ubyte: 3 inputs, but 2 labels in a-labels-idx1-ubyte");
        let ten = Options { classes: Some(1), ..Options::default() };
        folder.write("a-labels-idx1-ubyte", file(8, &[3], &[0, 1, 0]));
        let message = folder.strip(read(&images, &ten).unwrap_err());
        assert_eq!(message, "a-labels-idx1-ubyte, sample 1: label 1 is out of range: 0 to 0");
    }
}
