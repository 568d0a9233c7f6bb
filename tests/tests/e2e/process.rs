//! The life of the process: draining, dying, coming back.

use std::{fs, time::Duration};

use amphora_ipc::proxy::Summary;
use amphora_tests::{Backend, Certificates, Client, Document, End, Listener, Pool, Proxy, Step, eventually};
use nix::sys::signal::Signal;

#[tokio::test]
async fn sigterm_lets_requests_finish_and_takes_no_new_ones() {
    let member = Backend::http("a", |request| match request.target() {
        "/slow" => vec![Step::ReadBody, Step::Wait, Step::response("200 OK", "", "late")],
        _ => Step::ok("a"),
    })
    .await;
    let mut proxy = Proxy::start(Document::http([&member])).await;
    let address = proxy.address();
    let mut idle = proxy.client().await;
    assert_eq!(idle.get("/").await.text(), "a");
    let mut busy = proxy.client().await;
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the member has the request", async || (member.served() == 2).then_some(())).await;
    proxy.signal(Signal::SIGTERM);
    assert_eq!(idle.end().await, End::Closed(Vec::new()));
    eventually("new connections are refused", async || Client::try_connect(address).await.err()).await;
    assert!(proxy.runs());
    member.proceed();
    let answer = busy.response().await;
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("late", Some("close")));
    assert_eq!(busy.end().await, End::Closed(Vec::new()));
    assert!(proxy.ended().await.success());
    assert!(!proxy.control().exists());
}

#[tokio::test]
async fn draining_is_bounded_and_a_second_signal_cuts_it_short() {
    let member = Backend::http("a", |_| vec![Step::Wait]).await;
    for (seconds, again) in [("1", false), ("300", true)] {
        let document = Document::http([&member]);
        let mut proxy = Proxy::start_with(document, &["--drain-timeout", seconds]).await;
        let address = proxy.address();
        let mut stuck = proxy.client().await;
        stuck.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        proxy.until_member(0, "the request is stuck", |member| member.active_sessions == 1).await;
        proxy.signal(Signal::SIGTERM);
        if again {
            eventually("new connections are refused", async || Client::try_connect(address).await.err())
                .await;
            proxy.signal(Signal::SIGTERM);
        }
        assert!(proxy.ended().await.success());
        assert!(stuck.ends_within(Duration::from_secs(5)).await);
    }
}

#[tokio::test]
async fn a_killed_proxy_comes_back_with_its_last_document() {
    let member = Backend::named("a").await;
    let document = Document::http([&member]);
    let state = tempfile::tempdir().unwrap();
    fs::write(state.path().join("loadbalancer.json"), document.to_json().to_string()).unwrap();
    let mut proxy = Proxy::restore(document.clone(), state.path()).await;
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
    let before = proxy.info().await.instance;
    proxy.signal(Signal::SIGKILL);
    proxy.ended().await;
    drop(proxy);
    let proxy = Proxy::restore(document, state.path()).await;
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
    assert_ne!(proxy.info().await.instance, before);
}

/// As after a boot of an amphora that keeps certificates in memory: what it replaced is not to be served again.
#[tokio::test]
async fn what_lacks_its_certificates_gives_way_to_nothing() {
    let member = Backend::named("a").await;
    let before = Document::http([&member]);
    let certificates = Certificates::new();
    let mut present = before.to_json();
    let listener = &mut present["loadbalancer"]["listeners"][0];
    (listener["protocol"], listener["default_tls_container_ref"]) =
        ("TERMINATED_HTTPS".into(), "server".into());
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(state.path().join("certificates")).unwrap();
    fs::write(state.path().join("loadbalancer.json"), present.to_string()).unwrap();
    fs::write(state.path().join("loadbalancer.previous.json"), before.to_json().to_string()).unwrap();
    let proxy = Proxy::restore(before.clone(), state.path()).await;
    assert_eq!(proxy.info().await.loadbalancer, None);
    drop(proxy);
    fs::copy(certificates.file("server"), state.path().join("certificates/server.pem")).unwrap();
    let proxy = Proxy::restore(before, state.path()).await;
    assert!(proxy.info().await.loadbalancer.is_some());
}

#[tokio::test]
async fn what_cannot_be_restored_gives_way_to_the_document_before() {
    let member = Backend::named("a").await;
    let good = Document::http([&member]);
    let mut refused = good.to_json();
    refused["loadbalancer"]["listeners"][0]["default_pool_id"] = uuid::Uuid::new_v4().to_string().into();
    for present in ["", "{\"loadbalancer\": {", "\0\0\0\0", &refused.to_string()] {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join("loadbalancer.json"), present).unwrap();
        fs::write(state.path().join("loadbalancer.previous.json"), good.to_json().to_string()).unwrap();
        let proxy = Proxy::restore(good.clone(), state.path()).await;
        assert_eq!(proxy.client().await.get("/").await.text(), "a", "{present:?}");
    }
    // With neither there is nothing to serve, but the control socket waits for a document.
    let state = tempfile::tempdir().unwrap();
    fs::write(state.path().join("loadbalancer.json"), "{").unwrap();
    let mut proxy = Proxy::restore(good.clone(), state.path()).await;
    assert_eq!(proxy.info().await.loadbalancer, None);
    proxy.apply(&good).await;
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
}

#[tokio::test]
async fn deleting_the_load_balancer_closes_everything() {
    let member = Backend::named("a").await;
    let mut proxy = Proxy::start(
        Document::of(Listener::http(), Pool::http().members([&member])).listener(Listener::prometheus()),
    )
    .await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.text(), "a");
    assert_eq!(proxy.request("DELETE", "/loadbalancer", "").await.unwrap().status(), 200);
    assert_eq!(client.end().await, End::Closed(Vec::new()));
    for index in 0..2 {
        let address = proxy.document.address_of(index);
        eventually("new connections are refused", async || Client::try_connect(address).await.err()).await;
    }
    assert_eq!(proxy.request("GET", "/loadbalancer", "").await.unwrap().status(), 404);
    let stats = proxy.stats().await;
    assert!(stats.listeners.is_empty() && stats.pools.is_empty());
    let document = proxy.document.clone();
    proxy.apply(&document).await;
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
}

#[tokio::test]
async fn a_second_proxy_does_not_take_over_the_control_socket() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let control = proxy.control().display().to_string();
    let output = Proxy::command().args(["--control-socket", &control]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("another proxy serves"), "{output:?}");
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
    assert_eq!(proxy.info().await.pid, proxy.pid());
}

#[tokio::test]
async fn the_summary_is_what_heartbeats_need_of_the_statistics_and_small() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
    let stats = proxy.until("the client is gone", |stats| {
        stats.listeners.values().all(|listener| listener.active_connections == 0)
    });
    let summary = Summary::from(&stats.await);
    let answer = proxy.request("GET", "/summary", "").await.unwrap();
    assert_eq!(serde_json::from_slice::<Summary>(&answer.body).unwrap(), summary);
    assert!(summary.listeners.values().all(|listener| listener.bytes_in > 0));
    assert!(summary.pools.values().all(|pool| pool.listeners.len() == 1 && pool.members.len() == 1));
    let all = proxy.request("GET", "/stats", "").await.unwrap();
    assert!(answer.body.len() * 4 < all.body.len(), "{} of {}", answer.body.len(), all.body.len());
}
