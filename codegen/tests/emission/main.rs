//! Emission end to end: hand-made programs become libraries, and C and Rust programs use them, on x86-64 and (under qemu)
//! aarch64.

mod files;
mod from_c;
mod from_rust;
mod support;
