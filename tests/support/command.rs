//! The command and a folder of files, for tests that meet nncc as a user does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of one test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(test: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        let _ = std::fs::remove_dir_all(&path); // left by an earlier run that failed, or not there
        std::fs::create_dir_all(&path).expect("target/ can be written");
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn file(&self, name: &str) -> String {
        self.path(name).to_str().expect("the project's path is UTF-8").to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // kept for looking at when the test fails
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

pub fn nncc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nncc")).args(args).stdin(Stdio::null()).output().expect("the command starts")
}
