//! A kernel in machine instructions over virtual registers: blocks, and what the register allocator asks of them.
//!
//! SSA: every virtual register is defined once; values cross blocks as block parameters. No edge is critical (a block with
//! several successors leads only to blocks with one predecessor), as regalloc2 requires.

use super::inst::{Base, Fixed, GPR, Inst, MASK, Mem, Opnd, VEC};
use regalloc2::{Block, InstRange, MachineEnv, Operand, PReg, PRegSet, RegClass, VReg};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// One basic block.
#[derive(Clone, Debug, Default)]
pub struct BlockData {
    /// Its instructions.
    pub insts: Vec<Inst>,
    /// Values that it is entered with.
    pub params: Vec<VReg>,
    /// Successors, in the order of the branch.
    pub succs: SmallVec<[Block; 2]>,
    /// What each successor's parameters get.
    pub args: SmallVec<[Vec<VReg>; 2]>,
}

/// A kernel under construction, then in allocation.
#[derive(Clone, Debug, Default)]
pub struct VCode {
    /// In layout order, the entry first.
    pub blocks: Vec<BlockData>,
    /// Constants behind the code.
    pub pool: Pool,
    /// Bytes of the frame's own memory.
    pub frame: u32,
    classes: Vec<RegClass>,
    flat: Flat,
}

/// What is derived when the code is complete: instructions numbered through, operands by instruction.
#[derive(Clone, Debug, Default)]
struct Flat {
    starts: Vec<usize>,
    preds: Vec<Vec<Block>>,
    operands: Vec<SmallVec<[Operand; 6]>>,
    kinds: Vec<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    Branch,
    Return,
}

impl VCode {
    /// A new virtual register.
    pub fn reg(&mut self, class: RegClass) -> VReg {
        self.classes.push(class);
        VReg::new(self.classes.len() - 1, class)
    }

    /// A new empty block, behind the others.
    pub fn block(&mut self) -> Block {
        self.blocks.push(BlockData::default());
        Block::new(self.blocks.len() - 1)
    }

    /// Memory in the frame; returns its offset. Aligned to 64.
    pub fn frame_slot(&mut self, bytes: u32) -> i32 {
        let at = self.frame;
        self.frame += bytes.next_multiple_of(64);
        at as i32
    }

    /// Numbers instructions and collects operands: to be called once, before allocation.
    pub fn freeze(&mut self) {
        let mut flat = Flat { preds: vec![Vec::new(); self.blocks.len()], ..Flat::default() };
        for (i, b) in self.blocks.iter().enumerate() {
            flat.starts.push(flat.kinds.len());
            for s in &b.succs {
                flat.preds[s.index()].push(Block::new(i));
            }
            for inst in &b.insts {
                flat.kinds.push(match inst {
                    Inst::Jump | Inst::Branch(_) => Kind::Branch,
                    Inst::Return => Kind::Return,
                    _ => Kind::Plain,
                });
                flat.operands.push(operands(inst));
            }
        }
        flat.starts.push(flat.kinds.len());
        self.flat = flat;
    }

    /// The number of the first instruction of a block; valid after [`VCode::freeze`].
    pub fn start(&self, block: Block) -> usize {
        self.flat.starts[block.index()]
    }
}

/// Operands as the allocator sees them, in the order in which [`Slots`] gives them back.
fn operands(inst: &Inst) -> SmallVec<[Operand; 6]> {
    let mut out = SmallVec::new();
    match inst {
        Inst::Params(regs) => {
            // System V: rdi, rsi, rdx, rcx.
            for (r, n) in regs.iter().zip([7, 6, 2, 1]) {
                out.push(Operand::reg_fixed_def(*r, PReg::new(n, GPR)));
            }
        }
        Inst::Op { ops, mask, fixed, .. } => {
            // A write mask is read before anything is written, as are all operands: uses are early, definitions late.
            for o in ops {
                match o {
                    Opnd::Use(r, _) => out.push(Operand::reg_use(*r)),
                    Opnd::Def(r, _) => out.push(Operand::reg_def(*r)),
                    Opnd::Tied { to, from, .. } => {
                        out.push(Operand::reg_use(*from));
                        let use_at = out.len() - 1;
                        out.push(Operand::reg_reuse_def(*to, use_at));
                    }
                    Opnd::Mem(m) => {
                        if let Base::Reg(r) = m.base {
                            out.push(Operand::reg_use(r));
                        }
                        if let Some((r, _)) = m.index {
                            out.push(Operand::reg_use(r));
                        }
                    }
                    Opnd::Same(_)
                    | Opnd::Imm8(_)
                    | Opnd::Imm8Sx(_)
                    | Opnd::Imm32Sx(_)
                    | Opnd::Imm32(_)
                    | Opnd::Imm64(_) => {}
                }
            }
            if let Some((k, _)) = mask {
                out.push(Operand::reg_use(*k));
            }
            for f in fixed {
                out.push(match f {
                    Fixed::Use(r, n) => Operand::reg_fixed_use(*r, PReg::new(usize::from(*n), GPR)),
                    Fixed::Def(r, n) => Operand::reg_fixed_def(*r, PReg::new(usize::from(*n), GPR)),
                });
            }
        }
        Inst::Jump | Inst::Branch(_) | Inst::Return => {}
    }
    out
}

