//! The interpreter of kernel IR: slow, exact, and the oracle of both backends.
//!
//! A pointer is a buffer and an offset, so that every access is checked: outside its buffer, against the operand's
//! declared [`Access`], through something that is not a pointer, less aligned than [`Alignment`] says. Arithmetic is in
//! [`lane`]. The one thing that depends on the target is whether `MulAdd` rounds once.
//!
//! Scratch memory starts out as a pattern that is a NaN in every float type, so that a kernel which reads what it never
//! wrote is found by its results. Time is not bounded: the loops of templates are counted.

pub mod lane;

use super::alignment::Alignment;
use super::print::InstText;
use super::{Access, Addr, Block, Elem, Inst, Kernel, Op, Type, Value};
use crate::target::Target;
use smallvec::{SmallVec, smallvec};

/// What scratch memory holds before the kernel writes to it.
pub const SCRATCH_FILL: u8 = 0xff;

/// Why a run stopped: a bug of the template (or of the test).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel {kernel}: {what}\n  in {inst}")]
pub struct InterpError {
    /// Its name.
    pub kernel: String,
    /// The instruction, as text.
    pub inst: String,
    /// What is wrong with it.
    pub what: String,
}

/// A value while running: lanes, or a pointer.
#[derive(Clone, Debug, PartialEq)]
enum Val {
    /// One `u64` a lane, as in `lane`; truth values are 0 and 1.
    Lanes(SmallVec<[u64; 4]>),
    /// Buffer (one for each operand, then scratch) and offset.
    Ptr(usize, i64),
}

/// Runs the tasks `begin..end` of a kernel on `buffers`, one for each operand, with `scratch_len` bytes of scratch memory.
///
/// # Errors
/// An access outside a buffer or against the operand's declared access; use of a value that was not computed.
pub fn run(
    kernel: &Kernel,
    target: &Target,
    buffers: &mut [Vec<u8>],
    scratch_len: usize,
    begin: i64,
    end: i64,
) -> Result<(), InterpError> {
    let n = kernel.args.len();
    assert_eq!(buffers.len(), n, "a buffer for each operand of {}", kernel.name);
    let mut scratch = vec![SCRATCH_FILL; scratch_len];
    let mut memory: Vec<&mut Vec<u8>> = buffers.iter_mut().collect();
    memory.push(&mut scratch);
    let mut values = vec![None; kernel.types.len()];
    for (i, v) in values.iter_mut().enumerate().take(n + 1) {
        *v = Some(Val::Ptr(i, 0));
    }
    values[kernel.begin().index()] = Some(Val::Lanes(smallvec![begin as u64]));
    values[kernel.end().index()] = Some(Val::Lanes(smallvec![end as u64]));
    let alignment = Alignment::of_kernel(kernel);
    let mut run = Run { kernel, fma: target.fma, memory, values, alignment };
    run.block(&kernel.body).map_err(|(inst, what)| InterpError {
        kernel: kernel.name.clone(),
        inst: InstText { kernel, inst }.to_string(),
        what,
    })
}

struct Run<'a> {
    kernel: &'a Kernel,
    fma: bool,
    memory: Vec<&'a mut Vec<u8>>,
    values: Vec<Option<Val>>,
    alignment: Alignment,
}

type Lanes = SmallVec<[u64; 4]>;

impl<'a> Run<'a> {
    fn block(&mut self, block: &'a Block) -> Result<(), (&'a Inst, String)> {
        for inst in &block.insts {
            match &inst.op {
                Op::Loop(l) => {
                    let at = |what| (inst, what);
                    let (mut i, hi) = (self.int(l.lo).map_err(at)?, self.int(l.hi).map_err(at)?);
                    let mut state: Vec<Val> =
                        l.carried.iter().map(|c| self.get(c.init)).collect::<Result<_, _>>().map_err(at)?;
                    while i < hi {
                        self.values[l.iv.index()] = Some(Val::Lanes(smallvec![i as u64]));
                        for (c, v) in l.carried.iter().zip(state) {
                            self.values[c.param.index()] = Some(v);
                        }
                        self.block(&l.body)?;
                        state = l.body.yields.iter().map(|&v| self.get(v)).collect::<Result<_, _>>().map_err(at)?;
                        i = i.checked_add(l.step).ok_or_else(|| at("the loop index overflows".into()))?;
                    }
                    self.define(inst, state);
                }
                Op::If(f) => {
                    let at = |what| (inst, what);
                    let taken = if self.lanes(f.cond).map_err(at)?[0] != 0 { &f.then } else { &f.otherwise };
                    self.block(taken)?;
                    let state: Vec<Val> =
                        taken.yields.iter().map(|&v| self.get(v)).collect::<Result<_, _>>().map_err(at)?;
                    self.define(inst, state);
                }
                op => {
                    let result = self.step(op).map_err(|what| (inst, what))?;
                    self.define(inst, result);
                }
            }
        }
        Ok(())
    }

    fn define(&mut self, inst: &Inst, vals: impl IntoIterator<Item = Val>) {
        for (&r, v) in inst.results.iter().zip(vals) {
            self.values[r.index()] = Some(v);
        }
    }

