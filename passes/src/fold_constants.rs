//! Evaluates operators whose operands are all constant, with the reference evaluator.
//!
//! A limit keeps the file from growing: a result may take 64 KiB more than its operands take. An `Expand` of one number to
//! a feature map therefore stays an operator unless it can stay a *splat*: operators that only move elements, and
//! elementwise ones over splats, turn splats into splats of any size. Reshapes of stored constants make another handle to
//! the same bytes. Rounding is that of the reference evaluator (f32 elementwise; sums in f64, rounded once).

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use nncc_ir::{Constant, Graph, NodeId, Op, Origin, Tensor, ValueId};

/// The pass.
pub const PASS: Pass = Pass { name: "fold-constants", level: OptLevel::O0, run };

/// Bytes by which a result may exceed its operands.
const GROWTH_LIMIT: usize = 64 << 10;

/// Multiply-accumulates that folding one node may cost: about a second of the reference evaluator.
const MAC_LIMIT: u64 = 50_000_000;

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    let mut count = 0;
    for n in g.topological_order().unwrap_or_default() {
        if matches!(g.op(n), Op::Input | Op::Constant(_)) {
            continue;
        }
        let operands = g.operands(n);
        let constants: Option<Vec<Option<&Constant>>> =
            operands.iter().map(|v| v.map_or(Some(None), |v| g.constant(v).map(Some))).collect();
        let Some(constants) = constants else { continue };
        if operands.is_empty() {
            continue;
        }
        let folded = match fold(g, n, &constants) {
            Ok(folded) => folded,
            Err(why) => {
                let at = g.node(n).outputs()[0].name.to_string();
                cx.refuse("fold", &at, why);
                continue;
            }
        };
        if !cx.spend() {
            break;
        }
        let origin: Origin = g.node(n).origin.clone();
        let results: Vec<ValueId> = g.results(n).collect();
        for (old, c) in results.into_iter().zip(folded) {
            let name = g.value(old).name.clone();
            g.rename(old, "");
            let new = g.add_constant(&name, c);
            g.add_origins(new.node, [&origin]);
            g.replace_uses(old, new);
        }
        crate::rewrite::remove_unused(g, vec![n], |_| {});
        count += 1;
    }
    Ok(count)
}

/// The outputs of a node over constants, or why they are not computed.
fn fold(g: &Graph, n: NodeId, constants: &[Option<&Constant>]) -> Result<Vec<Constant>, String> {
    let node = g.node(n);
    let outputs: Option<Vec<Vec<usize>>> = node.outputs().iter().map(|v| v.ty.dims()).collect();
    let outputs = outputs.ok_or("the shape of the result is not known")?;
    if let Some(splats) = fold_splats(&node.op, constants, &outputs) {
        return Ok(splats);
    }
    if let (Op::Reshape(_) | Op::Identity(_), [Some(c)]) = (&node.op, constants) {
        return c.reshaped(&outputs[0]).map(|c| vec![c]).ok_or("element counts differ".into());
    }
    if let (Op::Transpose(t), [Some(c)]) = (&node.op, constants)
        && let Some(bytes) = c.bytes()
    {
        return permuted(bytes, c, &t.perm).map(|c| vec![c]).ok_or("element counts differ".into());
    }
    let stored: usize = constants.iter().flatten().map(|c| c.bytes().map_or(c.dtype().bytes(), <[u8]>::len)).sum();
    let limit = stored.saturating_add(GROWTH_LIMIT);
    let result =
        node.outputs().iter().map(|v| bytes_of(v.ty.elems(), v.ty.dtype.bytes())).fold(0, usize::saturating_add);
    if result > limit {
        return Err(format!("the result has {result} bytes, its operands {stored}"));
    }
    // A splat operand is expanded for evaluation: that memory counts as well.
    let expanded = constants.iter().flatten().map(|c| bytes_of(Some(c.elems()), c.dtype().bytes()));
    let expanded = expanded.fold(0, usize::saturating_add);
    if expanded > limit.saturating_mul(4) {
        return Err(format!("expanded, its operands have {expanded} bytes"));
    }
    let types: Vec<_> = constants.iter().map(|c| c.map(|c| c.ty())).collect();
    let types: Vec<_> = types.iter().map(Option::as_ref).collect();
    let out_types: Vec<_> = node.outputs().iter().map(|v| v.ty.clone()).collect();
    if node.op.macs(&types, &out_types).is_none_or(|m| m > MAC_LIMIT) {
        return Err("it costs too many operations to evaluate here".into());
    }
    let tensors: Vec<Option<Tensor>> = constants.iter().map(|c| c.map(Constant::to_tensor)).collect();
    let refs: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
    let results = node.op.eval(&refs).map_err(|e| e.to_string())?;
    Ok(results.iter().map(Constant::from_tensor).collect())
}

