//! Shapes and the movement of data: operators that compute nothing.
//!
//! What ONNX gives as operands (shapes, bounds, paddings) is attributes in the IR, so each is read when compiling. Such
//! operands may hold symbolic dimensions wherever the IR's attributes may.

use super::Entry;
use super::reduce::named_axes;
use crate::build::{Stop, from_symbolic};
use crate::node::{Imported, NodeCx};
use crate::value::Val;
use nncc_ir::broadcast::broadcast_shapes;
use nncc_ir::ops::{concat, expand, pad, reshape, slice, space_depth, transpose};
use nncc_ir::{Constant, DType, Dim, Shape, SymTensor, Tensor};

pub(super) const OPS: &[Entry] = &[
    Entry::new("CenterCropPad", &[18], center_crop_pad),
    Entry::new("Concat", &[1, 4, 11, 13], concat_),
    Entry::new("DepthToSpace", &[1, 11, 13, 28], depth_to_space),
    Entry::new("Dropout", &[1, 6, 7, 10, 12, 13, 22], dropout).but("training mode is not supported"),
    Entry::new("Expand", &[8, 13], expand_),
    Entry::new("Flatten", &[1, 9, 11, 13, 21, 23, 24, 25], flatten),
    Entry::new("Identity", &[1, 13, 14, 16, 19, 21, 23, 24, 25], |n| Ok(vec![n.operand(0, "input")?])),
    Entry::new("Pad", &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25], pad_),
    Entry::new("Reshape", &[1, 5, 13, 14, 19, 21, 23, 24, 25], reshape_),
    Entry::new("Shape", &[1, 13, 15, 19, 21, 23, 24, 25], shape),
    Entry::new("Size", &[1, 13, 19, 21, 23, 24, 25], size),
    Entry::new("Slice", &[1, 10, 11, 13], slice_),
    Entry::new("SpaceToDepth", &[1, 13, 28], space_to_depth),
    Entry::new("Split", &[1, 2, 11, 13, 18], split),
    Entry::new("Squeeze", &[1, 11, 13, 21, 23, 24, 25], squeeze),
    Entry::new("Tile", &[1, 6, 13], tile),
    Entry::new("Transpose", &[1, 13, 21, 23, 24, 25], transpose_),
    Entry::new("Unsqueeze", &[1, 11, 13, 21, 23, 24, 25], unsqueeze),
];

/// `x` under another shape; `x` itself if it has that one.
pub(super) fn reshaped(n: &mut NodeCx<'_>, x: &Val, shape: Shape) -> Result<Val, Stop> {
    if n.shape(x) == shape { Ok(x.clone()) } else { n.emit(reshape::Reshape { shape }, &[x]) }
}

fn product(dims: &[Dim]) -> Dim {
    dims.iter().fold(Dim::Known(1), |p, d| p.mul(d))
}

// ---- shapes -------------------------------------------------------------------------------------------------------------

fn shape(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "data")?;
    let shape = n.shape(&x);
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let bound = |b: i64| if b < 0 { b.saturating_add(rank) } else { b }.clamp(0, rank) as usize;
    let (start, end) = (bound(n.int("start", 0)?), bound(n.int("end", rank)?));
    let elems = shape.get(start..end).unwrap_or_default().to_vec();
    Ok(vec![n.shape_value(elems)?])
}

fn size(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "data")?;
    let elems = vec![product(&n.shape(&x))];
    Ok(vec![from_symbolic(SymTensor { dims: Vec::new(), elems }, DType::I64)?])
}

