//! The agent's configuration: Octavia's `amphora-agent.conf`, and the section `[amphora]` for what Octavia has no
//! word for, in that file or in others ([`Sources`]). `docs/agent.md` describes every option.
//!
//! In Octavia's own sections unknown options are ignored with a warning, because the controller's template may be older
//! or newer than the amphora; in `[amphora]` they are errors.

mod remarks;

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use tracing::level_filters::LevelFilter;

use crate::{octavia::html, tls::Files};
pub use amphora_ini::{
    ConfigError,
    sources::{Source, Sources},
};
use amphora_ini::{
    dialect::Ini,
    reader::{Reader, boolean, bounded, error, parse, path, seconds},
};

/// Read where no `--config-file` is given: where Octavia puts its file.
pub const DEFAULT_FILE: &str = "/etc/octavia/amphora-agent.conf";

/// The section that is not Octavia's.
const OWN: &str = "amphora";

/// The most that `max_body_size` may be: the proxy reads no larger document.
const MAX_BODY_SIZE: usize = 16 << 20;

/// Every option of [`OWN`].
const OWN_OPTIONS: &[&str] = &[
    "proxy_cmd",
    "run_dir",
    "control_socket",
    "vrrp_cmd",
    "vrrp_control_socket",
    "vrrp_fitness_interval",
    "network_namespace",
    "peers_file",
    "log_socket",
    "proxy_workers",
    "proxy_user",
    "vrrp_user",
    "drain_timeout",
    "proxy_timeout",
    "max_connections",
    "max_body_size",
];

/// Defaults that a `$name` may refer to although no file sets them.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("haproxy_amphora", "base_path", "/var/lib/octavia"),
    ("haproxy_amphora", "bind_host", "::"),
    ("haproxy_amphora", "bind_port", "9443"),
    ("health_manager", "controller_ip_port_list", ""),
    ("health_manager", "heartbeat_interval", "10"),
    ("amphora_agent", "agent_server_ca", "/etc/octavia/certs/client_ca.pem"),
    ("amphora_agent", "agent_server_cert", "/etc/octavia/certs/server.pem"),
    ("amphora_agent", "agent_request_read_timeout", "180"),
    ("amphora_agent", "agent_tls_protocol", "TLSv1.2"),
    ("controller_worker", "loadbalancer_topology", "SINGLE"),
    ("DEFAULT", "debug", "false"),
    (OWN, "run_dir", "/run/amphora"),
    (OWN, "control_socket", "$run_dir/proxy.sock"),
    (OWN, "vrrp_control_socket", "$run_dir/vrrp.sock"),
    (OWN, "vrrp_fitness_interval", "25"),
    (OWN, "proxy_workers", "0"),
    (OWN, "drain_timeout", "10"),
    (OWN, "proxy_timeout", "20"),
    (OWN, "max_connections", "64"),
    (OWN, "max_body_size", "8388608"),
];

/// All that the agent is told by its files.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[DEFAULT] debug`: log at debug level.
    pub debug: bool,
    /// `[haproxy_amphora] base_path`: where documents and counters are kept.
    pub base_path: PathBuf,
    /// `[haproxy_amphora] bind_host` and `bind_port`.
    pub bind: SocketAddr,
    /// `[amphora_agent] agent_server_ca`: PEM of the authorities that sign controllers' certificates.
    pub agent_server_ca: PathBuf,
    /// `[amphora_agent] agent_server_cert`: PEM with the agent's own key and certificate chain.
    pub agent_server_cert: PathBuf,
    /// `[amphora_agent] agent_client_crl`: the revocation lists of those authorities; `None` asks for none.
    pub agent_client_crl: Option<PathBuf>,
    /// `[amphora_agent] agent_request_read_timeout`: a request's body is read within this.
    pub request_read_timeout: Duration,
    /// `[amphora_agent] agent_tls_protocol`: the least version.
    pub tls_protocol: TlsProtocol,
    /// `[amphora_agent] amphora_id`.
    pub amphora_id: String,
    /// `[controller_worker] loadbalancer_topology`.
    pub topology: Topology,
    /// `[health_manager]`.
    pub heartbeat: HeartbeatConfig,
    /// `[amphora] proxy_cmd`: the program that `--supervise` starts; `None` is `amphora-proxy` beside the agent's
    /// own file.
    pub proxy_cmd: Option<PathBuf>,
    /// `[amphora] run_dir`: sockets and locks.
    pub run_dir: PathBuf,
    /// `[amphora] control_socket`: the proxy's.
    pub control_socket: PathBuf,
    /// `[amphora] vrrp_cmd`: the program that `--supervise` starts for a pair; `None` is `amphora-vrrp` beside the
    /// agent's own file.
    pub vrrp_cmd: Option<PathBuf>,
    /// `[amphora] vrrp_control_socket`: the VRRP daemon's.
    pub vrrp_control_socket: PathBuf,
    /// `[amphora] vrrp_fitness_interval`: how often a supervised VRRP daemon asks whether the proxy is fit.
    pub vrrp_fitness_interval: Duration,
    /// `[amphora] network_namespace`: the named namespace that supervised programs run in, and that interfaces are
    /// plugged into.
    pub network_namespace: Option<String>,
    /// `[amphora] peers_file`: a file of the operator's that says which the other amphora of a pair is; without, requests
    /// say it.
    pub peers_file: Option<PathBuf>,
    /// `[amphora] log_socket`: where a supervised proxy sends flow logs; `None` leaves it to the proxy.
    pub log_socket: Option<PathBuf>,
    /// `[amphora] proxy_workers`: worker threads of a supervised proxy; `None` lets it count the cores.
    pub proxy_workers: Option<usize>,
    /// `[amphora] proxy_user`: whom a supervised proxy runs as; `None` leaves the choice to
    /// [`Users`](crate::supervise::Users).
    pub proxy_user: Option<String>,
    /// `[amphora] vrrp_user`: the same for a supervised VRRP daemon.
    pub vrrp_user: Option<String>,
    /// `[amphora] drain_timeout`: how long stopping waits for requests under way, and then for the proxy.
    pub drain_timeout: Duration,
    /// `[amphora] proxy_timeout`: how long the proxy may take for a change.
    pub proxy_timeout: Duration,
    /// `[amphora] max_connections`: REST requests that are carried out at a time.
    pub max_connections: usize,
    /// `[amphora] max_body_size`: bytes of a request's body.
    pub max_body_size: usize,
    /// What is ignored, or taken but odd: for the log.
    pub remarks: Vec<String>,
}

