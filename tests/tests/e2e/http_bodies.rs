//! Bodies and what goes on while they are sent: `100 Continue`, early responses, upgrades, back-pressure.

use std::time::Duration;

use amphora_tests::{
    Backend, Client, Document, End, HaProxy, HaProxyConfig, Listener, PATIENCE, Pattern, Pool, Proxy, Step,
    eventually, in_time,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn a_client_that_expects_100_sends_its_body_when_the_member_says_so() {
    let member = Backend::http("a", |_| {
        vec![
            Step::Wait,
            Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
            Step::ReadBody,
            Step::response("200 OK", "", "done"),
        ]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    proxy.until_member(0, "the member has the head", |member| member.requests == 1).await;
    member.proceed();
    assert_eq!(client.response().await.status(), 100);
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "done");
    assert_eq!(member.last_request().text(), "hello");
    member.proceed();
    assert_eq!(client.get("/").await.status(), 100);
    assert_eq!(client.response().await.text(), "done");
}

#[tokio::test]
async fn a_client_that_expects_100_may_be_refused_without_sending() {
    let member =
        Backend::http("a", |_| vec![Step::response("413 Too Large", "Connection: close\r\n", "no")]).await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.text().as_str()), (413, "no"));
    assert_eq!(response.field("connection"), Some("close"));
    assert_eq!(client.end().await, End::Closed(Vec::new()));
}

