//! Policies of rate limits, and their rules.

use amphora_model::RateLimitPolicy;

use super::{
    super::{
        attributes::{Body, LISTENER, Object, RATE_LIMIT_POLICY, RATE_LIMIT_RULE, Resource},
        change::Change,
        fault::Fault,
        request::Answer,
        scope::Scope,
    },
    Names, fresh, is_alive, is_mutable, list_within, listener_of, may_have_children,
    within::{both, change_of_listener, deleted, keeps_what_must_be, outer, own, updated},
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
    let id = create(scope, &change, &listener, said)?;
    change.finish()?;
    fresh(scope, resource, 201, &id)
}

/// Makes a policy with its rules. Tells its identifier.
pub(super) fn create(
    scope: &Scope<'_>,
    change: &Change<'_>,
    listener: &Object,
    mut said: Object,
) -> Result<String, Fault> {
    may_have_children(listener.str("protocol"))?;
    let rules = said.take_objects("rules");
    // The amphora's model says so, too, once all have been written.
    if rules.len() > RateLimitPolicy::MAX_RULES {
        let most = RateLimitPolicy::MAX_RULES;
        return Err(Fault::validation(format_args!("A rate limit policy has at most {most} rules.")));
    }
    let of_listener = "listener_id = ?1 AND provisioning_status <> 'PENDING_DELETE'";
    let count = RATE_LIMIT_POLICY.count(scope.t, of_listener, &[&listener.id()])?;
    if usize::try_from(count).unwrap_or(usize::MAX) >= RateLimitPolicy::MAX_POLICIES {
        let most = RateLimitPolicy::MAX_POLICIES;
        return Err(Fault::validation(format_args!("A listener has at most {most} rate limit policies.")));
    }
    scope.fill(&RATE_LIMIT_POLICY, &mut said);
    said.set("listener_id", listener.id());
    let policy = change.create(&RATE_LIMIT_POLICY, said)?;
    for rule in rules {
        create_rule(scope, change, policy.id(), rule)?;
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
    keeps_what_must_be(resource, &said)?;
    let change = change_of_listener(scope, &listener_of(scope, &policy)?)?;
    updated(scope, &change, resource, policy.id(), &scope.changes(resource, said))
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
        |change| change.delete_all(&RATE_LIMIT_RULE, "rate_limit_policy_id = ?1", policy.id()),
    )
}

pub(in crate::serve::api) fn rules(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let policy = names.first().copied().unwrap_or_default();
    list_within(scope, resource, &RATE_LIMIT_POLICY, policy, "rate_limit_policy_id")
}

pub(in crate::serve::api) fn get_rule(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    outer(scope, &RATE_LIMIT_POLICY, names)?;
    super::get(scope, resource, names)
}

pub(in crate::serve::api) fn post_rule(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let policy = outer(scope, &RATE_LIMIT_POLICY, names)?;
    let said = scope.body(resource, Body::Post)?;
    scope.permit(Rule::Write, policy.str("project_id"))?;
    let change = change_within(scope, &policy)?;
    let id = create_rule(scope, &change, policy.id(), said)?;
    change.finish()?;
    fresh(scope, resource, 201, &id)
}

fn create_rule(
    scope: &Scope<'_>,
    change: &Change<'_>,
    policy: &str,
    mut said: Object,
) -> Result<String, Fault> {
    scope.fill(&RATE_LIMIT_RULE, &mut said);
    said.set("rate_limit_policy_id", policy);
    Ok(change.create(&RATE_LIMIT_RULE, said)?.id().to_owned())
}

pub(in crate::serve::api) fn put_rule(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    let (policy, rule) = both(scope, &RATE_LIMIT_POLICY, resource, names)?;
    let said = scope.body(resource, Body::Put)?;
    is_alive(resource, &rule)?;
    keeps_what_must_be(resource, &said)?;
    let change = change_within(scope, &policy)?;
    updated(scope, &change, resource, rule.id(), &scope.changes(resource, said))
}

pub(in crate::serve::api) fn delete_rule(
    scope: &Scope<'_>,
    resource: &'static Resource,
    names: &Names<'_>,
) -> Result<Answer, Fault> {
    scope.request.only(&[])?;
    let (policy, rule) = both(scope, &RATE_LIMIT_POLICY, resource, names)?;
    deleted(resource, &rule, Some(&policy), || change_within(scope, &policy), |_| Ok(()))
}

/// A change of what is in a policy.
fn change_within<'a>(scope: &'a Scope<'a>, policy: &Object) -> Result<Change<'a>, Fault> {
    is_mutable(scope, &RATE_LIMIT_POLICY, policy)?;
    let change = change_of_listener(scope, &listener_of(scope, policy)?)?;
    change.pend(&RATE_LIMIT_POLICY, policy.id())?;
    Ok(change)
}
