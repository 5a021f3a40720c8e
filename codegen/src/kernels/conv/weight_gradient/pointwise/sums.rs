//! A tile: its products over the pixels of a chunk, what it asks for meanwhile, and where its sums go.

use super::super::UNROLL;
use super::super::products::add_products;
use super::Pointwise;
use super::kernel::{ChunkAt, Input, TaskAt};
use crate::kernels::window::{balanced, div_rem, div_rem_by};
use crate::kir::{Addr, BinaryOp, Builder, Elem, IntCc, Type, Value};
use nncc_ir::BLOCK;

/// A tile: some blocks of input channels by some output channels of a panel.
pub(super) struct Sums<'t> {
    /// Channels and channels stored of each block.
    pub blocks: &'t [[usize; 2]],
    pub x: &'t Input,
    /// Which tile of input channels.
    pub tile: Value,
    pub panel: Value,
    /// Channels of the panel that are stored.
    pub width: usize,
    /// The first output channel in the panel, and how many.
    pub row: Value,
    pub count: usize,
}

/// A vector of a block of input channels.
#[derive(Clone, Copy, Debug)]
struct Lanes {
    block: usize,
    /// Channels of the block that are stored.
    stored: usize,
    /// Its first lane's channel, and how many lanes are channels.
    first: usize,
    count: usize,
}

/// Lines that are asked for while the pixels of an image are summed.
pub(super) struct Ahead {
    /// The first of the first image.
    base: Value,
    /// Elements from one image to the next.
    image_pitch: Value,
    /// Lines for each group of pixels.
    each: usize,
}

/// The tile behind another one, and its first pixel.
pub(super) struct Next {
    tile: Value,
    place: Value,
}