#[tokio::test]
async fn interim_responses_pass_and_are_kept_from_http_1_0() {
    let member = Backend::http("a", |_| {
        vec![
            Step::ReadBody,
            Step::send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"),
            Step::send("HTTP/1.1 102 Processing\r\n\r\n"),
            Step::response("200 OK", "", "a"),
        ]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    let hints = client.get("/").await;
    assert_eq!((hints.status(), hints.field("link")), (103, Some("</a.css>")));
    assert_eq!(client.response().await.status(), 102);
    assert_eq!(client.response().await.text(), "a");
    let mut old = proxy.client().await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.response().await.status(), 200);
}

/// The member says no after the head, and never reads the body: what it does not take is passed over, and the client goes on.
#[tokio::test]
async fn a_response_before_the_end_of_the_upload_reaches_the_client_who_goes_on() {
    for (last, lines) in [
        (Step::Close, ""),
        (Step::Reset, ""),
        (Step::Close, "Connection: close\r\n"),
        (Step::Reset, "Connection: close\r\n"),
        (Step::Wait, "Connection: close\r\n"),
    ] {
        let what = last.clone();
        let member = Backend::http("a", move |request| match request.target() {
            "/early" => vec![Step::response("403 Forbidden", lines, "too much"), what.clone()],
            _ => Step::ok("next"),
        })
        .await;
        let proxy = Proxy::start(Document::http([&member])).await;
        let haproxy = HaProxy::start(&HaProxyConfig::http([member.address])).await;
        for chunks in [false, true] {
            // HAProxy closes the connection when the rest does not come at once.
            for (name, address, size, rest_is_late) in [
                ("haproxy", haproxy.as_ref().map(|haproxy| haproxy.address), 10_000, false),
                ("at once", Some(proxy.address()), 10_000, false),
                ("at once", Some(proxy.address()), 3 * MIB, false),
                ("late", Some(proxy.address()), 10_000, true),
                ("late", Some(proxy.address()), 3 * MIB, true),
            ] {
                let Some(address) = address else { continue };
                let name = format!("{name}, {last:?}, {lines:?}, {size}, {chunks}");
                let body = Pattern::bytes(size);
                let (framing, body) = match chunks {
                    true => ("Transfer-Encoding: chunked".to_owned(), chunked(&body)),
                    false => (format!("Content-Length: {size}"), body.to_vec()),
                };
                let head = format!("POST /early HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
                // One that does not read on gets no more than the kernel takes.
                let waits = matches!(last, Step::Wait);
                let whole = !rest_is_late && !waits;
                let (first, rest) = body.split_at(if whole { body.len() } else { 5_000 });
                let mut client = Client::connect(address).await;
                client.send([head.as_bytes(), first].concat()).await;
                let response = client.response().await;
                assert_eq!((response.status(), response.text().as_str()), (403, "too much"), "{name}");
                assert_eq!(response.field("connection"), None, "{name}");
                if waits {
                    continue;
                }
                if rest_is_late {
                    client.send(rest).await;
                }
                assert_eq!(client.get("/next").await.text(), "next", "{name}");
            }
        }
    }
}

/// Uploads to a member that has answered before; how the body is framed, and what goes on afterwards.
async fn upload_behind_an_answer(mut client: Client, expect: bool, chunks: bool, pace: Duration) {
    const LENGTH: u64 = 8 * MIB;
    let framing =
        if chunks { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {LENGTH}") };
    let expect = if expect { "Expect: 100-continue\r\n" } else { "" };
    client.send(format!("POST /early HTTP/1.1\r\nHost: a\r\n{framing}\r\n{expect}\r\n")).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.text().as_str(), answer.field("connection")), (401, "no", None));
    let body = if chunks { chunked(&Pattern::bytes(LENGTH)) } else { Pattern::bytes(LENGTH).to_vec() };
    for piece in body.chunks(256 * 1024) {
        client.send(piece).await;
        tokio::time::sleep(pace).await;
    }
    assert_eq!(client.get("/").await.text(), "next");
}

#[tokio::test]
async fn a_member_that_answers_early_gets_the_whole_upload() {
    let member = Backend::http("a", |request| match request.target() {
        "/early" => vec![Step::response("401 No", "", "no"), Step::ReadBody],
        _ => Step::ok("next"),
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let haproxy = HaProxy::start(&HaProxyConfig::http([member.address])).await;
    let mut uploads = 0;
    for (expect, chunks, pace) in [(false, false, 0), (false, true, 0), (true, false, 0), (false, false, 10)]
    {
        // HAProxy now and then resets the member's connection at the end of such an upload in chunks, or of one that comes slowly.
        let judged = !chunks && pace == 0;
        let haproxy = haproxy.iter().filter(|_| judged).map(|haproxy| haproxy.address);
        for address in haproxy.chain([proxy.address()]) {
            let client = Client::connect(address).await;
            upload_behind_an_answer(client, expect, chunks, Duration::from_millis(pace)).await;
            uploads += 1;
            let uploads_at_member = async || {
                let all = member.requests().into_iter().filter(|request| request.target() == "/early");
                all.map(|request| request.body.len() as u64).nth(uploads - 1)
            };
            let length =
                eventually(&format!("upload {uploads} ends: {expect} {chunks} {pace}"), uploads_at_member)
                    .await;
            assert_eq!(length, 8 * MIB, "{address} {expect} {chunks} {pace}");
        }
    }
    assert_eq!(proxy.member(0).await.client_aborts, 0);
}

#[tokio::test]
async fn an_echo_runs_both_ways_before_the_upload_ends() {
    let member = Backend::http("a", |_| {
        vec![Step::send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 8 * MIB)), Step::Echo]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 8 * MIB)).await;
    assert_eq!(client.response_head().await.status(), 200);
    let (mut read, mut write) = client.stream.split();
    let mut received = Pattern::default();
    let receiving = async {
        let mut buffer = vec![0; 64 * 1024];
        while received.offset() < 8 * MIB {
            let n = read.read(&mut buffer).await.unwrap();
            assert!(n > 0, "cut off at {}", received.offset());
            received.expect(&buffer[..n]);
        }
    };
    let mut sent = Pattern::default();
    let both = async { tokio::join!(sent.send(8 * MIB, &mut write), receiving).0.unwrap() };
    in_time("both ways are through", both).await;
}

#[tokio::test]
async fn what_is_left_of_an_upload_behind_an_answer_is_not_waited_for_without_end() {
    let member = Backend::http("a", |request| match request.target() {
        "/reads" => vec![Step::response("401 No", "", "no"), Step::ReadBody],
        "/stops" => vec![Step::response("401 No", "", "no"), Step::Wait],
        _ => vec![Step::response("401 No", "", "no"), Step::Close],
    })
    .await;
    let listener = Listener::http().with("timeout_client_data", 500).with("timeout_member_data", 500);
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    // The client stops, the member does, or it goes.
    for (target, sends) in [("/reads", MIB), ("/reads", 0), ("/stops", 64 * MIB), ("/closes", 64 * MIB)] {
        let mut client = proxy.client().await;
        client
            .send(format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 64 * MIB))
            .await;
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.text().as_str()), (401, "no"), "{target}");
        let mut pattern = Pattern::default();
        // It is let go in the end, and then cannot send any more.
        let _ = in_time("the upload ends", pattern.send(sends, &mut client.stream)).await;
        client.end().await;
        proxy.until_member(0, "the place is free", |member| member.active_sessions == 0).await;
    }
}

