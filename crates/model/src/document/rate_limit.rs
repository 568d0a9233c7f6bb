//! `rate_limit_policies` of a listener.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    Context, check,
    object::{COMMON, MAX_NAME, Metadata, Object},
};
use crate::{
    ListenerId, ListenerProtocol, RateLimitAction, RateLimitActionName, RateLimitMetric, RateLimitPolicy,
    RateLimitPolicyId, RateLimitQueue, RateLimitRule, RateLimitRuleId, TrustedProxies,
};

/// Reads `rate_limit_policies`, in the order of the document: the first that is broken decides.
pub(super) fn policies(
    o: &mut Object<'_>,
    cx: &mut Context,
    listener: Option<ListenerId>,
    protocol: Option<ListenerProtocol>,
) -> Vec<RateLimitPolicy> {
    let policies = o.objects("rate_limit_policies", |o| policy(o, cx, listener, protocol));
    if o.elements("rate_limit_policies") > RateLimitPolicy::MAX_POLICIES {
        o.fault("rate_limit_policies", format!("must not be more than {}", RateLimitPolicy::MAX_POLICIES));
    }
    policies
}

fn policy(
    o: &mut Object<'_>,
    cx: &mut Context,
    listener: Option<ListenerId>,
    protocol: Option<ListenerProtocol>,
) -> Option<RateLimitPolicy> {
    let id = o.id::<RateLimitPolicyId>();
    if let Some(id) = id
        && !cx.rate_limit_policies.insert(id)
    {
        o.fault("id", "is the id of another rate limit policy");
    }
    let name = o.name();
    let enabled = o.flag("enabled", true);
    let action = o.require("action", Object::choice::<RateLimitActionName>);
    if let (Some(action), Some(protocol)) = (action, protocol)
        && !action.is_of(protocol)
    {
        o.fault("action", format!("{action} is not for listeners of protocol {protocol}"));
    }
    let queue = queue(o, action);
    let rules = o.objects("rules", |o| rule(o, cx, protocol, action));
    match o.elements("rules") {
        0 if !o.has("rules") => {
            o.missing::<()>("rules");
        }
        1..=RateLimitPolicy::MAX_RULES => {}
        _ => o.fault("rules", format!("must be 1 to {}", RateLimitPolicy::MAX_RULES)),
    }
    together(o, protocol, action, &rules);
    o.parent("listener_id", listener);
    o.metadata(COMMON);
    o.metadata(&[("listener", Metadata::Text(MAX_NAME))]);
    let action = match action? {
        RateLimitActionName::Deny => RateLimitAction::Deny,
        RateLimitActionName::Reject => RateLimitAction::Reject,
        RateLimitActionName::SilentDrop => RateLimitAction::SilentDrop,
        RateLimitActionName::Queue => RateLimitAction::Queue(queue),
    };
    Some(RateLimitPolicy { id: id?, name, enabled, action, rules })
}

fn queue(o: &mut Object<'_>, action: Option<RateLimitActionName>) -> RateLimitQueue {
    let default = RateLimitQueue::default();
    let queue = o.object("amphora", |o| {
        let timeout = o.integer("queue_timeout", 1..=RateLimitQueue::MAX_TIMEOUT);
        let size = o.integer("queue_size", 1..=RateLimitQueue::MAX_SIZE);
        if let Some(action) = action.filter(|action| *action != RateLimitActionName::Queue) {
            for name in ["queue_timeout", "queue_size"].into_iter().filter(|name| o.has(name)) {
                o.fault(name, format!("has no meaning with action {action}"));
            }
        }
        Some(RateLimitQueue {
            timeout: timeout.map_or(default.timeout, Duration::from_secs),
            size: size.unwrap_or(default.size),
        })
    });
    queue.unwrap_or(default)
}

/// What the rules of one policy can be together.
fn together(
    o: &Object<'_>,
    protocol: Option<ListenerProtocol>,
    action: Option<RateLimitActionName>,
    rules: &[RateLimitRule],
) {
    if action == Some(RateLimitActionName::Queue) && rules.len() > 1 {
        o.fault("rules", "must be one with action QUEUE, whose turn is by one rate");
    }
    if rules.len() > 1 && rules.iter().any(|rule| rule.metric == RateLimitMetric::Packets) {
        o.fault("rules", "must be one of metric PACKETS, which the kernel counts each by itself");
        return;
    }
    let of_requests = protocol.is_some_and(ListenerProtocol::is_http);
    let mixed = rules.windows(2).any(|pair| pair[0].metric != pair[1].metric);
    if let Some(protocol) = protocol
        && !of_requests
        && mixed
    {
        o.fault("rules", format!("must be of one metric on a listener of protocol {protocol}"));
    }
}

