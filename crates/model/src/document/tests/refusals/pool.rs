//! Pools, their members and health monitors.

use super::*;

#[test]
fn pools() {
    let at = |name: &str| format!("{POOL}/{name}");
    for (name, value, reason) in [
        ("protocol", json!("TERMINATED_HTTPS"), "must be one of HTTP, HTTPS, TCP, PROXY, PROXYV2, UDP, SCTP"),
        ("protocol", Value::Null, "is required"),
        (
            "lb_algorithm",
            json!("RANDOM"),
            "must be one of ROUND_ROBIN, LEAST_CONNECTIONS, SOURCE_IP, SOURCE_IP_PORT",
        ),
        ("lb_algorithm", Value::Null, "is required"),
        ("healthmonitor_id", json!(id(51)), "is not the id of the pool's healthmonitor"),
        ("listeners", json!([id(10)]), "must be an object"),
    ] {
        let path =
            if name == "listeners" { "pools[0].listeners[0]".into() } else { format!("pools[0].{name}") };
        refused(&[(&at(name), value, &path, reason)]);
    }
    let twin =
        |name: &str| json!({ "id": id(20), "name": name, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN" });
    refused(&[(
        "/pools/-",
        twin("web"),
        "pools[2]",
        "differs from an earlier definition of the pool with the same id",
    )]);

    let mut document = with(
        "/pools/-",
        json!({ "id": id(22), "name": "raw", "protocol": "TCP", "lb_algorithm": "SOURCE_IP" }),
    );
    set(&mut document, "/listeners/1/default_pool", json!({ "name": "raw" }));
    assert_eq!(
        faults(&document),
        ["loadbalancer.listeners[1].default_pool.name: is the name of several pools; refer to one by its id"]
    );
    set(&mut document, "/listeners/1/default_pool", json!({ "id": id(22), "name": "web" }));
    assert!(faults(&document)[0].contains("default_pool.name: is not the name of the pool with this id"));
    set(&mut document, "/listeners/1/default_pool", json!({ "id": id(22) }));
    set(&mut document, "/listeners/1/default_pool_id", json!(id(21)));
    assert!(faults(&document)[0].contains("default_pool_id: is not the id of the pool in default_pool"));

    // PROMETHEUS has no pools; a broken definition is not a dangling reference on top.
    refused(&[
        (
            "/listeners/1/protocol",
            json!("PROMETHEUS"),
            "listeners[1].default_pool",
            "listener of protocol PROMETHEUS cannot send",
        ),
        ("/pools/1/lb_algorithm", json!(1), "pools[1].lb_algorithm", "must be one of"),
    ]);
}

#[test]
fn session_persistence() {
    let at = "/pools/0/session_persistence";
    let path = |name: &str| format!("pools[0].session_persistence.{name}");
    for (value, name, reason) in [
        (json!({}), "type", "is required"),
        (json!({ "type": "IP" }), "type", "must be one of SOURCE_IP, HTTP_COOKIE, APP_COOKIE"),
        (json!({ "type": "APP_COOKIE" }), "cookie_name", "is required"),
        (json!({ "type": "APP_COOKIE", "cookie_name": "a b" }), "cookie_name", "must be a token"),
        (json!({ "type": "APP_COOKIE", "cookie_name": "a;b" }), "cookie_name", "must be a token"),
        (json!({ "type": "HTTP_COOKIE", "cookie_name": "SRV" }), "cookie_name", "only for type APP_COOKIE"),
        (json!({ "type": "SOURCE_IP", "persistence_timeout": 60 }), "persistence_timeout", "UDP"),
        (
            json!({ "type": "SOURCE_IP", "persistence_granularity": "255.0.0.0" }),
            "persistence_granularity",
            "UDP",
        ),
    ] {
        refused(&[(at, value, &path(name), reason)]);
    }
    let cookie = json!({ "type": "HTTP_COOKIE" });
    refused(&[(
        "/pools/1/session_persistence",
        cookie.clone(),
        "pools[1].session_persistence.type",
        "HTTP_COOKIE needs a pool of protocol HTTP, PROXY or PROXYV2; this one is TCP",
    )]);
    // To an HTTP pool a TCP listener speaks HTTP; to one of PROXY there is no cookie to be seen.
    let mut document = with(at, cookie);
    set(&mut document, "/listeners/1/default_pool", json!({ "id": id(20) }));
    assert_eq!(faults(&document), [""; 0]);
    set(&mut document, "/pools/0/protocol", json!("PROXY"));
    // Where a listener of HTTP has the pool, they are for its clients.
    assert_eq!(faults(&document), [""; 0]);
    for field in ["default_pool", "default_pool_id", "l7policies"] {
        set(&mut document, &format!("/listeners/0/{field}"), Value::Null);
    }
    let found = faults(&document);
    let at = "loadbalancer.listeners[1].default_pool: has session persistence by cookie";
    assert!(found.len() == 1 && found[0].starts_with(at), "{found:?}");
}

#[test]
fn members() {
    let at = |name: &str| format!("/pools/0/members/1/{name}");
    for (name, value, reason) in [
        ("address", Value::Null, "is required"),
        ("address", json!("example.com"), "must be an IPv4 or IPv6 address"),
        ("address", json!("169.254.169.254"), "reserved address of the metadata service"),
        ("address", json!("0.0.0.0"), "the address of one host"),
        ("protocol_port", json!(0), "integer from 1 to 65535"),
        ("weight", json!(257), "integer from 0 to 256"),
        ("weight", json!(-1), "integer from 0 to 256"),
        ("backup", json!(1), "true or false"),
        ("monitor_port", json!(70_000), "integer from 1 to 65535"),
        ("monitor_address", json!("x"), "must be an IPv4 or IPv6 address"),
        ("monitor_address", json!("ff02::1"), "the address of one host"),
        ("subnet_id", json!("x"), "must be a UUID"),
        ("id", json!(id(60)), "is the id of another member"),
        ("pool_id", json!(id(21)), "that this one is in"),
    ] {
        refused(&[(&at(name), value, &format!("pools[0].members[1].{name}"), reason)]);
    }
    let twin = json!({ "id": id(62), "address": "198.51.100.1", "protocol_port": 8080 });
    refused(&[(
        "/pools/0/members/-",
        twin,
        "pools[0].members[2]",
        "another member of the pool: 198.51.100.1:8080",
    )]);
    // A member belongs to one pool; the same endpoint may be in many.
    let stray = json!([{ "id": id(60), "address": "198.51.100.1", "protocol_port": 8080 }]);
    refused(&[("/pools/1/members", stray, "pools[1].members[0].id", "is the id of another member")]);
}

#[test]
fn health_monitors() {
    let at = |name: &str| format!("/pools/0/healthmonitor/{name}");
    for (name, value, reason) in [
        ("id", Value::Null, "is required"),
        ("type", Value::Null, "is required"),
        ("type", json!("SCTP"), "SCTP is not for pools of protocol HTTP"),
        ("type", json!("UDP-CONNECT"), "UDP-CONNECT is not for pools of protocol HTTP"),
        ("type", json!("SMTP"), "must be one of HTTP, HTTPS, TCP, TLS-HELLO, PING"),
        ("delay", json!(0), "integer from 1"),
        ("delay", Value::Null, "is required"),
        ("timeout", json!(1.5), "integer from 0"),
        ("max_retries", json!(11), "integer from 1 to 10"),
        ("max_retries", Value::Null, "is required"),
        ("max_retries_down", json!(0), "integer from 1 to 10"),
        ("http_method", json!("BREW"), "must be one of GET, HEAD, POST"),
        ("url_path", json!("health"), "starts with one /"),
        ("url_path", json!("/a b"), "white space"),
        ("expected_codes", json!("2xx"), "status codes and ranges"),
        ("expected_codes", json!("299-200"), "ends before it starts"),
        ("expected_codes", json!(200), "must be a string"),
        ("http_version", json!(2.0), "1.0, 1.1"),
        ("http_version", json!("1.1"), "1.0, 1.1"),
        ("domain_name", json!("example.com"), "needs http_version 1.1"),
    ] {
        refused(&[(&at(name), value, &format!("pools[0].healthmonitor.{name}"), reason)]);
    }
    let mut document = with(&at("http_version"), json!(1.1));
    set(&mut document, &at("domain_name"), json!("-example-"));
    assert!(
        faults(&document)[0]
            .starts_with("loadbalancer.pools[0].healthmonitor.domain_name: must be a domain name")
    );
    let ping = |name: &str, value: Value| {
        let mut monitor = json!({ "id": id(50), "type": "PING", "delay": 5, "timeout": 3, "max_retries": 2 });
        monitor[name] = value;
        monitor
    };
    for (name, value) in
        [("http_method", json!("GET")), ("url_path", json!("/")), ("expected_codes", json!("200"))]
    {
        let path = format!("pools[0].healthmonitor.{name}");
        refused(&[(
            "/pools/0/healthmonitor",
            ping(name, value),
            &path,
            "only for health monitors of type HTTP and HTTPS",
        )]);
    }
    let again = json!({ "id": id(50), "type": "TCP", "delay": 5, "timeout": 3, "max_retries": 2 });
    refused(&[("/pools/1/healthmonitor", again, "pools[1].healthmonitor.id", "another health monitor")]);
}

#[test]
fn what_a_pool_grants_its_members() {
    let at = |value: Value| (format!("{POOL}/amphora"), value);
    for (value, path, reason) in [
        (json!([]), "", "must be an object"),
        (json!({ "slow_start": -1 }), ".slow_start", "must be an integer from 0 to 3600"),
        (json!({ "slow_start": 3601 }), ".slow_start", "must be an integer from 0 to 3600"),
        (json!({ "slow_start": 1.5 }), ".slow_start", "must be an integer from 0 to 3600"),
        (json!({ "slowstart": 1 }), ".slowstart", "is not a field of this object"),
        (json!({ "drain_timeout": 86_401 }), ".drain_timeout", "must be an integer from 0 to 86400"),
        (json!({ "first_check": 1 }), ".first_check", "must be true or false"),
        (json!({ "outlier_detection": true }), ".outlier_detection", "must be an object"),
        (
            json!({ "outlier_detection": { "consecutive_failures": 0 } }),
            ".outlier_detection.consecutive_failures",
            "must be an integer from 1 to 100",
        ),
        (
            json!({ "outlier_detection": { "max_ejected_percent": 100 } }),
            ".outlier_detection.max_ejected_percent",
            "must be an integer from 1 to 99",
        ),
        (
            json!({ "outlier_detection": { "ejection_time": 60, "max_ejection_time": 59 } }),
            ".outlier_detection.max_ejection_time",
            "must not be less than ejection_time",
        ),
    ] {
        let (pointer, value) = at(value);
        refused(&[(&pointer, value, &format!("pools[0].amphora{path}"), reason)]);
    }
    let raw = "/pools/1/amphora";
    refused(&[(
        raw,
        json!({ "first_check": true }),
        "pools[1].amphora.first_check",
        "needs a healthmonitor",
    )]);
    let document = json!({ "loadbalancer": { "id": id(1), "vip_address": "192.0.2.1", "pools": [{
        "id": id(20), "protocol": "UDP", "lb_algorithm": "ROUND_ROBIN", "amphora": { "outlier_detection": {}, "drain_timeout": 0 },
    }] } });
    assert_eq!(
        faults(&document),
        [
            "loadbalancer.pools[0].amphora.outlier_detection: is not for pools of protocol UDP: what their members answer is not seen",
            "loadbalancer.pools[0].amphora.drain_timeout: is not for pools of protocol UDP: flows to a member that goes end at once",
        ]
    );
}
