//! The nodes of a run: a bar for the time of each, in order, and the table of all figures.

use super::{WIDTH, class, escape, nice_step, tooltip};
use crate::cli::inspect::bytes;
use crate::cli::profile::{percent, rate};
use nncc::roofline::{Node, Roofline};
use std::fmt::Write;

const HEIGHT: f64 = 230.0;
/// Left, right, top, bottom.
const MARGIN: [f64; 4] = [64.0, 10.0, 10.0, 26.0];

/// The section of bars.
pub fn columns(r: &Roofline) -> String {
    let longest = r.nodes.iter().map(|n| n.us).fold(0.0, f64::max).max(1e-3);
    let (left, right, top, bottom) = (MARGIN[0], WIDTH - MARGIN[1], MARGIN[2], HEIGHT - MARGIN[3]);
    let height = |us: f64| us / longest * (bottom - top);
    let mut svg = String::new();
    let (unit, scale) = if longest >= 1000.0 { ("ms", 1e-3) } else { ("us", 1.0) };
    let step = nice_step(longest * scale, 3.0);
    let ticks = (longest * scale / step).floor() as usize;
    for value in (0..=ticks).map(|k| k as f64 * step) {
        let at = bottom - height(value / scale);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>");
        let label = (value * 1e6).round() / 1e6;
        let _ =
            writeln!(svg, "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label} {unit}</text>", left - 8.0, at + 4.5);
    }
    let slot = (right - left) / r.nodes.len().max(1) as f64;
    let width = (slot * 0.86).min(60.0);
    for (i, n) in r.nodes.iter().enumerate() {
        // At least a hair, so that a node without time can be pointed at.
        let h = height(n.us).max(1.0);
        let (x, y, class) = (left + slot * i as f64 + (slot - width) / 2.0, bottom - h, class(n.limit.as_deref()));
        let _ = writeln!(
            svg,
            "<a href=\"#n{i}\"><rect class=\"bar {class}\" x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{h:.2}\">\
             {}</rect></a>",
            tooltip(n)
        );
    }
    let every = nice_step(r.nodes.len() as f64, 12.0).max(1.0) as usize;
    for i in (0..r.nodes.len()).step_by(every) {
        let x = left + slot * (i as f64 + 0.5);
        let _ = writeln!(svg, "<text class=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", bottom + 18.0, i + 1);
    }
    format!(
        "<h2>Time by layer</h2>\n<p>In the order of execution, the median of {} runs; numbers are those of the table. {}</p>\n\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n{svg}</svg>",
        r.runs,
        key(r)
    )
}

/// The limits that occur, each with the time that it holds.
fn key(r: &Roofline) -> String {
    let total = r.total_us().max(1e-9);
    let places = r.limits.memory.iter().map(|m| m.name.as_str());
    let entry = |limit: &str| {
        let us: f64 = r.nodes.iter().filter(|n| n.limit.as_deref() == Some(limit)).map(|n| n.us).sum();
        let class = class(Some(limit));
        (us > 0.0)
            .then(|| format!("<span class=\"{class}\"><i></i></span>{} {} ", escape(limit), percent(Some(us / total))))
    };
    std::iter::once("compute").chain(places).filter_map(entry).collect()
}

/// The section of the table.
pub fn table(r: &Roofline) -> String {
    let heads = [
        ("#", ""),
        ("node", "text"),
        ("operator", "text"),
        ("us", ""),
        ("predicted", ""),
        ("share", ""),
        ("GFLOP/s", ""),
        ("of peak", ""),
        ("bytes", ""),
        ("weights", ""),
        ("GB/s", ""),
        ("limit", "text"),
        ("of limit", ""),
    ];
    let heads: String = heads.iter().map(|(text, class)| format!("<th class=\"{class}\">{text}</th>")).collect();
    let rows: String = r.nodes.iter().enumerate().map(|(i, n)| row(i, n)).collect();
    let sum = |get: fn(&Node) -> u64| bytes(r.nodes.iter().map(get).sum());
    let foot = format!(
        "<tr><td></td><td class=\"text\">total</td><td></td><td>{:.1}</td><td>{}</td><td>{}</td><td>{:.1}</td><td>{}</td><td>{}</td>\
         <td>{}</td><td></td><td></td><td></td></tr>",
        r.total_us(),
        rate(r.predicted_us()),
        percent(Some(1.0)),
        r.gflops(),
        percent(Some(r.gflops() / r.limits.peak_gflops)),
        sum(|n| n.bytes),
        sum(|n| n.weight_bytes),
    );
    format!(
        "<h2>Layers</h2>\n<p>Bytes are operands, weights and results, each once. The limit is what takes longest at the \
         machine's rates: computing, or moving the bytes from where they lie. Weights lie where the whole run's {} fit, the \
         rest where the node's own bytes do; “of limit” is how near the node comes. “predicted” is \
         what the compiler's cost model expects at these rates.</p>\n\
         <table><thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n<tfoot>{foot}</tfoot></table>",
        bytes(r.footprint)
    )
}

fn row(i: usize, n: &Node) -> String {
    let (name, op, limit) = (escape(&n.name), escape(&n.op), n.limit.as_deref().unwrap_or(""));
    let weights = if n.weight_bytes > 0 { bytes(n.weight_bytes) } else { String::new() };
    let class = class(n.limit.as_deref());
    let dot = if limit.is_empty() { String::new() } else { format!("<span class=\"{class}\"><i></i></span>") };
    format!(
        "<tr id=\"n{i}\"><td>{}</td><td class=\"text name\" title=\"{name}\">{name}</td><td class=\"text op\" title=\"{op}\">{op}\
         </td><td>{:.1}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{weights}</td><td>{}</td>\
         <td class=\"text\">{dot}{}</td><td>{}</td></tr>\n",
        i + 1,
        n.us,
        rate(n.predicted_us),
        percent(Some(n.share)),
        rate(n.gflops),
        percent(n.of_peak),
        bytes(n.bytes),
        rate(Some(n.gb_per_s).filter(|_| n.bytes > 0)),
        escape(limit),
        percent(n.of_limit),
    )
}
