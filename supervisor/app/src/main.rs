//! The binary: parse, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    sessionkeep::cli::main(std::env::args_os())
}
