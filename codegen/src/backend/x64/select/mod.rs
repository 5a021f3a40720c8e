//! Instruction selection: kernel IR to machine instructions over virtual registers.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | values and their representations, blocks, loops, conditionals |
//! | `mem` | addresses, loads, stores, what folds into a memory operand |
//! | `int` | scalar integers and pointers |
//! | `arith` | vectors and scalar floats: arithmetic, fused multiply-add, rounding |
//! | `mask` | comparisons, masks, selection |
//! | `convert` | between element types |
//! | `lanes` | broadcast, extraction, insertion, shuffles, reductions |
//! | `slow` | what has no instruction: lane by lane through the frame |
//!
//! **Representation.** Scalar integers and pointers are general-purpose registers whose bits beyond the width are unspecified;
//! scalar floats are the low lane of an xmm, the other lanes unspecified; a vector of less than 16 bytes is an xmm. A mask is
//! a k register under AVX-512, and a vector of all-ones or zero lanes under AVX2, whose lane width is remembered; `Mask(1)` is a
//! general-purpose register of 0 or 1, or the comparison itself where a branch or a conditional move uses it.
//!
//! **What is delayed.** Constants are made where they are used, as an immediate or a memory operand of the pool. A load that is
//! used once, in its own block and before the next store, becomes its user's memory operand.

mod arith;
mod convert;
mod int;
mod lanes;
mod mask;
mod mem;
mod slow;

use super::inst::{Cond, GPR, Inst, MASK, Mem, Opnd, VEC, View, Width};
use super::table::VecOp;
use super::vcode::VCode;
use crate::kir::{self, Elem, Kernel, Op, Type, Value};
use crate::target::{Level, Target};
use iced_x86::Code;
use regalloc2::{Block, RegClass, VReg};
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};

/// Why a kernel cannot be selected: what is not supported, as a noun phrase.
pub type Unsupported = String;

/// What stands for a value of the kernel.
#[derive(Clone, Debug)]
enum Repr {
    /// A register.
    Reg(VReg),
    /// A pointer in a register, plus a constant.
    Offset(VReg, i32),
    /// Nothing yet: made where it is used.
    Const(Type, Vec<u64>),
    /// Nothing yet: a load that waits for its only user.
    Load(Type, Mem),
    /// Nothing yet: a broadcast load that waits for its only user.
    LoadSplat(Type, Mem),
    /// Nothing yet: a comparison of integers that waits for its only user.
    Compare(kir::IntCc, Value, Value),
    /// AVX2: a mask as a vector whose lanes have that many bytes.
    Lanes(VReg, usize),
}

/// What selection knows of a value before it begins.
#[derive(Clone, Copy, Default)]
struct Usage {
    /// How often it is read.
    uses: u32,
    /// The number of the block that defines it.
    def: u32,
    /// The number of the block of its last use.
    last: u32,
}

/// The state of a selection.
pub struct Select<'k> {
    kernel: &'k Kernel,
    evex: bool,
    max: Width,
    code: VCode,
    at: Block,
    repr: Vec<Option<Repr>>,
    usage: Vec<Usage>,
    /// Loads that wait, so that a store can make them real first.
    waiting: Vec<Value>,
    /// Scales that x86 does not have, by the index they are wanted for.
    scales: FxHashMap<Value, SmallVec<[i64; 2]>>,
    /// Products of an index and such a scale.
    scaled: FxHashMap<(Value, i64), VReg>,
    /// The frame's memory for `slow`, once it is needed.
    lanes_slot: Option<i32>,
}

/// Selects a whole kernel.
pub fn select(kernel: &Kernel, target: &Target) -> Result<VCode, Unsupported> {
    let evex = target.level == Level::X86V4;
    let mut code = VCode::default();
    let entry = code.block();
    let mut s = Select {
        kernel,
        evex,
        max: if evex { Width::Z } else { Width::Y },
        code,
        at: entry,
        repr: vec![None; kernel.types.len()],
        usage: vec![Usage::default(); kernel.types.len()],
        waiting: Vec::new(),
        scales: FxHashMap::default(),
        scaled: FxHashMap::default(),
        lanes_slot: None,
    };
    let mut number = 0;
    s.count(&kernel.body, &mut number);
    s.entry();
    let mut next = 0;
    s.block(&kernel.body, &mut next)?;
    s.push(Inst::Return);
    s.code.freeze();
    Ok(s.code)
}

