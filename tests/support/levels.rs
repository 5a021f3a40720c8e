//! What a library may execute at each CPU level: every function of it, decoded from the file.
//!
//! Kernels are found by their symbols and belong to their level; all other functions run on any CPU. What can be reached from a
//! function's first byte is decoded (constants lie behind the code), and each instruction must be one that the level has, so
//! that no AVX-512 form stands in the AVX2 variant, and no AVX form in the baseline.

use nncc::Compiled;
use nncc_codegen::target;
use nncc_simulator::level::Level;
use nncc_simulator::program::reachable;
use object::{File, Object, ObjectSection, ObjectSymbol, ReadRef, SymbolKind};
use std::collections::BTreeMap;

/// Executed only after CPUID has said that it exists.
const GUARDED: &str = "nncc.xgetbv";
/// Spans all kernels.
const KERNELS: &str = "nncc.kernels";

/// Checks a library of an x86-64 model.
pub fn check<'d, R: ReadRef<'d>>(name: &str, compiled: &Compiled, elf: &File<'d, R>) {
    let program = compiled.program();
    if program.targets.iter().any(|t| t.level == target::Level::Aarch64) {
        return;
    }
    let mut unseen: BTreeMap<&str, Level> = program.kernels.iter().map(|k| (&*k.ir.name, level(k.level))).collect();
    assert_eq!(unseen.len(), program.kernels.len(), "{name}: kernels of one name");
    let functions = elf.symbols().filter(|s| s.kind() == SymbolKind::Text && s.is_definition() && s.size() > 0);
    for symbol in functions.collect::<Vec<_>>() {
        let function = symbol.name().expect("symbols have names");
        if function == GUARDED || function == KERNELS {
            continue;
        }
        let level = unseen.remove(function).unwrap_or(Level::V1);
        let section = symbol.section_index().and_then(|i| elf.section_by_index(i).ok()).expect("code has a section");
        let bytes = section.data_range(symbol.address(), symbol.size()).ok().flatten().expect("code is in the file");
        let code = reachable(bytes, symbol.address()).unwrap_or_else(|e| panic!("{name}: {function}: {e}"));
        for i in code.values() {
            level.permits(i).unwrap_or_else(|e| panic!("{name}: {function}: {e}"));
        }
    }
    assert!(unseen.is_empty(), "{name}: without a symbol: {unseen:?}");
}

fn level(level: target::Level) -> Level {
    match level {
        target::Level::X86V3 => Level::V3,
        target::Level::X86V4 => Level::V4,
        target::Level::X86V1 | target::Level::Aarch64 => Level::V1,
    }
}
