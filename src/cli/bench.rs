//! `nncc bench`: load time, first run, latency, throughput and memory of a compiled library.
//!
//! A library is measured; an .onnx file is compiled by a child process first, so that the compiler's memory is not in the
//! figures. `--roofline` profiles it after that, and measures the machine; `--html` writes both as a page. `--worker`
//! speaks a line protocol, so that a driver can time several engines in turn:
//!
//! ```text
//! we print   {"load_ms":..,"first_ms":..,"reldiff":..}
//! we read    a number of seconds
//! we print   {"wall":[ms,..],"cpu":[ms,..]}        and so on, until the end of the input
//! ```

use super::{args, compile, inputs, inspect, page, print, profile, run};
use nncc::roofline::Roofline;
use nncc::{Compiler, Error, Model, Plan, Tensor, arrays};
use serde::Serialize;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Runs the subcommand.
pub fn run(a: &args::Bench) -> Result<(), Error> {
    let compiled = a.model.extension().is_some_and(|e| e == "onnx").then(|| compile_in_child(a)).transpose()?;
    let library = compiled.as_ref().map_or(a.model.as_path(), |t| t.0.as_path());
    // Reading the input files is not loading; the library is opened again for the figure.
    let (model, data) = match &compiled {
        Some(_) => run::open_library(library, &a.inputs, a.threads)?, // flags of compiling have been heeded
        None => run::open(library, &a.inputs, &a.shared, a.threads)?,
    };
    let given = if a.inputs.inputs.is_empty() { made_up(&model) } else { run::in_order(&model, &data)? };
    drop(model);
    let start = Instant::now();
    let model = Model::open(library)?.with_threads(a.threads)?;
    let mut bound = model.bind(&given)?;
    let load = start.elapsed();
    let start = Instant::now();
    bound.run()?;
    let first = start.elapsed();
    let reldiff = a.expect.as_deref().map(|p| relative_difference(&bound.outputs()[0], p)).transpose()?;
    if a.worker {
        return worker(&mut bound, load, first, reldiff);
    }
    let (mut wall, _) = window(&mut bound, Duration::from_secs_f64(a.seconds.max(0.0)))?;
    wall.sort_by(f64::total_cmp);
    let at = |q: f64| wall[((wall.len() - 1) as f64 * q).round() as usize];
    let macs: u64 = bound.steps().iter().map(|s| s.macs).sum();
    let mut report = Report {
        load_ms: ms(load),
        first_ms: ms(first),
        median_ms: at(0.5),
        p99_ms: at(0.99),
        runs: wall.len(),
        gflops: 2.0 * macs as f64 / at(0.5) / 1e6,
        macs,
        threads: a.threads,
        peak_resident_bytes: peak_resident(),
        reldiff,
        roofline: None,
    };
    // Everything above is measured by now: what follows may take memory.
    if a.roofline || a.html.is_some() {
        report.roofline = Some(Roofline::measure(&model, &given, Duration::from_secs_f64(a.seconds.clamp(0.0, 10.0)))?);
    }
    if let (Some(path), Some(roofline)) = (&a.html, &report.roofline) {
        let name = a.model.file_stem().unwrap_or_default().to_string_lossy();
        let page = page::page(&name, &report.facts(), roofline, plan(a)?.as_ref());
        std::fs::write(path, page).map_err(|e| Error::io(path, e))?;
    }
    if a.json {
        let json = serde_json::to_string(&report).expect("a report has only numbers");
        print(&format!("{json}\n"))
    } else {
        print(&report.table())
    }
}

#[derive(Serialize)]
struct Report {
    load_ms: f64,
    first_ms: f64,
    median_ms: f64,
    p99_ms: f64,
    runs: usize,
    gflops: f64,
    macs: u64,
    threads: u32,
    peak_resident_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reldiff: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roofline: Option<Roofline>,
}

impl Report {
    fn table(&self) -> String {
        let rows: Vec<Vec<String>> = self.facts().into_iter().map(|(what, value)| vec![what.into(), value]).collect();
        let facts = inspect::align(&rows, &[false, false]);
        self.roofline.as_ref().map_or(facts.clone(), |r| format!("{facts}\n{}", profile::table(r)))
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("load", format!("{:.3} ms", self.load_ms)),
            ("first run", format!("{:.3} ms", self.first_ms)),
            ("median", format!("{:.3} ms", self.median_ms)),
            ("99th percentile", format!("{:.3} ms of {} runs", self.p99_ms, self.runs)),
            ("throughput", format!("{:.1} GFLOP/s ({} MACs)", self.gflops, inspect::scaled(self.macs))),
        ];
        if let Some(bytes) = self.peak_resident_bytes {
            facts.push(("peak memory", inspect::bytes(bytes)));
        }
        if let Some(d) = self.reldiff {
            facts.push(("difference", format!("{d:.1e} of the output's range")));
        }
        facts
    }
}

fn worker(bound: &mut nncc::Bound<'_>, load: Duration, first: Duration, reldiff: Option<f64>) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let mut say = |value: serde_json::Value| {
        writeln!(out, "{value}").and_then(|()| out.flush()).map_err(|e| Error::io("standard output", e))
    };
    say(serde_json::json!({"load_ms": ms(load), "first_ms": ms(first), "reldiff": reldiff}))?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| Error::io("standard input", e))?;
        let seconds: f64 =
            line.trim().parse().map_err(|_| Error::Usage(format!("`{line}` is not a number of seconds")))?;
        bound.run()?;
        let (wall, cpu) = window(bound, Duration::from_secs_f64(seconds.clamp(0.0, 3600.0)))?;
        say(serde_json::json!({"wall": wall, "cpu": cpu}))?;
    }
    Ok(())
}

