//! TCP listeners.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use amphora_tests::{
    Backend, Client, Document, End, Listener, Member, Pattern, Pool, Proxy, echo, eventually, in_time,
    loopback,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn either_side_may_finish_first_and_still_be_answered() {
    // The member answers after the client has finished.
    let after = Backend::tcp("after", |mut stream| async move {
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        stream.write_all(format!("got {all}").as_bytes()).await.unwrap();
    })
    .await;
    let proxy = Proxy::start(Document::tcp([&after])).await;
    let mut client = proxy.client().await;
    client.send("hello").await;
    client.finish().await;
    assert_eq!(client.end().await, End::Closed(b"got hello".to_vec()));

    // The member finishes first and still listens.
    let (heard, hears) = std::sync::mpsc::channel();
    let before = Backend::tcp("before", move |mut stream| {
        let heard = heard.clone();
        async move {
            stream.write_all(b"bye").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).await.unwrap();
            heard.send(all).unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Document::tcp([&before])).await;
    let mut client = proxy.client().await;
    assert_eq!(client.end().await, End::Closed(b"bye".to_vec()));
    client.send("still here").await;
    client.finish().await;
    let heard = eventually("the member hears", async || hears.try_recv().ok()).await;
    assert_eq!(heard, "still here");
    proxy.until_member(0, "the session ends", |member| member.active_sessions == 0).await;
    let member = proxy.member(0).await;
    assert_eq!((member.client_aborts, member.server_aborts), (0, 0));
}

#[tokio::test]
async fn large_transfers_arrive_as_they_were_sent_both_ways_at_once() {
    const LENGTH: u64 = 48 * MIB;
    let member = Backend::tcp("echo", echo).await;
    let proxy = Proxy::start(Document::tcp([&member])).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(proxy.client().await);
    }
    let one = |mut client: Client| async move {
        let (mut read, mut write) = client.stream.split();
        let sending = async {
            Pattern::default().send(LENGTH, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut received = Pattern::default();
        let ((), end) = tokio::join!(sending, received.receive(&mut read));
        end.unwrap();
        assert_eq!(received.offset(), LENGTH);
    };
    let (first, second) = (clients.remove(0), clients.remove(0));
    tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(one(first), one(second)) })
        .await
        .unwrap();
    let listener = proxy.listener().await;
    assert_eq!((listener.bytes_in, listener.bytes_out), (2 * LENGTH, 2 * LENGTH));
}

