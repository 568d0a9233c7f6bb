//! Members that fail, and clients that give up.

use std::{net::SocketAddr, time::Duration};

use amphora_tests::{
    Backend, Client, Document, End, HaProxy, HaProxyConfig, HealthMonitor, Listener, Member, Pool, Proxy,
    Step, eventually, loopback,
};
use socket2::{Domain, Socket, Type};

/// An address that refuses connections, for as long as this lives: it is taken, but nobody listens.
struct Refusing(Socket);

impl Refusing {
    fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::new(loopback(), 0).into()).unwrap();
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    fn member(&self) -> Member {
        Member::at(self.address())
    }
}

/// An address that does not answer: somebody listens, but the queue is full and stays so.
struct Silent {
    listener: Refusing,
    _queue: Vec<Socket>,
}

impl Silent {
    fn new() -> Self {
        let listener = Refusing::new();
        listener.0.listen(0).unwrap();
        let queue = (0..3).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&listener.address().into());
            socket
        });
        Self { _queue: queue.collect(), listener }
    }
}

#[tokio::test]
async fn when_a_member_refuses_another_serves() {
    let (good, refusing) = (Backend::named("good").await, Refusing::new());
    let pool = Pool::http().member(refusing.member()).members([&good]);
    let proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    let mut client = proxy.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "good");
        assert_eq!(client.post("/", b"hello").await.text(), "good");
    }
    let failed = proxy.member(0).await;
    assert!(failed.redispatches > 0 && failed.connects == failed.redispatches, "{failed:?}");
    assert_eq!((failed.connect_errors, failed.retries), (0, 0));
    assert_eq!(proxy.listener().await.responses.server_error, 0);
}

#[tokio::test]
async fn a_session_tied_to_a_member_that_refuses_is_redispatched() {
    let (good, refusing) = (Backend::named("good").await, Refusing::new());
    let pool = Pool::http()
        .member(refusing.member())
        .members([&good])
        .with("session_persistence", serde_json::json!({ "type": "HTTP_COOKIE" }));
    let listener = Listener::http().with("timeout_member_connect", 100);
    let proxy = Proxy::start(Document::of(listener, pool)).await;
    let id = proxy.document.pools[0].members[0].id;
    let answer = proxy.client().await.get_with("/", &format!("Cookie: SRV={id}\r\n")).await;
    assert_eq!(answer.text(), "good");
    let good = proxy.document.pools[0].members[1].id;
    assert!(answer.field("set-cookie").is_some_and(|cookie| cookie.contains(&good.to_string())));
    let failed = proxy.member(0).await;
    assert_eq!((failed.connects, failed.connect_errors, failed.retries, failed.redispatches), (3, 0, 2, 1));
}

/// A pool whose members fail, in a few words; how many requests come, and of which client.
struct Failing {
    /// `r`efuses, is `s`ilent, is `g`ood; in capitals it is a backup.
    members: &'static str,
    algorithm: &'static str,
    /// The client belongs to the first member, by its cookie.
    tied: bool,
    mode: &'static str,
    requests: usize,
}

const FAILING: [Failing; 17] = {
    const ONE: Failing =
        Failing { members: "r", algorithm: "ROUND_ROBIN", tied: false, mode: "http", requests: 1 };
    [
        ONE,
        Failing { members: "s", ..ONE },
        Failing { requests: 2, ..ONE },
        Failing { mode: "tcp", ..ONE },
        Failing { members: "r", tied: true, ..ONE },
        Failing { members: "rg", requests: 4, ..ONE },
        Failing { members: "sg", requests: 2, ..ONE },
        Failing { members: "rg", mode: "tcp", requests: 4, ..ONE },
        Failing { members: "rr", ..ONE },
        Failing { members: "rrr", ..ONE },
        Failing { members: "rrrrr", ..ONE },
        Failing { members: "rg", algorithm: "LEAST_CONNECTIONS", requests: 2, ..ONE },
        Failing { members: "rg", tied: true, ..ONE },
        Failing { members: "rr", tied: true, ..ONE },
        Failing { members: "rG", ..ONE },
        Failing { members: "RR", ..ONE },
        Failing { members: "", ..ONE },
    ]
};

