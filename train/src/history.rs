//! What a run has come through: an epoch a record, and the place where it is.
//!
//! Both are written into checkpoints bit for bit (JSON would lose NaN and, as it is usually read, last bits), so that a
//! resumed run has the same history and stops at the same epoch.

use crate::schedule::PlateauState;
use crate::step::{LayerActivity, LayerNorms};
use serde::Serialize;

/// One epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochRecord {
    /// From 0.
    pub epoch: u32,
    /// The learning rate of its last update.
    pub rate: f64,
    /// The mean loss over the samples, each as it was when it was learnt from.
    pub train_loss: f64,
    /// The share of right predictions among them; none without classes.
    pub train_accuracy: Option<f64>,
    /// On the held-out data.
    pub val_loss: Option<f64>,
    /// On the held-out data.
    pub val_accuracy: Option<f64>,
    /// Time, training and evaluation. Not the same when repeated, and not compared.
    pub seconds: f64,
    /// Norms by layer of the last update.
    pub norms: Vec<LayerNorms>,
    /// Of the layers of ReLUs behind it.
    pub activity: Vec<LayerActivity>,
}

/// Sums over the part of an epoch that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Loss times samples.
    pub loss: f64,
    /// Samples.
    pub samples: u64,
    /// Right predictions.
    pub hits: u64,
    /// Samples whose prediction is right or wrong.
    pub judged: u64,
}

impl Sums {
    /// The mean loss.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.samples.max(1) as f64
    }

    /// The share of right predictions.
    pub fn accuracy(&self) -> Option<f64> {
        (self.judged > 0).then(|| self.hits as f64 / self.judged as f64)
    }
}

/// The best epoch so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Best {
    /// Which.
    pub epoch: u32,
    /// Its measure.
    pub value: f64,
}

/// Where a run is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The epoch that is going on.
    pub epoch: u32,
    /// The next batch in it.
    pub batch: u64,
    /// Updates so far.
    pub updates: u64,
    /// Of the epoch that is going on.
    pub sums: Sums,
    /// The epochs that are done.
    pub history: Vec<EpochRecord>,
    /// The best of them.
    pub best: Option<Best>,
    /// Whether early stopping has ended the run.
    pub stopped: bool,
    /// Of reducing on a plateau.
    pub plateau: PlateauState,
}

impl Progress {
    /// As a checkpoint's section.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Pack(Vec::new());
        out.u64(u64::from(self.epoch)).u64(self.batch).u64(self.updates).u64(u64::from(self.stopped));
        let s = &self.sums;
        out.f64(s.loss).u64(s.samples).u64(s.hits).u64(s.judged);
        out.u64(u64::from(self.best.is_some()));
        if let Some(best) = self.best {
            out.u64(u64::from(best.epoch)).f64(best.value);
        }
        let p = &self.plateau;
        out.f64(p.factor).f64(p.best).u64(u64::from(p.bad)).u64(u64::from(p.cooling));
        out.u64(self.history.len() as u64);
        for r in &self.history {
            out.u64(u64::from(r.epoch)).f64(r.rate).f64(r.train_loss).f64(r.seconds);
            out.optional(r.train_accuracy).optional(r.val_loss).optional(r.val_accuracy);
            out.u64(r.norms.len() as u64);
            for n in &r.norms {
                out.text(&n.name);
                for x in [n.gradient, n.update, n.weight] {
                    out.u64(u64::from(x.to_bits()));
                }
            }
            out.u64(r.activity.len() as u64);
            for a in &r.activity {
                out.text(&a.name);
                out.u64(u64::from(a.rms.to_bits())).u64(a.units).u64(a.dead);
            }
        }
        out.0
    }

    /// From a checkpoint's section; `None` if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Progress> {
        let mut from = Unpack(bytes);
        let epoch = from.u32()?;
        let (batch, updates, stopped) = (from.u64()?, from.u64()?, from.u64()? != 0);
        let sums = Sums { loss: from.f64()?, samples: from.u64()?, hits: from.u64()?, judged: from.u64()? };
        let best = if from.u64()? != 0 { Some(Best { epoch: from.u32()?, value: from.f64()? }) } else { None };
        let plateau = PlateauState { factor: from.f64()?, best: from.f64()?, bad: from.u32()?, cooling: from.u32()? };
        let mut history = Vec::new();
        for _ in 0..from.u64()? {
            let (epoch, rate, train_loss, seconds) = (from.u32()?, from.f64()?, from.f64()?, from.f64()?);
            let (train_accuracy, val_loss, val_accuracy) = (from.optional()?, from.optional()?, from.optional()?);
            let mut norms = Vec::new();
            for _ in 0..from.u64()? {
                let name = from.text()?;
                let mut norm = || from.u32().map(f32::from_bits);
                norms.push(LayerNorms { name, gradient: norm()?, update: norm()?, weight: norm()? });
            }
            let mut activity = Vec::new();
            for _ in 0..from.u64()? {
                let (name, rms) = (from.text()?, f32::from_bits(from.u32()?));
                activity.push(LayerActivity { name, rms, units: from.u64()?, dead: from.u64()? });
            }
            history.push(EpochRecord {
                epoch,
                rate,
                train_loss,
                train_accuracy,
                val_loss,
                val_accuracy,
                seconds,
                norms,
                activity,
            });
        }
        from.0.is_empty().then_some(Progress { epoch, batch, updates, sums, history, best, stopped, plateau })
    }
}

