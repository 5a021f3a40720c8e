//! An operator with an elementwise program behind it, as one node.
//!
//! The program joins the root's kernel as an [`Epilogue`] where the root's templates take one and every extra operand is read
//! in one of the ways that an epilogue knows. Otherwise there are two steps: the root into memory, the program over it. The
//! root then writes straight to the output's place, unless an element would not fit or an extra operand lies there.

use super::cx::Operand;
use super::{LowerCx, LowerError, lower_op};
use crate::kernels::epilogue::{Epilogue, Extra};
use crate::pack::Packed;
use crate::program::Arg;
use nncc_ir::ops::fused::Fused;
use nncc_ir::{DType, Layout, Op, Pointwise, padded_channels};

/// Lowers a fused node that has a root.
pub(super) fn lower(op: &Fused, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let Some(root) = op.root.as_deref() else {
        return Err(cx.internal("a fused node without a root is an elementwise operator"));
    };
    let operands = cx.operands().to_vec();
    let (own, extra) =
        operands.split_at_checked(op.root_operands).ok_or_else(|| cx.internal("operands are missing"))?;
    let extra: Vec<Operand> = extra.iter().flatten().cloned().collect();
    let output = cx.output(0);
    let behind = match root {
        Op::Conv(_) | Op::ConvTranspose(_) => behind_conv(cx, &op.program, &extra, &output)?,
        Op::MatMul(_) if super::matmul::takes_epilogue(cx, None, own, &output) => {
            fit(cx, &op.program, &extra, &output, column_kind, output.rank() - 1)?
        }
        Op::Gemm(gemm) if super::matmul::takes_epilogue(cx, Some(gemm), own, &output) => {
            fit(cx, &op.program, &extra, &output, column_kind, output.rank() - 1)?
        }
        _ => None,
    };
    if let Some(behind) = behind {
        let mut nested = cx.nested(own.to_vec(), vec![output]);
        return match root {
            Op::Conv(conv) => super::conv::lower(conv, behind, &mut nested),
            Op::ConvTranspose(conv) => super::conv::lower_transpose(conv, behind, &mut nested),
            Op::MatMul(_) => super::matmul::lower(behind, &mut nested),
            Op::Gemm(gemm) => super::matmul::lower_gemm(gemm, behind, &mut nested),
            _ => Err(nested.internal("an epilogue was made for a root that takes none")),
        };
    }
    // Root and program apart.
    let dtype = op.program.inputs().first().copied().unwrap_or(output.dtype);
    let shared = extra.iter().any(|e| e.memory().is_some() && e.memory() == output.memory());
    let between = match output.memory() {
        Some(place) if dtype.bytes() == output.dtype.bytes() && !shared => {
            Operand::temporary(dtype, &output.dims, output.layout, place)
        }
        _ => cx.temporary(dtype, &output.dims, output.layout)?,
    };
    lower_op(root, &mut cx.nested(own.to_vec(), vec![between.clone()]))?;
    let inputs = [between].into_iter().chain(extra).map(Some).collect();
    super::elementwise::lower(&op.program, &mut cx.nested(inputs, vec![output]))
}

/// An epilogue and the places of its extra operands.
#[derive(Clone, Debug, Default)]
pub(super) struct Behind {
    pub epilogue: Epilogue,
    pub args: Vec<Arg>,
}

/// The program as an epilogue of a convolution, if it can be one.
pub(super) fn behind_conv(
    cx: &mut LowerCx<'_, '_>,
    program: &Pointwise,
    extras: &[Operand],
    output: &Operand,
) -> Result<Option<Behind>, LowerError> {
    fit(cx, program, extras, output, channel_kind, 1)
}

/// The program as an epilogue of an f32 output, if each extra operand can be read in one of its ways. `kind_of` tells which;
/// vectors lie along `axis` of the output.
fn fit(
    cx: &mut LowerCx<'_, '_>,
    program: &Pointwise,
    extras: &[Operand],
    output: &Operand,
    kind_of: fn(&Operand, &Operand) -> Option<Extra>,
    axis: usize,
) -> Result<Option<Behind>, LowerError> {
    let all_f32 = program.inputs().iter().all(|&t| t == DType::F32) && program.result_type() == DType::F32;
    if !all_f32 {
        return Ok(None);
    }
    let mut kinds = Vec::new();
    let mut args = Vec::new();
    for extra in extras {
        let Some(kind) = kind_of(extra, output) else { return Ok(None) };
        let arg = match (kind, extra.constant()) {
            // Vectors are read whole: pad the constant to what an output block holds.
            (Extra::Channel { .. }, Some(c)) => {
                cx.packed(Packed::padded(c.clone(), padded_channels(output.dims[axis])))
            }
            _ => cx.arg(extra)?,
        };
        kinds.push(kind);
        args.push(arg);
    }
    Ok(Some(Behind { epilogue: Epilogue { program: Some(program.clone()), extras: kinds }, args }))
}

/// How an operand is read at an element of `output: [N, C, spatial..]`.
fn channel_kind(extra: &Operand, output: &Operand) -> Option<Extra> {
    if extra.elems() == 1 {
        return Some(Extra::Scalar);
    }
    if extra.dims == output.dims && extra.layout == output.layout && extra.constant().is_none() {
        return Some(Extra::Same);
    }
    let missing = output.rank().checked_sub(extra.rank())?;
    let at = |axis: usize| if axis < missing { 1 } else { extra.dims[axis - missing] };
    let channels = output.dims[1];
    let one_a_channel = at(1) == channels && (2..output.rank()).all(|axis| at(axis) == 1);
    if !one_a_channel {
        return None;
    }
    let padded = padded_channels(channels);
    let whole = extra.layout == Layout::Blocked || padded == channels;
    match (at(0), extra.constant().is_some()) {
        (1, true) => Some(Extra::Channel { images: 0 }),
        (1, false) if whole => Some(Extra::Channel { images: 0 }),
        (n, false) if n == output.dims[0] && whole => Some(Extra::Channel { images: padded }),
        _ => None,
    }
}

/// How an operand is read at an element of the row-major `output: [.., M, N]`.
fn column_kind(extra: &Operand, output: &Operand) -> Option<Extra> {
    if extra.elems() == 1 {
        return Some(Extra::Scalar);
    }
    if extra.layout != Layout::RowMajor || output.layout != Layout::RowMajor {
        return None;
    }
    if extra.dims == output.dims {
        return Some(Extra::Same);
    }
    let columns = output.dims.last().copied();
    (extra.dims.last().copied() == columns && Some(extra.elems()) == columns).then_some(Extra::Channel { images: 0 })
}
