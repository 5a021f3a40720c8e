//! What norms, activities and curves say about a run: a sentence that names the layer and what helps.
//!
//! ```text
//! r = |gradient| / |weights| of a layer
//!
//! vanishes   r < 1e-4 of the largest r of all layers, in three looks one after the other; or no gradient at all
//! explodes   |gradient| or |update| is no number, or r > 100
//! too fast   |update| > |weights|
//! dead       at least half of a layer's ReLU units are 0 for every sample and place of a batch
//!
//! bias       1 - accuracy on what is learnt from          variance    that accuracy - the one on held-out data
//! ```
//!
//! The bounds: layers of a healthy network lie within two orders of each other, while one sigmoid shrinks a gradient to a
//! quarter at best, so that four orders are seven sigmoids. A layer whose gradient is a hundred times its weights is moved
//! out of all proportion by any usual rate. Each thing is said once a layer.

use crate::history::EpochRecord;
use crate::step::{LayerActivity, LayerNorms};
use std::collections::{BTreeMap, BTreeSet};

const VANISHING: f32 = 1e-4;
const LOOKS: u32 = 3;
const EXPLODING: f32 = 100.0;
const DEAD: f32 = 0.5;
/// Bias or variance below this is nothing to speak of.
const NOTABLE: f64 = 0.05;

/// What has been seen and said. A run that goes on from a checkpoint says it again.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    said: BTreeSet<(&'static str, String)>,
    /// How often in a row a layer's gradient was tiny.
    tiny: BTreeMap<String, u32>,
}

impl Watch {
    /// What the norms of an update call for.
    pub fn norms(&mut self, layers: &[LayerNorms]) -> Vec<String> {
        let relative = |l: &LayerNorms| if l.weight > 0.0 { l.gradient / l.weight } else { 0.0 };
        let largest = layers.iter().map(relative).filter(|r| r.is_finite()).fold(0.0, f32::max);
        let mut out = Vec::new();
        for layer in layers {
            let (r, name) = (relative(layer), &layer.name);
            let tiny = largest > 0.0 && r < VANISHING * largest && layer.weight > 0.0;
            let looks = self.tiny.entry(name.clone()).or_default();
            *looks = if tiny { *looks + 1 } else { 0 };
            let looks = *looks;
            if looks >= LOOKS && self.first("vanishes", name) {
                out.push(format!(
                    "the gradient of \"{name}\" vanishes: its norm is {:.1e} for weights of {:.1e}; normalization, ReLU for \
                     sigmoid or tanh, He's or Xavier's initialisation, or residual connections help",
                    layer.gradient, layer.weight
                ));
            }
            let finite = layer.gradient.is_finite() && layer.update.is_finite();
            if (!finite || r > EXPLODING) && self.first("explodes", name) {
                out.push(format!(
                    "the gradient of \"{name}\" explodes: its norm is {:.1e} for weights of {:.1e}; --clip-norm, a lower rate, a \
                     warm-up, normalization or another initialisation help",
                    layer.gradient, layer.weight
                ));
            } else if finite && layer.update > layer.weight && layer.weight > 0.0 && self.first("too fast", name) {
                out.push(format!(
                    "an update of \"{name}\" is larger than its weights: {:.1e} for {:.1e}; a lower rate or a warm-up helps",
                    layer.update, layer.weight
                ));
            }
        }
        out
    }

    /// What the activities of a batch call for.
    pub fn activity(&mut self, layers: &[LayerActivity]) -> Vec<String> {
        let mut out = Vec::new();
        for layer in layers.iter().filter(|l| l.dead_share() >= DEAD) {
            if self.first("dead", &layer.name) {
                let percent = 100.0 * layer.dead_share();
                out.push(format!(
                    "{} of {} units of the ReLU \"{}\" are dead ({percent:.0} %): a lower rate, He's initialisation, batch \
                     normalization or a leaky ReLU helps",
                    layer.dead, layer.units, layer.name
                ));
            }
        }
        out
    }

    fn first(&mut self, what: &'static str, name: &str) -> bool {
        self.said.insert((what, name.to_string()))
    }
}

