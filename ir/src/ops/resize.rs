//! Resampling on a regular grid: nearest neighbour, linear, cubic.
//!
//! Every mode is separable: an output element is a product of weights, one axis after the other, and what one axis does is
//! a small [`Table`]. Output index `i` of an axis of `len` elements is first mapped to a coordinate among the inputs
//! ([`Coordinate`]); `base = ceil(coordinate) - 1` and `ratio = coordinate - base` in (0, 1] then say where it stands
//! between two of them, the left one preferred where it stands on one.
//!
//! ```text
//! nearest   one tap, the coordinate rounded as `NearestMode` says
//! linear    taps base, base + 1                weights 1 - ratio, ratio
//! cubic     taps base - 1 ..= base + 2         Keys' kernel with the parameter a = cubic_coeff_a
//! antialias, where an axis shrinks             the same kernels, stretched by 1 / scale and normalised to sum 1
//! ```
//!
//! Taps outside of the input read the nearest element inside, or have weight 0 and the others are scaled up to sum 1
//! (`exclude_outside`). With `tf_crop_and_resize`, an output whose coordinate on any axis is outside of the input is
//! `extrapolation_value`. Numbers are computed in f64 and rounded once; integers truncate.
//!
//! Source: ONNX Resize-19 and its reference implementation; Keys, Cubic Convolution Interpolation (1981), equation 4.

use crate::batch::{BatchCx, Batched};
use crate::op::{EvalError, Operator, TypeError};
use crate::ops::operands::{around, one_float, operands, output_dims, tensors};
use crate::{DType, Dim, GradientCx, GradientError, Tensor, TensorType, attr_enum, map_data, operator_attrs, type_err};

attr_enum! {
    /// How elements between inputs are computed.
    pub enum ResizeMode {
        /// The nearest input: any element type.
        Nearest = "nearest",
        /// Linearly, from two inputs an axis.
        Linear = "linear",
        /// By a cubic, from four inputs an axis.
        Cubic = "cubic",
    }
}

attr_enum! {
    /// The coordinate x of output `i`, for an axis of `len` inputs, `n` outputs and `width = len * scale`, which may not be
    /// an integer.
    pub enum Coordinate {
        /// `(i + 0.5) / scale - 0.5`.
        HalfPixel = "half_pixel",
        /// The same, moved by `len / 2 * (1 - n / width)`: the centres of input and output coincide.
        HalfPixelSymmetric = "half_pixel_symmetric",
        /// As half_pixel, but 0 if there is one output.
        PytorchHalfPixel = "pytorch_half_pixel",
        /// `i * (len - 1) / (width - 1)`, or 0 if width is 1.
        AlignCorners = "align_corners",
        /// `i / scale`.
        Asymmetric = "asymmetric",
        /// `start * (len - 1) + i * (end - start) * (len - 1) / (width - 1)`; the middle of start and end if width is 1.
        TfCropAndResize = "tf_crop_and_resize",
    }
}

attr_enum! {
    /// How a coordinate is rounded to the nearest input.
    pub enum NearestMode {
        /// To nearest, halves down.
        RoundPreferFloor = "round_prefer_floor",
        /// To nearest, halves up.
        RoundPreferCeil = "round_prefer_ceil",
        /// Down.
        Floor = "floor",
        /// Up.
        Ceil = "ceil",
    }
}

operator_attrs! {
    /// `x: T[..] -> T[sizes]`. Nearest takes any type, the other modes numbers.
    pub struct Resize {
        /// Outputs an input, for every axis; or empty: the ratio of sizes.
        pub scales: Vec<f64>,
        /// The shape of the result.
        pub sizes: Vec<Dim>,
        /// How elements between inputs are computed.
        pub mode: ResizeMode,
        /// Where an output stands among the inputs.
        pub coordinate: Coordinate,
        /// How `nearest` rounds.
        pub nearest: NearestMode,
        /// The parameter of `cubic`.
        pub cubic_coeff_a: f64,
        /// Whether taps outside of x have weight 0, instead of reading the nearest element inside.
        pub exclude_outside: bool,
        /// What `tf_crop_and_resize` gives outside of x.
        pub extrapolation_value: f64,
        /// Whether kernels are stretched where an axis shrinks.
        pub antialias: bool,
        /// For `tf_crop_and_resize`: the start of the crop on every axis, then its end on every axis, in units of `len - 1`.
        /// Else empty.
        pub roi: Vec<f64>,
    }
}

