//! SqueezeNet 1.1: fire modules, a narrow 1x1 convolution in front of a 1x1 and a 3x3 one side by side.
//!
//! Source: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016; version 1.1 of the
//! authors, which pools earlier and needs 2.4 times less work.

use crate::ZooError;
use crate::layers::{Conv, NARROW, Net, Start, Tap, Window};
use nncc_ir::init::{Fan, Init};

/// He's uniform distribution.
const START: Start = Start::Of(Init::KaimingUniform { fan: Fan::In, gain: std::f64::consts::SQRT_2 });

/// Index in torchvision's `features`, channels of the narrow convolution, channels of each of the two behind it.
const FIRES: [(usize, usize, usize); 8] =
    [(3, 16, 64), (4, 16, 64), (6, 32, 128), (7, 32, 128), (9, 48, 192), (10, 48, 192), (11, 64, 256), (12, 64, 256)];

pub(crate) fn squeezenet(net: &mut Net, x: Tap) -> Result<Tap, ZooError> {
    let pool = Window { ceil: true, ..Window::new(3, 2) };
    let mut x = conv(net, &x, "features.0", &Conv::new(64, 3).stride(2).pad(0), START)?;
    x = net.max_pool(&x, "features.2", pool)?;
    for (at, narrow, wide) in FIRES {
        if at == 6 || at == 9 {
            x = net.max_pool(&x, &format!("features.{}", at - 1), pool)?;
        }
        let part = |name: &str| format!("features.{at}.{name}");
        let squeezed = conv(net, &x, &part("squeeze"), &Conv::new(narrow, 1), START)?;
        let one = conv(net, &squeezed, &part("expand1x1"), &Conv::new(wide, 1), START)?;
        let three = conv(net, &squeezed, &part("expand3x3"), &Conv::new(wide, 3), START)?;
        x = net.concat(&[one, three], &part("concat"));
    }
    x = net.dropout(&x, "classifier.0", 0.5);
    let classes = net.classes();
    x = conv(net, &x, "classifier.1", &Conv::new(classes, 1), NARROW)?;
    x = net.global_average(&x, "classifier.3");
    Ok(net.flatten(&x))
}

fn conv(net: &mut Net, x: &Tap, name: &str, c: &Conv, start: Start) -> Result<Tap, ZooError> {
    let y = net.conv(x, name, &c.clone().biased(start))?;
    Ok(net.relu(&y))
}
