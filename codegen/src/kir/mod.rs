//! The kernel IR: a small structured SSA language in which every kernel template is written.
//!
//! A [`Kernel`] is one leaf function over buffers. Its machine signature is always
//!
//! ```text
//! extern "C" fn(args: *const *mut u8, scratch: *mut u8, begin: i64, end: i64)
//! ```
//!
//! It performs the tasks `begin..end` of its step. Shapes, strides and tails are constants; the lane count of a vector is
//! chosen by the template from the [`Target`](crate::target::Target). Control is structured ([`Loop`], [`If`]): there are no
//! calls, no jumps and no phis, a loop carries values through its parameters and yields.
//!
//! One meaning per instruction, on every backend (the [interpreter](interp) is the definition):
//!
//! * Integers wrap. Division never traps: `x / 0 = 0`, `x % 0 = x`, `MIN / -1 = MIN`, `MIN % -1 = 0` (AArch64's `sdiv`).
//!   Shift amounts are taken modulo the width of the element, lane by lane.
//! * Floats are IEEE 754, round to nearest even, denormals kept. The sign and payload of a NaN that an *arithmetic*
//!   instruction makes are unspecified; instructions that only move bits (load, store, select, shuffle, bitcast, `FNeg`,
//!   `FAbs`) keep them.
//! * `FMin`, `FMax` are IEEE 754-2019 `minimum`, `maximum`: NaN if either operand is NaN, and -0 < +0.
//!   `PMin`, `PMax` are x86's `minps`, `maxps`: `pmax(a, b) = a > b ? a : b`, so a NaN anywhere gives `b`, and so do two zeros.
//! * `MulAdd` is fused (one rounding) where `Target::fma`, else a multiplication and an addition, each rounded.
//! * Float to integer truncates and saturates to the *destination's* range; NaN gives 0 (Rust's `as`).
//!   Integer to float rounds once, to nearest even. `Demote` rounds to nearest even.
//! * A horizontal reduction is a tree: low half `op` high half (the low half is operand `a`), until one lane is left.
//! * A partial load or store of `count` elements touches exactly these in memory; the other lanes of a partial load are 0.
//!
//! Not here: calls, exceptions, volatile or atomic accesses, aliasing information beyond [`Access`]. Booleans in memory are
//! `I8` holding 0 or 1. Signedness belongs to operations, not to types, as in CLIF.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the types |
//! | [`typing`] | the type of every instruction's result: the one place that says what is well typed |
//! | [`builder`] | what templates are written against |
//! | [`canonical`] | the form in which equal kernels are equal |
//! | [`print`], [`parse`] | the text form |
//! | [`verify`] | the invariants |
//! | [`alignment`] | known alignment of addresses |
//! | [`arbitrary`] | random kernels for differential tests |
//! | [`interp`] | the meaning: the oracle of the backends |

pub mod alignment;
pub mod arbitrary;
pub mod builder;
pub mod canonical;
pub mod interp;
pub mod parse;
pub mod print;
pub mod typing;
pub mod verify;

#[cfg(test)]
mod tests;

pub use builder::{Builder, Index};

use smallvec::SmallVec;
use std::fmt;

/// The type of one lane. `F16` is left out until a template needs it; nothing assumes that two float types are all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Elem {
    /// 8 bits; also a boolean in memory (0 or 1).
    I8,
    /// 16 bits.
    I16,
    /// 32 bits.
    I32,
    /// 64 bits; scalar `I64` is the type of index arithmetic.
    I64,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
}

impl Elem {
    /// All element types, narrow first, integers before floats.
    pub const ALL: [Elem; 6] = [Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F32, Elem::F64];

    /// Size in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Elem::I8 => 1,
            Elem::I16 => 2,
            Elem::I32 | Elem::F32 => 4,
            Elem::I64 | Elem::F64 => 8,
        }
    }

    /// Size in bits.
    pub fn bits(self) -> usize {
        self.bytes() * 8
    }

    /// A float type?
    pub fn is_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::F64)
    }

    /// The integer type of the same width.
    pub fn as_int(self) -> Elem {
        match self {
            Elem::F32 => Elem::I32,
            Elem::F64 => Elem::I64,
            int => int,
        }
    }

    /// The bits of this type within a `u64`: constants are stored with the others zero.
    pub fn bit_mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Elem::I8 => "i8",
            Elem::I16 => "i16",
            Elem::I32 => "i32",
            Elem::I64 => "i64",
            Elem::F32 => "f32",
            Elem::F64 => "f64",
        })
    }
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// One element.
    Scalar(Elem),
    /// Two or more lanes, a power of two up to [`Type::MAX_LANES`]. One lane is a `Scalar`: make types with [`Type::of`].
    Vector(Elem, u8),
    /// One truth value a lane; `Mask(1)` is a scalar condition. Its representation is the backend's.
    Mask(u8),
    /// An address in one of the kernel's buffers.
    Ptr,
}

