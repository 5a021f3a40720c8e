//! Joins values into buffers: values that lie in one another's storage at fixed distances.
//!
//! A buffer is a set of values with their offsets from each other, the span of bytes that they cover, and the steps from
//! the first write to the last read. Joining is a union-find with distances. In this order, because each step narrows what
//! the next may do:
//!
//! ```text
//! outputs    the value of output i is bound to the caller's buffer, and its buffer with it
//! views      Reshape, Split, ...: the result joins its operand's buffer, unless both are bound or it would stick out
//! concats    from the last to the first, so that of nested ones the largest is the home: operands join the result's
//!            buffer. A Concat whose operands are neighbours already is a view of them (DenseNet: x, then x|a, x|a|b, ...)
//! in place   in order: the result joins the buffer of an operand of which no byte is needed afterwards
//! ```

use super::sharing::{in_place, parts, stored_bytes, views};
use super::{Place, is_given};
use nncc_ir::{Graph, NodeId, Op, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};

/// Bytes `low .. high` of a buffer that are taken from step `first` to step `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// The first byte.
    pub low: usize,
    /// The byte behind the last.
    pub high: usize,
    /// The step that writes them.
    pub first: usize,
    /// The step that reads them last.
    pub last: usize,
}

/// A span of the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Bytes.
    pub size: usize,
    /// When which bytes are taken; at least one.
    pub segments: Vec<Segment>,
}

impl Buffer {
    /// The step that writes first.
    pub fn first(&self) -> usize {
        self.segments.iter().map(|s| s.first).min().unwrap_or(0)
    }

    /// The step that reads last.
    pub fn last(&self) -> usize {
        self.segments.iter().map(|s| s.last).max().unwrap_or(0)
    }
}

/// Segments of one buffer that are kept apart; a buffer of more values is taken as a whole while any of them lives.
const MAX_SEGMENTS: usize = 256;

/// The result of sharing.
pub struct Shared {
    /// The buffers that need arena.
    pub buffers: Vec<Buffer>,
    /// Nodes without code.
    pub elided: FxHashSet<NodeId>,
    homes: Vec<(ValueId, Home)>,
}

enum Home {
    Buffer(usize, usize),
    Bound(Bound, usize),
}

impl Shared {
    /// The place of each value, given the offsets of the buffers.
    pub fn places(&self, g: &Graph, offsets: &[usize]) -> FxHashMap<ValueId, Place> {
        let place = |v: &ValueId, home: &Home| match *home {
            _ if matches!(g.op(v.node), Op::Constant(_)) => Place::Constant,
            Home::Buffer(b, at) => Place::Arena { offset: offsets[b] + at },
            Home::Bound(Bound::Input(index), offset) => Place::Input { index, offset },
            Home::Bound(Bound::Output(index), offset) => Place::Output { index, offset },
            Home::Bound(Bound::Constant, _) => Place::Constant,
        };
        self.homes.iter().map(|(v, home)| (*v, place(v, home))).collect()
    }
}

/// A buffer that is not ours to place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Input(usize),
    Output(usize),
    Constant,
}

/// A group of the union-find, valid at its root. Positions are relative to the root value's first byte.
struct Group {
    low: i64,
    high: i64,
    first: usize,
    last: usize,
    bound: Option<(Bound, i64)>, // the position at which the caller's buffer begins
    /// Does it hold one value alone, the next one of a state?
    sealed: bool,
    members: Vec<usize>,
}

struct Groups {
    parent: Vec<(usize, i64)>, // and the position relative to the parent
    group: Vec<Option<Group>>,
    size: Vec<i64>,
    def: Vec<usize>,
    last: Vec<usize>,
}

