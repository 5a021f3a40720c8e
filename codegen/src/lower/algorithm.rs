//! Which convolutions are computed by Winograd's algorithm, chosen for a whole model.
//!
//! Each 3x3 convolution that the template can take has up to four candidates: the direct form, and `F(2)`, `F(4)`, `F(6)`
//! where the error allows. Their costs are those of [`cost`]; the fastest is taken, then, while the transformed weights make
//! the library larger than allowed, the layer steps down that loses the least time for each byte that it gives back.
//!
//! The choice looks at shapes, weights and the widest of the targets, never at the machine: builds are reproducible, and all
//! CPU levels and shape sets share one copy of the weights.

use super::{SetSource, tiles};
use crate::kernels::conv::winograd::cost::{self, Size};
use crate::kernels::conv::winograd::error;
use crate::kernels::conv::winograd::transform::Minimal;
use crate::kernels::pool::SideBySide;
use crate::pack::{Floats, Packed, WinogradPanels};
use crate::switches::{Disabled, Switch};
use crate::target::Target;
use crate::tunable::{Choice, Choices, Part};
use nncc_ir::ops::chain::{Chain, Link};
use nncc_ir::ops::conv::Conv;
use nncc_ir::{BLOCK, Constant, DType, Graph, Layout, NodeId, Op, TensorType};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// When Winograd's algorithm may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WinogradUse {
    /// Where it is faster and its estimated error is within [`AUTO_ERROR`] and [`AUTO_RATIO`] times the direct form's.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Where it is faster and its estimated error is within [`AGGRESSIVE_ERROR`].
    Aggressive,
}

/// Root mean square of the error of a layer, relative to the range of its output.
pub const AUTO_ERROR: f64 = 3e-6;
/// Errors add up along a network: one of many layers may not be worse than the direct form by more than the network as a whole
/// may be.
pub const AUTO_RATIO: f64 = 3.0;
/// The same with `--winograd aggressive`.
pub const AGGRESSIVE_ERROR: f64 = 3e-5;

/// What the choice may do.
#[derive(Clone, Debug)]
pub struct AlgorithmOptions {
    /// When Winograd may be used.
    pub winograd: WinogradUse,
    /// How many times their bytes all weights may take when transformed.
    pub growth: f64,
    /// What is left out.
    pub disabled: Disabled,
}

impl Default for AlgorithmOptions {
    fn default() -> Self {
        AlgorithmOptions { winograd: WinogradUse::Auto, growth: 2.0, disabled: Disabled::default() }
    }
}

/// The chosen algorithms; with none chosen, every convolution is direct.
#[derive(Clone, Debug, Default)]
pub struct Algorithms {
    layers: Vec<Layer>,
    by_weights: FxHashMap<u64, usize>,
    forced: Option<Minimal>,
    /// Bytes that transformed weights may take beyond those of the filters.
    allowed: usize,
    /// What a tuning table says, of everything that has more than one way.
    choices: Choices,
    /// Templates that are left out.
    disabled: Disabled,
}

/// How a 3x3 convolution is computed: by a variant of Winograd's algorithm, or none. As text `winograd 4`, `direct form`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form(pub Option<Minimal>);

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("direct form"),
            Some(minimal) => write!(f, "winograd {}", minimal.outputs()),
        }
    }
}

impl FromStr for Form {
    type Err = String;

    fn from_str(text: &str) -> Result<Form, String> {
        if text == "direct form" {
            return Ok(Form(None));
        }
        let outputs = text.strip_prefix("winograd ");
        let outputs =
            outputs.ok_or_else(|| format!("`{text}` is no algorithm such as `direct form` or `winograd 4`"))?;
        let minimal = Minimal::ALL.into_iter().find(|m| m.outputs().to_string() == outputs);
        minimal.map(|m| Form(Some(m))).ok_or_else(|| format!("there is no Winograd variant of {outputs} outputs"))
    }
}

