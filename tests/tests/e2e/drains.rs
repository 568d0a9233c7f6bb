//! Who is let go by a change, and who stays; and what becomes of clients that have not asked for anything yet.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use amphora_tests::{
    Backend, Certificates, Client, Document, End, Listener, Message, Pool, Proxy, Step, TlsClient, TlsEnd,
    echo, eventually, free_port,
    http2::{self, Http2Client, request},
    in_time,
};
use h2::client::{Builder, ResponseFuture};
use nix::sys::signal::Signal;
use rustls::version::TLS13;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

async fn member() -> Backend {
    Backend::http("a", |request: &Message| match request.target() {
        "/slow" => vec![Step::ReadBody, Step::Wait, Step::response("200 OK", "", "slow")],
        _ => Step::ok("a"),
    })
    .await
}

/// The clients of one address.
struct Clients {
    silent: Client,
    idle: Client,
    busy: Client,
    /// Of HTTP/2, with a request under way.
    streams: Http2Client,
    slow: ResponseFuture,
    relayed: Client,
}

impl Clients {
    async fn new(source: IpAddr, http: SocketAddr, tcp: SocketAddr) -> Self {
        let mut idle = Client::connect_from(source, http).await;
        assert_eq!(idle.get("/").await.field("connection"), None);
        let mut busy = Client::connect_from(source, http).await;
        busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let silent = Client::connect_from(source, http).await;
        let stream = Client::connect_from(source, http).await.stream;
        let mut streams = Http2Client::over(stream, &Builder::new()).await;
        assert_eq!(streams.get("/").await.text(), "a");
        let (slow, _) = streams.begin(request("GET", "/slow"), true).await;
        let mut relayed = Client::connect_from(source, tcp).await;
        relayed.send("before").await;
        relayed.expect("before").await;
        Self { silent, idle, busy, streams, slow, relayed }
    }
}

/// Each by its own address: what becomes of others is nothing to it.
#[tokio::test]
async fn clients_whom_a_listener_would_not_let_in_any_more_are_let_go() {
    let member = member().await;
    let echo = Backend::tcp("echo", echo).await;
    let (http, tcp) = (Pool::http().members([&member]), Pool::tcp().members([&echo]));
    let document = Document::new()
        .listener(Listener::http().to(&http))
        .listener(Listener::tcp().to(&tcp))
        .pool(&http)
        .pool(&tcp);
    let mut proxy = Proxy::start(document).await;
    let addresses = [proxy.document.address_of(0), proxy.document.address_of(1)];
    let [goes, stays] = [2, 3].map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
    // From all to some, and from some to fewer.
    for (number, (before, after)) in [
        (json!([]), json!(["127.0.0.1", "127.0.0.3/32"])),
        (json!(["127.0.0.0/29", "192.0.2.0/24"]), json!(["192.0.2.0/24", "127.0.0.3"])),
    ]
    .into_iter()
    .enumerate()
    {
        let apply = async |proxy: &mut Proxy, cidrs: &serde_json::Value| {
            proxy
                .change(|document| {
                    for listener in &mut document.listeners {
                        *listener = listener.clone().with("allowed_cidrs", cidrs.clone());
                    }
                })
                .await
        };
        apply(&mut proxy, &before).await;
        let asked = member.served();
        let mut of_one = Clients::new(goes, addresses[0], addresses[1]).await;
        let mut of_other = Clients::new(stays, addresses[0], addresses[1]).await;
        eventually("the member has all", async || (member.served() == asked + 8).then_some(())).await;
        apply(&mut proxy, &after).await;

        // Who waits goes at once; the response that is under way is the last.
        assert_eq!(of_one.idle.end().await, End::Closed(Vec::new()));
        assert_eq!(of_one.silent.end().await, End::Closed(Vec::new()));
        assert_eq!(of_other.idle.get("/").await.field("connection"), None);
        assert_eq!(of_other.streams.get("/").await.text(), "a");
        (0..4).for_each(|_| member.proceed());
        let response = of_one.busy.response().await;
        assert_eq!((response.text().as_str(), response.field("connection")), ("slow", Some("close")));
        assert_eq!(of_one.busy.end().await, End::Closed(Vec::new()));
        assert_eq!(http2::answer(of_one.slow).await.text(), "slow");
        of_one.streams.end().await.unwrap();
        let response = of_other.busy.response().await;
        assert_eq!((response.text().as_str(), response.field("connection")), ("slow", None));
        assert_eq!(http2::answer(of_other.slow).await.text(), "slow");
        // Relayed connections go on, whosoever they are.
        for clients in [&mut of_one.relayed, &mut of_other.relayed] {
            clients.send("after").await;
            clients.expect("after").await;
        }
        assert!(Client::connect_from(goes, addresses[0]).await.ends_within(Duration::from_secs(10)).await);

        // Who is let in again stays.
        let wide = if number == 0 { json!([]) } else { json!(["127.0.0.0/24"]) };
        apply(&mut proxy, &wide).await;
        let mut again = Client::connect_from(goes, addresses[0]).await;
        for client in [&mut again, &mut of_other.idle, &mut of_other.silent, &mut of_other.busy] {
            for _ in 0..2 {
                assert_eq!(client.get("/").await.field("connection"), None);
            }
        }
        assert_eq!(of_other.streams.get("/").await.text(), "a");
    }
}

