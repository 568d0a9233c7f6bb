//! Rate limits, beside HAProxy with a stick table where that has the same.

mod changes;
mod refused;
mod under_way;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use amphora_tests::{
    Backend, Client, Document, End, HaProxy, HaProxyConfig, Listener, Namespace, Pool, Proxy, Step, echo,
    http2::{self, Http2Client},
    in_time,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixDatagram,
};
use uuid::Uuid;

/// A day: no period ends while a test runs.
const DAY: u64 = 86_400;

fn rule(metric: &str, threshold: u32, interval: u64) -> Value {
    json!({ "id": Uuid::new_v4().to_string(), "metric": metric, "threshold": threshold, "interval": interval })
}

fn policy(action: &str, rules: Vec<Value>) -> Value {
    json!({ "id": Uuid::new_v4().to_string(), "action": action, "rules": rules })
}

fn limited(listener: Listener, policies: Vec<Value>) -> Listener {
    listener.with("rate_limit_policies", policies)
}

/// A listener of HTTP with these policies.
fn http(member: &Backend, policies: Vec<Value>) -> Document {
    Document::of(limited(Listener::http(), policies), Pool::http().members([member]))
}

/// HAProxy with the same in a stick table, and what it does with who has too much.
async fn haproxy(member: &Backend, rules: &str) -> Option<HaProxy> {
    let mut config = HaProxyConfig::http([member.address]);
    config.bind =
        format!("\n stick-table type ip size 1m expire 1d store http_req_rate(1d),conn_rate(1d)\n{rules}");
    HaProxy::start(&config).await
}

/// An address of the loopback network, by number.
fn source(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x7f40_0000 + number).into()
}

/// The statuses of so many requests on one connection.
async fn statuses(address: SocketAddr, from: IpAddr, requests: usize) -> Vec<u16> {
    let mut client = Client::connect_from(from, address).await;
    let mut statuses = Vec::new();
    for _ in 0..requests {
        statuses.push(client.get("/").await.status());
    }
    statuses
}

#[tokio::test]
async fn who_asks_too_much_is_denied_as_by_haproxy_and_nobody_else() {
    let member = Backend::named("member").await;
    let proxy = Proxy::start(http(&member, vec![policy("DENY", vec![rule("REQUESTS", 5, DAY)])])).await;
    let told = statuses(proxy.address(), source(1), 8).await;
    assert_eq!(told, [200, 200, 200, 200, 200, 429, 429, 429]);
    // The same client on other connections, which may be at another worker; in HTTP/2 each stream counts.
    assert_eq!(statuses(proxy.address(), source(1), 1).await, [429]);
    for _ in 0..3 {
        assert_eq!(statuses(proxy.address(), source(2), 2).await.len(), 2);
    }
    assert_eq!(statuses(proxy.address(), source(2), 1).await, [429]);
    let mut client = Http2Client::connect(proxy.address()).await;
    for n in 1..8 {
        let answer = client.get("/").await;
        assert_eq!(answer.status, Some(if n <= 5 { 200 } else { 429 }));
        assert_eq!(answer.field("retry-after").is_some(), n > 5);
    }
    let stats = proxy.listener().await;
    assert_eq!(stats.requests_denied, 3 + 1 + 2 + 2);

    let deny =
        " http-request track-sc0 src\n http-request deny deny_status 429 if { sc_http_req_rate(0) gt 5 }\n";
    let Some(haproxy) = haproxy(&member, deny).await else { return };
    assert_eq!(statuses(haproxy.address, source(1), 8).await, told);
    let (mut ours, mut theirs) = (
        Client::connect_from(source(1), proxy.address()).await,
        Client::connect_from(source(1), haproxy.address).await,
    );
    let (mut ours, theirs) = (ours.get("/").await, theirs.get("/").await);
    // `Retry-After` is ours, and the rest is HAProxy's.
    let mut when = 0;
    ours.head = ours
        .head
        .split_inclusive("\r\n")
        .filter(|line| match line.strip_prefix("retry-after: ") {
            Some(seconds) => {
                when = seconds.trim().parse().unwrap();
                false
            }
            None => true,
        })
        .collect();
    assert!((1..=2 * DAY).contains(&when), "{when}");
    assert_eq!((ours.head, ours.body), (theirs.head, theirs.body));
    assert_eq!(haproxy.stat("FRONTEND", "dreq").await, 4);
}

