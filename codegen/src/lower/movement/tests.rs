//! Differential tests of all operators that move elements: random graphs of row-major values, single operators between any
//! layouts, and shapes that make several tasks.

use crate::testing::{self, Tolerance, check};
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::ops::concat::{Concat, Split};
use nncc_ir::ops::pad::{Pad, PadMode};
use nncc_ir::ops::reshape::{Identity, Reshape};
use nncc_ir::ops::slice::Slice;
use nncc_ir::ops::transpose::Transpose;
use nncc_ir::{DType, Dim, Graph, Layout, Op, Tensor, ValueId, random};
use proptest::prelude::*;

/// A graph of one operator; each operand with its layout, and all results in the layout `out`.
fn single(op: Op, operands: &[(Tensor, Layout)], out: Layout) -> Graph {
    let mut g = Graph::new("single");
    let mut given = Vec::new();
    for (t, layout) in operands {
        let v = g.add_input("x", t.ty());
        g.set_layout(v, *layout);
        given.push(Some(v));
    }
    let n = g.add(op, &given, Default::default(), &[]).expect("a well-typed operator");
    for v in g.results(n).collect::<Vec<ValueId>>() {
        g.set_layout(v, if g.ty(v).rank() < 2 { Layout::RowMajor } else { out });
        let name = g.value(v).name.clone();
        g.add_output(&name, v);
    }
    g
}

fn check_single(op: impl Into<Op>, operands: &[(Tensor, Layout)], out: Layout) {
    let inputs: Vec<Tensor> = operands.iter().map(|(t, _)| t.clone()).collect();
    check(&single(op.into(), operands, out), &inputs, &Tolerance::Exact);
}

fn layouts() -> impl Strategy<Value = Layout> {
    prop_oneof![Just(Layout::RowMajor), Just(Layout::Blocked)]
}

/// Both sides of half blocks and blocks.
fn channels() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![1usize, 3, 8, 9, 16, 17, 24, 33])
}

fn extents() -> impl Strategy<Value = Vec<usize>> {
    (1usize..3, channels(), prop::collection::vec(1usize..5, 0..3)).prop_map(|(n, c, s)| [&[n, c], &s[..]].concat())
}

