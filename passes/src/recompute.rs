//! Computes values again where they are needed late, so that they need no memory in between: less memory for more work.
//!
//! ```text
//! %y = relu %b       live from the forward pass     %y = relu %b                     dead behind its last reader there
//! ..                 to the backward pass      ->   ..
//! %d = .. %y                                        %y.again = relu %b;  %d = .. %y.again
//! ```
//!
//! Method. In one fixed order of the nodes, the step at which most bytes are live is looked at, again and again. Of the values
//! that lie there unused, and that a later step reads, one is made again in front of that step: the one with the least work for
//! each byte. Its operands are there at that step; or are so small that they are kept; or are made again themselves. What does
//! not lower the peak is taken back. It ends when the peak is as low as was asked for, when the work allowed is used up, or when
//! nothing helps. A value made again may itself be made again later.
//!
//! Exact: the same operators on the same operands, Dropout included, whose decisions are functions of seed and step. Last of
//! all changes to a graph, for `cse` would undo it; the order that it gives is that of the memory plan.
//!
//! The idea is Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016; the greedy choice by work and bytes is that of
//! XLA's rematerialization and of Kirisame et al., Dynamic Tensor Rematerialization, 2021.

use crate::pass::{PassCx, PassError};
use crate::plan_memory::bound::live;
use crate::plan_memory::sharing::{parts, stored_bytes, views};
use crate::plan_memory::{MemoryPlan, is_given, order, plan_in_order, plan_memory};
use nncc_ir::{Graph, NodeId, Operands, TensorType, ValueId};
use rustc_hash::FxHashMap;
use std::fmt::Write as _;

/// What may be computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Recompute {
    /// Nothing.
    #[default]
    None,
    /// What lowers the peak of memory for at most [`AUTO_WORK`] of the work.
    Auto,
    /// What it takes for an arena of so many bytes.
    Bytes(usize),
}

/// What [`Recompute::Auto`] may add to the work, as a share of it. Checkpoints at every layer would add a third.
pub const AUTO_WORK: f64 = 0.1;
/// Operands of this share of a value, or less, are kept for it.
const SMALL: usize = 64;
/// How many operators deep a value's operands may have to be made again.
const DEPTH: usize = 6;

/// What was traded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trade {
    /// The most bytes that were live at a time.
    pub before: usize,
    /// The most bytes that are.
    pub after: usize,
    /// The work added, as a share of what there was: an estimate.
    pub work: f64,
    /// The names of the values that are made again, and their bytes.
    pub again: Vec<(String, usize)>,
}

impl Trade {
    /// For `--emit plan`.
    pub fn to_text(&self) -> String {
        let Trade { before, after, work, again } = self;
        let (count, percent) = (again.len(), 100.0 * work);
        let mut out = format!(
            "recomputed: {before} bytes live at most become {after} for {percent:.1} % more work, {count} values\n"
        );
        for (name, bytes) in again {
            let _ = writeln!(out, "{bytes:>12}  %{name}");
        }
        out
    }
}

impl std::str::FromStr for Recompute {
    type Err = String;

    /// `none`, `auto`, or bytes: a number, behind it perhaps K, M or G for powers of 1024.
    fn from_str(text: &str) -> Result<Recompute, String> {
        let unit = |u: char| Some(1usize << (10 * (1 + "KMG".find(u.to_ascii_uppercase())?)));
        let (number, unit) = match text.char_indices().last() {
            Some((at, last)) if !last.is_ascii_digit() => (&text[..at], unit(last)),
            _ => (text, Some(1)),
        };
        let bytes = || number.parse::<usize>().ok()?.checked_mul(unit?);
        match text {
            "none" => Ok(Recompute::None),
            "auto" => Ok(Recompute::Auto),
            _ => bytes().map(Recompute::Bytes).ok_or_else(|| "none, auto or a number of bytes is expected".to_string()),
        }
    }
}

