//! Allocated code to bytes: encoding by iced-x86, frame, branches, constants.
//!
//! ```text
//! push rbp; mov rbp, rsp          only when there is a frame
//! push (callee-saved registers)   those that are used
//! and rsp, -64; sub rsp, FRAME    spill slots, then the frame's own memory
//! ...
//! lea rsp, [rbp - 8 n]; pop ...; pop rbp; vzeroupper; ret
//! ```
//!
//! A block that only jumps, and where the allocator put no move, is not emitted: branches to it go on to its target, so that
//! a loop that moves nothing is one conditional jump back. All jumps have 32-bit displacements at first; iced's block encoder
//! shortens them. Constants stand behind the code at a multiple of 64.

use super::inst::{Base, Inst, Mem, Opnd, VEC, View};
use super::vcode::{CALLEE_SAVED, Slots, VCode};
use iced_x86::{BlockEncoder, BlockEncoderOptions, Code, Instruction, InstructionBlock, MemoryOperand, Register};
use regalloc2::{Allocation, AllocationKind, Block, Edit, InstOrEdit, Output, PReg, RegClass};

/// Bytes of the code with its constants, and stack used below the return address.
pub struct Emitted {
    /// Code, padding, constants.
    pub bytes: Vec<u8>,
    /// Bytes of code alone.
    pub code_len: usize,
    /// Bytes of stack.
    pub stack: u32,
}

/// Where constants are taken to be until the length of the code is known: far enough that displacements have 32 bits.
const FAR: u64 = 1 << 24;

/// Branch targets are labels: the "address" of an instruction that begins a block. Real addresses start at 0 and kernels are
/// far smaller.
const LABEL: u64 = 1 << 40;

/// Encodes an allocated kernel.
pub fn emit(code: &VCode, out: &Output, evex: bool) -> Result<Emitted, String> {
    let mut e = Emitter::new(code, out, evex);
    e.prologue();
    for b in 0..code.blocks.len() {
        e.block(Block::new(b))?;
    }
    let first = encode(&e.insts)?;
    let pool_at = first.len().next_multiple_of(64);
    for i in &mut e.insts {
        if i.is_ip_rel_memory_operand() {
            let at = i.memory_displacement64() - FAR + pool_at as u64;
            i.set_memory_displacement64(at);
        }
    }
    let mut bytes = encode(&e.insts)?;
    if bytes.len() != first.len() {
        return Err("the code changed its length with the place of its constants".into());
    }
    let code_len = bytes.len();
    if !code.pool.bytes.is_empty() {
        bytes.resize(pool_at, 0xcc);
        bytes.extend_from_slice(&code.pool.bytes);
    }
    Ok(Emitted { bytes, code_len, stack: e.stack })
}

fn encode(insts: &[Instruction]) -> Result<Vec<u8>, String> {
    let block = InstructionBlock::new(insts, 0);
    BlockEncoder::encode(64, block, BlockEncoderOptions::NONE).map(|r| r.code_buffer).map_err(|e| e.to_string())
}

struct Emitter<'a> {
    code: &'a VCode,
    out: &'a Output,
    evex: bool,
    insts: Vec<Instruction>,
    saved: Vec<Register>,
    /// Bytes of spill slots and the frame's own memory.
    frame: u32,
    stack: u32,
    /// The label that the next instruction carries.
    pending: Vec<Block>,
    /// For each block, the block that a branch to it really goes to.
    target: Vec<Block>,
    uses_vectors: bool,
}

