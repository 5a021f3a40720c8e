//! A chain of operators as one convolution that pools in its tiles, as one step in bands of rows, or, where a template cannot,
//! one step behind the other; and how nodes become a chain.

use super::cx::{Call, Operand};
use super::{LowerCx, LowerError, conv, fused, lower_op, pool};
use crate::kernels::bands::{self, Bands, Layer};
use crate::kernels::epilogue::Extra;
use crate::kernels::window::Axis;
use crate::program::Arg;
use nncc_ir::ops::chain::{Chain, Link};
use nncc_ir::ops::conv::Conv;
use nncc_ir::{DType, Graph, Layout, NodeId, Op, Origin, TensorType, TypeError, ValueId};

/// The only user of a node's result, if it reads it as its own first operand: what may stand behind the node in a chain.
pub(super) fn next(g: &Graph, node: NodeId) -> Option<NodeId> {
    let y = g.results(node).next()?;
    let (user, 0) = g.sole_user(y)? else { return None };
    (g.value(y).layout == Layout::Blocked && g.ty(y).dtype == DType::F32).then_some(user)
}

/// Puts a chain in the place of nodes of which each is the only user of the one before: its node.
pub(super) fn replace(g: &mut Graph, nodes: &[NodeId]) -> Result<NodeId, TypeError> {
    let (mut links, mut counts, mut operands) = (Vec::new(), Vec::new(), Vec::new());
    for (i, &node) in nodes.iter().enumerate() {
        let own: Vec<Option<ValueId>> = g.operands(node).into_iter().skip(usize::from(i > 0)).collect();
        links.push(Link(g.op(node).clone()));
        counts.push(own.len());
        operands.extend(own);
    }
    let origin = Origin::merged(nodes.iter().map(|&n| &g.node(n).origin));
    let Some(&last) = nodes.last() else { return Err(TypeError("a chain of no operators".into())) };
    let old = ValueId { node: last, out: 0 };
    let (name, layout) = (g.value(old).name.to_string(), g.value(old).layout);
    let node = g.add(Chain { links, operands: counts }, &operands, origin, &[&name])?;
    let new = ValueId { node, out: 0 };
    g.set_layout(new, layout);
    g.replace_uses(old, new);
    for &node in nodes.iter().rev() {
        g.remove(node);
    }
    g.rename(new, &name);
    Ok(node)
}

/// Lowers a chain.
pub(super) fn lower(op: &Chain, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let operands = cx.operands().to_vec();
    let types: Vec<Option<TensorType>> = operands.iter().map(|o| o.as_ref().map(Operand::ty)).collect();
    let types: Vec<Option<&TensorType>> = types.iter().map(Option::as_ref).collect();
    let (Ok(types), Some(parts)) = (op.types(&types), op.split(&operands)) else {
        return Err(cx.internal("the operands of a chain do not fit it"));
    };
    let mut between = Vec::with_capacity(types.len());
    for ty in &types[..types.len() - 1] {
        let dims = ty.dims().ok_or_else(|| cx.internal("an unknown dimension"))?;
        between.push(Operand::passing(ty.dtype, &dims, Layout::Blocked));
    }
    if in_tiles(op, &parts, &between, cx)? || in_bands(op, &parts, &between, cx)? {
        return Ok(());
    }
    let mut x = None;
    for (i, (Link(link), own)) in op.links.iter().zip(parts).enumerate() {
        let y = match between.get(i) {
            Some(y) => cx.temporary(y.dtype, &y.dims, y.layout)?,
            None => cx.output(0),
        };
        let operands = x.into_iter().chain(own.iter().cloned()).collect();
        lower_op(link, &mut cx.nested(operands, vec![y.clone()]))?;
        x = Some(Some(y));
    }
    Ok(())
}

