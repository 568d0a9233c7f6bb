//! Changes of configuration while traffic flows.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use amphora_ipc::proxy::{HistoryStats, ProcessStats, Stats};
use amphora_tests::{
    Backend, Client, Document, End, HealthMonitor, L7Policy, L7Rule, Listener, Load, Member, Pool, Proxy,
    echo, eventually, free_port, loopback,
};
use serde_json::json;

#[tokio::test]
async fn the_same_document_twice_changes_nothing() {
    let member = Backend::named("a").await;
    let mut proxy = Proxy::start(Document::http([&member])).await;
    let document = proxy.document.clone();
    let first = proxy.info().await.generation;
    let again = proxy.apply(&document).await;
    assert_eq!((again.generation, again.changed), (first, false));
    let other = proxy.change(|document| document.listeners[0].port = free_port(document.vip)).await;
    assert_eq!((other.generation, other.changed), (first + 1, true));
}

#[tokio::test]
async fn a_change_that_is_refused_leaves_everything_as_it_was() {
    let member = Backend::named("a").await;
    let mut proxy = Proxy::start(Document::http([&member])).await;
    let running = proxy.request("GET", "/loadbalancer", "").await.unwrap();
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.text(), "a");
    let before = proxy.until_member(0, "the request is counted", |member| member.idle == 1).await;
    // A port that somebody else has, with another listener that could be bound.
    let taken = std::net::TcpListener::bind((proxy.document.vip, 0)).unwrap();
    let free = free_port(proxy.document.vip);
    let document = proxy
        .document
        .clone()
        .listener(Listener::http().port(free))
        .listener(Listener::http().port(taken.local_addr().unwrap().port()));
    let refused = proxy.try_apply(&document).await.unwrap_err();
    assert_eq!(refused.status, 409);
    let path = format!("loadbalancer.listeners[{}].protocol_port", document.listeners[2].id);
    assert_eq!(refused.refusal.faults[0].path, path);
    let not_bound = SocketAddr::new(document.vip, free);
    assert!(Client::try_connect(not_bound).await.is_err());
    // A regular expression that is none, along with members that would go.
    let mut document = proxy.document.clone();
    let rule = L7Rule::new("PATH", "REGEX", "(unclosed");
    document.listeners[0].policies.push(L7Policy::new("REJECT", rule));
    document.pools[0].members.clear();
    let refused = proxy.try_apply(&document).await.unwrap_err();
    assert_eq!(refused.status, 400);
    assert!(refused.refusal.faults[0].path.contains("l7policies"), "{:?}", refused.refusal);
    // Several faults of the document itself.
    let document = proxy.document.clone().with("vip_address", "nowhere").with("surprise", 1);
    let refused = proxy.try_apply(&document).await.unwrap_err();
    assert_eq!((refused.status, refused.refusal.faults.len()), (400, 2));

    assert_eq!(timeless(proxy.stats().await), timeless(before));
    assert_eq!(proxy.request("GET", "/loadbalancer", "").await.unwrap().body, running.body);
    assert_eq!(client.get("/").await.text(), "a");
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
    assert!(member.connections() <= 2, "one for each worker");
}

/// Without what changes by itself as time goes by.
fn timeless(mut stats: Stats) -> Stats {
    for pool in stats.pools.values_mut() {
        for history in pool.members.values_mut().map(|member| &mut member.history).chain([&mut pool.history])
        {
            *history =
                HistoryStats { unchanged_ms: 0, last_session_s: None, max_session_rate: 0, ..*history };
        }
    }
    for listener in stats.listeners.values_mut() {
        (listener.max_session_rate, listener.max_connection_rate, listener.max_request_rate) = (0, 0, 0);
    }
    stats.process = ProcessStats::default();
    stats
}

