//! Convolutions of all forms against the reference evaluator.

use crate::kernels::conv::depthwise::Strip;
use crate::lower::{Algorithms, Separate, SetSource, lower_any_layout};
use crate::target::Target;
use crate::testing::{Same, check, check_choices, constant, sum_tolerance, targets, tensor, tried};
use nncc_ir::ops::conv::{Conv, ConvTranspose};
use nncc_ir::ops::fused::Fused;
use nncc_ir::pointwise::{BinaryFn, UnaryFn};
use nncc_ir::{DType, Graph, Layout, Op, Origin, Pointwise, Tensor, ValueId};
use proptest::prelude::*;

/// One convolution to compile; `transposed` reads the same numbers as a transposed one.
#[derive(Clone, Debug)]
struct Problem {
    batch: usize,
    group: usize,
    inputs: usize,
    outputs: usize,
    size: Vec<usize>,
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    layouts: [Layout; 2],
    bias: bool,
    transposed: bool,
    /// Are weights and bias inputs of the graph?
    computed: bool,
}

impl Problem {
    /// A 3x3 convolution of one image, all blocked.
    fn plain(inputs: usize, outputs: usize, size: [usize; 2]) -> Problem {
        Problem {
            batch: 1,
            group: 1,
            inputs,
            outputs,
            size: size.to_vec(),
            kernel: vec![3, 3],
            strides: vec![1, 1],
            dilations: vec![1, 1],
            pads: vec![1; 4],
            layouts: [Layout::Blocked; 2],
            bias: true,
            transposed: false,
            computed: false,
        }
    }

    fn op(&self) -> Op {
        let (strides, dilations) = (self.strides.clone(), self.dilations.clone());
        let (pads, group) = (self.pads.clone(), self.group);
        if self.transposed {
            let output_padding = self.strides.iter().map(|s| s - 1).collect();
            ConvTranspose { strides, dilations, pads, output_padding, group }.into()
        } else {
            Conv { strides, dilations, pads, group }.into()
        }
    }

    /// The dimensions of x and w; per group channel counts are `inputs` and `outputs`.
    fn dims(&self) -> [Vec<usize>; 2] {
        let x = [self.batch, self.group * self.inputs].into_iter().chain(self.size.iter().copied()).collect();
        let (first, second) = if self.transposed {
            (self.group * self.inputs, self.outputs)
        } else {
            (self.group * self.outputs, self.inputs)
        };
        let w = [first, second].into_iter().chain(self.kernel.iter().copied()).collect();
        [x, w]
    }

    fn weights(&self) -> [Tensor; 2] {
        [tensor(2, &self.dims()[1]), tensor(3, &[self.group * self.outputs])]
    }

    fn terms(&self) -> usize {
        self.inputs * self.kernel.iter().product::<usize>() + 1
    }

    /// Is there an output at all?
    fn is_valid(&self) -> bool {
        let mut g = Graph::new("probe");
        self.add(&mut g, self.op(), &[]).is_some()
    }

    fn add(&self, g: &mut Graph, op: Op, extras: &[ValueId]) -> Option<ValueId> {
        let [x, _] = self.dims();
        let xv = g.add_input("x", nncc_ir::TensorType::fixed(DType::F32, &x));
        g.set_layout(xv, self.layouts[0]);
        let weights = |g: &mut Graph, name: &str, t: &Tensor| match self.computed {
            true => g.add_input(name, t.ty()),
            false => constant(g, name, t),
        };
        let [w, b] = self.weights();
        let wv = weights(g, "w", &w);
        let bv = self.bias.then(|| weights(g, "b", &b));
        let mut operands = vec![Some(xv), Some(wv), bv];
        operands.extend(extras.iter().map(|&v| Some(v)));
        let node = g.add(op, &operands, Origin::named("conv"), &["y"]).ok()?;
        let y = ValueId { node, out: 0 };
        g.set_layout(y, self.layouts[1]);
        Some(y)
    }

    fn graph(&self) -> (Graph, Vec<Tensor>) {
        let mut g = Graph::new("conv");
        let y = self.add(&mut g, self.op(), &[]).expect("a valid problem");
        g.add_output("out", y);
        let mut inputs = vec![tensor(1, &self.dims()[0])];
        if self.computed {
            inputs.extend(self.weights());
            inputs.truncate(2 + usize::from(self.bias));
        }
        (g, inputs)
    }