/// Runs until the time is over, three times at least: milliseconds of each run, by the clock and of the processor.
fn window(bound: &mut nncc::Bound<'_>, time: Duration) -> Result<(Vec<f64>, Vec<f64>), Error> {
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while wall.len() < 3 || (start.elapsed() < time && wall.len() < 1_000_000) {
        let (c, t) = (cpu_time(), Instant::now());
        bound.run()?;
        wall.push(ms(t.elapsed()));
        cpu.push(ms(cpu_time().saturating_sub(c)));
    }
    Ok((wall, cpu))
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

/// Processor time of this process.
fn cpu_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// The high-water mark of resident memory, where the system tells it.
fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The largest difference from the expected array, as a share of its range.
fn relative_difference(got: &Tensor, path: &Path) -> Result<f64, Error> {
    let want = arrays::read_npy(path)?;
    let (g, w) = (got.to_f64(), want.to_f64());
    if g.len() != w.len() {
        return Err(Error::Input(format!("{}: {} numbers, the output has {}", path.display(), w.len(), g.len())));
    }
    let max = w.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let min = w.iter().copied().fold(f64::INFINITY, f64::min);
    let worst = g.iter().zip(&w).map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() }).fold(0.0, f64::max);
    Ok(if worst == 0.0 { 0.0 } else { worst / (max - min) })
}

/// Seeded normal numbers for float inputs, zeros for all others.
fn made_up(model: &Model) -> Vec<Tensor> {
    let make = |(i, (_, ty)): (usize, (String, nncc_ir::TensorType))| {
        let dims = ty.dims().unwrap_or_default();
        if ty.dtype.is_float() {
            super::verify::normal(ty.dtype, &dims, i as u64 + 1)
        } else {
            Tensor::zeros(ty.dtype, &dims)
        }
    };
    model.input_types().into_iter().enumerate().map(make).collect()
}

/// A library in a temporary file, removed when dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Left behind at worst: the system's folder for temporary files.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The shapes of the given arrays, for inputs whose dimensions the model leaves open: as `nncc run` compiles for them.
fn shapes_of_arrays(a: &args::Bench) -> Result<Vec<(String, Vec<usize>)>, Error> {
    let importing = &a.shared.importing;
    if !importing.dims.is_empty() || !importing.batches.is_empty() || !importing.shapes.is_empty() {
        return Ok(Vec::new());
    }
    let open = |i: &&nncc_frontend::ValueDescription| {
        i.shape.as_ref().is_none_or(|shape| shape.iter().any(|d| d.size().is_none()))
    };
    let description = Compiler::describe(&a.model)?;
    let given = |name: &str| a.inputs.inputs.iter().find(|(n, path)| n == name && inputs::is_array(path));
    let inputs = description.inputs.iter().filter(open).filter_map(|i| given(&i.name));
    inputs.map(|(name, path)| Ok((name.clone(), arrays::read_npy(path)?.dims().to_vec()))).collect()
}

/// The memory plan, which the compiler knows and a library does not tell.
fn plan(a: &args::Bench) -> Result<Option<Plan>, Error> {
    if a.model.extension().is_none_or(|e| e != "onnx") {
        return Ok(None);
    }
    let mut compiler = compile::compiler(&a.shared)?;
    for (name, extents) in shapes_of_arrays(a)? {
        compiler = compiler.input_shape(&name, &extents);
    }
    compiler.memory_plan(&a.model).map(Some)
}

fn compile_in_child(a: &args::Bench) -> Result<Temporary, Error> {
    let out = Temporary(std::env::temp_dir().join(format!("nncc-bench-{}.so", std::process::id())));
    let exe = std::env::current_exe().map_err(|e| Error::io("nncc", e))?;
    let mut child = std::process::Command::new(exe);
    child.arg(&a.model).args(["--emit", "so", "-o"]).arg(&out.0).arg(format!("-O{}", a.shared.opt_level));
    for (name, values) in &a.shared.importing.dims {
        let values: Vec<String> = values.iter().map(i64::to_string).collect();
        child.arg("--dim").arg(format!("{name}={}", values.join(",")));
    }
    if !a.shared.importing.batches.is_empty() {
        let sizes: Vec<String> = a.shared.importing.batches.iter().map(u32::to_string).collect();
        child.arg("--batch").arg(sizes.join(","));
    }
    for (name, extents) in &a.shared.importing.shapes {
        let extents: Vec<String> = extents.iter().map(usize::to_string).collect();
        child.arg("--shape").arg(format!("{name}={}", extents.join("x")));
    }
    for (name, path) in &a.shared.importing.fixed {
        child.arg("--fix").arg(format!("{name}={}", path.display()));
    }
    if let Some(cpu) = &a.shared.target_cpu {
        child.arg("--target-cpu").arg(cpu);
    }
    child.arg("--winograd").arg(match a.shared.winograd {
        args::Winograd::Auto => "auto",
        args::Winograd::Off => "off",
        args::Winograd::Aggressive => "aggressive",
    });
    child.arg("--bands").arg(match a.shared.bands {
        args::Bands::Auto => "auto",
        args::Bands::Off => "off",
        args::Bands::On => "on",
    });
    if a.shared.size {
        child.arg("--size");
    }
    for switch in &a.shared.disable {
        child.args(["--disable", switch.name()]);
    }
    for (name, extents) in shapes_of_arrays(a)? {
        let extents: Vec<String> = extents.iter().map(usize::to_string).collect();
        child.arg("--shape").arg(format!("{name}={}", extents.join("x")));
    }
    let status = child.status().map_err(|e| Error::io("nncc", e))?;
    if status.success() {
        Ok(out)
    } else {
        Err(Error::Usage("the model could not be compiled; its errors are above".into()))
    }
}
