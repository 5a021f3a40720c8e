//! Runs the text tests of the passes: `tests/<pass>/*.ir`.
//!
//! ```text
//! ; what the file shows
//! ; run: canonicalize, fuse                the passes, in order
//! ; agree: exact                           before and after give the same bits, also on NaN, infinities and -0; or
//! ; agree: 1e-6                            they differ by at most that part of the largest output, on random inputs
//!
//! graph a(...) { ... }
//! ---- after
//! graph a(...) { ... }                     what the passes make of it
//! ; fuse at "c": refused: ...              what they refused
//! ==== another case
//! ...
//! ```
//!
//! `NNCC_BLESS=1 cargo test -p nncc-passes` writes what the passes make now into the files; read the diff.

use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::{Graph, Op, Tensor, ValueId, parse, random};
use nncc_passes::{Options, PassCx, pipeline};
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[test]
fn text_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut files = Vec::new();
    for folder in std::fs::read_dir(&root).expect("the tests folder").flatten().filter(|f| f.path().is_dir()) {
        let inside = std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|f| f.path());
        files.extend(inside.filter(|f: &PathBuf| f.extension().is_some_and(|e| e == "ir")));
    }
    files.sort();
    assert!(files.len() > 10, "only {} files", files.len());
    let mut failures = String::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("readable");
        let name = file.strip_prefix(&root).unwrap_or(file).display().to_string();
        let made = remade(&name, &text, &mut failures);
        if made == text {
            continue;
        }
        if std::env::var_os("NNCC_BLESS").is_some() {
            std::fs::write(file, made).expect("writable");
        } else {
            let _ = writeln!(failures, "{name}: not as written (NNCC_BLESS=1 accepts it)\n{}", diff(&text, &made));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// The file with the results of today. What does not agree goes to `failures`.
fn remade(name: &str, text: &str, failures: &mut String) -> String {
    let header = |key: &str| text.lines().find_map(|l| l.strip_prefix(&format!("; {key}: "))).unwrap_or_default();
    let passes: Vec<&str> = header("run").split(", ").collect();
    let tolerance = match header("agree") {
        "exact" => None,
        number => Some(number.parse::<f64>().unwrap_or_else(|_| panic!("{name}: no `; agree:` line"))),
    };
    let mut out = String::new();
    for (i, case) in text.split("==== ").enumerate() {
        if i > 0 {
            out.push_str("==== ");
        }
        let before = case.split("---- after").next().unwrap_or_default();
        let start = before.find("graph ").unwrap_or_else(|| panic!("{name}: case {i} has no graph"));
        let g = parse::graph(&before[start..]).unwrap_or_else(|e| panic!("{name}: case {i}: {e}"));
        let mut after = g.clone();
        let mut cx = PassCx::new(Options { verify: true, ..Options::default() });
        for pass in &passes {
            let pass = pipeline::pass(pass).unwrap_or_else(|| panic!("{name}: there is no pass `{pass}`"));
            if let Err(e) = cx.run(&mut after, pass) {
                let _ = writeln!(failures, "{name}: case {i}: {e}");
            }
        }
        if let Err(e) = agree(&g, &after, tolerance) {
            let _ = writeln!(failures, "{name}: case {i}: {e}");
        }
        let _ = write!(out, "{}\n---- after\n{after}", before.trim_end());
        for refusal in &cx.refusals {
            let _ = writeln!(out, "; {refusal}");
        }
    }
    out
}

/// Both graphs on random inputs; with exact agreement also on special values.
fn agree(before: &Graph, after: &Graph, tolerance: Option<f64>) -> Result<(), String> {
    for special in [false, true] {
        if special && tolerance.is_some() {
            continue;
        }
        let inputs: Vec<Tensor> =
            before.inputs().iter().enumerate().map(|(i, n)| input(before, *n, i, special)).collect();
        let run = |g: &Graph| evaluate(g, &inputs, Precision::Native).map_err(|e| e.to_string());
        for (a, b) in run(before)?.iter().zip(run(after)?) {
            compare(a, &b, tolerance)?;
        }
    }
    Ok(())
}

fn input(g: &Graph, n: nncc_ir::NodeId, i: usize, special: bool) -> Tensor {
    assert!(matches!(g.op(n), Op::Input));
    let ty = g.ty(ValueId { node: n, out: 0 });
    let dims = ty.dims().expect("test graphs have known shapes");
    let t = random::tensor(ty.dtype, &dims, 7 + i as u64);
    if !special || !ty.dtype.is_float() {
        return t;
    }
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 1e-42, 3e38, 1.0];
    let v: Vec<f64> = (0..t.elems()).map(|k| values[(k * 5 + i) % values.len()]).collect();
    Tensor::from_f64(ty.dtype, &dims, &v)
}

fn compare(a: &Tensor, b: &Tensor, tolerance: Option<f64>) -> Result<(), String> {
    if a.ty() != b.ty() {
        return Err(format!("{} has become {}", a.ty(), b.ty()));
    }
    let (x, y) = (a.to_f64(), b.to_f64());
    let range = x.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (i, (p, q)) in x.iter().zip(&y).enumerate() {
        let same = match tolerance {
            None => p.to_bits() == q.to_bits() || (p.is_nan() && q.is_nan()),
            Some(t) => (p - q).abs() <= t * range,
        };
        if !same {
            return Err(format!("element {i} was {p:?} and is {q:?} (range {range})"));
        }
    }
    Ok(())
}

/// The lines that differ, with the common head and tail left out.
fn diff(old: &str, new: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(x, y)| x == y).count();
    let mut out = format!("@@ line {} @@\n", head + 1);
    for line in &a[head..a.len() - tail] {
        let _ = writeln!(out, "-{line}");
    }
    for line in &b[head..b.len() - tail] {
        let _ = writeln!(out, "+{line}");
    }
    out
}
