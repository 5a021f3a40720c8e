//! One spelling for each idea, so that every later pattern is written once; and the removal of what does nothing.
//!
//! ```text
//! identity(x), same-shape reshape, expand, tile; identity transpose, cast, pad, slice; concat or split of one    -> x
//! rrelu without a seed                                                                                           -> leaky_relu
//! dropout without a seed                                                                                         -> x
//! x * 1, x / 1, x - 0, x + -0, x ^ 1                                                                             -> x
//! reshape(reshape(x)), transpose(transpose(x))         -> one of them
//! transpose that only moves axes of length 1           -> reshape
//! c + x, c * x, min, max                               -> the constant is the second operand
//! x - c                                                -> x + -c
//! x ^ 2                                                -> x * x
//! relu(relu(x))                                        -> relu(x)
//! add(expand(x), y)                                    -> add(x, y) where y has the shape already
//! reduce(keepdims=false)                               -> reshape(reduce(keepdims=true)), arg_reduce too
//! gather of one constant index         -> reshape(slice)
//! average_pool, max_pool over the whole map            -> reduce over the spatial axes
//! ```
//!
//! All are exact, bit by bit (a NaN stays a NaN). `x + 0` is refused for floats: it turns -0 into +0.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use crate::rewrite::{Found, No, Patch, Rule, Val, operand, refuse, result, rewrite, splat};
use nncc_ir::ops::activation::LeakyRelu;
use nncc_ir::ops::elementwise::Binary;
use nncc_ir::ops::reduce::{ArgReduce, Reduce, ReduceKind};
use nncc_ir::ops::reshape::Reshape;
use nncc_ir::ops::slice::Slice;
use nncc_ir::ops::transpose::Transpose;
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::{Dim, Graph, NodeId, Op, ValueId};

/// The pass.
pub const PASS: Pass = Pass { name: "canonicalize", level: OptLevel::O1, run };

const RULES: &[Rule] = &[
    Rule { name: "no_op", find: no_op },
    Rule { name: "neutral_constant", find: neutral_constant },
    Rule { name: "reshape_of_reshape", find: reshape_of_reshape },
    Rule { name: "transpose_of_transpose", find: transpose_of_transpose },
    Rule { name: "transpose_as_reshape", find: transpose_as_reshape },
    Rule { name: "constant_second", find: constant_second },
    Rule { name: "subtract_constant", find: subtract_constant },
    Rule { name: "square", find: square },
    Rule { name: "relu_of_relu", find: relu_of_relu },
    Rule { name: "mean_slope", find: mean_slope },
    Rule { name: "needless_expand", find: needless_expand },
    Rule { name: "keep_reduced_axes", find: keep_reduced_axes },
    Rule { name: "global_pool", find: global_pool },
    Rule { name: "gather_one", find: gather_one },
];

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    rewrite(g, cx, RULES)
}

/// An operator whose result is its first operand.
pub(crate) fn no_op(g: &Graph, n: NodeId) -> Found {
    let x = operand(g, n, 0)?;
    let same_type = g.node(n).outputs().len() == 1 && g.ty(result(n)) == g.ty(x);
    let nothing = same_type
        && match g.op(n) {
            Op::Identity(_) | Op::Reshape(_) | Op::Expand(_) | Op::Cast(_) | Op::Tile(_) => true,
            Op::Relayout(_) => g.value(result(n)).layout == g.value(x).layout,
            Op::Transpose(t) => t.perm.is_sorted(),
            Op::Pad(p) => p.before.iter().chain(&p.after).all(|&p| p == 0),
            Op::Slice(s) => s.steps.iter().all(|&s| s == 1), // equal lengths: everything is taken
            Op::Concat(_) => g.operands(n).len() == 1,
            Op::Dropout(_) => operand(g, n, 1).is_err(), // without a seed
            Op::Split(_) => true,
            Op::Reduce(r) => {
                use ReduceKind::{Max, Mean, Min, Prod, Sum};
                r.axes.is_empty() && matches!(r.kind, Max | Mean | Min | Prod | Sum)
            }
            _ => false,
        };
    if nothing { Ok(Patch::forward(result(n), x)) } else { Err(No::Match) }
}

/// An RReLU in evaluation.
fn mean_slope(g: &Graph, n: NodeId) -> Found {
    match g.op(n) {
        Op::RRelu(r) if operand(g, n, 1).is_err() => {
            Ok(Patch::one(&[n], n, LeakyRelu { alpha: r.mean() }, &[operand(g, n, 0)?.into()]))
        }
        _ => Err(No::Match),
    }
}

