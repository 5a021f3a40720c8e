//! The canonical form of a kernel: no unused pure instruction, values numbered in the order of the text form.
//!
//! Two kernels that print the same are then equal, which deduplication and the parser's round trip rely on. Idempotent;
//! changes nothing that is computed.

use super::{Block, Kernel, Op, Type, Value};
use rustc_hash::FxHashSet;

/// Brings a kernel into canonical form.
pub fn canonicalize(kernel: &mut Kernel) {
    sweep(&mut kernel.body, &mut FxHashSet::default());
    let mut numbers = Numbers { new: vec![None; kernel.types.len()], types: Vec::new() };
    for i in 0..kernel.entry_values() {
        numbers.define(&mut Value(i as u32), &kernel.types);
    }
    numbers.block(&mut kernel.body, &kernel.types);
    kernel.types = numbers.types;
}

/// Drops pure instructions whose results nobody reads, from the end backwards; `used` gathers what is read.
fn sweep(block: &mut Block, used: &mut FxHashSet<Value>) {
    used.extend(block.yields.iter().copied());
    let mut kept = Vec::with_capacity(block.insts.len());
    for mut inst in std::mem::take(&mut block.insts).into_iter().rev() {
        if inst.op.is_pure() && !inst.results.iter().any(|r| used.contains(r)) {
            continue;
        }
        inst.op.for_each_operand(|v| {
            used.insert(v);
        });
        for inner in inst.op.blocks_mut() {
            sweep(inner, used);
        }
        kept.push(inst);
    }
    kept.reverse();
    block.insts = kept;
}

struct Numbers {
    new: Vec<Option<Value>>,
    types: Vec<Type>,
}

impl Numbers {
    fn define(&mut self, v: &mut Value, types: &[Type]) {
        let number = Value(self.types.len() as u32);
        self.types.push(types[v.index()]);
        self.new[v.index()] = Some(number);
        *v = number;
    }

    /// A value without definition (the verifier's business) keeps its number.
    fn rename(&self, v: &mut Value) {
        *v = self.new.get(v.index()).copied().flatten().unwrap_or(*v);
    }

    fn block(&mut self, block: &mut Block, types: &[Type]) {
        for inst in &mut block.insts {
            inst.op.for_each_operand_mut(|v| self.rename(v));
            inst.results.iter_mut().for_each(|r| self.define(r, types));
            if let Op::Loop(l) = &mut inst.op {
                self.define(&mut l.iv, types);
                l.carried.iter_mut().for_each(|c| self.define(&mut c.param, types));
            }
            for inner in inst.op.blocks_mut() {
                self.block(inner, types);
            }
        }
        block.yields.iter_mut().for_each(|v| self.rename(v));
    }
}
