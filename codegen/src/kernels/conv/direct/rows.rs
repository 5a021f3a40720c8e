//! A row of outputs, cut into tiles; a tile begins with a bias or with partial sums and ends in the epilogue.

use super::super::Sink;
use super::task::{Group, Lanes, Pass};
use super::{Direct, F32_BYTES};
use crate::kernels::epilogue::{Extra, Site};
use crate::kernels::window::{Run, first_line, line_at, line_place};
use crate::kir::{Addr, Builder, Index, Value};
use nncc_ir::BLOCK;

impl Direct<'_> {
    /// All tiles of a row of outputs, for the blocks of a pass.
    pub(super) fn row(&self, b: &mut Builder, group: &Group<'_>, pass: &Pass, row: Value) {
        let [depth, height, width] = &self.conv.axes;
        let (od, oh) = line_at(b, depth, height, row);
        let bounds = [depth.tap_bounds(b, od), height.tap_bounds(b, oh)];
        // The pixel that tap (0, 0) of the row reads at column 0; may lie before the input.
        let line = first_line(b, depth, height, [od, oh]);
        let line = b.sub(line, group.band.first[0]);
        let input = b.mul_imm(line, width.inputs as i64);
        let line = line_place(b, depth, height, [od, oh]);
        let line = b.sub(line, group.band.first[1]);
        let output = b.mul_imm(line, width.out_extent as i64);
        let runs = width.runs(group.kind.pixels);
        let inner = runs.iter().any(|run| run.is_whole(width.taps));
        let row_of_task = b.sub(row, group.band.rows[0]);
        let kept = b.mul_imm(row_of_task, width.outputs as i64);
        let number = b.mul_imm(row_of_task, self.tiles_of_a_row(group.kind.pixels) as i64);
        let mut before = 0;
        for runs in runs.chunk_by(|a, b| a.width == b.width) {
            // Tiles of one width share all code but that of the products.
            let (first, pixels) = (runs[0].start, runs[0].width);
            let tiles: usize = runs.iter().map(|run| run.count).sum();
            b.for_(0, tiles, 1, |b, index| {
                let start = b.mul_imm(index, pixels as i64);
                let start = b.add_imm(start, first as i64);
                let column = width.first_input(b, start);
                let input = b.add(input, column);
                let out_column = width.place(b, start);
                let output = b.add(output, out_column);
                let kept = b.add(kept, start);
                let number = b.add(number, index);
                let number = b.add_imm(number, before);
                self.tile(b, group, pass, &TileAt { runs, pixels, index, inner, bounds, input, output, kept, number });
            });
            before += tiles as i64;
        }
    }

    /// One tile: sums, then the epilogue.
    pub(super) fn tile(&self, b: &mut Builder, group: &Group<'_>, pass: &Pass, at: &TileAt<'_>) {
        let pixels = at.pixels;
        // Byte offsets of the tile in the output, one for each panel width.
        let mut by_width: Vec<(usize, Value)> = Vec::with_capacity(2);
        for lanes in &group.vectors {
            if by_width.iter().all(|&(width, _)| width != lanes.width) {
                let pixel = b.mul_imm(at.output, self.output_pitch(lanes.width) as i64 * F32_BYTES);
                by_width.push((lanes.width, b.add(group.y, pixel)));
            }
        }
        let offset = |lanes: &Lanes| by_width.iter().find(|(width, _)| *width == lanes.width).map(|&(_, at)| at);
        let offsets: Vec<Value> = group.vectors.iter().filter_map(offset).collect();
        let y = group.operands.y;
        let place = |v: usize, px: usize| {
            let lanes = &group.vectors[v];
            lanes.output + (px * self.conv.axes[2].out_step * self.output_pitch(lanes.width)) as i64 * F32_BYTES
        };
        let start = |b: &mut Builder| -> Vec<Value> {
            let mut sums = Vec::new();
            for v in &group.vectors {
                let init = beginning(b, group, v);
                sums.extend(std::iter::repeat_n(init, pixels));
            }
            sums
        };
        self.ask_for_weights(b, group, pass, at);
        let ask_for_results = |b: &mut Builder| self.ask_for_results(b, group, pixels, &offsets, &place);
        let Some((is_first, is_last)) = pass.place else {
            ask_for_results(b);
            let sums = start(b);
            let sums = self.run(b, group, pass, at, at.runs, &sums);
            self.finish(b, group, &sums, pixels, &offsets, &place);
            return;
        };
        if group.ahead.is_some() {
            b.when(if self.sums_in_scratch() { is_last } else { is_first }, ask_for_results);
        }
        // Where a partial sum waits: memory, a pointer to where and a displacement, lanes.
        let in_scratch = self.sums_in_scratch().then(|| {
            let kept = b.mul_imm(at.kept, self.sums_pitch() as i64);
            (b.scratch().at(self.epilogue_scratch() as i64).idx(kept, 1), self.sums_pitch() as i64)
        });
        let waiting = |v: usize, px: usize| match &in_scratch {
            Some((first, pitch)) => {
                let disp = first.disp + px as i64 * pitch + group.vectors[v].channel * F32_BYTES;
                (Addr { disp, ..*first }, group.vectors[v].ty.lanes())
            }
            None => (y.at(place(v, px)).idx(offsets[v], 1), group.vectors[v].count),
        };
        let zeros: Vec<Value> = group.vectors.iter().flat_map(|v| std::iter::repeat_n(b.zero(v.ty), pixels)).collect();
        let sums = self.run(b, group, pass, at, at.runs, &zeros);
        // The adds take what was stored from memory, so that it needs no registers.
        let added = |b: &mut Builder, before: &mut dyn FnMut(&mut Builder, usize, usize) -> Value| -> Vec<Value> {
            let add = |(i, &sum): (usize, &Value)| {
                let before = before(b, i / pixels, i % pixels);
                b.add(sum, before)
            };
            sums.iter().enumerate().map(add).collect()
        };
        let sums = b.if_(
            is_first,
            |b| match group.bias {
                Some(_) => {
                    let bias = start(b);
                    added(b, &mut |_, v, px| bias[v * pixels + px])
                }
                None => sums.clone(),
            },
            |b| {
                added(b, &mut |b, v, px| {
                    let (from, count) = waiting(v, px);
                    b.load_part(group.vectors[v].ty, from, count)
                })
            },
        );
        b.branch(
            is_last,
            |b| self.finish(b, group, &sums, pixels, &offsets, &place),
            |b| {
                for (i, &sum) in sums.iter().enumerate() {
                    let (to, count) = waiting(i / pixels, i % pixels);
                    b.store_part(to, sum, count);
                }
            },
        );
    }

    /// Asks for this tile's share of the weights that are needed behind the pass.
    fn ask_for_weights(&self, b: &mut Builder, group: &Group<'_>, pass: &Pass, at: &TileAt<'_>) {
        let (Some(ahead), [(w, _)]) = (group.ahead, &group.w[..]) else { return };
        let share = b.mul(at.number, ahead);
        let first = b.add(pass.next_weights, share);
        let first = b.ptr(w.at(0).idx(first, BLOCK * 4));
        b.for_(0, ahead, 1, |b, row| {
            let row = b.ptr(first.at(0).idx(row, BLOCK * 4));
            for distance in &group.distances {
                b.prefetch(distance.map_or(row.at(0), |d| row.at(0).idx(d, 1)));
            }
        });
    }

    /// Asks for the lines that the results of a tile will be stored to, and those that operands of the same place will be
    /// loaded from.
    fn ask_for_results(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        pixels: usize,
        offsets: &[Value],
        place: &dyn Fn(usize, usize) -> i64,
    ) {
        if group.ahead.is_none() {
            return;
        }
        // The hardware follows the rows of a blocked output, which are written, better than those that are read beside them.
        let output = (self.conv.sink == Sink::Matrix).then_some(group.operands.y);
        let kinds = &self.conv.epilogue.extras;
        let extras = kinds.iter().zip(&group.operands.extras).filter(|(kind, _)| **kind == Extra::Same);
        for base in extras.map(|(_, &base)| base).chain(output) {
            // One for each panel: its vectors are neighbours.
            for (v, _) in group.vectors.iter().enumerate().filter(|(_, lanes)| lanes.weight == 0) {
                for px in 0..pixels {
                    b.prefetch(base.at(place(v, px)).idx(offsets[v], 1));
                }
            }
        }
    }

    /// Applies the epilogue and stores.
    pub(super) fn finish(
        &self,
        b: &mut Builder,
        group: &Group<'_>,
        sums: &[Value],
        pixels: usize,
        offsets: &[Value],
        place: &dyn Fn(usize, usize) -> i64,
    ) {
        let epilogue = &self.conv.epilogue;
        let (y, extras) = (group.operands.y, &group.operands.extras);
        let site = |v: usize, offset: Value, disp: i64| Site {
            same: (offset, disp),
            image: group.band.image,
            channel: (group.channel, group.vectors[v].channel),
            count: group.vectors[v].count,
        };
        let behind = self.written_along();
        let unreached: Vec<Value> = match behind.is_empty() {
            true => Vec::new(),
            false => group.vectors.iter().map(|v| beginning(b, group, v)).collect(),
        };
        // The result of a vector of sums at a place, and of those behind it that have none.
        let write = |b: &mut Builder, v: usize, sum: Value, offset: Value, disp: i64| {
            let lanes = &group.vectors[v];
            let pixel = self.output_pitch(lanes.width) as i64 * F32_BYTES;
            let others = behind.iter().map(|&at| (unreached[v], disp + at as i64 * pixel));
            for (sum, disp) in std::iter::once((sum, disp)).chain(others) {
                let result = epilogue.apply(b, sum, extras, &site(v, offset, disp));
                b.store_part(y.at(disp).idx(offset, 1), result, lanes.count);
            }
        };
        if !epilogue.is_long() {
            for (i, &sum) in sums.iter().enumerate() {
                let (v, px) = (i / pixels, i % pixels);
                write(b, v, sum, offsets[v], place(v, px));
            }
            return;
        }
        let scratch = b.scratch();
        for (i, &sum) in sums.iter().enumerate() {
            b.store(scratch.at((i * BLOCK) as i64 * F32_BYTES), sum);
        }
        for (v, lanes) in group.vectors.iter().enumerate() {
            let step = (self.conv.axes[2].out_step * self.output_pitch(lanes.width)) as i64 * F32_BYTES;
            b.for_(0, pixels, 1, |b, px| {
                let from = (v * pixels * BLOCK) as i64 * F32_BYTES;
                let sum = b.load(lanes.ty, scratch.at(from).idx(px, BLOCK * 4));
                let along = b.mul_imm(px, step);
                let offset = b.add(offsets[v], along);
                write(b, v, sum, offset, lanes.output);
            });
        }
    }

    /// How many pixels behind an output those lie that are written along with it.
    fn written_along(&self) -> Vec<usize> {
        let [depth, height, width] = &self.conv.axes;
        let line = |d: usize, h: usize| (d * height.out_extent + h) * width.out_extent;
        let lines = (0..depth.out_span).flat_map(|d| (0..height.out_span).map(move |h| line(d, h)));
        lines.flat_map(|line| (0..width.out_span).map(move |w| line + w)).skip(1).collect()
    }
}

/// What a sum begins with, and what an output is that no tap reaches: the bias, if there is one.
fn beginning(b: &mut Builder, group: &Group<'_>, lanes: &Lanes) -> Value {
    match group.bias {
        Some(bias) => b.load(lanes.ty, bias.at(lanes.channel * F32_BYTES)),
        None => b.zero(lanes.ty),
    }
}

/// One tile of a row.
pub(super) struct TileAt<'r> {
    /// The runs of tiles as wide as this one.
    pub runs: &'r [Run],
    /// Pixels of a tile.
    pub pixels: usize,
    /// Which of the tiles of these runs.
    pub index: Value,
    /// Has the row tiles of which no tap reaches padding?
    pub inner: bool,
    /// Valid taps of depth and height.
    pub bounds: [(Index, Index); 2],
    /// The pixel that tap 0 of pixel 0 reads.
    pub input: Value,
    /// The pixel where pixel 0 lies.
    pub output: Value,
    /// Pixel 0, counted from the first of the task.
    pub kept: Value,
    /// The number of the tile among those of the task.
    pub number: Value,
}
