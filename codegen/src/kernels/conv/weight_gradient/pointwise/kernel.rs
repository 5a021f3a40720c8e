//! The kernel: tasks, chunks of pixels, and what a stride leaves out.

use super::super::equal_runs;
use super::Pointwise;
use super::shape::Shape;
use super::sums::Sums;
use crate::kernels::isa_name;
use crate::kernels::window::{balanced, div_rem_by, full_or_edge_of, piece};
use crate::kir::{ArgDecl, Builder, Elem, IntCc, Kernel, Type, Value};
use nncc_ir::{BLOCK, channel_blocks, padded_channels};

/// What a task computes.
pub(super) struct TaskAt {
    pub shape: Shape,
    pub panels: [Value; 2],
    pub tiles: [Value; 2],
    pub images: [Value; 2],
    /// The first input channel of the group, in the first image.
    pub x: Value,
    /// The first output channel of the group, in the first image.
    pub dy: Value,
    /// The weights of the group.
    pub dw: Value,
}

/// Some pixels of some images.
pub(super) struct ChunkAt {
    pub images: [Value; 2],
    depth: Value,
    first_row: Value,
    /// How many rows.
    rows: Value,
    /// The first pixel among the outputs.
    pub place: Value,
    /// How many of an image.
    pub pixels: Value,
    /// Is there no sum yet?
    pub first: Value,
}

/// Where a tile's input channels lie; pitches in elements.
pub(super) struct Input {
    pub base: Value,
    /// The first pixel.
    pub place: Value,
    /// The image that lies at `base`.
    pub first_image: Value,
    pub image_pitch: Value,
    pub block_pitch: Value,
}

