//! Softmax and its relatives. Below opset 13 they flatten: all axes from `axis` on are one, which is written as a Reshape
//! around the operator unless only one of them is longer than 1.

use super::Entry;
use crate::node::{Imported, NodeCx};
use nncc_ir::ops::reshape::Reshape;
use nncc_ir::ops::softmax as ir;
use nncc_ir::{Dim, Op};

pub(super) const OPS: &[Entry] = &[
    Entry::new("Hardmax", &[1, 11, 13], |n| along(n, |axis| ir::Hardmax { axis }.into())),
    Entry::new("LogSoftmax", &[1, 11, 13], |n| along(n, |axis| ir::LogSoftmax { axis }.into())),
    Entry::new("Softmax", &[1, 11, 13], |n| along(n, |axis| ir::Softmax { axis }.into())),
];

fn along(n: &mut NodeCx<'_>, op: fn(usize) -> Op) -> Imported {
    let x = n.operand(0, "input")?;
    let shape = n.shape(&x);
    if n.version >= 13 {
        let axis = n.axis(n.int("axis", -1)?, shape.len())?;
        return Ok(vec![n.emit(op(axis), &[&x])?]);
    }
    let axis = n.axis(n.int("axis", 1)?, shape.len())?;
    let long: Vec<usize> = (axis..shape.len()).filter(|&a| shape[a] != Dim::Known(1)).collect();
    if let [] | [_] = long[..] {
        let axis = long.first().copied().unwrap_or(axis);
        return Ok(vec![n.emit(op(axis), &[&x])?]);
    }
    let product = |dims: &[Dim]| dims.iter().fold(Dim::Known(1), |p, d| p.mul(d));
    let flat = vec![product(&shape[..axis]), product(&shape[axis..])];
    let flat = n.emit(Reshape { shape: flat }, &[&x])?;
    let y = n.emit(op(1), &[&flat])?;
    Ok(vec![n.emit(Reshape { shape }, &[&y])?])
}
