//! Whole networks: what the passes must make of each, on the files that `tools/networks.py target/networks` writes.
//!
//! Without that folder there is nothing to test here; continuous integration writes it first. The numbers are what the
//! architectures allow, counted by hand: a change that makes them worse is a lost fusion or a needless copy.

use nncc_frontend::ImportOptions;
use nncc_ir::ops::reduce::{Reduce, ReduceKind};
use nncc_ir::{Graph, Op, ValueId, differentiate};
use nncc_passes::{MemoryPlan, Options, PassCx, optimize, plan_memory};
use std::path::Path;

/// The network as it is imported; `None` if its file is not there.
fn imported(name: &str) -> Option<Graph> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/networks").join(format!("{name}.onnx"));
    if !file.exists() {
        eprintln!("{} is not there: tools/networks.py target/networks writes it", file.display());
        return None;
    }
    Some(nncc_frontend::import(&file, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}")).graph)
}

/// The network, optimized and planned.
fn compiled(name: &str) -> Option<(Graph, MemoryPlan)> {
    let mut g = imported(name)?;
    let mut cx = PassCx::new(Options { verify: true, ..Options::default() });
    optimize(&mut g, &mut cx).unwrap_or_else(|e| panic!("{name}: {e}"));
    let plan = plan_memory(&g, &mut cx).unwrap_or_else(|e| panic!("{name}: {e}"));
    Some((g, plan))
}

/// Elementwise operators that are nodes of their own, and relayouts that copy.
fn left_over(g: &Graph, plan: &MemoryPlan) -> (usize, usize) {
    let elementwise = g.node_ids().filter(|n| {
        let operands = g.operands(*n);
        let types: Vec<_> = operands.iter().flatten().map(|v| g.ty(*v)).collect();
        g.op(*n).pointwise(&types).is_some()
    });
    let relayouts = g.node_ids().filter(|n| matches!(g.op(*n), Op::Relayout(_)) && !plan.elided.contains(n));
    (elementwise.count(), relayouts.count())
}

#[test]
fn networks_are_fused_laid_out_and_planned() {
    // The most elementwise nodes, the most relayouts that copy. Plain chains: none, and one before a flattened classifier.
    // SE-ResNet: the gate, the residual and the ReLU of 16 blocks. DenseNet: BatchNorm and ReLU behind 62 Concats.
    // EfficientNet: the gate of 16 blocks. ShuffleNet: two halves of a shuffled map in 16 units, and the edges.
    let expected = [
        ("lenet5", 0, 1),
        ("alexnet", 0, 1),
        ("vgg16", 0, 1),
        ("googlenet", 0, 0),
        ("inception_v3", 0, 0),
        ("resnet18", 0, 0),
        ("resnet50", 0, 0),
        ("seresnet50", 16, 0),
        ("densenet121", 62, 0),
        ("squeezenet1_1", 0, 0),
        ("mobilenet_v2", 0, 0),
        ("efficientnet_b0", 16, 0),
        ("shufflenet_v2_x1_0", 0, 35),
        ("unet256", 0, 1),
        ("vit_b_16", 1, 1),
        ("bert_mini", 0, 0),
    ];
    for (name, elementwise, relayouts) in expected {
        let Some((g, plan)) = compiled(name) else { continue };
        let (e, r) = left_over(&g, &plan);
        assert!(e <= elementwise, "{name}: {e} elementwise nodes, {elementwise} expected");
        assert!(r <= relayouts, "{name}: {r} relayouts, {relayouts} expected");
        let (ratio, arena, bound) = (plan.ratio(), plan.arena_bytes, plan.bound_bytes);
        assert!(ratio <= 1.1, "{name}: the arena has {arena} bytes, {ratio} of the bound {bound}");
        assert_eq!(count(&g, |op| matches!(op, Op::BatchNorm(_))), 0, "{name}: BatchNorms are left");
    }
}

#[test]
fn transformers_have_one_node_for_the_attention_of_a_layer() {
    for (name, layers) in [("vit_b_16", 12), ("bert_mini", 4)] {
        let Some((g, _)) = compiled(name) else { continue };
        assert_eq!(count(&g, |op| matches!(op, Op::Attention(_))), layers, "{name}");
        assert_eq!(count(&g, |op| matches!(op, Op::Softmax(_))), 0, "{name}: a softmax is left");
        // Of ViT, the patches to tokens; heads are never moved.
        let moves = usize::from(name == "vit_b_16");
        assert_eq!(count(&g, |op| matches!(op, Op::Transpose(_))), moves, "{name}: transposes");
    }
}

/// With weights as inputs, as training has them, and the sum of the first result as the loss: every convolution and product
/// gets the gradients of its weights, and what the optimizer makes of the whole is sound and can be planned.
#[test]
fn networks_are_differentiated() {
    for name in ["lenet5", "googlenet", "resnet18", "densenet121", "efficientnet_b0", "unet256", "bert_mini"] {
        let Some(mut g) = imported(name) else { continue };
        let is_weight = |g: &Graph, v: ValueId| {
            let constant = g.constant(v);
            constant.is_some_and(|c| c.dtype().is_float() && !c.dims().is_empty() && c.elems() > 1)
        };
        let constants: Vec<ValueId> = g.node_ids().flat_map(|n| g.results(n)).filter(|v| is_weight(&g, *v)).collect();
        let mut weights = Vec::new();
        for v in constants {
            let (name, ty) = (g.value(v).name.clone(), g.ty(v).clone());
            let input = g.add_input(&name, ty);
            g.replace_uses(v, input);
            weights.push(input);
        }
        let y = g.outputs()[0].1;
        let all = Reduce { kind: ReduceKind::Sum, axes: (0..g.ty(y).rank()).collect(), keepdims: false };
        let loss = g.add1(all, &[y], Default::default(), "loss").unwrap();
        let (convolutions, nodes) = (count(&g, |op| matches!(op, Op::Conv(_) | Op::ConvTranspose(_))), g.node_count());
        let gradients = differentiate(&mut g, loss, &weights).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(count(&g, |op| matches!(op, Op::ConvWeightGradient(_))), convolutions, "{name}");
        assert!(g.node_count() < 12 * nodes, "{name}: {nodes} nodes have become {}", g.node_count());
        for (i, d) in gradients.iter().enumerate() {
            match d {
                Some(d) => g.add_output(&format!("gradient {i}"), *d),
                // BERT's pooler is not part of its first result.
                None => assert_eq!(name, "bert_mini", "{name}: {} has no gradient", g.value(weights[i]).name),
            }
        }
        let mut cx = PassCx::new(Options { verify: true, ..Options::default() });
        optimize(&mut g, &mut cx).unwrap_or_else(|e| panic!("{name}: {e}"));
        plan_memory(&g, &mut cx).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

fn count(g: &Graph, is: fn(&Op) -> bool) -> usize {
    g.node_ids().filter(|n| is(g.op(*n))).count()
}
