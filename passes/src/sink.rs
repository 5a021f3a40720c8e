//! Moves Transpose and Reshape below the operators that follow them, so that they meet their inverses and cancel, and so
//! that nothing stands between a matrix product or convolution and the elementwise operators that fuse with it.
//!
//! ```text
//! relu(transpose(x))                         -> transpose(relu(x))           every elementwise operator, if the other
//! add(transpose(x), transpose(y))            -> transpose(add(x, y))         operands are transposed alike, constant,
//! mul(transpose(x), c)                       -> transpose(mul(x, c'))        or of one element
//! concat, pad, reduce, softmax of transpose  -> transpose of it, on the axes where they come from
//! relu(reshape(x)), add(reshape(x), reshape(y)) -> reshape(relu(x)), ...     if no operand broadcasts along a split axis
//! add(reshape(x), y), x a matrix product     -> reshape(add(x, reshape(y)))  so that the residual fuses with the product; y is
//!                                               another's result only if that has users besides
//! ```
//!
//! Down, never up: so it ends. A Transpose or Reshape with other users stays, for it would be computed twice. Exact: the
//! same numbers are combined in the same way (a reduction sums in another order of its axes: within reassociation).
//! Cancelling itself is `canonicalize`'s work; its two rules run here as well.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use crate::rewrite::{Found, No, Patch, Rule, Val, operand, result, rewrite, sole_use};
use nncc_ir::ops::concat::Concat;
use nncc_ir::ops::pad::Pad;
use nncc_ir::ops::reduce::Reduce;
use nncc_ir::ops::reshape::Reshape;
use nncc_ir::ops::softmax::{LogSoftmax, Softmax};
use nncc_ir::ops::transpose::Transpose;
use nncc_ir::{Dim, Graph, NodeId, Op, Operands, ValueId};

/// The pass.
pub const PASS: Pass = Pass { name: "sink", level: OptLevel::O2, run };

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    rewrite(
        g,
        cx,
        &[
            Rule { name: "transpose_of_transpose", find: crate::canonicalize::transpose_of_transpose },
            Rule { name: "reshape_of_reshape", find: crate::canonicalize::reshape_of_reshape },
            Rule { name: "no_op", find: crate::canonicalize::no_op },
            Rule { name: "transpose_below_elementwise", find: transpose_below_elementwise },
            Rule { name: "transpose_below_concat", find: transpose_below_concat },
            Rule { name: "transpose_below_one", find: transpose_below_one },
            Rule { name: "reshape_below_elementwise", find: reshape_below_elementwise },
        ],
    )
}

/// The operands of an elementwise operator whose result `n` has one output.
fn elementwise(g: &Graph, n: NodeId) -> Result<Operands, No> {
    let operands = g.operands(n);
    let types: Vec<_> = operands.iter().flatten().map(|v| g.ty(*v)).collect();
    if operands.is_empty() || g.op(n).pointwise(&types).is_none() { Err(No::Match) } else { Ok(operands) }
}

/// `v` as a Transpose used only here.
fn transposed(g: &Graph, v: ValueId) -> Option<(&Transpose, ValueId)> {
    match g.op(v.node) {
        Op::Transpose(t) => Some((t, g.operand(v.node, 0)?)),
        _ => None,
    }
}

/// Accepts a value whose only user is `n`, be it several times; else refuses as [`sole_use`] does.
fn used_by_one(g: &Graph, v: ValueId, n: NodeId) -> Result<NodeId, No> {
    sole_use(g, v).or_else(|no| if g.users(v).all(|(m, _)| m == n) && !g.is_output(v) { Ok(v.node) } else { Err(no) })
}

fn one_element(g: &Graph, v: ValueId) -> bool {
    g.ty(v).shape.iter().all(|d| *d == Dim::Known(1))
}

fn transpose_below_elementwise(g: &Graph, n: NodeId) -> Found {
    let operands = elementwise(g, n)?;
    let shape = &g.ty(result(n)).shape;
    let perm = operands
        .iter()
        .flatten()
        .find_map(|v| transposed(g, *v).filter(|_| g.ty(*v).shape == *shape).map(|(t, _)| t.perm.clone()))
        .ok_or(No::Match)?;
    let mut p = Patch::standing_for(&[n]);
    let mut moved: Vec<Option<Val>> = Vec::new();
    for v in &operands {
        let Some(v) = *v else {
            moved.push(None);
            continue;
        };
        let new = match transposed(g, v) {
            Some((t, x)) if t.perm == perm => {
                used_by_one(g, v, n)?;
                x.into()
            }
            // A constant is turned back once, at compile time.
            _ if one_element(g, v) && g.ty(v).rank() == 0 => v.into(),
            _ if g.constant(v).is_some() => {
                let missing = perm.len() - g.ty(v).rank();
                let mut full = vec![Dim::Known(1); missing];
                full.extend(g.ty(v).shape.iter().cloned());
                let c = p.op(Reshape { shape: full }, &[v.into()]);
                p.op(Transpose { perm: inverse(&perm) }, &[c])
            }
            _ => return Err(No::Match),
        };
        moved.push(Some(new));
    }
    let y = p.op_optional(g.op(n).clone(), moved);
    let y = p.op(Transpose { perm }, &[y]);
    p.replace(result(n), y);
    Ok(p)
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut out = vec![0; perm.len()];
    for (a, &p) in perm.iter().enumerate() {
        out[p] = a;
    }
    out
}

