//! MobileNet V2: inverted residuals, wide where the convolution is depthwise and narrow where values are passed on.
//!
//! ```text
//! x -> 1x1 (t times as wide) relu6 -> 3x3 depthwise relu6 -> 1x1 (narrow, no activation) -> (+ x where shapes are equal)
//! ```
//!
//! Source: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018, table 2; width 1.

use crate::ZooError;
use crate::layers::{Conv, NARROW, Net, Tap};

/// Expansion t, channels c, repetitions n, stride s of the first: the paper's table.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

pub(crate) fn mobilenet_v2(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    let mut x = conv(net, &x, "features.0", &Conv::new(32, 3).stride(2))?;
    let mut at = 1;
    for (t, c, n, s) in STAGES {
        for i in 0..n {
            x = inverted_residual(net, &x, &format!("features.{at}.conv"), t, c, if i == 0 { s } else { 1 })?;
            at += 1;
        }
    }
    x = conv(net, &x, &format!("features.{at}"), &Conv::new(1280, 1))?;
    x = net.global_average(&x, "avgpool");
    x = net.flatten(&x);
    x = net.dropout(&x, "classifier.0", 0.2);
    let classes = net.classes();
    net.linear(&x, "classifier.1", classes, NARROW)
}

fn conv(net: &mut Net, x: &Tap, name: &str, c: &Conv) -> Result<Tap, ZooError> {
    let y = net.conv_bn(x, &format!("{name}.0"), &format!("{name}.1"), c)?;
    Ok(net.relu6(&y))
}

fn inverted_residual(
    net: &mut Net,
    x: &Tap,
    name: &str,
    expansion: usize,
    out: usize,
    stride: usize,
) -> Result<Tap, ZooError> {
    let wide = x.channels() * expansion;
    let (mut y, mut at) = (x.clone(), 0);
    if expansion > 1 {
        y = conv(net, &y, &format!("{name}.0"), &Conv::new(wide, 1))?;
        at = 1;
    }
    let depthwise = Conv { group: wide, ..Conv::new(wide, 3).stride(stride) };
    y = conv(net, &y, &format!("{name}.{at}"), &depthwise)?;
    y = net.conv_bn(&y, &format!("{name}.{}", at + 1), &format!("{name}.{}", at + 2), &Conv::new(out, 1))?;
    if stride == 1 && x.channels() == out {
        y = net.add(x, &y, &format!("{name}/add"));
    }
    Ok(y)
}
