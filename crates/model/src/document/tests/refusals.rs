//! Documents that are refused: each with its path and its reason.

use serde_json::{Value, json};

use super::{base, id, set, with};
use crate::{LoadBalancer, MAX_FAULTS, arbitrary};

/// The faults of a document, as lines.
fn faults(document: &Value) -> Vec<String> {
    match LoadBalancer::from_value(document) {
        Ok(_) => Vec::new(),
        Err(refusal) => refusal.faults.iter().map(ToString::to_string).collect(),
    }
}

/// Each case puts a value at a pointer below `loadbalancer`; exactly one fault must come of it, under the path (below
/// `loadbalancer`) and with the words.
fn refused(cases: &[(&str, Value, &str, &str)]) {
    for (pointer, value, path, reason) in cases {
        let found = faults(&with(pointer, value.clone()));
        let start = format!("loadbalancer.{path}: ");
        assert!(
            found.len() == 1 && found[0].starts_with(&start) && found[0].contains(reason),
            "{pointer} = {value}: expected {start}..{reason}.., found {found:#?}"
        );
    }
}

const LISTENER: &str = "/listeners/0";
const POOL: &str = "/pools/0";

#[test]
fn types_and_names() {
    refused(&[
        ("/id", json!("1"), "id", "must be a UUID"),
        ("/id", json!("00000000000040008000000000000001"), "id", "must be a UUID"),
        ("/id", Value::Null, "id", "is required"),
        ("/name", json!(7), "name", "must be a string"),
        ("/name", json!("é".repeat(256)), "name", "not be longer than 255 characters"),
        ("/description", json!("x".repeat(256)), "description", "255"),
        ("/tags", json!(["a", 1]), "tags[1]", "must be a string"),
        ("/admin_state_up", Value::Null, "admin_state_up", "true or false"),
        ("/admin_state_up", json!("true"), "admin_state_up", "true or false"),
        ("/project_id", json!("x".repeat(37)), "project_id", "36"),
        ("/flavor_id", json!("small"), "flavor_id", "must be a UUID"),
        ("/listeners", json!({}), "listeners", "must be a list"),
        ("/listeners/0", json!([]), "listeners[0]", "must be an object"),
        ("/colour", json!("red"), "colour", "is not a field of this object"),
        (
            "/listeners/0/l7policies/0/rules/0/colour",
            json!(1),
            "listeners[0].l7policies[0].rules[0].colour",
            "not a field",
        ),
        ("/pools/0/members/1/colour", Value::Null, "pools[0].members[1].colour", "is not a field"),
    ]);
    assert_eq!(faults(&json!([])), ["must be an object"]);
    assert_eq!(faults(&json!({})), ["loadbalancer: is required"]);
    assert_eq!(faults(&json!({ "loadbalancer": 1 })), ["loadbalancer: must be an object"]);
}

#[test]
fn vips() {
    refused(&[
        ("/vip_address", Value::Null, "vip_address", "is required"),
        ("/vip_address", json!("vip.example.com"), "vip_address", "must be an IPv4 or IPv6 address"),
        ("/vip_address", json!("fe80::1%eth0"), "vip_address", "must be an IPv4 or IPv6 address"),
        ("/vip_address", json!("224.0.0.18"), "vip_address", "multicast"),
        ("/additional_vips", json!([{ "subnet_id": id(2) }]), "additional_vips[0].ip_address", "is required"),
        (
            "/additional_vips",
            json!([{ "ip_address": "192.0.2.1" }]),
            "additional_vips[0].ip_address",
            "another VIP",
        ),
    ]);
}