#[tokio::test]
async fn interim_responses_buy_a_member_neither_time_nor_room() {
    let hint = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let member = Backend::http("a", move |request| match request.target() {
        "/time" | "/expect" => {
            let slowly = [Step::send(hint), Step::Pause(Duration::from_millis(150))];
            slowly.iter().cycle().take(100).cloned().collect()
        }
        "/number" => vec![Step::send(hint.repeat(1000)), Step::response("200 OK", "", "a")],
        _ => vec![Step::ReadBody, Step::send(hint.repeat(20)), Step::response("200 OK", "", "a")],
    })
    .await;
    let listener = Listener::http().with("timeout_client_data", 1000).with("timeout_member_data", 1000);
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let post = "POST /expect HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    for (request, most, status) in [
        ("GET /time HTTP/1.1\r\nHost: a\r\n\r\n", 10, 504),
        ("GET /time HTTP/1.0\r\nHost: a\r\n\r\n", 0, 504),
        ("GET /number HTTP/1.1\r\nHost: a\r\n\r\n", 40, 502),
        (post, 10, 408),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 20, 200),
    ] {
        let mut client = proxy.client().await;
        client.send(request).await;
        let mut interim = 0;
        let last = loop {
            let answer = client.response().await;
            if answer.status() != 103 {
                break answer.status();
            }
            interim += 1;
        };
        assert_eq!(last, status, "{request:?} after {interim}");
        assert!(interim <= most, "{request:?} after {interim}");
        proxy.until_member(0, "the place is free", |member| member.active_sessions == 0).await;
    }
}

#[tokio::test]
async fn a_client_has_its_time_for_a_body_that_was_asked_for_late() {
    let member = Backend::http("a", |_| {
        let pause = Step::Pause(Duration::from_millis(1500));
        vec![
            pause,
            Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
            Step::ReadBody,
            Step::response("200 OK", "", "a"),
        ]
    })
    .await;
    let listener = Listener::http().with("timeout_client_data", 2500);
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let mut client = proxy.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 100);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "a");
}

