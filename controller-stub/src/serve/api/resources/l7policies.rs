//! L7 policies.

use rusqlite::params;
use serde_json::{Value, json};

use super::{
    super::{
        attributes::{Body, L7POLICY, L7RULE, LISTENER, OWN_ACTIONS, Object, Resource},
        change::{Change, check_quota},
        fault::Fault,
        request::Answer,
        scope::Scope,
    },
    Names, fresh, is_alive, l7rules, listener_of, may_have_children, pool_for, tree,
    within::{change_of_listener, deleted, own},
};
use crate::serve::policies::Rule;

pub(in crate::serve::api) fn post(
    scope: &Scope<'_>,
    resource: &'static Resource,
    _names: &Names<'_>,
) -> Result<Answer, Fault> {
    let said = scope.body(resource, Body::Post)?;
    let listener = LISTENER.get(scope.t, said.str("listener_id"))?;
    scope.permit(Rule::Write, listener.str("project_id"))?;
    let change = change_of_listener(scope, &listener)?;
    let id = create(scope, &change, &listener, said, &tree::Pools::default())?;
    change.finish()?;
    fresh(scope, resource, 201, &id)
}

/// Makes a policy with its rules. Tells its identifier.
pub(super) fn create(
    scope: &Scope<'_>,
    change: &Change<'_>,
    listener: &Object,
    mut said: Object,
    pools: &tree::Pools,
) -> Result<String, Fault> {
    check_quota(scope, &L7POLICY, change.project(), 1)?;
    may_have_children(listener.str("protocol"))?;
    if let Some(pool) = said.take_object("redirect_pool") {
        said.set("redirect_pool_id", pools.find(&pool)?);
    }
    let rules = said.take_objects("rules");
    scope.fill(&L7POLICY, &mut said);
    own_action(&mut said, None)?;
    sanitize(&mut said)?;
    settle(&mut said);
    if let Some(pool) = said.text("redirect_pool_id") {
        pool_for(scope, change.id(), listener.str("protocol"), pool)?;
    }
    let position = said.integer("position").unwrap_or(i64::MAX);
    said.set("listener_id", listener.id());
    let policy = change.create(&L7POLICY, said)?;
    place(scope, listener.id(), policy.id(), position)?;
    if rules.len() > l7rules::MOST {
        return Err(l7rules::too_many(policy.id()));
    }
    for rule in rules {
        l7rules::create(scope, change, policy.id(), rule)?;
    }
    Ok(policy.id().to_owned())
}

pub(in crate::serve::api) fn put(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let said = scope.body(resource, Body::Put)?;
    let policy = own(scope, resource, names)?;
    is_alive(resource, &policy)?;
    let listener = listener_of(scope, &policy)?;
    is_alive(&LISTENER, &listener)?;
    if said.0.is_empty() {
        return Err(arguments("Invalid update options"));
    }
    let position = said.integer("position");
    let mut changes = scope.changes(resource, said);
    changes.take("position");
    changes.0.remove("position");
    own_action(&mut changes, Some(&policy))?;
    sanitize(&mut changes)?;
    if changes.has("action") {
        settle(&mut changes);
    }
    if let Some(pool) = changes.text("redirect_pool_id") {
        pool_for(scope, listener.str("loadbalancer_id"), listener.str("protocol"), pool)?;
    }
    let change = change_of_listener(scope, &listener)?;
    change.update(resource, policy.id(), &changes)?;
    if let Some(position) = position {
        move_to(scope, listener.id(), policy.id(), position)?;
    }
    change.finish()?;
    fresh(scope, resource, 200, policy.id())
}

pub(in crate::serve::api) fn delete(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    let policy = own(scope, resource, names)?;
    let listener = listener_of(scope, &policy)?;
    deleted(
        resource,
        &policy,
        Some(&listener),
        || change_of_listener(scope, &listener),
        |_| order(scope, &others(scope, listener.id(), policy.id())?),
    )
}

