//! Random operators that compute.

use super::{Generator, Mix, Step};
use crate::ops::activation as act;
use crate::ops::attention::{Attention, Sizes, View};
use crate::ops::conv::{Conv, ConvTranspose};
use crate::ops::cum_sum::{CumProd, CumSum};
use crate::ops::elementwise::{Binary, Cast, Compare, Unary, Where};
use crate::ops::matmul::{Gemm, MatMul};
use crate::ops::norm::{BatchNorm, GroupNorm, InstanceNorm, LayerNorm, LpNorm, Lrn, RmsNorm};
use crate::ops::pool::{AveragePool, LpPool, MaxPool};
use crate::ops::reduce::{ArgReduce, Reduce, ReduceKind};
use crate::ops::resize::{Coordinate, NearestMode, Resize, ResizeMode};
use crate::ops::softmax::{Hardmax, LogSoftmax, Softmax};
use crate::ops::top_k::TopK;
use crate::pointwise::{BinaryFn, CompareFn, UnaryFn};
use crate::{DType, Dim, Op, Tensor, ValueId};

/// Operators through which a small change stays small.
pub(super) const CONTINUOUS: &[Step] = &[
    conv,
    activation,
    binary,
    unary,
    max_pool,
    average_pool,
    batch_norm,
    mat_mul,
    gemm,
    softmax,
    attention,
    reduce,
    prelu,
    clip,
    conv_transpose,
    norm,
    resize,
    running,
    where_,
];

/// The rest.
pub(super) const OTHERS: &[Step] = &[compare, cast, arg_reduce, top_k, hardmax, activation_with_jump];

fn unary(g: &mut Generator<'_>) -> Option<()> {
    use UnaryFn::{Abs, Asinh, Atan, Erf, Exp, Neg, Sigmoid, Tanh};
    let x = g.find(|_| true)?;
    let dtype = g.ty(x).dtype;
    let tame = [Exp, Tanh, Sigmoid, Neg, Abs, Erf, Atan, Asinh];
    let all = if g.limits.mix == Mix::Continuous { &tame[..] } else { UnaryFn::ALL };
    let takes: Vec<UnaryFn> = all.iter().copied().filter(|f| f.takes(dtype)).collect();
    if takes.is_empty() {
        return None;
    }
    let function = g.pick(&takes);
    g.emit1(Unary { function }, x)
}

/// A second operand for `x`: an existing value that broadcasts, or a new one with some axes of length 1 or left out.
fn partner(g: &mut Generator<'_>, x: ValueId) -> ValueId {
    let ty = g.ty(x);
    if g.coin() {
        let suits = |t: &crate::TensorType| {
            t.dtype == ty.dtype && crate::broadcast::broadcast_shapes([&t.shape[..], &ty.shape[..]]).is_ok()
        };
        if let Some(v) = g.find(suits) {
            return v;
        }
    }
    let mut dims = g.sizes(x);
    dims.drain(..g.below(dims.len() + 1).saturating_sub(1));
    for d in &mut dims {
        if g.coin() {
            *d = 1;
        }
    }
    g.fresh(ty.dtype, &dims)
}

fn binary(g: &mut Generator<'_>) -> Option<()> {
    use BinaryFn::{Add, Max, Min, Mul, Sub};
    let x = g.find(|_| true)?;
    let dtype = g.ty(x).dtype;
    let tame = [Add, Mul, Sub, Min, Max];
    let all = if g.limits.mix == Mix::Continuous { &tame[..] } else { BinaryFn::ALL };
    let takes: Vec<BinaryFn> = all.iter().copied().filter(|f| f.takes(dtype)).collect();
    if takes.is_empty() {
        return None;
    }
    let function = g.pick(&takes);
    let y = partner(g, x);
    let operands = if g.coin() { [Some(y), Some(x)] } else { [Some(x), Some(y)] };
    g.emit(Binary { function }, &operands)
}

fn compare(g: &mut Generator<'_>) -> Option<()> {
    let x = g.find(|_| true)?;
    let y = partner(g, x);
    let function = g.pick(CompareFn::ALL);
    g.emit(Compare { function }, &[Some(x), Some(y)])
}

fn where_(g: &mut Generator<'_>) -> Option<()> {
    let x = g.find(|_| true)?;
    let y = partner(g, x);
    let dims = g.sizes(x);
    let cond = g.fresh(DType::Bool, &dims);
    g.emit(Where {}, &[Some(cond), Some(x), Some(y)])
}

