//! Attention of many heads: scores, softmax and the sum of values for a group of queries at a time, without a matrix of all
//! scores.
//!
//! ```text
//! for task (sample, head, group of G queries)
//!   Q  [width][G]  = scale * queries, transposed                      lanes are queries from here on
//!   for block of keys
//!     S  [keys][G]   = K . Q + mask           tiles in registers: some keys by G queries, K read by broadcasts
//!     m' [G]         = max(m, max over keys S)
//!     S              = exp(S - m')            and its sum over keys
//!     c  [G]         = exp(m - m')            what is there already was scaled by another maximum
//!     l  [G]         = c l + sum,   O [values][G] = c O + V^T . S      tiles: some features by G queries
//!   y = transpose of O / l
//! ```
//!
//! With queries in the lanes nothing is reduced across lanes, and keys and values are read where they lie, one element at a
//! time, at any distance from one another: only queries and results are transposed, by shuffles. Blocks of keys are so long that
//! their scores stay in the first-level cache; a sequence of one block scales nothing twice.
//!
//! A row of which all scores are -inf has the maximum -inf; exponentials are taken as if it were 0, which gives 0 for all of
//! them (a later block may have other scores) and NaN in the end, for 0/0. A NaN among the scores makes the row NaN. A weight
//! below the smallest normal number, of a score 87 below the largest, may be 0.
//!
//! Registers: the tile of a matrix product with 16 queries as a panel ([`tile`]). Lanes behind the last query hold zeros.
//! Sources: Milakov and Gimelshein, Online normalizer calculation for softmax, 2018; Dao et al., FlashAttention, 2022.

use crate::kernels::conv::tile::{self, Splat, UNROLL};
use crate::kernels::isa_name;
use crate::kernels::strided::{Axis, tile as transposed};
use crate::kernels::window::{balanced, div_rem};
use crate::kir::{ArgDecl, Builder, Elem, FloatCc, Kernel, Type, Value};
use crate::math;
use crate::target::Target;
use nncc_ir::BLOCK;
use nncc_ir::ops::attention::{Sizes, View};

const F32_BYTES: usize = 4;

/// Pages that the first level of address translation holds on common cores of the last ten years (48 to 96), and their bytes.
const PAGES: usize = 64;
const PAGE: usize = 4096;

/// Attention with everything known.
#[derive(Clone, Debug)]
pub struct Attention<'a> {
    /// What is compiled for.
    pub target: &'a Target,
    /// The extents.
    pub sizes: Sizes,
    /// Of the queries; features are neighbours.
    pub q: View,
    /// Of the keys.
    pub k: View,
    /// Of the values.
    pub v: View,
    /// The factor of the products.
    pub scale: f64,
    /// Elements of the mask from one sample, head, query and key to the next.
    pub mask: Option<[usize; 4]>,
    /// Elements of the result from one sample, head and query to the next.
    pub y: [usize; 3],
}

/// A group of queries: how many panels of 16 it fills, and how many there are.
#[derive(Clone, Copy)]
struct Group {
    panels: usize,
    queries: usize,
}

/// Where the operands of one head lie, and the parts of scratch memory.
struct Places {
    q: Value,
    k: Value,
    v: Value,
    mask: Option<Value>,
    y: Value,
    /// `[width][G]`.
    queries: Value,
    /// `[keys of a block][G]`.
    scores: Value,
    /// `[values][G]`.
    sums: Value,
    /// `[G]`: the largest score so far, the largest before this block, the sum of exponentials.
    most: Value,
    before: Value,
    total: Value,
}

/// One operand of a product that is read element by element.
struct Elements {
    first: Value,
    /// Bytes from one element of a tile to the next, and from one step of the sum to the next.
    along: usize,
    step: usize,
}

