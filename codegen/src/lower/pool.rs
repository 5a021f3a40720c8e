//! Pooling: f32 in channel blocks by the blocked template, everything else and indices by the generic one.

use super::cx::{Call, Operand};
use super::{LowerCx, LowerError};
use crate::kernels::bands::Layer;
use crate::kernels::pool::{Blocked, Generic, Kind, Pooling, SideBySide};
use crate::kernels::window::Axis;
use crate::program::Arg;
use nncc_ir::ops::pool::{AveragePool, LpPool, MaxPool};
use nncc_ir::ops::window::Window;
use nncc_ir::{DType, Layout, Op, Tensor};

/// Lowers a maximum.
pub(super) fn lower_max(op: &MaxPool, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    lower(op.window(), Kind::Max, None, op.indices.then_some(op.storage_order == 1), cx)
}

/// Lowers a mean.
pub(super) fn lower_average(op: &AveragePool, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (kind, table) = divisors(op, &cx.input(0)?, &cx.output(0));
    lower(op.window(), kind, table, None, cx)
}

/// Lowers a norm.
pub(super) fn lower_lp(op: &LpPool, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    lower(op.window(), Kind::Norm(op.p), None, None, cx)
}

/// The divisors of a mean: one for all pixels in its kind, or one for each in a table.
fn divisors(op: &AveragePool, x: &Operand, y: &Operand) -> (Kind, Option<Tensor>) {
    // A window without any tap inside sums to 0, and 0 / 1 is the result that it has by definition.
    let divisors: Vec<f64> = op.divisors(&x.dims[2..], &y.dims[2..]).iter().map(|&d| d.max(1) as f64).collect();
    match divisors.first() {
        Some(&first) if divisors.iter().any(|&d| d != first) => {
            (Kind::Mean(None), Some(Tensor::from_f64(y.dtype, &[divisors.len()], &divisors)))
        }
        first => (Kind::Mean(Some(first.copied().unwrap_or(1.0))), None),
    }
}

/// A maximum or mean of planes of these extents, if its windows lie side by side and whole inside.
pub(super) fn side_by_side(op: &Op, x: &[usize], y: &[usize]) -> Option<SideBySide> {
    let (window, kind) = match op {
        Op::MaxPool(op) if !op.indices => (op.window(), Kind::Max),
        Op::AveragePool(op) => (op.window(), Kind::Mean(Some(op.kernel.iter().product::<usize>() as f64))),
        _ => return None,
    };
    let (&[_, _, height, width], &[_, _, rows, columns]) = (x, y) else { return None };
    let is_one = |axis: usize, input: usize, output: usize| {
        let beside = window.strides[axis] == window.kernel[axis] && window.dilations[axis] == 1;
        beside && window.begin(axis) == 0 && output * window.kernel[axis] <= input
    };
    let all = is_one(0, height, rows) && is_one(1, width, columns);
    let pooling = SideBySide { kind, window: [window.kernel[0], window.kernel[1]], outputs: [rows, columns] };
    all.then_some(pooling)
}

/// A maximum as a layer of bands, with its operands between input and output; `None` when it is not one.
pub(super) fn max_layer(op: &MaxPool, cx: &mut LowerCx<'_, '_>) -> Result<Option<(Layer, Vec<Arg>)>, LowerError> {
    if op.indices { Ok(None) } else { layer(&op.window(), Kind::Max, None, cx) }
}

/// A mean as a layer of bands.
pub(super) fn average_layer(
    op: &AveragePool,
    cx: &mut LowerCx<'_, '_>,
) -> Result<Option<(Layer, Vec<Arg>)>, LowerError> {
    let (kind, table) = divisors(op, &cx.input(0)?, &cx.output(0));
    layer(&op.window(), kind, table, cx)
}

fn layer(
    window: &Window<'_>,
    kind: Kind,
    table: Option<Tensor>,
    cx: &mut LowerCx<'_, '_>,
) -> Result<Option<(Layer, Vec<Arg>)>, LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    let layer = blocked(kind, &x, &y, &axes_of(window, &x, &y), cx);
    let args = table.map(|t| cx.constant(t.to_bytes())).into_iter().collect();
    Ok(layer.map(|blocked| (Layer::Pool(blocked.pooling), args)))
}

