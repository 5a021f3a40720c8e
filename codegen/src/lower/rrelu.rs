//! RReLU as it trains.

use super::LowerError;
use super::cx::LowerCx;
use super::dropout::drawn;
use crate::kernels::drawn::Use;
use nncc_ir::ops::rrelu::RRelu;

/// Lowers an RReLU, or its gradient.
pub(super) fn lower(op: &RRelu, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let of_x = cx.optional(2).is_none();
    drawn(cx, 1, op.stream, Use::Slope { lower: op.lower, upper: op.upper, of_x })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, tensor};
    use nncc_ir::{DType, Graph, Origin, Tensor, TensorType};

    /// Forward and backward: the product's rounding, and those of the slope's three operations and two constants, each 6e-8.
    #[track_caller]
    fn agrees(dims: &[usize], dtype: DType, random: [i64; 2]) {
        let mut g = Graph::new("rrelu");
        let [x, v] = ["x", "v"].map(|name| g.add_input(name, TensorType::fixed(dtype, dims)));
        let r = g.add_input("random", TensorType::fixed(DType::I64, &[2]));
        let op = RRelu { lower: 0.125, upper: 1.0 / 3.0, stream: 5 };
        for (name, operands) in [("y", &[x, r][..]), ("dx", &[x, r, v])] {
            let y = g.add1(op.clone(), operands, Origin::named(name), name).expect("operands that fit");
            g.add_output(name, y);
        }
        let of = |seed| Tensor::from_f64(dtype, dims, &tensor(seed, dims).to_f64());
        let inputs = [of(1), of(2), Tensor::i64(&[2], random.to_vec())];
        check(&g, &inputs, &Tolerance::Relative { rel: 4e-7, abs: 0.0 });
    }

    #[test]
    fn slopes_are_those_of_the_reference() {
        for n in [0, 1, 3, 4, 15, 64, 67, 129, 5000] {
            agrees(&[n], DType::F32, [0x1234_5678_9abc_def0, (7 << 33) + 9]);
        }
        agrees(&[3, 50], DType::F32, [-1, -2]);
        agrees(&[70], DType::F64, [3, 4]);
    }
}
