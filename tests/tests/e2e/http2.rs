//! HTTP/2 from clients, with prior knowledge, to members of HTTP/1.1: beside HAProxy, and what it has no counterpart for.

use std::time::Duration;

use amphora_tests::{
    Backend, Document, HaProxy, HaProxyConfig, L7Policy, L7Rule, Listener, Message, Pool, Proxy, Step,
    eventually,
    http2::{Answer, Http2Client, answer, request},
    in_time,
};
use http::{HeaderMap, HeaderValue, Request};

const MIB: usize = 1024 * 1024;

/// A member whose behaviour is named by the path.
async fn scripted() -> Backend {
    Backend::http("a", |request: &Message| {
        let path = request.target().split('?').next().unwrap_or_default().to_owned();
        match path.as_str() {
            "/chunked" => vec![
                Step::ReadBody,
                Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
            ],
            "/trailers" => vec![
                Step::ReadBody,
                Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\nX-More: a\r\n\r\n"),
            ],
            "/close" => vec![
                Step::ReadBody,
                Step::send("HTTP/1.1 200 OK\r\nConnection: close, X-B\r\nKeep-Alive: timeout=5\r\nX-B: c\r\n\r\nuntil the end"),
                Step::Close,
            ],
            "/cookies" => vec![
                Step::ReadBody,
                Step::response("200 OK", "Set-Cookie: a=b; path=/\r\nSet-Cookie: c=d\r\nServer: x\r\n", "x"),
            ],
            "/none" => vec![Step::ReadBody, Step::send("HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n")],
            "/unchanged" => vec![Step::ReadBody, Step::send("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n")],
            "/missing" => vec![Step::ReadBody, Step::response("404 Not Here", "", "no")],
            "/empty" => vec![Step::ReadBody, Step::response("200 OK", "", "")],
            "/hints" => vec![
                Step::ReadBody,
                Step::send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"),
                Step::response("200 OK", "", "a"),
            ],
            "/bad" => vec![Step::ReadBody, Step::send("nonsense\r\n\r\n"), Step::Close],
            "/cut" => vec![
                Step::ReadBody,
                Step::send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
                Step::Close,
            ],
            "/cut-chunks" => vec![
                Step::ReadBody,
                Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
                Step::Close,
            ],
            "/head" => vec![Step::send("HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n")],
            _ => Step::ok("fine"),
        }
    })
    .await
}

/// What a member saw, without what may differ: the order of fields, and their case.
fn seen(request: &Message) -> (String, Vec<String>, String) {
    let head = &request.head;
    let mut fields: Vec<String> = head
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        // HAProxy leaves it out (RFC 9110 section 10.1.4).
        .filter(|line| *line != "connection: te")
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            format!("{}: {}", name.to_ascii_lowercase(), value.trim())
        })
        .collect();
    fields.sort();
    (request.first_line().to_owned(), fields, request.text())
}

/// What a client got, likewise.
fn got(answer: &Answer) -> (Option<u16>, Vec<String>, String, Option<Vec<String>>, bool) {
    let sorted = |map: &HeaderMap| {
        let mut fields: Vec<String> =
            map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        fields.sort();
        fields
    };
    let trailers = answer.trailers.as_ref().filter(|map| !map.is_empty()).map(sorted);
    (answer.status, sorted(&answer.fields), answer.text(), trailers, answer.reset.is_some())
}

pub(super) fn with(mut request: Request<()>, fields: &[(&'static str, &'static str)]) -> Request<()> {
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    request
}

