//! Logs that change while requests are under way: a line is of one format, with all that this format names.

use std::path::Path;

use amphora_tests::{Backend, Client, Document, Listener, Pool, Proxy, Step, eventually, loopback};
use serde_json::json;

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
        let directory = tempfile::tempdir().unwrap();
        let syslog = Syslog::bind(directory.path(), "log");
        let pool = Pool::http().members([member]);
        let document = Document::at(loopback()).listener(Listener::http().to(&pool)).pool(&pool);
        let path = directory.path().join("log").display().to_string();
        let proxy = Proxy::start_with(
            document.clone().with("amphora", json!({"user_log_format": BEFORE})),
            &["--log-socket", &path, "--workers", "1"],
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

/// A line without how large the request was, which is for other tests.
fn masked_size(line: &str) -> String {
    let (request, rest) = line.rsplit_once("\" ").unwrap_or((line, ""));
    let (size, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    assert!(size.parse::<u32>().is_ok_and(|size| size > 0), "{line}");
    format!("{request}\" {rest}")
}
