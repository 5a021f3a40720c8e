//! Batches of another size: the results for N samples are those of N runs of one sample each, bit by bit, by the reference
//! evaluator. `set_batch.ir` has a graph for every operator that keeps samples apart; in it `$k` is k times the batch.

use nncc_ir::arbitrary::{Limits, Mix, case};
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::movement::{offset, pick};
use nncc_ir::tensor::strides_of;
use nncc_ir::{Graph, NodeId, Op, Tensor, TensorType, ValueId, parse, random, verify};
use nncc_passes::{batch_of, set_batch};
use std::collections::BTreeSet;

/// Samples of the larger batch.
const MANY: usize = 6;

/// Operators without a case, and why.
const WITHOUT: &[(&str, &str)] = &[
    ("batch_norm_training", "normalises over the samples"),
    ("batch_norm_statistics", "is made by the optimizer"),
    ("scatter_elements", "has no rule: see `refusals_name_the_node`"),
    ("scatter_nd", "has no rule: see `refusals_name_the_node`"),
    ("relayout", "is made by the optimizer"),
    ("attention", "is made by the optimizer"),
    ("fused", "is made by the optimizer"),
    ("chain", "is made by code generation"),
    ("conv_weight_gradient", "sums over the samples"),
    ("max_pool_gradient", "is made by differentiation"),
    ("average_pool_gradient", "is made by differentiation"),
    ("resize_gradient", "is made by differentiation"),
];

fn cases() -> Vec<&'static str> {
    include_str!("set_batch.ir").split("----\n").map(str::trim).filter(|t| !t.is_empty()).collect()
}

/// The graph with `$k` as k times `batch`.
fn of_batch(text: &str, batch: usize) -> Graph {
    let mut parts = text.split('$');
    let mut out = parts.next().unwrap().to_string();
    for part in parts {
        let (factor, rest) = part.split_at(part.find(|c: char| !c.is_ascii_digit()).unwrap());
        out += &(factor.parse::<usize>().unwrap() * batch).to_string();
        out += rest;
    }
    parse::graph(&out).unwrap_or_else(|e| panic!("{e}\n{out}"))
}

/// Samples `first ..` of a batch, as a batch of `count`; a number for all samples as it is.
fn samples(t: &Tensor, first: usize, count: usize) -> Tensor {
    let mut dims = t.dims().to_vec();
    let Some(batch) = dims.first_mut() else { return t.clone() };
    *batch = count;
    let strides = strides_of(t.dims());
    pick(t, &dims, |i| first * strides[0] + offset(i, &strides))
}

fn inputs_of(g: &Graph) -> Vec<Tensor> {
    let input = |(seed, n): (u64, &NodeId)| {
        let ty = g.ty(ValueId { node: *n, out: 0 });
        random::tensor(ty.dtype, &ty.dims().unwrap(), seed)
    };
    (1..).zip(g.inputs()).map(input).collect()
}

/// Compares the results of `many`, for [`MANY`] samples, with those of `one` for each sample.
fn check(one: &Graph, many: &Graph) {
    verify::verify(many).unwrap_or_else(|e| panic!("{e}\n{many}"));
    let inputs = inputs_of(many);
    let together = evaluate(many, &inputs, Precision::Native).unwrap();
    for s in 0..MANY {
        let alone: Vec<Tensor> = inputs.iter().map(|t| samples(t, s, 1)).collect();
        let alone = evaluate(one, &alone, Precision::Native).unwrap();
        for ((name, _), (together, alone)) in many.outputs().iter().zip(together.iter().zip(&alone)) {
            assert_eq!(together.dims()[0], MANY, "{}: %{name}", one.name);
            assert_eq!(samples(together, s, 1).to_bytes(), alone.to_bytes(), "{}: %{name}, sample {s}", one.name);
        }
    }
}

