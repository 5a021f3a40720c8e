//! Rows that are read from memory once: folds over a row, one after the other, then a map, while the row stays in the
//! first-level cache.
//!
//! ```text
//! for each row x                                             softmax              layer normalisation
//!   r0 = post0(fold of pre0(x))                              max x                sum x / n
//!   r1 = post1(fold of pre1(x, r0))                          1 / sum exp(x - r0)  1 / sqrt(sum (x - r0)^2 / n + epsilon)
//!   y  = map(x, r0, r1, .., vectors)                         exp(x - r0) * r1     (x - r0) * r1 * scale + bias
//! ```
//!
//! A fold may keep what it combines: that lies in y then and takes the place of x for all that follows, so that no exponential
//! is taken twice. Vectors are operands that all rows share. x may be y: every element is read before it is written.
//!
//! Sums run in up to four vectors and are added up as a tree, lanes last: fixed by the row's length and the target.

use crate::kernels::fold::Combine;
use crate::kernels::map::{CHUNK, Row, moved};
use crate::kernels::pointwise;
use crate::kir::{ArgDecl, Builder, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::{DType, Pointwise};

/// One number that is made of a row.
#[derive(Clone, Debug)]
pub struct RowFold {
    /// What is combined: a program over an element and the numbers of the folds before.
    pub pre: Pointwise,
    /// How.
    pub combine: Combine,
    /// The number: a program over the result.
    pub post: Pointwise,
    /// Does what is combined take the row's place?
    pub keep: bool,
}

/// The kernel over all rows. Operands: x, the vectors, y.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Of everything: f32 or f64.
    pub dtype: DType,
    /// How many rows, one behind the other.
    pub rows: usize,
    /// Elements of a row.
    pub n: usize,
    /// How many vectors.
    pub vectors: usize,
    /// In order.
    pub folds: Vec<RowFold>,
    /// A program over an element, the numbers of all folds, the elements of the vectors.
    pub map: Pointwise,
}

impl Rows {
    /// Does a row stay in half of the first-level cache, its result beside it?
    pub fn fits(&self, target: &Target) -> bool {
        self.n * self.dtype.bytes() * 2 <= target.l1d / 2
    }

    /// The kernel and its number of tasks; there is an element.
    pub fn kernel(&self, target: &Target, name: &str) -> (Kernel, usize) {
        let align = self.dtype.bytes() as u32;
        let mut args = vec![ArgDecl::read("x", align)];
        args.extend((0..self.vectors).map(|i| ArgDecl::read(format!("v{i}"), align)));
        let keeps = self.folds.iter().any(|fold| fold.keep);
        args.push(if keeps { ArgDecl::read_write("y", align) } else { ArgDecl::write("y", align) });
        let mut b = Builder::new(name, args);
        let lanes = target.lanes(pointwise::elem_of(self.dtype)).min(self.n.next_power_of_two());
        let group = (CHUNK / self.n).clamp(1, self.rows);
        b.tasks(|b, task| {
            let first = b.mul_imm(task, group as i64);
            let (past, end) = (b.add_imm(first, group as i64), b.i64(self.rows as i64));
            let past = b.min_s(past, end);
            b.for_(first, past, 1, |b, row| self.row(b, lanes, row));
        });
        (b.finish(), self.rows.div_ceil(group))
    }

    fn row(&self, b: &mut Builder, lanes: usize, row: Value) {
        let ty = Type::of(pointwise::elem_of(self.dtype), lanes);
        let bytes = self.n * self.dtype.bytes();
        let whole_row = |base: Value| Row { dtype: self.dtype, base, stride: 1 };
        let (x, y) = (b.arg(0), b.arg(1 + self.vectors));
        let (x, y) = (whole_row(moved(b, x, row, bytes)), whole_row(moved(b, y, row, bytes)));
        let mut source = x;
        let mut numbers: Vec<Value> = Vec::with_capacity(self.folds.len());
        for fold in &self.folds {
            let kept = fold.keep.then_some(y);
            let number = self.fold(b, lanes, fold, &source, kept.as_ref(), &numbers);
            numbers.push(b.splat(ty, number));
            source = kept.unwrap_or(source);
        }
        let vectors: Vec<Row> = (0..self.vectors).map(|i| whole_row(b.arg(1 + i))).collect();
        // Two vectors a turn: a division or an exponential fills the machine by itself.
        self.along(b, lanes, 2, &[], |b, at, from, count, _, _| {
            let mut inputs = vec![source.load(b, lanes, at, from, count)];
            inputs.extend(&numbers);
            inputs.extend(vectors.iter().map(|v| v.load(b, lanes, at, from, count)));
            let result = pointwise::emit(b, &self.map, lanes, &inputs);
            y.store(b, result, at, from, count);
            None
        });
    }

    /// The number of a fold, in one lane.
    fn fold(
        &self,
        b: &mut Builder,
        lanes: usize,
        fold: &RowFold,
        source: &Row,
        kept: Option<&Row>,
        numbers: &[Value],
    ) -> Value {
        let ty = Type::of(pointwise::elem_of(self.dtype), lanes);
        let (neutral, operation) = (fold.combine.neutral(b, self.dtype, ty), fold.combine.operation(self.dtype));
        let vectors = self.n.div_ceil(lanes).clamp(1, 4);
        let accs = self.along(b, lanes, vectors, &vec![neutral; vectors], |b, at, from, count, u, accs| {
            let mut inputs = vec![source.load(b, lanes, at, from, count)];
            inputs.extend(numbers);
            if kept.is_none() && count == lanes && fold.combine == Combine::Add {
                return Some(pointwise::emit_sum(b, &fold.pre, lanes, &inputs, accs[u]));
            }
            let v = pointwise::emit(b, &fold.pre, lanes, &inputs);
            if let Some(kept) = kept {
                kept.store(b, v, at, from, count);
            }
            let v = if count == lanes {
                v
            } else {
                let there = b.mask(&(0..lanes).map(|l| l < count).collect::<Vec<_>>());
                b.select(there, v, neutral)
            };
            Some(b.binary(operation, accs[u], v))
        });
        let all = fold.combine.all(b, self.dtype, &accs);
        let result = b.reduce(operation, all);
        pointwise::emit(b, &fold.post, 1, &[result])
    }

    /// Vectors along the row, `unroll` a turn. The body gets the index of the turn, the vector's distance from it, how many
    /// elements there are, which vector of the turn it is, and what is carried; it gives the next value of its own.
    fn along(
        &self,
        b: &mut Builder,
        lanes: usize,
        unroll: usize,
        init: &[Value],
        body: impl Fn(&mut Builder, Value, usize, usize, usize, &[Value]) -> Option<Value>,
    ) -> Vec<Value> {
        let turn = lanes * unroll;
        let whole = self.n / turn * turn;
        let mut carried = b.loop_(0, whole, turn as i64, init, |b, at, carried| {
            (0..unroll).filter_map(|u| body(b, at, u * lanes, lanes, u, carried)).collect()
        });
        let start = b.i64(whole as i64);
        for (u, from) in (0..self.n - whole).step_by(lanes).enumerate() {
            if let Some(next) = body(b, start, from, lanes.min(self.n - whole - from), u, &carried) {
                carried[u] = next;
            }
        }
        carried
    }
}
