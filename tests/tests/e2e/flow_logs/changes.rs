//! Logs while something changes: requests that are under way then, and workers that log at once. A line is of one format, with all
//! that this format names, and of each request there is one.

use std::{collections::BTreeSet, path::Path};

use amphora_tests::{Backend, Client, Document, Listener, Pool, Proxy, Step, eventually, loopback};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use super::pair::Syslog;

/// This names nothing that has to be kept or asked for.
const BEFORE: &str = "before %ST %ts";
/// This names what does.
const AFTER: &str = "after %{+Q}r %U %fi %ac";

/// A proxy with a log in this format.
struct Logging {
    proxy: Proxy,
    document: Document,
    syslog: Syslog,
    _directory: tempfile::TempDir,
}

impl Logging {
    async fn start(member: &Backend) -> Self {
        Self::with_workers(member, "1", BEFORE).await
    }

    async fn with_workers(member: &Backend, workers: &str, format: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let syslog = Syslog::bind(directory.path(), "log");
        let pool = Pool::http().members([member]);
        let document = Document::at(loopback()).listener(Listener::http().to(&pool)).pool(&pool);
        let path = directory.path().join("log").display().to_string();
        let proxy = Proxy::start_with(
            document.clone().with("amphora", json!({"user_log_format": format})),
            &["--log-socket", &path, "--workers", workers],
        )
        .await;
        assert!(Path::new(&path).exists());
        Self { proxy, document, syslog, _directory: directory }
    }

    /// Another format, or no log at all.
    async fn log(&mut self, format: Option<&str>) {
        let amphora = match format {
            Some(format) => json!({"user_log_format": format}),
            None => json!({"connection_logging": false}),
        };
        self.proxy.apply(&self.document.clone().with("amphora", amphora)).await;
    }

    /// The text of the next line.
    async fn line(&self) -> String {
        let line = self.syslog.line("a request").await;
        let (_, text) = line.split_once("]: ").unwrap();
        text.trim_end().to_owned()
    }
}

/// A member that answers `/held` when it is let, and takes `/upgrade` out of HTTP then.
async fn member() -> Backend {
    Backend::http("member", |request| match request.target() {
        "/held" => vec![Step::ReadBody, Step::Wait, Step::response("200 OK", "", "hello")],
        "/upgrade" => vec![
            Step::ReadBody,
            Step::Wait,
            Step::send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"),
            Step::Echo,
        ],
        _ => Step::ok("hello"),
    })
    .await
}

async fn asked(member: &Backend, requests: usize) {
    eventually("the member has been asked", async || (member.requests().len() == requests).then_some(()))
        .await;
}

#[tokio::test]
async fn a_request_is_logged_in_the_format_of_its_beginning() {
    let member = member().await;
    let mut logging = Logging::start(&member).await;
    let address = logging.proxy.address();
    let mut client = logging.proxy.client().await;
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
    asked(&member, 1).await;
    logging.log(Some(AFTER)).await;
    member.proceed();
    assert_eq!(client.response().await.status(), 200);
    assert_eq!(logging.line().await, "before 200 --");
    // The next of the same connection.
    client.get("/next").await;
    let after = format!("after \"GET /next HTTP/1.1\" 37 {} 1", address.ip());
    assert_eq!(masked_size(&logging.line().await), masked_size(&after));

    // The other way round, to no log at all, which takes no line from what was begun.
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
    asked(&member, 3).await;
    logging.log(None).await;
    member.proceed();
    client.response().await;
    let held = format!("after \"GET /held HTTP/1.1\" 37 {} 1", address.ip());
    assert_eq!(masked_size(&logging.line().await), masked_size(&held));

    // And from none, where nothing is known of what was begun.
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
    asked(&member, 4).await;
    logging.log(Some(AFTER)).await;
    member.proceed();
    client.response().await;
    client.get("/last").await;
    assert!(logging.line().await.starts_with("after \"GET /last HTTP/1.1\""));
}

#[tokio::test]
async fn a_tunnel_is_logged_in_the_format_of_its_request() {
    let member = member().await;
    let mut logging = Logging::start(&member).await;
    let mut client = Client::connect(logging.proxy.address()).await;
    client.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    asked(&member, 1).await;
    logging.log(Some(AFTER)).await;
    member.proceed();
    assert_eq!(client.response_head().await.status(), 101);
    client.send("ping").await;
    client.expect("ping").await;
    client.finish().await;
    client.end().await;
    assert_eq!(logging.line().await, "before 101 --");
}

#[tokio::test]
async fn a_request_whose_listener_or_proxy_goes_is_logged_when_it_ends() {
    let member = member().await;
    let mut logging = Logging::start(&member).await;
    let mut client = logging.proxy.client().await;
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
    asked(&member, 1).await;
    logging.proxy.apply(&Document::at(loopback())).await;
    member.proceed();
    assert_eq!(client.response().await.status(), 200);
    assert_eq!(logging.line().await, "before 200 --");

    logging.log(Some(BEFORE)).await;
    let mut client = logging.proxy.client().await;
    client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
    asked(&member, 2).await;
    logging.proxy.signal(Signal::SIGTERM);
    member.proceed();
    assert_eq!(client.response().await.status(), 200);
    assert_eq!(logging.line().await, "before 200 --");
    assert!(logging.proxy.ended().await.success());
    assert_eq!(logging.syslog.nothing_more(), None);
}

#[tokio::test]
async fn workers_that_log_at_once_lose_and_mix_no_line() {
    const CLIENTS: usize = 12;
    const REQUESTS: usize = 25;
    let member = member().await;
    let logging = Logging::with_workers(&member, "4", "%HU %ST %lc %rt").await;
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = logging.proxy.client().await;
        clients.spawn(async move {
            for request in 0..REQUESTS {
                client.get(&format!("/{number}/{request}")).await;
            }
        });
    }
    let mut rest = BTreeSet::from_iter((0..CLIENTS * REQUESTS).map(|n| (n / REQUESTS, n % REQUESTS)));
    let (mut lines, mut sessions) = (BTreeSet::new(), BTreeSet::new());
    while !rest.is_empty() {
        let line = logging.line().await;
        let [target, "200", number, session] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let (client, request) = target[1..].split_once('/').unwrap();
        assert!(rest.remove(&(client.parse().unwrap(), request.parse().unwrap())), "{line}");
        assert!(lines.insert(number.parse::<u32>().unwrap()), "{line}");
        assert!(sessions.insert(session.parse::<u32>().unwrap()), "{line}");
    }
    clients.join_all().await;
    assert_eq!(lines.last(), Some(&((CLIENTS * REQUESTS - 1) as u32)));
}

/// A line without how large the request was, which is for other tests.
fn masked_size(line: &str) -> String {
    let (request, rest) = line.rsplit_once("\" ").unwrap_or((line, ""));
    let (size, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    assert!(size.parse::<u32>().is_ok_and(|size| size > 0), "{line}");
    format!("{request}\" {rest}")
}
