//! Stacks of layers: a multilayer perceptron, LeNet-5, AlexNet, VGG-16.
//!
//! LeNet-5 has rectifiers and max pooling where LeCun's had tanh and trained averages; a 28x28 picture is padded to the
//! 32x32 of the paper. AlexNet is the one of 2014 ("One weird trick for parallelizing convolutional neural networks"), as
//! in torchvision: one tower, no local response normalization.

use crate::ZooError;
use crate::layers::{Conv, HE_IN, HE_OUT, NARROW, Net, Start, Tap, Window};

pub(crate) fn mlp(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    let mut x = net.flatten(&x);
    for (name, units) in [("fc1", 256), ("fc2", 128)] {
        x = net.linear(&x, name, units, HE_IN)?;
        x = net.relu(&x);
    }
    let classes = net.classes();
    net.linear(&x, "fc3", classes, Start::Default)
}

pub(crate) fn lenet5(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    let mut x = x;
    for (name, pool, channels, pad) in [("conv1", "pool1", 6, 2), ("conv2", "pool2", 16, 0)] {
        x = net.conv(&x, name, &Conv::new(channels, 5).pad(pad).biased(Start::Default))?;
        x = net.relu(&x);
        x = net.max_pool(&x, pool, Window::new(2, 2))?;
    }
    x = net.flatten(&x);
    for (name, units) in [("fc1", 120), ("fc2", 84)] {
        x = net.linear(&x, name, units, Start::Default)?;
        x = net.relu(&x);
    }
    let classes = net.classes();
    net.linear(&x, "fc3", classes, Start::Default)
}

pub(crate) fn alexnet(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    let mut x = x;
    let stages = [(0, 64, 11, 4, 2, true), (3, 192, 5, 1, 2, true), (6, 384, 3, 1, 1, false), (8, 256, 3, 1, 1, false)];
    for (at, channels, kernel, stride, pad, pooled) in stages.into_iter().chain([(10, 256, 3, 1, 1, true)]) {
        let conv = Conv::new(channels, kernel).stride(stride).pad(pad).biased(Start::Default);
        x = net.conv(&x, &format!("features.{at}"), &conv)?;
        x = net.relu(&x);
        if pooled {
            x = net.max_pool(&x, &format!("features.{}", at + 2), Window::new(3, 2))?;
        }
    }
    x = net.adaptive_pool(&x, "AveragePool", "avgpool", 6);
    x = net.flatten(&x);
    for (dropout, name) in [("classifier.0", "classifier.1"), ("classifier.3", "classifier.4")] {
        x = net.dropout(&x, dropout, 0.5);
        x = net.linear(&x, name, 4096, Start::Default)?;
        x = net.relu(&x);
    }
    let classes = net.classes();
    net.linear(&x, "classifier.6", classes, Start::Default)
}

pub(crate) fn vgg16(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    let (mut x, mut at) = (x, 0);
    for (channels, convs) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)] {
        for _ in 0..convs {
            x = net.conv(&x, &format!("features.{at}"), &Conv::new(channels, 3).biased(HE_OUT))?;
            x = net.relu(&x);
            at += 2;
        }
        x = net.max_pool(&x, &format!("features.{at}"), Window::new(2, 2))?;
        at += 1;
    }
    x = net.adaptive_pool(&x, "AveragePool", "avgpool", 7);
    x = net.flatten(&x);
    for (name, dropout) in [("classifier.0", "classifier.2"), ("classifier.3", "classifier.5")] {
        x = net.linear(&x, name, 4096, NARROW)?;
        x = net.relu(&x);
        x = net.dropout(&x, dropout, 0.5);
    }
    let classes = net.classes();
    net.linear(&x, "classifier.6", classes, NARROW)
}
