//! Resampling along one axis: every output is a weighted sum of a few inputs, which ones and how much standing in tables.
//!
//! ```text
//! y[o, i, j] = sum over t of  weights[i, t] * x[o, inputs[i, t], j]        o: outer, i: the axis, j: inner (contiguous)
//! ```
//!
//! With an inner axis whole rows are combined as vectors and the tables are read once a row. Without one, outputs are
//! gathered element by element and combined as vectors along the axis; tables then stand tap by tap, so that weights are
//! contiguous. Without weights (one tap each) elements are moved, whatever their type. With `outside`, a third table says
//! which outputs are a constant instead.
//!
//! Operands: x, y, inputs (i64, in bytes), then weights (of the element type) and flags (integers of its width) if there are.

use crate::kernels::map::{CHUNK, moved};
use crate::kir::{ArgDecl, Builder, Elem, I64, Kernel, Type, Value};
use crate::target::Target;

/// What is resampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Resample {
    /// The element type in memory; a float if there are weights.
    pub elem: Elem,
    /// Outer loops: turns, and elements that x and y move by.
    pub outer: [(usize, usize, usize); 2],
    /// Outputs along the axis.
    pub n: usize,
    /// Inputs of each.
    pub taps: usize,
    /// Elements behind one index of the axis, contiguous in x and in y.
    pub inner: usize,
    /// Whether there are weights; one tap otherwise.
    pub weighted: bool,
    /// The bits of what outputs outside are, if some may be.
    pub outside: Option<u64>,
}

impl Resample {
    /// Whether tables stand tap by tap instead of output by output.
    pub fn by_tap(&self) -> bool {
        self.inner == 1
    }
}

/// The kernel and its number of tasks.
pub fn resample(target: &Target, r: &Resample) -> (Kernel, usize) {
    let align = r.elem.bytes() as u32;
    let mut args = vec![ArgDecl::read("x", align), ArgDecl::write("y", align), ArgDecl::read("inputs", 8)];
    if r.weighted {
        args.push(ArgDecl::read("weights", align));
    }
    if r.outside.is_some() {
        args.push(ArgDecl::read("flags", align));
    }
    let what = if r.weighted { "interpolate" } else { "gather" };
    let mut b = Builder::new(format!("{}_resample_{what}", r.elem), args);
    let lanes = target.lanes(r.elem).min(if r.by_tap() { r.n } else { r.inner }.next_power_of_two());
    let k = Resampling { r, lanes };
    let tasks = if r.by_tap() { k.gathered(&mut b) } else { k.rows(&mut b) };
    (b.finish(), tasks)
}

struct Resampling<'a> {
    r: &'a Resample,
    lanes: usize,
}

