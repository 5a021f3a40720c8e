//! Random well-formed kernels, for differential tests of backends.
//!
//! A case is made from a sequence of choices (any numbers; 0 when they run out), so that a property tester which shortens
//! and lowers the sequence shrinks the kernel. By construction every access is inside its buffer, every loop short, and no
//! result depends on the payload of a NaN that arithmetic made:
//!
//! * operand 0 is an input of arbitrary bytes, read at any offset as any type; then comes a buffer for each element type,
//!   read and written only as that type and aligned to it, so that results compare lane by lane, all NaNs equal;
//! * a float is bitcast to an integer only after its NaN has been replaced.

use super::typing::{converts, takes};
use super::{
    Access, Addr, ArgDecl, BinaryOp, Builder, COND, ConvertOp, Elem, FloatCc, I64, IntCc, Kernel, Type, UnaryOp, Value,
};

/// The bytes of every buffer: a multiple of the cache line, and small enough that addresses collide.
pub const BUFFER_LEN: usize = 1024;
/// The bytes of scratch memory: slots of one 512-bit vector.
pub const SCRATCH_LEN: usize = 512;

/// A kernel and what to run it on.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is run.
    pub kernel: Kernel,
    /// The operands' contents.
    pub buffers: Vec<Vec<u8>>,
    /// How much scratch memory it wants.
    pub scratch_len: usize,
    /// The first task.
    pub begin: i64,
    /// The end of the tasks.
    pub end: i64,
}

impl Case {
    /// Where two runs of this case differ: buffer, lane and both bit patterns, or nothing when they agree.
    pub fn difference(&self, got: &[Vec<u8>], expected: &[Vec<u8>]) -> Option<String> {
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            // Buffer 0 is the input; it must not change at all, which bytes say best.
            let elem = if i == 0 { Elem::I8 } else { Elem::ALL[i - 1] };
            if let Some(at) = first_difference(elem, got, expected) {
                let (name, n) = (&self.kernel.args[i].name, elem.bytes());
                return Some(format!(
                    "{name}[{at}]: got {:02x?}, expected {:02x?} (little-endian bytes)",
                    &got[at * n..(at + 1) * n],
                    &expected[at * n..(at + 1) * n]
                ));
            }
        }
        None
    }
}

/// The first lane in which two buffers differ; NaNs are equal.
pub fn first_difference(elem: Elem, a: &[u8], b: &[u8]) -> Option<usize> {
    let n = elem.bytes();
    let nan = |x: &[u8]| match elem {
        Elem::F32 => f32::from_le_bytes(x.try_into().expect("4 bytes")).is_nan(),
        Elem::F64 => f64::from_le_bytes(x.try_into().expect("8 bytes")).is_nan(),
        _ => false,
    };
    a.chunks_exact(n).zip(b.chunks_exact(n)).position(|(x, y)| x != y && !(nan(x) && nan(y)))
}

/// Makes a case with vectors of at most `vector_bits`.
pub fn case(choices: &[u32], vector_bits: usize) -> Case {
    let mut args = vec![ArgDecl::read("input", 64)];
    args.extend(Elem::ALL.map(|e| ArgDecl { name: format!("buf_{e}"), access: Access::ReadWrite, align: 64 }));
    let builder = Builder::new("arbitrary", args);
    let mut g = Generator {
        choices: choices.iter(),
        b: builder,
        vector_bits,
        pool: Vec::new(),
        indices: Vec::new(),
        pointers: Vec::new(),
    };
    for i in 0..=Elem::ALL.len() {
        let elem = if i == 0 { None } else { Some(Elem::ALL[i - 1]) };
        g.pointers.push(Pointer { value: g.b.arg(i), elem, max: 0 });
    }
    let (begin, end) = (0, 1 + i64::from(g.below(3)));
    let (from, to) = (g.b.begin(), g.b.end());
    let carried: Vec<Value> = (0..g.below(3)).map(|_| g.fresh_value(3)).collect();
    let pressure = g.below(4) == 3;
    let mut b = g.b;
    // The builder is lent to the closure and back, as the generator owns it.
    g.b = Builder::new("", Vec::new());
    let results = b.loop_(from, to, 1, &carried, |b, task, params| {
        std::mem::swap(&mut g.b, b);
        g.indices.push((task, end - 1));
        g.pool.extend_from_slice(params);
        if pressure {
            g.pressure();
        }
        let n = 4 + g.below(24);
        g.steps(n, 2);
        let next = g.yields(params);
        g.keep_alive();
        std::mem::swap(&mut g.b, b);
        next
    });
    g.b = b;
    g.pool = results;
    g.indices.clear();
    g.pointers.truncate(Elem::ALL.len() + 1);
    g.keep_alive();
    let buffers = (0..=Elem::ALL.len()).map(|i| contents(&mut g.choices, i)).collect();
    Case { kernel: g.b.finish(), buffers, scratch_len: SCRATCH_LEN, begin, end }
}