/// Appends a convolution and the pooling behind it as one, if a template computes both.
fn in_tiles(
    op: &Chain,
    parts: &[&[Option<Operand>]],
    between: &[Operand],
    cx: &mut LowerCx<'_, '_>,
) -> Result<bool, LowerError> {
    let ([Link(first), Link(second)], [own, _], [passing]) = (&op.links[..], parts, between) else { return Ok(false) };
    let y = cx.output(0);
    let Some(pooling) = pool::side_by_side(second, &passing.dims, &y.dims) else { return Ok(false) };
    match behind_conv(first, own, passing, cx)? {
        Some((conv, behind, own)) => {
            let mut nested = cx.nested(own, vec![passing.clone()]);
            conv::lower_pooled(conv, behind, pooling, &y, &mut nested)
        }
        None => Ok(false),
    }
}

/// A convolution, what is behind it up to its result `y`, and its own operands.
type ConvBehind<'o> = (&'o Conv, fused::Behind, Vec<Option<Operand>>);

/// An operator as a convolution with an epilogue, if it is one.
fn behind_conv<'o>(
    op: &'o Op,
    operands: &[Option<Operand>],
    y: &Operand,
    cx: &mut LowerCx<'_, '_>,
) -> Result<Option<ConvBehind<'o>>, LowerError> {
    match op {
        Op::Conv(conv) => Ok(Some((conv, fused::Behind::default(), operands.to_vec()))),
        Op::Fused(op) => {
            let Some(Op::Conv(root)) = op.root.as_deref() else { return Ok(None) };
            let Some((own, extra)) = operands.split_at_checked(op.root_operands) else { return Ok(None) };
            let extra: Vec<Operand> = extra.iter().flatten().cloned().collect();
            let behind = fused::behind_conv(cx, &op.program, &extra, y)?;
            Ok(behind.map(|behind| (root, behind, own.to_vec())))
        }
        _ => Ok(None),
    }
}

/// Appends the step in bands, if all operators can be layers of one.
fn in_bands(
    op: &Chain,
    parts: &[&[Option<Operand>]],
    between: &[Operand],
    cx: &mut LowerCx<'_, '_>,
) -> Result<bool, LowerError> {
    let output = cx.output(0);
    let mut args = vec![cx.arg(&cx.input(0)?)?];
    let mut layers = Vec::with_capacity(parts.len());
    let mut in_place = false;
    for (i, (Link(link), own)) in op.links.iter().zip(parts).enumerate() {
        let y = between.get(i).unwrap_or(&output);
        let before = i.checked_sub(1).map(|i| Some(between[i].clone()));
        let operands = before.into_iter().chain(own.iter().cloned()).collect();
        let Some((layer, further)) = layer(link, &mut cx.nested(operands, vec![y.clone()]))? else { return Ok(false) };
        // An operand of the output's shape is read where the output is written: a band lies elsewhere.
        if i < between.len() && reads_output(&layer) || layer.axes()[0] != Axis::UNIT {
            return Ok(false);
        }
        in_place = further.iter().any(|&arg| Some(arg) == y.memory());
        layers.push(layer);
        args.extend(further);
    }
    let signature = bands::signature(cx.target(), &layers, in_place);
    let bands = Bands::new(cx.target(), &layers, cx.chosen(&signature), in_place);
    if !bands.is_small() {
        return Ok(false);
    }
    args.push(cx.arg(&output)?);
    cx.scratch(bands.scratch());
    let kernel = cx.kernel(bands.kernel());
    let tunable = bands::tunable(signature, &layers, &bands, in_place);
    cx.step(Call::new(kernel, &args, bands.tasks()).labelled("bands").tunable(tunable));
    Ok(true)
}

/// An operator as a layer, with its operands between input and output.
fn layer(op: &Op, cx: &mut LowerCx<'_, '_>) -> Result<Option<(Layer, Vec<Arg>)>, LowerError> {
    match op {
        Op::MaxPool(op) => pool::max_layer(op, cx),
        Op::AveragePool(op) => pool::average_layer(op, cx),
        _ => {
            let (operands, y) = (cx.operands().to_vec(), cx.output(0));
            match behind_conv(op, &operands, &y, cx)? {
                Some((conv, behind, own)) => conv::layer(conv, behind, &mut cx.nested(own, vec![y])),
                None => Ok(None),
            }
        }
    }
}