fn cast(g: &mut Generator<'_>) -> Option<()> {
    let x = g.find(|_| true)?;
    let to = g.pick(&DType::ALL);
    g.emit1(Cast { to }, x)
}

fn activation(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float()?;
    let all: [Op; 13] = [
        act::Relu {}.into(),
        act::LeakyRelu { alpha: 0.1 }.into(),
        act::Elu { alpha: 0.7 }.into(),
        act::Selu { alpha: 1.67, gamma: 1.05 }.into(),
        act::Celu { alpha: 0.5 }.into(),
        act::HardSigmoid { alpha: 0.2, beta: 0.5 }.into(),
        act::HardSwish {}.into(),
        act::Softplus {}.into(),
        act::Softsign {}.into(),
        act::Mish {}.into(),
        act::Silu {}.into(),
        act::Swish { alpha: 1.5 }.into(),
        act::Gelu { approximate: g.coin() }.into(),
    ];
    let op = g.pick(&all);
    g.emit1(op, x)
}

fn activation_with_jump(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float()?;
    let all: [Op; 2] = [act::ThresholdedRelu { alpha: 0.3 }.into(), act::Shrink { bias: 0.1, lambd: 0.4 }.into()];
    let op = g.pick(&all);
    g.emit1(op, x)
}

fn prelu(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float()?;
    let mut dims = g.sizes(x);
    for d in &mut dims {
        if g.coin() {
            *d = 1;
        }
    }
    let slope = g.fresh(DType::F32, &dims);
    g.emit(act::PRelu {}, &[Some(x), Some(slope)])
}

fn clip(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float()?;
    let bound = |g: &mut Generator<'_>, at: f32| {
        if g.below(4) == 3 { None } else { Some(g.given(Tensor::f32(&[], vec![at]))) }
    };
    let (min, max) = (bound(g, -0.3), bound(g, 0.6));
    g.emit(act::Clip {}, &[Some(x), min, max])
}

/// Random attributes of a sliding window over `spatial` axes: kernel, strides, dilations, pads.
struct RandomWindow {
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
}

fn window(g: &mut Generator<'_>, spatial: usize) -> RandomWindow {
    let mut list = |n: usize, from: &[usize]| -> Vec<usize> { (0..n).map(|_| g.pick(from)).collect() };
    RandomWindow {
        kernel: list(spatial, &[3, 1, 2, 5]),
        strides: list(spatial, &[1, 2, 1, 3]),
        dilations: list(spatial, &[1, 1, 2]),
        pads: list(2 * spatial, &[0, 1, 0, 2]),
    }
}

/// A divisor of `n`: 1, `n` (depthwise) or 2.
fn divisor(g: &mut Generator<'_>, n: usize) -> usize {
    match g.below(3) {
        1 if n > 0 => n,
        2 if n.is_multiple_of(2) && n > 0 => 2,
        _ => 1,
    }
}

fn conv(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(3, 5)?;
    let dims = g.sizes(x);
    let w = window(g, dims.len() - 2);
    let group = divisor(g, dims[1]);
    let m = group * g.pick(&[1, 2, 3, 8, 17]);
    let weights = g.fresh(DType::F32, &[&[m, dims[1] / group], &w.kernel[..]].concat());
    let bias = if g.coin() { Some(g.fresh(DType::F32, &[m])) } else { None };
    let op = Conv { strides: w.strides, dilations: w.dilations, pads: w.pads, group };
    g.emit(op, &[Some(x), Some(weights), bias])
}

fn conv_transpose(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(3, 4)?;
    let dims = g.sizes(x);
    let w = window(g, dims.len() - 2);
    let group = divisor(g, dims[1]);
    let m = g.pick(&[1, 2, 3, 8]);
    let weights = g.fresh(DType::F32, &[&[dims[1], m], &w.kernel[..]].concat());
    let bias = if g.coin() { Some(g.fresh(DType::F32, &[m * group])) } else { None };
    let output_padding = w.strides.iter().map(|s| g.below(*s)).collect();
    let op = ConvTranspose { strides: w.strides, dilations: w.dilations, pads: w.pads, output_padding, group };
    g.emit(op, &[Some(x), Some(weights), bias])
}

fn max_pool(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(3, 5)?;
    let RandomWindow { kernel, strides, dilations, pads } = window(g, g.sizes(x).len() - 2);
    let indices = g.limits.mix == Mix::Any && g.below(4) == 3;
    let (ceil_mode, storage_order) = (g.coin(), 0);
    g.emit1(MaxPool { kernel, strides, dilations, pads, ceil_mode, indices, storage_order }, x)
}

