//! Convolution templates.
//!
//! | template | serves |
//! |---|---|
//! | [`direct`] | everything with whole channel blocks a group: dense, strided, dilated, pointwise, phases of a transpose |
//! | [`depthwise`] | one channel a group, one filter each, on blocked values |
//! | [`generic`] | the rest, one element at a time: other dtypes, odd groups, row-major results, any number of axes |
//!
//! The register tile of the direct template is chosen in [`tile`].

pub mod depthwise;
pub mod direct;
pub mod generic;
pub mod tile;

use super::epilogue::Epilogue;
use super::window::Axis;
use nncc_ir::{BLOCK, Layout};

/// A convolution over three spatial axes (missing ones are [`Axis::UNIT`]), or one phase of a transposed one.
///
/// Weights are packed by [`ConvPanels`](crate::pack::ConvPanels); the result is blocked.
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
    pub source: Layout,
    /// Is there a bias?
    pub bias: bool,
    /// What is done to the sums.
    pub epilogue: Epilogue,
}

impl Conv {
    /// Taps of the whole window.
    pub fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.taps).product()
    }

    /// Elements of one input plane.
    pub fn input_plane(&self) -> usize {
        self.axes.iter().map(|a| a.inputs).product()
    }

    /// Elements of one plane of the output tensor.
    pub fn output_plane(&self) -> usize {
        self.axes.iter().map(|a| a.out_extent).product()
    }

    /// Multiply-accumulates, padding counted.
    pub fn macs(&self) -> u64 {
        let pixels: usize = self.axes.iter().map(|a| a.outputs).product();
        (self.batch * self.groups * self.inputs * self.outputs) as u64 * (pixels * self.taps()) as u64
    }

    /// `3x3s2` and the like, for kernel names.
    pub fn shape_name(&self) -> String {
        let taps: Vec<String> = self.axes.iter().filter(|a| a.taps != 1).map(|a| a.taps.to_string()).collect();
        let taps = if taps.is_empty() { "1".into() } else { taps.join("x") };
        let stride = self.axes.iter().map(|a| a.stride).max().unwrap_or(1);
        if stride == 1 { taps } else { format!("{taps}s{stride}") }
    }
}

/// Channels that one loop nest of the kernel walks: those of the full blocks, or those of the edge block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Blocks.
    pub blocks: usize,
    /// Real channels of each.
    pub channels: usize,
    /// Elements from the image's base to the first block.
    pub start: usize,
    /// Elements from one block to the next.
    pub block_pitch: usize,
    /// Elements from one pixel to the next.
    pub pixel_pitch: usize,
    /// Elements from one channel to the next.
    pub channel_pitch: usize,
}

/// The input channels of a group as at most two segments: full blocks, and the edge block with fewer channels.
pub(crate) fn segments(channels: usize, plane: usize, source: Layout) -> Vec<Segment> {
    let (blocks, rest) = (channels / BLOCK, channels % BLOCK);
    let (full_pitch, edge_pitch, channel_pitch) = match source {
        Layout::Blocked => (BLOCK, nncc_ir::padded_channels(rest).max(1), 1),
        Layout::RowMajor => (1, 1, plane),
    };
    let block_pitch = BLOCK * plane;
    let full = Segment { blocks, channels: BLOCK, start: 0, block_pitch, pixel_pitch: full_pitch, channel_pitch };
    let edge = Segment {
        blocks: 1,
        channels: rest,
        start: blocks * block_pitch,
        block_pitch,
        pixel_pitch: edge_pitch,
        channel_pitch,
    };
    [full, edge].into_iter().filter(|s| s.blocks * s.channels > 0).collect()
}

/// The widths of the panels of `channels` output channels: 16 each, 8 for an edge that fits.
pub(crate) fn panel_widths(channels: usize) -> Vec<usize> {
    nncc_ir::channel_blocks(channels).map(|(_, width)| width).collect()
}
