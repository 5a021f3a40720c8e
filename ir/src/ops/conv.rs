//! Convolution and its transpose, over any number of spatial axes.
//!
//! ```text
//! conv:            y[n, m, o] = b[m] + sum over c in the group of m, taps k of  x[n, c, o*stride + k*dilation - begin] * w[m, c, k]
//! conv_transpose:  y[n, m, i*stride + k*dilation - begin] += x[n, c, i] * w[c, m, k],  starting from b[m]
//! conv_weight_gradient:  dw[m, c, k] = sum over n, o of  dy[n, m, o] * x[n, c, o*stride + k*dilation - begin]
//! ```
//!
//! The transpose is the gradient of the convolution with the same attributes with respect to its input, and the other way
//! round; the third is the gradient of both with respect to their weights. All loops below are over one relation between rows
//! ([`Window`]) read in three directions. Reads outside of x count as 0.
//!
//! Evaluation converts to f64 once and keeps the last axis innermost and contiguous, so that networks of a few GMAC can be
//! checked in seconds. Sources: ONNX Conv-22, ConvTranspose-22.

use crate::batch::{BatchCx, Batched};
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::operands::{one_float, operands, output_dims, same_dim, tensors, vector_of};
use crate::ops::reduce::ReduceKind;
use crate::ops::window::Window;
use crate::{Dim, GradientCx, GradientError, Tensor, TensorType, ValueId, operator_attrs, type_err};

operator_attrs! {
    /// `x: T[N, C, spatial..], w: T[M, C / group, kernel..], b: T[M]? -> T[N, M, outputs..]`, T in f32, f64.
    pub struct Conv {
        /// Distance of neighbouring windows, one a spatial axis.
        pub strides: Vec<usize>,
        /// Distance of neighbouring taps, one a spatial axis.
        pub dilations: Vec<usize>,
        /// Zeros before x on each spatial axis, then behind it on each.
        pub pads: Vec<usize>,
        /// Groups: output channels of group g read the input channels of group g only.
        pub group: usize,
    }
}

operator_attrs! {
    /// `x: T[N, C, spatial..], w: T[C, M / group, kernel..], b: T[M]? -> T[N, M, outputs..]`, T in f32, f64, where
    /// `outputs = stride * (input - 1) + output_padding + extent - begin - end`.
    pub struct ConvTranspose {
        /// Distance of the outputs of neighbouring inputs, one a spatial axis.
        pub strides: Vec<usize>,
        /// Distance of neighbouring taps, one a spatial axis.
        pub dilations: Vec<usize>,
        /// What is cropped from the front of y on each spatial axis, then from the back of each.
        pub pads: Vec<usize>,
        /// What is added to the back of y, one a spatial axis.
        pub output_padding: Vec<usize>,
        /// Groups, as in [`Conv`].
        pub group: usize,
    }
}

operator_attrs! {
    /// The gradient of [`Conv`] with respect to w: `x: T[N, C, spatial..], dy: T[N, M, outputs..] -> T[M, C / group,
    /// kernel..]`, T in f32, f64. Differentiation makes it, no model has it.
    pub struct ConvWeightGradient {
        /// Those of the convolution.
        pub strides: Vec<usize>,
        /// Those of the convolution.
        pub dilations: Vec<usize>,
        /// Those of the convolution.
        pub pads: Vec<usize>,
        /// Those of the convolution.
        pub group: usize,
        /// The size of the kernel, one number a spatial axis.
        pub kernel: Vec<usize>,
    }
}

/// Checks ranks and returns the sizes of the kernel.
fn kernel_of(x: &TensorType, w: &TensorType) -> Result<Vec<usize>, TypeError> {
    if x.rank() < 3 {
        return type_err!("x of type {x} has no spatial axis");
    }
    if w.rank() != x.rank() {
        return type_err!("x has rank {}, w has rank {}", x.rank(), w.rank());
    }
    let kernel: Option<Vec<usize>> = w.shape[2..].iter().map(Dim::size).collect();
    kernel.ok_or_else(|| TypeError(format!("the kernel's size is not known in {w}")))
}

