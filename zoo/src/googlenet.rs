//! GoogLeNet: inception modules, which look at the same values through windows of several sizes.
//!
//! ```text
//!      /- 1x1 -----------\
//! x ---|- 1x1 -> 3x3 -----|-> concat along channels
//!      |- 1x1 -> 3x3 -----|        (5x5 in the paper; torchvision's weights were made with 3x3)
//!      \- 3x3 max -> 1x1 -/
//! ```
//!
//! With batch normalization, as torchvision has it, and without the two auxiliary classifiers of the paper, which batch
//! normalization makes unnecessary. Source: Szegedy et al., "Going deeper with convolutions", 2014.

use crate::ZooError;
use crate::layers::{Conv, NARROW, Net, Tap, Window};

/// Channels of a module's convolutions: 1x1, the two of the second branch, the two of the third, behind the pool.
type Widths = [usize; 6];

const MODULES: [(&str, Widths); 9] = [
    ("inception3a", [64, 96, 128, 16, 32, 32]),
    ("inception3b", [128, 128, 192, 32, 96, 64]),
    ("inception4a", [192, 96, 208, 16, 48, 64]),
    ("inception4b", [160, 112, 224, 24, 64, 64]),
    ("inception4c", [128, 128, 256, 24, 64, 64]),
    ("inception4d", [112, 144, 288, 32, 64, 64]),
    ("inception4e", [256, 160, 320, 32, 128, 128]),
    ("inception5a", [256, 160, 320, 32, 128, 128]),
    ("inception5b", [384, 192, 384, 48, 128, 128]),
];

pub(crate) fn googlenet(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    let halve = |kernel| Window { ceil: true, ..Window::new(kernel, 2) };
    let mut x = conv(net, &x, "conv1", &Conv::new(64, 7).stride(2))?;
    x = net.max_pool(&x, "maxpool1", halve(3))?;
    x = conv(net, &x, "conv2", &Conv::new(64, 1))?;
    x = conv(net, &x, "conv3", &Conv::new(192, 3))?;
    x = net.max_pool(&x, "maxpool2", halve(3))?;
    for (name, widths) in MODULES {
        x = inception(net, &x, name, widths)?;
        match name {
            "inception3b" => x = net.max_pool(&x, "maxpool3", halve(3))?,
            "inception4e" => x = net.max_pool(&x, "maxpool4", halve(2))?,
            _ => {}
        }
    }
    x = net.global_average(&x, "avgpool");
    x = net.flatten(&x);
    x = net.dropout(&x, "dropout", 0.2);
    let classes = net.classes();
    net.linear(&x, "fc", classes, NARROW)
}

/// A convolution, its normalization (with an epsilon of its own) and a rectifier.
fn conv(net: &mut Net, x: &Tap, name: &str, c: &Conv) -> Result<Tap, ZooError> {
    let y = net.conv(x, &format!("{name}.conv"), &c.clone().from(NARROW))?;
    let y = net.batch_norm(&y, &format!("{name}.bn"), 1e-3)?;
    Ok(net.relu(&y))
}

fn inception(net: &mut Net, x: &Tap, name: &str, widths: Widths) -> Result<Tap, ZooError> {
    let [one, reduce3, three, reduce5, five, pooled] = widths;
    let branch = |i: &str| format!("{name}.branch{i}");
    let first = conv(net, x, &branch("1"), &Conv::new(one, 1))?;
    let second = conv(net, x, &branch("2.0"), &Conv::new(reduce3, 1))?;
    let second = conv(net, &second, &branch("2.1"), &Conv::new(three, 3))?;
    let third = conv(net, x, &branch("3.0"), &Conv::new(reduce5, 1))?;
    let third = conv(net, &third, &branch("3.1"), &Conv::new(five, 3))?;
    let fourth = net.max_pool(x, &branch("4.0"), Window { pad: 1, ..Window::new(3, 1) })?;
    let fourth = conv(net, &fourth, &branch("4.1"), &Conv::new(pooled, 1))?;
    Ok(net.concat(&[first, second, third, fourth], &format!("{name}/concat")))
}