/// 0 keeps a dimension (unless `allowzero`), -1 is what is left.
fn reshape_(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "data")?;
    let wanted: Vec<Dim> = if n.version < 5 {
        n.required_ints("shape")?.into_iter().map(Dim::Known).collect()
    } else {
        let shape = n.operand(1, "shape")?;
        n.known_list(&shape, "shape")?
    };
    let keeps_zero = n.flag("allowzero", false)?;
    let given = n.shape(&x);
    let mut shape = wanted.clone();
    let mut open = None;
    for (i, d) in shape.iter_mut().enumerate() {
        match d.known() {
            Some(0) if !keeps_zero => match given.get(i) {
                Some(own) => *d = own.clone(),
                None => return n.invalid(format!("the shape keeps dimension {i} of a value of rank {}", given.len())),
            },
            Some(-1) if open.is_none() => open = Some(i),
            Some(-1) => return n.invalid("the shape leaves two dimensions open"),
            Some(k) if k < 0 => return n.invalid(format!("the shape has the dimension {k}")),
            _ => {}
        }
    }
    if let Some(i) = open {
        shape[i] = Dim::Known(1);
        // Dimensions that stand on both sides cancel, also where they are symbolic.
        let (mut above, mut below) = (given.clone(), shape.clone());
        below.retain(|d| match above.iter().position(|a| a == d && d.known() != Some(0)) {
            Some(at) => {
                above.remove(at);
                false
            }
            None => true,
        });
        let (above, below) = (product(&above), product(&below));
        match above.floor_div(&below) {
            Some(q) if above.known().is_none() || below.known().is_none() || q.mul(&below) == above => shape[i] = q,
            _ => {
                let text = |s: &[Dim]| s.iter().map(Dim::to_string).collect::<Vec<_>>().join(",");
                return n.invalid(format!("[{}] has no whole number for -1 in [{}]", text(&given), text(&wanted)));
            }
        }
    }
    Ok(vec![reshaped(n, &x, shape)?])
}

fn flatten(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "input")?;
    let shape = n.shape(&x);
    let axis = n.int("axis", 1)?;
    // The axis may also be the rank: everything is in front of it.
    let axis = if usize::try_from(axis) == Ok(shape.len()) { shape.len() } else { n.axis(axis, shape.len())? };
    let (before, behind) = shape.split_at(axis);
    let flat = vec![product(before), product(behind)];
    Ok(vec![reshaped(n, &x, flat)?])
}

fn squeeze(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "data")?;
    let mut shape = n.shape(&x);
    match named_axes(n, n.version >= 13)? {
        None => shape.retain(|d| *d != Dim::Known(1)),
        Some(axes) => {
            let mut axes = n.axes(&axes, shape.len())?;
            axes.sort();
            for &a in axes.iter().rev() {
                let d = shape.remove(a);
                if d.known().is_some_and(|d| d != 1) {
                    return n.invalid(format!("axis {a} has the length {d}, not 1"));
                }
            }
        }
    }
    Ok(vec![reshaped(n, &x, shape)?])
}

fn unsqueeze(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "data")?;
    let Some(axes) = named_axes(n, n.version >= 13)? else { return n.invalid("the axes are missing") };
    let mut shape = n.shape(&x);
    let mut axes = n.axes(&axes, shape.len() + axes.len())?;
    axes.sort();
    for a in axes {
        shape.insert(a.min(shape.len()), Dim::Known(1));
    }
    Ok(vec![reshaped(n, &x, shape)?])
}

// ---- copies -------------------------------------------------------------------------------------------------------------

fn expand_(n: &mut NodeCx<'_>) -> Imported {
    let (x, shape) = (n.operand(0, "input")?, n.operand(1, "shape")?);
    let wanted = n.known_list(&shape, "shape")?;
    if let Some(d) = wanted.iter().find(|d| d.known().is_some_and(|n| n < 0)) {
        return n.invalid(format!("the shape has the dimension {d}"));
    }
    let given = n.shape(&x);
    let shape = match broadcast_shapes([&given[..], &wanted[..]]) {
        Ok(shape) => shape,
        Err(e) => return n.invalid(e.0),
    };
    if shape == given {
        return Ok(vec![x]);
    }
    Ok(vec![n.emit(expand::Expand { shape }, &[&x])?])
}

