//! The builder of kernels: what templates are written against.
//!
//! ```
//! use nncc_codegen::kir::{ArgDecl, Builder, Elem, Type};
//! // y[i] = max(0, x[i]) for 8 lanes a task
//! let mut b = Builder::new("relu", vec![ArgDecl::read("x", 4), ArgDecl::write("y", 4)]);
//! let (x, y, ty) = (b.arg(0), b.arg(1), Type::of(Elem::F32, 8));
//! let zero = b.float(ty, 0.0);
//! b.tasks(|b, task| {
//!     let v = b.load(ty, x.at(0).idx(task, 32));
//!     let r = b.pmax(zero, v);
//!     b.store(y.at(0).idx(task, 32), r);
//! });
//! let kernel = b.finish();
//! # assert_eq!(kernel.name, "relu");
//! ```
//!
//! Conveniences that keep templates short, none of which changes what is computed:
//!
//! * Methods take the form from the operands' type: `add` is an integer or a float addition. Signed and unsigned forms, which
//!   types cannot tell apart, have names of their own (`div_s`, `min_u`).
//! * A type of one lane is a scalar, and vector methods accept it: `splat` gives the scalar itself, `load_splat` loads,
//!   `reduce` returns it, `load_part` with all lanes is a plain load.
//! * Constants are made once, at the top of the kernel. Integer arithmetic on constants is folded, identities are removed,
//!   constant indices and pointer offsets move into displacements.
//! * A loop with constant bounds that runs once is its body, one that never runs is nothing.
//! * [`Builder::finish`] drops pure instructions whose results are unused.
//!
//! Ill-typed use panics with the caller's line: the types are the template's own, so this is a bug of the template and
//! cannot depend on a model file beyond what the template itself lets through.

mod ops;

use super::canonical::canonicalize;
use super::typing::result_types;
use super::*;
use rustc_hash::FxHashMap;

/// A loop bound or an index: a constant or a value. Made from integers and from [`Value`]s.
#[derive(Clone, Copy, Debug)]
pub enum Index {
    /// Known.
    Const(i64),
    /// A scalar `I64`.
    Value(Value),
}

impl From<i64> for Index {
    fn from(i: i64) -> Index {
        Index::Const(i)
    }
}

impl From<i32> for Index {
    fn from(i: i32) -> Index {
        Index::Const(i64::from(i))
    }
}

impl From<usize> for Index {
    fn from(i: usize) -> Index {
        Index::Const(i as i64)
    }
}

impl From<Value> for Index {
    fn from(v: Value) -> Index {
        Index::Value(v)
    }
}

/// Builds one [`Kernel`].
#[derive(Debug)]
pub struct Builder {
    kernel: Kernel,
    /// Constants, placed before everything else.
    prelude: Vec<Inst>,
    /// Each constant once.
    pool: FxHashMap<(Type, Vec<u64>), Value>,
    /// The bits of scalar constants.
    known: FxHashMap<Value, u64>,
    /// Pointers that are another pointer plus a constant.
    offsets: FxHashMap<Value, (Value, i64)>,
    /// Indices that are `x * m + c`.
    linear: FxHashMap<Value, (Value, i64, i64)>,
    /// The blocks being filled, innermost last.
    blocks: Vec<Vec<Inst>>,
}

impl Builder {
    /// Starts a kernel with these operands.
    pub fn new(name: impl Into<String>, args: Vec<ArgDecl>) -> Builder {
        let mut types = vec![Type::Ptr; args.len() + 1];
        types.extend([I64, I64]);
        Builder {
            kernel: Kernel { name: name.into(), args, body: Block::default(), types },
            prelude: Vec::new(),
            pool: FxHashMap::default(),
            known: FxHashMap::default(),
            offsets: FxHashMap::default(),
            linear: FxHashMap::default(),
            blocks: vec![Vec::new()],
        }
    }

    /// The pointer to operand `i`.
    pub fn arg(&self, i: usize) -> Value {
        self.kernel.arg(i)
    }

    /// The pointer to this thread's scratch memory, aligned to 64 bytes.
    pub fn scratch(&self) -> Value {
        self.kernel.scratch()
    }

    /// The first task.
    pub fn begin(&self) -> Value {
        self.kernel.begin()
    }

    /// The end of the tasks, exclusive.
    pub fn end(&self) -> Value {
        self.kernel.end()
    }

    /// The type of a value.
    pub fn ty(&self, v: Value) -> Type {
        self.kernel.ty(v)
    }

