//! Every elementwise operator, and fused programs without a root: a [`map`] over broadcast operands.
//!
//! Operands of one element that are constants become constants of the program. Where every operand is stored alike, the
//! map is one row over all of memory, padding lanes included. Otherwise the loops are the output's axes; with a blocked
//! operand, channels are a loop over blocks and a loop over their lanes, and what remains in a last block is a step of its own:
//!
//! ```text
//! y: [N, 24, H, W] blocked      step 1: N x 1 x H x W x 16 lanes        step 2: N x 1 x H x W x 8 lanes, 16 channels further on
//! ```
//!
//! A row-major operand that varies along the lanes is read as it lies, lane by lane unless its channels are contiguous:
//! layout assignment sees to it that this is a bias or the like.

use crate::kernels::map::{self, MapKernel, Nest};
use crate::kernels::words;
use crate::lower::{Call, LowerCx, LowerError, Operand};
use crate::program::Arg;
use nncc_ir::broadcast::broadcast_strides;
use nncc_ir::pointwise::{Inst, Ref, Scalar};
use nncc_ir::{BLOCK, DType, HALF_BLOCK, Layout, Pointwise, padded_channels};

/// Lowers the node whose meaning at one element is `program`, over its given operands in order.
///
/// # Errors
/// A blocked operand of another rank than the result.
pub fn lower(program: &Pointwise, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let operands: Vec<Operand> = cx.operands().iter().flatten().cloned().collect();
    let output = cx.output(0);
    lower_map(program, &operands, &output, "", cx)
}

/// Appends the steps of `output = program(operands..)`, where the operands broadcast to the output's shape. No step for no
/// elements.
///
/// # Errors
/// As [`lower`].
pub fn lower_map(
    program: &Pointwise,
    operands: &[Operand],
    output: &Operand,
    label: &str,
    cx: &mut LowerCx<'_, '_>,
) -> Result<(), LowerError> {
    let (program, operands) = with_constants_inside(program, operands);
    if output.elems() == 0 {
        return Ok(());
    }
    let all: Vec<&Operand> = operands.iter().chain([output]).collect();
    let args = all.iter().map(|o| cx.arg(o)).collect::<Result<Vec<Arg>, _>>()?;
    for region in map_regions(&all).map_err(|what| cx.unsupported(what))? {
        let mut nest = region.nest;
        nest.collapse();
        let MapKernel { kernel, tasks, numbers } = map::map(cx.target(), &program, &nest);
        let kernel = cx.kernel(kernel);
        let bytes = |i: usize| region.offsets[i] * all[i].dtype.bytes();
        let mut args: Vec<Arg> = args.iter().enumerate().map(|(i, a)| a.plus(bytes(i))).collect();
        if !numbers.is_empty() {
            args.push(cx.constant(words(numbers)));
        }
        cx.step(Call::new(kernel, &args, tasks).labelled(label));
    }
    Ok(())
}

/// Replaces operands that are constants of one element by constants of the program.
fn with_constants_inside(program: &Pointwise, operands: &[Operand]) -> (Pointwise, Vec<Operand>) {
    let immediate = |o: &Operand| -> Option<Scalar> {
        let t = o.constant().filter(|_| o.elems() == 1)?.to_tensor();
        Some(if o.dtype.is_float() { Scalar::Float(t.to_f64()[0]) } else { Scalar::Int(t.to_i64()[0]) })
    };
    let values: Vec<Option<Scalar>> = operands.iter().map(immediate).collect();
    let kept: Vec<Operand> =
        operands.iter().zip(&values).filter(|(_, v)| v.is_none()).map(|(o, _)| o.clone()).collect();
    let types: Vec<DType> = kept.iter().map(|o| o.dtype).collect();
    let inlined = Pointwise::build(&types, |p, inputs| {
        let mut kept = inputs.iter();
        let mut arg = |(o, v): (&Operand, &Option<Scalar>)| match v {
            Some(s) => p.push(Inst::Const(*s), o.dtype),
            None => *kept.next().expect("one for each operand that is kept"),
        };
        let args: Vec<Ref> = operands.iter().zip(&values).map(&mut arg).collect();
        p.inline(program, &args)
    });
    (inlined, kept)
}