#[tokio::test]
async fn who_is_rejected_has_no_answer_as_with_haproxy() {
    let member = Backend::named("member").await;
    let proxy = Proxy::start(http(&member, vec![policy("REJECT", vec![rule("REQUESTS", 1, DAY)])])).await;
    let reject = " http-request track-sc0 src\n http-request reject if { sc_http_req_rate(0) gt 1 }\n";
    let haproxy = haproxy(&member, reject).await;
    for address in
        [Some(proxy.address()), haproxy.as_ref().map(|haproxy| haproxy.address)].into_iter().flatten()
    {
        let mut client = Client::connect_from(source(1), address).await;
        assert_eq!(client.get("/").await.status(), 200);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let end = client.end().await;
        println!("{address}: {end:?}");
        assert!(
            matches!(&end, End::Reset) || matches!(&end, End::Closed(rest) if rest.is_empty()),
            "{end:?}"
        );
    }
    // All of the connection goes, whatever else is on it.
    let mut client = Http2Client::connect(proxy.address()).await;
    assert_eq!(client.get("/").await.status, Some(200));
    assert_eq!(client.get("/").await.status, None);
    in_time("the end of the connection", client.end()).await.unwrap_err();
    proxy
        .until("both are counted", |stats| {
            stats.listeners.values().map(|listener| listener.requests_denied).sum::<u64>() == 2
        })
        .await;
}

/// All rules of a policy, any policy of a listener.
#[tokio::test]
async fn rules_are_broken_together_and_policies_one_by_one() {
    let member = Backend::named("member").await;
    let mut admin = rule("REQUESTS_PER_URL", 1, DAY);
    admin["urls"] = json!(["/admin"]);
    let proxy = Proxy::start(http(
        &member,
        vec![
            policy("DENY", vec![admin, rule("REQUESTS", 3, DAY)]),
            policy("DENY", vec![rule("REQUESTS", 6, DAY)]),
        ],
    ))
    .await;
    let mut client = proxy.client().await;
    let mut told = Vec::new();
    for path in ["/admin", "/admin?a", "/", "/other", "/admin", "/", "/"] {
        told.push(client.get(path).await.status());
    }
    // The second /admin is one too many, but not the fourth request; the fifth is both; the seventh is too many in any case.
    assert_eq!(told, [200, 200, 200, 200, 429, 200, 429]);
}

#[tokio::test]
async fn what_is_too_fast_is_held_back_and_nobody_is_refused() {
    let member = Backend::named("member").await;
    let mut queue = policy("QUEUE", vec![rule("REQUESTS", 20, 1)]);
    queue["amphora"] = json!({ "queue_timeout": 60, "queue_size": 20 });
    let mut proxy = Proxy::start(http(&member, vec![queue])).await;
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(tokio::spawn(statuses(proxy.address(), source(1), 10)));
    }
    for client in clients {
        assert_eq!(client.await.unwrap(), [200; 10]);
    }
    // 20 at once, 60 at 20 a second.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(2900), "{took:?}");
    // Others are not held back by it, and who goes gives its place back.
    assert_eq!(statuses(proxy.address(), source(2), 20).await, [200; 20]);
    let mut waiting = Vec::new();
    for _ in 0..40 {
        let mut client = Client::connect_from(source(1), proxy.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        waiting.push(client);
    }
    let waits = |count: u32| {
        let proxy = &proxy;
        async move {
            proxy
                .until("so many wait", |stats| {
                    stats.rate_limits.values().all(|policy| policy.waiting == count)
                })
                .await
        }
    };
    // One client has no more than half of the places.
    waits(10).await;
    drop(waiting);
    waits(0).await;
    assert!(proxy.runs());
}