/// In opset 1 one axis is repeated, since then each has its count.
fn tile(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "input")?;
    let rank = n.rank(&x);
    let repeats = n.operand(1, "repeats")?;
    let given = if n.version < 6 {
        let axis = n.operand(2, "axis")?;
        let axis = n.axis(n.known_i64(&axis, "axis")?, rank)?;
        let mut all = vec![1; rank];
        all[axis] = n.known_i64(&repeats, "tiles")?;
        all
    } else {
        n.known_i64s(&repeats, "repeats")?
    };
    match given.iter().map(|&r| usize::try_from(r).ok()).collect::<Option<Vec<usize>>>() {
        Some(repeats) => Ok(vec![n.emit(expand::Tile { repeats }, &[&x])?]),
        None => n.invalid(format!("the repeats {given:?}; none may be negative")),
    }
}

fn concat_(n: &mut NodeCx<'_>) -> Imported {
    let operands = n.variadic()?;
    let rank = operands.first().map_or(0, |x| n.rank(x));
    let axis = if n.version < 4 { n.int("axis", 1)? } else { n.required_int("axis")? };
    let axis = n.axis(axis, rank)?;
    let operands: Vec<Option<&Val>> = operands.iter().map(Some).collect();
    n.emit_all(concat::Concat { axis }, &operands)
}

/// Sizes are given (an attribute, then an operand), or equal; with `num_outputs` the last one may be smaller.
fn split(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "input")?;
    let shape = n.shape(&x);
    let axis = n.axis(n.int("axis", 0)?, shape.len())?;
    let whole = shape.get(axis).cloned().unwrap_or(Dim::Known(0));
    let given = match n.optional(1) {
        Some(sizes) if n.version >= 13 || n.version == 1 => Some(n.known_list(&sizes, "split")?),
        _ => n.ints("split")?.map(|s| s.into_iter().map(Dim::Known).collect()),
    };
    let outputs = n.node.outputs.len();
    let sizes: Vec<Dim> = match given {
        Some(sizes) => sizes,
        None => {
            let parts = match n.maybe_int("num_outputs")? {
                Some(parts) if usize::try_from(parts) != Ok(outputs) => {
                    return n
                        .invalid(format!("the attribute `num_outputs` is {parts}, the node has {outputs} outputs"));
                }
                _ => outputs,
            };
            let parts_dim = Dim::from(parts);
            let each = if n.version >= 18 {
                whole.ceil_div(parts_dim.known().unwrap_or(1))
            } else {
                whole.floor_div(&parts_dim).filter(|each| whole.known().is_none() || each.mul(&parts_dim) == whole)
            };
            let Some(each) = each else { return n.invalid(format!("{whole} elements in {parts} equal parts")) };
            let last = whole.sub(&each.mul(&Dim::from(parts.saturating_sub(1))));
            if last.known().is_some_and(|l| l < 0) {
                return n.invalid(format!("{whole} elements in {parts} parts of {each}"));
            }
            let mut sizes = vec![each; parts.saturating_sub(1)];
            sizes.push(last);
            sizes
        }
    };
    if sizes.len() != outputs {
        return n.invalid(format!("{} sizes for {outputs} outputs", sizes.len()));
    }
    n.emit_all(concat::Split { axis, sizes }, &[Some(&x)])
}

// ---- parts --------------------------------------------------------------------------------------------------------------

