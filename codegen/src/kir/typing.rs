//! The typing rules of the kernel IR: what each instruction takes and gives.
//!
//! The builder, the parser and the verifier all ask [`result_types`], so that a rule stands in one place. It looks at one
//! instruction at a time: scoping and dominance are the verifier's.

use super::{Addr, BinaryOp, COND, ConvertOp, Elem, I64, Op, Type, UnaryOp, Value};
use smallvec::{SmallVec, smallvec};

/// Why an instruction is ill typed: "got X, expected Y".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TypeError(pub String);

macro_rules! ensure {
    ($cond:expr, $($message:tt)*) => {
        if !$cond {
            return Err(TypeError(format!($($message)*)));
        }
    };
}

/// The types of an instruction's results, given the types of values in scope.
///
/// # Errors
/// When an operand's type, a lane count or a constant does not fit the instruction.
pub fn result_types(op: &Op, ty: impl Fn(Value) -> Type) -> Result<SmallVec<[Type; 1]>, TypeError> {
    let one = |t: Type| -> Result<SmallVec<[Type; 1]>, TypeError> { Ok(smallvec![t]) };
    let none = || -> Result<SmallVec<[Type; 1]>, TypeError> { Ok(SmallVec::new()) };
    match op {
        Op::Const { ty, bits } => {
            ensure!(matches!(ty, Type::Scalar(_)) || *ty == COND, "a constant is a scalar or mask1, not {ty}");
            ensure!(fits(*ty, *bits), "constant {bits:#x} is wider than {ty}");
            one(*ty)
        }
        Op::VecConst { ty, lanes } => {
            ensure!(ty.is_valid() && ty.lanes() > 1, "a vector constant has two or more lanes, not {ty}");
            ensure!(lanes.len() == ty.lanes(), "{} lanes given for {ty}", lanes.len());
            ensure!(lanes.iter().all(|&bits| fits(*ty, bits)), "a lane is wider than those of {ty}");
            one(*ty)
        }
        Op::Splat { ty: to, value } => {
            ensure!(to.is_valid() && to.lanes() > 1, "splat makes two or more lanes, not {to}");
            ensure!(to.lane() == ty(*value), "splat to {to} of {}", ty(*value));
            one(*to)
        }
        Op::Unary(op, v) => {
            let t = ty(*v);
            let fits = match op {
                UnaryOp::Not => t.is_int() || matches!(t, Type::Mask(_)),
                UnaryOp::INeg => t.is_int(),
                _ => t.is_float(),
            };
            ensure!(fits, "{op:?} does not take {t}");
            one(t)
        }
        Op::Binary(op, a, b) => {
            let t = same(&ty, *a, *b)?;
            ensure!(takes(*op, t), "{op:?} does not take {t}");
            one(t)
        }
        Op::MulAdd(a, b, c) => {
            let t = same(&ty, *a, *b)?;
            ensure!(t == ty(*c), "operands of {t} and {}", ty(*c));
            ensure!(t.is_float(), "MulAdd does not take {t}");
            one(t)
        }
        Op::Convert { op, to, value } => {
            let from = ty(*value);
            let (Some(f), Some(t)) = (from.elem(), to.elem()) else {
                return Err(TypeError(format!("{op:?} from {from} to {to}")));
            };
            ensure!(to.is_valid() && from.lanes() == to.lanes(), "{op:?} from {from} to {to} changes the lane count");
            ensure!(converts(*op, f, t), "{op:?} from {from} to {to}");
            one(*to)
        }
        Op::ICmp(_, a, b) => {
            let t = same(&ty, *a, *b)?;
            ensure!(t.is_int(), "an integer comparison does not take {t}");
            one(t.mask())
        }
        Op::FCmp(_, a, b) => {
            let t = same(&ty, *a, *b)?;
            ensure!(t.is_float(), "a float comparison does not take {t}");
            one(t.mask())
        }
        Op::Select { mask, a, b } => {
            let t = same(&ty, *a, *b)?;
            ensure!(ty(*mask) == COND || ty(*mask) == t.mask(), "select of {t} by {}", ty(*mask));
            one(t)
        }
        Op::MaskToInt(m) => {
            ensure!(matches!(ty(*m), Type::Mask(_)), "expected a mask, got {}", ty(*m));
            one(Type::of(Elem::I8, ty(*m).lanes()))
        }
        Op::Any(m) | Op::All(m) => {
            ensure!(matches!(ty(*m), Type::Mask(_)), "expected a mask, got {}", ty(*m));
            one(COND)
        }
        Op::Load { ty: t, addr } => {
            check_addr(&ty, addr)?;
            ensure!(t.is_valid() && t.elem().is_some(), "{t} is not loaded");
            one(*t)
        }
        Op::LoadPart { ty: t, addr, count } => {
            check_addr(&ty, addr)?;
            ensure!(t.is_valid() && t.is_vector(), "{t} is not loaded in part");
            ensure!((1..t.lanes()).contains(&usize::from(*count)), "a part of {count} lanes of {t}");
            one(*t)
        }
        Op::LoadSplat { ty: t, addr } => {
            check_addr(&ty, addr)?;
            ensure!(t.is_valid() && t.is_vector(), "{t} is not a vector to splat to");
            one(*t)
        }
        Op::Store { addr, value } => {
            check_addr(&ty, addr)?;
            ensure!(ty(*value).elem().is_some(), "{} is not stored", ty(*value));
            none()
        }
        Op::StorePart { addr, value, count } => {
            check_addr(&ty, addr)?;
            let t = ty(*value);
            ensure!(t.is_vector(), "{t} is not stored in part");
            ensure!((1..t.lanes()).contains(&usize::from(*count)), "a part of {count} lanes of {t}");
            none()
        }
        Op::PtrAdd(addr) => {
            check_addr(&ty, addr)?;
            one(Type::Ptr)
        }
        Op::Prefetch(addr) => {
            check_addr(&ty, addr)?;
            none()
        }
        Op::ExtractLane { value, lane } => {
            let t = ty(*value);
            ensure!(t.lanes() > 1 && usize::from(*lane) < t.lanes(), "lane {lane} of {t}");
            one(t.lane())
        }
        Op::InsertLane { into, lane, value } => {
            let t = ty(*into);
            ensure!(t.is_vector() && usize::from(*lane) < t.lanes(), "lane {lane} of {t}");
            ensure!(t.lane() == ty(*value), "{} into a lane of {t}", ty(*value));
            one(t)
        }
        Op::Reduce(op, v) => {
            let t = ty(*v);
            ensure!(t.is_vector() && op.is_reduction() && takes(*op, t), "no reduction {op:?} of {t}");
            one(t.lane())
        }
        Op::Shuffle { a, b, lanes } => {
            let t = same(&ty, *a, *b)?;
            ensure!(t.is_vector(), "shuffle of {t}");
            ensure!(
                lanes.len() >= 2 && lanes.len().is_power_of_two() && lanes.len() <= Type::MAX_LANES,
                "shuffle to {} lanes",
                lanes.len()
            );
            ensure!(lanes.iter().all(|&l| usize::from(l) < 2 * t.lanes()), "shuffle lanes {lanes:?} of two {t}");
            one(Type::of(t.elem().expect("a vector has elements"), lanes.len()))
        }
        Op::Loop(l) => {
            ensure!(ty(l.lo) == I64 && ty(l.hi) == I64 && ty(l.iv) == I64, "loop bounds are i64");
            ensure!(l.step > 0, "loop step {} is not positive", l.step);
            ensure!(
                l.body.yields.len() == l.carried.len(),
                "{} yields for {} carried values",
                l.body.yields.len(),
                l.carried.len()
            );
            for (c, &y) in l.carried.iter().zip(&l.body.yields) {
                let t = ty(c.init);
                ensure!(t == ty(c.param) && t == ty(y), "carried {}: {t}, {}, {}", c.param, ty(c.param), ty(y));
            }
            Ok(l.carried.iter().map(|c| ty(c.init)).collect())
        }
        Op::If(i) => {
            ensure!(ty(i.cond) == COND, "condition of type {}", ty(i.cond));
            let (then, otherwise) = (&i.then.yields, &i.otherwise.yields);
            ensure!(
                then.len() == otherwise.len() && then.iter().zip(otherwise).all(|(&a, &b)| ty(a) == ty(b)),
                "the blocks of a conditional yield different types"
            );
            Ok(then.iter().map(|&v| ty(v)).collect())
        }
    }
}

