//! Members that speak HTTP/2, to clients of both versions: beside HAProxy, and what it has no counterpart for.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use amphora_tests::{
    Certificates, Client, Document, HaProxy, HaProxyConfig, Http2Member, Listener, Message, Pool, Proxy,
    eventually,
    http2::{Answer, Http2Client, request},
};
use h2::server::Builder;
use http::{HeaderMap, HeaderValue};

/// A proxy in front of it.
async fn proxy(certificates: &Certificates, member: &Http2Member, alpn: &[&str]) -> Proxy {
    let pool = Pool::http()
        .members([&member.backend])
        .with("tls_enabled", true)
        .with("alpn_protocols", alpn.to_vec());
    let document = Document::of(Listener::http(), pool);
    Proxy::start_with(document, &["--certificates", &certificates.option()]).await
}

const BOTH: &[&str] = &["h2", "http/1.1"];

/// What a client is asked to do.
struct Case {
    method: &'static str,
    path: &'static str,
    fields: &'static [(&'static str, &'static str)],
    body: Option<Vec<u8>>,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        "/",
        "/a?b=c&d=%20e",
        "/stream",
        "/trailers",
        "/alone",
        "/hints",
        "/none",
        "/unchanged",
        "/cut",
        "/cut-stream",
        "/reset",
        "/bytes/300000",
    ]
    .into_iter()
    .map(|path| Case { method: "GET", path, fields: &[], body: None })
    .collect();
    for (method, path) in [("HEAD", "/head"), ("OPTIONS", "/"), ("DELETE", "/x"), ("PROPFIND", "/x")] {
        cases.push(Case { method, path, fields: &[], body: None });
    }
    for (method, path, length) in [
        ("POST", "/x", 5),
        ("POST", "/x", 0),
        ("PUT", "/x", 200_000),
        ("GET", "/x", 5),
        ("POST", "/echo", 100_000),
        ("POST", "/trailers", 5),
        ("POST", "/reset", 5),
        ("POST", "/cut", 5),
    ] {
        cases.push(Case { method, path, fields: &[], body: Some(vec![b'y'; length]) });
    }
    for fields in [
        &[("user-agent", "x"), ("te", "trailers"), ("accept", "a"), ("accept", "b"), ("x-empty", "")][..],
        &[("cookie", "a=1; b=2"), ("x-forwarded-for", "192.0.2.1"), ("authorization", "Basic eA==")],
    ] {
        cases.push(Case { method: "GET", path: "/", fields, body: None });
    }
    cases
}

/// What came of it: status, fields, body, trailers, whether it was whole.
type Got = (Option<u16>, Vec<String>, Vec<u8>, Vec<String>, bool);

fn sorted(map: &HeaderMap) -> Vec<String> {
    let mut fields: Vec<String> =
        map.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    fields.sort();
    fields
}

