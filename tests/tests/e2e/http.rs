//! HTTP between clients and members.

use amphora_tests::{Backend, Client, Document, End, Listener, Pool, Proxy, Step};

#[tokio::test]
async fn connections_are_kept_on_both_sides_and_shared_by_clients() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut first = proxy.client().await;
    for _ in 0..20 {
        assert_eq!(first.get("/").await.text(), "a");
    }
    assert_eq!(member.connections(), 1);
    // Each worker has connections of its own, so others clients need at most one more.
    for _ in 0..20 {
        assert_eq!(proxy.client().await.get("/").await.text(), "a");
    }
    assert!(member.connections() <= 2, "{}", member.connections());
    let stats = proxy.member(0).await;
    assert_eq!((stats.requests, stats.connects + stats.reuses), (40, 40));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let member = Backend::http("a", |request| Step::ok(request.target())).await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    let requests: String = (0..50).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests).await;
    for n in 0..50 {
        assert_eq!(client.response().await.text(), format!("/{n}"));
    }
}

#[tokio::test]
async fn responses_without_a_body_end_with_their_head() {
    let member = Backend::http("a", |request| match request.target() {
        "/204" => vec![Step::send("HTTP/1.1 204 No Content\r\n\r\n")],
        "/304" => vec![Step::send("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n")],
        _ if request.first_line().starts_with("HEAD") => {
            vec![Step::send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")]
        }
        _ => Step::ok("body"),
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    client.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response_to_head().await.field("content-length"), Some("10"));
    assert_eq!(client.get("/204").await.status(), 204);
    assert_eq!(client.get("/304").await.status(), 304);
    assert_eq!(client.get("/").await.text(), "body");
    // The one that carried HEAD waits for a while, lest the member has sent a body all the same.
    assert_eq!(member.connections(), 2);
}

#[tokio::test]
async fn chunks_pass_both_ways_with_their_trailers() {
    let member = Backend::http("a", |_| {
        vec![
            Step::ReadBody,
            Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"),
            Step::send("5;name=value\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 42\r\n\r\n"),
        ]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab").await;
        client.send("c\r\n2\r\nde\r\n0\r\nX-Check: 7\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.text().as_str(), response.trailers.as_str()), ("hello!", "X-Sum: 42\r\n"));
        let request = member.last_request();
        assert_eq!((request.text().as_str(), request.trailers.as_str()), ("abcde", "X-Check: 7\r\n"));
    }
}

#[tokio::test]
async fn trailers_that_look_like_a_request_are_trailers_however_they_come() {
    let member = Backend::http("a", |request| match request.first_line() {
        line if line.contains("admin") => Step::ok("smuggled"),
        _ => vec![Step::ReadBody, Step::response("200 OK", "", "a")],
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTrailer: GET\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "3\r\nabc\r\n0;x\r\nGET: /admin HTTP/1.0\r\nX-Long: ";
    // In one piece, in two, and across more than one buffer.
    for (first, second) in
        [("a\r\n\r\n".to_owned(), String::new()), ("a".repeat(9000), "b".repeat(6000) + "\r\n\r\n")]
    {
        client.send(format!("{head}{body}{first}")).await;
        tokio::task::yield_now().await;
        client.send(second.as_str()).await;
        assert_eq!(client.response().await.text(), "a");
        let request = member.last_request();
        let trailers = format!("GET: /admin HTTP/1.0\r\nX-Long: {first}{second}");
        assert_eq!((request.text(), format!("{}\r\n", request.trailers)), ("abc".to_owned(), trailers));
        assert!(request.has("trailer"));
    }
    // They are looked at all the same.
    client.send(format!("{head}0\r\nContent-Length: 3\r\n\r\n")).await;
    assert_eq!(client.response().await.status(), 400);
    assert_eq!(member.requests().iter().filter(|request| request.complete).count(), 2);
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_chunked_body_without_chunks() {
    let member = Backend::http("a", |_| {
        vec![Step::send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
        )]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!(response.text(), "hello");
    assert!(!response.has("transfer-encoding"));
    assert_eq!(client.end().await, End::Closed(Vec::new()));
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_reaches_an_http_1_1_client_in_chunks() {
    let member =
        Backend::http("a", |_| vec![Step::send("HTTP/1.0 200 OK\r\n\r\nuntil the end"), Step::Close]).await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    for _ in 0..3 {
        let response = client.get("/").await;
        assert_eq!(response.text(), "until the end");
        assert_eq!(response.field("transfer-encoding"), Some("chunked"));
    }
    assert_eq!(member.connections(), 3);
    let mut old = Client::connect(proxy.address()).await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.response().await.text(), "until the end");
}

#[tokio::test]
async fn an_http_1_0_client_may_keep_its_connection() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.text().as_str(), response.field("connection")), ("a", Some("keep-alive")));
    }
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "a");
    assert_eq!(client.end().await, End::Closed(Vec::new()));
    assert_eq!(member.connections(), 1);
}

#[tokio::test]
async fn a_switch_of_protocols_that_nobody_asked_for_is_refused() {
    let member = Backend::http("a", |_| {
        vec![
            Step::send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
            Step::Wait,
        ]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    assert_eq!(proxy.client().await.get("/").await.status(), 502);
}

#[tokio::test]
async fn a_connection_at_the_limit_waits_for_its_turn() {
    let member = Backend::named("a").await;
    let listener = Listener::http().with("connection_limit", 2);
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let (mut first, mut second) = (proxy.client().await, proxy.client().await);
    assert_eq!(first.get("/").await.text(), "a");
    assert_eq!(second.get("/").await.text(), "a");
    let mut third = proxy.client().await;
    third.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(first.get("/").await.text(), "a");
    assert_eq!(proxy.listener().await.requests, 3);
    drop(second);
    assert_eq!(third.response().await.text(), "a");
    assert_eq!(proxy.listener().await.max_connections, 2);
}
