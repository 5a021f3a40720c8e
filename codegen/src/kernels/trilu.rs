//! Triangles of matrices: row i keeps its columns from `i + k` on (upper) or up to `i + k` (lower), the others are 0.

use super::indexed::{CHUNK, row_tasks};
use super::strided::plan::unit_of;
use crate::kir::{ArgDecl, Builder, Kernel, Type, Value};

/// The kernel over (x, y) and its number of tasks, for `matrices` matrices.
pub fn trilu(matrices: usize, rows: usize, columns: usize, upper: bool, k: i64, width: usize) -> (Kernel, usize) {
    let mut b = Builder::new("trilu", vec![ArgDecl::read("x", 1), ArgDecl::write("y", 1)]);
    let (x, y) = (b.arg(0), b.arg(1));
    let unit = Type::Scalar(unit_of(width));
    // Beyond the matrix all diagonals are alike.
    let k = k.clamp(-(rows as i64) - 1, columns as i64 + 1);
    let tasks = row_tasks(&mut b, matrices * rows, CHUNK / (columns * width).max(1), |b, row| {
        let n = b.i64(rows as i64);
        let i = b.rem_s(row, n);
        // The first column of the second part: where the upper triangle begins, where the lower one has ended.
        let split = b.add_imm(i, if upper { k } else { k + 1 });
        let (zero, end) = (b.i64(0), b.i64(columns as i64));
        let split = b.max_s(split, zero);
        let split = b.min_s(split, end);
        let (src, dst) = (b.ptr_add(x, row, columns * width), b.ptr_add(y, row, columns * width));
        let part = |b: &mut Builder, lo: Value, hi: Value, is_kept: bool| {
            b.for_(lo, hi, 1, |b, j| {
                let v = if is_kept { b.load(unit, src.at(0).idx(j, width)) } else { b.zero(unit) };
                b.store(dst.at(0).idx(j, width), v);
            });
        };
        part(b, zero, split, !upper);
        part(b, split, end, upper);
    });
    (b.finish(), tasks)
}
