//! `nncc MODEL.onnx -o OUT`: compiles, and writes what was asked for.

use super::args::{self, Emit};
use super::learning::Learning;
use super::progress::Progress;
use super::{print, recipe};
use nncc::training::ModelFile;
use nncc::tune::Tuning;
use nncc::{BandUse, Compiled, Compiler, Error, LearningBatches, OptLevel, OutputKind, Text, WinogradUse, arrays};
use nncc_train::recipe::{Recipe, RecipeError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Runs the command.
pub fn run(a: &args::Compile) -> Result<(), Error> {
    let model = a.model.as_deref().unwrap_or(Path::new(""));
    let wanted = wanted(a, model)?;
    let mut compiler = compiler(&a.shared)?.freestanding(a.freestanding);
    if let Some(triple) = &a.target {
        compiler = compiler.target(triple);
    }
    let time = a.tune.then(|| Duration::from_secs_f64(a.tune_seconds.clamp(0.0, 86_400.0)));
    compiler = compiler.tuning(Tuning { time, cache: a.tune_cache.clone() });
    if a.learning.train && !a.shared.importing.batches.is_empty() {
        let message = "--batch is for a library that infers; --batch-size and --infer-batch are for one that learns";
        return Err(Error::Usage(message.into()));
    }
    let progress = Progress::start();
    let compiled = match a.learning.train {
        true => learning(&compiler, model, &a.learning, &mut |stage| progress.stage(stage))?,
        false => compiler.load_observed(model, &mut |stage| progress.stage(stage))?,
    };
    progress.stage("writing");
    let start = Instant::now();
    match &wanted {
        Output::File(path, kind) if a.emit.is_some() => compiled.write(path, *kind)?,
        Output::File(path, kind) => compiled.write_with_header(path, *kind)?,
        Output::Text(text, None) => {
            let text = compiled.text(*text)?;
            drop(progress);
            print(&text)?;
        }
        Output::Text(text, Some(path)) => {
            std::fs::write(path, compiled.text(*text)?).map_err(|e| Error::io(path, e))?
        }
    }
    let written = start.elapsed();
    if let Some(pass) = &a.explain {
        for line in compiled.refusals().filter(|l| pass.is_empty() || l.starts_with(pass.as_str())) {
            print(&format!("{line}\n"))?;
        }
    }
    if a.time_passes {
        eprint!("{}", time_table(&compiled, written));
    }
    Ok(())
}

/// Compiles the model as one that learns.
fn learning(
    compiler: &Compiler,
    model: &Path,
    given: &Learning,
    stage: &mut dyn FnMut(&str),
) -> Result<Compiled, Error> {
    let usage = |e: RecipeError| Error::Usage(e.to_string());
    let recipe = match &given.file {
        Some(file) => given.flags.over(&Recipe::read(file).map_err(usage)?).map_err(usage)?,
        None => given.flags.clone(),
    };
    let mut loss = recipe::loss(&recipe)?;
    recipe::weigh(&mut loss, &recipe, None)?;
    let (options, _) = recipe::options(&recipe, loss)?;
    let model = ModelFile::open(model)?;
    let size = recipe.batch_size.map_or(USUAL_BATCH, |n| n as usize);
    let inference = if given.infer_batch.is_empty() { vec![1] } else { given.infer_batch.clone() };
    let gather = if recipe.accumulate.is_some_and(|n| n > 1) { vec![size] } else { Vec::new() };
    let sizes = LearningBatches { step: vec![size], gather, evaluation: vec![size], inference };
    let (compiled, graph) = compiler.load_learning(&model, &options, &sizes, stage)?;
    for note in &graph.notes {
        eprintln!("note: {note}");
    }
    Ok(compiled)
}

/// `--batch-size` when it is not given, as in a recipe.
const USUAL_BATCH: usize = 32;

enum Output {
    File(PathBuf, OutputKind),
    Text(Text, Option<PathBuf>),
}

/// What `--emit` and `-o` ask for together.
fn wanted(a: &args::Compile, model: &Path) -> Result<Output, Error> {
    let file = |kind: OutputKind, extension: &str| {
        let mut name = model.file_stem().unwrap_or(model.as_os_str()).to_owned();
        name.push(if a.learning.train { "_train." } else { "." });
        name.push(extension);
        Output::File(a.output.clone().unwrap_or_else(|| PathBuf::from(name)), kind)
    };
    let text = |t: Text| Output::Text(t, a.output.clone());
    Ok(match a.emit {
        Some(Emit::So) => file(OutputKind::Shared, "so"),
        Some(Emit::Obj) => file(OutputKind::Object, "o"),
        Some(Emit::Staticlib) => file(OutputKind::Static, "a"),
        Some(Emit::Header) => file(OutputKind::Header, "h"),
        Some(Emit::Graph) => text(Text::Graph),
        Some(Emit::Plan) => text(Text::Plan),
        Some(Emit::Kernels) => text(Text::Kernels),
        Some(Emit::Clif) => text(Text::Clif),
        Some(Emit::Asm) => text(Text::Asm),
        None => match &a.output {
            None => file(OutputKind::Shared, "so"),
            Some(path) => match OutputKind::of(path) {
                Some(kind) => Output::File(path.clone(), kind),
                None => {
                    let message = format!("{}: the extension does not tell what to write", path.display());
                    return Err(Error::Usage(format!(
                        "{message}\n  help: .so, .a, .o and .h do; --emit KIND says it for any name"
                    )));
                }
            },
        },
    })
}

/// The facade's options of importing.
pub fn importer(flags: &args::Importing) -> Result<Compiler, Error> {
    let mut c = Compiler::new();
    for (name, values) in &flags.dims {
        c = c.dim(name, values);
    }
    c = c.batch(&flags.batches.iter().map(|&n| n as usize).collect::<Vec<_>>());
    for (name, extents) in &flags.shapes {
        c = c.input_shape(name, extents);
    }
    for (name, path) in &flags.fixed {
        c = c.fix(name, arrays::read_npy(path)?);
    }
    Ok(c)
}

/// The facade's options of compiling.
pub fn compiler(flags: &args::Compiling) -> Result<Compiler, Error> {
    let c = importer(&flags.importing)?.opt_level(match flags.opt_level {
        0 => OptLevel::O0,
        1 => OptLevel::O1,
        2 => OptLevel::O2,
        _ => OptLevel::O3,
    });
    let c = c.disable(&flags.disable).small(flags.size).winograd(match flags.winograd {
        args::Winograd::Auto => WinogradUse::Auto,
        args::Winograd::Off => WinogradUse::Off,
        args::Winograd::Aggressive => WinogradUse::Aggressive,
    });
    let c = c.bands(match flags.bands {
        args::Bands::Auto => BandUse::Auto,
        args::Bands::Off => BandUse::Off,
        args::Bands::On => BandUse::On,
    });
    Ok(match &flags.target_cpu {
        Some(cpu) => c.target_cpu(cpu),
        None => c,
    })
}

fn time_table(compiled: &Compiled, written: Duration) -> String {
    let times = || compiled.times().iter().copied().chain([("write", written)]);
    let total: f64 = times().map(|(_, t)| t.as_secs_f64()).sum();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (name, time) in times() {
        let ms = time.as_secs_f64() * 1e3;
        rows.push(vec![name.to_string(), format!("{ms:.2} ms"), format!("{:.1} %", ms / total.max(1e-9) / 10.0)]);
    }
    rows.push(vec!["total".into(), format!("{:.2} ms", total * 1e3), String::new()]);
    super::inspect::align(&rows, &[false, true, true])
}
