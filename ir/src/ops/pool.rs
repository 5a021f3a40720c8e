//! Pooling: a maximum, a mean or a norm over sliding windows.
//!
//! Windows are [`Window`]'s; taps outside of the input never take part in a maximum or a norm. A mean divides by the number
//! of taps inside the input, or with `count_include_pad` by the number inside the padded input: what `ceil_mode` lets a
//! window hang over beyond the padding is never counted. That is ONNX's reference and PyTorch. A window without any tap
//! inside has the maximum -inf (the lowest number of an integer type) at index -1, the mean 0 and the norm 0.
//!
//! The gradients of a maximum and of a mean are operators of their own, for they add what overlapping windows give to one
//! element. Differentiation makes them, no model has them.
//!
//! Global pooling has no operator here: it is a `Reduce` over the spatial axes.
//! Sources: ONNX MaxPool-22, AveragePool-22, LpPool-22.

use crate::batch::{BatchCx, Batched};
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::gather::Gather;
use crate::ops::operands::{one_float, same_dim};
use crate::ops::operands::{operands, output_dims, tensors};
use crate::ops::window::Window;
use crate::pointwise::{BinaryFn, CompareFn, UnaryFn};
use crate::{
    DType, Dim, GradientCx, GradientError, Tensor, TensorType, ValueId, map_data, operator_attrs, type_err, with_data,
};

