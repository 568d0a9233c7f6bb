//! A PROMETHEUS listener.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use amphora_tests::{Backend, Client, Document, End, HealthMonitor, Listener, Pool, Proxy};

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

    // The same on the control socket, and nothing but it here.
    let same = proxy.request("GET", "/metrics", "").await.unwrap().text();
    assert_eq!(names(&same), names(&text));
    for path in ["/", "/stats", "/metricsx"] {
        assert_eq!(scraper.get(path).await.status(), 403, "{path}");
    }
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
