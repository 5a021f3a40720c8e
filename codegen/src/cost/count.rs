//! How often a kernel's instructions run in one call, and the cycles that they take with every operand in the first cache.
//!
//! A kernel is structured: loops are counted and what their bounds and conditions depend on are integers that are known while
//! compiling (the number of tasks, constants, channel counts that stand in a constant operand). So nothing is executed: each
//! straight piece of code gets its cycles once, from [`ports`], and the walk multiplies.
//!
//! ```text
//! straight piece       cycles of the resource that it occupies longest
//! innermost loop       trips * the larger of that and of the chain of what it carries round
//! other loops          the sum over their trips; where a bound or condition inside depends on the index, over samples:
//!                      first, last and some between that stand for the rest
//! latency              of the longest chain of each piece; in an innermost loop once
//! ```
//!
//! A condition that is not known (it depends on data) counts as half of both sides, an unknown number of trips as
//! `UNKNOWN_TRIPS`. Left out: overlap of a piece with the next, which the constants of [`super`] take into account.

use super::ports::{self, Uses};
use crate::kir::interp::lane;
use crate::kir::{Addr, Block, Elem, If, Inst, Kernel, Loop, Op, Value};
use crate::target::Target;
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

/// Trips of a loop whose bounds depend on data.
const UNKNOWN_TRIPS: f64 = 8.0;

/// Samples between the first and the last trip of the loop over tasks, and of one inside.
const SAMPLES: [i64; 2] = [5, 1];

/// What one call of a kernel takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Cycles of the busiest resources.
    pub busy: f64,
    /// Cycles of the longest chain of dependent instructions in each straight piece; in an innermost loop once.
    pub latency: f64,
    /// Innermost loops that were entered.
    pub loops: f64,
    /// Bytes stored to each operand, scratch behind them.
    pub stored: SmallVec<[f64; 8]>,
}

impl Counts {
    fn none(kernel: &Kernel) -> Counts {
        Counts { stored: smallvec![0.0; kernel.args.len() + 1], ..Counts::default() }
    }

    fn add(&mut self, other: &Counts, times: f64) {
        self.busy += other.busy * times;
        self.latency += other.latency * times;
        self.loops += other.loops * times;
        for (a, b) in self.stored.iter_mut().zip(&other.stored) {
            *a += b * times;
        }
    }
}

/// Counts the tasks `0..tasks`. `constants` gives the bytes of an operand that is a constant the compiler has at hand.
pub fn count<'c>(
    kernel: &Kernel,
    target: &Target,
    tasks: u64,
    constants: &'c dyn Fn(usize) -> Option<&'c [u8]>,
) -> Counts {
    let shape = Shape::of(kernel);
    let root = Piece::new(kernel, target, &shape, &kernel.body, &[]);
    let mut values = vec![None; kernel.types.len()];
    for (i, v) in values.iter_mut().enumerate().take(kernel.args.len() + 1) {
        *v = Some(Known::Ptr(i, 0));
    }
    values[kernel.begin().index()] = Some(Known::Int(0));
    values[kernel.end().index()] = Some(Known::Int(tasks));
    let mut walk = Walk { kernel, constants, values, depth: 0 };
    let mut counts = Counts::none(kernel);
    walk.piece(&root, &mut counts, 1.0);
    counts
}

/// What is known of a kernel's values without running it.
struct Shape<'k> {
    /// Does the flow of control depend on it?
    needed: Vec<bool>,
    /// How often it is read.
    users: Vec<u32>,
    /// Of pointers: the operand that they point into.
    root: Vec<usize>,
    definition: Vec<Option<&'k Inst>>,
}

