//! Common subexpressions: of nodes with the same operator, attributes and operands, the first one serves all uses.
//!
//! ```text
//! %a = relu %x          %a = relu %x
//! %b = relu %x     ->
//! %y = add %a, %b       %y = add %a, %a
//! ```
//!
//! One walk in topological order with a table of what has been seen: operands are already replaced by their
//! representatives, so chains of equal nodes collapse in the same walk. Commutative operators are looked up with sorted
//! operands. Constants are equal when their bits are: small ones are compared by content, large ones only by where their
//! bytes lie, for hashing all weights of a model would cost more than the duplicates it finds.
//!
//! Thousands of nodes may be equal, all users of one value. Duplicates are removed when the walk is over, the last one
//! first: the graph finds a value's newest use at once, and its oldest behind all others.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::{Constant, Graph, NodeId, Op, Operands, Origin};
use rustc_hash::FxHashMap;

/// The pass.
pub const PASS: Pass = Pass { name: "cse", level: OptLevel::O1, run };

/// Constants up to this many bytes are compared by content.
const SMALL_CONSTANT: usize = 4096;

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Op(&'static str, Vec<(&'static str, String)>, Operands),
    Small(String, Vec<u8>),
    Large(String, usize, usize),
}

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    let mut seen: FxHashMap<Key, NodeId> = FxHashMap::default();
    let mut duplicates: Vec<(NodeId, NodeId)> = Vec::new();
    for n in g.topological_order().unwrap_or_default() {
        let key = match g.op(n) {
            Op::Input => continue,
            Op::Constant(c) => constant_key(c),
            op => {
                let mut operands = g.operands(n);
                if commutes(op) {
                    operands.sort();
                }
                Key::Op(op.name(), op.attributes(), operands)
            }
        };
        let Some(&first) = seen.get(&key) else {
            seen.insert(key, n);
            continue;
        };
        if !cx.spend() {
            break;
        }
        for (old, new) in g.results(n).zip(g.results(first)).collect::<Vec<_>>() {
            g.replace_uses(old, new);
        }
        duplicates.push((first, n));
    }
    let mut origins: FxHashMap<NodeId, Vec<Origin>> = FxHashMap::default();
    for &(first, n) in &duplicates {
        origins.entry(first).or_default().push(g.node(n).origin.clone());
    }
    for (first, more) in &origins {
        g.add_origins(*first, more);
    }
    for &(_, n) in duplicates.iter().rev() {
        g.remove(n);
    }
    Ok(duplicates.len())
}

fn constant_key(c: &Constant) -> Key {
    let ty = c.ty().to_string();
    match (c.bytes(), c.splat_value()) {
        (Some(bytes), _) if bytes.len() > SMALL_CONSTANT => Key::Large(ty, bytes.as_ptr() as usize, bytes.len()),
        (_, Some(value)) => Key::Small(ty, value.to_bytes()),
        (bytes, None) => Key::Small(ty, bytes.unwrap_or_default().to_vec()),
    }
}

fn commutes(op: &Op) -> bool {
    use BinaryFn::*;
    matches!(op, Op::Binary(b) if matches!(b.function, Add | Mul | Min | Max | And | Or | Xor | BitAnd | BitOr | BitXor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pass::Options;
    use nncc_ir::ops::activation::Relu;
    use nncc_ir::{DType, TensorType};
    use std::time::{Duration, Instant};

    /// Milliseconds; when each of the duplicates gathered all names anew it was the cube of their number, minutes here.
    #[test]
    fn thousands_of_equal_nodes_are_linear_work() {
        let mut g = Graph::new("fan");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[2]));
        let count = 5000;
        for i in 0..count {
            let y = g.add1(Relu {}, &[x], Origin::named(&format!("relu{i}")), "y").expect("a well-typed node");
            g.add_output(&format!("out{i}"), y);
        }
        let start = Instant::now();
        let mut cx = PassCx::new(Options { verify: false, ..Options::default() });
        let removed = run(&mut g, &mut cx).expect("the pass fails on no graph");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert_eq!((removed, g.node_count()), (count - 1, 2));
        let (_, y) = g.outputs()[0];
        assert_eq!(g.node(y.node).origin.names().len(), count);
    }
}
