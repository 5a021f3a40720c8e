//! The builder's instructions: arithmetic, comparison, conversion, memory, lanes; with the folding of index arithmetic.

use super::Builder;
use crate::kir::{Addr, BinaryOp, COND, ConvertOp, Elem, FloatCc, I64, Index, IntCc, Op, Type, UnaryOp, Value};

impl Builder {
    // ---- arithmetic ----

    /// Any two-operand instruction.
    #[track_caller]
    pub fn binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Value {
        if let Some(v) = self.fold(op, a, b) {
            return v;
        }
        let v = self.value(Op::Binary(op, a, b));
        if let Some(linear) = self.as_linear(op, a, b) {
            self.linear.insert(v, linear);
        }
        v
    }

    /// `a op b` on indices as `x * m + c`, so that addresses take `m` into their scale and `c` into their displacement;
    /// exact, since both wrap alike.
    fn as_linear(&self, op: BinaryOp, a: Value, b: Value) -> Option<(Value, i64, i64)> {
        if self.ty(a) != I64 {
            return None;
        }
        let (x, k) = match (op, self.known(a), self.known(b)) {
            (BinaryOp::Add | BinaryOp::Mul | BinaryOp::Sub | BinaryOp::Shl, _, Some(k)) => (a, k),
            (BinaryOp::Add | BinaryOp::Mul, Some(k), _) => (b, k),
            _ => return None,
        };
        let (x, m, c) = self.linear.get(&x).copied().unwrap_or((x, 1, 0));
        match op {
            BinaryOp::Add => Some((x, m, c.checked_add(k)?)),
            BinaryOp::Sub => Some((x, m, c.checked_sub(k)?)),
            BinaryOp::Mul => Some((x, m.checked_mul(k)?, c.checked_mul(k)?)),
            _ => {
                let k = i64::checked_pow(2, u32::try_from(k).ok()?)?;
                Some((x, m.checked_mul(k)?, c.checked_mul(k)?))
            }
        }
    }

    /// Any one-operand instruction.
    #[track_caller]
    pub fn unary(&mut self, op: UnaryOp, v: Value) -> Value {
        self.value(Op::Unary(op, v))
    }

    /// Folds scalar integer arithmetic; the general case is nothing to fold.
    fn fold(&mut self, op: BinaryOp, a: Value, b: Value) -> Option<Value> {
        use BinaryOp::*;
        let ty = self.ty(a);
        if !matches!(ty, Type::Scalar(e) if !e.is_float()) || self.ty(b) != ty {
            return None;
        }
        match (op, self.known(a), self.known(b)) {
            (Add, Some(x), Some(y)) => Some(self.int(ty, x.wrapping_add(y))),
            (Sub, Some(x), Some(y)) => Some(self.int(ty, x.wrapping_sub(y))),
            (Mul, Some(x), Some(y)) => Some(self.int(ty, x.wrapping_mul(y))),
            (MinS, Some(x), Some(y)) => Some(self.int(ty, x.min(y))),
            (MaxS, Some(x), Some(y)) => Some(self.int(ty, x.max(y))),
            (DivS, Some(x), Some(y)) if y > 0 => Some(self.int(ty, x / y)),
            (RemS, Some(x), Some(y)) if y > 0 => Some(self.int(ty, x % y)),
            (Add | Sub | Shl | ShrS | ShrU | Or | Xor, _, Some(0)) | (Mul | DivS | DivU, _, Some(1)) => Some(a),
            (Add | Or | Xor, Some(0), _) | (Mul, Some(1), _) => Some(b),
            (Mul, Some(0), _) | (Mul, _, Some(0)) => Some(self.int(ty, 0)),
            _ => None,
        }
    }