#[test]
fn listeners() {
    let at = |name: &str| format!("{LISTENER}/{name}");
    for (name, value, reason) in [
        ("protocol", json!("FTP"), "must be one of HTTP, TCP, HTTPS, PROMETHEUS; not \"FTP\""),
        ("protocol", json!("http"), "must be one of"),
        ("protocol", Value::Null, "is required"),
        ("protocol", json!("TERMINATED_HTTPS"), "TERMINATED_HTTPS is not supported yet by this version"),
        ("protocol", json!("UDP"), "UDP is not supported yet"),
        ("protocol", json!("SCTP"), "SCTP is not supported yet"),
        ("protocol_port", json!(0), "integer from 1 to 65535"),
        ("protocol_port", json!(65_536), "integer from 1 to 65535"),
        ("protocol_port", json!("80"), "integer from 1 to 65535"),
        ("protocol_port", json!(80.0), "integer from 1 to 65535"),
        ("protocol_port", json!(443), "443 is the port of loadbalancer.listeners[0] already"),
        ("connection_limit", json!(-2), "integer from -1"),
        ("timeout_client_data", json!(-1), "integer from 0 to 2073600000"),
        ("timeout_member_connect", json!(2_073_600_001), "integer from 0 to 2073600000"),
        ("timeout_tcp_inspect", json!("1s"), "integer"),
        ("id", json!(id(11)), "is the id of another listener"),
        ("default_pool_id", json!(id(99)), "is not the id of a pool in this document"),
        (
            "default_pool_id",
            json!(id(21)),
            "a pool of protocol TCP, to which a listener of protocol HTTP cannot send",
        ),
        ("default_pool", json!({}), "refer to one by its id or name"),
        ("default_pool", json!({ "id": id(21) }), "cannot send"),
        ("default_pool", json!("web"), "must be an object"),
        ("loadbalancer_id", json!(id(2)), "is not the id of the object that this one is in"),
        ("insert_headers", json!([]), "must be an object"),
        ("default_tls_container_ref", json!("http://barbican/1"), "not supported yet"),
        ("sni_container_refs", json!(["http://barbican/1"]), "not supported yet"),
        ("client_ca_tls_container_ref", json!("x"), "not supported yet"),
        ("client_crl_container_ref", json!("x"), "not supported yet"),
        ("client_authentication", json!("MANDATORY"), "not supported yet"),
        ("client_authentication", json!("SOMETIMES"), "must be one of NONE"),
        ("tls_ciphers", json!("AES"), "not supported yet"),
        ("tls_versions", json!(["TLSv1.3"]), "not supported yet"),
        ("alpn_protocols", json!(["h2"]), "not supported yet"),
        ("hsts_max_age", json!(0), "not supported yet"),
        ("hsts_preload", json!(true), "not supported yet"),
    ] {
        // The second listener comes later: a port or an id that both have is its fault.
        let index = if reason.contains("already") || reason.contains("another") { 1 } else { 0 };
        if index == 1 {
            let other = if name == "id" { id(10).into() } else { json!(80) };
            let path = format!("listeners[1].{name}");
            refused(&[(&format!("/listeners/1/{name}"), other, &path, &reason.replace("443", "80"))]);
        } else if name == "default_pool" || reason.contains("cannot send") {
            let mut document = with(&at("default_pool_id"), Value::Null);
            set(&mut document, &at(name), value);
            let found = faults(&document);
            assert!(found.len() == 1 && found[0].contains(reason), "{name}: {found:?}");
        } else {
            refused(&[(&at(name), value, &format!("listeners[0].{name}"), reason)]);
        }
    }
}

#[test]
fn insert_headers() {
    let headers = |name: &str, value: Value| json!({ name: value });
    let at = "/listeners/0/insert_headers";
    refused(&[
        (
            at,
            headers("X-Forwarded-For", json!("yes")),
            "listeners[0].insert_headers.X-Forwarded-For",
            "\"true\", \"false\"",
        ),
        (
            at,
            headers("X-Real-IP", json!("true")),
            "listeners[0].insert_headers.X-Real-IP",
            "is not supported",
        ),
        (
            at,
            headers("X-SSL-Client-DN", json!("true")),
            "listeners[0].insert_headers.X-SSL-Client-DN",
            "not supported yet",
        ),
        (at, headers("X-Mine", json!("true")), "listeners[0].insert_headers.X-Mine", "is not a field"),
        (
            "/listeners/1/insert_headers",
            headers("X-Forwarded-For", json!("true")),
            "listeners[1].insert_headers",
            "needs a listener of protocol HTTP; this one is TCP",
        ),
    ]);
}

#[test]
fn allowed_cidrs() {
    let at = "/listeners/0/allowed_cidrs";
    refused(&[
        (at, json!(["10.0.0.0/8", "10.0.0.0/33"]), "listeners[0].allowed_cidrs[1]", "must be a CIDR"),
        (at, json!([10]), "listeners[0].allowed_cidrs[0]", "must be a string"),
        (at, json!(["2001:db8::/32"]), "listeners[0].allowed_cidrs[0]", "IP version that no VIP address has"),
        (
            at,
            json!(["10.0.0.0/8", "10.1.2.3/8"]),
            "listeners[0].allowed_cidrs[1]",
            "10.0.0.0/8, which is in the list",
        ),
    ]);
    let mut document = with(at, json!(["10.0.0.0/8"]));
    set(&mut document, "/vip_sg_ids", json!([id(2)]));
    assert_eq!(
        faults(&document),
        ["loadbalancer.listeners[0].allowed_cidrs: cannot be combined with vip_sg_ids"]
    );
}

