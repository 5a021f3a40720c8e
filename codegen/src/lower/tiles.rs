//! Which poolings are computed in the tiles of the convolution before them: joins both to a chain before memory is planned.
//!
//! ```text
//! %c = fused %x, @w, @b, root=conv(3x3)                    %y = chain %x, @w, @b,
//! %y = max_pool %c, kernel=[2,2], strides=[2,2]     ->         links=[fused(root=conv(..),..),max_pool(..)]
//! ```
//!
//! A tile of Winograd's algorithm has 2x2, 4x4 or 6x6 outputs in registers at a time. A maximum or mean whose windows lie side
//! by side, whole inside of the plane and whole inside of a tile, is taken there: the tensor between is neither written nor
//! read, and a window's share of the pixels is stored. The bits are those of the pooling by itself. What it needs: nobody else
//! reads that tensor; some variant that is faster than the direct form by the cost model holds the windows.
//!
//! Which variant a layer gets is decided [later](super::algorithm), for the whole model, its errors and its bytes. Where that is
//! the direct form, or one that does not hold the windows, the two nodes are lowered one behind the other as they would have
//! been. Poolings behind direct convolutions are for [bands](super::bands).

use super::{WinogradUse, algorithm, chain, pool};
use crate::kernels::conv::winograd::transform::Minimal;
use crate::kernels::pool::SideBySide;
use crate::target::Target;
use nncc_ir::ops::chain::Link;
use nncc_ir::{Graph, Layout, NodeId, Op, TypeError};

/// Joins poolings to the convolutions before them; `targets` as in lowering, of which the widest decides.
///
/// # Errors
/// Never, but for a bug in a chain's type rule.
pub fn join(g: &mut Graph, targets: &[Target], when: WinogradUse) -> Result<(), TypeError> {
    let Some(target) = targets.last().filter(|_| when != WinogradUse::Off) else { return Ok(()) };
    for node in g.topological_order().unwrap_or_default() {
        if let Some(pool) = g.contains(node).then(|| pool_behind(g, target, node)).flatten() {
            chain::replace(g, &[node, pool])?;
        }
    }
    Ok(())
}

/// The pooling behind a convolution that its tiles could hold.
fn pool_behind(g: &Graph, target: &Target, node: NodeId) -> Option<NodeId> {
    let (_, size) = algorithm::suitable(g, node).filter(|_| !matches!(g.op(node), Op::Chain(_)))?;
    let user = chain::next(g, node)?;
    let (x, y) = (g.operand(user, 0)?, g.results(user).next()?);
    let pooling = pool::side_by_side(g.op(user), &g.ty(x).dims()?, &g.ty(y).dims()?)?;
    let holds = |f: &Minimal| f.holds(pooling.window) && algorithm::gains(target, &size, *f);
    (g.value(y).layout == Layout::Blocked && Minimal::ALL.iter().any(holds)).then_some(user)
}

/// The pooling that a node may compute in its tiles.
pub(super) fn pooling(g: &Graph, node: NodeId) -> Option<SideBySide> {
    let Op::Chain(op) = g.op(node) else { return None };
    let [between, result] = &algorithm::chain_types(g, node, op)?[..] else { return None };
    let Link(last) = op.links.last()?;
    pool::side_by_side(last, &between.dims()?, &result.dims()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nncc_ir::ops::conv::Conv;
    use nncc_ir::ops::pool::MaxPool;
    use nncc_ir::{Constant, DType, Origin, Tensor, TensorType, ValueId};

    /// A convolution of 64 channels of 57x57 pixels, a pooling behind it, and whether the two are one.
    fn joined(kernel: [usize; 2], strides: [usize; 2], ceil_mode: bool, is_output: bool, when: WinogradUse) -> bool {
        let mut g = Graph::new("pooled");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[1, 64, 57, 57]));
        let weights = Constant::splat(&Tensor::f32(&[], vec![0.5]), &[64, 64, 3, 3]).expect("one element");
        let w = g.add_constant("w", weights);
        let conv = Conv { strides: vec![1; 2], dilations: vec![1; 2], pads: vec![1; 4], group: 1 };
        let node = g.add(conv, &[Some(x), Some(w), None], Origin::named("conv"), &["c"]).expect("fits");
        let c = ValueId { node, out: 0 };
        let (kernel, strides, dilations, pads) = (kernel.to_vec(), strides.to_vec(), vec![1; 2], vec![0; 4]);
        let pool = MaxPool { kernel, strides, dilations, pads, ceil_mode, indices: false, storage_order: 0 };
        let node = g.add(pool, &[Some(c)], Origin::named("pool"), &["y"]).expect("fits");
        let y = ValueId { node, out: 0 };
        [x, c, y].into_iter().for_each(|v| g.set_layout(v, Layout::Blocked));
        g.add_output("y", y);
        if is_output {
            g.add_output("c", c);
        }
        join(&mut g, &[Target::x86_64_v4()], when).expect("a chain has a type");
        let result = g.outputs()[0].1;
        matches!(g.op(result.node), Op::Chain(_)) && pooling(&g, result.node).is_some()
    }

    #[test]
    fn windows_side_by_side_join() {
        assert!(joined([2, 2], [2, 2], false, false, WinogradUse::Auto));
        assert!(joined([4, 1], [4, 1], false, false, WinogradUse::Aggressive));
    }

    #[test]
    fn others_stay_by_themselves() {
        // Overlapping windows; a window of which a part lies outside; one that no tile holds.
        assert!(!joined([3, 3], [2, 2], false, false, WinogradUse::Auto));
        assert!(!joined([2, 2], [2, 2], true, false, WinogradUse::Auto));
        assert!(!joined([5, 5], [5, 5], false, false, WinogradUse::Auto));
        // Somebody else reads what is pooled; no tiles.
        assert!(!joined([2, 2], [2, 2], false, true, WinogradUse::Auto));
        assert!(!joined([2, 2], [2, 2], false, false, WinogradUse::Off));
    }
}
