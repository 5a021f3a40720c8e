//! Other machines, by emulation: compiled libraries run under qemu-user through a C driver.
//!
//! There is no Rust standard library for aarch64 here, and a model's user is a C program anyway: the driver
//! (`driver.c`) is compiled with the target's gcc, opens the library, runs it on files and writes files. The baseline
//! x86-64 machine is a `qemu64` CPU: SSE2 and nothing else, so that any later instruction is an illegal one.

use nncc::{Compiled, Compiler, DType, OutputKind, Tensor};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A machine that libraries are run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What tests call it.
    pub name: &'static str,
    triple: &'static str,
    cpu: Option<&'static str>,
    /// Its C compiler.
    pub gcc: &'static str,
    /// What runs its programs here: a command and its first arguments.
    pub emulator: &'static [&'static str],
}

/// The machines.
pub const MACHINES: [Machine; 2] = [
    Machine {
        name: "aarch64",
        triple: "aarch64-unknown-linux-gnu",
        cpu: None,
        gcc: "aarch64-linux-gnu-gcc",
        emulator: &["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"],
    },
    Machine {
        name: "baseline",
        triple: "x86_64-unknown-linux-gnu",
        cpu: Some("x86-64"),
        gcc: "gcc",
        emulator: &["qemu-x86_64", "-cpu", "qemu64"],
    },
];

impl Machine {
    /// A compiler for this machine.
    pub fn compiler(&self) -> Compiler {
        let compiler = Compiler::new().target(self.triple);
        match self.cpu {
            Some(cpu) => compiler.target_cpu(cpu),
            None => compiler,
        }
    }

    /// Runs a model that was compiled for this machine. `outputs` are the dtypes and shapes of its outputs.
    pub fn run(
        &self,
        compiled: &Compiled,
        inputs: &[Tensor],
        outputs: &[(DType, Vec<usize>)],
    ) -> Result<Vec<Tensor>, String> {
        let folder = Folder::new()?;
        let library = folder.file("model.so");
        compiled.write(&library, OutputKind::Shared).map_err(|e| format!("emit: {e}"))?;
        let driver = self.driver(compiled)?;
        let mut command = Command::new(self.emulator[0]);
        command.args(&self.emulator[1..]).arg(driver).arg(&library).arg(folder.file("out"));
        for (i, tensor) in inputs.iter().enumerate() {
            let path = folder.file(&format!("in{i}"));
            std::fs::write(&path, tensor.to_bytes()).map_err(|e| format!("{}: {e}", path.display()))?;
            command.arg(path);
        }
        let ended = command.output().map_err(|e| format!("{} (Debian's qemu-user): {e}", self.emulator[0]))?;
        if !ended.status.success() {
            return Err(format!("{}: {} {}", self.name, ended.status, String::from_utf8_lossy(&ended.stderr)));
        }
        let bytes = std::fs::read(folder.file("out")).map_err(|e| format!("the outputs: {e}"))?;
        let mut rest = &bytes[..];
        let mut tensors = Vec::new();
        for (dtype, dims) in outputs {
            let size = dims.iter().product::<usize>() * dtype.bytes();
            let (own, others) = rest.split_at_checked(size).ok_or("fewer bytes of outputs than expected")?;
            tensors.push(Tensor::from_bytes(*dtype, dims, own).ok_or("an output that is not of its type")?);
            rest = others;
        }
        if rest.is_empty() { Ok(tensors) } else { Err("more bytes of outputs than expected".into()) }
    }

    /// The driver, compiled once for each machine; several processes may do so at a time.
    fn driver(&self, any: &Compiled) -> Result<PathBuf, String> {
        let ready = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("driver-{}", self.name));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/driver.c");
        let newer = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
        if newer(&ready) > newer(&source) {
            return Ok(ready);
        }
        let folder = Folder::new()?;
        let header = folder.file("model.h");
        any.write(&header, OutputKind::Header).map_err(|e| format!("emit: {e}"))?;
        let made = folder.file("driver");
        let built = Command::new(self.gcc)
            .args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"])
            .arg(format!("-DNNCC_HEADER=\"{}\"", header.display()))
            .arg("-o")
            .arg(&made)
            .arg(&source)
            .arg("-ldl")
            .output()
            .map_err(|e| format!("{} (Debian's gcc, gcc-aarch64-linux-gnu): {e}", self.gcc))?;
        if !built.status.success() {
            return Err(format!("the driver does not compile: {}", String::from_utf8_lossy(&built.stderr)));
        }
        // a rename is atomic: whoever comes second replaces an equal file
        std::fs::rename(&made, &ready).map_err(|e| format!("{}: {e}", ready.display()))?;
        Ok(ready)
    }
}

/// A folder of its own for one run; removed with everything in it.
pub struct Folder(PathBuf);

impl Folder {
    /// A new one.
    pub fn new() -> Result<Folder, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("run-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Folder(path))
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // what cannot be removed stays under target/, where `cargo clean` removes it
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
