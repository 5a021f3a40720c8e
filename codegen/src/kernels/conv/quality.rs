//! Tests of what the direct template becomes: the inner loops of the layers of real networks, as instructions.
//!
//! Of each kernel the loop with the most multiply-adds is judged; its counts stand in a snapshot. It touches no stack. On x86 it holds multiply-adds, loads,
//! and at most one twentieth of anything else; on AArch64 at least 85 % are multiply-adds and loads, and by `llvm-mca` it takes at
//! most 1/0.85 of the time that a Neoverse N1 needs for the multiply-adds alone. Code stays within the template's limit.
//! Layers: ResNet, VGG, SqueezeNet, a dense layer.

use super::direct::Direct;
use super::{Conv, Sink, Source, Weights};
use crate::backend::for_target;
use crate::kernels::epilogue::Epilogue;
use crate::kernels::window::Axis;
use crate::target::Target;
use std::io::Write;
use std::process::{Command, Stdio};

/// A square layer: input and output channels, size, kernel, stride.
fn layer(inputs: usize, outputs: usize, size: usize, kernel: usize, stride: usize) -> Conv {
    let axis = Axis::sliding(size, size.div_ceil(stride), kernel, stride, 1, kernel / 2);
    Conv {
        batch: 1,
        groups: 1,
        inputs,
        outputs,
        axes: [Axis::UNIT, axis.clone(), axis],
        source: Source::Blocked,
        weights: Weights::Panels,
        sink: Sink::Blocked,
        bias: true,
        epilogue: Epilogue::default(),
    }
}

/// The product `[rows, inner] . [inner, columns]` with packed columns.
fn product(rows: usize, inner: usize, columns: usize) -> Conv {
    let row = Axis::sliding(rows, rows, 1, 1, 1, 0);
    Conv {
        axes: [Axis::UNIT, Axis::UNIT, row],
        source: Source::Matrix { row: inner, column: 1, image: 0 },
        sink: Sink::Matrix,
        ..layer(inner, columns, 1, 1, 1)
    }
}

fn layers() -> Vec<Conv> {
    vec![
        layer(64, 64, 56, 3, 1),
        layer(128, 128, 28, 3, 1),
        layer(256, 256, 14, 3, 1),
        layer(512, 512, 7, 3, 1),
        layer(64, 256, 56, 1, 1),
        layer(256, 64, 56, 1, 1),
        layer(512, 128, 28, 1, 1),
        layer(256, 512, 56, 1, 2),
        layer(128, 128, 56, 3, 2),
        layer(64, 64, 224, 3, 1),
        layer(96, 16, 55, 1, 1),
        product(196, 768, 768),
    ]
}

/// The instructions of each innermost loop of an x86 listing.
fn x86_loops(listing: &str) -> Vec<Vec<&str>> {
    let lines: Vec<(u64, &str)> = listing
        .lines()
        .filter_map(|l| l.trim().split_once("  "))
        .filter_map(|(at, text)| Some((u64::from_str_radix(at, 16).ok()?, text)))
        .collect();
    let mut loops: Vec<Vec<&str>> = Vec::new();
    for (end, (at, text)) in lines.iter().enumerate().filter(|(_, (_, text))| text.starts_with('j')) {
        let target = text.rsplit(' ').next().and_then(|t| u64::from_str_radix(t.trim_end_matches('h'), 16).ok());
        let Some(target) = target.filter(|target| target < at) else { continue };
        let start = lines.partition_point(|(at, _)| *at < target);
        let body: Vec<&str> = lines[start..=end].iter().map(|(_, text)| *text).collect();
        if body[..body.len() - 1].iter().all(|text| !text.starts_with('j')) {
            loops.push(body);
        }
    }
    loops
}

