//! Activations of one number, as exporters write them.
//!
//! ```text
//! silu          x * sigmoid(x)                 swish    x * sigmoid(c * x)
//! hard_sigmoid  clip(x + 3, 0, 6) / 6
//! hard_swish    x * hard_sigmoid(x, 1/6, 1/2),  x * clip(x + 3, 0, 6) / 6 in any order
//! mish          x * tanh(softplus(x))
//! gelu          x * (1 + erf(x / sqrt 2)) / 2 in any order
//! gelu (tanh)   x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2 in any order
//! ```

use super::{binary, first, near, plus_number, product, times_number, unary};
use crate::rewrite::{Found, No, Patch, result, sole_use, splat};
use nncc_ir::ops::activation::{Gelu, HardSigmoid, HardSwish, Mish, Silu, Swish};
use nncc_ir::pointwise::{BinaryFn, UnaryFn};
use nncc_ir::{Graph, NodeId, Op, ValueId};

/// The two ways to read a product of two values.
fn both_ways(g: &Graph, n: NodeId) -> Result<[(ValueId, ValueId); 2], No> {
    let (a, b) = binary(g, result(n), BinaryFn::Mul).ok_or(No::Match)?;
    Ok([(a, b), (b, a)])
}

fn is_float(g: &Graph, v: ValueId) -> bool {
    g.ty(v).dtype.is_float()
}

pub fn silu(g: &Graph, n: NodeId) -> Found {
    for (x, s) in both_ways(g, n)? {
        let Some(inside) = unary(g, s, UnaryFn::Sigmoid) else { continue };
        if inside == x {
            sole_use(g, s)?;
            return Ok(Patch::one(&[s.node, n], n, Silu {}, &[x.into()]));
        }
        if let Some((y, alpha)) = times_number(g, inside).filter(|(y, _)| *y == x) {
            sole_use(g, s)?;
            sole_use(g, inside)?;
            return Ok(Patch::one(&[inside.node, s.node, n], n, Swish { alpha }, &[y.into()]));
        }
    }
    Err(No::Match)
}

/// x where `v` is `clip(x + 3, 0, 6)`, and the nodes that make it.
fn relu6_of_plus3(g: &Graph, v: ValueId) -> Option<(ValueId, [NodeId; 2])> {
    let Op::Clip(_) = g.op(v.node) else { return None };
    let bound = |i| g.operand(v.node, i).and_then(|b| splat(g, b));
    if bound(1) != Some(0.0) || bound(2) != Some(6.0) {
        return None;
    }
    let sum = first(g, v)?;
    let (x, c) = plus_number(g, sum)?;
    (c == 3.0).then_some((x, [sum.node, v.node]))
}

pub fn hard_sigmoid(g: &Graph, n: NodeId) -> Found {
    let (clip, c) = times_number(g, result(n)).ok_or(No::Match)?;
    let (x, inner) = relu6_of_plus3(g, clip).ok_or(No::Match)?;
    if !near(c, 1.0 / 6.0) || !is_float(g, x) || g.ty(x) != g.ty(result(n)) {
        return Err(No::Match);
    }
    sole_use(g, clip)?;
    let op = HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 };
    Ok(Patch::one(&[inner[0], inner[1], n], n, op, &[x.into()]))
}

pub fn hard_swish(g: &Graph, n: NodeId) -> Found {
    let y = result(n);
    let p = product(g, y);
    let [a, b] = p.factors[..] else { return Err(No::Match) };
    for (x, s) in [(a, b), (b, a)] {
        if !is_float(g, x) || g.ty(x) != g.ty(y) {
            continue;
        }
        let is_hard_sigmoid = matches!(g.op(s.node), Op::HardSigmoid(h) if near(h.alpha, 1.0 / 6.0) && h.beta == 0.5);
        let mut nodes = p.nodes.clone();
        if is_hard_sigmoid && first(g, s) == Some(x) && p.number == 1.0 {
            nodes.push(s.node);
        } else if let Some((z, inner)) = relu6_of_plus3(g, s).filter(|(z, _)| *z == x && near(p.number, 1.0 / 6.0)) {
            debug_assert_eq!(z, x);
            nodes.extend(inner);
        } else {
            continue;
        }
        sole_use(g, s)?;
        return Ok(Patch::one(&nodes, n, HardSwish {}, &[x.into()]));
    }
    Err(No::Match)
}

pub fn mish(g: &Graph, n: NodeId) -> Found {
    for (x, t) in both_ways(g, n)? {
        let Some(sp) = unary(g, t, UnaryFn::Tanh) else { continue };
        if matches!(g.op(sp.node), Op::Softplus(_)) && first(g, sp) == Some(x) {
            sole_use(g, t)?;
            sole_use(g, sp)?;
            return Ok(Patch::one(&[sp.node, t.node, n], n, Mish {}, &[x.into()]));
        }
    }
    Err(No::Match)
}

pub fn gelu(g: &Graph, n: NodeId) -> Found {
    let y = result(n);
    let p = product(g, y);
    let [a, b] = p.factors[..] else { return Err(No::Match) };
    if !near(p.number, 0.5) {
        return Err(No::Match);
    }
    for (x, sum) in [(a, b), (b, a)] {
        let Some((f, c)) = plus_number(g, sum) else { continue };
        if c != 1.0 || !is_float(g, x) || g.ty(x) != g.ty(y) {
            continue;
        }
        let mut nodes = p.nodes.clone();
        nodes.extend([sum.node, f.node]);
        let approximate = if let Some(inside) = unary(g, f, UnaryFn::Erf) {
            if times_number(g, inside).is_none_or(|(z, c)| z != x || !near(c, std::f64::consts::FRAC_1_SQRT_2)) {
                continue;
            }
            nodes.push(inside.node);
            false
        } else if let Some(inside) = unary(g, f, UnaryFn::Tanh) {
            let Some(more) = tanh_argument(g, inside, x) else { continue };
            nodes.extend(more);
            true
        } else {
            continue;
        };
        sole_use(g, sum)?;
        sole_use(g, f)?;
        return Ok(Patch::one(&nodes, n, Gelu { approximate }, &[x.into()]));
    }
    Err(No::Match)
}

/// The nodes of `sqrt(2/pi) * (x + 0.044715 * x^3)`, if `v` is that.
fn tanh_argument(g: &Graph, v: ValueId, x: ValueId) -> Option<Vec<NodeId>> {
    let (sum, c) = times_number(g, v)?;
    let (a, b) = binary(g, sum, BinaryFn::Add)?;
    let cubic = if a == x { b } else { a };
    if !near(c, (2.0 / std::f64::consts::PI).sqrt()) || (a != x && b != x) {
        return None;
    }
    let p = product(g, cubic);
    let cube = match p.factors[..] {
        [f] => binary(g, f, BinaryFn::Pow).is_some_and(|(b, e)| b == x && splat(g, e) == Some(3.0)),
        [a, b, c] => a == x && b == x && c == x,
        // x^2 may have been computed apart, for other users or not.
        [a, b] => [(a, b), (b, a)].iter().any(|&(a, s)| a == x && binary(g, s, BinaryFn::Mul) == Some((x, x))),
        _ => false,
    };
    (cube && near(p.number, 0.044715)).then(|| {
        let mut nodes = vec![v.node, sum.node];
        nodes.extend(p.nodes);
        nodes
    })
}