operator_attrs! {
    /// The gradient of [`Resize`]: `dy: T[..] -> T[input]`, T in f32, f64. Each dy goes to what its output was made of, by the same
    /// weights; one outside of x gives nothing. Differentiation makes it, no model has it.
    pub struct ResizeGradient {
        /// Those of the resize.
        pub scales: Vec<f64>,
        /// The shape of what was resized.
        pub input: Vec<usize>,
        /// Those of the resize.
        pub mode: ResizeMode,
        /// Those of the resize.
        pub coordinate: Coordinate,
        /// Those of the resize.
        pub nearest: NearestMode,
        /// Those of the resize.
        pub cubic_coeff_a: f64,
        /// Those of the resize.
        pub exclude_outside: bool,
        /// Those of the resize.
        pub antialias: bool,
        /// Those of the resize.
        pub roi: Vec<f64>,
    }
}

/// What resizing does along one axis: output `i` is the sum over `t` of `weights[i * taps + t] * x[inputs[i * taps + t]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Inputs that each output reads.
    pub taps: usize,
    /// Which ones, all inside of x.
    pub inputs: Vec<usize>,
    /// Their weights.
    pub weights: Vec<f64>,
    /// Whether each output has the extrapolation value instead.
    pub outside: Vec<bool>,
}

impl Table {
    /// Whether output `i` is input `i`, for all.
    pub fn is_identity(&self, inputs: usize) -> bool {
        let same = self.inputs.iter().enumerate().all(|(i, &at)| i == at);
        self.taps == 1 && self.outside.len() == inputs && same && self.outside.iter().all(|o| !o)
    }
}

impl Resize {
    /// The scale of an axis.
    fn scale(&self, axis: usize, len: usize, n: usize) -> f64 {
        self.scales.get(axis).copied().unwrap_or(n as f64 / len as f64)
    }

    /// Whether `axis` stays as it is whatever the elements: told without a table, which is as long as the axis.
    pub fn keeps(&self, axis: usize, len: usize, n: usize) -> bool {
        len == n && self.scale(axis, len, n) == 1.0 && self.coordinate != Coordinate::TfCropAndResize
    }

    /// What happens along `axis`, for `len > 0` inputs and `n` outputs; the operator is one that [`Operator::infer`] accepts.
    pub fn table(&self, axis: usize, len: usize, n: usize) -> Table {
        let scale = self.scale(axis, len, n);
        let cropped = self.coordinate == Coordinate::TfCropAndResize;
        let xs: Vec<f64> = (0..n).map(|i| self.coordinate(axis, i, len, n, scale)).collect();
        let outside = xs.iter().map(|&x| cropped && !(x >= 0.0 && x <= (len - 1) as f64)).collect();
        let on_grid = len == n && xs.iter().enumerate().all(|(i, &x)| x == i as f64);
        let stretch = if self.antialias { scale.min(1.0) } else { 1.0 };
        if self.mode == ResizeMode::Nearest || (on_grid && stretch == 1.0) {
            let inputs = xs.iter().map(|&x| clamped(self.round(x), len)).collect();
            return Table { taps: 1, inputs, weights: vec![1.0; n], outside };
        }
        let radius = if self.mode == ResizeMode::Linear { 1.0 } else { 2.0 };
        let first = (-radius / stretch).floor() + 1.0;
        let taps = (2.0 - 2.0 * first) as usize;
        let (mut inputs, mut weights) = (Vec::with_capacity(n * taps), Vec::with_capacity(n * taps));
        for x in xs {
            let base = x.ceil() - 1.0;
            let ratio = x - base;
            let at = |t: usize| first + t as f64;
            let kept = |t: usize| !self.exclude_outside || (base + at(t) >= 0.0 && base + at(t) < len as f64);
            let kernel = |t: usize| if kept(t) { self.kernel((at(t) - ratio) * stretch) } else { 0.0 };
            let row: Vec<f64> = (0..taps).map(kernel).collect();
            let sum: f64 = row.iter().sum();
            let sum = if sum == 0.0 || !(self.antialias || self.exclude_outside) { 1.0 } else { sum };
            inputs.extend((0..taps).map(|t| clamped(base + at(t), len)));
            weights.extend(row.iter().map(|w| w / sum));
        }
        Table { taps, inputs, weights, outside }
    }

