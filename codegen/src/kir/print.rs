//! The text form of kernel IR, for people, tests and bug reports. [`super::parse`] reads it back.
//!
//! ```text
//! kernel relu(%0 = read "x" align 4, %1 = write "y" align 4) {       operands; then come
//!   %5: f32x8 = const 0.0                                            %2 scratch, %3 begin, %4 end
//!   loop %6 = %3 .. %4 step 1 {
//!     %7: f32x8 = load %0 + %6*32
//!     %8: f32x8 = pmax %5, %7
//!     store %1 + %6*32, %8
//!   }
//! }
//! ```
//!
//! A result's type stands after it. A constant with equal lanes is written once, others as `[a, b, ..]`; floats are in the
//! shortest decimal form that reads back, NaNs in hexadecimal. Loops and conditionals that give values:
//!
//! ```text
//! %9: f32 = loop %10 = %3 .. %4 step 2, %11 = %7 {  ...  yield %12  }
//! %13: f32 = if %8 {  yield %9  } else {  yield %7  }
//! ```

use super::*;

/// The spelling of a two-operand instruction.
pub(super) fn binary_name(op: BinaryOp) -> &'static str {
    use BinaryOp::*;
    match op {
        Add => "add",
        Sub => "sub",
        Mul => "mul",
        DivS => "div_s",
        DivU => "div_u",
        RemS => "rem_s",
        RemU => "rem_u",
        Shl => "shl",
        ShrS => "shr_s",
        ShrU => "shr_u",
        MinS => "min_s",
        MaxS => "max_s",
        MinU => "min_u",
        MaxU => "max_u",
        And => "and",
        Or => "or",
        Xor => "xor",
        FAdd => "fadd",
        FSub => "fsub",
        FMul => "fmul",
        FDiv => "fdiv",
        PMin => "pmin",
        PMax => "pmax",
        FMin => "fmin",
        FMax => "fmax",
    }
}

/// The spelling of a one-operand instruction.
pub(super) fn unary_name(op: UnaryOp) -> &'static str {
    match op {
        UnaryOp::INeg => "ineg",
        UnaryOp::Not => "not",
        UnaryOp::FNeg => "fneg",
        UnaryOp::FAbs => "fabs",
        UnaryOp::Sqrt => "sqrt",
        UnaryOp::Floor => "floor",
        UnaryOp::Ceil => "ceil",
        UnaryOp::Trunc => "trunc",
        UnaryOp::Nearest => "nearest",
    }
}

/// The spelling of a conversion.
pub(super) fn convert_name(op: ConvertOp) -> &'static str {
    match op {
        ConvertOp::SExt => "sext",
        ConvertOp::ZExt => "zext",
        ConvertOp::Narrow => "narrow",
        ConvertOp::Promote => "promote",
        ConvertOp::Demote => "demote",
        ConvertOp::FromS => "from_s",
        ConvertOp::FromU => "from_u",
        ConvertOp::ToS => "to_s",
        ConvertOp::ToU => "to_u",
        ConvertOp::Bitcast => "bitcast",
    }
}

/// The spelling of an integer comparison, after `icmp.`.
pub(super) fn int_cc_name(cc: IntCc) -> &'static str {
    match cc {
        IntCc::Eq => "eq",
        IntCc::Ne => "ne",
        IntCc::LtS => "lt_s",
        IntCc::LeS => "le_s",
        IntCc::GtS => "gt_s",
        IntCc::GeS => "ge_s",
        IntCc::LtU => "lt_u",
        IntCc::LeU => "le_u",
        IntCc::GtU => "gt_u",
        IntCc::GeU => "ge_u",
    }
}

/// The spelling of a float comparison, after `fcmp.`.
pub(super) fn float_cc_name(cc: FloatCc) -> &'static str {
    match cc {
        FloatCc::Eq => "eq",
        FloatCc::Ne => "ne",
        FloatCc::Lt => "lt",
        FloatCc::Le => "le",
        FloatCc::Gt => "gt",
        FloatCc::Ge => "ge",
        FloatCc::Ordered => "ord",
        FloatCc::Unordered => "uno",
    }
}

/// The spelling of an access.
pub(super) fn access_name(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
        Access::ReadWrite => "read_write",
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}(", self.name)?;
        for (i, arg) in self.args.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}%{i} = {} {:?} align {}", access_name(arg.access), arg.name, arg.align)?;
        }
        f.write_str(") {\n")?;
        self.write_block(f, &self.body, 1)?;
        f.write_str("}\n")
    }
}

/// One instruction as text; of loops and conditionals only the head.
pub struct InstText<'a> {
    /// Whose types are printed.
    pub kernel: &'a Kernel,
    /// What is printed.
    pub inst: &'a Inst,
}

impl fmt::Display for InstText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kernel.write_head(f, self.inst)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base)?;
        if let Some((index, scale)) = self.index {
            write!(f, " + {index}*{scale}")?;
        }
        match self.disp {
            0 => Ok(()),
            d if d < 0 => write!(f, " - {}", d.unsigned_abs()),
            d => write!(f, " + {d}"),
        }
    }
}

