//! Documents that are accepted and what becomes of them, and the two ways of a model through JSON.
#![allow(clippy::unwrap_used)]

mod datagrams;
mod refusals;
mod tls;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{arbitrary, *};

/// An id, by number.
fn id(n: u32) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

/// A document without faults.
fn base() -> Value {
    json!({ "loadbalancer": {
        "id": id(1),
        "vip_address": "192.0.2.1",
        "listeners": [{
            "id": id(10),
            "protocol": "HTTP",
            "protocol_port": 80,
            "default_pool_id": id(20),
            "l7policies": [{
                "id": id(30),
                "action": "REJECT",
                "rules": [{ "id": id(40), "type": "PATH", "compare_type": "STARTS_WITH", "value": "/admin" }],
            }],
        }, {
            "id": id(11),
            "protocol": "TCP",
            "protocol_port": 443,
            "default_pool": { "id": id(21) },
        }],
        "pools": [{
            "id": id(20),
            "name": "web",
            "protocol": "HTTP",
            "lb_algorithm": "ROUND_ROBIN",
            "healthmonitor": { "id": id(50), "type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 2 },
            "members": [
                { "id": id(60), "address": "198.51.100.1", "protocol_port": 8080 },
                { "id": id(61), "address": "2001:db8::1", "protocol_port": 8080 },
            ],
        }, {
            "id": id(21),
            "name": "raw",
            "protocol": "TCP",
            "lb_algorithm": "SOURCE_IP",
        }],
    }})
}

/// As Octavia answers `GET /v2/lbaas/loadbalancers/{id}` and for what is in it, every field of its response types
/// (`octavia/api/v2/types`, 19.0.0) that may be unset being so: to `nothing`, where the type is text or an id.
fn answered(nothing: &Value) -> Value {
    let common = json!({
        "project_id": "e3cd678b11784734bc366148aa37580e", "description": "", "tags": [],
        "created_at": "2017-02-28T00:41:44", "updated_at": null,
        "provisioning_status": "ACTIVE", "operating_status": "ONLINE",
    });
    let object = |fields: Value| {
        let mut fields = fields;
        let own = fields.as_object_mut().unwrap();
        common.as_object().unwrap().iter().for_each(|(name, value)| {
            own.insert(name.clone(), value.clone());
        });
        fields
    };
    let monitor = |number, kind: &str| {
        object(json!({
            "id": id(number), "name": "", "type": kind, "delay": 5, "timeout": 3, "max_retries": 2,
            "max_retries_down": 3, "http_method": nothing, "url_path": nothing, "expected_codes": nothing,
            "admin_state_up": true, "pools": [{"id": id(number - 30)}], "http_version": null, "domain_name": nothing,
        }))
    };
    let member = |number| {
        object(json!({
            "id": id(number), "name": "", "admin_state_up": true, "address": "192.0.2.16", "protocol_port": 80,
            "weight": 1, "backup": false, "subnet_id": nothing, "monitor_address": nothing, "monitor_port": null,
            "vnic_type": "normal",
        }))
    };
    let pool = |number, protocol: &str, kind: &str| {
        object(json!({
            "id": id(number), "name": "", "admin_state_up": true, "protocol": protocol,
            "lb_algorithm": "ROUND_ROBIN", "loadbalancers": [{"id": id(1)}], "listeners": [], "healthmonitor_id": nothing,
            "session_persistence": {"type": "SOURCE_IP", "cookie_name": nothing, "persistence_timeout": null,
                "persistence_granularity": nothing},
            "healthmonitor": monitor(number + 30, kind), "members": [member(number + 40)], "tls_container_ref": nothing,
            "ca_tls_container_ref": nothing, "crl_container_ref": nothing, "tls_enabled": false, "tls_ciphers": nothing,
            "tls_versions": null, "alpn_protocols": null,
        }))
    };
    let rule = object(json!({
        "id": id(40), "type": "PATH", "compare_type": "EQUAL_TO", "key": nothing, "value": "/a", "invert": false,
        "admin_state_up": true,
    }));
    let policy = object(json!({
        "id": id(30), "name": "", "admin_state_up": true, "action": "REJECT", "listener_id": id(10),
        "redirect_pool_id": nothing, "redirect_url": nothing, "redirect_prefix": nothing, "redirect_http_code": null,
        "redirect_pool": null, "position": 1, "rules": [rule],
    }));
    let listener = |number, protocol: &str, policies: Value| {
        object(json!({
            "id": id(number), "name": "", "admin_state_up": true, "protocol": protocol, "protocol_port": number,
            "connection_limit": -1, "default_tls_container_ref": nothing, "default_tls_container_id": nothing,
            "sni_container_refs": [], "default_pool_id": nothing, "default_pool": null, "l7policies": policies,
            "insert_headers": {}, "loadbalancers": [{"id": id(1)}], "timeout_client_data": 50000,
            "timeout_member_connect": 5000, "timeout_member_data": 50000, "timeout_tcp_inspect": 0,
            "client_ca_tls_container_ref": nothing, "client_authentication": "NONE", "client_crl_container_ref": nothing,
            "allowed_cidrs": null, "tls_ciphers": nothing, "tls_versions": null, "alpn_protocols": null,
            "hsts_max_age": null, "hsts_include_subdomains": false, "hsts_preload": false,
        }))
    };
    json!({"loadbalancer": object(json!({
        "id": id(1), "name": "", "admin_state_up": true, "vip_address": "203.0.113.50", "vip_port_id": nothing,
        "vip_subnet_id": nothing, "vip_network_id": nothing, "vip_sg_ids": [],
        "additional_vips": [{"subnet_id": nothing, "ip_address": "203.0.113.51"}],
        "provider": "octavia", "flavor_id": nothing, "vip_qos_policy_id": nothing, "availability_zone": nothing,
        "vip_vnic_type": "normal",
        "listeners": [listener(10, "HTTP", json!([policy])), listener(11, "TCP", json!([]))],
        "pools": [pool(20, "HTTP", "HTTP"), pool(21, "TCP", "TCP")],
    }))})
}

#[test]
fn octavias_own_answers_are_documents() {
    let unset = LoadBalancer::from_value(&answered(&Value::Null)).unwrap();
    assert_eq!(LoadBalancer::from_value(&answered(&json!(""))).unwrap(), unset);
    assert_eq!((unset.listeners.len(), unset.pools.len()), (2, 2));
}

#[test]
fn what_needs_tls_may_be_null_where_there_is_none() {
    for pointer in [
        "/listeners/0/default_tls_container_id",
        "/listeners/0/default_tls_container_ref",
        "/listeners/0/sni_container_refs",
        "/listeners/0/client_ca_tls_container_ref",
        "/listeners/0/client_crl_container_ref",
        "/listeners/0/client_authentication",
        "/listeners/0/tls_versions",
        "/listeners/0/alpn_protocols",
        "/listeners/0/hsts_max_age",
        "/listeners/0/hsts_include_subdomains",
        "/listeners/0/hsts_preload",
        "/pools/0/tls_enabled",
        "/pools/0/crl_container_ref",
        "/pools/0/tls_versions",
        "/pools/0/alpn_protocols",
        "/pools/0/session_persistence",
    ] {
        LoadBalancer::from_value(&with(pointer, Value::Null)).unwrap();
        assert!(LoadBalancer::from_value(&with(pointer, json!("something"))).is_err(), "{pointer}");
    }
}

#[test]
fn what_is_required_may_not_be_empty() {
    for pointer in [
        "/id",
        "/vip_address",
        "/listeners/0/id",
        "/listeners/0/protocol",
        "/listeners/0/protocol_port",
        "/pools/0/id",
        "/pools/0/protocol",
        "/pools/0/lb_algorithm",
        "/pools/0/members/0/id",
        "/pools/0/members/0/address",
        "/pools/0/members/0/weight",
        "/pools/0/members/0/backup",
        "/pools/0/members/0/monitor_port",
        "/pools/0/healthmonitor/id",
        "/pools/0/healthmonitor/type",
        "/pools/0/healthmonitor/delay",
        "/listeners/0/l7policies/0/id",
        "/listeners/0/l7policies/0/action",
        "/listeners/0/l7policies/0/rules/0/id",
        "/listeners/0/l7policies/0/rules/0/type",
        "/listeners/0/l7policies/0/rules/0/value",
        "/listeners/0/l7policies/0/rules/0/compare_type",
        "/listeners/0/connection_limit",
    ] {
        assert!(LoadBalancer::from_value(&with(pointer, json!(""))).is_err(), "{pointer}");
    }
    let mut pool = with("/listeners/0/l7policies/0/action", json!("REDIRECT_TO_POOL"));
    pool["loadbalancer"]["listeners"][0]["l7policies"][0]["redirect_pool_id"] = json!("");
    assert!(LoadBalancer::from_value(&pool).is_err());
}

/// The base document with something else at a JSON pointer below `loadbalancer`, where the last step may be new.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = base();
    set(&mut document, pointer, value);
    document
}

fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(&format!("/loadbalancer{parent}")).unwrap();
    match parent {
        Value::Array(list) => match name.parse::<usize>() {
            Ok(index) => list[index] = value,
            Err(_) => list.push(value),
        },
        parent => parent[name] = value,
    }
}

fn accept(document: &Value) -> LoadBalancer {
    LoadBalancer::from_value(document).unwrap_or_else(|refusal| panic!("{refusal}\n{document:#}"))
}

#[test]
fn defaults_are_octavias() {
    let lb = accept(&base());
    assert_eq!((lb.name.as_str(), lb.admin_state_up), ("", true));
    let [http, tcp] = &lb.listeners[..] else { panic!("{lb:?}") };
    assert_eq!(http.connection_limit, None);
    assert_eq!(http.timeouts, ListenerTimeouts::default());
    assert_eq!(http.timeouts.client_data, Duration::from_secs(50));
    assert_eq!(http.insert_headers, InsertHeaders::default());
    assert!(http.allowed_cidrs.is_empty() && http.admin_state_up);
    assert_eq!(tcp.default_pool, Some(id(21).parse().unwrap()));
    let pool = lb.pools.iter().find(|pool| Some(pool.id) == http.default_pool).unwrap();
    let member = &pool.members[0];
    assert_eq!((member.weight, member.backup, member.monitor_port), (1, false, None));
    let monitor = pool.health_monitor.as_ref().unwrap();
    assert_eq!((monitor.max_retries, monitor.max_retries_down), (2, 3));
    let HealthCheck::Http(check) = &monitor.check else { panic!("{monitor:?}") };
    assert_eq!(
        (check.method, check.url_path.as_str(), check.version),
        (HttpMethod::Get, "/", HttpVersion::Http10)
    );
    assert_eq!((&check.domain_name, &check.expected_codes[..]), (&None, &[(200, 200)][..]));
}

