//! `--tune` and `--tune-cache` as a user meets them: what is measured is kept, what is kept is followed by another build and on
//! this CPU alone, and results stay what they were. Of each kind of choice one is made by hand.

#[path = "support/command.rs"]
mod command;

use command::{Folder, done, lenet, nncc};
use nncc::{DType, Model, Tensor, arrays};
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
    let known = |l: &&str| [" | direct ", " | run ", " | bands "].iter().any(|word| l.contains(word));
    assert!(!layers.is_empty() && layers.iter().all(known) && layers.is_sorted(), "{text}");
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
    // Whether the first layers are faster in bands is for the clock to say: by themselves they have a schedule.
    let build = |more: &[&str]| done(&[&[model.as_str(), "--bands", "off"], more].concat());
    let plan = |more: &[&str]| build(&[&["--emit", "plan"], more].concat());
    build(&["--tune", "--tune-seconds", "0", "--tune-cache", &cache, "-o", &forced]);
    // No time, nothing measured: the first layer is written by hand, as a schedule that no template would choose.
    let measured = std::fs::read_to_string(&cache).unwrap();
    assert_eq!(measured.lines().count(), 1, "{measured}");
    build(&["--tune", "--tune-seconds", "0.5", "--tune-cache", &cache, "-o", &forced]);
    let text = std::fs::read_to_string(&cache).unwrap();
    let line = text.lines().find(|l| l.contains(" 1->6 ")).unwrap_or_else(|| panic!("{text}"));
    let fields: Vec<&str> = line.split(" | ").collect();
    let odd = [fields[0], fields[1], fields[2], "16x3 pass 1 rows 5 rows-first", "by hand"].join(" | ");
    let with = |line: &str| std::fs::write(&cache, format!("{}\n{line}\n", text.lines().next().unwrap())).unwrap();
    let own = plan(&[]);
    assert!(!own.contains("[16x3 pass 1 rows 5 rows-first]"));
    with(&odd);
    assert!(plan(&["--tune-cache", &cache]).contains("[16x3 pass 1 rows 5 rows-first]"));
    build(&["--tune-cache", &cache, "-o", &forced]);
    assert!(distance(&forced) < 2e-6, "{}", distance(&forced));
    with(&odd.replace(fields[0], "Another CPU"));
    assert_eq!(plan(&["--tune-cache", &cache]), own);
}

/// A new network for pictures of 3 x `size` x `size`, its cache file, and what was measured of it.
struct Tuned {
    folder: Folder,
    model: String,
    size: usize,
    measured: String,
}

impl Tuned {
    fn new(arch: &str, size: usize) -> Tuned {
        let folder = Folder::new(&format!("tuning-{arch}"));
        let model = folder.file("model.onnx");
        done(&["new", arch, "--classes", "10", "--input", &format!("3x{size}x{size}"), "-o", &model]);
        let mut tuned = Tuned { folder, model, size, measured: String::new() };
        tuned.measured = tuned.tune("");
        tuned
    }

    /// What the cache file holds after tuning, where it held these lines.
    fn tune(&self, lines: &str) -> String {
        let (cache, library) = (self.cache(lines), self.folder.file("tuned.so"));
        done(&[&self.model, "--batch", "1", "--tune", "--tune-seconds", "0.3", "--tune-cache", &cache, "-o", &library]);
        std::fs::read_to_string(cache).unwrap()
    }

    /// A cache file with these lines.
    fn cache(&self, lines: &str) -> String {
        let cache = self.folder.file("cache.txt");
        let header = "# nncc tuning cache: CPU | compiler | layer | choice | remark\n";
        std::fs::write(&cache, format!("{header}{lines}")).unwrap();
        cache
    }

    /// What a model of these lines computes of a picture.
    fn results(&self, lines: &str) -> Vec<f64> {
        let (cache, library) = (self.cache(lines), self.folder.file("library.so"));
        done(&[&self.model, "--batch", "1", "--tune-cache", &cache, "-o", &library]);
        let numbers: Vec<f64> = (0..3 * self.size * self.size).map(|i| (i % 97) as f64 / 97.0 - 0.5).collect();
        let picture = Tensor::from_f64(DType::F32, &[1, 3, self.size, self.size], &numbers);
        Model::open(&library).unwrap().run(&[picture]).unwrap()[0].to_f64()
    }

    fn plan(&self, lines: &str) -> String {
        done(&[&self.model, "--batch", "1", "--tune-cache", &self.cache(lines), "--emit", "plan"])
    }

    /// A choice by hand for the first layer in `text` whose signature begins with a word and holds a part, behind `before`. The
    /// plan shows it, and results are those of the model with `before` alone, to the bit or nearly.
    #[track_caller]
    fn follows(&self, before: &str, text: &str, which: [&str; 2], choice: &str, to_the_bit: bool) -> String {
        let line = format!("{before}{}", by_hand(text, which, choice));
        let shown = format!("[{choice}]");
        assert!(!self.plan(before).contains(&shown) && self.plan(&line).contains(&shown), "{}", self.plan(&line));
        let (want, got) = (self.results(before), self.results(&line));
        if to_the_bit {
            assert_eq!(got, want);
        }
        let range = want.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5 * range), "{got:?} {want:?}");
        line
    }
}

/// The line of a choice by hand for the first layer in `text` whose signature begins with a word and holds a part.
#[track_caller]
fn by_hand(text: &str, [word, part]: [&str; 2], choice: &str) -> String {
    let signature = |l: &&str| l.split(" | ").nth(2).map(str::to_string).unwrap_or_default();
    let is_it = |l: &&str| signature(l).starts_with(&format!("{word} ")) && signature(l).contains(part);
    let line = text.lines().find(is_it).unwrap_or_else(|| panic!("no {word} {part} in\n{text}"));
    let fields: Vec<&str> = line.split(" | ").collect();
    format!("{}\n", [fields[0], fields[1], fields[2], choice, "by hand"].join(" | "))
}

#[test]
fn walks_and_bands_are_measured_and_followed() {
    let tuned = Tuned::new("squeezenet", 112);
    // Whether it is Winograd's at all is not left to the clock.
    let algorithm = by_hand(&tuned.measured, ["algorithm", " 16->64 "], "winograd 4");
    let walks = tuned.tune(&algorithm);
    tuned.follows(&algorithm, &walks, ["winograd", " 16->64 "], "grouped 3", false);
    // A pooling with the layer behind it: a chain whose bands are tuned once the layers are one.
    let cut = tuned.follows("", &tuned.measured, ["run", " 64x55x55 > 64x27x27 > "], "cut 1 2", true);
    let bands = tuned.tune(&cut);
    assert!(bands.contains(" | cut 1 2 | by hand"), "{bands}");
    tuned.follows(&cut, &bands, ["bands", " 64x27x27 > 16x27x27 of "], "band 5", true);
}

#[test]
fn strips_are_measured_and_followed() {
    let tuned = Tuned::new("mobilenet_v2", 64);
    tuned.follows("", &tuned.measured, ["depthwise", " 1->1 "], "strip 3", true);
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
