//! The roofline plot: how fast each node computes over how much it computes a byte, both logarithmic, under the machine's
//! limits: a slope for each place that data come from, and the flat roof of the peak.
//!
//! A disc's area is its node's time, its colour the limit. Nodes without multiply-adds have no place in it.

use super::{WIDTH, class, escape, tooltip};
use nncc::roofline::{Memory, Node, Roofline};
use std::fmt::Write;

const HEIGHT: f64 = 520.0;
/// Left, right, top, bottom: room for the scales and, on the right, the key.
const MARGIN: [f64; 4] = [64.0, 220.0, 14.0, 46.0];
/// Area of the disc of a node that takes all the time, and the smallest radius that can be pointed at.
const AREA: f64 = 5000.0;
const LEAST_RADIUS: f64 = 3.0;

/// A logarithmic scale from values to places.
struct Scale {
    from: f64,
    to: f64,
    place: [f64; 2],
}

impl Scale {
    fn at(&self, x: f64) -> f64 {
        let t = (x.max(f64::MIN_POSITIVE) / self.from).ln() / (self.to / self.from).ln();
        self.place[0] + t * (self.place[1] - self.place[0])
    }
}

/// FLOPs a byte and FLOPs a nanosecond, of a node that has both.
fn point(n: &Node) -> Option<(f64, f64)> {
    let rate = n.gflops.filter(|&r| r > 0.0 && n.bytes > 0)?;
    Some((2.0 * n.macs as f64 / n.bytes as f64, rate))
}

/// The section.
pub fn draw(r: &Roofline) -> String {
    let mut nodes: Vec<(usize, &Node, (f64, f64))> =
        r.nodes.iter().enumerate().filter_map(|(i, n)| Some((i, n, point(n)?))).collect();
    // Large discs first, so that small ones lie on them and can be pointed at.
    nodes.sort_by(|a, b| b.1.us.total_cmp(&a.1.us));
    let peak = r.limits.peak_gflops.max(1e-3);
    let bandwidth = |m: Option<&Memory>| m.map_or(1.0, |m| m.gb_per_s).max(1e-3);
    let (fastest, slowest) = (bandwidth(r.limits.memory.first()), bandwidth(r.limits.memory.last()));
    let ends = |pick: fn(&(f64, f64)) -> f64, least: f64, most: f64| {
        let values = nodes.iter().map(|(_, _, p)| pick(p));
        values.fold((least, most), |(lo, hi), v| (lo.min(v), hi.max(v)))
    };
    // The bends under all places are in the picture: beyond the last, computing is the limit wherever data lie.
    let (x_lo, x_hi) = ends(|p| p.0, peak / fastest / 2.0, peak / slowest * 2.0);
    let (y_lo, y_hi) = ends(|p| p.1, peak / 20.0, peak);
    let x = Scale {
        from: 2f64.powf((x_lo * 0.8).log2().floor()),
        to: 2f64.powf((x_hi * 1.2).log2().ceil()),
        place: [MARGIN[0], WIDTH - MARGIN[1]],
    };
    let y = Scale { from: y_lo * 0.7, to: y_hi * 1.5, place: [HEIGHT - MARGIN[3], MARGIN[2]] };

    let mut svg = String::new();
    grid(&mut svg, &x, &y);
    roofs(&mut svg, r, peak, &x, &y);
    for &(i, n, (intensity, rate)) in &nodes {
        let radius = (AREA * n.share / std::f64::consts::PI).sqrt().max(LEAST_RADIUS);
        let (cx, cy, class) = (x.at(intensity), y.at(rate), class(n.limit.as_deref()));
        let _ = writeln!(
            svg,
            "<a href=\"#n{i}\"><circle class=\"disc {class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"{radius:.1}\">{}</circle></a>",
            tooltip(n)
        );
    }
    let without = r.nodes.len() - nodes.len();
    let rest = if without == 0 {
        String::new()
    } else {
        format!(" {without} of {} nodes have no multiply-adds, and stand in the table alone.", r.nodes.len())
    };
    format!(
        "<h2>Roofline</h2>\n<p>A disc is a fused node, its area the time, its colour the limit that holds it. FLOPs are those of \
         the direct algorithm: a Winograd layer needs fewer, and may lie above the roof.{rest}</p>\n\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n{svg}</svg>"
    )
}

fn grid(svg: &mut String, x: &Scale, y: &Scale) {
    let [left, right] = x.place;
    let [bottom, top] = y.place;
    let doublings = (x.to / x.from).log2().round() as i32;
    let every = if doublings > 12 { 2 } else { 1 };
    for k in (0..=doublings).step_by(every) {
        let value = x.from * 2f64.powi(k);
        let at = x.at(value);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>");
        let _ =
            writeln!(svg, "<text class=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>", bottom + 18.0, ratio(value));
    }
    let decades = (y.from.log10().floor() as i32)..=(y.to.log10().ceil() as i32);
    let values = decades.flat_map(|d| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(d)));
    // Over many decades 2 and 5 would stand too close.
    let wide = y.to / y.from > 2000.0;
    for value in values.filter(|v| (y.from..=y.to).contains(v)) {
        let is_power = (value.log10() - value.log10().round()).abs() < 1e-9;
        if wide && !is_power {
            continue;
        }
        let at = y.at(value);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>");
        let label = if value >= 1.0 { format!("{value:.0}") } else { format!("{}", (value * 1e4).round() / 1e4) };
        let _ = writeln!(svg, "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>", left - 8.0, at + 4.5);
    }
    let _ = writeln!(svg, "<path class=\"axis\" fill=\"none\" d=\"M{left} {top}V{bottom}H{right}\"/>");
    let middle = (left + right) / 2.0;
    let _ = writeln!(svg, "<text class=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">FLOP / byte</text>", HEIGHT - 6.0);
    let middle = (top + bottom) / 2.0;
    let _ = writeln!(svg, "<text class=\"middle\" transform=\"translate(14 {middle:.1}) rotate(-90)\">GFLOP/s</text>");
}

/// `1/4`, `8`: a power of two.
fn ratio(x: f64) -> String {
    if x >= 1.0 { format!("{x:.0}") } else { format!("1/{:.0}", 1.0 / x) }
}

/// The limits, and their key on the right.
fn roofs(svg: &mut String, r: &Roofline, peak: f64, x: &Scale, y: &Scale) {
    let mut key = vec![("compute", format!("compute {peak:.1} GFLOP/s"))];
    for m in r.limits.memory.iter().filter(|m| m.gb_per_s > 0.0) {
        let class = class(Some(&m.name));
        key.push((class, format!("{} {:.1} GB/s", m.name, m.gb_per_s)));
        let (from, to) = (x.from.max(y.from / m.gb_per_s), x.to.min(peak / m.gb_per_s));
        if from < to {
            let [x1, x2] = [from, to].map(|v| x.at(v));
            let [y1, y2] = [from, to].map(|v| y.at(v * m.gb_per_s));
            let _ = writeln!(svg, "<path class=\"roof {class}\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>");
        }
    }
    let (at, [left, right]) = (y.at(peak), x.place);
    let _ = writeln!(svg, "<path class=\"roof compute\" d=\"M{left} {at:.1}H{right}\"/>");
    for (i, (class, text)) in key.into_iter().enumerate() {
        let row = MARGIN[2] + 14.0 + 22.0 * i as f64;
        let _ = writeln!(svg, "<path class=\"roof {class}\" d=\"M{:.1} {row}h18\"/>", right + 18.0);
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", right + 42.0, row + 4.5, escape(&text));
    }
}