/// Declares an operator over sliding windows: the windows' attributes, then its own.
macro_rules! pooling {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* pub $field:ident: $ty:ty,)* }) => {
        operator_attrs! {
            $(#[$doc])*
            pub struct $name {
                /// Size of the window, one a spatial axis.
                pub kernel: Vec<usize>,
                /// Distance of neighbouring windows.
                pub strides: Vec<usize>,
                /// Distance of neighbouring taps.
                pub dilations: Vec<usize>,
                /// Padding before x on each spatial axis, then behind it on each.
                pub pads: Vec<usize>,
                /// Whether a last window may hang over the padded input: see [`Window`].
                pub ceil_mode: bool,
                $($(#[$fdoc])* pub $field: $ty,)*
            }
        }

        impl $name {
            /// The sliding window.
            pub fn window(&self) -> Window<'_> {
                Window { kernel: &self.kernel, strides: &self.strides, dilations: &self.dilations, pads: &self.pads }
            }
        }
    };
}

pooling! {
    /// `x: T[N, C, spatial..] -> T[N, C, outputs..]` and, with `indices`, `I64[N, C, outputs..]`; T any number type.
    /// A window with a NaN has the value NaN, at the index of its first one; of equal maxima the first counts.
    pub struct MaxPool {
        /// Whether there is a second output: where each maximum stands, as an index into the whole flattened x.
        pub indices: bool,
        /// How `indices` flattens the spatial axes: 0 the last one fastest, 1 the first one fastest.
        pub storage_order: usize,
    }
}

pooling! {
    /// `x: T[N, C, spatial..] -> T[N, C, outputs..]`, T in f32, f64.
    pub struct AveragePool {
        /// Whether the zeros of the padding are averaged as well.
        pub count_include_pad: bool,
    }
}

pooling! {
    /// `x: T[N, C, spatial..] -> T[N, C, outputs..]`, `(sum |x|^p)^(1/p)`, T in f32, f64.
    pub struct LpPool {
        /// The order of the norm, at least 1.
        pub p: usize,
    }
}

pooling! {
    /// The gradient of [`MaxPool`]: `x: T[N, C, spatial..], dy: T[N, C, outputs..] -> T[N, C, spatial..]`, T in f32, f64. Each
    /// dy goes to the first maximum of its window (a NaN counts as one); a window without any tap inside gives nothing.
    pub struct MaxPoolGradient {}
}

pooling! {
    /// The gradient of [`AveragePool`]: `dy: T[N, C, outputs..] -> T[N, C, input..]`, T in f32, f64. Each dy, divided by what its
    /// window divides by, goes to every tap inside.
    pub struct AveragePoolGradient {
        /// Whether the zeros of the padding are averaged as well.
        pub count_include_pad: bool,
        /// The spatial dimensions of what was pooled.
        pub input: Vec<usize>,
    }
}

/// The output's type: x's element type over the windows.
fn infer_pool(window: Window, ceil: bool, x: &TensorType) -> Result<TensorType, TypeError> {
    if x.rank() < 3 {
        return type_err!("x of type {x} has no spatial axis");
    }
    window.check(x.rank() - 2)?;
    let mut shape = x.shape[..2].to_vec();
    for (axis, d) in x.shape[2..].iter().enumerate() {
        shape.push(window.outputs(axis, d, ceil)?);
    }
    Ok(TensorType { dtype: x.dtype, shape })
}

fn float_only(x: &TensorType) -> Result<(), TypeError> {
    if x.dtype.is_float() { Ok(()) } else { type_err!("takes f32 or f64, not {}", x.dtype) }
}

/// For each window of one plane, row-major: the elements of the plane that its taps read, in order.
fn cells(window: Window, from: &[usize], to: &[usize]) -> Vec<Vec<usize>> {
    let mut cells = vec![vec![0]];
    for axis in 0..to.len() {
        let taps: Vec<_> = (0..to[axis]).map(|o| window.taps_of_output(axis, o, from[axis])).collect();
        let along = |cell: &Vec<usize>, (range, first): &(std::ops::Range<usize>, usize)| -> Vec<usize> {
            let inputs = || (0..range.len()).map(|t| first + t * window.dilations[axis]);
            cell.iter().flat_map(|&at| inputs().map(move |i| at * from[axis] + i)).collect()
        };
        let along = &along;
        cells = cells.iter().flat_map(|cell| taps.iter().map(move |t| along(cell, t))).collect();
    }
    cells
}

/// `f(window number, the plane, the cells of a window)` for every window of every plane, in f64.
fn pool(
    window: Window,
    inputs: &[Option<&Tensor>],
    dims: &[usize],
    f: impl Fn(usize, &[f64], &[usize]) -> f64,
) -> Result<Vec<Tensor>, EvalError> {
    let ([x], []) = tensors(inputs)?;
    let cells = cells(window, &x.dims()[2..], &dims[2..]);
    let plane: usize = x.dims()[2..].iter().product();
    let xs = x.to_f64();
    let planes = (0..dims[0] * dims[1]).map(|p| &xs[p * plane..][..plane]);
    let y: Vec<f64> =
        planes.flat_map(|x| cells.iter().enumerate().map(|(o, c)| f(o, x, c)).collect::<Vec<_>>()).collect();
    Ok(vec![Tensor::from_f64(x.dtype(), dims, &y)])
}

impl Operator for MaxPool {
    const NAME: &'static str = "max_pool";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x], []) = operands(inputs)?;
        if x.dtype == DType::Bool {
            return type_err!("does not take bool");
        }
        if self.storage_order > 1 {
            return type_err!("storage_order is {}, neither 0 nor 1", self.storage_order);
        }
        let y = infer_pool(self.window(), self.ceil_mode, x)?;
        let indices = TensorType { dtype: DType::I64, shape: y.shape.clone() };
        Ok(if self.indices { vec![y, indices] } else { vec![y] })
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x], []) = tensors(inputs)?;
        let spatial = &x.dims()[2..];
        let cells = cells(self.window(), spatial, &dims[2..]);
        let plane: usize = spatial.iter().product();
        let planes = dims[0] * dims[1];
        let places: Vec<Option<usize>> = with_data!(x.data(), v => (0..planes)
            .flat_map(|p| cells.iter().map(move |c| first_max(&v[p * plane..][..plane], c).map(|i| p * plane + i)))
            .collect());
        let y = Tensor::of(
            &dims,
            map_data!(x.data(), v => places.iter().map(|i| i.map_or(Lowest::LOWEST, |i| v[i])).collect()),
        );
        if !self.indices {
            return Ok(vec![y]);
        }
        let index = |&i: &Option<usize>| match i {
            None => -1,
            Some(i) if self.storage_order == 0 => i as i64,
            Some(i) => (i / plane * plane + first_axis_fastest(i % plane, spatial)) as i64,
        };
        Ok(vec![y, Tensor::i64(&dims, places.iter().map(index).collect())])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let MaxPool { kernel, strides, dilations, pads, ceil_mode, .. } = self.clone();
        let op = MaxPoolGradient { kernel, strides, dilations, pads, ceil_mode };
        let (x, dy) = (cx.operand(0)?, cx.dy()?);
        cx.give(0, |cx| cx.add(op, &[x, dy]))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        // Indices count from the first element of the batch.
        if self.indices { None } else { cx.where_first(|axis| axis < 2) }
    }
}

