//! Kernel IR to CLIF: entry, control flow, and the dispatch over instructions.
//!
//! A loop is tested at its end, with a guard before it unless its bounds are constants, so that one compare and branch a
//! round remains. Addresses `base + iv * scale` with the loop's own induction variable are strength-reduced:
//!
//! * AArch64 addresses memory as `[p, #disp]` or `[p, i]`, never both: each pair (base, scale) becomes a pointer that goes
//!   round with the loop, so that unrolled bodies use displacements;
//! * x86 has `[p + i*s + disp]` for s = 1, 2, 4, 8: only other scales get a variable, one for all bases, since registers
//!   are scarcer there.

use crate::kir::alignment::Alignment;
use crate::kir::{Block, Inst, Kernel, Loop, Op, Type, Value};
use crate::target::{Level, Target};
use cranelift_codegen::ir::{
    self, AbiParam, BlockArg, InstBuilder, MemFlagsData, Signature, UserFuncName, condcodes::IntCC, types,
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use rustc_hash::FxHashMap;

/// What is not supported, as a noun phrase.
pub(super) type Emitted<T> = Result<T, String>;

/// More pointers than this in one loop would cost AArch64 more registers than the additions they save; its 31 also hold
/// bases, bounds and indices.
const MAX_LOOP_POINTERS: usize = 12;

/// Makes the CLIF function of a kernel.
pub(super) fn function(kernel: &Kernel, target: &Target, isa: &dyn TargetIsa) -> Emitted<ir::Function> {
    let mut signature = Signature::new(isa.default_call_conv());
    signature.params = vec![AbiParam::new(types::I64); 4];
    let mut function = ir::Function::with_name_signature(UserFuncName::testcase(&kernel.name), signature);
    let mut context = FunctionBuilderContext::new();
    let mut e = Emit {
        b: FunctionBuilder::new(&mut function, &mut context),
        kernel,
        x86: target.level != Level::Aarch64,
        fma: target.fma,
        alignment: Alignment::of_kernel(kernel),
        values: vec![None; kernel.types.len()],
        uniform: FxHashMap::default(),
        splats: FxHashMap::default(),
        extracted: FxHashMap::default(),
        reduced: FxHashMap::default(),
    };
    e.entry();
    e.block(&kernel.body)?;
    e.b.ins().return_(&[]);
    e.b.seal_all_blocks();
    e.b.finalize(isa.frontend_config());
    Ok(function)
}

/// What a strength-reduced address starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reduced {
    /// `base + iv * scale`.
    Pointer(Value, Value, i64),
    /// `iv * scale`.
    Offset(Value, i64),
}

/// The state of one kernel's emission.
pub(super) struct Emit<'a, 'f> {
    pub b: FunctionBuilder<'f>,
    pub kernel: &'a Kernel,
    /// x86-64-v1, else AArch64.
    pub x86: bool,
    pub fma: bool,
    pub alignment: Alignment,
    values: Vec<Option<ir::Value>>,
    /// Constants whose lanes are all these bits.
    pub uniform: FxHashMap<Value, u64>,
    /// The scalars of `Splat`s.
    pub splats: FxHashMap<Value, ir::Value>,
    /// What was extracted from which lane.
    pub extracted: FxHashMap<Value, (Value, u8)>,
    /// Variables that loops carry for addresses.
    pub reduced: FxHashMap<Reduced, ir::Value>,
}

impl Emit<'_, '_> {
    pub fn get(&self, v: Value) -> ir::Value {
        self.values[v.index()].expect("kernels are verified: values are defined before they are used")
    }

    pub fn set(&mut self, v: Value, x: ir::Value) {
        self.values[v.index()] = Some(x);
    }

    pub fn ty(&self, v: Value) -> Type {
        self.kernel.ty(v)
    }

    fn entry(&mut self) {
        let block = self.b.create_block();
        self.b.append_block_params_for_function_params(block);
        self.b.switch_to_block(block);
        let params = self.b.block_params(block).to_vec();
        for i in 0..self.kernel.args.len() {
            let flags = MemFlagsData::trusted().with_readonly();
            let p = self.b.ins().load(types::I64, flags, params[0], 8 * i as i32);
            self.set(self.kernel.arg(i), p);
        }
        self.set(self.kernel.scratch(), params[1]);
        self.set(self.kernel.begin(), params[2]);
        self.set(self.kernel.end(), params[3]);
    }

    fn block(&mut self, block: &Block) -> Emitted<()> {
        block.insts.iter().try_for_each(|inst| self.inst(inst))
    }