#[tokio::test]
async fn a_malformed_body_behind_an_early_response_leaves_the_response_alone() {
    let member = Backend::http("a", |_| {
        vec![
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf"),
            Step::Wait,
            Step::send("rest"),
            Step::Wait,
        ]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
    assert_eq!(client.response_head().await.status(), 200);
    client.expect("half").await;
    client.send("ZZZZ\r\n").await;
    // The member goes on; whether the rest still comes or the connection ends, nothing else may.
    member.proceed();
    let mut rest = Vec::new();
    let read = client.stream.read_to_end(&mut rest);
    let _ = in_time("the connection ends", read).await;
    let all = [client.leftover(), rest].concat();
    assert!(b"rest".starts_with(&all[..]), "{}", all.escape_ascii());
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_and_loses_no_byte_that_came_early() {
    let member = Backend::http("a", |request| {
        assert_eq!(request.field("upgrade"), Some("websocket"));
        vec![
            Step::send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"),
            Step::send("Sec-WebSocket-Accept: x\r\n\r\nfrom the member"),
            Step::Echo,
        ]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    client.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n").await;
    client.send("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
    client.send("from the client").await;
    let switched = client.response_head().await;
    assert_eq!((switched.status(), switched.field("upgrade")), (101, Some("websocket")));
    client.expect("from the member").await;
    client.expect("from the client").await;
    let bytes = Pattern::bytes(3 * MIB);
    let (mut read, mut write) = client.stream.split();
    let sending = async {
        write.write_all(&bytes).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut received = Pattern::default();
    let receiving = received.receive(&mut read);
    let both = async { tokio::join!(sending, receiving).1.unwrap() };
    in_time("the tunnel carries all", both).await;
    assert_eq!(received.offset(), 3 * MIB);
    proxy.until_member(0, "the tunnel ends", |member| member.active_sessions == 0).await;
}

#[tokio::test]
async fn large_bodies_arrive_as_they_were_sent() {
    const LENGTH: u64 = 24 * MIB;
    let member = Backend::http("a", |request| match request.first_line().split(' ').next() {
        Some("PUT") => vec![Step::ReadPattern(LENGTH), Step::response("201 Created", "", "")],
        _ => vec![
            Step::send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")),
            Step::SendPattern(LENGTH),
        ],
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    let sent = Pattern::default().send(LENGTH, &mut client.stream).await;
    sent.unwrap();
    assert_eq!(client.response().await.status(), 201);

    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response_head().await;
    let mut received = Pattern::default();
    received.expect(&client.leftover());
    let mut buffer = vec![0; 256 * 1024];
    while received.offset() < LENGTH {
        let n = in_time("more of the body", client.stream.read(&mut buffer)).await.unwrap();
        assert!(n > 0, "cut off");
        received.expect(&buffer[..n]);
    }
    // The connections are good for another request.
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    Pattern::default().send(LENGTH, &mut client.stream).await.unwrap();
    assert_eq!(client.response().await.status(), 201);
    let listener = proxy.listener().await;
    assert!(listener.bytes_in > 2 * LENGTH && listener.bytes_out > LENGTH, "{listener:?}");
}

#[tokio::test]
async fn a_large_chunked_body_arrives_as_it_was_sent_both_ways() {
    let member = Backend::http("a", |_| {
        let mut chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        chunks.extend(chunked(&Pattern::bytes(4 * MIB)));
        vec![Step::ReadBody, Step::Send(chunks)]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send(chunked(&Pattern::bytes(4 * MIB))).await;
    let response = client.response().await;
    assert!(response.complete && response.body == Pattern::bytes(4 * MIB), "{}", response.body.len());
    assert!(member.last_request().body == Pattern::bytes(4 * MIB));
}

/// The chunked coding, in chunks of many sizes.
fn chunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut size = 1;
    while !bytes.is_empty() {
        let (chunk, rest) = bytes.split_at(size.min(bytes.len()));
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        bytes = rest;
        size = size * 3 % 99_991;
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

#[tokio::test]
async fn a_slow_reader_holds_the_member_back_and_not_the_memory() {
    let length = 2048 * MIB;
    let member = Backend::http("a", move |_| {
        vec![
            Step::send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")),
            Step::SendPattern(length),
        ]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let before = proxy.resident_kib();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.response_head().await;
        clients.push(client);
    }
    // Nobody reads any more: what is on the way comes to a standstill.
    let mut last = 0;
    let still = async {
        loop {
            let now = proxy.listener().await.bytes_out;
            if now == last && now > 0 {
                return now;
            }
            last = now;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let sent = tokio::time::timeout(PATIENCE, still).await.expect("the members are held back");
    assert!(sent < 20 * 16 * MIB, "{sent}");
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB for 20 clients that do not read");
    // Another client is served meanwhile.
    let mut other = proxy.client().await;
    other.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(other.response_to_head().await.status(), 200);
}

#[tokio::test]
async fn a_member_that_does_not_read_holds_the_client_back() {
    let member = Backend::http("a", |_| vec![Step::Wait, Step::Close]).await;
    let proxy = Proxy::start(Document::of(
        Listener::http().with("timeout_member_data", 60_000),
        Pool::http().members([&member]),
    ))
    .await;
    let before = proxy.resident_kib();
    let mut client = proxy.client().await;
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1024 * MIB)).await;
    let mut pattern = Pattern::default();
    let sending = pattern.send(1024 * MIB, &mut client.stream);
    assert!(tokio::time::timeout(Duration::from_secs(1), sending).await.is_err(), "it was not held back");
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB for a body that nobody reads");
}
