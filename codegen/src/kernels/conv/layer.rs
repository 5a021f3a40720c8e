//! A layer that the direct template computes, as a tuner sees it: its name, the schedule in force and others to try.

use super::direct::Direct;
use super::schedule::Schedule;
use super::{Conv, Sink, Source, Weights};
use crate::cost;
use crate::kernels::window::Axis;
use crate::target::Target;
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};

/// Bytes that come from beyond L2 in a cycle, as for Winograd's walks.
const BYTES_A_CYCLE: f64 = super::winograd::cost::BYTES_A_CYCLE;

/// A convolution (or a matrix product as one) at a CPU level.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Everything that its code depends on, as text: layers of one signature are equal.
    pub signature: String,
    /// How it is walked.
    pub schedule: Schedule,
    conv: Conv,
    in_place: bool,
}

impl Layer {
    /// The layer of this name that a template computes.
    pub fn new(signature: String, conv: Conv, in_place: bool, direct: &Direct<'_>) -> Layer {
        Layer { signature, schedule: direct.schedule(), conv, in_place }
    }

    /// The schedule that the template chooses by itself, and the `most - 1` others that the cost model likes best.
    pub fn candidates(&self, target: &Target, most: usize) -> Vec<Schedule> {
        let own = Direct::scheduled(target, &self.conv, self.in_place, None);
        let mut others: Vec<(f64, Schedule)> = Vec::new();
        for schedule in own.alternatives() {
            let direct = Direct::scheduled(target, &self.conv, self.in_place, Some(schedule));
            // What the template makes of it, for some alternatives come to the same.
            let schedule = direct.schedule();
            if direct.is_small() && schedule != own.schedule() && others.iter().all(|(_, s)| *s != schedule) {
                others.push((predicted(target, &direct), schedule));
            }
        }
        others.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let others = others.into_iter().take(most.saturating_sub(1)).map(|(_, schedule)| schedule);
        [own.schedule()].into_iter().chain(others).collect()
    }
}

/// Cycles by the cost model, of computing and of what comes from beyond L2.
fn predicted(target: &Target, direct: &Direct<'_>) -> f64 {
    let (kernel, shape, tasks) = (direct.kernel(), direct.shape(), direct.tasks() as u64);
    let last = kernel.args.len() - 1;
    let counts = cost::count::count(&kernel, target, tasks, &|i| (i == last).then_some(&shape[..]));
    cost::cycles(&counts, tasks) as f64 + direct.beyond_l2() as f64 / BYTES_A_CYCLE
}

/// The name of a layer.
pub fn signature(target: &Target, conv: &Conv, in_place: bool) -> String {
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
    let mut text =
        format!("direct {level} n{batch} g{groups} {inputs}->{outputs} {} {source}->{sink}{weights}", axes.join(" "));
    if *bias {
        text += " bias";
    }
    if !epilogue.is_empty() {
        let mut hasher = FxHasher::default();
        format!("{epilogue:?}").hash(&mut hasher);
        text += &format!(" then {:08x}", hasher.finish() as u32);
    }
    if in_place {
        text += " in place";
    }
    text
}
