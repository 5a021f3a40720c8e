//! Checks a memory plan by running it. Shares no code with the planner.
//!
//! Memory is simulated as a map from bytes to what they hold: byte `o` of the result of some computing node. The plan is
//! correct iff, in the plan's order,
//!
//! ```text
//!   1. every node stands behind the nodes that it uses, once;
//!   2. each operand, when it is read, still holds all of its bytes, and so does each output of the model at the end;
//!   3. a node that writes its result over an operand may do so (`sharing::in_place`), at exactly the operand's bytes;
//!      its results do not overlap each other, nor anything of the model's inputs (but of the input of a state, which its
//!      next value replaces) and constants;
//!   4. a node without code (a view) leaves its result's place holding what the operator would have copied there;
//!   5. places lie in the arena, in the input or in the output that they name; elements are aligned, and so are the
//!      blocks of a blocked value.
//! ```
//!
//! Reshape, Slice, Split, Concat and Identity copy bytes, so that contents flow through them; for 4 the map of elements
//! is compared with the operator's definition along every axis and at the far corner, not with the planner's idea of it.
//! Runs after every plan: it takes a few milliseconds, and a wrong plan would be a silently wrong library.

use super::sharing::{in_place, stored_bytes};
use super::{ALIGN, MemoryPlan, Place};
use nncc_ir::{BLOCK, Graph, HALF_BLOCK, Layout, NodeId, Op, TensorType, ValueId};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A stretch of bytes of the result of a computing node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    of: ValueId,
    from: usize,
    len: usize,
}

/// The spaces that places lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Space {
    Arena,
    Input(usize),
    Output(usize),
    Constant(NodeId),
}

/// What one space holds: start -> piece; pieces do not overlap.
#[derive(Default)]
struct Memory(BTreeMap<usize, Piece>);

impl Memory {
    /// Makes room for `[at, at + len)`: cuts or removes what lies there.
    fn clear(&mut self, at: usize, len: usize) {
        let end = at + len;
        let hit: Vec<usize> = self.0.range(..end).rev().take_while(|(s, p)| *s + p.len > at).map(|(s, _)| *s).collect();
        for start in hit {
            let p = self.0.remove(&start).expect("listed");
            if start < at {
                self.0.insert(start, Piece { len: at - start, ..p });
            }
            if start + p.len > end {
                let skip = end - start;
                self.0.insert(end, Piece { of: p.of, from: p.from + skip, len: p.len - skip });
            }
        }
    }

    fn write(&mut self, mut at: usize, content: &[Piece]) {
        self.clear(at, content.iter().map(|p| p.len).sum());
        for p in content.iter().filter(|p| p.len > 0) {
            self.0.insert(at, *p);
            at += p.len;
        }
    }

    /// Whether `[at, ..)` holds exactly `content`, however it is cut.
    fn holds(&self, at: usize, content: &[Piece]) -> bool {
        let len: usize = content.iter().map(|p| p.len).sum();
        let end = at + len;
        let mut found = Vec::new();
        let first = self.0.range(..=at).next_back().map(|(s, _)| *s);
        for (s, p) in self.0.range(first.unwrap_or(at)..end) {
            let (lo, hi) = ((*s).max(at), (*s + p.len).min(end));
            if lo < hi {
                found.push(Piece { of: p.of, from: p.from + (lo - s), len: hi - lo });
            }
        }
        joined(&found) == joined(content)
    }
}

/// Neighbouring pieces of one value as one piece.
fn joined(pieces: &[Piece]) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    for p in pieces.iter().filter(|p| p.len > 0) {
        match out.last_mut() {
            Some(q) if q.of == p.of && q.from + q.len == p.from => q.len += p.len,
            _ => out.push(*p),
        }
    }
    out
}

/// `pieces` from byte `at`, `len` bytes.
fn part(pieces: &[Piece], at: usize, len: usize) -> Vec<Piece> {
    let (mut start, mut out) = (0, Vec::new());
    for p in pieces {
        let (lo, hi) = (at.max(start), (at + len).min(start + p.len));
        if lo < hi {
            out.push(Piece { of: p.of, from: p.from + (lo - start), len: hi - lo });
        }
        start += p.len;
    }
    out
}

