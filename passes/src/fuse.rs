//! Joins elementwise operators to the operator before them, and to each other: one kernel, one pass over memory.
//!
//! ```text
//! %c = conv %x, w, b                       %y = fused %x, w, b, %r,  root=conv,
//! %s = add %c, %r                   ->          program={max(in(0) + in(1), 0)}
//! %y = relu %s
//!
//! %s = sigmoid %x;  %y = mul %s, %g ->     %y = fused %x, %g,  no root,  program={sigmoid(in(0)) * in(1)}
//! ```
//!
//! Roots are the operators whose kernels can apply a program to results in registers: Conv, ConvTranspose, Gemm, MatMul.
//! A group grows from a root's result (or from an elementwise operator) through its users, in topological order, and
//! takes in operands that only it uses; it is cut back to the last point at which a single value leaves it. So no
//! value is computed twice, and the group is convex: a path that leaves it and comes back would have to leave through its
//! last value. A constant that is one number becomes a constant of the program.
//!
//! Refused: a value with users outside; another shape than the root's (a broadcast root would be computed once and used
//! often: that is a second loop nest); operands of another element type; more operands or instructions than a kernel
//! keeps in registers. Exact: the same operations on the same numbers, up to contraction into fused multiply-adds.

use crate::pass::{OptLevel, Part, Pass, PassCx, PassError};
use crate::rewrite::{remove_unused, result, splat};
use nncc_ir::ops::fused::Fused;
use nncc_ir::pointwise::Ref;
use nncc_ir::{DType, Graph, NodeId, Op, Operands, Origin, Pointwise, TensorType, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The pass.
pub const PASS: Pass = Pass { name: "fuse", level: OptLevel::O2, run };

/// Operators in one group: chains of networks have up to about ten.
const MAX_MEMBERS: usize = 24;
/// Further operands of a program: each takes a pointer register in the inner loop.
const MAX_OPERANDS: usize = 6;
/// Instructions of a program: what stays live between them must fit into the registers that a root's tile leaves.
const MAX_INSTRUCTIONS: usize = 96;

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    let order = g.topological_order().unwrap_or_default();
    let residuals = !cx.leaves_out(Part::Residuals);
    let mut f = Fuser { position: vec![0; g.node_bound()], made: FxHashSet::default(), count: 0, residuals };
    let (roots, alone) = (!cx.leaves_out(Part::Epilogues), !cx.leaves_out(Part::ElementwiseFusion));
    for (i, n) in order.iter().enumerate() {
        f.position[n.index()] = i;
    }
    // Roots first: an elementwise operator gains most where it needs no pass over memory at all. Of two roots whose sum is
    // taken the one hides the memory that it waits for which computes all of its outputs.
    let (sparse, dense): (Vec<NodeId>, _) =
        order.iter().filter(|n| roots && is_root(g.op(**n))).partition(|n| leaves_outputs_empty(g, **n));
    for n in dense.into_iter().chain(sparse) {
        if f.is_there(g, n) {
            f.fuse_at(g, cx, n, true)?;
        }
    }
    for &n in order.iter().filter(|_| alone) {
        if f.is_there(g, n) && elementwise(g, n).is_some() {
            f.fuse_at(g, cx, n, false)?;
        }
    }
    Ok(f.count)
}

fn is_root(op: &Op) -> bool {
    matches!(op, Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm(_) | Op::MatMul(_))
}

/// Does no tap reach some of the outputs? Of a transposed convolution whose stride is longer than its kernel: the gradient of
/// a strided 1x1 convolution with respect to its input is three quarters zeros.
fn leaves_outputs_empty(g: &Graph, n: NodeId) -> bool {
    let Op::ConvTranspose(op) = g.op(n) else { return false };
    let weights = g.operands(n).get(1).copied().flatten().and_then(|w| g.ty(w).dims()).unwrap_or_default();
    op.strides.iter().zip(weights.iter().skip(2)).any(|(stride, kernel)| stride > kernel)
}

