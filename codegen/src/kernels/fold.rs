//! Folds: a program at every point of a loop nest, combined along some of its axes, and a program on each result.
//!
//! ```text
//! y[k] = post(fold over r of pre(x0[k, r], x1[k, r], ..), z0[k], z1[k], ..)      k: kept axes, r: reduced axes
//! ```
//!
//! Sums, norms, variances, softmax denominators, windows of neighbouring channels and Einstein sums are all of this form:
//! an axis is reduced where the output's stride is 0, and overlapping windows are strides as well. Two shapes of loop:
//!
//! ```text
//! last axis reduced   accumulators are vectors along it, several against the latency of an addition, added up at the end:
//!                     lanes of a vector as a tree, a tail's missing lanes hold the operation's neutral element
//! last axis kept      a block of outputs along it stays in accumulators while all reduced axes go by
//! ```
//!
//! Either way every output is the work of one task, and the order of additions is fixed by shapes and target alone.

use crate::kernels::map::{CHUNK, Nest, Row, moved};
use crate::kernels::pointwise::{self, elem_of, from_memory};
use crate::kir::{ArgDecl, BinaryOp, Builder, IntCc, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::{DType, Pointwise};

/// The innermost body of a reduction: from the operands' pointers and the accumulators, the next accumulators.
type Body<'a> = dyn FnMut(&mut Builder, &[Value], &[Value]) -> Vec<Value> + 'a;

/// How elements are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Sum; integers wrap.
    Add,
    /// Product; integers wrap.
    Mul,
    /// Largest, NaN if one is.
    Max,
    /// Largest; where one is NaN, any or NaN. One instruction for six, for whoever finds NaNs by themselves.
    MaxOfNumbers,
    /// Smallest, NaN if one is.
    Min,
}

impl Combine {
    /// What changes nothing when it is combined with, in every lane of `ty`.
    pub(crate) fn neutral(self, b: &mut Builder, dtype: DType, ty: Type) -> Value {
        let bits = 8 * dtype.bytes() as u32;
        let most = if dtype.is_signed_int() { i64::MAX >> (64 - bits) } else { -1 };
        let least = if dtype.is_signed_int() { -most - 1 } else { 0 };
        match (self, dtype.is_float()) {
            (Combine::Add, _) => b.zero(ty),
            (Combine::Mul, true) => b.float(ty, 1.0),
            (Combine::Mul, false) => b.int(ty, 1),
            (Combine::Max | Combine::MaxOfNumbers, true) => b.float(ty, f64::NEG_INFINITY),
            (Combine::Max | Combine::MaxOfNumbers, false) => b.int(ty, least),
            (Combine::Min, true) => b.float(ty, f64::INFINITY),
            (Combine::Min, false) => b.int(ty, most),
        }
    }

    /// The instruction.
    pub(crate) fn operation(self, dtype: DType) -> BinaryOp {
        match (self, dtype.is_float(), dtype.is_signed_int()) {
            (Combine::Add, true, _) => BinaryOp::FAdd,
            (Combine::Add, ..) => BinaryOp::Add,
            (Combine::Mul, true, _) => BinaryOp::FMul,
            (Combine::Mul, ..) => BinaryOp::Mul,
            (Combine::Max, true, _) => BinaryOp::FMax,
            (Combine::MaxOfNumbers, true, _) => BinaryOp::PMax,
            (Combine::Max | Combine::MaxOfNumbers, _, true) => BinaryOp::MaxS,
            (Combine::Max | Combine::MaxOfNumbers, ..) => BinaryOp::MaxU,
            (Combine::Min, true, _) => BinaryOp::FMin,
            (Combine::Min, _, true) => BinaryOp::MinS,
            (Combine::Min, ..) => BinaryOp::MinU,
        }
    }

