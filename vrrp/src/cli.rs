//! The command line.

use std::{path::PathBuf, time::Duration};

use amphora_logging::{Levels, LogFormat};
use clap::Parser;

/// VRRP for the addresses of an amphora: versions 2 and 3, together with keepalived.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Options {
    /// keepalived.conf, or the native document as JSON. Read at start and on SIGHUP; if it is not there, the control
    /// socket brings one.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Unix socket on which the agent gives configurations and reads the state.
    #[arg(long, value_name = "PATH", default_value = "/run/amphora/vrrp.sock")]
    pub(crate) control_socket: PathBuf,

    /// Unix socket on which the data plane says whether it is fit.
    #[arg(long, value_name = "PATH", default_value = "/run/amphora/proxy.sock.fitness")]
    pub(crate) fitness_socket: PathBuf,

    /// Time between two questions whether the data plane is fit, in milliseconds. It is taken for hung after as many
    /// unanswered ones as `fall` says.
    #[arg(long, value_name = "MS", default_value_t = 25, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub(crate) fitness_interval: u64,

    /// How long a planned hand-over waits for the data plane's clients to be served, in milliseconds; 0 for not at all.
    /// Meanwhile it lets no new ones in, and the successor serves them.
    #[arg(long, value_name = "MS", default_value_t = 250, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub(crate) drain_limit: u64,

    /// Network namespace to run in, by its name under /run/netns. The sockets above are not affected.
    #[arg(long, value_name = "NAME")]
    pub(crate) netns: Option<String>,

    /// User to run as once started; CAP_NET_RAW and CAP_NET_ADMIN are kept.
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Real-time priority of the protocol's thread; 0 for none.
    #[arg(long, value_name = "PRIORITY", default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=99))]
    pub(crate) realtime_priority: u8,

    /// Log events of this level and above to standard error: error, warn, info, debug, trace; of one library with `LIBRARY=LEVEL`
    /// behind a comma.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: Levels,

    /// Lines to read, or a JSON object each: text, json. AMPHORA_LOG_FORMAT says it for all programs; else text.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

impl Options {
    pub(crate) fn fitness_interval(&self) -> Duration {
        Duration::from_millis(self.fitness_interval)
    }

    pub(crate) fn drain_limit(&self) -> Duration {
        Duration::from_millis(self.drain_limit)
    }
}