async fn over_http2(client: &mut Http2Client, case: &Case) -> Got {
    let mut request = request(case.method, case.path);
    for (name, value) in case.fields {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    let Answer { status, fields, body, trailers, reset } =
        client.ask(request, case.body.as_deref(), None).await;
    let trailers = trailers.as_ref().map(sorted).unwrap_or_default();
    (status, sorted(&fields), body, trailers, reset.is_none())
}

async fn over_http1(client: &mut Client, case: &Case) -> Got {
    let mut text = format!("{} {} HTTP/1.1\r\nHost: a\r\n", case.method, case.path);
    for (name, value) in case.fields {
        text += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = &case.body {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    text += "\r\n";
    client.send([text.as_bytes(), case.body.as_deref().unwrap_or_default()].concat()).await;
    let lines = |text: &str| {
        let mut lines: Vec<String> =
            text.lines().filter(|line| !line.is_empty()).map(str::to_ascii_lowercase).collect();
        lines.sort();
        lines
    };
    loop {
        let Ok(message) = client.try_response(case.method == "HEAD").await else {
            return (None, Vec::new(), Vec::new(), Vec::new(), false);
        };
        let Message { head, body, trailers, complete } = &message;
        if (100..200).contains(&message.status()) {
            continue;
        }
        let fields = lines(head.split_once("\r\n").map_or("", |(_, fields)| fields));
        return (Some(message.status()), fields, body.clone(), lines(trailers), *complete);
    }
}

#[tokio::test]
async fn requests_and_responses_are_haproxys() {
    let certificates = Certificates::new();
    let member = Http2Member::start(&certificates, "server", BOTH, Builder::new()).await;
    let proxy = proxy(&certificates, &member, BOTH).await;
    let mut config = HaProxyConfig::http([member.backend.address]);
    config.servers[0].2 = "ssl verify none alpn h2,http/1.1".to_owned();
    let Some(haproxy) = HaProxy::start(&config).await else { return };
    // HAProxy tells clients of HTTP/2 nothing of a stream that is reset without a response, and does not ask again; one
    // of no announced length that is cut it ends as if it were whole.
    let known = ["/reset", "/cut-stream"];
    let mut differences = Vec::new();
    for case in cases() {
        for version in ["HTTP/2", "HTTP/1.1"] {
            let mut both = Vec::new();
            for address in [haproxy.address, proxy.address()] {
                let before = member.requests().len();
                let got = if version == "HTTP/2" {
                    over_http2(&mut Http2Client::connect(address).await, &case).await
                } else {
                    over_http1(&mut Client::connect(address).await, &case).await
                };
                let (status, fields, body, trailers, whole) = got;
                // What is the proxies' own to say is compared elsewhere.
                let own = status.is_some_and(|status| status >= 500);
                let (fields, body) = if own { (Vec::new(), Vec::new()) } else { (fields, body) };
                let got = (status, fields, body, trailers, whole);
                both.push((got, member.requests()[before..].to_vec()));
            }
            let (theirs, ours) = (&both[0], &both[1]);
            if theirs != ours && !known.contains(&case.path) {
                let short = |it: &(Got, Vec<amphora_tests::Seen>)| {
                    format!("{it:?}").replace("121, ", "").replace("120, ", "")
                };
                let Case { method, path, .. } = &case;
                differences.push(format!(
                    "{version} {method} {path}:\n  HAProxy {}\n  here    {}",
                    short(theirs),
                    short(ours)
                ));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn what_a_member_has_not_processed_is_sent_again_and_what_it_cuts_is_never_whole() {
    let certificates = Certificates::new();
    let member = Http2Member::start(&certificates, "server", BOTH, Builder::new()).await;
    let proxy = proxy(&certificates, &member, BOTH).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let mut plain = Client::connect(proxy.address()).await;
    // Each is refused twice, with some of its body sent.
    let body = vec![b'z'; 10_000];
    let answered = client.ask(request("POST", "/busy/3"), Some(&body), Some(trailers())).await;
    assert_eq!((answered.status, answered.reset), (Some(200), None));
    assert_eq!(plain.post("/busy/3", &body).await.status(), 200);
    plain.send("POST /busy/3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n").await;
    assert_eq!(plain.response().await.status(), 200);
    let seen = member.requests();
    let seen: Vec<_> = seen.iter().map(|seen| (seen.body.len(), seen.trailers.clone())).collect();
    assert_eq!(seen, [(10_000, Some(trailers())), (10_000, None), (5, Some(trailers()))]);
    // More than is kept is not sent again, and neither is what is refused on and on.
    assert_eq!(plain.post("/busy/1000000", &vec![b'z'; 300_000]).await.status(), 502);
    let mut other = Client::connect(proxy.address()).await;
    assert_eq!(other.get("/busy/1000000").await.status(), 502);
    // The answer comes before the request is through, and is all of it.
    let early = client.ask(request("POST", "/early"), Some(&vec![b'z'; 300_000]), None).await;
    assert_eq!((early.status, early.text().as_str()), (Some(200), "early"));
    let mut early = Client::connect(proxy.address()).await;
    early.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n").await;
    assert_eq!(early.response().await.text(), "early");
    for path in ["/short", "/cut", "/cut-stream"] {
        let cut = client.get(path).await;
        assert!(cut.status == Some(200) && cut.reset.is_some(), "{path} {cut:?}");
        let mut plain = Client::connect(proxy.address()).await;
        plain.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert!(plain.try_response(false).await.is_ok_and(|response| !response.complete), "{path}");
    }
    // GOAWAY, and the next request takes another connection.
    for _ in 0..5 {
        assert_eq!(client.get("/leave").await.status, Some(200));
        assert_eq!(other.get("/").await.status(), 200);
    }
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    trailers
}

#[tokio::test]
async fn bodies_pass_both_ways_at_once_and_slow_clients_hold_nobody_up() {
    let certificates = Certificates::new();
    let mut settings = Builder::new();
    settings.max_concurrent_streams(100);
    let member = Http2Member::start(&certificates, "server", BOTH, settings).await;
    let proxy = proxy(&certificates, &member, BOTH).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let body: Vec<u8> = (0..1_500_000u32).map(|n| (n % 251) as u8).collect();
    let echoed = client.ask(request("POST", "/echo"), Some(&body), Some(trailers())).await;
    assert!(echoed.body == body && echoed.reset.is_none());
    assert_eq!(echoed.trailers, Some(trailers()));
    let mut plain = Client::connect(proxy.address()).await;
    let (mut read, mut write) = plain.stream.split();
    let text = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let sending = async {
        tokio::io::AsyncWriteExt::write_all(&mut write, &[text.as_bytes(), &body].concat()).await.unwrap();
    };
    let mut buffer = Vec::new();
    let ((), response) = tokio::join!(sending, amphora_tests::read_message(&mut read, &mut buffer, false));
    assert!(response.unwrap().unwrap().body == body);
    // Each has its window full, and does not open it again.
    let before = proxy.resident_kib();
    let mut waiting = Vec::new();
    for _ in 0..60 {
        let (response, _) = client.begin(request("GET", "/bytes/3000000"), true).await;
        waiting.push(response);
    }
    for response in &mut waiting {
        amphora_tests::in_time("a response", response).await.unwrap();
    }
    let mut other = Http2Client::connect(proxy.address()).await;
    for _ in 0..20 {
        assert_eq!(other.get("/bytes/100000").await.body.len(), 100_000);
    }
    let after = proxy.resident_kib();
    assert!(after < before + 16 * 1024, "{after} KiB, before {before}");
}

#[tokio::test]
async fn a_member_that_takes_no_more_of_a_body_is_late_and_not_its_client() {
    let certificates = Certificates::new();
    let member = Http2Member::start(&certificates, "server", &["h2"], Builder::new()).await;
    let pool =
        Pool::http().members([&member.backend]).with("tls_enabled", true).with("alpn_protocols", vec!["h2"]);
    let listener = Listener::http().with("timeout_client_data", 3_600_000).with("timeout_member_data", 300);
    let document = Document::of(listener, pool);
    let proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
    // More than its window takes, and less than the kernel does.
    let body = vec![b'x'; 200_000];
    let mut client = Client::connect(proxy.address()).await;
    client.send(format!("POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    assert_eq!(client.response().await.status(), 504);
    let mut client = Http2Client::connect(proxy.address()).await;
    assert_eq!(client.ask(request("POST", "/wait"), Some(&body), None).await.status, Some(504));
}

#[tokio::test]
async fn requests_share_connections_and_wait_for_the_first() {
    let certificates = Certificates::new();
    for (alpn, most) in [(BOTH, 4), (&["http/1.1"][..], 60)] {
        let member = Http2Member::start(&certificates, "server", alpn, Builder::new()).await;
        let proxy = proxy(&certificates, &member, BOTH).await;
        let mut tasks = Vec::new();
        for _ in 0..60 {
            let address = proxy.address();
            tasks.push(tokio::spawn(async move { Client::connect(address).await.get("/").await.status() }));
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), 200);
        }
        let connections = member.backend.connections();
        assert!((1..=most).contains(&connections), "{connections} with {alpn:?}");
        let all = proxy.until_member(0, "all have ended", |member| member.active_sessions == 0).await;
        let sessions: u64 =
            all.pools.values().flat_map(|pool| pool.members.values()).map(|m| m.total_sessions).sum();
        assert_eq!(sessions, 60);
        let told = proxy.stats().await.pools.values().next().unwrap().http2;
        let spoken = if alpn == BOTH { (connections as u64, 60) } else { (0, 0) };
        assert_eq!((told.connections, told.streams), spoken);
    }
}

#[tokio::test]
async fn websockets_go_where_the_member_takes_them() {
    let certificates = Certificates::new();
    let mut extended = Builder::new();
    extended.enable_connect_protocol();
    for (alpn, settings, takes) in [
        (BOTH, &extended, true),
        (&["h2"][..], &extended, true),
        // Here on a connection of HTTP/1.1, there nowhere.
        (BOTH, &Builder::new(), true),
        (&["h2"][..], &Builder::new(), false),
    ] {
        let member = Http2Member::start(&certificates, "server", alpn, settings.clone()).await;
        let proxy = proxy(&certificates, &member, alpn).await;
        let mut plain = Client::connect(proxy.address()).await;
        plain
            .send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            .await;
        let head = plain.response_head().await;
        if !takes {
            assert_eq!(head.status(), 502);
            assert_eq!(proxy.report_of(0).await.failures[0].what, "request: no tunnels over HTTP/2");
            continue;
        }
        assert_eq!(head.status(), 101, "{alpn:?}");
        assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for n in 0..3 {
            plain.send(format!("hello {n}")).await;
            plain.expect(format!("hello {n}")).await;
        }
        plain.finish().await;
        assert!(plain.ends_within(amphora_tests::PATIENCE).await);
    }
    let member = Http2Member::start(&certificates, "server", &["h2"], extended).await;
    let proxy = proxy(&certificates, &member, &["h2"]).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let mut connect = request("CONNECT", "/chat");
    connect.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let answered = client.ask(connect, Some(&vec![b'w'; 200_000]), None).await;
    assert_eq!((answered.status, answered.body.len(), answered.reset), (Some(200), 200_000, None));
}

#[tokio::test]
async fn changes_lose_nothing() {
    let certificates = Certificates::new();
    let members = [
        Http2Member::start(&certificates, "server", BOTH, Builder::new()).await,
        Http2Member::start(&certificates, "server", BOTH, Builder::new()).await,
    ];
    let pool = Pool::http()
        .members(members.iter().map(|member| &member.backend))
        .with("tls_enabled", true)
        .with("alpn_protocols", BOTH.to_vec());
    let all = pool.members.clone();
    let options = ["--certificates", &certificates.option()];
    let mut proxy = Proxy::start_with(Document::of(Listener::http(), pool), &options).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for n in 0..4 {
        let (address, stop, done) = (proxy.address(), Arc::clone(&stop), Arc::clone(&done));
        tasks.push(tokio::spawn(async move {
            let mut client = Http2Client::connect(address).await;
            let mut plain = Client::connect(address).await;
            while !stop.load(Ordering::Relaxed) {
                if n % 2 == 0 {
                    let sent = vec![b'c'; 30_000];
                    let echoed = client.ask(request("POST", "/echo"), Some(&sent), None).await;
                    let whole = echoed.body == sent || echoed.text() == "HTTP/1.1";
                    assert!(whole && echoed.reset.is_none(), "{:?}", echoed.status);
                    assert_eq!(client.get("/leave").await.status, Some(200));
                } else {
                    let text = plain.post("/x", b"hello").await.text();
                    assert!(text == "/x" || text == "HTTP/1.1", "{text}");
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for round in 0..30 {
        let which = [&all[..], &all[..1], &all[1..]][round % 3].to_vec();
        // What members are spoken to with is another each time, and the version, too.
        let alpn = [BOTH, &["h2"], &["http/1.1"], &["http/1.1", "h2"]][round % 4].to_vec();
        proxy
            .change(|document| {
                document.pools[0] = document.pools[0].clone().with("alpn_protocols", alpn);
                document.pools[0].members = which;
            })
            .await;
        let before = done.load(Ordering::Relaxed);
        eventually("some requests were answered", async || {
            (done.load(Ordering::Relaxed) > before + 4 || tasks.iter().any(|task| task.is_finished()))
                .then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    eventually("connections of before have ended", async || (members[0].backend.open() <= 4).then_some(()))
        .await;
}

#[tokio::test]
async fn checks_speak_what_members_speak_and_identities_go_over_http1() {
    let certificates = Certificates::new();
    let strict = Http2Member::start(&certificates, "server", &["h2"], Builder::new()).await;
    for kind in ["TCP", "HTTP", "HTTPS"] {
        let pool = Pool::http()
            .members([&strict.backend])
            .with("tls_enabled", true)
            .monitored(&amphora_tests::HealthMonitor::new(kind));
        let options = ["--certificates", &certificates.option()];
        let proxy = Proxy::start_with(Document::of(Listener::http(), pool), &options).await;
        proxy.until_member(0, "it was checked", |member| member.check == amphora_model::CheckState::Up).await;
    }
    let member = Http2Member::start(&certificates, "server", BOTH, Builder::new()).await;
    let proxy = proxy(&certificates, &member, BOTH).await;
    let mut client = Client::connect(proxy.address()).await;
    assert_eq!(client.get("/").await.text(), "/");
    for _ in 0..3 {
        assert_eq!(client.get_with("/", "Authorization: NTLM eA==\r\n").await.text(), "HTTP/1.1");
    }
    // The connection is the client's own.
    assert_eq!(member.backend.connections(), 2);
    let mut client = Client::connect(proxy.address()).await;
    assert_eq!(client.get("/").await.text(), "/");
}