/// `x * 1` and its like.
fn neutral_constant(g: &Graph, n: NodeId) -> Found {
    let Op::Binary(b) = g.op(n) else { return Err(No::Match) };
    let (x, c) = (operand(g, n, 0)?, operand(g, n, 1)?);
    let Some(value) = splat(g, c) else { return Err(No::Match) };
    if g.ty(result(n)) != g.ty(x) {
        return Err(No::Match); // it broadcasts x
    }
    let float = g.ty(x).dtype.is_float();
    let neutral = match b.function {
        BinaryFn::Mul | BinaryFn::Div | BinaryFn::Pow => value == 1.0,
        BinaryFn::Sub => value == 0.0 && (!float || value.is_sign_positive()),
        BinaryFn::Add if value == 0.0 && float && value.is_sign_positive() => {
            return refuse!("x + 0 is not x: it turns -0 into +0");
        }
        BinaryFn::Add => value == 0.0,
        _ => false,
    };
    if neutral { Ok(Patch::forward(result(n), x)) } else { Err(No::Match) }
}

pub(crate) fn reshape_of_reshape(g: &Graph, n: NodeId) -> Found {
    let Op::Reshape(r) = g.op(n) else { return Err(No::Match) };
    let inner = operand(g, n, 0)?.node;
    let Op::Reshape(_) = g.op(inner) else { return Err(No::Match) };
    let x = operand(g, inner, 0)?;
    Ok(Patch::one(&[inner, n], n, r.clone(), &[x.into()]))
}

pub(crate) fn transpose_of_transpose(g: &Graph, n: NodeId) -> Found {
    let Op::Transpose(outer) = g.op(n) else { return Err(No::Match) };
    let inner_node = operand(g, n, 0)?.node;
    let Op::Transpose(inner) = g.op(inner_node) else { return Err(No::Match) };
    let x = operand(g, inner_node, 0)?;
    // Axis a of the result is axis outer[a] of the middle, which is axis inner[outer[a]] of x.
    let perm = outer.perm.iter().map(|&a| inner.perm[a]).collect();
    Ok(Patch::one(&[inner_node, n], n, Transpose { perm }, &[x.into()]))
}

/// Axes of length 1 may stand anywhere: a transpose that keeps the others in order moves no element.
fn transpose_as_reshape(g: &Graph, n: NodeId) -> Found {
    let Op::Transpose(t) = g.op(n) else { return Err(No::Match) };
    let x = operand(g, n, 0)?;
    let long: Vec<usize> = t.perm.iter().copied().filter(|&a| g.ty(x).shape[a] != Dim::Known(1)).collect();
    if !long.is_sorted() {
        return Err(No::Match);
    }
    Ok(Patch::one(&[n], n, Reshape { shape: g.ty(result(n)).shape.clone() }, &[x.into()]))
}

/// Whether `f(a, b) = f(b, a)`.
fn commutes(f: BinaryFn) -> bool {
    use BinaryFn::*;
    matches!(f, Add | Mul | Min | Max | And | Or | Xor | BitAnd | BitOr | BitXor)
}

fn constant_second(g: &Graph, n: NodeId) -> Found {
    let Op::Binary(b) = g.op(n) else { return Err(No::Match) };
    let (x, y) = (operand(g, n, 0)?, operand(g, n, 1)?);
    if !commutes(b.function) || g.constant(x).is_none() || g.constant(y).is_some() {
        return Err(No::Match);
    }
    Ok(Patch::one(&[n], n, b.clone(), &[y.into(), x.into()]))
}

/// `x - c = x + (-c)`: exact, and one pattern less for everybody.
fn subtract_constant(g: &Graph, n: NodeId) -> Found {
    let Op::Binary(Binary { function: BinaryFn::Sub }) = g.op(n) else { return Err(No::Match) };
    let (x, c) = (operand(g, n, 0)?, operand(g, n, 1)?);
    let ty = g.ty(c);
    let (Some(value), true) = (splat(g, c), ty.dtype.is_float() && g.constant(x).is_none()) else {
        return Err(No::Match);
    };
    let dims = ty.dims().ok_or(No::Match)?;
    let mut p = Patch::standing_for(&[n]);
    let scalar = nncc_ir::Tensor::from_f64(ty.dtype, &[], &[-value]);
    let c = p.constant("", nncc_ir::Constant::splat(&scalar, &dims).ok_or(No::Match)?);
    let y = p.op(Binary { function: BinaryFn::Add }, &[x.into(), c]);
    p.replace(result(n), y);
    Ok(p)
}

/// `x ^ 2 = x * x`: the square is exact before rounding, so both round the same number.
fn square(g: &Graph, n: NodeId) -> Found {
    let Op::Binary(Binary { function: BinaryFn::Pow }) = g.op(n) else { return Err(No::Match) };
    let (x, c) = (operand(g, n, 0)?, operand(g, n, 1)?);
    if splat(g, c) != Some(2.0) || g.ty(x) != g.ty(result(n)) {
        return Err(No::Match);
    }
    Ok(Patch::one(&[n], n, Binary { function: BinaryFn::Mul }, &[x.into(), x.into()]))
}

