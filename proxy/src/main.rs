//! `amphora-proxy`: the data plane of one amphora.

mod check;
mod cli;
mod run;

use std::{io, process::ExitCode};

use clap::Parser;

fn main() -> ExitCode {
    let options = cli::Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(options.log_level)
        .init();
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