/// Plans the memory of a graph of which values may be computed again.
///
/// # Errors
/// [`PassError::TooLarge`] when no recomputing makes the arena as small as asked for; and as [`plan_memory()`](crate::plan_memory()).
pub fn plan(g: &mut Graph, how: Recompute, cx: &mut PassCx) -> Result<(MemoryPlan, Option<Trade>), PassError> {
    let (limit, work) = match how {
        Recompute::None => return Ok((plan_memory(g, cx)?, None)),
        Recompute::Auto => (None, AUTO_WORK),
        Recompute::Bytes(limit) => (Some(limit), f64::INFINITY),
    };
    // Between what is live and the arena are gaps: they are known once buffers are placed.
    let (mut goal, mut least) = (limit.unwrap_or(0), usize::MAX);
    loop {
        let mut tried = g.clone();
        let (order, trade) = recompute(&mut tried, goal, work)?;
        let reached = trade.after <= goal;
        let plan = plan_in_order(&tried, order, cx)?;
        least = least.min(plan.arena_bytes);
        let above = plan.arena_bytes.saturating_sub(limit.unwrap_or(usize::MAX));
        if above == 0 {
            *g = tried;
            return Ok((plan, Some(trade)));
        }
        if !reached || above >= goal {
            return Err(PassError::TooLarge { least, limit: limit.unwrap_or(0) });
        }
        goal -= above;
    }
}

/// Lowers the most bytes that are live at a time to `goal`, for at most `work` times the work there is. Gives the order in which
/// the nodes are to run.
fn recompute(g: &mut Graph, goal: usize, work: f64) -> Result<(Vec<NodeId>, Trade), PassError> {
    let order = order::best(g).ok_or_else(|| PassError::BadPlan("the graph has a cycle".into()))?;
    let total: f64 = order.iter().map(|&n| work_of(g, n)).sum();
    let peak = Peak::of(&live(g, &order));
    let before = peak.bytes;
    let mut search = Search { g, order, peak, allowed: total * work, spent: 0.0, again: Vec::new() };
    while search.lower(goal)? {}
    let Search { order, peak, spent, again, .. } = search;
    Ok((order, Trade { before, after: peak.bytes, work: spent / total.max(1.0), again }))
}

/// The work of a node, in cycles of a core with wide vectors: multiply-adds at 24 a cycle, bytes at 5.
fn work_of(g: &Graph, n: NodeId) -> f64 {
    if is_given(g, n) || !views(g, n).is_empty() {
        return 0.0;
    }
    let operands = g.operands(n);
    let inputs: Vec<Option<&TensorType>> = operands.iter().map(|v| v.map(|v| g.ty(v))).collect();
    let outputs: Vec<TensorType> = g.results(n).map(|v| g.ty(v).clone()).collect();
    let macs = g.op(n).macs(&inputs, &outputs).unwrap_or(0) as f64;
    let values = operands.iter().flatten().copied().chain(g.results(n));
    let bytes: usize = values.map(|v| stored_bytes(g, v).unwrap_or(0)).sum();
    macs / 24.0 + bytes as f64 / 5.0
}

struct Search<'g> {
    g: &'g mut Graph,
    order: Vec<NodeId>,
    /// Of this order.
    peak: Peak,
    allowed: f64,
    spent: f64,
    again: Vec<(String, usize)>,
}

/// Where things stand in the order.
struct Times {
    /// By node.
    position: Vec<usize>,
    /// The last step that reads a value's bytes, be it through a view or a Concat that it is part of.
    last: FxHashMap<ValueId, usize>,
}

/// A value to be made again.
struct Candidate {
    value: ValueId,
    /// The step in front of which.
    at: usize,
    /// The nodes to run again, operands before users; the value's own is the last.
    nodes: Vec<NodeId>,
    work: f64,
    /// Bytes that need not be there in between.
    bytes: usize,
}

impl Candidate {
    /// Work for each byte.
    fn price(&self) -> f64 {
        self.work / self.bytes as f64
    }
}

