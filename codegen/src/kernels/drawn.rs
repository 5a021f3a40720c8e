//! Dropout and RReLU: the decisions of a counter-based generator, four elements to a block of random words.
//!
//! ```text
//! one round of Philox4x32, in lanes that are blocks      (h0, l0) = c0 * M0     (h1, l1) = c2 * M1
//! words w0 w1 w2 w3 of blocks 0, 1, ..  ──shuffles──>    w0[0] w1[0] w2[0] w3[0]  w0[1] w1[1] ..      one word an element
//! bits[i] = word[i] >> 8                                 what becomes of them: [`Use`]
//! ```
//!
//! The high halves of 32-bit products are put together from 16-bit ones: lanes then stay as wide as those of f32, and no
//! target needs an instruction for it. Where channels are dropped whole, each has one decision and a loop over its plane.
//!
//! The definition is `nncc_ir::philox`; every lane count gives the same bits.

use crate::kernels::isa_name;
use crate::kir::{ArgDecl, Builder, ConvertOp, Elem, FloatCc, IntCc, Kernel, Type, Value};
use crate::target::Target;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;
/// Elements of a task: a multiple of four times any lane count.
const CHUNK: usize = 4096;

/// What is done with the bits that are drawn for a decision.
#[derive(Clone, Copy, Debug)]
pub enum Use {
    /// `y = bits < threshold ? 0 : x * factor`.
    Drop {
        /// Dropped is whose bits are below.
        threshold: u32,
        /// What the others are multiplied by.
        factor: f64,
    },
    /// `y = x <= 0 ? v * slope : v` with `slope = lower + (upper - lower) / 2^24 * bits`, rounded after each operation.
    Slope {
        /// The least slope.
        lower: f64,
        /// The slope that all are below.
        upper: f64,
        /// Whether v is x; else it is an operand behind y.
        of_x: bool,
    },
}

/// An operator that draws, on row-major elements.
#[derive(Clone, Debug)]
pub struct Drawn<'a> {
    /// Compiled for.
    pub target: &'a Target,
    /// `F32` or `F64`.
    pub elem: Elem,
    /// Decisions.
    pub decisions: usize,
    /// Elements of a decision, neighbours.
    pub plane: usize,
    /// The second word of the counter.
    pub stream: u32,
    /// What is done with them.
    pub with: Use,
}

/// What is the same for all decisions, in every lane: the key, and the last three words of the counter.
struct Purpose {
    key: [Value; 2],
    rest: [Value; 3],
}

