//! Gradients of poolings.

use super::cx::Call;
use super::{LowerCx, LowerError, Operand};
use crate::kernels::pool_gradient::{Kind, PoolGradient};
use crate::kernels::window::Axis;
use crate::kir::Elem;
use nncc_ir::ops::pool::{AveragePoolGradient, MaxPoolGradient};
use nncc_ir::ops::window::Window;
use nncc_ir::{DType, Layout, Tensor};

/// Lowers the gradient of a maximum.
pub(super) fn lower_max(op: &MaxPoolGradient, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let operands = [cx.input(0)?, cx.input(1)?];
    lower(op.window(), Kind::Max, &operands, None, cx)
}

/// Lowers the gradient of a mean.
pub(super) fn lower_average(op: &AveragePoolGradient, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let dy = cx.input(0)?;
    // A window without any tap inside has nowhere to go, whatever it is divided by.
    let divisors = op.forward().divisors(&op.input, &dy.dims[2..]);
    let divisors: Vec<f64> = divisors.iter().map(|&d| d.max(1) as f64).collect();
    match divisors.first() {
        Some(&first) if divisors.iter().any(|&d| d != first) => {
            let table = Tensor::from_f64(dy.dtype, &[divisors.len()], &divisors);
            lower(op.window(), Kind::Mean(None), &[dy], Some(table), cx)
        }
        first => lower(op.window(), Kind::Mean(Some(first.copied().unwrap_or(1.0))), &[dy], None, cx),
    }
}

fn lower(
    window: Window<'_>,
    kind: Kind,
    operands: &[Operand],
    table: Option<Tensor>,
    cx: &mut LowerCx<'_, '_>,
) -> Result<(), LowerError> {
    let dx = cx.output(0);
    if dx.elems() == 0 {
        return Ok(());
    }
    let (dy, elem) = match (operands.last(), dx.dtype) {
        (Some(dy), DType::F32) => (dy, Elem::F32),
        (Some(dy), DType::F64) => (dy, Elem::F64),
        _ => return Err(cx.unsupported(format!("elements of type {}", dx.dtype))),
    };
    let same = operands.iter().all(|o| o.layout == dx.layout);
    if !same || (dx.layout == Layout::Blocked && elem != Elem::F32) {
        return Err(cx.unsupported("operands of different layouts"));
    }
    let axes = (0..dx.rank() - 2).map(|i| {
        let (input, output, kernel) = (dx.dims[i + 2], dy.dims[i + 2], window.kernel[i]);
        Axis::sliding(input, output, kernel, window.strides[i], window.dilations[i], window.begin(i))
    });
    let (batch, channels) = (dx.dims[0], dx.dims[1]);
    let layout = dx.layout;
    let gradient = PoolGradient { target: cx.target(), kind, elem, layout, batch, channels, axes: axes.collect() };
    let mut args = operands.iter().map(|o| cx.arg(o)).collect::<Result<Vec<_>, _>>()?;
    args.extend(table.map(|t| cx.constant(t.to_bytes())));
    args.push(cx.arg(&dx)?);
    let id = cx.kernel(gradient.kernel());
    cx.step(Call::new(id, &args, gradient.tasks()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::lower::pool::tests::{Problem, problem};
    use crate::testing::{Tolerance, check, tensor};
    use nncc_ir::ops::pool::{AveragePoolGradient, MaxPool, MaxPoolGradient};
    use nncc_ir::{DType, Graph, Layout, Op, Origin, Tensor, TensorType};
    use proptest::prelude::*;

    impl Problem {
        /// What is pooled; none where the windows do not fit.
        fn dy(&self) -> Option<Vec<usize>> {
            let x = TensorType::fixed(DType::F32, &self.dims());
            Op::from(self.average(true)).infer(&[Some(&x)]).ok()?.first()?.dims()
        }

        #[track_caller]
        fn check_gradient(&self, op: impl Into<Op>, inputs: &[Tensor]) {
            let mut g = Graph::new("gradient");
            let operands: Vec<_> =
                inputs.iter().enumerate().map(|(i, t)| g.add_input(&format!("x{i}"), t.ty())).collect();
            operands.iter().for_each(|&v| g.set_layout(v, self.layouts[0]));
            let dx = g.add1(op, &operands, Origin::named("gradient"), "dx").expect("operands that fit");
            g.set_layout(dx, self.layouts[0]);
            g.add_output("out", dx);
            // Sums of as many shares as windows overlap.
            check(&g, inputs, &Tolerance::Relative { rel: 1e-5, abs: 1e-5 });
        }

        #[track_caller]
        fn check_max(&self, x: Tensor) {
            let Some(dy) = self.dy() else { return };
            let MaxPool { kernel, strides, dilations, pads, ceil_mode, .. } = self.max(false, 0);
            let op = MaxPoolGradient { kernel, strides, dilations, pads, ceil_mode };
            let dy = Tensor::from_f64(x.dtype(), &dy, &tensor(2, &dy).to_f64());
            self.check_gradient(op, &[x, dy]);
        }

        #[track_caller]
        fn check_average(&self, count_include_pad: bool) {
            let Some(dy) = self.dy() else { return };
            let op: AveragePoolGradient = self.average(count_include_pad).transposed(&self.of(|a| a.0));
            self.check_gradient(op, &[tensor(2, &dy)]);
        }
    }

    /// The problems of poolings in one layout, for a gradient has that of what it is the gradient of.
    fn gradient_problem() -> impl Strategy<Value = Problem> {
        problem().prop_map(|mut p| {
            p.layouts[1] = p.layouts[0];
            p
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn maxima_agree(p in gradient_problem()) {
            p.check_max(tensor(1, &p.dims()));
        }

        #[test]
        fn means_agree(p in gradient_problem(), count_include_pad in any::<bool>()) {
            p.check_average(count_include_pad);
        }
    }

    #[test]
    fn the_first_of_equal_maxima_and_nans_takes_all() {
        for layout in [Layout::Blocked, Layout::RowMajor] {
            let axes = vec![(5, 3, 2, 1, 1, 1), (6, 3, 1, 1, 1, 1)];
            let p = Problem { batch: 1, channels: 9, axes, ceil_mode: false, layouts: [layout; 2] };
            let numbers = [1.0, 1.0, f32::NAN, f32::NEG_INFINITY, 1.0, f32::NAN, 2.0];
            let x: Vec<f32> = (0..9 * 30).map(|i| numbers[i * i % 7]).collect();
            p.check_max(Tensor::f32(&p.dims(), x));
            p.check_max(Tensor::f32(&p.dims(), vec![f32::NEG_INFINITY; 9 * 30]));
        }
    }

    #[test]
    fn doubles_are_row_major() {
        let axes = vec![(7, 3, 2, 1, 1, 1), (6, 2, 2, 1, 0, 0)];
        let p = Problem { batch: 2, channels: 3, axes, ceil_mode: false, layouts: [Layout::RowMajor; 2] };
        p.check_max(Tensor::from_f64(DType::F64, &p.dims(), &tensor(1, &p.dims()).to_f64()));
    }
}
