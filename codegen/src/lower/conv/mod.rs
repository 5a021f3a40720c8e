//! Convolutions: which template serves one, and with what operands.
//!
//! | template | needs |
//! |---|---|
//! | [`Winograd`](crate::kernels::conv::winograd::Winograd) | 3x3, stride 1, where [`Algorithms`](super::Algorithms) say so |
//! | [`Depthwise`](crate::kernels::conv::depthwise::Depthwise) | f32, blocked in and out, 1, 2, 4 or 8 channels a group on both sides |
//! | [`Direct`](crate::kernels::conv::direct::Direct) | f32, blocked out, whole channel blocks a group or one group |
//! | [`Generic`] | nothing |
//!
//! Weights that are computed, as those that are trained, are packed for these templates by a step of their own ([`Packing`]);
//! Winograd's are transformed at compile time alone.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | operands, the choice of a template, the direct, depthwise and general ones |
//! | `winograd.rs` | Winograd's: which convolutions, and their steps |
//! | `transpose.rs` | transposed convolutions as phases that are convolutions |

#[cfg(test)]
mod tests;
mod transpose;
mod winograd;

pub(super) use transpose::lower_transpose;

use super::cx::{Call, Operand};
use super::fused::Behind;
use super::panels::Packing;
use super::{LowerCx, LowerError};
use crate::kernels::bands::Layer;
use crate::kernels::conv::generic::{Generic, GenericAxis};
use crate::kernels::conv::winograd::fits;
use crate::kernels::conv::{Conv as ConvShape, Sink, Source, Weights};
use crate::kernels::pool::SideBySide;
use crate::kernels::window::Axis;
use crate::kir::Elem;
use crate::pack::{ConvPanels, DepthwisePanels};
use crate::program::Arg;
use crate::switches::Switch;
use nncc_ir::ops::conv::Conv;
use nncc_ir::{BLOCK, DType, Layout};

/// Operands of a convolution or its transpose.
struct Parts {
    x: Operand,
    w: Operand,
    bias: Option<Operand>,
    y: Operand,
    behind: Behind,
}

impl Parts {
    fn of(cx: &LowerCx<'_, '_>, behind: Behind) -> Result<Parts, LowerError> {
        Ok(Parts { x: cx.input(0)?, w: cx.input(1)?, bias: cx.optional(2), y: cx.output(0), behind })
    }

    /// May the blocked templates take the operands and the output?
    fn is_blocked(&self) -> bool {
        self.y.dtype == DType::F32
            && self.y.layout == Layout::Blocked
            && (3..=5).contains(&self.x.rank())
            && self.x.dims[1] > 0
    }

    /// Does an operand that is read at the output's elements lie in the output's memory?
    fn in_place(&self) -> bool {
        self.behind.args.iter().any(|arg| Some(*arg) == self.y.memory())
    }

    /// The spatial axes, in the attributes' own terms.
    fn axes(&self, strides: &[usize], dilations: &[usize], pads: &[usize]) -> Vec<GenericAxis> {
        axes_of([&self.x.dims, &self.y.dims, &self.w.dims], strides, dilations, pads)
    }

    /// All of a convolution on blocked values.
    fn whole(&self, op: &Conv) -> Phase {
        let (x, y, w) = (&self.x, &self.y, &self.w);
        let sliding = |a: &GenericAxis| Axis::sliding(a.input, a.output, a.kernel, a.stride, a.dilation, a.pad);
        let axes: Vec<Axis> = self.axes(&op.strides, &op.dilations, &op.pads).iter().map(sliding).collect();
        let shape = ConvShape {
            batch: x.dims[0],
            groups: op.group,
            inputs: w.dims[1],
            outputs: w.dims[0] / op.group,
            axes: three(&axes, Axis::UNIT),
            source: x.layout.into(),
            weights: Weights::Panels,
            sink: Sink::Blocked,
            bias: self.bias.is_some(),
            epilogue: self.behind.epilogue.clone(),
        };
        Phase { channels: y.dims[1], shape, taps: three(&w.dims[2..], 1).map(|k| (0..k).collect()) }
    }

    /// The bias as the blocked templates read it, if there is one.
    fn bias(&self, cx: &mut LowerCx<'_, '_>, packing: &mut Packing) -> Result<Option<Arg>, LowerError> {
        self.bias.as_ref().map(|bias| packing.padded(cx, bias, self.y.dims[1])).transpose()
    }

    /// The operands in the order of the templates.
    fn args(&self, cx: &mut LowerCx<'_, '_>, weights: Arg, bias: Option<Arg>) -> Result<Vec<Arg>, LowerError> {
        self.args_into(&self.y, cx, weights, bias)
    }

