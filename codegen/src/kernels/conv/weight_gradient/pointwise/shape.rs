//! Sizes as an operand of the kernel: layers that differ in nothing else share its code.

use super::Pointwise;
use crate::kernels::words;
use crate::kir::{Builder, I64, Value};
use nncc_ir::{BLOCK, padded_channels};

/// Declares [`Shape`] and the order of its numbers in memory.
macro_rules! shape {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a kernel reads instead of having it as constants. Distances are in elements.
        pub(super) struct Shape {
            $($(#[$doc])* pub $name: Value,)*
        }

        /// The same as numbers.
        struct Numbers {
            $($name: usize,)*
        }

        impl Shape {
            /// Reads the numbers.
            pub fn load(b: &mut Builder, operand: Value) -> Shape {
                let mut place = 0;
                let mut next = || {
                    place += 8;
                    b.load(I64, operand.at(place - 8))
                };
                Shape { $($name: next(),)* }
            }
        }

        impl Numbers {
            fn in_order(&self) -> Vec<usize> {
                vec![$(self.$name,)*]
            }
        }
    };
}

shape! {
    /// Cuts of the output channels.
    cuts_m,
    /// Cuts of the input channels.
    cuts_c,
    groups,
    /// Panels of output channels of a group, and how many a task has.
    panels,
    cut_panels,
    full_panels,
    /// Tiles of input channels of a group, and how many a task has.
    tiles,
    cut_tiles,
    full_tiles,
    /// Tiles of a task that share a block of the next tile of x.
    readers,
    batch,
    /// Images of a part, and of a chunk.
    part_images,
    chunk_images,
    image_chunks,
    /// Rows of outputs: all, those of a chunk, and how many chunks.
    rows,
    chunk_rows,
    row_chunks,
    depth,
    /// Pixels of a row.
    width,
    /// Channels of a group.
    inputs,
    outputs,
    /// Weights of a part.
    stored,
    input_plane,
    output_plane,
    input_image,
    output_image,
    /// Pixels of x from one output to the next along depth, rows and width.
    depth_step,
    row_step,
    width_step,
    /// Pixels of scratch memory of a block.
    chunk_pixels,
}

impl Pointwise<'_> {
    /// What the kernel's last operand holds: the numbers of `Shape`.
    pub fn shape(&self) -> Vec<u8> {
        let p = &self.problem;
        let [depth, height, width] = &p.axes;
        let [cuts_m, cuts_c] = self.cuts();
        let numbers = Numbers {
            cuts_m,
            cuts_c,
            groups: p.groups,
            panels: self.panels(),
            cut_panels: self.cut.panels,
            full_panels: p.outputs / BLOCK,
            tiles: self.tiles(),
            cut_tiles: self.cut.tiles,
            full_tiles: p.inputs / (BLOCK * self.blocks),
            readers: self.readers(),
            batch: p.batch,
            part_images: self.cut.parts.images,
            chunk_images: self.chunk.images,
            image_chunks: self.cut.parts.images.div_ceil(self.chunk.images),
            rows: height.outputs,
            chunk_rows: self.chunk.rows,
            row_chunks: height.outputs.div_ceil(self.chunk.rows),
            depth: depth.outputs,
            width: width.outputs,
            inputs: p.inputs,
            outputs: p.outputs,
            stored: self.stored(),
            input_plane: p.input_plane(),
            output_plane: p.output_plane(),
            input_image: padded_channels(p.groups * p.inputs) * p.input_plane(),
            output_image: padded_channels(p.groups * p.outputs) * p.output_plane(),
            depth_step: depth.stride * height.inputs * width.inputs,
            row_step: height.stride * width.inputs,
            width_step: width.stride,
            chunk_pixels: self.chunk_pixels(),
        };
        words(numbers.in_order().into_iter().map(|n| n as i64))
    }
}
