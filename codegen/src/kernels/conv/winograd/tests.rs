//! Winograd convolutions of awkward shapes, on all targets, against the reference evaluator.

use super::cost::{Size, Walk, walk};
use super::transform::Minimal;
use crate::lower::Algorithms;
use crate::testing::{check_with, constant, sum_tolerance, targets, tensor};
use nncc_ir::ops::conv::Conv;
use nncc_ir::ops::fused::Fused;
use nncc_ir::pointwise::BinaryFn;
use nncc_ir::{DType, Graph, Layout, Op, Origin, Pointwise, TensorType, ValueId};
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
        let mut g = Graph::new("conv");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &self.input()));
        g.set_layout(x, Layout::Blocked);
        let w = constant(&mut g, "w", &tensor(2, &[self.outputs, self.inputs, 3, 3]));
        let bias = self.bias.then(|| constant(&mut g, "b", &tensor(3, &[self.outputs])));
        let mut operands = vec![Some(x), Some(w), bias];
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
        let node = g.add(op, &operands, Origin::named("conv"), &["y"]).expect("a valid problem");
        let y = ValueId { node, out: 0 };
        g.set_layout(y, Layout::Blocked);
        g.add_output("out", y);
        // What the transforms amplify, far below what a wrong index would do.
        let amplified = match self.minimal {
            Minimal::F2 => 4,
            Minimal::F4 => 16,
            Minimal::F6 => 64,
        };
        let tolerance = sum_tolerance(&g, &inputs, amplified * 9 * self.inputs);
        check_with(&g, &inputs, &tolerance, &targets(), &Algorithms::forced(self.minimal));
    }

    fn plain(minimal: Minimal, channels: [usize; 2], size: [usize; 2]) -> Problem {
        let [inputs, outputs] = channels;
        Problem { minimal, batch: 1, inputs, outputs, size, pads: [1; 4], bias: true }
    }
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

#[test]
fn many_tiles_take_several_blocks() {
    // V and M of a tile are 36 * 4 * (160 + 16) bytes: L2 of the smallest target holds 7 of the 36 tiles.
    Problem::plain(Minimal::F4, [160, 16], [23, 23]).check(true);
}

#[test]
fn many_channels_go_in_stages() {
    // U is 36 * 4 * 160 * 96 bytes, more than V and M of all tiles.
    Problem { batch: 2, ..Problem::plain(Minimal::F4, [160, 96], [9, 13]) }.check(true);
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
}