fn average_pool(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(3, 5)?;
    let RandomWindow { kernel, strides, dilations, pads } = window(g, g.sizes(x).len() - 2);
    let ceil_mode = g.coin();
    // The square root of LpPool has a pole in its slope at 0.
    if g.limits.mix == Mix::Any && g.below(4) == 3 {
        return g.emit1(LpPool { kernel, strides, dilations, pads, ceil_mode, p: 2 }, x);
    }
    let count_include_pad = g.coin();
    g.emit1(AveragePool { kernel, strides, dilations, pads, ceil_mode, count_include_pad }, x)
}

/// A constant of numbers in 0.5..1.5, for variances.
fn positive(g: &mut Generator<'_>, n: usize) -> ValueId {
    let v = g.fresh_elements(n);
    g.given(Tensor::f32(&[n], v.iter().map(|x| x / 2.0 + 1.0).collect()))
}

impl Generator<'_> {
    fn fresh_elements(&mut self, n: usize) -> Vec<f32> {
        self.seed += 1;
        crate::random::tensor(DType::F32, &[n], self.seed).to_f64().into_iter().map(|x| x as f32).collect()
    }
}

fn batch_norm(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(2, 5)?;
    let c = g.sizes(x)[1];
    let [scale, bias, mean] = [(); 3].map(|()| Some(g.fresh(DType::F32, &[c])));
    let var = Some(positive(g, c));
    g.emit(BatchNorm { epsilon: 1e-5 }, &[Some(x), scale, bias, mean, var])
}

fn norm(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(2, 4)?;
    let dims = g.sizes(x);
    let axis = g.below(dims.len());
    // A large epsilon: over a constant line these have a pole in their slope.
    let epsilon = 0.1;
    match g.below(6) {
        0 => {
            let [scale, bias] = [(); 2].map(|()| Some(g.fresh(DType::F32, &dims[axis..])));
            g.emit(LayerNorm { axis, epsilon }, &[Some(x), scale, bias])
        }
        1 => {
            let [scale, bias] = [(); 2].map(|()| Some(g.fresh(DType::F32, &[dims[1]])));
            g.emit(InstanceNorm { epsilon }, &[Some(x), scale, bias])
        }
        2 => {
            let groups = divisor(g, dims[1]);
            let [scale, bias] = [(); 2].map(|()| Some(g.fresh(DType::F32, &[dims[1]])));
            g.emit(GroupNorm { epsilon, groups }, &[Some(x), scale, bias])
        }
        3 => {
            let scale = g.fresh(DType::F32, &dims[axis..]);
            g.emit(RmsNorm { axis, epsilon }, &[Some(x), Some(scale)])
        }
        4 => g.emit1(Lrn { alpha: 0.1, beta: 0.75, bias: 1.0, size: 3 }, x),
        _ if g.limits.mix == Mix::Any => {
            let p = 1 + g.below(2);
            g.emit1(LpNorm { axis, p }, x)
        }
        _ => None,
    }
}

fn mat_mul(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(1, 4)?;
    let k = *g.sizes(x).last()?;
    let n = g.pick(&[1, 3, 8, 17]);
    let dims = if g.coin() { vec![k, n] } else { vec![k] };
    let w = g.fresh(DType::F32, &dims);
    g.emit(MatMul {}, &[Some(x), Some(w)])
}

fn gemm(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(2, 2)?;
    let dims = g.sizes(x);
    let (trans_a, trans_b) = (g.coin(), g.coin());
    let (m, k) = if trans_a { (dims[1], dims[0]) } else { (dims[0], dims[1]) };
    let n = g.pick(&[1, 3, 8, 17]);
    let w = g.fresh(DType::F32, &if trans_b { [n, k] } else { [k, n] });
    let shape = g.pick(&[vec![n], vec![m, 1], vec![], vec![m, n]]);
    let c = if g.coin() { Some(g.fresh(DType::F32, &shape)) } else { None };
    let op = Gemm { trans_a, trans_b, alpha: g.pick(&[1.0, 0.5]), beta: g.pick(&[1.0, -2.0]) };
    g.emit(op, &[Some(x), Some(w), c])
}

fn softmax(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(1, 5)?;
    let axis = g.below(g.sizes(x).len());
    if g.coin() { g.emit1(LogSoftmax { axis }, x) } else { g.emit1(Softmax { axis }, x) }
}

