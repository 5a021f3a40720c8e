//! `nncc run --profile` and `nncc bench --roofline`: the fused nodes of a run as a table.

use super::inspect::{align, bytes};
use nncc::roofline::{Limits, Node, Roofline};

/// Longer names are cut at the end: the first of the nodes that are fused is the one that says most.
const NAME_WIDTH: usize = 56;

/// What the columns mean, for those who read them for the first time.
const LEGEND: &str = "\
FLOPs are two a multiply-add of the direct algorithm: Winograd's needs fewer, so that such a layer may pass 100 %.
Bytes are operands, weights and results, each once. The limit is what takes longest at the rates above: computing, or
moving the bytes from where they lie; `of limit` is how near the node comes to it. `predicted` is what the compiler's
cost model expects at these rates.
";

/// The machine, a row a node, the sum, the legend.
pub fn table(r: &Roofline) -> String {
    let header =
        ["node", "operator", "time", "predicted", "share", "GFLOP/s", "of peak", "bytes", "GB/s", "limit", "of limit"];
    let mut rows = vec![header.map(String::from).to_vec()];
    rows.extend(r.nodes.iter().map(row));
    let total = [
        "total".into(),
        String::new(),
        microseconds(r.total_us()),
        r.predicted_us().map_or(String::new(), microseconds),
        percent(Some(1.0)),
        rate(Some(r.gflops())),
        percent(Some(r.gflops() / r.limits.peak_gflops)),
        bytes(r.nodes.iter().map(|n| n.bytes).sum()),
    ];
    rows.push(total.to_vec());
    let right = [false, false, true, true, true, true, true, true, true, false, true];
    format!("{}\n{}\n{LEGEND}", machine(&r.limits), align(&rows, &right))
}

fn row(n: &Node) -> Vec<String> {
    vec![
        shorten(&n.name),
        n.op.clone(),
        microseconds(n.us),
        n.predicted_us.map_or(String::new(), microseconds),
        percent(Some(n.share)),
        rate(n.gflops),
        percent(n.of_peak),
        bytes(n.bytes),
        rate(Some(n.gb_per_s).filter(|_| n.bytes > 0)),
        n.limit.clone().unwrap_or_default(),
        percent(n.of_limit),
    ]
}

fn shorten(name: &str) -> String {
    match name.char_indices().nth(NAME_WIDTH) {
        Some(_) => name.chars().take(NAME_WIDTH - 1).chain(['…']).collect(),
        None => name.into(),
    }
}

/// The machine's limits in a line.
pub fn machine(l: &Limits) -> String {
    let threads = if l.threads == 1 { "1 thread".into() } else { format!("{} threads", l.threads) };
    let reads: Vec<String> = l.memory.iter().map(|m| format!("{} {}", m.name, rate(Some(m.gb_per_s)))).collect();
    let (cpu, level, peak) = (&l.cpu, &l.level, l.peak_gflops);
    format!("{cpu}, {level}, {threads}: peak {peak:.1} GFLOP/s; reads {} GB/s", reads.join(", "))
}

/// `12.3 us`: always this unit, so that a column can be compared by eye.
pub fn microseconds(us: f64) -> String {
    format!("{us:.1} us")
}

/// `12.3 %`; nothing where there is no number.
pub fn percent(share: Option<f64>) -> String {
    share.map_or(String::new(), |x| format!("{:.1} %", 100.0 * x))
}

/// One decimal; nothing where there is no number.
pub fn rate(x: Option<f64>) -> String {
    x.map_or(String::new(), |x| format!("{x:.1}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nncc::roofline::Memory;

    /// A profile with a node of each kind, for this table and the page.
    pub(crate) fn sample() -> Roofline {
        let place = |name: &str, bytes, gb_per_s| Memory { name: name.into(), bytes, gb_per_s };
        let memory =
            vec![place("L1", Some(49_152), 320.0), place("L2", Some(1_310_720), 98.5), place("memory", None, 12.25)];
        let limits = Limits {
            cpu: "A CPU".into(),
            level: "x86-64-v4".into(),
            threads: 1,
            peak_gflops: 168.0,
            ghz: 2.625,
            memory,
        };
        let node = |name: &str, us: f64, macs: u64, bytes: u64, limit: Option<&str>| Node {
            name: name.into(),
            op: "conv+relu".into(),
            us,
            predicted_us: (macs > 0).then_some(1.25 * us),
            share: us / 40.0,
            macs,
            gflops: (macs > 0).then_some(2e-3 * macs as f64 / us),
            of_peak: (macs > 0).then_some(2e-3 * macs as f64 / us / 168.0),
            bytes,
            weight_bytes: bytes / 4,
            gb_per_s: 1e-3 * bytes as f64 / us,
            limit: limit.map(str::to_string),
            of_limit: limit.map(|_| 0.5),
        };
        let nodes = vec![
            node("conv1+relu1", 10.0, 420_000, 40_000, Some("compute")),
            node("pool<script>alert('1')</script>&\"", 25.0, 0, 200_000, Some("L2")),
            node("fc", 5.0, 10_000, 40_960, Some("memory")),
            node("reshape", 0.0, 0, 0, None),
        ];
        Roofline { limits, runs: 7, footprint: 100_000, nodes }
    }

    #[test]
    fn the_table_reads_like_this() {
        let text = table(&sample());
        let lines: Vec<&str> = text.lines().collect();
        let want = [
            "A CPU, x86-64-v4, 1 thread: peak 168.0 GFLOP/s; reads L1 320.0, L2 98.5, memory 12.2 GB/s",
            "node                               operator      time  predicted    share  GFLOP/s  of peak      bytes  GB/s  limit    of limit",
            "conv1+relu1                        conv+relu  10.0 us    12.5 us   25.0 %     84.0   50.0 %   39.1 KiB   4.0  compute    50.0 %",
            "pool<script>alert('1')</script>&\"  conv+relu  25.0 us              62.5 %                    195.3 KiB   8.0  L2         50.0 %",
        ];
        assert_eq!(lines[..4], want);
        assert!(
            lines[6].starts_with("total") && lines[6].contains("40.0 us    18.8 us  100.0 %     21.5   12.8 %"),
            "{text}"
        );
    }
}
