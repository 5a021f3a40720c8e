//! Convolution templates.
//!
//! | template | serves |
//! |---|---|
//! | [`direct`] | everything with whole channel blocks a group: dense, strided, dilated, pointwise, phases of a transpose; matrix products |
//! | [`winograd`] | 3x3 with stride 1 and many channels, where its error permits |
//! | [`depthwise`] | 1, 2, 4 or 8 channels a group, as many in as out, on blocked values |
//! | [`weight_gradient`] | the gradient with respect to the weights, in forms of its own |
//! | [`generic`] | the rest, one element at a time: other dtypes, odd groups, row-major results, any number of axes |
//!
//! The register tile of the direct template is chosen in [`tile`]; that and whatever else may be chosen is a [`schedule`], and
//! [`layer`] says which others are worth a try.

pub mod depthwise;
pub mod direct;
pub mod generic;
pub mod layer;
#[cfg(test)]
mod quality;
pub mod schedule;
pub mod tile;
pub mod weight_gradient;
pub mod winograd;

use super::epilogue::Epilogue;
use super::window::Axis;
use crate::kir::{ArgDecl, Builder, Value};
use nncc_ir::{BLOCK, Layout};

/// A convolution over three spatial axes (missing ones are [`Axis::UNIT`]), or one phase of a transposed one.
///
/// A matrix product is one with a single tap: rows are pixels, columns are channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Images.
    pub batch: usize,
    /// Groups; with more than one, whole blocks of input and output channels belong to each.
    pub groups: usize,
    /// Input channels of one group.
    pub inputs: usize,
    /// Output channels of one group.
    pub outputs: usize,
    /// Depth, height, width.
    pub axes: [Axis; 3],
    /// How the input is stored.
    pub source: Source,
    /// How the weights are stored.
    pub weights: Weights,
    /// How the output is stored.
    pub sink: Sink,
    /// Is there a bias?
    pub bias: bool,
    /// What is done to the sums.
    pub epilogue: Epilogue,
}

/// How the input of a direct convolution is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Channel blocks.
    Blocked,
    /// A plane a channel: `[N, C, spatial..]` row-major.
    Planar,
    /// A matrix whose rows are the pixels and whose columns the channels; distances in elements.
    Matrix {
        /// From one pixel to the next.
        row: usize,
        /// From one channel to the next.
        column: usize,
        /// From one image to the next, 0 where all share.
        image: usize,
    },
}

/// How the weights of a direct convolution are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Packed by [`ConvPanels`](crate::pack::ConvPanels) or [`MatrixPanels`](crate::pack::MatrixPanels).
    Panels,
    /// A row-major matrix `[input channels, output channels]` that is only known at run time; one tap.
    Rows {
        /// From one image's matrix to the next, 0 where all share.
        image: usize,
    },
}

/// How the output of a direct convolution is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Channel blocks.
    Blocked,
    /// A row-major matrix `[pixels, output channels]` for each image.
    Matrix,
}

impl From<Layout> for Source {
    fn from(layout: Layout) -> Source {
        match layout {
            Layout::Blocked => Source::Blocked,
            Layout::RowMajor => Source::Planar,
        }
    }
}

impl Conv {
    /// The operands of a kernel: those named `first` (x, with alignment 4, or others, packed), bias (if there is one), the
    /// epilogue's extras, y.
    pub(crate) fn arguments(&self, first: &[&str], y: ArgDecl) -> Vec<ArgDecl> {
        let of = |&name: &&str| ArgDecl::read(name, if name == "x" { 4 } else { 64 });
        let mut args: Vec<ArgDecl> = first.iter().map(of).collect();
        if self.bias {
            args.push(ArgDecl::read("bias", 64));
        }
        args.extend((0..self.epilogue.extras.len()).map(|i| ArgDecl::read(format!("e{i}"), 4)));
        args.push(y);
        args
    }

