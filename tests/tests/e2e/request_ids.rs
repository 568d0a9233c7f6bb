//! What requests are known by: at members, in answers and in flow logs.

use std::collections::BTreeSet;

use amphora_tests::{
    Backend, Document, L7Policy, L7Rule, Listener, Load, Pool, Proxy,
    http2::{Http2Client, request},
    in_time,
};
use serde_json::{Value, json};
use tokio::net::UnixDatagram;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn is_id(text: &str) -> bool {
    uuid::Uuid::parse_str(text).is_ok_and(|id| id.get_version_num() == 4 && id.to_string() == text)
}

#[tokio::test]
async fn members_answers_and_logs_have_the_same_id() {
    let member = Backend::named("member").await;
    let answer = json!({ "action": "ANSWER", "answer": {
        "status": 200, "fields": [{ "name": "X-Id", "value": "${request_id}" }],
    }});
    let edits = json!({ "action": "EDIT", "edits": {
        "response": [{ "op": "SET", "name": "X-Id", "value": "${request_id}" }],
    }});
    let own = |path: &str, own: Value| {
        L7Policy::new("", L7Rule::path(path)).with("action", Value::Null).with("amphora", own)
    };
    let listener = Listener::http()
        .policy(own("/answer", answer))
        .policy(L7Policy::new("REJECT", L7Rule::path("/reject")))
        .policy(own("/", edits))
        .with(
            "amphora",
            json!({
                "request_id": {}, "traceparent": "BEGIN",
                "user_log_format": "%ST %ID %[var(txn.traceparent)] %HP",
            }),
        );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = UnixDatagram::bind(&path).unwrap();
    let document = Document::of(listener, Pool::http().members([&member]));
    let proxy = Proxy::start_with(document, &["--log-socket", path.to_str().unwrap()]).await;
    let line = async || {
        let mut text = vec![0; 4096];
        let length = in_time("a line", log.recv(&mut text)).await.unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut client = proxy.client().await;
    let mut seen = BTreeSet::new();
    // What the client says is not believed.
    let response = client.get_with("/", "X-Request-ID: mine\r\ntracestate: a=b\r\n").await;
    let request = member.last_request();
    let (id, trace) = (request.field("x-request-id").unwrap(), request.field("traceparent").unwrap());
    assert!(is_id(id) && trace.len() == 55 && !request.has("tracestate"), "{}", request.head);
    assert_eq!(response.field("x-id"), Some(id));
    let logged = line().await;
    assert!(logged.contains(&format!("200 {id} {trace} /")), "{logged}");
    seen.insert(id.to_owned());
    // A trace goes on.
    client.get_with("/", &format!("Traceparent: {TRACE}\r\nTracestate: a=b\r\n")).await;
    let request = member.last_request();
    assert_eq!((request.field("traceparent"), request.field("tracestate")), (Some(TRACE), Some("a=b")));
    assert!(line().await.contains(TRACE));
    seen.insert(request.field("x-request-id").unwrap().to_owned());
    // Those that no member gets have one, too.
    let response = client.get("/answer").await;
    let id = response.field("x-id").unwrap().to_owned();
    assert!(line().await.contains(&format!("200 {id} 00-")));
    seen.insert(id);
    client.get("/reject").await;
    let logged = line().await;
    let id = logged.split(' ').find(|word| is_id(word)).unwrap();
    assert!(logged.contains(&format!("403 {id} 00-")), "{logged}");
    seen.insert(id.to_owned());
    // So do those of HTTP/2.
    let mut client = Http2Client::connect(proxy.address()).await;
    let mut asked = self::request("GET", "/h2");
    asked.headers_mut().insert("x-request-id", "mine".parse().unwrap());
    let response = client.ask(asked, None, None).await;
    let request = member.last_request();
    assert_eq!(response.field("x-id"), request.field("x-request-id"));
    assert!(line().await.contains(request.field("x-request-id").unwrap()));
    seen.insert(request.field("x-request-id").unwrap().to_owned());
    assert_eq!(seen.len(), 5, "{seen:?}");
}

#[tokio::test]
async fn an_id_of_the_clients_is_kept_where_that_is_asked_for() {
    let member = Backend::named("member").await;
    let own = json!({ "request_id": { "field": "X-Correlation", "keep": true } });
    let listener = Listener::http().with("amphora", own);
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let mut client = proxy.client().await;
    for (lines, kept) in [
        ("X-Correlation: abc-1\r\n", Some("abc-1")),
        ("X-Correlation: a b\r\n", None),
        ("X-Correlation: a\r\nx-correlation: a\r\n", None),
        ("", None),
    ] {
        client.get_with("/", lines).await;
        let request = member.last_request();
        let found: Vec<_> = request.fields("x-correlation").collect();
        assert!(
            found.len() == 1 && kept.map_or_else(|| is_id(found[0]), |kept| kept == found[0]),
            "{found:?}"
        );
        // Traces are not begun where that is not asked for.
        assert!(!request.has("traceparent") && !request.has("x-request-id"));
    }
}

#[tokio::test]
async fn no_two_requests_have_the_same_id() {
    let member = Backend::named("member").await;
    let listener = Listener::http().with("amphora", json!({ "request_id": {}, "traceparent": "BEGIN" }));
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let load = Load::new().keep_alive(6, proxy.address()).connection_each(2, proxy.address());
    load.more(400).await;
    load.stop().await;
    let requests = member.requests();
    for name in ["x-request-id", "traceparent"] {
        let ids: BTreeSet<_> = requests.iter().map(|request| request.field(name).unwrap()).collect();
        assert_eq!(ids.len(), requests.len());
    }
}
