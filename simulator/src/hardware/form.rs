//! Forms: instructions that differ in nothing but which registers, which displacement and which large immediate.
//!
//! A form has the encoding, the kinds of the operands, which of them are the same register, masking, broadcast, and the small
//! immediates, which choose what is done. It is run with canonical registers and its memory at one place.

use super::trampoline;
use crate::operand::gpr;
use crate::program::text;
use iced_x86::{
    Code, ConditionCode, CpuidFeature, Encoder, EncodingKind, FlowControl, Instruction, MemoryOperand, Mnemonic,
    OpKind, Register,
};
use std::arch::is_x86_feature_detected;

/// The register that points at a form's memory: rsi.
pub const POINTER: usize = 6;

/// Registers by the order in which an instruction first names them.
const GPRS: [usize; 4] = [9, 3, 8, 1];
const VEX_VECTORS: [usize; 5] = [2, 7, 1, 12, 5];
const EVEX_VECTORS: [usize; 5] = [18, 7, 31, 12, 5];
const MASKS: [usize; 4] = [3, 5, 7, 2];

/// One form.
pub struct Form {
    /// The canonical instruction as text, and the encoding's name.
    pub name: String,
    instruction: Instruction,
}

/// Maps registers to canonical ones, the same to the same.
struct Renaming {
    seen: Vec<(u8, usize)>,
    vectors: &'static [usize],
}

impl Renaming {
    fn rename(&mut self, r: Register) -> Option<Register> {
        let (class, numbers): (u8, &[usize]) = match r {
            _ if r.is_gpr() => (0, &GPRS),
            _ if r.is_vector_register() => (1, self.vectors),
            _ if r.is_k() => (2, &MASKS),
            _ => return None,
        };
        let key = (class, gpr(r).map_or(r.number(), |(number, _)| number));
        if !self.seen.contains(&key) {
            self.seen.push(key);
        }
        let order = self.seen.iter().filter(|k| k.0 == class).position(|k| *k == key)?;
        Some(named(r, *numbers.get(order)?))
    }
}

/// The register with this number, of the width of another.
fn named(like: Register, number: usize) -> Register {
    let first = match (like.size(), like) {
        _ if like.is_k() => Register::K0,
        (64, _) => Register::ZMM0,
        (32, _) => Register::YMM0,
        (16, _) => Register::XMM0,
        (8, _) => Register::RAX,
        (4, _) => Register::EAX,
        (2, _) => Register::AX,
        // The bytes ah to bh stand between bl and spl.
        _ => return Register::AL + (number + if number >= 4 { 4 } else { 0 }) as u32,
    };
    first + number as u32
}

impl Form {
    /// The form of an instruction; none for jumps, calls, and what pushes.
    pub fn of(i: &Instruction) -> Option<Form> {
        let alone =
            matches!(i.flow_control(), FlowControl::Next) && !matches!(i.mnemonic(), Mnemonic::Push | Mnemonic::Pop);
        if i.is_jcc_short_or_near() {
            // Taken by what follows it alone: see `code`.
            let mut jump = *i;
            jump.as_short_branch();
            jump.set_near_branch64(0);
            return Some(Form { name: format!("j{:?}", i.condition_code()), instruction: jump });
        }
        if !alone {
            return None;
        }
        let vectors: &[usize] = if i.encoding() == EncodingKind::EVEX { &EVEX_VECTORS } else { &VEX_VECTORS };
        let mut to = Renaming { seen: Vec::new(), vectors };
        let mut c = *i;
        for op in 0..i.op_count() {
            match i.op_kind(op) {
                OpKind::Register => c.set_op_register(op, to.rename(i.op_register(op))?),
                OpKind::Memory if i.mnemonic() == Mnemonic::Lea && !i.is_ip_rel_memory_operand() => {
                    for (r, set) in [
                        (i.memory_base(), Instruction::set_memory_base as fn(&mut Instruction, Register)),
                        (i.memory_index(), Instruction::set_memory_index),
                    ] {
                        if r != Register::None {
                            set(&mut c, to.rename(r)?);
                        }
                    }
                }
                OpKind::Memory => {
                    let m = MemoryOperand::with_base_displ(Register::RSI, 16);
                    c.set_memory_base(m.base);
                    c.set_memory_index(m.index);
                    c.set_memory_index_scale(m.scale);
                    c.set_memory_displ_size(1);
                    c.set_memory_displacement64(m.displacement as u64);
                }
                _ => {}
            }
        }
        if i.op_mask() != Register::None {
            c.set_op_mask(to.rename(i.op_mask())?);
        }
        // Large immediates and displacements of addresses are numbers like any other: they do not make a form.
        let mut general = c;
        for op in 0..i.op_count() {
            if matches!(i.op_kind(op), OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64) {
                general.set_immediate_i64(op, 0);
            }
        }
        if i.mnemonic() == Mnemonic::Lea && i.memory_displ_size() != 0 {
            general.set_memory_displacement64(1);
        }
        Some(Form { name: format!("{} ({:?})", text(&general), i.code()), instruction: c })
    }

    /// Whether this CPU has it.
    pub fn is_here(&self) -> bool {
        trampoline::vectors().bytes > 0 && self.instruction.cpuid_features().iter().all(|f| has(*f))
    }

    /// Its encoding: the instruction, or a conditional jump over one.
    pub fn code(&self) -> Result<Vec<u8>, String> {
        let encode = |i: &Instruction, ip| {
            let mut encoder = Encoder::new(64);
            encoder.encode(i, ip).map_err(|e| e.to_string())?;
            Ok::<Vec<u8>, String>(encoder.take_buffer())
        };
        if self.instruction.condition_code() == ConditionCode::None || !self.instruction.is_jcc_short_or_near() {
            return encode(&self.instruction, 0);
        }
        let skipped = Instruction::with2(Code::Mov_r32_imm32, Register::ECX, 1u32).map_err(|e| e.to_string())?;
        let skipped = encode(&skipped, 0)?;
        let mut jump = self.instruction;
        jump.set_near_branch64(2 + skipped.len() as u64);
        let mut code = encode(&jump, 0)?;
        code.extend(skipped);
        Ok(code)
    }
}

/// Whether the CPU has a feature; what is not emitted counts as missing.
fn has(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    match feature {
        F::INTEL8086 | F::INTEL186 | F::INTEL386 | F::INTEL486 | F::X64 | F::CMOV | F::SSE | F::SSE2 => true,
        F::MULTIBYTENOP => true,
        F::AVX => is_x86_feature_detected!("avx"),
        F::AVX2 => is_x86_feature_detected!("avx2"),
        F::FMA => is_x86_feature_detected!("fma"),
        F::BMI2 => is_x86_feature_detected!("bmi2"),
        F::AVX512F => is_x86_feature_detected!("avx512f"),
        F::AVX512VL => is_x86_feature_detected!("avx512vl"),
        F::AVX512BW => is_x86_feature_detected!("avx512bw"),
        F::AVX512DQ => is_x86_feature_detected!("avx512dq"),
        _ => false,
    }
}
