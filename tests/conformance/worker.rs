//! Running cases in child processes: a crash or a hang of one case is that case's failure and nobody else's.
//!
//! The parent sends a case's name on a line, the child answers with one line, `ok` or the reason. A child that ends
//! (crash) or does not answer in time (hang) is replaced.

use super::cases::{self, Case};
use super::engine::Engine;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// The argument that makes this program a worker, with the engine's name behind it.
pub const FLAG: &str = "--conformance-worker=";

/// How long a case may take: the slowest needs seconds, also where two workers share one core with a debug build.
const LIMIT: Duration = Duration::from_secs(120);

/// What became of a case.
pub struct Outcome {
    /// The case's name.
    pub name: String,
    /// The reason if it failed, on one line.
    pub result: Result<(), String>,
}

/// Runs the cases on as many workers as there are cores; outcomes in the order of the cases.
pub fn run_all(engine: Engine, cases: &[&Case]) -> Vec<Outcome> {
    let next = Mutex::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut worker: Option<Worker> = None;
                loop {
                    let index = {
                        let mut next = next.lock().expect("no thread panics while it holds the lock");
                        *next += 1;
                        *next - 1
                    };
                    let Some(case) = cases.get(index) else { break };
                    let result = match &case.why {
                        Some(why) => Err(format!("not run: {why}")),
                        None => ask(&mut worker, engine, &case.name),
                    };
                    let outcome = Outcome { name: case.name.clone(), result };
                    outcomes.lock().expect("no thread panics while it holds the lock").push((index, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("all threads have ended");
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

struct Worker {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
}

impl Worker {
    fn start(engine: Engine) -> std::io::Result<Worker> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(format!("{FLAG}{}", engine.name()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()) // panic messages come back as answers
            .spawn()?;
        let (requests, output) = match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(output)) => (requests, output),
            _ => return Err(std::io::Error::other("a worker without pipes")),
        };
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(answer) = line.strip_prefix(ANSWER)
                    && sender.send(answer.to_string()).is_err()
                {
                    break;
                }
            }
        });
        Ok(Worker { child, requests, answers })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // a worker that has ended already cannot be killed, and needs not be
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Marks an answer among whatever else a case may print.
const ANSWER: &str = "answer: ";

/// Has the worker run one case, starting one if there is none; leaves `None` behind if the worker did not survive it.
fn ask(slot: &mut Option<Worker>, engine: Engine, name: &str) -> Result<(), String> {
    let mut worker = match slot.take() {
        Some(worker) => worker,
        None => Worker::start(engine).map_err(|e| format!("no worker: {e}"))?,
    };
    let sent = writeln!(worker.requests, "{name}").and_then(|()| worker.requests.flush());
    if let Err(e) = sent {
        return Err(format!("the worker takes no request: {e}"));
    }
    match worker.answers.recv_timeout(LIMIT) {
        Ok(answer) => {
            *slot = Some(worker);
            if answer == "ok" { Ok(()) } else { Err(answer) }
        }
        Err(RecvTimeoutError::Timeout) => Err(format!("hang: no answer in {} s", LIMIT.as_secs())),
        Err(RecvTimeoutError::Disconnected) => {
            let status = worker.child.wait().map_or("unknown".to_string(), |s| s.to_string());
            Err(format!("crash: {status}"))
        }
    }
}

/// The child's side: answers each line of standard input until it ends.
pub fn serve(engine: Engine) {
    std::panic::set_hook(Box::new(|_| {}));
    let cases: HashMap<String, Case> =
        cases::all().unwrap_or_default().into_iter().map(|c| (c.name.clone(), c)).collect();
    for name in std::io::stdin().lines().map_while(Result::ok) {
        let result = match cases.get(&name) {
            None => Err("no such case".to_string()),
            Some(case) => catch_unwind(AssertUnwindSafe(|| engine.check(case))).unwrap_or_else(|payload| {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()));
                Err(format!("panic: {}", text.unwrap_or_default()))
            }),
        };
        let answer = result.err().map_or("ok".to_string(), |e| e.replace('\n', " | "));
        println!("{ANSWER}{answer}");
    }
}
