//! `pool`, `member`, `healthmonitor`, `session_persistence`.

use std::{collections::HashSet, time::Duration};

use super::{
    Context,
    check::{self, GRANULARITY, Granularity},
    member_options,
    object::{COMMON, MAX_NAME, Metadata, Object},
    tls,
};
use crate::{
    HealthCheck, HealthMonitor, HttpCheck, HttpMethod, HttpVersion, LbAlgorithm, Member, MemberId, Pool,
    PoolId, PoolProtocol, SessionPersistence, SourceNetwork,
};

/// `member.weight`.
const MAX_WEIGHT: u16 = 256;

/// HAProxy's longest timer, 2^31 - 1 milliseconds, in seconds: the longest `delay` and `timeout` of a monitor.
const MAX_SECONDS: u64 = 2_147_483;

/// The longest `url_path` of a health monitor.
const MAX_URL_PATH: usize = 2048;

const POOL_METADATA: &[(&str, Metadata)] =
    &[("loadbalancers", Metadata::References), ("listeners", Metadata::References)];

const MEMBER_METADATA: &[(&str, Metadata)] =
    &[("subnet_id", Metadata::Id), ("vnic_type", Metadata::Text(64)), ("request_sriov", Metadata::Flag)];

/// Reads a pool's full definition. `cx` learns the ids of what is in it, unless `again`: the pool was defined before,
/// and whether both are the same is the caller's question.
pub(super) fn pool(o: &mut Object<'_>, cx: &mut Context, again: bool) -> Option<Pool> {
    let id = o.id::<PoolId>();
    let name = o.name();
    let admin_state_up = o.flag("admin_state_up", true);
    let protocol = o.require("protocol", Object::choice::<PoolProtocol>);
    let lb_algorithm = o.require("lb_algorithm", Object::choice::<LbAlgorithm>);
    let forwarded = protocol.filter(|protocol| protocol.is_forwarded());
    if let Some(protocol) = forwarded
        && lb_algorithm == Some(LbAlgorithm::SourceIpPort)
    {
        o.fault("lb_algorithm", format!("SOURCE_IP_PORT is not for pools of protocol {protocol}"));
    }
    let tls = tls::pool(o);
    if let Some(protocol) = forwarded
        && tls.is_some()
    {
        o.fault("tls_enabled", format!("needs a pool of another protocol; this one is {protocol}"));
    }
    let persistence = o.object("session_persistence", |o| session_persistence(o, protocol));
    let monitor = o.object("healthmonitor", |o| {
        let monitor = health_monitor(o, id, protocol);
        if let Some(monitor) = &monitor
            && !again
            && !cx.monitors.insert(monitor.id)
        {
            o.fault("id", "is the id of another health monitor");
        }
        monitor
    });
    if let Some(expected) = o.reference("healthmonitor_id")
        && monitor.as_ref().is_none_or(|monitor| monitor.id != expected)
    {
        o.fault("healthmonitor_id", "is not the id of the pool's healthmonitor");
    }
    let count = o.elements("members");
    let mut endpoints = HashSet::with_capacity(count);
    cx.members.reserve(count);
    let members = o.objects("members", |o| {
        let member = member(o, id)?;
        if !again && !cx.members.insert(member.id) {
            o.fault("id", "is the id of another member");
        }
        if !endpoints.insert((member.address, member.port)) {
            let endpoint = std::net::SocketAddr::new(member.address, member.port);
            o.own_fault(format!("has the address and port of another member of the pool: {endpoint}"));
        }
        Some(member)
    });
    let member_options = member_options::member_options(o, protocol);
    o.parent("loadbalancer_id", cx.id);
    o.metadata(COMMON);
    o.metadata(POOL_METADATA);
    Some(Pool {
        id: id?,
        name,
        admin_state_up,
        protocol: protocol?,
        lb_algorithm: lb_algorithm?,
        tls,
        session_persistence: persistence,
        health_monitor: monitor,
        member_options,
        members,
    })
}