#[test]
fn samples_of_a_batch_are_as_alone() {
    for text in cases() {
        let one = of_batch(text, 1);
        for from in [1, 2, 3] {
            let g = of_batch(text, from);
            let many = set_batch(&g, MANY).unwrap_or_else(|e| panic!("{}: {e}", g.name));
            check(&one, &many);
            // It is the graph that was written for that size, and goes back.
            assert_eq!(many.to_string(), of_batch(text, MANY).to_string(), "from {from}");
            assert_eq!(set_batch(&many, from).unwrap().to_string(), g.to_string());
        }
    }
}

#[test]
fn what_all_samples_share_is_repeated() {
    let text = "graph tokens(%x: f32[$1,3,4]) {\n @class: f32[1,1,4] = seed(1)\n @places: f32[3,4] = seed(2)\n \
                %r = reshape %x, shape=[$3,4]\n %p = add %r, @places\n %b = reshape %p, shape=[$1,3,4]\n \
                %y = concat @class, %b, axis=1\n return %y\n}";
    let one = of_batch(text, 1);
    let many = set_batch(&one, MANY).unwrap();
    assert_eq!(many.node_ids().filter(|n| many.op(*n).name() == "tile").count(), 2);
    check(&one, &many);
}

#[test]
fn every_operator_has_a_case_or_a_reason() {
    let names = |g: &Graph, keep: &dyn Fn(NodeId) -> bool| -> Vec<&'static str> {
        g.node_ids().filter(|n| keep(*n)).map(|n| g.op(n).name()).collect()
    };
    let met: BTreeSet<&str> = cases().iter().flat_map(|text| names(&of_batch(text, 1), &|_| true)).collect();
    // The elementwise operators share one rule, of which one case has operands of every kind.
    assert!(cases().iter().any(|text| text.starts_with("graph elementwise(")));
    let graphs = include_str!("gradients.ir").split("----\n").map(|t| parse::graph(t.trim()).unwrap());
    let elementwise = |g: &Graph, n: NodeId| {
        let types: Vec<&TensorType> = g.operands(n).iter().flatten().map(|v| g.ty(*v)).collect();
        g.op(n).pointwise(&types).is_some()
    };
    let elementwise: BTreeSet<&str> = graphs.flat_map(|g| names(&g, &|n| elementwise(&g, n))).collect();
    let without: BTreeSet<&str> = WITHOUT.iter().map(|(name, _)| *name).collect();
    let missing: Vec<&&str> =
        Op::NAMES.iter().filter(|n| ![&met, &elementwise, &without].iter().any(|set| set.contains(**n))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(met.is_disjoint(&without), "{met:?}");
}

/// The sentence that `set_batch` refuses with, from 1 to 6 samples unless `text` is written for another number.
fn refusal(text: &str) -> String {
    set_batch(&of_batch(text, 1), MANY).unwrap_err().to_string()
}

#[test]
fn refusals_name_the_node() {
    let around = |line: &str| format!("graph g(%x: f32[$1,3,4]) {{\n{line}\n return %y\n}}");
    let node = |line: &str| {
        let e = refusal(&around(line));
        let e = e.strip_prefix("the batch of 1 cannot become one of 6: ").unwrap().to_string();
        e.strip_suffix(" does not keep its samples apart").unwrap().to_string()
    };
    for (line, what) in [
        ("%y = softmax %x, axis=0 ; from \"Mix_7\"", "node \"Mix_7\" (softmax of f32[1,3,4])"),
        ("%y = reduce %x, kind=mean, axes=[0], keepdims=true", "node \"y\" (reduce of f32[1,3,4])"),
        ("%y = cum_sum %x, axis=0, exclusive=false, reverse=false", "node \"y\" (cum_sum of f32[1,3,4])"),
        ("%y = expand %x, shape=[5,3,4]", "node \"y\" (expand of f32[1,3,4])"),
        ("%y = concat %x, %x, axis=0", "node \"y\" (concat of f32[1,3,4], f32[1,3,4])"),
        (
            "@i: i64[1,1,4] = {0, 2, 1, 0}\n@u: f32[1,1,4] = seed(1)\n%y = scatter_elements %x, @i, @u, axis=1, reduction=none",
            "node \"y\" (scatter_elements of f32[1,3,4], i64[1,1,4], f32[1,1,4])",
        ),
        (
            "@i: i64[1,1] = {0}\n@u: f32[1,3,4] = seed(1)\n%y = scatter_nd %x, @i, @u, reduction=none",
            "node \"y\" (scatter_nd of f32[1,3,4], i64[1,1], f32[1,3,4])",
        ),
        // Each of five rows meets each sample: were there six samples, they would not fit.
        ("@w: f32[5,1,1] = seed(1)\n%y = add %x, @w", "node \"y\" (binary of f32[1,3,4], f32[5,1,1])"),
        // The batch is gone into the axis that the product sums over.
        (
            "@w: f32[12,2] = seed(1)\n%f = reshape %x, shape=[12]\n%y = matmul %f, @w",
            "node \"y\" (matmul of f32[12], f32[12,2])",
        ),
    ] {
        assert_eq!(node(line), what);
    }
    assert_eq!(
        refusal(&around("%y = transpose %x, perm=[1,0,2]")),
        "the batch of 1 cannot become one of 6: output \"y\" is f32[3,1,4], with the samples not in front"
    );
    assert_eq!(
        refusal(&around("%y = reshape %x, shape=[3,4]")),
        "the batch of 1 cannot become one of 6: output \"y\" is f32[3,4], with the samples not in front"
    );
}

