//! Convolutions: which template serves one, and with what operands.
//!
//! | template | needs |
//! |---|---|
//! | [`Winograd`] | 3x3, stride 1, where [`Algorithms`](super::Algorithms) say so |
//! | [`Depthwise`] | f32, blocked in and out, 1, 2, 4 or 8 channels a group on both sides |
//! | [`Direct`](crate::kernels::conv::direct::Direct) | f32, blocked out, whole channel blocks a group or one group |
//! | [`Generic`] | nothing |
//!
//! Weights that are computed, as those that are trained, are packed for these templates by a step of their own ([`Packing`]);
//! Winograd's are transformed at compile time alone.
//!
//! A transposed convolution with stride `s` is one direct convolution for each of the `s` residues of the output's index on
//! each axis: of the taps only those that hit an input take part, and none of the zeros that a dilated input would hold.
//!
//! ```text
//! o + pad = i * s + k * d    =>    for o = r + s * j:  the taps k with (r + pad - k*d) mod s = 0,  input j + (r + pad - k*d) / s
//! ```

use super::cx::{Call, Operand};
use super::fused::Behind;
use super::panels::Packing;
use super::{LowerCx, LowerError};
use crate::kernels::bands::Layer;
use crate::kernels::conv::depthwise::Depthwise;
use crate::kernels::conv::generic::{Generic, GenericAxis};
use crate::kernels::conv::winograd::transform::Minimal;
use crate::kernels::conv::winograd::{self, Layer as WinogradLayer, Walk, Winograd};
use crate::kernels::conv::{Conv as ConvShape, Sink, Source, Weights};
use crate::kernels::pool::SideBySide;
use crate::kernels::window::Axis;
use crate::kir::Elem;
use crate::pack::{ConvPanels, DepthwisePanels, Packed, WinogradPanels};
use crate::program::Arg;
use crate::switches::Switch;
use crate::tunable::Tunable;
use nncc_ir::ops::conv::{Conv, ConvTranspose};
use nncc_ir::{BLOCK, Constant, DType, Layout};
use std::sync::Arc;