/// Checks that `channels` can be split into groups and returns the size of one.
fn per_group(channels: &Dim, group: usize, what: &str) -> Result<Dim, TypeError> {
    if group == 0 {
        return type_err!("group is 0");
    }
    let groups = Dim::from(group);
    if channels.known().is_some_and(|c| c % group as i64 != 0) {
        return type_err!("{channels} {what} channels do not split into {group} groups");
    }
    channels.floor_div(&groups).ok_or_else(|| TypeError("group is 0".into()))
}

impl Operator for Conv {
    const NAME: &'static str = "conv";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x, w], [b]) = operands(inputs)?;
        let dtype = one_float([x, w].into_iter().chain(b))?;
        let kernel = kernel_of(x, w)?;
        let window = self.window(&kernel);
        window.check(kernel.len())?;
        let channels = per_group(&x.shape[1], self.group, "input")?;
        per_group(&w.shape[0], self.group, "output")?;
        same_dim(&channels, &w.shape[1], "input channels of a group in x and in w")?;
        if let Some(b) = b {
            vector_of(b, &w.shape[0], "b")?;
        }
        let mut shape = vec![x.shape[0].clone(), w.shape[0].clone()];
        for (axis, d) in x.shape[2..].iter().enumerate() {
            shape.push(window.outputs(axis, d, false)?);
        }
        Ok(vec![TensorType { dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x, w], [b]) = tensors(inputs)?;
        let kernel = &w.dims()[2..];
        let window = self.window(kernel);
        let plane = |d: &[usize]| d[2..].iter().product::<usize>();
        // A 1x1 convolution sees no edges: its plane is one long row.
        let flat = [[1].as_slice(), &[1], &[1], &[0, 0]];
        let is_flat = kernel.iter().chain(&self.strides).all(|&v| v == 1) && self.pads.iter().all(|&p| p == 0);
        let (window, from, to) = match is_flat {
            true => {
                let [kernel, strides, dilations, pads] = flat;
                (Window { kernel, strides, dilations, pads }, vec![plane(x.dims())], vec![plane(&dims)])
            }
            false => (window, x.dims()[2..].to_vec(), dims[2..].to_vec()),
        };
        let sweep = Sweep::new(&window, &from, &to);
        let (batch, channels, outputs) = (dims[0], w.dims()[1], dims[1]);
        let (xs, ws, bs) = (x.to_f64(), w.to_f64(), b.map(Tensor::to_f64));
        let taps = sweep.taps();
        let mut y = vec![0.0; dims.iter().product()];
        for (i, acc) in y.chunks_exact_mut(sweep.outputs.max(1)).enumerate().take(batch * outputs) {
            let (n, m) = (i / outputs, i % outputs);
            let first = m / (outputs / self.group) * channels;
            acc.fill(bs.as_ref().map_or(0.0, |b| b[m]));
            for c in 0..channels {
                let at = (n * x.dims()[1] + first + c) * sweep.inputs;
                let taps = &ws[(m * channels + c) * taps..][..taps];
                sweep.gather(&xs[at..][..sweep.inputs], taps, acc);
            }
        }
        Ok(vec![Tensor::from_f64(x.dtype(), &dims, &y)])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, w, dy) = (cx.operand(0)?, cx.operand(1)?, cx.dy()?);
        let (dims, outputs, kernel) = (cx.dims(x)[2..].to_vec(), cx.dims(dy)[2..].to_vec(), cx.dims(w)[2..].to_vec());
        cx.give(0, |cx| cx.add(self.transposed(&dims, &outputs, &kernel), &[dy, w]))?;
        cx.give(1, |cx| cx.add(self.weight_gradient(&kernel), &[x, dy]))?;
        cx.give(2, |cx| sum_channels(cx, dy))
    }

    fn macs(&self, inputs: &[Option<&TensorType>], outputs: &[TensorType]) -> Option<u64> {
        let w = inputs.get(1).copied().flatten()?;
        let per_output = TensorType::new(w.dtype, w.shape.get(1..)?.iter().cloned()).elems()?;
        (outputs.first()?.elems()? as u64).checked_mul(per_output as u64)
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis == 0)
    }
}

