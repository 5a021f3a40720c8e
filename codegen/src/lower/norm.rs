//! Normalisations: folds for mean and deviation, and a map.
//!
//! ```text
//! mean       m = sum x / n
//! deviation  r = 1 / sqrt(sum (x - m)^2 / n + epsilon)         two passes: no cancellation, as in the reference
//! map        y = (x - m) * r * scale + bias
//! ```
//!
//! Where what is normalised are rows in memory that fit the first-level cache, with a scale for each of their elements, all three
//! are one step that reads x once (`rows`).
//!
//! What differs is which axes are reduced, said by reshaping: `x` is seen as `[N, G, C/G, spatial]` for groups, its statistics as
//! `[N, G, 1, 1]`, scale and bias as `[G, C/G, 1]`. Batch normalisation has its statistics given: scale and shift a channel
//! are computed first, so that the map is one multiply-add. Local response normalisation sums squares over neighbouring
//! channels, which is a fold with overlapping windows; channels at the edges have windows of their own size.

use crate::kernels::fold::Combine;
use crate::kernels::map::Nest;
use crate::kernels::rows::RowFold;
use crate::lower::elementwise::lower_map;
use crate::lower::fold::{Parts, lower_fold, lower_nest};
use crate::lower::{LowerCx, LowerError, Operand, reduce, rows};
use nncc_ir::ops::norm::{BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LpNorm, Lrn, RmsNorm};
use nncc_ir::ops::reduce::ReduceKind;
use nncc_ir::pointwise::{BinaryFn, Ref, UnaryFn};
use nncc_ir::{Layout, Pointwise};

/// A program over `n` operands of x's type.
pub(super) fn program(x: &Operand, n: usize, body: impl FnOnce(&mut Pointwise, &[Ref]) -> Ref) -> Pointwise {
    Pointwise::build(&vec![x.dtype; n], body)
}

/// `1 / sqrt(v + epsilon)`.
pub(super) fn inverse_root(p: &mut Pointwise, v: Ref, epsilon: f64) -> Ref {
    let v = p.binary_const(BinaryFn::Add, v, epsilon);
    let root = p.unary(UnaryFn::Sqrt, v);
    p.unary(UnaryFn::Reciprocal, root)
}

/// Appends `y = (x - m) * r * scale + bias`, with m and r of the shape `stats` that reduces x; scale and bias broadcast to x.
fn standardise(
    [x, y]: [&Operand; 2],
    stats: &[usize],
    epsilon: f64,
    scale: Operand,
    bias: Option<Operand>,
    cx: &mut LowerCx<'_, '_>,
) -> Result<(), LowerError> {
    let n = x.elems() as f64 / stats.iter().product::<usize>() as f64;
    let mean = reduce::parts(ReduceKind::Mean, x.dtype, n as usize);
    let pre = program(x, 2, |p, v| {
        let d = p.binary(BinaryFn::Sub, v[0], v[1]);
        p.binary(BinaryFn::Mul, d, d)
    });
    let post = program(x, 1, |p, v| {
        let variance = p.binary_const(BinaryFn::Div, v[0], n);
        inverse_root(p, variance, epsilon)
    });
    let deviation = Parts { pre, combine: Combine::Add, post };
    let map = program(x, if bias.is_some() { 5 } else { 4 }, |p, v| {
        let d = p.binary(BinaryFn::Sub, v[0], v[1]);
        let scaled = p.binary(BinaryFn::Mul, d, v[2]);
        let y = p.binary(BinaryFn::Mul, scaled, v[3]);
        v.get(4).map_or(y, |&bias| p.binary(BinaryFn::Add, y, bias))
    });
    let vectors: Vec<&Operand> = [&scale].into_iter().chain(&bias).collect();
    if let Some(axis) = row_axis(x, stats) {
        let folds = [&mean, &deviation].map(RowFold::from).to_vec();
        if rows::lower(folds, map.clone(), axis, [x, y], &vectors, "norm", cx)? {
            return Ok(());
        }
    }
    let (m, r) = (cx.temporary(x.dtype, stats, x.layout)?, cx.temporary(x.dtype, stats, x.layout)?);
    lower_fold(&mean, std::slice::from_ref(x), x, &m, "norm_mean", cx)?;
    lower_fold(&deviation, &[x.clone(), m.clone()], x, &r, "norm_deviation", cx)?;
    let operands: Vec<Operand> = [x.clone(), m, r, scale].into_iter().chain(bias).collect();
    lower_map(&map, &operands, y, "", cx)
}