#[test]
fn null_is_absent_and_zero_is_the_default_where_octavia_says_so() {
    let mut document = base();
    for (pointer, value) in [
        ("/name", Value::Null),
        ("/additional_vips", Value::Null),
        ("/vip_sg_ids", Value::Null),
        ("/listeners/0/connection_limit", json!(0)),
        ("/listeners/0/timeout_client_data", json!(0)),
        ("/listeners/0/timeout_member_data", Value::Null),
        ("/listeners/0/insert_headers", Value::Null),
        ("/listeners/0/allowed_cidrs", Value::Null),
        ("/listeners/0/l7policies/0/redirect_pool", Value::Null),
        ("/listeners/0/l7policies/0/redirect_http_code", Value::Null),
        ("/listeners/0/l7policies/0/position", Value::Null),
        ("/listeners/0/l7policies/0/rules/0/key", Value::Null),
        ("/pools/0/session_persistence", Value::Null),
        ("/pools/0/members/0/weight", Value::Null),
        ("/pools/0/members/0/monitor_address", Value::Null),
        ("/pools/0/healthmonitor/http_version", Value::Null),
        ("/pools/1/healthmonitor", Value::Null),
        ("/pools/1/members", Value::Null),
    ] {
        set(&mut document, pointer, value);
    }
    assert_eq!(accept(&document), accept(&base()));
    // HAProxy: without a `timeout check`, a check has until the next one.
    let lb = accept(&with("/pools/0/healthmonitor/timeout", json!(0)));
    assert_eq!(lb.pools[0].health_monitor.as_ref().unwrap().timeout, Duration::from_secs(5));
}

