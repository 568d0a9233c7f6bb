//! Limits that change while clients are held to them.

use std::time::{Duration, Instant};

use amphora_ipc::proxy::Stats;
use amphora_tests::{Backend, Client, Document, End, Listener, Message, Pool, Proxy, Step, echo};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{DAY, http, limited, policy, rule, source, statuses};

/// Another list of policies for the same listener.
async fn limit(proxy: &mut Proxy, policies: Vec<Value>) {
    proxy
        .change(|document| {
            let listener = document.listeners.remove(0);
            document.listeners.push(limited(listener, policies));
        })
        .await;
}

/// So many KiB there and back.
async fn exchange(client: &mut Client, kib: usize) {
    let piece = vec![b'x'; kib * 1024];
    client.send(&piece).await;
    client.expect(&piece).await;
}

/// A connection that is relayed goes by what its listener limits now, whenever it began: TCP, and what was upgraded.
async fn goes_by_the_present_limits(proxy: &mut Proxy, mut client: Client) {
    let kbytes = rule("KBYTES", 100, DAY);
    let reject = |threshold: u32| {
        let mut rule = kbytes.clone();
        rule["threshold"] = threshold.into();
        json!({ "id": kbytes["id"], "action": "REJECT", "rules": [rule] })
    };
    // Nothing is limited when it begins.
    exchange(&mut client, 60).await;
    limit(proxy, vec![reject(100)]).await;
    exchange(&mut client, 30).await;
    limit(proxy, vec![reject(1000)]).await;
    exchange(&mut client, 60).await;
    limit(proxy, vec![]).await;
    for _ in 0..10 {
        exchange(&mut client, 60).await;
    }
    // What passed while nothing was limited is not known.
    limit(proxy, vec![reject(100)]).await;
    let sent = client.stream.write_all(&[b'x'; 200 * 1024]).await;
    println!("{sent:?}");
    assert_eq!(client.end().await, End::Reset);
    proxy.until("it is counted", |stats| stats.rate_limits.values().all(|policy| policy.limited == 1)).await;
}

#[tokio::test]
async fn a_connection_goes_by_the_limits_of_now() {
    let member = Backend::tcp("echo", echo).await;
    let mut proxy = Proxy::start(Document::of(Listener::tcp(), Pool::tcp().members([&member]))).await;
    let client = Client::connect_from(source(1), proxy.address()).await;
    goes_by_the_present_limits(&mut proxy, client).await;
}

#[tokio::test]
async fn what_was_upgraded_goes_by_the_limits_of_now() {
    let member = Backend::http("echo", |_: &Message| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        vec![Step::send(head), Step::Echo]
    })
    .await;
    let mut proxy = Proxy::start(http(&member, vec![])).await;
    let mut client = Client::connect_from(source(1), proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert_eq!(client.response_head().await.status(), 101);
    goes_by_the_present_limits(&mut proxy, client).await;
}

/// Nobody waits because of a queue that is not there any more.
#[tokio::test]
async fn who_waits_goes_on_when_the_queue_is_gone() {
    let member = Backend::named("member").await;
    let mut queue = policy("QUEUE", vec![rule("REQUESTS", 1, 60)]);
    queue["amphora"] = json!({ "queue_timeout": 60 });
    let disabled = |queue: &Value| {
        let mut queue = queue.clone();
        queue["enabled"] = false.into();
        queue
    };
    let deny = json!({ "id": queue["id"], "action": "DENY", "rules": queue["rules"] });
    for (after, counts_on) in [(vec![], false), (vec![disabled(&queue)], false), (vec![deny], true)] {
        let mut proxy = Proxy::start(http(&member, vec![queue.clone()])).await;
        assert_eq!(statuses(proxy.address(), source(1), 1).await, [200]);
        let begun = Instant::now();
        let mut client = Client::connect_from(source(1), proxy.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let waits = |stats: &Stats| stats.rate_limits.values().all(|policy| policy.waiting == 1);
        proxy.until("it waits", waits).await;
        // Another change is none of its business.
        proxy
            .change(|document| {
                let listener = document.listeners.remove(0);
                document.listeners.push(listener.with("name", "renamed"));
            })
            .await;
        proxy.until("it waits", waits).await;
        limit(&mut proxy, after).await;
        assert_eq!(client.response().await.status(), 200);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        if !counts_on {
            continue;
        }
        // It has given back its turn: who comes when there is a queue again waits for one and not for two, which it would not.
        limit(&mut proxy, vec![queue.clone()]).await;
        let mut client = Client::connect_from(source(1), proxy.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        proxy.until("it waits", waits).await;
    }
}
