//! Operators that make values: constants, sequences, windows, sampling grids.

use super::Entry;
use super::shape::filled;
use crate::build::Stop;
use crate::model::Attr;
use crate::node::{Imported, NodeCx};
use crate::tensor;
use crate::value::{DrawnVal, Val};
use nncc_ir::ops::{matmul, reshape, transpose};
use nncc_ir::{Dim, Tensor};
use std::f64::consts::PI;
use std::rc::Rc;

pub(super) const OPS: &[Entry] = &[
    Entry::new("AffineGrid", &[20], affine_grid),
    Entry::new("BlackmanWindow", &[17], |n| window(n, [0.42, -0.5, 0.08])),
    Entry::new("Constant", &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25], constant),
    Entry::new("ConstantOfShape", &[9, 20, 21, 23, 24, 25], constant_of_shape),
    Entry::new("EyeLike", &[9, 22], eye_like),
    Entry::new("HammingWindow", &[17], |n| window(n, [25.0 / 46.0, -21.0 / 46.0, 0.0])),
    Entry::new("HannWindow", &[17], |n| window(n, [0.5, -0.5, 0.0])),
    Entry::new("RandomUniformLike", &[1, 22], random_uniform_like).but("only as the slope of a PRelu: RReLU"),
    Entry::new("Range", &[11, 27], range),
];

fn constant(n: &mut NodeCx<'_>) -> Imported {
    let node = n.node;
    let kinds = [
        "value",
        "value_float",
        "value_floats",
        "value_int",
        "value_ints",
        "value_string",
        "value_strings",
        "sparse_value",
    ];
    let given: Vec<&(String, Attr)> = node.attributes.iter().filter(|(k, _)| kinds.contains(&k.as_str())).collect();
    let [(name, attr)] = given[..] else {
        return n.invalid(format!("it has {} values, not 1", given.len()));
    };
    let floats = |v: &[f32], dims: &[usize]| Tensor::f32(dims, v.to_vec());
    let value = match attr {
        Attr::Tensor(t) => Val::constant(t.content.clone()?),
        Attr::Float(x) => n.constant(&floats(&[*x], &[])),
        Attr::Floats(v) => n.constant(&floats(v, &[v.len()])),
        Attr::Int(x) => n.constant(&Tensor::i64(&[], vec![*x])),
        Attr::Ints(v) => n.constant(&Tensor::i64(&[v.len()], v.to_vec())),
        Attr::Text(_) | Attr::Texts(_) => return n.unsupported("of strings"),
        Attr::Other(kind) => return n.unsupported(format!("of {kind}")),
        Attr::Graph(_) | Attr::Reference(_) => return n.invalid(format!("the attribute `{name}` is {}", attr.kind())),
    };
    Ok(vec![value])
}

/// A splat, however large: it stays one number until it is packed.
fn constant_of_shape(n: &mut NodeCx<'_>) -> Imported {
    let shape = n.operand(0, "input")?;
    let shape = n.known_list(&shape, "input")?;
    let value = match n.attr("value") {
        None => Tensor::f32(&[], vec![0.0]),
        Some(Attr::Tensor(t)) => {
            let c = t.content.clone()?;
            match c.splat_value() {
                Some(one) => one,
                None => return n.invalid(format!("the attribute `value` has {} elements, not 1", c.elems())),
            }
        }
        Some(other) => return n.invalid(format!("the attribute `value` is {}, not a tensor", other.kind())),
    };
    Ok(vec![filled(n, &value, shape)?])
}

fn eye_like(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "input")?;
    let dtype = match n.maybe_int("dtype")? {
        Some(code) => tensor::dtype(code)?,
        None => n.dtype(&x),
    };
    let k = n.int("k", 0)?;
    let dims = n.known_dims(&x, "its size is not known")?;
    let &[rows, columns] = &dims[..] else { return n.invalid(format!("the operand has {} axes, not 2", dims.len())) };
    n.builder.spend(rows.saturating_mul(columns))?;
    let on =
        |r: usize, c: usize| i64::from(i64::try_from(c).ok() == i64::try_from(r).ok().and_then(|r| r.checked_add(k)));
    let elems: Vec<i64> = (0..rows).flat_map(|r| (0..columns).map(move |c| on(r, c))).collect();
    Ok(vec![n.constant(&Tensor::from_i64(dtype, &dims, &elems))])
}

/// The numbers themselves are those of the operator that takes them; a seed in the file has no meaning for it.
fn random_uniform_like(n: &mut NodeCx<'_>) -> Imported {
    let mut ty = n.operand(0, "input").map(|x| n.ty(&x))?;
    if let Some(code) = n.maybe_int("dtype")? {
        ty.dtype = tensor::dtype(code)?;
    }
    let (low, high) = (n.float("low", 0.0)?, n.float("high", 1.0)?);
    if !(ty.dtype.is_float() && low <= high && low.is_finite() && high.is_finite()) {
        return n.invalid(format!("numbers of type {} from {low} to {high}", ty.dtype));
    }
    Ok(vec![Val::Drawn(Rc::new(DrawnVal { ty, low, high }))])
}