/// The gradient of a bias of one element a channel.
fn sum_channels(cx: &mut GradientCx<'_>, dy: ValueId) -> Result<ValueId, GradientError> {
    let axes: Vec<usize> = (0..cx.dims(dy).len()).filter(|a| *a != 1).collect();
    cx.reduce(ReduceKind::Sum, dy, &axes, false)
}

impl Conv {
    /// The operator of its gradient with respect to weights with a kernel of these sizes.
    pub fn weight_gradient(&self, kernel: &[usize]) -> ConvWeightGradient {
        ConvWeightGradient {
            strides: self.strides.clone(),
            dilations: self.dilations.clone(),
            pads: self.pads.clone(),
            group: self.group,
            kernel: kernel.to_vec(),
        }
    }

    /// The operator of its gradient with respect to an input of these spatial sizes. What the last window leaves of the padded
    /// input belongs to no window: the transpose adds it back.
    fn transposed(&self, input: &[usize], output: &[usize], kernel: &[usize]) -> ConvTranspose {
        let window = self.window(kernel);
        let rest = |a: usize| {
            let spanned = (output[a] - 1) * self.strides[a] + window.extent(a);
            input[a] + window.begin(a) + window.end(a) - spanned
        };
        ConvTranspose {
            strides: self.strides.clone(),
            dilations: self.dilations.clone(),
            pads: self.pads.clone(),
            output_padding: (0..input.len()).map(rest).collect(),
            group: self.group,
        }
    }

    /// The sliding window for a kernel of these sizes.
    pub fn window<'a>(&'a self, kernel: &'a [usize]) -> Window<'a> {
        Window { kernel, strides: &self.strides, dilations: &self.dilations, pads: &self.pads }
    }
}

impl ConvTranspose {
    /// The sliding window of the convolution that this transposes (from y to x).
    pub fn window<'a>(&'a self, kernel: &'a [usize]) -> Window<'a> {
        Window { kernel, strides: &self.strides, dilations: &self.dilations, pads: &self.pads }
    }
}