/// A convolution and its candidates.
#[derive(Clone, Debug)]
struct Layer {
    /// The model's name for the node.
    name: String,
    /// The shape sets that it is in.
    sets: Vec<usize>,
    signature: String,
    /// What may be computed in the tiles.
    pooling: Option<SideBySide>,
    candidates: Vec<Candidate>,
    /// Index of the candidate in force.
    chosen: usize,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    minimal: Option<Minimal>,
    /// Of one core, all shape sets added up.
    cycles: f64,
    /// Of the packed weights.
    bytes: usize,
    /// Estimated; 0 for the direct form, which is the measure.
    error: f64,
}

/// How large an estimated error may be, and how many times the direct form's.
#[derive(Clone, Copy, Debug)]
struct Limits {
    error: f64,
    ratio: f64,
}

impl Algorithms {
    /// Every convolution that can be is computed by this variant: for tests.
    pub fn forced(minimal: Minimal) -> Algorithms {
        Algorithms { forced: Some(minimal), ..Algorithms::default() }
    }

    /// Chooses for a model.
    pub fn choose(sets: &[SetSource<'_>], targets: &[Target], options: AlgorithmOptions) -> Algorithms {
        let mut all = Algorithms { disabled: options.disabled, ..Algorithms::default() };
        let limits = match options.winograd {
            WinogradUse::Off => return all,
            WinogradUse::Auto => Limits { error: AUTO_ERROR, ratio: AUTO_RATIO },
            WinogradUse::Aggressive => Limits { error: AGGRESSIVE_ERROR, ratio: f64::INFINITY },
        };
        let Some(target) = targets.last() else { return all };
        for (i, set) in sets.iter().enumerate() {
            for &node in set.plan.order() {
                if let Some((weights, size)) = suitable(set.graph, node) {
                    let of_node = (i, set.graph.node_name(node), tiles::pooling(set.graph, node));
                    all.add(target, of_node, &weights, &size, limits);
                }
            }
        }
        for layer in &mut all.layers {
            let fastest = layer.candidates.iter().enumerate().min_by(|a, b| a.1.cycles.total_cmp(&b.1.cycles));
            layer.chosen = fastest.map_or(0, |(i, _)| i);
        }
        let weights: usize = sets.first().map_or(0, |set| constant_bytes(set.graph));
        all.allowed = (weights as f64 * (options.growth - 1.0)).max(0.0) as usize;
        all.shrink();
        all
    }

    /// With choices that were made elsewhere, of algorithms within their error and bytes.
    #[must_use]
    pub fn with_choices(mut self, choices: Choices) -> Algorithms {
        for layer in &mut self.layers {
            if let Some(Form(minimal)) = choices.of(&layer.signature)
                && let Some(i) = layer.candidates.iter().position(|c| c.minimal == minimal)
            {
                layer.chosen = i;
            }
        }
        self.shrink();
        self.choices = choices;
        self
    }

    /// Is a template left out?
    pub(super) fn without(&self, switch: Switch) -> bool {
        self.disabled.has(switch)
    }

    /// What was chosen elsewhere.
    pub(super) fn choices(&self) -> &Choices {
        &self.choices
    }

    /// The convolutions that have a choice of algorithms: equal layers together, sorted by signature. Of each, what the error
    /// permits.
    pub fn parts(&self) -> Vec<Part> {
        let mut all: BTreeMap<&str, Part> = BTreeMap::new();
        for layer in &self.layers {
            let of_layer: Vec<Choice> = layer.candidates.iter().map(|c| Form(c.minimal).into()).collect();
            let steps = layer.sets.iter().map(|&set| (set, layer.name.clone()));
            match all.get_mut(layer.signature.as_str()) {
                Some(part) => {
                    part.steps.extend(steps);
                    // What one of them may not take for its error, none is told to take.
                    let now = part.candidates[0].clone();
                    part.candidates.retain(|choice| *choice == now || of_layer.contains(choice));
                }
                None => {
                    let mut candidates = of_layer;
                    candidates[..=layer.chosen].rotate_right(1); // the one in force first
                    let signature = layer.signature.clone();
                    all.insert(&layer.signature, Part { signature, steps: steps.collect(), candidates });
                }
            }
        }
        all.into_values().collect()
    }

    /// The variant for a convolution with these weights.
    pub(super) fn of(&self, weights: &Constant, inputs: usize, outputs: usize) -> Option<Minimal> {
        if self.forced.is_some() || self.layers.is_empty() {
            return self.forced;
        }
        let layer = self.by_weights.get(&key(weights, inputs, outputs))?;
        let layer = &self.layers[*layer];
        layer.candidates[layer.chosen].minimal
    }

    fn add(
        &mut self,
        target: &Target,
        (set, name, pooling): (usize, String, Option<SideBySide>),
        weights: &Constant,
        size: &Size,
        limits: Limits,
    ) {
        let key = key(weights, size.inputs, size.outputs);
        if let Some(&at) = self.by_weights.get(&key) {
            self.layers[at].sets.push(set);
            for c in &mut self.layers[at].candidates {
                c.cycles += cost::cycles(target, size, c.minimal);
            }
            return;
        }
        let of = |minimal, error| {
            let (cycles, bytes) = (cost::cycles(target, size, minimal), size.weight_bytes(minimal));
            Candidate { minimal, cycles, bytes, error }
        };
        let mut candidates = vec![of(None, 0.0)];
        let floats = Floats::of(weights);
        for f in Minimal::ALL {
            if !gains(target, size, f) {
                continue;
            }
            let weight = |m: usize, c: usize, t: usize| floats.get((m * size.inputs + c) * 9 + t);
            let e = error::estimate(f, size.inputs, size.outputs, weight);
            if e.winograd <= limits.error && e.winograd <= e.direct * limits.ratio {
                candidates.push(of(Some(f), e.winograd));
            }
        }
        self.by_weights.insert(key, self.layers.len());
        let Size { batch, inputs, outputs, plane: [height, width] } = size;
        let signature = format!("algorithm n{batch} {inputs}->{outputs} {height}x{width}");
        self.layers.push(Layer { name, sets: vec![set], signature, pooling, candidates, chosen: 0 });
    }

    /// Steps layers down until all weights take no more than the allowed bytes.
    fn shrink(&mut self) {
        let extra = |layer: &Layer| layer.candidates[layer.chosen].bytes - layer.candidates[0].bytes;
        let allowed = self.allowed;
        let mut total: usize = self.layers.iter().map(extra).sum();
        while total > allowed {
            let mut best: Option<(f64, usize, usize)> = None;
            for (l, layer) in self.layers.iter().enumerate() {
                let now = layer.candidates[layer.chosen];
                for (c, other) in layer.candidates.iter().enumerate().filter(|(_, c)| c.bytes < now.bytes) {
                    let loss = (other.cycles - now.cycles) / (now.bytes - other.bytes) as f64;
                    if best.is_none_or(|(least, ..)| loss < least) {
                        best = Some((loss, l, c));
                    }
                }
            }
            let Some((_, l, c)) = best else { return };
            total -= self.layers[l].candidates[self.layers[l].chosen].bytes - self.layers[l].candidates[c].bytes;
            self.layers[l].chosen = c;
        }
    }

    /// The choice as text: a line for each convolution that had one.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        if !self.layers.is_empty() {
            out += "algorithms of 3x3 convolutions: gain by the cost model, bytes of packed weights, estimated RMS error of the range\n";
        }
        for layer in &self.layers {
            let (direct, now) = (layer.candidates[0], layer.candidates[layer.chosen]);
            let name = now.minimal.map_or("direct".into(), |f| format!("F({0}x{0},3x3)", f.outputs()));
            let _ = write!(out, "  {:<12} {:>5.2}x {:>10} B", name, direct.cycles / now.cycles, now.bytes);
            let _ = match now.minimal {
                Some(_) => write!(out, "  {:.1e}  {}", now.error, layer.name),
                None => write!(out, "  {:>7}  {}", "", layer.name),
            };
            let held = |pooling: &&SideBySide| now.minimal.is_some_and(|f| f.holds(pooling.window));
            let held = layer.pooling.as_ref().filter(held);
            let _ = writeln!(out, "{}", held.map_or(String::new(), |p| format!("  {} in its tiles", p.name())));
        }
        out
    }
}

