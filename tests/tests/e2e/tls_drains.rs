//! Clients over TLS are let go, of HTTP/1.1 and HTTP/2 alike: when the process is to end, when the VIP is about to move, and when
//! the listener is gone. Nothing that was asked for is lost, and nobody is waited for without a bound.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use amphora_tests::{
    Backend, Certificates, Client, Document, Listener, Message, Pool, Proxy, Step, TlsClient, TlsEnd,
    eventually, free_port, in_time,
};
use nix::sys::signal::Signal;
use rustls::version::TLS13;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::quiesce::Fitness;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A client of HTTP/2, frame by frame.
struct Frames {
    stream: TlsStream<TcpStream>,
    /// What has come of each stream's response, and whether that is all.
    bodies: HashMap<u32, (Vec<u8>, bool)>,
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The last stream of a GOAWAY, and its reason.
    fn going(&self) -> Option<(u32, u32)> {
        let number = |at: usize| u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap());
        (self.kind == GOAWAY).then(|| (number(0), number(4)))
    }
}

impl Frames {
    async fn connect(proxy: &Proxy, certificates: &Certificates) -> Self {
        let config = certificates.client(&[&TLS13], &["h2"]);
        let stream = certificates.connect_with(config, proxy.address()).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut client = Self { stream, bodies: HashMap::new() };
        client.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        client.send(SETTINGS, 0, 0, &[]).await;
        client
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
        let head = [&[a, b, c, kind, flags][..], &stream.to_be_bytes()].concat();
        self.stream.write_all(&[&head, payload].concat()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// `GET` of a path, with the fields of the static table.
    async fn get(&mut self, stream: u32, path: &str) {
        let path = [&[0x04, path.len() as u8], path.as_bytes()].concat();
        let block = [&[0x82, 0x87][..], &path, &[0x01, 1, b'a']].concat();
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &block).await;
    }

    /// The next frame; `None` is an end, of which the other is whether `close_notify` has come.
    async fn next(&mut self) -> Result<Frame, TlsEnd> {
        let mut head = [0; 9];
        let reading = async {
            match self.stream.read(&mut head[..1]).await {
                Ok(1) => {}
                Ok(_) => return Err(TlsEnd::Notified),
                Err(_) => return Err(TlsEnd::Cut),
            }
            self.stream.read_exact(&mut head[1..]).await.map_err(|_| TlsEnd::Cut)?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.stream.read_exact(&mut payload).await.map_err(|_| TlsEnd::Cut)?;
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            Ok(Frame { kind: head[3], flags: head[4], stream, payload })
        };
        let frame = in_time("a frame", reading).await?;
        if matches!(frame.kind, DATA | HEADERS) {
            let (body, ended) = self.bodies.entry(frame.stream).or_default();
            if frame.kind == DATA {
                body.extend_from_slice(&frame.payload);
            }
            *ended |= frame.flags & END_STREAM != 0;
        }
        Ok(frame)
    }

    /// The next frame for which this says something; settings are acknowledged meanwhile.
    async fn until<T>(&mut self, mut told: impl FnMut(&Frame) -> Option<T>) -> T {
        loop {
            let frame = self.next().await.expect("no end yet");
            if (frame.kind, frame.flags & ACK) == (SETTINGS, 0) {
                self.send(SETTINGS, ACK, 0, &[]).await;
            }
            if let Some(told) = told(&frame) {
                return told;
            }
        }
    }

    /// All of a response, without its head.
    async fn body(&mut self, stream: u32) -> String {
        while !self.bodies.get(&stream).is_some_and(|(_, ended)| *ended) {
            self.until(|_| Some(())).await;
        }
        String::from_utf8_lossy(&self.bodies[&stream].0).into_owned()
    }

    /// Until the end, of which it says how.
    async fn end(&mut self) -> TlsEnd {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Signal,
    HandOver,
    Change,
    /// The listener moves to another port, and keeps its id.
    Move,
}

async fn slow_member() -> Backend {
    Backend::http("a", |request: &Message| match request.target() {
        "/slow" => vec![Step::ReadBody, Step::Wait, Step::response("200 OK", "", "slow")],
        _ => Step::ok("a"),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_over_tls_are_let_go_and_lose_nothing() {
    for why in [Why::Signal, Why::HandOver, Why::Change, Why::Move] {
        let certificates = Certificates::new();
        let member = slow_member().await;
        let document = Document::of(Listener::https("server"), Pool::http().members([&member]));
        let mut proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
        let address = proxy.address();
        let config = certificates.client(&[&TLS13], &[]);
        let mut fitness = Fitness::of(&proxy).await;

        let mut idle = TlsClient::connect(address, &config, "shop.example").await.unwrap();
        assert_eq!(idle.get("/", "").await.unwrap().text(), "a");
        let mut idle_streams = Frames::connect(&proxy, &certificates).await;
        idle_streams.get(1, "/").await;
        assert_eq!(idle_streams.body(1).await, "a");
        let mut busy = TlsClient::connect(address, &config, "shop.example").await.unwrap();
        busy.send("GET /slow HTTP/1.1\r\nHost: shop.example\r\n\r\n").await.unwrap();
        eventually("the member has one", async || (member.served() == 3).then_some(())).await;
        let mut streams = Frames::connect(&proxy, &certificates).await;
        streams.get(1, "/slow").await;
        eventually("the member has both", async || (member.served() == 4).then_some(())).await;
        // One that has not begun to shake hands.
        let late = TcpStream::connect(address).await.unwrap();
        proxy.until_listener("all are in", |listener| listener.active_connections == 5).await;

        match why {
            Why::Signal => proxy.signal(Signal::SIGTERM),
            Why::HandOver => assert_eq!(fitness.ask(b'q').await, b'b'),
            Why::Change => drop(proxy.change(|document| document.listeners.clear()).await),
            Why::Move => {
                let next = free_port(proxy.document.vip);
                proxy.change(|document| document.listeners[0].port = next).await;
            }
        }
        // Who is idle is told, and goes.
        assert_eq!(idle.rest().await, (String::new(), TlsEnd::Notified), "{why:?}");
        let name = "shop.example".try_into().unwrap();
        let shaken = in_time("a handshake", TlsConnector::from(config.clone()).connect(name, late)).await;
        let mut late = TlsClient::over(shaken.unwrap());
        let response = late.get("/", "").await.unwrap();
        assert_eq!((response.text().as_str(), response.field("connection")), ("a", Some("close")), "{why:?}");
        assert_eq!(late.rest().await, (String::new(), TlsEnd::Notified), "{why:?}");
        assert!(idle_streams.until(Frame::going).await.1 == 0);
        let ping = idle_streams.until(|frame| (frame.kind == PING).then(|| frame.payload.clone())).await;
        idle_streams.send(PING, ACK, 0, &ping).await;
        assert_eq!(idle_streams.until(Frame::going).await, (1, 0));
        assert_eq!(idle_streams.end().await, TlsEnd::Notified, "{why:?}");

        // The first GOAWAY says that there will be another: what was sent before that could be known is answered.
        assert_eq!(streams.until(Frame::going).await, (0x7fff_ffff, 0));
        let ping = streams.until(|frame| (frame.kind == PING).then(|| frame.payload.clone())).await;
        streams.get(3, "/").await;
        streams.send(PING, ACK, 0, &ping).await;
        assert_eq!(streams.until(Frame::going).await, (3, 0));
        // What comes after that is not.
        streams.get(5, "/").await;
        assert_eq!(streams.body(3).await, "a");

        member.proceed();
        member.proceed();
        let (text, end) = busy.rest().await;
        assert!(text.ends_with("\r\n\r\nslow") && text.contains("onnection: close\r\n"), "{why:?}: {text}");
        assert_eq!(end, TlsEnd::Notified);
        assert_eq!(streams.body(1).await, "slow");
        assert_eq!(streams.end().await, TlsEnd::Notified, "{why:?}");
        let others = member.requests().iter().filter(|request| request.target() == "/").count();
        assert_eq!(others, 4, "what came too late was not asked for");

        match why {
            Why::Signal => {
                assert!(proxy.ended().await.success());
                assert!(Client::try_connect(address).await.is_err());
            }
            Why::HandOver => {
                eventually("nobody is left", async || (fitness.ask(b'q').await == b'd').then_some(())).await;
                assert_eq!(fitness.ask(b'r').await, b'+');
                let mut client = TlsClient::connect(address, &config, "shop.example").await.unwrap();
                for _ in 0..2 {
                    assert_eq!(client.get("/", "").await.unwrap().field("connection"), None);
                }
            }
            Why::Change => {
                eventually("nobody new is let in", async || Client::try_connect(address).await.err()).await;
            }
            Why::Move => {
                eventually("nobody new is let in", async || Client::try_connect(address).await.err()).await;
                let mut client = TlsClient::connect(proxy.address(), &config, "shop.example").await.unwrap();
                for _ in 0..2 {
                    assert_eq!(client.get("/", "").await.unwrap().field("connection"), None);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_say_that_it_knows_of_the_end_is_not_served_on() {
    let certificates = Certificates::new();
    let member = slow_member().await;
    let document = Document::of(Listener::https("server"), Pool::http().members([&member]));
    let mut proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
    let mut client = Frames::connect(&proxy, &certificates).await;
    client.get(1, "/slow").await;
    eventually("the member has it", async || (member.served() == 1).then_some(())).await;
    drop(proxy.change(|document| document.listeners.clear()).await);
    assert_eq!(client.until(Frame::going).await, (0x7fff_ffff, 0));
    let mut stream = 1;
    // The PING behind that is never answered.
    let refusal = eventually("requests are refused", async || {
        stream += 2;
        client.get(stream, "/").await;
        let reset = |frame: &Frame| (frame.kind == RST_STREAM).then(|| frame.payload.clone());
        client.until(|frame| (frame.stream == stream).then(|| reset(frame))).await
    })
    .await;
    assert_eq!(refusal, [0, 0, 0, 7], "REFUSED_STREAM");
    // What has begun before comes to its end.
    member.proceed();
    assert_eq!(client.body(1).await, "slow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_of_clients_over_tls_is_bounded_and_a_second_signal_cuts_it_short() {
    for (seconds, again) in [("1", false), ("300", true)] {
        let certificates = Certificates::new();
        let member = slow_member().await;
        let document = Document::of(Listener::https("server"), Pool::http().members([&member]));
        let options = ["--certificates", &certificates.option(), "--drain-timeout", seconds];
        let mut proxy = Proxy::start_with(document, &options).await;
        let address = proxy.address();
        let config = certificates.client(&[&TLS13], &[]);
        let mut busy = TlsClient::connect(address, &config, "shop.example").await.unwrap();
        busy.send("GET /slow HTTP/1.1\r\nHost: shop.example\r\n\r\n").await.unwrap();
        let mut streams = Frames::connect(&proxy, &certificates).await;
        streams.get(1, "/slow").await;
        // One that never says what it has connected for.
        let mut silent = TcpStream::connect(address).await.unwrap();
        eventually("the member has both", async || (member.served() == 2).then_some(())).await;
        proxy.until_listener("all are in", |listener| listener.active_connections == 3).await;
        proxy.signal(Signal::SIGTERM);
        if again {
            eventually("nobody new is let in", async || Client::try_connect(address).await.err()).await;
            proxy.signal(Signal::SIGTERM);
        }
        assert!(proxy.ended().await.success());
        assert_eq!(busy.rest().await.0, "");
        streams.end().await;
        assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0);
    }
}

/// It has said that it speaks HTTP/2, and nothing else: that another GOAWAY comes it learns with its first response.
#[tokio::test]
async fn a_client_without_a_stream_so_far_is_served_once_more() {
    let certificates = Certificates::new();
    let member = slow_member().await;
    let document = Document::of(Listener::https("server"), Pool::http().members([&member]));
    let mut proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
    let mut client = Frames::connect(&proxy, &certificates).await;
    client.until(|frame| (frame.kind == SETTINGS).then_some(())).await;
    proxy.change(|document| document.listeners.clear()).await;
    assert_eq!(client.until(Frame::going).await, (0x7fff_ffff, 0));
    let ping = client.until(|frame| (frame.kind == PING).then(|| frame.payload.clone())).await;
    // Longer than one is waited for that has asked.
    let quiet = client.stream.read_u8();
    assert!(tokio::time::timeout(Duration::from_secs(6), quiet).await.is_err());
    client.get(1, "/").await;
    assert_eq!(client.body(1).await, "a");
    client.send(PING, ACK, 0, &ping).await;
    assert_eq!(client.until(Frame::going).await, (1, 0));
    assert_eq!(client.end().await, TlsEnd::Notified);
}

/// Without a stream for `timeout_client_data` the connection is told to end, whatever else comes on it.
#[tokio::test]
async fn an_idle_client_is_told_the_end() {
    let certificates = Certificates::new();
    let member = slow_member().await;
    let listener = Listener::https("server").with("timeout_client_data", 1500);
    let document = Document::of(listener, Pool::http().members([&member]));
    let proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
    let mut client = Frames::connect(&proxy, &certificates).await;
    let begun = Instant::now();
    client.get(1, "/slow").await;
    eventually("the member has it", async || (member.served() == 1).then_some(())).await;
    // It is not idle while a response is waited for.
    tokio::time::sleep_until((begun + Duration::from_secs(2)).into()).await;
    member.proceed();
    assert_eq!(client.body(1).await, "slow");
    let answered = Instant::now();
    client.send(PING, 0, 0, &[7; 8]).await;
    assert_eq!(client.until(Frame::going).await, (1, 0));
    assert!(answered.elapsed() > Duration::from_millis(1400), "{:?}", answered.elapsed());
    assert_eq!(client.end().await, TlsEnd::Notified);
}

/// A certificate that was revoked, one that is asked for now, or a version that is none any more: who is here has not shown what
/// the listener asks of its clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_let_go_when_what_they_have_to_show_changes() {
    let certificates = Certificates::new();
    let member = slow_member().await;
    let document = Document::of(Listener::https("server"), Pool::http().members([&member]));
    let mut proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
    let config = certificates.client(&[&TLS13], &[]);
    for (field, value, stays) in [
        ("hsts_max_age", json!(100), true),
        ("client_ca_tls_container_ref", json!("ca"), true),
        ("client_authentication", json!("OPTIONAL"), false),
        ("timeout_client_data", json!(40_000), true),
        ("tls_versions", json!(["TLSv1.3"]), false),
    ] {
        let mut idle = TlsClient::connect(proxy.address(), &config, "shop.example").await.unwrap();
        assert_eq!(idle.get("/", "").await.unwrap().text(), "a");
        let mut streams = Frames::connect(&proxy, &certificates).await;
        streams.get(1, "/").await;
        assert_eq!(streams.body(1).await, "a");
        let mut silent = TlsClient::connect(proxy.address(), &config, "shop.example").await.unwrap();
        let change = |document: &mut Document| {
            document.listeners[0] = document.listeners[0].clone().with(field, value.clone());
        };
        proxy.change(change).await;
        if stays {
            for client in [&mut idle, &mut silent] {
                assert_eq!(client.get("/", "").await.unwrap().field("connection"), None, "{field}");
            }
            streams.get(3, "/").await;
            assert_eq!(streams.body(3).await, "a", "{field}");
        } else {
            for client in [&mut idle, &mut silent] {
                assert_eq!(client.rest().await, (String::new(), TlsEnd::Notified), "{field}");
            }
            assert_eq!(streams.until(Frame::going).await, (0x7fff_ffff, 0), "{field}");
        }
    }
}