/// The first thing that is wrong with the plan.
pub fn check(g: &Graph, plan: &MemoryPlan) -> Result<(), String> {
    check_order(g, plan)?;
    let name = |v: ValueId| format!("%{}", g.value(v).name);
    let mut memory: HashMap<Space, Memory> = HashMap::new();
    let mut contents: HashMap<ValueId, Vec<Piece>> = HashMap::new();
    for &n in &plan.order {
        let operands: Vec<ValueId> = g.operands(n).into_iter().flatten().collect();
        for &x in &operands {
            let (space, at) = locate(g, plan, x)?;
            if !memory.entry(space).or_default().holds(at, &contents[&x]) {
                return Err(format!("{} is overwritten before {} reads it", name(x), g.op(n).name()));
            }
        }
        let mut written: Vec<(Space, usize, usize)> = Vec::new();
        for v in g.results(n) {
            let bytes = stored_bytes(g, v).ok_or_else(|| format!("{} has no known size", name(v)))?;
            let (space, at) = locate(g, plan, v)?;
            let content = content_of(g, n, v, bytes, &contents);
            if plan.elided.contains(&n) {
                for x in &operands {
                    check_view(g, plan, n, *x, v)?;
                }
                let content = content.ok_or_else(|| format!("{} computes, but has no code", name(v)))?;
                if !memory.entry(space).or_default().holds(at, &content) {
                    return Err(format!("{} is a view, but its place holds something else", name(v)));
                }
                contents.insert(v, content);
                continue;
            }
            match (g.op(n), plan.place[&v]) {
                (Op::Input, Place::Input { .. }) | (Op::Constant(_), Place::Constant) => {}
                (Op::Input | Op::Constant(_), _) | (_, Place::Input { .. } | Place::Constant) => {
                    return Err(format!("{} lies in {space:?}", name(v)));
                }
                _ => {}
            }
            for &(s, a, b) in &written {
                if s == space && a < at + bytes && at < a + b {
                    return Err(format!("two results of {} overlap", g.op(n).name()));
                }
            }
            for &x in &operands {
                let (s, a) = locate(g, plan, x)?;
                let b = stored_bytes(g, x).unwrap_or(0);
                if s != space || a >= at + bytes || at >= a + b {
                    continue;
                }
                let copies_itself = matches!(g.op(n), Op::Concat(_)) && copies_in_place(g, plan, n, x, at, false)?;
                let exact = a == at && b == bytes && in_place(g, n).contains(&x);
                if !exact && !copies_itself {
                    return Err(format!("{} is written over its operand {}", name(v), name(x)));
                }
            }
            written.push((space, at, bytes));
            let content = content.unwrap_or_else(|| vec![Piece { of: v, from: 0, len: bytes }]);
            memory.entry(space).or_default().write(at, &content);
            contents.insert(v, content);
        }
    }
    for (i, (_, v)) in g.outputs().iter().enumerate() {
        let (space, at) = locate(g, plan, *v)?;
        if space != output_space(g, i) || at != 0 {
            return Err(format!("output {} is not in its place", name(*v)));
        }
        if !memory.entry(space).or_default().holds(at, &contents[v]) {
            return Err(format!("output {} is overwritten", name(*v)));
        }
    }
    Ok(())
}

/// Where an output lies: the next value of a state in its input, for the caller may give one buffer for both. With two
/// buffers less is overwritten.
fn output_space(g: &Graph, output: usize) -> Space {
    g.states().iter().find(|state| state.1 == output).map_or(Space::Output(output), |state| Space::Input(state.0))
}

fn check_order(g: &Graph, plan: &MemoryPlan) -> Result<(), String> {
    let mut done: HashSet<NodeId> = HashSet::new();
    for &n in &plan.order {
        if let Some(x) = g.operands(n).into_iter().flatten().find(|x| !done.contains(&x.node)) {
            return Err(format!("{} runs before %{} is there", g.op(n).name(), g.value(x).name));
        }
        if !done.insert(n) {
            return Err(format!("{} runs twice", g.op(n).name()));
        }
    }
    if done.len() == g.node_count() { Ok(()) } else { Err("a node never runs".into()) }
}

