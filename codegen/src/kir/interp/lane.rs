//! What each instruction does to one lane: the definition of the kernel IR's arithmetic, as plain scalar Rust.
//!
//! Lanes are `u64` with the bits beyond their element's width zero. NaNs that arithmetic makes are whatever Rust gives;
//! comparisons of results treat all NaNs as one (see the top of `kir`).

use crate::kir::builder::sign_extend;
use crate::kir::{BinaryOp, ConvertOp, Elem, FloatCc, IntCc, UnaryOp};

/// `a op b` on lanes of `elem`; `None` is a mask's truth values.
pub fn binary(op: BinaryOp, elem: Option<Elem>, a: u64, b: u64) -> u64 {
    match elem {
        Some(Elem::F32) => {
            let (x, y) = (f32::from_bits(a as u32), f32::from_bits(b as u32));
            u64::from(float_binary(op, x, y).to_bits())
        }
        Some(Elem::F64) => float_binary(op, f64::from_bits(a), f64::from_bits(b)).to_bits(),
        Some(int) => int_binary(op, int, a, b),
        None => int_binary(op, Elem::I8, a, b) & 1,
    }
}

fn int_binary(op: BinaryOp, elem: Elem, a: u64, b: u64) -> u64 {
    let (x, y) = (sign_extend(elem, a), sign_extend(elem, b));
    let amount = (b % elem.bits() as u64) as u32;
    let r = match op {
        BinaryOp::Add => a.wrapping_add(b),
        BinaryOp::Sub => a.wrapping_sub(b),
        BinaryOp::Mul => a.wrapping_mul(b),
        BinaryOp::DivS => {
            if y == 0 {
                0
            } else {
                x.wrapping_div(y) as u64
            }
        }
        BinaryOp::DivU => a.checked_div(b).unwrap_or(0),
        BinaryOp::RemS => {
            if y == 0 {
                a
            } else {
                x.wrapping_rem(y) as u64
            }
        }
        BinaryOp::RemU => a.checked_rem(b).unwrap_or(a),
        BinaryOp::Shl => a << amount,
        BinaryOp::ShrS => (x >> amount) as u64,
        BinaryOp::ShrU => a >> amount,
        BinaryOp::MinS => x.min(y) as u64,
        BinaryOp::MaxS => x.max(y) as u64,
        BinaryOp::MinU => a.min(b),
        BinaryOp::MaxU => a.max(b),
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
        float => unreachable!("{float:?} is typed as a float operation"),
    };
    r & elem.bit_mask()
}

/// The float operations that `f32` and `f64` share.
trait Float: Copy + PartialOrd {
    fn arithmetic(op: BinaryOp, x: Self, y: Self) -> Option<Self>;
    fn is_nan(self) -> bool;
    fn is_negative(self) -> bool;
}

macro_rules! float {
    ($t:ty) => {
        impl Float for $t {
            fn arithmetic(op: BinaryOp, x: Self, y: Self) -> Option<Self> {
                Some(match op {
                    BinaryOp::FAdd => x + y,
                    BinaryOp::FSub => x - y,
                    BinaryOp::FMul => x * y,
                    BinaryOp::FDiv => x / y,
                    _ => return None,
                })
            }
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            fn is_negative(self) -> bool {
                self.is_sign_negative()
            }
        }
    };
}
float!(f32);
float!(f64);

fn float_binary<F: Float>(op: BinaryOp, x: F, y: F) -> F {
    if let Some(r) = F::arithmetic(op, x, y) {
        return r;
    }
    match op {
        BinaryOp::PMin => {
            if x < y {
                x
            } else {
                y
            }
        }
        BinaryOp::PMax => {
            if x > y {
                x
            } else {
                y
            }
        }
        BinaryOp::FMin | BinaryOp::FMax if x.is_nan() => x,
        BinaryOp::FMin | BinaryOp::FMax if y.is_nan() => y,
        BinaryOp::FMin => {
            if x < y || (x == y && x.is_negative()) {
                x
            } else {
                y
            }
        }
        BinaryOp::FMax => {
            if x > y || (x == y && !x.is_negative()) {
                x
            } else {
                y
            }
        }
        int => unreachable!("{int:?} is typed as an integer operation"),
    }
}