/// Their requests and the end of their connections would cross on the way.
#[tokio::test]
async fn clients_who_ask_all_the_time_learn_of_the_end_from_a_response() {
    for why in ["a change", "a signal"] {
        // A client that does not get to run for a while, on a machine that is busy, is as one that does not ask. When they are closed at once, one time
        // in five goes well by chance.
        let mut lost = Vec::new();
        while !lost.ends_with(&[0; 5]) {
            assert!(lost.len() < 40, "{why}: {lost:?} of 24");
            lost.push(without_an_answer(why).await);
        }
    }
}

/// How many of 24 clients who ask all the time have no answer, and no word of the end, when the listener goes for this reason.
async fn without_an_answer(why: &str) -> usize {
    let member = member().await;
    let mut proxy = Proxy::start(Document::of(Listener::http(), Pool::http().members([&member]))).await;
    let address = proxy.document.address_of(0);
    let ask = move |_| async move {
        let mut client = Client::connect(address).await;
        while client.try_get("/", "").await?.field("connection").is_none() {}
        assert_eq!(client.end().await, End::Closed(Vec::new()));
        Ok::<_, std::io::Error>(())
    };
    let clients: Vec<_> = (0..24).map(ask).map(tokio::spawn).collect();
    eventually("all are at it", async || (member.served() > 500).then_some(())).await;
    match why {
        "a signal" => proxy.signal(Signal::SIGTERM),
        _ => drop(proxy.change(|document| document.listeners.clear()).await),
    }
    let mut lost = 0;
    for client in clients {
        lost += usize::from(client.await.unwrap().is_err());
    }
    lost
}

/// Longer than a second, which they had once, and than the 5 s after which one that has asked is taken to know of the end.
const SILENCE: Duration = Duration::from_secs(6);

/// Waits in silence; nothing comes, and no end.
async fn silent(stream: &mut (impl AsyncRead + Unpin)) {
    let came = tokio::time::timeout(SILENCE, stream.read_u8()).await;
    assert!(came.is_err(), "{came:?}");
}

