//! Pointwise programs: what an elementwise operator computes at one element, as straight-line SSA over scalars.
//!
//! ```text
//! silu(x):  %0 = input 0        tanh, exp, ... are primitives with one meaning here; an activation such as SiLU or
//!           %1 = sigmoid %0     HardSwish is a few of them. The program is the operator's definition: the reference
//!           %2 = mul %0, %1     evaluator interprets it one element at a time, code generation emits it on vectors
//!           result %2           and fusion concatenates programs. Instructions only refer to earlier ones.
//! ```
//!
//! Every instruction has an element type. Operands of arithmetic have the type of the result; comparisons give `Bool`.

use crate::DType;
use std::fmt;

/// The index of an instruction in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ref(pub u32);

macro_rules! fn_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $name {
            /// Every member, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            /// The name in the text form.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.name()) }
        }
        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> Result<$name, String> {
                $name::ALL.iter().copied().find(|k| k.name() == s).ok_or_else(|| format!("unknown {} `{s}`", stringify!($name)))
            }
        }
    };
}

fn_enum! {
    /// Functions of one number. Floats only unless the text says otherwise.
    UnaryFn {
        /// `-x`; integers wrap.
        Neg = "neg",
        /// `|x|`; integers wrap at the minimum.
        Abs = "abs",
        /// -1, 0 or 1; any number type. NaN stays NaN.
        Sign = "sign",
        /// `1 / x`.
        Reciprocal = "reciprocal",
        /// Square root.
        Sqrt = "sqrt",
        /// e^x.
        Exp = "exp",
        /// Natural logarithm.
        Log = "log",
        /// `ln(1 + x)`, accurate near 0.
        Log1p = "log1p",
        /// Sine.
        Sin = "sin",
        /// Cosine.
        Cos = "cos",
        /// Tangent.
        Tan = "tan",
        /// Inverse sine.
        Asin = "asin",
        /// Inverse cosine.
        Acos = "acos",
        /// Inverse tangent.
        Atan = "atan",
        /// Hyperbolic sine.
        Sinh = "sinh",
        /// Hyperbolic cosine.
        Cosh = "cosh",
        /// Hyperbolic tangent.
        Tanh = "tanh",
        /// Inverse hyperbolic sine.
        Asinh = "asinh",
        /// Inverse hyperbolic cosine.
        Acosh = "acosh",
        /// Inverse hyperbolic tangent.
        Atanh = "atanh",
        /// `1 / (1 + e^-x)`.
        Sigmoid = "sigmoid",
        /// The error function.
        Erf = "erf",
        /// Largest integer not above x.
        Floor = "floor",
        /// Smallest integer not below x.
        Ceil = "ceil",
        /// Nearest integer, ties to even (ONNX Round).
        Round = "round",
        /// Whether x is NaN; gives `Bool`.
        IsNan = "is_nan",
        /// Whether x is infinite; gives `Bool`.
        IsInf = "is_inf",
        /// Logical not; `Bool` only.
        Not = "not",
        /// Bitwise not; integers only.
        BitNot = "bit_not",
    }
}

fn_enum! {
    /// Functions of two numbers of one type.
    BinaryFn {
        /// Sum; integers wrap.
        Add = "add",
        /// Difference; integers wrap.
        Sub = "sub",
        /// Product; integers wrap.
        Mul = "mul",
        /// Quotient. Integers truncate toward zero; an integer division by zero gives 0 (ONNX leaves it open).
        Div = "div",
        /// Power; integers by repeated squaring, wrapping; a negative integer exponent gives the truncated quotient.
        Pow = "pow",
        /// Remainder with the sign of the divisor (Python, ONNX Mod fmod=0); 0 for an integer divisor 0.
        Mod = "mod",
        /// Remainder with the sign of the dividend (C fmod, ONNX Mod fmod=1); 0 for an integer divisor 0.
        Fmod = "fmod",
        /// Minimum; NaN if either is (numpy.minimum, as ONNX says).
        Min = "min",
        /// Maximum; NaN if either is.
        Max = "max",
        /// Logical and; `Bool` only.
        And = "and",
        /// Logical or; `Bool` only.
        Or = "or",
        /// Logical exclusive or; `Bool` only.
        Xor = "xor",
        /// Bitwise and; integers only.
        BitAnd = "bit_and",
        /// Bitwise or; integers only.
        BitOr = "bit_or",
        /// Bitwise exclusive or; integers only.
        BitXor = "bit_xor",
        /// Shift left; unsigned integers only; 0 when the count reaches the width.
        Shl = "shl",
        /// Shift right; unsigned integers only; 0 when the count reaches the width.
        Shr = "shr",
    }
}

