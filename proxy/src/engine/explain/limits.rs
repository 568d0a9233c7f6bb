//! What rate limits have counted of who asks, and would say of this one.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use amphora_ipc::proxy::{LimitCount, LimitVerdict};
use amphora_model::{Listener, RateLimitMetric, RateLimitPolicy, RateLimitRule};

use crate::{
    http::RequestView,
    limits::rate::{Asked, Counted, Foreseen, Moment, RateLimits},
};

/// What all of a listener's would do, in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Limited {
    /// It comes no further.
    Refused(String),
    /// It comes further after a while.
    Waits(String),
}

/// The policies of a listener that would count it, without what they have counted.
pub(super) fn enabled(listener: &Listener) -> Vec<LimitVerdict> {
    listener.rate_limit_policies.iter().filter(|policy| policy.enabled).map(limit).collect()
}

/// The client as they know it: of whom a request is that this peer has sent.
pub(super) fn client(limits: &RateLimits, peer: IpAddr, view: &RequestView<'_>) -> IpAddr {
    match limits.believed() {
        Some(believed) if believed.includes(peer) => believed.client(peer, view.values(believed.header())),
        _ => peer,
    }
}

/// Has them say what they have counted, and what they would do.
pub(super) fn look(
    verdicts: &mut [LimitVerdict],
    listener: &Listener,
    limits: &RateLimits,
    asked: &Asked<'_>,
) -> Option<Limited> {
    let look = limits.look(asked);
    for verdict in &mut *verdicts {
        let known = listener.rate_limit_policies.iter().find(|policy| policy.id == verdict.id);
        let seen = look.policies.iter().find(|seen| seen.id == verdict.id);
        let (Some(policy), Some(seen)) = (known, seen) else { continue };
        verdict.counts = policy.rules.iter().zip(&seen.rules).map(|(rule, of)| count(rule, of)).collect();
        verdict.verdict = seen.foreseen.map(|foreseen| told(foreseen).1);
    }
    let decides = &look.policies[look.decides?];
    let named = verdicts.iter().find(|verdict| verdict.id == decides.id);
    let by = named.map_or_else(|| decides.id.to_string(), named_as);
    let foreseen = decides.foreseen?;
    let (what, _) = told(foreseen);
    let text = format!("{what} by rate limit {by}");
    Some(match foreseen {
        Foreseen::Wait(_) | Foreseen::Cut => Limited::Waits(text),
        _ => Limited::Refused(text),
    })
}

fn named_as(verdict: &LimitVerdict) -> String {
    if verdict.name.is_empty() { verdict.id.to_string() } else { verdict.name.clone() }
}

/// What is done, for the outcome and for the policy itself.
fn told(foreseen: Foreseen) -> (String, String) {
    match foreseen {
        Foreseen::Deny(wait) => {
            let after = seconds(wait.max(Duration::from_millis(100)));
            ("answered with 429".into(), format!("answered with 429: one more would pass after {after} s"))
        }
        Foreseen::Reject => ("closed".into(), "closed".into()),
        Foreseen::SilentDrop => ("dropped without a word".into(), "dropped without a word".into()),
        Foreseen::Wait(wait) => {
            let text = format!("kept waiting for {} s", seconds(wait));
            (text.clone(), text)
        }
        Foreseen::Cut => {
            let text = "closed as soon as something passes".to_owned();
            (text.clone(), text)
        }
    }
}

/// To a tenth, begun ones included.
fn seconds(span: Duration) -> String {
    let tenths = span.as_millis().div_ceil(100);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn count(rule: &RateLimitRule, of: &Counted) -> LimitCount {
    let client = match of.of {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(network) => format!("{network}/64"),
    };
    LimitCount {
        metric: rule.metric.as_str().to_owned(),
        client,
        count: of.count,
        threshold: rule.threshold.into(),
        interval_s: rule.interval.as_secs(),
        broken: of.is_broken,
    }
}

fn limit(policy: &RateLimitPolicy) -> LimitVerdict {
    let paths = |rule: &RateLimitRule| match rule.metric {
        RateLimitMetric::RequestsPerUrl if !rule.urls.is_empty() => format!(" to {}", rule.urls.join(", ")),
        _ => String::new(),
    };
    let rules = policy.rules.iter().map(|rule| {
        let (metric, paths) = (rule.metric.as_str(), paths(rule));
        format!("{metric} {}{paths} in {} s", rule.threshold, rule.interval.as_secs())
    });
    LimitVerdict {
        id: policy.id,
        name: policy.name.clone(),
        action: policy.action.name().as_str().to_owned(),
        rules: rules.collect(),
        counts: Vec::new(),
        verdict: None,
    }
}

/// A moment of the clock that limits have.
pub(super) fn moment(now: Instant, epoch: Instant) -> Moment {
    Moment::after(now.saturating_duration_since(epoch))
}