impl Operator for ConvTranspose {
    const NAME: &'static str = "conv_transpose";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x, w], [b]) = operands(inputs)?;
        let dtype = one_float([x, w].into_iter().chain(b))?;
        let kernel = kernel_of(x, w)?;
        let window = self.window(&kernel);
        window.check(kernel.len())?;
        if self.output_padding.len() != kernel.len() {
            return type_err!(
                "output_padding: {} numbers for {} spatial axes",
                self.output_padding.len(),
                kernel.len()
            );
        }
        per_group(&x.shape[1], self.group, "input")?;
        same_dim(&x.shape[1], &w.shape[0], "input channels in x and in w")?;
        let outputs = w.shape[1].mul(&Dim::from(self.group));
        if let Some(b) = b {
            vector_of(b, &outputs, "b")?;
        }
        let mut shape = vec![x.shape[0].clone(), outputs];
        for (axis, d) in x.shape[2..].iter().enumerate() {
            let spread = d.sub(&Dim::Known(1)).mul(&Dim::from(self.strides[axis]));
            let full = spread.add(&Dim::from(window.extent(axis))).add(&Dim::from(self.output_padding[axis]));
            let cropped = full.sub(&Dim::from(window.begin(axis))).sub(&Dim::from(window.end(axis)));
            if cropped.known().is_some_and(|n| n < 0) {
                return type_err!("pads crop more than the {full} elements of spatial axis {axis}");
            }
            shape.push(cropped);
        }
        Ok(vec![TensorType { dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x, w], [b]) = tensors(inputs)?;
        let kernel = &w.dims()[2..];
        // The convolution's input is y here, and its output is x.
        let sweep = Sweep::new(&self.window(kernel), &dims[2..], &x.dims()[2..]);
        let (batch, outputs, per_group) = (dims[0], dims[1], w.dims()[1]);
        let channels = x.dims()[1] / self.group;
        let (xs, ws, bs) = (x.to_f64(), w.to_f64(), b.map(Tensor::to_f64));
        let taps = sweep.taps();
        let mut y = vec![0.0; dims.iter().product()];
        for (i, acc) in y.chunks_exact_mut(sweep.inputs.max(1)).enumerate().take(batch * outputs) {
            let (n, m) = (i / outputs, i % outputs);
            acc.fill(bs.as_ref().map_or(0.0, |b| b[m]));
            for c in 0..channels {
                let c = m / per_group * channels + c;
                let taps = &ws[(c * per_group + m % per_group) * taps..][..taps];
                sweep.scatter(&xs[(n * x.dims()[1] + c) * sweep.outputs..][..sweep.outputs], taps, acc);
            }
        }
        Ok(vec![Tensor::from_f64(x.dtype(), &dims, &y)])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, w, dy) = (cx.operand(0)?, cx.operand(1)?, cx.dy()?);
        let kernel = cx.dims(w)[2..].to_vec();
        cx.give(2, |cx| sum_channels(cx, dy))?;
        if cx.dims(x).contains(&0) {
            return Ok(()); // y is the bias alone
        }
        // The convolution from y back to x. With an output padding of a stride or more it would have more windows than x has
        // elements: then it sees less of the padding behind y, or of y itself, where only the bias stands.
        let spatial = kernel.len();
        let (mut pads, mut y) = (self.pads.clone(), dy);
        for axis in 0..spatial {
            let excess = (self.output_padding[axis] + 1).saturating_sub(self.strides[axis]);
            let padding = excess.min(pads[spatial + axis]);
            pads[spatial + axis] -= padding;
            let len = cx.dims(y)[axis + 2];
            y = cx.slice(y, axis + 2, 0, len.saturating_sub(excess - padding), false)?;
        }
        let conv = Conv { strides: self.strides.clone(), dilations: self.dilations.clone(), pads, group: self.group };
        cx.give(0, |cx| cx.add(conv.clone(), &[y, w]))?;
        cx.give(1, |cx| cx.add(conv.weight_gradient(&kernel), &[y, x]))
    }

    fn macs(&self, inputs: &[Option<&TensorType>], _: &[TensorType]) -> Option<u64> {
        let (x, w) = (inputs.first().copied().flatten()?, inputs.get(1).copied().flatten()?);
        let per_input = TensorType::new(w.dtype, w.shape.get(1..)?.iter().cloned()).elems()?;
        (x.elems()? as u64).checked_mul(per_input as u64)
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis == 0)
    }
}