/// The first of the largest elements among `cells`; a NaN counts as larger than everything.
fn first_max<T: Copy + PartialOrd>(plane: &[T], cells: &[usize]) -> Option<usize> {
    let is_nan = |v: T| v.partial_cmp(&v).is_none();
    cells.iter().copied().reduce(|best, i| {
        let (b, v) = (plane[best], plane[i]);
        if !is_nan(b) && (v > b || is_nan(v)) { i } else { best }
    })
}

/// The index in column-major order of the element with row-major index `at`.
fn first_axis_fastest(mut at: usize, dims: &[usize]) -> usize {
    dims.iter()
        .rev()
        .fold((0, dims.iter().product()), |(sum, stride): (usize, usize), &d| {
            let (stride, i) = (stride / d, at % d);
            at /= d;
            (sum + i * stride, stride)
        })
        .0
}

/// The maximum of nothing.
trait Lowest {
    const LOWEST: Self;
}
macro_rules! lowest {
    ($($t:ty = $v:expr),*) => { $(impl Lowest for $t { const LOWEST: $t = $v; })* };
}
lowest!(f32 = f32::NEG_INFINITY, f64 = f64::NEG_INFINITY, bool = false);
lowest!(i8 = i8::MIN, i16 = i16::MIN, i32 = i32::MIN, i64 = i64::MIN, u8 = 0, u16 = 0, u32 = 0, u64 = 0);

impl Operator for AveragePool {
    const NAME: &'static str = "average_pool";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x], []) = operands(inputs)?;
        float_only(x)?;
        infer_pool(self.window(), self.ceil_mode, x).map(|y| vec![y])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x], []) = tensors(inputs)?;
        let divisors = self.divisors(&x.dims()[2..], &dims[2..]);
        pool(self.window(), inputs, &dims, |o, x, cells| {
            let sum: f64 = cells.iter().map(|&i| x[i]).sum();
            if divisors[o] == 0 { 0.0 } else { sum / divisors[o] as f64 }
        })
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy) = (cx.operand(0)?, cx.dy()?);
        cx.give(0, |cx| cx.add(self.transposed(&cx.dims(x)[2..]), &[dy]))
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis < 2)
    }
}

impl AveragePool {
    /// The operator of its gradient for an input of these spatial dimensions.
    pub fn transposed(&self, input: &[usize]) -> AveragePoolGradient {
        let AveragePool { kernel, strides, dilations, pads, ceil_mode, count_include_pad } = self.clone();
        let input = input.to_vec();
        AveragePoolGradient { kernel, strides, dilations, pads, ceil_mode, count_include_pad, input }
    }

    /// What each window of one plane divides by, row-major: the product over the axes of what `AveragePool::counts` says.
    pub fn divisors(&self, input: &[usize], output: &[usize]) -> Vec<usize> {
        (0..output.len()).fold(vec![1], |divisors: Vec<usize>, axis| {
            let counts = self.counts(axis, input[axis], output[axis]);
            divisors.iter().flat_map(|d| counts.iter().map(move |c| d.saturating_mul(*c))).collect()
        })
    }

