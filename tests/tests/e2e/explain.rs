//! What an operator is told a request would meet, and that it is what a request meets.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use amphora_ipc::proxy::Explanation;
use amphora_tests::{
    Amphora, Backend, Certificates, Client, Document, L7Policy, L7Rule, Listener, Load, Pool, Proxy,
    TlsClient,
};
use rustls::version::TLS13;
use serde_json::{Value, json};
use uuid::Uuid;

/// A day: no period ends while a test runs.
const DAY: u64 = 86_400;

fn limit(name: &str, action: &str, rule: Value) -> Value {
    let mut rule = rule;
    rule["id"] = json!(Uuid::new_v4().to_string());
    json!({ "id": Uuid::new_v4().to_string(), "name": name, "action": action, "rules": [rule] })
}

async fn ask(proxy: &Proxy, question: &Value) -> Explanation {
    let answer = proxy.request("POST", "/explain", &question.to_string()).await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_is_told_with_what_it_has_counted_of_that_client() {
    let Some(amphora) = Amphora::start().await else { return };
    let member = Backend::named("member").await;
    let limits = json!([
        limit("slow", "DENY", json!({ "metric": "REQUESTS", "threshold": 5, "interval": DAY })),
        limit("few", "REJECT", json!({ "metric": "CONNECTIONS", "threshold": 1000, "interval": DAY })),
    ]);
    let listener = Listener::http().with("rate_limit_policies", limits);
    let document = Document::of(listener, Pool::http().members([&member]));
    amphora.apply(&document);
    let id = document.listeners[0].id.to_string();
    let [client, load]: [IpAddr; 2] = ["127.64.0.1".parse().unwrap(), "127.64.0.2".parse().unwrap()];
    let explain = |client: IpAddr| -> Explanation {
        let told = amphora.told(&["explain", &id, "--json", "--client", &client.to_string()]);
        serde_json::from_value(told).unwrap()
    };
    let count = |told: &Explanation, at: usize| {
        let limit = &told.rate_limits[at].counts[0];
        (limit.client.clone(), limit.count, limit.threshold, limit.interval_s, limit.broken)
    };
    let text = |client: IpAddr| client.to_string();
    assert_eq!(count(&explain(client), 0), (text(client), Some(0), 5, DAY, false));

    // Others ask all the time: it is of nobody's but one's own requests that one is told.
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect_from(load, document.address()).await;
        others.push(tokio::spawn(async move {
            for _ in 0..50 {
                client.get("/").await;
            }
        }));
    }
    // Whichever worker it is.
    for asked in 1..=5 {
        let mut client_of = Client::connect_from(client, document.address()).await;
        assert_eq!(client_of.get("/").await.status(), 200);
        let told = explain(client);
        assert_eq!(count(&told, 0), (text(client), Some(asked), 5, DAY, asked == 5));
        assert_eq!(count(&told, 1), (text(client), Some(asked), 1000, DAY, false));
        if asked < 5 {
            assert_eq!(
                (&told.outcome[..], told.rate_limits[0].verdict.as_deref()),
                ("goes to a member", None)
            );
        }
    }
    for other in others {
        other.await.unwrap();
    }
    // Asking counts nothing, however often.
    for _ in 0..3 {
        let told = explain(client);
        assert_eq!(told.outcome, "answered with 429 by rate limit slow");
        let verdict = told.rate_limits[0].verdict.as_deref().unwrap();
        assert!(verdict.starts_with("answered with 429: one more would pass after "), "{verdict}");
        assert_eq!(told.rate_limits[1].verdict, None);
    }
    assert_eq!(Client::connect_from(client, document.address()).await.get("/").await.status(), 429);
    assert_eq!(count(&explain(client), 0).1, Some(6), "what is turned away counts, too");
    assert_eq!(explain("127.64.0.3".parse().unwrap()).outcome, "goes to a member");
}

