//! `nncc MODEL.onnx -o OUT`: compiles, and writes what was asked for.

use super::args::{self, Emit};
use super::progress::Progress;
use nncc::{Compiled, Compiler, Error, OptLevel, OutputKind, Text, arrays};
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(a: &args::Compile) -> Result<(), Error> {
    let model = a.model.as_deref().unwrap_or(Path::new(""));
    let wanted = wanted(a, model)?;
    let compiler = compiler(&a.shared)?;
    let progress = Progress::start();
    let compiled = compiler.load_observed(model, &mut |stage| progress.stage(stage))?;
    progress.stage("writing");
    match &wanted {
        Output::File(path, kind) => compiled.write(path, *kind)?,
        Output::Text(text, None) => {
            drop(progress);
            print(&compiled.text(*text)?)?;
            return finish(a, &compiled);
        }
        Output::Text(text, Some(path)) => {
            std::fs::write(path, compiled.text(*text)?).map_err(|e| Error::io(path, e))?
        }
    }
    drop(progress);
    finish(a, &compiled)
}

fn finish(a: &args::Compile, compiled: &Compiled) -> Result<(), Error> {
    if let Some(pass) = &a.explain {
        for line in compiled.refusals().filter(|l| pass.is_empty() || l.starts_with(pass.as_str())) {
            print(&format!("{line}\n"))?;
        }
    }
    if a.shared.time_passes {
        eprint!("{}", time_table(compiled));
    }
    Ok(())
}

/// Standard output that is closed early (`| head`) is no error.
fn print(text: &str) -> Result<(), Error> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(()),
    }
}

enum Output {
    File(PathBuf, OutputKind),
    Text(Text, Option<PathBuf>),
}

/// What `--emit` and `-o` ask for together.
fn wanted(a: &args::Compile, model: &Path) -> Result<Output, Error> {
    let file = |kind: OutputKind, extension: &str| {
        let stem = model.file_stem().unwrap_or(model.as_os_str());
        Output::File(a.output.clone().unwrap_or_else(|| PathBuf::from(stem).with_extension(extension)), kind)
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
                    let message = format!(
                        "{}: the extension does not tell what to write; .so, .a, .o and .h do, --emit says it for any name",
                        path.display()
                    );
                    return Err(Error::Usage(message));
                }
            },
        },
    })
}

/// The facade's options from the command line's.
pub fn compiler(shared: &args::Model) -> Result<Compiler, Error> {
    let mut c = Compiler::new().freestanding(shared.freestanding).opt_level(match shared.opt_level {
        0 => OptLevel::O0,
        1 => OptLevel::O1,
        2 => OptLevel::O2,
        _ => OptLevel::O3,
    });
    for (name, values) in &shared.dims {
        c = c.dim(name, values);
    }
    for (name, path) in &shared.fixed {
        c = c.fix(name, arrays::read_npy(path)?);
    }
    if let Some(triple) = &shared.target {
        c = c.target(triple);
    }
    if let Some(cpu) = &shared.target_cpu {
        c = c.target_cpu(cpu);
    }
    Ok(c)
}

fn time_table(compiled: &Compiled) -> String {
    let total: f64 = compiled.times().iter().map(|(_, t)| t.as_secs_f64()).sum();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (name, time) in compiled.times() {
        let ms = time.as_secs_f64() * 1e3;
        rows.push(vec![name.to_string(), format!("{ms:.2} ms"), format!("{:.1} %", ms / total.max(1e-9) / 10.0)]);
    }
    rows.push(vec!["total".into(), format!("{:.2} ms", total * 1e3), String::new()]);
    super::inspect::align(&rows, &[false, true, true])
}
