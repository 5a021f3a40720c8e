//! Memory plans: what is shared, what is not, and that the checker rejects wrong plans.

use nncc_ir::{Graph, Op, ValueId, parse};
use nncc_passes::plan_memory::check::check;
use nncc_passes::{MemoryPlan, Options, PassCx, Place, optimize, plan_memory};

fn graph(text: &str) -> Graph {
    parse::graph(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn plan(g: &Graph) -> MemoryPlan {
    plan_memory(g, &mut PassCx::new(Options::default())).unwrap_or_else(|e| panic!("{e}\n{g}"))
}

fn value(g: &Graph, name: &str) -> ValueId {
    let mut all = g.node_ids().flat_map(|n| g.results(n));
    all.find(|v| &*g.value(*v).name == name).unwrap_or_else(|| panic!("no %{name}"))
}

#[test]
fn an_elementwise_chain_runs_in_the_outputs_buffer() {
    let g = graph("graph g(%x: f32[16,16]) {\n %a = exp %x\n %b = tanh %a\n %y = neg %b\n return %y\n}");
    let p = plan(&g);
    assert_eq!(p.arena_bytes, 0);
    for name in ["a", "b", "y"] {
        assert_eq!(p.place[&value(&g, name)], Place::Output { index: 0, offset: 0 });
    }
    assert_eq!(p.place[&value(&g, "x")], Place::Input { index: 0, offset: 0 }); // never written
}

#[test]
fn an_operand_that_is_read_again_stays() {
    let g = graph(
        "graph g(%x: f32[16,16]) {\n %a = exp %x\n %b = tanh %a\n %c = softmax %b, axis=1\n %y = mul %c, %a\n return %y\n}",
    );
    let p = plan(&g);
    let (a, b) = (p.place[&value(&g, "a")], p.place[&value(&g, "b")]);
    assert_ne!(a, b);
}

/// `b` is row 0 of `a`, in place; it is read for every row, so the sum may not be written over `a`.
#[test]
fn a_view_that_is_broadcast_forbids_in_place() {
    let g = graph(
        "graph g(%x: f32[16,16]) {\n %a = exp %x\n %b = slice %a, starts=[0,0], lens=[1,16], steps=[1,1]\n %s = add %a, %b\n %y = softmax %s, axis=1\n return %y\n}",
    );
    let p = plan(&g);
    assert!(p.elided.contains(&value(&g, "b").node));
    assert_ne!(p.place[&value(&g, "s")], p.place[&value(&g, "a")]);
}

#[test]
fn concat_and_split_copy_nothing() {
    let g = graph(
        "graph g(%x: f32[1,4,8]) {\n %a = softmax %x, axis=2\n %b = softmax %x, axis=1\n %c = concat %a, %b, axis=1\n %d, %e = split %c, axis=1, sizes=[3,5]\n %f = softmax %d, axis=2\n %h = softmax %e, axis=2\n return %f, %h\n}",
    );
    let p = plan(&g);
    for name in ["c", "d"] {
        assert!(p.elided.contains(&value(&g, name).node), "{}", p.to_text(&g));
    }
    assert_eq!(p.arena_bytes, 256);
}

/// DenseNet: each Concat begins with all of the one before; they are all one buffer.
#[test]
fn nested_concats_are_one_buffer() {
    let g = graph(
        "graph g(%x: f32[1,2,32]) {\n %a = softmax %x, axis=2\n %b = softmax %a, axis=2\n %c = concat %a, %b, axis=1\n %d = softmax %c, axis=2\n %e = concat %a, %b, %d, axis=1\n %y = softmax %e, axis=2\n return %y\n}",
    );
    let p = plan(&g);
    assert!(p.elided.contains(&value(&g, "c").node) && p.elided.contains(&value(&g, "e").node), "{}", p.to_text(&g));
    assert_eq!(p.place[&value(&g, "c")], p.place[&value(&g, "e")]);
    assert_eq!(p.arena_bytes, 8 * 32 * 4);
}

/// Batches of two: channels of one image are not contiguous with those of the next, so nothing is shared.
/// `d` is the end of `a`, and wanted at the beginning of a result of which `a` is the end: one of the two is copied.
#[test]
fn a_part_and_the_whole_of_it_do_not_share_a_concat() {
    let g = graph(
        "graph g(%x: f32[5]) {\n %a = softmax %x, axis=0\n %c, %d = split %a, axis=0, sizes=[1,4]\n %y = concat %d, %a, axis=0\n %z = softmax %c, axis=0\n return %y, %z\n}",
    );
    let p = plan(&g);
    assert_ne!(p.place[&value(&g, "a")], Place::Output { index: 0, offset: 16 });
}

#[test]
fn a_batch_of_two_is_copied() {
    let g = graph(
        "graph g(%x: f32[2,4,8]) {\n %a = softmax %x, axis=2\n %b = softmax %x, axis=1\n %c = concat %a, %b, axis=1\n %y = softmax %c, axis=2\n return %y\n}",
    );
    assert!(plan(&g).elided.is_empty());
}

#[test]
fn an_unknown_size_is_an_error_that_names_value_and_flag() {
    let g = graph("graph g(%x: f32[N,4]) {\n %y = exp %x\n return %y\n}");
    let e = plan_memory(&g, &mut PassCx::new(Options::default())).unwrap_err();
    assert_eq!(e.to_string(), "the size of \"x\", f32[N,4], is not known; fix its symbols (--dim NAME=NUMBER)");
}

/// Every single change of a good plan that breaks a rule is noticed.
#[test]
fn the_checker_rejects_wrong_plans() {
    let g = graph(
        "graph g(%x: f32[1,16,16]) {\n %a = softmax %x, axis=2\n %b = softmax %x, axis=1\n %s = softmax %a, axis=2\n %c = concat %s, %b, axis=1\n %y = softmax %c, axis=2\n return %y\n}",
    );
    let good = plan(&g);
    assert_eq!(check(&g, &good), Ok(()));
    let broken = |change: &dyn Fn(&mut MemoryPlan)| {
        let mut p = good.clone();
        change(&mut p);
        check(&g, &p).expect_err("a wrong plan")
    };
    let (a, b, c, y) = (value(&g, "a"), value(&g, "b"), value(&g, "c"), value(&g, "y"));
    let at = |name: &str| good.place[&value(&g, name)];
    assert_eq!(
        broken(&|p| {
            p.place.insert(b, at("s"));
        })
        .split_once(' ')
        .unwrap()
        .1,
        "is overwritten before concat reads it"
    );
    assert_eq!(
        broken(&|p| {
            p.place.insert(a, at("s"));
        }),
        "%s is written over its operand %a"
    );
    assert_eq!(
        broken(&|p| {
            p.place.insert(c, at("c").plus(64));
        }),
        "%c: bytes 64.. of Arena do not fit into 2048".replace("2048", &good.arena_bytes.to_string())
    );
    assert_eq!(broken(&|p| p.order.reverse()), "softmax runs before %c is there");
    assert_eq!(
        broken(&|p| {
            p.order.pop();
        }),
        "a node never runs"
    );
    assert_eq!(
        broken(&|p| {
            p.elided.insert(y.node);
        }),
        "view %y lies in another space than its operand"
    );
    assert_eq!(
        broken(&|p| {
            p.place.remove(&b);
        }),
        "%b has no place"
    );
}

/// Ten thousand nodes: every pass and the planner are linear, or nearly so.
#[test]
fn ten_thousand_nodes_take_no_time() {
    let mut text = String::from(
        "graph deep(%x: f32[1,16,4,4]) {\n @w: f32[16,16,1,1] = seed(1)\n @k: f32[] = {0.5}\n %v0 = relu %x\n",
    );
    let mut nodes = 1;
    for i in 0..1666 {
        text += &format!(
            " %a{i} = conv %v{i}, @w, strides=[1,1], dilations=[1,1], pads=[0,0,0,0], group=1\n %b{i} = mul %a{i}, @k\n %c{i} = add %b{i}, %v{i}\n %d{i} = identity %c{i}\n %e{i} = sigmoid %d{i}\n %v{} = mul %d{i}, %e{i}\n",
            i + 1
        );
        nodes += 6;
    }
    text += " return %v1666\n}";
    let mut g = graph(&text);
    assert!(nodes > 9_900);
    let mut cx = PassCx::new(Options { verify: false, ..Options::default() });
    let start = std::time::Instant::now();
    optimize(&mut g, &mut cx).unwrap();
    let p = plan_memory(&g, &mut cx).unwrap();
    let time = start.elapsed();
    // A quadratic pass would take minutes; a busy machine makes a second of this one.
    assert!(time.as_secs() < 8, "{time:?}: {:#?}", cx.reports);
    let roots = g.node_ids().filter(|n| matches!(g.op(*n), Op::Fused(f) if f.root.is_some())).count();
    assert_eq!(roots, 1666);
    assert!(p.ratio() <= 1.1);
}

#[test]
fn states_are_written_behind_their_readers() {
    let mut g = graph(
        "graph step(%w: f32[64,64], %m: f32[64,64], %g: f32[64,64], %dy: f32[2,64]) {
  %dw = transpose %g, perm=[1,0]
  %m1 = add %m, %dw
  %w1 = sub %w, %m1
  %v = reshape %w, shape=[4096]
  %dx = gemm %dy, %w, trans_a=false, trans_b=true, alpha=1.0, beta=1.0
  %norm = relu %v
  return %m1 over %m, %w1 over %w, %dx, %norm
}",
    );
    optimize(&mut g, &mut PassCx::new(Options::default())).expect("it optimizes");
    // Neither needs a copy: what reads w, and a view of it, runs first.
    assert!(!g.node_ids().any(|n| matches!(g.op(n), Op::Identity(_))), "{g}");
    let p = plan(&g);
    let step = |node| p.order.iter().position(|n| *n == node);
    let (w, w1) = (ValueId { node: g.inputs()[0], out: 0 }, g.outputs()[1].1.node);
    let readers: Vec<_> = g.users(w).map(|(n, _)| n).filter(|n| *n != w1).collect();
    assert_eq!(readers.len(), 2, "{g}");
    assert!(readers.into_iter().all(|n| step(n) < step(w1)), "{g}");
}

#[test]
fn states_that_need_each_other_are_copied() {
    let mut g = graph(
        "graph swap(%a: f32[64,64], %b: f32[64,64], %c: f32[64,64], %d: f32[1,64]) {
  %a1 = add %a, %b
  %b1 = mul %b, %a
  %c1 = transpose %c, perm=[1,0]
  %d1 = matmul %d, %c1
  return %a1 over %a, %b1 over %b, %c1 over %c, %d1 over %d
}",
    );
    optimize(&mut g, &mut PassCx::new(Options::default())).expect("it optimizes");
    let copies = g.node_ids().filter(|&n| matches!(g.op(n), Op::Identity(_))).count();
    assert_eq!(copies, 4, "{g}");
    plan(&g);
}

/// A product that is the next value of a state is made beside it and copied: the bound counts it.
#[test]
fn the_bound_knows_that_a_copied_state_is_made_elsewhere_first() {
    let mut g = graph(
        "graph step(%w: f32[64,64], %x: f32[64,8], %dy: f32[64,8]) {
  %g = gemm %dy, %x, trans_a=false, trans_b=true, alpha=1.0, beta=1.0
  %w1 = sub %w, %g
  return %w1 over %w
}",
    );
    optimize(&mut g, &mut PassCx::new(Options::default())).expect("it optimizes");
    let p = plan(&g);
    assert_eq!((p.arena_bytes, p.bound_bytes), (64 * 64 * 4, 64 * 64 * 4), "{g}{}", p.to_text(&g));
}
