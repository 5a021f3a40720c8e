//! What a run of the suite tells: a table by operator, totals by kind, and the reason of each failure in a file.

use super::cases::Case;
use super::worker::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Writes one line a failed case, grouped by what begins its reason, the largest group first.
pub fn write(path: &Path, cases: &[&Case], outcomes: &[Outcome]) {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (case, outcome) in cases.iter().zip(outcomes) {
        if let Err(reason) = &outcome.result {
            let group = reason.split(&['"', '`', '%'][..]).next().unwrap_or_default().chars().take(60).collect();
            groups.entry(group).or_default().push(format!("{}\t{}\t{reason}", case.name, case.ops.join(" ")));
        }
    }
    let mut groups: Vec<(String, Vec<String>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, lines)| std::cmp::Reverse(lines.len()));
    let mut text = String::new();
    for (group, lines) in groups {
        let _ = writeln!(text, "# {} x {group}", lines.len()); // writing to a string cannot fail
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
    }
    if let Err(e) = std::fs::write(path, text) {
        eprintln!("{}: {e}", path.display());
    }
}

/// Prints passed/total by operator (of the cases that are not expanded) and by kind.
pub fn print_table(cases: &[&Case], outcomes: &[Outcome]) {
    let mut by_op: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut by_kind: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (case, outcome) in cases.iter().zip(outcomes) {
        let passed = usize::from(outcome.result.is_ok());
        let kind = if case.expanded { "node, expanded" } else { case.name.split('/').next().unwrap_or_default() };
        let count = |row: &mut (usize, usize)| {
            row.0 += passed;
            row.1 += 1;
        };
        count(by_kind.entry(kind).or_default());
        if !case.expanded && kind == "node" {
            for op in &case.ops {
                count(by_op.entry(op).or_default());
            }
        }
    }
    println!("\nnode cases by operator (passed/all):");
    let cells: Vec<String> = by_op.iter().map(|(op, (passed, all))| format!("{op} {passed}/{all}")).collect();
    let width = cells.iter().map(String::len).max().unwrap_or(0) + 2;
    for row in cells.chunks((120 / width).max(1)) {
        println!("  {}", row.iter().map(|cell| format!("{cell:width$}")).collect::<String>().trim_end());
    }
    println!("\nby kind (passed/all; the reason of each failure is in target/conformance.txt):");
    for (kind, (passed, all)) in by_kind {
        println!("  {kind:20} {passed:5} / {all}");
    }
}
