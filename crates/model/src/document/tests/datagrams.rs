//! Listeners and pools of UDP and SCTP.

use std::time::Duration;

use serde_json::{Value, json};

use super::id;
use crate::{
    Binding, HealthCheck, LoadBalancer, RateLimitAction, SessionPersistence, SourceNetwork, Transport,
};

fn document() -> Value {
    json!({ "loadbalancer": {
        "id": "10000000-0000-4000-8000-000000000001", "vip_address": "203.0.113.50",
        "listeners": [
            { "id": "20000000-0000-4000-8000-000000000001", "protocol": "UDP", "protocol_port": 53,
              "timeout_client_data": 50000, "allowed_cidrs": ["203.0.113.0/24"], "connection_limit": 10,
              "default_pool": {
                  "id": "30000000-0000-4000-8000-000000000001", "protocol": "UDP", "lb_algorithm": "SOURCE_IP",
                  "session_persistence": { "type": "SOURCE_IP", "persistence_timeout": 33,
                      "persistence_granularity": "255.255.0.0" },
                  "healthmonitor": { "id": "50000000-0000-4000-8000-000000000001", "type": "UDP-CONNECT",
                      "delay": 5, "timeout": 5, "max_retries": 1 },
                  "members": [{ "id": "40000000-0000-4000-8000-000000000001", "address": "10.9.0.2",
                      "protocol_port": 53 }] } },
            { "id": "20000000-0000-4000-8000-000000000002", "protocol": "TCP", "protocol_port": 53 }
        ]
    }})
}

fn with(pointer: &str, value: Value) -> Value {
    let mut document = document();
    let (at, name) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(at).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value);
    document
}

const LISTENER: &str = "/loadbalancer/listeners/0";
const POOL: &str = "/loadbalancer/listeners/0/default_pool";

#[test]
fn a_port_may_be_of_udp_and_of_tcp() {
    let lb = LoadBalancer::from_value(&document()).unwrap();
    let address = "203.0.113.50:53".parse().unwrap();
    let bindings = lb.listeners.iter().map(|listener| listener.binding(lb.vips[0].address));
    let expected = [Transport::Udp, Transport::Tcp].map(|transport| Binding { transport, address });
    assert_eq!(bindings.collect::<Vec<_>>(), expected);
    assert_eq!(
        lb.pools[0].health_monitor.as_ref().map(|monitor| &monitor.check),
        Some(&HealthCheck::UdpConnect)
    );
    assert_eq!(LoadBalancer::from_value(&lb.to_json()), Ok(lb));
}

/// The same of SCTP, with a monitor of this type.
fn sctp(monitor: &str) -> Value {
    let mut document = with(&format!("{LISTENER}/protocol"), json!("SCTP"));
    document["loadbalancer"]["listeners"][0]["default_pool"]["protocol"] = json!("SCTP");
    document["loadbalancer"]["listeners"][0]["default_pool"]["healthmonitor"]["type"] = json!(monitor);
    document
}

#[test]
fn sctp_has_what_udp_has() {
    for (name, check) in [
        ("SCTP", HealthCheck::Sctp),
        ("UDP-CONNECT", HealthCheck::UdpConnect),
        ("TCP", HealthCheck::Tcp),
        ("PING", HealthCheck::Ping),
    ] {
        let lb = LoadBalancer::from_value(&sctp(name)).unwrap();
        let address = "203.0.113.50:53".parse().unwrap();
        let binding = lb.listeners[0].binding(lb.vips[0].address);
        assert_eq!(binding, Binding { transport: Transport::Sctp, address });
        assert_eq!(binding.to_string(), "sctp 203.0.113.50:53");
        assert_eq!(lb.pools[0].health_monitor.as_ref().map(|monitor| &monitor.check), Some(&check));
        assert!(matches!(lb.pools[0].session_persistence, Some(SessionPersistence::SourceNetwork(_))));
        assert_eq!(LoadBalancer::from_value(&lb.to_json()), Ok(lb));
    }
    let refused = |document: &Value, path: &str, reason: &str| {
        let faults = LoadBalancer::from_value(document).unwrap_err().faults;
        assert!(faults.iter().any(|f| f.path.ends_with(path) && f.reason.contains(reason)), "{faults:?}");
    };
    refused(&sctp("TLS-HELLO"), "healthmonitor.type", "TLS-HELLO is not for pools of protocol SCTP");
    let mut document = sctp("SCTP");
    document["loadbalancer"]["listeners"][0]["default_pool"]["protocol"] = json!("UDP");
    refused(&document, "default_pool", "cannot send");
    let mut document = sctp("SCTP");
    document["loadbalancer"]["listeners"][0]["default_pool"]["lb_algorithm"] = json!("SOURCE_IP_PORT");
    refused(&document, "lb_algorithm", "SOURCE_IP_PORT is not for pools of protocol SCTP");
    let mut document = sctp("SCTP");
    document["loadbalancer"]["listeners"][0]["amphora"] = json!({ "connection_logging": true });
    refused(&document, "amphora", "listeners of protocol SCTP have no flow log");
}

