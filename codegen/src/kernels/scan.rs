//! Walks along one axis: running sums and products, and the position of an extreme.
//!
//! ```text
//! x: [outer, n, inner]     cum_sum      y[o, i, j] = x[o, 0, j] + .. + x[o, i, j]          same shape
//!                          arg_reduce   y[o, j] = the i of the largest x[o, i, j]          i64
//! ```
//!
//! Columns along `inner` are vectors and several of them are walked at once; with no inner axis a walk is scalar. A task is
//! a block of columns of one outer index.

use crate::kernels::map::moved;
use crate::kernels::pointwise::elem_of;
use crate::kir::{ArgDecl, Builder, Elem, FloatCc, IntCc, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::DType;

/// The extents of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Before the axis.
    pub outer: usize,
    /// Along it; not 0.
    pub n: usize,
    /// Behind it; not 0.
    pub inner: usize,
}

/// Columns of a block in vectors.
const VECTORS: usize = 4;

/// The loop over blocks of columns: `body(b, outer index, first column, columns)` for each. Gives the number of tasks.
fn blocks(b: &mut Builder, e: Extents, lanes: usize, body: impl Fn(&mut Builder, Value, Value, usize)) -> usize {
    let block = lanes * VECTORS;
    let pieces = e.inner.div_ceil(block);
    b.tasks(|b, task| {
        let count = b.i64(pieces as i64);
        let (o, piece) = if pieces == 1 { (task, b.i64(0)) } else { (b.div_u(task, count), b.rem_u(task, count)) };
        let (column, rest) = (b.mul_imm(piece, block as i64), e.inner - (pieces - 1) * block);
        if rest == block {
            return body(b, o, column, block);
        }
        let last = b.i64(pieces as i64 - 1);
        let is_last = if pieces == 1 { b.mask(&[true]) } else { b.icmp(IntCc::Eq, piece, last) };
        b.branch(is_last, |b| body(b, o, column, rest), |b| body(b, o, column, block));
    });
    e.outer * pieces
}

/// `(first lane, lanes)` of each vector of `columns`.
fn vectors(columns: usize, lanes: usize) -> Vec<(usize, usize)> {
    (0..columns).step_by(lanes).map(|from| (from, lanes.min(columns - from))).collect()
}

/// What a running total is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// `+`, from 0.
    Sum,
    /// `*`, from 1.
    Product,
}

/// Running totals: the kernel and its number of tasks. `exclusive` leaves an element out of its own total, `reverse` starts
/// at the end.
pub fn running(
    target: &Target,
    dtype: DType,
    join: Join,
    e: Extents,
    exclusive: bool,
    reverse: bool,
) -> (Kernel, usize) {
    let elem = elem_of(dtype);
    let (bytes, lanes) = (elem.bytes(), target.lanes(elem).min(e.inner.next_power_of_two()));
    let args = vec![ArgDecl::read("x", bytes as u32), ArgDecl::write("y", bytes as u32)];
    let name = if join == Join::Sum { "cum_sum" } else { "cum_prod" };
    let mut b = Builder::new(format!("{dtype}_{name}"), args);
    let ty = Type::of(elem, lanes);
    let tasks = blocks(&mut b, e, lanes, |b, o, column, columns| {
        let pointers = [b.arg(0), b.arg(1)].map(|p| {
            let p = moved(b, p, o, e.n * e.inner * bytes);
            moved(b, p, column, bytes)
        });
        let parts = vectors(columns, lanes);
        let start = match join {
            Join::Sum => b.zero(ty),
            Join::Product if elem.is_float() => b.float(ty, 1.0),
            Join::Product => b.int(ty, 1),
        };
        b.loop_(0, e.n, 1, &vec![start; parts.len()], |b, i, totals| {
            let last = b.i64(e.n as i64 - 1);
            let i = if reverse { b.sub(last, i) } else { i };
            let [x, y] = pointers.map(|p| moved(b, p, i, e.inner * bytes));
            let mut next = Vec::new();
            for (&(from, count), &before) in parts.iter().zip(totals) {
                let disp = (from * bytes) as i64;
                let v = b.load_part(ty, x.at(disp), count);
                let total = if join == Join::Sum { b.add(before, v) } else { b.mul(before, v) };
                b.store_part(y.at(disp), if exclusive { before } else { total }, count);
                next.push(total);
            }
            next
        });
    });
    (b.finish(), tasks)
}

