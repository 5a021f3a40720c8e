//! The cost model's prediction as text: a line a step, for `--emit plan`.

use super::Machine;
use crate::program::{LevelPlan, Program};
use std::fmt::Write as _;

/// The predicted time of each step of each plan, on a machine that is supposed and not measured ([`Machine::nominal`]).
pub fn to_text(program: &Program) -> String {
    let mut out = String::new();
    for (s, set) in program.sets.iter().enumerate() {
        for (plan, target) in set.levels.iter().zip(&program.targets) {
            let machine = Machine::nominal(target);
            let times = nanoseconds(plan, &machine);
            let number = if program.sets.len() > 1 { format!(" of shape set {s}") } else { String::new() };
            let _ = writeln!(
                out,
                "steps{number} at {}, predicted for one core of {} GHz: {:.1} us",
                target.level.name(),
                machine.ghz,
                times.iter().sum::<f64>() / 1e3
            );
            for (step, ns) in plan.steps.iter().zip(times) {
                let kernel = &program.kernels[step.kernel.0 as usize].ir.name;
                let choice = step.tunable.as_ref().map_or(String::new(), |tunable| format!("  [{}]", tunable.now));
                let _ = writeln!(out, "  {:>10.1} us  {:<16} {kernel}  {}{choice}", ns / 1e3, step.op, step.name);
            }
        }
    }
    out
}

/// The predicted time of each step of a plan on the supposed machine.
fn nanoseconds(plan: &LevelPlan, machine: &Machine) -> Vec<f64> {
    // Weights of several steps count for each: as in a profile.
    let weights: u64 = plan.steps.iter().map(|step| step.weight_bytes).sum();
    let footprint = plan.arena_bytes as u64 + weights;
    plan.steps.iter().map(|s| machine.nanoseconds(s.cost, s.tasks, s.weight_bytes, footprint)).collect()
}
