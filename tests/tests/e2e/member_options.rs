//! What a pool grants its members, under load.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use amphora_ipc::proxy::Explanation;
use amphora_tests::{
    Amphora, Backend, Certificates, Client, Document, End, HealthMonitor, L7Policy, L7Rule, Listener, Load,
    Member, Message, Pool, Proxy, Step, TlsClient, TlsMember, echo, eventually, free_port,
    http2::{Http2Client, request},
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
    let report = proxy.report_of(1).await;
    assert!(report.failures[0].what == "response: status 500" && report.failures[0].times >= 3, "{report:?}");
    assert!(report.ejected.is_some_and(|ejected| ejected.times == 1 && ejected.left_s <= 2), "{report:?}");
    assert!(proxy.report_of(0).await.is_empty());
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

/// No client can have members taken out by what it asks for: a tunnel where there is none, or so much that edits are too large.
#[tokio::test]
async fn what_a_client_cannot_have_is_not_its_members_fault() {
    let [one, other] = [Backend::named("one").await, Backend::named("other").await];
    let detection = json!({ "outlier_detection": { "consecutive_failures": 2 } });
    let long = json!({ "action": "EDIT", "edits": {
        "response": [{ "op": "ADD", "name": "X-A", "value": "${path}" }, { "op": "ADD", "name": "X-B", "value": "${path}" }]
    } });
    let edit = L7Policy::new("EDIT", L7Rule::path("/")).with("action", Value::Null).with("amphora", long);
    let document = Document::of(Listener::http().policy(edit), pool(detection).members([&one, &other]));
    let proxy = Proxy::start(document).await;
    let path = format!("/{}", "a".repeat(9000));
    let mut plain = proxy.client().await;
    let mut client = Http2Client::connect(proxy.address()).await;
    assert_eq!(client.get("/").await.status, Some(200));
    for _ in 0..12 {
        assert_eq!(plain.get(&path).await.status(), 502);
        let mut connect = request("CONNECT", "/");
        connect.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        assert_eq!(client.ask(connect, None, None).await.status, Some(502));
    }
    // Longer than it takes to decide.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut told = Vec::new();
    for member in 0..2 {
        let report = proxy.report_of(member).await;
        assert!(report.ejected.is_none(), "{report:?}");
        told.extend(report.failures.into_iter().map(|failure| failure.what));
    }
    for what in ["too large with what policies change in it", "none to who has asked for a tunnel"] {
        assert!(told.iter().any(|told| told.ends_with(what)), "{told:?}");
    }
    assert_eq!(asked(&proxy, 4).await, [200; 4]);
}

/// By the name that a client asks for in its handshake members may refuse it, or show a certificate of nobody's.
#[tokio::test]
async fn members_of_another_name_are_not_taken_out() {
    let certificates = Certificates::new();
    certificates.issue("front", &["shop.example", "other.example"]);
    certificates.issue("web", &["shop.example"]);
    let nobodys = Certificates::new();
    let strict = [
        TlsMember::strict(&certificates, "web", "shop.example").await,
        TlsMember::strict(&certificates, "web", "shop.example").await,
    ];
    let strange = [
        TlsMember::start(&nobodys, "server", false).await,
        TlsMember::start(&nobodys, "server", false).await,
    ];
    for (members, serves, why) in
        [(&strict, true, "TLS: the member sent alert"), (&strange, false, "TLS: its certificate")]
    {
        let detection = json!({ "outlier_detection": { "consecutive_failures": 2 } });
        let pool = pool(detection)
            .members(members.iter().map(|member| &member.backend))
            .with("tls_enabled", true)
            .with("ca_tls_container_ref", "ca");
        let document = Document::of(Listener::https("front"), pool);
        let proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
        let config = certificates.client(&[&rustls::version::TLS13], &["http/1.1"]);
        let ask = async |host: &str| {
            let mut client = TlsClient::connect(proxy.address(), &config, host).await.unwrap();
            client.get("/", "").await.unwrap().status()
        };
        for _ in 0..3 {
            assert_eq!(ask("other.example").await, 503);
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for member in 0..2 {
            let report = proxy.report_of(member).await;
            assert!(report.ejected.is_none() && report.failures[0].what.starts_with(why), "{report:?}");
        }
        assert_eq!(ask("shop.example").await == 200, serves);
    }
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
    let report = proxy.report_of(0).await;
    assert_eq!(report.failures[0].what, "connect: Connection refused");
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

#[tokio::test]
async fn sessions_of_tcp_at_a_member_that_was_removed_have_their_time() {
    let going = Backend::tcp("going", echo).await;
    let staying = Backend::tcp("staying", echo).await;
    let pool = Pool::tcp().members([&going]);
    let mut proxy = Proxy::start(Document::of(Listener::tcp(), pool)).await;
    // It began when its pool had no time to give.
    let mut old = proxy.client().await;
    old.send("hello").await;
    old.expect("hello").await;
    let begun = Instant::now();
    let mut pool = Pool::tcp().members([&staying]).with("amphora", json!({ "drain_timeout": 2 }));
    pool.id = proxy.document.pools[0].id;
    proxy.change(|document| document.pools[0] = pool).await;
    let mut new = proxy.client().await;
    new.send("I stay").await;
    new.expect("I stay").await;
    old.send("still here").await;
    old.expect("still here").await;
    let leaving = proxy.members().await.leaving;
    if begun.elapsed() < Duration::from_secs(2) {
        let [leaving] = &leaving[..] else { panic!("{leaving:?}") };
        assert_eq!((leaving.address, &leaving.draining.why[..]), (going.address, "removed"));
        assert_eq!(leaving.draining.connections, 1);
    }
    assert_eq!(old.end().await, End::Closed(Vec::new()));
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    eventually("the member has lost its session", async || (going.open() == 0).then_some(())).await;
    new.send("and stay").await;
    new.expect("and stay").await;
}

/// A body of which the second half comes when the test says so.
fn in_halves(request: &Message) -> Vec<Step> {
    match request.target() {
        "/long" => vec![Step::send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst"), Step::Wait],
        "/late" => vec![Step::Wait],
        _ => Step::ok("going"),
    }
}

#[tokio::test]
async fn requests_and_persistence_at_a_member_of_weight_0_have_their_time() {
    let going = Backend::http("going", in_halves).await;
    let staying = Backend::named("staying").await;
    let persistent =
        |amphora: Value| pool(amphora).with("session_persistence", json!({ "type": "HTTP_COOKIE" }));
    let first = persistent(json!({ "drain_timeout": 2 })).members([&going, &staying]);
    let mut proxy = Proxy::start(Document::of(Listener::http(), first)).await;
    let srv = format!("SRV={}", proxy.document.pools[0].members[0].id);
    let cookie = format!("Cookie: {srv}\r\n");
    let mut download = proxy.client().await;
    download.send(format!("GET /long HTTP/1.1\r\nHost: a\r\n{cookie}\r\n")).await;
    assert_eq!(download.response_head().await.status(), 200);
    let mut waiting = proxy.client().await;
    waiting.send(format!("GET /late HTTP/1.1\r\nHost: a\r\n{cookie}\r\n")).await;
    let mut posting = proxy.client().await;
    posting.send(format!("POST /late HTTP/1.1\r\nHost: a\r\n{cookie}Content-Length: 1\r\n\r\nx")).await;
    let mut stream = Http2Client::connect(proxy.address()).await;
    let mut long = request("GET", "/long");
    long.headers_mut().insert("cookie", srv.parse().unwrap());
    let streamed = stream.ask(long, None, None);
    let change = async {
        eventually("all are there", async || (going.started() >= 4).then_some(())).await;
        proxy
            .change(|document| {
                document.pools[0].members[0] = document.pools[0].members[0].clone().weight(0);
            })
            .await;
        // Who belongs to it comes until then.
        let changed = Instant::now();
        let belongs = proxy.client().await.get_with("/", &cookie).await.text();
        assert!(belongs == "going" || changed.elapsed() > Duration::from_secs(2), "{belongs}");
    };
    let (streamed, ()) = tokio::join!(streamed, change);
    assert_eq!((streamed.status, &streamed.body[..]), (Some(200), &b"first"[..]));
    assert!(streamed.reset.is_some(), "cut, and not taken for the whole");
    assert_eq!(download.end().await, End::Closed(b"first".to_vec()), "cut, and not taken for the whole");
    // What may be asked again is, elsewhere; what may not is told.
    assert_eq!(waiting.response().await.text(), "staying");
    assert_eq!(posting.response().await.status(), 503);
    let mut client = proxy.client().await;
    assert_eq!(client.get_with("/", &cookie).await.text(), "staying");
    eventually("nothing is kept", async || (going.open() == 0).then_some(())).await;
    let served = going.served();
    assert_eq!(client.get_with("/", &cookie).await.text(), "staying");
    assert_eq!(going.served(), served);
    // With a weight it is a member like any other.
    proxy
        .change(|document| {
            document.pools[0].members[0] = document.pools[0].members[0].clone().weight(1);
        })
        .await;
    assert_eq!(proxy.client().await.get_with("/", &cookie).await.text(), "going");
}

#[tokio::test]
async fn nobody_is_failed_under_load_by_members_that_go_at_once() {
    let [a, b, c] = [Backend::named("a").await, Backend::named("b").await, Backend::named("c").await];
    let at_once = pool(json!({ "drain_timeout": 0 })).members([&a, &b, &c]);
    let mut proxy = Proxy::start(Document::of(Listener::http(), at_once)).await;
    let load = Load::new().keep_alive(8, proxy.address()).connection_each(2, proxy.address());
    load.more(50).await;
    for round in 0..10 {
        proxy
            .change(|document| {
                let members = &mut document.pools[0].members;
                for (at, member) in members.iter_mut().enumerate() {
                    *member = member.clone().weight(if at == round % 3 { 0 } else { 1 });
                }
            })
            .await;
        load.more(50).await;
    }
    assert_eq!(load.stop().await.into_keys().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_is_told_what_a_request_would_meet_and_why() {
    let Some(amphora) = Amphora::start().await else { return };
    let well = Backend::named("well").await;
    let dead = SocketAddr::new(well.address.ip(), free_port(well.address.ip()));
    let mut other = Pool::http();
    other.members.push(Member::of(&well).weight(0));
    let canary = L7Rule::new("HEADER", "EQUAL_TO", "yes").with("key", "X-Canary");
    let listener = Listener::http().policy(L7Policy::to_pool(&other, canary));
    let document =
        Document::of(listener, Pool::http().members([&well]).member(Member::at(dead))).pool(&other);
    amphora.apply(&document);
    let mut client = Client::connect(document.address()).await;
    for _ in 0..4 {
        assert_eq!(client.get("/").await.text(), "well");
    }
    let id = document.listeners[0].id.to_string();
    let explain = |more: &[&str]| {
        let told = amphora.told(&[&["explain", &id, "--json"], more].concat());
        serde_json::from_value::<Explanation>(told).unwrap()
    };
    let told = explain(&["--request", "GET /api", "--host", "www.example.org"]);
    assert_eq!(told.outcome, "goes to a member");
    assert!(
        !told.policies[0].matches && told.policies[0].why_not[0].contains("HEADER X-Canary EQUAL_TO"),
        "{told:?}"
    );
    // A member without a monitor is asked, whatever it has done; what that was is there to be read.
    let of_dead = &told.pools[0].members[1];
    assert!(
        of_dead.may_get_it && of_dead.amphora.failures[0].what == "connect: Connection refused",
        "{told:?}"
    );
    let status = amphora.told(&["status", "--json"]);
    let told = &status["statuses"]["loadbalancer"]["pools"][0]["members"][1]["amphora"]["failures"][0];
    assert_eq!(told["what"], "connect: Connection refused", "{status:#}");
    for _ in 0..4 {
        let again = amphora.told(&["status", "--json"]);
        let again = &again["statuses"]["loadbalancer"]["pools"][0]["members"][1]["amphora"]["failures"][0];
        assert_eq!(again, told, "a failure is told alike whenever it is asked for");
    }

    let told = explain(&["--header", "X-Canary: yes"]);
    assert_eq!(told.outcome, "answered with 503: no member may be used");
    let why = told.pools[0].members[0].why_not.as_deref().unwrap_or_default();
    assert!(told.policies[0].matches && why.starts_with("its weight is 0"), "{told:?}");
    assert_eq!(client.get_with("/", "X-Canary: yes\r\n").await.status(), 503, "and so it is");
}
