//! Recognises operators that exporters write as many nodes.
//!
//! | file | makes |
//! |---|---|
//! | `activations.rs` | Silu, Swish, HardSigmoid, HardSwish, Mish, Gelu (erf and tanh form) |
//! | `attention.rs` | Attention, with operands read where they lie |
//! | `norms.rs` | LayerNorm, GroupNorm and the scale and shift behind a normalization |
//! | `softmax.rs` | Softmax |
//!
//! The one node means the same numbers up to rounding in f32 (the reference computes it in f64 and rounds once, where the
//! chain rounds at every node): a few ulp of the largest intermediate. What is gained is one kernel with the values in
//! registers where there were several passes over memory. A pattern of which an inner value has another user is refused:
//! it would be computed twice.

mod activations;
mod attention;
mod norms;
mod softmax;

use crate::pass::{OptLevel, Part, Pass, PassCx, PassError};
use crate::rewrite::{Rule, operand, rewrite, splat};
use nncc_ir::ops::elementwise::{Binary, Unary};
use nncc_ir::pointwise::{BinaryFn, UnaryFn};
use nncc_ir::{Graph, NodeId, Op, ValueId};

/// The pass.
pub const PASS: Pass = Pass { name: "recognise", level: OptLevel::O2, run };

/// The rules.
const RULES: &[Rule] = &[
    Rule { name: "silu", find: activations::silu },
    Rule { name: "hard_sigmoid", find: activations::hard_sigmoid },
    Rule { name: "hard_swish", find: activations::hard_swish },
    Rule { name: "mish", find: activations::mish },
    Rule { name: "gelu", find: activations::gelu },
    Rule { name: "softmax", find: softmax::softmax },
    Rule { name: "attention", find: attention::attention },
    Rule { name: "attention_transposed", find: attention::attention_transposed },
    Rule { name: "layer_norm", find: norms::layer_norm },
    Rule { name: "group_norm", find: norms::group_norm },
    Rule { name: "norm_scale", find: norms::norm_scale },
    Rule { name: "norm_shift", find: norms::norm_shift },
];

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    let is_kept = |rule: &&Rule| !(cx.leaves_out(Part::Attention) && rule.name.starts_with("attention"));
    let kept: Vec<Rule> = RULES.iter().filter(is_kept).copied().collect();
    rewrite(g, cx, &kept)
}

/// The operands of `v` if it is this function of two numbers.
fn binary(g: &Graph, v: ValueId, f: BinaryFn) -> Option<(ValueId, ValueId)> {
    match g.op(v.node) {
        Op::Binary(Binary { function }) if *function == f => Some((g.operand(v.node, 0)?, g.operand(v.node, 1)?)),
        _ => None,
    }
}

/// The operand of `v` if it is this function of one number.
fn unary(g: &Graph, v: ValueId, f: UnaryFn) -> Option<ValueId> {
    match g.op(v.node) {
        Op::Unary(Unary { function }) if *function == f => g.operand(v.node, 0),
        _ => None,
    }
}

/// `x + c` or `c + x` with one number c.
fn plus_number(g: &Graph, v: ValueId) -> Option<(ValueId, f64)> {
    let (a, b) = binary(g, v, BinaryFn::Add)?;
    splat(g, b).map(|c| (a, c)).or_else(|| splat(g, a).map(|c| (b, c)))
}

/// `x * c`, `c * x` or `x / (1/c)` with one number c.
fn times_number(g: &Graph, v: ValueId) -> Option<(ValueId, f64)> {
    if let Some((a, b)) = binary(g, v, BinaryFn::Mul) {
        return splat(g, b).map(|c| (a, c)).or_else(|| splat(g, a).map(|c| (b, c)));
    }
    let (a, b) = binary(g, v, BinaryFn::Div)?;
    splat(g, b).map(|c| (a, 1.0 / c))
}

/// Whether a number of the model is the one meant: to f32 precision, and some digits that authors leave off.
fn near(x: f64, wanted: f64) -> bool {
    (x - wanted).abs() <= 1e-5 * wanted.abs()
}

/// A product as its factors and the product of its constant factors; the tree of `n` is opened while its inner products
/// have no other user.
struct Product {
    number: f64,
    factors: Vec<ValueId>,
    nodes: Vec<NodeId>,
}

fn product(g: &Graph, v: ValueId) -> Product {
    let mut p = Product { number: 1.0, factors: Vec::new(), nodes: Vec::new() };
    let mut open = vec![v];
    while let Some(w) = open.pop() {
        let inner = w == v || g.sole_user(w).is_some();
        if inner && p.nodes.len() < 4 {
            if let Some((x, c)) = times_number(g, w) {
                p.number *= c;
                p.nodes.push(w.node);
                open.push(x);
                continue;
            }
            if let Some((a, b)) = binary(g, w, BinaryFn::Mul) {
                p.nodes.push(w.node);
                open.extend([b, a]);
                continue;
            }
        }
        p.factors.push(w);
    }
    p
}

/// The first operand of an operator.
fn first(g: &Graph, v: ValueId) -> Option<ValueId> {
    operand(g, v.node, 0).ok()
}
