//! Who gets what.

use std::collections::BTreeMap;

use amphora_tests::{
    Backend, Client, Document, HealthMonitor, L7Policy, L7Rule, Listener, Member, Pool, Proxy, Step,
    eventually,
};

/// How often each answer comes in so many requests, a connection each.
async fn shares(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        *shares.entry(proxy.client().await.get("/").await.text()).or_default() += 1;
    }
    shares
}

async fn three() -> [Backend; 3] {
    [Backend::named("a").await, Backend::named("b").await, Backend::named("c").await]
}

#[tokio::test]
async fn round_robin_gives_each_member_its_share_of_the_weight() {
    let [a, b, c] = three().await;
    let pool = Pool::http()
        .member(Member::of(&a).weight(1))
        .member(Member::of(&b).weight(2))
        .member(Member::of(&c).weight(3));
    let proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    // Exact on one connection, which has one worker's turns.
    let mut client = proxy.client().await;
    let mut shares = BTreeMap::new();
    for _ in 0..60 {
        *shares.entry(client.get("/").await.text()).or_insert(0) += 1;
    }
    assert_eq!(shares, BTreeMap::from([("a".into(), 10), ("b".into(), 20), ("c".into(), 30)]));
    // Near enough over all workers.
    let shares = self::shares(&proxy, 120).await;
    for (name, share) in [("a", 20), ("b", 40), ("c", 60)] {
        assert!(shares[name].abs_diff(share) <= 3, "{shares:?}");
    }
}

#[tokio::test]
async fn weight_0_drains() {
    let [a, b, _] = three().await;
    let pool = Pool::http()
        .member(Member::of(&a).weight(0))
        .members([&b])
        .with("session_persistence", serde_json::json!({ "type": "HTTP_COOKIE" }));
    let proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    assert_eq!(shares(&proxy, 10).await, BTreeMap::from([("b".into(), 10)]));
    // Who belongs to it still comes.
    let id = proxy.document.pools[0].members[0].id;
    let mut client = proxy.client().await;
    assert_eq!(client.get_with("/", &format!("Cookie: SRV={id}\r\n")).await.text(), "a");
}

#[tokio::test]
async fn backups_serve_when_nobody_else_is_left() {
    let [a, b, c] = three().await;
    let pool = Pool::http()
        .member(Member::of(&a))
        .member(Member::of(&b).with("backup", true))
        .member(Member::of(&c).with("backup", true))
        .monitored(&HealthMonitor::new("TCP"));
    let proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    assert_eq!(shares(&proxy, 6).await, BTreeMap::from([("a".into(), 6)]));
    drop(a);
    proxy.until_member(0, "the member is down", |member| !member.check.is_up()).await;
    let shares = shares(&proxy, 20).await;
    assert!(shares["b"] >= 8 && shares["c"] >= 8, "{shares:?}");
}

#[tokio::test]
async fn least_connections_spares_a_member_that_is_slow() {
    let slow = Backend::http("slow", |_| vec![Step::ReadBody, Step::Wait]).await;
    let quick = Backend::named("quick").await;
    let pool = Pool::http().members([&slow, &quick]).balanced_by("LEAST_CONNECTIONS");
    let proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    // Once a request is stuck in it, the slow member gets no other while the quick one is free.
    let mut stuck = Vec::new();
    while slow.started() == 0 {
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        tokio::select! {
            answer = client.response() => assert_eq!(answer.text(), "quick"),
            () = eventually("it is stuck", async || (slow.started() > 0).then_some(())) => {}
        }
        stuck.push(client);
    }
    for _ in 0..30 {
        proxy.until_member(1, "the quick one is free", |member| member.active_sessions == 0).await;
        assert_eq!(proxy.client().await.get("/").await.text(), "quick");
    }
    assert_eq!(slow.started(), 1);
}

#[tokio::test]
async fn source_ip_sends_an_address_to_the_same_member_and_addresses_to_all() {
    let [a, b, c] = three().await;
    let pool = Pool::http().members([&a, &b, &c]).balanced_by("SOURCE_IP");
    let mut proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    let mut of_address = BTreeMap::new();
    for host in 1..=40 {
        let source = std::net::Ipv4Addr::new(127, 9, 9, host).into();
        for _ in 0..3 {
            let answer = Client::connect_from(source, proxy.address()).await.get("/").await.text();
            assert_eq!(of_address.entry(host).or_insert_with(|| answer.clone()), &answer);
        }
    }
    for name in ["a", "b", "c"] {
        assert!(of_address.values().filter(|found| *found == name).count() >= 5, "{of_address:?}");
    }
    // Others stay where they are when a member goes.
    proxy
        .change(|document| {
            document.pools[0].members.pop();
        })
        .await;
    for (host, before) in of_address.iter().filter(|(_, before)| *before != "c") {
        let source = std::net::Ipv4Addr::new(127, 9, 9, *host).into();
        assert_eq!(&Client::connect_from(source, proxy.address()).await.get("/").await.text(), before);
    }
}

#[tokio::test]
async fn what_is_administratively_down_gets_nothing() {
    let [a, b, c] = three().await;
    let pool = Pool::http().members([&a, &b]);
    let other = Pool::http().members([&c]);
    let listener = Listener::http().to(&pool).policy(L7Policy::to_pool(&other, L7Rule::path("/")));
    let mut proxy = Proxy::start(Document::new().listener(listener).pool(&pool).pool(&other)).await;
    assert_eq!(shares(&proxy, 4).await, BTreeMap::from([("c".into(), 4)]));

    // A pool: its policy does as if it were not there.
    proxy
        .change(|document| document.pools[1] = document.pools[1].clone().with("admin_state_up", false))
        .await;
    assert_eq!(shares(&proxy, 4).await.keys().collect::<Vec<_>>(), ["a", "b"]);
    // A policy.
    proxy
        .change(|document| {
            document.pools[1] = document.pools[1].clone().with("admin_state_up", true);
            let policy = &mut document.listeners[0].policies[0];
            *policy = policy.clone().with("admin_state_up", false);
        })
        .await;
    assert_eq!(shares(&proxy, 4).await.keys().collect::<Vec<_>>(), ["a", "b"]);
    // A member.
    proxy
        .change(|document| {
            let member = &mut document.pools[0].members[0];
            *member = member.clone().with("admin_state_up", false);
        })
        .await;
    assert_eq!(shares(&proxy, 4).await, BTreeMap::from([("b".into(), 4)]));
    // A default pool.
    proxy
        .change(|document| document.pools[0] = document.pools[0].clone().with("admin_state_up", false))
        .await;
    assert_eq!(proxy.client().await.get("/").await.status(), 503);
    // A listener, and the load balancer.
    let enabled = proxy.document.clone();
    proxy
        .change(|document| {
            document.listeners[0] = document.listeners[0].clone().with("admin_state_up", false);
        })
        .await;
    refused(&proxy).await;
    proxy.apply(&enabled).await;
    proxy.client().await;
    proxy.apply(&enabled.clone().with("admin_state_up", false)).await;
    refused(&proxy).await;
    proxy.apply(&enabled).await;
    assert_eq!(proxy.client().await.get("/").await.status(), 503);
}

async fn refused(proxy: &Proxy) {
    eventually("nobody listens", async || Client::try_connect(proxy.address()).await.is_err().then_some(()))
        .await;
}
