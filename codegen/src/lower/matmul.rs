//! Matrix products: which template serves one, and with what operands.
//!
//! | template | needs |
//! |---|---|
//! | [`Direct`](crate::kernels::conv::direct::Direct) with packed weights | f32; b a constant of rank 2, or computed and transposed; no addend but a vector |
//! | [`Direct`](crate::kernels::conv::direct::Direct) with rows as they lie | f32; b `[.., K, N]` at run time; batch axes equal, or all of one operand's are 1 |
//! | [`Generic`] | nothing |
//!
//! A transposed a needs no copy: its rows are read where they lie, a pixel beside the other.
//!
//! A matrix product is a convolution with one tap whose pixels are the rows. With a shared b, all batches are one matrix of
//! more rows; one row streams the panels of b (four at a time, so that there are enough sums to hide the latency).

use super::cx::{Call, Operand};
use super::fused::Behind;
use super::panels::Packing;
use super::{LowerCx, LowerError};
use crate::kernels::conv::{Conv, Sink, Source, Weights};
use crate::kernels::matmul::{Generic, Strides};
use crate::kernels::window::Axis;
use crate::pack::MatrixPanels;
use crate::program::Arg;
use crate::switches::Switch;
use nncc_ir::DType;
use nncc_ir::broadcast::broadcast_strides;
use nncc_ir::ops::matmul::Gemm;

/// A product with its operands as matrices.
struct Product {
    a: Operand,
    b: Operand,
    c: Option<Operand>,
    y: Operand,
    trans_a: bool,
    trans_b: bool,
    alpha: f64,
    beta: f64,
    /// Rows, inner extent, columns.
    extents: [usize; 3],
    /// The batch axes of the result.
    batch: Vec<usize>,
}

/// Lowers a MatMul with what follows it.
pub(super) fn lower(behind: Behind, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (mut a, mut b, y) = (cx.input(0)?, cx.input(1)?, cx.output(0));
    if a.rank() == 1 {
        a = a.reshaped(&[1, a.dims[0]]);
    }
    if b.rank() == 1 {
        b = b.reshaped(&[b.dims[0], 1]);
    }
    let (ra, rb) = (a.rank(), b.rank());
    if ra < 2 || rb < 2 {
        return Err(cx.internal("a scalar operand"));
    }
    let extents = [a.dims[ra - 2], a.dims[ra - 1], b.dims[rb - 1]];
    let (left, right) = (&a.dims[..ra - 2], &b.dims[..rb - 2]);
    let axes = left.len().max(right.len());
    let extent = |dims: &[usize], axis: usize| (axis + dims.len()).checked_sub(axes).map_or(1, |i| dims[i]);
    let batch = (0..axes)
        .map(|i| match (extent(left, i), extent(right, i)) {
            (1, n) | (n, _) => n,
        })
        .collect();
    let product = Product { a, b, c: None, y, trans_a: false, trans_b: false, alpha: 1.0, beta: 1.0, extents, batch };
    product.lower(behind, cx)
}

/// Lowers a Gemm with what follows it.
pub(super) fn lower_gemm(op: &Gemm, behind: Behind, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (a, b, c, y) = (cx.input(0)?, cx.input(1)?, cx.optional(2), cx.output(0));
    if a.rank() != 2 || b.rank() != 2 {
        return Err(cx.internal("operands of another rank than 2"));
    }
    let inner = a.dims[usize::from(!op.trans_a)];
    let extents = [a.dims[usize::from(op.trans_a)], inner, b.dims[usize::from(!op.trans_b)]];
    let (trans_a, trans_b, alpha, beta) = (op.trans_a, op.trans_b, op.alpha, op.beta);
    Product { a, b, c, y, trans_a, trans_b, alpha, beta, extents, batch: Vec::new() }.lower(behind, cx)
}

impl Product {
    fn lower(&self, behind: Behind, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
        if self.y.elems() == 0 {
            return Ok(());
        }
        if self.y.dtype == DType::F32
            && !cx.algorithms().without(Switch::MatrixProducts)
            && let Some(shape) = self.as_conv(&behind)
        {
            let in_place = behind.args.iter().any(|arg| Some(*arg) == self.y.memory());
            if cx.direct(&shape, in_place).0.is_small() {
                return self.lower_direct(&shape, &behind, cx);
            }
        }
        if !behind.epilogue.is_empty() {
            return Err(cx.unsupported("a fused matrix product of this size"));
        }
        self.lower_generic(cx)
    }

