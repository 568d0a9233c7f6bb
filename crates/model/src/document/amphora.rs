//! `amphora`, an object of our own in a load balancer and in a listener: what Octavia has in its own configuration, or nowhere, and
//! renders into its texts.

use super::{Context, object::Object, rate_limit, routing};
use crate::{FlowLog, ListenerProtocol, Routing, TrustedProxies};

/// What an `amphora` object says.
#[derive(Clone, Default)]
pub(super) struct Given {
    limit: Option<u32>,
    on: Option<bool>,
    format: Option<String>,
    facility: Option<u8>,
    trusted_proxies: Option<TrustedProxies>,
    routing: Routing,
}

/// What it says of a listener.
pub(super) struct OfListener {
    pub(super) flow_log: Option<FlowLog>,
    pub(super) member_connection_limit: Option<u32>,
    pub(super) trusted_proxies: Option<TrustedProxies>,
    pub(super) routing: Routing,
}

/// Reads the object of a load balancer, if it is there.
pub(super) fn of_load_balancer(o: &mut Object<'_>) -> Given {
    read(o, None)
}

/// `listener`, with what its object may refer to, if it is one's.
fn read(o: &mut Object<'_>, listener: Option<(&Context, Option<ListenerProtocol>)>) -> Given {
    let given = o.object("amphora", |o| {
        let on = o.boolean("connection_logging");
        let format = o.text("user_log_format", FlowLog::MAX_FORMAT).filter(|format| !format.is_empty());
        if let Some(format) = format {
            if format.len() > FlowLog::MAX_FORMAT {
                o.fault("user_log_format", format!("must not be longer than {} bytes", FlowLog::MAX_FORMAT));
            }
            if format.chars().any(char::is_control) {
                o.fault("user_log_format", "must not contain line breaks or other control characters");
            }
        }
        let facility = o.integer("user_log_facility", 0..=7);
        let limit = listener.and_then(|_| o.integer("member_connection_limit", 1..=u32::MAX));
        let trusted_proxies = listener.and_then(|_| rate_limit::trusted_proxies(o));
        let routing =
            listener.map(|(cx, protocol)| routing::of_listener(o, cx, protocol)).unwrap_or_default();
        Some(Given { limit, on, format: format.map(str::to_owned), facility, trusted_proxies, routing })
    });
    given.unwrap_or_default()
}

/// Reads the object of a listener, if it is there.
pub(super) fn of_listener(
    o: &mut Object<'_>,
    cx: &Context,
    protocol: Option<ListenerProtocol>,
) -> OfListener {
    let own = read(o, Some((cx, protocol)));
    if let Some(protocol) = protocol.filter(|protocol| !protocol.is_forwarded())
        && own.limit.is_some()
    {
        o.fault(
            "amphora",
            format!(
                "has member_connection_limit, which needs a listener of protocol UDP or SCTP; this one is {protocol}"
            ),
        );
    }
    if let Some(protocol) = protocol.filter(|protocol| !protocol.is_http())
        && own.trusted_proxies.is_some()
    {
        o.fault(
            "amphora",
            format!("has trusted_proxies, which need a listener of protocol HTTP or TERMINATED_HTTPS; this one is {protocol}"),
        );
    }
    if protocol.is_some_and(|protocol| protocol.is_http())
        && own.trusted_proxies.is_some()
        && o.elements("rate_limit_policies") == 0
    {
        o.fault(
            "amphora",
            "has trusted_proxies, which need rate_limit_policies: nothing else asks whose a request is",
        );
    }
    OfListener {
        flow_log: flow_log(o, cx, protocol, &own),
        member_connection_limit: own.limit,
        trusted_proxies: own.trusted_proxies,
        routing: own.routing,
    }
}

/// What the listener says itself goes before what the load balancer says.
fn flow_log(
    o: &mut Object<'_>,
    cx: &Context,
    protocol: Option<ListenerProtocol>,
    own: &Given,
) -> Option<FlowLog> {
    if protocol == Some(ListenerProtocol::Prometheus) {
        // Octavia renders `no log` for them.
        if own.on == Some(true) || own.format.is_some() {
            o.fault("amphora", "listeners of protocol PROMETHEUS have no flow log");
        }
        return None;
    }
    if let Some(protocol) = protocol.filter(|protocol| protocol.is_forwarded()) {
        // The kernel forwards; nor does keepalived log.
        if own.on == Some(true) || own.format.is_some() {
            o.fault("amphora", format!("listeners of protocol {protocol} have no flow log"));
        }
        return None;
    }
    let all = &cx.flow_log;
    let said = |given: &Given| given.on.or(given.format.as_ref().map(|_| true));
    if !said(own).or(said(all)).unwrap_or(false) {
        return None;
    }
    let format = own.format.as_deref().or(all.format.as_deref()).unwrap_or(FlowLog::DEFAULT_FORMAT);
    let format = with_ids(format, cx);
    // What is too long by itself was told where it stands.
    let given = own.format.as_ref().or(all.format.as_ref()).map_or(0, String::len);
    if format.len() > FlowLog::MAX_FORMAT && given <= FlowLog::MAX_FORMAT {
        o.fault("amphora", format!("has a format of more than {} bytes, with its ids", FlowLog::MAX_FORMAT));
    }
    Some(FlowLog { format: format.into(), facility: own.facility.or(all.facility).unwrap_or(0) })
}

/// The ids in place, as Octavia's `_format_log_string` puts them there.
fn with_ids(format: &str, cx: &Context) -> String {
    let lb = cx.id.map(|id| id.to_string()).unwrap_or_default();
    format.replace("{{ project_id }}", cx.project.as_deref().unwrap_or("-")).replace("{{ lb_id }}", &lb)
}