impl Search<'_> {
    /// Makes one value again, if that lowers the peak, which is above the goal.
    fn lower(&mut self, goal: usize) -> Result<bool, PassError> {
        if self.peak.bytes <= goal {
            return Ok(false);
        }
        let times = self.times();
        let mut candidates = self.candidates(&times);
        candidates.sort_by(|a, b| a.price().total_cmp(&b.price()));
        for c in candidates {
            if self.spent + c.work <= self.allowed && self.make_again(&c, &times)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn times(&self) -> Times {
        let g = &*self.g;
        let mut position = vec![0; g.node_bound()];
        for (step, n) in self.order.iter().enumerate() {
            position[n.index()] = step;
        }
        let mut last: FxHashMap<ValueId, usize> = FxHashMap::default();
        for &n in self.order.iter().rev() {
            // what is read through a result of this node is known: the order is walked backwards
            let through = |v: ValueId, last: &FxHashMap<ValueId, usize>| last.get(&v).copied().unwrap_or(0);
            let own = g.operands(n).into_iter().flatten().map(|v| (v, position[n.index()]));
            let seen = views(g, n).into_iter().map(|view| (view.operand, through(view.result, &last)));
            let inside = parts(g, n).unwrap_or_default();
            let inside = inside.into_iter().map(|(part, _)| (part, through(ValueId { node: n, out: 0 }, &last)));
            for (v, step) in own.chain(seen).chain(inside).collect::<Vec<_>>() {
                let latest = last.entry(v).or_default();
                *latest = (*latest).max(step);
            }
        }
        Times { position, last }
    }

    /// The values that lie unused at the peak, with what making them again takes.
    fn candidates(&self, times: &Times) -> Vec<Candidate> {
        let (g, peak) = (&*self.g, &self.peak);
        let least = peak.bytes / 256;
        let mut found = Vec::new();
        for &n in self.order.iter().take(peak.step) {
            let value = ValueId { node: n, out: 0 };
            if g.results(n).count() != 1 || g.is_output(value) || !self.repeatable(n) {
                continue;
            }
            let bytes = stored_bytes(g, value).unwrap_or(0);
            let steps = self.reads(value, times);
            let Some(at) = steps.iter().copied().filter(|&s| s >= peak.step).min() else { continue };
            if bytes <= least || at == peak.step {
                continue;
            }
            let mut nodes = Vec::new();
            let mut kept = 0;
            if self.collect(n, at, times, DEPTH, &mut nodes, &mut kept) && kept < bytes {
                let work = nodes.iter().map(|&n| work_of(g, n)).sum();
                found.push(Candidate { value, at, nodes, work, bytes: bytes - kept });
            }
        }
        found
    }

    /// May the node run again? What has no code of its own may not; nor may what is to lie inside of a Concat.
    fn repeatable(&self, n: NodeId) -> bool {
        let g = &*self.g;
        let inside = |v: ValueId| g.users(v).any(|(m, _)| parts(g, m).is_some());
        !is_given(g, n) && views(g, n).is_empty() && parts(g, n).is_none() && !g.results(n).any(inside)
    }

    /// The steps that read a value, through views too.
    fn reads(&self, value: ValueId, times: &Times) -> Vec<usize> {
        let g = &*self.g;
        let (mut steps, mut values) = (Vec::new(), vec![value]);
        while let Some(v) = values.pop() {
            for (m, _) in g.users(v) {
                let seen = views(g, m);
                match seen.is_empty() {
                    true => steps.push(times.position[m.index()]),
                    false => values.extend(seen.iter().filter(|view| view.operand == v).map(|view| view.result)),
                }
            }
        }
        steps
    }

    /// The nodes that have to run again for `n` to run again at a step, `n` the last; and the bytes that are kept for it.
    fn collect(
        &self,
        n: NodeId,
        at: usize,
        times: &Times,
        depth: usize,
        nodes: &mut Vec<NodeId>,
        kept: &mut usize,
    ) -> bool {
        let g = &*self.g;
        if nodes.contains(&n) {
            return true;
        }
        let view = !views(g, n).is_empty();
        if depth == 0 || g.results(n).count() != 1 || !(view || self.repeatable(n)) {
            return false;
        }
        let large = stored_bytes(g, ValueId { node: n, out: 0 }).unwrap_or(0) / SMALL;
        for v in g.operands(n).into_iter().flatten() {
            let there = is_given(g, v.node) || times.last.get(&v).is_some_and(|&last| last >= at);
            let bytes = stored_bytes(g, v).unwrap_or(0);
            if there {
                continue;
            }
            if bytes <= large {
                *kept += bytes;
            } else if !self.collect(v.node, at, times, depth - 1, nodes, kept) {
                return false;
            }
        }
        nodes.push(n);
        true
    }

    /// Runs the candidate's nodes again and has all later readers read that. Takes it back if the peak does not fall.
    fn make_again(&mut self, c: &Candidate, times: &Times) -> Result<bool, PassError> {
        let late = |n: NodeId| times.position.get(n.index()).is_some_and(|&p| p >= c.at);
        let mut made: FxHashMap<NodeId, NodeId> = FxHashMap::default();
        let mut clones: Vec<NodeId> = Vec::new();
        for &n in &c.nodes {
            let clone = self.clone_node(n, &made)?;
            made.insert(n, clone);
            clones.push(clone);
        }
        // Readers through views get views of their own; these stand where their first reader does.
        let mut moved: Vec<(NodeId, usize, ValueId)> = Vec::new(); // reader, operand, what it read
        let mut values = vec![c.value];
        while let Some(v) = values.pop() {
            let users: Vec<(NodeId, usize)> = self.g.users(v).filter(|(m, _)| !clones.contains(m)).collect();
            for (m, operand) in users {
                if late(m) {
                    moved.push((m, operand, v));
                } else if !views(self.g, m).is_empty() && self.read_late(m, &late) {
                    let clone = self.clone_node(m, &made)?;
                    made.insert(m, clone);
                    clones.push(clone);
                    values.extend(self.g.results(m).collect::<Vec<_>>());
                }
            }
        }
        for &(m, operand, v) in &moved {
            let to = ValueId { node: made[&v.node], out: v.out };
            self.g.set_operand(m, operand, Some(to));
        }
        let order = std::mem::take(&mut self.order);
        let (front, back) = order.split_at(c.at);
        self.order = [front, &clones, back].concat();
        let after = Peak::of(&live(self.g, &self.order));
        if (after.bytes, after.steps) < (self.peak.bytes, self.peak.steps) {
            self.peak = after;
            self.spent += c.work;
            for &n in &c.nodes {
                let v = ValueId { node: n, out: 0 };
                self.again.push((self.g.value(v).name.to_string(), stored_bytes(self.g, v).unwrap_or(0)));
            }
            return Ok(true);
        }
        for (m, operand, v) in moved {
            self.g.set_operand(m, operand, Some(v));
        }
        for &n in clones.iter().rev() {
            self.g.remove(n);
        }
        self.order = order;
        Ok(false)
    }

    /// Does a late step read a view, or a view of it?
    fn read_late(&self, view: NodeId, late: &impl Fn(NodeId) -> bool) -> bool {
        let g = &*self.g;
        let read = |m| late(m) || (!views(g, m).is_empty() && self.read_late(m, late));
        g.results(view).any(|v| g.users(v).any(|(m, _)| read(m)))
    }

    /// The node once more, on clones of its operands where there are some.
    fn clone_node(&mut self, n: NodeId, made: &FxHashMap<NodeId, NodeId>) -> Result<NodeId, PassError> {
        let g = &mut *self.g;
        let at = |v: ValueId| made.get(&v.node).map_or(v, |&node| ValueId { node, out: v.out });
        let operands: Operands = g.operands(n).into_iter().map(|v| v.map(at)).collect();
        let names: Vec<String> = g.results(n).map(|v| format!("{}.again", g.value(v).name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (op, origin) = (g.op(n).clone(), g.node(n).origin.clone());
        let clone = g.add(op, &operands, origin, &names).map_err(|e| PassError::bad("recompute", names[0], e))?;
        for (from, to) in g.results(n).zip(g.results(clone)).collect::<Vec<_>>() {
            let layout = g.value(from).layout;
            g.set_layout(to, layout);
        }
        Ok(clone)
    }
}

/// The most bytes live, the first step with so many, and how many such steps there are.
struct Peak {
    bytes: usize,
    step: usize,
    steps: usize,
}

impl Peak {
    fn of(live: &[usize]) -> Peak {
        let bytes = live.iter().copied().max().unwrap_or(0);
        let step = live.iter().position(|&b| b == bytes).unwrap_or(0);
        Peak { bytes, step, steps: live.iter().filter(|&&b| b == bytes).count() }
    }
}
