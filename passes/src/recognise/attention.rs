//! Attention written out as two products with a softmax between them.
//!
//! ```text
//! matmul(softmax(matmul(q, k) * c + mask), v)         ->  attention(q', k', v', mask)      c and mask may be missing
//! transpose(attention(..)), features staying last     ->  attention(..) with its axes in that order
//! ```
//!
//! Operands are followed back through what only moves or scales them: heads that transposes bring before the tokens, slices
//! of one matrix of queries, keys and values, factors of queries and keys. As long as what they make is a strided [`View`]
//! of what they are made from, that is read in their place. Nodes that nothing else needs then are gone.
//!
//! Numbers: scores are summed in another order, and a factor of queries or keys is applied to queries once. Refused: types
//! other than f32; fewer queries than fill half a panel of lanes, for which two products are faster; rows so wide that the
//! scores are a small part of the work; rows too far apart for the displacements of one instruction; a mask that is one
//! number a query, which no exporter writes.

use super::{binary, first, times_number};
use crate::rewrite::{Found, No, Patch, Val, dims, operand, refuse, result, sole_use};
use nncc_ir::ops::attention::{Attention, Sizes, View};
use nncc_ir::ops::reshape::Reshape;
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::{DType, Dim, Graph, NodeId, Op, ValueId};

/// Queries below which half of the lanes of a panel of 16 would be idle.
const FEW_QUERIES: usize = 8;

/// Features beyond which a few queries and their results no longer stay in cache beside the scores.
const WIDE: usize = 512;

/// Elements between rows of an operand, of the mask and of the result, from which on 32 bits of displacement do not hold the
/// bytes of a tile of rows.
const FAR: usize = 1 << 22;

pub fn attention(g: &Graph, n: NodeId) -> Found {
    let Op::MatMul(_) = g.op(n) else { return Err(No::Match) };
    let (weights, v) = (operand(g, n, 0)?, operand(g, n, 1)?);
    let Op::Softmax(softmax) = g.op(weights.node) else { return Err(No::Match) };
    let scores = Scores::of(g, first(g, weights).ok_or(No::Match)?)?;
    let (q, k) = (operand(g, scores.product.node, 0)?, operand(g, scores.product.node, 1)?);
    let rank = g.ty(weights).rank();
    let same_rank = [q, k, v].iter().all(|&x| g.ty(x).rank() == rank);
    if !(2..=4).contains(&rank) || !same_rank || softmax.axis + 1 != rank {
        return Err(No::Match);
    }
    let (q_dims, k_dims, v_dims) = (extents(g, q)?, extents(g, k)?, extents(g, v)?);
    let ([batch, heads, queries, width], [.., keys], [.., values]) = (q_dims, k_dims, v_dims);
    if k_dims[..2] != q_dims[..2] || v_dims[..2] != q_dims[..2] {
        return refuse!("queries, keys and values have different heads");
    }
    let sizes = Sizes { batch, heads, queries, keys, width, values };
    if g.ty(q).dtype != DType::F32 {
        return refuse!("there is no kernel for {}", g.ty(q).dtype);
    }
    if [batch, heads, keys, width, values].contains(&0) || queries < FEW_QUERIES {
        return refuse!("{queries} queries fill too few lanes");
    }
    if width.max(values) > WIDE {
        return refuse!("heads of {} features are too wide to stay in cache", width.max(values));
    }
    if let Some(mask) = scores.mask
        && dims(g, mask)?.last() != Some(&keys)
    {
        return refuse!("the mask has not a number for each key");
    }
    let mut nodes = vec![scores.product.node];
    for inner in [weights].into_iter().chain(scores.inner) {
        sole_use(g, inner)?;
        nodes.push(inner.node);
    }
    nodes.push(n);
    let q = Held::find(g, q, q_dims, true, |view| view.strides[3] == 1);
    let mut k = Held::find(g, k, k_dims, true, |_| true);
    k.view.strides.swap(2, 3);
    let v = Held::find(g, v, v_dims, false, |_| true);
    let strides = [&q, &k, &v].into_iter().flat_map(|held| held.view.strides[2..].iter().copied());
    let of_a_token = batch.saturating_mul(heads).saturating_mul(values);
    if strides.chain([keys, of_a_token]).any(|stride| stride >= FAR) {
        return refuse!("rows lie more than {FAR} elements apart");
    }
    let scale = scores.scale * q.scale * k.scale;
    let op = Attention { sizes, q: q.view, k: k.view, v: v.view, scale, perm: vec![0, 1, 2, 3] };
    let mut patch = Patch::standing_for(&nodes);
    let operands: Vec<Val> = [q.source, k.source, v.source].into_iter().chain(scores.mask).map(Val::from).collect();
    let mut y = patch.op(op, &operands);
    if rank != 4 {
        let shape = dims(g, result(n))?.into_iter().map(Dim::from).collect();
        y = patch.op(Reshape { shape }, &[y]);
    }
    patch.replace(result(n), y);
    Ok(patch)
}

