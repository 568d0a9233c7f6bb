//! `amphora-agent`: see `docs/agent.md`.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use amphora_agent::{config::Config, run::run};
use amphora_logging::{Log, Style};
use clap::Parser;
use tracing::level_filters::LevelFilter;

/// The REST agent of an amphora: takes a load balancer's configuration, makes the proxy run it, reports its status,
/// and sends heartbeats.
///
/// SIGTERM finishes the requests under way and exits; SIGHUP reads the certificates and [health_manager] again.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Octavia's amphora-agent.conf; docs/agent.md describes every option.
    #[arg(long, value_name = "FILE", default_value = "/etc/octavia/amphora-agent.conf")]
    config_file: PathBuf,
    /// Start the proxy as well and keep it running, for containers and hosts without systemd.
    #[arg(long)]
    supervise: bool,
}

/// Stack of the threads for what blocks: files, and documents to parse.
const BLOCKING_STACK: usize = 1 << 20;

/// How long such a thread waits for more to do.
const BLOCKING_IDLE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config_file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("amphora-agent: {}: {error}", arguments.config_file.display());
            return ExitCode::from(2);
        }
    };
    let _log = log_to_stderr(config.debug);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_stack_size(BLOCKING_STACK)
        .thread_keep_alive(BLOCKING_IDLE)
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::spawn(amphora_logging::tell_of_repeats());
            run(arguments.config_file, config, arguments.supervise).await
        }),
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Without the time when it goes to the journal, which has its own.
fn log_to_stderr(debug: bool) -> Log {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let without_time = std::env::var_os("JOURNAL_STREAM").is_some();
    amphora_logging::to_stderr(level, Style { ansi: std::io::stderr().is_terminal(), without_time })
}
