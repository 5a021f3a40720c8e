//! `Resize`: one resampling step for each axis that changes, with intermediates in the workspace.
//!
//! Axes are done in the order that keeps the intermediates small: those that shrink most first; of equal ones the last
//! first, since it is the dearest and later steps only add rows. Tables are computed here, from the operator's own
//! definition ([`Resize::table`]). Integers are interpolated in f64 between two conversions; nearest neighbours are moved
//! as they are. Blocked values resize their spatial axes, full blocks and the last block as steps of their own.

use crate::kernels::pointwise::elem_of;
use crate::kernels::resample::{Resample, resample};
use crate::lower::elementwise::lower_map;
use crate::lower::{Call, LowerCx, LowerError, Operand};
use crate::program::Arg;
use nncc_ir::ops::resize::{Resize, ResizeGradient, ResizeMode, Table};
use nncc_ir::{BLOCK, DType, HALF_BLOCK, Layout, Pointwise, Tensor, padded_channels};

/// Outer loops as (count, stride in x, stride in y), inner elements, and where x and y begin.
type Part = ([(usize, usize, usize); 2], usize, [usize; 2]);

/// The longest axis that is resized. Its tables are constants of the library, up to 64 bytes an element and 200 while they are
/// made, and the length may be any number that a model file names.
const LONGEST: usize = 1 << 18;

/// Lowers a resize.
///
/// # Errors
/// A blocked value that is resized along batch or channels; an axis beyond `LONGEST`.
pub fn lower(op: &Resize, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (x, y) = (cx.input(0)?, cx.output(0));
    if x.layout != y.layout {
        return Err(cx.unsupported("operand and result in different layouts"));
    }
    if y.elems() == 0 {
        return Ok(());
    }
    let tables = tables_of(op, &x.dims, &y.dims, cx)?;
    if op.mode == ResizeMode::Nearest || x.dtype.is_float() {
        return lower_axes(&tables, op.extrapolation_value, &x, &y, cx);
    }
    let wide = cx.temporary(DType::F64, &x.dims, x.layout)?;
    let done = cx.temporary(DType::F64, &y.dims, y.layout)?;
    let cast = |from: DType, to: DType| Pointwise::build(&[from], |p, v| p.cast(v[0], to));
    lower_map(&cast(x.dtype, DType::F64), std::slice::from_ref(&x), &wide, "cast", cx)?;
    lower_axes(&tables, op.extrapolation_value, &wide, &done, cx)?;
    lower_map(&cast(DType::F64, y.dtype), &[done], &y, "cast", cx)
}

/// Lowers the gradient of a resize: the same steps, through transposed tables.
///
/// # Errors
/// A blocked value that was resized along batch or channels; an axis beyond `LONGEST`.
pub fn lower_gradient(op: &ResizeGradient, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    let (dy, dx) = (cx.input(0)?, cx.output(0));
    if dy.layout != dx.layout {
        return Err(cx.unsupported("operand and result in different layouts"));
    }
    if dx.elems() == 0 {
        return Ok(());
    }
    let forward = tables_of(&op.forward(&dy.ty().shape), &dx.dims, &dy.dims, cx)?;
    let back = |(table, &len): (&Option<Table>, &usize)| table.as_ref().map(|table| transposed(table, len));
    let tables: Vec<Option<Table>> = forward.iter().zip(&dx.dims).map(back).collect();
    lower_axes(&tables, 0.0, &dy, &dx, cx)
}

/// The table that brings outputs back to `len` inputs: the taps of each are the outputs that read it. What no output reads is
/// outside.
fn transposed(table: &Table, len: usize) -> Table {
    let mut rows: Vec<Vec<(usize, f64)>> = vec![Vec::new(); len];
    for i in (0..table.outside.len()).filter(|&i| !table.outside[i]) {
        let taps = i * table.taps..(i + 1) * table.taps;
        for (&at, &weight) in table.inputs[taps.clone()].iter().zip(&table.weights[taps]).filter(|(_, w)| **w != 0.0) {
            match rows[at].last_mut() {
                Some((output, sum)) if *output == i => *sum += weight,
                _ => rows[at].push((i, weight)),
            }
        }
    }
    let taps = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let outside = rows.iter().map(Vec::is_empty).collect();
    for row in &mut rows {
        // What fills a row reads what the row reads anyway.
        let first = row.first().map_or(0, |(i, _)| *i);
        row.resize(taps, (first, 0.0));
    }
    let (inputs, weights) = rows.into_iter().flatten().unzip();
    Table { taps, inputs, weights, outside }
}

