//! Rewrites as data: a rule looks at a graph and proposes a [`Patch`]; only the driver changes anything.
//!
//! ```text
//! rule     fn(&Graph, node) -> Ok(patch) | Err(No::Match) | Err(No::Refused(why))
//! patch    new nodes over old values and each other, and which old values they replace
//! driver   a worklist: every node once, then the surroundings of each change, until nothing is left
//! ```
//!
//! The driver checks that a new value has the type of the value it replaces, hands on its name, gives each new node the
//! origins of all that the patch stands for, and removes what nobody uses any more. A node is looked at again only when
//! something next to it changed, so that a pass is linear in nodes and rewrites.
//!
//! Laws for rules. Never to something slower. Never compute a value twice: what has another user stays ([`sole_use`]).
//! A canonical form has one direction. Rounding may move only where the rule's document says so.

use crate::pass::{PassCx, PassError};
use nncc_ir::{Constant, DType, Graph, NodeId, Op, Operands, Origin, Tensor, TensorType, ValueId};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// Why a rule does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum No {
    /// The pattern is not there.
    Match,
    /// The pattern is there, but the rewrite would be wrong or would not pay: the sentence a user reads.
    Refused(String),
}

/// Shorthand for `Err(No::Refused(format!(...)))`.
macro_rules! refuse {
    ($($arg:tt)*) => { Err($crate::rewrite::No::Refused(format!($($arg)*))) };
}
pub(crate) use refuse;

/// What a rule gives.
pub type Found = Result<Patch, No>;

/// A named rule.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Snake case, unique in its pass.
    pub name: &'static str,
    /// Looks at one node, the last one of its pattern.
    pub find: fn(&Graph, NodeId) -> Found,
}

/// A rewrite that was not made, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The pass.
    pub pass: &'static str,
    /// The rule.
    pub rule: &'static str,
    /// The name of the value at which it was tried.
    pub at: String,
    /// A sentence.
    pub why: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.pass)?;
        if self.rule != self.pass {
            write!(f, " ({})", self.rule)?;
        }
        write!(f, " at \"{}\": refused: {}", self.at, self.why)
    }
}

/// A value in a patch: one that exists, or an output of one of the patch's own nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Val {
    /// In the graph.
    Old(ValueId),
    /// Output `.1` of the patch's node `.0`.
    New(u32, u32),
}

impl From<ValueId> for Val {
    fn from(v: ValueId) -> Val {
        Val::Old(v)
    }
}

#[derive(Clone, Debug)]
struct NewNode {
    op: Op,
    operands: Vec<Option<Val>>,
    name: String,
}

/// A proposed change.
#[derive(Clone, Debug)]
pub struct Patch {
    stands_for: Vec<NodeId>,
    nodes: Vec<NewNode>,
    replaced: Vec<(ValueId, Val)>,
}

impl Patch {
    /// A patch whose new nodes stand for these nodes of the graph.
    pub fn standing_for(nodes: &[NodeId]) -> Patch {
        Patch { stands_for: nodes.to_vec(), nodes: Vec::new(), replaced: Vec::new() }
    }

    /// The patch that replaces `old` by another existing value.
    pub fn forward(old: ValueId, new: ValueId) -> Patch {
        let mut p = Patch::standing_for(&[]);
        p.replace(old, new);
        p
    }

    /// The patch that replaces the only output of `n` by one new operator.
    pub fn one(stands_for: &[NodeId], n: NodeId, op: impl Into<Op>, operands: &[Val]) -> Patch {
        let mut p = Patch::standing_for(stands_for);
        let v = p.op(op, operands);
        p.replace(ValueId { node: n, out: 0 }, v);
        p
    }

    /// Adds an operator; gives its first output.
    pub fn op(&mut self, op: impl Into<Op>, operands: &[Val]) -> Val {
        self.op_optional(op, operands.iter().copied().map(Some).collect())
    }

    /// Adds an operator with operands that may be absent.
    pub fn op_optional(&mut self, op: impl Into<Op>, operands: Vec<Option<Val>>) -> Val {
        self.nodes.push(NewNode { op: op.into(), operands, name: String::new() });
        Val::New(self.nodes.len() as u32 - 1, 0)
    }

    /// Adds a constant.
    pub fn constant(&mut self, name: &str, c: Constant) -> Val {
        self.nodes.push(NewNode { op: Op::Constant(c), operands: Vec::new(), name: name.to_string() });
        Val::New(self.nodes.len() as u32 - 1, 0)
    }