/// A buffer's bytes: special values of its type, mixed with random ones.
fn contents(choices: &mut std::slice::Iter<'_, u32>, i: usize) -> Vec<u8> {
    let mut seed = u64::from(choices.next().copied().unwrap_or(0)) << 8 | i as u64;
    let elem = if i == 0 { Elem::F32 } else { Elem::ALL[i - 1] };
    let mut bytes = Vec::with_capacity(BUFFER_LEN);
    while bytes.len() < BUFFER_LEN {
        // SplitMix64 (Steele, Lea, Flood 2014): any seed will do, and the case stays reproducible.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let special = special(elem, (z >> 8) as u32);
        let lane = if z.is_multiple_of(3) { z >> 16 } else { special };
        bytes.extend_from_slice(&lane.to_le_bytes()[..elem.bytes()]);
    }
    bytes
}

/// Bit patterns at which instructions differ: zeros, ones, extremes, infinities, NaNs, denormals, halves.
pub fn special(elem: Elem, choice: u32) -> u64 {
    const F32: [f32; 20] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        0.1,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        1e-45,
        -1e-40,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        8_388_607.5,
        2_147_483_648.0,
    ];
    const F64: [f64; 20] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        0.1,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        -1e-310,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        4_503_599_627_370_495.5,
        9_223_372_036_854_775_808.0,
    ];
    let i = choice as usize;
    let small = i64::from(choice % 41) - 20;
    match elem {
        Elem::F32 if !i.is_multiple_of(3) => u64::from((small as f32 * 0.375).to_bits()),
        Elem::F32 => u64::from(F32[i / 3 % F32.len()].to_bits()),
        Elem::F64 if !i.is_multiple_of(3) => (small as f64 * 0.375).to_bits(),
        Elem::F64 => F64[i / 3 % F64.len()].to_bits(),
        int => {
            let top = 1u64 << (int.bits() - 1);
            let bits = match i % 8 {
                0 => top,
                1 => top - 1,
                2 => u64::MAX,
                3 => top | 1,
                _ => small as u64,
            };
            bits & int.bit_mask()
        }
    }
}

/// A pointer with what keeps accesses through it inside.
#[derive(Clone, Copy)]
struct Pointer {
    value: Value,
    /// The type that the buffer holds; none for the input.
    elem: Option<Elem>,
    /// The largest offset that it may have.
    max: usize,
}

struct Generator<'a> {
    choices: std::slice::Iter<'a, u32>,
    b: Builder,
    vector_bits: usize,
    /// Values in scope: scalars, vectors and masks.
    pool: Vec<Value>,
    /// Indices in scope with their largest value; the smallest is 0 or more.
    indices: Vec<(Value, i64)>,
    pointers: Vec<Pointer>,
}

