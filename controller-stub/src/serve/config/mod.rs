//! What `serve` is told by its files: oslo's dialect, with Octavia's own sections and options where the meaning is the same. `docs/controller.md`
//! describes every option. Each has a default, so that `serve` alone works.

pub mod networks;
#[cfg(test)]
mod tests;
pub mod users;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

pub use amphora_ini::{
    ConfigError,
    sources::{Source, Sources},
};
use amphora_ini::{
    dialect::Ini,
    reader::{Reader, boolean, bounded, error, parse, path, seconds},
};

pub use self::{
    networks::{Network, Subnet},
    users::{Project, User},
};
use super::status::Topology;

/// The ciphers that Octavia gives a listener or a pool that names none (`CIPHERS_OWASP_SUITE_B`).
const CIPHERS: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:\
    ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
    ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:\
    DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305";

/// The default of each option that has one.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("DEFAULT", "debug", "false"),
    ("api_settings", "bind_host", "127.0.0.1"),
    ("api_settings", "bind_port", "9876"),
    ("api_settings", "auth_strategy", "noauth"),
    ("api_settings", "allow_pagination", "true"),
    ("api_settings", "allow_sorting", "true"),
    ("api_settings", "allow_filtering", "true"),
    ("api_settings", "allow_field_selection", "true"),
    ("api_settings", "pagination_max_limit", "1000"),
    ("api_settings", "allow_tls_terminated_listeners", "true"),
    ("api_settings", "allow_ping_health_monitors", "true"),
    ("api_settings", "allow_prometheus_listeners", "true"),
    ("api_settings", "udp_connect_min_interval_health_monitor", "3"),
    ("api_settings", "default_listener_ciphers", CIPHERS),
    ("api_settings", "default_pool_ciphers", CIPHERS),
    ("api_settings", "tls_cipher_prohibit_list", ""),
    ("api_settings", "default_listener_tls_versions", "TLSv1.2, TLSv1.3"),
    ("api_settings", "default_pool_tls_versions", "TLSv1.2, TLSv1.3"),
    ("api_settings", "minimum_tls_version", ""),
    ("api_settings", "default_listener_alpn_protocols", "h2, http/1.1, http/1.0"),
    ("api_settings", "default_pool_alpn_protocols", "h2, http/1.1, http/1.0"),
    ("api_settings", "strict_immutable", "false"),
    ("controller_worker", "loadbalancer_topology", "SINGLE"),
    ("controller_worker", "workers", "8"),
    ("health_manager", "bind_ip", "127.0.0.1"),
    ("health_manager", "bind_port", "5555"),
    ("health_manager", "heartbeat_interval", "3"),
    ("health_manager", "heartbeat_timeout", "12"),
    ("health_manager", "health_check_interval", "1"),
    ("house_keeping", "cert_interval", "3600"),
    ("house_keeping", "cert_expiry_buffer", "1209600"),
    ("certificates", "cert_validity_time", "2592000"),
    ("haproxy_amphora", "timeout_client_data", "50000"),
    ("haproxy_amphora", "timeout_member_connect", "5000"),
    ("haproxy_amphora", "timeout_member_data", "50000"),
    ("haproxy_amphora", "timeout_tcp_inspect", "0"),
    ("haproxy_amphora", "default_connection_limit", "50000"),
    ("compute", "driver", "namespaces"),
    ("compute", "agent_ports", "19443-20442"),
    ("quotas", "default_load_balancer_quota", "-1"),
    ("quotas", "default_listener_quota", "-1"),
    ("quotas", "default_pool_quota", "-1"),
    ("quotas", "default_member_quota", "-1"),
    ("quotas", "default_health_monitor_quota", "-1"),
    ("quotas", "default_l7policy_quota", "-1"),
    ("quotas", "default_l7rule_quota", "-1"),
];

