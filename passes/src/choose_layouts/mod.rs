//! Chooses a layout for every value and inserts the Relayouts between them: as few bytes relaid as possible.
//!
//! ```text
//! needs.rs     what each operator can read and write: blocked, row-major, or whatever its neighbours have
//! min_cut.rs   the choice for the free ones: a minimum cut
//! ```
//!
//! Convolutions and pools want blocked channels ([`Layout::Blocked`]); matrix products, and everything that looks at axes
//! as a list, want row-major; the model's inputs and outputs are row-major always. Elementwise operators, concatenations
//! of whole blocks and some others take what comes. Where a value is made in one layout and read in another, a Relayout
//! copies it, once for all readers. Choosing the free operators' layouts so that the copied bytes are fewest is a minimum
//! cut between "blocked" and "row-major", hence optimal and not a heuristic:
//!
//! ```text
//! source = blocked, sink = row-major; fixed operators are tied to their side with infinite capacity
//! value v of node p with readers r1, r2:    p -> a (bytes of v),  a -> r1, a -> r2 (infinite):  p blocked, a reader not
//!                                           r1 -> b, r2 -> b (infinite),  b -> p (bytes of v):  p not, a reader blocked
//! a free operator that is slower in one layout: an edge to that side with the cost
//! ```
//!
//! Constants are never laid out: they stay row-major and code generation packs them for their reader. Values of rank below
//! 3, of other types than f32, or of unknown shape are row-major. A Relayout of a map of one pixel costs nothing where its
//! bytes are the same either way (see `plan_memory::sharing`).

mod min_cut;
mod needs;

use crate::pass::{OptLevel, Part, Pass, PassCx, PassError};
use min_cut::{INFINITE, Network};
use needs::{Needs, Own, Read, needs};
use nncc_ir::ops::reshape::{Relayout, TargetLayout};
use nncc_ir::{Graph, HALF_BLOCK, Layout, NodeId, Op, ValueId};

/// The pass.
pub const PASS: Pass = Pass { name: "choose-layouts", level: OptLevel::O2, run };

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    let order = g.topological_order().unwrap_or_default();
    let planar = !cx.leaves_out(Part::PlanarInputs);
    let all: Vec<Option<Needs>> = {
        let mut all: Vec<Option<Needs>> = (0..g.node_bound()).map(|_| None).collect();
        for &n in order.iter().filter(|n| !matches!(g.op(**n), Op::Constant(_))) {
            all[n.index()] = Some(needs(g, n, planar));
        }
        all
    };
    let blocked = choose(g, &order, &all);
    if !cx.spend() {
        return Ok(0);
    }
    let mut changes = 0;
    for &n in &order {
        if blocked[n.index()] {
            // Statistics beside a blocked value are vectors.
            for v in g.results(n) {
                if g.ty(v).rank() >= 3 {
                    g.set_layout(v, Layout::Blocked);
                    changes += 1;
                }
            }
        }
    }
    for &n in &order {
        for v in g.results(n) {
            changes += relayout(g, v, &all, &blocked)?;
        }
    }
    Ok(changes)
}

/// The bytes that a Relayout of `v` moves; next to nothing if it is a view.
fn cost(g: &Graph, v: ValueId) -> u64 {
    let Some(dims) = g.ty(v).dims() else { return 1 };
    let one_pixel = dims[2..].iter().all(|&d| d == 1);
    if one_pixel && (dims[0] == 1 || dims[1].is_multiple_of(HALF_BLOCK)) {
        return 1;
    }
    let bytes = |l: Layout| l.stored_elems(&dims).unwrap_or(0).saturating_mul(4) as u64;
    (bytes(Layout::RowMajor) + bytes(Layout::Blocked)).clamp(1, INFINITE / 1_000_000)
}

