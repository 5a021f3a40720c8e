//! The statistics of a batch normalisation that trains, a channel each.
//!
//! ```text
//! mean       m = sum x / n                          written where the gradient reads it
//! variance   v = sum (x - m)^2 / n                  a second pass: no cancellation, as in the reference
//! channels   r = 1 / sqrt(v + epsilon)    factor = scale * r    addend = bias - m * factor    and the running averages
//! ```

use super::elementwise::lower_map;
use super::fold::{Parts, lower_fold};
use super::norm::{inverse_root, program};
use super::{LowerCx, LowerError, reduce};
use crate::kernels::fold::Combine;
use nncc_ir::ops::batch_norm::BatchNormStatistics;
use nncc_ir::ops::reduce::ReduceKind;
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::{Layout, Pointwise};

/// Lowers the statistics of a batch.
pub(super) fn lower(op: &BatchNormStatistics, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let x = cx.input(0)?;
    // Numbers without a channel axis are all of one channel.
    let x = if x.rank() == 1 { x.reshaped(&[x.dims[0], 1]) } else { x };
    let [scale, bias, running_mean, running_var] = [cx.input(1)?, cx.input(2)?, cx.input(3)?, cx.input(4)?];
    let [factor, addend, mean, inverse] = [cx.output(0), cx.output(1), cx.output(4), cx.output(5)];
    let channels = x.dims[1];
    let stats: Vec<usize> = x.dims.iter().enumerate().map(|(a, &d)| if a == 1 { d } else { 1 }).collect();
    let n = (x.elems() / channels.max(1)) as f64;
    let var = cx.temporary(x.dtype, &[channels], Layout::RowMajor)?;

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
    let scaled = program(&x, 2, |p, v| p.binary(BinaryFn::Mul, v[0], v[1]));
    lower_map(&scaled, &[scale, inverse], &factor, "norm_scale", cx)?;
    let moved = program(&x, 3, |p, v| {
        let product = p.binary(BinaryFn::Mul, v[1], v[2]);
        p.binary(BinaryFn::Sub, v[0], product)
    });
    lower_map(&moved, &[bias, mean.clone(), factor], &addend, "norm_shift", cx)?;
    let correction = if op.unbiased { n / (n - 1.0) } else { 1.0 };
    let running = |factor: f64| -> Pointwise {
        program(&x, 2, |p, v| {
            let old = p.binary_const(BinaryFn::Mul, v[0], op.momentum);
            let new = p.binary_const(BinaryFn::Mul, v[1], (1.0 - op.momentum) * factor);
            p.binary(BinaryFn::Add, old, new)
        })
    };
    lower_map(&running(1.0), &[running_mean, mean], &cx.output(2), "norm_running", cx)?;
    lower_map(&running(correction), &[running_var, var], &cx.output(3), "norm_running", cx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, tensor};
    use nncc_ir::{Graph, Origin, Tensor};

    #[track_caller]
    fn measured(dims: &[usize], layout: Layout, unbiased: bool) {
        let channels = dims.get(1).copied().unwrap_or(1);
        let positive = Tensor::f32(&[channels], (0..channels).map(|c| 0.5 + c as f32 / 8.0).collect());
        let vector = |seed: u64| tensor(seed, &[channels]);
        let inputs = [tensor(1, dims), vector(2), vector(3), vector(4), positive];
        let mut g = Graph::new("norm");
        let v: Vec<_> = inputs.iter().enumerate().map(|(i, t)| g.add_input(&format!("x{i}"), t.ty())).collect();
        g.set_layout(v[0], layout);
        let op = BatchNormStatistics { epsilon: 1e-3, momentum: 0.9, unbiased };
        let operands: Vec<_> = v.into_iter().map(Some).collect();
        let node =
            g.add(op, &operands, Origin::named("norm"), &["k", "s", "m", "v", "mean", "inverse"]).expect("it fits");
        for (i, v) in g.results(node).collect::<Vec<_>>().into_iter().enumerate() {
            g.add_output(&format!("out{i}"), v);
        }
        // Sums of up to 300 numbers below 1; the inverse deviation of few of them is up to 30.
        check(&g, &inputs, &Tolerance::Relative { rel: 2e-5, abs: 2e-5 });
    }

    #[test]
    fn statistics_and_averages_agree() {
        for layout in [Layout::Blocked, Layout::RowMajor] {
            for channels in [1, 8, 17, 33] {
                measured(&[2, channels, 5, 7], layout, channels == 17);
            }
        }
        measured(&[5, 3], Layout::RowMajor, true);
        measured(&[7], Layout::RowMajor, false);
        measured(&[3, 2, 11], Layout::RowMajor, true);
    }
}