/// Options whose meaning somebody would rely on, and that nothing comes of.
const ABSENT: &[(&str, &str)] = &[
    ("api_settings", "api_base_uri"),
    ("api_settings", "tls1_3_supported_ciphers"),
    ("house_keeping", "spare_amphora_pool_size"),
    ("house_keeping", "amphora_expiry_age"),
    ("house_keeping", "load_balancer_expiry_age"),
    ("networking", "allow_vip_network_id"),
];

/// All that `serve` is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[DEFAULT] debug`: log at debug level.
    pub debug: bool,
    /// `[api_settings]`.
    pub api: ApiSettings,
    /// `[controller_worker]`.
    pub worker: Worker,
    /// `[health_manager]`.
    pub health: HealthManager,
    /// `[house_keeping]`.
    pub house_keeping: HouseKeeping,
    /// `[certificates]`.
    pub certificates: Certificates,
    /// `[haproxy_amphora]`: what listeners have that say nothing.
    pub listener: ListenerDefaults,
    /// `[compute]`.
    pub compute: Compute,
    /// `[networks]`, at least one.
    pub networks: Vec<Network>,
    /// `[quotas]`.
    pub quotas: Quotas,
    /// `[users]`; at least one where the API asks who it is.
    pub users: Vec<User>,
}

/// `[api_settings]`: the API, and what it permits.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiSettings {
    /// `bind_host` and `bind_port`.
    pub bind: SocketAddr,
    /// `auth_strategy`.
    pub auth: AuthStrategy,
    /// `allow_pagination`.
    pub pagination: bool,
    /// `allow_sorting`.
    pub sorting: bool,
    /// `allow_filtering`.
    pub filtering: bool,
    /// `allow_field_selection`.
    pub field_selection: bool,
    /// `pagination_max_limit`: the most objects of one answer.
    pub max_limit: usize,
    /// `allow_tls_terminated_listeners`.
    pub tls_terminated_listeners: bool,
    /// `allow_ping_health_monitors`.
    pub ping_health_monitors: bool,
    /// `allow_prometheus_listeners`.
    pub prometheus_listeners: bool,
    /// `udp_connect_min_interval_health_monitor`: the least `delay` of UDP-CONNECT, in seconds.
    pub udp_connect_min_interval: u32,
    /// `default_listener_ciphers`, in OpenSSL's words.
    pub listener_ciphers: String,
    /// `default_pool_ciphers`.
    pub pool_ciphers: String,
    /// `tls_cipher_prohibit_list`.
    pub prohibited_ciphers: Vec<String>,
    /// `default_listener_tls_versions`.
    pub listener_tls_versions: Vec<String>,
    /// `default_pool_tls_versions`.
    pub pool_tls_versions: Vec<String>,
    /// `minimum_tls_version`.
    pub minimum_tls_version: Option<String>,
    /// `default_listener_alpn_protocols`.
    pub listener_alpn_protocols: Vec<String>,
    /// `default_pool_alpn_protocols`.
    pub pool_alpn_protocols: Vec<String>,
    /// `strict_immutable`: a change of what is PENDING is refused (409), as by Octavia, in place of being folded into the work under way.
    pub strict_immutable: bool,
}

/// `[api_settings] auth_strategy`: how clients say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthStrategy {
    /// By headers that anybody may send: on loopback alone.
    NoAuth,
    /// By a token of the Keystone that `serve` is itself.
    Keystone,
    /// By user and password with each request (RFC 7617).
    HttpBasic,
}

/// `[controller_worker]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// `loadbalancer_topology`: of load balancers whose flavor does not say.
    pub topology: Topology,
    /// `workers`: how many load balancers are worked on at a time.
    pub workers: usize,
}

/// `[health_manager]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthManager {
    /// `bind_ip` and `bind_port`: where heartbeats come to (UDP).
    pub bind: SocketAddr,
    /// `heartbeat_key`; without it one is made at the first start.
    pub key: Option<String>,
    /// `heartbeat_interval` of amphorae.
    pub interval: Duration,
    /// `heartbeat_timeout`: an amphora that was not heard for so long is stale.
    pub timeout: Duration,
    /// `health_check_interval`: how often is looked for stale ones.
    pub check_interval: Duration,
    /// `failover_threshold`: when so many are stale at once, something else is wrong and none is replaced.
    pub failover_threshold: Option<usize>,
}

