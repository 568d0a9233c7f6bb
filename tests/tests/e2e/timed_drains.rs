//! Members whose `drain_timeout` is over while nothing moves: who waits for them is told all the same, and nobody else notices.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use amphora_tests::{
    Backend, Client, Document, End, Listener, Load, Member, Message, Pool, Proxy, Step, echo, eventually,
    http2::{self, Http2Client, request},
    in_time, loopback,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// In what time all that a member has is to be closed whose time is a second: it is looked at once a second. All other timeouts are
/// longer.
const BOUND: Duration = Duration::from_secs(12);

/// More than fits between a member and a client that reads nothing.
const FLOOD: usize = 64 << 20;

/// Answers as the path says, and after that nothing moves.
fn going(request: &Message) -> Vec<Step> {
    match request.target() {
        "/late" => vec![Step::Wait],
        "/long" => vec![Step::send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst"), Step::Wait],
        "/flood" => vec![
            Step::send(format!("HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n")),
            Step::SendPattern(FLOOD as u64),
        ],
        _ => Step::ok("going"),
    }
}

fn pool(members: [&Backend; 2]) -> Pool {
    Pool::http().with("session_persistence", json!({ "type": "HTTP_COOKIE" })).members(members)
}

/// Has the pool's first member go in a second.
async fn go(proxy: &mut Proxy, change: impl FnOnce(&mut Document)) -> Instant {
    proxy
        .change(|document| {
            let pool = &mut document.pools[0];
            *pool = pool.clone().with("amphora", json!({ "drain_timeout": 1 }));
            pool.members[0] = pool.members[0].clone().weight(0);
            change(document);
        })
        .await;
    Instant::now()
}

/// All that the first member had is closed in time.
async fn closed_in_time(proxy: &Proxy, since: Instant) {
    proxy.until_member(0, "the member has nothing left", |member| member.active_sessions == 0).await;
    assert!(since.elapsed() < BOUND, "{:?}", since.elapsed());
    assert!(since.elapsed() > Duration::from_millis(500), "it has its time");
}

/// Requests to one address, all of which wait for the member or for the client.
struct Waiting {
    late: Client,
    posting: Client,
    long: Client,
    flooded: Client,
}

impl Waiting {
    async fn begin(address: SocketAddr, cookie: &str) -> Self {
        let begin = async |line: &str, body: &str| {
            let mut client = Client::connect(address).await;
            client.send(format!("{line} HTTP/1.1\r\nHost: a\r\n{cookie}{body}")).await;
            client
        };
        let mut long = begin("GET /long", "\r\n").await;
        assert_eq!(long.response_head().await.status(), 200);
        Self {
            late: begin("GET /late", "\r\n").await,
            posting: begin("POST /late", "Content-Length: 1\r\n\r\nx").await,
            flooded: begin("GET /flood", "\r\n").await,
            long,
        }
    }

    async fn end(mut self) {
        assert_eq!(self.late.response().await.text(), "staying", "asked again of another");
        assert_eq!(self.posting.response().await.status(), 503);
        assert_eq!(self.long.end().await, End::Closed(b"first".to_vec()), "cut");
        let mut read = vec![0; 1 << 16];
        let cut = async { while matches!(self.flooded.stream.read(&mut read).await, Ok(1..)) {} };
        in_time("the end of what nobody has read", cut).await;
    }
}

#[tokio::test]
async fn requests_that_began_before_the_pool_had_a_time_end_with_it_while_nothing_moves() {
    let going = Backend::http("going", going).await;
    let staying = Backend::named("staying").await;
    let pool = pool([&going, &staying]);
    let gone = Listener::http().to(&pool);
    let mut proxy = Proxy::start(Document::of(Listener::http(), pool).listener(gone)).await;
    let srv = format!("SRV={}", proxy.document.pools[0].members[0].id);
    let cookie = format!("Cookie: {srv}\r\n");
    let load = Load::new().keep_alive(4, proxy.address()).connection_each(2, proxy.address());
    load.more(20).await;
    let started = going.started();

    let addresses = [proxy.document.address_of(0), proxy.document.address_of(1)];
    let of_one = [
        Waiting::begin(addresses[0], &cookie).await,
        // Its listener goes with the change.
        Waiting::begin(addresses[1], &cookie).await,
    ];
    let mut streams = Vec::new();
    let mut clients = Vec::new();
    for address in addresses {
        let mut client = Http2Client::connect(address).await;
        for (method, path) in [("GET", "/late"), ("POST", "/late"), ("GET", "/long"), ("GET", "/flood")] {
            if path == "/flood" {
                // What nobody reads takes all of a connection's window.
                clients.push(std::mem::replace(&mut client, Http2Client::connect(address).await));
            }
            let mut request = request(method, path);
            request.headers_mut().insert("cookie", srv.parse().unwrap());
            let (response, mut body) = client.begin(request, method == "GET").await;
            if method == "POST" {
                http2::send_all(&mut body, b"x", true).await;
            }
            streams.push((method, path, response));
        }
        clients.push(client);
    }
    eventually("all are there", async || {
        let here = proxy.member(0).await.active_sessions;
        (going.started() >= started + 16 && here >= 16).then_some(())
    })
    .await;

    let since = go(&mut proxy, |document| drop(document.listeners.remove(1))).await;
    closed_in_time(&proxy, since).await;
    for waiting in of_one {
        waiting.end().await;
    }
    for (method, path, response) in streams {
        let answer = http2::answer(response).await;
        match (method, path) {
            ("GET", "/late") => assert_eq!(answer.text(), "staying"),
            ("POST", _) => assert_eq!(answer.status, Some(503)),
            (_, path) => {
                assert!(answer.status == Some(200) && answer.reset.is_some(), "{path}: {:?}", answer.reset)
            }
        }
    }
    let served = going.served();
    load.more(20).await;
    assert_eq!(going.served(), served);
    assert!(load.stop().await.into_keys().all(|name| ["going", "staying"].contains(&&name[..])));
}

/// Does what the first byte says, and nothing else: sends without an end, or is silent, and reads nothing.
async fn as_told(mut stream: TcpStream) {
    let mut told = [0];
    let Ok(1) = stream.read(&mut told).await else { return };
    if told == *b"f" {
        while stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
    }
    std::future::pending().await
}

#[tokio::test]
async fn sessions_of_tcp_end_while_nothing_moves_on_them() {
    let going = Backend::tcp("going", as_told).await;
    let staying = Backend::tcp("staying", echo).await;
    let pool = Pool::tcp().members([&going]);
    let gone = Listener::tcp().to(&pool);
    let mut proxy = Proxy::start(Document::of(Listener::tcp(), pool).listener(gone)).await;
    let addresses = [proxy.document.address_of(0), proxy.document.address_of(1)];
    let mut sessions = Vec::new();
    for address in addresses {
        for told in ["silent", "flood"] {
            let mut client = Client::connect(address).await;
            client.send(&told[..1]).await;
            sessions.push(client);
        }
        // It is not read either, and what the client sends stays where it is.
        let mut deaf = Client::connect(address).await;
        deaf.send("s").await;
        let chunk = [b'x'; 1 << 16];
        while let Ok(sent) =
            tokio::time::timeout(Duration::from_millis(500), deaf.stream.write_all(&chunk)).await
        {
            sent.unwrap();
        }
        sessions.push(deaf);
    }
    let begun = sessions.len() as u64;
    proxy.until_member(0, "all are there", |member| member.active_sessions == begun).await;
    let since = go(&mut proxy, |document| {
        document.listeners.remove(1);
        document.pools[0].members.push(Member::of(&staying));
    })
    .await;
    let mut new = proxy.client().await;
    new.send("I stay").await;
    new.expect("I stay").await;
    closed_in_time(&proxy, since).await;
    for mut client in sessions {
        let mut read = vec![0; 1 << 16];
        let cut = async { while matches!(client.stream.read(&mut read).await, Ok(1..)) {} };
        in_time("the end of the session", cut).await;
    }
    new.send("and stay").await;
    new.expect("and stay").await;
}

#[tokio::test]
async fn the_time_of_a_member_goes_on_while_the_process_ends() {
    let going = Backend::http("going", going).await;
    let staying = Backend::named("staying").await;
    let pool = pool([&going, &staying]);
    let document = Document::of(Listener::http(), pool);
    let mut proxy = Proxy::start_with(document, &["--drain-timeout", "120"]).await;
    let srv = format!("SRV={}", proxy.document.pools[0].members[0].id);
    let waiting = Waiting::begin(proxy.address(), &format!("Cookie: {srv}\r\n")).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let mut late = request("GET", "/late");
    late.headers_mut().insert("cookie", srv.parse().unwrap());
    let (late, _) = client.begin(late, true).await;
    proxy.until_member(0, "all are there", |member| member.active_sessions == 5).await;
    let since = go(&mut proxy, |_| {}).await;
    proxy.signal(Signal::SIGTERM);
    waiting.end().await;
    assert_eq!(http2::answer(late).await.text(), "staying");
    drop(client);
    proxy.ended().await;
    assert!(since.elapsed() < BOUND, "{:?}", since.elapsed());
}

/// An address that does not answer: somebody listens, but the queue is full and stays so.
fn unanswering() -> (SocketAddr, Vec<Socket>) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&SocketAddr::new(loopback(), 0).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = vec![listener];
    held.extend((0..4).map(|_| {
        let socket = socket();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address);
        socket
    }));
    (address.as_socket().unwrap(), held)
}