#[test]
fn policies() {
    let policy = "/listeners/0/l7policies/0";
    let path = |name: &str| format!("listeners[0].l7policies[0].{name}");
    let to_url = |url: &str| json!({ "id": id(30), "action": "REDIRECT_TO_URL", "redirect_url": url });
    let case = |value: Value, name: &str, reason: &str| refused(&[(policy, value, &path(name), reason)]);
    case(json!({ "id": id(30) }), "action", "is required");
    case(json!({ "id": id(30), "action": "DROP" }), "action", "must be one of REJECT, REDIRECT_TO_URL");
    case(
        json!({ "id": id(30), "action": "REJECT", "redirect_url": "http://a/" }),
        "redirect_url",
        "no meaning with action REJECT",
    );
    case(json!({ "id": id(30), "action": "REJECT", "position": 0 }), "position", "from 1 to 2147483647");
    case(
        json!({ "id": id(30), "action": "REJECT", "listener_id": id(11) }),
        "listener_id",
        "that this one is in",
    );
    case(json!({ "id": id(30), "action": "REDIRECT_TO_URL" }), "redirect_url", "is required");
    case(to_url("/relative"), "redirect_url", "absolute http:// or https:// URL");
    case(to_url("http://a/\r\nX: y"), "redirect_url", "white space or control characters");
    case(to_url(&format!("http://a/{}", "x".repeat(255))), "redirect_url", "255 characters");
    case(
        json!({ "id": id(30), "action": "REDIRECT_PREFIX", "redirect_prefix": "http://a", "redirect_http_code": 304 }),
        "redirect_http_code",
        "must be one of 301, 302, 303, 307, 308",
    );
    case(
        json!({ "id": id(30), "action": "REDIRECT_TO_POOL", "redirect_pool": null }),
        "redirect_pool_id",
        "is required",
    );
    case(
        json!({ "id": id(30), "action": "REDIRECT_TO_POOL", "redirect_pool_id": id(21) }),
        "redirect_pool_id",
        "a pool of protocol TCP",
    );
    case(
        json!({ "id": id(30), "action": "REDIRECT_TO_POOL", "redirect_pool": { "name": "nowhere" } }),
        "redirect_pool.name",
        "is not the name of a pool",
    );
    case(
        json!({ "id": id(30), "action": "REDIRECT_TO_POOL", "redirect_pool": { "id": id(20) }, "redirect_http_code": 301 }),
        "redirect_http_code",
        "no meaning with action REDIRECT_TO_POOL",
    );
    let on_tcp = json!([{ "id": id(31), "action": "REJECT" }]);
    refused(&[
        (
            "/listeners/1/l7policies",
            on_tcp,
            "listeners[1].l7policies",
            "need a listener of protocol HTTP; this one is TCP",
        ),
        (
            "/listeners/0/l7policies/-",
            json!({ "id": id(30), "action": "REJECT" }),
            "listeners[0].l7policies[1].id",
            "another",
        ),
    ]);
}

#[test]
fn rules() {
    let at = "/listeners/0/l7policies/0/rules";
    let rule = |kind: &str, compare: &str, key: Value, value: &str| json!([{ "id": id(40), "type": kind, "compare_type": compare, "key": key, "value": value }]);
    let path = |name: &str| format!("listeners[0].l7policies[0].rules[0].{name}");
    for (value, name, reason) in [
        (rule("QUERY", "EQUAL_TO", json!(null), "a"), "type", "must be one of HOST_NAME, PATH"),
        (rule("SSL_DN_FIELD", "EQUAL_TO", json!("CN"), "a"), "type", "SSL_DN_FIELD is not supported yet"),
        (rule("PATH", "LIKE", json!(null), "a"), "compare_type", "must be one of REGEX, STARTS_WITH"),
        (
            rule("FILE_TYPE", "STARTS_WITH", json!(null), "a"),
            "compare_type",
            "REGEX, EQUAL_TO with type FILE_TYPE",
        ),
        (rule("HEADER", "EQUAL_TO", json!(null), "a"), "key", "is required"),
        (rule("COOKIE", "EQUAL_TO", json!(""), "a"), "key", "is required"),
        (rule("HEADER", "EQUAL_TO", json!("X Y"), "a"), "key", "must be a token"),
        (rule("PATH", "EQUAL_TO", json!("X"), "a"), "key", "only for types HEADER and COOKIE"),
        (rule("PATH", "EQUAL_TO", json!(null), ""), "value", "must not be empty"),
        (rule("PATH", "EQUAL_TO", json!(null), "a b"), "value", "visible ASCII"),
        (rule("PATH", "REGEX", json!(null), "a\nb"), "value", "line breaks"),
        (rule("PATH", "REGEX", json!(null), &"a".repeat(256)), "value", "255 characters"),
        (rule("COOKIE", "EQUAL_TO", json!("X"), "a;b"), "value", "semicolons"),
    ] {
        refused(&[(at, value, &path(name), reason)]);
    }
    let many: Vec<Value> = (0..51)
        .map(|n| json!({ "id": id(100 + n), "type": "PATH", "compare_type": "REGEX", "value": "a b|c" }))
        .collect();
    refused(&[
        (at, many.into(), "listeners[0].l7policies[0].rules", "must not be more than 50"),
        (
            "/listeners/0/l7policies/0/rules/-",
            json!({ "id": id(40), "type": "PATH", "compare_type": "REGEX", "value": "a" }),
            "listeners[0].l7policies[0].rules[1].id",
            "another rule",
        ),
    ]);
}

