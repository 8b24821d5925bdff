//! The `weir` command: arguments to a configuration to a run; exit code 0 done, 1 failed, 2 wrong usage or config.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir::cli::main()
}