fn relu_of_relu(g: &Graph, n: NodeId) -> Found {
    let Op::Relu(_) = g.op(n) else { return Err(No::Match) };
    let x = operand(g, n, 0)?;
    if matches!(g.op(x.node), Op::Relu(_)) { Ok(Patch::forward(result(n), x)) } else { Err(No::Match) }
}

/// An elementwise operator broadcasts by itself: an Expand before it is needless where another operand has the shape.
fn needless_expand(g: &Graph, n: NodeId) -> Found {
    let operands = g.operands(n);
    if !operands.iter().flatten().any(|v| matches!(g.op(v.node), Op::Expand(_))) {
        return Err(No::Match);
    }
    let types: Vec<_> = operands.iter().flatten().map(|v| g.ty(*v)).collect();
    if g.op(n).pointwise(&types).is_none() {
        return Err(No::Match);
    }
    for (i, v) in operands.iter().enumerate() {
        let Some(v) = v.filter(|v| matches!(g.op(v.node), Op::Expand(_))) else { continue };
        let mut shrunk = operands.clone();
        shrunk[i] = g.operand(v.node, 0);
        let types: Vec<_> = shrunk.iter().map(|v| v.map(|v| g.ty(v))).collect();
        let same = g.op(n).infer(&types).is_ok_and(|t| t.first() == Some(g.ty(result(n))));
        if same {
            let mut p = Patch::standing_for(&[v.node, n]);
            let y = p.op_optional(g.op(n).clone(), shrunk.iter().map(|v| v.map(Val::Old)).collect());
            p.replace(result(n), y);
            return Ok(p);
        }
    }
    Err(No::Match)
}

/// Reductions keep their axes; a Reshape, which is free, drops them.
fn keep_reduced_axes(g: &Graph, n: NodeId) -> Found {
    let x = operand(g, n, 0)?;
    let (op, axes): (Op, &[usize]) = match g.op(n) {
        Op::Reduce(r) if !r.keepdims && !r.axes.is_empty() => (Reduce { keepdims: true, ..r.clone() }.into(), &r.axes),
        Op::ArgReduce(r) if !r.keepdims => {
            (ArgReduce { keepdims: true, ..r.clone() }.into(), std::slice::from_ref(&r.axis))
        }
        _ => return Err(No::Match),
    };
    debug_assert!(axes.iter().all(|&a| a < g.ty(x).rank()));
    let mut p = Patch::standing_for(&[n]);
    let kept = p.op(op, &[x.into()]);
    let y = p.op(Reshape { shape: g.ty(result(n)).shape.clone() }, &[kept]);
    p.replace(result(n), y);
    Ok(p)
}

/// A pool with one window that is the whole map.
fn global_pool(g: &Graph, n: NodeId) -> Found {
    let (kind, kernel, pads, dilations) = match g.op(n) {
        Op::AveragePool(p) => (ReduceKind::Mean, &p.kernel, &p.pads, &p.dilations),
        Op::MaxPool(p) if !p.indices => (ReduceKind::Max, &p.kernel, &p.pads, &p.dilations),
        _ => return Err(No::Match),
    };
    let (x, y): (ValueId, ValueId) = (operand(g, n, 0)?, result(n));
    let whole = g.ty(x).shape[2..].iter().zip(kernel).all(|(d, &k)| d.size() == Some(k));
    let one = g.ty(y).shape[2..].iter().all(|d| *d == Dim::Known(1));
    if !whole || !one || pads.iter().any(|&p| p != 0) || dilations.iter().any(|&d| d != 1) || kernel.contains(&0) {
        return Err(No::Match);
    }
    let axes = (2..g.ty(x).rank()).collect();
    Ok(Patch::one(&[n], n, Reduce { kind, axes, keepdims: true }, &[x.into()]))
}

/// A Gather of one known index is a Slice, which may be free.
fn gather_one(g: &Graph, n: NodeId) -> Found {
    let Op::Gather(op) = g.op(n) else { return Err(No::Match) };
    let (x, index) = (operand(g, n, 0)?, operand(g, n, 1)?);
    let c = g.constant(index).filter(|c| c.elems() == 1).ok_or(No::Match)?;
    let shape = &g.ty(x).shape;
    let (Some(value), Some(len)) = (c.to_tensor().to_i64().first().copied(), shape[op.axis].known()) else {
        return Err(No::Match);
    };
    let at = if value < 0 { value + len } else { value };
    if at < 0 || at >= len {
        return refuse!("index {value} is outside of 0..{len}");
    }
    let mut starts = vec![Dim::Known(0); shape.len()];
    starts[op.axis] = Dim::Known(at);
    let mut lens = shape.clone();
    lens[op.axis] = Dim::Known(1);
    let mut p = Patch::standing_for(&[n]);
    let taken = p.op(Slice { starts, lens, steps: vec![1; shape.len()] }, &[x.into()]);
    let y = p.op(Reshape { shape: g.ty(result(n)).shape.clone() }, &[taken]);
    p.replace(result(n), y);
    Ok(p)
}
