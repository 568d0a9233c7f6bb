//! `default_pools` and `redirect_pools`, of an `amphora` object.

use serde_json::{Value, json};

use super::{
    Context, Json, check, edits, is_definition,
    object::{MAX_NAME, Object},
};
use crate::{
    Answer, Edits, ListenerProtocol, PoolCookie, PoolProtocol, PoolShare, RequestIdField, Routing,
    SessionPersistence, Traceparent, WeightedPools,
};

/// What the `amphora` of an L7 policy says.
#[derive(Default)]
pub(super) struct OfPolicy {
    /// What it says of `action` is none, which is told.
    pub(super) is_no_action: bool,
    pub(super) action: Option<&'static str>,
    pub(super) pools: Option<WeightedPools>,
    pub(super) edits: Option<Edits>,
    pub(super) answer: Option<Answer>,
}

/// Reads the object of a policy, if it is there.
pub(super) fn of_policy(o: &mut Object<'_>, cx: &Context, protocol: Option<ListenerProtocol>) -> OfPolicy {
    let read = o.object("amphora", |o| {
        const ACTIONS: &[&str] = &["EDIT", "ANSWER"];
        let action = o.one_of("action", ACTIONS);
        let own = OfPolicy {
            action,
            is_no_action: action.is_none() && o.given("action").is_some(),
            pools: weighted_pools(o, cx, "redirect_pools", protocol),
            edits: edits::edits(o),
            answer: edits::answer(o),
        };
        match action {
            Some("EDIT") if !o.has("edits") => o.missing::<()>("edits"),
            Some("ANSWER") if !o.has("answer") => o.missing::<()>("answer"),
            _ => None,
        };
        let others: &[&'static str] = match action {
            Some("EDIT") => &["answer", "redirect_pools"],
            Some(_) => &["edits", "redirect_pools"],
            None => &["answer"],
        };
        for name in others.iter().filter(|name| o.has(name)) {
            o.fault(
                name,
                match action {
                    Some(action) => format!("has no meaning with action {action}"),
                    None => "needs action ANSWER".to_owned(),
                },
            );
        }
        Some(own)
    });
    read.unwrap_or_default()
}

/// The name of the cookie of `HTTP_COOKIE`, which is not to be had twice.
const MEMBER_COOKIE: &str = "SRV";

/// A year and a day, which is more than clients keep any cookie for.
const MAX_AGE: u32 = 366 * 24 * 60 * 60;

/// What the `amphora` of a listener says of where requests go.
pub(super) fn of_listener(o: &mut Object<'_>, cx: &Context, protocol: Option<ListenerProtocol>) -> Routing {
    let pools = weighted_pools(o, cx, "default_pools", protocol);
    if let (Some(protocol), Some(_)) = (protocol, &pools)
        && (protocol.is_forwarded() || protocol == ListenerProtocol::Prometheus)
    {
        let reason = format!("listeners of protocol {protocol} have one pool at most");
        o.fault("default_pools", reason);
    }
    let request_id = o.object("request_id", request_id);
    const TRACEPARENT: &[&str] = &["PASS", "BEGIN"];
    let traceparent = match o.one_of("traceparent", TRACEPARENT) {
        Some("BEGIN") => Traceparent::Begin,
        _ => Traceparent::Pass,
    };
    if let Some(protocol) = protocol.filter(|protocol| !protocol.is_http()) {
        let needs = format!("needs a listener of protocol HTTP or TERMINATED_HTTPS; this one is {protocol}");
        for name in ["request_id", "traceparent"].into_iter().filter(|name| o.has(name)) {
            o.fault(name, needs.clone());
        }
    }
    Routing { pools, request_id, traceparent }
}

fn request_id(o: &mut Object<'_>) -> Option<RequestIdField> {
    let field = match o.has("field") {
        true => edits::field_name(o, "field")?,
        false => RequestIdField::DEFAULT,
    };
    Some(RequestIdField { field: field.to_owned(), keep: o.flag("keep", false) })
}