    /// The same where something else than the convolution's own result is written.
    fn args_into(
        &self,
        result: &Operand,
        cx: &mut LowerCx<'_, '_>,
        weights: Arg,
        bias: Option<Arg>,
    ) -> Result<Vec<Arg>, LowerError> {
        let mut args = vec![cx.arg(&self.x)?, weights];
        args.extend(bias);
        args.extend(&self.behind.args);
        args.push(cx.arg(result)?);
        Ok(args)
    }
}

/// The spatial axes of a convolution with operands of these extents: x, y, w.
pub(super) fn axes_of(
    [x, y, w]: [&[usize]; 3],
    strides: &[usize],
    dilations: &[usize],
    pads: &[usize],
) -> Vec<GenericAxis> {
    let extents = x.iter().zip(y).zip(w).skip(2);
    let axis = |(i, ((&input, &output), &kernel))| {
        let (stride, dilation, pad) = (strides[i], dilations[i], pads[i]);
        GenericAxis { input, output, kernel, stride, dilation, pad }
    };
    extents.enumerate().map(axis).collect()
}

/// Lists of one entry a spatial axis, with what stands for missing axes in front.
pub(super) fn three<T: Clone>(list: &[T], missing: T) -> [T; 3] {
    std::array::from_fn(|i| (i + list.len()).checked_sub(3).map_or(missing.clone(), |i| list[i].clone()))
}

/// Lowers a convolution with what follows it.
pub(super) fn lower(op: &Conv, behind: Behind, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let parts = Parts::of(cx, behind)?;
    let w = &parts.w;
    let (inputs, outputs) = (w.dims[1], w.dims[0] / op.group);
    if parts.is_blocked() {
        let phase = parts.whole(op);
        if let Some(weights) = w.constant()
            && let Some(minimal) = winograd::of(cx, &parts, &phase.shape)
        {
            return winograd::lower(cx, &parts, &phase.shape, minimal, weights.clone(), None);
        }
        if phase.fits(cx, &parts) {
            return lower_phases(cx, &parts, three(&w.dims[2..], 1), vec![phase], false);
        }
    }
    let axes = parts.axes(&op.strides, &op.dilations, &op.pads);
    lower_generic(cx, &parts, op.group, [inputs, outputs], axes, false)
}

