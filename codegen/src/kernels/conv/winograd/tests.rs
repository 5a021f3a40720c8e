//! Winograd convolutions of awkward shapes, by themselves and with a pooling in their tiles, on all targets, against the
//! reference evaluator.

use super::cost::{Size, Walk, walk};
use super::transform::Minimal;
use crate::lower::{Algorithms, Separate, SetSource, lower_any_layout};
use crate::target::Target;
use crate::testing::{Same, Tolerance, check_choices, check_with, constant, sum_tolerance, targets, tensor, tried};
use crate::tunable::Choice;
use nncc_ir::ops::chain::{Chain, Link};
use nncc_ir::ops::conv::Conv;
use nncc_ir::ops::fused::Fused;
use nncc_ir::ops::pool::{AveragePool, MaxPool};
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::{DType, Graph, Layout, Op, Operands, Origin, Pointwise, Tensor, TensorType, ValueId};
use proptest::prelude::*;

/// A 3x3 convolution with stride 1; pads are top, left, bottom, right.
#[derive(Clone, Debug)]
struct Problem {
    minimal: Minimal,
    batch: usize,
    inputs: usize,
    outputs: usize,
    size: [usize; 2],
    pads: [usize; 4],
    bias: bool,
}

impl Problem {
    fn op(&self) -> Op {
        Conv { strides: vec![1, 1], dilations: vec![1, 1], pads: self.pads.to_vec(), group: 1 }.into()
    }

    fn output(&self) -> [usize; 4] {
        let extent = |i: usize| self.size[i] + self.pads[i] + self.pads[i + 2] - 2;
        [self.batch, self.outputs, extent(0), extent(1)]
    }

    fn input(&self) -> [usize; 4] {
        [self.batch, self.inputs, self.size[0], self.size[1]]
    }

    /// The convolution, with a residual added to it and a ReLU if `residual`.
    #[track_caller]
    fn check(&self, residual: bool) {
        let (mut g, op, operands, inputs) = self.graph(residual);
        let y = add_blocked(&mut g, op, &operands);
        g.add_output("out", y);
        self.check_within(&g, &inputs, &self.tolerance(&g, &inputs));
    }

    /// The same with a pooling behind it: in the tiles, and by itself as well, which must not make a difference.
    #[track_caller]
    fn check_pooled(&self, residual: bool, pooling: &Op) {
        let (mut g, op, operands, inputs) = self.graph(residual);
        let chain = pooled(&op, pooling, &operands);
        let together = add_blocked(&mut g, chain, &operands);
        g.add_output("out", together);
        assert!(self.steps(&g).iter().all(|step| step.starts_with("winograd")), "{:?}", self.steps(&g));
        let between = add_blocked(&mut g, op, &operands);
        let apart = add_blocked(&mut g, pooling.clone(), &Operands::from_iter([Some(between)]));
        let difference = add_blocked(&mut g, sub(), &Operands::from_iter([Some(together), Some(apart)]));
        g.add_output("difference", difference);
        let Tolerance::Bounds(mut bounds) = self.tolerance(&g, &inputs) else { panic!("sums have bounds") };
        bounds[1].fill(0.0);
        self.check_within(&g, &inputs, &Tolerance::Bounds(bounds));
    }

    /// Kinds of steps on AVX-512.
    fn steps(&self, g: &Graph) -> Vec<String> {
        let plan = Separate::plan(g).expect("a graph that can be planned");
        let set = SetSource { graph: g, plan: &plan };
        let algorithms = Algorithms::forced(self.minimal);
        let program = lower_any_layout("conv", &[set], &[Target::x86_64_v4()], &algorithms).expect("it lowers");
        program.sets[0].levels[0].steps.iter().map(|step| step.op.clone()).collect()
    }

    fn tolerance(&self, g: &Graph, inputs: &[Tensor]) -> Tolerance {
        // What the transforms amplify, far below what a wrong index would do.
        let amplified = match self.minimal {
            Minimal::F2 => 4,
            Minimal::F4 => 16,
            Minimal::F6 => 64,
        };
        sum_tolerance(g, inputs, amplified * 9 * self.inputs)
    }

    #[track_caller]
    fn check_within(&self, g: &Graph, inputs: &[Tensor], tolerance: &Tolerance) {
        check_with(g, inputs, tolerance, &targets(), &Algorithms::forced(self.minimal));
    }