    /// All of some vectors, as a tree.
    pub(crate) fn all(self, b: &mut Builder, dtype: DType, vectors: &[Value]) -> Value {
        let mut vectors = vectors.to_vec();
        while vectors.len() > 1 {
            let half = vectors.len().div_ceil(2);
            let high = vectors.split_off(half);
            for (low, high) in vectors.iter_mut().zip(high) {
                *low = b.binary(self.operation(dtype), *low, high);
            }
        }
        vectors[0]
    }
}

/// A fold over operands: those of `pre`, then the further ones of `post`, then the output.
#[derive(Clone, Copy, Debug)]
pub struct Fold<'a> {
    /// What is combined; not a bool.
    pub pre: &'a Pointwise,
    /// How.
    pub combine: Combine,
    /// What is made of the result: a program over it and further operands, which are indexed as the output is.
    pub post: &'a Pointwise,
}

/// The kernel of a fold and its number of tasks. `nest` is collapsed and has an output element.
pub fn fold(target: &Target, name: &str, f: &Fold<'_>, nest: &Nest) -> (Kernel, usize) {
    let further = f.post.inputs().iter().skip(1);
    let dtypes: Vec<DType> = f.pre.inputs().iter().chain(further).copied().chain([f.post.result_type()]).collect();
    debug_assert!(nest.strides.len() == dtypes.len() && f.post.inputs().first() == Some(&f.pre.result_type()));
    let args = dtypes.iter().enumerate().map(|(i, t)| match i + 1 < dtypes.len() {
        true => ArgDecl::read(format!("x{i}"), t.bytes() as u32),
        false => ArgDecl::write("y", t.bytes() as u32),
    });
    let mut b = Builder::new(name, args.collect());
    let last = nest.dims.len() - 1;
    let out = dtypes.len() - 1;
    let is_reduced = |a: usize| nest.strides[out][a] == 0;
    let axes = |reduced: bool| (0..last).filter(|&a| is_reduced(a) == reduced).collect::<Vec<usize>>();
    let n = nest.dims[last];
    let lanes = match is_reduced(last) {
        true => pointwise::lanes(target, f.pre),
        false => pointwise::lanes(target, f.pre).min(pointwise::lanes(target, f.post)),
    };
    let lanes = lanes.min(n.next_power_of_two());
    let vectors = n.div_ceil(lanes).clamp(1, 4);
    let k = Folding { f, dtypes, nest, kept: axes(false), reduced: axes(true), lanes, vectors };
    let tasks = if is_reduced(last) { k.along_last(&mut b) } else { k.across_last(&mut b) };
    (b.finish(), tasks)
}

struct Folding<'a> {
    f: &'a Fold<'a>,
    /// Of the operands of `pre`, the further ones of `post`, the output.
    dtypes: Vec<DType>,
    nest: &'a Nest,
    /// Kept axes but the last.
    kept: Vec<usize>,
    /// Reduced axes but the last.
    reduced: Vec<usize>,
    lanes: usize,
    /// Vectors that are in flight.
    vectors: usize,
}

