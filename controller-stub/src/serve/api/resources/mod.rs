//! What is special of a resource. All else follows from its table of attributes.

mod addresses;
pub(super) mod amphorae;
pub(super) mod flavors;
pub(super) mod health_monitors;
pub(super) mod l7policies;
pub(super) mod l7rules;
pub(super) mod listeners;
pub(super) mod load_balancers;
pub(super) mod members;
pub(super) mod networks;
pub(super) mod pools;
pub(super) mod ports;
pub(super) mod providers;
pub(super) mod quotas;
pub(super) mod rate_limits;
pub(super) mod statistics;
pub(super) mod tls;
pub(super) mod tree;
pub(super) mod vips;
mod within;

use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use super::{
    attributes::{LISTENER, Object, POOL, Resource, share_is_of_pool},
    fault::Fault,
    lists::{Condition, fields, list},
    request::Answer,
    scope::Scope,
};
use crate::serve::policies::{Context, Rule};

/// What a path has named between its words.
pub(super) type Names<'a> = [&'a str];

/// `GET` of one.
pub(super) fn get(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let object = named(scope, resource, names)?;
    scope.permit(Rule::Read, object.str("project_id"))?;
    shown(scope, resource, 200, &object)
}

/// The object that the last name of a path names; it must belong to the one before it.
pub(super) fn named(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Object, Fault> {
    let key = names.last().copied().unwrap_or_default();
    let object = resource.get(scope.t, key)?;
    if let [parent, _] = names {
        let belongs = ["pool_id", "l7policy_id", "rate_limit_policy_id"]
            .iter()
            .any(|name| object.text(name) == Some(*parent));
        if !belongs {
            return Err(Fault::not_found(resource.title, key));
        }
    }
    Ok(object)
}

/// An answer with an object as it is.
pub(super) fn shown(
    scope: &Scope<'_>,
    resource: &'static Resource,
    status: u16,
    object: &Object,
) -> Result<Answer, Fault> {
    Ok(Answer::new(status, Scope::named(resource, fields(scope, resource.show(object)))))
}

/// An answer with what is in the database now.
pub(super) fn fresh(
    scope: &Scope<'_>,
    resource: &'static Resource,
    status: u16,
    key: &str,
) -> Result<Answer, Fault> {
    shown(scope, resource, status, &resource.get(scope.t, key)?)
}

/// Of which project somebody sees what there is, when he asks for that of one or of none; `None` is of all.
pub(super) fn visible<'a>(
    context: &'a Context,
    asked: Option<&'a str>,
    global: Rule,
    own: Rule,
) -> Result<Option<&'a str>, Fault> {
    if context.may(global, asked) {
        return Ok(asked);
    }
    let project = asked.or(context.project_id.as_deref()).ok_or_else(Fault::forbidden)?;
    if context.may(own, Some(project)) { Ok(Some(project)) } else { Err(Fault::forbidden()) }
}

/// `GET` of those of a project, or of all projects.
pub(super) fn list_of_projects(
    scope: &Scope<'_>,
    resource: &'static Resource,
    global: Rule,
    own: Rule,
) -> Result<Answer, Fault> {
    let asked = scope.request.query.get("project_id");
    let project = visible(&scope.request.context, asked, global, own)?;
    let condition = match project {
        Some(project) => Condition::equal(&format!("{}.project_id", resource.table), project.to_owned()),
        None => Condition::default(),
    };
    Ok(Answer::new(200, list(scope, resource, condition, &["project_id"])?))
}

/// `GET` of all that may be seen.
pub(super) fn list_all(
    scope: &Scope<'_>,
    resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    list_of_projects(scope, resource, Rule::ReadGlobal, Rule::Read)
}

/// `GET` of those that belong to one.
pub(super) fn list_within(
    scope: &Scope<'_>,
    resource: &'static Resource,
    parent: &'static Resource,
    id: &str,
    column: &str,
) -> Result<Answer, Fault> {
    let parent = parent.get(scope.t, id)?;
    scope.permit(Rule::Read, parent.str("project_id"))?;
    let condition = Condition::equal(&format!("{}.{column}", resource.table), id.to_owned());
    Ok(Answer::new(200, list(scope, resource, condition, &[])?))
}

/// Refuses a change of what is about to go.
pub(super) fn is_alive(resource: &Resource, object: &Object) -> Result<(), Fault> {
    if object.str("provisioning_status") == "PENDING_DELETE" {
        return Err(Fault::immutable(resource.title, object.id()));
    }
    Ok(())
}

/// Refuses a change within what is about to go, or PENDING where that counts.
pub(super) fn is_mutable(scope: &Scope<'_>, resource: &Resource, object: &Object) -> Result<(), Fault> {
    is_alive(resource, object)?;
    if scope.config.api.strict_immutable && object.str("provisioning_status") != "ACTIVE" {
        return Err(Fault::immutable(resource.title, object.id()));
    }
    Ok(())
}

