//! Compiled kernels on other machines: `driver.c` is compiled by the machine's C compiler and runs a file of cases under
//! `qemu-user`, each buffer before a protected page. Missing tools are reported and skip the test.

use super::{compiled, expected};
use crate::backend::{Backend, MachineCode};
use crate::kir::arbitrary::Case;
use crate::target::Target;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Another machine to run on: its C compiler and its emulator with arguments.
pub struct Machine {
    /// Makes `driver.c` a static program.
    pub cc: &'static str,
    /// Runs it.
    pub emulator: &'static [&'static str],
}

/// AArch64 under `qemu-user`.
pub const AARCH64: Machine = Machine { cc: "aarch64-linux-gnu-gcc", emulator: &["qemu-aarch64"] };
/// The x86-64 baseline: a CPU without SSSE3, SSE4 and AVX.
pub const X86_64_V1: Machine = Machine { cc: "gcc", emulator: &["qemu-x86_64", "-cpu", "qemu64,-sse3,-ssse3,-sse4.1"] };

impl Machine {
    /// Runs compiled cases; gives each one's operands afterwards, or why this cannot be done here.
    pub fn run(&self, cases: &[(MachineCode, Case)]) -> Result<Vec<Vec<Vec<u8>>>, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("nncc-kernels-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        let result = self.run_in(&dir, cases);
        let _ = std::fs::remove_dir_all(&dir);
        result
    }

    fn run_in(&self, dir: &Path, cases: &[(MachineCode, Case)]) -> Result<Vec<Vec<Vec<u8>>>, String> {
        let [source, driver, input, output] = ["driver.c", "driver", "cases", "results"].map(|f| dir.join(f));
        std::fs::write(&source, include_str!("driver.c")).map_err(|e| e.to_string())?;
        let cc = Command::new(self.cc).args(["-static", "-O1", "-o"]).args([&driver, &source]).status();
        if !cc.map_err(|e| format!("{}: {e}", self.cc))?.success() {
            return Err(format!("{} does not compile and link a static program", self.cc));
        }
        let mut bytes = Vec::new();
        for (code, case) in cases {
            let counts =
                [code.bytes.len() as i64, case.buffers.len() as i64, case.scratch_len as i64, case.begin, case.end, 0];
            counts.iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
            bytes.extend_from_slice(&code.bytes);
            for buffer in &case.buffers {
                bytes.extend_from_slice(&(buffer.len() as i64).to_le_bytes());
                bytes.extend_from_slice(buffer);
            }
        }
        std::fs::write(&input, bytes).map_err(|e| e.to_string())?;
        let mut run = Command::new(self.emulator[0]);
        let status = run.args(&self.emulator[1..]).args([&driver, &input, &output]).status();
        let status = status.map_err(|e| format!("{}: {e}", self.emulator[0]))?;
        // From here on it is no longer a missing tool.
        assert!(status.success(), "{:?} ended with {status}", self.emulator);
        let results = std::fs::read(&output).expect("the driver's output");
        let mut rest = &results[..];
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at(n);
            rest = tail;
            head.to_vec()
        };
        Ok(cases.iter().map(|(_, case)| case.buffers.iter().map(|b| take(b.len())).collect()).collect())
    }
}

/// Runs cases on another machine against the interpreter; prints why where it cannot be run.
pub fn check_on(machine: &Machine, backend: &dyn Backend, cases: Vec<Case>, target: &Target) {
    let cases: Vec<(MachineCode, Case)> = cases.into_iter().map(|c| (compiled(backend, &c, target), c)).collect();
    match machine.run(&cases) {
        Err(missing) => eprintln!("skipped: {missing}"),
        Ok(results) => {
            for ((_, case), got) in cases.iter().zip(&results) {
                if let Some(difference) = case.difference(got, &expected(case, target)) {
                    panic!("{difference}\n{}", case.kernel);
                }
            }
        }
    }
}
