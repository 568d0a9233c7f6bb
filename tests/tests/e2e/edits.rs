//! Policies that change requests and responses, and that answer.

use amphora_tests::{
    Backend, Certificates, Client, Document, HaProxy, HaProxyConfig, Http2Member, L7Policy, L7Rule, Listener,
    Load, Message, Pool, Proxy, Step,
    http2::{Http2Client, request},
    in_time,
};
use h2::server::Builder;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// A policy of our own for what begins with this path.
fn own(path: &str, own: Value) -> L7Policy {
    L7Policy::new("", L7Rule::path(path)).with("action", Value::Null).with("amphora", own)
}

fn edit(path: &str, edits: Value) -> L7Policy {
    own(path, json!({ "action": "EDIT", "edits": edits }))
}

fn answer(path: &str, answer: Value) -> L7Policy {
    own(path, json!({ "action": "ANSWER", "answer": answer }))
}

fn set(name: &str, value: &str) -> Value {
    json!({ "op": "SET", "name": name, "value": value })
}

async fn member() -> Backend {
    Backend::http("member", |request| {
        let lines = "Server: secret\r\nX-Two: 1\r\nX-Two: 2\r\n";
        vec![Step::response("200 OK", lines, request.target())]
    })
    .await
}

/// The fields of a message, without those that each has.
fn fields(message: &Message) -> Vec<String> {
    let lines = message.head.lines().skip(1).filter(|line| !line.is_empty());
    lines.map(|line| line.to_ascii_lowercase()).collect()
}

