//! Checkpoints: what a run needs to go on where it was, in a file that is whole or not there.
//!
//! ```text
//! "nnccckpt" | version: u32 | sections: u32 | sections | CRC-32 of all before: u32          little-endian
//! section: length of the name: u32 | name | length of the data: u64 | data
//! ```
//!
//! Writing never touches the last good file: the new one is written beside it (`.tmp`), forced to disk, and only then
//! renamed over it; the one before is kept as `.old`. A kill or a full disk at any moment leaves at least one whole file:
//!
//! ```text
//!                              kill here leaves
//! write and sync  FILE.tmp     FILE (and .old)
//! rename FILE     FILE.old     FILE.old
//! rename FILE.tmp FILE         FILE and FILE.old
//! ```
//!
//! Reading takes `FILE`, or `FILE.old` where the first is missing or damaged, and says so.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"nnccckpt";
/// Raised when an older program could not read the file.
const VERSION: u32 = 1;

/// Named sections of bytes, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Names and data.
    pub sections: Vec<(String, Vec<u8>)>,
}

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system refused: no space, no permission, no file.
    #[error("{path}: {what}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not a whole checkpoint.
    #[error("{path}: damaged checkpoint: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is whole, but from another version of nncc.
    #[error("{path}: a checkpoint of version {found}; this nncc reads version {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl CheckpointError {
    fn is_missing(&self) -> bool {
        matches!(self, CheckpointError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A checkpoint that was read, and what is to be said about it.
#[derive(Debug)]
pub struct Loaded {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Why it is the older one, if it is.
    pub fallback: Option<CheckpointError>,
}

/// The path with something appended to its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

impl Checkpoint {
    /// The data of a section.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.sections.iter().find(|(n, _)| n == name).map(|(_, data)| &data[..])
    }

    /// Replaces the file at `path`; the one there before stays as `.old`. On an error the files are as they were.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let temporary = beside(path, ".tmp");
        let fail = |what, path: &Path| {
            let path = path.to_path_buf();
            move |source| CheckpointError::Io { path, what, source }
        };
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(&self.encode())?;
            file.sync_all()
        });
        if let Err(e) = written {
            // What there is of it is of no use, and on a full disk in the way.
            let _ = fs::remove_file(&temporary);
            return Err(fail("writing the checkpoint (the last good one is kept)", path)(e));
        }
        match fs::rename(path, beside(path, ".old")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail("keeping the older checkpoint", path)(e)),
            _ => {}
        }
        fs::rename(&temporary, path).map_err(fail("renaming the checkpoint", path))?;
        // The renames are in the folder, which reaches the disk by itself only some time later.
        if let Some(folder) = path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder).and_then(|f| f.sync_all()).map_err(fail("syncing the folder", folder))?;
        }
        Ok(())
    }

    /// Reads the checkpoint at `path`, or the older one where that is missing or damaged; `None` if there is neither.
    pub fn read(path: &Path) -> Result<Option<Loaded>, CheckpointError> {
        let first = match Self::read_file(path) {
            Ok(checkpoint) => return Ok(Some(Loaded { checkpoint, fallback: None })),
            Err(e) => e,
        };
        match Self::read_file(&beside(path, ".old")) {
            Ok(checkpoint) => Ok(Some(Loaded { checkpoint, fallback: Some(first) })),
            Err(e) if e.is_missing() && first.is_missing() => Ok(None),
            Err(_) => Err(first),
        }
    }

    fn read_file(path: &Path) -> Result<Checkpoint, CheckpointError> {
        let bytes = fs::read(path).map_err(|source| CheckpointError::Io {
            path: path.into(),
            what: "reading the checkpoint",
            source,
        })?;
        Self::decode(&bytes, path)
    }

    fn encode(&self) -> Vec<u8> {
        let size: usize = self.sections.iter().map(|(name, data)| 12 + name.len() + data.len()).sum();
        let mut out = Vec::with_capacity(20 + size);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.sections.len() as u32).to_le_bytes());
        for (name, data) in &self.sections {
            out.extend((name.len() as u32).to_le_bytes());
            out.extend(name.as_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            out.extend(data);
        }
        out.extend(crc32fast::hash(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Checkpoint, CheckpointError> {
        let damaged = |reason: &str| CheckpointError::Damaged { path: path.into(), reason: reason.into() };
        if !bytes.starts_with(MAGIC) {
            return Err(damaged("it does not begin as one"));
        }
        let Some((body, sum)) = bytes.split_last_chunk() else { return Err(damaged("cut off")) };
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return Err(damaged("its checksum does not fit: cut off or changed"));
        }
        let mut rest = &body[MAGIC.len()..];
        let cut = || damaged("cut off");
        let version = u32::from_le_bytes(*take(&mut rest).ok_or_else(cut)?);
        if version != VERSION {
            return Err(CheckpointError::Version { path: path.into(), found: version });
        }
        let count = u32::from_le_bytes(*take(&mut rest).ok_or_else(cut)?);
        let mut sections = Vec::new();
        for _ in 0..count {
            let length = u32::from_le_bytes(*take(&mut rest).ok_or_else(cut)?) as usize;
            let name = rest.split_off(..length).ok_or_else(cut)?;
            let name = String::from_utf8(name.to_vec()).map_err(|_| damaged("a name that is no text"))?;
            let length = u64::from_le_bytes(*take(&mut rest).ok_or_else(cut)?);
            let length = usize::try_from(length).map_err(|_| cut())?;
            sections.push((name, rest.split_off(..length).ok_or_else(cut)?.to_vec()));
        }
        if rest.is_empty() { Ok(Checkpoint { sections }) } else { Err(damaged("more bytes than its sections have")) }
    }
}

/// The first `N` bytes, which `rest` then lacks.
fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Folder;

    fn checkpoint(text: &str) -> Checkpoint {
        let sections = vec![("weights".into(), text.as_bytes().to_vec()), ("empty".into(), vec![])];
        Checkpoint { sections }
    }

    #[test]
    fn the_older_one_is_kept_and_taken() {
        let folder = Folder::new("ckpt");
        let path = folder.path().join("run.ckpt");
        assert!(Checkpoint::read(&path).unwrap().is_none());
        checkpoint("one").write(&path).unwrap();
        checkpoint("two").write(&path).unwrap();
        let read = || Checkpoint::read(&path).unwrap().unwrap();
        assert_eq!((read().checkpoint, read().fallback.is_none()), (checkpoint("two"), true));
        assert!(!beside(&path, ".tmp").exists());
        // Between the two renames.
        fs::rename(&path, folder.path().join("gone")).unwrap();
        assert_eq!(read().checkpoint, checkpoint("one"));
        // A damaged file.
        let mut bytes = checkpoint("two").encode();
        bytes[30] ^= 4;
        fs::write(&path, bytes).unwrap();
        let loaded = read();
        assert_eq!(loaded.checkpoint, checkpoint("one"));
        let why = folder.strip(loaded.fallback.unwrap());
        assert_eq!(why, "run.ckpt: damaged checkpoint: its checksum does not fit: cut off or changed");
        fs::remove_file(beside(&path, ".old")).unwrap();
        assert!(matches!(Checkpoint::read(&path), Err(CheckpointError::Damaged { .. })));
    }

    /// Cut anywhere or changed anywhere, it is an error and nothing else.
    #[test]
    fn no_damage_goes_unnoticed() {
        let whole = checkpoint("some weights").encode();
        let path = Path::new("c");
        assert_eq!(Checkpoint::decode(&whole, path).unwrap(), checkpoint("some weights"));
        for end in 0..whole.len() {
            assert!(Checkpoint::decode(&whole[..end], path).is_err(), "cut at {end}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert!(Checkpoint::decode(&bytes, path).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    /// With a right checksum too: lengths are not trusted, versions are told apart.
    #[test]
    fn lengths_are_not_trusted() {
        let with_sum = |mut bytes: Vec<u8>| {
            bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
            Checkpoint::decode(&bytes, Path::new("c")).unwrap_err().to_string()
        };
        let mut whole = checkpoint("x").encode();
        whole.truncate(whole.len() - 4);
        let mut long = whole.clone();
        long[16..20].fill(0xff);
        assert_eq!(with_sum(long), "c: damaged checkpoint: cut off");
        let mut many = whole.clone();
        many[12..16].fill(0xff);
        assert_eq!(with_sum(many), "c: damaged checkpoint: cut off");
        let mut newer = whole.clone();
        newer[8] = 2;
        assert_eq!(with_sum(newer), "c: a checkpoint of version 2; this nncc reads version 1");
        whole.push(0);
        assert_eq!(with_sum(whole), "c: damaged checkpoint: more bytes than its sections have");
    }

    /// `/dev/full` is a disk without space: the temporary file leads there.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_costs_nothing() {
        let folder = Folder::new("full");
        let path = folder.path().join("run.ckpt");
        checkpoint("one").write(&path).unwrap();
        checkpoint("two").write(&path).unwrap();
        std::os::unix::fs::symlink("/dev/full", beside(&path, ".tmp")).unwrap();
        let message = folder.strip(checkpoint("three").write(&path).unwrap_err());
        let expected =
            "run.ckpt: writing the checkpoint (the last good one is kept): No space left on device (os error 28)";
        assert_eq!(message, expected);
        assert_eq!(Checkpoint::read(&path).unwrap().unwrap().checkpoint, checkpoint("two"));
        checkpoint("three").write(&path).unwrap();
        assert_eq!(Checkpoint::read(&path).unwrap().unwrap().checkpoint, checkpoint("three"));
    }
}
