//! `nncc train` and `nncc eval` as a user meets them: a network from `nncc new` learns, its file is an ONNX model that gives
//! what was measured, the same seed gives the same bytes, a run goes on from its checkpoint, and what does not fit is said.
//!
//! The data are made here: 8x8 pictures of four classes, a bright quadrant under noise.

use nncc::{Compiler, DType, Tensor, arrays};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of one test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("train-{test}"));
        let _ = std::fs::remove_dir_all(&path); // left by an earlier run that failed, or not there
        std::fs::create_dir_all(&path).expect("target/ can be written");
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).to_str().expect("the project's path is UTF-8").to_string()
    }

    /// Writes `count` pictures and their classes.
    fn pictures(&self, name: &str, count: usize, seed: u64) -> String {
        let noise = nncc_ir::random::tensor(DType::F32, &[count, 1, 8, 8], seed).to_f64();
        let bright = |i: usize| {
            let (sample, row, column) = (i / 64, i / 8 % 8, i % 8);
            row / 4 * 2 + column / 4 == sample % 4
        };
        let x = (0..count * 64).map(|i| (0.6 * noise[i] + f64::from(u8::from(bright(i)))) as f32).collect();
        let x = Tensor::f32(&[count, 1, 8, 8], x);
        let y = Tensor::i64(&[count], (0..count).map(|sample| sample as i64 % 4).collect());
        arrays::write_npz(&self.path(name), [("x", &x), ("y", &y)]).expect("target/ can be written");
        self.file(name)
    }

    /// A network to be trained.
    fn network(&self, arch: &str) -> String {
        let model = self.file(&format!("{arch}.onnx"));
        succeeds(&["new", arch, "--classes", "4", "--input", "1x8x8", "-o", &model]);
        model
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // kept for looking at when the test fails
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn nncc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nncc")).args(args).stdin(Stdio::null()).output().expect("the command starts")
}

/// Runs the command, which must succeed; gives its result.
#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = nncc(args);
    assert!(output.status.success(), "nncc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the command prints UTF-8")
}

#[track_caller]
fn refused(args: &[&str], part: &str) {
    let output = nncc(args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && complaint.contains(part), "nncc {args:?}: {complaint}");
}

/// The number behind a name in the table of figures.
#[track_caller]
fn figure(table: &str, name: &str) -> f64 {
    let line = table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {table}"));
    line[name.len()..].trim_end_matches(" %").trim().parse().expect("a number")
}

#[test]
fn a_network_learns_and_its_file_gives_what_was_measured() {
    let folder = Folder::new("learns");
    let (model, out) = (folder.network("mlp"), folder.file("out.onnx"));
    let (data, val) = (folder.pictures("data.npz", 400, 1), folder.pictures("val.npz", 103, 2));
    let before = succeeds(&["eval", &model, "--data", &val]);
    let learning = ["--epochs", "4", "--batch-size", "32", "--lr", "0.002", "--schedule", "cosine"];
    let report = folder.file("run.html");
    let run =
        [&["train", &model, "--data", &data, "--val", &val, "-o", &out, "--report", &report][..], &learning].concat();
    let after = succeeds(&run);
    assert!(figure(&before, "accuracy") < 70.0, "{before}");
    assert!(figure(&after, "accuracy") > 98.0, "{after}");
    // 103 samples are no multiple of the batch
    assert_eq!(figure(&after, "samples"), 103.0);
    assert_eq!(succeeds(&["eval", &out, "--data", &val]), after);
    assert!(std::fs::read_to_string(&report).unwrap().starts_with("<!DOCTYPE html>"));

    // what is written is a model like any other
    let arrays = arrays::read_npz(Path::new(&val)).unwrap();
    let array = |name: &str| arrays.iter().find(|(n, _)| n == name).expect("written above").1.clone();
    let compiled = Compiler::new().input_shape("input", &[103, 1, 8, 8]).load(&out).unwrap();
    let logits = compiled.jit().unwrap().run(&[array("x")]).unwrap()[0].to_f64();
    let best = |row: &[f64]| (0..4).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0) as i64;
    let hits = logits.chunks(4).zip(array("y").to_i64()).filter(|(row, y)| best(row) == *y).count();
    assert!((hits as f64 * 100.0 / 103.0 - figure(&after, "accuracy")).abs() < 0.01);

    // the recipe beside it gives the same bytes again
    let first = std::fs::read(&out).unwrap();
    let again = folder.file("again.onnx");
    succeeds(&["train", "--recipe", &folder.file("out.toml"), "-o", &again]);
    assert!(first == std::fs::read(&again).unwrap(), "another result from the same recipe");
    let threaded = folder.file("threaded.onnx");
    succeeds(&["train", "--recipe", &folder.file("out.toml"), "--threads", "2", "-o", &threaded]);
    assert!(first == std::fs::read(&threaded).unwrap(), "another result on two threads");
}