#[tokio::test]
async fn requests_and_responses_are_changed() {
    let member = member().await;
    let other = Backend::named("other").await;
    let (pool, aside) = (Pool::http().members([&member]), Pool::http().members([&other]));
    let edits = json!({
        "request": [
            set("X-Client", "${client_address}:${client_port}"),
            set("X-Asked", "${host}${path} at ${listener_port}"),
            json!({ "op": "ADD", "name": "Accept", "value": "b" }),
            json!({ "op": "REMOVE", "name": "X-Debug" }),
            set("X-Forwarded-Port", "1"),
        ],
        "response": [
            json!({ "op": "REMOVE", "name": "server" }),
            set("X-Two", "3"),
            set("X-Served-By", "${member_address}:${member_port} ${path}"),
        ],
        "path": { "prefix": "/api/", "replacement": "/" },
        "host": "inner.example:81",
    });
    let aside_policy = L7Policy::to_pool(&aside, L7Rule::path("/api/aside")).with(
        "amphora",
        json!({ "edits": { "request": [set("X-Client", "aside")], "host": "aside.example" } }),
    );
    let listener = Listener::http()
        .with("insert_headers", json!({ "X-Forwarded-Port": "true", "X-Forwarded-For": "true" }))
        .policy(aside_policy)
        .policy(edit("/api/", edits))
        .policy(edit("/api/v", json!({ "path": { "prefix": "/v1", "replacement": "/v2" } })));
    let document = Document::of(listener, pool).pool(&aside);
    let proxy = Proxy::start(document).await;
    let mut client = proxy.client().await;
    let local = client.stream.local_addr().unwrap();
    let response = client.get_with("/api/v1/x?y=/api/", "Accept: a\r\nX-Debug: 1\r\nx-keep: 1\r\n").await;
    let seen = member.last_request();
    assert_eq!(seen.first_line(), "GET /v2/x?y=/api/ HTTP/1.1");
    assert_eq!(seen.fields("host").collect::<Vec<_>>(), ["inner.example:81"]);
    assert_eq!(seen.field("x-client"), Some(&*local.to_string()));
    let port = proxy.address().port();
    assert_eq!(seen.field("x-asked"), Some(&*format!("shop.example/api/v1/x at {port}")));
    assert_eq!(seen.fields("accept").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(seen.field("x-forwarded-port"), Some("1"));
    assert_eq!(seen.field("x-forwarded-for"), Some(&*local.ip().to_string()));
    assert!(!seen.has("x-debug") && seen.has("x-keep"));
    assert!(!response.has("server"));
    assert_eq!(response.fields("x-two").collect::<Vec<_>>(), ["3"]);
    assert_eq!(response.field("x-served-by"), Some(&*format!("{} /api/v1/x", member.address)));
    // What is not matched is not changed, in any byte.
    let response = client.get_with("/x", "X-Debug: 1\r\n").await;
    assert_eq!(member.last_request().field("host"), Some("shop.example"));
    assert!(response.has("server") && member.last_request().has("x-debug"));
    client.get("/api/aside").await;
    let seen = other.last_request();
    assert_eq!((seen.field("x-client"), seen.field("host")), (Some("aside"), Some("aside.example")));
    assert_eq!(seen.target(), "/aside");
}

#[tokio::test]
async fn beside_haproxy() {
    let (ours, theirs) = (member().await, member().await);
    let mut config = HaProxyConfig::http([theirs.address]);
    config.bind = r#"
 http-request return status 418 content-type text/plain string "short and stout" hdr x-why "%[path]" if { path_beg /tea }
 http-request return status 204 if { path_beg /none }
 http-request set-header x-set "a %[src] b"
 http-request add-header x-two more
 http-request del-header x-del
 http-request set-header host inner if { path_beg /host }
 http-request replace-path ^/re/([^/]*)/(.*)$ /\2/\1
 http-request replace-path ^/all/.*$ \0\0
 http-response set-header x-two only
 http-response del-header server"#
        .to_owned();
    let Some(haproxy) = HaProxy::start(&config).await else { return };
    let fields = json!([
        set("X-Set", "a ${client_address} b"),
        json!({ "op": "ADD", "name": "X-Two", "value": "more" }),
        json!({ "op": "REMOVE", "name": "X-Del" }),
    ]);
    let response = json!([set("X-Two", "only"), json!({ "op": "REMOVE", "name": "Server" })]);
    let tea = json!({
        "status": 418, "content_type": "text/plain", "body": "short and stout",
        "fields": [{ "name": "X-Why", "value": "${path}" }],
    });
    let replace =
        |regex: &str, replacement: &str| json!({ "path": { "regex": regex, "replacement": replacement } });
    let listener = Listener::http()
        .policy(answer("/tea", tea))
        .policy(answer("/none", json!({ "status": 204 })))
        .policy(edit("/", json!({ "request": fields, "response": response })))
        .policy(edit("/host", json!({ "host": "inner" })))
        .policy(edit("/", replace("^/re/([^/]*)/(.*)$", "/\\2/\\1")))
        .policy(edit("/", replace("^/all/.*$", "\\0\\0")));
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&ours]))).await;
    let (mut our_client, mut their_client) = (proxy.client().await, haproxy.client().await);
    for target in [
        "/",
        "/a?b",
        "/re/a/b/c?d=/re/x/y",
        "/re/a",
        "/re//",
        "/all/x",
        "/all/",
        "/host/x?y",
        "/re/%2f/%00",
        "/tea",
        "/tea/a?b",
        "/none",
    ] {
        for lines in ["", "X-Set: old\r\nx-two: 0\r\nX-DEL: 1\r\nx-del: 2\r\n"] {
            let (before, before_theirs) = (ours.requests().len(), theirs.requests().len());
            let (our_answer, their_answer) =
                (our_client.get_with(target, lines).await, their_client.get_with(target, lines).await);
            assert_eq!(
                our_answer.first_line().split(' ').nth(1),
                their_answer.first_line().split(' ').nth(1)
            );
            assert_eq!(our_answer.text(), their_answer.text(), "{target}");
            let sorted = |message: &Message| {
                let mut fields = self::fields(message);
                fields.sort();
                fields
            };
            assert_eq!(sorted(&our_answer), sorted(&their_answer), "{target}");
            let asked = ours.requests().len() - before;
            assert_eq!(asked, theirs.requests().len() - before_theirs, "{target}");
            if asked > 0 {
                let (our_request, their_request) = (ours.last_request(), theirs.last_request());
                assert_eq!(our_request.first_line(), their_request.first_line());
                assert_eq!(sorted(&our_request), sorted(&their_request), "{target} {lines}");
            }
        }
    }
}

