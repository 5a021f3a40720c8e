//! Architecture rules as tests: what the crates may know of each other, and how a file must read.
//!
//! Each failure names the file and line, and says where the code should go instead. The rules work on source text, not
//! on a parse: they are meant to be obvious, and a false alarm costs one line in a table here, with its reason.

use std::fs;
use std::path::{Path, PathBuf};

/// The crates of the workspace, and the crates of the workspace that each may depend on.
const LAYERS: &[(&str, &[&str])] = &[
    ("ir", &[]),
    ("frontend", &["ir"]),
    ("passes", &["ir"]),
    ("codegen", &["ir", "passes"]),
    ("runtime", &[]),
    ("train", &["ir"]),
    ("simulator", &[]), // of tests
    ("zoo", &["ir", "frontend"]),
];

/// Where `unsafe` may stand, and why it must.
const UNSAFE_PLACES: &[(&str, &str)] = &[
    ("runtime/", "calls the C ABI of a compiled model, loads libraries"),
    ("codegen/src/emit/jit", "makes memory executable"),
    ("codegen/tests/", "calls the machine code under test"),
    ("simulator/src/hardware/", "runs single instructions on the CPU"),
    ("codegen/benches/", "calls the machine code that is measured"),
    ("codegen/src/backend/testing/", "calls the machine code under test"),
    ("codegen/src/testing.rs", "calls the machine code under test"),
    ("frontend/src/", "maps external data files into memory"),
    ("src/", "hands JIT memory to the runtime"),
    ("examples/", "call a compiled model as an embedding program does"),
    ("tests/", "call a compiled model as an embedding program does"),
];

/// Lines after which a file is asked which second idea has moved in; twice that is an error.
const LONG_FILE: usize = 700;

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// `path:line`, for a message.
    fn at(&self, line: usize) -> String {
        format!("{}:{}", self.path, line + 1)
    }

    /// The lines before the file's unit tests.
    fn lines_outside_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]")
    }
}

/// The line without what follows `//`: prose may mention anything. (A `//` inside a string cuts the line short too.)
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the project, in a fixed order.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let folders = LAYERS.iter().map(|(folder, _)| *folder).chain(["src", "tests", "examples", "benches", "fuzz"]);
    for folder in folders {
        collect(&root().join(folder), &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 10, "the walk found only {} files", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder of the project is readable").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file is readable UTF-8");
            let relative = path.strip_prefix(root()).expect("the walk stays in the project");
            found.push(Source { path: relative.to_string_lossy().into_owned(), text });
        }
    }
}

fn report(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}\n  {}", offences.join("\n  "));
}

#[test]
fn every_file_says_what_it_is() {
    let offences: Vec<String> = sources().into_iter().filter(|s| !s.text.starts_with("//!")).map(|s| s.path).collect();
    report("a file opens with `//!`: what it is, why, its source and its limits", &offences);
}

#[test]
fn crates_depend_downwards_only() {
    let mut offences = Vec::new();
    for (folder, allowed) in LAYERS {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("each layer has a manifest");
        // What tests and fuzzing alone need stands behind the rest.
        let start = |section: &str| manifest.find(section).unwrap_or(manifest.len());
        let normal = &manifest[..start("[dev-dependencies]").min(start("[target.'cfg(fuzzing)'.dependencies]"))];
        for (other, _) in LAYERS {
            let named = normal.lines().any(|line| line.starts_with(&format!("nncc-{other}")));
            if named && !allowed.contains(other) {
                offences.push(format!("{folder}/Cargo.toml names nncc-{other}"));
            }
        }
    }
    report("data flows one way: ir <- frontend, passes <- codegen; runtime stands alone", &offences);
}

#[test]
fn the_graph_ir_knows_nothing_of_model_files() {
    let mut offences = Vec::new();
    let words = ["onnx_protobuf", "protobuf::", "ModelProto", "NodeProto", "TensorProto", "GraphProto"];
    for source in sources().iter().filter(|s| !s.path.starts_with("frontend/")) {
        for (i, line) in source.text.lines().enumerate() {
            if !source.path.starts_with("tests/") && words.iter().any(|word| code(line).contains(word)) {
                offences.push(source.at(i));
            }
        }
    }
    report("only frontend/ reads protobuf: give the graph IR a type of its own and translate there", &offences);
}

#[test]
fn backends_stay_behind_their_trait() {
    let mut offences = Vec::new();
    for source in sources() {
        for (word, home) in [
            ("iced_x86", &["codegen/src/backend/x64", "codegen/src/emit", "codegen/tests", "simulator/", "tests/"][..]),
            ("regalloc2", &["codegen/src/backend/x64"][..]),
            ("cranelift_codegen", &["codegen/src/backend/cranelift", "codegen/src/emit", "codegen/tests"][..]),
        ] {
            for (i, line) in source.text.lines().enumerate() {
                let at_home = home.iter().any(|h| source.path.starts_with(h)) || source.path == "tests/tidy.rs";
                if code(line).contains(word) && !at_home {
                    offences.push(format!("{} names {word}: it belongs in {}", source.at(i), home.join(" or ")));
                }
            }
        }
    }
    report("machine code is the backends' and the emitter's business", &offences);
}

#[test]
fn unsafe_code_is_rare_and_reasoned() {
    let mut offences = Vec::new();
    let block = ["unsafe", " {"].concat();
    let implementation = ["unsafe", " impl"].concat();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            if !code(line).contains(&block) && !code(line).contains(&implementation) {
                continue;
            }
            if !UNSAFE_PLACES.iter().any(|(place, _)| source.path.starts_with(place)) {
                offences.push(format!("{}: unsafe outside {:?}", source.at(i), UNSAFE_PLACES));
            }
            let reasoned = lines[i.saturating_sub(6)..=i].iter().any(|above| above.contains("SAFETY:"));
            if !reasoned {
                offences.push(format!("{}: no `// SAFETY:` above it", source.at(i)));
            }
        }
    }
    report("`unsafe` stands where memory is made executable, mapped or called, each time with its reason", &offences);
}

#[test]
fn nothing_is_left_half_done() {
    let mut offences = Vec::new();
    let words =
        [["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["db", "g!("].concat(), ["#[ig", "nore"].concat()];
    for source in sources() {
        for (i, line) in source.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                offences.push(format!("{}: {word}", source.at(i)));
            }
            if code(line).contains(&["allow", "("].concat()) && line.trim_start().starts_with("#") {
                // the reason may stand on a following line when rustfmt breaks the attribute
                let attribute: String = source.text.lines().skip(i).take(4).collect();
                if !attribute.split(']').next().unwrap_or_default().contains("reason") {
                    offences.push(format!("{}: a lint is switched off without a reason", source.at(i)));
                }
            }
        }
    }
    report("no placeholder, no debugging leftover, no ignored test, no lint off without its reason", &offences);
}

#[test]
fn a_model_file_cannot_cause_a_panic_by_name() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|s| s.path.starts_with("frontend/src/")) {
        for (i, line) in source.lines_outside_tests() {
            let line = code(line);
            for word in [".unwrap()", ".expect(", "panic!(", "unreachable!("] {
                if line.contains(word) {
                    offences.push(format!("{}: {word}", source.at(i)));
                }
            }
        }
    }
    report("what a model file holds is untrusted: give an error that names the node instead", &offences);
}

#[test]
fn files_hold_one_idea() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LONG_FILE {
            println!("{} has {lines} lines: which second idea has moved in?", source.path);
        }
        if lines > 2 * LONG_FILE {
            offences.push(format!("{}: {lines} lines", source.path));
        }
    }
    report("split the file by its ideas", &offences);
}
