//! `/1.0`, as far as it needs no network: the load balancer beside the native API, its texts and certificates.

mod datagrams;
mod own;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, header::HOST};
use serde_json::json;

use super::vrrp::put_as;
use super::*;
use crate::testing::{Mood, TestAgent, agent::Answer};

const LB: &str = "33333333-3333-4333-8333-333333333333";
const UPLOAD: &str =
    "/1.0/loadbalancer/22222222-2222-4222-8222-222222222222/33333333-3333-4333-8333-333333333333/haproxy";

fn action(name: &str) -> String {
    format!("/1.0/loadbalancer/{LB}/{name}")
}

fn certificate(name: &str) -> String {
    format!("/1.0/loadbalancer/{LB}/certificates/{name}")
}

/// What the templates of Octavia render of one listener, with this in its `bind` line.
fn text(bind: &str) -> String {
    format!(
        "# Configuration for loadbalancer {LB}
global
    daemon
    user nobody
    log /run/rsyslog/octavia/log local0
    log /run/rsyslog/octavia/log local1 notice
    stats socket /var/lib/octavia/{LB}.sock mode 0666 level user
    server-state-file /var/lib/octavia/{LB}/servers-state
    maxconn 50000

defaults
    log global
    retries 3
    option redispatch
    option http-keep-alive

frontend 44444444-4444-4444-8444-444444444444
    maxconn 50000
    bind 10.77.0.100:80{bind}
    mode http
    default_backend 66666666-6666-4666-8666-666666666666:44444444-4444-4444-8444-444444444444
    timeout client 50000

backend 66666666-6666-4666-8666-666666666666:44444444-4444-4444-8444-444444444444
    mode http
    balance roundrobin
    option allbackups
    timeout connect 5000
    timeout server 50000
    server 77777777-7777-4777-8777-777777777777 10.77.0.11:80 weight 1
"
    )
}

fn said(answer: &Answer) -> (u16, String) {
    let json = answer.json();
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), format!("{}{} {}", text("error"), text("message"), text("details")))
}

#[tokio::test]
async fn a_text_is_kept_and_taken_up_and_stopped() {
    let agent = TestAgent::new().await;
    let text = text("");
    assert_eq!(said(&agent.put(&action("start"), "").await).0, 404);
    let uploaded = agent.put(UPLOAD, &text).await;
    assert_eq!(
        (uploaded.status.as_u16(), uploaded.headers["etag"].to_str().unwrap()),
        (202, &*format!("{:x}", md5::compute(&text)))
    );
    assert_eq!(agent.proxy.document(), None, "nothing is taken up before it is asked for");
    let listed = |status: &str| json!([{"status": status, "uuid": "44444444-4444-4444-8444-444444444444", "type": "HTTP"}]);
    assert_eq!(agent.get("/1.0/listeners").await.json(), listed("OFFLINE"));

    assert_eq!(said(&agent.put(&action("RELOAD"), "").await).0, 202);
    let document: serde_json::Value = serde_json::from_slice(&agent.proxy.document().unwrap()).unwrap();
    assert_eq!(document["loadbalancer"]["id"], LB);
    assert_eq!(agent.get("/1.0/listeners").await.json(), listed("ACTIVE"));
    assert!(said(&agent.put(&action("reload"), "").await).1.ends_with("reloaded"));
    assert_eq!(agent.get(&action("haproxy")).await.body, text);

    // Stopped across a restart of the agent, and started again.
    assert_eq!(said(&agent.put(&action("stop"), "").await).0, 202);
    assert_eq!(agent.proxy.document(), None);
    let restarted = agent.restarted();
    restarted.reconcile().await.unwrap();
    assert_eq!((agent.proxy.document(), restarted.listeners().len()), (None, 1));
    assert_eq!(said(&agent.put(&action("start"), "").await).0, 202);
    assert!(agent.proxy.document().is_some());
    assert!(agent.restarted().model().is_some(), "a reboot brings it back");

    let path = format!("/1.0/listeners/{LB}");
    for _ in 0..2 {
        assert_eq!(said(&agent.request(Method::DELETE, &path, "").await), (200, "OK ".to_owned()));
    }
    assert_eq!((agent.proxy.document(), agent.get("/1.0/listeners").await.json()), (None, json!([])));
    assert_eq!(agent.get(&action("haproxy")).await.status, 404);
}

