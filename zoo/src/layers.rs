//! The layers that architectures are made of, each one or a few ONNX nodes with initialised weights.
//!
//! A [`Tap`] is a value with its shape behind the batch: `[C, H, W]`, or `[F]` once it is flat. A layer's name is the one
//! that the module has in torchvision; its weights are `NAME.weight` and `NAME.bias`. A kernel that its input cannot fill
//! is an error, so that a network which is too deep for its pictures is refused when it is built.

use crate::{Options, ZooError};
use nncc_frontend::author::{Attribute as A, Author};
use nncc_ir::init::{Fan, Init, by_rules};
use nncc_ir::{DType, Tensor};

/// The operator set of the models: that of ONNX 1.15, read by everything current.
const OPSET: i64 = 20;
/// Elements that one weight may have: what a file of 2 GiB holds.
const LARGEST: usize = 1 << 29;

/// A value in the network.
#[derive(Clone, Debug)]
pub struct Tap {
    name: String,
    dims: Vec<usize>,
}

impl Tap {
    /// Channels, or features of a flat value.
    pub fn channels(&self) -> usize {
        self.dims[0]
    }

    /// Rows and columns.
    pub fn plane(&self) -> [usize; 2] {
        match self.dims[..] {
            [_, h, w] => [h, w],
            _ => [1, 1],
        }
    }
}

/// A convolution.
#[derive(Clone, Debug)]
pub struct Conv {
    /// Output channels.
    pub out: usize,
    /// Rows and columns of the kernel.
    pub kernel: usize,
    /// Step of both.
    pub stride: usize,
    /// Zeros around.
    pub pad: usize,
    /// Groups.
    pub group: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// How the weight begins.
    pub weight: Start,
}

/// How a weight and the bias beside it begin.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// PyTorch's default of the layer, for both.
    Default,
    /// This distribution; a bias of zeros.
    Of(Init),
}

/// He's normal distribution over the outgoing connections.
pub const HE_OUT: Start = Start::Of(Init::KaimingNormal { fan: Fan::Out, gain: std::f64::consts::SQRT_2 });
/// He's normal distribution over the incoming connections.
pub const HE_IN: Start = Start::Of(Init::HE);
/// A narrow normal distribution, as classifiers get it.
pub const NARROW: Start = Start::Of(Init::Normal { mean: 0.0, std: 0.01 });

impl Conv {
    /// A square kernel with stride 1 that keeps rows and columns (if it is odd); no bias, He's distribution.
    pub fn new(out: usize, kernel: usize) -> Conv {
        Conv { out, kernel, stride: 1, pad: kernel / 2, group: 1, bias: false, weight: HE_OUT }
    }

    /// With this stride.
    pub fn stride(self, stride: usize) -> Conv {
        Conv { stride, ..self }
    }

    /// With this padding.
    pub fn pad(self, pad: usize) -> Conv {
        Conv { pad, ..self }
    }

    /// With a bias, and weights that begin so.
    pub fn biased(self, weight: Start) -> Conv {
        Conv { bias: true, weight, ..self }
    }

    /// Without a bias, with weights that begin so.
    pub fn from(self, weight: Start) -> Conv {
        Conv { weight, ..self }
    }
}

/// A window of a pooling layer.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Rows and columns.
    pub kernel: usize,
    /// Step of both.
    pub stride: usize,
    /// Padding.
    pub pad: usize,
    /// Whether a last window that is cut off by the border counts.
    pub ceil: bool,
}

impl Window {
    /// A window without padding.
    pub const fn new(kernel: usize, stride: usize) -> Window {
        Window { kernel, stride, pad: 0, ceil: false }
    }
}

/// A network that is being written.
pub struct Net {
    author: Author,
    arch: &'static str,
    options: Options,
}

impl Net {
    pub(crate) fn new(arch: &'static str, options: &Options) -> (Net, Tap) {
        let mut author = Author::new(arch, OPSET);
        let [c, h, w] = options.input;
        let name = author.input("input", DType::F32, &[None, Some(c), Some(h), Some(w)]);
        (Net { author, arch, options: options.clone() }, Tap { name, dims: vec![c, h, w] })
    }

    pub(crate) fn finish(mut self, logits: &Tap) -> Author {
        // A node whose output has the name that the model's users see.
        let name = self.author.node("Identity", "logits", &[&logits.name], &[]);
        self.author.output(&name, DType::F32, &[None, Some(logits.channels())]);
        self.author
    }

    /// How many classes the network tells apart.
    pub fn classes(&self) -> usize {
        self.options.classes
    }