/// In some proxies a listener that is changed is removed and added, and is not active afterwards.
#[tokio::test]
async fn a_listener_that_is_changed_stays_active() {
    let (a, b) = (Backend::named("a").await, Backend::named("b").await);
    let (first, second) = (Pool::http().members([&a]), Pool::http().members([&b]));
    let document = Document::new().listener(Listener::http().to(&first)).pool(&first).pool(&second);
    let mut proxy = Proxy::start(document).await;
    let mut kept = proxy.client().await;
    assert_eq!(kept.get("/").await.text(), "a");
    let fields = [
        ("connection_limit", 1000.into()),
        ("timeout_client_data", 30_000.into()),
        ("insert_headers", serde_json::json!({ "X-Forwarded-For": "true" })),
        ("name", "changed".into()),
        ("allowed_cidrs", serde_json::json!(["127.0.0.0/8"])),
        ("default_pool_id", second.id.to_string().into()),
    ];
    for (field, value) in fields {
        proxy
            .change(|document| {
                document.listeners[0] = document.listeners[0].clone().with(field, value);
            })
            .await;
        let expected = if field == "default_pool_id" { "b" } else { "a" };
        assert_eq!(proxy.client().await.get("/").await.text(), expected, "{field}");
        assert_eq!(kept.get("/").await.text(), expected, "{field}");
    }
    // Another protocol on the same port, and back.
    let http = proxy.document.clone();
    let (tcp, port) = (Pool::tcp().members([&a]), http.listeners[0].port);
    proxy
        .change(|document| {
            document.pools = vec![tcp.clone()];
            let id = document.listeners[0].id;
            document.listeners[0] = Listener::tcp().port(port).to(&tcp);
            document.listeners[0].id = id;
        })
        .await;
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
    proxy.apply(&http).await;
    assert_eq!(proxy.client().await.get("/").await.text(), "b");
    // Two listeners that exchange their ports.
    proxy
        .change(|document| *document = document.clone().listener(Listener::http().to(&document.pools[0])))
        .await;
    let ports = [proxy.document.address_of(0), proxy.document.address_of(1)];
    assert_eq!(Client::connect(ports[1]).await.get("/").await.text(), "a");
    proxy
        .change(|document| {
            let port = document.listeners[0].port;
            document.listeners[0].port = document.listeners[1].port;
            document.listeners[1].port = port;
        })
        .await;
    assert_eq!(Client::connect(ports[0]).await.get("/").await.text(), "a");
    assert_eq!(Client::connect(ports[1]).await.get("/").await.text(), "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_changes_under_load_lose_nothing() {
    let mut backends = Vec::new();
    for number in 0..8 {
        backends.push(Backend::named(&format!("m{number}")).await);
    }
    let members: Vec<Member> = backends.iter().map(Member::of).collect();
    let mut first = Pool::http().monitored(&HealthMonitor::new("HTTP"));
    first.members = members[..4].to_vec();
    let mut second = Pool::http().balanced_by("LEAST_CONNECTIONS").monitored(&HealthMonitor::new("TCP"));
    second.members = members[4..].to_vec();
    let stays = Listener::http().to(&first);
    let base = Document::new().listener(stays).pool(&first).pool(&second);
    let mut proxy = Proxy::start(base.clone()).await;
    let address = proxy.address();
    let load = Load::new().keep_alive(4, address).connection_each(4, address);
    load.more(100).await;
    let up = |stats: &Stats| stats.pools.values().flat_map(|p| p.members.values()).all(|m| m.check.is_up());

    let extra_ports = [free_port(base.vip), free_port(base.vip)];
    let mut before = proxy.stats().await;
    for change in 0..320_usize {
        let mut next = base.clone();
        // Members come and go and weigh differently.
        let members = &mut next.pools[0].members;
        members.rotate_left(change % 4);
        members.truncate(2 + change % 3);
        members[0] = members[0].clone().weight(1 + (change % 200) as u16);
        next.pools[1].members[change % 4] =
            next.pools[1].members[change % 4].clone().with("admin_state_up", change % 2 == 0);
        // Policies come and go; the default pool is another.
        let pool = &next.pools[change / 2 % 2];
        next.listeners[0] = next.listeners[0].clone().to(pool);
        if change % 5 < 3 {
            let rule = L7Rule::new("HEADER", "REGEX", "^[a-f]+$").with("key", "X-Change");
            let other = L7Policy::to_pool(&next.pools[1 - change / 2 % 2], L7Rule::path("/conn"));
            next.listeners[0].policies = vec![L7Policy::new("REJECT", rule), other];
        }
        // Another listener comes, moves its port, and goes.
        if change % 7 < 5 {
            let listener = Listener::http().to(pool).port(extra_ports[change % 2]);
            next.listeners.push(listener);
        }
        let applied = proxy.apply(&next).await;
        assert!(applied.changed);
        let now = proxy.stats().await;
        assert_monotonic(&before, &now);
        before = now;
    }
    proxy.apply(&base).await;
    load.more(200).await;
    let stats = proxy.stats().await;
    assert!(up(&stats), "{stats:#?}");
    let done = load.done();
    let answers = load.stop().await;
    assert_eq!(answers.len(), 8, "{answers:?}");
    let listener = proxy.listener().await;
    assert!(listener.requests >= done, "{} < {done}", listener.requests);
    assert_eq!((listener.request_errors, listener.responses.server_error), (0, 0), "{listener:?}");
}

/// Nothing that is counted goes backwards while its object stays.
fn assert_monotonic(before: &Stats, now: &Stats) {
    for (id, before) in &before.listeners {
        let Some(now) = now.listeners.get(id) else { continue };
        assert!(now.requests >= before.requests && now.bytes_out >= before.bytes_out, "{before:?} {now:?}");
        assert!(now.total_connections >= before.total_connections, "{before:?} {now:?}");
        assert!(now.responses.success >= before.responses.success, "{before:?} {now:?}");
    }
    for (pool, before) in &before.pools {
        for (id, before) in &before.members {
            let Some(now) = now.pools.get(pool).and_then(|pool| pool.members.get(id)) else { continue };
            assert!(now.requests >= before.requests && now.total_sessions >= before.total_sessions);
            assert!(now.bytes_in >= before.bytes_in && now.connects >= before.connects);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_connected_to_a_listener_that_goes_is_served_to_the_end_of_the_request() {
    let member = Backend::named("a").await;
    let pool = Pool::http().members([&member]);
    let base = Document::new().listener(Listener::http().to(&pool)).pool(&pool);
    let mut proxy = Proxy::start(base.clone()).await;
    for _ in 0..20 {
        let port = free_port(base.vip);
        let moving = SocketAddr::new(base.vip, port);
        let mut with = base.clone();
        with.listeners.push(Listener::http().to(&pool).port(port));
        proxy.apply(&with).await;
        // Connected before the listener goes, but with nothing sent yet; and in the middle of a request.
        let mut waiting = Client::connect(moving).await;
        let mut half = Client::connect(moving).await;
        half.send("GET / HTTP/1.1\r\nHo").await;
        let mut idle = Client::connect(moving).await;
        idle.get("/").await;
        proxy.apply(&base).await;
        half.send("st: a\r\n\r\n").await;
        assert_eq!(half.response().await.text(), "a");
        assert!(idle.ends_within(Duration::from_secs(10)).await);
        assert_eq!(waiting.get("/").await.text(), "a");
    }
}

#[tokio::test]
async fn counters_and_health_are_kept_by_id() {
    let (a, b) = (Backend::named("a").await, Backend::named("b").await);
    let pool = Pool::http().members([&a, &b]).monitored(&HealthMonitor::new("TCP"));
    let mut proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    drop(b);
    proxy.until_member(1, "the member is down", |member| !member.check.is_up()).await;
    let mut client = proxy.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "a");
    }
    // The monitor's own settings change as well, and the member stays down throughout.
    for change in 0..10_u16 {
        let monitor = HealthMonitor::new("TCP").with("delay", 100 + change);
        proxy
            .change(|document| {
                document.pools[0] = document.pools[0].clone().monitored(&monitor);
                document.pools[0].members[0] = document.pools[0].members[0].clone().weight(change + 1);
            })
            .await;
        assert!(!proxy.member(1).await.check.is_up());
        assert_eq!(client.get("/").await.text(), "a");
    }
    let member = proxy.member(0).await;
    assert_eq!((member.requests, member.responses.success), (20, 20));
    assert_eq!(proxy.listener().await.requests, 20);
    // A member under a new id is another.
    proxy.change(|document| document.pools[0].members = vec![Member::of(&a)]).await;
    assert_eq!(proxy.member(0).await.requests, 0);
}

/// A listener whose port moves all the time, and clients who follow it. That nobody listens on the old port is
/// theirs to find out; but who has been let in is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_connected_to_a_port_that_moves_is_served() {
    let member = Backend::named("a").await;
    let mut proxy = Proxy::start(Document::http([&member])).await;
    let vip = proxy.document.vip;
    let port = Arc::new(AtomicU16::new(proxy.document.listeners[0].port));
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (port, stop, served) = (Arc::clone(&port), Arc::clone(&stop), Arc::clone(&served));
        clients.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let address = SocketAddr::new(vip, port.load(Ordering::SeqCst));
                // In its last moments a port does not answer to new clients any more.
                let connecting =
                    tokio::time::timeout(Duration::from_millis(200), Client::try_connect(address));
                let Ok(Ok(mut client)) = connecting.await else { continue };
                let answer = client.try_get("/", "").await.unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(answer.status(), 200);
                served.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for _ in 0..50 {
        let next = free_port(vip);
        proxy.change(|document| document.listeners[0].port = next).await;
        port.store(next, Ordering::SeqCst);
        let goal = served.load(Ordering::SeqCst) + 5;
        let followed = async || (served.load(Ordering::SeqCst) >= goal).then_some(());
        eventually("clients follow", followed).await;
    }
    stop.store(true, Ordering::SeqCst);
    clients.join_all().await;
    let listener = proxy.listener().await;
    assert_eq!((listener.requests, listener.request_errors), (served.load(Ordering::SeqCst), 0));
}

#[tokio::test]
async fn clients_of_an_address_that_is_given_up_are_let_go_and_others_stay() {
    let member = Backend::named("a").await;
    let second = loopback();
    let both =
        Document::http([&member]).with("additional_vips", json!([{ "ip_address": second.to_string() }]));
    let mut one = both.clone();
    let mut proxy = Proxy::start(both).await;
    let port = proxy.address().port();
    let mut stays = proxy.client().await;
    let mut leaves = Client::connect(SocketAddr::new(second, port)).await;
    for client in [&mut stays, &mut leaves] {
        assert_eq!(client.get("/").await.text(), "a");
    }
    one = one.with("additional_vips", json!([]));
    proxy.apply(&one).await;
    assert_eq!(leaves.end().await, End::Closed(Vec::new()));
    assert_eq!(stays.get("/").await.field("connection"), None);
    assert_eq!(stays.get("/").await.text(), "a");
}

#[tokio::test]
async fn a_session_that_lasts_holds_no_connection_to_a_member_that_left() {
    let stays = Backend::named("stays").await;
    let leaves = Backend::named("leaves").await;
    let echo = Backend::tcp("echo", echo).await;
    let (http, tcp) = (Pool::http().members([&stays, &leaves]), Pool::tcp().members([&echo]));
    let document = Document::new()
        .listener(Listener::http().to(&http))
        .listener(Listener::tcp().to(&tcp))
        .pool(&http)
        .pool(&tcp);
    let mut proxy = Proxy::start(document).await;
    let mut session = Client::connect(proxy.document.address_of(1)).await;
    session.send("before").await;
    session.expect("before").await;
    // A client that waits for its next request, too.
    let mut client = proxy.client().await;
    for _ in 0..2 {
        client.get("/").await;
    }
    assert_eq!(leaves.open(), 1);
    proxy.change(|document| drop(document.pools[0].members.remove(1))).await;
    eventually("the idle connection is closed", async || (leaves.open() == 0).then_some(())).await;
    session.send("after").await;
    session.expect("after").await;
    assert_eq!(client.get("/").await.text(), "stays");
}

#[tokio::test]
async fn an_address_that_comes_back_at_once_is_served_at_once() {
    let member = Backend::named("a").await;
    let document = Document::http([&member]);
    let mut proxy = Proxy::start(document.clone()).await;
    let address = proxy.address();
    let mut without = document.clone();
    without.listeners.clear();
    // The same listener again, another one, and the first after both have been there.
    let mut other = document.clone();
    other.listeners[0] = Listener::http().to(&other.pools[0]).port(address.port());
    for next in [&document, &other, &document, &document] {
        let draining = proxy.client().await;
        proxy.apply(&without).await;
        proxy.apply(next).await;
        // A request to connect that is dropped is repeated after a second.
        let clients: Vec<_> = (0..32)
            .map(|_| {
                tokio::spawn(async move {
                    let begun = std::time::Instant::now();
                    assert_eq!(Client::connect(address).await.get("/").await.text(), "a");
                    begun.elapsed() > Duration::from_millis(900)
                })
            })
            .collect();
        let mut late = 0;
        for client in clients {
            late += usize::from(client.await.unwrap());
        }
        assert!(late <= 2, "{late} of 32 heard nothing at first");
        drop(draining);
    }
    // Given up for good it is given up.
    proxy.apply(&without).await;
    eventually("new connections are refused", async || Client::try_connect(address).await.err()).await;
}

#[tokio::test]
async fn an_address_that_gives_way_to_all_addresses_is_served_at_once() {
    let member = Backend::named("a").await;
    let all = std::net::Ipv4Addr::UNSPECIFIED.into();
    let pool = Pool::http().members([&member]);
    let one = Document::of(Listener::http().port(free_port(all)), pool);
    let mut proxy = Proxy::start(one.clone()).await;
    let address = proxy.address();
    for next in [one.clone().on(all), one] {
        proxy.apply(&next).await;
        let begun = std::time::Instant::now();
        assert_eq!(Client::connect(address).await.get("/").await.text(), "a");
        // A request to connect that is dropped is repeated after a second.
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn all_addresses_are_served_at_once_where_one_was_given_up_before() {
    let member = Backend::named("a").await;
    let all = std::net::Ipv4Addr::UNSPECIFIED.into();
    let pool = Pool::http().members([&member]);
    let one = Document::of(Listener::http().port(free_port(all)), pool);
    let mut none = one.clone();
    none.listeners.clear();
    let mut proxy = Proxy::start(one.clone()).await;
    let address = proxy.address();
    for _ in 0..3 {
        // Its sockets are being closed when the others come.
        proxy.apply(&none).await;
        proxy.apply(&one.clone().on(all)).await;
        let begun = std::time::Instant::now();
        for _ in 0..8 {
            assert_eq!(Client::connect(address).await.get("/").await.text(), "a");
        }
        // A request to connect that is dropped is repeated after a second.
        assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
        proxy.apply(&one).await;
    }
}

#[tokio::test]
async fn the_memory_of_rules_goes_back_with_them() {
    const MORE_KIB: u64 = 6 * 1024;
    let member = Backend::named("a").await;
    let mut proxy = Proxy::start(Document::http([&member])).await;
    let small = proxy.document.clone();
    let rules = |rules: &mut dyn Iterator<Item = String>| {
        let mut document = small.clone();
        document.listeners[0].policies =
            rules.map(|value| L7Policy::new("REJECT", L7Rule::new("PATH", "REGEX", &value))).collect();
        document
    };
    let large = rules(&mut (0..2000).map(|n| format!(r"^/a{n}/[a-f]+/\d{{2,9}}$")));
    let broken = rules(&mut (0..2000).map(|n| format!(r"^/b{n}/[a-f]+$")).chain(["(unclosed".to_owned()]));
    let before = proxy.resident_kib();
    for _ in 0..3 {
        proxy.apply(&large).await;
        let held = proxy.resident_kib();
        assert!(held > before + MORE_KIB, "{before} KiB, {held} KiB");
        assert_eq!(proxy.try_apply(&broken).await.unwrap_err().status, 400);
        proxy.apply(&small).await;
        eventually("what the rules took goes back", async || {
            (proxy.resident_kib() < before + MORE_KIB).then_some(())
        })
        .await;
    }
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
}