/// The program of an elementwise operator, and its operands.
fn elementwise(g: &Graph, n: NodeId) -> Option<(Pointwise, Vec<ValueId>)> {
    let operands: Vec<ValueId> = g.operands(n).into_iter().flatten().collect();
    let types: Vec<&TensorType> = operands.iter().map(|v| g.ty(*v)).collect();
    let program = g.op(n).pointwise(&types)?;
    Some((program, operands))
}

struct Fuser {
    position: Vec<usize>,
    made: FxHashSet<NodeId>, // ids may be those of removed nodes
    count: usize,
    residuals: bool, // may programs behind a root read tensors of its result's size?
}

/// A group that grows.
struct Group {
    members: Vec<NodeId>, // without the root, in topological order but for absorbed operands, which stand before their user
    inside: FxHashMap<ValueId, usize>, // values of root and members: uses outside of the group
    outside: Vec<ValueId>, // operands that are not constants of the program
    instructions: usize,
    rooted: bool,
}

impl Fuser {
    fn is_there(&self, g: &Graph, n: NodeId) -> bool {
        g.contains(n) && !self.made.contains(&n)
    }

    fn fuse_at(&mut self, g: &mut Graph, cx: &mut PassCx, n: NodeId, root: bool) -> Result<(), PassError> {
        let ty = g.ty(result(n)).clone();
        let mut group = Group::starting_at(g, n, root);
        let (mut committed, mut refusal) = (group.members.len(), None);
        let mut candidates = BinaryHeap::new();
        self.push_users(g, result(n), &mut candidates);
        while let Some(Reverse((_, u))) = candidates.pop() {
            if group.members.contains(&u) {
                continue;
            }
            match self.try_add(g, &mut group, u, &ty) {
                Ok(()) => {
                    self.push_users(g, result(u), &mut candidates);
                    if group.leaves_through(result(u)) && g.ty(result(u)).dtype == ty.dtype {
                        committed = group.members.len();
                    }
                }
                Err(why) => refusal = refusal.or(why),
            }
            if group.members.len() >= MAX_MEMBERS {
                refusal = refusal.or(Some(format!("the group has {MAX_MEMBERS} operators")));
                break;
            }
        }
        group.members.truncate(committed);
        let last = group.members.last().copied().unwrap_or(n);
        if root || committed > 1 {
            explain(g, cx, last, refusal);
        }
        // An elementwise operator by itself is worth it if that turns operands into constants of the program.
        let alone = !root && committed == 1;
        let has_numbers = || g.operands(n).into_iter().flatten().any(|v| splat(g, v).is_some());
        if (root && committed == 0) || (alone && !has_numbers()) || !uniform(g, &group.members, &ty) || !cx.spend() {
            return Ok(());
        }
        self.make(g, n, root, &group.members, &ty)
    }

    fn push_users(&self, g: &Graph, v: ValueId, candidates: &mut BinaryHeap<Reverse<(usize, NodeId)>>) {
        for (u, _) in g.users(v).take(MAX_MEMBERS) {
            if !self.made.contains(&u) {
                candidates.push(Reverse((self.position[u.index()], u)));
            }
        }
    }

