//! The `recast` program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    recast::cli::main()
}
