//! Rate limits.

use super::*;
use crate::document::tests::accept;

fn rule(metric: &str) -> Value {
    json!({ "id": id(80), "metric": metric, "threshold": 100 })
}

fn policy(action: &str, rules: &Value) -> Value {
    json!([{ "id": id(70), "action": action, "rules": rules }])
}

#[test]
fn rate_limit_policies() {
    let at = "/listeners/0/rate_limit_policies";
    let path = |name: &str| format!("listeners[0].rate_limit_policies{name}");
    let requests = json!([rule("REQUESTS")]);
    let with = |name: &str, value: Value| {
        let mut policies = policy("DENY", &requests);
        policies[0][name] = value;
        policies
    };
    let of_rule = |name: &str, value: Value| {
        let mut policies = policy("DENY", &requests);
        policies[0]["rules"][0][name] = value;
        policies
    };
    let queue = |value: Value| {
        let mut policies = policy("QUEUE", &requests);
        policies[0]["amphora"] = value;
        policies
    };
    for (value, name, reason) in [
        (json!({}), "", "must be a list"),
        (json!([id(70)]), "[0]", "must be an object"),
        (with("id", Value::Null), "[0].id", "is required"),
        (with("action", json!("LOG")), "[0].action", "must be one of DENY, REJECT, SILENT_DROP, QUEUE"),
        (with("enabled", Value::Null), "[0].enabled", "true or false"),
        (with("listener_id", json!(id(11))), "[0].listener_id", "not the id of the object"),
        (with("admin_state_up", json!(true)), "[0].admin_state_up", "is not a field"),
        (with("rules", Value::Null), "[0].rules", "is required"),
        (with("rules", json!([])), "[0].rules", "must be 1 to 8"),
        (
            with("amphora", json!({ "queue_size": 1 })),
            "[0].amphora.queue_size",
            "no meaning with action DENY",
        ),
        (with("amphora", json!({ "size": 1 })), "[0].amphora.size", "is not a field"),
        (queue(json!({ "queue_timeout": 61 })), "[0].amphora.queue_timeout", "integer from 1 to 60"),
        (queue(json!({ "queue_size": 0 })), "[0].amphora.queue_size", "integer from 1 to 100000"),
        (
            of_rule("metric", json!("BYTES")),
            "[0].rules[0].metric",
            "must be one of REQUESTS, REQUESTS_PER_URL",
        ),
        (
            of_rule("metric", json!("PACKETS")),
            "[0].rules[0].metric",
            "PACKETS is not for listeners of protocol HTTP",
        ),
        (of_rule("metric", json!("REQUESTS_PER_URL")), "[0].rules[0].urls", "is required"),
        (of_rule("threshold", json!(0)), "[0].rules[0].threshold", "integer from 1 to 2147483647"),
        (of_rule("threshold", Value::Null), "[0].rules[0].threshold", "is required"),
        (of_rule("interval", json!(86_401)), "[0].rules[0].interval", "integer from 1 to 86400"),
        (of_rule("urls", json!(["a"])), "[0].rules[0].urls[0]", "must be a path"),
        (of_rule("urls", json!(["/a?b"])), "[0].rules[0].urls[0]", "without a query"),
        (of_rule("urls", json!(["/a", "/a"])), "[0].rules[0].urls[1]", "in the list already"),
    ] {
        let path = path(name);
        let found = faults(&super::with(at, value.clone()));
        let start = format!("loadbalancer.{path}: ");
        assert!(
            found.iter().any(|fault| fault.starts_with(&start) && fault.contains(reason)),
            "{value}: expected {start}..{reason}.., found {found:#?}"
        );
    }
    let twice = json!([{ "id": id(80), "metric": "REQUESTS", "threshold": 1 }, { "id": id(80), "metric": "REQUESTS", "threshold": 2 }]);
    let found = faults(&super::with(at, policy("QUEUE", &twice)));
    assert!(found.iter().any(|fault| fault.contains("rules[1].id: is the id of another rate limit rule")));
    assert!(found.iter().any(|fault| fault.contains("rules: must be one with action QUEUE")), "{found:?}");
    let many: Vec<Value> = (0..17).map(|n| json!({ "id": id(100 + n), "action": "DENY", "rules": [{ "id": id(200 + n), "metric": "REQUESTS", "threshold": 1 }] })).collect();
    let found = faults(&super::with(at, many.into()));
    assert!(found.iter().any(|fault| fault.contains("rate_limit_policies: must not be more than 16")));
}

