//! The command as a user meets it: what is written where, exit codes, messages, on LeNet-5 and on models made from it.
//!
//! Messages are compared whole: they are part of what the command is. The models come from `tools/networks.py`; where one
//! is altered (a weight, a symbolic batch), protobuf writes it anew.

#[path = "support/command.rs"]
mod command;

use command::{Folder, done, lenet, nncc};
use nncc::{DType, Model, Tensor, arrays};
use nncc_codegen::emit::abi;
use onnx_protobuf::{Message, ModelProto, tensor_shape_proto, type_proto};
use std::path::Path;
use std::process::{Command, Stdio};

/// The names of what is in a folder.
fn names(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path("")).expect("the folder is there");
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs the command, which must fail with this exit code and message.
#[track_caller]
fn fails(args: &[&str], code: i32, message: &str) {
    let output = nncc(args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), complaint.trim_end()), (Some(code), message), "nncc {args:?}");
}

/// A copy of LeNet-5, altered.
fn altered(folder: &Folder, name: &str, alter: impl FnOnce(&mut ModelProto)) -> String {
    let mut model =
        ModelProto::parse_from_bytes(&std::fs::read(lenet("onnx")).unwrap()).expect("LeNet-5 is an ONNX file");
    alter(&mut model);
    let path = folder.file(name);
    std::fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
    path
}

/// LeNet-5 for any batch size `N`.
fn with_batch(folder: &Folder) -> String {
    altered(folder, "batch.onnx", |model| {
        let ty = model.graph.as_mut().unwrap().input[0].type_.as_mut().unwrap();
        let Some(type_proto::Value::TensorType(tensor)) = &mut ty.value else { panic!("the input is a tensor") };
        let batch = &mut tensor.shape.as_mut().unwrap().dim[0];
        batch.value = Some(tensor_shape_proto::dimension::Value::DimParam("N".into()));
        // the declared output would contradict
        model.graph.as_mut().unwrap().output[0].type_.as_mut().unwrap().value =
            Some(type_proto::Value::TensorType(type_proto::Tensor { elem_type: 1, ..Default::default() }));
    })
}

#[test]
fn the_kind_of_output_is_the_extensions_or_the_flags() {
    let folder = Folder::new("command-kinds");
    let model = lenet("onnx");
    for (file, files) in [
        ("a.so", &["a.h", "a.so"][..]),
        ("b.a", &["a.h", "a.so", "b.a", "b.h"]),
        ("c.o", &["a.h", "a.so", "b.a", "b.h", "c.h", "c.o"]),
        ("d.h", &["a.h", "a.so", "b.a", "b.h", "c.h", "c.o", "d.h"]),
    ] {
        assert_eq!(done(&[&model, "-o", &folder.file(file)]), "");
        assert_eq!(names(&folder), files, "{file}");
    }
    let read = |name: &str| std::fs::read(folder.file(name)).unwrap();
    // ELF's e_type: 3 is a shared object, 1 a relocatable one
    assert_eq!((&read("a.so")[..4], read("a.so")[16]), (&b"\x7fELF"[..], 3));
    assert_eq!((&read("c.o")[..4], read("c.o")[16]), (&b"\x7fELF"[..], 1));
    assert!(read("b.a").starts_with(b"!<arch>\n"));
    assert!(read("a.h") == read("d.h"), "the header beside a library is the header of --emit header");

    let alone = Folder::new("command-alone");
    done(&[&model, "--emit", "so", "-o", &alone.file("any.name")]);
    done(&[&model, "--emit", "staticlib", "-o", &alone.file("static")]);
    done(&[&model, "--emit", "obj", "-o", &alone.file("object")]);
    done(&[&model, "--emit", "header", "-o", &alone.file("header")]);
    assert_eq!(names(&alone), ["any.name", "header", "object", "static"]);
    assert!(std::fs::read(alone.file("header")).unwrap() == read("d.h"));
}