#[tokio::test]
async fn http2_on_both_sides() {
    let certificates = Certificates::new();
    certificates.issue("member", &["member.example"]);
    let member = Http2Member::start(&certificates, "member", &["h2"], Builder::new()).await;
    let pool = Pool::http()
        .members([&member.backend])
        .with("tls_enabled", true)
        .with("alpn_protocols", json!(["h2"]));
    let edits = json!({
        "request": [set("X-Set", "${client_address}"), json!({ "op": "REMOVE", "name": "x-del" })],
        "response": [set("X-Member", "${member_address}")],
        "path": { "prefix": "/api", "replacement": "" },
        "host": "inner.example",
    });
    let listener = Listener::http().policy(edit("/api", edits)).policy(answer(
        "/tea",
        json!({ "status": 418, "body": "short and stout", "content_type": "text/plain" }),
    ));
    let document = Document::of(listener, pool);
    let proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let mut asked = request("GET", "/api/bytes/3?x");
    asked.headers_mut().insert("x-del", "1".parse().unwrap());
    asked.headers_mut().insert("x-set", "old".parse().unwrap());
    let got = client.ask(asked, None, None).await;
    assert_eq!(
        (got.status, got.field("x-member")),
        (Some(200), Some(&*member.backend.address.ip().to_string()))
    );
    let seen = member.requests().pop().unwrap();
    assert_eq!(seen.line, "GET /bytes/3?x");
    let from = seen.fields.iter().find(|field| field.starts_with("x-set:")).unwrap();
    assert!(from.contains("127."), "{from}");
    assert!(seen.fields.iter().any(|field| field == "host: inner.example"), "{:?}", seen.fields);
    assert!(!seen.fields.iter().any(|field| field.starts_with("x-del")), "{:?}", seen.fields);
    let got = client.ask(request("POST", "/tea"), Some(b"milk"), None).await;
    assert_eq!(
        (got.status, got.text().as_str(), got.field("content-length")),
        (Some(418), "short and stout", Some("15"))
    );
    // HTTP/1.1 to the same member.
    let got = proxy.client().await.get("/api/bytes/3").await;
    assert_eq!((got.status(), got.has("x-member")), (200, true));
}

#[tokio::test]
async fn upgrades_and_clients_of_tls_are_no_exception() {
    let member = Backend::http("member", |request| {
        let (target, set) = (request.target(), request.field("x-set").unwrap_or_default());
        let switching = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\nServer: x\r\nX-Seen: {target} {set}\r\n\r\n"
        );
        vec![Step::send(switching), Step::Echo]
    })
    .await;
    let edits = json!({
        "request": [set("X-Set", "${host}")],
        "response": [json!({ "op": "REMOVE", "name": "Server" }), set("X-Member", "${member_port}")],
        "path": { "prefix": "/chat", "replacement": "/rooms" },
    });
    let certificates = Certificates::new();
    certificates.issue("web", &["shop.example"]);
    let pool = Pool::http().members([&member]);
    let document = Document::new()
        .listener(Listener::http().to(&pool).policy(edit("/chat", edits.clone())))
        .listener(Listener::https("web").to(&pool).policy(edit("/chat", edits)))
        .pool(&pool);
    let proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
    let text =
        "GET /chat/1?x HTTP/1.1\r\nHost: shop.example\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello";
    let switched = |head: &str| {
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains(&format!("\r\nx-member: {}\r\n", member.address.port())), "{head}");
        assert!(!head.contains("\r\nserver:") && head.ends_with("\r\n\r\nhello"), "{head}");
        assert!(head.contains("\r\nx-seen: /rooms/1?x shop.example\r\n"), "{head}");
    };
    let mut plain = proxy.client().await.stream;
    plain.write_all(text.as_bytes()).await.unwrap();
    switched(&until_hello(&mut plain).await);
    let mut tls = certificates.connect(proxy.document.address_of(1)).await.unwrap();
    tls.write_all(text.as_bytes()).await.unwrap();
    switched(&until_hello(&mut tls).await);
}

/// What comes up to what is echoed.
async fn until_hello(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("hello") {
        in_time("a byte", stream.read_exact(&mut byte)).await.unwrap();
        text.push(byte[0].into());
    }
    text
}

