//! Health monitors: what they make of members, and what that means for traffic.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU16, Ordering},
};

use amphora_model::CheckState;
use amphora_tests::{
    Backend, Document, HealthMonitor, Listener, Load, Member, Pool, Proxy, Step, eventually,
};

/// A member whose `/healthz` answers this status, and everything else 200 with its name.
async fn with_status(name: &'static str, status: &Arc<AtomicU16>) -> Backend {
    let status = Arc::clone(status);
    Backend::http(name, move |request| {
        if request.target() == "/healthz" {
            let status = status.load(Ordering::SeqCst);
            vec![Step::ReadBody, Step::response(&format!("{status} Told So"), "", ""), Step::Close]
        } else {
            Step::ok(name)
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_fails_its_checks_goes_and_comes_back_without_a_lost_request() {
    let (fine, told) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(200)));
    let (a, b) = (with_status("a", &fine).await, with_status("b", &told).await);
    let monitor = HealthMonitor::new("HTTP")
        .with("url_path", "/healthz")
        .with("expected_codes", "200-204,301")
        .with("max_retries", 2)
        .with("max_retries_down", 2);
    let pool = Pool::http().members([&a, &b]).monitored(&monitor);
    let proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    proxy.until_member(1, "up", |member| member.check == CheckState::Up).await;
    let load = Load::new().keep_alive(2, proxy.address()).connection_each(2, proxy.address());
    load.more(50).await;

    told.store(503, Ordering::SeqCst);
    proxy.until_member(1, "up, but failing", |m| m.check == CheckState::UpFailing { passed: 1, of: 2 }).await;
    proxy.until_member(1, "down", |member| member.check == CheckState::Down).await;
    let before = proxy.member(1).await.selected;
    load.more(100).await;
    assert_eq!(proxy.member(1).await.selected, before);

    told.store(301, Ordering::SeqCst);
    proxy
        .until_member(1, "down, but rising", |m| m.check == CheckState::DownRising { passed: 1, of: 2 })
        .await;
    proxy.until_member(1, "up", |member| member.check == CheckState::Up).await;
    load.more(50).await;
    assert!(proxy.member(1).await.selected > before);
    assert_eq!(proxy.member(0).await.check, CheckState::Up);
    load.stop().await;
}

#[tokio::test]
async fn with_all_members_down_there_is_503_until_one_is_up() {
    let status = Arc::new(AtomicU16::new(500));
    let member = with_status("a", &status).await;
    let monitor = HealthMonitor::new("HTTP").with("url_path", "/healthz");
    let pool = Pool::http().members([&member]).monitored(&monitor);
    let proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    proxy.until_member(0, "down", |member| member.check == CheckState::Down).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.status(), 503);
    status.store(200, Ordering::SeqCst);
    proxy.until_member(0, "up", |member| member.check == CheckState::Up).await;
    assert_eq!(client.get("/").await.text(), "a");
}

#[tokio::test]
async fn a_member_that_is_checked_no_more_serves_once_the_change_is_answered() {
    let member = with_status("a", &Arc::new(AtomicU16::new(500))).await;
    let monitor = |path: &str| HealthMonitor::new("HTTP").with("url_path", path);
    let unchecked = Pool::http().members([&member]);
    let checked = unchecked.clone().monitored(&monitor("/healthz"));
    let checked_anew = unchecked.clone().monitored(&monitor("/"));
    let off = checked.clone().with("admin_state_up", false);
    let document = Document::of(Listener::http(), checked.clone());
    let with_pool = |pool: &Pool| {
        let mut document = document.clone();
        document.pools[0] = pool.clone();
        document
    };
    let mut proxy = Proxy::start(document.clone()).await;
    let mut client = proxy.client().await;
    for round in 0..4 {
        for after in [vec![&unchecked], vec![&off, &checked_anew]] {
            proxy.until_member(0, "down", |member| member.check == CheckState::Down).await;
            for pool in &after {
                proxy.apply(&with_pool(pool)).await;
            }
            assert_eq!(client.get("/").await.status(), 200, "round {round}, {} steps", after.len());
            proxy.apply(&with_pool(&unchecked)).await;
            proxy.apply(&with_pool(&checked)).await;
        }
    }
}

#[tokio::test]
async fn a_monitor_may_look_elsewhere_than_traffic_goes() {
    let member = Backend::named("a").await;
    let alive = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&alive);
    let monitor_port = Backend::http("monitor", move |request| {
        assert_eq!(request.first_line(), "HEAD /check HTTP/1.1");
        assert_eq!(request.field("host"), Some("shop.example"));
        let status = if answers.load(Ordering::SeqCst) { "202 Fine" } else { "404 Not Fine" };
        vec![Step::response(status, "", ""), Step::Close]
    })
    .await;
    let monitor = HealthMonitor::new("HTTP")
        .with("http_method", "HEAD")
        .with("url_path", "/check")
        .with("http_version", 1.1)
        .with("domain_name", "shop.example")
        .with("expected_codes", "202");
    let watched = Member::of(&member)
        .with("monitor_address", monitor_port.address.ip().to_string())
        .with("monitor_port", monitor_port.address.port());
    let pool = Pool::http().member(watched).monitored(&monitor);
    let proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    proxy.until_member(0, "up", |member| member.check == CheckState::Up).await;
    assert_eq!(member.connections(), 0);
    alive.store(false, Ordering::SeqCst);
    proxy.until_member(0, "down", |member| member.check == CheckState::Down).await;
    assert_eq!(proxy.client().await.get("/").await.status(), 503);
}

