//! Elements chosen by indices at run time: what Gather, GatherElements and GatherND are.
//!
//! ```text
//! rows      y[r, :] = x[base(r) + sum_j index(idx[p(r), j]) * stride_j + :]        whole contiguous slices
//! elements  y[e]    = x[.. with index(idx[e]) along one axis]
//! index(i)  i + n where i < 0, then the nearest of 0..n
//! ```
//!
//! No index reads outside of the operand: a negative one counts from the end, one out of range takes the nearest element.
//! Elements are moved as bits.

use super::strided::{plan::unit_of, row};
use crate::kir::{Addr, ArgDecl, Builder, Elem, I64, IntCc, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::tensor::strides_of;

/// Bytes of one task.
pub(super) const CHUNK: usize = 16 * 1024;

/// Loads an index into an axis of `n > 0` elements.
pub fn load_index(b: &mut Builder, at: Addr, elem: Elem, n: usize) -> Value {
    let i = b.load(Type::Scalar(elem), at);
    let i = b.sext(i, Elem::I64);
    let (zero, last) = (b.i64(0), b.i64(n as i64 - 1));
    let is_negative = b.icmp(IntCc::LtS, i, zero);
    let wrapped = b.add_imm(i, n as i64);
    let i = b.select(is_negative, wrapped, i);
    let i = b.max_s(i, zero);
    b.min_s(i, last)
}

/// Rows `0..rows`, `group` of them a task: the number of tasks.
pub fn row_tasks(b: &mut Builder, rows: usize, group: usize, body: impl FnOnce(&mut Builder, Value)) -> usize {
    let group = group.clamp(1, rows.max(1));
    let (begin, end) = (b.begin(), b.end());
    // A call does consecutive tasks, and so consecutive rows.
    let (lo, hi) = (b.mul_imm(begin, group as i64), b.mul_imm(end, group as i64));
    let rows_value = b.i64(rows as i64);
    let hi = b.min_s(hi, rows_value);
    b.for_(lo, hi, 1, body);
    rows.div_ceil(group)
}

/// A gather of whole slices.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Results.
    pub rows: usize,
    /// Index tuples: row r reads the one numbered r modulo this.
    pub tuples: usize,
    /// Rows that share a base, and the distance of neighbouring bases in elements.
    pub base: (usize, usize),
    /// For each index of a tuple the length of its axis, not 0, and its stride in elements.
    pub axes: Vec<(usize, usize)>,
    /// Elements of a slice.
    pub slice: usize,
    /// Bytes of an element.
    pub width: usize,
    /// The type of indices.
    pub index: Elem,
}

impl Rows {
    /// The kernel over (x, idx, y) and its number of tasks.
    pub fn kernel(&self, target: &Target) -> (Kernel, usize) {
        let args = vec![ArgDecl::read("x", 1), ArgDecl::read("idx", 1), ArgDecl::write("y", 1)];
        let mut b = Builder::new("gather", args);
        let (x, idx, y) = (b.arg(0), b.arg(1), b.arg(2));
        let bytes = self.slice * self.width;
        let tasks = row_tasks(&mut b, self.rows, CHUNK / bytes.max(1), |b, r| {
            let src = self.address(b, x, idx, r);
            let dst = b.ptr_add(y, r, bytes);
            self.copy(b, target, src, dst);
        });
        (b.finish(), tasks)
    }

    /// Where the slice of row `r` begins in `x`.
    pub fn address(&self, b: &mut Builder, x: Value, idx: Value, r: Value) -> Value {
        let (shared, distance) = self.base;
        let tuple = if self.tuples < self.rows {
            let tuples = b.i64(self.tuples as i64);
            b.rem_s(r, tuples)
        } else {
            r
        };
        let mut at = if shared < self.rows {
            let shared = b.i64(shared as i64);
            let base = b.div_s(r, shared);
            b.mul_imm(base, distance as i64)
        } else {
            b.i64(0)
        };
        let tuple = b.ptr_add(idx, tuple, self.axes.len() * self.index.bytes());
        for (j, &(n, stride)) in self.axes.iter().enumerate() {
            let i = load_index(b, tuple.at((j * self.index.bytes()) as i64), self.index, n);
            let i = b.mul_imm(i, stride as i64);
            at = b.add(at, i);
        }
        b.ptr_add(x, at, self.width)
    }

    /// Copies one slice.
    pub fn copy(&self, b: &mut Builder, target: &Target, src: Value, dst: Value) {
        let bytes = self.slice * self.width;
        let unit = if bytes.is_multiple_of(4) { Elem::I32 } else { unit_of(self.width) };
        row(b, target, bytes / unit.bytes(), unit, Some(src), dst, None);
    }
}

/// The kernel of GatherElements over (x, idx, y) and its number of tasks: `x` of extents `from`, the others of extents `to`;
/// the axis of `x` is not empty.
pub fn elements(from: &[usize], to: &[usize], axis: usize, width: usize, index: Elem) -> (Kernel, usize) {
    let args = vec![ArgDecl::read("x", 1), ArgDecl::read("idx", 1), ArgDecl::write("y", 1)];
    let mut b = Builder::new("gather_elements", args);
    let (x, idx, y) = (b.arg(0), b.arg(1), b.arg(2));
    let (&len, outer) = to.split_last().expect("an operand with an axis");
    let strides = strides_of(from);
    let rows = outer.iter().product();
    let tasks = row_tasks(&mut b, rows, CHUNK / (len * width).max(1), |b, r| {
        let base = coordinates(b, r, outer, |a| if a == axis { 0 } else { strides[a] });
        b.for_(0, len, 1, |b, i| {
            let e = b.mul_imm(r, len as i64);
            let e = b.add(e, i);
            let at = load_index(b, idx.at(0).idx(e, index.bytes()), index, from[axis]);
            let at = b.mul_imm(at, strides[axis] as i64);
            let mut at = b.add(base, at);
            if axis != outer.len() {
                let along = b.mul_imm(i, strides[outer.len()] as i64);
                at = b.add(at, along);
            }
            let v = b.load(Type::Scalar(unit_of(width)), x.at(0).idx(at, width));
            b.store(y.at(0).idx(e, width), v);
        });
    });
    (b.finish(), tasks)
}

/// The sum of `stride(a)` times each coordinate of the row-major number `r` in extents `dims`.
pub fn coordinates(b: &mut Builder, r: Value, dims: &[usize], stride: impl Fn(usize) -> usize) -> Value {
    let (mut rest, mut sum) = (r, b.i64(0));
    for (a, &len) in dims.iter().enumerate().rev() {
        let n = b.int(I64, len as i64);
        let i = if a == 0 { rest } else { b.rem_s(rest, n) };
        rest = b.div_s(rest, n);
        let i = b.mul_imm(i, stride(a) as i64);
        sum = b.add(sum, i);
    }
    sum
}