    /// The bias, if the addend is one: one number a column.
    fn bias(&self) -> Option<&Operand> {
        let n = self.extents[2];
        self.c.as_ref().filter(|c| c.elems() == n && c.dims.last() == Some(&n) && self.beta == 1.0)
    }

    /// The product as a convolution with one tap, if it is one.
    fn as_conv(&self, behind: &Behind) -> Option<Conv> {
        let [m, k, n] = self.extents;
        let images: usize = self.batch.iter().product();
        if (self.c.is_some() && self.bias().is_none()) || k == 0 {
            return None;
        }
        let (batches_a, batches_b) = (self.a.elems() / (m * k).max(1), self.b.elems() / (k * n).max(1));
        // What all batches share has a distance of 0; a batch that only some axes share has no single distance.
        let distance = |batches: usize, elems: usize| match batches {
            1 => Some(0),
            all if all == images => Some(elems),
            _ => None,
        };
        let (image_a, image_b) = (distance(batches_a, m * k)?, distance(batches_b, k * n)?);
        let constant = self.b.constant().is_some();
        // One matrix of all rows where b is shared.
        let (batch, rows) = if image_b == 0 && image_a != 0 { (1, images * m) } else { (images, m) };
        let weights = match batches_b {
            1 if constant || self.trans_b => Weights::Panels,
            _ if self.trans_b => return None,
            _ => Weights::Rows { image: image_b },
        };
        if !constant && self.alpha != 1.0 {
            return None;
        }
        let source = match self.trans_a {
            true => Source::Matrix { row: 1, column: m, image: image_a },
            false => Source::Matrix { row: k, column: 1, image: image_a },
        };
        let row = Axis::sliding(rows, rows, 1, 1, 1, 0);
        Some(Conv {
            batch,
            groups: 1,
            inputs: k,
            outputs: n,
            axes: [Axis::UNIT, Axis::UNIT, row],
            source,
            weights,
            sink: Sink::Matrix,
            bias: self.c.is_some(),
            epilogue: behind.epilogue.clone(),
        })
    }

    fn lower_direct(&self, shape: &Conv, behind: &Behind, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
        let in_place = behind.args.iter().any(|arg| Some(*arg) == self.y.memory());
        let (direct, tunable) = cx.direct(shape, in_place);
        let [_, k, n] = self.extents;
        let mut packing = Packing::new();
        let weights = match shape.weights {
            Weights::Panels => {
                let scale = (self.alpha as f32).to_bits();
                packing.matrix(cx, MatrixPanels { k, n, transposed: self.trans_b, scale }, &self.b)?
            }
            Weights::Rows { .. } => cx.arg(&self.b)?,
        };
        let bias = self.bias().map(|bias| packing.padded(cx, bias, n)).transpose()?;
        packing.lower(cx);
        let mut args = vec![cx.arg(&self.a)?, weights];
        args.extend(bias);
        args.extend(&behind.args);
        args.push(cx.arg(&self.y)?);
        args.push(cx.constant(direct.shape()));
        cx.scratch(direct.scratch());
        let id = cx.kernel(direct.kernel());
        cx.step(Call::new(id, &args, direct.tasks()).tunable(tunable));
        Ok(())
    }

    fn lower_generic(&self, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
        let [m, k, n] = self.extents;
        let strides = |operand: &Operand, transposed: bool, rows: usize, columns: usize| {
            let batch = &operand.dims[..operand.rank() - 2];
            let mut strides = broadcast_strides(batch, &self.batch);
            strides.iter_mut().for_each(|s| *s *= rows * columns);
            let (row, column) = if transposed { (1, rows) } else { (columns, 1) };
            Strides { batch: strides, row, column }
        };
        let c = self.c.as_ref().map(|c| {
            let s = broadcast_strides(&c.dims, &[m, n]);
            Strides { batch: Vec::new(), row: s[0], column: s[1] }
        });
        let generic = Generic {
            dtype: self.y.dtype,
            batch: self.batch.clone(),
            extents: self.extents,
            a: strides(&self.a, self.trans_a, m, k),
            b: strides(&self.b, self.trans_b, k, n),
            c,
            alpha: self.alpha,
            beta: self.beta,
        };
        let mut args: Vec<Arg> = vec![cx.arg(&self.a)?, cx.arg(&self.b)?];
        if let Some(c) = &self.c {
            args.push(cx.arg(c)?);
        }
        args.push(cx.arg(&self.y)?);
        let id = cx.kernel(generic.kernel());
        cx.step(Call::new(id, &args, generic.tasks()));
        Ok(())
    }
}