fn slice_(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "data")?;
    let shape = n.shape(&x);
    let list = |n: &NodeCx<'_>, i: usize, name: &str| -> Result<Option<Vec<Dim>>, Stop> {
        if n.version < 10 {
            return Ok(n.ints(name)?.map(|v| v.into_iter().map(Dim::Known).collect()));
        }
        n.optional(i).map(|v| n.known_list(&v, name)).transpose()
    };
    let (Some(from), Some(to)) = (list(n, 1, "starts")?, list(n, 2, "ends")?) else {
        return n.invalid("`starts` or `ends` is missing");
    };
    let numbers = |n: &NodeCx<'_>, i: usize, name: &str| -> Result<Option<Vec<i64>>, Stop> {
        match list(n, i, name)?.map(|v| v.iter().map(Dim::known).collect::<Option<Vec<i64>>>()) {
            None => Ok(None),
            Some(Some(v)) => Ok(Some(v)),
            Some(None) => n.unsupported(format!("with `{name}` that depend on a dimension")),
        }
    };
    let axes = numbers(n, 3, "axes")?.unwrap_or_else(|| (0..).take(from.len()).collect());
    let by = if n.version < 10 { None } else { numbers(n, 4, "steps")? }.unwrap_or_else(|| vec![1; from.len()]);
    let lengths = [from.len(), to.len(), axes.len(), by.len()];
    if lengths.iter().any(|&l| l != from.len()) {
        return n.invalid(format!("starts, ends, axes and steps have {lengths:?} elements"));
    }
    let (mut starts, mut lens, mut steps) = (vec![Dim::Known(0); shape.len()], shape.clone(), vec![1; shape.len()]);
    for (((axis, from), to), by) in n.axes(&axes, shape.len())?.into_iter().zip(&from).zip(&to).zip(&by) {
        let Some(size) = shape.get(axis) else { continue };
        let Some((start, len)) = taken(size, from, to, *by) else { return n.invalid("a step is 0") };
        starts[axis] = start;
        lens[axis] = len;
        steps[axis] = *by;
    }
    if lens == shape && steps.iter().all(|&s| s == 1) {
        return Ok(vec![x]);
    }
    Ok(vec![n.emit(slice::Slice { starts, lens, steps }, &[&x])?])
}

/// First element and number of elements of `from..to` by `step` on an axis of `size`, as numpy clamps them; `None` for a
/// step of 0. Symbolic bounds count from the start: exporters write `H - 1` for what a number would be -1.
fn taken(size: &Dim, from: &Dim, to: &Dim, step: i64) -> Option<(Dim, Dim)> {
    let one = Dim::Known(1);
    let from_start = |b: &Dim| if b.known().is_some_and(|b| b < 0) { b.add(size) } else { b.clone() };
    let (from, to) = (from_start(from), from_start(to));
    let zero = Dim::Known(0);
    if step > 0 {
        let (start, end) = (larger(&smaller(&from, size), &zero), larger(&smaller(&to, size), &zero));
        let len = larger(&end.sub(&start), &zero).ceil_div(step)?;
        // An empty range starts at 0, whatever the bounds: its start is never read.
        return Some(if len == zero { (zero, len) } else { (start, len) });
    }
    let (last, before) = (size.sub(&one), Dim::Known(-1));
    let (start, end) = (larger(&smaller(&from, &last), &before), larger(&smaller(&to, &last), &before));
    let len = larger(&start.sub(&end), &zero).ceil_div(step.checked_neg().filter(|s| *s > 0)?)?;
    Some(if len == zero { (zero, len) } else { (start, len) })
}

/// The smaller of two bounds, without a `min` where one is known to be. Numbers that no axis reaches stand for "the end".
fn smaller(a: &Dim, b: &Dim) -> Dim {
    match a.known() {
        Some(n) if n >= i64::from(i32::MAX) && b.known().is_none() => b.clone(),
        _ if b.sub(a).is_never_negative() => a.clone(),
        _ if a.sub(b).is_never_negative() => b.clone(),
        _ => a.min_of(b),
    }
}

fn larger(a: &Dim, b: &Dim) -> Dim {
    match () {
        () if a.sub(b).is_never_negative() => a.clone(),
        () if b.sub(a).is_never_negative() => b.clone(),
        () => a.max_of(b),
    }
}

// ---- padding ------------------------------------------------------------------------------------------------------------