/// `start + i * delta` for i from 0 while it is before `limit`.
fn range(n: &mut NodeCx<'_>) -> Imported {
    let names = ["start", "limit", "delta"];
    let mut bounds = Vec::new();
    for (i, name) in names.into_iter().enumerate() {
        let v = n.operand(i, name)?;
        let t = n.known_tensor(&v, name)?;
        if t.elems() != 1 {
            return n.invalid(format!("the operand `{name}` has {} elements, not 1", t.elems()));
        }
        bounds.push(t);
    }
    let [start, limit, delta] = &bounds[..] else { return n.invalid("an operand is missing") };
    let dtype = start.dtype();
    if limit.dtype() != dtype || delta.dtype() != dtype {
        let text = format!("the operands have the types {dtype}, {} and {}", limit.dtype(), delta.dtype());
        return n.invalid(text);
    }
    let first = |t: &Tensor| (t.to_f64().first().copied().unwrap_or(0.0), t.to_i64().first().copied().unwrap_or(0));
    let ((s, s_int), (l, l_int), (d, d_int)) = (first(start), first(limit), first(delta));
    if d == 0.0 {
        return n.invalid("the operand `delta` is 0");
    }
    let count = if dtype.is_float() {
        ((l - s) / d).ceil().max(0.0) as usize // NaN gives 0, infinity the largest number, which is refused
    } else {
        let (span, step) = (i128::from(l_int) - i128::from(s_int), i128::from(d_int));
        usize::try_from((span + step - step.signum()).div_euclid(step).max(0)).unwrap_or(usize::MAX)
    };
    n.builder.spend(count)?;
    let t = if dtype.is_float() {
        Tensor::from_f64(dtype, &[count], &(0..count).map(|i| s + i as f64 * d).collect::<Vec<f64>>())
    } else {
        let at = |i: usize| s_int.wrapping_add((i as i64).wrapping_mul(d_int));
        Tensor::from_i64(dtype, &[count], &(0..count).map(at).collect::<Vec<i64>>())
    };
    Ok(vec![n.constant(&t)])
}

/// `c0 + c1 cos(2 pi i / N) + c2 cos(4 pi i / N)`, N the size, less one if the window is not periodic.
fn window(n: &mut NodeCx<'_>, c: [f64; 3]) -> Imported {
    let size = n.operand(0, "size")?;
    let size = match usize::try_from(n.known_i64(&size, "size")?) {
        Ok(size) => size,
        Err(_) => return n.invalid("the size is negative"),
    };
    let dtype = tensor::dtype(n.int("output_datatype", 1)?)?;
    n.builder.spend(size)?;
    let period = if n.flag("periodic", true)? { size as f64 } else { size as f64 - 1.0 };
    let at = |i: usize| {
        let t = 2.0 * PI * i as f64 / period;
        c[0] + c[1] * t.cos() + c[2] * (2.0 * t).cos()
    };
    Ok(vec![n.constant(&Tensor::from_f64(dtype, &[size], &(0..size).map(at).collect::<Vec<f64>>()))])
}

/// Positions of an output's pixels in [-1, 1], last axis first, transformed by a matrix a sample.
fn affine_grid(n: &mut NodeCx<'_>) -> Imported {
    let (theta, size) = (n.operand(0, "theta")?, n.operand(1, "size")?);
    let dtype = n.dtype(&theta);
    let size = n.known_i64s(&size, "size")?;
    let align = n.flag("align_corners", false)?;
    let sizes: Option<Vec<usize>> = size.iter().map(|&d| usize::try_from(d).ok().filter(|d| *d > 0)).collect();
    let (batch, spatial) = match sizes.as_deref() {
        Some([batch, _, spatial @ ..]) if (2..=3).contains(&spatial.len()) => (*batch, spatial.to_vec()),
        _ => return n.invalid(format!("the size {size:?}, not [N, C, H, W] or [N, C, D, H, W]")),
    };
    let pixels = spatial.iter().fold(1usize, |p, &d| p.saturating_mul(d));
    n.builder.spend(pixels.saturating_mul(spatial.len() + 1))?;
    let coordinate = |i: usize, len: usize| {
        let len = len as f64;
        match align {
            true if len > 1.0 => -1.0 + 2.0 * i as f64 / (len - 1.0),
            true => 0.0,
            false => -1.0 + (2.0 * i as f64 + 1.0) / len,
        }
    };
    let mut points = Vec::with_capacity(pixels * (spatial.len() + 1));
    for index in nncc_ir::tensor::indices(&spatial) {
        points.extend(index.iter().zip(&spatial).rev().map(|(&i, &len)| coordinate(i, len)));
        points.push(1.0);
    }
    let points = n.constant(&Tensor::from_f64(dtype, &[1, pixels, spatial.len() + 1], &points));
    let theta = n.emit(transpose::Transpose { perm: vec![0, 2, 1] }, &[&theta])?;
    let grid = n.emit(matmul::MatMul {}, &[&points, &theta])?;
    let shape: Vec<usize> = [&[batch], &spatial[..], &[spatial.len()]].concat();
    Ok(vec![reshape_to(n, &grid, &shape)?])
}

fn reshape_to(n: &mut NodeCx<'_>, x: &Val, dims: &[usize]) -> Result<Val, Stop> {
    n.emit(reshape::Reshape { shape: dims.iter().map(|&d| Dim::from(d)).collect() }, &[x])
}
