//! Gives each output of the graph a node of its own that computes it, so that it can be written to the caller's buffer.
//!
//! ```text
//! return %x            where %x is an input or a constant   ->   %y = identity %x;  return %y
//! return %a, %a                                             ->   %b = identity %a;  return %a, %b
//! return %a over %x     where %x cannot be overwritten by a ->   %b = identity %a;  return %b over %x
//! ```
//!
//! The next value of a state is written where the old one may lie, so that nothing may need the old one afterwards: see
//! [`state::overwrites`].
//!
//! The Identity is a copy in the compiled code. Last of all rewriting passes: canonicalization would remove it.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use crate::plan_memory::state;
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
        let state = g.states().iter().find(|state| state.1 == i).map(|state| state.0);
        let fits = state.is_none_or(|input| state::overwrites(g, input, v));
        if !given && seen.insert(v) && fits {
            continue;
        }
        let origin = g.node(v.node).origin.clone();
        let copy = g.add1(Identity {}, &[v], origin, &name).map_err(|e| PassError::bad("copy", &name, e))?;
        g.set_output(i, copy);
        count += 1;
    }
    Ok(count)
}
