//! The typed model of one load balancer, with Octavia's own names, enums, defaults and limits.
//!
//! A [`LoadBalancer`] that exists is one that can be honoured: it comes only out of
//! [`LoadBalancer::from_json`] (module [`document`]), which refuses everything else with the JSON path and the
//! reason of each [`Fault`].
//!
//! * `enums`, `ids`: Octavia's enumerations; an id type for each kind of object
//! * [`document`]: the native API's JSON, read and written
//! * `edits`: what L7 policies of our own change and answer
//! * `fault`: why a document is refused
//! * `member_options`: what a pool grants its members
//! * `flow_log`: the line for each connection or request
//! * `rate_limit`: rate limit policies, and by whose address clients are known
//! * `tls`: certificates, versions and ciphers of listeners and pools
//! * `update`: one member's weight and state
//! * [`strict_json`]: text to [`Json`](document::Json), values that borrow from it, as every document of ours is read
//! * `routing`: what of our own says where requests go
//! * `token`: tokens of HTTP
//! * `binding`: what a listening socket is known by
//! * `check_state`: what health checks say of a member
//! * `arbitrary`: made-up load balancers for tests and benchmarks, behind the feature of that name

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may block"))]

#[cfg(any(test, feature = "arbitrary"))]
pub mod arbitrary;
mod binding;
mod check_state;
pub mod document;
mod edits;
mod enums;
mod fault;
mod flow_log;
mod ids;
mod member_options;
mod rate_limit;
mod routing;
mod tls;
mod token;
mod update;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

pub use self::{
    binding::{Binding, Transport},
    check_state::CheckState,
    document::{MAX_DOCUMENT_BYTES, strict_json},
    edits::*,
    enums::*,
    fault::{Fault, Faults, MAX_FAULTS, Path, Refusal, excerpt},
    flow_log::FlowLog,
    ids::*,
    member_options::{MemberOptions, OutlierDetection},
    rate_limit::*,
    routing::*,
    tls::*,
    token::{is_token, is_token_byte},
    update::{MemberUpdate, UnknownMember},
};

/// Octavia's `loadbalancer`, fully populated.
///
/// Invariants: ids are unique per kind; each pool id that a listener or an L7 policy names is in
/// [`pools`](Self::pools), once, and of a protocol that the listener [carries](ListenerProtocol::carries); no two
/// listeners share a port and transport; there is at least one VIP and no VIP twice; L7 policies are on HTTP
/// listeners alone; no two members of one pool share address and port.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadBalancer {
    /// `id`.
    pub id: LoadBalancerId,
    /// `name`; at most 255 characters.
    pub name: String,
    /// `admin_state_up`; when false no listener is bound.
    pub admin_state_up: bool,
    /// The addresses that every listener binds: `vip_address` first, then `additional_vips`.
    pub vips: Vec<Vip>,
    /// `listeners`.
    pub listeners: Vec<Listener>,
    /// Every pool of the load balancer: shared ones, listeners' default pools, and redirect pools.
    pub pools: Vec<Pool>,
}

/// One virtual IP address: `vip_address`, or an element of `additional_vips`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// `vip_address` or `ip_address`.
    pub address: IpAddr,
}

/// Octavia's `listener`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// `id`.
    pub id: ListenerId,
    /// `name`.
    pub name: String,
    /// `admin_state_up`; when false the listener is not bound.
    pub admin_state_up: bool,
    /// `protocol`.
    pub protocol: ListenerProtocol,
    /// `protocol_port`, 1 to 65535.
    pub port: u16,
    /// `connection_limit`; `None` is Octavia's -1 (no limit).
    pub connection_limit: Option<u32>,
    /// `amphora.member_connection_limit`: the most flows that one member gets from it at once (keepalived's `uthreshold`); of
    /// UDP and SCTP listeners alone.
    pub member_connection_limit: Option<u32>,
    /// `default_pool_id`.
    pub default_pool: Option<PoolId>,
    /// How TLS is terminated: always with [`ListenerProtocol::TerminatedHttps`], with [`ListenerProtocol::Prometheus`] when a
    /// certificate is given, with no other protocol.
    pub tls: Option<ListenerTls>,
    /// `insert_headers`.
    pub insert_headers: InsertHeaders,
    /// `l7policies`, in the order of `position`.
    pub l7policies: Vec<L7Policy>,
    /// `timeout_*`.
    pub timeouts: ListenerTimeouts,
    /// `allowed_cidrs`; empty allows everyone.
    pub allowed_cidrs: Vec<IpNet>,
    /// The line for each connection or request; `None`: none is written.
    pub flow_log: Option<FlowLog>,
    /// `rate_limit_policies`, at most [`RateLimitPolicy::MAX_POLICIES`].
    pub rate_limit_policies: Vec<RateLimitPolicy>,
    /// `amphora.trusted_proxies` and `amphora.client_address_header`: who is believed about whom a request is from when rates are
    /// limited; of HTTP alone.
    pub trusted_proxies: Option<TrustedProxies>,
    /// Where requests go beyond what Octavia has words for.
    pub routing: Routing,
}