    fn coordinate(&self, axis: usize, i: usize, len: usize, n: usize, scale: f64) -> f64 {
        let (i, last, width) = (i as f64, (len - 1) as f64, scale * len as f64);
        let half_pixel = (i + 0.5) / scale - 0.5;
        match self.coordinate {
            Coordinate::HalfPixel => half_pixel,
            Coordinate::HalfPixelSymmetric => len as f64 / 2.0 * (1.0 - n as f64 / width) + half_pixel,
            Coordinate::PytorchHalfPixel if n == 1 => 0.0,
            Coordinate::PytorchHalfPixel => half_pixel,
            Coordinate::AlignCorners if width == 1.0 => 0.0,
            Coordinate::AlignCorners => i * last / (width - 1.0),
            Coordinate::Asymmetric => i / scale,
            Coordinate::TfCropAndResize => {
                let at = |i: usize| self.roi.get(i).copied().unwrap_or(0.0);
                let (start, end) = (at(axis), at(self.sizes.len() + axis));
                match width == 1.0 {
                    true => (start + end) * last / 2.0,
                    false => start * last + i * (end - start) * last / (width - 1.0),
                }
            }
        }
    }

    fn round(&self, x: f64) -> f64 {
        match self.nearest {
            NearestMode::RoundPreferFloor => (x - 0.5).ceil(),
            NearestMode::RoundPreferCeil => (x + 0.5).floor(),
            NearestMode::Floor => x.floor(),
            NearestMode::Ceil => x.ceil(),
        }
    }

    /// The interpolation kernel at distance `d`.
    fn kernel(&self, d: f64) -> f64 {
        let (d, a) = (d.abs(), self.cubic_coeff_a);
        match self.mode {
            ResizeMode::Nearest => f64::from(d <= 0.5),
            ResizeMode::Linear => (1.0 - d).max(0.0),
            ResizeMode::Cubic if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            ResizeMode::Cubic if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            ResizeMode::Cubic => 0.0,
        }
    }
}

fn clamped(x: f64, len: usize) -> usize {
    (x.max(0.0) as usize).min(len - 1) // the cast saturates, NaN becomes 0
}