/// The policies of a listener that stay, in order, without one.
fn others(scope: &Scope<'_>, listener: &str, without: &str) -> Result<Vec<String>, Fault> {
    let text = "SELECT id FROM l7policy WHERE listener_id = ?1 AND id <> ?2 AND provisioning_status <> \
                'PENDING_DELETE' ORDER BY position, created_at, id";
    let mut query = scope.t.prepare_cached(text)?;
    let ids = query.query_map([listener, without], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// A new policy gets a position; those behind it make room.
fn place(scope: &Scope<'_>, listener: &str, policy: &str, position: i64) -> Result<(), Fault> {
    let others = "listener_id = ?1 AND id <> ?2 AND provisioning_status <> 'PENDING_DELETE'";
    let count = L7POLICY.count(scope.t, others, &[&listener, &policy])?;
    let position = position.clamp(1, count + 1);
    if position <= count {
        let text = format!("UPDATE l7policy SET position = position + 1 WHERE {others} AND position >= ?3");
        scope.t.prepare_cached(&text)?.execute(params![listener, policy, position])?;
    }
    scope
        .t
        .prepare_cached("UPDATE l7policy SET position = ?1 WHERE id = ?2")?
        .execute(params![position, policy])?;
    Ok(())
}

/// A policy gets another position; those behind it make room. Positions are 1, 2, 3, whatever was asked for.
fn move_to(scope: &Scope<'_>, listener: &str, policy: &str, position: i64) -> Result<(), Fault> {
    let mut ids = others(scope, listener, policy)?;
    let at = usize::try_from(position - 1).unwrap_or(usize::MAX).min(ids.len());
    ids.insert(at, policy.to_owned());
    order(scope, &ids)
}

fn order(scope: &Scope<'_>, ids: &[String]) -> Result<(), Fault> {
    let mut update =
        scope.t.prepare_cached("UPDATE l7policy SET position = ?1 WHERE id = ?2 AND position <> ?1")?;
    for (at, id) in ids.iter().enumerate() {
        update.execute(params![i64::try_from(at + 1).unwrap_or(i64::MAX), id])?;
    }
    Ok(())
}

/// A change of what is in a policy: the policy and its listener are PENDING as well.
pub(super) fn change_within<'a>(scope: &'a Scope<'a>, policy: &Object) -> Result<Change<'a>, Fault> {
    super::is_mutable(scope, &L7POLICY, policy)?;
    let change = change_of_listener(scope, &listener_of(scope, policy)?)?;
    change.pend(&L7POLICY, policy.id())?;
    Ok(change)
}

fn arguments(text: &str) -> Fault {
    Fault::new(400, format!("Invalid L7 Policy arguments: {text}"))
}

/// Gives a policy the action that its `amphora` says, which is in place of its own; the row has it like the others. `old` is the one that is there already; then `said` has what changes.
fn own_action(said: &mut Object, old: Option<&Object>) -> Result<(), Fault> {
    let after = |name| if said.has(name) { said.get(name) } else { old.and_then(|old| old.get(name)) };
    let own = after("amphora").and_then(|amphora| amphora.get("action")).cloned();
    match own {
        Some(Value::String(own)) if OWN_ACTIONS.contains(&own.as_str()) => {
            if said.text("action").is_some() {
                return Err(arguments("action and amphora.action cannot be specified at the same time"));
            }
            let redirects = ["redirect_pool_id", "redirect_url", "redirect_prefix"];
            if let Some(name) = redirects.into_iter().find(|name| said.text(name).is_some()) {
                return Err(arguments(&format!("{name} has no meaning with amphora.action {own}")));
            }
            said.set("action", own);
        }
        Some(Value::Null) | None => {
            let had_own = old.is_some_and(|old| OWN_ACTIONS.contains(&old.str("action")));
            let says_none = said.has("action") && said.text("action").is_none();
            if said.text("action").is_none() && (had_own || says_none) {
                return Err(Fault::new(400, "Invalid L7 Policy action specified: None"));
            }
        }
        Some(_) => {
            let one_of = OWN_ACTIONS.join(", ");
            return Err(arguments(&format!("amphora.action should be one of: {one_of}")));
        }
    }
    Ok(())
}

/// `sanitize_l7policy_api_args`: what does not go together, and what follows from the rest.
fn sanitize(policy: &mut Object) -> Result<(), Fault> {
    let nothing =
        |policy: &mut Object, names: &[&str]| names.iter().for_each(|name| policy.set(name, Value::Null));
    if policy.has("action") {
        match policy.str("action") {
            "REJECT" => nothing(policy, &["redirect_url", "redirect_pool_id"]),
            "REDIRECT_TO_URL" => {
                if policy.text("redirect_url").is_none() {
                    return Err(arguments("redirect_url must not be None"));
                }
                nothing(policy, &["redirect_pool_id"]);
            }
            "REDIRECT_TO_POOL" => {
                let has_several =
                    policy.get("amphora").is_some_and(|own| own.get("redirect_pools").is_some());
                if policy.text("redirect_pool_id").is_none() && !has_several {
                    return Err(arguments("redirect_pool_id or redirect_pool must not be None"));
                }
                nothing(policy, &["redirect_url"]);
            }
            "REDIRECT_PREFIX" => {
                if policy.text("redirect_prefix").is_none() {
                    return Err(arguments("redirect_prefix must not be None"));
                }
            }
            own if OWN_ACTIONS.contains(&own) => {
                nothing(policy, &["redirect_url", "redirect_pool_id", "redirect_prefix"])
            }
            action => {
                let action = if action.is_empty() { "None" } else { action };
                return Err(Fault::new(400, format!("Invalid L7 Policy action specified: {action}")));
            }
        }
    }
    let [pool, url, prefix] =
        ["redirect_pool_id", "redirect_url", "redirect_prefix"].map(|name| policy.text(name).is_some());
    if pool && (url || prefix) {
        return Err(arguments(
            "Cannot specify redirect_pool_id and redirect_url or redirect_prefix at the same time",
        ));
    }
    if pool {
        policy.set("action", "REDIRECT_TO_POOL");
    }
    if url {
        policy.set("action", "REDIRECT_TO_URL");
    }
    if prefix {
        policy.set("action", "REDIRECT_PREFIX");
    }
    if (url || prefix) && policy.get("redirect_http_code").is_none() {
        policy.set("redirect_http_code", 302);
    }
    Ok(())
}

/// What an action has no use for is not kept.
fn settle(policy: &mut Object) {
    let unused: &[&str] = match policy.str("action") {
        "REJECT" | "EDIT" | "ANSWER" => {
            &["redirect_url", "redirect_pool_id", "redirect_prefix", "redirect_http_code"]
        }
        "REDIRECT_TO_URL" => &["redirect_pool_id", "redirect_prefix"],
        "REDIRECT_TO_POOL" => &["redirect_url", "redirect_prefix", "redirect_http_code"],
        _ => &["redirect_url", "redirect_pool_id"],
    };
    for name in unused {
        policy.set(name, json!(null));
    }
}

/// How many rules a policy has that stay.
pub(super) fn rules(scope: &Scope<'_>, policy: &str) -> Result<i64, Fault> {
    L7RULE.count(scope.t, "l7policy_id = ?1 AND provisioning_status <> 'PENDING_DELETE'", &[&policy])
}
