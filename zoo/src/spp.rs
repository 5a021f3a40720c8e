//! A network with spatial-pyramid pooling: a plane of any size becomes 4x4, 2x2 and 1x1 maxima, in a row.
//!
//! ```text
//!                                  /- 4x4 windows -\
//! x -> 4 x (3x3, bn, relu), 2 pools |- 2x2 windows --|-> flat, 21 numbers a channel -> dropout -> dense
//!                                  \- 1 window -----/
//! ```
//!
//! So the dense layer's size depends on no picture's, of at least 16x16: levels finer than the plane are left out. Source: He et al., "Spatial pyramid pooling in deep convolutional
//! networks for visual recognition", 2014.

use crate::ZooError;
use crate::layers::{Conv, Net, Start, Tap, Window};

/// Rows and columns of the pyramid's levels.
const LEVELS: [usize; 3] = [4, 2, 1];

pub(crate) fn spp(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    let mut x = x;
    for (i, channels) in (1..).zip([32, 64, 128, 128]) {
        x = net.conv_bn(&x, &format!("conv{i}"), &format!("bn{i}"), &Conv::new(channels, 3))?;
        x = net.relu(&x);
        if i < 3 {
            x = net.max_pool(&x, &format!("pool{i}"), Window::new(2, 2))?;
        }
    }
    let mut levels = Vec::new();
    let [height, width] = x.plane();
    for level in LEVELS.into_iter().filter(|&level| level <= height.min(width)) {
        let pooled = net.adaptive_pool(&x, "MaxPool", &format!("spp{level}"), level);
        levels.push(net.flatten(&pooled));
    }
    x = net.concat(&levels, "pyramid");
    x = net.dropout(&x, "dropout", 0.5);
    let classes = net.classes();
    net.linear(&x, "fc", classes, Start::Default)
}