    fn inst(&mut self, inst: &Inst) -> Emitted<()> {
        let value = match &inst.op {
            Op::Loop(l) => return self.loop_(inst, l),
            Op::If(i) => {
                let cond = self.get(i.cond);
                let [then, otherwise, join] = [(); 3].map(|()| self.b.create_block());
                for &r in &inst.results {
                    let ty = self.clif_type(self.ty(r))?;
                    let param = self.b.append_block_param(join, ty);
                    self.set(r, param);
                }
                self.b.ins().brif(cond, then, &[], otherwise, &[]);
                for (block, inner) in [(then, &i.then), (otherwise, &i.otherwise)] {
                    self.b.switch_to_block(block);
                    self.block(inner)?;
                    let yields = self.args(&inner.yields);
                    self.b.ins().jump(join, &yields);
                }
                self.b.switch_to_block(join);
                return Ok(());
            }
            Op::Store { addr, value } => return self.store(addr, *value, self.ty(*value).lanes()),
            Op::StorePart { addr, value, count } => return self.store(addr, *value, usize::from(*count)),
            // CLIF has no prefetch; it has no meaning either.
            Op::Prefetch(_) => return Ok(()),
            Op::Const { ty, bits } => self.constant(inst.result(), *ty, std::slice::from_ref(bits))?,
            Op::VecConst { ty, lanes } => self.constant(inst.result(), *ty, lanes)?,
            Op::Splat { ty, value } if self.lane_source(*ty, *value).is_some() => {
                let (source, lane) = self.lane_source(*ty, *value).expect("just asked");
                let v = self.get(source);
                self.shuffle(*ty, v, v, &vec![lane; ty.lanes()])?
            }
            Op::Splat { ty, value } => {
                let scalar = self.get(*value);
                self.splats.insert(inst.result(), scalar);
                self.splat(*ty, scalar)?
            }
            Op::Unary(op, v) => self.unary(*op, self.ty(*v), self.get(*v))?,
            Op::Binary(op, a, b) => self.binary(*op, *a, *b)?,
            Op::MulAdd(a, b, c) => {
                let (a, b, c) = (self.get(*a), self.get(*b), self.get(*c));
                if self.fma {
                    self.b.ins().fma(a, b, c)
                } else {
                    // The sum first: SSE overwrites its first operand, so that accumulators stay in their registers.
                    let product = self.b.ins().fmul(a, b);
                    self.b.ins().fadd(c, product)
                }
            }
            Op::Convert { op, to, value } => self.convert(*op, self.ty(*value), *to, self.get(*value))?,
            Op::ICmp(cc, a, b) => self.icmp(*cc, self.ty(*a), self.get(*a), self.get(*b))?,
            Op::FCmp(cc, a, b) => self.fcmp(*cc, self.ty(*a), self.get(*a), self.get(*b))?,
            Op::Select { mask, a, b } => {
                let (m, x, y) = (self.get(*mask), self.get(*a), self.get(*b));
                if self.ty(*mask).lanes() == 1 {
                    self.b.ins().select(m, x, y)
                } else {
                    self.blend(self.ty(*a), m, x, y)?
                }
            }
            Op::MaskToInt(m) => self.mask_to_int(self.ty(*m), self.get(*m))?,
            Op::Any(m) | Op::All(m) => {
                let mask = self.get(*m);
                match inst.op {
                    _ if self.ty(*m).lanes() == 1 => mask,
                    Op::Any(_) => self.b.ins().vany_true(mask),
                    _ => self.b.ins().vall_true(mask),
                }
            }
            Op::Load { ty, addr } => self.load(*ty, addr, ty.lanes())?,
            Op::LoadPart { ty, addr, count } => self.load(*ty, addr, usize::from(*count))?,
            Op::LoadSplat { ty, addr } => {
                let scalar = self.load(ty.lane(), addr, 1)?;
                self.splats.insert(inst.result(), scalar);
                self.splat(*ty, scalar)?
            }
            Op::PtrAdd(addr) => {
                let (base, disp) = self.address(addr);
                if disp == 0 { base } else { self.b.ins().iadd_imm_s(base, i64::from(disp)) }
            }
            Op::ExtractLane { value, lane } => {
                self.extracted.insert(inst.result(), (*value, *lane));
                self.extract(self.ty(*value), self.get(*value), *lane)?
            }
            Op::InsertLane { into, lane, value } => {
                let (into, value) = (self.get(*into), self.get(*value));
                self.b.ins().insertlane(into, value, *lane)
            }
            Op::Reduce(op, v) => self.reduce(*op, self.ty(*v), self.get(*v))?,
            Op::Shuffle { a, b, lanes } => self.shuffle(self.ty(*a), self.get(*a), self.get(*b), lanes)?,
        };
        self.set(inst.result(), value);
        Ok(())
    }

    /// The vector and lane that a splat to `ty` repeats, where a shuffle does that in one instruction: `fmla` by element
    /// on AArch64 (Cranelift looks for the shuffle), `pshufd` on x86.
    fn lane_source(&self, ty: Type, scalar: Value) -> Option<(Value, u8)> {
        let wide = ty.elem().is_some_and(|e| e.bits() >= 32);
        self.extracted.get(&scalar).copied().filter(|&(source, _)| wide && self.ty(source) == ty)
    }