fn member(o: &mut Object<'_>, pool: Option<PoolId>) -> Option<Member> {
    let id = o.id::<MemberId>();
    let name = o.name();
    let admin_state_up = o.flag("admin_state_up", true);
    let address = o.require("address", Object::address);
    let port = o.require("protocol_port", Object::port);
    let weight = weight(o).unwrap_or(1);
    let backup = o.flag("backup", false);
    let monitor_address = o.address("monitor_address");
    let monitor_port = o.port("monitor_port");
    for (name, address) in [("address", address), ("monitor_address", monitor_address)] {
        if let Some(Err(reason)) = address.map(check::reachable) {
            o.fault(name, reason);
        }
    }
    o.parent("pool_id", pool);
    o.metadata(COMMON);
    o.metadata(MEMBER_METADATA);
    Some(Member {
        id: id?,
        name,
        admin_state_up,
        address: address?,
        port: port?,
        weight,
        backup,
        monitor_address,
        monitor_port,
    })
}

/// `weight`, 0 to 256.
pub(crate) fn weight(o: &mut Object<'_>) -> Option<u16> {
    o.integer("weight", 0..=MAX_WEIGHT)
}

fn session_persistence(o: &mut Object<'_>, pool: Option<PoolProtocol>) -> Option<SessionPersistence> {
    const TYPES: &[&str] = &["SOURCE_IP", "HTTP_COOKIE", "APP_COOKIE"];
    let kind = o.require("type", |o, name| o.one_of(name, TYPES));
    let cookie_name = o.text("cookie_name", MAX_NAME).filter(|name| !name.is_empty());
    let forwarded = pool.filter(|protocol| protocol.is_forwarded());
    // Octavia lets 0 pass elsewhere.
    let timeout = o.integer("persistence_timeout", 0..=i32::MAX).filter(|seconds| *seconds != 0);
    let granularity = o.given("persistence_granularity").map(|value| value.as_str().map(str::to_owned));
    if pool.is_some() && forwarded.is_none() {
        for (name, given) in
            [("persistence_timeout", timeout.is_some()), ("persistence_granularity", granularity.is_some())]
        {
            if given {
                o.fault(name, "is only for pools of protocol UDP and SCTP");
            }
        }
    }
    let kind = kind?;
    if let Some(protocol) = forwarded {
        let mut network = SourceNetwork::default();
        if let Some(seconds) = timeout {
            network.timeout = Duration::from_secs(seconds.unsigned_abs().into());
        }
        if let Some(given) = granularity {
            match given.as_deref().map_or(Err(GRANULARITY.to_owned()), check::granularity) {
                Ok(Granularity::V4(prefix)) => network.v4_prefix = prefix,
                Ok(Granularity::V6(prefix)) => network.v6_prefix = prefix,
                Err(reason) => o.fault("persistence_granularity", reason),
            }
        }
        if kind != "SOURCE_IP" {
            o.fault(
                "type",
                format!("{kind} needs a pool of protocol HTTP, PROXY or PROXYV2; this one is {protocol}"),
            );
        }
        if cookie_name.is_some() {
            o.fault("cookie_name", "is only for type APP_COOKIE");
        }
        return Some(SessionPersistence::SourceNetwork(network));
    }
    if kind != "SOURCE_IP"
        && let Some(protocol @ (PoolProtocol::Tcp | PoolProtocol::Https)) = pool
    {
        o.fault(
            "type",
            format!("{kind} needs a pool of protocol HTTP, PROXY or PROXYV2; this one is {protocol}"),
        );
    }
    if kind != "APP_COOKIE" {
        if cookie_name.is_some() {
            o.fault("cookie_name", "is only for type APP_COOKIE");
        }
        return Some(if kind == "SOURCE_IP" {
            SessionPersistence::SourceIp
        } else {
            SessionPersistence::HttpCookie
        });
    }
    let cookie_name = match cookie_name {
        Some(name) => name,
        None => return o.missing("cookie_name"),
    };
    if let Err(reason) = check::token(cookie_name) {
        o.fault("cookie_name", reason);
    }
    Some(SessionPersistence::AppCookie { cookie_name: cookie_name.to_owned() })
}