fn pad_(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "data")?;
    let rank = n.rank(&x);
    let (pads, axes) = match n.version {
        1 => (n.required_ints("paddings")?, None),
        2 => (n.required_ints("pads")?, None),
        _ => {
            let pads = n.operand(1, "pads")?;
            let axes = if n.version < 18 { None } else { n.optional(3) };
            let axes = axes.map(|a| n.known_i64s(&a, "axes")).transpose()?;
            (n.known_i64s(&pads, "pads")?, axes)
        }
    };
    let axes = axes.unwrap_or_else(|| (0..).take(rank).collect());
    let axes = n.axes(&axes, rank)?;
    if pads.len() != 2 * axes.len() {
        return n.invalid(format!("{} paddings for {} axes, not two each", pads.len(), axes.len()));
    }
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    let (begins, ends) = pads.split_at(axes.len());
    for ((axis, b), e) in axes.into_iter().zip(begins).zip(ends) {
        before[axis] = *b;
        after[axis] = *e;
    }
    let mut modes =
        vec![("constant", pad::PadMode::Constant), ("reflect", pad::PadMode::Reflect), ("edge", pad::PadMode::Edge)];
    if n.version >= 19 {
        modes.push(("wrap", pad::PadMode::Wrap));
    }
    let mode = n.choice("mode", "constant", &modes)?;
    let mut value = if n.version < 11 { n.float("value", 0.0)? } else { 0.0 };
    let mut operand = if n.version < 11 { None } else { n.optional(2) };
    if let Some(c) = operand.as_ref().and_then(Val::as_const)
        && let Some(number) = c.splat_value().map(|t| t.to_f64())
        && let [number] = number[..]
        && (number.abs() < 9e15 || c.dtype().is_float())
    {
        (value, operand) = (number, None); // the common case: a number that f64 holds
    }
    if before.iter().chain(&after).all(|&p| p == 0) {
        return Ok(vec![x]);
    }
    let op = pad::Pad { before, after, mode, value };
    let operands = [Some(&x), operand.as_ref()];
    n.emit_all(op, if operand.is_some() { &operands[..] } else { &operands[..1] })
}

/// Crops or pads (with zeros) around the centre: of an odd difference the smaller half is in front.
fn center_crop_pad(n: &mut NodeCx<'_>) -> Imported {
    let (x, wanted) = (n.operand(0, "input_data")?, n.operand(1, "shape")?);
    let dims = n.known_dims(&x, "what to crop is not known")?;
    let wanted = n.known_i64s(&wanted, "shape")?;
    let axes = n.ints("axes")?.unwrap_or_else(|| (0..).take(dims.len()).collect());
    let axes = n.axes(&axes, dims.len())?;
    if wanted.len() != axes.len() {
        return n.invalid(format!("{} sizes for {} axes", wanted.len(), axes.len()));
    }
    let (mut starts, mut lens) = (vec![Dim::Known(0); dims.len()], n.shape(&x));
    let (mut before, mut after) = (vec![0; dims.len()], vec![0; dims.len()]);
    for (axis, want) in axes.into_iter().zip(wanted) {
        let have = i64::try_from(dims[axis]).unwrap_or(i64::MAX);
        if want < 0 {
            return n.invalid(format!("the size {want}"));
        }
        if want <= have {
            starts[axis] = Dim::Known((have - want) / 2);
            lens[axis] = Dim::Known(want);
        } else {
            before[axis] = (want - have) / 2;
            after[axis] = (want - have) - before[axis];
        }
    }
    let steps = vec![1; dims.len()];
    let y = n.emit(slice::Slice { starts, lens, steps }, &[&x])?;
    Ok(vec![n.emit(pad::Pad { before, after, mode: pad::PadMode::Constant, value: 0.0 }, &[&y])?])
}

// ---- permutations -------------------------------------------------------------------------------------------------------

fn transpose_(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "data")?;
    let rank = n.rank(&x);
    let perm = match n.ints("perm")? {
        None => (0..rank).rev().collect(),
        Some(perm) if perm.len() != rank => {
            return n.invalid(format!("the attribute `perm` has {} elements, the operand {rank} axes", perm.len()));
        }
        Some(perm) => n.axes(&perm, rank)?,
    };
    Ok(vec![n.emit(transpose::Transpose { perm }, &[&x])?])
}