/// Joins what can be joined. Every size is known.
pub fn share(g: &Graph, order: &[NodeId], concat_in_place: bool) -> Shared {
    let mut step_of = vec![0usize; g.node_bound()];
    for (step, n) in order.iter().enumerate() {
        step_of[n.index()] = step;
    }
    let values: Vec<ValueId> = order.iter().flat_map(|n| g.results(*n)).collect();
    let index: FxHashMap<ValueId, usize> = values.iter().enumerate().map(|(i, v)| (*v, i)).collect();
    let mut groups = Groups::new(g, &values, &step_of, order.len());
    for (i, (_, v)) in g.outputs().iter().enumerate() {
        groups.bind(index[v], Bound::Output(i));
        if g.states().iter().any(|state| state.1 == i) {
            groups.seal(index[v]);
        }
    }
    for (i, n) in g.inputs().iter().enumerate() {
        groups.bind(index[&ValueId { node: *n, out: 0 }], Bound::Input(i));
    }
    let mut elided = FxHashSet::default();
    for &n in order {
        if let Op::Constant(_) = g.op(n) {
            groups.bind(index[&ValueId { node: n, out: 0 }], Bound::Constant);
        }
        let views = views(g, n);
        let joins: Vec<(usize, usize, i64)> =
            views.iter().map(|v| (index[&v.operand], index[&v.result], v.offset as i64)).collect();
        // Each join is looked at by itself; two results that are bound would bind the operand twice.
        let bound = joins.iter().filter(|j| groups.bound(j.1).is_some()).count();
        if !joins.is_empty() && bound <= 1 && joins.iter().all(|&(x, v, at)| groups.may_view(x, v, at)) {
            for (x, v, at) in joins {
                groups.join(x, v, at);
            }
            elided.insert(n);
        }
    }
    for &n in order.iter().rev().filter(|_| concat_in_place) {
        let Some(parts) = parts(g, n) else { continue };
        let v = index[&ValueId { node: n, out: 0 }];
        let parts: Vec<(usize, i64)> = parts.iter().map(|(x, at)| (index[x], *at as i64)).collect();
        if let Some(start) = groups.neighbours(&parts)
            && groups.may_view(start, v, 0)
        {
            groups.join(start, v, 0);
        } else {
            for &(x, at) in &parts {
                // A part of x that goes elsewhere would be read inside of what is written.
                let apart =
                    |&(w, place): &(usize, i64)| w == x || groups.distance(x, w).is_none_or(|d| d == place - at);
                if parts.iter().all(apart) && groups.may_become_part(x, v, at) {
                    groups.join(v, x, at);
                }
            }
        }
        if parts.iter().all(|&(x, at)| groups.distance(v, x) == Some(at)) {
            elided.insert(n);
        }
    }
    for (step, &n) in order.iter().enumerate() {
        if is_given(g, n) || elided.contains(&n) {
            continue;
        }
        let v = index[&ValueId { node: n, out: 0 }];
        let candidates: Vec<usize> = in_place(g, n).iter().map(|x| index[x]).collect();
        let operands: Vec<usize> = g.operands(n).iter().flatten().map(|x| index[x]).collect();
        let fits = |x: &usize, groups: &mut Groups| {
            groups.may_overwrite(*x, v, step) && groups.read_alike(*x, &operands, &candidates)
        };
        if let Some(x) = candidates.iter().copied().find(|x| fits(x, &mut groups)) {
            groups.join(x, v, 0);
        }
    }
    groups.finish(values, elided)
}

impl Groups {
    fn new(g: &Graph, values: &[ValueId], step_of: &[usize], steps: usize) -> Groups {
        let size: Vec<i64> = values.iter().map(|v| stored_bytes(g, *v).unwrap_or(0) as i64).collect();
        let last: Vec<usize> = values
            .iter()
            .map(|v| {
                let used = g.users(*v).map(|(n, _)| step_of[n.index()]).max().unwrap_or(step_of[v.node.index()]);
                if g.is_output(*v) { steps } else { used }
            })
            .collect();
        let def: Vec<usize> = values.iter().map(|v| step_of[v.node.index()]).collect();
        let group = (0..values.len())
            .map(|i| {
                Some(Group {
                    low: 0,
                    high: size[i],
                    first: def[i],
                    last: last[i],
                    bound: None,
                    sealed: false,
                    members: vec![i],
                })
            })
            .collect();
        Groups { parent: (0..values.len()).map(|i| (i, 0)).collect(), group, size, def, last }
    }

    /// The root of a value's group, and the value's position relative to it.
    fn find(&mut self, i: usize) -> (usize, i64) {
        let (mut root, mut at) = (i, 0);
        while self.parent[root].0 != root {
            at += self.parent[root].1;
            root = self.parent[root].0;
        }
        self.parent[i] = (root, at); // halving would do less; this alone keeps paths short
        (root, at)
    }