impl Operator for ConvWeightGradient {
    const NAME: &'static str = "conv_weight_gradient";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x, dy], []) = operands(inputs)?;
        let dtype = one_float([x, dy])?;
        if x.rank() < 3 || dy.rank() != x.rank() {
            return type_err!("x of type {x} and dy of type {dy} are no input and output of a convolution");
        }
        let window = self.window();
        window.check(x.rank() - 2)?;
        same_dim(&x.shape[0], &dy.shape[0], "the batches of x and dy")?;
        for (axis, d) in x.shape[2..].iter().enumerate() {
            same_dim(
                &window.outputs(axis, d, false)?,
                &dy.shape[axis + 2],
                &format!("windows of x and dy on axis {axis}"),
            )?;
        }
        per_group(&dy.shape[1], self.group, "output")?;
        let mut shape = vec![dy.shape[1].clone(), per_group(&x.shape[1], self.group, "input")?];
        shape.extend(self.kernel.iter().map(|&k| Dim::from(k)));
        Ok(vec![TensorType { dtype, shape }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x, dy], []) = tensors(inputs)?;
        let sweep = Sweep::new(&self.window(), &x.dims()[2..], &dy.dims()[2..]);
        let (batch, outputs, channels) = (x.dims()[0], dims[0], dims[1]);
        let (xs, ds) = (x.to_f64(), dy.to_f64());
        let mut dw = vec![0.0; dims.iter().product()];
        for (i, taps) in dw.chunks_exact_mut(sweep.taps().max(1)).enumerate().take(outputs * channels) {
            let (m, c) = (i / channels, i % channels);
            let c = m / (outputs / self.group) * channels + c;
            for n in 0..batch {
                let x = &xs[(n * x.dims()[1] + c) * sweep.inputs..][..sweep.inputs];
                let dy = &ds[(n * outputs + m) * sweep.outputs..][..sweep.outputs];
                sweep.correlate(x, dy, taps);
            }
        }
        Ok(vec![Tensor::from_f64(x.dtype(), &dims, &dw)])
    }

    /// dw is linear in each operand, so that its gradients are those of the convolution with dw's in the place of w.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy, w) = (cx.operand(0)?, cx.operand(1)?, cx.dy()?);
        let ConvWeightGradient { strides, dilations, pads, group, .. } = self.clone();
        let conv = Conv { strides, dilations, pads, group };
        cx.give(0, |cx| {
            let transposed = conv.transposed(&cx.dims(x)[2..], &cx.dims(dy)[2..], &self.kernel);
            cx.add(transposed, &[dy, w])
        })?;
        cx.give(1, |cx| cx.add(conv.clone(), &[x, w]))
    }

    /// As many as the convolution has.
    fn macs(&self, inputs: &[Option<&TensorType>], outputs: &[TensorType]) -> Option<u64> {
        let dw = outputs.first()?;
        let per_output = TensorType::new(dw.dtype, dw.shape.get(1..)?.iter().cloned()).elems()?;
        (inputs.get(1).copied().flatten()?.elems()? as u64).checked_mul(per_output as u64)
    }
}

impl ConvWeightGradient {
    /// The sliding window of the convolution.
    pub fn window(&self) -> Window<'_> {
        Window { kernel: &self.kernel, strides: &self.strides, dilations: &self.dilations, pads: &self.pads }
    }
}

/// Which elements of one input plane meet which of one output plane, per tap: rows, and a span inside of them.
struct Sweep {
    /// Per position of the window on the outer axes: `(output row, input row)`.
    rows: Vec<Vec<(usize, usize)>>,
    /// Per tap of the last axis: the outputs that it reaches and the input of the first of them.
    spans: Vec<(std::ops::Range<usize>, usize)>,
    stride: usize,
    input_row: usize,
    output_row: usize,
    inputs: usize,
    outputs: usize,
}

impl Sweep {
    fn new(window: &Window, from: &[usize], to: &[usize]) -> Sweep {
        let last = from.len() - 1;
        let (input_row, output_row) = (from[last], to[last]);
        Sweep {
            rows: window.rows(from, to),
            spans: (0..window.kernel[last]).map(|k| window.outputs_of_tap(last, k, input_row, output_row)).collect(),
            stride: window.strides[last],
            input_row,
            output_row,
            inputs: from.iter().product(),
            outputs: to.iter().product(),
        }
    }

    fn taps(&self) -> usize {
        self.rows.len() * self.spans.len()
    }

    /// Calls `f(tap, first output, first input, how many)` for every run of elements that meet.
    fn for_each(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        for (outer, rows) in self.rows.iter().enumerate() {
            for (k, (range, first)) in self.spans.iter().enumerate().filter(|(_, (range, _))| !range.is_empty()) {
                for (o, i) in rows {
                    let tap = outer * self.spans.len() + k;
                    f(tap, o * self.output_row + range.start, i * self.input_row + first, range.len());
                }
            }
        }
    }

    /// `output += taps . input`: one channel pair of a convolution.
    fn gather(&self, input: &[f64], taps: &[f64], output: &mut [f64]) {
        self.for_each(|tap, o, i, n| {
            let (w, acc) = (taps[tap], &mut output[o..o + n]);
            match self.stride {
                1 => acc.iter_mut().zip(&input[i..i + n]).for_each(|(a, x)| *a += w * x),
                s => acc.iter_mut().zip(input[i..].iter().step_by(s)).for_each(|(a, x)| *a += w * x),
            }
        });
    }

