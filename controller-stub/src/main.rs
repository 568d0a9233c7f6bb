//! The program `amphora-controller`; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    amphora_controller::cli::main()
}
