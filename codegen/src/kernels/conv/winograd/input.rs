//! The input transform, `V = B^T d B`.
//!
//! Each column of a tile's `n x n` pixels is transformed, then each row. A tile inside of the plane is read where it lies; one
//! at the border is copied into a patch with zeros around it first. Vectors are channels of one block.

use super::{BlockAt, F32_BYTES, PIXEL, Winograd};
use crate::kernels::window::Axis;
use crate::kir::{Builder, Index, IntCc, Value};
use nncc_ir::BLOCK;
use std::ops::Range;

impl Winograd<'_> {
    /// Fills V for one block of channels and a range of tiles.
    pub(super) fn transform_input<I: Copy + Into<Index>>(
        &self,
        b: &mut Builder,
        x: Value,
        v: Value,
        at: &BlockAt,
        block: Value,
        tiles: &Range<I>,
    ) {
        let (m, n) = (self.minimal.outputs(), self.minimal.inputs());
        let [_, height, width] = &self.conv.axes;
        let plane = height.inputs * width.inputs * PIXEL;
        let x = b.ptr(x.at(0).idx(at.image, self.conv.inputs / BLOCK * plane));
        let x = b.ptr(x.at(0).idx(block, plane));
        let v = b.ptr(v.at(0).idx(block, self.tiles() * PIXEL));
        let half = at.patches;
        let copy = b.ptr(half.at((self.places() * PIXEL) as i64));
        let (ty, vectors) = self.vector();
        let vector_bytes = ty.lanes() * F32_BYTES;
        let place = self.conv.inputs * self.tiles() * F32_BYTES;
        b.for_(tiles.start, tiles.end, 1, |b, t| {
            let [tile_row, tile_column] = self.tile(b, at, t);
            let corner = |b: &mut Builder, tile: Value, axis: &Axis| {
                let o = b.mul_imm(tile, m as i64);
                b.add_imm(o, axis.first)
            };
            let corner = [corner(b, tile_row, height), corner(b, tile_column, width)];
            let inside = inside(b, corner, [height.inputs, width.inputs], n);
            let source = b.if_(
                inside,
                |b| {
                    let pixel = b.mul_imm(corner[0], width.inputs as i64);
                    let pixel = b.add(pixel, corner[1]);
                    vec![b.ptr(x.at(0).idx(pixel, PIXEL)), b.i64((width.inputs * PIXEL) as i64)]
                },
                |b| {
                    self.copy_with_zeros(b, x, copy, corner);
                    vec![copy, b.i64((n * PIXEL) as i64)]
                },
            );
            let (source, pitch) = (source[0], source[1]);
            let v = b.ptr(v.at(0).idx(t, PIXEL));
            b.for_(0, vectors, 1, |b, part| {
                let source = b.ptr(source.at(0).idx(part, vector_bytes));
                b.for_(0, n, 1, |b, j| {
                    let mut from = b.ptr(source.at(0).idx(j, PIXEL));
                    let mut column = vec![b.load(ty, from)];
                    for _ in 1..n {
                        from = b.ptr(from.at(0).idx(pitch, 1));
                        column.push(b.load(ty, from));
                    }
                    for (i, &v) in self.minimal.emit_input(b, &column).iter().enumerate() {
                        b.store(half.at((i * n * PIXEL) as i64).idx(j, PIXEL), v);
                    }
                });
                let v = b.ptr(v.at(0).idx(part, vector_bytes));
                b.for_(0, n, 1, |b, i| {
                    let from = b.ptr(half.at(0).idx(i, n * PIXEL));
                    let row: Vec<Value> = (0..n).map(|j| b.load(ty, from.at((j * PIXEL) as i64))).collect();
                    let row = self.minimal.emit_input(b, &row);
                    let mut to = b.ptr(v.at(0).idx(i, n * place));
                    for (j, &v) in row.iter().enumerate() {
                        if j > 0 {
                            to = b.ptr(to.at(place as i64));
                        }
                        b.store(to, v);
                    }
                });
            });
        });
    }

    /// Copies a tile's input into the patch, with zeros for what lies beyond the border.
    fn copy_with_zeros(&self, b: &mut Builder, x: Value, patch: Value, corner: [Value; 2]) {
        let n = self.minimal.inputs();
        let [_, height, width] = &self.conv.axes;
        let (ty, vectors) = self.vector();
        let vector_bytes = ty.lanes() * F32_BYTES;
        let zero = b.zero(ty);
        b.for_(0, self.places() * vectors, 1, |b, i| b.store(patch.at(0).idx(i, vector_bytes), zero));
        let bounds = |b: &mut Builder, corner: Value, inputs: usize| {
            let (zero, n, inputs) = (b.i64(0), b.i64(n as i64), b.i64(inputs as i64));
            let before = b.sub(zero, corner);
            let behind = b.sub(inputs, corner);
            (b.max_s(before, zero), b.min_s(behind, n))
        };
        let rows = bounds(b, corner[0], height.inputs);
        let columns = bounds(b, corner[1], width.inputs);
        b.for_(rows.0, rows.1, 1, |b, i| {
            let row = b.add(corner[0], i);
            let pixel = b.mul_imm(row, width.inputs as i64);
            let pixel = b.add(pixel, corner[1]);
            let from = b.ptr(x.at(0).idx(pixel, PIXEL));
            let to = b.ptr(patch.at(0).idx(i, n * PIXEL));
            b.for_(columns.0, columns.1, 1, |b, j| {
                let (from, to) = (b.ptr(from.at(0).idx(j, PIXEL)), b.ptr(to.at(0).idx(j, PIXEL)));
                for part in 0..vectors {
                    let v = b.load(ty, from.at((part * vector_bytes) as i64));
                    b.store(to.at((part * vector_bytes) as i64), v);
                }
            });
        });
    }
}

/// Do the `n` inputs from a corner on lie inside on both axes?
fn inside(b: &mut Builder, corner: [Value; 2], extent: [usize; 2], n: usize) -> Value {
    // Unsigned: a corner before the plane is larger than any. A plane smaller than a tile holds none.
    let one = |b: &mut Builder, corner: Value, extent: usize| {
        let corners = b.i64((extent + 1).saturating_sub(n) as i64);
        b.icmp(IntCc::LtU, corner, corners)
    };
    let (row, column) = (one(b, corner[0], extent[0]), one(b, corner[1], extent[1]));
    b.and(row, column)
}
