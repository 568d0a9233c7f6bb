//! `listener`.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::{
    Context, Json, amphora, check, l7,
    object::{COMMON, Metadata, Object},
    rate_limit, tls,
};
use crate::{
    InsertHeaders, L7Policy, Listener, ListenerId, ListenerProtocol, ListenerTimeouts, PoolId, PoolProtocol,
    SessionPersistence, SslHeaders,
};

/// Octavia's `MAX_TIMEOUT`: 24 days in milliseconds.
const MAX_TIMEOUT: u64 = 24 * 24 * 60 * 60 * 1000;

/// Reads a listener. The pools that are defined in it are known to `cx` already.
pub(super) fn listener(o: &mut Object<'_>, cx: &mut Context) -> Option<Listener> {
    let id = o.id::<ListenerId>();
    if let Some(id) = id
        && !cx.listeners.insert(id)
    {
        o.fault("id", "is the id of another listener");
    }
    let name = o.name();
    let admin_state_up = o.flag("admin_state_up", true);
    let protocol = o.require("protocol", Object::choice::<ListenerProtocol>);
    let port = o.require("protocol_port", Object::port);
    if let (Some(port), Some(protocol)) = (port, protocol) {
        match cx.ports.get(&(protocol.transport(), port)) {
            Some(other) => o.fault("protocol_port", format!("{port} is the port of {other} already")),
            None => {
                cx.ports.insert((protocol.transport(), port), o.path().to_string());
            }
        }
    }
    let connection_limit = o.integer("connection_limit", -1..=i32::MAX);
    let default_pool = default_pool(o, cx, protocol);
    let tls = tls::listener(o, protocol);
    let insert_headers = insert_headers(o, protocol);
    let timeouts = timeouts(o);
    let allowed_cidrs = allowed_cidrs(o, cx);
    let l7policies = l7::l7policies(o, cx, id, protocol);
    if let Some(protocol) = protocol
        && !protocol.is_http()
        && !l7policies.is_empty()
    {
        o.fault(
            "l7policies",
            format!("need a listener of protocol HTTP or TERMINATED_HTTPS; this one is {protocol}"),
        );
    }
    let rate_limit_policies = rate_limit::policies(o, cx, id, protocol);
    let own = amphora::of_listener(o, cx, protocol);
    for name in ["default_pool", "default_pool_id"] {
        if own.routing.pools.is_some() && o.given(name).is_some() {
            o.fault(name, "cannot be combined with amphora.default_pools");
        }
    }
    for share in own.routing.pools.iter().flat_map(|pools| &pools.shares) {
        by_cookie(o, cx, protocol, "amphora.default_pools", share.pool);
    }
    o.parent("loadbalancer_id", cx.id);
    o.metadata(COMMON);
    o.metadata(&[("loadbalancers", Metadata::References)]);
    Some(Listener {
        id: id?,
        name,
        admin_state_up,
        protocol: protocol?,
        port: port?,
        // Octavia gives 0 and -1 alike its own default, which stands for no limit.
        connection_limit: connection_limit
            .and_then(|limit| u32::try_from(limit).ok())
            .filter(|limit| *limit > 0),
        member_connection_limit: own.member_connection_limit,
        default_pool,
        tls,
        insert_headers,
        l7policies,
        timeouts,
        allowed_cidrs,
        flow_log: own.flow_log,
        rate_limit_policies,
        trusted_proxies: own.trusted_proxies,
        routing: own.routing,
    })
}

/// A listener that sees no cookies, with a pool whose session persistence goes by them.
pub(super) struct WithoutCookies {
    /// Its path.
    listener: String,
    /// The field that names the pool.
    field: &'static str,
    protocol: ListenerProtocol,
    pool: PoolId,
}

/// Persistence by cookie needs a listener of HTTP with the pool; others may have it as well, and go without.
pub(super) fn cookies(o: &Object<'_>, cx: &Context, listeners: &[Listener]) {
    let sends = |listener: &Listener, pool: PoolId| {
        let redirects = |policy: &L7Policy| policy.action.pools().any(|to| to == pool);
        listener.protocol.is_http()
            && (listener.default_pools().any(|to| to == pool) || listener.l7policies.iter().any(redirects))
    };
    for WithoutCookies { listener, field, protocol, pool } in &cx.without_cookies {
        if !listeners.iter().any(|listener| sends(listener, *pool)) {
            let reason = format!(
                "has session persistence by cookie, which needs a listener of protocol HTTP or TERMINATED_HTTPS; this one is {protocol}"
            );
            o.fault_at(&format!("{listener}.{field}"), reason);
        }
    }
}

fn default_pool(o: &mut Object<'_>, cx: &mut Context, protocol: Option<ListenerProtocol>) -> Option<PoolId> {
    let pool = super::pool_reference(o, cx, "default_pool", "default_pool_id", protocol)?;
    let field = if o.has("default_pool") { "default_pool" } else { "default_pool_id" };
    by_cookie(o, cx, protocol, field, pool);
    Some(pool)
}