impl Pointwise<'_> {
    /// Tiles of a panel.
    fn row_tiles(&self) -> usize {
        balanced(BLOCK, self.channels).count()
    }

    /// Tiles of a task that share a block of the next tile of x.
    pub(super) fn readers(&self) -> usize {
        (self.cut.panels * self.row_tiles()).div_ceil(self.blocks)
    }

    /// The tile behind this one: of the next chunk behind the last one of this.
    pub(super) fn next_tile(&self, b: &mut Builder, task: &TaskAt, at: &ChunkAt, tile: Value) -> Option<Next> {
        self.target.prefetches.then(|| {
            let behind = b.add_imm(tile, 1);
            let is_last = b.icmp(IntCc::GeS, behind, task.tiles[1]);
            let place = b.add(at.place, at.pixels);
            Next { tile: b.select(is_last, task.tiles[0], behind), place: b.select(is_last, place, at.place) }
        })
    }

    /// What a tile asks for while it computes: its share of the next panel of dy, and of the next tile of x.
    ///
    /// Each product of a tile reads a line of every one of its blocks, far more than memory gives in that time; the tiles of a
    /// block of dw read them once together. So every tile asks for as much as the last one, ahead of its use.
    pub(super) fn ahead(
        &self,
        b: &mut Builder,
        task: &TaskAt,
        at: &ChunkAt,
        next: &Next,
        sums: &Sums<'_>,
    ) -> Vec<Ahead> {
        let shape = &task.shape;
        let row_tiles = self.row_tiles();
        let row = b.mul_imm(sums.row, row_tiles as i64);
        let (row_tile, _) = div_rem(b, row, BLOCK);
        let panel = b.add_imm(sums.panel, 1);
        let is_last = b.icmp(IntCc::GeS, panel, task.panels[1]);
        let (panel, place) = (b.select(is_last, task.panels[0], panel), b.select(is_last, next.place, at.place));
        let share = b.mul(row_tile, at.pixels);
        let (share, _) = div_rem(b, share, row_tiles);
        let pixel = b.mul(panel, shape.output_plane);
        let pixel = b.add(pixel, place);
        let pixel = b.add(pixel, share);
        let base = b.ptr(task.dy.at(0).idx(pixel, BLOCK * 4));
        let mut asked = vec![Ahead { base, image_pitch: shape.output_image, each: UNROLL.div_ceil(row_tiles) }];
        if !self.gathers() {
            let number = b.sub(sums.panel, task.panels[0]);
            let number = b.mul_imm(number, row_tiles as i64);
            let number = b.add(number, row_tile);
            // The first tiles ask for the first block, the last for the last.
            let (block, number) = div_rem_by(b, number, shape.readers);
            let share = b.mul(number, at.pixels);
            let (share, _) = div_rem_by(b, share, shape.readers);
            let first = b.mul_imm(next.tile, self.blocks as i64);
            let first = b.add(first, block);
            let pixel = b.mul(first, shape.input_plane);
            let pixel = b.add(pixel, next.place);
            let pixel = b.add(pixel, share);
            let base = b.ptr(task.x.at(0).idx(pixel, BLOCK * 4));
            asked.push(Ahead { base, image_pitch: shape.input_image, each: UNROLL.div_ceil(self.readers()) });
        }
        asked
    }

    /// The sums of a tile over the pixels of a chunk.
    pub(super) fn tile(
        &self,
        b: &mut Builder,
        task: &TaskAt,
        at: &ChunkAt,
        sums: &Sums<'_>,
        ahead: Option<&Vec<Ahead>>,
    ) {
        let shape = &task.shape;
        let vectors = self.vectors(sums);
        let types: Vec<Type> = vectors.iter().map(|v| self.vector(v.stored)).collect();
        let zeros: Vec<Value> = types.iter().flat_map(|&ty| vec![ty; sums.count]).map(|ty| b.zero(ty)).collect();
        let dy = b.mul(sums.panel, shape.output_plane);
        let dy = b.ptr(task.dy.at(0).idx(dy, BLOCK * 4));
        let dy = b.ptr(dy.at(0).idx(sums.row, 4));
        let mask = b.i64(-(UNROLL as i64));
        let unrolled = b.binary(BinaryOp::And, at.pixels, mask);
        let rows = self.rows(b, task, sums);
        if self.target.prefetches {
            // A line of a row is one vector or two.
            for &row in &rows {
                for v in vectors.iter().filter(|v| v.first == 0) {
                    b.prefetch(row.at(place(v)));
                }
            }
        }
        let zero = b.i64(0);
        let acc = b.loop_(at.images[0], at.images[1], 1, &zeros, |b, image, acc| {
            let first = b.mul(image, shape.output_image);
            let dy = b.ptr(dy.at(0).idx(first, 4));
            let dy = b.ptr(dy.at(0).idx(at.place, sums.width * 4));
            let local = b.sub(image, sums.x.first_image);
            let first = b.mul(local, sums.x.image_pitch);
            let x = b.ptr(sums.x.base.at(0).idx(first, 4));
            let xs: Vec<Value> = (sums.blocks.iter().enumerate())
                .map(|(i, &[_, stored])| {
                    let block = b.mul_imm(sums.x.block_pitch, i as i64);
                    let x = b.ptr(x.at(0).idx(block, 4));
                    b.ptr(x.at(0).idx(sums.x.place, stored * 4))
                })
                .collect();
            let ahead: Vec<(Value, usize)> = ahead
                .into_iter()
                .flatten()
                .map(|ahead| {
                    let first = b.mul(image, ahead.image_pitch);
                    (b.ptr(ahead.base.at(0).idx(first, 4)), ahead.each)
                })
                .collect();
            let mut acc = acc.to_vec();
            for (lo, hi, step) in [(zero, unrolled, UNROLL), (unrolled, at.pixels, 1)] {
                acc = b.loop_(lo, hi, step as i64, &acc, |b, i, acc| {
                    let mut acc = acc.to_vec();
                    let xs: Vec<Value> = (xs.iter().zip(sums.blocks))
                        .map(|(x, &[_, stored])| b.ptr(x.at(0).idx(i, stored * 4)))
                        .collect();
                    let dy = b.ptr(dy.at(0).idx(i, sums.width * 4));
                    if step == UNROLL {
                        for &(base, each) in &ahead {
                            let line = BLOCK * 4;
                            (0..each).for_each(|n| b.prefetch(base.at((n * line) as i64).idx(i, each * line / UNROLL)));
                        }
                    }
                    for pixel in 0..step {
                        let held: Vec<Value> = (vectors.iter().zip(&types))
                            .map(|(v, &ty)| b.load(ty, xs[v.block].at(((pixel * v.stored + v.first) * 4) as i64)))
                            .collect();
                        let channel = |m: usize| dy.at(((pixel * sums.width + m) * 4) as i64);
                        let channels: Vec<Addr> = (0..sums.count).map(channel).collect();
                        let place = |v: usize, m: usize| v * sums.count + m;
                        add_products(b, self.splat, &held, (&channels, sums.count), &mut acc, place);
                    }
                    acc
                });
            }
            acc
        });
        add_up(b, at, &rows, &vectors, &acc);
    }

    /// The vector type of a block that stores so many channels.
    fn vector(&self, stored: usize) -> Type {
        Type::of(Elem::F32, self.target.lanes(Elem::F32).min(stored))
    }

    fn vectors(&self, sums: &Sums<'_>) -> Vec<Lanes> {
        let of_block = |(block, &[channels, stored]): (usize, &[usize; 2])| {
            let lanes = self.vector(stored).lanes();
            let of = move |first: usize| Lanes { block, stored, first, count: lanes.min(channels - first) };
            (0..channels).step_by(lanes).map(of)
        };
        sums.blocks.iter().enumerate().flat_map(of_block).collect()
    }

    /// Where the first sum of each output channel of a tile belongs.
    fn rows(&self, b: &mut Builder, task: &TaskAt, sums: &Sums<'_>) -> Vec<Value> {
        let row = b.mul_imm(sums.panel, BLOCK as i64);
        let row = b.add(row, sums.row);
        let first = b.mul(row, task.shape.inputs);
        let mut rows = vec![b.ptr(task.dw.at(0).idx(first, 4))];
        rows[0] = b.ptr(rows[0].at(0).idx(sums.tile, self.blocks * BLOCK * 4));
        for m in 1..sums.count {
            rows.push(b.ptr(rows[m - 1].at(0).idx(task.shape.inputs, 4)));
        }
        rows
    }
}

/// How far from the first channel of a tile a vector lies, in bytes.
fn place(v: &Lanes) -> i64 {
    ((v.block * BLOCK + v.first) * 4) as i64
}

/// Writes the sums of a tile where they belong, or adds them to those of the chunks before.
fn add_up(b: &mut Builder, at: &ChunkAt, rows: &[Value], vectors: &[Lanes], acc: &[Value]) {
    let write = |b: &mut Builder, adds: bool| {
        for (v, acc) in vectors.iter().zip(acc.chunks(rows.len())) {
            for (row, &sum) in rows.iter().zip(acc) {
                let place = row.at(place(v));
                let before = adds.then(|| b.load_part(b.ty(sum), place, v.count));
                let sum = before.map_or(sum, |before| b.add(before, sum));
                b.store_part(place, sum, v.count);
            }
        }
    };
    b.branch(at.first, |b| write(b, false), |b| write(b, true));
}