#[test]
fn persistence_is_of_a_network_and_for_a_time() {
    let network = |persistence: Value| {
        let document = with(&format!("{POOL}/session_persistence"), persistence);
        match LoadBalancer::from_value(&document).unwrap().pools.swap_remove(0).session_persistence {
            Some(SessionPersistence::SourceNetwork(network)) => network,
            other => panic!("{other:?}"),
        }
    };
    let default = SourceNetwork { timeout: Duration::from_secs(360), v4_prefix: 32, v6_prefix: 128 };
    assert_eq!(network(json!({ "type": "SOURCE_IP" })), default);
    assert_eq!(network(json!({ "type": "SOURCE_IP", "persistence_timeout": 0 })), default);
    for (granularity, v4_prefix, v6_prefix) in
        [("255.255.255.255", 32, 128), ("255.254.0.0", 15, 128), ("64", 32, 64), ("128", 32, 128)]
    {
        let given = json!({ "type": "SOURCE_IP", "persistence_granularity": granularity });
        assert_eq!(network(given), SourceNetwork { v4_prefix, v6_prefix, ..default }, "{granularity}");
    }
}

#[test]
fn what_only_other_protocols_have_is_refused() {
    let persistence = |value: Value| (format!("{POOL}/session_persistence"), value);
    let source = |granularity: &str| {
        persistence(json!({ "type": "SOURCE_IP", "persistence_granularity": granularity }))
    };
    for ((pointer, value), path, reason) in [
        (source("255.0.255.0"), "session_persistence.persistence_granularity", "no netmask"),
        (source("0.0.0.0"), "session_persistence.persistence_granularity", "no netmask"),
        (source("129"), "session_persistence.persistence_granularity", "1 to 128"),
        (source("/64"), "session_persistence.persistence_granularity", "1 to 128"),
        (persistence(json!({ "type": "HTTP_COOKIE" })), "session_persistence.type", "this one is UDP"),
        ((format!("{POOL}/lb_algorithm"), json!("SOURCE_IP_PORT")), "lb_algorithm", "not for pools"),
        ((format!("{POOL}/tls_enabled"), json!(true)), "tls_enabled", "this one is UDP"),
        (
            (format!("{POOL}/healthmonitor/type"), json!("HTTPS")),
            "healthmonitor.type",
            "not for pools of protocol UDP",
        ),
        ((format!("{POOL}/healthmonitor/type"), json!("TLS-HELLO")), "healthmonitor.type", "not for pools"),
        (
            (format!("{POOL}/protocol"), json!("TCP")),
            "healthmonitor.type",
            "UDP-CONNECT is not for pools of protocol TCP",
        ),
        ((format!("{LISTENER}/amphora"), json!({ "connection_logging": true })), "amphora", "no flow log"),
        (
            (format!("{LISTENER}/amphora"), json!({ "member_connection_limit": 0 })),
            "amphora.member_connection_limit",
            "1 to",
        ),
        (
            ("/loadbalancer/listeners/1/amphora".to_owned(), json!({ "member_connection_limit": 5 })),
            "listeners[1].amphora",
            "needs a listener of protocol UDP or SCTP; this one is TCP",
        ),
        (
            ("/loadbalancer/amphora".to_owned(), json!({ "member_connection_limit": 5 })),
            "amphora.member_connection_limit",
            "",
        ),
        (
            (format!("{LISTENER}/insert_headers"), json!({ "X-Forwarded-For": "true" })),
            "insert_headers",
            "is UDP",
        ),
        ((format!("{LISTENER}/protocol"), json!("TCP")), "listeners[1].protocol_port", "already"),
    ] {
        let refusal = LoadBalancer::from_value(&with(&pointer, value)).unwrap_err();
        let found =
            refusal.faults.iter().any(|fault| fault.path.ends_with(path) && fault.reason.contains(reason));
        assert!(found, "{path}: {reason}: {refusal:?}");
    }
}

#[test]
fn packets_are_dropped_silently_and_nothing_else_is_counted() {
    let rule = json!({ "id": id(80), "metric": "PACKETS", "threshold": 1000 });
    let policies = json!([{ "id": id(70), "action": "SILENT_DROP", "rules": [rule] }]);
    for protocol in ["UDP", "SCTP"] {
        let document = json!({ "loadbalancer": { "id": id(1), "vip_address": "192.0.2.1", "listeners": [
            { "id": id(10), "protocol": protocol, "protocol_port": 53, "rate_limit_policies": policies },
        ]}});
        let lb = LoadBalancer::from_value(&document).unwrap();
        let policy = &lb.listeners[0].rate_limit_policies[0];
        assert_eq!((policy.enabled, policy.action), (true, RateLimitAction::SilentDrop));
        assert_eq!((policy.rules[0].threshold, policy.rules[0].interval), (1000, Duration::from_secs(30)));
    }
}