    /// The value of an integer constant, sign-extended; none when it is not one.
    pub fn known(&self, v: Value) -> Option<i64> {
        let elem = match self.ty(v) {
            Type::Scalar(e) if !e.is_float() => e,
            _ => return None,
        };
        Some(sign_extend(elem, *self.known.get(&v)?))
    }

    /// The finished kernel: constants first, unused pure instructions gone, values numbered in order.
    pub fn finish(mut self) -> Kernel {
        assert_eq!(self.blocks.len(), 1, "every block is closed");
        let mut insts = self.prelude;
        insts.append(&mut self.blocks[0]);
        self.kernel.body.insts = insts;
        canonicalize(&mut self.kernel);
        self.kernel
    }

    /// Appends an instruction; the methods below are the pleasant way.
    ///
    /// # Panics
    /// When it is ill typed.
    #[track_caller]
    pub fn push(&mut self, op: Op) -> SmallVec<[Value; 1]> {
        let types = match result_types(&op, |v| self.kernel.ty(v)) {
            Ok(types) => types,
            Err(e) => panic!("kernel {}: {e} in {op:?}", self.kernel.name),
        };
        let results: SmallVec<[Value; 1]> = types.into_iter().map(|t| self.fresh(t)).collect();
        self.blocks.last_mut().expect("a block is open").push(Inst { results: results.clone(), op });
        results
    }

    #[track_caller]
    fn value(&mut self, op: Op) -> Value {
        self.push(op)[0]
    }

    fn fresh(&mut self, ty: Type) -> Value {
        self.kernel.types.push(ty);
        Value(self.kernel.types.len() as u32 - 1)
    }

    // ---- constants ----

    /// The constant of any type with these lanes' bits, made once a kernel.
    #[track_caller]
    pub fn const_bits(&mut self, ty: Type, lanes: &[u64]) -> Value {
        if let Some(&v) = self.pool.get(&(ty, lanes.to_vec())) {
            return v;
        }
        let op =
            if ty.lanes() == 1 { Op::Const { ty, bits: lanes[0] } } else { Op::VecConst { ty, lanes: lanes.to_vec() } };
        if let Err(e) = result_types(&op, |v| self.kernel.ty(v)) {
            panic!("kernel {}: {e}", self.kernel.name);
        }
        let v = self.fresh(ty);
        self.prelude.push(Inst { results: smallvec::smallvec![v], op });
        self.pool.insert((ty, lanes.to_vec()), v);
        if ty.lanes() == 1 {
            self.known.insert(v, lanes[0]);
        }
        v
    }

    /// An integer constant in every lane of `ty`, wrapped to its width.
    #[track_caller]
    pub fn int(&mut self, ty: Type, x: i64) -> Value {
        let elem = ty.elem().filter(|e| !e.is_float()).expect("an integer type");
        self.const_bits(ty, &vec![x as u64 & elem.bit_mask(); ty.lanes()])
    }

    /// A float constant in every lane of `ty`, rounded to it.
    #[track_caller]
    pub fn float(&mut self, ty: Type, x: f64) -> Value {
        let bits = float_bits(ty.elem().expect("a float type"), x);
        self.const_bits(ty, &vec![bits; ty.lanes()])
    }

    /// A float constant given lane by lane.
    #[track_caller]
    pub fn floats(&mut self, ty: Type, lanes: &[f64]) -> Value {
        let elem = ty.elem().expect("a float type");
        let bits: Vec<u64> = lanes.iter().map(|&x| float_bits(elem, x)).collect();
        self.const_bits(ty, &bits)
    }

    /// The zero of a scalar or vector type, or all lanes false.
    #[track_caller]
    pub fn zero(&mut self, ty: Type) -> Value {
        self.const_bits(ty, &vec![0; ty.lanes()])
    }

    /// A scalar `f32` constant.
    pub fn f32(&mut self, x: f32) -> Value {
        self.const_bits(F32, &[u64::from(x.to_bits())])
    }

    /// A scalar `i64` constant.
    pub fn i64(&mut self, x: i64) -> Value {
        self.const_bits(I64, &[x as u64])
    }

    /// 0, 1, 2, ... in the lanes of `ty`, integers or floats.
    #[track_caller]
    pub fn iota(&mut self, ty: Type) -> Value {
        let elem = ty.elem().expect("an element type");
        let lane = |i: usize| if elem.is_float() { float_bits(elem, i as f64) } else { i as u64 };
        let lanes: Vec<u64> = (0..ty.lanes()).map(lane).collect();
        self.const_bits(ty, &lanes)
    }