/// Whether a product with these operands takes an epilogue: the direct template will serve it.
pub(super) fn takes_epilogue(
    cx: &LowerCx<'_, '_>,
    gemm: Option<&Gemm>,
    operands: &[Option<Operand>],
    y: &Operand,
) -> bool {
    let [Some(a), Some(b), ..] = operands else { return false };
    if cx.algorithms().without(Switch::MatrixProducts) {
        return false;
    }
    let f32s = operands.iter().flatten().all(|o| o.dtype == DType::F32) && y.dtype == DType::F32;
    let plain = gemm.is_none_or(|g| g.alpha == 1.0 && g.beta == 1.0);
    let columns = *y.dims.last().unwrap_or(&0);
    let c = operands.get(2).and_then(Option::as_ref);
    let bias = c.is_none_or(|c| c.elems() == columns && c.dims.last() == Some(&columns));
    let inner = match gemm {
        Some(gemm) if gemm.trans_a => a.dims[0],
        _ => a.dims.last().copied().unwrap_or(0),
    };
    // Displacements of an unrolled stretch are 32 bits: what `Direct::is_small` refuses.
    let pitch = a.dims.last().copied().unwrap_or(0).max(columns);
    f32s && plain && bias && b.rank() == 2 && a.rank() >= 2 && inner > 0 && pitch < 1 << 22
}

#[cfg(test)]
mod tests {
    use crate::testing::{Tolerance, check, constant, sum_tolerance, tensor};
    use nncc_ir::ops::fused::Fused;
    use nncc_ir::ops::matmul::{Gemm, MatMul};
    use nncc_ir::pointwise::BinaryFn;
    use nncc_ir::{DType, Graph, Op, Origin, Pointwise, Tensor, TensorType};
    use proptest::prelude::*;

    fn product(a: &[usize], b: &[usize], constant_b: bool) {
        let mut g = Graph::new("matmul");
        let x = g.add_input("a", TensorType::fixed(DType::F32, a));
        let mut inputs = vec![tensor(1, a)];
        let w = if constant_b {
            constant(&mut g, "b", &tensor(2, b))
        } else {
            inputs.push(tensor(2, b));
            g.add_input("b", TensorType::fixed(DType::F32, b))
        };
        let y = g.add1(MatMul {}, &[x, w], Origin::named("matmul"), "y").expect("operands that fit");
        g.add_output("out", y);
        let inner = a[a.len() - 1];
        check(&g, &inputs, &sum_tolerance(&g, &inputs, inner));
    }

