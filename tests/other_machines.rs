//! The conformance cases that pass on this machine, on two others under qemu-user: aarch64, and an x86-64 without any
//! extension. The same results at the same tolerances, from libraries that this machine wrote without a toolchain.
//!
//! Needs Debian's qemu-user, gcc and gcc-aarch64-linux-gnu (`.ci/run` installs them).

#[path = "conformance/mod.rs"]
mod suite;

use suite::{Engine, Plan};

fn main() -> std::process::ExitCode {
    suite::main(&Plan { engines: &[Engine::Machine(0), Engine::Machine(1)], unlisted: false })
}
