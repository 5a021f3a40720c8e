//! Dropout as it trains.

use super::cx::Call;
use super::movement::require_row_major;
use super::{LowerCx, LowerError};
use crate::kernels::drawn::{Drawn, Use};
use crate::kir::Elem;
use nncc_ir::DType;
use nncc_ir::ops::dropout::Dropout;

/// Lowers a dropout.
pub(super) fn lower(op: &Dropout, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let plane = if op.whole_channels { cx.output(0).dims[2..].iter().product() } else { 1 };
    drawn(cx, plane, op.stream, Use::Drop { threshold: op.threshold(), factor: op.factor() })
}

/// Lowers an operator that draws a decision for each `plane` elements: of x, seed and step, and v if it has that operand.
pub(super) fn drawn(cx: &mut LowerCx<'_, '_>, plane: usize, stream: usize, with: Use) -> Result<(), LowerError> {
    require_row_major(cx)?;
    let (x, random, y) = (cx.input(0)?, cx.input(1)?, cx.output(0));
    if y.elems() == 0 {
        return Ok(());
    }
    let elem = match y.dtype {
        DType::F32 => Elem::F32,
        DType::F64 => Elem::F64,
        other => return Err(cx.unsupported(format!("elements of type {other}"))),
    };
    let drawn = Drawn { target: cx.target(), elem, decisions: y.elems() / plane, plane, stream: stream as u32, with };
    let mut args = vec![cx.arg(&x)?, cx.arg(&random)?, cx.arg(&y)?];
    if let Some(v) = cx.optional(2) {
        args.push(cx.arg(&v)?);
    }
    let id = cx.kernel(drawn.kernel());
    cx.step(Call::new(id, &args, drawn.tasks()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, tensor};
    use nncc_ir::{Graph, Origin, Tensor, TensorType};

    #[track_caller]
    fn dropped(dims: &[usize], dtype: DType, op: Dropout, random: [i64; 2]) {
        let mut g = Graph::new("dropout");
        let x = g.add_input("x", TensorType::fixed(dtype, dims));
        let r = g.add_input("random", TensorType::fixed(DType::I64, &[2]));
        let y = g.add1(op, &[x, r], Origin::named("dropout"), "y").expect("operands that fit");
        g.add_output("out", y);
        let t = Tensor::from_f64(dtype, dims, &tensor(1, dims).to_f64());
        // The factor is rounded to the type of the elements.
        check(&g, &[t, Tensor::i64(&[2], random.to_vec())], &Tolerance::Relative { rel: 2e-7, abs: 0.0 });
    }

    #[test]
    fn decisions_are_those_of_the_reference() {
        for n in [0, 1, 3, 4, 15, 64, 67, 129, 5000] {
            let op = Dropout { ratio: 0.3, whole_channels: false, stream: 5 };
            dropped(&[n], DType::F32, op, [0x1234_5678_9abc_def0, (7 << 33) + 9]);
        }
        for ratio in [0.0, 0.5, 1.0] {
            dropped(&[3, 50], DType::F32, Dropout { ratio, whole_channels: false, stream: 0 }, [-1, -2]);
        }
        dropped(&[70], DType::F64, Dropout { ratio: 0.5, whole_channels: false, stream: 1 }, [3, 4]);
    }

    #[test]
    fn channels_are_dropped_whole() {
        for (dims, dtype) in [(&[3, 7, 4, 5][..], DType::F32), (&[2, 9][..], DType::F32), (&[2, 3, 7][..], DType::F64)]
        {
            dropped(dims, dtype, Dropout { ratio: 0.4, whole_channels: true, stream: 2 }, [11, 1]);
        }
    }
}
