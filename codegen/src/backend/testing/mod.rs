//! Running compiled kernels in tests: on this machine, and on others through qemu.
//!
//! Natively the code is mapped executable and every buffer ends at a page that may not be touched, so that a load or
//! store beyond its operand is a crash, not luck. For another machine, `driver.c` is compiled by that machine's C compiler
//! and does the same for a file of cases under `qemu-user`. Missing tools are reported and skip the test.

pub mod instructions;

use super::{Backend, MachineCode};
use crate::kir::arbitrary::Case;
use crate::kir::interp;
use crate::target::Target;
use memmap2::{Mmap, MmapMut};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

const PAGE: usize = 4096;

unsafe extern "C" {
    /// POSIX `mprotect`: memmap2 cannot protect a part of a mapping.
    fn mprotect(addr: *mut u8, len: usize, prot: i32) -> i32;
}

/// Bytes that end where a protected page begins.
struct Guarded {
    map: MmapMut,
    start: usize,
    len: usize,
}

impl Guarded {
    fn new(contents: &[u8]) -> Guarded {
        let pages = contents.len().div_ceil(PAGE) * PAGE;
        let mut map = MmapMut::map_anon(pages + PAGE).expect("anonymous memory");
        let start = pages - contents.len();
        map[start..pages].copy_from_slice(contents);
        // SAFETY: the last page of our own mapping, which nothing reads from here on: slices end before it.
        let protected = unsafe { mprotect(map.as_mut_ptr().add(pages), PAGE, 0) };
        assert_eq!(protected, 0, "mprotect");
        Guarded { map, start, len: contents.len() }
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.map[self.start..self.start + self.len].as_mut_ptr()
    }

    fn contents(&self) -> &[u8] {
        &self.map[self.start..self.start + self.len]
    }
}

/// Maps code executable.
fn executable(code: &MachineCode) -> Mmap {
    assert!(code.align as usize <= PAGE);
    let mut map = MmapMut::map_anon(code.bytes.len()).expect("anonymous memory");
    map.copy_from_slice(&code.bytes);
    map.make_exec().expect("executable memory")
}

/// Runs code on this machine; gives the operands afterwards.
///
/// The code must be a backend's for a level that this machine has, of a kernel that the interpreter ran without error on
/// the same operands: that it stays in its buffers is then what is tested.
pub fn run_native(code: &MachineCode, buffers: &[Vec<u8>], scratch_len: usize, begin: i64, end: i64) -> Vec<Vec<u8>> {
    let map = executable(code);
    let mut guarded: Vec<Guarded> = buffers.iter().map(|b| Guarded::new(b)).collect();
    let mut scratch = Guarded::new(&vec![interp::SCRATCH_FILL; scratch_len]);
    let args: Vec<*mut u8> = guarded.iter_mut().map(Guarded::as_mut_ptr).collect();
    type Entry = extern "C" fn(*const *mut u8, *mut u8, i64, i64);
    // SAFETY: the mapping holds a function of this signature, and outlives the call.
    let entry = unsafe { std::mem::transmute::<*const u8, Entry>(map.as_ptr()) };
    entry(args.as_ptr(), scratch.as_mut_ptr(), begin, end);
    guarded.iter().map(|g| g.contents().to_vec()).collect()
}

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

/// What the interpreter makes of a case.
pub fn expected(case: &Case, target: &Target) -> Vec<Vec<u8>> {
    let mut buffers = case.buffers.clone();
    interp::run(&case.kernel, target, &mut buffers, case.scratch_len, case.begin, case.end)
        .unwrap_or_else(|e| panic!("{e}\n{}", case.kernel));
    buffers
}

/// Compiles a case.
pub fn compiled(backend: &dyn Backend, case: &Case, target: &Target) -> MachineCode {
    backend.compile(&case.kernel, target).unwrap_or_else(|e| panic!("{e}\n{}", case.kernel))
}

/// Where this machine and the interpreter differ on a case.
pub fn native_difference(backend: &dyn Backend, case: &Case, target: &Target) -> Option<String> {
    let expected = expected(case, target);
    let code = compiled(backend, case, target);
    let got = run_native(&code, &case.buffers, case.scratch_len, case.begin, case.end);
    case.difference(&got, &expected)
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