pub fn attention_transposed(g: &Graph, n: NodeId) -> Found {
    let Op::Transpose(t) = g.op(n) else { return Err(No::Match) };
    let x = operand(g, n, 0)?;
    let Op::Attention(attention) = g.op(x.node) else { return Err(No::Match) };
    if t.perm.last() != Some(&3) {
        return Err(No::Match);
    }
    sole_use(g, x)?;
    let perm = t.perm.iter().map(|&axis| attention.perm[axis]).collect();
    let operands: Vec<_> = g.operands(x.node).into_iter().map(|v| v.map(Val::from)).collect();
    let mut patch = Patch::standing_for(&[x.node, n]);
    let y = patch.op_optional(Attention { perm, ..attention.clone() }, operands);
    patch.replace(result(n), y);
    Ok(patch)
}

/// The dimensions of a value of rank 2 to 4, as four.
fn extents(g: &Graph, v: ValueId) -> Result<[usize; 4], No> {
    let dims = dims(g, v)?;
    let mut extents = [1; 4];
    extents[4 - dims.len()..].copy_from_slice(&dims);
    Ok(extents)
}

/// What the softmax is taken of: a product, scaled, with a mask added.
struct Scores {
    product: ValueId,
    scale: f64,
    mask: Option<ValueId>,
    /// The values from the product to the softmax, both ends included where they differ.
    inner: Vec<ValueId>,
}

impl Scores {
    fn of(g: &Graph, x: ValueId) -> Result<Scores, No> {
        let mut scores = Scores { product: x, scale: 1.0, mask: None, inner: vec![x] };
        if let Some((a, b)) = binary(g, x, BinaryFn::Add) {
            // The side that is a product is not the mask; the mask broadcasts to it.
            let is_product = |s: ValueId| scaled_product(g, s).is_some() && g.ty(s) == g.ty(x);
            let (s, mask) = match (is_product(a), is_product(b)) {
                (true, _) => (a, b),
                (_, true) => (b, a),
                _ => return Err(No::Match),
            };
            scores.mask = Some(mask);
            scores.inner.push(s);
            scores.product = s;
        }
        let (product, scale, inner) = scaled_product(g, scores.product).ok_or(No::Match)?;
        scores.inner.extend(inner);
        Ok(Scores { product, scale, ..scores })
    }
}

/// A product under factors that are numbers: the product, the factor, the values from below `v` to the product.
fn scaled_product(g: &Graph, v: ValueId) -> Option<(ValueId, f64, Vec<ValueId>)> {
    let (mut at, mut scale, mut inner) = (v, 1.0, Vec::new());
    while let Some((x, c)) = times_number(g, at).filter(|(x, _)| g.ty(*x) == g.ty(at)) {
        (at, scale) = (x, scale * c);
        inner.push(x);
    }
    matches!(g.op(at.node), Op::MatMul(_)).then_some((at, scale, inner))
}

/// An operand as a view of what holds it.
struct Held {
    source: ValueId,
    view: View,
    /// The factor that the operand has beyond its source.
    scale: f64,
}

impl Held {
    /// The farthest value back of which `v`, seen with these extents, is a view that suits.
    fn find(g: &Graph, v: ValueId, extents: [usize; 4], scales: bool, suits: impl Fn(&View) -> bool) -> Held {
        // From v back to what moves nothing any more.
        let mut path = vec![v];
        while let Some(before) = path.last().and_then(|&at| moved_from(g, at, scales)) {
            path.push(before);
        }
        let from = |start: usize| -> Option<Held> {
            let mut strided = Strided::of(g, path[start])?;
            for &at in path[..start].iter().rev() {
                strided = strided.through(g, at)?;
            }
            let strides = strided.reshaped(&extents)?.strides.try_into().ok()?;
            let view = View { offset: strided.offset, strides };
            suits(&view).then_some(Held { source: path[start], view, scale: strided.scale })
        };
        let [_, heads, rows, columns] = extents;
        let row_major = [heads * rows * columns, rows * columns, columns, 1];
        let itself = Held { source: v, view: View { offset: 0, strides: row_major }, scale: 1.0 };
        (1..path.len()).rev().find_map(from).unwrap_or(itself)
    }
}