/// `timeout_client_data`, `timeout_member_connect`, `timeout_member_data`, `timeout_tcp_inspect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// Client inactivity (HAProxy `timeout client`).
    pub client_data: Duration,
    /// Time to connect to a member (HAProxy `timeout connect`).
    pub member_connect: Duration,
    /// Member inactivity (HAProxy `timeout server`).
    pub member_data: Duration,
    /// HAProxy's `tcp-request inspect-delay`, which without `tcp-request content` rules, and Octavia renders none,
    /// holds no connection. Kept for what will inspect content.
    pub tcp_inspect: Duration,
}

impl Listener {
    /// What it is bound to at a VIP.
    pub fn binding(&self, vip: IpAddr) -> Binding {
        Binding { transport: self.protocol.transport(), address: SocketAddr::new(vip, self.port) }
    }

    /// The pools that it may send to by itself, whatever its policies say: `default_pool`, or those of `default_pools`.
    pub fn default_pools(&self) -> impl Iterator<Item = PoolId> {
        self.default_pool.into_iter().chain(self.routing.pools.iter().flat_map(WeightedPools::ids))
    }
}

impl Default for ListenerTimeouts {
    /// Octavia's `[haproxy_amphora]` defaults: 50 s, 5 s, 50 s, 0.
    fn default() -> Self {
        Self {
            client_data: Duration::from_millis(50_000),
            member_connect: Duration::from_millis(5_000),
            member_data: Duration::from_millis(50_000),
            tcp_inspect: Duration::ZERO,
        }
    }
}

/// `insert_headers`: which headers the proxy sets on requests to members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InsertHeaders {
    /// `X-Forwarded-For`: the client's address is appended (HAProxy `option forwardfor`).
    pub x_forwarded_for: bool,
    /// `X-Forwarded-Port`: the listener's port.
    pub x_forwarded_port: bool,
    /// `X-Forwarded-Proto`: `http`, or `https` where TLS is terminated.
    pub x_forwarded_proto: bool,
    /// What is said of the client's certificate; only where TLS is terminated.
    pub ssl: SslHeaders,
}

/// The headers of `insert_headers` about the client's certificate, from HAProxy's `ssl_c_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SslHeaders {
    /// `X-SSL-Client-Verify`: `%[ssl_c_verify]`.
    pub client_verify: bool,
    /// `X-SSL-Client-Has-Cert`: `%[ssl_c_used]`.
    pub client_has_cert: bool,
    /// `X-SSL-Client-DN`: `%{+Q}[ssl_c_s_dn]`.
    pub client_dn: bool,
    /// `X-SSL-Client-CN`: `%{+Q}[ssl_c_s_dn(cn)]`.
    pub client_cn: bool,
    /// `X-SSL-Issuer`: `%{+Q}[ssl_c_i_dn]`.
    pub issuer: bool,
    /// `X-SSL-Client-SHA1`: `%{+Q}[ssl_c_sha1,hex]`.
    pub client_sha1: bool,
    /// `X-SSL-Client-Not-Before`: `%{+Q}[ssl_c_notbefore]`.
    pub client_not_before: bool,
    /// `X-SSL-Client-Not-After`: `%{+Q}[ssl_c_notafter]`.
    pub client_not_after: bool,
}

/// Octavia's `pool`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// `id`.
    pub id: PoolId,
    /// `name`.
    pub name: String,
    /// `admin_state_up`; a pool that is down is as if it were not configured.
    pub admin_state_up: bool,
    /// `protocol`.
    pub protocol: PoolProtocol,
    /// `lb_algorithm`.
    pub lb_algorithm: LbAlgorithm,
    /// How members are spoken to over TLS; `None` without `tls_enabled`.
    pub tls: Option<PoolTls>,
    /// `session_persistence`.
    pub session_persistence: Option<SessionPersistence>,
    /// `healthmonitor`.
    pub health_monitor: Option<HealthMonitor>,
    /// `amphora`: what it grants its members.
    pub member_options: MemberOptions,
    /// `members`.
    pub members: Vec<Member>,
}