impl Folding<'_> {
    fn last(&self) -> usize {
        self.nest.dims.len() - 1
    }

    /// Elements of the last axis.
    fn n(&self) -> usize {
        self.nest.dims[self.last()]
    }

    fn row(&self, pointers: &[Value], i: usize) -> Row {
        Row { dtype: self.dtypes[i], base: pointers[i], stride: self.nest.strides[i][self.last()] }
    }

    fn acc_type(&self, lanes: usize) -> Type {
        Type::of(elem_of(self.f.pre.result_type()), lanes)
    }

    fn neutral(&self, b: &mut Builder, lanes: usize) -> Value {
        self.f.combine.neutral(b, self.f.pre.result_type(), self.acc_type(lanes))
    }

    fn operation(&self) -> BinaryOp {
        self.f.combine.operation(self.f.pre.result_type())
    }

    fn combine_all(&self, b: &mut Builder, accs: &[Value]) -> Value {
        self.f.combine.all(b, self.f.pre.result_type(), accs)
    }

    /// `acc` combined with the program on `inputs`, of which the first `count` lanes are elements.
    fn accumulate(&self, b: &mut Builder, acc: Value, inputs: &[Value], count: usize) -> Value {
        if count == self.lanes && self.f.combine == Combine::Add {
            return pointwise::emit_sum(b, self.f.pre, self.lanes, inputs, acc);
        }
        let v = pointwise::emit(b, self.f.pre, self.lanes, inputs);
        let v = if count == self.lanes {
            v
        } else {
            let (there, neutral) =
                (b.mask(&(0..self.lanes).map(|l| l < count).collect::<Vec<_>>()), self.neutral(b, self.lanes));
            b.select(there, v, neutral)
        };
        b.binary(self.operation(), acc, v)
    }

    /// The operands that are the same at every point of the reduced axes.
    fn is_fixed(&self, i: usize) -> bool {
        let last = (self.nest.strides[self.dtypes.len() - 1][self.last()] == 0).then_some(self.last());
        self.reduced.iter().copied().chain(last).all(|a| self.nest.strides[i][a] == 0)
    }

    fn advance(&self, b: &mut Builder, axis: usize, index: Value, pointers: &[Value]) -> Vec<Value> {
        let bytes = |i: usize| self.nest.strides[i][axis] * self.dtypes[i].bytes();
        let step = |(i, &p): (usize, &Value)| if bytes(i) == 0 { p } else { moved(b, p, index, bytes(i)) };
        pointers.iter().enumerate().map(step).collect()
    }

    /// Rows, the combinations of kept indices, shared out to tasks; `body` gets the row's pointers and the number of the
    /// piece of the row, of which there are `pieces`. Gives the number of tasks.
    fn rows(
        &self,
        b: &mut Builder,
        pieces: usize,
        work: usize,
        body: impl FnOnce(&Self, &mut Builder, &[Value], Value),
    ) -> usize {
        let rows: usize = self.kept.iter().map(|&a| self.nest.dims[a]).product();
        let group = if pieces > 1 { 1 } else { (CHUNK / work.max(1)).clamp(1, rows) };
        let tasks = rows.div_ceil(group) * pieces;
        let at_row = |b: &mut Builder, row: Value| {
            let mut pointers: Vec<Value> = (0..self.dtypes.len()).map(|i| b.arg(i)).collect();
            let mut rest = row;
            for (i, &axis) in self.kept.iter().enumerate().rev() {
                let n = b.i64(self.nest.dims[axis] as i64);
                let index = if i == 0 { rest } else { b.rem_u(rest, n) };
                rest = if i == 0 { rest } else { b.div_u(rest, n) };
                pointers = self.advance(b, axis, index, &pointers);
            }
            pointers
        };
        b.tasks(|b, task| {
            if group == 1 {
                let count = b.i64(pieces as i64);
                let (row, piece) = match pieces {
                    1 => (task, b.i64(0)),
                    _ if rows == 1 => (b.i64(0), task),
                    _ => (b.div_u(task, count), b.rem_u(task, count)),
                };
                let pointers = at_row(b, row);
                return body(self, b, &pointers, piece);
            }
            let first = b.mul_imm(task, group as i64);
            let (past, end) = (b.add_imm(first, group as i64), b.i64(rows as i64));
            let past = b.min_s(past, end);
            b.for_(first, past, 1, |b, row| {
                let (pointers, piece) = (at_row(b, row), b.i64(0));
                body(self, b, &pointers, piece);
            });
        });
        tasks
    }

    /// The loops over the reduced axes from the one at `depth` on, but the last of the nest.
    fn loops(
        &self,
        b: &mut Builder,
        depth: usize,
        pointers: &[Value],
        accs: &[Value],
        body: &mut Body<'_>,
    ) -> Vec<Value> {
        let Some(&axis) = self.reduced.get(depth) else { return body(b, pointers, accs) };
        b.loop_(0, self.nest.dims[axis], 1, accs, |b, index, accs| {
            let pointers = self.advance(b, axis, index, pointers);
            self.loops(b, depth + 1, &pointers, accs, body)
        })
    }

    /// The last axis is reduced: vectors along it.
    fn along_last(&self, b: &mut Builder) -> usize {
        let work: usize = self.reduced.iter().map(|&a| self.nest.dims[a]).product::<usize>() * self.n();
        self.rows(b, 1, work, |k, b, pointers, _| {
            let operands = k.f.pre.inputs().len();
            let zero = b.i64(0);
            let fixed: Vec<Option<Value>> = (0..operands)
                .map(|i| k.is_fixed(i).then(|| k.row(pointers, i).load(b, k.lanes, zero, 0, k.lanes)))
                .collect();
            let neutral = k.neutral(b, k.lanes);
            let accs = k.loops(b, 0, pointers, &vec![neutral; k.vectors], &mut |b, pointers, accs| {
                let splats: Vec<Option<Value>> = (0..operands)
                    .map(|i| {
                        fixed[i].or_else(|| {
                            let row = k.row(pointers, i);
                            (row.stride == 0).then(|| row.load(b, k.lanes, zero, 0, k.lanes))
                        })
                    })
                    .collect();
                let inputs = |b: &mut Builder, at: Value, offset: usize, count: usize| -> Vec<Value> {
                    (0..operands)
                        .map(|i| splats[i].unwrap_or_else(|| k.row(pointers, i).load(b, k.lanes, at, offset, count)))
                        .collect()
                };
                let turn = k.lanes * k.vectors;
                let whole = k.n() / turn * turn;
                let mut accs = b.loop_(0, whole, turn as i64, accs, |b, at, accs| {
                    let next = |(u, acc): (usize, &Value)| {
                        let inputs = inputs(b, at, u * k.lanes, k.lanes);
                        k.accumulate(b, *acc, &inputs, k.lanes)
                    };
                    accs.iter().enumerate().map(next).collect()
                });
                let start = b.i64(whole as i64);
                for (u, from) in (0..k.n() - whole).step_by(k.lanes).enumerate() {
                    let count = k.lanes.min(k.n() - whole - from);
                    let inputs = inputs(b, start, from, count);
                    accs[u] = k.accumulate(b, accs[u], &inputs, count);
                }
                accs
            });
            let all = k.combine_all(b, &accs);
            let result = b.reduce(k.operation(), all);
            let mut inputs = vec![result];
            for (&dtype, &pointer) in k.dtypes.iter().zip(pointers).take(k.dtypes.len() - 1).skip(operands) {
                let x = b.load(Type::Scalar(elem_of(dtype)), pointer);
                inputs.push(from_memory(b, dtype, x));
            }
            let y = pointwise::emit(b, k.f.post, 1, &inputs);
            let out = k.dtypes.len() - 1;
            Row { dtype: k.dtypes[out], base: pointers[out], stride: 1 }.store(b, y, zero, 0, 1);
        })
    }

    /// The last axis is kept: blocks of outputs along it.
    fn across_last(&self, b: &mut Builder) -> usize {
        let n = self.n();
        let points: usize = self.reduced.iter().map(|&a| self.nest.dims[a]).product();
        let block = self.lanes * self.vectors;
        let piece = (CHUNK / (points.max(1) * block)).max(1) * block;
        let pieces = n.div_ceil(piece);
        let whole = n / block * block;
        self.rows(b, pieces, points * n, |k, b, pointers, number| {
            let (first, end) = (b.mul_imm(number, piece as i64), b.i64(whole as i64));
            let past = b.add_imm(first, piece as i64);
            let past = b.min_s(past, end);
            b.for_(first, past, block as i64, |b, at| k.block(b, pointers, at, block));
            let rest = |b: &mut Builder| {
                let at = b.i64(whole as i64);
                k.block(b, pointers, at, n - whole);
            };
            match (whole < n, pieces) {
                (false, _) => {}
                (true, 1) => rest(b),
                _ => {
                    let last = b.i64(pieces as i64 - 1);
                    let is_last = b.icmp(IntCc::Eq, number, last);
                    b.when(is_last, rest);
                }
            }
        })
    }

    /// `count` outputs from index `at` of the last axis on. Where they are few vectors, several points of the innermost
    /// reduced axis have accumulators of their own, against the latency of an addition.
    fn block(&self, b: &mut Builder, pointers: &[Value], at: Value, count: usize) {
        let operands = self.f.pre.inputs().len();
        let parts: Vec<(usize, usize)> =
            (0..count).step_by(self.lanes).map(|from| (from, self.lanes.min(count - from))).collect();
        let fixed: Vec<Vec<Option<Value>>> = parts
            .iter()
            .map(|&(from, count)| {
                let load =
                    |i: usize| self.is_fixed(i).then(|| self.row(pointers, i).load(b, self.lanes, at, from, count));
                (0..operands).map(load).collect()
            })
            .collect();
        let points = |b: &mut Builder, pointers: &[Value], accs: &[Value]| -> Vec<Value> {
            let mut next = Vec::with_capacity(accs.len());
            for (u, &(from, count)) in parts.iter().enumerate() {
                let load = |i: usize| {
                    fixed[u][i].unwrap_or_else(|| self.row(pointers, i).load(b, self.lanes, at, from, count))
                };
                let inputs: Vec<Value> = (0..operands).map(load).collect();
                // Lanes beyond the count are never stored: they need no neutral element.
                next.push(self.accumulate(b, accs[u], &inputs, self.lanes));
            }
            next
        };
        let neutral = self.neutral(b, self.lanes);
        let accs = vec![neutral; parts.len()];
        let inner = self.reduced.last().copied();
        let copies = (4 / parts.len()).min(inner.map_or(1, |a| self.nest.dims[a])).max(1);
        let accs = match inner {
            Some(axis) if copies > 1 => {
                let outer = Folding {
                    reduced: self.reduced[..self.reduced.len() - 1].to_vec(),
                    dtypes: self.dtypes.clone(),
                    kept: vec![],
                    ..*self
                };
                let (turns, width) = (self.nest.dims[axis], parts.len());
                let whole = turns / copies * copies;
                let all = vec![neutral; copies * width];
                let sums = outer.loops(b, 0, pointers, &all, &mut |b, pointers, accs| {
                    let step = |b: &mut Builder, index: Value, c: usize, accs: &[Value]| {
                        let index = b.add_imm(index, c as i64);
                        let pointers = self.advance(b, axis, index, pointers);
                        points(b, &pointers, accs)
                    };
                    let accs = b.loop_(0, whole, copies as i64, accs, |b, index, accs| {
                        (0..copies).flat_map(|c| step(b, index, c, &accs[c * width..][..width])).collect()
                    });
                    let start = b.i64(whole as i64);
                    let rest = turns - whole;
                    let done =
                        (0..rest).flat_map(|c| step(b, start, c, &accs[c * width..][..width])).collect::<Vec<_>>();
                    done.into_iter().chain(accs[rest * width..].iter().copied()).collect()
                });
                (0..width)
                    .map(|u| {
                        let own: Vec<Value> = sums.iter().skip(u).step_by(width).copied().collect();
                        self.combine_all(b, &own)
                    })
                    .collect()
            }
            _ => self.loops(b, 0, pointers, &accs, &mut |b, pointers, accs| points(b, pointers, accs)),
        };
        let out = self.dtypes.len() - 1;
        for (&(from, count), acc) in parts.iter().zip(accs) {
            let mut inputs = vec![acc];
            for i in operands..out {
                inputs.push(self.row(pointers, i).load(b, self.lanes, at, from, count));
            }
            let y = pointwise::emit(b, self.f.post, self.lanes, &inputs);
            self.row(pointers, out).store(b, y, at, from, count);
        }
    }
}