impl Operator for Resize {
    const NAME: &'static str = "resize";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([x], []) = operands(inputs)?;
        let rank = x.rank();
        if self.mode != ResizeMode::Nearest && x.dtype == DType::Bool {
            return type_err!("does not interpolate bool");
        }
        if self.sizes.len() != rank || !(self.scales.is_empty() || self.scales.len() == rank) {
            return type_err!("{} sizes, {} scales for a tensor of rank {rank}", self.sizes.len(), self.scales.len());
        }
        let cropped = self.coordinate == Coordinate::TfCropAndResize;
        if self.roi.len() != if cropped { 2 * rank } else { 0 } {
            return type_err!("roi has {} numbers for rank {rank} and {}", self.roi.len(), self.coordinate.text());
        }
        if let Some(f) = self.scales.iter().find(|f| !(f.is_finite() && **f > 0.0)) {
            return type_err!("a scale is {f}");
        }
        if let Some(f) = self.roi.iter().find(|f| !f.is_finite()) {
            return type_err!("roi has a {f}");
        }
        for (axis, (d, n)) in x.shape.iter().zip(&self.sizes).enumerate() {
            let (Some(d), Some(n)) = (d.size(), n.size()) else {
                match n.known() {
                    Some(n) if n < 0 => return type_err!("a size is {n}"),
                    _ => continue,
                }
            };
            if d == 0 && n > 0 {
                return type_err!("axis {axis} has no element to make {n} of");
            }
            // A stretched kernel spans 4 / scale inputs at most: this bounds the table by the size of x.
            if self.antialias && n > 0 && self.scale(axis, d, n) * (d as f64) < 0.25 {
                return type_err!(
                    "axis {axis} of {d} elements is scaled by {} to less than one",
                    self.scale(axis, d, n)
                );
            }
        }
        Ok(vec![TensorType { dtype: x.dtype, shape: self.sizes.clone() }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([x], []) = tensors(inputs)?;
        if dims.contains(&0) {
            return Ok(vec![Tensor::zeros(x.dtype(), &dims)]);
        }
        let tables: Vec<Table> =
            x.dims().iter().zip(&dims).enumerate().map(|(a, (&d, &n))| self.table(a, d, n)).collect();
        if self.mode == ResizeMode::Nearest && !tables.iter().any(|t| t.outside.contains(&true)) {
            let gather = |at: Vec<usize>, (table, &d): (&Table, &usize)| -> Vec<usize> {
                at.iter().flat_map(|p| table.inputs.iter().map(move |i| p * d + i)).collect()
            };
            let places = tables.iter().zip(x.dims()).fold(vec![0], gather);
            return Ok(vec![Tensor::of(&dims, map_data!(x.data(), v => places.iter().map(|&i| v[i]).collect()))]);
        }
        let mut now = x.dims().to_vec();
        let mut v = x.to_f64();
        for (axis, table) in tables.iter().enumerate().filter(|(a, t)| !t.is_identity(x.dims()[*a])) {
            v = resample(&v, around(&now, axis), table);
            now[axis] = dims[axis];
        }
        for (axis, table) in tables.iter().enumerate() {
            let (_, n, inner) = around(&dims, axis);
            let outside = |i: usize| table.outside[i / inner % n];
            v.iter_mut().enumerate().filter(|(i, _)| outside(*i)).for_each(|(_, v)| *v = self.extrapolation_value);
        }
        Ok(vec![Tensor::from_f64(x.dtype(), &dims, &v)])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (x, dy) = (cx.operand(0)?, cx.dy()?);
        cx.give(0, |cx| {
            let transposed = ResizeGradient {
                scales: self.scales.clone(),
                input: cx.dims(x),
                mode: self.mode,
                coordinate: self.coordinate,
                nearest: self.nearest,
                cubic_coeff_a: self.cubic_coeff_a,
                exclude_outside: self.exclude_outside,
                antialias: self.antialias,
                roi: self.roi.clone(),
            };
            cx.add(transposed, &[dy])
        })
    }

    fn batched(&self, cx: &BatchCx<'_>) -> Option<Batched> {
        let (axis, x) = (cx.first_alone()?, cx.ty(0)?);
        let rank = x.rank();
        let kept = x.shape.get(axis)? == self.sizes.get(axis)?
            && self.scales.get(axis).is_none_or(|s| *s == 1.0)
            && self.roi.get(axis).is_none_or(|start| *start == 0.0)
            && self.roi.get(rank + axis).is_none_or(|end| *end == 1.0);
        let sizes = cx.scaled_at(&self.sizes, axis).filter(|_| kept)?;
        Some(Batched { op: Some(Resize { sizes, ..self.clone() }.into()), ..cx.on(axis) })
    }
}

impl ResizeGradient {
    /// The resize of which it is the gradient, for a result of this shape.
    pub fn forward(&self, sizes: &[Dim]) -> Resize {
        Resize {
            scales: self.scales.clone(),
            sizes: sizes.to_vec(),
            mode: self.mode,
            coordinate: self.coordinate,
            nearest: self.nearest,
            cubic_coeff_a: self.cubic_coeff_a,
            exclude_outside: self.exclude_outside,
            extrapolation_value: 0.0,
            antialias: self.antialias,
            roi: self.roi.clone(),
        }
    }
}

impl Operator for ResizeGradient {
    const NAME: &'static str = "resize_gradient";