#[tokio::test]
async fn proxies_that_are_trusted_say_whose_requests_they_bring() {
    let member = Backend::named("member").await;
    let listener = limited(Listener::http(), vec![policy("DENY", vec![rule("REQUESTS", 2, DAY)])])
        .with("amphora", json!({ "trusted_proxies": ["127.64.0.0/24"] }));
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let mut trusted = Client::connect_from(source(1), proxy.address()).await;
    let mut other = Client::connect_from(source(1000), proxy.address()).await;
    let ask = async |client: &mut Client, who: &str| -> u16 {
        client.get_with("/", &format!("X-Forwarded-For: {who}\r\n")).await.status()
    };
    for n in 0..100 {
        assert_eq!(ask(&mut trusted, &format!("192.0.2.{n}, 127.64.0.9")).await, 200);
    }
    for expected in [200, 200, 429] {
        assert_eq!(ask(&mut trusted, "2001:db8::1").await, expected);
    }
    assert_eq!(ask(&mut trusted, "2001:db8::ffff:1").await, 429, "of the same network");
    // Who is not trusted says what he likes.
    for (n, expected) in [200, 200, 429, 429].into_iter().enumerate() {
        assert_eq!(ask(&mut other, &format!("192.0.2.{}", 200 + n)).await, expected);
    }
}

/// What is counted and who waits outlive a change of the document.
#[tokio::test]
async fn a_change_forgets_nothing() {
    let member = Backend::named("member").await;
    let deny = policy("DENY", vec![rule("REQUESTS", 3, DAY)]);
    let mut proxy = Proxy::start(http(&member, vec![deny.clone()])).await;
    assert_eq!(statuses(proxy.address(), source(1), 4).await, [200, 200, 200, 429]);
    proxy
        .change(|document| {
            let listener = document.listeners.remove(0);
            document.listeners.push(listener.with("name", "renamed"));
        })
        .await;
    assert_eq!(statuses(proxy.address(), source(1), 1).await, [429]);
    let mut more = deny.clone();
    more["rules"][0]["threshold"] = 7.into();
    proxy
        .change(|document| {
            let listener = document.listeners.remove(0);
            document.listeners.push(limited(listener, vec![more]));
        })
        .await;
    assert_eq!(statuses(proxy.address(), source(1), 3).await, [200, 200, 429]);
    let stats = proxy.stats().await;
    assert_eq!(stats.rate_limits.values().map(|policy| policy.limited).collect::<Vec<_>>(), [3]);
}

/// 100,000 clients attack by what a trusted proxy says of them, while 100 ask as often as they may.
#[tokio::test]
async fn a_hundred_thousand_attackers_take_nothing_from_a_hundred_others() {
    const THRESHOLD: u32 = 5;
    let member = Backend::named("member").await;
    let listener = limited(Listener::http(), vec![policy("DENY", vec![rule("REQUESTS", THRESHOLD, DAY)])])
        .with("amphora", json!({ "trusted_proxies": ["127.0.0.0/8"] }));
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let address = proxy.address();
    let attack = |from: u32, to: u32| {
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            let mut denied = 0_u32;
            for first in (from..to).step_by(50) {
                let ask = |who: u32| {
                    let who = Ipv4Addr::from_bits(0x0a00_0000 + who);
                    format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {who}\r\n\r\n")
                };
                client.send((first..(first + 50).min(to)).map(ask).collect::<String>()).await;
                for _ in first..(first + 50).min(to) {
                    denied += u32::from(client.response().await.status() == 429);
                }
            }
            denied
        })
    };
    let mut attackers = Vec::new();
    for part in 0..20 {
        attackers.push(attack(part * 5000, (part + 1) * 5000));
    }
    // Two of them are not content with one.
    let insistent = tokio::spawn(async move {
        let mut client = Client::connect(address).await;
        let mut statuses = Vec::new();
        for _ in 0..200 {
            statuses.push(client.get_with("/", "X-Forwarded-For: 198.51.100.7\r\n").await.status());
        }
        statuses
    });
    let mut innocents = Vec::new();
    for round in 0..THRESHOLD {
        for number in 0..100 {
            let mut client = Client::connect(address).await;
            let answer = client.get_with("/", &format!("X-Forwarded-For: 192.0.2.{number}\r\n")).await;
            assert_eq!(answer.status(), 200, "the innocent client {number} in round {round}");
            innocents.push(client);
        }
    }
    for attacker in attackers {
        assert_eq!(attacker.await.unwrap(), 0, "nobody is denied for what others do");
    }
    let insistent = insistent.await.unwrap();
    let served = insistent.iter().filter(|status| **status == 200).count();
    assert!(served <= 2 * THRESHOLD as usize, "{served} of 200 were served");
    let stats = proxy.stats().await;
    let limiter = stats.rate_limiter.expect("there are limits");
    println!("{limiter:?}; the insistent one was served {served} times");
    assert!(limiter.used > 90_000);
    assert!(proxy.resident_kib() < 200 << 10);
}

