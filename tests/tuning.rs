//! `--tune` and `--tune-cache` as a user meets them, on LeNet-5: what is measured is kept, what is kept is followed by another
//! build and on this CPU alone, and results stay what they were.

#[path = "support/command.rs"]
mod command;

use command::{Folder, done, lenet, nncc};
use nncc::{Model, arrays};
use std::path::Path;

/// The largest difference from the float64 result, as a share of its range.
fn distance(library: &str) -> f64 {
    let input = arrays::read_npy(Path::new(&lenet("in.npy"))).unwrap();
    let want = arrays::read_npy(Path::new(&lenet("f64.npy"))).unwrap().to_f64();
    let got = Model::open(library).unwrap().run(&[input]).unwrap()[0].to_f64();
    let range = want.iter().copied().fold(f64::MIN, f64::max) - want.iter().copied().fold(f64::MAX, f64::min);
    got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / range
}

#[test]
fn what_is_measured_is_kept_and_followed() {
    let folder = Folder::new("tuning");
    let (cache, tuned) = (folder.file("cache.txt"), folder.file("tuned.so"));
    let model = lenet("onnx");
    done(&[&model, "--tune", "--tune-seconds", "0.5", "--tune-cache", &cache, "-o", &tuned]);
    let text = std::fs::read_to_string(&cache).unwrap();
    assert!(text.starts_with("# nncc tuning cache: CPU | compiler | layer | choice | remark\n"), "{text}");
    let layers: Vec<&str> = text.lines().skip(1).collect();
    assert!(!layers.is_empty() && layers.iter().all(|l| l.contains(" | direct ")) && layers.is_sorted(), "{text}");
    // Another build takes the same choices and measures nothing. A library holds its file's name: it has the same.
    let bytes = std::fs::read(&tuned).unwrap();
    done(&[&model, "--tune-cache", &cache, "-o", &tuned]);
    assert!(bytes == std::fs::read(&tuned).unwrap());
    assert_eq!(std::fs::read_to_string(&cache).unwrap(), text);
    assert!(distance(&tuned) < 2e-6, "{}", distance(&tuned));
}

#[test]
fn a_choice_is_followed_on_its_cpu_alone() {
    let folder = Folder::new("tuning-choice");
    let (cache, forced) = (folder.file("cache.txt"), folder.file("forced.so"));
    let model = lenet("onnx");
    let plan = |more: &[&str]| done(&[&[model.as_str(), "--emit", "plan"], more].concat());
    done(&[&model, "--tune", "--tune-seconds", "0", "--tune-cache", &cache, "-o", &forced]);
    // No time, nothing measured: the first layer is written by hand, as a schedule that no template would choose.
    let measured = std::fs::read_to_string(&cache).unwrap();
    assert_eq!(measured.lines().count(), 1, "{measured}");
    done(&[&model, "--tune", "--tune-seconds", "0.5", "--tune-cache", &cache, "-o", &forced]);
    let text = std::fs::read_to_string(&cache).unwrap();
    let line = text.lines().find(|l| l.contains(" 1->6 ")).unwrap_or_else(|| panic!("{text}"));
    let fields: Vec<&str> = line.split(" | ").collect();
    let odd = [fields[0], fields[1], fields[2], "16x3 pass 1 rows 5 rows-first", "by hand"].join(" | ");
    let with = |line: &str| std::fs::write(&cache, format!("{}\n{line}\n", text.lines().next().unwrap())).unwrap();
    let own = plan(&[]);
    assert!(!own.contains("[16x3 pass 1 rows 5 rows-first]"));
    with(&odd);
    assert!(plan(&["--tune-cache", &cache]).contains("[16x3 pass 1 rows 5 rows-first]"));
    done(&[&model, "--tune-cache", &cache, "-o", &forced]);
    assert!(distance(&forced) < 2e-6, "{}", distance(&forced));
    with(&odd.replace(fields[0], "Another CPU"));
    assert_eq!(plan(&["--tune-cache", &cache]), own);
}

#[test]
fn a_file_that_is_no_cache_is_refused() {
    let folder = Folder::new("tuning-bad");
    let cache = folder.file("cache.txt");
    std::fs::write(&cache, "hello\n").unwrap();
    let output = nncc(&[&lenet("onnx"), "--tune-cache", &cache, "-o", &folder.file("never.so")]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let want = format!(
        "error: {cache}: not a tuning cache: it does not begin with its first line\n  help: name a file that --tune wrote, or \
         one that does not exist yet"
    );
    assert_eq!(complaint.trim_end(), want);
    assert!(!output.status.success() && !Path::new(&folder.file("never.so")).exists());
}
