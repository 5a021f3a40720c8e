//! `--tune`: the ways of computing each distinct layer, measured on this machine while compiling, where the layer runs.
//!
//! A layer alone in a loop has its operands in the nearest cache, and the best schedule there is not the best in the network.
//! So whole networks are measured: in round `k` everything that is tuned takes its `k`-th candidate, the network is compiled in
//! memory and runs in turns with the one in which everything takes what the templates choose. The time of a subject is the sum
//! over the steps that compute it, each the least of its runs; a candidate is judged by its ratio to the default in the same
//! round, so that a machine that slows down between rounds misleads nobody.
//!
//! ```text
//! stages       first the parts of the graph, for their ways make other steps: algorithms (`Algorithms::parts`), cuts of runs of
//!              layers into bands (`bands::Run`); then, with the best of these, each step whose template has candidates
//! candidates   the default, then those that the cost model of the template likes best (`Tunable::candidates`)
//! winner       the least ratio, if it gains at least GAIN, and again in a last round where all winners are together: the best
//!              of several measurements looks better than it is; else the default, which is remembered as well
//! ```
//!
//! The tuner knows no template: what can be tuned says so (`nncc_codegen::tunable`). What a cache file knows is not measured again
//! ([`Cache`]); with a cache alone nothing is measured, and builds are reproducible. Only the highest level that runs here is
//! measured. A stage takes one round at least, however short the time, unless it is zero. Left out: more than one thread;
//! attention, pooling and weight gradients, whose templates offer no candidates.

mod cache;
mod variant;

pub use cache::Cache;

use crate::Error;
use crate::compiler::SetGraph;
use nncc_codegen::lower::Algorithms;
use nncc_codegen::target::{Target, host_has};
use nncc_codegen::tunable::{Choice, Choices};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracing::info;
use variant::{Variant, in_turns};

/// The most candidates of a subject, the default among them.
const MOST: usize = 8;

/// What a candidate must gain to be taken: less is within what a measurement does not know.
const GAIN: f64 = 0.02;

/// What may be measured, and where it is kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tuning {
    /// How long to measure; none: not at all, what the cache knows is used.
    pub time: Option<Duration>,
    /// The cache file.
    pub cache: Option<PathBuf>,
}

/// What is tuned.
pub(crate) struct Network<'a> {
    /// Its graphs, with runs of layers cut as choices say.
    pub sets: &'a dyn Fn(&Choices) -> Result<Vec<SetGraph>, Error>,
    /// The levels that it is compiled for.
    pub targets: &'a [Target],
    /// The algorithms that the cost model chose.
    pub algorithms: &'a Algorithms,
}

/// Told how many rounds of how many are done, and of what.
pub(crate) type Progress<'a> = dyn FnMut(&str, usize, usize) + 'a;

/// What is tuned together.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Parts of the graph.
    Parts,
    /// Steps.
    Steps,
}

/// The choices for a model.
pub(crate) fn tune(tuning: &Tuning, network: &Network<'_>, progress: &mut Progress<'_>) -> Result<Choices, Error> {
    let mut cache = tuning.cache.as_deref().map(Cache::read).transpose()?.unwrap_or_default();
    let Some(time) = tuning.time else { return Ok(cache.choices()) };
    let Some(target) = network.targets.iter().rev().find(|t| host_has(t.level)) else {
        let message = "--tune measures on this machine, which runs no code for the target";
        return Err(Error::Usage(format!("{message}\n  help: --tune-cache FILE uses what was measured elsewhere")));
    };
    let start = Instant::now();
    let stages = [(Stage::Parts, 2), (Stage::Steps, 1)];
    for (stage, stages_left) in stages.into_iter().filter(|_| !time.is_zero()) {
        let share = time.saturating_sub(start.elapsed()) / stages_left;
        let session =
            Session { network, target, base: Variant::new(network, target, &cache.choices())?, known: cache.choices() };
        let mut subjects = session.subjects(stage);
        session.measure(&mut subjects, share, &mut |done, of| progress(stage.name(), done, of))?;
        for (signature, subject) in subjects.iter().filter(|(_, s)| s.default_ns > 0) {
            let (ratio, which) = subject.best;
            let remark = format!("{ratio:.2} of {:.1} us", subject.default_ns as f64 / 1e3);
            info!("tuned {signature}: {} ({remark})", subject.candidates[which]);
            cache.insert(signature, subject.candidates[which].clone(), remark);
        }
    }
    if let Some(path) = &tuning.cache {
        cache.write(path)?;
    }
    Ok(cache.choices())
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Parts => "algorithms and bands",
            Stage::Steps => "steps",
        }
    }
}