    fn infer(&self, inputs: &[Option<&TensorType>]) -> Result<Vec<TensorType>, TypeError> {
        let ([dy], []) = operands(inputs)?;
        let x = TensorType::fixed(one_float([dy])?, &self.input);
        self.forward(&dy.shape).infer(&[Some(&x)])?;
        Ok(vec![x])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, EvalError> {
        let dims = output_dims(self, inputs)?;
        let ([dy], []) = tensors(inputs)?;
        let forward = self.forward(&dy.ty().shape);
        let (mut now, mut v) = (dy.dims().to_vec(), dy.to_f64());
        if dims.contains(&0) {
            return Ok(vec![Tensor::zeros(dy.dtype(), &dims)]);
        }
        for axis in 0..dims.len() {
            let table = forward.table(axis, dims[axis], now[axis]);
            v = resample_transposed(&v, around(&now, axis), dims[axis], &table);
            now[axis] = dims[axis];
        }
        Ok(vec![Tensor::from_f64(dy.dtype(), &dims, &v)])
    }

    fn gradient(&self, cx: &mut GradientCx<'_>) -> Result<(), GradientError> {
        let (dy, dx) = (cx.operand(0)?, cx.dy()?);
        cx.give(0, |cx| cx.add(self.forward(&cx.ty(dy).shape), &[dx]))
    }
}

impl Coordinate {
    fn text(self) -> String {
        crate::attr::AttrValue::write(&self)
    }
}

/// One axis of a tensor, given as the sizes before, along and behind it, through a table.
fn resample(v: &[f64], (outer, len, inner): (usize, usize, usize), table: &Table) -> Vec<f64> {
    let mut y = Vec::with_capacity(outer * table.outside.len() * inner);
    for o in 0..outer {
        for (rows, weights) in table.inputs.chunks_exact(table.taps).zip(table.weights.chunks_exact(table.taps)) {
            let at = |i: usize| rows.iter().zip(weights).map(|(r, w)| w * v[(o * len + r) * inner + i]).sum::<f64>();
            y.extend((0..inner).map(at));
        }
    }
    y
}

/// The transpose of [`resample`] to `len` elements: each output of the table goes back to its inputs.
fn resample_transposed(v: &[f64], (outer, n, inner): (usize, usize, usize), len: usize, table: &Table) -> Vec<f64> {
    let mut x = vec![0.0; outer * len * inner];
    for (o, i) in (0..outer).flat_map(|o| (0..n).map(move |i| (o, i))).filter(|(_, i)| !table.outside[*i]) {
        let taps = i * table.taps..(i + 1) * table.taps;
        for (at, w) in table.inputs[taps.clone()].iter().zip(&table.weights[taps]) {
            (0..inner).for_each(|k| x[(o * len + at) * inner + k] += w * v[(o * n + i) * inner + k]);
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resize(mode: ResizeMode, coordinate: Coordinate, scale: f64, n: usize) -> Resize {
        Resize {
            scales: vec![scale],
            sizes: vec![Dim::from(n)],
            mode,
            coordinate,
            nearest: NearestMode::RoundPreferFloor,
            cubic_coeff_a: -0.75,
            exclude_outside: false,
            extrapolation_value: -1.0,
            antialias: false,
            roi: if coordinate == Coordinate::TfCropAndResize { vec![0.0, 1.0] } else { vec![] },
        }
    }

    fn eval(op: &Resize, v: &[f64]) -> Vec<f64> {
        op.eval(&[Some(&Tensor::from_f64(DType::F64, &[v.len()], v))]).unwrap()[0].to_f64()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).for_each(|(x, y)| assert!((x - y).abs() < 1e-12, "{a:?} is not {b:?}"));
    }

    const X: [f64; 4] = [1.0, 2.0, 3.0, 4.0];

    #[test]
    fn coordinates() {
        use Coordinate::*;
        let linear = |c, scale, n| eval(&resize(ResizeMode::Linear, c, scale, n), &X);
        close(&linear(HalfPixel, 2.0, 8), &[1.0, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.0]);
        close(&linear(Asymmetric, 2.0, 8), &[1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.0]);
        close(&linear(AlignCorners, 1.75, 7), &[1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]);
        close(&linear(AlignCorners, 0.25, 1), &[1.0]);
        close(&linear(PytorchHalfPixel, 0.25, 1), &[1.0]);
        close(&linear(HalfPixel, 0.25, 1), &[2.5]);
        // width = 2.4, two outputs: half_pixel reads at 1/3 and 2; symmetric at 2/3 and 7/3, mirror images.
        close(&linear(HalfPixel, 0.6, 2), &[4.0 / 3.0, 3.0]);
        close(&linear(HalfPixelSymmetric, 0.6, 2), &[5.0 / 3.0, 10.0 / 3.0]);
        let crop = Resize { roi: vec![0.5, 1.5], ..resize(ResizeMode::Linear, TfCropAndResize, 0.75, 3) };
        close(&eval(&crop, &X), &[2.5, 4.0, -1.0]);
    }

    #[test]
    fn roundings() {
        let nearest = |nearest, scale, n| {
            let op = Resize { nearest, ..resize(ResizeMode::Nearest, Coordinate::HalfPixel, scale, n) };
            eval(&op, &X)
        };
        // Coordinates 0.5 and 2.5.
        assert_eq!(nearest(NearestMode::RoundPreferFloor, 0.5, 2), [1.0, 3.0]);
        assert_eq!(nearest(NearestMode::RoundPreferCeil, 0.5, 2), [2.0, 4.0]);
        assert_eq!(nearest(NearestMode::Floor, 0.5, 2), [1.0, 3.0]);
        assert_eq!(nearest(NearestMode::Ceil, 0.5, 2), [2.0, 4.0]);
        assert_eq!(nearest(NearestMode::Ceil, 2.0, 8), [1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 4.0]);
        let op = resize(ResizeMode::Nearest, Coordinate::Asymmetric, 1.5, 3);
        let y = op.eval(&[Some(&Tensor::of(&[2], crate::Data::Bool(vec![true, false])))]).unwrap();
        assert_eq!(y[0].to_i64(), [1, 0, 0]);
    }

    #[test]
    fn cubics_reproduce_lines_inside_and_weights_sum_to_one() {
        let ramp: Vec<f64> = (0..9).map(f64::from).collect();
        let op = resize(ResizeMode::Cubic, Coordinate::HalfPixel, 2.0, 18);
        // With a = -0.5 Keys' kernel is exact on parabolas.
        let square: Vec<f64> = ramp.iter().map(|x| x * x).collect();
        let exact = Resize { cubic_coeff_a: -0.5, ..op.clone() };
        let expected: Vec<f64> = (0..18).map(|i| ((f64::from(i) + 0.5) / 2.0 - 0.5).powi(2)).collect();
        close(&eval(&exact, &square)[4..14], &expected[4..14]);
        for antialias in [false, true] {
            for exclude_outside in [false, true] {
                for (mode, scale, n) in
                    [(ResizeMode::Cubic, 2.0, 18), (ResizeMode::Cubic, 0.4, 3), (ResizeMode::Linear, 0.6, 5)]
                {
                    let op =
                        Resize { antialias, exclude_outside, mode, ..resize(mode, Coordinate::HalfPixel, scale, n) };
                    close(&eval(&op, &[3.0; 9]), &vec![3.0; n]);
                }
            }
        }
    }

    #[test]
    fn antialiasing_averages_what_is_left_out() {
        let op = Resize { antialias: true, ..resize(ResizeMode::Linear, Coordinate::HalfPixel, 0.5, 2) };
        // A triangle of radius 2 around 0.5: weights 3/8, 3/8, 1/8 and, on the clamped element before the first, 1/8.
        close(&eval(&op, &[8.0, 0.0, 0.0, 0.0]), &[4.0, 0.0]);
        close(&eval(&op, &[0.0, 0.0, 8.0, 0.0]), &[1.0, 3.0]);
    }

    #[test]
    fn axes_that_keep_their_size_are_not_touched() {
        let op = Resize {
            sizes: vec![Dim::from(2), Dim::from(4)],
            scales: vec![],
            ..resize(ResizeMode::Linear, Coordinate::HalfPixel, 1.0, 1)
        };
        let x = Tensor::from_f64(DType::F64, &[2, 2], &[f64::INFINITY, 1.0, 2.0, 4.0]);
        let y = op.eval(&[Some(&x)]).unwrap()[0].to_f64();
        assert_eq!(y[4..], [2.0, 2.5, 3.5, 4.0]);
        assert!(op.table(0, 2, 2).is_identity(2));
    }

    #[test]
    fn an_axis_that_is_kept_has_the_identity_as_its_table() {
        use Coordinate::*;
        for coordinate in [HalfPixel, HalfPixelSymmetric, PytorchHalfPixel, AlignCorners, Asymmetric, TfCropAndResize] {
            for mode in [ResizeMode::Nearest, ResizeMode::Linear, ResizeMode::Cubic] {
                for (antialias, len) in [(false, 1), (true, 2), (false, 3), (true, 7)] {
                    let op = Resize { antialias, ..resize(mode, coordinate, 1.0, len) };
                    assert_eq!(op.keeps(0, len, len), coordinate != TfCropAndResize);
                    assert!(coordinate == TfCropAndResize || op.table(0, len, len).is_identity(len), "{op:?}");
                    assert!(!op.keeps(0, len, len + 1));
                }
            }
        }
    }

    #[test]
    fn errors_not_panics() {
        let x = TensorType::fixed(DType::F32, &[4]);
        let ok = resize(ResizeMode::Linear, Coordinate::HalfPixel, 2.0, 8);
        assert!(ok.infer(&[Some(&x)]).is_ok());
        for f in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Resize { scales: vec![f], ..ok.clone() }.infer(&[Some(&x)]).is_err());
        }
        assert!(Resize { scales: vec![1e-300], antialias: true, ..ok.clone() }.infer(&[Some(&x)]).is_err());
        assert!(Resize { sizes: vec![Dim::Known(-3)], ..ok.clone() }.infer(&[Some(&x)]).is_err());
        assert!(Resize { sizes: vec![], ..ok.clone() }.infer(&[Some(&x)]).is_err());
        assert!(Resize { roi: vec![0.0], ..ok.clone() }.infer(&[Some(&x)]).is_err());
        assert!(ok.infer(&[Some(&TensorType::fixed(DType::F32, &[0]))]).is_err());
    }
}
