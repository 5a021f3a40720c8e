//! Gradients of convolutions with respect to their weights: which template serves one, and how its panels become rows.

use super::conv::{axes_of, three};
use super::cx::Call;
use super::movement::Moves;
use super::panels::rows_of;
use super::{LowerCx, LowerError, Operand};
use crate::kernels::conv::generic::GenericAxis;
use crate::kernels::conv::weight_gradient::dense::Dense;
use crate::kernels::conv::weight_gradient::depthwise::Depthwise;
use crate::kernels::conv::weight_gradient::pointwise::Pointwise;
use crate::kernels::conv::weight_gradient::{Problem, add_parts, generic};
use crate::kernels::window::Axis;
use crate::kir::{Elem, Kernel};
use crate::pack::{ConvPanels, DepthwisePanels};
use crate::program::Arg;
use nncc_ir::ops::conv::ConvWeightGradient;
use nncc_ir::{BLOCK, DType, Layout};

/// Lowers the gradient of a convolution with respect to its weights.
pub(super) fn lower(op: &ConvWeightGradient, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, dy, dw) = (cx.input(0)?, cx.input(1)?, cx.output(0));
    if dw.elems() == 0 {
        return Ok(());
    }
    let (groups, inputs, outputs) = (op.group, dw.dims[1], dw.dims[0] / op.group);
    let generic_axes = axes_of([&x.dims, &dy.dims, &dw.dims], &op.strides, &op.dilations, &op.pads);
    let kernel = three(&op.kernel, 1);
    let blocked = dw.dtype == DType::F32 && dy.layout == Layout::Blocked && (3..=5).contains(&x.rank());
    if blocked && x.elems() * dy.elems() > 0 {
        let sliding = |a: &GenericAxis| Axis::sliding(a.input, a.output, a.kernel, a.stride, a.dilation, a.pad);
        let axes = three(&generic_axes.iter().map(sliding).collect::<Vec<_>>(), Axis::UNIT);
        let taps = kernel.map(|k| (0..k).collect::<Vec<_>>());
        let whole = groups == 1 || (inputs.is_multiple_of(BLOCK) && outputs.is_multiple_of(BLOCK));
        if groups > 1 && (inputs, outputs) == (1, 1) && x.layout == Layout::Blocked {
            let depthwise = Depthwise { target: cx.target(), batch: x.dims[0], channels: groups, axes };
            let panels = DepthwisePanels { channels: groups, group: 1, kernel, taps, transposed: false };
            let (kernel, tasks) = (depthwise.kernel(), depthwise.tasks());
            let sums = add_up(cx, [&x, &dy], kernel, tasks, depthwise.stored(), depthwise.parts())?;
            return to_rows(cx, &sums, &dw, rows_of(panels.places()));
        }
        let problem = Problem { batch: x.dims[0], groups, inputs, outputs, axes, source: x.layout.into() };
        let pointwise = (whole && Pointwise::takes(&problem)).then(|| Pointwise::new(cx.target(), &problem));
        if let Some(pointwise) = pointwise.filter(Pointwise::is_small) {
            cx.scratch(pointwise.scratch());
            let shape = cx.constant(pointwise.shape());
            let (kernel, tasks) = (pointwise.kernel(), pointwise.tasks());
            return sum_into(cx, [&x, &dy], Some(shape), kernel, tasks, pointwise.parts(), &dw);
        }
        let dense = Dense::new(cx.target(), &problem);
        if whole && dense.is_small() {
            let panels = ConvPanels { groups, inputs, outputs, kernel, taps, transposed: false };
            let sums = add_up(cx, [&x, &dy], dense.kernel(), dense.tasks(), problem.stored(), dense.parts())?;
            return to_rows(cx, &sums, &dw, rows_of(panels.places()));
        }
    }
    let elem = match dw.dtype {
        DType::F32 => Elem::F32,
        DType::F64 => Elem::F64,
        other => return Err(cx.unsupported(format!("elements of type {other}"))),
    };
    let layouts = [x.layout, dy.layout];
    let any = generic::Generic { elem, batch: x.dims[0], groups, inputs, outputs, axes: generic_axes, layouts };
    let args = [cx.arg(&x)?, cx.arg(&dy)?, cx.arg(&dw)?];
    let id = cx.kernel(any.kernel());
    cx.step(Call::new(id, &args, any.tasks()));
    Ok(())
}

/// Appends the kernel that writes `parts` panels of `stored` sums, and what adds them; gives the sums.
fn add_up(
    cx: &mut LowerCx<'_, '_>,
    operands: [&Operand; 2],
    kernel: Kernel,
    tasks: usize,
    stored: usize,
    parts: usize,
) -> Result<Operand, LowerError> {
    let sums = cx.temporary(DType::F32, &[stored], Layout::RowMajor)?;
    sum_into(cx, operands, None, kernel, tasks, parts, &sums)?;
    Ok(sums)
}

