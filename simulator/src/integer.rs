//! Integers in general-purpose registers, and the flags.

use crate::memory::Memory;
use crate::operand::{Address, gpr};
use crate::state::{Flags, RSP, State};
use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind};

/// A register or memory, with its bytes.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// By number.
    Register(usize, usize),
    /// At an address.
    Memory(Address, usize),
}

/// What is read.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// From a place.
    Place(Place),
    /// Sign-extended.
    Immediate(u64),
}

/// What an arithmetic instruction does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Conjunction.
    And,
    /// Disjunction.
    Or,
    /// Exclusive disjunction.
    Xor,
    /// Left shift.
    Shl,
    /// Logical right shift.
    ShrU,
    /// Arithmetic right shift.
    ShrS,
    /// The low half of the signed product.
    Mul,
}

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub enum Integer {
    /// Extends from the source's bytes to the destination's.
    Move { to: Place, from: Value, signed: bool },
    /// An operation of `bytes`, with flags; without a destination for the flags alone.
    Alu { op: Op, to: Option<Place>, a: Value, b: Value, bytes: usize },
    /// `shlx`, `shrx`, `sarx`: 64 bits, no flags.
    Shift { op: Op, to: usize, from: Value, by: usize },
    /// `0 - x`.
    Neg(Place),
    /// All bits inverted, no flags.
    Not(Place),
    /// `rdx:rax` by 64 bits: quotient to rax, remainder to rdx.
    Divide { by: Value, signed: bool },
    /// The address itself.
    Lea { to: usize, address: Address },
    /// 64 bits to the stack.
    Push(usize),
    /// 64 bits from the stack.
    Pop(usize),
    /// 1 or 0, to a byte.
    Set { to: Place, condition: ConditionCode },
    /// 64 bits.
    MoveIf { to: usize, from: Value, condition: ConditionCode },
    /// Nothing.
    Nop,
}

impl Place {
    fn decode(i: &Instruction, op: u32) -> Option<Place> {
        match i.op_kind(op) {
            OpKind::Register => gpr(i.op_register(op)).map(|(r, bytes)| Place::Register(r, bytes)),
            OpKind::Memory => Some(Place::Memory(Address::decode(i)?, i.memory_size().size())),
            _ => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Place::Register(_, bytes) | Place::Memory(_, bytes) => *bytes,
        }
    }

    /// Zero-extended.
    #[inline(always)]
    fn read(&self, s: &State, m: &Memory) -> Result<u64, String> {
        match self {
            Place::Register(r, bytes) => Ok(s.gpr[*r] & low_bits(*bytes)),
            Place::Memory(a, bytes) => m.load(a.resolve(s), *bytes),
        }
    }

    #[inline(always)]
    fn write(&self, s: &mut State, m: &mut Memory, x: u64) -> Result<(), String> {
        match self {
            // A write of 32 bits clears the upper half, one of 16 or 8 leaves the rest.
            Place::Register(r, 8) => s.gpr[*r] = x,
            Place::Register(r, 4) => s.gpr[*r] = x & low_bits(4),
            Place::Register(r, bytes) => s.gpr[*r] = s.gpr[*r] & !low_bits(*bytes) | x & low_bits(*bytes),
            Place::Memory(a, bytes) => m.store(a.resolve(s), *bytes, x)?,
        }
        Ok(())
    }
}

impl Value {
    fn decode(i: &Instruction, op: u32) -> Option<Value> {
        match i.try_immediate(op) {
            Ok(x) => Some(Value::Immediate(x)),
            Err(_) => Some(Value::Place(Place::decode(i, op)?)),
        }
    }

    #[inline(always)]
    fn read(&self, s: &State, m: &Memory) -> Result<u64, String> {
        match self {
            Value::Place(p) => p.read(s, m),
            Value::Immediate(x) => Ok(*x),
        }
    }
}

/// The bits of `bytes` bytes.
#[inline(always)]
fn low_bits(bytes: usize) -> u64 {
    u64::MAX >> (64 - 8 * bytes)
}

fn sign_extended(x: u64, bytes: usize) -> i64 {
    let shift = 64 - 8 * bytes;
    ((x << shift) as i64) >> shift
}