/// Numbers as bytes.
struct Pack(Vec<u8>);

impl Pack {
    fn u64(&mut self, x: u64) -> &mut Pack {
        self.0.extend(x.to_le_bytes());
        self
    }

    fn f64(&mut self, x: f64) -> &mut Pack {
        self.u64(x.to_bits())
    }

    fn optional(&mut self, x: Option<f64>) -> &mut Pack {
        self.u64(u64::from(x.is_some())).f64(x.unwrap_or(0.0))
    }

    fn text(&mut self, text: &str) {
        self.u64(text.len() as u64).0.extend(text.as_bytes());
    }
}

/// And back.
struct Unpack<'a>(&'a [u8]);

impl Unpack<'_> {
    fn u64(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    fn u32(&mut self) -> Option<u32> {
        self.u64()?.try_into().ok()
    }

    fn f64(&mut self) -> Option<f64> {
        self.u64().map(f64::from_bits)
    }

    fn optional(&mut self) -> Option<Option<f64>> {
        let (some, value) = (self.u64()? != 0, self.f64()?);
        Some(some.then_some(value))
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u64()?).ok()?;
        let bytes = self.0.split_off(..length)?;
        String::from_utf8(bytes.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_round_trips_bit_for_bit() {
        let norms = vec![LayerNorms { name: "conv1/ü".into(), gradient: f32::INFINITY, update: 0.1, weight: -0.0 }];
        let record = EpochRecord {
            epoch: 3,
            rate: 0.1 + 0.2,
            train_loss: f64::MIN_POSITIVE / 3.0,
            train_accuracy: Some(1.0 / 3.0),
            val_loss: None,
            val_accuracy: Some(-0.0),
            seconds: 1e9,
            norms,
            activity: vec![LayerActivity { name: "relu".into(), rms: 0.1, units: 7, dead: 3 }],
        };
        let progress = Progress {
            epoch: 4,
            batch: 17,
            updates: 1 << 40,
            sums: Sums { loss: 0.7, samples: 64, hits: 3, judged: 64 },
            history: vec![record.clone(), EpochRecord { norms: vec![], ..record }],
            best: Some(Best { epoch: 3, value: 0.1 }),
            stopped: true,
            plateau: PlateauState { best: f64::INFINITY, ..PlateauState::default() },
        };
        for p in [progress, Progress::default()] {
            let bytes = p.encode();
            assert_eq!(Progress::decode(&bytes), Some(p));
            assert!((0..bytes.len()).all(|end| Progress::decode(&bytes[..end]).is_none()));
        }
    }
}
