//! A model by layers: operator, output size, parameters, multiply-accumulates, receptive field, activation memory.
//!
//! The graph is the imported one, before any pass, so that the rows are the model's own nodes. Counting follows the
//! published figures: MACs of convolutions and matrix products only; parameters are what training learns, with the
//! statistics of batch normalization counted apart; a weight that two nodes share counts once. What is computed from
//! constants alone (a weight's transpose) is no activation and costs no MACs: it is known before the model runs.
//!
//! **Receptive field** of one element along a spatial axis, in input pixels: its `size`, the `jump` between neighbouring
//! elements, and `start`, the centre of the first element's field (0.5 is the centre of the first pixel). A window of
//! `k` taps, dilation `d`, stride `s` and padding `p` in front makes
//!
//! ```text
//! size' = size + (k - 1) d jump      start' = start + ((k - 1) d / 2 - p) jump      jump' = jump s
//! ```
//!
//! A transposed convolution is the same window seen from the other side: input `i` reaches outputs `s i - p` to
//! `s i - p + (k - 1) d`, so that output 0 is centred on input `(p - (k - 1) d / 2) / s`, and an output gathers at most
//! `ceil(((k - 1) d + 1) / s)` inputs. Resizing by `r` places output 0 where its coordinate transformation does, with
//! `jump / r` between outputs; interpolation reads one more input a side than the nearest neighbour, a cubic three.
//!
//! Source: Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019. Where branches
//! meet, the largest field counts. An operator that mixes all positions (a matrix product over them, attention) sees
//! everything: its field is the whole input, and it has no jump any more.

use nncc_ir::ops::resize::{Coordinate, Resize, ResizeMode};
use nncc_ir::{Dim, Graph, NodeId, Op, TensorType, ValueId};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;

/// The receptive field along one spatial axis; see the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Field {
    /// Input pixels that one element depends on.
    pub size: f64,
    /// Input pixels between neighbouring elements.
    pub jump: f64,
    /// Centre of the first element's field.
    pub start: f64,
}

/// A dimension: a number, or an expression over symbols.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Extent {
    /// Known.
    Known(usize),
    /// Not fixed yet.
    Symbolic(String),
}

/// A value of the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Described {
    /// Its name in the model.
    pub name: String,
    /// The element type.
    pub dtype: String,
    /// The dimensions.
    pub shape: Vec<Extent>,
    /// The type as the text form of the graph IR writes it.
    #[serde(skip)]
    pub text: String,
}

impl Described {
    fn new(name: &str, ty: &TensorType) -> Described {
        let extent = |d: &Dim| d.size().map_or_else(|| Extent::Symbolic(d.to_string()), Extent::Known);
        Described {
            name: name.to_string(),
            dtype: ty.dtype.to_string(),
            shape: ty.shape.iter().map(extent).collect(),
            text: ty.to_string(),
        }
    }
}

/// One node of the model.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// The model's name of the node.
    pub name: String,
    /// The operator.
    pub op: String,
    /// What it computes.
    pub outputs: Vec<Described>,
    /// Learnable parameters, those first used here.
    pub parameters: u64,
    /// Statistics of batch normalization, first used here.
    pub statistics: u64,
    /// Multiply-accumulates; `None` with symbolic dimensions.
    pub macs: Option<u64>,
    /// Bytes of the outputs; `None` with symbolic dimensions.
    pub activation_bytes: Option<u64>,
    /// Receptive field for each spatial axis; empty where it is the whole input or has no meaning.
    pub field: Vec<Field>,
}

/// A whole model.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model's name.
    pub name: String,
    /// What it takes.
    pub inputs: Vec<Described>,
    /// What it gives.
    pub outputs: Vec<Described>,
    /// The nodes in the order in which they run.
    pub layers: Vec<Layer>,
    /// Sum over the layers.
    pub parameters: u64,
    /// Sum over the layers.
    pub statistics: u64,
    /// Sum over the layers; `None` if one is unknown.
    pub macs: Option<u64>,
    /// Sum over the layers; `None` if one is unknown.
    pub activation_bytes: Option<u64>,
    /// Symbolic dimensions that are not fixed.
    pub symbols: Vec<String>,
}

