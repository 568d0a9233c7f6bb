//! Connections of HTTP/2 to members that end, or freeze, and what becomes of requests then.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use amphora_tests::{
    Backend, Certificates, Client, Document, HaProxy, HaProxyConfig, Listener, Pool, Proxy, eventually,
    http2::{self, Http2Client, request},
    http2_frames::{self, FrameConnection, kind},
};
use h2::client::Builder;
use rustls::{ServerConfig, crypto::aws_lc_rs, version::TLS13};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

fn document(member: &Backend) -> Document {
    let pool = Pool::http()
        .members([member])
        .with("tls_enabled", true)
        .with("alpn_protocols", vec!["h2", "http/1.1"]);
    Document::of(Listener::http(), pool)
}

async fn proxy(certificates: &Certificates, member: &Backend) -> Proxy {
    // Each worker has connections of its own.
    Proxy::start_with(document(member), &["--workers", "1", "--certificates", &certificates.option()]).await
}

async fn haproxy(member: &Backend) -> Option<HaProxy> {
    let mut config = HaProxyConfig::http([member.address]);
    config.servers[0].2 = "ssl verify none alpn h2,http/1.1".to_owned();
    HaProxy::start(&config).await
}

/// One of the two that are asked alike.
enum Side {
    Proxy(Proxy),
    HaProxy(HaProxy),
}

impl Side {
    /// `None` where there is no HAProxy.
    async fn of(ours: bool, certificates: &Certificates, member: &Backend) -> Option<Self> {
        match ours {
            true => Some(Self::Proxy(proxy(certificates, member).await)),
            false => haproxy(member).await.map(Self::HaProxy),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Proxy(proxy) => proxy.address(),
            Self::HaProxy(haproxy) => haproxy.address,
        }
    }
}

/// Which connection carried a request, as the member saw it.
type Carried = Arc<Mutex<Vec<usize>>>;

/// What a client of this version gets for requests of these methods, one after the other.
async fn asked(address: SocketAddr, version: &str, methods: &[&str]) -> Vec<Option<u16>> {
    let mut got = Vec::new();
    if version == "HTTP/2" {
        let mut client = Http2Client::connect(address).await;
        for method in methods {
            let body = (*method == "POST").then_some(&b"hello"[..]);
            got.push(client.ask(request(method, "/"), body, None).await.status);
        }
        return got;
    }
    let mut client = Client::connect(address).await;
    for method in methods {
        let body = if *method == "POST" { "Content-Length: 5\r\n\r\nhello" } else { "\r\n" };
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n{body}")).await;
        let response = client.try_response(false).await;
        got.push(response.ok().map(|response| response.status()));
        if got.last() == Some(&None) {
            break;
        }
    }
    got
}

/// Answers the first request of a connection, and closes it at the second.
async fn once(mut connection: FrameConnection, carried: Carried, resets: bool) {
    let Some(stream) = connection.request().await else { return };
    carried.lock().unwrap().push(connection.number);
    connection.answer(stream).await;
    if connection.request().await.is_some() {
        carried.lock().unwrap().push(connection.number);
        if resets {
            connection.reset();
        }
    }
}