#[test]
fn x86_inner_loops_are_multiply_adds_and_loads() {
    let mut table = String::new();
    for target in [Target::x86_64_v3(), Target::x86_64_v4()] {
        let backend = for_target(&target).expect("a backend");
        for conv in layers() {
            let direct = Direct::new(&target, &conv, false);
            let kernel = direct.kernel();
            let code = backend.compile(&kernel, &target).expect("a kernel that compiles");
            assert!(direct.is_small() && code.bytes.len() <= 24 * 1024, "{}: {} bytes", kernel.name, code.bytes.len());
            let listing = backend.listing(&kernel, &target).expect("a kernel that compiles");
            let fmas = |body: &[&str]| body.iter().filter(|i| i.starts_with("vfmadd")).count();
            let loops = x86_loops(&listing);
            let inner = loops.iter().max_by_key(|body| fmas(body)).expect("a loop");
            let is_load = |i: &&&str| i.starts_with("vmovups") || i.starts_with("vbroadcastss");
            let other = inner.len() - fmas(inner) - inner.iter().filter(is_load).count();
            let text = inner.join("\n");
            assert!(fmas(inner) >= 12, "{}: no loop of multiply-adds\n{listing}", kernel.name);
            assert!(other * 20 <= inner.len(), "{}: {other} of {} others\n{text}", kernel.name, inner.len());
            assert!(!text.contains("rsp"), "{}: spills\n{text}", kernel.name);
            let (all, fmas) = (inner.len(), fmas(inner));
            table += &format!("{:<40} {all:>3} instructions, {fmas:>3} multiply-adds, {other} others\n", kernel.name);
        }
    }
    // The ratchet: a loop that becomes longer, or shorter, is a change to be looked at and accepted (INSTA_UPDATE=always).
    insta::assert_snapshot!("x86_inner_loops", table);
}

/// The block of a Cranelift listing with the most multiply-adds that is a loop, as assembler reads it.
fn aarch64_loop(listing: &str) -> String {
    let blocks = listing.split("block").map(|block| block.lines().skip(1).map(str::trim).collect::<Vec<_>>());
    let loops = blocks.filter(|b| b.last().is_some_and(|l| l.starts_with("b.")));
    let inner = loops.max_by_key(|b| b.iter().filter(|l| l.starts_with("fmla")).count()).unwrap_or_default();
    let mut out = String::new();
    for line in inner {
        // Cranelift names the tied operand twice, and branches to labels.
        let line = match line.strip_prefix("fmla ").and_then(|l| l.split_once(", ")) {
            Some((sum, rest)) => format!("fmla {sum}, {}", rest.split_once(", ").map_or("", |(_, rest)| rest)),
            None if line.starts_with("b.") => continue,
            None => line.to_string(),
        };
        out += &line;
        out.push('\n');
    }
    out
}

/// Cycles of one iteration by `llvm-mca`; `None` where it is not installed. Only ratios of its answers mean something: some
/// versions describe an N1 by the tables of an older core with half as many multiply-adds a cycle.
fn cycles(body: &str) -> Option<f64> {
    let arguments = ["-mtriple=aarch64", "-mcpu=neoverse-n1", "-iterations=100"];
    let pipe = || Stdio::piped();
    let mut child =
        Command::new("llvm-mca").args(arguments).stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().ok()?;
    child.stdin.take()?.write_all(body.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let total = report.lines().find_map(|l| l.strip_prefix("Total Cycles:"));
    let total = total.unwrap_or_else(|| panic!("{body}\n{}", String::from_utf8_lossy(&output.stderr)));
    Some(total.trim().parse::<f64>().expect("a number") / 100.0)
}

#[test]
fn aarch64_inner_loops_run_at_the_rate_of_the_multiply_adds() {
    let target = Target::aarch64();
    let backend = for_target(&target).expect("a backend");
    for conv in layers() {
        let kernel = Direct::new(&target, &conv, false).kernel();
        let listing = backend.listing(&kernel, &target).expect("a kernel that compiles");
        let body = aarch64_loop(&listing);
        let fmlas = body.lines().filter(|l| l.starts_with("fmla")).count();
        let loads = body.lines().filter(|l| l.starts_with("ldr q") || l.starts_with("ld1")).count();
        let all = body.lines().count();
        assert!(fmlas >= 12, "{}: no loop of multiply-adds\n{listing}", kernel.name);
        assert!((fmlas + loads) * 100 >= all * 85, "{}: {fmlas} + {loads} of {all}\n{body}", kernel.name);
        assert!(!body.contains("sp"), "{}: spills\n{body}", kernel.name);
        let alone: String = body.lines().filter(|l| l.starts_with("fmla")).flat_map(|l| [l, "\n"]).collect();
        let (Some(all), Some(alone)) = (cycles(&body), cycles(&alone)) else {
            println!("skipped: llvm-mca is not installed");
            return;
        };
        let rate = alone / all;
        assert!(rate >= 0.85, "{}: {rate:.2} of the rate\n{body}", kernel.name);
    }
}