    fn extent() -> impl Strategy<Value = usize> {
        prop_oneof![Just(1), Just(2), Just(5), Just(7), Just(8), Just(13), Just(16), Just(17), Just(31), Just(40)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn products_agree(m in extent(), k in extent(), n in extent(), batch in 0usize..4, constant_b in any::<bool>()) {
            match batch {
                0 => product(&[m, k], &[k, n], constant_b),
                1 => product(&[2, m, k], &[k, n], constant_b),
                2 => product(&[2, 1, m, k], &[1, 3, k, n], constant_b),
                _ => product(&[2, m, k], &[2, k, n], constant_b),
            }
        }
    }

    #[test]
    fn vectors_are_rows_and_columns() {
        product(&[9], &[9, 20], true);
        product(&[5, 9], &[9], true);
        product(&[9], &[9], false);
        product(&[3, 5, 9], &[9], false);
    }

    #[test]
    fn long_inner_extents_take_several_passes() {
        // 64 bytes a panel and channel: half of L1 is 256 channels of one panel.
        product(&[30, 600], &[600, 20], true);
        product(&[1, 900], &[900, 70], true);
        // Several rows of 103 pixels, and weights beyond half of some L2.
        product(&[515, 520], &[520, 72], true);
    }

    #[test]
    fn gemm_forms_agree() {
        for (trans_a, trans_b, alpha, beta, c) in [
            (false, false, 1.0, 1.0, Some(vec![20])),
            (true, false, 1.0, 1.0, Some(vec![20])),
            (true, true, 1.0, 1.0, None),
            (false, true, 1.0, 1.0, Some(vec![1, 20])),
            (false, true, 0.5, 1.0, None),
            (true, false, 1.0, 2.0, Some(vec![7, 1])),
            (true, true, 1.5, 0.5, Some(vec![7, 20])),
            (false, false, 1.0, 1.0, Some(vec![])),
        ] {
            for computed in [false, true] {
                let mut g = Graph::new("gemm");
                let a = tensor(1, if trans_a { &[19, 7] } else { &[7, 19] });
                let b = tensor(2, if trans_b { &[20, 19] } else { &[19, 20] });
                let mut inputs = vec![a];
                let x = g.add_input("a", inputs[0].ty());
                let mut operand = |g: &mut Graph, name: &str, t: Tensor| {
                    if !computed {
                        return constant(g, name, &t);
                    }
                    inputs.push(t);
                    g.add_input(name, inputs[inputs.len() - 1].ty())
                };
                let w = operand(&mut g, "b", b);
                let c = c.as_ref().map(|c| operand(&mut g, "c", tensor(3, c)));
                let op = Gemm { trans_a, trans_b, alpha, beta };
                let node = g.add(op, &[Some(x), Some(w), c], Origin::named("gemm"), &["y"]).expect("operands that fit");
                g.add_output("out", nncc_ir::ValueId { node, out: 0 });
                check(&g, &inputs, &sum_tolerance(&g, &inputs, 21));
            }
        }
    }

    #[test]
    fn epilogues_run_on_rows() {
        // max(0, y + residual) * scale[n], with columns that end inside a vector.
        for n in [5, 16, 21] {
            let mut g = Graph::new("gemm");
            let x = g.add_input("a", TensorType::fixed(DType::F32, &[3, 4, 11]));
            let r = g.add_input("r", TensorType::fixed(DType::F32, &[3, 4, n]));
            let w = constant(&mut g, "b", &tensor(2, &[11, n]));
            let scale = constant(&mut g, "scale", &tensor(4, &[n]));
            let program = Pointwise::build(&[DType::F32; 3], |b, x| {
                let sum = b.binary(BinaryFn::Add, x[0], x[1]);
                let relu = b.binary_const(BinaryFn::Max, sum, 0.0);
                b.binary(BinaryFn::Mul, relu, x[2])
            });
            let op = Fused { root: Some(Box::new(Op::from(MatMul {}))), program, root_operands: 2 };
            let y = g.add1(op, &[x, w, r, scale], Origin::named("fused"), "y").expect("operands that fit");
            g.add_output("out", y);
            let inputs = [tensor(1, &[3, 4, 11]), tensor(3, &[3, 4, n])];
            check(&g, &inputs, &sum_tolerance(&g, &inputs, 30));
        }
    }

    #[test]
    fn epilogues_run_on_computed_factors() {
        // relu(a^T . b^T + c + r) with every operand computed, columns that end inside a vector.
        for (trans_a, trans_b) in [(false, false), (true, false), (true, true), (false, true)] {
            let mut g = Graph::new("gemm");
            let a = tensor(1, if trans_a { &[11, 9] } else { &[9, 11] });
            let b = tensor(2, if trans_b { &[21, 11] } else { &[11, 21] });
            let inputs = [a, b, tensor(3, &[21]), tensor(4, &[9, 21])];
            let v: Vec<_> = inputs.iter().enumerate().map(|(i, t)| g.add_input(&format!("x{i}"), t.ty())).collect();
            let program = Pointwise::build(&[DType::F32; 2], |b, x| {
                let sum = b.binary(BinaryFn::Add, x[0], x[1]);
                b.binary_const(BinaryFn::Max, sum, 0.0)
            });
            let root = Op::from(Gemm { trans_a, trans_b, alpha: 1.0, beta: 1.0 });
            let op = Fused { root: Some(Box::new(root)), program, root_operands: 3 };
            let y = g.add1(op, &v, Origin::named("fused"), "y").expect("operands that fit");
            g.add_output("out", y);
            check(&g, &inputs, &sum_tolerance(&g, &inputs, 30));
        }
    }

    #[test]
    fn integers_wrap_and_doubles_are_exact() {
        let mut g = Graph::new("matmul");
        let numbers = |n: usize| (0..n as i64).map(|i| i * 2_000_000_011 - 77).collect::<Vec<i64>>();
        let inputs = [
            Tensor::from_i64(DType::I32, &[2, 3, 4], &numbers(24)),
            Tensor::from_i64(DType::I32, &[4, 5], &numbers(20)),
            Tensor::from_f64(DType::F64, &[3, 4], &[0.5; 12]),
            Tensor::from_f64(DType::F64, &[4, 2], &[0.25; 8]),
        ];
        let v: Vec<_> = inputs.iter().enumerate().map(|(i, t)| g.add_input(&format!("x{i}"), t.ty())).collect();
        for (name, pair) in [("i", &v[..2]), ("d", &v[2..])] {
            let y = g.add1(MatMul {}, pair, Origin::named(name), name).expect("operands that fit");
            g.add_output(name, y);
        }
        check(&g, &inputs, &Tolerance::Exact);
    }
}