impl<'a> Emitter<'a> {
    fn new(code: &'a VCode, out: &'a Output, evex: bool) -> Emitter<'a> {
        let spill = out.num_spillslots as u32 * 8;
        let frame =
            if spill + code.frame == 0 { 0 } else { (spill.next_multiple_of(64) + code.frame).next_multiple_of(64) };
        let mut written = [false; 16];
        let mut note = |a: &Allocation| {
            if let Some(r) = a.as_reg()
                && r.class() == RegClass::Int
            {
                written[r.hw_enc()] = true;
            }
        };
        out.allocs.iter().for_each(&mut note);
        for (_, Edit::Move { from, to }) in &out.edits {
            note(from);
            note(to);
        }
        let saved: Vec<Register> = CALLEE_SAVED
            .iter()
            .filter(|&&n| written[n])
            .map(|&n| name(PReg::new(n, RegClass::Int), View::R64))
            .collect();
        let uses_vectors = out.allocs.iter().any(|a| a.as_reg().is_some_and(|r| r.class() == VEC));
        let stack = if frame > 0 { 8 + 8 * saved.len() as u32 + 63 + frame } else { 8 * saved.len() as u32 };
        let mut e = Emitter {
            code,
            out,
            evex,
            insts: Vec::new(),
            saved,
            frame,
            stack,
            pending: Vec::new(),
            target: Vec::new(),
            uses_vectors,
        };
        e.thread_jumps();
        e
    }

    /// A block is transparent if it is one jump without moves.
    fn thread_jumps(&mut self) {
        let n = self.code.blocks.len();
        self.target = (0..n).map(Block::new).collect();
        for b in (0..n).map(Block::new) {
            let mut to = b;
            for _ in 0..n {
                if !self.transparent(to) {
                    break;
                }
                to = self.code.blocks[to.index()].succs[0];
            }
            self.target[b.index()] = to;
        }
    }

    fn transparent(&self, b: Block) -> bool {
        b.index() != 0
            && matches!(self.code.blocks[b.index()].insts[..], [Inst::Jump])
            && !self.out.block_insts_and_edits(self.code, b).any(|x| matches!(x, InstOrEdit::Edit(_)))
    }

    fn push(&mut self, mut i: Instruction) {
        if let Some(b) = self.pending.first() {
            // Several labels on one instruction: all blocks without code before it are reached through `target`.
            i.set_ip(LABEL + b.index() as u64);
            self.pending.clear();
        } else {
            i.set_ip(0);
        }
        self.insts.push(i);
    }

    fn raw(&mut self, code: Code, ops: &[Operand2]) {
        let i = build(code, ops);
        self.push(i);
    }

    fn prologue(&mut self) {
        use Register::{RBP, RSP};
        if self.frame > 0 {
            self.raw(Code::Push_r64, &[Operand2::Reg(RBP)]);
            self.raw(Code::Mov_r64_rm64, &[Operand2::Reg(RBP), Operand2::Reg(RSP)]);
        }
        for r in self.saved.clone() {
            self.raw(Code::Push_r64, &[Operand2::Reg(r)]);
        }
        if self.frame > 0 {
            self.raw(Code::And_rm64_imm8, &[Operand2::Reg(RSP), Operand2::Imm8Sx(-64)]);
            self.raw(Code::Sub_rm64_imm32, &[Operand2::Reg(RSP), Operand2::Imm32Sx(self.frame as i32)]);
        }
    }

    fn epilogue(&mut self) {
        use Register::{RBP, RSP};
        if self.frame > 0 {
            let m = MemoryOperand::with_base_displ(RBP, -8 * self.saved.len() as i64);
            self.raw(Code::Lea_r64_m, &[Operand2::Reg(RSP), Operand2::Mem(m)]);
        }
        for r in self.saved.clone().into_iter().rev() {
            self.raw(Code::Pop_r64, &[Operand2::Reg(r)]);
        }
        if self.frame > 0 {
            self.raw(Code::Pop_r64, &[Operand2::Reg(RBP)]);
        }
        if self.uses_vectors {
            self.raw(Code::VEX_Vzeroupper, &[]);
        }
        self.raw(Code::Retnq, &[]);
    }

    fn block(&mut self, b: Block) -> Result<(), String> {
        if self.target[b.index()] != b {
            return Ok(());
        }
        // A block that emits nothing before its end shares its label with what follows only through its own jump, so a label is
        // always on an instruction of the block itself.
        self.pending.push(b);
        let items: Vec<InstOrEdit<'_>> = self.out.block_insts_and_edits(self.code, b).collect();
        let start = self.code.start(b);
        for item in items {
            match item {
                InstOrEdit::Edit(Edit::Move { from, to }) => self.move_(*from, *to)?,
                InstOrEdit::Inst(i) => {
                    let inst = &self.code.blocks[b.index()].insts[i.index() - start];
                    let allocs = self.out.inst_allocs(i);
                    self.inst(b, inst, allocs)?;
                }
            }
        }
        if !self.pending.is_empty() {
            // Nothing was emitted: a fallthrough. The label needs an instruction to stand on.
            self.raw(Code::Nopd, &[]);
        }
        Ok(())
    }

    /// The next block in layout order that has code.
    fn next_block(&self, b: Block) -> Option<Block> {
        (b.index() + 1..self.code.blocks.len()).map(Block::new).find(|n| self.target[n.index()] == *n)
    }

    fn jump(&mut self, code: Code, to: Block) {
        let mut i = Instruction::default();
        i.set_code(code);
        i.set_op0_kind(iced_x86::OpKind::NearBranch64);
        i.set_near_branch64(LABEL + to.index() as u64);
        self.push(i);
    }

    fn inst(&mut self, b: Block, inst: &Inst, allocs: &[Allocation]) -> Result<(), String> {
        let target = |e: &Self, n: usize| e.target[e.code.blocks[b.index()].succs[n].index()];
        match inst {
            Inst::Params(_) => Ok(()),
            Inst::Return => {
                self.epilogue();
                Ok(())
            }
            Inst::Jump => {
                let to = target(self, 0);
                if self.next_block(b) != Some(to) {
                    self.jump(Code::Jmp_rel32_64, to);
                }
                Ok(())
            }
            Inst::Branch(cond) => {
                let (yes, no) = (target(self, 0), target(self, 1));
                let next = self.next_block(b);
                if next == Some(yes) {
                    self.jump(cond.inverted().jump(), no);
                } else {
                    self.jump(cond.jump(), yes);
                    if next != Some(no) {
                        self.jump(Code::Jmp_rel32_64, no);
                    }
                }
                Ok(())
            }
            Inst::Op { code, ops, mask, .. } => {
                let mut slots = Slots::new(allocs);
                let missing = || format!("{code:?}: an operand is not in a register");
                let mut encoded = Vec::with_capacity(4);
                for o in ops {
                    encoded.push(match o {
                        Opnd::Use(_, v) | Opnd::Def(_, v) => {
                            Operand2::Reg(name(slots.next_reg().ok_or_else(missing)?, *v))
                        }
                        Opnd::Tied { view, .. } => Operand2::Reg(name(slots.next_tied().ok_or_else(missing)?, *view)),
                        Opnd::Same(v) => Operand2::Reg(match encoded.first() {
                            Some(Operand2::Reg(r)) => renamed(*r, *v),
                            _ => return Err(missing()),
                        }),
                        Opnd::Mem(m) => {
                            let (base, index) = slots.next_mem(m);
                            Operand2::Mem(self.mem(m, base, index))
                        }
                        Opnd::Imm8(x) => Operand2::Imm8(*x),
                        Opnd::Imm8Sx(x) => Operand2::Imm8Sx(*x),
                        Opnd::Imm32Sx(x) => Operand2::Imm32Sx(*x),
                        Opnd::Imm32(x) => Operand2::Imm32(*x),
                        Opnd::Imm64(x) => Operand2::Imm64(*x),
                    });
                }
                if *code == Code::Mov_r64_rm64
                    && let [Operand2::Reg(a), Operand2::Reg(b)] = encoded[..]
                    && a == b
                {
                    return Ok(()); // a copy that the allocator made superfluous
                }
                let mut i = build(*code, &encoded);
                if let Some((_, zeroing)) = mask {
                    let k = slots.next_reg().ok_or_else(missing)?;
                    i.set_op_mask(name(k, View::K));
                    i.set_zeroing_masking(*zeroing);
                }
                self.push(i);
                Ok(())
            }
        }
    }

    fn mem(&self, m: &Mem, base: Option<PReg>, index: Option<PReg>) -> MemoryOperand {
        let gpr = |r: PReg| name(r, View::R64);
        let (index_reg, scale) = match (index, m.index) {
            (Some(r), Some((_, s))) => (gpr(r), u32::from(s)),
            _ => (Register::None, 1),
        };
        let disp = i64::from(m.disp);
        match m.base {
            Base::Pool => {
                MemoryOperand::new(Register::RIP, Register::None, 1, FAR as i64 + disp, 8, m.broadcast, Register::None)
            }
            Base::Frame => {
                let at = i64::from(self.frame) - i64::from(self.code.frame) + disp;
                MemoryOperand::new(Register::RSP, index_reg, scale, at, 1, m.broadcast, Register::None)
            }
            Base::Reg(_) => {
                let base = base.map_or(Register::None, gpr);
                MemoryOperand::new(base, index_reg, scale, disp, u32::from(disp != 0), m.broadcast, Register::None)
            }
        }
    }

    /// A move that the allocator inserted: between registers, to or from a spill slot.
    fn move_(&mut self, from: Allocation, to: Allocation) -> Result<(), String> {
        let slot =
            |a: Allocation| a.as_stack().map(|s| MemoryOperand::with_base_displ(Register::RSP, 8 * s.index() as i64));
        let class = from.as_reg().or(to.as_reg()).map(PReg::class).ok_or("a move from memory to memory")?;
        let (view, load, store, copy) = match (class, self.evex) {
            (RegClass::Int, _) => (View::R64, Code::Mov_r64_rm64, Code::Mov_rm64_r64, Code::Mov_r64_rm64),
            (RegClass::Float, false) => {
                (View::Ymm, Code::VEX_Vmovups_ymm_ymmm256, Code::VEX_Vmovups_ymmm256_ymm, Code::VEX_Vmovaps_ymm_ymmm256)
            }
            (RegClass::Float, true) => (
                View::Zmm,
                Code::EVEX_Vmovups_zmm_k1z_zmmm512,
                Code::EVEX_Vmovups_zmmm512_k1z_zmm,
                Code::EVEX_Vmovaps_zmm_k1z_zmmm512,
            ),
            (RegClass::Vector, _) => {
                (View::K, Code::VEX_Kmovq_kr_km64, Code::VEX_Kmovq_m64_kr, Code::VEX_Kmovq_kr_km64)
            }
        };
        let reg = |a: Allocation| a.as_reg().map(|r| Operand2::Reg(name(r, view)));
        match (from.kind(), to.kind()) {
            (AllocationKind::Reg, AllocationKind::Reg) => {
                if let (Some(f), Some(t)) = (reg(from), reg(to)) {
                    self.raw(copy, &[t, f]);
                }
            }
            (AllocationKind::Stack, AllocationKind::Reg) => {
                if let (Some(m), Some(t)) = (slot(from), reg(to)) {
                    self.raw(load, &[t, Operand2::Mem(m)]);
                }
            }
            (AllocationKind::Reg, AllocationKind::Stack) => {
                if let (Some(f), Some(m)) = (reg(from), slot(to)) {
                    self.raw(store, &[Operand2::Mem(m), f]);
                }
            }
            _ => return Err("a move that is none".into()),
        }
        Ok(())
    }
}

