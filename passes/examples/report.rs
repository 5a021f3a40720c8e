//! What the passes make of models: `cargo run -p nncc-passes --example report -- MODEL.onnx...`
//!
//! One line a model: time, nodes before and after, how many of them are fused, elementwise operators that stayed alone,
//! relayouts and the bytes they move, the arena and how far it is above the lower bound. `--graph`, `--plan`, `--explain`
//! and `--time` print more.

use nncc_frontend::ImportOptions;
use nncc_ir::{Op, ValueId};
use nncc_passes::{Options, PassCx, optimize, plan_memory};
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (flags, files): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let has = |flag: &str| flags.iter().any(|f| f == flag);
    for file in files {
        let imported = nncc_frontend::import(Path::new(&file), &ImportOptions::default())?;
        let (mut g, mut cx) = (imported.graph, PassCx::new(Options::default()));
        let before = g.node_count();
        let start = Instant::now();
        optimize(&mut g, &mut cx)?;
        let plan = plan_memory(&g, &mut cx)?;
        let time = start.elapsed();
        let count = |f: &dyn Fn(&Op) -> bool| g.node_ids().filter(|n| f(g.op(*n))).count();
        let constants = count(&|op| matches!(op, Op::Constant(_)));
        let rooted = count(&|op| matches!(op, Op::Fused(f) if f.root.is_some()));
        let maps = count(&|op| matches!(op, Op::Fused(f) if f.root.is_none()));
        let alone = g.node_ids().filter(|n| {
            let operands = g.operands(*n);
            let types: Vec<_> = operands.iter().flatten().map(|v| g.ty(*v)).collect();
            !matches!(g.op(*n), Op::Fused(_)) && g.op(*n).pointwise(&types).is_some()
        });
        let relayouts: Vec<ValueId> = g
            .node_ids()
            .filter(|n| matches!(g.op(*n), Op::Relayout(_)) && !plan.elided.contains(n))
            .map(|n| ValueId { node: n, out: 0 })
            .collect();
        let moved: usize = relayouts.iter().filter_map(|v| g.ty(*v).elems()).sum();
        println!(
            "{}: {:.0?}, nodes {before} -> {}, rooted {rooted}, maps {maps}, alone {}, relayouts {} ({} kB), arena {} kB, {:.3} of the bound",
            g.name,
            time,
            g.node_count() - constants,
            alone.count(),
            relayouts.len(),
            moved * 4 / 1000,
            plan.arena_bytes / 1000,
            plan.ratio()
        );
        if has("--graph") {
            println!("{g}");
        }
        if has("--plan") {
            println!("{}", plan.to_text(&g));
        }
        if has("--explain") {
            cx.refusals.iter().for_each(|r| println!("  {r}"));
        }
        if has("--time") {
            cx.reports.iter().for_each(|r| println!("  {:<24} {:>8.1?}  {} changes", r.pass, r.time, r.changes));
        }
    }
    Ok(())
}
