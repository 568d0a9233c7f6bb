//! Health monitors of pools.

use serde_json::Value;

use super::{
    super::{
        attributes::{Body, HEALTH_MONITOR, Object, POOL, Resource, python},
        change::{Change, check_quota},
        fault::Fault,
        request::Answer,
        scope::Scope,
    },
    Names, fresh, is_alive, named, or_none, pools,
    within::{deleted, updated},
};
use crate::serve::policies::Rule;

/// What only monitors of HTTP have, with what it is by default.
const OF_HTTP: [(&str, &str); 3] = [("http_method", "GET"), ("url_path", "/"), ("expected_codes", "200")];

pub(in crate::serve::api) fn post(
    scope: &Scope<'_>,
    resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    let said = scope.body(resource, Body::Post)?;
    let pool = POOL.get(scope.t, said.str("pool_id"))?;
    scope.permit(Rule::Write, pool.str("project_id"))?;
    let change = pools::change_within(scope, &pool)?;
    let id = create(scope, &change, &pool, said)?;
    change.finish()?;
    fresh(scope, resource, 201, &id)
}

/// Makes a health monitor. Tells its identifier.
pub(super) fn create(
    scope: &Scope<'_>,
    change: &Change<'_>,
    pool: &Object,
    mut said: Object,
) -> Result<String, Fault> {
    if said.str("type") == "PING" && !scope.config.api.ping_health_monitors {
        return Err(Fault::disabled("type", "PING"));
    }
    fits(scope, pool.str("protocol"), said.str("type"), &said)?;
    check_quota(scope, &HEALTH_MONITOR, change.project(), 1)?;
    scope.fill(&HEALTH_MONITOR, &mut said);
    for name in ["type", "delay", "timeout", "max_retries"] {
        if said.get(name).is_none() {
            return Err(Fault::option("None", name));
        }
    }
    let kind = said.str("type").to_owned();
    for (name, default) in OF_HTTP {
        if is_http(&kind) {
            if said.text(name).is_none() {
                said.set(name, default);
            }
        } else if said.text(name).is_some() {
            return Err(Fault::option(name, format_args!("health monitors of type {kind}")));
        }
    }
    host(said.text("domain_name"), said.get("http_version"))?;
    if let Some(other) = HEALTH_MONITOR.all(scope.t, "pool_id = ?1", &[&pool.id()])?.pop() {
        if other.str("provisioning_status") != "PENDING_DELETE" {
            return Err(Fault::new(409, "This pool already has a health monitor"));
        }
        HEALTH_MONITOR.delete(scope.t, other.id())?;
    }
    said.set("pool_id", pool.id());
    Ok(change.create(&HEALTH_MONITOR, said)?.id().to_owned())
}

pub(in crate::serve::api) fn put(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let said = scope.body(resource, Body::Put)?;
    let monitor = named(scope, resource, names)?;
    let pool = POOL.get(scope.t, monitor.str("pool_id"))?;
    scope.permit(Rule::Write, pool.str("project_id"))?;
    is_alive(resource, &monitor)?;
    let kind = monitor.str("type");
    for (name, _) in OF_HTTP {
        if !is_http(kind) && said.has(name) {
            return Err(Fault::option(name, format_args!("health monitors of type {kind}")));
        }
    }
    for name in ["delay", "max_retries", "timeout"] {
        if said.has(name) && said.get(name).is_none() {
            return Err(Fault::option(or_none(None), name));
        }
    }
    let after = monitor.with(&said);
    host(after.text("domain_name"), after.get("http_version"))?;
    fits(scope, pool.str("protocol"), kind, &said)?;
    let mut changes = scope.changes(resource, said);
    for (name, default) in OF_HTTP {
        if changes.has(name) && changes.text(name).is_none() {
            changes.set(name, default);
        }
    }
    let change = pools::change_within(scope, &pool)?;
    updated(scope, &change, resource, monitor.id(), &changes)
}

pub(in crate::serve::api) fn delete(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    let monitor = named(scope, resource, names)?;
    let pool = POOL.get(scope.t, monitor.str("pool_id"))?;
    scope.permit(Rule::Write, pool.str("project_id"))?;
    let unwatched = "UPDATE member SET operating_status = 'NO_MONITOR' WHERE pool_id = ?1";
    deleted(
        resource,
        &monitor,
        Some(&pool),
        || pools::change_within(scope, &pool),
        |_| Ok(scope.t.prepare_cached(unwatched)?.execute([pool.id()]).map(drop)?),
    )
}

fn is_http(kind: &str) -> bool {
    matches!(kind, "HTTP" | "HTTPS")
}

/// Whether a pool of this protocol can be monitored so.
fn fits(scope: &Scope<'_>, protocol: &str, kind: &str, said: &Object) -> Result<(), Fault> {
    if !pools::is_of_datagrams(protocol) {
        if matches!(kind, "UDP-CONNECT" | "SCTP") {
            return Err(Fault::validation(format_args!(
                "The {kind} type is only supported for pools of type UDP/SCTP."
            )));
        }
        return Ok(());
    }
    if !matches!(kind, "UDP-CONNECT" | "SCTP" | "TCP" | "HTTP") {
        return Err(Fault::validation(format_args!(
            "The associated pool protocol is {protocol}, so only a UDP-CONNECT/SCTP/TCP/HTTP health monitor is \
             supported."
        )));
    }
    let least = i64::from(scope.config.api.udp_connect_min_interval);
    match said.integer("delay") {
        Some(delay) if kind == "UDP-CONNECT" && delay < least => Err(Fault::validation(format_args!(
            "The request delay value {delay} should be larger than {least} for UDP-CONNECT health monitor type."
        ))),
        _ => Ok(()),
    }
}

/// A host can be named from HTTP 1.1 on.
fn host(domain: Option<&str>, version: Option<&Value>) -> Result<(), Fault> {
    if domain.is_none() {
        return Ok(());
    }
    let Some(version) = version else {
        return Err(Fault::validation("'http_version' must be specified when 'domain_name' is provided."));
    };
    if version.as_f64().is_some_and(|version| version < 1.1) {
        return Err(Fault::option(
            format_args!("http_version {}", python(version)),
            "health monitors HTTP 1.1 domain name health check",
        ));
    }
    Ok(())
}
