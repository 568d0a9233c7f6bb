//! Listeners that terminate TLS, and members that are spoken to over it.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use amphora_tests::{
    Backend, Certificates, Client, Document, End, HaProxy, HaProxyConfig, HealthMonitor, L7Policy, L7Rule,
    Listener, Member, PATIENCE, Pool, Proxy, TlsClient, TlsMember, eventually, in_time,
};
use rustls::version::{TLS12, TLS13};
use tokio::{io::AsyncWriteExt, process::Command};

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// What a program writes on standard output and error, and whether it was content.
async fn run(program: &str, arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = in_time(program, child.wait_with_output()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

async fn start(document: Document, certificates: &Certificates) -> Proxy {
    Proxy::start_with(document, &["--certificates", &certificates.option()]).await
}

/// The only listener, with a certificate for `shop.example`, before one member.
async fn shop(member: &Backend) -> (Proxy, Certificates) {
    let certificates = Certificates::new();
    certificates.issue("web", &["shop.example"]);
    let document = Document::of(Listener::https("web"), Pool::http().members([member]));
    (start(document, &certificates).await, certificates)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_clients_get_the_certificate_that_they_ask_for() {
    let certificates = Certificates::new();
    certificates.issue("web", &["shop.example"]);
    certificates.issue("api", &["api.example", "*.wild.example"]);
    let member = Backend::named("a").await;
    let listener = Listener::https("web")
        .with("sni_container_refs", vec!["api"])
        .with("hsts_max_age", 60)
        .with("insert_headers", serde_json::json!({"X-Forwarded-Proto": "true", "X-Forwarded-Port": "true"}));
    let proxy = start(Document::of(listener, Pool::http().members([&member])), &certificates).await;
    let (ip, port) = (proxy.address().ip().to_string(), proxy.address().port().to_string());
    let ca = certificates.file("ca").display().to_string();
    for (host, versions) in [
        ("shop.example", &["--tlsv1.3"][..]),
        ("api.example", &["--tlsv1.2", "--tls-max", "1.2"]),
        ("a.wild.example", &[]),
    ] {
        let url = format!("https://{host}:{port}/");
        let resolve = format!("{host}:{port}:{ip}");
        // Twice: the second request goes over the same connection.
        let mut arguments = vec!["-sS", "-i", "--http1.1", "--cacert", &ca, "--resolve", &resolve];
        arguments.extend_from_slice(versions);
        arguments.extend([&*url, &*url]);
        let (good, text) = run("curl", &arguments, "").await;
        assert!(good && text.matches("HTTP/1.1 200 OK").count() == 2, "{host}: {text}");
        assert_eq!(
            text.to_lowercase().matches("strict-transport-security: max-age=60;\r\n").count(),
            2,
            "{text}"
        );
        let seen = member.last_request();
        assert_eq!(seen.fields("x-forwarded-proto").collect::<Vec<_>>(), ["https"]);
        assert_eq!(seen.field("x-forwarded-port"), Some(&*port));
    }
    assert_eq!(member.served(), 6);
    let stats = proxy.listener().await;
    assert_eq!((stats.total_connections, stats.handshakes.completed, stats.requests), (3, 3, 6));

    // Whoever offers it gets HTTP/2.
    let resolve = format!("shop.example:{port}:{ip}");
    let url = format!("https://shop.example:{port}/");
    let arguments = ["-sS", "--http2", "-w", "%{http_version}", "--cacert", &ca, "--resolve", &resolve, &url];
    assert_eq!(run("curl", &arguments, "").await, (true, "a2".to_owned()));
    assert_eq!(member.last_request().fields("x-forwarded-proto").collect::<Vec<_>>(), ["https"]);

    // Another name, or none, is shown the default.
    let address = proxy.address().to_string();
    for names in [&["-servername", "other.example"][..], &["-noservername"]] {
        let arguments = [&["s_client", "-connect", &address][..], names].concat();
        let (_, text) = run("openssl", &arguments, "Q\n").await;
        assert!(text.contains("CN = shop.example") || text.contains("CN=shop.example"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_that_is_told_of_a_certificate_is_that_of_the_one_which_is_shown() {
    // 1 January of 2099 and of 2021.
    const GOOD: u64 = 4_070_908_800;
    const OVER: u64 = 1_609_459_200;
    let certificates = Certificates::new();
    certificates.issue("api", &["api.example"]);
    let member = Backend::named("a").await;
    let listener = Listener::https("server").with("sni_container_refs", vec!["api"]);
    let id = listener.id;
    let document = Document::of(listener, Pool::http().members([&member])).listener(Listener::prometheus());
    let mut proxy = start(document, &certificates).await;
    let scrape = async |proxy: &Proxy| {
        let mut scraper = Client::connect(proxy.document.address_of(1)).await;
        [proxy.request("GET", "/metrics", "").await.unwrap().text(), scraper.get("/metrics").await.text()]
    };
    let line = |certificate: &str, until: u64| {
        let name = "amphora_listener_tls_certificate_expiry_timestamp_seconds";
        format!("{name}{{listener=\"{id}\",certificate=\"{certificate}\"}} {until}\n")
    };
    for text in scrape(&proxy).await {
        assert!(text.contains(&line("server", GOOD)) && text.contains(&line("api", GOOD)), "{text}");
    }
    // A file that has changed is of no account until the document comes again, nor is what is told.
    certificates.issue_expired("api", &["api.example"]);
    assert!(proxy.request("GET", "/metrics", "").await.unwrap().text().contains(&line("api", GOOD)));
    proxy.change(|_| ()).await;
    eventually("it is told by both", async || {
        let told = scrape(&proxy).await;
        let all = |text: &String| text.contains(&line("server", GOOD)) && text.contains(&line("api", OVER));
        told.iter().all(all).then_some(())
    })
    .await;
    proxy
        .change(|document| {
            let listener = document.listeners[0].clone();
            document.listeners[0] = listener.with("sni_container_refs", Vec::<String>::new());
        })
        .await;
    eventually("it is told no more", async || {
        let told = scrape(&proxy).await;
        told.iter().all(|text| !text.contains("certificate=\"api\"")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_resumed_whichever_worker_is_met() {
    let member = Backend::named("a").await;
    let (proxy, certificates) = shop(&member).await;
    let mut completed = 0;
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(certificates.client_with(None, &[version]));
        for _ in 0..8 {
            let mut client = TlsClient::connect(proxy.address(), &config, "shop.example").await.unwrap();
            assert_eq!(client.get("/", "").await.unwrap().text(), "a");
            completed += 1;
        }
    }
    let handshakes = proxy.until_listener("handshakes", |l| l.handshakes.completed == completed).await;
    let handshakes = handshakes.listeners.values().next().unwrap().handshakes;
    assert_eq!(handshakes.resumed, completed - 2, "all but the first of each");
    let scraped = proxy.request("GET", "/metrics", "").await.unwrap().text();
    let name = "amphora_listener_tls_handshakes_resumed_total";
    let id = proxy.document.listeners[0].id;
    assert!(scraped.contains(&format!("{name}{{listener=\"{id}\"}} {}\n", completed - 2)), "{scraped}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_shake_hands_is_treated_as_by_haproxy() {
    let member = Backend::named("a").await;
    let (mut proxy, certificates) = shop(&member).await;
    proxy
        .change(|document| {
            document.listeners[0] = document.listeners[0].clone().with("timeout_client_data", 1000);
        })
        .await;
    let pem = certificates.file("web").display().to_string();
    let mut config = HaProxyConfig { client_timeout: 1000, ..HaProxyConfig::http([member.address]) };
    config.bind = format!("ssl crt {pem}");
    let judge = HaProxy::start(&config).await;
    let addresses = [Some(proxy.address()), judge.as_ref().map(|judge| judge.address)];
    for address in addresses.into_iter().flatten() {
        // Plain HTTP, which nobody redirects; something else; a hello that does not end; nothing at all.
        for said in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\0\0\0\0\0\0\0\0\0\0", "\x16\x03\x01\x02", ""] {
            let mut client = Client::connect(address).await;
            client.send(said).await;
            assert_eq!(client.end().await, End::Closed(Vec::new()), "{address}: {said:?}");
        }
    }
    let stats = proxy.until_listener("four failures", |l| l.handshakes.failed.total() == 4).await;
    let stats = stats.listeners.values().next().unwrap();
    assert_eq!((stats.handshakes.failed.protocol, stats.handshakes.failed.late), (2, 2));
    assert_eq!((stats.total_connections, stats.requests, stats.request_errors), (0, 0, 0));
    if let Some(judge) = &judge {
        assert_eq!(judge.stat("FRONTEND", "stot").await, 0);
        assert_eq!(judge.stat("FRONTEND", "req_tot").await, 0);
    }
    // What is no version of today's is told so.
    let address = proxy.address().to_string();
    let (_, text) =
        run("openssl", &["s_client", "-connect", &address, "-tls1_1", "-cipher", "ALL@SECLEVEL=0"], "Q\n")
            .await;
    assert!(text.contains("alert protocol version"), "{text}");
    proxy.until_listener("an incompatible client", |l| l.handshakes.failed.incompatible == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_under_load_and_nobody_notices() {
    let member = Backend::named("a").await;
    let (mut proxy, certificates) = shop(&member).await;
    let certificates = Arc::new(certificates);
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (stop, served, certificates) =
            (Arc::clone(&stop), Arc::clone(&served), Arc::clone(&certificates));
        let address = proxy.address();
        clients.push(tokio::spawn(async move {
            let config = Arc::new(certificates.client_with(None, BOTH));
            let mut long = TlsClient::connect(address, &config, "shop.example").await.unwrap();
            while !stop.load(Ordering::SeqCst) {
                let mut short = TlsClient::connect(address, &config, "shop.example").await.unwrap();
                for client in [&mut short, &mut long] {
                    assert_eq!(client.get("/", "").await.unwrap().status(), 200);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            }
        }));
    }
    let fresh = Arc::new(certificates.client_with(None, &[&TLS13]));
    let mut last = TlsClient::connect(proxy.address(), &fresh, "shop.example").await.unwrap().certificate();
    let document = proxy.document.clone();
    for _ in 0..10 {
        let before = served.load(Ordering::SeqCst);
        certificates.issue("web", &["shop.example"]);
        // The document is the same, what it names is not.
        assert!(proxy.apply(&document).await.changed);
        assert!(!proxy.apply(&document).await.changed);
        let config = Arc::new(certificates.client_with(None, &[&TLS13]));
        let now = TlsClient::connect(proxy.address(), &config, "shop.example").await.unwrap().certificate();
        assert_ne!(now, last, "new handshakes get the new one at once");
        last = now;
        eventually("requests go on", async || (served.load(Ordering::SeqCst) > before + 8).then_some(()))
            .await;
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        in_time("a client", client).await.unwrap();
    }
    // One that is no good is refused, and nothing changes.
    certificates.put("web", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let refused = proxy.try_apply(&document).await.unwrap_err();
    let path = format!("loadbalancer.listeners[{}].default_tls_container_ref", document.listeners[0].id);
    assert_eq!(refused.refusal.faults[0].path, path);
    let mut client = TlsClient::connect(proxy.address(), &fresh, "shop.example").await.unwrap();
    assert_eq!(client.get("/", "").await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_certificates_are_asked_for_and_told_of() {
    let certificates = Certificates::new();
    certificates.issue("web", &["shop.example"]);
    certificates.issue("me", &["client one"]);
    let (good, other) = (Backend::named("good").await, Backend::named("other").await);
    let to_good = Pool::http().members([&good]);
    let listener = Listener::https("web")
        .with("client_authentication", "OPTIONAL")
        .with("client_ca_tls_container_ref", "ca")
        .with(
            "insert_headers",
            serde_json::json!({"X-SSL-Client-Verify": "true", "X-SSL-Client-Has-Cert": "true", "X-SSL-Client-CN": "true"}),
        )
        .policy(
            L7Policy::to_pool(&to_good, L7Rule::new("SSL_CONN_HAS_CERT", "EQUAL_TO", "True"))
                .and(L7Rule::new("SSL_DN_FIELD", "STARTS_WITH", "client").with("key", "CN"))
                .and(L7Rule::new("SSL_VERIFY_RESULT", "EQUAL_TO", "0")),
        );
    let document = Document::of(listener, Pool::http().members([&other])).pool(&to_good);
    let proxy = start(document, &certificates).await;
    let forged = "X-SSL-Client-CN: root\r\nX-SSL-Client-Verify: 1\r\n";
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(certificates.client_with(Some("me"), &[version]));
        // The second is resumed, and knows as much.
        for _ in 0..2 {
            let mut client = TlsClient::connect(proxy.address(), &config, "shop.example").await.unwrap();
            assert_eq!(client.get("/", forged).await.unwrap().text(), "good");
            let seen = good.last_request();
            assert_eq!(seen.fields("x-ssl-client-cn").collect::<Vec<_>>(), ["client one"]);
            assert_eq!(seen.fields("x-ssl-client-verify").collect::<Vec<_>>(), ["0"]);
            assert_eq!(seen.field("x-ssl-client-has-cert"), Some("1"));
        }
        let config = Arc::new(certificates.client_with(None, &[version]));
        let mut client = TlsClient::connect(proxy.address(), &config, "shop.example").await.unwrap();
        assert_eq!(client.get("/", forged).await.unwrap().text(), "other");
        let seen = other.last_request();
        assert_eq!(seen.fields("x-ssl-client-cn").collect::<Vec<_>>(), [""]);
        assert_eq!(seen.field("x-ssl-client-has-cert"), Some("0"));
    }
}

/// A plain listener before members over TLS.
fn before(members: &[&TlsMember]) -> (Listener, Pool) {
    let pool = Pool::http().members(members.iter().map(|member| &member.backend)).with("tls_enabled", true);
    (Listener::http(), pool)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_spoken_to_over_tls_and_connections_are_kept_for_who_would_make_the_same() {
    let certificates = Certificates::new();
    certificates.issue("web", &["shop.example", "api.example"]);
    certificates.issue("member", &["shop.example", "api.example"]);
    certificates.issue("proxy", &["the proxy"]);
    let member = TlsMember::start(&certificates, "member", true).await;
    let pool = Pool::http()
        .members([&member.backend])
        .with("tls_enabled", true)
        .with("ca_tls_container_ref", "ca")
        .with("tls_container_ref", "proxy");
    let document = Document::of(Listener::https("web"), pool);
    let mut proxy =
        Proxy::start_with(document, &["--workers", "1", "--certificates", &certificates.option()]).await;
    let config = Arc::new(certificates.client_with(None, BOTH));
    let ask = async |host: &str, address| {
        let mut client = TlsClient::connect(address, &config, host).await.unwrap();
        client.get("/", "").await.unwrap().text()
    };
    for _ in 0..3 {
        assert!(ask("shop.example", proxy.address()).await.starts_with("sni=shop.example certificate=true"));
    }
    assert_eq!(member.backend.connections(), 1, "one connection for all that ask for the same host");
    assert!(ask("api.example", proxy.address()).await.starts_with("sni=api.example certificate=true"));
    assert_eq!(member.backend.connections(), 2, "and another for another");
    assert!(ask("shop.example", proxy.address()).await.starts_with("sni=shop.example"));
    assert_eq!(member.backend.connections(), 2);
    let stats = proxy.stats().await;
    let handshakes = stats.pools.values().next().unwrap().handshakes;
    assert_eq!((handshakes.completed, handshakes.failed.total()), (2, 0));

    // With another client certificate it is another connection; an old one carries nothing for it.
    certificates.issue("proxy", &["the proxy"]);
    let document = proxy.document.clone();
    assert!(proxy.apply(&document).await.changed);
    assert!(ask("shop.example", proxy.address()).await.starts_with("sni=shop.example"));
    assert_eq!(member.backend.connections(), 3);

    // With an authority that has not signed the member's, nobody is asked.
    certificates.stranger("ca2");
    proxy
        .change(|document| document.pools[0] = document.pools[0].clone().with("ca_tls_container_ref", "ca2"))
        .await;
    let served = member.requests().len();
    let mut client = TlsClient::connect(proxy.address(), &config, "shop.example").await.unwrap();
    assert_eq!(client.get("/", "").await.unwrap().status(), 503);
    assert_eq!(member.requests().len(), served);
    let stats = proxy.stats().await;
    let failed = stats.pools.values().next().unwrap().handshakes.failed;
    assert!(failed.certificate > 0 && failed.total() == failed.certificate, "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_pass_whole_between_all_kinds_of_connections() {
    let certificates = Certificates::new();
    certificates.issue("web", &["shop.example"]);
    let member = TlsMember::start(&certificates, "web", false).await;
    let (plain, pool) = before(&[&member]);
    let document =
        Document::new().listener(plain.to(&pool)).listener(Listener::https("web").to(&pool)).pool(&pool);
    let proxy = start(document, &certificates).await;
    let ca = certificates.file("ca").display().to_string();
    let (ip, directory) = (proxy.address().ip().to_string(), tempfile::tempdir().unwrap());
    let body: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let (sent, got) = (directory.path().join("sent"), directory.path().join("got"));
    std::fs::write(&sent, &body).unwrap();
    let (sent, out) = (format!("@{}", sent.display()), got.display().to_string());
    for (index, scheme) in ["http", "https"].into_iter().enumerate() {
        let port = proxy.document.address_of(index).port().to_string();
        let (url, resolve) = (format!("{scheme}://shop.example:{port}"), format!("shop.example:{port}:{ip}"));
        let common = ["-sS", "--http1.1", "--cacert", &ca, "--resolve", &resolve, "-o", &out];
        for framing in ["Expect:", "Transfer-Encoding: chunked"] {
            let post =
                [&common[..], &["-H", framing, "-H", "Expect:", "--data-binary", &sent, &url]].concat();
            let (good, text) = run("curl", &post, "").await;
            assert!(good && std::fs::read(&got).unwrap() == body, "{scheme} {framing}: {text}");
        }
        let large = format!("{url}/bytes/20000000");
        let (good, text) = run("curl", &[&common[..], &[&*large]].concat(), "").await;
        assert!(good && std::fs::read(&got).unwrap().len() == 20_000_000, "{scheme}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_over_tls_are_checked_over_tls() {
    let certificates = Certificates::new();
    certificates.issue("member", &["member.example"]);
    certificates.stranger("other");
    let member = TlsMember::start(&certificates, "member", false).await;
    let plain = Backend::named("plain").await;
    for kind in ["HTTP", "HTTPS", "TCP"] {
        let monitor = HealthMonitor::new(kind);
        let (listener, pool) = before(&[&member]);
        let pool = pool.member(Member::of(&plain)).monitored(&monitor).with("ca_tls_container_ref", "ca");
        let mut proxy = start(Document::of(listener, pool), &certificates).await;
        let is = |up: bool| {
            move |m: &amphora_ipc::proxy::MemberStats| {
                m.check.is_up() == up && m.check != amphora_model::CheckState::NoCheck
            }
        };
        proxy.until_member(1, "one without TLS is down", is(false)).await;
        proxy.until_member(0, "one with TLS is up", |m| m.check == amphora_model::CheckState::Up).await;
        proxy
            .change(|document| {
                document.pools[0] = document.pools[0].clone().with("ca_tls_container_ref", "other")
            })
            .await;
        proxy.until_member(0, "one whose certificate is no good is down", is(false)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_relayed_to_members_over_tls() {
    let certificates = Certificates::new();
    certificates.issue("web", &["shop.example"]);
    let member = TlsMember::start(&certificates, "web", false).await;
    let pool = Pool::tcp().members([&member.backend]).with("tls_enabled", true);
    let proxy = start(Document::of(Listener::tcp(), pool), &certificates).await;
    let mut client = proxy.client().await;
    assert!(client.get("/").await.text().starts_with("sni=none"));
    assert_eq!(client.get("/bytes/300000").await.text().len(), 300_000);
    client.finish().await;
    assert_eq!(client.end().await, End::Closed(Vec::new()));
    eventually("the member is let go", async || (member.backend.open() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_takes_its_time_counts_as_a_client_and_costs_little() {
    let member = Backend::named("a").await;
    let (mut proxy, certificates) = shop(&member).await;
    proxy
        .change(|document| document.listeners[0] = document.listeners[0].clone().with("connection_limit", 3))
        .await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(proxy.address()).await;
        client.send([22, 3, 1]).await;
        slow.push(client);
    }
    proxy.until_listener("all places are taken", |l| l.active_connections == 3).await;
    let config = Arc::new(certificates.client_with(None, BOTH));
    let address = proxy.address();
    let waits = tokio::spawn(async move {
        let mut client = TlsClient::connect(address, &config, "shop.example").await.unwrap();
        client.get("/", "").await.unwrap().status()
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waits.is_finished(), "there is no place");
    slow.pop();
    assert_eq!(tokio::time::timeout(PATIENCE, waits).await.unwrap().unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_offer_http_2_get_it() {
    let certificates = Certificates::new();
    certificates.issue("web", &["shop.example"]);
    let member = Backend::named("a").await;
    let insert = serde_json::json!({"X-Forwarded-Proto": "true"});
    let listener = Listener::https("web").with("hsts_max_age", 60).with("insert_headers", insert);
    let proxy = start(Document::of(listener, Pool::http().members([&member])), &certificates).await;
    let ca = certificates.file("ca").display().to_string();
    let address = proxy.address();
    let url = format!("https://shop.example:{}/", address.port());
    let resolve = format!("shop.example:{}:{}", address.port(), address.ip());
    for version in ["--tlsv1.3", "--tls-max"] {
        let mut arguments = vec!["-sS", "-i", "--http2", "--cacert", &ca, "--resolve", &resolve, version];
        if version == "--tls-max" {
            arguments.push("1.2");
        }
        arguments.extend([&*url, &*url]);
        let (good, text) = run("curl", &arguments, "").await;
        assert!(good && text.matches("HTTP/2 200").count() == 2, "{text}");
        assert_eq!(text.matches("strict-transport-security: max-age=60;").count(), 2, "{text}");
    }
    let listener = proxy.listener().await;
    assert_eq!((listener.total_connections, listener.requests), (2, 4));
    assert!(member.requests().iter().all(|request| request.field("x-forwarded-proto") == Some("https")));
}
