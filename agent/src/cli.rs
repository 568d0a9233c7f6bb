//! The command line.

use std::path::PathBuf;

use amphora_logging::LogFormat;
use clap::Parser;

/// The REST agent of an amphora: takes a load balancer's configuration, makes the proxy run it, reports its status,
/// and sends heartbeats.
///
/// SIGTERM finishes the requests under way and exits; SIGHUP reads the certificates and the section health_manager again.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    /// A file to read; docs/agent.md describes every option. May be given repeatedly: what is said later counts.
    ///
    /// Without it Octavia's is read first, /etc/octavia/amphora-agent.conf.
    #[arg(long, value_name = "FILE")]
    pub(crate) config_file: Vec<PathBuf>,
    /// A directory whose *.conf are read, in the order of their names. May be given repeatedly.
    #[arg(long, value_name = "DIR")]
    pub(crate) config_dir: Vec<PathBuf>,
    /// Start the proxy as well and keep it running, for containers and hosts without systemd.
    #[arg(long)]
    pub(crate) supervise: bool,
    /// Lines of the log to read, or a JSON object each: text, json. AMPHORA_LOG_FORMAT says it for all programs; else text.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}
