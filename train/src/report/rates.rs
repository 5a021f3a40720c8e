//! Loss against learning rate, on a logarithmic scale: what a range test has seen.

use crate::page::{WIDTH, nice_step};
use crate::range_test::{RangePoint, steepest};
use std::fmt::Write;

const HEIGHT: f64 = 300.0;
/// Left, right, top, bottom.
const MARGIN: [f64; 4] = [72.0, 40.0, 12.0, 40.0];

/// A section; empty if there is nothing to draw.
pub fn draw(points: &[RangePoint]) -> String {
    let usable = |p: &&RangePoint| p.smooth.is_finite() && p.rate > 0.0 && p.rate.is_finite();
    let points: Vec<RangePoint> = points.iter().filter(usable).copied().collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let (from, to) = (first.rate.log10(), last.rate.log10().max(first.rate.log10() + 1e-9));
    let (least, most) = points.iter().fold((0f64, 1e-9f64), |(a, b), p| (a.min(p.smooth), b.max(p.smooth)));
    let [left, right, top, bottom] = [MARGIN[0], WIDTH - MARGIN[1], MARGIN[2], HEIGHT - MARGIN[3]];
    let x = |rate: f64| left + (right - left) * (rate.log10() - from) / (to - from);
    let y = |loss: f64| bottom - (bottom - top) * (loss - least) / (most - least);
    let mut svg = String::new();
    let step = nice_step(most - least, 4.0);
    let mut tick = (least / step).ceil() * step;
    while tick <= most {
        let (at, label) = (y(tick), (tick * 1e9).round() / 1e9);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>");
        let _ = writeln!(svg, "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>", left - 8.0, at + 4.5);
        tick += step;
    }
    for decade in from.ceil() as i32..=to.floor() as i32 {
        let at = x(10f64.powi(decade));
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>");
        let _ = writeln!(svg, "<text class=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">1e{decade}</text>", bottom + 18.0);
    }
    let mut path = String::new();
    for (i, p) in points.iter().enumerate() {
        let _ = write!(path, "{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, x(p.rate), y(p.smooth));
    }
    let _ = writeln!(svg, "<path class=\"series\" stroke=\"#4c78d8\" d=\"{path}\"/>");
    let text = match steepest(&points) {
        Some(rate) => {
            let at = x(rate);
            let _ = writeln!(svg, "<line class=\"axis\" x1=\"{at:.1}\" y1=\"{top}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>");
            format!(
                "The smoothed loss while the rate grows from update to update. It falls most steeply at {rate:.1e}, the line."
            )
        }
        None => "The smoothed loss while the rate grows from update to update. It does not fall.".to_string(),
    };
    format!(
        "<h2>Learning rates</h2>\n<p>{text}</p>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n{svg}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn awkward_points_are_drawn() {
        let point = |rate, smooth| RangePoint { rate, loss: smooth, smooth };
        assert_eq!(draw(&[]), "");
        assert_eq!(draw(&[point(1.0, f64::NAN)]), "");
        for points in [&[point(1e-3, 0.0)][..], &[point(1e-7, 2.0), point(1e-3, 1.0), point(10.0, 1e30)]] {
            let svg = draw(points);
            assert!(svg.contains("<path") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