#[tokio::test]
async fn answers_keep_the_connection() {
    let member = Backend::named("member").await;
    let listener = Listener::http()
        .policy(answer("/tea", json!({ "status": 418, "body": "short and stout" })))
        .policy(answer(
            "/gone",
            json!({ "status": 301, "fields": [{ "name": "Location", "value": "https://${host}${path}" }] }),
        ));
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/tea").await.text(), "short and stout");
    // Of a body that has come with its head.
    client.send("POST /tea HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nmilk").await;
    assert_eq!(client.response().await.status(), 418);
    client.send("HEAD /tea HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let response = client.response_to_head().await;
    assert_eq!((response.status(), response.field("content-length")), (418, Some("15")));
    let response = client.get("/gone/x?y").await;
    assert_eq!((response.status(), response.field("location")), (301, Some("https://shop.example/gone/x")));
    assert_eq!(client.get("/").await.text(), "member");
    let stats = proxy.listener().await;
    assert_eq!(
        (stats.requests_intercepted, stats.responses.client_error, stats.responses.redirection),
        (4, 3, 1)
    );
}

#[tokio::test]
async fn no_value_of_a_clients_ends_a_line_or_grows_without_bound() {
    let member = member().await;
    let edits = json!({
        "request": [set("X-Path", "${path}|${host}"), set("X-Long", &"${path}".repeat(8))],
        "response": [set("X-Path", "${path}|${host}"), set("X-Long", &"${path}".repeat(8))],
    });
    let listener = Listener::http().policy(edit("/", edits));
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    for (target, host) in [
        ("/a%0d%0aX-Evil:%201", "shop.example"),
        ("/a\rX-Evil: 1", "shop.example"),
        ("/a\nX-Evil: 1", "shop.example"),
        ("/a\tb", "shop.example"),
        ("/a\0b", "shop.example"),
        ("/a", "shop\rX-Evil: 1"),
        ("/a", "shop\tX-Evil"),
        ("/${host}", "shop.example"),
        ("/\u{e9}", "shop.example"),
    ] {
        let mut client = proxy.client().await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let response = client.response().await;
        assert!(matches!(response.status(), 200 | 400), "{target:?} {host:?}");
        let evil = |message: &Message| message.has("x-evil");
        assert!(!evil(&response) && !member.requests().iter().any(evil), "{target:?} {host:?}");
    }
    // One that is as long as it may be.
    let long = format!("/{}", "a".repeat(1500));
    let mut client = proxy.client().await;
    assert_eq!(client.get(&long).await.status(), 200);
    let longer = format!("/{}", "a".repeat(2500));
    assert_eq!(client.get(&longer).await.status(), 431);
    let got = Http2Client::connect(proxy.address()).await.get(&longer).await;
    assert_eq!(got.status, Some(431));
    let mut client = proxy.client().await;
    let many: String = (0..98).map(|n| format!("x-{n}: 1\r\n")).collect();
    assert_eq!(client.get_with("/a", &many).await.status(), 431);
    let mut client = Client::connect(proxy.address()).await;
    assert_eq!(
        client
            .get_with(
                "/a",
                &many[..many.len() / 2].rsplit_once("\r\n").map(|(lines, _)| format!("{lines}\r\n")).unwrap()
            )
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn edits_change_under_load_without_a_failure() {
    let member = Backend::named("member").await;
    let pool = Pool::http().members([&member]);
    let mut proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    let load = Load::new().keep_alive(6, proxy.address()).connection_each(2, proxy.address());
    load.more(100).await;
    for round in 0..6 {
        let value = format!("{round} ${{client_address}}");
        proxy
            .change(|document| {
                let edits = json!({
                    "request": [set("X-Round", &value)],
                    "response": [set("X-Round", "${member_port}")],
                    "path": { "regex": "^/(.*)$", "replacement": "/moved/\\1" },
                });
                document.listeners[0].policies = vec![edit("/", edits)];
            })
            .await;
        load.more(100).await;
        let seen = member.last_request();
        assert!(seen.target().starts_with("/moved/"), "{}", seen.head);
        assert!(
            seen.field("x-round").is_some_and(|value| value.starts_with(&round.to_string())),
            "{}",
            seen.head
        );
    }
    proxy.change(|document| document.listeners[0].policies.clear()).await;
    load.more(100).await;
    assert!(!member.last_request().has("x-round"));
    load.stop().await;
}

#[tokio::test]
async fn a_replacement_that_names_a_group_that_is_not_there_is_refused_and_nothing_changes() {
    let member = member().await;
    let path = |replacement: &str| {
        let rewrites = json!({ "regex": "^/old/([a-z]+)$", "replacement": replacement });
        let listener = Listener::http().policy(edit("/old", json!({ "path": rewrites })));
        Document::of(listener, Pool::http().members([&member]))
    };
    let mut proxy = Proxy::start(path("/new/\\1")).await;
    for (replacement, reason) in [
        ("/new/\\9", "names group \\9, and the expression has one group"),
        ("/new/${path}", "has a ${, and no variables: those are for values of fields"),
    ] {
        let refused = proxy.try_apply(&path(replacement)).await.unwrap_err().refusal;
        let [fault] = &refused.faults[..] else { panic!("{refused:?}") };
        assert!(fault.path.ends_with(".amphora.edits.path.replacement"), "{fault:?}");
        assert_eq!(fault.reason, reason);
    }
    assert_eq!(proxy.client().await.get("/old/a").await.text(), "/new/a");
}
