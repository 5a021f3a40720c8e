//! The command and a folder of files, for tests that meet nncc as a user does.

#![allow(dead_code, reason = "each test takes what it needs")]

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

/// A file of LeNet-5 among the test data.
pub fn lenet(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/networks").join(format!("lenet5.{file}"));
    assert!(path.exists(), "{}: missing; write it with: python tools/networks.py target/networks", path.display());
    path.to_str().expect("the project's path is UTF-8").to_string()
}

/// Runs the command, which must succeed and, as nothing here is a terminal, say nothing beside its result.
#[track_caller]
pub fn done(args: &[&str]) -> String {
    let output = nncc(args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "nncc {args:?}: {}\n{complaint}", output.status);
    String::from_utf8(output.stdout).expect("the command prints UTF-8")
}