/// More phases than this would be more code than they are worth; a kernel with so large a stride is rare.
const MOST_PHASES: usize = 16;

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
            && let Some(minimal) = winograd_of(cx, &parts, &phase.shape)
        {
            return lower_winograd(cx, &parts, &phase.shape, minimal, weights.clone(), None);
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
    match (parts.w.constant(), winograd_of(cx, &parts, &shape)) {
        (Some(weights), Some(minimal)) if minimal.holds(pooling.window) => {
            lower_winograd(cx, &parts, &shape, minimal, weights.clone(), Some((pooling, y)))?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// A convolution as a layer of bands, with its operands between input and output; `None` when it is not one, or better by
/// itself.
pub(super) fn layer<'a>(
    op: &Conv,
    behind: Behind,
    cx: &mut LowerCx<'_, 'a>,
) -> Result<Option<(Layer<'a>, Vec<Arg>)>, LowerError> {
    let parts = Parts::of(cx, behind)?;
    if !parts.is_blocked() || parts.w.constant().is_none() {
        return Ok(None);
    }
    let phase = parts.whole(op);
    // Where Winograd might compute it, bands were not weighed: it is in a chain for its tiles' sake.
    if winograd::fits(&phase.shape) || !phase.has_template(cx) {
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

/// The variant of Winograd's algorithm that computes a convolution, if one does.
fn winograd_of(cx: &LowerCx<'_, '_>, parts: &Parts, shape: &ConvShape) -> Option<Minimal> {
    let weights = parts.w.constant().filter(|_| winograd::fits(shape))?;
    cx.algorithms().of(weights, shape.inputs, shape.outputs)
}

/// Lowers a transposed convolution with what follows it.
pub(super) fn lower_transpose(op: &ConvTranspose, behind: Behind, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
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
            true => cx.depthwise(&self.shape).is_small(),
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
            let depthwise = cx.depthwise(shape);
            cx.scratch(depthwise.scratch());
            let tunable = depthwise.tunable(Depthwise::signature(cx.target(), shape));
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

/// Appends a Winograd convolution: one step, or two or three with its intermediates in the workspace. A pooling in its tiles
/// comes with what it writes.
fn lower_winograd(
    cx: &mut LowerCx<'_, '_>,
    parts: &Parts,
    shape: &ConvShape,
    minimal: Minimal,
    weights: Constant,
    pooling: Option<(SideBySide, &Operand)>,
) -> Result<(), LowerError> {
    let layer =
        WinogradLayer { conv: shape.clone(), pooling: pooling.map(|(p, _)| p), minimal, in_place: parts.in_place() };
    let signature = layer.signature(cx.target());
    let winograd = Winograd::new(cx.target(), &layer, cx.chosen(&signature));
    let tunable = Arc::new(Tunable::new(signature, winograd.walk(), layer));
    let panels = WinogradPanels { inputs: shape.inputs, outputs: shape.outputs, minimal };
    let weights = cx.packed(Packed::winograd(panels, weights));
    cx.scratch(winograd.scratch());
    let mut packing = Packing::new();
    let bias = parts.bias(cx, &mut packing)?;
    packing.lower(cx);
    let args = parts.args_into(pooling.map_or(&parts.y, |(_, y)| y), cx, weights, bias)?;
    if let Walk::Blocked { .. } = winograd.walk() {
        let (kernel, tasks) = winograd.blocked_kernel();
        let id = cx.kernel(kernel);
        cx.step(Call::new(id, &args, tasks).labelled("winograd").tunable(tunable));
        return Ok(());
    }
    let v = cx.workspace(shape.batch * winograd.v_bytes());
    let (kernel, tasks) = winograd.input_kernel();
    let id = cx.kernel(kernel);
    cx.step(Call::new(id, &[args[0], v], tasks).labelled("winograd input").tunable(tunable.clone()));
    if let Walk::Grouped { .. } = winograd.walk() {
        let (kernel, tasks) = winograd.grouped_kernel();
        let id = cx.kernel(kernel);
        let args: Vec<Arg> = [v].into_iter().chain(args[1..].iter().copied()).collect();
        let call = Call::new(id, &args, tasks).labelled("winograd groups").with_macs(shape.macs());
        cx.step(call.tunable(tunable));
        return Ok(());
    }
    let m = cx.workspace(shape.batch * winograd.m_bytes());
    let (kernel, tasks) = winograd.product_kernel();
    let id = cx.kernel(kernel);
    let product_shape = cx.constant(winograd.product_shape());
    let call = Call::new(id, &[v, weights, m, product_shape], tasks).labelled("winograd product");
    cx.step(call.with_macs(shape.macs()).tunable(tunable.clone()));
    let (kernel, tasks) = winograd.output_kernel();
    let id = cx.kernel(kernel);
    let args: Vec<Arg> = [m].into_iter().chain(args[2..].iter().copied()).collect();
    cx.step(Call::new(id, &args, tasks).labelled("winograd output").tunable(tunable));
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

#[cfg(test)]
mod tests {
    use crate::kernels::conv::depthwise::Strip;
    use crate::lower::{Algorithms, Separate, SetSource, lower_any_layout};
    use crate::target::Target;
    use crate::testing::{Same, check, check_choices, constant, sum_tolerance, targets, tensor, tried};
    use nncc_ir::ops::conv::{Conv, ConvTranspose};
    use nncc_ir::ops::fused::Fused;
    use nncc_ir::pointwise::{BinaryFn, UnaryFn};
    use nncc_ir::{DType, Graph, Layout, Op, Origin, Pointwise, Tensor, ValueId};
    use proptest::prelude::*;

    /// One convolution to compile; `transposed` reads the same numbers as a transposed one.
    #[derive(Clone, Debug)]
    struct Problem {
        batch: usize,
        group: usize,
        inputs: usize,
        outputs: usize,
        size: Vec<usize>,
        kernel: Vec<usize>,
        strides: Vec<usize>,
        dilations: Vec<usize>,
        pads: Vec<usize>,
        layouts: [Layout; 2],
        bias: bool,
        transposed: bool,
        /// Are weights and bias inputs of the graph?
        computed: bool,
    }

    impl Problem {
        /// A 3x3 convolution of one image, all blocked.
        fn plain(inputs: usize, outputs: usize, size: [usize; 2]) -> Problem {
            Problem {
                batch: 1,
                group: 1,
                inputs,
                outputs,
                size: size.to_vec(),
                kernel: vec![3, 3],
                strides: vec![1, 1],
                dilations: vec![1, 1],
                pads: vec![1; 4],
                layouts: [Layout::Blocked; 2],
                bias: true,
                transposed: false,
                computed: false,
            }
        }

        fn op(&self) -> Op {
            let (strides, dilations) = (self.strides.clone(), self.dilations.clone());
            let (pads, group) = (self.pads.clone(), self.group);
            if self.transposed {
                let output_padding = self.strides.iter().map(|s| s - 1).collect();
                ConvTranspose { strides, dilations, pads, output_padding, group }.into()
            } else {
                Conv { strides, dilations, pads, group }.into()
            }
        }

        /// The dimensions of x and w; per group channel counts are `inputs` and `outputs`.
        fn dims(&self) -> [Vec<usize>; 2] {
            let x = [self.batch, self.group * self.inputs].into_iter().chain(self.size.iter().copied()).collect();
            let (first, second) = if self.transposed {
                (self.group * self.inputs, self.outputs)
            } else {
                (self.group * self.outputs, self.inputs)
            };
            let w = [first, second].into_iter().chain(self.kernel.iter().copied()).collect();
            [x, w]
        }

        fn weights(&self) -> [Tensor; 2] {
            [tensor(2, &self.dims()[1]), tensor(3, &[self.group * self.outputs])]
        }

        fn terms(&self) -> usize {
            self.inputs * self.kernel.iter().product::<usize>() + 1
        }

        /// Is there an output at all?
        fn is_valid(&self) -> bool {
            let mut g = Graph::new("probe");
            self.add(&mut g, self.op(), &[]).is_some()
        }

        fn add(&self, g: &mut Graph, op: Op, extras: &[ValueId]) -> Option<ValueId> {
            let [x, _] = self.dims();
            let xv = g.add_input("x", nncc_ir::TensorType::fixed(DType::F32, &x));
            g.set_layout(xv, self.layouts[0]);
            let weights = |g: &mut Graph, name: &str, t: &Tensor| match self.computed {
                true => g.add_input(name, t.ty()),
                false => constant(g, name, t),
            };
            let [w, b] = self.weights();
            let wv = weights(g, "w", &w);
            let bv = self.bias.then(|| weights(g, "b", &b));
            let mut operands = vec![Some(xv), Some(wv), bv];
            operands.extend(extras.iter().map(|&v| Some(v)));
            let node = g.add(op, &operands, Origin::named("conv"), &["y"]).ok()?;
            let y = ValueId { node, out: 0 };
            g.set_layout(y, self.layouts[1]);
            Some(y)
        }

        fn graph(&self) -> (Graph, Vec<Tensor>) {
            let mut g = Graph::new("conv");
            let y = self.add(&mut g, self.op(), &[]).expect("a valid problem");
            g.add_output("out", y);
            let mut inputs = vec![tensor(1, &self.dims()[0])];
            if self.computed {
                inputs.extend(self.weights());
                inputs.truncate(2 + usize::from(self.bias));
            }
            (g, inputs)
        }

        #[track_caller]
        fn check(&self) {
            let (g, inputs) = self.graph();
            check(&g, &inputs, &sum_tolerance(&g, &inputs, self.terms()));
        }
    }

    /// Each way that a tuner would try is followed and gives the layer's results.
    #[test]
    fn other_schedules_compute_the_same() {
        let wide = Problem { bias: false, ..Problem::plain(88, 72, [7, 13]) };
        let pointwise = Problem { kernel: vec![1, 1], pads: vec![0; 4], ..Problem::plain(40, 56, [8, 14]) };
        let first = Problem { layouts: [Layout::RowMajor, Layout::Blocked], ..Problem::plain(3, 24, [9, 11]) };
        for p in [wide, pointwise, first] {
            let (g, inputs) = p.graph();
            let tolerance = sum_tolerance(&g, &inputs, p.terms());
            let tried = check_choices(&g, &inputs, Same::Within(&tolerance), &Algorithms::default(), &|own, target| {
                let tried = tried(own, target);
                assert!(!tried.is_empty(), "{own:?}");
                tried
            });
            assert!(tried >= 2 * targets().len());
        }
    }

    /// What no register file holds is not followed.
    #[test]
    fn a_schedule_that_does_not_fit_is_left_out() {
        let target = Target::x86_64_v3();
        let p = Problem::plain(16, 64, [6, 30]);
        let mut g = Graph::new("conv");
        let y = p.add(&mut g, p.op(), &[]).expect("a valid problem");
        g.add_output("out", y);
        let plan = Separate::plan(&g).expect("a graph that can be planned");
        let layer = |algorithms: &Algorithms| {
            let set = SetSource { graph: &g, plan: &plan };
            let program = lower_any_layout("conv", &[set], std::slice::from_ref(&target), algorithms).unwrap();
            program.sets[0].levels[0].steps[0].tunable.clone().expect("a direct convolution")
        };
        let own = layer(&Algorithms::default());
        for text in ["64x30 pass 1 rows 6 rows-first", "128x1 pass 1 rows 6 rows-first"] {
            let choices = [(own.signature.clone(), text.parse().unwrap())].into_iter().collect();
            assert_eq!(layer(&Algorithms::default().with_choices(choices)).now, own.now);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn other_schedules_agree(p in problem(false)) {
            let (g, inputs) = p.graph();
            let tolerance = sum_tolerance(&g, &inputs, p.terms());
            check_choices(&g, &inputs, Same::Within(&tolerance), &Algorithms::default(), &tried);
        }

        #[test]
        fn strips_of_every_width_have_the_same_bits(
            (group, width) in (2usize..20, prop_oneof![3 => Just(1usize), 1 => Just(2), 1 => Just(4), 1 => Just(8)]),
            size in (1usize..9, 1usize..40),
            (kernel, stride) in (1usize..6, 1usize..3),
            pixels in 1usize..31,
        ) {
            let (kernel, pads, strides) = (vec![3, kernel], vec![1, kernel / 2, 1, kernel / 2], vec![1, stride]);
            let p = Problem { group, kernel, pads, strides, ..Problem::plain(width, width, [size.0, size.1]) };
            let (g, inputs) = p.graph();
            check_choices(&g, &inputs, Same::Bits, &Algorithms::default(), &|own, target| {
                let mut all = tried(own, target);
                all.push(Strip { pixels }.into());
                all
            });
        }
    }

    fn channels() -> impl Strategy<Value = usize> {
        prop_oneof![Just(1), Just(3), Just(7), Just(8), Just(9), Just(16), Just(17), Just(24), Just(32), Just(40)]
    }

    /// 1 to 3 spatial axes; whole blocks a group, or one group, or depthwise, or narrow groups, or anything.
    fn problem(transposed: bool) -> impl Strategy<Value = Problem> {
        let groups = prop_oneof![
            4 => channels().prop_flat_map(|i| (Just(1usize), Just(i), channels())),
            2 => (2usize..4, Just(16usize), prop_oneof![Just(16usize), Just(32)]),
            2 => (2usize..35, Just(1usize), Just(1usize)),
            2 => (2usize..9, prop_oneof![Just(2usize), Just(4), Just(8)]).prop_map(|(group, width)| (group, width, width)),
            1 => (2usize..4, 1usize..5, 1usize..5),
        ];
        // Outputs of a transpose grow with the stride.
        let axis = (1usize..if transposed { 7 } else { 14 }, 1usize..4, 1usize..4, 1usize..3, 0usize..3, 0usize..3);
        let layout = || prop_oneof![3 => Just(Layout::Blocked), 1 => Just(Layout::RowMajor)];
        let axes = prop::collection::vec(axis, 1..4);
        (1usize..3, groups, axes, layout(), layout(), any::<bool>(), any::<bool>())
            .prop_map(move |(batch, (group, inputs, outputs), axes, from, to, bias, computed)| {
                type Axis = (usize, usize, usize, usize, usize, usize);
                let take = |f: fn(&Axis) -> usize| axes.iter().map(f).collect();
                let three = axes.len() == 3;
                let mut size: Vec<usize> = take(|a| a.0);
                if three {
                    size[0] = size[0].min(3);
                    size[1] = size[1].min(5);
                }
                let mut pads: Vec<usize> = take(|a| a.4);
                pads.extend(axes.iter().map(|a| a.5));
                Problem {
                    batch,
                    group,
                    inputs,
                    outputs,
                    size,
                    kernel: take(|a| a.1),
                    strides: take(|a| a.2),
                    dilations: take(|a| a.3),
                    pads,
                    layouts: [from, to],
                    bias,
                    transposed,
                    computed,
                }
            })
            .prop_filter("no output", Problem::is_valid)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn convolutions_agree(p in problem(false)) {
            p.check();
        }

        #[test]
        fn transposed_convolutions_agree(p in problem(true)) {
            p.check();
        }
    }

    #[test]
    fn rows_of_every_width() {
        for width in [1, 2, 5, 6, 7, 12, 13, 29] {
            Problem::plain(16, 16, [3, width]).check();
        }
    }

    #[test]
    fn edge_blocks_on_both_sides() {
        for (inputs, outputs) in [(3, 8), (17, 24), (24, 40), (33, 17), (16, 72)] {
            Problem::plain(inputs, outputs, [4, 6]).check();
        }
    }

    #[test]
    fn narrow_groups_of_many_blocks() {
        for (group, width) in [(8, 4), (5, 8), (19, 2), (3, 4)] {
            Problem { group, ..Problem::plain(width, width, [4, 17]) }.check();
        }
    }

    #[test]
    fn first_layers_read_row_major() {
        let first = Problem { layouts: [Layout::RowMajor, Layout::Blocked], ..Problem::plain(3, 24, [11, 13]) };
        let large = Problem { kernel: vec![7, 7], strides: vec![2, 2], pads: vec![3; 4], ..first.clone() };
        first.check();
        large.check();
    }

    #[test]
    fn single_pixels_of_planes_have_no_padding_lanes() {
        for (channels, transposed) in [(9, false), (9, true), (7, false), (18, false)] {
            let layouts = [Layout::RowMajor, Layout::Blocked];
            let p = Problem { kernel: vec![1, 1], pads: vec![0; 4], layouts, ..Problem::plain(channels, 1, [1, 1]) };
            Problem { transposed, ..p }.check();
        }
    }

    #[test]
    fn pointwise_planes_are_flattened() {
        for size in [[1, 1], [7, 7], [5, 13], [1, 37]] {
            let p = Problem { kernel: vec![1, 1], pads: vec![0; 4], ..Problem::plain(40, 24, size) };
            p.check();
        }
    }

    #[test]
    fn many_channels_take_several_passes() {
        // 9 taps * 16 channels * 64 bytes a panel and block: more than half of every L1 from 4 blocks on.
        Problem::plain(88, 32, [3, 4]).check();
    }

    #[test]
    fn windows_wholly_in_the_padding() {
        let wide = Problem { pads: vec![4, 9, 5, 3], ..Problem::plain(16, 16, [2, 3]) };
        let dilated = Problem { dilations: vec![3, 4], pads: vec![5, 5, 5, 5], ..Problem::plain(16, 16, [3, 6]) };
        wide.check();
        dilated.check();
    }

    #[test]
    fn computed_weights_are_packed() {
        let dense = Problem { computed: true, ..Problem::plain(17, 40, [5, 7]) };
        let gradient = Problem { transposed: true, bias: false, ..dense.clone() };
        let strided = Problem { strides: vec![2, 2], ..gradient.clone() };
        let first = Problem { layouts: [Layout::RowMajor, Layout::Blocked], ..Problem::plain(3, 24, [9, 9]) };
        let first = Problem { kernel: vec![7, 7], strides: vec![2, 2], pads: vec![3; 4], computed: true, ..first };
        let depthwise = Problem { group: 19, computed: true, ..Problem::plain(1, 1, [5, 9]) };
        let depthwise_gradient = Problem { transposed: true, strides: vec![2, 2], ..depthwise.clone() };
        let narrow = Problem { group: 5, computed: true, ..Problem::plain(4, 4, [5, 9]) };
        let narrow_gradient = Problem { transposed: true, ..narrow.clone() };
        for p in [dense, gradient, strided, first, depthwise, depthwise_gradient, narrow, narrow_gradient] {
            p.check();
        }
    }

    #[test]
    fn phases_without_taps_are_written_along() {
        let pointwise =
            Problem { kernel: vec![1, 1], pads: vec![0; 4], transposed: true, ..Problem::plain(24, 40, [5, 7]) };
        for strides in [[2, 2], [1, 3], [4, 1]] {
            Problem { strides: strides.to_vec(), ..pointwise.clone() }.check();
        }
        let wide = Problem { kernel: vec![1, 2], strides: vec![3, 5], bias: false, ..pointwise.clone() };
        // The last row has no row behind it.
        let cropped = Problem { strides: vec![2, 2], pads: vec![0, 0, 1, 1], ..pointwise.clone() };
        let groups = Problem { group: 3, strides: vec![2, 2], inputs: 16, outputs: 16, ..pointwise.clone() };
        let narrow = Problem { group: 6, strides: vec![2, 2], inputs: 4, outputs: 4, ..pointwise };
        for p in [wide, cropped, groups, narrow] {
            p.check();
        }
    }

    #[test]
    fn epilogues_run_on_sums() {
        check_epilogue(Problem { batch: 2, ..Problem::plain(16, 24, [5, 9]) }, [5, 9], false);
    }

    #[test]
    fn epilogues_run_on_outputs_without_taps() {
        let p = Problem { batch: 2, kernel: vec![1, 1], pads: vec![0; 4], ..Problem::plain(16, 24, [3, 5]) };
        for is_long in [false, true] {
            check_epilogue(Problem { strides: vec![2, 3], transposed: true, ..p.clone() }, [6, 15], is_long);
        }
    }

    /// max(0, y * scale[c] + residual) - gate[n, c], or the sigmoid of that.
    #[track_caller]
    fn check_epilogue(p: Problem, size: [usize; 2], is_long: bool) {
        let program = Pointwise::build(&[DType::F32; 4], |b, x| {
            let scaled = b.binary(BinaryFn::Mul, x[0], x[1]);
            let sum = b.binary(BinaryFn::Add, scaled, x[2]);
            let relu = b.binary_const(BinaryFn::Max, sum, 0.0);
            let gated = b.binary(BinaryFn::Sub, relu, x[3]);
            if is_long { b.unary(UnaryFn::Sigmoid, gated) } else { gated }
        });
        let mut g = Graph::new("conv");
        let (batch, channels) = (p.batch, p.outputs);
        let dims = [batch, channels, size[0], size[1]];
        let scale = constant(&mut g, "scale", &tensor(5, &[channels, 1, 1]));
        let residual = g.add_input("r", nncc_ir::TensorType::fixed(DType::F32, &dims));
        g.set_layout(residual, Layout::Blocked);
        let gate = g.add_input("g", nncc_ir::TensorType::fixed(DType::F32, &[batch, channels, 1, 1]));
        g.set_layout(gate, Layout::Blocked);
        let fused = Fused { root: Some(Box::new(p.op())), program, root_operands: 3 };
        let y = p.add(&mut g, fused.into(), &[scale, residual, gate]).expect("a valid problem");
        g.add_output("out", y);
        let inputs = [tensor(7, &dims), tensor(8, &[batch, channels, 1, 1]), tensor(1, &p.dims()[0])];
        check(&g, &inputs, &sum_tolerance(&g, &inputs, 2 * p.terms()));
    }
}
