//! `[api_settings]`.

use std::net::{IpAddr, SocketAddr};

use amphora_ini::{
    ConfigError,
    reader::{Reader, boolean, bounded, error, parse, path},
};
use hyper::Uri;

use super::list;
use crate::serve::api::tls::Files;

const SECTION: &str = "api_settings";

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
    /// `cert_file` and `key_file`: TLS is spoken with these.
    pub tls: Option<Files>,
    /// `api_base_uri`: how clients call this server, without a slash at the end; without it, as each has called it.
    pub base_uri: Option<String>,
    /// `metrics_auth`: who reads `/metrics` says who he is, where the API asks.
    pub metrics_auth: bool,
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

pub(super) fn read(read: &Reader<'_>) -> Result<ApiSettings, ConfigError> {
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
        tls: tls(read)?,
        base_uri: read.optional(SECTION, "api_base_uri", base_uri)?,
        metrics_auth: switch("metrics_auth")?,
        strict_immutable: switch("strict_immutable")?,
    })
}

fn tls(read: &Reader<'_>) -> Result<Option<Files>, ConfigError> {
    let key = read.optional(SECTION, "key_file", path)?;
    match read.optional(SECTION, "cert_file", path)? {
        Some(certificate) => Ok(Some(Files { certificate, key })),
        None if key.is_some() => {
            let reason = "is of no use without cert_file".to_owned();
            Err(error(SECTION, "key_file", read.place(SECTION, "key_file"), reason))
        }
        None => Ok(None),
    }
}

/// `http://` or `https://`, a host, and perhaps a path.
fn base_uri(text: &str) -> Result<String, String> {
    let wrong = || format!("not an address like https://lb.example.com:9876: {text:?}");
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    if !is_web || uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
        return Err(wrong());
    }
    Ok(text.trim_end_matches('/').to_owned())
}
