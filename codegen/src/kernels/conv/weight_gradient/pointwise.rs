//! Weight gradients of pointwise convolutions: a matrix product over the pixels, written as the rows of the weights.
//!
//! ```text
//! x  [N][C/16][pixel][16]       dy  [N][M/16][pixel][16]       dw  rows [M][C]
//!
//! for task (part of the images, panels of m, blocks of c)           its dw, and a chunk of x and dy, stay in L2
//!   for chunk of pixels
//!     x of the chunk, where windows have a stride, copied           pixels one behind the other
//!     for tile of blocks of c                                       x of the tile stays in L1
//!       for panel of m, tile of its channels
//!         acc = 0
//!         for pixel                            acc[v][m] += x[pixel][v] * dy[pixel][m]
//!         dw[m][c] = acc, or += behind the first chunk
//! ```
//!
//! Blocked values are the packed panels of GotoBLAS as they come: a pixel is a step of the sum, 16 channels stand side by
//! side. Lanes are input channels, so that results are pieces of rows and nothing has to be brought in order afterwards.
//! Registers: with `v` vectors of input channels, held for a pixel, and `q` output channels, `v * q` accumulators and one
//! broadcast; 16 lanes: two blocks by 8 channels, 10 loads for 16 multiply-adds.
//!
//! How the product is cut into tasks decides what comes from memory: x once for each cut of the output channels, dy once for each
//! of the input channels, and a part of the images costs a copy of dw written and read. The cut with the fewest bytes is taken
//! among those with enough tasks whose operands fit.

use super::{Chunk, LEAST_MACS, Parts, Problem, TASKS, UNROLL, equal_runs, flattened};
use crate::kernels::conv::tile::{Splat, splat};
use crate::kernels::conv::{Source, panel_widths};
use crate::kernels::isa_name;
use crate::kernels::window::{Axis, balanced, div_rem, full_or_edge};
use crate::kir::{Addr, ArgDecl, BinaryOp, Builder, Elem, IntCc, Kernel, Type, Value};
use crate::target::{Level, Target};
use nncc_ir::{BLOCK, channel_blocks, padded_channels};

/// A weight gradient with everything chosen.
#[derive(Clone, Debug)]
pub struct Pointwise<'a> {
    target: &'a Target,
    problem: Problem,
    /// How channels of dy get into all lanes.
    splat: Splat,
    /// Blocks of input channels of a tile.
    blocks: usize,
    /// The most output channels of a tile.
    channels: usize,
    chunk: Chunk,
    cut: Cut,
}

/// How the product is cut into tasks.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Panels of output channels of a task.
    panels: usize,
    /// Tiles of input channels of a task.
    tiles: usize,
    parts: Parts,
}

impl<'a> Pointwise<'a> {
    /// Is this a problem for the template?
    pub fn takes(problem: &Problem) -> bool {
        problem.source == Source::Blocked && problem.axes.iter().all(|a| a.taps == 1 && a.inside())
    }