/// Several pools, with `pool_persistence` beside them.
pub(super) fn weighted_pools(
    o: &mut Object<'_>,
    cx: &Context,
    name: &'static str,
    protocol: Option<ListenerProtocol>,
) -> Option<WeightedPools> {
    let given = o.elements(name);
    let mut shares: Vec<PoolShare> = Vec::new();
    let listed = o.objects(name, |o| {
        let share = share(o, cx, protocol)?;
        if shares.iter().any(|other| other.pool == share.pool) {
            o.own_fault("is a pool that is in the list already");
        }
        shares.push(share);
        Some(())
    });
    let cookie = o.object("pool_persistence", pool_cookie);
    if given == 0 {
        if o.has(name) {
            o.fault(name, "must not be empty");
        }
        if o.has("pool_persistence") {
            o.fault("pool_persistence", format!("has no meaning without {name}"));
        }
        return None;
    }
    if !(2..=WeightedPools::MOST).contains(&given) {
        o.fault(name, format!("must be 2 to {} pools", WeightedPools::MOST));
    }
    if listed.len() == given && shares.iter().all(|share| share.weight == 0) {
        o.fault(name, "must have a pool of a weight above 0");
    }
    if let Some(protocol) = protocol
        && !protocol.is_http()
    {
        if o.has("pool_persistence") {
            let needs = "needs a listener of protocol HTTP or TERMINATED_HTTPS";
            o.fault("pool_persistence", format!("{needs}; this one is {protocol}"));
        }
        // A connection is of HTTP when its pool is, and that is known before it is chosen.
        let speaks_http = |share: &PoolShare| {
            cx.pools.get(share.pool).is_some_and(|pool| pool.protocol == PoolProtocol::Http)
        };
        if shares.iter().any(speaks_http) && !shares.iter().all(speaks_http) {
            o.fault(
                name,
                format!("must be all of protocol HTTP or none, for a listener of protocol {protocol}"),
            );
        }
    }
    if let Some(cookie) = &cookie {
        let taken = |share: &PoolShare| {
            let persistence = cx.pools.get(share.pool).and_then(|pool| pool.session_persistence.as_ref());
            matches!(persistence, Some(SessionPersistence::AppCookie { cookie_name }) if *cookie_name == cookie.name)
        };
        if shares.iter().any(taken) {
            o.fault("pool_persistence", "has the name of a cookie that a pool goes by");
        }
    }
    Some(WeightedPools { shares, cookie })
}

fn share(o: &mut Object<'_>, cx: &Context, protocol: Option<ListenerProtocol>) -> Option<PoolShare> {
    if let Some(Json::Object(pool)) = o.get("pool")
        && is_definition(pool)
    {
        o.fault("pool", "must refer to a pool of this document by its id or name");
    }
    if !o.has("pool") && o.given("pool_id").is_none() {
        o.missing::<()>("pool_id");
    }
    let pool = super::pool_reference(o, cx, "pool", "pool_id", protocol);
    let weight = o.integer("weight", 0..=WeightedPools::MAX_WEIGHT);
    if !o.has("weight") {
        o.missing::<()>("weight");
    }
    Some(PoolShare { pool: pool?, weight: weight? })
}

fn pool_cookie(o: &mut Object<'_>) -> Option<PoolCookie> {
    let name = o.require("cookie_name", |o, name| o.text(name, MAX_NAME));
    let max_age = o.integer("max_age", 1..=MAX_AGE);
    let name = name?;
    let checked = match name {
        MEMBER_COOKIE => Err(format!("must not be {MEMBER_COOKIE}, which is the cookie of HTTP_COOKIE")),
        _ => check::token(name),
    };
    checked.map_err(|reason| o.fault("cookie_name", reason)).ok()?;
    Some(PoolCookie { name: name.to_owned(), max_age })
}

/// Writes what a listener's `amphora` says of where requests go.
pub(super) fn write(document: &mut Value, routing: &Routing) {
    if let Some(pools) = &routing.pools {
        write_pools(&mut document["amphora"], "default_pools", pools);
    }
    if let Some(RequestIdField { field, keep }) = &routing.request_id {
        document["amphora"]["request_id"] = json!({ "field": field, "keep": keep });
    }
    if routing.traceparent == Traceparent::Begin {
        document["amphora"]["traceparent"] = "BEGIN".into();
    }
}

/// Writes several pools into an `amphora` object.
pub(super) fn write_pools(own: &mut Value, name: &str, pools: &WeightedPools) {
    let share = |share: &PoolShare| json!({ "pool_id": share.pool, "weight": share.weight });
    own[name] = pools.shares.iter().map(share).collect();
    if let Some(cookie) = &pools.cookie {
        own["pool_persistence"] = json!({ "cookie_name": cookie.name });
        if let Some(max_age) = cookie.max_age {
            own["pool_persistence"]["max_age"] = max_age.into();
        }
    }
}