/// Octavia's `member`.
#[derive(Clone, Debug, Eq)]
pub struct Member {
    /// `id`.
    pub id: MemberId,
    /// `name`.
    pub name: String,
    /// `admin_state_up`; when false the member gets nothing and is not monitored (`MAINT`).
    pub admin_state_up: bool,
    /// `address`.
    pub address: IpAddr,
    /// `protocol_port`.
    pub port: u16,
    /// `weight`, 0 to 256; 0 drains: only persistent sessions still come.
    pub weight: u16,
    /// `backup`; used only when no other member is.
    pub backup: bool,
    /// `monitor_address`; the member's own address when absent.
    pub monitor_address: Option<IpAddr>,
    /// `monitor_port`; the member's own port when absent.
    pub monitor_port: Option<u16>,
}

impl PartialEq for Member {
    /// Field by field. Names that are both empty are not compared as bytes: an empty string points to no memory, and to look
    /// there, if only for no bytes, costs some processors (AMD's Zen 4, by a masked load) more than all else here.
    fn eq(&self, other: &Self) -> bool {
        // Taken apart, so that a new field cannot be left out.
        let Self { id, name, admin_state_up, address, port, weight, backup, monitor_address, monitor_port } =
            self;
        *id == other.id
            && (name.is_empty() && other.name.is_empty() || *name == other.name)
            && *admin_state_up == other.admin_state_up
            && *address == other.address
            && *port == other.port
            && *weight == other.weight
            && *backup == other.backup
            && *monitor_address == other.monitor_address
            && *monitor_port == other.monitor_port
    }
}

/// Octavia's `session_persistence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionPersistence {
    /// By the client's address.
    SourceIp,
    /// By the client's network; of UDP and SCTP pools, whose `SOURCE_IP` this is.
    SourceNetwork(SourceNetwork),
    /// By a cookie `SRV` that the proxy inserts (HAProxy `cookie SRV insert indirect nocache`).
    HttpCookie,
    /// By a cookie of the application, learned from responses.
    AppCookie {
        /// `cookie_name`.
        cookie_name: String,
    },
}

/// What a client is known by in a UDP or SCTP pool with `SOURCE_IP`, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceNetwork {
    /// `persistence_timeout`: how long after its last new flow a client's next one goes to the same member.
    pub timeout: Duration,
    /// `persistence_granularity` as a netmask, 255.255.0.0: the bits of an IPv4 address that count.
    pub v4_prefix: u8,
    /// `persistence_granularity` as a number: the bits of an IPv6 address that count.
    pub v6_prefix: u8,
}

impl Default for SourceNetwork {
    /// What Octavia renders for its amphora: 360 s, the whole address.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(360), v4_prefix: 32, v6_prefix: 128 }
    }
}

/// Octavia's `healthmonitor`.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthMonitor {
    /// `id`.
    pub id: HealthMonitorId,
    /// `name`.
    pub name: String,
    /// `admin_state_up`; when false members count as `NO_MONITOR`.
    pub admin_state_up: bool,
    /// `delay`: from the start of a probe to the start of the next.
    pub delay: Duration,
    /// `timeout` of one probe; may be longer than [`delay`](Self::delay), as in HAProxy.
    pub timeout: Duration,
    /// `max_retries`: successes in a row before a member is up (HAProxy `rise`), 1 to 10.
    pub max_retries: u8,
    /// `max_retries_down`: failures in a row before a member is down (HAProxy `fall`), 1 to 10.
    pub max_retries_down: u8,
    /// `type`, with what only that type has.
    pub check: HealthCheck,
}

/// What a health monitor's probe does: `type`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HealthCheck {
    /// A request over plain HTTP.
    Http(HttpCheck),
    /// A request over TLS. The certificate is verified where the pool's members have authorities to be verified by, as for requests to them, and
    /// else is not (HAProxy `check-ssl`, with `verify none` there).
    Https(HttpCheck),
    /// A connection.
    Tcp,
    /// A TLS handshake's first flight is answered.
    TlsHello,
    /// An ICMP echo.
    Ping,
    /// A datagram that is not refused; of UDP and SCTP pools alone.
    UdpConnect,
    /// INIT of SCTP that is answered by INIT ACK; of UDP and SCTP pools alone.
    Sctp,
}

