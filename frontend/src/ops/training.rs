//! Optimizers of `ai.onnx.preview.training`, written out: each node updates any number of tensors.
//!
//! ```text
//! operands   R (learning rate), T (updates so far), X.., G.. (gradients), then one list for each of the optimizer's moments
//! results    X'.., then the moments' new values
//!
//! g = norm_coefficient X + G
//! Adagrad    H' = H + g^2                                   X' = X - R / (1 + T decay) g / (sqrt(H') + epsilon)
//! Momentum   V' = alpha V + (T > 0 ? beta : 1) g            X' = X - R V', nesterov: X - R (g + alpha V')
//! Adam       V' = alpha V + (1 - alpha) g                   H' = beta H + (1 - beta) g^2
//!            X' = (1 - norm_coefficient_post) (X - r V' / (sqrt(H') + epsilon))
//!            r = T > 0 ? R sqrt(1 - beta^T) / (1 - alpha^T) : R
//! ```

use super::Entry;
use crate::build::Stop;
use crate::node::{Imported, NodeCx};
use crate::value::Val;
use nncc_ir::pointwise::{BinaryFn, CompareFn, UnaryFn};

const DOMAIN: &str = "ai.onnx.preview.training";

pub(super) const OPS: &[Entry] = &[
    Entry::new("Adagrad", &[1], adagrad).of(DOMAIN),
    Entry::new("Adam", &[1], adam).of(DOMAIN),
    Entry::new("Momentum", &[1], momentum).of(DOMAIN),
];

/// The operands of a node, sorted.
struct Operands {
    rate: Val,
    time: Val,
    /// For each tensor: itself, its gradient, its moments.
    tensors: Vec<Vec<Val>>,
}

/// The operands of an optimizer with so many moments.
fn operands(n: &mut NodeCx<'_>, moments: usize) -> Result<Operands, Stop> {
    let all = n.variadic()?;
    let lists = 2 + moments;
    let [rate, time, rest @ ..] = &all[..] else { return n.invalid("the operands R and T are missing") };
    if rest.is_empty() || !rest.len().is_multiple_of(lists) {
        return n.invalid(format!("{} operands behind R and T, not a multiple of {lists}", rest.len()));
    }
    let count = rest.len() / lists;
    let tensors = (0..count).map(|i| rest.iter().skip(i).step_by(count).cloned().collect()).collect();
    let time = n.cast(time, n.dtype(rate))?;
    Ok(Operands { rate: rate.clone(), time, tensors })
}

/// The new tensors, then the new moments, list by list.
fn results(updated: Vec<Vec<Val>>) -> Imported {
    let lists = updated.first().map_or(0, Vec::len);
    Ok((0..lists).flat_map(|list| updated.iter().filter_map(move |t| t.get(list).cloned())).collect())
}

/// `a x + y`.
fn axpy(n: &mut NodeCx<'_>, a: f64, x: &Val, y: &Val) -> Result<Val, Stop> {
    if a == 0.0 {
        return Ok(y.clone());
    }
    let scaled = n.binary_const(BinaryFn::Mul, x, a)?;
    n.binary(BinaryFn::Add, &scaled, y)
}

/// `share old + (1 - share) new`.
fn blend(n: &mut NodeCx<'_>, share: f64, old: &Val, new: &Val) -> Result<Val, Stop> {
    let new = n.binary_const(BinaryFn::Mul, new, 1.0 - share)?;
    axpy(n, share, old, &new)
}

/// `g / (sqrt(h) + epsilon)`.
fn over_root(n: &mut NodeCx<'_>, g: &Val, h: &Val, epsilon: f64) -> Result<Val, Stop> {
    let root = n.unary(UnaryFn::Sqrt, h)?;
    let root = n.binary_const(BinaryFn::Add, &root, epsilon)?;
    n.binary(BinaryFn::Div, g, &root)
}

/// `x - r d`.
fn descend(n: &mut NodeCx<'_>, x: &Val, rate: &Val, direction: &Val) -> Result<Val, Stop> {
    let by = n.binary(BinaryFn::Mul, rate, direction)?;
    n.binary(BinaryFn::Sub, x, &by)
}