/// Scalar `i64`, the type of indices.
pub const I64: Type = Type::Scalar(Elem::I64);
/// Scalar `f32`.
pub const F32: Type = Type::Scalar(Elem::F32);
/// Scalar condition.
pub const COND: Type = Type::Mask(1);

impl Type {
    /// The most lanes a vector may have (bytes of a 512-bit register).
    pub const MAX_LANES: usize = 64;

    /// `lanes` of `elem`: a scalar for one lane, so that a template written for any lane count also works for 1.
    ///
    /// # Panics
    /// When `lanes` is not a power of two in `1..=64`: a bug of the template.
    pub fn of(elem: Elem, lanes: usize) -> Type {
        assert!(lanes.is_power_of_two() && lanes <= Self::MAX_LANES, "no vector has {lanes} lanes");
        if lanes == 1 { Type::Scalar(elem) } else { Type::Vector(elem, lanes as u8) }
    }

    /// The element type; none for masks and pointers.
    pub fn elem(self) -> Option<Elem> {
        match self {
            Type::Scalar(e) | Type::Vector(e, _) => Some(e),
            Type::Mask(_) | Type::Ptr => None,
        }
    }

    /// The number of lanes; 1 for scalars and pointers.
    pub fn lanes(self) -> usize {
        match self {
            Type::Vector(_, n) | Type::Mask(n) => usize::from(n),
            Type::Scalar(_) | Type::Ptr => 1,
        }
    }

    /// The size in memory; none for masks and pointers, which never stand there.
    pub fn bytes(self) -> Option<usize> {
        Some(self.elem()?.bytes() * self.lanes())
    }

    /// Scalar or vector of floats?
    pub fn is_float(self) -> bool {
        self.elem().is_some_and(Elem::is_float)
    }

    /// Scalar or vector of integers?
    pub fn is_int(self) -> bool {
        self.elem().is_some_and(|e| !e.is_float())
    }

    /// A vector type?
    pub fn is_vector(self) -> bool {
        matches!(self, Type::Vector(..))
    }

    /// The same lanes of another element type.
    pub fn with_elem(self, elem: Elem) -> Type {
        Type::of(elem, self.lanes())
    }

    /// The type of a comparison of two values of this type.
    pub fn mask(self) -> Type {
        Type::Mask(self.lanes() as u8)
    }

    /// The type of one lane: the scalar of the element, or `Mask(1)`.
    pub fn lane(self) -> Type {
        match self {
            Type::Vector(e, _) => Type::Scalar(e),
            Type::Mask(_) => COND,
            other => other,
        }
    }

    /// Lane counts that no type has (not a power of two, one lane as a vector, too many)?
    pub fn is_valid(self) -> bool {
        match self {
            Type::Scalar(_) | Type::Ptr => true,
            Type::Vector(_, n) => n >= 2 && n.is_power_of_two() && usize::from(n) <= Self::MAX_LANES,
            Type::Mask(n) => n >= 1 && n.is_power_of_two() && usize::from(n) <= Self::MAX_LANES,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Scalar(e) => write!(f, "{e}"),
            Type::Vector(e, n) => write!(f, "{e}x{n}"),
            Type::Mask(n) => write!(f, "mask{n}"),
            Type::Ptr => f.write_str("ptr"),
        }
    }
}

/// An SSA value of one kernel; its type stands in [`Kernel::types`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

impl Value {
    /// The position in [`Kernel::types`].
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The address `disp` bytes after this pointer.
    pub fn at(self, disp: i64) -> Addr {
        Addr { base: self, index: None, disp }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// `base + index * scale + disp`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addr {
    /// A pointer.
    pub base: Value,
    /// A scalar `I64` and the bytes it is multiplied by (any positive constant; 1, 2, 4 and 8 are free on x86).
    pub index: Option<(Value, i64)>,
    /// A constant number of bytes, within `i32`.
    pub disp: i64,
}

impl Addr {
    /// The same address with `index * scale` bytes added.
    ///
    /// # Panics
    /// When there is an index already.
    pub fn idx(self, index: Value, scale: usize) -> Addr {
        assert!(self.index.is_none(), "an address has one index");
        Addr { index: Some((index, scale as i64)), ..self }
    }

