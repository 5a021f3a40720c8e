//! `nncc run`: a model or a library on files; shapes of the outputs, the five best classes, arrays, a profile.

use super::inputs::Declared;
use super::{args, compile, inputs, print, profile};
use nncc::roofline::Roofline;
use nncc::{Compiler, DType, Error, Model, Tensor, arrays};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How long `--profile` repeats the run: its medians then stand still.
const PROFILE_TIME: Duration = Duration::from_millis(300);

/// Runs the subcommand.
pub fn run(a: &args::Run) -> Result<(), Error> {
    let (model, data) = open(&a.model, &a.inputs, &a.shared, a.threads)?;
    let given = in_order(&model, &data)?;
    let outputs = model.run(&given)?;
    let names = model.output_names();
    let labels = a.labels.as_deref().map(read_labels).transpose()?;
    for (name, t) in names.iter().zip(&outputs) {
        print(&format!("{name}: {}\n", t.ty()))?;
        if let Some(labels) = &labels {
            print(&top5(t, labels, a.softmax))?;
        }
    }
    if let Some(path) = &a.output {
        arrays::write_npz(path, names.iter().map(String::as_str).zip(&outputs))?;
    }
    if a.profile {
        print(&profile::table(&Roofline::measure(&model, &given, PROFILE_TIME)?))?;
    }
    Ok(())
}

/// A runnable model, and the tensors that the command line gives for its inputs.
pub fn open(
    path: &Path,
    args: &args::Inputs,
    shared: &args::Compiling,
    threads: u32,
) -> Result<(Model, BTreeMap<String, Tensor>), Error> {
    if path.extension().is_some_and(|e| e == "onnx") {
        let description = Compiler::describe(path)?;
        let bound = |s: &str| {
            shared
                .importing
                .dims
                .iter()
                .find(|(n, _)| n == s)
                .and_then(|(_, v)| v.first())
                .map(|&n| nncc_ir::Dim::Known(n))
        };
        let declared: Vec<Declared> = description
            .inputs
            .iter()
            .map(|i| Declared {
                name: i.name.clone(),
                shape: i.shape.as_ref().map(|s| s.iter().map(|d| d.substitute(&bound).size()).collect()),
            })
            .collect();
        let data = inputs::read(args, &declared)?;
        let mut compiler = compile::compiler(shared)?;
        if shared.target_cpu.is_none() {
            compiler = compiler.target_cpu("native");
        }
        for (name, t) in &data {
            compiler = compiler.input_shape(name, t.dims());
        }
        let (compiled, _) = compiler.load_for(path, &|name| data.get(name).cloned())?;
        return Ok((compiled.jit()?.with_threads(threads)?, data));
    }
    if let Some(flag) = shared.given() {
        let path = path.display();
        return Err(Error::Usage(format!(
            "{flag} says how to compile, but {path} is compiled already; give the .onnx file"
        )));
    }
    open_library(path, args, threads)
}

/// The same of a library.
pub fn open_library(
    path: &Path,
    args: &args::Inputs,
    threads: u32,
) -> Result<(Model, BTreeMap<String, Tensor>), Error> {
    let model = Model::open(path)?.with_threads(threads)?;
    let declared: Vec<Declared> = model
        .input_types()
        .into_iter()
        .map(|(name, ty)| Declared { name, shape: Some(ty.dims().unwrap_or_default().into_iter().map(Some).collect()) })
        .collect();
    let data = inputs::read(args, &declared)?;
    Ok((model, data))
}

/// The tensors in the order of the model's inputs.
pub fn in_order(model: &Model, data: &BTreeMap<String, Tensor>) -> Result<Vec<Tensor>, Error> {
    let missing: Vec<String> =
        model.input_types().iter().filter(|(n, _)| !data.contains_key(n)).map(|(n, t)| format!("{n}: {t}")).collect();
    if !missing.is_empty() {
        return Err(Error::Input(format!("no data for input {}; give it with --input NAME=FILE", missing.join(", "))));
    }
    Ok(model.input_types().iter().filter_map(|(n, _)| data.get(n).cloned()).collect())
}

fn read_labels(path: &Path) -> Result<Vec<String>, Error> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    Ok(text.lines().map(str::to_string).collect())
}

/// The five largest numbers of each row with the names of their places. Empty for what is no list of classes.
fn top5(t: &Tensor, labels: &[String], softmax: bool) -> String {
    let classes = t.dims().last().copied().unwrap_or(0);
    if !matches!(t.dtype(), DType::F32 | DType::F64) || classes < 2 {
        return String::new();
    }
    let mut out = String::new();
    for row in t.to_f64().chunks(classes) {
        let row = if softmax { softmaxed(row) } else { row.to_vec() };
        let mut order: Vec<usize> = (0..classes).collect();
        order.sort_by(|&i, &j| row[j].total_cmp(&row[i]).then(i.cmp(&j)));
        for &i in order.iter().take(5) {
            let name = labels.get(i).map_or_else(|| format!("class {i}"), Clone::clone);
            out += &format!("  {:.3}  {name}\n", row[i]);
        }
    }
    out
}

fn softmaxed(row: &[f64]) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = row.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|x| x / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first() {
        let labels: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let t = Tensor::f32(&[1, 4], vec![0.1, 0.5, 0.2, 0.2]);
        assert_eq!(top5(&t, &labels, false), "  0.500  b\n  0.200  c\n  0.200  class 3\n  0.100  a\n");
        let one = softmaxed(&[1000.0, 1000.0]);
        assert_eq!(one, [0.5, 0.5]);
    }
}
