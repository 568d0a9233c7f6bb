//! A PROMETHEUS listener.

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use amphora_ipc::proxy::ListenerStats;
use amphora_model::CheckState;
use amphora_tests::{
    Backend, Certificates, Client, Document, End, HealthMonitor, Listener, Pool, Proxy, Step, TlsClient,
    eventually,
    http2::{self, Http2Client, request},
};
use h2::client::Builder;
use rustls::version::{TLS12, TLS13};

#[tokio::test]
async fn a_prometheus_listener_shows_what_there_is_and_nothing_else() {
    let (a, b) = (Backend::named("a").await, Backend::named("b").await);
    let pool = Pool::http().members([&a, &b]).monitored(&HealthMonitor::new("TCP"));
    let document = Document::of(Listener::http(), pool).listener(Listener::prometheus());
    let mut proxy = Proxy::start(document).await;
    for _ in 0..10 {
        assert_eq!(proxy.client().await.get("/").await.status(), 200);
    }
    let mut scraper = Client::connect(proxy.document.address_of(1)).await;
    let metrics = scraper.get("/metrics").await;
    assert_eq!(metrics.status(), 200);
    assert!(metrics.field("content-type").unwrap().starts_with("text/plain"));
    let ids = [&proxy.document.pools[0].members[0].id, &proxy.document.pools[0].members[1].id];
    let ids = ids.map(ToString::to_string);
    let text = metrics.text();
    assert!(ids.iter().all(|id| text.contains(id)), "{text}");
    check_with_promtool(&text);

    // What it has of the machine it can find out in its confinement.
    for (name, least, most) in
        [("resident_memory_bytes", 1 << 20, 1 << 31), ("open_fds", 10, 10_000), ("max_fds", 1000, 1 << 31)]
    {
        let name = format!("amphora_proxy_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok());
        let value = value.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        assert!((least..=most).contains(&value), "{name}{value}");
    }

    // The same on the control socket, and nothing but it here.
    let same = proxy.request("GET", "/metrics", "").await.unwrap().text();
    assert_eq!(names(&same), names(&text));
    for path in ["/", "/stats", "/metricsx"] {
        assert_eq!(scraper.get(path).await.status(), 403, "{path}");
    }
    // It is counted there as elsewhere: one of 200, three of 403.
    let listener = counted(&proxy).await;
    assert_eq!((listener.requests, listener.request_errors), (4, 0));
    assert_eq!((listener.responses.success, listener.responses.client_error), (1, 3));
    let sent = "GET /metrics HTTP/1.1\r\n\r\n".len() as u64;
    assert!(listener.bytes_in > sent && listener.bytes_out > text.len() as u64, "{listener:?}");
    let mut old = Client::connect(proxy.document.address_of(1)).await;
    old.send("GET /metrics HTTP/1.0\r\n\r\n").await;
    let to_old = old.response().await;
    assert!(!to_old.has("transfer-encoding"));
    assert_eq!(names(&to_old.text()), names(&text));
    assert_eq!(old.end().await, End::Closed(Vec::new()));

    // A member that is deleted leaves no series.
    proxy
        .change(|document| {
            document.pools[0].members.pop();
        })
        .await;
    let text = scraper.get("/metrics").await.text();
    assert!(text.contains(&ids[0]) && !text.contains(&ids[1]));
    check_with_promtool(&text);
}

#[tokio::test]
async fn what_became_of_members_and_how_fast_it_went_is_told() {
    let healthy = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&healthy);
    let member = Backend::http("a", move |request| match request.target() {
        "/healthz" if !told.load(Ordering::SeqCst) => {
            vec![Step::ReadBody, Step::response("500 Told So", "", ""), Step::Close]
        }
        _ => Step::ok("a"),
    })
    .await;
    let monitor = HealthMonitor::new("HTTP").with("url_path", "/healthz");
    let mut proxy =
        Proxy::start(Document::of(Listener::http(), Pool::http().members([&member]).monitored(&monitor)))
            .await;
    let (pool, id) = (proxy.document.pools[0].id, proxy.document.pools[0].members[0].id);
    let pool = format!("{{pool=\"{pool}\"}}");
    let id = format!("{{{},member=\"{id}\"}}", &pool[1..pool.len() - 1]);
    let scrape = async || proxy.request("GET", "/metrics", "").await.unwrap().text();
    let of = |text: &str, name: &str, labels: &str| -> f64 {
        let found =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(labels)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name}{labels} in\n{text}")).parse().unwrap()
    };
    proxy.until_member(0, "up", |member| member.check == CheckState::Up).await;
    assert_eq!(of(&scrape().await, "octavia_member_last_session_seconds", &id), -1.0);
    for _ in 0..10 {
        assert_eq!(proxy.client().await.get("/").await.status(), 200);
    }
    let text = eventually("the rate is known", async || {
        let text = scrape().await;
        (of(&text, "octavia_member_max_session_rate", &id) > 0.0).then_some(text)
    })
    .await;
    for name in
        ["octavia_pool_max_session_rate", "octavia_pool_max_sessions", "octavia_pool_max_total_time_seconds"]
    {
        assert!(of(&text, name, &pool) > 0.0, "{name}");
    }
    assert!(of(&text, "octavia_pool_last_session_seconds", &pool) >= 0.0);
    let (mean, max) = ("octavia_member_total_time_average_seconds", "octavia_member_max_total_time_seconds");
    assert!(of(&text, mean, &id) > 0.0 && of(&text, mean, &id) <= of(&text, max, &id));
    assert!(of(&text, "octavia_loadbalancer_max_connection_rate", "") > 0.0);
    assert_eq!(of(&text, "octavia_member_check_up_down_total", &id), 0.0);
    assert_eq!(of(&text, "octavia_member_downtime_seconds_total", &id), 0.0);

    healthy.store(false, Ordering::SeqCst);
    proxy.until_member(0, "down", |member| member.check == CheckState::Down).await;
    healthy.store(true, Ordering::SeqCst);
    proxy.until_member(0, "up", |member| member.check == CheckState::Up).await;
    let text = scrape().await;
    assert!(of(&text, "octavia_member_check_failures_total", &id) >= 1.0);
    for (kind, labels) in [("member", &id), ("pool", &pool)] {
        let of = |name: &str| of(&text, &format!("octavia_{kind}_{name}"), labels);
        assert_eq!(of("check_up_down_total"), 1.0, "{kind}");
        assert!(of("downtime_seconds_total") > 0.0, "{kind}");
    }
    check_with_promtool(&text);

    // No change of the configuration resets any of it.
    let before = proxy.member(0).await.history;
    proxy
        .change(|document| {
            let members = &mut document.pools[0].members;
            members[0] = members[0].clone().weight(7);
        })
        .await;
    let after = proxy.member(0).await.history;
    assert_eq!((after.went_down, after.check_failures), (before.went_down, before.check_failures));
    assert_eq!((after.downtime_ms, after.max_session_rate), (before.downtime_ms, before.max_session_rate));
}