    fn get(&self, v: Value) -> Result<Val, String> {
        self.values.get(v.index()).cloned().flatten().ok_or_else(|| format!("{v} is used before it is computed"))
    }

    fn lanes(&self, v: Value) -> Result<Lanes, String> {
        match self.get(v)? {
            Val::Lanes(l) if l.len() == self.kernel.ty(v).lanes() => Ok(l),
            other => Err(format!("{v} of type {} holds {other:?}", self.kernel.ty(v))),
        }
    }

    fn int(&self, v: Value) -> Result<i64, String> {
        Ok(self.lanes(v)?[0] as i64)
    }

    fn elem(&self, v: Value) -> Option<Elem> {
        self.kernel.ty(v).elem()
    }

    fn map2(&self, a: Value, b: Value, f: impl Fn(u64, u64) -> u64) -> Result<Option<Val>, String> {
        let (a, b) = (self.lanes(a)?, self.lanes(b)?);
        if a.len() != b.len() {
            return Err(format!("operands of {} and {} lanes", a.len(), b.len()));
        }
        Ok(Some(Val::Lanes(a.iter().zip(&b).map(|(&x, &y)| f(x, y)).collect())))
    }

    fn map1(&self, v: Value, f: impl Fn(u64) -> u64) -> Result<Option<Val>, String> {
        Ok(Some(Val::Lanes(self.lanes(v)?.into_iter().map(f).collect())))
    }

    /// One instruction without blocks.
    fn step(&mut self, op: &Op) -> Result<Option<Val>, String> {
        let float = |v: Value, e: Option<Elem>| e.filter(|e| e.is_float()).ok_or_else(|| format!("{v} is not a float"));
        let some = |lanes: Lanes| Ok(Some(Val::Lanes(lanes)));
        match op {
            Op::Const { bits, .. } => some(smallvec![*bits]),
            Op::VecConst { lanes, .. } => some(lanes.iter().copied().collect()),
            Op::Splat { ty, value } => some(smallvec![self.lanes(*value)?[0]; ty.lanes()]),
            Op::Unary(op, v) => self.map1(*v, |x| lane::unary(*op, self.elem(*v), x)),
            Op::Binary(op, a, b) => self.map2(*a, *b, |x, y| lane::binary(*op, self.elem(*a), x, y)),
            Op::MulAdd(a, b, c) => {
                let elem = float(*a, self.elem(*a))?;
                let (x, y, z) = (self.lanes(*a)?, self.lanes(*b)?, self.lanes(*c)?);
                some((0..x.len()).map(|i| lane::mul_add(self.fma, elem, x[i], y[i], z[i])).collect())
            }
            Op::Convert { op, to, value } => {
                let (Some(from), Some(to)) = (self.elem(*value), to.elem()) else {
                    return Err(format!("no conversion of {value}"));
                };
                self.map1(*value, |x| lane::convert(*op, from, to, x))
            }
            Op::ICmp(cc, a, b) => {
                let elem = self.elem(*a).ok_or_else(|| format!("{a} is not an integer"))?;
                self.map2(*a, *b, |x, y| u64::from(lane::icmp(*cc, elem, x, y)))
            }
            Op::FCmp(cc, a, b) => {
                let elem = float(*a, self.elem(*a))?;
                self.map2(*a, *b, |x, y| u64::from(lane::fcmp(*cc, elem, x, y)))
            }
            Op::Select { mask, a, b } => {
                let m = self.lanes(*mask)?;
                if m.len() == 1 {
                    return Ok(Some(self.get(if m[0] != 0 { *a } else { *b })?));
                }
                let (x, y) = (self.lanes(*a)?, self.lanes(*b)?);
                some((0..m.len()).map(|i| if m[i] != 0 { x[i] } else { y[i] }).collect())
            }
            Op::MaskToInt(m) => some(self.lanes(*m)?),
            Op::Any(m) => some(smallvec![u64::from(self.lanes(*m)?.iter().any(|&x| x != 0))]),
            Op::All(m) => some(smallvec![u64::from(self.lanes(*m)?.iter().all(|&x| x != 0))]),
            Op::Load { ty, addr } => some(self.load(*ty, addr, ty.lanes())?),
            Op::LoadPart { ty, addr, count } => some(self.load(*ty, addr, usize::from(*count))?),
            Op::LoadSplat { ty, addr } => {
                let one = self.load(ty.lane(), addr, 1)?;
                some(smallvec![one[0]; ty.lanes()])
            }
            Op::Store { addr, value } => self.store(addr, *value, self.kernel.ty(*value).lanes()),
            Op::StorePart { addr, value, count } => self.store(addr, *value, usize::from(*count)),
            Op::PtrAdd(addr) => {
                let (buffer, offset) = self.address(addr)?;
                Ok(Some(Val::Ptr(buffer, offset)))
            }
            Op::Prefetch(_) => Ok(None),
            Op::ExtractLane { value, lane } => some(smallvec![self.lanes(*value)?[usize::from(*lane)]]),
            Op::InsertLane { into, lane, value } => {
                let mut v = self.lanes(*into)?;
                v[usize::from(*lane)] = self.lanes(*value)?[0];
                some(v)
            }
            Op::Reduce(op, v) => {
                let (elem, mut lanes) = (self.elem(*v), self.lanes(*v)?);
                while lanes.len() > 1 {
                    let half = lanes.len() / 2;
                    lanes = (0..half).map(|i| lane::binary(*op, elem, lanes[i], lanes[half + i])).collect();
                }
                some(lanes)
            }
            Op::Shuffle { a, b, lanes } => {
                let both: Lanes = self.lanes(*a)?.into_iter().chain(self.lanes(*b)?).collect();
                some(lanes.iter().map(|&l| both[usize::from(l)]).collect())
            }
            Op::Loop(_) | Op::If(_) => unreachable!("blocks are run by `block`"),
        }
    }