/// Refuses a pool that a listener cannot send to.
pub(super) fn protocols_fit(listener: &str, pool: &str) -> Result<(), Fault> {
    let fitting: &[&str] = match listener {
        "TCP" => &["HTTP", "HTTPS", "PROXY", "PROXYV2", "TCP"],
        "HTTP" | "TERMINATED_HTTPS" => &["HTTP", "PROXY", "PROXYV2"],
        "HTTPS" => &["HTTPS", "PROXY", "PROXYV2", "TCP"],
        "UDP" => &["UDP"],
        "SCTP" => &["SCTP"],
        _ => &[],
    };
    if fitting.contains(&pool) {
        return Ok(());
    }
    Err(Fault::validation(format_args!(
        "The pool protocol '{pool}' is invalid while the listener protocol is '{listener}'."
    )))
}

/// `ListenerNoChildren`.
pub(super) fn may_have_children(listener: &str) -> Result<(), Fault> {
    if listener == "PROMETHEUS" {
        return Err(Fault::new(400, "Protocol PROMETHEUS listeners cannot have child objects."));
    }
    Ok(())
}

/// A pool of the same load balancer that a listener may send to.
pub(super) fn pool_for(
    scope: &Scope<'_>,
    load_balancer: &str,
    listener_protocol: &str,
    id: &str,
) -> Result<(), Fault> {
    may_have_children(listener_protocol)?;
    let pool = POOL.find(scope.t, id)?.filter(|pool| pool.str("loadbalancer_id") == load_balancer);
    let pool = pool.ok_or_else(|| Fault::not_found(POOL.title, id))?;
    is_alive(&POOL, &pool)?;
    protocols_fit(listener_protocol, pool.str("protocol"))
}

/// The listeners that a pool is behind, by itself or with others: the condition of [`super::change::Change::pend_all`].
pub(super) const LISTENERS_OF_POOL: &str = concat!(
    "default_pool_id = ?1 OR id IN (SELECT listener_id FROM l7policy WHERE redirect_pool_id = ?1) \
     OR id IN (SELECT l.id FROM pool JOIN listener l ON l.load_balancer_id = pool.load_balancer_id, \
     json_each(l.amphora, '$.default_pools') share WHERE pool.id = ?1 AND l.amphora IS NOT NULL AND ",
    share_is_of_pool!(),
    ") OR id IN (SELECT l.id FROM pool JOIN listener l ON l.load_balancer_id = pool.load_balancer_id \
     JOIN l7policy p ON p.listener_id = l.id, json_each(p.amphora, '$.redirect_pools') share \
     WHERE pool.id = ?1 AND p.amphora IS NOT NULL AND ",
    share_is_of_pool!(),
    ")"
);

/// Refuses (409) a pool that an object `amphora` of a listener or of a policy names, as it is called now if it is to be `renamed`.
pub(super) fn is_not_shared(scope: &Scope<'_>, pool: &Object, renamed: bool) -> Result<(), Fault> {
    const USERS: &str = concat!(
        "SELECT 'listener ' || l.id FROM pool JOIN listener l ON l.load_balancer_id = pool.load_balancer_id, \
         json_each(l.amphora, '$.default_pools') share WHERE pool.id = ?1 AND l.amphora IS NOT NULL \
         AND l.provisioning_status <> 'PENDING_DELETE' AND (?2 = 0 OR share.value ->> '$.pool.name' = pool.name) AND ",
        share_is_of_pool!(),
        " UNION ALL SELECT 'L7 policy ' || p.id FROM pool JOIN listener l ON l.load_balancer_id = pool.load_balancer_id \
         JOIN l7policy p ON p.listener_id = l.id, json_each(p.amphora, '$.redirect_pools') share \
         WHERE pool.id = ?1 AND p.amphora IS NOT NULL AND p.provisioning_status <> 'PENDING_DELETE' \
         AND l.provisioning_status <> 'PENDING_DELETE' AND (?2 = 0 OR share.value ->> '$.pool.name' = pool.name) AND ",
        share_is_of_pool!(),
        " LIMIT 1"
    );
    let user: Option<String> =
        scope.t.prepare_cached(USERS)?.query_row(params![pool.id(), renamed], |row| row.get(0)).optional()?;
    match user {
        Some(user) => Err(Fault::new(409, format!("Pool {} is in use by {user}", pool.id()))),
        None => Ok(()),
    }
}

/// The listener of a policy.
pub(super) fn listener_of(scope: &Scope<'_>, policy: &Object) -> Result<Object, Fault> {
    LISTENER.get(scope.t, policy.str("listener_id"))
}

/// A value of JSON, or `None` for `null`, as Python shows it.
pub(super) fn or_none(value: Option<&Value>) -> String {
    value.map_or_else(|| "None".to_owned(), super::attributes::python)
}
