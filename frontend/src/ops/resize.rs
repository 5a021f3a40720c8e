//! Resampling: Resize, and Upsample which it replaced.
//!
//! Up to opset 10 there is one rule, kept as runtimes implement it: output i reads input i / scale; `nearest` rounds that
//! down where the axis grows and up where it shrinks. Since opset 11 the rule is spelled out by attributes, since 18 for
//! chosen axes and with antialiasing.

use super::Entry;
use crate::build::{Stop, needs_dims};
use crate::node::{Imported, NodeCx};
use crate::value::Val;
use nncc_ir::Dim;
use nncc_ir::ops::resize as ir;

pub(super) const OPS: &[Entry] = &[
    Entry::new("Resize", &[10, 11, 13, 18, 19], resize),
    Entry::new("Upsample", &[1, 7, 9, 10], |n| {
        if n.version >= 10 {
            return n.invalid("it was removed in opset 10, where Resize takes its place");
        }
        legacy(n)
    }),
];

/// Upsample, and Resize of opset 10.
fn legacy(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "X")?;
    let rank = n.rank(&x);
    let scales: Vec<f32> = match (n.node.op.as_str(), n.version) {
        ("Upsample", 1) => match (rank, n.maybe_float("height_scale")?, n.maybe_float("width_scale")?) {
            (4, Some(h), Some(w)) => vec![1.0, 1.0, h as f32, w as f32],
            (4, ..) => return n.invalid("the attribute `height_scale` or `width_scale` is missing"),
            _ => return n.invalid(format!("the operand has {rank} axes, not 4")),
        },
        ("Upsample", 7) => match n.floats("scales")? {
            Some(scales) => scales,
            None => return n.invalid("the attribute `scales` is missing"),
        },
        _ => {
            let scales = n.operand(1, "scales")?;
            n.known_tensor(&scales, "scales")?.to_f64().into_iter().map(|s| s as f32).collect()
        }
    };
    let modes = [
        ("nearest", ir::ResizeMode::Nearest),
        ("linear", ir::ResizeMode::Linear),
        ("bilinear", ir::ResizeMode::Linear),
    ];
    let mode = n.choice("mode", "nearest", &modes)?;
    let plain = |scales: Vec<f64>, sizes: Vec<Dim>, nearest| ir::Resize {
        scales,
        sizes,
        mode,
        coordinate: ir::Coordinate::Asymmetric,
        nearest,
        cubic_coeff_a: -0.75,
        exclude_outside: false,
        extrapolation_value: 0.0,
        antialias: false,
        roi: Vec::new(),
    };
    check_scales(n, &scales, rank)?;
    // Axes that shrink round the other way: they are resampled in a step of their own.
    let part = |keep: fn(f32) -> bool| scales.iter().map(|&s| if keep(s) { s } else { 1.0 }).collect::<Vec<f32>>();
    let mut y = x;
    for (part, nearest) in [(part(|s| s >= 1.0), ir::NearestMode::Floor), (part(|s| s < 1.0), ir::NearestMode::Ceil)] {
        if part.iter().any(|&s| s != 1.0) {
            let sizes = scaled(&n.shape(&y), &part)?;
            y = n.emit(plain(part.iter().map(|&s| f64::from(s)).collect(), sizes, nearest), &[&y])?;
        }
    }
    Ok(vec![y])
}

fn check_scales(n: &NodeCx<'_>, scales: &[f32], axes: usize) -> Result<(), Stop> {
    if scales.len() != axes {
        return n.invalid(format!("{} scales for {axes} axes", scales.len()));
    }
    match scales.iter().find(|s| !(**s > 0.0 && s.is_finite())) {
        Some(s) => n.invalid(format!("the scale {s}, not positive")),
        None => Ok(()),
    }
}

/// `floor(size * scale)` in single precision, as runtimes compute it: 10 * 0.7 is 7 there, and 6.99 in double precision.
fn scaled(shape: &[Dim], scales: &[f32]) -> Result<Vec<Dim>, Stop> {
    let one = |(d, &s): (&Dim, &f32)| match d.known() {
        Some(size) => Ok(Dim::Known((size as f32 * s).floor() as i64)),
        None if s == 1.0 => Ok(d.clone()),
        None => {
            // An exact fraction p/q with a small q can be said of a symbol too.
            let q = (0..=10).map(|e| 1i64 << e).find(|&q| (s * q as f32).fract() == 0.0 && s * (q as f32) < 1e6);
            let thirds = [3, 5, 6, 7].into_iter().find(|&q| s == 1.0 / q as f32);
            let fraction = q.map(|q| ((s * q as f32) as i64, q)).or(thirds.map(|q| (1, q)));
            fraction
                .and_then(|(p, q)| d.mul(&Dim::Known(p)).floor_div(&Dim::Known(q)))
                .ok_or_else(|| needs_dims("its size is not known", std::slice::from_ref(d)).into())
        }
    };
    shape.iter().zip(scales).map(one).collect()
}