    fn address(&self, addr: &Addr) -> Result<(usize, i64), String> {
        let Val::Ptr(buffer, offset) = self.get(addr.base)? else {
            return Err(format!("{} is not a pointer", addr.base));
        };
        let index = match addr.index {
            Some((i, scale)) => self.int(i)?.wrapping_mul(scale),
            None => 0,
        };
        Ok((buffer, offset.wrapping_add(index).wrapping_add(addr.disp)))
    }

    /// The buffer and byte range of an access, checked.
    fn range(&self, addr: &Addr, len: usize, write: bool) -> Result<(usize, usize), String> {
        let (buffer, offset) = self.address(addr)?;
        let name = self.kernel.args.get(buffer).map_or("scratch", |a| &a.name);
        let access = self.kernel.args.get(buffer).map_or(Access::ReadWrite, |a| a.access);
        match (access, write) {
            (Access::Read, true) => return Err(format!("store to {name}, which is declared read")),
            (Access::Write, false) => return Err(format!("load from {name}, which is declared write")),
            _ => {}
        }
        // Operands and scratch begin as aligned as the analysis takes them to be.
        let known = i64::from(self.alignment.of(addr));
        if offset % known != 0 {
            return Err(format!("{offset} of {name}, which the alignment analysis takes for a multiple of {known}"));
        }
        let size = self.memory[buffer].len();
        match usize::try_from(offset) {
            Ok(start) if start.checked_add(len).is_some_and(|end| end <= size) => Ok((buffer, start)),
            _ => Err(format!("{len} bytes at {offset} of {name}, which has {size}")),
        }
    }

    /// The first `count` lanes from memory, the others 0.
    fn load(&self, ty: Type, addr: &Addr, count: usize) -> Result<Lanes, String> {
        let bytes = ty.elem().ok_or_else(|| format!("load of {ty}"))?.bytes();
        let (buffer, start) = self.range(addr, count * bytes, false)?;
        let mut lanes: Lanes = smallvec![0; ty.lanes()];
        for (i, chunk) in self.memory[buffer][start..start + count * bytes].chunks_exact(bytes).enumerate() {
            let mut le = [0; 8];
            le[..bytes].copy_from_slice(chunk);
            lanes[i] = u64::from_le_bytes(le);
        }
        Ok(lanes)
    }

    fn store(&mut self, addr: &Addr, value: Value, count: usize) -> Result<Option<Val>, String> {
        let bytes = self.elem(value).ok_or_else(|| format!("store of {}", self.kernel.ty(value)))?.bytes();
        let lanes = self.lanes(value)?;
        let (buffer, start) = self.range(addr, count * bytes, true)?;
        for (i, lane) in lanes[..count].iter().enumerate() {
            let at = start + i * bytes;
            self.memory[buffer][at..at + bytes].copy_from_slice(&lane.to_le_bytes()[..bytes]);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kir::{ArgDecl, Builder, F32};

    fn copy(access: Access) -> Kernel {
        let x = ArgDecl { name: "x".into(), access, align: 4 };
        let mut b = Builder::new("copy", vec![x, ArgDecl::write("y", 4)]);
        let (x, y) = (b.arg(0), b.arg(1));
        b.tasks(|b, task| {
            let v = b.load(F32, x.at(0).idx(task, 4));
            b.store(y.at(0).idx(task, 4), v);
        });
        b.finish()
    }

    #[test]
    fn tasks_are_a_range() {
        let mut buffers = vec![(0..16).collect::<Vec<u8>>(), vec![0; 16]];
        run(&copy(Access::Read), &Target::aarch64(), &mut buffers, 0, 1, 3).unwrap();
        assert_eq!(buffers[1], [0, 0, 0, 0, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0, 0, 0]);
    }

    #[test]
    fn accesses_are_checked() {
        let run = |kernel: &Kernel, end| {
            run(kernel, &Target::aarch64(), &mut [vec![0; 16], vec![0; 16]], 0, 0, end).unwrap_err().to_string()
        };
        assert_eq!(
            run(&copy(Access::Read), 5),
            "kernel copy: 4 bytes at 16 of x, which has 16\n  in %6: f32 = load %0 + %5*4"
        );
        assert_eq!(
            run(&copy(Access::Write), 5),
            "kernel copy: load from x, which is declared write\n  in %6: f32 = load %0 + %5*4"
        );
    }
}