impl Select<'_> {
    // ---- preparation ----------------------------------------------------------------------------------------------

    /// Counts uses and notes in which block they are; numbers blocks in the order of [`Select::block`].
    fn count(&mut self, block: &kir::Block, number: &mut u32) {
        let own = *number;
        for inst in &block.insts {
            for r in &inst.results {
                self.usage[r.index()].def = own;
            }
            inst.op.for_each_operand(|v| self.note_use(v, own));
            self.note_scale(&inst.op);
            for b in inst.op.blocks() {
                *number += 1;
                if let Op::Loop(l) = &inst.op {
                    self.usage[l.iv.index()].def = *number;
                    for c in &l.carried {
                        self.usage[c.param.index()].def = *number;
                    }
                }
                self.count(b, number);
            }
        }
        for &y in &block.yields {
            self.note_use(y, own);
        }
    }

    fn note_use(&mut self, v: Value, block: u32) {
        let u = &mut self.usage[v.index()];
        u.uses += 1;
        u.last = block;
    }

    fn note_scale(&mut self, op: &Op) {
        let addr = match op {
            Op::Load { addr, .. } | Op::LoadPart { addr, .. } | Op::LoadSplat { addr, .. } => addr,
            Op::Store { addr, .. } | Op::StorePart { addr, .. } | Op::PtrAdd(addr) | Op::Prefetch(addr) => addr,
            _ => return,
        };
        if let Some((index, scale)) = addr.index
            && !matches!(scale, 1 | 2 | 4 | 8)
        {
            let known = self.scales.entry(index).or_default();
            if !known.contains(&scale) {
                known.push(scale);
            }
        }
    }

    fn entry(&mut self) {
        let regs = [self.reg(GPR), self.reg(GPR), self.reg(GPR), self.reg(GPR)];
        self.push(Inst::Params(regs));
        let k = self.kernel;
        for i in 0..k.args.len() {
            let p = k.arg(i);
            if self.usage[p.index()].uses > 0 {
                let r = self.load_gpr(Code::Mov_r64_rm64, View::R64, Mem::at(regs[0], 8 * i as i32));
                self.define(p, r);
            }
        }
        for (v, r) in [(k.scratch(), regs[1]), (k.begin(), regs[2]), (k.end(), regs[3])] {
            self.define(v, r);
        }
    }

    // ---- instructions ---------------------------------------------------------------------------------------------

    fn reg(&mut self, class: RegClass) -> VReg {
        self.code.reg(class)
    }

    fn push(&mut self, inst: Inst) {
        self.code.blocks[self.at.index()].insts.push(inst);
    }

    fn op(&mut self, code: Code, ops: &[Opnd]) {
        self.push(Inst::Op { code, ops: ops.into(), mask: None, fixed: smallvec![] });
    }

    fn masked(&mut self, code: Code, ops: &[Opnd], mask: VReg, zeroing: bool) {
        self.push(Inst::Op { code, ops: ops.into(), mask: Some((mask, zeroing)), fixed: smallvec![] });
    }

    /// A vector instruction that defines a new register: `dst, operands..`.
    fn vec_op(&mut self, op: VecOp, w: Width, rest: &[Opnd]) -> VReg {
        let dst = self.reg(VEC);
        let mut ops: SmallVec<[Opnd; 4]> = smallvec![Opnd::Def(dst, w.into())];
        ops.extend_from_slice(rest);
        self.push(Inst::Op { code: op.code(w, self.evex), ops, mask: None, fixed: smallvec![] });
        dst
    }

    /// The usual three-operand form: `dst, a, b`.
    fn vec2(&mut self, op: VecOp, w: Width, a: VReg, b: impl Into<VecSrc>) -> VReg {
        let b = b.into().opnd(w);
        self.vec_op(op, w, &[Opnd::Use(a, w.into()), b])
    }

    // ---- values ---------------------------------------------------------------------------------------------------

    fn ty(&self, v: Value) -> Type {
        self.kernel.types[v.index()]
    }

    fn get(&self, v: Value) -> Result<Repr, Unsupported> {
        self.repr[v.index()].clone().ok_or_else(|| format!("{v}, which is read before it is defined"))
    }

    fn set(&mut self, v: Value, r: Repr) {
        self.repr[v.index()] = Some(r);
    }

    /// Says that `v` is in `r`, and makes the products with the scales wanted for it.
    fn define(&mut self, v: Value, r: VReg) {
        self.set(v, Repr::Reg(r));
        for scale in self.scales.get(&v).cloned().unwrap_or_default() {
            let product = self.mul_imm(r, scale);
            self.scaled.insert((v, scale), product);
        }
    }

    /// Whether a value read once, in the block that defines it, may wait for its user.
    fn may_wait(&self, v: Value) -> bool {
        let u = self.usage[v.index()];
        u.uses == 1 && u.def == u.last
    }

    /// The integers of a constant, lane by lane.
    fn constant(&self, v: Value) -> Option<(Type, &[u64])> {
        match &self.repr[v.index()] {
            Some(Repr::Const(ty, lanes)) => Some((*ty, lanes)),
            _ => None,
        }
    }

    /// The width of the register of a scalar float or a vector.
    fn width(&self, ty: Type) -> Result<Width, Unsupported> {
        match Width::of_bytes(ty.bytes().unwrap_or(0)) {
            Some(w) if w <= self.max => Ok(w),
            _ => Err(format!("{ty}, wider than a register")),
        }
    }

    /// The class of register that carries a type across blocks.
    fn class(&self, ty: Type) -> RegClass {
        match ty {
            Type::Ptr | Type::Mask(1) => GPR,
            Type::Scalar(e) if !e.is_float() => GPR,
            Type::Mask(_) if self.evex => MASK,
            _ => VEC,
        }
    }

    /// A value in the register that carries its type across blocks.
    fn carried(&mut self, v: Value) -> Result<VReg, Unsupported> {
        match self.ty(v) {
            Type::Mask(1) => self.cond_gpr(v),
            Type::Mask(_) if self.evex => self.k(v),
            Type::Mask(n) => self.lanes_of(v, mask::canonical_bytes(n)),
            ty if self.class(ty) == GPR => self.gpr(v),
            _ => self.vec(v),
        }
    }

    /// Defines a value that came across blocks.
    fn arrive(&mut self, v: Value, r: VReg) {
        match self.ty(v) {
            Type::Mask(n) if n > 1 && !self.evex => self.set(v, Repr::Lanes(r, mask::canonical_bytes(n))),
            _ => self.define(v, r),
        }
    }

    // ---- control --------------------------------------------------------------------------------------------------

    fn block(&mut self, block: &kir::Block, number: &mut u32) -> Result<(), Unsupported> {
        for inst in &block.insts {
            match &inst.op {
                Op::Loop(l) => self.loop_(inst, l, number)?,
                Op::If(i) => self.if_(inst, i, number)?,
                op => self.inst(inst, op)?,
            }
        }
        Ok(())
    }

    fn jump(&mut self, to: Block, args: Vec<VReg>) {
        let b = &mut self.code.blocks[self.at.index()];
        b.insts.push(Inst::Jump);
        b.succs.push(to);
        b.args.push(args);
    }

    fn branch(&mut self, cond: Cond, yes: Block, no: Block) {
        let b = &mut self.code.blocks[self.at.index()];
        b.insts.push(Inst::Branch(cond));
        b.succs.extend([yes, no]);
        b.args.extend([Vec::new(), Vec::new()]);
    }

    fn yields(&mut self, values: &[Value]) -> Result<Vec<VReg>, Unsupported> {
        values.iter().map(|&y| self.carried(y)).collect()
    }

    /// ```text
    ///         if lo >= hi goto skip                 (not when both are constants)
    ///         jump body(lo, inits)
    /// body(iv, carried):   ...; iv' = iv + step; if iv' < hi goto again else goto done
    /// again:  jump body(iv', yields)                these three are empty unless the allocator moves something
    /// done:   jump exit(yields)
    /// skip:   jump exit(inits)
    /// exit(results):
    /// ```
    fn loop_(&mut self, inst: &kir::Inst, l: &kir::Loop, number: &mut u32) -> Result<(), Unsupported> {
        self.settle_loads()?;
        let known = |s: &Self, v| s.constant(v).map(|(_, bits)| bits[0] as i64);
        let bounds = known(self, l.lo).zip(known(self, l.hi));
        let inits: Vec<Value> = l.carried.iter().map(|c| c.init).collect();
        *number += 1;
        if bounds.is_some_and(|(lo, hi)| lo >= hi) {
            *number += blocks_inside(&l.body);
            let args = self.yields(&inits)?;
            for (&r, a) in inst.results.iter().zip(args) {
                self.arrive(r, a);
            }
            return Ok(());
        }
        let lo = self.gpr(l.lo)?;
        let hi = self.int_src(l.hi)?;
        let mut entered = vec![lo];
        entered.extend(self.yields(&inits)?);
        let skip = match bounds {
            Some(_) => None,
            None => {
                self.compare(lo, hi);
                let (skip, enter) = (self.code.block(), self.code.block());
                self.branch(Cond::Ge, skip, enter);
                self.at = enter;
                Some(skip)
            }
        };
        let body = self.code.block();
        self.jump(body, entered.clone());
        self.at = body;
        let iv = self.reg(GPR);
        let mut params = vec![iv];
        for c in &l.carried {
            let class = self.class(self.ty(c.param));
            params.push(self.reg(class));
        }
        self.code.blocks[body.index()].params = params.clone();
        self.define(l.iv, iv);
        for (c, &p) in l.carried.iter().zip(&params[1..]) {
            self.arrive(c.param, p);
        }
        self.block(&l.body, number)?;
        let mut next = self.yields(&l.body.yields)?;
        let iv_next = self.add_imm(iv, l.step);
        let hi = self.int_src(l.hi)?;
        self.compare(iv_next, hi);
        let (again, done, exit) = (self.code.block(), self.code.block(), self.code.block());
        self.branch(Cond::L, again, done);
        self.at = done;
        self.jump(exit, next.clone());
        next.insert(0, iv_next);
        self.at = again;
        self.jump(body, next);
        if let Some(skip) = skip {
            self.at = skip;
            self.jump(exit, entered[1..].to_vec());
        }
        self.enter(exit, &inst.results);
        Ok(())
    }

    fn if_(&mut self, inst: &kir::Inst, i: &kir::If, number: &mut u32) -> Result<(), Unsupported> {
        self.settle_loads()?;
        let cond = self.flags(i.cond)?;
        let (then, otherwise) = (self.code.block(), self.code.block());
        self.branch(cond, then, otherwise);
        let mut ends = Vec::new();
        for (block, body) in [(then, &i.then), (otherwise, &i.otherwise)] {
            self.at = block;
            *number += 1;
            self.block(body, number)?;
            let args = self.yields(&body.yields)?;
            self.settle_loads()?;
            ends.push((self.at, args));
        }
        let join = self.code.block();
        for (at, args) in ends {
            self.at = at;
            self.jump(join, args);
        }
        self.enter(join, &inst.results);
        Ok(())
    }

    /// Goes on in a block whose parameters are these results.
    fn enter(&mut self, block: Block, results: &[Value]) {
        self.at = block;
        let params: Vec<VReg> = results
            .iter()
            .map(|&r| {
                let class = self.class(self.ty(r));
                self.reg(class)
            })
            .collect();
        self.code.blocks[block.index()].params = params.clone();
        for (&r, p) in results.iter().zip(params) {
            self.arrive(r, p);
        }
    }

    // ---- one instruction ------------------------------------------------------------------------------------------

    fn inst(&mut self, inst: &kir::Inst, op: &Op) -> Result<(), Unsupported> {
        let result = inst.results.first().copied();
        if op.is_pure() && result.is_none_or(|r| self.usage[r.index()].uses == 0) {
            return Ok(());
        }
        let Some(r) = result else {
            return match op {
                Op::Store { addr, value } => self.store(addr, *value),
                Op::StorePart { addr, value, count } => self.store_part(addr, *value, *count),
                Op::Prefetch(addr) => self.prefetch(addr),
                _ => Err(format!("{op:?}")),
            };
        };
        let ty = self.ty(r);
        let reg = match op {
            Op::Const { ty, bits } => return self.delay(r, Repr::Const(*ty, vec![*bits])),
            Op::VecConst { ty, lanes } => return self.delay(r, Repr::Const(*ty, lanes.clone())),
            Op::Load { ty, addr } => return self.load(r, *ty, addr),
            Op::LoadSplat { ty, addr } => return self.load_splat(r, *ty, addr),
            Op::PtrAdd(addr) => return self.ptr_add(r, addr),
            Op::LoadPart { ty, addr, count } => self.load_part(*ty, addr, *count)?,
            Op::ICmp(cc, a, b) => return self.icmp(r, *cc, *a, *b),
            Op::FCmp(cc, a, b) => return self.fcmp(r, *cc, *a, *b),
            Op::MaskToInt(m) => self.mask_to_int(*m)?,
            Op::Any(m) => self.any(*m)?,
            Op::All(m) => self.all(*m)?,
            Op::Unary(kir::UnaryOp::Not, a) if matches!(ty, Type::Mask(_)) => return self.mask_not(r, *a),
            Op::Binary(o, a, b) if matches!(ty, Type::Mask(_)) => return self.mask_binary(r, *o, *a, *b),
            Op::Splat { value, .. } if matches!(ty, Type::Mask(_)) => return self.splat_mask(r, *value),
            Op::Select { mask, a, b } => return self.select(r, *mask, *a, *b),
            Op::ExtractLane { value, lane } if matches!(ty, Type::Mask(_)) => self.extract_mask(*value, *lane)?,
            Op::Shuffle { .. } if matches!(ty, Type::Mask(_)) => return Err(format!("a shuffle of {ty}")),
            Op::Unary(o, a) if self.class(ty) == GPR => self.int_unary(*o, *a)?,
            Op::Binary(o, a, b) if self.class(ty) == GPR => self.int_binary(*o, *a, *b)?,
            Op::Unary(o, a) => self.vec_unary(ty, *o, *a)?,
            Op::Binary(o, a, b) => self.vec_binary(ty, *o, *a, *b)?,
            Op::MulAdd(a, b, c) => self.mul_add(ty, *a, *b, *c)?,
            Op::Convert { op, to, value } => self.convert(*op, *to, *value)?,
            Op::Splat { value, .. } => self.splat(ty, *value)?,
            Op::ExtractLane { value, lane } => self.extract(*value, *lane)?,
            Op::InsertLane { into, lane, value } => self.insert(*into, *lane, *value)?,
            Op::Reduce(o, v) => self.reduce(*o, *v)?,
            Op::Shuffle { a, b, lanes } => self.shuffle(ty, *a, *b, lanes)?,
            Op::Store { .. } | Op::StorePart { .. } | Op::Prefetch(_) | Op::Loop(_) | Op::If(_) => {
                return Err(format!("{op:?} with a result"));
            }
        };
        self.define(r, reg);
        Ok(())
    }

    fn delay(&mut self, r: Value, repr: Repr) -> Result<(), Unsupported> {
        self.set(r, repr);
        // A constant index with an odd scale still needs its product.
        if self.scales.contains_key(&r) {
            let reg = self.gpr(r)?;
            for scale in self.scales.get(&r).cloned().unwrap_or_default() {
                let product = self.mul_imm(reg, scale);
                self.scaled.insert((r, scale), product);
            }
        }
        Ok(())
    }
}

/// The number of blocks inside of a block, at any depth.
fn blocks_inside(block: &kir::Block) -> u32 {
    block.insts.iter().flat_map(|i| i.op.blocks()).map(|b| 1 + blocks_inside(b)).sum()
}

/// The last operand of a vector instruction: a register or memory.
#[derive(Clone, Copy)]
enum VecSrc {
    Reg(VReg),
    Mem(Mem),
}

impl VecSrc {
    fn opnd(self, w: Width) -> Opnd {
        match self {
            VecSrc::Reg(r) => Opnd::Use(r, w.into()),
            VecSrc::Mem(m) => Opnd::Mem(m),
        }
    }
}

impl From<VReg> for VecSrc {
    fn from(r: VReg) -> VecSrc {
        VecSrc::Reg(r)
    }
}

/// One of two by the element of a float.
fn by_float<T>(e: Elem, single: T, double: T) -> T {
    if e == Elem::F64 { double } else { single }
}
