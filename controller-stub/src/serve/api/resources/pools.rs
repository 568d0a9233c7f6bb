//! Pools.

use amphora_bundle::Kind;
use serde_json::{Value, json};

use super::{
    super::{
        attributes::{Body, LISTENER, LOAD_BALANCER, MEMBER, Object, POOL, Resource},
        change::{Change, check_quota},
        fault::Fault,
        request::Answer,
        scope::Scope,
    },
    LISTENERS_OF_POOL, Names, fresh, health_monitors, is_alive, is_mutable, is_not_shared, may_have_children,
    members, protocols_fit, tls,
    within::{own, updated},
};
use crate::serve::policies::Rule;

pub(in crate::serve::api) fn post(
    scope: &Scope<'_>,
    resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    let said = scope.body(resource, Body::Post)?;
    for name in ["protocol", "lb_algorithm"] {
        if said.get(name).is_none() {
            return Err(Fault::input(name, "None", "Mandatory field missing."));
        }
    }
    let listener = match (said.text("loadbalancer_id"), said.text("listener_id")) {
        (None, None) => {
            return Err(Fault::validation("Must provide at least one of: loadbalancer_id, listener_id"));
        }
        (_, Some(id)) => Some(LISTENER.get(scope.t, id)?),
        (Some(_), None) => None,
    };
    let load_balancer = match (&listener, said.text("loadbalancer_id")) {
        (Some(listener), Some(id)) if listener.str("loadbalancer_id") != id => {
            return Err(Fault::not_found(LISTENER.title, listener.id()));
        }
        (Some(listener), _) => listener.str("loadbalancer_id").to_owned(),
        (None, id) => id.unwrap_or_default().to_owned(),
    };
    let project = LOAD_BALANCER.get(scope.t, &load_balancer)?;
    scope.permit(Rule::Write, project.str("project_id"))?;
    if let Some(listener) = &listener {
        may_have_children(listener.str("protocol"))?;
        protocols_fit(listener.str("protocol"), said.str("protocol"))?;
        is_alive(&LISTENER, listener)?;
        if listener.text("default_pool_id").is_some() {
            return Err(Fault::new(409, "This listener already has a default pool"));
        }
    }
    let change = Change::begin(scope, &load_balancer)?;
    let pool = create(scope, &change, said)?;
    if let Some(listener) = &listener {
        let mut changes = Object::default();
        changes.set("default_pool_id", pool.id());
        change.update(&LISTENER, listener.id(), &changes)?;
    }
    change.finish()?;
    fresh(scope, resource, 201, pool.id())
}

/// Makes a pool, its members and its health monitor.
pub(super) fn create(scope: &Scope<'_>, change: &Change<'_>, mut said: Object) -> Result<Object, Fault> {
    check_quota(scope, &POOL, change.project(), 1)?;
    let monitor = said.take_object("healthmonitor");
    let within = said.take_objects("members");
    let is_tls = said.is("tls_enabled");
    tls::fill(scope, &POOL, &mut said, is_tls);
    validate(scope, change.project(), &said, None)?;
    if is_tls {
        tls::versions_and_protocols(scope, &said)?;
    }
    said.set("loadbalancer_id", change.id());
    let pool = change.create(&POOL, said)?;
    if let Some(monitor) = monitor {
        health_monitors::create(scope, change, &pool, monitor)?;
    }
    check_quota(scope, &MEMBER, change.project(), within.len())?;
    for member in within {
        members::create(scope, change, &pool, member)?;
    }
    Ok(pool)
}

pub(in crate::serve::api) fn put(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let mut said = scope.body(resource, Body::Put)?;
    let pool = own(scope, resource, names)?;
    is_alive(resource, &pool)?;
    if said.has("lb_algorithm") && said.get("lb_algorithm").is_none() {
        return Err(Fault::option("None", "lb_algorithm"));
    }
    if said.get("session_persistence").is_some()
        && let Some(mut persistence) = said.take_object("session_persistence")
    {
        let old = pool.get("session_persistence").and_then(|old| old.get("type")).cloned();
        if persistence.get("type").is_none()
            && let Some(kind) = old
        {
            persistence.set("type", kind);
        }
        said.set("session_persistence", Value::Object(persistence.0));
    }
    validate(scope, pool.str("project_id"), &said, Some(&pool))?;
    if said.get("name").is_some_and(|name| name != pool.str("name")) {
        is_not_shared(scope, &pool, true)?;
    }
    tls::versions_and_protocols(scope, &said)?;
    let change = Change::begin(scope, pool.str("loadbalancer_id"))?;
    change.pend_all(&LISTENER, LISTENERS_OF_POOL, pool.id())?;
    updated(scope, &change, resource, pool.id(), &scope.changes(resource, said))
}

