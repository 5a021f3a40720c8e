//! Data sets: samples by number, each an input of fixed dimensions and a target.
//!
//! | file | reads |
//! |---|---|
//! | [`memory`] | what fits in memory, from wherever; the other formats end here |
//! | [`folder`] | pictures in folders, a folder a class |
//! | [`npz`] | NumPy archives with arrays `x` and `y` |
//! | [`idx`] | IDX files (MNIST's format), also gzipped |
//! | [`table`] | CSV |
//! | [`open`](mod@open) | any of them, by what a path holds |
//! | [`split`] | stratified splits and k folds, as lists of sample numbers |
//! | [`balance`] | class weights, over- and under-sampling, SMOTE |
//!
//! A sample's values are raw: a picture's are 0..255, whatever the file's format, and [`Dataset::white`] says so.
//! Augmentation works on those; the loader normalises last.
//!
//! A file is not trusted: every error names the file and the sample or row.

pub mod balance;
pub mod folder;
pub mod idx;
pub mod memory;
pub mod npz;
pub mod open;
pub mod split;
pub mod table;

pub use folder::ImageFolder;
pub use memory::{InMemory, Values};
pub use open::{Options, open};

use nncc_ir::Tensor;
use std::path::Path;

/// Why data cannot be used: where (file, and sample or row), and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct DataError {
    /// The file, or the file and the sample in it.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

impl DataError {
    /// An error at a place.
    pub fn new(place: impl Into<String>, reason: impl ToString) -> DataError {
        DataError { place: place.into(), reason: reason.to_string() }
    }

    /// An error of a whole file.
    pub fn file(path: &Path, reason: impl ToString) -> DataError {
        DataError::new(path.display().to_string(), reason)
    }
}

/// What is to be learnt, for all samples.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// One class a sample: its number, below the number of names.
    Classes {
        /// By sample.
        of: Vec<u32>,
        /// By class. Data without names number them.
        names: Vec<String>,
    },
    /// Numbers: a regression's values, or probabilities.
    Values {
        /// Of one sample; empty for a single number.
        dims: Vec<usize>,
        /// Sample after sample.
        values: Vec<f32>,
    },
}

impl Targets {
    /// The number of classes, if there are classes.
    pub fn classes(&self) -> Option<usize> {
        match self {
            Targets::Classes { names, .. } => Some(names.len()),
            Targets::Values { .. } => None,
        }
    }

    /// The targets of these samples as a tensor: i64 `[N]` for classes, f32 `[N, dims..]` for numbers.
    ///
    /// # Panics
    /// If a number is no sample's.
    pub fn gather(&self, samples: &[usize]) -> Tensor {
        match self {
            Targets::Classes { of, .. } => {
                Tensor::i64(&[samples.len()], samples.iter().map(|&i| i64::from(of[i])).collect())
            }
            Targets::Values { dims, values } => {
                let width: usize = dims.iter().product();
                let all: Vec<usize> = std::iter::once(samples.len()).chain(dims.iter().copied()).collect();
                let v = samples.iter().flat_map(|&i| &values[i * width..][..width]).copied().collect();
                Tensor::f32(&all, v)
            }
        }
    }

    /// How many of these samples each class has.
    pub fn counts(&self, samples: &[usize]) -> Option<Vec<usize>> {
        let Targets::Classes { of, names } = self else { return None };
        let mut counts = vec![0; names.len()];
        for &i in samples {
            counts[of[i] as usize] += 1;
        }
        Some(counts)
    }
}

/// Samples by number. Reading is from several threads at once.
pub trait Dataset: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dimensions of one sample's input: `[C, H, W]` for pictures.
    fn dims(&self) -> &[usize];

    /// What is to be learnt.
    fn targets(&self) -> &Targets;

    /// The value of white: 255 for pictures of 8 bits, 1 for other data. Black is 0.
    fn white(&self) -> f32;

    /// Where a sample comes from, for messages: a file, or a file and a number.
    fn place(&self, sample: usize) -> String;

    /// Writes the sample's input, `dims` in row-major order.
    ///
    /// # Panics
    /// If `sample` is not below [`Dataset::len`] or `out` has not the product of [`Dataset::dims`] elements.
    fn read(&self, sample: usize, out: &mut [f32]) -> Result<(), DataError>;
}

/// Checks that these samples can be learnt from: there are some, and every class has one.
pub fn check_classes(data: &dyn Dataset, samples: &[usize], what: &str) -> Result<(), DataError> {
    if samples.is_empty() {
        return Err(DataError::new(what, "there is no sample"));
    }
    let Targets::Classes { names, .. } = data.targets() else { return Ok(()) };
    let counts = data.targets().counts(samples).unwrap_or_default();
    let empty: Vec<&str> = names.iter().zip(&counts).filter(|&(_, &n)| n == 0).map(|(name, _)| name.as_str()).collect();
    if empty.is_empty() {
        return Ok(());
    }
    let shown = empty.iter().take(10).map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let more = if empty.len() > 10 { format!(" and {} more", empty.len() - 10) } else { String::new() };
    Err(DataError::new(what, format!("no sample of {} of {} classes: {shown}{more}", empty.len(), names.len())))
}

#[cfg(test)]
pub(crate) mod testing {
    //! A folder for a test's files, removed with its owner.

    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub struct Folder(PathBuf);

    impl Folder {
        pub fn new(name: &str) -> Folder {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let unique = format!("nncc-{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(unique);
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        pub fn path(&self) -> &Path {
            &self.0
        }

        /// Writes a file, and the folders on the way to it.
        pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            path
        }

        /// Text without this folder's path.
        pub fn strip(&self, text: impl ToString) -> String {
            text.to_string().replace(&format!("{}/", self.0.display()), "")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// A gray PNG of these pixels.
    pub fn png(width: usize, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width as u32, (pixels.len() / width) as u32);
        encoder.set_color(png::ColorType::Grayscale);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(pixels).unwrap();
        drop(writer);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(of: &[u32], names: &[&str]) -> Targets {
        Targets::Classes { of: of.to_vec(), names: names.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn targets_are_gathered_by_sample() {
        let t = classes(&[2, 0, 1], &["a", "b", "c"]);
        assert_eq!(t.gather(&[2, 2, 0]), Tensor::i64(&[3], vec![1, 1, 2]));
        assert_eq!(t.counts(&[2, 2, 0]), Some(vec![0, 2, 1]));
        let v = Targets::Values { dims: vec![2], values: vec![1.0, 2.0, 3.0, 4.0] };
        assert_eq!(v.gather(&[1]), Tensor::f32(&[1, 2], vec![3.0, 4.0]));
        let scalar = Targets::Values { dims: vec![], values: vec![1.0, 2.0] };
        assert_eq!(scalar.gather(&[1, 0]), Tensor::f32(&[2], vec![2.0, 1.0]));
    }

    #[test]
    fn a_class_without_a_sample_is_named() {
        let inputs = Values::F32(vec![0.0; 3]);
        let data = InMemory::new("d", vec![1], inputs, classes(&[0, 0, 2], &["cat", "dog", "eel"])).unwrap();
        let fail = |samples: &[usize]| check_classes(&data, samples, "d").unwrap_err().to_string();
        assert_eq!(fail(&[0, 1, 2]), "d: no sample of 1 of 3 classes: \"dog\"");
        assert_eq!(fail(&[]), "d: there is no sample");
    }
}
