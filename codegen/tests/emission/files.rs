//! Emitted files, read again by an independent reader: symbols, sections, relocations, weights.

use crate::support::*;
use nncc_codegen::emit::{self, EmitError, EmitOptions, abi};
use nncc_codegen::program::*;
use nncc_codegen::target::Target;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ObjectSymbolTable, RelocationTarget, SectionKind};

/// What a library may import, whatever the model.
const ALLOWED: [&str; 7] =
    ["clock_gettime", "free", "malloc", "pthread_create", "pthread_join", "pthread_sigmask", "syscall"];

fn shared(targets: Vec<Target>, options: &EmitOptions, name: &str) -> Vec<u8> {
    let dir = TempDir::new(name);
    let (program, code) = affine(targets);
    let path = dir.0.join("affine.so");
    emit::emit_shared(&program, &code, options, &path).unwrap();
    std::fs::read(path).unwrap()
}

/// Imports, exports, weights and relocations of a shared library are what the contract says.
#[test]
fn shared_library_keeps_its_contract() {
    for (targets, freestanding) in [(x86_64(), false), (x86_64(), true), (aarch64(), false), (aarch64(), true)] {
        let name = format!("contract-{}-{freestanding}", targets[0].level.name());
        let bytes = shared(targets, &EmitOptions { freestanding, ..Default::default() }, &name);
        let file = object::File::parse(&*bytes).unwrap();
        let undefined: Vec<_> =
            file.dynamic_symbols().filter(|s| s.is_undefined()).map(|s| s.name().unwrap()).collect();
        // All of them, whatever the model: the header counts them.
        let mut imported = undefined.clone();
        imported.sort();
        let allowed: &[&str] = if freestanding { &[] } else { &ALLOWED };
        assert_eq!(imported, allowed);

        let mut exported: Vec<_> =
            file.dynamic_symbols().filter(|s| s.is_definition()).map(|s| s.name().unwrap().to_owned()).collect();
        let mut expected: Vec<_> = abi::entries(false).map(|def| format!("nncc_{}", def.name)).collect();
        expected.extend(abi::entries(false).map(|def| format!("affine_{}", def.model_name)));
        expected.push("affine_run".into());
        exported.sort();
        expected.sort();
        assert_eq!(exported, expected);

        let weights = file.symbol_by_name("nncc.weights").unwrap();
        assert_eq!((weights.address() % 64, weights.size()), (0, 512));
        let segment =
            file.segments().find(|s| s.address() <= weights.address() && weights.address() < s.address() + s.size());
        let segment = segment.unwrap();
        let object::SegmentFlags::Elf { p_flags, .. } = segment.flags() else { panic!("not ELF") };
        assert_eq!((p_flags & object::elf::PF_W).0, 0, "weights are read-only");
        let data = segment.data_range(weights.address(), 512).unwrap().unwrap();
        let want: Vec<u8> = (0..ROW).map(weight).chain((0..ROW).map(bias)).flat_map(f32::to_le_bytes).collect();
        assert_eq!(data, want);

        // Relocations are pointers to imports and, at most, a few words of the global offset table: never code or weights.
        let code = file.sections().filter(|s| matches!(s.kind(), SectionKind::Text | SectionKind::ReadOnlyData));
        let fixed: Vec<_> = code.map(|s| s.address()..s.address() + s.size()).collect();
        for (place, relocation) in file.dynamic_relocations().into_iter().flatten() {
            assert!(!fixed.iter().any(|range| range.contains(&place)), "{place:x} {relocation:?}");
            if let RelocationTarget::Symbol(index) = relocation.target() {
                let symbol = file.dynamic_symbol_table().unwrap().symbol_by_index(index);
                assert!(ALLOWED.contains(&symbol.unwrap().name().unwrap()));
            }
        }
    }
}

/// Kernels have symbols, for profilers.
#[test]
fn kernels_have_symbols() {
    let bytes = shared(x86_64(), &EmitOptions::default(), "symbols");
    let file = object::File::parse(&*bytes).unwrap();
    let (_, code) = affine(x86_64());
    let symbol = file.symbol_by_name("row_mul__x86_64_v3").unwrap();
    assert_eq!(symbol.size(), code[2].bytes.len() as u64);
}

/// The same program gives the same bytes.
#[test]
fn emission_is_deterministic() {
    for targets in [x86_64(), aarch64()] {
        let [a, b] = ["first", "second"].map(|name| shared(targets.clone(), &EmitOptions::default(), name));
        assert!(a == b);
    }
}

/// Refusals say what is wrong.
#[test]
fn refusals_have_sentences() {
    let dir = TempDir::new("refusals");
    let (program, code) = affine(x86_64());
    let emit = |program: &Program, options: &EmitOptions, name: &str| {
        emit::emit_shared(program, &code, options, &dir.0.join(name)).unwrap_err()
    };
    let options = EmitOptions { prefix: Some("my-model".into()), ..Default::default() };
    assert_eq!(emit(&program, &options, "x.so").to_string(), "prefix \"my-model\" is not a C identifier");
    let missing = emit(&program, &EmitOptions::default(), "no/such/folder.so");
    assert!(matches!(missing, EmitError::Write { .. }), "{missing}");
    let mut broken = program.clone();
    broken.sets[1].levels[0].steps[1].args[1] = Arg::Const(ConstId(7), 0);
    assert_eq!(
        emit(&broken, &EmitOptions::default(), "x.so").to_string(),
        "bug in nncc: program \"affine\", set 1, x86-64, step 1 \"add\": argument 1, Const(ConstId(7), 0): no such place"
    );
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 0, "nothing is left behind");
}