/// Queries that exist, with new keys and values, heads before or behind tokens, with a mask or without.
fn attention(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(3, 3)?;
    let dims = g.sizes(x);
    let beside = g.coin();
    let (heads, queries) = if beside { (dims[1], dims[0]) } else { (dims[0], dims[1]) };
    let sizes = Sizes { batch: 1, heads, queries, keys: g.pick(&[1, 5, 17]), width: dims[2], values: g.pick(&[1, 4]) };
    let view = |rows: usize, columns: usize| View {
        offset: 0,
        strides: if beside { [0, columns, heads * columns, 1] } else { [0, rows * columns, columns, 1] },
    };
    let k = g.fresh(DType::F32, &[heads * sizes.keys, sizes.width]);
    let v = g.fresh(DType::F32, &[heads * sizes.keys, sizes.values]);
    let shape = g.pick(&[vec![sizes.keys], vec![queries, sizes.keys], vec![heads, 1, sizes.keys]]);
    let mask = if g.coin() { Some(g.fresh(DType::F32, &shape)) } else { None };
    let op = Attention {
        sizes,
        q: view(queries, sizes.width),
        k: view(sizes.keys, sizes.width),
        v: view(sizes.keys, sizes.values),
        scale: g.pick(&[1.0, 0.25]),
        perm: if beside { vec![0, 2, 1, 3] } else { vec![0, 1, 2, 3] },
    };
    g.emit(op, &[Some(x), Some(k), Some(v), mask])
}

fn hardmax(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(1, 5)?;
    let axis = g.below(g.sizes(x).len());
    g.emit1(Hardmax { axis }, x)
}

fn reduce(g: &mut Generator<'_>) -> Option<()> {
    use ReduceKind::{L1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare};
    let continuous = g.limits.mix == Mix::Continuous;
    let x = if continuous { g.float()? } else { g.find(|t| t.dtype != DType::Bool)? };
    let tame = [Mean, Sum, Max, Min, L1, SumSquare, LogSumExp];
    let all = [Mean, Sum, Max, Min, L1, SumSquare, LogSumExp, Prod, L2, LogSum];
    let kind = g.pick(if continuous { &tame[..] } else { &all[..] });
    let axes = (0..g.sizes(x).len()).filter(|_| g.coin()).collect();
    let keepdims = g.coin();
    g.emit1(Reduce { kind, axes, keepdims }, x)
}

fn arg_reduce(g: &mut Generator<'_>) -> Option<()> {
    let x = g.find(|t| t.rank() > 0 && t.dtype != DType::Bool)?;
    let axis = g.below(g.sizes(x).len());
    let (max, keepdims, select_last) = (g.coin(), g.coin(), g.coin());
    g.emit1(ArgReduce { max, axis, keepdims, select_last }, x)
}

fn top_k(g: &mut Generator<'_>) -> Option<()> {
    let x = g.find(|t| t.rank() > 0 && t.dtype != DType::Bool)?;
    let dims = g.sizes(x);
    let axis = g.below(dims.len());
    let k = Dim::from(g.below(dims[axis] + 1));
    let largest = g.coin();
    g.emit1(TopK { axis, k, largest, sorted: true }, x)
}

fn running(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(1, 4)?;
    let axis = g.below(g.sizes(x).len());
    let (exclusive, reverse) = (g.coin(), g.coin());
    if g.coin() {
        g.emit1(CumSum { axis, exclusive, reverse }, x)
    } else {
        g.emit1(CumProd { axis, exclusive, reverse }, x)
    }
}

fn resize(g: &mut Generator<'_>) -> Option<()> {
    let x = g.float_of_rank(3, 4)?;
    let mut sizes = g.sizes(x);
    for d in &mut sizes[2..] {
        *d = match g.below(4) {
            0 => *d * 2,
            1 => g.dim().max(1),
            2 => *d,
            _ => d.div_ceil(2),
        };
    }
    let op = Resize {
        scales: Vec::new(),
        sizes: sizes.iter().map(|&d| Dim::from(d)).collect(),
        mode: g.pick(&[ResizeMode::Nearest, ResizeMode::Linear, ResizeMode::Cubic]),
        coordinate: g.pick(&[Coordinate::HalfPixel, Coordinate::AlignCorners, Coordinate::Asymmetric]),
        nearest: g.pick(&[NearestMode::RoundPreferFloor, NearestMode::Floor, NearestMode::Ceil]),
        cubic_coeff_a: -0.75,
        exclude_outside: false,
        extrapolation_value: 0.0,
        antialias: false,
        roi: Vec::new(),
    };
    g.emit1(op, x)
}