impl<'k> Shape<'k> {
    fn of(kernel: &'k Kernel) -> Shape<'k> {
        let n = kernel.types.len();
        let root = (0..n).map(|v| v.min(kernel.args.len())).collect();
        let mut shape = Shape { needed: vec![false; n], users: vec![0; n], root, definition: vec![None; n] };
        // A carried value is what it begins with and what goes round.
        let mut rounds: FxHashMap<Value, Vec<Value>> = FxHashMap::default();
        let mut wanted: Vec<Value> = Vec::new();
        shape.visit(&kernel.body, &mut rounds, &mut wanted);
        while let Some(v) = wanted.pop() {
            if std::mem::replace(&mut shape.needed[v.index()], true) {
                continue;
            }
            wanted.extend(rounds.get(&v).into_iter().flatten());
            if let Some(inst) = shape.definition[v.index()].filter(|i| !matches!(i.op, Op::Loop(_) | Op::If(_))) {
                inst.op.for_each_operand(|v| wanted.push(v));
            }
        }
        shape
    }

    fn visit(&mut self, block: &'k Block, rounds: &mut FxHashMap<Value, Vec<Value>>, wanted: &mut Vec<Value>) {
        for inst in &block.insts {
            inst.op.for_each_operand(|v| self.users[v.index()] += 1);
            inst.results.iter().for_each(|r| self.definition[r.index()] = Some(inst));
            match &inst.op {
                Op::PtrAdd(addr) => self.root[inst.result().index()] = self.root[addr.base.index()],
                Op::Select { a, .. } => self.root[inst.result().index()] = self.root[a.index()],
                Op::Loop(l) => {
                    wanted.extend([l.lo, l.hi]);
                    for (i, c) in l.carried.iter().enumerate() {
                        self.root[c.param.index()] = self.root[c.init.index()];
                        self.root[inst.results[i].index()] = self.root[c.init.index()];
                        rounds.entry(c.param).or_default().extend([c.init, l.body.yields[i]]);
                        rounds.entry(inst.results[i]).or_default().push(c.param);
                    }
                    self.visit(&l.body, rounds, wanted);
                }
                Op::If(f) => {
                    wanted.push(f.cond);
                    self.visit(&f.then, rounds, wanted);
                    self.visit(&f.otherwise, rounds, wanted);
                    for (i, r) in inst.results.iter().enumerate() {
                        self.root[r.index()] = self.root[f.then.yields[i].index()];
                        rounds.entry(*r).or_default().extend([f.cond, f.then.yields[i], f.otherwise.yields[i]]);
                    }
                }
                _ => {}
            }
        }
        block.yields.iter().for_each(|v| self.users[v.index()] += 1);
    }
}

/// A block: its own instructions summed up, and those that steer.
struct Piece<'k> {
    block: &'k Block,
    /// Cycles of the instructions outside of inner blocks.
    busy: f64,
    /// The longest chain through them.
    latency: f64,
    /// Of a loop's body: the longest chain from a carried value to what goes round.
    recurrence: f64,
    /// Bytes stored, by operand.
    stored: Vec<(usize, f64)>,
    /// Is there no loop inside?
    innermost: bool,
    items: Vec<Item<'k>>,
}

