//! Listeners.

use super::*;

#[test]
fn listeners() {
    let at = |name: &str| format!("{LISTENER}/{name}");
    for (name, value, reason) in [
        (
            "protocol",
            json!("FTP"),
            "must be one of HTTP, TCP, HTTPS, TERMINATED_HTTPS, PROMETHEUS, UDP, SCTP; not \"FTP\"",
        ),
        ("protocol", json!("http"), "must be one of"),
        ("protocol", Value::Null, "is required"),
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
        (at, headers("X-Mine", json!("true")), "listeners[0].insert_headers.X-Mine", "is not a field"),
        (
            "/listeners/1/insert_headers",
            headers("X-Forwarded-For", json!("true")),
            "listeners[1].insert_headers",
            "needs a listener of protocol HTTP or TERMINATED_HTTPS; this one is TCP",
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