    /// Adds a scalar constant.
    pub fn scalar(&mut self, dtype: DType, x: f64) -> Val {
        self.constant("", Constant::from_tensor(&Tensor::from_f64(dtype, &[], &[x])))
    }

    /// Makes every use of `old` a use of `new`.
    pub fn replace(&mut self, old: ValueId, new: impl Into<Val>) {
        self.replaced.push((old, new.into()));
    }
}

// ---- what rules ask of a graph --------------------------------------------------------------------------------------

/// The node that computes `v` if it is an operator and this is the only use of `v`; else a refusal that says how many
/// users there are, or that it is an output.
pub fn sole_use(g: &Graph, v: ValueId) -> Result<NodeId, No> {
    match g.sole_user(v) {
        Some(_) => Ok(v.node),
        None if g.is_output(v) => refuse!("%{} is also an output of the model", g.value(v).name),
        None => refuse!("%{} has {} users", g.value(v).name, g.users(v).count()),
    }
}

/// Operand `i`, or no match.
pub fn operand(g: &Graph, n: NodeId, i: usize) -> Result<ValueId, No> {
    g.operand(n, i).ok_or(No::Match)
}

/// The only output of a node with one output.
pub fn result(n: NodeId) -> ValueId {
    ValueId { node: n, out: 0 }
}

/// The constant that `v` is, or no match.
pub fn constant(g: &Graph, v: ValueId) -> Result<&Constant, No> {
    g.constant(v).ok_or(No::Match)
}

/// The one number that all elements of `v` are, for a constant of one element or a splat.
pub fn splat(g: &Graph, v: ValueId) -> Option<f64> {
    g.constant(v)?.splat_value().map(|t| t.to_f64()[0])
}

/// All known dimensions of `v`, or no match.
pub fn dims(g: &Graph, v: ValueId) -> Result<Vec<usize>, No> {
    g.ty(v).dims().ok_or(No::Match)
}

/// The most elements that a rule copies out of a constant: the largest per-channel vectors are a few thousand.
const VECTOR_LIMIT: usize = 1 << 20;

/// The elements of a constant vector (any shape with `len` elements, or a splat) as f64.
pub fn vector(g: &Graph, v: ValueId, len: usize) -> Result<Vec<f64>, No> {
    let c = constant(g, v)?;
    if len > VECTOR_LIMIT {
        return Err(No::Match);
    }
    if let Some(x) = c.splat_value() {
        return Ok(vec![x.to_f64()[0]; len]);
    }
    if c.elems() == len { Ok(c.to_tensor().to_f64()) } else { Err(No::Match) }
}

/// A constant of `dtype` and `dims` from numbers in f64: one rounding. A splat if all are the same number.
pub fn float_constant(dtype: DType, dims: &[usize], x: &[f64]) -> Constant {
    let whole = Tensor::from_f64(dtype, dims, x);
    match x.first() {
        Some(a) if x.len() > 1 && x.iter().all(|b| b.to_bits() == a.to_bits()) => {
            Constant::splat(&Tensor::from_f64(dtype, &[], &[*a]), dims).expect("one element")
        }
        _ => Constant::from_tensor(&whole),
    }
}

// ---- the driver -------------------------------------------------------------------------------------------------------

/// Applies `rules` until none matches. The first rule that matches a node wins. Returns the number of rewrites.
pub fn rewrite(g: &mut Graph, cx: &mut PassCx, rules: &[Rule]) -> Result<usize, PassError> {
    let mut work = Worklist::new(g);
    // Rules that shrink a graph make at most a few rewrites a node; this only catches rules that undo each other.
    let limit = 100 + 50 * g.node_count();
    let mut refusals: FxHashMap<(NodeId, usize), String> = FxHashMap::default();
    let mut count = 0;
    'nodes: while let Some(n) = work.pop(g) {
        for (r, rule) in rules.iter().enumerate() {
            match (rule.find)(g, n) {
                Err(No::Match) => {
                    refusals.remove(&(n, r));
                }
                Err(No::Refused(why)) => {
                    refusals.insert((n, r), why);
                }
                Ok(patch) => {
                    if !cx.spend() {
                        break 'nodes;
                    }
                    if count >= limit {
                        return Err(PassError::Endless { pass: cx.pass, rewrites: count });
                    }
                    refusals.retain(|(m, _), _| *m != n);
                    apply(g, rule.name, patch, &mut work)?;
                    count += 1;
                    if g.contains(n) {
                        work.push(n);
                    }
                    continue 'nodes;
                }
            }
        }
    }
    let mut refusals: Vec<_> = refusals.into_iter().filter(|((n, _), _)| g.contains(*n)).collect();
    refusals.sort_by_key(|(key, _)| *key);
    for ((n, r), why) in refusals {
        let at = g.node(n).outputs().first().map_or_else(String::new, |v| v.name.to_string());
        cx.refuse(rules[r].name, &at, why);
    }
    Ok(count)
}

