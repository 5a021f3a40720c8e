//! What a library promises of itself, held against the file that is written: imports, sizes, bounds.
//!
//! The constants of the header, what the library says when it is asked, and an independent reading of the ELF file must
//! agree. A freestanding library imports nothing. Each function keeps to its CPU level.

use nncc::{Compiled, Model, OutputKind};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes the library of a freestanding model into `folder`, checks it against its header and against `model`, which
/// is the same in memory, and removes it.
pub fn check(name: &str, compiled: &Compiled, model: &Model, folder: &Path) {
    let path = folder.join(format!("{name}.contract.so"));
    compiled.write_with_header(&path, OutputKind::Shared).unwrap_or_else(|e| panic!("{name}: {e}"));
    let header = path.with_extension("h");
    let constants = constants(&std::fs::read_to_string(&header).expect("the header was written"));

    let file = std::fs::File::open(&path).expect("the library was written");
    let cache = object::ReadCache::new(file);
    let elf = object::File::parse(&cache).expect("the library is an ELF file");
    let undefined: Vec<_> = elf.dynamic_symbols().chain(elf.symbols()).filter(|s| s.is_undefined()).collect();
    // The first symbol of a table is the null symbol: undefined, and without a name.
    let undefined: Vec<&str> = undefined.iter().filter_map(|s| s.name().ok()).filter(|n| !n.is_empty()).collect();
    assert!(undefined.is_empty(), "{name}: a freestanding library needs {undefined:?}");
    super::levels::check(name, compiled, &elf);
    let weights = elf.symbols().find(|s| s.name() == Ok("nncc.weights")).map_or(0, |s| s.size());
    let code: u64 = elf.sections().filter(|s| s.kind() == SectionKind::Text).map(|s| s.size()).sum();

    let library = model.library();
    let all = (0..library.set_count()).flat_map(|set| (0..library.levels().len()).map(move |level| (set, level)));
    let asked: Vec<_> = all.map(|(set, level)| library.bounds(set, level).expect("there is such a set")).collect();
    let most = |f: fn(&nncc_runtime::Bounds) -> u64| asked.iter().map(f).max().unwrap_or(0);
    for (constant, bound) in [
        ("ARENA_BYTES", most(|b| b.arena_bytes)),
        ("SCRATCH_BYTES", most(|b| b.scratch_bytes)),
        ("STACK_BYTES", most(|b| b.stack_bytes)),
        ("CODE_BYTES", most(|b| b.code_bytes)),
        ("WEIGHT_BYTES", most(|b| b.weight_bytes)),
        ("MACS", most(|b| b.macs)),
        ("IMPORTS", most(|b| b.imports)),
    ] {
        assert_eq!(constants.get(constant), Some(&bound), "{name}: {constant} of the header and of the library");
    }
    assert_eq!(constants["IMPORTS"], 0, "{name}");
    assert_eq!(constants["WEIGHT_BYTES"], weights, "{name}: bytes of weights in the file");
    let bound = constants["CODE_BYTES"];
    assert!(code <= bound && bound <= code + 4096, "{name}: {code} bytes of code in the file, the bound is {bound}");
    for file in [&path, &header] {
        std::fs::remove_file(file).expect("the test's own file can be removed");
    }
}

/// The numbers of a header by their names behind the model's: `#define LENET5_MACS UINT64_C(416520)`.
fn constants(header: &str) -> BTreeMap<String, u64> {
    let of = |line: &str| -> Option<(String, u64)> {
        let mut words = line.strip_prefix("#define ")?.split_whitespace();
        let (name, value) = (words.next()?, words.next()?);
        let digits: String = value.trim_start_matches("UINT64_C(").chars().take_while(char::is_ascii_digit).collect();
        // The model's name may hold underscores: what follows its last part is one of a few known words.
        let known = ["ARENA_BYTES", "SCRATCH_BYTES", "STACK_BYTES", "CODE_BYTES", "WEIGHT_BYTES", "MACS", "IMPORTS"];
        let short = known.into_iter().find(|k| name.ends_with(&format!("_{k}")))?;
        Some((short.to_string(), digits.parse().ok()?))
    };
    header.lines().filter_map(of).collect()
}