/// Is Winograd's variant faster than the direct form, by more than what the costs do not know?
pub(super) fn gains(target: &Target, size: &Size, minimal: Minimal) -> bool {
    const GAIN: f64 = 0.92;
    cost::cycles(target, size, Some(minimal)) <= cost::cycles(target, size, None) * GAIN
}

/// Shape sets share weights, and with them the choice. Equal keys of different weights would share a choice, not weights.
fn key(weights: &Constant, inputs: usize, outputs: usize) -> u64 {
    Packed::winograd(WinogradPanels { inputs, outputs, minimal: Minimal::F2 }, weights.clone()).sample_hash()
}

/// A convolution, by itself or with others behind it in the same node.
fn root_conv(op: &Op) -> Option<&Conv> {
    match op {
        Op::Conv(conv) => Some(conv),
        Op::Fused(fused) => fused.root.as_deref().and_then(root_conv),
        Op::Chain(chain) => chain.links.first().and_then(|Link(op)| root_conv(op)),
        _ => None,
    }
}

/// The weights and size of a convolution whose channels, strides and layouts suit the template.
pub(super) fn suitable(g: &Graph, node: NodeId) -> Option<(Constant, Size)> {
    let conv = root_conv(g.op(node))?;
    let operands = g.operands(node);
    let (x, w) = ((*operands.first()?)?, (*operands.get(1)?)?);
    let y = g.results(node).next()?;
    let Op::Constant(weights) = g.op(w.node) else { return None };
    let &[outputs, inputs, 3, 3] = weights.dims() else { return None };
    let plain = conv.group == 1 && conv.strides == [1, 1] && conv.dilations == [1, 1];
    let whole = inputs.is_multiple_of(BLOCK) && outputs.is_multiple_of(BLOCK) && inputs * outputs > 0;
    let blocked = [x, y].iter().all(|&v| g.value(v).layout == Layout::Blocked);
    if !(plain && whole && blocked && weights.dtype() == DType::F32) {
        return None;
    }
    let dims = match g.op(node) {
        Op::Chain(chain) => chain_types(g, node, chain)?.first()?.dims()?,
        _ => super::cx::known_dims(g, y).ok()?,
    };
    let &[batch, _, height, width] = &dims[..] else { return None };
    Some((weights.clone(), Size { batch, inputs, outputs, plane: [height, width] }))
}

