//! The ONNX backend tests through the importer and the reference evaluator: what a model means, before any pass or code.
//!
//! `tools/onnx_cases.py target/onnx-cases` writes the cases; without them the test says so and passes. A case counts if it
//! can be run from arrays and if the importer does not call something in it unsupported; every case that counts must give
//! the expected numbers at the suite's own tolerance, and no case may be called invalid. `NNCC_CASES=text` runs only the cases whose name
//! contains the text and prints each failure in full. The list of what must be supported is kept by the conformance suite.

use nncc_frontend::{Blame, ImportOptions, Model};
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::{DType, Dim, NodeId, Tensor};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A numpy array file.
fn read_npy(path: &Path) -> Option<Tensor> {
    let bytes = std::fs::read(path).ok()?;
    let size = u16::from_le_bytes([*bytes.get(8)?, *bytes.get(9)?]) as usize;
    let header = std::str::from_utf8(bytes.get(10..10 + size)?).ok()?;
    let after = |key: &str| header.split(key).nth(1).map(str::trim_start);
    assert!(after("'fortran_order':")?.starts_with("False"), "{}", path.display());
    let descr = after("'descr':")?.trim_start_matches('\'').split('\'').next()?.trim_start_matches(['<', '|']);
    let dtype = match descr {
        "f4" => DType::F32,
        "f8" => DType::F64,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "b1" => DType::Bool,
        _ => return None,
    };
    let shape = after("'shape':")?.trim_start_matches('(').split(')').next()?;
    let dims: Vec<usize> = shape.split(',').filter_map(|d| d.trim().parse().ok()).collect();
    Tensor::from_bytes(dtype, &dims, bytes.get(10 + size..)?)
}

fn differs(actual: &Tensor, expected: &Tensor, rtol: f64, atol: f64) -> Option<String> {
    if actual.ty() != expected.ty() {
        return Some(format!("{} instead of {}", actual.ty(), expected.ty()));
    }
    let (a, e) = (actual.to_f64(), expected.to_f64());
    let close = |(&a, &e): (&f64, &f64)| a == e || (a.is_nan() && e.is_nan()) || (a - e).abs() <= atol + rtol * e.abs();
    let at = a.iter().zip(&e).position(|pair| !close(pair))?;
    Some(format!("element {at} of {} is {} instead of {}", actual.ty(), a[at], e[at]))
}

enum Outcome {
    Pass,
    Unsupported(String),
    Fail(String),
}

fn run(folder: &Path, case: &Value) -> Outcome {
    let model = match Model::open(&folder.join("model.onnx")) {
        Ok(model) => model,
        Err(e) => return Outcome::Fail(e.to_string()),
    };
    let names = |key: &str| -> Vec<String> {
        case[key].as_array().into_iter().flatten().map(|v| v["name"].as_str().unwrap_or("").to_string()).collect()
    };
    let (inputs, outputs) = (names("inputs"), names("outputs"));
    for set in 0..case["sets"].as_u64().unwrap_or(0) {
        let array = |stem: &str, i: usize| read_npy(&folder.join(format!("set{set}/{stem}{i}.npy")));
        let mut data = HashMap::new();
        for (i, name) in inputs.iter().enumerate() {
            let Some(t) = array("in", i) else { return Outcome::Unsupported("element type of an input".into()) };
            data.insert(name.clone(), t);
        }
        // The shapes of the data are what a user would give as --dim and --shape.
        let mut options = ImportOptions::default();
        for (name, t) in &data {
            options.shapes.insert(name.clone(), t.dims().iter().map(|&d| Dim::from(d)).collect());
        }
        let import = match model.import_for(&options, &|name| data.get(name).cloned()) {
            Ok((import, _)) => import,
            Err(e) if e.problems.iter().any(|p| p.blame == Blame::Unsupported) => {
                return Outcome::Unsupported(e.problems[0].message.clone());
            }
            Err(e) => return Outcome::Fail(e.to_string()),
        };
        if let Err(e) = nncc_ir::verify::verify(&import.graph) {
            return Outcome::Fail(e.to_string());
        }
        let name = |n: &NodeId| import.graph.node(*n).outputs()[0].name.clone();
        let fed: Option<Vec<Tensor>> = import.graph.inputs().iter().map(|n| data.get(&*name(n)).cloned()).collect();
        let results = match evaluate(&import.graph, &fed.unwrap_or_default(), Precision::Native) {
            Ok(results) => results,
            Err(e) => return Outcome::Fail(e.to_string()),
        };
        for (i, (result, name)) in results.iter().zip(&outputs).enumerate() {
            let Some(expected) = array("out", i) else {
                return Outcome::Unsupported("element type of an output".into());
            };
            let (rtol, atol) = (case["rtol"].as_f64().unwrap_or(0.0), case["atol"].as_f64().unwrap_or(0.0));
            if let Some(why) = differs(result, &expected, rtol, atol) {
                return Outcome::Fail(format!("output {name}: {why}"));
            }
        }
    }
    Outcome::Pass
}

/// Runs every case of a folder; prints a summary and returns the failures, or nothing if there are no cases.
fn run_all(folder: &str, script: &str) -> Vec<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target").join(folder);
    let Ok(listing) = std::fs::read_to_string(root.join("cases.json")) else {
        println!("skipped: no cases; write them with {script} target/{folder}");
        return Vec::new();
    };
    let listing: Value = serde_json::from_str(&listing).expect("the script writes JSON");
    let only = std::env::var("NNCC_CASES").ok();
    let (mut passed, mut failed) = ([0, 0], Vec::new());
    let mut unsupported: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for case in listing["cases"].as_array().into_iter().flatten() {
        let name = case["name"].as_str().unwrap_or("");
        if only.as_ref().is_some_and(|o| !name.contains(o)) || !case["why"].is_null() {
            continue;
        }
        match run(&root.join(name), case) {
            Outcome::Pass => passed[usize::from(case["expanded"] == Value::Bool(true))] += 1,
            Outcome::Unsupported(why) => unsupported.entry(why).or_default().push(name.to_string()),
            Outcome::Fail(why) => failed.push(format!("{name}: {why}")),
        }
    }
    for (why, names) in &unsupported {
        println!("unsupported: {why}: {} cases, {}", names.len(), names[0]);
    }
    let skipped: usize = unsupported.values().map(Vec::len).sum();
    println!("{} passed, and {} expanded; {skipped} unsupported; {} failed", passed[0], passed[1], failed.len());
    failed
}

#[test]
fn backend_cases_give_the_expected_numbers() {
    let failed = run_all("onnx-cases", "tools/onnx_cases.py");
    assert!(failed.is_empty(), "{} cases fail:\n{}", failed.len(), failed.join("\n"));
}

/// Old opsets, symbolic dimensions, external data, every encoding: models that are hard to import.
#[test]
fn import_cases_give_the_expected_numbers() {
    let failed = run_all("import-cases", "tools/import_cases.py");
    assert!(failed.is_empty(), "{} cases fail:\n{}", failed.len(), failed.join("\n"));
}
