//! Learning rates over time: a base rate times a factor that is a function of the time alone.
//!
//! ```text
//! constant      1
//! step          gamma^floor(t / size)
//! multi-step    gamma^(milestones <= t)
//! exponential   gamma^t
//! polynomial    (1 - min(t, T) / T)^power
//! fraction      1 / (1 + decay t)
//! cosine        m + (1 - m)(1 + cos(pi t / T)) / 2                       m = least rate / base rate
//! restarts      the same with t and T within a period; periods grow by a factor
//! cyclic        from 1 up to `peak` and down again, by straight lines; the height halved (triangular2) or times gamma^t
//! one-cycle     from peak / 25 up to the peak over 30 % of T, down to the first rate / 10^4, by half cosines
//! ```
//!
//! Names, defaults and closed forms are PyTorch's (`torch.optim.lr_scheduler`; `fraction`, which it has not, is the
//! `InverseTimeDecay` of Keras). A warm-up may stand before any of them (PyTorch's `LinearLR`, in `SequentialLR`).
//! PyTorch computes some rates by recurrence, which differs from the closed form by rounding.
//!
//! Reducing on a plateau depends on results, and has a state: [`Plateau`].

use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// What [`Schedule::Cyclic`] does to the height of a cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cycle {
    /// Nothing.
    #[default]
    Triangular,
    /// Halves it each cycle.
    Triangular2,
    /// Times `gamma^t`.
    ExpRange,
}

/// A schedule. Times are counted in steps or epochs, as [`Rates::per`] says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Always the base rate.
    #[default]
    Constant,
    /// Every `size`, times `gamma`.
    Step {
        /// Time between two drops, at least 1.
        size: u64,
        /// The factor.
        #[serde(default = "tenth")]
        gamma: f64,
    },
    /// At each of `milestones`, times `gamma`.
    MultiStep {
        /// Times, ascending.
        milestones: Vec<u64>,
        /// The factor.
        #[serde(default = "tenth")]
        gamma: f64,
    },
    /// Each time, times `gamma`.
    Exponential {
        /// The factor.
        gamma: f64,
    },
    /// Down to 0 at `total`.
    Polynomial {
        /// When it is 0; the whole run if not given.
        #[serde(default)]
        total: Option<u64>,
        /// The exponent.
        #[serde(default = "one")]
        power: f64,
    },
    /// `1 / (1 + decay t)`.
    Fraction {
        /// How fast.
        decay: f64,
    },
    /// Half a cosine.
    Cosine {
        /// When it is least; the whole run if not given.
        #[serde(default)]
        total: Option<u64>,
        /// The least rate.
        #[serde(default)]
        least: f64,
    },
    /// Half cosines again and again (Loshchilov and Hutter, "SGDR", 2017).
    CosineRestarts {
        /// The first period, at least 1.
        period: u64,
        /// Each period is so many times as long as the one before.
        #[serde(default = "one_times")]
        factor: u64,
        /// The least rate.
        #[serde(default)]
        least: f64,
    },
    /// Up and down (Smith, "Cyclical learning rates", 2017).
    Cyclic {
        /// The highest rate.
        peak: f64,
        /// Time upwards, at least 1.
        #[serde(default = "two_thousand")]
        up: u64,
        /// Time downwards; as upwards if not given.
        #[serde(default)]
        down: Option<u64>,
        /// What becomes of the height.
        #[serde(default)]
        mode: Cycle,
        /// Of `exp_range`.
        #[serde(default = "one")]
        gamma: f64,
    },
    /// Once up and down; the base rate is the peak (Smith and Topin, "Super-convergence", 2018).
    OneCycle {
        /// The whole time; the whole run if not given.
        #[serde(default)]
        total: Option<u64>,
        /// The share of it that goes up.
        #[serde(default = "three_tenths")]
        rise: f64,
        /// The first rate is the peak divided by this.
        #[serde(default = "twenty_five")]
        divide: f64,
        /// The last is the first divided by this.
        #[serde(default = "ten_thousand")]
        divide_last: f64,
    },
}

fn one() -> f64 {
    1.0
}
fn one_times() -> u64 {
    1
}
fn tenth() -> f64 {
    0.1
}
fn three_tenths() -> f64 {
    0.3
}
fn twenty_five() -> f64 {
    25.0
}
fn ten_thousand() -> f64 {
    1e4
}
fn two_thousand() -> u64 {
    2000
}

