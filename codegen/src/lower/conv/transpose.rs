//! Transposed convolutions: a direct convolution for each phase.
//!
//! A transposed convolution with stride `s` is one direct convolution for each of the `s` residues of the output's index on
//! each axis: of the taps only those that hit an input take part, and none of the zeros that a dilated input would hold.
//!
//! ```text
//! o + pad = i * s + k * d    =>    for o = r + s * j:  the taps k with (r + pad - k*d) mod s = 0,  input j + (r + pad - k*d) / s
//! ```

use super::super::fused::Behind;
use super::super::{LowerCx, LowerError};
use super::{Parts, Phase, lower_generic, lower_phases, three};
use crate::kernels::conv::generic::GenericAxis;
use crate::kernels::conv::{Conv as ConvShape, Sink, Weights};
use crate::kernels::window::Axis;
use crate::switches::Switch;
use nncc_ir::BLOCK;
use nncc_ir::ops::conv::ConvTranspose;

/// More phases than this would be more code than they are worth; a kernel with so large a stride is rare.
const MOST_PHASES: usize = 16;

/// Lowers a transposed convolution with what follows it.
pub(in crate::lower) fn lower_transpose(
    op: &ConvTranspose,
    behind: Behind,
    cx: &mut LowerCx<'_, '_>,
) -> Result<(), LowerError> {
    let parts = Parts::of(cx, behind)?;
    let (x, y, w) = (&parts.x, &parts.y, &parts.w);
    let (inputs, outputs) = (w.dims[0] / op.group, w.dims[1]);
    let spatial = x.rank() - 2;
    let phases: usize = (0..spatial).map(|i| op.strides[i].min(y.dims[i + 2].max(1))).product();
    if parts.is_blocked() && phases <= MOST_PHASES && !cx.algorithms().without(Switch::TransposedPhases) {
        // The template for narrow groups writes its own outputs alone.
        let joins = op.group == 1 || inputs >= BLOCK;
        let phases = |axis| if joins { joined(phases_of(axis)) } else { phases_of(axis) };
        let axes: Vec<Vec<(Axis, Vec<usize>)>> =
            parts.axes(&op.strides, &op.dilations, &op.pads).iter().map(phases).collect();
        let axes = three(&axes, vec![(Axis::UNIT, vec![0])]);
        let kernel = three(&w.dims[2..], 1);
        let mut phases = Vec::new();
        for (d, dt) in &axes[0] {
            for (h, ht) in &axes[1] {
                for (w, wt) in &axes[2] {
                    let shape = ConvShape {
                        batch: x.dims[0],
                        groups: op.group,
                        inputs,
                        outputs,
                        axes: [d.clone(), h.clone(), w.clone()],
                        source: x.layout.into(),
                        weights: Weights::Panels,
                        sink: Sink::Blocked,
                        bias: parts.bias.is_some(),
                        epilogue: parts.behind.epilogue.clone(),
                    };
                    phases.push(Phase { channels: y.dims[1], shape, taps: [dt.clone(), ht.clone(), wt.clone()] });
                }
            }
        }
        if phases.iter().all(|phase| phase.fits(cx, &parts)) {
            return lower_phases(cx, &parts, kernel, phases, true);
        }
    }
    let axes = parts.axes(&op.strides, &op.dilations, &op.pads);
    lower_generic(cx, &parts, op.group, [inputs, outputs], axes, true)
}

/// The phases of one axis of a transposed convolution, each with its taps in the order of the inputs that they read.
fn phases_of(axis: &GenericAxis) -> Vec<(Axis, Vec<usize>)> {
    let &GenericAxis { input, output, kernel, stride, dilation, pad } = axis;
    (0..stride.min(output.max(1)))
        .map(|r| {
            let offset = |k: usize| r as i64 + pad as i64 - (k * dilation) as i64;
            let taps: Vec<usize> = (0..kernel).rev().filter(|&k| offset(k).rem_euclid(stride as i64) == 0).collect();
            let reads: Vec<i64> = taps.iter().map(|&k| offset(k).div_euclid(stride as i64)).collect();
            let axis = Axis {
                inputs: input,
                in_extent: input,
                outputs: (output.saturating_sub(r)).div_ceil(stride),
                stride: 1,
                taps: taps.len(),
                first: reads.first().copied().unwrap_or(0),
                dilation: reads.get(1).map_or(1, |second| (second - reads[0]) as usize),
                out_extent: output,
                out_first: r,
                out_step: stride,
                out_span: 1,
            };
            (axis, taps)
        })
        .collect()
}

/// The same where phases without taps are written along with the one before them, if they have as many outputs.
fn joined(mut phases: Vec<(Axis, Vec<usize>)>) -> Vec<(Axis, Vec<usize>)> {
    if let [(first, taps), others @ ..] = &mut phases[..]
        && !taps.is_empty()
        && others.iter().all(|(axis, taps)| taps.is_empty() && axis.outputs == first.outputs)
    {
        first.out_span = others.len() + 1;
        phases.truncate(1);
    }
    phases
}