/// What goes with which listener.
#[test]
fn each_protocol_has_its_metrics_and_actions() {
    let cases = [
        ("TCP", "DENY", "CONNECTIONS", "action: DENY is not for listeners of protocol TCP"),
        ("TCP", "REJECT", "REQUESTS", "metric: REQUESTS is not for listeners of protocol TCP"),
        ("HTTP", "QUEUE", "KBYTES", "metric: KBYTES cannot be queued"),
        ("PROMETHEUS", "SILENT_DROP", "CONNECTIONS", "action: SILENT_DROP is not for listeners of protocol"),
        ("UDP", "REJECT", "PACKETS", "action: REJECT is not for listeners of protocol UDP"),
        ("SCTP", "SILENT_DROP", "CONNECTIONS", "metric: CONNECTIONS is not for listeners of protocol SCTP"),
    ];
    for (protocol, action, metric, reason) in cases {
        let mut document = with("/listeners/0/rate_limit_policies", policy(action, &json!([rule(metric)])));
        set(&mut document, "/listeners/0/protocol", json!(protocol));
        let found = faults(&document);
        assert!(found.iter().any(|fault| fault.contains(reason)), "{protocol} {action} {metric}: {found:#?}");
    }
}

#[test]
fn trusted_proxies() {
    let at = "/listeners/0/amphora";
    refused(&[
        (
            at,
            json!({ "trusted_proxies": ["10.0.0.0/33"] }),
            "listeners[0].amphora.trusted_proxies[0]",
            "must be a CIDR",
        ),
        (
            at,
            json!({ "client_address_header": "X-Real-IP" }),
            "listeners[0].amphora.client_address_header",
            "no meaning without trusted_proxies",
        ),
        (
            at,
            json!({ "trusted_proxies": ["10.0.0.0/8"] }),
            "listeners[0].amphora",
            "has trusted_proxies, which need rate_limit_policies",
        ),
        (
            "/amphora",
            json!({ "trusted_proxies": ["10.0.0.0/8"] }),
            "amphora.trusted_proxies",
            "is not a field",
        ),
        (
            "/listeners/1/amphora",
            json!({ "trusted_proxies": ["10.0.0.0/8"] }),
            "listeners[1].amphora",
            "has trusted_proxies, which need a listener of protocol HTTP or TERMINATED_HTTPS; this one is TCP",
        ),
    ]);
    // One that is switched off for now is one.
    let mut limited = with(at, json!({ "trusted_proxies": ["10.0.0.0/8"] }));
    let mut policies = policy("DENY", &json!([rule("REQUESTS")]));
    policies[0]["enabled"] = json!(false);
    set(&mut limited, "/listeners/0/rate_limit_policies", policies);
    assert!(accept(&limited).listeners[0].trusted_proxies.is_some());
    for (name, value, reason) in [
        ("client_address_header", json!("a b"), "client_address_header: must be a token"),
        (
            "trusted_proxies",
            json!(["10.0.0.0/8", "10.1.0.0/8"]),
            "trusted_proxies[1]: is the network 10.0.0.0/8, which is in the list",
        ),
    ] {
        let mut document = limited.clone();
        set(&mut document, &format!("/listeners/0/amphora/{name}"), value);
        let found = faults(&document);
        let start = format!("loadbalancer.listeners[0].amphora.{reason}");
        assert!(found.len() == 1 && found[0].starts_with(&start), "{found:#?}");
    }
}
