//! `amphora-proxy`: the data plane of one amphora.

mod check;
mod cli;
mod run;

use std::{io, process::ExitCode};

use amphora_logging::Style;
use clap::Parser;

fn main() -> ExitCode {
    let options = cli::Options::parse();
    let _log = amphora_logging::to_stderr(options.log_level, Style::default());
    if let Some(file) = &options.check {
        return check::check(file, io::stdout().lock());
    }
    match run::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