    #[track_caller]
    fn check(&self) {
        let (g, inputs) = self.graph();
        check(&g, &inputs, &sum_tolerance(&g, &inputs, self.terms()));
    }
}

/// Each way that a tuner would try is followed and gives the layer's results.
#[test]
fn other_schedules_compute_the_same() {
    let wide = Problem { bias: false, ..Problem::plain(88, 72, [7, 13]) };
    let pointwise = Problem { kernel: vec![1, 1], pads: vec![0; 4], ..Problem::plain(40, 56, [8, 14]) };
    let first = Problem { layouts: [Layout::RowMajor, Layout::Blocked], ..Problem::plain(3, 24, [9, 11]) };
    for p in [wide, pointwise, first] {
        let (g, inputs) = p.graph();
        let tolerance = sum_tolerance(&g, &inputs, p.terms());
        let tried = check_choices(&g, &inputs, Same::Within(&tolerance), &Algorithms::default(), &|own, target| {
            let tried = tried(own, target);
            assert!(!tried.is_empty(), "{own:?}");
            tried
        });
        assert!(tried >= 2 * targets().len());
    }
}

/// What no register file holds is not followed.
#[test]
fn a_schedule_that_does_not_fit_is_left_out() {
    let target = Target::x86_64_v3();
    let p = Problem::plain(16, 64, [6, 30]);
    let mut g = Graph::new("conv");
    let y = p.add(&mut g, p.op(), &[]).expect("a valid problem");
    g.add_output("out", y);
    let plan = Separate::plan(&g).expect("a graph that can be planned");
    let layer = |algorithms: &Algorithms| {
        let set = SetSource { graph: &g, plan: &plan };
        let program = lower_any_layout("conv", &[set], std::slice::from_ref(&target), algorithms).unwrap();
        program.sets[0].levels[0].steps[0].tunable.clone().expect("a direct convolution")
    };
    let own = layer(&Algorithms::default());
    for text in ["64x30 pass 1 rows 6 rows-first", "128x1 pass 1 rows 6 rows-first"] {
        let choices = [(own.signature.clone(), text.parse().unwrap())].into_iter().collect();
        assert_eq!(layer(&Algorithms::default().with_choices(choices)).now, own.now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn other_schedules_agree(p in problem(false)) {
        let (g, inputs) = p.graph();
        let tolerance = sum_tolerance(&g, &inputs, p.terms());
        check_choices(&g, &inputs, Same::Within(&tolerance), &Algorithms::default(), &tried);
    }

    #[test]
    fn strips_of_every_width_have_the_same_bits(
        (group, width) in (2usize..20, prop_oneof![3 => Just(1usize), 1 => Just(2), 1 => Just(4), 1 => Just(8)]),
        size in (1usize..9, 1usize..40),
        (kernel, stride) in (1usize..6, 1usize..3),
        pixels in 1usize..31,
    ) {
        let (kernel, pads, strides) = (vec![3, kernel], vec![1, kernel / 2, 1, kernel / 2], vec![1, stride]);
        let p = Problem { group, kernel, pads, strides, ..Problem::plain(width, width, [size.0, size.1]) };
        let (g, inputs) = p.graph();
        check_choices(&g, &inputs, Same::Bits, &Algorithms::default(), &|own, target| {
            let mut all = tried(own, target);
            all.push(Strip { pixels }.into());
            all
        });
    }
}

fn channels() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), Just(3), Just(7), Just(8), Just(9), Just(16), Just(17), Just(24), Just(32), Just(40)]
}

