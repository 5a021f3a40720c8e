//! Differential tests over random graphs: what the optimizer makes computes the same, and every plan passes its checker.
//!
//! Tolerances. Passes that only rename or move (`exact` below) give the same bits. Folding and recognition move roundings;
//! on graphs of continuous operators the results then differ by a few ulp of the largest intermediate, of which a graph of
//! eight operators may amplify some: 1e-3 of the output's range catches every wrong rewrite and no rounding.

use nncc_ir::arbitrary::{Case, Limits, Mix, case};
use nncc_ir::eval::{Precision, evaluate};
use nncc_ir::{Graph, Op, Tensor};
use nncc_passes::{OptLevel, Options, PIPELINE, PassCx, optimize, plan_memory};
use proptest::prelude::*;

fn context(level: OptLevel) -> PassCx {
    PassCx::new(Options { verify: true, level, ..Options::default() })
}

/// The outputs: to be equal, in the graph's own precision; else in f64, so that only what was rounded at compile time shows.
fn run(g: &Graph, inputs: &[Tensor], tolerance: f64) -> Option<Vec<Tensor>> {
    let precision = if tolerance == 0.0 { Precision::Native } else { Precision::F64 };
    evaluate(g, inputs, precision).ok()
}

/// The first difference above `tolerance` of the largest number of the graph's outputs.
fn difference(before: &[Tensor], after: &[Tensor], tolerance: f64) -> Option<String> {
    for (i, (a, b)) in before.iter().zip(after).enumerate() {
        if a.ty() != b.ty() {
            return Some(format!("output {i}: {} has become {}", a.ty(), b.ty()));
        }
        let (x, y) = (a.to_f64(), b.to_f64());
        let range = x.iter().filter(|v| v.is_finite()).fold(1.0f64, |m, v| m.max(v.abs()));
        let wrong = |(p, q): (&f64, &f64)| {
            let same = p == q || (p.is_nan() && q.is_nan()) || (p - q).abs() <= tolerance * range;
            // A number beyond f32 may or may not overflow, depending on when it is rounded.
            !same && (p.is_finite() || q.is_finite()) && p.abs().max(q.abs()) < 1e30
        };
        if let Some(at) = x.iter().zip(&y).position(wrong) {
            return Some(format!("output {i}, element {at}: {} has become {}", x[at], y[at]));
        }
    }
    None
}

/// A context's pipeline up to and with each pass gives an equal graph; says which pass did not.
fn check(c: &Case, level: OptLevel, tolerance: f64) {
    let Some(before) = run(&c.graph, &c.inputs, tolerance) else { return };
    let mut g = c.graph.clone();
    let mut cx = context(level);
    for pass in PIPELINE {
        let earlier = g.to_string();
        cx.run(&mut g, pass).unwrap_or_else(|e| panic!("{e}\n{earlier}"));
        let after = run(&g, &c.inputs, tolerance).unwrap_or_else(|| panic!("{} broke\n{earlier}\n{g}", pass.name));
        if let Some(what) = difference(&before, &after, tolerance) {
            panic!("{}: {what}\nbefore\n{earlier}\nafter\n{g}", pass.name);
        }
    }
    let plan = plan_memory(&g, &mut cx).unwrap_or_else(|e| panic!("{e}\n{g}"));
    assert!(plan.arena_bytes.is_multiple_of(64) && !plan.to_text(&g).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn continuous(choices in proptest::collection::vec(any::<u8>(), 0..120)) {
        check(&case(&choices, &Limits { mix: Mix::Continuous, ..Limits::default() }), OptLevel::O2, 1e-3);
    }

    #[test]
    fn movement(choices in proptest::collection::vec(any::<u8>(), 0..120)) {
        check(&case(&choices, &Limits { mix: Mix::Movement, nodes: 16, ..Limits::default() }), OptLevel::O2, 0.0);
    }

    /// O1 changes no bit, whatever the operators; but for Gemm, whose factors and bias become operators that round.
    #[test]
    fn exact(choices in proptest::collection::vec(any::<u8>(), 0..120)) {
        let c = case(&choices, &Limits::default());
        if !c.graph.node_ids().any(|n| matches!(c.graph.op(n), Op::Gemm(_))) {
            check(&c, OptLevel::O1, 0.0);
        }
    }

    /// Fuel stops anywhere, and the graph is right.
    #[test]
    fn fuel(choices in proptest::collection::vec(any::<u8>(), 0..120), fuel in 0u64..6) {
        let c = case(&choices, &Limits { mix: Mix::Continuous, ..Limits::default() });
        let Some(before) = run(&c.graph, &c.inputs, 1e-3) else { return Ok(()) };
        let mut g = c.graph.clone();
        let mut cx = context(OptLevel::O2);
        cx.options.fuel = Some(fuel);
        optimize(&mut g, &mut cx).unwrap();
        let after = run(&g, &c.inputs, 1e-3).unwrap();
        prop_assert_eq!(difference(&before, &after, 1e-3), None);
    }
}
