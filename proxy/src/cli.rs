//! The command line.

use std::path::PathBuf;

use amphora_logging::{Levels, LogFormat};
use clap::Parser;

/// The data plane of an amphora: an L4/L7 proxy that carries one OpenStack Octavia load balancer.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Options {
    /// Judge a load-balancer document, `-` from standard input, and end: 0 when it can be honoured, else 1, with the faults on
    /// standard output as the control socket tells them. What depends on the host is not judged.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["state_dir", "load_balancer", "peers_file"])]
    pub(crate) check: Option<PathBuf>,

    /// Directory of certificates, keys and revocation lists, each in a file ID.pem; `certificates` in the directory of
    /// `--state-dir` if absent. With `--check`, what certificates contain is judged only if it is given.
    #[arg(long, value_name = "DIR")]
    pub(crate) certificates: Option<PathBuf>,

    /// Unix socket on which the agent gives load balancers and reads statistics.
    #[arg(long, value_name = "PATH", default_value = "/run/amphora/proxy.sock")]
    pub(crate) control_socket: PathBuf,

    /// Directory of `loadbalancer.json`, which is made live at start; `loadbalancer.previous.json` is
    /// when the former cannot be.
    #[arg(long, value_name = "DIR", conflicts_with = "load_balancer")]
    pub(crate) state_dir: Option<PathBuf>,

    /// A load-balancer document to make live at start; the program ends when it cannot be.
    #[arg(long, value_name = "FILE")]
    pub(crate) load_balancer: Option<PathBuf>,

    /// The other amphora of a pair, with which session persistence is kept alike: `{"peers": {"listen": "ADDRESS:PORT", "peer":
    /// "ADDRESS:PORT", "key": "..."}}`. Read again on SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub(crate) peers_file: Option<PathBuf>,

    /// Datagram socket of syslog, for the flow logs that load balancers ask for.
    #[arg(long, value_name = "PATH", default_value = "/run/rsyslog/octavia/log")]
    pub(crate) log_socket: PathBuf,

    /// Worker threads; as many as there are cores to run on if absent.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,

    /// Memory that the bound on clients follows from, in MiB; what the control group allows or the machine has if absent.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub(crate) memory_limit: Option<u64>,

    /// Network namespace to serve in, by its name under /run/netns. The control socket is not affected.
    #[arg(long, value_name = "NAME")]
    pub(crate) netns: Option<String>,

    /// User to run as once started; CAP_NET_BIND_SERVICE and CAP_NET_RAW are kept.
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// User whose own group may ask on the fitness socket, for a VRRP daemon that runs as another user. It takes root.
    #[arg(long, value_name = "USER")]
    pub(crate) fitness_user: Option<String>,

    /// How long sessions may finish after SIGTERM, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) drain_timeout: u64,

    /// Run as the process that the proxy has datagrams forwarded by; it is asked on standard input.
    #[arg(long, hide = true)]
    pub(crate) forward_datagrams: bool,

    /// Log events of this level and above to standard error: error, warn, info, debug, trace; of one library with `LIBRARY=LEVEL`
    /// behind a comma.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: Levels,

    /// Lines to read, or a JSON object each: text, json. AMPHORA_LOG_FORMAT says it for all programs; else text.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}
