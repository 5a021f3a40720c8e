//! Activation functions.

use super::Entry;
use crate::build::Stop;
use crate::node::{Imported, NodeCx};
use crate::value::{DrawnVal, Val};
use nncc_ir::ops::activation as ir;
use nncc_ir::{DType, Dim, Op, ops};

pub(super) const OPS: &[Entry] = &[
    Entry::new("Celu", &[12, 28], celu),
    Entry::new("Clip", &[1, 6, 11, 12, 13], clip),
    Entry::new("Elu", &[1, 6, 22], |n| {
        let alpha = n.float("alpha", 1.0)?;
        one(n, ir::Elu { alpha })
    }),
    Entry::new("Gelu", &[20], gelu),
    Entry::new("HardSigmoid", &[1, 6, 22], |n| {
        let (alpha, beta) = (n.float("alpha", 0.2)?, n.float("beta", 0.5)?);
        one(n, ir::HardSigmoid { alpha, beta })
    }),
    Entry::new("HardSwish", &[14, 22], |n| one(n, ir::HardSwish {})),
    Entry::new("LeakyRelu", &[1, 6, 16], |n| {
        let alpha = n.float("alpha", 0.01)?;
        one(n, ir::LeakyRelu { alpha })
    }),
    Entry::new("Mish", &[18, 22], |n| one(n, ir::Mish {})),
    Entry::new("PRelu", &[1, 6, 7, 9, 16], prelu),
    Entry::new("Relu", &[1, 6, 13, 14], |n| one(n, ir::Relu {})),
    Entry::new("Selu", &[1, 6, 22], selu),
    Entry::new("Shrink", &[9], |n| {
        let (bias, lambd) = (n.float("bias", 0.0)?, n.float("lambd", 0.5)?);
        one(n, ir::Shrink { bias, lambd })
    }),
    Entry::new("Softplus", &[1, 22], |n| one(n, ir::Softplus {})),
    Entry::new("Softsign", &[1, 22], |n| one(n, ir::Softsign {})),
    Entry::new("SwiGLU", &[28], swiglu),
    Entry::new("Swish", &[24], |n| {
        let op = swish_op(n)?;
        one(n, op)
    }),
    Entry::new("ThresholdedRelu", &[10, 22], |n| {
        let alpha = n.float("alpha", 1.0)?;
        one(n, ir::ThresholdedRelu { alpha })
    }),
];

fn one(n: &mut NodeCx<'_>, op: impl Into<Op>) -> Imported {
    let x = n.operand(0, "X")?;
    Ok(vec![n.emit(op, &[&x])?])
}

fn celu(n: &mut NodeCx<'_>) -> Imported {
    let alpha = n.float("alpha", 1.0)?;
    if alpha == 0.0 {
        return n.invalid("the attribute `alpha` is 0, which the operator divides by");
    }
    one(n, ir::Celu { alpha })
}

/// The defaults gained digits with opset 6.
fn selu(n: &mut NodeCx<'_>) -> Imported {
    let (alpha, gamma) = if n.version < 6 { (1.6732, 1.0507) } else { (1.673_263_2, 1.050_701) };
    let (alpha, gamma) = (n.float("alpha", alpha)?, n.float("gamma", gamma)?);
    one(n, ir::Selu { alpha, gamma })
}

fn gelu(n: &mut NodeCx<'_>) -> Imported {
    let approximate = n.choice("approximate", "none", &[("none", false), ("tanh", true)])?;
    one(n, ir::Gelu { approximate })
}

fn swish_op(n: &mut NodeCx<'_>) -> Result<Op, Stop> {
    let alpha = n.float("alpha", 1.0)?;
    Ok(if alpha == 1.0 { ir::Silu {}.into() } else { ir::Swish { alpha }.into() })
}

/// `swish(A) * B`.
fn swiglu(n: &mut NodeCx<'_>) -> Imported {
    let (gate, x) = (n.operand(0, "A")?, n.operand(1, "B")?);
    let swish = swish_op(n)?;
    let gated = n.emit(swish, &[&gate])?;
    Ok(vec![n.binary(nncc_ir::pointwise::BinaryFn::Mul, &gated, &x)?])
}

/// Below opset 7 the slope is one number a channel, where the channel is axis 1; since then it broadcasts as numpy does.
fn prelu(n: &mut NodeCx<'_>) -> Imported {
    let (x, mut slope) = (n.operand(0, "X")?, n.operand(1, "slope")?);
    if let Val::Drawn(slopes) = &slope {
        return rrelu(n, &x, slopes);
    }
    let (shape, rank) = (n.shape(&slope), n.rank(&x));
    if n.version < 7 && shape.len() == 1 && shape != [Dim::Known(1)] && rank > 2 {
        let shape = shape.into_iter().chain(std::iter::repeat_n(Dim::Known(1), rank - 2)).collect();
        slope = n.emit(ops::reshape::Reshape { shape }, &[&slope])?;
    }
    Ok(vec![n.emit(ir::PRelu {}, &[&x, &slope])?])
}

/// An RReLU as PyTorch exports it while it trains. At inference its slope is the mean.
fn rrelu(n: &mut NodeCx<'_>, x: &Val, slopes: &DrawnVal) -> Imported {
    let (x_type, lower, upper) = (n.ty(x), slopes.low, slopes.high);
    if x_type != slopes.ty {
        return n.unsupported(format!("on {x_type} with random slopes of type {}", slopes.ty));
    }
    if !n.builder.training {
        return Ok(vec![n.emit(ir::LeakyRelu { alpha: (lower + upper) / 2.0 }, &[x])?]);
    }
    let stream = n.builder.stream();
    Ok(vec![n.emit(ops::rrelu::RRelu { lower, upper, stream }, &[x])?])
}

/// Bounds are attributes before opset 11, operands since. A bound that is not given is no bound.
fn clip(n: &mut NodeCx<'_>) -> Imported {
    let x = n.operand(0, "input")?;
    let dtype = n.dtype(&x);
    let (min, max) = if n.version < 11 {
        let (min, max) = (n.maybe_float("min")?, n.maybe_float("max")?);
        (min.map(|b| n.scalar(dtype, b)), max.map(|b| n.scalar(dtype, b)))
    } else {
        let bound = |n: &mut NodeCx<'_>, i: usize, name: &str| -> Result<Option<Val>, Stop> {
            let Some(b) = n.optional(i) else { return Ok(None) };
            match &n.shape(&b)[..] {
                [] => Ok(Some(b)),
                [Dim::Known(1)] => Ok(Some(n.emit(ops::reshape::Reshape { shape: Vec::new() }, &[&b])?)),
                _ => n.invalid(format!("the operand `{name}` is no scalar")),
            }
        };
        (bound(n, 1, "min")?, bound(n, 2, "max")?)
    };
    let min = match (min, &max) {
        (None, None) => return Ok(vec![x]),
        (None, Some(_)) => n.scalar(dtype, lowest(dtype)),
        (Some(min), _) => min,
    };
    let operands = [Some(&x), Some(&min), max.as_ref()];
    let given = if max.is_some() { &operands[..] } else { &operands[..2] };
    n.emit_all(ir::Clip {}, given)
}

/// The number that is no bound from below.
fn lowest(dtype: DType) -> f64 {
    match dtype {
        DType::F32 | DType::F64 => f64::NEG_INFINITY,
        DType::I8 => f64::from(i8::MIN),
        DType::I16 => f64::from(i16::MIN),
        DType::I32 => f64::from(i32::MIN),
        DType::I64 => i64::MIN as f64,
        DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::Bool => 0.0,
    }
}