/// Lowers a convolution with a pooling behind it that writes `y`, if one template computes both: Winograd's, whose tiles hold
/// the windows. The convolution's own result is never in memory. Says whether it did.
pub(super) fn lower_pooled(
    op: &Conv,
    behind: Behind,
    pooling: SideBySide,
    y: &Operand,
    cx: &mut LowerCx<'_, '_>,
) -> Result<bool, LowerError> {
    let parts = Parts::of(cx, behind)?;
    if !parts.is_blocked() || y.layout != Layout::Blocked {
        return Ok(false);
    }
    let shape = parts.whole(op).shape;
    match (parts.w.constant(), winograd::of(cx, &parts, &shape)) {
        (Some(weights), Some(minimal)) if minimal.holds(pooling.window) => {
            winograd::lower(cx, &parts, &shape, minimal, weights.clone(), Some((pooling, y)))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// A convolution as a layer of bands, with its operands between input and output; `None` when it is not one, or better by
/// itself.
pub(super) fn layer(
    op: &Conv,
    behind: Behind,
    cx: &mut LowerCx<'_, '_>,
) -> Result<Option<(Layer, Vec<Arg>)>, LowerError> {
    let parts = Parts::of(cx, behind)?;
    if !parts.is_blocked() || parts.w.constant().is_none() {
        return Ok(None);
    }
    let phase = parts.whole(op);
    // Where Winograd might compute it, bands were not weighed: it is in a chain for its tiles' sake.
    if fits(&phase.shape) || !phase.has_template(cx) {
        return Ok(None);
    }
    let mut packing = Packing::new();
    let mut args = vec![phase.weights(cx, &mut packing, &parts.w, three(&parts.w.dims[2..], 1), false)?];
    args.extend(parts.bias(cx, &mut packing)?);
    packing.lower(cx);
    args.extend(&parts.behind.args);
    let layer = if phase.is_narrow() { Layer::Depthwise(phase.shape) } else { Layer::Direct(phase.shape) };
    Ok(Some((layer, args)))
}

/// A convolution, or a part of a transposed one that is one.
struct Phase {
    /// Output channels of all groups.
    channels: usize,
    shape: ConvShape,
    /// Which taps of the kernel, axis by axis.
    taps: [Vec<usize>; 3],
}

impl Phase {
    /// Are the groups as the depthwise template needs them?
    fn is_narrow(&self) -> bool {
        let ConvShape { groups, inputs, outputs, source, .. } = self.shape;
        groups > 1 && inputs == outputs && BLOCK.is_multiple_of(inputs) && inputs < BLOCK && source == Source::Blocked
    }

    /// Is there a template for its channels?
    fn has_template(&self, cx: &LowerCx<'_, '_>) -> bool {
        let without = |switch| cx.algorithms().without(switch);
        match self.is_narrow() {
            true => !without(Switch::Depthwise),
            false => direct_channels(&self.shape) && !without(Switch::Direct),
        }
    }

    /// Will one of the templates take it?
    fn fits(&self, cx: &LowerCx<'_, '_>, parts: &Parts) -> bool {
        let is_small = || match self.is_narrow() {
            true => cx.depthwise(&self.shape).0.is_small(),
            false => cx.direct(&self.shape, parts.in_place()).0.is_small(),
        };
        self.has_template(cx) && is_small()
    }

    /// Packs the weights.
    fn weights(
        &self,
        cx: &mut LowerCx<'_, '_>,
        packing: &mut Packing,
        weights: &Operand,
        kernel: [usize; 3],
        transposed: bool,
    ) -> Result<Arg, LowerError> {
        let ConvShape { groups, inputs, outputs, .. } = self.shape;
        let (channels, taps) = (self.channels, self.taps.clone());
        if self.is_narrow() {
            packing.depthwise(cx, DepthwisePanels { channels, group: inputs, kernel, taps, transposed }, weights)
        } else {
            packing.conv(cx, ConvPanels { groups, inputs, outputs, kernel, taps, transposed }, weights)
        }
    }
}

/// Appends the steps of a convolution's phases, and before them what packs their weights.
fn lower_phases(
    cx: &mut LowerCx<'_, '_>,
    parts: &Parts,
    kernel: [usize; 3],
    phases: Vec<Phase>,
    transposed: bool,
) -> Result<(), LowerError> {
    let mut packing = Packing::new();
    let weights = phases.iter().map(|phase| phase.weights(cx, &mut packing, &parts.w, kernel, transposed));
    let weights = weights.collect::<Result<Vec<_>, _>>()?;
    let bias = parts.bias(cx, &mut packing)?;
    packing.lower(cx);
    for (phase, weights) in phases.iter().zip(weights) {
        let (shape, mut args) = (&phase.shape, parts.args(cx, weights, bias)?);
        let call = if phase.is_narrow() {
            let (depthwise, tunable) = cx.depthwise(shape);
            cx.scratch(depthwise.scratch());
            Call::new(cx.kernel(depthwise.kernel()), &args, depthwise.tasks()).tunable(tunable)
        } else {
            let (direct, tunable) = cx.direct(shape, parts.in_place());
            cx.scratch(direct.scratch());
            args.push(cx.constant(direct.shape()));
            Call::new(cx.kernel(direct.kernel()), &args, direct.tasks()).tunable(tunable)
        };
        cx.step(if transposed { call.with_macs(shape.macs()) } else { call });
    }
    Ok(())
}

/// May the direct template take these channel counts?
fn direct_channels(shape: &ConvShape) -> bool {
    let whole = shape.inputs.is_multiple_of(BLOCK) && shape.outputs.is_multiple_of(BLOCK);
    (shape.groups == 1 || whole) && shape.inputs > 0 && shape.outputs > 0
}

fn lower_generic(
    cx: &mut LowerCx<'_, '_>,
    parts: &Parts,
    groups: usize,
    [inputs, outputs]: [usize; 2],
    axes: Vec<GenericAxis>,
    transposed: bool,
) -> Result<(), LowerError> {
    let elem = match parts.y.dtype {
        DType::F32 => Elem::F32,
        DType::F64 => Elem::F64,
        other => return Err(cx.unsupported(format!("elements of type {other}"))),
    };
    let generic = Generic {
        elem,
        batch: parts.x.dims[0],
        groups,
        inputs,
        outputs,
        axes,
        transposed,
        source: parts.x.layout,
        target: parts.y.layout,
        bias: parts.bias.is_some(),
        epilogue: parts.behind.epilogue.clone(),
    };
    let weights = cx.arg(&parts.w)?;
    let bias = parts.bias.as_ref().map(|bias| cx.arg(bias)).transpose()?;
    let args = parts.args(cx, weights, bias)?;
    let id = cx.kernel(generic.kernel());
    cx.step(Call::new(id, &args, generic.tasks()));
    Ok(())
}