#[tokio::test]
async fn what_is_refused_leaves_what_runs() {
    let agent = TestAgent::new().await;
    agent.put(UPLOAD, &text("")).await;
    agent.put(&action("start"), "").await;
    let running = agent.proxy.document();
    for (wrong, place) in [
        ("global\n  bogus directive\n".to_owned(), "line 2: bogus directive"),
        (text(" bogus"), "line 19: bind 10.77.0.100:80 bogus"),
        (String::new(), ""),
    ] {
        let (status, words) = said(&agent.put(UPLOAD, &wrong).await);
        assert_eq!(status, 400, "{words}");
        assert!(words.starts_with("Invalid request ") && words.contains(place), "{words}");
    }
    assert_eq!(agent.get(&action("haproxy")).await.body, text(""));

    // What the proxy refuses is said with the line: when the text comes, or when it is taken up by a proxy that was not asked before.
    let listener = "44444444-4444-4444-8444-444444444444";
    let refusing = || agent.proxy.be(Mood::Refusing(listener, hyper::StatusCode::BAD_REQUEST));
    let other = text("").replace("weight 1", "weight 2");
    let place = "line 19: bind 10.77.0.100:80: tls_ciphers: has 4";
    refusing();
    let (status, words) = said(&agent.put(UPLOAD, &other).await);
    assert!(status == 400 && words.starts_with("Invalid request ") && words.contains(place), "{words}");
    assert_eq!(agent.get(&action("haproxy")).await.body, text(""));
    for mood in
        [Mood::Willing, Mood::BreakingOff, Mood::Refusing(listener, hyper::StatusCode::SERVICE_UNAVAILABLE)]
    {
        agent.proxy.be(mood);
        assert_eq!(said(&agent.put(UPLOAD, &other).await).0, 202);
    }
    refusing();
    let (status, words) = said(&agent.put(&action("reload"), "").await);
    assert!(
        status == 400 && words.starts_with("Error reloading haproxy ") && words.contains(place),
        "{words}"
    );
    agent.proxy.be(Mood::Willing);
    assert_eq!(agent.proxy.document(), running);
    assert_eq!(said(&agent.put(&action("reload"), "").await).0, 202);
    assert_ne!(agent.proxy.document(), running);
}

#[tokio::test]
async fn neither_api_overwrites_the_others_load_balancer() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    assert_eq!(agent.get("/1.0/listeners").await.json()[0]["status"], "ACTIVE");
    let upload = format!("/1.0/loadbalancer/x/{ID}/haproxy");
    for answer in [
        agent.put(&upload, &text("")).await,
        agent.put(UPLOAD, &text("")).await,
        agent.put(&format!("/1.0/loadbalancer/{ID}/reload"), "").await,
        agent.put(&format!("/1.0/loadbalancer/{ID}/stop"), "").await,
        agent.request(Method::DELETE, &format!("/1.0/listeners/{ID}"), "").await,
    ] {
        assert_eq!(said(&answer).0, 409, "{}", said(&answer).1);
    }
    assert!(said(&agent.put(&upload, "").await).1.contains("came by /2.0"));
    assert_eq!(agent.request(Method::DELETE, &lb(), "").await.status, 200);

    agent.put(UPLOAD, &text("")).await;
    assert_eq!(
        agent.put(&lb(), DOCUMENT).await.code(),
        (409, "other_api".to_owned()),
        "before it is started"
    );
    agent.put(&action("start"), "").await;
    let native = format!("/2.0/loadbalancers/{LB}");
    let document = agent.get(&native).await;
    assert_eq!(document.status, 200, "it is seen");
    let document = String::from_utf8(document.body.to_vec()).unwrap();
    let member = format!(
        "{native}/pools/66666666-6666-4666-8666-666666666666/members/77777777-7777-4777-8777-777777777777"
    );
    for answer in [
        agent.put(&native, &document).await,
        agent.put(&lb(), DOCUMENT).await,
        agent.put(&member, r#"{"member": {"weight": 3}}"#).await,
        agent.request(Method::DELETE, &native, "").await,
    ] {
        assert_eq!(answer.code(), (409, "other_api".to_owned()));
    }
}