    fn args(&self, values: &[Value]) -> Vec<BlockArg> {
        values.iter().map(|&v| BlockArg::Value(self.get(v))).collect()
    }

    fn loop_(&mut self, inst: &Inst, l: &Loop) -> Emitted<()> {
        let (lo, hi) = (self.get(l.lo), self.get(l.hi));
        let reduced = self.reducible(l);
        let (body, exit) = (self.b.create_block(), self.b.create_block());

        // What enters: the index, the carried values, the address variables.
        let inits: Vec<Value> = l.carried.iter().map(|c| c.init).collect();
        let mut enter = vec![BlockArg::Value(lo)];
        enter.extend(self.args(&inits));
        for r in &reduced {
            let start = match *r {
                Reduced::Pointer(base, _, scale) => {
                    let offset = self.scaled(lo, scale);
                    let base = self.get(base);
                    self.b.ins().iadd(base, offset)
                }
                Reduced::Offset(_, scale) => self.scaled(lo, scale),
            };
            enter.push(BlockArg::Value(start));
        }
        let known = |e: &Self, v: Value| e.uniform.get(&v).map(|&bits| bits as i64);
        match (known(self, l.lo), known(self, l.hi)) {
            (Some(from), Some(to)) if from < to => {
                self.b.ins().jump(body, &enter);
            }
            _ => {
                let skip = self.args(&inits);
                let runs = self.b.ins().icmp(IntCC::SignedLessThan, lo, hi);
                self.b.ins().brif(runs, body, &enter, exit, &skip);
            }
        }

        // The body.
        let iv = self.b.append_block_param(body, types::I64);
        self.set(l.iv, iv);
        for (c, &r) in l.carried.iter().zip(&inst.results) {
            let ty = self.clif_type(self.ty(c.param))?;
            let (param, result) = (self.b.append_block_param(body, ty), self.b.append_block_param(exit, ty));
            self.set(c.param, param);
            self.set(r, result);
        }
        let variables: Vec<ir::Value> = reduced.iter().map(|_| self.b.append_block_param(body, types::I64)).collect();
        self.reduced.extend(reduced.iter().copied().zip(variables.iter().copied()));
        self.b.switch_to_block(body);
        self.block(&l.body)?;

        // The next round.
        let next = self.b.ins().iadd_imm_s(iv, l.step);
        let yields = self.args(&l.body.yields);
        let mut again = vec![BlockArg::Value(next)];
        again.extend(yields.iter().copied());
        for (r, &variable) in reduced.iter().zip(&variables) {
            let (Reduced::Pointer(_, _, scale) | Reduced::Offset(_, scale)) = *r;
            again.push(BlockArg::Value(self.b.ins().iadd_imm_s(variable, l.step.wrapping_mul(scale))));
            self.reduced.remove(r);
        }
        let more = self.b.ins().icmp(IntCC::SignedLessThan, next, hi);
        self.b.ins().brif(more, body, &again, exit, &yields);
        self.b.switch_to_block(exit);
        Ok(())
    }

    /// The address variables that a loop should carry, in the order of first use.
    fn reducible(&self, l: &Loop) -> Vec<Reduced> {
        let mut pointers = Vec::new();
        self.indexed_by(l.iv, &l.body, &mut pointers);
        let mut offsets: Vec<Reduced> = Vec::new();
        for r in &pointers {
            let Reduced::Pointer(_, iv, scale) = *r else { continue };
            let free = matches!(scale, 1 | 2 | 4 | 8) && self.x86;
            if !free && !offsets.contains(&Reduced::Offset(iv, scale)) {
                offsets.push(Reduced::Offset(iv, scale));
            }
        }
        if self.x86 || pointers.len() > MAX_LOOP_POINTERS { offsets } else { pointers }
    }

    /// Gathers the pairs (base, scale) that `iv` indexes, for bases defined outside the loop (they have their value already).
    fn indexed_by(&self, iv: Value, block: &Block, found: &mut Vec<Reduced>) {
        for inst in &block.insts {
            let addr = match &inst.op {
                Op::Load { addr, .. }
                | Op::LoadPart { addr, .. }
                | Op::LoadSplat { addr, .. }
                | Op::Store { addr, .. }
                | Op::StorePart { addr, .. }
                | Op::PtrAdd(addr) => Some(addr),
                _ => None,
            };
            if let Some(addr) = addr
                && let Some((index, scale)) = addr.index
                && index == iv
                && self.values[addr.base.index()].is_some()
            {
                let pointer = Reduced::Pointer(addr.base, iv, scale);
                if !found.contains(&pointer) {
                    found.push(pointer);
                }
            }
            for inner in inst.op.blocks() {
                self.indexed_by(iv, inner, found);
            }
        }
    }
}