    /// `a + b`, integers or floats.
    #[track_caller]
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        let op = self.by_type(a, BinaryOp::Add, BinaryOp::FAdd);
        self.binary(op, a, b)
    }

    /// `a - b`, integers or floats.
    #[track_caller]
    pub fn sub(&mut self, a: Value, b: Value) -> Value {
        let op = self.by_type(a, BinaryOp::Sub, BinaryOp::FSub);
        self.binary(op, a, b)
    }

    /// `a * b`, integers or floats.
    #[track_caller]
    pub fn mul(&mut self, a: Value, b: Value) -> Value {
        let op = self.by_type(a, BinaryOp::Mul, BinaryOp::FMul);
        self.binary(op, a, b)
    }

    fn by_type(&self, v: Value, int: BinaryOp, float: BinaryOp) -> BinaryOp {
        if self.ty(v).is_float() { float } else { int }
    }

    /// `a * b + c` on floats, fused where the target does.
    #[track_caller]
    pub fn mul_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        self.value(Op::MulAdd(a, b, c))
    }

    /// `-v`: flips the sign of floats, negates integers.
    #[track_caller]
    pub fn neg(&mut self, v: Value) -> Value {
        let op = if self.ty(v).is_float() { UnaryOp::FNeg } else { UnaryOp::INeg };
        self.unary(op, v)
    }

    /// `v + i` for a constant, integers.
    #[track_caller]
    pub fn add_imm(&mut self, v: Value, i: i64) -> Value {
        let c = self.int(self.ty(v), i);
        self.add(v, c)
    }

    /// `v * i` for a constant, integers.
    #[track_caller]
    pub fn mul_imm(&mut self, v: Value, i: i64) -> Value {
        let c = self.int(self.ty(v), i);
        self.mul(v, c)
    }

    /// `v << n` for a constant.
    #[track_caller]
    pub fn shl_imm(&mut self, v: Value, n: u32) -> Value {
        let c = self.int(self.ty(v), i64::from(n));
        self.binary(BinaryOp::Shl, v, c)
    }

    /// `v >> n` for a constant, shifting in zeros.
    #[track_caller]
    pub fn shr_u_imm(&mut self, v: Value, n: u32) -> Value {
        let c = self.int(self.ty(v), i64::from(n));
        self.binary(BinaryOp::ShrU, v, c)
    }

    /// `v >> n` for a constant, shifting in the sign.
    #[track_caller]
    pub fn shr_s_imm(&mut self, v: Value, n: u32) -> Value {
        let c = self.int(self.ty(v), i64::from(n));
        self.binary(BinaryOp::ShrS, v, c)
    }

    // ---- comparison and selection ----

    /// Compares integers.
    #[track_caller]
    pub fn icmp(&mut self, cc: IntCc, a: Value, b: Value) -> Value {
        self.value(Op::ICmp(cc, a, b))
    }

    /// Compares floats.
    #[track_caller]
    pub fn fcmp(&mut self, cc: FloatCc, a: Value, b: Value) -> Value {
        self.value(Op::FCmp(cc, a, b))
    }

    /// Is it NaN?
    #[track_caller]
    pub fn is_nan(&mut self, v: Value) -> Value {
        self.fcmp(FloatCc::Unordered, v, v)
    }

    /// `mask ? a : b`.
    #[track_caller]
    pub fn select(&mut self, mask: Value, a: Value, b: Value) -> Value {
        self.value(Op::Select { mask, a, b })
    }

    /// A mask as `I8` lanes of 0 or 1, as booleans stand in memory.
    #[track_caller]
    pub fn mask_to_int(&mut self, mask: Value) -> Value {
        self.value(Op::MaskToInt(mask))
    }

    /// Integer lanes as a mask: true where not 0.
    #[track_caller]
    pub fn int_to_mask(&mut self, v: Value) -> Value {
        let zero = self.zero(self.ty(v));
        self.icmp(IntCc::Ne, v, zero)
    }

    /// Is any lane true?
    #[track_caller]
    pub fn any(&mut self, mask: Value) -> Value {
        if self.ty(mask) == COND { mask } else { self.value(Op::Any(mask)) }
    }

    /// Are all lanes true?
    #[track_caller]
    pub fn all(&mut self, mask: Value) -> Value {
        if self.ty(mask) == COND { mask } else { self.value(Op::All(mask)) }
    }

    // ---- conversion ----

    /// Converts to another element type; gives the value itself when it has that type.
    #[track_caller]
    pub fn convert(&mut self, op: ConvertOp, v: Value, to: Elem) -> Value {
        let ty = self.ty(v);
        if ty.elem() == Some(to) { v } else { self.value(Op::Convert { op, to: ty.with_elem(to), value: v }) }
    }

    /// Sign-extends to a wider integer.
    #[track_caller]
    pub fn sext(&mut self, v: Value, to: Elem) -> Value {
        self.convert(ConvertOp::SExt, v, to)
    }

    /// Zero-extends to a wider integer.
    #[track_caller]
    pub fn zext(&mut self, v: Value, to: Elem) -> Value {
        self.convert(ConvertOp::ZExt, v, to)
    }

    /// Keeps the low bits of an integer.
    #[track_caller]
    pub fn narrow(&mut self, v: Value, to: Elem) -> Value {
        self.convert(ConvertOp::Narrow, v, to)
    }

    /// `f32` to `f64`.
    #[track_caller]
    pub fn promote(&mut self, v: Value) -> Value {
        self.convert(ConvertOp::Promote, v, Elem::F64)
    }

    /// `f64` to `f32`.
    #[track_caller]
    pub fn demote(&mut self, v: Value) -> Value {
        self.convert(ConvertOp::Demote, v, Elem::F32)
    }

    /// The same bits as another element type.
    #[track_caller]
    pub fn bitcast(&mut self, v: Value, to: Elem) -> Value {
        self.convert(ConvertOp::Bitcast, v, to)
    }

    // ---- memory ----

    /// An address with constant parts folded into its displacement.
    fn simplify(&self, addr: Addr) -> Addr {
        let mut addr = addr;
        let fits = |disp: Option<i64>| disp.filter(|&d| i32::try_from(d).is_ok());
        if let Some((index, scale)) = addr.index
            && let Some(i) = self.known(index)
            && let Some(disp) = fits(i.checked_mul(scale).and_then(|b| b.checked_add(addr.disp)))
        {
            addr = Addr { index: None, disp, ..addr };
        }
        if let Some((index, scale)) = addr.index
            && let Some(&(x, m, c)) = self.linear.get(&index)
            && let Some(scaled) = m.checked_mul(scale).filter(|s| (1..=i64::from(i32::MAX)).contains(s))
            && let Some(disp) = fits(c.checked_mul(scale).and_then(|b| b.checked_add(addr.disp)))
        {
            addr = Addr { index: Some((x, scaled)), disp, ..addr };
        }
        if let Some(&(base, offset)) = self.offsets.get(&addr.base)
            && let Some(disp) = fits(offset.checked_add(addr.disp))
        {
            addr = Addr { base, disp, ..addr };
        }
        addr
    }

    /// Reads a scalar or vector: `b.load(ty, p.at(16).idx(i, 4))`.
    #[track_caller]
    pub fn load(&mut self, ty: Type, addr: impl Into<Addr>) -> Value {
        let addr = self.simplify(addr.into());
        self.value(Op::Load { ty, addr })
    }

    /// Reads the first `count` lanes, the others are 0.
    #[track_caller]
    pub fn load_part(&mut self, ty: Type, addr: impl Into<Addr>, count: usize) -> Value {
        if count == ty.lanes() {
            return self.load(ty, addr);
        }
        let addr = self.simplify(addr.into());
        let count = u8::try_from(count).expect("fewer lanes than the type");
        self.value(Op::LoadPart { ty, addr, count })
    }

    /// Reads one element into every lane.
    #[track_caller]
    pub fn load_splat(&mut self, ty: Type, addr: impl Into<Addr>) -> Value {
        if ty.lanes() == 1 {
            return self.load(ty, addr);
        }
        let addr = self.simplify(addr.into());
        self.value(Op::LoadSplat { ty, addr })
    }

    /// Writes a scalar or vector.
    #[track_caller]
    pub fn store(&mut self, addr: impl Into<Addr>, value: Value) {
        let addr = self.simplify(addr.into());
        self.push(Op::Store { addr, value });
    }

    /// Writes the first `count` lanes.
    #[track_caller]
    pub fn store_part(&mut self, addr: impl Into<Addr>, value: Value, count: usize) {
        if count == self.ty(value).lanes() {
            return self.store(addr, value);
        }
        let addr = self.simplify(addr.into());
        let count = u8::try_from(count).expect("fewer lanes than the type");
        self.push(Op::StorePart { addr, value, count });
    }

    /// An address as a pointer.
    #[track_caller]
    pub fn ptr(&mut self, addr: impl Into<Addr>) -> Value {
        let addr = self.simplify(addr.into());
        if addr.index.is_none() && addr.disp == 0 {
            return addr.base;
        }
        let p = self.value(Op::PtrAdd(addr));
        if addr.index.is_none() {
            self.offsets.insert(p, (addr.base, addr.disp));
        }
        p
    }

    /// `p + i * scale` as a pointer, for a constant or a value.
    #[track_caller]
    pub fn ptr_add(&mut self, p: Value, i: impl Into<Index>, scale: usize) -> Value {
        match i.into() {
            Index::Const(c) => self.ptr(p.at(c * scale as i64)),
            Index::Value(v) => self.ptr(p.at(0).idx(v, scale)),
        }
    }

    /// Asks for the line of an address.
    #[track_caller]
    pub fn prefetch(&mut self, addr: impl Into<Addr>) {
        let addr = self.simplify(addr.into());
        self.push(Op::Prefetch(addr));
    }

    // ---- lanes ----

    /// A scalar in every lane of `ty`.
    #[track_caller]
    pub fn splat(&mut self, ty: Type, v: Value) -> Value {
        if ty == self.ty(v) {
            return v;
        }
        match self.known.get(&v) {
            Some(&bits) if ty.lane() == self.ty(v) => self.const_bits(ty, &vec![bits; ty.lanes()]),
            _ => self.value(Op::Splat { ty, value: v }),
        }
    }

    /// One lane of a vector or mask.
    #[track_caller]
    pub fn extract(&mut self, v: Value, lane: usize) -> Value {
        if self.ty(v).lanes() == 1 && lane == 0 {
            return v;
        }
        let lane = u8::try_from(lane).expect("a lane of the type");
        self.value(Op::ExtractLane { value: v, lane })
    }

    /// The vector with one lane replaced.
    #[track_caller]
    pub fn insert(&mut self, into: Value, lane: usize, value: Value) -> Value {
        if self.ty(into).lanes() == 1 && lane == 0 {
            return value;
        }
        let lane = u8::try_from(lane).expect("a lane of the type");
        self.value(Op::InsertLane { into, lane, value })
    }

    /// One lane of `v` in every lane.
    #[track_caller]
    pub fn splat_lane(&mut self, v: Value, lane: usize) -> Value {
        let s = self.extract(v, lane);
        self.splat(self.ty(v), s)
    }

    /// All lanes combined, in the tree order stated at the top of `kir`.
    #[track_caller]
    pub fn reduce(&mut self, op: BinaryOp, v: Value) -> Value {
        if self.ty(v).lanes() == 1 { v } else { self.value(Op::Reduce(op, v)) }
    }

    /// Picks lanes of `a` followed by `b`.
    #[track_caller]
    pub fn shuffle(&mut self, a: Value, b: Value, lanes: &[usize]) -> Value {
        let lanes = lanes.iter().map(|&l| u8::try_from(l).expect("a lane of two vectors")).collect();
        self.value(Op::Shuffle { a, b, lanes })
    }
}