    /// `taps += input . output`: one channel pair of the gradient of the weights.
    fn correlate(&self, input: &[f64], output: &[f64], taps: &mut [f64]) {
        self.for_each(|tap, o, i, n| {
            let products = output[o..o + n].iter().zip(input[i..].iter().step_by(self.stride)).map(|(y, x)| x * y);
            taps[tap] += products.sum::<f64>();
        });
    }

    /// `input += transpose(taps) . output`: one channel pair of a transposed convolution.
    fn scatter(&self, output: &[f64], taps: &[f64], input: &mut [f64]) {
        self.for_each(|tap, o, i, n| {
            let w = taps[tap];
            input[i..].iter_mut().step_by(self.stride).zip(&output[o..o + n]).for_each(|(a, x)| *a += w * x);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::tensor::{indices, strides_of};

    /// Numbers without a pattern, exactly representable.
    fn noise(dims: &[usize], seed: u64) -> Tensor {
        let mut s = seed;
        let n = dims.iter().product();
        let v: Vec<f64> = std::iter::repeat_with(|| {
            s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f64::from((s >> 33) as i32 % 64) / 8.0 - 2.0
        })
        .take(n)
        .collect();
        Tensor::from_f64(DType::F64, dims, &v)
    }

    fn at(t: &Tensor, v: &[f64], index: &[usize]) -> f64 {
        v[index.iter().zip(strides_of(t.dims())).map(|(i, s)| i * s).sum::<usize>()]
    }

    /// The formula at the top, index by index.
    fn naive(op: &Conv, x: &Tensor, w: &Tensor, b: &Tensor, dims: &[usize]) -> Vec<f64> {
        let (xs, ws, bs) = (x.to_f64(), w.to_f64(), b.to_f64());
        let mut y = Vec::new();
        for o in indices(dims) {
            let group = o[1] / (dims[1] / op.group);
            let mut sum = bs[o[1]];
            for k in indices(&w.dims()[1..]) {
                let mut index = vec![o[0], group * w.dims()[1] + k[0]];
                for a in 0..dims.len() - 2 {
                    let i = (o[a + 2] * op.strides[a] + k[a + 1] * op.dilations[a]) as i64 - op.pads[a] as i64;
                    match usize::try_from(i) {
                        Ok(i) if i < x.dims()[a + 2] => index.push(i),
                        _ => break,
                    }
                }
                if index.len() == dims.len() {
                    let tap: Vec<usize> = [o[1]].into_iter().chain(k).collect();
                    sum += at(x, &xs, &index) * at(w, &ws, &tap);
                }
            }
            y.push(sum);
        }
        y
    }

    fn cases() -> Vec<(Conv, Vec<usize>, Vec<usize>)> {
        let conv = |s: &[usize], d: &[usize], p: &[usize], group| Conv {
            strides: s.to_vec(),
            dilations: d.to_vec(),
            pads: p.to_vec(),
            group,
        };
        vec![
            (conv(&[1, 1], &[1, 1], &[0, 0, 0, 0], 1), vec![2, 3, 4, 5], vec![4, 3, 1, 1]),
            (conv(&[1, 1], &[1, 1], &[1, 1, 1, 1], 1), vec![1, 2, 5, 4], vec![3, 2, 3, 3]),
            (conv(&[2, 3], &[2, 1], &[3, 0, 1, 2], 2), vec![2, 4, 7, 6], vec![6, 2, 3, 2]),
            (conv(&[3, 1], &[1, 3], &[0, 5, 2, 0], 4), vec![1, 4, 5, 3], vec![4, 1, 1, 2]),
            (conv(&[2], &[2], &[1, 3], 1), vec![1, 3, 9], vec![2, 3, 4]),
            (conv(&[1, 2, 1], &[1, 1, 2], &[1, 0, 1, 0, 1, 2], 1), vec![1, 2, 3, 4, 5], vec![2, 2, 2, 3, 2]),
        ]
    }

    #[test]
    fn convolution_is_the_formula() {
        for (op, xd, wd) in cases() {
            let (x, w, b) = (noise(&xd, 1), noise(&wd, 2), noise(&wd[..1], 3));
            let y = op.eval(&[Some(&x), Some(&w), Some(&b)]).unwrap().remove(0);
            assert_eq!(y.to_f64(), naive(&op, &x, &w, &b, y.dims()), "{op:?}");
        }
    }

    #[test]
    fn transposed_convolution_is_the_adjoint() {
        // <conv(u), x> = <u, conv_transpose(x)> for all u, x. Multiples of 1/8 sum exactly.
        for (op, ud, wd) in cases() {
            let (u, w) = (noise(&ud, 4), noise(&wd, 5));
            let v = op.eval(&[Some(&u), Some(&w)]).unwrap().remove(0);
            let x = noise(v.dims(), 6);
            let window = op.window(&wd[2..]);
            let missing = |a: usize| {
                ud[a + 2] + op.pads[a] + op.pads[a + wd.len() - 2]
                    - window.extent(a)
                    - (v.dims()[a + 2] - 1) * op.strides[a]
            };
            let back = ConvTranspose {
                strides: op.strides.clone(),
                dilations: op.dilations.clone(),
                pads: op.pads.clone(),
                output_padding: (0..wd.len() - 2).map(missing).collect(),
                group: op.group,
            };
            let z = back.eval(&[Some(&x), Some(&w)]).unwrap().remove(0);
            assert_eq!(z.dims(), &ud[..]);
            let dot = |a: &Tensor, b: &Tensor| a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| a * b).sum::<f64>();
            assert_eq!(dot(&v, &x), dot(&u, &z), "{op:?}");
        }
    }

    #[test]
    fn absurd_attributes_are_errors() {
        let x = TensorType::fixed(DType::F32, &[1, 4, 5]);
        let w = TensorType::fixed(DType::F32, &[4, 4, 3]);
        let conv = |s: usize, d: usize, p: usize, group| Conv {
            strides: vec![s],
            dilations: vec![d],
            pads: vec![p, p],
            group,
        };
        let infer = |op: Conv| op.infer(&[Some(&x), Some(&w)]);
        for bad in
            [conv(0, 1, 0, 1), conv(1, 0, 0, 1), conv(1, usize::MAX, 0, 1), conv(1, 1, usize::MAX, 1), conv(1, 9, 0, 1)]
        {
            assert!(infer(bad).is_err());
        }
        for group in [0, 3, usize::MAX] {
            assert!(infer(conv(1, 1, 0, group)).is_err());
        }
        assert!(infer(conv(1, 1, 0, 1)).is_ok());
        assert!(conv(1, 1, 0, 1).infer(&[Some(&x)]).is_err() && conv(1, 1, 0, 1).infer(&[]).is_err());
        assert!(conv(1, 1, 0, 1).infer(&[Some(&x), Some(&TensorType::fixed(DType::F32, &[]))]).is_err());
    }

    #[test]
    fn symbols_stay_and_macs_are_counted() {
        let x = TensorType::new(DType::F32, [Dim::symbol("N"), Dim::Known(4), Dim::symbol("H")]);
        let w = TensorType::fixed(DType::F32, &[8, 4, 3]);
        let op = Conv { strides: vec![2], dilations: vec![1], pads: vec![1, 1], group: 1 };
        let y = op.infer(&[Some(&x), Some(&w)]).unwrap();
        assert_eq!(y[0].to_string(), "f32[N,8,(H+1)/2]");
        assert_eq!(op.macs(&[Some(&x), Some(&w)], &y), None);
        assert_eq!(op.macs(&[None, Some(&w)], &[TensorType::fixed(DType::F32, &[1, 8, 5])]), Some(40 * 12));
    }
}