/// One loop nest, and where each operand begins in it, in elements.
pub(crate) struct Region {
    /// Loops over one part of the last operand, with strides for all.
    pub nest: Nest,
    /// Of each operand.
    pub offsets: Vec<usize>,
}

/// The loop nests of a map; operands first, the output last. Where all are stored alike, padding lanes are mapped as well.
fn map_regions(all: &[&Operand]) -> Result<Vec<Region>, String> {
    let output = all[all.len() - 1];
    let alike = |o: &Operand| o.dims == output.dims && o.layout == output.layout;
    if !all.iter().all(|o| o.elems() == 1 || alike(o)) {
        return regions(all);
    }
    let strides = all.iter().map(|o| vec![usize::from(alike(o))]).collect();
    Ok(vec![Region { nest: Nest { dims: vec![output.stored_elems()], strides }, offsets: vec![0; all.len()] }])
}

/// The loop nests that together are every element of the last operand, to which the others broadcast.
pub(crate) fn regions(all: &[&Operand]) -> Result<Vec<Region>, String> {
    let output = all[all.len() - 1];
    let blocked = |o: &&&Operand| o.layout == Layout::Blocked;
    if !all.iter().any(|o| blocked(&o)) {
        let strides = all.iter().map(|o| broadcast_strides(&o.dims, &output.dims)).collect();
        return Ok(vec![Region { nest: Nest { dims: output.dims.clone(), strides }, offsets: vec![0; all.len()] }]);
    }
    if let Some(o) = all.iter().filter(blocked).find(|o| o.rank() != output.rank()) {
        return Err(format!("a blocked operand of rank {} for a result of rank {}", o.rank(), output.rank()));
    }
    let channels = output.dims[1];
    let (whole, rest) = (channels / BLOCK, channels % BLOCK);
    let part = |first: usize, blocks: usize, lanes: usize| {
        let views: Vec<View> = all.iter().map(|o| View::of(o, output, first, lanes)).collect();
        let (n, spatial) = (output.dims[0], &output.dims[2..]);
        let order = |batch: usize, block: usize, spatial: &[usize], lane: usize| -> Vec<usize> {
            let mut axes = vec![batch, block];
            match output.layout {
                Layout::Blocked => axes.extend(spatial.iter().copied().chain([lane])),
                Layout::RowMajor => axes.extend([lane].into_iter().chain(spatial.iter().copied())),
            }
            axes
        };
        Region {
            nest: Nest {
                dims: order(n, blocks, spatial, lanes),
                strides: views.iter().map(|v| order(v.batch, v.block, &v.spatial, v.lane)).collect(),
            },
            offsets: views.iter().map(|v| v.offset).collect(),
        }
    };
    let mut regions = Vec::new();
    if whole > 0 {
        regions.push(part(0, whole, BLOCK));
    }
    if rest > 0 {
        regions.push(part(whole * BLOCK, 1, rest));
    }
    Ok(regions)
}

/// Strides of an operand in the loops of a region of whole blocks, or of the part of a last one.
struct View {
    batch: usize,
    block: usize,
    spatial: Vec<usize>,
    lane: usize,
    /// Where the region's first channel lies.
    offset: usize,
}