/// Bias against variance, read from both curves of a run that is done; none without held-out data with classes.
pub fn bias_and_variance(history: &[EpochRecord]) -> Option<String> {
    let last = history.last()?;
    let (train, val) = (last.train_accuracy?, last.val_accuracy?);
    let (bias, variance) = (1.0 - train, train - val);
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let figures =
        format!("{} wrong on what was learnt from, {} more on what was not", percent(bias), percent(variance));
    if variance >= NOTABLE && variance >= bias {
        let best = history.iter().min_by(|a, b| {
            let loss = |r: &EpochRecord| r.val_loss.unwrap_or(f64::INFINITY);
            loss(a).total_cmp(&loss(b))
        })?;
        let since = last.epoch - best.epoch;
        let stop = match since {
            0..=1 => String::new(),
            _ => format!("; the held-out loss has grown since epoch {}: --patience keeps the best", best.epoch + 1),
        };
        return Some(format!(
            "variance, it learns by heart: {figures}; more data, --augment, dropout, weight decay or a smaller network help{stop}"
        ));
    }
    (bias >= NOTABLE).then(|| {
        format!("bias, it learns too little: {figures}; more epochs, another rate, less regularisation or a larger network help")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norms(of: &[(&str, f32, f32, f32)]) -> Vec<LayerNorms> {
        of.iter()
            .map(|&(name, gradient, update, weight)| LayerNorms { name: name.into(), gradient, update, weight })
            .collect()
    }

    #[test]
    fn layers_are_named_once() {
        let mut watch = Watch::default();
        let healthy = norms(&[("a", 0.1, 1e-3, 2.0), ("b", 1.0, 1e-2, 1.0), ("zeros", 0.5, 0.1, 0.0)]);
        assert!(watch.norms(&healthy).is_empty());
        let sick =
            norms(&[("a", 1e-6, 1e-9, 2.0), ("b", 1.0, 3.0, 1.0), ("c", 150.0, 0.1, 1.0), ("d", f32::NAN, 0.0, 1.0)]);
        let said = watch.norms(&sick);
        let begins =
            ["an update of \"b\" is larger", "the gradient of \"c\" explodes", "the gradient of \"d\" explodes"];
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said.iter().zip(begins).all(|(s, b)| s.starts_with(b)), "{said:?}");
        // one tiny gradient is an accident, three in a row are not
        assert!(watch.norms(&sick).is_empty());
        let said = watch.norms(&sick);
        assert!(said.len() == 1 && said[0].starts_with("the gradient of \"a\" vanishes"), "{said:?}");
        assert!(watch.norms(&sick).is_empty());
    }

    #[test]
    fn dead_units_are_counted() {
        let mut watch = Watch::default();
        let layer = |name: &str, dead| LayerActivity { name: name.into(), rms: 1.0, units: 8, dead };
        let said = watch.activity(&[layer("r1", 3), layer("r2", 4)]);
        assert!(said.len() == 1 && said[0].starts_with("4 of 8 units of the ReLU \"r2\" are dead (50 %)"), "{said:?}");
        assert!(watch.activity(&[layer("r2", 8)]).is_empty());
    }

    #[test]
    fn curves_say_bias_or_variance() {
        let record = |epoch, train, val, val_loss| EpochRecord {
            epoch,
            rate: 0.1,
            train_loss: 1.0,
            train_accuracy: Some(train),
            val_loss: Some(val_loss),
            val_accuracy: Some(val),
            seconds: 0.0,
            norms: Vec::new(),
            activity: Vec::new(),
        };
        let said = |r: &[EpochRecord]| bias_and_variance(r).unwrap_or_default();
        let by_heart = said(&[record(0, 0.9, 0.8, 0.5), record(1, 0.95, 0.8, 0.6), record(2, 1.0, 0.8, 0.7)]);
        assert!(by_heart.starts_with("variance") && by_heart.contains("since epoch 1"), "{by_heart}");
        assert!(said(&[record(0, 0.6, 0.58, 1.0)]).starts_with("bias"));
        assert_eq!(said(&[record(0, 0.99, 0.98, 0.1)]), "");
        assert_eq!(said(&[]), "");
    }
}