#[tokio::test]
async fn members_that_share_a_target_share_its_probes() {
    let status = Arc::new(AtomicU16::new(200));
    let member = with_status("a", &status).await;
    let monitored = |pool: Pool| {
        let monitor = HealthMonitor::new("HTTP").with("url_path", "/healthz");
        pool.members([&member]).monitored(&monitor)
    };
    let (first, second) = (monitored(Pool::http()), monitored(Pool::http()));
    let document = Document::new()
        .listener(Listener::http().to(&first))
        .listener(Listener::http().to(&second))
        .pool(&first)
        .pool(&second);
    let proxy = Proxy::start(document).await;
    let all = |state: CheckState| {
        move |stats: &amphora_ipc::proxy::Stats| {
            stats.pools.values().flat_map(|pool| pool.members.values()).all(|member| member.check == state)
        }
    };
    let begun = std::time::Instant::now();
    proxy.until("both are up", all(CheckState::Up)).await;
    eventually("three probes", async || (member.served() >= 3).then_some(())).await;
    // One probe a second, not two.
    assert!(member.served() <= 2 + begun.elapsed().as_secs() as usize + 1, "{}", member.served());
    status.store(500, Ordering::SeqCst);
    proxy.until("both are down", all(CheckState::Down)).await;
}

#[tokio::test]
async fn without_a_monitor_members_count_as_up() {
    let member = Backend::named("a").await;
    let mut proxy = Proxy::start(Document::http([&member])).await;
    assert_eq!(proxy.member(0).await.check, CheckState::NoCheck);
    // One that comes makes a claim, one that goes takes it back.
    let monitor = HealthMonitor::new("TCP");
    proxy.change(|document| document.pools[0] = document.pools[0].clone().monitored(&monitor)).await;
    proxy.until_member(0, "up", |member| member.check == CheckState::Up).await;
    let monitor = monitor.with("admin_state_up", false);
    proxy.change(|document| document.pools[0] = document.pools[0].clone().monitored(&monitor)).await;
    proxy.until_member(0, "not checked", |member| member.check == CheckState::NoCheck).await;
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
}

#[tokio::test]
async fn a_member_that_is_down_gets_nothing_of_connections_that_outlive_a_drain() {
    let status = Arc::new(AtomicU16::new(200));
    // It says that it is ill, and would answer all the same.
    let ill = with_status("ill", &status).await;
    let well = Backend::named("well").await;
    let monitor = HealthMonitor::new("HTTP").with("url_path", "/healthz");
    let pool = Pool::http().members([&ill, &well]).monitored(&monitor);
    let mut proxy = Proxy::start(Document::of(Listener::http(), pool)).await;
    proxy.until_member(1, "up", |member| member.check == CheckState::Up).await;
    status.store(500, Ordering::SeqCst);
    proxy.until_member(0, "down", |member| member.check == CheckState::Down).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = proxy.client().await;
        client.send("GET / HTTP/1.1\r\n").await;
        clients.push(client);
    }
    proxy.until_listener("all are there", |listener| listener.active_connections == 6).await;
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    let address = proxy.address();
    eventually("new connections are refused", async || {
        amphora_tests::Client::try_connect(address).await.err()
    })
    .await;
    for client in &mut clients {
        client.send("Host: a\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "well");
    }
    assert!(proxy.ended().await.success());
}
