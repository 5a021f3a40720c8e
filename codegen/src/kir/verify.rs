//! The verifier of kernel IR. It collects all errors, each with the instruction and "got X, expected Y".
//!
//! Checked:
//!   1. the kernel's name is a C identifier; alignments are powers of two; entry values are `ptr`s, then `i64` twice;
//!   2. every value is defined exactly once, and used only after its definition, in its block or one inside it;
//!   3. every instruction obeys the typing rules, and its results have the types that these give;
//!   4. a loop's body yields its carried values, both sides of a conditional yield the same types, the kernel yields nothing.
//!
//! Not checked: that accesses stay in their buffers, respect the operand's access, and that the target has such vectors.
//! The interpreter finds the first two, backends refuse the third.

use super::print::InstText;
use super::typing::result_types;
use super::{Block, I64, Inst, Kernel, Op, Type, Value};
use std::fmt;

/// Everything that is wrong with a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct VerifyErrors {
    /// Its name.
    pub kernel: String,
    /// Each with the instruction it is about (empty when about the whole kernel).
    pub errors: Vec<(String, String)>,
}

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {} is malformed", self.kernel)?;
        for (inst, what) in &self.errors {
            write!(f, "\n  {what}")?;
            if !inst.is_empty() {
                write!(f, "\n    in {inst}")?;
            }
        }
        Ok(())
    }
}

/// Checks a kernel.
///
/// # Errors
/// All violations of the invariants above.
pub fn verify(kernel: &Kernel) -> Result<(), VerifyErrors> {
    let mut v = Verifier {
        kernel,
        defined: vec![false; kernel.types.len()],
        visible: vec![false; kernel.types.len()],
        errors: Vec::new(),
    };
    v.head();
    if v.errors.is_empty() {
        v.block(&kernel.body, None);
        if !kernel.body.yields.is_empty() {
            v.error(None, format!("the kernel yields {} values, expected none", kernel.body.yields.len()));
        }
    }
    if v.errors.is_empty() { Ok(()) } else { Err(VerifyErrors { kernel: kernel.name.clone(), errors: v.errors }) }
}

struct Verifier<'a> {
    kernel: &'a Kernel,
    /// Has it a definition so far, anywhere?
    defined: Vec<bool>,
    /// May it be used here?
    visible: Vec<bool>,
    errors: Vec<(String, String)>,
}

impl Verifier<'_> {
    fn error(&mut self, inst: Option<&Inst>, what: String) {
        let inst = inst.map(|inst| InstText { kernel: self.kernel, inst }.to_string()).unwrap_or_default();
        self.errors.push((inst, what));
    }

    fn head(&mut self) {
        let k = self.kernel;
        let identifier = k.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && k.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !identifier {
            self.error(None, format!("name {:?}, expected a C identifier", k.name));
        }
        for arg in k.args.iter().filter(|a| !a.align.is_power_of_two()) {
            self.error(None, format!("operand {:?} aligned to {}, expected a power of two", arg.name, arg.align));
        }
        let mut entry = vec![Type::Ptr; k.args.len() + 1];
        entry.extend([I64, I64]);
        if !k.types.starts_with(&entry) {
            let got = &k.types[..k.types.len().min(entry.len())];
            self.error(None, format!("entry values of types {got:?}, expected {entry:?}"));
            return;
        }
        for i in 0..entry.len() {
            (self.defined[i], self.visible[i]) = (true, true);
        }
    }

    /// A block of `parent`; what it yields must be visible at its end.
    fn block(&mut self, block: &Block, parent: Option<&Inst>) {
        let mut here = Vec::new();
        for inst in &block.insts {
            let before = self.errors.len();
            inst.op.for_each_operand(|v| self.used(v, inst));
            match &inst.op {
                Op::Loop(l) => {
                    let mut params = vec![l.iv];
                    params.extend(l.carried.iter().map(|c| c.param));
                    params.iter().for_each(|&p| self.define(p, inst));
                    self.block(&l.body, Some(inst));
                    params.iter().for_each(|&p| self.hide(p));
                }
                Op::If(i) => {
                    self.block(&i.then, Some(inst));
                    self.block(&i.otherwise, Some(inst));
                }
                _ => {}
            }
            let known = |v: Value| self.kernel.types.get(v.index()).copied();
            // An unknown value has been reported: its type would only add noise.
            if self.errors.len() == before {
                match result_types(&inst.op, |v| known(v).expect("operands were checked")) {
                    Ok(types) => {
                        let got: Vec<_> = inst.results.iter().map(|&r| known(r)).collect();
                        let expected: Vec<_> = types.iter().map(|&t| Some(t)).collect();
                        if got != expected {
                            self.error(Some(inst), format!("results of types {got:?}, expected {expected:?}"));
                        }
                    }
                    Err(e) => self.error(Some(inst), e.0),
                }
            }
            for &r in &inst.results {
                self.define(r, inst);
                here.push(r);
            }
        }
        if let Some(parent) = parent {
            block.yields.iter().for_each(|&y| self.used(y, parent));
        }
        here.iter().for_each(|&v| self.hide(v));
    }

    fn used(&mut self, v: Value, inst: &Inst) {
        if !self.visible.get(v.index()).copied().unwrap_or(false) {
            self.error(Some(inst), format!("{v} is used where it is not defined"));
        }
    }

    fn define(&mut self, v: Value, inst: &Inst) {
        match self.defined.get(v.index()) {
            None => self.error(Some(inst), format!("{v} has no type")),
            Some(true) => self.error(Some(inst), format!("{v} is defined twice")),
            Some(false) => (self.defined[v.index()], self.visible[v.index()]) = (true, true),
        }
    }

    fn hide(&mut self, v: Value) {
        if let Some(visible) = self.visible.get_mut(v.index()) {
            *visible = false;
        }
    }
}