/// The HTTP part of a health monitor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpCheck {
    /// `http_method`.
    pub method: HttpMethod,
    /// `url_path`.
    pub url_path: String,
    /// `http_version`.
    pub version: HttpVersion,
    /// `domain_name`, the `Host` header; with HTTP/1.1 only.
    pub domain_name: Option<String>,
    /// `expected_codes`, as inclusive ranges in the order of the document, within 100 to 999; at least one.
    pub expected_codes: Vec<(u16, u16)>,
}

/// Octavia's `l7policy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L7Policy {
    /// `id`.
    pub id: L7PolicyId,
    /// `name`.
    pub name: String,
    /// `admin_state_up`; a policy that is down is skipped.
    pub admin_state_up: bool,
    /// `position`: the policies of a listener count through from 1.
    pub position: u32,
    /// `action`, with what only that action has.
    pub action: L7Action,
    /// `amphora.edits`: of [`L7Action::Edit`] always, of actions that send to a pool perhaps.
    pub edits: Option<Box<Edits>>,
    /// `rules`, at most 50; all of them must match. A policy without an enabled rule never matches.
    pub rules: Vec<L7Rule>,
}

/// What an L7 policy does with a request: `action`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L7Action {
    /// 403.
    Reject,
    /// Redirect to `redirect_url`.
    RedirectToUrl {
        /// `redirect_url`.
        url: String,
        /// `redirect_http_code`; HAProxy's default is 302.
        code: RedirectCode,
    },
    /// Redirect to `redirect_prefix` followed by the request's own path and query.
    RedirectPrefix {
        /// `redirect_prefix`.
        prefix: String,
        /// `redirect_http_code`; HAProxy's default is 302.
        code: RedirectCode,
    },
    /// Send the request to another pool: `redirect_pool_id`.
    RedirectToPool(PoolId),
    /// Send it to one of several: `amphora.redirect_pools`.
    RedirectToPools(WeightedPools),
    /// Change the request, and go on with other policies: `amphora.action` is `EDIT`.
    Edit,
    /// Answer it: `amphora.action` is `ANSWER`.
    Answer(Box<Answer>),
}

impl L7Action {
    /// The pools that it sends to.
    pub fn pools(&self) -> impl Iterator<Item = PoolId> {
        let (one, several) = match self {
            Self::RedirectToPool(pool) => (Some(*pool), None),
            Self::RedirectToPools(pools) => (None, Some(pools)),
            _ => (None, None),
        };
        one.into_iter().chain(several.into_iter().flat_map(WeightedPools::ids))
    }
}

/// Octavia's L7 `rule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L7Rule {
    /// `id`.
    pub id: L7RuleId,
    /// `admin_state_up`; a rule that is down is skipped.
    pub admin_state_up: bool,
    /// `invert`.
    pub invert: bool,
    /// `type` and `key`.
    pub subject: L7Subject,
    /// `compare_type`.
    pub compare: CompareType,
    /// `value`, 1 to 255 characters, as in the document. What regular expressions mean is not known here.
    pub value: String,
}

/// What an L7 rule looks at: `type` and `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L7Subject {
    /// `HOST_NAME`.
    HostName,
    /// `PATH`.
    Path,
    /// `FILE_TYPE`.
    FileType,
    /// `HEADER`, by the name in `key`.
    Header(String),
    /// `COOKIE`, by the name in `key`.
    Cookie(String),
    /// `SSL_CONN_HAS_CERT`: the client has shown a certificate (HAProxy `ssl_c_used`); compared by `EQUAL_TO` with `True`.
    SslConnHasCert,
    /// `SSL_VERIFY_RESULT`: the code of its verification (HAProxy `ssl_c_verify`); compared by `EQUAL_TO` with a decimal
    /// number that fits an `i64`.
    SslVerifyResult,
    /// `SSL_DN_FIELD`: the field in `key` of its subject (HAProxy `ssl_c_s_dn(key)`): a letter, then letters, digits, hyphens.
    SslDnField(String),
}

impl L7Subject {
    /// `type` and `key`, as in the document.
    pub fn type_and_key(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::HostName => ("HOST_NAME", None),
            Self::Path => ("PATH", None),
            Self::FileType => ("FILE_TYPE", None),
            Self::Header(key) => ("HEADER", Some(key)),
            Self::Cookie(key) => ("COOKIE", Some(key)),
            Self::SslConnHasCert => ("SSL_CONN_HAS_CERT", None),
            Self::SslVerifyResult => ("SSL_VERIFY_RESULT", None),
            Self::SslDnField(key) => ("SSL_DN_FIELD", Some(key)),
        }
    }
}