impl Attention<'_> {
    /// Are all distances within a head small enough for displacements of 32 bits?
    pub fn is_small(&self) -> bool {
        let strides = [self.q, self.k, self.v].into_iter().flat_map(|view| view.strides[2..].to_vec());
        let most = strides.chain(self.mask.into_iter().flat_map(|m| m[2..].to_vec())).chain([self.y[2]]).max();
        // 28 elements of a tile and the steps of a stretch lie within twice that of the first.
        most.is_none_or(|stride| stride < 1 << 22)
    }

    fn lanes(&self) -> usize {
        self.target.lanes(Elem::F32).min(BLOCK)
    }

    /// Panels of a full group.
    fn panels(&self) -> usize {
        let panels = self.sizes.queries.div_ceil(BLOCK);
        tile::choose(self.target, Splat::Load, panels, self.sizes.keys).panels
    }

    fn full(&self) -> Group {
        Group { panels: self.panels(), queries: self.panels() * BLOCK }
    }

    fn groups(&self) -> usize {
        self.sizes.queries.div_ceil(self.full().queries)
    }

    /// The last group, where it has fewer queries.
    fn rest(&self) -> Option<Group> {
        let queries = self.sizes.queries % self.full().queries;
        (queries > 0).then(|| Group { panels: queries.div_ceil(BLOCK), queries })
    }

    /// Keys of a block. Each tile of the second product reads all scores of a block, which take at most half of the first-level
    /// cache, and an element or a few of each value: where these are rows of a matrix of all heads, each in a page of its own and
    /// all in a few sets of the cache, a block has no more of them than there are pages at hand.
    fn block(&self) -> usize {
        let scores = self.target.l1d / (2 * self.full().queries * F32_BYTES);
        let in_a_page = (PAGE / (self.v.strides[2] * F32_BYTES).max(1)).max(1);
        balanced(self.sizes.keys, scores.min(PAGES * in_a_page).max(1)).next().unwrap_or(1)
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        self.sizes.batch * self.sizes.heads * self.groups()
    }

    /// Scratch bytes of a thread.
    pub fn scratch(&self) -> usize {
        (self.sizes.width + self.block() + self.sizes.values + 3) * self.full().queries * F32_BYTES
    }

    /// The kernel. Operands: those of the queries, keys and values, the mask (if there is one), y.
    pub fn kernel(&self) -> Kernel {
        let mut args: Vec<ArgDecl> = ["q", "k", "v"].into_iter().map(|name| ArgDecl::read(name, 4)).collect();
        if self.mask.is_some() {
            args.push(ArgDecl::read("mask", 4));
        }
        args.push(ArgDecl::write("y", 4));
        let name = format!("f32_attention__{}_{}", isa_name(self.target), self.full().queries);
        let mut b = Builder::new(name, args);
        b.tasks(|b, task| self.task(b, task));
        b.finish()
    }

    fn task(&self, b: &mut Builder, task: Value) {
        let (rest, group) = div_rem(b, task, self.groups());
        let (sample, head) = div_rem(b, rest, self.sizes.heads);
        match self.rest() {
            None => self.group(b, self.full(), [sample, head, group]),
            Some(last) if self.groups() == 1 => self.group(b, last, [sample, head, group]),
            Some(last) => {
                let bound = b.i64(self.groups() as i64 - 1);
                let is_full = b.icmp(crate::kir::IntCc::LtS, group, bound);
                b.branch(
                    is_full,
                    |b| self.group(b, self.full(), [sample, head, group]),
                    |b| self.group(b, last, [sample, head, group]),
                );
            }
        }
    }

    fn places(&self, b: &mut Builder, [sample, head, group]: [Value; 3]) -> Places {
        let first = b.mul_imm(group, self.full().queries as i64);
        let at = |b: &mut Builder, base: Value, offset: usize, moves: &[(Value, usize)]| {
            let mut elems = b.i64(offset as i64);
            for &(index, stride) in moves {
                let by = b.mul_imm(index, stride as i64);
                elems = b.add(elems, by);
            }
            b.ptr(base.at(0).idx(elems, F32_BYTES))
        };
        let view = |b: &mut Builder, arg: usize, view: &View, query: usize| {
            let base = b.arg(arg);
            let [of_sample, of_head, ..] = view.strides;
            at(b, base, view.offset, &[(sample, of_sample), (head, of_head), (first, query)])
        };
        let q = view(b, 0, &self.q, self.q.strides[2]);
        let (k, v) = (view(b, 1, &self.k, 0), view(b, 2, &self.v, 0));
        let mask = self.mask.map(|[of_sample, of_head, of_query, _]| {
            let base = b.arg(3);
            at(b, base, 0, &[(sample, of_sample), (head, of_head), (first, of_query)])
        });
        let base = b.arg(3 + usize::from(self.mask.is_some()));
        let [of_sample, of_head, of_query] = self.y;
        let y = at(b, base, 0, &[(sample, of_sample), (head, of_head), (first, of_query)]);
        // Rows of a full group, whatever this one is.
        let (scratch, row) = (b.scratch(), (self.full().queries * F32_BYTES) as i64);
        let mut rows = 0;
        let mut part = |b: &mut Builder, count: usize| {
            let p = b.ptr(scratch.at(rows * row));
            rows += count as i64;
            p
        };
        Places {
            q,
            k,
            v,
            mask,
            y,
            queries: part(b, self.sizes.width),
            scores: part(b, self.block()),
            sums: part(b, self.sizes.values),
            most: part(b, 1),
            before: part(b, 1),
            total: part(b, 1),
        }
    }

    /// All of a task.
    fn group(&self, b: &mut Builder, group: Group, task: [Value; 3]) {
        let at = self.places(b, task);
        self.load_queries(b, group, &at);
        let row = Row::of(group, self.lanes());
        let (none, zero) = (b.float(row.ty, f64::NEG_INFINITY), b.zero(row.ty));
        for v in 0..row.vectors {
            b.store(at.most.at(row.of_vector(v)), none);
            b.store(at.total.at(row.of_vector(v)), zero);
        }
        if self.is_one_block() {
            let first = b.i64(0);
            self.keys(b, group, &at, first, self.sizes.keys);
        } else {
            b.for_(0, self.sizes.values, 1, |b, e| {
                for v in 0..row.vectors {
                    b.store(at.sums.at(row.of_vector(v)).idx(e, row.bytes), zero);
                }
            });
            let whole = self.sizes.keys / self.block() * self.block();
            b.for_(0, whole, self.block() as i64, |b, first| self.keys(b, group, &at, first, self.block()));
            if whole < self.sizes.keys {
                let first = b.i64(whole as i64);
                self.keys(b, group, &at, first, self.sizes.keys - whole);
            }
        }
        self.store_results(b, group, &at);
    }

    fn is_one_block(&self) -> bool {
        self.block() >= self.sizes.keys
    }

    /// Queries, transposed and scaled. Lanes without a query hold zeros, for what lies in memory might be slow to compute with.
    fn load_queries(&self, b: &mut Builder, group: Group, at: &Places) {
        let row = Row::of(group, self.lanes());
        row.clear_edge(b, group, at.queries, self.sizes.width);
        let queries = Axis { len: group.queries, src: bytes(self.q.strides[2]), dst: bytes(1) };
        let features = Axis { len: self.sizes.width, src: bytes(1), dst: row.bytes as i64 };
        transposed::emit(b, self.target, queries, features, Elem::I32, at.q, at.queries);
        if self.scale == 1.0 {
            return;
        }
        let scale = b.float(row.ty, self.scale);
        b.for_(0, self.sizes.width, 1, |b, d| {
            for v in 0..row.vectors {
                let place = at.queries.at(row.of_vector(v)).idx(d, row.bytes);
                let x = b.load(row.ty, place);
                let x = b.mul(x, scale);
                b.store(place, x);
            }
        });
    }

    /// `count` keys from `first` on.
    fn keys(&self, b: &mut Builder, group: Group, at: &Places, first: Value, count: usize) {
        let row = Row::of(group, self.lanes());
        for v in 0..row.vectors {
            let m = b.load(row.ty, at.most.at(row.of_vector(v)));
            b.store(at.before.at(row.of_vector(v)), m);
        }
        self.scores(b, group, at, first, count);
        // -inf - -inf is NaN: subtract 0 where there is nothing else yet.
        let (none, zero) = (b.float(row.ty, f64::NEG_INFINITY), b.zero(row.ty));
        let most = |b: &mut Builder, v: usize| {
            let m = b.load(row.ty, at.most.at(row.of_vector(v)));
            let is_none = b.fcmp(FloatCc::Eq, m, none);
            b.select(is_none, zero, m)
        };
        let mosts: Vec<Value> = (0..row.vectors).map(|v| most(b, v)).collect();
        let totals = b.loop_(0, count, 1, &vec![zero; row.vectors], |b, key, totals| {
            let mut next = Vec::with_capacity(totals.len());
            for (v, (&total, &most)) in totals.iter().zip(&mosts).enumerate() {
                let place = at.scores.at(row.of_vector(v)).idx(key, row.bytes);
                let s = b.load(row.ty, place);
                let d = b.sub(s, most);
                let e = math::exp_decay(b, d);
                b.store(place, e);
                next.push(b.add(total, e));
            }
            next
        });
        let mut factors = Vec::with_capacity(row.vectors);
        for (v, (total, most)) in totals.into_iter().zip(mosts).enumerate() {
            let place = at.total.at(row.of_vector(v));
            if self.is_one_block() {
                b.store(place, total);
                continue;
            }
            let before = b.load(row.ty, at.before.at(row.of_vector(v)));
            let d = b.sub(before, most);
            let factor = math::exp_decay(b, d);
            let old = b.load(row.ty, place);
            let sum = b.mul_add(old, factor, total);
            b.store(place, sum);
            factors.push(factor);
        }
        self.sum_values(b, group, at, first, count, &factors);
    }

    /// Scores of a block, and the largest of each query.
    fn scores(&self, b: &mut Builder, group: Group, at: &Places, first: Value, count: usize) {
        let row = Row::of(group, self.lanes());
        let [.., of_query, of_key] = self.mask.unwrap_or_default();
        let mask = at.mask.map(|mask| plus(b, mask, first, of_key * F32_BYTES));
        // A mask that differs from query to query is transposed to where the scores will lie.
        if let Some(mask) = mask.filter(|_| of_query != 0) {
            row.clear_edge(b, group, at.scores, count);
            let queries = Axis { len: group.queries, src: bytes(of_query), dst: bytes(1) };
            let keys = Axis { len: count, src: bytes(of_key), dst: row.bytes as i64 };
            transposed::emit(b, self.target, queries, keys, Elem::I32, mask, at.scores);
        }
        let [.., of_row, of_column] = self.k.strides;
        let keys = plus(b, at.k, first, of_row * F32_BYTES);
        self.tiles(b, group, count, |b, start, width| {
            let first = plus(b, keys, start, of_row * F32_BYTES);
            let elements = Elements { first, along: of_row * F32_BYTES, step: of_column * F32_BYTES };
            let mut sums = self.products(b, row, at.queries, &elements, width, self.sizes.width);
            let scores = b.ptr(at.scores.at(0).idx(start, row.bytes));
            let place = |v: usize, i: usize| scores.at(row.of_vector(v) + (i * row.bytes) as i64);
            if let Some(mask) = mask {
                let mask = plus(b, mask, start, of_key * F32_BYTES);
                for (n, sum) in sums.iter_mut().enumerate() {
                    let (v, i) = (n / width, n % width);
                    let bias = match of_query {
                        0 => b.load_splat(row.ty, mask.at(bytes(i * of_key))),
                        _ => b.load(row.ty, place(v, i)),
                    };
                    *sum = b.add(*sum, bias);
                }
            }
            for v in 0..row.vectors {
                let mut most = b.load(row.ty, at.most.at(row.of_vector(v)));
                for i in 0..width {
                    let s = sums[v * width + i];
                    b.store(place(v, i), s);
                    // A NaN is passed over here: its exponential will be NaN.
                    most = b.pmax(s, most);
                }
                b.store(at.most.at(row.of_vector(v)), most);
            }
        });
    }

    /// Adds the values of a block, weighted by exponentials, to what is there times the factors.
    fn sum_values(&self, b: &mut Builder, group: Group, at: &Places, first: Value, count: usize, factors: &[Value]) {
        let row = Row::of(group, self.lanes());
        let [.., of_row, of_column] = self.v.strides;
        let values = plus(b, at.v, first, of_row * F32_BYTES);
        self.tiles(b, group, self.sizes.values, |b, start, width| {
            let first = plus(b, values, start, of_column * F32_BYTES);
            let elements = Elements { first, along: of_column * F32_BYTES, step: of_row * F32_BYTES };
            let sums = self.products(b, row, at.scores, &elements, width, count);
            let results = b.ptr(at.sums.at(0).idx(start, row.bytes));
            for (n, &sum) in sums.iter().enumerate() {
                let (v, i) = (n / width, n % width);
                let place = results.at(row.of_vector(v) + (i * row.bytes) as i64);
                let sum = match factors.get(v) {
                    Some(&factor) => {
                        let old = b.load(row.ty, place);
                        b.mul_add(old, factor, sum)
                    }
                    None => sum,
                };
                b.store(place, sum);
            }
        });
    }

    /// `count` elements cut into tiles that fit the registers with the vectors of a group.
    fn tiles(&self, b: &mut Builder, group: Group, count: usize, body: impl Fn(&mut Builder, Value, usize)) {
        let widest = tile::pixels(self.target, Splat::Load, group.panels, count);
        let mut start = 0;
        let widths: Vec<usize> = balanced(count, widest).collect();
        for run in widths.chunk_by(|a, b| a == b) {
            let (width, end) = (run[0], start + run.len() * run[0]);
            b.for_(start, end, width as i64, |b, at| body(b, at, width));
            start = end;
        }
    }

    /// `sums[v][i] = sum over steps of w[step][v] * x[step][i]`, vectors w behind one another.
    fn products(&self, b: &mut Builder, row: Row, w: Value, x: &Elements, width: usize, steps: usize) -> Vec<Value> {
        let cost = row.vectors + width + row.vectors * width;
        let unroll = UNROLL.div_ceil(cost).min(steps);
        let whole = steps / unroll * unroll;
        let zero = b.zero(row.ty);
        let sums = row.vectors * width;
        let mut carried = vec![zero; sums];
        carried.extend([w, x.first]);
        let stretch = |b: &mut Builder, carried: &[Value], count: usize| -> Vec<Value> {
            let (mut sums, w, x0) = (carried[..sums].to_vec(), carried[sums], carried[sums + 1]);
            for step in 0..count {
                let weight =
                    |b: &mut Builder, v: usize| b.load(row.ty, w.at(row.of_vector(v) + (step * row.bytes) as i64));
                let element =
                    |b: &mut Builder, i: usize| b.load_splat(row.ty, x0.at((step * x.step + i * x.along) as i64));
                // The smaller side is held, the other streamed.
                if width <= row.vectors {
                    let held: Vec<Value> = (0..width).map(|i| element(b, i)).collect();
                    for v in 0..row.vectors {
                        let w = weight(b, v);
                        for (i, &x) in held.iter().enumerate() {
                            let sum = &mut sums[v * width + i];
                            *sum = b.mul_add(w, x, *sum);
                        }
                    }
                } else {
                    let held: Vec<Value> = (0..row.vectors).map(|v| weight(b, v)).collect();
                    for i in 0..width {
                        let x = element(b, i);
                        for (v, &w) in held.iter().enumerate() {
                            let sum = &mut sums[v * width + i];
                            *sum = b.mul_add(w, x, *sum);
                        }
                    }
                }
            }
            sums.push(b.ptr(w.at((count * row.bytes) as i64)));
            sums.push(b.ptr(x0.at((count * x.step) as i64)));
            sums
        };
        let carried = b.loop_(0, whole, unroll as i64, &carried, |b, _, carried| stretch(b, carried, unroll));
        let mut carried = if whole < steps { stretch(b, &carried, steps - whole) } else { carried };
        carried.truncate(sums);
        carried
    }

    /// Results divided by the sums of exponentials, and transposed.
    fn store_results(&self, b: &mut Builder, group: Group, at: &Places) {
        let row = Row::of(group, self.lanes());
        let one = b.float(row.ty, 1.0);
        let factor = |b: &mut Builder, v: usize| {
            let total = b.load(row.ty, at.total.at(row.of_vector(v)));
            b.div(one, total)
        };
        let factors: Vec<Value> = (0..row.vectors).map(|v| factor(b, v)).collect();
        b.for_(0, self.sizes.values, 1, |b, e| {
            for (v, &factor) in factors.iter().enumerate() {
                let place = at.sums.at(row.of_vector(v)).idx(e, row.bytes);
                let x = b.load(row.ty, place);
                let x = b.mul(x, factor);
                b.store(place, x);
            }
        });
        let features = Axis { len: self.sizes.values, src: row.bytes as i64, dst: bytes(1) };
        let queries = Axis { len: group.queries, src: bytes(1), dst: bytes(self.y[2]) };
        transposed::emit(b, self.target, features, queries, Elem::I32, at.sums, at.y);
    }
}