/// The registers of an allocated instruction, by operand: what `operands` listed, in the same order.
pub struct Slots<'a> {
    allocs: std::slice::Iter<'a, regalloc2::Allocation>,
}

impl<'a> Slots<'a> {
    /// The allocations of one instruction.
    pub fn new(allocs: &'a [regalloc2::Allocation]) -> Slots<'a> {
        Slots { allocs: allocs.iter() }
    }

    /// The next register; `None` if the allocator put it elsewhere, which no operand permits.
    pub fn next_reg(&mut self) -> Option<PReg> {
        self.allocs.next().and_then(|a| a.as_reg())
    }

    /// The register of a tied operand: the use is skipped, the definition counts.
    pub fn next_tied(&mut self) -> Option<PReg> {
        self.allocs.next();
        self.next_reg()
    }

    /// Base and index of a memory operand.
    pub fn next_mem(&mut self, m: &Mem) -> (Option<PReg>, Option<PReg>) {
        let base = if matches!(m.base, Base::Reg(_)) { self.next_reg() } else { None };
        (base, m.index.and_then(|_| self.next_reg()))
    }
}

impl regalloc2::Function for VCode {
    fn num_insts(&self) -> usize {
        self.flat.kinds.len()
    }

    fn num_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn entry_block(&self) -> Block {
        Block::new(0)
    }

    fn block_insns(&self, block: Block) -> InstRange {
        let (a, b) = (self.flat.starts[block.index()], self.flat.starts[block.index() + 1]);
        InstRange::new(regalloc2::Inst::new(a), regalloc2::Inst::new(b))
    }

    fn block_succs(&self, block: Block) -> &[Block] {
        &self.blocks[block.index()].succs
    }

    fn block_preds(&self, block: Block) -> &[Block] {
        &self.flat.preds[block.index()]
    }

    fn block_params(&self, block: Block) -> &[VReg] {
        &self.blocks[block.index()].params
    }

    fn is_ret(&self, insn: regalloc2::Inst) -> bool {
        self.flat.kinds[insn.index()] == Kind::Return
    }

    fn is_branch(&self, insn: regalloc2::Inst) -> bool {
        self.flat.kinds[insn.index()] == Kind::Branch
    }

    fn branch_blockparams(&self, block: Block, _: regalloc2::Inst, succ: usize) -> &[VReg] {
        &self.blocks[block.index()].args[succ]
    }

    fn inst_operands(&self, insn: regalloc2::Inst) -> &[Operand] {
        &self.flat.operands[insn.index()]
    }

    fn inst_clobbers(&self, _: regalloc2::Inst) -> PRegSet {
        PRegSet::empty()
    }

    fn num_vregs(&self) -> usize {
        self.classes.len()
    }

    fn spillslot_size(&self, class: RegClass) -> usize {
        // In units of 8 bytes. A vector slot holds a zmm; on AVX2 half of it is wasted, and the frame is small anyway.
        match class {
            RegClass::Float => 8,
            RegClass::Int | RegClass::Vector => 1,
        }
    }
}

/// The registers there are: all general-purpose ones but rsp and rbp (the frame's), 16 or 32 vectors, k1 to k7 (k0 as a write
/// mask means none). Registers that a callee must preserve are used last.
pub fn machine_env(evex: bool) -> MachineEnv {
    let set = |class: RegClass, numbers: &[usize]| {
        let mut s = PRegSet::empty();
        for &n in numbers {
            s.add(PReg::new(n, class));
        }
        s
    };
    let vectors: Vec<usize> = (0..if evex { 32 } else { 16 }).collect();
    let masks: &[usize] = if evex { &[1, 2, 3, 4, 5, 6, 7] } else { &[] };
    MachineEnv {
        preferred_regs_by_class: [set(GPR, &[0, 1, 2, 6, 7, 8, 9, 10, 11]), set(VEC, &vectors), set(MASK, masks)],
        non_preferred_regs_by_class: [set(GPR, CALLEE_SAVED), PRegSet::empty(), PRegSet::empty()],
        scratch_by_class: [None; 3],
        fixed_stack_slots: Vec::new(),
    }
}

/// System V: rbx, r12 to r15 (rbp is the frame pointer).
pub const CALLEE_SAVED: &[usize] = &[3, 12, 13, 14, 15];

/// Constants behind the code, each once.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Aligned to 64 as a whole.
    pub bytes: Vec<u8>,
    known: FxHashMap<Vec<u8>, u32>,
}

impl Pool {
    /// The offset of `bytes`, aligned to their length (a power of two up to 64).
    pub fn add(&mut self, bytes: &[u8]) -> u32 {
        if let Some(&at) = self.known.get(bytes) {
            return at;
        }
        let at = self.bytes.len().next_multiple_of(bytes.len().next_power_of_two().min(64));
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(bytes);
        self.known.insert(bytes.to_vec(), at as u32);
        at as u32
    }
}