fn resize(n: &mut NodeCx<'_>) -> Imported {
    if n.version < 11 {
        return legacy(n);
    }
    let x = n.operand(0, "X")?;
    let shape = n.shape(&x);
    let rank = shape.len();
    let axes = match n.ints("axes")? {
        Some(axes) => n.axes(&axes, rank)?,
        None => (0..rank).collect(),
    };
    let given = |i: usize| n.optional(i).filter(|v| !n.shape(v).contains(&Dim::Known(0))); // an empty tensor is no operand
    let (scales_operand, sizes_operand) = (given(2), given(3));
    let mut sizes = shape.clone();
    let mut scales: Vec<f64> = Vec::new();
    match (scales_operand, sizes_operand) {
        (Some(v), None) => {
            let given: Vec<f32> = n.known_tensor(&v, "scales")?.to_f64().into_iter().map(|s| s as f32).collect();
            check_scales(n, &given, axes.len())?;
            let mut all = vec![1.0f32; rank];
            axes.iter().zip(&given).for_each(|(&a, &s)| all[a] = s);
            sizes = scaled(&shape, &all)?;
            scales = all.into_iter().map(f64::from).collect();
        }
        (None, Some(v)) => {
            let given = n.known_list(&v, "sizes")?;
            if given.len() != axes.len() {
                return n.invalid(format!("{} sizes for {} axes", given.len(), axes.len()));
            }
            axes.iter().zip(&given).for_each(|(&a, d)| sizes[a] = d.clone());
            let larger = n.choice(
                "keep_aspect_ratio_policy",
                "stretch",
                &[("stretch", None), ("not_larger", Some(false)), ("not_smaller", Some(true))],
            )?;
            if let Some(larger) = larger {
                scales = keep_aspect_ratio(n, &x, &axes, &mut sizes, larger)?;
            }
        }
        _ => return n.invalid("one of the operands `scales` and `sizes` must be given"),
    }
    let coordinate = coordinate(n)?;
    let mut roi = Vec::new();
    if coordinate == ir::Coordinate::TfCropAndResize {
        let v = n.operand(1, "roi")?;
        let given = n.known_tensor(&v, "roi")?.to_f64();
        if given.len() != 2 * axes.len() {
            return n.invalid(format!("the operand `roi` has {} elements for {} axes", given.len(), axes.len()));
        }
        roi = [vec![0.0; rank], vec![1.0; rank]].concat();
        let (starts, ends) = given.split_at(axes.len());
        for ((&a, start), end) in axes.iter().zip(starts).zip(ends) {
            roi[a] = *start;
            roi[rank + a] = *end;
        }
    }
    let modes =
        [("nearest", ir::ResizeMode::Nearest), ("linear", ir::ResizeMode::Linear), ("cubic", ir::ResizeMode::Cubic)];
    let roundings = [
        ("round_prefer_floor", ir::NearestMode::RoundPreferFloor),
        ("round_prefer_ceil", ir::NearestMode::RoundPreferCeil),
        ("floor", ir::NearestMode::Floor),
        ("ceil", ir::NearestMode::Ceil),
    ];
    let op = ir::Resize {
        scales,
        sizes,
        mode: n.choice("mode", "nearest", &modes)?,
        coordinate,
        nearest: n.choice("nearest_mode", "round_prefer_floor", &roundings)?,
        cubic_coeff_a: n.float("cubic_coeff_a", -0.75)?,
        exclude_outside: n.flag("exclude_outside", false)?,
        extrapolation_value: n.float("extrapolation_value", 0.0)?,
        antialias: n.flag("antialias", false)?,
        roi,
    };
    Ok(vec![n.emit(op, &[&x])?])
}

fn coordinate(n: &NodeCx<'_>) -> Result<ir::Coordinate, Stop> {
    let mut modes = vec![
        ("half_pixel", ir::Coordinate::HalfPixel),
        ("pytorch_half_pixel", ir::Coordinate::PytorchHalfPixel),
        ("align_corners", ir::Coordinate::AlignCorners),
        ("asymmetric", ir::Coordinate::Asymmetric),
        ("tf_crop_and_resize", ir::Coordinate::TfCropAndResize),
    ];
    match n.version {
        ..=11 => modes.push(("tf_half_pixel_for_nn", ir::Coordinate::HalfPixel)),
        19.. => modes.push(("half_pixel_symmetric", ir::Coordinate::HalfPixelSymmetric)),
        _ => {}
    }
    n.choice("coordinate_transformation_mode", "half_pixel", &modes)
}

/// One scale for all axes, so that none is larger (or smaller) than asked for; the scales of all axes.
fn keep_aspect_ratio(
    n: &NodeCx<'_>,
    x: &Val,
    axes: &[usize],
    sizes: &mut [Dim],
    larger: bool,
) -> Result<Vec<f64>, Stop> {
    let dims = n.known_dims(x, "its size is not known")?;
    let ratio = |&a: &usize| match (sizes.get(a).and_then(Dim::known), dims.get(a)) {
        (Some(size), Some(&have)) => Ok(size as f64 / have as f64),
        _ => Err(needs_dims("its size is not known", sizes).into()),
    };
    let ratios = axes.iter().map(ratio).collect::<Result<Vec<f64>, Stop>>()?;
    let pick = if larger { f64::max } else { f64::min };
    let scale = ratios.into_iter().reduce(pick).unwrap_or(1.0);
    if !(scale > 0.0 && scale.is_finite()) {
        return n.invalid(format!("the scale {scale}, not positive"));
    }
    let mut scales = vec![1.0; dims.len()];
    for &a in axes {
        sizes[a] = Dim::Known((dims[a] as f64 * scale + 0.5).floor() as i64);
        scales[a] = scale;
    }
    Ok(scales)
}
