//! Members whose answers are none, break off or come unasked.

use std::time::Duration;

use amphora_tests::{Backend, Document, End, Listener, Pool, Proxy, Step, eventually};

#[tokio::test]
async fn garbage_from_a_member_is_502() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX A: b\r\n\r\n",
        "HTTP/1.1 99999 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-",
    ] {
        let member = Backend::http("a", move |_| vec![Step::send(garbage), Step::Close]).await;
        let proxy = Proxy::start(Document::http([&member])).await;
        let mut client = proxy.client().await;
        assert_eq!(client.get("/").await.status(), 502, "{garbage:?}");
        assert_eq!(proxy.member(0).await.response_errors, 1, "{garbage:?}");
    }
}

#[tokio::test]
async fn a_client_keeps_its_connection_when_a_member_fails() {
    let member = Backend::http("a", |request| match request.target() {
        "/garbage" => vec![Step::ReadBody, Step::send("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Step::Close],
        "/early" => vec![Step::send("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Step::Wait],
        "/close" => vec![Step::ReadBody, Step::Close],
        "/silent" => vec![Step::ReadBody, Step::Wait],
        _ => Step::ok("a"),
    })
    .await;
    let listener = Listener::http().with("timeout_member_data", 300);
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let mut client = proxy.client().await;
    for (path, status) in [("/garbage", 502), ("/close", 502), ("/silent", 504)] {
        for answer in [client.get(path).await, client.post(path, b"hello").await] {
            assert_eq!((answer.status(), answer.field("connection")), (status, None), "{path}");
        }
        assert_eq!(client.get("/").await.text(), "a", "{path}");
    }
    // What was pipelined behind the failure is served.
    client.send("GET /garbage HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 502);
    assert_eq!(client.response().await.text(), "a");
    let old = "GET /garbage HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    client.send(old).await;
    assert_eq!(client.response().await.field("connection"), Some("keep-alive"));

    // Not one whose request was not read to its end, nor one that wants to go.
    for request in [
        "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\nhello",
        "POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST /early HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        "GET /garbage HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ] {
        let mut client = proxy.client().await;
        client.send(request).await;
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.field("connection")), (502, Some("close")), "{request}");
        assert_eq!(client.end().await, End::Closed(Vec::new()), "{request}");
    }
}

#[tokio::test]
async fn a_body_that_the_member_cuts_off_does_not_look_whole() {
    for (head, cut) in [
        ("Content-Length: 10\r\n\r\n", "abc"),
        ("Transfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n"),
        ("Transfer-Encoding: chunked\r\n\r\n", "5\r\nabc"),
        ("Content-Length: 1000000\r\n\r\n", "abc"),
    ] {
        let member = Backend::http("a", move |_| {
            vec![Step::send(format!("HTTP/1.1 200 OK\r\n{head}{cut}")), Step::Close]
        })
        .await;
        let proxy = Proxy::start(Document::http([&member])).await;
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let response = client.response().await;
        assert!(!response.complete, "{head:?} {cut:?}");
        assert_eq!(response.text(), "abc");
        assert!(matches!(client.end().await, End::Closed(rest) if rest.is_empty()));
        let stats = proxy.member(0).await;
        assert_eq!((stats.server_aborts, stats.response_errors), (1, 1));
    }
}

#[tokio::test]
async fn a_bad_chunk_from_a_member_does_not_look_like_an_end() {
    let member = Backend::http("a", |_| {
        vec![Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nZZ\r\n0\r\n\r\n")]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    // All of it came at once, so nothing has been said to the client yet.
    assert_eq!(proxy.client().await.get("/").await.status(), 502);
    eventually("the member's connection is closed", async || (member.open() == 0).then_some(())).await;

    let member = Backend::http("a", |_| {
        vec![
            Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
            Step::Wait,
            Step::send("ZZ\r\n0\r\n\r\n"),
        ]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response_head().await;
    client.expect("3\r\nabc\r\n").await;
    member.proceed();
    assert_eq!(client.end().await, End::Closed(Vec::new()));
    eventually("the member's connection is closed", async || (member.open() == 0).then_some(())).await;
}

#[tokio::test]
async fn what_a_member_says_unasked_reaches_nobody() {
    for unasked in ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong", "garbage"] {
        let member = Backend::http("a", move |request| match request.target() {
            "/now" => vec![Step::send(format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright{unasked}"))],
            "/later" => vec![Step::response("200 OK", "", "right"), Step::Wait, Step::send(unasked)],
            _ => Step::ok("right"),
        })
        .await;
        let proxy = Proxy::start(Document::http([&member])).await;
        for path in ["/now", "/later"] {
            let mut client = proxy.client().await;
            assert_eq!(client.get(path).await.text(), "right");
            if path == "/later" {
                proxy.until_member(0, "the connection is idle", |member| member.idle > 0).await;
                member.proceed();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            for _ in 0..4 {
                assert_eq!(client.get("/").await.text(), "right", "{path}");
                assert_eq!(proxy.client().await.get("/").await.text(), "right", "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_comes_to_a_standstill_is_cut_off() {
    let member = Backend::http("a", |_| {
        vec![Step::send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), Step::Wait]
    })
    .await;
    let listener = Listener::http().with("timeout_member_data", 300);
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let mut client = proxy.client().await;
    let response = client.get("/").await;
    assert!(!response.complete && response.text() == "abc");
    eventually("the member's connection is closed", async || (member.open() == 0).then_some(())).await;
}