impl Schedule {
    /// The rate at time `t` of a run that lasts `whole`.
    pub fn rate(&self, base: f64, t: u64, whole: u64) -> f64 {
        let x = t as f64;
        let of = |total: &Option<u64>| total.unwrap_or(whole).max(1);
        match self {
            Schedule::Constant => base,
            Schedule::Step { size, gamma } => base * power(*gamma, t / size.max(&1)),
            Schedule::MultiStep { milestones, gamma } => {
                base * power(*gamma, milestones.iter().filter(|&&m| m <= t).count() as u64)
            }
            Schedule::Exponential { gamma } => base * power(*gamma, t),
            Schedule::Polynomial { total, power } => {
                let total = of(total);
                base * (1.0 - t.min(total) as f64 / total as f64).powf(*power)
            }
            Schedule::Fraction { decay } => base / (1.0 + decay * x),
            Schedule::Cosine { total, least } => half_cosine(base, *least, x / of(total) as f64),
            Schedule::CosineRestarts { period, factor, least } => {
                let (at, length) = within_period(t, (*period).max(1), (*factor).max(1));
                half_cosine(base, *least, at as f64 / length as f64)
            }
            Schedule::Cyclic { peak, up, down, mode, gamma } => {
                let (up, down) = ((*up).max(1), down.unwrap_or(*up).max(1));
                let (cycle, at) = (t / (up + down), t % (up + down));
                let height = if at <= up { at as f64 / up as f64 } else { (up + down - at) as f64 / down as f64 };
                let scale = match mode {
                    Cycle::Triangular => 1.0,
                    Cycle::Triangular2 => power(0.5, cycle),
                    Cycle::ExpRange => power(*gamma, t),
                };
                base + (peak - base) * height * scale
            }
            Schedule::OneCycle { total, rise, divide, divide_last } => {
                // The last step of T has number T - 1, and the rise ends at number rise T - 1.
                let (top, end) = (rise * of(total) as f64 - 1.0, (of(total) - 1) as f64);
                let first = base / divide;
                if x <= top {
                    half_cosine(first, base, if top > 0.0 { x / top } else { 1.0 })
                } else {
                    half_cosine(
                        base,
                        first / divide_last,
                        if end > top { ((x - top) / (end - top)).min(1.0) } else { 1.0 },
                    )
                }
            }
        }
    }

    /// What times count where nothing is said: schedules that stretch over the run change at each step, those that PyTorch's
    /// documentation steps once an epoch do so here.
    pub fn usual_unit(&self) -> Per {
        match self {
            Schedule::Polynomial { total: None, .. }
            | Schedule::Cosine { total: None, .. }
            | Schedule::Cyclic { .. }
            | Schedule::OneCycle { .. } => Per::Step,
            _ => Per::Epoch,
        }
    }

    /// An error if a number makes no sense.
    pub fn check(&self) -> Result<(), String> {
        let bad = match self {
            Schedule::Step { size: 0, .. } => "a step of size 0",
            Schedule::CosineRestarts { period: 0, .. } => "a period of 0",
            Schedule::CosineRestarts { factor: 0, .. } => "periods that grow by the factor 0",
            Schedule::Cyclic { up: 0, .. } | Schedule::Cyclic { down: Some(0), .. } => "a cycle without a rise or fall",
            Schedule::MultiStep { milestones, .. } if !milestones.is_sorted() => "milestones that do not ascend",
            Schedule::OneCycle { rise, .. } if !(0.0..=1.0).contains(rise) => "a rise that is no share of the time",
            Schedule::OneCycle { divide, divide_last, .. } if *divide <= 0.0 || *divide_last <= 0.0 => {
                "a divisor that is not positive"
            }
            _ => return Ok(()),
        };
        Err(format!("schedule: {bad}"))
    }
}

/// `x^n`; `powi` takes 32 bits only.
fn power(x: f64, n: u64) -> f64 {
    x.powf(n as f64)
}

/// From `from` at 0 to `to` at 1 by half a cosine.
fn half_cosine(from: f64, to: f64, x: f64) -> f64 {
    to + (from - to) * (1.0 + (PI * x).cos()) / 2.0
}

/// The place of `t` in its period, and that period's length.
fn within_period(t: u64, period: u64, factor: u64) -> (u64, u64) {
    if factor == 1 {
        return (t % period, period);
    }
    let (mut at, mut length) = (t, period);
    while at >= length {
        at -= length;
        length = length.saturating_mul(factor);
    }
    (at, length)
}

/// What a schedule's times count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Updates of the weights.
    Step,
    /// Passes over the data.
    Epoch,
}

/// The rates of a run: schedule, base rate, warm-up.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// The base rate.
    pub base: f64,
    /// How it changes.
    pub schedule: Schedule,
    /// What times count.
    pub per: Per,
    /// Steps of the warm-up before the schedule begins; 0 for none. The rate rises by a straight line from
    /// `warmup_start` times the schedule's first.
    pub warmup: u64,
    /// PyTorch's `start_factor`: 1/3.
    pub warmup_start: f64,
}