/// The axis from which on `stats` has one element for each of the rows of x, if it is of that form.
fn row_axis(x: &Operand, stats: &[usize]) -> Option<usize> {
    let axis = stats.iter().zip(&x.dims).take_while(|(s, n)| s == n).count();
    (axis < x.rank() && stats[axis..].iter().all(|&s| s == 1)).then_some(axis)
}

/// A vector of channels, shaped to broadcast to `[N, C, spatial..]`.
pub(super) fn per_channel(v: &Operand, rank: usize) -> Operand {
    let mut dims = vec![1; rank.saturating_sub(1)];
    if let Some(first) = dims.first_mut() {
        *first = v.elems();
    }
    v.reshaped(&dims)
}

/// Lowers batch normalisation with given statistics.
///
/// # Errors
/// A constant that does not fit in memory.
pub fn lower_batch(op: &BatchNorm, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    let [scale, bias, mean, var] = [cx.input(1)?, cx.input(2)?, cx.input(3)?, cx.input(4)?];
    let k = cx.temporary(x.dtype, &scale.dims, Layout::RowMajor)?;
    let shift = cx.temporary(x.dtype, &scale.dims, Layout::RowMajor)?;
    let factor = program(&x, 2, |p, v| {
        let r = inverse_root(p, v[1], op.epsilon);
        p.binary(BinaryFn::Mul, v[0], r)
    });
    lower_map(&factor, &[scale, var], &k, "norm_scale", cx)?;
    let moved = program(&x, 3, |p, v| {
        let product = p.binary(BinaryFn::Mul, v[1], v[2]);
        p.binary(BinaryFn::Sub, v[0], product)
    });
    lower_map(&moved, &[bias, mean, k.clone()], &shift, "norm_shift", cx)?;
    let map = program(&x, 3, |p, v| {
        let product = p.binary(BinaryFn::Mul, v[0], v[1]);
        p.binary(BinaryFn::Add, product, v[2])
    });
    let [k, shift] = [k, shift].map(|v| per_channel(&v, x.rank()));
    lower_map(&map, &[x, k, shift], &y, "", cx)
}

/// Lowers instance normalisation.
///
/// # Errors
/// A constant that does not fit in memory.
pub fn lower_instance(op: &InstanceNorm, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    let (scale, bias) = (per_channel(&cx.input(1)?, x.rank()), per_channel(&cx.input(2)?, x.rank()));
    let stats: Vec<usize> = x.dims.iter().enumerate().map(|(a, &d)| if a < 2 { d } else { 1 }).collect();
    standardise([&x, &y], &stats, op.epsilon, scale, Some(bias), cx)
}

/// Lowers group normalisation.
///
/// # Errors
/// A blocked value.
pub fn lower_group(op: &GroupNorm, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    if [x.layout, y.layout] != [Layout::RowMajor; 2] {
        return Err(cx.unsupported("a blocked operand"));
    }
    if x.elems() == 0 {
        return Ok(());
    }
    let (n, channels) = (x.dims[0], x.dims[1]);
    let grouped = [n, op.groups, channels / op.groups, x.elems() / (n * channels)];
    let (scale, bias) = (cx.input(1)?, cx.input(2)?);
    let [scale, bias] = [scale, bias].map(|v| v.reshaped(&[op.groups, channels / op.groups, 1]));
    let (x, y) = (x.reshaped(&grouped), y.reshaped(&grouped));
    standardise([&x, &y], &[n, op.groups, 1, 1], op.epsilon, scale, Some(bias), cx)
}

/// The shape of statistics over the axes from `axis` on.
fn over_last(x: &Operand, axis: usize) -> Vec<usize> {
    x.dims.iter().enumerate().map(|(a, &d)| if a < axis { d } else { 1 }).collect()
}

/// Lowers layer normalisation.
///
/// # Errors
/// A blocked value whose channels are normalised.
pub fn lower_layer(op: &LayerNorm, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    let (scale, bias) = (cx.input(1)?, cx.optional(2));
    standardise([&x, &y], &over_last(&x, op.axis), op.epsilon, scale, bias, cx)
}

/// Lowers root-mean-square normalisation.
///
/// # Errors
/// A blocked value whose channels are normalised.
pub fn lower_rms(op: &RmsNorm, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y, scale) = (cx.input(0)?, cx.output(0), cx.input(1)?);
    let stats = over_last(&x, op.axis);
    let n = x.elems() as f64 / stats.iter().product::<usize>() as f64;
    let post = program(&x, 1, |p, v| {
        let mean = p.binary_const(BinaryFn::Div, v[0], n);
        inverse_root(p, mean, op.epsilon)
    });
    let squares = Parts { post, ..reduce::parts(ReduceKind::SumSquare, x.dtype, 0) };
    let map = program(&x, 3, |p, v| {
        let scaled = p.binary(BinaryFn::Mul, v[0], v[1]);
        p.binary(BinaryFn::Mul, scaled, v[2])
    });
    if rows::lower(vec![RowFold::from(&squares)], map.clone(), op.axis, [&x, &y], &[&scale], "norm", cx)? {
        return Ok(());
    }
    let r = cx.temporary(x.dtype, &stats, x.layout)?;
    lower_fold(&squares, std::slice::from_ref(&x), &x, &r, "norm_deviation", cx)?;
    lower_map(&map, &[x, r, scale], &y, "", cx)
}