type Case = (&'static str, Request<()>, Option<Vec<u8>>);

/// Requests, each with a body or none.
fn cases() -> Vec<Case> {
    let get = |path: &str| (request("GET", path), None);
    let mut cases = vec![
        ("plain", get("/")),
        ("query", get("/a/b?c=d&e=%20f")),
        ("chunked", get("/chunked")),
        ("trailers", get("/trailers")),
        ("until close", get("/close")),
        ("cookies back", get("/cookies")),
        ("204", get("/none")),
        ("304", get("/unchanged")),
        ("404", get("/missing")),
        ("empty", get("/empty")),
        ("interim", get("/hints")),
        ("bad", get("/bad")),
        ("cut", get("/cut")),
        ("head", (request("HEAD", "/head"), None)),
        ("options", (request("OPTIONS", "/"), None)),
        ("other method", (request("PROPFIND", "/x"), None)),
        ("delete", (request("DELETE", "/x"), None)),
        ("post", (request("POST", "/x"), Some(b"hello".to_vec()))),
        (
            "post of a length",
            (with(request("POST", "/x"), &[("content-length", "5")]), Some(b"hello".to_vec())),
        ),
        ("post of nothing", (with(request("POST", "/x"), &[("content-length", "0")]), None)),
        ("post without", (request("POST", "/x"), None)),
        ("put of much", (request("PUT", "/x"), Some(vec![b'y'; 100_000]))),
        ("get with a body", (request("GET", "/x"), Some(b"hello".to_vec()))),
        (
            "cookies",
            (
                with(
                    request("GET", "/"),
                    &[("cookie", "a=1"), ("x-y", "z"), ("cookie", "b=2"), ("cookie", "c=3; d=4")],
                ),
                None,
            ),
        ),
        (
            "fields",
            (
                with(
                    request("GET", "/"),
                    &[
                        ("user-agent", "x"),
                        ("te", "trailers"),
                        ("x-forwarded-for", "192.0.2.1"),
                        ("accept", "a"),
                        ("accept", "b"),
                        ("x-empty", ""),
                    ],
                ),
                None,
            ),
        ),
        ("same host", (with(request("GET", "/"), &[("host", "a")]), None)),
    ];
    for (name, authority) in [
        ("default port", "http://a.example:80/x"),
        ("port", "http://a.example:8080/x"),
        ("upper case", "http://A.Example/x"),
        ("of https", "https://a.example:443/x"),
        ("address", "http://[::1]:80/x"),
    ] {
        let mut request = request("GET", "/");
        *request.uri_mut() = authority.parse().unwrap();
        cases.push((name, (request, None)));
    }
    cases.into_iter().map(|(name, (request, body))| (name, request, body)).collect()
}

#[tokio::test]
async fn requests_and_responses_are_haproxys() {
    let member = scripted().await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let Some(haproxy) = HaProxy::start(&HaProxyConfig::http([member.address])).await else { return };
    let mut differences = Vec::new();
    for (name, request, body) in cases() {
        let mut both = Vec::new();
        for address in [haproxy.address, proxy.address()] {
            let before = member.requests().len();
            let mut client = Http2Client::connect(address).await;
            let answer = client.ask(request.clone(), body.as_deref(), None).await;
            let requests = member.requests();
            both.push((
                got(&answer),
                requests[before.min(requests.len())..].iter().map(seen).collect::<Vec<_>>(),
            ));
        }
        if both[0] != both[1] {
            differences.push(format!("{name}:\n  HAProxy {:?}\n  here    {:?}", both[0], both[1]));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn a_response_that_is_cut_is_never_taken_for_the_whole() {
    let member = scripted().await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    for (path, body) in [("/cut", "abc"), ("/cut-chunks", "hello")] {
        let answer = client.get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (Some(200), body), "{path}");
        assert!(answer.reset.is_some(), "{path}");
    }
    assert_eq!(client.get("/").await.text(), "fine");
    proxy.until_member(0, "both are counted", |member| member.response_errors == 2).await;
    assert_eq!(proxy.listener().await.total_connections, 1);
}

#[tokio::test]
async fn streams_share_a_connection_and_none_waits_for_another() {
    let member = Backend::http("a", |request: &Message| match request.target() {
        "/slow" => vec![Step::Wait, Step::ReadBody, Step::response("200 OK", "", "slow")],
        path => Step::ok(path),
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (slow, _) = client.begin(request("GET", "/slow"), true).await;
    proxy.until_member(0, "the member has the first", |member| member.requests == 1).await;
    let mut begun = Vec::new();
    for n in 0..50 {
        begun.push(client.begin(request("GET", &format!("/{n}")), true).await.0);
    }
    for (n, response) in begun.into_iter().enumerate() {
        assert_eq!(answer(response).await.text(), format!("/{n}"));
    }
    member.proceed();
    assert_eq!(answer(slow).await.text(), "slow");
    let listener = proxy.listener().await;
    assert_eq!((listener.total_connections, listener.requests), (1, 51));
}

/// What comes for these requests, to a member that waits before each response.
async fn answers_of(member: &Backend, begun: Vec<h2::client::ResponseFuture>) -> Vec<Answer> {
    let letting_go = async {
        loop {
            member.proceed();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let answers = async {
        let mut answers = Vec::new();
        for response in begun {
            answers.push(answer(response).await);
        }
        answers
    };
    tokio::select! {
        answers = answers => answers,
        () = letting_go => unreachable!("without an end"),
    }
}

#[tokio::test]
async fn as_many_large_heads_wait_for_a_member_as_the_budget_holds_and_more_may_be_tried_again() {
    let member = Backend::http("a", |_: &Message| {
        vec![Step::Wait, Step::ReadBody, Step::response("200 OK", "", "slow")]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    // Of 2 KiB each, as browsers have them: all that may be opened at once.
    let with = |length: usize| {
        let mut request = request("GET", "/");
        request.headers_mut().insert("cookie", "c".repeat(length).parse().unwrap());
        request
    };
    let mut begun = Vec::new();
    for _ in 0..100 {
        begun.push(client.begin(with(1900), true).await.0);
    }
    proxy.until_member(0, "the member has all", |member| member.requests == 100).await;
    for answer in answers_of(&member, begun).await {
        assert_eq!(answer.status, Some(200));
    }
    // Of 15 KiB each: what there is no room for says that it was not processed.
    let mut begun = Vec::new();
    for _ in 0..40 {
        begun.push(client.begin(with(15 * 1024), true).await.0);
    }
    proxy.until_member(0, "the member has some", |member| member.requests >= 110).await;
    let answers = answers_of(&member, begun).await;
    let (refused, served): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.reset.is_some());
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|answer| answer.reset == Some(h2::Reason::REFUSED_STREAM)));
    assert!(served.iter().all(|answer| answer.status == Some(200)));
    // And when they have ended there is room again.
    let (response, _) = client.begin(with(15 * 1024), true).await;
    assert_eq!(answers_of(&member, vec![response]).await[0].status, Some(200));
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_once() {
    let length = 3 * MIB;
    let member = Backend::http("a", move |_: &Message| {
        vec![
            Step::send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")),
            Step::SendPattern(length as u64),
            Step::ReadBody,
        ]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let body: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
    let answers = client.ask(request("POST", "/"), Some(&body), None).await;
    assert_eq!((answers.status, answers.body.len(), answers.reset), (Some(200), length, None));
    eventually("the member has all of it", async || {
        member.requests().first().filter(|request| request.body == body).map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_is_slow_holds_the_member_back_and_not_the_memory() {
    let length = 64 * MIB as u64;
    let member = Backend::http("a", move |_: &Message| {
        vec![
            Step::ReadBody,
            Step::send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")),
            Step::SendPattern(length),
        ]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let before = proxy.resident_kib();
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let (response, _) = client.begin(request("GET", "/"), true).await;
        // Its window is not opened again.
        waiting.push(in_time("a response", response).await.unwrap());
    }
    assert!(proxy.resident_kib() < before + 8 * 1024, "{} KiB, before {before}", proxy.resident_kib());
}

#[tokio::test]
async fn a_client_that_resets_its_stream_is_gone() {
    let member = Backend::http("a", |request: &Message| match request.target() {
        "/slow" => vec![Step::ReadBody, Step::Wait],
        _ => Step::ok("fine"),
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, mut stream) = client.begin(request("GET", "/slow"), true).await;
    proxy.until_member(0, "the member has it", |member| member.requests == 1).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    proxy
        .until_member(0, "it is given up", |member| member.client_aborts == 1 && member.active_sessions == 0)
        .await;
    assert_eq!(client.get("/").await.text(), "fine");
    let counted =
        proxy.until_listener("its streams are counted", |listener| listener.http2.streams == 2).await;
    let http2 = counted.listeners.values().next().unwrap().http2;
    assert_eq!((http2.connections, http2.resets_received, http2.resets_sent), (1, 1, 0));
    assert_eq!(http2.refused, Default::default());
    let scraped = proxy.request("GET", "/metrics", "").await.unwrap().text();
    let id = proxy.document.listeners[0].id;
    let line = format!("amphora_listener_http2_resets_received_total{{listener=\"{id}\"}} 1\n");
    assert!(scraped.contains(&line), "{scraped}");
}

#[tokio::test]
async fn policies_and_persistence_are_those_of_http_1_1() {
    let (a, b) = (Backend::named("a").await, Backend::named("b").await);
    let first = Pool::http()
        .members([&a, &b])
        .with("session_persistence", serde_json::json!({"type": "HTTP_COOKIE"}));
    let other = Backend::named("other").await;
    let second = Pool::http().members([&other]);
    let listener = Listener::http()
        .to(&first)
        .policy(L7Policy::new("REJECT", L7Rule::path("/denied")))
        .policy(L7Policy::to_pool(&second, L7Rule::new("HOST_NAME", "EQUAL_TO", "other.example")));
    let proxy = Proxy::start(Document::new().listener(listener).pool(&first).pool(&second)).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let denied = client.get("/denied").await;
    assert_eq!((denied.status, denied.field("content-type")), (Some(403), Some("text/html")));
    assert!(denied.text().contains("Forbidden") && denied.field("connection").is_none());
    let mut by_host = request("GET", "/");
    *by_host.uri_mut() = "http://other.example:80/".parse().unwrap();
    assert_eq!(client.ask(by_host, None, None).await.text(), "other");
    let answer = client.get("/").await;
    let cookie = answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    for _ in 0..4 {
        let mut again = request("GET", "/");
        again.headers_mut().append("cookie", HeaderValue::from_static("x=y"));
        again.headers_mut().append("cookie", HeaderValue::from_str(&cookie).unwrap());
        let again = client.ask(again, None, None).await;
        assert_eq!((again.text(), again.field("set-cookie")), (answer.text(), None));
    }
    let last = if answer.text() == "a" { &a } else { &b };
    assert_eq!(last.last_request().field("cookie"), Some("x=y"));
}

#[tokio::test]
async fn a_listener_that_goes_lets_streams_end_and_begins_no_more() {
    let member = Backend::http("a", |request: &Message| match request.target() {
        "/slow" => vec![Step::ReadBody, Step::Wait, Step::response("200 OK", "", "slow")],
        _ => Step::ok("fine"),
    })
    .await;
    let mut proxy = Proxy::start(Document::http([&member])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let mut idle = Http2Client::connect(proxy.address()).await;
    assert_eq!(idle.get("/").await.text(), "fine");
    let (slow, _) = client.begin(request("GET", "/slow"), true).await;
    proxy.until_member(0, "the member has it", |member| member.requests == 2).await;
    proxy.change(|document| document.listeners.clear()).await;
    assert!(idle.end().await.is_ok());
    member.proceed();
    assert_eq!(answer(slow).await.text(), "slow");
    assert!(client.end().await.is_ok());
}