#[tokio::test]
async fn inactive_sessions_end() {
    let member = Backend::tcp("echo", echo).await;
    let listener = Listener::tcp().with("timeout_client_data", 400).with("timeout_member_data", 400);
    let proxy = Proxy::start(Document::of(listener, Pool::tcp().members([&member]))).await;
    let mut client = proxy.client().await;
    // Activity keeps it alive for longer than the timeout.
    for _ in 0..6 {
        client.send("x").await;
        client.expect("x").await;
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    let begun = std::time::Instant::now();
    assert_eq!(client.end().await, End::Closed(Vec::new()));
    assert!(begun.elapsed() < Duration::from_secs(5));
    proxy.until_member(0, "the session ends", |member| member.active_sessions == 0).await;
}

#[tokio::test]
async fn resets_pass_through_and_are_counted_once() {
    let resets = Backend::tcp("resets", |mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await;
    let proxy = Proxy::start(Document::tcp([&resets])).await;
    let mut client = proxy.client().await;
    client.send("x").await;
    client.end().await;
    proxy.until_member(0, "the session ends", |member| member.active_sessions == 0).await;
    let member = proxy.member(0).await;
    assert_eq!((member.client_aborts, member.server_aborts), (0, 1), "{member:?}");

    let member = Backend::tcp("echo", echo).await;
    let proxy = Proxy::start(Document::tcp([&member])).await;
    let mut client = proxy.client().await;
    client.send("x").await;
    client.expect("x").await;
    client.reset();
    proxy.until_member(0, "the session ends", |member| member.active_sessions == 0).await;
    let stats = proxy.member(0).await;
    assert_eq!((stats.client_aborts, stats.server_aborts), (1, 0), "{stats:?}");
    eventually("the member's connection is closed", async || (member.open() == 0).then_some(())).await;
}

#[tokio::test]
async fn members_of_a_proxy_pool_learn_the_clients_address() {
    let source: IpAddr = "127.0.0.7".parse().unwrap();
    for (protocol, listener) in [
        ("PROXY", Listener::tcp()),
        ("PROXYV2", Listener::tcp()),
        ("PROXY", Listener::http()),
        ("PROXYV2", Listener::http()),
    ] {
        let (told, tells) = std::sync::mpsc::channel();
        let member = Backend::tcp("a", move |mut stream| {
            let told = told.clone();
            async move {
                let mut bytes = Vec::new();
                while !bytes.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                        return;
                    }
                }
                told.send(bytes).unwrap();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").await;
            }
        })
        .await;
        let proxy = Proxy::start(Document::of(listener, Pool::new(protocol).members([&member]))).await;
        let vip = proxy.address();
        let mut client = Client::connect_from(source, vip).await;
        let own = client.stream.local_addr().unwrap();
        assert_eq!(client.get("/").await.text(), "a");
        let bytes = tells.try_recv().unwrap();
        let header = if protocol == "PROXY" {
            format!("PROXY TCP4 {} {} {} {}\r\n", own.ip(), vip.ip(), own.port(), vip.port()).into_bytes()
        } else {
            let (IpAddr::V4(from), IpAddr::V4(to)) = (own.ip(), vip.ip()) else { panic!("{own} {vip}") };
            let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
            header.extend([from.octets(), to.octets()].concat());
            header.extend([own.port().to_be_bytes(), vip.port().to_be_bytes()].concat());
            header
        };
        assert!(bytes.starts_with(&header), "{protocol}: {bytes:?}");
        assert!(bytes[header.len()..].starts_with(b"GET / HTTP/1.1\r\n"), "{protocol}");
    }
}

#[tokio::test]
async fn accepting_stops_at_the_connection_limit_and_resumes() {
    let member = Backend::tcp("echo", echo).await;
    let listener = Listener::tcp().with("connection_limit", 5);
    let mut proxy = Proxy::start(Document::of(listener, Pool::tcp().members([&member]))).await;
    // Connections wait in the kernel's queues, so all are there; five are served.
    let mut clients = Vec::new();
    for _ in 0..16 {
        let mut client = proxy.client().await;
        client.send("x").await;
        clients.push(client);
    }
    proxy.until_listener("five are served", |listener| listener.active_connections == 5).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(proxy.listener().await.active_connections, 5);
    assert_eq!(member.connections(), 5);
    // One by one the others get their turn.
    for left in (0..16).rev() {
        let echoed = eventually("one of them is answered", async || {
            clients.iter().position(|client| {
                let mut byte = [0];
                client.stream.try_read(&mut byte).is_ok_and(|n| n == 1)
            })
        })
        .await;
        clients.remove(echoed);
        assert_eq!(clients.len(), left);
    }
    assert_eq!(proxy.listener().await.max_connections, 5);
    // Lifting the limit lets waiting clients in.
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = proxy.client().await;
        client.send("x").await;
        clients.push(client);
    }
    proxy.until_listener("five are served", |listener| listener.active_connections == 5).await;
    proxy
        .change(|document| {
            document.listeners[0] = document.listeners[0].clone().with("connection_limit", -1);
        })
        .await;
    for client in &mut clients {
        client.expect("x").await;
    }
}

