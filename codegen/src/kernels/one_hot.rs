//! One-hot vectors: `y[p, j, q] = idx[p, q] is j or j - depth ? on : off`.
//!
//! A task is a few rows of q. Fractions of float indices are truncated. `off` and `on` are bits, read once a call.

use super::indexed::{CHUNK, row_tasks};
use super::pointwise::elem_of;
use super::strided::plan::unit_of;
use crate::kir::{ArgDecl, Builder, ConvertOp, Elem, IntCc, Kernel, Type, Value};
use nncc_ir::DType;

/// The kernel over (idx, values, y) and its number of tasks; `before` and `behind` are the extents of p and q, `width` the
/// bytes of a result.
pub fn one_hot(before: usize, depth: usize, behind: usize, index: DType, width: usize) -> (Kernel, usize) {
    let args = vec![ArgDecl::read("idx", 1), ArgDecl::read("values", 1), ArgDecl::write("y", 1)];
    let mut b = Builder::new("one_hot", args);
    let (idx, values, y) = (b.arg(0), b.arg(1), b.arg(2));
    let (unit, elem) = (Type::Scalar(unit_of(width)), elem_of(index));
    let (off, on) = (b.load(unit, values), b.load(unit, values.at(width as i64)));
    let tasks = row_tasks(&mut b, before * depth, CHUNK / (behind * width).max(1), |b, row| {
        let n = b.i64(depth as i64);
        let (p, j) = (b.div_s(row, n), b.rem_s(row, n));
        let from_end = b.sub(j, n);
        let (first, to) = (b.mul_imm(p, behind as i64), b.mul_imm(row, behind as i64));
        b.for_(0, behind, 1, |b, q| {
            let at = b.add(first, q);
            let i = b.load(Type::Scalar(elem), idx.at(0).idx(at, elem.bytes()));
            let i = as_i64(b, i, index);
            let (same, wrapped) = (b.icmp(IntCc::Eq, i, j), b.icmp(IntCc::Eq, i, from_end));
            let is_on = b.or(same, wrapped);
            let v = b.select(is_on, on, off);
            let at = b.add(to, q);
            b.store(y.at(0).idx(at, width), v);
        });
    });
    (b.finish(), tasks)
}

/// A number of type `dtype` as `Tensor::to_i64` converts it.
fn as_i64(b: &mut Builder, v: Value, dtype: DType) -> Value {
    match dtype {
        t if t.is_float() => b.convert(ConvertOp::ToS, v, Elem::I64),
        t if t.is_signed_int() => b.sext(v, Elem::I64),
        _ => b.zext(v, Elem::I64),
    }
}
