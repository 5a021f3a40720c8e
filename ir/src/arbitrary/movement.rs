//! Random operators that move elements.

use super::{Generator, Step};
use crate::ops::concat::{Concat, Split};
use crate::ops::expand::{Expand, Tile};
use crate::ops::gather::{Gather, GatherElements, GatherNd};
use crate::ops::one_hot::OneHot;
use crate::ops::pad::{Pad, PadMode};
use crate::ops::reshape::{Identity, Reshape};
use crate::ops::scatter::{ScatterElements, ScatterNd, ScatterReduction};
use crate::ops::slice::Slice;
use crate::ops::space_depth::{DepthOrder, DepthToSpace, SpaceToDepth};
use crate::ops::transpose::Transpose;
use crate::ops::trilu::Trilu;
use crate::{Dim, ValueId};

pub(super) const STEPS: &[Step] = &[
    transpose,
    reshape,
    concat,
    slice,
    pad,
    split,
    expand,
    tile,
    gather,
    gather_elements,
    gather_nd,
    scatter_elements,
    scatter_nd,
    depth_to_space,
    space_to_depth,
    one_hot,
    trilu,
    identity,
];

impl Generator<'_> {
    fn any(&mut self) -> Option<ValueId> {
        self.find(|_| true)
    }

    /// A value that has an axis, its dimensions and one of its axes.
    fn any_axis(&mut self) -> Option<(ValueId, Vec<usize>, usize)> {
        let x = self.find(|t| t.rank() > 0)?;
        let dims = self.sizes(x);
        let axis = self.below(dims.len());
        Some((x, dims, axis))
    }
}

fn known(dims: &[usize]) -> Vec<Dim> {
    dims.iter().map(|&d| Dim::from(d)).collect()
}

fn transpose(g: &mut Generator<'_>) -> Option<()> {
    let x = g.any()?;
    let mut perm: Vec<usize> = (0..g.sizes(x).len()).collect();
    for i in (1..perm.len()).rev() {
        let j = g.below(i + 1);
        perm.swap(i, j);
    }
    g.emit1(Transpose { perm }, x)
}

fn reshape(g: &mut Generator<'_>) -> Option<()> {
    let x = g.any()?;
    let mut dims = g.sizes(x);
    match g.below(4) {
        0 if dims.len() > 1 => {
            let a = g.below(dims.len() - 1);
            let merged = dims.remove(a + 1);
            dims[a] *= merged;
        }
        1 => {
            let a = g.below(dims.len() + 1);
            dims.insert(a, 1);
        }
        2 => {
            let factor = g.pick(&[2, 3]);
            let a = dims.iter().position(|d| d % factor == 0 && *d > 0)?;
            dims[a] /= factor;
            dims.insert(a, factor);
        }
        _ => dims.reverse(),
    }
    g.emit1(Reshape { shape: known(&dims) }, x)
}

fn concat(g: &mut Generator<'_>) -> Option<()> {
    let (x, dims, axis) = g.any_axis()?;
    let dtype = g.ty(x).dtype;
    let mut parts = vec![Some(x)];
    for _ in 0..g.below(3) {
        let fits = |t: &crate::TensorType| {
            t.dtype == dtype
                && t.rank() == dims.len()
                && (0..dims.len()).all(|a| a == axis || t.shape[a] == Dim::from(dims[a]))
        };
        let other = if g.coin() { g.find(fits) } else { None };
        let other = other.unwrap_or_else(|| {
            let mut dims = dims.clone();
            dims[axis] = g.dim();
            g.fresh(dtype, &dims)
        });
        let at = g.below(parts.len() + 1);
        parts.insert(at, Some(other));
    }
    g.emit(Concat { axis }, &parts)
}

fn split(g: &mut Generator<'_>) -> Option<()> {
    let (x, dims, axis) = g.any_axis()?;
    let mut left = dims[axis];
    let mut sizes = Vec::new();
    for _ in 0..g.below(3) {
        let n = g.below(left + 1);
        sizes.push(n);
        left -= n;
    }
    sizes.push(left);
    g.emit1(Split { axis, sizes: known(&sizes) }, x)
}