    fn group(&self, root: usize) -> &Group {
        self.group[root].as_ref().expect("only roots are asked for")
    }

    fn bind(&mut self, i: usize, bound: Bound) {
        let (root, at) = self.find(i);
        if let Some(group) = &mut self.group[root] {
            group.bound.get_or_insert((bound, at));
        }
    }

    /// Lets nothing join the group.
    fn seal(&mut self, i: usize) {
        let (root, _) = self.find(i);
        if let Some(group) = &mut self.group[root] {
            group.sealed = true;
        }
    }

    /// The position of `b` relative to `a` if they are in one group.
    fn distance(&mut self, a: usize, b: usize) -> Option<i64> {
        let ((ra, pa), (rb, pb)) = (self.find(a), self.find(b));
        (ra == rb).then_some(pb - pa)
    }

    /// Puts `b` at position `at` of `a`.
    fn join(&mut self, a: usize, b: usize, at: i64) {
        let ((ra, pa), (rb, pb)) = (self.find(a), self.find(b));
        if ra == rb {
            return;
        }
        // Position of the root of b relative to the root of a; the smaller group moves.
        let shift = pa + at - pb;
        let (to, from, shift) = if self.group(ra).members.len() >= self.group(rb).members.len() {
            (ra, rb, shift)
        } else {
            (rb, ra, -shift)
        };
        let moved = self.group[from].take().expect("a root");
        self.parent[from] = (to, shift);
        let group = self.group[to].as_mut().expect("a root");
        group.low = group.low.min(moved.low + shift);
        group.high = group.high.max(moved.high + shift);
        group.first = group.first.min(moved.first);
        group.last = group.last.max(moved.last);
        group.bound = group.bound.or(moved.bound.map(|(bound, p)| (bound, p + shift)));
        group.members.extend(moved.members);
    }

    /// Whether the union of two groups, `b` at position `at` of `a`, stays inside a caller's buffer if one is bound.
    fn fits_bound(&mut self, a: usize, b: usize, at: i64) -> bool {
        let ((ra, pa), (rb, pb)) = (self.find(a), self.find(b));
        if ra == rb {
            return false;
        }
        let shift = pa + at - pb;
        let (ga, gb) = (self.group(ra), self.group(rb));
        if ga.sealed || gb.sealed {
            return false;
        }
        match (ga.bound, gb.bound) {
            (Some(_), Some(_)) => false,
            (None, None) => true,
            // The bound group covers the caller's buffer exactly: it contains the bound value itself.
            (Some(_), None) => gb.low + shift >= ga.low && gb.high + shift <= ga.high,
            (None, Some(_)) => ga.low - shift >= gb.low && ga.high - shift <= gb.high,
        }
    }

    fn bound(&mut self, i: usize) -> Option<Bound> {
        let (root, _) = self.find(i);
        self.group(root).bound.map(|(b, _)| b)
    }

    /// Whether result `v` can be a stretch of `x`.
    fn may_view(&mut self, x: usize, v: usize, at: i64) -> bool {
        self.bound(x) != Some(Bound::Constant) && self.fits_bound(x, v, at)
    }

    /// Whether operand `x` can be written at position `at` of the Concat's result `v` in the first place: nothing of its
    /// buffer lies outside of the part, and it is ours to place.
    fn may_become_part(&mut self, x: usize, v: usize, at: i64) -> bool {
        let (root, p) = self.find(x);
        let group = self.group(root);
        group.bound.is_none() && group.low == p && group.high == p + self.size[x] && self.fits_bound(v, x, at)
    }

    /// The first of the parts if all lie in one group as they lie in the Concat's result.
    fn neighbours(&mut self, parts: &[(usize, i64)]) -> Option<usize> {
        let (first, _) = *parts.first()?;
        parts.iter().all(|&(x, at)| self.distance(first, x) == Some(at)).then_some(first)
    }

