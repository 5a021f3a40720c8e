//! Convolutions.

use super::Entry;
use super::window::{AutoPad, Window, auto_pad, explicit_pads, halves, spatial, window};
use crate::build::Stop;
use crate::node::{Imported, NodeCx};
use crate::value::Val;
use nncc_ir::Dim;
use nncc_ir::ops::activation::Silu;
use nncc_ir::ops::concat::Concat;
use nncc_ir::ops::conv as ir;
use nncc_ir::ops::pad::{Pad, PadMode};
use nncc_ir::ops::slice::Slice;

pub(super) const OPS: &[Entry] = &[
    Entry::new("CausalConvWithState", &[27], causal_conv),
    Entry::new("Conv", &[1, 11, 22], conv),
    Entry::new("ConvTranspose", &[1, 11, 22], conv_transpose),
];

/// The kernel's size, from the weights, which must agree with the attribute.
fn kernel(n: &NodeCx<'_>, w: &Val) -> Result<Vec<usize>, Stop> {
    let dims = n.known_dims(w, "the size of its kernel is not known")?;
    let kernel = dims.get(2..).unwrap_or_default().to_vec();
    match n.ints("kernel_shape")? {
        Some(given) if !given.iter().map(|&k| usize::try_from(k).ok()).eq(kernel.iter().map(|&k| Some(k))) => {
            n.invalid(format!("the attribute `kernel_shape` is {given:?}, the weights have a kernel of {kernel:?}"))
        }
        _ => Ok(kernel),
    }
}

fn conv(n: &mut NodeCx<'_>) -> Imported {
    let (x, w) = (n.operand(0, "X")?, n.operand(1, "W")?);
    let sizes = spatial(n, &n.shape(&x))?;
    let Window { strides, dilations, pads, .. } = window(n, &sizes, kernel(n, &w)?)?;
    let group = n.count("group", Some(1))?;
    let b = n.optional(2);
    n.emit_all(ir::Conv { strides, dilations, pads, group }, &[Some(&x), Some(&w), b.as_ref()])
}

/// A depthwise convolution over time that looks back only: what it looks back on before the first step is the state of the
/// step before, or zeros; its last steps are the state that follows.
fn causal_conv(n: &mut NodeCx<'_>) -> Imported {
    let (x, w) = (n.operand(0, "input")?, n.operand(1, "weight")?);
    let (bias, past) = (n.optional(2), n.optional(3));
    let [batch, channels, length] = &n.shape(&x)[..] else {
        return n.invalid(format!("the operand `input` has {} dimensions, not 3", n.rank(&x)));
    };
    let taps = match kernel(n, &w)?[..] {
        [taps] if taps > 0 => taps,
        _ => return n.invalid("the operand `weight` is not channels x 1 x taps with at least one tap"),
    };
    let before = taps - 1;
    let line = match &past {
        Some(past) => n.emit(Concat { axis: 2 }, &[past, &x])?,
        None => {
            let before = vec![0, 0, before as i64];
            n.emit(Pad { before, after: vec![0; 3], mode: PadMode::Constant, value: 0.0 }, &[&x])?
        }
    };
    let group = n.known_dims(&x, "its number of channels is not known")?.get(1).copied().unwrap_or(1);
    let op = ir::Conv { strides: vec![1], dilations: vec![1], pads: vec![0; 2], group };
    let mut y = n.emit_all(op, &[Some(&line), Some(&w), bias.as_ref()])?;
    if n.choice("activation", "none", &[("none", false), ("silu", true), ("swish", true)])? {
        y = n.emit_all(Silu {}, &[y.first()])?;
    }
    if n.wants(1) {
        let starts = vec![Dim::from(0usize), Dim::from(0usize), length.clone()];
        let lens = vec![batch.clone(), channels.clone(), Dim::from(before)];
        y.push(n.emit(Slice { starts, lens, steps: vec![1; 3] }, &[&line])?);
    }
    Ok(y)
}

/// `output_shape` fixes the output and pads follow from it; with an `auto_pad` of SAME and no shape, it is input * stride.
/// An output larger than the full one is zeros (and bias) at the end, which is output padding.
fn conv_transpose(n: &mut NodeCx<'_>) -> Imported {
    let (x, w) = (n.operand(0, "X")?, n.operand(1, "W")?);
    let sizes = spatial(n, &n.shape(&x))?;
    let axes = sizes.len();
    let kernel = kernel(n, &w)?;
    if kernel.len() != axes {
        return n.invalid(format!("the kernel has {} axes, the operand {axes} spatial ones", kernel.len()));
    }
    let strides = n.sizes("strides", axes, 1, 1)?;
    let dilations = n.sizes("dilations", axes, 1, 1)?;
    let mut output_padding = n.sizes("output_padding", axes, 0, 0)?;
    let group = n.count("group", Some(1))?;
    let auto = auto_pad(n)?;
    let mut wanted = n.ints("output_shape")?;
    if let Some(shape) = &mut wanted {
        if shape.len() == axes + 2 {
            shape.drain(..2); // some exporters give batch and channels too
        }
        if shape.len() != axes {
            return n.invalid(format!("the attribute `output_shape` has {} elements, not {axes}", shape.len()));
        }
    }
    let same = matches!(auto, AutoPad::SameUpper | AutoPad::SameLower);
    let mut pads = if auto == AutoPad::NotSet { explicit_pads(n, axes)? } else { vec![0; 2 * axes] };
    if wanted.is_some() || same {
        let dims = n.known_dims(&x, "its padding is not known")?;
        for axis in 0..axes {
            let at = |list: &[usize]| list.get(axis).copied().unwrap_or(1);
            let (size, stride) = (dims.get(axis + 2).copied().unwrap_or(1), at(&strides));
            let extent = at(&dilations).saturating_mul(at(&kernel).saturating_sub(1)).saturating_add(1);
            let padding = at(&output_padding);
            let full = stride.saturating_mul(size.saturating_sub(1)).saturating_add(padding).saturating_add(extent);
            let out = match wanted.as_ref().and_then(|shape| shape.get(axis)) {
                Some(&out) => match usize::try_from(out) {
                    Ok(out) => out,
                    Err(_) => return n.invalid(format!("the attribute `output_shape` has the size {out}")),
                },
                None => size.saturating_mul(stride),
            };
            // The odd element of an explicit output shape is cropped from the front unless SAME_UPPER is set.
            let (before, behind) = halves(full.saturating_sub(out), auto != AutoPad::SameUpper);
            pads[axis] = before;
            pads[axes + axis] = behind;
            output_padding[axis] = padding.saturating_add(out.saturating_sub(full));
        }
    }
    let b = n.optional(2);
    let op = ir::ConvTranspose { strides, dilations, pads, output_padding, group };
    n.emit_all(op, &[Some(&x), Some(&w), b.as_ref()])
}