/// An operand with its register assigned.
#[derive(Clone, Copy)]
enum Operand2 {
    Reg(Register),
    Mem(MemoryOperand),
    Imm8(u8),
    Imm8Sx(i8),
    Imm32Sx(i32),
    Imm32(u32),
    Imm64(u64),
}

fn build(code: Code, ops: &[Operand2]) -> Instruction {
    use iced_x86::OpKind;
    let mut i = Instruction::default();
    i.set_code(code);
    for (n, o) in ops.iter().enumerate() {
        let n = n as u32;
        match *o {
            Operand2::Reg(r) => {
                i.set_op_kind(n, OpKind::Register);
                i.set_op_register(n, r);
            }
            Operand2::Mem(m) => {
                i.set_op_kind(n, OpKind::Memory);
                i.set_memory_base(m.base);
                i.set_memory_index(m.index);
                i.set_memory_index_scale(m.scale);
                i.set_memory_displ_size(m.displ_size);
                i.set_memory_displacement64(m.displacement as u64);
                i.set_is_broadcast(m.is_broadcast);
            }
            Operand2::Imm8(x) => {
                i.set_op_kind(n, OpKind::Immediate8);
                i.set_immediate8(x);
            }
            Operand2::Imm8Sx(x) => {
                i.set_op_kind(n, OpKind::Immediate8to64);
                i.set_immediate8to64(i64::from(x));
            }
            Operand2::Imm32Sx(x) => {
                i.set_op_kind(n, OpKind::Immediate32to64);
                i.set_immediate32to64(i64::from(x));
            }
            Operand2::Imm32(x) => {
                i.set_op_kind(n, OpKind::Immediate32);
                i.set_immediate32(x);
            }
            Operand2::Imm64(x) => {
                i.set_op_kind(n, OpKind::Immediate64);
                i.set_immediate64(x);
            }
        }
    }
    i
}

/// The same register under another name.
fn renamed(r: Register, view: View) -> Register {
    let class = if r.is_vector_register() { VEC } else { RegClass::Int };
    name(PReg::new(r.number(), class), view)
}

/// A physical register under the name that an encoding uses.
fn name(r: PReg, view: View) -> Register {
    let first = match view {
        View::R8 => Register::AL, // al, cl, dl, bl, then spl.. which need REX: see below
        View::R16 => Register::AX,
        View::R32 => Register::EAX,
        View::R64 => Register::RAX,
        View::Xmm => Register::XMM0,
        View::Ymm => Register::YMM0,
        View::Zmm => Register::ZMM0,
        View::K => Register::K0,
    };
    // iced lists al cl dl bl ah ch dh bh spl bpl sil dil r8b ..: number 4 and above without REX are the high halves.
    let n = r.hw_enc() + if view == View::R8 && r.hw_enc() >= 4 { 4 } else { 0 };
    first + n as u32
}
