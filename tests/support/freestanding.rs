//! Running a freestanding model in a program without libc: it starts at `_start` and ends by a system call, `start.h`.

use super::machine::{Folder, Machine};
use nncc::{Compiled, OutputKind};
use std::path::Path;
use std::process::Command;

/// Builds the C program `source` (a path from the project's root) with an object of the model, runs it on `machine`, and gives
/// its exit code. The model's header is `NAME.h`. `defines` are the program's, `NAME=value` with strings in quotes; `files` are
/// what it includes, by name.
pub fn run(
    machine: &Machine,
    (source, name): (&str, &str),
    compiled: &Compiled,
    defines: &[String],
    files: &[(&str, Vec<u8>)],
) -> Result<i32, String> {
    let folder = Folder::new()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (object, program) = (folder.file(&format!("{name}.o")), folder.file("program"));
    compiled.write_with_header(&object, OutputKind::Object).map_err(|e| format!("emit: {e}"))?;
    for (name, bytes) in files {
        std::fs::write(folder.file(name), bytes).map_err(|e| format!("{name}: {e}"))?;
    }
    let built = Command::new(machine.gcc)
        .current_dir(folder.file(""))
        .args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-I."])
        .args(["-ffreestanding", "-fno-builtin", "-fno-stack-protector", "-nostdlib", "-static", "-o"])
        .arg(&program)
        .args(defines.iter().map(|define| format!("-D{define}")))
        .arg(format!("-DSTART=\"{}\"", root.join("codegen/tests/emission/start.h").display()))
        .arg(root.join(source))
        .arg(&object)
        .output()
        .map_err(|e| format!("{} (Debian's gcc, gcc-aarch64-linux-gnu): {e}", machine.gcc))?;
    if !built.status.success() {
        return Err(format!("the program does not link: {}", String::from_utf8_lossy(&built.stderr)));
    }
    let ended = Command::new(machine.emulator[0]).args(&machine.emulator[1..]).arg(&program).status();
    let ended = ended.map_err(|e| format!("{} (Debian's qemu-user): {e}", machine.emulator[0]))?;
    ended.code().ok_or_else(|| format!("the program ended by {ended}"))
}
