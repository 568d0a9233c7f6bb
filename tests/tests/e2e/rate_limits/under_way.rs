//! What counts of a client while its requests are under way, and who goes while it waits.

use std::time::Instant;

use amphora_ipc::proxy::Stats;
use amphora_tests::{
    Backend, Client, Message, Proxy, Step,
    http2::{self, Http2Client},
    in_time,
};
use serde_json::json;

use super::{DAY, http, policy, rule, source, statuses};

/// So much of a response comes before the member is told to go on, and so much behind.
const BEGUN: usize = 150 * 1024;
const REST: usize = 50 * 1024;

/// Its responses to `/long` stop on their way, and to `/none` there is none.
async fn member() -> Backend {
    let script = |request: &Message| {
        let path = request.first_line().split(' ').nth(1).unwrap_or_default();
        match path {
            "/long" => vec![
                Step::ReadBody,
                Step::send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BEGUN + REST)),
                Step::send(vec![b'x'; BEGUN]),
                Step::Wait,
                Step::send(vec![b'y'; REST]),
            ],
            "/none" => vec![Step::ReadBody, Step::Reset],
            _ => Step::ok("member"),
        }
    };
    Backend::http("member", script).await
}

/// The client is denied, soon: what it has got may be counted a moment later. What it asks for meanwhile is little.
async fn until_denied(mut ask: impl AsyncFnMut() -> u16) {
    for _ in 0..100 {
        if ask().await == 429 {
            return;
        }
    }
    panic!("never denied");
}

#[tokio::test]
async fn a_response_under_way_counts_and_is_not_cut() {
    let member = member().await;
    let proxy = Proxy::start(http(&member, vec![policy("DENY", vec![rule("KBYTES", 100, DAY)])])).await;
    let mut client = Client::connect_from(source(1), proxy.address()).await;
    client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response_head().await;
    client.expect(vec![b'x'; BEGUN]).await;
    until_denied(async || statuses(proxy.address(), source(1), 1).await[0]).await;
    assert_eq!(statuses(proxy.address(), source(2), 1).await, [200], "nobody else is");
    member.proceed();
    client.expect(vec![b'y'; REST]).await;
    assert_eq!(client.get("/").await.status(), 429, "it goes on, and nothing else does");

    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, _) = client.begin(http2::request("GET", "/long"), true).await;
    let mut body = in_time("a response", response).await.unwrap().into_body();
    let mut read = async |wanted: usize| {
        let mut got = 0;
        while got < wanted {
            let data = in_time("data", body.data()).await.unwrap().unwrap();
            got += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        assert_eq!(got, wanted);
    };
    read(BEGUN).await;
    until_denied(async || client.get("/").await.status.unwrap()).await;
    member.proceed();
    read(REST).await;
}

/// Also what no response comes to, and what the proxy says itself; and nothing twice.
#[tokio::test]
async fn all_that_goes_to_and_fro_counts_once() {
    let member = member().await;
    let denies = |threshold| vec![policy("DENY", vec![rule("KBYTES", threshold, DAY)])];
    let mut proxy = Proxy::start(http(&member, denies(100))).await;
    let mut client = Client::connect_from(source(1), proxy.address()).await;
    assert_eq!(client.post("/none", &vec![b'x'; BEGUN]).await.status(), 502);
    until_denied(async || statuses(proxy.address(), source(1), 1).await[0]).await;

    // Some 1,130 bytes each: the head of the request, that of the response, and 1,000 of its body.
    let body = "x".repeat(1000);
    let small =
        Backend::http("small", move |_| vec![Step::ReadBody, Step::response("200 OK", "", &body)]).await;
    let other = Proxy::start(http(&small, denies(20))).await;
    let told = statuses(other.address(), source(1), 25).await;
    assert_eq!((&told[..15], told[24]), (&[200; 15][..], 429));

    // Some 250 bytes each, most of them the proxy's own. What says that it was too much is none of them.
    proxy
        .change(|document| {
            document.pools[0].members.clear();
            let listener = document.listeners.remove(0);
            document.listeners.push(super::limited(listener, denies(2)));
        })
        .await;
    let told = statuses(proxy.address(), source(3), 20).await;
    assert_eq!((&told[..5], told[19]), (&[503; 5][..], 429));
}

/// Behind a body that is larger than what is read of it while it waits.
#[tokio::test]
async fn who_leaves_a_queue_is_noticed_whatever_it_has_sent() {
    let member = Backend::named("member").await;
    let mut queue = policy("QUEUE", vec![rule("REQUESTS", 1, 40)]);
    queue["amphora"] = json!({ "queue_timeout": 60 });
    let proxy = Proxy::start(http(&member, vec![queue])).await;
    assert_eq!(statuses(proxy.address(), source(1), 1).await, [200]);
    for resets in [false, true] {
        // The second would have to wait for longer than it may, if the first had not given its turn back.
        let mut client = Client::connect_from(source(1), proxy.address()).await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
        client.send(vec![b'x'; 60_000]).await;
        proxy.until("it waits", |stats| stats.rate_limits.values().all(|policy| policy.waiting == 1)).await;
        if resets {
            client.reset()
        } else {
            drop(client)
        }
        proxy.until("it is gone", |stats| stats.rate_limits.values().all(|policy| policy.waiting == 0)).await;
    }
}

/// Whoever waits behind those who leave waits no longer than without them, with requests as with connections.
#[tokio::test]
async fn who_leaves_a_queue_leaves_its_turn_to_those_behind() {
    let member = Backend::named("member").await;
    for metric in ["REQUESTS", "CONNECTIONS"] {
        let mut queue = policy("QUEUE", vec![rule(metric, 1, 6)]);
        queue["amphora"] = json!({ "queue_timeout": 60 });
        let proxy = Proxy::start(http(&member, vec![queue])).await;
        let begun = Instant::now();
        assert_eq!(statuses(proxy.address(), source(1), 1).await, [200]);
        let waits = async |count: u32| {
            let so = |stats: &Stats| stats.rate_limits.values().all(|policy| policy.waiting == count);
            proxy.until("so many wait", so).await
        };
        let mut clients = Vec::new();
        for count in 1..=5 {
            let mut client = Client::connect_from(source(1), proxy.address()).await;
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            waits(count).await;
            clients.push(client);
        }
        let mut last = clients.pop().unwrap();
        drop(clients);
        waits(1).await;
        assert_eq!(last.response().await.status(), 200);
        let took = begun.elapsed().as_secs_f64();
        assert!(
            (5.9..25.0).contains(&took),
            "{metric}: its turn was the second of six, and it passed after {took} s"
        );
        let stats = proxy.stats().await;
        let policy = stats.rate_limits.values().next().unwrap();
        assert!(policy.queued == 5 && policy.waited_ms < 60_000, "{policy:?}");
    }
}