#[test]
fn each_stage_can_be_read() {
    let folder = Folder::new("command-stages");
    let model = lenet("onnx");
    for (kind, begins, holds) in [
        ("graph", "graph main_graph(%input: f32[1,1,28,28]) {\n", "root=conv("),
        ("plan", "arena ", "us  max_pool         f32_max_pool__avx512_1x7  /2/MaxPool"),
        ("kernels", "; x86-64\nkernel ", "mul_add"),
        ("clif", "; x86-64 ", "f32x4"),
        ("asm", "; x86-64 ", "vfmadd"),
    ] {
        let text = done(&[&model, "--emit", kind, "--target", "x86_64-unknown-linux-gnu"]);
        assert!(text.starts_with(begins) && text.contains(holds), "{kind}:\n{}", &text[..text.len().min(400)]);
        let file = folder.file(kind);
        assert_eq!(done(&[&model, "--emit", kind, "--target", "x86_64-unknown-linux-gnu", "-o", &file]), "");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
    let arm = done(&[&model, "--emit", "asm", "--target", "aarch64-unknown-linux-gnu"]);
    assert!(arm.starts_with("; generic ") && arm.contains("fmla"), "{}", &arm[..arm.len().min(400)]);
    fails(
        &[&model, "--emit", "clif", "--target", "x86_64-unknown-linux-gnu", "--target-cpu", "x86-64-v3"],
        1,
        "error: Cranelift compiles no kernel for x86-64-v3\n  \
         help: it does for x86-64 (--target-cpu x86-64) and aarch64",
    );
}

#[test]
fn every_level_of_optimization_gives_the_same_model() {
    let folder = Folder::new("command-levels");
    let want = arrays::read_npy(Path::new(&lenet("f64.npy"))).unwrap().to_f64();
    for level in ["-O0", "-O1", "-O2", "-O3"] {
        let (library, outputs) = (folder.file("lenet5.so"), folder.file("out.npz"));
        done(&[&lenet("onnx"), level, "-o", &library]);
        let input = format!("input={}", lenet("in.npy"));
        assert_eq!(done(&["run", &library, "--input", &input, "--output", &outputs]), "output: f32[1,10]\n");
        let saved = arrays::read_npz(Path::new(&outputs)).unwrap();
        assert_eq!(saved[0].0, "output");
        let off = saved[0].1.to_f64().iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-5, "{level}: {off}");
    }
}