/// What has more than one way, and the best of them so far.
struct Subject {
    candidates: Vec<Choice>,
    /// Its ratio to the default, and which it is.
    best: (f64, usize),
    /// Nanoseconds of the default; 0 where nothing was measured.
    default_ns: u64,
}

/// The measurements of a stage.
struct Session<'a> {
    network: &'a Network<'a>,
    target: &'a Target,
    /// What was chosen before.
    known: Choices,
    /// The network with that, and else the default.
    base: Variant,
}

impl Session<'_> {
    /// What is not known yet and has more than one candidate, by signature.
    fn subjects(&self, stage: Stage) -> BTreeMap<String, Subject> {
        let mut all: BTreeMap<String, Vec<Choice>> = BTreeMap::new();
        match stage {
            Stage::Parts => all.extend(self.base.parts.iter().map(|p| (p.signature.clone(), p.candidates.clone()))),
            Stage::Steps => {
                for tunable in self.base.steps().filter_map(|step| step.tunable.as_ref()) {
                    let candidates = || tunable.candidates(self.target, MOST);
                    all.entry(tunable.signature.clone()).or_insert_with(candidates);
                }
            }
        }
        all.retain(|signature, candidates| self.known.get(signature).is_none() && candidates.len() > 1);
        let subject = |candidates| Subject { candidates, best: (1.0, 0), default_ns: 0 };
        all.into_iter().map(|(signature, candidates)| (signature, subject(candidates))).collect()
    }

    /// Measures round after round until the time is over, and then the winners together.
    fn measure(
        &self,
        subjects: &mut BTreeMap<String, Subject>,
        time: Duration,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), Error> {
        let start = Instant::now();
        let rounds = subjects.values().map(|s| s.candidates.len()).max().unwrap_or(0);
        for round in 1..rounds {
            progress(round - 1, rounds);
            let left = time.saturating_sub(start.elapsed());
            // A stage has one round at least.
            if left.is_zero() && round > 1 {
                info!("tuning: the time is over after {} rounds of {}", round - 1, rounds - 1);
                break;
            }
            let of_round = |s: &Subject| Some(round).filter(|&which| which < s.candidates.len());
            // One part of the time is for the last round.
            for (signature, ours, theirs) in self.compare(subjects, of_round, left / (rounds - round + 1) as u32)? {
                let Some(subject) = subjects.get_mut(&signature) else { continue };
                let ratio = theirs as f64 / ours as f64;
                subject.default_ns = ours;
                if ratio <= 1.0 - GAIN && ratio < subject.best.0 {
                    subject.best = (ratio, round);
                }
            }
        }
        let winner = |s: &Subject| Some(s.best.1).filter(|&which| which > 0);
        if subjects.values().any(|s| winner(s).is_some()) {
            progress(rounds - 1, rounds);
            let left = time.saturating_sub(start.elapsed());
            for (signature, ours, theirs) in self.compare(subjects, winner, left)? {
                let Some(subject) = subjects.get_mut(&signature) else { continue };
                let ratio = theirs as f64 / ours as f64;
                let holds = ratio <= 1.0 - GAIN;
                (subject.best, subject.default_ns) = (if holds { (ratio, subject.best.1) } else { (1.0, 0) }, ours);
            }
        }
        progress(rounds, rounds);
        Ok(())
    }

    /// Each subject for which `which` names a candidate, with its nanoseconds by default and by that candidate.
    fn compare(
        &self,
        subjects: &BTreeMap<String, Subject>,
        which: impl Fn(&Subject) -> Option<usize>,
        time: Duration,
    ) -> Result<Vec<(String, u64, u64)>, Error> {
        let start = Instant::now();
        let mut choices = self.known.clone();
        let mut tried = Vec::new();
        for (signature, subject) in subjects {
            if let Some(which) = which(subject) {
                choices.insert(signature, subject.candidates[which].clone());
                tried.push(signature);
            }
        }
        let variant = Variant::new(self.network, self.target, &choices)?;
        let [default, other] = in_turns([&self.base, &variant], time.saturating_sub(start.elapsed()))?;
        let times = tried.into_iter().filter_map(|signature| {
            let (ours, theirs) = (self.base.time(signature, &default)?, variant.time(signature, &other)?);
            Some((signature.clone(), ours, theirs))
        });
        Ok(times.collect())
    }
}

/// How far something is, as ten characters.
pub(crate) fn bar(done: usize, of: usize) -> String {
    let full = 10 * done / of.max(1);
    format!("[{}{}]", "#".repeat(full), ".".repeat(10usize.saturating_sub(full)))
}