    /// The address `bytes` further on.
    pub fn plus(self, bytes: i64) -> Addr {
        Addr { disp: self.disp + bytes, ..self }
    }

    /// The values it reads.
    pub fn operands(&self) -> SmallVec<[Value; 2]> {
        std::iter::once(self.base).chain(self.index.map(|(i, _)| i)).collect()
    }
}

impl From<Value> for Addr {
    fn from(base: Value) -> Addr {
        base.at(0)
    }
}

impl From<(Value, i64)> for Addr {
    fn from((base, disp): (Value, i64)) -> Addr {
        base.at(disp)
    }
}

/// Two operands of one type, the result of the same type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the meaning; the special cases stand at the top of the file")]
pub enum BinaryOp {
    // Integers.
    Add,
    Sub,
    Mul,
    DivS,
    DivU,
    RemS,
    RemU,
    Shl,
    ShrS,
    ShrU,
    MinS,
    MaxS,
    MinU,
    MaxU,
    // Integers and masks.
    And,
    Or,
    Xor,
    // Floats.
    FAdd,
    FSub,
    FMul,
    FDiv,
    PMin,
    PMax,
    FMin,
    FMax,
}

impl BinaryOp {
    /// Every operation, in the order of the declaration.
    pub const ALL: [BinaryOp; 25] = {
        use BinaryOp::*;
        [
            Add, Sub, Mul, DivS, DivU, RemS, RemU, Shl, ShrS, ShrU, MinS, MaxS, MinU, MaxU, And, Or, Xor, FAdd, FSub,
            FMul, FDiv, PMin, PMax, FMin, FMax,
        ]
    };

    /// Takes floats (else integers, and masks for `And`, `Or`, `Xor`)?
    pub fn is_float(self) -> bool {
        use BinaryOp::*;
        matches!(self, FAdd | FSub | FMul | FDiv | PMin | PMax | FMin | FMax)
    }

    /// May stand in a [`Op::Reduce`]?
    pub fn is_reduction(self) -> bool {
        use BinaryOp::*;
        !matches!(self, Sub | DivS | DivU | RemS | RemU | Shl | ShrS | ShrU | FSub | FDiv)
    }
}

/// One operand, the result of the same type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// Integer negation, wrapping.
    INeg,
    /// Bitwise complement of integers and masks.
    Not,
    /// Flips the sign bit.
    FNeg,
    /// Clears the sign bit.
    FAbs,
    /// Square root, correctly rounded.
    Sqrt,
    /// Toward -inf, to an integral float.
    Floor,
    /// Toward +inf.
    Ceil,
    /// Toward zero.
    Trunc,
    /// To nearest, ties to even.
    Nearest,
}

impl UnaryOp {
    /// Every operation, in the order of the declaration.
    pub const ALL: [UnaryOp; 9] = {
        use UnaryOp::*;
        [INeg, Not, FNeg, FAbs, Sqrt, Floor, Ceil, Trunc, Nearest]
    };

    /// Takes floats?
    pub fn is_float(self) -> bool {
        !matches!(self, UnaryOp::INeg | UnaryOp::Not)
    }
}

/// From one element type to another, lane by lane; the lane count stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvertOp {
    /// Integer to a wider one, sign extended.
    SExt,
    /// Integer to a wider one, zero extended.
    ZExt,
    /// Integer to a narrower one: the low bits.
    Narrow,
    /// `F32` to `F64`.
    Promote,
    /// `F64` to `F32`, rounded to nearest even.
    Demote,
    /// Signed integer to float.
    FromS,
    /// Unsigned integer to float.
    FromU,
    /// Float to signed integer: truncates, saturates, NaN gives 0.
    ToS,
    /// Float to unsigned integer: truncates, saturates, NaN gives 0.
    ToU,
    /// The same bits as another element type of the same width.
    Bitcast,
}

impl ConvertOp {
    /// Every operation, in the order of the declaration.
    pub const ALL: [ConvertOp; 10] = {
        use ConvertOp::*;
        [SExt, ZExt, Narrow, Promote, Demote, FromS, FromU, ToS, ToU, Bitcast]
    };
}