    /// A mask given lane by lane.
    pub fn mask(&mut self, lanes: &[bool]) -> Value {
        let bits: Vec<u64> = lanes.iter().map(|&b| u64::from(b)).collect();
        self.const_bits(Type::Mask(lanes.len() as u8), &bits)
    }

    /// A bound or index as a value.
    pub fn index(&mut self, i: impl Into<Index>) -> Value {
        match i.into() {
            Index::Const(c) => self.i64(c),
            Index::Value(v) => v,
        }
    }

    // ---- control ----

    /// A loop over `lo..hi` that carries values: the body gets the index and the carried values, and returns their next
    /// values; the last ones are the result.
    #[track_caller]
    pub fn loop_(
        &mut self,
        lo: impl Into<Index>,
        hi: impl Into<Index>,
        step: i64,
        init: &[Value],
        body: impl FnOnce(&mut Builder, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (lo, hi) = (self.index(lo), self.index(hi));
        if let (Some(from), Some(to)) = (self.known(lo), self.known(hi)) {
            if from >= to {
                return init.to_vec();
            }
            if to - from <= step {
                let next = body(self, lo, init);
                assert_eq!(next.len(), init.len(), "the body yields every carried value");
                return next;
            }
        }
        let iv = self.fresh(I64);
        let carried: Vec<Carried> =
            init.iter().map(|&init| Carried { param: self.fresh(self.kernel.ty(init)), init }).collect();
        let params: Vec<Value> = carried.iter().map(|c| c.param).collect();
        let body = self.block(|b| body(b, iv, &params));
        self.push(Op::Loop(Box::new(Loop { iv, lo, hi, step, carried, body }))).to_vec()
    }

    /// A loop over `lo..hi` that carries nothing.
    #[track_caller]
    pub fn for_(
        &mut self,
        lo: impl Into<Index>,
        hi: impl Into<Index>,
        step: i64,
        body: impl FnOnce(&mut Builder, Value),
    ) {
        self.loop_(lo, hi, step, &[], |b, iv, _| {
            body(b, iv);
            Vec::new()
        });
    }

    /// The loop over this call's tasks, `begin..end`: the usual outermost loop of a kernel.
    #[track_caller]
    pub fn tasks(&mut self, body: impl FnOnce(&mut Builder, Value)) {
        self.for_(self.begin(), self.end(), 1, body);
    }

    /// A conditional; both sides return values of the same types.
    #[track_caller]
    pub fn if_(
        &mut self,
        cond: Value,
        then: impl FnOnce(&mut Builder) -> Vec<Value>,
        otherwise: impl FnOnce(&mut Builder) -> Vec<Value>,
    ) -> Vec<Value> {
        match self.known.get(&cond) {
            Some(1) => return then(self),
            Some(_) => return otherwise(self),
            None => {}
        }
        let then = self.block(then);
        let otherwise = self.block(otherwise);
        self.push(Op::If(Box::new(If { cond, then, otherwise }))).to_vec()
    }

    /// A conditional without results.
    #[track_caller]
    pub fn branch(&mut self, cond: Value, then: impl FnOnce(&mut Builder), otherwise: impl FnOnce(&mut Builder)) {
        self.if_(
            cond,
            |b| {
                then(b);
                Vec::new()
            },
            |b| {
                otherwise(b);
                Vec::new()
            },
        );
    }

    /// A conditional without results or an else.
    #[track_caller]
    pub fn when(&mut self, cond: Value, then: impl FnOnce(&mut Builder)) {
        self.branch(cond, then, |_| {});
    }

    fn block(&mut self, fill: impl FnOnce(&mut Builder) -> Vec<Value>) -> Block {
        self.blocks.push(Vec::new());
        let yields = fill(self);
        Block { insts: self.blocks.pop().expect("the block just opened"), yields }
    }
}

fn float_bits(elem: Elem, x: f64) -> u64 {
    match elem {
        Elem::F32 => u64::from((x as f32).to_bits()),
        Elem::F64 => x.to_bits(),
        int => panic!("a float constant of type {int}"),
    }
}

/// The low bits of `elem` as a signed number.
pub(crate) fn sign_extend(elem: Elem, bits: u64) -> i64 {
    let shift = 64 - elem.bits();
    ((bits << shift) as i64) >> shift
}
