//! `nncc train` and `nncc eval` as a user meets them: a network from `nncc new` learns, its file is an ONNX model that gives
//! what was measured, the same seed gives the same bytes, a run goes on from its checkpoint, and what does not fit is said.
//!
//! The data are made here: 8x8 pictures of four classes, a bright quadrant under noise.

#[path = "support/command.rs"]
mod command;

use command::nncc;
use nncc::{Compiler, DType, Tensor, arrays};
use nncc_frontend::author::{Attribute, Author};
use onnx_protobuf::Message;
use std::path::{Path, PathBuf};

/// A folder of one test, with what is learnt from.
struct Folder(command::Folder);

impl Folder {
    fn new(test: &str) -> Folder {
        Folder(command::Folder::new(&format!("train-{test}")))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn file(&self, name: &str) -> String {
        self.0.file(name)
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

/// Two batches of 16 an update are one of 32, up to rounding; mixed classes are learnt too.
#[test]
fn gradients_accumulate_and_classes_mix() {
    let folder = Folder::new("accumulates");
    let (model, data) = (folder.network("mlp"), folder.pictures("data.npz", 104, 1));
    let loss = |extra: &[&str]| {
        let (out, json) = (folder.file("out.onnx"), folder.file("out.json"));
        let args = ["train", &model, "--data", &data, "--val", &data, "--epochs", "3", "-o", &out, "--json", &json];
        succeeds(&[&args[..], extra].concat());
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        assert_eq!(json["history"].as_array().unwrap().len(), 3);
        json["loss"].as_f64().unwrap()
    };
    let (whole, parts) = (loss(&["--batch-size", "32"]), loss(&["--batch-size", "16", "--accumulate", "2"]));
    assert!((whole - parts).abs() < 1e-4 * whole, "{whole} and {parts}");
    assert!((whole - loss(&["--batch-size", "16"])).abs() > 1e-3 * whole);
    let mixed = loss(&["--augment", "mix-up=0.4"]);
    assert!(mixed < 1.2, "{mixed}");
    let json: serde_json::Value =
        serde_json::from_str(&succeeds(&["eval", &folder.file("out.onnx"), "--data", &data, "--json"])).unwrap();
    assert!((json["loss"].as_f64().unwrap() - mixed).abs() < 1e-6);
    assert_eq!(json["metrics"]["confusion"]["classes"], 4);
}

/// What is wrong is said with the layer's name: units that never fire, gradients that do not arrive, the first number that
/// is none. What is looked at changes no bit of the result.
#[test]
fn a_run_is_watched() {
    let folder = Folder::new("watched");
    let data = folder.pictures("data.npz", 64, 1);
    let (healthy, dead) = (folder.network("mlp"), folder.file("dead.onnx"));
    succeeds(&["new", "mlp", "--classes", "4", "--input", "1x8x8", "--init", "*.bias=constant:-100", "-o", &dead]);
    let train = |model: &str, extra: &[&str]| {
        let out = folder.file("out.onnx");
        let args = ["train", model, "--data", &data, "--epochs", "4", "--batch-size", "16", "-o", &out];
        let output = nncc(&[&args[..], extra].concat());
        (String::from_utf8(output.stderr).unwrap(), std::fs::read(out).unwrap_or_default())
    };
    let (said, plain) = train(&healthy, &[]);
    let (json, page) = (folder.file("out.json"), folder.file("page.html"));
    let (watched, same) = train(&healthy, &["--watch", "1", "--json", &json, "--report", &page]);
    let epochs = |text: &str| text.lines().filter(|l| l.contains("note:")).map(str::to_string).collect::<Vec<_>>();
    assert_eq!(epochs(&said), epochs(&watched), "a healthy network is warned of nothing");
    assert!(plain == same, "watching changes the result");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let last = &json["history"][3];
    let norms = last["norms"].as_array().unwrap();
    assert!(norms.len() >= 2 && norms.iter().all(|n| n["gradient"].as_f64().unwrap() > 0.0), "{last}");
    assert!(!last["activity"].as_array().unwrap().is_empty(), "{last}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("Gradient norms") && page.contains("Dead units"));

    let (said, _) = train(&dead, &["--watch", "1", "--lr", "1e-6"]);
    assert!(said.contains("are dead (100 %)") && said.contains("vanishes"), "{said}");
    let (said, _) = train(&healthy, &["--optim", "sgd", "--lr", "1e30"]);
    assert!(said.contains("no number"), "{said}");
}

/// A network that told four classes apart learns two others: first the new head alone, then all of it, the old layers slowly.
#[test]
fn a_network_is_fine_tuned() {
    let folder = Folder::new("fine-tuned");
    let (model, data) = (folder.network("mlp"), folder.pictures("data.npz", 64, 1));
    let arrays = arrays::read_npz(Path::new(&data)).unwrap();
    let array = |name: &str| arrays.iter().find(|(n, _)| n == name).expect("written above").1.clone();
    let halves = array("y").to_i64().iter().map(|y| y / 2).collect();
    arrays::write_npz(&folder.path("two.npz"), [("x", &array("x")), ("y", &Tensor::i64(&[64], halves))]).unwrap();
    let (two, head, all) = (folder.file("two.npz"), folder.file("head.onnx"), folder.file("all.onnx"));
    let usual = ["--data", &two, "--epochs", "15", "--batch-size", "16"];
    succeeds(&[&["train", &model, "--replace-head", "--freeze", "*", "-o", &head][..], &usual].concat());
    let weights = |file: &str| {
        let model = onnx_protobuf::ModelProto::parse_from_bytes(&std::fs::read(file).unwrap()).unwrap();
        let all = model.graph.initializer.iter().map(|t| (t.name.clone(), (t.dims.clone(), t.raw_data.clone())));
        all.collect::<std::collections::BTreeMap<_, _>>()
    };
    let (before, after) = (weights(&model), weights(&head));
    assert_eq!(after["fc3.weight"].0, [2, 128]);
    assert!(before["fc1.weight"] == after["fc1.weight"], "the body is frozen");
    let slow = ["--lr-scale", "fc1.*=0", "--lr-scale", "fc2.*=0.1"];
    succeeds(&[&["train", &head, "-o", &all][..], &slow, &usual].concat());
    let tuned = weights(&all);
    assert!(tuned["fc1.weight"] == after["fc1.weight"] && tuned["fc2.weight"] != after["fc2.weight"]);
    assert!(figure(&succeeds(&["eval", &all, "--data", &two]), "accuracy") > 95.0);
}

/// Folds and searches: every combination has a line, the best one's model is written, and what is done is not done again.
#[test]
fn several_runs_are_compared() {
    let folder = Folder::new("several");
    let (model, data) = (folder.network("mlp"), folder.pictures("data.npz", 96, 1));
    let (out, page, json) = (folder.file("out.onnx"), folder.file("page.html"), folder.file("out.json"));
    let usual = ["train", &model[..], "--data", &data, "--epochs", "4", "--batch-size", "16", "-o", &out];
    let with = |extra: &[&str]| succeeds(&[&usual[..], extra].concat());

    let table = with(&["--k-fold", "3", "--report", &page, "--json", &json]);
    assert_eq!(table.lines().filter(|l| l.starts_with(['1', '2', '3'])).count(), 3, "{table}");
    assert!(table.contains("mean") && table.contains("deviation"), "{table}");
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((summary["folds"].as_array().unwrap().len(), summary["trials"][2]["epochs"].as_u64()), (3, Some(4)));
    let fold = |i: u32| folder.file(&format!("out.fold{i}.onnx"));
    assert!(figure(&succeeds(&["eval", &fold(2), "--data", &data]), "accuracy") > 80.0);

    // the three folds as one: as good as the best of them, or nearly, and a model like any other
    for by in ["probability", "mean", "vote"] {
        let together = folder.file(&format!("{by}.onnx"));
        succeeds(&["ensemble", &fold(1), &fold(2), &fold(3), "--by", by, "-o", &together]);
        assert!(figure(&succeeds(&["eval", &together, "--data", &data]), "accuracy") > 80.0, "{by}");
    }
    let other = folder.file("other.onnx");
    succeeds(&["new", "mlp", "--classes", "3", "--input", "1x8x8", "-o", &other]);
    refused(&["ensemble", &fold(1), &other, "-o", &folder.file("no.onnx")], "is not like the first's");

    let search =
        ["--val-share", "0.25", "--search", "lr=1e-30|2e-3,optim=sgd|adam:beta1=0.8,eps=1e-7", "--report", &page];
    let table = with(&search);
    assert_eq!(table.lines().take_while(|l| !l.is_empty()).count(), 1 + 4, "{table}");
    let best = table.lines().nth(1).unwrap();
    assert!(best.starts_with("lr=2e-3"), "{table}");
    assert!(std::fs::read_to_string(folder.path("out.toml")).unwrap().contains("lr = 0.002"));
    assert!(std::fs::read_to_string(&page).unwrap().contains("Losses of the runs"));
    let first = std::fs::read(&out).unwrap();
    let trials = std::fs::read(folder.path("out.search.json")).unwrap();
    // the times of the trials would differ if they were run again
    assert_eq!(with(&search), table);
    assert!(first == std::fs::read(&out).unwrap() && trials == std::fs::read(folder.path("out.search.json")).unwrap());
    refused(&[&usual[..], &["--val-share", "0.5"], &search[2..]].concat(), "another search");
    std::fs::remove_file(folder.path("out.search.json")).unwrap();
    let halved = with(&[&search[..], &["--search-by", "halving"]].concat());
    assert!(halved.lines().nth(1).unwrap().starts_with("lr=2e-3"), "{halved}");

    let rates = with(&["--range-test", "1e-5..10", "--report", &page]);
    assert!(rates.contains("most steeply at rate"), "{rates}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("Learning rates"));
    refused(&[&usual[..], &["--search", "lr=1|2"]].concat(), "--val or --val-share is needed");
    refused(&[&usual[..], &["--k-fold", "97"]].concat(), "between 2 and the 96 samples");
}

/// Snapshots of a run, runs on other draws of the samples, and runs on what was hard before: each is one model in the end.
#[test]
fn ensembles_are_learnt() {
    let folder = Folder::new("ensembles");
    let (model, data) = (folder.network("mlp"), folder.pictures("data.npz", 128, 1));
    for kind in ["snapshot:2", "bag:3", "boost:3", "stack:3"] {
        let out = folder.file("out.onnx");
        let args = ["train", &model, "--data", &data, "--val-share", "0.25", "--epochs", "6", "--batch-size", "16"];
        let table = succeeds(&[&args[..], &["--schedule", "cosine", "--ensemble", kind, "-o", &out]].concat());
        assert!(figure(&table, "accuracy") > 85.0, "{kind}: {table}");
        assert!(figure(&succeeds(&["eval", &out, "--data", &data]), "accuracy") > 85.0, "{kind}");
        let single = std::fs::metadata(folder.path("out.1.onnx")).unwrap().len();
        assert!(std::fs::metadata(&out).unwrap().len() > single * if kind == "boost:3" { 1 } else { 2 } * 9 / 10);
    }
    assert_eq!(nncc(&["train", &model, "--data", &data, "--ensemble", "bag:1"]).status.code(), Some(2));
    refused(
        &["train", &model, "--data", &data, "--ensemble", "bag:2", "--checkpoint", "c"],
        "a checkpoint is of one run",
    );
}

/// A network with RReLUs, as PyTorch exports it in training mode, learns the same bits on one thread and on two; what it then
/// infers is what `nncc eval` measured, with the mean slopes.
#[test]
fn random_slopes_are_learnt_with() {
    let folder = Folder::new("rrelu");
    let (data, model, out) = (folder.pictures("data.npz", 200, 1), folder.file("rrelu.onnx"), folder.file("out.onnx"));
    let mut author = Author::new("rrelu", 17);
    let mut x = author.input("input", DType::F32, &[None, Some(1), Some(8), Some(8)]);
    x = author.node("Flatten", "flat", &[&x], &[]);
    for (i, (from, to)) in [(64, 33), (33, 4)].into_iter().enumerate() {
        let w = Tensor::f32(
            &[to, from],
            nncc_ir::random::tensor(DType::F32, &[to, from], 3).to_f64().iter().map(|w| *w as f32 / 8.0).collect(),
        );
        let w = author.initializer(&format!("fc{i}.weight"), &w);
        let b = author.initializer(&format!("fc{i}.bias"), &Tensor::zeros(DType::F32, &[to]));
        x = author.node("Gemm", &format!("fc{i}"), &[&x, &w, &b], &[("transB", Attribute::Int(1))]);
        if i == 0 {
            let bounds = [("low", Attribute::Float(0.125)), ("high", Attribute::Float(1.0 / 3.0))];
            let slopes = author.node("RandomUniformLike", "slopes", &[&x], &bounds);
            x = author.node("PRelu", "act", &[&x, &slopes], &[]);
        }
    }
    author.output(&x, DType::F32, &[None, Some(4)]);
    author.write(Path::new(&model)).unwrap();
    let train = |threads: &str, out: &str| {
        let args = ["train", &model, "--data", &data, "--epochs", "6", "--batch-size", "40", "--lr", "0.01"];
        succeeds(&[&args[..], &["--threads", threads, "-o", out]].concat())
    };
    train("1", &out);
    let two = folder.file("two.onnx");
    train("2", &two);
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&two).unwrap(), "another result on two threads");
    let table = succeeds(&["eval", &out, "--data", &data]);
    assert!(figure(&table, "accuracy") > 95.0, "{table}");
}

/// One model that knows nothing and two that know two classes each: the combiner finds out which to ask for what.
#[test]
fn models_are_stacked() {
    let folder = Folder::new("stacked");
    let (unseen, val) = (folder.pictures("unseen.npz", 120, 2), folder.pictures("val.npz", 103, 3));
    let fresh = folder.network("mlp");
    let mut files = vec![fresh.clone()];
    for half in [[0, 1], [2, 3]] {
        // What one sees of the other half is called by a class of its own half, but for two of each class.
        let arrays = arrays::read_npz(Path::new(&folder.pictures("data.npz", 160, 1))).unwrap();
        let array = |name: &str| arrays.iter().find(|(n, _)| n == name).expect("written above").1.clone();
        let seen = |(i, y): (usize, i64)| if i < 8 || half.contains(&y) { y } else { half[(y % 2) as usize] };
        let y = Tensor::i64(&[160], array("y").to_i64().into_iter().enumerate().map(seen).collect());
        let (name, out) = (format!("half{}.npz", half[0]), folder.file(&format!("half{}.onnx", half[0])));
        arrays::write_npz(&folder.path(&name), [("x", &array("x")), ("y", &y)]).unwrap();
        let args = ["train", &fresh, "--data", &folder.file(&name), "--epochs", "6", "--batch-size", "16", "-o", &out];
        succeeds(&args);
        files.push(out);
    }
    let models: Vec<&str> = files.iter().map(String::as_str).collect();
    let alone = |model: &str| figure(&succeeds(&["eval", model, "--data", &val]), "accuracy");
    assert!(models.iter().all(|m| alone(m) < 70.0));
    let out = folder.file("stacked.onnx");
    let stack = [&["ensemble"][..], &models, &["--by", "stack", "-o", &out]].concat();
    succeeds(&[&stack[..], &["--data", &unseen]].concat());
    let table = succeeds(&["eval", &out, "--data", &val]);
    assert!(figure(&table, "accuracy") > 85.0, "{table}");
    refused(&stack, "--by stack needs --data PATH: samples that none of the models has learnt from");
    refused(&["ensemble", &fresh, "-o", &out, "--data", &unseen], "only --by stack learns from data");
}

/// Forward, backward and optimizer each have their rows, and nothing is written.
#[test]
fn a_profile_says_where_the_time_of_a_step_goes() {
    let folder = Folder::new("profile");
    let (model, data) = (folder.network("mlp"), folder.pictures("data.npz", 32, 1));
    let out = folder.file("out.onnx");
    let table = succeeds(&["train", &model, "--data", &data, "--profile", "--optim", "adamw", "-o", &out]);
    for node in ["fc1+fc1/relu", "optimizer/fc1.weight", "loss"] {
        let row = table.lines().find(|line| line.contains(node)).unwrap_or_else(|| panic!("no {node} in\n{table}"));
        assert!(row.contains(" us "), "{row}");
    }
    assert!(!Path::new(&out).exists());
}

/// Vectors of a small class are made between those that are there.
#[test]
fn small_classes_are_filled_up() {
    let folder = Folder::new("smote");
    let (model, data) = (folder.network("mlp"), folder.pictures("data.npz", 64, 1));
    let arrays = arrays::read_npz(Path::new(&data)).unwrap();
    let array = |name: &str| arrays.iter().find(|(n, _)| n == name).expect("written above").1.clone();
    let few: Vec<usize> = (0..64).filter(|i| i % 4 != 3 || *i < 12).collect();
    let (x, y) = (array("x").to_f64(), array("y").to_i64());
    let x = few.iter().flat_map(|&i| x[i * 64..][..64].iter().map(|&v| v as f32)).collect();
    let y = few.iter().map(|&i| y[i]).collect();
    let (x, y) = (Tensor::f32(&[few.len(), 1, 8, 8], x), Tensor::i64(&[few.len()], y));
    arrays::write_npz(&folder.path("few.npz"), [("x", &x), ("y", &y)]).unwrap();
    let (few, out) = (folder.file("few.npz"), folder.file("out.onnx"));
    let args = ["train", &model, "--data", &few, "--smote", "2", "--epochs", "8", "--batch-size", "16", "-o", &out];
    succeeds(&args);
    assert!(figure(&succeeds(&["eval", &out, "--data", &data]), "accuracy") > 90.0);
    refused(&[&args[..], &["--augment", "noise=0.1"]].concat(), "--augment does not change");
}

/// Numbers from a table, whose column fills an output of one axis more.
#[test]
fn a_regression_learns_from_a_table() {
    let folder = Folder::new("regression");
    let model = folder.file("line.onnx");
    succeeds(&["new", "mlp", "--classes", "1", "--input", "1x1x2", "-o", &model]);
    let rows: String = (0..200)
        .map(|i| (f64::from(i % 20) / 20.0, f64::from(i / 20) / 10.0))
        .map(|(a, b)| format!("{a},{b},{}\n", a - 2.0 * b))
        .collect();
    std::fs::write(folder.path("t.csv"), format!("a,b,y\n{rows}")).unwrap();
    let table = folder.file("t.csv");
    let args =
        ["train", &model, "--data", &table, "--val-share", "0.2", "--loss", "mse", "--lr", "0.01", "--epochs", "20"];
    let figures = succeeds(&[&args[..], &["-o", &folder.file("out.onnx")]].concat());
    assert!(figure(&figures, "loss") < 0.01, "{figures}");
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
    // a last batch of one sample has no statistics, and measuring needs none
    succeeds(&["eval", &out, "--data", &data, "--batch-size", "63"]);
    assert!(std::fs::read_to_string(&page).unwrap().contains("<svg"));
}

/// Batch normalization down to one pixel: a last batch of one picture has no variance to learn with, and can be measured.
#[test]
fn what_is_held_out_need_not_be_able_to_learn() {
    let folder = Folder::new("pixels");
    let [model, out] = ["resnet20.onnx", "out.onnx"].map(|name| folder.file(name));
    succeeds(&["new", "resnet20", "--classes", "4", "--input", "1x4x4", "-o", &model]);
    let pictures = |name: &str, count: usize| {
        let x = nncc_ir::random::tensor(DType::F32, &[count, 1, 4, 4], count as u64);
        let y = Tensor::i64(&[count], (0..count).map(|sample| sample as i64 % 4).collect());
        arrays::write_npz(&folder.path(name), [("x", &x), ("y", &y)]).expect("target/ can be written");
        folder.file(name)
    };
    let [four, five] = [("four.npz", 4), ("five.npz", 5)].map(|(name, count)| pictures(name, count));
    let how = ["--batch-size", "4", "--epochs", "1", "-o", &out];
    let table = succeeds(&[&["train", &model, "--data", &four, "--val", &five], &how[..]].concat());
    let measured = succeeds(&["eval", &out, "--data", &five, "--batch-size", "4"]);
    assert!((figure(&table, "loss") - figure(&measured, "loss")).abs() < 1e-3, "{table}{measured}");
    refused(&[&["train", &model, "--data", &five], &how[..]].concat(), "one number a channel, which has no variance");
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
    refused(&["train", &model, "--data", &data, "--accumulate", "0"], "an update of 0 batches");
    refused(&["train", &model, "--data", &data, "--batch-size", "0"], "batch-size = 0");
    refused(&["train", &model, "--data", &data, "--optim", "adam:beta=0.5"], "`beta` is unknown; did you mean");
    refused(
        &["train", &model, "--data", &data, "--loss", "mse"],
        "a target has dimensions [], the network's output [4]",
    );
    refused(&["train", &model, "--data", &data, "--loss", "focal", "--augment", "mix-up=0.2"], "only cross-entropy");
    let y = Tensor::f32(&[2], vec![0.5, 1.5]);
    arrays::write_npz(&folder.path("numbers.npz"), [("x", &Tensor::zeros(DType::F32, &[2, 1, 8, 8])), ("y", &y)])
        .unwrap();
    refused(
        &["train", &model, "--data", &folder.file("numbers.npz")],
        "targets are numbers, and the loss takes classes",
    );
    refused(&["train", &model, "--data", &data, "--freeze", "*"], "every parameter is frozen");
    refused(&["eval", &model, "--data", &data, "--epochs", "2"], "eval learns nothing");
    // a class that the network has no output for
    let y = Tensor::i64(&[2], vec![0, 4]);
    let x = Tensor::zeros(DType::F32, &[2, 1, 8, 8]);
    arrays::write_npz(&folder.path("label.npz"), [("x", &x), ("y", &y)]).unwrap();
    refused(&["train", &model, "--data", &folder.file("label.npz")], "label.npz");
}

#[test]
fn values_computed_again_change_no_bit() {
    let folder = Folder::new("recomputes");
    let data = folder.pictures("data.npz", 40, 1);
    for arch in ["resnet20", "spp"] {
        let model = folder.network(arch);
        let run = |how: &str, batches: &str| {
            let out = folder.file("out.onnx");
            let args = ["train", &model, "--data", &data, "--epochs", "2", "--batch-size", "16", "--recompute", how];
            succeeds(&[&args[..], &["--accumulate", batches, "-o", &out]].concat());
            std::fs::read(out).unwrap()
        };
        let plain = run("none", "1");
        assert!(plain == run("auto", "1") && run("none", "2") == run("auto", "2"), "{arch}: another result");
        let plan = |how: &str| {
            let args =
                ["--train", "--batch-size", "16", "--target-cpu", "native", "--emit", "plan", "--recompute", how];
            succeeds(&[&[&model[..]][..], &args].concat())
        };
        let arena = |plan: &str| plan.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok()).expect("arena N bytes");
        let (most, auto) = (plan("none"), plan("auto"));
        assert!(!most.contains("recomputed: ") && auto.contains("recomputed: "), "{auto}");
        assert!(arena(&auto) < arena(&most), "{arch}: {} and {}", arena(&auto), arena(&most));
        let limit = arena(&auto).to_string();
        assert!(plain == run(&limit, "1"), "{arch}: another result");
        assert!(arena(&plan(&limit)) <= arena(&auto));
    }
    let model = folder.network("resnet20");
    refused(&["train", &model, "--data", &data, "--recompute", "1k", "-o", &folder.file("x.onnx")], "an arena of ");
    refused(
        &["train", &model, "--data", &data, "--recompute", "much", "-o", &folder.file("x.onnx")],
        "--recompute much",
    );
}