macro_rules! binary_methods {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {
        impl Builder {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(&mut self, a: Value, b: Value) -> Value {
                self.binary(BinaryOp::$op, a, b)
            })*
        }
    };
}

binary_methods! {
    /// `a / b` on floats.
    div FDiv;
    /// `a / b` on signed integers; `x / 0 = 0`.
    div_s DivS;
    /// `a / b` on unsigned integers; `x / 0 = 0`.
    div_u DivU;
    /// `a % b` on signed integers, with the sign of `a`; `x % 0 = x`.
    rem_s RemS;
    /// `a % b` on unsigned integers; `x % 0 = x`.
    rem_u RemU;
    /// Bitwise and, of integers and masks.
    and And;
    /// Bitwise or, of integers and masks.
    or Or;
    /// Bitwise exclusive or, of integers and masks.
    xor Xor;
    /// `a << b`, amounts modulo the width.
    shl Shl;
    /// `a >> b` with the sign.
    shr_s ShrS;
    /// `a >> b` with zeros.
    shr_u ShrU;
    /// The smaller, signed.
    min_s MinS;
    /// The larger, signed.
    max_s MaxS;
    /// The smaller, unsigned.
    min_u MinU;
    /// The larger, unsigned.
    max_u MaxU;
    /// `a < b ? a : b` on floats: cheap on x86; a NaN anywhere gives `b`. `pmin(c, x)` lets a NaN in `x` through.
    pmin PMin;
    /// `a > b ? a : b` on floats: cheap on x86; a NaN anywhere gives `b`. ReLU that keeps NaN is `pmax(zero, x)`.
    pmax PMax;
    /// IEEE 754-2019 minimum: NaN if either is, -0 below +0.
    fmin FMin;
    /// IEEE 754-2019 maximum: NaN if either is, -0 below +0.
    fmax FMax;
}

macro_rules! unary_methods {
    ($($(#[$doc:meta])* $name:ident $op:ident;)*) => {
        impl Builder {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(&mut self, v: Value) -> Value {
                self.unary(UnaryOp::$op, v)
            })*
        }
    };
}

unary_methods! {
    /// Bitwise complement, of integers and masks.
    not Not;
    /// Absolute value of floats.
    abs FAbs;
    /// Square root.
    sqrt Sqrt;
    /// Toward -inf.
    floor Floor;
    /// Toward +inf.
    ceil Ceil;
    /// Toward zero.
    trunc Trunc;
    /// To nearest, ties to even.
    nearest Nearest;
}
