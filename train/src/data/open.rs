//! A data set from a path, by what it is.
//!
//! ```text
//! folder with IDX files          IDX, its training set (train-images…) or the only one
//! other folder                   pictures, a folder a class
//! *.npz                          archive with x and y
//! *images*idx*                   IDX
//! *.csv                          table
//! ```

use super::{DataError, Dataset, ImageFolder, InMemory, idx, npz, table};
use crate::picture::{Crop, Filter, Order};
use std::path::{Path, PathBuf};

/// What a reader must know beside the path.
#[derive(Clone, Debug)]
pub struct Options {
    /// The dimensions of one sample as the network's input has them, without the batch. Pictures are resized to it, other
    /// data must have as many values.
    pub dims: Option<Vec<usize>>,
    /// The number of classes, as the network's output has them: a label beyond it is an error.
    pub classes: Option<usize>,
    /// The dimensions of one sample's output, which numbers in the target must fill.
    pub target_dims: Option<Vec<usize>>,
    /// Whether whole numbers in the target are numbers to be hit, rather than classes.
    pub regression: bool,
    /// The target's column in a table.
    pub target: Option<String>,
    /// The part of a picture that is used.
    pub crop: Crop,
    /// How pictures are resized.
    pub filter: Filter,
    /// The order of a picture's channels.
    pub order: Order,
}

impl Default for Options {
    /// As the flags of the command have it.
    fn default() -> Options {
        Options {
            dims: None,
            classes: None,
            target_dims: None,
            regression: false,
            target: None,
            crop: Crop::Center,
            filter: Filter::Bicubic,
            order: Order::Rgb,
        }
    }
}

/// Opens the data at `path`.
pub fn open(path: &Path, options: &Options) -> Result<Box<dyn Dataset>, DataError> {
    let metadata = std::fs::metadata(path).map_err(|e| DataError::file(path, e))?;
    if metadata.is_dir() {
        return match images_in(path)? {
            Some(images) => fitted(idx::read(&images, options)?, options),
            None => Ok(Box::new(ImageFolder::open(path, options)?)),
        };
    }
    let extension = path.extension().map(|e| e.to_ascii_lowercase());
    match extension.as_ref().and_then(|e| e.to_str()) {
        _ if idx::is_images(path) => fitted(idx::read(path, options)?, options),
        Some("npz") => fitted(npz::read(path, options)?, options),
        Some("csv") => fitted(table::read(path, options)?, options),
        _ => {
            let kinds = "a folder of folders of pictures, .npz, .csv, or IDX (…-images-idx3-ubyte, also .gz)";
            Err(DataError::file(path, format!("no known kind of data set: {kinds}")))
        }
    }
}

fn fitted(data: InMemory, options: &Options) -> Result<Box<dyn Dataset>, DataError> {
    let data = match &options.dims {
        Some(dims) => data.with_dims(dims)?,
        None => data,
    };
    Ok(Box::new(match &options.target_dims {
        Some(dims) => data.with_target_dims(dims)?,
        None => data,
    }))
}

/// The IDX file of inputs in a folder: of the training set where there are several.
fn images_in(folder: &Path) -> Result<Option<PathBuf>, DataError> {
    let fail = |e: std::io::Error| DataError::file(folder, e);
    let entries = std::fs::read_dir(folder).map_err(fail)?;
    let mut found = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(fail)?;
    found.retain(|path| path.is_file() && idx::is_images(path));
    found.sort();
    let is_training = |path: &&PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("train"));
    match &found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        several => several.iter().find(is_training).cloned().map(Some).ok_or_else(|| {
            DataError::file(
                folder,
                "several IDX files of inputs, and none is named train-…: name the one that is meant",
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrays::write_npz;
    use crate::data::testing::{Folder, png};
    use nncc_ir::{DType, Tensor};

    #[test]
    fn the_path_says_what_it_is() {
        let folder = Folder::new("open");
        let dims = |path: &Path, dims: &[usize]| {
            let options = Options { dims: Some(dims.to_vec()), ..Options::default() };
            open(path, &options).map(|d| (d.len(), d.dims().to_vec())).map_err(|e| folder.strip(e))
        };
        folder.write("pictures/a/1.png", png(2, &[1, 2, 3, 4]));
        assert_eq!(dims(&folder.path().join("pictures"), &[3, 5, 5]), Ok((1, vec![3, 5, 5])));
        for set in ["t10k", "train"] {
            folder.write(&format!("mnist/{set}-images-idx2-ubyte"), [0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 4, 1, 2, 3, 4]);
            folder.write(&format!("mnist/{set}-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 1, 0]);
        }
        assert_eq!(dims(&folder.path().join("mnist"), &[1, 2, 2]), Ok((1, vec![1, 2, 2])));
        let csv = folder.write("t.csv", "1,2,0\n3,4,1\n");
        assert_eq!(dims(&csv, &[2]), Ok((2, vec![2])));
        let wrong = "t.csv: a sample has dimensions [2], the network's input [3, 8, 8]";
        assert_eq!(dims(&csv, &[3, 8, 8]), Err(wrong.into()));
        let npz = folder.path().join("d.npz");
        let (x, y) = (Tensor::f32(&[2, 3], vec![0.0; 6]), Tensor::from_i64(DType::U8, &[2], &[0, 1]));
        write_npz(&npz, [("x", &x), ("y", &y)]).unwrap();
        assert_eq!(dims(&npz, &[3]), Ok((2, vec![3])));
        let text = folder.write("data.txt", "");
        assert!(dims(&text, &[3]).unwrap_err().starts_with("data.txt: no known kind of data set"));
        assert!(dims(&folder.path().join("none"), &[3]).unwrap_err().starts_with("none: No such file"));
    }
}