    /// How many taps count of each of the `output` windows along one axis.
    fn counts(&self, axis: usize, input: usize, output: usize) -> Vec<usize> {
        let window = self.window();
        let count = |o: usize| match self.count_include_pad {
            true => {
                let room = (input + window.begin(axis) + window.end(axis)).saturating_sub(o * self.strides[axis]);
                room.div_ceil(self.dilations[axis]).min(self.kernel[axis])
            }
            false => window.taps_of_output(axis, o, input).0.len(),
        };
        (0..output).map(count).collect()
    }
}

impl Operator for MaxPoolGradient {
    const NAME: &'static str = "max_pool_gradient";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x, dy], []) = operands(inputs)?;
        one_float([x, dy])?;
        check_pooled(&infer_pool(self.window(), self.ceil_mode, x)?, dy)?;
        Ok(vec![x.clone()])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let ([x, dy], []) = tensors(inputs)?;
        let cells = cells(self.window(), &x.dims()[2..], &dy.dims()[2..]);
        let plane: usize = x.dims()[2..].iter().product();
        let (xs, ds) = (x.to_f64(), dy.to_f64());
        let mut dx = vec![0.0; xs.len()];
        for (i, d) in ds.iter().enumerate() {
            let (p, o) = (i / cells.len(), i % cells.len());
            if let Some(at) = first_max(&xs[p * plane..][..plane], &cells[o]) {
                dx[p * plane + at] += d;
            }
        }
        Ok(vec![Tensor::from_f64(x.dtype(), x.dims(), &dx)])
    }

    /// Of dy: what stands where the maxima do. x only says where they are, between jumps.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dx) = (cx.operand(0)?, cx.dy()?);
        let MaxPoolGradient { kernel, strides, dilations, pads, ceil_mode } = self.clone();
        cx.give(1, |cx| {
            let op = MaxPool { kernel, strides, dilations, pads, ceil_mode, indices: true, storage_order: 0 };
            let places = ValueId { node: cx.node(op, &[Some(x)])?, out: 1 };
            // A window without any tap inside is at -1: it reads a zero that stands before the elements.
            let places = cx.pointwise(&[places], |p, v| p.binary_const(BinaryFn::Add, v[0], 1.0))?;
            let flat = cx.reshape(dx, &[cx.dims(dx).iter().product()])?;
            let flat = cx.pad(flat, &[1], &[0])?;
            cx.add(Gather { axis: 0 }, &[flat, places])
        })
    }
}

impl Operator for AveragePoolGradient {
    const NAME: &'static str = "average_pool_gradient";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([dy], []) = operands(inputs)?;
        float_only(dy)?;
        let channels = dy.shape.iter().take(2).cloned();
        let x = TensorType::new(dy.dtype, channels.chain(self.input.iter().map(|&d| Dim::from(d))));
        check_pooled(&infer_pool(self.window(), self.ceil_mode, &x)?, dy)?;
        Ok(vec![x])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([dy], []) = tensors(inputs)?;
        let cells = cells(self.window(), &self.input, &dy.dims()[2..]);
        let divisors = self.forward().divisors(&self.input, &dy.dims()[2..]);
        let plane: usize = self.input.iter().product();
        let mut dx = vec![0.0; dims.iter().product()];
        for (i, d) in dy.to_f64().iter().enumerate() {
            let (p, o) = (i / cells.len(), i % cells.len());
            cells[o].iter().for_each(|at| dx[p * plane + at] += d / divisors[o] as f64);
        }
        Ok(vec![Tensor::from_f64(dy.dtype(), &dims, &dx)])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let dx = cx.dy()?;
        cx.give(0, |cx| cx.add(self.forward(), &[dx]))
    }
}

impl AveragePoolGradient {
    /// The pooling of which it is the gradient.
    pub fn forward(&self) -> AveragePool {
        let AveragePoolGradient { kernel, strides, dilations, pads, ceil_mode, count_include_pad, .. } = self.clone();
        AveragePool { kernel, strides, dilations, pads, ceil_mode, count_include_pad }
    }
}