/// 1 to 3 spatial axes; whole blocks a group, or one group, or depthwise, or narrow groups, or anything.
fn problem(transposed: bool) -> impl Strategy<Value = Problem> {
    let groups = prop_oneof![
        4 => channels().prop_flat_map(|i| (Just(1usize), Just(i), channels())),
        2 => (2usize..4, Just(16usize), prop_oneof![Just(16usize), Just(32)]),
        2 => (2usize..35, Just(1usize), Just(1usize)),
        2 => (2usize..9, prop_oneof![Just(2usize), Just(4), Just(8)]).prop_map(|(group, width)| (group, width, width)),
        1 => (2usize..4, 1usize..5, 1usize..5),
    ];
    // Outputs of a transpose grow with the stride.
    let axis = (1usize..if transposed { 7 } else { 14 }, 1usize..4, 1usize..4, 1usize..3, 0usize..3, 0usize..3);
    let layout = || prop_oneof![3 => Just(Layout::Blocked), 1 => Just(Layout::RowMajor)];
    let axes = prop::collection::vec(axis, 1..4);
    (1usize..3, groups, axes, layout(), layout(), any::<bool>(), any::<bool>())
        .prop_map(move |(batch, (group, inputs, outputs), axes, from, to, bias, computed)| {
            type Axis = (usize, usize, usize, usize, usize, usize);
            let take = |f: fn(&Axis) -> usize| axes.iter().map(f).collect();
            let three = axes.len() == 3;
            let mut size: Vec<usize> = take(|a| a.0);
            if three {
                size[0] = size[0].min(3);
                size[1] = size[1].min(5);
            }
            let mut pads: Vec<usize> = take(|a| a.4);
            pads.extend(axes.iter().map(|a| a.5));
            Problem {
                batch,
                group,
                inputs,
                outputs,
                size,
                kernel: take(|a| a.1),
                strides: take(|a| a.2),
                dilations: take(|a| a.3),
                pads,
                layouts: [from, to],
                bias,
                transposed,
                computed,
            }
        })
        .prop_filter("no output", Problem::is_valid)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolutions_agree(p in problem(false)) {
        p.check();
    }

    #[test]
    fn transposed_convolutions_agree(p in problem(true)) {
        p.check();
    }
}

#[test]
fn rows_of_every_width() {
    for width in [1, 2, 5, 6, 7, 12, 13, 29] {
        Problem::plain(16, 16, [3, width]).check();
    }
}

#[test]
fn edge_blocks_on_both_sides() {
    for (inputs, outputs) in [(3, 8), (17, 24), (24, 40), (33, 17), (16, 72)] {
        Problem::plain(inputs, outputs, [4, 6]).check();
    }
}

#[test]
fn narrow_groups_of_many_blocks() {
    for (group, width) in [(8, 4), (5, 8), (19, 2), (3, 4)] {
        Problem { group, ..Problem::plain(width, width, [4, 17]) }.check();
    }
}

#[test]
fn first_layers_read_row_major() {
    let first = Problem { layouts: [Layout::RowMajor, Layout::Blocked], ..Problem::plain(3, 24, [11, 13]) };
    let large = Problem { kernel: vec![7, 7], strides: vec![2, 2], pads: vec![3; 4], ..first.clone() };
    first.check();
    large.check();
}

#[test]
fn single_pixels_of_planes_have_no_padding_lanes() {
    for (channels, transposed) in [(9, false), (9, true), (7, false), (18, false)] {
        let layouts = [Layout::RowMajor, Layout::Blocked];
        let p = Problem { kernel: vec![1, 1], pads: vec![0; 4], layouts, ..Problem::plain(channels, 1, [1, 1]) };
        Problem { transposed, ..p }.check();
    }
}

#[test]
fn pointwise_planes_are_flattened() {
    for size in [[1, 1], [7, 7], [5, 13], [1, 37]] {
        let p = Problem { kernel: vec![1, 1], pads: vec![0; 4], ..Problem::plain(40, 24, size) };
        p.check();
    }
}

#[test]
fn many_channels_take_several_passes() {
    // 9 taps * 16 channels * 64 bytes a panel and block: more than half of every L1 from 4 blocks on.
    Problem::plain(88, 32, [3, 4]).check();
}

#[test]
fn windows_wholly_in_the_padding() {
    let wide = Problem { pads: vec![4, 9, 5, 3], ..Problem::plain(16, 16, [2, 3]) };
    let dilated = Problem { dilations: vec![3, 4], pads: vec![5, 5, 5, 5], ..Problem::plain(16, 16, [3, 6]) };
    wide.check();
    dilated.check();
}

