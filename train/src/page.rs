//! What the pages of nncc share: a frame, a style, and how text and scales become marks.
//!
//! A page is one file that needs nothing else: no script, no font, no network. Everything is SVG and CSS; light or dark as
//! the reader's system is. It is well-formed XML too, so that a strict parser can check it. Names come from files, which are
//! not trusted: all text goes through [`escape`].

/// Width of every drawing in user units; the page scales it to the window.
pub const WIDTH: f64 = 1240.0;

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #fff; --ink: #1c1e21; --faint: #6b7280; --line: #e3e5e8; --card: #f6f7f8; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16181b; --ink: #e6e8eb; --faint: #98a0aa; --line: #2d3136; --card: #1e2125; }
}
body { margin: 0 auto; padding: 28px 40px 60px; max-width: 1280px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }
h1 { margin: 0; font-size: 26px; overflow-wrap: anywhere; }
h2 { margin: 36px 0 2px; font-size: 19px; }
p { margin: 2px 0 10px; color: var(--faint); }
dl { display: flex; flex-wrap: wrap; gap: 10px; margin: 18px 0 0; }
dl div { padding: 8px 16px; border-radius: 8px; background: var(--card); }
dt { color: var(--faint); font-size: 12.5px; }
dd { margin: 0; font-size: 18px; font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--faint); font-size: 13px; }
svg text.end { text-anchor: end; }
svg text.middle { text-anchor: middle; }
.grid { stroke: var(--line); }
.axis { stroke: var(--faint); }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 8px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { position: sticky; top: 0; background: var(--ground); color: var(--faint); font-weight: 500; }
th.text, td.text { text-align: left; }
i { display: inline-block; width: 10px; height: 10px; margin-right: 6px; border-radius: 2px; background: currentColor; }
";

/// A page: title, a line below it, facts as cards, and the body. `style` comes after the common one.
pub fn page(title: &str, below: &str, facts: &[(&str, String)], style: &str, body: &str) -> String {
    let (title, below) = (escape(title), escape(below));
    let facts: String =
        facts.iter().map(|(k, v)| format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(k), escape(v))).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>{title} · nncc</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<style>{STYLE}{style}</style></head>\n\
         <body>\n<h1>{title}</h1>\n<p>{below}</p>\n<dl>{facts}</dl>\n{body}\n</body></html>\n"
    )
}

/// Text as it may stand in an element or an attribute. What XML has no characters for becomes U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() && !matches!(c, '\t' | '\n' | '\r') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The largest of 1, 2 or 5 times a power of ten that divides `range` into at least `least` parts.
pub fn nice_step(range: f64, least: f64) -> f64 {
    let rough = (range / least).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let digit = [5.0, 2.0, 1.0].into_iter().find(|d| d * power <= rough);
    digit.unwrap_or(1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_nice() {
        assert_eq!(nice_step(100.0, 4.0), 20.0);
        assert_eq!(nice_step(0.9, 4.0), 0.2);
        assert_eq!(nice_step(7.0, 5.0), 1.0);
    }
}