/// Appends the kernel that writes `parts` times as many sums as `to` has, and what adds them. Its operands are x, dy, the sums
/// and, if it reads one, its shape.
fn sum_into(
    cx: &mut LowerCx<'_, '_>,
    [x, dy]: [&Operand; 2],
    shape: Option<Arg>,
    kernel: Kernel,
    tasks: usize,
    parts: usize,
    to: &Operand,
) -> Result<(), LowerError> {
    let sums = match parts {
        1 => cx.arg(to)?,
        _ => {
            let sums = cx.temporary(DType::F32, &[parts, to.elems()], Layout::RowMajor)?;
            cx.arg(&sums)?
        }
    };
    let mut args = vec![cx.arg(x)?, cx.arg(dy)?, sums];
    args.extend(shape);
    let macs = cx.macs();
    let id = cx.kernel(kernel);
    cx.step(Call::new(id, &args, tasks).with_macs(macs));
    if parts > 1 {
        let (kernel, tasks) = add_parts(cx.target(), to.elems(), parts);
        let (id, args) = (cx.kernel(kernel), [sums, cx.arg(to)?]);
        cx.step(Call::new(id, &args, tasks).labelled("add parts"));
    }
    Ok(())
}

/// Appends the copies of panels into rows.
fn to_rows(
    cx: &mut LowerCx<'_, '_>,
    sums: &Operand,
    dw: &Operand,
    pieces: Vec<super::movement::Piece>,
) -> Result<(), LowerError> {
    let mut moves = Moves::new(DType::F32).labelled("unpack");
    moves.add_pieces(cx, sums, dw, pieces)?;
    moves.lower(cx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, sum_tolerance, tensor};
    use nncc_ir::ops::conv::{Conv, ConvWeightGradient};
    use nncc_ir::{DType, Graph, Layout, Op, Origin, Tensor, TensorType};
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    struct Problem {
        batch: usize,
        group: usize,
        inputs: usize,
        outputs: usize,
        /// Input, kernel, stride, dilation, begin, end.
        axes: Vec<[usize; 6]>,
        layouts: [Layout; 2],
    }

    impl Problem {
        fn plain(inputs: usize, outputs: usize, size: [usize; 2]) -> Problem {
            let axes = size.map(|n| [n, 3, 1, 1, 1, 1]).to_vec();
            Problem { batch: 2, group: 1, inputs, outputs, axes, layouts: [Layout::Blocked; 2] }
        }

        fn of(&self, i: usize) -> Vec<usize> {
            self.axes.iter().map(|a| a[i]).collect()
        }

        fn x(&self) -> Vec<usize> {
            [vec![self.batch, self.group * self.inputs], self.of(0)].concat()
        }

        /// The dimensions of dy; none where no window fits.
        fn dy(&self) -> Option<Vec<usize>> {
            let (strides, dilations, pads) = (self.of(2), self.of(3), [self.of(4), self.of(5)].concat());
            let conv: Op = Conv { strides, dilations, pads, group: self.group }.into();
            let x = TensorType::fixed(DType::F32, &self.x());
            let w = [vec![self.group * self.outputs, self.inputs], self.of(1)].concat();
            let w = TensorType::fixed(DType::F32, &w);
            conv.infer(&[Some(&x), Some(&w)]).ok()?.first()?.dims()
        }

        #[track_caller]
        fn check_as(&self, dtype: DType) {
            let Some(dims) = self.dy() else { return };
            let (strides, dilations, pads) = (self.of(2), self.of(3), [self.of(4), self.of(5)].concat());
            let op = ConvWeightGradient { strides, dilations, pads, group: self.group, kernel: self.of(1) };
            let cast = |t: Tensor| Tensor::from_f64(dtype, t.dims(), &t.to_f64());
            let inputs = [cast(tensor(1, &self.x())), cast(tensor(2, &dims))];
            let mut g = Graph::new("gradient");
            let (x, dy) = (g.add_input("x", inputs[0].ty()), g.add_input("dy", inputs[1].ty()));
            g.set_layout(x, self.layouts[0]);
            g.set_layout(dy, self.layouts[1]);
            let dw = g.add1(op, &[x, dy], Origin::named("dw"), "dw").expect("operands that fit");
            g.add_output("out", dw);
            let terms = self.batch * dims[2..].iter().product::<usize>();
            check(&g, &inputs, &sum_tolerance(&g, &inputs, terms));
        }

        #[track_caller]
        fn check(&self) {
            self.check_as(DType::F32);
        }
    }

    fn channels() -> impl Strategy<Value = usize> {
        prop_oneof![Just(1), Just(3), Just(8), Just(9), Just(16), Just(17), Just(33), Just(40)]
    }

    fn problem() -> impl Strategy<Value = Problem> {
        let groups = prop_oneof![
            4 => channels().prop_flat_map(|i| (Just(1usize), Just(i), channels())),
            1 => (2usize..4, Just(16usize), prop_oneof![Just(16usize), Just(32)]),
            2 => (2usize..35, Just(1usize), Just(1usize)),
            1 => (2usize..4, 1usize..5, 1usize..5),
        ];
        let axis = (1usize..12, 1usize..4, 1usize..4, 1usize..3, 0usize..3, 0usize..3);
        let axis = axis.prop_map(|(n, k, s, d, b, e)| [n, k, s, d, b, e]);
        let layout = || prop_oneof![3 => Just(Layout::Blocked), 1 => Just(Layout::RowMajor)];
        (1usize..4, groups, prop::collection::vec(axis, 1..4), layout(), layout()).prop_map(
            |(batch, (group, inputs, outputs), mut axes, from, to)| {
                if axes.len() == 3 {
                    axes[0][0] = axes[0][0].min(3);
                    axes[1][0] = axes[1][0].min(5);
                }
                Problem { batch, group, inputs, outputs, axes, layouts: [from, to] }
            },
        )
    }

    /// One tap an axis, no padding; now and then of more than one chunk, cut or part.
    fn pointwise() -> impl Strategy<Value = Problem> {
        let channels = || prop_oneof![2 => channels(), 1 => Just(64usize), 1 => Just(100)];
        let groups = prop_oneof![
            4 => (Just(1usize), channels(), channels()),
            1 => (2usize..4, Just(16usize), prop_oneof![Just(16usize), Just(48)]),
        ];
        let axis = (1usize..24, 1usize..4).prop_map(|(n, s)| [n, 1, s, 1, 0, 0]);
        (1usize..6, groups, prop::collection::vec(axis, 1..4)).prop_map(
            |(batch, (group, inputs, outputs), mut axes)| {
                if axes.len() == 3 {
                    axes.iter_mut().for_each(|a| a[0] = a[0].min(7));
                }
                Problem { batch, group, inputs, outputs, axes, layouts: [Layout::Blocked; 2] }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn weight_gradients_agree(p in problem()) {
            p.check();
        }

        #[test]
        fn pointwise_weight_gradients_agree(p in pointwise()) {
            p.check();
        }
    }

    #[test]
    fn edge_blocks_on_both_sides() {
        for (inputs, outputs) in [(3, 8), (17, 40), (33, 24)] {
            Problem::plain(inputs, outputs, [4, 7]).check();
        }
    }

    #[test]
    fn pointwise_planes_are_flattened() {
        for size in [[1, 1], [7, 7], [5, 13], [16, 9]] {
            let axes = size.map(|n| [n, 1, 1, 1, 0, 0]).to_vec();
            Problem { axes, ..Problem::plain(24, 40, size) }.check();
        }
    }

    #[test]
    fn pointwise_products_are_cut_into_tasks_and_parts() {
        // 2.6 M multiply-accumulates of 17 by 9 blocks, the last of each 8 wide; 15 chunks of 5 images in parts.
        for (batch, inputs, outputs, size) in [(1, 264, 136, [7, 11]), (5, 24, 8, [50, 60])] {
            let axes = size.map(|n| [n, 1, 1, 1, 0, 0]).to_vec();
            Problem { batch, axes, ..Problem::plain(inputs, outputs, size) }.check();
            let axes = size.map(|n| [2 * n, 1, 2, 1, 0, 0]).to_vec();
            Problem { batch, axes, ..Problem::plain(inputs, outputs, size) }.check();
        }
    }

    #[test]
    fn first_layers_read_row_major() {
        let axes = [15, 17].map(|n| [n, 7, 2, 1, 3, 3]).to_vec();
        Problem { axes, layouts: [Layout::RowMajor, Layout::Blocked], ..Problem::plain(3, 40, [0, 0]) }.check();
    }

    #[test]
    fn large_maps_are_walked_in_chunks_and_parts() {
        // A row of 70 pixels: several rows do not fit the first cache; 2 M multiply-accumulates: two parts.
        Problem::plain(16, 16, [13, 70]).check();
        Problem { group: 20, batch: 5, ..Problem::plain(1, 1, [50, 40]) }.check();
    }

    #[test]
    fn windows_wholly_in_the_padding() {
        let axes = vec![[2, 3, 1, 3, 5, 5], [3, 3, 1, 4, 9, 5]];
        Problem { axes, ..Problem::plain(16, 16, [0, 0]) }.check();
    }

    #[test]
    fn doubles_are_summed_one_by_one() {
        Problem { layouts: [Layout::RowMajor; 2], ..Problem::plain(3, 5, [4, 5]) }.check_as(DType::F64);
    }
}
