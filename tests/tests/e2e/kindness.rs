//! What a pool grants its members, under load.

use amphora_tests::{
    Backend, Document, HealthMonitor, Listener, Load, Member, Pool, Proxy, Step, eventually,
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