impl Kernel {
    fn write_block(&self, f: &mut fmt::Formatter<'_>, block: &Block, depth: usize) -> fmt::Result {
        let pad = "  ".repeat(depth);
        for inst in &block.insts {
            f.write_str(&pad)?;
            self.write_head(f, inst)?;
            match &inst.op {
                Op::Loop(l) => {
                    f.write_str(" {\n")?;
                    self.write_block(f, &l.body, depth + 1)?;
                    write!(f, "{pad}}}")?;
                }
                Op::If(i) => {
                    f.write_str(" {\n")?;
                    self.write_block(f, &i.then, depth + 1)?;
                    writeln!(f, "{pad}}} else {{")?;
                    self.write_block(f, &i.otherwise, depth + 1)?;
                    write!(f, "{pad}}}")?;
                }
                _ => {}
            }
            f.write_str("\n")?;
        }
        if !block.yields.is_empty() {
            writeln!(f, "{pad}yield {}", List(&block.yields))?;
        }
        Ok(())
    }

    fn write_head(&self, f: &mut fmt::Formatter<'_>, inst: &Inst) -> fmt::Result {
        for (i, r) in inst.results.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match self.types.get(r.index()) {
                Some(t) => write!(f, "{comma}{r}: {t}")?,
                None => write!(f, "{comma}{r}: ?")?,
            }
        }
        if !inst.results.is_empty() {
            f.write_str(" = ")?;
        }
        match &inst.op {
            Op::Const { ty, bits } => write!(f, "const {}", Lane(ty.elem(), *bits)),
            Op::VecConst { ty, lanes } if lanes.iter().all(|l| *l == lanes[0]) => {
                write!(f, "const {}", Lane(ty.elem(), lanes[0]))
            }
            Op::VecConst { ty, lanes } => {
                let lanes: Vec<String> = lanes.iter().map(|&l| Lane(ty.elem(), l).to_string()).collect();
                write!(f, "const [{}]", lanes.join(", "))
            }
            Op::Splat { value, .. } => write!(f, "splat {value}"),
            Op::Unary(op, v) => write!(f, "{} {v}", unary_name(*op)),
            Op::Binary(op, a, b) => write!(f, "{} {a}, {b}", binary_name(*op)),
            Op::MulAdd(a, b, c) => write!(f, "mul_add {a}, {b}, {c}"),
            Op::Convert { op, value, .. } => write!(f, "{} {value}", convert_name(*op)),
            Op::ICmp(cc, a, b) => write!(f, "icmp.{} {a}, {b}", int_cc_name(*cc)),
            Op::FCmp(cc, a, b) => write!(f, "fcmp.{} {a}, {b}", float_cc_name(*cc)),
            Op::Select { mask, a, b } => write!(f, "select {mask}, {a}, {b}"),
            Op::MaskToInt(m) => write!(f, "mask_to_int {m}"),
            Op::Any(m) => write!(f, "any {m}"),
            Op::All(m) => write!(f, "all {m}"),
            Op::Load { addr, .. } => write!(f, "load {addr}"),
            Op::LoadPart { addr, count, .. } => write!(f, "load_part {addr}, {count}"),
            Op::LoadSplat { addr, .. } => write!(f, "load_splat {addr}"),
            Op::Store { addr, value } => write!(f, "store {addr}, {value}"),
            Op::StorePart { addr, value, count } => write!(f, "store_part {addr}, {value}, {count}"),
            Op::PtrAdd(addr) => write!(f, "ptr {addr}"),
            Op::Prefetch(addr) => write!(f, "prefetch {addr}"),
            Op::ExtractLane { value, lane } => write!(f, "extract {value}, {lane}"),
            Op::InsertLane { into, lane, value } => write!(f, "insert {into}, {lane}, {value}"),
            Op::Reduce(op, v) => write!(f, "reduce.{} {v}", binary_name(*op)),
            Op::Shuffle { a, b, lanes } => write!(f, "shuffle {a}, {b}, {lanes:?}"),
            Op::Loop(l) => {
                write!(f, "loop {} = {} .. {} step {}", l.iv, l.lo, l.hi, l.step)?;
                l.carried.iter().try_for_each(|c| write!(f, ", {} = {}", c.param, c.init))
            }
            Op::If(i) => write!(f, "if {}", i.cond),
        }
    }
}

struct List<'a>(&'a [Value]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, v) in self.0.iter().enumerate() {
            write!(f, "{}{v}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// One lane of a constant.
struct Lane(Option<Elem>, u64);

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lane(elem, bits) = *self;
        match elem {
            None => write!(f, "{}", bits != 0),
            Some(Elem::F32) => match f32::from_bits(bits as u32) {
                x if x.is_nan() => write!(f, "{bits:#x}"),
                x => write!(f, "{x:?}"),
            },
            Some(Elem::F64) => match f64::from_bits(bits) {
                x if x.is_nan() => write!(f, "{bits:#x}"),
                x => write!(f, "{x:?}"),
            },
            Some(int) => write!(f, "{}", builder::sign_extend(int, bits)),
        }
    }
}
