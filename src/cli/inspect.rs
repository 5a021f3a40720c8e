//! `nncc inspect`: the table of a model's layers, for people or as JSON.

use super::{args, compile, print};
use nncc::Error;
use nncc::inspect::{Field, Report};

/// Runs the subcommand.
pub fn run(a: &args::Inspect) -> Result<(), Error> {
    let report = compile::importer(&a.importing)?.inspect(&a.model)?;
    if a.json {
        let json = serde_json::to_string_pretty(&report).expect("a report has only strings and numbers");
        print(&format!("{json}\n"))
    } else {
        print(&table(&report))
    }
}

/// The report as aligned columns.
fn table(r: &Report) -> String {
    let header =
        ["layer", "operator", "output", "parameters", "MACs", "field", "jump", "start", "activation"].map(String::from);
    let mut rows = vec![header.to_vec()];
    for l in &r.layers {
        rows.push(vec![
            shorten(&l.name, 40),
            l.op.clone(),
            l.outputs.iter().map(|o| o.text.as_str()).collect::<Vec<_>>().join(" "),
            if l.parameters > 0 { l.parameters.to_string() } else { String::new() },
            l.macs.map_or("?".into(), |m| if m > 0 { m.to_string() } else { String::new() }),
            axes(&l.field, |f| f.size),
            axes(&l.field, |f| f.jump),
            axes(&l.field, |f| f.start),
            l.activation_bytes.map_or("?".into(), |b| if b > 0 { bytes(b) } else { String::new() }),
        ]);
    }
    let right = [false, false, false, true, true, true, true, true, true];
    let mut out = String::new();
    for (what, values) in [("inputs", &r.inputs), ("outputs", &r.outputs)] {
        let values: Vec<String> = values.iter().map(|v| format!("{}: {}", v.name, v.text)).collect();
        out += &format!("{what}: {}\n", values.join(", "));
    }
    out += &align(&rows, &right);
    out += &format!(
        "\ntotal: {} parameters ({}), {} statistics of batch normalization, {} MACs, {} of activations\n",
        r.parameters,
        scaled(r.parameters),
        r.statistics,
        r.macs.map_or("unknown".into(), scaled),
        r.activation_bytes.map_or("unknown".into(), bytes),
    );
    if !r.symbols.is_empty() {
        out += &format!("symbolic dimensions: {} (fix them with --dim NAME=N)\n", r.symbols.join(", "));
    }
    out
}

/// One number if the axes agree, else one an axis.
fn axes(field: &[Field], get: impl Fn(&Field) -> f64) -> String {
    let mut numbers: Vec<String> = field.iter().map(|f| get(f).to_string()).collect();
    numbers.dedup();
    numbers.join("x")
}

/// `25.56 M`, `4.09 G`.
pub fn scaled(n: u64) -> String {
    let n = n as f64;
    match n {
        _ if n >= 1e9 => format!("{:.2} G", n / 1e9),
        _ if n >= 1e6 => format!("{:.2} M", n / 1e6),
        _ if n >= 1e3 => format!("{:.2} k", n / 1e3),
        _ => format!("{n}"),
    }
}

/// `1.5 MiB`.
pub fn bytes(n: u64) -> String {
    let x = n as f64;
    match x {
        _ if x >= 1024.0 * 1024.0 => format!("{:.1} MiB", x / 1024.0 / 1024.0),
        _ if x >= 1024.0 => format!("{:.1} KiB", x / 1024.0),
        _ => format!("{n} B"),
    }
}

fn shorten(text: &str, width: usize) -> String {
    let n = text.chars().count();
    if n <= width { text.to_string() } else { format!("…{}", text.chars().skip(n - width + 1).collect::<String>()) }
}

/// Columns padded to their widest cell.
pub fn align(rows: &[Vec<String>], right: &[bool]) -> String {
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..right.len()).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (c, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[c].saturating_sub(cell.chars().count()));
            line += &if right[c] { format!("{pad}{cell}  ") } else { format!("{cell}{pad}  ") };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_published() {
        assert_eq!(scaled(25_557_032), "25.56 M");
        assert_eq!(scaled(15_470_264_320), "15.47 G");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(shorten("/layer1/conv", 6), "…/conv".chars().take(6).collect::<String>());
    }

    #[test]
    fn columns_align() {
        let rows = [vec!["a".into(), "1".into()], vec!["bb".into(), "100".into()]];
        assert_eq!(align(&rows, &[false, true]), "a     1\nbb  100\n");
    }
}