#[tokio::test]
async fn a_queue_is_told_with_the_turn_that_would_come() {
    let member = Backend::named("member").await;
    let mut queue = limit("calm", "QUEUE", json!({ "metric": "REQUESTS", "threshold": 2, "interval": 120 }));
    queue["amphora"] = json!({ "queue_size": 10, "queue_timeout": 60 });
    let listener = Listener::http().with("rate_limit_policies", json!([queue]));
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let question = json!({ "listener": proxy.document.listeners[0].id, "client": "127.0.0.1" });
    assert_eq!(ask(&proxy, &question).await.outcome, "goes to a member");
    let mut client = proxy.client().await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.status(), 200);
    }
    let told = ask(&proxy, &question).await;
    let counted = &told.rate_limits[0].counts[0];
    assert_eq!((counted.count, counted.threshold, counted.broken), (Some(2), 2, true));
    let waits = told.outcome.strip_prefix("goes to a member; kept waiting for ");
    let waits = waits.and_then(|waits| waits.strip_suffix(" s by rate limit calm")?.parse::<f64>().ok());
    assert!(waits.is_some_and(|waits| waits > 1.0 && waits <= 60.0), "{}", told.outcome);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_certificate_is_judged_as_in_a_handshake() {
    let Some(amphora) = Amphora::start().await else { return };
    let certificates = Certificates::new();
    certificates.issue("alice", &["alice.example"]);
    certificates.issue_expired("old", &["alice.example"]);
    for id in ["server", "ca"] {
        let file = certificates.file(id).display().to_string();
        assert!(amphora.controller(&["certificate", "put", id, &file]));
    }
    let (own, other) = (Backend::named("own").await, Backend::named("other").await);
    let to_own = Pool::http().members([&own]);
    let has_none = L7Rule::new("SSL_CONN_HAS_CERT", "EQUAL_TO", "True").with("invert", true);
    let listener = Listener::https("server")
        .with("client_authentication", "OPTIONAL")
        .with("client_ca_tls_container_ref", "ca")
        .policy(L7Policy::new("REJECT", has_none.clone()))
        .policy(
            L7Policy::to_pool(
                &to_own,
                L7Rule::new("SSL_DN_FIELD", "EQUAL_TO", "alice.example").with("key", "CN"),
            )
            .and(L7Rule::new("SSL_VERIFY_RESULT", "EQUAL_TO", "0")),
        );
    let document = Document::of(listener, Pool::http().members([&other])).pool(&to_own);
    amphora.apply(&document);
    let id = document.listeners[0].id.to_string();
    let explain = |certificate: Option<&str>| -> Explanation {
        let file = certificate.map(|id| certificates.file(id).display().to_string());
        let shown: Vec<&str> = file.iter().flat_map(|file| ["--certificate", file]).collect();
        serde_json::from_value(amphora.told(&[&["explain", &id, "--json"], &shown[..]].concat())).unwrap()
    };
    let asks = async |certificate: Option<&str>| {
        let config = Arc::new(certificates.client_with(certificate, &[&TLS13]));
        let mut client = TlsClient::connect(document.address(), &config, "shop.example").await.ok()?;
        client.get("/", "").await.ok()
    };

    let told = explain(None);
    assert_eq!(told.outcome, format!("answered with 403 by policy {}", told.policies[0].id));
    let why: Vec<_> = told.policies.iter().map(|policy| (policy.matches, policy.why_not.len())).collect();
    assert_eq!(why, [(true, 0), (false, 1)], "{:?}", told.policies);
    assert_eq!(asks(None).await.unwrap().status(), 403);

    let told = explain(Some("alice"));
    assert_eq!((&told.outcome[..], told.pools[0].id), ("goes to a member", to_own.id), "{told:?}");
    assert_eq!(asks(Some("alice")).await.unwrap().text(), "own");

    let told = explain(Some("old"));
    assert!(
        told.outcome.starts_with("refused in the TLS handshake: the client's certificate is not taken"),
        "{}",
        told.outcome
    );
    assert_eq!(asks(Some("old")).await, None);
    // A file without one, and a listener without TLS.
    assert!(!amphora.controller(&["explain", &id, "--certificate", "/dev/null"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_rules_are_told_of_and_nobody_waits_for_that() {
    let member = Backend::named("member").await;
    let mut listener = Listener::http();
    for policy in 0..1000 {
        let mut rules = L7Policy::new("REJECT", L7Rule::path(&format!("/policy/{policy}")));
        for rule in 1..10 {
            let value = format!("^/policy/{policy}/[a-z]+/{rule}");
            rules = rules.and(L7Rule::new("PATH", "REGEX", &value));
        }
        listener = listener.policy(rules);
    }
    let proxy = Proxy::start(Document::of(listener, Pool::http().members([&member]))).await;
    let load = Load::new().keep_alive(2, proxy.address());
    load.more(10).await;
    let question = json!({ "listener": proxy.document.listeners[0].id, "target": "/policy/7/a/3" });
    let asked = async {
        let begun = Instant::now();
        let told = ask(&proxy, &question).await;
        (told, begun.elapsed())
    };
    let waits = async {
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let begun = Instant::now();
            proxy.info().await;
            longest = longest.max(begun.elapsed());
        }
        longest
    };
    let ((told, took), longest) = tokio::join!(asked, waits);
    assert_eq!(told.policies.len(), 1000);
    assert_eq!(told.policies.iter().map(|policy| policy.why_not.len()).sum::<usize>(), 9_998);
    // It was more than a minute; and the control thread is asked other things meanwhile.
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    assert_eq!(load.stop().await.into_keys().collect::<Vec<_>>(), ["member"]);
}