/// What Octavia answers to a `GET`, and so what comes out of a deployment to be put into an amphora.
#[test]
fn octavias_answers_are_documents() {
    let mut document = base();
    let refs = json!([{ "id": id(1) }]);
    for object in [
        "",
        "/listeners/0",
        "/listeners/0/l7policies/0",
        "/listeners/0/l7policies/0/rules/0",
        "/pools/0",
        "/pools/0/members/0",
        "/pools/0/healthmonitor",
    ] {
        for (name, value) in [
            ("project_id", json!("e3cd678b11784734bc366148aa37580e")),
            ("tenant_id", json!("e3cd678b11784734bc366148aa37580e")),
            ("description", json!("")),
            ("tags", json!(["a", "b"])),
            ("created_at", json!("2017-02-28T00:41:44")),
            ("updated_at", Value::Null),
            ("provisioning_status", json!("ACTIVE")),
            ("operating_status", json!("ONLINE")),
        ] {
            set(&mut document, &format!("{object}/{name}"), value);
        }
    }
    for (pointer, value) in [
        ("/vip_subnet_id", json!(id(2))),
        ("/vip_port_id", json!(id(2))),
        ("/vip_network_id", json!(id(2))),
        ("/vip_qos_policy_id", Value::Null),
        ("/vip_sg_ids", json!([id(2)])),
        ("/vip_vnic_type", json!("normal")),
        ("/provider", json!("amphora")),
        ("/flavor_id", Value::Null),
        ("/availability_zone", json!("nova")),
        ("/additional_vips", json!([{ "subnet_id": id(2), "ip_address": "2001:db8::5", "port_id": id(2) }])),
        ("/listeners/0/loadbalancers", refs.clone()),
        ("/listeners/0/loadbalancer_id", json!(id(1))),
        ("/listeners/0/default_tls_container_ref", Value::Null),
        ("/listeners/0/sni_container_refs", json!([])),
        ("/listeners/0/client_authentication", json!("NONE")),
        ("/listeners/0/tls_versions", json!([])),
        ("/listeners/0/alpn_protocols", json!([])),
        ("/listeners/0/hsts_max_age", Value::Null),
        ("/listeners/0/hsts_include_subdomains", json!(false)),
        ("/listeners/0/insert_headers", json!({ "X-Forwarded-For": "True", "X-Forwarded-Port": "false" })),
        ("/listeners/0/l7policies/0/listener_id", json!(id(10))),
        ("/listeners/0/l7policies/0/redirect_url", Value::Null),
        ("/pools/0/listeners", refs.clone()),
        ("/pools/0/loadbalancers", refs.clone()),
        ("/pools/0/healthmonitor_id", json!(id(50))),
        ("/pools/0/tls_enabled", json!(false)),
        ("/pools/0/healthmonitor/pools", refs),
        ("/pools/0/members/0/subnet_id", json!(id(2))),
        ("/pools/0/members/0/vnic_type", json!("normal")),
        ("/pools/0/members/0/request_sriov", json!(false)),
    ] {
        set(&mut document, pointer, value);
    }
    let lb = accept(&document);
    assert_eq!(lb.vips.len(), 2);
    assert!(
        lb.listeners[0].insert_headers.x_forwarded_for && !lb.listeners[0].insert_headers.x_forwarded_port
    );
    let addresses: Vec<_> = lb.vips.iter().map(|vip| vip.address.to_string()).collect();
    assert_eq!(addresses, ["192.0.2.1", "2001:db8::5"]);
}