/// Nodes to look at, each at most once at a time.
struct Worklist {
    queue: VecDeque<NodeId>,
    queued: Vec<bool>,
}

impl Worklist {
    fn new(g: &Graph) -> Worklist {
        let mut w = Worklist { queue: VecDeque::new(), queued: vec![false; g.node_bound()] };
        for n in g.topological_order().unwrap_or_default() {
            w.push(n);
        }
        w
    }

    fn push(&mut self, n: NodeId) {
        if n.index() >= self.queued.len() {
            self.queued.resize(n.index() + 1, false);
        }
        if !std::mem::replace(&mut self.queued[n.index()], true) {
            self.queue.push_back(n);
        }
    }

    fn pop(&mut self, g: &Graph) -> Option<NodeId> {
        while let Some(n) = self.queue.pop_front() {
            self.queued[n.index()] = false;
            if g.contains(n) {
                return Some(n);
            }
        }
        None
    }
}

fn apply(g: &mut Graph, rule: &'static str, patch: Patch, work: &mut Worklist) -> Result<(), PassError> {
    let at = patch.replaced.first().map_or_else(String::new, |(v, _)| g.value(*v).name.to_string());
    let origin = Origin::merged(patch.stands_for.iter().map(|n| &g.node(*n).origin));
    let mut made: Vec<NodeId> = Vec::with_capacity(patch.nodes.len());
    let place = |made: &[NodeId], v: Val| match v {
        Val::Old(v) => v,
        Val::New(n, out) => ValueId { node: made[n as usize], out },
    };
    for new in patch.nodes {
        let n = match new.op {
            Op::Constant(c) => g.add_constant(&new.name, c).node,
            op => {
                let operands: Operands = new.operands.iter().map(|v| v.map(|v| place(&made, v))).collect();
                g.add(op, &operands, origin.clone(), &[&new.name]).map_err(|e| PassError::bad(rule, &at, e))?
            }
        };
        for v in g.operands(n).into_iter().flatten() {
            work.push(v.node);
        }
        work.push(n);
        made.push(n);
    }
    let mut dead = Vec::new();
    for (old, new) in patch.replaced {
        let new_value = place(&made, new);
        let (was, is) = (g.ty(old), g.ty(new_value));
        if !same_type(was, is) {
            return Err(PassError::BadPatch { rule, node: at, what: format!("replaces {was} by {is}") });
        }
        let users: Vec<NodeId> = g.users(old).map(|(n, _)| n).collect();
        g.replace_uses(old, new_value);
        for n in users {
            work.push(n);
        }
        if matches!(new, Val::New(..)) {
            let name = g.value(old).name.clone();
            g.rename(old, "");
            g.rename(new_value, &name);
        } else {
            work.push(new_value.node);
        }
        dead.push(old.node);
    }
    remove_unused(g, dead, |n| work.push(n));
    Ok(())
}

/// Equal types; a symbolic dimension is taken on trust against a known one (inference may know more after a rewrite).
fn same_type(a: &TensorType, b: &TensorType) -> bool {
    a.dtype == b.dtype
        && a.rank() == b.rank()
        && a.shape.iter().zip(&b.shape).all(|(a, b)| a == b || a.known().is_none() || b.known().is_none())
}

/// Removes the nodes of `candidates` that nobody uses, and what only they used. `lost_a_user` is told of the nodes that
/// stay.
pub fn remove_unused(g: &mut Graph, candidates: Vec<NodeId>, mut lost_a_user: impl FnMut(NodeId)) -> usize {
    let (mut stack, mut removed) = (candidates, 0);
    while let Some(n) = stack.pop() {
        if !g.contains(n) || matches!(g.op(n), Op::Input) {
            continue;
        }
        if g.results(n).any(|v| g.is_output(v) || g.users(v).next().is_some()) {
            lost_a_user(n);
            continue;
        }
        let operands: Operands = g.operands(n);
        g.remove(n);
        removed += 1;
        stack.extend(operands.into_iter().flatten().map(|v| v.node));
    }
    removed
}