/// How many of so many connections are let in: those that get an echo.
async fn let_in(address: SocketAddr, from: IpAddr, connections: usize) -> Vec<bool> {
    let mut let_in = Vec::new();
    for _ in 0..connections {
        let echoed = async {
            let mut client = Client::try_connect_from(from, address).await.ok()?;
            client.stream.write_all(b"hello").await.ok()?;
            let mut text = [0; 5];
            client.stream.read_exact(&mut text).await.ok()?;
            (&text == b"hello").then_some(())
        };
        let_in.push(in_time("an echo, or the end", echoed).await.is_some());
    }
    let_in
}

#[tokio::test]
async fn connections_that_are_too_many_are_rejected_as_by_haproxy() {
    let member = Backend::tcp("echo", echo).await;
    let policies = vec![policy("REJECT", vec![rule("CONNECTIONS", 3, DAY)])];
    let listener = limited(Listener::tcp(), policies);
    let proxy = Proxy::start(Document::of(listener, Pool::tcp().members([&member]))).await;
    let told = let_in(proxy.address(), source(1), 6).await;
    assert_eq!(told, [true, true, true, false, false, false]);
    assert_eq!(let_in(proxy.address(), source(2), 3).await, [true; 3]);
    let stats = proxy.listener().await;
    assert_eq!((stats.total_connections, stats.denied_connections), (6, 3));
    let reject = "\n stick-table type ip size 1m expire 1d store conn_rate(1d)\n tcp-request connection track-sc0 src\n \
        tcp-request connection reject if { sc_conn_rate(0) gt 3 }\n";
    let config = HaProxyConfig { mode: "tcp", bind: reject.into(), ..HaProxyConfig::http([member.address]) };
    let Some(haproxy) = HaProxy::start(&config).await else { return };
    assert_eq!(let_in(haproxy.address, source(1), 6).await, told);
    assert_eq!(haproxy.stat("FRONTEND", "dcon").await, 3);
}