#[test]
fn a_pool_is_one_wherever_it_is_defined() {
    let mut document = base();
    let pools = document["loadbalancer"]["pools"].take();
    set(&mut document, "/pools", json!([]));
    set(&mut document, "/listeners/0/default_pool", pools[0].clone());
    set(&mut document, "/listeners/1/default_pool", pools[1].clone());
    assert_eq!(accept(&document), accept(&base()));
    // Twice, and the same: still one.
    set(&mut document, "/pools/-", pools[0].clone());
    assert_eq!(accept(&document), accept(&base()));
    // By name.
    let named = with("/listeners/1/default_pool", json!({ "name": "raw" }));
    assert_eq!(accept(&named), accept(&base()));
    let both = with("/listeners/0/default_pool", json!({ "id": id(20), "name": "web" }));
    assert_eq!(accept(&both), accept(&base()));
    // Out of a policy.
    let action = json!({ "id": id(31), "action": "REDIRECT_TO_POOL", "redirect_pool": {
        "id": id(22), "protocol": "PROXY", "lb_algorithm": "LEAST_CONNECTIONS",
    }});
    let lb = accept(&with("/listeners/0/l7policies/-", action));
    let third: PoolId = id(22).parse().unwrap();
    assert_eq!(lb.pools[2].id, third);
}

#[test]
fn policies_are_in_the_order_of_position_then_of_the_document() {
    let policy = |n: u32, position: Value| json!({ "id": id(n), "action": "REJECT", "position": position });
    let policies = json!([
        policy(30, Value::Null),
        policy(31, json!(7)),
        policy(32, json!(2)),
        policy(33, json!(7)),
        policy(34, json!(2_147_483_647)),
    ]);
    let lb = accept(&with("/listeners/0/l7policies", policies));
    let order: Vec<_> = lb.listeners[0].l7policies.iter().map(|p| (p.id.to_string(), p.position)).collect();
    assert_eq!(order, [32, 31, 33, 30, 34].into_iter().map(id).zip(1..).collect::<Vec<_>>());
}

#[test]
fn the_reference_for_operators_is_true() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/document.md"));
    let (_, example) = text.split_once("```json").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let lb = LoadBalancer::from_json(example.as_bytes()).unwrap();
    assert_eq!((lb.vips.len(), lb.pools.len(), lb.listeners[0].l7policies.len()), (2, 2, 1));
    let (_, example) = text.rsplit_once("```json").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let lb = LoadBalancer::from_json(example.as_bytes()).unwrap();
    let listener = &lb.listeners[0];
    let tls = listener.tls.as_ref().unwrap();
    assert!(
        tls.sni_certificates.len() == 1 && tls.client_authentication.is_some() && listener.flow_log.is_some()
    );

    // Every field that a document can have, every value of every enumeration.
    let mut names: Vec<String> = Vec::new();
    for seed in 0..50 {
        pointers(&in_full(seed).to_json(), String::new(), &mut names);
    }
    let last_step = |pointer: &String| pointer.rsplit('/').next().unwrap().to_owned();
    let names: std::collections::BTreeSet<String> = names.iter().map(last_step).collect();
    let fields =
        names.iter().map(String::as_str).filter(|name| name.starts_with(|c: char| c.is_alphabetic()));
    let values = ListenerProtocol::ALL
        .iter()
        .map(|v| v.as_str())
        .chain(TlsVersion::ALL.iter().map(|v| v.as_str()))
        .chain(AlpnProtocol::ALL.iter().map(|v| v.as_str()))
        .chain(PoolProtocol::ALL.iter().map(|v| v.as_str()))
        .chain(LbAlgorithm::ALL.iter().map(|v| v.as_str()))
        .chain(HttpMethod::ALL.iter().map(|v| v.as_str()))
        .chain(CompareType::ALL.iter().map(|v| v.as_str()));
    for name in fields.chain(values) {
        let written = text.contains(&format!("`{name}`")) || text.contains(&format!("## {name}"));
        assert!(written, "{name} is not in docs/document.md");
    }
}

