//! DenseNet-121: each layer sees the results of all layers before it in its block.
//!
//! ```text
//! layer       x -> bn relu 1x1 (128) -> bn relu 3x3 (32) -> y       next x = concat(x, y)
//! transition  bn relu 1x1 (half the channels) -> 2x2 mean
//! ```
//!
//! Source: Huang et al., "Densely connected convolutional networks", 2016; growth 32, blocks of 6, 12, 24 and 16 layers.

use crate::ZooError;
use crate::layers::{Conv, HE_IN, Net, Start, Tap, Window};
use nncc_ir::init::Init;

const GROWTH: usize = 32;
const BLOCKS: [usize; 4] = [6, 12, 24, 16];

pub(crate) fn densenet121(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    let stem = Conv::new(2 * GROWTH, 7).stride(2).from(HE_IN);
    let mut x = net.conv_bn(&x, "features.conv0", "features.norm0", &stem)?;
    x = net.relu(&x);
    x = net.max_pool(&x, "features.pool0", Window { pad: 1, ..Window::new(3, 2) })?;
    for (b, &layers) in (1..).zip(&BLOCKS) {
        for l in 1..=layers {
            let name = format!("features.denseblock{b}.denselayer{l}");
            let y = norm_conv(net, &x, &name, "1", &Conv::new(4 * GROWTH, 1))?;
            let y = norm_conv(net, &y, &name, "2", &Conv::new(GROWTH, 3))?;
            x = net.concat(&[x, y], &format!("{name}/concat"));
        }
        if b < BLOCKS.len() {
            let name = format!("features.transition{b}");
            let half = Conv::new(x.channels() / 2, 1);
            x = norm_conv(net, &x, &name, "", &half)?;
            x = net.average_pool(&x, &format!("{name}.pool"), Window::new(2, 2))?;
        }
    }
    x = net.batch_norm(&x, "features.norm5", 1e-5)?;
    x = net.relu(&x);
    x = net.global_average(&x, "avgpool");
    x = net.flatten(&x);
    let classes = net.classes();
    // The bias begins at 0, the weight as PyTorch's Linear does.
    let start = Start::Of(Init::default_of(x.channels()));
    net.linear(&x, "classifier", classes, start)
}

/// Normalization, rectifier, convolution: the order of this network.
fn norm_conv(net: &mut Net, x: &Tap, name: &str, i: &str, c: &Conv) -> Result<Tap, ZooError> {
    let y = net.batch_norm(x, &format!("{name}.norm{i}"), 1e-5)?;
    let y = net.relu(&y);
    net.conv(&y, &format!("{name}.conv{i}"), &c.clone().from(HE_IN))
}