/// Of HTTP they are refused before a request is read, or answered when that is what the policy does.
#[tokio::test]
async fn connections_of_http_count_for_what_is_asked_on_them() {
    let member = Backend::named("member").await;
    let proxy = Proxy::start(http(
        &member,
        vec![
            policy("DENY", vec![rule("CONNECTIONS", 2, DAY)]),
            policy("REJECT", vec![rule("CONNECTIONS", 4, DAY)]),
        ],
    ))
    .await;
    let mut first = Client::connect_from(source(1), proxy.address()).await;
    assert_eq!(first.get("/").await.status(), 200);
    assert_eq!(statuses(proxy.address(), source(1), 1).await, [200]);
    assert_eq!(statuses(proxy.address(), source(1), 1).await, [429]);
    assert_eq!(first.get("/").await.status(), 429, "it is the same client");
    assert_eq!(statuses(proxy.address(), source(1), 1).await, [429]);
    // The reset may be there before the client looks whether it is connected.
    match Client::try_connect_from(source(1), proxy.address()).await {
        Ok(mut last) => assert_eq!(last.end().await, End::Reset),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

#[tokio::test]
async fn connections_wait_for_their_turn() {
    let member = Backend::tcp("echo", echo).await;
    let mut queue = policy("QUEUE", vec![rule("CONNECTIONS", 5, 1)]);
    queue["amphora"] = json!({ "queue_timeout": 60 });
    let listener = limited(Listener::tcp(), vec![queue]);
    let proxy = Proxy::start(Document::of(listener, Pool::tcp().members([&member]))).await;
    let begun = Instant::now();
    let clients: Vec<_> = (0..15).map(|_| tokio::spawn(let_in(proxy.address(), source(1), 1))).collect();
    for client in clients {
        assert_eq!(client.await.unwrap(), [true]);
    }
    // Five at once, ten at five a second.
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    let stats = proxy.stats().await;
    let policy = stats.rate_limits.values().next().unwrap();
    assert_eq!((policy.limited, policy.waiting), (0, 0));
    assert!(policy.queued >= 10);
}

/// Nothing of a connection leaves any more, so that its client waits for ever: until it says something.
#[tokio::test]
async fn who_is_dropped_silently_hears_nothing() {
    let (Some(amphora), Some(outside)) = (Namespace::create(), Namespace::create()) else { return };
    amphora.link("front", &outside, "amphora");
    amphora.ip(&["address", "add", "203.0.113.50/24", "dev", "front"]);
    for address in ["203.0.113.7/24", "203.0.113.8/24"] {
        outside.ip(&["address", "add", address, "dev", "amphora"]);
    }
    let pool = Pool::http();
    let policies = vec![policy("SILENT_DROP", vec![rule("REQUESTS", 1, DAY)])];
    let listener = limited(Listener::http(), policies).port(80).to(&pool);
    let document = Document::at("203.0.113.50".parse().unwrap()).listener(listener).pool(&pool);
    let proxy = Proxy::start_with(document, &["--netns", amphora.name()]).await;
    let address = proxy.address();
    let (dropped, is_dropped) = tokio::sync::oneshot::channel();
    let client = outside.spawn(move || async move {
        let mut client = Client::connect_from("203.0.113.7".parse().unwrap(), address).await;
        assert_eq!(client.get("/").await.status(), 503);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        is_dropped.await.unwrap();
        // Whatever was sent before this has come.
        assert_eq!(statuses(address, "203.0.113.8".parse().unwrap(), 1).await, [503]);
        let heard = client.stream.try_read(&mut [0]);
        assert_eq!(heard.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        client.send("x").await;
        client.end().await
    });
    proxy
        .until("the connection is gone", |stats| {
            let open: u64 = stats.listeners.values().map(|listener| listener.active_connections).sum();
            open == 0 && stats.rate_limits.values().all(|policy| policy.limited == 1)
        })
        .await;
    dropped.send(()).unwrap();
    assert_eq!(in_time("the client", client).await.unwrap(), End::Reset);
}

/// Bytes in both directions, judged as they flow.
#[tokio::test]
async fn a_connection_ends_when_more_has_passed_than_may() {
    let member = Backend::tcp("echo", echo).await;
    let listener = limited(Listener::tcp(), vec![policy("REJECT", vec![rule("KBYTES", 100, DAY)])]);
    let proxy = Proxy::start(Document::of(listener, Pool::tcp().members([&member]))).await;
    let mut client = Client::connect_from(source(1), proxy.address()).await;
    let piece = [b'x'; 10 * 1024];
    for _ in 0..4 {
        client.send(piece).await;
        client.expect(piece).await;
    }
    // 80 KiB have passed; what comes next is too much.
    let sent = client.stream.write_all(&[b'x'; 64 * 1024]).await;
    println!("{sent:?}");
    assert_eq!(client.end().await, End::Reset);
    assert_eq!(let_in(proxy.address(), source(1), 1).await, [false]);
    assert_eq!(let_in(proxy.address(), source(2), 1).await, [true]);
    proxy
        .until("both are counted", |stats| stats.rate_limits.values().all(|policy| policy.limited == 2))
        .await;
}

/// What a request and its response have had is known to the next.
#[tokio::test]
async fn who_has_had_too_many_bytes_is_denied() {
    let body = "x".repeat(40 * 1024);
    let member =
        Backend::http("member", move |_| vec![Step::ReadBody, Step::response("200 OK", "", &body)]).await;
    let proxy = Proxy::start(http(&member, vec![policy("DENY", vec![rule("KBYTES", 100, DAY)])])).await;
    assert_eq!(statuses(proxy.address(), source(1), 5).await, [200, 200, 200, 429, 429]);
    let mut client = Client::connect_from(source(2), proxy.address()).await;
    assert_eq!(client.post("/", &[b'x'; 61 * 1024]).await.status(), 200);
    assert_eq!(client.get("/").await.status(), 429);
    let mut client = Http2Client::connect(proxy.address()).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(client.get("/").await.status);
    }
    assert_eq!(told, [Some(200), Some(200), Some(200), Some(429)]);
}

/// The lines of both, by what need not differ.
async fn lines(socket: &UnixDatagram, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let mut line = [0; 4096];
        let n = in_time("a line", socket.recv(&mut line)).await.unwrap();
        let line = String::from_utf8_lossy(&line[..n]).into_owned();
        lines.push(line.trim().rsplit("]: ").next().unwrap_or_default().to_owned());
    }
    lines
}

/// Of what is denied, of what has no answer, and of who has gone while it waited.
#[tokio::test]
async fn flow_logs_say_it_as_haproxys() {
    const FORMAT: &str = "ST=%ST tsc=%tsc B=%B U=%U r=%{+Q}r";
    let member = Backend::named("member").await;
    let directory = tempfile::tempdir().unwrap();
    for (action, haproxys) in
        [("DENY", "deny deny_status 429"), ("REJECT", "reject"), ("SILENT_DROP", "silent-drop")]
    {
        let [ours, theirs] =
            ["ours", "theirs"].map(|whose| directory.path().join(format!("{whose}-{action}")));
        let sockets = [&ours, &theirs].map(|path| UnixDatagram::bind(path).unwrap());
        let listener = limited(Listener::http(), vec![policy(action, vec![rule("REQUESTS", 1, DAY)])])
            .with("amphora", json!({ "user_log_format": FORMAT }));
        let document = Document::of(listener, Pool::http().members([&member]));
        let path = ours.display().to_string();
        let proxy = Proxy::start_with(document, &["--log-socket", &path]).await;
        let log =
            format!(" log {} local0\n log-format \"{}\"\n", theirs.display(), FORMAT.replace('"', "\\\""));
        let rules = format!(
            "{log} http-request track-sc0 src\n http-request {haproxys} if {{ sc_http_req_rate(0) gt 1 }}\n"
        );
        let haproxy = haproxy(&member, &rules).await;
        let mut told = Vec::new();
        let addresses = [Some(proxy.address()), haproxy.as_ref().map(|haproxy| haproxy.address)];
        for (address, socket) in addresses.into_iter().zip(&sockets) {
            let Some(address) = address else { continue };
            let mut client = Client::connect_from(source(1), address).await;
            assert_eq!(client.get("/").await.status(), 200);
            client.send("GET /more HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let lines = lines(socket, 2).await;
            told.push(lines[1].clone());
        }
        println!("{action}: {told:?}");
        // `Retry-After` is ours.
        let masked = |line: &String| match action {
            "DENY" => line.split(' ').filter(|field| !field.starts_with("B=")).collect::<Vec<_>>().join(" "),
            _ => line.clone(),
        };
        assert!(told.windows(2).all(|pair| masked(&pair[0]) == masked(&pair[1])), "{action}: {told:?}");
    }
    let path = directory.path().join("queue");
    let socket = UnixDatagram::bind(&path).unwrap();
    let listener = limited(Listener::http(), vec![policy("QUEUE", vec![rule("REQUESTS", 1, 9)])])
        .with("amphora", json!({ "user_log_format": FORMAT }));
    let path = path.display().to_string();
    let document = Document::of(listener, Pool::http().members([&member]));
    let proxy = Proxy::start_with(document, &["--log-socket", &path]).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.status(), 200);
    client.send("GET /more HTTP/1.1\r\nHost: a\r\n\r\n").await;
    proxy.until("it waits", |stats| stats.rate_limits.values().all(|policy| policy.waiting == 1)).await;
    drop(client);
    let lines = lines(&socket, 2).await;
    assert!(lines[1].starts_with("ST=-1 tsc=CQ-- "), "{lines:?}");
}

/// Each stream waits for its own turn, and one that is reset gives its place back.
#[tokio::test]
async fn streams_wait_for_their_turns() {
    let member = Backend::named("member").await;
    let mut queue = policy("QUEUE", vec![rule("REQUESTS", 5, 1)]);
    queue["amphora"] = json!({ "queue_timeout": 60 });
    let proxy = Proxy::start(http(&member, vec![queue])).await;
    let begun = Instant::now();
    let mut client = Http2Client::connect(proxy.address()).await;
    let mut streams = Vec::new();
    for _ in 0..15 {
        streams.push(client.begin(http2::request("GET", "/"), true).await);
    }
    for (response, _) in streams {
        assert_eq!(in_time("an answer", response).await.unwrap().status(), 200);
    }
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    let begun: Vec<_> = {
        let mut begun = Vec::new();
        for _ in 0..20 {
            begun.push(client.begin(http2::request("GET", "/"), true).await);
        }
        begun
    };
    proxy.until("some wait", |stats| stats.rate_limits.values().all(|policy| policy.waiting > 0)).await;
    drop(begun);
    proxy.until("nobody waits", |stats| stats.rate_limits.values().all(|policy| policy.waiting == 0)).await;
}
