//! L7 policies and their rules.

use super::*;

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
            "need a listener of protocol HTTP or TERMINATED_HTTPS; this one is TCP",
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
        (rule("PATH", "LIKE", json!(null), "a"), "compare_type", "must be one of REGEX, STARTS_WITH"),
        (
            rule("FILE_TYPE", "STARTS_WITH", json!(null), "a"),
            "compare_type",
            "REGEX, EQUAL_TO with type FILE_TYPE",
        ),
        (rule("HEADER", "EQUAL_TO", json!(null), "a"), "key", "is required"),
        (rule("COOKIE", "EQUAL_TO", json!(""), "a"), "key", "is required"),
        (rule("HEADER", "EQUAL_TO", json!("X Y"), "a"), "key", "must be a token"),
        (rule("PATH", "EQUAL_TO", json!("X"), "a"), "key", "only for types HEADER, COOKIE and SSL_DN_FIELD"),
        (rule("PATH", "EQUAL_TO", json!(null), ""), "value", "must not be empty"),
        (rule("PATH", "EQUAL_TO", json!(null), "/é"), "value", "visible ASCII"),
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