    /// Adds `u`, and operands of it that only it uses. A reason is given where the operator is elementwise.
    fn try_add(&self, g: &Graph, group: &mut Group, u: NodeId, ty: &TensorType) -> Result<(), Option<String>> {
        let Some((program, operands)) = elementwise(g, u) else { return Err(None) };
        if self.made.contains(&u) {
            return Err(None);
        }
        let out = g.ty(result(u));
        let name = &g.value(result(u)).name;
        if out.shape != ty.shape {
            return Err(Some(format!("%{name} has the shape {out}")));
        }
        if let Some(v) = operands.iter().find(|v| !group.inside.contains_key(*v) && g.ty(**v).dtype != ty.dtype) {
            return Err(Some(format!("%{} is {}", g.value(*v).name, g.ty(*v).dtype)));
        }
        if out.dtype != ty.dtype && out.dtype != DType::Bool {
            return Err(Some(format!("%{name} is {}", out.dtype)));
        }
        let mut outside = group.outside.clone();
        let mut absorbed = Vec::new();
        for v in &operands {
            if group.inside.contains_key(v) || outside.contains(v) || splat(g, *v).is_some() {
                continue;
            }
            if self.absorbs(g, *v, ty, &outside) && group.members.len() + absorbed.len() + 1 < MAX_MEMBERS {
                outside.extend(outer(g, v.node));
                absorbed.push(v.node);
            } else {
                outside.push(*v);
            }
        }
        let is_whole = |v: &&ValueId| g.ty(**v).shape == ty.shape;
        if let Some(v) = outside.iter().find(is_whole).filter(|_| group.rooted && !self.residuals) {
            return Err(Some(format!("%{} is as large as the result", g.value(*v).name)));
        }
        if outside.len() > MAX_OPERANDS {
            return Err(Some(format!("with %{name} it would have {} further operands", outside.len())));
        }
        let instructions = group.instructions + program.insts().len();
        if instructions > MAX_INSTRUCTIONS {
            return Err(Some(format!("with %{name} the program would have {instructions} instructions")));
        }
        group.outside = outside;
        for n in absorbed.into_iter().chain([u]) {
            group.add(g, n);
        }
        Ok(())
    }

    /// Whether the elementwise operator behind an operand is taken in: it is used only here, has the shape, brings few new
    /// operands, and does not follow a root that will take it itself.
    fn absorbs(&self, g: &Graph, v: ValueId, ty: &TensorType, outside: &[ValueId]) -> bool {
        let n = v.node;
        if self.made.contains(&n) || g.ty(v) != ty || g.sole_user(v).is_none() || elementwise(g, n).is_none() {
            return false;
        }
        let operands = outer(g, n);
        operands.iter().all(|x| g.ty(*x).dtype == ty.dtype && !is_root(g.op(x.node)) && !outside.contains(&v))
            && operands.len() <= 2
    }

    /// Replaces root and members by one node.
    fn make(
        &mut self,
        g: &mut Graph,
        n: NodeId,
        root: bool,
        members: &[NodeId],
        ty: &TensorType,
    ) -> Result<(), PassError> {
        let last = *members.last().unwrap_or(&n);
        let name = g.value(result(last)).name.clone();
        let bad = |e| PassError::bad("fuse", &name, e);
        let (mut op, mut operands) = build(g, n, root, members, ty, true);
        let infer = |op: &Fused, operands: &Operands| {
            let types: Vec<_> = operands.iter().map(|v| v.map(|v| g.ty(v))).collect();
            Op::from(op.clone()).infer(&types)
        };
        // Without its constants the program may have lost the operand that gave it the shape.
        if infer(&op, &operands).map_err(bad)?[0].shape != g.ty(result(last)).shape {
            (op, operands) = build(g, n, root, members, ty, false);
        }
        let origin = Origin::merged(std::iter::once(n).chain(members.iter().copied()).map(|m| &g.node(m).origin));
        let new = g.add(op, &operands, origin, &[]).map_err(bad)?;
        self.made.insert(new);
        self.count += 1;
        g.replace_uses(result(last), result(new));
        g.rename(result(last), "");
        g.rename(result(new), &name);
        remove_unused(g, vec![last], |_| {});
        Ok(())
    }
}

/// The operands of `n` that are not numbers.
fn outer(g: &Graph, n: NodeId) -> Vec<ValueId> {
    g.operands(n).into_iter().flatten().filter(|v| splat(g, *v).is_none()).collect()
}

/// Whether all values of the members have the group's element type, but for Bool between them.
fn uniform(g: &Graph, members: &[NodeId], ty: &TensorType) -> bool {
    let inner = |v: &ValueId| members.contains(&v.node);
    members.iter().all(|m| {
        let out = g.ty(result(*m)).dtype;
        let operands = g.operands(*m);
        (out == ty.dtype || out == DType::Bool)
            && operands.iter().flatten().all(|v| inner(v) || g.ty(*v).dtype == ty.dtype)
    })
}