/// Space and byte of a value, checked to lie inside.
fn locate(g: &Graph, plan: &MemoryPlan, v: ValueId) -> Result<(Space, usize), String> {
    let name = &g.value(v).name;
    let bytes = stored_bytes(g, v).ok_or_else(|| format!("%{name} has no known size"))?;
    let place = plan.place.get(&v).ok_or_else(|| format!("%{name} has no place"))?;
    let size_of = |v: Option<ValueId>| v.and_then(|v| stored_bytes(g, v)).unwrap_or(0);
    let (space, at, size) = match *place {
        Place::Arena { offset } => (Space::Arena, offset, plan.arena_bytes),
        Place::Input { index, offset } => {
            let port = g.inputs().get(index).map(|n| ValueId { node: *n, out: 0 });
            (Space::Input(index), offset, size_of(port))
        }
        Place::Output { index, offset } => {
            (output_space(g, index), offset, size_of(g.outputs().get(index).map(|(_, v)| *v)))
        }
        Place::Constant => (Space::Constant(v.node), 0, bytes),
    };
    if at.checked_add(bytes).is_none_or(|end| end > size) {
        return Err(format!("%{name}: bytes {at}.. of {space:?} do not fit into {size}"));
    }
    let aligned = match g.value(v).layout {
        Layout::RowMajor => g.ty(v).dtype.bytes(), // a view may begin at any element
        Layout::Blocked => (BLOCK * g.ty(v).dtype.bytes()).min(ALIGN),
    };
    if !at.is_multiple_of(aligned) {
        return Err(format!("%{name}: byte {at} is not aligned to {aligned}"));
    }
    Ok((space, at))
}

/// What the result of a node that copies holds, in terms of what its operands hold; `None` for a node that computes, or
/// that copies in another order.
fn content_of(
    g: &Graph,
    n: NodeId,
    v: ValueId,
    bytes: usize,
    contents: &HashMap<ValueId, Vec<Piece>>,
) -> Option<Vec<Piece>> {
    if bytes == 0 {
        return Some(Vec::new());
    }
    let x = g.operand(n, 0)?;
    let (from, to) = (g.value(x).layout, g.value(v).layout);
    match g.op(n) {
        Op::Identity(_) | Op::Reshape(_) if from == to => Some(contents[&x].clone()),
        Op::Relayout(_) => {
            let dims = g.ty(x).dims()?;
            let lanes = dims.len() < 3 || dims[2..].iter().product::<usize>() > 1;
            let whole = dims[1] % HALF_BLOCK == 0 || (dims[0] == 1 && to == Layout::RowMajor);
            (from == to || (!lanes && whole)).then(|| part(&contents[&x], 0, bytes))
        }
        Op::Slice(_) | Op::Split(_) => {
            let origin = first_element(g, n, v)?;
            let offset = address(g.ty(x), from, &origin)?;
            let dims = g.ty(v).dims()?;
            let last: Vec<usize> = dims.iter().map(|d| d.checked_sub(1)).collect::<Option<_>>()?;
            let far: Vec<usize> = last.iter().zip(&origin).map(|(a, b)| a + b).collect();
            // One stretch if the far corner lies as far away in the operand as in the result, and so in every axis.
            let apart = address(g.ty(x), from, &far)?.checked_sub(offset)?;
            let steps = matches!(g.op(n), Op::Slice(s) if s.steps.iter().any(|&s| s != 1));
            let one = from == to && apart == address(g.ty(v), to, &last)? && !steps && strides_agree(g, x, v, &origin);
            one.then(|| part(&contents[&x], offset, bytes))
        }
        Op::Concat(c) => {
            // One behind the other is right only if the axis is the outermost one that is not 1.
            let dims = g.ty(v).dims()?;
            if dims[..c.axis].iter().any(|&d| d != 1) || (to == Layout::Blocked && c.axis > 1) {
                return None;
            }
            let (mut out, mut at) = (Vec::new(), 0usize);
            for x in g.operands(n) {
                let x = x?;
                if g.value(x).layout != to || (to == Layout::Blocked && c.axis == 1 && at % BLOCK != 0) {
                    return None;
                }
                out.extend_from_slice(&contents[&x]);
                at += g.ty(x).dims()?[c.axis];
            }
            Some(out)
        }
        _ => None,
    }
}