impl Integer {
    /// The instruction, if it is of this family.
    pub fn decode(i: &Instruction) -> Option<Integer> {
        use Mnemonic::*;
        let place = |op| Place::decode(i, op);
        let value = |op| Value::decode(i, op);
        let r64 = |op| match place(op)? {
            Place::Register(r, 8) => Some(r),
            _ => None,
        };
        let alu = |op, writes: bool| {
            let a = place(0)?;
            let to = writes.then_some(a);
            Some(Integer::Alu { op, to, a: Value::Place(a), b: value(1)?, bytes: a.bytes() })
        };
        match i.mnemonic() {
            Mov | Movzx => Some(Integer::Move { to: place(0)?, from: value(1)?, signed: false }),
            Movsx | Movsxd => Some(Integer::Move { to: place(0)?, from: value(1)?, signed: true }),
            Add => alu(Op::Add, true),
            Sub => alu(Op::Sub, true),
            And => alu(Op::And, true),
            Or => alu(Op::Or, true),
            Xor => alu(Op::Xor, true),
            Cmp => alu(Op::Sub, false),
            Test => alu(Op::And, false),
            Shl if i.try_immediate(1).is_ok() => alu(Op::Shl, true),
            Shr if i.try_immediate(1).is_ok() => alu(Op::ShrU, true),
            Sar if i.try_immediate(1).is_ok() => alu(Op::ShrS, true),
            Imul => match i.op_count() {
                2 => alu(Op::Mul, true),
                3 => {
                    let to = place(0)?;
                    Some(Integer::Alu { op: Op::Mul, to: Some(to), a: value(1)?, b: value(2)?, bytes: to.bytes() })
                }
                _ => None,
            },
            Shlx => Some(Integer::Shift { op: Op::Shl, to: r64(0)?, from: value(1)?, by: r64(2)? }),
            Shrx => Some(Integer::Shift { op: Op::ShrU, to: r64(0)?, from: value(1)?, by: r64(2)? }),
            Sarx => Some(Integer::Shift { op: Op::ShrS, to: r64(0)?, from: value(1)?, by: r64(2)? }),
            Neg => place(0).map(Integer::Neg),
            Not => place(0).map(Integer::Not),
            Div if place(0)?.bytes() == 8 => Some(Integer::Divide { by: value(0)?, signed: false }),
            Idiv if place(0)?.bytes() == 8 => Some(Integer::Divide { by: value(0)?, signed: true }),
            Lea => Some(Integer::Lea { to: r64(0)?, address: Address::decode(i)? }),
            Push => r64(0).map(Integer::Push),
            Pop => r64(0).map(Integer::Pop),
            Mnemonic::Nop => Some(Integer::Nop),
            _ => match i.condition_code() {
                ConditionCode::None => None,
                _ if i.is_jcc_short_or_near() => None,
                condition if i.op_count() == 1 => Some(Integer::Set { to: place(0)?, condition }),
                condition => Some(Integer::MoveIf { to: r64(0)?, from: value(1)?, condition }),
            },
        }
    }

    /// Executes it.
    #[inline]
    pub fn execute(&self, s: &mut State, m: &mut Memory) -> Result<(), String> {
        match self {
            Integer::Move { to, from, signed } => {
                let x = from.read(s, m)?;
                let x = match from {
                    Value::Place(p) if *signed => sign_extended(x, p.bytes()) as u64,
                    _ => x,
                };
                to.write(s, m, x)
            }
            Integer::Alu { op, to, a, b, bytes } => {
                let (a, b) = (a.read(s, m)?, b.read(s, m)?);
                let (x, flags) = alu(*op, a & low_bits(*bytes), b & low_bits(*bytes), *bytes, s.flags);
                s.flags = flags;
                to.map_or(Ok(()), |to| to.write(s, m, x))
            }
            Integer::Shift { op, to, from, by } => {
                let (x, n) = (from.read(s, m)?, s.gpr[*by] & 63);
                s.gpr[*to] = match op {
                    Op::Shl => x << n,
                    Op::ShrU => x >> n,
                    _ => ((x as i64) >> n) as u64,
                };
                Ok(())
            }
            Integer::Neg(place) => {
                let x = place.read(s, m)?;
                let (negated, flags) = alu(Op::Sub, 0, x, place.bytes(), s.flags);
                s.flags = flags;
                place.write(s, m, negated)
            }
            Integer::Not(place) => {
                let x = place.read(s, m)?;
                place.write(s, m, !x)
            }
            Integer::Divide { by, signed } => {
                let by = by.read(s, m)?;
                let (quotient, rest) = divide(s.gpr[2], s.gpr[0], by, *signed).ok_or("#DE: a division that traps")?;
                (s.gpr[0], s.gpr[2]) = (quotient, rest);
                s.flags.defined = 0;
                Ok(())
            }
            Integer::Lea { to, address } => {
                s.gpr[*to] = address.resolve(s);
                Ok(())
            }
            Integer::Push(r) => {
                let x = s.gpr[*r];
                s.gpr[RSP] = s.gpr[RSP].wrapping_sub(8);
                m.store(s.gpr[RSP], 8, x)
            }
            Integer::Pop(r) => {
                let x = m.load(s.gpr[RSP], 8)?;
                s.gpr[RSP] = s.gpr[RSP].wrapping_add(8);
                s.gpr[*r] = x;
                Ok(())
            }
            Integer::Set { to, condition } => {
                let x = holds(s, *condition)?;
                to.write(s, m, u64::from(x))
            }
            Integer::MoveIf { to, from, condition } => {
                // Memory is read whether the condition holds or not.
                let x = from.read(s, m)?;
                if holds(s, *condition)? {
                    s.gpr[*to] = x;
                }
                Ok(())
            }
            Integer::Nop => Ok(()),
        }
    }
}

