//! What L7 policies of our own change and answer.

use serde_json::{Value, json};

use super::{super::accept, *};
use crate::{FieldOp, L7Action, Listener};

/// The base with `amphora` in its policy in place of the action.
fn with_own(own: &Value) -> Value {
    let mut document = base();
    let policy = &mut document["loadbalancer"]["listeners"][0]["l7policies"][0];
    policy.as_object_mut().unwrap().remove("action");
    policy["amphora"] = own.clone();
    document
}

fn listener(own: &Value) -> Listener {
    accept(&with_own(own)).listeners.swap_remove(0)
}

/// One fault comes of each, under the path below the policy's `amphora`.
fn refused_of_policy(cases: &[(Value, &str, &str)]) {
    for (own, path, reason) in cases {
        let found = faults(&with_own(own));
        let start = format!("loadbalancer.listeners[0].l7policies[0].amphora{path}: ");
        assert!(
            found.len() == 1 && found[0].starts_with(&start) && found[0].contains(reason),
            "{own}: expected {start}..{reason}.., found {found:#?}"
        );
    }
}

fn edit(edits: Value) -> Value {
    json!({ "action": "EDIT", "edits": edits })
}

fn request_edit(edit: Value) -> Value {
    self::edit(json!({ "request": [edit] }))
}

fn answer(answer: Value) -> Value {
    json!({ "action": "ANSWER", "answer": answer })
}

#[test]
fn edits() {
    let policy = &listener(&edit(json!({
        "request": [
            { "op": "SET", "name": "X-Real", "value": "${client_address}" },
            { "op": "REMOVE", "name": "X-Debug" },
        ],
        "response": [{ "op": "ADD", "name": "X-Member", "value": "${member_address}:${member_port}" }],
        "path": { "prefix": "/api", "replacement": "" },
        "host": "inner.example.com:8080",
    })))
    .l7policies[0];
    assert_eq!(policy.action, L7Action::Edit);
    let edits = policy.edits.as_ref().unwrap();
    assert_eq!((edits.request.len(), edits.response.len()), (2, 1));
    assert_eq!(edits.request[1].op, FieldOp::Remove);
    let field = |name: &str, value: &str| request_edit(json!({ "op": "SET", "name": name, "value": value }));
    let first = ".edits.request[0]";
    let (name, value) = (format!("{first}.name"), format!("{first}.value"));
    for reserved in [
        "Connection",
        "CONTENT-LENGTH",
        "Transfer-Encoding",
        "TE",
        "Upgrade",
        "host",
        "Expect",
        "Trailer",
        "Keep-Alive",
        "Proxy-Connection",
        "HTTP2-Settings",
        "Sec-WebSocket-Key",
    ] {
        refused_of_policy(&[(field(reserved, "x"), &name, "is the proxy's")]);
    }
    refused_of_policy(&[
        (field("Host", "x"), &name, "or of one connection; edits.host names another host"),
        (field(":path", "/"), &name, "must be a token"),
        (field("a b", "x"), &name, "must be a token"),
        (field("x-a", "a\r\nx-b: c"), &value, "visible ASCII"),
        (field("x-a", "\u{fc}"), &value, "visible ASCII"),
        (field("x-a", "${user}"), &value, "client_address"),
        (field("x-a", "${member_address}"), &value, "of a response alone"),
        (field("Authorization", "Negotiate abc"), &value, "a connection's"),
        (field("Authorization", "Basic a, ntlm abc"), &value, "a connection's"),
        (field("Authorization", "${host}"), &value, "must not name variables"),
        (request_edit(json!({ "op": "SET", "name": "x-a" })), &value, "is required"),
        (
            request_edit(json!({ "op": "DROP", "name": "x-a" })),
            &format!("{first}.op"),
            "must be one of SET, ADD, REMOVE",
        ),
        (request_edit(json!({ "op": "REMOVE", "name": "x-a", "value": "b" })), &value, "no meaning"),
        (edit(json!({})), ".edits", "must have one of"),
        (json!({ "action": "EDIT" }), ".edits", "is required"),
        (json!({ "action": "DROP", "edits": { "host": "a" } }), ".action", "must be one of EDIT, ANSWER"),
        (edit(json!({ "host": "a b" })), ".edits.host", "name of a host"),
        (edit(json!({ "host": "a/b" })), ".edits.host", "name of a host"),
        (edit(json!({ "host": "" })), ".edits.host", "name of a host"),
        (edit(json!({ "path": { "replacement": "/" } })), ".edits.path", "one of prefix, regex"),
        (edit(json!({ "path": { "prefix": "/a" } })), ".edits.path.replacement", "is required"),
        (
            edit(json!({ "path": { "prefix": "a", "replacement": "/" } })),
            ".edits.path.prefix",
            "begin with /",
        ),
        (
            edit(json!({ "path": { "prefix": "/a", "replacement": "b" } })),
            ".edits.path.replacement",
            "begin with /",
        ),
        (
            edit(json!({ "path": { "prefix": "/a", "replacement": "/${client_address}" } })),
            ".edits.path.replacement",
            "no variables",
        ),
        (
            edit(json!({ "path": { "regex": "^/a", "replacement": "/${path}" } })),
            ".edits.path.replacement",
            "no variables",
        ),
        (edit(json!({ "host": "${host}" })), ".edits.host", "name of a host"),
        (
            edit(json!({ "path": { "prefix": "/a", "replacement": "/b?c" } })),
            ".edits.path.replacement",
            "percent-encode",
        ),
        (
            edit(json!({ "path": { "regex": "a", "replacement": "/\\x" } })),
            ".edits.path.replacement",
            "backslash",
        ),
        (
            json!({ "action": "EDIT", "edits": { "host": "a" }, "answer": { "status": 200 } }),
            ".answer",
            "no meaning with action EDIT",
        ),
    ]);
    let many: Vec<_> = (0..33).map(|_| json!({ "op": "REMOVE", "name": "x" })).collect();
    refused_of_policy(&[(edit(json!({ "request": many })), ".edits.request", "more than 32")]);
    let mut beside = with_own(&edit(json!({ "host": "a" })));
    set(&mut beside, "/listeners/0/l7policies/0/action", json!("REJECT"));
    assert!(faults(&beside)[0].contains("action: has no meaning with amphora.action EDIT"));
    refused(&[(
        "/listeners/0/l7policies/0/amphora",
        json!({ "edits": { "host": "a" } }),
        "listeners[0].l7policies[0].amphora",
        "no meaning with action REJECT",
    )]);
}