/// Lowers division by a norm.
///
/// # Errors
/// A blocked value whose channels are normalised.
pub fn lower_lp(op: &LpNorm, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    let mut dims = x.dims.clone();
    dims[op.axis] = 1;
    let norm = cx.temporary(x.dtype, &dims, x.layout)?;
    let kind = if op.p == 1 { ReduceKind::L1 } else { ReduceKind::L2 };
    lower_fold(&reduce::parts(kind, x.dtype, 0), std::slice::from_ref(&x), &x, &norm, "norm", cx)?;
    let map = program(&x, 2, |p, v| {
        let zero = p.constant(x.dtype, 0.0);
        let none = p.compare(nncc_ir::pointwise::CompareFn::Eq, v[1], zero);
        let quotient = p.binary(BinaryFn::Div, v[0], v[1]);
        p.select(none, zero, quotient)
    });
    lower_map(&map, &[x.clone(), norm], &y, "", cx)
}

/// `v^beta`: by square roots where beta is a small multiple of 1/4, as it is in practice (3/4).
fn power(p: &mut Pointwise, v: Ref, beta: f64) -> Ref {
    let quarters = beta * 4.0;
    if quarters.fract() != 0.0 || !(0.0..=16.0).contains(&quarters) {
        return p.binary_const(BinaryFn::Pow, v, beta);
    }
    let quarters = quarters as u32;
    let half = p.unary(UnaryFn::Sqrt, v);
    let quarter = p.unary(UnaryFn::Sqrt, half);
    let factors = std::iter::repeat_n(v, (quarters / 4) as usize)
        .chain((quarters & 2 != 0).then_some(half))
        .chain((quarters & 1 != 0).then_some(quarter));
    factors.reduce(|a, b| p.binary(BinaryFn::Mul, a, b)).unwrap_or_else(|| p.constant(p.type_of(v), 1.0))
}

