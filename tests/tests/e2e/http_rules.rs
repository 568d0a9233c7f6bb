//! What is refused, what is changed on the way, and what policies do.

use std::time::Duration;

use amphora_tests::{
    Backend, Client, Document, End, L7Policy, L7Rule, Listener, Pool, Proxy, Step, eventually,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn connect_is_refused_and_never_reaches_a_member() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    for request in [
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:80 HTTP/1.0\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let mut client = proxy.client().await;
        // A client may send what the tunnel is to carry at once.
        client.send(format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.status(), 405, "{request}");
        assert!(
            response.field("allow").is_some_and(|allow| allow.contains("GET") && !allow.contains("CONNECT"))
        );
        assert_eq!(response.field("connection"), Some("close"), "{request}");
        assert_eq!(client.end().await, End::Closed(Vec::new()), "{request}");
    }
    assert_eq!(member.connections(), 0);
}

#[tokio::test]
async fn an_expectation_without_a_body_does_not_reach_a_member() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get_with("/", "Expect: 100-Continue\r\n").await.text(), "a");
    assert!(!member.last_request().has("expect"));
}

#[tokio::test]
async fn an_upgrade_that_would_hide_requests_or_is_broken_is_not_offered() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: \"h2c\"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c-14\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade, Sec-WebSocket-Key\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
    ] {
        assert_eq!(client.get_with("/", lines).await.text(), "a", "{lines}");
        let request = member.last_request();
        for field in ["upgrade", "http2-settings", "connection"] {
            assert!(!request.has(field), "{field} of {lines}");
        }
    }
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_and_never_reaches_a_member() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let head = |rest: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\n{rest}");
    let table = [
        ("CL and TE", head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("TE and CL", head("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n")),
        ("two CLs", head("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello")),
        ("two equal CLs", head("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello")),
        ("CL list", head("Content-Length: 5, 5\r\n\r\nhello")),
        ("CL with sign", head("Content-Length: +5\r\n\r\nhello")),
        ("CL in hexadecimal", head("Content-Length: 0x5\r\n\r\nhello")),
        ("empty CL", head("Content-Length:\r\n\r\nhello")),
        ("CL too large", head("Content-Length: 99999999999999999999\r\n\r\n")),
        ("two TEs", head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("TE identity", head("Transfer-Encoding: identity\r\n\r\n")),
        ("TE with tab", head("Transfer-Encoding:\tchunked, identity\r\n\r\n0\r\n\r\n")),
        ("TE quoted", head("Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n")),
        ("TE misspelt", head("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        (
            "TE in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        ("folded line", head("X-A: b\r\n c\r\n\r\n")),
        ("folded TE", head("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n")),
        ("space before colon", head("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n")),
        ("leading space", "POST / HTTP/1.1\r\n Host: a\r\n\r\n".into()),
        ("bare LF", "GET / HTTP/1.1\nHost: a\n\n".into()),
        ("bare CR in a value", head("X-A: b\rTransfer-Encoding: chunked\r\n\r\n")),
        ("NUL in a value", head("X-A: b\0c\r\n\r\n")),
        ("name that is no token", head("X(A): b\r\n\r\n")),
        ("empty name", head(": b\r\n\r\n")),
        ("no colon", head("X-A\r\n\r\n")),
        ("no Host", "GET / HTTP/1.1\r\n\r\n".into()),
        ("two Hosts", head("Host: b\r\n\r\n")),
        ("authority differs from Host", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("method that is no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("target that is no path", "GET x HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("garbage", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n".into()),
    ];
    for (what, request) in &table {
        let mut client = proxy.client().await;
        // What a smuggled request would look like follows in the same packet.
        client.send(format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.status(), 400, "{what}");
        assert_eq!(response.field("connection"), Some("close"), "{what}");
        assert_eq!(client.end().await, End::Closed(Vec::new()), "{what}");
    }
    assert_eq!(member.started(), 0);
    let listener = proxy.listener().await;
    assert_eq!(listener.request_errors, table.len() as u64);
    assert_eq!(listener.responses.client_error, table.len() as u64);
}

#[tokio::test]
async fn a_bad_chunk_ends_the_request_and_the_connections() {
    for chunk in
        ["x\r\n", "5 \r\nhello\r\n", "-1\r\n", "5\r\nhelloX\r\n", "5\nhello\n", "fffffffffffffffff\r\n"]
    {
        let member = Backend::named("a").await;
        let proxy = Proxy::start(Document::http([&member])).await;
        let mut client = proxy.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")).await;
        client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response().await.status(), 400, "{chunk:?}");
        assert!(matches!(client.end().await, End::Closed(rest) if rest.is_empty()), "{chunk:?}");
        assert_eq!(member.served(), 0, "{chunk:?}");
        eventually("the member's connection is closed", async || (member.open() == 0).then_some(())).await;
    }
}

#[tokio::test]
async fn heads_have_bounds() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let field = format!("X-A: {}\r\n", "a".repeat(17_000));
    let many: String = (0..101).map(|n| format!("X-{n}: a\r\n")).collect();
    let long = "a".repeat(17_000);
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 505),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".into(), 501),
    ] {
        let mut client = proxy.client().await;
        client.send(&request).await;
        assert_eq!(client.response().await.status(), status, "{}", &request[..40]);
        assert_eq!(client.end().await, End::Closed(Vec::new()));
    }
    let fits = format!("X-A: {}\r\n", "a".repeat(15_000));
    assert_eq!(proxy.client().await.get_with("/", &fits).await.status(), 200);
}

#[tokio::test]
async fn a_head_that_takes_too_long_gets_408_however_it_dribbles() {
    let member = Backend::named("a").await;
    let listener = Listener::http().with("timeout_client_data", 500);
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let mut silent = proxy.client().await;
    assert_eq!(silent.response().await.status(), 408);
    let mut slow = proxy.client().await;
    let mut late = None;
    for byte in "GET / HTTP/1.1\r\nHost: shop.example\r\n".as_bytes().chunks(1) {
        slow.send(byte).await;
        if let Ok(response) = tokio::time::timeout(Duration::from_millis(100), slow.response_head()).await {
            late = Some(response);
            break;
        }
    }
    assert_eq!(late.expect("an answer before the head was complete").status(), 408);
    // Between requests there is no 408, which a client could take for the answer to its next.
    let mut idle = proxy.client().await;
    assert_eq!(idle.get("/").await.status(), 200);
    assert_eq!(idle.end().await, End::Closed(Vec::new()));
    // A body that stops.
    let mut stuck = proxy.client().await;
    stuck.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab").await;
    assert_eq!(stuck.response().await.status(), 408);
}

#[tokio::test]
async fn headers_are_inserted_and_those_of_one_connection_removed() {
    let member = Backend::http("a", |_| {
        vec![
            Step::ReadBody,
            Step::response(
                "200 OK",
                "Connection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nX-Kept: 1\r\n",
                "",
            ),
        ]
    })
    .await;
    let headers =
        json!({ "X-Forwarded-For": "true", "X-Forwarded-Port": "true", "X-Forwarded-Proto": "true" });
    let listener = Listener::http().with("insert_headers", headers);
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let mut client = Client::connect_from("127.0.0.9".parse().unwrap(), proxy.address()).await;
    let lines = "Connection: close, X-Hop, Host\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\n\
                 X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Proto: https\r\nX-Kept: 1\r\n";
    let response = client.get_with("/?q", lines).await;
    assert_eq!(response.fields("connection").collect::<Vec<_>>(), ["close"]);
    assert!(response.has("x-mine") && !response.has("keep-alive") && response.has("x-kept"));
    let request = member.last_request();
    assert!(request.has("x-hop"), "naming it removes nothing, as in HAProxy: {}", request.head);
    for gone in ["keep-alive", "proxy-connection", "te", "connection"] {
        assert!(!request.has(gone), "{gone}: {}", request.head);
    }
    assert_eq!(request.first_line(), "GET /?q HTTP/1.1");
    assert_eq!(request.fields("x-forwarded-for").collect::<Vec<_>>(), ["192.0.2.1", "127.0.0.9"]);
    let port = proxy.address().port().to_string();
    assert_eq!(request.fields("x-forwarded-port").collect::<Vec<_>>(), [&port]);
    assert_eq!(request.fields("x-forwarded-proto").collect::<Vec<_>>(), ["http"]);
    assert_eq!((request.field("host"), request.field("x-kept")), (Some("shop.example"), Some("1")));
    assert_eq!(client.end().await, End::Closed(Vec::new()));
}

/// As Octavia's templates have it: `option forwardfor` and `X-Forwarded-Port` are for backends of protocol HTTP alone.
#[tokio::test]
async fn members_that_are_told_by_the_proxy_protocol_are_not_told_again() {
    let (told, tells) = std::sync::mpsc::channel();
    let member = Backend::tcp("a", move |mut stream| {
        let told = told.clone();
        async move {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                    return;
                }
            }
            told.send(String::from_utf8(bytes).unwrap().to_ascii_lowercase()).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let headers =
        json!({ "X-Forwarded-For": "true", "X-Forwarded-Port": "true", "X-Forwarded-Proto": "true" });
    let listener = Listener::http().with("insert_headers", headers);
    let proxy = Proxy::start(Document::of(listener, Pool::new("PROXY").members([&member]))).await;
    let mut client = proxy.client().await;
    let response = client.get_with("/", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: x\r\n").await;
    assert_eq!(response.status(), 200);
    let request = tells.try_recv().unwrap();
    assert!(request.starts_with("proxy tcp4 "), "{request}");
    let forwarded: Vec<&str> = request.lines().filter(|line| line.starts_with("x-forwarded-")).collect();
    assert_eq!(forwarded, ["x-forwarded-for: 192.0.2.1", "x-forwarded-proto: http"]);
}

#[tokio::test]
async fn policies_reject_redirect_and_choose_the_pool() {
    let (web, api) = (Backend::named("web").await, Backend::named("api").await);
    let (web_pool, api_pool) = (Pool::http().members([&web]), Pool::http().members([&api]));
    let listener = Listener::http()
        .to(&web_pool)
        .policy(L7Policy::to_pool(&api_pool, L7Rule::path("/api")))
        .policy(L7Policy::new("REJECT", L7Rule::path("/api/secret")))
        .policy(
            L7Policy::new("REDIRECT_TO_URL", L7Rule::path("/old"))
                .with("redirect_url", "http://new.example/x"),
        )
        .policy(
            L7Policy::new("REDIRECT_PREFIX", L7Rule::new("HEADER", "REGEX", "^mob").with("key", "X-Kind"))
                .with("redirect_prefix", "https://m.example")
                .with("redirect_http_code", 308),
        );
    let proxy = Proxy::start(Document::new().listener(listener).pool(&web_pool).pool(&api_pool)).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.text(), "web");
    assert_eq!(client.get("/api/1").await.text(), "api");
    assert_eq!(client.get("/api/secret").await.status(), 403);
    let moved = client.get("/old/a?b").await;
    assert_eq!((moved.status(), moved.field("location")), (302, Some("http://new.example/x")));
    let mobile = client.get_with("/a/b?c=d", "X-Kind: mobile\r\n").await;
    assert_eq!((mobile.status(), mobile.field("location")), (308, Some("https://m.example/a/b?c=d")));
    // All of that on one connection; a rejected request with a body costs the connection, not the answer.
    client.send("POST /api/secret HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc").await;
    let rejected = client.response().await;
    assert_eq!((rejected.status(), rejected.field("connection")), (403, Some("close")));
    assert_eq!(proxy.listener().await.requests_denied, 2);
}