impl Drawn<'_> {
    /// Planes of a task, or elements where each is a decision of its own.
    fn group(&self) -> usize {
        if self.plane == 1 { CHUNK } else { (CHUNK / self.plane.max(1)).max(1) }
    }

    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        self.decisions.div_ceil(self.group())
    }

    /// The kernel. Operands: x, seed and step, y, and v if it is not x.
    pub fn kernel(&self) -> Kernel {
        let align = self.elem.bytes() as u32;
        let mut args = vec![ArgDecl::read("x", align), ArgDecl::read("random", 8), ArgDecl::write("y", align)];
        let name = match self.with {
            Use::Drop { .. } => "dropout",
            Use::Slope { of_x: true, .. } => "rrelu",
            Use::Slope { of_x: false, .. } => {
                args.push(ArgDecl::read("v", align));
                "rrelu_gradient"
            }
        };
        let mut b = Builder::new(format!("{}_{name}__{}", self.elem, isa_name(self.target)), args);
        // f64 takes lanes of half as many elements; it is rare, and goes one by one.
        let lanes = if self.elem == Elem::F32 && self.plane == 1 { self.target.lanes(Elem::F32) } else { 1 };
        b.tasks(|b, task| {
            let lo = b.mul_imm(task, self.group() as i64);
            let hi = b.add_imm(lo, self.group() as i64);
            let end = b.i64(self.decisions as i64);
            let hi = b.min_s(hi, end);
            let mut first = lo;
            if lanes > 1 {
                let step = (4 * lanes) as i64;
                let purpose = self.purpose(b, Type::of(Elem::I32, lanes));
                let count = b.sub(hi, lo);
                let mask = b.i64(-step);
                let whole = b.and(count, mask);
                let whole = b.add(lo, whole);
                b.for_(lo, whole, step, |b, i| self.four_vectors(b, &purpose, i, lanes));
                first = whole;
            }
            let purpose = self.purpose(b, Type::of(Elem::I32, 1));
            b.for_(first, hi, 1, |b, e| self.decision(b, &purpose, e));
        });
        b.finish()
    }

    fn purpose(&self, b: &mut Builder, ty: Type) -> Purpose {
        let random = b.arg(1);
        let word = |b: &mut Builder, at: i64| {
            let word = b.load(Type::Scalar(Elem::I32), random.at(at));
            b.splat(ty, word)
        };
        let [k0, k1, s0, s1] = [0, 4, 8, 12].map(|at| word(b, at));
        Purpose { key: [k0, k1], rest: [b.int(ty, i64::from(self.stream)), s0, s1] }
    }

    /// Four vectors of elements from `i` on, a multiple of four.
    fn four_vectors(&self, b: &mut Builder, purpose: &Purpose, i: Value, lanes: usize) {
        let ty = Type::of(Elem::I32, lanes);
        let block = b.shr_u_imm(i, 2);
        let block = b.narrow(block, Elem::I32);
        let (block, iota) = (b.splat(ty, block), b.iota(ty));
        let block = b.add(block, iota);
        let [w0, w1, w2, w3] = philox(b, purpose, block);
        let low: Vec<bool> = (0..lanes).map(|lane| lane % 4 < 2).collect();
        let low = b.mask(&low);
        for vector in 0..4 {
            let of = |odd: usize| -> Vec<usize> {
                (0..lanes).map(|lane| (vector * lanes + lane) / 4 + if lane % 4 == odd { lanes } else { 0 }).collect()
            };
            let (first, second) = (b.shuffle(w0, w1, &of(1)), b.shuffle(w2, w3, &of(3)));
            let word = b.select(low, first, second);
            let at = (vector * lanes * 4) as i64;
            self.elements(b, word, Type::of(self.elem, lanes), |p| p.at(at).idx(i, 4));
        }
    }

    /// One decision, and its elements.
    fn decision(&self, b: &mut Builder, purpose: &Purpose, e: Value) {
        let block = b.shr_u_imm(e, 2);
        let block = b.narrow(block, Elem::I32);
        let [w0, w1, w2, w3] = philox(b, purpose, block);
        let (one, two) = (b.i64(1), b.i64(2));
        let zero = b.i64(0);
        let bit = |b: &mut Builder, mask: Value| {
            let bit = b.and(e, mask);
            b.icmp(IntCc::Ne, bit, zero)
        };
        let (odd, high) = (bit(b, one), bit(b, two));
        let (low_pair, high_pair) = (b.select(odd, w1, w0), b.select(odd, w3, w2));
        let word = b.select(high, high_pair, low_pair);
        let size = self.elem.bytes();
        let first = b.mul_imm(e, (self.plane * size) as i64);
        b.for_(0, self.plane, 1, |b, i| {
            let i = b.mul_imm(i, size as i64);
            let at = b.add(first, i);
            self.elements(b, word, Type::of(self.elem, 1), |p| p.at(0).idx(at, 1));
        });
    }

    /// The elements at a place, one for each word.
    fn elements(&self, b: &mut Builder, word: Value, ty: Type, at: impl Fn(Value) -> crate::kir::Addr) {
        let (x, y) = (b.arg(0), b.arg(2));
        let (bits, zero) = (b.shr_u_imm(word, 8), b.zero(ty));
        let x = b.load(ty, at(x));
        let result = match self.with {
            Use::Drop { threshold, factor } => {
                let threshold = b.int(ty.with_elem(Elem::I32), i64::from(threshold));
                let dropped = b.icmp(IntCc::LtU, bits, threshold);
                let factor = b.float(ty, factor);
                let kept = b.mul(x, factor);
                b.select(dropped, zero, kept)
            }
            Use::Slope { lower, upper, of_x } => {
                let v = if of_x { x } else { b.load(ty, at(b.arg(3))) };
                let bits = b.convert(ConvertOp::FromS, bits, self.elem);
                let (unit, lower) = (b.float(ty, (upper - lower) / f64::from(1 << 24)), b.float(ty, lower));
                let above = b.mul(bits, unit);
                let slope = b.add(lower, above);
                let scaled = b.mul(v, slope);
                let left = b.fcmp(FloatCc::Le, x, zero);
                b.select(left, scaled, v)
            }
        };
        b.store(at(y), result);
    }
}

/// The words of blocks, lane by lane.
fn philox(b: &mut Builder, purpose: &Purpose, block: Value) -> [Value; 4] {
    let ty = b.ty(block);
    let (mut k, mut c) = (purpose.key, [block, purpose.rest[0], purpose.rest[1], purpose.rest[2]]);
    for round in 0..ROUNDS {
        if round > 0 {
            k = std::array::from_fn(|i| {
                let step = b.int(ty, i64::from(WEYL[i]));
                b.add(k[i], step)
            });
        }
        let [(h0, l0), (h1, l1)] = [(c[0], MULTIPLIERS[0]), (c[2], MULTIPLIERS[1])].map(|(v, m)| wide_product(b, v, m));
        let (first, third) = (b.xor(h1, c[1]), b.xor(h0, c[3]));
        c = [b.xor(first, k[0]), l1, b.xor(third, k[1]), l0];
    }
    c
}

/// The high and the low half of a product of 32-bit numbers:
///
/// ```text
/// v = v1 * 2^16 + v0,  m likewise      t = v0 * m0     u = v1 * m0 + t >> 16     w = v0 * m1 + u mod 2^16
///                                      high = v1 * m1 + u >> 16 + w >> 16           no sum leaves 32 bits
/// ```
fn wide_product(b: &mut Builder, v: Value, m: u32) -> (Value, Value) {
    let ty = b.ty(v);
    let [half, m0, m1, all] = [0xffff, m & 0xffff, m >> 16, m].map(|c| b.int(ty, i64::from(c)));
    let (v0, v1) = (b.and(v, half), b.shr_u_imm(v, 16));
    let t = b.mul(v0, m0);
    let t = b.shr_u_imm(t, 16);
    let u = b.mul(v1, m0);
    let u = b.add(u, t);
    let (u0, u1) = (b.and(u, half), b.shr_u_imm(u, 16));
    let w = b.mul(v0, m1);
    let w = b.add(w, u0);
    let w = b.shr_u_imm(w, 16);
    let high = b.mul(v1, m1);
    let high = b.add(high, u1);
    (b.add(high, w), b.mul(v, all))
}