#[tokio::test]
async fn a_text_has_its_own_certificates() {
    let agent = TestAgent::new().await;
    let bind = format!(" ssl crt-list /var/lib/octavia/certs/{LB}/44444444-4444-4444-8444-444444444444.pem");
    let https = text(&bind).replace("    bind ", "    redirect scheme https if !{ ssl_fc }\n    bind ");
    let list = certificate("44444444-4444-4444-8444-444444444444.pem");
    let (status, words) = said(&agent.put(UPLOAD, &https).await);
    assert!(status == 400 && words.contains("line 20") && words.contains("not there"), "{words}");
    agent.put(&list, &format!("/var/lib/octavia/certs/{LB}/abc.pem\n")).await;
    let (status, words) = said(&agent.put(UPLOAD, &https).await);
    assert!(status == 400 && words.contains("line 20") && words.contains("abc.pem"), "{words}");
    agent.put(&certificate("abc.pem"), "garbage").await;
    let (status, words) = said(&agent.put(UPLOAD, &https).await);
    assert!(
        status == 400 && words.contains("line 20") && words.contains("abc.pem cannot be used"),
        "{words}"
    );
    // It is good for something else.
    agent.put(&certificate("abc.pem"), &std::fs::read_to_string(agent.certificates.ca()).unwrap()).await;
    let (status, words) = said(&agent.put(UPLOAD, &https).await);
    assert!(status == 400 && words.contains("line 20") && words.contains("abc has"), "{words}");

    let pem = agent.certificates.issue("one.example");
    agent.put(&certificate("abc.pem"), &pem).await;
    let known = agent.get(&certificate("abc.pem")).await;
    assert_eq!(known.json()["md5sum"], format!("{:x}", md5::compute(&pem)));
    assert_eq!(agent.put(UPLOAD, &https).await.status, 202);
    let stored =
        async || agent.get("/2.0/certificates").await.json()["certificates"].as_array().unwrap().clone();
    assert_eq!(stored().await.len(), 1, "it is there for the start");
    // Another text takes its place; one that is refused leaves nothing.
    let other = agent.certificates.issue("two.example");
    agent.put(&certificate("abc.pem"), &other).await;
    assert_eq!(agent.put(UPLOAD, &https).await.status, 202);
    assert_eq!(stored().await.len(), 1);
    agent.put(&certificate("abc.pem"), &pem).await;
    agent.proxy.be(Mood::Refusing("loadbalancer", hyper::StatusCode::BAD_REQUEST));
    assert_eq!(agent.put(UPLOAD, &https).await.status, 400);
    assert_eq!(stored().await.len(), 0);
    agent.proxy.be(Mood::Willing);
    assert_eq!(agent.put(UPLOAD, &https).await.status, 202);
    let started = agent.put(&action("start"), "").await;
    assert_eq!(started.status, 202, "{:?}", said(&started));
    let first = stored().await;
    assert_eq!((first.len(), first[0]["used_by"].as_array().unwrap().len()), (1, 1));

    // The controller deletes first, and sends the text without it then.
    for name in ["abc.pem", "44444444-4444-4444-8444-444444444444.pem"] {
        assert_eq!(agent.request(Method::DELETE, &certificate(name), "").await.status, 200);
    }
    assert_eq!(stored().await, first);
    agent.put(UPLOAD, &text("")).await;
    agent.put(&action("reload"), "").await;
    // The document before may come back.
    assert_eq!(stored().await.len(), 1);
    agent.put(UPLOAD, &text("").replace("weight 1", "weight 2")).await;
    agent.put(&action("reload"), "").await;
    assert_eq!(stored().await.len(), 0);
}

#[tokio::test]
async fn what_is_left_out_of_a_text_is_told_by_the_status() {
    let agent = TestAgent::new().await;
    let text = include_str!("../../octavia/haproxy_cfg/samples/legal-tcp.cfg");
    let id = "b708f6ae-8280-5d76-9ad7-2a7230bf3e03";
    let upload = UPLOAD.replace(LB, id);
    assert_eq!(said(&agent.put(&upload, text).await).0, 202);
    assert_eq!(said(&agent.put(&action("start").replace(LB, id), "").await).0, 202);
    let status = agent.get(&format!("/2.0/loadbalancers/{id}/status")).await.json();
    let line = |text: &str| json!({"path": "haproxy.cfg", "text": text});
    let told = json!([
        line("line 27: policies need a listener or a pool of mode http"),
        line("line 29: a listener of mode tcp chooses no pool by requests"),
        line("line 39: a pool of mode tcp has no session persistence by cookie"),
    ]);
    assert_eq!(status["remarks"], told);
    // Also by an agent that has read the text again.
    let restarted = serde_json::to_value(agent.restarted().text_remarks()).unwrap();
    assert_eq!(restarted, told);
}

#[tokio::test]
async fn errors_are_of_the_two_shapes_and_of_statuses_that_are_errors() {
    let agent = TestAgent::with(|config| config.max_body_size = 100_000).await;
    let answer = agent.put(UPLOAD, &"x".repeat(100_001)).await;
    assert_eq!(said(&answer).0, 400, "413 would be taken for success: {}", said(&answer).1);
    assert_eq!(answer.headers["connection"], "close");
    for (method, path, status) in [
        (Method::GET, "/nope", 404),
        (Method::GET, "/1.0/info/", 404),
        (Method::POST, "/1.0/info", 405),
        (Method::DELETE, "/", 405),
        (Method::GET, "//", 200),
    ] {
        let answer = agent.request(method, path, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.headers["connection"].to_str().unwrap()),
            (status, "close"),
            "{path}"
        );
    }
    let options = Request::builder().method(Method::OPTIONS).uri("/1.0/info").header(HOST, "x");
    let answer = agent.send(options.body(Full::default()).unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["allow"]),
        (200, &"GET, OPTIONS, HEAD".parse().unwrap())
    );
    // The native API stays as it is, and keeps connections.
    assert!(!agent.get("/2.0/nope").await.headers.contains_key("connection"));
    let udp = agent.put("/1.0/listeners/a/b/udp_listener", "x").await;
    assert!(said(&udp).0 == 400 && said(&udp).1.contains("listener's id"), "{:?}", said(&udp));
}