#[tokio::test]
async fn what_failed_members_count_is_what_haproxy_counts() {
    // Whose idle connections are used again is not the same, so both count together.
    const COLUMNS: [&str; 7] = ["econ", "wretr", "wredis", "stot", "lbtot", "hrsp_2xx", "connect"];
    let good = Backend::named("good").await;
    let (refusing, silent): (Vec<_>, _) = ((0..5).map(|_| Refusing::new()).collect(), Silent::new());
    for Failing { members, algorithm, tied, mode, requests } in FAILING {
        let case = format!("{members:?} {algorithm} {mode}, tied: {tied}");
        let mut config = HaProxyConfig::http([]);
        (config.mode, config.connect_timeout) = (mode, 100);
        if algorithm != "ROUND_ROBIN" {
            config.balance = "leastconn";
        }
        let mut pool = if mode == "tcp" { Pool::tcp() } else { Pool::http() }.balanced_by(algorithm);
        for (n, kind) in members.chars().enumerate() {
            let address = match kind.to_ascii_lowercase() {
                'r' => refusing[n].address(),
                's' => silent.listener.address(),
                _ => good.address,
            };
            let member = Member::at(address).with("backup", kind.is_uppercase());
            let backup = if kind.is_uppercase() { "backup" } else { "" };
            let cookie = if tied { format!("cookie {} {backup}", member.id) } else { backup.to_owned() };
            config.servers.push((member.id.to_string(), address, cookie));
            pool = pool.member(member);
        }
        if tied {
            "cookie SRV insert indirect nocache".clone_into(&mut config.backend);
            pool = pool.with("session_persistence", serde_json::json!({ "type": "HTTP_COOKIE" }));
        }
        let listener = if mode == "tcp" { Listener::tcp() } else { Listener::http() };
        let listener = listener.with("timeout_member_connect", 100);
        let proxy = Proxy::start_with(Document::of(listener, pool), &["--workers", "1"]).await;
        let Some(haproxy) = HaProxy::start(&config).await else { return };
        for address in [proxy.address(), haproxy.address] {
            for _ in 0..requests {
                let mut client = Client::connect(address).await;
                let cookie = config.servers.first().filter(|_| tied);
                let cookie = cookie.map(|(id, ..)| format!("Cookie: SRV={id}\r\n")).unwrap_or_default();
                client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{cookie}\r\n")).await;
                let _ = amphora_tests::in_time("an answer", client.try_response(false)).await;
            }
        }
        let stats = proxy.stats().await;
        let pool = &stats.pools[&proxy.document.pools[0].id];
        for member in &proxy.document.pools[0].members {
            let ours = &pool.members[&member.id];
            let ours = [
                ours.connect_errors,
                ours.retries,
                ours.redispatches,
                ours.total_sessions,
                ours.selected,
                ours.responses.success,
                ours.connects + ours.reuses,
            ];
            let mut theirs = [0; COLUMNS.len()];
            for (value, column) in theirs.iter_mut().zip(COLUMNS) {
                *value = haproxy.stat(&member.id.to_string(), column).await;
            }
            theirs[6] += haproxy.stat(&member.id.to_string(), "reuse").await;
            assert_eq!(ours, theirs, "{COLUMNS:?} of a member: {case}");
        }
        let metrics = proxy.request("GET", "/metrics", "").await.unwrap().text();
        for (family, column) in [
            ("connection_errors_total", "econ"),
            ("retry_warnings_total", "wretr"),
            ("redispatch_warnings_total", "wredis"),
            ("sessions_total", "stot"),
            ("loadbalanced_total", "lbtot"),
        ] {
            let name = format!("octavia_pool_{family}{{");
            let line = metrics.lines().find(|line| line.starts_with(&name)).unwrap();
            let ours: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert_eq!(ours, haproxy.stat("BACKEND", column).await, "{column} of the pool: {case}");
        }
    }
}

