//! External data: tensors whose bytes stand in another file beside the model.
//!
//! The file's name comes from the model, which is untrusted. It must be a relative path without `..` whose target, after
//! following symbolic links, still lies in the model's folder; offset and length must lie in the file and fit the tensor.
//! Files are mapped, once each, so that weights are read when they are packed and not before.

use crate::problem::Problem;
use memmap2::Mmap;
use nncc_ir::{Constant, DType, Storage};
use onnx_protobuf::StringStringEntryProto;
use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The folder that a model's external data may lie in, with the files mapped so far.
pub(crate) struct Folder {
    path: Option<PathBuf>,
    mapped: RefCell<Vec<(String, Storage)>>,
}

impl Folder {
    /// The folder `path`, or none: then external data is an error.
    pub(crate) fn new(path: Option<&Path>) -> Folder {
        Folder { path: path.map(Path::to_path_buf), mapped: RefCell::default() }
    }

    /// The constant of type `dtype` and `dims` that the entries of an external tensor describe.
    pub(crate) fn constant(
        &self,
        dtype: DType,
        dims: &[usize],
        entries: &[StringStringEntryProto],
    ) -> Result<Constant, Problem> {
        let entry = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.trim().parse::<usize>().map(Some).map_err(|_| {
                Problem::invalid(format!("external data has the {key} `{text}`")).rule("ONNX: a number of bytes")
            }),
        };
        let location = entry("location").ok_or_else(|| {
            Problem::invalid("external data without a location").rule("ONNX: `location` is required in external_data")
        })?;
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        let need = dims.iter().try_fold(dtype.bytes(), |n, &d| n.checked_mul(d));
        let need = need.ok_or_else(|| Problem::invalid("external data of a tensor larger than memory"))?;
        if let Some(length) = length.filter(|&l| l != need) {
            return Err(Problem::invalid(format!(
                "external data of {length} bytes for a tensor of {need}, {}",
                nncc_ir::TensorType::fixed(dtype, dims)
            )));
        }
        let storage = self.map(location)?;
        let size = (*storage).as_ref().len();
        let range = offset..offset.saturating_add(need);
        if dtype == DType::Bool {
            let bytes = (*storage).as_ref().get(range);
            let bytes = bytes.ok_or_else(|| too_short(location, size, offset, need))?.to_vec();
            return crate::tensor::bools(dims, bytes);
        }
        Constant::from_storage(dtype, dims, storage, range).ok_or_else(|| too_short(location, size, offset, need))
    }

    /// The file called `location`, mapped.
    fn map(&self, location: &str) -> Result<Storage, Problem> {
        if let Some((_, storage)) = self.mapped.borrow().iter().find(|(name, _)| name == location) {
            return Ok(storage.clone());
        }
        let path = self.resolve(location)?;
        let unreadable = |e| Problem::io(format!("external data `{location}` cannot be read: {e}"));
        let file = std::fs::File::open(&path).map_err(unreadable)?;
        let meta = file.metadata().map_err(unreadable)?;
        if !meta.is_file() {
            return Err(Problem::invalid(format!("external data `{location}` is not a file")));
        }
        let storage: Storage = if meta.len() == 0 {
            Arc::new(Vec::new()) // an empty file cannot be mapped
        } else {
            // SAFETY: the mapping is read-only and never written by us. Another process that truncates the file while
            // a compilation runs makes reads fail with SIGBUS, as for every program that maps its inputs (linkers do);
            // it cannot make a read go outside of the mapping.
            Arc::new(unsafe { Mmap::map(&file) }.map_err(unreadable)?)
        };
        self.mapped.borrow_mut().push((location.to_string(), storage.clone()));
        Ok(storage)
    }

    /// The path of `location`, if it stays inside the folder.
    fn resolve(&self, location: &str) -> Result<PathBuf, Problem> {
        let Some(folder) = &self.path else {
            return Err(Problem::unsupported("external data in a model that does not come from a file")
                .help("give the folder of its files with the model's bytes"));
        };
        let outside = || {
            Problem::invalid(format!("external data `{location}` lies outside of the model's folder"))
                .rule("ONNX: `location` is a path relative to the model's folder, without `..`")
        };
        let relative = Path::new(location);
        let plain = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !plain || location.is_empty() {
            return Err(outside());
        }
        let unreadable = |e| Problem::io(format!("external data `{location}` cannot be read: {e}"));
        let folder = folder.canonicalize().map_err(unreadable)?;
        let path = folder.join(relative).canonicalize().map_err(unreadable)?; // follows symbolic links
        if path.starts_with(&folder) { Ok(path) } else { Err(outside()) }
    }
}

fn too_short(location: &str, size: usize, offset: usize, need: usize) -> Problem {
    Problem::invalid(format!(
        "external data `{location}` ends at byte {size}, the tensor needs {need} bytes from byte {offset}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Vec<StringStringEntryProto> {
        let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        pairs.iter().map(entry).collect()
    }

    /// A folder of its own for one test, with a file `weights` of 16 bytes in it and a file `secret` above it.
    fn scene(name: &str) -> PathBuf {
        let top = std::env::temp_dir().join(format!("nncc-external-{}-{name}", std::process::id()));
        std::fs::create_dir_all(top.join("model")).unwrap();
        std::fs::write(top.join("secret"), [7; 64]).unwrap();
        std::fs::write(top.join("model/weights"), (0..16).collect::<Vec<u8>>()).unwrap();
        top
    }

    #[test]
    fn data_is_mapped_and_checked() {
        let top = scene("mapped");
        let folder = Folder::new(Some(&top.join("model")));
        let get = |pairs: &[(&str, &str)]| folder.constant(DType::U8, &[4], &entries(pairs));
        let c = get(&[("location", "weights"), ("offset", "8"), ("length", "4")]).unwrap();
        assert_eq!(c.bytes(), Some(&[8, 9, 10, 11][..]));
        let message = |pairs: &[(&str, &str)]| get(pairs).unwrap_err().message;
        assert_eq!(
            message(&[("location", "./weights"), ("offset", "13")]),
            "external data `./weights` ends at byte 16, the tensor needs 4 bytes from byte 13"
        );
        assert_eq!(
            message(&[("location", "weights"), ("length", "5")]),
            "external data of 5 bytes for a tensor of 4, u8[4]"
        );
        assert_eq!(message(&[("location", "weights"), ("offset", "-1")]), "external data has the offset `-1`");
        assert_eq!(message(&[]), "external data without a location");
        std::fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn paths_stay_in_the_folder() {
        let top = scene("escape");
        #[cfg(unix)]
        std::os::unix::fs::symlink(top.join("secret"), top.join("model/link")).unwrap();
        let folder = Folder::new(Some(&top.join("model")));
        let absolute = top.join("secret");
        let mut locations = vec!["../secret", "a/../../secret", absolute.to_str().unwrap(), ""];
        if cfg!(unix) {
            locations.push("link");
        }
        for location in locations {
            let problem = folder.constant(DType::U8, &[4], &entries(&[("location", location)])).unwrap_err();
            assert_eq!(problem.message, format!("external data `{location}` lies outside of the model's folder"));
        }
        assert_eq!(
            folder.constant(DType::U8, &[4], &entries(&[("location", ".")])).unwrap_err().message,
            "external data `.` is not a file"
        );
        std::fs::remove_dir_all(top).unwrap();
    }
}