#[test]
fn outlier_detection_has_defaults() {
    let given = |value: Value| accept(&with("/pools/0/amphora", value)).pools[0].member_options;
    assert_eq!(given(json!({})), MemberOptions::default());
    let seconds = Duration::from_secs;
    let expected = OutlierDetection {
        consecutive_failures: 5,
        ejection_time: seconds(30),
        max_ejection_time: seconds(300),
        max_ejected_percent: 10,
    };
    assert_eq!(given(json!({ "outlier_detection": {} })).outliers, Some(expected));
    let long = given(json!({ "outlier_detection": { "ejection_time": 400 } })).outliers;
    let times = long.map(|detection| (detection.ejection_time, detection.max_ejection_time));
    assert_eq!(times, Some((seconds(400), seconds(400))), "the default is no less than what is asked for");
}

#[test]
fn large_documents() {
    let shape =
        arbitrary::Shape { pools: 2..=2, members: 5_000..=5_000, listeners: 100..=100, ..Default::default() };
    let lb = arbitrary::Generator::new(1).load_balancer(&shape);
    let text = serde_json::to_vec(&lb.to_json()).unwrap();
    assert!(text.len() < MAX_DOCUMENT_BYTES);
    assert_eq!(LoadBalancer::from_json(&text), Ok(lb));
}

proptest! {
    #[test]
    fn from_value_undoes_to_json(seed: u64) {
        let lb = arbitrary::load_balancer(seed);
        let document = lb.to_json();
        prop_assert_eq!(LoadBalancer::from_value(&document), Ok(lb.clone()));
        prop_assert_eq!(LoadBalancer::from_json(document.to_string().as_bytes()), Ok(lb));
        let lb = in_full(seed);
        prop_assert_eq!(LoadBalancer::from_value(&lb.to_json()), Ok(lb));
    }

    #[test]
    fn what_changes_stays_canonical(seed: u64) {
        let mut generator = arbitrary::Generator::new(seed);
        let shape = arbitrary::Shape::default();
        let mut lb = generator.load_balancer(&shape);
        for _ in 0..8 {
            lb = generator.changed(&lb, &shape);
            prop_assert_eq!(LoadBalancer::from_value(&lb.to_json()), Ok(lb.clone()));
        }
    }

    /// Whatever is put in the place of anything is accepted or refused, and what is accepted is canonical.
    #[test]
    fn a_damaged_document_never_panics(seed: u64, at: prop::sample::Index, by: prop::sample::Index) {
        let values = [
            Value::Null, json!(true), json!(-1), json!(0), json!(1.1), json!(1e300), json!(u64::MAX), json!(""),
            json!("HTTP"), json!("é".repeat(300)), json!([]), json!({}), json!([{}]), json!(id(1)), json!([[null]]),
        ];
        let mut document = in_full(seed).to_json();
        let mut places = Vec::new();
        pointers(&document, String::new(), &mut places);
        let place: &String = at.get(&places);
        *document.pointer_mut(place).unwrap() = by.get(&values).clone();
        match LoadBalancer::from_value(&document) {
            Ok(lb) => prop_assert_eq!(LoadBalancer::from_value(&lb.to_json()), Ok(lb)),
            Err(refusal) => prop_assert!(!refusal.faults.is_empty()),
        }
    }

    #[test]
    fn bytes_never_panic(bytes: Vec<u8>) {
        prop_assert!(LoadBalancer::from_json(&bytes).is_err());
    }
}

/// A load balancer with TLS, UDP and logs.
fn in_full(seed: u64) -> LoadBalancer {
    let shape = arbitrary::Shape {
        tls: true,
        udp: true,
        flow_logs: true,
        rate_limits: true,
        routing: true,
        member_options: true,
        ..arbitrary::Shape::default()
    };
    arbitrary::Generator::new(seed).load_balancer(&shape)
}

fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(name, value)| pointers(value, format!("{at}/{name}"), found))
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, value)| pointers(value, format!("{at}/{i}"), found));
        }
        _ => {}
    }
    found.push(at);
}