/// Lowers local response normalisation.
///
/// # Errors
/// A blocked value.
pub fn lower_lrn(op: &Lrn, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    if [x.layout, y.layout] != [Layout::RowMajor; 2] {
        return Err(cx.unsupported("a blocked operand"));
    }
    if x.elems() == 0 {
        return Ok(());
    }
    let (n, channels) = (x.dims[0], x.dims[1]);
    let plane = x.elems() / (n * channels);
    let post = program(&x, 2, |p, v| {
        let scaled = p.binary_const(BinaryFn::Mul, v[0], op.alpha / op.size as f64);
        let base = p.binary_const(BinaryFn::Add, scaled, op.bias);
        let power = power(p, base, op.beta);
        p.binary(BinaryFn::Div, v[1], power)
    });
    let parts = Parts { post, ..reduce::parts(ReduceKind::SumSquare, x.dtype, 0) };
    // Runs of channels whose windows have the same size and move along with them.
    let window = |c: usize| op.neighbours(c, channels);
    let mut first = 0;
    while first < channels {
        let shape = |c: usize| (window(c).len(), c - window(c).start);
        let run = (first..channels).take_while(|&c| shape(c) == shape(first)).count();
        let (image, size) = (channels * plane, window(first).len());
        let read = vec![image, plane, plane, 1];
        let own = vec![image, plane, 0, 1];
        let nest = Nest { dims: vec![n, run, size, plane], strides: vec![read, own.clone(), own] };
        let offsets = [window(first).start * plane, first * plane, first * plane];
        lower_nest(&parts, &[&x, &x, &y], nest, &offsets, "lrn", cx)?;
        first += run;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, tensor};
    use nncc_ir::{Graph, Op, Origin, Tensor};
    use proptest::prelude::*;

    /// A few roundings of numbers of the size of the result, and of the means they are differences from.
    const CLOSE: Tolerance = Tolerance::Relative { rel: 2e-5, abs: 2e-5 };

    fn check_norm(op: impl Into<Op>, inputs: &[Tensor], layout: Layout) {
        let mut g = Graph::new("norm");
        let v: Vec<_> = inputs.iter().map(|t| g.add_input("x", t.ty())).collect();
        let y = g.add1(op, &v, Origin::default(), "y").unwrap();
        g.set_layout(v[0], layout);
        g.set_layout(y, layout);
        g.add_output("y", y);
        check(&g, inputs, &CLOSE);
    }

    fn positive(seed: u64, dims: &[usize]) -> Tensor {
        let v = tensor(seed, dims).to_f64();
        Tensor::from_f64(nncc_ir::DType::F32, dims, &v.iter().map(|x| x.abs() + 0.25).collect::<Vec<_>>())
    }

    const DIMS: [&[usize]; 5] = [&[1, 1, 1, 1], &[2, 6, 3, 5], &[1, 18, 7, 1], &[3, 34, 5], &[2, 8, 40]];

    #[test]
    fn statistics_of_channels() {
        for dims in DIMS {
            let c = dims[1];
            let x = tensor(1, dims);
            let per = |seed| tensor(seed, &[c]);
            for layout in [Layout::RowMajor, Layout::Blocked] {
                let given = [x.clone(), per(2), per(3), per(4), positive(5, &[c])];
                check_norm(BatchNorm { epsilon: 1e-3 }, &given, layout);
                check_norm(InstanceNorm { epsilon: 1e-2 }, &[x.clone(), per(2), per(3)], layout);
            }
            for groups in [1, 2, c].into_iter().filter(|g| c % g == 0) {
                check_norm(GroupNorm { epsilon: 1e-2, groups }, &[x.clone(), per(2), per(3)], Layout::RowMajor);
            }
        }
        check_norm(
            BatchNorm { epsilon: 1e-3 },
            &[tensor(1, &[5]), tensor(2, &[1]), tensor(3, &[1]), tensor(4, &[1]), positive(5, &[1])],
            Layout::RowMajor,
        );
    }

    #[test]
    fn statistics_of_last_axes() {
        for dims in DIMS {
            for axis in 0..dims.len() {
                let (x, tail) = (tensor(1, dims), &dims[axis..]);
                check_norm(
                    LayerNorm { axis, epsilon: 1e-2 },
                    &[x.clone(), tensor(2, tail), tensor(3, tail)],
                    Layout::RowMajor,
                );
                check_norm(
                    LayerNorm { axis, epsilon: 1e-2 },
                    &[x.clone(), tensor(2, &tail[tail.len() - 1..])],
                    Layout::RowMajor,
                );
                check_norm(RmsNorm { axis, epsilon: 1e-2 }, &[x.clone(), tensor(2, tail)], Layout::RowMajor);
                check_norm(LpNorm { axis, p: 1 }, std::slice::from_ref(&x), Layout::RowMajor);
                check_norm(
                    LpNorm { axis, p: 2 },
                    std::slice::from_ref(&x),
                    if axis > 1 { Layout::Blocked } else { Layout::RowMajor },
                );
            }
        }
        check_norm(
            LpNorm { axis: 0, p: 2 },
            &[Tensor::f32(&[2, 3], vec![0.0, 1.0, 0.0, 0.0, -3.0, 0.0])],
            Layout::RowMajor,
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        /// Rows side by side, the last of an odd number beside itself, the second norm in place of the first; rows of up to
        /// some thousand elements, of which two do not stay in the cache.
        #[test]
        fn any_number_of_rows(rows in 1usize..12, n in prop_oneof![4 => 1usize..200, 1 => 900usize..2100], bias in any::<bool>()) {
            let x = tensor(6, &[rows, n]);
            let mut g = Graph::new("norm");
            let mut v = g.add_input("x", x.ty());
            let (scale, shift) = (tensor(7, &[n]), tensor(8, &[n]));
            let operands = [g.add_input("scale", scale.ty()), g.add_input("shift", shift.ty())];
            for _ in 0..2 {
                let inputs: Vec<_> = [v].into_iter().chain(operands.into_iter().take(1 + usize::from(bias))).collect();
                v = g.add1(LayerNorm { axis: 1, epsilon: 1e-2 }, &inputs, Origin::default(), "y").unwrap();
            }
            let rms = g.add1(RmsNorm { axis: 1, epsilon: 1e-2 }, &[v, operands[0]], Origin::default(), "rms").unwrap();
            g.add_output("y", rms);
            check(&g, &[x, scale, shift], &CLOSE);
        }
    }

    #[test]
    fn neighbouring_channels() {
        for dims in DIMS {
            for (size, beta) in [(1, 0.5), (2, 1.25), (5, 0.75), (50, 1.0)] {
                check_norm(Lrn { alpha: 0.5, beta, bias: 1.5, size }, &[tensor(1, dims)], Layout::RowMajor);
            }
        }
    }
}