    /// Taps of the whole window.
    pub fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.taps).product()
    }

    /// Elements of one input plane in memory.
    pub fn input_plane(&self) -> usize {
        self.axes.iter().map(|a| a.in_extent).product()
    }

    /// Elements of one plane of the output in memory.
    pub fn output_plane(&self) -> usize {
        self.axes.iter().map(|a| a.out_extent).product()
    }

    /// Multiply-accumulates, padding counted.
    pub fn macs(&self) -> u64 {
        let pixels: usize = self.axes.iter().map(|a| a.outputs).product();
        (self.batch * self.groups * self.inputs * self.outputs) as u64 * (pixels * self.taps()) as u64
    }

    /// The name of the kernel without its tile.
    pub fn name(&self) -> String {
        match self.sink {
            Sink::Blocked => format!("f32_conv_{}", self.shape_name()),
            Sink::Matrix => "f32_gemm".into(),
        }
    }

    /// `3x3s2` and the like, for kernel names.
    pub fn shape_name(&self) -> String {
        let taps: Vec<String> = self.axes.iter().filter(|a| a.taps != 1).map(|a| a.taps.to_string()).collect();
        let taps = if taps.is_empty() { "1".into() } else { taps.join("x") };
        let stride = self.axes.iter().map(|a| a.stride).max().unwrap_or(1);
        if stride == 1 { taps } else { format!("{taps}s{stride}") }
    }
}

/// Where the operands of a convolution lie.
pub(crate) struct Operands {
    pub x: Value,
    pub w: Value,
    pub bias: Option<Value>,
    pub extras: Vec<Value>,
    pub y: Value,
}

impl Operands {
    /// The arguments of a kernel: x, w, bias (if there is one), the epilogue's extras, y.
    pub(crate) fn of_args(b: &Builder, bias: bool, extras: usize) -> Operands {
        Operands { w: b.arg(1), ..Operands::from_arg(b, 2, bias, extras) }
    }

    /// The arguments of a kernel without weights: x, bias (if there is one), the epilogue's extras, y.
    pub(crate) fn without_weights(b: &Builder, bias: bool, extras: usize) -> Operands {
        Operands::from_arg(b, 1, bias, extras)
    }

    fn from_arg(b: &Builder, first: usize, bias: bool, extras: usize) -> Operands {
        let first_extra = first + usize::from(bias);
        Operands {
            x: b.arg(0),
            w: b.arg(0),
            bias: bias.then(|| b.arg(first)),
            extras: (first_extra..first_extra + extras).map(|i| b.arg(i)).collect(),
            y: b.arg(first_extra + extras),
        }
    }
}

/// Channels that one loop nest of the kernel walks: those of the full blocks, or those of the edge block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Blocks.
    pub blocks: usize,
    /// Real channels of each.
    pub channels: usize,
    /// Elements from one block to the next.
    pub block_pitch: usize,
    /// Elements from one pixel to the next.
    pub pixel_pitch: usize,
    /// Elements from one channel to the next.
    pub channel_pitch: usize,
}

/// The input channels of a group as at most two segments: full blocks, and the edge block with fewer channels.
pub(crate) fn segments(channels: usize, plane: usize, source: Source) -> Vec<Segment> {
    let (blocks, rest) = (channels / BLOCK, channels % BLOCK);
    let (full_pitch, edge_pitch, channel_pitch, block_pitch) = match source {
        Source::Blocked => (BLOCK, nncc_ir::padded_channels(rest).max(1), 1, BLOCK * plane),
        Source::Planar => (1, 1, plane, BLOCK * plane),
        Source::Matrix { row, column, .. } => (row, row, column, BLOCK * column),
    };
    let full = Segment { blocks, channels: BLOCK, block_pitch, pixel_pitch: full_pitch, channel_pitch };
    let edge = Segment { blocks: 1, channels: rest, block_pitch, pixel_pitch: edge_pitch, channel_pitch };
    [full, edge].into_iter().filter(|s| s.blocks * s.channels > 0).collect()
}

/// The widths of the panels of `channels` output channels: 16 each, 8 for an edge that fits.
pub(crate) fn panel_widths(channels: usize) -> Vec<usize> {
    nncc_ir::channel_blocks(channels).map(|(_, width)| width).collect()
}