#[test]
fn computed_weights_are_packed() {
    let dense = Problem { computed: true, ..Problem::plain(17, 40, [5, 7]) };
    let gradient = Problem { transposed: true, bias: false, ..dense.clone() };
    let strided = Problem { strides: vec![2, 2], ..gradient.clone() };
    let first = Problem { layouts: [Layout::RowMajor, Layout::Blocked], ..Problem::plain(3, 24, [9, 9]) };
    let first = Problem { kernel: vec![7, 7], strides: vec![2, 2], pads: vec![3; 4], computed: true, ..first };
    let depthwise = Problem { group: 19, computed: true, ..Problem::plain(1, 1, [5, 9]) };
    let depthwise_gradient = Problem { transposed: true, strides: vec![2, 2], ..depthwise.clone() };
    let narrow = Problem { group: 5, computed: true, ..Problem::plain(4, 4, [5, 9]) };
    let narrow_gradient = Problem { transposed: true, ..narrow.clone() };
    for p in [dense, gradient, strided, first, depthwise, depthwise_gradient, narrow, narrow_gradient] {
        p.check();
    }
}

#[test]
fn phases_without_taps_are_written_along() {
    let pointwise =
        Problem { kernel: vec![1, 1], pads: vec![0; 4], transposed: true, ..Problem::plain(24, 40, [5, 7]) };
    for strides in [[2, 2], [1, 3], [4, 1]] {
        Problem { strides: strides.to_vec(), ..pointwise.clone() }.check();
    }
    let wide = Problem { kernel: vec![1, 2], strides: vec![3, 5], bias: false, ..pointwise.clone() };
    // The last row has no row behind it.
    let cropped = Problem { strides: vec![2, 2], pads: vec![0, 0, 1, 1], ..pointwise.clone() };
    let groups = Problem { group: 3, strides: vec![2, 2], inputs: 16, outputs: 16, ..pointwise.clone() };
    let narrow = Problem { group: 6, strides: vec![2, 2], inputs: 4, outputs: 4, ..pointwise };
    for p in [wide, cropped, groups, narrow] {
        p.check();
    }
}

#[test]
fn epilogues_run_on_sums() {
    check_epilogue(Problem { batch: 2, ..Problem::plain(16, 24, [5, 9]) }, [5, 9], false);
}

#[test]
fn epilogues_run_on_outputs_without_taps() {
    let p = Problem { batch: 2, kernel: vec![1, 1], pads: vec![0; 4], ..Problem::plain(16, 24, [3, 5]) };
    for is_long in [false, true] {
        check_epilogue(Problem { strides: vec![2, 3], transposed: true, ..p.clone() }, [6, 15], is_long);
    }
}

/// max(0, y * scale[c] + residual) - gate[n, c], or the sigmoid of that.
#[track_caller]
fn check_epilogue(p: Problem, size: [usize; 2], is_long: bool) {
    let program = Pointwise::build(&[DType::F32; 4], |b, x| {
        let scaled = b.binary(BinaryFn::Mul, x[0], x[1]);
        let sum = b.binary(BinaryFn::Add, scaled, x[2]);
        let relu = b.binary_const(BinaryFn::Max, sum, 0.0);
        let gated = b.binary(BinaryFn::Sub, relu, x[3]);
        if is_long { b.unary(UnaryFn::Sigmoid, gated) } else { gated }
    });
    let mut g = Graph::new("conv");
    let (batch, channels) = (p.batch, p.outputs);
    let dims = [batch, channels, size[0], size[1]];
    let scale = constant(&mut g, "scale", &tensor(5, &[channels, 1, 1]));
    let residual = g.add_input("r", nncc_ir::TensorType::fixed(DType::F32, &dims));
    g.set_layout(residual, Layout::Blocked);
    let gate = g.add_input("g", nncc_ir::TensorType::fixed(DType::F32, &[batch, channels, 1, 1]));
    g.set_layout(gate, Layout::Blocked);
    let fused = Fused { root: Some(Box::new(p.op())), program, root_operands: 3 };
    let y = p.add(&mut g, fused.into(), &[scale, residual, gate]).expect("a valid problem");
    g.add_output("out", y);
    let inputs = [tensor(7, &dims), tensor(8, &[batch, channels, 1, 1]), tensor(1, &p.dims()[0])];
    check(&g, &inputs, &sum_tolerance(&g, &inputs, 2 * p.terms()));
}
