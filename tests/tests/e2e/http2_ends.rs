//! Connections of HTTP/2 to members that end, or freeze, and what becomes of requests then.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use amphora_tests::{
    Backend, Certificates, Client, Document, HaProxy, HaProxyConfig, Listener, Pool, Proxy, eventually,
    http2::{Http2Client, request},
    http2_frames::{self, FrameConnection, kind},
};

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
                    let (proxy, haproxy);
                    let address = if ours {
                        proxy = self::proxy(&certificates, &member).await;
                        proxy.address()
                    } else {
                        haproxy = self::haproxy(&member).await;
                        match &haproxy {
                            Some(haproxy) => haproxy.address,
                            None => return,
                        }
                    };
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