fn transpose_below_concat(g: &Graph, n: NodeId) -> Found {
    let Op::Concat(c) = g.op(n) else { return Err(No::Match) };
    let operands: Vec<ValueId> = g.operands(n).into_iter().flatten().collect();
    let (first, _) = transposed(g, *operands.first().ok_or(No::Match)?).ok_or(No::Match)?;
    let mut inner = Vec::new();
    for v in &operands {
        let (t, x) = transposed(g, *v).ok_or(No::Match)?;
        if t.perm != first.perm {
            return Err(No::Match);
        }
        sole_use(g, *v)?;
        inner.push(x.into());
    }
    let mut p = Patch::standing_for(&[n]);
    let y = p.op(Concat { axis: first.perm[c.axis] }, &inner);
    let y = p.op(first.clone(), &[y]);
    p.replace(result(n), y);
    Ok(p)
}

/// Operators over one value that name axes.
fn transpose_below_one(g: &Graph, n: NodeId) -> Found {
    let v = operand(g, n, 0)?;
    let (t, x) = transposed(g, v).ok_or(No::Match)?;
    let back = |per_axis: &[i64]| {
        let mut out = vec![0; per_axis.len()];
        for (a, &p) in t.perm.iter().enumerate() {
            out[p] = per_axis[a];
        }
        out
    };
    let op: Op = match g.op(n) {
        Op::Softmax(s) => Softmax { axis: t.perm[s.axis] }.into(),
        Op::LogSoftmax(s) => LogSoftmax { axis: t.perm[s.axis] }.into(),
        Op::Pad(p) if g.operands(n).len() == 1 => {
            Pad { before: back(&p.before), after: back(&p.after), ..p.clone() }.into()
        }
        Op::Reduce(r) if r.keepdims => {
            let mut axes: Vec<usize> = r.axes.iter().map(|&a| t.perm[a]).collect();
            axes.sort_unstable();
            Reduce { axes, ..r.clone() }.into()
        }
        _ => return Err(No::Match),
    };
    // Softmax along the last axis is contiguous; moved to another one it would be slower than what the move saves.
    if let (Op::Softmax(_) | Op::LogSoftmax(_), Some(last)) = (g.op(n), t.perm.len().checked_sub(1))
        && t.perm[last] != last
    {
        return Err(No::Match);
    }
    sole_use(g, v)?;
    let mut p = Patch::standing_for(&[n]);
    let y = p.op(op, &[x.into()]);
    let y = p.op(t.clone(), &[y]);
    p.replace(result(n), y);
    Ok(p)
}

fn reshape_below_elementwise(g: &Graph, n: NodeId) -> Found {
    let operands = elementwise(g, n)?;
    let shape = &g.ty(result(n)).shape;
    let reshaped = |v: ValueId| match g.op(v.node) {
        Op::Reshape(_) if g.ty(v).shape == *shape => g.operand(v.node, 0),
        _ => None,
    };
    let mut below = operands.iter().flatten().filter_map(|v| reshaped(*v));
    let first = below.next().ok_or(No::Match)?;
    let x = if fuses(g, first, n) { first } else { below.find(|x| fuses(g, *x, n)).unwrap_or(first) };
    let inner = &g.ty(x).shape;
    // The longest run of equal trailing axes: an operand that varies only there means the same in both shapes.
    let tail = inner.iter().rev().zip(shape.iter().rev()).take_while(|(a, b)| a == b).count();
    let mut p = Patch::standing_for(&[n]);
    let mut moved: Vec<Option<Val>> = Vec::new();
    for v in &operands {
        let Some(v) = *v else {
            moved.push(None);
            continue;
        };
        let own = &g.ty(v).shape;
        let varies = own.iter().position(|d| *d != Dim::Known(1)).map_or(0, |first| own.len() - first);
        moved.push(Some(match reshaped(v) {
            Some(y) if g.ty(y).shape == *inner => {
                used_by_one(g, v, n)?;
                y.into()
            }
            // A product whose result gets more axes by what is added to it would fuse with none of that.
            _ if own == shape && inner.len() != shape.len() && fuses(g, v, n) && !fuses(g, x, n) => {
                return Err(No::Match);
            }
            _ if own.len() <= inner.len() && varies <= tail && own.len() <= shape.len() => v.into(),
            _ if own == shape && fuses(g, x, n) && !fuses(g, v, n) => {
                p.op(Reshape { shape: inner.clone() }, &[v.into()])
            }
            _ => return Err(No::Match),
        }));
    }
    let y = p.op_optional(g.op(n).clone(), moved);
    let y = p.op(Reshape { shape: shape.clone() }, &[y]);
    p.replace(result(n), y);
    Ok(p)
}

/// Whether the elementwise operator `n` over `v`, or over a Reshape of it, can fuse with a matrix product that `v` comes from: a
/// residual, which has users besides, cannot.
fn fuses(g: &Graph, v: ValueId, n: NodeId) -> bool {
    let on_the_way = |m: NodeId| m == n || matches!(g.op(m), Op::Reshape(_));
    follows_product(g, v, 4) && !g.is_output(v) && g.users(v).all(|(m, _)| on_the_way(m))
}

/// Whether `v` is a matrix product, or elementwise operators (up to `depth` of them) after one or after a Reshape of one.
fn follows_product(g: &Graph, v: ValueId, depth: usize) -> bool {
    match g.op(v.node) {
        Op::MatMul(_) | Op::Gemm(_) => true,
        Op::Reshape(_) if depth > 0 => g.operand(v.node, 0).is_some_and(|x| follows_product(g, x, depth - 1)),
        _ if depth > 0 => {
            elementwise(g, v.node).is_ok_and(|xs| xs.iter().flatten().any(|x| follows_product(g, *x, depth - 1)))
        }
        _ => false,
    }
}
