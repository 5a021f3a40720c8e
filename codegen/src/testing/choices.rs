//! The property that every way of computing a step has: it is what the step's own way computes.

use super::{Interpreted, Run, Tolerance, compare, targets};
use crate::lower::{Algorithms, Separate, SetSource, lower_any_layout};
use crate::target::Target;
use crate::tunable::{Choice, Tunable};
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::{Graph, Tensor};

/// What [`check_choices`] expects of other ways of computing a graph.
#[derive(Clone, Copy, Debug)]
pub enum Same<'t> {
    /// The bits that the templates' own choices give.
    Bits,
    /// The reference's results within this.
    Within(&'t Tolerance),
}

/// Checks on all targets that each way that `others` names for a step is followed, or comes to the one in force, and computes the
/// same. Says how many were followed.
#[track_caller]
pub fn check_choices(
    graph: &Graph,
    inputs: &[Tensor],
    same: Same<'_>,
    algorithms: &Algorithms,
    others: &dyn Fn(&Tunable, &Target) -> Vec<Choice>,
) -> usize {
    let plan = Separate::plan(graph).expect("a graph that can be planned");
    let set = SetSource { graph, plan: &plan };
    let mut followed = 0;
    for target in targets() {
        let only = std::slice::from_ref(&target);
        let lowered = |algorithms: &Algorithms| {
            lower_any_layout(&graph.name, &[set], only, algorithms).unwrap_or_else(|e| panic!("{e}"))
        };
        let default = lowered(algorithms);
        let (want, exact) = match same {
            Same::Within(_) => (evaluate(graph, inputs, Precision::Native).expect("the reference evaluates"), None),
            Same::Bits => {
                let run = Run { graph, plan: &plan, program: &default, target: &target };
                (run.run(inputs, &mut Interpreted), Some(Tolerance::Exact))
            }
        };
        let tolerance = match same {
            Same::Within(tolerance) => tolerance,
            Same::Bits => exact.as_ref().expect("bits are compared"),
        };
        let mut seen = Vec::new();
        for own in default.sets[0].levels[0].steps.iter().filter_map(|step| step.tunable.as_ref()) {
            if seen.contains(&&own.signature) {
                continue;
            }
            seen.push(&own.signature);
            for choice in others(own, &target) {
                let choices = [(own.signature.clone(), choice.clone())].into_iter().collect();
                let algorithms = algorithms.clone().with_choices(choices);
                let program = lowered(&algorithms);
                let steps = program.sets[0].levels[0].steps.iter().filter_map(|step| step.tunable.as_ref());
                let now: Vec<&Choice> = steps.filter(|t| t.signature == own.signature).map(|t| &t.now).collect();
                assert!(!now.is_empty(), "{} is no step any more with {choice}", own.signature);
                followed += usize::from(now.iter().all(|now| **now == choice));
                compare(graph, inputs, &want, tolerance, only, &algorithms);
            }
        }
    }
    followed
}

/// The candidates that a tuner tries besides the one in force.
pub fn tried(own: &Tunable, target: &Target) -> Vec<Choice> {
    let mut candidates = own.candidates(target, 4);
    assert_eq!(candidates.remove(0), own.now, "the first is in force");
    candidates
}