#[test]
fn a_run_goes_on_from_its_checkpoint() {
    let folder = Folder::new("resumes");
    let (model, data) = (folder.network("mlp"), folder.pictures("data.npz", 96, 1));
    let run = |out: &str, extra: &[&str]| {
        let out = folder.file(out);
        let args = ["train", &model, "--data", &data, "--optim", "adam", "-o", &out];
        succeeds(&[&args[..], extra].concat());
        std::fs::read(out).unwrap()
    };
    let whole = run("whole.onnx", &["--epochs", "4"]);
    let checkpoint = folder.file("run.checkpoint");
    let kept = run("kept.onnx", &["--epochs", "4", "--checkpoint", &checkpoint]);
    assert!(whole == kept, "writing checkpoints changes the run");
    // done already: nothing is left but to write the result
    assert!(
        whole == run("kept.onnx", &["--epochs", "4", "--checkpoint", &checkpoint]),
        "the checkpoint's state is another"
    );
    refused(&["train", &model, "--data", &data, "--checkpoint", &checkpoint, "--epochs", "5"], "another recipe");
}

/// Convolutions, batch normalization, residuals and pooling, which have training forms and gradients of their own.
#[test]
fn a_residual_network_learns() {
    let folder = Folder::new("residual");
    let data = folder.pictures("data.npz", 64, 1);
    let (model, out, page) = (folder.network("resnet20"), folder.file("out.onnx"), folder.file("page.html"));
    // nothing is held out: the report's figures are of the data themselves
    let args = ["train", &model, "--data", &data, "--epochs", "12", "--batch-size", "16", "--lr", "0.005"];
    succeeds(&[&args[..], &["-o", &out, "--report", &page]].concat());
    assert!(figure(&succeeds(&["eval", &out, "--data", &data]), "accuracy") > 90.0);
    assert!(std::fs::read_to_string(&page).unwrap().contains("<svg"));
}

#[test]
fn what_does_not_fit_is_said() {
    let folder = Folder::new("refusals");
    let (model, data) = (folder.network("mlp"), folder.pictures("data.npz", 8, 1));
    refused(&["train", &model], "--data PATH is missing");
    refused(&["train", &model, "--data", &folder.file("none.npz")], "none.npz");
    refused(&["train", &model, "--data", &data, "--optim", "sdg"], "--optim sdg");
    refused(&["train", &model, "--data", &data, "--loss", "cross"], "cross-entropy");
    refused(&["train", &model, "--data", &data, "--schedule", "cosine:totl=3"], "total");
    refused(&["train", &model, "--data", &data, "--accumulate", "2"], "does not accumulate");
    refused(&["train", &model, "--data", &data, "--freeze", "*"], "every parameter is frozen");
    refused(&["eval", &model, "--data", &data, "--epochs", "2"], "eval learns nothing");
    // a class that the network has no output for
    let y = Tensor::i64(&[2], vec![0, 4]);
    let x = Tensor::zeros(DType::F32, &[2, 1, 8, 8]);
    arrays::write_npz(&folder.path("label.npz"), [("x", &x), ("y", &y)]).unwrap();
    refused(&["train", &model, "--data", &folder.file("label.npz")], "label.npz");
}
