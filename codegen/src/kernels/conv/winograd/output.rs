//! The output transform, `y = A^T M A`, with bias, epilogue and a pooling, if there is one.
//!
//! Each column of a tile's `n x n` sums becomes `m`, then each of the `m` rows becomes `m` pixels. A pooling takes the pixels of
//! its windows from registers, in the order of their rows and columns as a pooling by itself does, so that the bits are the
//! same. Rows and columns of a tile that lie beyond the plane are not stored.

use super::{BlockAt, F32_BYTES, PIXEL, Winograd};
use crate::kernels::conv::Operands;
use crate::kernels::epilogue::{Extra, Site};
use crate::kernels::pool::SideBySide;
use crate::kir::{Builder, Index, IntCc, Value};
use nncc_ir::BLOCK;
use std::ops::Range;

impl Winograd<'_> {
    /// Turns M (of one panel, place 0) into the outputs of a range of tiles.
    pub(super) fn transform_output<I: Copy + Into<Index>>(
        &self,
        b: &mut Builder,
        operands: &Operands,
        m: Value,
        at: &BlockAt,
        panel: Value,
        tiles: &Range<I>,
    ) {
        let (ty, vectors) = self.vector();
        let first = |b: &mut Builder, [height, width]: [usize; 2]| {
            let out = b.mul_imm(panel, (height * width * PIXEL) as i64);
            let image = b.mul_imm(at.image, (self.conv.outputs * height * width * F32_BYTES) as i64);
            b.add(out, image)
        };
        let out = first(b, self.stored());
        // What an epilogue reads beside a pixel lies where it would lie without a pooling.
        let reads_beside = self.pooling.is_some() && self.conv.epilogue.extras.contains(&Extra::Same);
        let beside = reads_beside.then(|| first(b, self.plane()));
        b.for_(0, vectors, 1, |b, part| {
            let lane = b.mul_imm(part, ty.lanes() as i64);
            let channel = b.mul_imm(panel, BLOCK as i64);
            let channel = b.add(channel, lane);
            let m = b.ptr(m.at(0).idx(lane, F32_BYTES));
            let bytes = b.mul_imm(lane, F32_BYTES as i64);
            let out = b.add(out, bytes);
            let beside = beside.map(|beside| b.add(beside, bytes));
            let bias = operands.bias.map(|bias| b.load(ty, bias.at(0).idx(channel, F32_BYTES)));
            let lanes = LanesAt { image: at.image, channel, out, beside, bias };
            b.for_(tiles.start, tiles.end, 1, |b, t| {
                self.columns(b, m, at.patches, t);
                let tile = self.tile(b, at, t);
                self.rows(b, operands, &lanes, at.patches, tile);
            });
        });
    }

    /// Rows and columns of the convolution's outputs.
    fn plane(&self) -> [usize; 2] {
        [self.conv.axes[1].out_extent, self.conv.axes[2].out_extent]
    }

    /// Rows and columns that are stored.
    fn stored(&self) -> [usize; 2] {
        self.pooling.map_or(self.plane(), |pooling| pooling.outputs)
    }

    /// The first half: columns of tile `t` into the patch.
    fn columns(&self, b: &mut Builder, m: Value, half: Value, t: Value) {
        let n = self.minimal.inputs();
        let (ty, _) = self.vector();
        let from = b.ptr(m.at(0).idx(t, PIXEL));
        b.for_(0, n, 1, |b, j| {
            let mut from = b.ptr(from.at(0).idx(j, self.m_place()));
            let mut column = vec![b.load(ty, from)];
            for _ in 1..n {
                from = b.ptr(from.at((n * self.m_place()) as i64));
                column.push(b.load(ty, from));
            }
            for (i, &v) in self.minimal.emit_output(b, &column).iter().enumerate() {
                b.store(half.at((i * n * PIXEL) as i64).idx(j, PIXEL), v);
            }
        });
    }

    /// The second half: rows of the patch into stored pixels.
    fn rows(&self, b: &mut Builder, operands: &Operands, lanes: &LanesAt, half: Value, tile: [Value; 2]) {
        let window = self.pooling.map_or([1, 1], |pooling| pooling.window);
        let [rows, columns] = window.map(|taps| self.minimal.outputs() / taps);
        let [height, width] = self.stored();
        let last = b.i64(self.grid[1] as i64 - 1);
        let is_whole = b.icmp(IntCc::LtS, tile[1], last);
        let (row, column) = (b.mul_imm(tile[0], rows as i64), b.mul_imm(tile[1], columns as i64));
        let below = b.i64(height as i64);
        let below = b.sub(below, row);
        let most = b.i64(rows as i64);
        let rows = b.min_s(below, most);
        b.for_(0, rows, 1, |b, i| {
            let sums: Vec<Vec<Value>> = (0..window[0]).map(|r| self.row_of_sums(b, lanes, half, i, r)).collect();
            let row = b.add(row, i);
            let place = |b: &mut Builder, first: Value, [row, column]: [Value; 2], width: usize| {
                let pixel = b.mul_imm(row, width as i64);
                let pixel = b.add(pixel, column);
                let pixel = b.mul_imm(pixel, PIXEL as i64);
                b.add(first, pixel)
            };
            let offset = place(b, lanes.out, [row, column], width);
            let beside = lanes.beside.map_or(offset, |beside| {
                let corner = [b.mul_imm(row, window[0] as i64), b.mul_imm(column, window[1] as i64)];
                place(b, beside, corner, self.plane()[1])
            });
            let store = |b: &mut Builder, count: usize| {
                for j in 0..count {
                    let at = |b: &mut Builder, r: usize, c: usize| {
                        let column = j * window[1] + c;
                        let disp = ((r * self.plane()[1] + column) * PIXEL) as i64;
                        self.pixel(b, operands, lanes, sums[r][column], (beside, disp))
                    };
                    let result = match &self.pooling {
                        Some(pooling) => pooled(b, pooling, at),
                        None => at(b, 0, 0),
                    };
                    b.store(operands.y.at((j * PIXEL) as i64).idx(offset, 1), result);
                }
            };
            match width % columns {
                0 => store(b, columns),
                rest => b.branch(is_whole, |b| store(b, columns), |b| store(b, rest)),
            }
        });
    }

    /// The sums of row `r` of the `i`-th row of windows, with the bias.
    fn row_of_sums(&self, b: &mut Builder, lanes: &LanesAt, half: Value, i: Value, r: usize) -> Vec<Value> {
        let n = self.minimal.inputs();
        let (ty, _) = self.vector();
        let rows = self.pooling.map_or(1, |pooling| pooling.window[0]);
        let from = b.ptr(half.at((r * n * PIXEL) as i64).idx(i, rows * n * PIXEL));
        let sums: Vec<Value> = (0..n).map(|j| b.load(ty, from.at((j * PIXEL) as i64))).collect();
        let mut sums = self.minimal.emit_output(b, &sums);
        if let Some(bias) = lanes.bias {
            sums.iter_mut().for_each(|sum| *sum = b.add(*sum, bias));
        }
        sums
    }

    /// The epilogue of one vector of sums; `same` is where it lies in the convolution's output.
    fn pixel(&self, b: &mut Builder, operands: &Operands, lanes: &LanesAt, sum: Value, same: (Value, i64)) -> Value {
        let (channel, count) = ((lanes.channel, 0), self.vector().0.lanes());
        let site = Site { same, image: lanes.image, channel, count };
        self.conv.epilogue.apply(b, sum, &operands.extras, &site)
    }
}

/// What is pooled of one window; `at` gives its pixels.
fn pooled(b: &mut Builder, pooling: &SideBySide, at: impl Fn(&mut Builder, usize, usize) -> Value) -> Value {
    let mut all: Option<Value> = None;
    for r in 0..pooling.window[0] {
        for c in 0..pooling.window[1] {
            let pixel = at(b, r, c);
            all = Some(match all {
                Some(before) => pooling.kind.join(b, before, pixel),
                None => pooling.kind.first(b, pixel),
            });
        }
    }
    let all = all.expect("a window has pixels");
    pooling.kind.finish(b, all, None)
}

/// What is the same for all tiles of one vector of channels.
struct LanesAt {
    image: Value,
    channel: Value,
    /// Bytes from the output's base to the first pixel.
    out: Value,
    /// Bytes from the base of what an epilogue reads at the pixels of the convolution, if that is not `out`.
    beside: Option<Value>,
    bias: Option<Value>,
}
