//! Running the cases of the ONNX backend tests and the import cases, and holding the list of those that pass.
//!
//! `passing.txt` only grows: a listed case that fails is a failure of the test, a passing case that is not listed is
//! reported. Cases run in child processes (this program again), so that one that crashes or hangs costs only itself. The
//! tolerance of a case is its suite's own. Used by two test programs: `conformance`, which runs every case on this
//! machine, and `other_machines`, which runs the listed ones under emulation. Both have no harness: each case counts as
//! a test in the closing line, and a case that is neither listed nor passing as ignored.

mod cases;
#[path = "../support/close.rs"]
mod close;
mod engine;
#[path = "../support/machine.rs"]
mod machine;
mod report;
mod worker;

use cases::Case;
pub use engine::Engine;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use worker::Outcome;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What a test program runs.
pub struct Plan {
    /// By what, one after the other.
    pub engines: &'static [Engine],
    /// Whether cases that `passing.txt` does not list are run too, and the list can be written anew.
    pub unlisted: bool,
}

/// The test program: its arguments are words, of which a case's name must contain one; flags of cargo's are ignored.
pub fn main(plan: &Plan) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(engine) = args.iter().find_map(|a| a.strip_prefix(worker::FLAG)) {
        worker::serve(Engine::named(engine));
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|a| a == "--list") {
        println!("cases: test");
        return ExitCode::SUCCESS;
    }
    let words: Vec<&str> = args.iter().map(String::as_str).filter(|a| !a.starts_with('-')).collect();
    let all = match cases::all() {
        Ok(all) => all,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let mut good = true;
    for &engine in plan.engines {
        good &= run(engine, plan, &all, &words);
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one engine over the cases; whether every listed case passed.
fn run(engine: Engine, plan: &Plan, all: &[Case], words: &[&str]) -> bool {
    let start = Instant::now();
    let path = root().join("tests/conformance/passing.txt");
    let listed: BTreeSet<String> =
        std::fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_string).collect();
    // Emulation runs the operators' cases. The light models are whole classifiers, minutes each under it; `networks.rs`
    // runs whole networks there.
    let due = |c: &Case| plan.unlisted || (listed.contains(&c.name) && !c.name.starts_with("light/"));
    let wanted = |c: &&Case| due(c) && (words.is_empty() || words.iter().any(|w| c.name.contains(w)));
    let chosen: Vec<&Case> = all.iter().filter(wanted).collect();
    println!("\nrunning {} cases, {}", chosen.len(), engine.name());
    let outcomes = worker::run_all(engine, &chosen);

    let passed: BTreeSet<String> = outcomes.iter().filter(|o| o.result.is_ok()).map(|o| o.name.clone()).collect();
    let broken: Vec<&Outcome> = outcomes.iter().filter(|o| o.result.is_err() && listed.contains(&o.name)).collect();
    let unknown: Vec<&String> = listed.iter().filter(|name| !all.iter().any(|c| c.name == **name)).collect();

    report::write(&root().join(format!("target/conformance-{}.txt", engine.name())), &chosen, &outcomes);
    if !words.is_empty() {
        for outcome in &outcomes {
            println!("{}: {}", outcome.name, outcome.result.as_ref().err().map_or("ok", String::as_str));
        }
    } else if plan.unlisted {
        report::print_table(&chosen, &outcomes);
    }
    if plan.unlisted && words.is_empty() {
        if std::env::var_os("NNCC_BLESS").is_some() {
            let text: String = passed.iter().map(|name| format!("{name}\n")).collect();
            std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            println!("wrote {} names to {}", passed.len(), path.display());
            return true;
        }
        let new: Vec<&String> = passed.difference(&listed).collect();
        if let Some(first) = new.first() {
            println!(
                "{} cases pass that {} does not list, such as {first}; NNCC_BLESS=1 adds them",
                new.len(),
                path.display()
            );
        }
    }
    for outcome in &broken {
        println!("FAILED {}: {}", outcome.name, outcome.result.as_ref().err().map_or("", String::as_str));
    }
    for name in &unknown {
        println!("FAILED {name}: listed in passing.txt, but there is no such case");
    }
    let failed = broken.len() + unknown.len();
    println!(
        "\ntest result: {}. {} passed; {failed} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        passed.len(),
        outcomes.len() - passed.len() - broken.len(),
        all.len() - chosen.len(),
        start.elapsed().as_secs_f64()
    );
    failed == 0
}
