//! A model file is untrusted input: whatever its bytes, compiling it ends in a library or in an error, without a panic
//! and without more memory than the file's own size explains.
//!
//! Real models (the import cases, and small ones of the ONNX suite) are damaged as a disk, a network or an attacker
//! would: cut off, bits flipped, bytes replaced by the largest varint, pieces doubled or swapped between two files. Each
//! damaged file goes through the whole compiler. The same for whole classes of well-formed but hostile models, built by
//! hand below. A random case prints what it needs to be repeated.

use nncc::{Compiler, Error};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what the process has allocated, and the largest amount since the last reset.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every request is passed to the system's allocator unchanged; the counters are atomics and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promises about `layout` are the system allocator's too.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `alloc` above, that is from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What compiling may take however small the file: the compiler's own tables, Cranelift's, and one page-sized buffer for
/// each of a few hundred kernels. Measured at about 10 MiB for the largest of these models.
const FIXED: usize = 64 << 20;
/// What it may take for each byte of the file: a node of 20 bytes in the file is an operator, a type and a name in memory.
const FACTOR: usize = 200;

fn compile(path: &Path) -> Result<(), Error> {
    Compiler::new().load(path)?.jit().map(|_| ())
}

/// Compiles the bytes as a model; fails if that takes too much memory. A panic fails by itself.
fn endure(bytes: &[u8], what: &str) -> Result<(), TestCaseError> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hostile.onnx");
    std::fs::write(&path, bytes).map_err(|e| TestCaseError::fail(format!("{}: {e}", path.display())))?;
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let outcome = compile(&path);
    let used = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let limit = FIXED + FACTOR * bytes.len();
    prop_assert!(
        used <= limit,
        "{what}: {} bytes took {used} bytes of memory, {limit} are allowed ({:?})",
        bytes.len(),
        outcome.err()
    );
    if let Err(e) = outcome {
        prop_assert!(!e.to_string().is_empty(), "{what}: an error without a message");
    }
    Ok(())
}

/// Small real models to damage.
fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let mut paths: Vec<PathBuf> = Vec::new();
    let names = [
        "node/test_conv_with_strides_padding",
        "node/test_maxpool_2d_ceil",
        "node/test_resize_upsample_sizes_nearest",
        "node/test_einsum_batch_matmul",
        "node/test_scatternd",
        "node/test_top_k",
        "node/test_reduce_mean_keepdims_example",
        "node/test_layer_normalization_4d_axis2",
        "node/test_convtranspose_group_2",
        "node/test_pad",
        "light/test_squeezenet",
    ];
    paths.extend(names.iter().map(|name| root.join("onnx-cases").join(name)));
    for entry in std::fs::read_dir(root.join("import-cases/import")).into_iter().flatten().flatten() {
        paths.push(entry.path());
    }
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths
        .iter()
        .filter_map(|path| std::fs::read(path.join("model.onnx")).ok())
        .filter(|bytes| bytes.len() < 20_000)
        .collect();
    assert!(seeds.len() > 40, "{} models to damage; docs/testing.md says how to write the test data", seeds.len());
    seeds
}

/// One way to damage a file. Positions are shares of the length, so that they shrink independently of the file.
#[derive(Clone, Debug)]
enum Damage {
    Truncate(f64),
    Flip(f64, u8),
    Replace(f64, u8),
    /// Nine bytes that say 2^63 - 1 where a varint is read, or -1 with one more.
    HugeVarint(f64, bool),
    Remove(f64, usize),
    Double(f64, usize),
    /// The piece comes from another model.
    Splice(f64, usize, f64, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = || 0.0..1.0_f64;
    prop_oneof![
        1 => at().prop_map(Damage::Truncate),
        4 => (at(), 0..8_u8).prop_map(|(p, bit)| Damage::Flip(p, bit)),
        3 => (at(), any::<u8>()).prop_map(|(p, b)| Damage::Replace(p, b)),
        3 => (at(), any::<bool>()).prop_map(|(p, minus)| Damage::HugeVarint(p, minus)),
        2 => (at(), 1..40_usize).prop_map(|(p, n)| Damage::Remove(p, n)),
        2 => (at(), 1..40_usize).prop_map(|(p, n)| Damage::Double(p, n)),
        2 => (at(), 0..1000_usize, at(), 1..200_usize).prop_map(|(p, s, q, n)| Damage::Splice(p, s, q, n)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let index = |p: f64, len: usize| ((p * len as f64) as usize).min(len.saturating_sub(1));
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match *self {
            Damage::Truncate(p) => bytes.truncate(index(p, len)),
            Damage::Flip(p, bit) => bytes[index(p, len)] ^= 1 << bit,
            Damage::Replace(p, b) => bytes[index(p, len)] = b,
            Damage::HugeVarint(p, minus) => {
                let i = index(p, len);
                let varint = [&[0xff; 8][..], if minus { &[0xff, 0x01] } else { &[0x7f] }].concat();
                bytes.splice(i..=i, varint);
            }
            Damage::Remove(p, n) => {
                let i = index(p, len);
                bytes.drain(i..(i + n).min(len));
            }
            Damage::Double(p, n) => {
                let i = index(p, len);
                let piece = bytes[i..(i + n).min(len)].to_vec();
                bytes.splice(i..i, piece);
            }
            Damage::Splice(p, seed, q, n) => {
                let other = &seeds[seed % seeds.len()];
                let (i, j) = (index(p, len), index(q, other.len()));
                bytes.splice(i..(i + n).min(len), other[j..(j + n).min(other.len())].iter().copied());
            }
        }
    }
}

// One test in this program: the memory that is counted is the whole process's.
#[test]
fn damaged_models_end_in_an_error_or_a_library() {
    let seeds = seeds();
    for (i, seed) in seeds.iter().enumerate() {
        endure(seed, &format!("seed {i} undamaged")).unwrap_or_else(|e| panic!("{e}"));
    }
    // Arrays that say that they go on for two billion bytes: `graph.initializer.int64_data`, and all is whole but for that.
    let array = [0x3a, 9, 0x2a, 7, 0x3a, 0x80, 0xa8, 0xd6, 0xb9, 0x07, 1];
    endure(&array, "a long array in a short file").unwrap_or_else(|e| panic!("{e}"));
    let config = Config { cases: 1500, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let strategy = (0..seeds.len(), prop::collection::vec(damage(), 1..6));
    let outcome = TestRunner::new(config).run(&strategy, |(seed, damages)| {
        let mut bytes = seeds[seed].clone();
        for damage in &damages {
            damage.apply(&mut bytes, &seeds);
        }
        endure(&bytes, &format!("seed {seed} with {damages:?}"))
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}