fn_enum! {
    /// Comparisons; IEEE: with a NaN all are false but `Ne`.
    CompareFn {
        /// `a == b`.
        Eq = "eq",
        /// `a != b`.
        Ne = "ne",
        /// `a < b`.
        Lt = "lt",
        /// `a <= b`.
        Le = "le",
        /// `a > b`.
        Gt = "gt",
        /// `a >= b`.
        Ge = "ge",
    }
}

impl UnaryFn {
    /// Whether the function is defined on elements of this type.
    pub fn takes(self, t: DType) -> bool {
        match self {
            UnaryFn::Neg | UnaryFn::Abs | UnaryFn::Sign => t != DType::Bool,
            UnaryFn::Not => t == DType::Bool,
            UnaryFn::BitNot => t.is_int(),
            _ => t.is_float(),
        }
    }

    /// The type of its result on elements of this type.
    pub fn gives(self, t: DType) -> DType {
        if matches!(self, UnaryFn::IsNan | UnaryFn::IsInf) { DType::Bool } else { t }
    }
}

impl BinaryFn {
    /// Whether the function is defined on elements of this type.
    pub fn takes(self, t: DType) -> bool {
        match self {
            BinaryFn::And | BinaryFn::Or | BinaryFn::Xor => t == DType::Bool,
            BinaryFn::BitAnd | BinaryFn::BitOr | BinaryFn::BitXor => t.is_int(),
            BinaryFn::Shl | BinaryFn::Shr => t.is_int() && !t.is_signed_int(),
            _ => t != DType::Bool,
        }
    }
}

/// A scalar of a program: floats by their value, integers and bool by theirs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// For `F32` and `F64`; an f32 constant holds a number that f32 represents.
    Float(f64),
    /// For integers (two's complement, u64 by its bits) and `Bool` (0 or 1).
    Int(i64),
}

/// One instruction of a program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inst {
    /// The element of operand `n` at this index (broadcast as numpy does).
    Input(u32),
    /// A constant.
    Const(Scalar),
    /// A function of one number.
    Unary(UnaryFn, Ref),
    /// A function of two numbers.
    Binary(BinaryFn, Ref, Ref),
    /// A comparison.
    Compare(CompareFn, Ref, Ref),
    /// `if condition { then } else { otherwise }`.
    Select {
        /// A `Bool`.
        cond: Ref,
        /// The value where it is true.
        then: Ref,
        /// The value where it is false.
        otherwise: Ref,
    },
    /// The operand converted to the instruction's own type: ONNX Cast (float to integer truncates and saturates, NaN gives
    /// 0; narrowing integers wrap; to bool is `!= 0`).
    Cast(Ref),
}

impl Inst {
    /// The earlier instructions that it reads.
    pub fn operands(self) -> impl Iterator<Item = Ref> {
        let refs = match self {
            Inst::Input(_) | Inst::Const(_) => [None; 3],
            Inst::Unary(_, a) | Inst::Cast(a) => [Some(a), None, None],
            Inst::Binary(_, a, b) | Inst::Compare(_, a, b) => [Some(a), Some(b), None],
            Inst::Select { cond, then, otherwise } => [Some(cond), Some(then), Some(otherwise)],
        };
        refs.into_iter().flatten()
    }

    /// The same over other operands.
    #[must_use]
    pub fn map_operands(self, at: impl Fn(Ref) -> Ref) -> Inst {
        match self {
            Inst::Input(_) | Inst::Const(_) => self,
            Inst::Unary(f, a) => Inst::Unary(f, at(a)),
            Inst::Binary(f, a, b) => Inst::Binary(f, at(a), at(b)),
            Inst::Compare(f, a, b) => Inst::Compare(f, at(a), at(b)),
            Inst::Select { cond, then, otherwise } => {
                Inst::Select { cond: at(cond), then: at(then), otherwise: at(otherwise) }
            }
            Inst::Cast(a) => Inst::Cast(at(a)),
        }
    }
}

/// A program of one result over `inputs` operands.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Pointwise {
    insts: Vec<(Inst, DType)>,
    inputs: Vec<DType>,
    result: u32,
}

impl Pointwise {
    /// A program over operands of these types, without instructions yet; the result is its last instruction.
    pub fn new(inputs: &[DType]) -> Pointwise {
        Pointwise { insts: Vec::new(), inputs: inputs.to_vec(), result: 0 }
    }

