//! How connections over TLS end, and what that says of what was sent on them: beside HAProxy, which does not tell an end without
//! `close_notify` from one with it.

use std::{net::SocketAddr, sync::Arc};

use amphora_ipc::proxy::Stats;
use amphora_tests::{
    Backend, Certificates, Document, HaProxy, HaProxyConfig, Listener, Pool, Proxy, TlsClient, TlsEnd,
    TlsMember, eventually,
};
use rustls::{
    ClientConfig,
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A proxy and, where there is one, HAProxy, with TLS on both sides.
struct Both {
    proxy: Proxy,
    judge: Option<HaProxy>,
    member: TlsMember,
    certificates: Certificates,
}

impl Both {
    async fn start() -> Self {
        let certificates = Certificates::new();
        let member = TlsMember::start(&certificates, "server", false).await;
        let pool = Pool::http().members([&member.backend]).with("tls_enabled", true);
        let document = Document::of(Listener::https("server"), pool);
        let proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
        let mut config = HaProxyConfig::http([member.backend.address]);
        config.bind = format!("ssl crt {}", certificates.file("server").display());
        config.servers[0].2 = "ssl verify none".into();
        let judge = HaProxy::start(&config).await;
        Self { proxy, judge, member, certificates }
    }
}

/// The status, the content, what is there of the end of the chunks if it comes in any, and how the connection has ended.
fn told((text, end): (String, TlsEnd)) -> (String, String, String, TlsEnd) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let (content, last) = match body.strip_prefix("5\r\nhello\r\n") {
        Some(last) => ("hello", last),
        None => (body, ""),
    };
    (head.split(' ').nth(1).unwrap_or_default().to_owned(), content.to_owned(), last.to_owned(), end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_of_members_are_told_to_clients_as_by_haproxy() {
    let both = Both::start().await;
    let client = Arc::new(both.certificates.client_with(None, &[&TLS13]));
    let ask = async |address, target: &str| {
        let mut client = TlsClient::connect(address, &client, "shop.example").await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
        client.send(&request).await.unwrap();
        told(client.rest().await)
    };
    for framing in ["length", "chunks", "close"] {
        for how in ["notify", "silent", "reset"] {
            let target = format!("/ends/{framing}/{how}");
            let (status, content, last, end) = ask(both.proxy.address(), &target).await;
            // What has no length of its own comes in chunks: who is cut off knows that something is missing, unless the member
            // has left it open.
            let whole = framing == "close" && how != "reset";
            let expected = if whole { "0\r\n\r\n" } else { "" };
            assert_eq!((&*content, &*last, end), ("hello", expected, TlsEnd::Notified), "{target}");
            if let Some(judge) = &both.judge {
                let theirs = ask(judge.address, &target).await;
                assert_eq!((status, content, end), (theirs.0, theirs.1, theirs.3), "{target}");
            }
        }
    }
}

/// Sends this, ends, and reads what comes.
async fn end_after(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    sent: &str,
    notified: bool,
) -> (String, String, String, TlsEnd) {
    let mut client = TlsClient::connect(address, config, "shop.example").await.unwrap();
    client.send(sent).await.unwrap();
    if notified {
        client.stream.shutdown().await.unwrap();
    } else {
        client.stream.get_mut().0.shutdown().await.unwrap();
    }
    told(client.rest().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_of_clients_mean_what_they_do_to_haproxy() {
    let both = Both::start().await;
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(both.certificates.client_with(None, &[version]));
        for sent in [
            "",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "GET /bytes/70000 HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhello",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ] {
            for notified in [true, false] {
                let ours = end_after(both.proxy.address(), &config, sent, notified).await;
                if let Some(judge) = &both.judge {
                    let theirs = end_after(judge.address, &config, sent, notified).await;
                    assert_eq!(ours, theirs, "{version:?} {sent:?} {notified}");
                }
                let expected = match sent {
                    "" | "GET / HTTP/1.1\r\nHost: a\r\n" => ("400", 90),
                    _ if sent.starts_with("GET") => ("200", 70_000),
                    _ if sent.contains(": 5\r\n") => ("200", 5),
                    // Whoever has not sent all that was promised is gone.
                    _ => ("", 0),
                };
                assert_eq!((&*ours.0, ours.1.len()), expected, "{version:?} {sent:?} {notified}");
            }
        }
    }
    // What has broken off was never whole to the member.
    let requests = both.member.requests();
    assert!(
        requests.iter().all(
            |request| request.complete == (request.text() != "hello" || request.head.contains(": 5\r\n"))
        )
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_shake_hands_is_counted_though_its_client_leaves() {
    let member = Backend::tcp("silent", async |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let pool = Pool::http().members([&member]).with("tls_enabled", true);
    let proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the member is asked", async || (member.open() == 1).then_some(())).await;
    client.reset();
    let failed = |stats: &Stats| stats.pools.values().next().map(|pool| pool.handshakes.failed.closed);
    let stats = proxy.until("it is counted", |stats| failed(stats) == Some(1)).await;
    assert_eq!(stats.pools.values().next().unwrap().handshakes.failed.total(), 1);
}