/// How two integers compare; `S` signed, `U` unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the meaning")]
pub enum IntCc {
    Eq,
    Ne,
    LtS,
    LeS,
    GtS,
    GeS,
    LtU,
    LeU,
    GtU,
    GeU,
}

impl IntCc {
    /// Every comparison.
    pub const ALL: [IntCc; 10] = {
        use IntCc::*;
        [Eq, Ne, LtS, LeS, GtS, GeS, LtU, LeU, GtU, GeU]
    };
}

/// How two floats compare: false when either is NaN, except `Ne` and `Unordered`, which are true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the meaning")]
pub enum FloatCc {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Neither is NaN.
    Ordered,
    /// One is NaN.
    Unordered,
}

impl FloatCc {
    /// Every comparison.
    pub const ALL: [FloatCc; 8] = {
        use FloatCc::*;
        [Eq, Ne, Lt, Le, Gt, Ge, Ordered, Unordered]
    };
}

/// What an instruction does. Its result types follow from it and from its operands' types: [`typing::result_types`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A scalar or `Mask(1)` by its bits, those beyond the width zero.
    Const {
        /// `Scalar` or `Mask(1)`.
        ty: Type,
        /// Zero-extended.
        bits: u64,
    },
    /// A vector or mask, lane by lane.
    VecConst {
        /// `Vector` or `Mask` of two or more lanes.
        ty: Type,
        /// One for each lane, zero-extended.
        lanes: Vec<u64>,
    },
    /// A scalar (or `Mask(1)`) in every lane.
    Splat {
        /// The vector or mask to make.
        ty: Type,
        /// Its lane.
        value: Value,
    },
    /// `op(a)`.
    Unary(UnaryOp, Value),
    /// `a op b`.
    Binary(BinaryOp, Value, Value),
    /// `a * b + c` on floats: fused where `Target::fma`, else two roundings.
    MulAdd(Value, Value, Value),
    /// To another element type.
    Convert {
        /// Which conversion.
        op: ConvertOp,
        /// The result's type, of as many lanes.
        to: Type,
        /// What is converted.
        value: Value,
    },
    /// A mask of as many lanes.
    ICmp(IntCc, Value, Value),
    /// A mask of as many lanes.
    FCmp(FloatCc, Value, Value),
    /// `mask ? a : b`, lane by lane; a `Mask(1)` selects whole values of any type, pointers too.
    Select {
        /// Which.
        mask: Value,
        /// Where true.
        a: Value,
        /// Where false.
        b: Value,
    },
    /// A mask as `I8` lanes of 0 or 1.
    MaskToInt(Value),
    /// Is any lane of the mask true? A `Mask(1)`.
    Any(Value),
    /// Are all lanes of the mask true? A `Mask(1)`.
    All(Value),
    /// Reads a scalar or vector. No alignment is assumed.
    Load {
        /// What is read.
        ty: Type,
        /// From where.
        addr: Addr,
    },
    /// Reads the first `count` lanes, `1 <= count < lanes`; the others are 0 and are not touched in memory.
    LoadPart {
        /// A vector.
        ty: Type,
        /// Of lane 0.
        addr: Addr,
        /// How many lanes.
        count: u8,
    },
    /// Reads one element into every lane (x86 `vbroadcastss`, AArch64 `ld1r`).
    LoadSplat {
        /// A vector.
        ty: Type,
        /// Of the element.
        addr: Addr,
    },
    /// Writes a scalar or vector. No alignment is assumed.
    Store {
        /// Where.
        addr: Addr,
        /// What.
        value: Value,
    },
    /// Writes the first `count` lanes, `1 <= count < lanes`.
    StorePart {
        /// Of lane 0.
        addr: Addr,
        /// A vector.
        value: Value,
        /// How many lanes.
        count: u8,
    },
    /// An address as a pointer.
    PtrAdd(Addr),
    /// A hint to bring the line of this address near; no meaning. May point anywhere.
    Prefetch(Addr),
    /// One lane of a vector or mask.
    ExtractLane {
        /// Of what.
        value: Value,
        /// Which, below the lane count.
        lane: u8,
    },
    /// The vector with one lane replaced.
    InsertLane {
        /// The vector.
        into: Value,
        /// Which lane.
        lane: u8,
        /// The new scalar.
        value: Value,
    },
    /// All lanes combined in a tree, see the top of the file.
    Reduce(BinaryOp, Value),
    /// Lane `i` of the result is lane `lanes[i]` of `a` followed by `b`. The result has `lanes.len()` lanes, which may differ
    /// from those of `a` (two vectors joined, half a vector taken).
    Shuffle {
        /// Lanes `0..n`.
        a: Value,
        /// Lanes `n..2n`.
        b: Value,
        /// A power of two of them, two or more.
        lanes: Vec<u8>,
    },
    /// A counted loop; its results are the last yields (the initial values when it runs zero times).
    Loop(Box<Loop>),
    /// One of two blocks; its results are that block's yields.
    If(Box<If>),
}