/// `[house_keeping]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HouseKeeping {
    /// `cert_interval`: how often is looked for certificates that end.
    pub cert_interval: Duration,
    /// `cert_expiry_buffer`: how long before its end a certificate is replaced.
    pub cert_expiry_buffer: Duration,
}

/// `[certificates]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificates {
    /// `ca_certificate` and `ca_private_key`; without them they are made at the first start.
    pub ca: Option<(PathBuf, PathBuf)>,
    /// `cert_validity_time` of what the CA issues.
    pub validity: Duration,
    /// `storage_path`: tenants' certificates, as Octavia's `local_cert_manager` has them; without it `certificates` in the data directory.
    pub storage_path: Option<PathBuf>,
}

/// `[haproxy_amphora]`: what a listener has that says nothing. Milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerDefaults {
    /// `timeout_client_data`.
    pub timeout_client_data: u32,
    /// `timeout_member_connect`.
    pub timeout_member_connect: u32,
    /// `timeout_member_data`.
    pub timeout_member_data: u32,
    /// `timeout_tcp_inspect`.
    pub timeout_tcp_inspect: u32,
    /// `default_connection_limit`: of a listener without a limit of its own.
    pub connection_limit: u32,
}

/// `[compute]`: where amphorae are.
#[derive(Clone, Debug, PartialEq)]
pub struct Compute {
    /// `driver`.
    pub driver: ComputeDriver,
    /// `agent_ports`: of `namespaces`, the ports of agents on this host, first and last.
    pub agent_ports: (u16, u16),
    /// `agent_cmd`, `proxy_cmd`, `vrrp_cmd`: programs of `namespaces`; without them those beside this program.
    pub agent_cmd: Option<PathBuf>,
    /// As above.
    pub proxy_cmd: Option<PathBuf>,
    /// As above.
    pub vrrp_cmd: Option<PathBuf>,
}

/// `[compute] driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComputeDriver {
    /// A network namespace of this host each.
    Namespaces,
    /// A virtual machine each.
    Qemu,
}

impl ComputeDriver {
    /// As in the configuration and in rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Qemu => "qemu",
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn parse(text: &str) -> Result<Self, String> {
        [Self::Namespaces, Self::Qemu]
            .into_iter()
            .find(|driver| driver.as_str() == text)
            .ok_or_else(|| format!("not one of namespaces, qemu: {text:?}"))
    }
}

/// `[quotas]`: of projects that have none of their own. -1 is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// `default_load_balancer_quota`.
    pub load_balancer: i64,
    /// `default_listener_quota`.
    pub listener: i64,
    /// `default_pool_quota`.
    pub pool: i64,
    /// `default_member_quota`.
    pub member: i64,
    /// `default_health_monitor_quota`.
    pub health_monitor: i64,
    /// `default_l7policy_quota`.
    pub l7policy: i64,
    /// `default_l7rule_quota`.
    pub l7rule: i64,
}

