//! Known alignment of pointers and indices: how many low bits of each value are zero.
//!
//! A forward data flow over the structured body, optimistic at loops, iterated until nothing changes: a value only ever
//! loses zero bits, at most 64 of them, so it ends. Operands start with their declared alignment, scratch with 64 bytes.
//! Whoever folds memory operands into SSE instructions, which fault when unaligned, asks [`Alignment::of`].

use super::{Addr, BinaryOp, Block, Kernel, Op, Value};

/// The alignment of scratch memory, as every caller promises.
pub const SCRATCH_ALIGN: u32 = 64;

/// The result of the analysis.
#[derive(Clone, Debug)]
pub struct Alignment {
    /// Trailing zero bits of each value; 64 for what is always 0 (or has not been reached).
    zeros: Vec<u32>,
}

impl Alignment {
    /// Analyses a kernel.
    pub fn of_kernel(kernel: &Kernel) -> Alignment {
        let mut a = Alignment { zeros: vec![64; kernel.types.len()] };
        for (i, arg) in kernel.args.iter().enumerate() {
            a.zeros[i] = arg.align.trailing_zeros();
        }
        a.zeros[kernel.scratch().index()] = SCRATCH_ALIGN.trailing_zeros();
        a.zeros[kernel.begin().index()] = 0;
        a.zeros[kernel.end().index()] = 0;
        while a.block(&kernel.body) {}
        a
    }

    /// The bytes that an address is certainly a multiple of, capped at a cache line.
    pub fn of(&self, addr: &Addr) -> u32 {
        1 << self.addr_zeros(addr).min(6)
    }

    fn get(&self, v: Value) -> u32 {
        self.zeros[v.index()]
    }

    fn addr_zeros(&self, addr: &Addr) -> u32 {
        let index = addr.index.map_or(64, |(i, scale)| self.get(i) + scale.trailing_zeros());
        self.get(addr.base).min(index).min(addr.disp.trailing_zeros())
    }

    /// Lowers what is known of `v` to `zeros`; did that change anything?
    fn lower(&mut self, v: Value, zeros: u32) -> bool {
        let old = self.get(v);
        self.zeros[v.index()] = old.min(zeros);
        zeros < old
    }

    fn block(&mut self, block: &Block) -> bool {
        let mut changed = false;
        for inst in &block.insts {
            match &inst.op {
                Op::Loop(l) => {
                    let iv = self.get(l.lo).min(l.step.trailing_zeros());
                    changed |= self.lower(l.iv, iv);
                    for c in &l.carried {
                        let init = self.get(c.init);
                        changed |= self.lower(c.param, init);
                    }
                    changed |= self.block(&l.body);
                    for ((c, &y), &r) in l.carried.iter().zip(&l.body.yields).zip(&inst.results) {
                        let zeros = self.get(y).min(self.get(c.init));
                        changed |= self.lower(c.param, zeros) | self.lower(r, zeros);
                    }
                }
                Op::If(i) => {
                    changed |= self.block(&i.then) | self.block(&i.otherwise);
                    for ((&a, &b), &r) in i.then.yields.iter().zip(&i.otherwise.yields).zip(&inst.results) {
                        let zeros = self.get(a).min(self.get(b));
                        changed |= self.lower(r, zeros);
                    }
                }
                op => {
                    let zeros = match *op {
                        Op::Const { bits, .. } => bits.trailing_zeros(),
                        Op::PtrAdd(ref addr) => self.addr_zeros(addr),
                        Op::Select { a, b, .. } | Op::Binary(BinaryOp::Add | BinaryOp::Sub, a, b) => {
                            self.get(a).min(self.get(b))
                        }
                        Op::Binary(BinaryOp::Mul, a, b) => (self.get(a) + self.get(b)).min(64),
                        _ => 0,
                    };
                    for &r in &inst.results {
                        changed |= self.lower(r, zeros);
                    }
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::{ArgDecl, Builder, Elem, Type};

    #[test]
    fn pointers_that_go_round_keep_what_their_step_allows() {
        let aligned = |step: i64, disp: i64| {
            let mut b = Builder::new("k", vec![ArgDecl::read_write("x", 64)]);
            let (x, ty) = (b.arg(0), Type::of(Elem::F32, 4));
            b.loop_(0, 10, 1, &[x], |b, _, p| {
                let v = b.load(ty, p[0].at(disp));
                b.store(p[0].at(disp), v);
                vec![b.ptr(p[0].at(step))]
            });
            let k = b.finish();
            let Op::Loop(l) = &k.body.insts.last().unwrap().op else { panic!("a loop") };
            let Op::Load { addr, .. } = l.body.insts[0].op else { panic!("a load") };
            Alignment::of_kernel(&k).of(&addr)
        };
        assert_eq!(aligned(64, 0), 64);
        assert_eq!(aligned(64, 16), 16);
        assert_eq!(aligned(24, 16), 8);
        assert_eq!(aligned(12, 0), 4);
    }
}