/// The tables of the axes that change.
fn tables_of(
    op: &Resize,
    from: &[usize],
    to: &[usize],
    cx: &LowerCx<'_, '_>,
) -> Result<Vec<Option<Table>>, LowerError> {
    let table = |(axis, (&len, &n)): (usize, (&usize, &usize))| {
        if op.keeps(axis, len, n) {
            return Ok(None);
        }
        if len.max(n) > LONGEST {
            return Err(cx.unsupported(format!("an axis from {len} to {n} elements, {LONGEST} are possible")));
        }
        Ok(Some(op.table(axis, len, n)).filter(|table| !table.is_identity(len)))
    };
    from.iter().zip(to).enumerate().map(table).collect()
}

/// Appends the steps of all axes that change; what is outside becomes `extrapolation`.
fn lower_axes(
    tables: &[Option<Table>],
    extrapolation: f64,
    x: &Operand,
    y: &Operand,
    cx: &mut LowerCx<'_, '_>,
) -> Result<(), LowerError> {
    let mut axes: Vec<usize> = (0..x.rank()).filter(|&a| tables[a].is_some()).collect();
    // By growth n / d, compared as products; later axes first among equals.
    axes.sort_by(|&a, &b| (y.dims[a] * x.dims[b]).cmp(&(y.dims[b] * x.dims[a])).then(b.cmp(&a)));
    if x.layout == Layout::Blocked && axes.iter().any(|&a| a < 2) {
        return Err(cx.unsupported("a blocked value along batch or channels"));
    }
    if axes.is_empty() {
        return crate::kernels::copy::lower_copy(cx, x, y);
    }
    let mut now = x.clone();
    for (i, &axis) in axes.iter().enumerate() {
        let Some(table) = &tables[axis] else { continue };
        let next = if i + 1 == axes.len() {
            y.clone()
        } else {
            let mut dims = now.dims.clone();
            dims[axis] = y.dims[axis];
            cx.temporary(x.dtype, &dims, x.layout)?
        };
        lower_axis(extrapolation, axis, table, &now, &next, cx)?;
        now = next;
    }
    Ok(())
}

/// One axis of `x` into `y`, through a table.
fn lower_axis(
    extrapolation: f64,
    axis: usize,
    table: &Table,
    x: &Operand,
    y: &Operand,
    cx: &mut LowerCx<'_, '_>,
) -> Result<(), LowerError> {
    let (elem, n) = (elem_of(x.dtype), y.dims[axis]);
    let behind: usize = x.dims[axis + 1..].iter().product();
    let plane = |o: &Operand| o.dims.get(2..).map_or(1, |s| s.iter().product::<usize>());
    let mut parts: Vec<Part> = Vec::new();
    match x.layout {
        Layout::RowMajor => {
            let before = x.dims[..axis].iter().product();
            parts.push(([(1, 0, 0), (before, x.dims[axis] * behind, n * behind)], behind, [0, 0]));
        }
        Layout::Blocked => {
            let (images, channels) = (x.dims[0], x.dims[1]);
            let before: usize = x.dims[2..axis].iter().product();
            let stored = padded_channels(channels);
            let mut part = |first: usize, blocks: usize, width: usize| {
                let row = |len: usize| len * behind * width;
                let outer =
                    [(images, stored * plane(x), stored * plane(y)), (blocks * before, row(x.dims[axis]), row(n))];
                parts.push((outer, behind * width, [first * plane(x), first * plane(y)]));
            };
            let (whole, rest) = (channels / BLOCK, channels % BLOCK);
            if whole > 0 {
                part(0, whole, BLOCK);
            }
            if rest > 0 {
                part(whole * BLOCK, 1, if rest <= HALF_BLOCK { HALF_BLOCK } else { BLOCK });
            }
        }
    }
    let places = [cx.arg(x)?, cx.arg(y)?];
    for (outer, inner, starts) in parts {
        let weighted = table.taps > 1 || table.weights.iter().any(|&w| w != 1.0);
        let outside = table.outside.contains(&true).then(|| bits_of(x.dtype, extrapolation));
        let r = Resample { elem, outer, n, taps: table.taps, inner, weighted, outside };
        let order: Vec<usize> = match r.by_tap() {
            true => (0..table.taps).flat_map(|t| (0..n).map(move |i| i * table.taps + t)).collect(),
            false => (0..n * table.taps).collect(),
        };
        let bytes = x.dtype.bytes();
        let inputs = order.iter().flat_map(|&at| ((table.inputs[at] * inner * bytes) as i64).to_le_bytes());
        let mut args: Vec<Arg> = places.iter().zip(starts).map(|(place, at)| place.plus(at * bytes)).collect();
        args.push(cx.constant(inputs.collect()));
        if weighted {
            let weights: Vec<f64> = order.iter().map(|&at| table.weights[at]).collect();
            args.push(cx.constant(Tensor::from_f64(x.dtype, &[weights.len()], &weights).to_bytes()));
        }
        if outside.is_some() {
            let flag = |&o: &bool| [u8::from(o)].into_iter().chain(std::iter::repeat_n(0, bytes - 1));
            args.push(cx.constant(table.outside.iter().flat_map(flag).collect()));
        }
        let (kernel, tasks) = resample(cx.target(), &r);
        let kernel = cx.kernel(kernel);
        cx.step(Call::new(kernel, &args, tasks).labelled("resize"));
    }
    Ok(())
}