/// The types of the results of a chain's operators.
pub(super) fn chain_types(g: &Graph, node: NodeId, chain: &Chain) -> Option<Vec<TensorType>> {
    let types: Vec<Option<&TensorType>> = g.operands(node).into_iter().map(|v| v.map(|v| g.ty(v))).collect();
    chain.types(&types).ok()
}

/// Bytes of all constants of a graph.
fn constant_bytes(g: &Graph) -> usize {
    let bytes = |n| match g.op(n) {
        Op::Constant(c) => c.elems() * c.dtype().bytes(),
        _ => 0,
    };
    g.node_ids().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(bytes: usize) -> Layer {
        let c = |minimal, cycles, bytes| Candidate { minimal, cycles, bytes, error: 0.0 };
        let candidates = vec![
            c(None, 100.0, 9 * bytes),
            c(Some(Minimal::F2), 60.0, 16 * bytes),
            c(Some(Minimal::F4), 50.0, 36 * bytes),
        ];
        Layer { name: String::new(), sets: Vec::new(), signature: String::new(), pooling: None, candidates, chosen: 2 }
    }

    #[test]
    fn layers_step_down_where_it_costs_least_for_the_bytes() {
        let chosen = |growth: f64| {
            let allowed = (909.0 * (growth - 1.0)) as usize;
            let mut a = Algorithms { layers: vec![layer(1), layer(100)], allowed, ..Algorithms::default() };
            a.shrink();
            a.layers.iter().map(|l| l.chosen).collect::<Vec<_>>()
        };
        assert_eq!(chosen(4.0), [2, 2]);
        assert_eq!(chosen(2.0), [2, 1]);
        assert_eq!(chosen(1.1), [2, 0]);
        assert_eq!(chosen(1.0), [0, 0]);
    }
}