/// The operand that `v` is a rearrangement of, or a multiple.
fn moved_from(g: &Graph, v: ValueId, scales: bool) -> Option<ValueId> {
    match g.op(v.node) {
        Op::Reshape(_) | Op::Transpose(_) | Op::Slice(_) | Op::Split(_) | Op::Identity(_) => first(g, v),
        _ if scales => times_number(g, v).map(|(x, _)| x).filter(|x| g.ty(*x) == g.ty(v)),
        _ => None,
    }
}

/// A tensor as a strided part of another.
struct Strided {
    dims: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
    scale: f64,
}

impl Strided {
    /// All of a value.
    fn of(g: &Graph, v: ValueId) -> Option<Strided> {
        let dims = g.ty(v).dims()?;
        let mut strides = vec![1; dims.len()];
        for a in (1..dims.len()).rev() {
            strides[a - 1] = dims[a].checked_mul(strides[a])?;
        }
        Some(Strided { dims, strides, offset: 0, scale: 1.0 })
    }

    /// The value `v`, whose operand this is.
    fn through(&self, g: &Graph, v: ValueId) -> Option<Strided> {
        let dims = g.ty(v).dims()?;
        let moved = |strides: Vec<usize>, elems: usize| Strided {
            dims: dims.clone(),
            strides,
            offset: self.offset + elems,
            scale: self.scale,
        };
        match g.op(v.node) {
            Op::Reshape(_) => self.reshaped(&dims),
            Op::Transpose(t) => Some(moved(t.perm.iter().map(|&a| self.strides[a]).collect(), 0)),
            Op::Slice(s) => {
                let steps = s.steps.iter().map(|&step| usize::try_from(step).ok());
                // A step along an axis of one element may be any number.
                let strides = steps.zip(&self.strides).map(|(step, stride)| step?.checked_mul(*stride));
                let starts = s.starts.iter().map(Dim::size);
                let first: Option<usize> = starts.zip(&self.strides).map(|(start, s)| Some(start? * s)).sum();
                Some(moved(strides.collect::<Option<_>>()?, first?))
            }
            Op::Split(s) => {
                let before: Option<usize> = s.sizes[..v.out as usize].iter().map(Dim::size).sum();
                Some(moved(self.strides.clone(), before? * self.strides[s.axis]))
            }
            Op::Identity(_) => Some(moved(self.strides.clone(), 0)),
            _ => {
                let (_, c) = times_number(g, v)?;
                Some(Strided { scale: self.scale * c, ..moved(self.strides.clone(), 0) })
            }
        }
    }

    /// The same elements under other dimensions, if they still are a strided part: each group of old axes that becomes a
    /// group of new ones must be one axis that is cut.
    fn reshaped(&self, dims: &[usize]) -> Option<Strided> {
        let old: Vec<(usize, usize)> =
            self.dims.iter().copied().zip(self.strides.iter().copied()).filter(|(n, _)| *n != 1).collect();
        let mut strides = vec![0; dims.len()];
        let (mut i, mut j) = (0, 0);
        while j < old.len() {
            let (first, start) = (i, j);
            let (mut new_elems, mut old_elems) = (*dims.get(i)?, old[j].0);
            (i, j) = (i + 1, j + 1);
            while new_elems != old_elems {
                if new_elems < old_elems {
                    new_elems = new_elems.checked_mul(*dims.get(i)?)?;
                    i += 1;
                } else {
                    old_elems = old_elems.checked_mul(old.get(j)?.0)?;
                    j += 1;
                }
            }
            if old[start..j].windows(2).any(|pair| pair[0].1 != pair[1].0 * pair[1].1) {
                return None;
            }
            let mut stride = old[j - 1].1;
            for axis in (first..i).rev() {
                strides[axis] = stride;
                stride *= dims[axis];
            }
        }
        let rest_is_one = dims[i..].iter().all(|&n| n == 1);
        rest_is_one.then(|| Strided { dims: dims.to_vec(), strides, offset: self.offset, scale: self.scale })
    }
}