/// The axes of a window that slides over `x`.
fn axes_of(window: &Window<'_>, x: &Operand, y: &Operand) -> Vec<Axis> {
    let axis = |i: usize| {
        let (input, output, kernel) = (x.dims[i + 2], y.dims[i + 2], window.kernel[i]);
        Axis::sliding(input, output, kernel, window.strides[i], window.dilations[i], window.begin(i))
    };
    (0..x.rank() - 2).map(axis).collect()
}

/// The blocked template, if it may take the operands.
fn blocked<'a>(kind: Kind, x: &Operand, y: &Operand, axes: &[Axis], cx: &LowerCx<'_, 'a>) -> Option<Blocked<'a>> {
    let is_blocked = x.layout == Layout::Blocked && y.layout == Layout::Blocked && x.dtype == DType::F32;
    let is_short = !matches!(kind, Kind::Norm(order) if !order.is_power_of_two());
    if !is_blocked || !is_short || axes.len() > 3 {
        return None;
    }
    let axes = super::conv::three(axes, Axis::UNIT);
    let pooling = Pooling { kind, batch: x.dims[0], channels: x.dims[1], axes };
    Some(Blocked { target: cx.target(), pooling }).filter(Blocked::is_small)
}

fn lower(
    window: Window<'_>,
    kind: Kind,
    table: Option<Tensor>,
    indices: Option<bool>,
    cx: &mut LowerCx<'_, '_>,
) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    if y.elems() == 0 {
        return Ok(());
    }
    let axes = axes_of(&window, &x, &y);
    let mut args = vec![cx.arg(&x)?];
    args.extend(table.map(|t| cx.constant(t.to_bytes())));
    args.push(cx.arg(&y)?);
    let (batch, channels) = (x.dims[0], x.dims[1]);
    if indices.is_none()
        && let Some(blocked) = blocked(kind, &x, &y, &axes, cx)
    {
        let kernel = cx.kernel(blocked.kernel());
        args.push(cx.constant(blocked.shape()));
        cx.step(Call::new(kernel, &args, blocked.tasks()));
        return Ok(());
    }
    let mut layouts = [x.layout, y.layout, Layout::RowMajor];
    if indices.is_some() {
        let places = cx.output(1);
        layouts[2] = places.layout;
        args.push(cx.arg(&places)?);
    }
    let generic = Generic { dtype: x.dtype, kind, batch, channels, axes, layouts, indices };
    let kernel = cx.kernel(generic.kernel());
    cx.step(Call::new(kernel, &args, generic.tasks()));
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use crate::testing::{Tolerance, check, numbers, tensor};
    use nncc_ir::ops::pool::{AveragePool, LpPool, MaxPool};
    use nncc_ir::{DType, Graph, Layout, Op, Origin, Tensor};
    use proptest::prelude::*;

    /// The window of one axis: input, kernel, stride, dilation, begin, end.
    pub type AxisOf = (usize, usize, usize, usize, usize, usize);

    /// Windows over an input, and the layouts of what is pooled and of the result.
    #[derive(Clone, Debug)]
    pub struct Problem {
        pub batch: usize,
        pub channels: usize,
        pub axes: Vec<AxisOf>,
        pub ceil_mode: bool,
        pub layouts: [Layout; 2],
    }

    impl Problem {
        pub fn of(&self, f: fn(&AxisOf) -> usize) -> Vec<usize> {
            self.axes.iter().map(f).collect()
        }

        fn pads(&self) -> Vec<usize> {
            [self.of(|a| a.4), self.of(|a| a.5)].concat()
        }

        pub fn max(&self, indices: bool, storage_order: usize) -> MaxPool {
            let (kernel, strides, dilations) = (self.of(|a| a.1), self.of(|a| a.2), self.of(|a| a.3));
            MaxPool { kernel, strides, dilations, pads: self.pads(), ceil_mode: self.ceil_mode, indices, storage_order }
        }

        pub fn average(&self, count_include_pad: bool) -> AveragePool {
            let (kernel, strides, dilations) = (self.of(|a| a.1), self.of(|a| a.2), self.of(|a| a.3));
            AveragePool { kernel, strides, dilations, pads: self.pads(), ceil_mode: self.ceil_mode, count_include_pad }
        }

        fn lp(&self, p: usize) -> LpPool {
            let (kernel, strides, dilations) = (self.of(|a| a.1), self.of(|a| a.2), self.of(|a| a.3));
            LpPool { kernel, strides, dilations, pads: self.pads(), ceil_mode: self.ceil_mode, p }
        }

        pub fn dims(&self) -> Vec<usize> {
            [self.batch, self.channels].into_iter().chain(self.of(|a| a.0)).collect()
        }

        /// False when the windows do not fit the input.
        fn check(&self, op: impl Into<Op>, x: &Tensor, tolerance: &Tolerance) -> bool {
            let mut g = Graph::new("pool");
            let v = g.add_input("x", x.ty());
            g.set_layout(v, self.layouts[0]);
            let Ok(node) = g.add(op, &[Some(v)], Origin::named("pool"), &["y"]) else { return false };
            for (i, out) in g.results(node).enumerate() {
                g.set_layout(out, if i == 0 { self.layouts[1] } else { Layout::RowMajor });
                g.add_output(&format!("out{i}"), out);
            }
            check(&g, std::slice::from_ref(x), tolerance);
            true
        }
    }

    /// Problems of one to three axes, in both layouts.
    pub fn problem() -> impl Strategy<Value = Problem> {
        let axis = (1usize..12, 1usize..5, 1usize..4, 1usize..3, 0usize..3, 0usize..3);
        let layout = || prop_oneof![3 => Just(Layout::Blocked), 1 => Just(Layout::RowMajor)];
        let channels = prop_oneof![Just(1usize), Just(8), Just(17), Just(24), Just(32)];
        (1usize..3, channels, prop::collection::vec(axis, 1..4), any::<bool>(), layout(), layout()).prop_map(
            |(batch, channels, mut axes, ceil_mode, from, to)| {
                if axes.len() == 3 {
                    axes[0].0 = axes[0].0.min(4);
                }
                Problem { batch, channels, axes, ceil_mode, layouts: [from, to] }
            },
        )
    }

    /// A sum of at most 4^3 numbers below 1, a division, roots: a few roundings of numbers below 64.
    const SUMS: Tolerance = Tolerance::Relative { rel: 4e-6, abs: 4e-6 };

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn windows_agree(p in problem(), include in any::<bool>(), norm in 1usize..8) {
            let x = tensor(1, &p.dims());
            prop_assume!(p.check(p.max(false, 0), &x, &Tolerance::Relative { rel: 0.0, abs: 0.0 }));
            p.check(p.average(include), &x, &SUMS);
            p.check(p.lp(norm), &x, &SUMS);
        }

        #[test]
        fn indices_agree(p in problem(), order in 0usize..2, wide in any::<bool>()) {
            let count = p.dims().iter().product();
            let coarse: Vec<f64> = numbers(2, count).iter().map(|&v| f64::from(v * 3.0).round()).collect();
            let dtype = if wide { DType::I64 } else { DType::U8 };
            for t in [Tensor::from_f64(DType::F32, &p.dims(), &coarse), Tensor::from_f64(dtype, &p.dims(), &coarse)] {
                p.check(p.max(true, order), &t, &Tolerance::Relative { rel: 0.0, abs: 0.0 });
            }
        }
    }

    #[test]
    fn nan_and_infinity_pass_through() {
        let p = Problem {
            batch: 1,
            channels: 16,
            axes: vec![(6, 3, 1, 1, 1, 1), (7, 3, 2, 1, 1, 1)],
            ceil_mode: false,
            layouts: [Layout::Blocked; 2],
        };
        let mut v = numbers(3, p.dims().iter().product());
        for (i, special) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().cycle().take(60).enumerate() {
            v[i * 11] = special;
        }
        let x = Tensor::f32(&p.dims(), v);
        assert!(p.check(p.max(false, 0), &x, &Tolerance::Relative { rel: 0.0, abs: 0.0 }));
        assert!(p.check(p.max(true, 0), &x, &Tolerance::Relative { rel: 0.0, abs: 0.0 }));
    }

    #[test]
    fn wide_windows_are_loops() {
        let p = Problem {
            batch: 1,
            channels: 8,
            axes: vec![(20, 20, 1, 1, 0, 0), (29, 27, 1, 1, 1, 0)],
            ceil_mode: false,
            layouts: [Layout::Blocked; 2],
        };
        let x = tensor(5, &p.dims());
        // 540 numbers below 1.
        assert!(p.check(p.average(true), &x, &Tolerance::Relative { rel: 1e-5, abs: 3e-5 }));
    }
}
