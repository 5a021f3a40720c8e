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
//! Two rows go side by side where both stay in the cache: adding up the lanes of a row, a root and a division are chains that
//! leave the core idle, and so does the end of every short loop. Of an odd number, the last row goes beside itself: both are
//! loaded before either is stored, so that this gives the same bytes twice, in place as well.
//!
//! Sums run in up to four vectors and are added up as a tree, lanes last: fixed by the row's length and the target, whatever
//! stands beside the row.

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
        let abreast = self.abreast(target);
        let group = (CHUNK / self.n).clamp(1, self.rows).next_multiple_of(abreast);
        b.tasks(|b, task| {
            let first = b.mul_imm(task, group as i64);
            let (past, end) = (b.add_imm(first, group as i64), b.i64(self.rows as i64));
            let past = b.min_s(past, end);
            b.for_(first, past, abreast as i64, |b, row| {
                let mut rows = vec![row];
                if abreast == 2 {
                    let next = b.add_imm(row, 1);
                    let last = b.i64(self.rows as i64 - 1);
                    rows.push(if self.rows.is_multiple_of(2) { next } else { b.min_s(next, last) });
                }
                self.side_by_side(b, lanes, &rows);
            });
        });
        (b.finish(), self.rows.div_ceil(group))
    }

    /// Rows that go side by side: two, unless their results would not stay in half of the first-level cache with them, or the
    /// one that is computed twice were many of all.
    fn abreast(&self, target: &Target) -> usize {
        let stay = 2 * self.n * self.dtype.bytes() * 2 <= target.l1d / 2;
        if stay && (self.rows.is_multiple_of(2) || self.rows >= 5) { 2 } else { 1 }
    }

    fn side_by_side(&self, b: &mut Builder, lanes: usize, rows: &[Value]) {
        let ty = Type::of(pointwise::elem_of(self.dtype), lanes);
        let bytes = self.n * self.dtype.bytes();
        let whole_row = |base: Value| Row { dtype: self.dtype, base, stride: 1 };
        let mut rows_of = |operand: usize| -> Vec<Row> {
            rows.iter().map(|&row| whole_row(moved(b, b.arg(operand), row, bytes))).collect()
        };
        let (x, y) = (rows_of(0), rows_of(1 + self.vectors));
        let mut sources = &x;
        // Of each row, one for each fold.
        let mut numbers: Vec<Vec<Value>> = vec![Vec::with_capacity(self.folds.len()); rows.len()];
        for fold in &self.folds {
            let kept = fold.keep.then_some(&y);
            let found = self.fold(b, lanes, fold, sources, kept, &numbers);
            for (numbers, number) in numbers.iter_mut().zip(found) {
                numbers.push(b.splat(ty, number));
            }
            sources = kept.unwrap_or(sources);
        }
        let vectors: Vec<Row> = (0..self.vectors).map(|i| whole_row(b.arg(1 + i))).collect();
        // Two vectors of a row a turn: a division or an exponential fills the machine by itself.
        self.along(b, lanes, 2, &[], |b, at, from, count, _| {
            let xs: Vec<Value> = sources.iter().map(|x| x.load(b, lanes, at, from, count)).collect();
            let shared: Vec<Value> = vectors.iter().map(|v| v.load(b, lanes, at, from, count)).collect();
            let results: Vec<Value> = xs
                .iter()
                .zip(&numbers)
                .map(|(&x, numbers)| pointwise::emit(b, &self.map, lanes, &[&[x], &numbers[..], &shared[..]].concat()))
                .collect();
            for (y, result) in y.iter().zip(results) {
                y.store(b, result, at, from, count);
            }
            vec![]
        });
    }

    /// The number of a fold of each row, in one lane.
    fn fold(
        &self,
        b: &mut Builder,
        lanes: usize,
        fold: &RowFold,
        sources: &[Row],
        kept: Option<&Vec<Row>>,
        numbers: &[Vec<Value>],
    ) -> Vec<Value> {
        let ty = Type::of(pointwise::elem_of(self.dtype), lanes);
        let (neutral, operation) = (fold.combine.neutral(b, self.dtype, ty), fold.combine.operation(self.dtype));
        let vectors = self.n.div_ceil(lanes).clamp(1, 4);
        let init = vec![neutral; vectors * sources.len()];
        let accs = self.along(b, lanes, vectors, &init, |b, at, from, count, accs| {
            let xs: Vec<Value> = sources.iter().map(|x| x.load(b, lanes, at, from, count)).collect();
            let inputs = xs.iter().zip(numbers).map(|(&x, numbers)| [&[x], &numbers[..]].concat());
            if kept.is_none() && count == lanes && fold.combine == Combine::Add {
                let sum = |(inputs, &acc): (Vec<Value>, &Value)| pointwise::emit_sum(b, &fold.pre, lanes, &inputs, acc);
                return inputs.zip(accs).map(sum).collect();
            }
            let parts: Vec<Value> = inputs.map(|inputs| pointwise::emit(b, &fold.pre, lanes, &inputs)).collect();
            for (kept, &part) in kept.into_iter().flatten().zip(&parts) {
                kept.store(b, part, at, from, count);
            }
            let next = |(&part, &acc): (&Value, &Value)| {
                if count == lanes {
                    return b.binary(operation, acc, part);
                }
                let there = b.mask(&(0..lanes).map(|l| l < count).collect::<Vec<_>>());
                let part = b.select(there, part, neutral);
                b.binary(operation, acc, part)
            };
            parts.iter().zip(accs).map(next).collect()
        });
        let of_row = |row: usize| accs.iter().skip(row).step_by(sources.len()).copied().collect::<Vec<_>>();
        let all: Vec<Value> = (0..sources.len()).map(|row| fold.combine.all(b, self.dtype, &of_row(row))).collect();
        let all: Vec<Value> = all.into_iter().map(|all| b.reduce(operation, all)).collect();
        all.into_iter().map(|all| pointwise::emit(b, &fold.post, 1, &[all])).collect()
    }

    /// Vectors along the rows, `unroll` a turn. The body gets the index of the turn, the vector's distance from it, how many
    /// elements there are, and what is carried for this vector of a turn, its part of `init`; it gives the next of these.
    fn along(
        &self,
        b: &mut Builder,
        lanes: usize,
        unroll: usize,
        init: &[Value],
        body: impl Fn(&mut Builder, Value, usize, usize, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (turn, each) = (lanes * unroll, init.len() / unroll);
        let whole = self.n / turn * turn;
        let mut carried = b.loop_(0, whole, turn as i64, init, |b, at, carried| {
            (0..unroll).flat_map(|u| body(b, at, u * lanes, lanes, &carried[u * each..][..each])).collect()
        });
        let start = b.i64(whole as i64);
        for (u, from) in (0..self.n - whole).step_by(lanes).enumerate() {
            let own = u * each..(u + 1) * each;
            let next = body(b, start, from, lanes.min(self.n - whole - from), &carried[own.clone()]);
            carried[own].copy_from_slice(&next);
        }
        carried
    }
}