impl View {
    /// How `o` is read under channels `first ..` of `output`, in blocks of which `lanes` channels exist.
    fn of(o: &Operand, output: &Operand, first: usize, lanes: usize) -> View {
        if o.layout == Layout::RowMajor {
            let s = broadcast_strides(&o.dims, &output.dims);
            return View {
                batch: s[0],
                block: BLOCK * s[1],
                spatial: s[2..].to_vec(),
                lane: s[1],
                offset: first * s[1],
            };
        }
        let plane: usize = o.dims[2..].iter().product();
        let batch = if o.dims[0] == 1 { 0 } else { padded_channels(o.dims[1]) * plane };
        let broadcast = o.dims[1] == 1 && output.dims[1] != 1;
        let width = if broadcast || lanes <= HALF_BLOCK { HALF_BLOCK } else { BLOCK };
        let pixels = broadcast_strides(&o.dims[2..], &output.dims[2..]);
        View {
            batch,
            block: if broadcast { 0 } else { BLOCK * plane },
            spatial: pixels.iter().map(|s| s * width).collect(),
            lane: usize::from(!broadcast),
            offset: if broadcast { 0 } else { first * plane },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, constant, tensor};
    use nncc_ir::ops::activation::{Clip, HardSwish, LeakyRelu, PRelu, Relu, Shrink};
    use nncc_ir::ops::elementwise::{Binary, Cast, Compare, Unary, Where};
    use nncc_ir::ops::fused::Fused;
    use nncc_ir::pointwise::{BinaryFn, CompareFn, UnaryFn};
    use nncc_ir::{Graph, Op, Origin, Tensor, ValueId};
    use proptest::prelude::*;

    /// Equal, but for the sign of a zero: the reference's minimum and maximum leave it open.
    const EQUAL: Tolerance = Tolerance::Relative { rel: 0.0, abs: 0.0 };

    /// Numbers of a type with its edges among them; a prime count, so that every lane count has a tail.
    fn samples(dtype: DType, seed: usize) -> Tensor {
        let n = 37;
        if dtype.is_float() {
            let edges = [
                0.0,
                -0.0,
                1.0,
                -1.0,
                0.5,
                1.5,
                2.5,
                -2.5,
                f64::INFINITY,
                f64::NEG_INFINITY,
                f64::NAN,
                1e-40,
                3e9,
                -1e8,
                7.25,
            ];
            let v: Vec<f64> = (0..n).map(|i| edges[(i * seed + i / 5) % edges.len()]).collect();
            return Tensor::from_f64(dtype, &[n], &v);
        }
        let edges = [0, 1, -1, 2, 3, 7, -7, 8, 63, 64, i64::MAX, i64::MIN, 127, -128, 1 << 31, 32767];
        let v: Vec<i64> = (0..n).map(|i| edges[(i * seed + i / 5) % edges.len()]).collect();
        Tensor::from_i64(dtype, &[n], &v)
    }

    /// [`check_all`], where elementary functions have 4 ulp and the reference, which computes in f64, has up to 2.
    fn check_functions(inputs: &[Tensor], ops: Vec<Op>) {
        let is_int = inputs[0].dtype().is_int();
        let (exact, near): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(|op| is_int || is_exact(op));
        check_all(inputs, exact, &EQUAL);
        let ulp = if inputs[0].dtype() == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
        check_all(inputs, near, &Tolerance::Relative { rel: 6.0 * ulp, abs: 1e-44 });
    }

    /// All operators in one graph over the same inputs, which are the operands in order.
    fn check_all(inputs: &[Tensor], ops: Vec<Op>, tolerance: &Tolerance) {
        let mut g = Graph::new("ops");
        let xs: Vec<ValueId> = inputs.iter().map(|t| g.add_input("x", t.ty())).collect();
        for op in ops {
            let name = format!("{:?}", op.attributes());
            let y = g.add1(op, &xs, Origin::default(), &name).unwrap();
            g.add_output(&name, y);
        }
        check(&g, inputs, tolerance);
    }

    /// Whether the reference is met exactly: elementary functions have a bound of a few ulp.
    fn is_exact(op: &Op) -> bool {
        use UnaryFn::*;
        match op {
            Op::Unary(Unary { function }) => matches!(
                function,
                Neg | Abs | Sign | Reciprocal | Sqrt | Floor | Ceil | Round | IsNan | IsInf | Not | BitNot
            ),
            Op::Binary(Binary { function }) => *function != BinaryFn::Pow,
            _ => true,
        }
    }

    #[test]
    fn every_function_on_every_type() {
        for dtype in DType::ALL {
            let (x, y) = (samples(dtype, 1), samples(dtype, 7));
            let unary = UnaryFn::ALL.iter().filter(|f| f.takes(dtype)).map(|&function| Unary { function }.into());
            check_functions(std::slice::from_ref(&x), unary.collect());
            let binary = BinaryFn::ALL.iter().filter(|f| f.takes(dtype)).map(|&function| Binary { function }.into());
            check_functions(&[x.clone(), y.clone()], binary.collect());
            check_all(
                &[x.clone(), y],
                CompareFn::ALL.iter().map(|&function| Compare { function }.into()).collect(),
                &EQUAL,
            );
            check_all(&[x], DType::ALL.iter().map(|&to| Cast { to }.into()).collect(), &EQUAL);
        }
    }

    #[test]
    fn selection_and_bounds() {
        for dtype in [DType::F32, DType::F64, DType::I8, DType::U16, DType::I64, DType::Bool] {
            check_all(&[samples(DType::Bool, 3), samples(dtype, 1), samples(dtype, 7)], vec![Where {}.into()], &EQUAL);
        }
        for dtype in [DType::F32, DType::I32, DType::U8] {
            check_all(
                &[samples(dtype, 1)],
                vec![Relu {}.into(), Shrink { bias: 1.5, lambd: 2.0 }.into(), Clip {}.into()],
                &EQUAL,
            );
            check_all(&[samples(dtype, 1), samples(dtype, 5), samples(dtype, 7)], vec![Clip {}.into()], &EQUAL);
            check_all(&[samples(dtype, 1), samples(dtype, 5)], vec![PRelu {}.into()], &EQUAL);
        }
    }

    #[test]
    fn constants_of_one_element_move_into_the_program() {
        let x = tensor(1, &[5, 7]);
        let mut g = Graph::new("clip");
        let v = g.add_input("x", x.ty());
        let (low, high) = (Tensor::f32(&[], vec![-0.25]), Tensor::f32(&[1], vec![0.5]));
        let (low, high) = (constant(&mut g, "low", &low), constant(&mut g, "high", &high));
        let y = g.add1(Clip {}, &[v, low, high], Origin::default(), "y").unwrap();
        g.add_output("y", y);
        check(&g, &[x], &EQUAL);
    }

    #[test]
    fn long_rows_are_cut_and_short_ones_gathered() {
        // One row of many pieces, rows longer than a piece, rows of a few elements, and more rows than a task takes.
        for dims in [&[40_009][..], &[3, 40_001], &[20_011, 3], &[2, 17, 1301], &[1, 1, 1], &[0, 5]] {
            let (x, bias) = (tensor(2, dims), tensor(3, &[dims[dims.len() - 1]]));
            let mut g = Graph::new("rows");
            let v = [g.add_input("x", x.ty()), g.add_input("b", bias.ty())];
            let s = g.add1(Binary { function: BinaryFn::Add }, &v, Origin::default(), "s").unwrap();
            let y = g.add1(LeakyRelu { alpha: 0.25 }, &[s], Origin::default(), "y").unwrap();
            g.add_output("y", y);
            check(&g, &[x, bias], &EQUAL);
        }
    }

    /// `relu(x * a) + b` in one program without a root, f32.
    fn fused() -> Fused {
        let program = Pointwise::build(&[DType::F32; 3], |p, x| {
            let m = p.binary(BinaryFn::Mul, x[0], x[1]);
            let r = p.binary_const(BinaryFn::Max, m, 0.0);
            p.binary(BinaryFn::Add, r, x[2])
        });
        Fused { root: None, program, root_operands: 0 }
    }

    /// A shape that broadcasts to `dims`: some axes 1, some leading ones missing.
    fn broadcastable(dims: &[usize], ones: u32, missing: usize) -> Vec<usize> {
        let kept = dims.iter().enumerate().skip(missing.min(dims.len()));
        kept.map(|(a, &d)| if ones >> a & 1 == 1 { 1 } else { d }).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn operands_broadcast(dims in prop::collection::vec(prop::sample::select(vec![1usize, 2, 3, 5, 8, 17]), 0..5),
                              ones in prop::array::uniform3(0u32..32), missing in prop::array::uniform3(0usize..4)) {
            let mut g = Graph::new("broadcast");
            let full = tensor(9, &dims);
            let mut inputs: Vec<Tensor> = (0..3).map(|i| tensor(i as u64, &broadcastable(&dims, ones[i], missing[i]))).collect();
            inputs[(ones[0] % 3) as usize] = full;
            let v: Vec<ValueId> = inputs.iter().map(|t| g.add_input("x", t.ty())).collect();
            let y = g.add1(fused(), &v, Origin::default(), "y").unwrap();
            g.add_output("y", y);
            check(&g, &inputs, &EQUAL);
        }

        #[test]
        fn layouts_mix(n in 1usize..3, c in prop::sample::select(vec![1usize, 3, 7, 8, 9, 16, 17, 24, 33]), h in 1usize..4, w in 1usize..6,
                       ones in prop::array::uniform3(0u32..16), blocked in prop::array::uniform4(any::<bool>()), missing in prop::array::uniform3(0usize..4)) {
            let dims = [n, c, h, w];
            let mut g = Graph::new("layouts");
            let shapes: Vec<Vec<usize>> = (0..3).map(|i| match (i, blocked[i]) {
                (0, _) => dims.to_vec(),
                (_, true) => broadcastable(&dims, ones[i], 0),
                (_, false) => broadcastable(&dims, ones[i], missing[i]),
            }).collect();
            let inputs: Vec<Tensor> = shapes.iter().enumerate().map(|(i, s)| tensor(i as u64, s)).collect();
            let v: Vec<ValueId> = inputs.iter().map(|t| g.add_input("x", t.ty())).collect();
            let y = g.add1(fused(), &v, Origin::default(), "y").unwrap();
            for (v, is_blocked) in v.iter().chain([&y]).zip(blocked) {
                g.set_layout(*v, if is_blocked { Layout::Blocked } else { Layout::RowMajor });
            }
            g.add_output("y", y);
            check(&g, &inputs, &EQUAL);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whole planes and pieces of them, several in a task, of every number of images and blocks: `relu(x * a) + b`, a
        /// number a channel.
        #[test]
        fn planes_of_any_size(n in 1usize..4, c in prop::sample::select(vec![8usize, 16, 24, 48]), h in 1usize..70, w in 1usize..50,
                              blocked in any::<bool>()) {
            let dims = [n, c, h, w];
            let mut g = Graph::new("planes");
            let inputs = [tensor(1, &dims), tensor(2, &[c, 1, 1]), tensor(3, &[1, c, 1, 1])];
            let v: Vec<ValueId> = inputs.iter().map(|t| g.add_input("x", t.ty())).collect();
            let y = g.add1(fused(), &v, Origin::default(), "y").unwrap();
            if blocked {
                g.set_layout(v[0], Layout::Blocked);
                g.set_layout(y, Layout::Blocked);
            }
            g.add_output("y", y);
            check(&g, &inputs, &EQUAL);
        }
    }

    #[test]
    fn programs_on_blocked_values_run_over_padding() {
        let x = tensor(4, &[2, 19, 3, 5]);
        let mut g = Graph::new("blocked");
        let v = g.add_input("x", x.ty());
        let y = g.add1(HardSwish {}, &[v], Origin::default(), "y").unwrap();
        g.set_layout(v, Layout::Blocked);
        g.set_layout(y, Layout::Blocked);
        g.add_output("y", y);
        check(&g, &[x], &Tolerance::Relative { rel: 1e-6, abs: 1e-7 });
    }
}
