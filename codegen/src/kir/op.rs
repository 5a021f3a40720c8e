//! The instructions of the kernel IR: operations, blocks, loops, conditionals.
//!
//! What each does to a lane is said in [`super`] and defined by [`super::interp::lane`]; which types it takes, by
//! [`super::typing`].

use super::{Addr, Type, Value};
use smallvec::SmallVec;

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

/// What an instruction does. Its result types follow from it and from its operands' types: [`super::typing::result_types`].
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
    /// A hint to bring the line of this address into L2; no meaning. May point anywhere.
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