    /// Chooses tile, chunks and the cut into tasks.
    pub fn new(target: &'a Target, problem: &Problem) -> Pointwise<'a> {
        let problem = Problem { axes: flattened(&problem.axes, BLOCK), ..problem.clone() };
        let lanes = target.lanes(Elem::F32).min(BLOCK);
        let blocks = if lanes == BLOCK { problem.inputs.div_ceil(BLOCK).clamp(1, 2) } else { 1 };
        let vectors = blocks * BLOCK / lanes;
        let splat = splat(target, 1);
        // One register for a channel of dy, one that Cranelift keeps, one for a product that is not fused; quads of channels
        // where lanes are taken.
        let cranelift = matches!(target.level, Level::X86V1 | Level::Aarch64);
        let free = target.vector_regs - vectors - 1 - usize::from(cranelift) - usize::from(!target.fma);
        let channels = match splat {
            Splat::Load => (free / vectors).clamp(1, BLOCK / 2),
            Splat::Lane if free / vectors >= 4 => 4,
            Splat::Lane => 2,
        };
        let chunk = chunk(target, &problem, blocks);
        let cut = Cut { panels: 1, tiles: 1, parts: Parts { images: 1, count: 1 } };
        let mut pointwise = Pointwise { target, splat, blocks, channels, chunk, cut, problem };
        pointwise.cut = pointwise.best_cut();
        pointwise
    }

    /// The cut into tasks that moves the fewest bytes.
    fn best_cut(&self) -> Cut {
        let p = &self.problem;
        let [panels, tiles] = [self.panels(), self.tiles()];
        let bytes = |channels: usize| 4 * (p.batch * p.groups * padded_channels(channels) * p.output_plane()) as u64;
        let (x, dy, dw) = (bytes(p.inputs), bytes(p.outputs), 4 * self.stored() as u64);
        let wanted = TASKS.min((p.macs() / LEAST_MACS) as usize).max(1);
        let block = 4 * BLOCK * self.chunk.images * self.chunk.rows * p.axes[2].outputs;
        let mut best: Option<([u64; 3], Cut)> = None;
        for (m, c) in sizes(panels).flat_map(|m| sizes(tiles).map(move |c| (m, c))) {
            let blocks = c * self.blocks;
            let held = 4 * BLOCK * BLOCK * m * blocks + block * (m + blocks);
            let [cuts_m, cuts_c] = [panels.div_ceil(m), tiles.div_ceil(c)];
            let tasks = p.groups * cuts_m * cuts_c;
            let parts = Parts::of(p.batch, tasks, p.macs());
            let copies = if parts.count > 1 { 2 * parts.count as u64 + 1 } else { 1 };
            let moved = cuts_c as u64 * dy + cuts_m as u64 * x + copies * dw;
            let over = held.saturating_sub(self.target.l2 / 2) as u64;
            let key = [over, wanted.saturating_sub(tasks * parts.count) as u64, moved];
            if best.is_none_or(|(least, _)| key < least) {
                best = Some((key, Cut { panels: m, tiles: c, parts }));
            }
        }
        best.map_or(self.cut, |(_, cut)| cut)
    }

    /// Panels of output channels of a group.
    fn panels(&self) -> usize {
        panel_widths(self.problem.outputs).len()
    }

    /// Tiles of input channels of a group.
    fn tiles(&self) -> usize {
        self.problem.inputs.div_ceil(BLOCK * self.blocks)
    }

    fn cuts(&self) -> [usize; 2] {
        [self.panels().div_ceil(self.cut.panels), self.tiles().div_ceil(self.cut.tiles)]
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        self.cut.parts.count * self.problem.groups * self.cuts().iter().product::<usize>()
    }

    /// How many copies of dw it writes, one behind the other.
    pub fn parts(&self) -> usize {
        self.cut.parts.count
    }

    /// Elements of a copy of dw.
    pub fn stored(&self) -> usize {
        self.problem.groups * self.problem.outputs * self.problem.inputs
    }

    /// Are x's pixels copied, because those that count are not neighbours?
    fn gathers(&self) -> bool {
        !self.problem.axes.iter().all(Axis::is_identity)
    }

    /// Pixels of a chunk.
    fn chunk_pixels(&self) -> usize {
        self.chunk.images * self.chunk.rows * self.problem.axes[2].outputs
    }

    /// Bytes of scratch memory of a thread.
    pub fn scratch(&self) -> usize {
        if self.gathers() { 4 * BLOCK * self.chunk_pixels() * self.cut.tiles * self.blocks } else { 0 }
    }

    /// Are all displacements within their 32 bits?
    pub fn is_small(&self) -> bool {
        let p = &self.problem;
        let pixels = p.axes[2].stride * UNROLL + p.input_plane().max(p.output_plane());
        4 * BLOCK * self.blocks * pixels < 1 << 30 && 4 * BLOCK * p.inputs < 1 << 30
    }

    /// The kernel. Operands: x, dy, the rows of dw of all parts.
    pub fn kernel(&self) -> Kernel {
        let args = vec![ArgDecl::read("x", 4), ArgDecl::read("dy", 4), ArgDecl::read_write("dw", 4)];
        let (isa, stride) = (isa_name(self.target), if self.gathers() { "s" } else { "" });
        let name = format!("f32_conv_weights_1{stride}__{isa}_{}x{}", self.blocks * BLOCK, self.channels);
        let mut b = Builder::new(name, args);
        b.tasks(|b, task| {
            let [cuts_m, cuts_c] = self.cuts();
            let (rest, c) = div_rem(b, task, cuts_c);
            let (rest, m) = div_rem(b, rest, cuts_m);
            let (part, group) = div_rem(b, rest, self.problem.groups);
            let span = |b: &mut Builder, at: Value, size: usize, all: usize| {
                let lo = b.mul_imm(at, size as i64);
                let hi = b.add_imm(lo, size as i64);
                let all = b.i64(all as i64);
                [lo, b.min_s(hi, all)]
            };
            let panels = span(b, m, self.cut.panels, self.panels());
            let tiles = span(b, c, self.cut.tiles, self.tiles());
            let images = span(b, part, self.cut.parts.images, self.problem.batch);
            self.task(b, &TaskAt { part, group, panels, tiles, images });
        });
        b.finish()
    }

    fn task(&self, b: &mut Builder, at: &TaskAt) {
        let p = &self.problem;
        let part = b.mul_imm(at.part, self.stored() as i64);
        let group = b.mul_imm(at.group, (p.outputs * p.inputs) as i64);
        let base = b.add(part, group);
        let dw = b.ptr(b.arg(2).at(0).idx(base, 4));
        let channel = b.mul_imm(at.group, p.inputs as i64);
        let x = b.ptr(b.arg(0).at(0).idx(channel, p.input_plane() * 4));
        let channel = b.mul_imm(at.group, p.outputs as i64);
        let dy = b.ptr(b.arg(1).at(0).idx(channel, p.output_plane() * 4));
        let [_, height, width] = &p.axes;
        b.for_(at.images[0], at.images[1], self.chunk.images as i64, |b, first_image| {
            let end = b.add_imm(first_image, self.chunk.images as i64);
            let end = b.min_s(end, at.images[1]);
            b.for_(0, p.axes[0].outputs, 1, |b, depth| {
                b.for_(0, height.outputs, self.chunk.rows as i64, |b, first_row| {
                    let rows = b.add_imm(first_row, self.chunk.rows as i64);
                    let all = b.i64(height.outputs as i64);
                    let rows = b.min_s(rows, all);
                    let rows = if self.chunk.rows >= height.outputs { all } else { b.sub(rows, first_row) };
                    let line = b.mul_imm(depth, height.outputs as i64);
                    let line = b.add(line, first_row);
                    let place = b.mul_imm(line, width.outputs as i64);
                    let pixels = b.mul_imm(rows, width.outputs as i64);
                    let first = b.sub(first_image, at.images[0]);
                    let first = b.add(first, place);
                    let zero = b.i64(0);
                    let first = b.icmp(IntCc::Eq, first, zero);
                    let images = [first_image, end];
                    let here = ChunkAt { x, dy, dw, images, depth, first_row, rows, place, pixels, first };
                    self.chunk(b, at, &here);
                });
            });
        });
    }

    /// All products of some pixels of some images.
    fn chunk(&self, b: &mut Builder, task: &TaskAt, at: &ChunkAt) {
        if self.gathers() {
            self.gather(b, task, at);
        }
        let p = &self.problem;
        let full_tiles = p.inputs / (BLOCK * self.blocks);
        let full_panels = p.outputs / BLOCK;
        b.for_(task.tiles[0], task.tiles[1], 1, |b, tile| {
            full_or_edge(b, tile, full_tiles, self.tiles(), |b, is_full| {
                let blocks = self.blocks_of(is_full);
                let x = self.tile_input(b, task, at, tile);
                let next = self.next_tile(b, task, at, tile);
                b.for_(task.panels[0], task.panels[1], 1, |b, panel| {
                    full_or_edge(b, panel, full_panels, self.panels(), |b, is_full| {
                        let rows = if is_full { BLOCK } else { p.outputs % BLOCK };
                        let width = if is_full { BLOCK } else { padded_channels(rows) };
                        equal_runs(b, balanced(rows, self.channels), |b, row, count| {
                            let sums = Sums { blocks: &blocks, x: &x, tile, panel, width, row, count };
                            let ahead = next.as_ref().map(|next| self.ahead(b, task, at, next, &sums));
                            self.tile(b, at, &sums, ahead.as_ref());
                        });
                    });
                });
            });
        });
    }

    /// The blocks of a full tile of input channels, or of the last one: channels and channels stored.
    fn blocks_of(&self, is_full: bool) -> Vec<[usize; 2]> {
        let channels = BLOCK * self.blocks;
        let channels = if is_full { channels } else { self.problem.inputs % channels };
        channel_blocks(channels).map(|(first, width)| [width.min(channels - first), width]).collect()
    }

    /// Where the pixels of a chunk begin, of the first image and first block of a tile.
    fn tile_input(&self, b: &mut Builder, task: &TaskAt, at: &ChunkAt, tile: Value) -> Input {
        let p = &self.problem;
        if self.gathers() {
            let pixels = self.chunk_pixels();
            let tile = b.sub(tile, task.tiles[0]);
            let base = b.ptr(b.scratch().at(0).idx(tile, self.blocks * BLOCK * pixels * 4));
            let place = b.i64(0);
            let image_pitch = BLOCK * self.chunk.rows * p.axes[2].outputs;
            return Input { base, place, first_image: at.images[0], image_pitch, block_pitch: BLOCK * pixels };
        }
        let base = b.ptr(at.x.at(0).idx(tile, self.blocks * BLOCK * p.input_plane() * 4));
        let image_pitch = padded_channels(p.groups * p.inputs) * p.input_plane();
        let block_pitch = BLOCK * p.input_plane();
        Input { base, place: at.place, first_image: b.i64(0), image_pitch, block_pitch }
    }

    /// The tile behind this one and its first pixel: of the next chunk behind the last one of this.
    fn next_tile(&self, b: &mut Builder, task: &TaskAt, at: &ChunkAt, tile: Value) -> Option<[Value; 2]> {
        self.target.prefetches().then(|| {
            let behind = b.add_imm(tile, 1);
            let is_last = b.icmp(IntCc::GeS, behind, task.tiles[1]);
            let place = b.add(at.place, at.pixels);
            [b.select(is_last, task.tiles[0], behind), b.select(is_last, place, at.place)]
        })
    }

    /// What a tile asks for while it computes: its share of the next panel of dy, and of the next tile of x.
    ///
    /// Each product of a tile reads a line of every one of its blocks, far more than memory gives in that time; the tiles of a
    /// block of dw read them once together. So every tile asks for as much as the last one, ahead of its use.
    fn ahead(&self, b: &mut Builder, task: &TaskAt, at: &ChunkAt, next: &[Value; 2], sums: &Sums<'_>) -> Vec<Ahead> {
        let p = &self.problem;
        let row_tiles = balanced(BLOCK, self.channels).count();
        let lines = |b: &mut Builder, base: Value, share: Value, of: usize, image_pitch: usize, pixels: usize| {
            let first = b.mul(share, at.pixels);
            let (first, _) = div_rem(b, first, of);
            let base = b.ptr(base.at(0).idx(first, BLOCK * 4));
            Ahead { base, image_pitch, each: pixels.div_ceil(of) }
        };
        let row = b.mul_imm(sums.row, row_tiles as i64);
        let (row_tile, _) = div_rem(b, row, BLOCK);
        let panel = b.add_imm(sums.panel, 1);
        let is_last = b.icmp(IntCc::GeS, panel, task.panels[1]);
        let (panel, place) = (b.select(is_last, task.panels[0], panel), b.select(is_last, next[1], at.place));
        let dy = b.ptr(at.dy.at(0).idx(panel, BLOCK * p.output_plane() * 4));
        let dy = b.ptr(dy.at(0).idx(place, BLOCK * 4));
        let output_image = padded_channels(p.groups * p.outputs) * p.output_plane();
        let mut asked = vec![lines(b, dy, row_tile, row_tiles, output_image, UNROLL)];
        if !self.gathers() {
            let tiles = self.cut.panels * row_tiles;
            let number = b.sub(sums.panel, task.panels[0]);
            let number = b.mul_imm(number, row_tiles as i64);
            let number = b.add(number, row_tile);
            // The first tiles ask for the first block, the last for the last.
            let of_block = tiles.div_ceil(self.blocks);
            let (block, number) = div_rem(b, number, of_block);
            let x = b.ptr(at.x.at(0).idx(next[0], self.blocks * BLOCK * p.input_plane() * 4));
            let x = b.ptr(x.at(0).idx(block, BLOCK * p.input_plane() * 4));
            let x = b.ptr(x.at(0).idx(next[1], BLOCK * 4));
            let input_image = padded_channels(p.groups * p.inputs) * p.input_plane();
            asked.push(lines(b, x, number, of_block, input_image, UNROLL));
        }
        asked
    }

    /// Copies what the windows of a chunk read, the pixels of an image and block one behind the other.
    fn gather(&self, b: &mut Builder, task: &TaskAt, at: &ChunkAt) {
        let p = &self.problem;
        let [depth, height, width] = &p.axes;
        let full_tiles = p.inputs / (BLOCK * self.blocks);
        let plane = p.input_plane();
        let image_pitch = padded_channels(p.groups * p.inputs) * plane;
        let id = depth.first_input(b, at.depth);
        b.for_(task.tiles[0], task.tiles[1], 1, |b, tile| {
            full_or_edge(b, tile, full_tiles, self.tiles(), |b, is_full| {
                let to = b.sub(tile, task.tiles[0]);
                let to = b.ptr(b.scratch().at(0).idx(to, self.blocks * BLOCK * self.chunk_pixels() * 4));
                let from = b.ptr(at.x.at(0).idx(tile, self.blocks * BLOCK * plane * 4));
                for (i, [_, stored]) in self.blocks_of(is_full).into_iter().enumerate() {
                    let to = b.ptr(to.at((i * BLOCK * self.chunk_pixels() * 4) as i64));
                    let from = b.ptr(from.at((i * BLOCK * plane * 4) as i64));
                    let lanes = self.target.lanes(Elem::F32).min(stored);
                    let ty = Type::of(Elem::F32, lanes);
                    b.for_(at.images[0], at.images[1], 1, |b, image| {
                        let from = b.ptr(from.at(0).idx(image, image_pitch * 4));
                        let image = b.sub(image, at.images[0]);
                        let to = b.ptr(to.at(0).idx(image, BLOCK * self.chunk.rows * width.outputs * 4));
                        b.for_(0, at.rows, 1, |b, row| {
                            let to = b.ptr(to.at(0).idx(row, width.outputs * stored * 4));
                            let row = b.add(at.first_row, row);
                            let row = height.first_input(b, row);
                            let line = b.mul_imm(id, height.inputs as i64);
                            let line = b.add(line, row);
                            let line = b.mul_imm(line, width.inputs as i64);
                            let line = b.add_imm(line, width.first);
                            let from = b.ptr(from.at(0).idx(line, stored * 4));
                            b.for_(0, width.outputs, 1, |b, o| {
                                for lane in (0..stored).step_by(lanes) {
                                    let v = b.load(ty, from.at(lane as i64 * 4).idx(o, width.stride * stored * 4));
                                    b.store(to.at(lane as i64 * 4).idx(o, stored * 4), v);
                                }
                            });
                        });
                    });
                }
            });
        });
    }

    /// The sums of a tile over the pixels of a chunk.
    fn tile(&self, b: &mut Builder, at: &ChunkAt, sums: &Sums<'_>, ahead: Option<&Vec<Ahead>>) {
        let p = &self.problem;
        let lanes = |stored: usize| self.target.lanes(Elem::F32).min(stored);
        let vectors: Vec<Lanes> = sums
            .blocks
            .iter()
            .enumerate()
            .flat_map(|(block, &[channels, stored])| {
                let of = move |first: usize| Lanes { block, stored, first, count: lanes(stored).min(channels - first) };
                (0..channels).step_by(lanes(stored)).map(of)
            })
            .collect();
        let types: Vec<Type> = vectors.iter().map(|v| Type::of(Elem::F32, lanes(v.stored))).collect();
        let zeros: Vec<Value> = types.iter().flat_map(|&ty| vec![ty; sums.count]).map(|ty| b.zero(ty)).collect();
        let dy = b.ptr(at.dy.at(0).idx(sums.panel, BLOCK * p.output_plane() * 4));
        let dy = b.ptr(dy.at(0).idx(sums.row, 4));
        let output_image = padded_channels(p.groups * p.outputs) * p.output_plane();
        let mask = b.i64(-(UNROLL as i64));
        let unrolled = match b.known(at.pixels) {
            Some(n) => b.i64(n - n % UNROLL as i64),
            None => b.binary(BinaryOp::And, at.pixels, mask),
        };
        let rows = self.rows(b, at, sums);
        if self.target.prefetches() {
            // A line of a row is one vector or two.
            for v in vectors.iter().filter(|v| v.first == 0) {
                (0..sums.count).for_each(|m| b.prefetch(rows.at(self.place(v, m))));
            }
        }
        let zero = b.i64(0);
        let acc = b.loop_(at.images[0], at.images[1], 1, &zeros, |b, image, acc| {
            let dy = b.ptr(dy.at(0).idx(image, output_image * 4));
            let dy = b.ptr(dy.at(0).idx(at.place, sums.width * 4));
            let local = b.sub(image, sums.x.first_image);
            let x = b.ptr(sums.x.base.at(0).idx(local, sums.x.image_pitch * 4));
            let xs: Vec<Value> = (sums.blocks.iter().enumerate())
                .map(|(i, &[_, stored])| {
                    let x = b.ptr(x.at((i * sums.x.block_pitch * 4) as i64));
                    b.ptr(x.at(0).idx(sums.x.place, stored * 4))
                })
                .collect();
            let ahead: Vec<(Value, usize)> = ahead
                .into_iter()
                .flatten()
                .map(|ahead| (b.ptr(ahead.base.at(0).idx(image, ahead.image_pitch * 4)), ahead.each))
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
                            let pixel = BLOCK * 4;
                            (0..each)
                                .for_each(|n| b.prefetch(base.at((n * pixel) as i64).idx(i, each * pixel / UNROLL)));
                        }
                    }
                    for pixel in 0..step {
                        let held: Vec<Value> = (vectors.iter().zip(&types))
                            .map(|(v, &ty)| b.load(ty, xs[v.block].at(((pixel * v.stored + v.first) * 4) as i64)))
                            .collect();
                        self.products(b, &types, &held, dy.at((pixel * sums.width * 4) as i64), &mut acc);
                    }
                    acc
                });
            }
            acc
        });
        self.add_up(b, at, rows, &vectors, &acc);
    }

    /// The products of one pixel: its input channels, which are held, by some of its output channels.
    fn products(&self, b: &mut Builder, types: &[Type], held: &[Value], dy: Addr, acc: &mut [Value]) {
        let count = acc.len() / held.len().max(1);
        let quad_type = Type::of(Elem::F32, 4);
        let mut quad = dy.base;
        for m in 0..count {
            let at = dy.plus((m * 4) as i64);
            if self.splat == Splat::Lane && m % 4 == 0 {
                quad = b.load_part(quad_type, at, 4.min(count - m));
            }
            // Blocks of different widths need vectors of their own.
            let mut inputs: Vec<(Type, Value)> = Vec::with_capacity(2);
            for (v, &ty) in types.iter().enumerate() {
                let known = inputs.iter().find(|(of, _)| *of == ty).map(|(_, value)| *value);
                let input = known.unwrap_or_else(|| {
                    if self.splat == Splat::Lane {
                        let lane = b.extract(quad, m % 4);
                        b.splat(ty, lane)
                    } else {
                        b.load_splat(ty, at)
                    }
                });
                if known.is_none() {
                    inputs.push((ty, input));
                }
                let sum = &mut acc[v * count + m];
                *sum = b.mul_add(held[v], input, *sum);
            }
        }
    }

    /// Where the first sum of a tile belongs.
    fn rows(&self, b: &mut Builder, at: &ChunkAt, sums: &Sums<'_>) -> Value {
        let row = b.mul_imm(sums.panel, BLOCK as i64);
        let row = b.add(row, sums.row);
        let rows = b.ptr(at.dw.at(0).idx(row, self.problem.inputs * 4));
        b.ptr(rows.at(0).idx(sums.tile, self.blocks * BLOCK * 4))
    }

    /// How far from there a vector of sums of output channel `m` of the tile belongs, in bytes.
    fn place(&self, v: &Lanes, m: usize) -> i64 {
        ((m * self.problem.inputs + v.block * BLOCK + v.first) * 4) as i64
    }

    /// Writes the sums of a tile where they belong, or adds them to those of the chunks before.
    fn add_up(&self, b: &mut Builder, at: &ChunkAt, rows: Value, vectors: &[Lanes], acc: &[Value]) {
        let count = acc.len() / vectors.len().max(1);
        let write = |b: &mut Builder, adds: bool| {
            for (lanes, acc) in vectors.iter().zip(acc.chunks(count.max(1))) {
                for (m, &sum) in acc.iter().enumerate() {
                    let place = rows.at(self.place(lanes, m));
                    let before = adds.then(|| b.load_part(b.ty(sum), place, lanes.count));
                    let sum = before.map_or(sum, |before| b.add(before, sum));
                    b.store_part(place, sum, lanes.count);
                }
            }
        };
        b.branch(at.first, |b| write(b, false), |b| write(b, true));
    }
}