/// `[health_manager]`, which may change while the agent runs.
#[derive(Clone, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// `controller_ip_port_list`; without one no heartbeat is sent.
    pub controllers: Vec<SocketAddr>,
    /// `heartbeat_interval`, at least a second.
    pub interval: Duration,
    /// `heartbeat_key`; present when there is a controller.
    pub key: String,
}

impl fmt::Debug for HeartbeatConfig {
    /// Leaves the key out: it is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeartbeatConfig")
            .field("controllers", &self.controllers)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// `agent_tls_protocol`. Octavia's older values mean "at least", which TLS 1.2 satisfies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsProtocol {
    /// TLS 1.2 and 1.3.
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

/// `loadbalancer_topology`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One amphora.
    Single,
    /// A pair.
    ActiveStandby,
}

impl Topology {
    /// Octavia's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Single => "SINGLE",
            Self::ActiveStandby => "ACTIVE_STANDBY",
        }
    }
}

impl Config {
    /// Reads files.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::of(&sources.read()?)
    }

    /// Reads the files as if the controller's had this text.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn load_with(sources: &Sources, text: &str) -> Result<Self, ConfigError> {
        Self::of(&sources.read_with(Some(text))?)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::of(&Ini::parse(text).map_err(ConfigError::Syntax)?)
    }

    fn of(ini: &Ini) -> Result<Self, ConfigError> {
        if let Some(unknown) =
            ini.assignments().iter().find(|a| a.section == OWN && !OWN_OPTIONS.contains(&a.name.as_str()))
        {
            let place = Some(unknown.place.clone());
            return Err(error(OWN, &unknown.name, place, "no such option".to_owned()));
        }
        let read = Reader { ini, defaults: DEFAULTS };
        let host: IpAddr = read.required("haproxy_amphora", "bind_host", parse)?;
        let port: u16 = read.required("haproxy_amphora", "bind_port", parse)?;
        Ok(Self {
            debug: read.required("DEFAULT", "debug", boolean)?,
            base_path: read.required("haproxy_amphora", "base_path", path)?,
            bind: SocketAddr::new(host, port),
            agent_server_ca: read.required("amphora_agent", "agent_server_ca", path)?,
            agent_server_cert: read.required("amphora_agent", "agent_server_cert", path)?,
            agent_client_crl: read.optional("amphora_agent", "agent_client_crl", path)?,
            request_read_timeout: read.required("amphora_agent", "agent_request_read_timeout", seconds(1))?,
            tls_protocol: read.required("amphora_agent", "agent_tls_protocol", tls_protocol)?,
            amphora_id: read.required("amphora_agent", "amphora_id", identifier)?,
            topology: read.required("controller_worker", "loadbalancer_topology", topology)?,
            heartbeat: heartbeat(&read)?,
            proxy_cmd: read.optional(OWN, "proxy_cmd", path)?,
            run_dir: read.required(OWN, "run_dir", path)?,
            control_socket: read.required(OWN, "control_socket", path)?,
            vrrp_cmd: read.optional(OWN, "vrrp_cmd", path)?,
            vrrp_control_socket: read.required(OWN, "vrrp_control_socket", path)?,
            vrrp_fitness_interval: read
                .required(OWN, "vrrp_fitness_interval", bounded(10, 60_000))
                .map(Duration::from_millis)?,
            network_namespace: read.optional(OWN, "network_namespace", namespace)?,
            peers_file: read.optional(OWN, "peers_file", path)?,
            log_socket: read.optional(OWN, "log_socket", path)?,
            proxy_workers: read
                .optional(OWN, "proxy_workers", bounded(0, 256))?
                .filter(|&workers: &usize| workers > 0),
            proxy_user: read.optional(OWN, "proxy_user", user)?,
            vrrp_user: read.optional(OWN, "vrrp_user", user)?,
            drain_timeout: read.required(OWN, "drain_timeout", seconds(0))?,
            proxy_timeout: read.required(OWN, "proxy_timeout", seconds(1))?,
            max_connections: read.required(OWN, "max_connections", bounded(1, 10_000))?,
            max_body_size: read.required(OWN, "max_body_size", bounded(1024, MAX_BODY_SIZE))?,
            remarks: remarks::of(ini),
        })
    }

    /// The least level of lines of the agent's log.
    pub fn log_level(&self) -> LevelFilter {
        if self.debug { LevelFilter::DEBUG } else { LevelFilter::INFO }
    }

    /// Where the certificates are.
    pub fn certificates(&self) -> Files {
        Files {
            ca: self.agent_server_ca.clone(),
            cert: self.agent_server_cert.clone(),
            crl: self.agent_client_crl.clone(),
        }
    }
}