#[test]
fn answers() {
    let policy = &listener(&answer(json!({
        "status": 503,
        "body": "<h1>later</h1>",
        "content_type": "text/html; charset=utf-8",
        "fields": [{ "name": "Retry-After", "value": "120" }],
    })))
    .l7policies[0];
    let L7Action::Answer(found) = &policy.action else { panic!("{policy:?}") };
    assert_eq!((found.status, found.body.as_str(), found.fields.len()), (503, "<h1>later</h1>", 1));
    refused_of_policy(&[
        (answer(json!({})), ".answer.status", "is required"),
        (answer(json!({ "status": 199 })), ".answer.status", "200 to 599"),
        (answer(json!({ "status": 600 })), ".answer.status", "200 to 599"),
        (answer(json!({ "status": 204, "body": "x" })), ".answer.body", "must be empty"),
        (answer(json!({ "status": 200, "body": "x".repeat(16_385) })), ".answer.body", "16384"),
        (answer(json!({ "status": 200, "body": "\u{e9}".repeat(16_384) })), ".answer.body", "16384 bytes"),
        (answer(json!({ "status": 200, "content_type": "a\nb" })), ".answer.content_type", "visible ASCII"),
        (answer(json!({ "status": 200, "content_type": "${path}" })), ".answer.content_type", "no variables"),
        (
            answer(json!({ "status": 200, "fields": [{ "name": "Content-Type", "value": "a" }] })),
            ".answer.fields",
            "content_type",
        ),
        (
            answer(json!({ "status": 200, "fields": [{ "name": "Content-Length", "value": "1" }] })),
            ".answer.fields[0].name",
            "the proxy's",
        ),
        (json!({ "action": "ANSWER" }), ".answer", "is required"),
    ]);
}

#[test]
fn ids() {
    let own = |own: Value| with("/listeners/0/amphora", own);
    let lb = accept(&own(json!({ "request_id": {}, "traceparent": "BEGIN" })));
    let id = lb.listeners[0].routing.request_id.as_ref().unwrap();
    assert_eq!((id.field.as_str(), id.keep), ("X-Request-ID", false));
    let amphora = "/listeners/0/amphora";
    refused(&[
        (
            amphora,
            json!({ "request_id": { "field": "Host" } }),
            "listeners[0].amphora.request_id.field",
            "the proxy's",
        ),
        (
            amphora,
            json!({ "request_id": { "keep": 1 } }),
            "listeners[0].amphora.request_id.keep",
            "true or false",
        ),
        (amphora, json!({ "traceparent": "MAKE" }), "listeners[0].amphora.traceparent", "PASS, BEGIN"),
        (
            "/listeners/1/amphora",
            json!({ "traceparent": "PASS" }),
            "listeners[1].amphora.traceparent",
            "HTTP",
        ),
        ("/listeners/1/amphora", json!({ "request_id": {} }), "listeners[1].amphora.request_id", "HTTP"),
    ]);
}
