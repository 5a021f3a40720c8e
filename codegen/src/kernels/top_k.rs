//! The first k of a sorted line, with positions: a merge sort of (key, position) pairs in scratch memory.
//!
//! ```text
//! key        an i64 whose order is the wanted one: numbers map monotonically, -0 to 0, NaN above all; complemented for
//!            the largest first
//! runs       1, 2, 4, .. elements: two neighbouring runs are merged from one half of the scratch memory into the other
//! stable     the right run is taken only where its key is less, so that equal keys keep the order of positions
//! ```
//!
//! d log2 d steps for a line of d elements, without branches that depend on data. A line is a task. Scratch: 32 d bytes.

use super::pointwise::elem_of;
use super::strided::plan::unit_of;
use crate::kir::{ArgDecl, Builder, Elem, I64, IntCc, Kernel, Type, Value};
use nncc_ir::DType;

/// Bytes of scratch memory for lines of `d` elements.
pub fn scratch_bytes(d: usize) -> usize {
    32 * d
}

/// The kernel over (x, values, positions), one task a line: `x` is `[tasks / inner, d, inner]`, the results `[.., k, ..]`;
/// d is not 0.
pub fn top_k(d: usize, k: usize, inner: usize, dtype: DType, largest: bool) -> Kernel {
    let args = vec![ArgDecl::read("x", 1), ArgDecl::write("values", 1), ArgDecl::write("positions", 1)];
    let mut b = Builder::new("top_k", args);
    let (x, values, positions) = (b.arg(0), b.arg(1), b.arg(2));
    let scratch = b.scratch();
    let half = |b: &mut Builder, n: usize| b.ptr_add(scratch, n * 16 * d, 1);
    let halves = [half(&mut b, 0), half(&mut b, 1)];
    let width = dtype.bytes();
    b.tasks(|b, task| {
        let n = b.i64(inner as i64);
        let (outer, lane) = (b.div_s(task, n), b.rem_s(task, n));
        let line = |b: &mut Builder, len: usize| {
            let first = b.mul_imm(outer, (len * inner) as i64);
            b.add(first, lane)
        };
        let first = line(b, d);
        let src = b.ptr_add(x, first, width);
        b.for_(0, d, 1, |b, i| {
            let at = b.mul_imm(i, inner as i64);
            let v = b.load(Type::Scalar(elem_of(dtype)), src.at(0).idx(at, width));
            let key = key(b, v, dtype);
            let key = if largest { b.not(key) } else { key };
            b.store(halves[0].at(0).idx(i, 16), key);
            b.store(halves[0].at(8).idx(i, 16), i);
        });
        let mut run = 1;
        let mut sorted = 0;
        while run < d {
            merge_runs(b, halves[sorted], halves[1 - sorted], run, d);
            sorted = 1 - sorted;
            run *= 2;
        }
        let first = line(b, k);
        b.for_(0, k, 1, |b, i| {
            let position = b.load(I64, halves[sorted].at(8).idx(i, 16));
            let at = b.mul_imm(position, inner as i64);
            let v = b.load(Type::Scalar(unit_of(width)), src.at(0).idx(at, width));
            let to = b.mul_imm(i, inner as i64);
            let to = b.add(first, to);
            b.store(values.at(0).idx(to, width), v);
            b.store(positions.at(0).idx(to, 8), position);
        });
    });
    b.finish()
}

/// Merges every two neighbouring sorted runs of `run` pairs.
fn merge_runs(b: &mut Builder, from: Value, to: Value, run: usize, d: usize) {
    b.for_(0, d, 2 * run as i64, |b, start| {
        let whole = b.i64(d as i64);
        let (mid, end) = (b.add_imm(start, run as i64), b.add_imm(start, 2 * run as i64));
        let (mid, end) = (b.min_s(mid, whole), b.min_s(end, whole));
        let (last_left, last_right) = (b.add_imm(mid, -1), b.add_imm(end, -1));
        b.loop_(start, end, 1, &[start, mid], |b, t, heads| {
            let (i, j) = (heads[0], heads[1]);
            // A run that is used up is read at its last pair, and not taken.
            let (left, right) = (b.min_s(i, last_left), b.min_s(j, last_right));
            let (a, c) = (b.load(I64, from.at(0).idx(left, 16)), b.load(I64, from.at(0).idx(right, 16)));
            let (no_left, some_right) = (b.icmp(IntCc::GeS, i, mid), b.icmp(IntCc::LtS, j, end));
            let less = b.icmp(IntCc::LtS, c, a);
            let wanted = b.or(no_left, less);
            let takes_right = b.and(some_right, wanted);
            let taken = b.select(takes_right, right, left);
            let (key, position) = (b.load(I64, from.at(0).idx(taken, 16)), b.load(I64, from.at(8).idx(taken, 16)));
            b.store(to.at(0).idx(t, 16), key);
            b.store(to.at(8).idx(t, 16), position);
            let (next_i, next_j) = (b.add_imm(i, 1), b.add_imm(j, 1));
            vec![b.select(takes_right, i, next_i), b.select(takes_right, next_j, j)]
        });
    });
}

/// An i64 that orders as the number does.
fn key(b: &mut Builder, v: Value, dtype: DType) -> Value {
    if !dtype.is_float() {
        return match dtype {
            // Flipping the top bit turns the unsigned order into the signed one.
            DType::U64 => {
                let top = b.i64(i64::MIN);
                b.xor(v, top)
            }
            t if t.is_signed_int() => b.sext(v, Elem::I64),
            _ => b.zext(v, Elem::I64),
        };
    }
    let (elem, ty) = (elem_of(dtype), Type::Scalar(elem_of(dtype)));
    let is_nan = b.is_nan(v);
    let zero = b.zero(ty);
    let is_zero = b.fcmp(crate::kir::FloatCc::Eq, v, zero);
    let v = b.select(is_zero, zero, v);
    // A NaN becomes infinity first: what kind of NaN it is must not matter.
    let infinity = b.float(ty, f64::INFINITY);
    let v = b.select(is_nan, infinity, v);
    let bits = b.bitcast(v, elem.as_int());
    let bits = b.sext(bits, Elem::I64);
    // Negative floats grow with their magnitude bits: flip those.
    let sign = b.shr_s_imm(bits, 63);
    let magnitude = b.i64(i64::MAX);
    let flip = b.and(sign, magnitude);
    let key = b.xor(bits, flip);
    let above = b.i64(i64::MAX);
    b.select(is_nan, above, key)
}
