//! Convolutions by Winograd's algorithm: which are, and their steps.

use super::super::cx::{Call, Operand};
use super::super::panels::Packing;
use super::super::{LowerCx, LowerError};
use super::Parts;
use crate::kernels::conv::Conv as ConvShape;
use crate::kernels::conv::winograd::transform::Minimal;
use crate::kernels::conv::winograd::{Layer as WinogradLayer, Walk, Winograd, fits};
use crate::kernels::pool::SideBySide;
use crate::pack::{Packed, WinogradPanels};
use crate::program::Arg;
use crate::tunable::Tunable;
use nncc_ir::Constant;
use std::sync::Arc;

/// The variant of Winograd's algorithm that computes a convolution, if one does.
pub(super) fn of(cx: &LowerCx<'_, '_>, parts: &Parts, shape: &ConvShape) -> Option<Minimal> {
    let weights = parts.w.constant().filter(|_| fits(shape))?;
    cx.algorithms().of(weights, shape.inputs, shape.outputs)
}

/// Appends a Winograd convolution: one step, or two or three with its intermediates in the workspace. A pooling in its tiles
/// comes with what it writes.
pub(super) fn lower(
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
