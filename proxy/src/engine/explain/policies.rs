//! Which policies a request meets, and which of their rules do not hold.

use amphora_ipc::proxy::PolicyVerdict;
use amphora_model::{L7Action, L7Policy, L7Rule, Listener};

use crate::{
    http::RequestView,
    l7::{L7Program, Scratch, Verdict},
    snapshot::Snapshot,
    tls::PeerFacts,
};

/// All of a listener, in the order of their ranks: those that answer, that redirect, that choose a pool or change something.
pub(super) fn of(
    snapshot: &Snapshot,
    listener: &Listener,
    view: &RequestView<'_>,
    peer: Option<&PeerFacts>,
    scratch: &mut Scratch,
) -> Vec<PolicyVerdict> {
    let mut failing: Vec<Vec<String>> = vec![Vec::new(); listener.l7policies.len()];
    L7Program::each_rule(listener, snapshot.expressions(), view, peer, scratch, |policy, rule, verdict| {
        failing[policy].extend(why_not(rule, verdict));
    });
    let mut policies: Vec<_> = listener.l7policies.iter().zip(failing).collect();
    policies.sort_by_key(|(policy, _)| (rank(&policy.action), policy.position));
    policies.into_iter().map(|(policy, failing)| judged(snapshot, policy, failing)).collect()
}

fn why_not(rule: &L7Rule, verdict: Verdict) -> Option<String> {
    let reason = match verdict {
        Verdict::Holds => return None,
        Verdict::Fails => "does not hold",
        Verdict::TooLong if rule.invert => return None,
        Verdict::TooLong => "does not hold, for its expression takes too long",
        Verdict::TooLarge => "was not judged: the expressions of all rules together are too large",
    };
    let not = if rule.invert { "not " } else { "" };
    let (kind, key) = rule.subject.type_and_key();
    let key = key.map(|key| format!(" {key}")).unwrap_or_default();
    let (compare, value) = (rule.compare.as_str(), &rule.value);
    Some(format!("rule {}: {not}{kind}{key} {compare} {value:?} {reason}", rule.id))
}

fn judged(snapshot: &Snapshot, policy: &L7Policy, failing: Vec<String>) -> PolicyVerdict {
    let mut why_not = Vec::new();
    if !policy.admin_state_up {
        why_not.push("it is disabled".to_owned());
    }
    if !policy.rules.iter().any(|rule| rule.admin_state_up) {
        why_not.push("it has no rule that is enabled".to_owned());
    }
    why_not.extend(failing);
    match &policy.action {
        L7Action::RedirectToPool(pool) if snapshot.pool_index(*pool).is_none() => {
            why_not.push(format!("its pool {pool} is disabled"));
        }
        L7Action::RedirectToPools(pools)
            if !pools
                .shares
                .iter()
                .any(|share| share.weight > 0 && snapshot.pool_index(share.pool).is_some()) =>
        {
            why_not.push("none of its pools is enabled with a weight".to_owned());
        }
        _ => {}
    }
    PolicyVerdict {
        id: policy.id,
        name: policy.name.clone(),
        position: policy.position,
        action: action(&policy.action),
        matches: why_not.is_empty(),
        why_not,
    }
}

/// Of policies in the order of [`of`], that by which a request is answered or redirected: the first that matches.
pub(super) fn which(policies: &[PolicyVerdict]) -> String {
    let named = |one: &PolicyVerdict| if one.name.is_empty() { one.id.to_string() } else { one.name.clone() };
    let first = policies.iter().find(|one| one.matches);
    first.map_or_else(|| " by a policy".to_owned(), |one| format!(" by policy {}", named(one)))
}

/// HAProxy's order of evaluation: `http-request deny`, `redirect`, `use_backend`.
fn rank(action: &L7Action) -> u8 {
    match action {
        L7Action::Reject | L7Action::Answer(_) => 0,
        L7Action::RedirectToUrl { .. } | L7Action::RedirectPrefix { .. } => 1,
        L7Action::RedirectToPool(_) | L7Action::RedirectToPools(_) | L7Action::Edit => 2,
    }
}

fn action(action: &L7Action) -> String {
    match action {
        L7Action::Reject => "REJECT".to_owned(),
        L7Action::Answer(_) => "ANSWER".to_owned(),
        L7Action::Edit => "EDIT".to_owned(),
        L7Action::RedirectToUrl { url, .. } => format!("REDIRECT_TO_URL {url}"),
        L7Action::RedirectPrefix { prefix, .. } => format!("REDIRECT_PREFIX {prefix}"),
        L7Action::RedirectToPool(pool) => format!("REDIRECT_TO_POOL {pool}"),
        L7Action::RedirectToPools(_) => "REDIRECT_TO_POOL of several".to_owned(),
    }
}
