//! `amphora-agent`: see `docs/agent.md`.

mod cli;
mod translate;

use std::{
    ffi::OsString,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use amphora_agent::{
    config::{Config, DEFAULT_FILE, Source, Sources},
    run::run,
};
use amphora_logging::{Log, LogFormat, Style};
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use tracing::level_filters::LevelFilter;

use crate::cli::{Arguments, Command};

/// Stack of the threads for what blocks: files, and documents to parse.
const BLOCKING_STACK: usize = 1 << 20;

/// How long such a thread waits for more to do.
const BLOCKING_IDLE: Duration = Duration::from_secs(1);

impl Arguments {
    /// Which arguments there are, and which files in their order.
    fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<(Self, Sources), clap::Error> {
        let matches = Self::command().try_get_matches_from(arguments)?;
        let mut this = Self::from_arg_matches(&matches)?;
        let mut sources =
            in_order(&matches, "config_file", std::mem::take(&mut this.config_file), Source::File);
        sources.extend(in_order(
            &matches,
            "config_dir",
            std::mem::take(&mut this.config_dir),
            Source::Directory,
        ));
        sources.sort_by_key(|(at, _)| *at);
        Ok((
            this,
            Sources::with_default(
                sources.into_iter().map(|(_, source)| source).collect(),
                Path::new(DEFAULT_FILE),
            ),
        ))
    }
}

/// The values of an option, each with its place on the command line.
fn in_order(
    matches: &ArgMatches,
    id: &str,
    values: Vec<PathBuf>,
    source: fn(PathBuf) -> Source,
) -> Vec<(usize, Source)> {
    matches.indices_of(id).into_iter().flatten().zip(values.into_iter().map(source)).collect()
}

fn main() -> ExitCode {
    let (arguments, sources) = Arguments::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if let Some(Command::Translate(command)) = &arguments.command {
        return translate::run(command);
    }
    let config = match Config::load(&sources) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("amphora-agent: {error}");
            return ExitCode::from(2);
        }
    };
    let _log = log_to_stderr(config.log_level(), LogFormat::chosen(arguments.log_format));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_stack_size(BLOCKING_STACK)
        .thread_keep_alive(BLOCKING_IDLE)
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(async {
            tokio::spawn(amphora_logging::tell_of_repeats());
            run(sources, config, arguments.supervise).await
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
fn log_to_stderr(level: LevelFilter, format: LogFormat) -> Log {
    let without_time = std::env::var_os("JOURNAL_STREAM").is_some();
    amphora_logging::to_stderr(level, Style { format, ansi: std::io::stderr().is_terminal(), without_time })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn sources(arguments: &[&str]) -> Sources {
        let arguments = ["amphora-agent"].iter().chain(arguments).map(OsString::from);
        Arguments::read(arguments).unwrap().1
    }

    #[test]
    fn files_and_directories_keep_their_order() {
        let file = |path: &str| Source::File(path.into());
        let directory = |path: &str| Source::Directory(path.into());
        let octavias = file("/etc/octavia/amphora-agent.conf");
        assert_eq!(sources(&[]), Sources::new(vec![octavias.clone()]));
        assert_eq!(sources(&["--config-dir", "/d"]), Sources::new(vec![octavias, directory("/d")]));
        assert_eq!(
            sources(&[
                "--config-file=/b",
                "--config-dir",
                "/d",
                "--supervise",
                "--config-file",
                "/a",
                "--config-dir=/c"
            ]),
            Sources::new(vec![file("/b"), directory("/d"), file("/a"), directory("/c")])
        );
    }
}