/// So many rows of so many images that x of a tile of `blocks` blocks takes four fifths of the first cache; dy streams past it.
fn chunk(target: &Target, problem: &Problem, blocks: usize) -> Chunk {
    let [depth, height, width] = &problem.axes;
    let pixels = target.l1d / 5 * 4 / (4 * BLOCK * blocks);
    let equal = |all: usize, most: usize| all.div_ceil(all.div_ceil(most.max(1)).max(1)).max(1);
    let rows = equal(height.outputs, pixels / width.outputs.max(1));
    let whole = rows == height.outputs && depth.outputs == 1;
    let images = if whole { equal(problem.batch, pixels / (rows * width.outputs).max(1)) } else { 1 };
    Chunk { rows, images }
}

/// The sizes that cut `all` into different numbers of equal pieces.
fn sizes(all: usize) -> impl Iterator<Item = usize> + Clone {
    (1..=all).filter(move |&size| all.div_ceil(all.div_ceil(size)) == size)
}

/// What a task computes.
struct TaskAt {
    part: Value,
    group: Value,
    panels: [Value; 2],
    tiles: [Value; 2],
    images: [Value; 2],
}

/// Some pixels of some images.
struct ChunkAt {
    /// The first input channel of the group, in the first image.
    x: Value,
    /// The first output channel of the group, in the first image.
    dy: Value,
    /// The weights of the group.
    dw: Value,
    images: [Value; 2],
    depth: Value,
    first_row: Value,
    /// How many rows.
    rows: Value,
    /// The first pixel among the outputs.
    place: Value,
    /// How many of an image.
    pixels: Value,
    /// Is there no sum yet?
    first: Value,
}

/// Where a tile's input channels lie; pitches in elements.
struct Input {
    base: Value,
    /// The first pixel.
    place: Value,
    /// The image that lies at `base`.
    first_image: Value,
    image_pitch: usize,
    block_pitch: usize,
}

/// Lines that are asked for while the pixels of an image are summed.
struct Ahead {
    /// The first of the first image.
    base: Value,
    /// Elements from one image to the next.
    image_pitch: usize,
    /// Lines for each group of pixels.
    each: usize,
}

/// A tile: some blocks of input channels by some output channels of a panel.
struct Sums<'t> {
    /// Channels and channels stored of each block.
    blocks: &'t [[usize; 2]],
    x: &'t Input,
    /// Which tile of input channels.
    tile: Value,
    panel: Value,
    /// Channels of the panel that are stored.
    width: usize,
    /// The first output channel in the panel, and how many.
    row: Value,
    count: usize,
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