fn heartbeat(read: &Reader<'_>) -> Result<HeartbeatConfig, ConfigError> {
    const SECTION: &str = "health_manager";
    let controllers: Vec<SocketAddr> = read.required(SECTION, "controller_ip_port_list", controllers)?;
    // Octavia's template writes it as HTML.
    let key = |text: &str| Ok(html::unescaped(text).map_or_else(|| text.to_owned(), Cow::into_owned));
    let key = read.optional(SECTION, "heartbeat_key", key)?;
    if !controllers.is_empty() && key.is_none() {
        let place = read.place(SECTION, "controller_ip_port_list");
        return Err(error(
            SECTION,
            "heartbeat_key",
            place,
            "must be set when controller_ip_port_list is".to_owned(),
        ));
    }
    Ok(HeartbeatConfig {
        controllers,
        interval: read.required(SECTION, "heartbeat_interval", seconds(1))?,
        key: key.unwrap_or_default(),
    })
}

fn identifier(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 {
        Err("must have 1 to 255 characters".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// The name of a namespace under `/run/netns`.
fn namespace(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.starts_with(['.', '-']) || !text.chars().all(plain) {
        return Err(format!("not the name of a network namespace: {text:?}"));
    }
    Ok(text.to_owned())
}

/// The name of a user; whether there is one is found out at the start.
fn user(text: &str) -> Result<String, String> {
    if text.starts_with('-') || text.contains(|c: char| c.is_whitespace() || c == ':' || c.is_control()) {
        return Err(format!("not the name of a user: {text:?}"));
    }
    Ok(text.to_owned())
}

fn tls_protocol(text: &str) -> Result<TlsProtocol, String> {
    match text {
        "SSLv3" | "TLSv1" | "TLSv1.1" | "TLSv1.2" => Ok(TlsProtocol::Tls12),
        "TLSv1.3" => Ok(TlsProtocol::Tls13),
        _ => Err(format!("not one of SSLv3, TLSv1, TLSv1.1, TLSv1.2, TLSv1.3: {text:?}")),
    }
}

fn topology(text: &str) -> Result<Topology, String> {
    match text {
        "SINGLE" => Ok(Topology::Single),
        "ACTIVE_STANDBY" => Ok(Topology::ActiveStandby),
        _ => Err(format!("not one of SINGLE, ACTIVE_STANDBY: {text:?}")),
    }
}

/// oslo's list: commas, white space around elements dropped, commas at the end ignored.
fn controllers(text: &str) -> Result<Vec<SocketAddr>, String> {
    let text = text.trim().trim_end_matches(',');
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(|element| controller(element.trim())).collect()
}

/// `ip:port`, split at the last colon as Octavia does; IPv6 in brackets or bare, a zone by name or number.
fn controller(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("not an address and port: {text:?}");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().ok().filter(|&port| port > 0).ok_or_else(wrong)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let Some((host, zone)) = host.split_once('%') else {
        return Ok(SocketAddr::new(host.parse().map_err(|_| wrong())?, port));
    };
    let zone = match zone.parse() {
        Ok(number) => number,
        Err(_) => nix::net::if_::if_nametoindex(zone).map_err(|e| format!("interface {zone:?}: {e}"))?,
    };
    let host = host.parse().map_err(|_| wrong())?;
    Ok(std::net::SocketAddrV6::new(host, port, 0, zone).into())
}

#[cfg(test)]
mod tests;