fn known(dims: &[usize]) -> Vec<Dim> {
    dims.iter().map(|&d| Dim::from(d)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 40, ..ProptestConfig::with_cases(10) })]

    #[test]
    fn random_graphs_of_movements(choices in prop::collection::vec(any::<u8>(), 0..60)) {
        use nncc_ir::arbitrary::{Limits, Mix, case};
        let c = case(&choices, &Limits { nodes: 4, elems: 400, mix: Mix::Movement });
        check(&c.graph, &c.inputs, &Tolerance::Exact);
    }

    #[test]
    fn concatenations_and_splits_of_any_layouts(
        dims in extents(),
        parts in prop::collection::vec((channels(), layouts()), 1..4),
        along in 0usize..4,
        out in layouts(),
    ) {
        let axis = along.min(dims.len() - 1);
        let operands: Vec<(Tensor, Layout)> = parts.iter().enumerate().map(|(i, (n, l))| {
            let mut dims = dims.clone();
            dims[axis] = if axis == 1 { *n } else { n % 4 };
            (random::tensor(DType::F32, &dims, i as u64), *l)
        }).collect();
        check_single(Concat { axis }, &operands, out);
        let sizes: Vec<usize> = operands.iter().map(|(t, _)| t.dims()[axis]).collect();
        let mut whole = dims.clone();
        whole[axis] = sizes.iter().sum();
        let x = random::tensor(DType::F32, &whole, 9);
        check_single(Split { axis, sizes: known(&sizes) }, &[(x, parts[0].1)], out);
    }

    #[test]
    fn slices_of_any_layouts(
        dims in extents(),
        from in layouts(),
        to in layouts(),
        picks in prop::collection::vec((0usize..100, 0usize..100, prop::sample::select(vec![1i64, 1, -1, 2, -3])), 5),
    ) {
        let mut op = Slice { starts: Vec::new(), lens: Vec::new(), steps: Vec::new() };
        for (&d, &(start, len, step)) in dims.iter().zip(&picks) {
            let start = start % d;
            let reach = if step > 0 { d - 1 - start } else { start } / step.unsigned_abs() as usize + 1;
            op.starts.push(Dim::from(start));
            op.lens.push(Dim::from(1 + len % reach));
            op.steps.push(step);
        }
        check_single(op, &[(random::tensor(DType::F32, &dims, 1), from)], to);
    }

    #[test]
    fn paddings_of_any_layouts(
        dims in extents(),
        from in layouts(),
        to in layouts(),
        mode in prop::sample::select(vec![PadMode::Constant, PadMode::Edge, PadMode::Reflect, PadMode::Wrap]),
        amounts in prop::collection::vec((prop::sample::select(vec![0i64, 0, 1, 2, -1, 5]), prop::sample::select(vec![0i64, 1, 3, -1, 9])), 5),
    ) {
        // Cropping leaves at least one element.
        let clamp = |(&d, &(b, a)): (&usize, &(i64, i64))| if d as i64 + b.min(0) + a.min(0) < 1 { (0, 0) } else { (b, a) };
        let (mut before, mut after): (Vec<i64>, Vec<i64>) = dims.iter().zip(&amounts).map(clamp).unzip();
        (before[0], after[0]) = (0, 1); // every further axis of three runs triples the kernel
        check_single(Pad { before, after, mode, value: -2.0 }, &[(random::tensor(DType::F32, &dims, 1), from)], to);
    }

    #[test]
    fn transposes_of_any_layouts(dims in extents(), from in layouts(), to in layouts(), seed in any::<u64>(), dtype in 0usize..11) {
        let mut rng = random::Rng::new(seed);
        let mut perm: Vec<usize> = (0..dims.len()).collect();
        for i in (1..perm.len()).rev() {
            perm.swap(i, rng.below(i as u64 + 1) as usize);
        }
        check_single(Transpose { perm }, &[(random::tensor(DType::ALL[dtype], &dims, 1), from)], to);
    }

    #[test]
    fn layouts_change_and_reshapes_copy(dims in extents(), from in layouts(), to in layouts(), dtype in 0usize..11) {
        let x = random::tensor(DType::ALL[dtype], &dims, 1);
        check_single(Identity {}, &[(x.clone(), from)], to);
        let flat = vec![dims[0], dims[1..].iter().product()];
        if (from, to) != (Layout::Blocked, Layout::Blocked) {
            check_single(Reshape { shape: known(&flat) }, &[(x.clone(), from)], to);
        }
        let pixels = vec![dims[0], dims[1], dims[2..].iter().product(), 1];
        check_single(Reshape { shape: known(&pixels) }, &[(x, from)], to);
    }
}

/// Every number type in both directions along any axis, with ties, both zeros, infinities and NaN; lengths around the powers
/// of two at which another merge is needed.
#[test]
fn the_first_of_sorted_lines() {
    use nncc_ir::ops::top_k::TopK;
    let mut seed = 0;
    for dtype in DType::ALL.into_iter().filter(|t| *t != DType::Bool) {
        for (dims, axis) in [(vec![1], 0), (vec![3, 17], 1), (vec![2, 5, 3], 1), (vec![16, 2], 0), (vec![2, 33], 1)] {
            seed += 1;
            let mut x = random::tensor(dtype, &dims, seed);
            if dtype.is_float() {
                let odd = [f64::NAN, f64::NEG_INFINITY, -0.0, f64::INFINITY, 0.0];
                let v = x.to_f64();
                let mixed = v.iter().enumerate().map(|(i, v)| if i % 3 == 1 { odd[i / 3 % odd.len()] } else { *v });
                x = Tensor::from_f64(dtype, &dims, &mixed.collect::<Vec<f64>>());
            }
            let k = Dim::from(dims[axis].div_ceil(2));
            let op = TopK { axis, k, largest: seed % 2 == 0, sorted: true };
            check_single(op, &[(x, Layout::RowMajor)], Layout::RowMajor);
        }
    }
}