#[tokio::test]
async fn who_is_not_allowed_is_not_served() {
    let member = Backend::tcp("echo", echo).await;
    let listener =
        Listener::tcp().with("allowed_cidrs", serde_json::json!(["127.0.0.64/26", "127.7.0.0/16"]));
    let proxy = Proxy::start(Document::of(listener, Pool::tcp().members([&member]))).await;
    for (source, allowed) in [
        ("127.0.0.64", true),
        ("127.0.0.127", true),
        ("127.0.0.63", false),
        ("127.0.0.128", false),
        ("127.7.1.1", true),
    ] {
        let mut client = Client::connect_from(source.parse().unwrap(), proxy.address()).await;
        if allowed {
            client.send("x").await;
            client.expect("x").await;
        } else {
            assert!(client.ends_within(Duration::from_secs(10)).await, "{source}");
        }
    }
    assert_eq!(member.connections(), 3);
    let listener = proxy.listener().await;
    assert_eq!((listener.denied_connections, listener.total_connections), (2, 3));
}

#[tokio::test]
async fn ip_versions_mix() {
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    let v6_member = Backend::tcp_at(SocketAddr::new(v6, 0), "v6", echo).await;
    let v4_member = Backend::tcp("v4", echo).await;
    // An IPv4 listener to an IPv6 member, and the reverse; and a VIP of each in one load balancer.
    let pool = Pool::tcp().members([&v6_member]);
    let to_v6 = Proxy::start(Document::new().listener(Listener::tcp().to(&pool)).pool(&pool)).await;
    let pool = Pool::tcp().members([&v4_member]);
    let to_v4 = Proxy::start(Document::at(v6).listener(Listener::tcp().to(&pool)).pool(&pool).with(
        "additional_vips",
        serde_json::json!([{ "ip_address": amphora_tests::loopback().to_string() }]),
    ))
    .await;
    let second = to_v4.document.to_json()["loadbalancer"]["additional_vips"][0]["ip_address"].clone();
    let second = SocketAddr::new(second.as_str().unwrap().parse().unwrap(), to_v4.address().port());
    for address in [to_v6.address(), to_v4.address(), second] {
        let mut client = Client::connect(address).await;
        client.send("hello").await;
        client.expect("hello").await;
        client.finish().await;
        assert_eq!(client.end().await, End::Closed(Vec::new()));
    }
    assert_eq!((v6_member.connections(), v4_member.connections()), (1, 2));
}

#[tokio::test]
async fn a_session_goes_on_while_everything_around_it_changes() {
    let member = Backend::tcp("echo", echo).await;
    let mut proxy = Proxy::start(Document::tcp([&member])).await;
    let mut client = proxy.client().await;
    for change in 0..20_u16 {
        client.send(format!("{change};")).await;
        client.expect(format!("{change};")).await;
        let weight = 1 + change;
        proxy
            .change(|document| {
                document.pools[0].members[0] = document.pools[0].members[0].clone().weight(weight);
            })
            .await;
    }
    // Even its own member and its own listener may go: it drains.
    proxy.change(|document| document.pools[0].members.clear()).await;
    client.send("a").await;
    client.expect("a").await;
    proxy.change(|document| document.listeners.clear()).await;
    client.send("b").await;
    client.expect("b").await;
    client.finish().await;
    in_time("an orderly end", async { assert_eq!(client.end().await, End::Closed(Vec::new())) }).await;
}

#[tokio::test]
async fn clients_are_let_go_when_a_tcp_listener_gets_a_pool_of_another_kind() {
    let (web, raw) = (Backend::named("web").await, Backend::tcp("echo", echo).await);
    let mut proxy = Proxy::start(Document::of(Listener::tcp(), Pool::http().members([&web]))).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.status(), 200);
    let to = |protocol: &'static str, backend: &Backend| {
        let members = vec![Member::of(backend)];
        move |document: &mut Document| {
            document.pools[0] = document.pools[0].clone().with("protocol", protocol);
            document.pools[0].members = members;
        }
    };
    proxy.change(to("TCP", &raw)).await;
    // Its next request would be carried to a member that speaks something else.
    in_time("an orderly end", async { assert_eq!(client.end().await, End::Closed(Vec::new())) }).await;
    let mut client = proxy.client().await;
    client.send("this is no request").await;
    client.expect("this is no request").await;
    // And the other way round: a session goes on, new clients speak HTTP.
    proxy.change(to("HTTP", &web)).await;
    client.send("more").await;
    client.expect("more").await;
    assert_eq!(proxy.client().await.get("/").await.status(), 200);
}

