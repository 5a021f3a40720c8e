//! Batch normalisation as it trains: statistics of each channel, then one map.
//!
//! ```text
//! mean       m = sum x / n                          written where the gradient reads it
//! variance   v = sum (x - m)^2 / n                  a second pass: no cancellation, as in the reference
//! channels   r = 1 / sqrt(v + epsilon)    k = scale * r    shift = bias - m * k    and the running averages
//! map        y = x * k + shift
//! ```

use super::elementwise::lower_map;
use super::fold::{Parts, lower_fold};
use super::norm::{inverse_root, per_channel, program};
use super::{LowerCx, LowerError, reduce};
use crate::kernels::fold::Combine;
use nncc_ir::ops::batch_norm::BatchNormTraining;
use nncc_ir::ops::reduce::ReduceKind;
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::{Layout, Pointwise};

/// Lowers batch normalisation by the statistics of the batch.
pub(super) fn lower(op: &BatchNormTraining, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    // Numbers without a channel axis are all of one channel.
    let (x, y) = match x.rank() {
        1 => (x.reshaped(&[x.dims[0], 1]), y.reshaped(&[x.dims[0], 1])),
        _ => (x, y),
    };
    let [scale, bias, running_mean, running_var] = [cx.input(1)?, cx.input(2)?, cx.input(3)?, cx.input(4)?];
    let [mean, inverse] = [cx.output(3), cx.output(4)];
    let channels = x.dims[1];
    let stats: Vec<usize> = x.dims.iter().enumerate().map(|(a, &d)| if a == 1 { d } else { 1 }).collect();
    let n = (x.elems() / channels.max(1)) as f64;
    let vector = |cx: &mut LowerCx<'_, '_>| cx.temporary(x.dtype, &[channels], Layout::RowMajor);
    let [var, k, shift] = [vector(cx)?, vector(cx)?, vector(cx)?];

    let average = reduce::parts(ReduceKind::Mean, x.dtype, n as usize);
    let mean_of_x = mean.reshaped(&stats);
    lower_fold(&average, std::slice::from_ref(&x), &x, &mean_of_x, "norm_mean", cx)?;
    let pre = program(&x, 2, |p, v| {
        let d = p.binary(BinaryFn::Sub, v[0], v[1]);
        p.binary(BinaryFn::Mul, d, d)
    });
    let post = program(&x, 1, |p, v| p.binary_const(BinaryFn::Div, v[0], n));
    let variance = Parts { pre, combine: Combine::Add, post };
    lower_fold(&variance, &[x.clone(), mean_of_x], &x, &var.reshaped(&stats), "norm_variance", cx)?;

    let root = program(&x, 1, |p, v| inverse_root(p, v[0], op.epsilon));
    lower_map(&root, std::slice::from_ref(&var), &inverse, "norm_inverse", cx)?;
    let factor = program(&x, 2, |p, v| p.binary(BinaryFn::Mul, v[0], v[1]));
    lower_map(&factor, &[scale, inverse], &k, "norm_scale", cx)?;
    let moved = program(&x, 3, |p, v| {
        let product = p.binary(BinaryFn::Mul, v[1], v[2]);
        p.binary(BinaryFn::Sub, v[0], product)
    });
    lower_map(&moved, &[bias, mean.clone(), k.clone()], &shift, "norm_shift", cx)?;
    let correction = if op.unbiased { n / (n - 1.0) } else { 1.0 };
    let running = |factor: f64| -> Pointwise {
        program(&x, 2, |p, v| {
            let old = p.binary_const(BinaryFn::Mul, v[0], op.momentum);
            let new = p.binary_const(BinaryFn::Mul, v[1], (1.0 - op.momentum) * factor);
            p.binary(BinaryFn::Add, old, new)
        })
    };
    lower_map(&running(1.0), &[running_mean, mean], &cx.output(1), "norm_running", cx)?;
    lower_map(&running(correction), &[running_var, var], &cx.output(2), "norm_running", cx)?;
    let map = program(&x, 3, |p, v| {
        let product = p.binary(BinaryFn::Mul, v[0], v[1]);
        p.binary(BinaryFn::Add, product, v[2])
    });
    let [k, shift] = [k, shift].map(|v| per_channel(&v, x.rank()));
    lower_map(&map, &[x, k, shift], &y, "", cx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, tensor};
    use nncc_ir::{Graph, Origin, Tensor, ValueId};

    #[track_caller]
    fn normalised(dims: &[usize], layout: Layout, unbiased: bool) {
        let channels = dims.get(1).copied().unwrap_or(1);
        let positive = Tensor::f32(&[channels], (0..channels).map(|c| 0.5 + c as f32 / 8.0).collect());
        let vector = |seed: u64| tensor(seed, &[channels]);
        let inputs = [tensor(1, dims), vector(2), vector(3), vector(4), positive];
        let mut g = Graph::new("norm");
        let v: Vec<_> = inputs.iter().enumerate().map(|(i, t)| g.add_input(&format!("x{i}"), t.ty())).collect();
        g.set_layout(v[0], layout);
        let op = BatchNormTraining { epsilon: 1e-3, momentum: 0.9, unbiased };
        let operands: Vec<_> = v.into_iter().map(Some).collect();
        let node = g.add(op, &operands, Origin::named("norm"), &["y", "m", "v", "mean", "inverse"]).expect("it fits");
        g.set_layout(ValueId { node, out: 0 }, layout);
        for (i, v) in g.results(node).collect::<Vec<_>>().into_iter().enumerate() {
            g.add_output(&format!("out{i}"), v);
        }
        // Sums of up to 300 numbers below 1; the inverse deviation of few of them is up to 30.
        check(&g, &inputs, &Tolerance::Relative { rel: 2e-5, abs: 2e-5 });
    }

    #[test]
    fn statistics_maps_and_averages_agree() {
        for layout in [Layout::Blocked, Layout::RowMajor] {
            for channels in [1, 8, 17, 33] {
                normalised(&[2, channels, 5, 7], layout, channels == 17);
            }
        }
        normalised(&[5, 3], Layout::RowMajor, true);
        normalised(&[7], Layout::RowMajor, false);
        normalised(&[3, 2, 11], Layout::RowMajor, true);
    }
}
