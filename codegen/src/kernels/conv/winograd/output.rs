//! The output transform, `y = A^T M A`, with bias and epilogue.
//!
//! Each column of a tile's `n x n` sums becomes `m`, then each of the `m` rows becomes `m` pixels. Rows and columns of a tile
//! that lie beyond the plane are not stored.

use super::{BlockAt, F32_BYTES, PIXEL, Winograd};
use crate::kernels::conv::Operands;
use crate::kernels::epilogue::Site;
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
        let [_, height, width] = &self.conv.axes;
        let plane = height.outputs * width.outputs;
        let (ty, vectors) = self.vector();
        let out = b.mul_imm(panel, (plane * PIXEL) as i64);
        let image = b.mul_imm(at.image, (self.conv.outputs * plane * F32_BYTES) as i64);
        let out = b.add(out, image);
        b.for_(0, vectors, 1, |b, part| {
            let lane = b.mul_imm(part, ty.lanes() as i64);
            let channel = b.mul_imm(panel, BLOCK as i64);
            let channel = b.add(channel, lane);
            let m = b.ptr(m.at(0).idx(lane, F32_BYTES));
            let bytes = b.mul_imm(lane, F32_BYTES as i64);
            let out = b.add(out, bytes);
            let bias = operands.bias.map(|bias| b.load(ty, bias.at(0).idx(channel, F32_BYTES)));
            let lanes = LanesAt { image: at.image, channel, out, bias };
            b.for_(tiles.start, tiles.end, 1, |b, t| {
                self.columns(b, m, at.patches, t);
                let tile = self.tile(b, at, t);
                self.rows(b, operands, &lanes, at.patches, tile);
            });
        });
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

    /// The second half: rows of the patch into pixels.
    fn rows(&self, b: &mut Builder, operands: &Operands, lanes: &LanesAt, half: Value, [row, column]: [Value; 2]) {
        let (m, n) = (self.minimal.outputs(), self.minimal.inputs());
        let [_, height, width] = &self.conv.axes;
        let (ty, _) = self.vector();
        let last = b.i64(self.grid[1] as i64 - 1);
        let is_whole = b.icmp(IntCc::LtS, column, last);
        let (row, column) = (b.mul_imm(row, m as i64), b.mul_imm(column, m as i64));
        let below = b.i64(height.outputs as i64);
        let below = b.sub(below, row);
        let most = b.i64(m as i64);
        let rows = b.min_s(below, most);
        b.for_(0, rows, 1, |b, i| {
            let from = b.ptr(half.at(0).idx(i, n * PIXEL));
            let sums: Vec<Value> = (0..n).map(|j| b.load(ty, from.at((j * PIXEL) as i64))).collect();
            let mut sums = self.minimal.emit_output(b, &sums);
            if let Some(bias) = lanes.bias {
                sums.iter_mut().for_each(|sum| *sum = b.add(*sum, bias));
            }
            let row = b.add(row, i);
            let pixel = b.mul_imm(row, width.outputs as i64);
            let pixel = b.add(pixel, column);
            let pixel = b.mul_imm(pixel, PIXEL as i64);
            let offset = b.add(lanes.out, pixel);
            let store = |b: &mut Builder, count: usize| {
                for (j, &sum) in sums.iter().take(count).enumerate() {
                    let disp = (j * PIXEL) as i64;
                    let (channel, count) = ((lanes.channel, 0), ty.lanes());
                    let site = Site { same: (offset, disp), image: lanes.image, channel, count };
                    let result = self.conv.epilogue.apply(b, sum, &operands.extras, &site);
                    b.store(operands.y.at(disp).idx(offset, 1), result);
                }
            };
            match width.outputs % m {
                0 => store(b, m),
                rest => b.branch(is_whole, |b| store(b, m), |b| store(b, rest)),
            }
        });
    }
}

/// What is the same for all tiles of one vector of channels.
struct LanesAt {
    image: Value,
    channel: Value,
    /// Bytes from the output's base to the first pixel.
    out: Value,
    bias: Option<Value>,
}