#[tokio::test]
async fn without_a_member_there_is_503() {
    let (one, two) = (Refusing::new(), Refusing::new());
    let pool = Pool::http().member(one.member()).member(two.member());
    let empty = Pool::http();
    let document = Document::of(Listener::http(), pool)
        .listener(Listener::http().to(&empty))
        .pool(&empty)
        .listener(Listener::http());
    let proxy = Proxy::start(document).await;
    for index in 0..3 {
        let mut client = amphora_tests::Client::connect(proxy.document.address_of(index)).await;
        let response = client.get("/").await;
        assert_eq!(response.status(), 503);
        // It was the proxy's answer, so the connection is good for more.
        assert_eq!(client.get("/").await.status(), 503);
    }
}

#[tokio::test]
async fn a_request_that_meets_a_dead_connection_is_repeated_when_it_may_be() {
    // Each connection serves one request and is reset when the next has come.
    let member = Backend::tcp("a", |mut stream| async move {
        let mut buffer = Vec::new();
        let first = amphora_tests::read_message(&mut stream, &mut buffer, false).await;
        if first.is_ok_and(|first| first.is_some()) {
            use tokio::io::AsyncWriteExt;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").await.unwrap();
            let _ = amphora_tests::read_message(&mut stream, &mut buffer, false).await;
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status(), 200);
    }
    let stats = proxy.member(0).await;
    assert_eq!((stats.retries, stats.responses.success), (9, 10));
    // A request that is not idempotent may have been carried out: the client must decide.
    assert_eq!(client.post("/", b"order").await.status(), 502);
}

#[tokio::test]
async fn a_post_is_never_sent_twice() {
    let member = Backend::http("a", |request| {
        if request.first_line().starts_with("POST") {
            vec![Step::ReadBody, Step::Close]
        } else {
            Step::ok("a")
        }
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    for _ in 0..5 {
        let mut client = proxy.client().await;
        assert_eq!(client.get("/").await.status(), 200);
        assert_eq!(client.post("/", b"order").await.status(), 502);
    }
    let posts = member.requests().iter().filter(|request| request.first_line().starts_with("POST")).count();
    assert_eq!(posts, 5);
}

#[tokio::test]
async fn a_silent_member_is_504() {
    let member = Backend::http("a", |_| vec![Step::Wait]).await;
    let listener = Listener::http().with("timeout_member_data", 300);
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    assert_eq!(proxy.client().await.get("/").await.status(), 504);
    eventually("the member's connection is closed", async || (member.open() == 0).then_some(())).await;
    proxy.until_member(0, "the slot is free", |member| member.active_sessions == 0).await;
}

#[tokio::test]
async fn a_client_may_ask_again_when_a_member_was_silent_for_longer_than_clients_may_be() {
    let member = Backend::http("a", |_| vec![Step::Wait]).await;
    let listener = Listener::http().with("timeout_client_data", 2000).with("timeout_member_data", 2500);
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status(), 504);
    }
    eventually("the member's connection is closed", async || (member.open() == 0).then_some(())).await;
    proxy.until_member(0, "the slot is free", |member| member.active_sessions == 0).await;
}

#[tokio::test]
async fn a_client_that_resets_its_connection_frees_the_member_at_once() {
    let member = Backend::http("a", |_| vec![Step::Wait]).await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut one = proxy.client().await;
    one.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut other = proxy.client().await;
    other.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    proxy.until_member(0, "two requests wait", |member| member.active_sessions == 2).await;
    one.reset();
    other.reset();
    proxy.until_member(0, "nothing waits", |member| member.active_sessions == 0).await;
    eventually("the member's connections are closed", async || (member.open() == 0).then_some(())).await;
    assert_eq!(proxy.member(0).await.client_aborts, 2);
    assert_eq!(proxy.listener().await.request_errors, 0, "aborts are the member's");
}

/// As in HAProxy without `option abortonclose`, which Octavia does not render.
#[tokio::test]
async fn a_client_that_has_only_finished_sending_gets_what_it_asked_for() {
    let member = Backend::http("a", |request| match request.target() {
        "/slow" => vec![Step::ReadBody, Step::Wait, Step::response("200 OK", "", "slow")],
        _ => Step::ok("a"),
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (requests, slow, answers) in [
        (get.to_owned(), false, &["a"][..]),
        (get.repeat(5), false, &["a"; 5]),
        ("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(), true, &["slow"]),
        (format!("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n{get}"), true, &["slow", "a"]),
    ] {
        let mut client = proxy.client().await;
        client.send(&requests).await;
        client.finish().await;
        if slow {
            proxy.until_member(0, "the member has it", |member| member.active_sessions == 1).await;
            member.proceed();
        }
        for answer in answers {
            assert_eq!(client.response().await.text(), *answer, "{requests}");
        }
        assert_eq!(client.end().await, End::Closed(Vec::new()), "{requests}");
    }
}

#[tokio::test]
async fn a_member_that_has_begun_to_answer_is_not_asked_again() {
    let member = Backend::http("a", |request| match request.target() {
        "/die" => vec![Step::send("HTTP/1.1 103 Early Hints\r\n\r\n"), Step::Close],
        _ => Step::ok("a"),
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.text(), "a");
    client.send("DELETE /die HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response_head().await.status(), 103);
    assert_eq!(client.response().await.status(), 502);
    assert_eq!(member.started(), 2, "requests that the member has seen");
}

#[tokio::test]
async fn a_request_that_a_member_dies_of_gets_another_member_once() {
    let dying = || Backend::http("dying", |_| vec![Step::ReadBody, Step::Close]);
    let (one, other) = (dying().await, dying().await);
    let well = Backend::named("well").await;
    let proxy = Proxy::start(Document::http([&one, &well])).await;
    for _ in 0..6 {
        assert_eq!(proxy.client().await.get("/").await.text(), "well");
    }
    // Not a third one, and not what must not be repeated.
    let proxy = Proxy::start(Document::http([&one, &other])).await;
    let before = one.requests().len() + other.requests().len();
    assert_eq!(proxy.client().await.get("/").await.status(), 502);
    assert_eq!(one.requests().len() + other.requests().len() - before, 2);
    assert_eq!(proxy.client().await.post("/", b"order").await.status(), 502);
    assert_eq!(one.requests().len() + other.requests().len() - before, 3);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_body_frees_the_member() {
    let member = Backend::http("a", |_| {
        vec![Step::send("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"), Step::SendPattern(99_999_999)]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response_head().await;
    drop(client);
    proxy.until_member(0, "the slot is free", |member| member.active_sessions == 0).await;
    eventually("the member's connection is closed", async || (member.open() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_member_that_is_killed_under_load_costs_no_idempotent_request() {
    let (good, bad) = (Backend::named("good").await, Backend::named("bad").await);
    let pool = Pool::http().members([&good, &bad]).monitored(&HealthMonitor::new("TCP"));
    let proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    let address = proxy.address();
    let load = amphora_tests::Load::new().keep_alive(4, address).connection_each(2, address);
    load.more(200).await;
    // Not in the middle of a response: those are lost, and the client must be told so.
    let bad_address = bad.address;
    drop(bad);
    load.more(200).await;
    let _back = Backend::http_at(bad_address, "bad", |_| Step::ok("back")).await;
    load.more(200).await;
    proxy.until_member(1, "the member is back", |member| member.check.is_up()).await;
    let answers = eventually("the member that is back serves", async || {
        load.more(20).await;
        (proxy.member(1).await.responses.success > 0).then_some(())
    });
    answers.await;
    load.stop().await;
}

#[tokio::test]
async fn a_connection_that_the_member_has_closed_is_not_used_again() {
    // It never says that it will close.
    let member = Backend::http("a", |_| {
        vec![Step::ReadBody, Step::send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"), Step::Close]
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    for _ in 0..10 {
        // Not to be repeated, so it has to be right the first time.
        assert_eq!(client.post("/", b"order").await.status(), 200);
        eventually("the member has closed", async || (member.open() == 0).then_some(())).await;
    }
    assert_eq!((member.connections(), member.served()), (10, 10));
}