/// Positions of the largest or smallest elements: the kernel and its number of tasks. A NaN counts as the extreme; of equals
/// the first, or with `select_last` the last counts.
pub fn arg_reduce(target: &Target, dtype: DType, e: Extents, max: bool, select_last: bool) -> (Kernel, usize) {
    let elem = elem_of(dtype);
    let bytes = elem.bytes();
    // Positions are carried in lanes as wide as the elements: enough for 32 bits, else one element at a time.
    let wide = if elem == Elem::F64 || elem == Elem::I64 { true } else { bytes == 4 && i32::try_from(e.n).is_ok() };
    let lanes = if wide { target.lanes(elem).min(e.inner.next_power_of_two()) } else { 1 };
    let position = Type::of(if lanes == 1 { Elem::I64 } else { elem.as_int() }, lanes);
    let args = vec![ArgDecl::read("x", bytes as u32), ArgDecl::write("y", 8)];
    let mut b = Builder::new(format!("{dtype}_{}", if max { "arg_max" } else { "arg_min" }), args);
    let ty = Type::of(elem, lanes);
    let tasks = blocks(&mut b, e, lanes, |b, o, column, columns| {
        let x = moved(b, b.arg(0), o, e.n * e.inner * bytes);
        let x = moved(b, x, column, bytes);
        let y = moved(b, b.arg(1), o, e.inner * 8);
        let y = moved(b, y, column, 8);
        let (parts, zero) = (vectors(columns, lanes), b.zero(position));
        let mut init = Vec::new();
        for &(from, count) in &parts {
            init.push(b.load_part(ty, x.at((from * bytes) as i64), count));
            init.push(zero);
        }
        let found = b.loop_(1, e.n, 1, &init, |b, i, best| {
            let row = moved(b, x, i, e.inner * bytes);
            let narrow = if position.elem() == Some(Elem::I64) { i } else { b.narrow(i, elem.as_int()) };
            let here = b.splat(position, narrow);
            let mut next = Vec::new();
            for (&(from, count), best) in parts.iter().zip(best.chunks_exact(2)) {
                let v = b.load_part(ty, row.at((from * bytes) as i64), count);
                let takes = takes(b, dtype, max, select_last, v, best[0]);
                next.extend([b.select(takes, v, best[0]), b.select(takes, here, best[1])]);
            }
            next
        });
        for (&(from, count), best) in parts.iter().zip(found.chunks_exact(2)) {
            for lane in 0..count {
                let place = b.extract(best[1], lane);
                let place = b.sext(place, Elem::I64);
                b.store(y.at(8 * (from + lane) as i64), place);
            }
        }
    });
    (b.finish(), tasks)
}

/// Whether `v`, which comes later, takes the place of `best`.
fn takes(b: &mut Builder, dtype: DType, max: bool, select_last: bool, v: Value, best: Value) -> Value {
    if dtype.is_float() {
        // Everything is negated so that NaN takes its place: not (best is at least as good), unless best is a NaN already.
        let cc = match (max, select_last) {
            (true, false) => FloatCc::Ge,
            (true, true) => FloatCc::Gt,
            (false, false) => FloatCc::Le,
            (false, true) => FloatCc::Lt,
        };
        let stays = b.fcmp(cc, best, v);
        let moves = b.not(stays);
        let mut open = b.fcmp(FloatCc::Ordered, best, best);
        if select_last {
            let nan = b.is_nan(v);
            open = b.or(open, nan);
        }
        return b.and(moves, open);
    }
    let cc = match (max, select_last, dtype.is_signed_int()) {
        (true, false, true) => IntCc::GtS,
        (true, true, true) => IntCc::GeS,
        (true, false, false) => IntCc::GtU,
        (true, true, false) => IntCc::GeU,
        (false, false, true) => IntCc::LtS,
        (false, true, true) => IntCc::LeS,
        (false, false, false) => IntCc::LtU,
        (false, true, false) => IntCc::LeU,
    };
    b.icmp(cc, v, best)
}