/// The bits of a number of a type, rounded as the reference does.
fn bits_of(dtype: DType, x: f64) -> u64 {
    let bytes = Tensor::from_f64(dtype, &[], &[x]).to_bytes();
    bytes.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Tolerance, check, tensor};
    use nncc_ir::ops::resize::{Coordinate, NearestMode};
    use nncc_ir::{Dim, Graph, Origin};
    use proptest::prelude::*;

    /// A few roundings an axis; cubic weights sum to at most 1.6 in absolute value.
    const CLOSE: Tolerance = Tolerance::Relative { rel: 1e-5, abs: 4e-6 };

    fn check_resize(op: Resize, x: &Tensor, layout: Layout) {
        let mut g = Graph::new("resize");
        let v = g.add_input("x", x.ty());
        let exact = op.mode == ResizeMode::Nearest;
        let y = g.add1(op, &[v], Origin::default(), "y").unwrap();
        g.set_layout(v, layout);
        g.set_layout(y, layout);
        g.add_output("y", y);
        check(&g, std::slice::from_ref(x), if exact { &Tolerance::Exact } else { &CLOSE });
    }

    fn resize(mode: ResizeMode, coordinate: Coordinate, sizes: &[usize]) -> Resize {
        let cropped = coordinate == Coordinate::TfCropAndResize;
        let roi = [vec![0.0; sizes.len()], vec![1.3; sizes.len()]].concat();
        Resize {
            scales: vec![],
            sizes: sizes.iter().map(|&n| Dim::from(n)).collect(),
            mode,
            coordinate,
            nearest: NearestMode::RoundPreferFloor,
            cubic_coeff_a: -0.75,
            exclude_outside: false,
            extrapolation_value: 2.5,
            antialias: false,
            roi: if cropped { roi } else { vec![] },
        }
    }

    fn modes() -> impl Strategy<Value = ResizeMode> {
        prop::sample::select(vec![ResizeMode::Nearest, ResizeMode::Linear, ResizeMode::Cubic])
    }

    fn coordinates() -> impl Strategy<Value = Coordinate> {
        use Coordinate::*;
        prop::sample::select(vec![HalfPixel, PytorchHalfPixel, AlignCorners, Asymmetric, TfCropAndResize])
    }

    /// The gradient of a resize of a tensor of these extents.
    fn check_gradient(op: &Resize, from: &[usize], to: &[usize], layout: Layout) {
        let back = ResizeGradient {
            scales: op.scales.clone(),
            input: from.to_vec(),
            mode: op.mode,
            coordinate: op.coordinate,
            nearest: op.nearest,
            cubic_coeff_a: op.cubic_coeff_a,
            exclude_outside: op.exclude_outside,
            antialias: op.antialias,
            roi: op.roi.clone(),
        };
        let dy = tensor(3, to);
        let mut g = Graph::new("gradient");
        let v = g.add_input("dy", dy.ty());
        let dx = g.add1(back, &[v], Origin::default(), "dx").unwrap();
        g.set_layout(v, layout);
        g.set_layout(dx, layout);
        g.add_output("dx", dx);
        // Up to twelve outputs along each of three axes go to one input.
        check(&g, &[dy], &Tolerance::Relative { rel: 1e-5, abs: 1e-4 });
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_axes(from in prop::collection::vec(1usize..6, 1..4), to in prop::array::uniform3(1usize..12), mode in modes(), coordinate in coordinates(), antialias in any::<bool>(), exclude_outside in any::<bool>()) {
            let op = Resize { antialias, exclude_outside, ..resize(mode, coordinate, &to[..from.len()]) };
            check_gradient(&op, &from, &to[..from.len()], Layout::RowMajor);
            check_resize(op, &tensor(1, &from), Layout::RowMajor);
        }

        #[test]
        fn blocked_values(c in prop::sample::select(vec![1usize, 8, 9, 16, 17, 33]), from in (1usize..5, 1usize..5), to in (1usize..8, 1usize..8), mode in modes(), coordinate in coordinates()) {
            let op = Resize { roi: if coordinate == Coordinate::TfCropAndResize { vec![0.0, 0.0, 0.1, -0.2, 1.0, 1.0, 1.2, 0.9] } else { vec![] }, ..resize(mode, coordinate, &[2, c, to.0, to.1]) };
            check_gradient(&op, &[2, c, from.0, from.1], &[2, c, to.0, to.1], Layout::Blocked);
            check_resize(op, &tensor(2, &[2, c, from.0, from.1]), Layout::Blocked);
        }
    }

    #[test]
    fn other_types() {
        for dtype in [DType::I8, DType::U8, DType::I32, DType::I64, DType::F64, DType::Bool] {
            let x = Tensor::from_i64(dtype, &[3, 5], &(0..15).map(|i| i * 7 - 20).collect::<Vec<_>>());
            for coordinate in [Coordinate::Asymmetric, Coordinate::TfCropAndResize] {
                check_resize(resize(ResizeMode::Nearest, coordinate, &[5, 9]), &x, Layout::RowMajor);
            }
        }
        let x = Tensor::from_i64(DType::U8, &[1, 4], &[0, 64, 128, 255]);
        check_resize(resize(ResizeMode::Linear, Coordinate::AlignCorners, &[1, 7]), &x, Layout::RowMajor);
    }

    /// Tables are constants: a length out of a file must not make them as large as it likes.
    #[test]
    fn long_axes_are_refused_unless_they_stay() {
        let lowered = |x: &[usize], y: &[usize]| {
            let mut g = Graph::new("long");
            let v = g.add_input("x", nncc_ir::TensorType::fixed(DType::F32, x));
            let op = resize(ResizeMode::Nearest, Coordinate::Asymmetric, y);
            let y = g.add1(op, &[v], Origin::named("resize"), "y").unwrap();
            g.add_output("y", y);
            let plan = crate::lower::Separate::plan(&g).expect("a graph that can be planned");
            let set = crate::lower::SetSource { graph: &g, plan: &plan };
            let targets = [crate::target::Target::x86_64_v3()];
            crate::lower::lower_any_layout("long", &[set], &targets, &crate::lower::Algorithms::default()).map(|_| ())
        };
        assert_eq!(lowered(&[1, 1 << 31, 2], &[1, 1 << 31, 4]), Ok(()));
        assert_eq!(lowered(&[1, 1, LONGEST], &[1, 1, LONGEST / 2]), Ok(()));
        let Err(e) = lowered(&[1, 4, 4], &[1, (1 << 31) + 4, 4]) else { panic!("a table of 16 GB") };
        let text =
            "unsupported: resize: an axis from 4 to 2147483652 elements, 262144 are possible\n  --> node \"resize\"";
        assert_eq!(e.to_string(), text);
    }
}
