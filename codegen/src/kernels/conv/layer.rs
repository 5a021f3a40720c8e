//! A layer that the direct template computes, as a tuner sees it; and the names of layers.

use super::direct::Direct;
use super::{Conv, Sink, Source, Weights};
use crate::cost;
use crate::kernels::window::Axis;
use crate::target::Target;
use crate::tunable::{self, Candidates, Choice, Tunable, ranked};

/// Bytes that come from beyond L2 in a cycle, as for Winograd's walks.
const BYTES_A_CYCLE: f64 = super::winograd::cost::BYTES_A_CYCLE;

/// A convolution (or a matrix product as one) at a CPU level.
#[derive(Clone, Debug)]
struct Layer {
    /// With the rows that it is cut into.
    conv: Conv,
    in_place: bool,
}

/// What a tuner sees of a layer with this signature.
pub fn tunable(signature: String, conv: Conv, in_place: bool, direct: &Direct<'_>) -> Tunable {
    Tunable::new(signature, direct.schedule(), Layer { conv, in_place })
}

impl Candidates for Layer {
    fn candidates(&self, target: &Target, most: usize) -> Vec<Choice> {
        let own = Direct::scheduled(target, &self.conv, self.in_place, None);
        let other = |schedule| {
            let direct = Direct::scheduled(target, &self.conv, self.in_place, Some(schedule));
            // What the template makes of it, for some alternatives come to the same.
            direct.is_small().then(|| (predicted(target, &direct), direct.schedule()))
        };
        ranked(own.schedule(), own.alternatives().into_iter().filter_map(other), most)
    }
}

/// Cycles by the cost model, of computing and of what comes from beyond L2.
fn predicted(target: &Target, direct: &Direct<'_>) -> f64 {
    let (kernel, shape) = (direct.kernel(), direct.shape());
    let last = kernel.args.len() - 1;
    let computed = cost::of_kernel(&kernel, target, direct.tasks() as u64, &|i| (i == last).then_some(&shape[..]));
    computed as f64 + direct.beyond_l2() as f64 / BYTES_A_CYCLE
}

/// The name of a layer that a template computes.
pub fn signature(template: &str, target: &Target, conv: &Conv, in_place: bool) -> String {
    let Conv { batch, groups, inputs, outputs, axes, source, weights, sink, bias, epilogue } = conv;
    let axis = |a: &Axis| {
        let Axis {
            inputs,
            in_extent,
            outputs,
            stride,
            taps,
            first,
            dilation,
            out_extent,
            out_first,
            out_step,
            out_span,
        } = a;
        let place = if (*out_first, *out_step) == (0, 1) && out_extent == outputs {
            String::new()
        } else {
            let span = if *out_span == 1 { String::new() } else { format!("w{out_span}") };
            format!("@{out_first}+{out_step}{span}/{out_extent}")
        };
        let within = if in_extent == inputs { String::new() } else { format!("/{in_extent}") };
        format!("{inputs}{within}>{outputs}k{taps}s{stride}d{dilation}f{first}{place}")
    };
    let axes: Vec<String> = axes.iter().filter(|a| **a != Axis::UNIT).map(axis).collect();
    let source = match source {
        Source::Blocked => "blocked".into(),
        Source::Planar => "planar".into(),
        Source::Matrix { row, column, image } => format!("matrix {row},{column},{image}"),
    };
    let weights = match weights {
        Weights::Panels => String::new(),
        Weights::Rows { image } => format!(" rows {image}"),
    };
    let sink = if *sink == Sink::Matrix { "matrix" } else { "blocked" };
    let level = target.level.name();
    let mut text = format!(
        "{template} {level} n{batch} g{groups} {inputs}->{outputs} {} {source}->{sink}{weights}",
        axes.join(" ")
    );
    if *bias {
        text += " bias";
    }
    if !epilogue.is_empty() {
        text += &format!(" then {}", tunable::digest(&format!("{epilogue:?}")));
    }
    if in_place {
        text += " in place";
    }
    text
}