#[tokio::test]
async fn without_a_member_the_client_is_let_go() {
    let proxy = Proxy::start(Document::tcp([])).await;
    assert!(proxy.client().await.ends_within(Duration::from_secs(10)).await);
    assert!(proxy.client().await.ends_within(Duration::from_secs(10)).await);
    assert_eq!(proxy.listener().await.request_errors, 0, "there are no requests");
}

#[tokio::test]
async fn source_ip_persistence_holds_for_connections() {
    let name = |name: &'static str| {
        Backend::tcp(name, move |mut stream| async move {
            let _ = stream.write_all(name.as_bytes()).await;
        })
    };
    let (a, b) = (name("a").await, name("b").await);
    let pool =
        Pool::tcp().members([&a, &b]).with("session_persistence", serde_json::json!({ "type": "SOURCE_IP" }));
    let proxy = Proxy::start(Document::of(Listener::tcp(), pool)).await;
    for host in 1..=6 {
        let source = std::net::Ipv4Addr::new(127, 6, 6, host).into();
        let first = Client::connect_from(source, proxy.address()).await.end().await;
        for _ in 0..4 {
            assert_eq!(Client::connect_from(source, proxy.address()).await.end().await, first);
        }
    }
    assert!(a.connections() >= 5 && b.connections() >= 5, "{} {}", a.connections(), b.connections());
}

#[tokio::test]
async fn a_client_that_resets_while_its_member_is_being_connected_frees_it_at_once() {
    // A listening socket whose queue is full lets nobody in and refuses nobody.
    let busy = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    busy.bind(&SocketAddr::new(loopback(), 0).into()).unwrap();
    busy.listen(0).unwrap();
    let address = busy.local_addr().unwrap().as_socket().unwrap();
    let filling: Vec<_> = (0..4)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let listener = Listener::tcp().with("timeout_member_connect", 60_000);
    let proxy = Proxy::start(Document::of(listener, Pool::tcp().member(Member::at(address)))).await;
    let mut client = proxy.client().await;
    // With bytes that nobody reads yet.
    client.send("hello").await;
    proxy.until_member(0, "the member is being connected", |member| member.active_sessions == 1).await;
    client.reset();
    proxy.until_member(0, "the slot is free", |member| member.active_sessions == 0).await;
    drop(filling);
}

#[tokio::test]
async fn to_a_pool_of_http_a_tcp_listener_speaks_http() {
    let (first, second) = (Backend::named("first").await, Backend::named("second").await);
    let pool = Pool::http().members([&first, &second]);
    let pool = pool.with("session_persistence", serde_json::json!({ "type": "HTTP_COOKIE" }));
    let proxy = Proxy::start(Document::of(Listener::tcp(), pool)).await;

    // Requests take turns, and the one with a cookie stays.
    let mut client = proxy.client().await;
    let answer = client.get("/1").await;
    let other = client.get("/2").await;
    assert_ne!(answer.body, other.body);
    let cookie = answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("SRV="), "{cookie}");
    for path in ["/3", "/4"] {
        assert_eq!(client.get_with(path, &format!("Cookie: {cookie}\r\n")).await.body, answer.body);
    }
    // What is no request does not come to a member.
    let served = first.served() + second.served();
    let mut client = proxy.client().await;
    client.send("this is no request\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 400);
    assert_eq!(first.served() + second.served(), served);
}
