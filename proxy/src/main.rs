//! `amphora-proxy`: the data plane of one amphora.

mod check;
mod cli;
mod run;

use std::{io, process::ExitCode};

use amphora_logging::{LogFormat, Style};
use amphora_proxy::{datagram::helper, memory};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: memory::Allocator = memory::Allocator;

fn main() -> ExitCode {
    memory::prepare();
    let options = cli::Options::parse();
    let _log = amphora_logging::to_stderr(
        options.log_level.clone(),
        Style { format: LogFormat::chosen(options.log_format), ..Style::default() },
    );
    if let Some(file) = &options.check {
        return check::check(file, options.certificates.as_deref(), io::stdout().lock());
    }
    if options.forward_datagrams {
        return match helper::run(options.user.as_deref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(%error, "datagrams cannot be forwarded");
                ExitCode::FAILURE
            }
        };
    }
    match run::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