/// The operand's index of the first element of a Slice's or Split's result.
fn first_element(g: &Graph, n: NodeId, v: ValueId) -> Option<Vec<usize>> {
    match g.op(n) {
        Op::Slice(s) => s.starts.iter().map(|d| d.size()).collect(),
        Op::Split(s) => {
            let mut at = vec![0; g.ty(v).rank()];
            for w in g.results(n).take(v.out as usize) {
                at[s.axis] += g.ty(w).dims()?[s.axis];
            }
            Some(at)
        }
        _ => None,
    }
}

/// Byte address of an element within a value.
fn address(ty: &TensorType, layout: Layout, index: &[usize]) -> Option<usize> {
    let dims = ty.dims()?;
    let elem = match layout {
        Layout::RowMajor => index.iter().zip(&dims).fold(0, |a, (i, d)| a * d + i),
        Layout::Blocked => {
            let (c, channels) = (index[1], dims[1]);
            let pixels: usize = dims[2..].iter().product();
            let pixel = index[2..].iter().zip(&dims[2..]).fold(0, |a, (i, d)| a * d + i);
            let block = c / BLOCK * BLOCK;
            let width = if channels - block <= HALF_BLOCK { HALF_BLOCK } else { BLOCK };
            index[0] * channels.div_ceil(HALF_BLOCK) * HALF_BLOCK * pixels + block * pixels + pixel * width + c % BLOCK
        }
    };
    Some(elem * ty.dtype.bytes())
}

/// Whether each axis, walked from the first element, has the same distances in `v` as in `x` from `origin`.
fn strides_agree(g: &Graph, x: ValueId, v: ValueId, origin: &[usize]) -> bool {
    let Some(dims) = g.ty(v).dims() else { return false };
    let (lx, lv) = (g.value(x).layout, g.value(v).layout);
    let base = address(g.ty(x), lx, origin);
    (0..dims.len()).all(|axis| {
        (0..dims[axis]).all(|i| {
            let (mut a, mut b) = (origin.to_vec(), vec![0; dims.len()]);
            a[axis] += i;
            b[axis] += i;
            let (Some(base), Some(a)) = (base, address(g.ty(x), lx, &a)) else { return false };
            a.checked_sub(base) == address(g.ty(v), lv, &b)
        })
    })
}

/// Rule 4: the places of operand and result of a node without code are those that the operator's definition says.
fn check_view(g: &Graph, plan: &MemoryPlan, n: NodeId, x: ValueId, v: ValueId) -> Result<(), String> {
    let ((sx, ax), (sv, av)) = (locate(g, plan, x)?, locate(g, plan, v)?);
    if sx != sv {
        return Err(format!("view %{} lies in another space than its operand", g.value(v).name));
    }
    match g.op(n) {
        Op::Reshape(_) | Op::Identity(_) | Op::Relayout(_) if ax == av => Ok(()),
        Op::Slice(_) | Op::Split(_) => {
            let origin = first_element(g, n, v).ok_or("symbolic slice")?;
            match address(g.ty(x), g.value(x).layout, &origin) {
                Some(offset) if ax + offset == av => Ok(()),
                _ => Err(format!("view %{} begins at the wrong byte", g.value(v).name)),
            }
        }
        Op::Concat(_) if copies_in_place(g, plan, n, x, av, true)? => Ok(()),
        op => Err(format!("{} of %{} is no view", op.name(), g.value(v).name)),
    }
}

/// Whether operand `x` of a Concat lies where the Concat would copy it to: `every` time it is an operand, or at least once.
fn copies_in_place(
    g: &Graph,
    plan: &MemoryPlan,
    n: NodeId,
    x: ValueId,
    result: usize,
    every: bool,
) -> Result<bool, String> {
    let mut at = result;
    let (mut all, mut any) = (true, false);
    for y in g.operands(n).into_iter().flatten() {
        if y == x {
            let there = locate(g, plan, y)?.1 == at;
            (all, any) = (all && there, any || there);
        }
        at += stored_bytes(g, y).unwrap_or(0);
    }
    Ok(if every { all } else { any })
}
