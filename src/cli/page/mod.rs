//! `nncc bench --html FILE`: a profile as one page that needs nothing else: no script, no font, no network.
//!
//! | file | draws |
//! |---|---|
//! | `plot` | the roofline plot: FLOPs a second over FLOPs a byte, a disc a node |
//! | `layers` | time by node in order, and the table |
//! | `memory` | the memory plan: time across, addresses up |
//!
//! Everything is SVG and CSS in the page; pointing at a mark shows what it is (`<title>`), a click leads to its row of the
//! table. Light or dark as the reader's system is. The page is well-formed XML too, so that a strict parser can check it.
//! Names come from model files, which are not trusted: all text goes through [`escape`].

mod layers;
mod memory;
mod plot;

use super::profile;
use nncc::Plan;
use nncc::roofline::{Node, Roofline};

/// Width of every drawing in user units; the page scales it to the window.
const WIDTH: f64 = 1240.0;

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
.disc { fill-opacity: 0.55; stroke-width: 1; }
.roof { fill: none; stroke-width: 2; }
.bar:hover, .disc:hover, .block:hover { fill-opacity: 1; stroke: var(--ink); }
.block { fill-opacity: 0.65; stroke: var(--ground); stroke-width: 0.5; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 8px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { position: sticky; top: 0; background: var(--ground); color: var(--faint); font-weight: 500; }
th.text, td.text { text-align: left; }
td.name { max-width: 330px; overflow: hidden; text-overflow: ellipsis; }
td.op { max-width: 150px; overflow: hidden; text-overflow: ellipsis; }
tr:target td { background: var(--card); }
tfoot td { font-weight: 600; }
i { display: inline-block; width: 10px; height: 10px; margin-right: 6px; border-radius: 2px; background: currentColor; }
.compute { fill: #4c78d8; stroke: #4c78d8; color: #4c78d8; }
.l1 { fill: #3fa36b; stroke: #3fa36b; color: #3fa36b; }
.l2 { fill: #d9a520; stroke: #d9a520; color: #d9a520; }
.l3 { fill: #e2703f; stroke: #e2703f; color: #e2703f; }
.memory { fill: #a45fd0; stroke: #a45fd0; color: #a45fd0; }
.none { fill: #8a9099; stroke: #8a9099; color: #8a9099; }
.bar { stroke: none; }
";

/// The page. `facts` are shown on top: what, and how much.
pub fn page(model: &str, facts: &[(&str, String)], r: &Roofline, plan: Option<&Plan>) -> String {
    let title = escape(model);
    let machine = escape(&profile::machine(&r.limits));
    let facts: String =
        facts.iter().map(|(k, v)| format!("<div><dt>{}</dt><dd>{}</dd></div>", escape(k), escape(v))).collect();
    let (roofline, columns, table) = (plot::draw(r), layers::columns(r), layers::table(r));
    let memory = plan.map_or_else(memory::unknown, memory::draw);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>{title} · nncc</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<style>{STYLE}</style></head>\n<body>\n\
         <h1>{title}</h1>\n<p>{machine}</p>\n<dl>{facts}</dl>\n{roofline}\n{columns}\n{memory}\n{table}\n</body></html>\n"
    )
}

/// Text as it may stand in an element or an attribute. What XML has no characters for becomes U+FFFD.
fn escape(text: &str) -> String {
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

/// The class that colours a mark by its limit.
fn class(limit: Option<&str>) -> &'static str {
    match limit {
        Some("compute") => "compute",
        Some("L1") => "l1",
        Some("L2") => "l2",
        Some("L3") => "l3",
        Some("memory") => "memory",
        _ => "none",
    }
}

/// What pointing at a node's mark shows.
fn tooltip(n: &Node) -> String {
    let mut text =
        format!("{}\n{}\n{}, {}", n.name, n.op, profile::microseconds(n.us), profile::percent(Some(n.share)));
    if let (Some(rate), Some(share)) = (n.gflops, n.of_peak) {
        text += &format!("\n{rate:.1} GFLOP/s, {:.1} % of the peak", 100.0 * share);
    }
    if let (Some(limit), Some(share)) = (&n.limit, n.of_limit) {
        text += &format!("\nlimit: {limit}, {:.1} % of it", 100.0 * share);
    }
    format!("<title>{}</title>", escape(&text))
}

/// The largest of 1, 2 or 5 times a power of ten that divides `range` into at least `least` parts.
fn nice_step(range: f64, least: f64) -> f64 {
    let rough = (range / least).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let digit = [5.0, 2.0, 1.0].into_iter().find(|d| d * power <= rough);
    digit.unwrap_or(1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::profile::tests::sample;
    use nncc::Block;

    fn plan() -> Plan {
        let block = |name: &str, offset, bytes, from, to| {
            let (name, ty) = (name.to_string(), "f32[1,10]".to_string());
            Block { name, ty, offset, bytes, from, to }
        };
        let blocks = vec![block("a", 0, 4096, 0, 1), block("<b>&", 4096, 1024, 1, 2)];
        Plan { arena_bytes: 5120, bound_bytes: 5120, steps: vec!["x".into(), "y".into(), "z".into()], blocks }
    }

    fn all(plan: Option<&Plan>) -> String {
        page("evil <name> & \u{1} \"co\"", &[("median", "1 < 2 ms".into())], &sample(), plan)
    }

    /// A parser that knows nothing of HTML's leniency reads it, and finds the names as they are.
    #[test]
    fn names_stay_text() {
        for plan in [None, Some(&plan())] {
            let page = all(plan);
            let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
            let xml = roxmltree::Document::parse_with_options(&page, options).unwrap();
            let elements = |tag: &'static str| xml.descendants().filter(move |n| n.has_tag_name(tag));
            assert_eq!(elements("script").count(), 0);
            assert_eq!(elements("h1").next().unwrap().text(), Some("evil <name> & \u{fffd} \"co\""));
            let rows = elements("td").filter(|n| n.attribute("class") == Some("text name"));
            let names: Vec<&str> = rows.map(|n| n.text().unwrap()).collect();
            let want: Vec<String> = sample().nodes.iter().map(|n| n.name.clone()).collect();
            assert_eq!(names, want);
            // Every node has its bar, and each that computes its disc.
            let marks = |class: &'static str| {
                let is = move |n: &roxmltree::Node<'_, '_>| {
                    n.attribute("class").is_some_and(|c| c.split(' ').any(|word| word == class))
                };
                xml.descendants().filter(is).count()
            };
            assert_eq!((marks("bar"), marks("disc")), (4, 2));
            assert_eq!(marks("block"), plan.map_or(0, |p| p.blocks.len()));
            // A link leads to what is there.
            for link in elements("a") {
                let to = link.attribute("href").unwrap().strip_prefix('#').unwrap();
                assert!(xml.descendants().any(|n| n.attribute("id") == Some(to)), "{to}");
            }
        }
    }

    #[test]
    fn the_page_asks_for_nothing_else() {
        let page = all(Some(&plan()));
        for word in ["://", "src=", "url(", "@import", "<link", "<script", "<img", "javascript"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    /// A network of one empty node, a machine without figures: nothing divides by zero into the page.
    #[test]
    fn nothing_to_draw_is_drawn() {
        let mut r = sample();
        for keep in [4, 1, 0] {
            r.nodes.truncate(keep);
            r.nodes.iter_mut().for_each(|n| (n.us, n.macs, n.gflops, n.bytes) = (0.0, 0, None, 0));
            let page = page("m", &[], &r, Some(&Plan::default()));
            assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
        }
    }

    #[test]
    fn steps_are_nice() {
        assert_eq!(nice_step(100.0, 4.0), 20.0);
        assert_eq!(nice_step(0.9, 4.0), 0.2);
        assert_eq!(nice_step(7.0, 5.0), 1.0);
    }
}
