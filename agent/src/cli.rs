//! The command line.

use std::{net::IpAddr, path::PathBuf};

use amphora_logging::LogFormat;
use clap::{Args, Parser, Subcommand};

/// The REST agent of an amphora: takes a load balancer's configuration, makes the proxy run it, reports its status,
/// and sends heartbeats.
///
/// SIGTERM finishes the requests under way and exits; SIGHUP reads the certificates and the section health_manager again.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    /// Without one: the agent.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
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

/// What there is besides the agent itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the load balancer that a haproxy.cfg of Octavia's means, as a document of the API /2.0.
    ///
    /// Remarks on what has no effect go to standard error. A text that would be refused is told with its line, and the exit status is 1.
    Translate(Translate),
}

/// The arguments of `translate`.
#[derive(Debug, Args)]
pub(crate) struct Translate {
    /// The text; - is standard input.
    pub(crate) file: PathBuf,
    /// The directory of the certificates and crt-lists that the text names. Without it they are taken to be there, and each crt-list to name
    /// one certificate.
    #[arg(long, value_name = "DIR")]
    pub(crate) certificates: Option<PathBuf>,
    /// An address of the load balancer, for a text without a listener. May be given repeatedly.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) vip: Vec<IpAddr>,
}
