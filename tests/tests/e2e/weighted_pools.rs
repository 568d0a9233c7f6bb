//! Several pools behind one listener or policy, by weight.

use std::collections::BTreeMap;

use amphora_tests::{
    Backend, Client, Document, HealthMonitor, L7Policy, L7Rule, Listener, Load, Pool, Proxy,
    http2::{Http2Client, request},
};
use serde_json::{Value, json};

fn shares(pools: &[(&Pool, u16)]) -> Value {
    pools.iter().map(|(pool, weight)| json!({ "pool_id": pool.id.to_string(), "weight": weight })).collect()
}

/// A listener on pools of one member each, with these weights.
fn split(listener: Listener, pools: &[(&Pool, u16)], own: Value) -> Document {
    let mut own = own;
    own["default_pools"] = shares(pools);
    let document = Document::new().listener(listener.with("amphora", own));
    pools.iter().fold(document, |document, (pool, _)| document.pool(pool))
}

async fn count(client: &mut Client, requests: usize, path: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(client.get(path).await.text()).or_default() += 1;
    }
    counts
}

fn counts(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn each_pool_has_its_share_exactly() {
    let (stable, canary, other) =
        (Backend::named("stable").await, Backend::named("canary").await, Backend::named("other").await);
    let pools = [&stable, &canary, &other].map(|backend| Pool::http().members([backend]));
    let [a, b, c] = &pools;
    let policy = L7Policy::new("REDIRECT_TO_POOL", L7Rule::path("/other"))
        .with("amphora", json!({ "redirect_pools": shares(&[(c, 1), (b, 3)]) }));
    let document = split(Listener::http().policy(policy), &[(a, 9), (b, 1)], json!({})).pool(c);
    let mut proxy = Proxy::start(document).await;
    let mut client = proxy.client().await;
    assert_eq!(count(&mut client, 200, "/").await, counts(&[("stable", 180), ("canary", 20)]));
    assert_eq!(count(&mut client, 40, "/other").await, counts(&[("other", 10), ("canary", 30)]));
    // A change of something else leaves the turns alone.
    for _ in 0..10 {
        let found = count(&mut client, 5, "/").await;
        assert!(found["stable"] >= 4, "{found:?}");
        proxy.change(|document| document.pools[2] = document.pools[2].clone().with("name", "other")).await;
    }
    // One that is disabled leaves its share to the others.
    proxy
        .change(|document| document.pools[0] = document.pools[0].clone().with("admin_state_up", false))
        .await;
    assert_eq!(count(&mut client, 10, "/").await, counts(&[("canary", 10)]));
    proxy
        .change(|document| document.pools[1] = document.pools[1].clone().with("admin_state_up", false))
        .await;
    assert_eq!(client.get("/").await.status(), 503);
    assert_eq!(count(&mut client, 10, "/other").await, counts(&[("other", 10)]));
}

#[tokio::test]
async fn clients_stay_with_their_pool_by_a_cookie_while_it_serves() {
    let (stable, canary) = (Backend::named("stable").await, Backend::named("canary").await);
    let [a, b] = [&stable, &canary]
        .map(|backend| Pool::http().members([backend]).monitored(&HealthMonitor::new("TCP")));
    let own = json!({ "pool_persistence": { "cookie_name": "version", "max_age": 60 } });
    let mut proxy = Proxy::start(split(Listener::http(), &[(&a, 1), (&b, 1)], own)).await;
    let mut client = proxy.client().await;
    let mut cookies = BTreeMap::new();
    for _ in 0..4 {
        let response = client.get("/").await;
        let cookie = response.field("set-cookie").unwrap().to_owned();
        assert!(cookie.starts_with("version=") && cookie.ends_with("; path=/; max-age=60"), "{cookie}");
        let value = cookie.split(';').next().unwrap().to_owned();
        let known = cookies.entry(response.text()).or_insert_with(|| value.clone());
        assert_eq!(*known, value);
    }
    let of_canary = format!("Cookie: a=b; {}\r\n", cookies["canary"]);
    for _ in 0..6 {
        let response = client.get_with("/", &of_canary).await;
        assert_eq!((response.text().as_str(), response.has("set-cookie")), ("canary", false));
    }
    assert_eq!(canary.last_request().field("cookie"), Some(&*format!("a=b; {}", cookies["canary"])));
    // The same in HTTP/2.
    let mut http2 = Http2Client::connect(proxy.address()).await;
    let told = http2.get("/").await;
    assert!(told.field("set-cookie").unwrap().starts_with(&cookies[&told.text()]));
    let mut asked = request("GET", "/");
    asked.headers_mut().insert("cookie", cookies["stable"].parse().unwrap());
    let told = http2.ask(asked, None, None).await;
    assert_eq!((told.text().as_str(), told.field("set-cookie")), ("stable", None));
    // At weight 0 it keeps those whom it has, and gets nobody.
    let drained = shares(&[(&a, 1), (&b, 0)]);
    proxy
        .change(|document| {
            let listener = document.listeners[0].clone();
            let own = json!({ "default_pools": drained, "pool_persistence": { "cookie_name": "version" } });
            document.listeners[0] = listener.with("amphora", own);
        })
        .await;
    assert_eq!(client.get_with("/", &of_canary).await.text(), "canary");
    assert_eq!(count(&mut client, 4, "/").await, counts(&[("stable", 4)]));
    // Its last member goes: its clients are given another pool, and no request is lost.
    let member = proxy.document.pools[1].members[0].id;
    drop(canary);
    proxy
        .until("the member is down", |stats| {
            stats
                .pools
                .values()
                .flat_map(|pool| &pool.members)
                .any(|(id, m)| *id == member && !m.check.is_up())
        })
        .await;
    let response = client.get_with("/", &of_canary).await;
    assert_eq!(response.text(), "stable");
    assert!(response.field("set-cookie").unwrap().starts_with(&cookies["stable"]));
}

#[tokio::test]
async fn a_canary_without_members_takes_nothing_with_it() {
    let stable = Backend::named("stable").await;
    let a = Pool::http().members([&stable]);
    let proxy = Proxy::start(split(Listener::http(), &[(&a, 1), (&Pool::http(), 1)], json!({}))).await;
    let mut client = proxy.client().await;
    assert_eq!(count(&mut client, 20, "/").await, counts(&[("stable", 20)]));
}

#[tokio::test]
async fn connections_are_shared_too() {
    let name = |name: &'static str| async move {
        Backend::tcp(name, move |mut stream| async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, name.as_bytes()).await;
        })
        .await
    };
    let (a, b) = (name("a").await, name("b").await);
    let [a_pool, b_pool] = [&a, &b].map(|backend| Pool::tcp().members([backend]));
    let document = split(Listener::tcp(), &[(&a_pool, 3), (&b_pool, 1)], json!({}));
    let proxy = Proxy::start_with(document, &["--workers", "1"]).await;
    let mut found = BTreeMap::new();
    for _ in 0..40 {
        let mut text = String::new();
        let mut client = proxy.client().await;
        tokio::io::AsyncReadExt::read_to_string(&mut client.stream, &mut text).await.unwrap();
        *found.entry(text).or_default() += 1;
    }
    assert_eq!(found, counts(&[("a", 30), ("b", 10)]));
    // Pools of HTTP make such connections HTTP.
    let (a, b) = (Backend::named("a").await, Backend::named("b").await);
    let [a_pool, b_pool] = [&a, &b].map(|backend| Pool::http().members([backend]));
    let proxy = Proxy::start(split(Listener::tcp(), &[(&a_pool, 1), (&b_pool, 1)], json!({}))).await;
    assert_eq!(count(&mut proxy.client().await, 10, "/").await, counts(&[("a", 5), ("b", 5)]));
}