#[test]
fn what_is_done_can_be_seen() {
    let folder = Folder::new("command-seen");
    let library = folder.file("lenet5.so");
    let output = nncc(&[&lenet("onnx"), "-o", &library, "-v", "--time-passes"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    for part in ["read ", "imported: 12 operators", "optimized: ", "lowered for ", "bytes of machine code", "wrote "] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    for row in ["import ", "fuse ", "plan-memory ", "lower ", "kernels ", "write ", "total "] {
        assert!(said.lines().any(|line| line.starts_with(row) && line.contains(" ms")), "{row:?} is not in\n{said}");
    }
    // a pass that refuses says why; LeNet-5 gives it no reason to
    assert_eq!(done(&[&lenet("onnx"), "-o", &library, "--explain", "fold-batch-norm"]), "");
}

#[test]
fn errors_say_whose_fault_it_is() {
    let folder = Folder::new("command-errors");
    let (model, text) = (lenet("onnx"), folder.file("text.onnx"));
    std::fs::write(&text, "text").unwrap();
    let usage = nncc(&["--no-such-flag"]);
    assert_eq!(usage.status.code(), Some(2));
    assert_eq!(nncc(&[]).status.code(), Some(2));
    fails(
        &["missing.onnx"],
        1,
        "error: the file cannot be read: No such file or directory (os error 2)\n  --> missing.onnx",
    );
    fails(&[&text], 1, &format!("error: not an ONNX file: Unexpected wire type\n  --> {text}"));
    fails(
        &[&model, "-o", "model.exe"],
        1,
        "error: model.exe: the extension does not tell what to write\n  \
         help: .so, .a, .o and .h do; --emit KIND says it for any name",
    );
    let nowhere = folder.file("no/such/folder.so");
    fails(&[&model, "-o", &nowhere], 1, &format!("error: {nowhere}: No such file or directory (os error 2)"));
    fails(
        &[&model, "--target", "riscv64-unknown-linux-gnu"],
        1,
        "error: unsupported architecture riscv64; nncc compiles for x86_64 and aarch64",
    );
    let library = folder.file("text.so");
    std::fs::write(&library, "text").unwrap();
    fails(&["run", &library], 1, &format!("error: {library}: cannot load {library}: {library}: file too short"));
    for flags in [["--target-cpu", "native"], ["--winograd", "off"], ["--dim", "N=1"]] {
        fails(
            &["run", &library, flags[0], flags[1]],
            1,
            &format!("error: {} says how to compile, but {library} is compiled already; give the .onnx file", flags[0]),
        );
    }
    assert!(done(&["help"]).starts_with(&done(&["--help"])[..60]));
    assert_eq!(nncc(&["bench", &model, "--threads", &(abi::MAX_THREADS + 1).to_string()]).status.code(), Some(2));
}

#[test]
fn inputs_that_do_not_fit_are_explained() {
    let folder = Folder::new("command-inputs");
    let library = folder.file("lenet5.so");
    done(&[&lenet("onnx"), "-o", &library]);
    let give = |name: &str, t: &Tensor| {
        arrays::write_npy(Path::new(&folder.file("x.npy")), t).unwrap();
        format!("{name}={}", folder.file("x.npy"))
    };
    let takes = "the model takes input: f32[1,1,28,28]";
    fails(&["run", &library], 1, "error: no data for input input: f32[1,1,28,28]; give it with --input NAME=FILE");
    fails(
        &["run", &library, "--input", &give("x", &Tensor::zeros(DType::F32, &[1, 1, 28, 28]))],
        1,
        "error: the model has no input \"x\"; its inputs are: input",
    );
    fails(
        &["run", &library, "--input", &give("input", &Tensor::zeros(DType::F32, &[1, 1, 28, 27]))],
        1,
        &format!("error: the inputs' shapes do not fit the model: input: f32[1,1,28,27]\n  {takes}"),
    );
    fails(
        &["run", &library, "--input", &give("input", &Tensor::zeros(DType::F64, &[1, 1, 28, 28]))],
        1,
        &format!("error: input \"input\" is f32, but f64 was given\n  {takes}"),
    );
}

#[test]
fn half_floats_run_as_the_numbers_that_they_are() {
    let folder = Folder::new("command-half");
    // 784 times 1.5 as float16
    let header = "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 1, 28, 28), }\n";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend([0x00, 0x3e].repeat(784));
    std::fs::write(folder.file("half.npy"), bytes).unwrap();
    arrays::write_npy(Path::new(&folder.file("full.npy")), &Tensor::f32(&[1, 1, 28, 28], vec![1.5; 784])).unwrap();
    let run = |file: &str| {
        let (input, output) = (format!("input={}", folder.file(file)), folder.file("out.npz"));
        done(&["run", &lenet("onnx"), "--input", &input, "--output", &output]);
        arrays::read_npz(Path::new(&output)).unwrap()
    };
    assert_eq!(run("half.npy"), run("full.npy"));
}

#[test]
fn a_profile_has_a_row_for_each_fused_node() {
    let input = format!("input={}", lenet("in.npy"));
    let printed = done(&["run", &lenet("onnx"), "--input", &input, "--profile"]);
    let rows: Vec<&str> = printed.lines().collect();
    assert_eq!(rows[0], "output: f32[1,10]");
    assert!(rows[1].contains("1 thread: peak ") && rows[1].contains(" GFLOP/s; reads L1 "), "{printed}");
    let words: Vec<&str> = rows[2].split("  ").filter(|word| !word.is_empty()).map(str::trim).collect();
    let columns =
        ["node", "operator", "time", "predicted", "share", "GFLOP/s", "of peak", "bytes", "GB/s", "limit", "of limit"];
    assert_eq!(words, columns);
    assert!(rows[3].starts_with("/0/Conv+/1/Relu ") && rows[4].contains(" us ") && rows[4].contains(" % "));
    assert!(rows.iter().any(|row| row.starts_with("/7/Gemm+/8/Relu ")));
    assert!(rows.iter().any(|row| row.starts_with("total ")));
}

/// The same for machines, and as a page: from a model with its memory plan, from a library without.
#[test]
fn a_roofline_is_json_and_a_page() {
    let folder = Folder::new("command-roofline");
    let (library, html) = (folder.file("lenet5.so"), folder.file("page.html"));
    done(&[&lenet("onnx"), "-o", &library]);
    for (measured, has_plan) in [(&library, false), (&lenet("onnx"), true)] {
        let args = ["bench", measured, "--seconds", "0.05", "--json", "--html", &html, "--threads", "2"];
        let report: serde_json::Value = serde_json::from_str(&done(&args)).unwrap();
        let roofline = &report["roofline"];
        assert!(roofline["limits"]["peak_gflops"].as_f64().unwrap() > 0.0 && roofline["limits"]["threads"] == 2);
        let nodes = roofline["nodes"].as_array().unwrap();
        let sum = |field: &str| nodes.iter().map(|n| n[field].as_f64().unwrap()).sum::<f64>();
        assert_eq!(nodes[0]["name"], "/0/Conv+/1/Relu");
        assert!(nodes.iter().all(|n| n["predicted_us"].as_f64().unwrap() > 0.0), "{report}");
        assert!(sum("macs") == 416_520.0 && (sum("share") - 1.0).abs() < 1e-9, "{report}");
        // 61 706 parameters, and what packing pads
        assert!((246_824.0..400_000.0).contains(&sum("weight_bytes")), "{report}");
        let page = std::fs::read_to_string(&html).unwrap();
        assert!(page.contains("/7/Gemm+/8/Relu") && page.contains("class=\"block\"") == has_plan);
    }
}

#[test]
fn inspection_for_machines_is_json() {
    let folder = Folder::new("command-inspect");
    let report: serde_json::Value = serde_json::from_str(&done(&["inspect", &lenet("onnx"), "--json"])).unwrap();
    assert_eq!((&report["parameters"], &report["macs"]), (&61_706.into(), &416_520.into()));
    assert_eq!(report["inputs"][0], serde_json::json!({"name": "input", "dtype": "f32", "shape": [1, 1, 28, 28]}));
    let layer = &report["layers"][3];
    assert_eq!((&layer["name"], &layer["op"], &layer["parameters"]), (&"/3/Conv".into(), &"conv".into(), &2416.into()));
    assert_eq!(layer["field"][0], serde_json::json!({"size": 14.0, "jump": 2.0, "start": 5.0}));

    let open: serde_json::Value = serde_json::from_str(&done(&["inspect", &with_batch(&folder), "--json"])).unwrap();
    assert_eq!(open["inputs"][0]["shape"], serde_json::json!(["N", 1, 28, 28]));
    assert_eq!((&open["macs"], &open["symbols"]), (&serde_json::Value::Null, &serde_json::json!(["N"])));
    let fixed = done(&["inspect", &with_batch(&folder), "--shape", "input=2x1x28x28"]);
    assert!(fixed.contains("833.04 k MACs"), "{fixed}");
}

#[test]
fn one_library_holds_several_shape_sets_and_one_copy_of_the_weights() {
    let folder = Folder::new("command-sets");
    let model = with_batch(&folder);
    fails(
        &[&model, "-o", &folder.file("open.so")],
        1,
        "error: the model has dimensions that are not fixed\n  --> input \"input\": f32[N,1,28,28]\n  \
         help: --dim N=NUMBER, or --shape input=?x1x28x28 with numbers for `?`",
    );
    let (one, three) = (folder.file("one.so"), folder.file("three.so"));
    // a shape alone says it as well
    done(&[&model, "-o", &one, "--shape", "input=1x1x28x28"]);
    done(&[&model, "-o", &three, "--dim", "N=1,3,8"]);
    let header = |file: &str| std::fs::read_to_string(folder.file(file)).unwrap();
    assert!(header("three.h").contains("#define BATCH_SET_COUNT 3u\n"), "{}", header("three.h"));

    let (single, library) = (Model::open(&one).unwrap(), Model::open(&three).unwrap());
    let weights = |model: &Model| {
        let library = model.library();
        library.bounds(0, library.best_level().unwrap()).unwrap().weight_bytes
    };
    // What is packed for another batch may differ, and here does not: dense layers of any batch read one panel.
    let weight_bytes = weights(&single);
    assert!(weights(&library) < weight_bytes + weight_bytes / 4, "{} for {weight_bytes}", weights(&library));
    let size = |path: &str| std::fs::metadata(path).unwrap().len();
    assert!(size(&three) < size(&one) + weight_bytes, "{} bytes, {} with one set", size(&three), size(&one));

    // Each row of a batch is computed as it would be alone, up to the order of sums.
    let image = arrays::read_npy(Path::new(&lenet("in.npy"))).unwrap().to_f64();
    let alone = single.run(&[Tensor::from_f64(DType::F32, &[1, 1, 28, 28], &image)]).unwrap()[0].to_f64();
    for n in [1, 3, 8] {
        let batch = Tensor::from_f64(DType::F32, &[n, 1, 28, 28], &image.repeat(n));
        let outputs = library.run(&[batch]).unwrap();
        assert_eq!(outputs[0].dims(), [n, 10]);
        for row in outputs[0].to_f64().chunks(10) {
            assert!(row.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-5), "{row:?} {alone:?}");
        }
    }
    let error = library.run(&[Tensor::zeros(DType::F32, &[2, 1, 28, 28])]).unwrap_err().to_string();
    assert_eq!(
        error,
        "the inputs' shapes do not fit the model: input: f32[2,1,28,28]\n  the model takes input: f32[1,1,28,28] or \
         input: f32[3,1,28,28] or input: f32[8,1,28,28]"
    );
    let verified = done(&["verify", &model, &three, "--rounds", "1"]);
    assert!(verified.contains("shape set 2, input: f32[8,1,28,28]\n"), "{verified}");
}

#[test]
fn an_input_without_a_rank_needs_a_shape() {
    let folder = Folder::new("command-rank");
    let model = altered(&folder, "rank.onnx", |model| {
        let ty = model.graph.as_mut().unwrap().input[0].type_.as_mut().unwrap();
        ty.value = Some(type_proto::Value::TensorType(type_proto::Tensor { elem_type: 1, ..Default::default() }));
    });
    let output = nncc(&[&model, "-o", &folder.file("rank.so")]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("--> ")
            && said.contains("input \"input\"")
            && said.contains("`--shape input=1x3x224x224` says it"),
        "{said}"
    );
    done(&[&model, "-o", &folder.file("rank.so"), "--shape", "input=1x1x28x28"]);
}

#[test]
fn verify_names_the_node_that_differs() {
    let folder = Folder::new("command-verify");
    let library = folder.file("lenet5.so");
    done(&[&lenet("onnx"), "-o", &library]);
    let printed = done(&["verify", &lenet("onnx"), &library]);
    assert!(printed.lines().count() == 6 && printed.lines().all(|line| line.contains(" values compared")), "{printed}");

    // One weight of the second convolution, a little larger.
    let model = altered(&folder, "altered.onnx", |model| {
        let weights = model.graph.as_mut().unwrap().initializer.iter_mut().find(|t| t.name == "3.weight").unwrap();
        let bytes = &mut weights.raw_data[4 * 77..4 * 78];
        let weight = f32::from_le_bytes(bytes.try_into().unwrap()) + 1e-2;
        bytes.copy_from_slice(&weight.to_le_bytes());
    });
    let wrong = folder.file("altered.so");
    done(&[&model, "-o", &wrong]);
    done(&["verify", &model, &wrong]);
    let output = nncc(&["verify", &lenet("onnx"), &wrong]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let place =
        "error: the library differs from the model\n  --> value \"/4/Relu_output_0\", made by /3/Conv+/4/Relu, on ";
    assert!(said.starts_with(place), "{said}");
}

#[test]
fn measurements_are_json() {
    let folder = Folder::new("command-bench");
    let library = folder.file("lenet5.so");
    done(&[&lenet("onnx"), "-o", &library]);
    let (input, expect) = (format!("input={}", lenet("in.npy")), lenet("f64.npy"));
    // a library, a model that is compiled first, and one that is compiled for the input's shape
    for measured in [&library, &lenet("onnx"), &with_batch(&folder)] {
        let args = ["bench", measured, "--input", &input, "--expect", &expect, "--seconds", "0.05", "--json"];
        let report: serde_json::Value = serde_json::from_str(&done(&args)).unwrap();
        let number = |field: &str| report[field].as_f64().unwrap_or_else(|| panic!("{field} in {report}"));
        for field in ["load_ms", "first_ms", "median_ms", "p99_ms", "gflops", "peak_resident_bytes"] {
            assert!(number(field) > 0.0, "{field} in {report}");
        }
        assert!(number("median_ms") <= number("p99_ms") && number("runs") >= 3.0 && number("threads") == 1.0);
        assert_eq!(number("macs"), 416_520.0);
        assert!(number("reldiff") < 2e-6);
    }
}

/// The line protocol of a worker: one line of what loading took, then a window for each number of seconds.
#[test]
fn a_worker_answers_timed_windows() {
    let folder = Folder::new("command-worker");
    let library = folder.file("lenet5.so");
    done(&[&lenet("onnx"), "-o", &library]);
    std::fs::write(folder.file("windows"), "0.02\n0\n").unwrap();
    let windows = std::fs::File::open(folder.file("windows")).unwrap();
    let args = ["bench", &library, "--input", &format!("input={}", lenet("in.npy")), "--worker"];
    let output = Command::new(env!("CARGO_BIN_EXE_nncc")).args(args).stdin(windows).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0]["load_ms"].is_number() && lines[0]["first_ms"].is_number() && lines[0]["reldiff"].is_null());
    for line in &lines[1..] {
        let (wall, cpu) = (line["wall"].as_array().unwrap(), line["cpu"].as_array().unwrap());
        assert!(wall.len() == cpu.len() && wall.len() >= 3, "{line}");
    }
}