impl Rates {
    /// A base rate under a schedule in its usual unit, without warm-up.
    pub fn new(base: f64, schedule: Schedule) -> Rates {
        Rates { base, per: schedule.usual_unit(), schedule, warmup: 0, warmup_start: 1.0 / 3.0 }
    }

    /// The rate of update `step` (from 0) in a run of `epochs` times `steps` updates. Steps of the warm-up do not count for
    /// the schedule where its times are steps; epochs are whole epochs.
    pub fn at(&self, step: u64, steps: u64, epochs: u64) -> f64 {
        let steps = steps.max(1);
        let time = |step: u64| match self.per {
            Per::Step => step.saturating_sub(self.warmup),
            Per::Epoch => step / steps,
        };
        let whole = match self.per {
            Per::Step => (steps * epochs).saturating_sub(self.warmup),
            Per::Epoch => epochs,
        };
        if step < self.warmup {
            let factor = self.warmup_start + (1.0 - self.warmup_start) * step as f64 / self.warmup as f64;
            return factor * self.schedule.rate(self.base, 0, whole);
        }
        self.schedule.rate(self.base, time(step), whole)
    }
}

/// Reduces the rate when a measure stops getting better: PyTorch's `ReduceLROnPlateau` with a relative threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plateau {
    /// The rate is multiplied by this.
    pub factor: f64,
    /// Epochs without improvement that are borne.
    pub patience: u32,
    /// Better is better by this share.
    pub threshold: f64,
    /// Epochs after a reduction that do not count.
    pub cooldown: u32,
    /// The least rate.
    pub least: f64,
}

impl Default for Plateau {
    fn default() -> Plateau {
        Plateau { factor: 0.1, patience: 10, threshold: 1e-4, cooldown: 0, least: 0.0 }
    }
}

/// What [`Plateau`] remembers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlateauState {
    /// The product of all reductions.
    pub factor: f64,
    /// The best measure so far.
    pub best: f64,
    /// Epochs since.
    pub bad: u32,
    /// Epochs of cool-down left.
    pub cooling: u32,
}

impl Default for PlateauState {
    fn default() -> PlateauState {
        PlateauState { factor: 1.0, best: f64::INFINITY, bad: 0, cooling: 0 }
    }
}