/// Describes an imported graph.
pub fn report(g: &Graph) -> Report {
    let mut fields: FxHashMap<ValueId, Vec<Field>> = FxHashMap::default();
    let mut counted: FxHashSet<NodeId> = FxHashSet::default();
    // Nodes whose results are known before the model runs.
    let mut known: FxHashSet<NodeId> = FxHashSet::default();
    let mut layers = Vec::new();
    for n in g.topological_order().unwrap_or_default() {
        match g.op(n) {
            Op::Constant(_) => {
                known.insert(n);
                continue;
            }
            Op::Input => {
                for v in g.results(n) {
                    let spatial = g.ty(v).rank().saturating_sub(2);
                    fields.insert(v, vec![Field { size: 1.0, jump: 1.0, start: 0.5 }; spatial]);
                }
                continue;
            }
            _ => {}
        }
        let field = field_of(g, n, &fields);
        let (parameters, statistics) = parameters_of(g, n, &mut counted);
        let types: Vec<TensorType> = g.results(n).map(|v| g.ty(v).clone()).collect();
        let operands: Vec<Option<&TensorType>> = g.operands(n).iter().map(|v| v.map(|v| g.ty(v))).collect();
        let bytes = |t: &TensorType| t.elems().map(|e| e as u64 * t.dtype.bytes() as u64);
        let is_known = g.operands(n).iter().flatten().all(|v| known.contains(&v.node));
        if is_known {
            known.insert(n);
        }
        layers.push(Layer {
            name: g.node(n).origin.to_string(),
            op: function_name(g.op(n)),
            outputs: g.results(n).map(|v| Described::new(&g.value(v).name, g.ty(v))).collect(),
            parameters,
            statistics,
            macs: if is_known { Some(0) } else { g.op(n).macs(&operands, &types) },
            activation_bytes: if is_known { Some(0) } else { types.iter().map(bytes).sum() },
            field: field.clone(),
        });
        for v in g.results(n) {
            fields.insert(v, field.clone());
        }
    }
    let described = |v: ValueId| Described::new(&g.value(v).name, g.ty(v));
    let inputs: Vec<ValueId> = g.inputs().iter().flat_map(|&n| g.results(n)).collect();
    let mut symbols: Vec<String> = inputs.iter().flat_map(|&v| g.ty(v).symbols()).map(|s| s.to_string()).collect();
    symbols.sort();
    symbols.dedup();
    Report {
        name: g.name.clone(),
        inputs: inputs.into_iter().map(described).collect(),
        outputs: g.outputs().iter().map(|(name, v)| Described::new(name, g.ty(*v))).collect(),
        parameters: layers.iter().map(|l| l.parameters).sum(),
        statistics: layers.iter().map(|l| l.statistics).sum(),
        macs: layers.iter().map(|l| l.macs).sum(),
        activation_bytes: layers.iter().map(|l| l.activation_bytes).sum(),
        layers,
        symbols,
    }
}

/// The operator's name; an elementwise function's own name says more than `unary`.
fn function_name(op: &Op) -> String {
    match op {
        Op::Unary(u) => u.function.to_string(),
        Op::Binary(b) => b.function.to_string(),
        Op::Compare(c) => c.function.to_string(),
        op => op.name().to_string(),
    }
}