/// A client that has connected, and shaken hands perhaps, is as good as one that is about to ask: it is served whenever it does,
/// as by HAProxy, and its connection ends then.
async fn who_has_not_asked_yet_is_served(why: &str) {
    let certificates = Certificates::new();
    let member = member().await;
    let document = Document::of(Listener::http(), Pool::http().members([&member]));
    let secure = Listener::https("server").to(&document.pools[0]);
    let document = document.listener(secure).listener(Listener::prometheus());
    let mut proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
    let [plain, secure, scraped] = [0, 1, 2].map(|index| proxy.document.address_of(index));
    let [http1, http2] = [&[][..], &["h2"]].map(|alpn| certificates.client(&[&TLS13], alpn));

    let mut of_http1 = Client::connect(plain).await;
    let mut of_http2 = Client::connect(plain).await.stream;
    let mut scraper = Client::connect(scraped).await;
    let mut unshaken = TcpStream::connect(secure).await.unwrap();
    let mut shaken = TlsClient::connect(secure, &http1, "shop.example").await.unwrap();
    let agreed = certificates.connect_with(http2, secure).await.unwrap();
    let mut idle = proxy.client().await;
    idle.get("/").await;
    proxy
        .until("all are in", |stats| {
            let active = stats.listeners.values().map(|listener| listener.active_connections);
            active.sum::<u64>() == 7
        })
        .await;
    match why {
        "a signal" => proxy.signal(Signal::SIGTERM),
        "a move" => {
            let ports: Vec<_> = (0..3).map(|_| free_port(proxy.document.vip)).collect();
            let moved = proxy.change(|document| {
                for (listener, port) in document.listeners.iter_mut().zip(ports) {
                    listener.port = port;
                }
            });
            drop(moved.await);
        }
        _ => drop(proxy.change(|document| document.listeners.clear()).await),
    }
    assert_eq!(idle.end().await, End::Closed(Vec::new()), "{why}");

    let served = |response: &Message| response.text() == "a" && response.field("connection") == Some("close");
    let on_plain = async {
        silent(&mut of_http1.stream).await;
        assert!(served(&of_http1.get("/").await), "{why}");
        assert_eq!(of_http1.end().await, End::Closed(Vec::new()));
    };
    let on_plain_http2 = async {
        silent(&mut of_http2).await;
        let mut client = Http2Client::over(of_http2, &Builder::new()).await;
        assert_eq!(client.get("/").await.text(), "a", "{why}");
        client.end().await.unwrap();
    };
    let on_scraped = async {
        silent(&mut scraper.stream).await;
        let response = scraper.get("/metrics").await;
        assert_eq!((response.status(), response.field("connection")), (200, Some("close")), "{why}");
        assert_eq!(scraper.end().await, End::Closed(Vec::new()));
    };
    let on_unshaken = async {
        silent(&mut unshaken).await;
        let name = "shop.example".try_into().unwrap();
        let shaking = TlsConnector::from(http1.clone()).connect(name, unshaken);
        let mut client = TlsClient::over(in_time("a handshake", shaking).await.unwrap());
        assert!(served(&client.get("/", "").await.unwrap()), "{why}");
        assert_eq!(client.rest().await, (String::new(), TlsEnd::Notified));
    };
    let on_shaken = async {
        silent(&mut shaken.stream).await;
        assert!(served(&shaken.get("/", "").await.unwrap()), "{why}");
        assert_eq!(shaken.rest().await, (String::new(), TlsEnd::Notified));
    };
    let on_agreed = async {
        // Its server has begun to speak.
        tokio::time::sleep(SILENCE).await;
        let mut client = Http2Client::over(agreed, &Builder::new()).await;
        assert_eq!(client.get("/").await.text(), "a", "{why}");
        client.end().await.unwrap();
    };
    tokio::join!(on_plain, on_plain_http2, on_scraped, on_unshaken, on_shaken, on_agreed);
    if why == "a signal" {
        assert!(proxy.ended().await.success());
    }
}

#[tokio::test]
async fn who_has_not_asked_yet_is_served_when_the_process_ends() {
    who_has_not_asked_yet_is_served("a signal").await;
}

#[tokio::test]
async fn who_has_not_asked_yet_is_served_when_listeners_move() {
    who_has_not_asked_yet_is_served("a move").await;
}

#[tokio::test]
async fn who_has_not_asked_yet_is_served_when_listeners_go() {
    who_has_not_asked_yet_is_served("a change").await;
}

/// What bounds it is what bounds any wait for a first request.
#[tokio::test]
async fn who_never_asks_is_let_go_after_the_time_that_there_is_for_a_request() {
    let certificates = Certificates::new();
    let member = member().await;
    let document = Document::of(Listener::http(), Pool::http().members([&member]));
    let secure = Listener::https("server").to(&document.pools[0]);
    let mut document = document.listener(secure);
    for listener in &mut document.listeners {
        *listener = listener.clone().with("timeout_client_data", 1000);
    }
    let mut proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
    let [plain, secure] = [0, 1].map(|index| proxy.document.address_of(index));
    let http2 = certificates.client(&[&TLS13], &["h2"]);
    let mut of_http1 = Client::connect(plain).await;
    let mut unshaken = TcpStream::connect(secure).await.unwrap();
    let mut agreed = certificates.connect_with(http2, secure).await.unwrap();
    proxy.change(|document| document.listeners.clear()).await;
    let late = of_http1.response().await;
    assert_eq!((late.status(), late.field("connection")), (408, Some("close")));
    assert_eq!(in_time("an end", unshaken.read(&mut [0])).await.unwrap_or(0), 0);
    in_time("an end", async { while agreed.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {} }).await;
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.ended().await.success());
}