    /// A graph with the operands of the convolution; it, its operands and the graph's inputs.
    fn graph(&self, residual: bool) -> (Graph, Op, Operands, Vec<Tensor>) {
        let mut g = Graph::new("conv");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &self.input()));
        g.set_layout(x, Layout::Blocked);
        let w = constant(&mut g, "w", &tensor(2, &[self.outputs, self.inputs, 3, 3]));
        let bias = self.bias.then(|| constant(&mut g, "b", &tensor(3, &[self.outputs])));
        let mut operands = Operands::from_iter([Some(x), Some(w), bias]);
        let mut inputs = vec![tensor(1, &self.input())];
        let mut op = self.op();
        if residual {
            let r = g.add_input("r", TensorType::fixed(DType::F32, &self.output()));
            g.set_layout(r, Layout::Blocked);
            operands.push(Some(r));
            inputs.push(tensor(4, &self.output()));
            let program = Pointwise::build(&[DType::F32; 2], |b, x| {
                let sum = b.binary(BinaryFn::Add, x[0], x[1]);
                b.binary_const(BinaryFn::Max, sum, 0.0)
            });
            op = Fused { root: Some(Box::new(op)), program, root_operands: 3 }.into();
        }
        (g, op, operands, inputs)
    }

    fn plain(minimal: Minimal, channels: [usize; 2], size: [usize; 2]) -> Problem {
        let [inputs, outputs] = channels;
        Problem { minimal, batch: 1, inputs, outputs, size, pads: [1; 4], bias: true }
    }
}

/// A node with one result in channel blocks.
fn add_blocked(g: &mut Graph, op: impl Into<Op>, operands: &Operands) -> ValueId {
    let node = g.add(op, operands, Origin::named("node"), &[]).expect("a valid problem");
    let y = ValueId { node, out: 0 };
    g.set_layout(y, Layout::Blocked);
    y
}

fn sub() -> Op {
    let program = Pointwise::build(&[DType::F32; 2], |b, x| b.binary(BinaryFn::Sub, x[0], x[1]));
    Fused { root: None, program, root_operands: 0 }.into()
}

/// A pooling of windows that lie side by side, a maximum or a mean.
fn pooling(is_max: bool, window: [usize; 2]) -> Op {
    let (kernel, strides, dilations, pads, ceil_mode) =
        (window.to_vec(), window.to_vec(), vec![1; 2], vec![0; 4], false);
    match is_max {
        true => MaxPool { kernel, strides, dilations, pads, ceil_mode, indices: false, storage_order: 0 }.into(),
        false => AveragePool { kernel, strides, dilations, pads, ceil_mode, count_include_pad: false }.into(),
    }
}

/// A convolution and a pooling behind it as one node.
fn pooled(conv: &Op, pooling: &Op, operands: &Operands) -> Chain {
    Chain { links: vec![Link(conv.clone()), Link(pooling.clone())], operands: vec![operands.len(), 0] }
}

/// The windows that a tile of outputs holds.
fn windows(minimal: Minimal) -> Vec<[usize; 2]> {
    let m = minimal.outputs();
    let all = (1..=m).flat_map(|h| (1..=m).map(move |w| [h, w]));
    all.filter(|&window| minimal.holds(window)).collect()
}

fn problem() -> impl Strategy<Value = Problem> {
    let channels = || prop_oneof![Just(16usize), Just(32), Just(48)];
    let size = (1usize..15, 1usize..15);
    let pads = prop::array::uniform4(0usize..3);
    (prop::sample::select(&Minimal::ALL[..]), 1usize..3, channels(), channels(), size, pads, any::<bool>())
        .prop_map(|(minimal, batch, inputs, outputs, (h, w), pads, bias)| Problem {
            minimal,
            batch,
            inputs,
            outputs,
            size: [h, w],
            pads,
            bias,
        })
        .prop_filter("no output", |p| (0..2).all(|i| p.size[i] + p.pads[i] + p.pads[i + 2] > 2))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn winograd_agrees(p in problem(), residual in any::<bool>()) {
        p.check(residual);
    }

    #[test]
    fn every_walk_agrees(p in problem(), residual in any::<bool>(), tiles in 1usize..12) {
        let (mut g, op, operands, inputs) = p.graph(residual);
        let y = add_blocked(&mut g, op, &operands);
        g.add_output("out", y);
        let tolerance = p.tolerance(&g, &inputs);
        check_choices(&g, &inputs, Same::Within(&tolerance), &Algorithms::forced(p.minimal), &|own, target| {
            let walks = [Walk::Blocked { tiles }, Walk::Grouped { tiles }, Walk::Staged];
            match own.now {
                Choice::Winograd(_) => [tried(own, target), walks.map(Choice::Winograd).to_vec()].concat(),
                _ => Vec::new(),
            }
        });
    }

    #[test]
    fn pooling_in_tiles_agrees(
        p in problem(),
        residual in any::<bool>(),
        is_max in any::<bool>(),
        window in any::<prop::sample::Index>(),
    ) {
        let window = *window.get(&windows(p.minimal));
        let [_, _, height, width] = p.output();
        prop_assume!(window[0] <= height && window[1] <= width);
        p.check_pooled(residual, &pooling(is_max, window));
    }
}