/// A result of `bytes` and the flags after it.
#[inline(always)]
fn alu(op: Op, a: u64, b: u64, bytes: usize, before: Flags) -> (u64, Flags) {
    let bits = 8 * bytes as u32;
    let sign = |x: u64| x >> (bits - 1) & 1 == 1;
    let count = (b as u32) & if bytes == 8 { 63 } else { 31 };
    // Carry and overflow, and whether the latter is defined.
    let (x, carry, overflow, overflow_defined) = match op {
        Op::Add => {
            let x = a.wrapping_add(b) & low_bits(bytes);
            (x, x < a, sign(!(a ^ b) & (a ^ x)), true)
        }
        Op::Sub => {
            let x = a.wrapping_sub(b) & low_bits(bytes);
            (x, a < b, sign((a ^ b) & (a ^ x)), true)
        }
        Op::And => (a & b, false, false, true),
        Op::Or => (a | b, false, false, true),
        Op::Xor => (a ^ b, false, false, true),
        Op::Shl | Op::ShrU | Op::ShrS if count == 0 => return (a, before),
        Op::Shl => {
            let x = if count < bits { a << count & low_bits(bytes) } else { 0 };
            let carry = count <= bits && a >> (bits - count) & 1 == 1;
            (x, carry, sign(x) != carry, count == 1)
        }
        Op::ShrU => {
            let x = if count < bits { a >> count } else { 0 };
            (x, a >> (count - 1) & 1 == 1, sign(a), count == 1)
        }
        Op::ShrS => {
            let wide = sign_extended(a, bytes);
            ((wide >> count) as u64 & low_bits(bytes), wide >> (count - 1) & 1 == 1, false, count == 1)
        }
        Op::Mul => {
            let wide = i128::from(sign_extended(a, bytes)) * i128::from(sign_extended(b, bytes));
            let x = wide as u64 & low_bits(bytes);
            let lost = i128::from(sign_extended(x, bytes)) != wide;
            let value = if lost { Flags::CF | Flags::OF } else { 0 };
            return (x, Flags { value, defined: Flags::CF | Flags::OF });
        }
    };
    let mut value = 0;
    for (flag, set) in [
        (Flags::CF, carry),
        (Flags::OF, overflow),
        (Flags::ZF, x == 0),
        (Flags::SF, sign(x)),
        (Flags::PF, (x as u8).count_ones().is_multiple_of(2)),
    ] {
        value |= if set { flag } else { 0 };
    }
    (x, Flags { value, defined: if overflow_defined { Flags::ALL } else { Flags::ALL & !Flags::OF } })
}

/// Quotient and remainder; none where x86 traps.
fn divide(high: u64, low: u64, by: u64, signed: bool) -> Option<(u64, u64)> {
    if by == 0 {
        return None;
    }
    let dividend = u128::from(high) << 64 | u128::from(low);
    if signed {
        let (a, b) = (dividend as i128, i128::from(by as i64));
        let (quotient, rest) = (a.checked_div(b)?, a.checked_rem(b)?);
        return Some((i64::try_from(quotient).ok()? as u64, rest as u64));
    }
    Some((u64::try_from(dividend / u128::from(by)).ok()?, (dividend % u128::from(by)) as u64))
}

/// Whether a condition holds for the flags.
///
/// # Errors
/// It reads a flag that the last instruction left undefined.
#[inline(always)]
pub fn holds(s: &State, condition: ConditionCode) -> Result<bool, String> {
    use ConditionCode as C;
    let f = |flag| s.flags.value & flag != 0;
    let (cf, zf, sf, of, pf) = (f(Flags::CF), f(Flags::ZF), f(Flags::SF), f(Flags::OF), f(Flags::PF));
    let (reads, holds) = match condition {
        C::o => (Flags::OF, of),
        C::no => (Flags::OF, !of),
        C::b => (Flags::CF, cf),
        C::ae => (Flags::CF, !cf),
        C::e => (Flags::ZF, zf),
        C::ne => (Flags::ZF, !zf),
        C::be => (Flags::CF | Flags::ZF, cf || zf),
        C::a => (Flags::CF | Flags::ZF, !(cf || zf)),
        C::s => (Flags::SF, sf),
        C::ns => (Flags::SF, !sf),
        C::p => (Flags::PF, pf),
        C::np => (Flags::PF, !pf),
        C::l => (Flags::SF | Flags::OF, sf != of),
        C::ge => (Flags::SF | Flags::OF, sf == of),
        C::le => (Flags::SF | Flags::OF | Flags::ZF, zf || sf != of),
        C::g => (Flags::SF | Flags::OF | Flags::ZF, !zf && sf == of),
        C::None => return Err("no condition".into()),
    };
    if s.flags.defined & reads != reads {
        return Err("it depends on a flag that is undefined".into());
    }
    Ok(holds)
}