/// Does `op` take operands of type `t`?
pub fn takes(op: BinaryOp, t: Type) -> bool {
    match op {
        BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => t.is_int() || matches!(t, Type::Mask(_)),
        op if op.is_float() => t.is_float(),
        _ => t.is_int(),
    }
}

/// Is there a conversion `op` from `from` to `to`?
pub fn converts(op: ConvertOp, from: Elem, to: Elem) -> bool {
    let (ints, wider) = (!from.is_float() && !to.is_float(), to.bits() > from.bits());
    match op {
        ConvertOp::SExt | ConvertOp::ZExt => ints && wider,
        ConvertOp::Narrow => ints && to.bits() < from.bits(),
        ConvertOp::Promote => from == Elem::F32 && to == Elem::F64,
        ConvertOp::Demote => from == Elem::F64 && to == Elem::F32,
        ConvertOp::FromS | ConvertOp::FromU => !from.is_float() && to.is_float(),
        ConvertOp::ToS | ConvertOp::ToU => from.is_float() && !to.is_float(),
        ConvertOp::Bitcast => from != to && from.bits() == to.bits(),
    }
}

fn fits(ty: Type, bits: u64) -> bool {
    match ty.elem() {
        Some(e) => bits & !e.bit_mask() == 0,
        None => bits <= 1,
    }
}

fn same(ty: impl Fn(Value) -> Type, a: Value, b: Value) -> Result<Type, TypeError> {
    ensure!(ty(a) == ty(b), "operands of {} and {}", ty(a), ty(b));
    Ok(ty(a))
}

fn check_addr(ty: impl Fn(Value) -> Type, addr: &Addr) -> Result<(), TypeError> {
    ensure!(ty(addr.base) == Type::Ptr, "address base of type {}", ty(addr.base));
    if let Some((index, scale)) = addr.index {
        ensure!(ty(index) == I64, "index of type {}", ty(index));
        ensure!((1..=i64::from(i32::MAX)).contains(&scale), "index scale {scale}");
    }
    ensure!(i32::try_from(addr.disp).is_ok(), "displacement {} is beyond 32 bits", addr.disp);
    Ok(())
}