fn rule(
    o: &mut Object<'_>,
    cx: &mut Context,
    protocol: Option<ListenerProtocol>,
    action: Option<RateLimitActionName>,
) -> Option<RateLimitRule> {
    let id = o.id::<RateLimitRuleId>();
    if let Some(id) = id
        && !cx.rate_limit_rules.insert(id)
    {
        o.fault("id", "is the id of another rate limit rule");
    }
    let name = o.name();
    let metric = o.require("metric", Object::choice::<RateLimitMetric>);
    let threshold = o.require("threshold", |o, name| o.integer(name, 1..=i32::MAX as u32));
    let interval = o.integer("interval", 1..=RateLimitRule::MAX_INTERVAL);
    let mut urls = Vec::new();
    let given = o.strings("urls", |url| {
        check::url_path(url)?;
        if url.contains('?') {
            return Err("must be a path without a query".to_owned());
        }
        if url.len() > MAX_NAME {
            return Err(format!("must not be longer than {MAX_NAME} characters"));
        }
        if urls.contains(&url.to_owned()) {
            return Err("is in the list already".to_owned());
        }
        urls.push(url.to_owned());
        Ok(())
    });
    if given.len() > RateLimitRule::MAX_URLS {
        o.fault("urls", format!("must not be more than {}", RateLimitRule::MAX_URLS));
    }
    o.metadata(COMMON);
    if let (Some(metric), Some(protocol)) = (metric, protocol) {
        if !metric.is_of(protocol) {
            o.fault("metric", format!("{metric} is not for listeners of protocol {protocol}"));
        } else if let Some(action) = action.filter(|action| action.is_of(protocol)) {
            enforced(action, metric).unwrap_or_else(|reason| o.fault("metric", reason));
        }
    }
    // Of every path each client could fill the table by itself.
    if metric == Some(RateLimitMetric::RequestsPerUrl) && given.is_empty() {
        o.fault("urls", "is required with metric REQUESTS_PER_URL");
    }
    // Octavia ignores `urls` of other metrics, and so they are not kept.
    if metric.is_some_and(|metric| metric != RateLimitMetric::RequestsPerUrl) {
        urls.clear();
    }
    let interval = Duration::from_secs(interval.unwrap_or(RateLimitRule::DEFAULT_INTERVAL));
    Some(RateLimitRule { id: id?, name, metric: metric?, threshold: threshold?, interval, urls })
}

/// Whether what a rule of the metric asks can be done with this action; why not.
pub(crate) fn enforced(action: RateLimitActionName, metric: RateLimitMetric) -> Result<(), String> {
    match (action, metric) {
        (RateLimitActionName::Queue, RateLimitMetric::Kbytes) => {
            Err("KBYTES cannot be queued: what has been sent already cannot wait".to_owned())
        }
        _ => Ok(()),
    }
}

/// Reads `trusted_proxies` and `client_address_header` of a listener's `amphora`.
pub(super) fn trusted_proxies(o: &mut Object<'_>) -> Option<TrustedProxies> {
    let mut networks = Vec::new();
    o.strings("trusted_proxies", |text| {
        let network = check::cidr(text)?;
        if networks.contains(&network) {
            return Err(format!("is the network {network}, which is in the list already"));
        }
        networks.push(network);
        Ok(())
    });
    if networks.len() > TrustedProxies::MAX_NETWORKS {
        o.fault("trusted_proxies", format!("must not be more than {}", TrustedProxies::MAX_NETWORKS));
    }
    let header = o.parsed("client_address_header", |name| {
        check::token(name)?;
        if name.eq_ignore_ascii_case("Forwarded") {
            return Err("is not supported: what it has are no addresses alone (RFC 7239)".to_owned());
        }
        if name.len() > MAX_NAME {
            return Err(format!("must not be longer than {MAX_NAME} characters"));
        }
        Ok(name.to_owned())
    });
    if o.has("client_address_header") && o.elements("trusted_proxies") == 0 {
        o.fault("client_address_header", "has no meaning without trusted_proxies");
    }
    if networks.is_empty() {
        return None;
    }
    Some(TrustedProxies {
        networks,
        header: header.unwrap_or_else(|| TrustedProxies::DEFAULT_HEADER.to_owned()),
    })
}

/// The document of a policy.
pub(super) fn write(policy: &RateLimitPolicy) -> Value {
    let mut document = json!({
        "id": policy.id,
        "name": policy.name,
        "enabled": policy.enabled,
        "action": policy.action.name().as_str(),
        "rules": policy.rules.iter().map(write_rule).collect::<Value>(),
    });
    if let RateLimitAction::Queue(queue) = policy.action {
        document["amphora"] = json!({ "queue_timeout": queue.timeout.as_secs(), "queue_size": queue.size });
    }
    document
}

fn write_rule(rule: &RateLimitRule) -> Value {
    let mut document = json!({
        "id": rule.id,
        "name": rule.name,
        "metric": rule.metric.as_str(),
        "threshold": rule.threshold,
        "interval": rule.interval.as_secs(),
    });
    if !rule.urls.is_empty() {
        document["urls"] = json!(rule.urls);
    }
    document
}