impl Plateau {
    /// Takes an epoch's measure (smaller is better; negate what is to grow). `rate` is the rate without reductions.
    pub fn update(&self, state: &mut PlateauState, measure: f64, rate: f64) {
        // torch: `a < best * (1 - threshold)` for "min"; the threshold is of the magnitude, so that negated measures work too.
        let better = if state.best.is_finite() {
            measure < state.best - self.threshold * state.best.abs()
        } else {
            measure < state.best
        };
        if better {
            (state.best, state.bad) = (measure, 0);
        } else {
            state.bad += 1;
        }
        if state.cooling > 0 {
            state.cooling -= 1;
            state.bad = 0;
        }
        if state.bad > self.patience {
            let (old, new) = (rate * state.factor, (rate * state.factor * self.factor).max(self.least));
            // torch's eps: smaller changes are not made.
            if old - new > 1e-8 {
                state.factor = new / rate;
            }
            (state.cooling, state.bad) = (self.cooldown, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: &Schedule, base: f64, times: &[u64], whole: u64) -> Vec<f64> {
        times.iter().map(|&t| schedule.rate(base, t, whole)).collect()
    }

    fn first(schedule: &Schedule, n: u64) -> Vec<f64> {
        rates(schedule, 0.5, &(0..n).collect::<Vec<_>>(), 1000)
    }

    #[track_caller]
    fn near(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            // PyTorch's recurrences lose some bits.
            assert!((g - e).abs() <= 1e-12 * e.abs().max(1e-3), "{got:?} is not {expected:?}");
        }
    }

    /// PyTorch 2: the rates of `scheduler.step()` after each step, base rate 0.5.
    #[test]
    fn rates_are_pytorchs() {
        let step = Schedule::Step { size: 3, gamma: 0.1 };
        near(&first(&step, 8), &[0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.005, 0.005]);
        let multi = Schedule::MultiStep { milestones: vec![2, 5], gamma: 0.1 };
        near(&first(&multi, 8), &[0.5, 0.5, 0.05, 0.05, 0.05, 0.005, 0.005, 0.005]);
        near(&first(&Schedule::Exponential { gamma: 0.9 }, 4), &[0.5, 0.45, 0.405, 0.3645]);
        let polynomial = Schedule::Polynomial { total: Some(5), power: 2.0 };
        near(&first(&polynomial, 7), &[0.5, 0.32, 0.18, 0.08, 0.02, 0.0, 0.0]);
        let cosine = Schedule::Cosine { total: Some(5), least: 0.1 };
        let expected = [0.5, 0.46180339887498956, 0.3618033988749896, 0.2381966011250106, 0.13819660112501056, 0.1];
        near(&first(&cosine, 6), &expected);
        let restarts = Schedule::CosineRestarts { period: 2, factor: 2, least: 0.1 };
        let expected = [0.5, 0.3, 0.5, 0.4414213562373095, 0.3, 0.1585786437626905, 0.5, 0.4847759065022573];
        near(&first(&restarts, 8), &expected);
        let one_cycle = Schedule::OneCycle { total: Some(10), rise: 0.3, divide: 25.0, divide_last: 1e4 };
        let expected = [
            0.02,
            0.26,
            0.5,
            0.47524231600673683,
            0.40587282697488153,
            0.30563101096814466,
            0.19437098903185537,
            0.09412917302511849,
            0.024759683993263143,
            2e-06,
        ];
        near(&first(&one_cycle, 10), &expected);
        // What PyTorch has not: Keras' InverseTimeDecay(0.5, decay_steps=1, decay_rate=1).
        near(&first(&Schedule::Fraction { decay: 1.0 }, 3), &[0.5, 0.25, 0.5 / 3.0]);
        near(&first(&Schedule::Constant, 2), &[0.5, 0.5]);
    }

    #[test]
    fn cycles_are_pytorchs() {
        let cyclic = |down, mode, gamma| Schedule::Cyclic { peak: 1.5, up: 2, down, mode, gamma };
        let triangular = cyclic(Some(3), Cycle::Triangular, 1.0);
        near(&first(&triangular, 8), &[0.5, 1.0, 1.5, 3.5 / 3.0, 2.5 / 3.0, 0.5, 1.0, 1.5]);
        let halved = cyclic(None, Cycle::Triangular2, 1.0);
        near(&first(&halved, 8), &[0.5, 1.0, 1.5, 1.0, 0.5, 0.75, 1.0, 0.75]);
        let range = cyclic(None, Cycle::ExpRange, 0.9);
        near(&first(&range, 8), &[0.5, 0.95, 1.31, 0.8645, 0.5, 0.795245, 1.031441, 0.73914845]);
    }

    /// `ReduceLROnPlateau(patience=1, cooldown=1, min_lr=1e-3)`, PyTorch 2.
    #[test]
    fn plateaus_are_pytorchs() {
        let plateau = Plateau { patience: 1, cooldown: 1, least: 1e-3, ..Plateau::default() };
        let mut state = PlateauState::default();
        let measures = [3., 2., 2., 2., 2., 2., 2., 1.99999, 2., 2., 2., 2., 1., 1., 1.];
        let rates = measures.map(|m| {
            plateau.update(&mut state, m, 0.5);
            0.5 * state.factor
        });
        let expected = [0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.005, 0.005, 0.005, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-3];
        near(&rates, &expected);
    }

    #[test]
    fn warm_up_comes_before_any() {
        let mut r = Rates::new(0.3, Schedule::Cosine { total: None, least: 0.0 });
        r.warmup = 3;
        let at: Vec<f64> = (0..10).map(|i| r.at(i, 5, 2)).collect();
        near(&at[..4], &[0.1, 0.1 + 0.2 / 3.0, 0.1 + 0.4 / 3.0, 0.3]);
        near(&at[3..], &rates(&r.schedule, 0.3, &[0, 1, 2, 3, 4, 5, 6], 7));
        let mut r = Rates::new(1.0, Schedule::Step { size: 2, gamma: 0.1 });
        r.warmup = 1;
        near(&(0..4).map(|epoch| r.at(epoch * 5 + 4, 5, 4)).collect::<Vec<_>>(), &[1.0, 1.0, 0.1, 0.1]);
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let message = |s: Schedule| s.check().unwrap_err();
        assert_eq!(message(Schedule::Step { size: 0, gamma: 0.1 }), "schedule: a step of size 0");
        let milestones = Schedule::MultiStep { milestones: vec![3, 2], gamma: 0.1 };
        assert_eq!(message(milestones), "schedule: milestones that do not ascend");
        // And none of them divides by zero or loops for ever, checked or not.
        for s in [
            Schedule::Step { size: 0, gamma: 0.1 },
            Schedule::CosineRestarts { period: 0, factor: 0, least: 0.0 },
            Schedule::Cyclic { peak: 1.0, up: 0, down: Some(0), mode: Cycle::Triangular, gamma: 1.0 },
            Schedule::OneCycle { total: Some(0), rise: 0.0, divide: 25.0, divide_last: 1e4 },
            Schedule::Cosine { total: None, least: 0.0 },
        ] {
            assert!(s.rate(1.0, 5, 0).is_finite(), "{s:?}");
        }
    }
}