impl Pointwise<'_> {
    /// The kernel. Operands: x, dy, the rows of dw of all parts, [`shape`](Self::shape).
    pub fn kernel(&self) -> Kernel {
        let mut args = vec![ArgDecl::read("x", 4), ArgDecl::read("dy", 4), ArgDecl::read_write("dw", 4)];
        args.push(ArgDecl::read("shape", 8));
        let (isa, stride) = (isa_name(self.target), if self.gathers() { "s" } else { "" });
        let name = format!("f32_conv_weights_1{stride}__{isa}_{}x{}", self.blocks * BLOCK, self.channels);
        let mut b = Builder::new(name, args);
        b.tasks(|b, task| {
            let shape = Shape::load(b, b.arg(3));
            let (rest, c) = div_rem_by(b, task, shape.cuts_c);
            let (rest, m) = div_rem_by(b, rest, shape.cuts_m);
            let (part, group) = match self.problem.groups {
                1 => (rest, b.i64(0)),
                _ => div_rem_by(b, rest, shape.groups),
            };
            let panels = piece(b, m, shape.cut_panels, shape.panels);
            let tiles = piece(b, c, shape.cut_tiles, shape.tiles);
            let images = piece(b, part, shape.part_images, shape.batch);
            let of_group = |b: &mut Builder, base: Value, channels: Value, channel: Value| {
                let first = b.mul(group, channels);
                let first = b.mul(first, channel);
                b.ptr(base.at(0).idx(first, 4))
            };
            let x = of_group(b, b.arg(0), shape.inputs, shape.input_plane);
            let dy = of_group(b, b.arg(1), shape.outputs, shape.output_plane);
            let part = b.mul(part, shape.stored);
            let dw = b.ptr(b.arg(2).at(0).idx(part, 4));
            let dw = of_group(b, dw, shape.outputs, shape.inputs);
            self.task(b, &TaskAt { shape, panels, tiles, images, x, dy, dw });
        });
        b.finish()
    }

    fn task(&self, b: &mut Builder, at: &TaskAt) {
        let shape = &at.shape;
        let zero = b.i64(0);
        b.for_(0, shape.image_chunks, 1, |b, chunk| {
            let first = b.mul(chunk, shape.chunk_images);
            let first_image = b.add(at.images[0], first);
            let end = b.add(first_image, shape.chunk_images);
            let end = b.min_s(end, at.images[1]);
            // The last part may have fewer images.
            let there = b.icmp(IntCc::LtS, first_image, end);
            b.when(there, |b| {
                let depth = |b: &mut Builder, depth: Value| {
                    b.for_(0, shape.row_chunks, 1, |b, chunk| {
                        let first_row = b.mul(chunk, shape.chunk_rows);
                        let rows = b.sub(shape.rows, first_row);
                        let rows = b.min_s(rows, shape.chunk_rows);
                        let line = b.mul(depth, shape.rows);
                        let line = b.add(line, first_row);
                        let place = b.mul(line, shape.width);
                        let pixels = b.mul(rows, shape.width);
                        let before = b.add(first, place);
                        let first = b.icmp(IntCc::Eq, before, zero);
                        let images = [first_image, end];
                        self.chunk(b, at, &ChunkAt { images, depth, first_row, rows, place, pixels, first });
                    });
                };
                match self.problem.axes[0].outputs {
                    1 => depth(b, zero),
                    _ => b.for_(0, shape.depth, 1, depth),
                }
            });
        });
    }

    /// All products of some pixels of some images.
    fn chunk(&self, b: &mut Builder, task: &TaskAt, at: &ChunkAt) {
        if self.gathers() {
            self.gather(b, task, at);
        }
        let outputs = self.problem.outputs;
        self.each_tile(b, task, |b, tile, blocks| {
            let x = self.tile_input(b, task, at, tile);
            let next = self.next_tile(b, task, at, tile);
            b.for_(task.panels[0], task.panels[1], 1, |b, panel| {
                let [full, edge] = [outputs / BLOCK > 0, !outputs.is_multiple_of(BLOCK)];
                full_or_edge_of(
                    b,
                    panel,
                    |_| task.shape.full_panels,
                    [full, edge],
                    |b, is_full| {
                        let rows = if is_full { BLOCK } else { outputs % BLOCK };
                        let width = if is_full { BLOCK } else { padded_channels(rows) };
                        equal_runs(b, balanced(rows, self.channels), |b, row, count| {
                            let sums = Sums { blocks, x: &x, tile, panel, width, row, count };
                            let ahead = next.as_ref().map(|next| self.ahead(b, task, at, next, &sums));
                            self.tile(b, task, at, &sums, ahead.as_ref());
                        });
                    },
                );
            });
        });
    }

    /// `f(tile, its blocks)` for the tiles of a task; a block is its channels and the channels that are stored.
    fn each_tile(&self, b: &mut Builder, task: &TaskAt, f: impl Fn(&mut Builder, Value, &[[usize; 2]])) {
        let (inputs, channels) = (self.problem.inputs, BLOCK * self.blocks);
        b.for_(task.tiles[0], task.tiles[1], 1, |b, tile| {
            let [full, edge] = [inputs / channels > 0, !inputs.is_multiple_of(channels)];
            full_or_edge_of(
                b,
                tile,
                |_| task.shape.full_tiles,
                [full, edge],
                |b, is_full| {
                    let channels = if is_full { channels } else { inputs % channels };
                    let block = |(first, width): (usize, usize)| [width.min(channels - first), width];
                    let blocks: Vec<[usize; 2]> = channel_blocks(channels).map(block).collect();
                    f(b, tile, &blocks);
                },
            );
        });
    }

    /// Where a tile of input channels begins among those of a group.
    pub(super) fn tile_pitch(&self, b: &mut Builder, task: &TaskAt) -> Value {
        b.mul_imm(task.shape.input_plane, (self.blocks * BLOCK) as i64)
    }

    /// Where a tile of input channels begins in scratch memory.
    fn gathered(&self, b: &mut Builder, task: &TaskAt, tile: Value) -> Value {
        let tile = b.sub(tile, task.tiles[0]);
        let first = b.mul(tile, task.shape.chunk_pixels);
        b.ptr(b.scratch().at(0).idx(first, self.blocks * BLOCK * 4))
    }

    /// Elements from one image to the next there.
    fn gathered_image(&self, b: &mut Builder, task: &TaskAt) -> Value {
        let pixels = b.mul(task.shape.chunk_rows, task.shape.width);
        b.mul_imm(pixels, BLOCK as i64)
    }

    /// Where the pixels of a chunk begin, of the first image and first block of a tile.
    fn tile_input(&self, b: &mut Builder, task: &TaskAt, at: &ChunkAt, tile: Value) -> Input {
        if self.gathers() {
            let (base, place) = (self.gathered(b, task, tile), b.i64(0));
            let image_pitch = self.gathered_image(b, task);
            let block_pitch = b.mul_imm(task.shape.chunk_pixels, BLOCK as i64);
            return Input { base, place, first_image: at.images[0], image_pitch, block_pitch };
        }
        let pitch = self.tile_pitch(b, task);
        let first = b.mul(tile, pitch);
        let base = b.ptr(task.x.at(0).idx(first, 4));
        let block_pitch = b.mul_imm(task.shape.input_plane, BLOCK as i64);
        let image_pitch = task.shape.input_image;
        Input { base, place: at.place, first_image: b.i64(0), image_pitch, block_pitch }
    }

    /// Copies what the windows of a chunk read, the pixels of an image and block one behind the other.
    fn gather(&self, b: &mut Builder, task: &TaskAt, at: &ChunkAt) {
        let shape = &task.shape;
        let depth = b.mul(at.depth, shape.depth_step);
        let gathered_image = self.gathered_image(b, task);
        self.each_tile(b, task, |b, tile, blocks| {
            let to = self.gathered(b, task, tile);
            let pitch = self.tile_pitch(b, task);
            let first = b.mul(tile, pitch);
            let from = b.ptr(task.x.at(0).idx(first, 4));
            for (i, &[_, stored]) in blocks.iter().enumerate() {
                let block = b.mul_imm(shape.chunk_pixels, (i * BLOCK) as i64);
                let to = b.ptr(to.at(0).idx(block, 4));
                let block = b.mul_imm(shape.input_plane, (i * BLOCK) as i64);
                let from = b.ptr(from.at(0).idx(block, 4));
                let lanes = self.target.lanes(Elem::F32).min(stored);
                let ty = Type::of(Elem::F32, lanes);
                let step = b.mul_imm(shape.width_step, stored as i64);
                b.for_(at.images[0], at.images[1], 1, |b, image| {
                    let first = b.mul(image, shape.input_image);
                    let from = b.ptr(from.at(0).idx(first, 4));
                    let image = b.sub(image, at.images[0]);
                    let first = b.mul(image, gathered_image);
                    let to = b.ptr(to.at(0).idx(first, 4));
                    b.for_(0, at.rows, 1, |b, row| {
                        let line = b.mul(row, shape.width);
                        let to = b.ptr(to.at(0).idx(line, stored * 4));
                        let row = b.add(at.first_row, row);
                        let line = b.mul(row, shape.row_step);
                        let line = b.add(line, depth);
                        let from = b.ptr(from.at(0).idx(line, stored * 4));
                        b.for_(0, shape.width, 1, |b, o| {
                            let first = b.mul(o, step);
                            for lane in (0..stored).step_by(lanes) {
                                let v = b.load(ty, from.at(lane as i64 * 4).idx(first, 4));
                                b.store(to.at(lane as i64 * 4).idx(o, stored * 4), v);
                            }
                        });
                    });
                });
            }
        });
    }
}