fn reads_output(layer: &Layer) -> bool {
    match layer {
        Layer::Direct(conv) | Layer::Depthwise(conv) => conv.epilogue.extras.contains(&Extra::Same),
        Layer::Pool(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::kernels::bands::BandRows;
    use crate::lower::{Algorithms, Separate, SetSource, lower_any_layout};
    use crate::target::Target;
    use crate::testing::{Same, check, check_choices, constant, sum_tolerance, tensor, tried};
    use crate::tunable::Choice;
    use nncc_ir::ops::chain::{Chain, Link};
    use nncc_ir::ops::conv::Conv;
    use nncc_ir::ops::fused::Fused;
    use nncc_ir::ops::pool::{AveragePool, MaxPool};
    use nncc_ir::pointwise::BinaryFn;
    use nncc_ir::{DType, Graph, Layout, Op, Origin, Pointwise, Tensor, TensorType, ValueId};
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Kind {
        /// To so many channels.
        Dense(usize),
        Depthwise,
        Max,
        /// Is padding counted?
        Mean(bool),
    }

    /// A window, and what is computed of it. Axes: kernel, stride, dilation, begin, end.
    #[derive(Clone, Copy, Debug)]
    struct Part {
        kind: Kind,
        axes: [[usize; 5]; 2],
        /// Is the result made positive in the same kernel?
        relu: bool,
    }

    #[derive(Clone, Debug)]
    struct Problem {
        batch: usize,
        channels: usize,
        size: [usize; 2],
        parts: Vec<Part>,
        source: Layout,
        /// Is something of the output's shape added to it?
        residual: bool,
    }

    const fn window(kernel: usize, stride: usize, pad: usize) -> [[usize; 5]; 2] {
        [[kernel, stride, 1, pad, pad]; 2]
    }

    impl Part {
        fn of(&self, i: usize) -> Vec<usize> {
            self.axes.iter().map(|a| a[i]).collect()
        }

        /// The operator for so many channels, and the extents of its weights.
        fn op(&self, channels: usize) -> (Op, Option<Vec<usize>>) {
            let (kernel, strides, dilations) = (self.of(0), self.of(1), self.of(2));
            let pads = [self.of(3), self.of(4)].concat();
            match self.kind {
                Kind::Max => {
                    let (ceil_mode, indices, storage_order) = (false, false, 0);
                    (MaxPool { kernel, strides, dilations, pads, ceil_mode, indices, storage_order }.into(), None)
                }
                Kind::Mean(count_include_pad) => {
                    let ceil_mode = false;
                    (AveragePool { kernel, strides, dilations, pads, ceil_mode, count_include_pad }.into(), None)
                }
                Kind::Dense(outputs) => {
                    let weights = [vec![outputs, channels], kernel].concat();
                    (Conv { strides, dilations, pads, group: 1 }.into(), Some(weights))
                }
                Kind::Depthwise => {
                    let weights = [vec![channels, 1], kernel].concat();
                    (Conv { strides, dilations, pads, group: channels }.into(), Some(weights))
                }
            }
        }
    }

    impl Problem {
        /// The graph and its inputs, unless a window does not fit.
        fn graph(&self) -> Option<(Graph, Vec<Tensor>)> {
            let mut g = Graph::new("chain");
            let mut inputs = vec![tensor(1, &[self.batch, self.channels, self.size[0], self.size[1]])];
            let x = g.add_input("x", inputs[0].ty());
            g.set_layout(x, self.source);
            let (mut links, mut counts, mut operands) = (Vec::new(), Vec::new(), vec![Some(x)]);
            let (mut ty, mut shapes) = (inputs[0].ty(), Vec::new());
            for (i, part) in self.parts.iter().enumerate() {
                let channels = ty.dims()?[1];
                let (op, weights) = part.op(channels);
                let mut own = Vec::new();
                let mut types: Vec<TensorType> = vec![ty.clone()];
                if let Some(weights) = weights {
                    let (w, b) = (tensor(10 + i as u64, &weights), tensor(20 + i as u64, &weights[..1]));
                    types.extend([w.ty(), b.ty()]);
                    own.extend([constant(&mut g, &format!("w{i}"), &w), constant(&mut g, &format!("b{i}"), &b)]);
                }
                let given: Vec<Option<&TensorType>> = types.iter().map(Some).collect();
                ty = op.infer(&given).ok()?.pop()?;
                shapes.push(ty.dims()?);
                let residual = self.residual && i + 1 == self.parts.len();
                let op = match (matches!(op, Op::Conv(_)), residual, part.relu) {
                    (true, true, _) => {
                        inputs.push(tensor(5, &ty.dims()?));
                        let r = g.add_input("r", ty.clone());
                        g.set_layout(r, Layout::Blocked);
                        own.push(r);
                        let sum = Pointwise::build(&[DType::F32; 2], |p, x| p.binary(BinaryFn::Add, x[0], x[1]));
                        Fused { root: Some(Box::new(op)), program: sum, root_operands: 3 }.into()
                    }
                    (true, false, true) => {
                        let relu = Pointwise::build(&[DType::F32], |p, x| p.binary_const(BinaryFn::Max, x[0], 0.0));
                        Fused { root: Some(Box::new(op)), program: relu, root_operands: 3 }.into()
                    }
                    _ => op,
                };
                links.push(Link(op));
                counts.push(own.len() + usize::from(i == 0));
                operands.extend(own.into_iter().map(Some));
            }
            if shapes.iter().flatten().any(|&n| n == 0) {
                return None;
            }
            let node = g.add(Chain { links, operands: counts }, &operands, Origin::named("chain"), &["y"]).ok()?;
            let y = ValueId { node, out: 0 };
            g.set_layout(y, Layout::Blocked);
            g.add_output("out", y);
            Some((g, inputs))
        }

        /// Products and sums in the longest way through the parts.
        fn terms(&self) -> usize {
            let taps = |p: &Part| p.axes.iter().map(|a| a[0]).product::<usize>() + 2;
            self.parts.iter().map(|p| taps(p) * 48).sum()
        }

        #[track_caller]
        fn check(&self) {
            let (g, inputs) = self.graph().expect("a valid problem");
            check(&g, &inputs, &sum_tolerance(&g, &inputs, self.terms()));
        }

        /// Kinds of steps on AVX2.
        fn steps(&self) -> Vec<String> {
            let (g, _) = self.graph().expect("a valid problem");
            let plan = Separate::plan(&g).expect("a graph that can be planned");
            let set = SetSource { graph: &g, plan: &plan };
            let program = lower_any_layout("chain", &[set], &[Target::x86_64_v3()], &Algorithms::default());
            program.expect("it lowers").sets[0].levels[0].steps.iter().map(|step| step.op.clone()).collect()
        }
    }

    fn problem() -> impl Strategy<Value = Problem> {
        let kind = prop_oneof![
            3 => prop_oneof![Just(8usize), Just(16), Just(24), Just(37)].prop_map(Kind::Dense),
            3 => Just(Kind::Depthwise),
            1 => Just(Kind::Max),
            1 => any::<bool>().prop_map(Kind::Mean),
        ];
        let axis = (1usize..4, 1usize..5, 1usize..3, 0usize..3, 0usize..3);
        let axis = axis.prop_map(|(k, s, d, begin, end)| [k, s, d, begin, end]);
        let part = (kind, axis.clone(), axis, any::<bool>());
        let part = part.prop_map(|(kind, height, width, relu)| Part { kind, axes: [height, width], relu });
        let layout = prop_oneof![3 => Just(Layout::Blocked), 1 => Just(Layout::RowMajor)];
        let channels = prop_oneof![Just(3usize), Just(8), Just(16), Just(24), Just(33)];
        let size = (1usize..24, 1usize..12).prop_map(|(h, w)| [h, w]);
        (1usize..3, channels, size, prop::collection::vec(part, 2..4), layout, any::<bool>())
            .prop_map(|(batch, channels, size, parts, source, residual)| Problem {
                batch,
                channels,
                size,
                parts,
                source,
                residual,
            })
            .prop_filter("a window does not fit", |p| p.graph().is_some())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn chains_agree(p in problem()) {
            p.check();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn bands_of_every_height_have_the_same_bits(p in problem(), rows in 1usize..24) {
            let (g, inputs) = p.graph().expect("a valid problem");
            check_choices(&g, &inputs, Same::Bits, &Algorithms::default(), &|own, target| match own.now {
                Choice::Bands(_) => [tried(own, target), vec![BandRows { rows }.into()]].concat(),
                _ => Vec::new(),
            });
        }
    }

    fn blocked(channels: usize, size: [usize; 2], parts: &[Part]) -> Problem {
        let (batch, source, residual) = (1, Layout::Blocked, false);
        Problem { batch, channels, size, parts: parts.to_vec(), source, residual }
    }

    #[test]
    fn inverted_bottlenecks_are_one_step() {
        let expand = Part { kind: Kind::Dense(40), axes: window(1, 1, 0), relu: true };
        let project = Part { kind: Kind::Dense(24), axes: window(1, 1, 0), relu: false };
        for stride in [1, 2] {
            let depthwise = Part { kind: Kind::Depthwise, axes: window(3, stride, 1), relu: true };
            let p = blocked(24, [19, 9], &[expand, depthwise, project]);
            assert_eq!(p.steps(), ["bands"]);
            p.check();
            Problem { residual: true, batch: 2, ..p }.check();
        }
    }

    #[test]
    fn other_bands_are_followed() {
        let expand = Part { kind: Kind::Dense(40), axes: window(1, 1, 0), relu: true };
        let depthwise = Part { kind: Kind::Depthwise, axes: window(3, 1, 1), relu: true };
        let p =
            Problem { residual: true, ..blocked(24, [37, 9], &[expand, depthwise, Part { relu: false, ..expand }]) };
        let (g, inputs) = p.graph().expect("a valid problem");
        let followed = check_choices(&g, &inputs, Same::Bits, &Algorithms::default(), &tried);
        assert!(followed >= 4, "{followed}");
    }

    #[test]
    fn stems_are_one_step() {
        for kind in [Kind::Max, Kind::Mean(false), Kind::Mean(true)] {
            let stem = Part { kind: Kind::Dense(16), axes: window(7, 2, 3), relu: true };
            let pool = Part { kind, axes: window(3, 2, 1), relu: false };
            let p = Problem { source: Layout::RowMajor, ..blocked(3, [37, 22], &[stem, pool]) };
            assert_eq!(p.steps(), ["bands"]);
            p.check();
        }
    }

    #[test]
    fn rows_that_only_see_padding() {
        let wide = |kind| Part { kind, axes: [[2, 3, 2, 5, 4], [2, 1, 1, 1, 1]], relu: false };
        blocked(16, [2, 5], &[wide(Kind::Depthwise), wide(Kind::Dense(16)), wide(Kind::Depthwise)]).check();
        let sparse = Part { kind: Kind::Depthwise, axes: window(1, 4, 0), relu: false };
        blocked(16, [17, 9], &[wide(Kind::Dense(24)), sparse]).check();
    }

    #[test]
    fn sums_of_several_passes() {
        // 24 blocks of 64 bytes times 16 channels and some panels: more than half of every L1.
        let reduce = Part { kind: Kind::Dense(48), axes: window(1, 1, 0), relu: true };
        let depthwise = Part { kind: Kind::Depthwise, axes: window(3, 1, 1), relu: false };
        let p = blocked(384, [10, 7], &[reduce, depthwise]);
        p.check();
        let expand = Part { kind: Kind::Dense(384), axes: window(1, 1, 0), relu: true };
        Problem { residual: true, ..blocked(8, [10, 7], &[expand, depthwise, reduce]) }.check();
    }

    /// What no layer of bands is: groups of an odd width.
    #[test]
    fn others_are_computed_one_behind_the_other() {
        let depthwise = Part { kind: Kind::Depthwise, axes: window(3, 1, 1), relu: true };
        let max = Part { kind: Kind::Max, axes: window(2, 2, 0), relu: false };
        let p = Problem { source: Layout::RowMajor, ..blocked(3, [9, 8], &[depthwise, max]) };
        assert_eq!(p.steps().len(), 2);
        p.check();
    }
}