/// Which nodes' results are blocked.
fn choose(g: &Graph, order: &[NodeId], all: &[Option<Needs>]) -> Vec<bool> {
    let mut net = Network::new(g.node_bound() + 2);
    let (source, sink) = (g.node_bound(), g.node_bound() + 1);
    for &n in order {
        let Some(need) = &all[n.index()] else { continue };
        match need.own {
            Own::Blocked => net.edge(source, n.index(), INFINITE),
            Own::RowMajor => net.edge(n.index(), sink, INFINITE),
            Own::Free { blocked_costs, row_major_costs } => {
                net.edge(n.index(), sink, blocked_costs);
                net.edge(source, n.index(), row_major_costs);
            }
        }
    }
    for &n in order.iter().filter(|n| all[n.index()].is_some()) {
        for v in g.results(n).filter(|v| g.ty(*v).rank() >= 3) {
            let readers = readers(g, v, all, sink, source);
            if readers.is_empty() {
                continue;
            }
            let bytes = cost(g, v);
            let (a, b) = (net.vertex(), net.vertex());
            net.edge(n.index(), a, bytes);
            net.edge(b, n.index(), bytes);
            for r in readers {
                net.edge(a, r, INFINITE);
                net.edge(r, b, INFINITE);
            }
        }
    }
    let blocked = net.source_side(source, sink);
    (0..g.node_bound())
        .map(|i| blocked[i] && all[i].as_ref().is_some_and(|n| !matches!(n.own, Own::RowMajor)))
        .collect()
}

/// The vertices whose side decides the layout in which a value is read.
fn readers(g: &Graph, v: ValueId, all: &[Option<Needs>], sink: usize, source: usize) -> Vec<usize> {
    let mut out: Vec<usize> = g
        .users(v)
        .filter_map(|(u, i)| match all[u.index()].as_ref()?.reads.get(i)? {
            Read::Own => Some(u.index()),
            Read::RowMajor => Some(sink),
            Read::Blocked => Some(source),
            Read::Any => None,
        })
        .collect();
    if g.is_output(v) {
        out.push(sink);
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Inserts the Relayout of `v` for the readers that want the other layout.
fn relayout(g: &mut Graph, v: ValueId, all: &[Option<Needs>], blocked: &[bool]) -> Result<usize, PassError> {
    let Some(Some(_)) = all.get(v.node.index()) else { return Ok(0) };
    let own = g.value(v).layout;
    let users: Vec<(NodeId, usize)> = g.users(v).collect();
    let other: Vec<(NodeId, usize)> = users
        .into_iter()
        .filter(|(u, i)| {
            let Some(Some(need)) = all.get(u.index()) else { return false };
            let wanted = match need.reads.get(*i) {
                Some(Read::Own) if blocked[u.index()] => Layout::Blocked,
                Some(Read::Blocked) => Layout::Blocked,
                Some(Read::Own | Read::RowMajor) => Layout::RowMajor,
                Some(Read::Any) | None => own,
            };
            wanted != own
        })
        .collect();
    let outputs: Vec<usize> = match own {
        Layout::Blocked => (0..g.outputs().len()).filter(|&i| g.outputs()[i].1 == v).collect(),
        Layout::RowMajor => Vec::new(),
    };
    if other.is_empty() && outputs.is_empty() {
        return Ok(0);
    }
    let (target, layout, suffix) = match own {
        Layout::Blocked => (TargetLayout::RowMajor, Layout::RowMajor, "rows"),
        Layout::RowMajor => (TargetLayout::Blocked, Layout::Blocked, "blocked"),
    };
    let name = format!("{}.{suffix}", g.value(v).name);
    let origin = g.node(v.node).origin.clone();
    let new =
        g.add1(Relayout { layout: target }, &[v], origin, &name).map_err(|e| PassError::bad("relayout", &name, e))?;
    g.set_layout(new, layout);
    for (u, i) in other {
        g.set_operand(u, i, Some(new));
    }
    for i in outputs {
        g.set_output(i, new);
    }
    Ok(1)
}
