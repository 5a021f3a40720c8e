//! Gives each output of the graph a node of its own that computes it, so that it can be written to the caller's buffer.
//!
//! ```text
//! return %x            where %x is an input or a constant   ->   %y = identity %x;  return %y
//! return %a, %a                                             ->   %b = identity %a;  return %a, %b
//! ```
//!
//! The Identity is a copy in the compiled code. Last of all rewriting passes: canonicalization would remove it.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use nncc_ir::ops::reshape::Identity;
use nncc_ir::{Graph, Op};
use rustc_hash::FxHashSet;

/// The pass.
pub const PASS: Pass = Pass { name: "separate-outputs", level: OptLevel::O0, run };

fn run(g: &mut Graph, _: &mut PassCx) -> Result<usize, PassError> {
    let mut seen = FxHashSet::default();
    let mut count = 0;
    for i in 0..g.outputs().len() {
        let (name, v) = g.outputs()[i].clone();
        let given = matches!(g.op(v.node), Op::Input | Op::Constant(_));
        if !given && seen.insert(v) {
            continue;
        }
        let origin = g.node(v.node).origin.clone();
        let copy = g.add1(Identity {}, &[v], origin, &name).map_err(|e| PassError::bad("copy", &name, e))?;
        g.set_output(i, copy);
        count += 1;
    }
    Ok(count)
}
