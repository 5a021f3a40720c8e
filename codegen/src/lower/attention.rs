//! Attention: one kernel where everything is f32.
//!
//! The pass that makes the operator makes it of f32 alone, and of rows that are near enough; of others there is no kernel.

use super::{Call, LowerCx, LowerError};
use crate::kernels::attention;
use nncc_ir::DType;
use nncc_ir::broadcast::broadcast_strides;
use nncc_ir::ops::attention::Attention;

/// Lowers attention.
///
/// # Errors
/// Another type than f32, or rows gigabytes apart.
pub fn lower(op: &Attention, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let [q, k, v] = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let (mask, y) = (cx.optional(3), cx.output(0));
    if y.dtype != DType::F32 {
        return Err(cx.unsupported(format!("of {}", y.dtype)));
    }
    let strides = mask.as_ref().and_then(|m| broadcast_strides(&m.dims, &op.scores()).try_into().ok());
    let kernel = attention::Attention {
        target: cx.target(),
        sizes: op.sizes,
        q: op.q,
        k: op.k,
        v: op.v,
        scale: op.scale,
        mask: strides,
        y: op.result_strides(&y.dims),
    };
    if !kernel.is_small() {
        return Err(cx.unsupported("rows that lie megabytes apart"));
    }
    let mut args = vec![cx.arg(&q)?, cx.arg(&k)?, cx.arg(&v)?];
    if let Some(mask) = &mask {
        args.push(cx.arg(mask)?);
    }
    args.push(cx.arg(&y)?);
    cx.scratch(kernel.scratch());
    let id = cx.kernel(kernel.kernel());
    cx.step(Call::new(id, &args, kernel.tasks()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, tensor};
    use nncc_ir::ops::attention::{Sizes, View};
    use nncc_ir::{Graph, Origin, Tensor};
    use proptest::prelude::*;

    /// Row-major operands `[batch, heads, rows, columns]`, or with heads beside one another: `[batch, rows, heads, columns]`.
    fn view(s: &Sizes, rows: usize, columns: usize, beside: bool) -> View {
        let strides = match beside {
            true => [rows * s.heads * columns, columns, s.heads * columns, 1],
            false => [s.heads * rows * columns, rows * columns, columns, 1],
        };
        View { offset: 0, strides }
    }

    /// Keys given transposed: `[batch, heads, columns, rows]`.
    fn transposed(s: &Sizes) -> View {
        View { offset: 0, strides: [s.heads * s.width * s.keys, s.width * s.keys, 1, s.keys] }
    }

    fn run(op: Attention, mask: Option<&Tensor>) {
        let s = op.sizes;
        let matrices = [(op.q, s.queries, s.width), (op.k, s.keys, s.width), (op.v, s.keys, s.values)];
        let last = |view: View, rows, columns| view.at([s.batch - 1, s.heads - 1, rows - 1, columns - 1]);
        let operand = |(i, (view, rows, columns))| tensor(i as u64, &[last(view, rows, columns) + 1]);
        let mut inputs: Vec<Tensor> = matrices.into_iter().enumerate().map(operand).collect();
        inputs.extend(mask.cloned());
        let mut g = Graph::new("attention");
        let v: Vec<_> = inputs.iter().map(|t| g.add_input("x", t.ty())).collect();
        let y = g.add1(op, &v, Origin::default(), "y").expect("operands that fit");
        g.add_output("y", y);
        // Scores of a size of 4 with roundings of their own, in exponentials; then an average of values.
        check(&g, &inputs, &Tolerance::Relative { rel: 2e-5, abs: 2e-5 });
    }

    fn op(s: Sizes, beside: bool, by_columns: bool) -> Attention {
        Attention {
            sizes: s,
            q: view(&s, s.queries, s.width, beside),
            k: if by_columns { transposed(&s) } else { view(&s, s.keys, s.width, beside) },
            v: view(&s, s.keys, s.values, beside),
            scale: 1.0 / (s.width as f64).sqrt(),
            perm: if beside { vec![0, 2, 1, 3] } else { vec![0, 1, 2, 3] },
        }
    }

    fn extent() -> impl Strategy<Value = usize> {
        prop_oneof![Just(1), Just(2), Just(7), Just(8), Just(15), Just(16), Just(17), Just(31), Just(67)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_extents_agree(
            (queries, keys, width, values) in (extent(), extent(), extent(), extent()),
            (batch, heads, beside, by_columns) in (1usize..3, 1usize..4, any::<bool>(), any::<bool>()),
            mask in 0usize..4,
        ) {
            let sizes = Sizes { batch, heads, queries, keys, width, values };
            let mask = match mask {
                0 => None,
                1 => Some(tensor(9, &[batch, 1, 1, keys])),
                2 => Some(tensor(9, &[1, heads, queries, keys])),
                _ => Some(tensor(9, &[queries, keys])),
            };
            run(op(sizes, beside, by_columns), mask.as_ref());
        }
    }

    #[test]
    fn long_sequences_take_several_blocks() {
        // A block has at most half of 32 KiB of scores: 256 keys where a group has 16 queries, fewer where it has more.
        let sizes = Sizes { batch: 1, heads: 1, queries: 20, keys: 1101, width: 5, values: 3 };
        run(op(sizes, false, false), None);
        // Scores that rise, so that every block has a new maximum.
        let rising: Vec<f32> = (0..1101).map(|t| t as f32 * 0.05).collect();
        run(op(sizes, false, false), Some(&Tensor::f32(&[1101], rising)));
    }

    #[test]
    fn values_in_pages_of_their_own_take_short_blocks() {
        // Blocks of at most 64 keys, of one length and of two; groups that fill, and one of five queries.
        for (queries, keys) in [(21, 128), (37, 131), (69, 67), (5, 65)] {
            let sizes = Sizes { batch: 1, heads: 2, queries, keys, width: 16, values: 12 };
            let far = View { offset: 3, strides: [0, sizes.values, 1600, 1] };
            run(Attention { v: far, ..op(sizes, true, false) }, None);
        }
    }

    #[test]
    fn masked_keys_and_masked_rows() {
        let inf = f32::NEG_INFINITY;
        let causal: Vec<f32> = (0..33 * 33).map(|i| if i % 33 > i / 33 { inf } else { 0.0 }).collect();
        let sizes = Sizes { batch: 1, heads: 2, queries: 33, keys: 33, width: 8, values: 8 };
        run(op(sizes, true, false), Some(&Tensor::f32(&[33, 33], causal)));
        // Whole blocks without a key, and a query without any.
        let sizes = Sizes { batch: 1, heads: 1, queries: 3, keys: 1100, width: 4, values: 2 };
        let late: Vec<f32> = (0..3 * 1100).map(|i| if i % 1100 < 900 || i / 1100 == 1 { inf } else { 0.5 }).collect();
        run(op(sizes, false, false), Some(&Tensor::f32(&[3, 1100], late)));
    }
}
