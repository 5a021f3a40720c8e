//! `nncc bench --html FILE`: a profile as one page that needs nothing else: no script, no font, no network.
//!
//! | file | draws |
//! |---|---|
//! | `plot` | the roofline plot: FLOPs a second over FLOPs a byte, a disc a node |
//! | `layers` | time by node in order, and the table |
//! | `memory` | the memory plan: time across, addresses up |
//!
//! Pointing at a mark shows what it is (`<title>`), a click leads to its row of the table. Frame and style are those of all
//! pages of nncc ([`nncc_train::page`]).

mod layers;
mod memory;
mod plot;

use super::profile;
use nncc::Plan;
use nncc::roofline::{Node, Roofline};
use nncc_train::page::{WIDTH, escape, nice_step};

const STYLE: &str = "
.disc { fill-opacity: 0.55; stroke-width: 1; }
.roof { fill: none; stroke-width: 2; }
.bar:hover, .disc:hover, .block:hover { fill-opacity: 1; stroke: var(--ink); }
.block { fill-opacity: 0.65; stroke: var(--ground); stroke-width: 0.5; }
td.name { max-width: 330px; overflow: hidden; text-overflow: ellipsis; }
td.op { max-width: 150px; overflow: hidden; text-overflow: ellipsis; }
tr:target td { background: var(--card); }
tfoot td { font-weight: 600; }
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
    let (roofline, columns, table) = (plot::draw(r), layers::columns(r), layers::table(r));
    let memory = plan.map_or_else(memory::unknown, memory::draw);
    let body = [roofline, columns, memory, table].join("\n");
    nncc_train::page::page(model, &profile::machine(&r.limits), facts, STYLE, &body)
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
}