/// `nncc verify ... | head -1` ends as if all had been read.
#[test]
fn a_new_network_is_a_model_like_any_other() {
    let folder = Folder::new("command-new");
    let model = folder.file("m.onnx");
    let new = ["new", "lenet5", "--classes", "7", "--input", "1x28x28", "-o", &model];
    assert_eq!(done(&new), "");
    assert_eq!(names(&folder), ["m.onnx"]);
    let table: serde_json::Value = serde_json::from_str(&done(&["inspect", &model, "--dim", "N=1", "--json"])).unwrap();
    assert_eq!(table["parameters"], 61_706 - 3 * 85);
    let names = nncc_zoo::names().collect::<Vec<_>>().join(", ");
    let unknown = format!("error: no architecture is called `lenet`; there are {names}");
    fails(&["new", "lenet", "--classes", "7", "--input", "1x28x28"], 1, &unknown);
    let empty = ["new", "resnet18", "--classes", "7", "--input", "3x2x0"];
    fails(&empty, 1, "error: width is 0, not between 1 and 16777216");
}

#[test]
fn a_reader_may_stop_reading() {
    let folder = Folder::new("command-pipe");
    let library = folder.file("lenet5.so");
    done(&[&lenet("onnx"), "-o", &library]);
    let input = format!("input={}", lenet("in.npy"));
    for args in [
        &["verify", &lenet("onnx"), &library][..],
        &["run", &library, "--input", &input, "--profile"],
        &["inspect", &lenet("onnx")],
        &["bench", &library, "--seconds", "0"],
        &[&lenet("onnx"), "--emit", "asm"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nncc"));
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success() && ended.stderr.is_empty(), "nncc {args:?}: {ended:?}");
    }
}