/// Checks that `dy` has the type of what is pooled.
fn check_pooled(y: &TensorType, dy: &TensorType) -> Result<(), TypeError> {
    if y.rank() != dy.rank() {
        return type_err!("dy of type {dy} is no gradient of {y}");
    }
    y.shape.iter().zip(&dy.shape).try_for_each(|(a, b)| same_dim(a, b, "dimensions of the result and of dy"))
}

impl Operator for LpPool {
    const NAME: &'static str = "lp_pool";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x], []) = operands(inputs)?;
        float_only(x)?;
        if !(1..=1 << 30).contains(&self.p) {
            return type_err!("p is {}, not in 1..=2^30", self.p);
        }
        infer_pool(self.window(), self.ceil_mode, x).map(|y| vec![y])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let norm = |_: usize, x: &[f64], cells: &[usize]| {
            let sum: f64 = cells.iter().map(|&i| x[i].abs().powi(self.p as i32)).sum();
            match self.p {
                1 => sum,
                2 => sum.sqrt(),
                p => sum.powf(1.0 / p as f64),
            }
        };
        pool(self.window(), inputs, &dims, norm)
    }

    /// `dx = sign(x) |x|^(p-1) * sum over windows (dy y^(1-p))`: the sum is the gradient of a mean times what it divides by. A
    /// window of zeros gives 0.
    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, y, dy) = (cx.operand(0)?, cx.result(0), cx.dy()?);
        let LpPool { kernel, strides, dilations, pads, ceil_mode, .. } = self.clone();
        let mean = AveragePool { kernel, strides, dilations, pads, ceil_mode, count_include_pad: false };
        cx.give(0, |cx| {
            let (input, output) = (cx.dims(x)[2..].to_vec(), cx.dims(y)[2..].to_vec());
            let mut values = vec![y, dy];
            for axis in 0..output.len() {
                let counts = mean.counts(axis, input[axis], output[axis]);
                let counts: Vec<f64> = counts.into_iter().map(|n| n as f64).collect();
                let mut dims = vec![1; output.len()];
                dims[axis] = output[axis];
                values.push(cx.constant(&Tensor::from_f64(cx.ty(x).dtype, &dims, &counts)));
            }
            let part = cx.pointwise(&values, |p, v| {
                let power = p.binary_const(BinaryFn::Pow, v[0], 1.0 - self.p as f64);
                let d = p.binary(BinaryFn::Mul, v[1], power);
                let d = v[2..].iter().fold(d, |d, counts| p.binary(BinaryFn::Mul, d, *counts));
                let zero = p.constant(p.type_of(d), 0.0);
                let flat = p.compare(CompareFn::Eq, v[0], zero);
                p.select(flat, zero, d)
            })?;
            let sum = cx.add(mean.transposed(&input), &[part])?;
            cx.pointwise(&[x, sum], |p, v| {
                let slope = match self.p {
                    1 => p.unary(UnaryFn::Sign, v[0]),
                    2 => v[0],
                    n => {
                        let size = p.unary(UnaryFn::Abs, v[0]);
                        let power = p.binary_const(BinaryFn::Pow, size, n as f64 - 2.0);
                        p.binary(BinaryFn::Mul, power, v[0])
                    }
                };
                p.binary(BinaryFn::Mul, slope, v[1])
            })
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        cx.where_first(|axis| axis < 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dim;

    fn max_pool(kernel: &[usize], strides: &[usize], pads: &[usize]) -> MaxPool {
        MaxPool {
            kernel: kernel.to_vec(),
            strides: strides.to_vec(),
            dilations: vec![1; kernel.len()],
            pads: pads.to_vec(),
            ceil_mode: false,
            indices: true,
            storage_order: 0,
        }
    }

    #[test]
    fn maxima_and_their_places() {
        let x = Tensor::from_i64(DType::U8, &[1, 2, 2, 3], &[1, 9, 9, 4, 0, 2, 7, 7, 7, 255, 0, 1]);
        let op = max_pool(&[2, 2], &[1, 1], &[0, 0, 0, 0]);
        let y = op.eval(&[Some(&x)]).unwrap();
        assert_eq!(y[0], Tensor::from_i64(DType::U8, &[1, 2, 1, 2], &[9, 9, 255, 7]));
        assert_eq!(y[1], Tensor::i64(&[1, 2, 1, 2], vec![1, 1, 9, 7]));
        let y = MaxPool { storage_order: 1, ..op }.eval(&[Some(&x)]).unwrap();
        assert_eq!(y[1], Tensor::i64(&[1, 2, 1, 2], vec![2, 2, 7, 8]));
    }

    #[test]
    fn nan_wins_and_padding_never_does() {
        let x = Tensor::f32(&[1, 1, 4], vec![-3.0, f32::NAN, -1.0, -2.0]);
        let y = max_pool(&[2], &[1], &[1, 1]).eval(&[Some(&x)]).unwrap();
        let v = y[0].to_f64();
        assert!(v[1].is_nan() && v[2].is_nan());
        assert_eq!([v[0], v[3], v[4]], [-3.0, -1.0, -2.0]);
        assert_eq!(y[1], Tensor::i64(&[1, 1, 5], vec![0, 1, 1, 2, 3]));
        // Taps at -1 and 2 around a single element: nothing to take the maximum of.
        let op = MaxPool { dilations: vec![3], ..max_pool(&[2], &[1], &[1, 2]) };
        let y = op.eval(&[Some(&Tensor::from_i64(DType::I8, &[1, 1, 1], &[5]))]).unwrap();
        assert_eq!((y[0].to_i64(), y[1].to_i64()), (vec![-128], vec![-1]));
    }

    #[test]
    fn means_count_padding_but_not_what_hangs_over() {
        let x = Tensor::from_f64(DType::F64, &[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]);
        let op = AveragePool {
            kernel: vec![3],
            strides: vec![2],
            dilations: vec![1],
            pads: vec![1, 0],
            ceil_mode: true,
            count_include_pad: false,
        };
        let eval = |op: &AveragePool| op.eval(&[Some(&x)]).unwrap()[0].to_f64();
        assert_eq!(eval(&op), [1.5, 3.0]);
        let counted = AveragePool { count_include_pad: true, ..op.clone() };
        assert_eq!(eval(&counted), [1.0, 3.0]);
        let over = AveragePool { pads: vec![0, 0], ..counted };
        assert_eq!(eval(&over), [2.0, 3.5]); // the second window holds two elements and nothing else
        let padded = AveragePool { pads: vec![0, 1], ..over };
        assert_eq!(eval(&padded), [2.0, 7.0 / 3.0]);
    }

    #[test]
    fn norms() {
        let x = Tensor::f32(&[1, 1, 2, 2], vec![3.0, -4.0, 0.0, 0.0]);
        let op = LpPool {
            kernel: vec![1, 2],
            strides: vec![1, 1],
            dilations: vec![1, 1],
            pads: vec![0; 4],
            ceil_mode: false,
            p: 2,
        };
        assert_eq!(op.eval(&[Some(&x)]).unwrap()[0].to_f64(), [5.0, 0.0]);
        assert_eq!(LpPool { p: 1, ..op.clone() }.eval(&[Some(&x)]).unwrap()[0].to_f64(), [7.0, 0.0]);
        assert!(LpPool { p: 0, ..op }.infer(&[Some(&x.ty())]).is_err());
    }

    #[test]
    fn shapes_of_symbols_and_of_nothing() {
        let x = TensorType::new(DType::F32, [Dim::symbol("N"), Dim::Known(3), Dim::symbol("H")]);
        let y = max_pool(&[2], &[2], &[0, 0]).infer(&[Some(&x)]).unwrap();
        assert_eq!(y[0].to_string(), "f32[N,3,H/2]");
        assert!(max_pool(&[], &[], &[]).infer(&[Some(&TensorType::fixed(DType::F32, &[1, 2]))]).is_err());
        assert!(max_pool(&[2], &[0], &[0, 0]).infer(&[Some(&x)]).is_err());
        assert!(max_pool(&[2], &[1], &[0]).infer(&[Some(&x)]).is_err());
    }
}
