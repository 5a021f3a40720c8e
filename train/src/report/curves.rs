//! Numbers over epochs as lines, with a scale on the left and a key on the right.

use crate::page::{WIDTH, escape, nice_step};
use std::fmt::Write;

const HEIGHT: f64 = 300.0;
/// Left, right, top, bottom: room for the scales and, on the right, the key.
const MARGIN: [f64; 4] = [72.0, 240.0, 12.0, 40.0];
/// Colours of lines, in turn.
const COLOURS: [&str; 8] = ["#4c78d8", "#e2703f", "#3fa36b", "#a45fd0", "#d9a520", "#c6466b", "#3aa5b9", "#8a9099"];
/// The key has room for no more; the lines are drawn all the same.
const MOST_KEYS: usize = 12;

/// A line: a value an epoch, where it has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// In the key.
    pub name: String,
    /// By epoch.
    pub values: Vec<Option<f64>>,
}

/// How values become heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0, or from the least value where that is below.
    Linear,
    /// Values that are not positive have no place.
    Logarithmic,
}

/// A section; empty if there is nothing to draw.
pub fn draw(title: &str, text: &str, series: &[Series], scale: Scale) -> String {
    let height_of = |x: f64| match scale {
        Scale::Linear => x,
        Scale::Logarithmic => x.log10(),
    };
    let usable = |x: &Option<f64>| x.map(height_of).filter(|h| h.is_finite());
    let heights = || series.iter().flat_map(|s| s.values.iter().filter_map(usable));
    if heights().next().is_none() {
        return String::new();
    }
    let (least, most) = heights().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), h| (a.min(h), b.max(h)));
    let (from, to) = match scale {
        Scale::Linear => (least.min(0.0), most.max(1e-9) * 1.04),
        Scale::Logarithmic => (least - 0.1, most + 0.1),
    };
    let [left, right, top, bottom] = [MARGIN[0], WIDTH - MARGIN[1], MARGIN[2], HEIGHT - MARGIN[3]];
    let y = |h: f64| bottom - (h - from) / (to - from) * (bottom - top);
    let epochs = series.iter().map(|s| s.values.len()).max().unwrap_or(1);
    let x = |epoch: usize| left + (right - left) * (epoch as f64 + 0.5) / epochs as f64;

    let mut svg = String::new();
    let step = nice_step(to - from, 4.0).max(if scale == Scale::Logarithmic { 1.0 } else { 0.0 });
    let mut tick = (from / step).ceil() * step;
    while tick <= to {
        let at = y(tick);
        let label = match scale {
            Scale::Linear if tick.abs() >= 1e6 => format!("{tick:e}"),
            Scale::Linear => format!("{}", (tick * 1e9).round() / 1e9),
            Scale::Logarithmic => format!("{:e}", 10f64.powf(tick.round())),
        };
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{left}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>");
        let _ = writeln!(svg, "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>", left - 8.0, at + 4.5);
        tick += step;
    }
    let every = nice_step(epochs as f64, 12.0).max(1.0) as usize;
    for epoch in (0..epochs).step_by(every) {
        let _ = writeln!(
            svg,
            "<text class=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x(epoch),
            bottom + 18.0,
            epoch + 1
        );
    }
    let _ = writeln!(svg, "<path class=\"axis\" fill=\"none\" d=\"M{left} {top}V{bottom}H{right}\"/>");
    let drawn = series.iter().filter(|s| s.values.iter().any(|v| usable(v).is_some()));
    for (i, s) in drawn.enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let (mut path, mut dots, mut broken) = (String::new(), String::new(), true);
        for (epoch, value) in s.values.iter().enumerate() {
            let (Some(h), Some(value)) = (usable(value), value) else {
                broken = true;
                continue;
            };
            let (px, py) = (x(epoch), y(h));
            let _ = write!(path, "{}{px:.1} {py:.1}", if broken { 'M' } else { 'L' });
            let title = escape(&format!("{}\nepoch {}: {value:.4e}", s.name, epoch + 1));
            let _ = writeln!(
                dots,
                "<circle class=\"dot\" fill=\"{colour}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\"><title>{title}</title></circle>"
            );
            broken = false;
        }
        let _ = writeln!(svg, "<path class=\"series\" stroke=\"{colour}\" d=\"{path}\"/>\n{dots}");
        if i < MOST_KEYS {
            let row = top + 14.0 + 20.0 * i as f64;
            let (mark, name) = (right + 18.0, escape(&s.name));
            let _ = writeln!(svg, "<rect fill=\"{colour}\" x=\"{mark:.1}\" y=\"{row:.1}\" width=\"12\" height=\"4\"/>");
            let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{name}</text>", mark + 20.0, row + 6.0);
        }
    }
    let (title, text) = (escape(title), escape(text));
    format!("<h2>{title}</h2>\n<p>{text}</p>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n{svg}</svg>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        Series { name: "s".into(), values: values.iter().map(|&v| Some(v)).collect() }
    }

    #[test]
    fn lines_break_where_there_is_no_number() {
        let svg = draw("t", "", &[series(&[1.0, f64::NAN, 2.0, 3.0])], Scale::Linear);
        let path = svg.split("class=\"series\"").nth(1).unwrap().split("d=\"").nth(1).unwrap();
        let path = path.split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        // The largest of three is at the top but for the margin, and nothing is outside.
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    /// One value, all values equal, zeros, negative and huge ones: no division by zero, no endless scale.
    #[test]
    fn awkward_ranges_are_drawn() {
        for values in [&[0.0][..], &[0.0, 0.0], &[-3.0, -3.0], &[1e-300, 1e-300], &[1e300, 1.0], &[5.0; 1000]] {
            for scale in [Scale::Linear, Scale::Logarithmic] {
                let svg = draw("t", "", &[series(values)], scale);
                assert!(!svg.contains("NaN") && !svg.contains(">inf"), "{values:?} {svg}");
                assert!(svg.matches("class=\"grid\"").count() < 400, "{values:?}");
            }
        }
        assert_eq!(draw("t", "", &[series(&[])], Scale::Linear), "");
    }
}
