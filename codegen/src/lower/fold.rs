//! Steps that fold axes of tensors: what reductions, norms and softmax are lowered through.
//!
//! A fold runs over the elements of one tensor, its *space*. Its other operands broadcast to the space, and so does its
//! output: where the output has extent 1 and the space has not, the axis is reduced.

use crate::kernels::fold::{Combine, Fold, fold};
use crate::lower::elementwise::{Region, regions};
use crate::lower::{Call, LowerCx, LowerError, Operand};
use crate::program::Arg;
use nncc_ir::Pointwise;

/// The three parts of a fold: see [`Fold`].
#[derive(Clone, Debug)]
pub struct Parts {
    /// What is combined.
    pub pre: Pointwise,
    /// How.
    pub combine: Combine,
    /// What is made of it.
    pub post: Pointwise,
}

/// Appends the steps of a fold over `space`; `operands` are those of `pre`, then the further ones of `post`. No step for an
/// empty output.
///
/// # Errors
/// A blocked space whose channels are reduced across blocks.
pub fn lower_fold(
    parts: &Parts,
    operands: &[Operand],
    space: &Operand,
    output: &Operand,
    label: &str,
    cx: &mut LowerCx<'_, '_>,
) -> Result<(), LowerError> {
    if output.elems() == 0 {
        return Ok(());
    }
    let all: Vec<&Operand> = operands.iter().chain([output, space]).collect();
    let regions = regions(&all).map_err(|what| cx.unsupported(what))?;
    if regions.len() > 1 && output.dims[1] != space.dims[1] {
        return Err(cx.unsupported("channels of a blocked value are reduced, and its last block is not whole"));
    }
    for Region { mut nest, offsets } in regions {
        nest.strides.pop();
        lower_nest(parts, &all[..all.len() - 1], nest, &offsets, label, cx)?;
    }
    Ok(())
}

/// Appends one step: a fold over a nest whose strides are those of `all`, operands first and the output last, each beginning
/// `offsets` elements into its operand.
///
/// # Errors
/// When a constant operand does not fit in memory.
pub(crate) fn lower_nest(
    parts: &Parts,
    all: &[&Operand],
    mut nest: crate::kernels::map::Nest,
    offsets: &[usize],
    label: &str,
    cx: &mut LowerCx<'_, '_>,
) -> Result<(), LowerError> {
    nest.collapse();
    let f = Fold { pre: &parts.pre, combine: parts.combine, post: &parts.post };
    let name = format!("{}_{}", parts.pre.result_type(), if label.is_empty() { "fold" } else { label });
    let (kernel, tasks) = fold(cx.target(), &name, &f, &nest);
    let kernel = cx.kernel(kernel);
    let args = all.iter().zip(offsets).map(|(o, at)| Ok(cx.arg(o)?.plus(at * o.dtype.bytes())));
    let args: Vec<Arg> = args.collect::<Result<_, LowerError>>()?;
    cx.step(Call::new(kernel, &args, tasks).labelled(label));
    Ok(())
}