    /// Whether result `v` of the node at `step` can take the bytes of its operand `x`: they are nobody's afterwards.
    fn may_overwrite(&mut self, x: usize, v: usize, step: usize) -> bool {
        if matches!(self.bound(x), Some(Bound::Input(_) | Bound::Constant)) || !self.fits_bound(x, v, 0) {
            return false;
        }
        let ((rx, px), (rv, pv)) = (self.find(x), self.find(v));
        let (gx, gv) = (self.group(rx), self.group(rv));
        let whole = |group: &Group, p: i64, size: i64| group.low == p && group.high == p + size;
        let (x_whole, v_whole) = (whole(gx, px, self.size[x]), whole(gv, pv, self.size[v]));
        // A part of a larger buffer is taken only while that buffer is there anyway.
        let pays = match (x_whole, v_whole) {
            (true, true) => true,
            (false, true) => gx.last >= gv.last,
            (true, false) => gv.first <= gx.first,
            (false, false) => false,
        };
        pays && self.unused_after(rx, px, self.size[x], step) && self.unused_before(rv, pv, self.size[v], v)
    }

    /// Whether every operand that shares bytes with `x` is read as `x` is: at the element that is written, from the same
    /// byte. A slice of `x` that is broadcast, or a view that a root reads at large, would be overwritten too early.
    fn read_alike(&mut self, x: usize, operands: &[usize], candidates: &[usize]) -> bool {
        operands.iter().all(|&w| match self.distance(x, w) {
            None => true,
            Some(0) => candidates.contains(&w) || self.size[w] == 0,
            Some(d) => d >= self.size[x] || d + self.size[w] <= 0,
        })
    }

    /// Whether no value that overlaps `[p, p + size)` of the group is read behind `step`.
    fn unused_after(&self, root: usize, p: i64, size: i64, step: usize) -> bool {
        let group = self.group(root);
        group.last <= step || group.members.iter().rev().all(|&m| self.last[m] <= step || !self.overlaps(m, p, size))
    }

    /// Whether `[p, p + size)` of the group, which `v` covers, holds nothing before `v` is written.
    fn unused_before(&self, root: usize, p: i64, size: i64, v: usize) -> bool {
        let members = &self.group(root).members;
        members.iter().all(|&m| self.def[m] >= self.def[v] || !self.overlaps(m, p, size))
    }

    fn overlaps(&self, m: usize, p: i64, size: i64) -> bool {
        let at = self.position(m);
        at < p + size && p < at + self.size[m]
    }

    /// What a group takes of the arena: for each stretch of bytes the steps from the first write to the last read of the
    /// values that are exactly it. A value and its views, or those that overwrite each other, touch in time.
    fn buffer(&self, root: usize) -> Buffer {
        let group = self.group(root);
        let size = (group.high - group.low) as usize;
        let whole = Segment { low: 0, high: size, first: group.first, last: group.last };
        if group.members.len() > MAX_SEGMENTS {
            return Buffer { size, segments: vec![whole] };
        }
        let mut segments: Vec<Segment> = Vec::new();
        let mut members: Vec<Segment> = group
            .members
            .iter()
            .map(|&m| {
                let low = (self.position(m) - group.low) as usize;
                Segment { low, high: low + self.size[m] as usize, first: self.def[m], last: self.last[m] }
            })
            .collect();
        members.sort_unstable();
        for s in members {
            match segments.last_mut() {
                Some(t) if (t.low, t.high) == (s.low, s.high) && s.first <= t.last => t.last = t.last.max(s.last),
                _ => segments.push(s),
            }
        }
        Buffer { size, segments }
    }

    /// The position of a member relative to its root.
    fn position(&self, m: usize) -> i64 {
        let (mut at, mut i) = (0, m);
        while self.parent[i].0 != i {
            at += self.parent[i].1;
            i = self.parent[i].0;
        }
        at
    }

    fn finish(mut self, values: Vec<ValueId>, elided: FxHashSet<NodeId>) -> Shared {
        let mut buffers: Vec<Buffer> = Vec::new();
        let mut number: FxHashMap<usize, usize> = FxHashMap::default();
        let homes = (0..values.len())
            .map(|i| {
                let (root, p) = self.find(i);
                let group = self.group[root].as_ref().expect("a root");
                let home = match group.bound {
                    Some((bound, start)) => Home::Bound(bound, (p - start) as usize),
                    None => {
                        let b = *number.entry(root).or_insert_with(|| {
                            buffers.push(self.buffer(root));
                            buffers.len() - 1
                        });
                        Home::Buffer(b, (p - group.low) as usize)
                    }
                };
                (values[i], home)
            })
            .collect();
        Shared { buffers, elided, homes }
    }
}
