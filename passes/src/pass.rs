//! What a pass is, and the context that runs passes: timing, verification, fuel, observation, refusals.
//!
//! No pass does any of this for itself. [`PassCx::run`] verifies the graph behind each pass (in debug builds and tests, or
//! on request), so that a broken graph is reported with the pass that broke it; it counts what changed, stops where
//! `--stop-after` says and when the fuel is used up, and shows the graph to an observer (`--emit graph`, `--time-passes`).

use crate::rewrite::Refusal;
use nncc_ir::{Graph, TypeError};
use std::time::{Duration, Instant};

/// How much the optimizer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum OptLevel {
    /// Only what code generation needs.
    O0,
    /// Folding and canonicalization: nothing that moves rounding.
    O1,
    /// Everything that is cheap to find: the default.
    #[default]
    O2,
    /// The same with larger search budgets.
    O3,
}

/// One pass: its name in `--stop-after`, reports and tests, the lowest level that runs it, and what it does.
#[derive(Clone, Copy)]
pub struct Pass {
    /// Kebab case, the file's stem.
    pub name: &'static str,
    /// The lowest level that runs it.
    pub level: OptLevel,
    /// What it does. Returns the number of changes.
    pub run: fn(&mut Graph, &mut PassCx) -> Result<usize, PassError>,
}

/// A pass that could not do its work. All but [`PassError::UnknownSize`] and [`PassError::TooLarge`] are bugs of nncc: no model
/// causes one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassError {
    /// The verifier found the graph broken after a pass.
    #[error("bug in nncc: pass `{pass}` broke the graph: {what}")]
    Broken {
        /// The pass.
        pass: &'static str,
        /// The verifier's report.
        what: String,
    },
    /// A rewrite built an operator that its operands do not fit, or a value of another type than the one it replaces.
    #[error("bug in nncc: rewrite `{rule}` at \"{node}\": {what}")]
    BadPatch {
        /// The rewrite.
        rule: &'static str,
        /// The name of the value it replaces.
        node: String,
        /// What does not fit.
        what: String,
    },
    /// The rewrites of a pass undo each other.
    #[error("bug in nncc: pass `{pass}` does not come to rest after {rewrites} rewrites")]
    Endless {
        /// The pass.
        pass: &'static str,
        /// How many rewrites were made.
        rewrites: usize,
    },
    /// A value's size is not known, so no memory can be planned for it.
    #[error("the size of \"{value}\", {ty}, is not known; fix its symbols (--dim NAME=NUMBER)")]
    UnknownSize {
        /// The value's name.
        value: String,
        /// Its type.
        ty: String,
    },
    /// The memory asked for is not enough, even where values are computed again.
    #[error("the step needs an arena of {least} bytes even with what can be computed again, and {limit} are allowed")]
    TooLarge {
        /// The smallest arena that was found.
        least: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// The memory plan is wrong.
    #[error("bug in nncc: plan-memory: {0}")]
    BadPlan(String),
}

impl PassError {
    /// A node that a pass itself builds does not type-check.
    pub(crate) fn bad(rule: &'static str, node: &str, e: TypeError) -> PassError {
        PassError::BadPatch { rule, node: node.to_string(), what: e.0 }
    }
}

/// What can be left out by itself, to see what it is good for. The graph means the same without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Convolutions that read row-major maps of few channels.
    PlanarInputs,
    /// Recognising attention.
    Attention,
    /// Batch normalizations in the weights before them.
    BatchNormFolding,
    /// Elementwise operators in the kernel of the root before them.
    Epilogues,
    /// Those of them that read a tensor of the result's size.
    Residuals,
    /// Elementwise operators in one kernel, without a root.
    ElementwiseFusion,
    /// Operands of a Concat computed where it wants them.
    ConcatInPlace,
}

/// What a run of passes is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// `-O`.
    pub level: OptLevel,
    /// Verify after each pass.
    pub verify: bool,
    /// Stop after that many rewrites: bisecting over it finds the rewrite that miscompiles a model.
    pub fuel: Option<u64>,
    /// The name of the last pass to run.
    pub stop_after: Option<String>,
    /// What is left out.
    pub without: Vec<Part>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            level: OptLevel::default(),
            verify: cfg!(debug_assertions),
            fuel: None,
            stop_after: None,
            without: Vec::new(),
        }
    }
}

/// What one pass did.
#[derive(Clone, Debug, PartialEq)]
pub struct PassReport {
    /// The pass.
    pub pass: &'static str,
    /// How long it took, verification excluded.
    pub time: Duration,
    /// Changes that it counted; 0 means that the graph is as it was.
    pub changes: usize,
    /// Nodes before.
    pub nodes_before: usize,
    /// Nodes after.
    pub nodes_after: usize,
}

/// Called with the name of each pass that has run, whether it changed the graph, and the graph.
pub type Observer = Box<dyn FnMut(&'static str, bool, &Graph)>;

/// The state of a run of passes.
#[derive(Default)]
pub struct PassCx {
    /// What is asked for.
    pub options: Options,
    /// Sees the graph after each pass.
    pub observer: Option<Observer>,
    /// One entry for each pass that ran.
    pub reports: Vec<PassReport>,
    /// Why rewrites whose pattern matched were not made: `--explain`.
    pub refusals: Vec<Refusal>,
    pub(crate) pass: &'static str,
    spent: u64,
    stopped: bool,
}

impl PassCx {
    /// A context with these options.
    pub fn new(options: Options) -> PassCx {
        PassCx { options, ..PassCx::default() }
    }

    /// Runs one pass, unless the level or `--stop-after` excludes it.
    pub fn run(&mut self, g: &mut Graph, pass: &Pass) -> Result<(), PassError> {
        if self.stopped || pass.level > self.options.level {
            return Ok(());
        }
        self.pass = pass.name;
        let (start, nodes_before) = (Instant::now(), g.node_count());
        let changes = (pass.run)(g, self)?;
        let time = start.elapsed();
        tracing::debug!(pass = pass.name, changes, ?time, "pass");
        self.reports.push(PassReport { pass: pass.name, time, changes, nodes_before, nodes_after: g.node_count() });
        if self.options.verify {
            nncc_ir::verify::verify(g).map_err(|e| PassError::Broken { pass: pass.name, what: e.to_string() })?;
        }
        if let Some(observer) = &mut self.observer {
            observer(pass.name, changes > 0, g);
        }
        self.stopped = self.options.stop_after.as_deref() == Some(pass.name);
        Ok(())
    }

    /// Whether a part of the passes is left out.
    pub(crate) fn leaves_out(&self, part: Part) -> bool {
        self.options.without.contains(&part)
    }

    /// Whether one more change may be made; counts it.
    pub(crate) fn spend(&mut self) -> bool {
        let left = self.options.fuel.is_none_or(|fuel| self.spent < fuel);
        self.spent += u64::from(left);
        left
    }

    /// Records why something was not done at `at`.
    pub(crate) fn refuse(&mut self, rule: &'static str, at: &str, why: String) {
        self.refusals.push(Refusal { pass: self.pass, rule, at: at.to_string(), why });
    }
}
