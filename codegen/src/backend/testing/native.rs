//! Compiled kernels on this machine.
//!
//! The code is mapped executable and every buffer ends at a page that may not be touched, so that a load or store beyond its
//! operand is a crash, not luck.

use crate::backend::MachineCode;
use crate::kir::interp;
use memmap2::{Mmap, MmapMut};

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
pub fn run(code: &MachineCode, buffers: &[Vec<u8>], scratch_len: usize, begin: i64, end: i64) -> Vec<Vec<u8>> {
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
