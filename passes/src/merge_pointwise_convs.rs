//! Multiplies consecutive 1x1 convolutions with nothing between them into one, where that is fewer operations.
//!
//! ```text
//! %m = conv %x, v, a      1x1, C -> K channels          w'[o, i] = sum_k w[o, k] v[k, i]
//! %y = conv %m, w, b      1x1, K -> M channels     ->   b'[o]    = b[o] + sum_k w[o, k] a[k]
//! ```
//!
//! Needs: constant weights, no groups, no pads in either (a padded second one would see zeros where the first one's bias
//! should be), `%m` used only here. Pays when `C M P < C K P' + K M P`, with P' and P pixels of `%m` and `%y`: not for a
//! bottleneck (K small), which is why authors write two. Strides multiply.
//! Rounding moves: products of weights are summed in f64 and rounded once.

use crate::pass::{OptLevel, Pass, PassCx, PassError};
use crate::rewrite::{Found, No, Patch, Rule, dims, operand, refuse, result, rewrite, sole_use};
use crate::weights::{bias, pointwise, vector_constant};
use nncc_ir::ops::conv::Conv;
use nncc_ir::{Constant, Graph, NodeId, Tensor};

/// The pass.
pub const PASS: Pass = Pass { name: "merge-pointwise-convs", level: OptLevel::O2, run };

/// The largest product of weights that is computed here: about a second of plain loops.
const WORK_LIMIT: usize = 1 << 29;

fn run(g: &mut Graph, cx: &mut PassCx) -> Result<usize, PassError> {
    rewrite(g, cx, &[Rule { name: "merge", find: merge }])
}

fn merge(g: &Graph, n: NodeId) -> Found {
    let second = pointwise(g, n)?;
    let middle = operand(g, n, 0)?;
    let first = pointwise(g, middle.node)?;
    let (vw, ww) = (operand(g, middle.node, 1)?, operand(g, n, 1)?);
    let (Some(v), Some(w)) = (g.constant(vw), g.constant(ww)) else { return Err(No::Match) };
    let biases = [g.operand(middle.node, 2), g.operand(n, 2)];
    if biases.iter().flatten().any(|b| g.constant(*b).is_none()) {
        return Err(No::Match);
    }
    let (c, k, m) = (v.dims()[1], v.dims()[0], w.dims()[0]);
    let pixels = |dims: Vec<usize>| dims[2..].iter().product::<usize>();
    let (p1, p2) = (pixels(dims(g, middle)?), pixels(dims(g, result(n))?));
    let (merged, apart) = (c * m * p2, c * k * p1 + k * m * p2);
    if merged >= apart {
        return refuse!("one convolution would take {merged} multiplications an image, the two take {apart}");
    }
    if c.saturating_mul(k).saturating_mul(m) > WORK_LIMIT {
        return refuse!("multiplying the weights would take too long");
    }
    sole_use(g, middle)?;
    let (vf, wf) = (v.to_tensor().to_f64(), w.to_tensor().to_f64());
    let (a, b) = (bias(g, biases[0], k)?, bias(g, biases[1], m)?);
    let (mut weights, mut shift) = (vec![0.0; m * c], b);
    for o in 0..m {
        for j in 0..k {
            let factor = wf[o * k + j];
            shift[o] += factor * a[j];
            for i in 0..c {
                weights[o * c + i] += factor * vf[j * c + i];
            }
        }
    }
    let mut p = Patch::standing_for(&[middle.node, n]);
    let mut shape = vec![m, c];
    shape.extend_from_slice(&w.dims()[2..]);
    let dtype = v.dtype();
    let weights = p.constant("", Constant::from_tensor(&Tensor::from_f64(dtype, &shape, &weights)));
    let shift = p.constant("", vector_constant(dtype, &shift));
    let strides = first.strides.iter().zip(&second.strides).map(|(a, b)| a * b).collect();
    let y = p.op(Conv { strides, ..second.clone() }, &[operand(g, middle.node, 0)?.into(), weights, shift]);
    p.replace(result(n), y);
    Ok(p)
}
