//! What convolutions and pools share: strides, dilations and padding of a sliding window, with `auto_pad` resolved.
//!
//! ```text
//! NOTSET      pads as given (0 if they are not)
//! VALID       no padding
//! SAME_UPPER  total = max((ceil(size / stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0), the odd one behind
//! SAME_LOWER  the same, the odd one before
//! ```

use crate::build::{Stop, needs_dims};
use crate::node::NodeCx;
use nncc_ir::Dim;

/// A sliding window; lists have one element a spatial axis, `pads` first those before, then those behind.
pub(super) struct Window {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    pub(super) pads: Vec<usize>,
    /// Whether `ceil_mode` still means something: the automatic paddings fix the output sizes.
    pub(super) ceil_mode: bool,
}

/// How `auto_pad` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AutoPad {
    NotSet,
    Valid,
    SameUpper,
    SameLower,
}

pub(super) fn auto_pad(n: &NodeCx<'_>) -> Result<AutoPad, Stop> {
    n.choice(
        "auto_pad",
        "NOTSET",
        &[
            ("NOTSET", AutoPad::NotSet),
            ("VALID", AutoPad::Valid),
            ("SAME_UPPER", AutoPad::SameUpper),
            ("SAME_LOWER", AutoPad::SameLower),
            ("", AutoPad::NotSet),
        ],
    )
}

/// `total` padding as (before, behind); an odd element goes behind unless `lower`.
pub(super) fn halves(total: usize, lower: bool) -> (usize, usize) {
    let (small, large) = (total / 2, total - total / 2);
    if lower { (large, small) } else { (small, large) }
}

/// The padding attribute, one pair an axis: not negative.
pub(super) fn explicit_pads(n: &NodeCx<'_>, spatial: usize) -> Result<Vec<usize>, Stop> {
    n.sizes("pads", 2 * spatial, 0, 0)
}

/// Reads a window over spatial axes of these sizes.
pub(super) fn window(n: &NodeCx<'_>, sizes: &[Dim], kernel: Vec<usize>) -> Result<Window, Stop> {
    let spatial = sizes.len();
    if kernel.len() != spatial {
        return n.invalid(format!("the kernel has {} axes, the operand {spatial} spatial ones", kernel.len()));
    }
    let strides = n.sizes("strides", spatial, 1, 1)?;
    let dilations = n.sizes("dilations", spatial, 1, 1)?;
    let ceil_mode = n.flag("ceil_mode", false)?;
    let auto = auto_pad(n)?;
    let pads = match auto {
        AutoPad::NotSet => explicit_pads(n, spatial)?,
        AutoPad::Valid => vec![0; 2 * spatial],
        AutoPad::SameUpper | AutoPad::SameLower => {
            let (mut before, mut behind) = (Vec::new(), Vec::new());
            for (((size, k), s), d) in sizes.iter().zip(&kernel).zip(&strides).zip(&dilations) {
                let (b, e) = halves(same_total(size, *k, *s, *d)?, auto == AutoPad::SameLower);
                before.push(b);
                behind.push(e);
            }
            before.extend(behind);
            before
        }
    };
    Ok(Window { kernel, strides, dilations, pads, ceil_mode: ceil_mode && auto == AutoPad::NotSet })
}

/// The padding with which an axis of `size` gives ceil(size / stride) outputs.
fn same_total(size: &Dim, kernel: usize, stride: usize, dilation: usize) -> Result<usize, Stop> {
    let extent = Dim::from(dilation).mul(&Dim::from(kernel.saturating_sub(1))).add(&Dim::Known(1));
    let stride = Dim::from(stride);
    let outputs = size.ceil_div(stride.known().unwrap_or(1)).unwrap_or_else(|| size.clone());
    let total = outputs.sub(&Dim::Known(1)).mul(&stride).add(&extent).sub(size);
    match total.known() {
        Some(t) => Ok(usize::try_from(t).unwrap_or(0)),
        None => Err(needs_dims("the padding of auto_pad is not known", &[total]).into()),
    }
}

/// The sizes of a value's axes behind batch and channel.
pub(super) fn spatial(n: &NodeCx<'_>, shape: &[Dim]) -> Result<Vec<Dim>, Stop> {
    match shape {
        [_, _, spatial @ ..] if !spatial.is_empty() => Ok(spatial.to_vec()),
        _ => {
            n.invalid(format!("the operand has {} axes; batch, channel and at least one more are needed", shape.len()))
        }
    }
}
