//! Clients that mean harm: memory stays bounded, others are served.

use std::time::{Duration, Instant};

use amphora_tests::{Backend, Client, Document, Listener, PATIENCE, Pool, Proxy, Step, echo};
use tokio::{io::AsyncWriteExt, net::UnixStream};

/// How long a good client may wait while the machine is busy with bad ones.
const GOOD: Duration = Duration::from_secs(5);

async fn good_client_is_served(proxy: &Proxy) {
    let begun = Instant::now();
    let mut client = proxy.client().await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.text(), "a");
    }
    assert!(begun.elapsed() < GOOD, "{:?}", begun.elapsed());
}

/// Clients that send their head byte by byte: how many, and how much memory each may cost.
async fn slow_loris(clients: usize) {
    // The proxy sets aside two for each client, and some for itself.
    if amphora_tests::open_files() < 4 * clients as u64 {
        eprintln!("SKIPPED: {clients} connections take more open files than this host permits (ulimit -Hn)");
        return;
    }
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    good_client_is_served(&proxy).await;
    let before = proxy.resident_kib();
    let mut slow = Vec::new();
    for number in 0..clients {
        let mut client = proxy.client().await;
        client.send(format!("GET /{number} HTTP/1.1\r\n")).await;
        slow.push(client);
    }
    for round in 0..3 {
        for client in &mut slow {
            client.send(format!("X-{round}: a\r\n")).await;
        }
        good_client_is_served(&proxy).await;
    }
    proxy.until_listener("all are there", |l| l.active_connections >= clients as u64).await;
    let each = proxy.resident_kib().saturating_sub(before) / clients as u64;
    assert!(each <= 40, "{each} KiB for each of {clients}");
    // They cost no member anything.
    assert!(member.connections() <= 2, "{}", member.connections());
    assert_eq!(proxy.member(0).await.active_sessions, 0);
}

#[tokio::test]
async fn slow_loris_with_500_connections() {
    slow_loris(500).await;
}

#[tokio::test]
async fn slow_loris_with_2000_connections() {
    slow_loris(2000).await;
}

#[tokio::test]
async fn heads_of_64_kib_are_refused_at_the_limit() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    good_client_is_served(&proxy).await;
    let before = proxy.resident_kib();
    let line = format!("X-A: {}\r\n", "a".repeat(1000));
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", line.repeat(64));
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = proxy.client().await;
        client.send(&head).await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.response().await.status(), 431);
    }
    good_client_is_served(&proxy).await;
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < 6 * 1024, "{grown} KiB");
    assert_eq!(member.connections(), member.connections().min(2));
}

#[tokio::test]
async fn endless_chunked_bodies_take_no_memory() {
    // The member reads and forgets.
    let member = Backend::tcp("sink", |mut stream| async move {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let quick = Backend::named("a").await;
    let (sink, pool) = (Pool::http().members([&member]), Pool::http().members([&quick]));
    let policy = amphora_tests::L7Policy::to_pool(&sink, amphora_tests::L7Rule::path("/sink"));
    let proxy = Proxy::start(
        Document::new().listener(Listener::http().to(&pool).policy(policy)).pool(&pool).pool(&sink),
    )
    .await;
    good_client_is_served(&proxy).await;
    let before = proxy.resident_kib();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let mut client = proxy.client().await;
        tasks.spawn(async move {
            client.send("POST /sink HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            // Some of chunks of one byte, some of one chunk that never ends.
            let endless = number % 2 == 0;
            let piece = if endless { vec![b'x'; 60_000] } else { "1\r\nx\r\n".repeat(10_000).into_bytes() };
            if endless {
                client.send("7fffffffffffffff\r\n").await;
            }
            while client.stream.write_all(&piece).await.is_ok() {}
        });
    }
    proxy.until_listener("64 MiB have passed", |listener| listener.bytes_in > 64 << 20).await;
    good_client_is_served(&proxy).await;
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
    tasks.abort_all();
}

#[tokio::test]
async fn chunk_extensions_and_trailers_without_end_are_cut_off() {
    let member = Backend::http("a", |request| {
        if request.first_line().starts_with("POST") { vec![Step::ReadBody] } else { Step::ok("a") }
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    for piece in [
        format!("1;{}", "a".repeat(1000)),
        "1;a\r\nx\r\n".repeat(100),
        format!("0\r\nX: {}", "a".repeat(1000)),
    ] {
        let mut client = proxy.client().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client.send(&piece).await;
        let more = piece.trim_start_matches("0\r\nX: ").trim_start_matches("1;a\r\nx\r\n");
        let more = if more.is_empty() { piece.as_str() } else { &"a".repeat(1000) };
        let sent = async { while client.stream.write_all(more.as_bytes()).await.is_ok() {} };
        let answered = tokio::time::timeout(PATIENCE, sent).await;
        assert!(answered.is_ok(), "{:?} never ended", &piece[..10]);
        good_client_is_served(&proxy).await;
    }
}

#[tokio::test]
async fn garbage_on_every_port_harms_nobody() {
    let member = Backend::named("a").await;
    let echo = Backend::tcp("echo", echo).await;
    let tcp = Pool::tcp().members([&echo]);
    let document = Document::of(Listener::http(), Pool::http().members([&member]))
        .listener(Listener::tcp().to(&tcp))
        .listener(Listener::prometheus())
        .pool(&tcp);
    let mut proxy = Proxy::start(document).await;
    good_client_is_served(&proxy).await;
    let before = proxy.resident_kib();
    let garbage = amphora_tests::Pattern::bytes(200_000);
    let openings: [&[u8]; 6] = [
        b"",
        b"\r\n\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n",
        b"PUT /loadbalancer HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n",
    ];
    for round in 0..10 {
        for opening in openings {
            let rubbish = &garbage[round * 17_000..];
            for index in 0..3 {
                let mut client = Client::connect(proxy.document.address_of(index)).await;
                let send = async {
                    let _ = client.stream.write_all(opening).await;
                    let _ = client.stream.write_all(rubbish).await;
                };
                // The echo stops reading when nobody reads what it says.
                let _ = tokio::time::timeout(Duration::from_millis(50), send).await;
            }
            let mut control = UnixStream::connect(proxy.control()).await.unwrap();
            let send = async {
                let _ = control.write_all(opening).await;
                let _ = control.write_all(rubbish).await;
            };
            let _ = tokio::time::timeout(Duration::from_millis(50), send).await;
        }
    }
    good_client_is_served(&proxy).await;
    assert!(proxy.runs());
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < 12 * 1024, "{grown} KiB");
    let document = proxy.document.clone();
    assert!(!proxy.apply(&document).await.changed);
    let mut scraper = Client::connect(proxy.document.address_of(2)).await;
    assert_eq!(scraper.get("/metrics").await.status(), 200);
}