impl Config {
    /// Reads files.
    ///
    /// # Errors
    /// The first thing that is wrong with them.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        Self::of(&sources.read()?)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::of(&Ini::parse(text).map_err(ConfigError::Syntax)?)
    }

    fn of(ini: &Ini) -> Result<Self, ConfigError> {
        if let Some((section, name)) = ABSENT.iter().find(|(section, name)| ini.get(section, name).is_some())
        {
            let place = ini.get(section, name).map(|assignment| assignment.place.clone());
            return Err(error(section, name, place, "there is no such thing here yet".to_owned()));
        }
        let read = Reader { ini, defaults: DEFAULTS };
        let (api, users) = (api(&read)?, users::read(&read)?);
        if api.auth != AuthStrategy::NoAuth && users.is_empty() {
            let place = read.place("api_settings", "auth_strategy");
            return Err(error("api_settings", "auth_strategy", place, "needs users in [users]".to_owned()));
        }
        Ok(Self {
            debug: read.required("DEFAULT", "debug", boolean)?,
            api,
            worker: Worker {
                topology: read.required("controller_worker", "loadbalancer_topology", Topology::parse)?,
                workers: read.required("controller_worker", "workers", bounded(1, 1000))?,
            },
            health: health(&read)?,
            house_keeping: HouseKeeping {
                cert_interval: read.required("house_keeping", "cert_interval", seconds(1))?,
                cert_expiry_buffer: read.required("house_keeping", "cert_expiry_buffer", span(0))?,
            },
            certificates: certificates(&read)?,
            listener: ListenerDefaults {
                timeout_client_data: read.required("haproxy_amphora", "timeout_client_data", MILLISECONDS)?,
                timeout_member_connect: read.required(
                    "haproxy_amphora",
                    "timeout_member_connect",
                    MILLISECONDS,
                )?,
                timeout_member_data: read.required("haproxy_amphora", "timeout_member_data", MILLISECONDS)?,
                timeout_tcp_inspect: read.required("haproxy_amphora", "timeout_tcp_inspect", MILLISECONDS)?,
                connection_limit: read.required(
                    "haproxy_amphora",
                    "default_connection_limit",
                    bounded(1, 1_000_000),
                )?,
            },
            compute: Compute {
                driver: read.required("compute", "driver", ComputeDriver::parse)?,
                agent_ports: read.required("compute", "agent_ports", ports)?,
                agent_cmd: read.optional("compute", "agent_cmd", path)?,
                proxy_cmd: read.optional("compute", "proxy_cmd", path)?,
                vrrp_cmd: read.optional("compute", "vrrp_cmd", path)?,
            },
            networks: networks::read(&read)?,
            quotas: quotas(&read)?,
            users,
        })
    }
}

/// Octavia's `MAX_TIMEOUT`: 24 days.
const MAX_TIMEOUT: u32 = 24 * 24 * 60 * 60 * 1000;

const MILLISECONDS: fn(&str) -> Result<u32, String> = |text| bounded(0, MAX_TIMEOUT)(text);

/// Seconds up to 100 years, where a day would not do.
fn span(least: u64) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| bounded(least, 100 * 366 * 86_400)(text).map(Duration::from_secs)
}

fn api(read: &Reader<'_>) -> Result<ApiSettings, ConfigError> {
    const SECTION: &str = "api_settings";
    let switch = |name| read.required(SECTION, name, boolean);
    let words = |name| read.required(SECTION, name, |text| Ok(list(text)));
    let host: IpAddr = read.required(SECTION, "bind_host", parse)?;
    let auth = read.required(SECTION, "auth_strategy", |text| match text {
        "noauth" => Ok(AuthStrategy::NoAuth),
        "keystone" => Ok(AuthStrategy::Keystone),
        "http_basic" => Ok(AuthStrategy::HttpBasic),
        _ => Err(format!("not one of noauth, keystone, http_basic: {text:?}")),
    })?;
    if auth == AuthStrategy::NoAuth && !host.is_loopback() {
        let reason = format!("noauth lets anybody in, so bind_host must be of loopback: {host}");
        return Err(error(SECTION, "auth_strategy", read.place(SECTION, "auth_strategy"), reason));
    }
    Ok(ApiSettings {
        bind: SocketAddr::new(host, read.required(SECTION, "bind_port", parse)?),
        auth,
        pagination: switch("allow_pagination")?,
        sorting: switch("allow_sorting")?,
        filtering: switch("allow_filtering")?,
        field_selection: switch("allow_field_selection")?,
        max_limit: read.required(SECTION, "pagination_max_limit", bounded(1, 100_000))?,
        tls_terminated_listeners: switch("allow_tls_terminated_listeners")?,
        ping_health_monitors: switch("allow_ping_health_monitors")?,
        prometheus_listeners: switch("allow_prometheus_listeners")?,
        udp_connect_min_interval: read.required(
            SECTION,
            "udp_connect_min_interval_health_monitor",
            bounded(1, 3600),
        )?,
        listener_ciphers: read.required(SECTION, "default_listener_ciphers", parse)?,
        pool_ciphers: read.required(SECTION, "default_pool_ciphers", parse)?,
        prohibited_ciphers: read.required(SECTION, "tls_cipher_prohibit_list", |text| {
            Ok(text.split(':').filter(|cipher| !cipher.is_empty()).map(str::to_owned).collect())
        })?,
        listener_tls_versions: words("default_listener_tls_versions")?,
        pool_tls_versions: words("default_pool_tls_versions")?,
        minimum_tls_version: read.optional(SECTION, "minimum_tls_version", parse)?,
        listener_alpn_protocols: words("default_listener_alpn_protocols")?,
        pool_alpn_protocols: words("default_pool_alpn_protocols")?,
        strict_immutable: switch("strict_immutable")?,
    })
}

