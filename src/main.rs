//! The `nncc` command: parses its arguments and hands over to one file a subcommand in `cli/`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