pub(in crate::serve::api) fn delete(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    let pool = own(scope, resource, names)?;
    if pool.str("provisioning_status") == "PENDING_DELETE" {
        return Ok(Answer::empty(204));
    }
    let user = "SELECT p.id FROM l7policy p JOIN listener l ON l.id = p.listener_id WHERE p.redirect_pool_id = ?1 \
                AND p.provisioning_status <> 'PENDING_DELETE' AND l.provisioning_status <> 'PENDING_DELETE'";
    let users: Vec<String> =
        scope.t.prepare_cached(user)?.query_map([pool.id()], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if let Some(user) = users.first() {
        return Err(Fault::new(409, format!("Pool {} is in use by L7 policy {user}", pool.id())));
    }
    is_not_shared(scope, &pool, false)?;
    let change = Change::begin(scope, pool.str("loadbalancer_id"))?;
    change.pend_all(&LISTENER, LISTENERS_OF_POOL, pool.id())?;
    scope
        .t
        .prepare_cached("UPDATE listener SET default_pool_id = NULL WHERE default_pool_id = ?1")?
        .execute([pool.id()])?;
    change.delete(resource, pool.id())?;
    change.finish_deletion()?;
    Ok(Answer::empty(204))
}

/// A change of what is in a pool: the pool and its listeners are PENDING as well.
pub(super) fn change_within<'a>(scope: &'a Scope<'a>, pool: &Object) -> Result<Change<'a>, Fault> {
    is_mutable(scope, &POOL, pool)?;
    let change = Change::begin(scope, pool.str("loadbalancer_id"))?;
    change.pend(&POOL, pool.id())?;
    change.pend_all(&LISTENER, LISTENERS_OF_POOL, pool.id())?;
    Ok(change)
}

/// Whether what is in a pool may be changed now.
pub(super) fn could_change_within(scope: &Scope<'_>, pool: &Object) -> Result<(), Fault> {
    is_mutable(scope, &POOL, pool)?;
    Change::could_begin(scope, pool.str("loadbalancer_id"))
}

/// Whether a protocol is one of datagrams.
pub(super) fn is_of_datagrams(protocol: &str) -> bool {
    matches!(protocol, "UDP" | "SCTP")
}

fn validate(scope: &Scope<'_>, project: &str, said: &Object, old: Option<&Object>) -> Result<(), Fault> {
    if let Some(Value::Object(persistence)) = said.get("session_persistence") {
        let protocol = old.unwrap_or(said).str("protocol");
        session_persistence(protocol, &Object(persistence.clone()), old.is_some())?;
    }
    if said.str("lb_algorithm") == "SOURCE_IP_PORT" {
        return Err(Fault::new(
            501,
            "Provider 'amphora' does not support a requested option: Amphora provider does not support \
             SOURCE_IP_PORT algorithm.",
        ));
    }
    let after = |name| if said.has(name) { said.text(name) } else { old.and_then(|old| old.text(name)) };
    if after("crl_container_ref").is_some() && after("ca_tls_container_ref").is_none() {
        let had = old.is_some_and(|old| old.text("ca_tls_container_ref").is_some());
        return Err(Fault::validation(match (old.is_some(), had) {
            (false, _) => "A CA certificate reference is required to specify a revocation list.",
            (true, false) => "A CA reference is required to specify a certificate revocation list.",
            (true, true) => "A CA reference cannot be removed when a certificate revocation list is present.",
        }));
    }
    let [own, ca, crl] = ["tls_container_ref", "ca_tls_container_ref", "crl_container_ref"];
    let references = [(own, Kind::Identity), (ca, Kind::Authorities), (crl, Kind::Revocations)];
    let references = references.into_iter().filter_map(|(name, kind)| Some((said.text(name)?, kind)));
    tls::are_usable(scope, project, &references.collect::<Vec<_>>())?;
    if said.has(ca) || said.has(crl) {
        tls::revocations_fit(scope, project, after(ca), after(crl))?;
    }
    tls::ciphers(scope, said)
}

fn session_persistence(protocol: &str, said: &Object, is_change: bool) -> Result<(), Fault> {
    let kind = said.str("type");
    let cookie = said.text("cookie_name");
    if is_of_datagrams(protocol) {
        if kind == "SOURCE_IP" && cookie.is_some() {
            return Err(Fault::validation(
                "session_persistence SOURCE_IP type for UDP and SCTP protocols only accepts: type, \
                 persistence_timeout, persistence_granularity.",
            ));
        }
        if cookie.is_some() {
            return Err(Fault::validation("Cookie names are not supported for UDP/SCTP pools."));
        }
        if matches!(kind, "HTTP_COOKIE" | "APP_COOKIE") {
            return Err(Fault::validation(format_args!(
                "Session persistence of type {kind} is not supported for UDP/SCTP protocol pools."
            )));
        }
    } else if said.integer("persistence_timeout").is_some_and(|time| time != 0)
        || said.get("persistence_granularity").is_some_and(|granularity| *granularity != json!(""))
    {
        let protocols = if is_change { "UDP" } else { "UDP and SCTP" };
        return Err(Fault::validation(format_args!(
            "persistence_timeout and persistence_granularity is only for {protocols} protocol pools."
        )));
    }
    if kind.is_empty() {
        return Err(Fault::validation("Invalid session_persistence provided."));
    }
    if let Some(cookie) = cookie {
        if kind != "APP_COOKIE" {
            return Err(Fault::validation(
                "Field \"cookie_name\" can only be specified with session persistence of type \"APP_COOKIE\".",
            ));
        }
        let is_token = |c: char| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(c);
        if !cookie.chars().all(is_token) {
            return Err(Fault::validation("Supplied \"cookie_name\" is invalid."));
        }
    } else if kind == "APP_COOKIE" {
        return Err(Fault::validation(
            "Field \"cookie_name\" must be specified when using the \"APP_COOKIE\" session persistence type.",
        ));
    }
    Ok(())
}