/// Indices that no caller should give: the nearest element is meant, and nothing outside of an operand is touched.
#[test]
fn indices_out_of_range_take_the_nearest_element() {
    use nncc_ir::ops::gather::{Gather, GatherElements, GatherNd};
    use nncc_ir::ops::scatter::{ScatterElements, ScatterNd, ScatterReduction::Add};
    // Each index into an axis of 5 with the one that it stands for.
    let wild = [(5, 4), (-6, 0), (i64::MAX, 4), (i64::MIN, 0), (-5, 0), (4, 4), (1 << 32, 4), (-(1 << 31), 0)];
    let (x, updates) = (testing::tensor(1, &[5, 3]), testing::tensor(2, &[8, 3]));
    let indices = |dtype, pick: fn(&(i64, i64)) -> i64, width: usize| {
        let narrow = |i: i64| if dtype == DType::I32 { i.clamp(i32::MIN.into(), i32::MAX.into()) } else { i };
        let v: Vec<i64> = wild.iter().flat_map(|w| vec![narrow(pick(w)); width]).collect();
        Tensor::from_i64(dtype, &[8, width], &v)
    };
    let cases: [(Op, usize, bool); 5] = [
        (Gather { axis: 0 }.into(), 1, false),
        (GatherElements { axis: 0 }.into(), 3, false),
        (GatherNd { batch_dims: 0 }.into(), 1, false),
        (ScatterElements { axis: 0, reduction: Add }.into(), 3, true),
        (ScatterNd { reduction: Add }.into(), 1, true),
    ];
    for (op, width, scatters) in cases {
        for dtype in [DType::I64, DType::I32] {
            let operands = |pick| {
                let mut all = vec![x.clone(), indices(dtype, pick, width)];
                all.extend(scatters.then(|| updates.clone()));
                all
            };
            let (given, meant) = (operands(|w| w.0), operands(|w| w.1));
            let row_major: Vec<_> = given.iter().map(|t| (t.clone(), Layout::RowMajor)).collect();
            let graph = single(op.clone(), &row_major, Layout::RowMajor);
            let want = evaluate(&graph, &meant, Precision::Native).expect("the reference evaluates");
            testing::check_against(&graph, &given, &want);
        }
    }
}

/// Sizes beyond one task on both sides of every cut: rows, tiles, task axes.
#[test]
fn large_copies_are_cut_into_tasks() {
    let big = |dims: &[usize]| testing::tensor(7, dims);
    for (dims, perm) in
        [(vec![67, 300], vec![1, 0]), (vec![2, 3, 70, 41], vec![0, 2, 3, 1]), (vec![2, 2900, 3], vec![0, 2, 1])]
    {
        check_single(Transpose { perm }, &[(big(&dims), Layout::RowMajor)], Layout::RowMajor);
    }
    for c in [3, 24, 40] {
        let x = big(&[1, c, 23, 29]);
        check_single(Identity {}, &[(x.clone(), Layout::RowMajor)], Layout::Blocked);
        check_single(Identity {}, &[(x, Layout::Blocked)], Layout::RowMajor);
    }
    let (a, b) = (big(&[3, 5003]), big(&[3, 17]));
    check_single(Concat { axis: 1 }, &[(a, Layout::RowMajor), (b, Layout::RowMajor)], Layout::RowMajor);
    let op = Pad { before: vec![40, 3], after: vec![2, 300], mode: PadMode::Constant, value: 1.5 };
    check_single(op, &[(big(&[33, 64]), Layout::RowMajor)], Layout::RowMajor);
}

/// Bits that are no number pass through unchanged, and the lanes that pad blocks are never read.
#[test]
fn nans_keep_their_payload() {
    let bits = |i: u32| f32::from_bits(0x7fc0_0000 | i);
    let x = Tensor::f32(&[2, 9, 5], (0..90).map(bits).collect());
    let g = single(Transpose { perm: vec![2, 1, 0] }.into(), &[(x.clone(), Layout::Blocked)], Layout::RowMajor);
    // `check` takes all NaNs for equal; as integers they are not.
    check(&g, std::slice::from_ref(&x), &Tolerance::Exact);
    let raw = Tensor::from_bytes(DType::I32, x.dims(), &x.to_bytes()).expect("as many bytes");
    check_single(Transpose { perm: vec![2, 1, 0] }, &[(raw, Layout::Blocked)], Layout::RowMajor);
}
