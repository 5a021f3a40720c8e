//! Channel counts, the number of images, and what follows from them alone, as an operand of the kernel: layers that differ in
//! nothing else share its code, and so do the shape sets of several batches.

use super::super::{Sink, Source, panel_widths};
use super::Direct;
use crate::kernels::words;
use crate::kir::{Builder, I64, Value};
use nncc_ir::BLOCK;

impl Direct<'_> {
    /// What the kernel's last operand holds: the numbers of `Shape`.
    pub fn shape(&self) -> Vec<u8> {
        words(self.shape_numbers().map(|n| n as i64))
    }

    pub(super) fn shape_numbers(&self) -> [usize; Shape::NUMBERS] {
        let conv = &self.conv;
        let groups = conv.groups * self.panel_groups();
        let alone = self.chunks() * self.images == 1;
        let radices = match self.panels_inner {
            true => [groups, self.chunks(), 1],
            false => [self.chunks(), self.images, groups],
        };
        let channels = conv.groups * conv.outputs;
        let stored = if conv.sink == Sink::Matrix { channels } else { nncc_ir::padded_channels(channels) };
        [
            self.panel_groups(),
            panel_widths(conv.outputs).len(),
            radices[0],
            radices[1],
            radices[2],
            self.rows,
            conv.inputs / BLOCK,
            self.pass_blocks,
            self.passes(),
            conv.inputs * conv.taps(),
            self.input_image(),
            conv.inputs * conv.input_plane(),
            stored * conv.output_plane(),
            self.ahead(),
            // The next task has the next group of panels, or the same one again.
            if self.panels_inner || alone { conv.inputs * conv.taps() } else { 0 },
            usize::from(self.panels_inner),
        ]
    }

    /// The shape as constants, for code inside of another kernel.
    pub(super) fn known_shape(&self, b: &mut Builder) -> Shape {
        Shape::new(self.shape_numbers().map(|n| b.i64(n as i64)))
    }

    /// Reads the numbers of the shape.
    pub(super) fn load_shape(&self, b: &mut Builder, operand: Value) -> Shape {
        let mut shape = Shape::new(std::array::from_fn(|i| b.load(I64, operand.at(8 * i as i64))));
        if self.conv.inputs < BLOCK {
            shape.blocks = b.i64(0);
        }
        shape
    }

    /// Elements from one image of the input to the next.
    pub(super) fn input_image(&self) -> usize {
        let conv = &self.conv;
        match conv.source {
            Source::Blocked => nncc_ir::padded_channels(conv.groups * conv.inputs) * conv.input_plane(),
            Source::Planar => conv.groups * conv.inputs * conv.input_plane(),
            Source::Matrix { image, .. } => image,
        }
    }
}

/// Channel counts, images and what follows from them: what a kernel reads instead of having it as constants.
pub(super) struct Shape {
    /// Tasks' groups of panels in one group of channels.
    pub panel_groups: Value,
    /// Panels of one group of channels.
    pub panels: Value,
    /// How a task's number is taken apart, the innermost extent first: `(image * chunks + chunk) * groups + group`, or, in blocks of
    /// images, `((block * groups + group) * images + image) * chunks + chunk`.
    pub radices: [Value; 3],
    /// Rows of a chunk.
    pub rows: Value,
    /// Full blocks of input channels.
    pub blocks: Value,
    /// Of these, those of one pass.
    pub pass_blocks: Value,
    pub passes: Value,
    /// Rows of 16 weights of one panel.
    pub weight_rows: Value,
    /// Elements of the input from one image to the next.
    pub input_image: Value,
    /// Elements of the input from one group of channels to the next.
    pub input_group: Value,
    /// Elements of the output from one image to the next.
    pub output_image: Value,
    /// Rows of weights of a panel that each tile asks for.
    pub ahead: Value,
    /// Rows of weights from a panel to the one that the next task begins with, for each panel of a tile.
    pub next_rows: Value,
    /// 1 when tasks go over panels first, the first of these forms; else 0.
    pub panels_inner: Value,
}

impl Shape {
    pub(super) const NUMBERS: usize = 16;

    /// From the numbers in the order of the fields.
    pub(super) fn new(numbers: [Value; Shape::NUMBERS]) -> Shape {
        let [panel_groups, panels, first, second, third, rows, blocks, pass_blocks, passes, weight_rows, ..] = numbers;
        let [.., input_image, input_group, output_image, ahead, next_rows, panels_inner] = numbers;
        Shape {
            panel_groups,
            panels,
            radices: [first, second, third],
            rows,
            blocks,
            pass_blocks,
            passes,
            weight_rows,
            input_image,
            input_group,
            output_image,
            ahead,
            next_rows,
            panels_inner,
        }
    }
}