fn depth_to_space(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "input")?;
    let block = n.count("blocksize", None)?;
    let modes = [("DCR", space_depth::DepthOrder::Dcr), ("CRD", space_depth::DepthOrder::Crd)];
    let mode = n.choice("mode", "DCR", &modes)?;
    Ok(vec![n.emit(space_depth::DepthToSpace { block, mode }, &[&x])?])
}

/// The order CRD of opset 28 is written as the Reshape and Transpose that define it.
fn space_to_depth(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "input")?;
    let block = n.count("blocksize", None)?;
    if n.choice("mode", "DCR", &[("DCR", true), ("CRD", false)])? {
        return Ok(vec![n.emit(space_depth::SpaceToDepth { block }, &[&x])?]);
    }
    let b = Dim::from(block);
    let shape = n.shape(&x);
    let [batch, c, h, w] = &shape[..] else { return n.invalid(format!("the operand has {} axes, not 4", shape.len())) };
    let (Some(rows), Some(columns)) = (h.floor_div(&b), w.floor_div(&b)) else {
        return n.invalid("the attribute `blocksize` is 0");
    };
    let parts = [batch.clone(), c.clone(), rows.clone(), b.clone(), columns.clone(), b.clone()];
    let parts = n.emit(reshape::Reshape { shape: parts.to_vec() }, &[&x])?;
    let moved = n.emit(transpose::Transpose { perm: vec![0, 1, 3, 5, 2, 4] }, &[&parts])?;
    let shape = vec![batch.clone(), c.mul(&b).mul(&b), rows, columns];
    Ok(vec![n.emit(reshape::Reshape { shape }, &[&moved])?])
}

// ---- nothing ------------------------------------------------------------------------------------------------------------

/// At inference the operand passes and the mask is all ones: bool since opset 10, of the operand's type before. For training
/// the operator stays, if all of it is used that can be trained: not the mask.
fn dropout(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "data")?;
    let given = n.version >= 12;
    let training = match n.optional(2).filter(|_| given) {
        Some(training) => n.known_i64(&training, "training_mode")? != 0,
        None => false,
    };
    // The operand of a Dropout that does nothing may be anything.
    let ratio = match n.optional(1).filter(|_| given && (training || n.builder.training)) {
        Some(r) => n.known_tensor(&r, "ratio")?.to_f64().first().copied().unwrap_or(0.5),
        None if given => 0.5,
        None => n.float("ratio", 0.5)?,
    };
    if n.builder.training && !n.wants(1) && n.dtype(&x).is_float() {
        let stream = n.builder.stream();
        return Ok(vec![n.emit(nncc_ir::ops::dropout::Dropout { ratio, whole_channels: false, stream }, &[&x])?]);
    }
    if training && ratio != 0.0 {
        return n.unsupported("in training mode");
    }
    let mut outputs = vec![x.clone()];
    if n.wants(1) {
        let dtype = if n.version < 10 { n.dtype(&x) } else { DType::Bool };
        let shape = n.shape(&x);
        outputs.push(filled(n, &Tensor::from_i64(dtype, &[], &[1]), shape)?);
    }
    Ok(outputs)
}

/// A value with every element equal to `value`'s one.
pub(super) fn filled(n: &mut NodeCx<'_>, value: &Tensor, shape: Shape) -> Result<Val, Stop> {
    crate::build::check_size(&nncc_ir::TensorType { dtype: value.dtype(), shape: shape.clone() })?;
    if let Some(dims) = shape.iter().map(Dim::size).collect::<Option<Vec<usize>>>() {
        return match Constant::splat(value, &dims) {
            Some(c) => Ok(Val::constant(c)),
            None => n.invalid(format!("a value of {} elements, not 1", value.elems())),
        };
    }
    let scalar = n.constant(value);
    let scalar = reshaped(n, &scalar, Vec::new())?;
    n.emit(expand::Expand { shape }, &[&scalar])
}