/// What is counted for the PROMETHEUS listener, which is the second.
async fn counted(proxy: &Proxy) -> ListenerStats {
    proxy.stats().await.listeners[&proxy.document.listeners[1].id]
}

/// The names of all metrics.
fn names(text: &str) -> Vec<&str> {
    let comments = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    comments.filter_map(|rest| rest.split(' ').next()).collect()
}

fn check_with_promtool(text: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("SKIPPED: promtool (package prometheus) is not there");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// In HTTP/2 as in HTTP/1.1.
#[tokio::test]
async fn scrapers_may_speak_http2() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member]).listener(Listener::prometheus())).await;
    let address = proxy.document.address_of(1);
    let usual = Client::connect(address).await.get("/metrics").await;
    let mut scraper = Http2Client::connect(address).await;
    let before = counted(&proxy).await;
    let mut least = 0;
    for _ in 0..3 {
        let metrics = scraper.get("/metrics").await;
        least += metrics.body.len() as u64;
        assert_eq!(metrics.status, Some(200));
        assert_eq!(metrics.field("content-type"), usual.field("content-type"));
        assert_eq!(metrics.field("cache-control"), usual.field("cache-control"));
        assert_eq!(names(&metrics.text()), names(&usual.text()));
    }
    assert_eq!(scraper.get("/").await.status, Some(403));
    let after = counted(&proxy).await;
    assert_eq!((after.requests - before.requests, after.request_errors), (4, 0));
    assert_eq!((after.responses.success - before.responses.success, after.responses.client_error), (3, 1));
    assert!(after.bytes_in > before.bytes_in && after.bytes_out - before.bytes_out > least, "{after:?}");
    // At once, as often as there may be streams.
    let mut begun = Vec::new();
    for _ in 0..50 {
        begun.push(scraper.begin(request("GET", "/metrics"), true).await.0);
    }
    // What they send shares a window.
    let begun: Vec<_> = begun.into_iter().map(|response| tokio::spawn(http2::answer(response))).collect();
    for metrics in begun {
        let metrics = metrics.await.unwrap();
        assert_eq!((metrics.status, metrics.reset), (Some(200), None));
        assert_eq!(names(&metrics.text()), names(&usual.text()));
    }
    let head = scraper.ask(request("HEAD", "/metrics"), None, None).await;
    assert_eq!((head.status, head.body.len()), (Some(200), 0));
    assert_eq!(head.field("content-type"), usual.field("content-type"));
    for (method, path) in [("GET", "/"), ("GET", "/metricsx"), ("POST", "/metrics"), ("DELETE", "/metrics")] {
        assert_eq!(scraper.ask(request(method, path), None, None).await.status, Some(403), "{method} {path}");
    }
    assert_eq!(scraper.ask(request("POST", "/metrics"), Some(b"hello"), None).await.status, Some(403));
    assert_eq!(scraper.get("/metrics").await.status, Some(200));
    // What it does wrong ends it as any other.
    let mut raw = Client::connect(address).await;
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[7; 8]].concat();
    raw.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], &ping.repeat(1000)].concat())
        .await;
    let End::Closed(frames) = raw.end().await else { panic!("a GOAWAY before the end") };
    let calm = frames.windows(4).rev().find(|code| *code == [0, 0, 0, 11]);
    assert!(calm.is_some(), "ENHANCE_YOUR_CALM");
    assert_eq!(scraper.get("/metrics").await.status, Some(200));
}