#[tokio::test]
async fn who_waits_for_a_connection_to_a_member_waits_no_longer_than_its_time() {
    let (address, _held) = unanswering();
    let staying = Backend::named("staying").await;
    let members = |pool: Pool| pool.member(Member::at(address)).members([&staying]);
    let patient = |listener: Listener| listener.with("timeout_member_connect", 60_000);
    let persistent: Value = json!({ "type": "HTTP_COOKIE" });
    let web = members(Pool::http().with("session_persistence", persistent));
    let tcp = Pool::tcp().member(Member::at(address));
    let bytes = patient(Listener::tcp()).to(&tcp);
    let document = Document::of(patient(Listener::http()), web).pool(&tcp).listener(bytes);
    let mut proxy = Proxy::start(document).await;
    let srv = format!("SRV={}", proxy.document.pools[0].members[0].id);
    let mut asking = proxy.client().await;
    asking.send(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {srv}\r\n\r\n")).await;
    let mut streams = Http2Client::connect(proxy.address()).await;
    let mut stream = request("GET", "/");
    stream.headers_mut().insert("cookie", srv.parse().unwrap());
    let (streamed, _) = streams.begin(stream, true).await;
    let mut session = Client::connect(proxy.document.address_of(1)).await;
    proxy.until_member(0, "both are there", |member| member.active_sessions == 2).await;
    let of_tcp = proxy.document.pools[1].members[0].id;
    eventually("the session is there", async || {
        (proxy.member_of(of_tcp).await.active_sessions == 1).then_some(())
    })
    .await;
    let since = go(&mut proxy, |document| {
        let pool = &mut document.pools[1];
        *pool = pool.clone().with("amphora", json!({ "drain_timeout": 1 }));
        pool.members[0] = pool.members[0].clone().weight(0);
    })
    .await;
    closed_in_time(&proxy, since).await;
    assert_eq!(asking.response().await.text(), "staying");
    assert_eq!(http2::answer(streamed).await.text(), "staying");
    assert_eq!(session.end().await, End::Closed(Vec::new()));
    assert!(since.elapsed() < BOUND, "{:?}", since.elapsed());
}

#[tokio::test]
async fn who_is_gone_and_gets_what_began_before_has_no_more_than_its_time() {
    let failing = Backend::http("failing", |_| vec![Step::Wait, Step::Close]).await;
    let gone = Backend::http("gone", going).await;
    let pool = pool([&failing, &gone]).with("amphora", json!({ "drain_timeout": 5 }));
    let mut proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    let srv = format!("SRV={}", proxy.document.pools[0].members[0].id);
    let mut client = proxy.client().await;
    client.send(format!("GET /long HTTP/1.1\r\nHost: a\r\nCookie: {srv}\r\n\r\n")).await;
    eventually("it is there", async || (failing.started() == 1).then_some(())).await;
    // It has nothing when it goes.
    proxy.change(|document| drop(document.pools[0].members.pop())).await;
    let since = Instant::now();
    failing.proceed();
    assert_eq!(client.response_head().await.status(), 200, "asked again of one that its pool had then");
    assert_eq!(client.end().await, End::Closed(b"first".to_vec()), "cut");
    assert!((Duration::from_secs(4)..BOUND).contains(&since.elapsed()), "{:?}", since.elapsed());
}