    /// A program built by `body` from the references to its operands.
    pub fn build(inputs: &[DType], body: impl FnOnce(&mut Pointwise, &[Ref]) -> Ref) -> Pointwise {
        let mut p = Pointwise::new(inputs);
        let args: Vec<Ref> = (0..inputs.len()).map(|i| p.input(i)).collect();
        let result = body(&mut p, &args);
        p.set_result(result);
        p
    }

    /// A program from its parts; the caller has checked that instructions refer to earlier ones.
    pub(crate) fn from_parts(insts: Vec<(Inst, DType)>, inputs: Vec<DType>, result: Ref) -> Pointwise {
        Pointwise { insts, inputs, result: result.0 }
    }

    /// The types of the operands.
    pub fn inputs(&self) -> &[DType] {
        &self.inputs
    }

    /// The instructions, each with its type.
    pub fn insts(&self) -> &[(Inst, DType)] {
        &self.insts
    }

    /// The instruction whose value is the result.
    pub fn result(&self) -> Ref {
        Ref(self.result)
    }

    /// The type of the result.
    pub fn result_type(&self) -> DType {
        self.type_of(self.result())
    }

    /// The type of an instruction.
    pub fn type_of(&self, r: Ref) -> DType {
        self.insts[r.0 as usize].1
    }

    /// Makes `r` the result.
    pub fn set_result(&mut self, r: Ref) {
        self.result = r.0;
    }

    /// Appends an instruction; an identical earlier one is used again.
    pub fn push(&mut self, inst: Inst, ty: DType) -> Ref {
        let same = |&(i, t): &(Inst, DType)| {
            t == ty && i == inst && !matches!(i, Inst::Const(Scalar::Float(f)) if f.is_nan() || f == 0.0)
        };
        if let Some(at) = self.insts.iter().position(same) {
            return Ref(at as u32);
        }
        self.insts.push((inst, ty));
        self.result = self.insts.len() as u32 - 1;
        Ref(self.result)
    }

    /// Adds an operand of type `ty`.
    pub fn add_input(&mut self, ty: DType) -> Ref {
        self.inputs.push(ty);
        self.input(self.inputs.len() - 1)
    }

    /// Operand `n`.
    pub fn input(&mut self, n: usize) -> Ref {
        self.push(Inst::Input(n as u32), self.inputs[n])
    }

    /// A constant of type `ty` with the value `x` (rounded to f32 for `F32`, truncated for integers).
    pub fn constant(&mut self, ty: DType, x: f64) -> Ref {
        let s = match ty {
            DType::F32 => Scalar::Float(f64::from(x as f32)),
            DType::F64 => Scalar::Float(x),
            DType::Bool => Scalar::Int(i64::from(x != 0.0)),
            _ => Scalar::Int(x as i64),
        };
        self.push(Inst::Const(s), ty)
    }

    /// `f(a)`.
    pub fn unary(&mut self, f: UnaryFn, a: Ref) -> Ref {
        let ty = f.gives(self.type_of(a));
        self.push(Inst::Unary(f, a), ty)
    }

    /// `f(a, b)`.
    pub fn binary(&mut self, f: BinaryFn, a: Ref, b: Ref) -> Ref {
        self.push(Inst::Binary(f, a, b), self.type_of(a))
    }

    /// `f(a, x)` with a constant of a's type.
    pub fn binary_const(&mut self, f: BinaryFn, a: Ref, x: f64) -> Ref {
        let c = self.constant(self.type_of(a), x);
        self.binary(f, a, c)
    }

    /// A comparison.
    pub fn compare(&mut self, f: CompareFn, a: Ref, b: Ref) -> Ref {
        self.push(Inst::Compare(f, a, b), DType::Bool)
    }

    /// `if cond { then } else { otherwise }`.
    pub fn select(&mut self, cond: Ref, then: Ref, otherwise: Ref) -> Ref {
        self.push(Inst::Select { cond, then, otherwise }, self.type_of(then))
    }

    /// `a` converted to `ty`; `a` itself if it has that type.
    pub fn cast(&mut self, a: Ref, ty: DType) -> Ref {
        if self.type_of(a) == ty { a } else { self.push(Inst::Cast(a), ty) }
    }