/// The lanes of a group of queries: rows of scratch memory.
#[derive(Clone, Copy)]
struct Row {
    ty: Type,
    vectors: usize,
    /// Bytes of all vectors.
    bytes: usize,
}

impl Row {
    fn of(group: Group, lanes: usize) -> Row {
        let vectors = group.panels * BLOCK / lanes;
        Row { ty: Type::of(Elem::F32, lanes), vectors, bytes: group.panels * BLOCK * F32_BYTES }
    }

    fn of_vector(&self, v: usize) -> i64 {
        (v * self.ty.lanes() * F32_BYTES) as i64
    }

    /// Zeros in the vectors of `rows` rows that have lanes without a query.
    fn clear_edge(&self, b: &mut Builder, group: Group, first: Value, rows: usize) {
        let whole = group.queries / self.ty.lanes();
        if whole == self.vectors {
            return;
        }
        let zero = b.zero(self.ty);
        b.for_(0, rows, 1, |b, i| {
            for v in whole..self.vectors {
                b.store(first.at(self.of_vector(v)).idx(i, self.bytes), zero);
            }
        });
    }
}

/// `p` moved by `i` steps of so many bytes.
fn plus(b: &mut Builder, p: Value, i: Value, bytes: usize) -> Value {
    if bytes == 0 { p } else { b.ptr(p.at(0).idx(i, bytes)) }
}

/// Bytes of so many elements.
fn bytes(elems: usize) -> i64 {
    (elems * F32_BYTES) as i64
}