impl Group {
    fn starting_at(g: &Graph, n: NodeId, root: bool) -> Group {
        let (members, inside, outside) = (Vec::new(), FxHashMap::default(), Vec::new());
        let mut group = Group { members, inside, outside, instructions: 0, rooted: root };
        if root {
            group.inside.insert(result(n), uses(g, result(n)));
        } else {
            group.outside = outer(g, n);
            group.instructions = elementwise(g, n).map_or(0, |(p, _)| p.insts().len());
            group.add(g, n);
        }
        group
    }

    fn add(&mut self, g: &Graph, n: NodeId) {
        for v in g.operands(n).into_iter().flatten() {
            if let Some(left) = self.inside.get_mut(&v) {
                *left = left.saturating_sub(1);
            }
        }
        self.inside.insert(result(n), uses(g, result(n)));
        self.members.push(n);
    }

    /// Whether `v` is the only value with uses outside.
    fn leaves_through(&self, v: ValueId) -> bool {
        self.inside.iter().all(|(w, left)| *w == v || *left == 0)
    }
}

fn uses(g: &Graph, v: ValueId) -> usize {
    g.users(v).count() + usize::from(g.is_output(v))
}

/// Records why a group ends where an elementwise operator follows.
fn explain(g: &Graph, cx: &mut PassCx, last: NodeId, why: Option<String>) {
    let v = result(last);
    let follows = g.users(v).take(MAX_MEMBERS).any(|(u, _)| elementwise(g, u).is_some());
    if !follows {
        return;
    }
    let why = match g.sole_user(v) {
        None if g.is_output(v) => format!("%{} is also an output of the model", g.value(v).name),
        None => format!("%{} has {} users", g.value(v).name, g.users(v).count()),
        Some(_) => why.unwrap_or_else(|| "no single value leaves the operators that follow".to_string()),
    };
    cx.refuse("fuse", &g.value(v).name, why);
}

/// The fused operator and its operands. With `numbers`, operands that are one number become constants of the program.
fn build(g: &Graph, n: NodeId, root: bool, members: &[NodeId], ty: &TensorType, numbers: bool) -> (Fused, Operands) {
    let own = if root { g.operands(n) } else { Operands::new() };
    let mut extra: Vec<ValueId> = Vec::new();
    let mut program = Pointwise::new(&[]);
    let mut refs: FxHashMap<ValueId, Ref> = FxHashMap::default();
    if root {
        refs.insert(result(n), program.add_input(ty.dtype));
    }
    for &m in members {
        let Some((body, operands)) = elementwise(g, m) else { continue };
        let args: Vec<Ref> = operands
            .iter()
            .map(|v| match (refs.get(v), splat(g, *v)) {
                (Some(r), _) => *r,
                (None, Some(x)) if numbers && exact_constant(g, *v) => program.constant(g.ty(*v).dtype, x),
                _ => {
                    extra.push(*v);
                    let r = program.add_input(g.ty(*v).dtype);
                    refs.insert(*v, r);
                    r
                }
            })
            .collect();
        let r = program.inline(&body, &args);
        refs.insert(result(m), r);
    }
    let last = result(members.last().copied().unwrap_or(n));
    program.set_result(refs[&last]);
    let root_operands = own.len();
    let operands = own.into_iter().chain(extra.into_iter().map(Some)).collect();
    let root = root.then(|| Box::new(g.op(n).clone()));
    (Fused { root, program, root_operands }, operands)
}

/// Whether a number survives the way through f64: integers of 64 bits may not.
fn exact_constant(g: &Graph, v: ValueId) -> bool {
    !matches!(g.ty(v).dtype, DType::I64 | DType::U64) || splat(g, v).is_some_and(|x| x.abs() < 9e15)
}