/// Notes a pool whose persistence goes by cookies that the listener does not see; see [`cookies`].
fn by_cookie(
    o: &Object<'_>,
    cx: &mut Context,
    protocol: Option<ListenerProtocol>,
    field: &'static str,
    pool: PoolId,
) {
    let by_cookie = cx.pools.get(pool).is_some_and(|pool| {
        // In pools of other protocols cookies were refused already, and to one of HTTP every listener speaks that.
        matches!(pool.protocol, PoolProtocol::Proxy | PoolProtocol::ProxyV2)
            && pool
                .session_persistence
                .as_ref()
                .is_some_and(|persistence| *persistence != SessionPersistence::SourceIp)
    });
    if let Some(protocol) = protocol
        && !protocol.is_http()
        && by_cookie
    {
        cx.without_cookies.push(WithoutCookies { listener: o.path().to_string(), field, protocol, pool });
    }
}

fn timeouts(o: &mut Object<'_>) -> ListenerTimeouts {
    let default = ListenerTimeouts::default();
    // Octavia's templates take 0 for its default.
    let mut timeout = |name, default| match o.integer(name, 0..=MAX_TIMEOUT) {
        None | Some(0) => default,
        Some(ms) => Duration::from_millis(ms),
    };
    ListenerTimeouts {
        client_data: timeout("timeout_client_data", default.client_data),
        member_connect: timeout("timeout_member_connect", default.member_connect),
        member_data: timeout("timeout_member_data", default.member_data),
        tcp_inspect: timeout("timeout_tcp_inspect", default.tcp_inspect),
    }
}

fn insert_headers(o: &mut Object<'_>, protocol: Option<ListenerProtocol>) -> InsertHeaders {
    let mut headers = InsertHeaders::default();
    let mut count = 0;
    o.object("insert_headers", |o| {
        count = o.names().count();
        headers.x_forwarded_for = switch(o, "X-Forwarded-For");
        headers.x_forwarded_port = switch(o, "X-Forwarded-Port");
        headers.x_forwarded_proto = switch(o, "X-Forwarded-Proto");
        // In Octavia's API, but its amphora does not insert them.
        for name in ["X-Forwarded-IP", "X-Client-IP", "X-Real-IP"] {
            if switch(o, name) {
                o.fault(name, "is not supported: an amphora inserts X-Forwarded-For, X-Forwarded-Port, X-Forwarded-Proto and X-SSL-*");
            }
        }
        headers.ssl = ssl_headers(o, protocol);
        Some(())
    });
    if let Some(protocol) = protocol
        && !protocol.is_http()
        && count > 0
    {
        o.fault(
            "insert_headers",
            format!("needs a listener of protocol HTTP or TERMINATED_HTTPS; this one is {protocol}"),
        );
    }
    headers
}

/// The headers about the client's certificate, which a listener that terminates TLS alone knows of.
fn ssl_headers(o: &mut Object<'_>, protocol: Option<ListenerProtocol>) -> SslHeaders {
    let mut on = |name| {
        let on = switch(o, name);
        if on && let Some(protocol @ ListenerProtocol::Http) = protocol {
            // Of listeners of other protocols the whole object is refused.
            o.fault(name, format!("needs a listener of protocol TERMINATED_HTTPS; this one is {protocol}"));
        }
        on
    };
    SslHeaders {
        client_verify: on("X-SSL-Client-Verify"),
        client_has_cert: on("X-SSL-Client-Has-Cert"),
        client_dn: on("X-SSL-Client-DN"),
        client_cn: on("X-SSL-Client-CN"),
        issuer: on("X-SSL-Issuer"),
        client_sha1: on("X-SSL-Client-SHA1"),
        client_not_before: on("X-SSL-Client-Not-Before"),
        client_not_after: on("X-SSL-Client-Not-After"),
    }
}

/// A header's switch: the string `true` or `false` in any case, as in Octavia, or the boolean.
fn switch(o: &mut Object<'_>, name: &'static str) -> bool {
    match o.get(name) {
        None | Some(Json::Bool(false)) => false,
        Some(Json::Bool(true)) => true,
        Some(Json::Text(text)) if text.eq_ignore_ascii_case("true") => true,
        Some(Json::Text(text)) if text.eq_ignore_ascii_case("false") => false,
        Some(_) => {
            o.fault(name, "must be one of \"true\", \"false\"");
            false
        }
    }
}

fn allowed_cidrs(o: &mut Object<'_>, cx: &Context) -> Vec<IpNet> {
    let mut found: Vec<IpNet> = Vec::new();
    let cidrs = o.strings("allowed_cidrs", |text| {
        let cidr = check::cidr(text)?;
        let family = |vip: &IpAddr| vip.is_ipv4() == cidr.addr().is_ipv4();
        if !cx.vips.is_empty() && !cx.vips.iter().any(family) {
            return Err("is of an IP version that no VIP address has".to_owned());
        }
        if found.contains(&cidr) {
            return Err(format!("is the network {cidr}, which is in the list already"));
        }
        found.push(cidr);
        Ok(cidr)
    });
    if !cidrs.is_empty() && cx.security_groups {
        o.fault("allowed_cidrs", "cannot be combined with vip_sg_ids");
    }
    cidrs
}