/// A stored constant with its axes permuted. The reference evaluator would do; but whole weight matrices come here, and a
/// second for each is too long.
fn permuted(bytes: &[u8], c: &Constant, perm: &[usize]) -> Option<Constant> {
    let width = c.dtype().bytes();
    let old = nncc_ir::tensor::strides_of(c.dims());
    let dims: Vec<usize> = perm.iter().map(|&a| c.dims()[a]).collect();
    let strides: Vec<usize> = perm.iter().map(|&a| old[a] * width).collect();
    if let ([rows, columns], [1, 0], 4) = (c.dims(), perm, width) {
        let out = transposed(bytes, *rows, *columns);
        let range = 0..out.len();
        return Constant::from_storage(c.dtype(), &dims, std::sync::Arc::new(out), range);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let (mut index, mut from) = (vec![0usize; dims.len()], 0usize);
    while out.len() < bytes.len() {
        out.extend_from_slice(&bytes[from..from + width]);
        // The next index: the last axis that is not at its end goes on, those behind it start again.
        for a in (0..dims.len()).rev() {
            index[a] += 1;
            from += strides[a];
            if index[a] < dims[a] {
                break;
            }
            from -= index[a] * strides[a];
            index[a] = 0;
        }
    }
    let range = 0..out.len();
    Constant::from_storage(c.dtype(), &dims, std::sync::Arc::new(out), range)
}

/// A matrix of 4-byte elements, transposed tile by tile: the columns of a large one each lie in a page of their own, and
/// reading them one after the other would miss every cache for every element.
fn transposed(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    const TILE: usize = 32; // a tile is 4 KiB, read and written
    let mut out = vec![0; bytes.len()];
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for r in top..rows.min(top + TILE) {
                for c in left..columns.min(left + TILE) {
                    let (from, to) = (4 * (r * columns + c), 4 * (c * rows + r));
                    out[to..to + 4].copy_from_slice(&bytes[from..from + 4]);
                }
            }
        }
    }
    out
}

fn bytes_of(elems: Option<usize>, width: usize) -> usize {
    elems.unwrap_or(usize::MAX).saturating_mul(width)
}

/// The outputs as splats, for operators that make splats of splats.
fn fold_splats(op: &Op, constants: &[Option<&Constant>], outputs: &[Vec<usize>]) -> Option<Vec<Constant>> {
    let values: Vec<Option<Tensor>> =
        constants.iter().map(|c| c.map_or(Some(None), |c| c.splat_value().map(Some))).collect::<Option<_>>()?;
    if outputs.iter().all(|d| d.iter().product::<usize>() <= 1) {
        return None; // nothing to keep small: evaluate
    }
    let moves_only = match op {
        Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Expand(_)
        | Op::Tile(_)
        | Op::Slice(_)
        | Op::Split(_)
        | Op::Identity(_) => true,
        Op::DepthToSpace(_) | Op::SpaceToDepth(_) => true,
        Op::Concat(_) => {
            let first = values.first()?.as_ref()?;
            values.iter().all(|v| v.as_ref().is_some_and(|v| v.to_bytes() == first.to_bytes()))
        }
        _ => false,
    };
    if moves_only {
        let value = values.first()?.as_ref()?;
        return outputs.iter().map(|d| Constant::splat(value, d)).collect();
    }
    let types: Vec<_> = values.iter().flatten().map(Tensor::ty).collect();
    op.pointwise(&types.iter().collect::<Vec<_>>())?;
    let refs: Vec<Option<&Tensor>> = values.iter().map(Option::as_ref).collect();
    let results = op.eval(&refs).ok()?;
    results.iter().zip(outputs).map(|(t, d)| Constant::splat(t, d)).collect()
}