fn health(read: &Reader<'_>) -> Result<HealthManager, ConfigError> {
    const SECTION: &str = "health_manager";
    let (interval, timeout) = (
        read.required(SECTION, "heartbeat_interval", seconds(1))?,
        read.required(SECTION, "heartbeat_timeout", seconds(2))?,
    );
    if timeout < 2 * interval {
        let reason = "must be twice heartbeat_interval at least: one heartbeat may get lost".to_owned();
        return Err(error(SECTION, "heartbeat_timeout", read.place(SECTION, "heartbeat_timeout"), reason));
    }
    Ok(HealthManager {
        bind: SocketAddr::new(
            read.required(SECTION, "bind_ip", parse)?,
            read.required(SECTION, "bind_port", parse)?,
        ),
        key: read.optional(SECTION, "heartbeat_key", parse)?,
        interval,
        timeout,
        check_interval: read.required(SECTION, "health_check_interval", seconds(1))?,
        failover_threshold: read.optional(SECTION, "failover_threshold", bounded(1, 1_000_000))?,
    })
}

fn certificates(read: &Reader<'_>) -> Result<Certificates, ConfigError> {
    const SECTION: &str = "certificates";
    let certificate = read.optional(SECTION, "ca_certificate", path)?;
    let key = read.optional(SECTION, "ca_private_key", path)?;
    let ca = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (certificate, _) => {
            let missing = if certificate.is_some() { "ca_private_key" } else { "ca_certificate" };
            return Err(error(SECTION, missing, None, "belongs to the other: both, or none".to_owned()));
        }
    };
    Ok(Certificates {
        ca,
        validity: read.required(SECTION, "cert_validity_time", span(2))?,
        storage_path: read.optional(SECTION, "storage_path", path)?,
    })
}

fn quotas(read: &Reader<'_>) -> Result<Quotas, ConfigError> {
    let quota = |name| read.required("quotas", name, bounded(-1, i64::from(i32::MAX)));
    Ok(Quotas {
        load_balancer: quota("default_load_balancer_quota")?,
        listener: quota("default_listener_quota")?,
        pool: quota("default_pool_quota")?,
        member: quota("default_member_quota")?,
        health_monitor: quota("default_health_monitor_quota")?,
        l7policy: quota("default_l7policy_quota")?,
        l7rule: quota("default_l7rule_quota")?,
    })
}

/// oslo's list.
fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// `first-last`.
fn ports(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("not a range of ports, like 19443-20442: {text:?}");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let (first, last) =
        (first.trim().parse().map_err(|_| wrong())?, last.trim().parse().map_err(|_| wrong())?);
    if first == 0 || first > last { Err(wrong()) } else { Ok((first, last)) }
}