    /// Checks what the methods above keep true by construction: instructions refer to earlier ones and have the types that
    /// their functions take and give. For programs that come from a text.
    pub fn check(&self) -> Result<(), String> {
        if self.result as usize >= self.insts.len() {
            return Err("the program has no result".into());
        }
        for (i, &(inst, ty)) in self.insts.iter().enumerate() {
            let of = |r: Ref| self.insts[..i].get(r.0 as usize).map(|(_, t)| *t);
            let fits = match inst {
                Inst::Input(n) => self.inputs.get(n as usize) == Some(&ty),
                Inst::Const(Scalar::Float(_)) => ty.is_float(),
                Inst::Const(Scalar::Int(_)) => !ty.is_float(),
                Inst::Unary(f, a) => of(a).is_some_and(|t| f.takes(t) && f.gives(t) == ty),
                Inst::Binary(f, a, b) => of(a) == Some(ty) && of(b) == Some(ty) && f.takes(ty),
                Inst::Compare(_, a, b) => of(a).is_some() && of(a) == of(b) && ty == DType::Bool,
                Inst::Select { cond, then, otherwise } => {
                    of(cond) == Some(DType::Bool) && of(then) == Some(ty) && of(otherwise) == Some(ty)
                }
                Inst::Cast(a) => of(a).is_some(),
            };
            if !fits {
                return Err(format!("instruction {i} of {self} has operands that do not fit it"));
            }
        }
        Ok(())
    }

    /// The same program in f64 wherever it is in f32, constants included: its exact meaning.
    pub fn promoted(&self) -> Pointwise {
        let ty = |t: &DType| if *t == DType::F32 { DType::F64 } else { *t };
        Pointwise {
            insts: self.insts.iter().map(|(inst, t)| (*inst, ty(t))).collect(),
            inputs: self.inputs.iter().map(ty).collect(),
            result: self.result,
        }
    }

    /// The program without the instructions and operands that its result does not need, and the operands that it keeps.
    pub fn pruned(&self) -> (Pointwise, Vec<usize>) {
        let mut needed = vec![false; self.insts.len()];
        needed[self.result as usize] = true;
        for (i, (inst, _)) in self.insts.iter().enumerate().rev().filter(|(i, _)| *i <= self.result as usize) {
            if needed[i] {
                inst.operands().for_each(|r| needed[r.0 as usize] = true);
            }
        }
        let reads = |n: usize| {
            let is = |inst: &Inst| *inst == Inst::Input(n as u32);
            self.insts.iter().zip(&needed).any(|((inst, _), needed)| *needed && is(inst))
        };
        let kept: Vec<usize> = (0..self.inputs.len()).filter(|n| reads(*n)).collect();
        let mut out = Pointwise::new(&kept.iter().map(|&n| self.inputs[n]).collect::<Vec<_>>());
        let mut map = vec![Ref(0); self.insts.len()];
        for (i, &(inst, ty)) in self.insts.iter().enumerate().filter(|(i, _)| needed[*i]) {
            let at = |n: u32| kept.iter().position(|&k| k == n as usize).unwrap_or(0);
            map[i] = match inst {
                Inst::Input(n) => out.input(at(n)),
                inst => out.push(inst.map_operands(|r| map[r.0 as usize]), ty),
            };
        }
        out.set_result(map[self.result as usize]);
        (out, kept)
    }

    /// Appends `other`, reading its operands from `args`; returns its result.
    pub fn inline(&mut self, other: &Pointwise, args: &[Ref]) -> Ref {
        let mut map: Vec<Ref> = Vec::with_capacity(other.insts.len());
        for &(inst, ty) in &other.insts {
            let new = match inst {
                Inst::Input(n) => args[n as usize],
                inst => self.push(inst.map_operands(|r| map[r.0 as usize]), ty),
            };
            map.push(new);
        }
        let result = map[other.result as usize];
        self.set_result(result);
        result
    }
}

impl fmt::Display for Pointwise {
    /// `{0=in0, 1=sigmoid(0), 2=mul(0,1) -> 2}` with types where they are not f32.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (inst, ty)) in self.insts.iter().enumerate() {
            write!(f, "{}{i}:{ty}=", if i > 0 { "; " } else { "" })?;
            match inst {
                Inst::Input(n) => write!(f, "in({n})")?,
                Inst::Const(Scalar::Float(x)) => write!(f, "float({x:?})")?,
                Inst::Const(Scalar::Int(x)) => write!(f, "int({x})")?,
                Inst::Unary(k, a) => write!(f, "{k}({})", a.0)?,
                Inst::Binary(k, a, b) => write!(f, "{k}({},{})", a.0, b.0)?,
                Inst::Compare(k, a, b) => write!(f, "{k}({},{})", a.0, b.0)?,
                Inst::Select { cond, then, otherwise } => write!(f, "select({},{},{})", cond.0, then.0, otherwise.0)?,
                Inst::Cast(a) => write!(f, "cast({})", a.0)?,
            }
        }
        write!(f, " -> {}}}", self.result)
    }
}