/// (learnable parameters, statistics) among the constants that `n` is the first to use. Constants of one element are
/// settings (a clipping bound, an exponent), except where the operator learns one.
fn parameters_of(g: &Graph, n: NodeId, counted: &mut FxHashSet<NodeId>) -> (u64, u64) {
    let (mut learnt, mut statistics) = (0, 0);
    for (i, v) in g.operands(n).iter().enumerate() {
        let Some(c) = v.and_then(|v| g.constant(v)) else { continue };
        let one_counts = matches!(
            g.op(n),
            Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm(_) | Op::MatMul(_) | Op::PRelu(_) | Op::BatchNorm(_)
        );
        if !c.dtype().is_float() || (c.elems() <= 1 && !one_counts) || !v.is_some_and(|v| counted.insert(v.node)) {
            continue;
        }
        match g.op(n) {
            Op::BatchNorm(_) if i >= 3 => statistics += c.elems() as u64,
            _ => learnt += c.elems() as u64,
        }
    }
    (learnt, statistics)
}

/// A window along one axis.
struct Window {
    taps: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
}

fn field_of(g: &Graph, n: NodeId, fields: &FxHashMap<ValueId, Vec<Field>>) -> Vec<Field> {
    let operand = |i: usize| g.operand(n, i).and_then(|v| fields.get(&v).cloned()).unwrap_or_default();
    let windows = |k: &[usize], s: &[usize], d: &[usize], p: &[usize]| -> Vec<Window> {
        (0..k.len()).map(|a| Window { taps: k[a], stride: s[a], dilation: d[a], pad: p[a] }).collect()
    };
    match g.op(n) {
        Op::Conv(c) => {
            let kernel = g.operand(n, 1).and_then(|w| g.ty(w).dims()).unwrap_or_default();
            let kernel = kernel.get(2..).unwrap_or_default();
            slide(operand(0), &windows(kernel, &c.strides, &c.dilations, &c.pads))
        }
        Op::MaxPool(p) => slide(operand(0), &windows(&p.kernel, &p.strides, &p.dilations, &p.pads)),
        Op::AveragePool(p) => slide(operand(0), &windows(&p.kernel, &p.strides, &p.dilations, &p.pads)),
        Op::LpPool(p) => slide(operand(0), &windows(&p.kernel, &p.strides, &p.dilations, &p.pads)),
        Op::ConvTranspose(c) => {
            let kernel = g.operand(n, 1).and_then(|w| g.ty(w).dims()).unwrap_or_default();
            let kernel = kernel.get(2..).unwrap_or_default();
            let windows = windows(kernel, &c.strides, &c.dilations, &c.pads);
            operand(0).into_iter().zip(&windows).map(|(f, w)| transpose(f, w)).collect()
        }
        Op::Resize(r) => {
            let scales = scales(g, n, r);
            operand(0)
                .into_iter()
                .zip(scales.into_iter().skip(2))
                .map(|(f, s)| resize(f, s, r.mode, r.coordinate))
                .collect()
        }
        // A reduction over positions, or an operator that mixes them, sees the whole input.
        Op::Reduce(r) if r.axes.iter().any(|&a| a >= 2) => Vec::new(),
        Op::MatMul(_)
        | Op::Gemm(_)
        | Op::Einsum(_)
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::InstanceNorm(_)
        | Op::LayerNorm(_) => Vec::new(),
        // Elementwise, concatenation, normalization by channel: where branches meet, the largest field.
        _ => {
            let branches = g.operands(n).into_iter().flatten().filter(|v| g.constant(*v).is_none());
            let mut all: Vec<Vec<Field>> = branches.map(|v| fields.get(&v).cloned().unwrap_or_default()).collect();
            // A branch that sees everything at one position (squeeze and excitation) scales the others; they keep their jump.
            all.retain(|f| !f.is_empty());
            let area = |f: &Vec<Field>| f.iter().map(|a| a.size).product::<f64>();
            all.into_iter().max_by(|a, b| area(a).total_cmp(&area(b))).unwrap_or_default()
        }
    }
}

fn slide(input: Vec<Field>, windows: &[Window]) -> Vec<Field> {
    let step = |(f, w): (Field, &Window)| {
        let reach = (w.taps.saturating_sub(1) * w.dilation) as f64;
        Field {
            size: f.size + reach * f.jump,
            jump: f.jump * w.stride as f64,
            start: f.start + (reach / 2.0 - w.pad as f64) * f.jump,
        }
    };
    input.into_iter().zip(windows).map(step).collect()
}