#[test]
fn pools() {
    let at = |name: &str| format!("{POOL}/{name}");
    for (name, value, reason) in [
        ("protocol", json!("TERMINATED_HTTPS"), "must be one of HTTP, HTTPS, TCP, PROXY, PROXYV2"),
        ("protocol", json!("UDP"), "not supported yet"),
        ("protocol", Value::Null, "is required"),
        (
            "lb_algorithm",
            json!("RANDOM"),
            "must be one of ROUND_ROBIN, LEAST_CONNECTIONS, SOURCE_IP, SOURCE_IP_PORT",
        ),
        ("lb_algorithm", Value::Null, "is required"),
        ("tls_enabled", json!(true), "not supported yet"),
        ("tls_container_ref", json!("x"), "not supported yet"),
        ("alpn_protocols", json!(["h2"]), "not supported yet"),
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
        (json!({ "type": "SOURCE_IP", "persistence_timeout": 60 }), "persistence_timeout", "UDP and SCTP"),
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
    // An HTTP pool may be behind a TCP listener, but there is no cookie to be seen there.
    let mut document = with(at, cookie);
    set(&mut document, "/listeners/1/default_pool", json!({ "id": id(20) }));
    assert!(
        faults(&document)[0]
            .starts_with("loadbalancer.listeners[1].default_pool: has session persistence by cookie")
    );
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
        ("type", json!("SCTP"), "SCTP is not supported yet"),
        ("type", json!("UDP-CONNECT"), "UDP-CONNECT is not supported yet"),
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
fn several_faults_are_reported_together_and_many_are_counted() {
    let mut document = base();
    set(&mut document, "/vip_address", json!("x"));
    set(&mut document, "/listeners/0/protocol_port", json!(0));
    set(&mut document, "/pools/0/members/0/weight", json!(1000));
    assert_eq!(
        faults(&document),
        [
            "loadbalancer.vip_address: must be an IPv4 or IPv6 address",
            "loadbalancer.pools[0].members[0].weight: must be an integer from 0 to 256",
            "loadbalancer.listeners[0].protocol_port: must be an integer from 1 to 65535",
        ]
    );

    let shape = arbitrary::Shape { pools: 1..=1, members: 300..=300, ..Default::default() };
    let mut document = arbitrary::Generator::new(7).load_balancer(&shape).to_json();
    let members = document.pointer_mut("/loadbalancer/pools/0/members").unwrap().as_array_mut().unwrap();
    members.iter_mut().for_each(|member| member["weight"] = json!("heavy"));
    let found = faults(&document);
    assert_eq!(found.len(), MAX_FAULTS + 1);
    assert_eq!(found[MAX_FAULTS], format!("and {} more faults", 300 - MAX_FAULTS));
}

#[test]
fn a_field_given_twice_is_refused_in_text() {
    let text = base().to_string().replacen("\"protocol\":", "\"protocol\":\"TCP\",\"protocol\":", 1);
    let refusal = LoadBalancer::from_json(text.as_bytes()).unwrap_err();
    assert!(refusal.faults.iter().any(|fault| fault.reason == "is given twice in one object"), "{refusal}");
}

/// Whatever their order in the text, so that the same faults read the same.
#[test]
fn unknown_fields_are_all_found_in_the_order_of_their_names() {
    for n in [3, 64, 65, 200] {
        let names: Vec<_> = (0..n).map(|i| format!("x{i:03}")).collect();
        let mut document = base();
        let text = {
            let lb = document["loadbalancer"].as_object_mut().unwrap();
            lb.remove("listeners");
            let own: Vec<_> = lb.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            let others: Vec<_> = names.iter().rev().map(|name| format!("\"{name}\": 1")).collect();
            // Known ones after all the others, where there is no bit for them in the first word.
            format!("{{\"loadbalancer\": {{{}, {}}}}}", others.join(", "), own.join(", "))
        };
        let faults = LoadBalancer::from_json(text.as_bytes()).unwrap_err().faults;
        let expected: Vec<_> =
            names.iter().take(crate::MAX_FAULTS).map(|name| format!("loadbalancer.{name}")).collect();
        let found: Vec<_> =
            faults.iter().map(|fault| fault.path.clone()).filter(|path| !path.is_empty()).collect();
        assert_eq!(found, expected);
    }
}