/// `for (iv = lo; iv < hi; iv += step)`, signed; `lo` and `hi` are read once, before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Loop {
    /// The induction variable, an `I64` defined in the body.
    pub iv: Value,
    /// The first index.
    pub lo: Value,
    /// The end, exclusive.
    pub hi: Value,
    /// A positive constant.
    pub step: i64,
    /// The values that go round.
    pub carried: Vec<Carried>,
    /// What is repeated; yields the next value of each carried parameter.
    pub body: Block,
}

/// One loop-carried value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Carried {
    /// Its name in the body.
    pub param: Value,
    /// Its first value.
    pub init: Value,
}

/// A conditional; both blocks yield the same types.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct If {
    /// A `Mask(1)`.
    pub cond: Value,
    /// Where true.
    pub then: Block,
    /// Where false.
    pub otherwise: Block,
}

/// Instructions in order, then the values handed to the construct around.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Block {
    /// In order of execution.
    pub insts: Vec<Inst>,
    /// Empty for the body of the kernel.
    pub yields: Vec<Value>,
}

/// One instruction: nothing, one value, or (loops and conditionals) several are defined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inst {
    /// The values defined.
    pub results: SmallVec<[Value; 1]>,
    /// How.
    pub op: Op,
}

impl Inst {
    /// The one result.
    ///
    /// # Panics
    /// When it has not exactly one.
    pub fn result(&self) -> Value {
        assert_eq!(self.results.len(), 1, "an instruction with one result");
        self.results[0]
    }
}

impl Op {
    /// Calls `f` with every value that the instruction itself reads; not with those read or yielded inside its blocks.
    pub fn for_each_operand(&self, mut f: impl FnMut(Value)) {
        match self {
            Op::Const { .. } | Op::VecConst { .. } => {}
            Op::Splat { value, .. }
            | Op::Unary(_, value)
            | Op::Convert { value, .. }
            | Op::MaskToInt(value)
            | Op::Any(value)
            | Op::All(value)
            | Op::ExtractLane { value, .. }
            | Op::Reduce(_, value) => f(*value),
            Op::Binary(_, a, b) | Op::ICmp(_, a, b) | Op::FCmp(_, a, b) | Op::Shuffle { a, b, .. } => {
                f(*a);
                f(*b);
            }
            Op::InsertLane { into, value, .. } => {
                f(*into);
                f(*value);
            }
            Op::MulAdd(a, b, c) | Op::Select { mask: a, a: b, b: c } => {
                f(*a);
                f(*b);
                f(*c);
            }
            Op::Load { addr, .. }
            | Op::LoadPart { addr, .. }
            | Op::LoadSplat { addr, .. }
            | Op::PtrAdd(addr)
            | Op::Prefetch(addr) => addr.operands().into_iter().for_each(f),
            Op::Store { addr, value } | Op::StorePart { addr, value, .. } => {
                addr.operands().into_iter().for_each(&mut f);
                f(*value);
            }
            Op::Loop(l) => {
                f(l.lo);
                f(l.hi);
                l.carried.iter().for_each(|c| f(c.init));
            }
            Op::If(i) => f(i.cond),
        }
    }

    /// The blocks inside: a loop's body, a conditional's two.
    pub fn blocks(&self) -> SmallVec<[&Block; 2]> {
        match self {
            Op::Loop(l) => SmallVec::from_iter([&l.body]),
            Op::If(i) => SmallVec::from_iter([&i.then, &i.otherwise]),
            _ => SmallVec::new(),
        }
    }