fn transpose(f: Field, w: &Window) -> Field {
    let (reach, stride) = (w.taps.saturating_sub(1) * w.dilation, w.stride.max(1));
    Field {
        size: f.size + ((reach + 1).div_ceil(stride) - 1) as f64 * f.jump,
        jump: f.jump / stride as f64,
        start: f.start + (w.pad as f64 - reach as f64 / 2.0) / stride as f64 * f.jump,
    }
}

/// The scale of each axis; none where it is given by sizes that are not known.
fn scales(g: &Graph, n: NodeId, r: &Resize) -> Vec<f64> {
    if !r.scales.is_empty() {
        return r.scales.clone();
    }
    let before = g.operand(n, 0).and_then(|x| g.ty(x).dims()).unwrap_or_default();
    let after: Vec<Option<usize>> = r.sizes.iter().map(Dim::size).collect();
    before.iter().zip(after).filter_map(|(&b, a)| Some(a? as f64 / b as f64)).collect()
}

/// An axis scaled by `scale`; with `align_corners` the outermost centres meet, which for the start is like asymmetric.
fn resize(f: Field, scale: f64, mode: ResizeMode, coordinate: Coordinate) -> Field {
    let half_pixel =
        matches!(coordinate, Coordinate::HalfPixel | Coordinate::HalfPixelSymmetric | Coordinate::PytorchHalfPixel);
    let more_taps = match mode {
        _ if scale == 1.0 => 0.0,
        ResizeMode::Nearest => 0.0,
        ResizeMode::Linear => 1.0,
        ResizeMode::Cubic => 3.0,
    };
    Field {
        size: f.size + more_taps * f.jump,
        jump: f.jump / scale,
        start: if half_pixel { f.start + (0.5 / scale - 0.5) * f.jump } else { f.start },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AlexNet's classic table (Krizhevsky 2012 as torchvision pads it): conv 11/4, pool 3/2, conv 5, pool 3/2, conv 3.
    #[test]
    fn alexnets_receptive_fields() {
        let layers = [(11, 4, 2), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 1, 1)];
        let mut f = vec![Field { size: 1.0, jump: 1.0, start: 0.5 }];
        let mut sizes = Vec::new();
        for (taps, stride, pad) in layers {
            f = slide(f, &[Window { taps, stride, dilation: 1, pad }]);
            sizes.push(f[0].size);
        }
        assert_eq!(sizes, [11.0, 19.0, 51.0, 67.0, 99.0]);
        assert_eq!(f[0].jump, 16.0);
    }

    /// Upsampling by two puts output 0 a quarter of an input pixel left of input 0's centre, and halves the jump.
    #[test]
    fn upsampling_halves_the_jump() {
        let f = Field { size: 3.0, jump: 2.0, start: 0.5 };
        // 2x2 taps at stride 2: outputs 0 and 1 come from input 0 alone; output 0 lies half a new pixel before its centre.
        let up = transpose(f, &Window { taps: 2, stride: 2, dilation: 1, pad: 0 });
        assert_eq!(up, Field { size: 3.0, jump: 1.0, start: 0.0 });
        // 4x4 taps, padding 1: each output gathers two inputs an axis, centred as bilinear interpolation is.
        let up = transpose(f, &Window { taps: 4, stride: 2, dilation: 1, pad: 1 });
        assert_eq!(up, Field { size: 5.0, jump: 1.0, start: 0.0 });
        let linear = |coordinate| resize(f, 2.0, ResizeMode::Linear, coordinate);
        assert_eq!(linear(Coordinate::HalfPixel), Field { size: 5.0, jump: 1.0, start: 0.0 });
        assert_eq!(linear(Coordinate::AlignCorners), Field { size: 5.0, jump: 1.0, start: 0.5 });
    }
}