impl Generator<'_> {
    fn below(&mut self, n: u32) -> u32 {
        self.choices.next().copied().unwrap_or(0) % n
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 1
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u32) as usize]
    }

    fn lanes(&mut self, elem: Elem) -> usize {
        let most = (self.vector_bits / elem.bits()).min(Type::MAX_LANES);
        // Full registers, scalars, then everything between.
        match self.below(4) {
            0 | 1 => most,
            2 => 1,
            _ => 1 << self.below(most.ilog2() + 1),
        }
    }

    fn any_type(&mut self) -> Type {
        let elem = self.of(&[Elem::F32, Elem::F32, Elem::I32, Elem::F64, Elem::I64, Elem::I8, Elem::I16]);
        let lanes = self.lanes(elem);
        Type::of(elem, lanes)
    }

    /// A value of that type in scope, or a new one.
    fn operand(&mut self, ty: Type) -> Value {
        let found: Vec<Value> = self.pool.iter().copied().filter(|&v| self.b.ty(v) == ty).collect();
        if found.is_empty() || self.below(5) == 4 {
            return self.make(ty);
        }
        // The latest values first: chains rather than stars.
        let back = self.below(found.len().min(6) as u32) as usize;
        found[found.len() - 1 - back]
    }

    fn make(&mut self, ty: Type) -> Value {
        let v = match ty {
            Type::Mask(n) => {
                let operand_ty = self.type_with_lanes(usize::from(n));
                self.compare(operand_ty)
            }
            Type::Ptr => self.b.arg(0),
            _ if self.below(3) == 2 => self.constant(ty),
            _ => self.load(ty),
        };
        self.pool.push(v);
        v
    }

    fn type_with_lanes(&mut self, lanes: usize) -> Type {
        let elems: Vec<Elem> = Elem::ALL.into_iter().filter(|e| e.bits() * lanes <= self.vector_bits).collect();
        let elem = self.of(&elems);
        Type::of(elem, lanes)
    }

    fn constant(&mut self, ty: Type) -> Value {
        let elem = ty.elem().expect("not a mask");
        let equal = self.flip();
        let first = self.below(1 << 16);
        let lanes: Vec<u64> =
            (0..ty.lanes() as u32).map(|i| special(elem, if equal { first } else { first + 7 * i })).collect();
        self.b.const_bits(ty, &lanes)
    }

    /// Any new value, from at most `depth` instructions.
    fn fresh_value(&mut self, depth: u32) -> Value {
        let ty = self.any_type();
        let v = self.make(ty);
        if depth > 0 && self.flip() {
            self.step(0);
        }
        v
    }

    /// An address through which `bytes` may be accessed as `elem`.
    fn address(&mut self, elem: Elem, bytes: usize, write: bool) -> Addr {
        let fitting: Vec<Pointer> =
            self.pointers.iter().copied().filter(|p| p.elem == Some(elem) || (p.elem.is_none() && !write)).collect();
        let p = self.of(&fitting);
        let unit = p.elem.map_or(1, Elem::bytes);
        let mut room = BUFFER_LEN - p.max - bytes;
        let mut addr = p.value.at(0);
        if self.flip() && !self.indices.is_empty() {
            let indices = self.indices.clone();
            let (index, max) = self.of(&indices);
            let scale = unit * self.of(&[1, 2, 4, 3, 8, 16, 5]);
            if max as usize * scale <= room {
                addr = addr.idx(index, scale);
                room -= max as usize * scale;
            }
        }
        let units = (room / unit).min(40) as u32;
        addr.plus(i64::from(self.below(units + 1)) * unit as i64)
    }

    fn load(&mut self, ty: Type) -> Value {
        let elem = ty.elem().expect("not a mask");
        if ty.is_vector() {
            match self.below(6) {
                4 => {
                    let count = 1 + self.below(ty.lanes() as u32) as usize;
                    let addr = self.address(elem, elem.bytes() * count, false);
                    return self.b.load_part(ty, addr, count);
                }
                5 => {
                    let addr = self.address(elem, elem.bytes(), false);
                    return self.b.load_splat(ty, addr);
                }
                _ => {}
            }
        }
        let addr = self.address(elem, ty.bytes().expect("not a mask"), false);
        self.b.load(ty, addr)
    }

    fn store(&mut self, v: Value) {
        let ty = self.b.ty(v);
        let Some(elem) = ty.elem() else { return };
        let count =
            if ty.is_vector() && self.below(4) == 3 { 1 + self.below(ty.lanes() as u32) as usize } else { ty.lanes() };
        let addr = self.address(elem, elem.bytes() * count, true);
        self.b.store_part(addr, v, count);
    }

    fn compare(&mut self, ty: Type) -> Value {
        let (a, b) = (self.operand(ty), self.operand(ty));
        if ty.is_float() {
            let cc = self.of(&FloatCc::ALL);
            self.b.fcmp(cc, a, b)
        } else {
            let cc = self.of(&IntCc::ALL);
            self.b.icmp(cc, a, b)
        }
    }

    fn steps(&mut self, n: u32, depth: u32) {
        for _ in 0..n {
            self.step(depth);
        }
    }

    fn step(&mut self, depth: u32) {
        let ty = self.any_type();
        let v = match self.below(24) {
            0 => self.make(ty),
            1..=5 => {
                let ops: Vec<BinaryOp> = BinaryOp::ALL.into_iter().filter(|&op| takes(op, ty)).collect();
                let op = self.of(&ops);
                let (a, b) = (self.operand(ty), self.operand(ty));
                self.b.binary(op, a, b)
            }
            6 | 7 => {
                let ops: Vec<UnaryOp> = UnaryOp::ALL.into_iter().filter(|op| op.is_float() == ty.is_float()).collect();
                let op = self.of(&ops);
                let a = self.operand(ty);
                self.b.unary(op, a)
            }
            8 | 9 if ty.is_float() => {
                let (a, b, c) = (self.operand(ty), self.operand(ty), self.operand(ty));
                self.b.mul_add(a, b, c)
            }
            8..=10 => match self.convert(ty) {
                Some(v) => v,
                None => return,
            },
            11 => self.compare(ty),
            12 => {
                let mask = if self.flip() { COND } else { ty.mask() };
                let (m, a, b) = (self.operand(mask), self.operand(ty), self.operand(ty));
                self.b.select(m, a, b)
            }
            13 => {
                let (a, b) = (self.operand(ty.mask()), self.operand(ty.mask()));
                match self.below(7) {
                    0 => self.b.and(a, b),
                    1 => self.b.or(a, b),
                    2 => self.b.xor(a, b),
                    3 => self.b.not(a),
                    4 => self.b.any(a),
                    5 => self.b.all(a),
                    _ => self.b.mask_to_int(a),
                }
            }
            14 if ty.is_vector() => self.shuffle(ty),
            15 if ty.is_vector() => {
                let a = self.operand(ty);
                let lane = self.below(ty.lanes() as u32) as usize;
                match self.below(4) {
                    0 => self.b.extract(a, lane),
                    1 => {
                        let x = self.operand(ty.lane());
                        self.b.insert(a, lane, x)
                    }
                    2 => self.b.splat_lane(a, lane),
                    _ => {
                        let m = self.operand(ty.mask());
                        let lane_of_mask = self.b.extract(m, lane);
                        self.b.splat(ty.mask(), lane_of_mask)
                    }
                }
            }
            16 if ty.is_vector() => {
                let ops: Vec<BinaryOp> =
                    BinaryOp::ALL.into_iter().filter(|&op| takes(op, ty) && op.is_reduction()).collect();
                let op = self.of(&ops);
                let a = self.operand(ty);
                self.b.reduce(op, a)
            }
            17 if depth > 0 => return self.loop_(depth),
            18 if depth > 0 => return self.conditional(depth),
            19 => {
                let pointers = self.pointers.clone();
                let p = self.of(&pointers);
                let step = p.elem.map_or(1, Elem::bytes) * self.below(9) as usize;
                if p.max + step > BUFFER_LEN / 2 {
                    return;
                }
                let value = self.b.ptr(p.value.at(step as i64));
                return self.pointers.push(Pointer { value, max: p.max + step, ..p });
            }
            20 => {
                // Through scratch memory: written, then read as it was written.
                let a = self.operand(ty);
                let slot = self.b.scratch().at(64 * i64::from(self.below((SCRATCH_LEN / 64) as u32)));
                self.b.store(slot, a);
                self.b.load(ty, slot)
            }
            21 => {
                let a = self.operand(ty);
                return self.store(a);
            }
            _ => {
                let scalar = self.operand(ty.lane());
                self.b.splat(ty, scalar)
            }
        };
        self.pool.push(v);
    }

    fn convert(&mut self, ty: Type) -> Option<Value> {
        let from = ty.elem().expect("not a mask");
        let mut all = Vec::new();
        for op in ConvertOp::ALL {
            all.extend(Elem::ALL.into_iter().filter(|&to| converts(op, from, to)).map(|to| (op, to)));
        }
        all.retain(|(_, to)| to.bits() * ty.lanes() <= self.vector_bits);
        if all.is_empty() {
            return None;
        }
        let (op, to) = self.of(&all);
        let mut v = self.operand(ty);
        if op == ConvertOp::Bitcast && from.is_float() {
            let nan = self.b.is_nan(v);
            let one = self.b.float(ty, 1.0);
            v = self.b.select(nan, one, v);
        }
        Some(self.b.convert(op, v, to))
    }

    fn shuffle(&mut self, ty: Type) -> Value {
        let (a, b) = (self.operand(ty), self.operand(ty));
        let n = ty.lanes();
        let most = (self.vector_bits / ty.elem().expect("a vector").bits()).min(Type::MAX_LANES);
        let count = match self.below(4) {
            0 if n > 2 => n / 2,
            1 if 2 * n <= most => 2 * n,
            _ => n,
        };
        let start = self.below(2 * n as u32) as usize;
        let lanes: Vec<usize> = match self.below(6) {
            // The patterns of transposes: interleaved halves, even and odd lanes, a rotation; then anything.
            0 => (0..count).map(|i| (i / 2 % n) + n * (i % 2)).collect(),
            1 => (0..count).map(|i| ((n / 2 + i / 2) % n) + n * (i % 2)).collect(),
            2 => (0..count).map(|i| 2 * i % (2 * n)).collect(),
            3 => (0..count).map(|i| (2 * i + 1) % (2 * n)).collect(),
            4 => (0..count).map(|i| (start + i) % (2 * n)).collect(),
            _ => (0..count).map(|_| self.below(2 * n as u32) as usize).collect(),
        };
        self.b.shuffle(a, b, &lanes)
    }

    /// Values of the parameters' types, the latest in scope.
    fn yields(&mut self, params: &[Value]) -> Vec<Value> {
        params.iter().map(|&p| self.operand(self.b.ty(p))).collect()
    }

    /// Runs `fill` as the inside of a block: what it defines leaves scope with it.
    fn scoped<T>(&mut self, b: &mut Builder, fill: impl FnOnce(&mut Self) -> T) -> T {
        std::mem::swap(&mut self.b, b);
        let sizes = (self.pool.len(), self.indices.len(), self.pointers.len());
        let result = fill(self);
        self.pool.truncate(sizes.0);
        self.indices.truncate(sizes.1);
        self.pointers.truncate(sizes.2);
        std::mem::swap(&mut self.b, b);
        result
    }

    fn loop_(&mut self, depth: u32) {
        let lo = i64::from(self.below(3));
        let trips = i64::from(self.below(6));
        let step = 1 + i64::from(self.below(3));
        let hi = lo + trips * step - i64::from(self.below(step as u32));
        let mut init: Vec<Value> = (0..self.below(4))
            .map(|_| {
                let ty = self.any_type();
                let ty = if self.below(5) == 4 { ty.mask() } else { ty };
                self.operand(ty)
            })
            .collect();
        let carried = init.len();
        let pointers = self.pointers.clone();
        let p = self.of(&pointers);
        let stride = p.elem.map_or(1, Elem::bytes) * 4;
        let max = p.max + trips as usize * stride;
        if self.flip() && max <= BUFFER_LEN / 2 {
            init.push(p.value);
        }
        // Bounds that the builder cannot see through, now and then.
        let bound = if self.flip() { self.b.i64(hi) } else { self.b.add_imm(self.b.begin(), hi) };
        let n = 1 + self.below(8);
        let mut b = std::mem::replace(&mut self.b, Builder::new("", Vec::new()));
        let results = b.loop_(lo, bound, step, &init, |b, iv, params| {
            self.scoped(b, |g| {
                g.indices.push((iv, (hi - 1).max(0)));
                g.pool.extend_from_slice(&params[..carried]);
                g.pool.push(iv);
                if let Some(&value) = params.get(carried) {
                    g.pointers.push(Pointer { value, max, ..p });
                }
                g.steps(n, depth - 1);
                let mut next = g.yields(&params[..carried]);
                if let Some(&value) = params.get(carried) {
                    next.push(g.b.ptr(value.at(stride as i64)));
                }
                next
            })
        });
        self.b = b;
        self.pool.extend_from_slice(&results[..carried]);
        if let Some(&value) = results.get(carried) {
            self.pointers.push(Pointer { value, max, ..p });
        }
    }

    fn conditional(&mut self, depth: u32) {
        let cond = self.operand(COND);
        let types: Vec<Type> = (0..self.below(3)).map(|_| self.any_type()).collect();
        let (n, m) = (self.below(6), self.below(6));
        let mut b = std::mem::replace(&mut self.b, Builder::new("", Vec::new()));
        // Two closures cannot both borrow the generator: a cell hands it from one to the other.
        let cell = std::cell::RefCell::new(self);
        let side = |b: &mut Builder, n: u32| {
            cell.borrow_mut().scoped(b, |g| {
                g.steps(n, depth - 1);
                types.iter().map(|&ty| g.operand(ty)).collect::<Vec<Value>>()
            })
        };
        let results = b.if_(cond, |b| side(b, n), |b| side(b, m));
        let g = cell.into_inner();
        g.b = b;
        g.pool.extend_from_slice(&results);
    }

    /// More live vectors than any target has registers, all needed twice.
    fn pressure(&mut self) {
        let lanes = self.vector_bits / 32;
        let ty = Type::of(Elem::F32, lanes);
        let n = 20 + self.below(30);
        let live: Vec<Value> = (0..n).map(|_| self.load(ty)).collect();
        let mut sum = live[0];
        for (i, &v) in live.iter().enumerate() {
            sum = self.b.mul_add(sum, v, live[(i * 7 + 1) % live.len()]);
        }
        for &v in live.iter().rev() {
            sum = self.b.add(sum, v);
        }
        self.pool.push(sum);
    }

    /// Stores the latest values, so that they are seen.
    fn keep_alive(&mut self) {
        let latest: Vec<Value> = self.pool.iter().rev().take(6).copied().collect();
        for v in latest {
            let v = if matches!(self.b.ty(v), Type::Mask(_)) { self.b.mask_to_int(v) } else { v };
            if self.b.ty(v) != Type::Ptr {
                self.store(v);
            }
        }
        debug_assert_eq!(self.b.ty(self.b.begin()), I64);
    }
}
