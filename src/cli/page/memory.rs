//! The memory plan: a rectangle for each value of the arena, as wide as it lives and as high as it is large.

use super::{WIDTH, escape, nice_step};
use crate::cli::inspect::bytes;
use nncc::Plan;
use std::fmt::Write;

const HEIGHT: f64 = 400.0;
/// Left, right, top, bottom.
const MARGIN: [f64; 4] = [84.0, 10.0, 10.0, 44.0];

/// Colours that neighbours in time do not share.
const FILLS: [&str; 6] = ["#4c78d8", "#3fa36b", "#d9a520", "#e2703f", "#a45fd0", "#4fa7b8"];

/// The section, for a library, which does not say where its values lie.
pub fn unknown() -> String {
    "<h2>Memory plan</h2>\n<p>Known to the compiler alone: measure the .onnx file instead of the library to see it here.</p>"
        .into()
}

/// The section.
pub fn draw(plan: &Plan) -> String {
    let (left, right, top, bottom) = (MARGIN[0], WIDTH - MARGIN[1], MARGIN[2], HEIGHT - MARGIN[3]);
    let (steps, arena) = (plan.steps.len().max(1) as f64, plan.arena_bytes.max(1) as f64);
    let x = |step: f64| left + step / steps * (right - left);
    let y = |byte: f64| bottom - byte / arena * (bottom - top);
    let mut svg = String::new();
    for value in ticks(plan.arena_bytes) {
        let at = y(value as f64);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>");
        let label = bytes(value as u64);
        let _ = writeln!(svg, "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>", left - 8.0, at + 4.5);
    }
    let every = nice_step(steps, 12.0).max(1.0) as usize;
    for step in (0..plan.steps.len()).step_by(every) {
        let at = x(step as f64 + 0.5);
        let _ = writeln!(svg, "<text class=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>", bottom + 18.0, step + 1);
    }
    let middle = (left + right) / 2.0;
    let _ = writeln!(svg, "<text class=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">node</text>", HEIGHT - 6.0);
    for (i, b) in plan.blocks.iter().enumerate() {
        let (x1, x2) = (x(b.from as f64), x(b.to as f64 + 1.0));
        let (y1, y2) = (y((b.offset + b.bytes) as f64), y(b.offset as f64));
        let step = |i: usize| plan.steps.get(i).map_or("", String::as_str);
        let text = format!(
            "{} {}\n{} at {}\nmade by {}\nlast read by {}",
            b.name,
            b.ty,
            bytes(b.bytes as u64),
            b.offset,
            step(b.from),
            step(b.to)
        );
        let _ = writeln!(
            svg,
            "<rect class=\"block\" fill=\"{}\" x=\"{x1:.2}\" y=\"{y1:.2}\" width=\"{:.2}\" height=\"{:.2}\">\
             <title>{}</title></rect>",
            FILLS[i % FILLS.len()],
            x2 - x1,
            y2 - y1,
            escape(&text)
        );
    }
    let _ = writeln!(svg, "<path class=\"axis\" fill=\"none\" d=\"M{left} {top}V{bottom}H{right}\"/>");
    let ratio = if plan.bound_bytes == 0 { 1.0 } else { arena / plan.bound_bytes as f64 };
    format!(
        "<h2>Memory plan</h2>\n<p>Time across, addresses up: {} values in an arena of {}, {ratio:.2} times the least that this \
         order of nodes needs. Values inside others share their storage.</p>\n\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n{svg}</svg>",
        plan.blocks.len(),
        bytes(plan.arena_bytes as u64)
    )
}

/// Round addresses: at most eight, a power of two apart.
fn ticks(arena: usize) -> impl Iterator<Item = usize> {
    let step = (arena / 8 + 1).next_power_of_two();
    (0..=arena / step).map(move |k| k * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_round() {
        assert_eq!(ticks(5120).collect::<Vec<_>>(), [0, 1024, 2048, 3072, 4096, 5120]);
        assert_eq!(ticks(0).collect::<Vec<_>>(), [0]);
        assert!(ticks(123_456_789).count() <= 9);
    }
}
