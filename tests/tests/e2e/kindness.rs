//! What a pool grants its members, under load.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use amphora_tests::{
    Backend, Document, HealthMonitor, Listener, Load, Member, Pool, Proxy, Step, eventually, free_port,
};
use serde_json::{Value, json};

fn pool(amphora: Value) -> Pool {
    Pool::http().with("amphora", amphora)
}

/// What each has served of so many more requests, at least.
async fn share(load: &Load, members: [&Backend; 2], requests: u64) -> [usize; 2] {
    let before = members.map(Backend::served);
    load.more(requests).await;
    let after = members.map(Backend::served);
    [after[0] - before[0], after[1] - before[1]]
}

#[tokio::test]
async fn a_member_that_comes_into_use_starts_slowly() {
    let [old, new] = [Backend::named("old").await, Backend::named("new").await];
    let slow = pool(json!({ "slow_start": 3600 })).members([&old]);
    let mut proxy = Proxy::start(Document::of(Listener::http(), slow)).await;
    let load = Load::new().keep_alive(4, proxy.address());
    load.more(20).await;
    proxy.change(|document| document.pools[0].members.push(Member::of(&new))).await;
    let [of_old, of_new] = share(&load, [&old, &new], 340).await;
    // A sixteenth for each of the other's sixteen: one of 17, in each worker's turns.
    let due = (of_old + of_new) as f64 / 17.0;
    assert!(of_new > 0 && (of_new as f64 - due).abs() < 8.0, "{of_new} of {}, {due} due", of_old + of_new);

    // Nobody starts any more: it has its half.
    proxy.change(|document| document.pools[0] = document.pools[0].clone().with("amphora", Value::Null)).await;
    let [of_old, of_new] = share(&load, [&old, &new], 300).await;
    assert!(of_old.abs_diff(of_new) < 16, "{of_old} {of_new}");
    assert_eq!(load.stop().await.into_keys().collect::<Vec<_>>(), ["new", "old"]);
}

#[tokio::test]
async fn one_that_was_down_starts_slowly_and_comes_to_all_of_its_weight() {
    let old = Backend::named("old").await;
    let back = Backend::named("back").await;
    let at = back.address;
    let slow = pool(json!({ "slow_start": 2 })).members([&old, &back]).monitored(&HealthMonitor::new("TCP"));
    let proxy = Proxy::start(Document::of(Listener::http(), slow)).await;
    let load = Load::new().keep_alive(4, proxy.address());
    proxy.until_member(1, "the checks have passed", |member| member.check.to_string() == "UP").await;
    drop(back);
    proxy.until_member(1, "the member is down", |member| !member.check.is_up()).await;
    let back = Backend::http_at(at, "back", |_| Step::ok("back")).await;
    proxy.until_member(1, "the member is up", |member| member.check.is_up()).await;
    eventually("it has its half", async || {
        let [of_old, of_back] = share(&load, [&old, &back], 100).await;
        (of_old.abs_diff(of_back) < 12).then_some(())
    })
    .await;
    load.stop().await;
}

/// Connections that are kept are no matter here: what answers 500 is asked anew.
async fn asked(proxy: &Proxy, requests: usize) -> Vec<u16> {
    let mut client = proxy.client().await;
    let mut statuses = Vec::new();
    for _ in 0..requests {
        statuses.push(client.get("/").await.status());
    }
    statuses
}

#[tokio::test]
async fn a_member_that_answers_500_under_load_is_taken_out_and_comes_back() {
    let sick = Arc::new(AtomicBool::new(true));
    let well = Backend::named("well").await;
    let other = Backend::named("other").await;
    let bad = {
        let sick = Arc::clone(&sick);
        Backend::http("bad", move |_| match sick.load(Ordering::SeqCst) {
            true => vec![Step::response("500 Not Today", "", "bad")],
            false => Step::ok("back"),
        })
        .await
    };
    let detection = json!({ "outlier_detection": { "consecutive_failures": 3, "ejection_time": 2 } });
    let watched = pool(detection).members([&well, &bad, &other]);
    let proxy = Proxy::start(Document::of(Listener::http(), watched)).await;
    // Each worker's turns come to it.
    eventually("it is out", async || {
        let statuses = asked(&proxy, 12).await;
        statuses.iter().all(|status| *status == 200).then_some(())
    })
    .await;
    let served = bad.served();
    let load = Load::new().keep_alive(4, proxy.address());
    load.more(30).await;
    sick.store(false, Ordering::SeqCst);
    eventually("it is back", async || {
        load.more(10).await;
        (bad.served() > served).then_some(())
    })
    .await;
    // Nobody else has failed, and nobody was failed meanwhile.
    assert!(load.stop().await.contains_key("back"));
}

#[tokio::test]
async fn a_member_that_refuses_connections_is_taken_out_and_the_last_is_not() {
    let well = Backend::named("well").await;
    let dead = free_port(well.address.ip());
    let detection = json!({ "outlier_detection": { "consecutive_failures": 2, "max_ejected_percent": 99 } });
    let dead = SocketAddr::new(well.address.ip(), dead);
    let watched = pool(detection).member(Member::at(dead)).members([&well]);
    let mut proxy = Proxy::start(Document::of(Listener::http(), watched)).await;
    let load = Load::new().connection_each(4, proxy.address());
    load.more(40).await;
    let connects = proxy.member(0).await.connects;
    assert!(connects >= 2);
    eventually("nobody is sent there", async || {
        let before = proxy.member(0).await.connects;
        load.more(40).await;
        (proxy.member(0).await.connects == before).then_some(())
    })
    .await;
    load.stop().await;
    // The last is asked, whatever it does.
    proxy.change(|document| drop(document.pools[0].members.remove(1))).await;
    let before = proxy.member(0).await.connects;
    assert_eq!(asked(&proxy, 1).await, [503]);
    assert!(proxy.member(0).await.connects > before);
}

#[tokio::test]
async fn a_new_member_gets_nothing_before_its_first_good_check() {
    let old = Backend::named("old").await;
    let ready = Arc::new(AtomicBool::new(false));
    let new = {
        let ready = Arc::clone(&ready);
        Backend::http("new", move |request| match request.target() == "/check" {
            true if !ready.load(Ordering::SeqCst) => vec![Step::response("503 Soon", "", "")],
            _ => Step::ok("new"),
        })
        .await
    };
    let monitor = HealthMonitor::new("HTTP").with("url_path", "/check").with("max_retries", 2);
    let mut waits = pool(json!({ "first_check": true })).members([&old]).monitored(&monitor);
    let mut proxy = Proxy::start(Document::of(Listener::http(), waits.clone())).await;
    proxy.until_member(0, "the first is up", |member| member.check.is_up()).await;
    let load = Load::new().keep_alive(4, proxy.address());
    load.more(20).await;
    waits = waits.member(Member::of(&new));
    proxy.change(|document| document.pools[0] = waits.clone()).await;
    load.more(100).await;
    eventually("it was looked at", async || (new.served() >= 2).then_some(())).await;
    load.more(100).await;
    assert!(new.requests().iter().all(|request| request.target() == "/check"));
    ready.store(true, Ordering::SeqCst);
    proxy.until_member(1, "it is up", |member| member.check.is_up()).await;
    load.more(40).await;
    assert!(load.stop().await.contains_key("new"));
}