    fn weight(&mut self, name: &str, dims: &[usize], init: Init) -> Result<String, ZooError> {
        let elems = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= LARGEST);
        let large = || ZooError::Large { arch: self.arch, weight: name.to_string() };
        elems.ok_or_else(large)?;
        let value = match by_rules(&self.options.init, dims, self.options.seed, name)? {
            Some(value) => value,
            None => init.tensor(dims, self.options.seed, name)?,
        };
        Ok(self.author.initializer(name, &value))
    }

    /// A layer's weight and bias.
    fn weights(&mut self, name: &str, dims: &[usize], start: Start, bias: bool) -> Result<Vec<String>, ZooError> {
        let fan_in = dims[1..].iter().fold(1usize, |n, &d| n.saturating_mul(d));
        let default = Init::default_of(fan_in);
        let (weight, shift) = match start {
            Start::Default => (default, default),
            Start::Of(init) => (init, Init::Constant(0.0)),
        };
        let mut names = vec![self.weight(&format!("{name}.weight"), dims, weight)?];
        if bias {
            names.push(self.weight(&format!("{name}.bias"), &dims[..1], shift)?);
        }
        Ok(names)
    }

    fn node(&mut self, op: &str, name: &str, operands: &[&str], attributes: &[(&str, A<'_>)], dims: Vec<usize>) -> Tap {
        Tap { name: self.author.node(op, name, operands, attributes), dims }
    }

    /// Rows and columns that a window makes of `x`'s.
    fn slide(&self, x: &Tap, layer: &str, w: Window) -> Result<Vec<usize>, ZooError> {
        let padded = x.plane().map(|n| n + 2 * w.pad);
        if padded.iter().any(|&n| n < w.kernel) {
            let input = self.options.input.map(|n| n.to_string()).join("x");
            let (arch, layer, [height, width]) = (self.arch, layer.to_string(), padded);
            return Err(ZooError::Small { arch, input, layer, height, width, window: w.kernel });
        }
        let count = |n: usize, before: usize| {
            let steps = (n - w.kernel).checked_div(w.stride).unwrap_or(0);
            let rest = w.ceil && steps * w.stride < n - w.kernel;
            // A window that would begin behind the input and its padding in front is none (PyTorch, ONNX).
            steps + 1 + usize::from(rest && (steps + 1) * w.stride < before + w.pad)
        };
        let plane = x.plane();
        Ok(padded.iter().zip(plane).map(|(&n, before)| count(n, before)).collect())
    }

    /// A convolution.
    pub fn conv(&mut self, x: &Tap, name: &str, c: &Conv) -> Result<Tap, ZooError> {
        let dims = [c.out, x.channels() / c.group, c.kernel, c.kernel];
        let window = Window { pad: c.pad, ..Window::new(c.kernel, c.stride) };
        let plane = self.slide(x, name, window)?;
        let weights = self.weights(name, &dims, c.weight, c.bias)?;
        let (k, s, p) = (c.kernel as i64, c.stride as i64, c.pad as i64);
        let attributes = [
            ("kernel_shape", A::Ints(&[k, k])),
            ("strides", A::Ints(&[s, s])),
            ("pads", A::Ints(&[p; 4])),
            ("group", A::Int(c.group as i64)),
        ];
        let operands: Vec<&str> = std::iter::once(x.name.as_str()).chain(weights.iter().map(String::as_str)).collect();
        Ok(self.node("Conv", name, &operands, &attributes, [&[c.out][..], &plane].concat()))
    }

    /// A dense layer.
    pub fn linear(&mut self, x: &Tap, name: &str, out: usize, start: Start) -> Result<Tap, ZooError> {
        let weights = self.weights(name, &[out, x.channels()], start, true)?;
        let attributes = [("transB", A::Int(1))];
        Ok(self.node("Gemm", name, &[&x.name, &weights[0], &weights[1]], &attributes, vec![out]))
    }

    /// Batch normalization: scale 1, shift 0, running mean 0 and variance 1.
    pub fn batch_norm(&mut self, x: &Tap, name: &str, epsilon: f32) -> Result<Tap, ZooError> {
        let mut operands = vec![x.name.clone()];
        for (part, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            operands.push(self.weight(&format!("{name}.{part}"), &[x.channels()], Init::Constant(value))?);
        }
        let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
        // ONNX's momentum is the share that stays, PyTorch's (0.1) the share that comes.
        let attributes = [("epsilon", A::Float(epsilon)), ("momentum", A::Float(0.9))];
        Ok(self.node("BatchNormalization", name, &operands, &attributes, x.dims.clone()))
    }

    /// A convolution and a batch normalization with its usual epsilon.
    pub fn conv_bn(&mut self, x: &Tap, conv: &str, norm: &str, c: &Conv) -> Result<Tap, ZooError> {
        let y = self.conv(x, conv, c)?;
        self.batch_norm(&y, norm, 1e-5)
    }

    /// A function of each element: `Relu`, `Sigmoid`.
    pub fn map(&mut self, x: &Tap, op: &str) -> Tap {
        let name = format!("{}/{}", x.name, op.to_lowercase());
        self.node(op, &name, &[&x.name], &[], x.dims.clone())
    }

    /// Rectifies.
    pub fn relu(&mut self, x: &Tap) -> Tap {
        self.map(x, "Relu")
    }

    /// Rectifies, with 6 as the largest value.
    pub fn relu6(&mut self, x: &Tap) -> Tap {
        let bounds = [("clip.min", 0.0), ("clip.max", 6.0)].map(|(bound, value)| {
            self.author.initializer(&format!("{}/{bound}", x.name), &Tensor::f32(&[], vec![value]))
        });
        let name = format!("{}/relu6", x.name);
        self.node("Clip", &name, &[&x.name, &bounds[0], &bounds[1]], &[], x.dims.clone())
    }

    /// Drops elements in training.
    pub fn dropout(&mut self, x: &Tap, name: &str, ratio: f32) -> Tap {
        let share = self.author.initializer(&format!("{name}.ratio"), &Tensor::f32(&[], vec![ratio]));
        self.node("Dropout", name, &[&x.name, &share], &[], x.dims.clone())
    }

    /// The largest of each window.
    pub fn max_pool(&mut self, x: &Tap, name: &str, w: Window) -> Result<Tap, ZooError> {
        self.pool("MaxPool", x, name, w)
    }

    /// The mean of each window.
    pub fn average_pool(&mut self, x: &Tap, name: &str, w: Window) -> Result<Tap, ZooError> {
        self.pool("AveragePool", x, name, w)
    }

    fn pool(&mut self, op: &str, x: &Tap, name: &str, w: Window) -> Result<Tap, ZooError> {
        let plane = self.slide(x, name, w)?;
        let (k, s, p) = (w.kernel as i64, w.stride as i64, w.pad as i64);
        let attributes = [
            ("kernel_shape", A::Ints(&[k, k])),
            ("strides", A::Ints(&[s, s])),
            ("pads", A::Ints(&[p; 4])),
            ("ceil_mode", A::Int(i64::from(w.ceil))),
        ];
        Ok(self.node(op, name, &[&x.name], &attributes, [&[x.channels()][..], &plane].concat()))
    }

    /// Windows that make `n x n` of any plane, as evenly as windows of one size can: stride `floor(size / n)`, kernel what
    /// is left. Equal to PyTorch's adaptive pooling where `n` divides the size. A plane of fewer rows or columns than `n`
    /// keeps them.
    pub fn adaptive_pool(&mut self, x: &Tap, op: &str, name: &str, n: usize) -> Tap {
        let plane = x.plane();
        let out = plane.map(|size| size.min(n));
        let [s0, s1] = [plane[0] / out[0], plane[1] / out[1]];
        let [k0, k1] = [plane[0] - (out[0] - 1) * s0, plane[1] - (out[1] - 1) * s1];
        if [k0, k1, s0, s1] == [1; 4] {
            return x.clone();
        }
        let attributes =
            [("kernel_shape", A::Ints(&[k0 as i64, k1 as i64])), ("strides", A::Ints(&[s0 as i64, s1 as i64]))];
        self.node(op, name, &[&x.name], &attributes, vec![x.channels(), out[0], out[1]])
    }

    /// The mean of each channel, as a plane of one element.
    pub fn global_average(&mut self, x: &Tap, name: &str) -> Tap {
        self.node("GlobalAveragePool", name, &[&x.name], &[], vec![x.channels(), 1, 1])
    }

    /// All elements of a sample in a row.
    pub fn flatten(&mut self, x: &Tap) -> Tap {
        let name = format!("{}/flat", x.name);
        self.node(
            "Flatten",
            &name,
            &[&x.name],
            &[("axis", A::Int(1))],
            vec![x.dims.iter().fold(1usize, |n, &d| n.saturating_mul(d))],
        )
    }

    /// The sum of two values.
    pub fn add(&mut self, a: &Tap, b: &Tap, name: &str) -> Tap {
        self.node("Add", name, &[&a.name, &b.name], &[], a.dims.clone())
    }

    /// A value scaled by a number a channel.
    pub fn scale(&mut self, x: &Tap, by: &Tap, name: &str) -> Tap {
        self.node("Mul", name, &[&x.name, &by.name], &[], x.dims.clone())
    }

    /// Values side by side along the channels (the features, if they are flat).
    pub fn concat(&mut self, parts: &[Tap], name: &str) -> Tap {
        let operands: Vec<&str> = parts.iter().map(|p| p.name.as_str()).collect();
        let mut dims = parts[0].dims.clone();
        dims[0] = parts.iter().map(Tap::channels).sum();
        self.node("Concat", name, &operands, &[("axis", A::Int(1))], dims)
    }

    /// As many channels of zeros in front as behind, `channels` in all.
    pub fn pad_channels(&mut self, x: &Tap, name: &str, channels: usize) -> Tap {
        let more = channels - x.channels();
        let (front, behind) = ((more / 2) as i64, more.div_ceil(2) as i64);
        let pads = Tensor::i64(&[8], vec![0, front, 0, 0, 0, behind, 0, 0]);
        let pads = self.author.initializer(&format!("{name}.pads"), &pads);
        let plane = x.plane();
        self.node("Pad", name, &[&x.name, &pads], &[], vec![channels, plane[0], plane[1]])
    }
}