fn slice(g: &mut Generator<'_>) -> Option<()> {
    let x = g.any()?;
    let (mut starts, mut lens, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for d in g.sizes(x) {
        let kind = g.below(4);
        let (start, len, step) = match (kind, d) {
            (0 | 1, _) | (_, 0) => (0, d, 1),
            (2, _) => {
                let start = g.below(d);
                (start, g.below(d - start + 1), 1)
            }
            _ => {
                let step = g.pick(&[2, -1, 3, -2, i64::MAX]);
                let start = g.below(d);
                let reach = if step > 0 { d - 1 - start } else { start };
                (start, reach / step.unsigned_abs() as usize + 1, step)
            }
        };
        starts.push(Dim::from(start));
        lens.push(Dim::from(len));
        steps.push(step);
    }
    g.emit1(Slice { starts, lens, steps }, x)
}

fn pad(g: &mut Generator<'_>) -> Option<()> {
    let x = g.any()?;
    let rank = g.sizes(x).len();
    let mode = g.pick(&[PadMode::Constant, PadMode::Reflect, PadMode::Edge, PadMode::Wrap]);
    let mut amounts = || -> Vec<i64> { (0..rank).map(|_| g.pick(&[0, 1, 0, 2, -1, 0, 3, 7])).collect() };
    let (before, after) = (amounts(), amounts());
    let value = if g.below(3) == 2 {
        let dtype = g.ty(x).dtype;
        Some(g.fresh(dtype, &[]))
    } else {
        None
    };
    let number = g.pick(&[0.0, 1.0, 7.0]);
    g.emit(Pad { before, after, mode, value: number }, &[Some(x), value])
}

fn expand(g: &mut Generator<'_>) -> Option<()> {
    let x = g.any()?;
    let mut dims = g.sizes(x);
    for d in dims.iter_mut().filter(|d| **d == 1) {
        *d = g.dim();
    }
    if g.coin() {
        let d = g.dim();
        dims.insert(0, d);
    }
    g.emit1(Expand { shape: known(&dims) }, x)
}

fn tile(g: &mut Generator<'_>) -> Option<()> {
    let x = g.any()?;
    let repeats = (0..g.sizes(x).len()).map(|_| g.pick(&[1, 2, 1, 3])).collect();
    g.emit1(Tile { repeats }, x)
}

fn gather(g: &mut Generator<'_>) -> Option<()> {
    let (x, dims, axis) = g.any_axis()?;
    let shape = g.pick(&[vec![3], vec![], vec![2, 2], vec![1], vec![0]]);
    let idx = g.indices(&shape, dims[axis])?;
    g.emit(Gather { axis }, &[Some(x), Some(idx)])
}

fn gather_elements(g: &mut Generator<'_>) -> Option<()> {
    let (x, dims, axis) = g.any_axis()?;
    let mut shape: Vec<usize> = dims.iter().map(|&d| d - g.below(2).min(d)).collect();
    shape[axis] = g.dim();
    let idx = g.indices(&shape, dims[axis])?;
    g.emit(GatherElements { axis }, &[Some(x), Some(idx)])
}

/// An index tuple fits every axis that it indexes when it fits the shortest.
fn nd_indices(g: &mut Generator<'_>, lead: &[usize], axes: &[usize]) -> Option<ValueId> {
    let shortest = axes.iter().copied().min().unwrap_or(1);
    g.indices(&[lead, &[axes.len()]].concat(), shortest)
}

fn gather_nd(g: &mut Generator<'_>) -> Option<()> {
    let (x, dims, _) = g.any_axis()?;
    let batch_dims = g.below(dims.len());
    let k = 1 + g.below(dims.len() - batch_dims);
    let mut lead = dims[..batch_dims].to_vec();
    if g.coin() {
        lead.push(g.dim());
    }
    let idx = nd_indices(g, &lead, &dims[batch_dims..batch_dims + k])?;
    g.emit(GatherNd { batch_dims }, &[Some(x), Some(idx)])
}

fn scatter_elements(g: &mut Generator<'_>) -> Option<()> {
    let (x, dims, axis) = g.any_axis()?;
    let mut shape: Vec<usize> = dims.iter().map(|&d| d - g.below(2).min(d)).collect();
    shape[axis] = g.below(dims[axis] + 1);
    let idx = g.indices(&shape, dims[axis])?;
    let dtype = g.ty(x).dtype;
    let updates = g.fresh(dtype, &shape);
    let reduction = reduction(g);
    g.emit(ScatterElements { axis, reduction }, &[Some(x), Some(idx), Some(updates)])
}

fn scatter_nd(g: &mut Generator<'_>) -> Option<()> {
    let (x, dims, _) = g.any_axis()?;
    let k = 1 + g.below(dims.len());
    let count = g.dim();
    let idx = nd_indices(g, &[count], &dims[..k])?;
    let dtype = g.ty(x).dtype;
    let updates = g.fresh(dtype, &[&[count], &dims[k..]].concat());
    let reduction = reduction(g);
    g.emit(ScatterNd { reduction }, &[Some(x), Some(idx), Some(updates)])
}

/// Sums and products round, but in one order: they are exact here too.
fn reduction(g: &mut Generator<'_>) -> ScatterReduction {
    use ScatterReduction::{Add, Max, Min, Mul, None};
    g.pick(&[None, Add, None, Max, Mul, Min])
}

fn depth_to_space(g: &mut Generator<'_>) -> Option<()> {
    let x = g.find(|t| t.rank() == 4)?;
    let op = DepthToSpace { block: g.pick(&[2, 1, 3]), mode: g.pick(&[DepthOrder::Dcr, DepthOrder::Crd]) };
    g.emit1(op, x)
}

fn space_to_depth(g: &mut Generator<'_>) -> Option<()> {
    let x = g.find(|t| t.rank() == 4)?;
    let block = g.pick(&[2, 1, 3]);
    g.emit1(SpaceToDepth { block }, x)
}

fn one_hot(g: &mut Generator<'_>) -> Option<()> {
    let dims = g.dims();
    let (axis, depth) = (g.below(dims.len() + 1), g.dim());
    let idx = g.indices(&dims, depth.max(1))?;
    let dtype = g.dtype();
    let values = g.fresh(dtype, &[2]);
    g.emit(OneHot { axis, depth }, &[Some(idx), Some(values)])
}

fn trilu(g: &mut Generator<'_>) -> Option<()> {
    let x = g.find(|t| t.rank() >= 2)?;
    let op = Trilu { upper: g.coin(), k: g.pick(&[0, 1, -1, 3, -20]) };
    g.emit1(op, x)
}

fn identity(g: &mut Generator<'_>) -> Option<()> {
    let x = g.any()?;
    g.emit1(Identity {}, x)
}
