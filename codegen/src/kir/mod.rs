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
//! | `mod.rs` | kernels, values and their types, addresses |
//! | `op` | the instructions, blocks, loops, conditionals |
//! | [`typing`] | the type of every instruction's result: the one place that says what is well typed |
//! | [`builder`] | what templates are written against |
//! | [`canonical`] | the form in which equal kernels are equal |
//! | [`print`](mod@print), [`parse`] | the text form |
//! | [`verify`] | the invariants |
//! | [`alignment`] | known alignment of addresses |
//! | [`arbitrary`] | random kernels for differential tests |
//! | [`interp`] | the meaning: the oracle of the backends |

pub mod alignment;
pub mod arbitrary;
pub mod builder;
pub mod canonical;
pub mod interp;
mod op;
pub mod parse;
pub mod print;
pub mod typing;
pub mod verify;

#[cfg(test)]
mod tests;

pub use builder::{Builder, Index};
pub use op::{BinaryOp, Block, Carried, ConvertOp, FloatCc, If, Inst, IntCc, Loop, Op, UnaryOp};

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