#[tokio::test]
async fn what_cannot_be_repeated_meets_no_connection_that_was_left_behind() {
    let certificates = Certificates::new();
    for resets in [false, true] {
        for version in ["HTTP/2", "HTTP/1.1"] {
            for methods in [&["POST"][..], &["GET"], &["POST", "POST"], &["GET", "GET"], &["GET", "POST"]] {
                let mut both = Vec::new();
                for ours in [false, true] {
                    let carried = Carried::default();
                    let seen = Arc::clone(&carried);
                    let member = http2_frames::member(&certificates, move |connection| {
                        once(connection, Arc::clone(&seen), resets)
                    })
                    .await;
                    let Some(side) = Side::of(ours, &certificates, &member).await else { return };
                    let address = side.address();
                    // It leaves a connection behind.
                    assert_eq!(asked(address, "HTTP/1.1", &["GET"]).await, [Some(200)]);
                    both.push((asked(address, version, methods).await, carried.lock().unwrap().clone()));
                }
                let [(theirs, _), (ours, carried)] = &both[..] else { panic!("{both:?}") };
                let case = format!("{version} {methods:?}: HAProxy {:?}, here {:?}", both[0], both[1]);
                // HAProxy takes no request of a client of HTTP/2 for its first, and asks nowhere again.
                let served =
                    |got: &[Option<u16>]| got.iter().take_while(|status| **status == Some(200)).count();
                assert!(served(ours) >= served(theirs), "{case}");
                assert_eq!(ours[0], Some(200), "{case}");
                if methods[0] == "POST" {
                    assert_eq!(carried[..2], [0, 1], "{case}");
                }
                // What may have been processed is not sent twice: HAProxy closes without an answer.
                let last = if methods.ends_with(&["POST"]) && methods.len() > 1 { 502 } else { 200 };
                assert_eq!(ours.last(), Some(&Some(last)), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn what_ends_before_a_request_has_left_is_not_its_matter() {
    let certificates = Certificates::new();
    let carried = Carried::default();
    let seen = Arc::clone(&carried);
    // Each connection is closed without a word as soon as its first request is answered.
    let member = http2_frames::member(&certificates, move |mut connection| {
        let seen = Arc::clone(&seen);
        async move {
            let Some(stream) = connection.request().await else { return };
            seen.lock().unwrap().push(connection.number);
            // The request is through before the response is.
            while connection.next().await.is_some_and(|frame| frame.flags & http2_frames::END_STREAM == 0) {}
            connection.answer(stream).await;
        }
    })
    .await;
    let proxy = proxy(&certificates, &member).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    for n in 0..50 {
        let answer = client.ask(request("POST", "/"), Some(b"hello"), None).await;
        assert_eq!(answer.status, Some(200), "{n}");
        eventually("its end has come", async || (member.open() == 0).then_some(())).await;
    }
    assert_eq!(*carried.lock().unwrap(), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_connection_that_freezes_holds_up_no_request_that_comes_later() {
    let certificates = Certificates::new();
    // The first connection answers one request and reads nothing more.
    let member = http2_frames::member(&certificates, |mut connection| async move {
        while let Some(stream) = connection.request().await {
            connection.answer(stream).await;
            if connection.number == 0 {
                std::future::pending::<()>().await;
            }
        }
    })
    .await;
    let proxy = proxy(&certificates, &member).await;
    let get = || async { asked(proxy.address(), "HTTP/1.1", &["GET"]).await };
    assert_eq!(get().await, [Some(200)]);
    let mut waiting = Client::connect(proxy.address()).await;
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("another connection is used", async || {
        let got = tokio::time::timeout(Duration::from_millis(300), get()).await;
        got.is_ok_and(|got| got == [Some(200)]).then_some(())
    })
    .await;
    for _ in 0..20 {
        assert_eq!(get().await, [Some(200)]);
    }
    assert_eq!(member.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_is_slow_and_there_is_used_on() {
    let certificates = Certificates::new();
    let asked_for = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&asked_for);
    // The first request is never answered, the others at once, and SETTINGS always.
    let member = http2_frames::member(&certificates, move |mut connection| {
        let seen = Arc::clone(&seen);
        async move {
            let mut first = true;
            while let Some(frame) = connection.receive().await {
                match frame.kind {
                    kind::SETTINGS if frame.flags & http2_frames::ACK == 0 => {
                        connection.send(kind::SETTINGS, http2_frames::ACK, 0, &[]).await;
                        *seen.lock().unwrap() += 1;
                    }
                    kind::HEADERS if !std::mem::take(&mut first) => {
                        connection.answer(frame.stream).await;
                    }
                    _ => {}
                }
            }
        }
    })
    .await;
    let proxy = proxy(&certificates, &member).await;
    let mut waiting = Client::connect(proxy.address()).await;
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("its SETTINGS have come", async || (*asked_for.lock().unwrap() == 1).then_some(())).await;
    for _ in 0..20 {
        assert_eq!(asked(proxy.address(), "HTTP/1.1", &["GET"]).await, [Some(200)]);
    }
    assert_eq!(member.connections(), 1);
}

#[tokio::test]
async fn members_are_told_that_a_connection_ends() {
    let certificates = Certificates::new();
    let said = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&said);
    let member = http2_frames::member(&certificates, move |mut connection| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(frame) = connection.next().await {
                match frame.kind {
                    kind::HEADERS => drop(connection.answer(frame.stream).await),
                    kind::GOAWAY => seen.lock().unwrap().push(frame.payload[4..].to_vec()),
                    _ => {}
                }
            }
            seen.lock().unwrap().push(b"end".to_vec());
        }
    })
    .await;
    let mut proxy = proxy(&certificates, &member).await;
    assert_eq!(asked(proxy.address(), "HTTP/1.1", &["GET"]).await, [Some(200)]);
    let members = std::mem::take(&mut document(&member).pools[0].members);
    proxy.change(|document| document.pools[0].members.clear()).await;
    let told = vec![vec![0; 4], b"end".to_vec()];
    eventually("GOAWAY, and the end", async || (*said.lock().unwrap() == told).then_some(())).await;
    // The same of what the member is spoken to with, and of all.
    said.lock().unwrap().clear();
    proxy.change(|document| document.pools[0].members = members).await;
    assert_eq!(asked(proxy.address(), "HTTP/1.1", &["GET"]).await, [Some(200)]);
    proxy
        .change(|document| {
            document.pools[0] = document.pools[0].clone().with("alpn_protocols", vec!["h2"]);
        })
        .await;
    assert_eq!(asked(proxy.address(), "HTTP/1.1", &["GET"]).await, [Some(200)]);
    eventually("GOAWAY, and the end", async || (*said.lock().unwrap() == told).then_some(())).await;
}

/// A member that has answered and closes takes no more of the request, and the response is there all the same.
#[tokio::test]
async fn a_response_that_has_come_before_the_end_is_the_clients() {
    let certificates = Certificates::new();
    let member = http2_frames::member(&certificates, |mut connection| async move {
        let Some(stream) = connection.request().await else { return };
        connection.answer(stream).await;
        // What was sent to it and not read makes it a reset.
        connection.reset();
    })
    .await;
    let proxy = proxy(&certificates, &member).await;
    let body = vec![b'x'; 50_000];
    let of = async |address| {
        let mut client = Http2Client::connect(address).await;
        let over_http2 = client.ask(request("POST", "/"), Some(&body), None).await.status;
        let mut client = Client::connect(address).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
        client.send(&body).await;
        let over_http1 = client.try_response(false).await.ok().map(|response| response.status());
        [over_http2, over_http1]
    };
    for n in 0..20 {
        assert_eq!(of(proxy.address()).await, [Some(200); 2], "{n}");
    }
    let Some(haproxy) = haproxy(&member).await else { return };
    println!("HAProxy: {:?}", of(haproxy.address).await);
}

/// A connection that others use, and that the member closes without a word while a request is on its way there.
#[tokio::test]
async fn what_meets_the_end_of_a_connection_in_use_is_repeated_and_what_cannot_be_does_not_meet_it() {
    let certificates = Certificates::new();
    for method in ["GET", "POST"] {
        let mut both = Vec::new();
        for ours in [false, true] {
            let carried = Carried::default();
            let seen = Arc::clone(&carried);
            // The first connection answers nothing, and closes at the second request; others answer.
            let member = http2_frames::member(&certificates, move |mut connection| {
                let seen = Arc::clone(&seen);
                async move {
                    while let Some(stream) = connection.request().await {
                        let before = {
                            let mut seen = seen.lock().unwrap();
                            seen.push(connection.number);
                            seen.iter().filter(|number| **number == 0).count()
                        };
                        match connection.number {
                            0 if before >= 2 => return connection.reset(),
                            0 => {}
                            _ => drop(connection.answer(stream).await),
                        }
                    }
                }
            })
            .await;
            let Some(side) = Side::of(ours, &certificates, &member).await else { return };
            let address = side.address();
            let mut waiting = Client::connect(address).await;
            waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            eventually("the first is there", async || (carried.lock().unwrap().len() == 1).then_some(()))
                .await;
            let got = asked(address, "HTTP/1.1", &[method]).await;
            both.push((got, carried.lock().unwrap().clone()));
        }
        // HAProxy gives each client a connection of its own for its first request.
        assert_eq!((&both[0].0, &both[1].0), (&vec![Some(200)], &vec![Some(200)]), "{method}: {both:?}");
        if method == "POST" {
            assert_eq!(both[1].1, both[0].1);
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_being_opened_ends_with_its_client() {
    let certificates = Certificates::new();
    // It never shakes hands.
    let member = Backend::tcp("silent", |mut stream| async move {
        while tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    let proxy = proxy(&certificates, &member).await;
    let mut plain = Client::connect(proxy.address()).await;
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, mut stream) = client.begin(request("GET", "/"), true).await;
    eventually("one is opened", async || (member.open() >= 1).then_some(())).await;
    // One that has only finished sending waits for what it has asked for.
    plain.stream.set_zero_linger().unwrap();
    drop(plain);
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    eventually("nothing is left of it", async || (member.open() == 0).then_some(())).await;
    proxy
        .until_member(0, "both are given up", |member| {
            member.client_aborts == 2 && member.active_sessions == 0
        })
        .await;
    // Neither was it taken for one that is there: the next opens its own.
    let before = member.connections();
    let (response, mut stream) = client.begin(request("GET", "/"), true).await;
    eventually("another is opened", async || (member.connections() > before).then_some(())).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    eventually("nothing is left of it", async || (member.open() == 0).then_some(())).await;
}

/// Who waits for a connection that somebody else opens learns why there is none: time changes nothing about that.
#[tokio::test]
async fn a_member_for_other_hosts_is_that_for_all_who_wait() {
    let certificates = Certificates::new();
    certificates.issue("other", &["other.example"]);
    let builder = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let (chain, key) = certificates.read("other");
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let all_wait = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&all_wait);
    let member = Backend::tcp("other", move |stream| {
        let (acceptor, told) = (acceptor.clone(), Arc::clone(&told));
        async move {
            let _told = told.acquire().await.unwrap();
            let _ = acceptor.accept(stream).await;
        }
    })
    .await;
    let pool = Pool::http()
        .members([&member])
        .with("tls_enabled", true)
        .with("ca_tls_container_ref", "ca")
        .with("alpn_protocols", vec!["h2"]);
    let options = ["--workers", "1", "--certificates", &certificates.option()];
    let proxy = Proxy::start_with(Document::of(Listener::https("server"), pool), &options).await;
    let config = certificates.client(&[&TLS13], &["h2"]);
    let stream = certificates.connect_with(config, proxy.address()).await.unwrap();
    let mut client = Http2Client::over(stream, &Builder::new()).await;
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(client.begin(request("GET", "/"), true).await.0);
    }
    proxy.until_listener("all have come", |listener| listener.requests == 10).await;
    all_wait.add_permits(100);
    for response in waiting {
        assert_eq!(http2::answer(response).await.status, Some(503));
    }
    let stats = proxy.member(0).await;
    assert_eq!((stats.retries, stats.redispatches, stats.connect_errors), (0, 0, 10));
}