enum Item<'k> {
    Value(&'k Inst),
    Loop { inst: &'k Inst, l: &'k Loop, body: Piece<'k>, varies: bool },
    If { inst: &'k Inst, f: &'k If, then: Piece<'k>, otherwise: Piece<'k> },
}

impl<'k> Piece<'k> {
    /// A block; `carried` are the values that a loop hands to it.
    fn new(kernel: &'k Kernel, target: &Target, shape: &Shape<'k>, block: &'k Block, carried: &[Value]) -> Piece<'k> {
        let mut uses = Uses::default();
        let mut stored: Vec<(usize, f64)> = Vec::new();
        let mut items = Vec::new();
        // When each value of this block is there; and how long the chain from a carried value to it is, if there is one.
        let mut ready: FxHashMap<Value, f64> = FxHashMap::default();
        let mut chains: FxHashMap<Value, f64> = carried.iter().map(|&v| (v, 0.0)).collect();
        let mut latency = 0.0f64;
        for inst in &block.insts {
            let folds = inst.results.iter().all(|r| shape.users[r.index()] == 1);
            let (one, cycles) = ports::of(target, &inst.op, |v| kernel.ty(v), folds);
            uses.add(one);
            let (mut start, mut chain) = (0.0f64, None::<f64>);
            inst.op.for_each_operand(|v| {
                start = start.max(ready.get(&v).copied().unwrap_or(0.0));
                chain = chain.into_iter().chain(chains.get(&v).copied()).reduce(f64::max);
            });
            latency = latency.max(start + cycles);
            for &r in &inst.results {
                ready.insert(r, start + cycles);
                if let Some(chain) = chain {
                    chains.insert(r, chain + cycles);
                }
            }
            let into = |addr: &Addr| shape.root[addr.base.index()];
            match &inst.op {
                Op::Loop(l) => {
                    let carried: Vec<Value> = l.carried.iter().map(|c| c.param).collect();
                    let varies = [l.iv].iter().chain(&carried).any(|v| shape.needed[v.index()]);
                    let body = Piece::new(kernel, target, shape, &l.body, &carried);
                    items.push(Item::Loop { inst, l, body, varies });
                }
                Op::If(f) => {
                    let [then, otherwise] =
                        [&f.then, &f.otherwise].map(|block| Piece::new(kernel, target, shape, block, &[]));
                    items.push(Item::If { inst, f, then, otherwise });
                }
                Op::Store { addr, value } => {
                    stored.push((into(addr), kernel.ty(*value).bytes().unwrap_or(0) as f64));
                }
                Op::StorePart { addr, value, count } => {
                    let bytes = kernel.ty(*value).elem().map_or(0, Elem::bytes) * usize::from(*count);
                    stored.push((into(addr), bytes as f64));
                }
                _ if inst.results.iter().any(|r| shape.needed[r.index()]) => items.push(Item::Value(inst)),
                _ => {}
            }
        }
        stored.sort_by_key(|s| s.0);
        stored.dedup_by(|b, a| {
            let same = a.0 == b.0;
            a.1 += if same { b.1 } else { 0.0 };
            same
        });
        let innermost = items.iter().all(|item| match item {
            Item::Value(_) => true,
            Item::Loop { .. } => false,
            Item::If { then, otherwise, .. } => then.innermost && otherwise.innermost,
        });
        let recurrence = block.yields.iter().filter_map(|v| chains.get(v)).fold(0.0, |a, &b| f64::max(a, b));
        Piece { block, busy: uses.cycles(target), latency, recurrence, stored, innermost, items }
    }
}

/// An integer (its bits, as the interpreter has them) or a place in an operand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    Int(u64),
    Ptr(usize, i64),
}

impl Known {
    /// After `times` steps like that from `self` to `next`.
    fn extrapolate(self, next: Known, times: i64) -> Option<Known> {
        match (self, next) {
            (Known::Int(a), Known::Int(b)) => {
                let step = (b as i64).wrapping_sub(a as i64);
                Some(Known::Int((a as i64).wrapping_add(step.wrapping_mul(times)) as u64))
            }
            (Known::Ptr(p, a), Known::Ptr(q, b)) if p == q => {
                Some(Known::Ptr(p, a.wrapping_add(b.wrapping_sub(a).wrapping_mul(times))))
            }
            _ => None,
        }
    }
}

struct Walk<'w, 'k> {
    kernel: &'k Kernel,
    constants: &'w dyn Fn(usize) -> Option<&'w [u8]>,
    values: Vec<Option<Known>>,
    /// Loops around.
    depth: usize,
}

impl<'k> Walk<'_, 'k> {
    fn piece(&mut self, piece: &Piece<'k>, out: &mut Counts, times: f64) {
        out.busy += piece.busy * times;
        out.latency += piece.latency * times;
        for &(operand, bytes) in &piece.stored {
            out.stored[operand] += bytes * times;
        }
        for item in &piece.items {
            match item {
                Item::Value(inst) => self.values[inst.result().index()] = self.value(&inst.op),
                Item::Loop { inst, l, body, varies } => self.repeat(inst, l, body, *varies, out, times),
                Item::If { inst, f, then, otherwise } => {
                    let sides: &[(&Piece<'k>, f64)] = match self.int(f.cond) {
                        Some(0) => &[(otherwise, 1.0)],
                        Some(_) => &[(then, 1.0)],
                        None => &[(then, 0.5), (otherwise, 0.5)],
                    };
                    let mut results: Option<Vec<Option<Known>>> = None;
                    for (side, share) in sides {
                        self.piece(side, out, times * share);
                        let yields = side.block.yields.iter().map(|v| self.values[v.index()]);
                        results = Some(match results {
                            None => yields.collect(),
                            Some(old) => old.into_iter().zip(yields).map(|(a, b)| a.filter(|_| a == b)).collect(),
                        });
                    }
                    for (r, v) in inst.results.iter().zip(results.unwrap_or_default()) {
                        self.values[r.index()] = v;
                    }
                }
            }
        }
    }

    fn repeat(&mut self, inst: &Inst, l: &Loop, body: &Piece<'k>, varies: bool, out: &mut Counts, times: f64) {
        let lo = self.int(l.lo).map(|v| v as i64);
        let trips = lo.zip(self.int(l.hi)).map(|(lo, hi)| {
            let length = (hi as i64).saturating_sub(lo).max(0);
            length / l.step + i64::from(length % l.step != 0)
        });
        let first: Vec<Option<Known>> = l.carried.iter().map(|c| self.values[c.init.index()]).collect();
        let mut second: Option<Vec<Option<Known>>> = None;
        let after = |second: &Option<Vec<Option<Known>>>, i: usize, k: i64| match (first[i], second) {
            (known, _) if k == 0 => known,
            (Some(a), Some(second)) => second[i].and_then(|b| a.extrapolate(b, k)),
            _ => None,
        };
        let samples = match trips {
            None => vec![(0, UNKNOWN_TRIPS)],
            Some(n) if !varies && n > 0 => vec![(0, n as f64)],
            Some(n) => samples(n, SAMPLES[self.depth.min(SAMPLES.len() - 1)]),
        };
        self.depth += 1;
        let mut latency = 0.0f64;
        for (k, weight) in samples {
            let index = lo.map(|lo| Known::Int(lo.wrapping_add(k.wrapping_mul(l.step)) as u64));
            self.values[l.iv.index()] = index.filter(|_| trips.is_some());
            for (i, c) in l.carried.iter().enumerate() {
                self.values[c.param.index()] = after(&second, i, k);
            }
            let mut one = Counts::none(self.kernel);
            self.piece(body, &mut one, 1.0);
            second.get_or_insert_with(|| l.body.yields.iter().map(|v| self.values[v.index()]).collect());
            if body.innermost {
                one.busy = one.busy.max(body.recurrence);
                latency = latency.max(std::mem::take(&mut one.latency));
            }
            out.add(&one, weight * times);
        }
        self.depth -= 1;
        if body.innermost && trips != Some(0) {
            out.latency += latency * times;
            out.loops += times;
        }
        for (i, r) in inst.results.iter().enumerate() {
            self.values[r.index()] = trips.and_then(|n| after(&second, i, n));
        }
    }

    fn int(&self, v: Value) -> Option<u64> {
        match self.values[v.index()] {
            Some(Known::Int(bits)) => Some(bits),
            _ => None,
        }
    }

    fn address(&self, addr: &Addr) -> Option<(usize, i64)> {
        let Some(Known::Ptr(operand, at)) = self.values[addr.base.index()] else { return None };
        let index = match addr.index {
            Some((i, scale)) => (self.int(i)? as i64).wrapping_mul(scale),
            None => 0,
        };
        Some((operand, at.wrapping_add(index).wrapping_add(addr.disp)))
    }

    /// What an instruction computes, if that is an integer or an address and known.
    fn value(&self, op: &Op) -> Option<Known> {
        let elem = |v: Value| self.kernel.ty(v).elem();
        let integer = |v: Value| self.kernel.ty(v).lanes() == 1 && !self.kernel.ty(v).is_float();
        let bits = match op {
            Op::Const { bits, .. } => *bits,
            Op::PtrAdd(addr) => return self.address(addr).map(|(operand, at)| Known::Ptr(operand, at)),
            Op::Select { mask, a, b } => return self.values[if self.int(*mask)? != 0 { *a } else { *b }.index()],
            Op::Load { ty, addr } if ty.lanes() == 1 => {
                let (operand, at) = self.address(addr)?;
                let at = usize::try_from(at).ok()?;
                let bytes = (self.constants)(operand)?.get(at..at.checked_add(ty.bytes()?)?)?;
                let mut le = [0; 8];
                le[..bytes.len()].copy_from_slice(bytes);
                u64::from_le_bytes(le)
            }
            Op::Unary(op, v) if integer(*v) => lane::unary(*op, elem(*v), self.int(*v)?),
            Op::Binary(op, a, b) if integer(*a) => lane::binary(*op, elem(*a), self.int(*a)?, self.int(*b)?),
            Op::ICmp(cc, a, b) if integer(*a) => u64::from(lane::icmp(*cc, elem(*a)?, self.int(*a)?, self.int(*b)?)),
            Op::Convert { op, to, value } if integer(*value) && !to.is_float() => {
                lane::convert(*op, elem(*value)?, to.elem()?, self.int(*value)?)
            }
            _ => return None,
        };
        Some(Known::Int(bits))
    }
}

/// Which trips of `n` are looked at and how many each stands for: all of a few; else the first, `between` others, the last.
fn samples(n: i64, between: i64) -> Vec<(i64, f64)> {
    if n <= between + 3 {
        return (0..n).map(|k| (k, 1.0)).collect();
    }
    let inner = n - 2;
    let middle = (0..between).map(|j| (1 + (inner * (2 * j + 1)) / (2 * between), inner as f64 / between as f64));
    [(0, 1.0)].into_iter().chain(middle).chain([(n - 1, 1.0)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::conv::direct::Direct;
    use crate::kernels::conv::{Conv, Sink, Source, Weights};
    use crate::kernels::window::Axis;
    use crate::kir::{ArgDecl, Builder, F32, I64, IntCc};

    fn counted(kernel: &Kernel, target: &Target, tasks: u64, constant: &[u8]) -> Counts {
        let last = kernel.args.len() - 1;
        count(kernel, target, tasks, &|i| (i == last).then_some(constant))
    }

    /// Each task stores as many numbers as `trips` says.
    fn stores(trips: impl FnOnce(&mut Builder, Value) -> Value) -> Kernel {
        let mut b = Builder::new("stores", vec![ArgDecl::write("y", 4), ArgDecl::read("n", 8)]);
        b.tasks(|b, task| {
            let n = trips(b, task);
            let zero = b.i64(0);
            b.for_(zero, n, 1, |b, i| {
                let v = b.float(F32, 1.0);
                let y = b.arg(0);
                b.store(y.at(0).idx(i, 4), v);
            });
        });
        b.finish()
    }

    #[test]
    fn bounds_come_from_constants_and_tasks() {
        let target = Target::x86_64_v4();
        let of_constant = stores(|b, _| b.load(I64, b.arg(1).at(0)));
        assert_eq!(counted(&of_constant, &target, 7, &9i64.to_le_bytes()).stored[0], 7.0 * 9.0 * 4.0);
        // 0 + 1 + .. + 99, by seven samples
        let triangle = stores(|_, task| task);
        let stored = counted(&triangle, &target, 100, &[]).stored[0];
        assert!((stored / (4950.0 * 4.0) - 1.0).abs() < 0.03, "{stored}");
        // an operand that is too short for what is read of it is as good as unknown
        assert_eq!(counted(&of_constant, &target, 1, &[1, 2]).stored[0], UNKNOWN_TRIPS * 4.0);
    }

    #[test]
    fn a_condition_on_data_counts_as_half_of_both_sides() {
        let kernel = stores(|b, _| {
            let n = b.load(I64, b.arg(1).at(0));
            let (zero, long, short) = (b.i64(0), b.i64(30), b.i64(10));
            let some = b.icmp(IntCc::Ne, n, zero);
            b.if_(some, |_| vec![long], |_| vec![short])[0]
        });
        let target = Target::aarch64();
        assert_eq!(counted(&kernel, &target, 1, &1i64.to_le_bytes()).stored[0], 120.0);
        assert_eq!(counted(&kernel, &target, 1, &0i64.to_le_bytes()).stored[0], 40.0);
        // What a condition that is not known gives is not known either.
        assert_eq!(counted(&kernel, &target, 1, &[]).stored[0], UNKNOWN_TRIPS * 4.0);
    }

    #[test]
    fn samples_stand_for_all_trips() {
        for n in 0..40 {
            for between in SAMPLES {
                let samples = samples(n, between);
                assert!((samples.iter().map(|s| s.1).sum::<f64>() - n as f64).abs() < 1e-9);
                assert!(samples.iter().all(|s| (0..n).contains(&s.0)));
            }
        }
    }

    /// A 3x3 convolution of many channels runs at the rate of its multiply-adds, and stores its output once.
    #[test]
    fn a_convolution_is_bound_by_its_multiply_adds() {
        let axis = || Axis::sliding(28, 28, 3, 1, 1, 1);
        let conv = Conv {
            batch: 1,
            groups: 1,
            inputs: 128,
            outputs: 128,
            axes: [Axis::UNIT, axis(), axis()],
            source: Source::Blocked,
            weights: Weights::Panels,
            sink: Sink::Blocked,
            bias: false,
            epilogue: Default::default(),
        };
        for target in [Target::x86_64_v1(), Target::x86_64_v3(), Target::x86_64_v4(), Target::aarch64()] {
            let direct = Direct::new(&target, &conv, false);
            let (kernel, shape) = (direct.kernel(), direct.shape());
            let counts = counted(&kernel, &target, direct.tasks() as u64, &shape);
            let flops = 2.0 * conv.macs() as f64;
            let share = flops / super::super::flops_a_cycle(&target) / counts.busy;
            // Taps in the padding are no multiply-adds: 5 % of these.
            assert!((0.6..1.06).contains(&share), "{:?}: {share}", target.level);
            let output = counts.stored[kernel.args.len() - 2] / (128.0 * 28.0 * 28.0 * 4.0);
            assert!((0.99..20.0).contains(&output), "{:?}: stored {output} times", target.level);
        }
    }
}
