//! One instruction on the CPU: registers from memory, the instruction, registers to memory.
//!
//! The code is assembled around the instruction and mapped executable. r15 holds the block's address and rsp the stack: the
//! instruction under test names neither. Vector registers are those that the CPU has.

use super::form::POINTER;
use crate::state::Vector;
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, *};
use memmap2::{Mmap, MmapMut};
use std::arch::is_x86_feature_detected;
use std::fmt;

/// Bytes of memory that an instruction can reach.
pub const MEMORY: usize = 256;
/// Where in it the pointer register points.
pub const POINTED: usize = 64;
/// Registers that the instruction must not name: rsp, r15.
pub const RESERVED: [usize; 2] = [4, 15];

/// A register file with memory.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Block {
    /// By number.
    pub gpr: [u64; 16],
    /// The flags register.
    pub rflags: u64,
    /// By number; the first is never a write mask.
    pub mask: [u64; 8],
    /// By number.
    pub vector: [Vector; 32],
    /// What the pointer register points into.
    pub memory: [u8; MEMORY],
}

impl Default for Block {
    fn default() -> Block {
        Block { gpr: [0; 16], rflags: 2, mask: [0; 8], vector: [Vector::ZERO; 32], memory: [0; MEMORY] }
    }
}

impl fmt::Debug for Block {
    /// What a failure message needs: the registers that forms name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gpr {:x?} rflags {:x} mask {:x?}", self.gpr, self.rflags, self.mask)?;
        for r in [1, 2, 5, 7, 12, 18, 31] {
            write!(f, "\n  v{r} {:08x?}", self.vector[r].words())?;
        }
        write!(f, "\n  memory {:02x?}", &self.memory[POINTED..])
    }
}

/// The vector registers of this CPU.
#[derive(Clone, Copy)]
pub struct Vectors {
    /// How many.
    pub count: usize,
    /// Bytes of each; 0 without AVX.
    pub bytes: usize,
    /// Whether there are opmask registers.
    pub masks: bool,
}

/// What this CPU has.
pub fn vectors() -> Vectors {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        return Vectors { count: 32, bytes: 64, masks: true };
    }
    Vectors { count: 16, bytes: if is_x86_feature_detected!("avx") { 32 } else { 0 }, masks: false }
}

/// An instruction ready to be run.
pub struct Trampoline {
    map: Mmap,
}

impl Trampoline {
    /// Around the encoding of one instruction (or of a jump over one).
    pub fn new(code: &[u8]) -> Result<Trampoline, String> {
        let bytes = assemble(code).map_err(|e| e.to_string())?;
        let mut map = MmapMut::map_anon(bytes.len()).map_err(|e| e.to_string())?;
        map.copy_from_slice(&bytes);
        Ok(Trampoline { map: map.make_exec().map_err(|e| e.to_string())? })
    }

    /// The registers and memory after the instruction.
    pub fn run(&self, before: &Block) -> Block {
        let mut block = before.clone();
        block.gpr[POINTER] = &raw mut block.memory as u64 + POINTED as u64;
        // SAFETY: the mapping holds a function of this signature, which keeps the convention: it saves what it must, and
        // the instruction inside writes registers, which are saved, and memory within the block.
        let entry = unsafe { std::mem::transmute::<*const u8, extern "C" fn(*mut Block)>(self.map.as_ptr()) };
        entry(&raw mut block);
        block
    }
}

const SAVED: [AsmRegister64; 6] = [rbx, rbp, r12, r13, r14, r15];
const GPRS: [AsmRegister64; 16] = [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];

fn assemble(code: &[u8]) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let at = |offset: usize, i: usize, bytes: usize| r15 + (offset + i * bytes) as i32;
    let gpr = |i| at(std::mem::offset_of!(Block, gpr), i, 8);
    let rflags = at(std::mem::offset_of!(Block, rflags), 0, 8);
    let mask = |i| at(std::mem::offset_of!(Block, mask), i, 8);
    let vector = |i| at(std::mem::offset_of!(Block, vector), i, 64);
    let have = vectors();
    for r in SAVED {
        a.push(r)?;
    }
    a.mov(r15, rdi)?;
    for i in 0..have.count {
        match have.bytes {
            64 => a.vmovups(zmms()[i], zmmword_ptr(vector(i)))?,
            _ => a.vmovups(ymms()[i], ymmword_ptr(vector(i)))?,
        }
    }
    if have.masks {
        for (i, k) in ks().into_iter().enumerate().skip(1) {
            a.kmovq(k, qword_ptr(mask(i)))?;
        }
    }
    a.push(qword_ptr(rflags))?;
    a.popfq()?;
    for (i, r) in GPRS.into_iter().enumerate().filter(|(i, _)| !RESERVED.contains(i)) {
        a.mov(r, qword_ptr(gpr(i)))?;
    }
    a.db(code)?;
    // None of these moves touches the flags.
    for (i, r) in GPRS.into_iter().enumerate().filter(|(i, _)| !RESERVED.contains(i)) {
        a.mov(qword_ptr(gpr(i)), r)?;
    }
    a.pushfq()?;
    a.pop(qword_ptr(rflags))?;
    for i in 0..have.count {
        match have.bytes {
            64 => a.vmovups(zmmword_ptr(vector(i)), zmms()[i])?,
            _ => a.vmovups(ymmword_ptr(vector(i)), ymms()[i])?,
        }
    }
    if have.masks {
        for (i, k) in ks().into_iter().enumerate().skip(1) {
            a.kmovq(qword_ptr(mask(i)), k)?;
        }
    }
    a.vzeroupper()?;
    for r in SAVED.into_iter().rev() {
        a.pop(r)?;
    }
    a.ret()?;
    a.assemble(0)
}

fn ks() -> [AsmRegisterK; 8] {
    [k0, k1, k2, k3, k4, k5, k6, k7]
}

fn ymms() -> [AsmRegisterYmm; 16] {
    [ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15]
}

fn zmms() -> [AsmRegisterZmm; 32] {
    [
        zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15, zmm16,
        zmm17, zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30, zmm31,
    ]
}