/// `then` where the step is not the first.
fn later(n: &mut NodeCx<'_>, time: &Val, then: &Val, first: &Val) -> Result<Val, Stop> {
    let zero = n.scalar(n.dtype(time), 0.0);
    let is_later = n.compare(CompareFn::Gt, time, &zero)?;
    n.select(&is_later, then, first)
}

/// `1 - share^T`.
fn rest_of_power(n: &mut NodeCx<'_>, share: f64, time: &Val) -> Result<Val, Stop> {
    let (share, one) = (n.scalar(n.dtype(time), share), n.scalar(n.dtype(time), 1.0));
    let power = n.binary(BinaryFn::Pow, &share, time)?;
    n.binary(BinaryFn::Sub, &one, &power)
}

fn adagrad(n: &mut NodeCx<'_>) -> Imported {
    let Operands { rate, time, tensors } = operands(n, 1)?;
    let (decay, epsilon, norm) =
        (n.float("decay_factor", 0.0)?, n.float("epsilon", 1e-6)?, n.float("norm_coefficient", 0.0)?);
    let slower = n.binary_const(BinaryFn::Mul, &time, decay)?;
    let slower = n.binary_const(BinaryFn::Add, &slower, 1.0)?;
    let rate = n.binary(BinaryFn::Div, &rate, &slower)?;
    let mut updated = Vec::new();
    for t in &tensors {
        let [x, g, h] = &t[..] else { continue };
        let g = axpy(n, norm, x, g)?;
        let square = n.binary(BinaryFn::Mul, &g, &g)?;
        let h = n.binary(BinaryFn::Add, h, &square)?;
        let direction = over_root(n, &g, &h, epsilon)?;
        updated.push(vec![descend(n, x, &rate, &direction)?, h]);
    }
    results(updated)
}

fn momentum(n: &mut NodeCx<'_>) -> Imported {
    let Operands { rate, time, tensors } = operands(n, 1)?;
    let (alpha, beta, norm) = (n.float("alpha", 0.0)?, n.float("beta", 0.0)?, n.float("norm_coefficient", 0.0)?);
    let nesterov = n.choice("mode", "standard", &[("standard", false), ("nesterov", true)])?;
    let (beta, one) = (n.scalar(n.dtype(&rate), beta), n.scalar(n.dtype(&rate), 1.0));
    let beta = later(n, &time, &beta, &one)?;
    let mut updated = Vec::new();
    for t in &tensors {
        let [x, g, v] = &t[..] else { continue };
        let g = axpy(n, norm, x, g)?;
        let share = n.binary(BinaryFn::Mul, &beta, &g)?;
        let v = axpy(n, alpha, v, &share)?;
        let direction = if nesterov { axpy(n, alpha, &v, &g)? } else { v.clone() };
        updated.push(vec![descend(n, x, &rate, &direction)?, v]);
    }
    results(updated)
}

fn adam(n: &mut NodeCx<'_>) -> Imported {
    let Operands { rate, time, tensors } = operands(n, 2)?;
    let (alpha, beta, epsilon) = (n.float("alpha", 0.9)?, n.float("beta", 0.999)?, n.float("epsilon", 1e-6)?);
    let (norm, post) = (n.float("norm_coefficient", 0.0)?, n.float("norm_coefficient_post", 0.0)?);
    let (of_alpha, of_beta) = (rest_of_power(n, alpha, &time)?, rest_of_power(n, beta, &time)?);
    let root = n.unary(UnaryFn::Sqrt, &of_beta)?;
    let factor = n.binary(BinaryFn::Div, &root, &of_alpha)?;
    let adjusted = n.binary(BinaryFn::Mul, &rate, &factor)?;
    let rate = later(n, &time, &adjusted, &rate)?;
    let mut updated = Vec::new();
    for t in &tensors {
        let [x, g, v, h] = &t[..] else { continue };
        let g = axpy(n, norm, x, g)?;
        let square = n.binary(BinaryFn::Mul, &g, &g)?;
        let (v, h) = (blend(n, alpha, v, &g)?, blend(n, beta, h, &square)?);
        let direction = over_root(n, &v, &h, epsilon)?;
        let mut x = descend(n, x, &rate, &direction)?;
        if post != 0.0 {
            x = n.binary_const(BinaryFn::Mul, &x, 1.0 - post)?;
        }
        updated.push(vec![x, v, h]);
    }
    results(updated)
}