#[test]
fn planes_around_multiples_of_the_tile() {
    for minimal in Minimal::ALL {
        let m = minimal.outputs();
        for size in [[m, m], [m + 1, 2 * m - 1], [2 * m + 1, m]] {
            Problem::plain(minimal, [16, 32], size).check(false);
        }
    }
}

/// The last row and column are of no window, and of no tile if it would hold nothing else.
#[test]
fn pooled_planes_around_multiples_of_the_tile() {
    for minimal in Minimal::ALL {
        let m = minimal.outputs();
        for size in [[m, m], [m + 1, 2 * m - 1], [2 * m + 1, m + 3]] {
            Problem::plain(minimal, [16, 32], size).check_pooled(false, &pooling(true, [2, 2]));
        }
    }
}

#[test]
fn a_tile_that_does_not_hold_the_window_leaves_the_pooling_to_a_step() {
    let p = Problem::plain(Minimal::F4, [16, 16], [9, 9]);
    let (mut g, op, operands, inputs) = p.graph(false);
    let chain = pooled(&op, &pooling(true, [3, 3]), &operands);
    let y = add_blocked(&mut g, chain, &operands);
    g.add_output("out", y);
    assert_eq!(p.steps(&g).len(), 2, "{:?}", p.steps(&g));
    p.check_within(&g, &inputs, &p.tolerance(&g, &inputs));
}

/// Walks that a tuner tries are followed: what they are called is what the template makes of them.
#[test]
fn other_walks_are_followed() {
    let p = Problem { batch: 2, ..Problem::plain(Minimal::F4, [48, 32], [37, 30]) };
    let (mut g, op, operands, inputs) = p.graph(true);
    let pooled = pooled(&op, &pooling(true, [2, 2]), &operands);
    let y = add_blocked(&mut g, pooled, &operands);
    g.add_output("out", y);
    let tolerance = p.tolerance(&g, &inputs);
    let expected = std::cell::Cell::new(0);
    let followed =
        check_choices(&g, &inputs, Same::Within(&tolerance), &Algorithms::forced(p.minimal), &|own, target| {
            let tried = tried(own, target);
            expected.set(expected.get() + tried.len());
            tried
        });
    assert!(followed == expected.get() && followed >= 8, "{followed} of {}", expected.get());
}

#[test]
fn many_tiles_take_several_blocks() {
    // V and M of a tile are 36 * 4 * (160 + 16) bytes: L2 of the smallest target holds 7 of the 36 tiles.
    let p = Problem::plain(Minimal::F4, [160, 16], [23, 23]);
    p.check(true);
    p.check_pooled(true, &pooling(true, [2, 2]));
}

#[test]
fn many_channels_go_in_stages() {
    // U is 36 * 4 * 160 * 96 bytes, more than V and M of all tiles.
    let p = Problem { batch: 2, ..Problem::plain(Minimal::F4, [160, 96], [9, 13]) };
    p.check(true);
    p.check_pooled(true, &pooling(false, [2, 2]));
}

#[test]
fn few_tiles_of_many_channels_go_in_groups() {
    // U, 36 * 4 * 48 * 144 bytes, is too much to be read once a block, and V and M of all 56 tiles too much for L2; V alone and
    // U of a group of panels fit.
    let minimal = Minimal::F4;
    let target = crate::target::Target::x86_64_v4();
    let size = Size { batch: 1, inputs: 48, outputs: 144, plane: [26, 30] };
    assert!(matches!(walk(&target, &size, minimal), Walk::Grouped { .. }), "{:?}", walk(&target, &size, minimal));
    for batch in [1, 2] {
        let problem = Problem { batch, ..Problem::plain(minimal, [48, 144], [26, 30]) };
        problem.check(true);
    }
    Problem::plain(minimal, [48, 144], [26, 30]).check_pooled(false, &pooling(true, [2, 4]));
}