/// As Octavia has it: a PROMETHEUS listener with a certificate is scraped over TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_with_a_certificate_is_scraped_over_tls() {
    let certificates = Certificates::new();
    let member = Backend::named("a").await;
    let scraped = Listener::prometheus()
        .with("default_tls_container_ref", "server")
        .with("client_authentication", "OPTIONAL")
        .with("client_ca_tls_container_ref", "ca");
    let document = Document::http([&member]).listener(scraped.clone());
    let mut proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
    let address = proxy.document.address_of(1);
    // One that would rather speak HTTP/1.1, or does not say what.
    for (offered, agreed) in [(&["http/1.1"][..], Some(&b"http/1.1"[..])), (&[], None)] {
        let config = certificates.client(&[&TLS12, &TLS13], offered);
        let mut scraper = TlsClient::connect(address, &config, "shop.example").await.unwrap();
        assert_eq!(scraper.stream.get_ref().1.alpn_protocol(), agreed);
        for _ in 0..2 {
            let metrics = scraper.get("/metrics", "").await.unwrap();
            assert_eq!(metrics.status(), 200);
            assert!(metrics.text().contains("octavia_listener_status"));
        }
        assert_eq!(scraper.get("/", "").await.unwrap().status(), 403);
    }
    let mut plain = Client::connect(address).await;
    plain.send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(plain.end().await, End::Closed(Vec::new()));
    // What Prometheus offers.
    let config = certificates.client(&[&TLS12, &TLS13], &["h2", "http/1.1"]);
    let stream = certificates.connect_with(config, address).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut scraper = Http2Client::over(stream, &Builder::new()).await;
    let metrics = scraper.get("/metrics").await;
    assert_eq!(metrics.status, Some(200));
    assert!(metrics.text().contains("octavia_listener_status"));
    // With another protocol it is another listener, on what is there of TLS.
    let mut document = proxy.document.clone();
    document.listeners[1] =
        document.listeners[1].clone().with("protocol", "TERMINATED_HTTPS").to(&document.pools[0]);
    proxy.apply(&document).await;
    let config = certificates.client(&[&TLS13], &["h2"]);
    let client = TlsClient::connect(address, &config, "shop.example").await.unwrap();
    assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}