impl Resampling<'_> {
    fn ty(&self) -> Type {
        Type::of(self.r.elem, self.lanes)
    }

    /// `[x, y]` at an outer index.
    fn at_outer(&self, b: &mut Builder, index: Value) -> [Value; 2] {
        let [(_, x0, y0), (turns, x1, y1)] = self.r.outer;
        let turns = b.i64(turns as i64);
        let (first, second) = match self.r.outer[0].0 {
            1 => (b.i64(0), index),
            _ => (b.div_u(index, turns), b.rem_u(index, turns)),
        };
        let bytes = self.r.elem.bytes();
        [(0, x0, x1), (1, y0, y1)].map(|(arg, s0, s1)| {
            let p = moved(b, b.arg(arg), first, s0 * bytes);
            moved(b, p, second, s1 * bytes)
        })
    }

    /// The operand of the flags.
    fn flags(&self, b: &Builder) -> Value {
        b.arg(if self.r.weighted { 4 } else { 3 })
    }

    fn outside(&self, b: &mut Builder) -> Value {
        b.const_bits(self.ty(), &vec![self.r.outside.unwrap_or(0); self.lanes])
    }

    /// Loops over `rows` in tasks of about [`CHUNK`] elements.
    fn tasks(&self, b: &mut Builder, rows: usize, work: usize, body: impl FnOnce(&mut Builder, Value)) -> usize {
        let group = (CHUNK / work.max(1)).clamp(1, rows);
        b.tasks(|b, task| {
            let first = b.mul_imm(task, group as i64);
            let (past, end) = (b.add_imm(first, group as i64), b.i64(rows as i64));
            let past = b.min_s(past, end);
            b.for_(first, past, 1, body);
        });
        rows.div_ceil(group)
    }

    /// Whole rows of inner elements.
    fn rows(&self, b: &mut Builder) -> usize {
        let r = self.r;
        let outer = r.outer[0].0 * r.outer[1].0;
        self.tasks(b, outer * r.n, r.inner * r.taps, |b, row| {
            let n = b.i64(r.n as i64);
            let (o, i) = if outer == 1 { (b.i64(0), row) } else { (b.div_u(row, n), b.rem_u(row, n)) };
            let [x, y] = self.at_outer(b, o);
            let y = moved(b, y, i, r.inner * r.elem.bytes());
            if r.outside.is_none() {
                return self.row(b, i, x, y);
            }
            let flag = self.flags(b);
            let flag = b.load(Type::Scalar(r.elem.as_int()), flag.at(0).idx(i, r.elem.bytes()));
            let flag = b.int_to_mask(flag);
            let fill = |b: &mut Builder| {
                let v = self.outside(b);
                self.columns(b, 1, |b, at, from, count| {
                    let to = moved(b, y, at, r.elem.bytes());
                    b.store_part(to.at((from * r.elem.bytes()) as i64), v, count);
                });
                Vec::new()
            };
            b.if_(flag, fill, |b| {
                self.row(b, i, x, y);
                Vec::new()
            });
        })
    }

    /// Output row `i`.
    fn row(&self, b: &mut Builder, i: Value, x: Value, y: Value) {
        let (r, bytes) = (self.r, self.r.elem.bytes());
        let first = b.mul_imm(i, r.taps as i64);
        let tap = |b: &mut Builder, t: Value| {
            let at = b.add(first, t);
            let (inputs, ty) = (b.arg(2), self.ty());
            let offset = b.load(I64, inputs.at(0).idx(at, 8));
            let p = b.ptr_add(x, offset, 1);
            let weights = r.weighted.then(|| b.arg(3));
            (p, weights.map(|w| b.load_splat(ty, w.at(0).idx(at, bytes))))
        };
        const UNROLLED: usize = 4;
        let taps: Vec<_> = (0..if r.taps <= UNROLLED { r.taps } else { 0 })
            .map(|t| {
                let t = b.i64(t as i64);
                tap(b, t)
            })
            .collect();
        self.columns(b, 2, |b, at, from, count| {
            let disp = (from * bytes) as i64;
            let load = |b: &mut Builder, p: Value| {
                let p = moved(b, p, at, bytes);
                b.load_part(self.ty(), p.at(disp), count)
            };
            let sum = |b: &mut Builder, acc: Value, (p, weight): (Value, Option<Value>)| {
                let v = load(b, p);
                weight.map_or(v, |w| b.mul_add(w, v, acc))
            };
            let zero = b.zero(self.ty());
            let v = match &taps[..] {
                [] => b.loop_(0, r.taps, 1, &[zero], |b, t, acc| {
                    let tap = tap(b, t);
                    vec![sum(b, acc[0], tap)]
                })[0],
                [(p, Some(w)), rest @ ..] => {
                    let v = load(b, *p);
                    let first = b.mul(*w, v);
                    rest.iter().fold(first, |acc, &tap| sum(b, acc, tap))
                }
                [only, ..] => sum(b, zero, *only),
            };
            let to = moved(b, y, at, bytes);
            b.store_part(to.at(disp), v, count);
        });
    }

    /// `body(at, from, count)` for every vector of a row of inner elements, which begins at `at + from`.
    fn columns(&self, b: &mut Builder, unroll: usize, body: impl Fn(&mut Builder, Value, usize, usize)) {
        let (inner, turn) = (self.r.inner, self.lanes * unroll);
        let whole = inner / turn * turn;
        b.for_(0, whole, turn as i64, |b, at| {
            for u in 0..unroll {
                body(b, at, u * self.lanes, self.lanes);
            }
        });
        let start = b.i64(whole as i64);
        for from in (0..inner - whole).step_by(self.lanes) {
            body(b, start, from, self.lanes.min(inner - whole - from));
        }
    }

    /// Outputs along the last axis.
    fn gathered(&self, b: &mut Builder) -> usize {
        let r = self.r;
        let outer = r.outer[0].0 * r.outer[1].0;
        let whole = r.n / self.lanes * self.lanes;
        self.tasks(b, outer, r.n * r.taps, |b, o| {
            let [x, y] = self.at_outer(b, o);
            b.for_(0, whole, self.lanes as i64, |b, i| self.gather(b, x, y, i, self.lanes));
            if whole < r.n {
                let i = b.i64(whole as i64);
                self.gather(b, x, y, i, r.n - whole);
            }
        })
    }

    /// Outputs `i ..`, `count` of them.
    fn gather(&self, b: &mut Builder, x: Value, y: Value, i: Value, count: usize) {
        let (r, bytes) = (self.r, self.r.elem.bytes());
        let tap = |b: &mut Builder, t: Value, acc: Value| {
            let inputs = moved(b, b.arg(2), t, r.n * 8);
            let mut v = b.zero(self.ty());
            for lane in 0..count {
                let offset = b.load(I64, inputs.at(8 * lane as i64).idx(i, 8));
                let e = b.load(Type::Scalar(r.elem), x.at(0).idx(offset, 1));
                v = b.insert(v, lane, e);
            }
            if !r.weighted {
                return v;
            }
            let weights = moved(b, b.arg(3), t, r.n * bytes);
            let w = b.load_part(self.ty(), weights.at(0).idx(i, bytes), count);
            b.mul_add(w, v, acc)
        };
        let zero = b.zero(self.ty());
        let mut v = b.loop_(0, r.taps, 1, &[zero], |b, t, acc| vec![tap(b, t, acc[0])])[0];
        if r.outside.is_some() {
            let (flags, fill) = (self.flags(b), self.outside(b));
            let flag = b.load_part(Type::of(r.elem.as_int(), self.lanes), flags.at(0).idx(i, bytes), count);
            let flag = b.int_to_mask(flag);
            v = b.select(flag, fill, v);
        }
        b.store_part(y.at(0).idx(i, bytes), v, count);
    }
}