fn health_monitor(
    o: &mut Object<'_>,
    pool: Option<PoolId>,
    protocol: Option<PoolProtocol>,
) -> Option<HealthMonitor> {
    const TYPES: &[&str] = &["HTTP", "HTTPS", "TCP", "TLS-HELLO", "PING", "UDP-CONNECT", "SCTP"];
    let id = o.id();
    let name = o.name();
    let admin_state_up = o.flag("admin_state_up", true);
    let kind = o.require("type", |o, name| o.one_of(name, TYPES));
    if let (Some(kind), Some(protocol)) = (kind, protocol) {
        let wrong: &[_] = match protocol.is_forwarded() {
            true => &["HTTPS", "TLS-HELLO"],
            false => &["UDP-CONNECT", "SCTP"],
        };
        if wrong.contains(&kind) {
            o.fault("type", format!("{kind} is not for pools of protocol {protocol}"));
        }
    }
    let delay = o.require("delay", |o, name| o.integer(name, 1..=MAX_SECONDS));
    let timeout = o.require("timeout", |o, name| o.integer(name, 0..=MAX_SECONDS));
    let max_retries = o.require("max_retries", |o, name| o.integer(name, 1..=10));
    let max_retries_down = o.integer("max_retries_down", 1..=10).unwrap_or(3);
    let check = match kind {
        Some("HTTP") => http_check(o).map(HealthCheck::Http),
        Some("HTTPS") => http_check(o).map(HealthCheck::Https),
        Some(other) => {
            for name in ["http_method", "url_path", "expected_codes", "http_version", "domain_name"] {
                if o.given(name).is_some() {
                    o.fault(name, "is only for health monitors of type HTTP and HTTPS");
                }
            }
            Some(match other {
                "TCP" => HealthCheck::Tcp,
                "TLS-HELLO" => HealthCheck::TlsHello,
                "UDP-CONNECT" => HealthCheck::UdpConnect,
                "SCTP" => HealthCheck::Sctp,
                _ => HealthCheck::Ping,
            })
        }
        // Without a type nothing is known about the rest: only its syntax is looked at.
        None => http_check(o).map(HealthCheck::Http),
    };
    o.parent("pool_id", pool);
    o.metadata(COMMON);
    o.metadata(&[("pools", Metadata::References)]);
    kind?;
    let (delay, timeout) = (Duration::from_secs(delay?), Duration::from_secs(timeout?));
    Some(HealthMonitor {
        id: id?,
        name,
        admin_state_up,
        delay,
        // HAProxy takes `timeout check 0` as unset, and then a check has until the next one.
        timeout: if timeout.is_zero() { delay } else { timeout },
        max_retries: max_retries?,
        max_retries_down,
        check: check?,
    })
}

fn http_check(o: &mut Object<'_>) -> Option<HttpCheck> {
    let method = o.choice::<HttpMethod>("http_method").unwrap_or(HttpMethod::Get);
    let url_path = o.text("url_path", MAX_URL_PATH).filter(|path| !path.is_empty()).unwrap_or("/");
    if let Err(reason) = check::url_path(url_path) {
        o.fault("url_path", reason);
    }
    let given = o.get("http_version").map(|value| value.as_f64());
    let version = match given {
        None => HttpVersion::Http10,
        Some(Some(1.0)) => HttpVersion::Http10,
        Some(Some(1.1)) => HttpVersion::Http11,
        Some(_) => {
            o.fault("http_version", "must be one of the numbers 1.0, 1.1");
            HttpVersion::Http11
        }
    };
    let domain_name = o.text("domain_name", MAX_NAME).filter(|name| !name.is_empty());
    if let Some(name) = domain_name {
        if let Err(reason) = check::domain_name(name) {
            o.fault("domain_name", reason);
        }
        if version == HttpVersion::Http10 {
            o.fault("domain_name", "needs http_version 1.1");
        }
    }
    let codes = o.text("expected_codes", 4096).filter(|codes| !codes.is_empty()).unwrap_or("200");
    let expected_codes =
        check::expected_codes(codes).map_err(|reason| o.fault("expected_codes", reason)).ok();
    Some(HttpCheck {
        method,
        url_path: url_path.to_owned(),
        version,
        domain_name: domain_name.map(str::to_owned),
        expected_codes: expected_codes?,
    })
}