    /// The same, to change them.
    pub fn for_each_operand_mut(&mut self, mut f: impl FnMut(&mut Value)) {
        let in_addr = |addr: &mut Addr, f: &mut dyn FnMut(&mut Value)| {
            f(&mut addr.base);
            if let Some((index, _)) = &mut addr.index {
                f(index);
            }
        };
        match self {
            Op::Const { .. } | Op::VecConst { .. } => {}
            Op::Splat { value, .. }
            | Op::Unary(_, value)
            | Op::Convert { value, .. }
            | Op::MaskToInt(value)
            | Op::Any(value)
            | Op::All(value)
            | Op::ExtractLane { value, .. }
            | Op::Reduce(_, value) => f(value),
            Op::Binary(_, a, b) | Op::ICmp(_, a, b) | Op::FCmp(_, a, b) | Op::Shuffle { a, b, .. } => {
                f(a);
                f(b);
            }
            Op::InsertLane { into, value, .. } => {
                f(into);
                f(value);
            }
            Op::MulAdd(a, b, c) | Op::Select { mask: a, a: b, b: c } => {
                f(a);
                f(b);
                f(c);
            }
            Op::Load { addr, .. }
            | Op::LoadPart { addr, .. }
            | Op::LoadSplat { addr, .. }
            | Op::PtrAdd(addr)
            | Op::Prefetch(addr) => in_addr(addr, &mut f),
            Op::Store { addr, value } | Op::StorePart { addr, value, .. } => {
                in_addr(addr, &mut f);
                f(value);
            }
            Op::Loop(l) => {
                f(&mut l.lo);
                f(&mut l.hi);
                l.carried.iter_mut().for_each(|c| f(&mut c.init));
            }
            Op::If(i) => f(&mut i.cond),
        }
    }

    /// The blocks inside, to change them.
    pub fn blocks_mut(&mut self) -> SmallVec<[&mut Block; 2]> {
        match self {
            Op::Loop(l) => SmallVec::from_iter([&mut l.body]),
            Op::If(i) => SmallVec::from_iter([&mut i.then, &mut i.otherwise]),
            _ => SmallVec::new(),
        }
    }

    /// Has no effect but its results, so that it may be dropped when they are unused? Loads are (they cannot trap within
    /// their buffer); stores, prefetches, loops and conditionals are not.
    pub fn is_pure(&self) -> bool {
        !matches!(self, Op::Store { .. } | Op::StorePart { .. } | Op::Prefetch(_) | Op::Loop(_) | Op::If(_))
    }
}

/// What a kernel does with an operand's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only loads.
    Read,
    /// Only stores.
    Write,
    /// Both.
    ReadWrite,
}

/// One operand of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArgDecl {
    /// For listings and errors; need not be unique.
    pub name: String,
    /// What is done with it.
    pub access: Access,
    /// What the caller promises of the pointer, in bytes, a power of two.
    pub align: u32,
}

impl ArgDecl {
    /// An operand that is only read.
    pub fn read(name: impl Into<String>, align: u32) -> ArgDecl {
        ArgDecl { name: name.into(), access: Access::Read, align }
    }

    /// An operand that is only written.
    pub fn write(name: impl Into<String>, align: u32) -> ArgDecl {
        ArgDecl { name: name.into(), access: Access::Write, align }
    }

    /// An operand that is read and written.
    pub fn read_write(name: impl Into<String>, align: u32) -> ArgDecl {
        ArgDecl { name: name.into(), access: Access::ReadWrite, align }
    }
}

/// One function over buffers. The first values are its entry values: a `Ptr` for each operand, then [`scratch`](Self::scratch),
/// [`begin`](Self::begin) and [`end`](Self::end).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// A C identifier; unique in a program only after lowering has made it so.
    pub name: String,
    /// The operands.
    pub args: Vec<ArgDecl>,
    /// What is done.
    pub body: Block,
    /// The type of each value, entry values first.
    pub types: Vec<Type>,
}

impl Kernel {
    /// The pointer to operand `i`.
    pub fn arg(&self, i: usize) -> Value {
        assert!(i < self.args.len(), "kernel {} has {} operands", self.name, self.args.len());
        Value(i as u32)
    }

    /// The pointer to this thread's scratch memory, aligned to 64 bytes.
    pub fn scratch(&self) -> Value {
        Value(self.args.len() as u32)
    }

    /// The first task to do.
    pub fn begin(&self) -> Value {
        Value(self.args.len() as u32 + 1)
    }

    /// The end of the tasks to do, exclusive.
    pub fn end(&self) -> Value {
        Value(self.args.len() as u32 + 2)
    }

    /// How many values are defined at entry.
    pub fn entry_values(&self) -> usize {
        self.args.len() + 3
    }

    /// The type of a value.
    pub fn ty(&self, v: Value) -> Type {
        self.types[v.index()]
    }
}
