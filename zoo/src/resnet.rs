//! Residual networks: ResNet-18 and -50, with squeeze and excitation, and the narrow deep ones for 32x32 pictures.
//!
//! ```text
//! basic        x -> 3x3 -> 3x3 -> + -> relu          bottleneck   x -> 1x1 -> 3x3 -> 1x1 (4 times as wide) [-> SE] -> + -> relu
//!              |------ shortcut ---^                              |------------------------- shortcut -----------^
//! ```
//!
//! A shortcut over a stride or a change of width is a 1x1 convolution; in the networks for small pictures it takes every
//! second element and adds channels of zeros (option A of the paper), so that the plain networks of the same depth have
//! the same parameters. Source: He et al., "Deep residual learning for image recognition", 2015; Hu et al.,
//! "Squeeze-and-excitation networks", 2017 (the reduction is 16).

use crate::ZooError;
use crate::layers::{Conv, HE_OUT, Net, Start, Tap, Window};

pub(crate) fn resnet18(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    large(net, x, [2, 2, 2, 2], basic)
}

pub(crate) fn resnet50(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    large(net, x, [3, 4, 6, 3], |net, x, name, width, stride| bottleneck(net, x, name, width, stride, false))
}

pub(crate) fn seresnet50(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    large(net, x, [3, 4, 6, 3], |net, x, name, width, stride| bottleneck(net, x, name, width, stride, true))
}

pub(crate) fn resnet20(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    small(net, x, 3, true)
}

pub(crate) fn resnet44(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    small(net, x, 7, true)
}

pub(crate) fn plain20(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    small(net, x, 3, false)
}

pub(crate) fn plain44(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    small(net, x, 7, false)
}

/// A block: network, operand, name, width, stride.
type Block = fn(&mut Net, &Tap, &str, usize, usize) -> Result<Tap, ZooError>;

/// The networks of ImageNet: a stem, four stages, a classifier.
fn large(net: &mut Net, x: Tap, blocks: [usize; 4], block: Block) -> Result<Tap, ZooError> {
    let stem = net.conv_bn(&x, "conv1", "bn1", &Conv::new(64, 7).stride(2))?;
    let stem = net.relu(&stem);
    let mut x = net.max_pool(&stem, "maxpool", Window { pad: 1, ..Window::new(3, 2) })?;
    for (stage, &count) in blocks.iter().enumerate() {
        for i in 0..count {
            let stride = if i == 0 && stage > 0 { 2 } else { 1 };
            x = block(net, &x, &format!("layer{}.{i}", stage + 1), 64 << stage, stride)?;
        }
    }
    classify(net, &x, "fc")
}

fn classify(net: &mut Net, x: &Tap, name: &str) -> Result<Tap, ZooError> {
    let pooled = net.global_average(x, "avgpool");
    let flat = net.flatten(&pooled);
    let classes = net.classes();
    net.linear(&flat, name, classes, Start::Default)
}

/// What is added to a block's result: x itself where it fits, else a 1x1 convolution of it.
fn projected(net: &mut Net, x: &Tap, name: &str, out: usize, stride: usize) -> Result<Tap, ZooError> {
    if stride == 1 && x.channels() == out {
        return Ok(x.clone());
    }
    let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
    net.conv_bn(x, &conv, &norm, &Conv::new(out, 1).stride(stride))
}

/// Two 3x3 convolutions.
fn two_convs(net: &mut Net, x: &Tap, name: &str, width: usize, stride: usize) -> Result<Tap, ZooError> {
    let part = |kind: &str, i: usize| format!("{name}.{kind}{i}");
    let y = net.conv_bn(x, &part("conv", 1), &part("bn", 1), &Conv::new(width, 3).stride(stride))?;
    let y = net.relu(&y);
    net.conv_bn(&y, &part("conv", 2), &part("bn", 2), &Conv::new(width, 3))
}

fn basic(net: &mut Net, x: &Tap, name: &str, width: usize, stride: usize) -> Result<Tap, ZooError> {
    let y = two_convs(net, x, name, width, stride)?;
    let shortcut = projected(net, x, name, width, stride)?;
    let sum = net.add(&y, &shortcut, &format!("{name}/add"));
    Ok(net.relu(&sum))
}

fn bottleneck(net: &mut Net, x: &Tap, name: &str, width: usize, stride: usize, se: bool) -> Result<Tap, ZooError> {
    let part = |kind: &str, i: usize| format!("{name}.{kind}{i}");
    let convs = [Conv::new(width, 1), Conv::new(width, 3).stride(stride), Conv::new(4 * width, 1)];
    let mut y = x.clone();
    for (i, conv) in (1..).zip(&convs) {
        y = net.conv_bn(&y, &part("conv", i), &part("bn", i), conv)?;
        if i < 3 {
            y = net.relu(&y);
        }
    }
    if se {
        y = squeeze_excite(net, &y, &format!("{name}.se"))?;
    }
    let shortcut = projected(net, x, name, 4 * width, stride)?;
    let sum = net.add(&y, &shortcut, &format!("{name}/add"));
    Ok(net.relu(&sum))
}

/// Each channel weighed by what all channels' means say of it.
fn squeeze_excite(net: &mut Net, x: &Tap, name: &str) -> Result<Tap, ZooError> {
    let c = x.channels();
    let mean = net.global_average(x, &format!("{name}/mean"));
    let less = net.conv(&mean, &format!("{name}.fc1"), &Conv::new(c / 16, 1).biased(HE_OUT))?;
    let less = net.relu(&less);
    let again = net.conv(&less, &format!("{name}.fc2"), &Conv::new(c, 1).biased(HE_OUT))?;
    let gate = net.map(&again, "Sigmoid");
    Ok(net.scale(x, &gate, &format!("{name}/scale")))
}

/// The networks of CIFAR: three stages of `blocks` blocks with 16, 32 and 64 channels; `6 blocks + 2` layers.
fn small(net: &mut Net, x: Tap, blocks: usize, residual: bool) -> Result<Tap, ZooError> {
    let stem = net.conv_bn(&x, "conv1", "bn1", &Conv::new(16, 3).from(HE_OUT))?;
    let mut x = net.relu(&stem);
    for stage in 0..3 {
        for i in 0..blocks {
            let (name, width) = (format!("layer{}.{i}", stage + 1), 16 << stage);
            let stride = if i == 0 && stage > 0 { 2 } else { 1 };
            let mut y = two_convs(net, &x, &name, width, stride)?;
            if residual {
                let mut shortcut = x.clone();
                if stride > 1 {
                    let every_second = Window::new(1, stride);
                    shortcut = net.average_pool(&x, &format!("{name}/subsample"), every_second)?;
                    shortcut = net.pad_channels(&shortcut, &format!("{name}/zeros"), width);
                }
                y = net.add(&y, &shortcut, &format!("{name}/add"));
            }
            x = net.relu(&y);
        }
    }
    classify(net, &x, "linear")
}