#[test]
fn inputs_must_have_one_batch() {
    let refused = |inputs: &str| {
        let text = format!("graph g({inputs}) {{\n %a = relu %x\n return %a\n}}");
        batch_of(&parse::graph(&text).unwrap()).unwrap_err().to_string()
    };
    assert_eq!(
        refused("%x: f32[1,3], %y: f32[4,3]"),
        "input \"x\" has the first dimension 1, input \"y\" has 4: that is no one batch"
    );
    assert_eq!(refused("%x: f32[N,3]"), "input \"x\" is f32[N,3]: its first dimension is no batch of a known size");
    assert_eq!(refused("%x: f32[0,3]"), "input \"x\" is f32[0,3]: its first dimension is no batch of a known size");
    assert_eq!(refused("%x: f32[]"), "no input has a batch");
    // What is one number for all samples has no batch.
    let g = parse::graph("graph g(%x: f32[2,3], %s: f32[]) {\n %a = mul %x, %s\n return %a\n}").unwrap();
    assert_eq!(set_batch(&g, 5).unwrap().outputs().len(), 1);
}

/// Random graphs whose inputs happen to have one first dimension: what is not refused means the same for each sample. Of a
/// batch of several samples only whole batches can be compared.
#[test]
fn random_graphs_keep_their_meaning() {
    let limits = Limits { nodes: 4, elems: 64, mix: Mix::Any };
    let mut rng = random::Rng::new(11);
    let (mut changed, mut met) = (0, BTreeSet::new());
    for _ in 0..6000 {
        let choices: Vec<u8> = (0..60).map(|_| rng.bits() as u8).collect();
        let case = case(&choices, &limits);
        let Ok(from) = batch_of(&case.graph) else { continue };
        let Ok(many) = set_batch(&case.graph, 3 * from) else { continue };
        let inputs = inputs_of(&many);
        let Ok(together) = evaluate(&many, &inputs, Precision::Native) else { continue };
        verify::verify(&many).unwrap_or_else(|e| panic!("{e}\n{many}"));
        for part in 0..3 {
            let alone: Vec<Tensor> = inputs.iter().map(|t| samples(t, part * from, from)).collect();
            let alone = evaluate(&case.graph, &alone, Precision::Native).unwrap();
            for (together, alone) in together.iter().zip(&alone) {
                // An output that is the same for all samples has no batch.
                let own = if together.dims() == alone.dims() {
                    together.clone()
                } else {
                    samples(together, part * from, from)
                };
                assert_eq!(own.to_bytes(), alone.to_bytes(), "samples from {}\n{}\n{many}", part * from, case.graph);
            }
        }
        changed += 1;
        met.extend(many.node_ids().map(|n| many.op(n).name()));
    }
    assert!(changed > 500 && met.len() > 40, "{changed} graphs, {} operators: {met:?}", met.len());
}
