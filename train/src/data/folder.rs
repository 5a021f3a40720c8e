//! Pictures in folders: `ROOT/CLASS/anything.png`, PNG and JPEG, a folder a class in the order of their names.
//!
//! A picture is decoded when it is first asked for, cut and resized to the network's input, and kept as bytes while all
//! that are kept fit a budget: data that fit are decoded once, data that do not are decoded every time, by the loader's
//! threads.

use super::{DataError, Dataset, Options, Targets};
use crate::picture::{Crop, Filter, Order, Rgb};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of decoded pictures that are kept: CIFAR-10's 50 000 are 154 MB.
const KEPT_BYTES: usize = 1 << 29;

/// A data set of pictures in folders.
#[derive(Debug)]
pub struct ImageFolder {
    files: Vec<PathBuf>,
    targets: Targets,
    dims: [usize; 3],
    crop: Crop,
    filter: Filter,
    order: Order,
    kept: Vec<OnceLock<Box<[u8]>>>,
    kept_bytes: AtomicUsize,
}

impl ImageFolder {
    /// Lists the folders and files. [`Options::dims`] must be `[1 or 3, H, W]`: what each picture becomes.
    pub fn open(root: &Path, options: &Options) -> Result<ImageFolder, DataError> {
        let dims = match options.dims.as_deref() {
            Some(&[c @ (1 | 3), h, w]) if h > 0 && w > 0 => [c, h, w],
            Some(dims) => {
                return Err(DataError::file(root, format!("pictures fit an input [1 or 3, H, W], not {dims:?}")));
            }
            None => return Err(DataError::file(root, "pictures need the dimensions of the network's input")),
        };
        let folders: Vec<PathBuf> = sorted(root)?.into_iter().filter(|path| path.is_dir()).collect();
        if folders.is_empty() {
            return Err(DataError::file(root, "no folder in it: pictures are in a folder for each class"));
        }
        if let Some(n) = options.classes.filter(|&n| n != folders.len()) {
            return Err(DataError::file(root, format!("{} folders for {n} classes", folders.len())));
        }
        let (mut files, mut of, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (class, folder) in folders.iter().enumerate() {
            let before = files.len();
            files.extend(sorted(folder)?.into_iter().filter(|path| is_picture(path)));
            if files.len() == before {
                return Err(DataError::file(folder, "a class without a picture: no .png, .jpg or .jpeg file in it"));
            }
            of.resize(files.len(), class as u32);
            names.push(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        let kept = files.iter().map(|_| OnceLock::new()).collect();
        Ok(ImageFolder {
            files,
            targets: Targets::Classes { of, names },
            dims,
            crop: options.crop,
            filter: options.filter,
            order: options.order,
            kept,
            kept_bytes: AtomicUsize::new(0),
        })
    }

    fn decode(&self, sample: usize) -> Result<Vec<u8>, DataError> {
        let path = &self.files[sample];
        let [c, h, w] = self.dims;
        let image = std::fs::read(path).map_err(|e| e.to_string()).and_then(|bytes| Rgb::decode(&bytes));
        image
            .and_then(|image| image.fitted(c, (h, w), self.crop, self.filter, self.order))
            .map_err(|e| DataError::file(path, format!("unreadable picture: {e}")))
    }
}

/// What is in a folder, by name: the order in which a file system lists it is not the same everywhere.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let fail = |e: std::io::Error| DataError::file(folder, e);
    let entries = std::fs::read_dir(folder).map_err(fail)?;
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(fail)?;
    paths.retain(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
    paths.sort();
    Ok(paths)
}

fn is_picture(path: &Path) -> bool {
    let known = ["png", "jpg", "jpeg"];
    path.extension().is_some_and(|e| known.iter().any(|k| e.eq_ignore_ascii_case(k)))
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn dims(&self) -> &[usize] {
        &self.dims
    }

    fn targets(&self) -> &Targets {
        &self.targets
    }

    fn white(&self) -> f32 {
        255.0
    }

    fn place(&self, sample: usize) -> String {
        self.files[sample].display().to_string()
    }

    fn read(&self, sample: usize, out: &mut [f32]) -> Result<(), DataError> {
        let widen = |bytes: &[u8], out: &mut [f32]| {
            for (to, &from) in out.iter_mut().zip(bytes) {
                *to = f32::from(from);
            }
        };
        if let Some(bytes) = self.kept[sample].get() {
            widen(bytes, out);
            return Ok(());
        }
        let bytes = self.decode(sample)?;
        widen(&bytes, out);
        // Threads that race for the last bytes of the budget may overrun it by a picture each.
        if self.kept_bytes.load(Ordering::Relaxed) + bytes.len() <= KEPT_BYTES {
            self.kept_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
            // Another thread may have been first; both decoded the same.
            let _ = self.kept[sample].set(bytes.into_boxed_slice());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Folder, png};

    fn options(dims: &[usize]) -> Options {
        Options { dims: Some(dims.to_vec()), crop: Crop::None, filter: Filter::Nearest, ..Options::default() }
    }

    #[test]
    fn a_folder_is_a_class() {
        let folder = Folder::new("folder");
        folder.write("dog/2.PNG", png(2, &[5, 6]));
        folder.write("cat/b.png", png(2, &[3, 4]));
        folder.write("cat/a.jpg", png(2, &[1, 2])); // a name is not a format
        folder.write("cat/notes.txt", "no picture");
        folder.write(".hidden/x.png", "no class");
        folder.write("README", "no class");
        let d = ImageFolder::open(folder.path(), &options(&[1, 1, 2])).unwrap();
        let names = vec!["cat".to_string(), "dog".into()];
        assert_eq!(*d.targets(), Targets::Classes { of: vec![0, 0, 1], names });
        let mut out = [0.0; 2];
        for _ in 0..2 {
            for (i, expected) in [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]].into_iter().enumerate() {
                d.read(i, &mut out).unwrap();
                assert_eq!(out, expected);
            }
        }
        assert_eq!(folder.strip(d.place(2)), "dog/2.PNG");
    }

    #[test]
    fn faults_name_the_file_or_folder() {
        let folder = Folder::new("folder-bad");
        let open = |dims: &[usize]| ImageFolder::open(folder.path(), &options(dims));
        let root = folder.path().display().to_string();
        let fail = |dims: &[usize]| open(dims).unwrap_err().to_string().replace(&root, "R");
        assert_eq!(fail(&[1, 2, 2]), "R: no folder in it: pictures are in a folder for each class");
        folder.write("cat/a.png", "nonsense");
        folder.write("dog/readme", "");
        let empty = "R/dog: a class without a picture: no .png, .jpg or .jpeg file in it";
        assert_eq!(fail(&[1, 2, 2]), empty);
        assert_eq!(fail(&[4, 2, 2]), "R: pictures fit an input [1 or 3, H, W], not [4, 2, 2]");
        folder.write("dog/d.png", &png(2, &[1, 2])[..40]);
        let d = open(&[1, 2, 2]).unwrap();
        let fail = |i| folder.strip(d.read(i, &mut [0.0; 4]).unwrap_err());
        assert_eq!(fail(0), "cat/a.png: unreadable picture: neither a PNG nor a JPEG picture");
        assert!(fail(1).starts_with("dog/d.png: unreadable picture: "), "{}", fail(1));
        let three = Options { classes: Some(3), ..options(&[1, 2, 2]) };
        let message = ImageFolder::open(folder.path(), &three).unwrap_err().to_string().replace(&root, "R");
        assert_eq!(message, "R: 2 folders for 3 classes");
    }
}