#[tokio::test]
async fn nobody_notices_that_weights_change() {
    let (stable, canary) = (Backend::named("stable").await, Backend::named("canary").await);
    let [a, b] = [&stable, &canary].map(|backend| Pool::http().members([backend]));
    let mut proxy = Proxy::start(split(Listener::http(), &[(&a, 1), (&b, 0)], json!({}))).await;
    let load = Load::new().keep_alive(6, proxy.address()).connection_each(2, proxy.address());
    load.more(200).await;
    assert_eq!(canary.requests().len(), 0);
    for weight in [1, 4, 16, 64] {
        let weights = shares(&[(&a, 4), (&b, weight)]);
        proxy
            .change(|document| {
                let own = json!({ "default_pools": weights });
                document.listeners[0] = document.listeners[0].clone().with("amphora", own);
            })
            .await;
        load.more(100).await;
        let before = (stable.requests().len(), canary.requests().len());
        load.more(400).await;
        let (a, b) = (stable.requests().len() - before.0, canary.requests().len() - before.1);
        let share = b as f64 / (a + b) as f64;
        let expected = f64::from(weight) / f64::from(4 + weight);
        assert!((share - expected).abs() < 0.08, "{share} of {expected}");
    }
    let answers = load.stop().await;
    assert!(answers.keys().all(|answer| answer == "stable" || answer == "canary"), "{answers:?}");
}