/// `op(a)` on a lane of `elem`; `None` is a mask's truth value.
pub fn unary(op: UnaryOp, elem: Option<Elem>, a: u64) -> u64 {
    macro_rules! float {
        ($x:expr) => {
            match op {
                UnaryOp::Sqrt => $x.sqrt(),
                UnaryOp::Floor => $x.floor(),
                UnaryOp::Ceil => $x.ceil(),
                UnaryOp::Trunc => $x.trunc(),
                UnaryOp::Nearest => $x.round_ties_even(),
                int => unreachable!("{int:?} is typed as an integer operation"),
            }
        };
    }
    let sign = elem.map_or(1, |e| 1 << (e.bits() - 1));
    let ones = elem.map_or(1, Elem::bit_mask);
    match (op, elem) {
        (UnaryOp::INeg, _) => a.wrapping_neg() & ones,
        (UnaryOp::Not, _) => !a & ones,
        (UnaryOp::FNeg, _) => a ^ sign,
        (UnaryOp::FAbs, _) => a & !sign,
        (_, Some(Elem::F32)) => u64::from(float!(f32::from_bits(a as u32)).to_bits()),
        _ => float!(f64::from_bits(a)).to_bits(),
    }
}

/// `a * b + c` on floats, one rounding or two.
pub fn mul_add(fused: bool, elem: Elem, a: u64, b: u64, c: u64) -> u64 {
    match elem {
        Elem::F32 => {
            let [x, y, z] = [a, b, c].map(|v| f32::from_bits(v as u32));
            u64::from((if fused { x.mul_add(y, z) } else { x * y + z }).to_bits())
        }
        _ => {
            let [x, y, z] = [a, b, c].map(f64::from_bits);
            (if fused { x.mul_add(y, z) } else { x * y + z }).to_bits()
        }
    }
}

/// One lane of `from` as a lane of `to`.
pub fn convert(op: ConvertOp, from: Elem, to: Elem, a: u64) -> u64 {
    let signed = sign_extend(from, a);
    let float = |f32_case: fn(f32) -> u64, f64_case: fn(f64) -> u64| match from {
        Elem::F32 => f32_case(f32::from_bits(a as u32)),
        _ => f64_case(f64::from_bits(a)),
    };
    let r = match op {
        ConvertOp::SExt => signed as u64,
        ConvertOp::ZExt | ConvertOp::Narrow | ConvertOp::Bitcast => a,
        ConvertOp::Promote => f64::from(f32::from_bits(a as u32)).to_bits(),
        ConvertOp::Demote => u64::from((f64::from_bits(a) as f32).to_bits()),
        ConvertOp::FromS if to == Elem::F32 => u64::from((signed as f32).to_bits()),
        ConvertOp::FromS => (signed as f64).to_bits(),
        ConvertOp::FromU if to == Elem::F32 => u64::from((a as f32).to_bits()),
        ConvertOp::FromU => (a as f64).to_bits(),
        ConvertOp::ToS => match to {
            Elem::I8 => float(|x| x as i8 as u64, |x| x as i8 as u64),
            Elem::I16 => float(|x| x as i16 as u64, |x| x as i16 as u64),
            Elem::I32 => float(|x| x as i32 as u64, |x| x as i32 as u64),
            _ => float(|x| x as i64 as u64, |x| x as i64 as u64),
        },
        ConvertOp::ToU => match to {
            Elem::I8 => float(|x| u64::from(x as u8), |x| u64::from(x as u8)),
            Elem::I16 => float(|x| u64::from(x as u16), |x| u64::from(x as u16)),
            Elem::I32 => float(|x| u64::from(x as u32), |x| u64::from(x as u32)),
            _ => float(|x| x as u64, |x| x as u64),
        },
    };
    r & to.bit_mask()
}

/// Compares integers.
pub fn icmp(cc: IntCc, elem: Elem, a: u64, b: u64) -> bool {
    let (x, y) = (sign_extend(elem, a), sign_extend(elem, b));
    match cc {
        IntCc::Eq => a == b,
        IntCc::Ne => a != b,
        IntCc::LtS => x < y,
        IntCc::LeS => x <= y,
        IntCc::GtS => x > y,
        IntCc::GeS => x >= y,
        IntCc::LtU => a < b,
        IntCc::LeU => a <= b,
        IntCc::GtU => a > b,
        IntCc::GeU => a >= b,
    }
}

/// Compares floats.
pub fn fcmp(cc: FloatCc, elem: Elem, a: u64, b: u64) -> bool {
    use std::cmp::Ordering::*;
    let order = match elem {
        Elem::F32 => f32::from_bits(a as u32).partial_cmp(&f32::from_bits(b as u32)),
        _ => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
    };
    match cc {
        FloatCc::Eq => order == Some(Equal),
        FloatCc::Ne => order != Some(Equal),
        FloatCc::Lt => order == Some(Less),
        FloatCc::Le => matches!(order, Some(Less | Equal)),
        FloatCc::Gt => order == Some(Greater),
        FloatCc::Ge => matches!(order, Some(Greater | Equal)),
        FloatCc::Ordered => order.is_some(),
        FloatCc::Unordered => order.is_none(),
    }
}
